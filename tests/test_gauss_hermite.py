"""Gauss rules on tensor grids: against closed forms, against adaptive quadrature, and where they cannot tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gaussian_models import sivi_two
from scipy.special import factorial

from boundcheck.catalogue import objectives as O
from boundcheck.errors import BadInput, BoundcheckError, CannotCompute
from boundcheck.evaluators import quadrature
from boundcheck.evaluators.gauss_hermite import evaluate
from boundcheck.evaluators.gauss_hermite_rules import gauss, multisets
from boundcheck.language import E, Space, exp, integrate, log, mean
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import (
    BernoulliLogit,
    Binomial,
    Discrete,
    Laplace,
    Logistic,
    Mixture,
    Normal,
    PoissonLog,
    StudentT,
    Uniform,
)

LOG_2PI = math.log(2 * math.pi)
A, B, S, T, C = 0.7, -0.3, 0.9, 0.6, 0.8  # x ~ N(a z, s^2), q = N(b x + 0.2, t^2), x~ ~ N(x, c^2)
X = 0.55
MEAN = B * X + 0.2
ENTROPY = 0.5 * LOG_2PI + math.log(T) + 0.5
EVIDENCE = -(X**2) / (2 * (A**2 + S**2)) - 0.5 * math.log(2 * math.pi * (A**2 + S**2))


def linear(corruption=lambda x: Normal(x, C)):
    return ContinuousModel(
        prior=Normal(0, 1),
        likelihood=lambda z: Normal(A * z, S),
        encoder=lambda x: Normal(B * x + 0.2, T),
        corruption=corruption,
        auxiliary=lambda z, x: Normal(x + 0.1 * z, 1.1),
    )


def expected_joint(mean, variance):
    second = mean**2 + variance
    misfit = X**2 - 2 * A * X * mean + A**2 * second
    return -0.5 * second - 0.5 * LOG_2PI - misfit / (2 * S**2) - math.log(S) - 0.5 * LOG_2PI


def within(value, truth, slack=1e-15):
    return math.isfinite(value.error) and abs(float(value) - truth) <= value.error + slack * (1 + abs(truth))


# --- rules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 33, 256, 1024])
@pytest.mark.parametrize(
    ("law", "moments"),
    [
        ("normal", [1, 0, 1, 0, 3, 0, 15]),
        ("exponential", factorial(range(7))),
        ("uniform", [1, 0, 1 / 3, 0, 1 / 5, 0, 1 / 7]),
        ("logistic", [1, 0, math.pi**2 / 3, 0, 7 * math.pi**4 / 15, 0, 31 * math.pi**6 / 21]),
    ],
)
def test_rules_have_the_moments_of_their_laws(law, moments, n):
    nodes, log_weights = gauss(law, n)
    assert np.isfinite(log_weights).all()
    assert (np.diff(nodes) > 0).all()
    for power, moment in enumerate(moments):
        assert (np.exp(log_weights) * nodes**power).sum() == pytest.approx(moment, rel=1e-11, abs=1e-11)


def test_log_weights_below_the_range_of_floats():
    """At the outermost node of 512 the weight of numpy's rule is zero; its logarithm is known from the moments."""
    nodes, log_weights = gauss("normal", 512)
    assert log_weights[0] < -900
    # The rule is exact for t^1022, whose mass is at t = 32, where weights are e^-500.
    exact = math.lgamma(1023) - math.lgamma(512) - 511 * math.log(2)
    assert np.logaddexp.reduce(log_weights + 1022 * np.log(np.abs(nodes))) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(("n", "size"), [(4, 1), (5, 3), (3, 5)])
def test_multisets_count_all_tuples(n, size):
    rows, log_orders = multisets(n, size)
    assert len(rows) == math.comb(n + size - 1, size)
    assert np.exp(log_orders).sum() == pytest.approx(n**size)


# --- closed forms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["prior", "encoder"])
@pytest.mark.parametrize("nodes", [32, 100, 512])
def test_evidence_and_elbo(base, nodes):
    # The encoder's tails are lighter than the posterior's, which its nodes tell only slowly.
    value = evaluate(O.log_evidence, linear(), X, nodes=nodes, base=base)
    assert within(value, EVIDENCE) or (base == "encoder" and math.isinf(value.error))
    assert within(evaluate(O.elbo, linear(), X, nodes=nodes, base=base), expected_joint(MEAN, T**2) + ENTROPY)
    if base == "prior":
        assert value.error < 1e-11


def test_both_denoising_readings_and_hvm():
    z_variance = B**2 * C**2 + T**2
    joint = expected_joint(MEAN, z_variance)
    assert within(evaluate(O.denoising_coupled, linear(), X), joint + ENTROPY)
    spread = z_variance + B**2 * C**2
    decoupled = joint + 0.5 * LOG_2PI + math.log(T) + spread / (2 * T**2)
    assert within(evaluate(O.denoising_decoupled, linear(), X), decoupled)
    assert within(evaluate(O.sivi_without, linear(), X, k=1), decoupled)
    gap_mean, gap_variance = -0.1 * MEAN, (C - 0.1 * B * C) ** 2 + (0.1 * T) ** 2
    log_r = -(gap_mean**2 + gap_variance) / (2 * 1.21) - 0.5 * LOG_2PI - math.log(1.1)
    log_c = -0.5 - 0.5 * LOG_2PI - math.log(C)
    assert within(evaluate(O.hvm, linear(), X), joint + log_r - log_c + ENTROPY)


def test_the_elbo_of_the_marginal_encoder_is_that_of_one_gaussian():
    variance = B**2 * C**2 + T**2
    truth = expected_joint(MEAN, variance) + 0.5 * LOG_2PI + 0.5 * math.log(variance) + 0.5
    assert within(evaluate(O.marginal_elbo, linear(), X), truth)


def test_posterior_expectation():
    precision = 1 + A**2 / S**2
    mode, variance = A * X / S**2 / precision, 1 / precision
    log_q = -((mode - MEAN) ** 2 + variance) / (2 * T**2) - 0.5 * LOG_2PI - math.log(T)
    value = evaluate(O.eubo, linear(), X)
    assert within(value, expected_joint(mode, variance) - log_q)
    assert value.error < 1e-10


@pytest.mark.parametrize("d", [2, 3])
def test_two_and_three_latent_dimensions(d):
    rows, x = np.array([[1.0, 0.5, -0.4], [0.2, -1.0, 0.7]])[:, :d], np.array([0.4, -1.1])
    model = ContinuousModel(
        [Normal(0, 1)] * d,
        lambda z: [Normal(sum(rows[i, j] * z[j] for j in range(d)), 1.2) for i in range(2)],
        encoder=lambda x: [Normal(0.3 * x[0] - 0.1 * j, 0.8) for j in range(d)],
    )
    covariance = rows @ rows.T + 1.44 * np.eye(2)
    truth = -0.5 * x @ np.linalg.solve(covariance, x) - 0.5 * np.linalg.slogdet(covariance)[1] - LOG_2PI
    assert within(evaluate(O.log_evidence, model, tuple(x)), truth)
    guess = 0.3 * x[0] - 0.1 * np.arange(d)
    fit = -0.5 * (((x - rows @ guess) ** 2).sum() + 0.64 * (rows**2).sum()) / 1.44 - LOG_2PI - 2 * math.log(1.2)
    truth = fit - 0.5 * (guess @ guess + 0.64 * d) + d * (0.5 + math.log(0.8))
    assert within(evaluate(O.elbo, model, tuple(x)), truth)
    if d == 2:  # copies of a plane are multisets of its grid
        plain = evaluate(O.elbo, model, tuple(x), nodes=8)
        two = evaluate(lambda m, x: E(m.encoder(x).copies(2), lambda z: mean(O.log_weight(m, x, z))), model, tuple(x),
                       nodes=8)  # fmt: skip
        assert abs(float(two) - float(plain)) < 1e-12


def test_a_space_of_the_users_own():
    unit = Space("b", (0, 1))
    value = evaluate(lambda m, x: integrate(unit, lambda b: b * b), linear(), X)
    assert within(value, 1 / 3)


# --- against adaptive quadrature -----------------------------------------------------------------------------------

AGAIN = [
    (O.sivi, {"k": 1}),
    (O.iwae, {"k": 2}),
    (O.iwae, {"k": 3}),
    (O.renyi, {"alpha": "1/2"}),
    (O.harmonic_mean, {"k": 2}),
    (O.tvo_left, {"s": 3}),
    (O.diwae_coupled, {"k": 2}),
]


@pytest.mark.parametrize(("objective", "of"), AGAIN)
def test_objectives_agree_with_adaptive_quadrature(objective, of):
    value = evaluate(objective, linear(), X, **of)
    other = quadrature.evaluate(objective, linear(), X, tolerance=1e-7, **of)
    assert value.error < 1e-8
    assert abs(float(value) - float(other)) <= value.error + other.error


def test_own_draws_for_each_copy_agree_with_adaptive_quadrature():
    value = evaluate(O.diwae_fresh, linear(), X, k=2, nodes=12)
    other = quadrature.evaluate(O.diwae_fresh, linear(), X, k=2, tolerance=1e-7)
    assert abs(float(value) - float(other)) <= value.error + other.error
    assert value.error < 1e-3


def test_discrete_corruption_is_summed():
    model = linear(lambda x: Discrete({-1: "1/5", "0.5": "1/2", 2: "3/10"}))
    for objective, of in ((O.marginal_elbo, {}), (O.sivi, {"k": 1}), (O.denoising_decoupled, {})):
        value, other = evaluate(objective, model, X, **of), quadrature.evaluate(objective, model, X, **of)
        assert abs(float(value) - float(other)) <= value.error + other.error
        assert value.error < 1e-6
    two = evaluate(O.sivi, model, X, k=2)
    assert within(two, sivi_two(A, B, S, T, X, {-1.0: 0.2, 0.5: 0.5, 2.0: 0.3}), slack=1e-13)
    assert two.error < 1e-6


LIKELIHOODS = {
    "normal": lambda f: Normal(f, 0.7),
    "bernoulli": BernoulliLogit,
    "binomial": lambda f: Binomial(7, f),
    "poisson": lambda f: PoissonLog(0.3 * f),
}


def random_model(rng, prior, likelihood):
    a, b, location = rng.uniform(-1.2, 1.2, 3)
    scale, spread = rng.uniform(0.4, 1.3, 2)
    law = {
        "normal": lambda m, s: Normal(m, s),
        "laplace": lambda m, s: Laplace(m, 0.6 * s),
        "logistic": lambda m, s: Logistic(m, 0.5 * s),
        "uniform": lambda m, s: Uniform(m - 2 * s, m + 2 * s),
        "mixture": lambda m, s: Mixture(("1/4", "3/4"), (Normal(m - 1, s), Normal(m + 1, 0.8))),
    }[prior]
    encoder = law if prior in ("normal", "uniform") else lambda m, s: Normal(m, s)
    wide = law(location, scale)
    narrow = wide if prior == "uniform" else encoder(rng.uniform(-1, 1), spread)
    x = rng.normal() if likelihood == "normal" else int(rng.integers(0, 2 if likelihood == "bernoulli" else 7))
    return ContinuousModel(wide, lambda z: LIKELIHOODS[likelihood](a * z + b), encoder=lambda x: narrow), x


def sweep(nodes, seed, rounds):
    rng, told, wrong = np.random.default_rng(seed), [], []
    for prior in ("normal", "laplace", "logistic", "uniform", "mixture"):
        for likelihood in LIKELIHOODS:
            for _ in range(rounds):
                model, x = random_model(rng, prior, likelihood)
                for objective, of in ((O.log_evidence, {}), (O.elbo, {}), (O.renyi, {"alpha": "1/2"})):
                    value = evaluate(objective, model, x, nodes=nodes, **of)
                    other = quadrature.evaluate(objective, model, x, **of)
                    told.append(value.error < 1e-3)
                    if not abs(float(value) - float(other)) <= value.error + other.error:
                        wrong.append((prior, likelihood, objective.__name__, value, other))
    return told, wrong


@pytest.mark.parametrize("nodes", [4, 10, 32])
def test_random_models_agree_with_adaptive_quadrature(nodes):
    told, wrong = sweep(nodes, nodes, 2)
    assert not wrong
    assert np.mean(told) > {4: 0.1, 10: 0.5, 32: 0.6}[nodes]  # or it says so always, and nothing else


# --- what it cannot tell -------------------------------------------------------------------------------------------


def log_normal_mixture(z):
    return Mixture(("1/2", "1/2"), (Normal(z, "1/10000"), Normal(z, 2)))


@pytest.mark.parametrize(
    ("likelihood", "x"),
    [
        (lambda z: Normal(z, "1/1000"), 0.37),
        (lambda z: Normal(z * z, "1/1000"), 0.37),
        (lambda z: Binomial(20_000, z), 12_000),
        (lambda z: PoissonLog(z + 14), 10**6),
        (log_normal_mixture, 0.37),
    ],
)
@pytest.mark.parametrize("nodes", [8, 32, 512])
def test_a_narrow_peak_is_owned_up_to(likelihood, x, nodes):
    model = ContinuousModel(Normal(0, 1), likelihood, encoder=lambda x: Normal(0.3, 0.5))
    assert math.isinf(evaluate(O.log_evidence, model, x, nodes=nodes).error)


def test_a_narrow_peak_that_three_rules_miss_is_owned_up_to():
    """Between all nodes of all three rules there is a spike with half of the mass; the rules agree without it."""
    model = ContinuousModel(Normal(0, 1), log_normal_mixture, encoder=lambda x: Normal(0.3, 0.5))
    values = [float(evaluate(O.log_evidence, model, 0.37, nodes=n)) for n in (16, 32, 64)]
    assert max(values) - min(values) < 1e-9
    assert abs(float(quadrature.evaluate(O.log_evidence, model, 0.37)) - values[0]) > 1
    for objective in (O.log_evidence, O.elbo, lambda m, x: log(E(m.encoder(x), lambda z: m.likelihood(z).prob(x))),
                      lambda m, x: E(m.encoder(x), lambda z: z + exp(m.likelihood(z).log_prob(x)))):  # fmt: skip
        assert math.isinf(evaluate(objective, model, 0.37).error)
    narrow = ContinuousModel(Normal(0, 1), lambda z: Normal(z, 1), lambda x: Normal(x, 1e-4), lambda x: Normal(x, 1))
    assert math.isinf(evaluate(O.marginal_elbo, narrow, 0.37).error)


@pytest.mark.parametrize("nodes", [4, 16, 64])
def test_a_steep_step_is_owned_up_to(nodes):
    """Every even rule puts half of its weight on either side of a step near the centre, and so they agree."""
    model = ContinuousModel(Logistic(0, 1), lambda z: BernoulliLogit(150 * (z - 0.06)))
    assert math.isinf(evaluate(O.log_evidence, model, 1, nodes=nodes).error)


@pytest.mark.parametrize("objective", [O.log_evidence, O.eubo])
def test_a_posterior_beyond_all_nodes_is_owned_up_to(objective):
    """At a billion nats rules of all sizes agree to a thousandth, and all of them end long before the posterior."""
    model = ContinuousModel(
        Normal(-141.875, 6 * 2.0**-12), lambda z: Normal(-1.5 * z - 0.0625, 2.0**-7), lambda x: Normal(603.5, 2.0**-11)
    )
    value = evaluate(objective, model, 585.3125)
    assert math.isinf(value.error)
    spread = ContinuousModel(Uniform(0, 1), lambda z: Normal(9 * z, 1), lambda x: Uniform(0, 1))
    assert math.isfinite(evaluate(objective, spread, 20.0).error)  # the end of a Uniform law is no end of the nodes


def test_a_divergent_integral_is_owned_up_to():
    light = ContinuousModel(Normal(0, 1), lambda z: Normal(z, 1), encoder=lambda x: Normal(0, "1/2"))
    for n in (2, 3):
        for nodes in (32, 512):
            assert math.isinf(evaluate(O.cubo, light, 0.3, n=n, nodes=nodes).error)
    outside = ContinuousModel(Uniform(0, 1), lambda z: Normal(z, 1), encoder=lambda x: Uniform(-1, 1))
    value = evaluate(O.elbo, outside, 0.3)
    assert float(value) == -math.inf and math.isinf(value.error)


# --- refusals ------------------------------------------------------------------------------------------------------


def test_laws_without_a_rule_are_named():
    student = ContinuousModel(StudentT(3), lambda z: Normal(z, 1), encoder=lambda x: Normal(0, 1))
    with pytest.raises(CannotCompute, match="StudentT"):
        evaluate(O.log_evidence, student, 0.3)
    counts = linear(lambda x: PoissonLog(x))
    with pytest.raises(CannotCompute, match="PoissonLog"):
        evaluate(O.denoising_coupled, counts, X)


def test_an_encoder_that_does_not_cover_is_no_base():
    model = ContinuousModel(Normal(0, 1), lambda z: Normal(z, 1), encoder=lambda x: Uniform(-1, 1))
    with pytest.raises(CannotCompute, match="cover"):
        evaluate(O.log_evidence, model, 0.3, base="encoder")


def test_too_large_a_grid_is_refused_with_its_size():
    with pytest.raises(CannotCompute, match=f"{math.comb(64 + 9, 10):,} multisets"):
        evaluate(O.vr_max, linear(), X, k=10)
    with pytest.raises(CannotCompute, match="more than 10,000,000"):
        evaluate(O.denoising_decoupled, linear(), X, nodes=512)
    with pytest.raises(CannotCompute, match="copies of copies"):
        evaluate(
            lambda m, x: E(
                m.corruption(x).copies(2),
                lambda xt: E(
                    m.encoder(xt).copies(2),
                    lambda z: mean(mean(m.prior().log_prob(z), over=z), over=xt),
                ),
            ),
            linear(),
            X,
        )


@pytest.mark.parametrize(
    ("of", "named"),
    [({"nodes": 2}, "nodes"), ({"nodes": 513}, "nodes"), ({"nodes": 8.0}, "nodes"), ({"base": "posterior"}, "base")],
)
def test_arguments_are_checked(of, named):
    with pytest.raises(BadInput, match=named):
        evaluate(O.elbo, linear(), X, **of)


@pytest.mark.parametrize("x", ["here", math.nan, (), (0.1, None)])
def test_observations_are_checked(x):
    with pytest.raises(BoundcheckError):
        evaluate(O.elbo, linear(), x)


def test_infinities_that_cancel_are_no_value():
    def undefined(m, x):
        return E(m.encoder(x), lambda z: m.prior().log_prob(z)) - E(m.encoder(x), lambda z: m.prior().log_prob(z))

    outside = ContinuousModel(Uniform(0, 1), lambda z: Normal(z, 1), encoder=lambda x: Uniform(-1, 1))
    with pytest.raises(CannotCompute, match="cancel"):
        evaluate(undefined, outside, 0.3)
