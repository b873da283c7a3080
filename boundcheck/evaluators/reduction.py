"""Sums over chains, trees and rings of variables of few states, many variables at a time.

Where every table is over one or two variables, a variable with one neighbour is a leaf, and summing it out gives its
neighbour a table; a variable with two neighbours is a joint of a path, and summing it out links the two; two links
between the same variables multiply into one. These three steps reduce every chain, tree and ring to single variables
(they are the series and parallel steps by which electrical networks are reduced; Duffin 1965). Variables that do not
touch each other go in one step, so that a chain of n takes about log2 n of them, each a product of stacked matrices.

Numbers are probabilities, each table divided by its largest entry. No step cancels, so relative errors only add; what
could have underflowed shows as a tiny sum, and the caller then takes the sum in logarithms, one group at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from boundcheck.evaluators.potentials import TINY, UNIT, Array, Table

FEWEST = 8
"""With fewer variables than this, one group after another is as fast."""

WIDEST = 8
"""With more states than this, a product of two matrices costs more than the steps that it saves."""

Numbers: TypeAlias = NDArray[np.intp]
"""Numbers of variables or of arcs: link i between a and b is arc 2i, its table as [a, b], and 2i + 1, as [b, a]."""

Near: TypeAlias = list[dict[int, int]]
"""For each variable, the arc to each of its neighbours."""


@dataclass(frozen=True)
class Leaves:
    """Sum out `leaf`, seen along `arc` from its neighbour; equal neighbours stand together, from `starts` on."""

    arc: Numbers
    leaf: Numbers
    starts: Numbers
    neighbour: Numbers


@dataclass(frozen=True)
class Joints:
    """Sum out `joint`: arc `left` into it and arc `right` out of it become one, which takes the number of `left`."""

    left: Numbers
    joint: Numbers
    right: Numbers


@dataclass(frozen=True)
class Parallels:
    """Multiply the table of arc `other` into that of arc `kept`."""

    kept: Numbers
    other: Numbers


Stage: TypeAlias = Leaves | Joints | Parallels


@dataclass(frozen=True)
class Reduction:
    """The stages, and the variables that then stand alone."""

    stages: tuple[Stage, ...]
    alone: Numbers


@lru_cache(maxsize=256)
def reduction_of(variables: int, links: tuple[tuple[int, int], ...]) -> Reduction | None:
    """The stages for a graph without parallel links; None if a part of it is left with three neighbours everywhere."""
    near: Near = [{} for _ in range(variables)]
    for number, (a, b) in enumerate(links):
        near[a][b], near[b][a] = 2 * number, 2 * number + 1
    stages: list[Stage] = []
    linked = [v for v in range(variables) if near[v]]
    summed: set[int] = set()
    while linked:
        leaves, joints = (_apart([v for v in linked if len(near[v]) == n], near) for n in (1, 2))
        if not (leaves or joints):
            return None
        chosen = leaves if len(leaves) >= len(joints) else joints
        stages += [_cut(leaves, near)] if chosen is leaves else _joined(joints, near)
        summed.update(chosen)
        linked = [v for v in linked if near[v]]
    return Reduction(tuple(stages), _numbers(v for v in range(variables) if v not in summed))


def _numbers(numbers: Iterable[int]) -> Numbers:
    return np.fromiter(numbers, dtype=np.intp)


def _apart(candidates: list[int], near: Near) -> list[int]:
    """Some of the candidates, no two of them neighbours."""
    chosen: dict[int, None] = {}
    for v in candidates:
        if chosen.keys().isdisjoint(near[v]):
            chosen[v] = None
    return list(chosen)


def _cut(leaves: list[int], near: Near) -> Leaves:
    at: dict[int, list[int]] = {}
    for v in leaves:
        (neighbour,) = near[v]
        at.setdefault(neighbour, []).append(v)
    order = [(v, u) for u, together in at.items() for v in together]
    arcs = [near[u].pop(v) for v, u in order]
    for v in leaves:
        near[v] = {}
    starts = np.cumsum([0, *map(len, at.values())])[:-1]
    return Leaves(_numbers(arcs), _numbers(v for v, _ in order), starts, _numbers(at))


def _joined(joints: list[int], near: Near) -> list[Stage]:
    rows: list[tuple[int, int, int]] = []
    parallels: list[dict[int, int]] = []
    for v in joints:
        (a, to_a), (b, to_b) = near[v].items()
        left = to_a ^ 1
        rows.append((left, v, to_b))
        del near[a][v], near[b][v]
        near[v] = {}
        if b not in near[a]:
            near[a][b], near[b][a] = left, left ^ 1
            continue
        kept, other = near[a][b], left
        if kept % 2:  # both read from the other end, so that a link has one number
            kept, other = kept ^ 1, other ^ 1
        stage = next((stage for stage in parallels if kept not in stage), None)
        if stage is None:
            parallels.append(stage := {})
        stage[kept] = other
    columns = [_numbers(column) for column in zip(*rows, strict=True)]
    return [Joints(*columns), *(Parallels(_numbers(stage), _numbers(stage.values())) for stage in parallels)]


# --- the numbers ---


@dataclass(frozen=True)
class Stacked:
    """Tables over one or two variables of equally many states, as probabilities in two stacks.

    Attributes:
        singles: for each variable the product of its tables, of shape (variables, states).
        arcs: both readings of each link's table, of shape (2 links, states, states).
        log_scale: the logarithm of what the stacks were divided by.
        noise: the error of the logarithm of a product of entries, in units of UNIT.
        reduction: how to sum them.
    """

    singles: Array
    arcs: Array
    log_scale: float
    noise: float
    reduction: Reduction

    @classmethod
    def of(cls, sizes: tuple[int, ...], weights: Sequence[Table]) -> Stacked | None:
        """The stacks of tables of logarithms; None where the tables are not of this kind, or too far apart."""
        wide = [v for v, size in enumerate(sizes) if size > 1]
        if len(wide) < FEWEST or len(kinds := {sizes[v] for v in wide}) > 1 or max(kinds) > WIDEST:
            return None
        if any(len(table.scope) > 2 or not table.plain for table in weights):
            return None
        (size,), place = kinds, {v: i for i, v in enumerate(wide)}
        sums: dict[tuple[int, ...], Array] = {(i,): np.zeros(size) for i in range(len(wide))}
        magnitudes: dict[tuple[int, ...], float] = {}
        noise = 0.0
        for table in weights:
            scope, data = tuple([place[v] for v in table.scope]), table.data
            if len(scope) == 2 and scope[0] > scope[1]:
                scope, data = scope[::-1], data.T
            sums[scope] = sums[scope] + data if scope in sums else data
            magnitudes[scope] = magnitudes.get(scope, 0.0) + table.magnitude
            noise += 1 + magnitudes[scope]  # each addition rounds the sum so far
        if not all(np.isfinite(total).all() for total in sums.values()):
            return None
        log_scale = float(sums.pop((), 0.0))
        links = tuple((scope[0], scope[1]) for scope in sums if len(scope) == 2)
        reduction = reduction_of(len(wide), links)
        if reduction is None:
            return None
        singles = np.array([sums[i,] for i in range(len(wide))])
        arcs = np.array([[sums[link], sums[link].T] for link in links]).reshape(-1, size, size)
        tops = singles.max(axis=1, keepdims=True), arcs.max(axis=(1, 2), keepdims=True)
        log_scale = math.fsum([log_scale, *tops[0].flat, *tops[1][::2].flat])
        singles, arcs = np.exp(singles - tops[0]), np.exp(arcs - tops[1])
        if min(singles.min(), arcs.min(initial=1.0)) < TINY:
            return None
        noise += 4 * math.fsum(magnitudes.values()) + 2 * len(sums)
        return cls(singles, arcs, log_scale, noise, reduction)

    def log_total(self) -> tuple[float, float] | None:
        """The logarithm of the sum over all states, and an estimate of its error; None if a sum became tiny."""
        singles, arcs = self.singles.copy(), self.arcs.copy()
        scales: list[Array] = []
        for stage in self.reduction.stages:
            if isinstance(stage, Leaves):
                seen = (arcs[stage.arc] @ singles[stage.leaf][:, :, None])[:, :, 0]
                seen = _rescaled(seen, scales)
                if seen is None:
                    return None
                table = np.multiply.reduceat(seen, stage.starts) * singles[stage.neighbour]
            elif isinstance(stage, Joints):
                table = (arcs[stage.left] * singles[stage.joint][:, None]) @ arcs[stage.right]
            else:
                table = arcs[stage.kept] * arcs[stage.other]
            table = _rescaled(table, scales)
            if table is None:
                return None
            if isinstance(stage, Leaves):
                singles[stage.neighbour] = table
            else:
                kept = stage.left if isinstance(stage, Joints) else stage.kept
                arcs[kept], arcs[kept ^ 1] = table, table.transpose(0, 2, 1)
        scales.append(singles[self.reduction.alone].sum(axis=1))
        logs = np.log(np.concatenate(scales)).tolist()
        total = math.fsum([self.log_scale, *logs])
        roundings = self.noise + (singles.shape[1] + 4) * (len(logs) + len(singles))
        return total, UNIT * (roundings + math.fsum(map(abs, logs)) + 2 * abs(self.log_scale) + abs(total))


def _rescaled(table: Array, scales: list[Array]) -> Array | None:
    """A stack of tables, each divided by its largest entry, which goes to `scales`; None if an entry is tiny."""
    if not np.minimum.reduce(table, axis=None) > TINY:
        return None
    tops = np.maximum.reduce(table, axis=tuple(range(1, table.ndim)), keepdims=True)
    scales.append(tops.reshape(-1))
    return table / tops
