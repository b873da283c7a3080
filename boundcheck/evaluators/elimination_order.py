"""In which order variables are summed out, and how a dense core is packed: plans, made from scopes alone.

A plan depends on which tables mention which variables and on the numbers of states, never on the entries, so it is
made once for a structure and remembered.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeAlias

Scope: TypeAlias = tuple[int, ...]

WIDTH = 1 << 10
"""States of the variables that are summed in one go over the rows of a table that is too large to be summed whole."""

CORE = 1 << 15
"""A clique of more states than this is a core, whose small tables are packed."""


@dataclass(frozen=True)
class Step:
    """Sum `group` out of the tables numbered `inputs`; the result, over `out`, gets the next number."""

    inputs: tuple[int, ...]
    out: Scope
    group: Scope

    @cached_property
    def members(self) -> frozenset[int]:
        """The group as a set."""
        return frozenset(self.group)

    @cached_property
    def clique(self) -> frozenset[int]:
        """All variables of the inputs."""
        return frozenset((*self.out, *self.group))

    def peak(self, sizes: Sequence[int]) -> int:
        """The entries of the largest table that the step makes; a large group is summed in two parts."""
        group = states(sizes, self.group)
        return states(sizes, self.out) * (max(1, group // WIDTH) if states(sizes, self.clique) > CORE else 1)


def states(sizes: Sequence[int], scope: Scope | frozenset[int]) -> int:
    """The number of joint states of some variables."""
    return math.prod([sizes[v] for v in scope])


def split_group(sizes: Sequence[int], group: Scope, like: Scope) -> tuple[Scope, Scope]:
    """A group in the order of `like`, cut into (front, back) so that back has at most WIDTH states."""
    ordered = tuple(v for v in group if v not in like) + tuple(v for v in like if v in group)
    start, width = len(ordered) - 1, sizes[ordered[-1]]
    while start and width * sizes[ordered[start - 1]] <= WIDTH:
        start -= 1
        width *= sizes[ordered[start]]
    return ordered[:start], ordered[start:]


@lru_cache(maxsize=256)
def order_of(sizes: tuple[int, ...], scopes: tuple[Scope, ...]) -> tuple[Step, ...]:
    """A plan that sums out every variable of the scopes: smallest clique first, or least fill-in if that is better."""
    plan = _greedy(sizes, scopes, fill=False)
    if max((step.peak(sizes) for step in plan), default=0) > CORE:
        other = _greedy(sizes, scopes, fill=True)
        plan = min(plan, other, key=lambda steps: max(step.peak(sizes) for step in steps))
    return plan


def _greedy(sizes: tuple[int, ...], scopes: tuple[Scope, ...], fill: bool) -> tuple[Step, ...]:
    near: dict[int, set[int]] = {}
    holders: dict[int, set[int]] = {}
    for number, scope in enumerate(scopes):
        for v in scope:
            near.setdefault(v, {v}).update(scope)
            holders.setdefault(v, set()).add(number)
    weight = [math.log2(size) for size in sizes]

    def cost(v: int) -> tuple[float, float, int]:
        size = math.fsum(weight[u] for u in near[v])
        if not fill:
            return (size, 0.0, v)
        missing = sum(len(near[v] - near[u]) for u in near[v])
        return (missing, size, v)

    known = {v: cost(v) for v in near}
    heap = list(known.values())
    heapq.heapify(heap)
    steps: list[Step] = []
    while heap:
        entry = heapq.heappop(heap)
        v = entry[-1]
        if known.get(v) != entry:
            continue
        clique = near[v]
        group = tuple(sorted(u for u in clique if near[u] <= clique))
        out = tuple(sorted(clique.difference(group)))
        inputs = tuple(sorted(set().union(*(holders[u] for u in group))))
        steps.append(Step(inputs, out, group))
        for u in group:
            del near[u], holders[u], known[u]
        for u in out:
            near[u] = (near[u] | clique).difference(group)
            holders[u].difference_update(inputs)
            holders[u].add(len(scopes) + len(steps) - 1)
        changed = set(out)
        if fill:  # the fill-in of a variable depends on the edges among its neighbours, too
            changed.update(*(near[u] for u in out))
        for u in changed:
            known[u] = cost(u)
            heapq.heappush(heap, known[u])
    return tuple(steps)


@lru_cache(maxsize=256)
def packs_of(sizes: tuple[int, ...], scopes: tuple[Scope, ...], most: int) -> tuple[tuple[Scope, tuple[int, ...]], ...]:
    """Which tables to add up before a dense core is summed: (scope of the pack, numbers of its tables).

    The core's variables are cut into three parts. A table that touches at most two of them goes to the pack over
    these two; the three packs can then be summed by one matrix product. The others share packs of at most CORE / 2
    states. A core with a table that is itself large keeps its single-variable tables, which cost nothing beside it.
    """
    packs: list[tuple[Scope, tuple[int, ...]]] = []
    for step in order_of(sizes, scopes):
        core = step.clique
        if step.out or states(sizes, core) <= CORE:
            continue
        inside = [i for i, scope in enumerate(scopes) if scope and core.issuperset(scope)]
        small = [i for i in inside if states(sizes, scopes[i]) <= CORE]
        if len(small) < len(inside):
            small = [i for i in small if len(scopes[i]) > 1]
        if len(small) > 3:
            packs += _packed(sizes, scopes, small, core, most)
    return tuple(packs)


def _packed(
    sizes: tuple[int, ...], scopes: tuple[Scope, ...], small: list[int], core: frozenset[int], most: int
) -> list[tuple[Scope, tuple[int, ...]]]:
    parts = _thirds(sizes, sorted(core))
    pairs = [parts[0] | parts[1], parts[1] | parts[2], parts[0] | parts[2]]
    bins: list[tuple[set[int], list[int]]] = [(set(pair), []) for pair in pairs]
    if max(states(sizes, frozenset(pair)) for pair in pairs) > most:
        bins = []
    for i in small:
        scope = set(scopes[i])
        for number, (over, members) in enumerate(bins):
            if over >= scope or (number >= 3 and states(sizes, frozenset(over | scope)) <= CORE // 2):
                over |= scope
                members.append(i)
                break
        else:
            bins.append((scope, [i]))
    return [(tuple(sorted(over)), tuple(members)) for over, members in bins if members]


def _thirds(sizes: tuple[int, ...], variables: list[int]) -> list[set[int]]:
    total = math.fsum(math.log2(sizes[v]) for v in variables)
    parts: list[set[int]] = [set(), set(), set()]
    so_far = 0.0
    for v in variables:
        parts[min(2, int(3 * so_far / total))].add(v)
        so_far += math.log2(sizes[v])
    return parts
