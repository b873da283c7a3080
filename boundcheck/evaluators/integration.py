"""The enclosure evaluator for continuous models: certified integration over one latent variable.

A formula is walked once for each point of the finite laws in it (corruptions), and an expectation over z turns its
body into a sum of exp(form) times forms (`integration_forms`), whose integrals are enclosed by `integration_rules`.
What has no proven bound is refused, with the law named: numerical quadrature may still estimate it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeAlias

import flint
from flint import arb, fmpq

from boundcheck.errors import BadInput, CannotCompute, UndefinedValue
from boundcheck.evaluators.integration_atoms import Growth
from boundcheck.evaluators.integration_forms import Form, LogSum, log_sum
from boundcheck.evaluators.integration_laws import log_density_form
from boundcheck.evaluators.integration_numbers import Unbounded
from boundcheck.evaluators.integration_rules import integral
from boundcheck.evaluators.integration_symbols import NotAffine, Symbol, as_symbol, exact, is_zero, variable
from boundcheck.evaluators.values import Enclosure
from boundcheck.language.build import Formula, trace
from boundcheck.language.laws import DensityLaw, Law, MixtureLaw, ModelLaw, expand
from boundcheck.language.terms import (
    CORRUPTED,
    OBSERVED,
    Apply,
    Const,
    Expect,
    Integrate,
    LogDensity,
    Plate,
    Reduce,
    Term,
    Var,
    X,
    Z,
)
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import BernoulliLogit, Binomial, Density, Discrete

NAME = "certified integration"
MOST_POINTS = 20_000
"""The largest number of points of finite laws, copies counted, that will be enumerated."""
MOST_PARTS = 64

Addend: TypeAlias = tuple[Any, Form, tuple[Form, ...]]
"""(coefficient, exponent, factors): coefficient * exp(exponent(z)) * prod factor(z)."""


class Sum:
    """A function of z: a sum of addends."""

    def __init__(self, addends: Sequence[Addend]) -> None:
        self.addends = tuple(addends)


Value: TypeAlias = Any
"""A number (`fmpq` or `arb`), a `Form`, or a `Sum`."""


def evaluate(
    formula: Formula | Term,
    model: ContinuousModel,
    x: Any,
    *,
    precision: int | None = None,
    digits: int = 15,
    **parameters: Any,
) -> Enclosure:
    """An interval that contains the value of a formula on a model with one continuous latent variable, in nats.

    Args:
        formula: a function of (m, x, **parameters), or a term.
        model: the model; its functions are called with exact numbers and with a symbol in place of z.
        x: the observation, a number or a tuple of numbers.
        precision: bits after the binary point that the interval shall pin down; the interval shrinks as it grows.
            If given, it takes the place of `digits`.
        digits: decimals that the interval shall pin down. Both are aims: what is returned always contains the value.
        **parameters: the formula's own.

    Returns:
        The enclosure. An expectation of positive terms that diverges for sure is +inf exactly.

    Raises:
        CannotCompute: no certified tail is known for a law, a function of z is not affine where its growth matters,
            or the formula integrates over more than one continuous variable; the message names the law.
        UndefinedValue: inf - inf.
        BadInput: an observation outside the support of a likelihood, or a law that the model lacks.

    >>> from boundcheck.catalogue.objectives import elbo, log_evidence
    >>> from boundcheck.models.densities import BernoulliLogit, Normal
    >>> model = ContinuousModel(
    ...     prior=Normal(0, 1),
    ...     likelihood=lambda z: [BernoulliLogit(z - b) for b in (-1, 0, 1)],
    ...     encoder=lambda x: Normal(0.5 * sum(x) - 0.7, 0.8),
    ... )
    >>> print(evaluate(log_evidence, model, (1, 0, 1)))
    [-2.48048585226 +/- 1.73e-12]
    >>> print(evaluate(elbo, model, (1, 0, 1)))
    [-2.48083230713 +/- 1.62e-12]
    """
    term = trace(formula, **parameters)
    aim = digits * math.log2(10) if precision is None else float(precision)
    if not 1 <= aim <= 4096:
        raise BadInput("precision", precision or digits, "1 to 4096 bits", "64 bits are about 19 digits")
    bits = math.ceil(aim) + 3
    best: arb | None = None
    for attempt in range(4):
        with flint.ctx.workprec(bits + 40):
            try:
                value = _Walk(model, x, bits).number(term)
                ball = arb(value)
            except Unbounded as reason:
                if best is not None:
                    break
                if attempt == 3 or "precision" not in str(reason):
                    raise CannotCompute(NAME, term.text, f"{reason}; quadrature can estimate it") from None
                bits += bits
                continue
        if ball.is_nan():
            raise UndefinedValue(term.text, f"x = {x}")
        if best is None or ball.rad() < best.rad() or not best.is_finite():
            best = ball
        if not ball.is_finite() and ball.rad() == 0:
            break
        if ball.is_finite() and ball.rad() * arb(2) ** math.floor(aim) <= (1 + abs(ball) / 1024):
            break
        bits += max(16, bits // 2) if attempt else 12
    assert best is not None
    return Enclosure(best)


class _Walk:
    """One evaluation of a term: variables of finite laws have points, the variable of integration a symbol."""

    def __init__(self, model: ContinuousModel, x: Any, bits: int) -> None:
        self.model, self.bits = model, bits
        self.env: dict[Var, Any] = {OBSERVED: _observation(x)}
        self.copy: dict[Plate, int] = {}
        self.active: Var | None = None
        self.memo: dict[Any, Value] = {}

    # --- values ---

    def number(self, term: Term) -> Any:
        value = self.value(term)
        if isinstance(value, Form) and value.is_constant:
            return value.constant
        if isinstance(value, Form | Sum):
            self.cannot(term, "a function of z stands where a number is needed")
        return value

    def cannot(self, term: Term, reason: str) -> NoReturn:
        raise CannotCompute(NAME, term.text, f"{reason}; quadrature can estimate it")

    def value(self, term: Term) -> Value:
        if isinstance(term, Const):
            return fmpq(term.value.numerator, term.value.denominator)
        if self.active is not None and self.active not in term.free and isinstance(term, Expect | Integrate):
            hidden, self.active = self.active, None
            try:
                return self._remembered(term)
            finally:
                self.active = hidden
        if isinstance(term, Expect | Integrate) and self.active is None:
            return self._remembered(term)
        return self._value(term)

    def _remembered(self, term: Term) -> Value:
        if not term.free <= {OBSERVED}:
            return self._value(term)
        if term not in self.memo:
            self.memo[term] = self._value(term)
        return self.memo[term]

    def _value(self, term: Term) -> Value:
        try:
            if isinstance(term, LogDensity):
                return self._log_density(term)
            if isinstance(term, Expect):
                return self._expect(term)
            if isinstance(term, Integrate):
                return self._integrate(term)
            if isinstance(term, Reduce):
                return self._reduce(term)
            if isinstance(term, Apply):
                return self._apply(term)
        except NotAffine as reason:
            self.cannot(term, str(reason))
        except TypeError as reason:
            if "Symbol" not in str(reason):
                raise
            self.cannot(term, f"a function of the model is not built from boundcheck.models.arithmetic ({reason})")
        assert isinstance(term, Var)
        point = self._point(term, term)
        if not isinstance(point, Symbol) or not point.affine:
            self.cannot(term, f"{term.name} is a vector, not a number")
        return Form(p0=point.intercept, p1=point.slope) if not point.is_constant else point.intercept

    def _apply(self, term: Apply) -> Value:
        op = term.op
        if op == "same":
            a, b = (self._point(arg, term) for arg in term.args)
            return fmpq(int(bool(a == b)))
        if op == "pow":
            exponent = term.args[1]
            assert isinstance(exponent, Const)
            power = fmpq(exponent.value.numerator, exponent.value.denominator)
            return self._power(self.value(term.args[0]), power, term)
        values = [self.value(arg) for arg in term.args]
        if op == "add":
            return _add(values)
        if op == "mul":
            return _multiply(values)
        if op == "exp":
            return self._exp(values[0], term)
        if op == "log":
            return self._log(values[0], term)
        numbers = [arb(v) if not isinstance(v, Form | Sum) else None for v in values]
        if any(n is None for n in numbers):
            self.cannot(term, f"{op} of functions of z is not analytic")
        result = numbers[0]
        for n in numbers[1:]:
            result = result.max(n) if op == "max" else result.min(n)  # type: ignore[union-attr]
        return result

    def _exp(self, value: Value, term: Term) -> Value:
        if isinstance(value, Form):
            return value.constant.exp() if value.is_constant else Sum([(fmpq(1), value, ())])
        if isinstance(value, Sum):
            self.cannot(term, "the exponential of a function of z that is not a sum of log-densities")
        return arb(value).exp()

    def _log(self, value: Value, term: Term) -> Value:
        if isinstance(value, Sum):
            if any(factors or not coefficient > 0 for coefficient, _, factors in value.addends):
                self.cannot(term, "the logarithm of a function of z that is not a sum of densities")
            return log_sum([form + Form(arb(coefficient).log()) for coefficient, form, _ in value.addends])
        if isinstance(value, Form):
            if not value.is_constant:
                self.cannot(term, "the logarithm of a log-density")
            value = value.constant
        ball = arb(value)
        if ball.is_finite() and ball > 0:
            return ball.log()
        if ball == 0:
            return arb.neg_inf()
        if not ball.is_finite() and ball > 0 and ball.rad() == 0:
            return arb.pos_inf()
        if ball < 0:
            raise UndefinedValue(term.text, "this observation")
        raise Unbounded("the logarithm of a number that may be zero at this precision")

    def _power(self, value: Value, power: fmpq, term: Term) -> Value:
        if isinstance(value, Sum) and len(value.addends) == 1 and not value.addends[0][2]:
            coefficient, form, _ = value.addends[0]
            if coefficient > 0:
                return Sum([(arb(coefficient) ** power, form.scaled(power), ())])
        if isinstance(value, Form | Sum):
            if power.q != 1 or power < 0 or power > 32:
                self.cannot(term, f"the power {power} of a function of z")
            return _multiply([value] * int(power.p))
        if power.q == 1 and isinstance(value, fmpq) and not (is_zero(value) and power < 0):
            return value ** int(power.p)
        return arb(value) ** power

    # --- laws ---

    def _point(self, term: Term, where: Term) -> Any:
        if not isinstance(term, Var):
            self.cannot(where, f"{term.text} is not a variable")
        value = self.env[term]
        return value[self.copy[term.plates[-1]]] if isinstance(value, _Copies) else value

    def _components(self, role: str, args: Sequence[Term], term: Term) -> tuple[Density, ...]:
        points = [self._point(arg, term) for arg in args]
        return self.model.law(role, points)

    def _log_density(self, term: LogDensity) -> Value:
        law = term.law
        if not isinstance(law, ModelLaw):
            return self.value(expand(term))
        if law.role == "joint":
            x, z = (self._point(point, term) for point in term.point)
            prior = self._density(self.model.law("prior"), z, term)
            return _add([prior, self._density(self.model.law("likelihood", (z,)), x, term)])
        return self._density(self._components(law.role, law.args, term), self._point(term.point[0], term), term)

    def _density(self, laws: Sequence[Density], point: Any, term: Term) -> Value:
        values = point if isinstance(point, tuple) else (point,)
        if len(values) != len(laws):
            raise BadInput(
                f"the point of {term.text}", point, f"{len(laws)} component(s), as many as its law", "check the model"
            )
        total = Form()
        for law, value in zip(laws, values, strict=True):
            total = total + log_density_form(law, value)
        return total.constant if total.is_constant else total

    def _finite_points(self, law: Law, term: Term) -> list[tuple[Value, Any]] | None:
        """(log-probability, point) of a law with finitely many points; None for a continuous law."""
        if isinstance(law, DensityLaw):
            if law.space == Z or law.space.bounds is not None:
                return None
            return self._finite_density(law, term)
        if not isinstance(law, ModelLaw):
            self.cannot(term, f"{law} is not enumerated")
        laws = self._components(law.role, law.args, term)
        if not all(density.discrete for density in laws):
            return None
        tables = [_support(density) for density in laws]
        if any(table is None for table in tables):
            self.cannot(term, f"{type(laws[0]).__name__} has no finite table of points")
        if math.prod(len(table or ()) for table in tables) > MOST_POINTS:
            self.cannot(term, f"more than {MOST_POINTS} points")
        scalar = len(laws) == 1 and not (
            law.args and isinstance(law.args[-1], Var) and isinstance(self._point(law.args[-1], term), tuple)
        )
        out = []
        for choice in itertools.product(*(table or () for table in tables)):
            point = choice[0] if scalar else tuple(choice)
            weight = self._density(laws, point, term)
            if isinstance(weight, Form) or not _is_minus_infinity(weight):
                out.append((weight, point))
        return out

    def _finite_density(self, law: DensityLaw, term: Term) -> list[tuple[Value, Any]]:
        points = self._space_points(law.space, term)
        weights = []
        for point in points:
            with self._bound(law.var, point):
                weights.append((self.value(law.log_density), point))
        weights = [(w, p) for w, p in weights if isinstance(w, Form | Sum) or not _is_minus_infinity(w)]
        if not law.rescale:
            return weights
        total = self._log(_add([self._exp(w, term) for w, _ in weights]), term)
        return [(_add([w, _multiply([fmpq(-1), total])]), p) for w, p in weights]

    def _space_points(self, space: Any, term: Term) -> list[Any]:
        if space == CORRUPTED:
            # Only points that c(.|x) reaches: elsewhere the density of every law that a formula builds is its own
            # affair, so a law without a corruption is refused.
            laws = self.model.law("corruption", (self.env[OBSERVED],))
            tables = [_support(density) for density in laws]
            if all(table is not None for table in tables):
                scalar = len(laws) == 1 and not isinstance(self.env[OBSERVED], tuple)
                choices = itertools.product(*(table or () for table in tables))
                return [choice[0] if scalar else tuple(choice) for choice in choices]
        self.cannot(term, f"the space {space.name} has no finite table of points")

    # --- expectations and integrals ---

    @contextmanager
    def _bound(self, var: Var, value: Any) -> Iterator[None]:
        before = self.env.get(var)
        self.env[var] = value
        try:
            yield
        finally:
            if before is None:
                del self.env[var]
            else:
                self.env[var] = before

    def _expect(self, term: Expect) -> Value:
        law, var = term.law, term.var
        plates = [plate for plate in var.plates if plate in term.consumed_plates]
        if isinstance(law, MixtureLaw):
            outer = Var(law.var.name, law.var.space, law.var.serial, plates=var.plates)
            if plates:
                self.cannot(term, "copies of a draw from a mixture")
            inner = Expect(law.component, var, term.body)
            return self.value(Expect(law.mixing, outer, inner))
        if plates:
            return self._expect_copies(term, plates[0])
        points = self._finite_points(law, term)
        if points is None:
            return self._expect_continuous(term)
        return self._average(points, var, term.body, term)

    def _average(self, points: list[tuple[Value, Any]], var: Var, body: Term, term: Term) -> Value:
        parts = []
        for weight, point in points:
            with self._bound(var, point):
                value = self.value(body)
            parts.append(_multiply([self._exp(weight, term), value]))
        return _add(parts)

    def _expect_copies(self, term: Expect, plate: Plate) -> Value:
        """K independent draws: all K-tuples of points of a finite law; a single draw for a continuous one."""
        law, var = term.law, term.var
        tables = []
        for k in range(plate.size):
            self.copy[plate] = k
            tables.append(self._finite_points(law, term))
        if any(table is None for table in tables):
            if plate.size > 1:
                self.cannot(term, f"{plate.size} copies of a continuous draw from {law} are an integral in as many")
            self.copy[plate] = 0
            return self._expect_continuous(term, copies=True)
        if math.prod(len(table or ()) for table in tables) > MOST_POINTS:
            self.cannot(term, f"more than {MOST_POINTS} tuples of copies")
        parts = []
        for choice in itertools.product(*(table or [] for table in tables)):
            weight = _add([w for w, _ in choice])
            with self._bound(var, _Copies(point for _, point in choice)):
                parts.append(_multiply([self._exp(weight, term), self.value(term.body)]))
        return _add(parts)

    def _reduce(self, term: Reduce) -> Value:
        size = term.plate.size
        before = self.copy.get(term.plate)
        values = []
        for k in range(size):
            self.copy[term.plate] = k
            values.append(self.value(term.body))
        if before is not None:
            self.copy[term.plate] = before
        if term.op in ("sum", "mean"):
            total = _add(values)
            return total if term.op == "sum" else _multiply([fmpq(1, size), total])
        if size == 1:
            return values[0]
        if any(isinstance(v, Form | Sum) for v in values):
            self.cannot(term, f"{term.op} of functions of z is not analytic")
        result = arb(values[0])
        for v in values[1:]:
            result = result.max(arb(v)) if term.op == "max" else result.min(arb(v))
        return result

    def _expect_continuous(self, term: Expect, copies: bool = False) -> Value:
        law, var = term.law, term.var
        if isinstance(law, DensityLaw):
            weight, domain = self._density_weight(law, term), _domain(law.space)
        else:
            assert isinstance(law, ModelLaw)
            if any(arg is self.active for arg in law.args):
                self.cannot(term, f"{law} is an integral inside an integral")
            laws = self._components(law.role, law.args, term)
            if len(laws) > 1:
                self.cannot(term, f"{law} has {len(laws)} continuous components")
            weight, domain = self._density(laws, variable(), term), (None, None)
        body = self._in_z(var, term.body, term, copies)
        if isinstance(law, DensityLaw) and law.rescale:
            if not isinstance(body, Form | Sum):
                return body
            return _quotient(self._total(weight, body, domain, term), self._total(weight, fmpq(1), domain, term))
        if not isinstance(body, Form | Sum) and not isinstance(law, DensityLaw):
            return body
        return self._total(weight, body, domain, term)

    def _density_weight(self, law: DensityLaw, term: Term) -> Form:
        weight = self._in_z(law.var, law.log_density, term)
        if isinstance(weight, Sum):
            self.cannot(term, "a log-density that is not a sum of log-densities")
        return weight if isinstance(weight, Form) else _as_form(weight)

    def _integrate(self, term: Integrate) -> Value:
        if term.space == Z or term.space.bounds is not None:
            if term.space == Z and self.model.latent_dimension > 1:
                self.cannot(term, f"z has {self.model.latent_dimension} continuous components")
            body = self._in_z(term.var, term.body, term)
            return self._total(Form(), body, _domain(term.space), term)
        if term.space == X:
            self.cannot(term, "the space x has no finite table of points")
        points = [(fmpq(0), point) for point in self._space_points(term.space, term)]
        return self._average(points, term.var, term.body, term)

    def _in_z(self, var: Var, body: Term, term: Term, copies: bool = False) -> Value:
        """The body as a function of z."""
        if self.active is not None:
            self.cannot(term, f"an integral over {var.name} inside the integral over {self.active.name}")
        if var.space == Z and self.model.latent_dimension > 1:
            self.cannot(term, f"z has {self.model.latent_dimension} continuous components")
        self.active = var
        try:
            with self._bound(var, _Copies([variable()]) if copies else variable()):
                return self.value(body)
        finally:
            self.active = None

    def _total(self, weight: Form, body: Value, domain: tuple[Any, Any], term: Term) -> arb:
        """The integral of exp(weight) * body."""
        total, infinite = arb(0), []
        for coefficient, exponent, factors in _expanded(weight, body):
            try:
                value = integral(exponent, factors, domain, self.bits)
            except Unbounded as reason:
                law = term.law if isinstance(term, Expect) else "the integrand"
                raise Unbounded(f"no certified bound for {self._named(law, term)}: {reason}") from None
            if not value.is_finite():
                infinite.append(arb(coefficient) * value)
            else:
                total += coefficient * value
        if infinite:
            if all(v > 0 for v in infinite):
                return arb.pos_inf()
            if all(v < 0 for v in infinite):
                return arb.neg_inf()
            raise UndefinedValue(term.text, "this observation")
        return total

    def _named(self, law: Any, term: Term) -> str:
        if isinstance(law, ModelLaw):
            with_names = "".join(type(d).__name__ for d in self._components(law.role, law.args, term))
            return f"{law} = {with_names}"
        return str(law)


class _Copies(tuple):
    """The points of the copies of a variable."""


def _observation(x: Any) -> Any:
    if isinstance(x, str | bytes) or not hasattr(x, "__len__") or (hasattr(x, "shape") and x.shape == ()):
        return as_symbol(x)
    if len(x) == 0:
        raise BadInput("x", x, "at least one number")
    return tuple(Symbol(exact(each, "x"), fmpq(0)) for each in x)


def _support(law: Density) -> list[Symbol] | None:
    """The points of a finite law."""
    if isinstance(law, Discrete):
        return [as_symbol(p) for p, w in zip(law.points, law.probabilities, strict=True) if not is_zero(exact(w))]
    if isinstance(law, BernoulliLogit):
        return [as_symbol(0), as_symbol(1)]
    if isinstance(law, Binomial):
        return [as_symbol(v) for v in range(int(law.n) + 1)]
    return None


def _is_minus_infinity(value: Any) -> bool:
    return bool(arb(value) == arb.neg_inf())


def _domain(space: Any) -> tuple[Any, Any]:
    return (None, None) if space.bounds is None else (exact(space.bounds[0]), exact(space.bounds[1]))


# --- sums of exp(form) times forms ---------------------------------------------------------------------------------


def _as_form(value: Any) -> Form:
    return Form(p0=value) if isinstance(value, fmpq) else Form(c=value)


def _as_sum(value: Value) -> Sum:
    if isinstance(value, Sum):
        return value
    return Sum([(fmpq(1), Form(), (value,))] if isinstance(value, Form) else [(value, Form(), ())])


def _add(values: Sequence[Value]) -> Value:
    """The sum of numbers, forms and sums."""
    number: Any = fmpq(0)
    form: Form | None = None
    addends: list[Addend] = []
    for value in values:
        if isinstance(value, Sum):
            addends.extend(value.addends)
        elif isinstance(value, Form):
            form = value if form is None else form + value
        else:
            number = number + value
    if form is None and not addends:
        return number
    if not addends:
        assert form is not None
        return form + _as_form(number)
    if form is not None:
        addends.append((fmpq(1), Form(), (form + _as_form(number),)))
    elif not is_zero(number):
        addends.append((number, Form(), ()))
    return Sum(addends)


def _multiply(values: Sequence[Value]) -> Value:
    """The product of numbers, forms and sums; 0 times anything is 0."""
    result: Value = fmpq(1)
    for value in values:
        if any(not isinstance(v, Form | Sum) and is_zero(v) for v in (result, value)):
            result = fmpq(0)
        elif isinstance(result, Form | Sum) and isinstance(value, Form | Sum):
            left, right = _as_sum(result), _as_sum(value)
            result = Sum([(a * b, f + g, p + q) for a, f, p in left.addends for b, g, q in right.addends])
        elif isinstance(result, Form | Sum) or isinstance(value, Form | Sum):
            function, number = (result, value) if isinstance(result, Form | Sum) else (value, result)
            if isinstance(function, Form):
                result = function.scaled(number)
            else:
                result = Sum([(a * number, f, p) for a, f, p in function.addends])
        else:
            result = result * value
    return result


def _quotient(numerator: arb, denominator: arb) -> arb:
    if not denominator.is_finite() or not denominator > 0:
        raise Unbounded("a density that cannot be normalised")
    return numerator / denominator


def _expanded(weight: Form, body: Value) -> list[Addend]:
    """Addends that are as simple as can be: mixtures multiplied out, growing exponentials moved into exponents."""
    pending = [(coefficient, form + weight, factors) for coefficient, form, factors in _as_sum(body).addends]
    done: list[Addend] = []
    while pending:
        if len(pending) + len(done) > MOST_PARTS:
            return _as_plain(weight, body)
        coefficient, exponent, factors = pending.pop()
        simpler = _split(coefficient, exponent, factors)
        if simpler is None:
            done.append((coefficient, exponent, factors))
        else:
            pending.extend(simpler)
    return done


def _as_plain(weight: Form, body: Value) -> list[Addend]:
    return [(coefficient, form + weight, factors) for coefficient, form, factors in _as_sum(body).addends]


def _split(coefficient: Any, exponent: Form, factors: tuple[Form, ...]) -> list[Addend] | None:
    for i, (atom, k) in enumerate(exponent.atoms):
        if isinstance(atom, LogSum) and isinstance(k, fmpq) and k >= 1:
            others = exponent.atoms[:i] + exponent.atoms[i + 1 :]
            kept = ((atom, k - 1),) if k > 1 else ()
            rest = Form(exponent.c, exponent.p0, exponent.p1, exponent.p2, others + kept, exponent.walls)
            return [(coefficient, rest + form, factors) for form in atom.forms]
    for j, factor in enumerate(factors):
        others = factors[:j] + factors[j + 1 :]
        if factor.is_constant:
            return [(coefficient * factor.constant, exponent, others)]
        for i, (atom, k) in enumerate(factor.atoms):
            if isinstance(atom, Growth):
                rest = Form(
                    factor.c, factor.p0, factor.p1, factor.p2, factor.atoms[:i] + factor.atoms[i + 1 :], factor.walls
                )
                grown = exponent + Form(p0=atom.b, p1=atom.a)
                return [(coefficient, exponent, (*others, rest)), (coefficient * k, grown, others)]
    return None
