"""What torch keeps for a whole process: random states, and memory that may run out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from boundcheck.errors import require

if TYPE_CHECKING:
    import torch
else:
    torch = require("torch", extra="torch", feature="a torch model")

_OUT_OF_MEMORY = (getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError), MemoryError)
_GLOBAL_GENERATORS = threading.RLock()


@contextmanager
def random_state(device: torch.device, seed: int) -> Iterator[None]:
    """Torch's global random state set to a seed for a while, on the CPU and on `device`, and then put back.

    A torch distribution draws from the global generators and takes no other; threads take turns.
    """
    with _GLOBAL_GENERATORS, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def out_of_memory(error: BaseException) -> bool:
    """True if a batch was too large for the machine, which is no mistake of the model.

    >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("shapes cannot be multiplied"))
    (True, False)
    """
    return isinstance(error, _OUT_OF_MEMORY) or (isinstance(error, RuntimeError) and "DefaultCPUAlloc" in str(error))


__all__ = ["out_of_memory", "random_state"]
