"""Hierarchical encoders on an augmented latent space: closed forms, laws, and a trained flow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform, TanhTransform

from boundcheck.catalogue import objectives
from boundcheck.errors import BadInput, FormulaError
from boundcheck.evaluators.monte_carlo import evaluate, evaluate_pair
from boundcheck.evidence.engine import run
from boundcheck.models.hierarchical import HierarchicalModel
from boundcheck.models.torch_model import TorchModel


def normal(mean: torch.Tensor, scale: float | torch.Tensor) -> Independent:
    return Independent(Normal(mean, scale), 1)


def linear(own: float = 0.5) -> dict:
    """z ~ N(0,1), x ~ N(z,1); m ~ N(x/2, 1/4), z ~ N(m, own^2), r any Gaussian."""
    return {
        "prior": lambda: normal(torch.zeros(1, dtype=torch.float64), 1.0),
        "mixing": lambda x: normal(x / 2, 0.5),
        "encoder": lambda m: normal(m, own),
        "decoder": lambda z: normal(z, 1.0),
        "auxiliary": lambda z, x: normal(0.4 * z + 0.3 * x, 0.4),
        "mixing_size": 1,
    }


X = torch.tensor([[0.7], [-1.5]], dtype=torch.float64)
TRUTH = Normal(0.0, math.sqrt(2.0)).log_prob(X)[:, 0].numpy()


def with_m_for_corrupted(given: dict[str, Any]) -> TorchModel:
    """The model of the catalogue's formulas: m in the place of x~."""
    parts = {role: given[role] for role in ("prior", "encoder", "decoder", "auxiliary")}
    return TorchModel(**parts, corruption=given["mixing"])


def test_the_elbo_of_the_augmented_model_is_the_hvm_bound() -> None:
    """Against the catalogue's formula on the same laws with m as x~; 6 standard errors of 40,000 draws each."""
    given = linear()
    plain = with_m_for_corrupted(given)
    theirs = evaluate(objectives.hvm, plain, X, n=40_000, seed=1)
    ours = evaluate(objectives.elbo, HierarchicalModel(**given), X, n=40_000, seed=2)
    for a, b in zip(theirs, ours, strict=True):
        assert abs(a.mean - b.mean) < 6 * math.hypot(a.standard_error, b.standard_error)


def test_formulas_of_hierarchical_encoders_see_the_parts() -> None:
    """hvm and sivi on the hierarchical model, draw for draw as on a plain model with m in the place of x~."""
    given = linear(0.7)
    plain = with_m_for_corrupted(given)
    for formula, more in ((objectives.hvm, {}), (objectives.sivi, {"k": 2}), (objectives.marginal_elbo, {"inner": 4})):
        theirs = evaluate(formula, plain, X, n=50, seed=1, **more)
        assert evaluate(formula, HierarchicalModel(**given), X, n=50, seed=1, **more) == theirs


def test_both_sides_of_a_pair_may_see_different_models() -> None:
    """HVM less the ELBO of the augmented model is zero, within 6 standard errors, also from Sobol sequences."""
    for draws in ("independent", "sobol"):
        both = evaluate_pair(objectives.hvm, objectives.elbo, HierarchicalModel(**linear(0.7)), X, n=4096, draws=draws)
        for value in both.difference:
            assert abs(value.mean) < 6 * value.standard_error


@pytest.mark.parametrize(
    ("formula", "change", "message"),
    [
        (lambda m, x: objectives.beta_objective(m, x, 2), {}, "m.log_joint"),
        (objectives.reconstruction, {}, "m.log_joint"),
        (lambda m, x: objectives.elbo(m, x) - objectives.hvm(m, x), {}, "takes m, not x"),
        (objectives.hvm, {"encoder": lambda m, x: normal(m + x, 0.5)}, "elbo is the HVM bound"),
    ],
)
def test_formulas_that_a_hierarchical_model_cannot_mean_are_refused(formula, change: dict, message: str) -> None:
    """p(x|z) alone would hold the auxiliary model as well, so its value would be another one than is asked for."""
    with pytest.raises(FormulaError, match=message):
        evaluate(formula, HierarchicalModel(**(linear() | change)), X, n=2)


def test_an_encoder_may_be_a_module_and_may_have_settings() -> None:
    """Whether an encoder sees x is read off its forward function, and what has a default is no x."""

    class Encoder(nn.Module):
        def forward(self, m: torch.Tensor, scale: float = 0.5) -> Independent:
            return normal(m, scale)

    expected = run(HierarchicalModel(**linear()), X, ks=(1, 50))
    found = run(HierarchicalModel(**(linear() | {"encoder": Encoder()})), X, ks=(1, 50))
    assert (found.iwae == expected.iwae).all()


def test_the_weights_have_the_mean_p_of_x_whatever_the_auxiliary_model() -> None:
    """E w = p(x): the relative error of 200,000 weights is about 0.002, and 6 of them are allowed."""
    for slope in (0.0, 0.2, 0.4):
        given = linear(0.9) | {"auxiliary": lambda z, x, slope=slope: normal(slope * z + 0.3 * x, 0.4)}
        result = run(HierarchicalModel(**given), X, ks=(1, 200_000))
        error = 1 / np.sqrt(result.effective_sample_sizes)
        assert (np.abs(result.log_mean_weight - TRUTH) < 6 * error).all()
        assert (result.iwae[0] < result.log_mean_weight).all()


def test_with_the_posterior_of_both_every_weight_is_the_evidence() -> None:
    """q(z) = N(x/2, 1/2) is the posterior when 1/4 of its variance is mixed in, and r = q(m|z,x) closes the gap."""
    exact = linear() | {"auxiliary": lambda z, x: normal((z + x / 2) / 2, math.sqrt(1 / 8))}
    result = run(HierarchicalModel(**exact), X, ks=(1, 50))
    assert np.allclose(result.iwae, TRUTH, atol=1e-9)


def test_an_encoder_may_see_x_as_well() -> None:
    given = linear() | {
        "mixing": lambda x: normal(torch.zeros_like(x), 0.5),
        "encoder": lambda m, x: normal(m + x / 2, 0.5),
        "auxiliary": lambda z, x: normal((z - x / 2) / 2, math.sqrt(1 / 8)),
    }
    assert np.allclose(run(HierarchicalModel(**given), X, ks=(1, 50)).iwae, TRUTH, atol=1e-9)


def test_pairs_are_drawn_from_the_joint_law() -> None:
    """At exact posterior draws E 1/w = 1/p(x), so E p(x)/w = 1 over draws of the joint law; 6 standard errors."""
    torch.manual_seed(0)
    given = linear(0.7)
    model = HierarchicalModel(**given)
    x, pair = model.draw_pair(50_000)
    log_w = (
        model.law("prior").log_prob(pair)
        + model.law("likelihood", pair).log_prob(x)
        - model.law("encoder", x).log_prob(pair)
    )
    ratio = (Normal(0.0, math.sqrt(2.0)).log_prob(x)[:, 0] - log_w).exp()
    assert abs(float(ratio.mean()) - 1) < 6 * float(ratio.std()) / math.sqrt(len(ratio))


class FlowVAE(nn.Module):
    """A VAE whose mixing law is a flow: an affine map of a Gaussian, bent by tanh, and stretched."""

    mixing_size = 2

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.encode = nn.Linear(4, 4), nn.Linear(2, 4)
        self.decode, self.reverse = nn.Linear(2, 4), nn.Linear(6, 4)

    def prior(self) -> Independent:
        return normal(torch.zeros(2), 1.0)

    def mixing(self, x: torch.Tensor) -> TransformedDistribution:
        shift, scale = self.mix(x).chunk(2, -1)
        bend = [TanhTransform(cache_size=1), AffineTransform(shift, scale.exp(), event_dim=1)]
        return TransformedDistribution(normal(torch.zeros_like(shift), 1.0), bend)

    def encoder(self, m: torch.Tensor) -> Independent:
        mean, scale = self.encode(m).chunk(2, -1)
        return normal(mean, scale.exp())

    def decoder(self, z: torch.Tensor) -> Independent:
        return Independent(torch.distributions.Bernoulli(logits=self.decode(z)), 1)

    def auxiliary(self, z: torch.Tensor, x: torch.Tensor) -> Independent:
        mean, scale = self.reverse(torch.cat([z, x], -1)).chunk(2, -1)
        return normal(mean, scale.exp())


def test_a_trained_flow_is_evaluated_against_the_sum_over_its_data_space() -> None:
    """The decoder's p(x) sums to one over all 16 images: so do the estimates exp(log mean w), within 6 errors."""
    torch.manual_seed(0)
    module = FlowVAE()
    optimiser = torch.optim.Adam(module.parameters(), 0.02)
    model = TorchModel.wrap(module)
    assert isinstance(model, HierarchicalModel) and model.dtype == torch.float32
    for _ in range(60):
        x = torch.bernoulli(torch.tensor([0.9, 0.8, 0.3, 0.1]).expand(64, -1))
        law = model.law("encoder", x)
        pair = law.rsample()  # type: ignore[attr-defined]
        value = model.law("prior").log_prob(pair) + model.law("likelihood", pair).log_prob(x) - law.log_prob(pair)
        optimiser.zero_grad()
        (-value.mean()).backward()
        optimiser.step()
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
    result = run(module.eval(), images, ks=(1, 20_000))
    masses = np.exp(result.log_mean_weight)
    error = math.sqrt(float((masses**2 / result.effective_sample_sizes).sum()))
    # tanh bounds the flow's support, so that E w <= p(x): the sum must not exceed one, and may fall short of it.
    assert masses.sum() < 1 + 6 * error
    assert (result.iwae[0] <= result.log_mean_weight + 1e-9).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixing": None}, "mixing = None"),
        ({"mixing_size": 0}, "mixing_size = 0"),
        ({"mixing_size": 2}, "mixing_size = 2"),
        ({"mixing": lambda x: Normal(x[:, 0], 1.0)}, "the event shape of mixing"),
        ({"auxiliary": lambda z, x: normal(torch.cat([z, x], 1), 1.0)}, "the event shape of auxiliary"),
    ],
)
def test_laws_that_do_not_fit_are_named(change: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        run(HierarchicalModel(**(linear() | change)), X, ks=(1,))


def test_an_object_that_lacks_a_function_is_refused_by_its_name() -> None:
    class Half:
        def mixing(self, x: torch.Tensor) -> Independent:
            return normal(x, 1.0)

    with pytest.raises(BadInput, match="prior"):
        TorchModel.wrap(Half())
