"""Elementary functions on whatever numbers a density is evaluated with: floats, numpy arrays, Arb balls, complex balls.

A continuous model's parameters are ordinary Python functions of z or x. Written with `+ - * /` and the functions of
this module they run unchanged in quadrature (arrays) and in certified integration (balls). A complex ball honours the
`analytic` request of a certified integrator: where log or sqrt meets its branch cut the result is nan, never a wrong
branch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from typing import Any

import numpy as np

_analytic: ContextVar[bool] = ContextVar("analytic", default=False)


@contextmanager
def analytic_required(required: bool) -> Iterator[None]:
    """Within it, functions of complex balls return nan where they are not analytic on the whole ball."""
    token = _analytic.set(required)
    try:
        yield
    finally:
        _analytic.reset(token)


def is_ball(value: Any) -> bool:
    """True for a real or complex Arb ball."""
    return type(value).__module__.startswith("flint")


def is_complex_ball(value: Any) -> bool:
    """True for a complex Arb ball."""
    return type(value).__name__ == "acb"


def is_symbol(value: Any) -> bool:
    """True for a number that records what is done to it (see `evaluators.integration_symbols`)."""
    return getattr(value, "is_symbol", False)


def number(value: Any) -> Any:
    """A parameter as evaluators use it: text, Fraction and Decimal stay exact until they meet an array or a ball."""
    if isinstance(value, str):
        return Fraction(value)
    return value


def like(value: Any, other: Any) -> Any:
    """An exact rational as a number that may be combined with `other`."""
    if not isinstance(value, Fraction):
        return value
    if is_ball(other):
        from flint import arb, fmpq

        return arb(fmpq(value.numerator, value.denominator))
    return float(value)


def exp(value: Any) -> Any:
    """e to the power of value."""
    if is_ball(value) or is_symbol(value):
        return value.exp()
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(value)


def log(value: Any) -> Any:
    """The natural logarithm."""
    if is_complex_ball(value):
        return value.log(analytic=_analytic.get())
    if is_ball(value) or is_symbol(value):
        return value.log()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(value)


def sqrt(value: Any) -> Any:
    """The square root."""
    if is_complex_ball(value):
        return value.sqrt(analytic=_analytic.get())
    return value.sqrt() if is_ball(value) or is_symbol(value) else np.sqrt(value)


def tanh(value: Any) -> Any:
    """The hyperbolic tangent."""
    return value.tanh() if is_ball(value) or is_symbol(value) else np.tanh(value)


def absolute(value: Any) -> Any:
    """|value|; for complex balls the analytic continuation sign(Re) value, nan on a ball that meets Re = 0."""
    if is_complex_ball(value):
        return value.real_abs(analytic=_analytic.get())
    return abs(value) if is_ball(value) or is_symbol(value) else np.abs(value)


def softplus(value: Any) -> Any:
    """log(1 + exp(value)), without overflow."""
    if is_complex_ball(value):
        real = float(value.real.mid())
        return value + log(1 + exp(-value)) if real > 0 else log(1 + exp(value))
    if is_ball(value):
        return value + (-value).exp().log1p() if value > 0 else value.exp().log1p()
    if is_symbol(value):
        return value.softplus()
    if isinstance(value, np.ndarray) and value.ndim and value.dtype == np.float64:
        # The same formula as logaddexp(0, value), but its parts are vectorised, which makes it ten times faster.
        out = np.abs(value)
        with np.errstate(under="ignore"):
            np.log1p(np.exp(np.negative(out, out=out), out=out), out=out)
        out += np.maximum(value, 0.0)
        return out
    return np.logaddexp(0.0, value)


def log_gamma(value: Any) -> Any:
    """log Gamma(value) for a positive number."""
    if is_ball(value):
        return value.lgamma()
    if is_symbol(value):
        return value.log_gamma()
    if isinstance(value, np.ndarray) and value.ndim:
        from scipy.special import gammaln

        return gammaln(value)
    return math.lgamma(float(value))


def log_pi(other: Any) -> Any:
    """log pi as a number that may be combined with `other`."""
    if is_ball(other):
        from flint import arb

        return arb.pi().log()
    return math.log(math.pi)
