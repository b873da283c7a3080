"""Laws of z whose density, taken outside what they draw, would add mass that p(x) does not have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch.distributions import (
    AffineTransform,
    Categorical,
    Exponential,
    Independent,
    MixtureSameFamily,
    Normal,
    TransformedDistribution,
    VonMises,
)

from boundcheck.evidence import evaluate_model
from boundcheck.evidence.engine import run
from boundcheck.models.hierarchical import HierarchicalModel
from boundcheck.models.layers import Layers
from boundcheck.models.torch_model import TorchModel
from boundcheck.models.torch_supports import in_support, log_density, turns

WIDTH = 0.3


def normal(mean: torch.Tensor, scale: float) -> Independent:
    return Independent(Normal(mean, scale), 1)


def von_mises() -> Independent:
    return Independent(VonMises(torch.zeros(1), torch.tensor(0.5)), 1)


def exponential() -> Independent:
    """Left to itself, its log-density at -5 is +5."""
    return Independent(Exponential(torch.ones(1), validate_args=False), 1)


def angles(encoder: Any) -> TorchModel:
    return TorchModel(prior=von_mises, encoder=encoder, decoder=lambda z: normal(z, WIDTH))


def truth(x: float, density: Any, low: float, high: float, width: float = WIDTH) -> float:
    """log p(x) of z ~ density on [low, high] and x ~ N(z, width^2), by quadrature."""
    near = min(max(x, low), high)
    value, _ = integrate.quad(
        lambda z: density(z) * stats.norm.pdf(x, z, width), low, high, points=[near], epsabs=0, limit=200
    )
    return math.log(value)


def circle(z: float) -> float:
    return float(stats.vonmises.pdf(z, 0.5))


@pytest.mark.parametrize("place", [3.4, 4.0])
def test_a_circular_prior_has_no_mass_beyond_its_turn(place: float) -> None:
    # The likelihood points beyond pi. A prior that goes on there would give log p(x) = -2 instead of -3 or -8.
    model = angles(lambda x: normal(x - 1.0, 0.5))
    found = run(model, torch.full((4, 1), place), ks=(20_000,))
    log_p = truth(place, circle, -math.pi, math.pi)
    assert found.log_mean_weight == pytest.approx(np.full(4, log_p), abs=0.2)  # over 10 standard errors


def test_a_circular_latent_is_neither_annealed_nor_put_on_a_grid() -> None:
    model = angles(lambda x: Independent(VonMises(torch.full((len(x), 1), 2.0), torch.tensor(0.5)), 1))
    card = evaluate_model(model, torch.full((5, 1), 4.5), k=200, ais=5, simulated=0)
    assert card.annealed is None and card.grid is None
    assert any("circle" in note for note in card.notes)
    assert card.interval.lower < truth(4.5, circle, -math.pi, math.pi)


def test_observed_angles_may_be_on_another_turn() -> None:
    model = TorchModel(
        prior=lambda: normal(torch.zeros(1), 1.0),
        encoder=lambda x: normal(0 * x, 1.0),
        decoder=lambda z: Independent(VonMises(z, torch.tensor(2.0)), 1),
    )
    first = run(model, torch.tensor([[1.0], [1.0 + 2 * math.pi]]), ks=(50,), seed=3).log_mean_weight
    again = run(model, torch.tensor([[1.0], [1.0]]), ks=(50,), seed=3).log_mean_weight
    assert first == pytest.approx(again, abs=1e-5)


def test_a_layer_has_no_mass_outside_its_support() -> None:
    sizes = {"a": 1, "b": 1}
    prior = Layers({"a": exponential(), "b": lambda a: normal(a, 0.5)}, sizes)
    model = TorchModel(
        prior=lambda: prior,
        encoder=lambda x: Layers({"a": normal(0 * x, 1.0), "b": lambda a: normal(a, 0.5)}, sizes),
        decoder=lambda z: normal(z[:, 1:], 0.5),
    )
    found = run(model, torch.full((4, 1), -1.0), ks=(20_000,)).log_mean_weight
    expected = truth(-1.0, lambda a: math.exp(-a), 0.0, 30.0, width=0.5**0.5)
    assert found == pytest.approx(np.full(4, expected), abs=0.2)


def test_a_hierarchical_models_prior_has_no_mass_outside_its_support() -> None:
    model = HierarchicalModel(
        prior=exponential,
        mixing=lambda x: normal(x, 1.0),
        encoder=lambda m: normal(m, 0.7),
        decoder=lambda z: normal(z, 0.5),
        auxiliary=lambda z, x: normal((z + x) / 2, 0.6),
        mixing_size=1,
    )
    found = run(model, torch.full((4, 1), -1.0), ks=(20_000,)).log_mean_weight
    expected = truth(-1.0, lambda z: math.exp(-z), 0.0, 30.0, width=0.5)
    assert found == pytest.approx(np.full(4, expected), abs=0.3)


def test_laws_that_turn_are_recognised_through_what_wraps_them() -> None:
    plain = VonMises(torch.zeros(2), torch.ones(2))
    twice = TransformedDistribution(plain, [AffineTransform(1.0, 2.0)])
    mixed = MixtureSameFamily(Categorical(torch.ones(2)), plain)
    assert all(turns(law) for law in (plain, Independent(plain, 1), twice, mixed))
    assert not turns(Independent(Normal(torch.zeros(2), 1.0), 1))
    points = torch.tensor([[3.0, 3.0], [3.0, 3.2], [-3.2, 0.0]])
    inside = in_support(Independent(plain, 1), points, (3,), drawn=True)
    assert inside is not None and inside.tolist() == [True, False, False]
    moved = in_support(twice, 1 + 2 * points, (3, 2), drawn=True)
    assert moved is not None and torch.equal(moved, points.abs() < math.pi)
    single = in_support(mixed, points[:, 0], (3,), drawn=True)
    assert single is not None and single.tolist() == [True, True, False]


def test_every_draw_of_a_circular_law_is_on_its_turn() -> None:
    law = VonMises(torch.tensor([math.pi, -math.pi, 3.0]), torch.tensor(50.0))  # most draws are near the seam
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = law.sample((20_000,))
    inside = in_support(law, draws, (20_000, 3), drawn=True)
    assert inside is not None and bool(inside.all())


def test_nan_is_not_taken_for_a_point_outside() -> None:
    value = log_density(exponential(), torch.tensor([[math.nan], [-1.0], [1.0]]))
    assert math.isnan(value[0]) and value[1:].tolist() == [-math.inf, -1.0]


def pyro_pair(prior: Any, guide: Any) -> TorchModel:
    """z ~ prior, x ~ N(z, WIDTH^2): one number for each row, as sites under a plate usually are."""
    pyro = pytest.importorskip("pyro")
    from boundcheck.adapters.pyro import from_pyro

    def model(x: torch.Tensor) -> None:
        with pyro.plate("examples", len(x)):
            z = pyro.sample("z", prior(torch.zeros(len(x))))
            pyro.sample("x", pyro.distributions.Normal(z, WIDTH), obs=x)

    def encoder(x: torch.Tensor) -> None:
        with pyro.plate("examples", len(x)):
            pyro.sample("z", guide(x))

    return from_pyro(model, encoder, torch.ones(2))


@pytest.mark.parametrize("validated", [True, False])
def test_a_latent_site_of_pyro_has_no_mass_outside_its_support(validated: bool) -> None:
    pyro = pytest.importorskip("pyro")
    dist = pyro.distributions
    with pyro.validation_enabled(validated):
        one_turn = pyro_pair(lambda o: dist.VonMises(o, 0.5), lambda x: dist.Normal(x - 1.0, 0.5))
        found = run(one_turn, torch.full((4,), 3.4), ks=(5000,)).log_mean_weight
        assert found == pytest.approx(np.full(4, truth(3.4, circle, -math.pi, math.pi)), abs=0.2)
        positive = pyro_pair(lambda o: dist.Exponential(o + 1), lambda x: dist.Normal(x, 0.7))
        found = run(positive, torch.full((4,), -0.5), ks=(5000,)).log_mean_weight
        expected = truth(-0.5, lambda z: math.exp(-z), 0.0, 30.0)
        assert found == pytest.approx(np.full(4, expected), abs=0.2)
