"""`boundcheck falsify`: the counterexample, its file, its regression test, and mistakes; `check --box`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import boundcheck.cli as cli

OWN = """
from boundcheck import E, exp, log, total

def wrong_iwae(m, x, k=3):
    return E(m.encoder(x).copies(k), lambda z: log(total(exp(m.log_joint(x, z) - m.encoder(x).log_prob(z))) / (k - 1)))

def not_a_number(m, x):
    raise ZeroDivisionError("on purpose")
"""


OTHER = """from boundcheck import Claim, black_box
two, three = (black_box(lambda m, x: 0.0, name=name, states={"z": n}) for name, n in (("two", 2), ("three", 3)))
Claim("sides of two latent spaces", two, "<=", three)
fine = two
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line, in a folder with a user's file."""
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(arguments)
        return code, *capsys.readouterr()

    return call


def test_a_wrong_objective_in_a_file_outside_the_repository(run: Run, tmp_path: Path) -> None:
    """As a process, like the user's."""
    arguments = ["falsify", "mine.py:wrong_iwae", "--save", "w.json", "--test", "test_it.py", "--json"]
    command = [sys.executable, "-m", "boundcheck", *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1, result.stderr
    found = json.loads(result.stdout)
    assert found["status"] == "refuted" and found["guarantee"] == "exact"
    assert found["lhs"]["text"] == "log(3/2)"
    assert found["witness"]["model"]["prior"] == ["1"]
    assert run("replay", "w.json")[0] == 1
    assert "def test_wrong_iwae_counterexample" in (tmp_path / "test_it.py").read_text()


def test_a_true_claim_is_undecided_and_nothing_is_saved(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("falsify", "elbo-below-evidence", "--budget", "200", "--save", "w.json")
    assert code == 3
    assert "no counterexample among 200 models: that proves nothing" in out
    assert not (tmp_path / "w.json").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["elbo-below-evidnce"], "did you mean 'elbo-below-evidence'"),
        (["elbo-below-evidence", "--budget", "0"], "--budget"),
        (["mine.py:absent"], "object of mine.py"),
        (["mine.py:not_a_number"], "on purpose (line 8)"),
        (["absent.py:claim"], "readable Python file"),
        (["other.py:fine"], "other.py, line 3: the latent space z = 'two: 2 states; three: 3 states'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(run: Run, arguments: list[str], told: str) -> None:
    Path("other.py").write_text(OTHER)
    code, out, err = run("falsify", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and len(err.splitlines()) == 1 and told in err, err


def test_check_over_a_box(run: Run) -> None:
    code, out, _ = run("check", "denoising-decoupled-below-evidence", "--box", "20", "--json")
    assert code == 1 and json.loads(out)["witness"]["model"]["kind"] == "finite"
    code, out, _ = run("check", "hvm-below-evidence", "--box", "0.5", "--json")
    assert code == 3 and 0 < json.loads(out)["open_fraction"] <= 1
    code, _, err = run("check", "elbo-gap-is-kl", "--box", "1")
    assert code == 2 and "equality" in err
