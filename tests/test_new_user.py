"""As a new user would: a wrong objective in a fresh file, broken, replayed, turned into a regression test, and mended.

The objective is an IWAE (Burda et al. 2016) that divides by K - 1, written as a formula, with numpy and with torch.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import boundcheck.cli as cli

MINE = '''
import numpy as np

from boundcheck import E, black_box, exp, log, total


def formula(m, x, k=3):
    w = lambda z: m.log_joint(x, z) - m.encoder(x).log_prob(z)
    return E(m.encoder(x).copies(k), lambda z: log(total(exp(w(z))) / (k - 1)))


def weights(m, x):
    """All pairs of latent states: their probability, and the sum of their weights."""
    q = m.encoder[x]
    w = m.joint[x] / q
    return q[:, None] * q[None, :], w[:, None] + w[None, :]


@black_box
def with_numpy(m, x):
    seen = m.encoder[x] > 0
    q, w = m.encoder[x][seen], m.joint[x][seen] / m.encoder[x][seen]
    summed, likely = w[:, None] + w, q[:, None] * q
    return np.sum(likely[summed > 0] * np.log(summed[summed > 0] / (2 - 1)))


@black_box(takes="tensors", error=1e-9)
def with_torch(m, x):
    import torch

    q, summed = weights(m, x)
    return torch.nansum(q * torch.log(summed / (2 - 1)))


@black_box
def careless(m, x):
    q, summed = weights(m, x)
    return np.sum(q * np.log(summed / 2))


def undecorated(m, x):
    return np.log(m.joint[x].sum())


def matrix(m, x):
    return np.ones(3)
'''

SUITE = '''
import pytest
from hypothesis import given
from boundcheck.catalogue.objectives import log_evidence
from boundcheck.strategies import finite_models
from boundcheck.testing import assert_bound
import mine

@pytest.mark.parametrize("name", ["formula", "with_numpy"])
@pytest.mark.boundcheck
def test_mine(name, bound, boundcheck_models):
    for model in boundcheck_models:
        bound(getattr(mine, name), "<=", log_evidence, model, x=0, name=name)

@given(model=finite_models(latent=3, observed=3, zeros=False))
def test_careless(model):
    """Right where all probabilities are positive."""
    assert_bound(mine.careless, "<=", log_evidence, model)

@given(model=finite_models(latent=3, observed=3))
def test_careless_with_zeros(model):
    assert_bound(mine.careless, "<=", log_evidence, model, name="careless anywhere")
'''

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line, in a folder with the file of a new user."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(arguments)
        return code, *capsys.readouterr()

    return call


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", *arguments]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment, timeout=240, check=False
    )


def regression(folder: Path, name: str) -> None:
    """Run the regression test as pytest would: with its folder first on the path, and the code as it is now."""
    sys.modules.pop("mine", None)
    sys.path.insert(0, str(folder))
    try:
        runpy.run_path(str(folder / f"test_{name}.py"))[f"test_{name}_counterexample"]()
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("mine", None)


def mend(folder: Path) -> None:
    source = (folder / "mine.py").read_text().replace("/ (k - 1)", "/ k").replace("/ (2 - 1)", "/ 2")
    (folder / "mine.py").write_text(source)


CASES = [
    ("formula", "exact", "refuted"),
    ("with_numpy", "numerical", "undecided"),
    ("with_torch", "numerical", "undecided"),
]


def test_broken_replayed_and_turned_into_a_regression_test(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    replays = {}
    for name, guarantee, status in CASES:
        code, out, err = run(
            "falsify", f"mine.py:{name}", "--save", f"{name}.json", "--test", f"test_{name}.py", "--json"
        )
        assert (code, err) == (1, "")
        found = json.loads(out)
        assert (found["verdict"], found["guarantee"], found["status"]) == ("violated", guarantee, status)
        assert found["witness"]["model"]["prior"] == ["1"]
        assert bool(found["notes"]) == (guarantee == "numerical")
        replays[name] = [
            "replay",
            f"{name}.json",
            *(["--objective", f"mine.py:{name}"] if guarantee == "numerical" else []),
        ]
        code, out, _ = run(*replays[name])
        assert code == 1 and f"violated ({guarantee})" in out and "as recorded" in out
    for name, _, _ in CASES:
        with pytest.raises(AssertionError, match=r"violated \("):
            regression(tmp_path, name)
    mend(tmp_path)
    for name, _, _ in CASES:
        regression(tmp_path, name)
    for name, guarantee, _ in CASES:
        code, out, _ = run(*replays[name])
        if guarantee == "numerical":
            assert code == 3 and "not as recorded" in out  # a tie: one state makes every bound tight
        else:
            assert code == 1 and "as recorded" in out  # the file holds the formula that was wrong
        code, out, _ = run("falsify", f"mine.py:{name}", "--budget", "300")
        assert code == 3 and "so it is undecided" in out


@pytest.mark.parametrize("name", ["formula", "with_numpy"])
def test_a_saved_counterexample_is_made_a_test_afterwards(run: Run, tmp_path: Path, name: str) -> None:
    """As a failing pytest run leaves it, without a test beside it."""
    run("falsify", f"mine.py:{name}", "--save", "w.json")
    objective = ["--objective", f"mine.py:{name}"] if name == "with_numpy" else []
    code, out, err = run("replay", "w.json", *objective, "--test", f"test_{name}.py")
    assert (code, err) == (1, "") and f"regression test written to test_{name}.py" in out
    with pytest.raises(AssertionError, match=r"violated \("):
        regression(tmp_path, name)


def test_a_saved_counterexample_of_nobody_writes_no_code_of_its_own(run: Run, tmp_path: Path) -> None:
    run("falsify", "mine.py:formula", "--save", "w.json")
    data = json.loads(Path("w.json").read_text())
    data["claim"]["name"] = 'x"""\nraise SystemExit\n"""\\'
    Path("w.json").write_text(json.dumps(data))
    assert run("replay", "w.json", "--test", "test_it.py")[0] == 1
    (test,) = [value for name, value in runpy.run_path(str(tmp_path / "test_it.py")).items() if name[:5] == "test_"]
    with pytest.raises(AssertionError, match=r"violated \(exact\)"):
        test()


def test_the_human_report_says_what_the_guarantee_is(run: Run) -> None:
    code, out, err = run("falsify", "mine.py:with_numpy", "--save", "w.json")
    assert (code, err) == (1, "")
    assert "violated (numerical) at x = 0" in out
    assert "with_numpy is a black box: the guarantee is numerical at best" in out and "1e-06" in out
    assert "replay: boundcheck replay w.json --objective mine.py:with_numpy" in out
    code, out, _ = run("check", "mine.py:with_numpy", "--count", "4")
    assert code == 1 and "which no evaluator can certify" in out
    code, out, _ = run("check", "mine.py:with_torch", "--count", "4", "--json")
    assert "trusted within 1e-09 nats, as declared" in json.loads(out)["notes"][0]
    code, out, _ = run("show", "mine.py:with_numpy")
    assert code == 0 and "with_numpy(m, x) <=" in out
    Path("model.json").write_text('{"prior": [1], "likelihood": [[1]], "encoder": [[1]]}')
    code, out, _ = run("check", "mine.py:with_numpy", "--model", "model.json", "--save", "v.json")
    assert code == 1 and "status     undecided: a violation in floats" in out.replace("  status", "status")
    assert run("replay", "v.json", "--objective", "mine.py:with_numpy")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["falsify", "mine.py:careless"],
            "careless returned nan at x = 0 on FiniteModel(prior=[1/2, 1/2], likelihood=",
        ),
        (
            ["check", "mine.py:careless", "--count", "30"],
            "careless returned nan at x = 0 on FiniteModel(prior=[1, 0]",
        ),
        (
            ["check", "mine.py:careless", "--model", "zeros.json"],
            "careless returned nan at x = 0 on FiniteModel(prior=",
        ),
        (["falsify", "mine.py:undecorated"], "decorate it with boundcheck.black_box"),
        (["falsify", "mine.py:with_numpy", "--budget", "0"], "--budget"),
        (["check", "mine.py:with_numpy", "--box", "1"], "black box"),
        (["replay", "w.json"], "boundcheck replay WITNESS --objective mine.py:with_numpy"),
        (["replay", "w.json", "--objective", "mine.py"], "FILE.py:NAME"),
        (["replay", "w.json", "--objective", "mine.py:absent"], "absent"),
        (["replay", "w.json", "--objective", "mine.py:np"], "mine.py:np"),
        (["replay", "w.json", "--objective", "mine.py:matrix"], "an array of shape (3,)"),
        (["replay", "w.json", "--objective", "other.py:f"], "other.py"),
        (["replay", "w.json", "--objective", "mine.py:matrix", "--test", "t.py"], "an array of shape (3,)"),
        (["replay", "edited.json", "--objective", "mine.py:with_numpy"], "the recorded verdict"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(run: Run, arguments: list[str], told: str) -> None:
    zeros = {"prior": ["1/3", "2/3"], "likelihood": [[1], [1]], "encoder": [[0, 1]]}
    Path("zeros.json").write_text(json.dumps(zeros))
    if "w.json" in arguments or "edited.json" in arguments:
        run("falsify", "mine.py:with_numpy", "--save", "w.json")
        sys.modules.pop("boundcheck_users_claims")  # another process has not loaded it
        edited = json.loads(Path("w.json").read_text())
        edited["verdict"]["verdict"] = "holds"
        Path("edited.json").write_text(json.dumps(edited))
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and len(err.splitlines()) == 1 and told in err, err


def test_a_pytest_run_breaks_them_and_sums_up(run: Run, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(SUITE)
    result = run_pytest(tmp_path, "--boundcheck-profile=quick", "--hypothesis-seed=0", "--strict-markers")
    out = result.stdout
    assert result.returncode == 1 and "3 failed, 1 passed" in out, out
    assert "lhs = log(3/2)" in out or "rhs - lhs = -" in out
    assert "with_numpy: violated (numerical)" in out
    assert "with_numpy is a black box: trusted within 1e-06 * max(1, |number|) nats" in out
    assert "boundcheck replay .boundcheck/with_numpy.json --objective mine.py:with_numpy" in out
    shrunk = "careless returned nan at x = 0 on FiniteModel(prior=[1"
    assert shrunk in out
    summary = out[out.index("= boundcheck =") :]
    held = next(line for line in summary.splitlines() if line.startswith("careless <= log_evidence"))
    assert "held" in held or "undecided" in held
    assert "numerical" in held
    assert next(line for line in summary.splitlines() if line.startswith("careless anywhere")).split()[2:4] == [
        "no",
        "number",
    ]
    assert "corners met: " in summary and "nearly deterministic rows" in summary
    code, text, _ = run("replay", ".boundcheck/with_numpy.json", "--objective", "mine.py:with_numpy")
    assert code == 1 and "as recorded" in text
