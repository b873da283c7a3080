"""How far a handful of weights carries an estimate: effective sample size and the shape of the weights' upper tail.

Importance weights with a heavy tail give estimates that look stable and are not. The largest weights are fitted by a
generalised Pareto law, whose shape k says how many moments the weights have: below 1/2 the variance is finite, above 1
not even the mean is. Beyond about 0.7 no practical number of draws makes an average of the weights reliable.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput

Floats = NDArray[np.float64]

RELIABLE = 0.7
"""Above this k, estimates from the weights are not to be relied on (Vehtari et al. 2024)."""

_LEAST_TAIL = 5
_PRIOR_STRENGTH = 10
"""k is drawn towards 1/2 with the weight of this many observations (Vehtari et al. 2024, appendix)."""


def pareto_k(tail: Floats) -> Floats:
    """The shape k of a generalised Pareto law fitted to the largest log-weights of each example.

    With u the smallest of the given weights, the excesses w - u of the others are fitted by the quasi-Bayesian
    estimate of Zhang and Stephens (2009), and the result is drawn a little towards 1/2, as in PSIS.

    Args:
        tail: log-weights, of shape (m, examples), the largest m of each example in descending order; m of about
            min(K/5, 3 sqrt K) is usual.

    Returns:
        k of each example; NaN where fewer than five weights exceed the smallest, and -inf where five or more are all
        equal.

    Raises:
        BadInput: an array of another shape, or NaN or +inf in it.

    References:
        J. Zhang & M. Stephens (2009), "A new and efficient estimation method for the generalized Pareto distribution";
        A. Vehtari, D. Simpson, A. Gelman, Y. Yao & J. Gabry (2024), "Pareto smoothed importance sampling".

    >>> uniform = np.random.default_rng(0).random((100_000, 2))
    >>> weights = -np.array([0.2, 0.9]) * np.log(uniform)  # log-weights of Pareto laws of these shapes
    >>> [round(float(k), 1) for k in pareto_k(-np.sort(-weights, axis=0)[:950])]
    [0.3, 0.9]
    """
    tail = np.asarray(tail, dtype=np.float64)
    if tail.ndim != 2:
        raise BadInput("the shape of tail", tail.shape, "(m, examples)")
    if np.isnan(tail).any() or (tail == math.inf).any():
        raise BadInput("tail", "NaN or +inf", "log-weights: finite numbers, or -inf for a weight of zero")
    return np.array([_shape(column) for column in tail.T])


def _shape(log_weights: Floats) -> float:
    """k of one example."""
    largest, smallest = log_weights.max(initial=-math.inf), log_weights.min(initial=math.inf)
    if len(log_weights) < _LEAST_TAIL or largest == -math.inf:
        return math.nan
    if largest == smallest:
        return -math.inf
    # Weights relative to the largest: k does not depend on their scale.
    relative = np.exp(log_weights - largest)
    excess = np.sort(relative - relative.min())  # of the same function: the smallest has to be zero to the last bit
    excess = excess[excess > 0]
    n = len(excess)
    if n < _LEAST_TAIL:
        return math.nan
    grid = 30 + math.isqrt(n)
    quartile = excess[max(0, math.floor(n / 4 + 0.5) - 1)]
    candidates = 1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    candidates = candidates / (3 * quartile) + 1 / excess[-1]
    shapes = -np.log1p(-candidates[:, None] * excess).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 where a candidate makes all shapes zero: no estimate
        profile = n * (np.log(candidates / shapes) + shapes - 1)
    weights = np.exp(profile - profile.max())
    theta = float((candidates * weights).sum() / weights.sum())
    k = float(np.log1p(-theta * excess).mean())
    return (n * k + _PRIOR_STRENGTH * 0.5) / (n + _PRIOR_STRENGTH)


__all__ = ["RELIABLE", "pareto_k"]
