"""A model that user code is handed, and that has to be the same afterwards.

A training loss may switch a module to training mode, and batch normalisation then keeps statistics of the batch. Such
marks are wiped away, so that the next call, and every other figure on a card, sees the model as it was. A parameter
that changed is refused: there would be no one model left to evaluate.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from boundcheck.errors import BadInput, require

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="a trained model")
    Tensor = torch.Tensor


class Untouched:
    """The tensors and modes of a model's modules, as they are now.

    Args:
        model: a module, an object with modules among its attributes, or one whose functions close over modules.
    """

    def __init__(self, model: Any) -> None:
        self._modules = list({id(each): each for each in _modules(model)}.values())
        self._modes = [(each, each.training) for root in self._modules for each in root.modules()]
        self._kept = [
            {name: value.detach().clone() for name, value in root.state_dict(keep_vars=True).items() if _plain(value)}
            for root in self._modules
        ]

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Put back what a call of `what` changes of modes and buffers.

        Raises:
            BadInput: a parameter was changed.
        """
        try:
            yield
        finally:
            changed = self._restored()
        if changed is not None:
            raise BadInput(
                what, f"it changed the parameter {changed}", "a function that leaves the model as it is", "no training"
            )

    def _restored(self) -> str | None:
        """Everything as it was; the name of a parameter that was not."""
        changed = None
        for module, mode in self._modes:
            module.training = mode
        with torch.no_grad():
            for root, kept in zip(self._modules, self._kept, strict=True):
                now = root.state_dict(keep_vars=True)
                for name, value in kept.items():
                    if name in now and now[name].shape == value.shape and not _same(now[name], value):
                        if isinstance(now[name], torch.nn.Parameter):
                            changed = changed or name
                        now[name].copy_(value)
        return changed


def _plain(value: Any) -> bool:
    return isinstance(value, Tensor)


def _same(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first, second) or bool(((first == second) | (first.isnan() & second.isnan())).all())


def _modules(model: Any) -> Iterator[torch.nn.Module]:
    """The modules that a model consists of, as far as they can be seen."""
    if isinstance(model, torch.nn.Module):
        yield model
        return
    parts = list(getattr(model, "__dict__", {}).values())
    parts += [each for some in parts if isinstance(some, dict) for each in some.values()]
    for part in parts:
        if isinstance(part, torch.nn.Module):
            yield part
        elif inspect.ismethod(part) and isinstance(part.__self__, torch.nn.Module):
            yield part.__self__
        elif inspect.isfunction(part):
            cells = [cell.cell_contents for cell in part.__closure__ or () if _filled(cell)]
            yield from (each for each in cells if isinstance(each, torch.nn.Module))


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


__all__ = ["Untouched"]
