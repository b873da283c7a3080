"""Parameters of formulas: Renyi orders, numbers of copies, weights of a KL term."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from boundcheck.errors import BadInput


def alphas() -> SearchStrategy[Fraction]:
    """Renyi orders from -3 to 4: simple fractions, and orders close to 0, 1 and other whole numbers; they shrink to 0.

    >>> from hypothesis import find
    >>> find(alphas(), lambda alpha: alpha > 1)
    Fraction(2, 1)
    """
    parts = ["0", "1/2", "1/3", "2/3", "1/4", "3/4", "1/20", "19/20", "1/100", "99/100"]
    return st.builds(lambda part, whole: whole + Fraction(part), st.sampled_from(parts), st.integers(-3, 3))


def copies(most: int = 4) -> SearchStrategy[int]:
    """Numbers of copies K, from 1 to `most`; they shrink to 1.

    Raises:
        BadInput: a largest number below 1.
    """
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise BadInput("most", most, "a number of copies of at least 1")
    return st.integers(1, most)


def betas() -> SearchStrategy[Fraction]:
    """Weights of a KL term: simple fractions from 0 to 8, on both sides of 1; they shrink to 0."""
    return st.fractions(min_value=0, max_value=8, max_denominator=4)


__all__ = ["alphas", "betas", "copies"]
