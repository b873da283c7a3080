"""Exact real numbers c_0 + c_1 log n_1 + c_2 log n_2 + ... with rational c_i and integers n_i > 1.

Every objective of a finite model with rational probabilities is such a number, or infinite. Its sign is decidable:
over pairwise coprime integers (see `coprime`) the number is zero only if every coefficient is, since the logarithms
are then independent over the rationals (unique factorisation) and no non-zero rational is a rational combination of
them (Lindemann 1882: e to a non-zero rational power is transcendental). So balls (Johansson 2017, Arb) settle nearly
every sign, and the rare tie is settled by gcds. Sums stay unreduced until a question needs more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from flint import arb, fmpq

from boundcheck.evaluators.coprime import LogSum, over_coprime_base
from boundcheck.evaluators.log_balls import ball_of, float_of, nearest_float, sign_of
from boundcheck.evaluators.lognumber_text import Terms, combined_terms, from_json, to_json, to_sympy, to_text
from boundcheck.evaluators.rationals import (
    RATIONAL_TYPES,
    LeavesField,
    RationalLike,
    as_fmpq,
    exact_root,
    quotient_of_powers,
)

__all__ = ["NEG_INF", "ONE", "POS_INF", "UNDEFINED", "ZERO", "LeavesField", "LogNumber", "sum_of", "weighted_sum"]

_Q0, _Q1 = fmpq(0), fmpq(1)
_NO_LOGS: LogSum = {}
_FINITE, _UNDEFINED = 0, 2  # the kinds beside +1 and -1, the infinities


class LogNumber:
    """An exact extended real number: c_0 + sum_i c_i log n_i, or -inf, +inf, or undefined.

    Undefined is the result of inf - inf, 0 * inf, and the log of a negative number. It propagates through
    arithmetic; asking for its sign, order or hash raises ValueError. Arithmetic accepts int and Fraction, never
    float; a product that is not of this form raises `LeavesField`. Immutable and hashable; equal numbers compare
    equal however they were computed.

    Example:
        >>> from fractions import Fraction
        >>> gain = LogNumber.log(Fraction(9, 10)) * Fraction(1, 2) - LogNumber.log(Fraction(3, 10)) / 2
        >>> print(gain, float(gain), gain.sign())
        log(3)/2 0.5493061443340549 1
        >>> LogNumber.log(6) == LogNumber.log(2) + LogNumber.log(3)
        True
    """

    __slots__ = ("_constant", "_hash", "_kind", "_logs", "_reduced")
    _constant: fmpq
    _logs: LogSum
    _kind: int
    _reduced: LogNumber | None
    _hash: int | None

    def __init__(self) -> None:
        raise TypeError("use LogNumber.rational(q) or LogNumber.log(q)")

    @staticmethod
    def rational(value: RationalLike) -> LogNumber:
        """The rational number itself. Raises TypeError for anything else, floats included."""
        return _finite(as_fmpq(value), _NO_LOGS)

    def log(self: LogNumber | RationalLike) -> LogNumber:
        """LogNumber.log(q) or x.log(): -inf at 0, undefined below. Raises LeavesField for the log of a logarithm."""
        if isinstance(self, LogNumber):
            if self._kind:
                return POS_INF if self._kind == 1 else UNDEFINED
            if not self.is_rational:
                if self.sign() < 0:
                    return UNDEFINED
                raise LeavesField("the logarithm of a logarithm")
            rational = self._constant
        else:
            rational = as_fmpq(self)
        numerator, denominator = rational.p, rational.q
        if numerator <= 0:
            return UNDEFINED if numerator < 0 else NEG_INF
        logs: LogSum = {}
        if numerator != 1:
            logs[numerator] = _Q1
        if denominator != 1:
            logs[denominator] = -_Q1
        return _finite(_Q0, logs)

    @property
    def is_finite(self) -> bool:
        """Neither infinite nor undefined."""
        return self._kind == _FINITE

    @property
    def is_undefined(self) -> bool:
        """The result of inf - inf, 0 * inf, or the log of a negative number."""
        return self._kind == _UNDEFINED

    @property
    def is_rational(self) -> bool:
        """Decided, not guessed: log 6 - log 2 - log 3 is the rational 0."""
        return self._kind == _FINITE and (not self._logs or not self.reduced()._logs)

    def as_fraction(self) -> Fraction:
        """The value as a Fraction; raises LeavesField where it is not rational."""
        rational = _as_rational(self)
        return Fraction(int(rational.p), int(rational.q))

    def reduced(self) -> LogNumber:
        """The same number over pairwise coprime integers, without zero coefficients."""
        if self._reduced is None:
            if not self._logs:
                return self
            self._reduced = _finite(self._constant, over_coprime_base(self._logs))
            self._reduced._reduced = self._reduced
        return self._reduced

    # Arithmetic

    def __add__(self, other: object) -> LogNumber:
        right = _coerced(other)
        if right is None:
            return NotImplemented
        if self._kind or right._kind:
            return _sum_of_kinds(self._kind, right._kind)
        constant = self._constant + right._constant
        long, short = self._logs, right._logs
        if len(long) < len(short):
            long, short = short, long
        if not short:
            return _finite(constant, long)
        logs = long.copy()
        for integer, coefficient in short.items():
            present = logs.get(integer)
            if present is None:
                logs[integer] = coefficient
            elif total := present + coefficient:
                logs[integer] = total
            else:
                del logs[integer]
        return _finite(constant, logs)

    __radd__ = __add__

    def __neg__(self) -> LogNumber:
        if self._kind:
            return _OF_KIND[-self._kind]
        return _finite(-self._constant, {n: -c for n, c in self._logs.items()})

    def __sub__(self, other: object) -> LogNumber:
        right = _coerced(other)
        return NotImplemented if right is None else self + -right

    def __rsub__(self, other: object) -> LogNumber:
        return -self + other

    def __mul__(self, other: object) -> LogNumber:
        right = _coerced(other)
        if right is None:
            return NotImplemented
        if self._kind or right._kind:
            if self.is_undefined or right.is_undefined:
                return UNDEFINED
            return _OF_KIND.get(self.sign() * right.sign(), UNDEFINED)
        if not right._logs:
            return self._scaled(right._constant)
        if not self._logs:
            return right._scaled(self._constant)
        if right.is_rational:
            return self._scaled(right._constant)
        if self.is_rational:
            return right._scaled(self._constant)
        raise LeavesField("a product of two logarithms")

    __rmul__ = __mul__

    def __truediv__(self, other: object) -> LogNumber:
        """By a rational other than zero; x / 0 is undefined, unlike 0 ** -1, as zero has no side here."""
        right = _coerced(other)
        if right is None:
            return NotImplemented
        return UNDEFINED if right.is_rational and not right._constant else self * right**-1

    def __rtruediv__(self, other: object) -> LogNumber:
        left = _coerced(other)
        return NotImplemented if left is None else left / self

    def _scaled(self, factor: fmpq) -> LogNumber:
        if not factor:
            return ZERO
        if not self._logs:
            return _finite(self._constant * factor, _NO_LOGS)
        return _finite(self._constant * factor, {n: c * factor for n, c in self._logs.items()})

    def __pow__(self, exponent: LogNumber | RationalLike) -> LogNumber:
        """A rational power. x^0 = 1 for every x, infinite too; 0^-a = +inf for a > 0; undefined for a negative
        base with a fractional exponent. Raises LeavesField where the power is irrational.
        """
        power = _as_rational(exponent)
        if self.is_undefined:
            return UNDEFINED
        if not power:
            return ONE
        sign = self.sign()
        if sign < 0 and power.q != 1:
            return UNDEFINED
        if self._kind:
            negative = sign < 0 and power.p % 2 == 1
            return ZERO if power < 0 else NEG_INF if negative else POS_INF
        if sign == 0:
            return POS_INF if power < 0 else ZERO
        if power == 1:
            return self
        if not self.is_rational:
            raise LeavesField("a power of a logarithm")
        base = self._constant if power > 0 else 1 / self._constant
        if abs(power) == 1:
            return _finite(base, _NO_LOGS)
        numerator, denominator = exact_root(abs(base.p), power.q), exact_root(base.q, power.q)
        if numerator is None or denominator is None:
            raise LeavesField("an irrational power of a rational")
        exact = quotient_of_powers([(numerator, abs(power.p)), (denominator, -abs(power.p))])
        return _finite(-exact if sign < 0 and power.p % 2 == 1 else exact, _NO_LOGS)

    def exp(self) -> LogNumber:
        """exp(c_1 log n_1 + ...) = n_1^c_1 ... where that is rational; exp(-inf) = 0, exp(+inf) = +inf.

        Raises LeavesField where it is not, which includes every number with a constant c_0 other than 0.
        """
        if self._kind:
            return ZERO if self._kind == -1 else self
        if self._constant:
            raise LeavesField("the exponential of a non-zero rational")
        whole = [(n, c.p) for n, c in self._logs.items() if c.q == 1]
        # Over coprime integers a product of fractional powers is rational only if each of them is.
        for integer, coefficient in over_coprime_base({n: c for n, c in self._logs.items() if c.q != 1}).items():
            root = exact_root(integer, coefficient.q)
            if root is None:
                raise LeavesField("an irrational power of a rational")
            whole.append((root, coefficient.p))
        return _finite(quotient_of_powers(whole), _NO_LOGS)

    # Sign, order and size

    def ball(self, precision: int) -> arb:
        """An Arb ball that contains the number, computed with `precision` bits; all reals (nan) if undefined."""
        if self._kind:
            return {1: arb.pos_inf(), -1: arb.neg_inf(), _UNDEFINED: arb.nan()}[self._kind]
        return ball_of(self._constant, self._logs, precision)

    def _balls(self) -> Iterator[arb]:
        """Ever smaller balls. From the third on a zero is the exact ball 0, and a non-zero value gets separated."""
        yield self.ball(64)
        yield self.ball(256)
        reduced = self.reduced()
        precision = 512
        while True:
            yield reduced.ball(precision)
            precision *= 2

    def sign(self) -> int:
        """-1, 0 or 1, always decided. Raises ValueError if undefined."""
        if self._kind:
            if self.is_undefined:
                raise ValueError("an undefined number (inf - inf, 0 * inf, log of a negative) has no sign or order")
            return self._kind
        if not self._logs:
            return (self._constant > 0) - (self._constant < 0)
        return sign_of(self._balls())

    def _order(self, other: object) -> int | None:
        """The sign of self - other, or None for what is not a number."""
        right = _coerced(other)
        if right is None:
            return None
        if self._kind or right._kind:
            return (self.sign() if self._kind else 0) - (right.sign() if right._kind else 0)
        return 0 if self is right else (self - right).sign()

    def __eq__(self, other: object) -> bool:
        order = self._order(other)
        return NotImplemented if order is None else order == 0

    def __lt__(self, other: object) -> bool:
        order = self._order(other)
        return NotImplemented if order is None else order < 0

    def __le__(self, other: object) -> bool:
        order = self._order(other)
        return NotImplemented if order is None else order <= 0

    def __gt__(self, other: object) -> bool:
        order = self._order(other)
        return NotImplemented if order is None else order > 0

    def __ge__(self, other: object) -> bool:
        order = self._order(other)
        return NotImplemented if order is None else order >= 0

    def __bool__(self) -> bool:
        return self.sign() != 0

    def __hash__(self) -> int:
        if self._hash is None:
            if self._kind:
                self._hash = hash(self.sign() * math.inf)
            elif self.is_rational:
                self._hash = hash(self.as_fraction())
            else:
                self._hash = hash(float(self))  # the nearest float depends on the value alone
        return self._hash

    def __float__(self) -> float:
        """The nearest float, under any cancellation; +-inf beyond the floats' range, nan if undefined."""
        if self._kind:
            return math.nan if self.is_undefined else self._kind * math.inf
        if not self._logs:
            return nearest_float(self._constant)
        return float_of(self._balls())

    # Text and files

    def terms(self) -> Terms:
        """(c_0, [(c_1, r_1), ...]): the finite number as c_0 + sum_i c_i log r_i with rationals r_i > 1, for people."""
        reduced = self.reduced()
        return reduced._constant, combined_terms(reduced._logs)

    def __str__(self) -> str:
        return to_text(self.terms()) if self.is_finite else {1: "inf", -1: "-inf"}.get(self._kind, "undefined")

    def __repr__(self) -> str:
        return f"LogNumber({self})"

    def to_sympy(self) -> Any:
        """The number as a sympy expression; sympy.oo and sympy.nan for the others. Imports sympy."""
        return to_sympy(self.terms() if self.is_finite else float(self))

    def to_json(self) -> dict[str, Any]:
        """Exact and JSON-ready: {"constant": "1/2", "logs": [["5", "1"], ["3", "-1"]]}; {"infinite": "-"}."""
        if self.is_finite:
            return to_json(self._constant, self.reduced()._logs)
        return {"undefined": True} if self.is_undefined else {"infinite": "+" if self._kind == 1 else "-"}

    @staticmethod
    def from_json(data: object) -> LogNumber:
        """The inverse of `to_json`. Raises BadInput for anything that `to_json` does not write."""
        content = from_json(data)
        if not isinstance(content, tuple):
            return UNDEFINED if math.isnan(content) else _OF_KIND[1 if content > 0 else -1]
        return _finite(*content)


def sum_of(values: Iterable[LogNumber | RationalLike]) -> LogNumber:
    """The sum of many numbers, without the intermediate ones.

    Example:
        >>> print(sum_of([LogNumber.log(5), -LogNumber.log(3), 1]))
        1 + log(5/3)
    """
    return _accumulated((_Q1, value) for value in values)


def weighted_sum(weights: Iterable[LogNumber | RationalLike], values: Iterable[LogNumber | RationalLike]) -> LogNumber:
    """sum_i w_i v_i with rational w_i >= 0, where 0 v = 0 for every v, infinite or undefined: 0 log 0 = 0.

    Raises ValueError for a negative weight or unequal lengths, LeavesField for an irrational weight.

    Example:
        >>> from fractions import Fraction
        >>> probabilities = [Fraction(1, 3), Fraction(2, 3), 0]
        >>> print(weighted_sum(probabilities, [LogNumber.log(p) for p in probabilities]))
        -log(27/4)/3
    """
    return _accumulated(zip(weights, values, strict=True))


def _accumulated(pairs: Iterable[tuple[LogNumber | RationalLike, LogNumber | RationalLike]]) -> LogNumber:
    constant, logs, kind = _Q0, LogSum(), _FINITE
    for given_weight, given_value in pairs:
        weight = given_weight if type(given_weight) is fmpq else _as_rational(given_weight)
        if not weight:
            continue
        if weight < 0:
            raise ValueError(f"a weight is negative: {weight}")
        value = given_value if isinstance(given_value, LogNumber) else LogNumber.rational(given_value)
        if value._kind:
            kind = _sum_of_kinds(kind, value._kind)._kind
            continue
        if value._constant:
            constant += weight * value._constant
        for integer, coefficient in value._logs.items():
            present = logs.get(integer)
            term = weight * coefficient
            logs[integer] = term if present is None else present + term
    return _OF_KIND[kind] if kind else _finite(constant, {n: c for n, c in logs.items() if c})


_new = object.__new__


def _finite(constant: fmpq, logs: LogSum) -> LogNumber:
    number = _new(LogNumber)
    number._constant = constant
    number._logs = logs
    number._kind = _FINITE
    number._reduced = number._hash = None
    return number


def _special(kind: int) -> LogNumber:
    number = _finite(_Q0, _NO_LOGS)
    number._kind = kind
    return number


ZERO, ONE = _finite(_Q0, _NO_LOGS), _finite(_Q1, _NO_LOGS)
NEG_INF, POS_INF, UNDEFINED = _special(-1), _special(1), _special(_UNDEFINED)
_OF_KIND = {-1: NEG_INF, 1: POS_INF, _UNDEFINED: UNDEFINED, -_UNDEFINED: UNDEFINED}


def _sum_of_kinds(left: int, right: int) -> LogNumber:
    """The sum of two numbers of these kinds, not both finite."""
    return _OF_KIND[left or right] if left == right or not (left and right) else UNDEFINED


def _as_rational(value: object) -> fmpq:
    if not isinstance(value, LogNumber):
        return as_fmpq(value)
    if not value.is_rational:
        raise LeavesField("an irrational or infinite number where a rational is needed")
    return value._constant


def _coerced(value: object) -> LogNumber | None:
    if isinstance(value, LogNumber):
        return value
    if isinstance(value, float):
        raise TypeError("an exact number is combined and compared with int and Fraction, not with float")
    return _finite(as_fmpq(value), _NO_LOGS) if isinstance(value, RATIONAL_TYPES) else None
