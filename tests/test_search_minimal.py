"""No false claim of the catalogue fails with fewer states than `SMALLEST` says: for all tables of the smaller sizes.

Every smaller size is settled in one of four ways. With one state of z, x and x~ there is one model alone, which is
decided exactly. Else both sides are proved to be one function of all positive tables, or to be the sides of another
inequality that holds by the form of its terms for all models, or, with one state of x only, where p(x|z) = 1, the
margin is a KL divergence times a positive number. A table with zeros is one of fewer states, or of a limit in which
these hold too; random models with zeros are decided beside the proofs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

import oracle
import pytest
from helpers import finite
from test_search import SMALLEST

from boundcheck import Outcome, check
from boundcheck.catalogue import find
from boundcheck.catalogue.objectives import denoising_coupled, diwae_coupled, log_evidence
from boundcheck.claims.gap import always_at_most
from boundcheck.claims.symbolic import prove_identity
from boundcheck.evaluators import exact
from boundcheck.language import E, kl, trace
from boundcheck.search.batch import needs

Size = tuple[int, int, int]

ONE_CORRUPTION: dict[str, tuple[Any, Any]] = {
    "denoising-decoupled-below-evidence": (denoising_coupled, log_evidence),
    "sivi-without-below-evidence": (denoising_coupled, log_evidence),
    "diwae-decoupled-below-evidence": (partial(diwae_coupled, k=2), log_evidence),
    "diwae-coupled-above-marginal-elbo": (denoising_coupled, partial(diwae_coupled, k=2)),
}
"""With one state of x~ both sides are those of this inequality between other formulas, which holds for all models."""

ONE_OBSERVATION: dict[str, Any] = {
    "beta-below-one-below-evidence": lambda m, x: kl(m.encoder(x), m.prior()) / 2,
    "beta-denoising-half-below-evidence": lambda m, x: E(m.corruption(x), lambda xt: kl(m.encoder(xt), m.prior()) / 2),
    "dae-below-evidence": lambda m, x: 0 * log_evidence(m, x),
    "harmonic-mean-below-evidence": lambda m, x: 0 * log_evidence(m, x),
}
"""The margin where p(x|z) = 1: never negative."""


def smaller_sizes(name: str) -> Iterator[Size]:
    roles = needs(find(name))
    corrupts = "corruption" in roles
    tied = {"clean encoder", "corruption"} <= roles
    for x in range(1, 4):
        for z in range(1, 4):
            for xt in range(1, 4) if corrupts else [0]:
                if x + z + xt < SMALLEST[name] and (not tied or x == xt):
                    yield x, z, xt


CASES = [(name, size) for name in SMALLEST for size in smaller_sizes(name)]


@pytest.mark.parametrize(("name", "size"), CASES, ids=lambda each: each if isinstance(each, str) else str(each))
def test_the_claim_holds_for_all_tables_of_a_smaller_size(name: str, size: Size) -> None:
    claim, (x, z, xt) = find(name), size
    sizes = {"x": x, "z": z, "x~": xt or x}
    lhs, rhs = claim.terms
    models = list(random_models(size))
    assert all(check(claim, model, 0).outcome is Outcome.HOLDS for model in models if claim.applies(model, 0))
    if x == z == 1 and xt in (0, 1):
        assert len({model.to_json().__repr__() for model in models}) == 1
    elif prove_identity(lhs, rhs, sizes).proved:
        pass
    elif xt == 1 and name in ONE_CORRUPTION:
        lower, upper = (trace(side) for side in ONE_CORRUPTION[name])
        assert prove_identity(lhs, lower, sizes).proved
        assert prove_identity(rhs, upper, sizes).proved
        assert always_at_most(lower, upper)
    else:
        assert x == 1
        margin = trace(ONE_OBSERVATION[name])
        for model in models:
            assert exact.evaluate(rhs - lhs, model, 0).value == exact.evaluate(margin, model, 0).value


def random_models(size: Size) -> Iterator[Any]:
    rng = Random(0)
    for number in range(30):
        x, z, xt = size
        yield finite(oracle.random_model(rng, x, z, xt or None, zeros=number % 3 == 2))
