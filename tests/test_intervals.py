"""Evidence intervals: their coverage at the worst moment of a run, their arithmetic, and what they make of bad weights.

A coverage test counts the runs in which the bound was ever above the truth. Were each such run's probability exactly
delta, the count would exceed `allowed` with probability 1e-8; no test run makes more than 30 such counts.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from mpmath import mp, mpf
from scipy.stats import binom

from boundcheck.errors import BadInput
from boundcheck.evidence.intervals import LEVELS, Label, Wealth, evidence_interval, interval_of

DELTA = 0.05

Sampler = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def lognormal(sigma: float) -> Sampler:
    return lambda rng, shape: rng.normal(-(sigma**2) / 2, sigma, size=shape)


def pareto(tail: float) -> Sampler:
    return lambda rng, shape: np.log1p(rng.pareto(tail, size=shape)) + math.log1p(-1 / tail)


def rarely(probability: float) -> Sampler:
    return lambda rng, shape: np.where(rng.random(shape) < probability, -math.log(probability), -math.inf)


SETTINGS: dict[str, Sampler] = {  # log-weights whose weights have mean 1: log E w = 0
    "lognormal 0.5": lognormal(0.5),
    "lognormal 2": lognormal(2),
    "lognormal 4": lognormal(4),
    "pareto 1.5": pareto(1.5),
    "pareto 1.1": pareto(1.1),
    "rarely 1e-3": rarely(1e-3),
    "constant": lambda rng, shape: np.zeros(shape),
}


def allowed(runs: int, delta: float = DELTA) -> int:
    return int(binom.isf(1e-8, runs, delta))


def ever_wrong(sampler: Sampler, runs: int, draws: int, seed: int, examples: int = 1) -> int:
    """In how many runs some moment's bound on the mean log E w was above it: above zero.

    Looked at after every draw up to 64, and then 16 times in each doubling.
    """
    rng = np.random.default_rng(seed)
    wealth = [Wealth(runs, levels=draws.bit_length()) for _ in range(examples)]
    wrong, taken = np.zeros(runs, dtype=bool), 0
    while taken < draws:
        step = max(1, 2 ** (taken.bit_length() - 1) // 16) if taken >= 64 else 1
        taken += step
        for each in wealth:
            each.add(sampler(rng, (step, runs)))
        wrong |= log_wealth_of_product(wealth) >= math.log(1 / DELTA)
    return int(wrong.sum())


def log_wealth_of_product(wealth: list[Wealth]) -> np.ndarray:
    """log E at the truth of each run, whose examples are spread over the accumulators."""
    if len(wealth) == 1:
        return wealth[0].log_wealth(0.0)
    runs = wealth[0].examples
    lines = [each._lines() for each in wealth]
    of_runs = type(lines[0])(
        np.sum([each.finished for each in lines], axis=0),
        np.sum([each.unfinished for each in lines], axis=0),
        lines[0].fractions,
        lines[0].counts,
        len(wealth),
    )
    return of_runs.log_wealth(np.zeros(runs))


# --- coverage ---


@pytest.mark.parametrize("setting", SETTINGS)
def test_coverage_at_the_worst_moment(setting: str) -> None:
    runs = 3000
    assert ever_wrong(SETTINGS[setting], runs, draws=128, seed=1) <= allowed(runs)


@pytest.mark.parametrize("setting", ["lognormal 2", "pareto 1.1"])
def test_coverage_of_data_sets_at_the_worst_moment(setting: str) -> None:
    runs = 400
    assert ever_wrong(SETTINGS[setting], runs, draws=64, seed=2, examples=20) <= allowed(runs)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("examples", "runs", "draws"), [(1, 20_000, 5_000), (100, 10_000, 128)])
def test_coverage_in_full(setting: str, examples: int, runs: int, draws: int) -> None:
    wrong, seed = 0, 100
    while seed < 100 + runs // 1000:
        wrong += ever_wrong(SETTINGS[setting], 1000, draws, seed, examples)
        seed += 1
    print(f"\n{setting}, {examples} example(s), {draws} draws: wrong in {wrong} of {runs} at delta = {DELTA}")
    assert wrong <= allowed(runs)


def test_the_coverage_test_has_power() -> None:
    """Weights of mean 0.85 in place of 1: then zero is no lower bound any more, and the count says so."""
    runs = 2000
    high = lambda rng, shape: lognormal(0.5)(rng, shape) + 0.15  # noqa: E731
    assert ever_wrong(high, runs, draws=512, seed=3) > allowed(runs)


def test_a_bound_that_forgets_the_price_of_the_mixture_would_be_caught() -> None:
    """The capital of the best group size, as if all had been staked on it."""
    runs, levels = 2000, 9
    rng, wrong = np.random.default_rng(4), np.zeros(runs, dtype=bool)
    wealth = Wealth(runs, levels=levels)
    for _ in range(256):
        wealth.add(lognormal(1.0)(rng, (1, runs)))
        whole, kept, *_ = wealth._lines().pieces()
        wrong |= np.maximum(whole, kept).max(0) + math.log(levels) >= math.log(1 / DELTA)
    assert int(wrong.sum()) > allowed(runs)


def test_upper_bounds_from_posterior_draws_cover() -> None:
    """z ~ N(0, 1), x | z ~ N(z, 1), q = N(0, 1.5^2) at x = 1: the posterior N(1/2, 1/2) is known."""
    runs, draws = 2000, 64
    rng = np.random.default_rng(5)
    z = 0.5 + math.sqrt(0.5) * rng.normal(size=(draws, runs))
    log_joint = -math.log(2 * math.pi) - 0.5 * z**2 - 0.5 * (1 - z) ** 2
    log_q = -0.5 * math.log(2 * math.pi * 1.5**2) - 0.5 * (z / 1.5) ** 2
    truth = -0.5 * math.log(4 * math.pi) - 0.25
    wealth = Wealth(runs)
    wealth.add(-(log_joint - log_q))
    uppers = -wealth.lower(DELTA)
    assert int((uppers < truth).sum()) <= allowed(runs)
    assert np.median(uppers) < truth + 1.0


# --- what it costs, against limits that assume more ---


def test_it_is_nearly_as_narrow_as_the_normal_limit_and_far_narrower_than_markovs() -> None:
    rng = np.random.default_rng(6)
    draws, delta = 8192, 1e-3
    weights = lognormal(1.0)(rng, (draws, 50))
    lower = evidence_interval(weights, delta=delta).lower_of_examples
    w = np.exp(weights)
    normal = np.log(w.mean(0) - 3.09 * w.std(0) / math.sqrt(draws))
    markov = np.log(w.mean(0)) - math.log(1 / delta)
    assert np.all(lower <= np.log(w.mean(0)))
    assert np.mean(-lower) < 2 * np.mean(-normal)
    assert np.all(lower > markov + 6)


def test_more_examples_narrow_the_bound_on_their_mean() -> None:
    rng = np.random.default_rng(7)
    weights = lognormal(2.0)(rng, (1024, 200))
    one, all_of_them = evidence_interval(weights[:, :1]), evidence_interval(weights)
    assert one.lower < all_of_them.lower < 0
    assert one.lower == pytest.approx(float(one.lower_of_examples[0]), abs=1e-9)


def test_constant_weights_are_learnt_as_fast_as_the_price_allows() -> None:
    draws, delta = 1000, 1e-3
    lower = evidence_interval(np.full(draws, -80.0), delta=delta).lower
    assert -80 - (math.log(LEVELS / delta)) / draws - 1e-9 <= lower <= -80


def test_a_number_of_draws_that_was_fixed_also_bets_on_all_of_them() -> None:
    """The extra share of the capital is that of one group; it helps data sets of wild weights, and coverage holds."""
    rng = np.random.default_rng(13)
    draws, examples = 1500, 200
    weights = lognormal(4.0)(rng, (draws, examples))
    plain, fixed = evidence_interval(weights), evidence_interval(weights, fixed=True)
    means = np.logaddexp.reduce(weights, axis=0) - math.log(draws)
    markov = means.mean() - math.log((LEVELS + 1) / 1e-3) / examples
    assert plain.lower < markov - 1e-6 <= fixed.lower < 0
    wrong = 0
    for _ in range(40):
        wealth = Wealth(100)
        wealth.add(lognormal(2.0)(rng, (300, 100)))
        wrong += int((wealth.lower(DELTA, fixed=True) > 0).sum())
    assert wrong <= allowed(4000)


@pytest.mark.parametrize("draws", [1, 2, 31, 32, 33, 63])
def test_the_group_of_all_draws_is_their_mean(draws: int) -> None:
    """With everything staked on it alone, the capital is mean w / m; else it has one share of it among all."""
    weights = np.random.default_rng(14).normal(size=(draws, 2))
    means = np.logaddexp.reduce(weights, axis=0) - math.log(draws)
    wealth = Wealth(2, levels=6)
    wealth.add(weights)
    lines = wealth._lines(fixed=True)
    np.testing.assert_allclose(lines.finished[-1], means, rtol=1e-12)
    assert (lines.counts[-1], lines.fractions[-1], len(lines.counts)) == (1, 0.0, 7)


def test_beyond_twice_the_largest_group_there_is_no_group_of_all_draws() -> None:
    weights = np.random.default_rng(15).normal(size=(64, 2))
    plain, fixed = (evidence_interval(weights, levels=6, fixed=each).lower for each in (False, True))
    assert plain == fixed


# --- arithmetic ---


def of_level(log_weights: list[float], level: int, log_mean: float) -> mpf:
    """The capital that bets on groups of 2^level draws, from its definition: each group finished, or in part."""
    w, m, size, capital = [mp.exp(mpf(each)) for each in log_weights], mp.exp(mpf(log_mean)), 2**level, mpf(1)
    for start in range(0, len(w), size):
        group = w[start : start + size]
        capital *= (mp.fsum(group) / m + (size - len(group))) / size
    return capital


def by_definition(log_weights: list[float], levels: int, log_mean: float) -> mpf:
    """E(m), at 50 digits."""
    with mp.workdps(50):
        return mp.fsum(of_level(log_weights, level, log_mean) for level in range(levels)) / levels


@pytest.mark.parametrize("draws", [1, 2, 3, 7, 8, 37])
def test_log_wealth_is_the_capital_where_all_groups_are_finished_and_below_it_elsewhere(draws: int) -> None:
    rng = np.random.default_rng(draws)
    weights = rng.normal(-3.0, 2.0, size=draws)
    weights[rng.random(draws) < 0.1] = -math.inf
    for levels in (1, 2, 3, 6):
        wealth = Wealth(1, levels=levels)
        wealth.add(weights[:, None])
        for log_mean in (-6.0, -3.0, 0.0):
            exact = float(mp.log(by_definition(weights.tolist(), levels, log_mean)))
            got = float(wealth.log_wealth(log_mean)[0])
            if draws % 2 ** (levels - 1) == 0:
                assert got == pytest.approx(exact, abs=1e-10)
            assert got <= exact + 1e-10


@pytest.mark.parametrize("shift", [-3000.0, -90.0, 0.0, 700.0])
def test_the_bound_is_on_the_safe_side_of_the_root_and_close_to_it(shift: float) -> None:
    rng = np.random.default_rng(8)
    weights = rng.normal(shift, 1.5, size=64)
    lower = evidence_interval(weights, delta=0.01, levels=7).lower
    capital = by_definition(weights.tolist(), 7, lower)
    assert capital >= 100  # every m below it is excluded by the definition itself
    assert by_definition(weights.tolist(), 7, lower + 1e-9) < 100


@pytest.mark.parametrize("draws", [4, 5, 7, 16, 21])
def test_whatever_the_examples_share_of_the_mean_the_product_of_capitals_excludes_what_lies_below(draws: int) -> None:
    """Every vector of log m_i whose mean is the bound has, by definition, a capital of at least 1/delta."""
    rng = np.random.default_rng(draws)
    examples, levels, delta = 3, 5, 0.05
    weights = rng.normal(-2.0, 1.0, size=(draws, examples))
    if draws == 7:
        weights[-1, 0] = -math.inf  # the only draw of an unfinished group
    lower = evidence_interval(weights, delta=delta, levels=levels).lower
    for _ in range(40):
        shift = rng.normal(size=examples) * rng.choice([0.1, 1.0, 5.0])
        log_means = lower + shift - shift.mean()
        with mp.workdps(50):
            total = mpf(0)
            for level in range(levels):
                capital = mpf(1)
                for column, log_mean in zip(weights.T.tolist(), log_means.tolist(), strict=True):
                    capital *= of_level(column, level, log_mean)
                total += capital / levels
            assert total >= 1 / delta


def test_spans_in_any_order_and_chunks_of_any_size_give_the_same() -> None:
    rng = np.random.default_rng(9)
    weights = rng.normal(-50.0, 3.0, size=(1003, 4))
    whole = Wealth(4)
    whole.add(weights)
    expected = whole.lower(0.01)
    for cuts in ([1], [64, 500, 501], [3, 5, 640, 1000], list(range(1, 1003, 13))):
        edges = [0, *cuts, 1003]
        states = []
        for start, stop in itertools.pairwise(edges):
            span = Wealth(4, start=start)
            for first in range(start, stop, 7):
                buffer = weights[first : min(first + 7, stop)].copy()
                span.add(buffer)
                buffer[:] = math.nan  # a caller may use its buffers again
            states.append(span.state())
        order = rng.permutation(len(states))
        merged = Wealth.merged([states[each] for each in order])
        assert merged.draws == 1003
        np.testing.assert_allclose(merged.lower(0.01), expected, rtol=1e-12)
        halves = [Wealth.merged(states[: len(states) // 2] or states[:1]).state()]
        halves.append(Wealth.merged(states[max(len(states) // 2, 1) :]).state())
        np.testing.assert_allclose(Wealth.merged(halves).lower(0.01), expected, rtol=1e-12)


def test_torch_and_numpy_agree_and_states_survive_a_file(tmp_path: object) -> None:
    rng = np.random.default_rng(10)
    weights = rng.normal(-5.0, 2.0, size=(100, 3))
    weights[3, 1] = -math.inf
    one, other = Wealth(3), Wealth(3)
    for start in range(0, 100, 9):
        one.add(weights[start : start + 9])
        other.add(torch.tensor(weights[start : start + 9]))
    np.testing.assert_allclose(one.lower(0.1), other.lower(0.1), rtol=1e-13)
    file = f"{tmp_path}/state.npz"
    np.savez(file, **one.state())
    with np.load(file, allow_pickle=False) as state:
        np.testing.assert_array_equal(Wealth.merged([dict(state)]).lower(0.1), one.lower(0.1))


def test_lost_and_repeated_spans_are_refused() -> None:
    first, last = Wealth(1), Wealth(1, start=20)
    first.add(np.zeros((10, 1)))
    last.add(np.zeros((10, 1)))
    with pytest.raises(BadInput, match="one span from 0 on"):
        Wealth.merged([first.state(), last.state()]).lower(0.1)
    with pytest.raises(BadInput, match="do not overlap"):
        Wealth.merged([first.state(), first.state()])
    with pytest.raises(BadInput, match="same examples"):
        Wealth.merged([first.state(), Wealth(2).state()])
    with pytest.raises(BadInput, match="at least one state"):
        Wealth.merged([])


# --- odd weights, bad input ---


def test_zero_weights_give_no_bound_and_touch_no_other_example() -> None:
    weights = np.zeros((50, 3))
    weights[:, 1] = -math.inf
    weights[np.random.default_rng(15).permutation(50)[:25], 2] = -math.inf
    interval = evidence_interval(weights)
    assert interval.lower_of_examples[1] == -math.inf == interval.lower
    assert interval.lower_of_examples[0] == evidence_interval(weights[:, 0]).lower_of_examples[0]
    assert -3 < interval.lower_of_examples[2] < math.log(0.5)


def test_examples_lost_to_nan_do_not_raise_the_bound_of_the_others() -> None:
    """Weights of mean one: NaN, in place of zero, with probability 0.01. Those without NaN have a mean above one."""
    rng = np.random.default_rng(16)
    for _ in range(20):
        weights = np.where(rng.random((64, 100)) < 0.01, math.nan, -math.log(0.99))
        kept = np.flatnonzero(~np.isnan(weights).any(0))
        wealth, chosen = Wealth(100, levels=7), Wealth(len(kept), levels=7)
        wealth.add(weights)
        chosen.add(weights[:, kept])
        assert wealth.lower_mean(0.05, kept) < 0 < chosen.lower_mean(0.05)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_weight_that_is_no_number_takes_the_bound_from_its_example_only(bad: float) -> None:
    weights = np.random.default_rng(11).normal(size=(40, 3))
    clean = Wealth(3)
    clean.add(weights)
    weights[17, 1] = bad
    wealth = Wealth(3)
    wealth.add(weights)
    lower = wealth.lower(0.1)
    assert lower[1] == -math.inf == wealth.lower_mean(0.1)
    assert lower[[0, 2]].tolist() == clean.lower(0.1)[[0, 2]].tolist()
    left = clean.lower_mean(0.1, which=np.array([0, 2]))
    lost = 0.001 / 9  # the share of delta for each of the three ways to lose one
    assert left - 0.5 < wealth.lower_mean(0.1, which=np.array([0, 2])) <= left
    assert wealth.lower_mean(0.1, which=np.array([0, 2])) == pytest.approx(
        clean.lower_mean(0.1 * lost, which=np.array([0, 2])), abs=2e-3
    )
    with pytest.raises(BadInput, match=r"log_weights\[17, 1\]"):
        evidence_interval(weights)


def test_nothing_drawn_says_nothing() -> None:
    assert Wealth(2).lower(0.1).tolist() == [-math.inf] * 2
    assert Wealth(2).lower_mean(0.1) == -math.inf


@pytest.mark.parametrize("delta", [0, 1, -0.1, math.nan, True, "0.1"])
def test_bad_deltas_are_refused(delta: object) -> None:
    with pytest.raises(BadInput, match="delta"):
        evidence_interval([0.0, 0.0], delta=delta)  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", [[], np.zeros((2, 2, 2)), "abc", [[1.0], [1.0, 2.0]], np.zeros((0, 3))])
def test_bad_arrays_are_refused(weights: object) -> None:
    with pytest.raises(BadInput, match="log_weights"):
        evidence_interval(weights)


def test_bad_accumulators_and_blocks_are_refused() -> None:
    for arguments in ({"examples": -1}, {"examples": 1, "levels": 0}, {"examples": 1, "start": 0.5}):
        with pytest.raises(BadInput):
            Wealth(**arguments)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="shape"):
        Wealth(2).add(np.zeros((3, 3)))
    with pytest.raises(BadInput, match="float64"):
        Wealth(2).add(torch.zeros(3, 2))
    with pytest.raises(BadInput, match="at least one example"):
        Wealth(0).lower_mean(0.1)


def test_the_interval_as_json() -> None:
    interval = evidence_interval([[0.0, -math.inf]] * 4, posterior_log_weights=np.ones((3, 2)), delta=0.1)
    shown = json.loads(json.dumps(interval.to_json()))
    assert shown["label"] == Label.PROBABILITY.value == "bound with probability 1-delta"
    assert shown["lower"] == "-inf"
    assert shown["upper"] >= 1
    assert shown["examples"] == 2
    with pytest.raises(BadInput, match="posterior_log_weights"):
        evidence_interval([0.0], posterior_log_weights=np.ones((3, 2)))


def test_which_infinities_are_weights() -> None:
    """log w = -inf is a weight of zero; at a posterior draw, where p(x,z) > 0, log w = +inf is a reciprocal of zero."""
    assert evidence_interval([0.0] * 50 + [-math.inf]).lower > -1
    assert evidence_interval([0.0] * 50, posterior_log_weights=[0.0] * 50 + [math.inf]).upper < 1  # type: ignore[operator]
    with pytest.raises(BadInput, match=r"posterior_log_weights\[1, 0\]"):
        evidence_interval([0.0], posterior_log_weights=[0.0, -math.inf])


def test_an_interval_of_accumulated_bets_is_that_of_the_array() -> None:
    rng = np.random.default_rng(12)
    weights, reverse = rng.normal(-0.5, 1, size=(300, 5)), rng.normal(0.5, 1, size=(200, 5))
    forward, back = Wealth(5), Wealth(5)
    forward.add(weights)
    back.add(-reverse)
    whole = evidence_interval(weights, posterior_log_weights=reverse, delta=0.01)
    same = interval_of(forward, back, delta=0.01)
    assert (same.lower, same.upper) == (whole.lower, whole.upper)
    assert same.lower < 0 < same.upper  # type: ignore[operator]
    few = interval_of(forward, back, delta=0.01, which=np.array([0, 3]), rounding=0.25)
    assert few.lower_of_examples.tolist() == (whole.lower_of_examples[[0, 3]] - 0.25).tolist()
    alone = evidence_interval(weights[:, [0, 3]], posterior_log_weights=reverse[:, [0, 3]], delta=0.01)
    assert few.upper == pytest.approx(alone.upper + 0.25, abs=1e-4)  # type: ignore[operator]
