"""Running the tasks of a sweep on an executor, and outliving the workers that die of them.

Only so many tasks are handed out at a time as keep the workers busy. When a process pool breaks, nobody can tell which
of the tasks in flight killed the worker: all of them are done again in a new pool, and those that have seen a pool
break twice run alone, so that only the task that is to blame is given up, and is named.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from concurrent.futures.process import ProcessPoolExecutor
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Protocol

from boundcheck.errors import BadInput, BoundcheckError, CannotCompute
from boundcheck.search.sweep_plan import Task
from boundcheck.search.sweep_task import one_thread

BREAKS_IN_COMPANY = 2
"""How often a pool may break with a task in flight before that task runs alone; if it breaks again, it is given up."""

MOST_BREAKS_IN_A_ROW = 12
"""After so many broken pools without one result it is not the tasks that are to blame."""

Work = Callable[[str], str]


class Workers(Protocol):
    """Where tasks run."""

    window: int
    """How many tasks are handed out at a time."""

    def submit(self, work: Work, text: str) -> Future[str]:
        """Hand out a task."""
        ...

    def restart(self) -> bool:
        """Replace workers that broke; False if that cannot be done."""
        ...

    def close(self, now: bool) -> None:
        """End the workers: at once, or when what they are doing is done."""
        ...


class GivenWorkers:
    """An executor that the caller made and will close."""

    def __init__(self, executor: Executor, window: int = 32) -> None:
        self.executor, self.window = executor, window

    def submit(self, work: Work, text: str) -> Future[str]:
        return self.executor.submit(work, text)

    def restart(self) -> bool:
        return False

    def close(self, now: bool) -> None:
        pass


class SerialExecutor(Executor):
    """Does each task at once, in this very process.

    >>> SerialExecutor().submit(max, 1, 2).result()
    2
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the function; its future is done when this returns."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # as every executor does; Ctrl-C goes through
            future.set_exception(error)
        return future


class ProcessWorkers:
    """A pool of fresh processes with one thread of arithmetic each, which end with this process however it ends."""

    def __init__(self, workers: int) -> None:
        self.workers, self.window = workers, 2 * workers
        self._start()

    def _start(self) -> None:
        # Spawned, not forked: a fork copies locks that other threads (of torch, of Dask) may hold.
        context = get_context("spawn")
        watched, self._alive = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(self.workers, context, _prepare_worker, (watched,))
        self._watched = watched

    def submit(self, work: Work, text: str) -> Future[str]:
        with one_thread(), interrupts_held():  # a worker may be started here, and takes over both
            return self._pool.submit(work, text)

    def restart(self) -> bool:
        self.close(now=True)
        self._start()
        return True

    def close(self, now: bool) -> None:
        if now:
            self._alive.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._alive.close()
        self._watched.close()


def _prepare_worker(watched: Connection) -> None:
    """End with the sweep, even one that is killed, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_the_sweep() -> None:
        with contextlib.suppress(EOFError, OSError):
            watched.recv_bytes()  # nothing is ever sent: this returns when the other end is closed
        os._exit(1)

    threading.Thread(target=end_with_the_sweep, daemon=True).start()


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Put Ctrl-C off, and keep it from processes that are started within.

    It reaches all processes of a terminal, and each of them would answer with a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its start would let the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_tasks(
    tasks: Sequence[Task],
    text: Callable[[Task], str],
    workers: Workers,
    work: Work,
    accept: Callable[[str], None],
) -> dict[str, str]:
    """Do every task once.

    Args:
        tasks: the tasks.
        text: what a worker is told of a task.
        workers: where they run.
        work: what the workers do.
        accept: called with each result, in the order in which they come.

    Returns:
        The tasks that were given up because their worker died of them, by key, and why.

    Raises:
        BadInput: the workers cannot do these tasks, for example because they run another version of boundcheck.
        CannotCompute: the executor itself failed, or workers die whatever they do.
    """
    run = _Run(deque(tasks), text, workers, work, accept)
    try:
        while run.waiting or run.flying:
            run.step()
    except BaseException:
        for future in run.flying:
            future.cancel()
        raise
    return run.given_up


class _Run:
    """Tasks that wait and tasks in flight."""

    def __init__(
        self,
        waiting: deque[Task],
        text: Callable[[Task], str],
        workers: Workers,
        work: Work,
        accept: Callable[[str], None],
    ) -> None:
        self.waiting, self.text, self.workers, self.work, self.accept = waiting, text, workers, work, accept
        self.flying: dict[Future[str], Task] = {}
        self.breaks: Counter[str] = Counter()
        self.breaks_in_a_row = 0
        self.given_up: dict[str, str] = {}

    def step(self) -> None:
        """Hand out what there is room for, and take what has come."""
        broken = not self.hand_out()
        done = wait(self.flying, return_when=FIRST_COMPLETED).done if not broken else set()
        if broken or any(_broke(future) for future in done):
            broken = True
            done = wait(self.flying).done  # a broken pool ends all that it held; some of it may have come in time
        alone = len(self.flying) == 1
        suspects = []
        for future in done:
            task = self.flying.pop(future)
            if _broke(future):
                suspects.append(task)
            elif _died_again_and_again(future):
                self.given_up[task.key] = "its worker died of it, each time that it was tried"
            else:
                self.accept(_result(future, task))
                self.breaks_in_a_row = 0
        if broken:
            self.recover(suspects, alone)

    def hand_out(self) -> bool:
        """Hand out tasks; False if the workers turn out to be broken."""
        while self.waiting and len(self.flying) < self.workers.window:
            task = self.waiting[0]
            alone = self.breaks[task.key] >= BREAKS_IN_COMPANY
            if alone and self.flying:
                break
            try:
                future = self.workers.submit(self.work, self.text(task))
            except BrokenExecutor:
                return False
            except RuntimeError as error:  # what an executor raises that was shut down
                raise CannotCompute("the executor", task.key, str(error)) from None
            self.flying[future] = self.waiting.popleft()
            if alone or future.done():  # a serial executor's result is kept before the next task begins
                break
        return True

    def recover(self, suspects: list[Task], alone: bool) -> None:
        """Start new workers, and put the tasks that saw the old ones break at the end of the line."""
        self.breaks_in_a_row += 1
        for task in suspects:
            self.breaks[task.key] += 1
            if alone and self.breaks[task.key] > BREAKS_IN_COMPANY:
                self.given_up[task.key] = f"its worker died of it, {self.breaks[task.key]} times"
            else:
                self.waiting.append(task)
        what = suspects[0].key if suspects else "the sweep"
        if self.breaks_in_a_row > MOST_BREAKS_IN_A_ROW:
            reason = f"its workers died {self.breaks_in_a_row} times in a row without a result; is there memory enough?"
            raise CannotCompute("the executor", what, reason)
        if not self.workers.restart():
            raise CannotCompute("the executor", what, "it is broken; start a new one and go on")


def _broke(future: Future[str]) -> bool:
    return not future.cancelled() and isinstance(future.exception(), BrokenExecutor)


def _died_again_and_again(future: Future[str]) -> bool:
    """True for Dask's word that worker after worker died of this very task."""
    kinds = type(future.exception()).__mro__ if not future.cancelled() else ()
    return any(kind.__name__ == "KilledWorker" and kind.__module__.startswith("distributed") for kind in kinds)


def _result(future: Future[str], task: Task) -> str:
    try:
        return future.result()
    except BoundcheckError:
        raise
    except CancelledError:
        raise CannotCompute("the executor", task.key, "it was closed, or its scheduler went away") from None
    except ModuleNotFoundError as error:
        raise BadInput("the workers", str(error), "workers with this boundcheck installed") from None
    except Exception as error:
        raise CannotCompute("the executor", task.key, f"{type(error).__name__}: {error}") from None


__all__ = ["GivenWorkers", "ProcessWorkers", "SerialExecutor", "Work", "Workers", "interrupts_held", "run_tasks"]
