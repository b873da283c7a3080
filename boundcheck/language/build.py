"""Building terms by calling ordinary Python functions, so that the code reads like the paper's formula.

`E(law, lambda z: body)` calls its function once with a fresh variable and binds it in what comes back. Because every
binder makes a variable of its own, a variable that is used outside its binder is recognised, and named, when the
formula is built.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from typing import Any, TypeAlias

from boundcheck.errors import FormulaError
from boundcheck.language import laws
from boundcheck.language.laws import DensityLaw, Law, MixtureLaw, Replicated, SymbolicModel
from boundcheck.language.terms import (
    CORRUPTED,
    OBSERVED,
    Apply,
    Expect,
    Integrate,
    Number,
    Plate,
    Reduce,
    Space,
    Term,
    Var,
    add,
    as_term,
)

Formula: TypeAlias = Callable[..., Term]
"""A function of (m, x, and parameters) that returns a term."""

_open: ContextVar[tuple[Var, ...]] = ContextVar("open_binders", default=())


@contextmanager
def _binding(var: Var) -> Iterator[None]:
    token = _open.set((*_open.get(), var))
    try:
        yield
    finally:
        _open.reset(token)


def _variable_name(body: Callable[[Term], Any], space: Space) -> str:
    default = "xt" if space == CORRUPTED else space.name if space.name.isidentifier() else "v"
    try:
        parameters = list(inspect.signature(body).parameters.values())
    except (TypeError, ValueError):
        return default
    if len(parameters) != 1 and sum(p.default is p.empty for p in parameters) != 1:
        names = ", ".join(p.name for p in parameters) or "none"
        raise FormulaError(f"the body of a binder is a function of one variable; it has the parameters: {names}")
    name = parameters[0].name
    return default if name.startswith("_") else name


def _trace(var: Var, body: Callable[[Term], Any]) -> Term:
    if not callable(body):
        raise FormulaError(f"the body under {var.name} is a function of one variable, got {body!r}")
    with _binding(var):
        return as_body(body(var), f"the body under {var.name}")


def as_body(value: object, where: str) -> Term:
    """A term or number that a formula's function returned, or an error that names the function."""
    if value is None:
        raise FormulaError(f"{where} returned nothing; a formula's function must return a term")
    if isinstance(value, Law | Replicated):
        raise FormulaError(f"{where} returned the law {value}, not a number; take its log_prob at a point")
    return as_term(value)  # type: ignore[arg-type]


def _check_scope(term: Term, where: str) -> Term:
    allowed = {OBSERVED, *_open.get()}
    for var in sorted(term.free - allowed, key=lambda v: v.serial):
        raise FormulaError(
            f"the variable {var.name} is used outside the expectation or integral that binds it, in {where}"
        )
    return term


def E(law: Law | Replicated, body: Callable[[Term], Any]) -> Term:
    """The expectation E_{v ~ law} body(v).

    A draw from `law.copies(k)` stands for k independent copies, which the body must reduce (`mean`, `log_mean_exp`,
    `maximum_over`, ...). A law that depends on a replicated variable gives one draw for each copy.

    Raises:
        FormulaError: a law that is not one, a variable outside its binder, copies that are never reduced.

    >>> from boundcheck.language import E, trace
    >>> trace(lambda m, x: E(m.encoder(x), lambda z: m.log_joint(x, z) - m.encoder(x).log_prob(z)))
    E_{z ~ q(.|x)}[log p(x,z) - log q(z|x)]
    """
    plates: tuple[Plate, ...] = ()
    own = None
    if isinstance(law, Replicated):
        own, law = law.plate, law.law
        own = Plate(own.size)
        plates = (own,)
    if not isinstance(law, Law):
        raise FormulaError(f"E(law, body) needs a law such as m.encoder(x), got {type(law).__name__} {law!r}")
    if isinstance(law, laws.ModelLaw) and law.role == "joint":
        raise FormulaError("the joint law p(x, z) only has a log-density; draw from m.prior() and m.likelihood(z)")
    var = Var(_variable_name(body, law.space), law.space, plates=(*law.plates, *plates))
    inner = _trace(var, body)
    if own is not None and own in inner.free_plates:
        raise FormulaError(
            f"the {own.size} copies of {var.name} are never reduced: wrap the body in mean, log_mean_exp, "
            "total, maximum_over or minimum_over"
        )
    return _check_scope(Expect(law, var, inner), f"E over {var.name}")


def integrate(space: Space, body: Callable[[Term], Any]) -> Term:
    """The sum (discrete space) or integral (continuous) of body(v) over all points v of a space.

    >>> from boundcheck.language import exp, trace
    >>> trace(lambda m, x: log(integrate(m.latent, lambda z: exp(m.log_joint(x, z)))))
    log sum_z p(x,z)
    """
    var = Var(_variable_name(body, space), space)
    return _check_scope(Integrate(var, _trace(var, body)), f"the integral over {var.name}")


def normalised(space: Space, log_density: Callable[[Term], Any]) -> Law:
    """The law on `space` whose density is proportional to exp(log_density(v)).

    >>> from boundcheck.language import trace
    >>> trace(lambda m, x: E(normalised(m.latent, lambda z: m.log_joint(x, z) / 2), lambda z: m.log_joint(x, z)))
    E_{z ~ normalised(z: (1/2) log p(x,z))}[log p(x,z)]
    """
    var = Var(_variable_name(log_density, space), space)
    return DensityLaw(var, _trace(var, log_density), rescale=True)


def density(space: Space, log_density: Callable[[Term], Any]) -> Law:
    """The law on `space` with the stated log-density, which must already integrate to one (a user's own kernel)."""
    var = Var(_variable_name(log_density, space), space)
    return DensityLaw(var, _trace(var, log_density), rescale=False)


def mixture(mixing: Law, component: Callable[[Term], Law]) -> Law:
    """The law of v' ~ component(v) with v ~ mixing, v integrated out."""
    if not isinstance(mixing, Law) or not callable(component):
        raise FormulaError(f"mixture(law, component) needs a law and a function, got {mixing!r} and {component!r}")
    var = Var(_variable_name(component, mixing.space), mixing.space)
    with _binding(var):
        inner = component(var)
    if not isinstance(inner, Law):
        raise FormulaError(f"the component of a mixture must be a law, got {type(inner).__name__} {inner!r}")
    return MixtureLaw(mixing, var, inner)


# --- operations ----------------------------------------------------------------------------------------------------


def log(value: Term | Number) -> Term:
    """Natural logarithm (nats)."""
    return laws.log(as_term(value))


def exp(value: Term | Number) -> Term:
    """Exponential."""
    return laws.exp(as_term(value))


def exp_series(value: Term | Number, order: int) -> Term:
    """1 + v + v^2/2! + ... + v^order/order!, the truncated exponential."""
    term, result, factorial = as_term(value), as_term(1), 1
    for power in range(1, order + 1):
        factorial *= power
        result = result + term**power / factorial
    return result


def maximum(*values: Term | Number) -> Term:
    """The largest of some numbers."""
    return _choice("max", values)


def minimum(*values: Term | Number) -> Term:
    """The smallest of some numbers."""
    return _choice("min", values)


def _choice(op: str, values: tuple[Term | Number, ...]) -> Term:
    if not values:
        raise FormulaError(f"{op} of no numbers")
    terms = tuple(as_term(value) for value in values)
    return terms[0] if len(terms) == 1 else Apply(op, terms)


def same(a: Term, b: Term) -> Term:
    """1 where two points are equal and 0 elsewhere (discrete spaces).

    Raises:
        FormulaError: for what is no variable, or variables of different spaces.
    """
    for point in (a, b):
        if not isinstance(point, Var):
            raise FormulaError(f"same(a, b) compares two variables of the formula, got {point!r}")
    assert isinstance(a, Var)
    laws.require_space(b, a.space, "what same(a, b) compares with", a)
    return Apply("same", (a, b))


def _reduce(op: str, body: Term | Number, over: Term | None) -> Term:
    term = as_term(body)
    if over is not None:
        if not isinstance(over, Var) or not over.plates:
            raise FormulaError(f"over={over!r} is not a replicated variable; draw it from law.copies(k)")
        plate = over.plates[-1]
        if plate not in term.free_plates:
            raise FormulaError(f"{term.text} does not depend on the copies of {over.name}")
        return Reduce(op, plate, term)
    plates = term.free_plates
    if not plates:
        raise FormulaError(f"{term.text} is averaged over copies that were never drawn; draw them with law.copies(k)")
    if len(plates) > 1:
        names = sorted({var.name for var in term.free if var.plates})
        raise FormulaError(f"{term.text} has several sets of copies ({', '.join(names)}); say which with over=")
    (plate,) = plates
    return Reduce(op, plate, term)


def mean(body: Term, over: Term | None = None) -> Term:
    """The average of `body` over copies."""
    return _reduce("mean", body, over)


def total(body: Term, over: Term | None = None) -> Term:
    """The sum of `body` over copies."""
    return _reduce("sum", body, over)


def maximum_over(body: Term, over: Term | None = None) -> Term:
    """The largest `body` among copies."""
    return _reduce("max", body, over)


def minimum_over(body: Term, over: Term | None = None) -> Term:
    """The smallest `body` among copies."""
    return _reduce("min", body, over)


def log_mean_exp(body: Term, over: Term | None = None, also: Term | None = None) -> Term:
    """log of the mean of exp(body) over K copies; with `also`, exp(also) joins the mean as a (K+1)-th entry.

    >>> from boundcheck.language import E, trace
    >>> trace(lambda m, x: E(m.encoder(x).copies(3), lambda z: log_mean_exp(m.log_joint(x, z))))
    E_{z_1..3 ~ q(.|x)}[log mean_k p(x,z_k)]
    """
    if also is None:
        return log(mean(exp(body), over))
    summed = _reduce("sum", exp(body), over)
    assert isinstance(summed, Reduce)
    share = as_term(Fraction(1, summed.plate.size + 1))
    return log(Apply("mul", (share, add(exp(also), summed))))


def kl(p: Law, q: Law) -> Term:
    """The Kullback-Leibler divergence KL(p || q) = E_p[log p - log q], in nats."""
    if not isinstance(p, Law) or not isinstance(q, Law):
        raise FormulaError(f"kl needs two laws, got {p!r} and {q!r}")
    name = {"z": "z", "x": "x"}.get(p.space.name, "xt")
    var = Var(name, p.space, plates=p.plates)
    return _check_scope(Expect(p, var, p.log_prob(var) - q.log_prob(var)), "kl")


def trace(formula: Formula | Term, /, **parameters: Any) -> Term:
    """The term that a formula builds: `formula(m, x, **parameters)` called with symbols in place of numbers.

    Raises:
        FormulaError: the formula misuses the language; the message names the culprit.

    >>> trace(lambda m, x: m.log_joint(x, x))
    Traceback (most recent call last):
    ...
    boundcheck.errors.FormulaError: the log-density of p(.,.) is over the space z, but x lives in the space x
    """
    if isinstance(formula, Term):
        if parameters:
            raise FormulaError(f"a term takes no parameters, got {', '.join(parameters)}")
        return _check_scope(formula, "the formula")
    if not callable(formula):
        raise FormulaError(f"a formula is a function of (m, x) that returns a term, got {formula!r}")
    try:
        inspect.signature(formula).bind(None, None, **parameters)
    except TypeError as error:
        name = getattr(formula, "__name__", repr(formula))
        raise FormulaError(f"the formula {name} cannot be called as {name}(m, x, ...): {error}") from None
    except ValueError:  # no signature to be had (a builtin): let the call itself tell
        pass
    term = as_body(formula(SymbolicModel(), OBSERVED, **parameters), getattr(formula, "__name__", "the formula"))
    if term.free_plates:
        raise FormulaError(f"{term.text} has copies that are never reduced")
    return _check_scope(term, "the formula")
