"""Fixed Gauss rules on tensor grids: an evaluator of continuous models that shares no code with adaptive quadrature.

A variable brings the nodes of its law's own Gauss rule, placed by the law's parameters where those depend on outer
variables; each bound component is one more leading axis of numpy arrays, so that a formula is evaluated on the whole
grid at once, in log space. A Gauss rule has no error estimate of its own. The formula is therefore evaluated with
`nodes`, 3/2 and 2 times as many, and ten times their difference is the estimate; where they do not agree, or where a
density may peak between two neighbouring nodes, the error is infinite: the rule cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain, combinations_with_replacement
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, CannotCompute
from boundcheck.evaluators.values import Approximate
from boundcheck.language.build import Formula, trace
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
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import (
    BernoulliLogit,
    Binomial,
    Density,
    Discrete,
    Laplace,
    Logistic,
    Mixture,
    Normal,
    Uniform,
)

__all__ = ["evaluate"]

Array: TypeAlias = NDArray[np.float64]
Point: TypeAlias = tuple[Any, ...]
"""The components of a variable's point, each a number or an array over the axes."""

NAME = "Gauss-Hermite evaluator"
FEWEST_NODES, MOST_NODES = 4, 512
LARGEST_GRID = 10_000_000
"""Numbers in one array at most; with the temporary ones this is some hundred megabytes."""

FACTOR = 10.0
AGREEMENT = 1e-3
HIDDEN_PEAK = 10.0
"""Nats by which a log-concave density may rise between two neighbouring nodes before the rule counts as too coarse."""
SHARP_CORNER, NEAR_THE_TOP = 4.0, 30.0
"""Nats by which a log-density may bend at a node that is not as far below its top as that."""

ROUNDING = 256 * 2.0**-52


def evaluate(
    formula: Formula | Term,
    model: ContinuousModel,
    x: Any,
    *,
    nodes: int = 32,
    base: Literal["prior", "encoder"] = "prior",
    **parameters: Any,
) -> Approximate:
    """The value of a formula on a continuous model, in nats, by Gauss rules on a tensor grid.

    E_{v ~ law} f(v) = sum_i w_i f(v_i) with the Gauss rule of the law (Golub & Welsch 1969): Hermite for Normal laws,
    v_i = mean + scale t_i; Laguerre on both sides for Laplace; the polynomials of the logistic density for Logistic
    (Gautschi 2004); Legendre for Uniform; sums for finite discrete laws. An integral over z takes a law as its base
    measure, integral g = sum_i w_i g(v_i) / base(v_i). K copies are multisets of the nodes, with multinomial weights.

    Args:
        formula: a function of (m, x, **parameters), or a term.
        model: the model.
        x: the observed value: a number, or a tuple of numbers.
        nodes: nodes for each component, 4 to 512; the value is that of twice as many.
        base: the law whose nodes integrals over z and posteriors use, the prior or the encoder at x.
        **parameters: the formula's own.

    Returns:
        The value and an estimate of its error: ten times the difference to the rules of `nodes` and 3/2 `nodes`, and
        rounding. It is infinite where these differ by more than a thousandth, where a value is infinite, and where
        the density of a likelihood or encoder under an integral may have a peak between neighbouring nodes.

    Raises:
        CannotCompute: a grid that is too large (the message says how large), a law without a rule (Student's t has
            only finitely many moments), an infinite discrete sum, or infinities that cancel at a node.
        BadInput: an argument, or a parameter of the model, that cannot be used.

    >>> from boundcheck.catalogue.objectives import log_evidence
    >>> from boundcheck.models.densities import Normal
    >>> model = ContinuousModel(Normal(0, 1), likelihood=lambda z: Normal(z, 1))
    >>> print(f"{float(evaluate(log_evidence, model, x=0.5)):.9f}")
    -1.328012123
    """
    if isinstance(nodes, bool) or not isinstance(nodes, int) or not FEWEST_NODES <= nodes <= MOST_NODES:
        raise BadInput("nodes", nodes, f"a whole number, {FEWEST_NODES} to {MOST_NODES}", "pass nodes=32")
    if base not in ("prior", "encoder"):
        raise BadInput("base", base, "'prior' or 'encoder'")
    if not isinstance(model, ContinuousModel):
        raise BadInput("model", model, "a continuous model")
    observed, term = _observed(x), trace(formula, **parameters)
    grids = [_Grid(model, observed, count, base, term) for count in (2 * nodes, (3 * nodes + 1) // 2, nodes)]
    with np.errstate(all="ignore"):
        value, *others = (float(np.asarray(grid.value(term))) for grid in grids)
    if math.isnan(value):
        raise CannotCompute(NAME, term.text, "infinities cancel at a node, so that the sum has no value")
    spread = max(abs(value - other) for other in others)
    if grids[0].hidden or not spread <= AGREEMENT * max(1.0, abs(value)) or math.isinf(value):
        return Approximate(value, math.inf)
    return Approximate(value, FACTOR * spread + ROUNDING * max(1.0, grids[0].magnitude, abs(value)))


def _observed(x: Any) -> Point:
    try:
        values = [v if isinstance(v, int) else float(v) for v in (x if isinstance(x, tuple | list) else (x,))]
    except (TypeError, ValueError):
        raise BadInput("x", x, "a number, or a tuple of numbers", "pass the observed value itself") from None
    if not values or not all(math.isfinite(v) for v in values):
        raise BadInput("x", x, "finite numbers", "remove the missing or infinite entries")
    return tuple(values)


# --- rules ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _gauss(law: str, n: int) -> tuple[Array, Array]:
    """Nodes and log-weights of the n-point Gauss rule of a standard law, from its orthonormal polynomials.

    b_{k+1} p_{k+1} = (t - a_k) p_k - b_k p_{k-1}; the nodes are eigenvalues of the matrix of a and b, and a weight is
    1 / sum_k p_k(t)^2. The sum is kept as a logarithm, so that weights far below 1e-308 are neither zero nor nan.
    """
    from scipy.linalg import eigvalsh_tridiagonal

    k = np.arange(1.0, n)
    diagonal = 2 * np.arange(n) + 1.0 if law == "exponential" else np.zeros(n)
    squares = {
        "normal": k,
        "exponential": k**2,
        "uniform": k**2 / (4 * k**2 - 1),
        "logistic": k**4 * math.pi**2 / (4 * k**2 - 1),
    }[law]
    beside = np.sqrt(squares)
    nodes: Array = np.asarray(eigvalsh_tridiagonal(diagonal, beside))
    if law != "exponential":
        nodes = (nodes - nodes[::-1]) / 2  # symmetric, as the law is
    before, now, log_sum = np.zeros(n), np.ones(n), np.zeros(n)
    for i in range(n - 1):
        following = (nodes - diagonal[i]) * now - (beside[i - 1] * before if i else 0.0)
        before, now = now, following / beside[i]
        size = np.sqrt(1 + now**2)  # what came before sums to one in the current unit
        before, now, log_sum = before / size, now / size, log_sum + 2 * np.log(size)
    log_weights = -log_sum
    return nodes, log_weights - np.logaddexp.reduce(log_weights)


def _standard_rule(density: Density, n: int) -> tuple[Array, Array, Any, Any] | None:
    """(t, log w, location, scale): the nodes are location + scale t, in increasing order."""
    if isinstance(density, Normal):
        return *_gauss("normal", n), density.mean, density.scale
    if isinstance(density, Logistic):
        return *_gauss("logistic", n), density.location, density.scale
    if isinstance(density, Uniform):
        return *_gauss("uniform", n), density.center(), density.spread() * 2
    if isinstance(density, Laplace):
        t, log_w = _gauss("exponential", (n + 1) // 2)
        both = np.concatenate([-t[::-1], t]), np.concatenate([log_w[::-1], log_w]) - math.log(2)
        return *both, density.location, density.scale
    return None


def _table(density: Density) -> tuple[list[Any], list[Any]]:
    """The points of a finite discrete law and their log-probabilities."""
    if isinstance(density, Discrete):
        return list(density.points), [np.log(np.asarray(float(p))) for p in density.probabilities]
    if isinstance(density, BernoulliLogit):
        return [0, 1], [density.log_density(v) for v in (0, 1)]
    if isinstance(density, Binomial) and not np.ndim(density.n):
        counts = list(range(int(density.n) + 1))
        return counts, [density.log_density(v) for v in counts]
    raise CannotCompute(NAME, repr(density), "only finite discrete laws of a fixed size are summed")


def _multisets(n: int, size: int) -> tuple[NDArray[np.intp], Array]:
    """All multisets of `size` of n things, a row each, and the logarithm of the number of their orders."""
    entries = chain.from_iterable(combinations_with_replacement(range(n), size))
    rows = np.fromiter(entries, np.intp, size * math.comb(n + size - 1, size)).reshape(-1, size)
    run, repeats = np.ones(len(rows)), np.zeros(len(rows))
    for column in range(1, size):
        run = np.where(rows[:, column] == rows[:, column - 1], run + 1, 1.0)
        repeats += np.log(run)
    return rows, math.lgamma(size + 1) - repeats


# --- the traversal -------------------------------------------------------------------------------------------------


class _Grid:
    """Evaluates terms on the tensor grid of one rule.

    The axis of the innermost variable comes first in every array, so that numpy's own broadcasting aligns values that
    depend on some of the outer variables only.
    """

    def __init__(self, model: ContinuousModel, x: Point, nodes: int, base: str, term: Term) -> None:
        self.model, self.nodes, self.base, self.term = model, nodes, base, term
        self.env: dict[Var, list[Point]] = {OBSERVED: [x]}
        self.copy: dict[Plate, int] = {}
        self.depth = 0
        self.magnitude = 0.0
        self.hidden = False
        self.sums: set[int] = set()
        """Axes of discrete variables, between whose points there is nothing to miss."""
        self.multisets: set[int] = set()
        self.watched: frozenset[int] = frozenset()
        """Axes, counted from the outermost, along which densities are exponentiated and summed."""

    @property
    def all_axes(self) -> frozenset[int]:
        """The axes of all variables that are bound so far."""
        return frozenset(range(self.depth))

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
                return np.asarray(_plain(point[0]), dtype=float)
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

    def _fold(self, operation: Any, parts: list[Array]) -> Array:
        total = parts[0]
        for part in parts[1:]:
            self._fits(total, part)
            total = operation(total, part)
        return total

    def _fits(self, *arrays: Any) -> None:
        size = math.prod(np.broadcast_shapes(*(np.shape(a) for a in arrays)))
        if size > LARGEST_GRID:
            self._too_large(f"{size:,} nodes")

    def _too_large(self, what: str) -> None:
        raise CannotCompute(
            NAME, self.term.text,
            f"its grid has {what}, more than {LARGEST_GRID:,}; pass fewer nodes, or use adaptive quadrature",
        )  # fmt: skip

    @contextmanager
    def _watching(self, axes: frozenset[int]) -> Iterator[None]:
        saved, self.watched = self.watched, axes
        try:
            yield
        finally:
            self.watched = saved

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
        for density, v in pairs:
            self._fits(v, *_parameters(density))
            self._watch(density, v, self.watched)
        return self._fold(np.add, [np.asarray(density.log_density(_plain(v)), dtype=float) for density, v in pairs])

    def _watch(self, density: Density, v: Any, axes: frozenset[int]) -> None:
        """Notice a density that may rise far above what neighbouring nodes see of it."""
        if isinstance(density, Mixture):
            for component in density.components:  # a sum of exponentials, whether or not its logarithm is taken
                self._watch(component, v, self.all_axes)
            return
        if self.hidden or not axes:
            return
        logs = np.asarray(density.log_density(_plain(v)), dtype=float)
        for axis in axes - self.sums:
            place = logs.ndim - 1 - axis
            if place >= 0 and logs.shape[place] >= FEWEST_NODES:
                corners = axis not in self.multisets  # there the nodes come in runs
                self.hidden = self.hidden or _hides_a_peak(np.moveaxis(logs, place, 0), corners)

    # --- sums over nodes ---

    def _sum(self, term: Expect | Integrate, logged: bool) -> Array:
        """The expectation or integral, or its logarithm."""
        law = term.law if isinstance(term, Expect) else None
        if isinstance(law, MixtureLaw):
            outer = Var(law.var.name, law.var.space, plates=term.var.plates)
            inner = Expect(law.component.substitute({law.var: outer}), term.var, term.body)
            return self._sum(Expect(law.mixing, outer, inner), logged)
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
            return _log_sum(np.where(gone, -np.inf, log_weight + body), axis)
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

    def _draw(self, var: Var, law: Law | None) -> tuple[Point, Array]:
        """One draw: its components, and the log-weights on their axes."""
        if isinstance(law, ModelLaw):
            points, logs = zip(*(self._nodes(density) for density in self._law(law)), strict=True)
            return points, self._fold(np.add, list(logs))
        assert law is None or isinstance(law, DensityLaw)
        start, points, logs = self.depth, [], []
        for density in self._base(var.space):
            v, log_weight = self._nodes(density)
            points.append(v)
            logs.append(np.zeros_like(log_weight) if density.discrete else log_weight - density.log_density(v))
        log_weight = self._fold(np.add, logs)
        if law is None:
            return tuple(points), log_weight
        single = Var(var.name, var.space)
        self.env[single] = [tuple(points)]
        axes = self.depth - start
        with self._watching(self.watched | frozenset(range(start, self.depth))):
            log_density = self.value(expand(LogDensity(DensityLaw(law.var, law.log_density, False), (single,))))
        del self.env[single]
        self._fits(log_weight, log_density)
        log_weight = log_weight + log_density
        if law.rescale:
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
        rows, log_orders = _multisets(count, plate.size)
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

    def _nodes(self, density: Density) -> tuple[Array, Array]:
        """Nodes of a law's rule and their log-weights, on a new axis in front."""
        nodes, log_weights = self._rule(density)
        self._mark(self.sums, density.discrete)
        self._mark(self.multisets, False)
        self.depth += 1
        self._fits(nodes, log_weights)
        return nodes, np.broadcast_to(log_weights, np.broadcast_shapes(log_weights.shape, nodes.shape))

    def _mark(self, axes: set[int], marked: bool) -> None:
        """Say whether the axis that comes next is one of these."""
        (axes.add if marked else axes.discard)(self.depth)

    def _rule(self, density: Density) -> tuple[Array, Array]:
        def column(values: Any) -> Array:
            return np.asarray(values, dtype=float).reshape(-1, *(1,) * self.depth)

        def on_axis(values: list[Any]) -> Array:
            full = np.broadcast_arrays(*(np.asarray(_plain(v), dtype=float) for v in values))
            return np.stack([v.reshape((1,) * (self.depth - v.ndim) + v.shape) for v in full])

        standard = _standard_rule(density, self.nodes)
        if standard is not None:
            t, log_weights, location, scale = standard
            return _plain(location) + _plain(scale) * column(t), column(log_weights)
        if isinstance(density, Mixture):
            rules = [self._rule(component) for component in density.components]
            shape = np.broadcast_shapes(*(v.shape[1:] for pair in rules for v in pair))
            logs = [log_w + math.log(float(w)) for (_, log_w), w in zip(rules, density.weights, strict=True)]
            nodes = np.concatenate([np.broadcast_to(v, (len(v), *shape)) for v, _ in rules])
            weights = np.concatenate([np.broadcast_to(v, (len(v), *shape)) for v in logs])
            order = np.argsort(nodes, axis=0, kind="stable")  # neighbours on the axis are neighbours
            return np.take_along_axis(nodes, order, 0), np.take_along_axis(weights, order, 0)
        if not density.discrete:
            why = f"a {type(density).__name__} law has no Gauss rule of every size; use adaptive quadrature"
            raise CannotCompute(NAME, self.term.text, why)
        points, logs = _table(density)
        return on_axis(points), on_axis(logs)

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


def _hides_a_peak(logs: Array, corners: bool) -> bool:
    """Whether lines through the nodes on either side of a gap meet far above it, as they do over a missed peak.

    A log-concave density stays below those lines, so that it has no high peak where they do not.
    """
    left, right = logs[1:-2] - logs[:-3], logs[2:-1] - logs[3:]  # how steeply it rises towards the gap
    meet = (logs[2:-1] - logs[1:-2] + right) / (left + right)
    height = logs[1:-2] + left * meet
    excess = height - np.maximum(logs[1:-2], logs[2:-1])
    if np.any((left > 0) & (right > 0) & (meet > 0) & (meet < 1) & (excess > HIDDEN_PEAK)):
        return True
    if not corners:
        return False
    # A step has no peak, but where between two nodes it is they cannot see: a sharp corner, not far below the top.
    bend = 2 * logs[1:-1] - logs[:-2] - logs[2:]
    near = np.maximum(logs[:-2], logs[2:]) > np.max(logs, axis=0) - NEAR_THE_TOP
    return bool(np.any((bend > SHARP_CORNER) & near))


def _log_sum(logs: Array, axis: tuple[int, ...]) -> Array:
    """The logarithm of the sum of exponentials, which may all be zero."""
    top = np.max(logs, axis=axis, keepdims=True)
    shift = np.where(np.isfinite(top), top, 0.0)
    return np.log(np.exp(logs - shift).sum(axis=axis)) + np.squeeze(shift, axis=axis)


def _exponent(term: Apply) -> float:
    exponent = term.args[1]
    assert isinstance(exponent, Const)
    return float(exponent.value)


def _plain(value: Any) -> Any:
    """An exact rational as a float; whole numbers stay, for laws of counts."""
    return value if isinstance(value, np.ndarray | int) else float(value)
