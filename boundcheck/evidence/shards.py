"""One job over several processes and GPUs, as `torchrun` starts them.

Of n processes, process r computes items r, r + n, r + 2n, ... At the end every process gets every state, in bytes and
without pickling, and merges them in the same order; so all have the result of a single process. Processes on CPUs talk
through gloo, those on GPUs through nccl.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, BoundcheckError, require
from boundcheck.evidence.journal import pack, unpack

if TYPE_CHECKING:
    import torch
else:
    torch = require("torch", extra="torch", feature="evaluation by several processes")

_PATIENCE = timedelta(days=30)
"""Processes wait for each other's last item; torchrun itself ends all when one dies."""
_MISTAKE = "mistake"
_Any = TypeVar("_Any")


@dataclass(frozen=True)
class Shard:
    """This process among its like.

    Attributes:
        rank: its number.
        size: how many there are.
        device: where their messages live: a GPU for nccl.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def share(self, items: Sequence[_Any]) -> list[_Any]:
        """This process's items.

        >>> Shard(1, 3).share("abcdefg")
        ['b', 'e']
        """
        return list(items[self.rank :: self.size])

    def gather(self, content: bytes) -> list[bytes]:
        """What every process has, in the order of their ranks, for every process."""
        if self.size == 1:
            return [content]
        import torch.distributed as dist

        size = torch.tensor([len(content)], dtype=torch.int64, device=self.device)
        sizes = [torch.zeros_like(size) for _ in range(self.size)]
        dist.all_gather(sizes, size)
        longest = max(1, *(int(each) for each in sizes))
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else padded[:0]
        parts = [torch.empty(longest, dtype=torch.uint8, device=self.device) for _ in range(self.size)]
        dist.all_gather(parts, padded.to(self.device))
        return [part[: int(length)].cpu().numpy().tobytes() for part, length in zip(parts, sizes, strict=True)]


class OtherProcessFailed(Exception):
    """Another process met what is no mistake of the user's; it shows it itself."""


def exchange(
    shard: Shard, states: Mapping[int, Mapping[str, NDArray]], mistake: Exception | None = None
) -> dict[int, dict[str, NDArray]]:
    """The states of all processes, for every one of them.

    Args:
        shard: this process.
        states: its own, by numbers that no two processes share.
        mistake: what it met in their place. The others wait for this process, so they must hear of it.

    Raises:
        Exception: the mistake of the first process that met one; the same error in all of them.
    """
    if mistake is None:
        content = {f"{index}:{name}": array for index, state in states.items() for name, array in state.items()}
    else:
        content = {_MISTAKE: np.array(_told(mistake))}
    found: dict[int, dict[str, NDArray]] = {index: {} for index in states}
    parts = [unpack(part) for part in shard.gather(pack(content))]
    for rank, part in enumerate(parts):
        if _MISTAKE in part:
            raise mistake if rank == shard.rank and mistake else _heard(str(part[_MISTAKE]), rank)
    for part in parts:
        for key, array in part.items():
            index, _, name = key.partition(":")
            found.setdefault(int(index), {})[name] = array
    return found


def _told(mistake: Exception) -> str:
    """An error as text, with its parts."""
    kind = type(mistake).__name__
    if isinstance(mistake, RuntimeError):
        kind = "RuntimeError"
    fields = {name: value if isinstance(value, str) else repr(value) for name, value in vars(mistake).items()}
    return json.dumps({"kind": kind, "text": str(mistake), "fields": fields})


def _heard(text: str, rank: int) -> Exception:
    """The error that another process told."""
    told = json.loads(text)
    kinds = {each.__name__: each for each in _kinds(BoundcheckError)}
    if told["kind"] not in kinds:
        kind = RuntimeError if told["kind"] == "RuntimeError" else OtherProcessFailed
        return kind(f"process {rank}: {told['kind']}: {told['text']}")
    error = kinds[told["kind"]].__new__(kinds[told["kind"]])
    error.args = (told["text"],)
    vars(error).update(told["fields"])
    return error


def _kinds(root: type[BoundcheckError]) -> Iterator[type[BoundcheckError]]:
    yield root
    for each in root.__subclasses__():
        yield from _kinds(each)


def launched() -> bool:
    """True in one of several processes that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ and "MASTER_ADDR" in os.environ


def rank() -> int:
    """The number of this process; 0 if it is the only one. Only that of number 0 should print."""
    return int(os.environ["RANK"]) if launched() else 0


def local_device(name: str) -> str:
    """The device of this process: "cuda" becomes the GPU of its own.

    >>> local_device("cpu")
    'cpu'
    """
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" and launched() else name


def local_processes() -> int:
    """How many processes of this job share the machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if launched() else 1


def group(device: torch.device, wanted: bool | None = None) -> Shard:
    """This process among those that torchrun started, connected until it ends.

    Args:
        device: where the model is.
        wanted: False for a process that works alone whatever started it; True insists on several.

    Raises:
        BadInput: several processes are wanted, and there is no sign of them.
    """
    import torch.distributed as dist

    joined = dist.is_available() and dist.is_initialized()
    if wanted is False or not (joined or launched()):
        if wanted:
            raise BadInput("distributed", True, "processes started by torchrun", "or leave it out")
        return Shard()
    if not dist.is_available():
        raise BadInput("distributed", True, "a torch with torch.distributed", "run a single process")
    if not joined:
        # Connected once for all: a second rendezvous would meet the addresses that the first one left.
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
        atexit.register(_disconnect)
    on_gpu = dist.get_backend() == "nccl"
    return Shard(dist.get_rank(), dist.get_world_size(), device if on_gpu else torch.device("cpu"))


def _disconnect() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


__all__ = ["OtherProcessFailed", "Shard", "exchange", "group", "launched", "local_device", "local_processes", "rank"]
