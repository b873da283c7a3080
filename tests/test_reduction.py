"""Sums over chains, trees and rings, many variables at a time, against exact sums of integers over all states."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

from boundcheck.catalogue.objectives import log_evidence, renyi
from boundcheck.evaluators.contraction import evaluate
from boundcheck.evaluators.potentials import Table
from boundcheck.evaluators.reduction import Joints, Leaves, Parallels, Stacked, reduction_of
from boundcheck.models.factored import Factor, FactoredModel

Link = tuple[int, int]

pytestmark = pytest.mark.filterwarnings("error")

SHAPES: dict[str, list[Link]] = {
    "chain": [(i, i + 1) for i in range(8)],
    "ring": [(i, (i + 1) % 9) for i in range(9)],
    "star": [(0, i) for i in range(1, 9)],
    "star of paths": [(0, 1), (1, 2), (0, 3), (3, 4), (0, 5), (5, 6), (0, 7), (7, 8)],
    "ladder": [(0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (2, 4), (4, 6), (1, 3), (3, 5), (5, 7)],
    "paths side by side": [(0, i) for i in range(2, 9)] + [(i, 1) for i in range(2, 9)],  # all become one link
    "pieces": [(0, 1), (2, 3), (3, 4), (4, 2), (6, 7), (7, 8)],  # and 5 by itself
    "none": [],
}


def two_tree(rng: np.random.Generator, n: int) -> list[Link]:
    """A random graph that the three steps reduce: each new variable is linked to the ends of a link, or to one."""
    links: list[Link] = [(0, 1)]
    for v in range(2, n):
        a, b = links[int(rng.integers(len(links)))]
        links += [(a, v), (v, b)] if rng.random() < 0.6 else [(v, a)]
    return [links[i] for i in rng.permutation(len(links))]


def integer_model(
    links: list[Link], n: int, states: int, rng: np.random.Generator, largest: int = 9
) -> tuple[FactoredModel, Fraction]:
    """Tables of integers from 1 on, over links and single variables, some of them twice; and the exact sum."""
    scopes: list[tuple[int, ...]] = [*links, *((v,) for v in range(n)), (int(rng.integers(n)),), *links[:1]]
    tables = [rng.integers(1, largest, size=(states,) * len(scope)) for scope in scopes]
    total = 0
    for z in itertools.product(range(states), repeat=n):
        total += math.prod([int(t[tuple(z[v] for v in s)]) for s, t in zip(scopes, tables, strict=True)])
    return FactoredModel([states] * n, [(s, t.astype(float)) for s, t in zip(scopes, tables, strict=True)]), Fraction(
        total
    )


def error_of(value: Any, total: Fraction) -> float:
    """|value - log total| over the error that the value states."""
    with mp.workdps(40):
        truth = mp.log(total.numerator) - mp.log(total.denominator)
        return float(abs(mpf(value.value) - truth) / mpf(value.error))


def stacked(model: FactoredModel) -> Stacked | None:
    return Stacked.of(model.shape, [Table.of(factor, 1.0) for factor in model.factors_of("joint")])


@pytest.mark.parametrize("shape", SHAPES)
def test_integers_over_every_shape(shape: str) -> None:
    rng = np.random.default_rng([1, len(shape)])
    n = 8 if shape == "ladder" else 9
    for largest in (3, 9, 1000):
        model, total = integer_model(SHAPES[shape], n, 2, rng, largest)
        reduced = stacked(model)
        assert reduced is not None
        assert reduced.log_total() is not None
        value = evaluate(log_evidence, model)
        assert error_of(value, total) <= 1
        assert value.error < 1e-12


def test_the_shapes_take_every_kind_of_stage() -> None:
    """And the two traps: one link twice in a stage, and one that is met from both of its ends."""
    seen: set[type] = set()
    for links in SHAPES.values():
        reduction = reduction_of(9, tuple(links))
        assert reduction is not None
        seen |= {type(stage) for stage in reduction.stages}
        for stage in reduction.stages:
            if isinstance(stage, Parallels):
                assert len(set((stage.kept // 2).tolist())) == len(stage.kept)
    assert seen == {Leaves, Joints, Parallels}


@pytest.mark.parametrize("states", [2, 3])
def test_integers_over_random_graphs(states: int) -> None:
    for seed in range(30 if states == 2 else 4):
        rng = np.random.default_rng([2, states, seed])
        n = int(rng.integers(8, 11)) if states == 2 else 8
        model, total = integer_model(two_tree(rng, n), n, states, rng)
        assert stacked(model) is not None
        assert error_of(evaluate(log_evidence, model), total) <= 1


def test_a_chain_of_100_takes_seven_stages() -> None:
    reduction = reduction_of(100, tuple((i, i + 1) for i in range(99)))
    assert reduction is not None
    assert len(reduction.stages) == 7


def test_a_chain_of_400_exactly() -> None:
    """Against the forward recursion in integers; weights of 2^-42 a step bring log p(x) below -10,000."""
    rng = np.random.default_rng(3)
    tables = rng.integers(1, 50, size=(399, 2, 2))
    forward = [1, 1]
    for table in tables:
        forward = [sum(forward[i] * int(table[i, j]) for i in (0, 1)) for j in (0, 1)]
    model = FactoredModel([2] * 400, [((i, i + 1), table * 2.0**-42) for i, table in enumerate(tables)])
    value = evaluate(log_evidence, model)
    assert value.value < -10_000
    assert stacked(model) is not None
    assert error_of(value, Fraction(sum(forward), 2 ** (42 * 399))) <= 1
    assert value.error < 1e-9


@pytest.mark.parametrize("kind", ["zeros", "far apart", "a star that multiplies far apart", "three neighbours", "wide"])
def test_what_it_leaves_to_the_general_way(kind: str) -> None:
    """It refuses, and the value is right nevertheless."""
    rng = np.random.default_rng(4)
    n, states = (9, 2) if kind != "wide" else (8, 9)
    links = [(i, i + 1) for i in range(n - 1)]
    tables = [rng.integers(1, 9, size=(states, states)) for _ in links]
    powers = [np.zeros((states, states), dtype=int) for _ in links]
    if kind == "zeros":
        tables[3][0, 1] = 0
    elif kind == "far apart":
        powers[4][1, 0] = 2000
    elif kind == "a star that multiplies far apart":
        links = [(0, i) for i in range(1, n)]
        for power in powers:
            power[int(rng.integers(2))] = 700
    elif kind == "three neighbours":
        links = list(itertools.combinations(range(4), 2)) + [(i, i + 1) for i in range(3, n - 1)]
        tables = [rng.integers(1, 9, size=(2, 2)) for _ in links]
        powers = [np.zeros((2, 2), dtype=int) for _ in links]
    with np.errstate(divide="ignore"):
        logs = [np.log(t) - math.log(2) * k for t, k in zip(tables, powers, strict=True)]
    model = FactoredModel([states] * n, [Factor(s, t, log=True) for s, t in zip(links, logs, strict=True)])
    reduced = stacked(model)
    assert reduced is None or reduced.log_total() is None
    exact = [
        [[Fraction(int(t[i, j]), 2 ** int(k[i, j])) for j in range(states)] for i in range(states)]
        for t, k in zip(tables, powers, strict=True)
    ]
    if kind == "wide":
        forward = [Fraction(1)] * states
        for table in exact:
            forward = [sum((forward[i] * table[i][j] for i in range(states)), Fraction(0)) for j in range(states)]
        total = sum(forward, Fraction(0))
    else:
        total = Fraction(0)
        for z in itertools.product(range(2), repeat=n):
            total += math.prod([table[z[a]][z[b]] for (a, b), table in zip(links, exact, strict=True)])
    assert error_of(evaluate(log_evidence, model), total) <= 1


def test_a_law_with_powers_is_stacked_anew() -> None:
    """Renyi bounds scale the factors; stacks of two scales must not be confused."""
    rng = np.random.default_rng(5)
    logs = rng.normal(size=(11, 2, 2))
    model = FactoredModel(
        [2] * 12,
        [Factor((i, i + 1), table, log=True) for i, table in enumerate(logs)],
        [((i,), [0.25, 0.75]) for i in range(12)],
    )
    states = np.array(list(itertools.product((0, 1), repeat=12)))
    log_p = sum(logs[i][states[:, i], states[:, i + 1]] for i in range(11))
    log_q = np.log(np.array([0.25, 0.75]))[states].sum(axis=1)
    assert evaluate(log_evidence, model).value == pytest.approx(np.logaddexp.reduce(log_p), abs=1e-12)
    for alpha in ("1/2", 2, "1/4", "1/2"):
        power = 1 - float(Fraction(alpha))
        truth = np.logaddexp.reduce(log_q + power * (log_p - log_q)) / power
        assert evaluate(lambda m, x, a=alpha: renyi(m, x, a), model).value == pytest.approx(truth, abs=1e-11)
