"""Rational numbers as python-flint holds them: conversions, roots and powers that stay rational.

An fmpq adds and multiplies about ten times faster than a Fraction, and exact evaluation is little else.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from fractions import Fraction
from typing import TypeAlias

from flint import fmpq, fmpz

RationalLike: TypeAlias = int | Fraction | fmpq | fmpz
RATIONAL_TYPES = (int, fmpq, fmpz, numbers.Rational)  # the last: Fraction, and whatever registers as one

LARGEST_BITS = 20_000_000  # powers give up beyond this: 10^(10^9) would take the machine with it


class LeavesField(ArithmeticError):
    """The result is a real number, but not of the form c_0 + sum_i c_i log n_i that is held exactly."""


def as_fmpq(value: object) -> fmpq:
    """The exact rational. Raises TypeError for anything else, floats included."""
    if isinstance(value, fmpq):
        return value
    if isinstance(value, int | fmpz):
        return fmpq(value)
    if isinstance(value, numbers.Rational):
        return fmpq(int(value.numerator), int(value.denominator))
    raise TypeError(f"expected an exact rational (int or Fraction), not {type(value).__name__}")


def primitive_root(integer: fmpz) -> tuple[fmpz, int]:
    """(m, k) with integer = m^k > 1, k as large as possible.

    Example:
        >>> primitive_root(fmpz(64)), primitive_root(fmpz(12))
        ((2, 6), (12, 1))
    """
    exponent = 1
    candidate = 2
    while integer.is_perfect_power():
        root = integer.root(candidate)
        if root**candidate == integer:
            integer, exponent = root, exponent * candidate
        else:
            candidate += 1
    return integer, exponent


def exact_root(integer: fmpz, degree: fmpz) -> fmpz | None:
    """The positive integer whose power of this degree is `integer` > 0, or None when it is irrational.

    Example:
        >>> exact_root(fmpz(27), fmpz(3)), exact_root(fmpz(28), fmpz(3))
        (3, None)
    """
    if degree == 1 or integer == 1:
        return integer
    if degree >= integer.bit_length():  # then 2^degree > integer
        return None
    root = integer.root(int(degree))
    return root if root ** int(degree) == integer else None


def quotient_of_powers(powers: Iterable[tuple[fmpz, fmpz]]) -> fmpq:
    """The product of integer powers of positive integers, unless it would be too long to be of use."""
    numerator, denominator, bits = fmpz(1), fmpz(1), fmpz(0)
    for integer, exponent in powers:
        if integer == 1:
            continue
        bits += integer.bit_length() * abs(exponent)
        if bits > LARGEST_BITS:
            raise LeavesField(f"a rational of more than {LARGEST_BITS} bits")
        if exponent > 0:
            numerator *= integer ** int(exponent)
        else:
            denominator *= integer ** int(-exponent)
    return fmpq(numerator, denominator)
