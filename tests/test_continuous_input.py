"""What a user may hand to a continuous model by mistake, and the fast path of quadrature on normal draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from boundcheck import evaluate
from boundcheck.catalogue import objectives as O
from boundcheck.errors import BadInput, CannotCompute
from boundcheck.evaluators import quadrature
from boundcheck.evaluators.values import Approximate
from boundcheck.models import arithmetic as F
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import Laplace, Mixture, Normal


def model(**changed: Any) -> ContinuousModel:
    laws: dict[str, Any] = {
        "prior": Normal(0, 1),
        "likelihood": lambda z: Normal(0.8 * z, 0.7),
        "encoder": lambda x: Normal(0.4 * x + 0.1, 0.6),
        "corruption": lambda x: Normal(x, 0.5),
    }
    return ContinuousModel(**(laws | changed))


@pytest.mark.parametrize("value", ["abc", None, True, [1, 2], 1j, math.nan, math.inf, "1/0", np.array([0.0, np.nan])])
def test_what_is_no_finite_number_is_refused_by_name(value: Any) -> None:
    with pytest.raises(BadInput, match="location"):
        Laplace(value, 1)
    with pytest.raises(BadInput, match="scale"):
        Laplace(0, value)


@pytest.mark.parametrize("value", [0, "0", -1, 0.0, np.array([1.0, 0.0]), np.array([1.0, np.inf])])
def test_scales_that_have_no_density(value: Any) -> None:
    with pytest.raises(BadInput, match="scale"):
        Normal(0, value)


def failing(z: Any) -> Normal:
    return Normal(1 / 0, 1)


def no_array(z: Any) -> Normal:
    return Normal(math.exp(z), 1)


def branching(z: Any) -> Normal:
    return Normal(z if z > 0 else 0, 1)


@pytest.mark.parametrize("likelihood", [failing, no_array, branching])
def test_functions_that_fail_are_named(likelihood: Any) -> None:
    with pytest.raises(BadInput, match="likelihood as a function"):
        evaluate(O.elbo, model(likelihood=likelihood), 0.4)


def test_a_vector_for_a_number_is_named() -> None:
    with pytest.raises(BadInput, match="encoder as a function"):
        evaluate(O.elbo, model(), (0.4, 1.0))


def test_scales_that_overflow_in_the_tails_are_no_mistake() -> None:
    """exp(x~) under a normal x~: infinite somewhere, but not where the mass is."""
    wild = model(encoder=lambda x: Normal(x / 2, F.exp(x / 2) / 2))
    # E of the normal entropy and of the quadratic energy, by hand: x~ ~ N(0.4, 0.25), and E exp(x~) = exp(0.4 + 1/8).
    m, second = 0.2, 0.2**2 + 0.25 * 0.25 + math.exp(0.4 + 0.125) / 4
    entropy = 0.5 * math.log(2 * math.pi) + 0.5 + 0.2 - math.log(2)
    prior = -0.5 * second - 0.5 * math.log(2 * math.pi)
    fit = -0.5 * (0.16 - 2 * 0.4 * 0.8 * m + 0.64 * second) / 0.49 - math.log(0.7) - 0.5 * math.log(2 * math.pi)
    value = quadrature.evaluate(O.denoising_coupled, wild, 0.4)
    assert float(value) == pytest.approx(prior + fit + entropy, abs=max(1e-9, value.error))
    for zero in (lambda x: Normal(x, 0 * x), lambda x: Normal(x, 0 * x + 0.0)):
        with pytest.raises(BadInput, match="scale"):
            quadrature.evaluate(O.denoising_coupled, model(encoder=zero), 0.4)


def test_encoders_that_are_mixtures_placed_by_normal_noise() -> None:
    mixed = model(encoder=lambda x: Mixture(("1/4", "3/4"), (Normal(x - 1, 1), Normal(x + 1, 1))))
    value = quadrature.evaluate(O.denoising_coupled, mixed, 0.4)
    assert value.error < 1e-8
    assert float(value) < float(evaluate(O.log_evidence, mixed, 0.4))


def test_normal_draws_take_the_fixed_rules() -> None:
    for objective, of in ((O.denoising_decoupled, {}), (O.marginal_elbo, {})):
        value, slow = evaluate(objective, model(), 0.4, **of), quadrature.evaluate(objective, model(), 0.4, **of)
        assert isinstance(value, Approximate)
        assert abs(float(value) - float(slow)) <= value.error + slow.error
    more = evaluate(O.sivi, model(), 0.4, k=2)
    with pytest.raises(CannotCompute):
        quadrature.evaluate(O.sivi, model(), 0.4, k=2)
    assert float(evaluate(O.sivi, model(), 0.4, k=1)) < float(more) < float(evaluate(O.marginal_elbo, model(), 0.4))


@pytest.mark.parametrize("far", [1e300, -1e300])
def test_what_no_rule_resolves_has_no_value(far: float) -> None:
    """A prior at 1e300 leaves no density in float64; that is a refusal, not minus infinity."""
    with pytest.raises(CannotCompute):
        evaluate(O.log_evidence, model(prior=Normal(far, 1)), 0.4)
