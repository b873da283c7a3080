"""The traversal of fixed Gauss rules: a formula on the tensor grid of one rule, in log space.

Each bound component is one more leading axis of numpy arrays, so that numpy's own broadcasting aligns values that
depend on some of the outer variables only. On the way the grid notes what its nodes cannot see
(`gauss_hermite_watch`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np

from boundcheck.errors import BadInput, CannotCompute
from boundcheck.evaluators.gauss_hermite_axes import LARGEST_GRID, Point
from boundcheck.evaluators.gauss_hermite_copies import expected_log_sum, log_of_copies
from boundcheck.evaluators.gauss_hermite_doubts import rough_parts
from boundcheck.evaluators.gauss_hermite_rules import NAME, Array, multisets, plain
from boundcheck.evaluators.gauss_hermite_watch import Watch
from boundcheck.language.laws import DensityLaw, Law, MixtureLaw, ModelLaw, expand
from boundcheck.language.positions import nonnegative
from boundcheck.language.terms import (
    CORRUPTED,
    OBSERVED,
    Apply,
    Const,
    Expect,
    Integrate,
    LogDensity,
    Plate,
    Reduce,
    Space,
    Term,
    Var,
    Z,
)
from boundcheck.models.densities import Density, Uniform

_FEW_MULTISETS = 1 << 20
"""Numbers that multisets of copies may fill before their logarithm's own integral is faster."""


class Grid(Watch):
    """Evaluates terms on the tensor grid of one rule."""

    # --- terms ---

    def value(self, term: Term) -> Array:
        """The term on the grid of its own variables."""
        if isinstance(term, Const):
            return np.array(float(term.value))
        if isinstance(term, LogDensity):
            return self._log_density(term) if isinstance(term.law, ModelLaw) else self.value(expand(term))
        if isinstance(term, Expect | Integrate):
            if not nonnegative(term.body):
                return self._sum(term, False)
            with self._watching(self.all_axes):
                return np.exp(self._sum(term, True))
        if isinstance(term, Reduce):
            return self._reduce(term, False)
        if isinstance(term, Apply):
            return self._apply(term)
        if isinstance(term, Var):
            point = self._point(term)
            if len(point) == 1:
                return np.asarray(plain(point[0]), dtype=float)
        raise CannotCompute(NAME, term.text, "a vector is not a number")

    def log_value(self, term: Term) -> Array:
        """The logarithm of a term that is non-negative by its form."""
        if isinstance(term, Expect | Integrate):
            return self._sum(term, True)
        if isinstance(term, Reduce):
            return self._reduce(term, True)
        if isinstance(term, Apply) and term.op == "exp":
            return self.value(term.args[0])
        if isinstance(term, Apply) and term.op in _LOG_FOLDS and all(nonnegative(arg) for arg in term.args):
            with self._watching(self.watched if term.op == "mul" else self.all_axes):
                return self._fold(_LOG_FOLDS[term.op], [self.log_value(arg) for arg in term.args])
        if isinstance(term, Apply) and term.op == "pow" and nonnegative(term.args[0]):
            exponent = _exponent(term)
            with self._watching(self.watched if exponent > 0 else frozenset()):
                return exponent * self.log_value(term.args[0])
        return np.log(self.value(term))

    def _apply(self, term: Apply) -> Array:
        op, args = term.op, term.args
        if op == "log":
            return self.log_value(args[0]) if nonnegative(args[0]) else np.log(self.value(args[0]))
        if op == "exp":
            with self._watching(self.all_axes):
                return np.exp(self.value(args[0]))
        if op == "pow":
            if nonnegative(args[0]):
                with self._watching(self.all_axes):
                    return np.exp(self.log_value(term))
            return np.power(self.value(args[0]), _exponent(term))
        if op not in _FOLDS:
            raise CannotCompute(NAME, term.text, f"{op!r} compares points of a continuous space")
        # The reciprocal of a density has no peak where the density has one.
        reciprocal = op == "mul" and any(isinstance(arg, Const) and arg.value < 0 for arg in args)
        with self._watching(frozenset() if reciprocal else self.watched):
            return self._fold(_FOLDS[op], [self.value(arg) for arg in args])

    # --- copies ---

    def _each_copy(self, plate: Plate) -> Iterator[int]:
        for i in range(plate.size):
            self.copy[plate] = i
            yield i
        del self.copy[plate]

    def _reduce(self, term: Reduce, logged: bool) -> Array:
        compute, folds = (self.log_value, _LOG_FOLDS) if logged else (self.value, _FOLDS)
        sums_exponentials = logged and term.plate.size > 1
        with self._watching(self.all_axes if sums_exponentials else self.watched):
            parts = [compute(term.body) for _ in self._each_copy(term.plate)]
        if term.op in ("max", "min"):
            return self._fold(folds[term.op], parts)
        total, size = self._fold(folds["add"], parts), term.plate.size if term.op == "mean" else 1
        return total - math.log(size) if logged else total / size

    def _point(self, term: Term) -> Point:
        if not isinstance(term, Var):
            raise CannotCompute(NAME, term.text, "a point must be a variable")
        copies = self.env[term]
        if not term.plates:
            return copies[0]
        if term.plates[0] not in self.copy:
            raise CannotCompute(NAME, self.term.text, "copies outside a reduction over them")
        return copies[self.copy[term.plates[0]]]

    # --- densities ---

    def _law(self, law: ModelLaw) -> tuple[Density, ...]:
        points = [self._point(arg) for arg in law.args]
        self._fits(*chain.from_iterable(points))  # the model's functions may combine all of them
        return self.model.law(law.role, [point[0] if len(point) == 1 else point for point in points])

    def _log_density(self, term: LogDensity) -> Array:
        law = term.law
        assert isinstance(law, ModelLaw)
        if law.role == "joint":
            x, z = term.point
            likelihood = ModelLaw("likelihood", (z,))
            return self._densities(ModelLaw("prior"), z) + self._densities(likelihood, x)
        return self._densities(law, term.point[0])

    def _densities(self, law: ModelLaw, at: Term) -> Array:
        densities, point = self._law(law), self._point(at)
        if len(densities) != len(point):
            raise BadInput(
                at.text, len(point), f"a point of {len(densities)} components, as {law} has",
                "make the law and the point of one length",
            )  # fmt: skip
        pairs = list(zip(densities, point, strict=True))
        drawn = self.drawn.get(at) if isinstance(at, Var) else None
        for i, (density, v) in enumerate(pairs):
            self._fits(v, *_parameters(density))
            for part in rough_parts(density, drawn[i] if drawn else None):
                self.hidden = self.hidden or self._varies(v, *_parameters(part))
            self._watch(density, v, self.watched)
        return self._fold(np.add, [np.asarray(density.log_density(plain(v)), dtype=float) for density, v in pairs])

    # --- sums over nodes ---

    def _sum(self, term: Expect | Integrate, logged: bool) -> Array:
        """The expectation or integral, or its logarithm."""
        law = term.law if isinstance(term, Expect) else None
        if isinstance(law, MixtureLaw):
            outer = Var(law.var.name, law.var.space, plates=term.var.plates)
            inner = Expect(law.component.substitute({law.var: outer}), term.var, term.body)
            return self._sum(Expect(law.mixing, outer, inner), logged)
        if isinstance(term, Expect) and not logged:
            many = self._many_copies(term)
            if many is not None:
                return many
        start = self.depth
        with self._watching(self.watched), self._bound(term.var, law) as log_weight:
            axes = frozenset(range(start, self.depth))
            self.watched = (self.watched | axes) if logged else frozenset()
            body = self.log_value(term.body) if logged else self.value(term.body)
            self._fits(log_weight, body)
            return self._total(log_weight, body, self.depth - start, logged)

    def _total(self, log_weight: Array, body: Array, axes: int, logged: bool) -> Array:
        axis, gone = tuple(range(axes)), np.isneginf(log_weight)
        if logged:
            terms = np.where(gone, -np.inf, log_weight + body)
            self._watch_ends(terms, axes)
            return _log_sum(terms, axis)
        product = np.exp(log_weight) * body
        product = np.where(np.isinf(body), body, product)  # where exp underflows an infinite value still counts
        product = np.where(gone, 0.0, product)
        size = np.abs(product).sum(axis=axis)
        self.magnitude = max(self.magnitude, float(np.max(size, where=np.isfinite(size), initial=0.0)))
        return product.sum(axis=axis)

    @contextmanager
    def _bound(self, var: Var, law: Law | None) -> Iterator[Array]:
        """The variable put on nodes, on new axes in front; gives the log-weights. No law: all of the space."""
        start = self.depth
        try:
            if not var.plates:
                points, log_weight = self._draw(var, law)
                self.env[var] = [points]
            else:
                log_weight = self._draw_copies(var, law)
            yield log_weight
        finally:
            self.depth = start
            self.env.pop(var, None)
            self.drawn.pop(var, None)

    def _draw(self, var: Var, law: Law | None) -> tuple[Point, Array]:
        """One draw: its components, and the log-weights on their axes."""
        if isinstance(law, ModelLaw):
            self.drawn[var] = self._law(law)
            points, logs = zip(*(self._nodes(density) for density in self.drawn[var]), strict=True)
            return points, self._fold(np.add, list(logs))
        assert law is None or isinstance(law, DensityLaw)
        start, points, logs = self.depth, [], []
        self.drawn[var] = self._base(var.space)
        for density in self.drawn[var]:
            v, log_weight = self._nodes(density)
            points.append(v)
            logs.append(np.zeros_like(log_weight) if density.discrete else log_weight - density.log_density(v))
        log_weight = self._fold(np.add, logs)
        if law is None:
            return tuple(points), log_weight
        single = Var(var.name, var.space)
        self.env[single], self.drawn[single] = [tuple(points)], self.drawn[var]
        axes = self.depth - start
        with self._watching(self.watched | frozenset(range(start, self.depth))):
            log_density = self.value(expand(LogDensity(DensityLaw(law.var, law.log_density, False), (single,))))
        del self.env[single], self.drawn[single]
        self._fits(log_weight, log_density)
        log_weight = log_weight + log_density
        if law.rescale:
            self._watch_ends(log_weight, axes)
            log_weight = log_weight - _log_sum(log_weight, tuple(range(axes)))
        return tuple(points), log_weight

    def _draw_copies(self, var: Var, law: Law | None) -> Array:
        """All copies: an own grid for each where the law differs between them, else multisets of one grid."""
        plate, *others = var.plates
        if others or law is None:
            raise CannotCompute(NAME, self.term.text, "copies of copies are not put on a grid")
        if law.plates:
            copies, total = [], []
            for _ in self._each_copy(plate):
                points, log_weight = self._draw(var, law)
                copies.append(points)
                total.append(log_weight)
            self.env[var] = copies
            return self._fold(np.add, total)
        start = self.depth
        points, log_weight = self._draw(var, law)
        axes = self.depth - start
        shape = np.shape(log_weight)
        count = math.prod(shape[:axes])
        many = math.comb(count + plate.size - 1, plate.size)
        if many * math.prod(shape[axes:]) > LARGEST_GRID or many * plate.size > 4 * LARGEST_GRID:
            self._too_large(f"{many:,} multisets of {plate.size} of {count:,} nodes")
        rows, log_orders = multisets(count, plate.size)
        summed = set(range(start, self.depth)) <= self.sums
        self.depth = start
        self._mark(self.sums, summed)
        self._mark(self.multisets, True)
        self.depth = start + 1

        def flat(values: Any) -> Array:
            # A component need not vary over outer variables over which another does.
            outer = (1,) * (start + axes - np.ndim(values)) + np.shape(values)
            full = np.broadcast_to(np.reshape(values, outer), (*shape[:axes], *outer[axes:]))
            return full.reshape(count, *outer[axes:])

        grid, weights = [flat(v) for v in points], flat(log_weight)
        self.env[var] = [tuple(v[rows[:, i]] for v in grid) for i in range(plate.size)]
        total = log_orders.reshape(-1, *(1,) * start)
        return self._fold(np.add, [total, *(weights[rows[:, i]] for i in range(plate.size))])

    def _many_copies(self, term: Expect) -> Array | None:
        """c E log of a mean or sum over copies, where multisets of the nodes would be too many; else None."""
        found = log_of_copies(term)
        if found is None or term.law.plates or not nonnegative(found[1].body):
            return None
        constant, reduction, plate = found
        single, start = Var(term.var.name, term.var.space), self.depth
        with self._bound(single, term.law) as log_weight:
            axes = self.depth - start
            shape = np.shape(log_weight)
            count = math.prod(shape[:axes])
            many = math.comb(count + plate.size - 1, plate.size)
            if axes == 1 and many * math.prod(shape[axes:]) * plate.size <= _FEW_MULTISETS:
                return None
            self.env[term.var], self.drawn[term.var] = self.env[single], self.drawn[single]
            self.copy[plate] = 0
            try:
                with self._watching(self.all_axes):
                    log_a = self.log_value(reduction.body)
            finally:
                del self.copy[plate], self.env[term.var], self.drawn[term.var]
            self._fits(log_weight, log_a)
            self._watch_ends(log_weight + log_a, axes)
            log_weight, log_a = np.broadcast_arrays(log_weight, log_a)
            outer = np.shape(log_a)[axes:]
            value = expected_log_sum(log_weight.reshape(count, *outer), log_a.reshape(count, *outer), plate.size)
        self.magnitude = max(self.magnitude, float(np.max(np.abs(value), where=np.isfinite(value), initial=0.0)))
        return constant * (value - (math.log(plate.size) if reduction.op == "mean" else 0.0))

    def _base(self, space: Space) -> tuple[Density, ...]:
        """The law whose nodes stand for a space."""
        if space.bounds is not None:
            low, high = (float(end) for end in space.bounds)
            return (Uniform(low, high),)
        if space == Z:
            if self.base == "prior":
                return self.model.law("prior")
            encoder = self._law(ModelLaw("encoder", (OBSERVED,)))
            if any(law.discrete or law.interval() != (None, None) for law in encoder):
                raise CannotCompute(NAME, self.term.text, "the encoder need not cover z; pass base='prior'")
            return encoder
        if space == CORRUPTED:
            return self._law(ModelLaw("corruption", (OBSERVED,)))
        raise CannotCompute(NAME, self.term.text, f"no law stands for the space {space.name} in an integral over it")


_FOLDS: dict[str, Any] = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}
_LOG_FOLDS: dict[str, Any] = {"add": np.logaddexp, "mul": np.add, "max": np.maximum, "min": np.minimum}


def _parameters(density: Density) -> Iterator[Any]:
    """The arrays that a density computes with."""
    for value in vars(density).values():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, Density):
                yield from _parameters(each)
            elif isinstance(each, np.ndarray):
                yield each


def _log_sum(logs: Array, axis: tuple[int, ...]) -> Array:
    """The logarithm of the sum of exponentials, which may all be zero."""
    top = np.max(logs, axis=axis, keepdims=True)
    shift = np.where(np.isfinite(top), top, 0.0)
    return np.log(np.exp(logs - shift).sum(axis=axis)) + np.squeeze(shift, axis=axis)


def _exponent(term: Apply) -> float:
    exponent = term.args[1]
    assert isinstance(exponent, Const)
    return float(exponent.value)


__all__ = ["Grid"]
