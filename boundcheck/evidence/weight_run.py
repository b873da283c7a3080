"""What one pass over the log-weights of every example tells, whoever computed them: torch is not needed for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput
from boundcheck.evaluators.values import Bias, Sampled
from boundcheck.evidence.accumulators import Accumulator, IwaeGroups, Tail, WeightSums
from boundcheck.evidence.curve import CurvePoint, IwaeCurve

KS = (1, 5, 50, 500, 5000)
"""Where an IWAE curve is read by default; 1 is the ELBO."""
ROUNDINGS = 64
"""How many roundings of its own size a log-density is granted: sums over pixels and units, pairwise added."""


@dataclass(frozen=True)
class WeightRun:
    """What one pass over the log-weights of every example tells; arrays have examples on their last axis, in nats.

    Attributes:
        k: draws for each example.
        ks: sizes of the groups whose log-means were averaged.
        groups: disjoint groups for each of them.
        iwae: the estimates of IWAE_k, of shape (ks, examples); each is unbiased. NaN for examples that failed.
        iwae_errors: their standard errors, from the spread over groups; for a single group by the delta method,
            sd(w) / (mean(w) sqrt(k)), an approximation that is too small where few draws carry all the weight.
        iwae_skewnesses: the skewness of the groups' values.
        log_mean_weight: log (1/K) sum w: one group of all draws.
        effective_sample_sizes: (sum w)^2 / sum w^2, between 1 and K; 0 if all weights are zero.
        tail: the largest log-weights in descending order, of shape (m, examples).
        failed: why an example has no result, by its number; all others were evaluated.
        rounding: an estimate of the error of the model's own floating-point arithmetic.
        notes: what the reader of a card should know, such as a chunk that had to be halved.
        accumulators: whatever else was asked to be kept, by name, of all examples.
        settings: the numbers and the machine that the run was made with.
    """

    k: int
    ks: tuple[int, ...]
    groups: tuple[int, ...]
    iwae: NDArray[np.float64]
    iwae_errors: NDArray[np.float64]
    iwae_skewnesses: NDArray[np.float64]
    log_mean_weight: NDArray[np.float64]
    effective_sample_sizes: NDArray[np.float64]
    tail: NDArray[np.float64]
    failed: dict[int, str]
    rounding: float
    notes: list[str]
    accumulators: dict[str, Accumulator] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def evaluated(self) -> NDArray[np.intp]:
        """The numbers of the examples that have a result."""
        everyone = np.arange(len(self.log_mean_weight))
        return everyone[~np.isin(everyone, list(self.failed))]

    def estimates(self, k: int) -> tuple[Sampled, ...]:
        """IWAE_k at each example that was evaluated.

        Raises:
            BadInput: a k that was not asked for.
        """
        if k not in self.ks:
            raise BadInput("k", k, f"one of {self.ks}")
        row, which = self.ks.index(k), self.evaluated
        columns = (each[row, which].tolist() for each in (self.iwae, self.iwae_errors, self.iwae_skewnesses))
        return tuple(
            Sampled(mean, error, Bias.NONE, self.groups[row], skewness)
            for mean, error, skewness in zip(*columns, strict=True)
        )

    @property
    def curve(self) -> IwaeCurve:
        """IWAE_k against k over the examples that were evaluated."""
        points = tuple(
            CurvePoint(k, count, "groups" if count > 1 else "weights", self.estimates(k))
            for k, count in zip(self.ks, self.groups, strict=True)
        )
        return IwaeCurve(points, self.effective_sample_sizes[self.evaluated], self.rounding)


def summarised(
    kept: dict[str, Accumulator],
    ks: tuple[int, ...],
    k: int,
    failed: dict[int, str],
    rounding: float = 0.0,
    notes: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> WeightRun:
    """What accumulators tell that have seen all K log-weights of each example.

    Args:
        kept: "iwae", "sums" and "tail"; whatever else there is goes into `WeightRun.accumulators`.
        ks: sizes of groups.
        k: draws for each example.
        failed: why an example has no result, by its number.
        rounding: an estimate, in nats, of the error of a log-weight.
        notes: for the reader of a card.
        settings: what the run was made with.
    """
    kept = dict(kept)
    groups, sums, tail = kept.pop("iwae"), kept.pop("sums"), kept.pop("tail")
    assert isinstance(groups, IwaeGroups) and isinstance(sums, WeightSums) and isinstance(tail, Tail)
    means, errors, sizes = groups.means(), groups.errors(), sums.effective_sample_sizes()
    for row, (size, count) in enumerate(zip(ks, groups.counts, strict=True)):
        if count == 1 and k > 1:
            # sd(w) / (mean(w) sqrt(k)), and ESS = n / (1 + cv^2) with the sample's cv
            with np.errstate(divide="ignore", invalid="ignore"):
                squares = np.maximum(k / sizes - 1, 0) * k / (k - 1) / size
            errors[row] = np.where(np.isfinite(means[row]), np.sqrt(squares), math.nan)
    for array in (means, errors, sizes, log_mean := sums.log_mean(), tail.largest):
        array[..., list(failed)] = math.nan
    return WeightRun(
        k=k,
        ks=ks,
        groups=tuple(groups.counts),
        iwae=means,
        iwae_errors=errors,
        iwae_skewnesses=groups.skewnesses(),
        log_mean_weight=log_mean,
        effective_sample_sizes=sizes,
        tail=tail.largest,
        failed=failed,
        rounding=rounding,
        notes=list(notes),
        accumulators=kept,
        settings=dict(settings or {}),
    )


__all__ = ["KS", "ROUNDINGS", "WeightRun", "summarised"]
