"""What draws of the prior tell a grid: where to look, what a cell hides, and whether anything was missed.

A law may have a small part far away from all the rest, or a needle in its midst, and a rule that starts from wide cells
steps over both. The prior's own draws go there as often as its mass lies there. They also make an estimate of p(x) that
owes nothing to the grid: E p(x|z) over the prior is p(x), so their mean is rarely far above a p(x) that is right.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_MOST = 8
"""Places of note beside the middle."""
_HIGHEST, _OTHERS = 64, 192
"""How many of the highest known points a grid is compared with, and about how many others."""
_HIGHER = math.log(2)
"""By how much a point has to be above all points of a rule, for that rule to have stepped over a peak."""
_SIGNIFICANT = 5.0
"""Standard errors by which the draws' mean has to exceed the grid's."""
_MANY = 3
"""First cells found to hide something, from which on there may be others that no draw has met."""
_UNLIKELY = 1e6
"""The mean of weights that are 1 on average is above this once in as many times (Markov's inequality)."""


def places_of_note(draws: Floats, center: Floats, spread: Floats, reach: float) -> tuple[Floats, Floats]:
    """Groups of draws that lie farther out than `reach` spreads: places and widths, of shape (groups, dimensions).

    If there are any, the middle itself comes first, because the first cells will be wide.

    >>> far = np.concatenate([np.linspace(-1, 1, 99), [300.0, 300.2]])[:, None]
    >>> places, widths = places_of_note(far, np.zeros(1), np.ones(1), reach=9.0)
    >>> places.ravel().tolist(), widths.round(3).ravel().tolist()
    ([0.0, 300.1], [1.0, 0.1])
    """
    left = draws[(np.abs(draws - center) > reach * spread).any(1)]
    places, widths = [center], [spread]
    while len(left) and len(places) <= _MOST:
        near = (np.abs(left - left[0]) < 3 * spread).all(1)
        group = left[near]
        places.append(group.mean(0))
        own = group.std(0)
        widths.append(np.where((len(group) > 1) & (own > 0), own, spread))
        left = left[~near]
    if len(places) == 1:
        return np.empty((0, draws.shape[1])), np.empty((0, draws.shape[1]))
    return np.array(places), np.array(widths)


def some_of(points: Floats, values: Floats) -> tuple[Floats, Floats]:
    """The highest points, and some of all others evenly: what is not finite is left out.

    >>> some_of(np.arange(4.0)[:, None], np.array([0.0, np.nan, 3.0, -np.inf]))[1].tolist()
    [3.0, 0.0]
    """
    order = np.argsort(-values[np.isfinite(values)], kind="stable")
    kept = np.concatenate([order[:_HIGHEST], order[_HIGHEST:][:: max(1, len(order) // _OTHERS)]])
    return points[np.isfinite(values)][kept], values[np.isfinite(values)][kept]


def hidden(
    corners: Floats, widths: Floats, tops: Floats, points: Floats, values: Floats, least: float
) -> NDArray[np.bool_]:
    """Cells with a point in them where the log-density is above all that their own rule has seen.

    Args:
        corners: lower corners of the cells, of shape (cells, dimensions).
        widths: likewise.
        tops: the largest log-density that each cell's rule has met.
        points: places where the log-density is known, of shape (points, dimensions).
        values: what it is there.
        least: what a cell may hide at most, as the logarithm of an integral.

    >>> cells, widths = np.array([[0.0], [1.0]]), np.ones((2, 1))
    >>> hidden(cells, widths, np.array([-9.0, -9.0]), np.array([[1.5]]), np.array([0.0]), least=-20.0).tolist()
    [False, True]
    """
    found = np.zeros(len(corners), dtype=bool)
    volumes = np.log(widths).sum(1)
    for point, value in zip(points, values, strict=True):
        open_to_it = (value > tops + _HIGHER) & (value + volumes > least)
        if open_to_it.any():
            found |= open_to_it & ((corners <= point) & (point <= corners + widths)).all(1)
    return found


def missed(log_likelihoods: Floats, log_evidence: float, stepped_over: int) -> float:
    """How many nats of the evidence a grid may have missed, as far as draws of the prior tell; 0 if nothing says so.

    Args:
        log_likelihoods: log p(x|z) at independent draws z of the prior.
        log_evidence: what the grid has found.
        stepped_over: first cells that were done with but for a draw that showed what they hid: where there are many,
            there may be more that no draw has met, and the grid is not trusted further than the draws.

    >>> half = np.log(np.tile([0.5, 1.5], 500))
    >>> round(missed(half, math.log(0.5), 0), 3), missed(half, 0.0, 0), round(missed(half, 0.0, 9), 3)
    (1.386, 0.0, 0.046)
    """
    weights = log_likelihoods[~np.isnan(log_likelihoods)] - log_evidence
    if len(weights) < 2 or weights.max() == -math.inf:
        return 0.0
    log_mean = float(np.logaddexp.reduce(weights)) - math.log(len(weights))
    if log_mean > math.log(_UNLIKELY):
        return 2 * log_mean
    ratios = np.exp(weights)
    error = float(np.std(ratios, ddof=1)) / math.sqrt(len(ratios))
    excess = float(np.mean(ratios)) - 1
    if excess > max(_SIGNIFICANT * error, 1e-6):
        return 2 * log_mean
    return math.log1p(max(0.0, excess) + 3 * error) if stepped_over >= _MANY else 0.0


__all__ = ["hidden", "missed", "places_of_note", "some_of"]
