"""Whether draws show so long a tail that no standard error can be trusted.

A mean of draws that rarely take a very large value has mostly not met it, so it lies on the safe-looking side of the
truth, and the spread that was seen is too small as well. Where the tail can be seen, in the skewness of all draws
together, its direction says which of the two confidence limits is not to be had.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boundcheck.evaluators.values import Bias

_MOST, _MOST_IN_FEW, _FEW = 3.0, 2.0, 1000
"""How skewed draws may be seen to be, and so in fewer of them, where a long tail shows less of itself."""
_FEWEST = 100
"""In fewer draws than these no tail can be seen, so that neither limit is to be had."""


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

    @property
    def long(self) -> Bias:
        """As in `Estimate.long_tail`.

        >>> tails = Tails()
        >>> tails.add(-np.random.default_rng(0).pareto(1.5, size=(100, 20)))
        >>> tails.long
        <Bias.HIGH: 'biased high'>
        """
        if not self.squares > 0:
            return Bias.NONE
        if self.count < _FEWEST:
            return Bias.UNKNOWN
        skewness = self.cubes / self.count / (self.squares / self.count) ** 1.5
        most = _MOST_IN_FEW if self.count < _FEW else _MOST
        return Bias.HIGH if skewness < -most else Bias.LOW if skewness > most else Bias.NONE


__all__ = ["Tails"]
