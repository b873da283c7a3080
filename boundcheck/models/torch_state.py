"""What torch keeps for a whole process: random states, memory that may run out, and whether gradients can be taken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from boundcheck.errors import BadInput, require

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Distribution
else:
    torch = require("torch", extra="torch", feature="a torch model")

_OUT_OF_MEMORY = (getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError), MemoryError)
_GLOBAL_GENERATORS = threading.RLock()


@contextmanager
def random_state(device: torch.device, seed: int) -> Iterator[None]:
    """Torch's global random state set to a seed for a while, on the CPU and on `device`, and then put back.

    A torch distribution draws from the global generators and takes no other; threads take turns.
    """
    elsewhere = [] if device.type == "cpu" else [device]
    with _GLOBAL_GENERATORS, torch.random.fork_rng(elsewhere, device_type=device.type):
        torch.default_generator.manual_seed(seed)
        if elsewhere:
            accelerator = module_of(device)
            with accelerator.device(device):
                accelerator.manual_seed(seed)
        yield


def generator_state(device: torch.device) -> Tensor:
    """The state of the global generator of a device."""
    return torch.get_rng_state() if device.type == "cpu" else module_of(device).get_rng_state(device)


def module_of(device: torch.device) -> Any:
    """What torch offers for an accelerator's kind: torch.cuda for one of NVIDIA or AMD."""
    return getattr(torch, device.type)


def out_of_memory(error: BaseException) -> bool:
    """True if a batch was too large for the machine, which is no mistake of the model.

    >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("shapes cannot be multiplied"))
    (True, False)
    """
    return isinstance(error, _OUT_OF_MEMORY) or (isinstance(error, RuntimeError) and "DefaultCPUAlloc" in str(error))


def refuse_devices(shown: str, error: Exception) -> None:
    """Say it plainly if a user's function failed because some of its tensors are on another device than its data.

    Raises:
        BadInput: naming the function.
    """
    if "on the same device" in str(error):
        remedy = "register constants as buffers, which move with a module, or make them with device=x.device"
        raise BadInput(f"the device of {shown}", "tensors of two devices", "all of them where the data are", remedy)


@contextmanager
def with_inner_gradients(wanted: bool = True) -> Iterator[None]:
    """Leave inference mode for a while, if `wanted`: no gradients are recorded, but a law may take some of its own.

    The densities of some flows need derivatives of their maps, which inference mode refuses even within `enable_grad`.
    """
    if not wanted or not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def plain(tensor: Tensor) -> Tensor:
    """The tensor itself, or, out of inference mode, a copy of one that was made there: no gradient passes such."""
    return tensor.clone() if tensor.is_inference() and not torch.is_inference_mode_enabled() else tensor


def tried(inside: Callable[[], Any], outside: Callable[[], Any]) -> tuple[Any, bool]:
    """A law that is made in inference mode, and False; or, if only outside it can it be used, made there, and True.

    Args:
        inside: makes the law in inference mode.
        outside: makes it outside.

    Raises:
        Exception: whatever `inside` raises, where `outside` does no better.
    """
    made: list[Any] = []
    try:
        made.append(inside())
        _use(made[0])
    except Exception:
        try:
            law = outside()
            with with_inner_gradients():
                _use(law)
        except Exception:  # something else is wrong, which the evaluation itself will meet and say
            law = None
        if law is not None:
            return law, True
        if not made:
            raise
    return made[0], False


def _use(law: Any) -> None:
    """Draw from a law and take its density, unless all of it is torch's own, which takes no gradients."""
    if isinstance(law, torch.distributions.Distribution) and not _is_torchs_own(law):
        law.log_prob(law.sample())


def _is_torchs_own(law: Distribution) -> bool:
    """True if all of a law is torch's, so that no code of it is anybody else's, such as a transform's."""
    while isinstance(law, torch.distributions.Independent):
        law = law.base_dist
    kind = type(law)
    return kind.__module__.startswith("torch.") and kind is not torch.distributions.TransformedDistribution


__all__ = [
    "generator_state",
    "module_of",
    "out_of_memory",
    "plain",
    "random_state",
    "refuse_devices",
    "tried",
    "with_inner_gradients",
]
