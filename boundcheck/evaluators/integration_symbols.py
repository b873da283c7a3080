"""Numbers that a certified integration calls a model's functions with.

A likelihood or an encoder is an ordinary Python function, and what it does to z decides how far the integrand can
grow. So it is called once with a `Symbol`, which remembers what was done to it. A symbol that met only `+ - * /` with
constants is an affine function a + b z with exact (or ball) coefficients, and that is then a proof, not a guess. What
met an elementary function is kept as an expression that can be evaluated on complex balls. Anything else (a
comparison, abs of a complex number, a conversion to float) is refused, because on complex balls it would silently be
another function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, NoReturn, TypeAlias

import numpy as np
from flint import acb, arb, fmpq, fmpz

from boundcheck.errors import BadInput

Coefficient: TypeAlias = Any
"""An exact rational (`fmpq`), or an Arb ball where a number is not rational."""


class NotAffine(Exception):
    """A function of z is not affine where an affine one is needed."""


def exact(value: Any, name: str = "a parameter") -> Coefficient:
    """A number exactly: a float is the binary number that it holds, text and Fraction what they say.

    Raises:
        BadInput: NaN, an infinity, or no number at all.
    """
    if isinstance(value, fmpq | arb):
        return value
    if isinstance(value, Symbol):
        return value.constant(name)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadInput(name, value, "a finite number")
        return fmpq(*value.as_integer_ratio())
    if isinstance(value, int | fmpz):
        return fmpq(int(value))
    if isinstance(value, str | Fraction | Decimal):
        try:
            fraction = Fraction(value)
        except (ValueError, OverflowError, ZeroDivisionError):
            raise BadInput(name, value, "a finite number") from None
        return fmpq(fraction.numerator, fraction.denominator)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return exact(value[()], name)
    raise BadInput(name, value, "a number", "a certified integral needs the parameters of one model")


def is_zero(value: Coefficient) -> bool:
    """True only if the number is zero for sure."""
    return bool(value == 0)


class Symbol:
    """A function of one real variable z: a + b z, or an expression built from such."""

    __slots__ = ("args", "function", "intercept", "slope")
    is_symbol = True
    __array_ufunc__ = None  # numpy numbers on the left leave the operation to us

    def __init__(
        self,
        intercept: Coefficient = None,
        slope: Coefficient = None,
        function: Callable[..., Any] | None = None,
        args: tuple[Symbol, ...] = (),
    ) -> None:
        self.intercept, self.slope, self.function, self.args = intercept, slope, function, args

    @property
    def affine(self) -> bool:
        """True if the function is a + b z, proven by how it was computed."""
        return self.function is None

    @property
    def is_constant(self) -> bool:
        """True if the function is a number."""
        return self.function is None and is_zero(self.slope)

    def constant(self, name: str = "a parameter") -> Coefficient:
        """The number that a constant function is.

        Raises:
            NotAffine: the function depends on z.
        """
        if not self.is_constant:
            raise NotAffine(f"{name} depends on the variable of integration")
        return self.intercept

    def at(self, z: acb, analytic: bool) -> acb:
        """The value on a complex ball, nan where `analytic` is asked for and the function may not be."""
        if self.function is None:
            return acb(self.intercept) + acb(self.slope) * z
        return self.function(analytic, *(arg.at(z, analytic) for arg in self.args))

    # --- arithmetic ---

    def _with(self, other: Any) -> Symbol | None:
        if isinstance(other, Symbol):
            return other
        try:
            return Symbol(exact(other), fmpq(0))
        except BadInput:
            return None

    def __add__(self, other: Any) -> Symbol:
        right = self._with(other)
        if right is None:
            return NotImplemented
        if self.affine and right.affine:
            return Symbol(self.intercept + right.intercept, self.slope + right.slope)
        return Symbol(function=_add, args=(self, right))

    __radd__ = __add__

    def __neg__(self) -> Symbol:
        return self * -1

    def __pos__(self) -> Symbol:
        return self

    def __sub__(self, other: Any) -> Symbol:
        right = self._with(other)
        return NotImplemented if right is None else self + -right

    def __rsub__(self, other: Any) -> Symbol:
        return -self + other

    def __mul__(self, other: Any) -> Symbol:
        right = self._with(other)
        if right is None:
            return NotImplemented
        for a, b in ((self, right), (right, self)):
            if a.is_constant and b.affine:
                return Symbol(a.intercept * b.intercept, a.intercept * b.slope)
        return Symbol(function=_multiply, args=(self, right))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Symbol:
        right = self._with(other)
        if right is None:
            return NotImplemented
        if right.is_constant:
            if is_zero(right.intercept):
                raise BadInput("a divisor", 0, "a number other than zero")
            return self * (1 / right.intercept)
        return Symbol(function=_divide, args=(self, right))

    def __rtruediv__(self, other: Any) -> Symbol:
        left = self._with(other)
        return NotImplemented if left is None else left / self

    def __pow__(self, exponent: Any) -> Symbol:
        power = int(exponent) if isinstance(exponent, int | float | Fraction) and exponent == int(exponent) else None
        if power is None or power < 0:
            self._refuse("a power that is not a whole number >= 0")
        result: Symbol = Symbol(fmpq(1), fmpq(0))
        for _ in range(power):
            result = result * self
        return result

    # --- elementary functions, found by numpy and by `models.arithmetic` ---

    def _apply(self, function: Callable[..., Any]) -> Symbol:
        if self.is_constant:
            value = function(True, acb(self.intercept))
            if not (value.is_finite() and value.imag == 0):
                raise BadInput("a parameter", str(self.intercept), "a number in the domain of the function applied")
            return Symbol(value.real, fmpq(0))
        return Symbol(function=function, args=(self,))

    def exp(self) -> Symbol:
        return self._apply(lambda analytic, v: v.exp())

    def log(self) -> Symbol:
        return self._apply(lambda analytic, v: v.log(analytic=analytic))

    def sqrt(self) -> Symbol:
        return self._apply(lambda analytic, v: v.sqrt(analytic=analytic))

    def tanh(self) -> Symbol:
        return self._apply(lambda analytic, v: v.tanh())

    def softplus(self) -> Symbol:
        return self._apply(lambda analytic, v: (1 + v.exp()).log(analytic=analytic))

    def log_gamma(self) -> Symbol:
        return self._apply(lambda analytic, v: v.lgamma() if not analytic or v.real > 0 else acb("nan"))

    def __abs__(self) -> Symbol:
        return self._apply(lambda analytic, v: v.real_abs(analytic=analytic))

    # --- what would not mean on complex balls what it says ---

    def _refuse(self, what: str) -> NoReturn:
        raise NotAffine(f"a function of the model uses {what} of the variable of integration")

    def __eq__(self, other: object) -> bool:
        right = self._with(other)
        if right is None:
            return False
        if self.is_constant and right.is_constant:
            return bool(self.intercept == right.intercept)
        self._refuse("a comparison")

    def __hash__(self) -> int:
        return hash(self._fraction())

    def _fraction(self) -> Fraction:
        if self.is_constant and isinstance(self.intercept, fmpq):
            return Fraction(int(self.intercept.p), int(self.intercept.q))
        self._refuse("the exact value")

    def __lt__(self, other: Any) -> bool:
        return (self - other)._sign("a comparison") < 0

    def __gt__(self, other: Any) -> bool:
        return (self - other)._sign("a comparison") > 0

    def __le__(self, other: Any) -> bool:
        return (self - other)._sign("a comparison") <= 0

    def __ge__(self, other: Any) -> bool:
        return (self - other)._sign("a comparison") >= 0

    def _sign(self, what: str) -> int:
        if not self.is_constant:
            self._refuse(what)
        value = self.intercept
        if is_zero(value):
            return 0
        if value > 0:
            return 1
        if value < 0:
            return -1
        self._refuse(what + " that the working precision cannot decide")

    def __bool__(self) -> bool:
        return self._sign("a truth value") != 0

    def __index__(self) -> int:
        fraction = self._fraction()
        if fraction.denominator != 1:
            raise TypeError(f"{fraction} is not a whole number")
        return fraction.numerator

    __int__ = __index__

    def __float__(self) -> float:
        self._refuse("a conversion to float")

    def __repr__(self) -> str:
        return f"{self.intercept} + {self.slope} z" if self.affine else "an expression in z"


def _add(analytic: bool, a: acb, b: acb) -> acb:
    return a + b


def _multiply(analytic: bool, a: acb, b: acb) -> acb:
    return a * b


def _divide(analytic: bool, a: acb, b: acb) -> acb:
    return a / b


def variable() -> Symbol:
    """z itself."""
    return Symbol(fmpq(0), fmpq(1))


def as_symbol(value: Any) -> Symbol:
    """A number as a constant function."""
    return value if isinstance(value, Symbol) else Symbol(exact(value), fmpq(0))
