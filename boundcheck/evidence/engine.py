"""The log-weights of a trained model, streamed once, and all that a single stream of them tells.

log w(z) = log p(x,z) - log q(z|x) for z ~ q(.|x). Work is cut into items that depend on nothing but the job itself;
items go over threads, processes and interruptions, each leaves a small state, and states merge in order. So K = 500,000
needs no more memory than K = 50, and whoever computes an item gets the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from boundcheck.errors import BadInput, require
from boundcheck.evidence.accumulators import Maker
from boundcheck.evidence.curve import CurvePoint, IwaeCurve, discrete_upper_bound
from boundcheck.evidence.job import Collected, Job
from boundcheck.evidence.shards import Shard, exchange, group
from boundcheck.evidence.streams import Item, Purpose
from boundcheck.evidence.weight_run import KS, WeightRun, summarised
from boundcheck.evidence.weights import unvalidated

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = require("torch", extra="torch", feature="log-weights of a trained model").Tensor


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
    resume: str | Path | None = None,
    distributed: bool | None = None,
    accumulators: Mapping[str, Maker] | None = None,
    purpose: Purpose = Purpose.WEIGHTS,
    progress: Callable[[int, int], None] | None = None,
) -> WeightRun:
    """Everything that one pass over K log-weights of each example tells, in memory that does not grow with K.

    The draws of an example depend on the seed, the purpose and the example's number alone: chunk, threads, processes,
    interruptions and the other examples change nothing (beyond rounding). An encoder that is not Gaussian is sampled by
    its own law, for a block of examples at once: then how many examples and draws there are matters as well, and no
    more than that. The global random state of torch is left as it was.

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
        distributed: False works alone even if torchrun started several processes; by default they share the work, and
            each gets the whole result.
        accumulators: what else to keep, by name: see `boundcheck.evidence.accumulators`.
        purpose: a stream of its own, for draws that must be independent of others with this seed.
        progress: called with (done, of) in draws.

    Raises:
        BadInput: wrong arguments, data or laws, if they concern all examples; an example that fails on its own is
            named in `WeightRun.failed`, and the others are evaluated.

    >>> from torch.distributions import Normal
    >>> from boundcheck.models.torch_model import TorchModel
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
    return _result(job, _collect(job, group(job.x.device, distributed), resume, progress))


def _collect(
    job: Job, shard: Shard, resume: str | Path | None, progress: Callable[[int, int], None] | None
) -> Collected:
    """The states of all items, this process's own and those of the others."""
    collected, own = Collected(job), dict[int, dict[str, NDArray]]()
    mine = shard.share(list(job.layout))
    of, done = sum(item.rows for item in mine), 0

    def take(item: Item, state: dict[str, NDArray]) -> None:
        nonlocal done
        if shard.size > 1:
            own[item.index] = state
        else:
            collected.add(item, state)
        done += item.rows
        if progress is not None:
            progress(done, of)

    def work() -> None:
        journal = None if resume is None else job.journal(resume)
        left = []
        for item in mine:
            state = None if journal is None else journal.load(item.index)
            if state is None:
                left.append(item)
            else:
                take(item, state)
        with closing(job.compute(left)) as computed:  # what it changed in torch is put back whatever happens here
            for item, state in computed:
                if journal is not None:
                    journal.save(item.index, state)
                take(item, state)

    if shard.size == 1:
        work()
        return collected
    mistake: Exception | None = None
    try:
        work()
    except Exception as error:  # the others wait for this process: they must hear of it
        mistake = error
    for index, state in sorted(exchange(shard, own, mistake).items()):
        collected.add(job.layout[index], state)
    return collected


def _result(job: Job, collected: Collected) -> WeightRun:
    failed = dict(sorted(collected.failed.items()))
    if len(failed) == len(job.x):
        first = next(iter(failed))
        raise BadInput(f"x[{first}]", "no result", "log-weights that are numbers", failed[first])
    settings = {
        "seed": job.seed,
        "chunk": job.weigher.chunk,
        "threads": job.threads,
        "device": str(job.x.device),
        "dtype": job.dtype or str(job.x.dtype).removeprefix("torch."),
        "fused": job.fused,
    }
    return summarised(
        collected.accumulators(), job.ks, job.k, failed, collected.rounding, list(collected.notes), settings
    )


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
    >>> from boundcheck.models.torch_model import TorchModel
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


__all__ = [
    "KS",
    "CurvePoint",
    "IwaeCurve",
    "WeightRun",
    "discrete_upper_bound",
    "log_weights",
    "run",
    "summarised",
]
