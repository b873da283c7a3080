"""Arrays whose axes have names: sub-terms meet by the names of their axes, whatever library holds their numbers.

What an evaluation does to arrays besides arithmetic (transpose, broadcast, stack, index) is `Arrays`, for numpy; the
differentiable evaluator has its own for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from boundcheck.language.terms import Plate, Var

Axis: TypeAlias = Var | Plate | str
"""A bound variable, the copies of a plate, or a batch of models."""


@dataclass
class Named:
    """An array (of numpy, or a tensor) whose axes are named by variables, plates or the batch of models."""

    data: Any
    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        if isinstance(self.data, np.generic) or not hasattr(self.data, "ndim"):  # numpy unwraps arrays without axes
            wrapped = np.empty((), dtype=np.float64 if isinstance(self.data, float) else object)
            wrapped[()] = self.data
            self.data = wrapped


class Arrays:
    """What an evaluation does to arrays besides arithmetic, for numpy."""

    def transpose(self, array: Any, order: Sequence[int]) -> Any:
        """The array with its axes in another order."""
        return np.transpose(array, order)

    def broadcast(self, array: Any, shape: Sequence[int]) -> Any:
        """The array repeated along axes of length one."""
        return np.broadcast_to(array, shape)

    def stack(self, arrays: Sequence[Any]) -> Any:
        """Arrays, broadcast against one another, along a new last axis."""
        return np.stack(np.broadcast_arrays(*arrays), axis=-1)

    def take(self, array: Any, index: Sequence[Any]) -> Any:
        """The array read along its last axes at whole numbers, given as arrays of one shape."""
        return array[(..., *index)]


class Frame:
    """The axes met in one evaluation, in the order to which arrays are transposed before they meet."""

    def __init__(self, arrays: Arrays, order: dict[Axis, int] | None = None) -> None:
        self.arrays = arrays
        self.order: dict[Axis, int] = {} if order is None else order

    def register(self, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        """The same axes, known from now on."""
        for axis in axes:
            self.order.setdefault(axis, len(self.order))
        return axes

    def align(self, arrays: Sequence[Named]) -> tuple[list[Any], tuple[Axis, ...]]:
        """Arrays transposed to one common order of axes, with length-one axes where one has none."""
        axes = tuple(sorted({axis for a in arrays for axis in a.axes}, key=self.order.__getitem__))
        out = []
        for a in arrays:
            if a.axes == axes:
                out.append(a.data)
                continue
            present = [axis for axis in axes if axis in a.axes]
            data = self.arrays.transpose(a.data, [a.axes.index(axis) for axis in present])
            out.append(data[tuple(slice(None) if axis in a.axes else None for axis in axes)])
        return out, axes

    def fold(self, combine: Callable[[Any, Any], Any], arrays: Sequence[Named]) -> Named:
        """Arrays combined from left to right by a function of two."""
        result = arrays[0]
        for other in arrays[1:]:
            (a, b), axes = self.align([result, other])
            result = Named(combine(a, b), axes)
        return result
