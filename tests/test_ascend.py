"""Gradient ascent in the search: it climbs, finds what batches and evolution miss, and starts only when they failed."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest

from boundcheck import BadInput, Claim
from boundcheck.catalogue import find
from boundcheck.catalogue.objectives import hvm, log_evidence, marginal_negative_entropy, renyi_finite
from boundcheck.evaluators.black_box import black_box
from boundcheck.language import log
from boundcheck.search import ascend
from boundcheck.search import falsify as searching
from boundcheck.search.batch import Sizes, margins, needs
from boundcheck.search.falsify import STAGES, _Hunt, falsify
from boundcheck.search.propose import random_batch


def nearly_uniform_hvm(m: Any, x: Any) -> Any:
    """Above log p(x) only if the reverse model is nearly exact and q~ nearly uniform over three states."""
    return hvm(m, x) - marginal_negative_entropy(m, x) - log(3) + Fraction("1e-5")


UNIFORM = Claim("uniform", nearly_uniform_hvm, "<=", log_evidence)


def hunt(claim: Claim, *stages: str, budget: int = 10**9, seed: int = 0) -> _Hunt:
    return _Hunt(claim, np.random.default_rng(seed), budget, lambda models: None, frozenset(stages))


@pytest.mark.parametrize(
    "name", ["jvi-below-evidence", "denoising-readings-agree", "renyi-finite-negative-below-evidence"]
)
def test_no_model_ends_below_its_start(name: str) -> None:
    claim = find(name)
    roles = needs(claim)
    starts = random_batch(
        np.random.default_rng(0), Sizes(2, 2, 2 if "corruption" in roles else 0), roles, 24, zeros=False
    )
    reached = ascend.ascend(claim, starts, steps=12)

    def height(batch: Any) -> Any:
        return np.abs(margins(claim, batch)) if claim.relation == "==" else -margins(claim, batch)

    assert (height(reached) >= height(starts) - 1e-9).all()
    assert (height(reached) > height(starts) + 1e-3).mean() > 0.6
    for table in reached.tables.values():
        assert (table > 0).all()
    for role in set(reached.tables) - {"joint"}:
        np.testing.assert_allclose(reached.tables[role].sum(axis=-1), 1, rtol=1e-12)


def test_every_second_model_climbs_relative_to_the_yardstick() -> None:
    """The margin of the ELBO over itself, doubled, is 2 everywhere: relative to it nothing can be climbed."""
    elbo_gap = find("elbo-below-evidence")
    starts = random_batch(np.random.default_rng(0), Sizes(1, 3), needs(elbo_gap), 8, zeros=False)
    before, after = margins(elbo_gap, starts), margins(elbo_gap, ascend.ascend(elbo_gap, starts, elbo_gap, steps=12))
    assert (after[::2] < before[::2]).all()
    np.testing.assert_allclose(after[1::2], before[1::2], rtol=1e-6)


def test_gradients_find_what_evolution_at_the_same_size_does_not() -> None:
    sizes = Sizes(1, 3, 2)
    climbing, evolving = hunt(UNIFORM, "gradient"), hunt(UNIFORM, "batches", "evolution")
    climbed = next(filter(None, (climbing.round(sizes, 64) for _ in range(4))), None)
    evolved = next(filter(None, (evolving.round(sizes, 2048) for _ in range(12))), None)
    assert climbed is not None
    assert evolved is None


def test_gradients_start_after_the_cheap_stages_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def recorded(claim: Claim, starts: Any, yardstick: Any = None) -> Any:
        calls.append(searching_hunt.tried)
        return starts

    monkeypatch.setattr(ascend, "ascend", recorded)
    monkeypatch.setattr(searching, "GRADIENT_AFTER", 4_000)
    claim = find("elbo-below-evidence")
    searching_hunt = hunt(claim, *STAGES, budget=3_000)
    searching_hunt.run()
    assert not calls
    searching_hunt = hunt(claim, *STAGES, budget=20_000)
    searching_hunt.run()
    assert calls
    assert min(calls) >= 4_000
    for never in (("batches", "evolution"), ("batches",), ("evolution",)):
        assert not hunt(claim, *never).climbs


def test_a_search_without_torch_goes_on_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ascend, "find_spec", lambda name: None)
    monkeypatch.setattr(searching, "GRADIENT_AFTER", 100)
    assert not ascend.available()
    assert falsify(find("elbo-below-evidence"), budget=2_000).models >= 2_000


def test_a_black_box_has_no_gradient() -> None:
    boxed = Claim("boxed", black_box(lambda m, x: float(np.log(m.joint[x].sum()))), "<=", log_evidence)
    assert not hunt(boxed, *STAGES).climbs


def test_most_searches_do_not_import_torch() -> None:
    script = (
        "import sys; from boundcheck.catalogue import find; from boundcheck.search.falsify import falsify; "
        "assert falsify(find('jvi-below-evidence')).found; print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_a_seed_gives_the_same_witness_by_gradients_too() -> None:
    claim = Claim("narrow", partial(renyi_finite, alpha="-1/20", k=11), "<=", log_evidence)
    first, second = (falsify(claim, seed=1, stages=("gradient",)).witness for _ in range(2))
    assert first is not None and second is not None
    assert first.model == second.model


@pytest.mark.parametrize("stages", [(), ("gradients",), ("batches", "luck")])
def test_unknown_stages_are_refused(stages: tuple[str, ...]) -> None:
    with pytest.raises(BadInput, match="stages"):
        falsify(find("jvi-below-evidence"), stages=stages)
