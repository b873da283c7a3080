"""A formula's mean over a data set, as a stage of a card: its replicates, cut into parts.

A block of replicates has draws of its own, whoever computes it, so some consecutive blocks at a block of examples make
a part, which leaves their moments; moments of parts join to those of all replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BoundcheckError, require
from boundcheck.evaluators.monte_carlo import Moments, estimates, prepare, run
from boundcheck.evaluators.replicates import ExampleBlock, blocks_of
from boundcheck.evaluators.units import Job
from boundcheck.evidence.objective import Estimate
from boundcheck.evidence.stages import Stage, State, Step, kept_notes, notes_of, tensors_digest
from boundcheck.language.build import Formula
from boundcheck.models.torch_model import TorchModel
from boundcheck.models.torch_state import out_of_memory

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = require("torch", extra="torch", feature="evaluating a trained model").Tensor

_PARTS = 16
"""A stage has about so many parts: enough for several processes to share."""


@dataclass(frozen=True)
class _Part:
    """Some blocks of replicates at a block of examples, and how many values they have."""

    number: int
    start: int
    blocks: range
    values: int


def replicated(
    name: str,
    formula: Formula,
    model: TorchModel,
    x: Tensor,
    *,
    replicates: int,
    inner: int,
    seed: int,
    chunk: int | None = None,
    stage: Stage | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Estimate, float, list[str]]:
    """The mean of a formula over the examples, the rounding error of the model's arithmetic in it, and notes.

    Where memory does not suffice, the chunk is halved, and a note says so.

    Args:
        name: of the objective.
        formula: with its parameters.
        model: a `TorchModel`.
        x: observations of shape (examples, *event).
        replicates: independent ones for each example.
        inner: draws for each expectation inside a nonlinear function.
        seed: of all draws.
        chunk: the most points handed to the model at once.
        stage: where its parts are computed and kept.
        progress: called with the number of (replicate, example) pairs just done.

    Raises:
        BoundcheckError: as `boundcheck.evaluators.monte_carlo.evaluate`.
    """
    stage = stage or Stage()
    how: dict[str, Any] = {"inner": inner, "seed": seed, "chunk": chunk}
    job = prepare(formula, model, x, n=replicates, **how)
    parts = _parts(job)

    def steps(index: int, before: State | None) -> Generator[Step]:
        return _steps(job, parts[index], name, before)

    def sign() -> NDArray[np.float64]:
        try:
            return np.array([value.mean for value in run(prepare(formula, model, x[:2], n=2, **how))])
        except Exception as error:
            if not isinstance(error, BoundcheckError) and not out_of_memory(error):
                raise
            return np.empty(0)

    states = stage.collect(
        lambda: {
            "objective": name,
            "formula": job.plan.source.text,
            "replicates": replicates,
            "inner": inner,
            "seed": seed,
            "data": tensors_digest({"x": x}),
            "examples at once": job.examples_at_once,
            "replicates at once": job.replicates_at_once,
        },
        [part.values for part in parts],
        steps,
        progress=progress,
        sign=sign,
    )
    values = []
    for block in blocks_of(job):
        moments = Moments(block.size, x.device)
        for part, state in zip(parts, states, strict=True):
            if part.number == block.index:
                moments.merge(Moments.of(state, x.device))
        values += estimates(moments, job.plan.bias, job.plan.source.text, block)
    rounding = max(float(state["rounding"]) for state in states)
    return Estimate.of(values), rounding, notes_of(states)


def _parts(job: Job) -> list[_Part]:
    """The cut of a job, by its own numbers alone."""
    step, found = job.replicates_at_once, []
    starts = range(0, len(job.x), job.examples_at_once)
    count = min(job.blocks, math.ceil(_PARTS / len(starts)))
    for number, start in enumerate(starts):
        size = min(job.examples_at_once, len(job.x) - start)
        for part in range(count):
            blocks = range(part * job.blocks // count, (part + 1) * job.blocks // count)
            replicates = min(blocks.stop * step, job.n) - blocks.start * step
            found.append(_Part(number, start, blocks, replicates * size))
    return found


def _steps(job: Job, part: _Part, name: str, before: State | None) -> Generator[Step]:
    size = len(job.x[part.start : part.start + job.examples_at_once])
    device = job.x.device
    moments = Moments(size, device) if before is None else Moments.of(before, device)
    done = 0 if before is None else int(before["done"])
    notes: list[str] = [] if before is None else before["notes"].tolist()
    if before is not None:
        job.rounding = max(job.rounding, float(before["rounding"]))

    def state() -> State:
        numbers = {"done": np.array(done), "rounding": np.array(job.rounding), "notes": kept_notes(notes)}
        return numbers | moments.state()

    yield moments.count * size, state
    while done < len(part.blocks):
        block = ExampleBlock(job, part.number, part.start)
        try:
            for values in block.replicates(part.blocks[done:]):
                moments.add(values)
                done += 1
                yield moments.count * size, state
        except Exception as error:
            if not out_of_memory(error) or job.chunk <= 1:
                raise
            job.chunk //= 2
            notes.append(f"out of memory at {name}: the chunk was halved to {job.chunk}")


__all__ = ["replicated"]
