"""How wide and how often wrong: the betting bound on log p(x), Student's limit, and Markov's inequality.

log-weights of known mean are drawn for data sets of one or of many examples, and three lower bounds on the examples'
mean log p(x) are taken at the same error probability. Printed: by how much each lies below the truth (median over the
runs), and in how many runs it lies above it. The first assumes nothing but independent draws, the second that means of
many weights are normal, the third nothing, and uses one group of all draws.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import stdtrit

from boundcheck.evidence.wealth import Wealth

Sampler = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def lognormal(sigma: float) -> Sampler:
    return lambda rng, shape: rng.normal(-(sigma**2) / 2, sigma, size=shape)


def pareto(tail: float) -> Sampler:
    return lambda rng, shape: np.log1p(rng.pareto(tail, size=shape)) + math.log1p(-1 / tail)


def rarely(probability: float) -> Sampler:
    return lambda rng, shape: np.where(rng.random(shape) < probability, -math.log(probability), -math.inf)


SETTINGS: dict[str, Sampler] = {
    "lognormal, sigma 0.5": lognormal(0.5),
    "lognormal, sigma 1": lognormal(1.0),
    "lognormal, sigma 2": lognormal(2.0),
    "lognormal, sigma 4": lognormal(4.0),
    "Pareto, tail 1.5": pareto(1.5),
    "Pareto, tail 1.1": pareto(1.1),
    "zero but for 1 in 1000": rarely(1e-3),
    "constant": lambda rng, shape: np.zeros(shape),
}


def normal_limit(weights: np.ndarray, delta: float) -> float:
    """The normal limit of each example's mean weight (one example), by the delta method."""
    w = np.exp(weights[:, 0])
    limit = w.mean() - float(stdtrit(len(w) - 1, 1 - delta)) * w.std(ddof=1) / math.sqrt(len(w))
    return math.log(limit) if limit > 0 else -math.inf


def student(weights: np.ndarray, delta: float, groups: int = 10) -> float:
    """Student's limit from ten groups for each example, as an evaluation card takes it."""
    draws, examples = weights.shape
    k = draws // groups
    means = np.logaddexp.reduce(weights[: k * groups].reshape(groups, k, examples), axis=1) - math.log(k)
    if not np.isfinite(means).all():
        return -math.inf
    variances = means.var(0, ddof=1) / groups
    if not variances.any():
        return -math.inf
    freedom = variances.sum() ** 2 / (variances**2 / (groups - 1)).sum()  # Satterthwaite (1946)
    return float(means.mean() - stdtrit(freedom, 1 - delta) * math.sqrt(variances.sum()) / examples)


def markov(weights: np.ndarray, delta: float) -> float:
    means = np.logaddexp.reduce(weights, axis=0) - math.log(len(weights))
    return float(means.mean()) - math.log(1 / delta) / weights.shape[1]


def betting(weights: np.ndarray, delta: float) -> float:
    wealth = Wealth(weights.shape[1])
    wealth.add(weights)
    return wealth.lower_mean(delta, fixed=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks intervals", description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--draws", type=int, default=5000)
    parser.add_argument("--examples", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--delta", type=float, default=0.01)
    options = parser.parse_args(arguments)
    for examples in options.examples:
        runs = max(20, options.runs // max(1, examples // 10))
        methods = {"betting": betting, "normal": normal_limit if examples == 1 else student, "Markov": markov}
        print(f"\n{examples} example(s), {options.draws} draws each, delta = {options.delta}, {runs} runs")
        print("| weights | " + " | ".join(f"{name}: below by, wrong" for name in methods) + " |")
        for setting, sampler in SETTINGS.items():
            rng = np.random.default_rng(0)
            found: dict[str, list[float]] = {name: [] for name in methods}
            for _ in range(runs):
                weights = sampler(rng, (options.draws, examples))
                for name, method in methods.items():
                    found[name].append(method(weights, options.delta))
            cells = [f"{-np.median(each):.4f}, {np.mean(np.array(each) > 0):.3f}" for each in found.values()]
            print(f"| {setting} | " + " | ".join(cells) + " |", flush=True)
    return 0
