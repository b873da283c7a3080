"""Tensors with named axes: one axis for the replicates, one for each set of copies, and always one for the examples.

A sub-term is held over the axes of its own variables only, so that a sum over pairs is a broadcast and a law is
called once for all the draws that share it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from boundcheck.errors import require
from boundcheck.language.positions import nonnegative
from boundcheck.language.terms import Apply, Plate, Reduce, Term

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="Monte Carlo on a torch model")
    Tensor = torch.Tensor

REPLICATES = "replicates"
Axis: TypeAlias = Plate | str


class Grid(NamedTuple):
    """A tensor whose leading axes are named; then comes the axis of examples and, for points, their event axes."""

    data: Tensor
    axes: tuple[Axis, ...]

    @property
    def event(self) -> tuple[int, ...]:
        """The shape of one point; () for numbers."""
        return tuple(self.data.shape[len(self.axes) + 1 :])

    def arranged(self, axes: tuple[Axis, ...]) -> Tensor:
        """The data with the given named axes in this order, of length one where the grid has none."""
        kept = [self.axes.index(axis) for axis in axes if axis in self.axes]
        data = self.data.permute(*kept, *range(len(self.axes), self.data.ndim))
        for place, axis in enumerate(axes):
            if axis not in self.axes:
                data = data.unsqueeze(place)
        return data

    def map(self, function: Callable[[Tensor], Tensor]) -> Grid:
        """The same axes with a function applied to the data."""
        return Grid(function(self.data), self.axes)


def common_axes(grids: Sequence[Grid]) -> tuple[Axis, ...]:
    """All axes of some grids in one order: replicates, then copies in the order of their making."""
    found = {axis for grid in grids for axis in grid.axes}
    return tuple(sorted(found, key=lambda axis: axis.serial if isinstance(axis, Plate) else -1))


def combine(operation: Callable[[Tensor, Tensor], Tensor], grids: Sequence[Grid]) -> Grid:
    """An operation folded over grids of numbers, each broadcast along the axes it lacks."""
    axes = common_axes(grids)
    result = grids[0].arranged(axes)
    for other in grids[1:]:
        result = operation(result, other.arranged(axes))
    return Grid(result, axes)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "mul": torch.mul,
    "max": torch.maximum,
    "min": torch.minimum,
}
LOG_OPERATIONS = OPERATIONS | {"add": torch.logaddexp, "mul": torch.add}
"""The same operations on the logarithms of non-negative numbers."""


def is_exponential(term: Term) -> bool:
    """True if the term is a product of exponentials, so that it is safer computed as exp of its logarithm."""
    if isinstance(term, Apply):
        if term.op == "exp":
            return True
        if term.op == "pow":
            return is_exponential(term.args[0])
        if term.op == "mul":
            return all(map(nonnegative, term.args)) and any(map(is_exponential, term.args))
        return False
    return isinstance(term, Reduce) and is_exponential(term.body)
