"""Quadrature over one or two latent dimensions, against closed forms, scipy, and certified integration."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from test_annealing import Known, gaussian
from torch.distributions import (
    Bernoulli,
    Categorical,
    Exponential,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
    Uniform,
)

from boundcheck.catalogue.objectives import log_evidence
from boundcheck.errors import BadInput, CannotCompute
from boundcheck.evaluators import integration
from boundcheck.evidence.latent_grid import GridEvidence, grid_evidence
from boundcheck.models import densities
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.torch_model import TorchModel


def scalar(**changed: Any) -> TorchModel:
    zero = torch.zeros((), dtype=torch.float64)
    functions: dict[str, Any] = {
        "prior": lambda: Normal(zero, 1.0),
        "encoder": lambda x: Normal(0 * x, 1.0),
        "decoder": lambda z: Normal(z, 1.0),
    }
    return TorchModel(**{**functions, **changed})


def doubles(*values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def check(found: GridEvidence, truths: Any, tolerance: float = 1e-6) -> None:
    """Every value is within its own error of the truth, and the error within the tolerance."""
    assert not found.failed
    gaps = np.abs(found.values - np.asarray(truths))
    assert np.all(gaps <= found.errors + 1e-12), (gaps, found.errors)
    assert np.all(found.errors <= tolerance)


# --- against closed forms ---


@pytest.mark.parametrize(("latent", "observed"), [(1, 1), (1, 5), (2, 2), (2, 6)])
def test_linear_gaussian_models(latent: int, observed: int) -> None:
    model = Known(latent, observed, seed=latent + observed)
    x, _ = model.data(4, seed=1)
    check(grid_evidence(model.torch(), x), [model.log_evidence(each) for each in x])


@pytest.mark.parametrize("width", [1e-2, 1e-4, 1e-6])
def test_needles_are_found_without_an_encoder_that_points_at_them(width: float) -> None:
    x = doubles(-2.7, 0.0, 0.3333, 1.2345)
    found = grid_evidence(scalar(decoder=lambda z: Normal(z, width)), x)
    check(found, stats.norm(0, math.sqrt(1 + width**2)).logpdf(x.numpy()))


def test_needles_in_two_dimensions() -> None:
    x = doubles([0.3, -0.7], [2.2, 1.9])
    found = grid_evidence(gaussian(decoder=lambda z: Independent(Normal(z, 1e-3), 1)), x)
    check(found, stats.norm(0, math.sqrt(1 + 1e-6)).logpdf(x.numpy()).sum(1))


@pytest.mark.parametrize("x", [30.0, 300.0])
def test_a_posterior_far_out_in_the_tail_of_the_prior(x: float) -> None:
    found = grid_evidence(scalar(decoder=lambda z: Normal(z, 0.1)), doubles(x))
    check(found, [stats.norm(0, math.sqrt(1.01)).logpdf(x)])


def test_a_prior_of_two_far_peaks() -> None:
    means, widths, shares = doubles(-40.0, 3.0), doubles(0.5, 0.01), doubles(0.25, 0.75)
    model = scalar(prior=lambda: MixtureSameFamily(Categorical(shares), Normal(means, widths)))
    x = doubles(-41.0, 3.0, 2.0)
    spread = (widths**2 + 1).sqrt()
    truth = torch.logsumexp(shares.log() + Normal(means, spread).log_prob(x[:, None]), 1)
    check(grid_evidence(model, x), truth.numpy())


@pytest.mark.parametrize(
    ("share", "place", "width", "noise", "x"),
    [
        (0.03, 300.0, 0.01, 1e4, 0.0),  # a likelihood that favours nothing: the first box holds 97% of it
        (0.03, 300.0, 0.01, 1.0, 150.0),
        (0.5, 3.0, 1e-4, 1.0, 3.0),  # a needle between the first points
        (0.1, 3.0, 1e-5, 0.5, 3.0),
    ],
)
def test_small_parts_of_a_prior_are_found_by_its_own_draws(
    share: float, place: float, width: float, noise: float, x: float
) -> None:
    shares, means, widths = doubles(1 - share, share), doubles(0.0, place), doubles(1.0, width)
    model = scalar(
        prior=lambda: MixtureSameFamily(Categorical(shares), Normal(means, widths)),
        decoder=lambda z: Normal(z, torch.full_like(z, noise)),
    )
    truth = torch.logsumexp(shares.log() + Normal(means, (widths**2 + noise**2).sqrt()).log_prob(doubles(x)), 0)
    check(grid_evidence(model, doubles(x)), truth.numpy())


def test_where_the_grid_steps_over_many_peaks_its_error_is_that_of_the_draws() -> None:
    """286 peaks of a width of 2e-4 each: the grid meets some of them, and may not say that those are all."""
    found = grid_evidence(scalar(decoder=lambda z: Normal((50 * z).sin(), 0.01)), doubles(0.3))
    z = np.linspace(-8, 8, 2_000_001)
    truth = math.log(np.trapezoid(stats.norm.pdf(z) * stats.norm.pdf(0.3, np.sin(50 * z), 0.01), z))
    assert abs(found.values[0] - truth) <= found.errors[0] < 1
    assert found.errors[0] > 0.01


def test_a_correlated_prior_in_two_dimensions() -> None:
    covariance = doubles([1.0, 0.95], [0.95, 1.0])
    model = gaussian(prior=lambda: MultivariateNormal(torch.zeros(2).double(), covariance))
    x = doubles([1.0, -1.0], [0.5, 0.4])
    truth = stats.multivariate_normal([0, 0], covariance.numpy() + np.eye(2)).logpdf(x.numpy())
    check(grid_evidence(model, x), truth)


# --- against other quadrature ---


def test_a_logistic_model_against_certified_integration() -> None:
    shifts = (-1, 0, 1)
    model = TorchModel(
        prior=lambda: Independent(Normal(torch.zeros(1).double(), 1.0), 1),
        encoder=lambda x: Independent(Normal(x[:, :1], 1.0), 1),
        decoder=lambda z: Independent(Bernoulli(logits=2 * z - doubles(*shifts)), 1),
    )
    certified = ContinuousModel(
        prior=densities.Normal(0, 1),
        likelihood=lambda z: [densities.BernoulliLogit(2 * z - shift) for shift in shifts],
    )
    points = [(1, 0, 1), (0, 0, 0), (0, 1, 1)]
    found = grid_evidence(model, doubles(*points), tolerance=1e-8)
    for point, value, error in zip(points, found.values, found.errors, strict=True):
        enclosure = integration.evaluate(log_evidence, certified, point)
        assert enclosure.lower - error - 1e-12 <= value <= enclosure.upper + error + 1e-12
        assert error < 1e-8


def test_heavy_tails_are_followed_and_their_error_is_owned_up_to() -> None:
    model = scalar(prior=lambda: StudentT(doubles(1.0)[0], 0.0, 1.0), decoder=lambda z: Normal(torch.tanh(z), 1.0))
    x = doubles(0.5, 3.0)
    pieces = [-math.inf, -30.0, -3.0, 0.0, 3.0, 30.0, math.inf]
    truths = []
    for each in x.tolist():
        joint = lambda z, each=each: stats.cauchy.pdf(z) * stats.norm.pdf(each, np.tanh(z), 1)  # noqa: E731
        ends = itertools.pairwise(pieces)
        truths.append(math.log(sum(integrate.quad(joint, a, b, epsabs=1e-13)[0] for a, b in ends)))
    check(grid_evidence(model, x, tolerance=1e-5), truths, tolerance=1e-5)


def test_a_decoder_with_kinks() -> None:
    x = doubles(0.2, 1.0, -2.0)
    model = scalar(decoder=lambda z: Normal(torch.relu(3 * z - 1) - torch.relu(-z), 0.2))
    truths = []
    for each in x.tolist():
        mean = lambda z: max(3 * z - 1, 0) - max(-z, 0)  # noqa: E731
        joint = lambda z, each=each, mean=mean: stats.norm.pdf(z) * stats.norm.pdf(each, mean(z), 0.2)  # noqa: E731
        truths.append(
            math.log(
                integrate.quad(joint, -12, 12, points=[0.0, 1 / 3, *np.linspace(-4, 4, 33)], limit=400, epsabs=1e-13)[0]
            )
        )
    check(grid_evidence(model, x), truths)


def test_a_network_in_two_dimensions_against_a_plain_grid() -> None:
    rng = np.random.default_rng(0)
    first, second = torch.tensor(rng.normal(size=(2, 8))), torch.tensor(rng.normal(size=(8, 10)))
    model = gaussian(
        encoder=lambda x: Independent(Normal(x[:, :2], 1.0), 1),
        decoder=lambda z: Independent(Bernoulli(logits=torch.tanh(z @ first) @ second), 1),
    )
    x = torch.tensor(rng.integers(0, 2, size=(3, 10)), dtype=torch.float64)
    axis = torch.linspace(-9, 9, 901, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    log_prior = Normal(0.0, 1.0).log_prob(z).sum(1)
    logits = torch.tanh(z @ first) @ second
    truths = [
        float(torch.logsumexp(log_prior + Bernoulli(logits=logits).log_prob(each).sum(1), 0)) + 2 * math.log(0.02)
        for each in x
    ]
    found = grid_evidence(model, x)
    check(found, truths)
    assert int(found.points.max()) < 400_000


def test_float32_models_own_up_to_their_rounding() -> None:
    model = TorchModel(
        prior=lambda: Normal(torch.tensor(0.0), 1.0),
        encoder=lambda x: Normal(0 * x, 1.0),
        decoder=lambda z: Normal(z, 0.01),
    )
    x = torch.tensor([0.5, 2.0])
    truth = stats.norm(0, math.sqrt(1.0001)).logpdf(x.double().numpy())
    found = grid_evidence(model, x)
    check(found, truth, tolerance=1e-3)
    assert np.all(found.errors > 1e-7)


# --- what it does with trouble ---


def test_evidence_of_zero_is_no_proof() -> None:
    never = Bernoulli(probs=torch.zeros(()).double())
    found = grid_evidence(scalar(decoder=lambda z: Bernoulli(probs=never.probs.expand(len(z)))), doubles(1.0, 0.0))
    assert found.values[0] < -15  # torch clamps probabilities, which makes it finite
    assert found.values[1] == pytest.approx(0, abs=1e-6)


def test_an_example_without_numbers_is_named_and_the_others_are_not_touched() -> None:
    def decoder(z: torch.Tensor) -> Normal:
        return Normal(z, 1.0)

    class Odd(Normal):
        def log_prob(self, value: torch.Tensor) -> torch.Tensor:
            return torch.where(value == 7.0, math.nan, super().log_prob(value))

    model = scalar(decoder=lambda z: Odd(z, 1.0))
    found = grid_evidence(model, doubles(1.0, 7.0, 2.0))
    assert list(found.failed) == [1]
    assert math.isnan(found.values[1])
    plain = grid_evidence(scalar(decoder=decoder), doubles(1.0, 2.0))
    assert found.values[[0, 2]].tolist() == plain.values.tolist()
    assert float(found.mean) == pytest.approx(float(plain.mean))
    assert json.loads(json.dumps(found.to_json()))["failed"].keys() == {"1"}


def test_out_of_points_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that shakes wildly, and points for a first look only: the truth is still within the error."""
    from boundcheck.evidence import latent_grid as module

    monkeypatch.setattr(module, "_MOST_POINTS", {1: 1000, 2: 1000})
    model = scalar(decoder=lambda z: Normal(torch.sin(40 * z), 0.05))
    found = module.grid_evidence(model, doubles(0.3))
    z = np.linspace(-9, 9, 2_000_001)
    truth = math.log(
        np.mean(stats.norm.pdf(z) * stats.norm.pdf(0.3, np.sin(40 * z), 0.05)) * 18 * len(z) / (len(z) - 1)
    )
    assert abs(found.values[0] - truth) <= found.errors[0]
    assert found.errors[0] > 1e-3
    monkeypatch.undo()
    check(grid_evidence(model, doubles(0.3)), [truth], tolerance=1e-5)


def test_rows_change_nothing() -> None:
    model = Known(1, 2, seed=3)
    x, _ = model.data(2, seed=1)
    ticks: list[int] = []
    whole = grid_evidence(model.torch(), x, progress=ticks.append)
    assert ticks == [1, 1]
    np.testing.assert_allclose(grid_evidence(model.torch(), x, rows=100).values, whole.values, rtol=1e-12)


def test_other_latents_are_refused() -> None:
    zeros = torch.zeros(3).double()
    for changed, words in (
        ({"prior": lambda: Independent(Normal(zeros, 1.0), 1)}, "3 dimensions"),
        ({"prior": lambda: Categorical(torch.ones(3))}, "discrete"),
        ({"prior": lambda: Exponential(torch.ones(()).double())}, "not all of R"),
        ({"prior": lambda: Uniform(zeros[0], 1.0)}, "not all of R"),
    ):
        with pytest.raises(CannotCompute, match=words):
            grid_evidence(scalar(**changed), doubles(1.0))


def test_mistakes_are_named() -> None:
    for arguments, words in (
        ({"tolerance": 0}, "tolerance"),
        ({"tolerance": True}, "tolerance"),
        ({"rows": 0}, "rows"),
    ):
        with pytest.raises(BadInput, match=words):
            grid_evidence(scalar(), doubles(1.0), **arguments)
    with pytest.raises(BadInput, match=r"x\[1\]"):
        grid_evidence(scalar(decoder=lambda z: Bernoulli(logits=z)), doubles(1.0, 0.5))
    with pytest.raises(BadInput, match="event shape"):
        grid_evidence(scalar(), doubles([1.0, 2.0]))
    with pytest.raises(BadInput, match=r"decoder\(z\)"):
        grid_evidence(scalar(decoder=lambda z: Normal(z + torch.rand(()), 1.0)), doubles(1.0))


def test_where_memory_does_not_suffice_the_rows_are_halved() -> None:
    def greedy(z: torch.Tensor) -> Normal:
        if len(z) > 100:
            raise MemoryError
        return Normal(z, 1.0)

    check(grid_evidence(scalar(decoder=greedy), doubles(1.0)), [stats.norm(0, math.sqrt(2)).logpdf(1.0)])
