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
    lead = (count,) + (1,) * (len(shape) - 1)
    concentration = np.exp(rng.uniform(np.log(0.1), np.log(5), size=lead))
    gammas = rng.standard_gamma(np.broadcast_to(concentration, shape)) + 1e-12
    width = rng.uniform(0.5, 6, size=lead)
    logs = 10.0 ** (-width * rng.random(shape))
    sharp = np.where(np.arange(n) == rng.integers(n, size=(*shape[:-1], 1)), 1.0, 10.0 ** -rng.uniform(1, 6, size=lead))
    style = rng.choice(len(CORNERS), p=(0.3, 0.3, 0.1, 0.1, 0.15, 0.05), size=lead)
    table = np.where(style == 0, gammas, np.where(style == 2, sharp, logs))
    if len(shape) > 2:
        table = np.where(style == 3, table[:, :1], table)
        mirrored = table.copy()
        mirrored[:, 1::2] = table[:, 0:1, ..., ::-1]
        table = np.where(style == 4, mirrored, table)
    if zeros and n > 1:
        holes = rng.random(shape) < 0.4
        holes[..., 0] &= ~holes.all(axis=-1)  # a row keeps at least one entry
        table = np.where((style == 5) & holes, 0.0, table)
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


def chosen(batch: ModelBatch, index: NDArray[np.intp]) -> ModelBatch:
    """Some models of a batch."""
    return ModelBatch(batch.sizes, {role: t[index] for role, t in batch.tables.items() if role != "joint"})
