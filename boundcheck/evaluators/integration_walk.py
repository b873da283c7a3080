"""The traversal of certified integration: finite laws are enumerated, a continuous one is integrated over.

A variable of a finite law (a corruption) has a point at a time, and so has each of its copies; the one variable of
integration has a symbol, so that the body of its expectation becomes a sum of exp(form) times forms
(`integration_sums`). An integral inside an integral, or over several components, is refused.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flint import arb, fmpq

from boundcheck.errors import BadInput, UndefinedValue
from boundcheck.evaluators.integration_forms import Form
from boundcheck.evaluators.integration_laws import log_density_form, support
from boundcheck.evaluators.integration_numbers import Unbounded
from boundcheck.evaluators.integration_rules import integral
from boundcheck.evaluators.integration_sums import (
    Sum,
    Value,
    add,
    as_form,
    cannot,
    expanded,
    exponential_of,
    logarithm_of,
    multiply,
    power_of,
    quotient,
)
from boundcheck.evaluators.integration_symbols import NotAffine, Symbol, exact, variable
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
from boundcheck.models.densities import Density

MOST_POINTS = 20_000
"""The largest number of points of finite laws, copies counted, that will be enumerated."""


class Walk:
    """One evaluation of a term: variables of finite laws have points, the variable of integration a symbol."""

    def __init__(self, model: ContinuousModel, x: Any, bits: int) -> None:
        self.model, self.bits = model, bits
        self.env: dict[Var, Any] = {OBSERVED: x}
        self.copy: dict[Plate, int] = {}
        self.active: Var | None = None
        self.memo: dict[Any, Value] = {}

    # --- values ---

    def number(self, term: Term) -> Any:
        value = self.value(term)
        if isinstance(value, Form) and value.is_constant:
            return value.constant
        if isinstance(value, Form | Sum):
            cannot(term, "a function of z stands where a number is needed")
        return value

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
            cannot(term, str(reason))
        except TypeError as reason:
            if "Symbol" not in str(reason):
                raise
            cannot(term, f"a function of the model is not built from boundcheck.models.arithmetic ({reason})")
        assert isinstance(term, Var)
        point = self._point(term, term)
        if not isinstance(point, Symbol) or not point.affine:
            cannot(term, f"{term.name} is a vector, not a number")
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
            return power_of(self.value(term.args[0]), power, term)
        values = [self.value(arg) for arg in term.args]
        if op == "add":
            return add(values)
        if op == "mul":
            return multiply(values)
        if op == "exp":
            return exponential_of(values[0], term)
        if op == "log":
            return logarithm_of(values[0], term)
        numbers = [arb(v) if not isinstance(v, Form | Sum) else None for v in values]
        if any(n is None for n in numbers):
            cannot(term, f"{op} of functions of z is not analytic")
        result = numbers[0]
        for n in numbers[1:]:
            result = result.max(n) if op == "max" else result.min(n)  # type: ignore[union-attr]
        return result

    # --- laws ---

    def _point(self, term: Term, where: Term) -> Any:
        if not isinstance(term, Var):
            cannot(where, f"{term.text} is not a variable")
        value = self.env[term]
        return value[self.copy[term.plates[-1]]] if isinstance(value, Copies) else value

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
            return add([prior, self._density(self.model.law("likelihood", (z,)), x, term)])
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
            cannot(term, f"{law} is not enumerated")
        laws = self._components(law.role, law.args, term)
        if not all(density.discrete for density in laws):
            return None
        tables = [support(density) for density in laws]
        if any(table is None for table in tables):
            cannot(term, f"{type(laws[0]).__name__} has no finite table of points")
        if math.prod(len(table or ()) for table in tables) > MOST_POINTS:
            cannot(term, f"more than {MOST_POINTS} points")
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
        total = logarithm_of(add([exponential_of(w, term) for w, _ in weights]), term)
        return [(add([w, multiply([fmpq(-1), total])]), p) for w, p in weights]

    def _space_points(self, space: Any, term: Term) -> list[Any]:
        if space == CORRUPTED:
            # Only points that c(.|x) reaches: elsewhere the density of every law that a formula builds is its own
            # affair, so a law without a corruption is refused.
            laws = self.model.law("corruption", (self.env[OBSERVED],))
            tables = [support(density) for density in laws]
            if all(table is not None for table in tables):
                scalar = len(laws) == 1 and not isinstance(self.env[OBSERVED], tuple)
                choices = itertools.product(*(table or () for table in tables))
                return [choice[0] if scalar else tuple(choice) for choice in choices]
        cannot(term, f"the space {space.name} has no finite table of points")

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
                cannot(term, "copies of a draw from a mixture")
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
            parts.append(multiply([exponential_of(weight, term), value]))
        return add(parts)

    def _expect_copies(self, term: Expect, plate: Plate) -> Value:
        """K independent draws: all K-tuples of points of a finite law; a single draw for a continuous one."""
        law, var = term.law, term.var
        tables = []
        for k in range(plate.size):
            self.copy[plate] = k
            tables.append(self._finite_points(law, term))
        if any(table is None for table in tables):
            if plate.size > 1:
                cannot(term, f"{plate.size} copies of a continuous draw from {law} are an integral in as many")
            self.copy[plate] = 0
            return self._expect_continuous(term, copies=True)
        if math.prod(len(table or ()) for table in tables) > MOST_POINTS:
            cannot(term, f"more than {MOST_POINTS} tuples of copies")
        parts = []
        for choice in itertools.product(*(table or [] for table in tables)):
            weight = add([w for w, _ in choice])
            with self._bound(var, Copies(point for _, point in choice)):
                parts.append(multiply([exponential_of(weight, term), self.value(term.body)]))
        return add(parts)

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
            total = add(values)
            return total if term.op == "sum" else multiply([fmpq(1, size), total])
        if size == 1:
            return values[0]
        if any(isinstance(v, Form | Sum) for v in values):
            cannot(term, f"{term.op} of functions of z is not analytic")
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
                cannot(term, f"{law} is an integral inside an integral")
            laws = self._components(law.role, law.args, term)
            if len(laws) > 1:
                cannot(term, f"{law} has {len(laws)} continuous components")
            weight, domain = self._density(laws, variable(), term), (None, None)
        body = self._in_z(var, term.body, term, copies)
        if isinstance(law, DensityLaw) and law.rescale:
            if not isinstance(body, Form | Sum):
                return body
            return quotient(self._total(weight, body, domain, term), self._total(weight, fmpq(1), domain, term))
        if not isinstance(body, Form | Sum) and not isinstance(law, DensityLaw):
            return body
        return self._total(weight, body, domain, term)

    def _density_weight(self, law: DensityLaw, term: Term) -> Form:
        weight = self._in_z(law.var, law.log_density, term)
        if isinstance(weight, Sum):
            cannot(term, "a log-density that is not a sum of log-densities")
        return weight if isinstance(weight, Form) else as_form(weight)

    def _integrate(self, term: Integrate) -> Value:
        if term.space == Z or term.space.bounds is not None:
            if term.space == Z and self.model.latent_dimension > 1:
                cannot(term, f"z has {self.model.latent_dimension} continuous components")
            body = self._in_z(term.var, term.body, term)
            return self._total(Form(), body, _domain(term.space), term)
        if term.space == X:
            cannot(term, "the space x has no finite table of points")
        points = [(fmpq(0), point) for point in self._space_points(term.space, term)]
        return self._average(points, term.var, term.body, term)

    def _in_z(self, var: Var, body: Term, term: Term, copies: bool = False) -> Value:
        """The body as a function of z."""
        if self.active is not None:
            cannot(term, f"an integral over {var.name} inside the integral over {self.active.name}")
        if var.space == Z and self.model.latent_dimension > 1:
            cannot(term, f"z has {self.model.latent_dimension} continuous components")
        self.active = var
        try:
            with self._bound(var, Copies([variable()]) if copies else variable()):
                return self.value(body)
        finally:
            self.active = None

    def _total(self, weight: Form, body: Value, domain: tuple[Any, Any], term: Term) -> arb:
        """The integral of exp(weight) * body."""
        total, infinite = arb(0), []
        for coefficient, exponent, factors in expanded(weight, body):
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


class Copies(tuple):
    """The points of the copies of a variable."""


def _is_minus_infinity(value: Any) -> bool:
    return bool(arb(value) == arb.neg_inf())


def _domain(space: Any) -> tuple[Any, Any]:
    return (None, None) if space.bounds is None else (exact(space.bounds[0]), exact(space.bounds[1]))
