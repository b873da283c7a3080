"""Replicates of a formula's value on a torch model, block by block.

Examples, replicates and copies are cut into blocks, so that no more than `chunk` points are in memory at once,
however large K is. Nothing has to be kept from one block to the next, because a draw is a function of its place:
its random stream is numbered by (block of examples, block of replicates, variable, block of copies). So two sums
over the same copies see the same draws even though each makes its own pass, and a formula that needs both, such as
self-normalised weights, is no special case. All arithmetic on log-densities is in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from boundcheck.errors import BadInput, CannotCompute, UndefinedValue, require
from boundcheck.evaluators.grids import (
    LOG_OPERATIONS,
    OPERATIONS,
    REPLICATES,
    Axis,
    Grid,
    combine,
    common_axes,
    is_exponential,
)
from boundcheck.evaluators.plan import EVALUATOR, Plan
from boundcheck.language.laws import ModelLaw
from boundcheck.language.positions import nonnegative
from boundcheck.language.terms import OBSERVED, Apply, Const, LogDensity, Plate, Reduce, Term, Var
from boundcheck.models.torch_model import TorchModel, random_state

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Distribution
else:
    torch = require("torch", extra="torch", feature="Monte Carlo on a torch model")
    Tensor = torch.Tensor
    Distribution = torch.distributions.Distribution

_NUMBERS_AT_ONCE = 1 << 22
"""The default chunk holds about this many entries of x: 32 MB in float64, some times that in a decoder's layers."""
_ROUNDINGS = 64
"""How many roundings of its own size a log-density is granted: sums over pixels and units, pairwise added."""


class Job:
    """A plan on a model at some examples, cut into blocks of at most `chunk` points."""

    def __init__(self, made: Plan, model: TorchModel, x: Tensor, n: int, seed: int, chunk: int | None) -> None:
        self.plan, self.model, self.x, self.n, self.seed = made, model, x, n, seed
        most = chunk if chunk is not None else default_chunk(x)
        self.examples_at_once = min(len(x), most)
        left = max(1, most // self.examples_at_once)
        self.steps: dict[Plate, int] = {}
        for plate in made.plates:
            self.steps[plate] = min(plate.size, left)
            left = max(1, left // self.steps[plate])
        self.replicates_at_once = min(n, left)
        self._blocks = [math.ceil(n / self.replicates_at_once)]
        self._first: dict[Var, int] = {}
        streams = 0
        for var in made.laws:  # streams are numbered: variables one after another, then the blocks of each
            self._first[var] = streams
            streams += self._blocks[0] * math.prod(math.ceil(p.size / self.steps[p]) for p in var.plates)
        self._streams = streams
        self.checked: set[str] = set()
        self.repeated: set[Var] = set()
        self.rounding = 0.0

    def seed_of(self, block: int, var: Var, places: Sequence[int]) -> int:
        """The seed of a variable's draws in one block: different for all blocks and variables of the job."""
        counts = [self._blocks[0], *(math.ceil(p.size / self.steps[p]) for p in var.plates)]
        place = 0
        for index, count in zip(places, counts, strict=True):
            place = place * count + index
        stream = block * self._streams + self._first[var] + place
        return _scattered((_spread_seed(self.seed) + stream) % 2**32)

    def __iter__(self) -> Iterator[ExampleBlock]:
        for index, start in enumerate(range(0, len(self.x), self.examples_at_once)):
            yield ExampleBlock(self, index, start)

    def note_rounding(self, log_density: Tensor) -> None:
        """Keep `rounding`, an estimate in nats of how far off the model's own arithmetic may make a log-density."""
        if log_density.is_floating_point():
            largest = float(log_density.abs().nan_to_num(0.0, posinf=0.0).max())
            self.rounding = max(self.rounding, _ROUNDINGS * torch.finfo(log_density.dtype).eps * largest)

    @property
    def draws(self) -> int:
        """Replicates times examples: what a progress bar counts."""
        return self.n * len(self.x)


def _spread_seed(seed: int) -> int:
    """A seed spread over 64 bits (the finaliser of SplitMix64), so that the streams of nearby seeds do not overlap."""
    mask = 2**64 - 1
    state = (seed + 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def _scattered(stream: int) -> int:
    """A permutation of the 32-bit integers (the finaliser of MurmurHash3): torch's generator reads 32 bits of a seed.

    Different streams keep different seeds, and neighbours get seeds that have nothing in common.
    """
    stream = ((stream ^ (stream >> 16)) * 0x85EBCA6B) % 2**32
    stream = ((stream ^ (stream >> 13)) * 0xC2B2AE35) % 2**32
    return stream ^ (stream >> 16)


def default_chunk(x: Tensor) -> int:
    """How many points are handed to the model at once: fewer for large observations."""
    numbers = max(1, x[0].numel())
    return max(64, min(1 << 15, _NUMBERS_AT_ONCE // numbers))


@dataclass(frozen=True)
class _Drawn:
    """A law of the model at its arguments: one for each place on `axes` and each example, folded into rows."""

    law: Distribution
    role: str
    axes: tuple[Axis, ...]


@dataclass
class _Open:
    """The block of an axis that is being evaluated, and the layer of the memo that is forgotten with it."""

    index: int
    size: int
    layer: int


class ExampleBlock:
    """Some examples and the replicates of a plan's value at them.

    Iterating gives float64 tensors of shape (replicates, examples), in blocks.
    """

    def __init__(self, job: Job, index: int, start: int) -> None:
        self.job, self.index, self.start = job, index, start
        self.x = job.x[start : start + job.examples_at_once]
        self.size = self.x.shape[0]
        self.open: dict[Axis, _Open] = {}
        self.memo: list[dict[Any, Any]] = [{}]

    def __iter__(self) -> Iterator[Tensor]:
        step = self.job.replicates_at_once
        for index, start in enumerate(range(0, self.job.n, step)):
            size = min(step, self.job.n - start)
            with torch.inference_mode(), self._opened(REPLICATES, index, size):
                numbers = self._value(self.job.plan.term).arranged((REPLICATES,))
                block = numbers.expand(size, self.size).clone()
                undefined = block.isnan()
                if bool(undefined.any()):
                    where = self.example(int(undefined.nonzero()[0][-1]))
                    raise UndefinedValue(self.job.plan.source.text, where)
            yield block

    def example(self, row: int) -> str:
        """The name of the example in a row, as the user counts them."""
        return f"x[{self.start + row % self.size}]"

    def _cannot(self, term: Term, reason: str) -> NoReturn:
        raise CannotCompute(EVALUATOR, term.text, reason)

    # --- blocks of axes ---

    @contextmanager
    def _opened(self, axis: Axis, index: int, size: int) -> Iterator[None]:
        before = self.open.get(axis)
        self.open[axis] = _Open(index, size, len(self.memo))
        self.memo.append({})
        try:
            yield
        finally:
            self.memo.pop()
            if before is None:
                del self.open[axis]
            else:
                self.open[axis] = before

    def _layer(self, variables: frozenset[Var], plates: frozenset[Plate]) -> dict[Any, Any]:
        """The memo's layer that lives as long as a result stays true."""
        axes: list[Axis] = [*plates]
        if variables - {OBSERVED}:
            axes.append(REPLICATES)
        return self.memo[max((self.open[axis].layer for axis in axes), default=0)]

    def _size(self, axis: Axis) -> int:
        return self.open[axis].size

    # --- draws ---

    def _point(self, var: Var) -> Grid:
        if var == OBSERVED:
            return Grid(self.x, ())
        layer = self._layer(frozenset([var]), var.free_plates)
        if var not in layer:
            layer[var] = self._draw(var)
        return layer[var]

    def _draw(self, var: Var) -> Grid:
        term = self.job.plan.laws[var]
        drawn = self._law(term)
        fresh = tuple(axis for axis in (REPLICATES, *var.plates) if axis not in drawn.axes)
        shape = [self._size(axis) for axis in fresh]
        if term.role == "prior":
            shape.append(self.size)
        seed = self.job.seed_of(self.index, var, [self.open[axis].index for axis in (REPLICATES, *var.plates)])
        points = self._sample(drawn, shape, seed)
        if var not in self.job.repeated:
            self.job.repeated.add(var)
            if bool(points.isnan().any()):
                raise BadInput(f"a draw from {term}", math.nan, "numbers", "check the model's weights and the data")
            if not torch.equal(points, self._sample(drawn, shape, seed)):
                name = type(drawn.law).__name__
                raise BadInput(
                    f"the draws of {term}", name, "draws that follow torch.manual_seed", "draw with torch's generators"
                )
        axes = (*fresh, *drawn.axes)
        event = tuple(drawn.law.event_shape)
        return Grid(points.reshape(*map(self._size, axes), self.size, *event), axes)

    def _sample(self, drawn: _Drawn, shape: Sequence[int], seed: int) -> Tensor:
        with random_state(self.x.device, seed):
            return self.job.model.sample(drawn.role, drawn.law, shape)

    def _law(self, term: ModelLaw) -> _Drawn:
        args = [arg for arg in term.args if isinstance(arg, Var)]
        plates = frozenset[Plate]().union(*(arg.free_plates for arg in args))
        layer = self._layer(frozenset(args), plates)
        if term not in layer:
            layer[term] = self._make_law(term, args)
        return layer[term]

    def _make_law(self, term: ModelLaw, args: list[Var]) -> _Drawn:
        points = [self._point(arg) for arg in args]
        axes = common_axes(points)
        rows = []
        for point in points:
            data = self._spread(point, axes)
            rows.append(data.reshape(-1, *data.shape[len(axes) + 1 :]))
        model = self.job.model
        law = model.law(term.role, *rows)
        if term.role not in self.job.checked:
            self.job.checked.add(term.role)
            model.check_function(term.role, rows, law)
        return _Drawn(law, term.role, axes)

    def _spread(self, point: Grid, axes: tuple[Axis, ...]) -> Tensor:
        """A point's data with exactly the given named axes, repeated along those it lacks."""
        data = point.arranged(axes)
        return data.expand(*map(self._size, axes), *data.shape[len(axes) :])

    def _log_density(self, term: LogDensity) -> Grid:
        law = term.law
        assert isinstance(law, ModelLaw)
        if law.role == "joint":
            x, z = term.point
            prior = LogDensity(ModelLaw("prior"), (z,))
            likelihood = LogDensity(ModelLaw("likelihood", (z,)), (x,))
            return combine(torch.add, [self._value(prior), self._value(likelihood)])
        (var,) = term.point
        assert isinstance(var, Var)
        drawn, point = self._law(law), self._point(var)
        others = tuple(axis for axis in point.axes if axis not in drawn.axes)
        axes = (*others, *drawn.axes)
        rows = self.size * math.prod(map(self._size, drawn.axes))
        flat = self._spread(point, axes).reshape(*map(self._size, others), rows, *point.event)
        observed = self.example if law.role == "likelihood" and var == OBSERVED else None
        value = self.job.model.log_prob(law.role, drawn.law, flat, point.event, observed)
        self.job.note_rounding(value)
        return Grid(value.to(torch.float64).reshape(*map(self._size, axes), self.size), axes)

    # --- arithmetic ---

    def _value(self, term: Term) -> Grid:
        return self._memoised(term, False, self._compute)

    def _log_value(self, term: Term) -> Grid:
        """The logarithm of a term that is non-negative by its form, without leaving log space."""
        return self._memoised(term, True, self._compute_log)

    def _memoised(self, term: Term, logged: bool, compute: Callable[[Term], Grid]) -> Grid:
        layer = self._layer(term.free, term.free_plates)
        key = (term, logged)
        if key not in layer:
            layer[key] = compute(term)
        return layer[key]

    def _constant(self, value: float) -> Grid:
        return Grid(torch.full((1,), value, dtype=torch.float64, device=self.x.device), ())

    def _compute(self, term: Term) -> Grid:
        if isinstance(term, Const):
            return self._constant(float(term.value))
        if isinstance(term, LogDensity):
            return self._log_density(term)
        if isinstance(term, Reduce):
            if is_exponential(term):
                return self._log_value(term).map(torch.exp)
            return self._reduce(term, self._value, logged=False)
        if isinstance(term, Apply):
            return self._apply(term)
        assert isinstance(term, Var)
        point = self._point(term)
        if point.data.ndim > len(point.axes) + 1:
            self._cannot(term, f"{term.name} is a vector, not a number")
        return Grid(point.data.to(torch.float64), point.axes)

    def _apply(self, term: Apply) -> Grid:
        op, args = term.op, term.args
        if op == "log":
            return self._log_value(args[0])
        if op == "exp":
            return self._value(args[0]).map(torch.exp)
        if op == "pow":
            if is_exponential(term):
                return self._log_value(term).map(torch.exp)
            return self._power(term)
        if op == "same":
            return self._same(term)
        if op == "mul" and is_exponential(term):
            return self._log_value(term).map(torch.exp)
        return combine(OPERATIONS[op], [self._value(arg) for arg in args])

    def _power(self, term: Apply) -> Grid:
        base, exponent = term.args
        assert isinstance(exponent, Const)
        value = self._value(base)
        if exponent.value.denominator != 1 and bool((value.data < 0).any()):
            self._cannot(term, "the estimate of its base is negative in some replicates; raise inner")
        return value.map(lambda a: a.pow(float(exponent.value)))

    def _same(self, term: Apply) -> Grid:
        points = [self._point(arg) for arg in term.args if isinstance(arg, Var)]
        if len(points) != 2:
            self._cannot(term, "it compares what are not variables")
        axes = common_axes(points)
        a, b = (self._spread(point, axes) for point in points)
        if a.shape != b.shape:
            raise BadInput(term.text, (points[0].event, points[1].event), "two points of one shape")
        equal = (a == b).reshape(*a.shape[: len(axes) + 1], -1).all(-1)
        return Grid(equal.to(torch.float64), axes)

    def _compute_log(self, term: Term) -> Grid:
        if isinstance(term, Reduce) and nonnegative(term.body):
            return self._reduce(term, self._log_value, logged=True)
        if isinstance(term, Apply):
            op, args = term.op, term.args
            if op == "exp":
                return self._value(args[0])
            if op in LOG_OPERATIONS and all(nonnegative(arg) for arg in args):
                return combine(LOG_OPERATIONS[op], [self._log_value(arg) for arg in args])
            if op == "pow" and nonnegative(args[0]):
                exponent = args[1]
                assert isinstance(exponent, Const)
                scale = float(exponent.value)
                return self._log_value(args[0]).map(lambda a: scale * a)
        value = self._value(term)
        if bool((value.data < 0).any()):
            self._cannot(
                term, "the estimate of the argument of a logarithm is negative in some replicates; raise inner"
            )
        return value.map(torch.log)

    def _reduce(self, term: Reduce, evaluate: Callable[[Term], Grid], logged: bool) -> Grid:
        """mean, sum, max or min over the copies of a plate, block by block; of exponentials, as their logarithm."""
        plate, op = term.plate, term.op
        total: Grid | None = None
        step = self.job.steps[plate]
        for index, start in enumerate(range(0, plate.size, step)):
            size = min(step, plate.size - start)
            with self._opened(plate, index, size):
                part = self._reduce_block(op, evaluate(term.body), plate, size, logged)
            join = OPERATIONS[op] if op in ("max", "min") else torch.logaddexp if logged else torch.add
            total = part if total is None else combine(join, [total, part])
        assert total is not None
        if op == "mean":
            total = total.map(lambda a: a - math.log(plate.size) if logged else a / plate.size)
        return total

    def _reduce_block(self, op: str, part: Grid, plate: Plate, size: int, logged: bool) -> Grid:
        axes = tuple(axis for axis in part.axes if axis != plate)
        if plate not in part.axes:
            if op in ("max", "min"):
                return part
            return part.map(lambda a: a + math.log(size) if logged else a * size)
        place = part.axes.index(plate)
        if op in ("max", "min"):
            return Grid(part.data.amax(place) if op == "max" else part.data.amin(place), axes)
        return Grid(torch.logsumexp(part.data, place) if logged else part.data.sum(place), axes)
