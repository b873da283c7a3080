"""Hypothesis strategies for models and parameters, for property-based tests of bounds in a user's own suite.

A table is drawn as small whole numbers, row by row, and divided by the row sums: so Hypothesis shrinks to few states
and to simple fractions. Continuous laws are drawn with parameters that are halves and quarters, and shrink to
standard ones. The corners where claims break are drawn on purpose and named as events, so that
`pytest --hypothesis-show-statistics` tells which of them a test met; so does the summary of the pytest plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from fractions import Fraction
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from boundcheck.claims import continuous_family
from boundcheck.errors import BadInput, UnknownName
from boundcheck.models.arithmetic import tanh
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import BernoulliLogit, Density, Laplace, Logistic, Mixture, Normal, StudentT
from boundcheck.models.finite import FiniteModel
from boundcheck.models.linear_gaussian import LinearGaussianModel
from boundcheck.search.corners import corners_of

Row: TypeAlias = list[Fraction]
Size: TypeAlias = int | tuple[int, int]

# --- finite models -------------------------------------------------------------------------------------------------


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
        _sizes(name, value, least)
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
    for name, met in corners_of(model).items():
        if met:
            event(f"boundcheck corner: {name}")
    return model


def _sizes(name: str, value: Any, least: int) -> tuple[int, int]:
    low, high = least, value
    if isinstance(value, tuple) and len(value) == 2:
        low, high = value
    for each in (low, high):
        if isinstance(each, bool) or not isinstance(each, int) or each < least:
            raise BadInput(name, value, f"a whole number of at least {least}, or a pair of such numbers")
    if low > high:
        raise BadInput(name, value, "a pair of the smallest and the largest number")
    return low, high


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

# --- continuous models ---------------------------------------------------------------------------------------------

Case: TypeAlias = tuple[Any, Any]
"""A model and an observation."""

_NARROW, _WIDE = Fraction(1, 32), 4


@cache
def _numbers(most: int = 2) -> SearchStrategy[float]:
    """Quarters from -most to most; they shrink to 0."""
    return st.integers(-4 * most, 4 * most).map(lambda n: n / 4)


@cache
def _scales() -> SearchStrategy[float]:
    """Scales that shrink to 1 and include a narrow and a wide one."""
    return st.sampled_from([1.0, 0.5, 2.0, 0.75, 1.5, 0.25, float(_WIDE), float(_NARROW)])


@st.composite
def linear_gaussian_models(
    draw: DrawFn, latent: int = 2, data: int = 2, *, corruption: bool = False, auxiliary: bool = False
) -> tuple[LinearGaussianModel, list[float]]:
    """Pairs of a linear-Gaussian model and an observation, of up to `latent` and `data` dimensions.

    Entries are quarters and variances simple; both shrink to the standard normal. Corners: an encoder that ignores
    its input or is the posterior, a decoder that ignores z, narrow laws, everything symmetric about zero.

    Args:
        draw: given by Hypothesis.
        latent: the largest dimension of z.
        data: the largest dimension of x.
        corruption: whether there is a corruption c(x~|x) = N(x, variances).
        auxiliary: whether there is an auxiliary model too; with a corruption only.

    Raises:
        BadInput: dimensions below one, or an auxiliary model without a corruption.

    >>> from hypothesis import find
    >>> model, x = find(linear_gaussian_models(), lambda case: case[0].latent_dimension == 2)
    >>> model.law("prior").covariance.tolist(), x
    ([[1.0, 0.0], [0.0, 1.0]], [0.0])
    """
    (_, z), (_, d) = (_sizes(name, value, 1) for name, value in (("latent", latent), ("data", data)))
    if auxiliary and not corruption:
        raise BadInput("auxiliary", auxiliary, "corruption=True beside it", "r(x~|z,x) needs the law of x~")
    z, d = draw(st.integers(1, z)), draw(st.integers(1, d))
    corner = draw(st.sampled_from(["plain", *LINEAR_GAUSSIAN_CORNERS]))
    centred = corner == "symmetric about zero"
    narrow = corner == "nearly deterministic laws"

    def matrix(rows: int, columns: int) -> list[list[float]]:
        return [[draw(_numbers()) for _ in range(columns)] for _ in range(rows)]

    def vector(n: int) -> list[float]:
        return [0.0 if centred else draw(_numbers()) for _ in range(n)]

    def variances(n: int) -> list[float]:
        return [float(_NARROW) ** 2 if narrow else draw(_scales()) for _ in range(n)]

    weights = [[0.0] * z for _ in range(d)] if corner == "decoder ignores the latent" else matrix(d, z)
    prior, likelihood = ([0.0] * z, [1.0] * z), (weights, vector(d), variances(d))
    encoder: tuple[Any, ...] = (matrix(z, d), vector(z), variances(z))
    if corner == "encoder ignores its input":
        encoder = ([[0.0] * d for _ in range(z)], *encoder[1:])
    if corner == "encoder is the posterior":
        encoder = _linear_posterior(*(np.array(part, dtype=float) for part in likelihood))
    laws: dict[str, Any] = {"prior": prior, "likelihood": likelihood, "encoder": encoder}
    if corruption:
        laws["corruption"] = (np.eye(d).tolist(), [0.0] * d, variances(d))
    if auxiliary:
        laws["auxiliary"] = (matrix(d, z), matrix(d, d), vector(d), variances(d))
    return _case(LinearGaussianModel(**laws), [draw(_numbers()) for _ in range(d)])


LINEAR_GAUSSIAN_CORNERS = (
    "encoder ignores its input",
    "encoder is the posterior",
    "decoder ignores the latent",
    "nearly deterministic laws",
    "symmetric about zero",
)
"""What `linear_gaussian_models` draws on purpose."""


def _linear_posterior(weights: Any, offset: Any, variances: Any) -> tuple[Any, ...]:
    """p(z|x) under a standard normal prior, as an encoder."""
    gain = weights.T @ np.linalg.inv(weights @ weights.T + np.diag(variances))
    covariance = np.eye(weights.shape[1]) - gain @ weights
    return gain, -gain @ offset, (covariance + covariance.T) / 2


@st.composite
def continuous_models(draw: DrawFn) -> tuple[ContinuousModel, float | int]:
    """Pairs of a model with one real latent and an observation: none of the laws need be normal.

    p(z) is a normal, Laplace, logistic, Student or mixture law; p(x|z) a normal law about a z + b or a tanh z + b, or
    a Bernoulli law with the logit a z + b; q(z|x) a normal law about c x + d. They shrink to standard normal laws.
    Corners: an encoder that ignores its input or is the prior, a decoder that ignores z, a narrow encoder.

    >>> from hypothesis import find
    >>> model, x = find(continuous_models(), lambda case: isinstance(case[0].prior, Laplace))
    >>> model.prior, model.encoder(x)
    (Laplace(location=0.0, scale=1.0), Normal(mean=0.0, scale=1.0))
    """
    corner = draw(st.sampled_from(["plain", *CONTINUOUS_CORNERS]))
    prior = draw(_priors())
    slope = 0.0 if corner == "decoder ignores the latent" else draw(_numbers())
    offset, noise = draw(_numbers(1)), draw(st.sampled_from([1.0, 0.5, 2.0]))
    kind = draw(st.sampled_from(["line", "curve", "binary"]))
    likelihood: dict[str, Callable[[Any], Density]] = {
        "line": lambda z: Normal(slope * z + offset, noise),
        "curve": lambda z: Normal(slope * tanh(z) + offset, noise),
        "binary": lambda z: BernoulliLogit(slope * z + offset),
    }
    gain, shift, scale = draw(_numbers(1)), draw(_numbers(1)), draw(_scales())
    if corner == "nearly deterministic laws":
        scale = float(_NARROW)
    encoder: Callable[[Any], Density] = lambda x: Normal(gain * x + shift, scale)  # noqa: E731
    if corner == "encoder ignores its input":
        encoder = lambda x: Normal(shift, scale)  # noqa: E731
    if corner == "encoder is the prior":
        encoder = lambda x: prior  # noqa: E731
    x = draw(st.integers(0, 1)) if kind == "binary" else draw(_numbers())
    return _case(ContinuousModel(prior, likelihood[kind], encoder), x)


CONTINUOUS_CORNERS = (
    "encoder ignores its input",
    "encoder is the prior",
    "decoder ignores the latent",
    "nearly deterministic laws",
)
"""What `continuous_models` draws on purpose."""


@cache
def _priors() -> SearchStrategy[Density]:
    scale = st.sampled_from([1.0, 0.5, 2.0])
    return st.one_of(
        st.builds(Normal, _numbers(1), scale),
        st.builds(Laplace, _numbers(1), scale),
        st.builds(Logistic, _numbers(1), scale),
        st.builds(StudentT, st.sampled_from([3, 5, 10]), _numbers(1), scale),
        st.builds(
            lambda first, second, width: Mixture((0.5, 0.5), (Normal(first, width), Normal(second, 1.0))),
            _numbers(1),
            _numbers(1),
            scale,
        ),
    )


@st.composite
def relaxed_bernoulli_models(draw: DrawFn) -> tuple[ContinuousModel, tuple[int, ...]]:
    """Pairs of a model with one relaxed binary latent (see `claims.continuous_family`) and an observation.

    >>> from hypothesis import find
    >>> model, x = find(relaxed_bernoulli_models(), lambda case: True)
    >>> model.prior, x
    (Logistic(location=0.0, scale=1.0), (1, 0, 1))
    """
    prior_logit, logit, slope, offset = (draw(_numbers(most)) for most in (1, 2, 1, 1))
    temperature = draw(st.sampled_from([1.0, 0.75, 0.5, 0.4]))
    model, (x,) = continuous_family.relaxed_model(prior_logit, logit, temperature, slope, offset)
    return _case(model, x)


@st.composite
def data_density_models(draw: DrawFn) -> tuple[ContinuousModel, int]:
    """Pairs of a density fitted to whole numbers (see `claims.continuous_family`) and an observation.

    >>> from hypothesis import find
    >>> find(data_density_models(), lambda case: True)[0].prior
    Normal(mean=0.0, scale=1.0)
    """
    law: Density = Normal(draw(_numbers()), draw(st.sampled_from([1.0, 0.5, 2.0, 0.1])))
    if draw(st.booleans()):
        law = Mixture((0.5, 0.5), (law, Normal(draw(_numbers()), draw(st.sampled_from([1.0, 0.5])))))
    x = draw(st.integers(0, 2))
    return _case(continuous_family.data_density(law, x), x)


def _case(model: Any, x: Any) -> Case:
    for name, met in corners_of(model, x).items():
        if met:
            event(f"boundcheck corner: {name}")
    return model, x


# --- parameters of formulas ----------------------------------------------------------------------------------------


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
