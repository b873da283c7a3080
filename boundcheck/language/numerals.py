"""Numbers as people write them, read as the rationals that they are: 0.1 and "0.1" are 1/10."""

from __future__ import annotations

import math
import numbers
import re
from decimal import Decimal
from fractions import Fraction
from typing import TypeAlias

from boundcheck.errors import FormulaError

Number: TypeAlias = int | float | str | Fraction | Decimal

LONGEST_NUMBER = 4000
"""Digits of a number that boundcheck still reads: text such as "1e999999999" would otherwise stop the machine."""


def exact_fraction(value: object) -> Fraction:
    """The rational that a number, a text or a Decimal is; a float is the decimal that it prints as.

    Raises:
        ValueError: for what is not a finite number, or has more than `LONGEST_NUMBER` digits.
        TypeError: for what is not a number.

    >>> exact_fraction("1e-3"), exact_fraction(0.1)
    (Fraction(1, 1000), Fraction(1, 10))
    """
    if isinstance(value, numbers.Rational):  # numpy's integers too, which would overflow inside a Fraction
        return Fraction(int(value.numerator), int(value.denominator))
    if isinstance(value, numbers.Real):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} is not finite")
        return Fraction(repr(float(value)))
    if not isinstance(value, str | Decimal):
        raise TypeError(f"{value!r} is not a number")
    text = str(value).strip()
    exponent = re.search(r"e([+-]?[\d_]+)$", text, re.IGNORECASE)
    if len(text) > LONGEST_NUMBER or (exponent and abs(int(exponent[1])) + len(text) > LONGEST_NUMBER):
        raise ValueError(f"a number of more than {LONGEST_NUMBER} digits")
    return Fraction(text)


def as_fraction(value: Number) -> Fraction:
    """A number as the rational it is written as: 0.1 and "0.1" are 1/10.

    Raises:
        FormulaError: for NaN, infinities and text that is not a number.

    >>> as_fraction(0.1)
    Fraction(1, 10)
    """
    try:
        return exact_fraction(value)
    except (ValueError, TypeError, ZeroDivisionError):
        raise FormulaError(f"{value!r} is not a finite number: a formula takes int, Fraction, float or text") from None
