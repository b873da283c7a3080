"""The differentiable evaluator: its values against the float evaluator's, its gradients against the oracle's slopes."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from random import Random
from typing import Any

import expected
import mpmath
import numpy as np
import oracle
import pytest
import torch
from helpers import finite, oracle_models, value_or_none
from mpmath import mp

from boundcheck.catalogue.objectives import elbo, iwae
from boundcheck.errors import BadInput
from boundcheck.evaluators import floating
from boundcheck.evaluators.differentiable import LogTables, evaluate_many, safe_log
from boundcheck.evaluators.floating import Floats

H = Fraction(1, 10**18)
ROLES = ("prior", "likelihood", "encoder", "corruption", "auxiliary")


def tensors(models: list[oracle.Model]) -> dict[str, torch.Tensor]:
    """The models' tables, one beside the other, as leaves of a gradient."""
    found = {}
    for role in ROLES:
        if getattr(models[0], role) is not None:
            array = np.array([getattr(model, role) for model in models]).astype(np.float64)
            found[role] = torch.tensor(array, requires_grad=True)
    return found


def by_name(name: str) -> expected.Objective:
    return next(each for each in expected.OBJECTIVES if each.name == name)


NAMES = [each.name for each in expected.OBJECTIVES]
WITH_ZEROS = [each.name for each in expected.OBJECTIVES if not each.positive]


@pytest.mark.parametrize("name", NAMES)
def test_values_are_the_float_evaluators(name: str) -> None:
    objective = by_name(name)
    compared = 0
    for model in filter(objective.suits, oracle_models(12, seed=3)):
        tables = tensors([model, model])
        for x in range(len(model.likelihood[0])):
            found = evaluate_many(objective.term, LogTables.of_probabilities(tables), x).detach().numpy()
            known = value_or_none(floating.evaluate, objective.term, finite(model), x)
            known = math.nan if known is None else float(known)
            np.testing.assert_allclose(found, known, rtol=1e-12, atol=1e-12)
            compared += 1
    assert compared >= 4


# --- slopes --------------------------------------------------------------------------------------------------------


def directions(rng: Random, table: Any) -> Any:
    """A change of a table that keeps its zeros and the sums of its rows."""
    if isinstance(table[0], list):
        return [directions(rng, row) for row in table]
    inside = [i for i, p in enumerate(table) if p > 0]
    change = [Fraction(rng.randint(-9, 9), 10) if i in inside else Fraction(0) for i in range(len(table))]
    change[inside[-1]] -= sum(change)
    return change


def stepped(table: Any, change: Any, h: Fraction) -> Any:
    if isinstance(table, list):
        return [stepped(a, b, h) for a, b in zip(table, change, strict=True)]
    return table + h * change


def slope(objective: expected.Objective, model: oracle.Model, changes: dict[str, Any], x: int) -> Any:
    """The central difference of the oracle's value, at 60 digits; None where there is no finite value."""
    ends = []
    for h in (H, -H):
        moved = replace(model, **{role: stepped(getattr(model, role), change, h) for role, change in changes.items()})
        try:
            ends.append(objective.expected(moved, x))
        except ArithmeticError:
            return None
    if not all(mpmath.isfinite(end) for end in ends):
        return None
    with mp.workdps(60):
        return float((ends[0] - ends[1]) / (2 * mpmath.mpf(H.numerator) / H.denominator))


@pytest.mark.parametrize(("name", "zeros"), [(name, False) for name in NAMES] + [(name, True) for name in WITH_ZEROS])
def test_gradients_are_the_oracles_slopes(name: str, zeros: bool) -> None:
    """With zeros, along changes that keep them: what the conventions drop passes no gradient, and no NaN."""
    objective, rng = by_name(name), Random(5)
    compared = 0
    for number in range(12):
        x_states = (1, 2)[number % 2]
        model = oracle.random_model(rng, x_states, 2 + number % 2, x_states, denominator=10**6 + 3, zeros=zeros)
        changes = {role: directions(rng, getattr(model, role)) for role in ROLES}
        known = slope(objective, model, changes, 0)
        tables = tensors([model])
        value = evaluate_many(objective.term, LogTables.of_probabilities(tables), 0).sum()
        if known is None:
            assert not math.isfinite(value.item())
            continue
        value.backward()
        found = sum(
            float((table.grad[0].numpy() * np.array(changes[role]).astype(np.float64)).sum())
            for role, table in tables.items()
            if table.grad is not None
        )
        assert found == pytest.approx(known, rel=1e-9, abs=1e-9)
        compared += 1
        if compared == 2:
            break
    assert compared


def test_models_do_not_touch_one_another() -> None:
    """A model without a value leaves the gradients of the others as they are."""
    good = oracle.random_model(Random(0), 1, 3, None, denominator=97, auxiliary=False)
    bad = replace(
        good, encoder=[[Fraction(1), Fraction(0), Fraction(0)]], prior=[Fraction(0), Fraction(1), Fraction(0)]
    )
    tables = tensors([good, bad, good])
    values = evaluate_many(iwae, LogTables.of_probabilities(tables), k=2)
    assert values[1] == -math.inf
    values[torch.isfinite(values)].sum().backward()
    alone = tensors([good])
    evaluate_many(iwae, LogTables.of_probabilities(alone), k=2).sum().backward()
    for role, table in tables.items():
        assert table.grad is not None
        for each in (0, 2):
            np.testing.assert_allclose(table.grad[each].numpy(), alone[role].grad[0].numpy(), rtol=1e-12)
        assert not torch.isnan(table.grad).any()


def test_small_memory_gives_the_same_value() -> None:
    model = oracle.random_model(Random(1), 1, 4, None, denominator=97, auxiliary=False)
    models = LogTables.of_probabilities(tensors([model]))
    whole, cut = (evaluate_many(iwae, models, k=3, memory=memory).item() for memory in (1 << 20, 16))
    assert whole == pytest.approx(cut, rel=1e-13)


def test_the_logarithm_of_zero_passes_no_gradient() -> None:
    p = torch.tensor([0.0, 0.5, -1.0], dtype=torch.float64, requires_grad=True)
    logs = safe_log(p)
    logs[:2].sum().backward()
    assert logs[0] == -math.inf
    assert torch.isnan(logs[2])
    assert p.grad.tolist() == [0.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"prior": (1, 2)}, "likelihood"),
        ({"prior": (1, 2), "likelihood": (1, 3, 2)}, "agree"),
        ({"prior": (1, 2), "likelihood": (2, 2, 2)}, "agree"),
        ({"prior": (1, 2), "likelihood": (1, 2, 2), "decoder": (1, 2, 2)}, "decoder"),
        ({"prior": (1, 2), "likelihood": (1, 2, 2), "encoder": (1, 3, 2)}, "agree"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tables: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        LogTables({role: torch.zeros(shape) for role, shape in tables.items()})


def test_a_missing_table_is_named() -> None:
    models = LogTables({"prior": torch.zeros(1, 1), "likelihood": torch.zeros(1, 1, 1)})
    with pytest.raises(BadInput, match="encoder"):
        evaluate_many(elbo, models)


# --- sums over copies by their states --------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["sum", "weights", "log_sum"])
def test_tallied_sums_are_sums_over_the_copies(op: str) -> None:
    rng = np.random.default_rng(0)
    entries = rng.integers(4, size=(40, 5))
    tally = (entries[..., None] == np.arange(4)).sum(axis=1).astype(float)
    for special in ([], [-math.inf], [math.inf], [math.nan], [math.inf, -math.inf], [math.nan, -math.inf]):
        values = rng.normal(scale=3, size=(7, 4))
        for i, number in enumerate(special):
            values[rng.random(7) < 0.7, i] = number
        read = values[:, entries]
        with np.errstate(invalid="ignore"):
            known = np.logaddexp.reduce(read, axis=-1) if op == "log_sum" else read.sum(axis=-1)
        found = Floats().tallied(op, values, tally)
        np.testing.assert_allclose(found, known, rtol=1e-12, atol=1e-12)


def test_terms_of_very_different_sizes_are_not_tallied() -> None:
    values = np.array([[0.0, -900.0]])
    assert Floats().tallied("log_sum", values, np.array([[0.0, 2.0]])) is None
