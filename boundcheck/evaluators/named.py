"""Arrays whose axes have names, multisets of copies, and which terms are safer computed through their logarithm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement, islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from boundcheck.language.positions import nonnegative
from boundcheck.language.terms import Apply, Expect, Integrate, Plate, Reduce, Term, Var

Axis: TypeAlias = Var | Plate | str
"""A bound variable, the copies of a plate, or a batch of models."""


@dataclass
class Named:
    """An array whose axes are named by variables, plates or the batch of models."""

    data: NDArray[Any]
    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.data, np.ndarray):  # numpy unwraps arrays without axes
            wrapped = np.empty((), dtype=np.float64 if isinstance(self.data, float) else object)
            wrapped[()] = self.data
            self.data = wrapped


def is_exponential(term: Term) -> bool:
    """True if the term is built from exponentials, so that it is safer computed as exp of its logarithm."""
    if isinstance(term, Apply):
        if term.op == "exp":
            return True
        if term.op == "pow":
            return is_exponential(term.args[0])
        if term.op == "mul":
            return all(nonnegative(arg) for arg in term.args) and any(is_exponential(arg) for arg in term.args)
        return False
    if isinstance(term, Expect | Integrate | Reduce):
        return is_exponential(term.body)
    return False


def multisets(states: int, k: int, rows: int) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
    """Multisets of k of `states` states in chunks: sorted entries (rows, k), and the number of orderings of each."""
    everything = combinations_with_replacement(range(states), k)
    while block := list(islice(everything, rows)):
        entries = np.array(block, dtype=np.intp)
        orderings = np.empty(len(block), dtype=object)
        total = math.factorial(k)
        for i, row in enumerate(block):
            ways, run = total, 1
            for j in range(1, k):
                run = run + 1 if row[j] == row[j - 1] else 1
                ways //= run
            orderings[i] = ways
        yield entries, orderings
