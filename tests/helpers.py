"""What several tests share: oracle models as finite models, and values beside each other with their guarantees."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from random import Random
from typing import Any

import flint
import mpmath
import oracle
from mpmath import mp

from boundcheck.errors import BadInput, UndefinedValue
from boundcheck.evaluators import enclosure, exact, floating
from boundcheck.language.terms import Term
from boundcheck.models.finite import FiniteModel

F = Fraction


def finite(model: oracle.Model) -> FiniteModel:
    """The oracle's model as the package's."""
    return FiniteModel(
        prior=model.prior,
        likelihood=model.likelihood,
        encoder=model.encoder,
        corruption=model.corruption,
        auxiliary=model.auxiliary,
    )


def oracle_models(count: int, seed: int, zeros: bool | None = None) -> Iterator[oracle.Model]:
    """Models with 1 to 3 x, 2 to 4 z and 1 to 3 x~, the number of x~ often another than that of x."""
    rng = Random(seed)
    for number in range(count):
        x, z = rng.choice((1, 2, 2, 3)), rng.choice((2, 2, 3, 4))
        xt = (x, x, rng.choice((1, 2, 3)), None)[number % 4]
        denominator = rng.choice((12, 60, 10**6, 10**12))
        with_zeros = zeros if zeros is not None else number % 3 == 2
        yield oracle.random_model(rng, x, z, xt, denominator=denominator, zeros=with_zeros)


def truth(expected: Callable[[oracle.Model, int], Any], model: oracle.Model, x: int) -> Any:
    """The oracle's value; None where there is none."""
    try:
        with mp.workdps(60):
            return expected(model, x)
    except ArithmeticError as error:
        assert str(error) == "undefined"
        return None


def value_or_none(evaluate: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """An evaluator's value; None where it says that there is none."""
    try:
        return evaluate(*args, **options)
    except UndefinedValue:
        return None


def as_ball(value: Any) -> flint.arb:
    """An mpf of 60 digits as an Arb ball of about that radius."""
    if mpmath.isinf(value):
        return flint.arb.pos_inf() if value > 0 else flint.arb.neg_inf()
    with flint.ctx.workprec(256):
        return flint.arb(mpmath.nstr(value, 58))


def near(ball: flint.arb, value: Any, slack: float) -> bool:
    """True if the ball, widened by `slack` relative to max(1, |value|), meets the oracle's value."""
    if mpmath.isinf(value):
        return bool(ball == as_ball(value))
    with flint.ctx.workprec(256):
        return bool(abs(ball - as_ball(value)) <= slack * max(1.0, abs(float(value))))


def defined_values(term: Term, model: FiniteModel, x: int) -> float | None:
    """The float evaluator's value where there is one and it is not lost; None elsewhere."""
    try:
        value = floating.evaluate(term, model, x)
    except (UndefinedValue, BadInput):
        return None
    return float(value) if value.error < 1e-7 * max(1.0, abs(float(value))) or math.isinf(float(value)) else None


__all__ = [
    "F",
    "as_ball",
    "defined_values",
    "enclosure",
    "exact",
    "finite",
    "floating",
    "near",
    "oracle_models",
    "truth",
    "value_or_none",
]
