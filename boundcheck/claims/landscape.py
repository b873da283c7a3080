"""A log form on a box of parameters: enclosures of its values, of its slopes and of its curvatures.

Formulas that are exact as polynomials lose nothing before numbers come in. On a box each irreducible factor is
enclosed once, exactly (at the corners) where it is affine in every parameter, and all coefficients and logarithms are
put together from these. The numbers are Arb balls, so every bound is certain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import Any, NamedTuple, Protocol, TypeAlias

from flint import arb, fmpq

from boundcheck.claims.logforms import LogForm, LogForms, Polynomial, Ratio
from boundcheck.errors import CannotCompute

Interval: TypeAlias = tuple[Fraction, Fraction]
Box: TypeAlias = tuple[Interval, ...]
Point: TypeAlias = tuple[Fraction, ...]

_WHOLE_LINE = arb(0, arb.pos_inf())


class Landscape(Protocol):
    """A function of parameters, as a search over boxes needs it."""

    @property
    def dimension(self) -> int:
        """The number of parameters."""
        ...

    def value(self, box: Box) -> arb:
        """A ball around all values on a box."""
        ...

    def slope(self, box: Box, i: int) -> arb:
        """A ball around all derivatives in the i-th parameter on a box."""
        ...

    def curvature(self, box: Box, i: int, j: int) -> arb:
        """A ball around all second derivatives in the parameters i and j on a box."""
        ...

    def is_concave(self, box: Box, i: int) -> bool:
        """True if the function is certainly concave (or affine) in the i-th parameter on the box."""
        ...


def ball(value: Fraction | int) -> arb:
    """A rational as a ball."""
    return arb(fmpq(value.numerator, value.denominator))


def span(interval: Interval) -> arb:
    """A ball around an interval."""
    low, high = interval
    return ball(low) if low == high else ball(low).union(ball(high))


class _Product(NamedTuple):
    """A rational function: a constant, as a ball, times powers of factors; `sign` is the constant's."""

    constant: arb
    sign: int
    powers: tuple[tuple[int, int], ...]


class _Sum(NamedTuple):
    """A log form: its rational part, and the coefficient of the logarithm of each factor."""

    rest: _Product
    logs: tuple[tuple[int, _Product], ...]


class _Factor:
    """An irreducible polynomial, ready to be enclosed."""

    def __init__(self, polynomial: Polynomial) -> None:
        terms = {tuple(map(int, e)): int(c) for e, c in polynomial.to_dict().items()}
        curved = {i for exponents in terms for i, e in enumerate(exponents) if e > 1}
        self.affine = sorted({i for exponents in terms for i, e in enumerate(exponents) if e} - curved)
        self.terms = [
            (coefficient, [(i, e) for i, e in enumerate(exponents) if e]) for exponents, coefficient in terms.items()
        ]

    def at(self, point: Sequence[Any]) -> arb:
        """The value at balls."""
        total = arb(0)
        for coefficient, powers in self.terms:
            term = arb(coefficient)
            for i, exponent in powers:
                term *= _power(point[i], exponent)
            total += term
        return total

    def over(self, ends: Sequence[tuple[arb, ...]], spans: Sequence[arb]) -> arb:
        """All values on a box, given the ends and the spans of its sides."""
        wide = [i for i in self.affine if len(ends[i]) > 1]
        if not wide or len(wide) > 6:
            return self.at(spans)
        # Affine in these parameters: the extremes are at corners.
        point = list(spans)
        corners = []
        for corner in product(*[ends[i] for i in wide]):
            for i, value in zip(wide, corner, strict=True):
                point[i] = value
            corners.append(self.at(point))
        low = high = corners[0]
        for each in corners[1:]:
            low, high = low.min(each), high.max(each)
        return low.union(high)


def _power(base: arb, exponent: int) -> arb:
    """A power, as the hull of its values at the ends: as a product of balls it would be wider."""
    if exponent == 1:
        return base
    if exponent % 2 == 0:
        return (base.abs_lower() ** exponent).union(base.abs_upper() ** exponent)
    return (base.lower() ** exponent).union(base.upper() ** exponent)


class _Ranges:
    """The enclosures of the factors on one box, made when they are asked for."""

    def __init__(self, factors: list[_Factor], box: Box) -> None:
        self.factors = factors
        self.ends = [(ball(low),) if low == high else (ball(low), ball(high)) for low, high in box]
        self.spans = [end[0] if len(end) == 1 else end[0].union(end[1]) for end in self.ends]
        self._values: dict[int, arb] = {}
        self._logs: dict[int, arb] = {}

    def value(self, i: int) -> arb:
        if i not in self._values:
            self._values[i] = self.factors[i].over(self.ends, self.spans)
        return self._values[i]

    def log(self, i: int) -> arb:
        if i not in self._logs:
            value = self.value(i)
            self._logs[i] = value.log() if value > 0 else _WHOLE_LINE
        return self._logs[i]

    def product(self, ratio: _Product) -> arb:
        result = ratio.constant
        for i, exponent in ratio.powers:
            value = self.value(i)
            if exponent > 0:
                result = result * _power(value, exponent)
            elif value > 0 or value < 0:
                result = result / _power(value, -exponent)
            else:
                return _WHOLE_LINE
        return result

    def sum(self, form: _Sum) -> arb:
        total = self.product(form.rest)
        for i, coefficient in form.logs:
            total += self.product(coefficient) * self.log(i)
        return total

    def not_positive(self, form: _Sum) -> bool:
        """True if a log form is certainly <= 0 on the box."""
        if form.logs:
            return bool(self.sum(form) <= 0)
        sign = form.rest.sign
        for i, exponent in form.rest.powers:
            value = self.value(i)
            if exponent % 2 == 0 and (exponent > 0 or not value.contains(0)):
                continue
            if value < 0:
                sign = -sign
            elif not value > 0:
                return False
        return sign <= 0


class LogFormLandscape:
    """A log form as a landscape.

    >>> from boundcheck.claims.logforms import LogForms
    >>> forms = LogForms(["q"], [Fraction(1, 2)])
    >>> q = forms.parameter("q")
    >>> entropy = LogFormLandscape(forms, forms.times(forms.minus(q), forms.log(q)))
    >>> box = ((Fraction(1, 4), Fraction(1, 2)),)
    >>> entropy.value(box).contains(0.35), entropy.is_concave(box, 0)
    (True, True)
    """

    def __init__(self, forms: LogForms, form: LogForm) -> None:
        self.forms = forms
        self.dimension = len(forms.names)
        self.factors: list[_Factor] = []
        self._numbers: dict[str, int] = {}
        self._value = self._compiled(form)
        slopes = [forms.derivative(form, i) for i in range(self.dimension)]
        self._slopes = [self._compiled(slope) for slope in slopes]
        self._curvatures = {
            (i, j): self._compiled(forms.derivative(slopes[i], j)) for i in range(self.dimension) for j in range(i + 1)
        }
        self._recent: list[tuple[Box, _Ranges]] = []

    def _compiled(self, form: LogForm) -> _Sum:
        for name in form.logs.keys() & self.forms.choices.keys():
            raise CannotCompute("a landscape", name, "a maximum is no log form")
        logs = [(self._factor(self.forms.atoms[name]), self._product(r)) for name, r in sorted(form.logs.items())]
        return _Sum(self._product(form.rest), tuple(logs))

    def _product(self, ratio: Ratio) -> _Product:
        if ratio.num.is_zero():
            return _Product(arb(0), 0, ())
        constant, powers = Fraction(1), dict[int, int]()
        for polynomial, sign in ((ratio.num, 1), (ratio.den, -1)):
            content, factors = polynomial.factor()
            constant *= Fraction(int(content)) ** sign
            for factor, times in factors:
                number = self._factor(factor)
                powers[number] = powers.get(number, 0) + sign * int(times)
        return _Product(ball(constant), (constant > 0) - (constant < 0), tuple(sorted(powers.items())))

    def _factor(self, polynomial: Polynomial) -> int:
        key = str(polynomial)
        if key not in self._numbers:
            self._numbers[key] = len(self.factors)
            self.factors.append(_Factor(polynomial))
        return self._numbers[key]

    def _ranges(self, box: Box) -> _Ranges:
        for known, ranges in self._recent:
            if known is box:
                return ranges
        ranges = _Ranges(self.factors, box)
        self._recent = [(box, ranges), *self._recent[:3]]
        return ranges

    def value(self, box: Box) -> arb:
        return self._ranges(box).sum(self._value)

    def slope(self, box: Box, i: int) -> arb:
        return self._ranges(box).sum(self._slopes[i])

    def curvature(self, box: Box, i: int, j: int) -> arb:
        return self._ranges(box).sum(self._curvatures[max(i, j), min(i, j)])

    def is_concave(self, box: Box, i: int) -> bool:
        return self._ranges(box).not_positive(self._curvatures[i, i])


def middle_of(box: Box) -> Box:
    """The middle of a box, as a box without width."""
    return tuple((middle, middle) for middle in ((low + high) / 2 for low, high in box))


def mean_value_bound(landscape: Landscape, box: Box, middle: Box, slopes: Sequence[arb]) -> float:
    """min over the box of f(mid) + slopes . (x - mid), the slopes being those of the whole box."""
    total = landscape.value(middle)
    for side, slope in zip(box, slopes, strict=True):
        if side[0] < side[1]:
            total -= abs(slope).upper() * ball((side[1] - side[0]) / 2)
    return lower_bound(total)


def second_order_bound(landscape: Landscape, box: Box, middle: Box) -> float:
    """A bound from f(mid) + g . d + d' H d / 2 for all H among the curvatures on the box, with d = x - mid.

    H is split into its middle and a remainder, whose share is at most half the sum of remainder_ij w_i w_j for half
    widths w. The middle becomes positive definite by adding a multiple of the identity, which a Cholesky
    factorisation in balls certifies. The convex function that is left is above each of its tangents, here the one near
    its minimum on the box. Where f touches zero with slope zero this is exact to third order in the widths.
    """
    import numpy as np

    sides = [i for i, (low, high) in enumerate(box) if low < high]
    n = len(sides)
    if not n:
        return lower_bound(landscape.value(box))
    widths = [ball((box[i][1] - box[i][0]) / 2) for i in sides]
    curvatures = [[landscape.curvature(box, i, j) for j in sides[: r + 1]] for r, i in enumerate(sides)]
    if not all(each.is_finite() for row in curvatures for each in row):
        return -math.inf
    total = landscape.value(middle)
    center = np.zeros((n, n))
    for r in range(n):
        for c in range(r + 1):
            center[r, c] = center[c, r] = float(curvatures[r][c].mid())
            remainder = abs(curvatures[r][c] - arb(center[r, c])).upper()
            total -= remainder * widths[r] * widths[c] * (arb("0.5") if r == c else 1)
    least = float(np.linalg.eigvalsh(center)[0])
    shift = max(0.0, -least) * 1.01 + 1e-9 * float(np.abs(center).max()) + 1e-300
    for r in range(n):
        center[r, r] += shift
        total -= arb(shift) * widths[r] ** 2 / 2
    exact = [[arb(float(center[r, c])) for c in range(n)] for r in range(n)]
    if not _is_positive_definite(exact):
        return -math.inf
    slopes = [landscape.slope(middle, i) for i in sides]
    start = _minimum_on_box(center, [float(s.mid()) for s in slopes], [float(w.mid()) for w in widths])
    at = [arb(each) for each in start]
    for r in range(n):
        row = sum((exact[r][c] * at[c] for c in range(n)), arb(0))
        total += slopes[r] * at[r] + row * at[r] / 2
        gradient = slopes[r] + row
        total -= abs(gradient) * widths[r] + gradient * at[r]
    return lower_bound(total)


def _is_positive_definite(matrix: list[list[arb]]) -> bool:
    """True if a symmetric matrix of balls is certainly positive definite."""
    n = len(matrix)
    lower = [[arb(0)] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            rest = matrix[i][j] - sum((lower[i][k] * lower[j][k] for k in range(j)), arb(0))
            if i == j:
                if not rest > 0:
                    return False
                lower[i][i] = rest.sqrt()
            else:
                lower[i][j] = rest / lower[j][j]
    return True


def _minimum_on_box(matrix: Any, slopes: list[float], widths: list[float]) -> list[float]:
    """Near the minimum of slopes . d + d' matrix d / 2 with |d_i| <= widths_i, by coordinate descent."""
    n, d = len(slopes), [0.0] * len(slopes)
    rows = matrix.tolist()
    for _ in range(12):
        for i in range(n):
            rest = slopes[i] + sum(rows[i][j] * d[j] for j in range(n) if j != i)
            d[i] = min(widths[i], max(-widths[i], -rest / rows[i][i]))
    return d


def lower_bound(value: arb) -> float:
    """A float that is not above the ball."""
    if value.is_nan():
        return -math.inf
    bound = float(value.lower())
    return bound if math.isinf(bound) else math.nextafter(bound, -math.inf)


def upper_bound(value: arb) -> float:
    """A float that is not below the ball."""
    if value.is_nan():
        return math.inf
    bound = float(value.upper())
    return bound if math.isinf(bound) else math.nextafter(bound, math.inf)


__all__ = [
    "Box",
    "Interval",
    "Landscape",
    "LogFormLandscape",
    "Point",
    "ball",
    "lower_bound",
    "mean_value_bound",
    "middle_of",
    "second_order_bound",
    "span",
    "upper_bound",
]
