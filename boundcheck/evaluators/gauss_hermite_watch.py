"""What the nodes of a grid cannot see: peaks, turns and ends that lie between or beyond them, noticed on the way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import Any

import numpy as np

from boundcheck.evaluators.gauss_hermite_axes import Axes
from boundcheck.evaluators.gauss_hermite_doubts import hides_a_peak, turning_argument, turns_unseen
from boundcheck.evaluators.gauss_hermite_rules import Array, plain
from boundcheck.models.densities import Density, Mixture

FEWEST_NODES = 4


class Watch(Axes):
    """Axes whose nodes are watched: `hidden` becomes true where something may hide from them."""

    @contextmanager
    def _watching(self, axes: frozenset[int]) -> Iterator[None]:
        saved, self.watched = self.watched, axes
        try:
            yield
        finally:
            self.watched = saved

    def _watch(self, density: Density, v: Any, axes: frozenset[int]) -> None:
        """Notice a density that may rise, or turn, far from what neighbouring nodes see of it."""
        if self.hidden:
            return
        if isinstance(density, Mixture):
            for component in density.components:  # a sum of exponentials, whether or not its logarithm is taken
                self._watch(component, v, self.all_axes)
            parts = [np.asarray(c.log_density(plain(v)), dtype=float) + math.log(float(w))
                     for c, w in zip(density.components, density.weights, strict=True)]  # fmt: skip
            self._watch_turns(*(a - b for a, b in combinations(parts, 2)))
            return
        turn = turning_argument(density, v)
        if turn is not None:
            self._watch_turns(turn)
        if axes:
            logs = np.asarray(density.log_density(plain(v)), dtype=float)
            for axis, along in self._rules_along(logs, axes):
                corners = axis not in self.multisets  # there the nodes come in runs
                self.hidden = self.hidden or any(hides_a_peak(part, corners) for part, _ in along)

    def _watch_turns(self, *arguments: Array) -> None:
        """Notice functions that turn where an argument passes zero, within a few units of it, unseen by the nodes."""
        for argument in arguments:
            for axis, along in self._rules_along(argument, self.all_axes):
                if axis not in self.multisets:
                    self.hidden = self.hidden or any(turns_unseen(part, weights) for part, weights in along)

    def _watch_ends(self, terms: Array, count: int) -> None:
        """Notice a sum over the first axes whose largest term is at an outermost node: its mass may lie beyond."""
        tops = np.max(terms, axis=tuple(range(count)), keepdims=True)
        axes = frozenset(range(self.depth - count, self.depth)) - self.bounded
        for axis, along in self._rules_along(terms, axes):
            if axis not in self.multisets:
                top = np.moveaxis(tops, np.ndim(terms) - 1 - axis, 0)[0]
                ends = [np.maximum(part[0], part[-1]) for part, _ in along]
                self.hidden = self.hidden or any(np.any((end >= top) & np.isfinite(top)) for end in ends)

    def _rules_along(self, values: Array, axes: frozenset[int]) -> Iterator[tuple[int, list[tuple[Array, Array]]]]:
        """For each axis of nodes the values on it, nodes first, and the nodes' log-weights, one rule at a time."""
        for axis in axes - self.sums:
            place = np.ndim(values) - 1 - axis
            if place < 0 or values.shape[place] < FEWEST_NODES:
                continue
            values_first = np.moveaxis(values, place, 0)
            if axis in self.multisets:
                yield axis, [(values_first, np.zeros(len(values_first)))]
                continue
            ends = np.cumsum(self.blocks[axis])[:-1]
            yield axis, list(zip(np.split(values_first, ends), np.split(self.node_weights[axis], ends), strict=True))


__all__ = ["FEWEST_NODES", "Watch"]
