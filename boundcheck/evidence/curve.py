"""The IWAE curve and the bounds on the evidence that can be read off it.

IWAE_k rises with k towards log p(x) and never exceeds it in expectation (Burda et al. 2016), so every point of the
curve is a lower bound; an upper one that needs no latent at all comes from counting discrete data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from boundcheck.evaluators.averages import DatasetMean, over_examples
from boundcheck.evaluators.values import Sampled

if TYPE_CHECKING:
    from torch import Tensor

    from boundcheck.models.torch_model import TorchModel


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


def discrete_upper_bound(model: TorchModel, x: Tensor) -> float | None:
    """An upper bound on the mean log p(x) that holds for every model of discrete data; None for continuous data.

    Probabilities of different points sum to at most one, so by Gibbs' inequality the mean of log p(x_i) is at most
    minus the entropy of the examples' own distribution: -log N for N different examples.

    >>> import torch
    >>> from torch.distributions import Bernoulli, Independent, Normal
    >>> from boundcheck.models.torch_model import TorchModel
    >>> model = TorchModel(
    ...     prior=lambda: Normal(0.0, 1.0),
    ...     encoder=lambda x: Normal(x[:, 0], 1.0),
    ...     decoder=lambda z: Independent(Bernoulli(logits=z[:, None].expand(-1, 2)), 1),
    ... )
    >>> print(f"{discrete_upper_bound(model, torch.eye(2)):.4f}")
    -0.6931
    """
    import torch

    from boundcheck.models.torch_model import random_state, support_is_discrete

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
