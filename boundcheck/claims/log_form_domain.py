"""Formulas evaluated as log forms: the one traversal, on tables of symbols (`symbols`) instead of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

from numpy.typing import NDArray

from boundcheck.claims.logforms import FractionalPower, LogForm, Ratio
from boundcheck.claims.symbols import SymbolicTables
from boundcheck.errors import CannotCompute
from boundcheck.evaluators.domain import Domain
from boundcheck.evaluators.lognumber import LeavesField
from boundcheck.evaluators.objects import along, mapped, scalar
from boundcheck.evaluators.traversal import Traversal
from boundcheck.language.terms import Space, Term
from boundcheck.models.finite import FiniteModel


class LogFormDomain(Domain):
    """Numbers are log forms, weights are rational functions."""

    name = "symbolic evaluator"
    bytes_per_number = 4000

    def __init__(self, symbols: SymbolicTables) -> None:
        self.symbols, self.forms = symbols, symbols.forms
        self.fractional_power = False

    def constant(self, value: Fraction) -> NDArray[Any]:
        return scalar(self.forms.form(self.forms.ratio(value)))

    def weight_table(self, model: FiniteModel, role: str, inputs: tuple[Space, ...]) -> NDArray[Any]:
        model.table(role, inputs)  # may refuse these inputs
        return self.symbols.tables[role]

    def log_table(self, model: FiniteModel, role: str, inputs: tuple[Space, ...]) -> NDArray[Any]:
        return mapped(partial(self.forms.log, known_positive=True), self.weight_table(model, role, inputs))

    def weights(self, log_density: NDArray[Any]) -> NDArray[Any]:
        return mapped(self._exp, log_density)

    def _exp(self, a: LogForm) -> Ratio:
        try:
            return self.forms.exp(a)
        except FractionalPower:
            self.fractional_power = True
            raise

    def weight_product(self, weights: NDArray[Any], axis: int) -> NDArray[Any]:
        def product(entries: Sequence[Ratio]) -> Ratio:
            result = self.forms.one
            for entry in entries:
                result = self.forms.times_ratio(result, entry)
            return result

        return along(product, axis, weights)

    def times(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return mapped(self.forms.times_ratio, a, b)

    def counts(self, values: NDArray[Any]) -> NDArray[Any]:
        return mapped(self.forms.ratio, values)

    def add(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return mapped(self.forms.add, a, b)

    def multiply(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return mapped(self.forms.multiply, a, b)

    def power(self, a: NDArray[Any], exponent: Fraction) -> NDArray[Any]:
        def raised(base: LogForm) -> LogForm:
            if base.logs or exponent.denominator != 1:
                raise LeavesField("a power of a logarithm, or a power that is no integer")
            return self.forms.form(self.forms.power(base.rest, exponent.numerator))

        return mapped(raised, a)

    def exp(self, a: NDArray[Any]) -> NDArray[Any]:
        return mapped(lambda each: self.forms.form(self._exp(each)), a)

    def log(self, a: NDArray[Any]) -> NDArray[Any]:
        def logarithm(value: LogForm) -> LogForm:
            if value.logs:
                raise LeavesField("a logarithm of a logarithm")
            return self.forms.log(value.rest)

        return mapped(logarithm, a)

    def choose(self, op: str, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return mapped(partial(self.forms.choose, op), a, b)

    def expectation(self, weights: NDArray[Any], values: NDArray[Any], axis: int) -> NDArray[Any]:
        return along(self.forms.weighted, axis, weights, values)

    def log_expectation(self, weights: NDArray[Any], logs: NDArray[Any], axis: int) -> NDArray[Any]:
        return along(self._log_sum, axis, weights, logs)

    def reduce(self, op: str, values: NDArray[Any], axis: int) -> NDArray[Any]:
        def reduced(entries: Sequence[LogForm]) -> LogForm:
            if op == "sum":
                return self.forms.weighted([self.forms.one] * len(entries), entries)
            result = entries[0]
            for entry in entries[1:]:
                result = self.forms.choose(op, result, entry)
            return result

        return along(reduced, axis, values)

    def log_sum(self, logs: NDArray[Any], axis: int) -> NDArray[Any]:
        return along(lambda entries: self._log_sum([self.forms.one] * len(entries), entries), axis, logs)

    def _log_sum(self, weights: Sequence[Ratio], logs: Sequence[LogForm]) -> LogForm:
        """log sum_i w_i exp(l_i); a factor common to all exp(l_i) may be outside the field."""
        forms = self.forms
        try:
            return self._log_of_sum(weights, map(forms.exp, logs))
        except LeavesField:
            first = logs[0]
            inner = self._log_of_sum(weights, (self._exp(forms.subtract(each, first)) for each in logs))
            return forms.add(inner, first)

    def _log_of_sum(self, weights: Sequence[Ratio], values: Iterable[Ratio]) -> LogForm:
        # Weights are probabilities, counts or one, and exponentials are positive: so is the sum.
        parts = [self.forms.times_ratio(w, v) for w, v in zip(weights, values, strict=True)]
        return self.forms.log(self.forms.plus(*parts), known_positive=True)


def log_form(term: Term, symbols: SymbolicTables) -> LogForm:
    """A term as a log form in the parameters of its tables.

    Raises:
        CannotCompute: the value is not such a function.
        OutOfBudget: the polynomials grow too large, or the time is spent.
    """
    sizes = {"x": 1, "z": 1, "x~": 1} | symbols.sizes
    carrier = _uniform(sizes, "x~" in symbols.sizes)
    domain = LogFormDomain(symbols)
    try:
        value: LogForm = Traversal(carrier, 0, domain).value(term).data.item()
    except CannotCompute as refusal:
        if domain.fractional_power:
            raise HalfPowers(refusal.evaluator, refusal.term, refusal.reason) from None
        raise
    if value.rest.trouble:
        raise CannotCompute(domain.name, term.text, value.rest.trouble)
    return value


class HalfPowers(CannotCompute):
    """Powers that are no integers are in the way; entries that are squares may help."""


def _uniform(sizes: Mapping[str, int], corrupted: bool) -> FiniteModel:
    """A model of the given sizes: it tells the traversal the sizes, and the domain supplies the numbers."""
    x, z, c = sizes["x"], sizes["z"], sizes["x~"]

    def row(n: int) -> list[Fraction]:
        return [Fraction(1, n)] * n

    more = {"corruption": [row(c)] * x, "auxiliary": [[row(c)] * x] * z} if corrupted else {}
    return FiniteModel(prior=row(z), likelihood=[row(x)] * z, encoder=[row(z)] * (c if corrupted else x), **more)


__all__ = ["HalfPowers", "LogFormDomain", "log_form"]
