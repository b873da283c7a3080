"""A device called "gpu" that computes on the CPU, and refuses what a real accelerator refuses.

Its tensors hold a CPU tensor each. An operation that mixes them with tensors of the CPU fails as it would on a real
accelerator, and so does numpy. That finds tensors made on the wrong device on a machine that has no accelerator. It
has to be set up before anything asks torch for an accelerator, so each test that uses it runs in a process of its own.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "gpu"
CROSSING = {"aten::_to_copy", "aten::copy_", "aten::index", "aten::index_put_", "aten::_index_put_impl_"}
"""What takes tensors of two devices: copies between them, and indices."""
seeds: list[int] = []
"""Those that the device's generator was given."""


class OnGpu(torch.Tensor):
    """A tensor of the device, around one of the CPU."""

    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> OnGpu:
        size, layout = raw.size(), {"strides": raw.stride(), "storage_offset": raw.storage_offset()}
        made = torch.Tensor._make_wrapper_subclass(cls, size, dtype=raw.dtype, device=torch.device(NAME, 0), **layout)
        made.raw = raw
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(operation, args, kwargs or {})

    def __format__(self, style: str) -> str:
        return format(self.raw, style)

    def tolist(self) -> Any:
        return self.raw.tolist()

    def __getitem__(self, key: Any) -> Any:  # a list among the indices would become a tensor out of torch's sight
        return super().__getitem__(torch.tensor(key) if isinstance(key, list) else key)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(torch.tensor(key) if isinstance(key, list) else key, value)

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()


def _computed(operation: Any, args: Any, kwargs: Any) -> Any:
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    there = [each for each in tensors if isinstance(each, OnGpu)]
    if there and operation._schema.name not in CROSSING:
        for each in tensors:
            if not isinstance(each, OnGpu) and each.ndim > 0:
                raise RuntimeError(f"Expected all tensors to be on the same device, got cpu and {NAME}: {operation}")
    asked = kwargs.get("device")
    stays = bool(there) if asked is None else torch.device(asked).type == NAME
    result = operation(*tree_map(_inside, args), **tree_map(_inside, kwargs))
    known = {id(each.raw): each for each in there}
    return tree_map(lambda each: known.get(id(each), _outside(each)), result) if stays else result


def _inside(each: Any) -> Any:
    if isinstance(each, OnGpu):
        return each.raw
    return torch.device("cpu") if isinstance(each, torch.device) else each


def _outside(each: Any) -> Any:
    return OnGpu(each) if isinstance(each, torch.Tensor) else each


class Module:
    """What torch.cuda is to a real device."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def device(_: object) -> Any:
        return nullcontext()

    @staticmethod
    def manual_seed(seed: int) -> None:
        seeds.append(seed)
        torch.default_generator.manual_seed(seed)

    manual_seed_all = manual_seed

    @staticmethod
    def get_rng_state(_: object = None) -> torch.Tensor:
        return torch.default_generator.get_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, _: object = None) -> None:
        torch.default_generator.set_state(state)

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16]

    @staticmethod
    def mem_get_info(_: object = None) -> tuple[int, int]:
        return 1 << 30, 1 << 30

    @staticmethod
    def get_device_capability(_: object = None) -> tuple[int, int]:
        return 9, 0

    @staticmethod
    def empty_cache() -> None:
        pass


def _made_by(make: Any) -> Any:
    """torch.tensor, by way of the CPU: on the device itself it would write to memory that is not there."""

    def made(data: Any, *, device: Any = None, **options: Any) -> torch.Tensor:
        if isinstance(data, OnGpu):
            data, device = data.raw, device or NAME
        result = make(data, **options)
        return result if device is None else result.to(device)

    return made


def set_up() -> None:
    """Make the device known to torch, once in a process.

    Tensors that hold others cannot be made in inference mode: here it is a mode without gradients.
    """
    torch.inference_mode = lambda mode=True: torch.no_grad() if mode else torch.enable_grad()  # type: ignore[misc]
    for name in ("tensor", "as_tensor"):
        setattr(torch, name, _made_by(getattr(torch, name)))
    _setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    global _library
    _library = torch.library.Library("_", "IMPL")
    _library.fallback(lambda operation, *args, **kwargs: _computed(operation, args, kwargs), dispatch_key="PrivateUse1")
