"""Where an integrand may be narrow: the places at which one of its laws has its mass, its step or its kink.

An integrand is built from densities of laws. As a function of the integration variable, a law is narrow where its
location passes its point: an equation in one unknown, whose sign changes a coarse scan finds however narrow the law
is, and whose slope says how wide the feature is. So a peak of width 1e-4 far in a tail is found without a fine grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from boundcheck.evaluators.quadrature_copies import LogOfCopies
from boundcheck.evaluators.quadrature_lines import EPSILON, Array, Index, Lines
from boundcheck.language.laws import Law, ModelLaw
from boundcheck.language.terms import CORRUPTED, OBSERVED, Expect, Integrate, LogDensity, Term, Var
from boundcheck.models.densities import (
    BernoulliLogit,
    Binomial,
    Density,
    Discrete,
    Laplace,
    Mixture,
    PoissonLog,
    Uniform,
)

if TYPE_CHECKING:
    from boundcheck.evaluators.quadrature_laws import Line
    from boundcheck.evaluators.quadrature_walk import Walk

_SCAN = np.array([0.0, 0.25, 0.5, 0.8, 1.2, 1.7, 2.3, 3.0, 4.0, 5.5, 8.0, 12.0, 25.0, 60.0, 200.0, 1e3, 1e4, 1e5, 1e6])
_OFFSETS = np.concatenate([-_SCAN[:0:-1], _SCAN])
_ROOTS = 2
_MOST_POINTS = 8

Bound = tuple[tuple[Law | None, Var, float | None], ...]
"""Variables bound inside the integrand, held at a point of a discrete law, or (None) at the center of their law."""


@dataclass(frozen=True)
class _Part:
    """One law and its point; `explicit` if only the point is the variable of integration."""

    law: ModelLaw
    point: Var
    explicit: bool
    bound: Bound


def where(walk: Walk, var: Var, line: Line, body: Term, weight: Term | None, lines: list[Line], i: int) -> Lines:
    """Centers, widths and kinks of component i of a variable, one row for each entry of the frame on top."""
    size = walk.frames[-1].size

    def row(value: Any, missing: float = 0.0) -> Array:
        return np.full(size, missing) if value is None else walk.full(value, walk.top)

    base, spread = row(line.center), row(line.spread)
    lower, upper = row(line.lower, -np.inf), row(line.upper, np.inf)
    centers, widths = [base], [spread]
    kinks = [row(kink) for kink in line.kinks]
    if line.density is not None and isinstance(line.density, Mixture):
        for center, width, _ in _clues(line.density, 0.0):
            centers.append(row(center))
            widths.append(row(width))
    for part in _parts(walk, var, [body] if weight is None else [body, weight]):
        found = _explicit(walk, part, i, row) if part.explicit else _search(walk, part, var, lines, i, base, spread)
        for center, width, kink in found:
            usable = np.isfinite(center) & np.isfinite(width) & (width > 0) & (center >= lower) & (center <= upper)
            center, width = np.where(usable, center, base), np.where(usable, width, spread)
            centers.append(center)
            widths.append(np.maximum(width, 4 * EPSILON * np.abs(center)))
            if kink:
                kinks.append(center)
    kink_array = np.stack(kinks, axis=1) if kinks else np.zeros((size, 0))
    return Lines(np.stack(centers, axis=1), np.stack(widths, axis=1), kink_array, lower, upper)


def _parts(walk: Walk, var: Var, terms: list[Term]) -> list[_Part]:
    found: dict[tuple, _Part] = {}
    for term in terms:
        for leaf, bound in _leaves(walk, term, var, ()):
            assert isinstance(leaf.law, ModelLaw)
            if leaf.law.role == "joint":
                x, z = leaf.point
                pairs = [(ModelLaw("prior"), z), (ModelLaw("likelihood", (z,)), x)]
            else:
                pairs = [(leaf.law, leaf.point[0])]
            for law, point in pairs:
                if not isinstance(point, Var) or var not in {point, *law.args}:
                    continue
                explicit = var not in law.args and point == var and not (set(law.args) & {v for _, v, _ in bound})
                key = (law, point, tuple((v.serial, at) for _, v, at in bound) if not explicit else ())
                found.setdefault(key, _Part(law, point, explicit, bound))
    return list(found.values())


def _leaves(walk: Walk, term: Term, var: Var, bound: Bound) -> Iterator[tuple[LogDensity, Bound]]:
    if var not in term.free:
        return
    if isinstance(term, LogDensity):
        if isinstance(term.law, ModelLaw):
            yield term, bound
        else:
            yield from _leaves(walk, walk.expanded(term), var, bound)
    elif isinstance(term, Expect):
        for at in _held(walk, term.law):
            yield from _leaves(walk, term.body, var, (*bound, (term.law, term.var, at)))
    elif isinstance(term, Integrate):
        law = ModelLaw("corruption", (OBSERVED,)) if term.var.space == CORRUPTED else None
        for at in [None] if law is None else _held(walk, law):
            yield from _leaves(walk, term.body, var, (*bound, (None, term.var, at)))
    elif isinstance(term, LogOfCopies):
        members = tuple((law, member, None) for law, member in term.members)
        yield from _leaves(walk, term.typical, var, (*bound, *members))
        if term.also is not None:
            yield from _leaves(walk, term.also, var, bound)
    else:
        for child in term.children:
            yield from _leaves(walk, child, var, bound)


def _held(walk: Walk, law: Law) -> list[float | None]:
    """The points at which a bound variable is held: those of a discrete law with one component, else its center."""
    if isinstance(law, ModelLaw) and not any(walk.level(arg) if arg in walk.env else 1 for arg in law.args):
        components = walk.law(law.role, law.args, 0)
        if len(components) == 1 and isinstance(components[0], Discrete):
            return [float(point) for point in components[0].points[:_MOST_POINTS]]
    return [None]


def _clues(law: Density, target: Any) -> list[tuple[Any, Any, bool]]:
    """(location - target, width, is a kink) for everything that a law has a place for."""
    if isinstance(law, Mixture):
        return [clue for part in law.components for clue in _clues(part, target)]
    if isinstance(law, Uniform):
        width = law.upper - law.lower
        return [(law.lower - target, width, True), (law.upper - target, width, True)]
    if isinstance(law, BernoulliLogit):
        return [(law.logit, 1.0, False)]
    if isinstance(law, Binomial):
        share = (target + 0.5) / (law.n + 1.0)
        return [(law.logit - np.log(share / (1 - share)), 1 / np.sqrt((law.n + 1.0) * share * (1 - share)), False)]
    if isinstance(law, PoissonLog):
        return [(law.log_rate - np.log(target + 0.5), 1 / np.sqrt(target + 0.5), False)]
    if law.discrete:
        return []
    return [(law.center() - target, law.spread(), isinstance(law, Laplace))]


def _explicit(walk: Walk, part: _Part, i: int, row: Callable[..., Array]) -> list[tuple[Array, Array, bool]]:
    law = walk.law(part.law.role, part.law.args, walk.top)
    if i >= len(law) or law[i].discrete:
        return []
    return [(row(center), row(width), kink) for center, width, kink in _clues(law[i], 0.0)]


def _search(
    walk: Walk, part: _Part, var: Var, lines: list[Line], i: int, base: Array, spread: Array
) -> list[tuple[Array, Array, bool]]:
    """Roots of location - point as functions of the variable."""
    from boundcheck.errors import BadInput

    size, top = len(base), walk.top

    def clues(entry: Index, v: Array) -> list[tuple[Array, Array, bool]]:
        """All clues of the law at flat nodes."""
        with walk.bound(var, entry, v):
            for later in lines[i + 1 :]:
                lifted = walk.lift(later.center, top, walk.top)
                walk.env[var] = [*walk.env[var], (walk.top, _array(lifted, len(v)))]
            saved = dict(walk.env)
            try:
                for law, inner, at in part.bound:
                    places = [at] if at is not None else _centers(walk, law, inner)
                    walk.env[inner] = [(walk.top, _array(place, len(v))) for place in places]
                laws = walk.law(part.law.role, part.law.args, walk.top)
                target = walk.env[part.point]
                out = []
                for law_component, (level, value) in zip(laws, target, strict=False):
                    point = walk.lift(value, level, walk.top)
                    for g, width, kink in _clues(law_component, _array(point, len(v))):
                        out.append((_array(g, len(v)), _array(width, len(v)), kink))
                return out
            finally:
                walk.env = saved

    offsets = _OFFSETS
    while True:
        grid = base[:, None] + spread[:, None] * offsets
        try:
            scanned = clues(np.repeat(np.arange(size), len(offsets)), grid.ravel())
            break
        except BadInput:  # a decoder that overflows far out is scanned nearer
            if len(offsets) <= 9:
                return []
            offsets = offsets[2:-2]
    found = []
    for index, (g, _, kink) in enumerate(scanned):
        found += _roots(clues, index, g.reshape(grid.shape), grid, base, spread, kink)
    return found


def _roots(
    clues: Callable[[Index, Array], list[tuple[Array, Array, bool]]], index: int, g: Array, grid: Array,
    base: Array, spread: Array, kink: bool,
) -> list[tuple[Array, Array, bool]]:  # fmt: skip
    change = np.signbit(g[:, :-1]) != np.signbit(g[:, 1:])
    change &= np.isfinite(g[:, :-1]) & np.isfinite(g[:, 1:])
    distance = np.where(change, np.abs(grid[:, :-1] + grid[:, 1:] - 2 * base[:, None]), np.inf)
    out = []
    for _ in range(_ROOTS):
        column = distance.argmin(axis=1)
        entry = np.flatnonzero(np.isfinite(distance[np.arange(len(base)), column]))
        if not len(entry):
            break
        at = column[entry]
        distance[entry, at] = np.inf
        low, high = grid[entry, at].copy(), grid[entry, at + 1].copy()
        root, width = _false_position(
            clues, index, entry, low, high, g[entry, at].copy(), g[entry, at + 1].copy(), kink
        )
        centers, widths = base.copy(), spread.copy()
        centers[entry], widths[entry] = root, width
        out.append((centers, widths, kink))
    return out


def _false_position(
    clues: Callable[[Index, Array], list[tuple[Array, Array, bool]]], index: int, entry: Index,
    low: Array, high: Array, g_low: Array, g_high: Array, kink: bool,
) -> tuple[Array, Array]:  # fmt: skip
    """The root inside each bracket (Illinois' rule), and the width of the feature there."""
    root, width = low.copy(), np.abs(high - low)
    active = np.arange(len(entry))
    for step in range(80):
        a, b, ga, gb = low[active], high[active], g_low[active], g_high[active]
        middle = (a * gb - b * ga) / (gb - ga)
        outside = ~((middle > np.minimum(a, b)) & (middle < np.maximum(a, b)))
        middle = np.where(outside | (step % 6 == 5), a + (b - a) / 2, middle)
        near = np.where(np.abs(ga) < np.abs(gb), a, b)
        g, scale, _ = clues(entry[active], middle)[index]
        slope = np.abs((g - np.where(near == a, ga, gb)) / (middle - near))
        root[active] = middle
        width[active] = np.where((slope > 0) & np.isfinite(slope), scale / slope, width[active])
        same = np.signbit(g) == np.signbit(gb)
        low[active] = np.where(same, a, b)
        g_low[active] = np.where(same, ga / 2, gb)
        high[active], g_high[active] = middle, g
        small = np.abs(g) <= (0.0 if kink else 0.1) * scale
        exhausted = np.abs(high[active] - low[active]) <= 4 * EPSILON * np.abs(middle)
        active = active[~(small | exhausted | np.isnan(g))]
        if not len(active):
            break
    return root, width


def _centers(walk: Walk, law: Law | None, var: Var) -> list[Any]:
    if law is None:
        return [line.center for line in walk.space_lines(var)]
    return walk.centers(law, var)


def _array(value: Any, size: int) -> Array:
    plain = value if isinstance(value, np.ndarray) else float(value)
    return np.broadcast_to(np.asarray(plain, dtype=float), (size,))
