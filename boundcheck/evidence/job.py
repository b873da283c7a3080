"""A pass over the log-weights of a model, cut into items, and the states that items leave.

A job is prepared and checked once; its items can then be computed anywhere and in any order, and what they leave is
merged in the order of their draws, so that the result is the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, require
from boundcheck.evidence.accumulators import Accumulator, IwaeGroups, Maker, Tail, WeightSums, joined, tail_size
from boundcheck.evidence.fused import FusedLikelihood, FusedWeights, likelihood_of, weights_of
from boundcheck.evidence.journal import Journal, digest_of
from boundcheck.evidence.probe import bfloat16_error, probe
from boundcheck.evidence.resources import default_chunk, has_bfloat16_units, torch_threads, usable_cores
from boundcheck.evidence.shards import local_processes
from boundcheck.evidence.stages import tensors_digest, weights_digest
from boundcheck.evidence.streams import Item, Layout, Purpose, checked_seed
from boundcheck.evidence.weight_run import KS
from boundcheck.evidence.weights import Weigher, unvalidated
from boundcheck.models.torch_model import TorchModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="log-weights of a trained model")
    Tensor = torch.Tensor

_ADDED_AT_ONCE = 1 << 14
"""Log-weights that accumulators are given at once on a CPU: what they compute on the way stays small."""
_FAILED, _REASONS, _ROUNDING, _NOTES = "failed", "reasons", "rounding", "notes"


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
        self.threads = threads or (max(1, usable_cores() // local_processes()) if device.type == "cpu" else 1)
        # Threads inside small operations cost more than they give, and a hundred times that on a busy machine.
        with torch_threads(1 if device.type == "cpu" else torch.get_num_threads()):
            self.probe = probe(self.model, self.x, self.seed)
        self.notes: list[str] = []
        if self.probe.keeps and self.threads > 1:
            self.threads = 1
            self.notes.append("the model keeps something from one call to the next, so one thread works alone")
        self.rounding = 0.0
        if self.dtype is not None:
            mean, most = bfloat16_error(self.model, self.x, self.seed)
            self.rounding = most
            self.notes.append(f"bfloat16 moves log p(x|z) by {mean:.2g} nats on average, {most:.2g} at most")
        self.layout = Layout.of(len(self.x), self.k, self.x[0].numel())
        self.chunk_is_automatic = chunk is None
        self.chunk = chunk or default_chunk(
            self.x[0].numel() + self.probe.latent, self.x.element_size(), device, self.threads
        )
        self.makers: dict[str, Maker] = {
            "iwae": IwaeGroups.maker(self.ks),
            "sums": WeightSums,
            "tail": Tail.maker(tail_size(self.k)),
            **(accumulators or {}),
        }
        with torch_threads(1 if device.type == "cpu" else torch.get_num_threads()):
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
        draws, examples = weighed.values.shape
        rows = draws if self.x.device.type != "cpu" else max(1, _ADDED_AT_ONCE // examples)
        made = {}
        with torch.inference_mode():
            for name, maker in self.makers.items():
                accumulator = maker(weighed.values.shape[1], item.samples.start)
                for values in weighed.values.split(rows):
                    accumulator.add(values)
                made |= {f"{name}/{each}": array for each, array in accumulator.state().items()}
        made[_FAILED] = np.array(sorted(weighed.failed), dtype=np.int64)
        made[_REASONS] = np.array([weighed.failed[index] for index in sorted(weighed.failed)], dtype=np.str_)
        made[_ROUNDING] = np.array(weighed.rounding)
        made[_NOTES] = np.array(self.weigher.notes, dtype=np.str_)
        return made

    def journal(self, path: str | Path) -> Journal:
        """The directory that keeps this job's finished items; an automatic chunk becomes what it was at the beginning.

        Raises:
            BadInput: it is another job's, or cannot be written to.
        """
        device = self.x.device
        kept = {name: digest_of(maker(1, 0).state()) for name, maker in self.makers.items()}
        job = {
            "version": version("boundcheck"),
            "weights": weights_digest(self.model),
            "data": tensors_digest({"x": self.x}),
            "examples": len(self.x),
            "k": self.k,
            "ks": list(self.ks),
            "seed": self.seed,
            "purpose": self.purpose.name.lower(),
            "dtype": self.dtype or str(self.x.dtype),
            "device": device.type,
            "block": self.layout.block,
            "span": self.layout.span,
            "accumulators": kept,
        }
        made = Journal(path, job, self.probe.log_weights, {"chunk": self.chunk}, len(self.layout))
        if self.chunk_is_automatic:
            self.chunk = self.weigher.chunk = int(made.settings["chunk"])
        return made

    def compute(self, items: Sequence[Item]) -> Generator[tuple[Item, dict[str, NDArray]]]:
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


class Collected:
    """States of items in whatever order, merged in the order of their spans, so that the result is always the same."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.kinds = {name: type(maker(1, 0)) for name, maker in job.makers.items()}
        self.merged: dict[int, dict[str, dict[str, NDArray]]] = {}
        self.next = dict.fromkeys(range(job.layout.blocks), 0)
        self.waiting: dict[int, dict[str, dict[str, NDArray]]] = {}
        self.failed: dict[int, str] = {}
        self.rounding = job.rounding
        self.notes = dict.fromkeys(job.notes)

    def add(self, item: Item, state: Mapping[str, NDArray]) -> None:
        """Take the state of an item."""
        for index, why in zip(state[_FAILED].tolist(), state[_REASONS].tolist(), strict=True):
            if index not in self.failed or why < self.failed[index]:  # the same reason, whoever comes first
                self.failed[index] = why
        self.rounding = max(self.rounding, float(state[_ROUNDING]))
        self.notes |= dict.fromkeys(state[_NOTES].tolist())
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


# --- arguments ---


def _fused(model: TorchModel, x: Tensor) -> tuple[FusedLikelihood | None, FusedWeights | None]:
    """Faster ways to the same log-weights, where the model has the form for them."""
    likelihood = likelihood_of(model, x)
    return likelihood, None if likelihood is None else weights_of(model, x, likelihood)


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


__all__ = ["Collected", "Job"]
