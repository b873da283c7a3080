"""One job over several processes and GPUs, as `torchrun` starts them.

Of n processes, process r computes items r, r + n, r + 2n, ... At the end every process gets every state, in bytes and
without pickling, and merges them in the same order; so all have the result of a single process. Processes on CPUs talk
through gloo, those on GPUs through nccl.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from boundcheck.errors import BadInput, require

if TYPE_CHECKING:
    import torch
else:
    torch = require("torch", extra="torch", feature="evaluation by several processes")

_PATIENCE = timedelta(days=30)
"""Processes wait for each other's last item; torchrun itself ends all when one dies."""
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


__all__ = ["Shard", "group", "launched", "local_device", "local_processes", "rank"]
