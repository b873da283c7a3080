"""Linear-Gaussian models for the tests of the closed-form evaluator, and the same laws as plain functions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
from scipy.stats import multivariate_normal

from boundcheck.catalogue import objectives as o
from boundcheck.evaluators import closed_form
from boundcheck.language import kl
from boundcheck.models.linear_gaussian import LinearGaussianModel


def value(formula: Any, model: LinearGaussianModel, x: Any, **parameters: Any) -> float:
    return closed_form.evaluate(formula, model, x, **parameters).value


def spd(rng: np.random.Generator, d: int, scale: float = 1.0) -> np.ndarray:
    a = rng.normal(size=(d, d + 3))
    return scale * (a @ a.T / (d + 3) + 0.1 * np.eye(d))


def parts_of(rng: np.random.Generator, d: int, n: int) -> dict[str, Any]:
    """The laws of a random model of d latent and n observed dimensions."""
    return {
        "prior": (rng.normal(size=d), spd(rng, d)),
        "likelihood": (rng.normal(size=(n, d)) / math.sqrt(d), rng.normal(size=n), spd(rng, n)),
        "encoder": (rng.normal(size=(d, n)) / math.sqrt(n), rng.normal(size=d), spd(rng, d, 0.5)),
        "corruption": (np.eye(n) + 0.1 * rng.normal(size=(n, n)), rng.normal(size=n), spd(rng, n, 0.3)),
        "auxiliary": (0.1 * rng.normal(size=(n, d)), 0.5 * np.eye(n), rng.normal(size=n), spd(rng, n)),
    }


def random_model(seed: int, d: int, n: int) -> tuple[LinearGaussianModel, np.ndarray]:
    rng = np.random.default_rng(seed)
    model = LinearGaussianModel(**parts_of(rng, d, n))
    return model, model.sample(1, rng)[0][0]


def kl_to_posterior(m: Any, x: Any) -> Any:
    return kl(m.encoder(x), m.posterior(x))


EVERY_FORMULA: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (o.log_evidence, {}),
    (o.elbo, {}),
    (kl_to_posterior, {}),
    (o.marginal_elbo, {}),
    (o.denoising_coupled, {}),
    (o.denoising_decoupled, {}),
    (o.dae_criterion, {}),
    (o.marginal_cross_entropy, {}),
    (o.renyi, {"alpha": "0.37"}),
    (o.eubo, {}),
    (o.hvm, {}),
    (o.hvm_prior, {}),
    (o.hvm_optimal, {}),
    (o.tvo_left, {"s": 3}),
    (o.tvo_right, {"s": 3}),
    (o.beta_objective, {"beta": "1/2"}),
    (o.free_bits, {"floor": 2}),
]


class OneDimension:
    """A model of one latent and one observed dimension, and its laws as plain functions."""

    m, p, w, b, s, a, c, q, cc, cd, k = 0.3, 1.2, 1.5, -0.2, 0.5, 0.4, 0.1, 0.45, 0.9, 0.05, 0.3
    rz, rx, r, t = 0.2, 0.7, -0.1, 0.6
    x = 0.8

    def __init__(self, q: float | None = None) -> None:
        self.q = self.q if q is None else q
        self.model = LinearGaussianModel(
            prior=(self.m, self.p),
            likelihood=(self.w, self.b, self.s),
            encoder=(self.a, self.c, self.q),
            corruption=(self.cc, self.cd, self.k),
            auxiliary=(self.rz, self.rx, self.r, self.t),
        )

    @staticmethod
    def log_normal(v: float, mean: float, variance: float) -> float:
        return -((v - mean) ** 2) / (2 * variance) - math.log(2 * math.pi * variance) / 2

    def log_joint(self, z: float) -> float:
        return self.log_normal(z, self.m, self.p) + self.log_normal(self.x, self.w * z + self.b, self.s)

    def log_q(self, z: float, given: float) -> float:
        return self.log_normal(z, self.a * given + self.c, self.q)

    def log_c(self, xt: float) -> float:
        return self.log_normal(xt, self.cc * self.x + self.cd, self.k)

    @staticmethod
    def integral(function: Callable[[float], float], low: float = -12, high: float = 12) -> float:
        return float(mpmath.fp.quad(function, [low, (low + high) / 2, high]))

    def over_corruption(self, function: Callable[[float], float]) -> float:
        center, width = self.cc * self.x + self.cd, 9 * math.sqrt(self.k)
        return self.integral(lambda v: math.exp(self.log_c(v)) * function(v), center - width, center + width)

    def mixed(self, z: float) -> float:
        """q~(z|x), by quadrature."""
        return self.over_corruption(lambda v: math.exp(self.log_q(z, v)))

    def over_encoder(self, function: Callable[[float], float]) -> float:
        return self.integral(lambda z: math.exp(self.log_q(z, self.x)) * function(z))


def marginal_of_x(model: LinearGaussianModel) -> Any:
    prior, likelihood = model.law("prior"), model.law("likelihood")
    (w,) = likelihood.matrices
    return multivariate_normal(w @ prior.offset + likelihood.offset, w @ prior.covariance @ w.T + likelihood.covariance)


def posterior_of(model: LinearGaussianModel, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Conditioning the joint normal law of (z, x): other algebra than completing the square."""
    prior, likelihood = model.law("prior"), model.law("likelihood")
    (w,) = likelihood.matrices
    cross = prior.covariance @ w.T
    gain = cross @ np.linalg.inv(w @ cross + likelihood.covariance)
    center = prior.offset + gain @ (x - w @ prior.offset - likelihood.offset)
    return center, prior.covariance - gain @ cross.T


def encoder_at(model: LinearGaussianModel, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    law = model.law("encoder")
    return law.matrices[0] @ x + law.offset, law.covariance


def kl_of_normals(m0: np.ndarray, s0: np.ndarray, m1: np.ndarray, s1: np.ndarray) -> float:
    inverse, shift = np.linalg.inv(s1), m1 - m0
    log_dets = np.linalg.slogdet(s1)[1] - np.linalg.slogdet(s0)[1]
    return float(np.trace(inverse @ s0) + shift @ inverse @ shift - len(m0) + log_dets) / 2


def ill_conditioned(rng: np.random.Generator) -> LinearGaussianModel:
    d, n = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    decades, far = rng.choice([0.0, 1.0, 3.0, 4.0]), 10.0 ** rng.choice([0, 4])

    def covariance(size: int, scale: float = 1.0) -> np.ndarray:
        turn = np.linalg.qr(rng.normal(size=(size, size)))[0]
        full = scale * (turn * 10.0 ** rng.uniform(-decades, decades, size)) @ turn.T
        return (full + full.T) / 2

    return LinearGaussianModel(
        prior=(far * rng.normal(size=d), covariance(d)),
        likelihood=(rng.normal(size=(n, d)), far * rng.normal(size=n), covariance(n)),
        encoder=(rng.normal(size=(d, n)), rng.normal(size=d), covariance(d, 0.5)),
        corruption=(np.eye(n), far * rng.normal(size=n), covariance(n, 0.3)),
        auxiliary=(0.1 * rng.normal(size=(n, d)), 0.5 * np.eye(n), rng.normal(size=n), covariance(n)),
    )


def sivi_two(a: float, b: float, s: float, t: float, x: float, mixing: dict[float, float]) -> float:
    """SIVI_2 for z ~ N(0, 1), x ~ N(a z, s^2), q(z|v) = N(b v + 0.2, t^2) and finitely many v.

    All choices of v are enumerated; the integral over z is a sum on a fine even grid.
    """
    noise = np.linspace(-14, 14, 8001)
    share = np.exp(-(noise**2) / 2) * (noise[1] - noise[0]) / math.sqrt(2 * math.pi)
    total = 0.0
    for own, weight in mixing.items():
        z = b * own + 0.2 + t * noise
        joint = -(z**2) / 2 - (x - a * z) ** 2 / (2 * s**2) - math.log(2 * math.pi * s)
        q = {v: np.exp(-((z - b * v - 0.2) ** 2) / (2 * t**2)) / (t * math.sqrt(2 * math.pi)) for v in mixing}
        for (v, p), (w, r) in itertools.product(mixing.items(), repeat=2):
            total += weight * p * r * float((share * (joint - np.log((q[own] + q[v] + q[w]) / 3))).sum())
    return total
