"""Families of continuous models on which the continuous claims are judged; seeded, with parameters of few digits."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import BernoulliLogit, Density, Discrete, Logistic, Mixture, Normal, Uniform
from boundcheck.models.linear_gaussian import LinearGaussianModel


def _pick(rng: random.Random, low: float, high: float) -> float:
    return round(rng.uniform(low, high), 2)


def linear_gaussian(count: int, seed: int) -> Iterator[tuple[LinearGaussianModel, list[Any]]]:
    """Linear-Gaussian models of one or two dimensions with corruption and auxiliary model, and an observation.

    >>> model, (x,) = next(linear_gaussian(1, seed=0))
    >>> model.latent_dimension <= 2
    True
    """
    rng = random.Random(seed)
    for _ in range(count):
        z, x = rng.choice((1, 1, 2)), rng.choice((1, 2))

        def matrix(rows: int, columns: int, size: float = 1.5) -> list[list[float]]:
            return [[_pick(rng, -size, size) for _ in range(columns)] for _ in range(rows)]

        def vector(n: int) -> list[float]:
            return [_pick(rng, -1, 1) for _ in range(n)]

        def variances(n: int) -> list[float]:
            return [_pick(rng, 0.1, 2) for _ in range(n)]

        identity = [[float(i == j) for j in range(x)] for i in range(x)]
        model = LinearGaussianModel(
            prior=([0.0] * z, [1.0] * z),
            likelihood=(matrix(x, z), vector(x), variances(x)),
            encoder=(matrix(z, x, 0.8), vector(z), variances(z)),
            corruption=(identity, [0.0] * x, variances(x)),
            auxiliary=(matrix(x, z, 0.5), matrix(x, x, 0.5), vector(x), variances(x)),
        )
        yield model, [[_pick(rng, -2, 2) for _ in range(x)]]


def gaussian_mixing(count: int, seed: int) -> Iterator[tuple[LinearGaussianModel, list[Any]]]:
    """One-dimensional linear-Gaussian models for semi-implicit encoders; every other one mixes widely.

    A tenth as many as asked for: a certified mean of the logarithm of two densities takes tenths of a second.

    >>> len(list(gaussian_mixing(60, seed=0)))
    6
    """
    rng = random.Random(seed)
    for number in range(-(-count // 10)):
        wide = number % 2 == 0
        slope = rng.choice((-1, 1)) * (_pick(rng, 0.8, 1.5) if wide else _pick(rng, 0.2, 0.8))
        model = LinearGaussianModel(
            prior=(0.0, 1.0),
            likelihood=(_pick(rng, -1.5, 1.5), _pick(rng, -1, 1), _pick(rng, 0.3, 2)),
            encoder=(slope, _pick(rng, -0.5, 0.5), _pick(rng, 0.02, 0.1) if wide else _pick(rng, 0.2, 1.5)),
            corruption=(1.0, 0.0, _pick(rng, 0.5, 2)),
        )
        yield model, [[_pick(rng, -2, 2)]]


def relaxed_bernoulli(count: int, seed: int) -> Iterator[tuple[ContinuousModel, list[Any]]]:
    """One relaxed binary latent, on the logit scale (Maddison et al. 2017, binary concrete).

    z ~ Logistic(b/t, 1/t) is the logit of a relaxed Bernoulli(sigmoid(b)) at temperature t; the decoder reads z. The
    discrete laws that are relaxed stand in the roles of the corruption (the encoder's) and of the auxiliary model
    (the prior's).
    """
    rng = random.Random(seed)
    for _ in range(count):
        yield relaxed_model(
            *(_pick(rng, low, high) for low, high in ((-1, 1), (-2, 2), (0.4, 1), (-1.5, 1.5), (-1, 1)))
        )


def relaxed_model(
    prior_logit: float, logit: float, temperature: float, slope: float, offset: float
) -> tuple[ContinuousModel, list[Any]]:
    """The model of `relaxed_bernoulli` with these parameters, and three binary observations."""

    def bernoulli(at: float) -> Discrete:
        from math import exp

        one = 1 / (1 + exp(-at))
        return Discrete({0: 1 - one, 1: one})

    scale = 1 / temperature
    model = ContinuousModel(
        prior=Logistic(prior_logit * scale, scale),
        likelihood=lambda z: [BernoulliLogit(slope * z + offset + shift) for shift in (-0.5, 0.0, 0.5)],
        encoder=lambda x: Logistic(logit * scale, scale),
        corruption=lambda x: bernoulli(logit),
        auxiliary=lambda z, x: bernoulli(prior_logit),
    )
    return model, [(1, 0, 1)]


def data_densities(count: int, seed: int) -> Iterator[tuple[ContinuousModel, list[Any]]]:
    """Densities fitted to whole numbers x: in the role of the prior; uniform noise on [x, x + 1) in the encoder's.

    The corruption moves x to the middle of its cell, where the noise is a fiftieth as wide.
    """
    rng = random.Random(seed)

    for number in range(count):
        width = _pick(rng, 0.05, 0.2) if number % 3 == 0 else _pick(rng, 0.3, 3)
        first = Normal(_pick(rng, -1, 3), width)
        law = first if number % 2 else Mixture((0.5, 0.5), (first, Normal(_pick(rng, -1, 3), _pick(rng, 0.3, 2))))
        x = rng.randrange(0, 3)
        yield data_density(law, x), [x]


def data_density(law: Density, x: int) -> ContinuousModel:
    """The model of `data_densities` with this density, for the observation x."""
    return ContinuousModel(
        prior=law,
        likelihood=lambda z: Normal(z, 1),
        encoder=_noise_around(x),
        corruption=lambda x: Discrete({x + Fraction(1, 2): 1}),
    )


def _noise_around(x: int) -> Callable[[Any], Uniform]:
    """Uniform on [x, x + 1) at x, and on the middle fiftieth of that cell at x + 1/2."""
    return lambda at: Uniform(x + 0.98 * (at - x), x + 1 - 0.98 * (at - x))
