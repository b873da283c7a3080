"""The enclosure evaluator: Arb balls, so that the value is an interval that contains the truth, always.

On finite models every formula of the language is a finite sum, so a ball of any width can be had by raising the
precision, which is confined to a context of its own. A number that the balls cannot pin down (a logarithm of a ball
that straddles zero) becomes the whole line, never a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import flint
from flint import arb, fmpq
from numpy.typing import NDArray

from boundcheck.errors import UndefinedValue
from boundcheck.evaluators.domain import Domain
from boundcheck.evaluators.objects import along, mapped, running_product, scalar
from boundcheck.evaluators.traversal import Traversal
from boundcheck.evaluators.values import Enclosure
from boundcheck.language.build import Formula, trace
from boundcheck.language.terms import Space, Term
from boundcheck.models.finite import FiniteModel


def _ball(value: Fraction | int) -> arb:
    return arb(fmpq(value.numerator, value.denominator))


_WHOLE_LINE = arb(0, arb.pos_inf())


def _log(a: arb) -> arb:
    """log: -inf at zero, undefined (nan) below it, and the whole line for a ball that straddles zero.

    What straddles zero may be negative, its logarithm without a value: `BallDomain.unsure` remembers that.
    """
    if a > 0 or a.is_nan():
        return a.log()
    if a == 0:
        return arb.neg_inf()
    return arb.nan() if a < 0 else _WHOLE_LINE


def _weight(log: arb) -> arb:
    """An infinite density is no weight."""
    return arb.nan() if log == arb.pos_inf() else log.exp()


def _weighted(weights: Sequence[arb], values: Sequence[arb]) -> arb:
    total = arb(0)
    for weight, value in zip(weights, values, strict=True):
        if not weight.is_zero():
            total += weight * value
    return total


def _log_weighted(weights: Sequence[arb], logs: Sequence[arb]) -> arb:
    total = arb(0)
    for weight, value in zip(weights, logs, strict=True):
        if not weight.is_zero():
            total += weight * value.exp()
    return _log(total)


class BallDomain(Domain):
    """Numbers and weights are Arb balls at the precision of the current context."""

    name = "enclosure evaluator"
    bytes_per_number = 120

    def __init__(self) -> None:
        self.unsure = False

    def constant(self, value: Fraction) -> NDArray[Any]:
        return scalar(_ball(value))

    def weight_table(self, model: FiniteModel, role: str, inputs: tuple[Space, ...]) -> NDArray[Any]:
        table = model.table(role, inputs)
        if table.dtype != object:  # a float table is exactly the binary numbers that it holds
            return mapped(lambda p: arb(float(p)), table)
        return mapped(_ball, table)

    def log_table(self, model: FiniteModel, role: str, inputs: tuple[Space, ...]) -> NDArray[Any]:
        key = (f"{self.name} at {flint.ctx.prec}", role)
        if key not in model.log_tables:
            model.log_tables[key] = mapped(_log, self.weight_table(model, role, inputs))
        else:
            model.table(role, inputs)  # may refuse these inputs
        return model.log_tables[key]

    def weights(self, log_density: NDArray[Any]) -> NDArray[Any]:
        return mapped(_weight, log_density)

    def weight_product(self, weights: NDArray[Any], axis: int) -> NDArray[Any]:
        return along(running_product, axis, weights)

    def times(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return a * b

    def counts(self, values: NDArray[Any]) -> NDArray[Any]:
        return mapped(arb, values)

    def add(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return a + b

    def multiply(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return a * b

    def power(self, a: NDArray[Any], exponent: Fraction) -> NDArray[Any]:
        if exponent < 0 or exponent.denominator != 1:
            self._beware_of_zero(a)
        if exponent.denominator == 1:
            return mapped(lambda base: _integer_power(base, exponent.numerator), a)
        scale = _ball(exponent)
        return mapped(lambda base: (_log(base) * scale).exp(), a)

    def exp(self, a: NDArray[Any]) -> NDArray[Any]:
        return mapped(arb.exp, a)

    def log(self, a: NDArray[Any]) -> NDArray[Any]:
        self._beware_of_zero(a)
        return mapped(_log, a)

    def _beware_of_zero(self, a: NDArray[Any]) -> None:
        self.unsure = self.unsure or any(not (ball > 0 or ball <= 0 or ball.is_nan()) for ball in a.flat)

    def choose(self, op: str, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return mapped(arb.max if op == "max" else arb.min, a, b)

    def expectation(self, weights: NDArray[Any], values: NDArray[Any], axis: int) -> NDArray[Any]:
        return along(_weighted, axis, weights, values)

    def log_expectation(self, weights: NDArray[Any], logs: NDArray[Any], axis: int) -> NDArray[Any]:
        return along(_log_weighted, axis, weights, logs)

    def reduce(self, op: str, values: NDArray[Any], axis: int) -> NDArray[Any]:
        combine = {"sum": lambda a, b: a + b, "max": arb.max, "min": arb.min}[op]

        def fold(entries: Sequence[arb]) -> arb:
            result = entries[0]
            for entry in entries[1:]:
                result = combine(result, entry)
            return result

        return along(fold, axis, values)

    def log_sum(self, logs: NDArray[Any], axis: int) -> NDArray[Any]:
        def fold(entries: Sequence[arb]) -> arb:
            return _log(sum((entry.exp() for entry in entries), arb(0)))

        return along(fold, axis, logs)


def _integer_power(base: arb, exponent: int) -> arb:
    """By squaring: flint's own power goes by the logarithm, and says nothing of a ball that straddles zero."""
    if exponent < 0:
        if base == 0:
            return arb.pos_inf()
        power = _integer_power(base, -exponent)
        return 1 / power if power > 0 or power < 0 else _WHOLE_LINE
    square = abs(base) if exponent % 2 == 0 else base
    result = arb(1)
    while exponent:
        if exponent % 2:
            result *= square
        exponent //= 2
        if exponent:
            square *= square
    return result


def evaluate(
    formula: Formula | Term, model: FiniteModel, x: int = 0, *, precision: int = 128, **parameters: Any
) -> Enclosure:
    """An interval that contains the value of a formula on a finite model, in nats.

    Args:
        formula: a function of (m, x, **parameters), or a term.
        model: the finite model.
        x: the number of the observed state.
        precision: working precision in bits; the interval shrinks as it grows.
        **parameters: the formula's own.

    Raises:
        CannotCompute: the formula is not one of finite sums, or has too many multisets of copies.
        UndefinedValue: the value is inf - inf, or the logarithm of a negative number.

    >>> from boundcheck.catalogue.objectives import renyi
    >>> model = FiniteModel(prior=[0.5, 0.5], likelihood=[[0.9, 0.1], [0.3, 0.7]], encoder=[[0.6, 0.4], [0.1, 0.9]])
    >>> value = evaluate(renyi, model, x=1, alpha="0.37")
    >>> print(value)
    [-0.917462300599 +/- 3.10e-13]
    >>> value.upper - value.lower < 1e-15
    True
    """
    term = trace(formula, **parameters)
    with flint.ctx.workprec(precision):
        domain = BallDomain()
        ball = Traversal(model, x, domain).value(term).data.item()
        if domain.unsure:  # some logarithm may have no value: nothing is known at this precision
            return Enclosure(_WHOLE_LINE)
        if ball.is_nan():
            raise UndefinedValue(term.text, f"x = {x}")
        return Enclosure(ball)
