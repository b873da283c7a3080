"""Gauss rules of the laws that have one, as nodes and log-weights, and the multisets that copies of a draw make."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import chain, combinations_with_replacement
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import CannotCompute
from boundcheck.models.densities import BernoulliLogit, Binomial, Density, Discrete, Laplace, Logistic, Normal, Uniform

Array: TypeAlias = NDArray[np.float64]

NAME = "Gauss-Hermite evaluator"


@lru_cache(maxsize=64)
def gauss(law: str, n: int) -> tuple[Array, Array]:
    """Nodes and log-weights of the n-point Gauss rule of a standard law, from its orthonormal polynomials.

    b_{k+1} p_{k+1} = (t - a_k) p_k - b_k p_{k-1}; the nodes are eigenvalues of the matrix of a and b, and a weight is
    1 / sum_k p_k(t)^2. The sum is kept as a logarithm, so that weights far below 1e-308 are neither zero nor nan.
    """
    from scipy.linalg import eigvalsh_tridiagonal

    k = np.arange(1.0, n)
    diagonal = 2 * np.arange(n) + 1.0 if law == "exponential" else np.zeros(n)
    squares = {
        "normal": k,
        "exponential": k**2,
        "uniform": k**2 / (4 * k**2 - 1),
        "logistic": k**4 * math.pi**2 / (4 * k**2 - 1),
    }[law]
    beside = np.sqrt(squares)
    nodes: Array = np.asarray(eigvalsh_tridiagonal(diagonal, beside))
    if law != "exponential":
        nodes = (nodes - nodes[::-1]) / 2  # symmetric, as the law is
    before, now, log_sum = np.zeros(n), np.ones(n), np.zeros(n)
    for i in range(n - 1):
        following = (nodes - diagonal[i]) * now - (beside[i - 1] * before if i else 0.0)
        before, now = now, following / beside[i]
        size = np.sqrt(1 + now**2)  # what came before sums to one in the current unit
        before, now, log_sum = before / size, now / size, log_sum + 2 * np.log(size)
    log_weights = -log_sum
    return nodes, log_weights - np.logaddexp.reduce(log_weights)


def standard_rule(density: Density, n: int) -> tuple[Array, Array, Any, Any] | None:
    """(t, log w, location, scale): the nodes are location + scale t, in increasing order."""
    if isinstance(density, Normal):
        return *gauss("normal", n), density.mean, density.scale
    if isinstance(density, Logistic):
        return *gauss("logistic", n), density.location, density.scale
    if isinstance(density, Uniform):
        return *gauss("uniform", n), density.center(), density.spread() * 2
    if isinstance(density, Laplace):
        t, log_w = gauss("exponential", (n + 1) // 2)
        both = np.concatenate([-t[::-1], t]), np.concatenate([log_w[::-1], log_w]) - math.log(2)
        return *both, density.location, density.scale
    return None


def table(density: Density) -> tuple[list[Any], list[Any]]:
    """The points of a finite discrete law and their log-probabilities."""
    if isinstance(density, Discrete):
        return list(density.points), [np.log(np.asarray(float(p))) for p in density.probabilities]
    if isinstance(density, BernoulliLogit):
        return [0, 1], [density.log_density(v) for v in (0, 1)]
    if isinstance(density, Binomial) and not np.ndim(density.n):
        counts = list(range(int(density.n) + 1))
        return counts, [density.log_density(v) for v in counts]
    raise CannotCompute(NAME, repr(density), "only finite discrete laws of a fixed size are summed")


def multisets(n: int, size: int) -> tuple[NDArray[np.intp], Array]:
    """All multisets of `size` of n things, a row each, and the logarithm of the number of their orders."""
    entries = chain.from_iterable(combinations_with_replacement(range(n), size))
    rows = np.fromiter(entries, np.intp, size * math.comb(n + size - 1, size)).reshape(-1, size)
    run, repeats = np.ones(len(rows)), np.zeros(len(rows))
    for column in range(1, size):
        run = np.where(rows[:, column] == rows[:, column - 1], run + 1, 1.0)
        repeats += np.log(run)
    return rows, math.lgamma(size + 1) - repeats


def plain(value: Any) -> Any:
    """An exact rational as a float; whole numbers stay, for laws of counts."""
    return value if isinstance(value, np.ndarray | int) else float(value)


__all__ = ["NAME", "Array", "gauss", "multisets", "plain", "standard_rule", "table"]
