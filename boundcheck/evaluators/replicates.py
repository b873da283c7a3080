"""Replicates of a formula's value on a torch model, unit by unit.

A unit is some examples, replicates and copies (see `units`); within it a sub-term is a tensor over the axes of its own
variables. The model itself sees no more than `chunk` rows at once. All arithmetic on log-densities is in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from boundcheck.errors import BadInput, CannotCompute, UndefinedValue, require
from boundcheck.evaluators.draws import (
    SobolNoise,
    as_gaussian,
    averaged,
    concatenated,
    expected_log_density,
    mirrored,
    shifted,
)
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
from boundcheck.evaluators.open_axes import OpenAxes
from boundcheck.evaluators.plan import EVALUATOR, Averaged
from boundcheck.evaluators.units import Job
from boundcheck.language.laws import ModelLaw
from boundcheck.language.positions import nonnegative
from boundcheck.language.terms import OBSERVED, Apply, Const, LogDensity, Plate, Reduce, Term, Var
from boundcheck.models.torch_functions import check_function
from boundcheck.models.torch_model import random_state

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Distribution
else:
    torch = require("torch", extra="torch", feature="Monte Carlo on a torch model")
    Tensor = torch.Tensor
    Distribution = torch.distributions.Distribution


@dataclass(frozen=True)
class _Drawn:
    """A law of the model at its arguments: one for each place on `axes` and each example, folded into rows."""

    law: Distribution
    role: str
    axes: tuple[Axis, ...]


def blocks_of(job: Job) -> Iterator[ExampleBlock]:
    """The blocks of examples of a job, in order."""
    for index, start in enumerate(range(0, len(job.x), job.examples_at_once)):
        yield ExampleBlock(job, index, start)


class ExampleBlock(OpenAxes):
    """Some examples and the replicates of a plan's value at them.

    Iterating gives float64 tensors of shape (independent values, examples), in blocks.
    """

    def __init__(self, job: Job, index: int, start: int) -> None:
        super().__init__()
        self.job, self.index, self.start = job, index, start
        self.x = job.x[start : start + job.examples_at_once]
        self.size = self.x.shape[0]
        self.sequences: list[SobolNoise] = []
        if job.drawing.kind == "sobol":
            self.sequences = [self._sequences(start + row) for row in range(self.size)]

    def __iter__(self) -> Iterator[Tensor]:
        return averaged(self.replicates(), self.job.drawing.together)

    def replicates(self, blocks: range | None = None) -> Iterator[Tensor]:
        """The values of some blocks of replicates, of all unless they are given; a block's draws are its own."""
        step = self.job.replicates_at_once
        for index in range(self.job.blocks) if blocks is None else blocks:
            size = min(step, self.job.n - index * step)
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
        axes = (*fresh, *drawn.axes)
        seed = self.job.seed_of(self.index, var, [self.open[axis].index for axis in (REPLICATES, *var.plates)])
        gaussian = as_gaussian(drawn.law) if self.job.drawing.kind != "independent" else None
        if gaussian is not None:
            points = self._chosen(var, gaussian, drawn, axes, seed)
            self._check_draw(term, points)
        else:
            shape = [self._size(axis) for axis in fresh]
            if term.role == "prior":
                shape.append(self.size)
            points = self._sample(drawn, shape, seed)
            if var not in self.job.repeated:
                self.job.repeated.add(var)
                self._check_draw(term, points)
                if not torch.equal(points, self._sample(drawn, shape, seed)):
                    name = type(drawn.law).__name__
                    raise BadInput(
                        f"the draws of {term}",
                        name,
                        "draws that follow torch.manual_seed",
                        "draw with torch's generators",
                    )
        event = tuple(drawn.law.event_shape)
        return Grid(points.reshape(*map(self._size, axes), self.size, *event), axes)

    @staticmethod
    def _check_draw(term: ModelLaw, points: Tensor) -> None:
        if bool(points.isnan().any()):
            raise BadInput(f"a draw from {term}", math.nan, "numbers", "check the model's weights and the data")

    def _sample(self, drawn: _Drawn, shape: Sequence[int], seed: int) -> Tensor:
        with random_state(self.x.device, seed):
            return self.job.model.sample(drawn.role, drawn.law, shape)

    def _chosen(
        self, var: Var, gaussian: tuple[Tensor, Tensor, bool], drawn: _Drawn, axes: tuple[Axis, ...], seed: int
    ) -> Tensor:
        """Draws of a Gaussian law whose noise is antithetic or quasi-random."""
        event = tuple(drawn.law.event_shape)
        sizes = [self._size(axis) for axis in axes]
        if self.job.drawing.kind == "antithetic":
            place = axes.index(REPLICATES)
            half = [*sizes[:place], sizes[place] // 2, *sizes[place + 1 :]]
            with random_state(self.x.device, seed):
                noise = torch.randn(*half, self.size, *event, dtype=torch.float64, device=self.x.device)
            noise = mirrored(noise, place)
        else:
            order = (REPLICATES, *var.plates)
            noise = Grid(self._sobol(var, event), order).arranged(axes)
        return shifted(gaussian, noise, () if drawn.role == "prior" else (*map(self._size, drawn.axes), self.size))

    def _sobol(self, var: Var, event: tuple[int, ...]) -> Tensor:
        """A variable's own columns of this block's quasi-random noise: (replicates, *copies, examples, *event)."""
        layer = self.memo[self.open[REPLICATES].layer]
        if "sobol" not in layer:
            rows = [sequence.take(self._size(REPLICATES)) for sequence in self.sequences]
            layer["sobol"] = torch.stack(rows, 1).to(self.x.device)
        points = layer["sobol"][..., self.job.columns[var]]
        points = points.reshape(*points.shape[:2], *(plate.size for plate in var.plates), *event)
        for place, plate in enumerate(var.plates):
            opened = self.open[plate]
            points = points.narrow(2 + place, opened.index * self.job.steps[plate], opened.size)
        return points.movedim(1, 1 + len(var.plates))

    def _sequences(self, example: int) -> SobolNoise:
        job = self.job
        count = math.ceil(job.n / job.drawing.together)
        seeds = [job.seed_of_sequence(example, sequence) for sequence in range(count)]
        dimension = job.dimension if job.columns else 0
        return SobolNoise(max(1, dimension), job.drawing.together, seeds)

    def _law(self, term: ModelLaw) -> _Drawn:
        args = [arg for arg in term.args if isinstance(arg, Var)]
        plates = frozenset[Plate]().union(*(arg.free_plates for arg in args))
        layer = self._layer(frozenset(args), plates)
        if term not in layer:
            rows, axes = self._rows(args)
            layer[term] = _Drawn(self._whole_law(term.role, rows), term.role, axes)
        return layer[term]

    def _rows(self, args: list[Var]) -> tuple[list[Tensor], tuple[Axis, ...]]:
        """A law's arguments at all places of their common axes, folded into rows."""
        points = [self._point(arg) for arg in args]
        axes = common_axes(points)
        rows = []
        for point in points:
            data = self._spread(point, axes)
            rows.append(data.reshape(-1, *data.shape[len(axes) + 1 :]))
        return rows, axes

    def _whole_law(self, role: str, rows: list[Tensor]) -> Distribution:
        """The law at all rows, from no more than a chunk of them at once where its family is known."""
        count, chunk = len(rows[0]) if rows else 0, self.job.chunk
        if count <= chunk:
            return self._model_law(role, rows)
        parts = [self._model_law(role, [row[:chunk] for row in rows])]
        if concatenated(parts) is None:
            return self._model_law(role, rows)
        for start in range(chunk, count, chunk):
            parts.append(self._model_law(role, [row[start : start + chunk] for row in rows]))
        law = concatenated(parts)
        return self._model_law(role, rows) if law is None else law

    def _model_law(self, role: str, rows: list[Tensor]) -> Distribution:
        model = self.job.model
        law = model.law(role, *rows)
        if role not in self.job.checked:
            self.job.checked.add(role)
            check_function(model, role, rows, law)
        return law

    def _spread(self, point: Grid, axes: tuple[Axis, ...]) -> Tensor:
        """A point's data with exactly the given named axes, repeated along those it lacks."""
        data = point.arranged(axes)
        return data.expand(*map(self._size, axes), *data.shape[len(axes) :])

    def _log_density(self, term: LogDensity) -> Grid:
        law = term.law
        if isinstance(law, Averaged):
            value = self._averaged(law)
            return self._log_density(LogDensity(law.target, term.point)) if value is None else value
        assert isinstance(law, ModelLaw)
        if law.role == "joint":
            x, z = term.point
            prior = LogDensity(ModelLaw("prior"), (z,))
            likelihood = LogDensity(ModelLaw("likelihood", (z,)), (x,))
            return combine(torch.add, [self._value(prior), self._value(likelihood)])
        (var,) = term.point
        assert isinstance(var, Var)
        if law.role == "likelihood" and var == OBSERVED:
            return self._log_likelihood(law)
        drawn, point = self._law(law), self._point(var)
        others = tuple(axis for axis in point.axes if axis not in drawn.axes)
        axes = (*others, *drawn.axes)
        rows = self.size * math.prod(map(self._size, drawn.axes))
        flat = self._spread(point, axes).reshape(*map(self._size, others), rows, *point.event)
        value = self.job.model.log_prob(law.role, drawn.law, flat, point.event)
        self.job.note_rounding(value)
        return Grid(value.to(torch.float64).reshape(*map(self._size, axes), self.size), axes)

    def _averaged(self, law: Averaged) -> Grid | None:
        """E log target = -(KL(source || target) + entropy of source), where torch knows both; else None."""
        source, target = self._law(law.source), self._law(law.target)
        wide = target if source.role == "prior" else source
        if source.axes != target.axes and "prior" not in (source.role, target.role):
            return None
        value = expected_log_density(source.law, target.law)
        if value is None:
            return None
        self.job.note_rounding(value)
        shape = (1,) if wide.role == "prior" else (*map(self._size, wide.axes), self.size)
        return Grid(value.to(torch.float64).reshape(shape), () if wide.role == "prior" else wide.axes)

    def _log_likelihood(self, law: ModelLaw) -> Grid:
        """log p(x | z) at the observations: a chunk of rows at a time, and no law kept, since it is as wide as x."""
        rows, axes = self._rows([arg for arg in law.args if isinstance(arg, Var)])
        parts, event = [], tuple(self.x.shape[1:])
        for start in range(0, len(rows[0]), self.job.chunk):
            some = [row[start : start + self.job.chunk] for row in rows]
            places = torch.arange(start, start + len(some[0]), device=self.x.device) % self.size
            value = self.job.model.log_prob(
                law.role,
                self._model_law(law.role, some),
                self.x[places],
                event,
                lambda row, places=places: self.example(int(places[row])),
            )
            self.job.note_rounding(value)
            parts.append(value.to(torch.float64))
        return Grid(torch.cat(parts).reshape(*map(self._size, axes), self.size), axes)

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
