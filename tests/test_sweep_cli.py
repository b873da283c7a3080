"""`boundcheck sweep` as a process: killed, interrupted, out of disk, and told nonsense."""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import boundcheck.search.sweep
from boundcheck.catalogue import find
from boundcheck.cli import run
from boundcheck.search.sweep import SerialExecutor, plan_of, sweep
from boundcheck.search.sweep_report import Report, report_of

NAMES = ["jvi-below-evidence", "elbo-below-evidence"]
OPTIONS = ["--seeds", "8", "--budget", "6000"]
COMMAND = [sys.executable, "-m", "boundcheck", "sweep"]
OWN = """
from boundcheck import Claim, E, exp, log, total
from boundcheck.catalogue.objectives import elbo, log_evidence

def wrong_iwae(m, x, k=3):
    return E(m.encoder(x).copies(k), lambda z: log(total(exp(m.log_joint(x, z) - m.encoder(x).log_prob(z))) / (k - 1)))

fine = Claim("fine", elbo, "<=", log_evidence)
"""


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("serial")
    plan = plan_of({name: find(name) for name in NAMES}, seeds=range(8), budget=6000)
    sweep(plan, executor=SerialExecutor(), out=folder)
    return (folder / "report.json").read_bytes()


def start(out: Path, **options: Any) -> subprocess.Popen[str]:
    command = [*COMMAND, *NAMES, *OPTIONS, "--workers", "2", "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def serial(*arguments: str) -> int:
    return run(["sweep", *arguments, "--executor", "serial"])


def wait_for_lines(out: Path, count: int) -> None:
    journal = out / "journal.jsonl"
    for _ in range(3000):
        if journal.exists() and journal.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)
    pytest.fail("the sweep does not get on")


def test_a_killed_sweep_leaves_no_workers_and_goes_on(
    tmp_path: Path, expected: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with start(out) as process:
        wait_for_lines(out, 4)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert len(workers) >= 2
    assert not psutil.wait_procs(workers, timeout=20)[1], "workers outlive their sweep"
    assert not (out / "report.json").exists()
    kept = (out / "journal.jsonl").read_bytes()
    assert serial(*NAMES, *OPTIONS, "--out", str(out)) == 0
    assert (out / "journal.jsonl").read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert (out / "report.json").read_bytes() == expected
    assert capsys.readouterr().out.startswith("claim\tstatus\t")


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(tmp_path: Path, expected: bytes) -> None:
    out = tmp_path / "out folder"
    with start(out, start_new_session=True) as process:
        wait_for_lines(out, 4)
        os.killpg(process.pid, signal.SIGINT)  # a terminal's Ctrl-C reaches the workers too
        printed, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert not printed
    assert told.startswith("interrupted: ") and len(told.splitlines()) == 1, told
    assert "of 18 tasks are kept in" in told
    words = shlex.split(told.split("to go on: ")[1])
    assert words == ["boundcheck", "sweep", *NAMES, *OPTIONS, "--out", str(out), "--workers", "2"]
    assert serial(*words[2:-2]) == 0
    assert (out / "report.json").read_bytes() == expected


def test_a_full_disk_is_one_line_and_what_was_kept_is_whole(tmp_path: Path, expected: bytes) -> None:
    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    command = [*COMMAND, *NAMES, *OPTIONS, "--executor", "serial", "--out", str(tmp_path)]
    # Without bytecode files: the limit would cut those off too.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    full = subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=little_room, env=environment)
    assert full.returncode == 2
    assert full.stderr.startswith("error: --out = ") and len(full.stderr.splitlines()) == 1, full.stderr
    assert "File too large" in full.stderr
    assert (tmp_path / "journal.jsonl").stat().st_size == 3000  # the last line is torn
    assert serial(*NAMES, *OPTIONS, "--out", str(tmp_path)) == 0
    assert (tmp_path / "report.json").read_bytes() == expected


# --- in this process -----------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_own_claims_are_swept_and_a_violation_is_exit_code_one(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["mine.py:wrong_iwae", "mine.py:fine", "jvi-below-evidence"]
    assert serial(*names, "--seeds", "2", "--budget", "50", "--out", "out", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["unexpected"] == ["mine.py:wrong_iwae"]
    assert [each["claim"] for each in found["claims"]] == names
    assert run(["replay", f"out/{found['claims'][0]['file']}"]) == 1
    capsys.readouterr()
    assert serial(*names, "--seeds", "2", "--budget", "50", "--out", "out") == 1
    assert "boundcheck replay out/witnesses/mine.py-wrong_iwae.json" in capsys.readouterr().out
    assert serial(*names[1:], "--seeds", "2", "--budget", "50") == 0
    printed = capsys.readouterr().out
    assert "jvi-below-evidence\trefuted\t2 of 2\t" in printed and "that proves nothing" in printed


def test_an_edit_of_an_own_claim_is_another_plan(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["mine.py:wrong_iwae", "--seeds", "1", "--budget", "50", "--out", "out"]
    assert serial(*arguments) == 1
    (own / "mine.py").write_text(OWN.replace("k=3", "k=4"))
    capsys.readouterr()
    assert serial(*arguments) == 2
    assert "its journal is of plan" in capsys.readouterr().err


def test_the_sizes_are_searched(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--sizes", "1,2,1", "--sizes", "1,2,2", "--seeds", "1", "--budget", "500", "--json"]
    assert serial("denoising-decoupled-below-evidence", *sizes) == 0
    (claim,) = json.loads(capsys.readouterr().out)["claims"]
    assert (claim["tasks"], claim["violations"], claim["states"]) == (2, 1, 5)


def test_alarms_and_failures_are_told_and_set_the_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict, violated, failed = "holds", True, False

    def fabricated(plan: Any, **_: Any) -> Report:
        judge, search = plan.tasks
        found = {"violated": violated, "witness": {"format": "as if"}, "size": [3, 10]}
        records = {
            judge.key: {"models": 60, "status": "proved", "verdict": verdict, "violated": False},
            search.key: {"models": 10} | found,
        }
        if failed:
            del records[search.key]
        return report_of(plan, records, {search.key: "its worker died"} if failed else {})

    monkeypatch.setattr(boundcheck.search.sweep, "sweep", fabricated)
    assert serial("elbo-below-evidence", "--seeds", "1") == 1
    assert "ALARM: elbo-below-evidence" in capsys.readouterr().out
    verdict = "undecided"
    assert serial("elbo-below-evidence", "--seeds", "1") == 1
    printed = capsys.readouterr().out
    assert "ALARM" not in printed and "violated: elbo-below-evidence" in printed
    violated, failed = False, True
    assert serial("elbo-below-evidence", "--seeds", "1") == 2
    assert "failed: search elbo-below-evidence (seed 0" in capsys.readouterr().out
    failed = False
    assert serial("elbo-below-evidence", "--seeds", "1") == 0


def test_ctrl_c_without_a_folder_says_that_nothing_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(boundcheck.search.sweep, "sweep", interrupted)
    assert serial("elbo-below-evidence") == 130
    assert "nothing is kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["elbo-below-evidnce"], "did you mean 'elbo-below-evidence'"),
        (["elbo-below-evidence", "--budget", "0"], "--budget"),
        (["elbo-below-evidence", "--seeds", "0"], "--seeds"),
        (["elbo-below-evidence", "--sizes", "2"], "--sizes = '2': expected X,Z or X,Z,C"),
        (["elbo-below-evidence", "--sizes", "2,x"], "--sizes = '2,x'"),
        (["elbo-below-evidence", "--sizes", "2,0"], "1 to 12 states"),
        (["elbo-below-evidence", "--scheduler", "tcp://here:1"], "--executor dask"),
        (["elbo-below-evidence", "--workers", "2", "--executor", "serial"], "starts none"),
        (["elbo-below-evidence", "--out", "mine.py"], "a folder that can be written to"),
        (["mine.py:absent"], "object of mine.py"),
        (["absent.py:claim"], "readable Python file"),
    ],
)
def test_mistakes_are_one_line(own: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    assert run(["sweep", *arguments]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and told in printed.err, printed.err


def test_a_folder_of_another_plan_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["jvi-below-evidence", "--seeds", "1", "--out", str(tmp_path)]
    assert serial(*arguments, "--budget", "50") == 0
    capsys.readouterr()
    assert serial(*arguments, "--budget", "51") == 2
    told = capsys.readouterr().err
    assert "budget 50)" in told and "budget 51)" in told and told.count("\n") == 1


def test_without_dask_the_extra_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "distributed":
                raise ModuleNotFoundError("No module named 'distributed'", name="distributed")

    monkeypatch.delitem(sys.modules, "distributed", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    assert run(["sweep", "elbo-below-evidence", "--executor", "dask"]) == 2
    assert 'pip install "boundcheck[dask]"' in capsys.readouterr().err
