"""The IWAE curve and the bounds on the evidence that can be read off it.

IWAE_k rises with k towards log p(x) and never exceeds it in expectation (Burda et al. 2016), so every point of the
curve is a lower bound; an upper one that needs no latent at all comes from counting discrete data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import require
from boundcheck.evaluators.averages import DatasetMean, over_examples
from boundcheck.evaluators.values import Sampled
from boundcheck.models.torch_model import TorchModel, random_state, support_is_discrete

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="log-weights of a trained model")
    Tensor = torch.Tensor

_ENOUGH_GROUPS = 10


@dataclass(frozen=True)
class CurvePoint:
    """IWAE_k at each example, and over all: the mean of `groups` independent groups of k weights.

    `error_from` says where each example's standard error comes from: "groups" is the spread over groups. With a
    single group there is none, and "weights" is the delta method, sd(w) / (mean(w) sqrt(k)): an approximation that is
    too small where few draws carry all the weight (see `IwaeCurve.effective_sample_sizes`).
    """

    k: int
    groups: int
    error_from: str
    examples: tuple[Sampled, ...]

    @property
    def mean(self) -> DatasetMean:
        """The mean over the examples."""
        return over_examples(self.examples)


@dataclass(frozen=True)
class IwaeCurve:
    """IWAE_k against k from one stream of weights; points share draws, so their errors are dependent.

    Attributes:
        points: by increasing k.
        effective_sample_sizes: (sum w)^2 / sum w^2 of each example, between 1 and the number of draws.
        rounding: an estimate, in nats, of the error of the model's own floating-point arithmetic.
    """

    points: tuple[CurvePoint, ...]
    effective_sample_sizes: NDArray[np.float64]
    rounding: float

    @property
    def best(self) -> CurvePoint:
        """The point of largest k."""
        return self.points[-1]

    def evidence_lower_bound(self, alpha: float) -> float:
        """A lower confidence limit, at 1 - alpha, of the examples' mean log p(x), in nats: the better of two.

        Markov's assumes nothing about the weights but that examples are independent. A group's mean weight W has
        E W <= p(x), and the product over the examples has it too, so by Markov's inequality the sum of log W exceeds
        the sum of log p(x) by log(1/alpha) with probability at most alpha (for one example: Grosse et al. 2015). An
        average of log W over several groups is below the log of their average weight, for which the same holds.

        Student's is a normal approximation: E IWAE_k <= log p(x), so the mean less t standard errors is a limit as
        well. It is taken where each example has enough groups to show its spread.
        """
        half = alpha / 2
        markov = self.best.mean.mean - math.log(1 / half) / len(self.best.examples)
        spread_known = [point for point in self.points if point.groups >= _ENOUGH_GROUPS]
        limits = [markov, *(_student_limit(point, half) for point in spread_known[-1:])]
        return max((limit for limit in limits if not math.isnan(limit)), default=-math.inf)


def _student_limit(point: CurvePoint, alpha: float) -> float:
    """Mean less t standard errors, with the degrees of freedom of a sum of variances (Satterthwaite 1946)."""
    from scipy.special import stdtrit

    variances = [example.standard_error**2 for example in point.examples]
    total = math.fsum(variances)
    if not total > 0:  # no spread was seen, which says nothing about its size
        return math.nan
    freedom = total**2 / math.fsum(v**2 / (point.groups - 1) for v in variances)
    return point.mean.mean - float(stdtrit(freedom, 1 - alpha)) * point.mean.monte_carlo_error


def discrete_upper_bound(model: TorchModel, x: Tensor) -> float | None:
    """An upper bound on the mean log p(x) that holds for every model of discrete data; None for continuous data.

    Probabilities of different points sum to at most one, so by Gibbs' inequality the mean of log p(x_i) is at most
    minus the entropy of the examples' own distribution: -log N for N different examples.

    >>> from torch.distributions import Bernoulli, Independent, Normal
    >>> model = TorchModel(
    ...     prior=lambda: Normal(0.0, 1.0),
    ...     encoder=lambda x: Normal(x[:, 0], 1.0),
    ...     decoder=lambda z: Independent(Bernoulli(logits=z[:, None].expand(-1, 2)), 1),
    ... )
    >>> print(f"{discrete_upper_bound(model, torch.eye(2)):.4f}")
    -0.6931
    """
    with torch.inference_mode():
        encoder = model.law("encoder", x[:1])
        with random_state(x.device, 0):
            latent = model.sample("encoder", encoder, ())
        if not support_is_discrete(model.law("likelihood", latent)):
            return None
        points = x.flatten(1) if x.ndim > 1 else x
        _, counts = torch.unique(points, dim=0, return_counts=True)
        shares = counts.double() / len(x)
        return float((shares * shares.log()).sum())


__all__ = ["CurvePoint", "IwaeCurve", "discrete_upper_bound"]
