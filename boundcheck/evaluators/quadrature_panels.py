"""Many one-dimensional integrals at once: adaptive Gauss-Kronrod panels, in log space, over a flat list of panels.

Integral b of a batch is that of exp(L_b(v)) h_b(v) over an interval. Panels of all integrals lie in one flat list, so
a round of refinement is one call of the integrand, however many integrals there are. First the mass is found
(`quadrature_search`), and what lies beyond the outermost points is measured (`quadrature_tails`). Panels between the
points are bisected until two rules agree. What the error estimate counts: the difference of the 10-point and the
21-point rule on every panel (which is that of the poorer one), or the high Legendre coefficients where these do not
fall, the mass of panels left out, a bound on the tails by their measured exponent, and rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.evaluators.quadrature_lines import (
    EPSILON,
    LIGHT,
    Array,
    Index,
    Integrals,
    Integrand,
    Lines,
    Sample,
)
from boundcheck.evaluators.quadrature_rule import GAUSS, KRONROD, NODES, Ends, at_ends, roughness, seams
from boundcheck.evaluators.quadrature_search import at_points, climb, edge_of, mass_floor, start_points
from boundcheck.evaluators.quadrature_tails import tails

_BLOCK = 780
"""Panels that are measured together."""


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
    points, fixed = start_points(lines, far)
    call = _chunked(integrand, effort)
    rows = np.arange(len(points))
    magnitude, blocked, endless = at_points(call, points)
    edge = edge_of(magnitude, blocked)
    points, magnitude, fixed = climb(call, points, magnitude, fixed, lines)
    magnitude_mass = mass_floor(points, magnitude)
    keep_tail, tail, infinite, undecided = tails(call, points, magnitude, magnitude_mass, lines, tolerance, far)
    keep_tail &= ~endless
    keep_tail &= edge <= magnitude_mass + np.log(tolerance) - 6.0
    near = np.flatnonzero(~keep_tail) if not far else rows
    result = _nothing(len(rows))
    if len(near):
        relayed = integrand if len(near) == len(rows) else _relay(integrand, near)
        known = np.concatenate([lines.kinks, lines.lower[:, None], lines.upper[:, None]], axis=1)
        chosen = (points[near], magnitude[near], fixed[near], known[near], magnitude_mass[near], tail[near])
        result.put(near, _refine(_chunked(relayed, effort), *chosen, tolerance, effort, signed))
    result.infinite = np.where(infinite != 0, infinite, np.where(endless, 1.0, result.infinite))
    cut_off = edge > magnitude_mass + np.log(tolerance) - 6.0
    result.undecided = (undecided & ~endless) | (cut_off & (result.infinite == 0))
    if len(near) < len(rows):
        further = np.flatnonzero(keep_tail)
        relayed = _relay(integrand, further)
        part = integrate_lines(relayed, lines.take(further), tolerance, effort, far=True, signed=signed)
        result.put(further, part)
    # A law that is narrower than the floats at its center are apart has no nodes.
    center = np.abs(lines.centers[:, 0])
    result.error[(lines.widths[:, 0] < 32 * np.spacing(center)) & (center < 1e8)] = np.inf
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
    if all(np.ndim(v) == 0 and v == 0.0 for v in values):
        return 0.0
    return np.concatenate([np.broadcast_to(v, p.log_weight.shape) for v, p in zip(values, parts, strict=True)])


def _refine(
    call: Integrand, points: Array, magnitude: Array, fixed: NDArray[np.bool_], known: Array, mass: Array, tail: Array,
    tolerance: float, effort: Effort, signed: bool,
) -> Integrals:  # fmt: skip
    """Gauss-Kronrod on the panels that matter, bisected until the two rules agree."""
    count = len(points)
    entry, low, high, skipped = _panels(points, magnitude, fixed, mass, tolerance)
    total = _Panels.measure(call, entry, low, high, effort.chunk)
    missed = total.missed(known)
    scale, value, absolute, error = total.sums(count, missed)
    before, stalled = np.full(count, np.inf), np.zeros(count, dtype=int)
    for _ in range(effort.rounds):
        target = tolerance * (np.maximum(np.abs(value), np.exp(-scale)) if signed else np.abs(value))
        panels = np.bincount(total.entry, minlength=count)
        share = 0.25 * target[total.entry] / panels[total.entry]
        relative = np.exp(total.scale - scale[total.entry])
        late = (error > target)[total.entry] & ((total.difference + missed) * relative > share)
        # Below the noise of the integrand refinement finds nothing.
        late &= (
            total.difference + missed
            > (30 + 8 * np.abs(total.scale)) * EPSILON * total.absolute + 0.5 * total.inherited
        )
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
            np.concatenate([total.low[late], middle]), np.concatenate([middle, total.high[late]]), effort.chunk,
        )  # fmt: skip
        refined = np.zeros(count, dtype=bool)
        refined[total.entry[late]] = True
        total, missed = total.replaced(late, children), np.append(missed[~late], np.zeros(len(children.entry)))
        # Panels of the other integrals have the neighbours that they had.
        again = refined[total.entry]
        missed[again] = total.some(again).missed(known)
        scale, value, absolute, error = total.sums(count, missed)
    with_tail = np.exp(np.clip(np.logaddexp(tail, skipped) - scale, -np.inf, 700.0))
    error = error + 2.0 * with_tail + _rounding(call, total, count, absolute)
    infinite = np.where(np.isinf(value) & ~total.lost(count), np.sign(value), 0.0)
    error = np.where(np.isnan(error) | (np.isinf(value) & (infinite == 0)), np.inf, error)
    return Integrals(scale, value, error, infinite, np.zeros(count, dtype=bool))


def _panels(
    points: Array, magnitude: Array, fixed: NDArray[np.bool_], mass: Array, tolerance: float
) -> tuple[Index, Array, Array, Array]:
    """Panels between points, without those of no weight, and with needless points removed."""
    columns = points.shape[1]
    for parity in (1, 0, 1):
        points, magnitude, fixed = _thin(points, magnitude, fixed, parity)
    low, high = points[:, :-1], points[:, 1:]
    gap = high - low
    spread = EPSILON * np.maximum(np.abs(low), np.abs(high))
    real = gap > 2 * spread
    weight = np.maximum(magnitude[:, :-1], magnitude[:, 1:]) + np.log(gap)
    weight = np.where(gap > 0, weight, -np.inf)
    chosen = real & (weight >= (mass + np.log(tolerance) - 9.0)[:, None])
    top = np.where(real & ~chosen, weight, -np.inf).max(axis=1)
    skipped = np.where(np.isfinite(top), top + np.log(columns - 1) + 2.0, -np.inf)
    # Panels without floats inside cannot be measured: they may hold all there is.
    closed = np.where(real, -np.inf, weight)
    if not np.isneginf(closed).all():
        skipped = np.logaddexp(skipped, np.logaddexp.reduce(closed, axis=1))
    row, column = np.nonzero(chosen)
    return row, low[row, column], high[row, column], skipped


def _thin(
    points: Array, magnitude: Array, fixed: NDArray[np.bool_], parity: int
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Every other point whose neighbours are of nearly its magnitude is dropped."""
    inner, before, after = (slice(1 + parity + shift, points.shape[1] - 1 + shift, 2) for shift in (0, -1, 1))
    here, left, right = magnitude[:, inner], magnitude[:, before], magnitude[:, after]
    gap = points[:, after] - points[:, before]
    straight = left + (right - left) * (points[:, inner] - points[:, before]) / np.where(gap > 0, gap, 1.0)
    # On a flank, where little mass is left, a panel may span more.
    low = np.maximum(np.maximum(left, right), here) < magnitude.max(axis=1, keepdims=True) - 4.0
    bend, rise = np.where(low, 2.5, 0.9), np.where(low, 10.0, 3.5)
    kept = np.ones(points.shape, dtype=bool)
    kept[:, inner] = ~((np.abs(here - straight) < bend) & (np.abs(right - left) < rise) & ~fixed[:, inner])
    sizes = kept.sum(axis=1)
    if (sizes == points.shape[1]).all():
        return points, magnitude, fixed
    # The rest are neighbours again; shorter rows are filled with their last point, where panels are empty.
    filled = np.arange(sizes.max()) < sizes[:, None]
    source, target = np.flatnonzero(kept), np.flatnonzero(filled)
    out = np.repeat(points[:, -1:], sizes.max(), axis=1), np.repeat(magnitude[:, -1:], sizes.max(), axis=1), ~filled
    for new, old in zip(out, (points, magnitude, fixed), strict=True):
        new.reshape(-1)[target] = old.reshape(-1)[source]
    return out


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
    left: Array
    right: Array
    noise: Array

    @classmethod
    def measure(cls, call: Integrand, entry: Index, low: Array, high: Array, chunk: int) -> _Panels:
        """Panels measured block by block, each small enough to stay in the cache and a whole number of chunks."""
        each = max(chunk // len(NODES), 1)
        block = each * max(_BLOCK // each, 1)
        starts = range(0, max(len(entry), 1), block)
        return _together(
            [cls._measured(call, entry[i : i + block], low[i : i + block], high[i : i + block]) for i in starts]
        )

    @classmethod
    def _measured(cls, call: Integrand, entry: Index, low: Array, high: Array) -> _Panels:
        # Columns are panels, so that what goes over the nodes of each goes over all panels at once.
        half, middle = (high - low) / 2, low + (high - low) / 2
        nodes = middle + NODES[:, None] * half
        shape = nodes.shape
        sample = call(np.broadcast_to(entry, shape).ravel(), nodes.ravel(), False)
        logs = sample.log_weight.reshape(shape)
        top = np.fmax.reduce(logs, axis=0)
        scale = np.where(np.isfinite(top), top, 0.0)
        weight = logs - scale
        np.exp(weight, out=weight)
        if sample.value is None:
            values = absolute = weight
        else:
            values = weight * sample.value.reshape(shape)
            values[weight == 0] = 0.0
            absolute = np.abs(values)
        finite = np.isfinite(values)
        if not finite.all():
            # Infinite on a whole panel is infinite; at single nodes it may be a pole, and finer panels will tell.
            flat = values[:1] == values
            some = ~finite.all(axis=0) & ~(np.isinf(values) & flat & (logs >= LIGHT)).all(axis=0)
            values = np.where(some, np.nan, values)
        kronrod, gauss = half * (KRONROD @ values), half * (GAUSS @ values)
        size = kronrod if values is absolute else half * (KRONROD @ absolute)
        inherited = np.zeros(len(entry))
        if np.ndim(sample.log_weight_error):
            carried = absolute * np.minimum(np.asarray(sample.log_weight_error).reshape(shape), 1e3)
            inherited += half * (KRONROD @ np.where(weight == 0, 0.0, carried))
        if np.ndim(sample.value_error):
            carried = weight * np.asarray(sample.value_error).reshape(shape)
            inherited += half * (KRONROD @ np.where(weight == 0, 0.0, carried))
        rough = 2 * half * roughness(values.T)
        # What is no rougher than the values are uncertain is their noise, and counts as inherited.
        difference = np.maximum(np.abs(kronrod - gauss), np.where(rough > 2 * inherited, rough, 0.0))
        ends = at_ends(values.T, half, ((32 + 8 * np.abs(scale)) * EPSILON, inherited / (2 * half)))
        return cls(entry, low, high, scale, kronrod, size, difference, inherited, *ends)

    def missed(self, known: Array) -> Array:
        """For each panel, what a jump or a kink beside its ends may come to."""
        ends = Ends(self.entry, self.low, self.high, self.scale, self.left, self.right, self.noise, self.difference)
        return seams(ends, known)

    def sums(self, count: int, missed: Array) -> tuple[Array, Array, Array, Array]:
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
        wrong = np.where(broken, np.inf, np.where(infinite, 0.0, self.difference + missed) + self.inherited)
        value = np.where(np.isnan(self.value), 0.0, self.value)
        absolute = np.where(np.isnan(self.absolute), 0.0, self.absolute)
        return scale, total(value), total(absolute), total(np.where(factor == 0, 0.0, wrong))

    def lost(self, count: int) -> NDArray[np.bool_]:
        """Integrals with a panel whose own values are not known."""
        unknown = ~np.isfinite(self.inherited) | np.isnan(self.value)
        return np.bincount(self.entry, weights=unknown, minlength=count) > 0

    def replaced(self, gone: NDArray[np.bool_], new: _Panels) -> _Panels:
        return _together([self.some(~gone), new])

    def some(self, chosen: NDArray[np.bool_]) -> _Panels:
        """The chosen panels."""
        return _Panels(*(getattr(self, each.name)[chosen] for each in fields(self)))


def _together(parts: list[_Panels]) -> _Panels:
    if len(parts) == 1:
        return parts[0]
    return _Panels(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(_Panels)))


def _rounding(call: Integrand, panels: _Panels, count: int, absolute: Array) -> Array:
    """Rounding of the integrand and of the nodes, measured on the heaviest panel of each integral and scaled up."""
    weight = panels.scale + np.log(np.maximum(panels.absolute, 1e-300))
    weight = np.where(np.isnan(weight), -np.inf, weight)
    most = np.full(count, -np.inf)
    np.maximum.at(most, panels.entry, weight)
    candidates = np.flatnonzero(weight == most[panels.entry])
    last = np.full(count, -1)
    last[panels.entry[candidates]] = candidates
    heavy = last[last >= 0]
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
    shifted = np.spacing(np.maximum(np.abs(low), np.abs(high))) / half * 8.0  # of subnormal nodes too
    relative = np.zeros(count)
    relative[entry] = 4.0 * (np.where(np.isnan(part), 0.0, part) + shifted) + 64 * EPSILON
    return relative * absolute
