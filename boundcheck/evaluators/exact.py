"""The exact evaluator: rational combinations of logarithms of rationals, with zero and sign decided.

On a finite model with rational tables most objectives are such numbers. A formula that leaves them (a non-integer
power, a logarithm of a logarithm) is refused by name; it never falls back to something weaker in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np
from flint import fmpq
from numpy.typing import NDArray

from boundcheck.errors import CannotComputeExactly, UndefinedValue
from boundcheck.evaluators.domain import Domain
from boundcheck.evaluators.lognumber import UNDEFINED, LeavesField, LogNumber, sum_of, weighted_sum
from boundcheck.evaluators.objects import along, mapped, running_product, scalar
from boundcheck.evaluators.traversal import Traversal
from boundcheck.evaluators.values import Exact
from boundcheck.language.build import Formula, trace
from boundcheck.language.terms import OBSERVED, Space, Term, X
from boundcheck.models.finite import FiniteModel

_ONE = fmpq(1)


def _weight(probability: LogNumber) -> fmpq | None:
    """A probability as a rational; None where it is 0/0 (the posterior of an impossible observation)."""
    if not probability.is_finite:
        return None
    ratio = probability.as_fraction()
    return fmpq(ratio.numerator, ratio.denominator)


def _times(a: fmpq | None, b: fmpq | None) -> fmpq | None:
    return None if a is None or b is None else a * b


def _expectation(weights: Sequence[fmpq | None], values: Sequence[LogNumber]) -> LogNumber:
    if any(weight is None for weight in weights):
        return UNDEFINED
    return weighted_sum(weights, values)  # type: ignore[arg-type]


def _log_expectation(weights: Sequence[fmpq | None], logs: Sequence[LogNumber]) -> LogNumber:
    if any(weight is None for weight in weights):
        return UNDEFINED
    kept = [(weight, log) for weight, log in zip(weights, logs, strict=True) if weight]
    return _log_sum([weight for weight, _ in kept], [log for _, log in kept])


def _log_sum(weights: Sequence[fmpq | None], logs: Sequence[LogNumber]) -> LogNumber:
    """log sum_i w_i exp(l_i), also where every exp(l_i) is the same irrational number up to a rational factor."""
    try:
        return weighted_sum(weights, [log.exp() for log in logs]).log()  # type: ignore[arg-type]
    except LeavesField:
        shift = next(log for log in logs if log.is_finite)
        return weighted_sum(weights, [(log - shift).exp() for log in logs]).log() + shift  # type: ignore[arg-type]


class LogNumberDomain(Domain):
    """Numbers are LogNumbers; weights are rationals."""

    name = "exact evaluator"
    bytes_per_number = 400

    def constant(self, value: Fraction) -> NDArray[Any]:
        return scalar(LogNumber.rational(value))

    def _table(self, model: FiniteModel, role: str, inputs: tuple[Space, ...], kind: str) -> NDArray[Any]:
        table = model.table(role, inputs)
        if table.dtype != object:
            raise LeavesField(f"the table {role} is kept in floating point, being too large to keep exactly")
        key = (f"{self.name}: {kind}", role)
        if key not in model.log_tables:
            make = LogNumber.log if kind == "logs" else (lambda p: fmpq(p.numerator, p.denominator))
            model.log_tables[key] = mapped(make, table)
        return model.log_tables[key]

    def log_table(self, model: FiniteModel, role: str, inputs: tuple[Space, ...]) -> NDArray[Any]:
        return self._table(model, role, inputs, "logs")

    def weight_table(self, model: FiniteModel, role: str, inputs: tuple[Space, ...]) -> NDArray[Any]:
        return self._table(model, role, inputs, "weights")

    def weights(self, log_density: NDArray[Any]) -> NDArray[Any]:
        return mapped(lambda log: _weight(log.exp()), log_density)

    def weight_product(self, weights: NDArray[Any], axis: int) -> NDArray[Any]:
        def product(entries: Sequence[fmpq | None]) -> fmpq | None:
            return None if any(entry is None for entry in entries) else running_product(entries)

        return along(product, axis, weights)

    def times(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return mapped(_times, a, b)

    def counts(self, values: NDArray[Any]) -> NDArray[Any]:
        return mapped(fmpq, values)

    def add(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return a + b

    def multiply(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return a * b

    def power(self, a: NDArray[Any], exponent: Fraction) -> NDArray[Any]:
        return mapped(lambda base: base**exponent, a)

    def exp(self, a: NDArray[Any]) -> NDArray[Any]:
        return mapped(LogNumber.exp, a)

    def log(self, a: NDArray[Any]) -> NDArray[Any]:
        return mapped(LogNumber.log, a)

    def choose(self, op: str, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return mapped(lambda left, right: _choose(op, (left, right)), a, b)

    def expectation(self, weights: NDArray[Any], values: NDArray[Any], axis: int) -> NDArray[Any]:
        return along(_expectation, axis, weights, values)

    def log_expectation(self, weights: NDArray[Any], logs: NDArray[Any], axis: int) -> NDArray[Any]:
        return along(_log_expectation, axis, weights, logs)

    def reduce(self, op: str, values: NDArray[Any], axis: int) -> NDArray[Any]:
        if op == "sum":
            return along(sum_of, axis, values)
        return along(lambda entries: _choose(op, entries), axis, values)

    def log_sum(self, logs: NDArray[Any], axis: int) -> NDArray[Any]:
        return along(lambda entries: _log_sum([_ONE] * len(entries), entries), axis, logs)


def _choose(op: str, entries: Sequence[LogNumber]) -> LogNumber:
    if any(entry.is_undefined for entry in entries):
        return UNDEFINED
    return max(entries) if op == "max" else min(entries)


class _ExactTraversal(Traversal):
    def cannot(self, term: Term, reason: str) -> NoReturn:
        raise CannotComputeExactly(self.domain.name, term.text, reason)


def evaluate(formula: Formula | Term, model: FiniteModel, x: int = 0, **parameters: Any) -> Exact:
    """The exact value of a formula on a finite model with rational tables, in nats.

    Args:
        formula: a function of (m, x, **parameters), or a term.
        model: the finite model.
        x: the number of the observed state.
        **parameters: the formula's own.

    Raises:
        CannotComputeExactly: the value is not a rational combination of logarithms of rationals, or has too many
            multisets of copies; the message names the term.
        UndefinedValue: the value is inf - inf.

    >>> from boundcheck.catalogue.objectives import denoising_decoupled
    >>> model = FiniteModel(
    ...     prior=["1/2", "1/2"], likelihood=[[1], [1]], corruption=[["1/2", "1/2"]], encoder=[[0.1, 0.9], [0.9, 0.1]]
    ... )
    >>> print(evaluate(denoising_decoupled, model))
    log(5/3)
    """
    term = trace(formula, **parameters)
    value = _ExactTraversal(model, x, LogNumberDomain()).value(term).data.item()
    if value.is_undefined:
        raise UndefinedValue(term.text, f"x = {x}")
    return Exact(value)


class _Stack:
    """Models of equal sizes as one whose tables have a leading axis over them."""

    def __init__(self, models: Sequence[FiniteModel]) -> None:
        self.models, self.size = models, models[0].size
        self.log_tables: dict[tuple[str, str], NDArray[Any]] = {}

    def table(self, role: str, inputs: tuple[Space, ...]) -> NDArray[Any]:
        return np.stack([model.table(role, inputs) for model in self.models])


def evaluate_on_all(term: Term, models: Sequence[FiniteModel]) -> list[list[LogNumber]]:
    """The values of a term at every observation of exact models of equal sizes, in one traversal.

    Raises:
        CannotComputeExactly: one of the values is not a rational combination of logarithms of rationals.
    """
    stack: Any = _Stack(models)
    observations = models[0].size(X)
    traversal = _ExactTraversal(stack, 0, LogNumberDomain(), models=len(models))
    traversal.env[OBSERVED] = slice(0, observations)
    found, axes = traversal.value(term), ("models", OBSERVED)
    data = found.data.transpose([found.axes.index(axis) for axis in axes if axis in found.axes])
    data = data[tuple(slice(None) if axis in found.axes else None for axis in axes)]
    return np.broadcast_to(data, (len(models), observations)).tolist()
