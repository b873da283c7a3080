"""The closed-form evaluator against quadrature, textbook formulas, sampling, and laws that join its formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from gaussian_models import (
    EVERY_FORMULA,
    OneDimension,
    encoder_at,
    kl_of_normals,
    kl_to_posterior,
    marginal_of_x,
    parts_of,
    posterior_of,
    random_model,
    value,
)
from scipy.stats import multivariate_normal

from boundcheck.catalogue import objectives as o
from boundcheck.evaluators import closed_form
from boundcheck.language import E, exp, integrate, kl, log
from boundcheck.models.linear_gaussian import LinearGaussianModel


@pytest.fixture(scope="module")
def one() -> OneDimension:
    return OneDimension()


def test_log_evidence_and_elbo_by_quadrature(one: OneDimension) -> None:
    evidence = one.integral(lambda z: math.exp(one.log_joint(z)))
    assert value(o.log_evidence, one.model, one.x) == pytest.approx(math.log(evidence), abs=1e-12)
    elbo = one.over_encoder(lambda z: one.log_joint(z) - one.log_q(z, one.x))
    assert value(o.elbo, one.model, one.x) == pytest.approx(elbo, abs=1e-12)


def test_eubo_by_quadrature(one: OneDimension) -> None:
    evidence = one.integral(lambda z: math.exp(one.log_joint(z)))
    eubo = one.integral(lambda z: math.exp(one.log_joint(z)) * (one.log_joint(z) - one.log_q(z, one.x))) / evidence
    assert value(o.eubo, one.model, one.x) == pytest.approx(eubo, abs=1e-11)


def test_denoising_by_nested_quadrature(one: OneDimension) -> None:
    def decoupled(z: float) -> float:
        return one.log_joint(z) - one.over_corruption(lambda xt: one.log_q(z, xt))

    expected = one.integral(lambda z: one.mixed(z) * decoupled(z), -6, 6)
    assert value(o.denoising_decoupled, one.model, one.x) == pytest.approx(expected, abs=1e-9)

    def given(xt: float) -> float:
        return one.integral(lambda z: math.exp(one.log_q(z, xt)) * (one.log_joint(z) - one.log_q(z, xt)))

    assert value(o.denoising_coupled, one.model, one.x) == pytest.approx(one.over_corruption(given), abs=1e-9)


def test_hierarchical_by_nested_quadrature(one: OneDimension) -> None:
    def hvm(xt: float) -> float:
        def inside(z: float) -> float:
            log_r = one.log_normal(xt, one.rz * z + one.rx * one.x + one.r, one.t)
            return one.log_joint(z) + log_r - one.log_c(xt) - one.log_q(z, xt)

        return one.integral(lambda z: math.exp(one.log_q(z, xt)) * inside(z))

    assert value(o.hvm, one.model, one.x) == pytest.approx(one.over_corruption(hvm), abs=1e-9)

    def marginal(z: float) -> float:
        mixed = one.mixed(z)
        return mixed * (one.log_joint(z) - math.log(mixed))

    expected = one.integral(marginal, -6, 6)
    assert value(o.hvm_optimal, one.model, one.x) == pytest.approx(expected, abs=1e-9)
    assert value(o.marginal_elbo, one.model, one.x) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("power", [0.63, -0.2, 1.5, 2.0])
def test_powers_of_the_weight_by_quadrature(one: OneDimension, power: float) -> None:
    def integrand(z: float) -> float:
        return math.exp(power * one.log_joint(z) + (1 - power) * one.log_q(z, one.x))

    expected = math.log(one.integral(integrand)) / power
    assert value(o.renyi, one.model, one.x, alpha=str(round(1 - power, 2))) == pytest.approx(expected, abs=1e-10)
    if power > 1:
        assert value(o.cubo, one.model, one.x, n=power) == pytest.approx(expected, abs=1e-10)


def test_tempered_expectation_by_quadrature(one: OneDimension) -> None:
    def path(z: float) -> float:
        return math.exp((one.log_joint(z) + one.log_q(z, one.x)) / 2)

    def log_weight(z: float) -> float:
        return one.log_joint(z) - one.log_q(z, one.x)

    middle = one.integral(lambda z: path(z) * log_weight(z)) / one.integral(path)
    elbo = one.over_encoder(log_weight)
    assert value(o.tvo_left, one.model, one.x, s=2) == pytest.approx((elbo + middle) / 2, abs=1e-11)


# --- several dimensions, by textbook formulas ----------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "d", "n"), [(0, 1, 1), (1, 2, 2), (2, 2, 4), (3, 5, 3), (4, 40, 60)])
def test_evidence_elbo_and_eubo_by_textbook_formulas(seed: int, d: int, n: int) -> None:
    model, x = random_model(seed, d, n)
    evidence = marginal_of_x(model).logpdf(x)
    q, p = encoder_at(model, x), posterior_of(model, x)
    assert value(o.log_evidence, model, x) == pytest.approx(evidence, rel=1e-11)
    assert value(o.elbo, model, x) == pytest.approx(evidence - kl_of_normals(*q, *p), rel=1e-10)
    assert value(o.eubo, model, x) == pytest.approx(evidence + kl_of_normals(*p, *q), rel=1e-10)


@pytest.mark.parametrize("alpha", [-1.5, -0.25, 0.37, 0.9, 1.25, 2.5, 6.0])
@pytest.mark.parametrize("seed", range(8))
def test_renyi_by_the_divergence_of_normals(seed: int, alpha: float) -> None:
    """VR_alpha = log p(x) - D_alpha(q || p(z|x)) (Gil, Alajaji & Linder 2013, table 2), infinite with D_alpha."""
    model, x = random_model(seed, 3, 2)
    (mq, sq), (mp, sp) = encoder_at(model, x), posterior_of(model, x)
    between = (1 - alpha) * sq + alpha * sp
    computed = value(o.renyi, model, x, alpha=alpha)
    precision = alpha * np.linalg.inv(sq) + (1 - alpha) * np.linalg.inv(sp)
    if np.linalg.eigvalsh(precision)[0] <= 0:
        assert computed == (-math.inf if alpha > 1 else math.inf)
        return
    shift, log_det = mq - mp, lambda s: np.linalg.slogdet(s)[1]
    dets = log_det(between) - (1 - alpha) * log_det(sq) - alpha * log_det(sp)
    divergence = alpha / 2 * shift @ np.linalg.solve(between, shift) - dets / (2 * (alpha - 1))
    assert computed == pytest.approx(marginal_of_x(model).logpdf(x) - divergence, rel=1e-9)


# --- laws that join formulas ---------------------------------------------------------------------------------------


def test_identities_in_two_hundred_dimensions() -> None:
    model, x = random_model(7, 200, 200)
    evidence, elbo = value(o.log_evidence, model, x), value(o.elbo, model, x)
    assert evidence == pytest.approx(marginal_of_x(model).logpdf(x), abs=1e-9)
    assert elbo + value(kl_to_posterior, model, x) == pytest.approx(evidence, abs=1e-9)
    assert value(o.tvo_left, model, x, s=1) == pytest.approx(elbo, abs=1e-9)
    eubo = value(o.eubo, model, x)
    assert value(o.tvo_right, model, x, s=1) == pytest.approx(eubo, abs=1e-9)
    coupled = value(o.denoising_coupled, model, x)
    marginal = value(o.marginal_elbo, model, x)
    assert value(o.hvm_prior, model, x) == pytest.approx(coupled, abs=1e-9)
    assert value(o.hvm_optimal, model, x) == pytest.approx(marginal, abs=1e-9)
    assert value(o.sivi, model, x, k=0) == pytest.approx(coupled, abs=1e-9)
    assert value(o.sivi_without, model, x, k=1) == pytest.approx(value(o.denoising_decoupled, model, x), abs=1e-9)
    assert coupled <= marginal <= evidence
    assert elbo <= evidence <= eubo
    assert value(o.hvm, model, x) <= marginal


def test_densities_integrate_to_one() -> None:
    model, x = random_model(9, 30, 20)
    masses = [
        lambda m, x: integrate(m.data, lambda y: integrate(m.latent, lambda z: exp(m.log_joint(y, z)))),
        lambda m, x: integrate(m.latent, lambda z: m.marginal_encoder(x).prob(z)),
        lambda m, x: integrate(m.latent, lambda z: m.posterior(x).prob(z)),
        lambda m, x: integrate(m.latent, lambda z: o.tempered(m, x, "1/3").prob(z)),
        lambda m, x: (
            E(m.prior(), lambda z: log(integrate(m.corrupted, lambda c: o.reverse_mixing(m, x, z).prob(c)))) + 1
        ),
        lambda m, x: integrate(
            m.latent, lambda z: integrate(m.corrupted, lambda c: m.corruption(x).prob(c) * m.encoder(c).prob(z))
        ),
    ]
    for mass in masses:
        assert value(mass, model, x) == pytest.approx(1, abs=1e-11)


@pytest.mark.parametrize("formula", [o.iwae, o.diwae_coupled, o.diwae_fresh, o.diwae_decoupled])
def test_one_copy_is_no_copy(formula: Callable[..., Any]) -> None:
    model, x = random_model(5, 2, 3)
    plain = {o.iwae: o.elbo, o.diwae_decoupled: o.denoising_decoupled}.get(formula, o.denoising_coupled)
    assert value(formula, model, x, k=1) == pytest.approx(value(plain, model, x), abs=1e-11)


def test_renyi_is_monotone_and_meets_the_elbo_and_the_evidence() -> None:
    model, x = random_model(0, 3, 4)
    alphas = ["-2", "-1", "-1/2", "-1/10", "0", "1/4", "1/2", "3/4", "99/100", "1", "101/100", "5/4", "2", "5"]
    curve = [value(o.renyi, model, x, alpha=alpha) for alpha in alphas]
    assert all(high >= low for high, low in pairwise(curve))
    assert sum(math.isfinite(v) for v in curve) >= 8
    assert curve[alphas.index("0")] == pytest.approx(value(o.log_evidence, model, x), abs=1e-10)
    elbo = value(o.elbo, model, x)
    assert value(o.renyi, model, x, alpha="999999/1000000") == pytest.approx(elbo, abs=1e-3)
    steps = [abs(value(o.renyi, model, x, alpha=1 - h) - elbo) for h in (1e-2, 1e-3, 1e-4)]
    assert steps[1] < steps[0] / 5 and steps[2] < steps[1] / 5  # of first order in 1 - alpha


def test_thermodynamic_integration_converges_to_the_evidence() -> None:
    model, x = random_model(1, 2, 2)
    evidence = value(o.log_evidence, model, x)
    errors = []
    for s in (8, 16, 32):
        left, right = value(o.tvo_left, model, x, s=s), value(o.tvo_right, model, x, s=s)
        assert left <= evidence <= right
        errors.append(abs((left + right) / 2 - evidence))
    assert errors[2] < errors[1] / 3 < errors[0] / 9  # the trapezoid rule, of second order


def test_free_bits_takes_the_larger() -> None:
    model, x = random_model(1, 2, 2)
    rate = value(lambda m, x: kl(m.encoder(x), m.prior()), model, x)
    reconstruction = value(o.reconstruction, model, x)
    assert value(o.free_bits, model, x, floor=0) == pytest.approx(reconstruction - rate)
    assert value(o.free_bits, model, x, floor=1000) == pytest.approx(reconstruction - 1000)


def test_beta_is_linear() -> None:
    model, x = random_model(1, 2, 2)
    at = [value(o.beta_objective, model, x, beta=beta) for beta in (0, 1, 3)]
    assert at[1] == pytest.approx(value(o.elbo, model, x))
    assert at[2] - at[0] == pytest.approx(3 * (at[1] - at[0]))


@pytest.mark.parametrize(("formula", "parameters"), EVERY_FORMULA)
def test_invariant_under_rotation_of_z_and_permutation_of_x(formula: Callable[..., Any], parameters: Any) -> None:
    rng = np.random.default_rng(11)
    d, n = 3, 4
    given = parts_of(rng, d, n)
    x = rng.normal(size=n)
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    order = rng.permutation(n)
    shuffle = np.eye(n)[order]
    moves = {"z": turn, "x": shuffle}
    spaces = {"prior": "z", "likelihood": "xz", "encoder": "zx", "corruption": "xx", "auxiliary": "xzx"}
    moved = {}
    for role, (*matrices, offset, covariance) in given.items():
        out, *inputs = (moves[space] for space in spaces[role])
        carried = [out @ matrix @ into.T for matrix, into in zip(matrices, inputs, strict=True)]
        moved[role] = (*carried, out @ offset, out @ covariance @ out.T)
    plain = value(formula, LinearGaussianModel(**given), x, **parameters)
    assert value(formula, LinearGaussianModel(**moved), x[order], **parameters) == pytest.approx(plain, rel=1e-9)


def test_a_batch_is_its_observations() -> None:
    model, _ = random_model(2, 3, 4)
    x = np.random.default_rng(0).normal(size=(5, 4))
    for formula, parameters in EVERY_FORMULA:
        together = closed_form.evaluate_each(formula, model, x, **parameters)
        alone = [value(formula, model, row, **parameters) for row in x]
        assert [each.value for each in together] == pytest.approx(alone, rel=1e-12)
        assert len({round(v, 6) for v in alone}) == (1 if formula is o.marginal_cross_entropy else 5)


# --- against sampling ----------------------------------------------------------------------------------------------


def test_against_monte_carlo() -> None:
    """6 standard errors on 5 means of 100000 draws: a false alarm has probability 5 * 2e-9 = 1e-8."""
    model, x = random_model(3, 5, 5)
    rng, n = np.random.default_rng(20), 100_000
    rows = np.broadcast_to(x, (n, 5))
    corrupt, encode, reverse = model.law("corruption"), model.law("encoder"), model.law("auxiliary")

    def log_normal(v: np.ndarray, center: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        return multivariate_normal(np.zeros(5), covariance).logpdf(v - center)

    def log_joint(z: np.ndarray) -> np.ndarray:
        prior, likelihood = model.law("prior"), model.law("likelihood")
        return log_normal(z, prior.offset, prior.covariance) + log_normal(
            rows, likelihood.mean(z), likelihood.covariance
        )

    def draw(law: Any, given: np.ndarray) -> np.ndarray:
        return rng.multivariate_normal(law.offset, law.covariance, size=n) + given @ law.matrices[0].T

    xt, xs = draw(corrupt, rows), draw(corrupt, rows)
    z, clean = draw(encode, xt), draw(encode, rows)
    log_q = log_normal(z, encode.mean(xt), encode.covariance)
    log_c = log_normal(xt, corrupt.mean(rows), corrupt.covariance)
    log_r = log_normal(xt, reverse.mean(z, rows), reverse.covariance)
    draws = {
        o.elbo: log_joint(clean) - log_normal(clean, encode.mean(rows), encode.covariance),
        o.denoising_coupled: log_joint(z) - log_q,
        o.denoising_decoupled: log_joint(z) - log_normal(z, encode.mean(xs), encode.covariance),
        o.hvm: log_joint(z) + log_r - log_c - log_q,
        o.dae_criterion: log_normal(rows, model.law("likelihood").mean(z), model.law("likelihood").covariance),
    }
    for formula, each in draws.items():
        assert abs(each.mean() - value(formula, model, x)) < 6 * each.std() / math.sqrt(n), formula.__name__
