"""Branch and bound: an inequality for every model of a family, not only at points.

A family is a box of parameters, and `rhs - lhs` a function on it. The box is cut into ever smaller pieces until on
each the function is certainly at least -eps, or a point is found where it is certainly negative, which is then a
witness, decided anew and exactly by `check`. Where the two sides touch, the difference is zero and no numerical bound
can be better than -eps; that is what eps is for. What is still open when the budget ends is reported as open.

On a piece the function is bounded below by its enclosure and by the mean-value form f(mid) + slopes . (x - mid).
A parameter in which the function is monotone is fixed at the end where the function is smaller; one in which it is
concave is fixed at each of its ends.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from typing import Any

import flint

from boundcheck.claims.decide import Verdict
from boundcheck.claims.landscape import (
    Box,
    Interval,
    Landscape,
    Point,
    lower_bound,
    mean_value_bound,
    middle_of,
    second_order_bound,
    upper_bound,
)
from boundcheck.claims.logforms import OutOfBudget
from boundcheck.errors import BadInput
from boundcheck.evaluators.values import json_float
from boundcheck.models.finite import FiniteModel

DEFAULT_EPS = 1e-6
DEFAULT_SECONDS = 60.0
DEFAULT_BOXES = 200_000
PRECISION = 64


class BoxStatus(Enum):
    """What is known of an inequality on a box."""

    PROVED = "proved"
    REFUTED = "refuted"
    OPEN = "open"


@dataclass(frozen=True)
class BoxResult:
    """What a search over a box found.

    `bound`: rhs - lhs is certainly at least this on the whole box, in nats. `open_fraction`: the part of the box's
    volume on which it is not yet known to be at least -eps. `proved_fraction` is the rest. `point` has the parameters
    of a witness, `witness` the model and `verdict` its exact verdict, where the claim is refuted.
    """

    status: BoxStatus
    eps: float
    bound: float
    open_fraction: Fraction
    boxes: int
    seconds: float
    parameters: dict[str, Interval]
    point: dict[str, Fraction] | None = None
    witness: FiniteModel | None = None
    verdict: Verdict | None = None

    @property
    def proved_fraction(self) -> Fraction:
        """The part of the box's volume on which the inequality is proved within eps."""
        return 1 - self.open_fraction

    def __str__(self) -> str:
        if self.status is BoxStatus.PROVED:
            return f"proved: rhs - lhs >= {-self.eps:g} on the whole box ({self.boxes} boxes)"
        if self.status is BoxStatus.REFUTED:
            at = ", ".join(f"{name} = {value}" for name, value in (self.point or {}).items())
            return f"refuted at {at}"
        share = float(self.open_fraction)
        return f"open: {share:.3g} of the box is left, where rhs - lhs >= {self.bound:.3g} ({self.boxes} boxes)"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "status": self.status.value,
            "text": str(self),
            "eps": self.eps,
            "bound": json_float(self.bound),
            "open_fraction": float(self.open_fraction),
            "boxes": self.boxes,
            "seconds": self.seconds,
            "parameters": {name: [str(low), str(high)] for name, (low, high) in self.parameters.items()},
            "point": {name: str(value) for name, value in self.point.items()} if self.point else None,
            "witness": {"model": self.witness.to_json(), "x": 0} if self.witness else None,
        }


@dataclass(frozen=True)
class Progress:
    """How far a search is: boxes looked at, volume proved, and the worst lower bound among what is open."""

    boxes: int
    proved_fraction: Fraction
    bound: float


# --- the search ----------------------------------------------------------------------------------------------------


@dataclass
class _Region:
    """A region of the box, and the volume in it that is open; of a split, both alternatives have to be proved."""

    volume: Fraction
    left: Fraction
    splits: list[tuple[_Region, _Region]] = field(default_factory=list)

    def open(self) -> Fraction:
        """At most this volume is not proved: what is left, and of a split what is open in either alternative."""
        total = self.left
        unfinished = []
        for split in self.splits:
            open_in_split = min(split[0].volume, split[0].open() + split[1].open())
            if open_in_split:
                unfinished.append(split)
                total += open_in_split
        self.splits = unfinished
        return total


@dataclass(order=True)
class _Piece:
    """A part of the box, some of whose parameters may be fixed, with a lower bound of f on it."""

    bound: float
    serial: int
    box: Box = field(compare=False)
    volume: Fraction = field(compare=False)
    region: _Region = field(compare=False)


class _Search:
    def __init__(self, landscape: Landscape, eps: float, certify: Callable[[Point], bool]) -> None:
        self.landscape, self.eps, self.certify = landscape, eps, certify
        self.heap: list[_Piece] = []
        self.boxes = 0
        self.smallest = math.inf
        self.witness: Point | None = None
        self.whole = _Region(Fraction(1), Fraction(0))

    def start(self, box: Box) -> None:
        self._add(box, Fraction(1), self.whole)

    @property
    def open(self) -> Fraction:
        return self.whole.open()

    @property
    def worst(self) -> float:
        return min(self.heap[0].bound if self.heap else math.inf, self.smallest)

    def step(self) -> None:
        """Cut the piece with the worst bound in two."""
        piece = self.heap[0]
        i = self._influential(piece.box)
        if i is None:
            raise OutOfBudget("the bounds do not separate at this precision")
        heapq.heappop(self.heap)
        piece.region.left -= piece.volume
        low, high = piece.box[i]
        middle = (low + high) / 2
        halves = [(low, middle), (middle, high)]
        for half in halves:
            # After a witness nothing more is evaluated, but what is open still has to add up.
            self._add((*piece.box[:i], half, *piece.box[i + 1 :]), piece.volume / 2, piece.region)

    def _influential(self, box: Box) -> int | None:
        """The parameter with the largest slope times width; None if there is nothing left to cut."""
        best, where = -1.0, None
        for i, (low, high) in enumerate(box):
            if low < high:
                steepness = upper_bound(abs(self.landscape.slope(box, i)))
                size = min(steepness, 1e6) * float(high - low)
                if size > best:
                    best, where = size, i
        return where

    def _add(self, box: Box, volume: Fraction, region: _Region) -> None:
        """Bound f on a part of the box, and keep it unless f is known to be at least -eps there."""
        bound, reduced = -math.inf, [box]
        if self.witness is None:
            self.boxes += 1
            bound, reduced = self._bounded(box)
        if bound >= -self.eps:
            self.smallest = min(self.smallest, bound)
        elif len(reduced) == 1:
            region.left += volume
            heapq.heappush(self.heap, _Piece(bound, self.boxes, reduced[0], volume, region))
        else:
            split = _Region(volume, Fraction(0)), _Region(volume, Fraction(0))
            region.splits.append(split)
            for alternative, each in zip(split, reduced, strict=True):
                self._add(each, volume, alternative)

    def _bounded(self, box: Box) -> tuple[float, list[Box]]:
        """A lower bound of f on a part of the box, and the part, or two parts, on which its minimum must lie."""
        landscape = self.landscape
        middle = middle_of(box)
        if landscape.value(middle) < 0 and self._is_witness(middle):
            return -math.inf, [box]
        bound = lower_bound(landscape.value(box))
        if bound >= -self.eps:
            return bound, [box]
        slopes = [landscape.slope(box, i) if low < high else flint.arb(0) for i, (low, high) in enumerate(box)]
        reduced = tuple(_reduced(side, slope) for side, slope in zip(box, slopes, strict=True))
        if reduced != box:
            return self._bounded(reduced)
        bound = max(bound, mean_value_bound(landscape, box, middle, slopes))
        if -_NEAR < bound < -self.eps:
            bound = max(bound, second_order_bound(landscape, box, middle))
        if bound >= -self.eps:
            return bound, [box]
        for i, (low, high) in enumerate(box):
            if low < high and landscape.is_concave(box, i):
                return bound, [(*box[:i], (end, end), *box[i + 1 :]) for end in (low, high)]
        return bound, [box]

    def _is_witness(self, middle: Box) -> bool:
        point = tuple(low for low, _ in middle)
        if self.certify(point):
            self.witness = point
        return self.witness is not None


_NEAR = 0.1
"""Second-order bounds are worth their price once the first-order bound is this near to zero."""


def _reduced(side: Interval, slope: flint.arb) -> Interval:
    """The end of a side at which a monotone function is smallest."""
    low, high = side
    if slope >= 0:
        return low, low
    return (high, high) if slope <= 0 else side


def minimise(
    landscape: Landscape,
    parameters: Mapping[str, Interval],
    *,
    eps: float = DEFAULT_EPS,
    seconds: float = DEFAULT_SECONDS,
    boxes: int = DEFAULT_BOXES,
    certify: Callable[[Point], bool] = lambda point: True,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> BoxResult:
    """Decide whether a function is at least -eps on a box.

    Args:
        landscape: the function.
        parameters: the box: an interval for each parameter.
        eps: the tolerance, in nats, positive.
        seconds: the longest time to spend.
        boxes: the most boxes to look at.
        certify: told a point where the function is certainly negative, says whether it is a witness.
        progress: called now and then.

    Raises:
        BadInput: an eps or budget that is not positive, an empty interval, or the wrong number of parameters.
    """
    box = _checked_box(landscape, parameters)
    check_budget(eps, seconds, boxes)
    started = time.monotonic()
    search = _Search(landscape, eps, certify)
    with flint.ctx.workprec(PRECISION):
        search.start(box)
        next_report = 0
        while search.heap and search.witness is None:
            if search.boxes >= next_report:
                progress(Progress(search.boxes, 1 - search.open, search.worst))
                next_report = search.boxes + 200
            if search.boxes >= boxes or time.monotonic() - started > seconds:
                break
            try:
                search.step()
            except OutOfBudget:
                break
    opened = search.open
    progress(Progress(search.boxes, 1 - opened, search.worst))
    status = BoxStatus.REFUTED if search.witness else BoxStatus.OPEN if search.heap else BoxStatus.PROVED
    point = dict(zip(parameters, search.witness, strict=True)) if search.witness else None
    return BoxResult(
        status, eps, search.worst, opened, search.boxes, time.monotonic() - started, dict(parameters), point
    )


def check_budget(eps: float, seconds: float, boxes: int) -> None:
    """Refuse a tolerance or a budget that is not positive.

    Raises:
        BadInput: naming it.
    """
    for name, value in (("eps", eps), ("seconds", seconds), ("boxes", boxes)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0 or math.isinf(value):
            raise BadInput(name, value, "a positive number")


def _checked_box(landscape: Landscape, parameters: Mapping[str, Interval]) -> Box:
    if len(parameters) != landscape.dimension:
        raise BadInput("parameters", list(parameters), f"{landscape.dimension} intervals")
    for name, (low, high) in parameters.items():
        if low > high:
            raise BadInput(f"the interval of {name}", (str(low), str(high)), "its lower end first")
    return tuple(parameters.values())


# --- a progress bar ------------------------------------------------------------------------------------------------


@contextmanager
def progress_bar(label: str = "proving") -> Iterator[Callable[[Progress], None]]:
    """A bar on stderr that shows the part of the box that is proved; pass what it yields as `progress`."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>5.1f}%"))
    columns += (TextColumn("{task.fields[detail]}"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=1.0, detail="")

        def show(state: Progress) -> None:
            bar.update(
                task,
                completed=float(state.proved_fraction),
                detail=f"{state.boxes} boxes, worst bound {state.bound:.2g}",
            )

        yield show


__all__ = [
    "DEFAULT_BOXES",
    "DEFAULT_EPS",
    "DEFAULT_SECONDS",
    "BoxResult",
    "BoxStatus",
    "Progress",
    "check_budget",
    "minimise",
    "progress_bar",
]
