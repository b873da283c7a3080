"""Annealed importance sampling against closed forms, against a perfect kernel, and against planted mistakes.

Statistical tests allow six standard errors, so a false alarm has probability 2e-9 each and below 1e-6 together.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import oracle
import pytest
import torch
from helpers import finite
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Exponential,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    constraints,
)
from torch_models import LinearGaussian

from boundcheck.catalogue.objectives import ais_forward, ais_reverse, tvo_left
from boundcheck.errors import BadInput, CannotCompute
from boundcheck.evaluators import enclosure, quadrature
from boundcheck.evidence import chain_block as block_module
from boundcheck.evidence import chains as chains_module
from boundcheck.evidence.annealing import AnnealedWeights, annealed_weights, moves, reverse_weights, schedule
from boundcheck.evidence.bidirectional import simulate, simulated_gap
from boundcheck.evidence.hmc import Moved, Noise, Points, transition
from boundcheck.evidence.latent_grid import grid_evidence
from boundcheck.models import densities
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.torch_model import TorchModel

SIX = 6.0


class Known(LinearGaussian):
    """A linear-Gaussian model whose posterior is known, and an encoder that misses it by a stated shift and stretch."""

    def __init__(self, latent: int, observed: int, seed: int, shift: float = 0.5, stretch: float = 1.2) -> None:
        super().__init__(latent, observed, seed)
        self.w *= 1.5 / math.sqrt(latent)
        precision = np.eye(latent) + self.w.T @ self.w / self.s**2
        self.covariance = np.linalg.inv(precision)
        self.gain = self.covariance @ self.w.T / self.s**2
        self.a, self.c = self.gain, -self.gain @ self.b + shift * np.sqrt(np.diag(self.covariance))
        self.v = stretch**2 * np.diag(self.covariance)

    def data(self, examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """x and z drawn from the model, and so an exact posterior draw for each x."""
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(examples, len(self.c)))
        return z @ self.w.T + self.b + self.s * rng.normal(size=(examples, len(self.b))), z

    def posterior_draws(self, x: np.ndarray, count: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        mean = self.gain @ (x - self.b)
        return rng.multivariate_normal(mean, self.covariance, size=count)


def full_encoder(model: Known, stretch: float) -> TorchModel:
    """The model with an encoder that has the posterior's correlations, and variances that are too large."""
    a, c, covariance = (torch.tensor(each) for each in (model.a, model.c, stretch * model.covariance))
    functions = model.torch()._functions
    return TorchModel(
        prior=functions["prior"],
        decoder=functions["likelihood"],
        encoder=lambda x: MultivariateNormal(x @ a.T + c, covariance),
    )


def ratio_score(log_weights: np.ndarray, truth: float) -> float:
    """How many standard errors the mean of w / p(x) is from 1."""
    ratio = np.exp(log_weights - truth)
    return float((ratio.mean() - 1) / (ratio.std(ddof=1) / math.sqrt(ratio.size)))


# --- forward: E w = p(x) ---


@pytest.mark.parametrize(
    ("latent", "temperatures", "base", "kind"),
    [
        (1, 40, "prior", "linear"),
        (2, 10, "encoder", "sigmoid"),
        (10, 30, "encoder", "linear"),
        (50, 40, "full", "linear"),
    ],
)
def test_the_mean_weight_is_the_evidence(latent: int, temperatures: int, base: str, kind: str) -> None:
    model = Known(latent, min(10, latent + 1), seed=latent, shift=0.3)
    x, _ = model.data(1, seed=1)
    found = annealed_weights(
        full_encoder(model, 1.3) if base == "full" else model.torch(),
        x,
        temperatures=temperatures,
        chains=1000 if latent < 50 else 300,
        leapfrogs=5,
        base="encoder" if base == "full" else base,
        kind=kind,
        seed=2,
    )
    truth = model.log_evidence(x[0])
    assert np.std(found.log_weights) < 1  # so that the mean weight is nearly normal, and the score means something
    assert abs(ratio_score(found.log_weights, truth)) < SIX
    assert found.mean.mean < truth + SIX * found.mean.monte_carlo_error
    assert found.bound(1e-9) < truth


@pytest.mark.slow
@pytest.mark.parametrize("latent", [1, 2, 5, 10, 20, 50])
@pytest.mark.parametrize("base", ["encoder", "prior"])
def test_the_mean_weight_is_the_evidence_in_full(latent: int, base: str) -> None:
    model = Known(latent, latent + 1, seed=latent, shift=0.7, stretch=0.8)
    x, _ = model.data(1, seed=1)
    temperatures = 60 if base == "encoder" else 60 + 12 * latent
    found = annealed_weights(model.torch(), x, temperatures=temperatures, chains=8000, leapfrogs=5, base=base, seed=3)
    assert abs(ratio_score(found.log_weights, model.log_evidence(x[0]))) < SIX


def test_one_temperature_is_importance_sampling_from_the_base() -> None:
    model = Known(2, 3, seed=4)
    x, _ = model.data(1, seed=1)
    found = annealed_weights(model.torch(), x, temperatures=1, chains=4000, seed=5)
    assert found.acceptance.size == found.step_sizes.size == 0
    elbo = model.objective(x[0], 0.0, 0.0)
    assert abs(found.mean.mean - elbo) < SIX * found.mean.monte_carlo_error
    assert abs(ratio_score(found.log_weights, model.log_evidence(x[0]))) < SIX


def test_more_temperatures_tighten_both_sides() -> None:
    model = Known(5, 6, seed=6, shift=1.0)
    x, z = model.data(60, seed=7)
    truth = np.array([model.log_evidence(each) for each in x])
    gaps = []
    for temperatures in (2, 10, 50):
        how: dict[str, Any] = {"temperatures": temperatures, "chains": 8, "leapfrogs": 5, "kind": "linear"}
        lower = annealed_weights(model.torch(), x, **how)
        upper = reverse_weights(model.torch(), x, z, **how)
        below, above = truth - lower.log_weights.mean(0), upper.log_weights.mean(0) - truth
        for side in (below, above):
            assert side.mean() > -SIX * side.std() / math.sqrt(len(x))
        gap = below + above
        gaps.append((gap.mean(), gap.std() / math.sqrt(len(x))))
        assert lower.bound(1e-6) <= truth.mean() <= upper.bound(1e-6)
    for (wide, error), (narrow, other) in itertools.pairwise(gaps):
        assert wide - narrow > SIX * math.hypot(error, other)


# --- reverse: E 1/w = 1/p(x) ---


def test_the_mean_reciprocal_of_reverse_weights_is_that_of_the_evidence() -> None:
    """Independent posterior draws of one x, one chain each."""
    model = Known(3, 4, seed=8, shift=0.5, stretch=1.0)
    x, _ = model.data(1, seed=9)
    z = model.posterior_draws(x[0], 1000, seed=10)
    found = reverse_weights(
        model.torch(), np.repeat(x, 1000, 0), z, temperatures=15, chains=1, leapfrogs=5, kind="linear"
    )
    assert np.std(found.log_weights) < 1
    assert abs(ratio_score(-found.log_weights, -model.log_evidence(x[0]))) < SIX


def test_a_reverse_bound_counts_the_chains_of_one_posterior_draw_as_one_bet() -> None:
    weights = np.full((64, 1), 3.0)
    found = AnnealedWeights(weights, True, schedule(1), np.empty(0), np.empty(0), "encoder", 1, 0, 0.0)
    assert found.bound(0.01) == pytest.approx(3.0 + math.log(100) + 1e-3)  # kept for examples that might be lost
    assert found.mean.mean == 3.0
    forward = replace(found, reverse=False)
    assert 3.0 - math.log(100) < forward.bound(0.01) < 3.0


def test_the_simulated_gap_and_what_it_says() -> None:
    model = Known(2, 3, seed=11)
    ticks: list[int] = []
    found = simulated_gap(
        model.torch(), examples=70, temperatures=20, chains=4, leapfrogs=5, progress=ticks.append, seed=1
    )
    assert sum(ticks) == 2 * moves(70, 20, 4)
    assert 0 < found.gap.mean < 1
    x, z = simulate(model.torch(), 70, seed=1)
    assert (x.shape, z.shape) == ((70, 3), (70, 2))
    truth = float(np.mean([model.log_evidence(each) for each in x.numpy()]))
    lower, upper = found.interval(1e-6)
    assert lower < truth < upper
    shown = json.loads(json.dumps(found.to_json()))
    assert shown["label"] == "on simulated data only"
    assert shown["forward"]["expectation"]["label"] == "bound in expectation"
    assert shown["probability"]["label"] == "bound with probability 1-delta"
    assert len(shown["forward"]["acceptance"]) == 19


def test_simulated_pairs_are_those_of_the_model_and_do_not_depend_on_how_many() -> None:
    model = Known(2, 3, seed=12)
    x, z = simulate(model.torch(), 20_000, seed=3)
    few, _ = simulate(model.torch(), 300, seed=3)
    assert torch.equal(few, x[:300])
    noise = (x - z @ torch.tensor(model.w).T - torch.tensor(model.b)) / model.s
    for draws in (z, noise):
        assert float(draws.mean(0).abs().max()) < SIX / math.sqrt(len(x))
        assert float((draws.square().mean(0) - 1).abs().max()) < SIX * math.sqrt(2 / len(x))
    assert float((noise.T @ z / len(x)).abs().max()) < SIX / math.sqrt(len(x))


# --- the bookkeeping, against a kernel that mixes perfectly ---


def test_with_perfect_mixing_it_is_the_left_sum_of_thermodynamic_integration(monkeypatch: pytest.MonkeyPatch) -> None:
    """E log w = sum_t (b_t - b_{t-1}) E_{pi_{b_{t-1}}} log p(x,z)/q(z|x): TVO's left sum, here by quadrature."""
    posterior_precision, m, v = 1 + 1 / 0.49, 0.4, 0.8  # z ~ N(0, 1), x | z ~ N(z, 0.7^2), q = N(0.4, 0.8^2)

    def perfect(
        evaluate: Callable[[Tensor], Points],
        start: Points,
        beta: float,
        step: Tensor,
        scale: Tensor,
        leapfrogs: int,
        noise: Noise,
    ) -> Moved:
        precision = (1 - beta) / v**2 + beta * posterior_precision
        mean = ((1 - beta) * m / v**2 + beta * 1.3 / 0.49) / precision
        return Moved(evaluate(mean + precision**-0.5 * noise.momentum), torch.ones_like(start.joint))

    monkeypatch.setattr(block_module, "transition", perfect)
    unit = torch.zeros(1, dtype=torch.float64)
    model = TorchModel(
        prior=lambda: Independent(Normal(unit, 1.0), 1),
        encoder=lambda x: Independent(Normal(0 * x + m, v), 1),
        decoder=lambda z: Independent(Normal(z, 0.7), 1),
    )
    x = torch.tensor([[1.3]], dtype=torch.float64)
    found = annealed_weights(model, x, temperatures=4, chains=20_000, kind="linear")
    truth = quadrature.evaluate(
        partial(tvo_left, s=4),
        ContinuousModel(
            prior=densities.Normal(0, 1),
            likelihood=lambda z: densities.Normal(z, "7/10"),
            encoder=lambda x: densities.Normal("2/5", "4/5"),
        ),
        1.3,
    )
    assert abs(found.mean.mean - float(truth)) < SIX * found.mean.monte_carlo_error


class Bins(Distribution):
    """A finite law as a density on the line: state s is the interval from s to s + 1."""

    arg_constraints: ClassVar = {}
    support = constraints.real

    def __init__(self, probs: Tensor) -> None:
        self.probs = probs
        super().__init__(probs.shape[:-1], validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        state = Categorical(self.probs).sample(sample_shape)
        return state + torch.rand(state.shape, dtype=self.probs.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        state = value.floor().long()
        rows = self.probs.expand(*value.shape, -1)
        return rows.gather(-1, state.clamp(0, self.probs.shape[-1] - 1)[..., None]).squeeze(-1).log()


def test_on_a_finite_model_a_metropolis_version_has_the_catalogues_certified_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """E log w forwards and backwards, by enclosure, with the catalogue's kernel in place of Hamiltonian Monte Carlo."""
    finite_model, x, steps, chains = oracle.random_model(random.Random(3), x=2, z=3, xt=None), 1, 3, 40_000
    prior, likelihood, encoder = (
        torch.tensor(np.array(rows, dtype=float))
        for rows in (finite_model.prior, finite_model.likelihood, finite_model.encoder)
    )
    model = TorchModel(
        prior=lambda: Bins(prior),
        encoder=lambda x: Bins(encoder[x]),
        decoder=lambda z: Categorical(likelihood[z.detach().floor().long().clamp(0, 2)]),
    )

    def metropolis(
        evaluate: Callable[[Tensor], Points],
        start: Points,
        beta: float,
        step: Tensor,
        scale: Tensor,
        leapfrogs: int,
        noise: Noise,
    ) -> Moved:
        proposed = evaluate((noise.jitter[:, None] > encoder[x].cumsum(0)).sum(1).double() + 0.5)
        gain = proposed.log_density(beta) - start.log_density(beta) + start.base - proposed.base
        return Moved(proposed.where(noise.decision.log() < gain, start), gain.clamp(max=0.0).exp())

    monkeypatch.setattr(block_module, "transition", metropolis)
    monkeypatch.setattr(block_module.Block, "_check_model", lambda block, start: None)  # it would refuse the steps
    data = torch.full((1,), x)
    forward = annealed_weights(model, data, temperatures=steps, chains=chains, kind="linear", seed=20)
    posterior = (prior * likelihood[:, x]).double()
    z = np.random.default_rng(21).choice(3, size=4000, p=(posterior / posterior.sum()).numpy()) + 0.5
    back = reverse_weights(model, data.expand(4000), z, temperatures=steps, chains=1, kind="linear", seed=22)
    for found, formula in ((forward, ais_forward), (back, ais_reverse)):
        truth = float(enclosure.evaluate(partial(formula, steps=steps), finite(finite_model), x))
        error = float(found.log_weights.std(ddof=1)) / math.sqrt(found.log_weights.size)
        assert 0 < error < 0.03
        assert abs(float(found.log_weights.mean()) - truth) < SIX * error
    evidence = float(posterior.sum().log())
    assert abs(ratio_score(forward.log_weights, evidence)) < SIX
    assert abs(ratio_score(-back.log_weights, -evidence)) < SIX


# --- planted mistakes ---


def accepting(gain_of: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Moved]:
    """The transition with another rule of acceptance, from (log-density gained, kinetic energy before, after)."""

    def planted(
        evaluate: Callable[[Tensor], Points],
        start: Points,
        beta: float,
        step: Tensor,
        scale: Tensor,
        leapfrogs: int,
        noise: Noise,
    ) -> Moved:
        size = step[:, None]
        momentum, here = noise.momentum, start
        for _ in range(leapfrogs):
            momentum = momentum + 0.5 * size * scale * here.gradient(beta)
            here = evaluate(here.z + size * scale * momentum)
            momentum = momentum + 0.5 * size * scale * here.gradient(beta)
        before, after = (0.5 * each.square().sum(1) for each in (noise.momentum, momentum))
        gain = gain_of(here.log_density(beta) - start.log_density(beta), before, after)
        return Moved(here.where(noise.decision.log() < gain, start), gain.clamp(max=0.0).exp())

    return planted


def adapting(*arguments: Any) -> Moved:
    """Longer steps on one side than on the other: a step size that looks at its own chain."""
    evaluate, start, beta, step, *rest = arguments
    return transition(evaluate, start, beta, step * torch.sigmoid(3 * start.z[:, 0]), *rest)


RIGHT = accepting(lambda gain, before, after: gain + before - after)
PLANTED = {
    "wrong sign of the acceptance": accepting(lambda gain, before, after: -(gain + before - after)),
    "missing momentum": accepting(lambda gain, before, after: gain),
    "wrong sign of the momentum": accepting(lambda gain, before, after: gain - before + after),
    "accepting everything": accepting(lambda gain, before, after: torch.zeros_like(gain)),
    "adapting inside the chain": adapting,
}


def score_of(kernel: Callable[..., Moved], monkeypatch: pytest.MonkeyPatch) -> float:
    """The score of E w = p(x) with steps so long that the rule of acceptance matters."""
    model = Known(2, 3, seed=13, shift=1.5, stretch=1.0)
    x, _ = model.data(1, seed=1)
    monkeypatch.setattr(block_module, "transition", kernel)

    def long_steps(block: object, before: object) -> Generator[Any, None, Tensor]:
        yield from ()
        return torch.full((19, 1), 1.5, dtype=torch.float64)

    monkeypatch.setattr(block_module.Block, "tuned_steps", long_steps)
    found = annealed_weights(model.torch(), x, temperatures=20, chains=4000, leapfrogs=1, kind="linear", seed=4)
    return ratio_score(found.log_weights, model.log_evidence(x[0]))


def test_the_right_rule_passes_the_check_that_planted_mistakes_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert abs(score_of(RIGHT, monkeypatch)) < SIX
    assert abs(score_of(transition, monkeypatch)) < SIX


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_caught(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert abs(score_of(PLANTED[mistake], monkeypatch)) > SIX


def test_the_pilot_shares_no_number_with_the_chains() -> None:
    """The chains' weights given the step sizes are the same if the pilot had other draws but left the same steps."""
    model = Known(2, 3, seed=14)
    x, _ = model.data(2, seed=1)
    seen: list[Any] = []
    original = Noise.at.__func__  # type: ignore[attr-defined]

    def watched(cls: type, seed: int, purpose: int, *rest: Any) -> Noise:
        noise = original(cls, seed, purpose, *rest)
        seen.extend((int(purpose), round(float(number), 12)) for number in noise.momentum.flatten())
        return noise

    Noise.at = classmethod(watched)  # type: ignore[method-assign, assignment]
    try:
        annealed_weights(model.torch(), x, temperatures=5, chains=3)
    finally:
        Noise.at = classmethod(original)  # type: ignore[method-assign, assignment]
    purposes = {purpose for purpose, _ in seen}
    numbers = [{number for purpose, number in seen if purpose == each} for each in purposes]
    assert len(numbers) == 2
    assert not numbers[0] & numbers[1]
    assert sum(map(len, numbers)) == len(seen)


# --- reproducible, whatever the cut ---


def test_rows_and_other_examples_change_nothing() -> None:
    model = Known(3, 4, seed=15)
    x, z = model.data(6, seed=1)
    how: dict[str, Any] = {"temperatures": 12, "chains": 5, "leapfrogs": 4, "seed": 6}
    whole = annealed_weights(model.torch(), x, **how)
    for rows in (8, 44):
        np.testing.assert_allclose(
            annealed_weights(model.torch(), x, rows=rows, **how).log_weights, whole.log_weights, rtol=1e-8
        )
    few = annealed_weights(model.torch(), x[:4], **how)
    np.testing.assert_allclose(few.log_weights, whole.log_weights[:, :4], rtol=1e-8)
    other = annealed_weights(model.torch(), x, **{**how, "seed": 7})
    assert not np.any(other.log_weights == whole.log_weights)
    back = reverse_weights(model.torch(), x, z, **how)
    np.testing.assert_allclose(
        reverse_weights(model.torch(), x, z, rows=4, **how).log_weights, back.log_weights, rtol=1e-8
    )


def test_blocks_of_examples_are_put_together_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Known(1, 2, seed=16)
    x, _ = model.data(7, seed=1)
    whole = annealed_weights(model.torch(), x, temperatures=4, chains=3)
    monkeypatch.setattr(chains_module, "_MOST_EXAMPLES", 2)
    np.testing.assert_allclose(
        annealed_weights(model.torch(), x, temperatures=4, chains=3).log_weights, whole.log_weights, rtol=1e-8
    )


def test_a_base_that_is_not_gaussian_and_one_with_full_covariance() -> None:
    model = Known(2, 3, seed=17)
    x, _ = model.data(1, seed=1)
    functions = model.torch()._functions
    a, c = torch.tensor(model.a), torch.tensor(model.c)
    laplace = TorchModel(
        prior=functions["prior"],
        decoder=functions["likelihood"],
        encoder=lambda x: Independent(Laplace(x @ a.T + c, 0.5), 1),
    )
    for other in (laplace, full_encoder(model, 2.0)):
        found = annealed_weights(other, x, temperatures=10, chains=1500, leapfrogs=5, seed=8)
        assert abs(ratio_score(found.log_weights, model.log_evidence(x[0]))) < SIX


def test_a_network_with_a_bernoulli_likelihood_against_quadrature() -> None:
    rng = np.random.default_rng(19)
    first, second = torch.tensor(rng.normal(size=(2, 8))), torch.tensor(rng.normal(size=(8, 12)))
    model = gaussian(
        encoder=lambda x: Independent(Normal(0.5 * x[:, :2], 1.0), 1),
        decoder=lambda z: Independent(Bernoulli(logits=torch.tanh(z @ first) @ second), 1),
    )
    x = torch.tensor(rng.integers(0, 2, size=(2, 12)), dtype=torch.float64)
    truth = grid_evidence(model, x)
    found = annealed_weights(model, x, temperatures=30, chains=1000, leapfrogs=5, kind="linear")
    for column, value, error in zip(found.log_weights.T, truth.values, truth.errors, strict=True):
        assert error < 1e-5
        assert np.std(column) < 1
        assert abs(ratio_score(column, value)) < SIX


def test_schedules_and_acceptance() -> None:
    for kind in ("linear", "sigmoid"):
        for temperatures in (1, 2, 3, 10, 1000):
            betas = schedule(temperatures, kind)
            assert (betas[0], betas[-1], len(betas)) == (0.0, 1.0, temperatures + 1)
            assert np.all(np.diff(betas) > 0)
            np.testing.assert_allclose(betas + betas[::-1], 1.0)
    model = Known(4, 5, seed=18)
    x, _ = model.data(20, seed=1)
    found = annealed_weights(model.torch(), x, temperatures=30, chains=4)
    assert found.acceptance.shape == found.step_sizes.shape == (29,)
    assert 0.75 < found.acceptance.mean() < 1
    assert json.loads(json.dumps(found.to_json()))["mean_acceptance"] == pytest.approx(found.acceptance.mean())


# --- what cannot be annealed ---


def gaussian(**changed: Any) -> TorchModel:
    zero = torch.zeros(2, dtype=torch.float64)
    functions: dict[str, Any] = {
        "prior": lambda: Independent(Normal(zero, 1.0), 1),
        "encoder": lambda x: Independent(Normal(x / 2, 0.7), 1),
        "decoder": lambda z: Independent(Normal(z, 1.0), 1),
    }
    return TorchModel(**{**functions, **changed})


X = torch.tensor([[0.3, -0.2], [1.0, 2.0], [0.0, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"prior": lambda: Categorical(torch.ones(3))}, "discrete"),
        ({"prior": lambda: Independent(Exponential(torch.ones(2).double()), 1)}, "not all of R"),
        ({"encoder": lambda x: Independent(Exponential(x.exp()), 1)}, "not all of R"),
        ({"decoder": lambda z: Independent(Normal(z.detach(), 1.0), 1)}, "no gradient"),
        ({"decoder": lambda z: Independent(Normal(torch.tensor(z.detach().numpy() ** 2), 1.0), 1)}, "no gradient"),
        ({"decoder": lambda z: Independent(Normal(z.round(), 1.0), 1)}, "step function"),
    ],
)
def test_latents_that_cannot_be_followed_are_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(CannotCompute, match=words):
        annealed_weights(gaussian(**changed), X, temperatures=3)


def test_a_decoder_that_ignores_z_is_not_refused() -> None:
    model = gaussian(decoder=lambda z: Independent(Normal(0 * z, 1.0), 1))
    found = annealed_weights(model, X, temperatures=20, chains=50)
    truth = Normal(0.0, 1.0).log_prob(X).sum(1).numpy()
    assert np.all(found.bound_of_examples(1e-9) < truth)


def test_mistakes_are_named() -> None:
    model = gaussian()
    for name, value in (("temperatures", 0), ("chains", 1.5), ("leapfrogs", True), ("rows", 0)):
        with pytest.raises(BadInput, match=name):
            annealed_weights(model, X, **{"temperatures": 3, name: value})  # type: ignore[arg-type]
    for name in ("base", "kind"):
        with pytest.raises(BadInput, match="expected '"):
            annealed_weights(model, X, **{name: "none"})  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="seed"):
        annealed_weights(model, X, seed=-1)
    with pytest.raises(BadInput, match="examples"):
        simulated_gap(model, examples=0)
    for bad in (torch.zeros(2, 2), torch.full((3, 2), math.nan)):
        with pytest.raises(BadInput, match=r" z|^z"):
            reverse_weights(model, X, bad, temperatures=3)
    with pytest.raises(BadInput, match="event shape"):
        annealed_weights(gaussian(encoder=lambda x: Independent(Normal(x[:, :1], 1.0), 1)), X)
    with pytest.raises(BadInput, match=r"encoder\(x\)"):
        annealed_weights(gaussian(encoder=lambda x: Independent(Normal(x + torch.rand(2), 1.0), 1)), X)
    with pytest.raises(BadInput, match=r"decoder\(z\)"):
        annealed_weights(gaussian(decoder=lambda z: Independent(Normal(z + torch.rand(2), 1.0), 1)), X)


def test_data_outside_the_support_are_named_in_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains_module, "_MOST_EXAMPLES", 2)
    model = gaussian(decoder=lambda z: Independent(Bernoulli(logits=z), 1))
    x = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
    with pytest.raises(BadInput, match=r"x\[3\]"):
        annealed_weights(model, x, temperatures=3)
    assert np.all(annealed_weights(model, x[:3], temperatures=10).bound_of_examples(0.01) < 0)


def test_an_example_without_numbers_is_named_and_the_others_are_not_touched() -> None:
    whole = annealed_weights(gaussian(), X, temperatures=6)
    broken = gaussian(encoder=lambda x: Independent(Normal(torch.where(x[:, :1] == 1, math.nan, x / 2), 0.7), 1))
    found = annealed_weights(broken, X, temperatures=6)
    assert list(found.failed) == [1]
    assert np.isnan(found.log_weights[:, 1]).all()
    np.testing.assert_allclose(found.log_weights[:, [0, 2]], whole.log_weights[:, [0, 2]], rtol=1e-12)
    assert found.bound_of_examples(0.1)[1] == -math.inf
    left = replace(whole, log_weights=whole.log_weights[:, [0, 2]])
    assert found.bound(0.1) == pytest.approx(left.bound(0.1 * 1e-3 / 9), abs=1e-3)  # its draws chose the one to be lost
    assert "1" in found.to_json()["failed"]


def test_where_every_example_fails_nothing_is_claimed() -> None:
    broken = gaussian(encoder=lambda x: Independent(Normal(x * math.nan, 0.7), 1))
    found = annealed_weights(broken, X, temperatures=3)
    assert sorted(found.failed) == [0, 1, 2]
    assert math.isnan(found.mean.mean)
    assert found.bound(0.1) == -math.inf
    assert json.loads(json.dumps(found.to_json()))["probability"]["bound"] == "-inf"


def test_trajectories_that_diverge_are_rejected_not_fatal() -> None:
    """exp(exp(z)) overflows where a wild step leads, and the law would refuse the NaN that follows."""
    model = gaussian(decoder=lambda z: Independent(Normal(z - (z.exp().exp() - z.exp().exp()), 1.0), 1))
    found = annealed_weights(model, X, temperatures=10, chains=200, seed=9)
    truth = Normal(0.0, 2**0.5).log_prob(X).sum(1).numpy()
    assert not found.failed
    assert np.all(found.bound_of_examples(1e-9) < truth)
    assert np.all(np.abs(found.log_mean_weight() - truth) < 0.5)


def test_where_memory_does_not_suffice_the_rows_are_halved_and_the_numbers_stay() -> None:
    whole = annealed_weights(gaussian(), X, temperatures=4, chains=8, rows=64)

    def greedy(z: Tensor) -> Independent:
        if len(z) > 6:
            raise MemoryError
        return Independent(Normal(z, 1.0), 1)

    found = annealed_weights(gaussian(decoder=greedy), X, temperatures=4, chains=8, rows=64)
    np.testing.assert_allclose(found.log_weights, whole.log_weights, rtol=1e-10)
    assert "halved to 4" in found.notes[-1]
    assert found.to_json()["notes"] == list(found.notes)

    def hungry(z: Tensor) -> Independent:
        raise MemoryError

    with pytest.raises((BadInput, MemoryError)):
        annealed_weights(gaussian(decoder=hungry), X, temperatures=4)
