"""What is known about a trained model's evidence, on one card, and what that says about an objective.

IWAE_K lies below log p(x) on average, so an objective that is clearly below it is below the evidence. The converse is
no proof: an objective above IWAE_K may still be below log p(x), and the verdict is then "undecided", unless there is
an upper bound. All comparisons are made by `boundcheck.claims.decide`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from boundcheck.claims.decide import Guarantee, Outcome, decide
from boundcheck.evaluators.averages import DatasetMean
from boundcheck.evaluators.values import Approximate, json_float

if TYPE_CHECKING:
    from rich.console import Console

    from boundcheck.evidence.engine import IwaeCurve

ALPHA = 1e-3
"""The error probability of a card's verdicts, unless another is asked for."""


@dataclass(frozen=True)
class UpperBound:
    """A number that the mean log p(x) of the examples cannot exceed, and why."""

    value: Approximate
    source: str


@dataclass(frozen=True)
class Judgement:
    """Whether an objective's mean over the examples is at most their mean log p(x).

    Attributes:
        objective: its name.
        outcome: holds, violated or undecided.
        guarantee: statistical, or None when undecided.
        error_probability: of a wrong verdict.
        reading: the verdict in words.
        evidence_at_least: a lower confidence bound on the mean log p(x), at half the error probability.
        evidence_at_most: the upper bound that was used, if there is one.
    """

    objective: str
    outcome: Outcome
    guarantee: Guarantee | None
    error_probability: float
    reading: str
    evidence_at_least: float
    evidence_at_most: float | None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "objective": self.objective,
            "claim": "mean objective <= mean log p(x) over these examples",
            "verdict": self.outcome.value,
            "guarantee": self.guarantee.value if self.guarantee else None,
            "error_probability": self.error_probability,
            "reading": self.reading,
            "evidence_at_least": json_float(self.evidence_at_least),
            "evidence_at_most": None if self.evidence_at_most is None else json_float(self.evidence_at_most),
        }


def judge(
    name: str,
    objective: DatasetMean,
    curve: IwaeCurve,
    *,
    upper: UpperBound | None = None,
    known: Approximate | None = None,
    rounding: float = 0.0,
    alpha: float = ALPHA,
) -> Judgement:
    """Is the objective, averaged over the examples, at most their average log p(x)?

    "holds": its upper confidence limit is below a lower one of the evidence (`IwaeCurve.evidence_lower_bound`), at
    `alpha / 2` each. "violated": its lower confidence limit at `alpha` is above an upper bound on the evidence.
    Otherwise "undecided", in particular whenever it exceeds IWAE_K and no upper bound is known. The confidence limits
    are Student's, a normal approximation to the mean of many draws.

    Args:
        name: the objective's.
        objective: its mean over the examples.
        curve: IWAE_k at the same examples.
        upper: an upper bound on the examples' mean log p(x).
        known: their mean log p(x) itself, where there is another way to it.
        rounding: the error of the model's own floating-point arithmetic in the objective, in nats; the curve has its
            own beside it.
        alpha: the probability of a wrong verdict that is allowed.

    Raises:
        BadInput: an alpha outside (0, 1/2).
    """
    rounding += curve.rounding
    how = f"statistical, normal approximation, error probability {alpha:g}"
    at_least = curve.evidence_lower_bound(alpha / 2) - rounding
    source = f"IWAE-{curve.best.k}"
    if known is not None:
        at_least, source = known.value - known.error - rounding, "known"
        upper = UpperBound(known, "known")
    at_most = None if upper is None else upper.value.value + upper.value.error + rounding

    # Only "holds" means anything here: being above a lower limit of the evidence is not being above the evidence.
    below = decide(objective.sampled, "<=", Approximate(at_least, 0.0), alpha=alpha / 2)
    if below.outcome is Outcome.HOLDS:
        reading = f"consistent with a lower bound: the mean log p(x) is at least {at_least:.4g} ({source}); {how}"
        return Judgement(name, Outcome.HOLDS, Guarantee.STATISTICAL, alpha, reading, at_least, at_most)
    if upper is not None and at_most is not None:
        above = decide(objective.sampled, "<=", Approximate(at_most, 0.0), alpha=alpha)
        if above.outcome is Outcome.VIOLATED:
            reading = f"exceeds the evidence: the mean log p(x) is at most {at_most:.4g} ({upper.source}); {how}"
            return Judgement(name, Outcome.VIOLATED, Guarantee.STATISTICAL, alpha, reading, at_least, at_most)
    reading = _why_undecided(objective, curve, below.reason)
    return Judgement(name, Outcome.UNDECIDED, None, 0.0, reading, at_least, at_most)


def _why_undecided(objective: DatasetMean, curve: IwaeCurve, reason: str) -> str:
    mean, reference = curve.best.mean, f"IWAE-{curve.best.k}"
    gap = objective.mean - mean.mean
    noise = objective.monte_carlo_error + mean.monte_carlo_error
    if gap > 3 * noise:
        return f"exceeds the {reference} lower bound by {gap:.4g}; decide with an upper bound"
    if reason:
        return reason
    return f"it is {abs(gap):.2g} from {reference}, which is within the error allowed for; raise k or the examples"


@dataclass(frozen=True)
class EvidenceCard:
    """The evidence of a trained model at some data, and its objectives against it; all in nats, means over examples.

    Attributes:
        model: where the model came from.
        data: where the data came from.
        objective: the objective that was asked for.
        curve: IWAE_k, whose first point is the ELBO.
        estimates: the other objectives by name.
        judgements: for each of them, and for the ELBO, whether it is below the evidence.
        upper: an upper bound on the mean log p(x), if one is known.
        settings: seed, draws, device and the like.
    """

    model: str
    data: str
    objective: str
    curve: IwaeCurve
    estimates: dict[str, DatasetMean]
    judgements: dict[str, Judgement]
    upper: UpperBound | None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def judgement(self) -> Judgement | None:
        """The verdict on the objective that was asked for; None for IWAE_K, which is the yardstick itself."""
        return self.judgements.get(self.objective)

    @property
    def value(self) -> DatasetMean:
        """The objective that was asked for."""
        return self.estimates.get(self.objective, self.curve.best.mean)

    @property
    def reading(self) -> str:
        """The verdict in words."""
        if self.judgement is not None:
            return self.judgement.reading
        return f"IWAE-{self.curve.best.k} is the yardstick itself: a lower bound on log p(x) by Jensen's inequality"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        judgement = self.judgement
        sizes = [float(size) for size in self.curve.effective_sample_sizes]
        return {
            "model": self.model,
            "data": self.data,
            "objective": self.objective,
            "value": self.value.to_json(),
            "verdict": judgement.outcome.value if judgement else None,
            "guarantee": judgement.guarantee.value if judgement and judgement.guarantee else None,
            "error_probability": judgement.error_probability if judgement else 0.0,
            "reading": self.reading,
            "iwae": [
                {"k": point.k, "groups": point.groups, "error_from": point.error_from} | point.mean.to_json()
                for point in self.curve.points
            ],
            "estimates": {name: value.to_json() for name, value in self.estimates.items()},
            "judgements": {name: each.to_json() for name, each in self.judgements.items()},
            "evidence_at_most": None
            if self.upper is None
            else {"value": json_float(self.upper.value.value), "source": self.upper.source},
            "effective_sample_size": {"median": sorted(sizes)[len(sizes) // 2], "smallest": min(sizes)},
            "rounding": json_float(self.curve.rounding),
        } | self.settings

    def __str__(self) -> str:
        return f"{self.objective} = {self.value}: {self.reading}"


def render(card: EvidenceCard, console: Console) -> None:
    """Print a card as a table, then its verdicts."""
    from rich.markup import escape
    from rich.table import Table

    examples = card.curve.best.mean.examples
    title = f"{card.model} on {card.data}: nats, mean of {examples} examples"
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    table.add_column("quantity")
    table.add_column("mean", justify="right")
    table.add_column("± draws", justify="right")
    table.add_column("± data set", justify="right")
    table.add_column("note")
    for point in card.curve.points:
        name = "ELBO = IWAE-1" if point.k == 1 else f"IWAE-{point.k}"
        table.add_row(name, *_cells(point.mean), "lower bound")
    for name, value in card.estimates.items():
        if name != "elbo":
            table.add_row(escape(name), *_cells(value), value.bias.value)
    if card.upper is not None:
        table.add_row("log p(x), at most", f"{card.upper.value.value:.3f}", "", "", "upper bound")
    console.print(table)
    if card.upper is not None:
        console.print(f"upper bound: {escape(card.upper.source)}", highlight=False)
    sizes = sorted(float(size) for size in card.curve.effective_sample_sizes)
    console.print(
        f"effective sample size of {card.curve.best.k} weights: median {sizes[len(sizes) // 2]:.0f}, "
        f"smallest {sizes[0]:.1f}",
        highlight=False,
    )
    colours = {Outcome.HOLDS: "green", Outcome.VIOLATED: "red", Outcome.UNDECIDED: "yellow"}
    for name, judgement in card.judgements.items():
        colour = colours[judgement.outcome]
        reading = escape(judgement.reading)
        console.print(f"[{colour}]{escape(name)}: {judgement.outcome.value}[/{colour}] ({reading})", highlight=False)
    if card.judgement is None:
        console.print(escape(card.reading), highlight=False)


def _cells(value: DatasetMean) -> tuple[str, str, str]:
    return f"{value.mean:.3f}", f"{value.monte_carlo_error:.3f}", f"{value.data_set_error:.3f}"
