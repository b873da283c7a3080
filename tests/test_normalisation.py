"""Normalisation: laws of models, densities of a user, and samplers; right ones are never refuted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from boundcheck import BadInput, FiniteModel, Outcome
from boundcheck.claims.normalisation import check_density, check_law, check_sampler
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import BernoulliLogit, Binomial, Normal, StudentT
from boundcheck.models.linear_gaussian import LinearGaussianModel


def normal(mean: float, scale: float):  # type: ignore[no-untyped-def]
    return lambda v: -0.5 * ((v - mean) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)


@pytest.mark.parametrize("role", ["prior", "encoder", "posterior", "corruption"])
def test_laws_of_a_finite_model_are_normalised_exactly(role: str) -> None:
    model = FiniteModel(
        prior=["1/3", "2/3"],
        likelihood=[["1/2", "1/2"], ["1/4", "3/4"]],
        encoder=[["1/5", "4/5"], [0, 1]],
        corruption=[["1/2", "1/2"], ["1/3", "2/3"]],
    )
    assert str(check_law(role, model, 1)) == "holds (exact)"  # type: ignore[arg-type]


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(BadInput, match="role"):
        check_law("joint", FiniteModel(prior=[1], likelihood=[[1]]))  # type: ignore[arg-type]


def test_decoders() -> None:
    assert str(check_law("likelihood", FiniteModel(prior=[1], likelihood=[["1/3", "2/3"]]))) == "holds (exact)"
    for right in (lambda z: Normal(z, 1), lambda z: [BernoulliLogit(z), Binomial(3, z)], lambda z: StudentT(3, z, 2)):
        verdict = check_law("likelihood", ContinuousModel(Normal(0, 1), right), 0.4)
        assert verdict.outcome is Outcome.UNDECIDED
        assert "1.0000000" in verdict.reason
        assert abs(verdict.margin) < 1e-12
    linear = LinearGaussianModel(prior=(0, 1), likelihood=(2, 0, "0.5"))
    assert check_law("likelihood", linear, 0.4).outcome is Outcome.UNDECIDED


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("mean", [0.0, 3.0, -700.0])
def test_right_densities_are_not_refuted(mean: float, scale: float) -> None:
    verdict = check_density(normal(mean, scale), breaks=[mean - 8 * scale, mean, mean + 8 * scale])
    assert verdict.outcome is not Outcome.VIOLATED
    assert abs(verdict.margin) < 1e-9


def test_a_narrow_density_that_is_stepped_over_is_not_refuted() -> None:
    verdict = check_density(normal(37.123, 1e-6))
    assert verdict.outcome is Outcome.UNDECIDED


def test_too_much_mass_is_refuted_and_too_little_is_told() -> None:
    too_much = check_density(lambda v: normal(0, 1)(v) + 0.01)
    assert too_much.outcome is Outcome.VIOLATED
    too_little = check_density(lambda v: normal(0, 1)(v) - 0.01)
    assert too_little.outcome is Outcome.UNDECIDED
    assert "0.99005" in too_little.reason


def test_densities_on_an_interval() -> None:
    assert check_density(lambda v: np.zeros_like(v), support=(0, 1)).margin == pytest.approx(0, abs=1e-12)
    assert check_density(lambda v: np.zeros_like(v), support=(0, 2)).outcome is Outcome.VIOLATED


def test_a_density_that_is_nan_is_refused() -> None:
    with pytest.raises(BadInput, match="log_density"):
        check_density(lambda v: v * np.nan)
    with pytest.raises(BadInput, match="support"):
        check_density(normal(0, 1), support=(1, 1))


def test_right_samplers_are_never_refuted() -> None:
    """60 right samplers at alpha = 1e-9 each: a false alarm in one run in 1.6e7."""
    rng = np.random.default_rng(1)
    for _ in range(60):
        mean, scale = rng.normal(), np.exp(rng.normal())
        draws = rng.normal(mean, scale, size=400)
        assert check_sampler(draws, normal(mean, scale), alpha=1e-9).outcome is Outcome.UNDECIDED


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.normal(0, 1.3, size=4000),
        lambda rng: rng.normal(0.3, 1, size=4000),
        lambda rng: rng.laplace(0, 1, size=4000),
        lambda rng: np.zeros(400),
    ],
    ids=["wrong scale", "wrong mean", "wrong law", "a constant"],
)
def test_wrong_samplers_are_refuted(draw) -> None:  # type: ignore[no-untyped-def]
    verdict = check_sampler(draw(np.random.default_rng(2)), normal(0, 1))
    assert verdict.outcome is Outcome.VIOLATED
    assert verdict.error_probability == 1e-6


def test_bad_draws_are_refused() -> None:
    with pytest.raises(BadInput, match="finite"):
        check_sampler([0.0, math.nan], normal(0, 1))
    with pytest.raises(BadInput, match="draws"):
        check_sampler([0.0, 1.0], normal(0, 1))
    with pytest.raises(BadInput, match="support"):
        check_sampler(np.full(100, -1.0), lambda v: -v, support=(0, math.inf))
