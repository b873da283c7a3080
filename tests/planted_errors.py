"""Small wrong objectives of the kinds that real projects had, and right ones beside them, for a VAE of binary images.

Each is what its author would hand to `boundcheck evaluate`: a function of the model and a batch, with what its numbers
mean and what it is said to be. All models have N(0, I) priors, diagonal Gaussian encoders and Bernoulli decoders.

`python tests/planted_errors.py` trains a small model of digits, judges all of them and writes docs/planted-errors.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

from boundcheck.claims.decide import Outcome
from boundcheck.errors import BadInput
from boundcheck.evidence import EvidenceCard, evaluate_model
from boundcheck.evidence.objective import TrainingObjective
from boundcheck.reproduce.dvae import DenoisingVAE, digits, train
from boundcheck.reproduce.dvae.training import Recipe, one_thread

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


# --- judging them --------------------------------------------------------------------------------------------------

AT_THE_DATA, AT_SIMULATED, IDENTITY, SUPPORT = "evidence", "simulated data", "same as", "support"
EPOCHS = 40
PAGE = Path(__file__).parent.parent / "docs" / "planted-errors.md"


def trained(epochs: int = EPOCHS) -> tuple[Any, Tensor]:
    """A small denoising VAE of digits, and the test images."""
    images = digits(0)
    model = train(lambda: DenoisingVAE(64, (64,), 10, "salt-and-pepper", 0.1), images, "elbo", Recipe(epochs))
    return model, torch.as_tensor(images.test, dtype=torch.float32)


@dataclass(frozen=True)
class Caught:
    """What `evaluate` says of an objective: its card, unless its data were refused, and the checks that caught it."""

    planted: Planted
    card: EvidenceCard | None
    by: tuple[str, ...]

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """A row of the page."""
        name, by = self.planted.name, ", ".join(self.by) or "nothing"
        if self.card is None:
            return name, "", "", by
        return name, f"{self.card.value.mean:.2f}", f"{self.card.curve.best.mean.mean:.2f}", by


def judged(planted: Planted, model: Any, x: Tensor, **options: Any) -> Caught:
    """An objective judged as its author would have it judged."""
    data = (x + 0.3) / 1.6 if planted.grey else x
    parameters = dict(planted.parameters)
    try:
        card = evaluate_model(
            model, data, objective=planted.objective, same=planted.said_to_be, same_parameters=parameters, **options
        )
    except BadInput as error:
        if "in the support of" not in str(error):
            raise
        return Caught(planted, None, (SUPPORT,))
    assert card.judgement is not None and card.identity is not None
    checks = dict(zip((AT_THE_DATA, AT_SIMULATED), card.judgement.findings, strict=False)) | {IDENTITY: card.identity}
    by = tuple(name for name, finding in checks.items() if finding.outcome is Outcome.VIOLATED)
    assert (card.outcome is Outcome.VIOLATED) == bool(by)
    return Caught(planted, card, by)


INTRODUCTION = """# Planted errors

Small wrong objectives of the kinds that real projects had, each handed to `evaluate` as its author would: as a training
loss, with what it is said to be (`--same-as`). A check catches one if it finds it above the evidence of the data, above
the evidence of data that the model drew itself, different from what it is said to be, or fed with data that the
likelihood cannot have produced. Only the third has to be told what the objective is meant to be; and only it can catch
what makes a bound smaller, since that leaves it a bound.
"""


def page(rows: list[Caught], right: list[Caught], settings: str) -> Iterator[str]:
    """The generated page, line by line."""
    caught = sum(bool(row.by) for row in rows)
    first = sum(bool(row.by) for row in rows[:15])
    yield INTRODUCTION
    wrongly = sum(bool(row.by) for row in right)
    yield f"{first} of the first 15 are caught, {caught} of all {len(rows)}; of {len(right)} right ones, {wrongly}."
    yield settings
    yield ""
    yield "```"
    yield "python tests/planted_errors.py"
    yield "```"
    for title, part in (("wrong objective", rows), ("right objective", right)):
        last = part[0].card.curve.best.k if part[0].card else 0
        yield ""
        yield f"| {title} | its value, nats | IWAE-{last} | caught by |"
        yield "|---|---|---|---|"
        for row in part:
            yield f"| {' | '.join(row.cells)} |"
    yield FALSE_ALARMS


FALSE_ALARMS = """
## False alarms

With log p(x) known to be 0, an objective equal to log p(x) is the hardest valid one to leave alone, and one larger by
1e-9 the hardest wrong one not to pass. Verdicts at alpha = 0.05 for either, with 8 examples and 32 weights (lognormal,
close and far, and a Pareto law without variance), 2, 5, 20 and 200 replicates in turn, the truth itself as upper bound,
and the check at simulated data:

| draws of the objective | equal, found to exceed | larger, found to hold |
|---|---|---|
| normal | 0.35% | 0.00% |
| exponential to the left | 0.33% | 0.00% |
| exponential to the right | 0.24% | 0.00% |
| minus chi-square of one degree | 0.10% | 0.00% |
| Student's t of three degrees | 0.13% | 0.00% |
| minus lognormal | 0.11% | 0.00% |

10,008 runs for each figure. A loss whose 20 examples share all of their noise, in 200 calls: above in 1.8% and below in
1.9% of 10,000 runs (normal), 2.7% and 1.0% (exponential to the left). `python tests/test_false_alarms.py` measures them
again, and what a run too short to meet rare values gets wrong ("What a verdict assumes" in evidence-bounds.md)."""


def main() -> None:
    """Judge all of them at the sizes that the page states, and write it."""
    with one_thread():
        model, x = trained()
        x = x[:100]
        found = [[judged(each, model, x, k=1000) for each in group] for group in (WRONG, RIGHT)]
    settings = f"Model: 64-64-10 VAE of digits, {EPOCHS} epochs; {len(x)} test digits, K = 1000, alpha = 0.001."
    PAGE.write_text("\n".join(page(found[0], found[1], settings)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
