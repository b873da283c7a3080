"""Decides the sign and the nearest float of a sum of logarithms from balls that contain it.

A ball (Johansson 2017, Arb) that excludes zero proves the sign. Ever smaller balls end every question about a
number that is not a tie, so what calls this must make ties exact: the zero a ball of radius zero.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable

from flint import arb, ctx, fmpq

from boundcheck.evaluators.coprime import LogSum

_FLINT_PRECISION = threading.Lock()  # flint has one precision for all threads


def ball_of(constant: fmpq, logs: LogSum, precision: int) -> arb:
    """A ball around c_0 + sum_i c_i log n_i, computed with `precision` bits; flint's own precision stays."""
    with _FLINT_PRECISION:
        users_precision = ctx.prec
        try:
            ctx.prec = precision
            total = arb(constant)
            for integer, coefficient in logs.items():
                total += arb(integer).log() * coefficient
            return total
        finally:
            ctx.prec = users_precision


def sign_of(smaller_balls: Iterable[arb]) -> int:
    """-1, 0 or 1 for the number in all these balls; they have to end in the exact zero or exclude zero."""
    for ball in smaller_balls:
        if ball > 0:
            return 1
        if ball < 0:
            return -1
        if ball.is_zero():
            return 0
    raise ValueError("the balls ended before they separated")


def float_of(smaller_balls: Iterable[arb]) -> float:
    """The float nearest to the number in all these balls; the last ones must round to one float."""
    for ball in smaller_balls:
        middle, radius = _dyadic(ball.mid()), _dyadic(ball.rad())
        low, high = nearest_float(middle - radius), nearest_float(middle + radius)
        if low == high:
            return low
    raise ValueError("the balls ended before they separated")


def _dyadic(exact: arb) -> fmpq:
    """The value of a ball of radius zero."""
    mantissa, exponent = exact.man_exp()
    return fmpq(mantissa) * fmpq(2) ** int(exponent)


def nearest_float(rational: fmpq) -> float:
    """Rounded to nearest; +-inf beyond the range of floats."""
    try:
        return int(rational.p) / int(rational.q)
    except OverflowError:
        return math.inf if rational > 0 else -math.inf
