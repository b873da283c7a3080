"""A batch of one-dimensional integrals: where each lives, what is sampled of its integrand, and what came out.

Integral b of a batch is that of exp(L_b(v)) h_b(v) over an interval. Integrands are sampled at flat arrays of nodes,
each with the number of its integral, so that one call serves the whole batch. A result is scaled by its own
exponential, so that nothing overflows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Index: TypeAlias = NDArray[np.intp]

EPSILON = 2.0**-52

LIGHT = -690.0
"""A log-weight below which an overflow of the value does no harm."""


@dataclass(frozen=True)
class Sample:
    """An integrand exp(log_weight) * value at some nodes, with bounds on the errors of both."""

    log_weight: Array
    value: Array | None = None
    log_weight_error: Array | float = 0.0
    value_error: Array | float = 0.0

    def blocked(self) -> NDArray[np.bool_]:
        """Nodes without a value: a parameter overflowed, or the value did where next to no weight lies."""
        if self.value is None:
            return np.isnan(self.log_weight)
        lost = np.isinf(self.value) & (self.log_weight < LIGHT) & ~np.isneginf(self.log_weight)
        return np.isnan(self.log_weight) | np.isnan(self.value) | lost

    def magnitude(self) -> Array:
        """log |integrand|, -inf where it is zero or has no value."""
        size = self.log_weight if self.value is None else self.log_weight + np.log(np.abs(self.value))
        return np.where(np.isneginf(self.log_weight) | self.blocked(), -np.inf, size)


Integrand: TypeAlias = Callable[[Index, Array, bool], Sample]
"""(which integral, at which v, with rounding errors) -> Sample; all flat arrays of one length."""


@dataclass(frozen=True)
class Lines:
    """Where each integral of a batch lives: rows are integrals.

    The first center is that of the law that carries the mass; the others are places where something happens, with
    the width of what happens. Kinks are points that no panel may contain in its inside.
    """

    centers: Array
    widths: Array
    kinks: Array
    lower: Array
    upper: Array

    def take(self, rows: Index) -> Lines:
        """Some of the integrals."""
        return Lines(*(getattr(self, name)[rows] for name in ("centers", "widths", "kinks", "lower", "upper")))


@dataclass
class Integrals:
    """exp(scale) * total with an absolute error of exp(scale) * error; `infinite` is the sign of a divergence.

    `undecided` marks an integral whose tail neither clearly converges nor clearly diverges.
    """

    scale: Array
    total: Array
    error: Array
    infinite: Array
    undecided: NDArray[np.bool_]

    def put(self, rows: Index, other: Integrals) -> None:
        """Replace some of the integrals."""
        for name in ("scale", "total", "error", "infinite", "undecided"):
            getattr(self, name)[rows] = getattr(other, name)
