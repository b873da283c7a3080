"""`python -m boundcheck.cli.docs` writes docs/cli.md from the commands' own help, so that the two cannot differ.

A test compares the page with what this module makes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from boundcheck.cli import commands

PAGE = Path("docs") / "cli.md"
WIDTH = 88

_OPENING = """\
# Command line

`boundcheck` and `python -m boundcheck` are the same command. People get text, with colour and tables where stdout is a
terminal; `--json` prints one JSON object instead, and progress goes to stderr. Every command has `--json` and `--seed`.

The exit code says what was found, and an error never looks like a verdict:

| exit code | means |
|---|---|
| 0 | holds, or done |
| 1 | violated |
| 2 | an error: bad usage or bad input, told in one line on stderr |
| 3 | undecided |

A claim that merely survived random models is undecided: no violation was found, and nothing is proved. Interrupted by
the keyboard, the exit code is 130; when the reader of a pipe goes away, it is 141.

This page is made from the commands' help by `python -m boundcheck.cli.docs`.
"""


def page() -> str:
    """The page, as Markdown."""
    sections = [_OPENING]
    for context in contexts(commands, "boundcheck"):
        mark = "###" if context.command_path.count(" ") > 1 else "##"
        sections.append(f"{mark} {context.command_path}\n\n```text\n{help_text(context)}\n```\n")
    return "\n".join(sections)


def contexts(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[click.Context]:
    """The contexts of a command and of all below it."""
    context = click.Context(command, parent, info_name=name, terminal_width=WIDTH, **command.context_settings)
    yield context
    if isinstance(command, click.Group):
        for below, each in command.commands.items():
            yield from contexts(each, below, context)


def help_text(context: click.Context) -> str:
    """What --help prints, in lines of a fixed width."""
    return "\n".join(line.rstrip() for line in context.get_help().splitlines())


def main() -> None:
    """Write the page, from the root of the repository."""
    if not PAGE.parent.is_dir():
        sys.exit(f"error: there is no folder {PAGE.parent}; run this from the root of the repository")
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
