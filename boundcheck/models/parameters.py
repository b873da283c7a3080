"""What a law may have for a parameter, and the errors for what it may not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from boundcheck.errors import BadInput
from boundcheck.models import arithmetic as F

Parameter: TypeAlias = Any
"""An int, float, Fraction, text such as "1/3", numpy array, or Arb ball."""

_far_out: ContextVar[bool] = ContextVar("far_out", default=False)


@contextmanager
def far_out() -> Iterator[None]:
    """Within it, a parameter may overflow or underflow at some points of an array.

    An integrator looks at tails where a scale such as exp(x~) is infinite or zero in float64. That is no mistake of
    the user there; it becomes the largest or the smallest number, and the law's density vanishes as it should. The
    integrator itself sees to it that parameters are sound where the mass is.
    """
    token = _far_out.set(True)
    try:
        yield
    finally:
        _far_out.reset(token)


def positive(name: str, value: Parameter, what: str) -> Parameter:
    """A scale that is positive and finite for sure.

    Raises:
        BadInput: any other scale; the message has its name.
    """
    value = _number(name, value, f"a positive, finite {what}")
    if F.is_symbol(value):
        if value.is_constant and not value > 0:
            raise BadInput(name, value, f"a positive {what}", "a scale of 0 has no density")
        return value
    if F.is_ball(value):
        if not value.real > 0 if F.is_complex_ball(value) else not value > 0:
            raise BadInput(name, value, f"a positive {what}", "its enclosure must not reach 0")
        return value
    array = np.asarray(value, dtype=float)
    inside = np.isfinite(array) & (array > 0)
    if inside.all():
        return value
    outside = array[~inside]
    if not (_far_out.get() and array.ndim and ((outside == 0) | np.isposinf(outside)).all()):
        raise BadInput(name, value, f"a positive, finite {what}", "a scale of 0 or infinity has no density")
    return np.clip(array, np.finfo(float).tiny, np.finfo(float).max)


def finite(name: str, value: Parameter) -> Parameter:
    """A number that is finite for sure.

    Raises:
        BadInput: anything else; the message has its name.
    """
    value = _number(name, value, "a finite number")
    if F.is_symbol(value):
        return value
    if F.is_ball(value):
        if not value.is_finite():
            raise BadInput(name, value, "a finite number", "its enclosure overflowed")
        return value
    array = np.asarray(value, dtype=float)
    if np.isfinite(array).all():
        return value
    if not (_far_out.get() and array.ndim) or np.isnan(array).any():
        raise BadInput(name, value, "a finite number")
    return np.clip(array, -np.finfo(float).max, np.finfo(float).max)


def _number(name: str, value: Parameter, expected: str) -> Parameter:
    """The parameter as evaluators use it, text and all that is one number or an array of numbers."""
    if isinstance(value, bool | list | tuple | dict | complex) or value is None:
        raise BadInput(name, value, expected, "a vector has one law for each component")
    try:
        value = F.number(value)
        if not (F.is_symbol(value) or F.is_ball(value) or isinstance(value, int | float | Fraction)):
            np.asarray(value, dtype=float)
    except (TypeError, ValueError, ZeroDivisionError):
        raise BadInput(name, value, expected, 'pass a number, or text such as "1/3"') from None
    return value


__all__ = ["Parameter", "far_out", "finite", "positive"]
