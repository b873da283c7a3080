"""How often a verdict is wrong: many runs of objectives that just hold, or just fail, through the judging functions.

log p(x) = 0 at every example. Evidence comes from simulated log-weights, objectives from simulated draws with few
replicates and skewed or heavy tails. An objective equal to log p(x) is the hardest valid one, and one that is larger by
a hair the hardest wrong one. Each run may be wrong with probability ALPHA; the tests fail by chance with probability
below 1e-7.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binom

from boundcheck.claims.decide import Outcome, decide
from boundcheck.evaluators.averages import over_examples
from boundcheck.evaluators.values import Approximate, Bias, Sampled
from boundcheck.evidence.audit import below_simulated_evidence, same_as
from boundcheck.evidence.objective import Estimate
from boundcheck.evidence.simulated import SimulatedEvidence
from boundcheck.evidence.verdict import Evidence, Judgement, LowerBound, UpperBound, judge
from boundcheck.evidence.wealth import Wealth

ALPHA = 0.05
EXAMPLES, K = 8, 32
HAIR = 1e-9
Floats = NDArray[np.float64]


def estimate(values: Floats) -> Estimate:
    """From draws of shape (replicates, examples)."""
    return Estimate.of_draws([values])


NOISE: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "exponential to the left": lambda rng, shape: 1 - rng.exponential(size=shape),
    "exponential to the right": lambda rng, shape: rng.exponential(size=shape) - 1,
    "minus chi-square of one degree": lambda rng, shape: 1 - rng.chisquare(1, size=shape),
    "Student's t of three degrees": lambda rng, shape: rng.standard_t(3, size=shape),
    "minus lognormal": lambda rng, shape: math.exp(0.5) - rng.lognormal(size=shape),
}
"""Draws of mean zero."""

WEIGHTS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "close": lambda rng, draws: rng.normal(-0.02, 0.2, size=(draws, EXAMPLES)),
    "far": lambda rng, draws: rng.normal(-4.5, 3.0, size=(draws, EXAMPLES)),
    "without variance": lambda rng, draws: -np.log(3) - np.log(rng.random((draws, EXAMPLES))) / 1.5,
}
"""Log-weights of mean weight one: lognormal, and a Pareto law of index 3/2."""


def posterior(rng: np.random.Generator, weights: str) -> Floats:
    """Log-weights at exact posterior draws, of shape (1, examples): the weights' law tilted by w, in closed form."""
    if weights == "close":
        return rng.normal(0.02, 0.2, size=(1, EXAMPLES))
    if weights == "far":
        return rng.normal(4.5, 3.0, size=(1, EXAMPLES))
    return -np.log(3) - np.log(rng.random((1, EXAMPLES))) / 0.5  # the density of w, times w: index 1/2


def run(rng: np.random.Generator, noise: str, weights: str, replicates: int, shift: float) -> Judgement:
    """One card's verdict on an objective that is log p(x) + shift."""
    draw, weigh = NOISE[noise], WEIGHTS[weights]
    log_weights = weigh(rng, K)
    wealth = Wealth(EXAMPLES, levels=6)
    wealth.add(log_weights)
    yardstick = over_examples([Sampled(float(v), 0.1, Bias.NONE, K) for v in log_weights.mean(0)])
    evidence = Evidence(
        (LowerBound("weights", wealth.lower_mean),),
        ("IWAE", yardstick),
        UpperBound(Approximate(0.0, 0.0), "the truth"),
    )
    forward, other = weigh(rng, K), weigh(rng, K - 1)
    reverse = np.concatenate([other, posterior(rng, weights)])
    both = [np.logaddexp.reduce(each, axis=0) - math.log(K) for each in (forward, reverse)]
    simulated = SimulatedEvidence(torch.zeros(EXAMPLES), both[0], both[1], K)
    scale = rng.uniform(0.1, 3.0, size=EXAMPLES)
    at_data, at_simulated = (estimate(scale * draw(rng, (replicates, EXAMPLES)) + shift) for _ in range(2))
    finding = below_simulated_evidence(at_simulated, simulated, alpha=ALPHA / 2)
    return judge("objective", at_data, evidence, simulated=finding, alpha=ALPHA / 2)


def wrong_verdicts(runs: int, noise: str, weights: str, replicates: int) -> tuple[int, int]:
    """How often an objective equal to log p(x) was found above it, and one above it below it."""
    rng = np.random.default_rng(hash_of(noise, weights, replicates))
    alarms = sum(run(rng, noise, weights, replicates, 0.0).outcome is Outcome.VIOLATED for _ in range(runs))
    missed = sum(run(rng, noise, weights, replicates, HAIR).outcome is Outcome.HOLDS for _ in range(runs))
    return alarms, missed


def hash_of(*parts: object) -> int:
    """A seed that is the same in every process."""
    return sum(ord(each) * 31**place for place, each in enumerate("".join(map(str, parts)))) % 2**32


def most(runs: int) -> int:
    """Wrong verdicts in so many runs that are exceeded with probability 1e-9 if each has probability ALPHA."""
    return int(binom.isf(1e-9, runs, ALPHA))


@pytest.mark.parametrize("replicates", [5, 50])
@pytest.mark.parametrize("noise", NOISE)
def test_verdicts_are_wrong_no_more_often_than_they_say(noise: str, replicates: int) -> None:
    for weights in WEIGHTS:
        for wrong in wrong_verdicts(40, noise, weights, replicates):
            assert wrong <= most(40)


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISE)
def test_false_alarms_of_ten_thousand_runs(noise: str) -> None:
    """10,008 runs for each kind of noise, in equal parts with 2, 5, 20 and 200 replicates and each kind of weights."""
    counts = [wrong_verdicts(834, noise, weights, replicates) for weights in WEIGHTS for replicates in (2, 5, 20, 200)]
    alarms, missed = (sum(each) for each in zip(*counts, strict=True))
    print(f"| {noise} | {alarms / 10_008:.2%} | {missed / 10_008:.2%} |", flush=True)
    assert max(alarms, missed) <= most(10_008)
    assert max(max(each) for each in counts) <= most(834)


SHARED: dict[str, Callable[[np.random.Generator], Floats]] = {
    "normal": lambda rng: np.repeat(rng.normal(size=(200, 1)), 20, axis=1),
    "half of it normal": lambda rng: rng.normal(size=(200, 1)) + rng.normal(size=(200, 20)),
    "exponential to the left": lambda rng: np.repeat(1 - rng.exponential(size=(200, 1)), 20, axis=1),
}
"""Noise of mean zero that 20 examples share, in 200 calls."""


def drops(rng: np.random.Generator, rare: float, size: float, draws: int) -> Floats:
    """Draws of mean zero, of one example, that drop once in a while."""
    return 0.01 * rng.normal(size=(draws, 1)) - size * ((rng.random((draws, 1)) < rare) - rare)


def both_ways(runs: int, draw: Callable[[], Floats]) -> tuple[int, int]:
    """How often a mean of zero was found above zero, and below."""
    found = [decide(estimate(draw()).at(ALPHA), "<=", Approximate(0.0, 0.0), alpha=ALPHA).outcome for _ in range(runs)]
    return found.count(Outcome.VIOLATED), found.count(Outcome.HOLDS)


@pytest.mark.slow
@pytest.mark.parametrize("noise", SHARED)
def test_false_alarms_of_shared_noise(noise: str) -> None:
    above, below = both_ways(10_000, partial(SHARED[noise], np.random.default_rng(3)))
    print(f"shared, {noise}: {above / 10_000:.2%}, {below / 10_000:.2%}", flush=True)
    assert max(above, below) <= most(10_000)


@pytest.mark.slow
@pytest.mark.parametrize(("rare", "size", "draws"), [(0.01, 30, 200), (0.01, 30, 2000), (0.003, 100, 2000)])
def test_rare_drops_fool_runs_that_are_too_short_to_meet_them(rare: float, size: float, draws: int) -> None:
    """What every verdict says of itself: values rarer than about log(1/ALPHA) / draws are not seen."""
    above, below = both_ways(2000, partial(drops, np.random.default_rng(4), rare, size, draws))
    print(f"drops of {size} once in {1 / rare:.0f}, {draws} draws: {above / 2000:.2%}, {below / 2000:.2%}", flush=True)
    if rare * draws > math.log(1 / ALPHA):
        assert max(above, below) <= most(2000)
    else:
        assert above > most(2000)


def test_equal_objectives_are_found_different_no_more_often_than_they_say() -> None:
    rng, runs = np.random.default_rng(1), 300
    for noise in NOISE:
        draw = partial(NOISE[noise], rng)
        pairs = ((estimate(draw((5, EXAMPLES))), estimate(draw((50, EXAMPLES)))) for _ in range(runs))
        found = [same_as(a, "it", b, alpha=ALPHA).outcome for a, b in pairs]
        assert found.count(Outcome.VIOLATED) <= most(runs)
        assert Outcome.HOLDS not in found


def test_clear_cases_are_decided() -> None:
    """The limits are not so wide that nothing is ever said, unless a tail is so long that a mean may have missed it."""
    rng = np.random.default_rng(2)
    for noise in NOISE:
        long = noise in ("minus chi-square of one degree", "minus lognormal")  # their skewness is -2.8 and -6.2
        above = run(rng, noise, "close", 200, 10.0).outcome
        assert above is Outcome.VIOLATED or (long and above is Outcome.UNDECIDED)
        assert run(rng, noise, "close", 200, -10.0).outcome is Outcome.HOLDS


if __name__ == "__main__":  # the figures of docs/planted-errors.md
    for each in NOISE:
        test_false_alarms_of_ten_thousand_runs(each)
    for each in SHARED:
        test_false_alarms_of_shared_noise(each)
    for one in ((0.01, 30, 200), (0.01, 30, 2000), (0.003, 100, 2000)):
        test_rare_drops_fool_runs_that_are_too_short_to_meet_them(*one)
