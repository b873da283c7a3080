"""What an evaluator returns: the type of a value says what it guarantees.

`Exact` is a number; `Enclosure` an interval that contains the truth, always; `Approximate` a float with an error
estimate; `Sampled` a Monte Carlo mean with its standard error and the direction of its bias. They are not compared
here: only `boundcheck.claims.decide` compares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import flint

    from boundcheck.evaluators.lognumber import LogNumber


class Bias(Enum):
    """Where the expectation of an estimate lies relative to the quantity it estimates."""

    NONE = "unbiased"
    LOW = "biased low"
    HIGH = "biased high"
    UNKNOWN = "bias of unknown direction"


@dataclass(frozen=True)
class Exact:
    """An exact number: a rational combination of logarithms of rationals, in nats."""

    value: LogNumber

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        return str(self.value)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, exact, with a float beside it for the reader."""
        return {"kind": "exact", "text": str(self), "float": json_float(float(self)), "exact": self.value.to_json()}


@dataclass(frozen=True)
class Enclosure:
    """An interval that contains the truth, as an Arb ball."""

    ball: flint.arb

    def __float__(self) -> float:
        return float(self.ball.mid())

    @property
    def lower(self) -> float:
        """A float that is not above the truth."""
        return _outward(self.ball.lower(), -math.inf)

    @property
    def upper(self) -> float:
        """A float that is not below the truth."""
        return _outward(self.ball.upper(), math.inf)

    def __str__(self) -> str:
        if self.ball.is_finite():
            return self.ball.str(12)
        return f"{self.lower}" if self.lower == self.upper else f"[{self.lower:.12g}, {self.upper:.12g}]"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready: rounded outwards, so the stated interval still contains the truth."""
        return {
            "kind": "enclosure",
            "text": str(self),
            "float": json_float(float(self)),
            "lower": json_float(self.lower),
            "upper": json_float(self.upper),
        }


def _outward(bound: Any, direction: float) -> float:
    value = float(bound)  # to nearest, so beyond the floats' range it is infinite although the bound is not
    return math.nextafter(value, direction) if bound.is_finite() else value


@dataclass(frozen=True)
class Approximate:
    """A float value and an estimate of its absolute error (rounding, quadrature)."""

    value: float
    error: float

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.12g} (error about {self.error:.1g})"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "kind": "approximate",
            "text": str(self),
            "float": json_float(self.value),
            "error": json_float(self.error),
        }


@dataclass(frozen=True)
class Sampled:
    """A Monte Carlo estimate: the mean of `n` independent replicates, its standard error, and its bias.

    `skewness` is that of the replicates, where it was looked at: a long tail makes the standard error too small.
    """

    mean: float
    standard_error: float
    bias: Bias
    n: int
    skewness: float = field(default=math.nan, compare=False, repr=False)

    @property
    def long_tail(self) -> Bias:
        """The side on which the mean may lie because its replicates show a long tail, of which they have met little.

        >>> Sampled(0.0, 0.1, Bias.NONE, 5000, skewness=8.0).long_tail
        <Bias.LOW: 'biased low'>
        """
        return long_tail(self.skewness, self.n)

    def __float__(self) -> float:
        return self.mean

    def __str__(self) -> str:
        return f"{self.mean:.6g} ± {self.standard_error:.2g} ({self.bias.value}, n = {self.n})"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "kind": "sampled",
            "text": str(self),
            "float": json_float(self.mean),
            "standard_error": json_float(self.standard_error),
            "bias": self.bias.value,
            "n": self.n,
        }


_SKEWED, _SKEWED_IN_FEW, _FEW = 3.0, 2.0, 1000
"""How skewed draws may be seen to be, and so in fewer of them, where a long tail shows less of itself."""


def long_tail(skewness: float, draws: int) -> Bias:
    """The side on which a mean of draws of such skewness may lie; neither, if the skewness is not known.

    >>> long_tail(-2.5, 500), long_tail(-2.5, 5000)
    (<Bias.HIGH: 'biased high'>, <Bias.NONE: 'unbiased'>)
    """
    most = _SKEWED_IN_FEW if draws < _FEW else _SKEWED
    return Bias.HIGH if skewness < -most else Bias.LOW if skewness > most else Bias.NONE


Value: TypeAlias = Exact | Enclosure | Approximate | Sampled


def json_float(value: float) -> float | str:
    """A float as JSON can hold it: infinities as text."""
    return value if math.isfinite(value) else str(value)
