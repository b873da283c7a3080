"""Certified integrals of exp(form) times forms over an interval or the line.

Where the integrand is analytic on a strip around the whole line, a trapezoid rule with a proven error is by far the
fastest: for f analytic on |Im z| < a with integrals of |f(x + iy)| over x at most M for |y| < a, the infinite sum with
step h is off by at most 2 M / (e^(2 pi a / h) - 1) (Trefethen & Weideman 2014, theorem 5.1). For a product of
Gaussians, logistic and Student factors |f(x + iy)| <= C f(x), so M is C times the integral and the error relative to
it: no pilot run, no estimate. Otherwise M is bounded by enclosures on cells that cover the line. Elsewhere (kinks,
edges, mixtures inside a logarithm) Arb's adaptive integrator runs between the points where the integrand is not
analytic, with proven tails beyond the last of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import flint
from flint import acb, arb, fmpq

from boundcheck.evaluators.integration_atoms import Growth, Kink, LogSquare, Opaque, Softplus
from boundcheck.evaluators.integration_forms import Form, LogSum
from boundcheck.evaluators.integration_numbers import Unbounded, as_float, sign, whole_number
from boundcheck.evaluators.integration_tails import diverges, tail_bound
from boundcheck.evaluators.integration_walls import edges_inside_logarithms, on_piece
from boundcheck.evaluators.integration_window import Interval, Window, window_of

MOST_NODES = 4000
"""A trapezoid sum with more nodes than this is left to the adaptive integrator."""

MOST_EVALUATIONS = 20_000
"""The adaptive integrator gives up on a piece after as many evaluations."""


def integral(exponent: Form, factors: Sequence[Form], domain: Interval, bits: int) -> arb:
    """The integral of exp(exponent(z)) prod_j factor_j(z) over the domain (ends None where there is none).

    The result is a ball that contains it; about `bits` bits are aimed at, relative to the integral of |.|. An
    integral of positive terms that diverges for sure is +inf.

    Raises:
        Unbounded: no certified bound is known for such an integrand.
    """
    if edges := edges_inside_logarithms((exponent, *factors)):
        return _by_pieces(exponent, factors, domain, edges, bits)
    lower, upper = _narrowed(domain, exponent)
    if lower is not None and upper is not None and not lower < upper:
        if lower >= upper:
            return arb(0)
        raise Unbounded("an interval that may be empty at this precision")
    infinity = _infinity(factors, (lower, upper))
    exponent = replace(exponent, walls=())
    factors = [replace(factor, walls=()) for factor in factors]
    if infinity is not None:
        rest = integral(exponent, factors, (lower, upper), bits)
        if not rest.is_finite():
            raise Unbounded("Uniform, whose log-density is -inf on a part of what is integrated over")
        return infinity
    if not factors and not _falls_like_a_gaussian(exponent) and _provably_infinite(exponent, lower, upper):
        return arb.pos_inf()
    smooth = lower is None and upper is None and not any(
        isinstance(atom, Kink | LogSum | Opaque) for form in (exponent, *factors) for atom, _ in form.atoms
    )  # fmt: skip
    if smooth:
        try:
            return _trapezoid(exponent, factors, bits)
        except Unbounded:
            pass
    return _adaptive(exponent, factors, (lower, upper), bits)


def _by_pieces(exponent: Form, factors: Sequence[Form], domain: Interval, edges: Sequence[Any], bits: int) -> arb:
    """The integral between neighbouring edges of the components of mixtures, added up."""
    total = arb(0)
    for piece in pairwise((None, *edges, None)):
        inside = on_piece(exponent, piece)
        if inside is None:
            continue  # the density is zero there
        lower, upper = (
            end if other is None else other if end is None else _extreme(end, other, direction)
            for end, other, direction in zip(piece, domain, (1, -1), strict=True)
        )
        low, high = _narrowed((lower, upper), inside)
        if low is not None and high is not None and low >= high:
            continue
        parts = [on_piece(factor, piece) for factor in factors]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            raise Unbounded("Uniform, whose log-density is -inf on a part of what is integrated over")
        total += integral(inside, known, (lower, upper), bits)
    if total.is_nan():
        raise Unbounded("pieces whose integrals are infinite of both signs")
    return total


def _falls_like_a_gaussian(exponent: Form) -> bool:
    """A cheap sufficient condition for a finite integral."""
    return bool(exponent.p2 < 0) and all(isinstance(atom, Softplus) and k < 0 for atom, k in exponent.atoms)


def _provably_infinite(exponent: Form, lower: Any, upper: Any) -> bool:
    return (upper is None and diverges(exponent)) or (lower is None and diverges(_reflected(exponent)))


def _reflected(form: Form) -> Form:
    return form.moved(fmpq(0), fmpq(-1))


def _narrowed(domain: Interval, exponent: Form) -> Interval:
    lower, upper = domain
    for lo, hi, k in exponent.walls:
        if sign(k) > 0:
            lower = lo if lower is None else _extreme(lower, lo, 1)
            upper = hi if upper is None else _extreme(upper, hi, -1)
    for wall in exponent.walls:
        if sign(wall[2]) < 0 and not _inside(wall, (lower, upper)):
            raise Unbounded("Uniform, by whose density of 0 is divided")
    return lower, upper


def _extreme(a: Any, b: Any, direction: int) -> Any:
    """The larger (direction 1) or smaller of two numbers."""
    if a == b:
        return a
    order = sign(a - b)
    return a if order == direction else b


def _inside(wall: tuple[Any, Any, Any], domain: Interval) -> bool:
    lo, hi, _ = wall
    return bool(domain[0] is not None and domain[1] is not None and domain[0] >= lo and domain[1] <= hi)


def _infinity(factors: Sequence[Form], domain: Interval) -> arb | None:
    """What a factor that is infinite on a part of the domain makes of the integral: -inf, +inf, or None if none is.

    The density of a Uniform is 0 outside its walls, so its log-density is -inf there, on a set of positive weight.
    """
    found = [(factor, wall) for factor in factors for wall in factor.walls if not _inside(wall, domain)]
    if not found:
        return None
    lower, upper = domain
    certain = all(
        lower is None or upper is None or lower < lo or upper > hi for _, (lo, hi, _) in found
    )  # fmt: skip
    signs = {sign(k) for _, (_, _, k) in found}
    if len(factors) > 1 or not certain or len(signs) > 1:
        raise Unbounded("Uniform, whose log-density is -inf on a part of what is integrated over")
    return arb.neg_inf() if signs == {1} else arb.pos_inf()


# --- the trapezoid rule --------------------------------------------------------------------------------------------


def _trapezoid(exponent: Form, factors: Sequence[Form], bits: int) -> arb:
    nats = bits * math.log(2) + 4
    window = window_of(exponent, factors, (None, None), nats)
    if not (math.isfinite(window.lower) and math.isfinite(window.upper)):
        raise Unbounded("a tail without exponential decay")
    floats = window.floats
    reach = min([floats.reach(True), *(f.reach(False) for f in window.factors)])
    width, step = _strip_and_step(floats, window, reach, nats + 4 * len(factors))
    count = (window.upper - window.lower) / step
    if count > MOST_NODES:
        raise Unbounded("a scale that needs too many nodes")
    left, right = math.ceil((window.peak - window.lower) / step), math.ceil((window.upper - window.peak) / step)
    form, parts = window.exponent.balls(), [f.balls() for f in window.factors]
    form = replace(form, c=form.c - arb(window.top))
    h, a, start = arb(step), arb(width), arb(window.peak)
    if parts:
        total = sum((_product_at(form, parts, start + h * k) for k in range(-left, right + 1)), arb(0)) * h
    else:
        total = _exponential_sum(form, start, h, left, right) * h
    mirror, mirrored = _reflected(form), [_reflected(f) for f in parts]
    tails = tail_bound(form, parts, start + h * right) + tail_bound(mirror, mirrored, h * left - start)
    gain, majorant = form.strip(a)
    decay = 2 / ((2 * arb.pi() * a / h).exp() - 1)
    if parts or any(isinstance(atom, Growth) and sign(k) < 0 for atom, k in form.atoms):
        with flint.ctx.workprec(40):
            weight = _cells(majorant, parts, start, h, left, right, a)
            weight += tail_bound(majorant, parts, start + h * right, a)
            weight += tail_bound(_reflected(majorant), mirrored, h * left - start, a)
            error = (gain.exp() * weight * decay).upper()
        total = total + arb(0, (tails + error).upper())
    else:
        relative = (gain.exp() * decay).upper()
        if not relative < 0.5:
            raise Unbounded("a strip that is too narrow")
        total = total + tails * arb(0.5, 0.5)  # what was left out is positive
        total = total * (1 + arb(0, (relative / (1 - relative)).upper()))
    if not total.is_finite():
        raise Unbounded("a trapezoid sum that is not finite")
    return total * arb(window.top).exp() * window.scale


def _strip_and_step(form: Form, window: Window, reach: float, nats: float) -> tuple[float, float]:
    """The half-width of the strip that allows the largest step, and that step; floats with few digits."""
    limit = 0.97 * reach
    if form.p2 < 0:
        limit = min(limit, 1.5 * math.sqrt(nats / -form.p2))
    if not 0 < limit < math.inf:
        raise Unbounded("an integrand whose strip is not bounded")
    best, width = 0.0, 0.0
    for fraction in (0.2, 0.4, 0.55, 0.7, 0.85, 1.0):
        a = limit * fraction
        step = 2 * math.pi * a / (nats + 1 + _gain(form, a, window.peak))
        if step > best:
            best, width = step, a
    fraction, exponent = math.frexp(best)
    return width, math.ldexp(math.floor(fraction * 1024), exponent - 10)


def _gain(form: Form, a: float, peak: float) -> float:
    """About log max |f(x + iy)| / f(x), by floats."""
    gain = max(0.0, -form.p2 * a * a)
    for atom, k in form.atoms:
        if isinstance(atom, Softplus) and k < 0:
            gain += k * math.log(math.cos(abs(atom.a) * a / 2))
        elif isinstance(atom, LogSquare):
            q2 = a * a / atom.w2
            gain += k * (math.log1p(q2) if k > 0 else math.log1p(-q2))
        elif isinstance(atom, Growth) and k < 0:
            gain -= k * (1 - math.cos(abs(atom.a) * a)) * atom.real(peak) * 2
    return gain


def _product_at(form: Form, parts: Sequence[Form], u: arb) -> arb:
    value = form.real(u).exp()
    for part in parts:
        value = value * part.real(u)
    return value


def _exponential_sum(form: Form, start: arb, h: arb, left: int, right: int) -> arb:
    """sum over k = -left..right of exp(form(start + k h)); exponentials by recurrence, their errors in the balls."""
    total = arb(0)
    for count, step, first in ((right, h, 0), (left, -h, 1)):
        value = (form.c + (form.p1 + form.p2 * start) * start).exp()
        ratio = ((form.p1 + form.p2 * (2 * start + step)) * step).exp()
        change = (2 * form.p2 * step * step).exp()
        softs = []
        others = []
        for atom, k in form.atoms:
            if isinstance(atom, Softplus) and (whole := whole_number(k)) is not None:
                softs.append([(atom.b + atom.a * start).exp(), (atom.a * step).exp(), whole])
            else:
                others.append((atom, k))
        for n in range(count + 1):
            if n >= first:
                over, under = value, None
                for e, _, k in softs:
                    power = 1 + e if k in (1, -1) else (1 + e) ** abs(k)
                    if k > 0:
                        over = over * power
                    else:
                        under = power if under is None else under * power
                if others:
                    u = start + step * n
                    over = over * sum((k * atom.real(u) for atom, k in others), arb(0)).exp()
                total += over if under is None else over / under
            value *= ratio
            ratio *= change
            for entry in softs:
                entry[0] *= entry[1]
    return total


def _cells(form: Form, parts: Sequence[Form], start: arb, h: arb, left: int, right: int, a: arb) -> arb:
    """An upper bound of the integral of exp(form(x)) prod |part(x + iy)| from the first node to the last."""
    total = arb(0)
    half = h / 2
    spread = arb(0, half.upper())
    for k in range(-left, right):
        x = start + h * k + half + spread
        value = form.real(x).exp()
        for part in parts:
            value = value * part.size(x, a)
        total += value.abs_upper()
    return total * h


# --- the adaptive integrator ---------------------------------------------------------------------------------------


def _adaptive(exponent: Form, factors: Sequence[Form], domain: Interval, bits: int) -> arb:
    window = window_of(exponent, factors, domain, bits * math.log(2) + 4)
    m, s = window.shift, window.scale
    # Towards each side in the form in which what cancels there cancels exactly.
    form, parts = _facing(window.exponent, 1, window.top), [_facing(f, 1) for f in window.factors]
    form_left, parts_left = _facing(window.exponent, -1, window.top), [_facing(f, -1) for f in window.factors]
    ends = [None if end is None else (end - m) / s for end in domain]
    kinks = _ordered([k for f in (window.exponent, *window.factors) for k in f.kinks()])
    tolerance = arb(2) ** -bits
    total = arb(0)
    lower, upper = ends
    if upper is None:
        upper, tail = _cut(form, parts, max([window.peak, *(as_float(k) for k in kinks)]), tolerance)
        total += arb(0, tail.upper())
    if lower is None:
        mirror, mirrored = _reflected(form_left), [_reflected(f) for f in parts_left]
        negative, tail = _cut(mirror, mirrored, max([-window.peak, *(-as_float(k) for k in kinks)]), tolerance)
        total += arb(0, tail.upper())
        lower = -negative
    inner = [k for k in kinks if sign(k - lower) > 0 and sign(upper - k) > 0]
    points = _with_splits([arb(p) for p in (lower, *inner, upper)], window.peak)
    for a, b in pairwise(points):
        if a + b > 2 * arb(window.peak):
            total += _piece(form, parts, a, b, bits, tolerance)
        else:
            total += _piece(form_left, parts_left, a, b, bits, tolerance)
    if not total.is_finite():
        raise Unbounded("an integrand that the adaptive integrator cannot enclose")
    return total * arb(window.top).exp() * s


def _facing(form: Form, direction: int, top: float = 0.0) -> Form:
    form = form.facing(direction).balls()
    return replace(form, c=form.c - arb(top))


def _ordered(points: list[Any]) -> list[Any]:
    """Points in increasing order, each once; they must be distinguishable."""
    result: list[Any] = []
    for point in points:
        i = 0
        while i < len(result) and sign(point - result[i]) > 0:
            i += 1
        if i == len(result) or sign(point - result[i]) != 0:
            result.insert(i, point)
    return result


def _cut(form: Form, parts: Sequence[Form], start: float, tolerance: arb) -> tuple[arb, arb]:
    """A point on the right of `start` and a bound of the integral beyond it, below the tolerance."""
    reason = Unbounded("a tail without decay")
    distance = arb(1)
    found: tuple[arb, arb] | None = None
    for j in range(4200):
        cut = arb(start) + distance
        try:
            with flint.ctx.workprec(60):
                tail = tail_bound(form, parts, cut)
        except Unbounded as why:
            reason = why
            if j > 200:
                break
        else:
            found = (cut, tail)
            if tail < tolerance:
                return found
        distance = distance * (1.5 if j < 16 else 4)
    raise reason if found is None else Unbounded("a tail that decays too slowly")


def _with_splits(points: list[arb], peak: float) -> list[arb]:
    """Long pieces cut at distances that grow geometrically from the peak, which the integrator then resolves."""
    lower, upper = points[0], points[-1]
    extra, distance = [arb(peak)], arb(4)
    while arb(peak) + distance < upper or arb(peak) - distance > lower:
        extra += [arb(peak) + distance, arb(peak) - distance]
        distance = distance * 8
    result = list(points)
    for point in extra:
        apart = all(abs(point - p) > fmpq(1, 4) for p in points)
        if apart and point > lower and point < upper:
            result.append(point)
    return sorted(result, key=lambda p: p.mid())


def _piece(form: Form, parts: Sequence[Form], a: arb, b: arb, bits: int, tolerance: arb) -> arb:
    middle = (a + b) / 2
    form, parts = form.on_side(middle), [f.on_side(middle) for f in parts]

    def integrand(z: acb, analytic: bool) -> acb:
        value = form.exp_complex(z, analytic)
        for part in parts:
            value = value * part.complex(z, analytic)
        return value

    result = acb.integral(
        integrand, acb(a), acb(b), rel_tol=arb(2) ** -bits, abs_tol=tolerance, eval_limit=MOST_EVALUATIONS
    )
    return result.real
