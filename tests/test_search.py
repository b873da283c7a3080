"""The searcher's power: false claims fall, quickly and to small models, certified; true claims stand."""

from __future__ import annotations

import doctest
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from boundcheck import BadInput, Claim, FiniteModel, Guarantee, Outcome, black_box, check
from boundcheck.catalogue import claims, find
from boundcheck.catalogue.denoising import bernoulli
from boundcheck.catalogue.objectives import elbo, log_evidence, log_weight, renyi_finite
from boundcheck.language import E, exp, log, total
from boundcheck.search.batch import ModelBatch, Sizes, applicable, exact_rows, margins, needs
from boundcheck.search.falsify import STAGES, _Hunt, falsify
from boundcheck.search.propose import random_batch
from boundcheck.search.reduce import smaller_models, violates

# The smallest total number of states (x + z + x~) for which each false claim is false at all:
# `test_search_minimal.py` proves that it holds for fewer.
SMALLEST = {
    "beta-below-one-below-evidence": 4,
    "dae-below-evidence": 5,
    "denoising-decoupled-below-evidence": 5,
    "denoising-coupled-above-marginal-elbo": 5,
    "denoising-decoupled-below-marginal-elbo": 5,
    "denoising-lemma-1-step": 5,
    "denoising-readings-agree": 5,
    "jvi-below-evidence": 3,
    "diwae-decoupled-below-evidence": 5,
    "diwae-fresh-below-coupled": 5,
    "diwae-coupled-above-marginal-elbo": 5,
    "renyi-negative-above-evidence-anywhere": 3,
    "renyi-finite-negative-above-evidence": 3,
    "renyi-finite-negative-below-evidence": 3,
    "cubo-above-evidence-anywhere": 3,
    "cubo-finite-above-evidence": 3,
    "sivi-without-below-evidence": 5,
    "perturbative-two-below-evidence": 3,
    "vr-max-below-evidence": 3,
    "harmonic-mean-below-evidence": 4,
    "beta-denoising-half-below-evidence": 5,
}


def above(alpha: str, k: int, excess: str):  # type: ignore[no-untyped-def]
    """The K-sample Renyi estimate minus a constant."""
    return lambda m, x: renyi_finite(m, x, alpha, k) - Fraction(excess)


FINITE = [name for name, claim in claims().items() if claim.family == "finite"]
TRUE = [name for name in FINITE if name not in SMALLEST]


def _falls(name: str, seed: int) -> None:
    search = falsify(find(name), seed=seed)
    assert search.witness is not None, f"{name} survived {search.models} models"
    verdict = search.witness.verdict
    assert verdict.outcome is Outcome.VIOLATED
    assert verdict.guarantee in (Guarantee.EXACT, Guarantee.CERTIFIED)
    assert sum(search.witness.model.sizes.values()) == SMALLEST[name]


@pytest.mark.parametrize("name", SMALLEST)
def test_false_claims_fall_to_their_smallest_size(name: str) -> None:
    for seed in range(2):
        _falls(name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_false_claims_fall_from_twenty_seeds(name: str) -> None:
    for seed in range(20):
        _falls(name, seed)


@pytest.mark.parametrize("name", TRUE)
def test_true_claims_stand(name: str) -> None:
    assert not falsify(find(name), budget=1_000, seed=5).found


@pytest.mark.slow
@pytest.mark.parametrize("name", TRUE)
def test_true_claims_stand_a_long_search(name: str) -> None:
    assert not falsify(find(name), seed=11).found


# The K-sample Renyi estimate exceeds log p by at most 3.0e-4, 2.1e-5 and 3.6e-4 nats for these; with K = 11 on about
# 1e-5 of two-state tables drawn from a Dirichlet law. The last two must exceed it by nearly all of that.
NARROW = {
    "K = 12": Claim("narrow", partial(renyi_finite, alpha="-1/20", k=12), "<=", log_evidence),
    "K = 11": Claim("narrow", partial(renyi_finite, alpha="-1/20", k=11), "<=", log_evidence),
    "K = 2": Claim("narrow", partial(renyi_finite, alpha="-1/2", k=2), "<=", log_evidence),
    "K = 2 by 1e-4": Claim("narrow", above("-1/2", 2, "1e-4"), "<=", log_evidence),
    "K = 2 by 3.58e-4": Claim("narrow", above("-1/2", 2, "3.58e-4"), "<=", log_evidence),
    "K = 11 by 2e-5": Claim("narrow", above("-1/20", 11, "2e-5"), "<=", log_evidence),
}


def _narrow_falls(name: str, seed: int) -> None:
    search = falsify(NARROW[name], seed=seed)
    assert search.witness is not None, f"{name} survived {search.models} models"
    assert search.witness.verdict.guarantee is Guarantee.CERTIFIED
    assert search.witness.model.sizes == {"x": 1, "z": 2}


@pytest.mark.parametrize("name", NARROW)
def test_narrow_violations_of_the_finite_renyi_estimate_are_found(name: str) -> None:
    for seed in range(2):
        _narrow_falls(name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", NARROW)
def test_narrow_violations_are_found_from_twenty_seeds(name: str) -> None:
    for seed in range(20):
        _narrow_falls(name, seed)


def test_three_state_models_exceed_the_evidence_by_more_than_a_ten_thousandth() -> None:
    """Found by the evolution among models of exactly three latent states."""
    hunt = _Hunt(NARROW["K = 2 by 1e-4"], np.random.default_rng(0), 10**9, lambda models: None, frozenset(STAGES))
    found = next(filter(None, (hunt.round(Sizes(1, 3), 256) for _ in range(100))))
    assert found.sizes["z"] == 3
    assert violates(NARROW["K = 2 by 1e-4"], found)


def test_a_wrong_objective_of_a_user_falls() -> None:
    def divides_by_k_minus_one(m, x, k):  # type: ignore[no-untyped-def]
        return E(m.encoder(x).copies(k), lambda z: log(total(exp(log_weight(m, x, z))) / (k - 1)))

    search = falsify(Claim("wrong", partial(divides_by_k_minus_one, k=3), "<=", log_evidence))
    assert search.witness is not None
    assert sum(search.witness.model.sizes.values()) == 2  # one state of x and one of z are enough


def test_a_seed_gives_the_same_witness() -> None:
    first, second = (falsify(find("jvi-below-evidence"), seed=3).witness for _ in range(2))
    assert first is not None and second is not None
    assert first.model == second.model


def test_witnesses_have_small_fractions_and_no_needless_zeros() -> None:
    witness = falsify(find("denoising-decoupled-below-evidence")).witness
    assert witness is not None
    entries = [
        Fraction(e) for role in ("prior", "encoder", "corruption") for e in witness.model.table(role).reshape(-1)
    ]
    assert max(entry.denominator for entry in entries) <= 5
    assert min(entries) > 0


def test_the_page_on_the_search_shows_what_happens() -> None:
    page = Path(__file__).parent.parent / "docs" / "search.md"
    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert result.attempted >= 6
    assert result.failed == 0


@pytest.mark.parametrize("budget", [0, -1, 1.5, True, None])
def test_a_budget_that_is_none_is_refused(budget: object) -> None:
    with pytest.raises(BadInput, match="budget"):
        falsify(find("elbo-below-evidence"), budget=budget)  # type: ignore[arg-type]


@pytest.mark.parametrize("stages", [STAGES, ("gradient",)])
def test_a_search_stays_in_its_budget(stages: tuple[str, ...]) -> None:
    told: list[int] = []
    for budget in (1, 10, 333) if stages == STAGES else (2001,):
        search = falsify(find("elbo-below-evidence"), budget=budget, stages=stages, progress=told.append)
        assert not search.found and search.models == told[-1] == budget


# --- at given sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [Sizes(1, 2), Sizes(2, 3)])
def test_a_search_stays_at_its_sizes(sizes: Sizes) -> None:
    search = falsify(find("jvi-below-evidence"), sizes=sizes, seed=1)
    assert search.witness is not None and 0 < search.models <= 2000
    assert search.witness.model.sizes == {"x": sizes.x, "z": sizes.z}


def test_a_claim_that_holds_at_a_size_is_not_broken_there() -> None:
    claim = find("denoising-decoupled-below-evidence")  # with one x~ both readings are the ELBO
    assert not falsify(claim, sizes=Sizes(1, 2, 1), budget=3000).found
    assert falsify(claim, sizes=Sizes(1, 2, 2), budget=3000).found


@pytest.mark.parametrize("sizes", [Sizes(0, 2), Sizes(2, 13), Sizes(1, 2)])
def test_sizes_that_a_claim_cannot_have_are_refused(sizes: Sizes) -> None:
    box = black_box(lambda m, x: 0.0, name="for three", states={"z": 3})
    with pytest.raises(BadInput, match="sizes = "):
        falsify(Claim("mine", box, "<=", log_evidence), sizes=sizes)


def test_a_claim_about_another_family_is_refused() -> None:
    with pytest.raises(BadInput, match="linear-gaussian"):
        falsify(find("ppca-elbo-below-evidence"))


# --- the pieces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FINITE)
def test_batches_agree_with_the_exact_evaluator(name: str) -> None:
    claim = find(name)
    roles = needs(claim)
    sizes = Sizes(2, 3, 2 if "corruption" in roles else 0)
    batch = random_batch(np.random.default_rng(7), sizes, roles, 6, zeros=False)
    loss = margins(claim, batch)
    for i in range(3):
        verdict = check(claim, batch.model(i), 0)
        if np.isnan(loss[i]):
            assert verdict.lhs is None or np.isinf(verdict.margin) or np.isnan(verdict.margin)
        else:
            assert loss[i] == pytest.approx(verdict.margin, abs=1e-8)


@pytest.mark.parametrize("name", ["cubo-above-evidence", "cubo-above-evidence-anywhere"])
def test_models_of_which_a_claim_says_nothing_are_told_apart(name: str) -> None:
    claim = find(name)
    batch = random_batch(np.random.default_rng(0), Sizes(2, 2), needs(claim), 600)
    assert claim.covering == (name == "cubo-above-evidence")
    says = applicable(claim, batch)
    assert says.tolist() == [claim.applies(batch.model(i), 0) for i in range(len(batch))]
    assert not says.all()


def test_dyadic_rows_sum_to_exactly_one() -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(5), size=50)
    for row in exact_rows(rows):
        assert sum(row) == 1
        assert min(row) >= 0


def test_random_batches_are_tables_of_probabilities_with_corners() -> None:
    batch = random_batch(np.random.default_rng(0), Sizes(2, 3, 2), frozenset({"encoder", "auxiliary"}), 2000)
    for table in batch.tables.values():
        assert (table >= 0).all()
    encoder = batch.tables["encoder"]
    assert np.allclose(encoder.sum(axis=-1), 1)
    assert (encoder == 0).any()
    assert (encoder[encoder > 0] < 1e-4).any()
    assert (np.ptp(encoder, axis=1) == 0).all(axis=-1).any(), "no model with equal rows"


def test_smaller_models_have_one_state_fewer() -> None:
    model = FiniteModel(
        prior=["1/2", "1/3", "1/6"],
        likelihood=[["1/2", "1/2"], [1, 0], ["1/4", "3/4"]],
        corruption=[["1/2", "1/4", "1/4"], ["1/3", "1/3", "1/3"]],
        encoder=[["1/3", "1/3", "1/3"], ["1/2", "1/4", "1/4"], [1, 0, 0]],
    )
    total_states = sum(model.sizes.values())
    smaller = list(smaller_models(model, tie_x=False))
    assert {sum(each.sizes.values()) for each in smaller} == {total_states - 1}
    assert {tuple(each.sizes.values()) for each in smaller} == {(2, 2, 3), (1, 3, 3), (2, 3, 2)}


def test_a_float_violation_alone_is_not_a_violation() -> None:
    assert not violates(Claim("true", elbo, "<=", log_evidence), bernoulli())  # no q(z|x): an error, not a violation
    assert violates(find("denoising-decoupled-below-evidence"), bernoulli())


def test_a_batch_names_a_missing_table() -> None:
    batch = ModelBatch(Sizes(1, 2), {"prior": np.full((1, 2), 0.5), "likelihood": np.ones((1, 2, 1))})
    with pytest.raises(BadInput, match="encoder"):
        margins(Claim("elbo", elbo, "<=", log_evidence), batch)
