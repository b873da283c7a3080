"""log p(x) by quadrature, for models whose latent has one or two dimensions: as near to the truth as floats come.

p(x) = integral p(z) p(x|z) dz over a box that is cut into cells, each with a Gauss-Legendre rule. A cell is halved
until its halves agree with it, so that the cells gather where the posterior is, however narrow; the box is doubled
until what a doubling adds is negligible. Both differences make the error estimate, and draws of the prior tell whether
anything was stepped over. It is an estimate: a peak between the first points, which neither they nor the encoder nor
any draw point at, would be missed by any such rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, require
from boundcheck.evaluators.values import Approximate, json_float
from boundcheck.evidence.grid_joint import REACH, Joint
from boundcheck.evidence.grid_seeds import hidden, missed, some_of
from boundcheck.evidence.intervals import Label
from boundcheck.evidence.stages import Stage, State, Step, tensors_digest
from boundcheck.models.torch_model import TorchModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="quadrature over a torch model's latent")
    Tensor = torch.Tensor

Floats = NDArray[np.float64]
ROWS = 16384
"""Points handed to the model at once, unless another number is asked for."""
_NODES = {1: 12, 2: 8}
_FIRST_CELLS = {1: 64, 2: 12}
_MOST_POINTS = {1: 1 << 18, 2: 1 << 21}
_ROUNDS, _DOUBLINGS = 60, 40
_ROUNDINGS = 16
_TOGETHER = 16
"""Examples of one part."""


@dataclass(frozen=True)
class GridEvidence:
    """log p(x) of each example by quadrature, in nats.

    Attributes:
        values: of shape (examples,); NaN where the quadrature failed.
        errors: estimates of their absolute errors: of the cells, of the tails, and of the model's own arithmetic.
        points: how many evaluations of the model each example took.
        dimensions: of the latent, 1 or 2.
        failed: examples without a value, and why.
    """

    values: Floats
    errors: Floats
    points: NDArray[np.int64]
    dimensions: int
    failed: dict[int, str] = field(default_factory=dict)

    @property
    def mean(self) -> Approximate:
        """The mean over the examples that did not fail; the errors are averaged, as if all pointed the same way."""
        kept = [index for index in range(len(self.values)) if index not in self.failed]
        if not kept:
            return Approximate(math.nan, math.inf)
        return Approximate(float(np.mean(self.values[kept])), float(np.mean(self.errors[kept])))

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "quantity": "mean log p(x) over these examples, nats",
            "method": f"quadrature over {self.dimensions} latent dimension{'s' if self.dimensions > 1 else ''}",
            "label": Label.ESTIMATE.value,
            "mean": self.mean.to_json(),
            "examples": [
                {"value": json_float(value), "error": json_float(error)}
                for value, error in zip(self.values.tolist(), self.errors.tolist(), strict=True)
            ],
            "points": int(self.points.sum()),
            "failed": {str(index): reason for index, reason in sorted(self.failed.items())},
        }


def grid_evidence(
    model: object,
    x: Any,
    *,
    tolerance: float = 1e-6,
    rows: int = ROWS,
    progress: Callable[[int], None] | None = None,
    stage: Stage | None = None,
) -> GridEvidence:
    """log p(x) = log integral p(z) p(x|z) dz for each example, with z of one or two dimensions, in nats.

    Args:
        model: a `TorchModel` or an object with its functions; any prior on R or R^2 that has a density and draws.
        x: observations of shape (examples, *event).
        tolerance: how far off, in nats, a value may be; what was reached is in `errors`.
        rows: points handed to the model at once, which bounds the memory.
        progress: called with 1 after each example.
        stage: where its parts are computed and kept.

    Raises:
        BadInput: bad numbers, data or shapes.
        CannotCompute: another number of latent dimensions, or a latent that does not live on all of R^d.

    >>> from torch.distributions import Normal
    >>> model = TorchModel(
    ...     prior=lambda: Normal(torch.tensor(0.0).double(), 1.0),
    ...     encoder=lambda x: Normal(x / 2, 1.0),
    ...     decoder=lambda z: Normal(z, 1.0),
    ... )
    >>> found = grid_evidence(model, torch.tensor([2.0]).double())
    >>> print(f"{found.values[0]:.10f}, error below 1e-9: {found.errors[0] < 1e-9}")  # -log(4 pi) / 2 - 1
    -2.2655121235, error below 1e-9: True
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 < tolerance < 1:
        raise BadInput("tolerance", tolerance, "a number of nats between 0 and 1", "for example tolerance=1e-6")
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise BadInput("rows", rows, "an integer of at least 1")
    wrapped = TorchModel.wrap(model)
    data = wrapped.data(x)
    joint = Joint(wrapped, data, rows)
    parts = [range(first, min(first + _TOGETHER, len(data))) for first in range(0, len(data), _TOGETHER)]

    def steps(index: int, before: State | None) -> Generator[Step]:
        found = _Found([], [], [], {}) if before is None else _Found.of(before)
        yield len(found.values), found.state
        for example in parts[index][len(found.values) :]:
            found.add(_Integral(joint, example, tolerance))
            yield len(found.values), found.state

    states = (stage or Stage()).collect(
        lambda: {"tolerance": tolerance, "data": tensors_digest({"x": data}), "together": _TOGETHER},
        [len(part) for part in parts],
        steps,
        progress=progress,
    )
    whole = [_Found.of(state) for state in states]
    return GridEvidence(
        np.array([value for each in whole for value in each.values]),
        np.array([error for each in whole for error in each.errors]),
        np.array([count for each in whole for count in each.points], dtype=np.int64),
        joint.dimensions,
        {example: reason for each in whole for example, reason in each.failed.items()},
    )


@dataclass
class _Found:
    """What is known of the first examples of a part."""

    values: list[float]
    errors: list[float]
    points: list[int]
    failed: dict[int, str]

    @classmethod
    def of(cls, state: State) -> _Found:
        failed = dict(zip(state["failed"].tolist(), state["reasons"].tolist(), strict=True))
        return cls(state["values"].tolist(), state["errors"].tolist(), state["points"].tolist(), failed)

    def state(self) -> State:
        return {
            "values": np.array(self.values),
            "errors": np.array(self.errors),
            "points": np.array(self.points, dtype=np.int64),
            "failed": np.array(list(self.failed), dtype=np.int64),
            "reasons": np.array(list(self.failed.values()), dtype=np.str_),
        }

    def add(self, integral: _Integral) -> None:
        """The next example."""
        value, error = math.nan, math.inf
        try:
            value, error = integral.run()
        except _NoNumber as reason:
            self.failed[integral.example] = str(reason)
        self.values.append(value)
        self.errors.append(error)
        self.points.append(integral.points)


class _NoNumber(Exception):
    """Why an example has no value."""


class _Integral:
    """The integral over z for one example: cells that are halved, in a box that is doubled."""

    def __init__(self, joint: Joint, example: int, tolerance: float) -> None:
        self.joint, self.example, self.tolerance = joint, example, tolerance
        self.seeds, self.seed_widths = joint.seeds(example)
        self.points, self.largest = 0, -math.inf
        self.stepped_over: set[tuple[float, ...]] = set()
        nodes, weights = np.polynomial.legendre.leggauss(_NODES[joint.dimensions])
        grids = np.meshgrid(*[nodes] * joint.dimensions, indexing="ij")
        self.nodes = np.stack([grid.ravel() for grid in grids], axis=1)
        products = np.meshgrid(*[weights] * joint.dimensions, indexing="ij")
        self.log_weights = np.log(np.prod([grid.ravel() for grid in products], axis=0))

    def run(self) -> tuple[float, float]:
        """log of the integral, and an estimate of its error in nats.

        Raises:
            _NoNumber: the model gives NaN or +inf somewhere.
        """
        joint = self.joint
        drawn = joint.at(self.example, joint.draws)
        self.known = some_of(joint.draws, drawn)
        self.points += len(drawn)
        spread, center = joint.spread, joint.center
        low, high = center - REACH * spread, center + REACH * spread
        if len(self.seeds):
            low = np.minimum(low, (self.seeds - REACH * self.seed_widths).min(0))
            high = np.maximum(high, (self.seeds + REACH * self.seed_widths).max(0))
        total, error = self._adapted(*self._cells(low, high, _FIRST_CELLS[joint.dimensions]))
        share = 1.0
        for _ in range(_DOUBLINGS):
            middle, half = (low + high) / 2, high - low
            ring_total, ring_error = self._adapted(*self._ring(low, high), beside=total)
            low, high = middle - half, middle + half
            grown = float(np.logaddexp(total, ring_total))
            share = math.exp(ring_total - grown) if grown > -math.inf else 0.0
            total, error = grown, float(np.logaddexp(error, ring_error))
            if total > -math.inf and share <= self.tolerance / 16:
                break
            if self.points > _MOST_POINTS[joint.dimensions]:
                break
        if total == -math.inf:
            return -math.inf, math.inf  # zero wherever it was looked at, which is no proof
        relative = math.exp(min(0.0, error - total)) + 2 * share
        known = (-math.log1p(-relative) if relative < 1 else math.inf) + self.rounding
        with np.errstate(invalid="ignore"):  # a density of zero at its own draw tells nothing
            lost = missed(drawn - joint.log_prior, total, len(self.stepped_over))
        return total, max(known, lost)

    @property
    def rounding(self) -> float:
        """An estimate, in nats, of the error of the model's own arithmetic where its density is largest."""
        size = abs(self.largest) if math.isfinite(self.largest) else 0.0
        return _ROUNDINGS * torch.finfo(self.joint.like.dtype).eps * size

    # --- cells: lower corners and widths, of shape (cells, dimensions) ---

    def _cells(self, low: Floats, high: Floats, count: int) -> tuple[Floats, Floats]:
        width = (high - low) / count
        steps = np.meshgrid(*[np.arange(count)] * len(low), indexing="ij")
        corners = low + width * np.stack([step.ravel() for step in steps], axis=1)
        return corners, np.broadcast_to(width, corners.shape)

    def _ring(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """The box of twice the width, without the box."""
        margin = (high - low) / 2
        corners, widths = self._cells(low - margin, high + margin, 8)
        centers = corners + widths / 2
        outside = ((centers < low) | (centers > high)).any(1)
        return corners[outside], widths[outside]

    def _halved(self, corners: Floats, widths: Floats) -> tuple[Floats, Floats]:
        """The 2^d halves of every cell, one cell's next to each other."""
        dimensions = corners.shape[1]
        offsets = np.stack(np.meshgrid(*[[0.0, 0.5]] * dimensions, indexing="ij"), axis=-1).reshape(-1, dimensions)
        parts = corners[:, None, :] + offsets * widths[:, None, :]
        return parts.reshape(-1, dimensions), np.repeat(widths / 2, len(offsets), axis=0)

    def _integrals(self, corners: Floats, widths: Floats) -> tuple[Floats, Floats]:
        """log of the integral over each cell, by its rule, and the largest log-density that the rule has met."""
        points = corners[:, None, :] + widths[:, None, :] * (self.nodes + 1) / 2
        values = self.joint.at(self.example, points.reshape(-1, points.shape[2])).reshape(len(corners), -1)
        self.points += values.size
        if np.isnan(values).any() or (values == math.inf).any():
            raise _NoNumber("log p(x, z) is NaN or +inf at a point of the grid")
        finite = values[np.isfinite(values)]
        if len(finite) and finite.max() > self.largest:
            self.largest = float(finite.max())
        integrals = np.logaddexp.reduce(values + self.log_weights, axis=1) + np.log(widths / 2).sum(1)
        return integrals, values.max(axis=1)

    def _adapted(self, corners: Floats, widths: Floats, beside: float = -math.inf) -> tuple[float, float]:
        """log of the integral over the cells and of its error, relative to it and to what lies `beside` it.

        In each round all cells are halved; those whose halves agree with them, up to a share of the tolerance, are
        done with, from the smallest difference on, and the halves of the others are the cells of the next round.
        """
        whole, _ = self._integrals(corners, widths)
        first = widths[0]
        done, error = -math.inf, -math.inf
        for _ in range(_ROUNDS):
            parts, part_widths = self._halved(corners, widths)
            halves, tops = self._integrals(parts, part_widths)
            grouped = halves.reshape(len(corners), -1)
            sums = np.logaddexp.reduce(grouped, axis=1)
            total = np.logaddexp.reduce([done, beside, *sums])
            if total == -math.inf:
                return -math.inf, -math.inf
            with np.errstate(over="ignore"):  # a coarse rule may overestimate without bounds
                gaps = np.abs(np.exp(whole - total) - np.exp(sums - total))
            order = np.argsort(gaps)
            agreed = np.zeros(len(gaps), dtype=bool)
            agreed[order] = np.cumsum(gaps[order]) <= max(self.tolerance, self.rounding) / 16
            agreed &= ~self._hides_a_seed(corners, widths)
            highest, least = tops.reshape(len(corners), -1).max(axis=1), total + math.log(self.tolerance / 16)
            hiding = agreed & hidden(corners, widths, highest, *self.known, least)
            self.stepped_over |= set(map(tuple, np.floor(corners[hiding] / first).tolist()))
            agreed &= ~hiding
            full = self.points > _MOST_POINTS[self.joint.dimensions]
            if full:
                agreed[:] = True
            if agreed.any():
                done = float(np.logaddexp.reduce([done, *sums[agreed]]))
                error = float(np.logaddexp(error, _log(gaps[agreed].sum()) + total))
            if agreed.all():
                break
            open_halves = np.repeat(~agreed, grouped.shape[1])
            corners, widths, whole = parts[open_halves], part_widths[open_halves], halves[open_halves]
        else:
            done = float(np.logaddexp.reduce([done, *whole]))
            error = float(np.logaddexp(error, np.logaddexp.reduce(whole)))
        return done, error

    def _hides_a_seed(self, corners: Floats, widths: Floats) -> NDArray[np.bool_]:
        """Cells so much wider than a place of note in them that their points may step over it."""
        hidden = np.zeros(len(corners), dtype=bool)
        for seed, width in zip(self.seeds, self.seed_widths, strict=True):
            inside = ((corners <= seed) & (seed <= corners + widths)).all(1)
            hidden |= inside & (widths > 8 * width).any(1)
        return hidden


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


__all__ = ["GridEvidence", "grid_evidence"]
