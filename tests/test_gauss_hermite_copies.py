"""Copies on Gauss rules through one integral: against multisets, sums over tables, and certified pairs."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest

from boundcheck.catalogue import objectives
from boundcheck.evaluators import gauss_hermite, strongest
from boundcheck.evaluators.gauss_hermite_copies import expected_log_sum
from boundcheck.evaluators.values import Approximate, Enclosure
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import BernoulliLogit, Logistic, Normal
from boundcheck.models.linear_gaussian import LinearGaussianModel


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_integral_is_the_sum_over_all_draws_of_a_small_law(k: int) -> None:
    rng = np.random.default_rng(k)
    for spread in (0.1, 3.0, 30.0):
        weight, log_a = rng.dirichlet(np.ones(4)), rng.normal(-50.0, spread, size=4)
        exact = math.fsum(
            math.prod(weight[list(rows)]) * np.logaddexp.reduce(log_a[list(rows)])
            for rows in itertools.product(range(4), repeat=k)
        )
        assert abs(float(expected_log_sum(np.log(weight), log_a, k)) - exact) < 1e-12 * max(1.0, abs(exact))


def test_many_copies_are_the_logarithm_of_their_mean_in_the_limit() -> None:
    weight, a = np.array([0.3, 0.7]), np.array([1.0, 2.0])
    k = 10**6
    value = float(expected_log_sum(np.log(weight), np.log(a), k)) - math.log(k)
    mean, variance = float(weight @ a), float(weight @ a**2 - (weight @ a) ** 2)
    assert abs(value - (math.log(mean) - variance / (2 * k * mean**2))) < 1e-10


def test_copies_that_may_all_be_zero_have_the_logarithm_minus_infinity() -> None:
    log_weight, log_a = np.log([[0.5, 0.5], [0.5, 0.5]]), np.array([[0.0, 0.0], [-math.inf, 1.0]])
    found = expected_log_sum(log_weight, log_a, 3)
    assert found[0] == -math.inf and math.isfinite(found[1])
    nowhere = np.array([[0.0], [-math.inf]])  # a zero that is never drawn does not count
    assert abs(float(expected_log_sum(nowhere, np.array([[0.0], [-math.inf]]), 2)[0]) - math.log(2)) < 1e-12


def test_outer_axes_are_each_their_own() -> None:
    rng = np.random.default_rng(0)
    log_weight, log_a = np.log(rng.dirichlet(np.ones(3), size=4)).T, rng.normal(size=(3, 4))
    together = expected_log_sum(log_weight, log_a, 3)
    assert np.allclose(
        together, [float(expected_log_sum(log_weight[:, i], log_a[:, i], 3)) for i in range(4)], atol=1e-13
    )


PRECISE = ((0.5, 0.8), (0.2, 0.9), (-0.3, 0.7))


def gaussian(dimensions: int) -> tuple[ContinuousModel, LinearGaussianModel, tuple[float, ...]]:
    """z ~ N(0, I), x | z ~ N(sum of z, 1), and an encoder that is not the posterior."""
    places = PRECISE[:dimensions]
    model = ContinuousModel(
        [Normal(0, 1)] * dimensions,
        lambda z: Normal(sum(z), 1),
        encoder=lambda x: [Normal(slope * x, scale) for slope, scale in places],
    )
    linear = LinearGaussianModel(
        prior=([0] * dimensions, 1),
        likelihood=([[1] * dimensions], 0, 1),
        encoder=([[slope] for slope, _ in places], 0, [scale * scale for _, scale in places]),
    )
    return model, linear, (0.75,)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_pairs_agree_with_the_certified_integral_of_a_linear_gaussian_model(dimensions: int) -> None:
    model, linear, x = gaussian(dimensions)
    for formula in (partial(objectives.iwae, k=2), partial(objectives.renyi_finite, alpha="1/2", k=2)):
        value = gauss_hermite.evaluate(formula, model, x[0], nodes=16)
        truth = strongest.evaluate(formula, linear, np.array(x))
        assert isinstance(truth, Enclosure) and float(truth.ball.rad()) < 1e-10
        assert abs(float(value) - float(truth)) <= value.error + float(truth.ball.rad())
        assert value.error < 1e-6


def test_three_latent_dimensions_and_many_copies_are_evaluated() -> None:
    """IWAE_K rises with K and stays below log p(x), and one rule's value is the other's within the error."""
    model = ContinuousModel(
        [Normal(0, 1)] * 3,
        lambda z: [BernoulliLogit(z[0] + z[1] + z[2]), BernoulliLogit(z[0] - z[1] / 2)],
        encoder=lambda x: [Normal((x[0] - 0.5) / 2, 0.9), Normal(0.1 * x[1], 0.8), Normal(0, 0.9)],
    )
    values = [strongest.evaluate(partial(objectives.iwae, k=k), model, (1, 0)) for k in (1, 2, 5, 50)]
    ceiling = strongest.evaluate(objectives.log_evidence, model, (1, 0))
    for below, above in itertools.pairwise([*values, ceiling]):
        assert float(below) + below.error < float(above) - above.error  # type: ignore[union-attr]
    other = gauss_hermite.evaluate(partial(objectives.iwae, k=5), model, (1, 0), nodes=11)
    assert abs(float(other) - float(values[2])) <= other.error + values[2].error  # type: ignore[union-attr]


def test_a_logistic_prior_in_three_dimensions_goes_to_the_fixed_rules_where_panels_end() -> None:
    """Against plain Monte Carlo of 10^6 pairs: within 6 standard errors and the claimed error."""
    model = ContinuousModel(
        [Logistic(0, 1)] * 3,
        lambda z: BernoulliLogit(z[0] + z[1] - z[2] / 2),
        encoder=lambda x: [Normal(0.3 * x, 1.4), Normal(0, 1.5), Normal(0, 1.6)],
    )
    value = strongest.evaluate(partial(objectives.iwae, k=2), model, 1)
    rng = np.random.default_rng(0)
    places, scales = np.array([0.3, 0.0, 0.0]), np.array([1.4, 1.5, 1.6])
    noise = rng.standard_normal((1_000_000, 2, 3))
    z = places + scales * noise
    prior = (-np.abs(z) - 2 * np.log1p(np.exp(-np.abs(z)))).sum(-1)
    likelihood = -np.logaddexp(0.0, -(z[..., 0] + z[..., 1] - z[..., 2] / 2))
    encoder = (-0.5 * noise**2 - np.log(scales) - 0.5 * math.log(2 * math.pi)).sum(-1)
    draws = np.logaddexp.reduce(prior + likelihood - encoder, axis=1) - math.log(2)
    error = float(draws.std()) / 1000
    assert isinstance(value, Approximate) and value.error < 1e-4
    assert abs(float(value) - float(draws.mean())) < 6 * error + value.error
