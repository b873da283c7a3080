"""Every evaluator agrees with every known truth that it can compute, and evaluators that lie are caught.

Statistics: a Monte Carlo estimate is wrong beyond six standard errors, which happens with probability 2e-9 by the
normal law of its mean, and at most four times that with the skewness of these weights at 4000 replicates. With
about 100 comparisons a run the chance of a false alarm is below 1e-6; and all draws are seeded.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import flint
import mpmath
import pytest

from boundcheck import testing
from boundcheck.agreement import PROBLEMS, Problem, Row, Status, check_evaluator, judge, laws, markdown, matrix
from boundcheck.agreement.evaluators import evaluators
from boundcheck.agreement.laws import LAWS
from boundcheck.agreement.rules import as_ball
from boundcheck.agreement.table import page
from boundcheck.catalogue import objectives as o
from boundcheck.errors import BadInput, CannotCompute
from boundcheck.evaluators.lognumber import LogNumber
from boundcheck.evaluators.strongest import evaluate
from boundcheck.evaluators.values import Approximate, Bias, Enclosure, Exact, Sampled, Value
from boundcheck.models import FiniteModel

PAGE = Path(__file__).resolve().parent.parent / "docs" / "agreement.md"
EVALUATORS = evaluators(seed=7)
BY_NAME = {problem.name: problem for problem in PROBLEMS}
AGREES = {
    "exact": {Status.EXACT},
    "enclosure": {Status.ENCLOSED},
    "floating": {Status.WITHIN},
    "closed form": {Status.WITHIN},
    "closed form, enclosed": {Status.ENCLOSED},
    "integration": {Status.ENCLOSED},
    "quadrature": {Status.WITHIN},
    "contraction": {Status.WITHIN},
    "Monte Carlo": {Status.SAMPLED, Status.ONE_SIDED, Status.VACUOUS},
}
# Of the 79 problems and 92 laws: how many each must at least be able to compute, so that a refusal shows.
REACH = {
    "exact": (40, 26),
    "enclosure": (42, 28),
    "floating": (42, 28),
    "closed form": (15, 22),
    "closed form, enclosed": (15, 22),
    "integration": (15, 13),
    "quadrature": (16, 16),
    "contraction": (6, 15),
    "Monte Carlo": (37, 36),
}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return matrix(EVALUATORS)


# --- the table itself ----------------------------------------------------------------------------------------------


def test_the_table_is_large_and_its_names_are_unique() -> None:
    assert len(PROBLEMS) >= 75
    assert len(BY_NAME) == len(PROBLEMS)
    assert all(len(problem.tags) == 1 for problem in PROBLEMS)


NUMBERS = {
    # Values worked out once more, by mpmath's own quadrature or from other forms of the same quantity.
    "Bernoulli, denoising coupled": "-0.368064207168497",
    "uniform prior, log evidence": lambda: mpmath.log(
        mpmath.quad(lambda z: mpmath.npdf(0.5, z, 0.5), [-1, 0.5, 1]) / 2
    ),
    "Laplace prior, log evidence": lambda: mpmath.log(
        mpmath.quad(lambda z: mpmath.npdf(0.5, z, 1) * mpmath.exp(-abs(z)) / 2, [-30, -1, 0, 1, 30])
    ),
    "uniform logit, log evidence": lambda: mpmath.log(mpmath.quad(lambda z: 1 / (1 + mpmath.exp(-z)), [-1, 2]) / 3),
    "logistic prior, IWAE_2": lambda: mpmath.quad(lambda u, v: mpmath.log((u + v) / 2), [0, 1], [0, 1]),
    "linear-Gaussian, CUBO_2": lambda: (
        mpmath.log(
            mpmath.quad(
                lambda z: (mpmath.npdf(z) * mpmath.npdf(1, z)) ** 2 / mpmath.npdf(z, 0.4, mpmath.sqrt(0.4)),
                [-9, 0, 1, 9],
            )
        )
        / 2
    ),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_truths_agree_with_other_ways_to_them(name: str) -> None:
    other = NUMBERS[name]
    number = float(other) if isinstance(other, str) else float(other())
    assert abs(float(as_ball(BY_NAME[name].truth())) - number) < 1e-6


# --- the package's evaluators --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVALUATORS)
def test_an_evaluator_agrees_with_every_truth(name: str, rows: list[Row]) -> None:
    judged = [row.judgements[name] for row in rows]
    wrong = [f"{j.problem.name}: {j.reason}" for j in judged if j.status not in AGREES[name] | {Status.UNABLE}]
    assert not wrong
    assert sum(j.status is not Status.UNABLE for j in judged) >= REACH[name][0]


@pytest.mark.parametrize("name", EVALUATORS)
def test_an_evaluator_keeps_every_law(name: str) -> None:
    computed = 0

    def counted(formula: Any, model: Any, x: Any) -> Value:
        nonlocal computed
        value = EVALUATORS[name](formula, model, x)
        computed += 1
        return value

    assert laws(counted) == []
    assert computed >= 2 * REACH[name][1]


def test_every_problem_and_every_law_is_within_some_evaluators_reach(rows: list[Row]) -> None:
    for row in rows:
        assert any(j.status not in (Status.UNABLE, Status.VACUOUS) for j in row.judgements.values()), row.problem.name
    for kind in ("finite", "linear-Gaussian", "continuous", "factored"):
        assert any(law.name.startswith(kind) for law in LAWS)


def test_intervals_are_narrow() -> None:
    names = ("enclosure", "closed form, enclosed", "integration")
    judged = [judge(EVALUATORS[name], problem, width=1e-12) for name in names for problem in PROBLEMS]
    assert not [j.reason for j in judged if j.status is Status.WRONG]


def test_monte_carlo_says_nothing_only_where_an_expectation_diverges(rows: list[Row]) -> None:
    silent = {row.problem.name for row in rows if row.judgements["Monte Carlo"].status is Status.VACUOUS}
    assert silent == {"linear-Gaussian, CUBO_2, narrow", "linear-Gaussian, CUBO_2, at the border"}


def test_the_page_shows_what_comes_out(rows: list[Row]) -> None:
    assert _cells(page(rows)) == _cells(PAGE.read_text(encoding="utf-8")), (
        "run python -m boundcheck.agreement > docs/agreement.md"
    )


def _cells(text: str) -> list[list[str]]:
    """The rows of all tables, without the column of digits."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) > len(PROBLEMS)
    return [[cell.strip() for i, cell in enumerate(line.split("|")) if i != 2] for line in lines]


# --- evaluators that lie -------------------------------------------------------------------------------------------


def on_tables(change: Callable[[Exact], Value]) -> Callable[[Any, Any, Any], Value]:
    """An evaluator that knows the truth on tables, and says something else."""

    def lying(formula: Any, model: Any, x: Any) -> Value:
        value = EVALUATORS["exact"](formula, model, x)
        assert isinstance(value, Exact)
        return change(value)

    return lying


SOME = [BY_NAME[name] for name in ("two states, ELBO", "two states, IWAE_2", "Bernoulli, denoising decoupled")]


def caught(evaluator: Callable[[Any, Any, Any], Value], problems: list[Problem] = SOME) -> int:
    return sum(judge(evaluator, problem).status is Status.WRONG for problem in problems)


def sampled(shift: float, bias: Bias, error: float = 1e-3) -> Callable[[Exact], Value]:
    return lambda value: Sampled(float(value) + shift * error, error, bias, 10_000)


WRONG: dict[str, Callable[[Exact], Any]] = {
    "exact, off by a hair": lambda v: Exact(v.value + LogNumber.rational(1) / 10**40),
    "an enclosure that excludes": lambda v: Enclosure(flint.arb(float(v) + 1e-6, 1e-7)),
    "off by 1e-6 with an error of 1e-9": lambda v: Approximate(float(v) + 1e-6, 1e-9),
    "a negative error": lambda v: Approximate(float(v), -1.0),
    "not a number": lambda v: Approximate(float("nan"), 1.0),
    "an enclosed NaN": lambda v: Enclosure(flint.arb("nan")),
    "infinite": lambda v: Approximate(float("inf"), 0.0),
    "a float": float,
    "None": lambda v: None,
    "unbiased, but 7 s.e. low": sampled(-7, Bias.NONE),
    "unbiased, but 7 s.e. high": sampled(7, Bias.NONE),
    "biased low, but labelled high": sampled(-7, Bias.HIGH),
    "biased high, but labelled low": sampled(7, Bias.LOW),
    "an infinite mean": lambda v: Sampled(float("inf"), float("nan"), Bias.LOW, 1000),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_planted_wrong_value_is_caught(name: str) -> None:
    assert caught(on_tables(WRONG[name])) == len(SOME)
    assert check_evaluator(on_tables(WRONG[name]), SOME)


RIGHT: dict[str, tuple[Callable[[Exact], Value], Status]] = {
    "exact": (lambda v: v, Status.EXACT),
    "enclosed": (lambda v: Enclosure(flint.arb(float(v), 1e-7)), Status.ENCLOSED),
    "the whole line": (lambda v: Enclosure(flint.arb(0, float("inf"))), Status.VACUOUS),
    "a float": (lambda v: Approximate(float(v) + 1e-10, 1e-9), Status.WITHIN),
    "any float": (lambda v: Approximate(0.0, float("inf")), Status.VACUOUS),
    "unbiased": (sampled(5, Bias.NONE), Status.SAMPLED),
    "far below, and biased low": (sampled(-500, Bias.LOW), Status.ONE_SIDED),
    "far above, and biased high": (sampled(500, Bias.HIGH), Status.ONE_SIDED),
    "of unknown bias": (sampled(500, Bias.UNKNOWN), Status.VACUOUS),
    "a single replicate": (lambda v: Sampled(float(v), float("nan"), Bias.NONE, 1), Status.VACUOUS),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_value_is_not(name: str) -> None:
    change, status = RIGHT[name]
    assert [judge(on_tables(change), problem).status for problem in SOME] == [status] * len(SOME)


HOLE = BY_NAME["hole in the posterior, ELBO"]
INFINITE: dict[str, tuple[Value, Status]] = {
    "the same infinity": (Approximate(-float("inf"), 0.0), Status.WITHIN),
    "the other infinity": (Approximate(float("inf"), 0.0), Status.WRONG),
    "very large": (Approximate(-1e300, 1e299), Status.WRONG),
    "the same, enclosed": (Enclosure(flint.arb("-inf")), Status.ENCLOSED),
    "the other, enclosed": (Enclosure(flint.arb("inf")), Status.WRONG),
    "finite, enclosed": (Enclosure(flint.arb(-5, 1)), Status.WRONG),
    "an infinite mean": (Sampled(-float("inf"), float("nan"), Bias.NONE, 1000), Status.SAMPLED),
    "a finite mean": (Sampled(-3.0, 0.1, Bias.NONE, 1000), Status.WRONG),
    "a finite mean of few": (Sampled(-3.0, 0.1, Bias.NONE, 3), Status.VACUOUS),
    "a finite mean, biased high": (Sampled(-3.0, 0.1, Bias.HIGH, 1000), Status.VACUOUS),
}


@pytest.mark.parametrize("name", INFINITE)
def test_an_infinite_truth(name: str) -> None:
    value, status = INFINITE[name]
    assert judge(lambda formula, model, x: value, HOLE).status is status


def test_a_truth_may_be_a_float_with_an_error() -> None:
    problem = replace(SOME[0], truth=lambda: (-0.9468494, 1e-7))
    assert all(judge(EVALUATORS[name], problem).status in AGREES[name] for name in ("exact", "enclosure", "floating"))
    assert judge(EVALUATORS["exact"], replace(problem, truth=lambda: (-0.9468, 1e-7))).status is Status.WRONG


def test_a_wide_interval_is_wrong_only_where_narrowness_is_asked_for() -> None:
    wide = on_tables(lambda v: Enclosure(flint.arb(float(v), 1e-3)))
    loose = on_tables(lambda v: Approximate(float(v), 1e-3))
    for evaluator in (wide, loose):
        assert judge(evaluator, SOME[0], width=1e-2).status in (Status.ENCLOSED, Status.WITHIN)
        assert judge(evaluator, SOME[0], width=1e-4).status is Status.WRONG


def test_an_exception_is_a_disagreement_and_a_refusal_is_not() -> None:
    def crashes(formula: Any, model: Any, x: Any) -> Value:
        raise ZeroDivisionError("division by zero")

    found = check_evaluator(crashes, SOME)
    assert "ZeroDivisionError" in str(found[0]) and len(found) == len(SOME) + len(LAWS)

    def refuses(formula: Any, model: Any, x: Any) -> Value:
        raise CannotCompute("mine", "anything", "it cannot")

    assert judge(refuses, SOME[0]).status is Status.UNABLE
    assert laws(refuses) == []
    for problems in (SOME, []):
        with pytest.raises(BadInput, match="can compute one of the problems"):
            check_evaluator(refuses, problems)


def test_an_evaluator_that_breaks_a_law_is_caught() -> None:
    """It reads the first state's likelihood as the last one's; it is right where there are two states."""

    def confused(formula: Any, model: Any, x: Any) -> Value:
        if not isinstance(model, FiniteModel):
            raise CannotCompute("mine", "anything", "it knows tables only")
        if model.sizes["z"] == 3:
            likelihood = model.table("likelihood")
            model = FiniteModel(
                prior=model.table("prior").tolist(),
                likelihood=[likelihood[2].tolist(), *likelihood[1:].tolist()],
                encoder=model.table("encoder").tolist(),
                corruption=model.table("corruption").tolist(),
            )
        return evaluate(formula, model, x)

    assert check_evaluator(confused, SOME) == laws(confused)
    assert {each.name for each in laws(confused)} >= {
        "finite: ELBO of permuted states",
        "finite: log evidence of permuted states",
    }


def test_an_evaluator_with_the_wrong_k_is_caught() -> None:
    def off_by_one(formula: Any, model: Any, x: Any) -> Value:
        if getattr(formula, "func", None) is o.iwae:
            return evaluate(o.iwae, model, x, k=1 + formula.keywords["k"] % 3)
        return evaluate(formula, model, x)

    finite = [law for law in laws(off_by_one) if law.name.startswith("finite")]
    assert {law.name for law in finite} == {"finite: IWAE_1 = ELBO", "finite: IWAE_2 <= IWAE_3"}


# --- how it is shipped ---------------------------------------------------------------------------------------------


def test_boundcheck_testing_has_it_without_loading_it() -> None:
    assert testing.check_evaluator is check_evaluator
    assert testing.PROBLEMS is PROBLEMS
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = testing.nothing_of_the_kind  # type: ignore[attr-defined]
    code = """
import sys, boundcheck.testing
assert "boundcheck.agreement" not in sys.modules
boundcheck.testing.PROBLEMS
assert not {"torch", "hypothesis", "scipy"} & set(sys.modules), set(sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_a_table_leaves_out_who_can_do_nothing() -> None:
    chosen = {name: EVALUATORS[name] for name in ("exact", "contraction")}
    assert markdown(matrix(chosen, SOME[:1])).splitlines()[0] == "| problem | truth (nats) | exact |"
    assert markdown([]).splitlines()[0] == "| problem | truth (nats) |"
