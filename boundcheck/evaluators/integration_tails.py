"""What lies beyond the last node: rigorous bounds of tails, and proofs of divergence.

All bounds are for the right tail; the left one is the right one of the reflected form. A tail is bounded by the
exponential e^(A - B t) that a line above the log-density gives, t the distance from the cut, or, where Student's t
leaves no slope, by the power law (1 + t / D)^-q. Further factors of the integrand (log-densities, in an ELBO) are
bounded by polynomials in t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flint import arb, fmpq

from boundcheck.evaluators.integration_atoms import Growth, Kink, LogSquare, Softplus
from boundcheck.evaluators.integration_forms import Form, LogSum
from boundcheck.evaluators.integration_numbers import Unbounded, sign
from boundcheck.evaluators.integration_symbols import is_zero


def tail_bound(exponent: Form, factors: Sequence[Form], cut: arb, strip: arb | None = None) -> arb:
    """An upper bound of the integral of exp(exponent(x)) prod_j |factor_j(x + iy)| over x >= cut, any |y| <= strip.

    The same number bounds the sum h sum_{n >= 1} exp(...)(cut + n h) for every step h > 0, so it also says what a
    trapezoid sum leaves out. Coefficients of the forms are balls.

    Raises:
        Unbounded: no bound is known, or the integral diverges.
    """
    a = arb(0) if strip is None else strip
    best: arb | None = None
    reason = Unbounded("a tail without decay")
    for candidate in _without_divisions(exponent):
        for bound in (_exponential_tail, _power_tail):
            try:
                value = bound(candidate, factors, cut, a)
            except Unbounded as why:
                reason = why
                continue
            if value.is_finite() and (best is None or value < best):
                best = value
    if best is None:
        raise reason
    return best.upper()


def _without_divisions(form: Form) -> list[Form]:
    """Forms of which each is above `form`: -k log sum_m exp(f_m) <= -k f_m for every m (k > 0)."""
    for i, (atom, k) in enumerate(form.atoms):
        if isinstance(atom, LogSum) and sign(k) < 0:
            rest = replace(form, atoms=form.atoms[:i] + form.atoms[i + 1 :])
            return [done for part in atom.forms for done in _without_divisions(rest + part.scaled(k))]
    return [form]


def _exponential_tail(exponent: Form, factors: Sequence[Form], cut: arb, a: arb) -> arb:
    height, slope = exponent.line(cut)
    rate = -slope
    polynomial = [arb(1)]
    for factor in factors:
        terms, growth = factor.growth(cut, a)
        rate = rate - growth
        polynomial = _product(polynomial, terms)
    if not rate > 0:
        raise Unbounded("a tail without exponential decay")
    if not factors:
        return height.exp() / rate
    # t^j <= j! (2 / rate)^j e^(rate t / 2), and what is left decreases, so that sums stay below integrals.
    total, weight = arb(0), arb(1)
    for j, coefficient in enumerate(polynomial):
        weight = weight * (j * 2 / rate) if j else weight
        total = total + coefficient * weight
    return height.exp() * total * 2 / rate


def _product(a: list[arb], b: list[arb]) -> list[arb]:
    out = [arb(0)] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            out[i + j] = out[i + j] + x * y
    return out


def _power_tail(exponent: Form, factors: Sequence[Form], cut: arb, a: arb) -> arb:
    """With s = 1 + t / D and D the largest distance of the cut from a centre: Student's t is a power of s."""
    squares = [(atom, k) for atom, k in exponent.atoms if isinstance(atom, LogSquare)]
    if not squares or not is_zero(a):
        raise Unbounded("a tail without decay")
    # A term -k softplus is at most 0; where forms face right it also tends to 0, so nothing is lost by dropping it.
    rest = replace(
        exponent,
        atoms=tuple(
            (atom, k)
            for atom, k in exponent.atoms
            if not isinstance(atom, LogSquare) and not (isinstance(atom, Softplus | Growth) and k < 0)
        ),
    )
    height, slope = rest.line(cut)
    if not slope <= 0:
        raise Unbounded("a tail that grows")
    distances = []
    for atom, _ in squares:
        d = cut - atom.l
        if not d > 0:
            raise Unbounded("Student's t before its centre")
        distances.append(d)
    far = max(d.upper() for d in distances)
    power = arb(0)
    for (atom, k), d in zip(squares, distances, strict=True):
        p2 = d * d / atom.w2
        # With s_d = 1 + t / d: P^2 s_d^2 <= 1 + P^2 s_d^2 <= (1 + P^2) s_d^2, and s <= s_d <= (far / d) s.
        height = height + k * (p2.log() if sign(k) < 0 else p2.log1p() + 2 * (far / d).log())
        power = power - 2 * k
    spare = power - 1
    if not spare > 0:
        raise Unbounded("a power law that decays too slowly")
    # |factor| <= sum of coefficient s^exponent; a logarithm is log s <= s^e / e.
    small = spare / (2 * len(factors)) if factors else arb(0)
    terms = [(arb(1), arb(0))]
    for factor in factors:
        bound = _in_powers(factor, cut, far, small)
        terms = [(c * d, p + q) for c, p in terms for d, q in bound]
    total = arb(0)
    for coefficient, exponent_ in terms:
        left = spare - exponent_
        if not left > 0:
            raise Unbounded("a power law that decays too slowly for what it weighs")
        total = total + coefficient * far / left
    return height.exp() * total


def _in_powers(form: Form, cut: arb, far: arb, small: arb) -> list[tuple[arb, arb]]:
    d0 = abs(form.c + (form.p1 + form.p2 * cut) * cut)
    d1, d2 = abs(form.p1 + 2 * form.p2 * cut) * far, abs(form.p2) * far * far
    zero, two = arb(0), arb(2)
    out = [(d0, zero), (d1, arb(1)), (d2, two)]
    for atom, k in form.atoms:
        k = abs(k)
        if isinstance(atom, Softplus):
            out.append((k * atom.real(cut), zero))
            if sign(atom.a) > 0:
                out.append((k * atom.a * far, arb(1)))
        elif isinstance(atom, Growth) and sign(atom.a) < 0:
            out.append((k * atom.real(cut), zero))
        elif isinstance(atom, Kink):
            out += [(k * abs(cut - atom.at), zero), (k * far, arb(1))]
        elif isinstance(atom, LogSquare):
            d = cut - atom.l
            if not d > 0:
                raise Unbounded("Student's t before its centre")
            out += [(k * (atom.real(cut) + 2 * (far / d).max(arb(1)).log()), zero), (2 * k / small, small)]
        elif isinstance(atom, LogSum):
            out.append((k * arb(len(atom.forms)).log(), zero))
            for part in atom.forms:
                out += [(k * c, p) for c, p in _in_powers(part, cut, far, small)]
        else:
            raise Unbounded(atom.what)
    return [(c, p) for c, p in out if not is_zero(c)]


# --- divergence ----------------------------------------------------------------------------------------------------


def diverges(exponent: Form) -> bool:
    """True if the integral of exp(exponent) towards +infinity is infinite for sure.

    The asymptotic form of the exponent is compared term by term, from the fastest: exponentials of z, z^2, z, log z.
    False means "not shown", as for coefficients whose sign a ball leaves open.
    """
    try:
        growths, p2, p1, logs = _asymptotic(exponent)
        for _, k in growths:
            if sign(k):
                return sign(k) > 0
        for coefficient in (p2, p1):
            if sign(coefficient):
                return sign(coefficient) > 0
        return bool(logs >= -1)  # type: ignore[operator]  # the integral of z^p diverges for p >= -1
    except Unbounded:
        return False


def _asymptotic(form: Form) -> tuple[list[tuple[object, object]], object, object, object]:
    """(growing exponentials, fastest first; coefficient of z^2; of z; of log z) towards +infinity, up to O(1)."""
    growths: list[tuple[object, object]] = []
    p2, p1, logs = form.p2, form.p1, fmpq(0)
    for atom, k in form.atoms:
        if isinstance(atom, Softplus):
            if sign(atom.a) > 0:
                p1 = p1 + k * atom.a
        elif isinstance(atom, Growth):
            if sign(atom.a) > 0:
                growths = _insert(growths, atom.a, k * arb(atom.b).exp())
        elif isinstance(atom, LogSquare):
            logs = logs + 2 * k
        elif isinstance(atom, Kink):
            p1 = p1 + k
        elif isinstance(atom, LogSum):
            inner, q2, q1, q0 = _dominant([_asymptotic(part) for part in atom.forms])
            if inner:
                raise Unbounded("a mixture of exponentials of exponentials")
            p2, p1, logs = p2 + k * q2, p1 + k * q1, logs + k * q0
        else:
            raise Unbounded(atom.what)
    return growths, p2, p1, logs


def _insert(growths: list[tuple[object, object]], a: object, k: object) -> list[tuple[object, object]]:
    merged = dict(growths)
    for other in merged:
        if other != a and sign(other - a) == 0:  # type: ignore[operator]
            raise Unbounded("two exponentials of nearly equal growth")
    merged[a] = merged[a] + k if a in merged else k  # type: ignore[operator]
    return sorted(merged.items(), key=lambda item: -float(arb(item[0]).mid()))  # type: ignore[arg-type]


def _dominant(shapes: list) -> tuple:
    best = shapes[0]
    for shape in shapes[1:]:
        if best[0] or shape[0]:
            raise Unbounded("a mixture of exponentials of exponentials")
        for mine, other in zip(best[1:], shape[1:], strict=True):
            order = sign(other - mine)
            if order:
                best = shape if order > 0 else best
                break
    return best
