"""Certified integration against mpmath, which shares no code path with it: own densities, own quadrature, no balls."""

from __future__ import annotations

import random
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
from flint import acb, arb, fmpq

from boundcheck.catalogue import objectives
from boundcheck.errors import CannotCompute
from boundcheck.evaluators import integration_rules, integration_tails
from boundcheck.evaluators.integration import evaluate
from boundcheck.evaluators.integration_atoms import Growth, LogSquare, Softplus
from boundcheck.evaluators.integration_forms import Form
from boundcheck.language import kl
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

DIGITS = 30
SLACK = 1e-22  # what mpmath may be off by, far below the width of any enclosure that is tested


@pytest.fixture(autouse=True)
def _digits():
    with mp.workdps(DIGITS):
        yield


# --- the truth: log-densities in mpmath --------------------------------------------------------------------------


def _log_mp(law, v):
    """The log-density of a law, written again from its definition."""
    if isinstance(law, Normal):
        t = (v - mp.mpf(law.mean)) / mp.mpf(law.scale)
        return -t * t / 2 - mp.log(mp.mpf(law.scale)) - mp.log(2 * mp.pi) / 2
    if isinstance(law, Laplace):
        return -abs(v - mp.mpf(law.location)) / mp.mpf(law.scale) - mp.log(2 * mp.mpf(law.scale))
    if isinstance(law, Logistic):
        t = (v - mp.mpf(law.location)) / mp.mpf(law.scale)
        return -2 * mp.log(2 * mp.cosh(t / 2)) - mp.log(mp.mpf(law.scale))
    if isinstance(law, StudentT):
        nu, s = mp.mpf(law.freedom), mp.mpf(law.scale)
        t = (v - mp.mpf(law.location)) / s
        c = mp.loggamma((nu + 1) / 2) - mp.loggamma(nu / 2) - mp.log(nu * mp.pi) / 2 - mp.log(s)
        return c - (nu + 1) / 2 * mp.log1p(t * t / nu)
    if isinstance(law, Uniform):
        lower, upper = mp.mpf(law.lower), mp.mpf(law.upper)
        return -mp.log(upper - lower) if lower <= v <= upper else mp.ninf
    if isinstance(law, Mixture):
        return mp.log(sum(mp.mpf(w) * mp.exp(_log_mp(c, v)) for w, c in zip(law.weights, law.components, strict=True)))
    if isinstance(law, BernoulliLogit):
        return -_softplus_mp(-law.logit if v == 1 else law.logit)
    if isinstance(law, Binomial):
        n = law.n
        return mp.log(mp.binomial(n, v)) - v * _softplus_mp(-law.logit) - (n - v) * _softplus_mp(law.logit)
    if isinstance(law, PoissonLog):
        return v * law.log_rate - mp.exp(law.log_rate) - mp.log(mp.factorial(v))
    raise TypeError(law)


def _softplus_mp(u):
    return mp.log1p(mp.exp(-u)) + u if u > 0 else mp.log1p(mp.exp(u))


@dataclass
class Case:
    """A model, its observation, and its likelihood as (law, slope, intercept, further parameters, x)."""

    prior: object
    encoder: object
    likelihood: list
    corruption: dict | None = None

    @property
    def x(self):
        xs = tuple(entry[-1] for entry in self.likelihood)
        return xs if len(xs) > 1 else xs[0]

    def model(self):
        def likelihood(z):
            return [make(a * z + b) for make, a, b, _ in self.likelihood]

        encoder = self.encoder if callable(self.encoder) else (lambda x: self.encoder)
        corruption = None if self.corruption is None else (lambda x: Discrete(self.corruption))
        return ContinuousModel(self.prior, likelihood, encoder, corruption)

    def log_likelihood(self, z):
        total = mp.mpf(0)
        for make, a, b, x in self.likelihood:
            total += _log_mp(_Deferred.build(make, mp.mpf(a) * z + mp.mpf(b)), mp.mpf(x))
        return total

    def log_joint(self, z):
        return _log_mp(self.prior, z) + self.log_likelihood(z)


class _Deferred:
    """Likelihood laws hold mpmath numbers here, which their constructors would not take."""

    @staticmethod
    def build(make, location):
        law = make(0.0)
        names = {"Normal": "mean", "Laplace": "location", "Logistic": "location", "StudentT": "location"}
        names |= {"BernoulliLogit": "logit", "Binomial": "logit", "PoissonLog": "log_rate"}
        object.__setattr__(law, names[type(law).__name__], location)
        return law


def _window(log_f, body, centre, scale):
    """Where exp(log_f) * body matters, by walking outwards until it has fallen by 2.4 DIGITS nats."""

    def size(z):
        value = log_f(z)
        return value + mp.log(mp.mpf(10) ** -DIGITS + abs(body(z))) if mp.isfinite(value) else mp.ninf

    with mp.workdps(15):
        step = mp.mpf(scale) / 2
        grid = [centre + step * k for k in range(-60, 61)]
        top = max(size(z) for z in grid)
        low = high = mp.mpf(centre)
        ends = []
        for direction in (-1, 1):
            distance, last = step, mp.mpf(centre)
            while any(size(centre + direction * d) > top - 2.4 * DIGITS for d in (distance, 1.7 * distance)):
                distance = distance * 1.1 + step
                assert distance < 1e9 * scale, "no window"
            last = centre + direction * distance
            ends.append(last)
        low, high = ends
    return low, high, max(log_f(z) for z in grid)


def _integral(log_f, body, centre, scale, kinks=(), bounds=None, heavy=False):
    """(v, top) with exp(top) * v the integral of exp(log_f) * body.

    Smooth integrands: sums over equidistant points, halved until they agree. With kinks or edges: mpmath's own rule.
    """
    if heavy:
        low, high, top = mp.ninf, mp.inf, log_f(mp.mpf(centre))
    else:
        low, high, top = _window(log_f, body, centre, scale)

    def f(z):
        return mp.exp(log_f(z) - top) * body(z)

    if bounds is not None:
        low, high = bounds
    if heavy or kinks or bounds is not None:
        inner = {k + s * d for k in (*kinks, centre) for s in (-1, 1) for d in (0, 2 * scale, 8 * scale)}
        return mp.quad(f, [low, *sorted(k for k in inner if low < k < high), high]), top
    n, previous = 64, None
    total = sum(f(low + (high - low) * k / n) for k in range(n + 1))
    while n < 40_000:
        value = total * (high - low) / n
        if previous is not None and abs(value - previous) <= mp.mpf(10) ** (6 - DIGITS) * abs(value):
            return value, top
        previous = value
        total += sum(f(low + (high - low) * (2 * k + 1) / (2 * n)) for k in range(n))
        n *= 2
    raise AssertionError("the truth did not converge")


def _parts(law):
    return law.components if isinstance(law, Mixture) else (law,)


def _kinks(case, *laws):
    found = [mp.mpf(part.location) for law in laws for part in _parts(law) if isinstance(part, Laplace)]
    for make, a, b, x in case.likelihood:
        if isinstance(make(0.0), Laplace):
            found.append((mp.mpf(x) - mp.mpf(b)) / mp.mpf(a))
    return found


def _bounds(law):
    return (mp.mpf(law.lower), mp.mpf(law.upper)) if isinstance(law, Uniform) else None


def _truth(case, name, n=None):
    """The value of a formula in mpmath."""
    joint, q, p = case.log_joint, case.encoder, case.prior
    centre, scale = float(p.center()), max(float(p.spread()), 0.1)
    heavy = isinstance(p, StudentT)

    def log_q(z):
        return _log_mp(q, z)

    def one(z):
        return mp.mpf(1)

    def under_q(body):
        kinks, at, width = _kinks(case, p, q), float(q.center()), max(float(q.spread()), 0.1)
        value, top = _integral(log_q, body, at, width, kinks, _bounds(q), isinstance(q, StudentT))
        return value * mp.exp(top)

    if name == "log_evidence":
        value, top = _integral(joint, one, centre, scale, _kinks(case, p), _bounds(p), heavy)
        return mp.log(value) + top
    if name == "elbo":
        return under_q(lambda z: joint(z) - log_q(z))
    if name == "reconstruction":
        return under_q(case.log_likelihood)
    if name == "kl":
        return under_q(lambda z: log_q(z) - _log_mp(p, z))
    kinks = _kinks(case, p, q)
    if name == "cubo":
        value, top = _integral(lambda z: n * joint(z) + (1 - n) * log_q(z), one, centre, scale, kinks)
        return (mp.log(value) + top) / n
    assert name == "eubo"
    value, top = _integral(joint, lambda z: joint(z) - log_q(z), centre, scale, kinks, _bounds(p), heavy)
    mass, other = _integral(joint, one, centre, scale, kinks, _bounds(p), heavy)
    return value / mass * mp.exp(top - other)


def _check(enclosure, truth, width=1e-12):
    ball = enclosure.ball
    with mp.workdps(DIGITS):
        middle = mp.mpf(ball.mid().str(45, radius=False))
        radius = mp.mpf(float(ball.rad()))
        assert abs(middle - truth) <= radius + SLACK * (1 + abs(truth)), (str(enclosure), mp.nstr(truth, 25))
    assert float(ball.rad()) <= width * max(1.0, abs(float(ball.mid())) / 1000), str(enclosure)


# --- random models ------------------------------------------------------------------------------------------------


def _number(rng, low, high):
    return rng.choice([round(rng.uniform(low, high), 2), rng.uniform(low, high)])


def _law(rng, kind):
    location, scale = _number(rng, -2, 2), _number(rng, 0.3, 2)
    if kind == "normal":
        return Normal(location, scale)
    if kind == "laplace":
        return Laplace(location, scale)
    if kind == "logistic":
        return Logistic(location, scale)
    if kind == "student":
        return StudentT(rng.choice([1, 2.5, 3, 4, 7.3]), location, scale)
    if kind == "uniform":
        return Uniform(location - scale, location + 2 * scale)
    parts = (Normal(location, scale), Normal(location + _number(rng, 0.5, 3), _number(rng, 0.3, 2)))
    return Mixture((0.25, 0.75), parts)


def _likelihood(rng, kind):
    a, b = rng.choice([-1, 1]) * _number(rng, 0.3, 2), _number(rng, -1, 1)
    scale = _number(rng, 0.3, 1.5)
    if kind == "bernoulli":
        return [(BernoulliLogit, a, b - i, rng.randint(0, 1)) for i in range(rng.randint(1, 4))]
    if kind == "binomial":
        return [(partial(Binomial, 5), a, b, rng.randint(0, 5))]
    if kind == "poisson":
        return [(PoissonLog, a, b, rng.randint(0, 6))]
    if kind == "normal":
        return [(lambda u: Normal(u, scale), a, b, _number(rng, -2, 2))]
    if kind == "laplace":
        return [(lambda u: Laplace(u, scale), a, b, _number(rng, -2, 2))]
    if kind == "logistic":
        return [(lambda u: Logistic(u, scale), a, b, _number(rng, -2, 2))]
    return [(lambda u: StudentT(3, u, scale), a, b, _number(rng, -2, 2))]


PRIORS = ["normal", "laplace", "logistic", "student", "uniform", "mixture"]
LIKELIHOODS = ["bernoulli", "binomial", "poisson", "normal", "laplace", "logistic", "student"]
FORMULAS = {
    "log_evidence": objectives.log_evidence,
    "elbo": objectives.elbo,
    "reconstruction": objectives.reconstruction,
    "kl": lambda m, x: kl(m.encoder(x), m.prior()),
    "eubo": objectives.eubo,
}


def _compare(case, name):
    value = evaluate(FORMULAS[name], case.model(), case.x)
    with mp.workdps(DIGITS):
        _check(value, _truth(case, name))


# --- laws, pair by pair --------------------------------------------------------------------------------------------


SMOOTH = ("normal", "logistic", "mixture")


def _evidence(prior, likelihood, repeats):
    rng = random.Random(f"{prior} {likelihood}")
    for _ in range(repeats):
        _compare(Case(_law(rng, prior), _law(rng, "normal"), _likelihood(rng, likelihood)), "log_evidence")


@pytest.mark.parametrize("likelihood", [name for name in LIKELIHOODS if name != "laplace"])
@pytest.mark.parametrize("prior", SMOOTH)
def test_evidence_of_each_pair_of_smooth_laws(prior, likelihood):
    _evidence(prior, likelihood, 1)


@pytest.mark.parametrize(
    ("prior", "likelihood"),
    [("laplace", "bernoulli"), ("uniform", "poisson"), ("student", "normal"), ("normal", "laplace")],
)
def test_evidence_with_kinks_edges_and_heavy_tails(prior, likelihood):
    _evidence(prior, likelihood, 1)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("prior", PRIORS)
def test_evidence_of_each_pair_of_laws_at_length(prior, likelihood):
    _evidence(prior, likelihood, 10)


@pytest.mark.parametrize("name", ["elbo", "reconstruction", "kl", "eubo"])
@pytest.mark.parametrize("encoder", ["normal", "logistic"])
@pytest.mark.parametrize("prior", ["normal", "logistic", "mixture"])
def test_expectations_of_log_densities(name, encoder, prior):
    rng = random.Random(f"{name} {encoder} {prior}")
    for likelihood in rng.sample(["bernoulli", "normal", "logistic", "student"], 1):
        _compare(Case(_law(rng, prior), _law(rng, encoder), _likelihood(rng, likelihood)), name)


@pytest.mark.parametrize(
    ("name", "prior", "encoder"),
    [
        ("elbo", "laplace", "normal"),
        ("elbo", "uniform", "uniform"),
        ("kl", "student", "laplace"),
        ("elbo", "student", "student"),
        ("reconstruction", "normal", "uniform"),
        ("eubo", "laplace", "laplace"),
    ],
)
def test_expectations_with_kinks_edges_and_heavy_tails(name, prior, encoder):
    rng = random.Random(f"{name} {prior} {encoder}")
    case = Case(_law(rng, prior), _law(rng, encoder), _likelihood(rng, "bernoulli"))
    if encoder == "uniform" and prior == "uniform":
        case.prior = Uniform(case.encoder.lower - 0.5, case.encoder.upper + 0.25)
    _compare(case, name)


# --- closed forms: everything Gaussian -------------------------------------------------------------------------------


def _gaussian_truth(m0, s0, s, q_mean, q_scale, x, n):
    """log E_q[w^n] / n, log p(x) and the ELBO for z ~ N(m0, s0), x ~ N(z, s), in mpmath."""
    m0, s0, s, mu, t, x = (mp.mpf(v) for v in (m0, s0, s, q_mean, q_scale, x))
    variance = s0**2 + s**2
    evidence = -((x - m0) ** 2) / (2 * variance) - mp.log(2 * mp.pi * variance) / 2
    expected = -mp.log(2 * mp.pi * s**2) / 2 - ((x - mu) ** 2 + t**2) / (2 * s**2)
    divergence = mp.log(s0 / t) + (t**2 + (mu - m0) ** 2) / (2 * s0**2) - mp.mpf(1) / 2
    precision = n / s0**2 + n / s**2 + (1 - n) / t**2
    if precision <= 0:
        return evidence, expected - divergence, mp.inf
    linear = n * m0 / s0**2 + n * x / s**2 + (1 - n) * mu / t**2
    constant = n * m0**2 / s0**2 + n * x**2 / s**2 + (1 - n) * mu**2 / t**2
    logs = -n * mp.log(2 * mp.pi * s0**2) - n * mp.log(2 * mp.pi * s**2) - (1 - n) * mp.log(2 * mp.pi * t**2)
    power = (logs - constant + linear**2 / precision + mp.log(2 * mp.pi / precision)) / 2
    return evidence, expected - divergence, power / n


def _gaussian_case(rng):
    wide = rng.random() < 0.3
    scale = (lambda: 10 ** rng.uniform(-4, 4)) if wide else (lambda: rng.uniform(0.2, 3))
    place = (lambda: rng.uniform(-1e3, 1e3)) if wide else (lambda: rng.uniform(-3, 3))
    return place(), scale(), scale(), place(), scale(), place()


def _run_gaussian(seed):
    rng = random.Random(seed)
    m0, s0, s, mean, scale, x = _gaussian_case(rng)
    model = ContinuousModel(Normal(m0, s0), lambda z: Normal(z, s), lambda x: Normal(mean, scale))
    n = rng.choice([Fraction(1, 2), Fraction(2), Fraction(-1), Fraction(3, 10), Fraction(7, 2)])
    with mp.workdps(80):
        evidence, elbo, power = _gaussian_truth(m0, s0, s, mean, scale, x, mp.mpf(n.numerator) / n.denominator)
    _check(evaluate(objectives.log_evidence, model, x), evidence)
    _check(evaluate(objectives.elbo, model, x), elbo)
    value = evaluate(objectives.cubo, model, x, n=n)
    if mp.isfinite(power):
        _check(value, power)
    else:
        assert value.lower == value.upper == (float("inf") if n > 0 else float("-inf"))


def test_gaussian_models_against_closed_forms():
    for seed in range(150):
        _run_gaussian(seed)


@pytest.mark.slow
def test_gaussian_models_against_closed_forms_at_length():
    for seed in range(1000, 4000):
        _run_gaussian(seed)


@pytest.mark.slow
def test_random_models_at_length():
    """Pairs of models and formulas with smooth laws, where the truth is quick enough."""
    rng = random.Random(20)
    for _ in range(300):
        prior, encoder = rng.choice(["normal", "logistic", "mixture"]), rng.choice(["normal", "logistic"])
        likelihood = rng.choice(["bernoulli", "binomial", "normal", "logistic", "student"])
        case = Case(_law(rng, prior), _law(rng, encoder), _likelihood(rng, likelihood))
        _compare(case, rng.choice(list(FORMULAS)))


# --- adversarial ---------------------------------------------------------------------------------------------------


def test_far_away_data():
    model = ContinuousModel(Normal(0, 1), lambda z: Normal(z, 1))
    with mp.workdps(50):
        truth = -(mp.mpf(141) ** 2) / 4 - mp.log(4 * mp.pi) / 2
    _check(evaluate(objectives.log_evidence, model, 141), truth)


def test_divergence_is_decided_at_its_boundary():
    """E_q[w^2] for s0 = s = 1: finite for q's scale above 1/2 only, and at 1/2 the exponent is linear, or constant."""

    def chi(mean, scale):
        model = ContinuousModel(Normal(0, 1), lambda z: Normal(z, 1), lambda x: Normal(mean, scale))
        return evaluate(objectives.cubo, model, 1, n=2)

    assert chi("1/2", "1/2").lower == float("inf")
    assert chi("1/3", "1/2").lower == float("inf")
    assert chi("1/2", "0.4999999").lower == float("inf")
    _check(chi("1/2", "0.5000001"), _gaussian_truth(0, 1, 1, 0.5, mp.mpf("0.5000001"), 1, mp.mpf(2))[2])


def test_symmetry_gives_heavy_tailed_evidence():
    """P(x = 1) = 1/2 for a logit symmetric around 0, whatever the tails."""
    for freedom in (1, 2.5, "0.3"):
        model = ContinuousModel(StudentT(freedom), lambda z: BernoulliLogit(3 * z))
        _check(evaluate(objectives.log_evidence, model, 1), -mp.log(2))


def test_kinks_that_meet_at_a_node():
    """Two Laplace densities of scale 1 convolved: (1 + |x|) exp(-|x|) / 4."""
    model = ContinuousModel(Laplace(0, 1), lambda z: Laplace(z, 1))
    for x in (0, 1, "1/3", -2.5, 1e-9):
        value = evaluate(objectives.log_evidence, model, x)
        with mp.workdps(40):
            distance = abs(mp.mpf(1) / 3 if x == "1/3" else mp.mpf(x))
            _check(value, mp.log((1 + distance) / 4) - distance)


def test_edges_of_mixtures_inside_a_logarithm():
    """q~ is 1/2 on [0, 1/2] and [1, 3/2] and 1 between: outside its edges a component counts for nothing."""
    half = {0: "1/2", "1/2": "1/2"}
    model = ContinuousModel(
        Normal(0, 1), lambda z: Normal(0, 1), lambda v: Uniform(v, v + 1), corruption=lambda x: Discrete(half)
    )
    _check(evaluate(objectives.marginal_negative_entropy, model, 0), -mp.log(2) / 2)
    with mp.workdps(40):
        cross = -mp.mpf(17) / 48 - mp.log(2 * mp.pi) / 2  # E z^2 = (1/3 + 13/12) / 2
        _check(evaluate(objectives.marginal_elbo, model, 0), cross - mp.log(2 * mp.pi) / 2 + mp.log(2) / 2)


def test_edges_of_a_mixture_to_a_power():
    """A prior that is 1/2, 1, 1/2 on pieces of [0, 3/2], under a flat encoder on [0, 2] and on [1/2, 5/2]."""
    prior = Mixture(("1/2", "1/2"), (Uniform(0, 1), Uniform("1/2", "3/2")))
    for low, root in ((0, mp.sqrt(mp.mpf(1) / 2) + mp.mpf(1) / 2), (0.5, mp.sqrt(mp.mpf(1) / 2) / 2 + mp.mpf(1) / 2)):
        model = ContinuousModel(prior, lambda z: BernoulliLogit(0 * z), lambda x, low=low: Uniform(low, low + 2))
        # 2 log of the integral of sqrt(p(z)/2 * 1/2)
        _check(evaluate(objectives.renyi, model, 1, alpha="1/2"), 2 * mp.log(root / 2))
    narrow = ContinuousModel(prior, lambda z: BernoulliLogit(0 * z), lambda x: Uniform("1/4", "5/4"))
    _check(evaluate(lambda m, x: kl(m.encoder(x), m.prior()), narrow, 1), mp.log(2) / 2)
    wide = ContinuousModel(prior, lambda z: BernoulliLogit(0 * z), lambda x: Uniform(-1, 1))
    with pytest.raises(CannotCompute, match="Uniform"):
        evaluate(lambda m, x: kl(m.encoder(x), m.prior()), wide, 1)


def test_uniform_edges():
    model = ContinuousModel(Uniform(0, 1), lambda z: Normal(z, "1e-4"), lambda x: Normal(0, 1))
    with mp.workdps(40):
        s = mp.mpf("1e-4") * mp.sqrt(2)
        _check(evaluate(objectives.log_evidence, model, 1), mp.log((mp.erf(1 / s)) / 2))
    assert evaluate(objectives.elbo, model, 1).upper == float("-inf")
    assert evaluate(lambda m, x: kl(m.encoder(x), m.prior()), model, 1).lower == float("inf")


def test_a_steep_likelihood_leaves_almost_no_strip():
    model = ContinuousModel(Normal(0, 1), lambda z: BernoulliLogit(1000 * z))
    _check(evaluate(objectives.log_evidence, model, 1), -mp.log(2))


def test_huge_parameters_give_a_value_or_a_refusal():
    _check(
        evaluate(objectives.log_evidence, ContinuousModel(Normal(1e300, 1), lambda z: Normal(z, 1)), 1e300),
        -mp.log(4 * mp.pi) / 2,
    )
    for prior in (Normal(0, 1e300), Normal(0, 1e-300), StudentT(3, 1e300, 1)):
        model = ContinuousModel(prior, lambda z: BernoulliLogit(z))
        try:
            value = evaluate(objectives.log_evidence, model, 1)
        except CannotCompute:
            continue
        assert value.upper <= 0


def test_likelihoods_that_are_not_affine_are_bounded_by_their_peak():
    model = ContinuousModel(
        Normal(0, 1), lambda z: [BernoulliLogit(F.tanh(3 * z)), Normal(z * z, 1)], lambda x: Normal(0, 1)
    )
    value = evaluate(objectives.log_evidence, model, (1, 0.25))

    def f(z):
        return mp.npdf(z) * mp.npdf(mp.mpf("0.25") - z * z) / (1 + mp.exp(-mp.tanh(3 * z)))

    with mp.workdps(DIGITS):
        _check(value, mp.log(mp.quad(f, [-16, -4, -1, 0, 1, 4, 16])))
    with pytest.raises(CannotCompute, match=r"BernoulliLogit|Normal"):
        evaluate(objectives.elbo, model, (1, 0.25))


def test_abs_of_z_is_the_real_one_and_a_comparison_is_refused():
    model = ContinuousModel(Normal(0, 1), lambda z: BernoulliLogit(abs(z)))
    with mp.workdps(DIGITS):
        truth = mp.log(2 * mp.quad(lambda z: mp.npdf(z) / (1 + mp.exp(-z)), [0, 1, 4, 16]))
    _check(evaluate(objectives.log_evidence, model, 1), truth)
    branching = ContinuousModel(Normal(0, 1), lambda z: BernoulliLogit(z if z > 0 else -z))
    with pytest.raises(CannotCompute, match="comparison"):
        evaluate(objectives.log_evidence, branching, 1)


def test_corrupted_inputs_are_summed_exactly():
    """Both readings of the denoising objective, all Gaussian given x~."""
    model = ContinuousModel(
        Normal(0, 1), lambda z: Normal(z, 1), lambda x: Normal(x / 2, 1), lambda x: Discrete({0: "1/4", 1: "3/4"})
    )
    weights = {0: mp.mpf(1) / 4, 1: mp.mpf(3) / 4}

    def joint(mean):  # E_q log p(x=1, z) for q = N(mean, 1)
        return -mp.log(2 * mp.pi) - ((1 - mean) ** 2 + mean**2 + 2) / 2

    def cross(mean, other):  # E_{N(mean, 1)} log N(z; other, 1)
        return -mp.log(2 * mp.pi) / 2 - (1 + (mean - other) ** 2) / 2

    with mp.workdps(40):
        half = mp.mpf(1) / 2
        coupled = sum(w * (joint(v * half) - cross(v * half, v * half)) for v, w in weights.items())
        decoupled = sum(
            w * u * (joint(v * half) - cross(v * half, t * half))
            for v, w in weights.items()
            for t, u in weights.items()
        )
    _check(evaluate(objectives.denoising_coupled, model, 1), coupled)
    _check(evaluate(objectives.denoising_decoupled, model, 1), decoupled)
    _check(evaluate(objectives.hvm_prior, model, 1), coupled)
    _check(evaluate(objectives.sivi_without, model, 1, k=1), decoupled)
    chain = [
        evaluate(objectives.sivi, model, 1, k=0),
        evaluate(objectives.sivi, model, 1, k=1),
        evaluate(objectives.marginal_elbo, model, 1),
        evaluate(objectives.log_evidence, model, 1),
    ]
    assert all(a.upper < b.lower for a, b in pairwise(chain))


def test_what_has_no_certified_bound_is_refused_by_name():
    wide = ContinuousModel([Normal(0, 1)] * 2, lambda z: Normal(z[0] + z[1], 1), lambda x: [Normal(0, 1)] * 2)
    with pytest.raises(CannotCompute, match="2 continuous components"):
        evaluate(objectives.log_evidence, wide, 1)
    cauchy = ContinuousModel(Normal(0, 1), lambda z: BernoulliLogit(z), lambda x: StudentT(1))
    with pytest.raises(CannotCompute, match="StudentT"):
        evaluate(objectives.elbo, cauchy, 1)
    foreign = ContinuousModel(Normal(0, 1), lambda z: BernoulliLogit(np.exp(z)))
    with pytest.raises(CannotCompute, match=r"models\.arithmetic"):
        evaluate(objectives.log_evidence, foreign, 1)
    with pytest.raises(CannotCompute, match="2 copies"):
        evaluate(objectives.iwae, ContinuousModel(Normal(0, 1), lambda z: Normal(z, 1), lambda x: Normal(0, 1)), 1, k=2)


def test_more_precision_gives_a_narrower_interval_around_the_same_value():
    model = ContinuousModel(Normal(0, 1), lambda z: [BernoulliLogit(z - b) for b in (-1, 0, 1)])
    balls = [evaluate(objectives.log_evidence, model, (1, 0, 1), precision=p).ball for p in (20, 64, 128, 400)]
    assert all(b.rad() < a.rad() and a.overlaps(b) for a, b in pairwise(balls))
    assert balls[-1].rad() < arb(2) ** -395


# --- the tests can fail ----------------------------------------------------------------------------------------------


def test_a_tail_that_is_cut_without_a_bound_is_caught(monkeypatch):
    """With tails taken for zero, integrals stop at the first cut, and the comparison with the truth must notice."""
    monkeypatch.setattr(integration_rules, "tail_bound", lambda *arguments: arb(0))
    model = ContinuousModel(StudentT(1), lambda z: BernoulliLogit(3 * z))
    with pytest.raises(AssertionError):
        _check(evaluate(objectives.log_evidence, model, 1), -mp.log(2))


def test_a_strip_bound_that_is_forgotten_is_caught(monkeypatch):
    """Without the error term of the trapezoid rule the interval is too narrow to contain the truth."""
    monkeypatch.setattr(integration_rules, "_strip_and_step", lambda *arguments: (30.0, 1.25))
    monkeypatch.setattr(integration_rules.Form, "strip", lambda form, a: (arb(0), form))
    model = ContinuousModel(Normal(0, 1), lambda z: [BernoulliLogit(z - b) for b in (-1, 0, 1)])
    case = Case(Normal(0, 1), Normal(0, 1), [(BernoulliLogit, 1.0, -b, x) for b, x in ((-1, 1), (0, 0), (1, 1))])
    with mp.workdps(DIGITS), pytest.raises(AssertionError):
        _check(evaluate(objectives.log_evidence, model, (1, 0, 1)), _truth(case, "log_evidence"))


def test_tail_bounds_are_above_the_tails():
    """Against complementary error functions and incomplete beta functions at many cuts."""
    for cut in (0.5, 1.0, 3.0, 10.0, 100.0):
        bound = integration_tails.tail_bound(Form(p2=fmpq(-1, 2)).balls(), [], arb(cut))
        truth = mp.sqrt(mp.pi / 2) * mp.erfc(mp.mpf(cut) / mp.sqrt(2))
        assert truth <= mp.mpf(bound.str(30, radius=False)) <= truth * (1 + 1 / mp.mpf(cut) ** 2) * 1.0001
        student = Form(atoms=((LogSquare(fmpq(0), fmpq(3)), fmpq(-2)),)).balls()
        bound = integration_tails.tail_bound(student, [], arb(cut))
        truth = mp.quad(lambda z: (1 + z * z / 3) ** -2, [cut, 10 * cut, mp.inf])
        assert truth <= mp.mpf(bound.str(30, radius=False))


def test_strip_bounds_are_above_the_integrand():
    """|exp(k atom(x + iy))| <= exp(g + k' atom(x)) and |atom(x + iy)| <= size, at random points of the strip."""
    rng = random.Random(1)
    for _ in range(2000):
        atom, limit = rng.choice(
            [
                (Softplus(arb(rng.uniform(-3, 3)), arb(rng.uniform(-3, 3))), None),
                (LogSquare(arb(rng.uniform(-3, 3)), arb(rng.uniform(0.1, 9))), None),
                (Growth(arb(rng.uniform(-3, 3)), arb(rng.uniform(-3, 3))), 2.0),
            ]
        )
        k = arb(rng.choice([-3, -1.5, -1, 0.5, 2]))
        a = rng.uniform(0.05, 0.97) * (limit or atom.reach(None))
        x, y = rng.uniform(-6, 6), rng.uniform(-a, a)
        gain, other = atom.strip(k, arb(a))
        z = acb(x, y)
        assert (k * atom.complex(z, False).real - gain - other * atom.real(arb(x))).lower() <= 1e-12
        assert atom.complex(z, False).abs_lower() <= atom.size(arb(x), arb(a)).upper() + 1e-12
