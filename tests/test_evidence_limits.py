"""Evidence at the edge of what numbers and grids can tell: no verdict may rest on what they cannot."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch.distributions import Independent, Normal, Uniform

from boundcheck import cli
from boundcheck.claims.decide import Outcome
from boundcheck.errors import BadInput, UnknownName
from boundcheck.evidence import TrainingObjective, evaluate_log_weights, evaluate_model, grid_evidence
from boundcheck.evidence.simulated import simulate
from boundcheck.evidence.subject import find_objective
from boundcheck.models.torch_model import TorchModel

DOUBLE = torch.float64


def needle(place: float, width: float) -> tuple[TorchModel, float]:
    """A decoder that reaches x = 3 in a peak alone, which the encoder does not point at; and log p(3)."""

    def mean(z: float) -> float:
        return 3 * math.exp(-0.5 * ((z - place) / width) ** 2)

    def joint(z: float) -> float:
        return math.exp(-z * z / 2 - 50 * (3 - mean(z)) ** 2) / (0.2 * math.pi)

    model = TorchModel(
        prior=lambda: Normal(torch.tensor(0.0, dtype=DOUBLE), 1.0),
        encoder=lambda x: Normal(torch.zeros_like(x), 1.0),
        decoder=lambda z: Normal(3 * torch.exp(-0.5 * ((z - place) / width) ** 2), 0.1),
    )
    found, _ = quad(joint, place - 8 * width, place + 8 * width, epsabs=0, epsrel=1e-10, limit=500)
    return model, math.log(found)


def test_a_peak_that_quadrature_misses_is_no_reason_to_find_an_objective_too_large() -> None:
    model, truth = needle(1.2345, 1e-4)
    x = torch.tensor([3.0], dtype=DOUBLE)
    assert grid_evidence(model, x).values[0] < truth - 100  # the premise: it is missed
    objective = TrainingObjective(lambda m, x: torch.full((len(x),), truth - 5, dtype=DOUBLE), sign="bound")
    card = evaluate_model(model, x, objective=objective, k=500, replicates=2, simulated=0)
    assert card.outcome is Outcome.UNDECIDED


@pytest.mark.parametrize("place", [1.2345, -0.3, 2.2])
def test_a_peak_that_quadrature_finds_is_integrated(place: float) -> None:
    model, truth = needle(place, 1e-3)
    found = grid_evidence(model, torch.tensor([3.0], dtype=DOUBLE))
    assert abs(found.values[0] - truth) <= found.errors[0] + 1e-9


def test_quadrature_can_show_that_an_objective_is_below() -> None:
    """With one weight the weights themselves show little."""
    model, truth = needle(1.2345, 1e-2)
    x = torch.tensor([3.0], dtype=DOUBLE)
    for shift, expected in ((-0.01, Outcome.HOLDS), (0.01, Outcome.UNDECIDED)):
        value = truth + shift
        objective = TrainingObjective(
            lambda m, x, value=value: torch.full((len(x),), value, dtype=DOUBLE), sign="bound"
        )
        card = evaluate_model(model, x, objective=objective, k=2, replicates=2, simulated=0)
        assert card.outcome is expected


@pytest.mark.parametrize(
    ("kind", "value", "wrong"), [(np.float16, -100.03, -100.02), (np.float32, -1e6 - 0.03, -1e6 - 0.02)]
)
def test_rounding_in_a_file_is_no_evidence(kind: type, value: float, wrong: float) -> None:
    """All weights are exp(value), and their file rounds them up past an objective that exceeds the evidence."""
    stored = np.full((4000, 50), value).astype(kind)
    assert float(stored[0, 0]) > wrong > value
    card = evaluate_log_weights(stored, objective_values=np.full(50, wrong))
    assert card.outcome is Outcome.UNDECIDED
    assert card.interval.lower < value


@pytest.mark.parametrize("value", [1e308, -1e200])
def test_log_weights_beyond_reason_are_named(value: float) -> None:
    weights = np.full((10, 3), -2.0)
    weights[4, 1] = value
    with pytest.raises(BadInput, match=r"log_weights\[4, 1\]"):
        evaluate_log_weights(weights)


def test_a_pair_that_rounding_takes_out_of_its_support_bounds_nothing() -> None:
    """Uniform draws that are rounded to the support's open end have density zero, which is not the pair's."""
    model = TorchModel(
        prior=lambda: Independent(Normal(torch.zeros(1), 1.0), 1),
        encoder=lambda x: Independent(Normal(torch.zeros_like(x), 1.0), 1),
        decoder=lambda z: Independent(Uniform(2e7 + 0 * z, 2e7 + 2 + 0 * z, validate_args=False), 1),
    )
    found = simulate(model, 40, k=5)  # float32 near 2e7 has even numbers alone
    assert math.log(0.5) <= found.interval(1e-3)[1]


def test_simulated_evidence_is_widened_by_rounding() -> None:
    wide = TorchModel(
        prior=lambda: Independent(Normal(torch.zeros(1), 1.0), 1),
        encoder=lambda x: Independent(Normal(x.mean(-1, keepdim=True), 0.01), 1),
        decoder=lambda z: Independent(Normal(z.expand(*z.shape[:-1], 10_000) + 0.0, 0.001), 1),
    )
    found = simulate(wide, 10, k=20)
    assert 0.1 < found.rounding < 10
    low, high = found.interval(1e-3)
    assert high - low > 2 * found.rounding


def test_a_report_without_matplotlib_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "w.npy", np.zeros((10, 3)))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("boundcheck.evidence.from_log_weights.evaluate_log_weights", lambda *a, **k: pytest.fail("ran"))
    code = cli.run(["evaluate", "--log-weights", str(tmp_path / "w.npy"), "--report", str(tmp_path / "r.html")])
    assert code == 2
    assert 'pip install "boundcheck[plot]"' in capsys.readouterr().err


def test_a_parameter_may_be_called_like_an_option() -> None:
    model = TorchModel(
        prior=lambda: Normal(torch.tensor(0.0), 1.0),
        encoder=lambda x: Normal(x / 2, 0.8),
        decoder=lambda z: Normal(z, 1.0),
    )
    card = evaluate_model(model, torch.tensor([0.5, -1.0]), objective="cubo:n=2", k=20, replicates=5, simulated=0)
    assert math.isfinite(card.value.mean)
    assert card.settings["seed"] == 0


def test_only_public_objectives_are_offered() -> None:
    with pytest.raises(UnknownName) as caught:
        find_objective("chi")
    assert "'denoising_" in str(caught.value) and "'_" not in str(caught.value)
