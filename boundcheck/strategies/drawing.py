"""What the strategies share: sizes as users write them, and corners as events of Hypothesis."""

from __future__ import annotations

from typing import Any, TypeAlias

from hypothesis import event

from boundcheck.errors import BadInput
from boundcheck.evaluators.strongest import Model
from boundcheck.search.corners import corners_of

Size: TypeAlias = int | tuple[int, int]
"""The largest number, or a pair of the smallest and the largest."""


def sizes_of(name: str, value: Any, least: int) -> tuple[int, int]:
    """The smallest and the largest number that an argument allows.

    Raises:
        BadInput: what is neither a whole number of at least `least` nor a pair of such numbers.
    """
    low, high = least, value
    if isinstance(value, tuple) and len(value) == 2:
        low, high = value
    for each in (low, high):
        if isinstance(each, bool) or not isinstance(each, int) or each < least:
            raise BadInput(name, value, f"a whole number of at least {least}, or a pair of such numbers")
    if low > high:
        raise BadInput(name, value, "a pair of the smallest and the largest number")
    return low, high


def tell_corners(model: Model, x: Any = 0) -> None:
    """Name the corners of a drawn model as events, for `--hypothesis-show-statistics`."""
    for name, met in corners_of(model, x).items():
        if met:
            event(f"boundcheck corner: {name}")


__all__ = ["Size", "sizes_of", "tell_corners"]
