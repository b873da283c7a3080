"""All of an evaluation on a device that is not the CPU: nothing is made on the wrong one, and the figures are right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

registration = pytest.importorskip("torch.utils.backend_registration")
if not hasattr(registration, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this torch takes no device written in Python", allow_module_level=True)

PROGRAM = Path(__file__).with_name("pretend_gpu_cards.py")
ON_BOTH = ["vae", "in float64", "corrupted", "continuous", "discrete", "hierarchical", "loss", "mean loss", "small"]
Report = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def report() -> Report:
    made = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    return {each["case"]: each for each in map(json.loads, made.stdout.splitlines())}


def test_the_pretended_device_refuses_tensors_of_another(report: Report) -> None:
    assert "same device" in report["mixed"]["error"]


@pytest.mark.parametrize("case", ON_BOTH)
def test_a_card_is_made_on_the_device(report: Report, case: str) -> None:
    """Means of independent draws: 8 standard errors, at the fixed seed."""
    here, there = report[case]["cpu"], report[case]["gpu"]
    assert here["device"] == "cpu" and there["device"] == "gpu:0"
    assert not [note for note in there["notes"] if "no " in note and note not in here["notes"]]
    for one, other in zip([here["value"], *here["iwae"]], [there["value"], *there["iwae"]], strict=True):
        error = (one["monte_carlo_error"] ** 2 + other["monte_carlo_error"] ** 2) ** 0.5
        assert abs(one["mean"] - other["mean"]) <= 8 * error + 1e-6
    assert {here["verdict"], there["verdict"]} != {"holds", "violated"}
    assert here["judgements"].keys() == there["judgements"].keys()
    assert (here["simulated"] is None) == (there["simulated"] is None)


def test_annealing_runs_on_the_device_in_both_directions(report: Report) -> None:
    here, there = report["vae"]["cpu"], report["vae"]["gpu"]
    for way in (lambda card: card["ais"], lambda card: card["bidirectional"]["reverse"]):
        one, other = way(here)["expectation"], way(there)["expectation"]
        error = (one["monte_carlo_error"] ** 2 + other["monte_carlo_error"] ** 2) ** 0.5
        assert error > 0 and abs(one["mean"] - other["mean"]) <= 8 * error


def test_draws_of_torchs_own_laws_give_the_same_card(report: Report) -> None:
    here, there = report["discrete"]["cpu"], report["discrete"]["gpu"]
    for one, other in zip(here["iwae"], there["iwae"], strict=True):
        assert one["mean"] == pytest.approx(other["mean"], rel=1e-6)
    assert here["value"]["mean"] == pytest.approx(there["value"]["mean"], rel=1e-6)


def test_chunks_and_resuming_change_nothing(report: Report) -> None:
    whole, *others = report["runs"]["values"]
    assert len(others) == 2 and len(whole) == 8
    for other in others:
        assert other == pytest.approx(whole, rel=1e-6)


def test_memory_that_runs_out_halves_the_chunk(report: Report) -> None:
    assert any(note.startswith("GPU out of memory: the chunk was halved") for note in report["small"]["gpu"]["notes"])


def test_a_model_on_two_devices_is_named(report: Report) -> None:
    assert "error" not in report["elsewhere"]["cpu"]
    assert report["elsewhere"]["gpu"]["error"].startswith("the device of prior() = 'tensors of two devices'")


@pytest.mark.parametrize("case", ON_BOTH)
def test_the_global_random_state_is_put_back(report: Report, case: str) -> None:
    assert report[case]["state kept"]
