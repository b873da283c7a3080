"""Monte Carlo against closed forms and the oracle, its bias directions, its memory, and what it refuses.

Every statistical test allows six standard errors of a mean of thousands of bounded or Gaussian terms: a false alarm
has probability 2e-9 each, so below 1e-6 for all of them together. Seeds are fixed anyway.
"""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from torch.distributions import Bernoulli, Distribution, HalfNormal, Independent, Normal, Uniform
from torch_models import LinearGaussian, as_torch, exact_encoder

from boundcheck.catalogue import objectives
from boundcheck.errors import BadInput, CannotCompute, UndefinedValue
from boundcheck.evaluators import units
from boundcheck.evaluators.averages import over_examples
from boundcheck.evaluators.monte_carlo import (
    Moments,
    evaluate,
    evaluate_mean,
    prepare,
)
from boundcheck.evaluators.plan import plan
from boundcheck.evaluators.replicates import blocks_of
from boundcheck.evaluators.values import Bias, Sampled
from boundcheck.language import (
    E,
    density,
    exp,
    kl,
    log,
    log_mean_exp,
    maximum,
    maximum_over,
    mean,
    minimum_over,
    normalised,
    same,
    total,
    trace,
)
from boundcheck.language.terms import Expect
from boundcheck.models.torch_model import TorchModel

SIX = 6.0


def close(estimates: tuple[Sampled, ...], truths: list[float], rounding: float = 1e-9) -> None:
    for estimate, truth in zip(estimates, truths, strict=True):
        assert abs(estimate.mean - truth) <= SIX * estimate.standard_error + rounding, (str(estimate), truth)


# --- formulas beyond the small catalogue ---


def log_w(m, x, z, given):
    return m.log_joint(x, z) - m.encoder(given).log_prob(z)


def diwae_coupled(m, x, k):
    return E(m.corruption(x), lambda xt: E(m.encoder(xt).copies(k), lambda z: log_mean_exp(log_w(m, x, z, xt))))


def diwae_fresh(m, x, k):
    return E(m.corruption(x).copies(k), lambda xt: E(m.encoder(xt), lambda z: log_mean_exp(log_w(m, x, z, xt))))


def diwae_decoupled(m, x, k):
    return E(
        m.corruption(x),
        lambda xd: E(
            m.corruption(x), lambda xs: E(m.encoder(xs).copies(k), lambda z: log_mean_exp(log_w(m, x, z, xd)))
        ),
    )


def sivi(m, x, k):
    def value(x0, z):
        own = m.encoder(x0).log_prob(z)
        return E(
            m.corruption(x).copies(k),
            lambda xs: m.log_joint(x, z) - log_mean_exp(m.encoder(xs).log_prob(z), also=own),
        )

    return E(m.corruption(x), lambda x0: E(m.encoder(x0), lambda z: value(x0, z)))


def sivi_without(m, x, k):
    def value(z):
        return E(m.corruption(x).copies(k), lambda xs: m.log_joint(x, z) - log_mean_exp(m.encoder(xs).log_prob(z)))

    return E(m.corruption(x), lambda x0: E(m.encoder(x0), lambda z: value(z)))


def hvm(m, x):
    def value(xt, z):
        return (
            m.log_joint(x, z)
            + m.auxiliary(z, x).log_prob(xt)
            - m.corruption(x).log_prob(xt)
            - m.encoder(xt).log_prob(z)
        )

    return E(m.corruption(x), lambda xt: E(m.encoder(xt), lambda z: value(xt, z)))


def renyi_finite(m, x, alpha, k):
    power = 1 - alpha
    return E(m.encoder(x).copies(k), lambda z: log_mean_exp(power * log_w(m, x, z, x))) / power


def log_average_weight(m, x):
    """log E_q[w]: with `inner` draws its estimate has the expectation IWAE_inner, exactly."""
    return log(E(m.encoder(x), lambda z: exp(log_w(m, x, z, x))))


# --- finite models as torch laws ---


STATES = 3
FINITE = oracle.random_model(random.Random(5), x=STATES, z=3, xt=STATES, denominator=20)
FINITE_TORCH = as_torch(FINITE)
X = torch.arange(STATES)

AGAINST_THE_ORACLE: dict[str, tuple[Callable, dict, Callable]] = {
    "elbo": (objectives.elbo, {}, oracle.elbo),
    "coupled": (objectives.denoising_coupled, {}, oracle.denoising_coupled),
    "decoupled": (objectives.denoising_decoupled, {}, oracle.denoising_decoupled),
    "iwae 1": (objectives.iwae, {"k": 1}, lambda m, x: oracle.iwae(m, x, 1)),
    "iwae 4": (objectives.iwae, {"k": 4}, lambda m, x: oracle.iwae(m, x, 4)),
    "diwae coupled": (diwae_coupled, {"k": 3}, lambda m, x: oracle.diwae_coupled(m, x, 3)),
    "diwae fresh": (diwae_fresh, {"k": 3}, lambda m, x: oracle.diwae_fresh(m, x, 3)),
    "diwae decoupled": (diwae_decoupled, {"k": 3}, lambda m, x: oracle.diwae_decoupled(m, x, 3)),
    "sivi 1": (sivi, {"k": 1}, lambda m, x: oracle.sivi(m, x, 1)),
    "sivi 3": (sivi, {"k": 3}, lambda m, x: oracle.sivi(m, x, 3)),
    "sivi without 2": (sivi_without, {"k": 2}, lambda m, x: oracle.sivi_without(m, x, 2)),
    "hvm": (hvm, {}, oracle.hvm),
    "renyi 1/2": (renyi_finite, {"alpha": 0.5, "k": 3}, lambda m, x: oracle.renyi_finite(m, x, 0.5, 3)),
    "renyi -1": (renyi_finite, {"alpha": -1, "k": 3}, lambda m, x: oracle.renyi_finite(m, x, -1, 3)),
    "renyi 3": (renyi_finite, {"alpha": 3, "k": 3}, lambda m, x: oracle.renyi_finite(m, x, 3, 3)),
}


@pytest.mark.parametrize("name", AGAINST_THE_ORACLE)
def test_unbiased_objectives_agree_with_the_oracle(name: str) -> None:
    formula, parameters, truth = AGAINST_THE_ORACLE[name]
    estimates = evaluate(formula, FINITE_TORCH, X, n=8000, seed=3, **parameters)
    assert {estimate.bias for estimate in estimates} == {Bias.NONE}
    close(estimates, [float(truth(FINITE, x)) for x in range(STATES)])
    assert all(0 < estimate.standard_error < 0.02 for estimate in estimates)  # so that six of them can still fail


@pytest.mark.parametrize("inner", [1, 2, 5])
def test_the_log_of_an_inner_mean_has_the_expectation_of_iwae(inner: int) -> None:
    estimates = evaluate(log_average_weight, FINITE_TORCH, X, n=8000, inner=inner, seed=4)
    close(estimates, [float(oracle.iwae(FINITE, x, inner)) for x in range(STATES)])
    assert {estimate.bias for estimate in estimates} == {Bias.LOW}


BERNOULLI = oracle.bernoulli(Fraction(9, 10))  # with log evidence 0, far from its encoder
BERNOULLI_TORCH = as_torch(BERNOULLI)


def test_a_logarithm_outside_is_biased_low_and_less_so_with_more_inner_draws() -> None:
    def coupled_evidence(m, x):
        return log(E(m.corruption(x), lambda xt: E(m.encoder(xt), lambda z: exp(log_w(m, x, z, xt)))))

    runs = [evaluate(coupled_evidence, BERNOULLI_TORCH, X[:1], n=8000, inner=k, seed=k)[0] for k in (1, 2, 8)]
    values = [*(run.mean for run in runs), 0.0]
    gaps = [b - a for a, b in pairwise(values)]
    assert all(gap > SIX * run.standard_error for gap, run in zip(gaps, runs, strict=True)), gaps
    assert {run.bias for run in runs} == {Bias.LOW}


def test_a_mixture_inside_an_entropy_is_biased_high_and_close() -> None:
    few, many = (
        evaluate(objectives.marginal_elbo, BERNOULLI_TORCH, X[:1], n=4000, inner=inner, seed=1)[0] for inner in (1, 64)
    )
    assert few.bias is many.bias is Bias.HIGH
    assert few.mean > SIX * few.standard_error  # the truth is 0
    assert abs(few.mean - math.log(5 / 3)) < SIX * few.standard_error
    assert abs(many.mean) < SIX * many.standard_error + 0.02


def test_with_one_inner_draw_the_marginal_elbo_is_the_decoupled_objective() -> None:
    estimates = evaluate(objectives.marginal_elbo, FINITE_TORCH, X, n=8000, inner=1, seed=8)
    close(estimates, [float(oracle.denoising_decoupled(FINITE, x)) for x in range(STATES)])


def test_the_biases_of_both_signs_have_no_direction() -> None:
    def both(m, x):
        return log_average_weight(m, x) + exp(E(m.encoder(x), lambda z: log_w(m, x, z, x)))

    (estimate, *_) = evaluate(both, FINITE_TORCH, X, n=10)
    assert estimate.bias is Bias.UNKNOWN


def test_a_linear_expectation_inside_copies_is_drawn_for_each_copy() -> None:
    def averaged(m, x, k):  # E over xt stands linearly inside a mean over k
        return E(m.encoder(x).copies(k), lambda z: mean(E(m.corruption(x), lambda xt: m.encoder(xt).log_prob(z))))

    truth = [
        sum(
            float(FINITE.encoder[x][z] * FINITE.corruption[x][xt]) * math.log(FINITE.encoder[xt][z])
            for z in range(3)
            for xt in range(STATES)
        )
        for x in range(STATES)
    ]
    estimates = evaluate(averaged, FINITE_TORCH, X, n=2000, seed=2, k=5)
    close(estimates, truth)


def test_expectations_in_a_chain_inside_a_logarithm_share_their_inner_draws() -> None:
    def formula(m, x):
        return log(E(m.corruption(x), lambda xt: E(m.encoder(xt), lambda z: exp(log_w(m, x, z, xt)))))

    made = plan(trace(formula), inner=7)
    assert len(made.plates) == 1
    assert not any(isinstance(child, Expect) for child in made.term.children)
    close(
        evaluate(formula, FINITE_TORCH, X, n=8000, inner=3, seed=5),
        [float(oracle.diwae_fresh(FINITE, x, 3)) for x in range(STATES)],
    )


def test_copies_of_a_mixture_have_each_a_component_of_their_own() -> None:
    def bound(m, x, k):  # log mean_k p(x, z_k) with z_k ~ q~: the copies are independent
        return E(m.marginal_encoder(x).copies(k), lambda z: log_mean_exp(m.log_joint(x, z)))

    def truth(x: int) -> float:
        q = FINITE.marginal_encoder(x)
        pairs = [(a, b) for a in range(3) for b in range(3)]
        return sum(float(q[a] * q[b]) * math.log((FINITE.joint(x, a) + FINITE.joint(x, b)) / 2) for a, b in pairs)

    for chunk, n in [(6, 400), (None, 8000)]:
        estimates = evaluate(bound, FINITE_TORCH, X, n=n, k=2, chunk=chunk)
        assert {estimate.bias for estimate in estimates} == {Bias.NONE}
        close(estimates, [truth(x) for x in range(STATES)])


def test_free_bits_are_biased_low_and_right_in_the_limit() -> None:
    def free_bits(m, x, floor):
        penalty = kl(m.encoder(x), m.prior())
        return E(m.encoder(x), lambda z: m.likelihood(z).log_prob(x)) - maximum(floor, penalty)

    floor = float(oracle.kl(FINITE.encoder[0], FINITE.prior))  # a floor at the divergence of x = 0: there it binds
    for inner in (1, 400):
        estimates = evaluate(free_bits, FINITE_TORCH, X, n=2000, inner=inner, floor=floor)
        for x, estimate in enumerate(estimates):
            truth = float(oracle.free_bits(FINITE, x, floor))
            assert estimate.bias is Bias.LOW
            assert estimate.mean < truth + SIX * estimate.standard_error
            if inner == 400:
                assert estimate.mean > truth - SIX * estimate.standard_error - 0.03
    assert (
        evaluate(free_bits, FINITE_TORCH, X, n=2000, inner=1, floor=floor)[0].mean
        < float(oracle.free_bits(FINITE, 0, floor)) - 0.05
    )


def test_one_expectation_in_two_positions_is_no_reason_to_call_it_unbiased() -> None:
    def twice(m, x):  # the very same sub-term stands linearly and inside an exponential
        shared = E(m.encoder(x), lambda z: m.prior().log_prob(z))
        return shared + exp(shared)

    (estimate, *_) = evaluate(twice, FINITE_TORCH, X, n=2000, inner=1)
    mean_log = sum(float(q) * math.log(p) for q, p in zip(FINITE.encoder[0], FINITE.prior, strict=True))
    assert estimate.bias is Bias.HIGH
    assert estimate.mean > mean_log + math.exp(mean_log) - SIX * estimate.standard_error


def test_copies_of_a_mixture_do_not_share_its_component() -> None:
    def spread(m, x):  # log 9 where the two copies differ
        return E(
            m.marginal_encoder(x).copies(2),
            lambda z: maximum_over(m.encoder(x).log_prob(z)) - minimum_over(m.encoder(x).log_prob(z)),
        )

    close(evaluate(spread, BERNOULLI_TORCH, X[:1], n=4000), [0.5 * math.log(9)])


def test_an_inner_mean_draws_anew_whatever_stands_linearly_inside_it() -> None:
    def formula(m, x):  # shared, the inner xt would give E_xt log E_z q(z|xt), which is 0.27 lower
        return log(E(m.encoder(x), lambda z: E(m.corruption(x), lambda xt: m.encoder(xt).prob(z))))

    (estimate,) = evaluate(formula, BERNOULLI_TORCH, X[:1], n=500, inner=200)
    assert abs(estimate.mean - math.log(0.5)) < SIX * estimate.standard_error + 0.02


@pytest.mark.parametrize("chunk", [5, None])
def test_an_inner_mean_of_what_it_does_not_draw_is_that_very_thing(chunk: int | None) -> None:
    def formula(m, x):
        prior = m.prior()
        return E(prior, lambda y: log(E(prior, lambda z: exp(prior.log_prob(y)))) - prior.log_prob(y))

    def plain(m, x):
        prior = m.prior()
        return E(prior, lambda y: maximum(E(prior, lambda z: prior.log_prob(y)), -100) - prior.log_prob(y))

    for each in (formula, plain):
        (estimate,) = evaluate(each, FINITE_TORCH, X[:1], n=10, inner=7, chunk=chunk)
        assert estimate.mean == pytest.approx(0, abs=1e-12)


def test_maximum_minimum_and_equality_of_points() -> None:
    def spread(m, x, k):
        return E(
            m.encoder(x).copies(k), lambda z: maximum_over(m.prior().log_prob(z)) - minimum_over(m.prior().log_prob(z))
        )

    def chosen(m, x):
        return E(m.encoder(x), lambda a: E(m.encoder(x), lambda b: maximum(same(a, b), 0)))

    def pairs(x: int) -> float:
        q = FINITE.encoder[x]
        return float(
            sum(q[a] * q[b] * abs(oracle.log(FINITE.prior[a] / FINITE.prior[b])) for a in range(3) for b in range(3))
        )

    close(evaluate(spread, FINITE_TORCH, X, n=2000, k=2, chunk=20), [pairs(x) for x in range(STATES)])
    same_states = [float(sum(q * q for q in FINITE.encoder[x])) for x in range(STATES)]
    close(evaluate(chosen, FINITE_TORCH, X, n=8000), same_states)


# --- linear-Gaussian models in closed form ---


LINEAR = {"1-D": LinearGaussian(1, 1, seed=1), "5-D": LinearGaussian(5, 8, seed=2)}


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize(
    ("formula", "moved", "between"),
    [(objectives.elbo, 0, 0), (objectives.denoising_coupled, 1, 0), (objectives.denoising_decoupled, 1, 2)],
)
def test_linear_gaussian_closed_forms(name: str, formula: Callable, moved: float, between: float) -> None:
    model = LINEAR[name]
    x = np.random.default_rng(3).normal(size=(4, len(model.b)))
    estimates = evaluate(formula, model.torch(), x, n=8000, seed=6)
    close(estimates, [model.objective(row, moved, between) for row in x])
    assert all(
        e.mean - SIX * e.standard_error < model.log_evidence(row) for e, row in zip(estimates, x, strict=True)
    ) or (between > 0)


@pytest.mark.parametrize("chunk", [1, 7, 64, None])
def test_with_the_exact_posterior_every_iwae_is_the_log_evidence(chunk: int | None) -> None:
    model = LINEAR["5-D"]
    x = np.random.default_rng(4).normal(size=(3, len(model.b)))
    for estimate, row in zip(
        evaluate(objectives.iwae, exact_encoder(model), x, n=2, k=40, chunk=chunk), x, strict=True
    ):
        assert estimate.mean == pytest.approx(model.log_evidence(row), abs=1e-9)


# --- streaming ---


@pytest.mark.parametrize(("chunk", "n"), [(2, 150), (7, 400), (64, 2000), (1000, 2000)])
def test_the_size_of_chunks_does_not_change_the_law_of_the_result(chunk: int, n: int) -> None:
    estimates = evaluate(objectives.iwae, FINITE_TORCH, X, n=n, k=5, chunk=chunk, seed=chunk)
    close(estimates, [float(oracle.iwae(FINITE, x, 5)) for x in range(STATES)])
    nested = evaluate(sivi, FINITE_TORCH, X, n=n, k=3, chunk=chunk, seed=chunk)
    close(nested, [float(oracle.sivi(FINITE, x, 3)) for x in range(STATES)])


@pytest.mark.parametrize("chunk", [4, 10, 1000])
def test_two_reductions_over_the_same_copies_see_the_same_draws(chunk: int) -> None:
    def ratio(m, x, k):
        return E(
            m.encoder(x).copies(k),
            lambda z: log(total(exp(log_w(m, x, z, x)))) - log_mean_exp(log_w(m, x, z, x)),
        )

    def centred(m, x, k):  # a reduction inside another over the same copies
        return E(
            m.encoder(x).copies(k),
            lambda z: total(m.prior().log_prob(z) - mean(m.prior().log_prob(z))),
        )

    for estimate in evaluate(ratio, FINITE_TORCH, X, n=3, k=11, chunk=chunk):
        assert estimate.mean == pytest.approx(math.log(11), abs=1e-12)
    for estimate in evaluate(centred, FINITE_TORCH, X, n=3, k=11, chunk=chunk):
        assert estimate.mean == pytest.approx(0, abs=1e-12)


def test_draws_of_two_sets_of_copies_are_crossed() -> None:
    def crossed(m, x):  # mean_k mean_j q(z_k | xt_j): linear, so unbiased
        return E(
            m.encoder(x).copies(3),
            lambda z: E(m.corruption(x).copies(4), lambda xt: mean(mean(m.encoder(xt).prob(z), over=xt), over=z)),
        )

    truth = [float(sum(FINITE.encoder[x][z] * FINITE.marginal_encoder(x)[z] for z in range(3))) for x in range(STATES)]
    for chunk, n in [(3, 150), (1000, 2000)]:
        close(evaluate(crossed, FINITE_TORCH, X, n=n, chunk=chunk), truth)


def test_replicates_of_different_blocks_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    equal = torch.zeros(2, dtype=torch.long)

    monkeypatch.setattr(units, "default_unit", lambda x: 200)

    def replicates(together: int) -> np.ndarray:
        job = prepare(objectives.elbo, FINITE_TORCH, equal, n=4000)
        job.examples_at_once = together
        return torch.cat([torch.cat(list(block)) for block in blocks_of(job)], 1).numpy()

    values = replicates(2)
    assert values.shape == (4000, 2)
    series = values - values.mean(0)
    for lag in (1, 100, 200):  # within a block, and from one block to the next
        correlation = (series[lag:] * series[:-lag]).mean(0) / series.var(0)
        assert np.all(np.abs(correlation) < SIX / math.sqrt(4000 - lag))
    for pair in (series, replicates(1)):  # equal examples have draws of their own, in one block and in two
        assert abs(np.corrcoef(pair.T)[0, 1]) < SIX / math.sqrt(4000)


MEMORY = """
import resource, sys, torch
from torch.distributions import Bernoulli, Independent, Normal
from boundcheck.catalogue.objectives import iwae
from boundcheck.evaluators.monte_carlo import evaluate
from boundcheck.models.torch_model import TorchModel
torch.set_num_threads(1)
w = torch.linspace(-1, 1, 2 * 784).reshape(2, 784)
model = TorchModel(
    prior=lambda: Independent(Normal(torch.zeros(2), 1.0), 1),
    encoder=lambda x: Independent(Normal(x[:, :2], 1.0), 1),
    decoder=lambda z: Independent(Bernoulli(logits=z @ w), 1),
)
x = (torch.arange(8 * 784).reshape(8, 784) % 3 == 0).float()
evaluate(iwae, model, x, n=2, k=5, chunk=512)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
evaluate(iwae, model, x, n=2, k=int(sys.argv[1]), chunk=512)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the resource module is POSIX")
def test_memory_does_not_grow_with_k() -> None:
    root = Path(__file__).resolve().parent.parent
    grown = {}
    for k in (50, 5000):  # the decoder's means alone, for all copies at once, are 2 * 5000 * 8 * 784 * 4 bytes = 250 MB
        command = [sys.executable, "-c", MEMORY, str(k)]
        run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        grown[k] = int(run.stdout) * (1 if sys.platform == "darwin" else 1024)
    assert grown[5000] < grown[50] + 40e6, grown


def test_the_users_random_state_is_left_alone() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    evaluate(objectives.iwae, FINITE_TORCH, X, n=10, k=5, chunk=4)
    with pytest.raises(BadInput):
        evaluate(objectives.elbo, FINITE_TORCH, torch.tensor([STATES + 1]), n=10)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[index]
    assert random.getstate() == states[2]


def test_a_seed_fixes_the_result_and_another_changes_it() -> None:
    run = [evaluate(objectives.iwae, FINITE_TORCH, X, n=50, k=5, seed=seed) for seed in (0, 0, 1)]
    assert run[0] == run[1]
    assert run[0][0].mean != run[2][0].mean


# --- values that are not finite ---


def narrow_encoder() -> TorchModel:
    """An encoder that leaves the prior's support half of the time."""
    return TorchModel(
        prior=lambda: HalfNormal(torch.tensor(1.0)),
        encoder=lambda x: Normal(torch.zeros(len(x)), 1.0),
        decoder=lambda z: Normal(z, 1.0),
    )


@pytest.mark.parametrize("validate", [True, False])
def test_a_draw_of_density_zero_makes_the_mean_minus_infinite(validate: bool) -> None:
    Distribution.set_default_validate_args(validate)
    try:
        (value,) = evaluate(objectives.elbo, narrow_encoder(), torch.tensor([0.5]), n=50)
        (several,) = evaluate(objectives.iwae, narrow_encoder(), torch.tensor([0.5]), n=50, k=40)
    finally:
        Distribution.set_default_validate_args(True)
    assert value.mean == -math.inf
    assert math.isnan(value.standard_error)
    assert math.isfinite(several.mean)
    assert "-inf" in str(value)


def test_infinity_minus_infinity_is_an_error_that_names_the_example() -> None:
    def undefined(m, x):
        return E(m.encoder(x), lambda z: m.prior().log_prob(z) - m.prior().log_prob(z) * 2)

    with pytest.raises(UndefinedValue, match=r"x\[0\]"):
        evaluate(undefined, narrow_encoder(), torch.tensor([0.5]), n=50)


def test_replicates_of_both_infinite_signs_have_no_mean() -> None:
    model = TorchModel(
        prior=lambda: HalfNormal(torch.tensor(1.0)),
        encoder=lambda x: Normal(torch.zeros(len(x)), 1.0),
        decoder=lambda z: Normal(z, 1.0),
        corruption=lambda x: Uniform(torch.zeros(len(x)), 1.0),
    )

    def formula(m, x):  # +inf where z leaves the prior's support, -inf where y does
        return E(m.encoder(x), lambda z: E(m.encoder(x), lambda y: maximum(m.prior().log_prob(y), -1000) - maximum(
            m.prior().log_prob(z), -10)))  # fmt: skip

    (finite,) = evaluate(formula, model, torch.tensor([0.5]), n=50)
    assert math.isfinite(finite.mean)

    def infinite(m, x):
        return E(m.encoder(x), lambda z: same(z, z) * m.prior().log_prob(z)) - E(
            m.encoder(x), lambda y: m.prior().log_prob(y)
        )

    with pytest.raises(UndefinedValue):
        evaluate(infinite, model, torch.tensor([0.5]), n=50)


def test_moments_agree_with_numpy_whatever_the_blocks() -> None:
    values = np.random.default_rng(0).normal(1e6, 1.0, size=(100, 3))
    moments = Moments(3, torch.device("cpu"))
    for block in np.split(values, [1, 40, 41]):
        moments.add(torch.tensor(block))
    assert moments.means().numpy() == pytest.approx(values.mean(0), rel=1e-14)
    assert moments.standard_errors().numpy() == pytest.approx(values.std(0, ddof=1) / 10, rel=1e-9)


def test_one_draw_of_minus_infinity_among_many_is_not_lost() -> None:
    moments = Moments(2, torch.device("cpu"))
    moments.add(torch.tensor([[1.0, 1.0], [2.0, -math.inf]], dtype=torch.float64))
    moments.add(torch.tensor([[3.0, 1.0]], dtype=torch.float64))
    assert moments.means().tolist() == [2.0, -math.inf]
    moments.add(torch.tensor([[3.0, math.inf]], dtype=torch.float64))
    assert math.isnan(moments.means()[1])


# --- averages ---


def test_the_two_errors_of_a_data_set_mean_are_kept_apart() -> None:
    rng = np.random.default_rng(1)
    truths = rng.normal(0, 2.0, size=4000)
    noisy = truths + rng.normal(0, 0.5, size=4000)
    result = over_examples([Sampled(value, 0.5, Bias.NONE, 10) for value in noisy])
    assert result.monte_carlo_error == pytest.approx(0.5 / math.sqrt(4000))
    assert result.data_set_error == pytest.approx(2.0 / math.sqrt(4000), rel=0.1)
    assert result.sampled == Sampled(result.mean, result.monte_carlo_error, Bias.NONE, 10)


def test_an_infinite_example_makes_the_mean_infinite() -> None:
    result = over_examples([Sampled(1.0, 0.1, Bias.NONE, 5), Sampled(-math.inf, math.nan, Bias.NONE, 5)])
    assert result.mean == -math.inf
    assert math.isnan(result.monte_carlo_error)
    assert result.to_json()["mean"] == "-inf"
    with pytest.raises(BadInput, match="at least one"):
        over_examples([])


# --- what is refused ---


def gaussian(**changed: Callable) -> TorchModel:
    functions: dict[str, Callable] = {
        "prior": lambda: Independent(Normal(torch.zeros(2), 1.0), 1),
        "encoder": lambda x: Independent(Normal(x[:, :2], 1.0), 1),
        "decoder": lambda z: Independent(Normal(torch.cat([z, z], -1), 1.0), 1),
    }
    return TorchModel(**(functions | changed))


def noisy_encoder(x: torch.Tensor) -> Distribution:
    return Independent(Normal(torch.nn.functional.dropout(x[:, :2] + 1, 0.5), 1.0), 1)


def batch_normalised(x: torch.Tensor) -> Distribution:
    return Independent(Normal((x - x.mean(0))[:, :2], 1.0), 1)


class NumpyNormal(Normal):
    def sample(self, sample_shape: torch.Size = torch.Size()) -> torch.Tensor:  # noqa: B008
        return torch.as_tensor(np.random.default_rng().normal(size=self._extended_shape(sample_shape))).float()


class Unsummed(Independent):
    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return self.base_dist.log_prob(value)


def raising(x: torch.Tensor) -> Distribution:
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (5x4 and 9x2)\nsecond line")


REFUSED: dict[str, tuple[dict[str, Callable], str]] = {
    "an undeclared event": (
        {"encoder": lambda x: Normal(x[:, :2], 1.0)},
        r"batch shape of encoder\(x\) = \(5, 2\): expected \(5,\).*torch.distributions.Independent\(..., 1\)",
    ),
    "two undeclared axes": (
        {"decoder": lambda z: Normal(torch.zeros(len(z), 2, 2), 1.0)},
        r"batch shape of decoder\(z\) = \(\d+, 2, 2\): expected \(\d+,\).*Independent\(..., 2\)",
    ),
    "a batch taken for the event": (
        {"encoder": lambda x: Independent(Normal(x[:, :2], 1.0), 2)},
        r"batch shape of encoder\(x\) = \(\): expected \(5,\)",
    ),
    "a prior for a batch": (
        {"prior": lambda: Independent(Normal(torch.zeros(5, 2), 1.0), 1)},
        r"batch shape of prior\(\) = \(5,\): expected \(\)",
    ),
    "an undeclared prior": ({"prior": lambda: Normal(torch.zeros(2), 1.0)}, r"prior\(\) = \(2,\).*Independent"),
    "latents that do not fit": (
        {"prior": lambda: Independent(Normal(torch.zeros(3), 1.0), 1)},
        r"event shape of prior\(\) = \(3,\): expected \(2,\), the shape of one z",
    ),
    "a decoder of another size": (
        {"decoder": lambda z: Independent(Normal(z, 1.0), 1)},
        r"event shape of decoder\(z\) = \(2,\): expected \(4,\), the shape of one x",
    ),
    "parameters for a law": ({"encoder": lambda x: (x, x)}, r"encoder\(x\) = .*expected a torch.distributions object"),
    "a model that fails": ({"encoder": raising}, r"given to encoder\(x\) = \(5, 4\).*RuntimeError: mat1 and mat2"),
    "dropout": ({"encoder": noisy_encoder}, r"encoder\(x\) = .*model\.eval\(\)"),
    "dropout of one in a million": (
        {"encoder": lambda x: Independent(Normal(torch.nn.functional.dropout(x[:, :2] + 1, 1e-6), 1.0), 1)},
        r"encoder\(x\) = .*model\.eval\(\)",
    ),
    "batch normalisation": ({"encoder": batch_normalised}, r"encoder\(x\) = .*model\.eval\(\)"),
    "a first layer in place": (
        {"decoder": lambda z: Independent(Normal(torch.relu_(z).repeat(1, 2), 1.0), 1)},
        r"decoder\(z\) = 'a function that writes to its argument'.*inplace=False",
    ),
    "data clipped in place": (
        {"encoder": lambda x: Independent(Normal(x.clamp_(0, 1)[:, :2], 1.0), 1)},
        r"encoder\(x\) = 'a function that writes to its argument'",
    ),
    "other generators": (
        {"encoder": lambda x: Independent(NumpyNormal(x[:, :2], 1.0), 1)},
        "expected draws that follow torch.manual_seed",
    ),
    "an unsummed density": (
        {"encoder": lambda x: Unsummed(Normal(x[:, :2], 1.0), 1)},
        r"shape of encoder\(x\).log_prob\(z\) = .*one number for each draw and row",
    ),
    "NaN means": (
        {"decoder": lambda z: Independent(Normal(torch.full((len(z), 4), math.nan), 1.0, validate_args=False), 1)},
        r"log-density of decoder\(z\) = nan",
    ),
    "NaN means, validated": (
        {"decoder": lambda z: Independent(Normal(torch.full((len(z), 4), math.nan), 1.0), 1)},
        r"decoder\(z\) = .*raised ValueError",
    ),
    "NaN draws": (
        {"encoder": lambda x: Independent(Normal(torch.full((len(x), 2), math.nan), 1.0, validate_args=False), 1)},
        r"a draw from q\(\.\|x\) = nan",
    ),
    "grey pixels": (
        {"decoder": lambda z: Independent(Bernoulli(logits=torch.cat([z, z], -1)), 1)},
        r"x\[0\] = '0.5, 0.25': expected data in the support of decoder\(z\), a Bernoulli law on boolean values.*bin",
    ),
    "grey pixels, not validated": (
        {
            "decoder": lambda z: Independent(
                Bernoulli(logits=torch.cat([z, z], -1), validate_args=False), 1, validate_args=False
            )
        },
        r"x\[0\] = '0.5, 0.25': expected data in the support",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_does_not_fit_is_refused_by_name(name: str) -> None:
    changed, message = REFUSED[name]
    x = torch.tensor([[0.5, 0.25, 0.0, 1.0], *torch.eye(4).tolist()])
    with pytest.raises(BadInput, match=message) as caught:
        evaluate(objectives.elbo, gaussian(**changed), x, n=20)
    assert "\n" not in str(caught.value)


def test_the_model_that_the_refused_ones_were_made_from_is_accepted() -> None:
    assert len(evaluate(objectives.elbo, gaussian(), torch.ones(5, 4), n=20)) == 5


def forked() -> torch.Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.randn(2)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: 0 * torch.randn(2),
        lambda: torch.randn(2, generator=torch.Generator().manual_seed(0)),
        forked,
    ],
)
def test_draws_that_nothing_hangs_on_and_draws_with_a_seed_are_no_mistake(draw: Callable[[], torch.Tensor]) -> None:
    def encoder(x: torch.Tensor) -> Distribution:
        return Independent(Normal(x[:, :2] + draw(), 1.0), 1)

    assert len(evaluate(objectives.elbo, gaussian(encoder=encoder), torch.ones(5, 4), n=20)) == 5


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"n": 0}, "n = 0"),
        ({"n": 1}, "n = 1: expected at least 2"),
        ({"n": 2.5}, "n = 2.5"),
        ({"n": True}, "n = True"),
        ({"inner": 0}, "inner = 0"),
        ({"chunk": 0}, "chunk = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 1.5}, "seed = 1.5"),
        ({"seed": 2**63}, "seed = "),
    ],
)
def test_bad_arguments_are_refused(argument: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        evaluate(objectives.elbo, FINITE_TORCH, X, **argument)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(0, 4), "at least one example"),
        (1.5, "at least one example"),
        ("abc", "array of numbers"),
        ([[1.0, 2.0], [1.0]], "array of numbers"),
        (torch.tensor([[1.0, math.nan, 0, 0]]), r"x\[0\] = 'not finite'"),
        (torch.tensor([math.inf]), r"x\[0\] = 'not finite'"),
    ],
)
def test_bad_data_are_refused(x: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        evaluate(objectives.elbo, gaussian(), x, n=10)


def test_a_class_out_of_range_is_named() -> None:
    with pytest.raises(BadInput, match=rf"x\[1\] = {STATES}: expected data in the support.*Categorical"):
        evaluate(lambda m, x: E(m.prior(), lambda z: m.likelihood(z).log_prob(x)), FINITE_TORCH, [0, STATES], n=10)


def test_a_support_that_moves_with_the_latent_is_no_mistake_of_the_data() -> None:
    model = TorchModel(
        prior=lambda: Normal(0.0, 1.0),
        encoder=lambda x: Normal(x, 1.0),
        decoder=lambda z: Uniform(z - 1, z + 1),
    )
    (value,) = evaluate(objectives.elbo, model, torch.tensor([0.5]), n=50)
    assert value.mean == -math.inf


def test_a_model_without_the_role_is_refused() -> None:
    with pytest.raises(BadInput, match=r"without corruption.*pass corruption="):
        evaluate(objectives.denoising_coupled, gaussian(), torch.ones(5, 4), n=10)


def test_what_cannot_be_sampled_is_named() -> None:
    def tempered(m, x):
        return E(normalised(m.latent, lambda z: m.log_joint(x, z) / 2), lambda z: m.log_joint(x, z))

    def own(m, x):
        return E(density(m.latent, lambda z: m.prior().log_prob(z)), lambda z: m.log_joint(x, z))

    def normalising(m, x):
        return E(m.encoder(x), lambda z: m.posterior(x).log_prob(z))

    for formula, message in [
        (tempered, "normalised.*cannot be sampled"),
        (own, "density.*cannot be sampled"),
        (normalising, "normalising constant"),
        (objectives.log_evidence, "integral over z has no draws.*iwae.*boundcheck evaluate"),
    ]:
        with pytest.raises(CannotCompute, match=message):
            evaluate(formula, FINITE_TORCH, X, n=10)


def test_a_users_own_density_can_still_be_evaluated() -> None:
    def own(m, x):
        return E(m.prior(), lambda z: density(m.latent, lambda y: m.prior().log_prob(y)).log_prob(z))

    truth = sum(float(p) * math.log(p) for p in FINITE.prior)
    close(evaluate(own, FINITE_TORCH, X[:1], n=8000), [truth])


def test_the_logarithm_of_a_negative_estimate_is_refused() -> None:
    with pytest.raises(CannotCompute, match="negative in some replicates; raise inner"):
        evaluate(lambda m, x: log(E(m.prior(), lambda z: m.prior().log_prob(z))), FINITE_TORCH, X, n=10)


def test_a_vector_is_no_number_but_a_scalar_latent_is() -> None:
    def second_moment(m, x):
        return E(m.prior(), lambda z: z * z)

    scalar = TorchModel(
        prior=lambda: Normal(0.0, 2.0), encoder=lambda x: Normal(x, 1.0), decoder=lambda z: Normal(z, 1.0)
    )
    close(evaluate(second_moment, scalar, torch.tensor([0.0]), n=8000), [4.0])
    with pytest.raises(CannotCompute, match="z is a vector"):
        evaluate(second_moment, gaussian(), torch.ones(1, 4), n=10)


# --- the model's own interface ---


class Module(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2).double()
        self.dropout = torch.nn.Dropout(0.5)
        self.corruption = None

    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(2).double(), 1.0), 1)

    def encoder(self, x: torch.Tensor) -> Distribution:
        return Independent(Normal(self.dropout(self.layer(x)), 1.0), 1)

    def likelihood(self, z: torch.Tensor) -> Distribution:
        return Independent(Normal(torch.cat([z, z], -1), 1.0), 1)


def test_a_module_is_a_model_in_its_own_floating_type() -> None:
    module = Module()
    with pytest.raises(BadInput, match=r"model\.eval"):
        evaluate(objectives.elbo, module, torch.ones(5, 4), n=10)
    module.eval()
    result = evaluate_mean(objectives.elbo, module, torch.ones(5, 4), n=10)
    assert result.examples == 5
    assert not TorchModel.wrap(module).has("corruption")
    assert TorchModel.wrap(TorchModel.wrap(module)).dtype == torch.float64


def test_convolutions_see_one_batch_axis() -> None:
    convolution = torch.nn.Conv2d(1, 2, 3)
    shapes = set()

    def encoder(x: torch.Tensor) -> Distribution:
        shapes.add(x.ndim)
        return Independent(Normal(convolution(x).mean((-1, -2)), 1.0), 1)

    model = TorchModel(
        prior=lambda: Independent(Normal(torch.zeros(2), 1.0), 1),
        encoder=encoder,
        decoder=lambda z: Independent(Normal(z.sum(-1)[:, None, None, None].expand(-1, 1, 4, 4), 1.0), 3),
        corruption=lambda x: Independent(Normal(x, 0.1), 3),
    )
    values = evaluate(diwae_fresh, model, torch.ones(3, 1, 4, 4), n=5, k=4)
    assert all(math.isfinite(value.mean) for value in values)
    assert shapes == {4}


def test_an_object_without_the_functions_is_refused() -> None:
    with pytest.raises(BadInput, match="expected an object with a method prior"):
        evaluate(objectives.elbo, object(), X)
    with pytest.raises(BadInput, match="encoder = 3"):
        TorchModel(prior=lambda: None, encoder=3, decoder=lambda z: None)  # type: ignore[arg-type]
