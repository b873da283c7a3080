"""log p(x) of a chain of 100 binary latents: contraction evaluator, a forward recursion in numpy, and Pyro's TraceEnum.

A hidden Markov model with a transition of its own at every step and one observation a state. All ways get the same
tables and return the same number, which is checked; they take turns, so that a busy machine slows all of them alike,
and ratios of medians are reported. Pyro enumerates under `pyro.markov`, in a process of its own that times itself, so
talking to it costs it nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

CALLS = 10  # of a fast way in each turn, so that the slow one before it does not leave it a cold cache


class Chain(NamedTuple):
    """p(z_1), of shape (2,); p(z_t | z_{t-1}), of shape (n - 1, 2, 2); log p(x_t | z_t), of shape (n, 2)."""

    first: np.ndarray
    transitions: np.ndarray
    log_likelihoods: np.ndarray


Way = Callable[[], float]


def chain(length: int, level: float = -1.0, seed: int = 0) -> Chain:
    """A random chain whose likelihoods are near exp(level) each."""
    rng = np.random.default_rng(seed)
    rows = rng.uniform(0.05, 0.95, size=(length, 2))
    transitions = np.stack([rows, 1 - rows], axis=2)
    return Chain(transitions[0, 0], transitions[1:], level + rng.normal(size=(length, 2)))


# --- ways to compute log p(x) ---


def contraction(given: Chain, keep: bool = True) -> Way:
    """The contraction evaluator, on a model that is kept, or on one that is built and checked in every call."""
    from boundcheck.catalogue.objectives import log_evidence
    from boundcheck.evaluators.contraction import evaluate
    from boundcheck.language import trace
    from boundcheck.models.factored import Factor, FactoredModel

    def build() -> FactoredModel:
        factors = [Factor(0, given.first, child=0)]
        factors += [Factor((t, t + 1), rows, child=t + 1) for t, rows in enumerate(given.transitions)]
        factors += [Factor(t, row, log=True) for t, row in enumerate(given.log_likelihoods)]
        return FactoredModel([2] * len(given.log_likelihoods), factors)

    model, term = build(), trace(log_evidence)
    return lambda: evaluate(term, model if keep else build()).value


def forward(given: Chain) -> Way:
    """log p(x_1..x_t, z_t) for t = 1, 2, ..., on logarithms that were taken beforehand."""
    log_first, log_transitions = np.log(given.first), np.log(given.transitions)

    def compute() -> float:
        alpha = log_first + given.log_likelihoods[0]
        for transition, likelihood in zip(log_transitions, given.log_likelihoods[1:], strict=True):
            alpha = np.logaddexp.reduce(alpha[:, None] + transition, axis=0) + likelihood
        return float(np.logaddexp.reduce(alpha))

    return compute


class Pyro:
    """TraceEnum_ELBO with an empty guide, in another process; a call returns log p(x) and how long Pyro took for it."""

    def __init__(self, python: str, given: Chain) -> None:
        with tempfile.NamedTemporaryFile(suffix=".npz", delete=False) as file:
            np.savez(file, **given._asdict())
        self.file = file.name
        command = [python, str(Path(__file__).resolve()), "--worker", self.file]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self) -> tuple[float, float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("the Pyro process ended; is pyro-ppl installed in that environment?")
        reply = json.loads(answer)
        return reply["value"], reply["seconds"]

    def close(self) -> None:
        self.process.communicate()
        os.unlink(self.file)


def pyro_worker(file: str) -> None:
    import pyro
    import pyro.distributions as dist
    import torch
    from pyro.infer import TraceEnum_ELBO, config_enumerate
    from pyro.ops.indexing import Vindex

    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)  # on tables of four numbers a second thread only waits, and costs most on a busy machine
    with np.load(file, allow_pickle=False) as data:
        given = Chain(*(torch.from_numpy(data[name]) for name in Chain._fields))  # type: ignore[arg-type]

    @config_enumerate
    def model() -> None:
        rows, z = given.first, None
        for t in pyro.markov(range(len(given.log_likelihoods))):
            if z is not None:
                rows = Vindex(given.transitions[t - 1])[z, :]
            z = pyro.sample(f"z{t}", dist.Categorical(rows))
            pyro.factor(f"x{t}", Vindex(given.log_likelihoods[t])[z])

    def nothing() -> None:
        pass

    bound = TraceEnum_ELBO(max_plate_nesting=0)
    with torch.no_grad():
        for _ in sys.stdin:
            start = time.perf_counter()
            value = -bound.loss(model, nothing)
            print(json.dumps({"value": value, "seconds": time.perf_counter() - start}), flush=True)


# --- measuring ---


def seconds_of(way: Way) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        way()
    return (time.perf_counter() - start) / CALLS


def measure(length: int, rounds: int, pyro: Pyro | None, given: Chain) -> None:
    ways = {
        "boundcheck": contraction(given),
        "boundcheck, building the model too": contraction(given, keep=False),
        "forward recursion": forward(given),
    }
    values = {name: way() for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    if pyro is not None:
        values["Pyro TraceEnum_ELBO"], _ = pyro()
        seconds["Pyro TraceEnum_ELBO"] = []
    truth = values["forward recursion"]
    for name, value in values.items():
        if not math.isclose(value, truth, rel_tol=1e-11):
            raise SystemExit(f"{name} says {value!r}, the forward recursion {truth!r}")
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(seconds_of(way))
        if pyro is not None:
            seconds["Pyro TraceEnum_ELBO"].append(pyro()[1])
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"\nchain of {length}: log p(x) = {truth:.10f}; medians of {rounds} interleaved rounds")
    print(f"{'':36}{'ms':>10}{'least ms':>10}{'ratio':>10}")
    for name, times in seconds.items():
        ratio = medians[name] / medians["boundcheck"]
        print(f"{name:36}{1e3 * medians[name]:10.3f}{1e3 * min(times):10.3f}{ratio:10.2f}")
    own = medians["boundcheck"]
    print(f"boundcheck / forward recursion      {own / medians['forward recursion']:.2f}   (goal: at most 5)")
    if pyro is not None:
        print(f"Pyro / boundcheck                   {medians['Pyro TraceEnum_ELBO'] / own:.0f}   (goal: at least 100)")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks chain", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--length", type=int, default=100, help="how many latents (default: 100)")
    parser.add_argument("--level", type=float, default=-1.0, help="the size of log p(x_t|z_t) (default: -1)")
    parser.add_argument("--rounds", type=int, default=21, help="rounds of the interleaved measurement")
    parser.add_argument("--pyro-python", help="the interpreter of an environment with requirements-pyro.txt")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.worker:
        pyro_worker(options.worker)
        return 0
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, numpy {np.__version__}")
    python = options.pyro_python or (sys.executable if importlib.util.find_spec("pyro") else None)
    given = chain(options.length, options.level)
    if python is None:
        print("pyro-ppl is not installed here; to measure it too, name an interpreter that has it with --pyro-python.")
        measure(options.length, options.rounds, None, given)
        return 0
    pyro = Pyro(python, given)
    try:
        measure(options.length, options.rounds, pyro, given)
    finally:
        pyro.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
