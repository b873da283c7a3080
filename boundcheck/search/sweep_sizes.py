"""A search that stays at given numbers of states, for sweeps that ask at which sizes a claim fails.

It proposes as `falsify` does, batches that grow from one model beside moves from the best models so far, and reports
nothing that the exact or the enclosure evaluator has not decided; but it neither leaves its sizes nor merges states.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boundcheck.claims.claim import Claim
from boundcheck.models.finite import FiniteModel
from boundcheck.search.batch import ModelBatch, Sizes, margins, needs
from boundcheck.search.propose import chosen, joined, moved, random_batch
from boundcheck.search.reduce import simplest, violates

_LARGEST_BATCH = 1 << 14
_POPULATION = 64
_MOST_DECIDED = 8
_SMALLEST_FLOAT_VIOLATION = 1e-11


def search_at(claim: Claim, sizes: Sizes, budget: int, seed: int) -> tuple[int, FiniteModel | None]:
    """Search for a counterexample of given sizes.

    Args:
        claim: a claim about finite models.
        sizes: the numbers of states of x, z and x~.
        budget: how many models to try at the most.
        seed: the same seed finds the same counterexample.

    Returns:
        How many models were tried, and a counterexample at x = 0 with fractions as simple as could be found, if any.

    >>> from boundcheck.catalogue import find
    >>> tried, model = search_at(find("jvi-below-evidence"), Sizes(2, 3), budget=1000, seed=0)
    >>> model.sizes
    {'x': 2, 'z': 3}
    """
    rng = np.random.default_rng(seed)
    roles = needs(claim)
    best: ModelBatch | None = None
    tried, count = 0, 1
    while tried < budget:
        batch = random_batch(rng, sizes, roles, min(count, budget - tried))
        left = budget - tried - len(batch)
        if best is not None and len(best) >= 4 and left:
            batch = joined(batch, moved(rng, best, np.arange(len(best)), min(count, left)))
        tried += len(batch)
        loss = _losses(claim, batch)
        order = np.argsort(loss)
        for index in order[:_MOST_DECIDED]:
            if loss[index] >= -_SMALLEST_FLOAT_VIOLATION:
                break
            model = batch.model(int(index))
            if violates(claim, model):
                return tried, simplest(claim, model, rng)
        nearest = chosen(batch, order[:_POPULATION])
        if best is not None:
            nearest = joined(nearest, best)
            nearest = chosen(nearest, np.argsort(_losses(claim, nearest))[:_POPULATION])
        best = nearest
        count = min(2 * count, _LARGEST_BATCH)
    return tried, None


def _losses(claim: Claim, batch: ModelBatch) -> NDArray[np.float64]:
    """rhs - lhs for each model, minus its absolute value for equalities; +inf where a side has no value."""
    loss = margins(claim, batch)
    return np.where(np.isnan(loss), np.inf, -np.abs(loss) if claim.relation == "==" else loss)


__all__ = ["search_at"]
