"""What Hypothesis draws is a model, meets its corners, and shrinks to few states and simple fractions."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from hypothesis import find as smallest
from hypothesis import given, settings

from boundcheck import BadInput, BoundcheckError, Claim, FiniteModel, Outcome, check, check_model, find
from boundcheck.catalogue.objectives import elbo, log_evidence, renyi
from boundcheck.models import LinearGaussianModel
from boundcheck.search.corners import corners_of
from boundcheck.strategies import (
    CONTINUOUS_CORNERS,
    CORNERS,
    LINEAR_GAUSSIAN_CORNERS,
    alphas,
    betas,
    continuous_models,
    copies,
    data_density_models,
    finite_models,
    linear_gaussian_models,
    probabilities,
    relaxed_bernoulli_models,
)
from boundcheck.testing import RECORDS, assert_bound, coverage

EVERY = settings(max_examples=300, derandomize=True, database=None)


# --- what is drawn -------------------------------------------------------------------------------------------------


@settings(max_examples=40, derandomize=True)
@given(finite_models(latent=3, corruption=3, auxiliary=True))
def test_finite_models_are_models(model: FiniteModel) -> None:
    assert 1 <= model.sizes["z"] <= 3
    assert model.sizes["x"] == model.sizes["x~"]
    assert check_model(find("hvm-below-evidence"), model).verdict.outcome is not Outcome.VIOLATED


@settings(max_examples=60, derandomize=True)
@given(finite_models(latent=(2, 4), corruption=(2, 3), observed=(1, 2), clean_encoder=False, zeros=False))
def test_sizes_are_kept_to(model: FiniteModel) -> None:
    sizes = model.sizes
    assert 2 <= sizes["z"] <= 4 and 2 <= sizes["x~"] <= 3 and 1 <= sizes["x"] <= 2
    drawn = [model.table(role) for role in ("prior", "likelihood", "encoder")]
    assert all((table > 0).all() for table in drawn) and not corners_of(model)["zeros"]


def test_every_corner_is_met() -> None:
    """Over 300 examples; a corner is drawn on purpose with probability 1/11, so one is missed with p < 1e-10."""
    seen: Counter[str] = Counter()

    @EVERY
    @given(finite_models(latent=3, corruption=3, auxiliary=True))
    def collect(model: FiniteModel) -> None:
        seen.update(name for name, met in corners_of(model).items() if met)

    collect()
    wanted = {*CORNERS} - {"encoder is the prior"}
    assert wanted <= seen.keys(), wanted - seen.keys()
    assert min(seen[name] for name in wanted) >= 3, seen


@pytest.mark.parametrize("corner", CORNERS)
def test_a_corner_can_be_asked_for(corner: str) -> None:
    """Recognised by what the tables are, not by how they were drawn."""

    @settings(max_examples=15, derandomize=True, database=None)
    @given(finite_models((2, 3), (2, 3), auxiliary=True, zeros=False, corners=[corner]))
    def look(model: FiniteModel) -> None:
        prior, joint, encoder = model.table("prior"), model.table("joint"), model.table("encoder")
        corruption, auxiliary = model.table("corruption"), model.table("auxiliary")
        mirrored = (encoder[0] == encoder[1][::-1]).all()
        small = Fraction(1, 10**6)
        truth = {
            "equal rows": (model.table("likelihood") == model.table("likelihood")[0]).all(),
            "encoder ignores its input": (encoder == encoder[0]).all(),
            "symmetric tables": mirrored,
            "encoder is the posterior": all((encoder[x] * joint[x].sum() == joint[x]).all() for x in range(len(joint))),
            "encoder is the prior": (encoder == prior).all(),
            "zeros": not encoder[:, 0].any() and not model.table("likelihood")[-1, 0],
            "nearly deterministic rows": all(Fraction(99, 100) < max(row) < 1 for row in encoder),
            "tiny probabilities": prior[0] == small and (encoder[:, -1] == small).all(),
            "nothing is corrupted": all(corruption[i, i] == 1 for i in range(len(corruption))),
            "auxiliary is the corruption": all((table == corruption).all() for table in auxiliary),
        }[corner]
        assert truth
        told = corners_of(model)
        if corner in told and corner != "symmetric tables":  # a row that is its own mirror image is no corner
            assert told[corner]

    look()


def test_continuous_corners_are_met_and_recognised() -> None:
    for strategy, wanted in (
        (linear_gaussian_models(corruption=True, auxiliary=True), LINEAR_GAUSSIAN_CORNERS),
        (continuous_models(), CONTINUOUS_CORNERS),
    ):
        seen: Counter[str] = Counter()

        @settings(max_examples=150, derandomize=True, database=None)
        @given(strategy)
        def collect(case: Any) -> None:
            seen.update(name for name, met in corners_of(*case).items() if met)  # noqa: B023

        collect()
        assert set(wanted) <= seen.keys(), set(wanted) - seen.keys()


@settings(max_examples=25, derandomize=True)
@given(linear_gaussian_models(latent=2, data=2))
def test_linear_gaussian_models_keep_the_elbo_below_the_evidence(case: tuple[LinearGaussianModel, list[float]]) -> None:
    model, x = case
    assert model.latent_dimension <= 2 and len(x) == model.data_dimension <= 2
    verdict = check(Claim("elbo", elbo, "<=", log_evidence), model, x)
    assert verdict.outcome is not Outcome.VIOLATED
    if corners_of(model, x)["encoder is the posterior"]:
        assert verdict.margin == pytest.approx(0, abs=1e-9)


@settings(max_examples=4, derandomize=True)
@given(continuous_models(), relaxed_bernoulli_models(), data_density_models())
def test_continuous_models_can_be_judged(any_case: Any, relaxed: Any, data: Any) -> None:
    for case in (any_case, relaxed):
        assert check(Claim("elbo", elbo, "<=", log_evidence), *case).outcome is not Outcome.VIOLATED
    assert check(find("uniform-dequantisation-below-mass"), *data).outcome is not Outcome.VIOLATED


def test_parameters_are_in_their_ranges_and_meet_both_sides_of_their_special_values() -> None:
    seen: set[str] = set()

    @EVERY
    @given(alphas(), betas(), copies(5))
    def collect(alpha: Fraction, beta: Fraction, k: int) -> None:
        assert -3 <= alpha <= 4 and 0 <= beta <= 8 and 1 <= k <= 5
        assert max(alpha.denominator, beta.denominator) <= 100
        seen.add("0" if not alpha else "1" if alpha == 1 else "<0" if alpha < 0 else "<1" if alpha < 1 else ">1")
        seen.add("near" if 0 < abs(alpha - 1) < Fraction(1, 10) else "far")
        seen.add("beta<1" if beta < 1 else "beta>=1")

    collect()
    assert seen >= {"0", "1", "<0", "<1", ">1", "near", "beta<1", "beta>=1"}


# --- shrinking: few states, simple fractions -----------------------------------------------------------------------


def refutes(claim: Claim) -> Any:
    def test(model: FiniteModel) -> bool:
        try:
            return check_model(claim, model).verdict.outcome is Outcome.VIOLATED
        except BoundcheckError:
            return False

    return test


def minimal(strategy: Any, test: Any, seed: int = 0) -> Any:
    shrinking = settings(max_examples=2000, database=None, deadline=None)
    return smallest(strategy, test, settings=shrinking, random=random.Random(seed))


def denominators(model: FiniteModel) -> int:
    roles = ("prior", "likelihood", *(role for role in model.roles if role != "joint"))
    return max(entry.denominator for role in roles for entry in model.table(role).reshape(-1))


def test_rows_shrink_to_simple_fractions() -> None:
    assert [str(p) for p in minimal(probabilities(3), lambda row: row[2] > row[0])] == ["1/4", "1/4", "1/2"]
    assert [str(p) for p in minimal(probabilities(3), lambda row: 0 in row)] == ["1/2", "1/2", "0"]
    assert minimal(probabilities(2), lambda row: max(row) > Fraction(9, 10))[1] <= Fraction(100, 101)


@pytest.mark.parametrize("states", [1, 2, 3])
def test_models_shrink_to_no_more_states_than_are_needed(states: int) -> None:
    model = minimal(finite_models(3, 2, 2, auxiliary=True), lambda model: model.sizes["z"] >= states)
    assert model.sizes == {"x": 1, "z": states, "x~": 1}
    assert {entry for entry in model.table("prior").reshape(-1)} == {Fraction(1, states)}


@pytest.mark.parametrize("name", ["vr-max-below-evidence", "cubo-finite-above-evidence"])
def test_a_counterexample_shrinks_to_two_states_and_thirds(name: str) -> None:
    """As in the tables of a paper: the quality of shrinking is itself tested."""
    model = minimal(finite_models(3), refutes(find(name)))
    assert model.sizes == {"x": 1, "z": 2}
    assert denominators(model) <= 4


def test_a_counterexample_with_a_corruption_shrinks_to_simple_fractions() -> None:
    model = minimal(finite_models(3, 2), refutes(find("denoising-decoupled-below-evidence")), 1)
    assert model.sizes["x~"] == 2 and model.sizes["z"] <= 3
    assert denominators(model) <= 12


def test_continuous_models_shrink_to_standard_laws() -> None:
    model, x = minimal(linear_gaussian_models(), lambda case: case[0].law("encoder").offset.any())
    assert (model.latent_dimension, model.data_dimension, x) == (1, 1, [0.0])
    assert model.law("likelihood").covariance.tolist() == [[1.0]] and not model.law("likelihood").matrices[0].any()
    assert abs(model.law("encoder").offset[0]) == 0.25
    model, x = minimal(continuous_models(), lambda case: case[1] > 0)
    assert str(model.prior) == "Normal(mean=0.0, scale=1.0)" and x in (0.25, 1)


def test_parameters_shrink_to_the_simplest() -> None:
    assert (minimal(alphas(), bool), minimal(betas(), lambda b: b > 1), minimal(copies(), bool)) == (1, 2, 1)


# --- coverage ------------------------------------------------------------------------------------------------------


def test_coverage_counts_models_by_corner() -> None:
    @settings(max_examples=80, derandomize=True, database=None)
    @given(finite_models(latent=2, observed=(2, 2)), alphas().filter(lambda alpha: 0 < alpha < 1))
    def bound(model: FiniteModel, alpha: Fraction) -> None:
        assert_bound(partial(renyi, alpha=alpha), "<=", log_evidence, model, name="coverage of renyi")

    bound()
    record = RECORDS["coverage of renyi"]
    assert record.models == 80 and record.verdict in ("held", "undecided")
    met = coverage("coverage of renyi")
    assert met["zeros"] > 0 and met["equal rows"] > 0 and sum(met.values()) < 8 * 80
    assert max(met.values()) <= record.models
    with pytest.raises(BadInput, match="asserted"):
        coverage("nobody's claim")


def test_a_corner_that_was_not_met_is_told() -> None:
    model = FiniteModel(prior=["1/2", "1/2"], likelihood=[["1/2", "1/2"], ["1/3", "2/3"]], encoder=[["1/4", "3/4"]] * 2)
    assert_bound(elbo, "<=", log_evidence, model, name="one plain model")
    record = RECORDS["one plain model"]
    assert record.missed == [name for name, met in corners_of(model).items() if not met]
    assert "encoder ignores its input" not in record.missed
    assert record.lines()[-1] == f"corners not met: {', '.join(record.missed)}"


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"latent": 0},
        {"corruption": -1},
        {"observed": 1.5},
        {"auxiliary": True},
        {"latent": (3, 2)},
        {"latent": (0, 2)},
        {"corners": ["squares"]},
        {"latent": True},
    ],
    ids=repr,
)
def test_bad_sizes_and_corners_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        smallest(finite_models(**bad), lambda model: True)


def test_bad_dimensions_are_refused() -> None:
    for bad in ({"latent": 0}, {"data": 0}, {"auxiliary": True}):
        with pytest.raises(BadInput):
            smallest(linear_gaussian_models(**bad), lambda case: True)  # type: ignore[arg-type]
    with pytest.raises(BadInput):
        copies(0)
