"""Numbers for the traversal, and what is done with arrays of them.

The traversal walks a term; a domain says what its numbers are: float64, exact rational combinations of logarithms,
balls, symbols, or tensors with gradients. A domain keeps two conventions: a weight of zero removes its term, whatever
the body is there, and the logarithm of a sum of exponentials is taken without overflow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction
from typing import Any, TypeAlias

from boundcheck.evaluators.named import Arrays
from boundcheck.language.terms import Space
from boundcheck.models.finite import FiniteModel

Array: TypeAlias = Any
"""An array of numbers, of numpy or of another library."""


class Domain(ABC):
    """Numbers and what is done with arrays of them. `weights` are probabilities in a representation of its own."""

    name: str
    bytes_per_number = 8
    arrays = Arrays()
    tallies = False
    """Whether sums over copies may be asked of `tallied`."""

    @abstractmethod
    def constant(self, value: Fraction) -> Any:
        """A rational as a 0-d array."""

    @abstractmethod
    def log_table(self, model: FiniteModel, role: str, inputs: tuple[Space, ...]) -> Array:
        """Log-probabilities of a role, axes as in `FiniteModel.table`."""

    @abstractmethod
    def weight_table(self, model: FiniteModel, role: str, inputs: tuple[Space, ...]) -> Array:
        """Probabilities of a role, as weights."""

    @abstractmethod
    def weights(self, log_density: Array) -> Array:
        """Weights from log-probabilities."""

    @abstractmethod
    def weight_product(self, weights: Array, axis: int) -> Array:
        """The product of weights along an axis."""

    @abstractmethod
    def times(self, a: Array, b: Array) -> Array:
        """The elementwise product of weights."""

    @abstractmethod
    def counts(self, values: Array) -> Array:
        """Positive integers (Python ints) as weights."""

    @abstractmethod
    def add(self, a: Array, b: Array) -> Array:
        """a + b."""

    @abstractmethod
    def multiply(self, a: Array, b: Array) -> Array:
        """a * b."""

    def scale(self, factor: Fraction, a: Array) -> Array:
        """factor * a."""
        return self.multiply(self.constant(factor), a)

    @abstractmethod
    def power(self, a: Array, exponent: Fraction) -> Array:
        """a ** exponent."""

    @abstractmethod
    def exp(self, a: Array) -> Array:
        """exp a."""

    @abstractmethod
    def log(self, a: Array) -> Array:
        """log a."""

    def log_of_known(self, a: Array) -> Array:
        """log a of numbers that carry no rounding."""
        return self.log(a)

    @abstractmethod
    def choose(self, op: str, a: Array, b: Array) -> Array:
        """max or min of a and b."""

    @abstractmethod
    def expectation(self, weights: Array, values: Array, axis: int) -> Array:
        """sum of weights * values along an axis, where a weight of zero removes its term."""

    @abstractmethod
    def log_expectation(self, weights: Array, logs: Array, axis: int) -> Array:
        """log of the sum of weights * exp(logs) along an axis, where a weight of zero removes its term."""

    @abstractmethod
    def reduce(self, op: str, values: Array, axis: int) -> Array:
        """sum, max or min along an axis."""

    @abstractmethod
    def log_sum(self, logs: Array, axis: int) -> Array:
        """log of the sum of exp(logs) along an axis."""

    def tallied(self, op: str, values: Array, tally: Array) -> Any:
        """The sum ("sum"), log-sum-exp ("log_sum") or product of weights ("weights") of copies, by their states.

        Args:
            op: which of them.
            values: numbers, or weights, of each state, of shape (..., states).
            tally: how often each state occurs, of shape (multisets, states).

        Returns:
            An array of shape (..., multisets), or None where it is better computed copy by copy.
        """
        return None
