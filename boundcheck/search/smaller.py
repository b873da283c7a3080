"""The smaller counterexample behind a violation that somebody met: what a test's own shrinking could not know.

Hypothesis shrinks choices, one after the other; merging two states changes many of them at once. So a violation is
taken through the reduction of the search: fewer tables, fewer states, then small fractions and tied rows.
"""

from __future__ import annotations

import numpy as np

from boundcheck.claims.check import ModelCheck, check
from boundcheck.claims.decide import Outcome
from boundcheck.models.finite import FiniteModel
from boundcheck.search.batch import needs
from boundcheck.search.failing import observation_first, with_fewer_tables
from boundcheck.search.reduce import simplest, smaller_models, violates


def smaller(found: ModelCheck) -> ModelCheck:
    """The claim's violation on a model with as few states and as simple fractions as the reduction finds.

    Args:
        found: a violation; of anything else there is nothing smaller.

    >>> from boundcheck import FiniteModel
    >>> from boundcheck.catalogue import find
    >>> from boundcheck.claims import check_model
    >>> thirds = ["1/3", "1/3", "1/3"]
    >>> model = FiniteModel(prior=thirds, likelihood=[[1]] * 3, encoder=[thirds, ["1/2", "1/4", "1/4"], thirds],
    ...     corruption=[thirds])
    >>> smaller(check_model(find("denoising-decoupled-below-evidence"), model)).model.sizes
    {'x': 1, 'z': 2, 'x~': 2}
    """
    claim, model = found.claim, found.model
    if found.verdict.outcome is not Outcome.VIOLATED or not isinstance(model, FiniteModel):
        return found
    if found.x:
        model = observation_first(model, found.x)
        if not violates(claim, model):
            return found
    model = next((each for each in with_fewer_tables(model) if violates(claim, each)), model)
    tie_x = {"clean encoder", "corruption"} <= needs(claim)
    shrinking = True
    while shrinking:
        fewer = next((each for each in smaller_models(model, tie_x) if violates(claim, each)), None)
        shrinking = fewer is not None
        model = fewer or model
    model = simplest(claim, model, np.random.default_rng(0))
    return ModelCheck(claim, model, 0, check(claim, model, 0))


__all__ = ["smaller"]
