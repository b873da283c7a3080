"""Flows of zuko as mixing law, encoder, prior and auxiliary model, against direct computations with its own laws."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from boundcheck.catalogue import objectives
from boundcheck.evaluators.monte_carlo import evaluate
from boundcheck.evidence import annealed_weights, evaluate_log_weights, evaluate_model, simulated_gap
from boundcheck.evidence.engine import run
from boundcheck.evidence.text import remarks
from boundcheck.models.torch_model import TorchModel
from boundcheck.models.torch_supports import log_density, turns

PIXELS, LATENT, MIXING = 4, 2, 2
IMAGES = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * PIXELS)


@pytest.fixture(scope="module")
def flows() -> Any:
    return pytest.importorskip("zuko", reason="the extra 'flows' is not installed").flows


class FlowHVM(nn.Module):
    """c(m|x) a flow of zuko, and with `flowing` r(m|z,x) and p(z) flows too: modules, not methods."""

    mixing_size = MIXING

    def __init__(self, mixing: nn.Module, auxiliary: nn.Module | None = None, prior: nn.Module | None = None) -> None:
        super().__init__()
        self.mixing, self.flowing = mixing, auxiliary
        self.encode, self.decode = nn.Linear(MIXING, LATENT), nn.Linear(LATENT, PIXELS)
        self.reverse = nn.Linear(LATENT + PIXELS, MIXING)
        self.prior = prior or (lambda: gaussian(torch.zeros(LATENT), 1.0))

    def encoder(self, m: torch.Tensor) -> Independent:
        return gaussian(self.encode(m), 0.5)

    def decoder(self, z: torch.Tensor) -> Independent:
        return Independent(Bernoulli(logits=self.decode(z)), 1)

    def auxiliary(self, z: torch.Tensor, x: torch.Tensor) -> Distribution:
        given = torch.cat([z, x], -1)
        return gaussian(self.reverse(given), 0.8) if self.flowing is None else self.flowing(given)


def gaussian(mean: torch.Tensor, scale: float) -> Independent:
    return Independent(Normal(mean, scale), 1)


def trained(module: FlowHVM, steps: int = 15) -> FlowHVM:
    """On images whose pixels are ones with probabilities 0.9, 0.8, 0.3 and 0.1, by the HVM bound of the module."""
    optimiser = torch.optim.Adam(module.parameters(), 0.02)
    for _ in range(steps):
        loss = -direct(module, torch.bernoulli(torch.tensor([0.9, 0.8, 0.3, 0.1]).expand(64, -1)), 1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return module.eval()


def direct(module: FlowHVM, x: torch.Tensor, draws: int) -> torch.Tensor:
    """log p(z) + log p(x|z) + log r(m|z,x) - log c(m|x) - log q(z|m), of shape (draws, examples), term by term."""
    given = x.repeat_interleave(draws, 0)
    m, log_c = module.mixing(given).rsample_and_log_prob()
    mean = module.encode(m)
    noise = torch.randn_like(mean)
    z = mean + 0.5 * noise
    log_q = -0.5 * noise.square().sum(-1) - LATENT * math.log(0.5 * math.sqrt(2 * math.pi))
    log_x = -nn.functional.binary_cross_entropy_with_logits(module.decode(z), given, reduction="none").sum(-1)
    log_r = module.auxiliary(z, given).log_prob(m)
    value = module.prior().log_prob(z) + log_x + log_r - log_c - log_q
    return value.reshape(len(x), draws).T


def test_the_evidence_and_the_bound_are_those_of_a_direct_computation(flows: Any) -> None:
    """16 images, 4,000 draws on each side: within 6 standard errors (chance of a false alarm: 32 times 2e-9)."""
    torch.manual_seed(0)
    module = trained(
        FlowHVM(
            flows.NSF(MIXING, context=PIXELS, transforms=1, bins=4, hidden_features=(8,)),
            flows.MAF(MIXING, context=LATENT + PIXELS, transforms=1, hidden_features=(8,)),
            flows.MAF(LATENT, transforms=1, hidden_features=(8,)),
        )
    )
    result = run(module, IMAGES, ks=(1, 4000))
    with torch.no_grad():
        theirs = direct(module, IMAGES, 4000).double()
    weights = (theirs - theirs.max(0).values).exp()
    evidence = (weights.mean(0).log() + theirs.max(0).values).numpy()
    squares = (weights.var(0) / weights.mean(0).square() / 4000).numpy() + 1 / result.effective_sample_sizes
    assert (np.abs(evidence - result.log_mean_weight) < 6 * np.sqrt(squares)).all()
    error = np.hypot(theirs.std(0).numpy() / math.sqrt(4000), result.iwae_errors[0])
    assert (np.abs(theirs.mean(0).numpy() - result.iwae[0]) < 6 * error).all()
    # All of a flow's space is its support, so exp(log mean w) sums to one over all images.
    masses = np.exp(result.log_mean_weight)
    assert abs(masses.sum() - 1) < 6 * math.sqrt(float((masses**2 / result.effective_sample_sizes).sum()))


def test_the_bound_by_its_name_is_the_elbo_of_the_augmented_model(flows: Any) -> None:
    """2,000 draws each: within 6 standard errors for each of 16 images."""
    torch.manual_seed(1)
    module = FlowHVM(flows.NSF(MIXING, context=PIXELS, transforms=1, hidden_features=(8,))).eval()
    sides = [evaluate(formula, module, IMAGES, n=2000, seed=3) for formula in (objectives.hvm, objectives.elbo)]
    for named, augmented in zip(*sides, strict=True):
        assert abs(named.mean - augmented.mean) < 6 * math.hypot(named.standard_error, augmented.standard_error)


def test_a_flow_that_takes_derivatives_of_its_own_is_evaluated_and_annealed(flows: Any) -> None:
    """Its densities need autograd, which inference mode refuses: the card is that of the direct computation."""
    torch.manual_seed(2)
    module = FlowHVM(flows.NAF(MIXING, context=PIXELS, transforms=1, hidden_features=(8,))).eval()
    card = evaluate_model(module, IMAGES[:3], objective="hvm", k=200, replicates=100, simulated=0)
    assert card.failed == {} and {"elbo", "hvm"} <= set(card.judgements)
    theirs = direct(module, IMAGES[:3], 2000).detach().double()
    error = float((theirs.var(0) / 2000).sum().sqrt()) / 3
    for name in ("elbo", "hvm"):
        mean = card.estimates[name]
        assert abs(mean.mean - float(theirs.mean())) < 6 * math.hypot(error, mean.monte_carlo_error)
    weights = annealed_weights(module, IMAGES[:2], temperatures=3, chains=8)
    assert weights.failed == {} and bool(np.isfinite(weights.mean.mean))


def test_a_flow_is_an_encoder_too(flows: Any) -> None:
    """exp(log mean w) sums to one over all images, within 6 standard errors of 2,000 draws each."""
    torch.manual_seed(3)
    decode = nn.Linear(LATENT, PIXELS)
    model = TorchModel(
        prior=lambda: gaussian(torch.zeros(LATENT), 1.0),
        encoder=flows.MAF(LATENT, context=PIXELS, transforms=1, hidden_features=(8,)),
        decoder=lambda z: Independent(Bernoulli(logits=decode(z)), 1),
    )
    result = run(model, IMAGES, ks=(1, 2000))
    masses = np.exp(result.log_mean_weight)
    assert abs(masses.sum() - 1) < 6 * math.sqrt(float((masses**2 / result.effective_sample_sizes).sum()))


def test_a_circular_flow_has_density_on_one_turn_only(flows: Any) -> None:
    """It draws from [-pi, pi], and its own density goes on for ever; over the plane it would have no finite mass."""
    torch.manual_seed(4)
    flow = flows.NCSF(MIXING, context=PIXELS, transforms=1, hidden_features=(8,))
    law = flow(IMAGES[:3])
    inside = torch.rand(5, 3, MIXING) * 6 - 3
    for shift in (2 * math.pi, -4 * math.pi):
        assert bool(torch.isfinite(law.log_prob(inside + shift)).all())
        assert bool((log_density(law, inside + shift) == -math.inf).all())
    assert torch.equal(log_density(law, inside), law.log_prob(inside))
    pair = TorchModel.wrap(FlowHVM(flow)).law("encoder", IMAGES[:3])
    z = torch.randn(5, 3, LATENT)
    assert bool(torch.isfinite(pair.log_prob(torch.cat([z, inside], -1))).all())
    assert bool((pair.log_prob(torch.cat([z, inside + 2 * math.pi], -1)) == -math.inf).all())
    assert not turns(flows.NSF(MIXING, context=PIXELS)(IMAGES[:3]))


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_an_auxiliary_model_that_leaves_the_turn_makes_the_upper_bound_infinite(flows: Any) -> None:
    """r(m|z,x) draws where c(m|x) has no density: annealing back from there says nothing, and the card says so."""
    torch.manual_seed(5)
    module = FlowHVM(flows.NCSF(MIXING, context=PIXELS, transforms=1, hidden_features=(8,))).eval()
    module.auxiliary = lambda z, x: gaussian(torch.zeros(len(z), MIXING), 4.0)  # type: ignore[method-assign]
    gap = simulated_gap(module, examples=6, temperatures=1, chains=2)
    assert gap.gap.mean == math.inf and gap.interval(0.01)[1] == math.inf
    card = replace(evaluate_log_weights(np.zeros((20, 3))), gap=gap)
    assert dict(remarks(card))["bidirectional"] == "AIS is infinitely many nats wide on simulated data only"
