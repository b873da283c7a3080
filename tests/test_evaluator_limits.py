"""Where the evaluators end: what they refuse, what has no value, and how they own up to lost digits."""

from __future__ import annotations

import itertools
import math
from random import Random
from typing import Any

import flint
import numpy as np
import oracle
import pytest
from helpers import F, enclosure, exact, finite, floating

from boundcheck.catalogue import objectives
from boundcheck.errors import BadInput, CannotCompute, CannotComputeExactly, UndefinedValue
from boundcheck.evaluators.floating import FloatDomain
from boundcheck.evaluators.values import Enclosure
from boundcheck.language import E, Space, exp, integrate, kl, log, maximum, mean, same, total
from boundcheck.language.terms import Term
from boundcheck.models.finite import FiniteModel

EVALUATORS = (exact, enclosure, floating)


def w(m: Any, x: Any, z: Any) -> Term:
    return exp(objectives.log_weight(m, x, z))


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
        (lambda m, x: E(m.encoder(x).copies(10_000), lambda z: mean(w(m, x, z))), CannotCompute, "10001 multisets are"),
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
    with pytest.raises(UndefinedValue):  # the posterior of an impossible observation, under a logarithm
        evaluator.evaluate(lambda m, x: log(E(m.posterior(x), lambda z: m.prior().prob(z))), hole, 1)
    with pytest.raises(UndefinedValue):  # the logarithm of a negative number
        evaluator.evaluate(lambda m, x: log(E(m.encoder(x), lambda z: m.encoder(x).prob(z) - 2)), hole)


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_what_carries_no_rounding_keeps_its_logarithm(evaluator: Any) -> None:
    """log 0 of a comparison or a constant is -inf for certain, not a rounding error."""
    value = evaluator.evaluate(lambda m, x: E(m.prior(), lambda a: E(m.prior(), lambda b: log(same(a, b)))), HALF)
    assert float(value) == -math.inf
    kept = evaluator.evaluate(
        lambda m, x: E(m.prior(), lambda a: E(m.prior(), lambda b: log(same(a, b) + 0 * same(a, b) + 1))), HALF
    )
    assert float(kept) == pytest.approx(math.log(2) / 2)
    if evaluator is floating:
        assert value.error == 0
        assert kept.error < 1e-10


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


def test_a_power_of_what_may_be_zero_has_no_stated_precision() -> None:
    """The mean below is exactly zero, its inverse +inf; floats make it some 1e-17."""
    model = FiniteModel(prior=["2/3", "1/3"], likelihood=[["3/7", "4/7"], ["3/7", "4/7"]], encoder=[["2/3", "1/3"]] * 2)
    zero = lambda m, x: objectives.elbo(m, x) - objectives.log_evidence(m, x)  # noqa: E731
    for exponent in (-1, -2, F(1, 2), F(-1, 2)):
        known = 0.0 if exponent > 0 else math.inf
        for scale in (1, 3, 7, F(1, 3)):
            power = lambda m, x, s=scale, e=exponent: (s * zero(m, x)) ** e  # noqa: E731
            assert float(exact.evaluate(power, model)) == known
            try:
                assert floating.evaluate(power, model).error == math.inf
            except CannotCompute as refusal:  # the root of a negative rounding error
                assert "rounding leaves nothing" in str(refusal)


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
    hole = FiniteModel(prior=["1/3", "2/3"], likelihood=[[1], [1]], encoder=[[1, 0]])
    zero = lambda m, x: E(m.prior(), lambda z: m.prior().log_prob(z) - m.prior().log_prob(z))  # noqa: E731
    infinite = lambda m, x: E(m.prior(), lambda z: -m.encoder(x).log_prob(z))  # noqa: E731
    value = enclosure.evaluate(lambda m, x: log(zero(m, x)) * infinite(m, x), hole)  # -inf * inf, not inf - inf
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
