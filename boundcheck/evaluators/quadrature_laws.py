"""Laws whose parameters are arrays: where the mass of each is, the points of a finite one, their parameters mapped.

An entry of such an array belongs to a node further out, so that one law object stands for the laws at all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from boundcheck.errors import CannotCompute
from boundcheck.evaluators.quadrature_copies import NAME
from boundcheck.evaluators.quadrature_lines import Array
from boundcheck.models.densities import BernoulliLogit, Binomial, Density, Discrete


@dataclass
class Line:
    """One component of a variable: where its mass is, on the current frame; `log_weight` is None for bare integrals."""

    center: Any
    spread: Any
    lower: Any = None
    upper: Any = None
    kinks: tuple[Any, ...] = ()
    density: Density | None = None


def line_of(density: Density) -> Line:
    """Where the mass of a law is.

    Raises:
        CannotCompute: a discrete law without a finite table of points.
    """
    if isinstance(density, Discrete | BernoulliLogit | Binomial):
        middle = density.points[0] if isinstance(density, Discrete) else 0.0
        return Line(float(middle), 1.0, density=density)
    if density.discrete:
        raise CannotCompute(NAME, repr(density), "an infinite sum; only finite discrete laws are summed")
    lower, upper = density.interval()
    return Line(density.center(), density.spread(), lower, upper, tuple(density.kinks()), density)


def table_of(density: Density) -> tuple[Array, list[Any]]:
    """Points of a finite discrete law and their log-probabilities."""
    if isinstance(density, Discrete):
        probabilities = [np.asarray(plain(p), dtype=float) for p in density.probabilities]
        return np.array([float(p) for p in density.points]), [np.log(p) for p in probabilities]
    if isinstance(density, BernoulliLogit):
        return np.array([0.0, 1.0]), [density.log_density(v) for v in (0, 1)]
    assert isinstance(density, Binomial)
    if np.ndim(density.n):
        raise CannotCompute(NAME, repr(density), "sums over a binomial law need one number of trials")
    counts = range(int(density.n) + 1)
    return np.array(counts, dtype=float), [density.log_density(v) for v in counts]


def mapped(density: Any, function: Callable[[Any], Any]) -> Any:
    """A density with its array parameters mapped; they were checked when it was made."""
    if isinstance(density, tuple):
        return tuple(mapped(each, function) for each in density)
    if isinstance(density, np.ndarray):
        return function(density)
    if isinstance(density, dict):
        return {key: mapped(each, function) for key, each in density.items()}
    if not isinstance(density, Density) or not dataclasses.is_dataclass(density):
        return density
    values = {f.name: getattr(density, f.name) for f in dataclasses.fields(density)}
    if not any(isinstance(v, np.ndarray | tuple | dict | Density) for v in values.values()):
        return density
    copy = object.__new__(type(density))
    for name, value in values.items():
        object.__setattr__(copy, name, mapped(value, function))
    return copy


def plain(value: Any) -> Any:
    """An exact rational as a float."""
    return value if isinstance(value, np.ndarray) else float(value)
