"""log p(x) of 10,000 images x 5,000 samples on a GPU: the fused kernel beside the plain path, and beside the roofline.

The model is that of `evidence`: 784-200-200-50, tanh, Bernoulli pixels, float32. `fused_triton.work` counts what the
last layer needs at least, in operations and in bytes; the rates that the device reaches are measured in the same run,
by a large product (in TF32 where the kernel uses it, of which it needs three) and by a large copy. The roofline is the
longer of the two times. On a CPU the same command compares the CPU's own fused path with the plain one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks._evidence_ways import HIDDEN, LATENT, PIXELS, problem, torch_parts


def seconds(compute: Callable[[], Any], device: Any, rounds: int) -> float:
    """The median of some rounds, after one that is not counted."""
    import torch

    taken = []
    for turn in range(rounds + 1):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        compute()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def rates(device: Any) -> tuple[float, float]:
    """Operations of a product, and bytes of a copy, that the device does in a second."""
    import torch

    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.rand(size, size, device=device) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    operations = 2 * size**3 / seconds(lambda: a @ b, device, 5)
    torch.backends.cuda.matmul.allow_tf32 = before
    return operations, 2 * 4 * size**2 / seconds(lambda: b.copy_(a), device, 5)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu")
    parser.add_argument("--images", type=int, default=10_000, help="images; the 100 of the problem are repeated")
    parser.add_argument("--samples", type=int, default=5000, help="samples of each image")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which medians are compared")
    options = parser.parse_args(arguments)
    import torch
    from torch.distributions import Bernoulli, Independent, Normal

    from boundcheck.evidence.engine import run
    from boundcheck.evidence.fused_triton import work
    from boundcheck.models.torch_model import TorchModel

    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device; --device cpu compares the CPU's two paths", file=sys.stderr)
        return 2
    x, trunk, mean, log_scale, decoder = torch_parts(problem())
    for module in (trunk, mean, log_scale, decoder):
        module.to(device)
    x = x.repeat(-(-options.images // len(x)), 1)[: options.images].to(device)

    def encoder(x: torch.Tensor) -> Independent:
        h = trunk(x)
        return Independent(Normal(mean(h), log_scale(h).exp()), 1)

    zeros, ones = torch.zeros(LATENT, device=device), torch.ones(LATENT, device=device)
    model = TorchModel(
        prior=lambda: Independent(Normal(zeros, ones), 1),
        encoder=encoder,
        decoder=lambda z: Independent(Bernoulli(logits=decoder(z)), 1),
    )
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {options.images} images x {options.samples} samples")
    draws = options.images * options.samples
    found = {}
    for way in ("auto", "off"):
        results: list[Any] = []
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        taken = seconds(
            lambda way=way, results=results: results.append(_estimate(run, model, x, options.samples, way)),
            device,
            options.rounds,
        )
        memory = f", {torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB" if device.type == "cuda" else ""
        found[way] = taken
        print(
            f"fused={way:5} {taken:9.3f} s {draws / taken / 1e6:9.3f} million samples/s, "
            f"{results[-1][0]:.4f} nats (fused: {results[-1][1]}){memory}"
        )
    product, copy = rates(device)
    products = 3 if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0) else 1
    needed = work(draws, HIDDEN, PIXELS, options.images)
    roof = max(products * needed.operations / product, needed.bytes / copy)
    print(
        f"product {product / 1e12:.2f} TFLOP/s, copy {copy / 1e9:.0f} GB/s: the last layer takes at least {roof:.3f} s"
    )
    print(f"fused / plain {found['off'] / found['auto']:.2f} times as fast; {roof / found['auto']:.2f} of the roofline")
    return 0


def _estimate(run: Any, model: Any, x: Any, samples: int, fused: str) -> tuple[float, str]:
    result = run(model, x, (samples,), fused=fused)
    return float(result.log_mean_weight.mean()), result.settings["fused"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
