"""What all commands share: their options, the exit codes, and text that is safe to print."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from boundcheck.errors import BadInput, UnknownName

HOLDS, VIOLATED, ERROR, UNDECIDED = 0, 1, 2, 3

EPILOG = """\b
Exit codes:
  0  holds, or done
  1  violated
  2  an error: bad usage or bad input, told in one line on stderr
  3  undecided
"""

_F = TypeVar("_F", bound=Callable[..., Any])

NOTHING_RANDOM = "Accepted by every command; nothing is random in this one."


class Commands(click.Group):
    """A group of commands in the order in which they are written, which suggests what a mistyped name may mean."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:  # asking for nothing must not look like a claim that holds
            click.echo(ctx.get_help(), err=True)
            ctx.exit(ERROR)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise UnknownName("command", args[0], self.commands)
        return super().resolve_command(ctx, args)


def common(seed: str) -> Callable[[_F], _F]:
    """The options of every command: --json, and --seed with its meaning there."""

    def decorate(command: _F) -> _F:
        as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
        seeded = click.option(
            "--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help=seed
        )
        return as_json(seeded(command))

    return decorate


PLOTS = (".png", ".svg", ".pdf")


def check_file(option: str, path: str | None, suffixes: tuple[str, ...] = ()) -> None:
    """Refuse a file that cannot be written, before the work and not after it.

    Raises:
        BadInput: no name, a folder, a folder that is not there or is closed to the user, or another kind of file.
    """
    if path is None:
        return
    file = Path(path)
    if not path or file.is_dir():
        raise BadInput(
            option, path, "a file that can be written", "a directory is in its place" if path else "name one"
        )
    if suffixes and file.suffix and file.suffix.lower() not in suffixes:  # without any, a plot is a PNG
        raise BadInput(option, path, f"a name that ends in {' or '.join(suffixes)}")
    folder = file.absolute().parent
    if not folder.is_dir():
        raise BadInput(option, path, "a file in a folder that there is", f"make {file.parent} first")
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise BadInput(option, path, "a file that can be written", "you have no right to write there")


def exit_code(verdict: str) -> int:
    """The exit code of a verdict: holds, violated or undecided."""
    return {"holds": HOLDS, "violated": VIOLATED, "undecided": UNDECIDED}[verdict]


def one_line(text: str) -> str:
    r"""The text as one line, its control characters spelt out: a file's text could otherwise drive the terminal.

    >>> one_line("a claim\nof " + chr(27) + "[2J")
    'a claim of \\x1b[2J'
    """
    line = " ".join(text.splitlines()) if "\n" in text or "\r" in text else text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line.replace("\t", " "))


__all__ = [
    "EPILOG",
    "ERROR",
    "HOLDS",
    "NOTHING_RANDOM",
    "PLOTS",
    "UNDECIDED",
    "VIOLATED",
    "Commands",
    "check_file",
    "common",
    "exit_code",
    "one_line",
]
