"""Evaluation cards of models on the pretended device, beside those of the same models on the CPU.

Run as a program, it prints a line of JSON for each case: what `tests/test_pretend_gpu.py` looks at. Draws of Gaussian
encoders are the device's own, so those cards agree up to Monte Carlo error; all other draws are the same.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pretend_gpu
import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal, StudentT

from boundcheck.errors import BoundcheckError
from boundcheck.evidence import TrainingObjective, evaluate_model
from boundcheck.evidence.engine import run

PIXELS = 6


def gaussian(mean: Any, scale: Any) -> Independent:
    return Independent(Normal(mean, scale), 1)


class Vae(nn.Module):
    """Binary pixels, or with `continuous` heavy-tailed ones, and with `corrupted` a corruption of its input."""

    def __init__(self, latent: int = 2, corrupted: bool = False, continuous: bool = False) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(PIXELS, 8), nn.Tanh(), nn.Linear(8, 2 * latent))
        self.decode = nn.Sequential(nn.Linear(latent, 8), nn.Tanh(), nn.Linear(8, PIXELS))
        self.register_buffer("zeros", torch.zeros(latent))
        self.zeros: torch.Tensor
        self.continuous = continuous
        self.corruption = (lambda x: Independent(Bernoulli(0.9 * x + 0.05), 1)) if corrupted else None

    def prior(self) -> Any:
        return gaussian(self.zeros, torch.ones_like(self.zeros))

    def encoder(self, x: torch.Tensor) -> Any:
        mean, log_scale = self.encode(x).chunk(2, -1)
        return gaussian(mean, log_scale.exp())

    def decoder(self, z: torch.Tensor) -> Any:
        return Independent(StudentT(4.0, self.decode(z)) if self.continuous else Bernoulli(logits=self.decode(z)), 1)


class Discrete(Vae):
    """Bits as latents: their draws are torch's own, and so the same on all devices here."""

    def prior(self) -> Any:
        return Independent(Bernoulli(logits=self.zeros), 1)

    def encoder(self, x: torch.Tensor) -> Any:
        return Independent(Bernoulli(logits=self.encode(x).chunk(2, -1)[0]), 1)


class Mixing(Vae):
    """A hierarchical encoder."""

    mixing_size = 2

    def mixing(self, x: torch.Tensor) -> Any:
        return gaussian(self.encode(x).chunk(2, -1)[0], torch.ones(2, device=x.device))

    def encoder(self, m: torch.Tensor) -> Any:  # type: ignore[override]
        return gaussian(m, torch.full_like(m, 0.5))

    def auxiliary(self, z: torch.Tensor, x: torch.Tensor) -> Any:
        return gaussian(z, torch.full_like(z, 0.6))


class Elsewhere(Vae):
    """A prior of tensors that stay on the CPU."""

    def prior(self) -> Any:
        return gaussian(torch.zeros(2), torch.ones(2))


class Small(Vae):
    """One that fits the device's memory with up to 64 rows."""

    def decoder(self, z: torch.Tensor) -> Any:
        if z.device.type == pretend_gpu.NAME and len(z) > 64:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return super().decoder(z)


def loss(model: Vae, x: torch.Tensor) -> torch.Tensor:
    proposal = model.encoder(x)
    z = proposal.rsample()
    return proposal.log_prob(z) - model.prior().log_prob(z) - model.decoder(z).log_prob(x)


def mean_loss(model: Vae, x: torch.Tensor) -> torch.Tensor:
    return loss(model, x).mean()


def cards(name: str, model: nn.Module, x: torch.Tensor, **options: Any) -> None:
    """Print what the two cards say."""
    before = torch.random.get_rng_state()
    found: dict[str, Any] = {"case": name}
    for device in ("cpu", pretend_gpu.NAME):
        try:
            card = evaluate_model(
                copy.deepcopy(model).to(device), x, k=120, replicates=100, simulated=5, grid=False, **options
            )
        except BoundcheckError as error:
            found[device] = {"error": str(error)}
        else:
            kept = ("value", "iwae", "verdict", "judgements", "ais", "bidirectional", "simulated", "notes", "device")
            found[device] = {each: made for each, made in card.to_json().items() if each in kept}
    found["state kept"] = bool(torch.equal(before, torch.random.get_rng_state()))
    print(json.dumps(found), flush=True)


def main() -> None:
    pretend_gpu.set_up()
    torch.manual_seed(0)
    bits, numbers = (torch.rand(8, PIXELS) < 0.5).float(), torch.randn(8, PIXELS)
    cards("vae", Vae().eval(), bits, ais=3)
    cards("in float64", Vae(3).double().eval(), bits.double())
    cards("corrupted", Vae(3, corrupted=True).eval(), bits, objective="denoising_decoupled")
    cards("continuous", Vae(3, continuous=True).eval(), numbers, objective="iwae")
    cards("discrete", Discrete(3).eval(), bits)
    cards("hierarchical", Mixing().eval(), bits)
    rows = TrainingObjective(loss, sign="loss")
    cards("loss", Vae(3).eval(), bits, objective=rows, same="elbo")
    batch = TrainingObjective(mean_loss, sign="loss", per="batch", batch=4)
    cards("mean loss", Vae(3).eval(), bits, objective=batch)
    cards("elsewhere", Elsewhere().eval(), bits)
    cards("small", Small().eval(), bits)

    model = Vae(3).eval().to(pretend_gpu.NAME)
    with TemporaryDirectory() as folder:
        journal = str(Path(folder) / "weights")
        whole = run(model, bits, (1, 900), seed=3)
        runs = [run(model, bits, (1, 900), seed=3, chunk=chunk, resume=journal) for chunk in (7, 512)]
    print(json.dumps({"case": "runs", "values": [each.log_mean_weight.tolist() for each in (whole, *runs)]}))
    try:
        torch.ones(3, device=pretend_gpu.NAME) + torch.ones(3)
        mixed = "nothing was said"
    except RuntimeError as error:
        mixed = str(error)
    print(json.dumps({"case": "mixed", "error": mixed}))


if __name__ == "__main__":
    sys.exit(main())
