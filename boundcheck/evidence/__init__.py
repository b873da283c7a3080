"""Log-weights of trained models: how high is the evidence, and does an objective stay below it?

Everything that needs torch is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boundcheck.evidence.annealing import AnnealedWeights, annealed_weights, reverse_weights
    from boundcheck.evidence.bidirectional import SimulatedGap, simulate, simulated_gap
    from boundcheck.evidence.card import EvidenceCard
    from boundcheck.evidence.curve import CurvePoint, IwaeCurve
    from boundcheck.evidence.engine import log_weights, run
    from boundcheck.evidence.evaluation import evaluate_model
    from boundcheck.evidence.from_files import evaluate_files
    from boundcheck.evidence.from_log_weights import evaluate_log_weights
    from boundcheck.evidence.intervals import EvidenceInterval, Label, evidence_interval, interval_of
    from boundcheck.evidence.latent_grid import GridEvidence, grid_evidence
    from boundcheck.evidence.loading import load_data, load_factory, load_weights
    from boundcheck.evidence.objective import TrainingObjective, training_objective
    from boundcheck.evidence.text import render
    from boundcheck.evidence.verdict import Judgement, judge
    from boundcheck.evidence.wealth import Wealth
    from boundcheck.evidence.weight_run import WeightRun

_HOME = {
    "AnnealedWeights": "annealing",
    "EvidenceInterval": "intervals",
    "GridEvidence": "latent_grid",
    "Label": "intervals",
    "SimulatedGap": "bidirectional",
    "Wealth": "wealth",
    "annealed_weights": "annealing",
    "evidence_interval": "intervals",
    "grid_evidence": "latent_grid",
    "interval_of": "intervals",
    "reverse_weights": "annealing",
    "simulate": "bidirectional",
    "simulated_gap": "bidirectional",
    "EvidenceCard": "card",
    "Judgement": "verdict",
    "TrainingObjective": "objective",
    "judge": "verdict",
    "render": "text",
    "training_objective": "objective",
    "CurvePoint": "curve",
    "IwaeCurve": "curve",
    "WeightRun": "weight_run",
    "log_weights": "engine",
    "run": "engine",
    "evaluate_files": "from_files",
    "evaluate_log_weights": "from_log_weights",
    "evaluate_model": "evaluation",
    "load_data": "loading",
    "load_factory": "loading",
    "load_weights": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


__all__ = [
    "AnnealedWeights",
    "CurvePoint",
    "EvidenceCard",
    "EvidenceInterval",
    "GridEvidence",
    "IwaeCurve",
    "Judgement",
    "Label",
    "SimulatedGap",
    "TrainingObjective",
    "Wealth",
    "WeightRun",
    "annealed_weights",
    "evaluate_files",
    "evaluate_log_weights",
    "evaluate_model",
    "evidence_interval",
    "grid_evidence",
    "interval_of",
    "judge",
    "load_data",
    "load_factory",
    "load_weights",
    "log_weights",
    "render",
    "reverse_weights",
    "run",
    "simulate",
    "simulated_gap",
    "training_objective",
]
