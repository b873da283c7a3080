"""Quadratics made of rationals: exact curvatures, for small models on which float64 leaves doubts.

A float is read as the decimal that it prints as, as everywhere in boundcheck. Residuals stay rational because they are
not whitened: a block keeps its covariance's inverse as its metric. Only the logarithms of determinants, and what is
done to finished numbers, are Arb balls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import flint
import numpy as np
from numpy.typing import NDArray

from boundcheck.evaluators.quadratic import Affine, Array, Block, Numbers, OutOfRange, WithinRounding
from boundcheck.models.linear_gaussian import LinearLaw

Objects = NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class RationalSpread:
    """A covariance and its inverse."""

    covariance: Objects

    @cached_property
    def precision(self) -> Objects:
        """The inverse."""
        return _inverse(self.covariance)

    @cached_property
    def log_det(self) -> Objects:
        """log det of the covariance, of shape (1,)."""
        return _cell(flint.arb(_matrix(self.covariance).det()).log())


class Rationals(Numbers):
    """Quadratics in fmpq and arb; the working precision is the caller's."""

    def array(self, values: Any) -> Objects:
        floats = np.asarray(values, dtype=np.float64)
        out = np.empty(floats.shape, dtype=object)
        for index, value in np.ndenumerate(floats):
            out[index] = _rational(Fraction(repr(float(value))))
        return out

    def constant(self, value: Fraction) -> Objects:
        return _cell(_rational(value))

    def infinite(self, sign: int) -> Objects:
        return _cell(flint.arb.pos_inf() if sign > 0 else flint.arb.neg_inf())

    def is_infinite(self, value: Objects) -> bool:
        return any(isinstance(v, flint.arb) and not v.is_finite() for v in value)

    def scale(self, value: Objects, factor: Fraction) -> Objects:
        return value * _rational(factor)

    def log_two_pi(self) -> Objects:
        return _cell((2 * flint.arb.pi()).log())

    def spread(self, law: LinearLaw) -> RationalSpread:
        return RationalSpread(self.array(law.covariance))

    def compound(self, inner: RationalSpread, matrix: Objects, outer: RationalSpread) -> RationalSpread:
        return RationalSpread(matrix @ inner.covariance @ matrix.T + outer.covariance)

    def log_density(self, residual: Affine, spread: RationalSpread) -> Block:
        normaliser = self.log_two_pi() * len(spread.covariance) + spread.log_det
        return Block(residual, normaliser * flint.fmpq(-1, 2), spread.precision)

    def trace(self, matrix: Objects, metric: Array | None, spread: RationalSpread) -> Objects:
        product = matrix @ spread.covariance @ matrix.T
        return _cell(np.trace(product) if metric is None else (product * metric).sum())

    def energy(self, offset: Objects, metric: Array | None) -> Objects:
        return ((offset if metric is None else offset @ metric) * offset).sum(axis=1)

    def exp(self, value: Objects) -> Objects:
        return _each(lambda v: flint.arb(v).exp(), value)

    def log(self, value: Objects) -> Objects:
        return _each(_log, value)

    def power(self, value: Objects, exponent: Fraction) -> Objects:
        if exponent.denominator == 1 and exponent > 0:
            return _each(lambda v: v**exponent.numerator, value)
        return _each(lambda v: flint.arb(v) ** flint.arb(_rational(exponent)), value)

    def product(self, a: Objects, b: Objects) -> Objects:
        return a * b

    def choose(self, op: str, a: Objects, b: Objects) -> Objects:
        pairs = zip(*np.broadcast_arrays(a, b), strict=True)
        chosen = [(flint.arb.max if op == "max" else flint.arb.min)(flint.arb(v), flint.arb(w)) for v, w in pairs]
        return np.array(chosen, dtype=object)

    def negligible(self, value: Objects) -> bool:
        return all(v.contains(0) if isinstance(v, flint.arb) else v == 0 for v in value.flat)

    def complete(
        self, parts: Sequence[tuple[Fraction, Objects, Array | None]], dimension: int
    ) -> tuple[list[Objects], RationalSpread, Objects] | None:
        pulls = [self.scale(r.T if m is None else r.T @ m, weight) for weight, r, m in parts]
        curvature = sum(
            (pull @ r for pull, (_, r, _) in zip(pulls, parts, strict=True)), np.full((dimension,) * 2, _ZERO)
        )
        if not _positive_definite(curvature):
            return None
        spread = RationalSpread(_inverse(curvature))
        return [spread.covariance @ pull for pull in pulls], spread, spread.log_det * flint.fmpq(1, 2)


_ZERO = flint.fmpq(0)


def _rational(value: Fraction) -> flint.fmpq:
    return flint.fmpq(value.numerator, value.denominator)


def _cell(value: Any) -> Objects:
    out = np.empty(1, dtype=object)
    out[0] = value
    return out


def _each(function: Callable[[Any], Any], values: Objects) -> Objects:
    return np.array([function(v) for v in values], dtype=object)


def _log(value: Any) -> flint.arb:
    if value == 0:
        return flint.arb.neg_inf()
    ball = flint.arb(value)
    if not (ball > 0 or ball < 0 or ball.is_nan()):
        raise WithinRounding
    return ball.log() if ball > 0 else flint.arb.nan()


def _matrix(values: Objects) -> flint.fmpq_mat:
    return flint.fmpq_mat(values.tolist())


def _inverse(values: Objects) -> Objects:
    return np.array(_matrix(values).inv().tolist(), dtype=object)


def _positive_definite(symmetric: Objects) -> bool:
    """Whether all pivots of Gaussian elimination are positive."""
    rest = symmetric.copy()
    for i in range(len(rest)):
        pivot = rest[i, i]
        if not pivot > 0:
            return False
        rest[i + 1 :, i:] = rest[i + 1 :, i:] - np.outer(rest[i + 1 :, i] / pivot, rest[i, i:])
    return True


def enclosed(value: Any) -> tuple[float, float]:
    """A number's nearest float and a bound on the distance to it, which is 0 only for infinities and exact floats.

    Raises:
        OutOfRange: a finite number that float64 cannot hold.
    """
    ball = flint.arb(value)
    if not ball.is_finite():
        return (math.nan if ball.is_nan() else float(ball)), 0.0
    middle = float(ball.mid())
    if math.isinf(middle):
        raise OutOfRange
    distance = (ball - middle).abs_upper()
    return middle, 0.0 if distance == 0 else math.nextafter(float(distance), math.inf)


__all__ = ["Rationals", "enclosed"]
