"""A brute-force oracle for finite models: every quantity by plain enumeration of every state, for tests only.

It exists to be checked by eye against the formulas, and to disagree with the package when the package is
wrong: it shares no code with it and imports only the standard library and mpmath. A model is tables of
rationals, a function is a sum over all K-tuples of states, a value is an mpf of 60 digits in nats, or +-inf.

Conventions. A term of probability zero is dropped, whatever its value: 0 log 0 = 0. log 0 = -inf.
A weight p/q is +inf where q = 0 < p, and a zero weight to a negative power is +inf. What has no value raises
ArithmeticError("undefined"): +inf and -inf both with positive probability, a weight 0/0 with positive
probability, the log of a negative number, the posterior where p(x) = 0. A law that the model lacks raises
ValueError.

mpf arithmetic rounds to the *ambient* precision: compare values inside `with mp.workdps(60)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product
from random import Random
from typing import Any

from mpmath import mp, mpf

at_60_digits = mp.workdps(60)

Row = list[Fraction]
Value = Any  # an mpf of 60 digits (mpmath has no types)
Real = Any  # an int, a float, a Fraction or an mpf


# --- Models ---


@dataclass(frozen=True)
class Model:
    """Tables of a finite model; every row is a probability law and sums to one."""

    prior: Row  # [z]         p(z)
    likelihood: list[Row]  # [z][x]      p(x|z)
    encoder: list[Row]  # [c][z]      q(z|c), c a corrupted state; an x if there is no corruption
    corruption: list[Row] | None = None  # [x][xt]     c(xt|x)
    auxiliary: list[list[Row]] | None = None  # [z][x][xt]  r(xt|z,x)

    def __post_init__(self) -> None:
        zs, xs, xts = len(self.prior), len(self.likelihood[0]), len(self.encoder)
        tables = [(1, zs, [self.prior]), (zs, xs, self.likelihood), (xts, zs, self.encoder)]
        if self.corruption is not None:
            tables.append((xs, xts, self.corruption))
        elif xts != xs:
            raise ValueError("without corruption the encoder has one row per x")
        if self.auxiliary is not None:
            if len(self.auxiliary) != zs:
                raise ValueError("the auxiliary has one table per z")
            tables += [(xs, xts, table) for table in self.auxiliary]
        for rows, states, table in tables:
            if len(table) != rows or any(len(row) != states for row in table):
                raise ValueError(f"expected {rows} rows of {states} states, got {table}")
            if any(probability < 0 for row in table for probability in row):
                raise ValueError(f"a probability is negative in {table}")
            if any(sum(row) != 1 for row in table):
                raise ValueError(f"a row does not sum to one in {table}")

    def joint(self, x: int, z: int) -> Fraction:
        """p(x,z)"""
        return self.prior[z] * self.likelihood[z][x]

    def weight(self, x: int, z: int, q: Fraction) -> Fraction | float:
        """p(x,z)/q, for whichever density q of z the formula names"""
        return ratio(self.joint(x, z), q)

    def evidence(self, x: int) -> Fraction:
        """p(x)"""
        return sum((self.joint(x, z) for z in range(len(self.prior))), Fraction(0))

    def q_of(self, x: int) -> Row:
        """q(z|x), the encoder's row of the uncorrupted x: row x, if encoder inputs are states of x"""
        if len(self.encoder) != len(self.likelihood[0]):
            raise ValueError("q(z|x) does not exist: the corrupted states are not the states of x")
        return self.encoder[x]

    def c_of(self, x: int) -> Row:
        """c(xt|x)"""
        if self.corruption is None:
            raise ValueError("the model has no corruption")
        return self.corruption[x]

    def r_of(self, x: int, z: int) -> Row:
        """r(xt|z,x)"""
        if self.auxiliary is None:
            raise ValueError("the model has no auxiliary")
        return self.auxiliary[z][x]

    def marginal_encoder(self, x: int) -> Row:
        """q~(z|x) = E_{c(xt|x)} q(z|xt)"""
        row = [Fraction(0)] * len(self.prior)
        for xt, c in support(self.c_of(x)):
            for z, q in support(self.encoder[xt]):
                row[z] += c * q
        return row


def bernoulli(q: Fraction = Fraction(9, 10)) -> Model:
    """The model of D. Tran and R. Ranganath (2015): q(z=1|xt=0) = q, q(z=1|xt=1) = 1 - q, all else fair"""
    half = Fraction(1, 2)
    return Model(
        prior=[half, half],
        likelihood=[[Fraction(1)], [Fraction(1)]],
        encoder=[[1 - q, q], [q, 1 - q]],
        corruption=[[half, half]],
    )


def random_row(rng: Random, states: int, denominator: int, zeros: bool) -> Row:
    """A law of multiples of 1/denominator: positive everywhere or, with zeros, on a random subset"""
    positive = rng.sample(range(states), rng.randint(1, states)) if zeros else range(states)
    cuts = [0, *sorted(rng.sample(range(1, denominator), len(positive) - 1)), denominator]
    row = [Fraction(0)] * states
    for state, (low, high) in zip(positive, pairwise(cuts), strict=True):
        row[state] = Fraction(high - low, denominator)
    return row


def random_model(
    rng: Random,
    x: int,
    z: int,
    xt: int | None,
    denominator: int = 12,
    zeros: bool = False,
    auxiliary: bool = True,
) -> Model:
    """A random model with so many states of x, z and xt; with xt None, neither corruption nor auxiliary."""

    def table(rows: int, states: int) -> list[Row]:
        return [random_row(rng, states, denominator, zeros) for _ in range(rows)]

    return Model(
        prior=table(1, z)[0],
        likelihood=table(z, x),
        encoder=table(x if xt is None else xt, z),
        corruption=None if xt is None else table(x, xt),
        auxiliary=None if xt is None or not auxiliary else [table(x, xt) for _ in range(z)],
    )


# --- Arithmetic ---


def number(value: Real) -> Value:
    return mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else mpf(value)


def log(value: Real) -> Value:
    if value < 0:
        raise ArithmeticError("undefined")
    return -mp.inf if value == 0 else mp.log(number(value))


def ratio(p: Fraction, q: Fraction) -> Fraction | float:
    """p/q, exact; the only float it returns is +inf, which every sum of non-negative weights keeps."""
    if q > 0:
        return p / q
    if p > 0:
        return math.inf
    raise ArithmeticError("undefined")


def power(base: Fraction | float, exponent: Value) -> Value:
    """base^exponent for 0 <= base < inf"""
    if base == 0 and exponent < 0:
        return mp.inf
    return mp.power(number(base), exponent)


def mean(values: list) -> Any:
    if not values:
        raise ValueError("a mean needs K >= 1")
    return sum(values) / len(values)


def weighted_sum(terms: Iterable[tuple[Real, Value]]) -> Value:
    """Sum of coefficient * value; a zero coefficient drops its term."""
    products = [number(coefficient) * value for coefficient, value in terms if coefficient != 0]
    if mp.inf in products and -mp.inf in products:
        raise ArithmeticError("undefined")
    return sum(products, mpf(0))


def average(terms: Iterable[tuple[Fraction, Value]]) -> Value:
    """The expectation, given all (probability, value) of positive probability."""
    terms = list(terms)
    if sum(probability for probability, _ in terms) != 1:
        raise AssertionError("a defect of the oracle: the probabilities do not sum to one")
    return weighted_sum(terms)


def support(row: Row) -> Iterator[tuple[int, Fraction]]:
    """The states of positive probability, each with its probability."""
    return ((state, probability) for state, probability in enumerate(row) if probability > 0)


def draws(row: Row, k: int) -> Iterator[tuple[tuple[int, ...], Fraction]]:
    """The K-tuples of independent draws from the row, of positive probability, each with its probability."""
    for states in product(range(len(row)), repeat=k):
        probability = math.prod((row[state] for state in states), start=Fraction(1))
        if probability > 0:
            yield states, probability


# --- Evidence, posterior, divergences ---


@at_60_digits
def log_evidence(model: Model, x: int) -> Value:
    """log sum_z p(x,z)"""
    return log(model.evidence(x))


def posterior(model: Model, x: int) -> Row:
    """p(z|x), exact"""
    if model.evidence(x) == 0:
        raise ArithmeticError("undefined")
    return [model.joint(x, z) / model.evidence(x) for z in range(len(model.prior))]


@at_60_digits
def kl(p_row: Row, q_row: Row) -> Value:
    """KL(p || q) = E_p log p/q"""
    return average((p, log(ratio(p, q_row[state]))) for state, p in support(p_row))


def kl_encoder_posterior(model: Model, x: int) -> Value:
    """KL(q(z|x) || p(z|x)) = log p(x) - ELBO"""
    return kl(model.q_of(x), posterior(model, x))


def kl_marginal_posterior(model: Model, x: int) -> Value:
    """KL(q~(z|x) || p(z|x)) = log p(x) - marginal ELBO"""
    return kl(model.marginal_encoder(x), posterior(model, x))


def kl_joint_posterior(model: Model, x: int) -> Value:
    """KL(c(xt|x) q(z|xt) || p(z|x) r(xt|z,x)), over pairs (xt, z) = log p(x) - HVM"""
    pairs = list(product(range(len(model.encoder)), range(len(model.prior))))
    proposal = [model.c_of(x)[xt] * model.encoder[xt][z] for xt, z in pairs]
    target = [posterior(model, x)[z] * model.r_of(x, z)[xt] for xt, z in pairs]
    return kl(proposal, target)


# --- ELBO and its denoising readings ---


@at_60_digits
def elbo(model: Model, x: int) -> Value:
    """E_{z ~ q(.|x)} log p(x,z)/q(z|x)"""
    return average((q, log(model.weight(x, z, q))) for z, q in support(model.q_of(x)))


@at_60_digits
def marginal_elbo(model: Model, x: int) -> Value:
    """E_{z ~ q~(.|x)} log p(x,z)/q~(z|x)"""
    return average((q, log(model.weight(x, z, q))) for z, q in support(model.marginal_encoder(x)))


@at_60_digits
def denoising_coupled(model: Model, x: int) -> Value:
    """E_{xt} E_{z ~ q(.|xt)} log p(x,z)/q(z|xt)"""
    return average(
        (c * q, log(model.weight(x, z, q))) for xt, c in support(model.c_of(x)) for z, q in support(model.encoder[xt])
    )


@at_60_digits
def denoising_decoupled(model: Model, x: int) -> Value:
    """E_{xs} E_{z ~ q(.|xs)} E_{xd} log p(x,z)/q(z|xd), xs and xd independent corruptions of x"""
    return average(
        (c_s * q * c_d, log(model.weight(x, z, model.encoder[xd][z])))
        for xs, c_s in support(model.c_of(x))
        for z, q in support(model.encoder[xs])
        for xd, c_d in support(model.c_of(x))
    )


# --- Importance-weighted bounds ---


@at_60_digits
def iwae(model: Model, x: int, k: int) -> Value:
    """E_{z_1..K ~ q(.|x)} log mean_k p(x,z_k)/q(z_k|x)"""
    q = model.q_of(x)
    return average((probability, log(mean([model.weight(x, z, q[z]) for z in zs]))) for zs, probability in draws(q, k))


@at_60_digits
def diwae_coupled(model: Model, x: int, k: int) -> Value:
    """E_{xt} E_{z_1..K ~ q(.|xt)} log mean_k p(x,z_k)/q(z_k|xt)"""
    return average(
        (c * probability, log(mean([model.weight(x, z, model.encoder[xt][z]) for z in zs])))
        for xt, c in support(model.c_of(x))
        for zs, probability in draws(model.encoder[xt], k)
    )


@at_60_digits
def diwae_fresh(model: Model, x: int, k: int) -> Value:
    """E_{xt_1..K} E_{z_k ~ q(.|xt_k)} log mean_k p(x,z_k)/q(z_k|xt_k)"""
    terms = []
    for xts, c in draws(model.c_of(x), k):
        for zs in product(range(len(model.prior)), repeat=k):
            q = [model.encoder[xt][z] for xt, z in zip(xts, zs, strict=True)]
            if math.prod(q) > 0:
                weights = [model.weight(x, z, q_k) for z, q_k in zip(zs, q, strict=True)]
                terms.append((c * math.prod(q), log(mean(weights))))
    return average(terms)


@at_60_digits
def diwae_decoupled(model: Model, x: int, k: int) -> Value:
    """E_{xs} E_{z_1..K ~ q(.|xs)} E_{xd} log mean_k p(x,z_k)/q(z_k|xd), xs, xd independent"""
    return average(
        (c_s * probability * c_d, log(mean([model.weight(x, z, model.encoder[xd][z]) for z in zs])))
        for xs, c_s in support(model.c_of(x))
        for zs, probability in draws(model.encoder[xs], k)
        for xd, c_d in support(model.c_of(x))
    )


@at_60_digits
def jvi(model: Model, x: int, k: int) -> Value:
    """K IWAE_K - (K-1) IWAE_{K-1}"""
    if k == 1:
        return iwae(model, x, 1)
    return weighted_sum([(k, iwae(model, x, k)), (-(k - 1), iwae(model, x, k - 1))])


# --- Renyi, chi and posterior bounds ---


@at_60_digits
def cubo(model: Model, x: int, n: Real) -> Value:
    """log E_{z ~ q(.|x)}[w^n] / n, for n != 0"""
    n = number(n)
    if n == 0:
        raise ValueError("CUBO_n needs n != 0")
    terms = ((q, power(model.weight(x, z, q), n)) for z, q in support(model.q_of(x)))
    return log(average(terms)) / n


@at_60_digits
def cubo_finite(model: Model, x: int, n: Real, k: int) -> Value:
    """E_{z_1..K ~ q(.|x)} log mean_k[w_k^n] / n, for n != 0"""
    n = number(n)
    if n == 0:
        raise ValueError("CUBO_n needs n != 0")
    q = model.q_of(x)
    return average(
        (probability, log(mean([power(model.weight(x, z, q[z]), n) for z in zs])) / n)
        for zs, probability in draws(q, k)
    )


@at_60_digits
def renyi(model: Model, x: int, alpha: Real) -> Value:
    """log E_{z ~ q(.|x)}[w^(1-alpha)] / (1-alpha); at alpha = 1 its limit, the ELBO"""
    if alpha == 1:
        return elbo(model, x)
    exponent = 1 - number(alpha)
    terms = ((q, power(model.weight(x, z, q), exponent)) for z, q in support(model.q_of(x)))
    return log(average(terms)) / exponent


@at_60_digits
def renyi_finite(model: Model, x: int, alpha: Real, k: int) -> Value:
    """E_{z_1..K ~ q(.|x)} log mean_k[w_k^(1-alpha)] / (1-alpha); at alpha = 1 its limit, the ELBO"""
    if alpha == 1:
        return elbo(model, x)
    exponent = 1 - number(alpha)
    q = model.q_of(x)
    return average(
        (probability, log(mean([power(model.weight(x, z, q[z]), exponent) for z in zs])) / exponent)
        for zs, probability in draws(q, k)
    )


@at_60_digits
def eubo(model: Model, x: int) -> Value:
    """E_{z ~ p(.|x)} log p(x,z)/q(z|x)"""
    return average((p, log(model.weight(x, z, model.q_of(x)[z]))) for z, p in support(posterior(model, x)))


# --- Auxiliary-variable and semi-implicit bounds ---


@at_60_digits
def hvm(model: Model, x: int) -> Value:
    """E_{xt} E_{z ~ q(.|xt)} log p(x,z) r(xt|z,x) / (c(xt|x) q(z|xt))"""
    return average(
        (c * q, log(ratio(model.joint(x, z) * model.r_of(x, z)[xt], c * q)))
        for xt, c in support(model.c_of(x))
        for z, q in support(model.encoder[xt])
    )


def optimal_auxiliary(model: Model) -> list[list[Row]]:
    """r(xt|z,x) = c(xt|x) q(z|xt) / q~(z|x), as [z][x][xt]; c(xt|x) where q~ = 0, which no draw uses"""

    def row(z: int, x: int) -> Row:
        marginal = model.marginal_encoder(x)[z]
        if marginal == 0:
            return model.c_of(x)
        return [c * model.encoder[xt][z] / marginal for xt, c in enumerate(model.c_of(x))]

    return [[row(z, x) for x in range(len(model.likelihood[0]))] for z in range(len(model.prior))]


@at_60_digits
def sivi(model: Model, x: int, k: int) -> Value:
    """E_{xt_0..K} E_{z ~ q(.|xt_0)} log p(x,z) / mean_{k=0..K} q(z|xt_k)"""
    return average(
        (c * q, log(model.weight(x, z, mean([model.encoder[xt][z] for xt in xts]))))
        for xts, c in draws(model.c_of(x), k + 1)
        for z, q in support(model.encoder[xts[0]])
    )


@at_60_digits
def sivi_without(model: Model, x: int, k: int) -> Value:
    """E_{xt_0..K} E_{z ~ q(.|xt_0)} log p(x,z) / mean_{k=1..K} q(z|xt_k): without the sample's own xt_0"""
    return average(
        (c * q, log(model.weight(x, z, mean([model.encoder[xt][z] for xt in xts[1:]]))))
        for xts, c in draws(model.c_of(x), k + 1)
        for z, q in support(model.encoder[xts[0]])
    )


# --- Thermodynamic bounds ---


@at_60_digits
def tempered_log_weight(model: Model, x: int, b: Fraction) -> Value:
    """E_{z ~ pi_b} log w, pi_b(z) = q(z|x)^(1-b) p(x,z)^b / constant, 0^0 = 1: pi_0 = q, pi_1 = p(z|x)"""
    q = model.q_of(x)
    states = range(len(q))
    mass = [power(q[z], number(1 - b)) * power(model.joint(x, z), number(b)) for z in states]
    total = sum(mass)
    if total == 0:
        raise ArithmeticError("undefined")
    return weighted_sum((mass[z] / total, log(model.weight(x, z, q[z]))) for z in states if mass[z] > 0)


@at_60_digits
def tvo_left(model: Model, x: int, s: int) -> Value:
    """1/S sum_{j=0}^{S-1} E_{pi_{j/S}} log w"""
    return weighted_sum((Fraction(1, s), tempered_log_weight(model, x, Fraction(j, s))) for j in range(s))


@at_60_digits
def tvo_right(model: Model, x: int, s: int) -> Value:
    """1/S sum_{j=1}^{S} E_{pi_{j/S}} log w"""
    return weighted_sum((Fraction(1, s), tempered_log_weight(model, x, Fraction(j, s))) for j in range(1, s + 1))


@at_60_digits
def perturbative(model: Model, x: int, order: int, v0: Real) -> Value:
    """log( e^{-V0} E_{z ~ q(.|x)} sum_{k<=order} (V0 + log w)^k / k! )

    Undefined where the expectation is negative and, for order >= 1, where a zero weight has positive
    probability: the powers of -inf then have both signs or, at order 1, a sum of -inf that has no log.
    """
    v0 = number(v0)
    terms = []
    for z, q in support(model.q_of(x)):
        log_w = log(model.weight(x, z, q))
        if log_w == -mp.inf and order >= 1:
            raise ArithmeticError("undefined")
        polynomial = mpf(1)  # the term k = 0, also for log w = -inf
        for k in range(1, order + 1):
            polynomial += (v0 + log_w) ** k / math.factorial(k)
        terms.append((q, polynomial))
    return -v0 + log(average(terms))


# --- Objectives that replace or drop the penalty ---


@at_60_digits
def reconstruction(model: Model, x: int) -> Value:
    """E_{z ~ q(.|x)} log p(x|z)"""
    return average((q, log(model.likelihood[z][x])) for z, q in support(model.q_of(x)))


@at_60_digits
def beta_objective(model: Model, x: int, beta: Real) -> Value:
    """E_{z ~ q(.|x)} log p(x|z) - beta KL(q(z|x) || p(z)); beta = 0 drops the KL, even an infinite one"""
    return weighted_sum([(1, reconstruction(model, x)), (-number(beta), kl(model.q_of(x), model.prior))])


@at_60_digits
def free_bits(model: Model, x: int, lam: Real) -> Value:
    """E_{z ~ q(.|x)} log p(x|z) - max(lambda, KL(q(z|x) || p(z)))"""
    penalty = max(number(lam), kl(model.q_of(x), model.prior))
    return weighted_sum([(1, reconstruction(model, x)), (-1, penalty)])


@at_60_digits
def dae_criterion(model: Model, x: int) -> Value:
    """E_{xt} E_{z ~ q(.|xt)} log p(x|z), no penalty"""
    return average(
        (c * q, log(model.likelihood[z][x])) for xt, c in support(model.c_of(x)) for z, q in support(model.encoder[xt])
    )
