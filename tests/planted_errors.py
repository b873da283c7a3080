"""Small wrong objectives of the kinds that real projects had, and right ones beside them, for a VAE of binary images.

Each is what its author would hand to `boundcheck evaluate`: a function of the model and a batch, with what its numbers
mean and what it is said to be. All models have N(0, I) priors, diagonal Gaussian encoders and Bernoulli decoders.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

from boundcheck.evidence.objective import TrainingObjective

K = 50


@dataclass(frozen=True)
class Planted:
    """An objective, what its author says it is (with its parameters), and whether its data are grey."""

    name: str
    objective: TrainingObjective
    said_to_be: str = "elbo"
    parameters: tuple[tuple[str, Any], ...] = ()
    grey: bool = False


def _parts(model: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Normal]:
    """z ~ q(z|x), log p(x|z), the analytic KL of each dimension, and the encoder."""
    law = model.encoder(x)
    z = law.rsample()
    kl = kl_divergence(law.base_dist, model.prior().base_dist)
    return z, model.decoder(z).log_prob(x), kl, law


# --- right ones ----------------------------------------------------------------------------------------------------


def elbo(model: Any, x: Tensor) -> Tensor:
    _, reconstruction, kl, _ = _parts(model, x)
    return reconstruction - kl.sum(-1)


def elbo_sampled(model: Any, x: Tensor) -> Tensor:
    z, reconstruction, _, law = _parts(model, x)
    return reconstruction + model.prior().log_prob(z) - law.log_prob(z)


def elbo_loss_of_a_batch(model: Any, x: Tensor) -> Tensor:
    return -elbo(model, x).mean()


def elbo_in_bits_per_pixel(model: Any, x: Tensor) -> Tensor:
    return -elbo(model, x) / math.log(2) / x.shape[-1]


def _log_weights(model: Any, x: Tensor) -> Tensor:
    law = model.encoder(x)
    z = law.rsample((K,))
    likelihood = model.decoder(z.flatten(0, 1)).log_prob(x.repeat(K, 1)).unflatten(0, (K, -1))
    return likelihood + model.prior().log_prob(z) - law.log_prob(z)


def iwae(model: Any, x: Tensor) -> Tensor:
    return _log_weights(model, x).logsumexp(0) - math.log(K)


def denoising_coupled(model: Any, x: Tensor) -> Tensor:
    law = model.encoder(model.corruption(x).sample())
    return model.decoder(law.rsample()).log_prob(x) - kl_divergence(law, model.prior())


# --- wrong ones ----------------------------------------------------------------------------------------------------


def kl_averaged_over_dimensions(model: Any, x: Tensor) -> Tensor:
    _, reconstruction, kl, _ = _parts(model, x)
    return reconstruction - kl.mean(-1)


def reconstruction_averaged_over_pixels(model: Any, x: Tensor) -> Tensor:
    _, reconstruction, kl, _ = _parts(model, x)
    return reconstruction / x.shape[-1] - kl.sum(-1)


def wrong_sign_of_kl(model: Any, x: Tensor) -> Tensor:
    _, reconstruction, kl, _ = _parts(model, x)
    return reconstruction + kl.sum(-1)


def log_variance_taken_for_log_scale(model: Any, x: Tensor) -> Tensor:
    """The network's output is a log-scale; the KL reads it as a log-variance, the sampler does not."""
    _, reconstruction, _, law = _parts(model, x)
    mean, log_variance = law.base_dist.loc, law.base_dist.scale.log()
    return reconstruction + 0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(-1)


def missing_log_two_pi(model: Any, x: Tensor) -> Tensor:
    """-z^2/2 for the prior, the full density for the encoder."""
    z, reconstruction, _, law = _parts(model, x)
    return reconstruction - 0.5 * z.square().sum(-1) - law.log_prob(z)


def logsumexp_without_log_k(model: Any, x: Tensor) -> Tensor:
    return _log_weights(model, x).logsumexp(0)


def mean_of_logs(model: Any, x: Tensor) -> Tensor:
    return _log_weights(model, x).mean(0)


def kl_summed_over_the_batch(model: Any, x: Tensor) -> Tensor:
    _, reconstruction, kl, _ = _parts(model, x)
    return -(reconstruction.mean() - kl.sum())


def decoupled_denoising_density(model: Any, x: Tensor) -> Tensor:
    sampled, other = model.corruption(x).sample((2,))
    z = model.encoder(sampled).rsample()
    return model.decoder(z).log_prob(x) + model.prior().log_prob(z) - model.encoder(other).log_prob(z)


def grey_pixels_in_a_bernoulli(model: Any, x: Tensor) -> Tensor:
    law = model.encoder(x)
    logits = model.decoder(law.rsample()).base_dist.logits
    cross_entropy = binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
    return cross_entropy + kl_divergence(law, model.prior())


def beta_below_one(model: Any, x: Tensor) -> Tensor:
    _, reconstruction, kl, _ = _parts(model, x)
    return reconstruction - 0.5 * kl.sum(-1)


def encoder_mean_instead_of_a_sample(model: Any, x: Tensor) -> Tensor:
    law = model.encoder(x)
    return model.decoder(law.mean).log_prob(x) - kl_divergence(law, model.prior())


def wrong_prior_scale(model: Any, x: Tensor) -> Tensor:
    """The KL is that to N(0, 1/4), which the model does not have."""
    _, reconstruction, _, law = _parts(model, x)
    other = Normal(torch.zeros_like(law.base_dist.loc), 0.5)
    return reconstruction - kl_divergence(law.base_dist, other).sum(-1)


def prior_counted_twice(model: Any, x: Tensor) -> Tensor:
    z, reconstruction, _, law = _parts(model, x)
    return reconstruction + 2 * model.prior().log_prob(z) - law.log_prob(z)


def dropped_log_determinant(model: Any, x: Tensor) -> Tensor:
    """log q(z|x) as the density of the noise, without the scale that it is stretched by."""
    law = model.encoder(x).base_dist
    noise = torch.randn_like(law.loc)
    z = law.loc + law.scale * noise
    log_q = Normal(0.0, 1.0).log_prob(noise).sum(-1)
    return model.decoder(z).log_prob(x) + model.prior().log_prob(z) - log_q


def nats_called_bits(model: Any, x: Tensor) -> Tensor:
    return elbo(model, x)


def mean_over_samples_and_dimensions(model: Any, x: Tensor) -> Tensor:
    """Means everywhere: `.mean()` of the reconstruction over the batch and the pixels, of the KL over both too."""
    _, reconstruction, kl, _ = _parts(model, x)
    return -(reconstruction.mean() / x.shape[-1] - kl.mean())


def _bound(function: Callable[..., Tensor], **declared: Any) -> TrainingObjective:
    return TrainingObjective(function, **({"sign": "bound"} | declared))


_IWAE = {"said_to_be": "iwae", "parameters": (("k", K),)}

RIGHT = [
    Planted("ELBO, analytic KL", _bound(elbo)),
    Planted("ELBO, sampled", _bound(elbo_sampled)),
    Planted("ELBO, loss of a batch", _bound(elbo_loss_of_a_batch, sign="loss", per="batch")),
    Planted("ELBO in bits per pixel", _bound(elbo_in_bits_per_pixel, sign="loss", unit="bits/dim")),
    Planted(f"IWAE-{K}", _bound(iwae), **_IWAE),  # type: ignore[arg-type]
    Planted("denoising, coupled", _bound(denoising_coupled), said_to_be="denoising_coupled"),
]

WRONG = [
    Planted("KL averaged over dimensions", _bound(kl_averaged_over_dimensions)),
    Planted("reconstruction averaged over pixels", _bound(reconstruction_averaged_over_pixels)),
    Planted("sign of the KL", _bound(wrong_sign_of_kl)),
    Planted("log-variance taken for log-scale", _bound(log_variance_taken_for_log_scale)),
    Planted("missing D/2 log 2 pi", _bound(missing_log_two_pi)),
    Planted("logsumexp without -log K", _bound(logsumexp_without_log_k), **_IWAE),  # type: ignore[arg-type]
    Planted("mean of logs for log of mean", _bound(mean_of_logs), **_IWAE),  # type: ignore[arg-type]
    Planted("KL summed over the batch", _bound(kl_summed_over_the_batch, sign="loss", per="batch")),
    Planted("decoupled denoising density", _bound(decoupled_denoising_density), said_to_be="denoising_coupled"),
    Planted("grey pixels in a Bernoulli", _bound(grey_pixels_in_a_bernoulli, sign="loss"), grey=True),
    Planted("beta below 1", _bound(beta_below_one)),
    Planted("encoder's mean instead of a sample", _bound(encoder_mean_instead_of_a_sample)),
    Planted("wrong prior scale", _bound(wrong_prior_scale)),
    Planted("prior counted twice", _bound(prior_counted_twice)),
    Planted("dropped log-determinant", _bound(dropped_log_determinant)),
    Planted("nats called bits", _bound(nats_called_bits, unit="bits")),
    Planted("means over pixels and dimensions", _bound(mean_over_samples_and_dimensions, sign="loss", per="batch")),
]
