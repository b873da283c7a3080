"""What a decoder does between z and the logits of its Bernoulli law, seen by watching it once.

A `TorchFunctionMode` sees every torch function that the decoder calls, in whatever style it is written, and belongs to
one thread. It finds the linear layer whose output *is* the law's logits: the same memory, not written to since. Equal
numbers would not do, as `logits.clamp(-30, 30)` shows. Where all that lies before it is a chain of linear layers and
elementwise functions, the chain is kept too. A later call can then be stopped at that layer with its input in hand.

That one call stands for all others only if no number reaches Python, which could take another way with other numbers,
and if nothing is done out of sight, in TorchScript or in numpy; the operations below the functions tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from boundcheck.errors import require
from boundcheck.evidence.weights import unvalidated
from boundcheck.models.torch_watch import Watch

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Bernoulli, Distribution, Independent
    from torch.overrides import TorchFunctionMode
else:
    torch = require("torch", extra="torch", feature="log-weights of a trained model")
    Tensor = torch.Tensor
    TorchFunctionMode = torch.overrides.TorchFunctionMode
    Bernoulli, Independent = torch.distributions.Bernoulli, torch.distributions.Independent

F = torch.nn.functional
_FUSABLE: dict[Any, str] = {
    function: name
    for name in ("relu", "sigmoid", "tanh")
    for function in (getattr(torch, name), getattr(torch.Tensor, name), getattr(F, name))
}
_ROW_BY_ROW: set[Any] = {
    *(F.celu, F.elu, F.gelu, F.hardsigmoid, F.hardswish, F.hardtanh, F.layer_norm, F.leaky_relu, F.logsigmoid),
    *(F.mish, F.relu6, F.selu, F.silu, F.softplus, F.softsign, F.tanhshrink),
    *(getattr(home, name) for home in (torch, torch.Tensor) for name in ("abs", "cos", "exp", "neg", "sin", "square")),
}
"""Functions of one tensor that treat each row on its own; other arguments are kept as they were given."""
_QUESTIONS: set[Any] = {
    *(Tensor.dim, Tensor.size, Tensor.numel, Tensor.is_floating_point, Tensor.is_contiguous, Tensor.__len__),
}
"""What may be asked of any tensor without using its numbers, beside these attributes:"""
_ATTRIBUTES = ("shape", "dtype", "device", "ndim", "requires_grad", "is_cuda", "is_nested", "layout")
_SECRETS: set[Any] = {
    *(Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr),
    *(Tensor.storage, Tensor.untyped_storage),
}
"""What gives a tensor's memory away: neither what is read there nor what is written there can be seen."""


@dataclass(frozen=True)
class Linear:
    """h -> activation(W h + b), with an activation that `fused_bernoulli.linear` knows."""

    weight: Tensor
    bias: Tensor | None
    activation: str = "none"


@dataclass(frozen=True)
class Elementwise:
    """h -> function(h, *args, **kwargs), each row on its own."""

    function: Callable[..., Tensor]
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


Step = Linear | Elementwise


@dataclass(frozen=True)
class LastLayer:
    """The linear layer whose output is the logits, and the chain of steps before it, or None if it is no chain."""

    weight: Tensor
    bias: Tensor | None
    version: tuple[int, ...]
    chain: tuple[Step, ...] | None

    @property
    def unchanged(self) -> bool:
        """False once its parameters have been written to."""
        return self.version == _versions(self.weight, self.bias)


def last_layer(decoder: Callable[[Tensor], Distribution], z: Tensor) -> LastLayer | None:
    """The last layer of a decoder whose law is Independent(Bernoulli(logits=W h(z) + b)); None for any other.

    Args:
        decoder: called once, without gradients.
        z: a batch of it.

    >>> from torch.distributions import Bernoulli, Independent
    >>> layer = torch.nn.Linear(2, 3)
    >>> found = last_layer(lambda z: Independent(Bernoulli(logits=layer(z.tanh())), 1), torch.zeros(4, 2))
    >>> found is not None and found.weight is layer.weight, found is not None and found.chain
    (True, (Elementwise(function=<method 'tanh' of 'torch._C.TensorBase' objects>, args=(), kwargs={}),))
    >>> last_layer(lambda z: Independent(Bernoulli(logits=layer(z).clamp(-9, 9)), 1), torch.zeros(4, 2)) is None
    True
    """
    with torch.inference_mode(False), torch.no_grad(), unvalidated():  # which would look at numbers of its own
        watch = _Watch(z.clone())
        operations = _Operations(watch)
        with watch, operations:
            law = decoder(watch.z)
        hidden = operations.unseen or operations.seen.reads or operations.seen.random
        return None if hidden else watch.found(law)


class _Call(NamedTuple):
    """A call of a linear layer: what went in, what came out, how often that had been written to, and what led to it."""

    given: Tensor
    weight: Tensor
    bias: Tensor | None
    result: Tensor
    version: int
    chain: tuple[Step, ...] | None


class _Watch(TorchFunctionMode):
    """Records linear layers, and the chain of steps from z for as long as there is one."""

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        self.z = self._head = z
        self._steps: list[Step] | None = []
        self._met = {id(z): z}  # kept alive, so that no other tensor gets the same id
        self._calls: list[_Call] = []
        self._secret = False
        self.inside = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        call = _linear_call(*args, **kwargs) if func is F.linear else None
        chain = tuple(self._steps) if call and self._steps is not None and call[0] is self._head else None
        self.inside += 1
        try:
            result = func(*args, **kwargs)
        finally:
            self.inside -= 1
        attribute = getattr(getattr(func, "__self__", None), "__name__", "") if func.__name__ == "__get__" else ""
        if attribute in _ATTRIBUTES or func in _QUESTIONS:
            return result
        self._secret |= attribute == "data" or func in _SECRETS
        if any(id(each) in self._met for each in (*_flat(args), *_flat(kwargs.values()))):
            self._follow(func, args, kwargs, result)
        if call is not None:
            self._calls.append(_Call(*call, result, result._version, chain))
        return result

    def _follow(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        """Append a step that leads on from the chain's end; any other use of its tensors ends the chain."""
        steps = self._steps
        others = (*_flat(args[1:]), *_flat(kwargs.values()))
        straight = bool(args) and args[0] is self._head and not any(id(each) in self._met for each in others)
        if steps is None or not straight or not isinstance(result, Tensor):
            self._steps = None
            return
        last = steps[-1] if steps else None
        if func is F.linear:
            steps.append(Linear(*_linear_call(*args, **kwargs)[1:]))
        elif func is F.dropout and not kwargs.get("training", True):
            pass
        elif func in _FUSABLE and isinstance(last, Linear) and last.activation == "none" and "out" not in kwargs:
            steps[-1] = Linear(last.weight, last.bias, _FUSABLE[func])
        elif (func in _FUSABLE or func in _ROW_BY_ROW) and "out" not in kwargs:
            steps.append(Elementwise(func, tuple(args[1:]), dict(kwargs)))
        else:
            self._steps = None
        self._head = result
        self._met[id(result)] = result

    def found(self, law: object) -> LastLayer | None:
        """The call whose result is the law's logits."""
        if type(law) is not Independent or type(law.base_dist) is not Bernoulli or self._secret:
            return None
        if "log_prob" in law.__dict__ or "log_prob" in law.base_dist.__dict__:
            return None
        logits = law.base_dist.__dict__.get("logits")
        if logits is None or "probs" in law.base_dist.__dict__ or not logits.is_contiguous():
            return None
        rows, here = len(self.z), logits.untyped_storage().data_ptr()
        calls = [call for call in self._calls if call.result.untyped_storage().data_ptr() == here]
        if len(calls) != 1 or tuple(law.batch_shape) != (rows,) or calls[0].weight.ndim != 2:
            return None
        (call,) = calls
        once = sum(each.weight is call.weight for each in self._calls) == 1
        untouched = call.result._version == call.version and call.result.numel() == logits.numel()
        if not once or not untouched or call.given.numel() != rows * call.weight.shape[1]:
            return None
        same_type = call.given.dtype == call.weight.dtype == logits.dtype
        if not same_type or not torch.equal(call.result.reshape(rows, -1), logits.reshape(rows, -1)):
            return None
        versions = _versions(call.weight, call.bias)
        return LastLayer(call.weight, call.bias, versions, call.chain)


class _Operations(Watch):
    """The operations of a call, and whether there are any that no function of the other watch asked for."""

    def __init__(self, functions: _Watch) -> None:
        super().__init__([functions.z])
        self.functions, self.unseen = functions, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.unseen |= not self.functions.inside
        return super().__torch_dispatch__(func, types, args, kwargs)


# --- later calls ---


class _Reached(BaseException):
    """The last layer was called; not an `Exception`, so that no decoder handles it."""


class _Stop(TorchFunctionMode):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.given: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            given, weight, _ = _linear_call(*args, **(kwargs or {}))
            if weight is self.weight:
                self.given = given
                raise _Reached
        return func(*args, **(kwargs or {}))


def input_of(layer: LastLayer, call: Callable[[], object]) -> Tensor | None:
    """What goes into a layer when `call` is called, of shape (rows, hidden); the call is stopped there.

    None if the call returns without having come to that layer.

    >>> from torch.distributions import Bernoulli, Independent
    >>> module = torch.nn.Linear(2, 3)
    >>> decoder = lambda z: Independent(Bernoulli(logits=module(2 * z)), 1)
    >>> layer = last_layer(decoder, torch.zeros(4, 2))
    >>> layer is not None and input_of(layer, lambda: decoder(torch.ones(1, 2)))
    tensor([[2., 2.]])
    """
    stop = _Stop(layer.weight)
    try:
        with stop:
            call()
    except _Reached:
        given = stop.given
        return None if given is None else given.reshape(-1, layer.weight.shape[1])
    return None


# --- small parts ---


def _linear_call(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    return input, weight, bias


def _versions(*tensors: Tensor | None) -> tuple[int, ...]:
    """How often each was written to; a tensor that does not count, of inference mode, is taken at its word."""
    return tuple(each._version for each in tensors if each is not None and not each.is_inference())


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


__all__ = ["Elementwise", "LastLayer", "Linear", "Step", "input_of", "last_layer"]
