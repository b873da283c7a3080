"""Log forms: R_0(t) + sum_i R_i(t) log f_i(t), the functions of a model's parameters t that most objectives are.

The R_i are rational functions over the rationals, the f_i distinct irreducible polynomials (or primes). Such logarithms
are linearly independent over the rational functions: continued once around a generic point of the zero set of one f_i,
a sum gains 2 pi i R_i and no other R_j, so a sum that vanishes has R_i = 0; what is left, with primes only, is decided
at rational points, where R_0 + sum_p R_p log p = 0 needs all R = 0 (unique factorisation, and Lindemann's theorem for
R_0). So a log form is the zero function exactly if every coefficient is the zero polynomial. Polynomials, their
greatest common divisors and their factors are FLINT's (fmpz_mpoly).

A logarithm is taken only of what is positive on the whole domain. Every f_i then keeps one sign there, and is stored
with the sign that makes it positive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

from flint import Ordering, fmpq, fmpz, fmpz_mpoly_ctx

from boundcheck.evaluators.lognumber import LeavesField

Polynomial: TypeAlias = Any
"""A FLINT fmpz_mpoly."""


class OutOfBudget(Exception):
    """A proof needs more time or larger polynomials than it was allowed."""


@dataclass(slots=True)
class Ratio:
    """A rational function in lowest terms; with `trouble` it has no value, for that reason.

    Trouble is no error until a result depends on it: an array over states may hold combinations that nothing reads.
    """

    num: Polynomial
    den: Polynomial
    trouble: str = ""


@dataclass(frozen=True)
class LogForm:
    """A log form: `rest` is R_0, `logs` maps the name of an atom to its coefficient R_i, never zero."""

    rest: Ratio
    logs: Mapping[str, Ratio]


class LogForms:
    """Arithmetic of log forms in some parameters.

    Args:
        names: the parameters.
        inside: a point of the domain, which fixes the sign of every polynomial that has no zero there.
        positive: whether a polynomial is positive on the domain, as far as its form shows it.
        seconds: after how long a computation gives up.
        most_terms: the largest polynomial, in terms, that is multiplied or factored.

    >>> forms = LogForms(["q"], [Fraction(1, 2)])
    >>> q = forms.parameter("q")
    >>> entropy = forms.times(forms.minus(q), forms.log(q))
    >>> print(forms.text(forms.derivative(entropy, 0)))
    (-1) + (-1)*log(q)
    """

    def __init__(
        self,
        names: Sequence[str],
        inside: Sequence[Fraction],
        positive: Callable[[Polynomial], bool] | None = None,
        seconds: float = 60.0,
        most_terms: int = 5_000,
    ) -> None:
        self.names = tuple(names)
        self.ring = fmpz_mpoly_ctx.get(list(names) or ["none"], Ordering.lex)
        self.inside = [_fmpq(value) for value in inside] or [fmpq(1)]
        self.positive = positive or has_positive_coefficients
        self.deadline = time.monotonic() + seconds
        self.most_terms = most_terms
        self.one_polynomial = self.ring.constant(1)
        self.zero = Ratio(self.ring.constant(0), self.one_polynomial)
        self.one = Ratio(self.one_polynomial, self.one_polynomial)
        self.atoms: dict[str, Polynomial] = {}
        self.choices: dict[str, LogForm] = {}
        self._factored: dict[str, dict[str, int]] = {}
        self._signs: dict[str, int] = {}

    # --- rational functions ---

    def ratio(self, value: Fraction | int) -> Ratio:
        """A rational number."""
        return Ratio(self.ring.constant(value.numerator), self.ring.constant(value.denominator))

    def parameter(self, name: str) -> Ratio:
        """A parameter."""
        return Ratio(self.ring.gens()[self.names.index(name)], self.one_polynomial)

    def troubled(self, reason: str) -> Ratio:
        """A rational function without a value."""
        return Ratio(self.one_polynomial, self.one_polynomial, reason)

    def reduced(self, num: Polynomial, den: Polynomial) -> Ratio:
        """num / den in lowest terms."""
        if time.monotonic() > self.deadline:
            raise OutOfBudget("the time that was allowed is spent")
        if len(num) > self.most_terms or len(den) > self.most_terms:
            raise OutOfBudget(f"a polynomial has more than {self.most_terms} terms")
        if num.is_zero():
            return self.zero
        if not den.is_one():
            common = num.gcd(den)
            if not common.is_one():
                num, den = num / common, den / common
            if den.leading_coefficient() < 0:
                num, den = -num, -den
        return Ratio(num, den)

    def plus(self, *parts: Ratio) -> Ratio:
        """A sum."""
        total = self.zero
        for part in parts:
            if part.trouble:
                return part
            if total.den == part.den:
                total = self.reduced(total.num + part.num, total.den)
            else:
                total = self.reduced(total.num * part.den + part.num * total.den, total.den * part.den)
        return total

    def times_ratio(self, a: Ratio, b: Ratio) -> Ratio:
        """A product."""
        if a.trouble or b.trouble:
            return a if a.trouble else b
        if a.num.is_zero() or b.num.is_zero():
            return self.zero
        return self.reduced(a.num * b.num, a.den * b.den)

    def minus(self, a: Ratio) -> Ratio:
        """The negative."""
        return Ratio(-a.num, a.den, a.trouble)

    def inverse(self, a: Ratio) -> Ratio:
        """1 / a."""
        if a.trouble or a.num.is_zero():
            return a if a.trouble else self.troubled("a division by zero")
        return self.reduced(a.den, a.num)

    def power(self, a: Ratio, exponent: int) -> Ratio:
        """An integer power."""
        base = a if exponent >= 0 else self.inverse(a)
        if base.trouble:
            return base
        return self.reduced(base.num ** abs(exponent), base.den ** abs(exponent))

    # --- log forms ---

    def form(self, value: Ratio) -> LogForm:
        """A rational function as a log form."""
        return LogForm(value, {})

    def add(self, a: LogForm, b: LogForm) -> LogForm:
        """a + b."""
        return self.weighted([self.one, self.one], [a, b])

    def subtract(self, a: LogForm, b: LogForm) -> LogForm:
        """a - b."""
        return self.weighted([self.one, self.minus(self.one)], [a, b])

    def times(self, weight: Ratio, a: LogForm) -> LogForm:
        """A rational function times a log form."""
        return self.weighted([weight], [a])

    def weighted(self, weights: Iterable[Ratio], values: Iterable[LogForm]) -> LogForm:
        """sum_i w_i v_i."""
        rest, logs = self.zero, dict[str, Ratio]()
        for weight, value in zip(weights, values, strict=True):
            if weight.num.is_zero():
                continue
            rest = self.plus(rest, self.times_ratio(weight, value.rest))
            for name, coefficient in value.logs.items():
                part = self.times_ratio(weight, coefficient)
                logs[name] = self.plus(logs[name], part) if name in logs else part
        return LogForm(rest, {name: c for name, c in logs.items() if not c.num.is_zero()})

    def multiply(self, a: LogForm, b: LogForm) -> LogForm:
        """a * b, where one of them has no logarithm."""
        if a.logs and b.logs:
            raise LeavesField("a product of two logarithms")
        return self.times(b.rest, a) if a.logs else self.times(a.rest, b)

    def is_zero(self, a: LogForm) -> bool:
        """True exactly if the log form is the zero function (with `choose`: if it is seen to be)."""
        return a.rest.num.is_zero() and not a.rest.trouble and not a.logs

    def log(self, a: Ratio, known_positive: bool = False) -> LogForm:
        """log a, for an a that is positive on the whole domain, by `known_positive` or as `positive` shows."""
        if a.trouble or a.num.is_zero():
            return self.form(a if a.trouble else self.troubled("a logarithm of zero"))
        counts: dict[str, int] = {}
        for polynomial, sign in ((a.num, 1), (a.den, -1)):
            if not (known_positive or self.positive(polynomial) or self.positive(-polynomial)):
                return self.form(self.troubled("a logarithm of what is not positive by its form"))
            for name, times in self._factors(polynomial).items():
                counts[name] = counts.get(name, 0) + sign * times
        if self._sign(a.num) * self._sign(a.den) <= 0:
            return self.form(self.troubled("a logarithm of a negative number"))
        return LogForm(self.zero, {name: self.ratio(times) for name, times in counts.items() if times})

    def _factors(self, polynomial: Polynomial) -> dict[str, int]:
        """How often each atom divides a polynomial."""
        key = str(polynomial)
        if key not in self._factored:
            content, factors = polynomial.factor()
            found: dict[str, int] = {}
            for prime, times in fmpz(abs(int(content))).factor():
                found[self._atom(self.ring.constant(int(prime)))] = int(times)
            for factor, times in factors:
                found[self._atom(factor if self._sign(factor) > 0 else -factor)] = int(times)
            self._factored[key] = found
        return self._factored[key]

    def _atom(self, polynomial: Polynomial) -> str:
        name = str(polynomial)
        self.atoms.setdefault(name, polynomial)
        return name

    def _sign(self, polynomial: Polynomial) -> int:
        """The sign at the point inside the domain."""
        key = str(polynomial)
        if key not in self._signs:
            value = evaluated(polynomial, self.inside, fmpq(0))
            self._signs[key] = (value > 0) - (value < 0)
        return self._signs[key]

    def exp(self, a: LogForm) -> Ratio:
        """exp a, for an integer combination of logarithms."""
        if a.rest.trouble:
            return a.rest
        if not a.rest.num.is_zero():
            raise LeavesField("an exponential of a number that is no logarithm")
        result = self.one
        for name, coefficient in a.logs.items():
            if name in self.choices or not (coefficient.num.is_constant() and coefficient.den.is_constant()):
                raise LeavesField("an exponential of a logarithm with a variable coefficient")
            if not coefficient.den.is_one():
                raise FractionalPower("a power that is no integer")
            factor = Ratio(self.atoms[name], self.one_polynomial)
            result = self.times_ratio(result, self.power(factor, int(coefficient.num.leading_coefficient())))
        return result

    def choose(self, op: str, a: LogForm, b: LogForm) -> LogForm:
        """max or min, as an atom of its own: max(a, b) = a + max(0, b - a); it only cancels against its like."""
        if op == "min":
            return self.subtract(self.add(a, b), self.choose("max", a, b))
        difference = self.subtract(b, a)
        if difference.rest.trouble:
            return difference
        if self.is_zero(difference):
            return a
        name, opposite = (f"max(0, {self.text(d)})" for d in (difference, self.times(self.minus(self.one), difference)))
        if opposite in self.choices:  # max(0, d) = d + max(0, -d)
            return self.add(b, LogForm(self.zero, {opposite: self.one}))
        self.choices[name] = difference
        return self.add(a, LogForm(self.zero, {name: self.one}))

    def derivative(self, a: LogForm, i: int) -> LogForm:
        """The derivative in the i-th parameter."""
        rest, logs = self._ratio_derivative(a.rest, i), dict[str, Ratio]()
        for name, coefficient in a.logs.items():
            if name in self.choices:
                raise LeavesField("a maximum has no derivative")
            slope = self._ratio_derivative(coefficient, i)
            if not slope.num.is_zero():
                logs[name] = slope
            atom = self.atoms[name]
            steepness = self.reduced(atom.derivative(i), atom)
            rest = self.plus(rest, self.times_ratio(coefficient, steepness))
        return LogForm(rest, logs)

    def _ratio_derivative(self, a: Ratio, i: int) -> Ratio:
        slope = a.num.derivative(i) * a.den - a.num * a.den.derivative(i)
        return self.reduced(slope, a.den * a.den)

    def text(self, a: LogForm) -> str:
        """The log form as text: equal forms print alike."""

        def ratio(r: Ratio) -> str:
            return f"({r.num})" if r.den.is_one() else f"({r.num})/({r.den})"

        parts = [] if a.rest.num.is_zero() else [ratio(a.rest)]
        for name in sorted(a.logs):
            parts.append(f"{ratio(a.logs[name])}*" + (name if name in self.choices else f"log({name})"))
        return " + ".join(parts) or "0"


class FractionalPower(LeavesField):
    """A power of a parameter that is no integer: other parameters may serve."""


# --- polynomials ---------------------------------------------------------------------------------------------------


def has_positive_coefficients(polynomial: Polynomial) -> bool:
    """True if a polynomial is positive for positive parameters because all its coefficients are."""
    return not polynomial.is_zero() and all(c > 0 for c in polynomial.coeffs())


def evaluated(polynomial: Polynomial, point: Sequence[Any], zero: Any) -> Any:
    """The value of a polynomial at numbers of any kind."""
    total = zero
    for exponents, coefficient in polynomial.to_dict().items():
        term = zero + int(coefficient)
        for base, exponent in zip(point, exponents, strict=True):
            if exponent:
                term = term * base ** int(exponent)
        total = total + term
    return total


def positive_on_simplices(polynomial: Polynomial, rows: Sequence[Sequence[int]]) -> bool:
    """True if a polynomial is positive where each row's parameters are positive and sum to less than one.

    Sufficient only: for each row, the missing entry h joins the others as a homogeneous coordinate, that is, every
    monomial is multiplied by (sum of the row)^(what its degree lacks); then all coefficients have to be positive.
    """
    terms = {tuple(map(int, e)): int(c) for e, c in polynomial.to_dict().items()}
    if not terms:
        return False
    width = len(next(iter(terms)))
    ring = fmpz_mpoly_ctx.get([f"a{i}" for i in range(width + len(rows))], Ordering.lex)
    gens = ring.gens()
    degrees = [max(sum(e[i] for i in row) for e in terms) for row in rows]
    total = ring.constant(0)
    for exponents, coefficient in terms.items():
        term = ring.constant(coefficient)
        for i, exponent in enumerate(exponents):
            if exponent:
                term *= gens[i] ** exponent
        for r, row in enumerate(rows):
            lacking = degrees[r] - sum(exponents[i] for i in row)
            if lacking:
                term *= sum((gens[i] for i in row), gens[width + r]) ** lacking
        total += term
    return has_positive_coefficients(total)


def _fmpq(value: Fraction | int) -> fmpq:
    return fmpq(value.numerator, value.denominator)


__all__ = [
    "FractionalPower",
    "LogForm",
    "LogForms",
    "OutOfBudget",
    "Polynomial",
    "Ratio",
    "evaluated",
    "has_positive_coefficients",
    "positive_on_simplices",
]
