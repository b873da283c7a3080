"""A model that user code is handed, and that has to be the same afterwards.

A training loss may switch a module to training mode, and batch normalisation then keeps statistics of the batch; or it
counts its calls, to anneal a weight. Such marks are wiped away, so that the next call, and every other figure on a
card, sees the model as it was. A parameter that changed is refused: there would be no one model left to evaluate.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from boundcheck.errors import BadInput, require

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="a trained model")
    Tensor = torch.Tensor


class Untouched:
    """The tensors, numbers and modes of a model's modules, as they are now.

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
        holders = [each for root in self._modules for each in root.modules()]
        if not isinstance(model, torch.nn.Module) and hasattr(model, "__dict__"):
            holders.append(model)
        self._loose = {id(each): (each, each.detach().clone()) for each in _tensors(model)}
        self._numbers = [
            (each, {name: value for name, value in vars(each).items() if isinstance(value, int | float | str)})
            for each in holders
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
        for holder, numbers in self._numbers:
            for name, value in numbers.items():
                now = vars(holder).get(name)
                if type(now) is not type(value) or not _equal(now, value):
                    object.__setattr__(holder, name, value)
        for module, mode in self._modes:
            module.training = mode
        with torch.no_grad():
            for tensor, kept in self._loose.values():
                if tensor.shape == kept.shape and not _same(tensor, kept):
                    tensor.copy_(kept)
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


def _equal(first: Any, second: Any) -> bool:
    return first == second or (first != first and second != second)


def _modules(model: Any) -> Iterator[torch.nn.Module]:
    """The modules that a model consists of, as far as they can be seen."""
    if isinstance(model, torch.nn.Module):
        yield model
        return
    for part in _parts(model):
        if isinstance(part, torch.nn.Module):
            yield part
        elif inspect.ismethod(part) and isinstance(part.__self__, torch.nn.Module):
            yield part.__self__


def _tensors(model: Any) -> Iterator[Tensor]:
    """Tensors that belong to no module."""
    if not isinstance(model, torch.nn.Module):
        yield from (part for part in _parts(model) if isinstance(part, Tensor))


def _parts(model: Any) -> Iterator[Any]:
    """An object's attributes, what they hold if they are dictionaries, and what they close over if functions."""
    parts = list(getattr(model, "__dict__", {}).values())
    parts += [each for some in parts if isinstance(some, dict) for each in some.values()]
    for part in parts:
        yield part
        if inspect.isfunction(part):
            yield from (cell.cell_contents for cell in part.__closure__ or () if _filled(cell))


# --- generators ---


def own_generators(function: Any, model: Any) -> list[Any]:
    """The random generators that a function names, closes over, is given as a default, or finds in the model.

    >>> source = torch.Generator()
    >>> own_generators(lambda model, x: torch.rand(len(x), generator=source), None) == [source]
    True
    """
    found = [*_parts(model)]
    if isinstance(model, torch.nn.Module):
        found += [value for each in model.modules() for value in vars(each).values()]
    while isinstance(function, partial):
        found += [*function.args, *function.keywords.values()]
        function = function.func
    if inspect.ismethod(function):
        found += vars(function.__self__).values() if hasattr(function.__self__, "__dict__") else []
        function = function.__func__
    if inspect.isfunction(function):
        found += [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
        found += [function.__globals__.get(name) for name in function.__code__.co_names]
        found += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    elif hasattr(function, "__dict__"):
        found += vars(function).values()
    kinds = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
    return list({id(each): each for each in found if isinstance(each, kinds)}.values())


def generator_state(generator: Any) -> Any:
    """What changes when a generator draws, as something that can be compared."""
    if isinstance(generator, torch.Generator):
        return generator.get_state().cpu().numpy().tobytes()
    if isinstance(generator, np.random.Generator):
        return repr(generator.bit_generator.state)
    return repr(generator.get_state()) if isinstance(generator, np.random.RandomState) else generator.getstate()


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


__all__ = ["Untouched", "generator_state", "own_generators"]
