"""What the machine has: processors, free memory, and the numbers its units can multiply.

None of it changes a result, only how fast and in how large pieces it is found.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from boundcheck.errors import require
from boundcheck.models.torch_state import module_of

if TYPE_CHECKING:
    import torch
else:
    torch = require("torch", extra="torch", feature="log-weights of a trained model")

_CACHED_NUMBERS = 1 << 19
"""On a CPU, a chunk of observations has about this many numbers, so that the widest layer stays in the cache."""
_WIDTHS_PER_ROW = 16
"""A row of a model's layers is taken to need this many times the memory of its observation and latent."""
_SHARE = 4
"""One part in so many of the free memory may be used."""
_CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Processors that this process may run on, by its affinity and its control group's quota.

    >>> usable_cores() >= 1
    True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()[:2]
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return cores


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device; None if it does not tell."""
    if device.type != "cpu":
        tells = getattr(module_of(device), "mem_get_info", None)
        return tells(device)[0] if tells is not None else None
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        found.append(int((_CGROUP / "memory.max").read_text()) - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return min(found, default=None)


def default_chunk(entries: int, itemsize: int, device: torch.device, threads: int = 1) -> int:
    """How many rows are handed to a model at once: what fits the cache of a CPU or the free memory of a GPU.

    Args:
        entries: numbers in one observation and one latent.
        itemsize: bytes of a number.
        device: where the model is.
        threads: how many do so at the same time.

    >>> default_chunk(834, 4, torch.device("cpu"))
    512
    """
    most = 1 << 18 if device.type != "cpu" else max(64, min(4096, _CACHED_NUMBERS // max(1, entries)))
    free = free_memory(device)
    if free is not None:
        most = min(most, max(1, free // (_SHARE * threads * max(1, entries) * itemsize * _WIDTHS_PER_ROW)))
    return 1 << (most.bit_length() - 1)


def has_bfloat16_units(device: torch.device) -> bool:
    """True if the device multiplies bfloat16 numbers itself; emulation is many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    known = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    if any(check() for check in known if check is not None):
        return True
    try:
        features = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(line.startswith(("flags", "Features")) and "bf16" in line for line in features.splitlines())


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many threads inside each of torch's operations for a while; then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


__all__ = ["default_chunk", "free_memory", "has_bfloat16_units", "torch_threads", "usable_cores"]
