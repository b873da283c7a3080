"""Training the demonstration's models: maximise one of two objectives, on binarised digits, by Adam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import require

require("torch", extra="demo", feature="the demonstration")

import torch  # noqa: E402 (the line above says what to install)
from torch import Tensor  # noqa: E402
from torch.distributions import kl_divergence  # noqa: E402

from boundcheck.demo.digits_vae import DigitsVAE  # noqa: E402

TEST_EXAMPLES = 360
BATCH = 64


def binary_digits(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Scikit-learn's 1797 digits of 8x8 pixels, as train and test images of shape (examples, 64).

    Pixels go from 0 to 16. They are binarised by a threshold, once and for all: 8 or more is 1. A seeded permutation
    sets the last 360 aside for testing.
    """
    digits = require("sklearn.datasets", extra="demo", feature="the demonstration").load_digits()
    images = (digits.data >= 8).astype(np.uint8)
    images = images[np.random.default_rng(seed).permutation(len(images))]
    return images[:-TEST_EXAMPLES], images[-TEST_EXAMPLES:]


def objective(model: DigitsVAE, x: Tensor, given: Tensor) -> Tensor:
    """E_{q(z|given)} log p(x|z) - KL(q(z|given) || p(z)), one draw: the ELBO if given is x, and if it is a corrupted
    x, the denoising objective as Im et al. (2015) trained it, with one x~ for the sample and for the density.
    """
    encoder = model.encoder(given)
    return model.decoder(encoder.rsample()).log_prob(x) - kl_divergence(encoder, model.prior())


def train(
    images: NDArray[np.uint8],
    kind: Literal["vae", "dvae"],
    *,
    epochs: int,
    seed: int,
    advance: Callable[[], object],
) -> DigitsVAE:
    """A model trained on the ELBO ("vae") or on the coupled denoising objective ("dvae").

    Args:
        images: binary images of shape (examples, 64).
        kind: which objective.
        epochs: passes over the images; the learning rate falls to zero over them.
        seed: of weights, batches, draws and corruptions.
        advance: called after each epoch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DigitsVAE()
        data = torch.as_tensor(images, dtype=torch.float32)
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
        for _ in range(epochs):
            for rows in torch.randperm(len(data)).split(BATCH):
                x = data[rows]
                given = x if kind == "vae" else model.corruption(x).sample()
                loss = -objective(model, x, given).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            schedule.step()
            advance()
    return model.eval()
