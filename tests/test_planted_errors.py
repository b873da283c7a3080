"""The power of `evaluate`: planted errors are caught, by the checks that should, and right objectives are left alone.

Verdicts are wrong with probability 1e-3 a card at most; seeds are fixed, so this is no gamble.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from planted_errors import (
    AT_SIMULATED,
    AT_THE_DATA,
    IDENTITY,
    PAGE,
    RIGHT,
    SUPPORT,
    WRONG,
    Caught,
    Planted,
    judged,
    trained,
)

from boundcheck.reproduce.dvae.training import one_thread

OPTIONS: dict[str, Any] = {"k": 100, "replicates": 100, "simulated": 60, "threads": 1}
ONLY_BY_NAME = {
    "mean of logs for log of mean",
    "KL summed over the batch",
    "decoupled denoising density",
    "wrong prior scale",
    "prior counted twice",
}
"""These stay below the evidence of this model: nothing but being told what they are meant to be can catch them."""


@pytest.fixture(scope="session")
def model() -> Iterator[tuple[Any, torch.Tensor]]:
    with one_thread():
        made, x = trained()
        yield made, x[:50]


@pytest.fixture(scope="session")
def caught(model: tuple[Any, torch.Tensor]) -> dict[str, Caught]:
    with one_thread():
        return {each.name: judged(each, *model, **OPTIONS) for each in WRONG}


def test_at_least_thirteen_of_the_first_fifteen_are_caught(caught: dict[str, Caught]) -> None:
    assert len(WRONG) >= 15
    assert sum(bool(caught[each.name].by) for each in WRONG[:15]) >= 13


def test_each_is_caught_by_the_checks_that_should(caught: dict[str, Caught]) -> None:
    assert caught["grey pixels in a Bernoulli"].by == (SUPPORT,)
    for name in ONLY_BY_NAME:
        assert caught[name].by == (IDENTITY,), name
    for each in WRONG:
        if each.name not in ONLY_BY_NAME and not each.grey:
            assert AT_SIMULATED in caught[each.name].by, each.name
            assert IDENTITY in caught[each.name].by, each.name
    assert AT_THE_DATA in caught["means over pixels and dimensions"].by


@pytest.mark.parametrize("each", RIGHT, ids=lambda each: each.name)
def test_right_ones_are_left_alone(each: Planted, model: tuple[Any, torch.Tensor]) -> None:
    with one_thread():
        found = judged(each, *model, **OPTIONS)
    assert found.by == ()
    assert found.card is not None and abs(found.card.value.mean + 20.5) < 2, "it is evaluated in nats, as a bound"


def test_the_page_lists_them_all() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for each in WRONG + RIGHT:
        assert f"| {each.name} |" in text
