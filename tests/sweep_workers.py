"""What workers do in the tests of sweeps when they are to go wrong; spawned processes import this by its name."""

from __future__ import annotations

import os
import signal
import time

from boundcheck.search.sweep_task import work


def slow(text: str) -> str:
    """As the real one, but never so fast that the sweep is over before the test has killed something."""
    time.sleep(0.05)
    return work(text)


def deadly(text: str) -> str:
    """Dies of one task, whatever process does it."""
    if '"kind": "search", "seed": 1' in text:
        os.kill(os.getpid(), signal.SIGKILL)
    return work(text)


def always_deadly(text: str) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return work(text)
