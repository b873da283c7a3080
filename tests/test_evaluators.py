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
import oracle
import pytest
from expected import OBJECTIVES, Objective
from formulas import random_formula
from helpers import F, enclosure, exact, finite, floating, near, oracle_models, truth, value_or_none
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from boundcheck.catalogue import objectives
from boundcheck.claims.family import finite_models
from boundcheck.errors import BadInput, CannotCompute, CannotComputeExactly, UndefinedValue
from boundcheck.evaluators.enclosure import BallDomain
from boundcheck.evaluators.exact import LogNumberDomain, evaluate_on_all
from boundcheck.evaluators.traversal import Traversal
from boundcheck.language import (
    E,
    density,
    exp,
    integrate,
    kl,
    log,
    log_mean_exp,
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


def interpreted(term: Term, model: FiniteModel, digits: int) -> Any:
    try:
        return naive.evaluate(term, model, digits=digits)
    except naive.Undefined:
        return None


def agrees(evaluator: Any, value: Any, known: Any) -> bool:
    if value is None or known is None:
        return value is known
    if evaluator is exact:
        return near(value.value.ball(256), known, 1e-40)
    if evaluator is floating:
        return float(value) == float(known) or abs(float(value) - float(known)) <= value.error
    if mpmath.isinf(known):
        return float(value) == float(known)
    with flint.ctx.workprec(256):
        slack = flint.arb(0, 1e-40 * max(1.0, abs(float(known))))
        return bool(value.ball.overlaps(flint.arb(mpmath.nstr(known, 45)) + slack))


def compare_with_interpreter(term: Term, model: FiniteModel) -> Counter[str]:
    seen: Counter[str] = Counter()
    known = interpreted(term, model, 50)
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
        elif agrees(evaluator, value, known):
            seen["undefined" if value is None else "defined"] += 1
        else:  # the interpreter has a finite precision too: one over what should cancel to zero
            again = interpreted(term, model, 90)
            if known is None or again is None:
                stable = again is known
            else:
                stable = again == known or mpmath.almosteq(again, known, 1e-25)
            assert not stable, (evaluator.__name__, value, known)
            seen["beyond the interpreter"] += 1
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
    assert seen["beyond the interpreter"] < 5


@pytest.mark.slow
def test_more_random_formulas_agree_with_the_interpreter() -> None:
    for number in range(1000, 9000):
        rng = Random(number)
        term = random_formula(rng, rng.choice((4, 5)), most_copies=3)
        compare_with_interpreter(term, NAIVE_MODELS[number % 2])


# --- Formulas that need more of the language ------------------------------------------------------------------------


def w(m: Any, x: Any, z: Any) -> Term:
    return exp(objectives.log_weight(m, x, z))


def pooled(m: Any, xt: Any) -> Any:
    """mean_k q(.|x~_k): the law of one of the copies' draws, picked at random."""
    return normalised(m.latent, lambda v: log(mean(m.encoder(xt).prob(v))))


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
    "copies of pairs, weighed against the mean of all proposals": lambda m, x: E(
        m.corruption(x).copies(2),
        lambda xt: E(m.encoder(xt), lambda z: log_mean_exp(m.log_joint(x, z) - pooled(m, xt).log_prob(z))),
    ),
    "the same against each copy's own neighbours": lambda m, x: E(
        m.corruption(x).copies(3),
        lambda xt: mean(E(m.encoder(xt), lambda z: m.log_joint(x, z) - pooled(m, xt).log_prob(z) ** 2)),
    ),
    "a mixture of laws that look at all copies": lambda m, x: E(
        m.corruption(x).copies(2),
        lambda xt: E(
            m.encoder(xt), lambda z: maximum_over(mixture(m.prior(), lambda u: pooled(m, xt)).log_prob(z) * 2)
        ),
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


def test_many_models_at_once_are_evaluated_as_each_alone() -> None:
    models = list(itertools.islice((m for m in finite_models(60) if m.sizes == {"x": 2, "z": 3, "x~": 2}), 6))
    terms = [random_formula(Random(number), 4) for number in range(60)]
    terms += [trace(formula) for formula in FORMULAS.values()]
    seen: Counter[str] = Counter()
    for term in terms:
        try:
            together = evaluate_on_all(term, models)
        except (CannotCompute, BadInput):
            seen["refused"] += 1
            with pytest.raises((CannotCompute, BadInput)):
                for model, x in itertools.product(models, range(2)):
                    value_or_none(exact.evaluate, term, model, x)
            continue
        for model, x in itertools.product(models, range(2)):
            alone = value_or_none(exact.evaluate, term, model, x)
            number = together[models.index(model)][x]
            assert number.is_undefined if alone is None else number == alone.value
            seen["undefined" if alone is None else "defined"] += 1
    assert seen["defined"] > 200
    assert seen["undefined"] > 10
    assert seen["refused"] > 10


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
