"""What draws show of their own law: a long tail, shared noise, a drift; each makes a standard error too small.

A mean of draws that rarely take a very large value has mostly not met it, so it lies on the safe-looking side of the
truth, and the spread that was seen is too small as well. Where the tail can be seen, in the skewness of all draws
together, its direction says which of the two confidence limits is not to be had. Where it cannot be seen, because
none of so many draws met it, nothing can be done but to say how rare and how far off such values would have to be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boundcheck.evaluators.values import Bias, Sampled, long_tail

_FEWEST = 100
"""In fewer draws than these no tail can be seen, so that neither limit is to be had."""
_DRIFT = 7.0
"""How many standard deviations of its law without a drift a rank correlation may be off; exceeded once in 4e11."""


class Tails:
    """The skewness of an objective's draws about the means of their own examples, all examples together."""

    def __init__(self) -> None:
        self.count, self.squares, self.cubes = 0, 0.0, 0.0

    def add(self, draws: NDArray[np.float64]) -> None:
        """Draws of shape (replicates, examples), each weighted by what it counts in the mean."""
        finite = draws[:, np.isfinite(draws).all(0)]
        if finite.size:
            shifts = finite - finite.mean(0)
            self.count += finite.size
            self.squares += float(np.square(shifts).sum())
            self.cubes += float((shifts**3).sum())

    def take(self, value: Sampled, weight: float) -> None:
        """The draws of an example, or of a batch, from their moments; nothing if their skewness is not known."""
        if math.isfinite(value.skewness) and math.isfinite(value.standard_error):
            variance = value.n * (value.n - 1) * (weight * value.standard_error) ** 2 / value.n
            self.count += value.n
            self.squares += value.n * variance
            self.cubes += value.n * value.skewness * variance**1.5

    @property
    def long(self) -> Bias:
        """As in `Estimate.long_tail`.

        >>> tails = Tails()
        >>> tails.add(-np.random.default_rng(0).pareto(1.5, size=(100, 20)))
        >>> tails.long
        <Bias.HIGH: 'biased high'>
        """
        return self.among(self.count)

    def among(self, draws: float) -> Bias:
        """Likewise, where no more than so many of the draws are independent of one another."""
        return Bias.UNKNOWN if self.squares > 0 and draws < _FEWEST else self.shown

    @property
    def shown(self) -> Bias:
        """The tail that can be seen, in however few draws."""
        if not self.squares > 0:
            return Bias.NONE
        skewness = self.cubes / self.count / (self.squares / self.count) ** 1.5
        return long_tail(skewness, self.count)


def either(first: Bias, second: Bias) -> Bias:
    """The direction in which an estimate may be off that has two reasons to be.

    >>> either(Bias.NONE, Bias.LOW), either(Bias.HIGH, Bias.LOW)
    (<Bias.LOW: 'biased low'>, <Bias.UNKNOWN: 'bias of unknown direction'>)
    """
    if first is Bias.NONE or first is second:
        return second
    return first if second is Bias.NONE else Bias.UNKNOWN


# --- calls ---


@dataclass(frozen=True)
class Calls:
    """What the calls of an objective on one batch tell: a call is independent of others, its rows may share noise.

    Attributes:
        rows: the estimate of each row.
        whole: the estimate of their mean.
        asymmetry: the skewness that one call's mean would have if that of each draw were one, at most.
        independent: how many independent draws the values are worth: as many as they are if rows share no noise, as
            many as there are calls if they share all of it.
    """

    rows: list[Sampled]
    whole: Sampled
    asymmetry: float
    independent: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Calls:
        """From values of shape (calls, rows).

        With c the variance of a call's mean and s_i^2 that of its i-th row, independent rows have c = sum s_i^2 / R^2.
        What c exceeds that by, or may by chance, is noise that all rows share and R does not shrink.

        >>> noise = np.random.default_rng(0).normal(size=(200, 50))
        >>> shared = np.repeat(noise[:, :1], 50, axis=1)
        >>> Calls.of(noise).independent > 5000, round(Calls.of(shared).independent)
        (True, 200)
        """
        count, width = values.shape
        rows = _columns(values)
        whole = _columns(values.mean(1, keepdims=True))[0]
        c = whole.standard_error**2
        own = math.fsum(row.standard_error**2 for row in rows) / width**2
        if not (c > 0 and own > 0 and math.isfinite(c) and math.isfinite(own)):
            return cls(rows, whole, 1.0, float(count))
        chance = 1 + 4 * math.sqrt(2 / (count - 1))
        cubes = math.fsum((row.standard_error / width) ** 3 for row in rows)
        asymmetry = (max(0.0, chance * c - own) ** 1.5 + cubes) / c**1.5
        return cls(rows, whole, min(1.0, asymmetry), count * min(max(1.0, own * width / c), width))


def _columns(values: NDArray[np.float64]) -> list[Sampled]:
    """The estimate of each column from independent rows; without a standard error where a value is infinite."""
    count = len(values)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        means = values.mean(0)
        shifts = values - means
        variances = np.square(shifts).sum(0) / max(1, count - 1)
        spreads = np.square(shifts).mean(0) ** 1.5
        skewnesses = np.where(spreads > 0, (shifts**3).mean(0) / spreads, 0.0)
        # The mean of equal values may be off by a rounding, which is no spread.
        errors = np.where((values == values[0]).all(0), 0.0, np.sqrt(variances / count))
    columns = (means.tolist(), errors.tolist(), skewnesses.tolist())
    return [Sampled(mean, error, Bias.NONE, count, skewness) for mean, error, skewness in zip(*columns, strict=True)]


def drifts(batches: Sequence[NDArray[np.float64]]) -> bool:
    """Whether values of shape (calls, rows) rise or fall with the number of the call, more than chance allows.

    By Spearman's rank correlation of each batch, which supposes nothing about the values' law but that it is the same
    at each call.

    >>> drifts([np.random.default_rng(0).normal(size=(200, 5))]), drifts([np.arange(200.0)[:, None]])
    (False, True)
    """
    from scipy.stats import rankdata

    total, used = 0.0, 0
    for values in batches:
        means = values.mean(1)
        if len(means) > 2 and np.isfinite(means).all() and np.ptp(means) > 0:
            total += float(np.corrcoef(rankdata(means), np.arange(len(means)))[0, 1]) * math.sqrt(len(means) - 1)
            used += 1
    return used > 0 and abs(total) > _DRIFT * math.sqrt(used)


# --- what was not met ---


def unmet(draws: float, margin: float, alpha: float) -> str:
    """What would undo a comparison that stands by a margin, in words: values that none of the draws met.

    Values of probability p are missed by n independent draws with probability (1 - p)^n, which is below alpha once
    p > log(1/alpha) / n; rarer ones move the mean by the margin only if they lie margin / p away.

    >>> unmet(20_000, 0.5, 1e-4)
    'unless values of its draws that are rarer than 1 in 2,171 lie 1,086 nats off'
    """
    if not (draws > 0 and margin > 0 and math.isfinite(draws) and math.isfinite(margin)):
        return ""
    rare = draws / math.log(1 / alpha)
    often = f"1 in {math.floor(rare):,}" if rare >= 2 else "any"
    off = margin * rare
    far = f"{off:,.0f}" if off >= 100 else f"{off:.3g}"
    return f"unless values of its draws that are rarer than {often} lie {far} nats off"


__all__ = ["Calls", "Tails", "drifts", "either", "unmet"]
