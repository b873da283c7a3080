"""Quadratic forms in Gaussian variables, and the three things that keep them quadratic.

A quadratic is a number plus a weighted sum of blocks, each the logarithm of a normal density in the form
k - |r|^2 / 2 whose residual r is affine in the free variables. Residuals are never multiplied out: a mean of 1e8 is
subtracted before anything is squared. Weights are rationals, so that log q minus log q is nothing at all and not a
rounding error. The three operations: the expectation over a normal law whose mean is affine; log integral exp, which
is the maximum plus half a log-determinant; and the law proportional to exp of a quadratic. What the numbers are
(float64, rationals) is the business of a `Numbers`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

from boundcheck.language.terms import Var
from boundcheck.models.linear_gaussian import LinearLaw

Array: TypeAlias = Any
"""An array of a `Numbers`' own kind. Batches of observations are rows: offsets (n or 1, m), constants (n or 1,)."""

Spread: TypeAlias = Any
"""A covariance in the form in which a `Numbers` keeps it."""

HALF = Fraction(1, 2)


class WithinRounding(Exception):
    """Rounding leaves open whether an integral converges."""


class OutOfRange(Exception):
    """A number is too large for float64, or too small."""


@dataclass(frozen=True, eq=False)
class Affine:
    """sum_v M_v v + offset."""

    matrices: Mapping[Var, Array]
    offset: Array

    def through(self, matrix: Array) -> Affine:
        """The matrix applied to it."""
        return Affine({var: matrix @ m for var, m in self.matrices.items()}, self.offset @ matrix.T)

    def __add__(self, other: Affine) -> Affine:
        matrices = dict(self.matrices)
        for var, m in other.matrices.items():
            matrices[var] = matrices[var] + m if var in matrices else m
        return Affine(matrices, self.offset + other.offset)

    def without(self, var: Var) -> Affine:
        """Its value where `var` is zero."""
        return Affine({v: m for v, m in self.matrices.items() if v != var}, self.offset)

    def put(self, var: Var, value: Affine) -> Affine:
        """Its value where `var` is an affine function of the others."""
        return self.without(var) + value.through(self.matrices[var])


@dataclass(frozen=True, eq=False)
class Block:
    """constant - r' M r / 2 with an affine residual r; M is the identity if `metric` is None.

    Blocks are told apart by identity: a sub-term that occurs twice is evaluated once, and its weights add up.
    """

    residual: Affine
    constant: Array
    metric: Array | None = None


@dataclass(frozen=True, eq=False)
class Quadratic:
    """constant + sum of weight * block."""

    constant: Array
    blocks: Mapping[Block, Fraction]

    @property
    def is_number(self) -> bool:
        """True if no variable is left in it."""
        return not self.blocks


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal law whose mean is affine in other variables."""

    mean: Affine
    spread: Spread


class Numbers(ABC):
    """What quadratics are made of, and the algebra on them."""

    # --- what a kind of numbers must supply ---

    @abstractmethod
    def array(self, values: Any) -> Array:
        """A float64 array."""

    @abstractmethod
    def constant(self, value: Fraction) -> Array:
        """A rational as an array of shape (1,)."""

    @abstractmethod
    def infinite(self, sign: int) -> Array:
        """Plus or minus infinity as an array of shape (1,)."""

    @abstractmethod
    def is_infinite(self, value: Array) -> bool:
        """True if a constant is infinite (for one observation, and so for all of them)."""

    @abstractmethod
    def scale(self, value: Array, factor: Fraction) -> Array:
        """factor * value."""

    @abstractmethod
    def log_two_pi(self) -> Array:
        """log 2 pi, of shape (1,)."""

    @abstractmethod
    def spread(self, law: LinearLaw) -> Spread:
        """The covariance of a model's law."""

    @abstractmethod
    def compound(self, inner: Spread, matrix: Array, outer: Spread) -> Spread:
        """The covariance of M u + noise, with the covariances of u and of the noise."""

    @abstractmethod
    def log_density(self, residual: Affine, spread: Spread) -> Block:
        """log N(residual; 0, spread)."""

    @abstractmethod
    def trace(self, matrix: Array, metric: Array | None, spread: Spread) -> Array:
        """E (R v)' M (R v) for v ~ N(0, spread), of shape (1,)."""

    @abstractmethod
    def energy(self, offset: Array, metric: Array | None) -> Array:
        """r' M r for each row r."""

    @abstractmethod
    def complete(
        self, parts: Sequence[tuple[Fraction, Array, Array | None]], dimension: int
    ) -> tuple[list[Array], Spread, Array] | None:
        """Complete the square of -sum_b w_b (R_b v + s_b)' M_b (R_b v + s_b) / 2 in v.

        Returns:
            Matrices G_b with which the maximum is at v = -sum_b G_b s_b; the inverse of the curvature N as a
            covariance; and -log det(N) / 2. None if N is not positive definite.

        Raises:
            WithinRounding: if that cannot be told.
        """

    @abstractmethod
    def negligible(self, value: Array) -> bool:
        """True if an array is zero up to rounding."""

    # --- functions of finished numbers ---

    @abstractmethod
    def exp(self, value: Array) -> Array:
        """exp of a constant."""

    @abstractmethod
    def log(self, value: Array) -> Array:
        """log of a constant; NaN if it is negative."""

    @abstractmethod
    def power(self, value: Array, exponent: Fraction) -> Array:
        """A constant to a rational power."""

    @abstractmethod
    def product(self, a: Array, b: Array) -> Array:
        """The product of constants."""

    @abstractmethod
    def choose(self, op: str, a: Array, b: Array) -> Array:
        """max or min of constants."""

    # --- the algebra ---

    def number(self, value: Fraction | int) -> Quadratic:
        """A rational constant."""
        return Quadratic(self.constant(Fraction(value)), {})

    def infinity(self, sign: int = 1) -> Quadratic:
        """Plus or minus infinity, whatever the variables."""
        return Quadratic(self.infinite(sign), {})

    def combine(self, parts: Sequence[tuple[Fraction, Quadratic]]) -> Quadratic:
        """sum of weight * quadratic."""
        constant, weights = self.constant(Fraction(0)), dict[Block, Fraction]()
        for weight, part in parts:
            constant = constant + self.scale(part.constant, weight)
            for block, w in part.blocks.items():
                weights[block] = weights.get(block, Fraction(0)) + weight * w
        return self._collect(constant, weights)

    def of_block(self, block: Block) -> Quadratic:
        """A block as a quadratic."""
        return self._collect(self.constant(Fraction(0)), {block: Fraction(1)})

    def _collect(self, constant: Array, weights: Mapping[Block, Fraction]) -> Quadratic:
        """A quadratic without blocks that are numbers or have no weight."""
        if self.is_infinite(constant):
            return Quadratic(constant, {})
        kept: dict[Block, Fraction] = {}
        for block, weight in weights.items():
            if not weight:
                continue
            if block.residual.matrices:
                kept[block] = weight
                continue
            value = block.constant - self.scale(self.energy(block.residual.offset, block.metric), HALF)
            constant = constant + self.scale(value, weight)
        return Quadratic(constant, kept)

    def density(self, law: Gaussian, point: Affine) -> Quadratic:
        """The log-density of a law at an affine function of the variables."""
        minus = Affine({v: -m for v, m in law.mean.matrices.items()}, -law.mean.offset)
        return self.of_block(self.log_density(point + minus, law.spread))

    def expectation(self, quadratic: Quadratic, var: Var, law: Gaussian) -> Quadratic:
        """E_{var ~ law} of a quadratic."""
        weights: dict[Block, Fraction] = {}
        for block, weight in quadratic.blocks.items():
            if var in block.residual.matrices:
                spread = self.trace(block.residual.matrices[var], block.metric, law.spread)
                constant = block.constant - self.scale(spread, HALF)
                block = Block(block.residual.put(var, law.mean), constant, block.metric)
            weights[block] = weights.get(block, Fraction(0)) + weight
        return self._collect(quadratic.constant, weights)

    def proportional(self, quadratic: Quadratic, var: Var, dimension: int) -> tuple[Gaussian, Array] | None:
        """The law of `var` with density proportional to exp of a quadratic, and -log det(curvature) / 2.

        None if exp of the quadratic has no finite integral.
        """
        touching = [(b, w) for b, w in quadratic.blocks.items() if var in b.residual.matrices]
        completed = self.complete([(w, b.residual.matrices[var], b.metric) for b, w in touching], dimension)
        if completed is None:
            return None
        gains, spread, log_volume = completed
        mean: Affine | None = None
        for (block, _), gain in zip(touching, gains, strict=True):
            shift = block.residual.without(var).through(-gain)
            mean = shift if mean is None else mean + shift
        assert mean is not None
        return Gaussian(mean, spread), log_volume

    def log_integral(self, quadratic: Quadratic, var: Var, dimension: int) -> Quadratic:
        """log of the integral of exp(quadratic) over `var`: +inf exactly if the quadratic has no maximum in `var`."""
        if self.is_infinite(quadratic.constant):
            return quadratic
        completed = self.proportional(quadratic, var, dimension)
        if completed is None:
            return self.infinity()
        law, log_volume = completed
        weights: dict[Block, Fraction] = {}
        for block, weight in quadratic.blocks.items():
            if var in block.residual.matrices:
                block = Block(block.residual.put(var, law.mean), block.constant, block.metric)
            weights[block] = weight
        volume = self.scale(self.log_two_pi(), Fraction(dimension, 2)) + log_volume
        return self._collect(quadratic.constant + volume, weights)

    def vanishes(self, quadratic: Quadratic) -> bool:
        """True if a quadratic is zero for all values of its variables, up to rounding."""
        sums: dict[tuple[Var, Var | None], Array] = {}
        constant = quadratic.constant
        for block, weight in quadratic.blocks.items():
            matrices, offset = block.residual.matrices, block.residual.offset
            weighted = {v: m if block.metric is None else block.metric @ m for v, m in matrices.items()}
            constant = constant + self.scale(
                block.constant - self.scale(self.energy(offset, block.metric), HALF), weight
            )
            for v, m in weighted.items():
                terms = {(v, None): offset @ m} | {(v, u): other.T @ m for u, other in matrices.items()}
                for pair, term in terms.items():
                    scaled = self.scale(term, weight)
                    sums[pair] = sums[pair] + scaled if pair in sums else scaled
        return all(self.negligible(value) for value in (constant, *sums.values()))


__all__ = ["Affine", "Array", "Block", "Gaussian", "Numbers", "OutOfRange", "Quadratic", "Spread", "WithinRounding"]
