"""Where the mass of many integrals is: points on ladders around every place of note, then a climb to every peak.

Points lie on geometric ladders around all that the laws point at, so that far and heavy tails are met too. From every
local maximum of the magnitude among them a climb leads down to the width of its peak, and a ladder of that width joins
the points, between which panels then lie.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.evaluators.quadrature_lines import EPSILON, LIGHT, Array, Index, Integrand, Lines

# Multiples of a width: dense where a bell has its mass, then geometric so that far and heavy tails are met.
_BASE = np.array([0.0, 2.3, 4.6, 7.5, 12.0, 40.0, 400.0, 1e4, 1e6])
_FEATURE = np.array([0.0, 2.0, 8.0, 32.0, 128.0, 512.0, 4096.0])
_MODE = np.array([0.0, 1.6, 3.2, 5.5, 9.0, 16.0, 40.0, 160.0, 640.0])
_FAR = 12.0 * 4.0 ** np.arange(1, 95)


def _ladder(multiples: NDArray[Any]) -> Array:
    return np.concatenate([-multiples[:0:-1], multiples])


def start_points(lines: Lines, far: bool) -> tuple[Array, NDArray[np.bool_]]:
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
    order = _ranked(points)
    return points.reshape(-1)[order], fixed.reshape(-1)[order]


def _ranked(points: Array) -> Index:
    """Where the points of each row stand in their flat array, in rising order."""
    return np.argsort(points, axis=1, kind="stable") + points.shape[1] * np.arange(len(points))[:, None]


def at_points(call: Integrand, points: Array) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """At every point the magnitude and whether it has no value; for every integral whether it diverges for sure."""
    entry = np.repeat(np.arange(len(points)), points.shape[1])
    sample = call(entry, points.ravel(), False)
    magnitude = sample.magnitude().reshape(points.shape)
    endless = np.zeros(len(points), dtype=bool)
    if sample.value is None:
        # An inner integral that surely diverges at several places makes this one diverge.
        sure = np.isposinf(sample.log_weight) & np.isfinite(sample.log_weight_error)
        endless = sure.reshape(points.shape).sum(axis=1) >= 4
    magnitude = np.where(np.isposinf(magnitude), -LIGHT, magnitude)
    return magnitude, sample.blocked().reshape(points.shape), endless


def edge_of(magnitude: Array, blocked: NDArray[np.bool_]) -> Array:
    """The largest magnitude beside a point that has no value."""
    beside = np.zeros_like(blocked)
    beside[:, 1:] |= blocked[:, :-1]
    beside[:, :-1] |= blocked[:, 1:]
    return np.where(beside, magnitude, -np.inf).max(axis=1)


def climb(
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
    order = _ranked(all_points)
    return all_points.reshape(-1)[order], all_magnitudes.reshape(-1)[order], all_fixed.reshape(-1)[order]


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


def mass_floor(points: Array, magnitude: Array) -> Array:
    """A lower guess of the log of each integral of |integrand|: the best point times the smaller gap beside it."""
    gaps = np.diff(points, axis=1)
    both = np.minimum(magnitude[:, 1:], magnitude[:, :-1]) + np.log(gaps)
    return np.where(np.isnan(both), -np.inf, both).max(axis=1)
