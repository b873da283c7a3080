"""Arrays of Python objects as numbers: what the exact and the enclosure domains share.

numpy broadcasts such arrays like any other; what it cannot do is sum along an axis with the conventions of
probability, so that is a loop here, over lists, written once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def mapped(function: Callable[..., Any], *arrays: NDArray[Any]) -> NDArray[Any]:
    """A function of numbers applied elementwise with broadcasting."""
    return np.frompyfunc(function, len(arrays), 1)(*arrays)


def along(function: Callable[..., Any], axis: int, *arrays: NDArray[Any]) -> NDArray[Any]:
    """A function of sequences applied along an axis of arrays of equal rank, the other axes broadcast."""
    broadcast = np.broadcast_arrays(*arrays)
    moved = [np.moveaxis(array, axis, -1) for array in broadcast]
    shape = moved[0].shape[:-1]
    rows = [array.reshape(-1, array.shape[-1]).tolist() for array in moved]
    out = np.empty(len(rows[0]), dtype=object)
    for i, entries in enumerate(zip(*rows, strict=True)):
        out[i] = function(*entries)
    return out.reshape(shape)


def scalar(value: object) -> NDArray[Any]:
    """A number as an array without axes."""
    out = np.empty((), dtype=object)
    out[()] = value
    return out


def running_product(values: Sequence[Any]) -> Any:
    """The product of one or more numbers."""
    result = values[0]
    for value in values[1:]:
        result = result * value
    return result
