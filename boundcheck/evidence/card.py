"""The evaluation card: what is known about a trained model's evidence at some data, and what follows for an objective.

Every figure says what it promises: a bound in expectation (IWAE_K, AIS), a bound with probability 1 - delta (the
interval), something on simulated data only, or an estimate. Means over the examples carry two errors that answer two
questions: that of the draws, and that of the examples.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.claims.decide import Outcome
from boundcheck.evaluators.averages import DatasetMean
from boundcheck.evaluators.values import json_float
from boundcheck.evidence.audit import Finding
from boundcheck.evidence.diagnostics import RELIABLE
from boundcheck.evidence.intervals import EvidenceInterval, Label
from boundcheck.evidence.verdict import Judgement, UpperBound

if TYPE_CHECKING:
    from boundcheck.evidence.annealing import AnnealedWeights
    from boundcheck.evidence.bidirectional import SimulatedGap
    from boundcheck.evidence.curve import IwaeCurve
    from boundcheck.evidence.latent_grid import GridEvidence
    from boundcheck.evidence.simulated import SimulatedEvidence

Floats = NDArray[np.float64]
MOST_ROWS = 1000
"""Examples that a JSON object or a page shows one by one."""


@dataclass(frozen=True)
class ExampleTable:
    """What is known of each example that was evaluated; all arrays of shape (examples,), in nats.

    Attributes:
        index: its number in the data as they were given.
        elbo: the mean of its log-weights.
        log_mean_weight: IWAE_K from all of its draws as one group.
        lower: a lower bound on its log p(x), at 1 - delta for each example on its own.
        effective_sample_size: between 1 and K.
        pareto_k: the shape of its weights' upper tail; above 0.7 the figures of this example are not to be relied on.
        grid: its log p(x) by quadrature, if there is one.
    """

    index: NDArray[np.intp]
    elbo: Floats
    log_mean_weight: Floats
    lower: Floats
    effective_sample_size: Floats
    pareto_k: Floats
    grid: Floats | None = None

    @property
    def gap(self) -> Floats:
        """How much the weights raise the bound: log mean weight less ELBO."""
        with np.errstate(invalid="ignore"):
            return self.log_mean_weight - self.elbo

    def worst(self, count: int) -> NDArray[np.intp]:
        """Rows of the least probable examples, by log mean weight."""
        return np.argsort(self.log_mean_weight, kind="stable")[:count]

    def columns(self) -> dict[str, Floats | NDArray[np.intp]]:
        """The table by columns, in the order in which they are shown."""
        found: dict[str, Floats | NDArray[np.intp]] = {
            "example": self.index,
            "ELBO": self.elbo,
            "log mean weight": self.log_mean_weight,
            "gap": self.gap,
            "lower bound": self.lower,
            "ESS": self.effective_sample_size,
            "Pareto k": self.pareto_k,
        }
        return found if self.grid is None else found | {"quadrature": self.grid}

    def to_json(self) -> list[dict[str, Any]]:
        """JSON-ready: one object for each example."""
        columns = self.columns()
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [{name: _plain(value) for name, value in zip(columns, row, strict=True)} for row in rows]


@dataclass(frozen=True)
class EvidenceCard:
    """The evidence of a trained model at some data, and its objectives against it; all in nats, means over examples.

    Attributes:
        model: where the model came from.
        data: where the data came from.
        objective: the objective that was asked for.
        curve: IWAE_k, whose first point is the ELBO.
        interval: confidence bounds on the mean log p(x), and on that of each example.
        estimates: the objectives by name.
        judgements: for each of them, whether it is below the evidence.
        examples: what is known of each.
        dimensions: numbers in one observation.
        identity: whether the objective is what it is said to be, if that was said.
        upper: an upper bound on the mean log p(x), if one is known.
        annealed: AIS, if it was asked for.
        gap: bidirectional Monte Carlo on simulated data, with AIS.
        grid: quadrature over one or two latent dimensions.
        simulated: data drawn from the model, and their evidence.
        likelihood: what p(x|z) is, and what the data look like.
        failed: examples without a result, and why, by their number in the data as they were given.
        notes: what the reader should know besides.
        settings: seed, draws, device and the like.
        versions: of boundcheck, torch, numpy and Python.
        images: the worst examples' observations, for a report, by their number.
    """

    model: str
    data: str
    objective: str
    curve: IwaeCurve
    interval: EvidenceInterval
    estimates: dict[str, DatasetMean]
    judgements: dict[str, Judgement]
    examples: ExampleTable
    dimensions: int | None = None
    identity: Finding | None = None
    upper: UpperBound | None = None
    annealed: AnnealedWeights | None = None
    gap: SimulatedGap | None = None
    grid: GridEvidence | None = None
    simulated: SimulatedEvidence | None = None
    likelihood: str = ""
    failed: dict[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    images: dict[int, NDArray[Any]] = field(default_factory=dict)

    @property
    def judgement(self) -> Judgement | None:
        """The verdict on the objective that was asked for; None for IWAE_K, which is the yardstick itself."""
        return self.judgements.get(self.objective)

    @property
    def value(self) -> DatasetMean:
        """The objective that was asked for."""
        return self.estimates.get(self.objective, self.curve.best.mean)

    @property
    def outcome(self) -> Outcome | None:
        """Violated if the objective exceeds the evidence or is not what it is said to be; None for IWAE_K."""
        if self.identity is not None and self.identity.outcome is Outcome.VIOLATED:
            return Outcome.VIOLATED
        return self.judgement.outcome if self.judgement is not None else None

    @property
    def alpha(self) -> float:
        """The probability that anything on the card is decided wrongly."""
        return float(self.settings.get("alpha", math.nan))

    @property
    def reading(self) -> str:
        """The verdict in words."""
        if self.judgement is None:
            said = f"IWAE-{self.curve.best.k} is the yardstick itself: a lower bound on log p(x) by Jensen's inequality"
        else:
            said = self.judgement.reading
        if self.identity is not None and self.identity.outcome is Outcome.VIOLATED:
            return f"{self.identity.reading}; {said}"
        return said

    def bits_per_dimension(self, nats: float) -> float | None:
        """A log-density in nats as -log2 p / D."""
        return None if not self.dimensions else -nats / math.log(2) / self.dimensions

    @property
    def weight_summary(self) -> dict[str, float | int]:
        """How far the weights can be relied on."""
        sizes, shapes = self.examples.effective_sample_size, self.examples.pareto_k
        known = shapes[~np.isnan(shapes)]
        return {
            "draws": self.curve.best.k,
            "median_ess": float(np.median(sizes)),
            "smallest_ess": float(np.min(sizes)),
            "median_pareto_k": float(np.median(known)) if len(known) else math.nan,
            "largest_pareto_k": float(np.max(known)) if len(known) else math.nan,
            "with_pareto_k": len(known),
            "unreliable": int((known > RELIABLE).sum()),
            "zero": int(np.isneginf(self.examples.elbo).sum()),
        }

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        judgement, outcome = self.judgement, self.outcome
        delta = self.interval.delta
        error = judgement.error_probability if judgement else 0.0
        if self.identity is not None and self.identity.outcome is Outcome.VIOLATED:
            error = self.identity.error_probability
        interval = self.interval.to_json()
        interval = {name: value for name, value in interval.items() if not name.endswith("_of_examples")}
        bits = self.bits_per_dimension
        rows = self.examples.to_json()
        return {
            "model": self.model,
            "data": self.data,
            "objective": self.objective,
            "value": self.value.to_json() | {"bits_per_dimension": _plain(bits(self.value.mean))},
            "verdict": outcome.value if outcome else None,
            "guarantee": judgement.guarantee.value if judgement and judgement.guarantee else None,
            "error_probability": error,
            "reading": self.reading,
            "decide_by": judgement.decide_by if judgement else "",
            "iwae": [
                {"k": point.k, "groups": point.groups, "error_from": point.error_from}
                | {"label": Label.EXPECTATION.value, "bits_per_dimension": _plain(bits(point.mean.mean))}
                | point.mean.to_json()
                for point in self.curve.points
            ],
            "interval": interval,
            "estimates": {name: value.to_json() for name, value in self.estimates.items()},
            "judgements": {name: each.to_json() for name, each in self.judgements.items()},
            "identity": self.identity.to_json() if self.identity else None,
            "evidence_at_most": None
            if self.upper is None
            else {"value": json_float(self.upper.value.value), "source": self.upper.source},
            "ais": None if self.annealed is None else self.annealed.to_json(delta),
            "bidirectional": None if self.gap is None else self.gap.to_json(delta),
            "quadrature": None if self.grid is None else _without(self.grid.to_json(), "examples"),
            "simulated": None if self.simulated is None else self.simulated.to_json(delta),
            "weights": {name: _plain(value) for name, value in self.weight_summary.items()},
            "likelihood": self.likelihood,
            "dimensions": self.dimensions,
            "failed": {str(index): why for index, why in self.failed.items()},
            "notes": list(self.notes),
            "rounding": json_float(self.curve.rounding),
            "per_example": rows[:MOST_ROWS],
            "per_example_left_out": max(0, len(rows) - MOST_ROWS),
            "versions": self.versions,
        } | self.settings

    def __str__(self) -> str:
        return f"{self.objective} = {self.value}: {self.reading}"


def _plain(value: Any) -> Any:
    return json_float(value) if isinstance(value, float) else value


def _without(data: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != name}


def versions(*more: str) -> dict[str, str]:
    """What computed the figures: these packages and boundcheck, numpy and Python."""
    packages = ("boundcheck", *more, "numpy")
    return {name: version(name) for name in packages} | {"python": sys.version.split()[0]}


__all__ = ["MOST_ROWS", "EvidenceCard", "ExampleTable", "versions"]
