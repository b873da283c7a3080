"""Log-weights of another framework are judged where torch is not installed, and a model is refused in one line."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from boundcheck.evidence import evaluate_log_weights
from boundcheck.evidence.accumulators import IwaeGroups, Maker, Tail, WeightSums
from boundcheck.evidence.bounds import wealth_maker

BLOCKED = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "safetensors", "triton"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from boundcheck.cli import main
main()
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED, "evaluate", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def draws(count: int = 700, examples: int = 4) -> np.ndarray:
    """With weights of zero, an example that has no other, and one that fails."""
    rng = np.random.default_rng(5)
    values = rng.normal(-50, 2, size=(count, examples))
    values[rng.random(values.shape) < 0.02] = -math.inf
    values[:, 1], values[3, 2] = -math.inf, math.nan
    return values


def test_the_card_of_log_weights_is_the_same_without_torch(tmp_path: Path) -> None:
    given = np.random.default_rng(5).normal(-50, 1, size=(700, 4))
    np.save(tmp_path / "w.npy", given)
    done = run(tmp_path, "--log-weights", "w.npy", "--json", "--report", "r.html", "--latex", "t.tex")
    assert done.returncode == 0, done.stderr
    expected = evaluate_log_weights(given, name="w.npy").to_json()
    assert json.loads(done.stdout) == json.loads(json.dumps(expected))
    assert "torch" not in expected["versions"]
    assert "<svg" in (tmp_path / "r.html").read_text("utf-8") and r"\begin{tabular}" in (tmp_path / "t.tex").read_text()


def test_a_model_is_refused_by_the_name_of_the_extra(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    (tmp_path / "m.py").write_text("def vae():\n    return None\n")
    done = run(tmp_path, "m.py:vae", "--data", "x.npy")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and 'pip install "boundcheck[torch]"' in done.stderr


@pytest.mark.parametrize("maker", [IwaeGroups.maker((1, 5, 50, 700)), WeightSums, Tail.maker(30), wealth_maker(700)])
def test_arrays_and_tensors_leave_the_same_state(maker: Maker) -> None:
    torch = pytest.importorskip("torch")
    values = draws()
    ours, theirs = maker(values.shape[1], 0), maker(values.shape[1], 0)
    for start in range(0, len(values), 61):
        ours.add(values[start : start + 61])
        theirs.add(torch.from_numpy(values[start : start + 61]))
    expected = theirs.state()
    for name, found in ours.state().items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-12, atol=1e-12, err_msg=name)
