"""Many one-dimensional integrals at once: adaptive Gauss-Kronrod panels, in log space, over a flat list of panels.

Integral b of a batch is that of exp(L_b(v)) h_b(v) over an interval. Panels of all integrals lie in one flat list, so
a round of refinement is one call of the integrand, however many integrals there are. First the mass is found: points
on geometric ladders around every place that the laws point at, then a climb to every local maximum of the magnitude,
down to the width of its peak. Panels between the points are bisected until two rules agree. What the error estimate
counts: the difference of the 10-point and the 21-point rule on every panel (which is that of the poorer one), the mass
of panels left out, a bound on the tails by their measured exponent, and rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Index: TypeAlias = NDArray[np.intp]

EPSILON = 2.0**-52

_HALF_NODES = [
    0.995657163025808080735527280689003, 0.973906528517171720077964012084452, 0.930157491355708226001207180059508,
    0.865063366688984510732096688423493, 0.780817726586416897063717578345042, 0.679409568299024406234327365114874,
    0.562757134668604683339000099272694, 0.433395394129247190799265943165784, 0.294392862701460198131126603103866,
    0.148874338981631210884826001129720,
]  # fmt: skip
_HALF_KRONROD = [
    0.011694638867371874278064396062192, 0.032558162307964727478818972459390, 0.054755896574351996031381300244580,
    0.075039674810919952767043140916190, 0.093125454583697605535065465083366, 0.109387158802297641899210590325805,
    0.123491976262065851077958109585166, 0.134709217311473325928054001771707, 0.142775938577060080797094273138717,
    0.147739104901338491374841515972068,
]  # fmt: skip
_HALF_GAUSS = [
    0.0, 0.066671344308688137593568809893332, 0.0, 0.149451349150580593145863396957698, 0.0,
    0.219086362515982043995534934228163, 0.0, 0.269266719309996355091226921569469, 0.0,
    0.295524224714752870173815619188769,
]  # fmt: skip
NODES = np.array([*(-n for n in _HALF_NODES), 0.0, *reversed(_HALF_NODES)])
KRONROD = np.array([*_HALF_KRONROD, 0.149445554002916905664936468389821, *reversed(_HALF_KRONROD)])
GAUSS = np.array([*_HALF_GAUSS, 0.0, *reversed(_HALF_GAUSS)])

# Multiples of a width: dense where a bell has its mass, then geometric so that far and heavy tails are met.
_BASE = np.array([0.0, 2.3, 4.6, 7.5, 12.0, 40.0, 400.0, 1e4, 1e6])
_FEATURE = np.array([0.0, 2.0, 8.0, 32.0, 128.0, 512.0, 4096.0])
_MODE = np.array([0.0, 1.6, 3.2, 5.5, 9.0, 16.0, 40.0, 160.0, 640.0])
_FAR = 12.0 * 4.0 ** np.arange(1, 95)
_LIGHT = -690.0
_RADIX = float(np.log(4.0))


def _ladder(multiples: NDArray[Any]) -> Array:
    return np.concatenate([-multiples[:0:-1], multiples])


@dataclass(frozen=True)
class Sample:
    """An integrand exp(log_weight) * value at some nodes, with bounds on the errors of both."""

    log_weight: Array
    value: Array | None = None
    log_weight_error: Array | float = 0.0
    value_error: Array | float = 0.0

    def blocked(self) -> NDArray[np.bool_]:
        """Nodes without a value: a parameter overflowed, or the value did where next to no weight lies."""
        if self.value is None:
            return np.isnan(self.log_weight)
        lost = np.isinf(self.value) & (self.log_weight < _LIGHT) & ~np.isneginf(self.log_weight)
        return np.isnan(self.log_weight) | np.isnan(self.value) | lost

    def magnitude(self) -> Array:
        """log |integrand|, -inf where it is zero or has no value."""
        size = self.log_weight if self.value is None else self.log_weight + np.log(np.abs(self.value))
        return np.where(np.isneginf(self.log_weight) | self.blocked(), -np.inf, size)


Integrand: TypeAlias = Callable[[Index, Array, bool], Sample]
"""(which integral, at which v, with rounding errors) -> Sample; all flat arrays of one length."""


@dataclass(frozen=True)
class Lines:
    """Where each integral of a batch lives: rows are integrals.

    The first center is that of the law that carries the mass; the others are places where something happens, with
    the width of what happens. Kinks are points that no panel may contain in its inside.
    """

    centers: Array
    widths: Array
    kinks: Array
    lower: Array
    upper: Array

    def take(self, rows: Index) -> Lines:
        """Some of the integrals."""
        return Lines(*(getattr(self, name)[rows] for name in ("centers", "widths", "kinks", "lower", "upper")))


@dataclass
class Integrals:
    """exp(scale) * total with an absolute error of exp(scale) * error; `infinite` is the sign of a divergence.

    `undecided` marks an integral whose tail neither clearly converges nor clearly diverges.
    """

    scale: Array
    total: Array
    error: Array
    infinite: Array
    undecided: NDArray[np.bool_]

    def put(self, rows: Index, other: Integrals) -> None:
        """Replace some of the integrals."""
        for name in ("scale", "total", "error", "infinite", "undecided"):
            getattr(self, name)[rows] = getattr(other, name)


@dataclass
class Effort:
    """How much work may be done: `nodes` are shared by everything that one evaluation integrates."""

    nodes: int
    rounds: int = 40
    chunk: int = 1 << 18
    counter: list[int] = field(default_factory=lambda: [0])

    @property
    def spent(self) -> int:
        """Nodes so far, those of inner integrals included."""
        return self.counter[0]

    def within(self, chunk: int) -> Effort:
        """The same limits and counter, with other chunks."""
        return Effort(self.nodes, self.rounds, max(chunk, len(NODES)), self.counter)


def integrate_lines(
    integrand: Integrand, lines: Lines, tolerance: float, effort: Effort, *, far: bool = False, signed: bool = False
) -> Integrals:
    """All integrals of a batch.

    Args:
        integrand: the integrand at flat nodes.
        lines: where the integrals live.
        tolerance: relative to each integral; relative to max(1, integral) if `signed`.
        effort: limits on work.
        far: look out to 1e55 widths.
        signed: the tolerance is that of a value, not of a logarithm.
    """
    points, fixed = _points(lines, far)
    call = _chunked(integrand, effort)
    rows = np.arange(len(points))
    magnitude, blocked, endless = _at_points(call, points)
    edge = _edge(magnitude, blocked)
    points, magnitude, fixed = _climb(call, points, magnitude, fixed, lines)
    magnitude_mass = _mass_floor(points, magnitude)
    keep_tail, tail, infinite, undecided = _tails(call, points, magnitude, magnitude_mass, lines, tolerance, far)
    keep_tail &= ~endless
    keep_tail &= edge <= magnitude_mass + np.log(tolerance) - 6.0
    near = np.flatnonzero(~keep_tail) if not far else rows
    result = _nothing(len(rows))
    if len(near):
        relayed = integrand if len(near) == len(rows) else _relay(integrand, near)
        chosen = (points[near], magnitude[near], fixed[near], magnitude_mass[near], tail[near])
        result.put(near, _refine(_chunked(relayed, effort), *chosen, tolerance, effort, signed))
    result.infinite = np.where(infinite != 0, infinite, np.where(endless, 1.0, result.infinite))
    cut_off = edge > magnitude_mass + np.log(tolerance) - 6.0
    result.undecided = (undecided & ~endless) | (cut_off & (result.infinite == 0))
    if len(near) < len(rows):
        further = np.flatnonzero(keep_tail)
        relayed = _relay(integrand, further)
        part = integrate_lines(relayed, lines.take(further), tolerance, effort, far=True, signed=signed)
        result.put(further, part)
    return result


def _nothing(count: int) -> Integrals:
    return Integrals(np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count, dtype=bool))


def _relay(integrand: Integrand, rows: Index) -> Integrand:
    return lambda entry, v, rounding: integrand(rows[entry], v, rounding)


def _chunked(integrand: Integrand, effort: Effort) -> Integrand:
    """The integrand with its nodes cut into chunks that fit in memory."""

    def call(entry: Index, v: Array, rounding: bool) -> Sample:
        effort.counter[0] += len(v)
        if len(v) <= effort.chunk:
            return integrand(entry, v, rounding)
        parts = [
            integrand(entry[i : i + effort.chunk], v[i : i + effort.chunk], rounding)
            for i in range(0, len(v), effort.chunk)
        ]
        return Sample(*(_joined([getattr(part, name) for part in parts], parts) for name in _FIELDS))

    return call


_FIELDS = ("log_weight", "value", "log_weight_error", "value_error")


def _joined(values: list, parts: list[Sample]) -> Any:
    if values[0] is None:
        return None
    return np.concatenate([np.broadcast_to(v, p.log_weight.shape) for v, p in zip(values, parts, strict=True)])


def _points(lines: Lines, far: bool) -> tuple[Array, NDArray[np.bool_]]:
    """Sorted break points (integrals, points), and which of them are kinks."""
    base = _ladder(np.concatenate([_BASE, _FAR]) if far else _BASE)
    narrow_points = np.zeros((len(lines.centers), 0), dtype=bool)
    parts = [lines.centers[:, :1] + lines.widths[:, :1] * base]
    if lines.centers.shape[1] > 1:
        # A feature as wide as the law needs no ladder of its own.
        narrow = (lines.widths[:, 1:] < 0.7 * lines.widths[:, :1]).any(axis=0)
        shift = np.abs(lines.centers[:, 1:] - lines.centers[:, :1]) > 12 * lines.widths[:, :1]
        laddered = np.flatnonzero(narrow | shift.any(axis=0)) + 1
        plain = np.setdiff1d(np.arange(1, lines.centers.shape[1]), laddered)
        steps = _ladder(_FEATURE)
        wide = lines.centers[:, laddered, None] + lines.widths[:, laddered, None] * steps
        kept = (lines.widths[:, laddered] < 0.1 * lines.widths[:, :1])[:, :, None] & (np.abs(steps) <= 8)
        parts += [wide.reshape(len(wide), len(laddered) * len(steps)), lines.centers[:, plain]]
        narrow_points = kept.reshape(len(kept), len(laddered) * len(steps))
    finite = [np.where(np.isfinite(end), end, lines.centers[:, 0])[:, None] for end in (lines.lower, lines.upper)]
    parts += finite
    free = np.concatenate(parts, axis=1)
    points = np.concatenate([free, lines.kinks], axis=1)
    fixed = np.zeros(points.shape, dtype=bool)
    fixed[:, free.shape[1] - 2 :] = True
    fixed[:, len(base) : len(base) + narrow_points.shape[1]] = narrow_points
    points = np.where(np.isfinite(points), points, lines.centers[:, :1])
    points = np.clip(points, lines.lower[:, None], lines.upper[:, None])
    order = np.argsort(points, axis=1, kind="stable")
    return np.take_along_axis(points, order, axis=1), np.take_along_axis(fixed, order, axis=1)


def _at_points(call: Integrand, points: Array) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    entry = np.repeat(np.arange(len(points)), points.shape[1])
    sample = call(entry, points.ravel(), False)
    magnitude = sample.magnitude().reshape(points.shape)
    endless = np.zeros(len(points), dtype=bool)
    if sample.value is None:
        # An inner integral that surely diverges at several places makes this one diverge.
        sure = np.isposinf(sample.log_weight) & np.isfinite(sample.log_weight_error)
        endless = sure.reshape(points.shape).sum(axis=1) >= 4
    magnitude = np.where(np.isposinf(magnitude), -_LIGHT, magnitude)
    return magnitude, sample.blocked().reshape(points.shape), endless


def _edge(magnitude: Array, blocked: NDArray[np.bool_]) -> Array:
    """The largest magnitude beside a point that has no value."""
    beside = np.zeros_like(blocked)
    beside[:, 1:] |= blocked[:, :-1]
    beside[:, :-1] |= blocked[:, 1:]
    return np.where(beside, magnitude, -np.inf).max(axis=1)


def _climb(
    call: Integrand, points: Array, magnitude: Array, fixed: NDArray[np.bool_], lines: Lines
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Zoom in on every local maximum until its peak is resolved, and add a ladder of its width around it."""
    left = np.concatenate([np.full((len(points), 1), -np.inf), magnitude[:, :-1]], axis=1)
    right = np.concatenate([magnitude[:, 1:], np.full((len(points), 1), -np.inf)], axis=1)
    best = magnitude.max(axis=1, keepdims=True)
    top = (magnitude >= left) & (magnitude > right) & np.isfinite(magnitude)
    # A maximum whose neighbours are little lower is resolved already.
    top &= (magnitude - np.minimum(left, right) > 7.0) | (magnitude - np.maximum(left, right) > 3.0)
    # A low maximum may be the foot of a high and narrow peak, so only flat ones far below are passed over.
    steep = magnitude - np.maximum(left, right) > 3.0
    top &= (magnitude > best - 60.0) | steep
    rank = np.argsort(np.argsort(np.where(top, -magnitude, np.inf), axis=1), axis=1)
    top &= rank < 6
    entry, column = np.nonzero(top)
    if not len(entry):
        return points, magnitude, fixed
    middle = points[entry, column]
    low = points[entry, np.maximum(column - 1, 0)]
    high = points[entry, np.minimum(column + 1, points.shape[1] - 1)]
    height = magnitude[entry, column]
    width = _zoom(call, entry, low, middle, high, height)
    slot = rank[entry, column]
    steps = _ladder(_MODE)
    extra = np.repeat(lines.centers[:, :1], (slot.max() + 1) * len(steps), axis=1)
    real = np.zeros(extra.shape, dtype=bool)
    for j, step in enumerate(steps):
        extra[entry, slot * len(steps) + j] = middle + step * width
        real[entry, slot * len(steps) + j] = True
    extra = np.clip(extra, lines.lower[:, None], lines.upper[:, None])
    all_points = np.concatenate([points, extra], axis=1)
    extra_magnitude = np.full(extra.shape, -np.inf)
    row, place = np.nonzero(real)
    extra_magnitude[row, place] = call(row, extra[row, place], False).magnitude()
    all_magnitudes = np.concatenate([magnitude, extra_magnitude], axis=1)
    all_fixed = np.concatenate([fixed, np.zeros(extra.shape, dtype=bool)], axis=1)
    order = np.argsort(all_points, axis=1, kind="stable")
    return tuple(np.take_along_axis(a, order, axis=1) for a in (all_points, all_magnitudes, all_fixed))  # type: ignore[return-value]


def _zoom(call: Integrand, entry: Index, low: Array, middle: Array, high: Array, height: Array) -> Array:
    """Move `middle` to the maximum inside [low, high] in place; return half the width over which 1 nat is lost."""
    fractions = np.array([0.08, 0.3, 0.55, 0.8])
    width = np.maximum(np.maximum(middle - low, high - middle), 4 * EPSILON * np.abs(middle))
    active = np.arange(len(entry))
    for _ in range(60):
        if not len(active):
            break
        m = middle[active][:, None]
        grid = np.concatenate(
            [m - (m - low[active][:, None]) * fractions, m + (high[active][:, None] - m) * fractions, m], axis=1
        )
        grid.sort(axis=1)
        values = call(np.repeat(entry[active], grid.shape[1]), grid.ravel(), False).magnitude().reshape(grid.shape)
        best = values.argmax(axis=1)
        rows = np.arange(len(active))
        nearer = np.where(values[rows, best] > height[active], grid[rows, best], middle[active])
        height[active] = np.maximum(height[active], values[rows, best])
        before = np.where(best > 0, grid[rows, np.maximum(best - 1, 0)], low[active])
        after = np.where(best < grid.shape[1] - 1, grid[rows, np.minimum(best + 1, grid.shape[1] - 1)], high[active])
        lost_left = height[active] - np.where(best > 0, values[rows, np.maximum(best - 1, 0)], -np.inf)
        lost_right = height[active] - np.where(
            best < grid.shape[1] - 1, values[rows, np.minimum(best + 1, grid.shape[1] - 1)], -np.inf
        )
        middle[active], low[active], high[active] = nearer, before, after
        width[active] = np.maximum(np.maximum(after - nearer, nearer - before), 4 * EPSILON * np.abs(nearer))
        # Done when the neighbours lie about one nat below, or when floats are exhausted.
        fine = (np.minimum(lost_left, lost_right) < 1.2) & (np.maximum(lost_left, lost_right) < 12.0)
        fine |= np.minimum(lost_left, lost_right) < 0.05
        fine |= (after - before) <= 8 * EPSILON * np.abs(nearer)
        active = active[~fine]
    return width


def _mass_floor(points: Array, magnitude: Array) -> Array:
    """A lower guess of the log of each integral of |integrand|: the best point times the smaller gap beside it."""
    gaps = np.diff(points, axis=1)
    both = np.minimum(magnitude[:, 1:], magnitude[:, :-1]) + np.log(gaps)
    return np.where(np.isnan(both), -np.inf, both).max(axis=1)


def _tails(
    call: Integrand, points: Array, magnitude: Array, mass: Array, lines: Lines, tolerance: float, far: bool
) -> tuple[NDArray[np.bool_], Array, Array, NDArray[np.bool_]]:
    """What lies beyond the last points: (look further, log of a bound, sign if infinite, undecided)."""
    count = len(points)
    further = np.zeros(count, dtype=bool)
    undecided = np.zeros(count, dtype=bool)
    bound = np.full(count, -np.inf)
    infinite = np.zeros(count)
    center = lines.centers[:, 0]
    rows = np.arange(count)
    for side, end in ((-1, lines.lower), (1, lines.upper)):
        outer = points[:, 0] if side < 0 else points[:, -1]
        radius = np.abs(outer - center)
        size = (magnitude[:, 0] if side < 0 else magnitude[:, -1]) + np.log(radius)
        open_end = np.isinf(end)
        heavy = open_end & (size > mass + np.log(tolerance) - 6.0)
        bound = np.where(open_end, np.logaddexp(bound, size), bound)
        if not heavy.any():
            continue
        if not far:
            further |= heavy
            continue
        chosen = rows[heavy]
        radii = radius[heavy][:, None] * 4.0 ** np.arange(-8.0, 1.0)
        nodes = center[heavy][:, None] + side * radii
        sample = call(np.repeat(chosen, 9), nodes.ravel(), True)
        trend = (sample.magnitude().reshape(nodes.shape) + np.log(radii)) / 1.0
        noise = np.broadcast_to(sample.log_weight_error, sample.log_weight.shape).reshape(nodes.shape).max(axis=1)
        slopes = np.diff(trend, axis=1) / _RADIX
        sure = (noise < 0.01) | (slopes.min(axis=1) * _RADIX > 4 * noise)
        falling = np.isfinite(slopes).all(axis=1) & (slopes.max(axis=1) < -1e-3) & (noise < 0.01)
        rising = ((slopes.min(axis=1) > 1e-3) | np.isposinf(trend).any(axis=1)) & sure
        decay = np.where(falling, -slopes.max(axis=1), 1.0)
        bound[chosen] = np.logaddexp(bound[chosen], trend[:, -1] - np.log(decay))
        value = np.ones(nodes.size) if sample.value is None else np.sign(sample.value)
        signs = value.reshape(nodes.shape)
        one_sign = (signs == signs[:, :1]).all(axis=1)
        clear = rising & one_sign
        opposite = clear & (infinite[chosen] * signs[:, -1] < 0)
        undecided[chosen] |= ~(falling | clear) | opposite
        infinite[chosen] = np.where(clear, signs[:, -1], infinite[chosen])
    return further, bound, infinite, undecided


def _refine(
    call: Integrand, points: Array, magnitude: Array, fixed: NDArray[np.bool_], mass: Array, tail: Array,
    tolerance: float, effort: Effort, signed: bool,
) -> Integrals:  # fmt: skip
    """Gauss-Kronrod on the panels that matter, bisected until the two rules agree."""
    count = len(points)
    entry, low, high, skipped = _panels(points, magnitude, fixed, mass, tolerance)
    total = _Panels.measure(call, entry, low, high)
    before, stalled = np.full(count, np.inf), np.zeros(count, dtype=int)
    for _ in range(effort.rounds):
        scale, value, absolute, error = total.sums(count)
        target = tolerance * (np.maximum(np.abs(value), np.exp(-scale)) if signed else np.abs(value))
        panels = np.bincount(total.entry, minlength=count)
        share = 0.25 * target[total.entry] / panels[total.entry]
        relative = np.exp(total.scale - scale[total.entry])
        late = (error > target)[total.entry] & (total.difference * relative > share)
        # Below the noise of the integrand refinement finds nothing.
        late &= total.difference > (30 + 8 * np.abs(total.scale)) * EPSILON * total.absolute + 0.5 * total.inherited
        # An error that no longer falls is noise, and is reported as it stands.
        stalled = np.where(error > 0.75 * before, stalled + 1, 0)
        before = error
        late &= (stalled < 5)[total.entry]
        late &= (total.high - total.low) > 64 * EPSILON * np.maximum(np.abs(total.low), np.abs(total.high))
        late |= np.isnan(total.value) & (total.high - total.low > 1e-3 * (1 + np.abs(total.low)))
        if not late.any() or effort.spent > effort.nodes:
            break
        middle = (total.low[late] + total.high[late]) / 2
        children = _Panels.measure(
            call, np.tile(total.entry[late], 2),
            np.concatenate([total.low[late], middle]), np.concatenate([middle, total.high[late]]),
        )  # fmt: skip
        total = total.replaced(late, children)
    scale, value, absolute, error = total.sums(count)
    with_tail = np.exp(np.clip(np.logaddexp(tail, skipped) - scale, -np.inf, 700.0))
    error = error + 2.0 * with_tail + _rounding(call, total, count, absolute)
    infinite = np.where(np.isinf(value) & ~total.lost(count), np.sign(value), 0.0)
    error = np.where(np.isnan(error) | (np.isinf(value) & (infinite == 0)), np.inf, error)
    return Integrals(scale, value, error, infinite, np.zeros(count, dtype=bool))


def _panels(
    points: Array, magnitude: Array, fixed: NDArray[np.bool_], mass: Array, tolerance: float
) -> tuple[Index, Array, Array, Array]:
    """Panels between points, without those of no weight, and with needless points removed."""
    for parity in (1, 0, 1):
        points, magnitude, fixed = _thin(points, magnitude, fixed, parity)
    low, high = points[:, :-1], points[:, 1:]
    gap = high - low
    spread = EPSILON * np.maximum(np.abs(low), np.abs(high))
    real = gap > 2 * spread
    weight = np.maximum(magnitude[:, :-1], magnitude[:, 1:]) + np.log(gap)
    weight = np.where(real, weight, -np.inf)
    chosen = real & (weight >= (mass + np.log(tolerance) - 9.0)[:, None])
    dropped = np.where(chosen | ~real, -np.inf, weight)
    top = dropped.max(axis=1)
    skipped = np.where(np.isfinite(top), top + np.log(dropped.shape[1]) + 2.0, -np.inf)
    row, column = np.nonzero(chosen)
    return row, low[row, column], high[row, column], skipped


def _thin(
    points: Array, magnitude: Array, fixed: NDArray[np.bool_], parity: int
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Every other point whose neighbours are of nearly its magnitude is dropped."""
    inner = np.arange(1 + parity, points.shape[1] - 1, 2)
    here, left, right = magnitude[:, inner], magnitude[:, inner - 1], magnitude[:, inner + 1]
    gap = points[:, inner + 1] - points[:, inner - 1]
    straight = left + (right - left) * (points[:, inner] - points[:, inner - 1]) / np.where(gap > 0, gap, 1.0)
    # On a flank, where little mass is left, a panel may span more.
    low = np.maximum(np.maximum(left, right), here) < magnitude.max(axis=1, keepdims=True) - 4.0
    bend, rise = np.where(low, 2.5, 0.9), np.where(low, 10.0, 3.5)
    drop = (np.abs(here - straight) < bend) & (np.abs(right - left) < rise) & ~fixed[:, inner]
    row, column = np.nonzero(drop)
    if not len(row):
        return points, magnitude, fixed
    # What is dropped joins the last point, where panels are empty, so that the rest are neighbours again.
    key = points.copy()
    key[row, inner[column]] = np.inf
    order = np.argsort(key, axis=1, kind="stable")
    points, magnitude, fixed = points.copy(), magnitude.copy(), fixed.copy()
    points[row, inner[column]] = points[row, -1]
    magnitude[row, inner[column]] = magnitude[row, -1]
    fixed[row, inner[column]] = True
    points, magnitude = (np.take_along_axis(a, order, axis=1) for a in (points, magnitude))
    return points, magnitude, np.take_along_axis(fixed, order, axis=1)


@dataclass
class _Panels:
    """Measured panels; `value`, `absolute`, `difference`, `inherited` are multiples of exp(scale)."""

    entry: Index
    low: Array
    high: Array
    scale: Array
    value: Array
    absolute: Array
    difference: Array
    inherited: Array

    @classmethod
    def measure(cls, call: Integrand, entry: Index, low: Array, high: Array) -> _Panels:
        half, middle = (high - low) / 2, low + (high - low) / 2
        nodes = middle[:, None] + half[:, None] * NODES
        sample = call(np.repeat(entry, len(NODES)), nodes.ravel(), False)
        shape = nodes.shape
        logs = sample.log_weight.reshape(shape)
        top = np.where(np.isnan(logs), -np.inf, logs).max(axis=1)
        scale = np.where(np.isfinite(top), top, 0.0)
        weight = np.exp(logs - scale[:, None])
        if sample.value is None:
            values = absolute = weight
        else:
            given = sample.value.reshape(shape)
            values = np.where(weight == 0, 0.0, weight * given)
            absolute = np.abs(values)
        # Infinite on a whole panel is infinite; at single nodes it may be a pole, and finer panels will tell.
        flat = values[:, :1] == values
        some = ~np.isfinite(values).all(axis=1) & ~(np.isinf(values) & flat & (logs >= _LIGHT)).all(axis=1)
        values = np.where(some[:, None], np.nan, values)
        kronrod, gauss = half * (values @ KRONROD), half * (values @ GAUSS)
        size = half * (absolute @ KRONROD)
        inherited = np.zeros(len(entry))
        if np.ndim(sample.log_weight_error):
            carried = absolute * np.minimum(np.asarray(sample.log_weight_error).reshape(shape), 1e3)
            inherited += half * (np.where(weight == 0, 0.0, carried) @ KRONROD)
        if np.ndim(sample.value_error):
            carried = weight * np.asarray(sample.value_error).reshape(shape)
            inherited += half * (np.where(weight == 0, 0.0, carried) @ KRONROD)
        return cls(entry, low, high, scale, kronrod, size, np.abs(kronrod - gauss), inherited)

    def sums(self, count: int) -> tuple[Array, Array, Array, Array]:
        """Per integral: the common scale, value, integral of |integrand|, error so far."""
        scale = np.full(count, -np.inf)
        heavy = self.scale + np.log(np.maximum(self.absolute, 1e-300))
        np.maximum.at(scale, self.entry, np.where(np.isnan(heavy), -np.inf, heavy))
        scale = np.where(np.isfinite(scale), scale, 0.0)
        factor = np.exp(np.minimum(self.scale - scale[self.entry], 700.0))

        def total(part: Array) -> Array:
            return np.asarray(np.bincount(self.entry, weights=part * factor, minlength=count), dtype=float)

        infinite = np.isinf(self.value)
        broken = (np.isnan(self.difference) & ~infinite) | np.isnan(self.inherited)
        wrong = np.where(broken, np.inf, np.where(infinite, 0.0, self.difference) + self.inherited)
        value = np.where(np.isnan(self.value), 0.0, self.value)
        absolute = np.where(np.isnan(self.absolute), 0.0, self.absolute)
        return scale, total(value), total(absolute), total(np.where(factor == 0, 0.0, wrong))

    def lost(self, count: int) -> NDArray[np.bool_]:
        """Integrals with a panel whose own values are not known."""
        unknown = ~np.isfinite(self.inherited) | np.isnan(self.value)
        return np.bincount(self.entry, weights=unknown, minlength=count) > 0

    def replaced(self, gone: NDArray[np.bool_], new: _Panels) -> _Panels:
        names = ("entry", "low", "high", "scale", "value", "absolute", "difference", "inherited")
        return _Panels(*(np.concatenate([getattr(self, n)[~gone], getattr(new, n)]) for n in names))


def _rounding(call: Integrand, panels: _Panels, count: int, absolute: Array) -> Array:
    """Rounding of the integrand and of the nodes, measured on the heaviest panel of each integral and scaled up."""
    weight = panels.scale + np.log(np.maximum(panels.absolute, 1e-300))
    weight = np.where(np.isnan(weight), -np.inf, weight)
    order = np.lexsort((weight, panels.entry))
    last = np.append(panels.entry[order][1:] != panels.entry[order][:-1], True) if len(order) else np.zeros(0, bool)
    heavy = order[last]
    low, high, entry = panels.low[heavy], panels.high[heavy], panels.entry[heavy]
    half, middle = (high - low) / 2, low + (high - low) / 2
    nodes = middle[:, None] + half[:, None] * NODES
    sample = call(np.repeat(entry, len(NODES)), nodes.ravel(), True)
    size = np.exp(sample.magnitude().reshape(nodes.shape) - weight[heavy][:, None])
    logs = np.broadcast_to(sample.log_weight_error, sample.log_weight.shape).reshape(nodes.shape)
    part = half * ((size * np.minimum(logs, 1e3)) @ KRONROD)
    if sample.value is not None:
        share = np.exp(sample.log_weight.reshape(nodes.shape) - weight[heavy][:, None])
        wrong = np.broadcast_to(sample.value_error, sample.log_weight.shape).reshape(nodes.shape)
        part = part + half * (np.where(share == 0, 0.0, share * wrong) @ KRONROD)
    shifted = EPSILON * np.maximum(np.abs(low), np.abs(high)) / half * 8.0
    relative = np.zeros(count)
    relative[entry] = 4.0 * (np.where(np.isnan(part), 0.0, part) + shifted) + 64 * EPSILON
    return relative * absolute
