"""The traversal of the quadrature evaluator: every sub-term on its own frame of nodes.

A sub-term is evaluated on the lowest frame that holds all its free variables (`quadrature_frames`), so nothing is
computed more often than it differs. An integral over a new variable is a batch of one-dimensional integrals, one for
each entry of the frame it stands on (`quadrature_panels`). Numbers come with bounds on their errors, which the
operations pass on; a number's own rounding is added only where a caller asks for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from boundcheck.errors import CannotCompute
from boundcheck.evaluators.quadrature_copies import NAME, LogOfCopies
from boundcheck.evaluators.quadrature_copy_integral import log_of_copies
from boundcheck.evaluators.quadrature_densities import log_density_at
from boundcheck.evaluators.quadrature_frames import Family, Number
from boundcheck.evaluators.quadrature_laws import Line, line_of, plain, table_of
from boundcheck.evaluators.quadrature_lines import EPSILON, Array, Index, Integrals, Lines, Sample
from boundcheck.evaluators.quadrature_operations import Operations
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
from boundcheck.models.densities import Density


class Walk(Operations):
    """Evaluates simplified terms for a family of models at one observation each."""

    def __init__(self, family: Family, count: int | None, x: tuple[Any, ...], tolerance: float, effort: Effort) -> None:
        super().__init__(family, count, x)
        self.tolerance = tolerance
        self.effort = effort
        self.kept: list[Term] = []

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

    def _value(self, term: Term) -> Number:
        if isinstance(term, Const):
            return self.made(np.array(float(term.value)), 0.0, 0)
        if isinstance(term, LogDensity):
            return log_density_at(self, term) if isinstance(term.law, ModelLaw) else self.value(self.expanded(term))
        if isinstance(term, Expect | Integrate):
            if nonnegative(term.body) and _through_exp(term.body):
                return self.exp(self.log_value(term))
            return self._integral(term, logged=False)
        if isinstance(term, LogOfCopies):
            return log_of_copies(self, term)
        if isinstance(term, Apply):
            return self._apply(term)
        if isinstance(term, Var):
            if len(self.env[term]) > 1:
                raise CannotCompute(NAME, term.text, "a vector is not a number")
            ((level, values),) = self.env[term]
            return self.made(np.asarray(plain(values), dtype=float), 0.0, level)
        raise CannotCompute(NAME, term.text, "copies outside an expectation over them")

    def expanded(self, term: LogDensity) -> Term:
        """The term that a law which the formula builds for itself stands for, made once."""
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
            return self.log(self.value(args[0]))
        if op == "exp":
            return self.exp(self.value(args[0]))
        if op == "survival":
            return self.exp(self.log_value(term))
        if op == "pow":
            exponent = args[1]
            assert isinstance(exponent, Const)
            if nonnegative(args[0]) and _through_exp(args[0]):
                return self.exp(self.log_value(term))
            return self.power(self.value(args[0]), float(exponent.value))
        numbers, level = self.aligned([self.value(arg) for arg in args])
        total = numbers[0]
        for number in numbers[1:]:
            if op == "add":
                total = self.made(total.value + number.value, total.error + number.error, level)
            elif op == "mul":
                total = self.product(total, number, level)
            elif op in ("max", "min"):
                choose = np.maximum if op == "max" else np.minimum
                total = self.made(choose(total.value, number.value), np.maximum(total.error, number.error), level)
            else:
                raise CannotCompute(NAME, term.text, f"{op!r} compares points of a continuous space")
        return total

    # --- logarithms of non-negative terms ---

    def _log_value(self, term: Term) -> Number:
        if isinstance(term, Expect | Integrate):
            return self._integral(term, logged=True)
        if isinstance(term, Apply):
            op, args = term.op, term.args
            if op == "exp":
                return self.value(args[0])
            if op == "survival":
                return self.survival(self.value(args[0]))
            if op == "mul" and all(nonnegative(arg) for arg in args):
                numbers, level = self.aligned([self.log_value(arg) for arg in args])
                return self.made(sum(n.value for n in numbers), sum(n.error for n in numbers), level)
            if op == "pow" and nonnegative(args[0]):
                exponent = args[1]
                assert isinstance(exponent, Const)
                power, base = float(exponent.value), self.log_value(args[0])
                return self.made(power * base.value, abs(power) * base.error, base.level)
            if op in ("max", "min") and all(nonnegative(arg) for arg in args):
                numbers, level = self.aligned([self.log_value(arg) for arg in args])
                choose = np.maximum if op == "max" else np.minimum
                value, error = numbers[0].value, numbers[0].error
                for number in numbers[1:]:
                    value, error = choose(value, number.value), np.maximum(error, number.error)
                return self.made(value, error, level)
            if op == "add" and all(nonnegative(arg) for arg in args):
                numbers, level = self.aligned([self.log_value(arg) for arg in args])
                value, error = numbers[0].value, numbers[0].error
                for number in numbers[1:]:
                    value, error = np.logaddexp(value, number.value), np.maximum(error, number.error)
                return self.made(value, error, level)
        return self.log(self.value(term))

    # --- integrals ---

    def _integral(self, term: Expect | Integrate, logged: bool) -> Number:
        with self.down_to(self.level(term)):
            var, body = term.var, term.body
            if isinstance(term, Expect):
                law = term.law
                if isinstance(law, ModelLaw):
                    lines = [line_of(density) for density in self.law(law.role, law.args, self.top)]
                    result = self._component(var, lines, 0, body, None, logged)
                else:
                    weight = self._weight(law, var)
                    result = self._component(var, self.space_lines(var), 0, body, weight, logged)
            else:
                lines = [dataclasses.replace(line, density=None) if line.density is None or not line.density.discrete
                         else line for line in self.space_lines(var)]  # fmt: skip
                # The points of a discrete space count once each, not by the law that lists them.
                even = Const(Fraction(0)) if any(line.density is not None for line in lines) else None
                result = self._component(var, lines, 0, body, even, logged)
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

    def space_lines(self, var: Var) -> list[Line]:
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
        lines = [line_of(law) for law in laws]
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
                    later = [] if last else [self.lifted_line(each, base_level) for each in lines]
                    density = self.lifted_density(line, base_level) if last else later[i].density
                    log_weight, log_error = self._log_weight(density, v, weight if last else None)
                    inner = (
                        (self.log_value(body) if logged else self.value(body))
                        if last
                        else self._component(var, later, i + 1, body, weight, logged)
                    )
                    value, error = self.full(inner.value, inner.level), self.errors_of(inner)
                    if logged:
                        total = np.where(np.isneginf(log_weight), -np.inf, log_weight + value)
                        return Sample(total, None, _summed(log_error, error), 0.0)
                    value = np.where(np.isneginf(log_weight), 0.0, value)
                    return Sample(np.broadcast_to(log_weight, value.shape), value, log_error, error)
            finally:
                self.rounding = saved

        where = self._where(var, line, body, weight, lines, i)
        effort = self.effort_for(body, len(lines) - 1 - i)
        results = integrate_lines(integrand, where, self.tolerance, effort, signed=not logged)
        return self.finished(results, logged, body)

    def effort_for(self, body: Term, components_left: int) -> Effort:
        """The limits on work, with chunks the smaller the more integrals there are inside."""
        below = components_left + _depth(body)
        return self.effort.within(min(1 << 14, (1 << 19) // 200**below))

    def _log_weight(self, density: Density | None, v: Array, weight: Term | None) -> tuple[Array, Array | float]:
        total: Any = np.zeros(len(v))
        error: Any = 0.0
        if density is not None:
            total = np.broadcast_to(np.asarray(density.log_density(v), dtype=float), v.shape)
            if self.rounding:
                error = rounding_of(density, v)
        if weight is not None:
            number = self.value(weight)
            total = total + self.full(number.value, number.level)
            error = _summed(error, self.errors_of(number))
        return total, error

    def _sum(self, var: Var, lines: list[Line], i: int, body: Term, weight: Term | None, logged: bool) -> Number:
        """The exact sum over the points of a discrete component."""
        density, last, base = lines[i].density, i == len(lines) - 1, self.top
        assert density is not None
        points, logs = table_of(density)
        bare = weight is not None
        count, size = len(points), self.frames[-1].size
        entry = np.tile(np.arange(size), count)
        values = np.repeat(points, size)
        with self.bound(var, entry, values):
            later = [self.lifted_line(each, base) for each in lines]
            inner = (
                (self.log_value(body) if logged else self.value(body))
                if last
                else self._component(var, later, i + 1, body, weight, logged)
            )
            value = self.full(inner.value, inner.level).reshape(count, size)
            wrong = np.broadcast_to(self.errors_of(inner), entry.shape).reshape(count, size)
            log_weight: Array = np.zeros((count, size))
            if not bare:
                log_weight = np.stack([np.broadcast_to(log, (size,)) for log in logs])
            elif last and weight is not None:
                number = self.value(weight)
                log_weight = log_weight + self.full(number.value, number.level).reshape(count, size)
                wrong = wrong + np.broadcast_to(self.errors_of(number), entry.shape).reshape(count, size)
        gone = np.isneginf(log_weight)
        if logged:
            terms = np.where(gone, -np.inf, log_weight + value)
            return self.made(np.logaddexp.reduce(terms, axis=0), np.where(gone, 0, wrong).max(axis=0), base)
        share = np.exp(log_weight)
        terms = np.where(gone, 0.0, share * value)
        slack = np.where(gone, 0.0, share * wrong).sum(axis=0) + 8 * EPSILON * np.abs(terms).sum(axis=0)
        return self.made(terms.sum(axis=0), slack, base)

    def finished(self, results: Integrals, logged: bool, body: Term) -> Number:
        """The number that a batch of integrals comes to, its error infinite where nothing is sure."""
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

    def centers(self, law: Law, var: Var) -> list[Any]:
        """The centers of a law's components on the frame on top."""
        if isinstance(law, ModelLaw):
            return [line_of(density).center for density in self.law(law.role, law.args, self.top)]
        return [line.center for line in self.space_lines(var)]

    def _where(self, var: Var, line: Line, body: Term, weight: Term | None, lines: list[Line], i: int) -> Lines:
        from boundcheck.evaluators.quadrature_features import where

        return where(self, var, line, body, weight, lines, i)


def text_of(term: Term) -> str:
    """The term as text; what this evaluator made for itself has none."""
    try:
        return term.text
    except AssertionError:
        return "an expectation over copies"


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


def _summed(a: Array | float, b: Array | float) -> Array | float:
    return a + b
