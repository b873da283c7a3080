"""What users' training losses do beside returning a number, and that no figure or verdict suffers from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from boundcheck.claims.decide import Outcome, decide
from boundcheck.errors import BadInput
from boundcheck.evaluators.values import Approximate, Bias
from boundcheck.evidence import EvidenceCard, TrainingObjective, evaluate_model
from boundcheck.evidence.training import estimate
from boundcheck.models.torch_model import TorchModel

X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
CONJUGATE = TorchModel(
    prior=lambda: Independent(Normal(torch.zeros(3), 1.0), 1),
    encoder=lambda x: Independent(Normal(x / 2, math.sqrt(0.5)), 1),
    decoder=lambda z: Independent(Normal(z, 1.0), 1),
)


def log_evidence(x: Tensor) -> Tensor:
    return Normal(0.0, math.sqrt(2)).log_prob(x.double()).sum(-1)


def judged(function: Callable[..., Any], model: Any = CONJUGATE, **options: Any) -> EvidenceCard:
    per = options.pop("per", "example")
    objective = TrainingObjective(function, sign="bound", per=per)
    options = {"k": 50, "replicates": 5, "simulated": 0, "grid": False} | options
    return evaluate_model(model, X, objective=objective, **options)


def test_a_generator_of_its_own_is_noticed() -> None:
    """Valid, and above the evidence by chance: without its spread it would be found to exceed."""
    own = np.random.default_rng(5)
    truth = Approximate(float(log_evidence(X).mean()), 0.0)
    values = [
        judged(lambda m, x: log_evidence(x) + torch.from_numpy(3 * own.normal(size=len(x))), log_evidence=truth)
        for _ in range(4)
    ]
    assert all(card.value.monte_carlo_error > 0 for card in values)
    assert any(card.value.mean > truth.value for card in values)
    assert not any(card.outcome is Outcome.VIOLATED for card in values)


def test_the_data_are_not_changed_by_a_loss_that_changes_its_batch() -> None:
    before = X.clone()
    card = judged(lambda m, x: log_evidence(x.mul_(0)))
    assert torch.equal(X, before)
    assert card.value.mean == pytest.approx(float(log_evidence(torch.zeros(3))))


class Network(nn.Module):
    """With all that makes training differ from evaluation."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.inward = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
        with torch.no_grad():
            for each in self.parameters():
                each.copy_(torch.randn(each.shape, generator=generator) / 3)

    def prior(self) -> Independent:
        return Independent(Normal(torch.zeros(3), 1.0), 1)

    def encoder(self, x: Tensor) -> Independent:
        return Independent(Normal(self.inward(x), 0.8), 1)

    def decoder(self, z: Tensor) -> Independent:
        return Independent(Normal(z, 1.0), 1)


def one_draw(model: Any, x: Tensor) -> Tensor:
    law = model.encoder(x)
    z = law.sample()
    return model.prior().log_prob(z) + model.decoder(z).log_prob(x) - law.log_prob(z)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_loss_in_training_mode_leaves_no_marks(wrapped: bool) -> None:
    def trains(model: Any, x: Tensor) -> Tensor:
        network.train()
        return one_draw(network, x)

    network = Network().eval()
    model: Any = (
        TorchModel(prior=network.prior, encoder=network.encoder, decoder=network.decoder) if wrapped else network
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plain, trained = judged(lambda m, x: one_draw(network, x), model), judged(trains, model)
    assert trained.curve.best.mean == plain.curve.best.mean
    assert trained.value.mean != plain.value.mean
    assert not network.training and not network.inward[1].training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_loss_that_takes_a_step_is_refused() -> None:
    def steps(model: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            weight.add_(0.1)
        return one_draw(model, x)

    network = Network().eval()
    weight = network.state_dict()["inward.0.weight"]  # the very numbers of the parameter
    before = weight.clone()
    with pytest.raises(BadInput, match=r"changed the parameter inward\.0\.weight"):
        judged(steps, network)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("kind", [float, np.float32, np.float64, np.asarray, torch.tensor])
def test_numbers_of_any_kind_are_taken(kind: Callable[[float], Any]) -> None:
    card = judged(lambda m, x: kind(-7.25), per="batch")
    assert card.value.mean == -7.25
    assert card.outcome is Outcome.HOLDS


REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "complex numbers": (lambda x: x.sum(-1) + 0j, "real numbers"),
    "truth values": (lambda x: x.sum(-1) > 0, "real numbers"),
    "nothing": (lambda x: None, "real numbers"),
    "text": (lambda x: "loss", "real numbers"),
    "an exit": (lambda x: exit(0), "SystemExit"),
    "NaN": (lambda x: x.sum(-1) * math.nan, r"x\[0\]"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_number_is_refused(what: str) -> None:
    function, message = REFUSED[what]
    with pytest.raises(BadInput, match=message):
        judged(lambda m, x: function(x))


def test_values_are_granted_the_rounding_of_their_own_type() -> None:
    """float16 moves the exact log-evidence by up to 0.004 here, and that is no violation."""
    for dtype, least in ((torch.float64, 1e-6), (torch.float32, 1e-6), (torch.float16, 1e-2)):
        objective = TrainingObjective(lambda m, x, dtype=dtype: log_evidence(x).to(dtype), sign="bound")
        found = estimate(objective, CONJUGATE, X, replicates=2)
        assert not found.random
        assert abs(found.mean.mean - float(log_evidence(X).mean())) < found.rounding
        assert found.rounding > least


def test_a_long_tail_blocks_the_side_on_which_its_mean_errs() -> None:
    """Noise of no variance, whose mean of zero is mostly overestimated where its tail is to the left."""
    outcomes: dict[tuple[int, float], list[Outcome]] = {}
    plain: list[Outcome] = []
    for seed in range(12):
        for sign, shift in ((-1, 0.0), (1, 0.0), (-1, -50.0), (1, 50.0)):

            def noisy(model: Any, x: Tensor, sign: int = sign, shift: float = shift) -> Tensor:
                tail = torch.empty(len(x)).exponential_().div(1.5).exp()  # a Pareto law of mean 3
                return shift + sign * (tail - 3)

            found = estimate(TrainingObjective(noisy, sign="bound"), None, X, replicates=100, seed=seed)
            outcome = decide(found.at(0.05), "<=", Approximate(0.0, 0.0), alpha=0.05).outcome
            outcomes.setdefault((sign, shift), []).append(outcome)
            if (sign, shift) == (-1, 0.0):
                unguarded = replace(found, long_tail=Bias.NONE).at(0.05)
                plain.append(decide(unguarded, "<=", Approximate(0.0, 0.0), alpha=0.05).outcome)
    assert plain.count(Outcome.VIOLATED) >= 2  # the premise; the draws are seeded
    assert outcomes[-1, 0.0].count(Outcome.VIOLATED) == outcomes[1, 0.0].count(Outcome.HOLDS) == 0
    assert set(outcomes[-1, -50.0]) == {Outcome.HOLDS}  # the tail makes a mean too high, and it is low enough
    assert set(outcomes[1, 50.0]) == {Outcome.VIOLATED}
