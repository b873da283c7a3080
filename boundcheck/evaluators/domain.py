"""Numbers for the traversal, and what is done with arrays of them.

The traversal walks a term; a domain says what its numbers are: float64, exact rational combinations of logarithms,
balls, or symbols. A domain keeps two conventions: a weight of zero removes its term, whatever the body is there, and
the logarithm of a sum of exponentials is taken without overflow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction
from typing import Any

from numpy.typing import NDArray

from boundcheck.evaluators.named import Arrays
from boundcheck.language.terms import Space
from boundcheck.models.finite import FiniteModel


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
    def log_table(self, model: FiniteModel, role: str, inputs: tuple[Space, ...]) -> NDArray[Any]:
        """Log-probabilities of a role, axes as in `FiniteModel.table`."""

    @abstractmethod
    def weight_table(self, model: FiniteModel, role: str, inputs: tuple[Space, ...]) -> NDArray[Any]:
        """Probabilities of a role, as weights."""

    @abstractmethod
    def weights(self, log_density: NDArray[Any]) -> NDArray[Any]:
        """Weights from log-probabilities."""

    @abstractmethod
    def weight_product(self, weights: NDArray[Any], axis: int) -> NDArray[Any]:
        """The product of weights along an axis."""

    @abstractmethod
    def times(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        """The elementwise product of weights."""

    @abstractmethod
    def counts(self, values: NDArray[Any]) -> NDArray[Any]:
        """Positive integers (Python ints) as weights."""

    @abstractmethod
    def add(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        """a + b."""

    @abstractmethod
    def multiply(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        """a * b."""

    def scale(self, factor: Fraction, a: NDArray[Any]) -> NDArray[Any]:
        """factor * a."""
        return self.multiply(self.constant(factor), a)

    @abstractmethod
    def power(self, a: NDArray[Any], exponent: Fraction) -> NDArray[Any]:
        """a ** exponent."""

    @abstractmethod
    def exp(self, a: NDArray[Any]) -> NDArray[Any]:
        """exp a."""

    @abstractmethod
    def log(self, a: NDArray[Any]) -> NDArray[Any]:
        """log a."""

    def log_of_known(self, a: NDArray[Any]) -> NDArray[Any]:
        """log a of numbers that carry no rounding."""
        return self.log(a)

    @abstractmethod
    def choose(self, op: str, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        """max or min of a and b."""

    @abstractmethod
    def expectation(self, weights: NDArray[Any], values: NDArray[Any], axis: int) -> NDArray[Any]:
        """sum of weights * values along an axis, where a weight of zero removes its term."""

    @abstractmethod
    def log_expectation(self, weights: NDArray[Any], logs: NDArray[Any], axis: int) -> NDArray[Any]:
        """log of the sum of weights * exp(logs) along an axis, where a weight of zero removes its term."""

    @abstractmethod
    def reduce(self, op: str, values: NDArray[Any], axis: int) -> NDArray[Any]:
        """sum, max or min along an axis."""

    @abstractmethod
    def log_sum(self, logs: NDArray[Any], axis: int) -> NDArray[Any]:
        """log of the sum of exp(logs) along an axis."""

    def tallied(self, op: str, values: NDArray[Any], tally: NDArray[Any]) -> Any:
        """The sum ("sum"), log-sum-exp ("log_sum") or product of weights ("weights") of copies, by their states.

        Args:
            op: which of them.
            values: numbers, or weights, of each state, of shape (..., states).
            tally: how often each state occurs, of shape (multisets, states).

        Returns:
            An array of shape (..., multisets), or None where it is better computed copy by copy.
        """
        return None
