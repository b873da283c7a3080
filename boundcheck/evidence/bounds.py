"""What bounds the mean log p(x) of some examples, put together for a verdict: weights, annealing, quadrature.

Weights alone need no torch, so what needs it is imported where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from boundcheck.errors import BadInput, BoundcheckError, CannotCompute
from boundcheck.evaluators.values import Approximate
from boundcheck.evidence.accumulators import Maker
from boundcheck.evidence.card import ExampleTable
from boundcheck.evidence.diagnostics import pareto_k
from boundcheck.evidence.journal import JournalError
from boundcheck.evidence.verdict import Evidence, LowerBound, UpperBound
from boundcheck.evidence.wealth import Wealth

if TYPE_CHECKING:
    from torch import Tensor

    from boundcheck.evidence.annealing import AnnealedWeights
    from boundcheck.evidence.bidirectional import SimulatedGap
    from boundcheck.evidence.latent_grid import GridEvidence
    from boundcheck.evidence.stages import Stage
    from boundcheck.evidence.weight_run import WeightRun
    from boundcheck.models.torch_model import TorchModel

_GRID_TOLERANCE = 1e-4
_HONEST = 1e-2
"""A quadrature whose own error estimate is larger, in nats, is shown and not used."""
_GAP_EXAMPLES, _CHAINS = 50, 16


def wealth_maker(k: int) -> Maker:
    """Bets on groups of 1, 2, 4, ... up to K draws."""
    levels = max(1, k.bit_length())
    return lambda examples, start: Wealth(examples, start, levels)


def bounds_of(
    result: WeightRun,
    annealed: AnnealedWeights | None = None,
    grid: GridEvidence | None = None,
    upper: UpperBound | None = None,
    log_evidence: Approximate | None = None,
) -> Evidence:
    """What is known of the mean log p(x) of the examples that were evaluated."""
    wealth, which = result.accumulators["wealth"], result.evaluated
    assert isinstance(wealth, Wealth)
    best = result.curve.best
    ways = [LowerBound(f"{result.k} weights", lambda delta: wealth.lower_mean(delta, which))]
    if annealed is not None and not annealed.failed:
        ways.append(LowerBound("AIS", annealed.bound))
    known = None if log_evidence is None else UpperBound(log_evidence, "given")
    integral = None
    if grid is not None and _is_honest(grid):
        integral = UpperBound(grid.mean, "quadrature, an estimate")
    return Evidence(tuple(ways), (f"IWAE-{best.k}", best.mean), upper, known, integral, result.rounding)


def _is_honest(grid: GridEvidence) -> bool:
    return not grid.failed and bool(np.isfinite(grid.values).all()) and float(np.max(grid.errors)) <= _HONEST


def grid_of(
    model: TorchModel, x: Tensor, wanted: bool, result: WeightRun, notes: list[str], stage: Stage | None = None
) -> GridEvidence | None:
    """Quadrature where the latent has one or two dimensions; None, with a note, where it contradicts a lower bound."""
    from boundcheck.evidence.latent_grid import grid_evidence

    if not wanted:
        return None
    try:
        found = grid_evidence(model, x, tolerance=_GRID_TOLERANCE, stage=stage)
    except JournalError:
        raise
    except (BoundcheckError, NotImplementedError, RuntimeError):  # another number of dimensions, discrete or bounded
        return None
    wealth = result.accumulators["wealth"]
    assert isinstance(wealth, Wealth)
    limits = wealth.lower(1e-9)[result.evaluated] - result.rounding
    if bool((found.values + found.errors < limits).any()):
        notes.append("the quadrature over the latent missed mass that the encoder finds, and is left out")
        return None
    if not _is_honest(found):
        notes.append(
            f"the quadrature over the latent is too coarse to decide by (largest error {np.max(found.errors):.2g})"
        )
    return found


def annealed_of(
    model: TorchModel,
    x: Tensor,
    temperatures: int | None,
    seed: int,
    notes: list[str],
    progress: Callable[[int], None] | None = None,
    stage: Stage | None = None,
) -> tuple[AnnealedWeights | None, SimulatedGap | None]:
    """AIS at the data, and bidirectional Monte Carlo on simulated data, if asked for and possible."""
    from boundcheck.evidence.annealing import annealed_weights
    from boundcheck.evidence.bidirectional import simulated_gap
    from boundcheck.evidence.stages import Stage

    if temperatures is None:
        return None, None
    stage = stage or Stage()
    options: dict[str, Any] = {"temperatures": temperatures, "chains": _CHAINS, "seed": seed, "progress": progress}
    try:
        found = annealed_weights(model, x, **options, stage=stage.within("annealing"))
    except CannotCompute as error:
        notes.append(f"no AIS: {error.reason}")
        return None, None
    if found.failed:
        notes.append(f"AIS failed at {len(found.failed)} examples, so its bound is not used")
    try:
        return found, simulated_gap(model, examples=_GAP_EXAMPLES, **options, stage=stage.within("bidirectional"))
    except JournalError:
        raise
    except (BoundcheckError, NotImplementedError, RuntimeError) as error:
        notes.append(f"no bidirectional Monte Carlo: {str(error).splitlines()[0][:200] if str(error) else 'it failed'}")
        return found, None


def annealing_moves(examples: int, temperatures: int | None) -> int:
    """How much `annealed_of` has to do, for progress.

    Raises:
        BadInput: no number of temperatures.
    """
    from boundcheck.evidence.annealing import moves

    if temperatures is None:
        return 0
    if isinstance(temperatures, bool) or not isinstance(temperatures, int) or temperatures < 1:
        raise BadInput("ais", temperatures, "a number of temperatures of at least 1", "for example 100")
    return sum(moves(count, temperatures, _CHAINS) for count in (examples, _GAP_EXAMPLES, _GAP_EXAMPLES))


def table_of(result: WeightRun, delta: float, indices: Any = None, grid: GridEvidence | None = None) -> ExampleTable:
    """What is known of each example that was evaluated."""
    kept = result.evaluated
    wealth = result.accumulators["wealth"]
    assert isinstance(wealth, Wealth)
    numbers = np.arange(len(result.log_mean_weight)) if indices is None else np.asarray(indices)
    elbo = result.iwae[0] if result.ks[0] == 1 else np.full(len(numbers), math.nan)
    return ExampleTable(
        index=numbers[kept],
        elbo=elbo[kept],
        log_mean_weight=result.log_mean_weight[kept],
        lower=(wealth.lower(delta) - result.rounding)[kept],
        effective_sample_size=result.effective_sample_sizes[kept],
        pareto_k=pareto_k(result.tail[:, kept]),
        grid=None if grid is None else grid.values,
    )


__all__ = ["annealed_of", "annealing_moves", "bounds_of", "grid_of", "table_of", "wealth_maker"]
