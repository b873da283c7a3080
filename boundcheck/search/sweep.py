"""A sweep: many claims, from many seeds, at many sizes, on whatever executor there is, as long as it takes.

Each task is a pure function of its text, and each result goes to a journal before the next is looked at. So a sweep can
be killed and gone on with, and its report is the same, to the byte, for one process, for many, and for a cluster.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from boundcheck.errors import BadInput
from boundcheck.search.sweep_journal import Journal
from boundcheck.search.sweep_plan import Plan, Task, plan_of
from boundcheck.search.sweep_report import ClaimReport, Report, report_of
from boundcheck.search.sweep_run import GivenWorkers, ProcessWorkers, SerialExecutor, Work, Workers, run_tasks
from boundcheck.search.sweep_task import work as _work


def sweep(
    plan: Plan,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    window: int = 32,
    out: str | Path | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
    work: Work = _work,
) -> Report:
    """Do the tasks of a plan that are not done yet, and report what all of them found.

    Args:
        plan: what to do; see `plan_of`.
        executor: any `concurrent.futures.Executor`, for example `dask.distributed.Client().get_executor()`; it is left
            open. By default a pool of processes, which is made, rebuilt when a worker dies, and closed here; a script
            that relies on it needs `if __name__ == "__main__":`, as for every such pool.
        workers: how many processes that pool has; by default one for each core.
        window: how many tasks a given executor gets at a time.
        out: a folder that keeps the journal, the report and the counterexamples. With the same plan and folder a sweep
            that was interrupted, even killed, goes on where it stopped. Tasks that failed are tried again.
        progress: called with the number of tasks done and of all.
        work: what does a task, for a test that wants it to go wrong; it must be importable by the workers.

    Raises:
        BadInput: a folder that cannot be used or holds another plan's journal, or workers that run another version of
            boundcheck.
        CannotCompute: the executor itself failed.

    >>> from boundcheck.catalogue import find
    >>> plan = plan_of([find("jvi-below-evidence"), find("elbo-below-evidence")], seeds=range(2), budget=100)
    >>> report = sweep(plan, executor=SerialExecutor())
    >>> [(each.name, each.status, each.violations, each.states) for each in report.claims]
    [('jvi-below-evidence', 'refuted', 2, 3), ('elbo-below-evidence', 'proved', 0, None)]
    """
    for argument, value in (("workers", workers), ("window", window)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise BadInput(argument, value, "a whole number of at least 1")
    with Journal(plan, out) as journal:
        failed = _do(plan, journal, executor, workers, window, progress, work)
        report = report_of(plan, journal.records, failed)
        if out is not None:
            report.save(out)
    return report


def _do(
    plan: Plan,
    journal: Journal,
    executor: Executor | None,
    workers: int | None,
    window: int,
    progress: Callable[[int, int], None],
    work: Work,
) -> dict[str, str]:
    """Do what the journal has no record of; the tasks that failed, and why."""
    failed: dict[str, str] = {}
    progress(len(journal.records), len(plan.tasks))

    def accept(result: str) -> None:
        record = json.loads(result)
        if "failed" in record:  # not kept: when the sweep is run again, the task is tried again
            failed[record["key"]] = record["failed"]
        else:
            journal.accept(record)
        progress(len(journal.records) + len(failed), len(plan.tasks))

    todo = [task for task in plan.tasks if task.key not in journal.records]
    if not todo:
        return failed
    runs: Workers = ProcessWorkers(workers or cores()) if executor is None else GivenWorkers(executor, window)
    finished = False
    try:
        failed |= run_tasks(todo, plan.text, runs, work, accept)
        finished = True
    finally:
        runs.close(now=not finished)
    return failed


def cores() -> int:
    """How many processor cores this process may use.

    >>> cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


__all__ = ["ClaimReport", "Plan", "Report", "SerialExecutor", "Task", "cores", "plan_of", "sweep"]
