"""Standard normals in float32 from random words, a whole block in a few vector operations.

Box and Muller (1958): for u uniform on (0, 1] and an angle a uniform on the circle, sqrt(-2 log u) cos a and
sqrt(-2 log u) sin a are independent standard normals. It takes a fixed number of words for each number, so that a
draw's place in a stream is known, and no branches, so that it is several times as fast as a ziggurat. numpy's sines,
cosines and logarithms in float32 take a third to a half of the time of torch's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import require

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="random draws on a torch model")
    Tensor = torch.Tensor

_HALF_RANGE = 2.0**-31
_WORDS_AT_ONCE = 1 << 14
"""Words that are worked on at once: what that needs stays in the cache."""


def words_of(width: int) -> int:
    """How many words of 64 bits `box_muller` takes for a row of so many normals."""
    return (width + 1) // 2


def box_muller(words: NDArray[np.uint64], width: int, overwrite: bool = False) -> Tensor:
    """Standard normals of shape (*rows, width) in float32, from words of shape (*rows, words_of(width)).

    The low half of a word gives the radius, the high half the angle. u is at least 2^-32, so no normal is larger than
    6.7, which one in 10^11 would be; it has the full precision of float32 down to there. With `overwrite`, the normals
    take the place of the words, which are as large.

    >>> words = np.random.Philox(key=0).random_raw(50_000).reshape(1000, 50)
    >>> normals = box_muller(words, 99)
    >>> normals.shape, f"{normals.square().mean():.2f}, {normals.pow(4).mean():.1f}"
    (torch.Size([1000, 99]), '1.00, 3.0')
    """
    normals = words.view(np.float32) if overwrite else np.empty((*words.shape[:-1], 2 * words.shape[-1]), np.float32)
    rows, made = words.reshape(-1, words.shape[-1]), normals.reshape(-1, normals.shape[-1])
    at_once = max(1, _WORDS_AT_ONCE // max(1, words.shape[-1]))
    for start in range(0, len(rows), at_once):
        part = slice(start, start + at_once)
        _transform(rows[part].view(np.int32), made[part])
    return torch.from_numpy(normals)[..., :width]


def _transform(integers: NDArray[np.int32], normals: NDArray[np.float32]) -> None:
    """Integers as normals, which may be in the same memory."""
    radius, angle = (integers[..., half::2].astype(np.float32) for half in (0, 1))
    np.abs(radius, out=radius)
    radius += 0.5
    radius *= _HALF_RANGE
    np.log(radius, out=radius)
    radius *= -2.0
    np.sqrt(radius, out=radius)
    angle *= math.pi * _HALF_RANGE
    np.multiply(radius, np.cos(angle), out=normals[..., : radius.shape[-1]])
    np.multiply(radius, np.sin(angle, out=angle), out=normals[..., radius.shape[-1] :])


__all__ = ["box_muller", "words_of"]
