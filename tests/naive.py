"""A second reading of the language: an interpreter that enumerates every tuple of draws, one state at a time.

It shares the terms with the package and nothing that computes: no multisets, no broadcasting, no log space, no
rewriting. Numbers are mpf of 50 digits. Conventions: a term of probability zero is dropped; log 0 = -inf;
0^-a = +inf; what is inf - inf, 0 * inf, or the log or a broken power of a negative number raises `Undefined`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from mpmath import mp, mpf

from boundcheck.language.laws import DensityLaw, Law, MixtureLaw, ModelLaw
from boundcheck.language.terms import (
    OBSERVED,
    Apply,
    Const,
    Expect,
    Integrate,
    LogDensity,
    Plate,
    Reduce,
    Term,
    Var,
)
from boundcheck.models.finite import FiniteModel

State = int | tuple[Plate, tuple[int, ...]]
"""One state, or the states of all copies on a plate."""


class Undefined(ArithmeticError):
    """The value does not exist."""


def evaluate(term: Term, model: FiniteModel, x: int = 0, digits: int = 50) -> Any:
    """The value of a closed term."""
    with mp.workdps(digits):
        return _Reading(model).number(term, {OBSERVED: x}, {})


class _Reading:
    def __init__(self, model: FiniteModel) -> None:
        self.model = model

    def state(self, var: Term, env: Mapping[Var, State], index: Mapping[Plate, int]) -> int:
        assert isinstance(var, Var)
        where = env[var]
        return where if isinstance(where, int) else where[1][index[where[0]]]

    def number(self, term: Term, env: Mapping[Var, State], index: Mapping[Plate, int]) -> Any:
        if isinstance(term, Const):
            return mpf(term.value.numerator) / term.value.denominator
        if isinstance(term, LogDensity):
            return self.log_density(term.law, [self.state(p, env, index) for p in term.point], env, index)
        if isinstance(term, Expect):
            return self.expectation(term, env, index)
        if isinstance(term, Integrate):
            states = range(self.model.size(term.space))
            return total([self.number(term.body, {**env, term.var: s}, index) for s in states])
        if isinstance(term, Reduce):
            entries = [self.number(term.body, env, {**index, term.plate: k}) for k in range(term.plate.size)]
            return {"sum": total, "mean": lambda e: total(e) / len(e), "max": max, "min": min}[term.op](entries)
        assert isinstance(term, Apply)
        if term.op == "same":
            left, right = (self.state(arg, env, index) for arg in term.args)
            return mpf(left == right)
        args = [self.number(arg, env, index) for arg in term.args]
        return {
            "add": lambda: total(args),
            "mul": lambda: multiplied(args),
            "pow": lambda: power(*args),
            "log": lambda: logarithm(args[0]),
            "exp": lambda: mp.exp(args[0]) if mp.isfinite(args[0]) else (mpf(0) if args[0] < 0 else mp.inf),
            "max": lambda: max(args),
            "min": lambda: min(args),
        }[term.op]()

    def log_density(self, law: Law, point: list[int], env: Mapping[Var, State], index: Mapping[Plate, int]) -> Any:
        if isinstance(law, ModelLaw):
            at = [self.state(arg, env, index) for arg in law.args]
            p = self.model.table(law.role)[(*at, *point)]
            return logarithm(mpf(p.numerator) / p.denominator)
        (here,) = point
        if isinstance(law, MixtureLaw):
            draws = self.probabilities(law.mixing, env, index)
            inner = [(p, {**env, law.var: s}) for s, p in draws]
            parts = [p * exponential(self.log_density(law.component, [here], scope, index)) for p, scope in inner]
            return logarithm(total(parts))
        assert isinstance(law, DensityLaw)
        value = self.number(law.log_density, {**env, law.var: here}, index)
        if not law.rescale:
            return value
        states = range(self.model.size(law.space))
        mass = total([exponential(self.number(law.log_density, {**env, law.var: s}, index)) for s in states])
        return total([value, -logarithm(mass)])

    def probabilities(
        self, law: Law, env: Mapping[Var, State], index: Mapping[Plate, int]
    ) -> Iterator[tuple[int, Any]]:
        """The states of positive probability."""
        for state in range(self.model.size(law.space)):
            p = exponential(self.log_density(law, [state], env, index))
            if p == mp.inf:
                raise Undefined
            if p > 0:
                yield state, p

    def expectation(self, term: Expect, env: Mapping[Var, State], index: Mapping[Plate, int]) -> Any:
        plates = list(term.consumed_plates & set(term.var.plates))
        if not plates:
            draws = list(self.probabilities(term.law, env, index))
            return total([multiplied([p, self.number(term.body, {**env, term.var: s}, index)]) for s, p in draws])
        (plate,) = plates
        each = [list(self.probabilities(term.law, env, {**index, plate: k})) for k in range(plate.size)]
        parts = []
        for draws in product(*each):
            p = mp.fprod(p for _, p in draws)
            inner = {**env, term.var: (plate, tuple(s for s, _ in draws))}
            parts.append(multiplied([p, self.number(term.body, inner, index)]))
        return total(parts)


def total(values: list[Any]) -> Any:
    if mp.inf in values and -mp.inf in values:
        raise Undefined
    return mp.fsum(values) if all(map(mp.isfinite, values)) else (mp.inf if mp.inf in values else -mp.inf)


def multiplied(values: list[Any]) -> Any:
    result = mpf(1)
    for value in values:
        if (result == 0 and not mp.isfinite(value)) or (value == 0 and not mp.isfinite(result)):
            raise Undefined
        result *= value
    return result


def logarithm(value: Any) -> Any:
    if value < 0:
        # Of a negative number there is no logarithm; what may be zero but for rounding changes with the digits.
        if -value < mp.mpf(10) ** -(mp.dps - 15):
            return mp.log(-value)
        raise Undefined
    return -mp.inf if value == 0 else mp.log(value)


def exponential(value: Any) -> Any:
    return mp.exp(value) if mp.isfinite(value) else (mpf(0) if value < 0 else mp.inf)


def power(base: Any, exponent: Any) -> Any:
    whole = mp.isint(exponent)
    if base < 0 and not whole:
        raise Undefined
    if base == 0:
        return mp.inf if exponent < 0 else mpf(0)
    if not mp.isfinite(base):
        return mpf(0) if exponent < 0 else (-mp.inf if base < 0 and int(exponent) % 2 else mp.inf)
    return mp.power(base, int(exponent) if whole else exponent)
