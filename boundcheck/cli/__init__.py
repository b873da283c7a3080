"""The command line: thin commands over the library, one file for each group of them.

Whatever goes wrong ends in one line on stderr and an exit code, and no exit code says "holds" or "violated" unless a
verdict said so. Everything but click is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence

import click

import boundcheck
from boundcheck.cli.catalogue import list_command, show_command
from boundcheck.cli.deciding import check_command, replay_command
from boundcheck.cli.evaluating import evaluate_command
from boundcheck.cli.falsifying import falsify_command
from boundcheck.cli.options import EPILOG, ERROR, Commands, one_line
from boundcheck.cli.reproducing import reproduce_group
from boundcheck.cli.sweeping import sweep_command
from boundcheck.errors import BoundcheckError

INTERRUPTED, BROKEN_PIPE = 130, 141
_SMALLER = "ask for less at once, with a smaller --k, --limit, --latent, --count or whatever made it large"


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(boundcheck.__version__, message="%(prog)s %(version)s")
def commands() -> None:
    """Is a variational objective the bound that its authors say it is?

    boundcheck answers with a verdict (holds, violated, undecided), the guarantee behind it (exact, certified,
    numerical, statistical) and, where the claim is false, a small counterexample.
    """


for each in (
    list_command,
    show_command,
    check_command,
    falsify_command,
    sweep_command,
    replay_command,
    evaluate_command,
    reproduce_group,
):
    commands.add_command(each)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code.

    >>> run(["check", "iwae-below-evidnce"])
    2
    """
    _prepare_streams()
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
        return code
    except BoundcheckError as error:
        return _fail(str(error))
    except click.ClickException as error:
        return _fail(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _discard_stdout()
        return BROKEN_PIPE
    except OSError as error:
        _discard_stdout()
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except MemoryError:
        return _fail(f"not enough memory; {_SMALLER}")
    except Exception as error:  # a defect of boundcheck, which must not exit with the code of "violated"
        if os.environ.get("BOUNDCHECK_TRACEBACK"):
            raise
        if "can't allocate memory" in str(error):  # torch's, on a CPU
            return _fail(f"not enough memory; {_SMALLER}")
        what = f"{type(error).__name__}: {error}"
        return _fail(f"boundcheck failed ({what}); please report it, with what BOUNDCHECK_TRACEBACK=1 shows")


def _prepare_streams() -> None:
    """A stream that is closed swallows what is written, and one that lacks a letter spells it out."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - it stays open until the process ends
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _invoke(arguments: Sequence[str]) -> int:
    try:
        with commands.make_context("boundcheck", list(arguments)) as ctx:
            return commands.invoke(ctx) or 0
    except click.exceptions.Exit as leave:
        return leave.exit_code


def _fail(message: str, code: int = ERROR) -> int:
    with contextlib.suppress(OSError):  # nobody may be there to be told
        print(f"error: {one_line(message)}", file=sys.stderr, flush=True)
    return code


def _discard_stdout() -> None:
    """Let the interpreter's last flush succeed: it would replace the exit code by one of its own."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass


def main() -> None:
    """The entry point of `boundcheck` and `python -m boundcheck`."""
    sys.exit(run(sys.argv[1:]))


__all__ = ["commands", "main", "run"]
