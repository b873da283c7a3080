"""What a user's callable returned: as plain numbers, how exact its type is, and what to say where it is no number."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import numpy as np

from boundcheck.errors import require


def plain(result: Any) -> Any:
    """A torch tensor as an array; an array without axes as its number; anything else as it is."""
    if hasattr(result, "detach") and hasattr(result, "cpu"):
        result = result.detach().cpu()
        result = (result.double() if result.is_floating_point() else result).numpy()
    if isinstance(result, np.ndarray) and result.ndim == 0:
        return result[()]
    return result


def epsilon(result: Any) -> float:
    """The machine epsilon of the type of a result; that of float64 where it is not told."""
    kind = getattr(result, "dtype", None)
    if isinstance(kind, np.dtype) and kind.kind == "f":
        return float(np.finfo(kind).eps)
    if type(result).__module__ == "torch" and result.is_floating_point():
        return float(require("torch", "torch", "a torch objective").finfo(kind).eps)
    return float(np.finfo(np.float64).eps)


def described(result: Any) -> str:
    """What was returned in the place of a number, for a message."""
    if isinstance(result, np.ndarray):
        return f"an array of shape {result.shape}"
    return "nothing" if result is None else f"{type(result).__name__} {result!r}"[:80]


def place(error: BaseException, file: str) -> str:
    """Where in a user's file an error arose, for a message; "" if it arose elsewhere."""
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    return f" (line {lines[-1]} of {Path(file).name})" if lines else ""


__all__ = ["described", "epsilon", "place", "plain"]
