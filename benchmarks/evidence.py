"""log p(x) of 100 images under a 784-200-200-50 VAE, 5,000 samples each: the package beside five other ways.

All ways get the same weights and images in float32 and return the same estimates, which is checked. Each runs in a
process of its own, on as many cores. They take turns with short pieces of the work, so that a change in the
machine's load meets all of them, and medians of rates are compared: by the clock, and by processor time, which other
work on the machine disturbs less. "limit" is only what no way can do without: normals, the three matrix products,
the tanh of two layers, and one power for each pixel, with the fastest product that torch has; "usual product" is the
same with `torch.mm` and `exp`. Memory is what a fresh process takes beyond its imports at its peak, and in brackets
without the pages of the libraries' own code, which the first call of anything maps.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks._evidence_ways import WAYS, problem

GOALS = {
    "NumPyro RenyiELBO, jitted": 1.5,
    "plain torch": 1.7,
    "Pyro RenyiELBO": 2.5,
    "pythae get_nll": 5.0,
    "limit": 0.5,
}
_NEEDS = {"Pyro RenyiELBO": "pyro", "pythae get_nll": "pythae", "NumPyro RenyiELBO, jitted": "numpyro"}
_TOLERANCE = 0.2
"""Nats between two ways' estimates of the mean log p(x), which are random."""


class Worker:
    """One way in a process of its own."""

    def __init__(self, way: str, python: str, file: str, cores: int) -> None:
        root = Path(__file__).resolve().parent
        path = os.pathsep.join(filter(None, [str(root.parent), os.environ.get("PYTHONPATH")]))
        command = [python, str(root / "_evidence_ways.py"), way, file, str(cores)]
        self.way = way
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
        )
        self._read()

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.way}: its process ended")
        return line

    def __call__(self, images: int, samples: int) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{images} {samples}\n")
        self.process.stdin.flush()
        return json.loads(self._read())

    def close(self) -> None:
        self.process.communicate()


def interpreters(ways: list[str], peer_python: str | None) -> dict[str, str]:
    """The interpreter for each way that can be run."""
    found = {}
    for way in ways:
        library = _NEEDS.get(way)
        candidates = [sys.executable] if library is None else [*filter(None, [peer_python]), sys.executable]
        for python in candidates:
            probe = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({library or 'torch'!r}) is None)"
            if subprocess.run([python, "-c", probe], check=False).returncode == 0:
                found[way] = python
                break
        else:
            print(f"{way} is left out: name an interpreter that has {library}, with --peer-python")
    return found


def speed(pythons: dict[str, str], file: str, cores: int, rounds: int, images: int, samples: int) -> None:
    workers = {way: Worker(way, python, file, cores) for way, python in pythons.items()}
    first = {way: worker(images, samples) for way, worker in workers.items()}
    wall: dict[str, list[float]] = {way: [] for way in workers}
    processor: dict[str, list[float]] = {way: [] for way in workers}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for way in order.permutation(list(workers)):
            reply = workers[way](images, samples)
            wall[way].append(images * samples / reply["wall"] / 1e3)
            processor[way].append(images * samples / reply["processor"] / 1e3)
    for worker in workers.values():
        worker.close()
    ours = first["boundcheck"]["estimate"]
    for way, reply in first.items():
        if abs(reply["estimate"] - ours) > _TOLERANCE:
            raise SystemExit(f"{way} gives {reply['estimate']:.3f} nats, boundcheck {ours:.3f}")
    print(
        f"\n{images} images x {samples} samples a turn, {rounds} rounds, {cores} cores; "
        f"log p(x) = {ours:.2f} nats on average"
    )
    print(f"{'':27}{'k/s':>9}{'best':>9}{'ratio':>8}{'goal':>6}{'  k/CPU s':>11}{'ratio':>8}{'first call, s':>15}")
    median, least = statistics.median(wall["boundcheck"]), statistics.median(processor["boundcheck"])
    for way in workers:
        rate, work = statistics.median(wall[way]), statistics.median(processor[way])
        goal = f"{GOALS[way]:g}" if way in GOALS else ""
        print(
            f"{way:27}{rate:9.1f}{max(wall[way]):9.1f}{median / rate:8.2f}{goal:>6}{work:11.1f}{least / work:8.2f}"
            f"{first[way]['wall']:15.2f}"
        )


def memory(pythons: dict[str, str], file: str, cores: int, sizes: list[int]) -> None:
    print(
        f"\nMiB of a fresh process beyond its imports, one image{'':3}" + "".join(f"{f'K = {k:,}':>16}" for k in sizes)
    )
    for way, python in pythons.items():
        if not way.startswith("limit"):
            row = []
            for k in sizes:
                worker = Worker(way, python, file, cores)
                reply = worker(1, k)
                row.append(f"{reply['mebibytes']:.1f} ({reply['private']:.1f})")
                worker.close()
            print(f"{way:54}" + "".join(f"{each:>16}" for each in row), flush=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks evidence", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="which ways (default: all)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the interleaved measurement")
    parser.add_argument("--images", type=int, default=20, help="images a turn; 100 is the whole task at once")
    parser.add_argument("--samples", type=int, default=5000, help="samples of each image")
    parser.add_argument("--cores", type=int, default=2, help="processor cores for each way")
    parser.add_argument("--memory", nargs="*", type=int, metavar="K", help="measure memory, not speed, at these K")
    parser.add_argument("--peer-python", help="the interpreter of an environment with requirements-evidence.txt")
    options = parser.parse_args(arguments)
    import torch

    print(
        f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, torch {torch.__version__}"
    )
    print(f"load {os.getloadavg()[0]:.1f}")
    pythons = interpreters(options.ways, options.peer_python)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "problem.npz")
        np.savez(file, **problem())
        if options.memory is not None:
            memory(pythons, file, options.cores, options.memory or [50, 5000, 100_000, 500_000])
        else:
            speed(pythons, file, options.cores, options.rounds, options.images, options.samples)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
