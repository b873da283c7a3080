"""Tables over named variables: the operands of an elimination, read block by block where they are large."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from boundcheck.evaluators.elimination_order import Scope
from boundcheck.models.factored import LARGE, LogFactor

Array: TypeAlias = NDArray[np.float64]

BLOCK = LARGE
"""Entries of a block: 256 KB of float64, which a second-level cache holds. What fits in a block is never cut."""

UNIT = 2.0**-52
"""Twice the largest relative error of one rounding: error estimates lean to the safe side."""

CALM = 300.0
"""Between exp(-CALM) and exp(CALM) there is room for products with probabilities and for sums over many states."""

TINY = 1e-250
"""A sum of terms of at most one that is above this has lost nothing to underflow that could count."""


@dataclass(frozen=True)
class Reading:
    """How numbers are made of a large factor's data: coefficient * log(factor), or an indicator of its zeros.

    A zero of the factor reads as `at_zero`: -inf in a weight, whatever the coefficient, and 0 in a value.
    """

    linear: bool
    coefficient: float
    at_zero: float
    elsewhere: float | None = None
    zeros: bool = True

    def __call__(self, data: Array, out: Array) -> None:
        """Reads a block, which is broadcast to `out`."""
        zeros = (data == 0.0 if self.linear else np.isneginf(data)) if self.zeros else np.False_
        if self.elsewhere is not None:
            out[...] = np.where(zeros, self.at_zero, self.elsewhere)
            return
        if self.linear:
            with np.errstate(divide="ignore"):
                np.log(data, out=out)
        else:
            np.copyto(out, data)
        if self.coefficient != 1:
            np.multiply(out, self.coefficient, out=out)
        if self.zeros:
            np.copyto(out, self.at_zero, where=zeros)


@dataclass(eq=False, slots=True)
class Table:
    """Numbers over the variables of a scope. `magnitude` is the largest finite absolute value, or above it.

    With a `reading`, `data` is a factor's own and has to be read first.
    """

    scope: Scope
    data: Array
    magnitude: float = 0.0
    reading: Reading | None = None

    @classmethod
    def of(cls, factor: LogFactor, coefficient: float, at_zero: float = -np.inf) -> Table:
        """coefficient * log(factor), as a weight; with `at_zero=0`, as a value."""
        if not factor.linear and not (factor.zeros and (coefficient <= 0 or at_zero == 0)):
            if coefficient == 1:
                return cls(factor.scope, factor.data, factor.magnitude)
            if factor.data.size <= BLOCK:
                return cls(factor.scope, coefficient * factor.data, abs(coefficient) * factor.magnitude)
        reading = Reading(factor.linear, coefficient, at_zero, zeros=factor.zeros)
        return cls(factor.scope, factor.data, abs(coefficient) * factor.magnitude, reading)._read_if_small()

    @classmethod
    def zeros_of(cls, factor: LogFactor) -> Table:
        """The weight that is one where the factor is zero, and zero elsewhere."""
        return cls(factor.scope, factor.data, 0.0, Reading(factor.linear, 1.0, 0.0, -np.inf))._read_if_small()

    @property
    def plain(self) -> bool:
        """True if `data` holds the numbers themselves."""
        return self.reading is None

    def _read_if_small(self) -> Table:
        if self.reading is None or self.data.size > BLOCK:
            return self
        data = np.empty(self.data.shape)
        self.reading(self.data, data)
        return Table(self.scope, data, self.magnitude)

    def times(self, vector: Array, scope: Scope) -> Table:
        """The table summed over its trailing axes with weights: sum_k data[..., k] vector[k], over `scope`."""
        rows = self.data.reshape(-1, len(vector))
        if self.reading is None:
            sums = rows @ vector
        else:
            height = max(1, BLOCK // len(vector))
            sums, buffer = np.empty(len(rows)), np.empty((min(height, len(rows)), len(vector)))
            for start in range(0, len(rows), height):
                block = rows[start : start + height]
                self.reading(block, buffer[: len(block)])
                np.dot(buffer[: len(block)], vector, out=sums[start : start + height])
        return Table(scope, sums.reshape(self.data.shape[: len(scope)]), self.magnitude)


def calm(tables: Sequence[Table]) -> bool:
    """True if exp of the tables' sum can neither under- nor overflow (except at -inf), so that it needs no shift."""
    return sum([table.magnitude for table in tables]) < CALM


def align(data: Array, scope: Scope, order: Scope) -> Array:
    """A view whose axes are those of `order`, of length one where the scope lacks a variable."""
    if scope == order:
        return data
    present = tuple([v for v in order if v in scope])
    if present != scope:
        data = data.transpose([scope.index(v) for v in present])
    if len(present) == len(order):
        return data
    lengths = iter(data.shape)
    return data.reshape([next(lengths) if v in scope else 1 for v in order])


def plus(arrays: Sequence[Array]) -> Array:
    """The sum of arrays that broadcast; 0 for none."""
    if not arrays:
        return np.zeros(())
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    return total


def add_up(tables: Sequence[Table], scope: Scope, sizes: Sequence[int]) -> Table:
    """The sum of plain tables as one table over `scope`."""
    place = {v: i for i, v in enumerate(scope)}
    placed = []
    for table in tables:
        places = [place[v] for v in table.scope]
        order = sorted(range(len(places)), key=places.__getitem__)
        placed.append((tuple([places[i] for i in order]), table.data.transpose(order)))
    total = np.empty([sizes[v] for v in scope])
    np.copyto(total, _added(placed, 0, len(scope), 0))
    return Table(scope, total, sum(table.magnitude for table in tables))


def _added(placed: list[tuple[tuple[int, ...], Array]], start: int, stop: int, batch: int) -> Array:
    """The sum of arrays over the axes start..stop-1 and trailing batch axes, up to broadcasting.

    Each array comes with its places among the axes. Arrays are added from the last axis to the first, each where its
    own first axis comes in, so most additions are on arrays that are still small: the work is a few times the size of
    the result.
    """
    total = np.zeros((1,) * batch)
    stars: dict[int, list[tuple[tuple[int, ...], Array]]] = {}
    for places, array in placed:
        if not places:
            total = total + array
        else:
            moved = array.transpose((*range(1, array.ndim), 0)) if array.ndim > 1 else array
            stars.setdefault(places[0], []).append((places[1:], moved))
    for axis in range(stop - 1, start - 1, -1):
        total = total[None]
        if axis in stars:
            star = _added(stars[axis], axis + 1, stop, batch + 1)
            total = total + star.transpose((star.ndim - 1, *range(star.ndim - 1)))
    return total


class Watch:
    """The mean of a large factor's logarithm under another law, taken while its blocks are in the cache for a sum.

    `vector` holds the law of the trailing variables; `sums` gets one entry for each state of the others.
    """

    def __init__(self, factor: LogFactor, vector: Array) -> None:
        self.data, self.vector = factor.data, vector
        self.sums = np.empty(factor.data.size // len(vector))
        self.done = False

    def takes(self, data: Array, width: int) -> bool:
        """Whether a sum that reads `data` in rows of that width would serve."""
        return data is self.data and width == len(self.vector) and not self.done

    def see(self, rows: Array, number: int) -> None:
        """Takes in a block; blocks come in order."""
        start = number * len(rows)
        np.dot(rows, self.vector, out=self.sums[start : start + len(rows)])
        self.done = start + len(rows) == len(self.sums)


class Blocks:
    """The sum of tables over an `order` of variables, read block by block.

    A block is what remains of the order when its leading axes are fixed, as rows of `width` entries. `log_column` is
    added to every row; it costs nothing, because it stays a vector of weights as long as that loses nothing.
    """

    def __init__(
        self, tables: Sequence[Table], order: Scope, shape: tuple[int, ...], width: int, log_column: Array | None = None
    ) -> None:
        largest_first = sorted(tables, key=lambda table: -table.data.size)
        self.views = [(align(table.data, table.scope, order), table.reading) for table in largest_first]
        self.rows, self.width = max(1, int(np.prod(shape)) // width), width
        self._block = np.empty(shape)
        self._calm = calm(tables)
        self._second = np.empty(shape) if any(reading for _, reading in self.views[1:]) else None
        self.watch: Watch | None = None
        self.log_column = np.zeros(width) if log_column is None else log_column
        top = float(self.log_column.max())
        self.shift = top if top > -np.inf else 0.0
        self.vector = np.exp(self.log_column - self.shift)

    def total(self, index: tuple[int, ...]) -> Array:
        """The sum of the tables (without the column) on the block at an index, in a buffer of the object's own."""
        if not self.views:
            self._block[...] = 0.0
        for number, (view, reading) in enumerate(self.views):
            data = _at(view, index)
            if reading is not None and number:
                assert self._second is not None
                reading(data, self._second)
                np.add(self._block, self._second, out=self._block)
            elif reading is not None:
                reading(data, self._block)
            elif number:
                np.add(self._block, data, out=self._block)
            else:
                np.copyto(self._block, data)
        return self._block.reshape(self.rows, self.width)

    def sums(self, index: tuple[int, ...], number: int) -> tuple[Array, Array, Array, Array | float]:
        """Row by row on the block of that number: (terms, vector, terms @ vector, log of the factor the terms lack)."""
        view, reading = self.views[0] if len(self.views) == 1 else (None, None)
        data = _at(view, index) if view is not None else None
        if data is not None and data.flags.c_contiguous and data.size == self._block.size:
            rows = data.reshape(self.rows, self.width)
            if self.watch is not None:
                self.watch.see(rows, number)
            if reading is not None and reading.linear and reading.coefficient == 1 and reading.elsewhere is None:
                sums = rows @ self.vector
                if sums.min() > TINY and sums.max() < 1 / TINY:
                    return rows, self.vector, sums, self.shift
            if reading is not None:
                rows = self.total(index)
        else:
            rows = self.total(index)
        if self._calm:
            terms, tops = np.exp(rows, out=self._block.reshape(self.rows, self.width)), 0.0
        else:
            terms, tops = self._exponentials(rows)
        sums = terms @ self.vector
        if not sums.min() > TINY:
            terms, tops = self._exponentials(self.total(index) + self.log_column)
            return terms, np.ones(self.width), terms.sum(axis=1), tops
        return terms, self.vector, sums, tops + self.shift

    def _exponentials(self, rows: Array) -> tuple[Array, Array]:
        tops = finite(np.maximum.reduce(rows, axis=1))
        terms = self._block.reshape(self.rows, self.width)
        np.subtract(rows, tops[:, None], out=terms)
        np.exp(terms, out=terms)
        return terms, tops


def finite(tops: Array) -> Array:
    """The shifts of some sums: where every term is zero there is nothing to shift by."""
    return np.where(np.isneginf(tops), 0.0, tops) if float(np.minimum.reduce(tops, axis=None)) == -np.inf else tops


def _at(view: Array, index: tuple[int, ...]) -> Array:
    """A block of an aligned view; an axis that the table lacks is of length one."""
    return view[tuple([i if view.shape[axis] > 1 else 0 for axis, i in enumerate(index)])]


def law_vector(laws: dict[int, Array], scope: Scope) -> Array:
    """The joint law of independent variables, as a vector over their states."""
    vector = laws[scope[0]]
    for v in scope[1:]:
        vector = np.multiply.outer(vector, laws[v]).reshape(-1)
    return vector


class Carried:
    """The values that are carried along, found by the variables that they mention."""

    def __init__(self, values: Iterable[Table]) -> None:
        self.closed: list[Table] = []
        self._open: dict[int, Table] = {}
        self._mentioning: dict[int, list[int]] = {}
        self._count = 0
        for value in values:
            self.add(value)

    def add(self, value: Table) -> None:
        if not value.scope:
            self.closed.append(value)
            return
        self._count += 1
        self._open[self._count] = value
        for v in value.scope:
            self._mentioning.setdefault(v, []).append(self._count)

    def take(self, group: Scope) -> list[Table]:
        """Removes and returns the values that mention a variable of the group."""
        numbers = dict.fromkeys(number for v in group for number in self._mentioning.pop(v, ()))
        return [self._open.pop(number) for number in numbers if number in self._open]


def around_zero(table: Table) -> tuple[Table, float]:
    """A table with its largest entry put aside, so that sums are of numbers no larger than they must be."""
    top = float(np.maximum.reduce(table.data, axis=None))
    if not table.scope or top == -math.inf:
        return Table((), np.zeros(())), top
    data = table.data - top
    low = float(np.minimum.reduce(data, axis=None))
    if low == -math.inf:
        low = float(np.min(data, where=np.isfinite(data), initial=0.0))
    return Table(table.scope, data, magnitude=-low), top


def absorbed(tables: Sequence[Table]) -> list[list[Table]]:
    """Groups of tables: the first, the host, has all variables of the others."""
    hosts: list[list[Table]] = []
    for table in sorted(tables, key=lambda table: -table.data.size):
        host = next((host for host in hosts if set(table.scope) <= set(host[0].scope)), None)
        if host is None:
            hosts.append([table])
        else:
            host.append(table)
    return hosts


def log_of(sums: Array, shift: Array | float) -> Array:
    """log(sums * exp(shift))."""
    with np.errstate(divide="ignore"):
        return np.log(sums) + shift
