"""Random numbers whose value depends on their place alone, and the fixed units that work is cut into.

A draw belongs to (seed, purpose, example, block of samples). Its stream is found by counting, never by drawing what
comes before (Salmon, Moraes, Dror and Shaw 2011), so it does not matter who draws it, when, or in how large a batch:
chunks, interruptions, threads and processes leave every number as it was. The cut into units and items depends only on
the job itself, its examples and its draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from boundcheck.errors import BadInput, require

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="random draws on a torch model")
    Tensor = torch.Tensor

LARGEST_SEED = 2**63
UNIT = 256
"""Samples of one example that share a stream."""
_SMALLEST_ITEM, _LARGEST_ITEM, _ITEMS = 1 << 12, 1 << 18, 32
_MOST_EXAMPLES = 64
_SPAN_GRAIN = 4 * UNIT
"""The length of a span is a multiple of this, so that a unit lies within one span."""
_SAMPLED_NUMBERS = 1 << 18
"""A draw through a law's own `sample` fills about this many numbers at once."""
_MASK32 = 0xFFFFFFFF


class Purpose(IntEnum):
    """What draws are for; different purposes never share a stream."""

    WEIGHTS = 1
    PILOT = 2
    ANNEALING = 3
    REVERSE = 4
    SIMULATION = 5
    OBJECTIVE = 6
    PROBE = 7


# --- numpy: Philox4x64-10 ---


def checked_seed(seed: object) -> int:
    """The seed, if it is one.

    Raises:
        BadInput: no integer from 0 to 2**63 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < LARGEST_SEED:
        raise BadInput("seed", seed, "an integer from 0 to 2**63 - 1")
    return seed


def generator(seed: int, purpose: Purpose, *place: int) -> np.random.Generator:
    """numpy's generator of one stream: key (seed, purpose), counter (0, *place), with at most three places.

    Args:
        seed: from 0 to 2**63 - 1.
        purpose: what the draws are for.
        place: up to three non-negative integers, such as the example and the block of samples.

    >>> generator(0, Purpose.WEIGHTS, 3, 1).standard_normal() == generator(0, Purpose.WEIGHTS, 3, 1).standard_normal()
    True
    >>> generator(0, Purpose.WEIGHTS, 3, 1).standard_normal() == generator(0, Purpose.WEIGHTS, 3, 2).standard_normal()
    False
    """
    key = np.array([seed, int(purpose)], dtype=np.uint64)
    counter = np.array([0, *place, *[0] * (3 - len(place))], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


# --- torch: Philox4x32-10, in integer operations, so equal on every device ---


def philox4x32(counter: Sequence[Tensor], key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 (Salmon et al. 2011): four words of 32 random bits for each counter of four words.

    Args:
        counter: four int64 tensors with values below 2^32, that broadcast against each other.
        key: two words of 32 bits.

    Returns:
        Four int64 tensors with values from 0 to 2^32 - 1.

    >>> zero = torch.zeros((), dtype=torch.int64)
    >>> [f"{int(word):08x}" for word in philox4x32((zero, zero, zero, zero), (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # A product of two 32-bit words wraps around in int64, which leaves its 64 bits as they should be.
        low, high = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (
            (high >> 32) & _MASK32 ^ c1 ^ k0,
            high & _MASK32,
            (low >> 32) & _MASK32 ^ c3 ^ k1,
            low & _MASK32,
        )
        k0, k1 = (k0 + 0x9E3779B9) & _MASK32, (k1 + 0xBB67AE85) & _MASK32
    return c0, c1, c2, c3


def device_normals(
    seed: int, purpose: Purpose, examples: Tensor, samples: Tensor, width: int, dtype: torch.dtype
) -> Tensor:
    """Standard normals on a device, by Box and Muller (1958), each a function of (example, sample, entry) alone.

    Args:
        seed: from 0 to 2**63 - 1.
        purpose: what the draws are for.
        examples: int64, the numbers of the examples; broadcasts with `samples`.
        samples: int64, the numbers of the samples, below 2^32.
        width: entries of one draw.
        dtype: float32 or float64.

    Returns:
        Normals of shape (*broadcast, width).

    >>> places = torch.arange(3)
    >>> both = device_normals(0, Purpose.WEIGHTS, places[:, None], places, 5, torch.float32)
    >>> one = device_normals(0, Purpose.WEIGHTS, places[1:2], places[2:], 5, torch.float32)
    >>> both.shape, bool(torch.equal(both[1, 2:], one))
    (torch.Size([3, 3, 5]), True)
    """
    quads = torch.arange(math.ceil(width / 4), device=examples.device) + (int(purpose) << 24)
    first, second = examples[..., None], samples[..., None]
    first, second = torch.broadcast_tensors(first, second)
    words = philox4x32(
        (quads.expand(*first.shape[:-1], len(quads)), second, first, torch.zeros_like(second)),
        (seed & _MASK32, seed >> 32),
    )
    # (word + 1/2) / 2^32 lies strictly between 0 and 1: its logarithm is finite.
    a, b, c, d = ((word.to(torch.float64) + 0.5) * 2.0**-32 for word in words)
    normals = []
    for radius, angle in ((a, b), (c, d)):
        length, turn = (radius.log() * -2).sqrt().to(dtype), (angle * (2 * math.pi)).to(dtype)
        normals += [length * turn.cos(), length * turn.sin()]
    return torch.stack(normals, -1).flatten(-2)[..., :width]


# --- seeds for torch's own generators ---


def scattered_seed(seed: int, purpose: Purpose, unit: int) -> int:
    """A 32-bit seed for torch's global generators, different for all units of one seed and purpose.

    torch's CPU generator reads 32 bits of a seed, so seeds are counted, never hashed: hashed ones would collide.

    >>> len({scattered_seed(5, Purpose.WEIGHTS, unit) for unit in range(1000)})
    1000
    """
    stream = (_spread(seed * 16 + int(purpose)) + unit) & _MASK32
    # The finaliser of MurmurHash3 is a permutation: neighbours get seeds that have nothing in common.
    stream = ((stream ^ (stream >> 16)) * 0x85EBCA6B) & _MASK32
    stream = ((stream ^ (stream >> 13)) * 0xC2B2AE35) & _MASK32
    return stream ^ (stream >> 16)


def _spread(number: int) -> int:
    """A number spread over 64 bits (the finaliser of SplitMix64), so that streams of nearby ones do not overlap."""
    mask = 2**64 - 1
    state = (number + 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


# --- units ---


@dataclass(frozen=True)
class Item:
    """A block of examples and a span of samples: what one thread works on, what is saved, what a process is given."""

    index: int
    block: int
    examples: slice
    samples: slice

    @property
    def rows(self) -> int:
        """Draws in all."""
        return (self.examples.stop - self.examples.start) * (self.samples.stop - self.samples.start)


@dataclass(frozen=True)
class Layout:
    """The fixed cut of (examples x samples) into items, by blocks of examples and spans of samples.

    >>> layout = Layout.of(examples=100, samples=5000)
    >>> len(layout), layout.block, layout.span
    (34, 3, 5000)
    >>> Layout.of(examples=1, samples=10**6).span
    30720
    """

    examples: int
    samples: int
    block: int
    span: int

    @classmethod
    def of(cls, examples: int, samples: int, entries: int = 1) -> Layout:
        """The cut of a job, by its own numbers alone.

        Args:
            examples: how many.
            samples: draws for each.
            entries: numbers in one observation: blocks of large ones are small.
        """
        rows = max(_SMALLEST_ITEM, min(_LARGEST_ITEM, examples * samples // _ITEMS))
        block = max(1, min(rows // samples, examples, _MOST_EXAMPLES, (1 << 20) // max(1, entries)))
        span = samples if samples <= rows else max(_SPAN_GRAIN, rows // _SPAN_GRAIN * _SPAN_GRAIN)
        return cls(examples, samples, block, span)

    @property
    def blocks(self) -> int:
        """How many blocks of examples."""
        return math.ceil(self.examples / self.block)

    @property
    def spans(self) -> int:
        """How many spans of samples."""
        return math.ceil(self.samples / self.span)

    def __len__(self) -> int:
        return self.blocks * self.spans

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < len(self):
            raise IndexError(index)
        block, span = divmod(index, self.spans)
        first, start = block * self.block, span * self.span
        return Item(
            index,
            block,
            slice(first, min(first + self.block, self.examples)),
            slice(start, min(start + self.span, self.samples)),
        )

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))


def samples_at_once(rows: int, entries: int) -> int:
    """Samples of a unit that is drawn by a law's own `sample`, for a block of `rows` examples with so many entries."""
    return max(1, min(UNIT, _SAMPLED_NUMBERS // max(1, rows * entries)))


__all__ = [
    "UNIT",
    "Item",
    "Layout",
    "Purpose",
    "checked_seed",
    "device_normals",
    "generator",
    "philox4x32",
    "samples_at_once",
    "scattered_seed",
]
