"""The stages of an evaluation card, cut into parts that others can compute and that outlive the process.

A stage is a loop whose parts depend on nothing but the stage itself. Several processes share them, each leaves a state
of a few arrays, and the states are put together in order, so that the result is the same whoever computed what, and
when. With a directory, a finished part is not computed again, and one that takes long goes on from what it had come
to: see `boundcheck.evidence.journal`, whose guarantees hold for every stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import require
from boundcheck.evidence.journal import Journal, digest_of
from boundcheck.evidence.probe import probe
from boundcheck.evidence.shards import Shard, exchange, group
from boundcheck.models.torch_model import TorchModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="evaluating a trained model")
    Tensor = torch.Tensor

State: TypeAlias = dict[str, NDArray[Any]]
Step: TypeAlias = tuple[int, Callable[[], State]]
"""How much of a part is done, and a function that gives its state; it is called before the next step is asked for."""
Compute: TypeAlias = Callable[[int, State | None], Generator[Step]]
"""The steps of a part from its number and an earlier state of it, if there is one. The last one is its end."""

_SECONDS = 1.0
"""A part under way is kept so often at most, and so seldom that keeping it takes no more than a share of the time."""
_SHARE = 0.05
_LONGEST_NAME = 80
_SAME_OBJECTIVE = 1e-5
"""Values of an objective at the same draws may differ by this much, relatively, on another machine."""


@dataclass(frozen=True)
class Stage:
    """Where the parts of a stage are computed, and where they are kept. By default: here, and nowhere.

    Attributes:
        name: that of its directory.
        root: the directory of all stages, if they are kept.
        shard: this process among those that share the parts.
        origin: what is common to all stages, such as the model's weights.
        sign: log-weights of the model, which tell it from others; see `Journal`.
    """

    name: str = ""
    root: Path | None = None
    shard: Shard = field(default_factory=Shard)
    origin: Mapping[str, Any] = field(default_factory=dict)
    sign: Callable[[], NDArray[np.float64]] = lambda: np.empty(0)

    @classmethod
    def of(cls, model: TorchModel, x: Tensor, seed: int, resume: str | Path | None) -> Stage:
        """What all stages of a card have in common."""
        shard = group(x.device)
        if resume is None:
            return cls(shard=shard)
        origin = {"version": version("boundcheck"), "weights": weights_digest(model), "device": x.device.type}
        return cls("", Path(resume), shard, origin, cache(lambda: probe(model, x, seed).log_weights))

    def within(self, name: str) -> Stage:
        """A stage of this one's.

        >>> Stage().within("objective").within("renyi:alpha=0.5").name
        'objective-renyi-alpha=0.5'
        """
        plain = "".join(each if each.isalnum() or each in "_.=-" else "-" for each in name)[:_LONGEST_NAME]
        return replace(self, name=f"{self.name}-{plain}" if self.name else plain)

    @property
    def plain(self) -> bool:
        """True if one process computes all, and nothing is kept."""
        return self.root is None and self.shard.size == 1

    def agreed(self, ask: Callable[[], bool]) -> bool:
        """Whether all processes say yes."""
        answers: dict[int, State] = {}
        mistake: Exception | None = None
        try:
            answers[self.shard.rank] = {"yes": np.array(ask())}
        except Exception as error:
            mistake = error
        return all(bool(each["yes"]) for each in exchange(self.shard, answers, mistake).values())

    def collect(
        self,
        job: Callable[[], Mapping[str, Any]],
        sizes: Sequence[int],
        compute: Compute,
        *,
        progress: Callable[[int], None] | None = None,
        sign: Callable[[], NDArray[np.float64]] | None = None,
        settings: Mapping[str, Any] | None = None,
        begin: Callable[[Mapping[str, Any]], None] | None = None,
        underway: bool = True,
    ) -> list[State]:
        """The states that all parts leave, in order, computed here, by other processes, or earlier.

        Args:
            job: what the stage is, JSON-ready; asked for if its parts are kept.
            sizes: how much each part has to do, for progress.
            compute: the steps of a part.
            progress: called with how much more is done.
            sign: some values of what computes them, in place of the model's log-weights.
            settings: what may differ, and is remembered as it was at the beginning.
            begin: given those of the beginning before anything is computed.
            underway: whether a part may be kept before it is finished.

        Raises:
            JournalError: the directory is another job's, or cannot be written to.
            Exception: whatever `compute` raises, in all processes.
        """
        told = 0

        def tell(done: int) -> None:
            nonlocal told
            if progress is not None and done > told:
                progress(done - told)
            told = max(told, done)

        found: dict[int, State] = {}
        mistake: Exception | None = None
        before = 0
        try:
            journal = self._journal(job, len(sizes), sign, settings or {})
            if begin is not None and journal is not None:
                begin(journal.settings)
            for index in self.shard.share(range(len(sizes))):
                found[index] = _part(index, compute, journal, underway, lambda done, so_far=before: tell(so_far + done))
                before += sizes[index]
                tell(before)
        except Exception as error:
            if self.shard.size == 1:
                raise
            mistake = error
        if self.shard.size > 1:
            found = exchange(self.shard, found, mistake)
            tell(sum(sizes))
        return [found[index] for index in range(len(sizes))]

    def _journal(
        self,
        job: Callable[[], Mapping[str, Any]],
        parts: int,
        sign: Callable[[], NDArray[np.float64]] | None,
        settings: Mapping[str, Any],
    ) -> Journal | None:
        if self.root is None:
            return None
        whole = {**self.origin, "stage": self.name, "parts": parts, **job()}
        place: dict[str, Any] = {"settings": settings, "items": parts, "part_of": self.root}
        if sign is None:
            return Journal(self.root / self.name, whole, self.sign(), **place)
        signed = "its objective gave other values at the same draws"
        return Journal(self.root / self.name, whole, sign(), **place, signed=signed, tolerance=_SAME_OBJECTIVE)


def _part(index: int, compute: Compute, journal: Journal | None, underway: bool, tell: Callable[[int], None]) -> State:
    """The state of one part, and how far it is on the way."""
    begun = None
    if journal is not None:
        kept = journal.load(index)
        if kept is not None:
            return kept
        begun = journal.load(index, finished=False) if underway else None
    saved, pause = time.monotonic(), _SECONDS
    state: Callable[[], State] = dict
    with closing(compute(index, begun)) as steps:
        for done, state in steps:
            tell(done)
            if journal is not None and underway and (now := time.monotonic()) - saved >= pause:
                journal.save(index, state(), finished=False)
                saved = time.monotonic()
                pause = max(_SECONDS, (saved - now) / _SHARE)
    made = state()
    if journal is not None:
        journal.save(index, made)
    return made


# --- what the states hold ---


def weights_digest(model: TorchModel) -> str:
    """A digest of the parameters and buffers of a model's module; of nothing if it has none."""
    state = {} if model.module is None else model.module.state_dict()
    return tensors_digest(state)


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """A digest of tensors: their names and contents."""
    raw = {
        name: each.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy() for name, each in tensors.items()
    }
    return digest_of(raw)


def array_of(tensor: Tensor) -> NDArray[Any]:
    """A tensor's numbers without loss; numpy does not know all of torch's types."""
    plain = tensor.detach().cpu()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()


def tensor_of(array: NDArray[Any], like: Tensor) -> Tensor:
    """The tensor that `array_of` was given, on the device of `like`, whose type it has."""
    made = torch.from_numpy(array.copy()).to(like.device)
    return made.bfloat16() if like.dtype == torch.bfloat16 else made


def notes_of(states: Sequence[State]) -> list[str]:
    """What the parts had to say to the reader of a card, each thing once."""
    return list(dict.fromkeys(note for state in states for note in state["notes"].tolist()))


def kept_notes(notes: Sequence[str]) -> NDArray[Any]:
    """Notes as an array."""
    return np.array(list(notes), dtype=np.str_)


__all__ = [
    "Compute",
    "Stage",
    "State",
    "Step",
    "array_of",
    "kept_notes",
    "notes_of",
    "tensor_of",
    "tensors_digest",
    "weights_digest",
]
