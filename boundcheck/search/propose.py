"""Random batches of models that meet the corners where claims break, and moves from good models to better ones.

Proposals are wide on the log scale (probabilities from 1e-6 to 1), tie rows, mirror them, and set zeros, so that a
violation that lives in a small region of the tables is still met by some of them.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from boundcheck.search.batch import ModelBatch, Sizes

Tables = dict[str, NDArray[np.float64]]
CORNERS = ("dirichlet", "log-uniform", "nearly deterministic", "equal rows", "mirrored rows", "zeros")
"""The styles of random tables, in the order of their numbers in `styles`."""


def random_batch(rng: Generator, sizes: Sizes, roles: frozenset[str], count: int, zeros: bool = True) -> ModelBatch:
    """`count` models, each of one style or a mixture of styles.

    Args:
        rng: the source of randomness.
        sizes: the numbers of states.
        roles: the laws that the models must supply.
        count: how many models.
        zeros: whether some models have entries of zero.
    """
    tables = {role: _rows(rng, (count, *shape), zeros) for role, shape in sizes.shapes(roles).items()}
    return ModelBatch(sizes, tables)


def _rows(rng: Generator, shape: tuple[int, ...], zeros: bool) -> NDArray[np.float64]:
    """Tables whose last axis sums to one, one style for each model."""
    count, n = shape[0], shape[-1]
    style = rng.choice(len(CORNERS), p=(0.3, 0.3, 0.1, 0.1, 0.15, 0.05), size=count)
    gammas, sharp, tied, mirrored, holed = (np.flatnonzero(style == k) for k in (0, 2, 3, 4, 5))

    def for_each(models: NDArray[np.intp], low: float, high: float) -> NDArray[np.float64]:
        return rng.uniform(low, high, size=(len(models),) + (1,) * (len(shape) - 1))

    table = 10.0 ** (-for_each(style, 0.5, 6) * rng.random(shape))
    concentration = np.exp(for_each(gammas, np.log(0.1), np.log(5)))
    table[gammas] = rng.standard_gamma(np.broadcast_to(concentration, (len(gammas), *shape[1:]))) + 1e-12
    peak = rng.integers(n, size=(len(sharp), *shape[1:-1], 1))
    table[sharp] = np.where(np.arange(n) == peak, 1.0, 10.0 ** -for_each(sharp, 1, 6))
    if len(shape) > 2:
        table[tied] = table[tied, :1]
        table[mirrored, 1::2] = table[mirrored, 0:1, ..., ::-1]
    if zeros and n > 1:
        holes = rng.random((len(holed), *shape[1:])) < 0.4
        holes[..., 0] &= ~holes.all(axis=-1)  # a row keeps at least one entry
        table[holed] = np.where(holes, 0.0, table[holed])
    return table / table.sum(axis=-1, keepdims=True)


def moved(rng: Generator, batch: ModelBatch, best: NDArray[np.intp], count: int) -> ModelBatch:
    """`count` models near the `best` ones: differential evolution on the logarithms of their tables.

    Each new table is a + f (b - c) + noise for three good models a, b, c; some tables are taken over unchanged.
    """
    a, b, c = (rng.choice(best, size=count) for _ in range(3))
    step = np.exp(rng.uniform(np.log(1e-3), np.log(1.0), size=count))
    tables: Tables = {}
    for role, table in batch.tables.items():
        if role == "joint":
            continue
        logs = np.log(np.maximum(table, 1e-12))
        lead = (count,) + (1,) * (table.ndim - 1)
        scale = step.reshape(lead)
        new = logs[a] + rng.uniform(0, 1, size=lead) * (logs[b] - logs[c]) * (rng.random(lead) < 0.7)
        new = new + scale * rng.standard_normal(new.shape)
        new = np.where(rng.random(lead) < 0.2, logs[a], new)
        tables[role] = _softmax(new)
    return ModelBatch(batch.sizes, tables)


def _softmax(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def joined(first: ModelBatch, second: ModelBatch) -> ModelBatch:
    """Two batches of one size as one."""
    roles = [role for role in first.tables if role != "joint"]
    return ModelBatch(first.sizes, {role: np.concatenate([first.tables[role], second.tables[role]]) for role in roles})


def first_of(batch: ModelBatch, count: int) -> ModelBatch:
    """The first models of a batch, `count` of them if there are so many."""
    return batch.block(0, count)


def chosen(batch: ModelBatch, index: NDArray[np.intp]) -> ModelBatch:
    """Some models of a batch."""
    return ModelBatch(batch.sizes, {role: t[index] for role, t in batch.tables.items() if role != "joint"})
