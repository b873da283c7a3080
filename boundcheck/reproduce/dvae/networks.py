"""The experiment's model: a VAE of binary images with a corruption of its input.

p(z) = N(0, I), p(x|z) a product of Bernoulli laws, q(z|x) a diagonal Gaussian, tanh layers between them; and one of
the two corruptions c(x~|x) of the released code of Im et al. (2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from boundcheck.errors import BadInput

CORRUPTIONS = ("salt-and-pepper", "gaussian")


class DenoisingVAE(nn.Module):
    """p(z), q(z|x), p(x|z) and c(x~|x) of binary images, of shape (rows, pixels).

    Args:
        pixels: of an image.
        hidden: the widths of the layers between pixels and latents; the decoder has them the other way round.
        latent: dimensions of z.
        corruption: "salt-and-pepper" picks each pixel with probability `level` and sets it to 1 with probability
            `level`, else to 0, as the released code of Im et al. (2015) does; "gaussian" adds N(0, level^2).
        level: of the corruption.

    Raises:
        BadInput: another corruption, or a level outside (0, 1) for salt and pepper or not positive for Gaussian noise.
    """

    def __init__(
        self, pixels: int, hidden: Sequence[int], latent: int, corruption: str = "salt-and-pepper", level: float = 0.1
    ) -> None:
        super().__init__()
        if corruption not in CORRUPTIONS:
            raise BadInput("corruption", corruption, " or ".join(CORRUPTIONS))
        if not (0 < level < 1 or (level >= 1 and corruption == "gaussian")):
            raise BadInput("level", level, "a probability between 0 and 1, or a positive standard deviation")
        self.corrupted_by, self.level = corruption, level
        self.encode = _layers([pixels, *hidden, 2 * latent])
        self.decode = _layers([latent, *reversed(hidden), pixels])
        self.register_buffer("origin", torch.zeros(latent), persistent=False)

    def prior(self) -> Distribution:
        """N(0, I)."""
        origin: Tensor = self.origin  # type: ignore[assignment]
        return Independent(Normal(origin, torch.ones_like(origin)), 1)

    def encoder(self, x: Tensor) -> Distribution:
        """q(z | x), a Gaussian with diagonal covariance."""
        mean, log_scale = self.encode(x).chunk(2, dim=-1)
        return Independent(Normal(mean, log_scale.exp()), 1)

    def decoder(self, z: Tensor) -> Distribution:
        """p(x | z), one Bernoulli law for each pixel."""
        return Independent(Bernoulli(logits=self.decode(z)), 1)

    def corruption(self, x: Tensor) -> Distribution:
        """c(x~ | x)."""
        if self.corrupted_by == "gaussian":
            return Independent(Normal(x, self.level), 1)
        return Independent(Bernoulli(probs=(1 - self.level) * x + self.level**2), 1)


def _layers(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers[:-1])
