"""The oracle against numbers worked out by hand, and against laws that hold for every finite model."""

from __future__ import annotations

import ast
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from random import Random

import oracle
import pytest
from mpmath import log, mp, mpf, sqrt
from oracle import Model, bernoulli, random_model

F = Fraction
TOLERANCE = mpf("1e-55")  # values carry 60 digits; the sums here have few terms of size near one

# q(z|x=0) is uniform with weights 1/4 and 3/4; q(z|xt=1) is the posterior, with both weights 1/2 = p(x=0).
HAND = Model(
    prior=[F(1, 3), F(2, 3)],
    likelihood=[[F(3, 8), F(5, 8)], [F(9, 16), F(7, 16)]],
    encoder=[[F(1, 2), F(1, 2)], [F(1, 4), F(3, 4)]],
    corruption=[[F(3, 4), F(1, 4)], [F(1, 2), F(1, 2)]],
    auxiliary=[[[F(1, 2), F(1, 2)]] * 2, [[F(1, 4), F(3, 4)]] * 2],
)

# All of full support, so every quantity is finite; with the state of x to look at.
POSITIVE = [
    (random_model(Random(seed), x=states, z=zs, xt=states), seed % states)
    for seed, (states, zs) in enumerate([(2, 2), (2, 3), (3, 2), (2, 4), (3, 3), (2, 2), (2, 3), (3, 2)])
]
WITH_ZEROS = [random_model(Random(seed), x=2, z=3, xt=2, zeros=True) for seed in range(40)]


@pytest.fixture(autouse=True)
def sixty_digits():
    with mp.workdps(60):
        yield


def same(left, right) -> bool:
    return left == right or abs(left - right) < TOLERANCE


def below(left, right) -> bool:
    return left <= right or same(left, right)


def outcome(function, *arguments):
    """The value, or None where it is undefined."""
    try:
        return function(*arguments)
    except ArithmeticError as error:
        assert str(error) == "undefined"
        return None


def test_imports_only_the_standard_library_and_mpmath():
    tree = ast.parse(Path(oracle.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == {"mpmath"}


# --- The counterexample of Tran and Ranganath ---


def test_bernoulli_both_readings_break_one_half_of_the_sandwich():
    model = bernoulli()
    assert oracle.log_evidence(model, 0) == 0
    assert oracle.marginal_elbo(model, 0) == 0
    decoupled = oracle.denoising_decoupled(model, 0)
    assert same(decoupled, log(mpf(5) / 3))
    assert mp.nstr(decoupled, 12) == "0.510825623766"
    coupled = oracle.denoising_coupled(model, 0)
    assert same(coupled, mpf(9) / 10 * log(mpf(5) / 9) + log(mpf(5)) / 10)
    assert mp.nstr(coupled, 6) == "-0.368064"


def test_bernoulli_decoupled_grows_without_bound():
    # (log(1/2) - log(q)) / 2 + (log(1/2) - log(1-q)) / 2 = -log(4 q (1-q)) / 2
    for q in (F(9, 10), F(99, 100), F(10**12 - 1, 10**12)):
        expected = -log(4 * mpf(q.numerator) * (q.denominator - q.numerator) / mpf(q.denominator) ** 2) / 2
        assert same(oracle.denoising_decoupled(bernoulli(q), 0), expected)
    assert oracle.denoising_decoupled(bernoulli(F(10**12 - 1, 10**12)), 0) > 13
    # At q = 1 an independent xd gives the sample density 0 half the time; the coupled reading stays finite.
    assert oracle.denoising_decoupled(bernoulli(F(1)), 0) == mp.inf
    assert same(oracle.denoising_coupled(bernoulli(F(1)), 0), -log(2))


def test_bernoulli_multi_sample_readings():
    model, explosion = bernoulli(), log(mpf(5) / 3)
    pairs = (81 * log(mpf(5) / 9) + 18 * log(mpf(25) / 9) + log(mpf(5))) / 100  # weights 5/9 (9 in 10) and 5
    assert same(oracle.diwae_coupled(model, 0, 2), pairs)
    assert same(oracle.diwae_fresh(model, 0, 2), pairs)  # by symmetry: a weight's law is the same for both xt
    # Half the time xd = xs, as above; else weights 5 (9 in 10) and 5/9. Together 0.59 log(25/9).
    assert same(oracle.diwae_decoupled(model, 0, 2), explosion * 118 / 100)
    # Where xt_0 and xt_1 differ (half the time), the mixture is exact and the term is 0.
    assert same(oracle.sivi(model, 0, 1), oracle.denoising_coupled(model, 0) / 2)
    assert same(oracle.sivi_without(model, 0, 2), explosion / 2)


def test_bernoulli_has_no_encoder_row_for_x():
    for function in (oracle.elbo, oracle.eubo, oracle.kl_encoder_posterior):
        with pytest.raises(ValueError, match="does not exist"):
            function(bernoulli(), 0)
    with pytest.raises(ValueError, match="no auxiliary"):
        oracle.hvm(bernoulli(), 0)


# --- A second model by hand ---


def by_hand() -> dict:
    """Values for HAND at x = 0: joint 1/8 and 3/8, evidence 1/2, weights under q(z|x) 1/4 and 3/4."""
    low, middle, high = (log(mpf(n) / 4) for n in (1, 2, 3))
    iwae_2 = low / 4 + middle / 2 + high / 4
    mixed = (log(mpf(3) / 8) + log(mpf(5) / 8)) / 2  # the mean of 1/2 with 1/4, and with 3/4
    penalty = log(mpf(9) / 8) / 2
    fit = log(mpf(27) / 128) / 2
    sample_z0, sample_z1 = mpf(7) / 16, mpf(9) / 16  # q~
    root = sqrt(mpf(3))
    return {
        (oracle.log_evidence,): middle,
        (oracle.elbo,): (low + high) / 2,
        (oracle.marginal_elbo,): sample_z0 * log(mpf(2) / 7) + sample_z1 * log(mpf(2) / 3),
        (oracle.denoising_coupled,): (low + high) * 3 / 8 + middle / 4,
        (oracle.denoising_decoupled,): (
            sample_z0 * (log(mpf(1) / 8) - middle * 3 / 4 - low / 4)
            + sample_z1 * (log(mpf(3) / 8) - middle * 3 / 4 - high / 4)
        ),
        (oracle.iwae, 2): iwae_2,
        (oracle.jvi, 2): 2 * iwae_2 - (low + high) / 2,
        (oracle.diwae_coupled, 2): iwae_2 * 3 / 4 + middle / 4,
        (oracle.diwae_fresh, 2): iwae_2 * 9 / 16 + mixed * 6 / 16 + middle / 16,
        # xs = xd (9/16, 1/16); xs = 0, xd = 1: both weights 1/2; xs = 1, xd = 0: 1/4 (z = 0, 1 in 4) and 3/4
        (oracle.diwae_decoupled, 2): (
            iwae_2 * 9 / 16 + middle / 16 + middle * 3 / 16 + (low + 6 * middle + 9 * high) / 16 * 3 / 16
        ),
        # xt_0, xt_1 equal (9/16, 1/16) as coupled; else the mixture (3/8, 5/8) with weights 1/3 and 3/5.
        (oracle.sivi, 1): (
            (low + high) / 2 * 9 / 16
            + middle / 16
            + (log(mpf(1) / 3) + log(mpf(3) / 5)) / 2 * 3 / 16
            + (log(mpf(1) / 3) + 3 * log(mpf(3) / 5)) / 4 * 3 / 16
        ),
        (oracle.renyi, 2): log(mpf(3) / 8),
        (oracle.renyi, F(1, 2)): 2 * log((1 + root) / 4),
        (oracle.renyi_finite, 2, 2): -(log(mpf(4)) / 4 + log(mpf(8) / 3) / 2 + log(mpf(4) / 3) / 4),
        (oracle.cubo, 2): log(mpf(5) / 16) / 2,
        (oracle.cubo_finite, 2, 2): low / 4 + log(mpf(5) / 16) / 4 + high / 4,
        (oracle.eubo,): low / 4 + high * 3 / 4,
        (oracle.tvo_left, 1): (low + high) / 2,
        (oracle.tvo_right, 1): low / 4 + high * 3 / 4,
        # pi_{1/2} is proportional to 1 and sqrt(3)
        (oracle.tvo_left, 2): ((low + high) / 2 + (low + root * high) / (1 + root)) / 2,
        (oracle.tvo_right, 2): ((low + root * high) / (1 + root) + low / 4 + high * 3 / 4) / 2,
        (oracle.perturbative, 0, F(3)): mpf(-3),
        (oracle.perturbative, 1, F(0)): log(1 + (low + high) / 2),
        (oracle.perturbative, 3, F(1)): (
            log(sum(1 + (1 + w) + (1 + w) ** 2 / 2 + (1 + w) ** 3 / 6 for w in (low, high)) / 2) - 1
        ),
        (oracle.beta_objective, F(3)): fit - 3 * penalty,
        (oracle.beta_objective, 0): fit,
        (oracle.free_bits, F(1, 2)): fit - mpf(1) / 2,
        (oracle.free_bits, F(1, 100)): fit - penalty,
        (oracle.dae_criterion,): fit * 3 / 4 + (log(mpf(3) / 8) + 3 * log(mpf(9) / 16)) / 16,
        # p r / (c q): 1/6 and 1/4 at xt = 0 (3/8 each), 1 and 3/2 at xt = 1 (1/16 and 3/16)
        (oracle.hvm,): (log(mpf(1) / 6) + log(mpf(1) / 4)) * 3 / 8 + log(mpf(3) / 2) * 3 / 16,
        (oracle.kl_encoder_posterior,): log(mpf(4) / 3) / 2,
        (oracle.kl_marginal_posterior,): sample_z0 * log(mpf(7) / 4) + sample_z1 * log(mpf(3) / 4),
    }


@pytest.mark.parametrize("call", list(by_hand()), ids=lambda call: " ".join([call[0].__name__, *map(str, call[1:])]))
def test_by_hand(call):
    function, *arguments = call
    assert same(function(HAND, 0, *arguments), by_hand()[call])


def test_posterior_and_optimal_auxiliary_by_hand():
    assert oracle.posterior(HAND, 0) == [F(1, 4), F(3, 4)]
    assert HAND.marginal_encoder(0) == [F(7, 16), F(9, 16)]
    assert oracle.optimal_auxiliary(HAND)[0][0] == [F(6, 7), F(1, 7)]
    assert oracle.optimal_auxiliary(HAND)[1][0] == [F(2, 3), F(1, 3)]
    assert same(oracle.kl([F(0), F(1)], [F(1, 2), F(1, 2)]), log(2))
    assert oracle.kl([F(1, 2), F(1, 2)], [F(0), F(1)]) == mp.inf


def test_results_carry_sixty_digits_whatever_the_ambient_precision():
    with mp.workdps(15):
        value = oracle.elbo(HAND, 0)
    assert same(value, by_hand()[oracle.elbo,])
    assert not same(mpf(float(value)), value)


# --- Laws ---


@pytest.mark.parametrize(("model", "x"), POSITIVE)
def test_special_cases_agree(model, x):
    elbo, evidence = oracle.elbo(model, x), oracle.log_evidence(model, x)
    coupled, decoupled = oracle.denoising_coupled(model, x), oracle.denoising_decoupled(model, x)
    for value in (
        oracle.iwae(model, x, 1),
        oracle.jvi(model, x, 1),
        oracle.renyi(model, x, 1),
        oracle.renyi_finite(model, x, 1, 3),
        oracle.renyi_finite(model, x, F(5, 2), 1),
        oracle.cubo_finite(model, x, 2, 1),
        oracle.tvo_left(model, x, 1),
        oracle.beta_objective(model, x, 1),
        oracle.free_bits(model, x, 0),
        evidence - oracle.kl_encoder_posterior(model, x),
    ):
        assert same(value, elbo)
    for value in (
        oracle.diwae_coupled(model, x, 1),
        oracle.diwae_fresh(model, x, 1),
        oracle.sivi(model, x, 0),
        oracle.hvm(replace(model, auxiliary=[model.corruption] * len(model.prior)), x),
    ):
        assert same(value, coupled)
    assert same(oracle.diwae_decoupled(model, x, 1), decoupled)
    assert same(oracle.sivi_without(model, x, 1), decoupled)
    assert same(oracle.renyi(model, x, 0), evidence)
    assert same(oracle.cubo(model, x, 1), evidence)
    assert same(oracle.cubo(model, x, 3), oracle.renyi(model, x, -2))
    for k in (2, 3):
        assert same(oracle.cubo_finite(model, x, 1, k), oracle.iwae(model, x, k))
        assert same(oracle.renyi_finite(model, x, 0, k), oracle.iwae(model, x, k))
        assert same(oracle.renyi_finite(model, x, -1, k), oracle.cubo_finite(model, x, 2, k))
    assert same(oracle.tvo_right(model, x, 1), oracle.eubo(model, x))


@pytest.mark.parametrize(("model", "x"), POSITIVE)
def test_gaps_are_the_divergences_they_should_be(model, x):
    evidence, marginal = oracle.log_evidence(model, x), oracle.marginal_elbo(model, x)
    assert same(evidence - marginal, oracle.kl_marginal_posterior(model, x))
    assert same(evidence - oracle.hvm(model, x), oracle.kl_joint_posterior(model, x))
    best = replace(model, auxiliary=oracle.optimal_auxiliary(model))
    assert same(oracle.hvm(best, x), marginal)
    encoder, mixture = model.encoder, model.marginal_encoder(x)
    spread = sum(oracle.number(c) * oracle.kl(encoder[xt], mixture) for xt, c in enumerate(model.corruption[x]))
    assert same(marginal - oracle.denoising_coupled(model, x), spread)
    posterior = oracle.posterior(model, x)
    assert same(oracle.eubo(model, x) - evidence, oracle.kl(posterior, encoder[x]))
    widest = 3 * (oracle.tvo_right(model, x, 3) - oracle.tvo_left(model, x, 3))
    assert same(widest, oracle.eubo(model, x) - oracle.elbo(model, x))


@pytest.mark.parametrize(("model", "x"), POSITIVE)
def test_orderings(model, x):
    evidence, marginal = oracle.log_evidence(model, x), oracle.marginal_elbo(model, x)
    increasing = [
        [*(oracle.iwae(model, x, k) for k in (1, 2, 3)), evidence],
        [*(oracle.diwae_coupled(model, x, k) for k in (1, 2, 3)), evidence],
        [*(oracle.diwae_fresh(model, x, k) for k in (1, 2, 3)), evidence],
        [*(oracle.sivi(model, x, k) for k in (0, 1, 2)), marginal, evidence],
        [marginal, *(oracle.sivi_without(model, x, k) for k in (3, 2, 1))],
        [*(oracle.renyi(model, x, F(alpha, 2)) for alpha in (5, 4, 3, 2, 1)), evidence],
        [evidence, *(oracle.cubo(model, x, n) for n in (1, F(3, 2), 2, 3))],
        # A finite-K Renyi value never passes its limit, so at alpha < 0 it need not bound the evidence.
        [*(oracle.renyi_finite(model, x, -1, k) for k in (1, 2, 3)), oracle.renyi(model, x, -1)],
        [*(oracle.tvo_left(model, x, s) for s in (1, 2, 4)), evidence],
        [evidence, *(oracle.tvo_right(model, x, s) for s in (4, 2, 1))],
        [oracle.hvm(model, x), marginal],
        [oracle.free_bits(model, x, F(1, 2)), oracle.elbo(model, x)],
    ]
    for values in increasing:
        assert all(below(low, high) for low, high in pairwise(values)), values


@pytest.mark.parametrize(("model", "x"), POSITIVE)
def test_perturbative_bound(model, x):
    evidence = oracle.log_evidence(model, x)
    values = [outcome(oracle.perturbative, model, x, order, v0) for order in (1, 3, 5) for v0 in (0, 1, F(5, 2))]
    assert any(value is not None for value in values)
    assert all(value is None or below(value, evidence) for value in values)
    assert same(oracle.perturbative(model, x, 99, 1), evidence)  # the whole exponential series
    exact = replace(model, encoder=[oracle.posterior(model, x)] * len(model.encoder))
    assert same(oracle.perturbative(exact, x, 1, -evidence), evidence)  # a constant weight, expanded at itself


@pytest.mark.parametrize(("model", "_"), POSITIVE)
def test_identity_corruption_leaves_the_ordinary_bounds(model, _):
    states = range(len(model.encoder))
    clean = replace(model, corruption=[[F(int(x == xt)) for xt in states] for x in states])
    for x in states:
        elbo, iwae = oracle.elbo(clean, x), oracle.iwae(clean, x, 2)
        for reading in (oracle.denoising_coupled, oracle.denoising_decoupled, oracle.marginal_elbo):
            assert same(reading(clean, x), elbo)
        for reading in (oracle.diwae_coupled, oracle.diwae_fresh, oracle.diwae_decoupled):
            assert same(reading(clean, x, 2), iwae)
        assert same(oracle.dae_criterion(clean, x), oracle.reconstruction(clean, x))


# --- Zero probabilities ---


def binary(prior, likelihood, *encoder, corruption=None) -> Model:
    """Two states of z and one of x that counts, x = 0, given by p(x=0|z)."""
    return Model(list(prior), [[p, 1 - p] for p in likelihood], [list(row) for row in encoder], corruption)


SURE, NEVER, FAIR = (F(1), F(0)), (F(0), F(1)), (F(1, 2), F(1, 2))


def test_zero_weight():
    model = binary(FAIR, (F(1), F(0)), FAIR, FAIR)  # weights 1 and 0
    minus_infinity = [
        oracle.elbo(model, 0),
        oracle.iwae(model, 0, 2),
        oracle.renyi(model, 0, 2),  # a zero weight to a negative power is +inf
        oracle.renyi_finite(model, 0, 2, 2),
        oracle.cubo(model, 0, -1),
        oracle.tvo_left(model, 0, 2),
        oracle.beta_objective(model, 0, 1),
        oracle.free_bits(model, 0, 1),
    ]
    assert minus_infinity == [-mp.inf] * len(minus_infinity)
    assert same(oracle.renyi(model, 0, F(1, 2)), 2 * log(mpf(1) / 2))
    assert same(oracle.cubo(model, 0, 2), log(mpf(1) / 2) / 2)
    assert oracle.eubo(model, 0) == 0  # the posterior drops the zero weight
    assert oracle.tvo_right(model, 0, 2) == 0
    assert oracle.perturbative(model, 0, 0, 2) == -2
    assert [outcome(oracle.perturbative, model, 0, order, 1) for order in (1, 2, 3)] == [None] * 3
    assert outcome(oracle.jvi, model, 0, 2) is None  # 2 (-inf) - (-inf)


def test_encoder_that_misses_a_state():
    model = binary(FAIR, FAIR, SURE, NEVER)  # q(z|x=0) = (1, 0)
    assert same(oracle.elbo(model, 0), log(mpf(1) / 4))
    assert same(oracle.renyi(model, 0, 0), log(mpf(1) / 4))  # E_q w leaves out the missed state: not log p(x)
    assert same(oracle.log_evidence(model, 0), log(mpf(1) / 2))
    assert oracle.eubo(model, 0) == mp.inf
    assert same(oracle.tvo_left(model, 0, 2), log(mpf(1) / 4))
    assert oracle.tvo_right(model, 0, 2) == mp.inf


def test_decoupled_density_that_misses_the_sample():
    even = [list(FAIR), list(FAIR)]
    model = binary(FAIR, FAIR, SURE, NEVER, corruption=even)
    assert oracle.denoising_decoupled(model, 0) == mp.inf
    assert oracle.diwae_decoupled(model, 0, 2) == mp.inf
    assert oracle.sivi_without(model, 0, 2) == mp.inf
    assert same(oracle.denoising_coupled(model, 0), log(mpf(1) / 4))
    assert same(oracle.marginal_elbo(model, 0), log(mpf(1) / 2))
    # With p(x,z=1) = 0 the same draws give 0/0, and -inf where the density is the sample's own.
    model = binary(SURE, FAIR, SURE, NEVER, corruption=even)
    assert outcome(oracle.denoising_decoupled, model, 0) is None
    assert oracle.denoising_coupled(model, 0) == -mp.inf
    # +inf at z = 0 and 1 where xd differs from xs, -inf at z = 2, and never 0/0
    model = Model(
        [F(1, 2), F(1, 2), F(0)],
        [[F(1)]] * 3,
        [[F(1, 2), F(0), F(1, 2)], [F(0), F(1, 2), F(1, 2)]],
        [list(FAIR)],
    )
    assert outcome(oracle.denoising_decoupled, model, 0) is None


def test_impossible_observation():
    model = binary(FAIR, (F(0), F(0)), FAIR, FAIR)
    assert oracle.log_evidence(model, 0) == -mp.inf
    assert oracle.elbo(model, 0) == -mp.inf
    for function in (oracle.posterior, oracle.eubo, oracle.kl_encoder_posterior):
        assert outcome(function, model, 0) is None
    assert outcome(oracle.tvo_right, model, 0, 1) is None


def test_infinite_penalty():
    model = binary(SURE, FAIR, FAIR, FAIR)  # the encoder leaves the support of the prior
    assert oracle.beta_objective(model, 0, F(1, 2)) == -mp.inf
    assert same(oracle.beta_objective(model, 0, 0), log(mpf(1) / 2))
    assert oracle.free_bits(model, 0, 1) == -mp.inf
    model = binary(SURE, (F(1), F(0)), FAIR, FAIR)  # and the fit is -inf too
    assert outcome(oracle.beta_objective, model, 0, -1) is None


@pytest.mark.parametrize("model", WITH_ZEROS)
def test_laws_survive_zeros(model):
    evidence = oracle.log_evidence(model, 0)
    for bound in (oracle.elbo, oracle.marginal_elbo, oracle.denoising_coupled, oracle.hvm):
        assert below(bound(model, 0), evidence)
    assert same(oracle.sivi(model, 0, 0), oracle.denoising_coupled(model, 0))
    assert below(oracle.denoising_coupled(model, 0), oracle.sivi(model, 0, 1))
    assert below(oracle.iwae(model, 0, 2), evidence)
    best = replace(model, auxiliary=oracle.optimal_auxiliary(model))
    assert same(oracle.hvm(best, 0), oracle.marginal_elbo(model, 0))
    decoupled = outcome(oracle.denoising_decoupled, model, 0)
    assert decoupled == outcome(oracle.diwae_decoupled, model, 0, 1)
    assert decoupled is None or same(decoupled, oracle.sivi_without(model, 0, 1))


# --- The generator ---


def test_random_model_is_seeded_and_of_the_stated_shape():
    model = random_model(Random(7), x=2, z=3, xt=4, denominator=30)
    assert model == random_model(Random(7), x=2, z=3, xt=4, denominator=30)
    assert model != random_model(Random(8), x=2, z=3, xt=4, denominator=30)
    assert (len(model.prior), len(model.likelihood[0]), len(model.encoder)) == (3, 2, 4)
    rows = [model.prior, *model.likelihood, *model.encoder, *model.corruption, *chain(*model.auxiliary)]
    assert len(rows) == 1 + 3 + 4 + 2 + 3 * 2
    assert all(sum(row) == 1 and min(row) > 0 for row in rows)
    assert all(30 % probability.denominator == 0 for row in rows for probability in row)
    assert random_model(Random(7), x=2, z=3, xt=4, auxiliary=False).auxiliary is None
    plain = random_model(Random(7), x=2, z=3, xt=None)
    assert (plain.corruption, plain.auxiliary, len(plain.encoder)) == (None, None, 2)


def test_random_model_with_zeros_has_them_in_every_table():
    for table in (lambda m: [m.prior], lambda m: m.likelihood, lambda m: m.encoder, lambda m: m.corruption):
        smallest = [min(probability for row in table(model) for probability in row) for model in WITH_ZEROS]
        assert min(smallest) == 0 < max(smallest)


@pytest.mark.parametrize(
    "change",
    [
        {"prior": [F(1, 2), F(1, 3)]},
        {"prior": [F(3, 2), F(-1, 2)]},
        {"prior": [F(1)]},
        {"encoder": [[F(1, 2), F(1, 2)]]},
        {"corruption": None, "auxiliary": None, "encoder": [[F(1, 2), F(1, 2)]] * 3},
        {"auxiliary": [[[F(1, 2), F(1, 2)]] * 2]},
    ],
    ids=["sum", "negative", "short", "rows", "no corruption", "auxiliary"],
)
def test_a_model_that_is_none_is_refused(change):
    with pytest.raises(ValueError):
        replace(HAND, **change)
