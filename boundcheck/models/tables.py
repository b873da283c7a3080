"""Reading and checking tables of probabilities: every entry a rational, every row summing to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput
from boundcheck.language.numerals import exact_fraction

Entries: TypeAlias = Sequence[Any] | NDArray[Any]

FLOAT_ROW_TOLERANCE = Fraction(1, 10**9)
"""A row with float entries that sums to one within this is divided by its sum; other rows must sum to exactly one."""

_REMEDY = "give probabilities as ints, Fractions, decimal text or floats, each row summing to one"

_EXACT_LIMIT = 4096
"""A table of floats with more entries than this stays floating: exact arithmetic on it would be hopeless anyway."""


def parse_table(name: str, entries: object) -> NDArray[Any]:
    """Entries as an array of Fractions, or of floats for a large table of floats.

    Raises:
        BadInput: naming the entry that is no probability, or a ragged or empty table.
    """
    if isinstance(entries, np.ndarray) and entries.dtype.kind == "f" and entries.size > _EXACT_LIMIT:
        bad = ~(np.isfinite(entries) & (entries >= 0))
        if bad.any():
            index = tuple(int(i) for i in np.argwhere(bad)[0])
            raise BadInput(_place(name, index), float(entries[index]), "a probability >= 0", _REMEDY)
        return np.ascontiguousarray(entries, dtype=np.float64)
    nested = entries.tolist() if isinstance(entries, np.ndarray) else entries
    if isinstance(nested, str | bytes | Mapping) or not isinstance(nested, Sequence):
        raise BadInput(name, entries, "nested lists of probabilities", _REMEDY)
    flat: list[_Entry] = []
    shape = _flatten(name, nested, (), flat)
    if len(flat) > _EXACT_LIMIT and any(entry.rounded for entry in flat):
        return np.array([float(entry) for entry in flat]).reshape(shape)
    table = np.empty(len(flat), dtype=object)
    table[:] = flat
    return table.reshape(shape)


_MOST_AXES = 32
"""Nesting of a table: one axis for each variable."""


class _Entry(Fraction):
    """A rational that remembers whether it was written as a float, whose rounding a row may make up for."""

    rounded = False

    def __repr__(self) -> str:
        return str(self)


def written_float(text: str) -> _Entry:
    """A decimal of a file, exactly as it is written, which a row may yet take for rounded."""
    entry = _Entry(exact_fraction(text))
    entry.rounded = True
    return entry


def _flatten(name: str, nested: Any, index: tuple[int, ...], out: list[_Entry]) -> tuple[int, ...]:
    if isinstance(nested, np.ndarray):  # a list of arrays
        nested = nested.tolist()
    if isinstance(nested, Sequence) and not isinstance(nested, str | bytes):
        if not nested:
            raise BadInput(_place(name, index), nested, "at least one entry", _REMEDY)
        if len(index) == _MOST_AXES:
            raise BadInput(name, nested, f"at most {_MOST_AXES} axes", "flatten some variables into one")
        shapes = {_flatten(name, entry, (*index, i), out) for i, entry in enumerate(nested)}
        if len(shapes) > 1:
            lengths = sorted(shapes)
            raise BadInput(_place(name, index), nested, f"rows of one length, not of shapes {lengths}", _REMEDY)
        return (len(nested), *shapes.pop())
    out.append(_entry(name, nested, index))
    return ()


def _entry(name: str, value: Any, index: tuple[int, ...]) -> _Entry:
    remedy = _REMEDY
    try:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool):
            raise TypeError
        if isinstance(value, _Entry):
            entry = value
        else:
            entry = _Entry(exact_fraction(value))
            entry.rounded = isinstance(value, float)
    except (TypeError, ValueError, ZeroDivisionError):
        raise BadInput(_place(name, index), value, "a finite number", remedy) from None
    if entry < 0:
        raise BadInput(_place(name, index), value, "a probability >= 0", remedy)
    return entry


def _place(name: str, index: tuple[int, ...]) -> str:
    return name + "".join(f"[{i}]" for i in index)


def checked_rows(name: str, rows: NDArray[Any]) -> NDArray[Any]:
    """Rows that sum to one, exactly; float rows are divided by their sum if it is one up to rounding."""
    if rows.dtype != object:
        sums = rows.sum(axis=1)
        bad = np.abs(sums - 1) > float(FLOAT_ROW_TOLERANCE)
        if bad.any():
            row = int(np.argmax(bad))
            raise BadInput(f"the sum of row {row} of {name}", float(sums[row]), "1", _REMEDY)
        rounding = rows.shape[1] * np.finfo(np.float64).eps  # a row that is right already stays as it is
        return rows / np.where(np.abs(sums - 1) > rounding, sums, 1.0)[:, None]
    out = np.empty(rows.shape, dtype=object)
    for i, row in enumerate(rows):
        total = sum((Fraction(entry) for entry in row), Fraction(0))
        rounded = any(entry.rounded for entry in row)
        if total != 1 and not (rounded and abs(total - 1) <= FLOAT_ROW_TOLERANCE):
            place = f"the sum of row {i} of {name}" if len(rows) > 1 else f"the sum of {name}"
            shown = float(total) if total.denominator > 10**6 and total < 10**6 else total
            raise BadInput(place, shown if isinstance(shown, float) else str(shown), "1", _REMEDY)
        out[i] = [Fraction(entry) / total for entry in row]
    return out


def require_axes(name: str, table: NDArray[Any], at_least: int) -> None:
    """Refuse a table of too few axes."""
    if table.ndim < at_least:
        raise BadInput(f"the shape of {name}", table.shape, f"at least {at_least} axes", "nest the lists one deeper")


def require_shape(name: str, table: NDArray[Any], shape: tuple[int | None, ...], what: str) -> None:
    """Refuse a table of another shape; None stands for any number of states."""
    fits = table.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, table.shape, strict=True))
    if not fits:
        wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
        raise BadInput(f"the shape of {name}", table.shape, f"{wanted}: {what}", "check the order of the axes")


__all__ = [
    "FLOAT_ROW_TOLERANCE",
    "Entries",
    "checked_rows",
    "parse_table",
    "require_axes",
    "require_shape",
    "written_float",
]
