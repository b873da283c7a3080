"""The exact, the enclosure and the float evaluator against plain enumeration, and against the laws of probability."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction
from random import Random
from typing import Any

import flint
import mpmath
import naive
import numpy as np
import oracle
import pytest
from expected import OBJECTIVES, Objective
from formulas import random_formula
from helpers import F, enclosure, exact, finite, floating, near, oracle_models, truth, value_or_none
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from boundcheck.catalogue import objectives
from boundcheck.errors import BadInput, CannotCompute, CannotComputeExactly, UndefinedValue
from boundcheck.evaluators.enclosure import BallDomain
from boundcheck.evaluators.exact import LogNumberDomain
from boundcheck.evaluators.floating import FloatDomain
from boundcheck.evaluators.traversal import Traversal
from boundcheck.evaluators.values import Enclosure
from boundcheck.language import (
    E,
    Space,
    density,
    exp,
    integrate,
    kl,
    log,
    log_mean_exp,
    maximum,
    maximum_over,
    mean,
    minimum_over,
    mixture,
    normalised,
    same,
    total,
    trace,
)
from boundcheck.language.terms import Term
from boundcheck.models.finite import FiniteModel

EVALUATORS = (exact, enclosure, floating)
MODELS = list(oracle_models(20, seed=1))

LEAVES_THE_FIELD = ("tvo_", "renyi", "cubo", "perturbative(", "ais_")
"""Objectives with powers that are no integers, or products of logs: the exact evaluator may refuse these, no others."""


def agreement(case: Objective, model: oracle.Model, x: int) -> Counter[str]:
    """Compares the three evaluators with the oracle; counts what was seen."""
    seen: Counter[str] = Counter()
    known, tables = truth(case.expected, model, x), finite(model)
    for evaluator in EVALUATORS:
        try:
            value = value_or_none(evaluator.evaluate, case.term, tables, x)
        except CannotComputeExactly as refusal:
            assert evaluator is exact
            assert case.name.startswith(LEAVES_THE_FIELD), refusal
            seen["refused"] += 1
            continue
        assert (value is None) == (known is None), (evaluator.__name__, value, known)
        if value is None:
            seen["undefined"] += 1
        elif mpmath.isinf(known):
            assert float(value) == float(known), evaluator.__name__
            seen["infinite"] += 1
        else:
            seen["finite"] += 1
            if evaluator is exact:
                assert near(value.value.ball(256), known, 1e-50)
            elif evaluator is enclosure:
                with flint.ctx.workprec(256):
                    assert value.ball.overlaps(flint.arb(mpmath.nstr(known, 58)))
                assert value.upper - value.lower < 1e-15 * max(1.0, abs(float(known)))
            else:
                assert abs(float(value) - float(known)) <= value.error < 1e-6
                assert abs(float(value) - float(known)) <= 1e-12 * max(1.0, abs(float(known)))
    return seen


@pytest.mark.parametrize("case", OBJECTIVES, ids=lambda case: case.name)
def test_objective_agrees_with_the_oracle(case: Objective) -> None:
    seen: Counter[str] = Counter()
    for model in MODELS:
        if case.suits(model):
            for x in range(len(model.likelihood[0])):
                seen += agreement(case, model, x)
    assert seen["finite"] >= 12
    assert seen["finite"] + seen["infinite"] + seen["undefined"] + seen["refused"] >= 40


def test_objectives_meet_infinities_and_undefined_values() -> None:
    """The models above would test little if no value were infinite or missing."""
    rng, seen = Random(7), Counter[str]()
    for _ in range(12):
        model = oracle.random_model(rng, 2, 3, 2, zeros=True)
        for case in OBJECTIVES:
            if case.suits(model):
                seen += agreement(case, model, 0)
    assert seen["infinite"] > 500
    assert seen["undefined"] > 200


def extreme_row(rng: Random, n: int) -> list[Fraction]:
    tiny = (F(1, 10**300), F(1, 10**20), F(1, 10**155), F(0))
    row = [rng.choice(tiny) if rng.random() < 0.5 else F(rng.randint(1, 9)) for _ in range(n)]
    row[rng.randrange(n)] = F(1)
    return [entry / sum(row) for entry in row]


def extreme_model(rng: Random) -> FiniteModel:
    """Rows with entries such as 1e-300 and 1 - 1e-20, next to ordinary ones and zeros."""
    x, z = rng.choice((1, 2, 3)), rng.choice((2, 3))
    return FiniteModel(
        prior=extreme_row(rng, z),
        likelihood=[extreme_row(rng, x) for _ in range(z)],
        encoder=[extreme_row(rng, z) for _ in range(x)],
        corruption=[extreme_row(rng, x) for _ in range(x)],
        auxiliary=[[extreme_row(rng, x) for _ in range(x)] for _ in range(z)],
    )


def float_sweep(models: list[FiniteModel]) -> Counter[str]:
    """The float evaluator against the exact one (or narrow enclosures) to 1e-12 relative and its own stated error."""
    seen: Counter[str] = Counter()
    for model, case in itertools.product(models, OBJECTIVES):
        try:
            known = value_or_none(exact.evaluate, case.term, model)
        except CannotComputeExactly:
            known = value_or_none(enclosure.evaluate, case.term, model, precision=1024)
        try:
            value = value_or_none(floating.evaluate, case.term, model)
        except CannotCompute:
            seen["lost"] += 1  # a logarithm's argument drowned in rounding, and the evaluator says so
            continue
        seen["pairs"] += 1
        assert (value is None) == (known is None), (case.name, model, value, known)
        if value is not None and float(value) != float(known):
            off = abs(float(value) - float(known))
            assert off <= 1e-12 * max(1.0, abs(float(known))), (case.name, model)
            assert off <= value.error, (case.name, model)
            seen["lost"] += math.isinf(value.error)
    return seen


def test_float_evaluator_on_thousands_of_models_and_formulas() -> None:
    rng = Random(11)
    models = [extreme_model(rng) for _ in range(24)]
    models += [finite(oracle.random_model(rng, 2, 3, 2, denominator=10**9, zeros=i % 3 == 0)) for i in range(16)]
    seen = float_sweep(models)
    assert seen["pairs"] > 3000
    assert seen["lost"] < seen["pairs"] / 20


@pytest.mark.slow
def test_float_evaluator_on_many_more_models() -> None:
    rng = Random(12)
    models = [extreme_model(rng) for _ in range(300)]
    models += [finite(oracle.random_model(rng, 2, 4, 2, denominator=10**6, zeros=i % 3 == 0)) for i in range(300)]
    assert float_sweep(models)["pairs"] > 45000


# --- Random formulas against an interpreter that enumerates tuples -----------------------------------------------


NAIVE_MODELS = [finite(oracle.random_model(Random(s), 2, z, 2, zeros=s % 2 == 1)) for s, z in enumerate((2, 2, 3, 3))]


def compare_with_interpreter(term: Term, model: FiniteModel) -> Counter[str]:
    seen: Counter[str] = Counter()
    try:
        known = naive.evaluate(term, model)
    except naive.Undefined:
        known = None
    for evaluator in EVALUATORS:
        try:
            value = value_or_none(evaluator.evaluate, term, model)
        except CannotCompute:
            seen["refused"] += 1
            continue
        if evaluator is enclosure and value is not None and not value.ball.is_finite() and value.ball.rad() != 0:
            seen["whole line"] += 1
        elif evaluator is floating and value is not None and math.isinf(value.error):
            seen["lost"] += 1
        else:
            assert (value is None) == (known is None), (evaluator.__name__, value, known)
            seen["undefined" if value is None else "defined"] += 1
            if known is None:
                continue
            if evaluator is exact:
                assert near(value.value.ball(256), known, 1e-40)
            elif evaluator is floating:
                assert float(value) == float(known) or abs(float(value) - float(known)) <= value.error
            elif mpmath.isinf(known):
                assert float(value) == float(known)
            else:
                with flint.ctx.workprec(256):
                    slack = flint.arb(0, 1e-40 * max(1.0, abs(float(known))))
                    assert value.ball.overlaps(flint.arb(mpmath.nstr(known, 45)) + slack)
    return seen


def test_random_formulas_agree_with_the_interpreter() -> None:
    seen: Counter[str] = Counter()
    for number in range(500):
        rng = Random(number)
        term = random_formula(rng, rng.choice((3, 4, 5)))
        seen += compare_with_interpreter(term, NAIVE_MODELS[number % 4])
    assert seen["defined"] > 900
    assert seen["undefined"] > 50
    assert seen["refused"] < 400


@pytest.mark.slow
def test_more_random_formulas_agree_with_the_interpreter() -> None:
    for number in range(1000, 9000):
        rng = Random(number)
        term = random_formula(rng, rng.choice((4, 5)), most_copies=3)
        compare_with_interpreter(term, NAIVE_MODELS[number % 2])


# --- Formulas that need more of the language ------------------------------------------------------------------------


def w(m: Any, x: Any, z: Any) -> Term:
    return exp(objectives.log_weight(m, x, z))


FORMULAS = {
    "copies in copies": lambda m, x: E(
        m.corruption(x).copies(2),
        lambda xt: log(mean(exp(E(m.encoder(xt).copies(2), lambda z: log(mean(m.likelihood(z).prob(x), over=z)))))),
    ),
    "an entry that joins the mean": lambda m, x: E(
        m.encoder(x),
        lambda z0: E(
            m.encoder(x).copies(2),
            lambda z: log_mean_exp(objectives.log_weight(m, x, z), also=objectives.log_weight(m, x, z0)),
        ),
    ),
    "the largest and the smallest of three": lambda m, x: E(
        m.encoder(x).copies(3), lambda z: maximum_over(m.log_joint(x, z)) - minimum_over(w(m, x, z))
    ),
    "a sum": lambda m, x: E(m.prior().copies(3), lambda z: total(m.likelihood(z).log_prob(x)) / 3),
    "self-normalised weights": lambda m, x: E(
        m.encoder(x).copies(3), lambda z: total(w(m, x, z) * m.likelihood(z).log_prob(x)) / total(w(m, x, z))
    ),
    "leave one out": lambda m, x: E(
        m.encoder(x).copies(3), lambda z: log(mean(total(w(m, x, z)) - w(m, x, z))) - total(w(m, x, z)) ** 2
    ),
    "equal draws": lambda m, x: E(m.prior(), lambda a: E(m.encoder(x), lambda b: same(a, b) * m.log_joint(x, b) + 1)),
    "a mixture": lambda m, x: E(
        mixture(m.prior(), lambda z: m.auxiliary(z, x)), lambda xt: mixture(m.corruption(x), m.corruption).log_prob(xt)
    ),
    "a density of one's own": lambda m, x: E(
        density(m.latent, lambda z: log((m.prior().prob(z) + m.encoder(x).prob(z)) / 2)), lambda z: m.log_joint(x, z)
    ),
    "a normalised law in a normalised law": lambda m, x: E(
        normalised(
            m.latent,
            lambda z: normalised(m.latent, lambda v: 2 * m.log_joint(x, v)).log_prob(z) + m.prior().log_prob(z),
        ),
        lambda z: m.encoder(x).log_prob(z),
    ),
    "a chain of dependent copies": lambda m, x: E(
        m.corruption(x).copies(2), lambda xt: E(m.encoder(xt), lambda z: log(mean(m.likelihood(z).prob(x) / 2)))
    ),
    "one draw between two sets of copies": lambda m, x: E(
        m.corruption(x).copies(2),
        lambda xt: E(
            m.prior(), lambda u: E(m.encoder(xt), lambda z: log(mean(m.likelihood(z).prob(x) + m.prior().prob(u))))
        ),
    ),
    "one expectation for each copy": lambda m, x: E(
        m.corruption(x).copies(3), lambda xt: maximum_over(E(m.encoder(xt), lambda z: m.likelihood(z).prob(x)))
    ),
    "a law that looks at all copies": lambda m, x: E(
        m.corruption(x).copies(2),
        lambda xt: kl(normalised(m.latent, lambda z: log(mean(m.encoder(xt).prob(z)))), m.prior()),
    ),
    "a corruption of a corruption": lambda m, x: E(
        m.corruption(x), lambda a: E(m.corruption(a), lambda b: E(m.encoder(b), lambda z: m.log_joint(a, z)))
    ),
    "a data point drawn anew": lambda m, x: E(
        m.prior(), lambda z: E(m.likelihood(z), lambda y: m.likelihood(z).log_prob(y) - m.corruption(y).log_prob(x))
    ),
    "a polynomial": lambda m, x: E(m.prior(), lambda z: (m.likelihood(z).prob(x) - 1) ** 3 - 2) ** 2,
    "an unused binder": lambda m, x: integrate(m.latent, lambda z: 3) + E(m.encoder(x).copies(2), lambda z: 5),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula_agrees_with_the_interpreter(name: str) -> None:
    seen: Counter[str] = Counter()
    for model in NAIVE_MODELS:
        seen += compare_with_interpreter(trace(FORMULAS[name]), model)
    assert seen["defined"] >= 4


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_multisets_are_tuples(k: int) -> None:
    """K copies as multisets with multinomial weights, against all K-tuples (oracle) and K nested expectations."""
    model = oracle.random_model(Random(k), 2, 3, 2)
    value = exact.evaluate(objectives.iwae, finite(model), k=k)
    assert near(value.value.ball(256), truth(lambda m, x: oracle.iwae(m, x, k), model, 0), 1e-50)

    def nested(m: Any, x: Any, drawn: tuple[Any, ...] = ()) -> Term:
        if len(drawn) == k:
            return log(sum(w(m, x, z) for z in drawn) / k)
        return E(m.encoder(x), lambda z: nested(m, x, (*drawn, z)))

    assert exact.evaluate(lambda m, x: nested(m, x), finite(model)).value == value.value


def test_a_large_number_of_copies_is_a_closed_form() -> None:
    """log mean of 40 weights 1 or 3, binomially many of each."""
    model = FiniteModel(prior=["1/4", "3/4"], likelihood=[[1], [1]], encoder=[["3/4", "1/4"]])
    terms = [math.comb(40, n) * F(3, 4) ** (40 - n) * F(1, 4) ** n for n in range(41)]
    known = sum(float(p) * math.log(float(F(1, 3) * (40 - n) + 3 * n) / 40) for n, p in enumerate(terms))
    assert float(exact.evaluate(objectives.iwae, model, k=40)) == pytest.approx(known, abs=1e-13)


@pytest.mark.parametrize("memory", [1, 100, 3000])
def test_little_memory_changes_nothing(memory: int) -> None:
    model = finite(oracle.random_model(Random(3), 3, 4, 3))
    for case in OBJECTIVES[::3]:
        whole = value_or_none(floating.evaluate, case.term, model)
        cut = value_or_none(floating.evaluate, case.term, model, memory=memory)
        assert (whole is None) == (cut is None)
        if whole is not None:
            assert float(cut) == pytest.approx(float(whole), rel=1e-13, abs=1e-13), case.name


@pytest.mark.parametrize("domain", [LogNumberDomain, BallDomain])
def test_little_memory_changes_nothing_exactly(domain: Any) -> None:
    model = finite(oracle.random_model(Random(4), 2, 3, 3))
    for formula in [*FORMULAS.values(), lambda m, x: objectives.diwae_fresh(m, x, k=2)]:
        term = trace(formula)
        try:
            whole = Traversal(model, 0, domain()).value(term).data.item()
        except (CannotCompute, BadInput):  # a product of logarithms; x~ that have no place among the x
            continue
        cut = Traversal(model, 0, domain(), memory=domain.bytes_per_number * 2).value(term).data.item()
        assert whole == cut if domain is LogNumberDomain else whole.overlaps(cut)


# --- Laws -----------------------------------------------------------------------------------------------------------


def test_every_law_has_total_mass_one() -> None:
    laws = [
        lambda m, x: m.prior(),
        lambda m, x: m.encoder(x),
        lambda m, x: m.corruption(x),
        lambda m, x: m.posterior(x),
        lambda m, x: m.marginal_encoder(x),
        lambda m, x: objectives.tempered(m, x, "1/2"),
        lambda m, x: mixture(m.prior(), m.likelihood),
    ]
    for model, law in itertools.product(NAIVE_MODELS, laws):
        one = lambda m, x, law=law: E(law(m, x), lambda v: 1)  # noqa: E731
        masses = lambda m, x, law=law: integrate(law(m, x).space, lambda v: law(m, x).prob(v))  # noqa: E731
        for formula in (one, masses):
            assert enclosure.evaluate(formula, model).ball.overlaps(flint.arb(1))
            assert float(floating.evaluate(formula, model)) == pytest.approx(1.0, abs=1e-14)


def test_renaming_states_changes_nothing() -> None:
    model = oracle.random_model(Random(5), 2, 3, 2)
    order, x_order = [2, 0, 1], [1, 0]
    renamed = oracle.Model(
        prior=[model.prior[z] for z in order],
        likelihood=[[model.likelihood[z][x] for x in x_order] for z in order],
        encoder=[[model.encoder[x][z] for z in order] for x in x_order],
        corruption=[[model.corruption[x][y] for y in x_order] for x in x_order],  # type: ignore[index]
        auxiliary=[[[model.auxiliary[z][x][y] for y in x_order] for x in x_order] for z in order],  # type: ignore[index]
    )
    for case in OBJECTIVES:
        if not case.name.startswith(LEAVES_THE_FIELD):
            before = exact.evaluate(case.term, finite(model), 0).value
            assert before == exact.evaluate(case.term, finite(renamed), 1).value, case.name


@seed(0)
@settings(max_examples=25)
@given(st.integers(0, 10**6), st.booleans())
def test_bounds_are_ordered(number: int, zeros: bool) -> None:
    """ELBO <= IWAE_2 <= IWAE_3 <= log p <= CUBO_2 where q covers; SIVI_0 <= SIVI_1 <= marginal ELBO, exactly."""
    model = finite(oracle.random_model(Random(number), 2, 3, 2, zeros=zeros))

    def value(formula: Any, **parameters: Any) -> Any:
        try:
            return exact.evaluate(formula, model, **parameters).value
        except (UndefinedValue, CannotComputeExactly):
            return None

    evidence = value(objectives.log_evidence)
    chains = [
        [value(objectives.iwae, k=k) for k in (1, 2, 3)] + [evidence],
        [value(objectives.sivi, k=k) for k in (0, 1, 2)] + [value(objectives.marginal_elbo), evidence],
        [value(objectives.renyi, alpha=a) for a in (3, 2, 1, 0)] + [evidence],
    ]
    if not zeros:
        chains.append([evidence, value(objectives.cubo, n=1), value(objectives.eubo)])
        chains.append([evidence] + [value(objectives.cubo, n=n) for n in (2, 3)])
    for chain in chains:
        known = [each for each in chain if each is not None]
        assert all(a <= b for a, b in itertools.pairwise(known))
        assert len(known) >= 2 or zeros


# --- What cannot be computed, and what has no value ------------------------------------------------------------------


HALF = FiniteModel(prior=["1/2", "1/2"], likelihood=[[1], [1]], encoder=[["1/3", "2/3"]], corruption=[["1"]])


def test_leaving_the_field_names_the_term() -> None:
    with pytest.raises(
        CannotComputeExactly, match=r"exact evaluator cannot compute exactly .*q\(z\|x\).*: an irrational"
    ):
        exact.evaluate(objectives.renyi, HALF, alpha="1/2")
    nested = lambda m, x: log(E(m.encoder(x), lambda z: -m.encoder(x).log_prob(z)))  # noqa: E731
    with pytest.raises(CannotComputeExactly, match=r"log E_\{z .*logarithm of a logarithm"):
        exact.evaluate(nested, HALF)
    product = lambda m, x: E(m.encoder(x), lambda z: m.encoder(x).log_prob(z) ** 2)  # noqa: E731
    with pytest.raises(CannotComputeExactly, match=r"\[log q\(z\|x\)\]\^2: a power of a logarithm"):
        exact.evaluate(product, HALF)
    with pytest.raises(CannotComputeExactly, match="a product of two logarithms"):
        exact.evaluate(lambda m, x: objectives.elbo(m, x) * objectives.elbo(m, x), HALF)


@pytest.mark.parametrize(
    ("formula", "error", "message"),
    [
        (lambda m, x: E(m.encoder(x).copies(3_000_000), lambda z: mean(w(m, x, z))), CannotCompute, "multisets"),
        (lambda m, x: E(m.encoder(x), lambda z: z + 1), CannotCompute, "labels, not numbers"),
        (lambda m, x: E(m.encoder(x), lambda z: m.prior().log_prob(z + 0 * z + 1)), CannotCompute, "not a variable"),
        (
            lambda m, x: integrate(Space("u", (F(0), F(1))), lambda u: 1),
            CannotCompute,
            "the space u is continuous",
        ),
        (
            lambda m, x: E(
                m.corruption(x).copies(2),
                lambda xt: E(m.encoder(xt).copies(2), lambda z: mean(mean(w(m, x, z), z), xt)),
            ),
            CannotCompute,
            "copies",
        ),
        (
            lambda m, x: E(
                m.corruption(x).copies(2),
                lambda xt: mean(E(m.encoder(xt), lambda z: exp(m.prior().log_prob(z) - mean(m.log_joint(x, z))))),
            ),
            CannotCompute,
            "z is reduced over its copies, of which it is one",
        ),
        (lambda m, x: E(m.auxiliary(x, x), lambda z: 1), Exception, "space"),
        (lambda m, x: E(m.prior(), lambda z: E(m.auxiliary(z, x), lambda v: 1)), BadInput, "without auxiliary"),
    ],
)
@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_refusals(evaluator: Any, formula: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        evaluator.evaluate(formula, HALF)


@pytest.mark.parametrize("x", [-1, 1, True, "0", 0.0])
@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_an_observation_that_is_not_there(evaluator: Any, x: Any) -> None:
    with pytest.raises(BadInput, match=r"x = .*: expected the number of an observed state, 0 to 0"):
        evaluator.evaluate(objectives.log_evidence, HALF, x)


@pytest.mark.parametrize(
    "formula",
    [
        lambda m, x: E(m.corruption(x), lambda xt: E(m.corruption(xt), lambda y: 1 + m.corruption(xt).log_prob(y))),
        lambda m, x: E(m.corruption(x), lambda xt: E(m.prior(), lambda z: m.likelihood(z).log_prob(xt))),
        lambda m, x: m.corruption(x).log_prob(x),
        lambda m, x: E(m.corruption(x), lambda xt: log(integrate(m.latent, lambda z: exp(m.log_joint(xt, z))))),
        objectives.elbo,
    ],
)
@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_a_corrupted_input_stands_for_an_observation_only_if_there_are_as_many(evaluator: Any, formula: Any) -> None:
    uneven = FiniteModel(
        prior=[0.5, 0.5], likelihood=[[1], [1]], corruption=[[0.5, 0.5]], encoder=[[0.1, 0.9], [0.8, 0.2]]
    )
    with pytest.raises(BadInput, match="as many x~ as x"):
        evaluator.evaluate(formula, uneven)


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_infinite_and_missing_values(evaluator: Any) -> None:
    hole = FiniteModel(prior=[1, 0], likelihood=[[1, 0], [0, 1]], encoder=[["1/2", "1/2"], [1, 0]])
    assert float(evaluator.evaluate(objectives.elbo, hole)) == -math.inf
    assert float(evaluator.evaluate(objectives.log_evidence, hole, 1)) == -math.inf
    assert float(evaluator.evaluate(lambda m, x: kl(m.encoder(x), m.prior()), hole)) == math.inf
    for formula in (objectives.eubo, lambda m, x: objectives.log_evidence(m, x) - objectives.elbo(m, x)):
        with pytest.raises(UndefinedValue, match="has no value at x = 1"):
            evaluator.evaluate(formula, hole, 1)
    with pytest.raises(UndefinedValue):  # the logarithm of a negative number
        evaluator.evaluate(lambda m, x: log(E(m.encoder(x), lambda z: m.encoder(x).prob(z) - 2)), hole)


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_a_term_of_probability_zero_is_dropped_whatever_it_is(evaluator: Any) -> None:
    sure = FiniteModel(prior=["1/2", "1/2"], likelihood=[[1], [1]], encoder=[[1, 0]])
    infinite = lambda m, x: E(m.encoder(x), lambda z: m.log_joint(x, z) - m.encoder(x).log_prob(z) * 3)  # noqa: E731
    assert float(evaluator.evaluate(infinite, sure)) == pytest.approx(math.log(0.5))
    undefined = lambda m, x: E(m.encoder(x), lambda z: log(m.encoder(x).prob(z) - F(1, 2)))  # noqa: E731
    assert float(evaluator.evaluate(undefined, sure)) == pytest.approx(math.log(0.5))


# --- The float evaluator owns up to what it lost ---------------------------------------------------------------------


def test_a_difference_that_rounding_swallowed_has_no_stated_precision() -> None:
    """log(w_1 + w_2 - w_1) with w_2 = 1e-20 w_1: floats make it log 0, the truth is log w_2."""
    model = FiniteModel(prior=[1 - F(1, 10**20), F(1, 10**20)], likelihood=[[1], [1]], encoder=[["1/2", "1/2"]])
    lost = lambda m, x: E(m.encoder(x).copies(2), lambda z: mean(log(total(w(m, x, z)) - w(m, x, z))))  # noqa: E731
    assert float(exact.evaluate(lost, model)) == pytest.approx(0.5 * math.log(2e-20) + 0.5 * math.log(2))
    assert floating.evaluate(lost, model).error == math.inf


def test_an_overflow_is_no_infinite_value() -> None:
    model = FiniteModel(prior=["1/2", "1/2"], likelihood=[[1], [1]], encoder=[[F(1, 10**320), 1 - F(1, 10**320)]])
    huge = lambda m, x: maximum(0, E(m.encoder(x), lambda z: w(m, x, z) ** 2))  # noqa: E731
    assert float(exact.evaluate(huge, model)) > 1e300 or math.isinf(float(exact.evaluate(huge, model)))
    assert exact.evaluate(huge, model).value.is_finite
    assert floating.evaluate(huge, model).error == math.inf
    ball = enclosure.evaluate(huge, model)
    assert ball.ball.is_finite()
    assert ball.lower < math.inf


def test_a_factor_enlarges_the_stated_error() -> None:
    """c (ELBO - log p) is zero where the encoder is the posterior; the floats are off by about 1e-16 c."""
    model = FiniteModel(prior=["3/7", "4/7"], likelihood=[[1], [1]], encoder=[["3/7", "4/7"]])
    gap = lambda m, x: 10**9 * E(m.encoder(x), lambda z: objectives.log_weight(m, x, z) * 3)  # noqa: E731
    for row in (["3/7", "4/7"], ["1/3", "2/3"], ["5/11", "6/11"]):
        model = FiniteModel(prior=row, likelihood=[[1], [1]], encoder=[row])
        assert exact.evaluate(gap, model).value == 0
        value = floating.evaluate(gap, model)
        assert abs(float(value)) <= value.error


def test_rows_of_floats_beyond_exact_arithmetic_sum_to_one() -> None:
    """A large table of floats is divided by its sums: a bound that is tight must not seem broken by 1e-10."""
    rng = np.random.default_rng(0)
    prior = rng.dirichlet(np.ones(5000)) * (1 + 5e-10)
    model = FiniteModel(prior=prior, likelihood=np.ones((5000, 1)), encoder=prior[None, :])
    assert not model.is_exact()
    for formula in (objectives.elbo, objectives.log_evidence):
        value = floating.evaluate(formula, model)
        assert abs(float(value)) <= value.error < 1e-11
    with pytest.raises(CannotComputeExactly, match="too large to keep exactly"):
        exact.evaluate(objectives.elbo, model)


# --- Enclosures ------------------------------------------------------------------------------------------------------


def test_more_precision_gives_smaller_enclosures_that_nest() -> None:
    model = finite(oracle.random_model(Random(8), 2, 3, 2))
    balls = [enclosure.evaluate(objectives.tvo_left, model, s=3, precision=p).ball for p in (40, 64, 128, 512)]
    for wide, narrow in itertools.pairwise(balls):
        assert wide.overlaps(narrow)
        assert narrow.rad() < wide.rad() / 1000
    assert flint.ctx.prec == 53


def test_a_logarithm_of_what_may_be_negative_is_the_whole_line() -> None:
    """1 - sum_z q(z|x)^1 is zero, its logarithm -inf; balls cannot see that, and must not guess."""
    thirds = FiniteModel(prior=["1/3", "2/3"], likelihood=[[1], [1]], encoder=[["1/3", "2/3"]])
    for wrap in (lambda t: t, lambda t: maximum(3, t), lambda t: exp(t) + 1):
        value = enclosure.evaluate(lambda m, x, f=wrap: f(log(objectives.elbo(m, x))), thirds)
        assert (value.lower, value.upper) == (-math.inf, math.inf)
    square = enclosure.evaluate(lambda m, x: objectives.elbo(m, x) ** 2, thirds)
    assert square.upper < 1e-30
    inverse = enclosure.evaluate(lambda m, x: objectives.elbo(m, x) ** -2, thirds)
    assert (inverse.lower, inverse.upper) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    "ball", [flint.arb(2) ** 5000, -(flint.arb(2) ** 5000), flint.arb(1, 2), flint.arb(10) ** -400]
)
def test_float_ends_of_an_enclosure_are_outside(ball: flint.arb) -> None:
    value = Enclosure(ball)
    assert flint.arb(value.lower) <= ball.lower() or value.lower == -math.inf
    assert flint.arb(value.upper) >= ball.upper() or value.upper == math.inf
    assert value.lower < math.inf
    assert value.upper > -math.inf


def test_float_domain_measures_its_own_error() -> None:
    domain = FloatDomain()
    assert domain.error == pytest.approx(2.0**-44)
    domain.add(np.array([700.0]), np.array([1.0]))
    assert domain.error == pytest.approx(701 * 2.0**-44)
    domain.log(np.array([0.01]))
    assert domain.error == pytest.approx(70100 * 2.0**-44)
