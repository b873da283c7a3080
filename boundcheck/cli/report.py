"""What commands print: one JSON object, or text with colour and tables on a terminal and plain lines elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from boundcheck.cli.options import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from boundcheck.evaluators.values import Value
    from boundcheck.models.finite import FiniteModel

COLOURS = {
    "holds": "green",
    "violated": "bold red",
    "undecided": "yellow",
    "proved": "green",
    "gap verified": "green",
    "survived": "yellow",
    "refuted": "bold red",
}
"""By the first words of a text: a verdict or a status."""

LONGEST_NUMBER = 60
MOST_ROWS = 16


def print_json(data: Mapping[str, Any]) -> None:
    """One JSON object on stdout; strict, so NaN and infinities are text in it."""
    print(json.dumps(data, indent=2, allow_nan=False))


class Screen:
    """Text for people on stdout."""

    def __init__(self) -> None:
        self.on_terminal = sys.stdout.isatty()

    @cached_property
    def console(self) -> Console:
        """The terminal; rich is loaded for it alone."""
        from rich.console import Console

        return Console(markup=False, highlight=False, emoji=False)

    def line(self, text: str = "", style: str = "") -> None:
        """A line of text."""
        shown = one_line(text)
        if self.on_terminal:
            self.console.print(shown, style=style or _colour(shown) or None, soft_wrap=not shown.startswith(" "))
        else:
            print(shown)

    def fields(self, rows: Sequence[tuple[str, str]]) -> None:
        """Names and values, one pair a line; a name that is left empty continues the one before it."""
        if self.on_terminal:
            from rich.table import Table
            from rich.text import Text

            grid = Table.grid(padding=(0, 2))
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(overflow="fold")
            for name, value in rows:
                grid.add_row(one_line(name), Text(one_line(value), style=_colour(value)))
            self.console.print(grid)
            return
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            print(f"{one_line(name):{width}}  {one_line(value)}".rstrip())

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table with a head; off the terminal its cells are separated by tabs."""
        if self.on_terminal:
            from rich import box
            from rich.table import Table
            from rich.text import Text

            table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
            for number, name in enumerate(columns):
                table.add_column(name, overflow="fold", no_wrap=number == 0)
            for row in rows:
                table.add_row(*(Text(one_line(cell), style=_colour(cell)) for cell in row))
            self.console.print(table)
            return
        for row in (columns, *rows):
            print("\t".join(one_line(cell) for cell in row))


def _colour(text: str) -> str:
    return next((colour for word, colour in COLOURS.items() if text == word or text.startswith(f"{word} (")), "")


@contextmanager
def progress_of(what: str) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr if that is a terminal; yields what takes (done, of) and, where it changes, the name."""
    if not sys.stderr.isatty():
        yield lambda done, of, now=what: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of, now=what: bar.update(task, completed=done, total=of, description=now)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """As `progress_of`, for a number of steps known before; yields what advances by one of them."""
    done = 0
    if total == 0:
        yield lambda: None
        return
    with progress_of(what) as report:
        report(done, total)

        def advance() -> None:
            nonlocal done
            done += 1
            report(done, total)

        yield advance


# --- values and models as text -------------------------------------------------------------------------------------


def number(value: Value | None) -> str:
    """A value as people read it: log(5/3) = 0.510825623766."""
    if value is None:
        return "no value"
    return exact_and_float(str(value), float(value)) if _is_exact(value) else str(value)


def _is_exact(value: Value) -> bool:
    from boundcheck.evaluators.values import Exact

    return isinstance(value, Exact)


def exact_and_float(text: str, value: float) -> str:
    """An exact number's text and its float beside it, unless they are the same; a text too long to read is cut.

    >>> exact_and_float("log(5/3)", 0.5108256237659907)
    'log(5/3) = 0.510825623766'
    >>> exact_and_float("0", 0.0)
    '0'
    """
    decimal = f"{value:.12g}"
    if text == decimal:
        return text
    if len(text) > LONGEST_NUMBER:
        text = f"{text[: LONGEST_NUMBER - 3]}..."
    return f"{text} = {decimal}"


_NAMES = {
    "prior": "p(z)",
    "joint": "p(x={},z)",
    "likelihood": "p(x|z={})",
    "corruption": "c(x~|x={})",
    "encoder": "q(z|{}={})",
    "auxiliary": "r(x~|z={},x={})",
}


def model_rows(model: FiniteModel, roles: frozenset[str] | None = None) -> list[tuple[str, str]]:
    """The model's tables, one row of probabilities a line: ("q(z|x~=0)", "1/10  9/10").

    `roles` limits them to the tables that a formula can read; `joint` stands for the prior and the likelihood too.
    """
    rows: list[tuple[str, str]] = []
    given, joint = model.to_json(), {"prior", "likelihood", "joint"}
    for role, name in _NAMES.items():
        wanted = roles is None or role in roles or (role in joint and roles & joint)
        if role not in given or not wanted:
            continue
        table = model.table(role)
        inputs = ("x~" if "x~" in model.sizes else "x",) if role == "encoder" else ()
        for flat, row in enumerate(table.reshape(-1, table.shape[-1])):
            index = _unravel(flat, table.shape[:-1])
            rows.append((name.format(*inputs, *index), "  ".join(map(str, row))))
    if len(rows) > MOST_ROWS:
        rows[MOST_ROWS:] = [("", f"... and {len(rows) - MOST_ROWS} rows more (--json has them all)")]
    return rows


def _unravel(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index = []
    for size in reversed(shape):
        flat, here = divmod(flat, size)
        index.append(here)
    return tuple(reversed(index))


__all__ = ["Screen", "exact_and_float", "model_rows", "number", "print_json", "progress", "progress_of"]
