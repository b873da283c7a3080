"""Float64 arrays that know how much rounding went into them, and quadratics made of them.

Beside each value stands its mass: the size of the numbers that entered it, added up as independent errors add up, by
squares. A cancellation leaves a small value with a large mass, and `UNIT` times the mass estimates the rounding error.
Squares are completed by a QR decomposition of the
stacked residuals, never by way of the normal equations, so that a condition number is not squared; where blocks enter
with different signs, the curvature is seen relative to their total size, which makes "is this integral finite?" a
question about numbers in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.evaluators.quadratic import Affine, Array, Block, Numbers, OutOfRange, WithinRounding
from boundcheck.models.linear_gaussian import LinearLaw

Floats = NDArray[np.float64]

UNIT = 2.0**-47
"""The rounding error of a value of mass one: 32 roundings."""


def _kept(value: Floats, *operands: Floats) -> Floats:
    """The value, unless finite numbers made an infinite one."""
    if not np.isfinite(value).all() and all(np.isfinite(o).all() for o in operands):
        raise OutOfRange
    return value


def _normal(value: Floats, nonzero: NDArray[np.bool_]) -> Floats:
    """The value, unless it is zero in float64 only: its logarithm would be wrong."""
    if (nonzero & (np.abs(value) < np.finfo(float).tiny)).any():
        raise OutOfRange
    return value


@dataclass(frozen=True, eq=False)
class Tracked:
    """An array and its mass."""

    value: Floats
    mass: Floats

    @property
    def T(self) -> Tracked:
        """The transpose."""
        return Tracked(self.value.T, self.mass.T)

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.value.shape

    def __matmul__(self, other: Tracked) -> Tracked:
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            value = _kept(self.value @ other.value, self.value, other.value)
            mass = np.sqrt(self.mass**2 @ other.value**2 + self.value**2 @ other.mass**2)
            return Tracked(value, _kept(mass, self.mass, other.mass))

    def __add__(self, other: Tracked) -> Tracked:
        with np.errstate(over="ignore", invalid="ignore"):
            return Tracked(_kept(self.value + other.value, self.value, other.value), np.hypot(self.mass, other.mass))

    def __sub__(self, other: Tracked) -> Tracked:
        return self + (-other)

    def __neg__(self) -> Tracked:
        return Tracked(-self.value, self.mass)

    def __mul__(self, factor: float) -> Tracked:
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            return Tracked(_kept(self.value * factor, self.value), self.mass * abs(factor))


@dataclass(frozen=True, eq=False)
class FactoredSpread:
    """A covariance F F' by a factor F (of d rows, d or more columns)."""

    factor: Tracked

    @cached_property
    def whitening(self) -> tuple[Tracked, Tracked]:
        """A matrix H with H'H = (F F')^-1, and log det H as an array of shape (1,)."""
        # F' = Q R gives F F' = R'R, without forming the product.
        lower = np.asarray(np.linalg.qr(self.factor.value.T, mode="r")).T
        _require_invertible(lower)
        row = (self.factor.mass**2).sum(axis=1, keepdims=True) / len(lower)
        inverse = _inverse_of_lower(lower)
        return _whitening(lower, inverse, np.sqrt(inverse**2 @ np.broadcast_to(row, lower.shape)))


@dataclass(frozen=True, eq=False)
class WhitenedSpread:
    """A covariance whose inverse is H'H, with a factor F, F F' = (H'H)^-1, and log det H."""

    factor: Tracked
    whitening: tuple[Tracked, Tracked]

    @classmethod
    def of(cls, law: LinearLaw) -> WhitenedSpread:
        """The covariance of a model's law."""
        lower = law.cholesky
        inverse = _inverse_of_lower(lower)
        # Cholesky's rounding is that of the products L L'; it changes L by L Phi, Phi = L^-1 (rounding) L^-T.
        blur = np.tril(np.sqrt(inverse**2 @ (lower**2 @ lower.T**2) @ inverse.T**2))
        return cls(Tracked(lower, np.sqrt(lower**2 @ blur**2)), _whitening(lower, inverse, blur))


def _require_invertible(triangle: Floats) -> None:
    if not (np.abs(np.diag(triangle)) > 0).all():
        raise WithinRounding


def _inverse_of_lower(lower: Floats) -> Floats:
    from scipy.linalg import solve_triangular

    return _kept(solve_triangular(lower, np.eye(len(lower)), lower=True), lower)


def _whitening(lower: Floats, inverse: Floats, blur: Floats) -> tuple[Tracked, Tracked]:
    """L^-1 and its log-determinant; `blur` is how much rounding has changed L, as a factor I + blur beside it."""
    logs = -np.log(np.abs(np.diag(lower)))
    log_det = _scalar(float(logs.sum()), math.hypot(*logs, *np.diag(blur)))
    return Tracked(inverse, np.sqrt(inverse**2 + blur**2 @ inverse**2)), log_det


class Floating(Numbers):
    """Quadratics in float64."""

    def array(self, values: Any) -> Tracked:
        floats = np.asarray(values, dtype=np.float64)
        return Tracked(floats, np.abs(floats))

    def constant(self, value: Fraction) -> Tracked:
        return self.array([_float(value)])

    def infinite(self, sign: int) -> Tracked:
        return Tracked(np.array([sign * math.inf]), np.zeros(1))

    def is_infinite(self, value: Tracked) -> bool:
        return not bool(np.isfinite(value.value).all())

    def scale(self, value: Tracked, factor: Fraction) -> Tracked:
        return value * _float(factor)

    def log_two_pi(self) -> Tracked:
        return self.array([math.log(2 * math.pi)])

    def spread(self, law: LinearLaw) -> WhitenedSpread:
        return WhitenedSpread.of(law)

    def compound(self, inner: Any, matrix: Tracked, outer: Any) -> FactoredSpread:
        carried = matrix @ inner.factor
        return FactoredSpread(
            Tracked(
                np.hstack([carried.value, outer.factor.value]),
                np.hstack([carried.mass, outer.factor.mass]),
            )
        )

    def log_density(self, residual: Affine, spread: Any) -> Block:
        whitener, log_det = spread.whitening
        normaliser = self.log_two_pi() * (len(whitener.value) / 2)
        return Block(residual.through(whitener), log_det - normaliser)

    def trace(self, matrix: Tracked, metric: Array | None, spread: Any) -> Tracked:
        return self._squares((matrix @ spread.factor), axis=None)

    def energy(self, offset: Tracked, metric: Array | None) -> Tracked:
        return self._squares(offset, axis=1)

    def _squares(self, a: Tracked, axis: int | None) -> Tracked:
        with np.errstate(over="ignore", under="ignore"):
            value = _kept(np.atleast_1d((a.value**2).sum(axis=axis)))
            # The second term keeps what a residual that should be zero may still be.
            mass = np.sqrt((4 * a.value**2 * a.mass**2).sum(axis=axis)) + UNIT * (a.mass**2).sum(axis=axis)
            return Tracked(value, np.atleast_1d(mass))

    def exp(self, value: Tracked) -> Tracked:
        with np.errstate(over="ignore", under="ignore"):
            result = _normal(_kept(np.exp(value.value), value.value), ~np.isneginf(value.value))
            return Tracked(result, _finite(result * (1 + value.mass)))

    def log(self, value: Tracked) -> Tracked:
        if (np.abs(value.value) <= UNIT * value.mass).any() and value.mass.any():
            raise WithinRounding
        with np.errstate(divide="ignore", invalid="ignore"):
            result = np.log(value.value)
            return Tracked(result, _finite(np.abs(result) + value.mass / np.abs(value.value)))

    def power(self, value: Tracked, exponent: Fraction) -> Tracked:
        power = _float(exponent)
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            result = _kept(np.power(value.value, power), np.where(value.value == 0, np.inf, value.value))
            result = _normal(result, (value.value != 0) & np.isfinite(value.value))
            spread = np.abs(power * value.mass / value.value)
            return Tracked(result, _finite(np.abs(result) * (1 + spread)))

    def product(self, a: Tracked, b: Tracked) -> Tracked:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            result = _kept(a.value * b.value, a.value, b.value)
            result = _normal(result, (a.value != 0) & (b.value != 0))
            return Tracked(result, _finite(np.abs(a.value) * b.mass + a.mass * np.abs(b.value)))

    def choose(self, op: str, a: Tracked, b: Tracked) -> Tracked:
        return Tracked((np.maximum if op == "max" else np.minimum)(a.value, b.value), np.maximum(a.mass, b.mass))

    def negligible(self, value: Tracked) -> bool:
        return bool((np.abs(value.value) <= 4 * UNIT * value.mass).all())

    def complete(
        self, parts: Sequence[tuple[Fraction, Tracked, Array | None]], dimension: int
    ) -> tuple[list[Tracked], WhitenedSpread, Tracked] | None:
        from scipy.linalg import cho_solve, qr, solve_triangular

        if sum(len(r.value) for w, r, _ in parts if w > 0) < dimension:
            return None  # too few rows to curve every direction downwards
        roots = [math.sqrt(_float(abs(weight))) for weight, _, _ in parts]
        rows = np.vstack([root * r.value for root, (_, r, _) in zip(roots, parts, strict=True)])
        mass = np.vstack([root * r.mass for root, (_, r, _) in zip(roots, parts, strict=True)])
        sign = np.concatenate([np.full(len(r.value), 1.0 if w > 0 else -1.0) for w, r, _ in parts])
        sizes = np.sqrt((rows**2).sum(axis=0))
        if not (sizes > 0).all():
            raise WithinRounding  # a direction that no residual contains, unless it is an underflow
        rows, mass = rows / sizes, mass / sizes
        if self._surely_indefinite(rows, mass, sign):
            return None

        # Large rows first, with column pivoting: then each row keeps its own relative accuracy.
        order = np.argsort(-np.abs(rows).max(axis=1), kind="stable")
        decomposed: Any = qr(rows[order], mode="economic", pivoting=True)
        unitary, triangle, pivots = decomposed
        unitary = unitary[np.argsort(order)]
        _require_invertible(triangle)
        inverse = solve_triangular(triangle, np.eye(dimension))
        growth = float(np.sqrt((mass[:, pivots] ** 2 @ inverse**2).sum()))
        curvature = np.eye(dimension) if (sign > 0).all() else unitary.T @ (sign[:, None] * unitary)
        eigenvalues = np.linalg.eigvalsh((curvature + curvature.T) / 2)
        least = float(eigenvalues[0])
        if least < -4 * UNIT * growth:
            return None
        if not least > 4 * UNIT * growth:
            raise WithinRounding

        lower = np.linalg.cholesky(curvature)
        amplification = growth / (math.sqrt(dimension) * least)
        back = np.empty_like(inverse)
        back[pivots] = inverse
        back /= sizes[:, None]  # undoes the pivoting and the scaling of columns
        gain = back @ cho_solve((lower, True), (sign[:, None] * unitary).T)
        factor = back @ solve_triangular(lower, np.eye(dimension), lower=True).T
        forward = np.empty_like(triangle)
        forward[:, pivots] = triangle
        whitener = lower.T @ (forward * sizes)
        logs = np.concatenate([np.log(np.abs(np.diag(triangle))), np.log(sizes), np.log(np.diag(lower))])
        log_det = _scalar(float(logs.sum()), math.hypot(*logs, *(growth / eigenvalues)))

        def blurred(matrix: Floats) -> Tracked:
            return Tracked(matrix, np.abs(matrix) * (1 + amplification))

        cuts = np.cumsum([len(r.value) for _, r, _ in parts])[:-1]
        gains = [blurred(g * root) for g, root in zip(np.split(gain, cuts, axis=1), roots, strict=True)]
        return gains, WhitenedSpread(blurred(factor), (blurred(whitener), log_det)), -log_det

    @staticmethod
    def _surely_indefinite(rows: Floats, mass: Floats, sign: Floats) -> bool:
        """True if some direction certainly curves upwards, even where others are not curved at all."""
        if (sign > 0).all():
            return False
        _, directions = np.linalg.eigh(rows.T @ (sign[:, None] * rows))
        upwards = directions[:, 0]
        along, blur = rows @ upwards, UNIT * (mass @ np.abs(upwards))
        slack = 2 * np.abs(along) * blur + blur**2
        return float((sign * along**2).sum()) < -4 * float(slack.sum())


def _float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        raise OutOfRange from None


def _finite(mass: Floats) -> Floats:
    """The mass of an infinite value is of no use."""
    return np.where(np.isfinite(mass), mass, 0.0)


def _scalar(value: float, mass: float) -> Tracked:
    return Tracked(np.array([float(value)]), np.array([float(mass)]))


__all__ = ["UNIT", "Floating", "Tracked"]
