"""The one function that compares two values, and what it may conclude from which types.

The answer is three-valued and carries its guarantee. Exact numbers are always decided, ties included. Enclosures
decide when they separate. Floats with an error estimate decide beyond their errors, with a numerical guarantee. Monte
Carlo estimates decide at a stated error probability, and only in a direction that their bias cannot have produced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from boundcheck.errors import BadInput
from boundcheck.evaluators.values import (
    Approximate,
    Bias,
    Enclosure,
    Exact,
    Sampled,
    Value,
    json_float,
)

if TYPE_CHECKING:
    import flint

Relation: TypeAlias = Literal["<=", "=="]


class Outcome(Enum):
    """The three verdicts."""

    HOLDS = "holds"
    VIOLATED = "violated"
    UNDECIDED = "undecided"


class Guarantee(Enum):
    """What a verdict rests on."""

    EXACT = "exact"
    CERTIFIED = "certified"
    NUMERICAL = "numerical"
    STATISTICAL = "statistical"


@dataclass(frozen=True)
class Verdict:
    """Whether `lhs relation rhs`, how that is known, and by how much (margin = rhs - lhs, in nats).

    `error_probability` bounds the probability that a statistical verdict is wrong, under the normal approximation
    for the sample means. `reason` says why an undecided verdict is undecided.
    """

    outcome: Outcome
    guarantee: Guarantee | None
    relation: Relation
    lhs: Value | None
    rhs: Value | None
    margin: float
    reason: str = ""
    error_probability: float = 0.0

    @property
    def margin_text(self) -> str:
        """The margin as text, exact or with the digits that are known; empty where it is a float."""
        lhs, rhs = self.lhs, self.rhs
        if isinstance(lhs, Exact) and isinstance(rhs, Exact):
            difference = rhs.value - lhs.value
            return "0" if difference.is_undefined else str(difference)  # the same infinity on both sides
        if not (isinstance(lhs, Exact | Enclosure) and isinstance(rhs, Exact | Enclosure)):
            return ""
        a, b = _as_ball(lhs), _as_ball(rhs)
        same = self.guarantee is Guarantee.EXACT or _same_infinity(a, b)
        return "0" if same else str(Enclosure(b - a))

    def __str__(self) -> str:
        how = f" ({self.guarantee.value})" if self.guarantee else ""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.outcome.value}{how}{why}"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "verdict": self.outcome.value,
            "guarantee": self.guarantee.value if self.guarantee else None,
            "relation": self.relation,
            "lhs": self.lhs.to_json() if self.lhs else None,
            "rhs": self.rhs.to_json() if self.rhs else None,
            "margin": json_float(self.margin),
            "margin_text": self.margin_text,
            "reason": self.reason,
            "error_probability": self.error_probability,
        }


def decide(lhs: Value, relation: Relation, rhs: Value, *, alpha: float = 1e-6) -> Verdict:
    """Decide `lhs <= rhs` or `lhs == rhs` from two values.

    Args:
        lhs: the value on the left.
        relation: "<=" or "==".
        rhs: the value on the right.
        alpha: the probability of a wrong verdict that a statistical decision may have.

    Raises:
        BadInput: an unknown relation, or an alpha outside (0, 1/2).

    >>> str(decide(Approximate(1.0, 1e-9), "<=", Approximate(2.0, 1e-9)))
    'holds (numerical)'
    >>> str(decide(Sampled(1.0, 0.01, Bias.LOW, 100), "<=", Sampled(2.0, 0.01, Bias.NONE, 100)))
    'undecided: the estimate of the left side is biased low, and such a bias could have made it hold'
    """
    if relation not in ("<=", "=="):
        raise BadInput("relation", relation, '"<=" or "=="', 'write a >= b as b "<=" a')
    if not 0 < alpha < 0.5:
        raise BadInput("alpha", alpha, "an error probability between 0 and 1/2")
    if isinstance(lhs, Exact) and isinstance(rhs, Exact):
        return _exactly(lhs, relation, rhs)
    if isinstance(lhs, Sampled) or isinstance(rhs, Sampled):
        return _statistically(lhs, relation, rhs, alpha)
    if isinstance(lhs, Approximate) or isinstance(rhs, Approximate):
        return _numerically(lhs, relation, rhs)
    return _by_enclosure(lhs, relation, rhs)


def _exactly(lhs: Exact, relation: Relation, rhs: Exact) -> Verdict:
    difference = rhs.value - lhs.value
    # The same infinity on both sides has no difference, and ties; what has no value has no order and raises.
    sign = int(lhs.value != rhs.value) if difference.is_undefined else difference.sign()
    if sign == 0:
        return Verdict(Outcome.HOLDS, Guarantee.EXACT, relation, lhs, rhs, 0.0)
    outcome = Outcome.HOLDS if relation == "<=" and sign > 0 else Outcome.VIOLATED
    return Verdict(outcome, Guarantee.EXACT, relation, lhs, rhs, float(difference))


def _by_enclosure(lhs: Value, relation: Relation, rhs: Value) -> Verdict:
    a, b = _as_ball(lhs), _as_ball(rhs)
    if _same_infinity(a, b):
        return Verdict(Outcome.HOLDS, Guarantee.CERTIFIED, relation, lhs, rhs, 0.0)
    margin = float((b - a).mid())
    if not (a.rad().is_finite() and b.rad().is_finite()):  # nothing is known of it, not even that it has a value
        reason = "the enclosure of a side is the whole line"
        return Verdict(Outcome.UNDECIDED, None, relation, lhs, rhs, margin, reason)
    if a < b and relation == "<=":
        return Verdict(Outcome.HOLDS, Guarantee.CERTIFIED, relation, lhs, rhs, margin)
    if b < a or (relation == "==" and a < b):
        return Verdict(Outcome.VIOLATED, Guarantee.CERTIFIED, relation, lhs, rhs, margin)
    if a <= b and relation == "<=":  # two points that touch
        return Verdict(Outcome.HOLDS, Guarantee.CERTIFIED, relation, lhs, rhs, margin)
    reason = "the enclosures of the two sides overlap"
    return Verdict(Outcome.UNDECIDED, None, relation, lhs, rhs, margin, reason)


def _same_infinity(a: flint.arb, b: flint.arb) -> bool:
    return a == b and not a.is_finite() and a.rad() == 0


def _as_ball(value: Value) -> flint.arb:
    if isinstance(value, Exact):
        return value.value.ball(256)
    assert isinstance(value, Enclosure)
    return value.ball


def _spread(value: Value) -> tuple[float, float]:
    """The float value and the error that a numerical comparison grants it."""
    if isinstance(value, Approximate):
        return value.value, value.error
    if isinstance(value, Enclosure):
        middle = float(value)
        if math.isinf(middle):
            return middle, math.inf if value.ball.is_finite() else 0.0
        return middle, max(value.upper - middle, middle - value.lower)
    assert isinstance(value, Exact)
    middle = float(value)
    if math.isinf(middle):  # beyond the floats' range, unless the number itself is infinite
        return middle, math.inf if value.value.is_finite else 0.0
    return middle, math.ulp(middle)


def _numerically(lhs: Value, relation: Relation, rhs: Value) -> Verdict:
    (a, a_error), (b, b_error) = _spread(lhs), _spread(rhs)
    if a == b and math.isinf(a) and a_error + b_error < math.inf:
        return Verdict(Outcome.HOLDS, Guarantee.NUMERICAL, relation, lhs, rhs, 0.0)
    margin, error = b - a, a_error + b_error
    if margin < -error or (relation == "==" and margin > error):
        return Verdict(Outcome.VIOLATED, Guarantee.NUMERICAL, relation, lhs, rhs, margin)
    if margin > error:
        return Verdict(Outcome.HOLDS, Guarantee.NUMERICAL, relation, lhs, rhs, margin)
    reason = f"the difference {margin:.3g} is within the numerical error {error:.3g}"
    return Verdict(Outcome.UNDECIDED, None, relation, lhs, rhs, margin, reason)


_SAFE_TO_BOUND_ABOVE = (Bias.NONE, Bias.HIGH)
_SAFE_TO_BOUND_BELOW = (Bias.NONE, Bias.LOW)


def _statistically(lhs: Value, relation: Relation, rhs: Value, alpha: float) -> Verdict:
    """An upper bound on one side against a lower bound on the other, each from an estimate whose bias allows it."""
    (a, a_error, a_bias), (b, b_error, b_bias) = _estimate(lhs), _estimate(rhs)

    def undecided(reason: str) -> Verdict:
        return Verdict(Outcome.UNDECIDED, None, relation, lhs, rhs, margin, reason)

    margin = b - a if a != b else 0.0
    if math.isnan(a_error + b_error) or math.isnan(margin) or math.isinf(margin):
        return undecided("an estimate or its standard error is not finite")
    if any(isinstance(value, Sampled) and value.standard_error <= 0 for value in (lhs, rhs)):
        return undecided("all draws of an estimate are equal, so they do not tell its error")
    # The sum, not the hypotenuse: the two estimates may share their draws. An equation can fail on either side.
    error = (a_error + b_error) * _quantile(alpha if relation == "<=" else alpha / 2, lhs, rhs)
    if margin > error:
        blocked = [
            *_blocked("left", lhs, a_bias, _SAFE_TO_BOUND_ABOVE, "made it hold"),
            *_blocked("right", rhs, b_bias, _SAFE_TO_BOUND_BELOW, "made it hold"),
        ]
        outcome = Outcome.HOLDS if relation == "<=" else Outcome.VIOLATED
    elif margin < -error:
        blocked = [
            *_blocked("left", lhs, a_bias, _SAFE_TO_BOUND_BELOW, "made it fail"),
            *_blocked("right", rhs, b_bias, _SAFE_TO_BOUND_ABOVE, "made it fail"),
        ]
        outcome = Outcome.VIOLATED
    else:
        return undecided(f"the difference {margin:.3g} is within {error:.3g}, the error allowed for at {alpha:g}")
    if blocked:
        return undecided("; ".join(blocked))
    return Verdict(outcome, Guarantee.STATISTICAL, relation, lhs, rhs, margin, error_probability=alpha)


def _blocked(side: str, value: Value, bias: Bias, allowed: tuple[Bias, ...], effect: str) -> list[str]:
    if bias not in allowed:
        what = f"is {bias.value}" if bias is not Bias.UNKNOWN else f"has a {bias.value}"
        return [f"the estimate of the {side} side {what}, and such a bias could have {effect}"]
    if isinstance(value, Sampled) and value.long_tail not in allowed:
        tail = f"a long tail (their skewness is {value.skewness:.1f})"
        return [f"the draws of the {side} side have {tail}, and to have met too little of it could have {effect}"]
    return []


def _estimate(value: Value) -> tuple[float, float, Bias]:
    if isinstance(value, Sampled):
        return value.mean, value.standard_error, value.bias
    middle, error = _spread(value)
    return middle, error, Bias.NONE


def _quantile(alpha: float, *values: Value) -> float:
    """How many standard errors to allow: Student's t with the degrees of freedom of the smaller sample."""
    from scipy.special import stdtrit

    freedom = min(max(value.n - 1, 0) for value in values if isinstance(value, Sampled))
    return float(stdtrit(freedom, 1 - alpha)) if freedom else math.inf
