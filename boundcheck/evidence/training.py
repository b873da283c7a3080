"""The user's own training objective, called as in training, on batches, again and again with other random draws.

Calls are numbered, batch by batch, and each has its own state of the global generators, so that it does not matter who
makes it, and when: some consecutive calls are a part of a stage. An objective that draws from a generator of its own
gives other values at the same state; there is no telling what it would draw after an interruption, or in another
process, so all its calls are made by one process in one go.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import random
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from boundcheck.errors import BadInput, BoundcheckError, require
from boundcheck.evidence.objective import Estimate, TrainingObjective
from boundcheck.evidence.stages import Stage, State, Step, tensors_digest
from boundcheck.evidence.streams import Purpose, checked_seed, scattered_seed
from boundcheck.evidence.tails import drifts
from boundcheck.evidence.untouched import Untouched, generator_state, own_generators
from boundcheck.models.torch_model import random_state
from boundcheck.models.torch_state import module_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="a training objective")
    Tensor = torch.Tensor

_PARTS = 32
_SAME = 1e-6
_ROUNDINGS = 16
"""How many roundings of its own size a value is granted for the arithmetic that it was computed with."""


def estimate(
    objective: TrainingObjective,
    model: Any,
    x: Tensor,
    *,
    replicates: int = 200,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    stage: Stage | None = None,
) -> Estimate:
    """The mean over the examples of a training objective, in nats, from many calls with other random draws.

    Each batch is a fixed run of consecutive examples, called `replicates` times, each time with its own state of the
    global generators of torch, numpy and Python, which are put back afterwards. An objective that draws from a
    generator of its own is not repeatable, but its standard error is right. It gets a copy of the batch, and what it
    does to a module's mode and buffers (training mode, batch statistics) is undone after each call. With
    `per="batch"`, batches take the place of examples: the data-set error is that of their mean.

    Args:
        objective: what to call.
        model: the model as the user made it.
        x: observations of shape (examples, *event).
        replicates: calls for each batch, at least 2.
        seed: of the global generators.
        progress: called with the number of examples just evaluated.
        stage: where its parts are computed and kept.

    Raises:
        BadInput: an objective that raises, returns NaN or numbers of a wrong shape, or changes the model's parameters.

    >>> from torch.distributions import Normal
    >>> energy = TrainingObjective(lambda model, x: -x.square() + 0.1 * torch.randn(len(x)), sign="loss")
    >>> print(f"{estimate(energy, None, torch.ones(10)).mean.mean:.3f}")
    1.002
    """
    if isinstance(replicates, bool) or not isinstance(replicates, int) or replicates < 2:
        raise BadInput("replicates", replicates, "an integer of at least 2", "one call has no standard error")
    stage, calls = stage or Stage(), _Calls(objective, model, x, replicates, checked_seed(seed))
    repeatable = stage.plain or stage.agreed(calls.are_repeatable)
    parts = _cut(len(calls), _PARTS if repeatable else 1)
    states = stage.collect(
        lambda: {
            "objective": objective.name,
            "source": _source(objective.function),
            "sign": objective.sign,
            "unit": objective.unit,
            "per": objective.per,
            "batch": objective.batch,
            "replicates": replicates,
            "seed": seed,
            "data": tensors_digest({"x": x}),
            "repeatable": repeatable,
        },
        [calls.rows_of(part) for part in parts],
        lambda index, before: calls.steps(parts[index], before),
        progress=progress,
        sign=lambda: calls.make(0).numpy().ravel() if repeatable else np.empty(0),
        underway=repeatable,
    )
    return calls.estimate(states)


class _Calls:
    """All calls of an objective: those of the first batch, then those of the next."""

    def __init__(self, objective: TrainingObjective, model: Any, x: Tensor, replicates: int, seed: int) -> None:
        self.objective, self.model, self.x, self.replicates, self.seed = objective, model, x, replicates, seed
        self.batches = [x[start : start + objective.batch] for start in range(0, len(x), objective.batch)]
        self.scale, self.as_it_was = objective.scale(x), Untouched(model)
        self.generators = own_generators(objective.function, model)
        self.drew = False
        self.coarsest = torch.finfo(x.dtype if x.is_floating_point() else torch.get_default_dtype()).eps

    def __len__(self) -> int:
        return len(self.batches) * self.replicates

    def rows_of(self, part: range) -> int:
        """Examples that are evaluated in some calls, each as often as it is."""
        return sum(len(self.batches[call // self.replicates]) for call in part)

    def width(self, batch: int) -> int:
        """How many values a call gives."""
        return len(self.batches[batch]) if self.objective.per == "example" else 1

    def make(self, call: int) -> Tensor:
        """One call: its values in nats of a bound, float64, of shape (width,), on the CPU."""
        batch = call // self.replicates
        rows = self.batches[batch]
        with _own_state(rows.device, scattered_seed(self.seed, Purpose.OBJECTIVE, call)), torch.no_grad():
            before = self.random_states(rows.device)
            with self.as_it_was.during(self.objective.name):
                values = _values(self.objective, self.model, rows.clone(), batch * self.objective.batch)
            self.drew = self.drew or before != self.random_states(rows.device)
        if values.is_floating_point():
            self.coarsest = max(self.coarsest, torch.finfo(values.dtype).eps)
        return (self.scale * values.detach().to("cpu", torch.float64)).reshape(-1)

    def random_states(self, device: torch.device) -> list[Any]:
        """The state of every generator that the loss is seen to draw from: one that draws leaves it changed."""
        return _random_states(device) + [generator_state(each) for each in self.generators]

    def are_repeatable(self) -> bool:
        """Whether the first call gives the same values once more, up to the rounding of a GPU's sums."""
        return torch.allclose(self.make(0), self.make(0), _SAME, _SAME)

    def steps(self, part: range, before: State | None) -> Generator[Step]:
        """Some calls, from where an earlier state left them."""
        draws = [] if before is None else [before["draws"]]
        done = 0 if before is None else int(before["done"])
        if before is not None:
            self.drew, self.coarsest = self.drew or bool(before["drew"]), max(self.coarsest, float(before["coarsest"]))

        def state() -> State:
            numbers = {"done": np.array(done), "drew": np.array(self.drew), "coarsest": np.array(self.coarsest)}
            return {"draws": np.concatenate([np.empty(0), *draws]), **numbers}

        rows = self.rows_of(part[:done])
        yield rows, state
        for call in part[done:]:
            draws.append(self.make(call).numpy())
            done += 1
            rows += len(self.batches[call // self.replicates])
            yield rows, state

    def estimate(self, states: list[State]) -> Estimate:
        """What all calls say together."""
        draws = np.concatenate([state["draws"] for state in states])
        widths = [self.width(batch) for batch in range(len(self.batches))]
        ends = np.cumsum([self.replicates * width for width in widths])
        values = [
            part.reshape(self.replicates, width) for part, width in zip(np.split(draws, ends[:-1]), widths, strict=True)
        ]
        if drifts(values):
            raise BadInput(
                f"the value of {self.objective.name}",
                "a drift from call to call",
                "values of one law, however often it was called",
                "hold still what changes with the calls, such as an annealed weight or a running mean",
            )
        # One that draws from a generator of its own is known by calls that differ.
        drew = any(bool(state["drew"]) for state in states) or any((each != each[0]).any() for each in values)
        sizes = np.abs(np.concatenate([each.mean(0) for each in values]))
        size = float(np.where(np.isfinite(sizes), sizes, 0.0).mean())
        return Estimate.of_draws(
            values,
            random=drew,
            sizes=() if self.objective.per == "example" else [len(rows) for rows in self.batches],
            rounding=_ROUNDINGS * max(float(state["coarsest"]) for state in states) * size,
        )


def _cut(count: int, parts: int) -> list[range]:
    """So many consecutive ranges of about the same length."""
    parts = min(count, parts)
    return [range(part * count // parts, (part + 1) * count // parts) for part in range(parts)]


def _source(function: Callable[..., Any]) -> str:
    """What tells one function from another, as far as its text and name do."""
    while isinstance(function, partial):
        function = function.func
    text = getattr(function, "__qualname__", type(function).__qualname__)
    with suppress(OSError, TypeError):  # made at a prompt, or no Python at all: its values still tell
        text += inspect.getsource(function if hasattr(function, "__code__") else type(function))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@contextmanager
def _own_state(device: torch.device, seed: int) -> Iterator[None]:
    """The global generators of torch, numpy and Python set to a seed for a while."""
    before = np.random.get_state(), random.getstate()
    with random_state(device, seed):
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before[0])
            random.setstate(before[1])


def _random_states(device: torch.device) -> list[Any]:
    """The state of every generator that a loss usually draws from: one that draws leaves it changed."""
    states: list[Any] = [
        torch.random.get_rng_state().numpy().tobytes(),
        repr(np.random.get_state()),
        random.getstate(),
    ]
    if device.type != "cpu":
        states.append(module_of(device).get_rng_state(device).numpy().tobytes())
    return states


def _values(objective: TrainingObjective, model: Any, rows: Tensor, start: int) -> Tensor:
    name = objective.name
    try:
        values = objective.function(model, rows)
    except BoundcheckError:
        raise
    except (Exception, SystemExit) as error:
        lines = str(error).strip().splitlines()
        remedy = f"it raised {type(error).__name__}: {lines[0][:200] if lines else 'no message'}"
        raise BadInput(f"{name}(model, x)", f"x of shape {tuple(rows.shape)}", "a batch it can take", remedy) from error
    if isinstance(values, float | int | np.ndarray | np.generic):
        array = np.asarray(values)
        if array.dtype.kind in "fiu":
            values = torch.from_numpy(array if array.dtype in (np.float16, np.float32) else array.astype(np.float64))
    if not isinstance(values, Tensor) or values.is_complex() or values.dtype == torch.bool:
        shown = f"of type {values.dtype}" if isinstance(values, Tensor) else values
        raise BadInput(f"the value of {name}", shown, "a tensor of real numbers", "return the loss itself")
    expected = (len(rows),) if objective.per == "example" else ()
    if tuple(values.shape) != expected:
        other = "batch" if objective.per == "example" and values.numel() == 1 else "example"
        remedy = f'declare it with per="{other}"' if other != objective.per else "return one number for the batch"
        what = "one number for each row" if objective.per == "example" else "one number"
        raise BadInput(f"the shape of {name}'s value", tuple(values.shape), f"{expected}, {what}", remedy)
    if bool(values.isnan().any()):
        place = f"x[{start + int(values.isnan().nonzero()[0])}]" if values.ndim else f"x[{start}:{start + len(rows)}]"
        raise BadInput(
            f"the value of {name} at {place}", math.nan, "a number", "check the model's weights and the data"
        )
    return values


__all__ = ["estimate"]
