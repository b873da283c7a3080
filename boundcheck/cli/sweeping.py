"""`sweep`: many claims, from many seeds, on many processes or machines, gone on with after a kill."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from boundcheck.cli.options import EPILOG, ERROR, HOLDS, VIOLATED, common

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from boundcheck.cli.report import Screen
    from boundcheck.search.batch import Sizes
    from boundcheck.search.sweep import Report

SECONDS_TO_REACH_A_SCHEDULER = 10


@click.command("sweep", epilog=EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--seeds", type=click.IntRange(min=1), metavar="N", default=5, show_default=True, help="Searches for each claim."
)
@click.option("--budget", type=click.IntRange(min=1), metavar="N", help="Models for each search.  [default: 400000]")
@click.option(
    "--count",
    type=click.IntRange(min=1),
    metavar="N",
    help="Models for each seed, for claims about continuous models.  [default: 400]",
)
@click.option(
    "--sizes",
    "size_texts",
    multiple=True,
    metavar="X,Z[,C]",
    help="Search at so many states of x, z and x~ only; may be given again.  [default: from small to large]",
)
@click.option("--out", metavar="DIR", help="Keep the journal, the report and the counterexamples here.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Processes to run.  [default: one a core]")
@click.option(
    "--executor",
    "executor_name",
    type=click.Choice(["process", "serial", "dask"]),
    default="process",
    show_default=True,
    help="What runs the searches.",
)
@click.option("--scheduler", metavar="ADDRESS", help="The Dask cluster to use.  [default: one on this machine]")
@common(seed="The first of the seeds.")
@click.pass_context
def sweep_command(
    context: click.Context,
    names: tuple[str, ...],
    seeds: int,
    budget: int | None,
    count: int | None,
    size_texts: tuple[str, ...],
    out: str | None,
    workers: int | None,
    executor_name: str,
    scheduler: str | None,
    as_json: bool,
    seed: int,
) -> int:
    """Search for counterexamples to many claims, from many seeds.

    Each NAME is a claim of the catalogue, or FILE.py:OBJECT for your own, as in `falsify`; without a name the whole
    catalogue is swept.

    With --out every result is on the disk before the next one is looked at: run the same command again after an
    interruption, even a kill, and it goes on. The report is the same however often that happened, and whatever ran the
    searches.

    The exit code is 1 if a claim is violated that was not known to be false: one of your own, or one that the catalogue
    does not list as refuted. It is 2 if a search failed (its result is missing, and the same command tries it again),
    and else 0, which says that the sweep is done and proves nothing.
    """
    from boundcheck.cli.report import Screen, print_json, progress_of
    from boundcheck.search.sweep import sweep

    if scheduler is not None and executor_name != "dask":
        raise click.UsageError("--scheduler is the address of a Dask cluster; it goes with --executor dask")
    if workers is not None and (scheduler is not None or executor_name == "serial"):
        which = "a Dask cluster that runs already has its own" if scheduler else "--executor serial starts none"
        raise click.UsageError(f"--workers is the number of processes to start, and {which}")
    plan = _plan(names, range(seed, seed + seeds), budget, count, size_texts)
    done = 0
    try:
        with _executor(executor_name, scheduler, workers) as (executor, window), progress_of("sweeping") as show:

            def report_progress(so_far: int, of: int) -> None:
                nonlocal done
                done = so_far
                show(so_far, of)

            found = sweep(plan, executor=executor, workers=workers, window=window, out=out, progress=report_progress)
    except KeyboardInterrupt:
        return _interrupted(context, out, done, len(plan.tasks))
    if as_json:
        print_json(found.to_json() | {"out": out})
    else:
        _show(Screen(), found, out)
    return VIOLATED if found.unexpected else ERROR if found.failed else HOLDS


def _plan(names: tuple[str, ...], seeds: range, budget: int | None, count: int | None, sizes: tuple[str, ...]) -> Any:
    from boundcheck.catalogue import claims
    from boundcheck.cli.targets import find_claim
    from boundcheck.search.falsify import DEFAULT_BUDGET
    from boundcheck.search.sweep import plan_of
    from boundcheck.search.sweep_plan import CONTINUOUS_COUNT

    named = {name: find_claim(name) for name in names} if names else claims()
    return plan_of(
        named,
        seeds=seeds,
        budget=budget or DEFAULT_BUDGET,
        count=count or CONTINUOUS_COUNT,
        sizes=[_sizes(text) for text in sizes],
    )


def _sizes(text: str) -> Sizes:
    from boundcheck.errors import BadInput
    from boundcheck.search.batch import Sizes

    parts = text.split(",")
    if len(parts) not in (2, 3) or not all(part.strip().isdecimal() for part in parts):
        raise BadInput("--sizes", text, "X,Z or X,Z,C: numbers of states of x, z and x~", "for example --sizes 2,3,2")
    return Sizes(*(int(part) for part in parts))


@contextlib.contextmanager
def _executor(name: str, scheduler: str | None, workers: int | None) -> Iterator[tuple[Executor | None, int]]:
    """The executor of that name and how many tasks to give it at a time; None for the sweep's own pool."""
    from boundcheck.search.sweep import SerialExecutor, cores

    if name == "process":
        yield None, 1
    elif name == "serial":
        yield SerialExecutor(), 1
    else:
        with _dask_client(scheduler, workers or cores()) as client:
            threads = sum(client.nthreads().values())
            yield client.get_executor(), max(2 * threads, 4)


@contextlib.contextmanager
def _dask_client(scheduler: str | None, workers: int) -> Iterator[Any]:
    import logging

    from boundcheck.errors import BadInput, require
    from boundcheck.search.sweep_run import interrupts_held

    distributed = require("distributed", "dask", "--executor dask")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is told in one line
    if scheduler is None:
        quiet = {"dashboard_address": None, "silence_logs": logging.CRITICAL}
        with interrupts_held():
            cluster = distributed.LocalCluster(workers, threads_per_worker=1, **quiet)
        with cluster, distributed.Client(cluster) as client:
            yield client
        return
    try:
        client = distributed.Client(scheduler, timeout=SECONDS_TO_REACH_A_SCHEDULER)
    except (OSError, ValueError, TypeError) as error:  # unreachable, or no address
        expected = "the address of a Dask scheduler that runs, such as tcp://host:8786"
        raise BadInput("--scheduler", scheduler, expected, " ".join(str(error).split())[:200]) from None
    with client:
        yield client


def _interrupted(context: click.Context, out: str | None, done: int, of: int) -> int:
    from boundcheck.cli import INTERRUPTED

    if out is None:
        told = "nothing is kept; with --out DIR the next one can be gone on with"
    else:
        told = f"{done} of {of} tasks are kept in {out}; to go on: {_command_line(context)}"
    print(f"interrupted: {told}", file=sys.stderr, flush=True)
    return INTERRUPTED


def _command_line(context: click.Context) -> str:
    """The command as it would be typed again."""
    words = ["boundcheck", "sweep", *context.params["names"]]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if not isinstance(parameter, click.Option) or value in (None, (), parameter.get_default(context)):
            continue
        if parameter.is_flag:
            words.append(parameter.opts[0])
            continue
        values = value if isinstance(value, tuple) else (value,)
        words += [word for each in values for word in (parameter.opts[0], str(each))]
    return shlex.join(words)


# --- text for people -----------------------------------------------------------------------------------------------


def _show(screen: Screen, found: Report, out: str | None) -> None:
    rows = []
    for each in found.claims:
        smallest = f"{each.states} states" if each.states else "continuous" if each.witness else ""
        remarks = {
            "CONTRADICTION": each.contradiction,
            "not known to be false": each.unexpected and not each.contradiction,
            "not found": each.missed,
            f"{len(each.failed)} failed": bool(each.failed),
        }
        told = ", ".join(remark for remark, applies in remarks.items() if applies)
        rows.append((each.name, each.status, f"{each.violations} of {each.tasks}", str(each.models), smallest, told))
    screen.table(("claim", "status", "violated", "models", "smallest", "remark"), rows)
    screen.line()
    screen.line(f"{found.plan.what}: {len(found.plan.tasks)} tasks, {found.models} models")
    for each in found.contradictions:
        what = "boundcheck calls this claim proved and has a certified counterexample: please report it"
        screen.line(f"ALARM: {each}: {what}", style="bold red")
    for name in found.unexpected:
        if name not in found.contradictions:
            screen.line(f"violated: {name}", style="bold red")
    for key, why in found.failed.items():
        screen.line(f"failed: {key}: {why}", style="yellow")
    if found.missed:
        screen.line(f"false, and not found by these searches: {', '.join(found.missed)}")
    if not found.unexpected and not found.failed:
        screen.line("no claim is violated that was not known to be false; that proves nothing of the others")
    if out is not None:
        screen.line(f"report: {out}/report.json")
        for each in found.claims:
            if each.file is not None and each.unexpected:
                screen.line(f"replay: boundcheck replay {shlex.quote(f'{out}/{each.file}')}")
        if any(each.file is not None for each in found.claims):
            screen.line(f"smallest counterexamples, one file a claim: {out}/witnesses/")
