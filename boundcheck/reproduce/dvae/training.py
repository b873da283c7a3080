"""Training by one recipe, whatever the objective: Adam with a cosine schedule, binarised batches, one seed.

Each objective is written as the formula that it is, on a batch of observations, with reparametrised draws; its mean
is maximised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from boundcheck.errors import BadInput, UnknownName
from boundcheck.reproduce.dvae.images import Images

Objective = Callable[[Any, Tensor], Tensor]
"""A model and observations of shape (rows, pixels) to one number, in nats, for each row."""

WEIGHTS = 5
"""K of the importance-weighted objectives in training."""

RUNAWAY = 1e4
"""Training stops where the objective's batch mean exceeds this many nats: binary images have log p(x) <= 0."""


def elbo(model: Any, x: Tensor) -> Tensor:
    """E_{q(z|x)} log p(x|z) - KL(q(z|x) || p(z)), one draw, in nats (Kingma & Welling 2014, eq. 7)."""
    return _elbo_given(model, x, x)


def denoising_coupled(model: Any, x: Tensor) -> Tensor:
    """The ELBO with the encoder at one corrupted x~, for sample and density: Im et al. (2015) as they trained."""
    return _elbo_given(model, x, model.corruption(x).sample())


def _elbo_given(model: Any, x: Tensor, given: Tensor) -> Tensor:
    encoder = model.encoder(given)
    return model.decoder(encoder.rsample()).log_prob(x) - kl_divergence(encoder, model.prior())


def denoising_decoupled(model: Any, x: Tensor) -> Tensor:
    """log p(x,z) - log q(z|x~) for z ~ q(.|x~'), two corruptions: what Im et al. (2015) can be read to write."""
    sampled, other = model.corruption(x).sample((2,))
    z = model.encoder(sampled).rsample()
    return model.decoder(z).log_prob(x) + model.prior().log_prob(z) - model.encoder(other).log_prob(z)


def iwae(model: Any, x: Tensor) -> Tensor:
    """log mean_k p(x,z_k)/q(z_k|x) for z_k ~ q(.|x) (Burda et al. 2016, eq. 8)."""
    return _importance_weighted(model, x, x)


def diwae(model: Any, x: Tensor) -> Tensor:
    """The same with the encoder at one corrupted x~ (Im et al. 2015)."""
    return _importance_weighted(model, x, model.corruption(x).sample())


def _importance_weighted(model: Any, x: Tensor, given: Tensor) -> Tensor:
    encoder = model.encoder(given)
    z = encoder.rsample((WEIGHTS,))
    likelihood = model.decoder(z.flatten(0, 1)).log_prob(x.repeat(WEIGHTS, 1)).unflatten(0, (WEIGHTS, -1))
    log_weights = likelihood + model.prior().log_prob(z) - encoder.log_prob(z)
    return log_weights.logsumexp(0) - math.log(WEIGHTS)


OBJECTIVES: dict[str, Objective] = {
    "elbo": elbo,
    "denoising_coupled": denoising_coupled,
    "denoising_decoupled": denoising_decoupled,
    "iwae": iwae,
    "diwae": diwae,
}


@dataclass(frozen=True)
class Recipe:
    """What all models of an experiment share."""

    epochs: int
    batch: int = 64
    learning_rate: float = 3e-3
    largest_gradient: float = 100.0


def train(
    make: Callable[[], nn.Module],
    images: Images,
    objective: str,
    recipe: Recipe,
    *,
    seed: int = 0,
    after_epoch: Callable[[int], object] = lambda epochs: None,
    watch: Callable[[int, nn.Module], object] = lambda updates, model: None,
) -> nn.Module:
    """A model trained to maximise an objective's mean over the training images.

    Args:
        make: makes the model, with weights drawn from torch's global generator.
        images: its `train` part is binarised anew in every batch.
        objective: the name of one in `OBJECTIVES`.
        recipe: epochs, batch and learning rate; the latter falls to zero along a cosine.
        seed: of weights, batches, binarisation, draws and corruptions.
        after_epoch: called with the number of epochs done.
        watch: called with the number of updates done and the model, evenly in the logarithm, and at the last.

    Training ends early once the objective is `RUNAWAY`: then there is nothing left to learn from it.

    Raises:
        UnknownName: no such objective.
        BadInput: gradients that are not finite.
    """
    if objective not in OBJECTIVES:
        raise UnknownName("objective", objective, list(OBJECTIVES))
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        model = make()
        data = torch.as_tensor(images.train)
        optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs)
        updates, ran_away = 0, False
        for epoch in range(recipe.epochs):
            for rows in torch.randperm(len(data)).split(recipe.batch):
                x = torch.bernoulli(data[rows])
                loss = -OBJECTIVES[objective](model, x).mean()
                optimiser.zero_grad()
                loss.backward()
                size = nn.utils.clip_grad_norm_(model.parameters(), recipe.largest_gradient)
                if not bool(torch.isfinite(size)):
                    raise BadInput(
                        "the training", f"not finite in epoch {epoch + 1}", "finite gradients", "lower the rate"
                    )
                optimiser.step()
                updates += 1
                ran_away = float(loss.detach()) < -RUNAWAY
                if _is_milestone(updates) and not ran_away:
                    _watched(watch, updates, model)
                if ran_away:
                    break
            schedule.step()
            after_epoch(epoch + 1)
            if ran_away:
                break
        _watched(watch, updates, model)
    return model.eval()


def _is_milestone(updates: int) -> bool:
    """True about ten times in each decade."""
    return updates == 1 or math.floor(10 * math.log10(updates)) > math.floor(10 * math.log10(updates - 1))


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrices this small gain nothing from a second thread, and on a busy machine threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _watched(watch: Callable[[int, nn.Module], object], updates: int, model: nn.Module) -> None:
    """Show the model as it would be evaluated, and go on training as if nobody had looked."""
    with torch.random.fork_rng(devices=[]):
        watch(updates, model.eval())
    model.train()
