"""When a value agrees with the truth: the rule depends on what the value's type promises.

An exact value equals the truth, an enclosure contains it, a float is within its error of it, and a Monte Carlo estimate
is within six standard errors of it, on the side on which its bias does not excuse it. Where there is no truth there
are laws that relate two values. Nothing here knows how the evaluator works, so a third party's meets the same rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

from boundcheck.agreement.laws import LAWS, Relationship
from boundcheck.agreement.problem import TRUTH_BITS, Problem, Truth
from boundcheck.agreement.problems import PROBLEMS
from boundcheck.claims.decide import Outcome, decide
from boundcheck.errors import BadInput, CannotCompute
from boundcheck.evaluators.values import Approximate, Bias, Enclosure, Exact, Sampled, Value
from boundcheck.language.build import Formula

if TYPE_CHECKING:
    import flint

Evaluate: TypeAlias = Callable[[Formula, Any, Any], Value]
"""An evaluator: takes a function of (m, x), a model and an observation; raises `CannotCompute` where it cannot."""

STANDARD_ERRORS = 6.0
"""How far a Monte Carlo estimate may lie from the truth: 2e-9 two-sided, by the normal law of its mean."""

ROUNDING = 1e-9
"""Relative rounding error that a Monte Carlo mean may have beside its standard error."""

ENOUGH_DRAWS = 100
"""Infinite weights of the table have probability 1/4 or more, so that this many replicates miss them never (3e-13)."""


class Status(Enum):
    """What came of a problem."""

    EXACT = "exact"
    ENCLOSED = "in enclosure"
    WITHIN = "within error"
    SAMPLED = "within 6 s.e."
    ONE_SIDED = "on its side"
    VACUOUS = "says nothing"
    UNABLE = "n.a."
    WRONG = "WRONG"


@dataclass(frozen=True)
class Judgement:
    """A problem, what an evaluator said, and what came of it."""

    problem: Problem
    status: Status
    value: Value | None = None
    reason: str = ""


@dataclass(frozen=True)
class Disagreement:
    """A problem whose truth, or a law, that an evaluator contradicts."""

    name: str
    reason: str
    value: Value | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class _Wrong(Exception):
    """Why a value is wrong."""


def judge(evaluate: Evaluate, problem: Problem, *, width: float | None = None) -> Judgement:
    """Run an evaluator on a problem and hold its value against the truth.

    Args:
        evaluate: the evaluator.
        problem: the problem.
        width: if given, an enclosure wider than this, or an error beyond half of it, is wrong too; in nats.

    >>> from boundcheck.evaluators import exact
    >>> judge(lambda formula, model, x: exact.evaluate(formula, model, x), PROBLEMS[0]).status.value
    'exact'
    """
    import flint

    try:
        value = _called(evaluate, problem.formula, problem.model, problem.x)
    except CannotCompute as error:
        return Judgement(problem, Status.UNABLE, reason=str(error))
    except _Wrong as error:
        return Judgement(problem, Status.WRONG, reason=str(error))
    with flint.ctx.workprec(TRUTH_BITS):
        truth = problem.truth()
        try:
            _require_narrow(value, width)
            return Judgement(problem, _compared(value, truth, problem), value)
        except _Wrong as error:
            return Judgement(problem, Status.WRONG, value, f"{value}, but {error}; the truth is {_shown(truth)}")


def laws(evaluate: Evaluate) -> list[Disagreement]:
    """The laws that an evaluator breaks; laws that it cannot compute a side of are left out.

    E[1] = 1, the order of the states does not matter, IWAE_1 is the ELBO, bounds tighten with K, ...

    >>> from boundcheck.agreement.evaluators import evaluators
    >>> laws(evaluators()["exact"])
    []
    """
    return [broken for law in LAWS if (broken := _broken(evaluate, law)) is not None]


def check_evaluator(
    evaluate: Evaluate, problems: Iterable[Problem] = PROBLEMS, *, width: float | None = None
) -> list[Disagreement]:
    """Everything in which an evaluator contradicts a known truth or a law; an empty list if nothing.

    A problem for which the evaluator raises `CannotCompute` counts as out of its reach; `matrix` shows which.
    Any other exception is a disagreement. For an evaluator that samples the chance of a false alarm is below 1e-6 a
    run (six standard errors, about a hundred comparisons), if its means are nearly normal: some thousand replicates.

    Args:
        evaluate: a function of (formula, model, x) that returns an `Exact`, `Enclosure`, `Approximate` or `Sampled`.
        problems: those to run.
        width: if given, how narrow an enclosure must be, in nats.

    Raises:
        BadInput: the evaluator can compute none of the problems, so that nothing was tested.

    >>> from boundcheck.evaluators import floating
    >>> from boundcheck.models import FiniteModel
    >>> def mine(formula, model, x):
    ...     if not isinstance(model, FiniteModel):
    ...         raise CannotCompute("mine", "the formula", "it knows tables only")
    ...     return floating.evaluate(formula, model, x)
    >>> some = [problem for problem in PROBLEMS if "finite" in problem.tags]
    >>> check_evaluator(mine, some)
    []
    """
    judged = [judge(evaluate, problem, width=width) for problem in problems]
    if all(each.status is Status.UNABLE for each in judged):
        reason = judged[0].reason if judged else "no problem was given"
        raise BadInput("evaluate", evaluate, "an evaluator that can compute one of the problems", reason)
    wrong = [Disagreement(j.problem.name, j.reason, j.value) for j in judged if j.status is Status.WRONG]
    return wrong + laws(evaluate)


# --- calling -------------------------------------------------------------------------------------------------------


def _called(evaluate: Evaluate, formula: Formula, model: Any, x: Any) -> Value:
    try:
        value = evaluate(formula, model, x)
    except CannotCompute:
        raise
    except Exception as error:  # whatever a foreign evaluator raises is its answer, and no answer is wrong
        raise _Wrong(f"it raised {type(error).__name__}: {error}") from error
    if not isinstance(value, Value):
        raise _Wrong(f"it returned {value!r}, which is no Exact, Enclosure, Approximate or Sampled")
    if _is_nan(value):
        raise _Wrong(f"it returned {value}, which is not a number")
    return value


def _is_nan(value: Value) -> bool:
    match value:
        case Exact():
            return value.value.is_undefined
        case Enclosure():
            return bool(value.ball.is_nan())
        case Approximate():
            return math.isnan(value.value) or math.isnan(value.error) or value.error < 0
        case Sampled():
            return math.isnan(value.mean) or value.standard_error < 0


# --- the rules -----------------------------------------------------------------------------------------------------


def _compared(value: Value, truth: Truth, problem: Problem) -> Status:
    match value:
        case Exact():
            return _exactly(value, truth)
        case Enclosure():
            return _enclosed(value, truth)
        case Approximate():
            return _within(value, truth)
        case Sampled():
            return _sampled(value, truth, "finite" in problem.tags)


def _exactly(value: Exact, truth: Truth) -> Status:
    from boundcheck.evaluators.lognumber import LogNumber

    if isinstance(truth, LogNumber):
        if value.value != truth:
            raise _Wrong("it is not equal to the truth")
    elif not value.value.ball(TRUTH_BITS).overlaps(as_ball(truth)):
        raise _Wrong("the truth excludes it")
    return Status.EXACT


def _enclosed(value: Enclosure, truth: Truth) -> Status:
    if not value.ball.overlaps(as_ball(truth)):
        raise _Wrong("the truth lies outside")
    return Status.VACUOUS if _is_whole_line(value) else Status.ENCLOSED


def _is_whole_line(value: Enclosure) -> bool:
    return not value.ball.rad().is_finite()


def _within(value: Approximate, truth: Truth) -> Status:
    import flint

    right = as_ball(truth)
    if math.isinf(value.error):
        return Status.VACUOUS
    if math.isinf(value.value) or not right.is_finite():
        if flint.arb(value.value) != right:
            raise _Wrong("only one of the two is infinite, or their signs differ")
        return Status.WITHIN
    gap = abs(flint.arb(value.value) - right)
    if gap > flint.arb(value.error):
        raise _Wrong(f"it is off by {float(gap):.3g}, its error is {value.error:.3g}")
    return Status.WITHIN


def _sampled(value: Sampled, truth: Truth, infinite_is_likely: bool) -> Status:
    right = float(as_ball(truth).mid())
    excused = {Bias.NONE: (), Bias.LOW: (-1,), Bias.HIGH: (1,), Bias.UNKNOWN: (-1, 1)}[value.bias]
    if value.mean == right and math.isinf(right):
        return Status.SAMPLED
    gap = value.mean - right
    if math.copysign(1, gap) in excused and (math.isinf(gap) or len(excused) == 2):
        return Status.VACUOUS
    if math.isinf(value.mean):
        raise _Wrong("the mean is infinite")
    if math.isinf(right):
        # On a continuous latent every replicate may be finite although the expectation is not.
        if infinite_is_likely and value.n >= ENOUGH_DRAWS:
            raise _Wrong("no replicate is infinite")
        return Status.VACUOUS
    if not math.isfinite(value.standard_error):
        return Status.VACUOUS
    allowed = STANDARD_ERRORS * value.standard_error + ROUNDING * (1 + abs(right))
    if abs(gap) > allowed and math.copysign(1, gap) not in excused:
        raise _Wrong(f"it is off by {gap:.3g}, which is {abs(gap) / max(value.standard_error, 1e-300):.3g} s.e.")
    return Status.ONE_SIDED if excused else Status.SAMPLED


def _require_narrow(value: Value, width: float | None) -> None:
    if width is None or not isinstance(value, Enclosure | Approximate):
        return
    found = 2 * value.error if isinstance(value, Approximate) else float(2 * value.ball.rad())
    if found > width:
        raise _Wrong(f"its width is {found:.3g}, and {width:.3g} was asked for")


def as_ball(truth: Truth) -> flint.arb:
    """A truth as a ball that contains it."""
    import flint

    from boundcheck.evaluators.lognumber import LogNumber

    if isinstance(truth, LogNumber):
        return truth.ball(TRUTH_BITS)
    return flint.arb(*truth) if isinstance(truth, tuple) else truth


def _shown(truth: Truth) -> str:
    return f"{float(as_ball(truth).mid()):.17g}"


def _broken(evaluate: Evaluate, law: Relationship) -> Disagreement | None:
    values: list[Value] = []
    try:
        for side in (law.lhs, law.rhs):
            values.append(_called(evaluate, side.formula, side.model, side.x))
    except CannotCompute:
        return None
    except _Wrong as error:
        return Disagreement(law.name, str(error))
    verdict = decide(values[0], law.relation, values[1], alpha=2e-9)
    if verdict.outcome is not Outcome.VIOLATED:
        return None
    return Disagreement(law.name, f"{values[0]} {law.relation} {values[1]} is false", values[0])


__all__ = [
    "Disagreement",
    "Evaluate",
    "Judgement",
    "Status",
    "as_ball",
    "check_evaluator",
    "judge",
    "laws",
]
