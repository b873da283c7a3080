"""Sums of log-densities: number + sum over latent variables and roles of coefficient * log density.

That is what the contraction evaluator makes of a term. A sum without log-densities is a number with an estimate of
its error; the functions below are the arithmetic of such numbers that formulas use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

from boundcheck.evaluators.potentials import UNIT
from boundcheck.language.terms import Var

Coefficients: TypeAlias = tuple[int | Fraction, int | Fraction]
"""The sum of the positive and the sum of the negative coefficients; apart, because log 0 - log 0 has no value."""

Roles: TypeAlias = dict[str, Coefficients]
"""sum of coefficient * log density, by role of the density."""


@dataclass(frozen=True)
class LogSum:
    """number + sum over latent variables and roles of coefficient * log density."""

    number: float = 0.0
    error: float = 0.0
    parts: dict[Var, Roles] = field(default_factory=dict)

    def __add__(self, other: LogSum) -> LogSum:
        parts = dict(self.parts)
        for var, roles in other.parts.items():
            parts[var] = joined(parts.get(var, {}), roles)
        number = self.number + other.number
        return LogSum(number, self.error + other.error + rounding(number), parts)

    def times(self, scale: Fraction) -> LogSum:
        """The product with an exact number."""
        number = self.number * float(scale) if scale else 0.0
        error = self.error * abs(float(scale)) + 2 * rounding(number)
        return LogSum(number, error, {var: _scaled(roles, scale) for var, roles in self.parts.items()})

    def without(self, var: Var) -> tuple[Roles, LogSum]:
        """The part that depends on a variable, and the rest."""
        rest = {other: roles for other, roles in self.parts.items() if other != var}
        return self.parts.get(var, {}), LogSum(self.number, self.error, rest)


def joined(a: Roles, b: Roles) -> Roles:
    """The sum of two sums of log-densities of one variable."""
    out = dict(a)
    for role, (positive, negative) in b.items():
        mine = out.get(role, (0, 0))
        out[role] = (mine[0] + positive, mine[1] + negative)
    return out


def _scaled(roles: Roles, scale: Fraction) -> Roles:
    factor = scale.numerator if scale.denominator == 1 else scale  # integers are faster, and most are
    pairs = {role: (factor * positive, factor * negative) for role, (positive, negative) in roles.items()}
    return pairs if factor > 0 else {role: (negative, positive) for role, (positive, negative) in pairs.items()}


def rounding(number: float) -> float:
    """The error of a result that was rounded."""
    return UNIT * abs(number) if math.isfinite(number) else 0.0


def number_of(constant: Fraction) -> LogSum:
    """A constant of a formula."""
    number = float(constant)
    return LogSum(number, 0.0 if Fraction(number) == constant else rounding(number) + math.ulp(0.0))


def log_of_constant(constant: Fraction) -> LogSum:
    """The logarithm of a constant that is not negative; the constant itself may be beyond the floats."""
    if constant == 0:
        return LogSum(-math.inf)
    top, bottom = math.log(constant.numerator), math.log(constant.denominator)
    if abs(top - bottom) < 1:
        number = math.log1p(float(constant - 1))
        return LogSum(number, 2 * rounding(number))
    return LogSum(top - bottom, 2 * UNIT * (top + bottom))


def exp_of(a: LogSum) -> LogSum:
    """The exponential of a number."""
    if math.isnan(a.number):
        return a
    number = math.exp(a.number) if a.number < 709 else math.inf
    if math.isinf(number):
        return LogSum(number)
    return LogSum(number, number * math.expm1(min(a.error, 700.0)) + 2 * rounding(number))


def log_of(a: LogSum) -> LogSum:
    """The logarithm of a number; NaN for a negative one."""
    if not a.number > 0:
        return LogSum(-math.inf if a.number == 0 and a.error == 0 else math.nan)
    number = math.log(a.number)
    lost = a.error / a.number if math.isfinite(a.number) else 0.0
    return LogSum(number, (-math.log1p(-lost) if lost < 1 else math.inf) + 2 * rounding(number))


def product_of(a: LogSum, b: LogSum) -> LogSum:
    """The product of two numbers."""
    number = a.number * b.number
    if not math.isfinite(number):
        return LogSum(number)
    error = abs(a.number) * b.error + abs(b.number) * a.error + a.error * b.error
    return LogSum(number, error + rounding(number))


def log_of_total(numbers: Sequence[LogSum]) -> LogSum:
    """log of the sum of exp of numbers."""
    values = [each.number for each in numbers]
    top = max(values)
    if any(map(math.isnan, values)):
        return LogSum(math.nan)
    if math.isinf(top):
        return LogSum(top)
    number = top + math.log(math.fsum(math.exp(value - top) for value in values))
    return LogSum(number, max(each.error for each in numbers) + (len(values) + 4) * UNIT + rounding(number))


def total_of(values: Sequence[LogSum]) -> LogSum:
    """The sum of some sums."""
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total
