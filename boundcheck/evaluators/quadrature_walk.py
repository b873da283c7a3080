"""The traversal of the quadrature evaluator: frames of nodes, one on top of the other.

Frame 0 holds the models; each bound variable puts a frame on top whose entries are nodes, every one with a parent in
the frame below. A sub-term is evaluated on the lowest frame that holds all its free variables, so nothing is computed
more often than it differs. An integral over a new variable is a batch of one-dimensional integrals, one for each
entry of the frame it stands on (`quadrature_panels`). Numbers come with bounds on their errors, which the operations
pass on; a number's own rounding is added only where a caller asks for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from boundcheck.errors import BadInput, CannotCompute
from boundcheck.evaluators.quadrature_copies import LEVEL, NAME, LogOfCopies
from boundcheck.evaluators.quadrature_lines import EPSILON, Array, Index, Integrals, Lines, Sample
from boundcheck.evaluators.quadrature_panels import Effort, integrate_lines
from boundcheck.evaluators.quadrature_rounding import rounding_of
from boundcheck.language.laws import DensityLaw, Law, ModelLaw, expand
from boundcheck.language.positions import nonnegative
from boundcheck.language.terms import (
    CORRUPTED,
    OBSERVED,
    Apply,
    Const,
    Expect,
    Integrate,
    LogDensity,
    Reduce,
    Term,
    Var,
    X,
    Z,
    multiply,
)
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import BernoulliLogit, Binomial, Density, Discrete, Normal, Uniform

Family = Callable[[Index | None], ContinuousModel]
"""The model of each entry, given the number of its model (None for a single model)."""

_EULER = 0.57721566490153286


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


@dataclass
class Line:
    """One component of a variable: where its mass is, on the current frame; `log_weight` is None for bare integrals."""

    center: Any
    spread: Any
    lower: Any = None
    upper: Any = None
    kinks: tuple[Any, ...] = ()
    density: Density | None = None


class Walk:
    """Evaluates simplified terms for a family of models at one observation each."""

    def __init__(self, family: Family, count: int | None, x: tuple[Any, ...], tolerance: float, effort: Effort) -> None:
        self.family = family
        self.tolerance = tolerance
        self.effort = effort
        models = None if count is None else np.arange(count)
        self.frames = [Frame(1 if count is None else count, None, models)]
        self.env: dict[Var, Point] = {OBSERVED: [(0, value) for value in x]}
        self.rounding = False
        self.kept: list[Term] = []

    # --- frames ---

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
        lifted = self.lift(np.asarray(_plain(value), dtype=float), level, self.top)
        return np.broadcast_to(lifted, (self.frames[-1].size,))

    def aligned(self, numbers: list[Number]) -> tuple[list[Number], int]:
        """The same numbers on the highest of their frames."""
        level = max(number.level for number in numbers)
        out = [Number(self.lift(n.value, n.level, level), self.lift(n.error, n.level, level), level) for n in numbers]
        return out, level

    # --- terms ---

    def value(self, term: Term) -> Number:
        """The term on its own frame."""
        return self._known(term, False, self._value)

    def log_value(self, term: Term) -> Number:
        """The logarithm of a term that is non-negative by its form."""
        return self._known(term, True, self._log_value)

    def _known(self, term: Term, logged: bool, compute: Callable[[Term], Number]) -> Number:
        level = self.level(term)
        known = self.frames[level].known
        key = (id(term), logged, self.rounding)
        if key not in known:
            with self.down_to(level):
                known[key] = (term, compute(term))  # the term is kept, so that its id stays its own
        return known[key][1]

    def _made(self, value: Any, error: Any, level: int) -> Number:
        if self.rounding:
            error = error + 2 * EPSILON * np.where(np.isfinite(value), np.abs(value), 0.0)
        return Number(np.asarray(value), error, level)

    def _value(self, term: Term) -> Number:
        if isinstance(term, Const):
            return self._made(np.array(float(term.value)), 0.0, 0)
        if isinstance(term, LogDensity):
            return self._log_density(term) if isinstance(term.law, ModelLaw) else self.value(self._expanded(term))
        if isinstance(term, Expect | Integrate):
            if nonnegative(term.body) and _through_exp(term.body):
                return self._exp(self.log_value(term))
            return self._integral(term, logged=False)
        if isinstance(term, LogOfCopies):
            return self._log_of_copies(term)
        if isinstance(term, Apply):
            return self._apply(term)
        if isinstance(term, Var):
            if len(self.env[term]) > 1:
                raise CannotCompute(NAME, term.text, "a vector is not a number")
            ((level, values),) = self.env[term]
            return self._made(np.asarray(_plain(values), dtype=float), 0.0, level)
        raise CannotCompute(NAME, term.text, "copies outside an expectation over them")

    def _expanded(self, term: LogDensity) -> Term:
        known = self.frames[0].known
        key = ("expanded", id(term))
        if key not in known:
            known[key] = (term, expand(term))
        return known[key][1]

    def _apply(self, term: Apply) -> Number:
        op, args = term.op, term.args
        if op == "log":
            if nonnegative(args[0]):
                return self.log_value(args[0])
            return self._log(self.value(args[0]))
        if op == "exp":
            return self._exp(self.value(args[0]))
        if op == "survival":
            return self._exp(self.log_value(term))
        if op == "pow":
            exponent = args[1]
            assert isinstance(exponent, Const)
            if nonnegative(args[0]) and _through_exp(args[0]):
                return self._exp(self.log_value(term))
            return self._power(self.value(args[0]), float(exponent.value))
        numbers, level = self.aligned([self.value(arg) for arg in args])
        total = numbers[0]
        for number in numbers[1:]:
            if op == "add":
                total = self._made(total.value + number.value, total.error + number.error, level)
            elif op == "mul":
                total = self._product(total, number, level)
            elif op in ("max", "min"):
                choose = np.maximum if op == "max" else np.minimum
                total = self._made(choose(total.value, number.value), np.maximum(total.error, number.error), level)
            else:
                raise CannotCompute(NAME, term.text, f"{op!r} compares points of a continuous space")
        return total

    def _product(self, a: Number, b: Number, level: int) -> Number:
        value = a.value * b.value
        # An infinity stays one, whatever the rounding of the other factor.
        error = _times(a.error, _finite(b.value)) + _times(b.error, _finite(a.value)) + _times(a.error, b.error)
        return self._made(value, error, level)

    def _power(self, a: Number, exponent: float) -> Number:
        value = np.power(a.value, exponent)
        nearby = np.maximum(np.abs(a.value) - a.error, 1e-300) if exponent < 1 else np.abs(a.value) + a.error
        slope = np.abs(exponent) * np.power(nearby, exponent - 1)
        return self._made(value, _times(a.error, slope), a.level)

    def _exp(self, a: Number) -> Number:
        value = np.exp(a.value)
        return self._made(value, _times(value, np.expm1(np.minimum(a.error, 700.0))), a.level)

    def _log(self, a: Number) -> Number:
        ratio = np.divide(a.error, np.abs(a.value))
        error = np.where(np.asarray(a.error) == 0, 0.0, np.where(ratio < 1, -np.log1p(-np.minimum(ratio, 1)), np.inf))
        return self._made(np.log(a.value), error, a.level)

    # --- logarithms of non-negative terms ---

    def _log_value(self, term: Term) -> Number:
        if isinstance(term, Expect | Integrate):
            return self._integral(term, logged=True)
        if isinstance(term, Apply):
            op, args = term.op, term.args
            if op == "exp":
                return self.value(args[0])
            if op == "survival":
                return self._survival(self.value(args[0]))
            if op == "mul" and all(nonnegative(arg) for arg in args):
                numbers, level = self.aligned([self.log_value(arg) for arg in args])
                return self._made(sum(n.value for n in numbers), sum(n.error for n in numbers), level)
            if op == "pow" and nonnegative(args[0]):
                exponent = args[1]
                assert isinstance(exponent, Const)
                power, base = float(exponent.value), self.log_value(args[0])
                return self._made(power * base.value, abs(power) * base.error, base.level)
            if op in ("max", "min") and all(nonnegative(arg) for arg in args):
                numbers, level = self.aligned([self.log_value(arg) for arg in args])
                choose = np.maximum if op == "max" else np.minimum
                value, error = numbers[0].value, numbers[0].error
                for number in numbers[1:]:
                    value, error = choose(value, number.value), np.maximum(error, number.error)
                return self._made(value, error, level)
            if op == "add" and all(nonnegative(arg) for arg in args):
                numbers, level = self.aligned([self.log_value(arg) for arg in args])
                value, error = numbers[0].value, numbers[0].error
                for number in numbers[1:]:
                    value, error = np.logaddexp(value, number.value), np.maximum(error, number.error)
                return self._made(value, error, level)
        return self._log(self.value(term))

    def _survival(self, a: Number) -> Number:
        """log(1 - exp(-exp(a))), whose slope lies in [0, 1]."""
        grown = np.exp(np.minimum(a.value, 50.0))
        value = np.where(a.value < -30.0, a.value - grown / 2, np.log(-np.expm1(-grown)))
        return self._made(value, np.asarray(a.error) * np.ones_like(value), a.level)

    # --- densities ---

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
            lifted[key, "lifted"] = tuple(_mapped(law, lambda a: self.lift(a, level, to)) for law in known[key])
        return lifted[key, "lifted"]

    def _argument(self, point: Point, level: int) -> Any:
        """A point as the user's functions take it: a number, or a tuple of numbers."""
        values = tuple(self.lift(value, at, level) for at, value in point)
        return values[0] if len(values) == 1 else values

    def _log_density(self, term: LogDensity) -> Number:
        law = term.law
        assert isinstance(law, ModelLaw)
        level = self.level(term)
        try:
            if law.role == "joint":
                x, z = term.point
                parts = [(self.law("prior", (), level), z), (self.law("likelihood", (z,), level), x)]
            else:
                parts = [(self.law(law.role, law.args, level), term.point[0])]
            return self._densities(parts, level, term)
        except BadInput:
            if level == 0 or self.frames[level].size == 1 or "narrowed" in self.frames[level].known:
                raise
            return self._piecewise(term, level)

    def _densities(self, parts: list[tuple[tuple[Density, ...], Term]], level: int, term: Term) -> Number:
        total: Any = 0.0
        error: Any = 0.0
        for laws, point in parts:
            assert isinstance(point, Var)
            components = self.env[point]
            if len(laws) != len(components):
                raise BadInput(
                    point.name, len(components), f"a point of {len(laws)} components, as {term.text} has",
                    "make the law and the point of one length",
                )  # fmt: skip
            for law, (at, values) in zip(laws, components, strict=True):
                v = self.lift(values, at, level)
                part = np.asarray(law.log_density(v), dtype=float)
                total = total + part
                if not isinstance(law, Uniform | Discrete) and np.isneginf(part).any():
                    # A density that is positive everywhere has overflowed: its logarithm is finite, but unknown.
                    error = error + np.where(np.isneginf(part), np.inf, 0.0)
                if self.rounding:
                    error = error + rounding_of(law, v)
        return self._made(total, error, level)

    def _piecewise(self, term: LogDensity, level: int) -> Number:
        """The density entry by entry where a parameter has no value at some of them: nan there, never a guess.

        A decoder may overflow at nodes that lie far out; it is a mistake only if it does so everywhere.
        """
        frame = self.frames[level]
        value = np.full(frame.size, np.nan)
        error = np.zeros(frame.size)
        own = [v for var in term.free for at, v in self.env[var] if at == level and isinstance(v, np.ndarray)]
        order = np.argsort(np.abs(own[0]), kind="stable") if own else np.arange(frame.size)

        def attempt(rows: Index) -> bool:
            saved_env, saved_frame = dict(self.env), self.frames[level]
            models = None if frame.models is None else frame.models[rows]
            assert frame.parent is not None
            self.frames[level] = Frame(len(rows), frame.parent[rows], models, {"narrowed": True})
            for var in term.free:
                self.env[var] = [
                    (at, v[rows] if at == level and isinstance(v, np.ndarray) else v) for at, v in self.env[var]
                ]
            try:
                part = self._log_density(term)
                value[rows] = part.value
                error[rows] = part.error
                return True
            except BadInput:
                return False
            finally:
                self.env, self.frames[level] = saved_env, saved_frame

        if not attempt(order[:1]):
            with self._one(level, order[:1], term):
                self._log_density(term)
        pending = [order]
        for _ in range(400):
            if not pending:
                break
            rows = pending.pop(0)
            if attempt(rows) or len(rows) == 1:
                continue
            pending += [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
        return Number(value, error, level)

    @contextmanager
    def _one(self, level: int, rows: Index, term: Term) -> Iterator[None]:
        """Only some entries of a frame, so that the user's mistake is reported at one of them."""
        saved_env, frame = dict(self.env), self.frames[level]
        assert frame.parent is not None
        models = None if frame.models is None else frame.models[rows]
        self.frames[level] = Frame(len(rows), frame.parent[rows], models, {"narrowed": True})
        for var in term.free:
            self.env[var] = [
                (at, v[rows] if at == level and isinstance(v, np.ndarray) else v) for at, v in self.env[var]
            ]
        try:
            yield
        finally:
            self.env, self.frames[level] = saved_env, frame

    # --- integrals ---

    def _integral(self, term: Expect | Integrate, logged: bool) -> Number:
        with self.down_to(self.level(term)):
            var, body = term.var, term.body
            if isinstance(term, Expect):
                law = term.law
                if isinstance(law, ModelLaw):
                    lines = [_line(density) for density in self.law(law.role, law.args, self.top)]
                    result = self._component(var, lines, 0, body, None, logged)
                else:
                    weight = self._weight(law, var)
                    result = self._component(var, self._space(var), 0, body, weight, logged)
            else:
                lines = [dataclasses.replace(line, density=None) if line.density is None or not line.density.discrete
                         else line for line in self._space(var)]  # fmt: skip
                result = self._component(var, lines, 0, body, None, logged)
            return result

    def _weight(self, law: Law, var: Var) -> Term:
        assert isinstance(law, DensityLaw)
        point = LogDensity(law, (var,))
        if law.rescale:
            mass = Apply("log", (Integrate(law.var, Apply("exp", (law.log_density,))),))
            self.kept.append(mass)
            total = self.value(mass)
            if np.isposinf(total.value).any():
                raise CannotCompute(NAME, str(law), "the density is improper: its integral is infinite")
            if np.isneginf(total.value).any():
                raise CannotCompute(NAME, str(law), "the density is zero everywhere that was looked at")
            weight = Apply("add", (self._expand_body(law, var), multiply(-1, mass)))
        else:
            weight = expand(point)
        self.kept.append(weight)
        return weight

    def _expand_body(self, law: DensityLaw, var: Var) -> Term:
        return expand(LogDensity(DensityLaw(law.var, law.log_density, False), (var,)))

    def _space(self, var: Var) -> list[Line]:
        """Where the mass over a space may be expected: the prior for z, the corruption for x~."""
        space = var.space
        if space.bounds is not None:
            low, high = (float(end) for end in space.bounds)
            return [Line((low + high) / 2, (high - low) / 4, low, high)]
        if space == Z:
            laws = self.law("prior", (), self.top)
        elif space == CORRUPTED:
            laws = self.law("corruption", (OBSERVED,), self.top)
        elif space == X:
            raise CannotCompute(NAME, f"an integral over {var.name}", "the space of observations has no base law here")
        else:
            raise CannotCompute(NAME, f"an integral over {var.name}", f"the space {space.name} has no bounds")
        lines = [_line(law) for law in laws]
        return [
            line if law.discrete else dataclasses.replace(line, density=None)
            for line, law in zip(lines, laws, strict=True)
        ]

    def _component(self, var: Var, lines: list[Line], i: int, body: Term, weight: Term | None, logged: bool) -> Number:
        """The integral over components i, i+1, ... of a variable, on the frame on top.

        `weight` is the log-density of a law that is not a product; it joins in at the last component.
        """
        line, last = lines[i], i == len(lines) - 1
        if line.density is not None and line.density.discrete:
            return self._sum(var, lines, i, body, weight, logged)
        base_level = self.top

        def integrand(entry: Index, v: Array, rounding: bool) -> Sample:
            saved, self.rounding = self.rounding, rounding
            try:
                with self.bound(var, entry, v):
                    later = [self._lifted_line(each, base_level) for each in lines]
                    log_weight, log_error = self._log_weight(later[i], v, weight if last else None)
                    inner = (
                        (self.log_value(body) if logged else self.value(body))
                        if last
                        else self._component(var, later, i + 1, body, weight, logged)
                    )
                    value, error = self.full(inner.value, inner.level), self._errors(inner)
                    if logged:
                        total = np.where(np.isneginf(log_weight), -np.inf, log_weight + value)
                        return Sample(total, None, _summed(log_error, error), 0.0)
                    value = np.where(np.isneginf(log_weight), 0.0, value)
                    return Sample(np.broadcast_to(log_weight, value.shape), value, log_error, error)
            finally:
                self.rounding = saved

        where = self._where(var, line, body, weight, lines, i)
        effort = self._effort(body, len(lines) - 1 - i)
        results = integrate_lines(integrand, where, self.tolerance, effort, signed=not logged)
        return self._finished(results, logged, body)

    def _errors(self, number: Number) -> Array | float:
        if np.ndim(number.error) == 0 and float(number.error) == 0.0:
            return 0.0
        return self.full(number.error, number.level)

    def _effort(self, body: Term, components_left: int) -> Effort:
        below = components_left + _depth(body)
        return self.effort.within(min(1 << 14, (1 << 19) // 200**below))

    def _lifted_line(self, line: Line, level: int) -> Line:
        def lift(value: Any) -> Any:
            return self.lift(value, level, self.top)

        return Line(
            lift(line.center), lift(line.spread), lift(line.lower), lift(line.upper),
            tuple(lift(kink) for kink in line.kinks), None if line.density is None else _mapped(line.density, lift),
        )  # fmt: skip

    def _log_weight(self, line: Line, v: Array, weight: Term | None) -> tuple[Array, Array | float]:
        total: Any = np.zeros(len(v))
        error: Any = 0.0
        if line.density is not None:
            total = np.broadcast_to(np.asarray(line.density.log_density(v), dtype=float), v.shape)
            if self.rounding:
                error = rounding_of(line.density, v)
        if weight is not None:
            number = self.value(weight)
            total = total + self.full(number.value, number.level)
            error = _summed(error, self._errors(number))
        return total, error

    def _sum(self, var: Var, lines: list[Line], i: int, body: Term, weight: Term | None, logged: bool) -> Number:
        """The exact sum over the points of a discrete component."""
        density, last, base = lines[i].density, i == len(lines) - 1, self.top
        assert density is not None
        points, logs = _table(density)
        bare = weight is not None
        count, size = len(points), self.frames[-1].size
        entry = np.tile(np.arange(size), count)
        values = np.repeat(points, size)
        with self.bound(var, entry, values):
            later = [self._lifted_line(each, base) for each in lines]
            inner = (
                (self.log_value(body) if logged else self.value(body))
                if last
                else self._component(var, later, i + 1, body, weight, logged)
            )
            value = self.full(inner.value, inner.level).reshape(count, size)
            wrong = np.broadcast_to(self._errors(inner), entry.shape).reshape(count, size)
            log_weight: Array = np.zeros((count, size))
            if not bare:
                log_weight = np.stack([np.broadcast_to(log, (size,)) for log in logs])
            elif last and weight is not None:
                number = self.value(weight)
                log_weight = log_weight + self.full(number.value, number.level).reshape(count, size)
                wrong = wrong + np.broadcast_to(self._errors(number), entry.shape).reshape(count, size)
        gone = np.isneginf(log_weight)
        if logged:
            terms = np.where(gone, -np.inf, log_weight + value)
            return self._made(np.logaddexp.reduce(terms, axis=0), np.where(gone, 0, wrong).max(axis=0), base)
        share = np.exp(log_weight)
        terms = np.where(gone, 0.0, share * value)
        slack = np.where(gone, 0.0, share * wrong).sum(axis=0) + 8 * EPSILON * np.abs(terms).sum(axis=0)
        return self._made(terms.sum(axis=0), slack, base)

    def _finished(self, results: Integrals, logged: bool, body: Term) -> Number:
        level = self.top
        undecided = results.undecided
        if undecided.any() and level == 0 and self.frames[0].models is None:
            raise CannotCompute(
                NAME, text_of(body), "its integral diverges or converges too slowly for float64 to tell"
            )
        if logged:
            value = results.scale + np.log(results.total)
            ratio = results.error / results.total
            # No mass where it was looked for: perhaps there is none, perhaps it was missed or lost to underflow.
            error = np.where(ratio < 1, -np.log1p(-np.minimum(ratio, 1.0)), np.inf)
            value = np.where(results.total <= 0, -np.inf, value)
        else:
            value = results.total * np.exp(results.scale)
            error = results.error * np.exp(results.scale)
            value = np.where(results.total == 0, 0.0, value)
            error = np.where(results.error == 0, 0.0, error)
        value = np.where(results.infinite != 0, results.infinite * np.inf, value)
        error = np.where(results.infinite != 0, 0.0, np.where(undecided, np.inf, error))
        error = np.where(np.isnan(error), np.inf, error)
        return Number(value, error, level)

    # --- copies ---

    def _log_of_copies(self, term: LogOfCopies) -> Number:
        """-gamma - c + integral over u of (1[u < c] - exp(-e^u b) (1 - D(u))^K), for any c."""
        level = self.top
        size = self.frames[-1].size
        other = None if term.also is None else self.value(term.also)
        also = np.full(size, -np.inf) if other is None else self.full(other.value, other.level)
        typical = self._typical(term)
        log_sum = np.logaddexp(np.where(np.isfinite(typical), typical, 0.0) + np.log(term.size), also)
        center = -log_sum

        def integrand(entry: Index, u: Array, rounding: bool) -> Sample:
            saved, self.rounding = self.rounding, rounding
            try:
                with self.bound(term.var, entry, u):
                    log_survival = self.log_value(term.body)
                    log_d = self.full(log_survival.value, log_survival.level)
                    error = np.broadcast_to(self._errors(log_survival), u.shape)
                    d = np.exp(np.minimum(log_d, 0.0))
                    logs = term.size * np.log1p(-d) - np.exp(np.minimum(u + also[entry], 50.0))
                    left = u < center[entry]
                    value = np.where(left, -np.expm1(logs), -np.exp(logs))
                    wrong_d = _times(d, np.expm1(np.minimum(error, 50.0)))
                    power = (term.size - 1) * np.log1p(-np.maximum(d - wrong_d, 0.0))
                    wrong = term.size * np.exp(power) * wrong_d + 4 * EPSILON * np.abs(value)
                    return Sample(np.zeros(len(u)), value, 0.0, wrong)
            finally:
                self.rounding = saved

        one = np.ones((size, 1))
        where = Lines(center[:, None], one, center[:, None], -np.inf * one[:, 0], np.inf * one[:, 0])
        effort = self.effort.within(min(1 << 14, (1 << 19) // 200 ** _depth(term.body)))
        results = integrate_lines(integrand, where, self.tolerance, effort, signed=True)
        number = self._finished(results, False, term.body)
        slack = 0.0 if other is None else np.where(np.isneginf(also), 0.0, self._errors(other))
        value = number.value - _EULER - center
        return Number(value, number.error + slack + 4 * EPSILON * (1 + np.abs(center) + np.abs(value)), level)

    def _typical(self, term: LogOfCopies) -> Array:
        """log a at the centers of the laws of one copy."""
        size = self.frames[-1].size
        with self._centered(term.members):
            number = self.value(term.typical)
            return np.array(self.full(number.value, number.level)[:size])

    @contextmanager
    def _centered(self, members: tuple[tuple[Law, Var], ...]) -> Iterator[None]:
        """Each variable put at the center of its law."""
        saved = dict(self.env)
        try:
            for law, var in members:
                self.env[var] = [
                    (self.top, np.broadcast_to(np.asarray(_plain(center), dtype=float), (self.frames[-1].size,)))
                    for center in self.centers(law, var)
                ]
            self.frames.append(Frame(self.frames[-1].size, np.arange(self.frames[-1].size), self.frames[-1].models))
            for _, var in members:
                self.env[var] = [(self.top, value) for _, value in self.env[var]]
            yield
        finally:
            self.frames.pop()
            self.env = saved

    def centers(self, law: Law, var: Var) -> list[Any]:
        """The centers of a law's components on the frame on top."""
        if isinstance(law, ModelLaw):
            return [_line(density).center for density in self.law(law.role, law.args, self.top)]
        return [line.center for line in self._space(var)]

    def _where(self, var: Var, line: Line, body: Term, weight: Term | None, lines: list[Line], i: int) -> Lines:
        from boundcheck.evaluators.quadrature_features import where

        return where(self, var, line, body, weight, lines, i)


def text_of(term: Term) -> str:
    """The term as text; what this evaluator made for itself has none."""
    try:
        return term.text
    except AssertionError:
        return "an expectation over copies"


def _line(density: Density) -> Line:
    if isinstance(density, Discrete | BernoulliLogit | Binomial):
        middle = density.points[0] if isinstance(density, Discrete) else 0.0
        return Line(float(middle), 1.0, density=density)
    if density.discrete:
        raise CannotCompute(NAME, repr(density), "an infinite sum; only finite discrete laws are summed")
    lower, upper = density.interval()
    return Line(density.center(), density.spread(), lower, upper, tuple(density.kinks()), density)


def _table(density: Density) -> tuple[Array, list[Any]]:
    """Points of a finite discrete law and their log-probabilities."""
    if isinstance(density, Discrete):
        probabilities = [np.asarray(_plain(p), dtype=float) for p in density.probabilities]
        return np.array([float(p) for p in density.points]), [np.log(p) for p in probabilities]
    if isinstance(density, BernoulliLogit):
        return np.array([0.0, 1.0]), [density.log_density(v) for v in (0, 1)]
    assert isinstance(density, Binomial)
    if np.ndim(density.n):
        raise CannotCompute(NAME, repr(density), "sums over a binomial law need one number of trials")
    counts = range(int(density.n) + 1)
    return np.array(counts, dtype=float), [density.log_density(v) for v in counts]


def _mapped(density: Any, function: Callable[[Any], Any]) -> Any:
    """A density with its array parameters mapped; they were checked when it was made."""
    if isinstance(density, tuple):
        return tuple(_mapped(each, function) for each in density)
    if isinstance(density, np.ndarray):
        return function(density)
    if isinstance(density, dict):
        return {key: _mapped(each, function) for key, each in density.items()}
    if not isinstance(density, Density) or not dataclasses.is_dataclass(density):
        return density
    values = {f.name: getattr(density, f.name) for f in dataclasses.fields(density)}
    if not any(isinstance(v, np.ndarray | tuple | dict | Density) for v in values.values()):
        return density
    copy = object.__new__(type(density))
    for name, value in values.items():
        object.__setattr__(copy, name, _mapped(value, function))
    return copy


def _plain(value: Any) -> Any:
    """An exact rational as a float."""
    return value if isinstance(value, np.ndarray) else float(value)


def _through_exp(term: Term) -> bool:
    """True if a non-negative term is built from exponentials, so that its logarithm is the safer way."""
    if isinstance(term, Apply):
        if term.op in ("exp", "survival"):
            return True
        return term.op in ("mul", "pow") and any(_through_exp(arg) for arg in term.args)
    return isinstance(term, Expect | Integrate | Reduce) and _through_exp(term.body)


def _depth(term: Term) -> int:
    below = max((_depth(child) for child in term.children), default=0)
    return below + isinstance(term, Expect | Integrate | LogOfCopies)


def _times(a: Any, b: Any) -> Any:
    """|a b| for errors: zero where one factor is zero, whatever the other."""
    if np.ndim(a) == 0 and float(a) == 0.0:
        return 0.0
    if np.ndim(b) == 0 and float(b) == 0.0:
        return 0.0
    product = np.abs(a * b)
    return np.where((np.asarray(a) == 0) | (np.asarray(b) == 0), 0.0, product)


def _finite(a: Any) -> Any:
    return np.where(np.isinf(a), 0.0, a)


def _summed(a: Array | float, b: Array | float) -> Array | float:
    return a + b


__all__ = ["LEVEL", "Normal", "Number", "Uniform", "Walk"]
