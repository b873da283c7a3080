"""Independent copies of a draw: K of them are one axis over multisets of states, whose weights count their orders.

What sums over the K copies needs only how often each state occurs in a multiset, so numbers that can use such a tally
(floats) sum over the states instead of over the copies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement, groupby, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.evaluators.named import Frame, Named
from boundcheck.language.terms import Expect, Plate, Term, Var, walk

MOST_MULTISETS = 1_000_000
"""The largest number of multisets of K copies that will be enumerated."""

MOST_ENTRIES = 50_000_000
"""The largest number of copies in all of these together."""


@dataclass(frozen=True)
class Copies:
    """Some multisets of K copies of one draw: the variables drawn for each copy, and their states in each multiset."""

    plate: Plate
    members: tuple[Var, ...]
    sizes: tuple[int, ...]
    entries: tuple[NDArray[np.intp], ...]
    """For each member an array of shape (multisets, K)."""

    def __len__(self) -> int:
        return len(self.entries[0])

    def read(self, array: Named, frame: Frame) -> Named:
        """An array over the states of a copy, read at the K entries of each multiset; these are the last axis."""
        present = [i for i, var in enumerate(self.members) if var in array.axes]
        plated = self.plate in array.axes
        kept, moved = self._split(array, frame, present)
        index: list[Any] = [self.entries[i] for i in present]
        if plated:
            index.insert(0, np.arange(len(self))[:, None])
        axes = frame.register((*kept, self.plate))
        if not index:
            return Named(
                frame.arrays.broadcast(moved[..., None, None], (*moved.shape, len(self), self.plate.size)), axes
            )
        data = frame.arrays.take(moved, index)
        if plated and not present:
            data = frame.arrays.broadcast(data, (*data.shape[:-1], self.plate.size))
        return Named(data, axes)

    def by_state(self, array: Named, frame: Frame) -> tuple[Named, NDArray[np.float64]]:
        """An array over the states of a copy, those as its last axis, and how often each occurs in each multiset.

        The array must not vary between multisets. The second result has the shape (multisets, states).
        """
        present = [i for i, var in enumerate(self.members) if var in array.axes]
        kept, moved = self._split(array, frame, present)
        sizes = [self.sizes[i] for i in present]
        flat = np.zeros_like(self.entries[0])
        for i in present:
            flat = flat * self.sizes[i] + self.entries[i]
        states = math.prod(sizes)
        tally = np.zeros((len(self), states))
        np.add.at(tally, (np.arange(len(self))[:, None], flat), 1.0)
        lead = moved.shape[: moved.ndim - len(present)]
        return Named(moved.reshape((*lead, states)), frame.register((*kept, self.plate))), tally

    def _split(self, array: Named, frame: Frame, present: list[int]) -> tuple[tuple[Any, ...], Any]:
        """The axes that have nothing to do with the copies, and the array with those first, then plate and members."""
        kept = tuple(axis for axis in array.axes if axis not in self.members and axis != self.plate)
        plate = (self.plate,) if self.plate in array.axes else ()
        order = (*kept, *plate, *(self.members[i] for i in present))
        return kept, frame.arrays.transpose(array.data, [array.axes.index(axis) for axis in order])


def too_many(states: int, k: int) -> str:
    """Why the multisets of k of `states` states will not be enumerated; "" if they will."""
    count = math.comb(states + k - 1, k)
    if count > MOST_MULTISETS:
        return f"{k} copies of {states} states are {count} multisets, more than {MOST_MULTISETS}"
    return f"{k} copies in each of {count} multisets are more than {MOST_ENTRIES}" if count * k > MOST_ENTRIES else ""


def multisets(states: int, k: int, rows: int) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
    """Multisets of k of `states` states in chunks: sorted entries (rows, k), and the number of orderings of each."""
    everything = combinations_with_replacement(range(states), k)
    while block := list(islice(everything, rows)):
        entries = np.array(block, dtype=np.intp)
        orderings = np.empty(len(block), dtype=object)
        for i, row in enumerate(block):
            ways, placed = 1, 0
            for _, run in groupby(row):
                repeats = sum(1 for _ in run)
                placed += repeats
                ways *= math.comb(placed, repeats)
            orderings[i] = ways
        yield entries, orderings


class DrawnInside(Exception):
    """Copies are drawn inside another function of the same copies, at `term`."""

    def __init__(self, term: Term) -> None:
        super().__init__(term.text)
        self.term = term


def chain_of(term: Expect, plate: Plate) -> tuple[list[Expect], list[Expect], Term]:
    """An expectation over copies as what is drawn once, what is drawn for each copy, and the body below them.

    Raises:
        DrawnInside: the body draws more for each copy.
    """
    chain: list[Expect] = []
    core: Term = term
    while isinstance(core, Expect) and (plate in core.consumed_plates or any(_draws(sub, plate) for sub in walk(core))):
        chain.append(core)
        core = core.body
    last = max(i for i, link in enumerate(chain) if plate in link.var.plates)
    core, chain = chain[last].body, chain[: last + 1]
    for sub in walk(core):
        if _draws(sub, plate):
            raise DrawnInside(sub)
    once = [link for link in chain if plate not in link.var.plates]
    return once, [link for link in chain if plate in link.var.plates], core


def _draws(term: Term, plate: Plate) -> bool:
    return isinstance(term, Expect) and plate in term.var.plates and plate in term.consumed_plates
