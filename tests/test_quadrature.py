"""Quadrature against closed forms, against mpmath, and against a fine rule in extended precision.

The truths here are written out from the formulas; they share no code with the package. The sweeps check the claim of
an error estimate: the truth lies within it on at least 99.9 % of random models.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from gaussian_models import sivi_two
from mpmath import mp, mpf

from boundcheck.catalogue import objectives as O
from boundcheck.errors import BadInput, BoundcheckError, CannotCompute, FormulaError
from boundcheck.evaluators.quadrature import evaluate, evaluate_many
from boundcheck.language import E, Space, exp, integrate, log, maximum_over
from boundcheck.models import arithmetic as F
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


def gaussian(x, mean, variance):
    return -((x - mean) ** 2) / (2 * variance) - 0.5 * math.log(2 * math.pi * variance)


def within(value, truth, slack=1.0):
    """The truth lies within the stated error, up to the rounding of the truth itself."""
    return abs(float(value) - float(truth)) <= slack * value.error + 2e-15 * (1 + abs(float(truth)))


# --- linear-Gaussian closed forms ----------------------------------------------------------------------------------

A, B, S, T, C = 0.7, -0.3, 0.9, 0.6, 0.8  # x ~ N(a z, s^2), q = N(b x + 0.2, t^2), x~ ~ N(x, c^2)
X = 0.55


def linear():
    return ContinuousModel(
        prior=Normal(0, 1),
        likelihood=lambda z: Normal(A * z, S),
        encoder=lambda x: Normal(B * x + 0.2, T),
        corruption=lambda x: Normal(x, C),
        auxiliary=lambda z, x: Normal(x + 0.1 * z, 1.1),
    )


def expected_joint(mean, variance):
    """E log p(X, z) for z of a given mean and variance."""
    second = mean**2 + variance
    misfit = X**2 - 2 * A * X * mean + A**2 * second
    return -0.5 * second - 0.5 * LOG_2PI - misfit / (2 * S**2) - math.log(S) - 0.5 * LOG_2PI


MEAN = B * X + 0.2
ENTROPY = 0.5 * LOG_2PI + math.log(T) + 0.5
EVIDENCE = gaussian(X, 0, A**2 + S**2)


def power_integral(p, r):
    """log of the integral of p(X,z)^p q(z)^r for z, by completing the square; inf if it diverges."""
    quadratic = p * (1 + A**2 / S**2) + r / T**2
    linear_part = p * A * X / S**2 + r * MEAN / T**2
    constant = -p * (X**2 / (2 * S**2) + LOG_2PI + math.log(S)) - r * (
        MEAN**2 / (2 * T**2) + 0.5 * LOG_2PI + math.log(T)
    )
    if quadratic <= 0:
        return math.inf
    return constant + linear_part**2 / (2 * quadratic) + 0.5 * math.log(2 * math.pi / quadratic)


def test_evidence_and_elbo():
    assert within(evaluate(O.log_evidence, linear(), X), EVIDENCE)
    assert within(evaluate(O.elbo, linear(), X), expected_joint(MEAN, T**2) + ENTROPY)


def test_posterior_expectation():
    precision = 1 + A**2 / S**2
    mean, variance = A * X / S**2 / precision, 1 / precision
    log_q = -((mean - MEAN) ** 2 + variance) / (2 * T**2) - 0.5 * LOG_2PI - math.log(T)
    assert within(evaluate(O.eubo, linear(), X), expected_joint(mean, variance) - log_q)


@pytest.mark.parametrize("alpha", ["1/2", "2", "-1", "1/10", "3"])
def test_renyi(alpha):
    power = 1 - float(eval(alpha))
    truth = power_integral(power, 1 - power) / power
    value = evaluate(O.renyi, linear(), X, alpha=alpha)
    assert float(value) == truth if math.isinf(truth) else within(value, truth)


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_cubo_finite_and_infinite(n):
    truth = power_integral(n, 1 - n) / n
    value = evaluate(O.cubo, linear(), X, n=n)
    assert float(value) == truth if math.isinf(truth) else within(value, truth)


def test_cubo_diverges_with_a_light_proposal():
    narrow = ContinuousModel(Normal(0, 1), lambda z: Normal(z, 1), encoder=lambda x: Normal(0, "1/2"))
    assert 2 * (1 + 1) - 4 == 0  # at n = 2 the quadratic terms cancel: the integrand does not decay
    with np.errstate(all="ignore"):
        try:
            value = evaluate(O.cubo, narrow, 0.3, n=2)
            assert math.isinf(float(value))
        except CannotCompute:
            pass  # what floats cannot tell must be said, never a large number
    assert float(evaluate(O.cubo, narrow, 0.3, n=3)) == math.inf
    heavy_prior = ContinuousModel(Laplace(0, 1), lambda z: BernoulliLogit(z), encoder=lambda x: Normal(0, 1))
    assert float(evaluate(O.cubo, heavy_prior, 1, n=2)) == math.inf
    two = ContinuousModel(
        [Normal(0, 1)] * 2, lambda z: Normal(z[0] + z[1], 3), encoder=lambda x: [Normal(0, 1), Normal(0, 0.3)]
    )
    assert float(evaluate(O.cubo, two, 0.3, n=2)) == math.inf


def test_elbo_diverges_with_a_heavy_proposal():
    model = ContinuousModel(Normal(0, 1), lambda z: Normal(z, 1), encoder=lambda x: StudentT("3/2", 0, 1))
    assert float(evaluate(O.elbo, model, 0.3)) == -math.inf
    uniform = ContinuousModel(Uniform(0, 1), lambda z: Normal(z, 1), encoder=lambda x: Uniform(-1, 1))
    assert float(evaluate(O.elbo, uniform, 0.3)) == -math.inf


def test_both_denoising_readings():
    z_variance = B**2 * C**2 + T**2
    joint = expected_joint(MEAN, z_variance)
    assert within(evaluate(O.denoising_coupled, linear(), X), joint + ENTROPY)
    spread = z_variance + B**2 * C**2  # of z - mean(x~) with independent x~
    decoupled = joint + 0.5 * LOG_2PI + math.log(T) + spread / (2 * T**2)
    assert within(evaluate(O.denoising_decoupled, linear(), X, tolerance=1e-7), decoupled)


def test_hvm():
    z_variance = B**2 * C**2 + T**2
    # x~ = X + c e, z = MEAN + b c e + t f: log r has mean X + z / 10, scale 1.1.
    gap_mean = -0.1 * MEAN
    gap_variance = (C - 0.1 * B * C) ** 2 + (0.1 * T) ** 2
    log_r = -(gap_mean**2 + gap_variance) / (2 * 1.21) - 0.5 * LOG_2PI - math.log(1.1)
    log_c = -0.5 - 0.5 * LOG_2PI - math.log(C)
    assert within(evaluate(O.hvm, linear(), X), expected_joint(MEAN, z_variance) + log_r - log_c + ENTROPY)


def hermite(n):
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return nodes, weights / weights.sum()


def log_w(z):
    return (
        gaussian(z, 0, 1) + gaussian(X, A * z, S**2) - gaussian(z, MEAN, T**2)
        if np.isscalar(z)
        else (-(z**2) / 2 - 0.5 * LOG_2PI - (X - A * z) ** 2 / (2 * S**2) - 0.5 * math.log(2 * math.pi * S**2))
        + (z - MEAN) ** 2 / (2 * T**2)
        + 0.5 * math.log(2 * math.pi * T**2)
    )


@pytest.mark.parametrize("k", [2, 3])
def test_iwae_against_a_gauss_hermite_tensor(k):
    nodes, weights = hermite(60)
    logs = log_w(MEAN + T * nodes)
    total, mass = logs, weights
    for _ in range(k - 1):
        total = np.logaddexp(total[..., None], logs)
        mass = mass[..., None] * weights
    truth = float((mass * (total - math.log(k))).sum())
    value = evaluate(O.iwae, linear(), X, k=k)
    assert abs(float(value) - truth) <= value.error + 1e-9  # the tensor rule is good to about 1e-10


def test_iwae_of_many_copies_against_sampling():
    """6 standard errors: false alarms below 1e-8."""
    rng = np.random.default_rng(7)
    for k in (10, 200):
        logs = log_w(MEAN + T * rng.standard_normal((2_000_000 // k, k)))
        draws = np.logaddexp.reduce(logs, axis=1) - math.log(k)
        value = evaluate(O.iwae, linear(), X, k=k)
        assert abs(float(value) - draws.mean()) < 6 * draws.std() / math.sqrt(len(draws)) + value.error


def test_iwae_rises_to_the_evidence():
    values = [evaluate(O.iwae, linear(), X, k=k) for k in (1, 2, 4, 16, 256, 5000)]
    for smaller, larger in itertools.pairwise(values):
        assert float(smaller) <= float(larger) + smaller.error + larger.error
    assert float(values[-1]) <= EVIDENCE + values[-1].error


def test_sivi_with_a_discrete_corruption_against_enumeration():
    points, probabilities = (-1.0, 0.5, 2.0), (0.2, 0.5, 0.3)
    model = ContinuousModel(
        Normal(0, 1),
        lambda z: Normal(A * z, S),
        encoder=lambda x: Normal(B * x + 0.2, T),
        corruption=lambda x: Discrete(dict(zip(points, probabilities, strict=True))),
    )
    truth = sivi_two(A, B, S, T, X, dict(zip(points, probabilities, strict=True)))
    assert abs(float(evaluate(O.sivi, model, X, k=2)) - truth) < 1e-8


def test_the_points_of_a_discrete_space_count_once_each():
    """Not by their probabilities: sum_x~ c(x~|x) is one, and the optimal auxiliary model closes HVM's gap."""
    model = ContinuousModel(
        Normal(0, 1),
        lambda z: Normal(z, 1),
        encoder=lambda x: Normal(x / 2, 1),
        corruption=lambda x: Discrete({-1: "1/4", 0.5: "3/4"}),
    )
    assert within(evaluate(lambda m, x: log(integrate(m.corrupted, lambda c: m.corruption(x).prob(c))), model, 0.5), 0)
    hvm, marginal = evaluate(O.hvm_optimal, model, 0.5), evaluate(O.marginal_elbo, model, 0.5)
    assert abs(float(hvm) - float(marginal)) <= hvm.error + marginal.error


def test_two_and_three_latent_dimensions():
    loadings = np.array([[1.0, 0.5, -0.4], [0.2, -1.0, 0.7]])
    x = np.array([0.4, -1.1])
    for d in (2, 3):
        rows = loadings[:, :d]
        model = ContinuousModel(
            [Normal(0, 1)] * d,
            lambda z, rows=rows, d=d: [Normal(sum(rows[i, j] * z[j] for j in range(d)), 0.7) for i in range(2)],
            encoder=lambda x, d=d: [Normal(0.3 * x[0] - 0.1 * j, 0.8) for j in range(d)],
        )
        covariance = rows @ rows.T + 0.49 * np.eye(2)
        truth = -0.5 * x @ np.linalg.solve(covariance, x) - 0.5 * np.linalg.slogdet(covariance)[1] - LOG_2PI
        tolerance = 1e-10 if d == 2 else 1e-6
        assert within(evaluate(O.log_evidence, model, tuple(x), tolerance=tolerance), truth)
        if d == 2:
            mean = np.array([0.12, 0.02])
            fit = -0.5 * (((x - rows @ mean) ** 2).sum() + 0.64 * (rows**2).sum()) / 0.49
            truth = fit - LOG_2PI - 2 * math.log(0.7) - 0.5 * (mean @ mean + 2 * 0.64) + 2 * (0.5 + math.log(0.8))
            assert within(evaluate(O.elbo, model, tuple(x)), truth)


# --- against mpmath ------------------------------------------------------------------------------------------------


def mp_prior(name, z):
    if name == "normal":
        return mp.exp(-(z**2) / 2) / mp.sqrt(2 * mp.pi)
    if name == "laplace":
        return mp.exp(-abs(z - mpf("0.3")) / mpf("0.5"))
    if name == "student":
        return mp.gamma(2) / mp.gamma(mpf(3) / 2) / mp.sqrt(3 * mp.pi) * (1 + z**2 / 3) ** -2
    if name == "logistic":
        return mp.exp(-z) / (1 + mp.exp(-z)) ** 2
    narrow = mp.exp(-(((z - 2) / mpf("0.05")) ** 2) / 2) / mpf("0.05")
    return (mpf("0.25") * narrow + mpf("0.75") * mp.exp(-((z + 1) ** 2) / 2)) / mp.sqrt(2 * mp.pi)


PRIORS = {
    "normal": Normal(0, 1),
    "laplace": Laplace("0.3", "0.5"),
    "student": StudentT(3),
    "logistic": Logistic(0, 1),
    "mixture": Mixture(("1/4", "3/4"), (Normal(2, "0.05"), Normal(-1, 1))),
}


def mp_likelihood(name, z):
    if name == "bernoulli":
        return 1 / (1 + mp.exp(-(3 * z - 1)))
    if name == "binomial":
        p = 1 / (1 + mp.exp(-z))
        return mp.binomial(20, 17) * p**17 * (1 - p) ** 3
    if name == "poisson":
        if z > 60:  # exp(-exp(30)); mpmath would work on its exponent for ever
            return mpf(0)
        rate = mp.exp(z / 2 + 1)
        return rate**9 * mp.exp(-rate) / mp.factorial(9)
    return mp.exp(-(((mpf("1.5") - z) / mpf("0.01")) ** 2) / 2) / (mpf("0.01") * mp.sqrt(2 * mp.pi))


LIKELIHOODS = {
    "bernoulli": (lambda z: BernoulliLogit(3 * z - 1), 1),
    "binomial": (lambda z: Binomial(20, z), 17),
    "poisson": (lambda z: PoissonLog(z / 2 + 1), 9),
    "normal": (lambda z: Normal(z, 0.01), 1.5),
}


QUICK = [("laplace", "bernoulli"), ("student", "poisson"), ("logistic", "normal"), ("mixture", "binomial")]
PAIRS = [
    pytest.param(prior, likelihood, marks=() if (prior, likelihood) in QUICK else pytest.mark.slow)
    for prior in PRIORS
    for likelihood in LIKELIHOODS
]


@pytest.mark.parametrize(("prior", "likelihood"), PAIRS)
def test_evidence_against_mpmath(prior, likelihood):
    model, x = ContinuousModel(PRIORS[prior], LIKELIHOODS[likelihood][0]), LIKELIHOODS[likelihood][1]
    breaks = [-mp.inf, -30, -8, -3, -1, 0, mpf("0.3"), 1, mpf("1.4"), mpf("1.5"), mpf("1.6"),
              mpf("1.8"), 2, mpf("2.2"), 3, 5, 9, 30, mp.inf]  # fmt: skip
    with mp.workdps(25):
        truth = mp.log(mp.quad(lambda z: mp_prior(prior, z) * mp_likelihood(likelihood, z), breaks))
    value = evaluate(O.log_evidence, model, x)
    assert within(value, truth)
    assert value.error < 1e-8


def test_a_narrow_peak_inside_a_wide_likelihood():
    """x = z^2 with a narrow component, so four peaks of width about 1e-4."""
    model = ContinuousModel(
        Mixture(("3/10", "7/10"), (Normal(-3, "1/10000"), Normal(3, 1))),
        lambda z: Mixture(("1/2", "1/2"), (Normal(z * z, "1/1000"), Normal(z, 1))),
    )

    def density(z):
        root = mp.sqrt(2 * mp.pi)
        prior = mpf(3) / 10 * mp.exp(-(((z + 3) * 10000) ** 2) / 2) * 10000 / root
        prior += mpf(7) / 10 * mp.exp(-((z - 3) ** 2) / 2) / root
        narrow = mp.exp(-(((9 - z * z) * 1000) ** 2) / 2) * 1000 / root
        return prior * (narrow + mp.exp(-((9 - z) ** 2) / 2) / root) / 2

    with mp.workdps(30):
        peaks = [c + s * mpf(10) ** -e for c in (-3, 3) for e in (5, 4, 3, 2, 1) for s in (-3, -1, 0, 1, 3)]
        truth = mp.log(mp.quad(density, sorted({mpf(-20), mpf(20), mpf(0), mpf(6), mpf(9), *peaks})))
    assert within(evaluate(O.log_evidence, model, 9), truth)


# --- what cannot be computed ---------------------------------------------------------------------------------------


def test_an_improper_posterior_is_refused():
    model = ContinuousModel(Normal(0, 1), lambda z: Normal(z, 1), encoder=lambda x: Normal(0, 1))

    def formula(m, x):
        flat = O.normalised(
            m.latent, lambda z: 0 * m.log_joint(x, z) + 2 * m.prior().log_prob(z) - 3 * m.log_joint(x, z)
        )
        return E(flat, lambda z: m.prior().log_prob(z))

    with pytest.raises(CannotCompute, match="improper"):
        evaluate(formula, model, 0.5)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (lambda: ContinuousModel(Normal(0, 0), lambda z: Normal(z, 1)), 0.5),
        (lambda: ContinuousModel(Normal(0, 1), lambda z: Normal(z, 0)), 0.5),
        (lambda: ContinuousModel(Normal(0, math.nan), lambda z: Normal(z, 1)), 0.5),
        (lambda: ContinuousModel(Normal(0, 1), lambda z: BernoulliLogit(z)), 2),
        (lambda: ContinuousModel(Normal(0, 1), lambda z: Normal(z, 1)), (0.5, 0.5)),
        (lambda: ContinuousModel(Normal(0, 1), lambda z: Normal(z, 1)), math.nan),
        (lambda: ContinuousModel(Normal(0, 1), lambda z: Normal(z, 1)), "a"),
        (lambda: ContinuousModel([Normal(0, 1)] * 4, lambda z: Normal(z[0], 1)), 0.5),
    ],
)
def test_bad_input_is_named(model, x):
    with pytest.raises(BadInput):
        evaluate(O.log_evidence, model(), x)


@pytest.mark.parametrize("mean", [1e300, 1e200])
def test_values_beyond_floats_are_refused(mean):
    with pytest.raises(CannotCompute):
        evaluate(O.log_evidence, ContinuousModel(Normal(mean, 1), lambda z: Normal(z, 1)), 0.0)


def test_a_scale_of_1e300_is_no_trouble_or_refused():
    model = ContinuousModel(Normal(0, 1e300), lambda z: Normal(z, 1))
    try:
        value = evaluate(O.log_evidence, model, 0.0)
    except CannotCompute:
        return
    assert abs(float(value) - (-0.5 * LOG_2PI - math.log(1e300))) <= value.error


def test_too_many_dimensions_are_named():
    model = ContinuousModel(
        [Normal(0, 1)] * 3,
        lambda z: Normal(z[0], 1),
        encoder=lambda x: [Normal(x, 1)] * 3,
        corruption=lambda x: Normal(x, 1),
    )
    with pytest.raises(CannotCompute, match="4 continuous dimensions"):
        evaluate(O.denoising_coupled, model, 0.5)
    with pytest.raises(CannotCompute, match="continuous dimensions"):
        evaluate(O.iwae, model, 0.5, k=2)


def test_the_largest_of_copies_is_refused():
    with pytest.raises(CannotCompute, match="copies"):
        evaluate(lambda m, x: E(m.encoder(x).copies(3), lambda z: maximum_over(m.log_joint(x, z))), linear(), X)


def test_a_decoder_that_overflows_far_out_is_no_mistake():
    model = ContinuousModel(Normal(0, 1), lambda z: Normal(F.exp(z), 0.1), encoder=lambda x: Normal(0, 1))
    second = math.exp(2) - 2 * 2 * math.exp(0.5) + 4  # E (2 - e^z)^2
    truth = -second / 0.02 - 0.5 * LOG_2PI - math.log(0.1)
    assert within(evaluate(lambda m, x: E(m.encoder(x), lambda z: m.likelihood(z).log_prob(x)), model, 2.0), truth)


def test_an_expectation_that_overflows_is_never_a_large_number():
    model = ContinuousModel(Normal(0, 1), lambda z: PoissonLog(z * z), encoder=lambda x: Normal(0, 1))
    with np.errstate(all="ignore"):
        try:
            value = evaluate(lambda m, x: E(m.encoder(x), lambda z: m.likelihood(z).log_prob(x)), model, 2)
        except CannotCompute:
            return
    assert float(value) == -math.inf


def test_a_space_of_the_users_own():
    space = Space("u", (0, 3))
    value = evaluate(lambda m, x: log(integrate(space, lambda u: exp(-2 * u))), linear(), X)
    assert within(value, math.log((1 - math.exp(-6)) / 2))


def test_a_cauchy_tail():
    model = ContinuousModel(StudentT(1), lambda z: BernoulliLogit(z))
    assert within(evaluate(O.log_evidence, model, 1), math.log(0.5))


# --- sweeps: the error estimate confronted with the truth ------------------------------------------------------------


def log_density_of(kind, v, a, b):
    """Densities written out again, in extended precision."""
    t = (v - a) / b
    if kind == "normal":
        return -t * t / 2 - np.log(b) - np.log(2 * np.longdouble(np.pi)) / 2
    if kind == "laplace":
        return -np.abs(t) - np.log(2 * b)
    if kind == "logistic":
        return -np.abs(t) - 2 * np.log1p(np.exp(-np.abs(t))) - np.log(b)
    # Student's t with 4 degrees of freedom: Gamma(5/2) / (Gamma(2) sqrt(4 pi)) = 3/8
    return np.log(np.longdouble(3) / 8) - np.log(b) - 2.5 * np.log1p(t * t / 4)


def log_likelihood_of(kind, z, slope, shift, width, x):
    f = slope * z + shift
    if kind == "normal":
        return log_density_of("normal", x, f, width)
    softplus = np.maximum(f, 0) + np.log1p(np.exp(-np.abs(f)))
    if kind == "bernoulli":
        return x * f - softplus
    if kind == "binomial":
        return np.log(np.longdouble(math.comb(12, int(x)))) + x * f - 12 * softplus
    return x * f - np.exp(f) - np.log(np.longdouble(math.factorial(int(x))))


GAUSS_NODES, GAUSS_WEIGHTS = (a.astype(np.longdouble) for a in np.polynomial.legendre.leggauss(16))


def fine_nodes(places):
    """Gauss-Legendre nodes and weights on geometric panels around every (center, width), out to 1e8 of the widest."""
    widest = max(width for _, width in places)
    breaks = [np.longdouble(0)]
    for center, width in places:
        steps = np.longdouble(width) * np.longdouble(2) ** np.arange(-6, math.log2(1e8 * widest / width))
        breaks = np.concatenate([breaks, [center], center - steps, center + steps])
        near = np.longdouble(width) * np.arange(-30, 30.5, 0.5)
        breaks = np.concatenate([breaks, center + near])
    breaks = np.unique(breaks)
    half, middle = np.diff(breaks) / 2, (breaks[1:] + breaks[:-1]) / 2
    return (middle[:, None] + half[:, None] * GAUSS_NODES).ravel(), (half[:, None] * GAUSS_WEIGHTS).ravel()


BUILDERS = {
    "normal": Normal,
    "laplace": Laplace,
    "logistic": Logistic,
    "student": lambda location, scale: StudentT(4, location, scale),
}


def draw(kind, count, rng):
    """Parameters of random models: peaks down to a width of 1e-4, observations out to far tails."""
    slope = rng.choice([-1, 1], count) * np.exp(rng.uniform(-1, 1.5, count))
    shift = rng.normal(0, 2, count)
    width = 10.0 ** rng.uniform(-4, 0.5, count)
    location, scale = rng.normal(0, 2, count), np.exp(rng.uniform(-1.5, 1.5, count))
    guess, spread = rng.normal(0, 2, count), np.exp(rng.uniform(-2, 1.5, count))
    far = np.where(rng.uniform(size=count) < 0.3, 50.0, 1.0)
    x = {
        "normal": rng.normal(0, 3, count) * far,
        "bernoulli": rng.integers(0, 2, count).astype(float),
        "binomial": rng.integers(0, 13, count).astype(float),
        "poisson": rng.integers(0, 40, count).astype(float),
    }[kind]
    return {"slope": slope, "shift": shift, "width": width, "location": location, "scale": scale,
            "guess": guess, "spread": spread}, x  # fmt: skip


def family_of(prior, likelihood, encoder):
    def family(slope, shift, width, location, scale, guess, spread):
        def decoder(z):
            f = slope * z + shift
            return {
                "normal": lambda: Normal(f, width),
                "bernoulli": lambda: BernoulliLogit(f),
                "binomial": lambda: Binomial(12, f),
                "poisson": lambda: PoissonLog(f),
            }[likelihood]()

        return ContinuousModel(
            BUILDERS[prior](location, scale), decoder, encoder=lambda x: BUILDERS[encoder](guess, spread)
        )

    return family


@np.errstate(all="ignore")  # the far nodes overflow, and every likelihood's place is computed
def truths(prior, likelihood, encoder, of, x):
    evidence, elbo = [], []
    for i in range(len(x)):
        p = {name: np.longdouble(column[i]) for name, column in of.items()}
        observed = np.longdouble(x[i])
        target = {
            "normal": observed,
            "bernoulli": np.longdouble(0),
            "binomial": np.log((observed + 0.5) / (12.5 - observed)),
            "poisson": np.log(observed + 0.5),
        }[likelihood]
        sharp = {"normal": p["width"], "bernoulli": 1, "binomial": 0.3, "poisson": 1 / np.sqrt(observed + 1)}[
            likelihood
        ]
        root, width = (target - p["shift"]) / p["slope"], sharp / abs(p["slope"])
        places = [(p["location"], p["scale"]), (root, width)]
        mode = (p["location"] / p["scale"] ** 2 + root / width**2) / (1 / p["scale"] ** 2 + 1 / width**2)
        places.append((mode, 1 / np.sqrt(1 / p["scale"] ** 2 + 1 / width**2)))
        z, w = fine_nodes(places)
        joint = log_density_of(prior, z, p["location"], p["scale"])
        joint = joint + log_likelihood_of(likelihood, z, p["slope"], p["shift"], p["width"], observed)
        top = joint.max()
        evidence.append(top + np.log((w * np.exp(joint - top)).sum()))
        z, w = fine_nodes([(p["guess"], p["spread"]), (p["location"], p["scale"])])
        joint = log_density_of(prior, z, p["location"], p["scale"])
        joint = joint + log_likelihood_of(likelihood, z, p["slope"], p["shift"], p["width"], observed)
        q = log_density_of(encoder, z, p["guess"], p["spread"])
        weight = np.exp(q)
        elbo.append((w * weight * np.where(weight > 0, joint - q, 0)).sum())
    return np.array(evidence), np.array(elbo)


def sweep(count, seed):
    """(covered, all, failures) over every pair of prior and likelihood, `count` models each."""
    rng = np.random.default_rng(seed)
    covered, total, failures = 0, 0, []
    for prior in BUILDERS:
        for likelihood in ("normal", "bernoulli", "binomial", "poisson"):
            # A Poisson rate is an exponential, whose mean a heavier encoder does not have.
            encoder = "normal" if likelihood == "poisson" else str(rng.choice(["normal", "laplace", "logistic"]))
            of, x = draw(likelihood, count, rng)
            family = family_of(prior, likelihood, encoder)
            for objective, truth in zip(
                (O.log_evidence, O.elbo), truths(prior, likelihood, encoder, of, x), strict=True
            ):
                values, errors = evaluate_many(objective, family, x, of)
                # The truth is good to some units of its own precision, and to those of its float64 nodes' weights.
                fits = np.abs(values - truth) <= errors + 1e-15 * (1 + np.abs(truth))
                covered += int(fits.sum())
                total += len(fits)
                failures += [
                    (prior, likelihood, encoder, objective.__name__, int(i), float(values[i]), float(errors[i]),
                     float(truth[i]), {name: float(c[i]) for name, c in of.items()}, float(x[i]))
                    for i in np.flatnonzero(~fits)
                ]  # fmt: skip
                # An error estimate that is always large would cover everything and say nothing.
                assert np.median(errors / (1 + np.abs(truth))) < 1e-9
    return covered, total, failures


def test_the_truth_lies_within_the_error():
    covered, total, failures = sweep(12, seed=1)
    assert covered >= 0.999 * total, failures[:5]


@pytest.mark.slow
def test_the_truth_lies_within_the_error_on_thousands_of_models():
    covered, total, failures = sweep(250, seed=2)
    assert total == 8000
    assert covered >= 0.999 * total, (len(failures), failures[:5])


def test_many_models_at_once_are_each_of_them():
    rng = np.random.default_rng(3)
    of, x = draw("binomial", 5, rng)
    family = family_of("laplace", "binomial", "logistic")
    for objective, extra in ((O.log_evidence, {}), (O.elbo, {}), (O.iwae, {"k": 3})):
        values, errors = evaluate_many(objective, family, x, of, **extra)
        for i in range(5):
            alone = evaluate(objective, family(**{n: float(c[i]) for n, c in of.items()}), int(x[i]), **extra)
            assert abs(float(alone) - values[i]) <= alone.error + errors[i]


def test_many_models_need_arrays_of_one_length():
    family = family_of("normal", "normal", "normal")
    with pytest.raises(BadInput, match="of = "):
        evaluate_many(O.elbo, family, 0.5, {})
    with pytest.raises(BoundcheckError):
        evaluate_many(O.elbo, family, np.zeros(3), {"slope": np.ones(2)} | dict.fromkeys(
            ("shift", "width", "location", "scale", "guess", "spread"), np.ones(2)))  # fmt: skip


def test_tolerance_is_checked():
    with pytest.raises(BadInput, match="tolerance"):
        evaluate(O.elbo, linear(), X, tolerance=0)
    with pytest.raises(FormulaError):
        evaluate(O.iwae, linear(), X)
