"""The log-weights of a trained model, streamed once, and all that a single stream of them tells.

log w(z) = log p(x,z) - log q(z|x) for z ~ q(.|x). K weights in disjoint groups estimate every IWAE_k without bias;
their first two moments give the effective sample size. Nothing is kept but one number per example and group, so
K = 5000 needs no more memory than K = 50.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.catalogue.objectives import elbo
from boundcheck.errors import BadInput, require
from boundcheck.evaluators.averages import DatasetMean, over_examples
from boundcheck.evaluators.monte_carlo import Moments, prepare
from boundcheck.evaluators.values import Bias, Sampled
from boundcheck.models.torch_model import TorchModel, random_state, support_is_discrete

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="log-weights of a trained model")
    Tensor = torch.Tensor

KS = (1, 5, 50, 500, 5000)
"""Where an IWAE curve is read by default; 1 is the ELBO."""
_ENOUGH_GROUPS = 10


def log_weights(
    model: object, x: Any, k: int, *, seed: int = 0, chunk: int | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """log w = log p(x,z) - log q(z|x) for k independent draws at each example, in nats, as a stream.

    Args:
        model: a `TorchModel` or an object with its functions.
        x: observations of shape (examples, *event).
        k: draws for each example.
        seed: of all draws.
        chunk: the most points handed to the model at once.

    Yields:
        Which examples, and a float64 tensor of shape (draws, examples). All draws of some examples come before those
        of the next ones.

    Raises:
        BadInput: as `boundcheck.evaluators.monte_carlo.evaluate`.

    >>> from torch.distributions import Normal
    >>> model = TorchModel(
    ...     prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x / 2, 0.5**0.5), decoder=lambda z: Normal(z, 1.0)
    ... )
    >>> [(where, tuple(block.shape)) for where, block in log_weights(model, [0.0, 1.0], 5)]
    [(slice(0, 2, None), (5, 2))]
    """
    for block in prepare(elbo, model, x, n=k, seed=seed, chunk=chunk):
        for values in block:
            yield slice(block.start, block.start + block.size), values


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


class _Groups:
    """log mean w over disjoint groups of k consecutive draws, online, for some examples."""

    def __init__(self, k: int, examples: int, device: torch.device) -> None:
        self.k, self.filled = k, 0
        self.partial = torch.full((examples,), -math.inf, dtype=torch.float64, device=device)
        self.moments = Moments(examples, device)

    def add(self, values: Tensor) -> None:
        start, size = 0, values.shape[0]
        while start < size:
            whole = (size - start) // self.k if self.filled == 0 else 0
            if whole:
                block = values[start : start + whole * self.k].reshape(whole, self.k, -1)
                self.moments.add(block.logsumexp(1) - math.log(self.k))
                start += whole * self.k
                continue
            take = min(self.k - self.filled, size - start)
            self.partial = torch.logaddexp(self.partial, values[start : start + take].logsumexp(0))
            self.filled += take
            start += take
            if self.filled == self.k:
                self.moments.add((self.partial - math.log(self.k)).unsqueeze(0))
                self.partial, self.filled = torch.full_like(self.partial, -math.inf), 0


def iwae_curve(
    model: object,
    x: Any,
    ks: Sequence[int] = KS,
    *,
    seed: int = 0,
    chunk: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> IwaeCurve:
    """IWAE_k = E log mean_{j<=k} w_j (Burda et al. 2016, eq. 8) for several k, each without bias, from one stream.

    max(ks) weights for each example are cut into disjoint groups: 5000 weights are 5000 groups of 1, 1000 of 5, ...,
    one of 5000. What is left over where k does not divide max(ks) is not used for that k.

    Args:
        model: a `TorchModel` or an object with its functions.
        x: observations of shape (examples, *event).
        ks: numbers of weights.
        seed: of all draws.
        chunk: the most points handed to the model at once.
        progress: called with the number of weights just computed.

    Raises:
        BadInput: as `boundcheck.evaluators.monte_carlo.evaluate`, or no or bad ks.

    >>> from torch.distributions import Normal
    >>> model = TorchModel(
    ...     prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x / 2, 0.5**0.5), decoder=lambda z: Normal(z, 1.0)
    ... )
    >>> curve = iwae_curve(model, [0.0, 1.0], ks=(1, 10))
    >>> [(point.k, point.groups, round(point.mean.mean, 4)) for point in curve.points]
    [(1, 10, -1.3905), (10, 1, -1.3905)]
    """
    wanted = sorted(set(ks))
    if not wanted or any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in wanted):
        raise BadInput("ks", tuple(ks), "some integers of at least 1", "for example (1, 5, 50, 500, 5000)")
    most = wanted[-1]
    job = prepare(elbo, model, x, n=most, seed=seed, chunk=chunk)
    rows: list[list[Sampled]] = [[] for _ in wanted]
    sizes: list[float] = []
    for block in job:
        groups = [_Groups(k, block.size, block.x.device) for k in wanted]
        first = torch.full((block.size,), -math.inf, dtype=torch.float64, device=block.x.device)
        second = first.clone()
        for values in block:
            with torch.inference_mode():
                first = torch.logaddexp(first, values.logsumexp(0))
                second = torch.logaddexp(second, (2 * values).logsumexp(0))
                for group in groups:
                    group.add(values)
            if progress is not None:
                progress(values.numel())
        effective = torch.where(first == -math.inf, 0.0, (2 * first - second).exp())
        sizes.extend(effective.tolist())
        for row, group in zip(rows, groups, strict=True):
            row.extend(_estimates(group, effective, most))
    points = tuple(
        CurvePoint(k, most // k, "groups" if most // k > 1 else "weights", tuple(row))
        for k, row in zip(wanted, rows, strict=True)
    )
    return IwaeCurve(points, np.array(sizes), job.rounding)


def _estimates(group: _Groups, effective: Tensor, draws: int) -> Iterator[Sampled]:
    """Mean and standard error for each example; a single group's error comes from its weights."""
    means, errors, count = group.moments.means(), group.moments.standard_errors(), group.moments.count
    if count == 1 and draws > 1:
        # sd(w) / (mean(w) sqrt(k)), and ESS = n / (1 + cv^2) with the sample's cv
        errors = ((draws / effective - 1).clamp(min=0) * draws / (draws - 1) / group.k).sqrt()
    for mean, error in zip(means.tolist(), errors.tolist(), strict=True):
        yield Sampled(mean, error if math.isfinite(mean) else math.nan, Bias.NONE, count)


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
