"""A loss that leaves marks on the model, or draws from generators of its own, changes no verdict by that."""

from __future__ import annotations

import math
import random
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from boundcheck.claims.decide import Outcome, decide
from boundcheck.errors import BadInput
from boundcheck.evaluators.values import Approximate
from boundcheck.evidence.objective import TrainingObjective
from boundcheck.evidence.training import estimate
from boundcheck.evidence.untouched import Untouched, generator_state, own_generators

X = torch.zeros(10, 2)


class Counting(nn.Module):
    """A module that counts the calls of its loss in ways that no state dict shows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.steps, self.beta, self.phase = 0, 0.5, "warm"
        self.source: Any = None


class Plain:
    """No module, but tensors and numbers all the same."""

    def __init__(self) -> None:
        self.steps, self.scale, self.unknown = 0, torch.ones(2), math.nan
        self.parts = {"shift": torch.zeros(2)}


def test_numbers_of_a_module_are_put_back() -> None:
    model = Counting()

    def annealed(model: Any, x: Tensor) -> Tensor:
        model.steps += 1
        model.beta, model.phase = min(1.0, model.steps / 10), "cold"
        return torch.full((len(x),), float(model.steps))

    found = estimate(TrainingObjective(annealed, sign="bound"), model, X)
    assert found.mean.mean == 1.0 and not found.random
    assert (model.steps, model.beta, model.phase) == (0, 0.5, "warm")


def test_numbers_and_tensors_of_any_object_are_put_back() -> None:
    model = Plain()
    with Untouched(model).during("a loss"):
        model.steps, model.unknown = 3, 1.0
        model.scale.mul_(2)
        model.parts["shift"].add_(1)
    assert model.steps == 0 and math.isnan(model.unknown)
    assert model.scale.tolist() == [1, 1] and model.parts["shift"].tolist() == [0, 0]
    with Untouched(model).during("a loss"):
        model.steps = math.nan  # type: ignore[assignment]
    assert model.steps == 0


def test_a_parameter_that_changed_is_refused() -> None:
    model = Counting()

    def trains(model: Any, x: Tensor) -> Tensor:
        model.layer.weight.data.add_(1)
        return torch.zeros(len(x))

    before = model.layer.weight.clone()
    with pytest.raises(BadInput, match=r"layer\.weight"):
        estimate(TrainingObjective(trains, sign="bound"), model, X)
    assert torch.equal(model.layer.weight, before)


SOURCE = np.random.default_rng(0)


def rarely(model: Any, x: Tensor) -> Tensor:
    """Never different in a short run, and yet random: it draws from a generator of its own."""
    return torch.full((len(x),), -1e9 if SOURCE.random() < 1e-12 else 0.5)


def test_equal_values_are_not_certain_if_a_generator_of_its_own_was_drawn_from() -> None:
    found = estimate(TrainingObjective(rarely, sign="bound"), None, X)
    assert found.random and found.mean.monte_carlo_error == 0
    assert decide(found.at(0.01), "<=", Approximate(0.0, 0.0), alpha=0.01).outcome is Outcome.UNDECIDED


def test_generators_are_found_where_a_loss_may_have_them() -> None:
    closed, given, held, own = torch.Generator(), np.random.RandomState(0), random.Random(0), torch.Generator()
    model = Counting()
    model.source = held

    class Loss:
        def __init__(self) -> None:
            self.source = own

        def __call__(self, model: Any, x: Tensor) -> Tensor:
            return torch.rand(len(x), generator=self.source)

        def called(self, model: Any, x: Tensor) -> Tensor:
            return self(model, x)

    def loss(model: Any, x: Tensor, source: Any = given) -> Tensor:
        return torch.rand(len(x), generator=closed) + source.rand() + SOURCE.random()

    assert own_generators(loss, model) == [held, closed, SOURCE, given]
    assert own_generators(partial(loss, source=held), None) == [held, closed, SOURCE, given]
    assert own_generators(Loss(), None) == own_generators(Loss().called, None) == [own]
    assert own_generators(len, None) == []


@pytest.mark.parametrize("source", [torch.Generator(), np.random.default_rng(0), np.random.RandomState(0)])
def test_a_state_changes_when_its_generator_draws(source: Any) -> None:
    before = generator_state(source)
    assert generator_state(source) == before
    torch.rand(1, generator=source) if isinstance(source, torch.Generator) else source.normal()
    assert generator_state(source) != before
