"""Sums over the joint states of many variables, one group of variables at a time.

`eliminate` computes log Z = log sum_z exp(sum of the weights) and the mean of a sum of values under the law that
exp(weights) is proportional to. Summing out a group of variables replaces the tables that mention it by one table
over their other variables: for weights log sum exp, for values the conditional mean. So values are carried along, and
no joint table is ever made (bucket elimination, Dechter 1999; with values, the expectation semiring of Eisner 2002).

Each sum is taken around its own largest term and each message is rescaled, so that nothing under- or overflows. Large
tables are read in blocks that fit the cache; a dense core of many small tables is packed into three, and summed by
one matrix product. Where a faster way could have lost small terms its result is tiny, which is noticed, and the sum
is taken again in logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from boundcheck.evaluators.elimination_order import Scope, order_of, packs_of, split_group, states
from boundcheck.evaluators.potentials import (
    BLOCK,
    TINY,
    UNIT,
    Array,
    Blocks,
    Carried,
    Table,
    Watch,
    absorbed,
    add_up,
    align,
    around_zero,
    calm,
    finite,
    law_vector,
    log_of,
    plus,
)
from boundcheck.models.factored import LogFactor

_MOST_COPIED = 1 << 18
"""A table with more entries than this is only read: no other table is added to a copy of it."""


class TooLarge(ArithmeticError):
    """The elimination needs a table of `entries` numbers."""

    def __init__(self, entries: int) -> None:
        super().__init__(f"a table of 2^{math.log2(entries):.3g} numbers of 8 bytes")
        self.entries = entries


@dataclass(frozen=True)
class Result:
    """log Z and the mean of the values, each with an estimate of its rounding error; `mean` is NaN where Z = 0."""

    log_total: float
    log_error: float
    mean: float
    mean_error: float


def eliminate(
    sizes: tuple[int, ...],
    weights: Sequence[Table],
    values: Sequence[Table],
    memory: int,
    watches: Sequence[Watch] = (),
) -> Result:
    """log Z = log sum_z exp(sum weights), and E_{z ~ p}[sum values] for p proportional to exp(sum weights).

    Args:
        sizes: the number of states of each variable. All are summed over, whether or not a table mentions them.
        weights: tables of logarithms.
        values: tables of finite numbers.
        memory: an upper limit, in bytes, on the size of any table that is made.
        watches: means of large factors to take along, where a weight is such a factor and is read in order.

    Raises:
        TooLarge: no order of elimination was found that keeps every table within `memory`.
    """
    return _Elimination(sizes, memory, watches).run(list(weights), list(values))


def trailing_law(sizes: tuple[int, ...], scope: Scope, weights: Sequence[Table]) -> Array | None:
    """The law of the trailing variables of a scope, as rows of a large table have them; None unless all of the scope
    are independent under the law of the weights.
    """
    laws = _Elimination(sizes, 0).independent(list(weights))[1]
    return law_vector(laws, split_group(sizes, scope, scope)[1]) if laws.keys() >= set(scope) else None


def packed(sizes: tuple[int, ...], factors: list[LogFactor], memory: int) -> list[LogFactor]:
    """The same product as fewer factors, where the factors have a dense core."""
    groups = packs_of(sizes, tuple(factor.scope for factor in factors), memory // 32)
    gone = {i for _, members in groups for i in members}
    rest = [factor for i, factor in enumerate(factors) if i not in gone]
    for scope, members in groups:
        chosen = [factors[i] for i in members]
        total = add_up([Table.of(factor, 1.0) for factor in chosen], scope, sizes)
        zeros = any(factor.zeros for factor in chosen)
        rest.append(LogFactor(scope, total.data, False, total.magnitude, zeros))
    return rest


class _Elimination:
    def __init__(self, sizes: tuple[int, ...], memory: int, watches: Sequence[Watch] = ()) -> None:
        self.sizes = sizes
        self.watches = watches
        self.most = max(1, memory // 8)
        self.log_terms: list[float] = []
        self.mean_terms: list[float] = []
        self.log_error = self.mean_error = 0.0
        self.empty = False

    def run(self, weights: list[Table], values: list[Table]) -> Result:
        nothing = Result(-math.inf, 0.0, math.nan, 0.0)
        weights, laws = self.independent(self._complete(weights))
        if -math.inf in self.log_terms:  # a constant, or an independent variable, of no mass
            return nothing
        if laws:
            values = [self._average(value, laws) for value in self._average_single(values, laws)]
        carried = Carried(values)
        steps = order_of(self.sizes, tuple([weight.scope for weight in weights]))
        peak = max((step.peak(self.sizes) for step in steps), default=0)
        if peak > self.most:
            raise TooLarge(peak)
        tables: list[Table | None] = list(weights)
        for step in steps:
            inputs = [table for i in step.inputs if (table := tables[i]) is not None]
            for i in step.inputs:
                tables[i] = None
            touched = carried.take(step.group)
            inside = [value for value in touched if step.clique.issuperset(value.scope)]
            message, mean = self._sum_out(inputs, inside, step.out, step.group)
            tables.append(self._rescaled(message))
            if self.empty:
                return nothing
            means = [] if mean is None else [mean]
            means += [self._mean_of(v, inputs, step.out, step.group) for v in touched if v not in inside]
            for each in means:
                centred, top = around_zero(each)
                self.mean_terms.append(top)
                carried.add(centred)
        self.mean_terms += [float(value.data) for value in carried.closed]
        total, mean_total = math.fsum(self.log_terms), math.fsum(self.mean_terms)
        return Result(
            total,
            self.log_error + UNIT * abs(total),
            mean_total,
            self.mean_error + UNIT * abs(mean_total),
        )

    def _rescaled(self, message: Table) -> Table:
        """The message around zero; what it lacks goes to the total."""
        centred, top = around_zero(message)
        self.log_terms.append(top)
        self.empty = self.empty or top == -math.inf
        return centred

    def _complete(self, weights: list[Table]) -> list[Table]:
        """Constants go to the total, and a variable that no weight mentions gets one of ones."""
        self.log_terms += [float(weight.data) for weight in weights if not weight.scope]
        self.log_error += sum(UNIT * weight.magnitude for weight in weights if not weight.scope)
        covered = {v for weight in weights for v in weight.scope}
        free = [v for v in range(len(self.sizes)) if v not in covered]
        return [weight for weight in weights if weight.scope] + [Table((v,), np.zeros(self.sizes[v])) for v in free]

    # --- variables that the law draws independently of all others ---

    def independent(self, weights: list[Table]) -> tuple[list[Table], dict[int, Array]]:
        """The other weights, and the laws of the independent variables, whose mass goes to the total."""
        linked = {v for weight in weights if len(weight.scope) > 1 for v in weight.scope}
        linked.update(weight.scope[0] for weight in weights if not weight.plain)
        logs: dict[int, Array] = {}
        noise = 0.0
        for weight in weights:
            v = weight.scope[0]
            if v not in linked:
                logs[v] = logs[v] + weight.data if v in logs else weight.data
                noise += 2 * weight.magnitude + len(weight.data) + 4
        laws: dict[int, Array] = {}
        for size in {len(log) for log in logs.values()}:
            alike = [v for v, log in logs.items() if len(log) == size]
            table = np.array([logs[v] for v in alike])
            tops = table.max(axis=1)
            terms = np.exp(table - finite(tops)[:, None])
            sums = terms.sum(axis=1)
            self.log_terms += log_of(sums, tops).tolist()
            laws.update(zip(alike, terms / np.maximum(sums, 1.0)[:, None], strict=True))
        self.log_error += UNIT * noise
        return [weight for weight in weights if weight.scope[0] not in laws], laws

    def _average_single(self, values: list[Table], laws: dict[int, Array]) -> list[Table]:
        """The values of more than one independent variable; the means of the others are taken at once."""
        others, magnitude = [], 0.0
        for value in values:
            if len(value.scope) == 1 and value.reading is None and value.scope[0] in laws:
                law = laws[value.scope[0]]
                self.mean_terms.append(float(value.data.dot(law)))
                magnitude += value.magnitude * (8 + len(law))
            else:
                others.append(value)
        self.mean_error += UNIT * magnitude
        return others

    def _average(self, value: Table, laws: dict[int, Array]) -> Table:
        """E[value] over its independent variables."""
        kept = tuple([v for v in value.scope if v not in laws])
        if kept == value.scope:
            return value
        self.mean_error += UNIT * 8 * len(value.scope) * value.magnitude
        moved = kept + tuple([v for v in value.scope if v in laws])
        if moved != value.scope and value.data.size > BLOCK:  # rows are not in one piece, so they are read in blocks
            with np.errstate(divide="ignore"):
                weights = [Table((v,), np.log(laws[v])) for v in moved[len(kept) :]]
            return self._mean_of(value, weights, (), moved[len(kept) :])
        table = Table(moved, align(value.data, value.scope, moved), value.magnitude, value.reading)
        while len(table.scope) > len(kept):  # many axes at a time, as a product of rows with a vector
            front, back = split_group(self.sizes, table.scope[len(kept) :], table.scope)
            self.mean_error += UNIT * states(self.sizes, back) * value.magnitude
            done = next((w for w in self.watches if w.done and w.data is table.data and table.plain), None)
            if done is not None:
                sums = done.sums.reshape([self.sizes[v] for v in kept + front])
                table = Table(kept + front, sums, value.magnitude)
            else:
                table = table.times(law_vector(laws, back), kept + front)
        return table

    # --- one group of variables ---

    def _mean_of(self, value: Table, weights: list[Table], out: Scope, group: Scope) -> Table:
        """The conditional mean of a value that reaches beyond the weights' variables."""
        beyond = tuple(v for v in value.scope if v not in out and v not in group)
        counted = self.log_error, list(self.log_terms)
        _, mean = self._sum_out(weights, [value], out + beyond, group)
        self.log_error, self.log_terms = counted  # the sum itself was counted when it was taken for its own sake
        assert mean is not None
        return mean

    def _sum_out(
        self, weights: list[Table], values: list[Table], out: Scope, group: Scope
    ) -> tuple[Table, Table | None]:
        """log sum_group exp(sum weights) over `out`, and the mean of the values given `out`."""
        if states(self.sizes, out) * states(self.sizes, group) <= BLOCK:
            return self._at_once(weights, values, out, group)
        if not (values or out) and (total := self._product_of_three(weights)) is not None:
            return total, None
        like = max([*weights, *values], key=lambda table: table.data.size).scope
        out = tuple(v for v in like if v in out) + tuple(v for v in out if v not in like)
        front, back = split_group(self.sizes, group, like)
        if states(self.sizes, out + front) > self.most:
            raise TooLarge(states(self.sizes, out + front))
        return (self._in_two if front else self._in_blocks)(weights, values, out, front + back)

    def _in_two(
        self, weights: list[Table], values: list[Table], out: Scope, group: Scope
    ) -> tuple[Table, Table | None]:
        """First the trailing variables of a group, in rows; then the others."""
        front, back = split_group(self.sizes, group, group)
        summed = set(back)
        inner = [table for table in weights if not summed.isdisjoint(table.scope)]
        inner_values = [table for table in values if not summed.isdisjoint(table.scope)]
        mentioned = {v for table in [*inner, *inner_values] for v in table.scope}
        middle = tuple(v for v in (*out, *front) if v in mentioned)
        message, mean = self._sum_out(inner, inner_values, middle, back)
        message = self._rescaled(message)
        rest = [table for table in weights if table not in inner]
        rest_values = [table for table in values if table not in inner_values] + ([mean] if mean else [])
        return self._sum_out([message, *rest], rest_values, out, front)

    def _at_once(
        self, weights: list[Table], values: list[Table], out: Scope, group: Scope
    ) -> tuple[Table, Table | None]:
        order = (*out, *group)
        full = tuple([self.sizes[v] for v in order])
        shape = full[: len(out)]
        logs = plus([align(table.data, table.scope, order) for table in weights])
        if logs.shape != full:
            logs = np.broadcast_to(logs, full)
        logs = logs.reshape(math.prod(shape), -1)
        if calm(weights):
            tops, terms = 0.0, np.exp(logs)
        else:
            tops = finite(np.maximum.reduce(logs, axis=1))
            terms = np.exp(logs - tops[:, None])
        sums = np.add.reduce(terms, axis=1)
        noise = self._noise(weights, logs.shape[1])
        message = Table(out, log_of(sums, tops).reshape(shape), math.inf)
        if not values:
            return message, None
        value = plus([align(table.data, table.scope, order) for table in values])
        weighted = np.einsum("rk,rk->r", terms, np.broadcast_to(value, full).reshape(logs.shape))
        return message, self._mean_table(weighted, sums, values, out, noise)

    def _in_blocks(
        self, weights: list[Table], values: list[Table], out: Scope, group: Scope
    ) -> tuple[Table, Table | None]:
        """As `_at_once`, some rows at a time. Weights of the group alone are a vector that rows are multiplied with."""
        shape, inner = tuple(self.sizes[v] for v in out), tuple(self.sizes[v] for v in group)
        width = math.prod(inner)
        lead = next(i for i in range(len(shape) + 1) if i == len(shape) or math.prod(shape[i:]) * width <= BLOCK)
        members = set(group)
        column = [table for table in weights if members.issuperset(table.scope)]
        mixed = [table for table in weights if table not in column]
        log_column = np.broadcast_to(plus([align(t.data, t.scope, group) for t in column]), inner).reshape(-1)
        order, shape_of_block = (*out, *group), (*shape[lead:], *inner)
        blocks = Blocks(mixed, order, shape_of_block, width, log_column)
        if len(mixed) == 1 and mixed[0].scope == order:
            blocks.watch = next((w for w in self.watches if w.takes(mixed[0].data, width)), None)
        value_blocks = Blocks(values, order, shape_of_block, width) if values else None
        sums = np.empty((math.prod(shape[:lead]), blocks.rows))
        message, weighted = np.empty_like(sums), np.empty_like(sums) if values else None
        for number, index in enumerate(np.ndindex(*shape[:lead])):
            terms, vector, sums[number], message[number] = blocks.sums(index, number)
            if value_blocks is not None and weighted is not None:
                value = value_blocks.total(index)
                weighted[number] = np.multiply(terms, value, out=value) @ vector
        noise = self._noise(weights, width)
        table = Table(out, log_of(sums, message).reshape(shape), math.inf)
        if weighted is None:
            return table, None
        return table, self._mean_table(weighted, sums, values, out, noise)

    def _mean_table(self, weighted: Array, sums: Array, values: list[Table], out: Scope, noise: float) -> Table:
        magnitude = sum(value.magnitude for value in values)
        self.mean_error += (2 * noise + UNIT * (2 * len(values) + 4)) * magnitude
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(sums > 0, weighted / sums, 0.0)  # where there is no mass, any mean will do
        return Table(out, mean.reshape([self.sizes[v] for v in out]), magnitude)

    def _noise(self, weights: list[Table], width: int) -> float:
        """The relative error of a sum of `width` exponentials of summed logarithms; it is also added to the total."""
        magnitudes = [weight.magnitude for weight in weights]
        noise = UNIT * (sum(magnitudes) + max(magnitudes, default=0.0) + width + 4)
        self.log_error += noise
        return noise

    # --- a dense core of small tables ---

    def _product_of_three(self, weights: list[Table]) -> Table | None:
        """log sum_{abc} U(a,b) V(b,c) W(a,c) by a matrix product; None if the weights are not of this form."""
        if any(not table.plain or table.data.size * 4 > self.most for table in weights):
            return None
        if len(weights) != 3 and max(table.data.size for table in weights) > _MOST_COPIED:
            return None
        hosts = absorbed(weights)
        if len(hosts) != 3:
            return None
        tables = [add_up(host, host[0].scope, self.sizes) if len(host) > 1 else host[0] for host in hosts]
        u, v, w = (set(table.scope) for table in tables)
        a, b, c = (tuple(sorted(part)) for part in (u & w, u & v, v & w))
        if u & v & w or u != {*a, *b} or v != {*b, *c} or w != {*a, *c}:
            return None
        factors, shifts = [], []
        for table, rows, columns in zip(tables, (a, b, a), (b, c, c), strict=True):
            log = align(table.data, table.scope, rows + columns).reshape(states(self.sizes, rows), -1)
            shifts.append(float(log.max()))
            factors.append(np.exp(log - shifts[-1] if shifts[-1] > -math.inf else log))
        left, middle, right = factors
        total = float(np.einsum("ac,ac->", left @ middle, right))
        if not total > TINY:
            return None
        self._noise(weights, len(left) + len(middle) + right.shape[1])
        return Table((), np.array(math.log(total) + math.fsum(shifts)), math.inf)
