"""Ways to compute log mean_k p(x,z_k)/q(z_k|x) of one model; `evidence` runs each in a process of its own.

python _evidence_ways.py WAY FILE CORES reads "IMAGES SAMPLES" from stdin, line by line, does that much work, and
answers with a line of JSON. It imports nothing of this repository but for boundcheck's own way, so that any interpreter
that has the way's library will do.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LATENT, HIDDEN, PIXELS = 50, 200, 784
CHUNK = 500
"""Draws of one image that loops over torch have in memory at once: for plain torch the fastest of 100, ... 5000."""
Tables = dict[str, Any]
Way = Callable[[int, int], np.ndarray]
"""(images, samples) -> the estimate of log p(x) at each of the first images, in nats."""


def problem(seed: int = 0, images: int = 100) -> Tables:
    """A 784-200-200-50 model with tanh units, and images drawn from it.

    Its weights are random. Those of the encoder are small, so that q(z|x) is not far from the prior, and so is what the
    latent does to the pixels: then all ways estimate log p(x) well enough for their answers to be compared.
    """
    rng = np.random.default_rng(seed)

    def layer(name: str, inputs: int, outputs: int, gain: float) -> Tables:
        weight = gain * rng.normal(size=(outputs, inputs)) / math.sqrt(inputs)
        return {f"{name}.weight": weight, f"{name}.bias": 0.1 * rng.normal(size=outputs)}

    tables = layer("encode.0", PIXELS, HIDDEN, 1.0) | layer("encode.2", HIDDEN, HIDDEN, 1.0)
    tables |= layer("mean", HIDDEN, LATENT, 0.02) | layer("log_scale", HIDDEN, LATENT, 0.02)
    tables |= layer("decode.0", LATENT, HIDDEN, 0.5) | layer("decode.2", HIDDEN, HIDDEN, 0.5)
    tables |= layer("decode.4", HIDDEN, PIXELS, 0.3)
    tables["mean.bias"] *= 0.1
    tables["log_scale.bias"] *= 0.1
    tables["decode.4.bias"] = 2 * rng.normal(size=PIXELS) - 2
    h = rng.normal(size=(images, LATENT))
    for name in ("decode.0", "decode.2"):
        h = np.tanh(h @ tables[f"{name}.weight"].T + tables[f"{name}.bias"])
    logits = h @ tables["decode.4.weight"].T + tables["decode.4.bias"]
    tables["x"] = rng.random(size=logits.shape) < 1 / (1 + np.exp(-logits))
    return {name: table.astype(np.float32) for name, table in tables.items()}


# --- torch ---


def torch_parts(tables: Tables) -> tuple[Any, Any, Any, Any, Any]:
    """x, and the trunk of the encoder, its two heads and the decoder as modules."""
    import torch
    from torch import nn

    def linear(name: str) -> nn.Linear:
        weight = torch.from_numpy(tables[f"{name}.weight"])
        module = nn.Linear(weight.shape[1], weight.shape[0])
        module.load_state_dict({"weight": weight, "bias": torch.from_numpy(tables[f"{name}.bias"])})
        return module

    trunk = nn.Sequential(linear("encode.0"), nn.Tanh(), linear("encode.2"), nn.Tanh())
    decoder = nn.Sequential(linear("decode.0"), nn.Tanh(), linear("decode.2"), nn.Tanh(), linear("decode.4"))
    return torch.from_numpy(tables["x"]), trunk, linear("mean"), linear("log_scale"), decoder


def boundcheck(tables: Tables) -> Way:
    """The package: the whole IWAE curve with its errors, effective sample sizes and tails, from one pass."""
    import torch
    from torch.distributions import Bernoulli, Independent, Normal

    from boundcheck.evidence.engine import run
    from boundcheck.models.torch_model import TorchModel

    x, trunk, mean, log_scale, decoder = torch_parts(tables)

    def encoder(x: torch.Tensor) -> Independent:
        h = trunk(x)
        return Independent(Normal(mean(h), log_scale(h).exp()), 1)

    model = TorchModel(
        prior=lambda: Independent(Normal(torch.zeros(LATENT), torch.ones(LATENT)), 1),
        encoder=encoder,
        decoder=lambda z: Independent(Bernoulli(logits=decoder(z)), 1),
    )

    def compute(images: int, samples: int) -> np.ndarray:
        ks = tuple(k for k in (1, 5, 50, 500, 5000, 50000, 500000) if k < samples)
        return np.asarray(run(model, x[:images], (*ks, samples), seed=0).log_mean_weight)

    return compute


def plain_torch(tables: Tables) -> Way:
    """What a careful author would write: x . logits - sum softplus(logits), an image and a chunk of draws at a time."""
    import torch
    from torch.nn import functional as F

    x, trunk, mean, log_scale, decoder = torch_parts(tables)

    @torch.inference_mode()
    def compute(images: int, samples: int) -> np.ndarray:
        h = trunk(x[:images])
        means, log_scales = mean(h), log_scale(h)
        result = []
        for image, m, s in zip(x[:images], means, log_scales, strict=True):
            chunks = []
            for start in range(0, samples, CHUNK):
                noise = torch.randn(min(CHUNK, samples - start), LATENT)
                z = m + s.exp() * noise
                logits = decoder(z)
                log_prob = logits @ image - F.softplus(logits).sum(1)
                log_prob += 0.5 * (noise.square() - z.square()).sum(1) + s.sum()
                chunks.append(log_prob.double())
            result.append(float(torch.cat(chunks).logsumexp(0)) - math.log(samples))
        return np.array(result)

    return compute


def torch_distributions(tables: Tables) -> Way:
    """The same loop with torch.distributions, whose checks of arguments are left on."""
    import torch
    from torch.distributions import Bernoulli, Independent, Normal

    x, trunk, mean, log_scale, decoder = torch_parts(tables)
    prior = Independent(Normal(torch.zeros(LATENT), torch.ones(LATENT)), 1)

    @torch.inference_mode()
    def compute(images: int, samples: int) -> np.ndarray:
        h = trunk(x[:images])
        means, scales = mean(h), log_scale(h).exp()
        result = []
        for image, m, s in zip(x[:images], means, scales, strict=True):
            encoder, chunks = Independent(Normal(m, s), 1), []
            for start in range(0, samples, CHUNK):
                z = encoder.sample((min(CHUNK, samples - start),))
                likelihood = Independent(Bernoulli(logits=decoder(z)), 1)
                weight = likelihood.log_prob(image) + prior.log_prob(z) - encoder.log_prob(z)
                chunks.append(weight.double())
            result.append(float(torch.cat(chunks).logsumexp(0)) - math.log(samples))
        return np.array(result)

    return compute


def pyro_renyi(tables: Tables) -> Way:
    """Pyro's RenyiELBO(alpha=0) with all particles of an image vectorised."""
    import pyro
    import pyro.distributions as dist
    import torch
    from pyro.infer import RenyiELBO

    x, trunk, mean, log_scale, decoder = torch_parts(tables)

    def model(x: torch.Tensor) -> None:
        with pyro.plate("images", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x: torch.Tensor) -> None:
        h = trunk(x)
        with pyro.plate("images", len(x)):
            pyro.sample("z", dist.Normal(mean(h), log_scale(h).exp()).to_event(1))

    def compute(images: int, samples: int) -> np.ndarray:
        bound = RenyiELBO(alpha=0, num_particles=samples, vectorize_particles=True, max_plate_nesting=1)
        return np.array([-bound.loss(model, guide, x[i : i + 1]) for i in range(images)])

    return compute


def pythae_nll(tables: Tables) -> Way:
    """pythae's VAE.get_nll, the mean of log p(x) despite its name; batches of CHUNK draws, above its default of 100."""
    import torch
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    x, trunk, mean, log_scale, decoder = torch_parts(tables)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.mean, self.log_scale = trunk, mean, log_scale

        def forward(self, x: torch.Tensor) -> ModelOutput:
            h = self.trunk(x)
            return ModelOutput(embedding=self.mean(h), log_covariance=2 * self.log_scale(h))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = decoder

        def forward(self, z: torch.Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.layers(z).sigmoid())

    config = VAEConfig(input_dim=(PIXELS,), latent_dim=LATENT, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(), decoder=Decoder()).eval()

    @torch.inference_mode()
    def compute(images: int, samples: int) -> np.ndarray:
        return np.array([model.get_nll(x[:images], n_samples=samples, batch_size=min(CHUNK, samples))])

    return compute


# --- jax ---


def numpyro_renyi(tables: Tables) -> Way:
    """NumPyro's RenyiELBO(alpha=0), jitted, one image a call."""
    import jax
    import numpyro
    import numpyro.distributions as dist
    from jax import numpy as jnp
    from numpyro.infer import RenyiELBO

    x = jnp.asarray(tables["x"])
    weights = {name: jnp.asarray(table) for name, table in tables.items() if name != "x"}

    def layer(name: str, h: jax.Array) -> jax.Array:
        return h @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def model(x: jax.Array) -> None:
        z = numpyro.sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
        h = jnp.tanh(layer("decode.2", jnp.tanh(layer("decode.0", z))))
        numpyro.sample("x", dist.Bernoulli(logits=layer("decode.4", h)).to_event(1), obs=x)

    def guide(x: jax.Array) -> None:
        h = jnp.tanh(layer("encode.2", jnp.tanh(layer("encode.0", x))))
        numpyro.sample("z", dist.Normal(layer("mean", h), jnp.exp(layer("log_scale", h))).to_event(1))

    compiled: dict[int, Any] = {}

    def compute(images: int, samples: int) -> np.ndarray:
        if samples not in compiled:
            bound = RenyiELBO(alpha=0, num_particles=samples)
            compiled[samples] = jax.jit(lambda key, image: bound.loss(key, {}, model, guide, image))
        keys = jax.random.split(jax.random.PRNGKey(0), images)
        return -np.array([compiled[samples](key, image) for key, image in zip(keys, x[:images], strict=True)])

    return compute


# --- the limit: the products and the transcendental functions, and nothing else ---


def bare(tables: Tables, fast: bool) -> Way:
    """Normals, three products, two layers of tanh and a power for each pixel, in chunks of 512, a thread a core."""
    import torch

    weights = [torch.from_numpy(tables[f"decode.{i}.weight"]) for i in (0, 2, 4)]
    biases = [torch.from_numpy(tables[f"decode.{i}.bias"]) for i in (0, 2, 4)]
    transposed = [weight.T.contiguous() for weight in weights]
    rows, cores = 512, torch.get_num_threads()
    torch.set_num_threads(1)

    def work(chunks: int) -> None:
        noise = torch.empty(rows, LATENT)
        buffers = [torch.empty(rows, len(weight)) for weight in weights]
        with torch.inference_mode():
            for _ in range(chunks):
                h = noise.normal_()
                for i, buffer in enumerate(buffers):
                    if fast:
                        activation = "none" if i == 2 else "tanh"
                        h = torch.ops.mkldnn._linear_pointwise(h, weights[i], biases[i], activation, [], "")
                    else:
                        h = torch.mm(h, transposed[i], out=buffer)
                        if i < 2:
                            h.sigmoid_()
                h.exp2_() if fast else h.exp_()

    def compute(images: int, samples: int) -> np.ndarray:
        workers = [threading.Thread(target=work, args=(round(images * samples / rows / cores),)) for _ in range(cores)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return np.array([math.nan])

    return compute


WAYS: dict[str, Callable[[Tables], Way]] = {
    "boundcheck": boundcheck,
    "plain torch": plain_torch,
    "torch.distributions": torch_distributions,
    "Pyro RenyiELBO": pyro_renyi,
    "pythae get_nll": pythae_nll,
    "NumPyro RenyiELBO, jitted": numpyro_renyi,
    "limit": lambda tables: bare(tables, fast=True),
    "limit, usual product": lambda tables: bare(tables, fast=False),
}


def resident(field: str, reset: bool = False) -> float:
    """Resident memory in MiB now (VmRSS) or at its highest (VmHWM) since the last reset; 0 where Linux is not."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = status.read_text(encoding="ascii").splitlines()
    return float(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def main(way: str, file: str, cores: str) -> None:
    if hasattr(os, "sched_setaffinity"):  # before the libraries count the processors
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    with np.load(file, allow_pickle=False) as data:
        tables = {name: data[name] for name in data.files}
    compute = WAYS[way](tables)
    print("ready", flush=True)
    for line in sys.stdin:
        images, samples = map(int, line.split())
        before, own = resident("VmRSS", reset=True), resident("RssAnon")
        wall, processor = time.perf_counter(), time.process_time()
        estimate = compute(images, samples)
        reply = {
            "wall": time.perf_counter() - wall,
            "processor": time.process_time() - processor,
            "mebibytes": resident("VmHWM") - before,
            "private": resident("VmHWM") - resident("RssFile") - own,
            "estimate": float(np.mean(estimate)),
        }
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
