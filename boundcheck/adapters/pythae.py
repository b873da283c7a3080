"""A pythae VAE as p(x,z) and q(z|x), with the densities that its training loss implies.

pythae's networks return numbers, and the losses say what they mean: N(0, I) for z, a diagonal Gaussian encoder, and a
decoder whose output is a Bernoulli mean ("bce") or the mean of a Gaussian of variance one ("mse"). The training loss
leaves out that Gaussian's constant, D/2 log 2 pi; it is part of log p(x) all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boundcheck.errors import BadInput, require
from boundcheck.models.torch_model import TorchModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Bernoulli, Distribution, Independent, Normal
else:
    torch = require("torch", extra="torch", feature="a pythae model")
    Tensor = torch.Tensor
    Bernoulli, Distribution, Independent, Normal = (
        getattr(torch.distributions, name) for name in ("Bernoulli", "Distribution", "Independent", "Normal")
    )

MODELS = (
    "VAE",
    "BetaVAE",
    "DisentangledBetaVAE",
    "BetaTCVAE",
    "FactorVAE",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "CIWAE",
    "MSSSIM_VAE",
)
"""Models whose prior is N(0, I) and whose encoder is a diagonal Gaussian; only their training losses differ."""


def from_pythae(model: Any) -> TorchModel:
    """A TorchModel of a pythae model, put into evaluation mode.

    Args:
        model: one of `MODELS`, with `reconstruction_loss` "bce" or "mse".

    Raises:
        BadInput: another kind of model, or another reconstruction loss.

    >>> from pythae.models import VAE, VAEConfig
    >>> with torch.random.fork_rng():
    ...     wrapped = from_pythae(VAE(VAEConfig(input_dim=(1, 4, 4), latent_dim=2, reconstruction_loss="bce")))
    >>> wrapped.law("encoder", torch.zeros(3, 1, 4, 4)).event_shape
    torch.Size([2])
    """
    name = getattr(model, "model_name", type(model).__name__)
    if name not in MODELS or not isinstance(model, torch.nn.Module):
        raise BadInput("the model", name, f"one of pythae's {', '.join(MODELS)}", "write the laws as a TorchModel")
    loss = getattr(getattr(model, "model_config", None), "reconstruction_loss", None)
    if loss not in ("bce", "mse"):
        raise BadInput("the model's reconstruction_loss", loss, '"bce" or "mse"', "write the laws as a TorchModel")
    module: Any = model.eval()
    shape = tuple(module.input_dim)
    parameter = next(module.parameters())

    def prior() -> Distribution:
        origin = torch.zeros(module.latent_dim, dtype=parameter.dtype, device=parameter.device)
        return Independent(Normal(origin, torch.ones_like(origin)), 1)

    def encoder(x: Tensor) -> Distribution:
        output = module.encoder(x)
        return Independent(Normal(output.embedding, (0.5 * output.log_covariance).exp()), 1)

    def decoder(z: Tensor) -> Distribution:
        mean = module.decoder(z).reconstruction.reshape(len(z), *shape)
        if loss == "mse":
            return Independent(Normal(mean, torch.ones_like(mean)), len(shape))
        return Independent(Bernoulli(probs=mean), len(shape))

    wrapped = TorchModel(prior=prior, encoder=encoder, decoder=decoder)
    wrapped.module = module
    return wrapped


__all__ = ["MODELS", "from_pythae"]
