"""Which example is meant: errors count the rows that they were given, and users count the rows of their data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from boundcheck.errors import BadInput

_PLACE = re.compile(r"\bx\[(\d+)\]")


@contextmanager
def numbered(numbers: Sequence[int] | Any | None) -> Iterator[None]:
    """Let errors about rows x[i] speak of x[numbers[i]]; None if the rows are the user's own.

    Args:
        numbers: of each row that is worked on, its number in the user's data.

    Raises:
        BadInput: the one that is met, in the user's numbers.

    >>> with numbered([10, 20, 30]):
    ...     raise BadInput("x[1]", "grey", "black or white")
    Traceback (most recent call last):
    ...
    boundcheck.errors.BadInput: x[20] = 'grey': expected black or white
    """

    def told(text: str) -> str:
        return _PLACE.sub(lambda place: _number(place, numbers), text)

    try:
        yield
    except BadInput as error:
        if numbers is None or type(error) is not BadInput:
            raise
        remedy = told(error.remedy)
        raise BadInput(told(error.argument), error.value, told(error.expected), remedy) from error.__cause__


def _number(place: re.Match[str], numbers: Any) -> str:
    row = int(place[1])
    return f"x[{int(numbers[row])}]" if row < len(numbers) else place[0]


__all__ = ["numbered"]
