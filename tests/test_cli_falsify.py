"""`boundcheck falsify` as a process: the counterexample, its file, its regression test, and mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

OWN = """
from boundcheck import E, exp, log, total

def wrong_iwae(m, x, k=3):
    return E(m.encoder(x).copies(k), lambda z: log(total(exp(m.log_joint(x, z) - m.encoder(x).log_prob(z))) / (k - 1)))

def not_a_number(m, x):
    raise ZeroDivisionError("on purpose")
"""


def boundcheck(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "boundcheck", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_wrong_objective_in_a_file_outside_the_repository(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    result = boundcheck(tmp_path, "falsify", "mine.py:wrong_iwae", "--save", "w.json", "--test", "test_it.py", "--json")
    assert result.returncode == 1, result.stderr
    found = json.loads(result.stdout)
    assert found["status"] == "refuted" and found["guarantee"] == "exact"
    assert found["lhs"]["text"] == "log(3/2)"
    assert found["witness"]["model"]["prior"] == ["1"]
    assert boundcheck(tmp_path, "replay", "w.json").returncode == 1
    assert "def test_wrong_iwae_counterexample" in (tmp_path / "test_it.py").read_text()


def test_a_true_claim_is_undecided_and_nothing_is_saved(tmp_path: Path) -> None:
    result = boundcheck(tmp_path, "falsify", "elbo-below-evidence", "--budget", "200", "--save", "w.json")
    assert result.returncode == 3
    assert "that proves nothing" in result.stdout
    assert not (tmp_path / "w.json").exists()


def test_mistakes_are_one_line_and_exit_code_two(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    for args in (
        ["elbo-below-evidnce"],
        ["elbo-below-evidence", "--budget", "0"],
        ["mine.py:absent"],
        ["mine.py:not_a_number"],
        ["absent.py:claim"],
    ):
        result = boundcheck(tmp_path, "falsify", *args)
        assert result.returncode == 2, args
        assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1, result.stderr
        assert not result.stdout


def test_check_over_a_box(tmp_path: Path) -> None:
    refuted = boundcheck(tmp_path, "check", "denoising-decoupled-below-evidence", "--box", "20", "--json")
    assert refuted.returncode == 1, refuted.stderr
    assert json.loads(refuted.stdout)["witness"]["model"]["kind"] == "finite"
    open_ = boundcheck(tmp_path, "check", "hvm-below-evidence", "--box", "1", "--json")
    assert open_.returncode == 3
    assert 0 < json.loads(open_.stdout)["open_fraction"] <= 1
    equality = boundcheck(tmp_path, "check", "elbo-gap-is-kl", "--box", "1")
    assert equality.returncode == 2 and "equality" in equality.stderr
