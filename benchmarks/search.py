"""Searching for counterexamples: models a second, time to the first violation, time to a certified witness.

Four parts, of which `--parts` chooses some:

- throughput: proposing and evaluating models in batches, beside Hypothesis tests that draw one model at a time and
  judge it with `assert_bound`, or with nothing but the float evaluator;
- first: the time to the first violation, decided, beside `hypothesis.find` with the same strategy as a test has;
- witness: the time to a shrunk and certified witness of every false claim of the catalogue, in a warm process;
- stages: narrow claims that random batches, the evolution or gradient ascent miss when they are alone.

Wall-clock and processor time are both given: on a machine that is not idle only the second means something.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from boundcheck.catalogue import claims, find
from boundcheck.catalogue.objectives import (
    denoising_coupled,
    denoising_decoupled,
    hvm,
    iwae,
    log_evidence,
    marginal_negative_entropy,
    renyi,
    renyi_finite,
)
from boundcheck.claims.claim import Claim
from boundcheck.evaluators import floating
from boundcheck.language import log
from boundcheck.search.batch import Sizes, margins, needs
from boundcheck.search.falsify import DEFAULT_BUDGET, STAGES, _Hunt, falsify
from boundcheck.search.propose import random_batch

BATCH = 1 << 15
TRIES = 2000


def below_evidence(name: str, formula: Any, **parameters: Any) -> Claim:
    return Claim(name, partial(formula, **parameters), "<=", log_evidence)


THROUGHPUT = {
    "denoising, decoupled": (below_evidence("decoupled", denoising_decoupled), 1000),
    "denoising, coupled": (below_evidence("coupled", denoising_coupled), 1000),
    "Renyi, alpha = -1/2": (below_evidence("renyi", renyi, alpha="-1/2"), 1000),
    "Renyi, K = 2, alpha = -1/2": (below_evidence("renyi", renyi_finite, alpha="-1/2", k=2), 1000),
    "Renyi, K = 12, alpha = -1/20": (below_evidence("renyi", renyi_finite, alpha="-1/20", k=12), 1000),
    "IWAE, K = 5": (below_evidence("iwae", iwae, k=5), 20),
}
FIRST = {
    "denoising, decoupled": below_evidence("decoupled", denoising_decoupled),
    "Renyi, K = 12, alpha = -1/20": below_evidence("renyi 12", renyi_finite, alpha="-1/20", k=12),
    "Renyi, K = 11, alpha = -1/20": below_evidence("renyi 11", renyi_finite, alpha="-1/20", k=11),
}


def above(alpha: str, k: int, excess: str) -> Claim:
    return Claim("narrow", lambda m, x: renyi_finite(m, x, alpha, k) - Fraction(excess), "<=", log_evidence)


def nearly_uniform_hvm(slack: str) -> Claim:
    """HVM plus the entropy of q~ reaches log p(x) + log 3 only where the reverse model is exact and q~ uniform."""

    def lhs(m: Any, x: Any) -> Any:
        return hvm(m, x) - marginal_negative_entropy(m, x) - log(3) + Fraction(slack)

    return Claim("uniform", lhs, "<=", log_evidence)


NARROW = {
    "Renyi, K = 12, alpha = -1/20": FIRST["Renyi, K = 12, alpha = -1/20"],
    "Renyi, K = 11, alpha = -1/20": FIRST["Renyi, K = 11, alpha = -1/20"],
    "Renyi, K = 2, alpha = -1/2, by 1e-4": above("-1/2", 2, "1e-4"),
    "Renyi, K = 2, alpha = -1, by 0.0100653": above("-1", 2, "0.0100653"),
    "HVM + H(q~) within 1e-5 of its top": nearly_uniform_hvm("1e-5"),
    "CUBO_2, encoders with holes": find("cubo-above-evidence-anywhere"),
}


class Times:
    """Seconds of wall-clock and of processor time, one entry a run."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    @contextmanager
    def measured(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)

    def __str__(self) -> str:
        return "".join(
            f"{1e3 * value:10.2f}"
            for value in (statistics.median(self.wall), statistics.median(self.cpu), max(self.cpu))
        )


# --- models a second ---


def given_test(claim: Claim, judge: Callable[[Claim, Any], None], examples: int) -> Callable[[], None]:
    from hypothesis import HealthCheck, given, settings

    from boundcheck.strategies import finite_models

    corrupted = 2 if "corruption" in needs(claim) else 0

    @settings(max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(finite_models(latent=2, corruption=corrupted, zeros=False))
    def test(model: Any) -> None:
        judge(claim, model)

    return test


def by_assert_bound(claim: Claim, model: Any) -> None:
    from boundcheck.testing import assert_bound

    # Never violated, so that Hypothesis does not stop at the first model to shrink it.
    assert_bound(claim.lhs - 1000, "<=", claim.rhs, model, x=0, name=claim.name)  # type: ignore[operator]


def by_floats(claim: Claim, model: Any) -> None:
    lhs, rhs = (float(floating.evaluate(side, model, 0)) for side in claim.terms)
    assert lhs <= rhs + 1000


def throughput(rounds: int) -> None:
    print(f"\nthousands of models in a second of processor time; medians of {rounds} interleaved rounds")
    print(f"{'':34}{'batches':>10}{'assert_bound':>14}{'ratio':>8}{'floats':>10}{'ratio':>8}{'goal':>8}")
    for name, (claim, goal) in THROUGHPUT.items():
        roles = needs(claim)
        sizes = Sizes(2, 2, 2 if "corruption" in roles else 0)
        examples = 100
        rates: dict[str, list[float]] = {"batches": [], "assert_bound": [], "floats": []}
        tests = {
            "assert_bound": given_test(claim, by_assert_bound, examples),
            "floats": given_test(claim, by_floats, examples),
        }
        for test in tests.values():
            test()
        for number in range(rounds):
            rng = np.random.default_rng(number)
            start = time.process_time()
            margins(claim, random_batch(rng, sizes, roles, BATCH))
            rates["batches"].append(BATCH / (time.process_time() - start))
            for way, test in tests.items():
                start = time.process_time()
                test()
                rates[way].append(examples / (time.process_time() - start))
        ours, theirs, floats = (statistics.median(each) / 1e3 for each in rates.values())
        print(f"{name:34}{ours:10.0f}{theirs:14.3f}{ours / theirs:8.0f}{floats:10.3f}{ours / floats:8.0f}{goal:8}")


# --- the first violation ---


def find_violation(claim: Claim, seed: int) -> tuple[float | None, float]:
    """Processor seconds that `hypothesis.find` takes to the first violation, if it finds one, and in all."""
    from hypothesis import HealthCheck, settings
    from hypothesis import find as find_example
    from hypothesis.errors import NoSuchExample

    from boundcheck.strategies import finite_models

    start = time.process_time()
    first: list[float] = []

    def violated(model: Any) -> bool:
        lhs, rhs = (float(floating.evaluate(side, model, 0)) for side in claim.terms)
        if lhs > rhs + 1e-11:
            first.append(time.process_time() - start)
        return lhs > rhs + 1e-11

    corrupted = 2 if "corruption" in needs(claim) else 0
    options = settings(max_examples=TRIES, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    models = finite_models(latent=2, corruption=corrupted, zeros=False)
    with suppress(NoSuchExample):
        find_example(models, violated, settings=options, random=Random(seed))
    return (first[0] if first else None), time.process_time() - start


def missed_by_a_test(claim: Claim, seed: int, examples: int = 100) -> bool:
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    from boundcheck.strategies import finite_models

    corrupted = 2 if "corruption" in needs(claim) else 0

    @seeded(seed)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(finite_models(latent=2, corruption=corrupted, zeros=False))
    def test(model: Any) -> None:
        lhs, rhs = (float(floating.evaluate(side, model, 0)) for side in claim.terms)
        assert lhs <= rhs + 1e-11

    try:
        test()
    except AssertionError:
        return False
    return True


def hunted(claim: Claim, seed: int, stages: tuple[str, ...] = STAGES) -> bool:
    """Stage one alone: whether a violation is found, and decided, but not shrunk."""
    hunt = _Hunt(claim, np.random.default_rng(seed), DEFAULT_BUDGET, lambda models: None, frozenset(stages))
    return hunt.run() is not None


def first(seeds: int) -> None:
    print(f"\nto the first violation, in ms of processor time; medians over {seeds} seeds, interleaved")
    print(f"{'':34}{'batches':>10}{'found':>8}{'find':>10}{'+ shrink':>10}{'found':>8}{'test of 100 misses':>20}")
    for name, claim in FIRST.items():
        hunted(claim, 0)
        find_violation(claim, 0)
        ours, found, misses = Times(), 0, 0
        firsts, totals = [], []
        for seed in range(seeds):
            with ours.measured():
                found += hunted(claim, seed)
            seconds, total = find_violation(claim, seed)
            misses += missed_by_a_test(claim, seed)
            if seconds is not None:
                firsts.append(seconds)
                totals.append(total - seconds)
        theirs = (
            f"{1e3 * statistics.median(firsts):10.1f}{1e3 * statistics.median(totals):10.1f}"
            if firsts
            else f"{'-':>10}{'-':>10}"
        )
        print(
            f"{name:34}{1e3 * statistics.median(ours.cpu):10.2f}{found:5}/{seeds}{theirs}{len(firsts):5}/{seeds}"
            f"{misses:17}/{seeds}"
        )


# --- certified witnesses ---


def witnesses(seeds: int) -> None:
    print(f"\nto a shrunk and certified witness, in ms, over {seeds} seeds, after one search that warms the process up")
    print(f"{'':42}{'found':>8}{'states':>8}{'wall med':>10}{'cpu med':>10}{'cpu max':>10}")
    saved = sorted((Path(__file__).parent.parent / "counterexamples" / "witnesses").glob("*.json"))
    false = {file.stem: claims()[file.stem] for file in saved if file.stem in claims()}
    for name, claim in {**false, **{f"narrow: {name}": claim for name, claim in NARROW.items()}}.items():
        if name.startswith("narrow") and "Renyi" not in name:
            continue
        falsify(claim, seed=seeds)
        times, found, states = Times(), 0, set()
        for seed in range(seeds):
            with times.measured():
                search = falsify(claim, seed=seed)
            if search.witness is not None:
                found += 1
                states.add(sum(search.witness.model.sizes.values()))
        print(f"{name:42}{found:5}/{seeds}{','.join(map(str, sorted(states))):>8}{times}", flush=True)


# --- stages alone ---


def stages(seeds: int) -> None:
    falsify(NARROW["HVM + H(q~) within 1e-5 of its top"], budget=7000, stages=("gradient",))  # torch is imported here
    print(f"\nfound from {seeds} seeds within the default budget, and the median of processor seconds")
    print(f"{'':44}{'batches':>14}{'evolution':>14}{'gradient':>14}{'all':>14}")
    for name, claim in NARROW.items():
        row = f"{name:44}"
        for chosen in (*((stage,) for stage in STAGES), STAGES):
            times, found = Times(), 0
            for seed in range(seeds):
                with times.measured():
                    found += hunted(claim, seed, chosen)
            row += f"{found:4}/{seeds}{statistics.median(times.cpu):7.2f} s"
        print(row, flush=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks search", description=(__doc__ or "").partition("\n")[0])
    parts = ("throughput", "first", "witness", "stages")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts), help="which parts (default: all)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the throughput measurement")
    parser.add_argument("--seeds", type=int, default=20, help="seeds of the searches")
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, load {load:.1f}, Python {platform.python_version()}")
    print(f"numpy {np.__version__}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}")
    if "throughput" in options.parts:
        throughput(options.rounds)
    if "first" in options.parts:
        first(options.seeds)
    if "witness" in options.parts:
        witnesses(options.seeds)
    if "stages" in options.parts:
        stages(min(options.seeds, 5))
    return 0
