"""Files that are written whole or not at all.

A counterexample or a plot that was cut off in the middle looks like one that was not. So the new content goes to a
temporary name in the same folder, which takes the place of the target in one step when it is complete.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boundcheck.errors import BadInput

REMEDY = "restore the file as boundcheck wrote it"
"""What to do about a file that was edited by hand into nonsense."""


@contextmanager
def written_whole(path: str | Path, argument: str = "the file") -> Iterator[Path]:
    """A temporary path with the suffix of `path`; it replaces `path` when the block ends, and is removed if it fails.

    A device or a pipe is written to directly, and a symbolic link keeps pointing where it points.

    Raises:
        BadInput: a directory, or a place that cannot be written to; the message says why.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with written_whole(target) as temporary:
    ...     _ = temporary.write_text("all of it")
    >>> target.read_text()
    'all of it'
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise BadInput(argument, str(path), "a file to write", "it is a directory")
    special = target.exists() and not target.is_file()
    temporary = target if special else target.with_name(f".{target.stem}-{secrets.token_hex(4)}{target.suffix}")
    try:
        yield temporary
        if not special:
            os.replace(temporary, target)
    except OSError as error:
        raise BadInput(argument, str(path), "a file that can be written", error.strerror or str(error)) from None
    finally:
        if not special:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str, argument: str = "the file") -> None:
    """Write text as UTF-8, whole or not at all.

    Raises:
        BadInput: a directory, or a place that cannot be written to.
    """
    with written_whole(path, argument) as temporary:
        temporary.write_text(text, encoding="utf-8")


def require_fields(what: str, data: Mapping[str, Any], fields: tuple[str, ...]) -> None:
    """Refuse an object that has other fields than these.

    Raises:
        BadInput: a field that is missing or unknown; the message names it.
    """
    missing = [field for field in fields if field not in data]
    unknown = [str(field) for field in data if field not in fields]
    if missing or unknown:
        given = f"without {missing[0]}" if missing else unknown[0]
        raise BadInput(what, given, f"the fields {', '.join(fields)}", REMEDY)


__all__ = ["REMEDY", "require_fields", "write_text", "written_whole"]
