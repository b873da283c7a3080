"""The journal of a sweep: one line for each task that is done, on the disk before the next result is looked at.

A process can be killed at any moment. What it leaves is a header, whole lines, and perhaps the beginning of one more;
that beginning is cut off, as is any line whose checksum does not fit, and its task is done again. A task's record is
taken once, so that a result that arrives twice is counted once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boundcheck.errors import BadInput
from boundcheck.search.sweep_plan import Plan, program, version

FORMAT = "boundcheck-sweep/1"
NAME = "journal.jsonl"

Record = Mapping[str, Any]


class Journal:
    """The records of a plan's tasks, in a folder if one is given.

    Args:
        plan: the plan.
        folder: where the journal is kept; it is made if need be. None keeps nothing.

    Raises:
        BadInput: the folder cannot be used, another sweep is writing to it, or it holds the journal of another plan.

    >>> from boundcheck.catalogue import find
    >>> from boundcheck.search.sweep_plan import plan_of
    >>> plan = plan_of([find("elbo-below-evidence")], seeds=[0], budget=10)
    >>> journal = Journal(plan)
    >>> record = {"key": plan.tasks[0].key, "models": 60, "violated": False}
    >>> journal.accept(record), journal.accept(record), len(journal.records)
    (True, False, 1)
    """

    def __init__(self, plan: Plan, folder: str | Path | None = None) -> None:
        self.plan = plan
        self.records: dict[str, Record] = {}
        self._keys = {task.key for task in plan.tasks}
        self.folder = Path(folder) if folder is not None else None
        self._file: int | None = None
        if self.folder is not None:
            self._open(self.folder)

    def accept(self, record: Record) -> bool:
        """Keep a task's record, on the disk when this returns; False if the task had one already.

        Raises:
            BadInput: the journal cannot be written to, or the record is of no task of the plan.
        """
        key = record["key"]
        if key not in self._keys:
            raise BadInput("a record", key, "the record of a task of this plan")
        if key in self.records:
            return False
        if self._file is not None:
            self._append(_line(record))
        self.records[key] = record
        return True

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the file --------------------------------------------------------------------------------------------------

    def _open(self, folder: Path) -> None:
        path = folder / NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
            self._lock(folder)
            with open(self._file, "rb", closefd=False) as file:
                content = file.read()
            self._read(folder, content)
        except OSError as error:
            self.close()
            raise _unusable(folder, error) from None
        except BaseException:
            self.close()
            raise

    def _lock(self, folder: Path) -> None:
        """Two sweeps that write to one journal would cut each other's lines; the lock goes with the process."""
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            return
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "wait for it, or give this one a folder of its own"
            raise BadInput("--out", str(folder), "a folder that no other sweep is writing to", remedy) from None

    def _read(self, folder: Path, content: bytes) -> None:
        header = self._header()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole:
            if not header.startswith(content):
                raise BadInput("--out", str(folder), "an empty folder, or a sweep's", f"its {NAME} is something else")
            self._truncate(0)
            self._append(header)
            return
        first, *lines = whole.splitlines(keepends=True)
        self._compare(folder, first)
        for line in lines:
            record = _record(line)
            if record is not None and record["key"] in self._keys:
                self.records.setdefault(record["key"], record)
        if len(whole) < len(content):
            self._truncate(len(whole))

    def _header(self) -> bytes:
        return _line(
            {
                "format": FORMAT,
                "version": version(),
                "program": program(),
                "plan": self.plan.digest,
                "what": self.plan.what,
            }
        )

    def _compare(self, folder: Path, first: bytes) -> None:
        """Refuse a journal that is not of this plan and this program."""
        other = _parsed(first)
        if not isinstance(other, dict) or other.get("format") != FORMAT:
            raise BadInput("--out", str(folder), "an empty folder, or a sweep's", f"its {NAME} is something else")
        if other.get("plan") == self.plan.digest:
            return
        remedy = f"its journal is of plan {_short(other.get('plan'))} ({other.get('what')}"
        if other.get("program") != program():
            remedy += f"; written by another boundcheck, version {other.get('version')}"
        remedy += "): use another folder"
        raise BadInput("--out", str(folder), f"a folder of plan {_short(self.plan.digest)} ({self.plan.what})", remedy)

    def _append(self, line: bytes) -> None:
        assert self._file is not None and self.folder is not None
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError as error:
            raise _unusable(self.folder, error) from None

    def _truncate(self, size: int) -> None:
        assert self._file is not None
        os.ftruncate(self._file, size)


def _unusable(folder: Path, error: OSError) -> BadInput:
    return BadInput("--out", str(folder), "a folder that can be written to", error.strerror or str(error))


def _short(digest: object) -> str:
    return str(digest)[:12]


def _line(record: Record) -> bytes:
    text = json.dumps(record, allow_nan=False)
    return f'{{"sum": "{_sum(text)}", "record": {text}}}\n'.encode()


def _record(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None if the line is not as it was written."""
    record = _parsed(line)
    return record if isinstance(record, dict) and isinstance(record.get("key"), str) else None


def _parsed(line: bytes) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        data = json.loads(line)
        if isinstance(data, dict) and data.get("sum") == _sum(json.dumps(data.get("record"), allow_nan=False)):
            return data["record"]
    return None


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


__all__ = ["FORMAT", "NAME", "Journal", "Record"]
