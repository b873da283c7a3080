"""The log-density of each law as a form in z, where the point or the parameters are affine in z."""

from __future__ import annotations

import math
from typing import Any

from flint import acb, arb, fmpq

from boundcheck.errors import BadInput
from boundcheck.evaluators.integration_atoms import Growth, Kink, LogSquare, Opaque, Softplus
from boundcheck.evaluators.integration_forms import Form, log_sum
from boundcheck.evaluators.integration_numbers import Unbounded, sign
from boundcheck.evaluators.integration_symbols import NotAffine, Symbol, as_symbol, exact, is_zero
from boundcheck.models.densities import (
    BernoulliLogit,
    Binomial,
    Density,
    Discrete,
    Laplace,
    Logistic,
    Mixture,
    Normal,
    PoissonLog,
    StudentT,
    Uniform,
)

ONE = fmpq(1)
HALF = fmpq(1, 2)


def log_density_form(law: Density, point: Any) -> Form:
    """log law(point) as a form in z; `point` is a number or a symbol.

    Raises:
        Unbounded: a law, or a dependence on z, that has no form; the message names the law.
    """
    name = type(law).__name__
    build = _BUILD.get(type(law))
    if build is None:
        raise Unbounded(f"the law {name} is not known to the certified integrator")
    try:
        return build(law, as_symbol(point))
    except NotAffine as reason:
        if isinstance(law, Mixture):
            raise Unbounded(f"a Mixture in which {reason}") from None
        return _opaque(law, as_symbol(point), str(reason))


def _log(value: Any) -> arb:
    return arb(value).log()


def _residual(point: Symbol, location: Any, scale: Any) -> tuple[Symbol, Any]:
    """(point - location) / scale and the scale."""
    s = as_symbol(scale).constant("the scale")
    t = (point - as_symbol(location)) / s
    if not t.affine:
        raise NotAffine("a parameter is not affine in the variable of integration")
    return t, s


def _normal(law: Normal, point: Symbol) -> Form:
    t, s = _residual(point, law.mean, law.scale)
    c = -_log(s) - (2 * arb.pi()).log() / 2
    a, b = t.intercept, t.slope
    return Form(c, -a * a * HALF, -a * b, -b * b * HALF)


def _laplace(law: Laplace, point: Symbol) -> Form:
    t, s = _residual(point, law.location, law.scale)
    c = -_log(2 * s)
    if t.is_constant:
        return Form(c, -abs(t.intercept))
    if sign(t.slope) == 0:
        raise Unbounded("a slope that may be zero at this precision")
    return Form(c, atoms=((Kink(-t.intercept / t.slope), -abs(t.slope)),))


def _logistic(law: Logistic, point: Symbol) -> Form:
    t, s = _residual(point, law.location, law.scale)
    return Form(-_log(s), -t.intercept, -t.slope) + _softplus(-t).scaled(fmpq(-2))


def _softplus(u: Symbol) -> Form:
    if u.is_constant:
        value = arb(u.intercept)
        return Form(value + (-value).exp().log1p() if value > 0 else value.exp().log1p())
    if not u.affine:
        raise NotAffine("a logit is not affine in the variable of integration")
    if sign(u.slope) == 0:
        raise Unbounded("a slope that may be zero at this precision")
    return Form(atoms=((Softplus(u.intercept, u.slope), ONE),))


def _student(law: StudentT, point: Symbol) -> Form:
    t, s = _residual(point, law.location, law.scale)
    nu = as_symbol(law.freedom).constant("the number of degrees of freedom")
    half = (nu + 1) / 2
    ball = arb(nu)
    c = arb(half).lgamma() - (ball / 2).lgamma() - (ball * arb.pi()).log() / 2 - _log(s)
    if t.is_constant:
        return Form(c - half * (arb(t.intercept) ** 2 / nu).log1p())
    if sign(t.slope) == 0:
        raise Unbounded("a slope that may be zero at this precision")
    return Form(c, atoms=((LogSquare(-t.intercept / t.slope, nu / (t.slope * t.slope)), -half),))


def _uniform(law: Uniform, point: Symbol) -> Form:
    lower, upper = as_symbol(law.lower), as_symbol(law.upper)
    width = (upper - lower).constant("the width")
    if not width > 0:
        raise BadInput("upper - lower", str(width), "a positive width")
    above = point - lower  # must be in [0, width]
    if not above.affine:
        raise NotAffine("an end is not affine in the variable of integration")
    if above.is_constant:
        if above.intercept >= 0 and above.intercept <= width:
            return Form(-_log(width))
        if above.intercept < 0 or above.intercept > width:
            return Form(arb.neg_inf())
        raise Unbounded("Uniform at a point that may lie on its edge")
    ends = [-above.intercept / above.slope, (width - above.intercept) / above.slope]
    if sign(above.slope) < 0:
        ends.reverse()
    return Form(-_log(width), walls=((ends[0], ends[1], ONE),))


def _mixture(law: Mixture, point: Symbol) -> Form:
    parts = []
    for weight, component in zip(law.weights, law.components, strict=True):
        w = as_symbol(weight).constant("a weight")
        parts.append(log_density_form(component, point) + Form(_log(w)))
    return log_sum(parts)


def count(point: Symbol, name: str = "x") -> int:
    """A point of a discrete law as the whole number that it must be."""
    try:
        value = int(point)
    except (TypeError, NotAffine):
        raise BadInput(name, point, "a whole number >= 0", "a likelihood of counts takes counts") from None
    if value < 0:
        raise BadInput(name, value, "a whole number >= 0", "a likelihood of counts takes counts")
    return value


def _linear(u: Symbol, k: int) -> Form:
    if not u.affine:
        raise NotAffine("a logit is not affine in the variable of integration")
    return Form(p0=k * u.intercept, p1=k * u.slope)


def _bernoulli(law: BernoulliLogit, point: Symbol) -> Form:
    v, u = count(point), as_symbol(law.logit)
    if v > 1:
        raise BadInput("x", v, "0 or 1, the support of a Bernoulli", "binarise the data, or take another likelihood")
    return _linear(u, v) + _softplus(u).scaled(fmpq(-1))


def _binomial(law: Binomial, point: Symbol) -> Form:
    n, v, u = count(as_symbol(law.n), "n"), count(point), as_symbol(law.logit)
    if v > n:
        raise BadInput("x", v, f"a count of at most {n}", "check the number of trials")
    return _linear(u, v) + _softplus(u).scaled(fmpq(-n)) + Form(_log(math.comb(n, v)))


def _poisson(law: PoissonLog, point: Symbol) -> Form:
    v, u = count(point), as_symbol(law.log_rate)
    form = _linear(u, v) + Form(-_log(math.factorial(v)))
    if u.is_constant:
        return form + Form(-arb(u.intercept).exp())
    if sign(u.slope) == 0:
        raise Unbounded("a slope that may be zero at this precision")
    return form + Form(atoms=((Growth(u.intercept, u.slope), fmpq(-1)),))


def _discrete(law: Discrete, point: Symbol) -> Form:
    for each, p in zip(law.points, law.probabilities, strict=True):
        if point == each:
            weight = as_symbol(p).constant("a probability")
            return Form(arb.neg_inf() if is_zero(weight) else _log(weight))
    return Form(arb.neg_inf())


_BUILD: dict[type, Any] = {
    Normal: _normal,
    Laplace: _laplace,
    Logistic: _logistic,
    StudentT: _student,
    Uniform: _uniform,
    Mixture: _mixture,
    BernoulliLogit: _bernoulli,
    Binomial: _binomial,
    PoissonLog: _poisson,
    Discrete: _discrete,
}


def _opaque(law: Density, point: Symbol, reason: str) -> Form:
    """A law whose parameters are analytic but not affine in z: bounded above, if its scale is a number."""
    name = type(law).__name__
    if not point.is_constant:
        raise Unbounded(f"{name}: {reason}")
    x: Any = point.intercept
    if isinstance(law, BernoulliLogit | Binomial):
        parameters, peak, x = [law.logit], arb(0), count(point)
    elif isinstance(law, PoissonLog):
        parameters, peak, x = [law.log_rate], arb(0), count(point)
    elif isinstance(law, Normal):
        parameters, peak = [law.mean, law.scale], -(2 * arb.pi()).log() / 2
    elif isinstance(law, Laplace):
        parameters, peak = [law.location, law.scale], -arb(2).log()
    elif isinstance(law, Logistic):
        parameters, peak = [law.location, law.scale], -arb(4).log()
    else:
        raise Unbounded(f"{name}: {reason}")
    if not law.discrete:
        scale = as_symbol(law.scale)  # type: ignore[attr-defined]
        peak = peak - _log(scale.constant()) if scale.is_constant else None
        x = acb(x)
    symbols: list[Any] = []
    for value in parameters:
        symbol = as_symbol(value)
        symbols.append(acb(symbol.intercept) if symbol.is_constant else symbol)
    if isinstance(law, Binomial):
        symbols.insert(0, count(as_symbol(law.n), "n"))
    return Form(atoms=((Opaque(type(law), tuple(symbols), x, peak), ONE),))


def support(law: Density) -> list[Symbol] | None:
    """The points of a finite law whose probability is not zero; None where its points are not a finite table."""
    if isinstance(law, Discrete):
        return [as_symbol(p) for p, w in zip(law.points, law.probabilities, strict=True) if not is_zero(exact(w))]
    if isinstance(law, BernoulliLogit):
        return [as_symbol(0), as_symbol(1)]
    if isinstance(law, Binomial):
        return [as_symbol(v) for v in range(int(law.n) + 1)]
    return None
