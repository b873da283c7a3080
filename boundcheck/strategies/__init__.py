"""Hypothesis strategies for models and parameters, for property-based tests of bounds in a user's own suite.

A table is drawn as small whole numbers, row by row, and divided by the row sums: so Hypothesis shrinks to few states
and to simple fractions. Continuous laws are drawn with parameters that are halves and quarters, and shrink to
standard ones. The corners where claims break are drawn on purpose and named as events, so that
`pytest --hypothesis-show-statistics` tells which of them a test met; so does the summary of the pytest plugin.
"""

from __future__ import annotations

from boundcheck.strategies.continuous import (
    CONTINUOUS_CORNERS,
    LINEAR_GAUSSIAN_CORNERS,
    continuous_models,
    data_density_models,
    linear_gaussian_models,
    relaxed_bernoulli_models,
)
from boundcheck.strategies.finite import CORNERS, finite_models, probabilities
from boundcheck.strategies.parameters import alphas, betas, copies

__all__ = [
    "CONTINUOUS_CORNERS",
    "CORNERS",
    "LINEAR_GAUSSIAN_CORNERS",
    "alphas",
    "betas",
    "continuous_models",
    "copies",
    "data_density_models",
    "finite_models",
    "linear_gaussian_models",
    "probabilities",
    "relaxed_bernoulli_models",
]
