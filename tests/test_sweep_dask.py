"""A sweep on a Dask cluster, one of whose workers is killed in the middle: nothing lost, nothing counted twice."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import pytest
import sweep_workers

from boundcheck import BadInput
from boundcheck.catalogue import find
from boundcheck.cli import run
from boundcheck.search.sweep import SerialExecutor, plan_of, sweep
from boundcheck.search.sweep_run import GivenWorkers, run_tasks


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        distributed.Client(cluster) as connected,
    ):
        yield connected


def test_a_worker_that_is_killed_in_the_middle_costs_no_result(client: Any, tmp_path: Path) -> None:
    names = ["jvi-below-evidence", "elbo-below-evidence", "narrow-dequantisation-below-mass"]
    plan = plan_of([find(name) for name in names], seeds=range(5), budget=50, count=2)
    sweep(plan, executor=SerialExecutor(), out=tmp_path / "serial")
    workers: list[int] = list(client.run(os.getpid).values())
    assert len(workers) == 2 and os.getpid() not in workers
    seen: list[int] = []

    def kill_one(done: int, of: int) -> None:
        if done == 6:
            os.kill(workers[0], signal.SIGKILL)
        seen.append(done)

    report = sweep(
        plan,
        executor=client.get_executor(),
        window=6,
        out=tmp_path / "dask",
        progress=kill_one,
        work=sweep_workers.slow,
    )
    assert workers[0] not in client.run(os.getpid).values(), "the worker was to die"
    assert not report.failed
    assert seen == list(range(len(plan.tasks) + 1)), "each task is counted once"
    lines = (tmp_path / "dask" / "journal.jsonl").read_bytes().splitlines()[1:]
    assert sorted(json.loads(line)["record"]["key"] for line in lines) == sorted(task.key for task in plan.tasks)
    there, here = ((tmp_path / name / "report.json").read_bytes() for name in ("dask", "serial"))
    assert there == here


def test_a_task_of_which_every_worker_dies_is_given_up(client: Any) -> None:
    plan = plan_of([find("jvi-below-evidence")], seeds=range(3), budget=50)

    class KilledWorker(Exception):
        pass

    KilledWorker.__module__ = "distributed.scheduler"
    done: list[str] = []

    class Cluster(SerialExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            future = super().submit(fn, *args, **kwargs)
            if '"kind": "search", "seed": 1' in args[0]:
                future = type(future)()
                future.set_exception(KilledWorker())
            return future

    given_up = run_tasks(plan.tasks, plan.text, GivenWorkers(Cluster()), sweep_workers.work, done.append)
    assert list(given_up) == [plan.tasks[2].key]
    assert len(done) == len(plan.tasks) - 1
    assert issubclass(distributed.scheduler.KilledWorker, Exception), "Dask's own name for it"


def test_the_command_uses_a_cluster_that_runs(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    address = client.scheduler.address
    options = ["jvi-below-evidence", "--seeds", "2", "--budget", "50", "--json"]
    assert run(["sweep", *options, "--executor", "dask", "--scheduler", address]) == 0
    there = json.loads(capsys.readouterr().out)
    assert run(["sweep", *options, "--executor", "serial"]) == 0
    assert json.loads(capsys.readouterr().out) == there


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "no address at all", "ftp://127.0.0.1:1"])
def test_a_scheduler_that_cannot_be_reached_is_one_line(
    address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boundcheck.cli.sweeping.SECONDS_TO_REACH_A_SCHEDULER", 0.2)
    assert run(["sweep", "jvi-below-evidence", "--executor", "dask", "--scheduler", address]) == 2
    told = capsys.readouterr()
    assert not told.out
    assert told.err.startswith(f"error: --scheduler = {address!r}: expected the address") and told.err.count("\n") == 1


def test_errors_of_workers_come_back_whole(client: Any) -> None:
    with pytest.raises(BadInput, match="the worker's boundcheck"):
        client.get_executor().submit(sweep_workers.work, json.dumps({"program": "another"})).result()
