"""Elementary functions of floats and balls alike, for the coefficients and arguments of log-densities.

The same formula is evaluated on floats, to choose nodes, and on balls, for a result. A ball has a sign, or is a whole
number, only where that is certain; where it is not, the caller is told.
"""

from __future__ import annotations

import math
from typing import Any

from flint import arb, fmpq


class Unbounded(Exception):
    """No bound is known for this shape here; the message names the culprit."""


def sign(value: Any) -> int:
    """The sign of a number that has one for sure.

    Raises:
        Unbounded: a ball that reaches both sides of zero.
    """
    if value == 0:
        return 0
    if value > 0:
        return 1
    if value < 0:
        return -1
    raise Unbounded("the sign of a coefficient is not known at this precision")


def exponential(u: Any) -> Any:
    """exp of a float (inf where it overflows) or of a ball."""
    if isinstance(u, float):
        return math.exp(u) if u < 709 else math.inf
    return u.exp()


def softplus(u: Any) -> Any:
    """log(1 + exp(u)) of a float or a real ball."""
    if isinstance(u, float):
        return u + math.log1p(math.exp(-u)) if u > 0 else math.log1p(math.exp(u))
    if u > 0:
        return u + (-u).exp().log1p()
    return u.exp().log1p()


def sigmoid(u: Any) -> Any:
    """1 / (1 + exp(-u)) of a float or a real ball."""
    return 1 / (1 + exponential(-u))


def logarithm(u: Any) -> Any:
    """log of a positive float or ball."""
    return math.log(u) if isinstance(u, float) else u.log()


def as_float(value: Any) -> float:
    """A float near a number of any kind, infinite where it overflows."""
    if isinstance(value, float):
        return value
    try:
        return int(value.p) / int(value.q) if isinstance(value, fmpq) else float(value.mid())
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def log_cos(theta: arb) -> arb:
    """log cos(theta), not finite unless theta < pi / 2 for sure."""
    return theta.cos().log() if theta < arb.pi() / 2 else arb("nan")


def whole_number(k: Any) -> int | None:
    """k as a small integer, or None."""
    if isinstance(k, arb):
        k = k.unique_fmpz() if k.is_exact() else None
        return None if k is None else int(k)
    return int(k.p) if isinstance(k, fmpq) and k.q == 1 else None
