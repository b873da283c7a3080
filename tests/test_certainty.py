"""A small part of the certainty sweep in every run, all of it behind the slow marker, and whether it could fail at all.

`make certainty` runs the whole sweep with its tables. Its truths are checked here against closed forms and each other.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import Any

import certainty
import flint
import numpy as np
import pytest
from certainty import FAMILIES, Report, examine, ratio_of, sweep
from certainty_copies import log_mean_of_copies, of_tuples
from certainty_families import Case, tables
from certainty_truth import Affine, Law, Observed, OneLatent, gaussian_truths, one_latent_truths
from mpmath import mp, mpf

from boundcheck.evaluators.values import Approximate, Bias, Enclosure, Sampled

SMALL = {
    "tables": 4, "laws": 2, "gaussian_points": 6, "gaussian_planes": 1, "gaussian_spaces": 5,
    "copies": 2, "mixed_encoders": 4,
}  # fmt: skip
QUICK = ("exact", "enclosure", "floating", "integration", "quadrature", "Gauss-Hermite", "closed form")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_small_part_of_the_sweep(family: str) -> None:
    """Without Monte Carlo, and without the corrupted Gaussian models, whose quadrature takes seconds."""
    report = Report()
    for case in FAMILIES[family][0](SMALL[family], 7):
        answers = {name: answer for name, answer in case.answers.items() if name.startswith(QUICK)}
        if family == "gaussian_points" and "hvm" in case.truths:
            del answers["quadrature"]
        truths = case.truths
        if family == "copies":  # larger K takes no longer, but sums over several x~ do
            truths = {name: value for name, value in truths.items() if not name.endswith((" 3", " 5", " 40"))}
            del answers["integration"]
        report += examine(replace(case, answers=answers, truths=truths))
    assert report.failures == []
    assert report.broken() == []
    assert report.pairs.total() >= {"gaussian_planes": 6}.get(family, 20)
    assert report.verdicts["decided"] > report.verdicts["compared"] / 2


@pytest.mark.slow
def test_the_whole_sweep() -> None:
    report = sweep(processes=os.cpu_count() or 1)
    assert report.pairs.total() >= 10_000
    assert report.broken() == [], report.failures[:5]


def test_the_truth_of_copies_is_that_of_plain_sums_over_pairs_and_triples() -> None:
    rng = np.random.default_rng(4)
    for size, spread in ((60, 1.0), (40, 12.0)):
        weights = rng.dirichlet(np.ones(size)).astype(np.longdouble)
        weights, logs = weights / weights.sum(), (spread * rng.normal(size=size)).astype(np.longdouble)
        for count in (2, 3):
            for step in (0.2, 0.25):
                assert abs(log_mean_of_copies(weights, logs, count, step) - of_tuples(weights, logs, count)) < 1e-16


# --- a sweep that cannot fail would say nothing ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def case() -> Case:
    return next(tables(1, 3))


def spoiled(case: Case, evaluator: str, by: Any) -> Report:
    return examine(replace(case, answers={evaluator: lambda term: by(case.answers[evaluator](term))}))


def test_values_that_are_off_are_found(case: Case) -> None:
    """A float that is off by twice its error, an enclosure that is shifted, an exact value that is another's."""
    honest = examine(case)
    assert honest.broken() == []
    off = spoiled(case, "floating", lambda v: Approximate(v.value + 2 * v.error, v.error) if v else v)
    assert any("floating" in line for line in off.broken())
    moved = spoiled(case, "enclosure", lambda v: Enclosure(v.ball + 1e-9) if v else v)
    assert any("enclosure" in line for line in moved.broken())
    assert moved.tallies["tables", "enclosure", "elbo"].wrong == 1
    assert moved.tallies["tables", "enclosure", "elbo"].worst > 1
    elbo = case.answers["exact"](case.terms["elbo()"])
    swapped = spoiled(case, "exact", lambda v: elbo)
    assert swapped.tallies["tables", "exact", "eubo"].wrong == 1
    assert swapped.verdicts["decided"] > 0


def test_verdicts_that_are_wrong_are_found(case: Case) -> None:
    upside_down = replace(case, truths={name: -value for name, value in case.truths.items() if value is not None})
    report = examine(upside_down)
    assert report.verdicts["wrong"] > report.verdicts["decided"] / 2
    assert "contradict" in report.broken()[-1]


def test_an_evaluator_that_breaks_is_found(case: Case) -> None:
    report = examine(replace(case, answers={"floating": lambda term: 1 / 0}))
    assert len(report.failures) == len(case.truths)
    assert report.broken()


def test_how_far_off_a_value_is() -> None:
    with mp.workdps(40):
        third = mpf(1) / 3
        assert ratio_of(Approximate(0.5, 0.25), third, 30) == pytest.approx(2 / 3)
        assert ratio_of(Approximate(0.5, math.inf), third, 30) == "cannot tell"
        assert ratio_of(Approximate(math.inf, 0.0), mp.inf, 30) == "infinite"
        assert ratio_of(Approximate(math.inf, 0.0), third, 30) == math.inf
        assert ratio_of(Approximate(1e300, 1.0), mp.inf, 30) == math.inf
        assert ratio_of(None, None, 30) == "infinite"
        assert ratio_of(None, third, 30) == math.inf
        assert ratio_of(Approximate(0.5, 0.25), None, 30) == math.inf
        assert ratio_of(Enclosure(flint.arb(0.5, 0.25)), third, 30) == pytest.approx(2 / 3)
        assert ratio_of(Enclosure(flint.arb.neg_inf()), -mp.inf, 30) == "infinite"
        assert ratio_of(Enclosure(flint.arb(0, math.inf)), third, 30) == "cannot tell"
        for bias, expected in ((Bias.NONE, 2.0), (Bias.LOW, 2.0), (Bias.HIGH, 0.0), (Bias.UNKNOWN, 0.0)):
            assert ratio_of(Sampled(12.0, 1.0, bias, 100), mpf(0), 30) == expected


# --- the truths themselves -------------------------------------------------------------------------------------------

NAMES = ("log_evidence", "elbo", "reconstruction", "eubo", "renyi 1/2", "renyi 1/4", "cubo 3/2")


def test_the_two_kinds_of_truth_agree() -> None:
    """A Gaussian model of one latent variable, by matrix algebra and by sums over panels."""
    prior, encoder, seen = Law("normal", 0.5, 1.25), Law("normal", 0.25, 1.0), Observed("normal", 1.5, -0.5, 0.75, 0.75)
    one = np.ones((1, 1))
    laws = {
        "prior": Affine((), np.array([0.5]), 1.5625 * one),
        "likelihood": Affine((1.5 * one,), np.array([-0.5]), 0.5625 * one),
        "encoder": Affine((0 * one,), np.array([0.25]), one),
    }
    closed, summed = gaussian_truths(laws, np.array([0.75])), one_latent_truths(OneLatent(prior, [seen], encoder))
    with mp.workdps(40):
        for name in NAMES:
            assert abs(closed[name] - summed[name]) < mpf(10) ** -24, name


@pytest.mark.parametrize("kind", ["laplace", "logistic", "student", "mixture", "uniform"])
def test_sums_over_panels_against_numbers_known_otherwise(kind: str) -> None:
    """A symmetric prior and P(x = 1) = 1/2; where it is not symmetric, x = 0 and x = 1 add up to one."""
    extra = {"student": 2.5, "mixture": 1.5}.get(kind, 0.0)
    prior = Law(kind, -1.5 if kind == "uniform" else 0.0, 3.0 if kind == "uniform" else 1.25, extra)

    def log_p(x: float) -> Any:
        model = OneLatent(prior, [Observed("bernoulli", 1.75, 0.0, x)], Law("normal", 0.25, 0.5))
        return one_latent_truths(model)["log_evidence"]

    with mp.workdps(40):
        if kind == "mixture":
            assert abs(mp.exp(log_p(0.0)) + mp.exp(log_p(1.0)) - 1) < mpf(10) ** -24
        else:
            assert abs(log_p(1.0) + mp.log(2)) < mpf(10) ** -24


def test_what_two_rules_do_not_agree_on_has_no_truth() -> None:
    """A likelihood far narrower than its panels are told."""
    model = OneLatent(Law("normal", 0.0, 1.0), [Observed("normal", 1.0, 0.0, 0.75, 2.0**-9)], Law("normal", 0.0, 1.0))
    assert "log_evidence" in one_latent_truths(model)
    hidden = replace(model, likelihood=[Hidden("normal", 1.0, 0.0, 0.75, 2.0**-9)])
    assert "log_evidence" not in one_latent_truths(hidden)


class Hidden(Observed):
    """As `Observed`, but it does not say where it is."""

    def places(self) -> list[tuple[float, float]]:
        return []


def test_the_sweep_is_cut_into_parts_that_cover_it() -> None:
    parts = certainty.jobs(1.0, 0)
    assert {family for family, _, _ in parts} == set(FAMILIES)
    assert sum(count for family, count, _ in parts if family == "tables") == FAMILIES["tables"][1]
    assert len({seed for _, _, seed in parts}) == len(parts)
    assert certainty.jobs(0.01, 0) != certainty.jobs(0.01, 1)
