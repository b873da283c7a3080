"""What a problem with known truth is: a formula, a model, and its value worked out by hand.

A truth is a rational combination of logarithms of rationals where there is one, else a ball of 256 bits around an
expression in logarithms and error functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias

from boundcheck.language.build import Formula

if TYPE_CHECKING:
    import flint

    from boundcheck.evaluators.lognumber import LogNumber

TRUTH_BITS = 256
"""Working precision, in bits, of a truth that is not a combination of logarithms."""

Truth: TypeAlias = "LogNumber | flint.arb | tuple[float, float]"
"""An exact number, a ball that contains the value, or a float with a bound on its error; in nats."""


@dataclass(frozen=True)
class Problem:
    """A formula on a model at an observation, and its value as worked out by hand.

    Args:
        name: what it is called in reports.
        formula: a function of (m, x).
        model: the model, of whatever kind; an evaluator that does not take it raises `CannotCompute`.
        x: the observation, as that kind of model has it; None where the model fixes it.
        truth: a function without arguments that returns the value, in nats.
        tags: the kind of the model, and what is special about the problem.
    """

    name: str
    formula: Formula
    model: Any
    x: Any
    truth: Callable[[], Truth]
    tags: frozenset[str] = frozenset()


def log_of(value: int | str | Fraction) -> LogNumber:
    """The logarithm of a rational, exactly."""
    from boundcheck.evaluators.lognumber import LogNumber

    return LogNumber.log(Fraction(value))


def ball(value: int | str | Fraction) -> flint.arb:
    """A rational as a ball."""
    import flint

    exact = Fraction(value)
    return flint.arb(flint.fmpq(exact.numerator, exact.denominator))


def pi() -> flint.arb:
    """The number pi as a ball."""
    import flint

    return flint.arb.pi()


def infinity() -> flint.arb:
    """The truth of what diverges."""
    import flint

    return flint.arb("inf")


def problems(kind: str, model: Any, x: Any, rows: list[tuple[str, Formula, Callable[[], Truth]]]) -> list[Problem]:
    """Problems on one model at one observation: rows of a name, a formula and a truth."""
    return [Problem(name, formula, model, x, truth, frozenset({kind})) for name, formula, truth in rows]


__all__ = ["TRUTH_BITS", "Problem", "Truth", "ball", "infinity", "log_of", "pi", "problems"]
