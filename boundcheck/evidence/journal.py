"""Finished work that outlives its process: one file for each item, whole or not there.

A file is written under another name, flushed to the disk and renamed, so that a process killed at any moment leaves
either the whole item or none of it. Each begins with a digest of the job, of its number and of its content: a torn
file, or one of another job, is no file. A header says what the job is; a directory of another job is refused. What an
item that takes long has come to may be kept as well, under a name of its own, until the item is finished.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import socket
import threading
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput

FORMAT = 2
_HEADER = "job.json"
_DIGEST = 32
_SAME_MODEL = 1e-3
"""Log-weights at the same draws may differ by this much, relatively, between two runs of one model."""


class JournalError(BadInput):
    """The directory of finished work is another job's, or cannot be written to: no work can go on beside that."""


def pack(arrays: Mapping[str, NDArray]) -> bytes:
    """Arrays by name as bytes, without pickling.

    >>> unpack(pack({"a": np.arange(3)}))["a"].tolist()
    [0, 1, 2]
    """
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def unpack(content: bytes) -> dict[str, NDArray]:
    """The arrays in `pack`'s bytes."""
    with np.load(io.BytesIO(content), allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}


class Journal:
    """The finished items of one job in a directory.

    Args:
        path: the directory; made if it is not there.
        job: what the job is, JSON-ready; every entry must be the same whenever it is resumed.
        sign: some values, equal up to rounding whenever what computes them is the same; an empty one says nothing.
        settings: what may differ, and is remembered as it was at the beginning.
        items: how many items the job has, for messages.
        signed: what the sign shows if it is another one.
        part_of: the directory that the user named, if this is one in it.
        tolerance: how far a sign may differ, in absolute terms or relative to itself.

    Attributes:
        settings: those of the beginning.

    Raises:
        JournalError: the directory is another job's, holds something else, or cannot be written to.
    """

    def __init__(
        self,
        path: str | Path,
        job: Mapping[str, Any],
        sign: NDArray[np.float64],
        settings: Mapping[str, Any],
        items: int,
        signed: str = "its model gave other log-weights at the same draws",
        part_of: str | Path | None = None,
        tolerance: float = _SAME_MODEL,
    ) -> None:
        self.path, self.items, self.signed, self.tolerance = Path(path), items, signed, tolerance
        self.shown, self.name = str(part_of or path), "" if part_of is None else self.path.name
        self.job = json.loads(json.dumps(job))
        self.digest = hashlib.sha256(json.dumps([FORMAT, self.job], sort_keys=True).encode()).digest()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            header = self._header()
        except OSError as error:
            raise self._unwritable(error) from error
        if header is None:
            self.settings = dict(settings)
            content = {"format": FORMAT, "job": self.job, "sign": sign.tolist(), "settings": self.settings}
            self._write(_HEADER, json.dumps(content, indent=1).encode())
            return
        self._compare(header, sign)
        self.settings = dict(header["settings"])
        self._clear()

    # --- the header ---

    def _header(self) -> dict[str, Any] | None:
        file = self.path / _HEADER
        if not file.exists():
            others = [each.name for each in self.path.iterdir() if not each.name.endswith(".tmp")]
            if not file.exists():  # another process may have begun meanwhile
                if others:
                    remedy = f"it holds {sorted(others)[0]} and no {_HEADER}"
                    raise JournalError("resume", self.shown, "an empty directory, or one of this very job", remedy)
                return None
        try:
            header = json.loads(file.read_text())
            if header["format"] != FORMAT or not isinstance(header["job"], dict) or "settings" not in header:
                raise ValueError
            np.asarray(header["sign"], dtype=np.float64)
            return header
        except (ValueError, KeyError, TypeError):
            remedy = f"its {_HEADER} cannot be read; name another directory"
            raise JournalError("resume", self.shown, "a directory that this version has written", remedy) from None

    def _compare(self, header: Mapping[str, Any], sign: NDArray[np.float64]) -> None:
        other = header["job"]
        names = [name for name in {**other, **self.job} if other.get(name) != self.job.get(name)]
        if names:
            shown = [f"its {name} is {_short(other.get(name))}, not {_short(self.job.get(name))}" for name in names]
            self._other_job("; ".join(shown))
        before = np.asarray(header["sign"], dtype=np.float64)
        if not before.size or not sign.size:
            return
        same = before.shape == sign.shape and np.allclose(before, sign, self.tolerance, self.tolerance, equal_nan=True)
        if not same:
            self._other_job(self.signed)

    def _other_job(self, difference: str) -> None:
        remedy = f"{difference}; name another directory"
        if self.name:
            remedy = f"in {self.name}, {remedy}, or remove {self.name} from it"
        raise JournalError("resume", self.shown, "the directory of this very job", remedy)

    # --- items ---

    def load(self, index: int, *, finished: bool = True) -> dict[str, NDArray] | None:
        """The state of an item; None if it has to be computed. Or else what it had come to, None if not begun."""
        try:
            content = self._file(index, finished).read_bytes()
        except OSError:
            return None
        if content[:_DIGEST] != self._seal(index, content[_DIGEST:], finished):
            return None
        try:
            return unpack(content[_DIGEST:])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def save(self, index: int, state: Mapping[str, NDArray], *, finished: bool = True) -> None:
        """Keep the state of an item, or what it has come to.

        Raises:
            JournalError: the disk is full, or the directory cannot be written to.
        """
        content = pack(state)
        self._write(self._file(index, finished).name, self._seal(index, content, finished) + content)
        if finished:
            with suppress(OSError):  # nothing reads it any more
                self._file(index, finished=False).unlink(missing_ok=True)

    def _file(self, index: int, finished: bool) -> Path:
        return self.path / f"{'item' if finished else 'begun'}-{index:08d}"

    def _seal(self, index: int, content: bytes, finished: bool) -> bytes:
        kind = b"" if finished else b"begun"
        return hashlib.sha256(self.digest + kind + index.to_bytes(8, "big") + content).digest()

    # --- files ---

    def _write(self, name: str, content: bytes) -> None:
        made = self.path / f"{name}.{_here()}.{os.getpid()}.{threading.get_ident()}.tmp"
        try:
            try:
                with made.open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                made.replace(self.path / name)
            except BaseException:
                made.unlink(missing_ok=True)
                raise
            _sync(self.path)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> JournalError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        saved = sum(1 for each in self.path.glob("item-????????")) if self.path.is_dir() else 0
        what = f"items of {self.name}" if self.name else "items"
        kept = (
            f"{saved} of {self.items} {what} are saved: {'make room' if full else 'mend that'}, then run the same again"
        )
        reason = "the disk is full" if full else error.strerror or str(error)
        expected = "room for what is finished" if full else "a directory that can be written to"
        return JournalError("resume", self.shown, expected, f"{reason}; {kept}")

    def _clear(self) -> None:
        """Remove what processes of this machine that are no more left half-written, and what was finished since."""
        for file in self.path.glob(f"*.{_here()}.*.tmp"):
            process = file.name.split(".")[-3]
            if process.isdigit() and not _alive(int(process)):
                file.unlink(missing_ok=True)
        for file in self.path.glob("begun-????????"):
            if (self.path / file.name.replace("begun", "item")).exists():
                file.unlink(missing_ok=True)


def digest_of(arrays: Mapping[str, NDArray]) -> str:
    """A short digest of arrays: their names, types, shapes and contents."""
    made = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        made.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        made.update(array.tobytes())
    return made.hexdigest()[:32]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 12 or not isinstance(value, str) else f"{text[:8]}..."


def _here() -> str:
    return "".join(c if c.isalnum() else "-" for c in socket.gethostname())


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync(directory: Path) -> None:
    """Make the renaming itself last; not every system can."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
    finally:
        os.close(handle)


__all__ = ["Journal", "JournalError", "digest_of", "pack", "unpack"]
