"""1,000 one-dimensional models at once against a loop over scipy.integrate.quad.

Both compute log p(x) of the same models, to the same tolerance; the loop is given a bracket around the mode, which it
would not know. It is run twice: with the package's densities as the integrand, and with an integrand written by hand
in plain `math`, the fastest that a loop can have. Runs are interleaved, and the figure is the ratio of medians of
processor time.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
from scipy import integrate

from boundcheck.catalogue.objectives import log_evidence
from boundcheck.evaluators.quadrature import evaluate_many
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import BernoulliLogit, Normal

X = (1, 0, 1)
OFFSETS = (-1.0, 0.0, 1.0)


def family(slope: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> ContinuousModel:
    return ContinuousModel(Normal(mean, scale), lambda z: [BernoulliLogit(slope * z - b) for b in OFFSETS])


def vectorised(of: dict[str, np.ndarray]) -> np.ndarray:
    return evaluate_many(log_evidence, family, X, of)[0]


def loop_over_densities(of: dict[str, np.ndarray]) -> np.ndarray:
    def one(slope: float, mean: float, scale: float) -> float:
        model = family(slope, mean, scale)  # type: ignore[arg-type]
        (prior,) = model.law("prior")

        def joint(z: float) -> float:
            laws = model.law("likelihood", (z,))
            total = prior.log_density(z) + sum(law.log_density(x) for law, x in zip(laws, X, strict=True))
            return math.exp(total)

        return math.log(integrate.quad(joint, mean - 12 * scale, mean + 12 * scale, epsabs=0, epsrel=1e-10)[0])

    return np.array([one(*row) for row in zip(*(column.tolist() for column in of.values()), strict=True)])


def loop_over_plain_math(of: dict[str, np.ndarray]) -> np.ndarray:
    def one(slope: float, mean: float, scale: float) -> float:
        def joint(z: float) -> float:
            t = (z - mean) / scale
            total = -t * t / 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)
            for x, b in zip(X, OFFSETS, strict=True):
                f = slope * z - b
                total += x * f - (max(f, 0.0) + math.log1p(math.exp(-abs(f))))
            return math.exp(total)

        return math.log(integrate.quad(joint, mean - 12 * scale, mean + 12 * scale, epsabs=0, epsrel=1e-10)[0])

    return np.array([one(*row) for row in zip(*(column.tolist() for column in of.values()), strict=True)])


def timed(run: Callable[[dict[str, np.ndarray]], np.ndarray], of: dict[str, np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.process_time()
    values = run(of)
    return time.process_time() - start, values


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.quadrature", description=__doc__)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    n = options.models
    of = {
        "slope": np.exp(rng.uniform(-1, 1.5, n)),
        "mean": rng.normal(0, 1, n),
        "scale": np.exp(rng.uniform(-1, 1, n)),
    }
    runs = {"vectorised": vectorised, "quad, densities": loop_over_densities, "quad, plain math": loop_over_plain_math}
    vectorised(of)  # imports and caches
    times: dict[str, list[float]] = {name: [] for name in runs}
    values: dict[str, np.ndarray] = {}
    for _ in range(options.repeats):
        for name, run in runs.items():
            seconds, values[name] = timed(run, of)
            times[name].append(seconds)
    own = statistics.median(times["vectorised"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        difference = np.abs(values[name] - values["vectorised"]).max()
        print(f"{name:18} {median * 1e3:9.1f} ms  {median / own:7.1f} x  largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
