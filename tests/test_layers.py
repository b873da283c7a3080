"""Several stochastic layers as one law: densities and draws against the laws that they are made of."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

from boundcheck.catalogue import objectives
from boundcheck.errors import BadInput
from boundcheck.evaluators.monte_carlo import evaluate
from boundcheck.evidence.engine import run
from boundcheck.models.layers import Layers
from boundcheck.models.torch_model import TorchModel

SIZES = {"z": 2, "top": 1}
GAIN = torch.tensor([[0.5, -1.0]], dtype=torch.float64)


def normal(mean: torch.Tensor, scale: float) -> Independent:
    return Independent(Normal(mean, scale), 1)


def top_down() -> Layers:
    top = normal(torch.zeros(1, dtype=torch.float64), 1.0)
    return Layers({"top": top, "z": lambda top: normal(top @ GAIN, 0.5)}, SIZES)


def as_one() -> MultivariateNormal:
    """The same law as one Gaussian: z = GAIN' top + noise."""
    covariance = torch.zeros(3, 3, dtype=torch.float64)
    covariance[:2, :2] = GAIN.T @ GAIN + 0.25 * torch.eye(2)
    covariance[:2, 2:] = GAIN.T
    covariance[2:, :2] = GAIN
    covariance[2, 2] = 1.0
    return MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance)


def test_the_density_is_that_of_the_gaussian_it_is() -> None:
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(7, 5, 3)))
    assert torch.allclose(top_down().log_prob(points), as_one().log_prob(points), rtol=1e-12, atol=1e-12)


def test_draws_have_the_moments_of_the_gaussian_it_is() -> None:
    """200,000 draws: each of 9 covariances within 6 standard errors, a false alarm at most 2e-8."""
    torch.manual_seed(0)
    draws = top_down().sample((200_000,))
    products = draws[:, :, None] * draws[:, None, :]
    error = products.std(0) / math.sqrt(len(draws))
    assert bool(((products.mean(0) - as_one().covariance_matrix).abs() < 6 * error).all())


def test_one_law_for_each_row_and_bottom_up() -> None:
    x = torch.tensor([[0.0, 1.0], [2.0, -1.0], [0.5, 0.5]], dtype=torch.float64)
    encoder = Layers({"z": normal(0.7 * x, 0.6), "top": lambda z: normal(z.sum(-1, keepdim=True) / 3, 0.8)}, SIZES)
    assert encoder.batch_shape == (3,) and encoder.sample((4, 5)).shape == (4, 5, 3, 3)
    z = encoder.sample((4,))
    expected = normal(0.7 * x, 0.6).log_prob(z[..., :2]) + Normal(z[..., :2].sum(-1) / 3, 0.8).log_prob(z[..., 2])
    assert torch.allclose(encoder.log_prob(z), expected)
    parts = encoder.parts(z)
    assert parts["z"].shape == (4, 3, 2) and torch.equal(parts["top"][..., 0], z[..., 2])


def test_gradients_pass_through_the_draws() -> None:
    mean = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    Layers({"z": normal(mean, 1.0), "top": lambda z: normal(z[:, :1], 1.0)}, SIZES).rsample().sum().backward()
    assert mean.grad is not None and torch.equal(mean.grad, torch.tensor([[2.0, 1.0]] * 3, dtype=torch.float64))


def two_layers(exact: bool) -> TorchModel:
    """x ~ N(z_1, 1/4) for z ~ GAIN' top + noise; with `exact`, q is the posterior, layer by layer."""
    observe = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    prior = as_one().covariance_matrix
    gain = prior @ observe / (prior[0, 0] + 0.25)
    covariance = prior - torch.outer(gain, observe @ prior)
    above = covariance[2, :2] @ torch.linalg.inv(covariance[:2, :2])
    rest = float((covariance[2, 2] - above @ covariance[:2, 2]).sqrt())

    def encoder(x: torch.Tensor) -> Layers:
        mean = x * gain
        bottom = MultivariateNormal(mean[:, :2], covariance[:2, :2])
        wide = 1.0 if exact else 1.3

        def top(z: torch.Tensor) -> Independent:
            centre = x.repeat(len(z) // len(x), 1) * gain[2:] + ((z - _repeat(mean[:, :2], z)) @ above)[:, None]
            return normal(centre, rest * wide)

        return Layers({"z": bottom, "top": top}, SIZES)

    return TorchModel(prior=top_down, encoder=encoder, decoder=lambda z: normal(z[:, :1], 0.5))


def _repeat(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return rows.repeat(len(like) // len(rows), 1)


def test_with_the_posterior_of_both_layers_every_weight_is_the_evidence() -> None:
    x = torch.tensor([[0.3], [-1.2], [2.0]], dtype=torch.float64)
    truth = Normal(0.0, math.sqrt(float(as_one().covariance_matrix[0, 0]) + 0.25)).log_prob(x)[:, 0]
    exact = run(two_layers(exact=True), x, ks=(1, 20))
    assert np.allclose(exact.iwae, truth.numpy(), atol=1e-9)
    loose = run(two_layers(exact=False), x, ks=(1, 2000))
    assert (loose.iwae[0] < truth.numpy() - 0.02).all() and np.allclose(loose.log_mean_weight, truth.numpy(), atol=0.1)
    values = evaluate(objectives.elbo, two_layers(exact=True), x, n=10)
    assert np.allclose([value.mean for value in values], truth.numpy(), atol=1e-9)


def test_a_layer_may_be_a_module_whose_forward_names_what_it_takes() -> None:
    class Given(torch.nn.Module):
        def forward(self, top: torch.Tensor) -> Independent:
            return normal(top @ GAIN, 0.5)

    top = normal(torch.zeros(1, dtype=torch.float64), 1.0)
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(7, 3)))
    made = Layers({"top": top, "z": Given()}, SIZES)
    assert torch.equal(made.log_prob(points), top_down().log_prob(points))


@pytest.mark.parametrize(
    ("laws", "sizes", "message"),
    [
        ({"z": normal(torch.zeros(2), 1.0)}, {"z": 2, "top": 1}, "sizes"),
        ({"z": lambda: normal(torch.zeros(2), 1.0)}, {"z": 2}, "drawn first has no arguments"),
        ({"z": normal(torch.zeros(2), 1.0), "top": normal(torch.zeros(1), 1.0)}, SIZES, "a function of layers"),
        (
            {"z": normal(torch.zeros(2), 1.0), "top": lambda y: y},
            SIZES,
            "an argument of the law of top = 'y'.*lambda z:",
        ),
        ({"z": Normal(torch.zeros(2), 1.0), "top": lambda z: z}, SIZES, "the event shape of the law of z"),
    ],
)
def test_laws_that_do_not_fit_are_named(laws: dict, sizes: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Layers(laws, sizes)


@pytest.mark.parametrize(
    ("top", "message"),
    [
        (lambda z: z, "the law of top"),
        (lambda z: normal(z, 1.0), "the event shape of the law of top"),
        (lambda z: normal(torch.zeros(1), 1.0), "the batch shape of the law of top"),
    ],
)
def test_a_function_that_returns_something_else_is_named(top: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Layers({"z": normal(torch.zeros(2), 1.0), "top": top}, SIZES).sample((4,))  # type: ignore[dict-item]
