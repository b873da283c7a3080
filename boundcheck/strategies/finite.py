"""Finite models: tables whose rows are small whole numbers, divided by their sums, and the corners on purpose."""

from __future__ import annotations

from collections.abc import Callable, Collection
from fractions import Fraction
from functools import cache
from typing import Any, TypeAlias

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from boundcheck.errors import BadInput, UnknownName
from boundcheck.models.finite import FiniteModel
from boundcheck.strategies.drawing import Size, sizes_of, tell_corners

Row: TypeAlias = list[Fraction]

_PLAIN = (1, 2, 3, 4, 5, 6, 8, 10, 12)


@cache  # a strategy that Hypothesis has seen before need not be validated again
def probabilities(size: int, *, zeros: bool = True) -> SearchStrategy[Row]:
    """Rows of `size` probabilities that sum to one; they shrink to equal entries.

    Each entry has a weight of its own, the simplest first; so rows shrink entry by entry, whatever they are. Half of
    the rows are plain; zeros and weights of up to a million make the others sparse and nearly deterministic.

    >>> from hypothesis import find
    >>> find(probabilities(2), lambda row: row[0] < row[1])
    [Fraction(1, 3), Fraction(2, 3)]
    """
    weights = [*_PLAIN, *([0, 0, 0] if zeros and size > 1 else []), 100, 1000, 10**4, 10**6, *_PLAIN[1:]]
    rows = st.lists(st.sampled_from(weights), min_size=size, max_size=size)
    return rows.map(lambda row: _normalised(row if any(row) else [1] * size))


@cache
def _states(low: int, high: int) -> SearchStrategy[int]:
    """Numbers of states that shrink to the lowest, which is drawn least: one state makes every bound tight."""
    return st.sampled_from([*range(low, high + 1), *range(low + 1, high + 1)])


def _normalised(weights: list[int]) -> Row:
    total = sum(weights)
    return [Fraction(weight, total) for weight in weights]


@st.composite
def finite_models(
    draw: DrawFn,
    latent: Size = 3,
    corruption: Size = 0,
    observed: Size = 2,
    *,
    auxiliary: bool = False,
    zeros: bool = True,
    clean_encoder: bool = True,
    corners: Collection[str] | None = None,
) -> FiniteModel:
    """Finite models with up to `latent` states of z, `observed` of x and `corruption` of x~ (0: no corruption).

    Args:
        draw: given by Hypothesis.
        latent: the largest number of latent states, or a pair of the smallest and the largest.
        corruption: the same for corrupted inputs; 0 for models without a corruption.
        observed: the same for observations; with a corruption and a clean encoder it does not count.
        auxiliary: whether the models have an auxiliary model r(x~ | z, x).
        zeros: whether probabilities may be zero.
        clean_encoder: with a corruption, give as many x~ as x, so that formulas may read q(z | x) too.
        corners: draw only models of these corners, names among `CORNERS`; by default all of them and plain ones.

    Raises:
        BadInput: sizes below one, or an auxiliary model without a corruption.
        UnknownName: a corner that there is not.

    >>> from hypothesis import find
    >>> find(finite_models(latent=2), lambda model: model.sizes["z"] == 2).sizes
    {'x': 1, 'z': 2}
    >>> model = find(finite_models(corners=["encoder ignores its input"], observed=(2, 2)), lambda model: True)
    >>> (model.table("encoder")[0] == model.table("encoder")[1]).all()
    np.True_
    """
    (low_z, high_z), (low_c, high_c), (low_x, high_x) = (
        sizes_of(name, value, least)
        for name, value, least in (("latent", latent, 1), ("corruption", corruption, 0), ("observed", observed, 1))
    )
    if auxiliary and not high_c:
        raise BadInput("auxiliary", auxiliary, "corruption=2 or so beside it", "r(x~|z,x) needs the states of x~")
    for name in corners or ():
        if name not in CORNERS:
            raise UnknownName("corner", name, CORNERS)
    n_z, n_x = draw(_states(low_z, high_z)), draw(_states(low_x, high_x))
    n_c = draw(_states(max(low_c, 1), high_c)) if high_c else 0
    if clean_encoder and n_c:
        n_x = n_c
    drawn = [name for name in CORNERS if zeros or name not in WITH_ZEROS]
    corner = draw(st.sampled_from(["plain", *drawn] if corners is None else sorted(corners, key=[*CORNERS].index)))

    def rows(count: int, n: int) -> list[Row]:
        return [draw(probabilities(n, zeros=zeros)) for _ in range(count)]

    tables: dict[str, Any] = {"prior": rows(1, n_z)[0], "likelihood": rows(n_z, n_x), "encoder": rows(n_c or n_x, n_z)}
    if n_c:
        tables["corruption"] = rows(n_x, n_c)
    if auxiliary:
        tables["auxiliary"] = [rows(n_x, n_c) for _ in range(n_z)]
    if corner != "plain":
        CORNERS[corner](tables)
    model = FiniteModel(**tables)
    tell_corners(model)
    return model


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


def _prior(tables: dict[str, Any]) -> None:
    tables["encoder"] = [tables["prior"]] * len(tables["encoder"])


def _tiny(tables: dict[str, Any]) -> None:
    """One state of z is nearly impossible under the prior, another under the encoder."""
    small = Fraction(1, 10**6)
    for row, place in ((tables["prior"], 0), *((row, -1) for row in tables["encoder"])):
        if len(row) > 1:
            rest = 1 - row[place]
            row[:] = [(1 - small) * (entry / rest if rest else Fraction(1, len(row) - 1)) for entry in row]
            row[place] = small


def _sparse(tables: dict[str, Any]) -> None:
    """The encoder never gives its first state, and the last state of z never gives the first observation."""
    for row in (*tables["encoder"], tables["likelihood"][-1]):
        if len(row) > 1:
            rest = 1 - row[0]
            row[:] = [entry / rest if rest else Fraction(1, len(row) - 1) for entry in row]
            row[0] = Fraction(0)


def _nearly_deterministic(tables: dict[str, Any]) -> None:
    """Each row of the encoder has one state with nearly all of its probability."""
    for i, row in enumerate(tables["encoder"]):
        row[:] = _normalised([400 if j == i % len(row) else 1 for j in range(len(row))])


def _nothing_corrupted(tables: dict[str, Any]) -> None:
    rows = tables.get("corruption", [])
    if rows and len(rows) == len(rows[0]):
        tables["corruption"] = [[Fraction(int(i == j)) for j in range(len(rows))] for i in range(len(rows))]


def _auxiliary_is_the_corruption(tables: dict[str, Any]) -> None:
    if "auxiliary" in tables:
        tables["auxiliary"] = [tables["corruption"] for _ in tables["auxiliary"]]


CORNERS: dict[str, Callable[[dict[str, Any]], None]] = {
    "equal rows": _tie_likelihood,
    "encoder ignores its input": _tie_encoder,
    "symmetric tables": _mirror,
    "encoder is the posterior": _posterior,
    "encoder is the prior": _prior,
    "tiny probabilities": _tiny,
    "zeros": _sparse,
    "nearly deterministic rows": _nearly_deterministic,
    "nothing is corrupted": _nothing_corrupted,
    "auxiliary is the corruption": _auxiliary_is_the_corruption,
}
"""What is drawn on purpose; plain rows have zeros and weights of up to a million here and there too."""

WITH_ZEROS = ("zeros", "nothing is corrupted")
"""The corners with probabilities of zero, which are not drawn where there shall be none."""

__all__ = ["CORNERS", "WITH_ZEROS", "finite_models", "probabilities"]
