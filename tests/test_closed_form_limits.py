"""The closed-form evaluator at its limits: divergence, rounding, formulas of the user's own, and bad input."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from gaussian_models import EVERY_FORMULA, OneDimension, ill_conditioned, random_model, value
from scipy.special import logsumexp

from boundcheck.catalogue import objectives as o
from boundcheck.errors import BadInput, CannotCompute, FormulaError, UndefinedValue
from boundcheck.evaluators import closed_form
from boundcheck.evaluators.quadratic import WithinRounding
from boundcheck.evaluators.tracked import Floating
from boundcheck.language import (
    E,
    density,
    exp,
    integrate,
    kl,
    log,
    log_mean_exp,
    maximum,
    mean,
    mixture,
    normalised,
    total,
    trace,
)
from boundcheck.models.linear_gaussian import LinearGaussianModel


@pytest.fixture(scope="module")
def one() -> OneDimension:
    return OneDimension()


# --- the user's own formulas ---------------------------------------------------------------------------------------


def test_variables_of_one_dimension_are_numbers(one: OneDimension) -> None:
    center = one.a * one.x + one.c
    assert value(lambda m, x: E(m.encoder(x), lambda z: z), one.model, one.x) == pytest.approx(center)
    squared = value(lambda m, x: E(m.encoder(x), lambda z: (z - x) ** 2), one.model, one.x)
    assert squared == pytest.approx(one.q + (center - one.x) ** 2)
    product = value(lambda m, x: E(m.encoder(x), lambda z: 3 * z * (2 * z - 1)), one.model, one.x)
    assert product == pytest.approx(6 * (one.q + center**2) - 3 * center)
    moment = value(lambda m, x: log(E(m.encoder(x), lambda z: exp(2 * z))), one.model, one.x)
    assert moment == pytest.approx(2 * center + 2 * one.q)


def test_laws_built_in_the_formula(one: OneDimension) -> None:
    def kernel(m: Any, z: Any) -> Any:
        log_root_pi = log(integrate(m.latent, lambda v: exp(-((v - z / 2) ** 2))))
        return density(m.latent, lambda v: -((v - z / 2) ** 2) - log_root_pi)

    def after_a_step(m: Any, x: Any) -> Any:
        return E(m.encoder(x), lambda z: E(kernel(m, z), lambda v: v * v))

    center = (one.a * one.x + one.c) / 2
    assert value(after_a_step, one.model, one.x) == pytest.approx(center**2 + one.q / 4 + 0.5)
    mixed = value(lambda m, x: E(mixture(m.encoder(x), lambda z: kernel(m, z)), lambda v: v * v), one.model, one.x)
    assert mixed == pytest.approx(center**2 + one.q / 4 + 0.5)
    with pytest.raises(BadInput, match="total mass 1"):
        value(lambda m, x: E(density(m.latent, lambda v: -(v**2)), lambda v: v), one.model, one.x)


def test_averages_over_copies_that_are_linear(one: OneDimension) -> None:
    elbo = value(o.elbo, one.model, one.x)
    weight = o.log_weight
    assert value(lambda m, x: E(m.encoder(x).copies(7), lambda z: mean(weight(m, x, z))), one.model, one.x) == elbo
    summed = value(lambda m, x: E(m.encoder(x).copies(7), lambda z: total(weight(m, x, z))), one.model, one.x)
    assert summed == pytest.approx(7 * elbo)


@pytest.mark.parametrize(
    "formula",
    [
        lambda m, x: E(m.encoder(x).copies(3), lambda z: mean(z) * mean(z)),
        lambda m, x: E(m.encoder(x).copies(3), lambda z: mean(z) ** 2),
        lambda m, x: E(m.encoder(x).copies(3), lambda z: log_mean_exp(z)),
        lambda m, x: E(m.encoder(x).copies(3), lambda z: log(integrate(m.latent, lambda v: exp(mean(z * z) - v * v)))),
        lambda m, x: log(E(m.encoder(x).copies(3), lambda z: exp(mean(z)))),
        # Here the mean is also averaged on its own, which is fine, before it is used in an exponential.
        lambda m, x: E(
            m.encoder(x).copies(3),
            lambda z: mean(z * z) + log(integrate(m.latent, lambda v: exp(mean(z * z) - v * v))),
        ),
    ],
)
def test_functions_of_copies_that_are_not_linear_are_refused(one: OneDimension, formula: Any) -> None:
    with pytest.raises(CannotCompute):
        value(formula, one.model, one.x)


def test_finished_numbers_may_be_put_to_any_use(one: OneDimension) -> None:
    evidence, elbo = value(o.log_evidence, one.model, one.x), value(o.elbo, one.model, one.x)

    def both(m: Any, x: Any) -> Any:
        return log(exp(o.log_evidence(m, x)) + exp(o.elbo(m, x)))

    assert value(both, one.model, one.x) == pytest.approx(logsumexp([evidence, elbo]))
    # At x = 1000 the exponentials underflow in float64, but their sum has a logarithm.
    far = [value(o.log_evidence, one.model, 1000.0), value(o.elbo, one.model, 1000.0)]
    assert far[0] < -10_000
    assert value(both, one.model, 1000.0) == pytest.approx(logsumexp(far))
    assert value(o.perturbative, one.model, one.x, order=1, v0=9) == pytest.approx(math.log(10 + elbo) - 9)
    with pytest.raises(UndefinedValue):
        value(o.perturbative, one.model, 1000.0, order=1)


def test_what_cancels_leaves_no_variable(one: OneDimension) -> None:
    def cancelled(m: Any, x: Any) -> Any:
        weight = o.log_weight
        return E(m.encoder(x), lambda z: maximum(weight(m, x, z) - weight(m, x, z) + 3, 2))

    assert value(cancelled, one.model, one.x) == 3


def test_numbers_beyond_float64_are_refused_and_never_infinite(one: OneDimension) -> None:
    elbo = value(o.elbo, one.model, one.x)
    assert -2 < elbo < -0.5
    with pytest.raises(CannotCompute, match="range of float64"):
        value(lambda m, x: exp(-10_000 * o.elbo(m, x)), one.model, one.x)
    tiny = closed_form.evaluate(lambda m, x: exp(10_000 * o.elbo(m, x)), one.model, one.x)
    assert tiny.value == 0 and tiny.error > 0
    peak = max(one.log_joint(z) - one.log_q(z, one.x) for z in np.linspace(-3, 3, 60_001))
    assert value(o.cubo, one.model, one.x, n="1e400") == pytest.approx(peak, abs=1e-7)
    many, x = random_model(0, 20, 20)
    with pytest.raises(CannotCompute, match="range of float64"):
        value(o.cubo, many, x, n="1e400")


# --- divergence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noise", "width", "finite"),
    # The posterior has precision 1 + 1/noise, so E_q w^2 is finite exactly if 2 (1 + 1/noise) > 1/width.
    [
        (1.0, 0.25, False),
        (0.25, 0.1, False),
        (1.0, 0.2499999999999999, False),
        (1.0, 0.2500000000000001, True),
        (1.0, 0.26, True),
    ],
)
def test_cubo_is_infinite_exactly_from_the_boundary_on(noise: float, width: float, finite: bool) -> None:
    model = LinearGaussianModel(prior=(0, 1), likelihood=(1, 0, noise), encoder=(0.5, 0, width))
    computed = closed_form.evaluate(o.cubo, model, 1.0, n=2)
    assert math.isfinite(computed.value) == finite
    if finite:  # int p(x,z)^2 / q(z|x) dz, whose exponent is -c z^2 / 2 + l z + k
        with mpmath.workdps(60):
            q = mpmath.mpf(str(width))
            c, slope = 4 - 1 / q, 2 - mpmath.mpf("0.5") / q
            k = -1 + mpmath.mpf("0.25") / (2 * q) - 2 * mpmath.log(2 * mpmath.pi) + mpmath.log(2 * mpmath.pi * q) / 2
            exact = (k + slope**2 / (2 * c) + mpmath.log(2 * mpmath.pi / c) / 2) / 2
        assert computed.value == pytest.approx(float(exact), rel=1e-12)
    else:
        assert computed.value == math.inf


def test_renyi_above_one_is_minus_infinity_from_the_boundary_on() -> None:
    for width, finite in [(1.0, False), (1.01, False), (0.99, True)]:  # E_q w^-1: 2/width > 2
        model = LinearGaussianModel(prior=(0, 1), likelihood=(1, 0, 1), encoder=(0, 0, width))
        assert math.isfinite(value(o.renyi, model, 0.3, alpha=2)) == finite


def test_divergence_in_many_dimensions() -> None:
    eye = np.eye(200)
    narrow = LinearGaussianModel(prior=(0, 1), likelihood=(eye, 0, 1), encoder=(0.5, 0, [0.6] * 199 + [0.2]))
    assert value(o.cubo, narrow, np.zeros(200), n=2) == math.inf
    assert math.isfinite(value(o.elbo, narrow, np.zeros(200)))
    boundary = LinearGaussianModel(prior=(0, 1), likelihood=(eye, 0, 1), encoder=(0.5, 0, [0.6] * 199 + [0.25]))
    with pytest.raises(CannotCompute, match="rounding leaves open"):
        value(o.cubo, boundary, np.zeros(200), n=2)


def test_one_direction_upwards_is_enough() -> None:
    """The exponent is flat in 19 directions and curves upwards in one, so that its integral is infinite for sure."""
    flat = LinearGaussianModel(prior=(0, 1), likelihood=(np.ones((20, 20)), 0, 1))

    def upwards(m: Any, x: Any) -> Any:
        def average(z: Any) -> Any:
            return E(m.prior(), lambda v: E(m.likelihood(v), lambda y: m.likelihood(z).log_prob(y)))

        return log(integrate(m.latent, lambda z: exp(m.likelihood(z).log_prob(x) - 3 * average(z))))

    assert value(upwards, flat, np.zeros(20)) == math.inf


def test_overflow_on_the_way_is_refused() -> None:
    huge = LinearGaussianModel(prior=(0, 1), likelihood=(1e100, 0, 1e-100), encoder=(0, 0, 1e100))
    with pytest.raises(CannotCompute, match="range of float64"):
        value(o.elbo, huge, 0.0)
    assert value(o.log_evidence, huge, 0.0) == pytest.approx(-math.log(2 * math.pi) / 2 - math.log(1e100))


def test_infinity_minus_infinity_has_no_value() -> None:
    model = LinearGaussianModel(prior=(0, 1), likelihood=(1, 0, 1), encoder=(0.5, 0, 0.1))
    with pytest.raises(UndefinedValue):
        value(lambda m, x: o.cubo(m, x, 2) - o.cubo(m, x, 3), model, 1.0)


def test_improper_laws_and_integrals() -> None:
    model = LinearGaussianModel(prior=([0, 0], 1), likelihood=([[1, 2]], 0, 1), encoder=(0, 0, 0.1))

    def flat(m: Any, x: Any) -> Any:
        law = normalised(m.latent, lambda z: m.likelihood(z).log_prob(x))
        return E(law, lambda z: m.prior().log_prob(z))

    def upside_down(m: Any, x: Any) -> Any:
        return E(normalised(m.latent, lambda z: -m.log_joint(x, z)), lambda z: m.prior().log_prob(z))

    for formula in (flat, upside_down):
        with pytest.raises(BadInput, match="improper"):
            value(formula, model, 1.0)
    with pytest.raises(BadInput, match="improper"):
        value(lambda m, x: kl(o.tempered(m, x, 3), m.prior()), model, 1.0)
    mass = value(lambda m, x: log(integrate(m.latent, lambda z: exp(m.likelihood(z).log_prob(x)))), model, 1.0)
    assert mass == math.inf
    square = LinearGaussianModel(prior=([0, 0], 1), likelihood=([[1, 2], [2, 4]], 0, 1), encoder=(0, 0, 0.1))
    with pytest.raises(BadInput, match="improper"):  # as many rows as columns, but of rank one
        value(flat, square, [1.0, 1.0])


# --- what has no closed form, and what is no input -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "parameters", "named"),
    [
        (o.iwae, {"k": 2}, "copies"),
        (o.sivi, {"k": 1}, "exp|log|mean"),
        (o.renyi_finite, {"alpha": "1/2", "k": 3}, "copies"),
        (o.perturbative, {"order": 3}, "quadratic"),
        (lambda m, x: E(m.encoder(x), lambda z: log(1 + exp(m.log_joint(x, z)))), {}, "z"),
        (lambda m, x: E(m.encoder(x), lambda z: z), {}, "vector"),
    ],
)
def test_what_has_no_closed_form_is_refused_by_name(formula: Any, parameters: Any, named: str) -> None:
    model, x = random_model(0, 2, 2)
    with pytest.raises(CannotCompute, match=named):
        value(formula, model, x, **parameters)


@pytest.mark.parametrize(
    "x", [math.nan, [1.0, math.inf], [1.0], [1.0, 1j], np.ones(2, complex), [[1.0, 2.0]], [1.0, 1e300], "a", None, []]
)
def test_observations_that_are_none(x: Any) -> None:
    model, _ = random_model(0, 2, 2)
    with pytest.raises(BadInput):
        value(o.elbo, model, x)


def test_missing_laws_and_wrong_calls() -> None:
    bare = LinearGaussianModel(prior=(0, 1), likelihood=(1, 0, 1))
    with pytest.raises(BadInput, match="encoder"):
        value(o.elbo, bare, 0.0)
    for formula in (o.denoising_coupled, o.hvm):
        with pytest.raises(BadInput, match=r"corruption|auxiliary"):
            value(formula, LinearGaussianModel(prior=(0, 1), likelihood=(1, 0, 1), encoder=(1, 0, 1)), 0.0)
    with pytest.raises(FormulaError):
        value(o.iwae, bare, 0.0)
    wide = LinearGaussianModel(
        prior=(0, 1), likelihood=(1, 0, 1), corruption=([[1], [2]], 0, 1), encoder=([[1, 1]], 0, 1)
    )
    assert math.isfinite(value(o.denoising_decoupled, wide, 0.0))
    with pytest.raises(BadInput, match="dimension"):
        value(o.elbo, wide, 0.0)


# --- rounding ------------------------------------------------------------------------------------------------------


def test_the_error_estimate_is_honest() -> None:
    """Float64 against rationals, on models with condition numbers up to 1e8 and means up to 1e4."""
    formulas = [*EVERY_FORMULA, (o.renyi, {"alpha": "9999/10000"}), (o.cubo, {"n": "3/2"}), (o.renyi, {"alpha": 2})]
    compared = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        model = ill_conditioned(rng)
        x = model.sample(1, rng)[0]
        for formula, parameters in formulas:
            term = trace(formula, **parameters)
            (truth,) = closed_form._in_rationals(term, model, x)
            try:
                (computed,) = closed_form._in_floats(term, model, x, Floating())
            except WithinRounding:
                continue
            if math.isinf(truth.value) or math.isinf(computed.value):
                assert computed.value == truth.value
                continue
            assert abs(computed.value - truth.value) <= computed.error, (seed, formula.__name__)
            compared += 1
    assert compared > 150


def test_a_distant_mean_costs_no_digits() -> None:
    shift = 1e8
    near = LinearGaussianModel(prior=(0, 1), likelihood=(1, 0, 1), encoder=(0.5, 0, 0.5))
    distant = LinearGaussianModel(prior=(0, 1), likelihood=(1, shift, 1), encoder=(0.5, -shift / 2, 0.5))
    for formula, parameters in [(o.log_evidence, {}), (o.elbo, {}), (o.renyi, {"alpha": "1/2"})]:
        assert value(formula, distant, shift + 2, **parameters) == pytest.approx(
            value(formula, near, 2.0, **parameters), abs=1e-12
        )
