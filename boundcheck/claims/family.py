"""Families of finite models on which a claim is judged: random rational tables, and the corners where claims break.

The corners are met on purpose: zeros, nearly deterministic rows, equal rows, an encoder that ignores its input, an
encoder equal to the posterior, squares (whose geometric means are rational). The same seed gives the same models.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

from boundcheck.errors import UnknownName
from boundcheck.evaluators.strongest import Model
from boundcheck.models.finite import FiniteModel

Row = list[Fraction]


def finite_models(count: int, seed: int = 0) -> Iterator[FiniteModel]:
    """`count` models with 2 or 3 observations, latents and corrupted inputs, corruption and auxiliary included.

    More than half of the models are corners; the others are plain random tables with small denominators.

    >>> models = list(finite_models(3, seed=1))
    >>> [sorted(model.roles) for model in models][0]
    ['auxiliary', 'corruption', 'encoder', 'joint', 'likelihood', 'prior']
    """
    rng = random.Random(seed)
    corners = (None, None, None, None, *CORNERS)
    for number in range(count):
        corner = corners[number % len(corners)]
        yield _model(rng, corner)


def cases(family: str, count: int, seed: int = 0) -> Iterator[tuple[Model, Sequence[Any]]]:
    """`count` models of a family, each with the observations at which a claim is to be decided.

    Raises:
        UnknownName: there is no such family.
    """
    if family == "finite":
        for model in finite_models(count, seed):
            yield model, range(model.sizes["x"])
        return
    from boundcheck.claims import continuous_family

    if family not in CONTINUOUS:
        raise UnknownName("family", family, ("finite", *CONTINUOUS))
    yield from getattr(continuous_family, CONTINUOUS[family])(count, seed)


CONTINUOUS = {
    "linear-gaussian": "linear_gaussian",
    "gaussian-mixing": "gaussian_mixing",
    "relaxed-bernoulli": "relaxed_bernoulli",
    "data-densities": "data_densities",
}
"""The families of `continuous_family`, by the name that a claim gives."""


def _model(rng: random.Random, corner: str | None) -> FiniteModel:
    x, z = rng.choice((2, 2, 3)), rng.choice((2, 2, 3))
    row = _ROWS.get(corner or "", _plain_row)
    prior, likelihood = row(rng, z), [row(rng, x) for _ in range(z)]
    corruption = [row(rng, x) for _ in range(x)]
    encoder = [row(rng, z) for _ in range(x)]
    auxiliary = [[row(rng, x) for _ in range(x)] for _ in range(z)]
    if corner == "equal rows":
        likelihood = [likelihood[0]] * z
    if corner == "encoder ignores its input":
        encoder = [encoder[0]] * x
    if corner == "encoder is the posterior":
        encoder = [_normalised([prior[k] * likelihood[k][i] for k in range(z)]) for i in range(x)]
    return FiniteModel(prior=prior, likelihood=likelihood, encoder=encoder, corruption=corruption, auxiliary=auxiliary)


def _plain_row(rng: random.Random, n: int) -> Row:
    return _normalised([Fraction(rng.randint(1, 12)) for _ in range(n)])


def _row_with_zeros(rng: random.Random, n: int) -> Row:
    entries = [Fraction(rng.choice((0, 1, 1, 2, 5))) for _ in range(n)]
    return _normalised(entries) if any(entries) else _plain_row(rng, n)


def _nearly_deterministic_row(rng: random.Random, n: int) -> Row:
    small = Fraction(1, 10 ** rng.randint(2, 6))
    entries = [small] * n
    entries[rng.randrange(n)] = 1 - (n - 1) * small
    return entries


def _row_of_squares(rng: random.Random, n: int) -> Row:
    return _normalised([Fraction(rng.randint(1, 6) ** 2) for _ in range(n)])


def _normalised(entries: list[Fraction]) -> Row:
    total = sum(entries, Fraction(0))
    return [entry / total for entry in entries]


_ROWS: dict[str, Callable[[random.Random, int], Row]] = {
    "zeros": _row_with_zeros,
    "nearly deterministic": _nearly_deterministic_row,
    "squares": _row_of_squares,
}

CORNERS = (
    "zeros",
    "nearly deterministic",
    "equal rows",
    "encoder ignores its input",
    "encoder is the posterior",
    "squares",
)
"""The names of the corners, in the order in which they come."""
