"""Which block of each axis is being evaluated, and results that are kept for as long as they stay true."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from boundcheck.evaluators.grids import REPLICATES, Axis
from boundcheck.language.terms import OBSERVED, Plate, Var


@dataclass
class _Open:
    """The block of an axis that is being evaluated, and the layer of the memo that is forgotten with it."""

    index: int
    size: int
    layer: int


class OpenAxes:
    """Open axes by name, and a memo with one layer for each of them: a layer is forgotten when its axis closes."""

    def __init__(self) -> None:
        self.open: dict[Axis, _Open] = {}
        self.memo: list[dict[Any, Any]] = [{}]

    @contextmanager
    def _opened(self, axis: Axis, index: int, size: int) -> Iterator[None]:
        before = self.open.get(axis)
        self.open[axis] = _Open(index, size, len(self.memo))
        self.memo.append({})
        try:
            yield
        finally:
            self.memo.pop()
            if before is None:
                del self.open[axis]
            else:
                self.open[axis] = before

    def _layer(self, variables: frozenset[Var], plates: frozenset[Plate]) -> dict[Any, Any]:
        """The memo's layer that lives as long as a result stays true."""
        axes: list[Axis] = [*plates]
        if variables - {OBSERVED}:
            axes.append(REPLICATES)
        return self.memo[max((self.open[axis].layer for axis in axes), default=0)]

    def _size(self, axis: Axis) -> int:
        return self.open[axis].size


__all__ = ["OpenAxes"]
