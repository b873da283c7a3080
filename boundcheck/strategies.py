"""Hypothesis strategies for finite models, for property-based tests of bounds in a user's own suite.

A table is drawn as small whole numbers, row by row, and divided by the row sums: so Hypothesis shrinks to few states
and to simple fractions. The corners where claims break are drawn on purpose and named as events, so that
`pytest --hypothesis-show-statistics` tells which of them a run met.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from hypothesis import event
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from boundcheck.errors import BadInput
from boundcheck.models.finite import FiniteModel

Row = list[Fraction]


def probabilities(size: int, *, zeros: bool = True) -> SearchStrategy[Row]:
    """Rows of `size` probabilities that sum to one; they shrink to equal entries.

    >>> from hypothesis import find
    >>> find(probabilities(2), lambda row: row[0] < row[1])
    [Fraction(1, 3), Fraction(2, 3)]
    """
    plain = st.lists(st.integers(1, 12), min_size=size, max_size=size)
    kinds: list[SearchStrategy[list[int]]] = [plain, _sharp(size)]
    if zeros and size > 1:
        kinds.append(st.lists(st.sampled_from([1, 0, 2, 5]), min_size=size, max_size=size).filter(any))
    return st.one_of(kinds).map(_normalised)


def _sharp(size: int) -> SearchStrategy[list[int]]:
    """Nearly deterministic rows: one entry outweighs the others by up to a million."""
    return st.tuples(st.integers(0, size - 1), st.integers(1, 6)).map(
        lambda where: [10 ** where[1] if i == where[0] else 1 for i in range(size)]
    )


def _normalised(weights: list[int]) -> Row:
    total = sum(weights)
    return [Fraction(weight, total) for weight in weights]


@st.composite
def finite_models(
    draw: DrawFn,
    latent: int = 3,
    corruption: int = 0,
    observed: int = 2,
    *,
    auxiliary: bool = False,
    zeros: bool = True,
    clean_encoder: bool = True,
) -> FiniteModel:
    """Finite models with up to `latent` states of z, `observed` of x and `corruption` of x~ (0: no corruption).

    Args:
        draw: given by Hypothesis.
        latent: the largest number of latent states.
        corruption: the largest number of corrupted inputs; 0 for models without a corruption.
        observed: the largest number of observations.
        auxiliary: whether the models have an auxiliary model r(x~ | z, x).
        zeros: whether probabilities may be zero.
        clean_encoder: with a corruption, give as many x~ as x, so that formulas may read q(z | x) too.

    Raises:
        BadInput: sizes below one, or an auxiliary model without a corruption.

    >>> from hypothesis import find
    >>> find(finite_models(latent=2), lambda model: model.sizes["z"] == 2).sizes
    {'x': 1, 'z': 2}
    """
    for name, value, least in (("latent", latent, 1), ("corruption", corruption, 0), ("observed", observed, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise BadInput(name, value, f"a number of states of at least {least}")
    if auxiliary and not corruption:
        raise BadInput("auxiliary", auxiliary, "corruption=2 or so beside it", "r(x~|z,x) needs the states of x~")
    n_z, n_x = draw(st.integers(1, latent)), draw(st.integers(1, observed))
    n_c = (min(n_x, corruption) if clean_encoder else draw(st.integers(1, corruption))) if corruption else 0
    if clean_encoder and n_c:
        n_x = n_c
    corner = draw(st.sampled_from(["plain", *CORNERS]))
    row = lambda n: draw(probabilities(n, zeros=zeros))  # noqa: E731
    prior, likelihood = row(n_z), [row(n_x) for _ in range(n_z)]
    encoder = [row(n_z) for _ in range(n_c or n_x)]
    tables: dict[str, Any] = {"prior": prior, "likelihood": likelihood, "encoder": encoder}
    if n_c:
        tables["corruption"] = [row(n_c) for _ in range(n_x)]
    if auxiliary:
        tables["auxiliary"] = [[row(n_c) for _ in range(n_x)] for _ in range(n_z)]
    if corner != "plain":
        CORNERS[corner](tables)
    event(f"boundcheck corner: {corner}")
    if any(entry == 0 for entry in (*prior, *(e for r in (*likelihood, *tables["encoder"]) for e in r))):
        event("boundcheck corner: zeros")
    return FiniteModel(**tables)


def _tie_likelihood(tables: dict[str, Any]) -> None:
    tables["likelihood"] = [tables["likelihood"][0]] * len(tables["likelihood"])


def _tie_encoder(tables: dict[str, Any]) -> None:
    tables["encoder"] = [tables["encoder"][0]] * len(tables["encoder"])


def _mirror(tables: dict[str, Any]) -> None:
    for name in ("encoder", "likelihood"):
        first = tables[name][0]
        tables[name] = [first if i % 2 == 0 else first[::-1] for i in range(len(tables[name]))]


def _posterior(tables: dict[str, Any]) -> None:
    prior, likelihood = tables["prior"], tables["likelihood"]
    rows = []
    for x in range(min(len(tables["encoder"]), len(likelihood[0]))):
        joint = [p * r[x] for p, r in zip(prior, likelihood, strict=True)]
        total = sum(joint)
        rows.append([entry / total for entry in joint] if total else tables["encoder"][x])
    tables["encoder"][: len(rows)] = rows


CORNERS: dict[str, Callable[[dict[str, Any]], None]] = {
    "equal rows": _tie_likelihood,
    "encoder ignores its input": _tie_encoder,
    "symmetric tables": _mirror,
    "encoder is the posterior": _posterior,
}
"""What the strategy draws on purpose, besides zeros and nearly deterministic rows."""


def alphas() -> SearchStrategy[Fraction]:
    """Renyi orders: simple fractions on both sides of 0 and 1."""
    return st.fractions(min_value=-3, max_value=4, max_denominator=4)


def copies(most: int = 4) -> SearchStrategy[int]:
    """Numbers of copies K."""
    return st.integers(1, most)


def betas() -> SearchStrategy[Fraction]:
    """Weights of a KL term."""
    return st.fractions(min_value=0, max_value=8, max_denominator=4)
