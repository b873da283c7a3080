"""A certified log p(x) against uncertified quadrature: five Bernoulli-logit observations under a N(0, 1) prior.

All methods get the same model and take turns, so that a busy machine slows all of them alike; what is reported are
ratios of medians. scipy's integrand is a plain function of floats, the fastest that Python offers it.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction

import mpmath as mp
import scipy.integrate

from boundcheck.catalogue.objectives import log_evidence
from boundcheck.evaluators.integration import evaluate
from boundcheck.language import trace
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import BernoulliLogit, Normal

OFFSETS = ("-1", "-1/2", "0", "1/2", "1")
X = (1, 0, 1, 1, 0)
CALLS = 20  # of a fast method in each turn, so that the slow method before it does not leave it a cold cache
EVIDENCE = trace(log_evidence)


def certified(digits: int) -> float:
    offsets = [Fraction(b) for b in OFFSETS]
    model = ContinuousModel(Normal(0, 1), lambda z: [BernoulliLogit(z - b) for b in offsets])
    return float(evaluate(EVIDENCE, model, X, digits=digits))


def by_scipy() -> float:
    offsets = [(float(Fraction(b)), x) for b, x in zip(OFFSETS, X, strict=True)]
    normaliser = 1 / math.sqrt(2 * math.pi)

    def joint(z: float) -> float:
        value = normaliser * math.exp(-0.5 * z * z)
        for b, x in offsets:
            value /= 1 + math.exp(b - z if x else z - b)
        return value

    return math.log(scipy.integrate.quad(joint, -38.0, 38.0, epsabs=0.0, epsrel=1.2e-14, limit=200)[0])


def by_mpmath(digits: int) -> float:
    with mp.workdps(digits):
        offsets = [
            (mp.mpf(Fraction(b).numerator) / Fraction(b).denominator, x) for b, x in zip(OFFSETS, X, strict=True)
        ]

        def joint(z: mp.mpf) -> mp.mpf:
            value = mp.npdf(z)
            for b, x in offsets:
                value /= 1 + mp.exp(b - z if x else z - b)
            return value

        return float(mp.log(mp.quad(joint, [-mp.inf, 0, mp.inf])))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args(argv).rounds
    methods: dict[str, Callable[[], float]] = {
        "certified, 15 digits": lambda: certified(15),
        "certified, 30 digits": lambda: certified(30),
        "scipy.integrate.quad": by_scipy,
        "mpmath.quad, 15 digits": lambda: by_mpmath(15),
        "mpmath.quad, 30 digits": lambda: by_mpmath(30),
    }
    times: dict[str, list[float]] = {name: [] for name in methods}
    values = {name: method() for name, method in methods.items()}
    for _ in range(rounds):
        for name, method in methods.items():
            calls = 1 if name.startswith("mpmath") else CALLS
            start = time.perf_counter()
            for _ in range(calls):
                method()
            times[name].append((time.perf_counter() - start) / calls)
    medians = {name: statistics.median(each) for name, each in times.items()}
    for name, median in medians.items():
        print(f"{name:24} {median * 1e3:9.3f} ms   log p(x) = {values[name]:.15f}")
    fast = medians["certified, 15 digits"]
    print(f"certified / scipy                  {fast / medians['scipy.integrate.quad']:.2f}")
    print(f"mpmath 30 / certified 15 digits    {medians['mpmath.quad, 30 digits'] / fast:.1f}")
    print(
        f"mpmath 30 / certified 30 digits    {medians['mpmath.quad, 30 digits'] / medians['certified, 30 digits']:.1f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
