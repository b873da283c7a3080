"""The one traversal: a term on a finite model, whatever the numbers.

Every bound variable is an axis and an expectation is a weighted sum over it. A sub-term is evaluated as an array over
the axes of its own free variables only, so enumeration is a broadcast and not a loop, and equal sub-terms are
evaluated once. K independent copies of a draw are one axis over multisets of states with multinomial weights. What
the numbers are (exact, balls, float64, torch tensors with gradients) is the business of a `Domain`.

Two rules keep the values right. A weight of zero removes its term, whatever the body is there (0 log 0 = 0, and
0 * inf = 0 for probabilities). And the logarithm of a sum of exponentials is never taken by way of the exponentials:
`log_value` pushes the logarithm inwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, CannotCompute
from boundcheck.evaluators.copies import Copies, DrawnInside, chain_of, multisets, too_many
from boundcheck.evaluators.domain import Domain
from boundcheck.evaluators.lognumber import LeavesField
from boundcheck.evaluators.named import Arrays, Axis, Frame, Named
from boundcheck.language.laws import ModelLaw, expand, is_one_of_its_copies
from boundcheck.language.positions import is_exponential, nonnegative
from boundcheck.language.terms import (
    OBSERVED,
    Apply,
    Const,
    Expect,
    Integrate,
    LogDensity,
    Plate,
    Reduce,
    Term,
    Var,
    X,
    walk,
)
from boundcheck.models.finite import FiniteModel


class Traversal:
    """Evaluates terms on one finite model at one observation.

    Args:
        model: the finite model.
        x: the number of the observed state.
        domain: the numbers.
        memory: an upper limit, in bytes, on the size of any one intermediate array; larger ones are cut into chunks.
        models: how many models the tables hold, along a leading axis, where they hold many.
    """

    def __init__(self, model: FiniteModel, x: int, domain: Domain, memory: int = 1 << 26, models: int = 1) -> None:
        if isinstance(x, bool) or not isinstance(x, int | np.integer) or not 0 <= x < model.size(X):
            raise BadInput("x", x, f"the number of an observed state, 0 to {model.size(X) - 1}")
        self.model = model
        self.domain = domain
        self.most_numbers = max(1, memory // domain.bytes_per_number)
        self.models = models
        self.env: dict[Var, int | slice] = {OBSERVED: int(x)}
        self.plates: dict[Plate, Copies] = {}
        self.arrays = domain.arrays
        self.frame = Frame(domain.arrays)
        self.states = Frame(Arrays(), self.frame.order)  # the numbers of states are numpy's, whatever the domain's are
        self.memo: list[dict[tuple[Term, bool], Named]] = [{}]

    # --- entry points ---

    def value(self, term: Term) -> Named:
        """The term's value over the axes of its free variables."""
        return self._memoised(term, False, self._value)

    def log_value(self, term: Term) -> Named:
        """The logarithm of a term that is non-negative by its form."""
        return self._memoised(term, True, self._log_value)

    def _memoised(self, term: Term, logged: bool, compute: Callable[[Term], Named]) -> Named:
        key = (term, logged)
        for layer in reversed(self.memo):
            if key in layer:
                return layer[key]
        try:
            result = compute(term)
        except LeavesField as reason:
            return self.cannot(term, str(reason))
        self.memo[-1][key] = result
        return result

    def cannot(self, term: Term, reason: str) -> Any:
        """Raise the domain's "cannot compute", naming the term."""
        raise CannotCompute(self.domain.name, term.text, reason)

    # --- values ---

    def _value(self, term: Term) -> Named:
        domain = self.domain
        if isinstance(term, Const):
            return Named(domain.constant(term.value), ())
        if isinstance(term, LogDensity):
            return self._log_density(term)
        if isinstance(term, Expect):
            return self._expect(term, logged=is_exponential(term))
        if isinstance(term, Integrate):
            return self._integrate(term, logged=is_exponential(term))
        if isinstance(term, Reduce):
            return self._reduce(term, logged=is_exponential(term))
        if isinstance(term, Apply):
            return self._apply(term)
        assert isinstance(term, Var)
        return self.cannot(term, f"the states of {term.name} are labels, not numbers")

    def _apply(self, term: Apply) -> Named:
        domain, op = self.domain, term.op
        if op == "log":
            (inner,) = term.args
            return self.log_value(inner) if nonnegative(inner) else self._map(domain.log, self.value(inner))
        if op == "exp":
            return self._map(domain.exp, self.value(term.args[0]))
        if op == "pow":
            exponent = term.args[1]
            assert isinstance(exponent, Const)
            if is_exponential(term):
                return self._map(domain.exp, self.log_value(term))
            return self._map(lambda a: domain.power(a, exponent.value), self.value(term.args[0]))
        if op == "same":
            return self._same(term)
        if op == "mul" and is_exponential(term) and len(term.args) > 1:
            return self._map(domain.exp, self.log_value(term))
        if op == "mul" and len(term.args) > 1 and isinstance(term.args[0], Const):
            factor = term.args[0].value
            rest = self.frame.fold(domain.multiply, [self.value(arg) for arg in term.args[1:]])
            return self._map(lambda a: domain.scale(factor, a), rest)
        combine: Callable[[Any, Any], Any] = {
            "add": domain.add,
            "mul": domain.multiply,
            "max": lambda a, b: domain.choose("max", a, b),
            "min": lambda a, b: domain.choose("min", a, b),
        }[op]
        return self.frame.fold(combine, [self.value(arg) for arg in term.args])

    def _same(self, term: Apply) -> Named:
        domain = self.domain
        (left, right), axes = self.states.align([self._index(arg, term) for arg in term.args])
        no_yes = self.arrays.stack([domain.constant(Fraction(0)), domain.constant(Fraction(1))])
        return Named(self.arrays.take(no_yes, [np.equal(left, right).astype(np.intp)]), axes)

    # --- logarithms of non-negative terms ---

    def _log_value(self, term: Term) -> Named:
        domain = self.domain
        if isinstance(term, Expect):
            return self._expect(term, logged=True, keep_log=True)
        if isinstance(term, Integrate):
            return self._integrate(term, logged=True, keep_log=True)
        if isinstance(term, Reduce):
            return self._reduce(term, logged=True, keep_log=True)
        if isinstance(term, Apply):
            op, args = term.op, term.args
            if op == "exp":
                return self.value(args[0])
            if op == "mul" and all(nonnegative(arg) for arg in args):
                return self.frame.fold(domain.add, [self.log_value(arg) for arg in args])
            if op == "pow" and nonnegative(args[0]):
                exponent = args[1]
                assert isinstance(exponent, Const)
                return self._map(lambda a: domain.scale(exponent.value, a), self.log_value(args[0]))
            if op in ("max", "min") and all(nonnegative(arg) for arg in args):
                return self.frame.fold(lambda a, b: domain.choose(op, a, b), [self.log_value(arg) for arg in args])
            if op == "add" and all(nonnegative(arg) for arg in args):
                arrays, axes = self.frame.align([self.log_value(arg) for arg in args])
                return Named(domain.log_sum(self.arrays.stack(arrays), -1), axes)
        known = isinstance(term, Const) or (isinstance(term, Apply) and term.op == "same")
        return self._map(domain.log_of_known if known else domain.log, self.value(term))

    # --- densities ---

    def _index(self, point: Term, term: Term) -> Named:
        if not isinstance(point, Var):
            return self.cannot(term, f"{point.text} is not a variable, and a finite model only has its own states")
        where = self.env[point]
        if isinstance(where, int):
            return Named(np.array(where), ())
        return Named(np.arange(where.start, where.stop), self.frame.register((point,)))

    def _log_density(self, term: LogDensity) -> Named:
        law = term.law
        if is_one_of_its_copies(term):
            return self._at_one_of_its_copies(term)
        if not isinstance(law, ModelLaw):
            return self.value(expand(term))
        inputs = tuple(arg.space for arg in law.args if isinstance(arg, Var))
        return self._look_up(self.domain.log_table(self.model, law.role, inputs), (*law.args, *term.point), term)

    def _at_one_of_its_copies(self, term: LogDensity) -> Named:
        """The density at every state, and then the axis of those states renamed to the one that was drawn."""
        (point,) = term.point
        assert isinstance(point, Var)
        anywhere = Var(point.name, point.space)
        with self._bound({anywhere: self.env[point]}):
            values = self.value(LogDensity(term.law, (anywhere,)))
        return Named(
            values.data, self.frame.register(tuple(point if axis == anywhere else axis for axis in values.axes))
        )

    def _look_up(self, table: NDArray[Any], points: tuple[Term, ...], term: Term) -> Named:
        """A table at variables: a view where every variable is another axis."""
        batch = table.ndim - len(points)  # leading axes: a batch of models
        for point, states in zip(points, table.shape[batch:], strict=True):
            if isinstance(point, Var) and self.model.size(point.space) != states:
                have, what = self.model.size(point.space), f"{point.name} in {term.text}"
                remedy = "give as many x~ as x, so that one can stand for the other"
                raise BadInput(what, f"one of {have} states", f"one of the {states} states of that table", remedy)
        names: tuple[Axis, ...] = ("models",) * batch
        variables = [point for point in points if isinstance(point, Var) and isinstance(self.env[point], slice)]
        if len(points) == sum(isinstance(p, Var) for p in points) and len(set(variables)) == len(variables):
            index = tuple(self.env[point] for point in points)  # type: ignore[index]
            return Named(table[(..., *index)], self.frame.register((*names, *variables)))
        arrays, axes = self.states.align([self._index(point, term) for point in points])
        return Named(self.arrays.take(table, np.broadcast_arrays(*arrays)), self.frame.register((*names, *axes)))

    def _weights(self, term: Expect) -> Named:
        """Weights of the law of a draw over its axis (and those of the law's own arguments)."""
        law = term.law
        if isinstance(law, ModelLaw):
            inputs = tuple(arg.space for arg in law.args if isinstance(arg, Var))
            return self._look_up(self.domain.weight_table(self.model, law.role, inputs), (*law.args, term.var), term)
        return self._map(self.domain.weights, self.value(term.log_density))

    # --- expectations, integrals ---

    def _expect(self, term: Expect, logged: bool, keep_log: bool = False) -> Named:
        plates = [plate for plate in term.var.plates if plate in term.consumed_plates]
        for sub in walk(term.body) if not plates and term.var.plates else ():
            if isinstance(sub, Reduce) and sub.plate in term.var.plates and term.var in sub.body.free:
                return self.cannot(term, f"{term.var.name} is reduced over its copies, of which it is one")
        if plates:
            if len(plates) > 1:
                return self.cannot(term, "copies of copies are not enumerated")
            result = self._expect_copies(term, plates[0], logged)
        else:
            result = self._sum_over(term.var, term.body, logged, lambda: self._weights(term))
        return result if keep_log or not logged else self._map(self.domain.exp, result)

    def _integrate(self, term: Integrate, logged: bool, keep_log: bool = False) -> Named:
        if term.space.bounds is not None:
            return self.cannot(term, f"the space {term.space.name} is continuous")
        one = self.domain.counts(np.array(1, dtype=object))
        result = self._sum_over(term.var, term.body, logged, lambda: Named(one, ()))
        return result if keep_log or not logged else self._map(self.domain.exp, result)

    def _sum_over(self, var: Var, body: Term, logged: bool, weights: Callable[[], Named]) -> Named:
        """sum over the states of `var`, in chunks where the arrays under the sum would be too large."""
        size = self.model.size(var.space)
        peak = self._peak(body, var, size)
        step = size if peak <= self.most_numbers else max(1, size * self.most_numbers // peak)
        parts = []
        for start in range(0, size, step):
            self.memo.append({})
            try:
                with self._bound({var: slice(start, min(start + step, size))}):
                    parts.append(self._weighted_sum(var, weights(), body, logged))
            finally:
                layer = self.memo.pop()
            if step == size:  # nothing was cut: what was learnt about sub-terms stays true
                self.memo[-1].update({key: v for key, v in layer.items() if var not in key[0].free})
        return self._collect(parts, logged)

    @contextmanager
    def _bound(self, where: dict[Var, int | slice]) -> Iterator[None]:
        saved = dict(self.env)
        self.env.update(where)
        try:
            yield
        finally:
            self.env = saved

    def _weighted_sum(self, axis: Axis, weights: Named, body: Term, logged: bool) -> Named:
        inner = self.log_value(body) if logged else self.value(body)
        return self._contract(axis, weights, inner, logged)

    def _contract(self, axis: Axis, weights: Named, inner: Named, logged: bool) -> Named:
        (w, b), axes = self.frame.align([weights, inner])
        if axis not in axes:  # an integral of a constant body: the axis only counts states
            assert isinstance(axis, Var)
            where = self.env[axis]
            assert isinstance(where, slice)
            axes = self.frame.register((*axes, axis))
            w, b = self.arrays.broadcast(w[..., None], (*w.shape, where.stop - where.start)), b[..., None]
        place = axes.index(axis)
        size = self._size(axis)
        if w.shape[place] != size:
            w = self.arrays.broadcast(w, (*w.shape[:place], size, *w.shape[place + 1 :]))
        if b.shape[place] != size:
            b = self.arrays.broadcast(b, (*b.shape[:place], size, *b.shape[place + 1 :]))
        total = (self.domain.log_expectation if logged else self.domain.expectation)(w, b, place)
        return Named(total, axes[:place] + axes[place + 1 :])

    def _collect(self, parts: list[Named], logged: bool) -> Named:
        if len(parts) == 1:
            return parts[0]
        stacked = self.arrays.stack([part.data for part in parts])
        total = self.domain.log_sum(stacked, -1) if logged else self.domain.reduce("sum", stacked, -1)
        return Named(total, parts[0].axes)

    def _size(self, axis: Axis) -> int:
        if isinstance(axis, Plate):
            return len(self.plates[axis])
        assert isinstance(axis, Var)
        where = self.env[axis]
        assert isinstance(where, slice)
        return where.stop - where.start

    def _peak(self, body: Term, var: Var, size: int) -> int:
        """The number of entries of the largest array that evaluating `body` needs, were nothing cut further."""
        largest = size * self.models
        for free in body.free_together:
            if var in free:
                count = self.models
                for each in free:
                    if each == var:
                        count *= size
                    elif each in self.env:
                        where = self.env[each]
                        count *= 1 if isinstance(where, int) else where.stop - where.start
                largest = max(largest, count)
        return largest

    # --- copies ---

    def _expect_copies(self, term: Expect, plate: Plate, logged: bool) -> Named:
        """E over K copies: a chain of expectations is split into what is drawn once and what is drawn per copy."""
        try:
            once, members, core = chain_of(term, plate)
        except DrawnInside as inside:
            return self.cannot(inside.term, "its copies are drawn inside another function of the same copies")
        return self._draw_once(once, members, core, plate, logged)

    def _draw_once(self, once: list[Expect], members: list[Expect], core: Term, plate: Plate, logged: bool) -> Named:
        if not once:
            return self._enumerate_multisets(members, core, plate, logged)
        link = once[0]
        with self._bound({link.var: slice(0, self.model.size(link.var.space))}):
            inner = self._draw_once(once[1:], members, core, plate, logged)
            return self._contract(link.var, self._weights(link), inner, logged)

    def _enumerate_multisets(self, members: list[Expect], core: Term, plate: Plate, logged: bool) -> Named:
        domain, k = self.domain, plate.size
        variables = tuple(link.var for link in members)
        sizes = tuple(self.model.size(var.space) for var in variables)
        states = math.prod(sizes)
        if reason := too_many(states, k):
            return self.cannot(members[0], reason)
        with self._bound({var: slice(0, size) for var, size in zip(variables, sizes, strict=True)}):
            weights = self._weights(members[0])
            for link in members[1:]:
                weights = self.frame.fold(domain.times, [weights, self._weights(link)])
            outer = math.prod(
                s for s, axis in zip(weights.data.shape, weights.axes, strict=True) if axis not in variables
            )
            rows = max(1, self.most_numbers // max(1, k * outer))
            parts = []
            for entries, coefficients in multisets(states, k, rows):
                self.plates[plate] = Copies(plate, variables, sizes, tuple(np.unravel_index(entries, sizes)))
                self.memo.append({})
                try:
                    mass = self._over_copies("weights", weights, plate)
                    coefficient = Named(domain.counts(coefficients), self.frame.register((plate,)))
                    mass = self.frame.fold(domain.times, [mass, coefficient])
                    parts.append(self._weighted_sum(plate, mass, core, logged))
                finally:
                    self.memo.pop()
                    del self.plates[plate]
            return self._collect(parts, logged)

    def _over_copies(self, op: str, values: Named, plate: Plate) -> Named:
        """The sum, log-sum, maximum, minimum, or product of weights, over the K copies of each multiset."""
        copies, domain = self.plates[plate], self.domain
        if domain.tallies and plate not in values.axes and op not in ("max", "min"):
            states, tally = copies.by_state(values, self.frame)
            tallied = domain.tallied(op, states.data, tally)
            if tallied is not None:
                return Named(tallied, states.axes)
        read = copies.read(values, self.frame)
        if op == "weights":
            return Named(domain.weight_product(read.data, -1), read.axes)
        return Named(domain.log_sum(read.data, -1) if op == "log_sum" else domain.reduce(op, read.data, -1), read.axes)

    def _reduce(self, term: Reduce, logged: bool, keep_log: bool = False) -> Named:
        domain = self.domain
        if term.plate not in self.plates:
            return self.cannot(term, "its copies are not in scope")
        body = self.log_value(term.body) if logged else self.value(term.body)
        summed = "log_sum" if logged else "sum"
        result = self._over_copies(term.op if term.op in ("max", "min") else summed, body, term.plate)
        if term.op == "mean" and logged:
            share = domain.log_of_known(domain.constant(Fraction(1, term.plate.size)))
            result = self._map(lambda a: domain.add(a, share), result)
        elif term.op == "mean":
            result = self._map(lambda a: domain.scale(Fraction(1, term.plate.size), a), result)
        return result if keep_log or not logged else self._map(domain.exp, result)

    # --- named arrays ---

    def _map(self, function: Callable[[NDArray[Any]], NDArray[Any]], a: Named) -> Named:
        return Named(function(a.data), a.axes)
