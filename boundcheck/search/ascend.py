"""Gradient ascent on `lhs - rhs`: from many models at once towards a violation, by torch autograd of the same formula.

Each table is a softmax of free numbers, so every step stays among probabilities, and small ones are as near as large
ones. Adam takes the steps, because only the sign and the steadiness of a slope tell where to go: near a violation of
1e-4 the slopes are as small. Many claims are tight on trivial models (the encoder is the posterior), to which plain
ascent runs down; every second model therefore climbs the margin *relative* to a gap that vanishes there too.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from boundcheck.claims.claim import Claim
from boundcheck.search.batch import ModelBatch

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 64
"""Steps of one ascent; a model that takes part counts as so many models tried."""

_LARGEST_STEPS = (0.6, 0.15, 0.04, 0.01)
"""First steps, in logarithms of probabilities: some models go far, some stay near where they started."""

_LAST_STEP = 0.01
"""The last step, relative to the first."""

_SMALLEST_PROBABILITY = 1e-12
_SMALLEST_YARDSTICK = 1e-9
_BETA_1, _BETA_2 = 0.9, 0.99


def available() -> bool:
    """True if torch can be imported; it is not imported to find out."""
    return find_spec("torch") is not None


def ascend(claim: Claim, starts: ModelBatch, yardstick: Claim | None = None, steps: int = STEPS) -> ModelBatch:
    """The best model on the way up from each start: those with the largest `lhs - rhs`, or `|lhs - rhs|` for "==".

    Args:
        claim: a claim between two formulas.
        starts: the models to start from.
        yardstick: a true claim whose margin is small on trivial models; every second model climbs relative to it.
        steps: how many steps.

    Raises:
        MissingExtra: without torch.
        CannotCompute: a side of the claim that finite models cannot evaluate.

    >>> from boundcheck.catalogue import find
    >>> from boundcheck.search.batch import Sizes, margins
    >>> from boundcheck.search.propose import random_batch
    >>> claim = find("renyi-negative-above-evidence-anywhere")
    >>> starts = random_batch(np.random.default_rng(0), Sizes(1, 2), frozenset({"encoder"}), 8, zeros=False)
    >>> bool(margins(claim, ascend(claim, starts)).min() < margins(claim, starts).min())
    True
    """
    from boundcheck.evaluators.differentiable import LogTables, evaluate_many, torch

    roles = [role for role in starts.tables if role != "joint"]
    logits = {
        role: torch.tensor(np.log(np.maximum(starts.tables[role], _SMALLEST_PROBABILITY)), requires_grad=True)
        for role in roles
    }
    count = len(starts)
    relative = torch.arange(count) % 2 == 1
    first_step = torch.tensor(_LARGEST_STEPS, dtype=torch.float64)[torch.arange(count) // 2 % len(_LARGEST_STEPS)]

    def height(models: LogTables) -> Tensor:
        lhs, rhs = (evaluate_many(side, models) for side in claim.terms)
        climbed = torch.abs(rhs - lhs) if claim.relation == "==" else lhs - rhs
        if yardstick is None:
            return climbed
        low, high = (evaluate_many(side, models) for side in yardstick.terms)
        known = torch.isfinite(high - low)
        scale = torch.where(known, high - low, 1.0).clamp(min=_SMALLEST_YARDSTICK)
        return torch.where(relative, climbed / scale, climbed)

    best = torch.full((count,), -math.inf, dtype=torch.float64)
    reached = {role: logit.detach().clone() for role, logit in logits.items()}
    means = {role: (torch.zeros_like(logit), torch.zeros_like(logit)) for role, logit in logits.items()}
    for step in range(steps):
        climbed = height(LogTables({role: torch.log_softmax(logit, dim=-1) for role, logit in logits.items()}))
        known = torch.isfinite(climbed)
        slopes = torch.autograd.grad(
            torch.where(known, climbed, 0.0).sum(), list(logits.values()), allow_unused=True, materialize_grads=True
        )
        with torch.no_grad():
            better = known & (climbed > best)
            best = torch.where(better, climbed, best)
            rate = first_step * _LAST_STEP ** (step / max(1, steps - 1))
            for role, slope in zip(logits, slopes, strict=True):
                logit, (mean, square) = logits[role], means[role]
                reached[role][better] = logit[better]
                slope = torch.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0)
                mean.mul_(_BETA_1).add_(slope, alpha=1 - _BETA_1)
                square.mul_(_BETA_2).addcmul_(slope, slope, value=1 - _BETA_2)
                fair = torch.sqrt(square / (1 - _BETA_2 ** (step + 1))).clamp(min=1e-300)
                logit.add_(rate.reshape(-1, *[1] * (logit.ndim - 1)) * (mean / (1 - _BETA_1 ** (step + 1))) / fair)
                logit.sub_(logit.amax(dim=-1, keepdim=True)).clamp_(min=math.log(_SMALLEST_PROBABILITY))
    return ModelBatch(starts.sizes, {role: torch.softmax(table, dim=-1).numpy() for role, table in reached.items()})
