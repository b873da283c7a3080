"""What an objective is held against, beside the IWAE curve of the data at hand.

Two checks catch what a comparison with IWAE_K leaves undecided. At data that the model draws itself, log p(x) is known
between two close bounds, so an objective that exceeds the evidence by little is still caught. And an objective that is
said to be the ELBO can be held against the ELBO, which catches what makes it smaller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from boundcheck.claims.decide import Outcome, decide
from boundcheck.evaluators.values import Approximate, Sampled, json_float
from boundcheck.evidence.objective import Estimate

if TYPE_CHECKING:
    from boundcheck.evidence.simulated import SimulatedEvidence


@dataclass(frozen=True)
class Finding:
    """One check of an objective.

    Attributes:
        check: what was checked, in a few words.
        outcome: holds, violated (the objective is caught) or undecided.
        reading: the result in words.
        error_probability: of a wrong outcome.
        assumes: what it takes for granted that no number of draws can show, in words; part of the reading.
    """

    check: str
    outcome: Outcome
    reading: str
    error_probability: float
    assumes: str = ""

    @classmethod
    def decided(cls, check: str, outcome: Outcome, reading: str, alpha: float, assumes: str = "") -> Finding:
        """One that holds or is violated, with how sure that is."""
        reading = f"{reading}; error probability {alpha:g}{f', {assumes}' if assumes else ''}"
        return cls(check, outcome, reading, alpha, assumes)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "check": self.check,
            "outcome": self.outcome.value,
            "reading": self.reading,
            "error_probability": json_float(self.error_probability),
            "assumes": self.assumes,
        }


def below_simulated_evidence(
    objective: Estimate, simulated: SimulatedEvidence, *, alpha: float, rounding: float = 0.0
) -> Finding:
    """Is the objective, at data drawn from the model, at most the evidence of these data?

    "violated": its lower confidence limit exceeds the upper limit of the evidence; "holds": its upper one is below the
    lower limit. Half of alpha goes to either estimate; that of the objective's mean is a normal approximation.

    Args:
        objective: its mean over `simulated.x`.
        simulated: the evidence there.
        alpha: the error probability that is allowed.
        rounding: the error of the model's own arithmetic, in nats.

    Raises:
        BadInput: an alpha outside (0, 1/2).
    """
    low, high = simulated.interval(alpha / 2)
    check, mean = "below the evidence of simulated data", objective.mean.mean
    span = f"[{low:.4g}, {high:.4g}]"
    above = decide(objective.at(alpha / 2), "<=", Approximate(high + rounding, 0.0), alpha=alpha / 2)
    if above.outcome is Outcome.VIOLATED:
        excess = mean - high
        reading = f"exceeds the evidence of simulated data by {excess:.3g}: {mean:.4g} against {span}"
        assumes = objective.assumes(high + rounding, alpha / 2)
        return Finding.decided(check, Outcome.VIOLATED, reading, alpha, assumes)
    below = decide(objective.at(alpha / 2), "<=", Approximate(low - rounding, 0.0), alpha=alpha / 2)
    if below.outcome is Outcome.HOLDS:
        reading = f"below the evidence of simulated data: {mean:.4g} against {span}"
        assumes = objective.assumes(low - rounding, alpha / 2)
        return Finding.decided(check, Outcome.HOLDS, reading, alpha, assumes)
    reading = f"{mean:.4g} is not told apart from the evidence of simulated data, in {span}; raise k or draws"
    return Finding(check, Outcome.UNDECIDED, reading, 0.0)


def same_as(objective: Estimate, name: str, reference: Estimate, *, alpha: float, rounding: float = 0.0) -> Finding:
    """Is the objective, over the same examples, what it is said to be?

    "violated" if the two means differ by more than chance at alpha allows. Two estimates never show equality, so the
    other outcome is "undecided", and says how closely they agree.

    Args:
        objective: its mean over some examples.
        name: what it is said to be.
        reference: the mean over the same examples of what it is said to be, from other draws.
        alpha: the error probability that is allowed.
        rounding: the error of the model's own arithmetic, in nats.

    Raises:
        BadInput: an alpha outside (0, 1/2).
    """
    check, gap = f"is the {name}", objective.mean.mean - reference.mean.mean
    # They may differ by the rounding, and by chance beyond that.
    left, right = objective.at(alpha / 2), reference.at(alpha / 2)
    slack = min(rounding, abs(gap)) if math.isfinite(gap) else 0.0
    nearer = _moved(right, math.copysign(slack, gap))
    verdict = decide(left, "==", nearer, alpha=alpha)
    error = math.hypot(objective.mean.monte_carlo_error, reference.mean.monte_carlo_error)
    if verdict.outcome is Outcome.VIOLATED and abs(gap) > rounding:
        assumed = (
            objective.assumes(float(nearer), alpha / 2),
            reference.assumes(float(left) - math.copysign(slack, gap), alpha / 2),
        )
        reading = f"is not the {name}: it differs by {gap:+.4g} ± {error:.2g}"
        return Finding.decided(check, Outcome.VIOLATED, reading, alpha, " and ".join(filter(None, assumed)))
    return Finding(check, Outcome.UNDECIDED, f"agrees with the {name} within {gap:+.2g} ± {error:.2g}", 0.0)


def _moved(value: Sampled | Approximate, by: float) -> Sampled | Approximate:
    if isinstance(value, Sampled):
        return replace(value, mean=value.mean + by)
    return replace(value, value=value.value + by)


__all__ = ["Finding", "below_simulated_evidence", "same_as"]
