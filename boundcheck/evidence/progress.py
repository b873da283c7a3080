"""How far a card is: draws and moves of all its stages, counted together."""

from __future__ import annotations

from collections.abc import Callable


class Progress:
    """Turns numbers of draws just made into (done, of), which never goes back.

    Args:
        report: called with (done, of).
        of: all that is to be done.

    >>> progress = Progress(lambda done, of: print(done, of), 10)
    >>> progress(3)
    3 10
    >>> progress.finish()
    10 10
    """

    def __init__(self, report: Callable[[int, int], None] | None, of: int) -> None:
        self.report, self.of, self.done = report, of, 0

    def __call__(self, draws: int) -> None:
        self.fix(self.done + draws)

    def total(self, done: int, of: int) -> None:
        """What the engine reports of the log-weights, the first part."""
        self.fix(max(self.done, done))

    def fix(self, done: int) -> None:
        """So much is done."""
        self.done = min(done, self.of)
        if self.report is not None:
            self.report(self.done, self.of)

    def finish(self) -> None:
        """All of it."""
        self.fix(self.of)


__all__ = ["Progress"]
