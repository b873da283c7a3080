"""Annealed importance sampling: chains from q(z|x) or the prior to the posterior, whose weights have mean p(x).

A chain goes through the densities f_b = base^(1-b) p(x,z)^b, b from 0 to 1, and collects log f_b(z)/f_b'(z) at each
step before it moves by a transition that leaves f_b invariant. Its weight w has E w = p(x) however badly the chain
mixes, so E log w is a lower bound on log p(x), and the better the chain the tighter. Started from an exact draw of the
posterior, which simulated data come with, and walked backwards, E 1/w = 1/p(x): an upper bound. All that a transition
is tuned by comes from a pilot with draws of its own: a step size that looks at its own chain breaks both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.evaluators.averages import DatasetMean, over_examples
from boundcheck.evaluators.values import Bias, Sampled, json_float
from boundcheck.evidence.chain_block import moves
from boundcheck.evidence.chains import ROWS, Job, Walked
from boundcheck.evidence.intervals import Label
from boundcheck.evidence.stages import Stage
from boundcheck.evidence.streams import Purpose
from boundcheck.evidence.tempering import Setting, schedule
from boundcheck.evidence.wealth import Wealth, checked_delta

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AnnealedWeights:
    """The log-weights of annealed chains, and what they bound.

    Attributes:
        log_weights: of shape (chains, examples), in nats. Forward, E w = p(x); reverse, E 1/w = 1/p(x). The chains of
            an example are independent if forward; if reverse, they all start from one posterior draw, and only
            examples are independent.
        reverse: the direction.
        betas: the schedule b_0 .. b_T.
        acceptance: the mean probability of acceptance at b_1 .. b_{T-1}.
        step_sizes: the mean step size there, in units of the base's standard deviations, as the pilot left it.
        base: "encoder" or "prior".
        leapfrogs: leapfrog steps in a transition.
        seed: of all draws.
        rounding: an estimate, in nats, of the error of the model's own floating-point arithmetic in a log-weight.
        failed: examples whose log-densities are no numbers, and why; their log-weights are NaN.
        notes: what else is to be known, such as memory that did not suffice for the rows asked for.
    """

    log_weights: Floats
    reverse: bool
    betas: Floats
    acceptance: Floats
    step_sizes: Floats
    base: str
    leapfrogs: int
    seed: int
    rounding: float
    failed: dict[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def kept(self) -> NDArray[np.int64]:
        """The examples that did not fail."""
        return np.array([each for each in range(self.log_weights.shape[1]) if each not in self.failed], dtype=np.int64)

    @property
    def mean(self) -> DatasetMean:
        """E log w over the examples: a lower bound on their mean log p(x) in expectation; reverse, an upper one."""
        chains = len(self.log_weights)
        rows = []
        for column in self.log_weights.T[self.kept]:
            mean = float(np.mean(column))
            spread = (
                float(np.std(column, ddof=1)) / math.sqrt(chains) if chains > 1 and math.isfinite(mean) else math.nan
            )
            rows.append(Sampled(mean, spread, Bias.NONE, chains))
        if not rows:
            return DatasetMean(math.nan, math.nan, math.nan, Bias.NONE, 0, chains)
        return over_examples(rows)

    def log_mean_weight(self) -> Floats:
        """Of each example: log mean_c w_c, whose expectation is at most log p(x) and at least E log w.

        Reverse: -log mean_c 1/w_c, whose expectation is at least log p(x).
        """
        sign = -1 if self.reverse else 1
        with np.errstate(invalid="ignore"):  # a failed example's are NaN
            return sign * (np.logaddexp.reduce(sign * self.log_weights, axis=0) - math.log(len(self.log_weights)))

    @cached_property
    def _wealth(self) -> Wealth:
        if not self.reverse:
            chains = len(self.log_weights)
            wealth = Wealth(self.log_weights.shape[1], levels=chains.bit_length())
            wealth.add(self.log_weights)
            return wealth
        wealth = Wealth(self.log_weights.shape[1], levels=1)  # one posterior draw: one bet
        wealth.add(-self.log_mean_weight()[None, :])
        return wealth

    def bound(self, delta: float) -> float:
        """A bound at 1 - delta on the mean of log p(x) over the examples: below it, or above it if reverse.

        It is that of `boundcheck.evidence.intervals.Wealth`, moved to the safe side by `rounding`.

        Raises:
            BadInput: a delta outside (0, 1).
        """
        checked_delta(delta)
        found = self._wealth.lower_mean(delta, which=self.kept, fixed=True) if len(self.kept) else -math.inf
        lower = found - self.rounding
        return -lower if self.reverse else lower

    def bound_of_examples(self, delta: float) -> Floats:
        """Likewise for each example on its own, each at 1 - delta."""
        lower = self._wealth.lower(delta, fixed=True) - self.rounding
        return -lower if self.reverse else lower

    def to_json(self, delta: float = 1e-3) -> dict[str, Any]:
        """JSON-ready."""
        means = self.log_mean_weight()[self.kept]
        return {
            "quantity": "mean log p(x) over these examples, nats",
            "method": f"annealed importance sampling, {'reverse' if self.reverse else 'forward'}",
            "side": "upper" if self.reverse else "lower",
            "expectation": {
                "label": Label.EXPECTATION.value,
                **self.mean.to_json(),
                "log_mean_weight": json_float(float(np.mean(means)) if len(means) else math.nan),
            },
            "probability": {"label": Label.PROBABILITY.value, "delta": delta, "bound": json_float(self.bound(delta))},
            "needs": "exact posterior draws (simulated data)" if self.reverse else "nothing",
            "temperatures": len(self.betas) - 1,
            "chains": len(self.log_weights),
            "leapfrogs": self.leapfrogs,
            "base": self.base,
            "acceptance": [round(each, 4) for each in self.acceptance.tolist()],
            "mean_acceptance": json_float(float(np.mean(self.acceptance))) if len(self.acceptance) else None,
            "step_sizes": [float(f"{each:.4g}") for each in self.step_sizes.tolist()],
            "rounding": self.rounding,
            "seed": self.seed,
            "notes": list(self.notes),
            "failed": {str(index): reason for index, reason in sorted(self.failed.items())},
        }


def annealed_weights(
    model: object,
    x: Any,
    *,
    temperatures: int = 100,
    chains: int = 16,
    leapfrogs: int = 8,
    base: str = "encoder",
    kind: str = "sigmoid",
    seed: int = 0,
    rows: int = ROWS,
    progress: Callable[[int], None] | None = None,
    stage: Stage | None = None,
) -> AnnealedWeights:
    """Log-weights of annealed chains from q(z|x), or from the prior, to p(z|x): E w = p(x) (Neal 2001, eq. 10).

    log w = sum_{t=1..T} (b_t - b_{t-1}) (log p(x,z_{t-1}) - log base(z_{t-1})), where z_0 ~ base and z_t comes from
    z_{t-1} by a step of Hamiltonian Monte Carlo that leaves base^(1-b_t) p(x,z)^b_t invariant. (Where q does not cover
    the posterior, E w < p(x), and the bounds stay bounds.) Step sizes of each example and temperature are set by a
    pilot of 8 chains with random numbers of their own, and are then fixed.

    Every random number is a function of the seed, the example, the chain and the temperature, so `rows` changes nothing
    but the model's own rounding. That is below 1e-6 for a model in float64; in float32 a chain whose decision hangs on
    it may go another way, as likely as not.

    Args:
        model: a `TorchModel` or an object with its functions; its z lives on R^d, its decoder is differentiable.
        x: observations of shape (examples, *event).
        temperatures: T.
        chains: independent ones for each example.
        leapfrogs: leapfrog steps in a transition.
        base: "encoder" for q(z|x), or "prior".
        kind: of `schedule`.
        seed: of all draws.
        rows: chains handed to the model at once, which bounds the memory.
        progress: called with the number of chain moves just made, of `moves(examples, temperatures, chains)` in all.
        stage: where its blocks are computed and kept.

    Raises:
        BadInput: bad numbers, data or shapes, or a model that is no function of its arguments.
        CannotCompute: latents that are discrete or bounded, or a decoder without a gradient.

    >>> import torch
    >>> from torch.distributions import Independent, Normal
    >>> from boundcheck.models.torch_model import TorchModel
    >>> model = TorchModel(
    ...     prior=lambda: Independent(Normal(torch.zeros(1).double(), 1.0), 1),
    ...     encoder=lambda x: Independent(Normal(0 * x, 1.0), 1),
    ...     decoder=lambda z: Independent(Normal(z, 1.0), 1),
    ... )
    >>> x = torch.tensor([[2.0]], dtype=torch.float64)  # log p(x) = -log(4 pi) / 2 - 1 = -2.2655
    >>> weights = annealed_weights(model, x, temperatures=20, chains=100)
    >>> print(f"{weights.mean.mean:.2f} {weights.log_mean_weight()[0]:.2f}")
    -2.38 -2.28
    """
    setting = Setting(temperatures, chains, leapfrogs, base, kind, seed, rows)
    return _annealed(Job(model, x, setting, Purpose.ANNEALING, progress, stage).run(), setting, reverse=False)


def reverse_weights(
    model: object,
    x: Any,
    z: Any,
    *,
    temperatures: int = 100,
    chains: int = 16,
    leapfrogs: int = 8,
    base: str = "encoder",
    kind: str = "sigmoid",
    seed: int = 0,
    rows: int = ROWS,
    progress: Callable[[int], None] | None = None,
    stage: Stage | None = None,
) -> AnnealedWeights:
    """Log-weights of chains from an exact posterior draw back to the base: E 1/w = 1/p(x) (Grosse et al. 2015, sec. 4).

    Args:
        model: as for `annealed_weights`.
        x: observations of shape (examples, *event).
        z: one exact draw of p(z|x_i) for each of them, of shape (examples, *event): if (z_i, x_i) was drawn from the
            model, z_i is one. Anything else makes the bound wrong, and nothing can notice.
        temperatures: T.
        chains: for each example, all from its one posterior draw.
        leapfrogs: leapfrog steps in a transition.
        base: where the chains end.
        kind: of `schedule`.
        seed: of all draws.
        rows: chains handed to the model at once.
        progress: as for `annealed_weights`.
        stage: where its blocks are computed and kept.

    Raises:
        BadInput, CannotCompute: as `annealed_weights`.
    """
    setting = Setting(temperatures, chains, leapfrogs, base, kind, seed, rows)
    return _annealed(Job(model, x, setting, Purpose.REVERSE, progress, stage).run(z), setting, reverse=True)


def _annealed(walked: Walked, setting: Setting, reverse: bool) -> AnnealedWeights:
    return AnnealedWeights(
        walked.log_weights,
        reverse,
        walked.betas,
        walked.acceptance,
        walked.step_sizes,
        setting.base,
        setting.leapfrogs,
        setting.seed,
        walked.rounding,
        walked.failed,
        walked.notes,
    )


__all__ = ["AnnealedWeights", "annealed_weights", "moves", "reverse_weights", "schedule"]
