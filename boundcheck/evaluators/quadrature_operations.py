"""Operations on the numbers of a walk, which pass on the bounds on their errors."""

from __future__ import annotations

from typing import Any

import numpy as np

from boundcheck.evaluators.quadrature_frames import Frames, Number, times


class Operations(Frames):
    """Frames on which numbers are combined."""

    def product(self, a: Number, b: Number, level: int) -> Number:
        """a b."""
        value = a.value * b.value
        # An infinity stays one, whatever the rounding of the other factor.
        error = times(a.error, _finite(b.value)) + times(b.error, _finite(a.value)) + times(a.error, b.error)
        return self.made(value, error, level)

    def power(self, a: Number, exponent: float) -> Number:
        """a ** exponent."""
        value = np.power(a.value, exponent)
        nearby = np.maximum(np.abs(a.value) - a.error, 1e-300) if exponent < 1 else np.abs(a.value) + a.error
        slope = np.abs(exponent) * np.power(nearby, exponent - 1)
        return self.made(value, times(a.error, slope), a.level)

    def exp(self, a: Number) -> Number:
        """exp a."""
        value = np.exp(a.value)
        return self.made(value, times(value, np.expm1(np.minimum(a.error, 700.0))), a.level)

    def log(self, a: Number) -> Number:
        """log a."""
        ratio = np.divide(a.error, np.abs(a.value))
        error = np.where(np.asarray(a.error) == 0, 0.0, np.where(ratio < 1, -np.log1p(-np.minimum(ratio, 1)), np.inf))
        return self.made(np.log(a.value), error, a.level)

    def survival(self, a: Number) -> Number:
        """log(1 - exp(-exp(a))), whose slope lies in [0, 1]."""
        grown = np.exp(np.minimum(a.value, 50.0))
        value = np.where(a.value < -30.0, a.value - grown / 2, np.log(-np.expm1(-grown)))
        return self.made(value, np.asarray(a.error) * np.ones_like(value), a.level)


def _finite(a: Any) -> Any:
    return np.where(np.isinf(a), 0.0, a)


__all__ = ["Operations"]
