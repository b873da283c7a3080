"""Frames of nodes, one on top of the other, and the numbers and the laws of a model on each.

Frame 0 holds the models; each bound variable puts a frame on top whose entries are nodes, every one with a parent in
the frame below. Values of a frame are lifted to a higher one along the parents. What is known on a frame is kept with
it, so that it is gone when the frame is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from boundcheck.errors import CannotCompute
from boundcheck.evaluators.quadrature_copies import NAME
from boundcheck.evaluators.quadrature_laws import Line, mapped, plain
from boundcheck.evaluators.quadrature_lines import EPSILON, Array, Index
from boundcheck.language.terms import OBSERVED, Term, Var
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import Density

Family = Callable[[Index | None], ContinuousModel]
"""The model of each entry, given the number of its model (None for a single model)."""


@dataclass
class Number:
    """Values on a frame with bounds on their errors; 0-d where all entries agree."""

    value: Array
    error: Array | float
    level: int


@dataclass
class Frame:
    """Entries with a parent each in the frame below, the number of each entry's model, and what is known on them."""

    size: int
    parent: Index | None
    models: Index | None
    known: dict[Any, Any] = field(default_factory=dict)


Point = list[tuple[int, Any]]
"""The components of a variable's point: the frame on which each lives, and its values there."""


class Frames:
    """A stack of frames over a family of models at one observation each, with the points of bound variables."""

    def __init__(self, family: Family, count: int | None, x: tuple[Any, ...]) -> None:
        self.family = family
        models = None if count is None else np.arange(count)
        self.frames = [Frame(1 if count is None else count, None, models)]
        self.env: dict[Var, Point] = {OBSERVED: [(0, value) for value in x]}
        self.rounding = False

    # --- the stack ---

    @property
    def top(self) -> int:
        """The number of the frame on top."""
        return len(self.frames) - 1

    def level(self, term: Term) -> int:
        """The lowest frame that holds all free variables."""
        return max((level for var in term.free for level, _ in self.env[var]), default=0)

    @contextmanager
    def down_to(self, level: int) -> Iterator[None]:
        """Hide the frames above a level."""
        hidden = self.frames[level + 1 :]
        del self.frames[level + 1 :]
        try:
            yield
        finally:
            self.frames[level + 1 :] = hidden

    @contextmanager
    def bound(self, var: Var, entry: Index, values: Any) -> Iterator[None]:
        """A new frame whose entries stand on `entry` of the frame on top, with one more component of `var`."""
        models = self.frames[-1].models
        size = len(entry)
        self.frames.append(Frame(size, entry, None if models is None else models[entry]))
        before = self.env.get(var, [])
        self.env[var] = [*before, (self.top, values)]
        try:
            yield
        finally:
            self.frames.pop()
            if before:
                self.env[var] = before
            else:
                del self.env[var]

    def lift(self, value: Any, level: int, to: int) -> Any:
        """Values of a frame on a higher frame."""
        if not isinstance(value, np.ndarray) or value.ndim == 0:
            return value
        for frame in self.frames[level + 1 : to + 1]:
            assert frame.parent is not None
            value = value[frame.parent]
        return value

    def full(self, value: Any, level: int) -> Array:
        """Values of a frame on the frame on top, one for each entry."""
        lifted = self.lift(np.asarray(plain(value), dtype=float), level, self.top)
        return np.broadcast_to(lifted, (self.frames[-1].size,))

    def aligned(self, numbers: list[Number]) -> tuple[list[Number], int]:
        """The same numbers on the highest of their frames."""
        level = max(number.level for number in numbers)
        out = [Number(self.lift(n.value, n.level, level), self.lift(n.error, n.level, level), level) for n in numbers]
        return out, level

    # --- numbers ---

    def made(self, value: Any, error: Any, level: int) -> Number:
        """A number just computed, whose own rounding joins its error where a caller asks for it."""
        if self.rounding:
            error = error + 2 * EPSILON * np.where(np.isfinite(value), np.abs(value), 0.0)
        return Number(np.asarray(value), error, level)

    def errors_of(self, number: Number) -> Array | float:
        """A number's errors on the frame on top, one for each entry; 0 if there is none."""
        if np.ndim(number.error) == 0 and float(number.error) == 0.0:
            return 0.0
        return self.full(number.error, number.level)

    # --- points and laws ---

    def point(self, points: tuple[Term, ...] | list[Term]) -> tuple[list[Point], int]:
        """The components of points, and the frame that holds them all."""
        parts = []
        for each in points:
            if not isinstance(each, Var):
                raise CannotCompute(NAME, each.text, "a point must be a variable")
            parts.append(self.env[each])
        return parts, max((level for part in parts for level, _ in part), default=0)

    def model(self, level: int) -> ContinuousModel:
        """The models of a frame's entries, their parameters as arrays over the entries."""
        frame = self.frames[level]
        if "model" not in frame.known:
            frame.known["model"] = self.family(frame.models)
        return frame.known["model"]

    def law(self, role: str, args: tuple[Term, ...], to: int) -> tuple[Density, ...]:
        """The components of a model's law on a frame."""
        parts, level = self.point(args)
        key = ("law", role, *((arg.serial if isinstance(arg, Var) else 0) for arg in args))
        known = self.frames[level].known
        if key not in known:
            known[key] = self.model(level).law(role, [self._argument(part, level) for part in parts])
        if level == to:
            return known[key]
        lifted = self.frames[to].known
        if (key, "lifted") not in lifted:
            lifted[key, "lifted"] = tuple(mapped(law, lambda a: self.lift(a, level, to)) for law in known[key])
        return lifted[key, "lifted"]

    def _argument(self, point: Point, level: int) -> Any:
        """A point as the user's functions take it: a number, or a tuple of numbers."""
        values = tuple(self.lift(value, at, level) for at, value in point)
        return values[0] if len(values) == 1 else values

    def lifted_line(self, line: Line, level: int) -> Line:
        """A line of a frame on the frame on top."""

        def lift(value: Any) -> Any:
            return self.lift(value, level, self.top)

        return Line(
            lift(line.center), lift(line.spread), lift(line.lower), lift(line.upper),
            tuple(lift(kink) for kink in line.kinks), self.lifted_density(line, level),
        )  # fmt: skip

    def lifted_density(self, line: Line, level: int) -> Density | None:
        """The law of a line, its parameters on the frame on top."""
        return None if line.density is None else mapped(line.density, lambda a: self.lift(a, level, self.top))


def times(a: Any, b: Any) -> Any:
    """|a b| for errors: zero where one factor is zero, whatever the other."""
    if np.ndim(a) == 0 and float(a) == 0.0:
        return 0.0
    if np.ndim(b) == 0 and float(b) == 0.0:
        return 0.0
    product = np.abs(a * b)
    return np.where((np.asarray(a) == 0) | (np.asarray(b) == 0), 0.0, product)
