"""The float evaluator: float64 arrays, probabilities in log space.

Weights are log-probabilities, so that a probability of 1e-300 squared is not lost, and a logarithm of a sum of
exponentials is taken around its largest term. The error estimate is the number of roundings times the largest
magnitude met, divided by the smallest argument of a logarithm that had to be taken directly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import CannotCompute, UndefinedValue
from boundcheck.evaluators.domain import Domain
from boundcheck.evaluators.traversal import Traversal
from boundcheck.evaluators.values import Approximate
from boundcheck.language.build import Formula, trace
from boundcheck.language.terms import Apply, Const, Space, Term
from boundcheck.models.finite import FiniteModel

_EXACT_LOG_LIMIT = 4096
_LARGEST_SPREAD = 500.0

UNIT = 2.0**-44
"""The rounding error of a value of size one: 256 roundings."""


class Floats(Domain):
    """Numbers are float64; weights are their logarithms. Nothing is said about rounding: see `FloatDomain`."""

    name = "float evaluator"
    bytes_per_number = 8
    tallies = True

    def _seen(self, values: NDArray[Any], operands_are_finite: Callable[[], Any] | None = None) -> NDArray[Any]:
        """The values, of which a domain may take note; infinite ones may come from finite operands."""
        return values

    def constant(self, value: Fraction) -> NDArray[Any]:
        return np.array(float(value))

    def log_table(self, model: FiniteModel, role: str, inputs: tuple[Space, ...]) -> NDArray[Any]:
        table = model.table(role, inputs)
        cached = model.log_tables.get((self.name, role))
        if cached is None:
            cached = model.log_tables[self.name, role] = _logs(table)
        return self._seen(cached)

    weight_table = log_table

    def weights(self, log_density: NDArray[Any]) -> NDArray[Any]:
        return np.where(np.isposinf(log_density), np.nan, log_density)  # an infinite density is no weight

    def weight_product(self, weights: NDArray[Any], axis: int) -> NDArray[Any]:
        return weights.sum(axis=axis)

    def times(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return a + b

    def counts(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.vectorize(math.log, otypes=[np.float64])(values)

    def add(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(invalid="ignore", over="ignore"):
            return self._seen(np.add(a, b), lambda: np.isfinite(a) & np.isfinite(b))

    def multiply(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(invalid="ignore", over="ignore"):
            return self._seen(np.multiply(a, b), lambda: np.isfinite(a) & np.isfinite(b))

    def scale(self, factor: Fraction, a: NDArray[Any]) -> NDArray[Any]:
        return Floats.multiply(self, self.constant(factor), a)  # what it does to errors is in `gain`

    def power(self, a: NDArray[Any], exponent: Fraction) -> NDArray[Any]:
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            return self._seen(np.power(a, float(exponent)), lambda: np.isfinite(a) & (a != 0))

    def exp(self, a: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            return self._seen(np.exp(a), lambda: np.isfinite(a))

    def log(self, a: NDArray[Any]) -> NDArray[Any]:
        return self.log_of_known(a)

    def log_of_known(self, a: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._seen(np.log(a))

    def choose(self, op: str, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return np.maximum(a, b) if op == "max" else np.minimum(a, b)

    def expectation(self, weights: NDArray[Any], values: NDArray[Any], axis: int) -> NDArray[Any]:
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            product = np.exp(weights) * values
            # Where exp underflows an infinite value still counts; where the weight is truly zero nothing does.
            infinite = np.isinf(values)
            if infinite.any():
                product = np.where(infinite & ~np.isnan(weights), values, product)
            nothing = np.isneginf(weights)
            if nothing.any():
                product[np.broadcast_to(nothing, product.shape)] = 0.0
            return self._seen(product.sum(axis=axis), lambda: np.isfinite(product).all(axis=axis))

    def log_expectation(self, weights: NDArray[Any], logs: NDArray[Any], axis: int) -> NDArray[Any]:
        with np.errstate(invalid="ignore"):
            exponents = weights + logs
            nothing = np.isneginf(weights)
            if nothing.any():
                exponents = np.where(nothing, -np.inf, exponents)
        return self.log_sum(exponents, axis)

    def reduce(self, op: str, values: NDArray[Any], axis: int) -> NDArray[Any]:
        with np.errstate(invalid="ignore", over="ignore"):
            function = {"sum": np.sum, "max": np.max, "min": np.min}[op]
            return self._seen(function(values, axis=axis), lambda: np.isfinite(values).all(axis=axis))

    def log_sum(self, logs: NDArray[Any], axis: int) -> NDArray[Any]:
        with np.errstate(invalid="ignore", divide="ignore", over="ignore", under="ignore"):
            top = np.max(logs, axis=axis, keepdims=True)
            shift = np.where(np.isfinite(top), top, 0.0)
            total = np.log(np.exp(logs - shift).sum(axis=axis)) + np.squeeze(shift, axis=axis)
        return self._seen(total)

    def tallied(self, op: str, values: NDArray[Any], tally: NDArray[Any]) -> NDArray[Any] | None:
        finite = np.isfinite(values)
        known = values if (all_finite := bool(finite.all())) else np.where(finite, values, 0.0)
        if op == "log_sum":
            top = np.max(np.where(finite, values, -np.inf), axis=-1, keepdims=True, initial=-np.inf)
            shift = np.where(np.isfinite(top), top, 0.0)
            exponents = np.where(finite, known - shift, 0.0)
            if exponents.size and exponents.min() < -_LARGEST_SPREAD:
                return None  # a multiset of small terms alone would underflow
            with np.errstate(divide="ignore"):
                total = np.log(np.where(finite, np.exp(exponents), 0.0) @ tally.T) + shift
        else:
            with np.errstate(over="ignore"):
                total = known @ tally.T
        if all_finite:
            return self._seen(total, lambda: True)
        # A multiset with a state whose value is infinite, or none, is itself infinite, or has none.
        low, high, nowhere = (_met(mask(values), tally) for mask in (np.isneginf, np.isposinf, np.isnan))
        if op != "log_sum":
            total[low] = -np.inf
            nowhere |= low & high
        total[high] = np.inf
        total[nowhere] = np.nan
        return self._seen(total)


class FloatDomain(Floats):
    """Floats that keep an estimate of their rounding errors."""

    def __init__(self) -> None:
        self.largest = 1.0
        self.amplification = 1.0
        self.lost = False

    def _seen(self, values: NDArray[Any], operands_are_finite: Callable[[], Any] | None = None) -> NDArray[Any]:
        """The values; an infinity that finite numbers made tells that the result is lost."""
        if operands_are_finite is not None:
            infinite = np.isinf(values)
            self.lost = self.lost or (bool(np.any(infinite)) and bool(np.any(infinite & operands_are_finite())))
        return self._watch(values)

    def _watch(self, values: NDArray[Any], per_value: float = 1.0) -> NDArray[Any]:
        magnitude = np.abs(values)
        finite = magnitude[np.isfinite(magnitude)] if np.ndim(magnitude) else magnitude
        if np.size(finite) and np.isfinite(top := np.max(finite)):
            self.largest = max(self.largest, float(top) * per_value)
        return values

    @property
    def error(self) -> float:
        """The estimated error of a value that all roundings so far may have reached; infinite if it is lost."""
        return math.inf if self.lost else UNIT * self.largest * self.amplification

    def multiply(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        # What is off by e in one factor is off by e times the other factor in the product.
        before = self.largest
        for factor, other in ((a, b), (b, a)):  # what may be zero, times infinity, may have no value
            doubtful = (np.abs(factor) <= UNIT * before) & (factor != 0)
            self.lost = self.lost or bool(np.any(np.isinf(other) & doubtful))
        for factor in (a, b):
            finite = factor[np.isfinite(factor)] if np.ndim(factor) else factor
            if np.size(finite) and np.isfinite(top := np.max(np.abs(finite))):
                self.largest = max(self.largest, before * float(top))
        return super().multiply(a, b)

    def power(self, a: NDArray[Any], exponent: Fraction) -> NDArray[Any]:
        if exponent < 0 or exponent.denominator != 1:  # steep at zero, and without a value on one side of it
            self.lost = self.lost or bool(np.any(np.abs(a) <= UNIT * self.largest))
        before = self.largest
        result = super().power(a, exponent)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            self._watch(np.abs(float(exponent) * result / a), before)
        return result

    def exp(self, a: NDArray[Any]) -> NDArray[Any]:
        result = super().exp(a)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            self._watch(result * np.maximum(1.0, np.abs(a)))  # the error of a is relative in exp a
        return result

    def log(self, a: NDArray[Any]) -> NDArray[Any]:
        # What rounding may have swallowed has no logarithm that could be trusted, zero included.
        self.lost = self.lost or bool(np.any(np.abs(a) <= UNIT * self.largest))
        positive = a[a > 0] if np.ndim(a) else a
        if np.size(positive) and (least := float(np.min(positive))) > 0:
            self.amplification = max(self.amplification, 1 / least)
        return super().log(a)


def _met(states: NDArray[np.bool_], tally: NDArray[Any]) -> NDArray[np.bool_]:
    """Which multisets have one of these states."""
    if not states.any():
        return np.zeros((*states.shape[:-1], len(tally)), dtype=np.bool_)
    return (states.astype(np.float64) @ tally.T) > 0


def gain(term: Term) -> float:
    """By how much the constants of a formula enlarge an error on its way from a leaf to the root."""
    below = max((gain(child) for child in term.children), default=1.0)
    if isinstance(term, Apply) and term.op == "mul":
        return below * max(1.0, math.prod(abs(float(arg.value)) for arg in term.args if isinstance(arg, Const)))
    return below


def _logs(table: NDArray[Any]) -> NDArray[Any]:
    """Logarithms of probabilities, correctly rounded for exact tables (so that log(1 - 1e-20) is -1e-20)."""
    if table.dtype != object or table.size > _EXACT_LOG_LIMIT:
        with np.errstate(divide="ignore"):
            return np.log(table.astype(np.float64))
    import flint

    out = np.empty(table.shape)
    with flint.ctx.workprec(128):
        for index, p in np.ndenumerate(table):
            ratio = flint.arb(flint.fmpq(p.numerator, p.denominator)) if p else None
            out[index] = float(ratio.log().mid()) if ratio is not None else -math.inf
    return out


def evaluate(
    formula: Formula | Term, model: FiniteModel, x: int = 0, *, memory: int = 1 << 26, **parameters: Any
) -> Approximate:
    """The value of a formula on a finite model, in nats, by enumeration in float64.

    Args:
        formula: a function of (m, x, **parameters), or a term.
        model: the finite model.
        x: the number of the observed state.
        memory: an upper limit in bytes on the size of an intermediate array.
        **parameters: the formula's own.

    Raises:
        CannotCompute: the formula is not one of finite sums, or has too many multisets of copies.
        UndefinedValue: the value is inf - inf.

    >>> from boundcheck.catalogue.objectives import elbo
    >>> model = FiniteModel(prior=[0.5, 0.5], likelihood=[[0.9, 0.1], [0.3, 0.7]], encoder=[[0.6, 0.4], [0.1, 0.9]])
    >>> print(f"{float(evaluate(elbo, model, x=1)):.6f}")
    -0.919330
    """
    domain = FloatDomain()
    term = trace(formula, **parameters)
    result = Traversal(model, x, domain, memory=memory).value(term)
    value = float(result.data)
    if math.isnan(value) and domain.lost:
        raise CannotCompute(domain.name, term.text, "rounding leaves nothing of a logarithm's argument, or overflows")
    if math.isnan(value):
        raise UndefinedValue(term.text, f"x = {x}")
    exact = math.isinf(value) and not domain.lost
    return Approximate(value, 0.0 if exact else domain.error * gain(term))
