"""Where the mass of exp(form) lies: floats, for choosing nodes only, never for a result.

The variable is shifted and scaled until the form has ordinary coefficients and its peak lies near the origin. A concave
form is bisected by its slope; any other is climbed from the places that its atoms point at. On each side of the peak
the window ends where a line above the form puts the rest below what counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flint import fmpq

from boundcheck.evaluators.integration_atoms import Growth, Kink, LogSquare, Softplus
from boundcheck.evaluators.integration_forms import Form, LogSum
from boundcheck.evaluators.integration_numbers import Unbounded, as_float
from boundcheck.evaluators.integration_symbols import exact

MOST_STEPS = 1000
"""The search for the peak of an integrand gives up after as many steps."""

Interval = tuple[Any, Any]
"""The ends of a domain, None where there is none."""


@dataclass
class Window:
    """exp(exponent) in u, z = m + s u, with the place and height of its peak, and where it has become negligible."""

    exponent: Form
    floats: Form
    factors: list[Form]
    shift: Any
    scale: fmpq
    peak: float
    top: float
    lower: float
    upper: float


def _locate(form: Form) -> tuple[Any, fmpq]:
    """A centre and a power of two as scale, such that the form has ordinary coefficients around it."""
    centre: Any = fmpq(0)
    width = 1.0
    if form.p2 < 0:
        centre, width = -form.p1 / (2 * form.p2), 1 / math.sqrt(-2 * as_float(form.p2))
    else:
        for atom, k in form.atoms:
            if isinstance(atom, Softplus | Growth):
                centre, width = -atom.b / atom.a, 1 / abs(as_float(atom.a))
            elif isinstance(atom, LogSquare):
                centre, width = atom.l, math.sqrt(as_float(atom.w2))
            elif isinstance(atom, Kink):
                centre, width = atom.at, 1 / abs(as_float(k))
            elif isinstance(atom, LogSum):
                centre, scale = _locate(atom.forms[0])
                width = as_float(scale)
            else:
                continue
            break
    if not 0 < width < math.inf:
        raise Unbounded("a scale that is out of the range of floats")
    return exact(as_float(centre)), exact(2.0 ** round(math.log2(width)))


def window_of(exponent: Form, factors: Sequence[Form], domain: Interval, nats: float) -> Window:
    """Peak and extent of exp(exponent), by floats; each tail is about exp(-nats) of the peak or less.

    Raises:
        Unbounded: no peak is found, or the floats overflow.
    """
    try:
        return _search(exponent, factors, domain, nats)
    except (ArithmeticError, ValueError):
        raise Unbounded("an integrand that is out of the range of floats") from None


def _search(exponent: Form, factors: Sequence[Form], domain: Interval, nats: float) -> Window:
    shift, scale = _locate(exponent)
    for _ in range(8):
        moved = exponent.moved(shift, scale)
        ends = tuple(None if end is None else as_float((end - shift) / scale) for end in domain)
        lo, hi = (-math.inf if ends[0] is None else ends[0]), (math.inf if ends[1] is None else ends[1])
        floats = moved.floats()
        peak = _peak(floats, lo, hi)
        finite_domain = ends[0] is not None and ends[1] is not None
        if abs(peak) <= 64 or finite_domain:
            break
        shift = shift + scale * exact(peak)  # far from the first guess: look again from there
    else:
        raise Unbounded("an integrand whose peak was not found")
    top = floats.real(peak)
    if not math.isfinite(top):
        raise Unbounded("an integrand that is out of the range of floats")
    concave = _is_concave(floats)
    upper = hi if ends[1] is not None else _extent(floats, peak, top - nats, concave)
    lower = lo if ends[0] is not None else -_extent(_reflected(floats), -peak, top - nats, concave)
    return Window(moved, floats, [f.moved(shift, scale) for f in factors], shift, scale, peak, top, lower, upper)


def _reflected(form: Form) -> Form:
    atoms = tuple((atom.moved(0.0, -1.0)[0], k) for atom, k in form.atoms)
    return Form(form.c, form.p0, -form.p1, form.p2, atoms)


def _peak(form: Form, lo: float, hi: float) -> float:
    """Where a float form is about largest within [lo, hi]."""
    if _is_concave(form) and lo == -math.inf and hi == math.inf:
        return _concave_peak(form)
    candidates = [0.0, *(direction * 2.0**j for direction in (-1, 1) for j in range(-2, 9))]
    for atom, _ in form.atoms:
        if isinstance(atom, Softplus | Growth):
            candidates.append(-atom.b / atom.a)
        elif isinstance(atom, LogSquare):
            candidates.append(atom.l)
        elif isinstance(atom, Kink):
            candidates.append(atom.at)
    if lo > -math.inf and hi < math.inf:
        candidates = [lo + (hi - lo) * j / 16 for j in range(17)] + candidates
    points = [min(max(u, lo), hi) for u in candidates if math.isfinite(u)]
    best, u = max((form.real(p), p) for p in points)
    step = 1.0
    for _ in range(MOST_STEPS):
        if step <= 1 / 32:
            return u
        moved = False
        for v in (u - step, u + step):
            v = min(max(v, lo), hi)
            value = form.real(v)
            if value > best:
                best, u, moved = value, v, True
        step = step * 2 if moved else step / 2
    raise Unbounded("an integrand whose peak was not found")


def _is_concave(form: Form) -> bool:
    return form.p2 < 0 and all(isinstance(atom, Softplus | Growth) and k < 0 for atom, k in form.atoms)


def _concave_peak(form: Form) -> float:
    """Where a concave float form has slope about zero."""
    slope = form.line(0.0)[1]
    if slope == 0:
        return 0.0
    lo, hi, step = 0.0, 0.0, 1.0 if slope > 0 else -1.0
    for _ in range(1100):
        hi = lo + step
        other = form.line(hi)[1]
        if (other > 0) != (slope > 0):
            break
        lo, slope, step = hi, other, 2 * step
    for _ in range(3):
        middle = (lo + hi) / 2
        if (form.line(middle)[1] > 0) == (slope > 0):
            lo = middle
        else:
            hi = middle
    return (lo + hi) / 2


def _extent(form: Form, peak: float, target: float, concave: bool) -> float:
    """A point on the right of the peak from which the tail is below exp(target); inf where none is found."""
    if concave:  # it falls at least as fast as its quadratic part
        return peak + math.sqrt(max(form.real(peak) - target, 1.0) / -form.p2)
    distance = 2.0
    while distance < 1e6:
        try:
            height, slope = form.line(peak + distance)
        except Unbounded:
            height, slope = math.inf, 0.0
        if slope < 0 and height - math.log(-slope) <= target:
            return peak + distance
        distance *= 1.25
    return math.inf
