"""Whether an objective stays below the evidence: what is known from below and from above, and what that decides.

An objective whose confidence interval lies below a lower bound on the evidence is below the evidence; one that lies
above an upper bound exceeds it. Between the two nothing is decided, in particular not by being above IWAE_K, and the
verdict says what would decide it. All comparisons are made by `boundcheck.claims.decide`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from boundcheck.claims.decide import Guarantee, Outcome, decide
from boundcheck.evaluators.averages import DatasetMean
from boundcheck.evaluators.values import Approximate, Bias, json_float
from boundcheck.evidence.audit import Finding
from boundcheck.evidence.objective import Estimate

ALPHA = 1e-3
"""The probability that anything on a card is decided wrongly, unless another is asked for."""
AT_THE_DATA = "below the evidence of the data"


@dataclass(frozen=True)
class UpperBound:
    """A number that the mean log p(x) of the examples cannot exceed, and why."""

    value: Approximate
    source: str


@dataclass(frozen=True)
class LowerBound:
    """A way to lower confidence limits of the examples' mean log p(x): `at(delta)` is one at 1 - delta."""

    source: str
    at: Callable[[float], float]


@dataclass(frozen=True)
class Evidence:
    """What is known about the mean log p(x) of some examples, in nats.

    Attributes:
        lower: ways to bound it from below.
        yardstick: the largest IWAE_K by name, and its estimate.
        upper: a bound from above, if there is one.
        known: the mean log p(x) itself, where there is another way to it, and which.
        integral: an estimate of it by quadrature. Mass that it missed makes it too small, and nothing tells; so it is
            held against an objective from below alone.
        rounding: an estimate of the error of the model's own floating-point arithmetic.
        has_model: whether there is a model to anneal and to draw from.
    """

    lower: tuple[LowerBound, ...]
    yardstick: tuple[str, DatasetMean]
    upper: UpperBound | None = None
    known: UpperBound | None = None
    integral: UpperBound | None = None
    rounding: float = 0.0
    has_model: bool = True

    def at_least(self, delta: float) -> tuple[float, str]:
        """A lower confidence limit at 1 - delta, shared by all ways to one, and the way it was found."""
        limits = [(way.at(delta / len(self.lower)), way.source) for way in self.lower]
        return max(limits, key=lambda limit: limit[0], default=(-math.inf, "nothing"))


@dataclass(frozen=True)
class Judgement:
    """Whether an objective's mean over the examples is at most their mean log p(x).

    Attributes:
        objective: its name.
        outcome: holds, violated (at the data, or at data simulated from the model) or undecided.
        guarantee: statistical; numerical where a quadrature decided; None when undecided.
        error_probability: of a wrong outcome.
        reading: the verdict in words.
        evidence_at_least: the lower confidence limit of the mean log p(x) that it was held against.
        evidence_at_most: the upper bound that was used, if there is one.
        findings: every check that was made, the one at the data first.
        decide_by: what would decide it, if it is undecided.
    """

    objective: str
    outcome: Outcome
    guarantee: Guarantee | None
    error_probability: float
    reading: str
    evidence_at_least: float
    evidence_at_most: float | None
    findings: tuple[Finding, ...]
    decide_by: str = ""

    @property
    def where(self) -> str:
        """The examples that the outcome is about: others than these where only simulated data violate the claim."""
        elsewhere = self.outcome is Outcome.VIOLATED and self.findings[0].outcome is not Outcome.VIOLATED
        return "examples drawn from the model" if elsewhere else "these examples"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "objective": self.objective,
            "claim": f"mean objective <= mean log p(x) over {self.where}",
            "verdict": self.outcome.value,
            "guarantee": self.guarantee.value if self.guarantee else None,
            "error_probability": self.error_probability,
            "reading": self.reading,
            "decide_by": self.decide_by,
            "evidence_at_least": json_float(self.evidence_at_least),
            "evidence_at_most": None if self.evidence_at_most is None else json_float(self.evidence_at_most),
            "checks": [finding.to_json() for finding in self.findings],
        }


def judge(
    name: str,
    objective: Estimate,
    evidence: Evidence,
    *,
    simulated: Finding | None = None,
    can_simulate: bool = True,
    rounding: float = 0.0,
    alpha: float = ALPHA,
) -> Judgement:
    """Is the objective, averaged over the examples, at most their average log p(x)?

    "holds": its upper confidence limit at alpha/2 is below a lower one of the evidence at alpha/2. "violated": its
    lower confidence limit at alpha is above an upper bound on the evidence, or the check at simulated data says so.
    Otherwise "undecided". The limits of the evidence assume nothing about the weights (`boundcheck.evidence.wealth`);
    those of the objective are Student's, widened for skewed draws (`boundcheck.evidence.objective.Estimate.at`).

    The error probability of a card is split by Bonferroni's inequality: a card with alpha on which m checks are made
    (for each objective one at the data and one at simulated data; and the check whether it is what it is said to be)
    passes alpha/m to each of them. A check that finds an objective above the evidence is wrong only if the objective
    is valid, one that finds it below only if it is not, so of "holds" and "violated" in one check only one can err.

    Args:
        name: the objective's.
        objective: its estimate over the examples.
        evidence: what is known of their mean log p(x).
        simulated: the check at simulated data, if it was made; it has its own error probability.
        can_simulate: whether that check can be made of it, for the advice on what would decide.
        rounding: the error of the model's own floating-point arithmetic in the objective, in nats; the evidence has its
            own beside it.
        alpha: the probability of a wrong result of the check at the data.

    Raises:
        BadInput: an alpha outside (0, 1/2).
    """
    finding, guarantee, at_least, at_most = _at_the_data(objective, evidence, rounding, alpha)
    findings = (finding,) if simulated is None else (finding, simulated)
    outcome, reading, decide_by = finding.outcome, finding.reading, ""
    if simulated is not None and simulated.outcome is Outcome.VIOLATED and outcome is not Outcome.VIOLATED:
        outcome, guarantee, reading = Outcome.VIOLATED, Guarantee.STATISTICAL, simulated.reading
    error = sum(each.error_probability for each in findings if each.outcome is outcome)
    if outcome is Outcome.UNDECIDED:
        error, decide_by = 0.0, _what_would_decide(objective, evidence, at_least, can_simulate and simulated is None)
    return Judgement(name, outcome, guarantee, error, reading, at_least, at_most, findings, decide_by)


def _at_the_data(
    objective: Estimate, evidence: Evidence, rounding: float, alpha: float
) -> tuple[Finding, Guarantee | None, float, float | None]:
    rounding += evidence.rounding
    limit, source = evidence.at_least(alpha / 2)
    below = [(limit - rounding, source, Guarantee.STATISTICAL)]
    above: list[tuple[float, str, Guarantee]] = []
    if evidence.upper is not None:
        upper = evidence.upper.value
        above.append((upper.value + upper.error + rounding, evidence.upper.source, Guarantee.STATISTICAL))
    if evidence.known is not None:
        known, name = evidence.known.value, evidence.known.source
        below.append((known.value - known.error - rounding, name, Guarantee.NUMERICAL))
        above.append((known.value + known.error + rounding, name, Guarantee.NUMERICAL))
    if evidence.integral is not None:
        integral, name = evidence.integral.value, evidence.integral.source
        below.append((integral.value - integral.error - rounding, name, Guarantee.NUMERICAL))
    at_least, at_most = max(each[0] for each in below), min((each[0] for each in above), default=None)

    # Only "holds" means anything here: being above a lower limit of the evidence is not being above the evidence.
    reason = ""
    for value, source, guarantee in below:
        verdict = decide(objective.at(alpha / 2), "<=", Approximate(value, 0.0), alpha=alpha / 2)
        reason = verdict.reason or reason
        if verdict.outcome is Outcome.HOLDS:
            reading = f"consistent with a lower bound: the mean log p(x) is at least {value:.5g} ({source})"
            assumes = objective.assumes(value, alpha / 2)
            return Finding.decided(AT_THE_DATA, verdict.outcome, reading, alpha, assumes), guarantee, value, at_most
    for value, source, guarantee in above:
        verdict = decide(objective.at(alpha), "<=", Approximate(value, 0.0), alpha=alpha)
        if verdict.outcome is Outcome.VIOLATED:
            reading = f"exceeds the evidence: the mean log p(x) is at most {value:.5g} ({source})"
            assumes = objective.assumes(value, alpha)
            return Finding.decided(AT_THE_DATA, verdict.outcome, reading, alpha, assumes), guarantee, at_least, value
    return Finding(AT_THE_DATA, Outcome.UNDECIDED, _position(objective, evidence, reason), 0.0), None, at_least, at_most


def _position(objective: Estimate, evidence: Evidence, reason: str) -> str:
    name, mean = evidence.yardstick
    gap = objective.mean.mean - mean.mean
    if gap > 3 * (objective.mean.monte_carlo_error + mean.monte_carlo_error):
        return f"exceeds the {name} lower bound by {gap:.4g}, which may itself be below the evidence by as much"
    return reason or f"it is {abs(gap):.2g} from {name}, which is within the error allowed for"


def _what_would_decide(objective: Estimate, evidence: Evidence, at_least: float, simulate: bool) -> str:
    """Advice for an undecided verdict: which of the errors stands in the way, and who could take it away."""
    mean, (_, yardstick) = objective.mean, evidence.yardstick
    if not math.isfinite(mean.mean):
        return f"nothing, as long as the objective is {mean.mean}"
    if math.isnan(mean.monte_carlo_error):
        return "more draws (more K, or more replicates of the objective): a single one does not tell its error"
    if mean.bias is not Bias.NONE and objective.random:
        return f"a formula without expectations inside logarithms, since its estimate is {mean.bias.value}"
    ways, ais = [], "a longer AIS" if len(evidence.lower) > 1 else "AIS"
    noise = 4 * mean.monte_carlo_error
    if mean.mean < yardstick.mean + 3 * (mean.monte_carlo_error + yardstick.monte_carlo_error):
        ways.append("more replicates of the objective" if noise > yardstick.mean - at_least else "more K")
        ways += ["more examples"] + ([f"{ais} (a tighter lower bound)"] if evidence.has_model else [])
    else:
        tighter = f"more K or {ais}" if evidence.has_model else "more K"
        ways += [f"{tighter}, if it is below the evidence after all"]
        if evidence.upper is None and evidence.known is None:
            ways.append("an upper bound on the evidence, if it is above")
    if simulate and evidence.has_model:
        ways.append("simulated data, where the evidence is known from both sides")
    return ", or ".join(ways)


__all__ = ["ALPHA", "AT_THE_DATA", "Evidence", "Judgement", "LowerBound", "UpperBound", "judge"]
