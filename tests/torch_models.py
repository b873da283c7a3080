"""Models with torch laws for the tests: finite ones from the oracle's tables, linear-Gaussian ones in closed form."""

from __future__ import annotations

import math

import numpy as np
import oracle
import torch
from torch.distributions import Categorical, Independent, MultivariateNormal, Normal

from boundcheck.models.torch_model import TorchModel


def as_torch(model: oracle.Model) -> TorchModel:
    def table(rows: object) -> torch.Tensor:
        return torch.tensor(np.array(rows, dtype=float), dtype=torch.float64)

    prior, likelihood, encoder = table(model.prior), table(model.likelihood), table(model.encoder)
    corruption, auxiliary = table(model.corruption), table(model.auxiliary)
    return TorchModel(
        prior=lambda: Categorical(prior),
        encoder=lambda x: Categorical(encoder[x]),
        decoder=lambda z: Categorical(likelihood[z]),
        corruption=lambda x: Categorical(corruption[x]),
        auxiliary=lambda z, x: Categorical(auxiliary[z, x]),
    )


class LinearGaussian:
    """z ~ N(0, I), x | z ~ N(Wz + b, s^2 I), q(z|x) = N(Ax + c, diag(v)), x~ ~ N(x, t^2 I), all in closed form."""

    def __init__(self, latent: int, observed: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.w, self.b, self.s = rng.normal(size=(observed, latent)), rng.normal(size=observed), 0.7
        self.a, self.c = rng.normal(size=(latent, observed)) * 0.3, rng.normal(size=latent) * 0.2
        self.v, self.t = rng.uniform(0.2, 0.6, size=latent), 0.3

    def torch(self) -> TorchModel:
        w, b, a, c, v = (torch.tensor(each) for each in (self.w, self.b, self.a, self.c, self.v))
        return TorchModel(
            prior=lambda: Independent(Normal(torch.zeros_like(c), torch.ones_like(c)), 1),
            encoder=lambda x: Independent(Normal(x @ a.T + c, v.sqrt()), 1),
            decoder=lambda z: Independent(Normal(z @ w.T + b, self.s), 1),
            corruption=lambda x: Independent(Normal(x, self.t), 1),
        )

    def log_evidence(self, x: np.ndarray) -> float:
        covariance = self.w @ self.w.T + self.s**2 * np.eye(len(self.b))
        gap = x - self.b
        return float(-0.5 * (gap @ np.linalg.solve(covariance, gap) + np.linalg.slogdet(2 * np.pi * covariance)[1]))

    def expected_log_joint(self, x: np.ndarray, spread: np.ndarray) -> float:
        """E log p(x, z) for z ~ N(Ax + c, spread)."""
        m = self.a @ x + self.c
        gap = x - self.w @ m - self.b
        likelihood = gap @ gap + np.trace(self.w @ spread @ self.w.T)
        prior = m @ m + np.trace(spread)
        constants = len(self.b) * math.log(2 * math.pi * self.s**2) + len(self.c) * math.log(2 * math.pi)
        return float(-0.5 * (likelihood / self.s**2 + prior + constants))

    def objective(self, x: np.ndarray, moved: float, between: float) -> float:
        """E log p(x,z) - E log q(z|.), where z's mean varies by moved * t^2 A A^T, and about q's by between * that."""
        tremor = self.t**2 * self.a @ self.a.T
        own = np.diag(self.v)
        cross = 0.5 * float(np.sum(np.log(2 * np.pi * self.v)) + np.trace(np.linalg.solve(own, own + between * tremor)))
        return self.expected_log_joint(x, own + moved * tremor) + cross


def exact_encoder(model: LinearGaussian) -> TorchModel:
    """The same model with its posterior for an encoder, whose every log-weight is log p(x)."""
    precision = np.eye(len(model.c)) + model.w.T @ model.w / model.s**2
    covariance = torch.tensor(np.linalg.inv(precision))
    gain = covariance @ torch.tensor(model.w.T) / model.s**2
    base = model.torch()
    return TorchModel(
        prior=base._functions["prior"],
        decoder=base._functions["likelihood"],
        encoder=lambda x: MultivariateNormal((x - torch.tensor(model.b)) @ gain.T, covariance),
    )
