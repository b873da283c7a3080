"""A small variational autoencoder of 8x8 binary digits: a model file as `boundcheck evaluate` reads it.

p(z) = N(0, I), p(x|z) a product of Bernoulli laws, q(z|x) a diagonal Gaussian, each with one hidden layer; and
salt-and-pepper corruption c(x~|x), which replaces each pixel with some probability by a fair coin. Copy it to start
your own: what counts is that each method returns a torch distribution with one law for each row.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

PIXELS = 64
LEVEL = 0.3


class DigitsVAE(nn.Module):
    """p(z), q(z|x), p(x|z) and c(x~|x) of binary images, flattened to (rows, 64)."""

    def __init__(self, latent: int = 10, hidden: int = 64) -> None:
        super().__init__()
        self.latent = latent
        self.encode = nn.Sequential(nn.Linear(PIXELS, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latent))
        self.decode = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, PIXELS))

    def prior(self) -> Distribution:
        """N(0, I)."""
        return Independent(Normal(torch.zeros_like(self.scale), torch.ones_like(self.scale)), 1)

    def encoder(self, x: Tensor) -> Distribution:
        """q(z | x), a Gaussian with diagonal covariance."""
        mean, log_scale = self.encode(2 * x - 1).chunk(2, dim=-1)
        return Independent(Normal(mean, log_scale.exp()), 1)

    def decoder(self, z: Tensor) -> Distribution:
        """p(x | z), one Bernoulli law for each pixel."""
        return Independent(Bernoulli(logits=self.decode(z)), 1)

    def corruption(self, x: Tensor) -> Distribution:
        """c(x~ | x): each pixel is, with probability LEVEL, replaced by a fair coin."""
        return Independent(Bernoulli(probs=(1 - LEVEL) * x + LEVEL / 2), 1)

    @property
    def scale(self) -> Tensor:
        """A vector of the latent's size, type and device."""
        return self.decode[0].weight[0]  # type: ignore[index]


def vae() -> DigitsVAE:
    """The model, without its weights."""
    return DigitsVAE()
