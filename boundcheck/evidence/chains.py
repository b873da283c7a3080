"""The chains of annealed importance sampling: one call, cut into blocks of examples that are parts of a stage.

What becomes of a block is in `chain_block`; what goes into a call and comes out of it is said in `annealing`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, require
from boundcheck.evidence.chain_block import Block, moves
from boundcheck.evidence.stages import Stage, State, Step, notes_of, tensors_digest
from boundcheck.evidence.streams import Purpose
from boundcheck.evidence.tempering import Setting, schedule
from boundcheck.models.torch_model import TorchModel, out_of_memory
from boundcheck.models.torch_state import module_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="annealed importance sampling")
    Tensor = torch.Tensor

Floats = NDArray[np.float64]
ROWS = 2048
"""Chains handed to the model at once, unless another number is asked for."""
_BLOCK_ROWS = 4096
_MOST_EXAMPLES = 512


@dataclass(frozen=True)
class Walked:
    """What all chains of a call brought home; see `boundcheck.evidence.annealing.AnnealedWeights`."""

    log_weights: Floats
    betas: Floats
    acceptance: Floats
    step_sizes: Floats
    rounding: float
    failed: dict[int, str]
    notes: tuple[str, ...]


class Job:
    """One call: the same blocks of examples, and the same numbers, whatever `rows` is."""

    def __init__(
        self,
        model: object,
        x: Any,
        setting: Setting,
        purpose: Purpose,
        progress: Callable[[int], None] | None,
        stage: Stage | None = None,
    ) -> None:
        self.model = TorchModel.wrap(model)
        self.x = self.model.data(x)
        self.setting, self.betas = setting, schedule(setting.temperatures, setting.kind)
        self.seed, self.purpose, self.base, self.rows = setting.seed, purpose, setting.base, setting.rows
        self.chains, self.leapfrogs = setting.chains, setting.leapfrogs
        self.progress, self.stage = progress, stage or Stage()
        self.notes: list[str] = []
        self.block = max(1, min(_MOST_EXAMPLES, _BLOCK_ROWS // self.chains))

    def run(self, z: Any = None) -> Walked:
        """All chains: forward from the base, or backwards from the posterior draws z."""
        posterior = None if z is None else self._posterior_draws(z)
        blocks = [slice(first, first + self.block) for first in range(0, len(self.x), self.block)]
        sizes = [len(self.x[block]) for block in blocks]
        states = self.stage.collect(
            lambda: self._identity(posterior),
            [moves(size, self.setting.temperatures, self.chains) for size in sizes],
            lambda index, before: self._steps(blocks[index], posterior, before),
            progress=self.progress,
        )
        acceptance, step_sizes = (
            np.sum([state[name] * size for state, size in zip(states, sizes, strict=True)], axis=0) / len(self.x)
            for name in ("acceptance", "step_sizes")
        )
        failed = {
            index: reason
            for state in states
            for index, reason in zip(state["failed"].tolist(), state["reasons"].tolist(), strict=True)
        }
        rounding = max(float(state["rounding"]) for state in states)
        log_weights = np.concatenate([state["log_weights"] for state in states], axis=1)
        return Walked(log_weights, self.betas, acceptance, step_sizes, rounding, failed, tuple(notes_of(states)))

    def _identity(self, posterior: Tensor | None) -> dict[str, Any]:
        """What this is, for a directory that keeps it; `rows` may differ."""
        setting = {name: value for name, value in vars(self.setting).items() if name != "rows"}
        data = {"x": self.x} if posterior is None else {"x": self.x, "z": posterior}
        return {**setting, "purpose": self.purpose.name.lower(), "data": tensors_digest(data), "block": self.block}

    def _steps(self, examples: slice, posterior: Tensor | None, before: State | None) -> Generator[Step]:
        """A block's way, with fewer rows at once where memory does not suffice."""
        if before is not None:
            self.rows = int(before["rows"])
            self.notes += [note for note in before["notes"].tolist() if note not in self.notes]
        while True:
            try:
                drawn = None if posterior is None else posterior[examples]
                yield from Block(self, examples.start, self.x[examples], drawn).steps(before)
                return
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._halve(error)
                before = None

    def _halve(self, error: Exception) -> None:
        if self.rows == 1:
            remedy = f"{type(error).__name__}; use a smaller model or a larger machine"
            raise BadInput("rows", 1, "memory for a single row", remedy) from error
        self.rows //= 2
        self.notes.append(f"out of memory: the rows handed to the model at once were halved to {self.rows}")
        if self.x.device.type != "cpu":
            module_of(self.x.device).empty_cache()

    def _posterior_draws(self, z: Any) -> Tensor:
        drawn = torch.as_tensor(z)
        event = tuple(self.model.law("prior").event_shape)
        if tuple(drawn.shape) != (len(self.x), *event):
            raise BadInput(
                "the shape of z", tuple(drawn.shape), f"{(len(self.x), *event)}, one posterior draw per example"
            )
        if not bool(torch.isfinite(drawn).all()):
            raise BadInput("z", "not finite", "finite numbers")
        return drawn.to(self.x.device)


__all__ = ["ROWS", "Job", "Walked"]
