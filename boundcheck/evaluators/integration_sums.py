"""Functions of z as sums of exp(form) times forms, and their algebra.

What a formula does with densities before it integrates stays in this shape: a density is exp(form), a log-density a
form, and sums, products, powers and the logarithm of a sum of densities lead from one such function to another. A
number is the case without z. What leaves the shape is refused, with the term named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, TypeAlias

from flint import arb, fmpq

from boundcheck.errors import CannotCompute, UndefinedValue
from boundcheck.evaluators.integration_atoms import Growth
from boundcheck.evaluators.integration_forms import Form, LogSum, log_sum
from boundcheck.evaluators.integration_numbers import Unbounded
from boundcheck.evaluators.integration_symbols import is_zero
from boundcheck.language.terms import Term

NAME = "certified integration"
MOST_PARTS = 64
"""The largest number of addends that mixtures are multiplied out to."""

Addend: TypeAlias = tuple[Any, Form, tuple[Form, ...]]
"""(coefficient, exponent, factors): coefficient * exp(exponent(z)) * prod factor(z)."""


class Sum:
    """A function of z: a sum of addends."""

    def __init__(self, addends: Sequence[Addend]) -> None:
        self.addends = tuple(addends)


Value: TypeAlias = Any
"""A number (`fmpq` or `arb`), a `Form`, or a `Sum`."""


def cannot(term: Term, reason: str) -> NoReturn:
    """Refuse a term.

    Raises:
        CannotCompute: always, with the reason.
    """
    raise CannotCompute(NAME, term.text, f"{reason}; quadrature can estimate it")


def as_form(value: Any) -> Form:
    """A number as a form: exact ones stay exact."""
    return Form(p0=value) if isinstance(value, fmpq) else Form(c=value)


def _as_sum(value: Value) -> Sum:
    if isinstance(value, Sum):
        return value
    return Sum([(fmpq(1), Form(), (value,))] if isinstance(value, Form) else [(value, Form(), ())])


def add(values: Sequence[Value]) -> Value:
    """The sum of numbers, forms and sums."""
    number: Any = fmpq(0)
    form: Form | None = None
    addends: list[Addend] = []
    for value in values:
        if isinstance(value, Sum):
            addends.extend(value.addends)
        elif isinstance(value, Form):
            form = value if form is None else form + value
        else:
            number = number + value
    if form is None and not addends:
        return number
    if not addends:
        assert form is not None
        return form + as_form(number)
    if form is not None:
        addends.append((fmpq(1), Form(), (form + as_form(number),)))
    elif not is_zero(number):
        addends.append((number, Form(), ()))
    return Sum(addends)


def multiply(values: Sequence[Value]) -> Value:
    """The product of numbers, forms and sums; 0 times anything is 0."""
    result: Value = fmpq(1)
    for value in values:
        if any(not isinstance(v, Form | Sum) and is_zero(v) for v in (result, value)):
            result = fmpq(0)
        elif isinstance(result, Form | Sum) and isinstance(value, Form | Sum):
            left, right = _as_sum(result), _as_sum(value)
            result = Sum([(a * b, f + g, p + q) for a, f, p in left.addends for b, g, q in right.addends])
        elif isinstance(result, Form | Sum) or isinstance(value, Form | Sum):
            function, number = (result, value) if isinstance(result, Form | Sum) else (value, result)
            if isinstance(function, Form):
                result = function.scaled(number)
            else:
                result = Sum([(a * number, f, p) for a, f, p in function.addends])
        else:
            result = result * value
    return result


def quotient(numerator: arb, denominator: arb) -> arb:
    """numerator / denominator, of an integral and the one that normalises it.

    Raises:
        Unbounded: the denominator is not positive and finite for sure.
    """
    if not denominator.is_finite() or not denominator > 0:
        raise Unbounded("a density that cannot be normalised")
    return numerator / denominator


def expanded(weight: Form, body: Value) -> list[Addend]:
    """Addends that are as simple as can be: mixtures multiplied out, growing exponentials moved into exponents."""
    pending = [(coefficient, form + weight, factors) for coefficient, form, factors in _as_sum(body).addends]
    done: list[Addend] = []
    while pending:
        if len(pending) + len(done) > MOST_PARTS:
            return _as_plain(weight, body)
        coefficient, exponent, factors = pending.pop()
        simpler = _split(coefficient, exponent, factors)
        if simpler is None:
            done.append((coefficient, exponent, factors))
        else:
            pending.extend(simpler)
    return done


def _as_plain(weight: Form, body: Value) -> list[Addend]:
    return [(coefficient, form + weight, factors) for coefficient, form, factors in _as_sum(body).addends]


def _split(coefficient: Any, exponent: Form, factors: tuple[Form, ...]) -> list[Addend] | None:
    for i, (atom, k) in enumerate(exponent.atoms):
        if isinstance(atom, LogSum) and isinstance(k, fmpq) and k >= 1:
            others = exponent.atoms[:i] + exponent.atoms[i + 1 :]
            kept = ((atom, k - 1),) if k > 1 else ()
            rest = Form(exponent.c, exponent.p0, exponent.p1, exponent.p2, others + kept, exponent.walls)
            return [(coefficient, rest + form, factors) for form in atom.forms]
    for j, factor in enumerate(factors):
        others = factors[:j] + factors[j + 1 :]
        if factor.is_constant:
            return [(coefficient * factor.constant, exponent, others)]
        for i, (atom, k) in enumerate(factor.atoms):
            if isinstance(atom, Growth):
                rest = Form(
                    factor.c, factor.p0, factor.p1, factor.p2, factor.atoms[:i] + factor.atoms[i + 1 :], factor.walls
                )
                grown = exponent + Form(p0=atom.b, p1=atom.a)
                return [(coefficient, exponent, (*others, rest)), (coefficient * k, grown, others)]
    return None


def exponential_of(value: Value, term: Term) -> Value:
    """exp of a number or of a form.

    Raises:
        CannotCompute: a function of z that is not a form.
    """
    if isinstance(value, Form):
        return value.constant.exp() if value.is_constant else Sum([(fmpq(1), value, ())])
    if isinstance(value, Sum):
        cannot(term, "the exponential of a function of z that is not a sum of log-densities")
    return arb(value).exp()


def logarithm_of(value: Value, term: Term) -> Value:
    """log of a number or of a sum of densities.

    Raises:
        CannotCompute: a function of z that is not a sum of densities.
        UndefinedValue: a number that is negative for sure.
        Unbounded: a number that may be zero at this precision.
    """
    if isinstance(value, Sum):
        if any(factors or not coefficient > 0 for coefficient, _, factors in value.addends):
            cannot(term, "the logarithm of a function of z that is not a sum of densities")
        return log_sum([form + Form(arb(coefficient).log()) for coefficient, form, _ in value.addends])
    if isinstance(value, Form):
        if not value.is_constant:
            cannot(term, "the logarithm of a log-density")
        value = value.constant
    ball = arb(value)
    if ball.is_finite() and ball > 0:
        return ball.log()
    if ball == 0:
        return arb.neg_inf()
    if not ball.is_finite() and ball > 0 and ball.rad() == 0:
        return arb.pos_inf()
    if ball < 0:
        raise UndefinedValue(term.text, "this observation")
    raise Unbounded("the logarithm of a number that may be zero at this precision")


def power_of(value: Value, power: fmpq, term: Term) -> Value:
    """A power of a number, of a density (any power) or of another function of z (0, 1, ..., 32).

    Raises:
        CannotCompute: another power of a function of z.
    """
    if isinstance(value, Sum) and len(value.addends) == 1 and not value.addends[0][2]:
        coefficient, form, _ = value.addends[0]
        if coefficient > 0:
            return Sum([(arb(coefficient) ** power, form.scaled(power), ())])
    if isinstance(value, Form | Sum):
        if power.q != 1 or power < 0 or power > 32:
            cannot(term, f"the power {power} of a function of z")
        return multiply([value] * int(power.p))
    if power.q == 1 and isinstance(value, fmpq) and not (is_zero(value) and power < 0):
        return value ** int(power.p)
    return arb(value) ** power
