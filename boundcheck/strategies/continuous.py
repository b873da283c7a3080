"""Continuous models with an observation: parameters are quarters and simple scales, and shrink to standard laws."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from boundcheck.claims import continuous_family
from boundcheck.errors import BadInput
from boundcheck.models.arithmetic import tanh
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import BernoulliLogit, Density, Laplace, Logistic, Mixture, Normal, StudentT
from boundcheck.models.linear_gaussian import LinearGaussianModel
from boundcheck.strategies.drawing import sizes_of, tell_corners

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
    (_, z), (_, d) = (sizes_of(name, value, 1) for name, value in (("latent", latent), ("data", data)))
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
    tell_corners(model, x)
    return model, x


__all__ = [
    "CONTINUOUS_CORNERS",
    "LINEAR_GAUSSIAN_CORNERS",
    "continuous_models",
    "data_density_models",
    "linear_gaussian_models",
    "relaxed_bernoulli_models",
]
