"""Draws that depend on their place alone, on both sides of a claim; antithetic and quasi-random ones; closed-form KL.

Every statistical test allows six standard deviations (of a mean, or of a binomial count): a false alarm has probability
2e-9 each, so below 1e-6 for all of them together.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import oracle
import pytest
import torch
from scipy.stats import binom
from scipy.stats import t as student
from torch.distributions import Categorical, Independent, Laplace, Normal
from torch_models import LinearGaussian, as_torch, exact_encoder

from boundcheck.catalogue import objectives
from boundcheck.errors import BadInput, UndefinedValue
from boundcheck.evaluators import units
from boundcheck.evaluators.draws import SobolNoise, expected_log_density
from boundcheck.evaluators.monte_carlo import evaluate, evaluate_difference, evaluate_pair
from boundcheck.evaluators.plan import plan
from boundcheck.evaluators.values import Bias, Sampled
from boundcheck.language import E, exp, kl, log, log_mean_exp, maximum, mean, total, trace
from boundcheck.models.torch_model import TorchModel

SIX = 6.0
LINEAR = LinearGaussian(2, 3, seed=2)
X3 = np.random.default_rng(3).normal(size=(4, 3))
FINITE = oracle.random_model(random.Random(5), x=3, z=3, xt=3, denominator=20)


def diwae_fresh(m, x, k):
    return E(
        m.corruption(x).copies(k),
        lambda xt: E(m.encoder(xt), lambda z: log_mean_exp(m.log_joint(x, z) - m.encoder(xt).log_prob(z))),
    )


def self_normalised(m, x, k):
    w = lambda z: m.log_joint(x, z) - m.encoder(x).log_prob(z)  # noqa: E731
    return E(m.encoder(x).copies(k), lambda z: total(exp(w(z)) * w(z)) / total(exp(w(z))))


def laplace_model() -> TorchModel:
    return TorchModel(
        prior=lambda: Independent(Normal(torch.zeros(2), 1.0), 1),
        encoder=lambda x: Independent(Laplace(x[:, :2] / 2, 0.8), 1),
        decoder=lambda z: Independent(Normal(torch.cat([z, z.sin()], -1)[:, :3], 1.0), 1),
        corruption=lambda x: Independent(Normal(x, 0.3), 1),
    )


def values(estimates: tuple[Sampled, ...]) -> np.ndarray:
    return np.array([(each.mean, each.standard_error) for each in estimates])


# --- the chunk changes nothing ---


@pytest.mark.parametrize(
    ("formula", "parameters"),
    [
        (objectives.elbo, {}),
        (objectives.denoising_decoupled, {}),
        (objectives.iwae, {"k": 7}),
        (diwae_fresh, {"k": 5}),
        (objectives.marginal_elbo, {"inner": 6}),
    ],
)
@pytest.mark.parametrize("draws", ["independent", "antithetic", "sobol"])
def test_the_chunk_changes_no_draw(formula: Callable, parameters: dict, draws: str) -> None:
    options = parameters | {"n": 64, "seed": 3, "draws": draws}
    for model in (LINEAR.torch(), laplace_model()):
        data = X3 if model.law("prior").base_dist.loc.dtype == torch.float64 else X3.astype(np.float32)
        reference = values(evaluate(formula, model, data, **options))
        for chunk in (1, 7, 50, 1000):
            np.testing.assert_allclose(
                values(evaluate(formula, model, data, chunk=chunk, **options)), reference, rtol=1e-5, atol=1e-7
            )


def test_the_chunk_bounds_what_the_model_sees() -> None:
    seen: set[int] = set()
    base = LINEAR.torch()

    def decoder(z: torch.Tensor) -> object:
        seen.add(len(z))
        return base._functions["likelihood"](z)

    def encoder(x: torch.Tensor) -> object:
        seen.add(len(x))
        return base._functions["encoder"](x)

    model = TorchModel(
        prior=base._functions["prior"], encoder=encoder, decoder=decoder, corruption=base._functions["corruption"]
    )
    evaluate(diwae_fresh, model, X3, n=50, k=9, chunk=13)
    assert max(seen) == 13


def test_the_units_change_the_draws_but_not_their_law(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(self_normalised, as_torch(FINITE), torch.arange(3), n=2000, k=4, seed=1)
    monkeypatch.setattr(units, "default_unit", lambda x: 5)
    cut = evaluate(self_normalised, as_torch(FINITE), torch.arange(3), n=60, k=4, seed=2)
    for a, b in zip(whole, cut, strict=True):
        assert abs(a.mean - b.mean) < SIX * math.hypot(a.standard_error, b.standard_error)


# --- honest errors ---


def coverage(model: LinearGaussian, truth: float, x: np.ndarray, formula: Callable, examples: int, **options) -> float:
    """How often the truth is outside the interval of level 0.9, among equal but independent examples."""
    estimates = evaluate(formula, model.torch(), np.tile(x, (examples, 1)), **options)
    (freedom,) = {estimate.n - 1 for estimate in estimates}
    limit = student.ppf(0.95, freedom)
    return float(np.mean([abs(e.mean - truth) > limit * e.standard_error for e in estimates]))


@pytest.mark.parametrize(
    ("draws", "n", "extra"),
    [("independent", 64, {}), ("antithetic", 64, {}), ("sobol", 128, {"randomisations": 16})],
)
@pytest.mark.parametrize(
    ("formula", "moved", "between"),
    [(objectives.elbo, 0, 0), (objectives.denoising_coupled, 1, 0), (objectives.denoising_decoupled, 1, 2)],
)
def test_the_standard_error_covers_as_often_as_it_says(
    draws: str, n: int, extra: dict, formula: Callable, moved: float, between: float
) -> None:
    """Outside 90% intervals in 10% of 600 cases, and up to 4% more for log-weights that are not quite normal."""
    x, cases = X3[0], 600
    truth = LINEAR.objective(x, moved, between)
    missed = coverage(LINEAR, truth, x, formula, cases, n=n, draws=draws, seed=11, **extra)
    assert binom.ppf(1e-9, cases, 0.1) / cases < missed < binom.ppf(1 - 1e-9, cases, 0.14) / cases


def test_antithetic_and_quasi_random_draws_are_worth_it() -> None:
    """Far from the decoder's mean the log-likelihood is nearly linear in the noise, and pairs cancel what is linear."""
    errors = {
        draws: np.mean(
            [e.standard_error for e in evaluate(objectives.elbo, LINEAR.torch(), 9 * X3, n=1024, draws=draws)]
        )
        for draws in ("independent", "antithetic", "sobol")
    }
    assert errors["antithetic"] < 0.5 * errors["independent"]
    assert errors["sobol"] < 0.2 * errors["independent"]


def test_what_is_counted_is_what_is_independent() -> None:
    counts = {
        draws: {e.n for e in evaluate(objectives.elbo, LINEAR.torch(), X3, n=128, draws=draws)}
        for draws in ("independent", "antithetic", "sobol")
    }
    assert counts == {"independent": {128}, "antithetic": {64}, "sobol": {16}}


def test_an_odd_function_vanishes_in_antithetic_pairs() -> None:
    scalar = TorchModel(
        prior=lambda: Normal(1.0, 2.0), encoder=lambda x: Normal(x, 1.0), decoder=lambda z: Normal(z, 1.0)
    )
    (estimate,) = evaluate(lambda m, x: E(m.prior(), lambda z: z), scalar, [0.0], n=100, draws="antithetic")
    assert estimate.mean == pytest.approx(1.0, abs=1e-6)
    assert estimate.standard_error < 1e-6


@pytest.mark.parametrize("draws", ["antithetic", "sobol"])
def test_full_covariances_and_copies_are_drawn_right(draws: str) -> None:
    """With the exact posterior IWAE is log p(x) for all points; E z z' of its draws is its covariance."""
    exact = exact_encoder(LINEAR)
    for estimate, row in zip(evaluate(objectives.iwae, exact, X3, n=64, k=5, draws=draws), X3, strict=True):
        assert estimate.mean == pytest.approx(LINEAR.log_evidence(row), abs=1e-9)

    def entropy(m, x):  # E mean_k -log q(z_k)
        return E(m.encoder(x).copies(3), lambda z: mean(-1 * m.encoder(x).log_prob(z)))

    truth = exact.law("encoder", torch.tensor(X3)).entropy().tolist()
    for estimate, expected in zip(evaluate(entropy, exact, X3, n=1024, draws=draws), truth, strict=True):
        assert abs(estimate.mean - expected) < SIX * estimate.standard_error
        assert estimate.standard_error < 0.05


@pytest.mark.parametrize("draws", ["antithetic", "sobol"])
def test_discrete_laws_are_drawn_as_ever(draws: str) -> None:
    estimates = evaluate(objectives.iwae, as_torch(FINITE), torch.arange(3), n=4096, k=3, draws=draws)
    for x, estimate in enumerate(estimates):
        assert abs(estimate.mean - float(oracle.iwae(FINITE, x, 3))) < SIX * estimate.standard_error


def test_sobol_noise_is_normal_and_each_sequence_is_its_own() -> None:
    noise = SobolNoise(3, 256, range(100, 120))
    blocks = torch.cat([noise.take(count) for count in (1, 255, 1000, 3864)])
    assert blocks.shape == (5120, 3)
    assert abs(float(blocks.mean())) < 0.01
    assert float(blocks.square().mean()) == pytest.approx(1, abs=0.02)
    again = SobolNoise(3, 256, [101]).take(256)
    assert torch.equal(again, blocks[256:512])
    means = blocks.reshape(20, 256, 3).mean(1)
    assert len(set(means.flatten().tolist())) == 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": "halton"}, "draws = 'halton'"),
        ({"draws": "antithetic", "n": 7}, "n = 7: expected an even number"),
        ({"draws": "sobol", "n": 100}, r"n = 100: expected 16 randomisations times a power of two.*n=128"),
        ({"draws": "sobol", "n": 8}, "n = 8"),
        ({"draws": "sobol", "n": 64, "randomisations": 1}, "randomisations = 1"),
        ({"randomisations": 4}, "randomisations = 4: expected nothing"),
    ],
)
def test_draws_that_cannot_be_are_refused(options: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        evaluate(objectives.elbo, LINEAR.torch(), X3, **options)


def test_more_dimensions_than_sobol_sequences_have_are_refused() -> None:
    with pytest.raises(BadInput, match=r"at most 21201 Gaussian numbers.*30000; use 'antithetic'"):
        evaluate(objectives.iwae, LINEAR.torch(), X3, n=16, k=15000, draws="sobol")


# --- both sides of a claim ---


def test_both_sides_draw_the_same_points_where_they_can() -> None:
    both = evaluate_pair(objectives.elbo, objectives.elbo, LINEAR.torch(), X3, n=50, seed=4)
    assert both.lhs == both.rhs
    assert {(d.mean, d.standard_error) for d in both.difference} == {(0.0, 0.0)}

    def shrunk(m, x):  # the same draw of q(z|x) in another formula, beside a draw of something else
        return E(
            m.corruption(x),
            lambda xt: E(
                m.encoder(x),
                lambda z: m.log_joint(x, z) - m.encoder(x).log_prob(z) + 0.01 * m.encoder(xt).log_prob(z),
            ),
        )

    for draws in ("independent", "antithetic", "sobol"):
        pair = evaluate_pair(objectives.elbo, shrunk, LINEAR.torch(), X3, n=256, draws=draws)
        for left, right, gap in zip(pair.lhs, pair.rhs, pair.difference, strict=True):
            assert gap.mean == pytest.approx(left.mean - right.mean, abs=1e-9)
            apart = math.hypot(left.standard_error, right.standard_error)
            assert gap.standard_error < 0.3 * apart, draws
            assert gap.n == left.n


def test_the_two_readings_share_what_they_can_and_the_gap_is_right() -> None:
    """The decoupled objective exceeds the coupled one by E trace(V^-1 (a (xs - xt))^2) / 2, in closed form."""
    truths = [LINEAR.objective(row, 1, 2) - LINEAR.objective(row, 1, 0) for row in X3]
    pair = evaluate_pair(objectives.denoising_decoupled, objectives.denoising_coupled, LINEAR.torch(), X3, n=8000)
    for gap, truth in zip(pair.difference, truths, strict=True):
        assert abs(gap.mean - truth) < SIX * gap.standard_error
    mean_gap = evaluate_difference(
        objectives.denoising_decoupled, objectives.denoising_coupled, LINEAR.torch(), X3, n=8000
    )
    assert mean_gap.mean == pytest.approx(np.mean([gap.mean for gap in pair.difference]))


def test_the_error_of_a_difference_covers_as_often_as_it_says() -> None:
    cases, x = 600, X3[1]
    truth = LINEAR.objective(x, 1, 2) - LINEAR.objective(x, 0, 0)
    data = np.tile(x, (cases, 1))
    pair = evaluate_pair(objectives.denoising_decoupled, objectives.elbo, LINEAR.torch(), data, n=64, seed=5)
    limit = student.ppf(0.95, 63)
    missed = np.mean([abs(gap.mean - truth) > limit * gap.standard_error for gap in pair.difference])
    assert binom.ppf(1e-9, cases, 0.1) / cases < missed < binom.ppf(1 - 1e-9, cases, 0.14) / cases


def test_the_bias_of_a_difference_is_that_of_both_sides() -> None:
    def low(m, x):
        return log(E(m.encoder(x), lambda z: exp(m.log_joint(x, z) - m.encoder(x).log_prob(z))))

    def high(m, x):
        return exp(E(m.encoder(x), lambda z: m.prior().log_prob(z)))

    expected = {
        (objectives.elbo, low): Bias.HIGH,
        (low, objectives.elbo): Bias.LOW,
        (low, high): Bias.LOW,
        (high, low): Bias.HIGH,
        (low, low): Bias.UNKNOWN,
        (objectives.elbo, objectives.elbo): Bias.NONE,
    }
    for (lhs, rhs), bias in expected.items():
        pair = evaluate_pair(lhs, rhs, LINEAR.torch(), X3[:1], n=10, inner=2)
        assert pair.difference[0].bias is bias


def test_parameters_go_to_the_side_that_has_them() -> None:
    pair = evaluate_pair(objectives.iwae, objectives.elbo, LINEAR.torch(), X3, n=500, k=20)
    alone = evaluate(objectives.iwae, LINEAR.torch(), X3, n=500, k=20)
    for a, b in zip(pair.lhs, alone, strict=True):
        assert abs(a.mean - b.mean) < SIX * math.hypot(a.standard_error, b.standard_error)
    with pytest.raises(BadInput, match="kk = 20: expected a parameter of one of the formulas"):
        evaluate_pair(objectives.iwae, objectives.elbo, LINEAR.torch(), X3, n=500, k=3, kk=20)


def test_a_difference_of_infinities_is_an_error() -> None:
    nowhere = TorchModel(
        prior=lambda: torch.distributions.Uniform(5.0, 6.0),
        encoder=lambda x: torch.distributions.Uniform(torch.zeros(len(x)), 1.0),
        decoder=lambda z: Normal(z, 1.0),
    )
    with pytest.raises(UndefinedValue, match=r"x\[0\]"):
        evaluate_pair(objectives.elbo, objectives.elbo, nowhere, torch.tensor([0.5]), n=10)


# --- divergences in closed form ---


@pytest.mark.parametrize(
    ("formula", "moved", "between"),
    [(objectives.elbo, 0, 0), (objectives.denoising_coupled, 1, 0), (objectives.denoising_decoupled, 1, 2)],
)
@pytest.mark.parametrize("chunk", [None, 9])
def test_closed_form_divergences_change_the_error_and_not_the_value(
    formula: Callable, moved: float, between: float, chunk: int | None
) -> None:
    truths = [LINEAR.objective(row, moved, between) for row in X3]
    n = 4000 if chunk is None else 300
    closed = evaluate(formula, LINEAR.torch(), X3, n=n, closed_form_kl=True, chunk=chunk)
    sampled = evaluate(formula, LINEAR.torch(), X3, n=n, chunk=chunk)
    for a, b, truth in zip(closed, sampled, truths, strict=True):
        assert abs(a.mean - truth) < SIX * a.standard_error + 1e-9
        assert a.standard_error != b.standard_error
        assert a.bias is Bias.NONE


def test_a_divergence_on_its_own_is_exact() -> None:
    def divergence(m, x):
        return kl(m.encoder(x), m.prior())

    model = LINEAR.torch()
    law, prior = model.law("encoder", torch.tensor(X3)), model.law("prior")
    truth = torch.distributions.kl_divergence(law, prior).tolist()
    for estimate, expected in zip(evaluate(divergence, model, X3, n=10, closed_form_kl=True), truth, strict=True):
        assert estimate.mean == pytest.approx(expected, rel=1e-12)
        assert estimate.standard_error < 1e-12


def test_finite_models_have_closed_forms_as_well() -> None:
    estimates = evaluate(objectives.elbo, as_torch(FINITE), torch.arange(3), n=4000, closed_form_kl=True)
    for x, estimate in enumerate(estimates):
        assert abs(estimate.mean - float(oracle.elbo(FINITE, x))) < SIX * estimate.standard_error + 1e-9


def test_only_what_stands_linearly_is_averaged() -> None:
    def bent(m, x):  # max(log p(z), -2) is not linear: its mean is not a function of the divergence
        return E(m.encoder(x), lambda z: maximum(m.prior().log_prob(z), -2))

    assert "averaged" not in str(plan(trace(bent), 4, closed_form_kl=True).term._key)
    assert "averaged" in str(plan(trace(objectives.elbo), 4, closed_form_kl=True).term._key)
    assert "averaged" not in str(plan(trace(objectives.iwae, k=3), 4, closed_form_kl=True).term._key)
    for closed, plain in zip(
        evaluate(bent, LINEAR.torch(), X3, n=100, closed_form_kl=True),
        evaluate(bent, LINEAR.torch(), X3, n=100),
        strict=True,
    ):
        assert closed == plain


def test_a_density_that_depends_on_the_draw_itself_is_not_averaged() -> None:
    """r(x~|z,x) is taken at an x~ that z was drawn from: held fixed, its mean over x~ would be another number."""

    def hvm(m, x):
        return E(m.corruption(x), lambda xt: E(m.encoder(xt), lambda z: m.auxiliary(z, x).log_prob(xt)))

    assert "averaged" not in str(plan(trace(hvm), 4, closed_form_kl=True).term._key)
    truth = [
        sum(
            float(FINITE.corruption[x][t] * FINITE.encoder[t][z]) * math.log(FINITE.auxiliary[z][x][t])
            for t in range(3)
            for z in range(3)
        )
        for x in range(3)
    ]
    for estimate, expected in zip(
        evaluate(hvm, as_torch(FINITE), torch.arange(3), n=8000, closed_form_kl=True), truth, strict=True
    ):
        assert abs(estimate.mean - expected) < SIX * estimate.standard_error


def test_without_a_closed_form_the_density_is_sampled() -> None:
    model = laplace_model()
    data = X3.astype(np.float32)
    mixed = TorchModel(
        prior=lambda: Independent(torch.distributions.StudentT(5.0, torch.zeros(2), 1.0), 1),
        encoder=model._functions["encoder"],
        decoder=model._functions["likelihood"],
    )
    closed = evaluate(objectives.elbo, mixed, data, n=100, closed_form_kl=True)
    for a, b in zip(closed, evaluate(objectives.elbo, mixed, data, n=100), strict=True):
        assert abs(a.mean - b.mean) < SIX * (a.standard_error + b.standard_error)


def test_categories_of_the_other_law_may_be_missing() -> None:
    """KL to a law that gives a state no mass is infinite, and so is the objective."""
    model = TorchModel(
        prior=lambda: Categorical(torch.tensor([1.0, 0.0])),
        encoder=lambda x: Categorical(torch.tensor([0.5, 0.5]).expand(len(x), 2)),
        decoder=lambda z: Categorical(torch.ones(len(z), 2) / 2),
    )
    (estimate,) = evaluate(objectives.elbo, model, torch.tensor([0]), n=50, closed_form_kl=True)
    assert estimate.mean == -math.inf


FAMILIES: dict[str, Callable] = {
    "Bernoulli": lambda a: torch.distributions.Bernoulli(torch.tensor([0.15 + a, 0.9 - a])),
    "Beta": lambda a: torch.distributions.Beta(torch.tensor([1.5 + a, 3.0]), torch.tensor([2.0, 1.2 + 3 * a])),
    "Categorical": lambda a: Categorical(torch.tensor([0.2 + a, 0.5 - a, 0.3])),
    "Dirichlet": lambda a: torch.distributions.Dirichlet(torch.tensor([1.5 + a, 2.5, 3.0 - a])),
    "Exponential": lambda a: torch.distributions.Exponential(torch.tensor([1.0 + a, 3.0 - 2 * a])),
    "LogNormal": lambda a: torch.distributions.LogNormal(torch.tensor([a, -1.0]), torch.tensor([0.5 + a, 0.8])),
    "LowRankMultivariateNormal": lambda a: torch.distributions.LowRankMultivariateNormal(
        torch.tensor([a, -a]), torch.tensor([[1.0], [a]]), torch.tensor([0.5, 1.0 + a])
    ),
    "OneHotCategorical": lambda a: torch.distributions.OneHotCategorical(torch.tensor([0.2 + a, 0.5 - a, 0.3])),
    "Gamma": lambda a: torch.distributions.Gamma(torch.tensor([2.0 + a, 5.0]), torch.tensor([1.0, 2.0 - a])),
    "Laplace": lambda a: Laplace(torch.tensor([a, 1.0]), torch.tensor([1.0, 0.5 + a])),
    "MultivariateNormal": lambda a: torch.distributions.MultivariateNormal(
        torch.tensor([a, -a]), torch.tensor([[1.0 + a, 0.3], [0.3, 0.8]])
    ),
    "Normal": lambda a: Normal(torch.tensor([a, 2.0]), torch.tensor([1.0 + a, 0.4])),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_expected_log_densities_of_each_known_family_agree_with_samples(family: str) -> None:
    source, target = FAMILIES[family](0.1), FAMILIES[family](0.3)
    closed = expected_log_density(source, target)
    assert closed is not None
    torch.manual_seed(5)
    sampled = target.log_prob(source.sample((40_000,))).double()
    error = sampled.std(0) / math.sqrt(40_000)
    assert bool(((closed - sampled.mean(0)).abs() < SIX * error + 1e-6).all())
    assert bool((error < 0.02).all())
    summed = expected_log_density(
        Independent(Normal(torch.zeros(3), 1.0), 1), Independent(Normal(torch.ones(3), 2.0), 1)
    )
    assert summed is not None and summed.shape == ()


def test_other_pairs_of_laws_are_left_to_sampling() -> None:
    normal, laplace = Normal(torch.zeros(1), 1.0), Laplace(torch.zeros(1), 1.0)
    assert expected_log_density(normal, laplace) is None
    assert expected_log_density(torch.distributions.StudentT(torch.ones(1)), torch.distributions.StudentT(3.0)) is None
    assert expected_log_density(normal, Independent(Normal(torch.zeros(1, 2), 1.0), 1)) is None
