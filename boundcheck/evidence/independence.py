"""Whether an array of log-weights looks like independent draws, as every error and every bet on it supposes.

Noise that is drawn once and used for all examples makes their weights rise and fall together; antithetic pairs and
Markov chains make neighbouring draws depend on each other. Either way a mean has another error than its spread tells,
and capitals that are bet on the draws may not be multiplied. Ranks show it whatever the weights' tails.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput

_EXAMPLES, _DRAWS = 256, 4096
"""How much of an array is looked at: so many examples, evenly spread, and their first draws."""
_CHANCE = 1e-10
"""About the probability that independent draws are refused, by either of the two checks."""

_STICKS_OUT = 3.0


def refuse_dependent(name: str, log_weights: NDArray[np.generic]) -> None:
    """Refuse log-weights of shape (draws, examples) that are plainly not independent.

    With ranks r_ti of mean zero and variance one in each of N columns of n draws, independent columns give
    (1 - 1/n) sum_t (sum_i r_ti)^2 / N about the law of chi-square with n - 1 degrees of freedom, and independent rows
    give sum_i sum_t r_ti r_(t+1)i about a normal law of mean -N and variance N n. An array that passes may still be
    dependent: the checks find what is strong enough to do harm, not all there is.

    Raises:
        BadInput: what depends on what, and how to draw instead.

    >>> rng = np.random.default_rng(0)
    >>> refuse_dependent("weights", rng.normal(size=(500, 20)))
    >>> refuse_dependent("weights", np.repeat(rng.normal(size=(500, 1)), 20, axis=1))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    boundcheck.errors.BadInput: weights = (500, 20): expected draws of its own for each example; they rise and fall ...
    """
    from scipy.special import chdtri, ndtri

    ranks = _ranks(log_weights)
    draws, examples = ranks.shape
    if draws < 3 or not examples:
        return
    together = (1 - 1 / draws) * float(np.square(ranks.sum(1)).sum()) / examples
    if examples > 1 and together > float(chdtri(draws - 1, _CHANCE)):
        remedy = "they rise and fall together: draw noise of shape (draws, examples, latent), not (draws, 1, latent)"
        raise BadInput(name, log_weights.shape, "draws of its own for each example", remedy)
    neighbours = float((ranks[:-1] * ranks[1:]).sum())
    if abs(neighbours + examples) > -float(ndtri(_CHANCE / 2)) * math.sqrt(examples * draws):
        remedy = "each depends on the one before: for antithetic pairs, pass the log of each pair's mean weight"
        raise BadInput(name, log_weights.shape, "independent draws", remedy)


def _ranks(log_weights: NDArray[np.generic]) -> NDArray[np.float64]:
    """Ranks of some of the columns, of mean zero and variance one.

    Without columns that are constant, have NaN, or take a value that sticks out even among ranks, as where almost all
    weights are zero: a few that coincide by chance would look like much.
    """
    from scipy.stats import rankdata

    which = np.unique(np.linspace(0, log_weights.shape[1] - 1, _EXAMPLES).astype(int))
    values = np.asarray(log_weights[:_DRAWS, which], dtype=np.float64)
    values = values[:, ~np.isnan(values).any(0)]
    ranks = rankdata(values, axis=0) - (len(values) + 1) / 2
    spread = np.sqrt(np.square(ranks).mean(0))
    ranks = ranks[:, spread > 0] / spread[spread > 0]
    return ranks[:, (np.abs(ranks) < _STICKS_OUT).all(0)]


__all__ = ["refuse_dependent"]
