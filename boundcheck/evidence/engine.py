"""The log-weights of a trained model, streamed once, and all that a single stream of them tells.

log w(z) = log p(x,z) - log q(z|x) for z ~ q(.|x). Work is cut into items that depend on nothing but the job itself;
items go over threads, processes and interruptions, each leaves a small state, and states merge in order. So K = 500,000
needs no more memory than K = 50, and whoever computes an item gets the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, require
from boundcheck.evaluators.averages import DatasetMean, over_examples
from boundcheck.evaluators.values import Bias, Sampled
from boundcheck.evidence.accumulators import Accumulator, IwaeGroups, Maker, Tail, WeightSums, joined, tail_size
from boundcheck.evidence.probe import bfloat16_error, probe
from boundcheck.evidence.resources import default_chunk, has_bfloat16_units, torch_threads, usable_cores
from boundcheck.evidence.streams import Item, Layout, Purpose, checked_seed
from boundcheck.evidence.weights import Weigher, unvalidated
from boundcheck.models.torch_model import TorchModel, random_state, support_is_discrete

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from boundcheck.evidence.fused import FusedWeights
else:
    torch = require("torch", extra="torch", feature="log-weights of a trained model")
    Tensor = torch.Tensor

KS = (1, 5, 50, 500, 5000)
"""Where an IWAE curve is read by default; 1 is the ELBO."""
_ENOUGH_GROUPS = 10


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
        row = self.ks.index(k)
        pairs = zip(self.iwae[row, self.evaluated], self.iwae_errors[row, self.evaluated], strict=True)
        return tuple(Sampled(float(mean), float(error), Bias.NONE, self.groups[row]) for mean, error in pairs)

    @property
    def curve(self) -> IwaeCurve:
        """IWAE_k against k over the examples that were evaluated."""
        points = tuple(
            CurvePoint(k, count, "groups" if count > 1 else "weights", self.estimates(k))
            for k, count in zip(self.ks, self.groups, strict=True)
        )
        return IwaeCurve(points, self.effective_sample_sizes[self.evaluated], self.rounding)


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


class Job:
    """A pass over the log-weights of a model at some examples, prepared and checked but not yet begun.

    Arguments and errors are those of `run`.
    """

    def __init__(
        self,
        model: object,
        x: Any,
        ks: Sequence[int] = KS,
        *,
        k: int | None = None,
        seed: int = 0,
        chunk: int | None = None,
        threads: int | None = None,
        dtype: str | None = None,
        fused: str = "auto",
        accumulators: Mapping[str, Maker] | None = None,
        purpose: Purpose = Purpose.WEIGHTS,
    ) -> None:
        self.ks = _checked_ks(ks)
        self.k = self.ks[-1] if k is None else _checked_count("k", k)
        if self.k < self.ks[-1]:
            raise BadInput("k", self.k, f"at least {self.ks[-1]}, the largest of ks")
        for name, value in (("chunk", chunk), ("threads", threads)):
            if value is not None:
                _checked_count(name, value)
        if fused not in ("auto", "off"):
            raise BadInput("fused", fused, "'auto' or 'off'")
        self.seed, self.purpose = checked_seed(seed), purpose
        self.model = TorchModel.wrap(model)
        self.x = self.model.data(x)
        device = self.x.device
        self.dtype = _checked_dtype(dtype, device)
        self.threads = threads or (usable_cores() if device.type == "cpu" else 1)
        self.probe = probe(self.model, self.x, self.seed)
        self.notes: list[str] = []
        self.rounding = 0.0
        if self.dtype is not None:
            mean, most = bfloat16_error(self.model, self.x, self.seed)
            self.rounding = most
            self.notes.append(f"bfloat16 moves log p(x|z) by {mean:.2g} nats on average, {most:.2g} at most")
        self.layout = Layout.of(len(self.x), self.k, self.x[0].numel())
        self.chunk = chunk or default_chunk(
            self.x[0].numel() + self.probe.latent, self.x.element_size(), device, self.threads
        )
        self.makers: dict[str, Maker] = {
            "iwae": IwaeGroups.maker(self.ks),
            "sums": WeightSums,
            "tail": Tail.maker(tail_size(self.k)),
            **(accumulators or {}),
        }
        likelihood, weights = (None, None) if fused == "off" or self.dtype else _fused(self.model, self.x)
        self.fused = "weights" if weights is not None else "likelihood" if likelihood is not None else "no"
        self.weigher = Weigher(
            self.model,
            self.x,
            self.layout,
            seed=self.seed,
            purpose=purpose,
            chunk=self.chunk,
            dtype=self.dtype,
            likelihood=likelihood,
            observed=self.probe.observed,
            fused=weights,
        )

    @property
    def draws(self) -> int:
        """Draws in all: what a progress bar counts."""
        return self.k * len(self.x)

    def item(self, item: Item) -> dict[str, NDArray]:
        """The state that one item leaves: that of every accumulator, and which examples failed."""
        weighed = self.weigher(item)
        made = {}
        with torch.inference_mode():
            for name, maker in self.makers.items():
                accumulator = maker(weighed.values.shape[1], item.samples.start)
                accumulator.add(weighed.values)
                made |= {f"{name}/{each}": array for each, array in accumulator.state().items()}
        made[_FAILED] = np.array(sorted(weighed.failed), dtype=np.int64)
        made[_REASONS] = np.array([weighed.failed[index] for index in sorted(weighed.failed)], dtype=np.str_)
        made[_ROUNDING] = np.array(weighed.rounding)
        return made

    def compute(self, items: Sequence[Item]) -> Iterator[tuple[Item, dict[str, NDArray]]]:
        """The states of some items, as they are finished, by as many threads as the job has."""
        alone = self.threads == 1 or len(items) <= 1
        with torch_threads(1 if self.x.device.type == "cpu" else torch.get_num_threads()), unvalidated():
            if alone:
                for item in items:
                    yield item, self.item(item)
                return
            waiting, running = iter(items), dict[Future, Item]()
            with ThreadPoolExecutor(min(self.threads, len(items)), "boundcheck") as pool:
                try:
                    while True:
                        while len(running) < 2 * self.threads and (item := next(waiting, None)) is not None:
                            running[pool.submit(self.item, item)] = item
                        if not running:
                            return
                        for future in wait(running, return_when=FIRST_COMPLETED).done:
                            yield running.pop(future), future.result()
                finally:
                    pool.shutdown(cancel_futures=True)


_FAILED, _REASONS, _ROUNDING = "failed", "reasons", "rounding"


class _Collected:
    """States of items in whatever order, merged in the order of their spans, so that the result is always the same."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.kinds = {name: type(maker(1, 0)) for name, maker in job.makers.items()}
        self.merged: dict[int, dict[str, dict[str, NDArray]]] = {}
        self.next = dict.fromkeys(range(job.layout.blocks), 0)
        self.waiting: dict[int, dict[str, dict[str, NDArray]]] = {}
        self.failed: dict[int, str] = {}
        self.rounding = job.rounding

    def add(self, item: Item, state: Mapping[str, NDArray]) -> None:
        """Take the state of an item."""
        for index, why in zip(state[_FAILED].tolist(), state[_REASONS].tolist(), strict=True):
            if index not in self.failed or why < self.failed[index]:  # the same reason, whoever comes first
                self.failed[index] = why
        self.rounding = max(self.rounding, float(state[_ROUNDING]))
        parts: dict[str, dict[str, NDArray]] = {name: {} for name in self.kinds}
        for key, array in state.items():
            name, slash, each = key.partition("/")
            if slash:
                parts[name][each] = array
        self.waiting[item.index] = parts
        block, spans = item.block, self.job.layout.spans
        while (index := block * spans + self.next[block]) in self.waiting and self.next[block] < spans:
            ready = self.waiting.pop(index)
            before = self.merged.get(block)
            self.merged[block] = (
                ready
                if before is None
                else {name: kind.merged([before[name], ready[name]]).state() for name, kind in self.kinds.items()}
            )
            self.next[block] += 1

    def accumulators(self) -> dict[str, Accumulator]:
        """Those of all examples."""
        blocks = [self.merged[block] for block in range(self.job.layout.blocks)]
        return {name: kind.merged([joined([block[name] for block in blocks])]) for name, kind in self.kinds.items()}


def run(
    model: object,
    x: Any,
    ks: Sequence[int] = KS,
    *,
    k: int | None = None,
    seed: int = 0,
    chunk: int | None = None,
    threads: int | None = None,
    dtype: str | None = None,
    fused: str = "auto",
    resume: str | None = None,
    accumulators: Mapping[str, Maker] | None = None,
    purpose: Purpose = Purpose.WEIGHTS,
    progress: Callable[[int, int], None] | None = None,
) -> WeightRun:
    """Everything that one pass over K log-weights of each example tells, in memory that does not grow with K.

    The draws of an example depend on the seed, the purpose and the example's number alone: chunk, threads, processes,
    interruptions and the other examples change nothing (beyond rounding). The global random state of torch is left as
    it was.

    Args:
        model: a `TorchModel` or an object with its functions, in evaluation mode.
        x: observations of shape (examples, *event).
        ks: sizes of groups: IWAE_k is estimated for each of them, without bias.
        k: draws K for each example; by default the largest of ks.
        seed: of all draws.
        chunk: the most rows handed to the decoder at once; by default, what free memory and caches allow.
        threads: Python threads, with one torch thread each; by default the processors that can be used.
        dtype: "bfloat16" for the decoder's matrix products; what that changes is measured and noted.
        fused: "auto" takes a faster way to the same numbers where there is one, "off" never does.
        resume: a directory that keeps finished work: the same call goes on after an interruption.
        accumulators: what else to keep, by name: see `boundcheck.evidence.accumulators`.
        purpose: a stream of its own, for draws that must be independent of others with this seed.
        progress: called with (done, of) in draws.

    Raises:
        BadInput: wrong arguments, data or laws, if they concern all examples; an example that fails on its own is
            named in `WeightRun.failed`, and the others are evaluated.

    >>> from torch.distributions import Normal
    >>> model = TorchModel(
    ...     prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x / 2, 0.5**0.5), decoder=lambda z: Normal(z, 1.0)
    ... )
    >>> result = run(model, [0.0, 1.0], ks=(1, 10))
    >>> result.groups, result.iwae.round(4).tolist()
    ((10, 1), [[-1.2655, -1.5155], [-1.2655, -1.5155]])
    """
    job = Job(
        model,
        x,
        ks,
        k=k,
        seed=seed,
        chunk=chunk,
        threads=threads,
        dtype=dtype,
        fused=fused,
        accumulators=accumulators,
        purpose=purpose,
    )
    collected = _Collected(job)
    done = 0
    for item, state in job.compute(list(job.layout)):
        collected.add(item, state)
        done += item.rows
        if progress is not None:
            progress(done, job.draws)
    return _result(job, collected)


def _result(job: Job, collected: _Collected) -> WeightRun:
    kept = collected.accumulators()
    groups, sums, tail = kept.pop("iwae"), kept.pop("sums"), kept.pop("tail")
    assert isinstance(groups, IwaeGroups) and isinstance(sums, WeightSums) and isinstance(tail, Tail)
    failed = dict(sorted(collected.failed.items()))
    if len(failed) == len(job.x):
        first = next(iter(failed))
        raise BadInput(f"x[{first}]", "no result", "log-weights that are numbers", failed[first])
    means, errors, sizes = groups.means(), groups.errors(), sums.effective_sample_sizes()
    for row, (size, count) in enumerate(zip(job.ks, groups.counts, strict=True)):
        if count == 1 and job.k > 1:
            # sd(w) / (mean(w) sqrt(k)), and ESS = n / (1 + cv^2) with the sample's cv
            with np.errstate(divide="ignore", invalid="ignore"):
                squares = np.maximum(job.k / sizes - 1, 0) * job.k / (job.k - 1) / size
            errors[row] = np.where(np.isfinite(means[row]), np.sqrt(squares), math.nan)
    for array in (means, errors, sizes, log_mean := sums.log_mean(), tail.largest):
        array[..., list(failed)] = math.nan
    return WeightRun(
        k=job.k,
        ks=job.ks,
        groups=tuple(groups.counts),
        iwae=means,
        iwae_errors=errors,
        log_mean_weight=log_mean,
        effective_sample_sizes=sizes,
        tail=tail.largest,
        failed=failed,
        rounding=collected.rounding,
        notes=[*job.notes, *job.weigher.notes],
        accumulators=kept,
        settings={
            "seed": job.seed,
            "chunk": job.weigher.chunk,
            "threads": job.threads,
            "device": str(job.x.device),
            "dtype": job.dtype or str(job.x.dtype).removeprefix("torch."),
            "fused": job.fused,
        },
    )


def _fused(model: TorchModel, x: Tensor) -> tuple[Callable[[Tensor, Tensor], Tensor] | None, FusedWeights | None]:
    """Faster ways to the same log-weights, where the model has the form for them."""
    from boundcheck.evidence.fused import likelihood_of, weights_of

    return likelihood_of(model, x), weights_of(model, x)


def _checked_count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(name, value, "an integer of at least 1")
    return value


def _checked_ks(ks: Sequence[int]) -> tuple[int, ...]:
    wanted = tuple(sorted(set(ks)))
    if not wanted or any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in wanted):
        raise BadInput("ks", tuple(ks), "some integers of at least 1", "for example (1, 5, 50, 500, 5000)")
    return wanted


def _checked_dtype(dtype: str | None, device: torch.device) -> str | None:
    if dtype is None:
        return None
    if dtype != "bfloat16":
        raise BadInput("dtype", dtype, "'bfloat16', or None for the model's own type")
    if not has_bfloat16_units(device):
        remedy = "leave dtype out: emulation is many times slower than float32"
        raise BadInput("dtype", dtype, f"a {device.type} that multiplies bfloat16 numbers itself", remedy)
    return dtype


# --- views of a run ---


def log_weights(
    model: object, x: Any, k: int, *, seed: int = 0, chunk: int | None = None, fused: str = "auto"
) -> Iterator[tuple[slice, Tensor]]:
    """log w = log p(x,z) - log q(z|x) for k independent draws at each example, in nats, as a stream.

    Args:
        model: a `TorchModel` or an object with its functions.
        x: observations of shape (examples, *event).
        k: draws for each example.
        seed: of all draws.
        chunk: the most rows handed to the decoder at once.
        fused: as for `run`.

    Yields:
        Which examples, and a float64 tensor of shape (draws, examples), a column of NaN for an example that fails. All
        draws of some examples come before those of the next ones.

    Raises:
        BadInput: as `run`.

    >>> from torch.distributions import Normal
    >>> model = TorchModel(
    ...     prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x / 2, 0.5**0.5), decoder=lambda z: Normal(z, 1.0)
    ... )
    >>> [(where, tuple(block.shape)) for where, block in log_weights(model, [0.0, 1.0], 5)]
    [(slice(0, 2, None), (5, 2))]
    """
    job = Job(model, x, (k,), seed=seed, chunk=chunk, fused=fused)
    for item in job.layout:
        with unvalidated():
            weighed = job.weigher(item)
        yield item.examples, weighed.values


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
        chunk: the most rows handed to the decoder at once.
        progress: called with the number of weights just computed.

    Raises:
        BadInput: as `run`, or if any example fails.

    >>> from torch.distributions import Normal
    >>> model = TorchModel(
    ...     prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x / 2, 0.5**0.5), decoder=lambda z: Normal(z, 1.0)
    ... )
    >>> curve = iwae_curve(model, [0.0, 1.0], ks=(1, 10))
    >>> [(point.k, point.groups, round(point.mean.mean, 4)) for point in curve.points]
    [(1, 10, -1.3905), (10, 1, -1.3905)]
    """
    before = 0

    def report(done: int, of: int) -> None:
        nonlocal before
        if progress is not None:
            progress(done - before)
        before = done

    result = run(model, x, ks, seed=seed, chunk=chunk, progress=report)
    for index, why in result.failed.items():
        raise BadInput(f"x[{index}]", "no result", "log-weights that are numbers", why)
    return result.curve


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
