"""What a function of tensors does beside what it returns, seen by watching the operations of one call.

A `TorchDispatchMode` meets every operation, whether Python, TorchScript or C++ asked for it, and the schema of an
operation says what it writes to. So it is found out, and not guessed, whether a function changes its own argument,
keeps tensors from one call to the next (two threads would then meet in them), lets Python see numbers (and may take
another way with others), or draws at random.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boundcheck.errors import require

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
else:
    torch = require("torch", extra="torch", feature="a torch model")
    Tensor = torch.Tensor
    from torch.utils._python_dispatch import TorchDispatchMode

_READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


@dataclass
class Seen:
    """What was seen in a call.

    Attributes:
        changes: it writes to its own arguments.
        keeps: it writes to, or leaves behind, tensors that outlive the call.
        reads: a number reached Python, by itself or as a shape.
        random: it draws from torch's own generators.
    """

    changes: bool = False
    keeps: bool = False
    reads: bool = False
    random: bool = False


class Watch(TorchDispatchMode):
    """Notes what the operations of a call do, while it is the current mode.

    Args:
        given: the arguments of the call.
        disturb: put 1 - u in the place of each random number u, so that what hangs on it changes.
    """

    supports_higher_order_operators = True
    _skipped: bool

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not from the beginning: that would import all of torch's compiler, in seconds and with much memory."""
        return False

    def __enter__(self) -> Watch:
        """Become the current mode, which torch's compiler must leave alone where it is in use."""
        kind: Any = type(self)
        if "torch._dynamo" in sys.modules and "_skipped" not in vars(kind):
            kind.__torch_dispatch__ = torch.compiler.disable(kind.__torch_dispatch__)
            kind._skipped = True
        return super().__enter__()

    def __init__(self, given: Sequence[Tensor] = (), disturb: bool = False) -> None:
        super().__init__()
        self.seen = Seen()
        self._disturb = disturb
        self._given = {_place(each) for each in given}
        self._made: dict[int, Any] = {}
        self._compiled = False

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if self._compiled:  # under this mode; without it, that would not serve
            torch._dynamo.reset()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._note_use(func, args, kwargs)
        result = func(*args, **kwargs)
        if self._disturb and _draws(func, args, kwargs):
            for each in _tensors(result):
                if each.is_floating_point():
                    each.neg_().add_(1)
        fresh = func is torch.ops.aten.lift_fresh.default  # a tensor made from Python's own numbers
        before = set() if fresh else {_place(each) for each in _tensors((args, kwargs))}
        for each in _tensors(result):
            place = _place(each)
            if place is not None and place not in before:
                self._made[place] = _weak(each)
        return result

    def _note_use(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if not isinstance(func, torch._ops.OpOverload):  # torch.cond and its like say nothing of what they do
            self.seen.reads = self.seen.keeps = self._compiled = True
            return
        tags = set(func.tags)
        if tags & _READS and (func is not torch.ops.aten.index.Tensor or any(map(_is_mask, _tensors(args[1])))):
            self.seen.reads = True
        self.seen.random |= _draws(func, args, kwargs)
        for index, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            for each in _tensors(args[index] if index < len(args) else kwargs.get(argument.name)):
                place = _place(each)
                self.seen.changes |= place is not None and place in self._given
                self.seen.keeps |= place not in self._made and place not in self._given

    def survivors(self) -> bool:
        """True if a tensor that was made during the call, and whose memory is its own, is still there."""
        if all(each.expired() for each in self._made.values()):
            return False
        gc.collect()
        return not all(each.expired() for each in self._made.values())


def watched(function: Callable[..., object], *args: Tensor, disturb: bool = False, lasting: bool = True) -> Seen:
    """What a function does beside what it returns, from one call on copies of its arguments.

    Args:
        function: called once, without gradients; what it returns is let go.
        args: its arguments.
        disturb: as for `Watch`.
        lasting: look for what outlives the call, which takes some time.

    >>> kept = []
    >>> watched(lambda z: kept.append(z.exp()), torch.zeros(2))
    Seen(changes=False, keeps=True, reads=False, random=False)
    >>> watched(lambda z: z.relu_().sum().item() + 1, torch.zeros(2))
    Seen(changes=True, keeps=False, reads=True, random=False)
    """
    with torch.inference_mode(False), torch.no_grad():  # whose operations are taken apart less far
        copies = [arg.clone() for arg in args]
        mode = Watch(copies, disturb)
        try:
            with mode:
                function(*copies)
        except Exception:  # what compiles itself need not get on with a mode: the worst is taken for granted
            mode.seen = Seen(keeps=True, reads=True, random=True)
            copies = [arg.clone() for arg in args]
            function(*copies)
    seen = mode.seen
    # What is written through numpy, or through Tensor.data, is no operation.
    same = (torch.equal(copy, arg) or not bool((arg == arg).all()) for copy, arg in zip(copies, args, strict=True))
    seen.changes |= not all(same)
    seen.keeps |= lasting and mode.survivors()
    return seen


# --- small parts ---


def _place(tensor: Tensor) -> int | None:
    """Which memory a tensor lies in; None if it has none of its own kind."""
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return None


def _weak(tensor: Tensor) -> Any:
    from torch.multiprocessing.reductions import StorageWeakRef

    return StorageWeakRef.from_weakref(tensor.untyped_storage()._weak_ref())  # the usual way may leave half of one


def _draws(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """True for random numbers from torch's own generators; the function may seed one of its own at each call."""
    own = any(isinstance(each, torch.Generator) for each in (*args, *kwargs.values()))
    return torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()) and not own


def _is_mask(index: Tensor) -> bool:
    return index.dtype in (torch.bool, torch.uint8)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)


__all__ = ["Seen", "Watch", "watched"]
