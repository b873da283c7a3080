"""Laws so narrow, or so far out, that floats have no room for their nodes: an evaluator cannot tell, and says so."""

from __future__ import annotations

import math

import pytest

from boundcheck.catalogue.objectives import cubo, elbo, log_evidence, vr_max
from boundcheck.errors import BoundcheckError, CannotCompute
from boundcheck.evaluators import gauss_hermite, integration, quadrature
from boundcheck.evaluators.values import Enclosure
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import BernoulliLogit, Logistic, Normal, StudentT


def narrow(mean: float, scale: float) -> ContinuousModel:
    return ContinuousModel(Normal(0, 1), lambda z: Normal(z, 1), lambda v: Normal(mean, scale))


def elbo_of(mean: float, scale: float, x: float) -> float:
    fit = -math.log(2 * math.pi) - (mean * mean + (x - mean) ** 2 + 2 * scale * scale) / 2
    return fit + math.log(scale) + (1 + math.log(2 * math.pi)) / 2


@pytest.mark.parametrize("mean", [0.25, 1000.0, 1 / 3])
@pytest.mark.parametrize("scale", [2.0**-k for k in range(20, 70, 7)] + [1e-300, 1e-320])
def test_an_encoder_narrower_than_floats_is_right_or_not_told(mean: float, scale: float) -> None:
    truth = elbo_of(mean, scale, 0.5)
    for evaluator in (quadrature, gauss_hermite):
        try:
            value = evaluator.evaluate(elbo, narrow(mean, scale), x=0.5)
        except CannotCompute:
            continue
        assert abs(value.value - truth) <= value.error + 1e-9, (evaluator, value, truth)
        assert scale > 2.0**-45 * mean or value.error > 1


def test_a_prior_of_subnormal_scale_owns_up_to_the_rounding_of_its_nodes() -> None:
    model = ContinuousModel(Normal(0, 1e-320), lambda z: Normal(z, 1))
    value = quadrature.evaluate(log_evidence, model, x=0.5)
    assert abs(value.value + 0.125 + math.log(2 * math.pi) / 2) <= value.error


@pytest.mark.parametrize("scale", [0.4, 0.5])
def test_a_divergent_bound_is_infinite_or_refused_but_no_number(scale: float) -> None:
    """E_q w^2 diverges if the proposal's variance is at most half the posterior's; at 1/2 the tail is flat."""
    model = ContinuousModel(Normal(0, 1), lambda z: Normal(z, 1), lambda v: Normal(v / 2, scale))
    for evaluator in (quadrature, gauss_hermite, integration):
        try:
            value = evaluator.evaluate(cubo, model, x=0.5, n=2)
        except CannotCompute as error:
            assert "diverges" in str(error)
            continue
        if isinstance(value, Enclosure):
            assert not value.ball.is_finite()
        else:
            assert value.value == math.inf or math.isinf(value.error)


def test_a_light_proposal_for_a_heavy_posterior_diverges() -> None:
    model = ContinuousModel(StudentT(3, 0, 1), lambda z: BernoulliLogit(z), lambda v: Logistic(0, 1))
    assert quadrature.evaluate(cubo, model, x=1, n=2).value == math.inf


@pytest.mark.parametrize("big", [1e300, -1e300, 1e160])
def test_huge_parameters_end_in_a_refusal_or_an_infinite_error(big: float) -> None:
    prior = ContinuousModel(Normal(big, 1), lambda z: Normal(z, 1), lambda v: Normal(0, 1))
    encoder = ContinuousModel(Normal(0, 1), lambda z: Normal(z, 1), lambda v: Normal(big, 1))
    for formula, model in ((log_evidence, prior), (elbo, encoder)):
        for evaluator in (quadrature, gauss_hermite):
            try:
                value = evaluator.evaluate(formula, model, x=0.5)
            except BoundcheckError:
                continue
            assert math.isinf(value.error)


def test_the_maximum_over_copies_is_refused_or_not_told() -> None:
    model = narrow(0.25, 0.75)
    for evaluator in (quadrature, integration):
        with pytest.raises(CannotCompute, match="2 copies"):
            evaluator.evaluate(vr_max, model, x=0.5, k=2)
    assert math.isinf(gauss_hermite.evaluate(vr_max, model, x=0.5, k=2).error)
