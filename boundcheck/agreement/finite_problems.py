"""Problems on tables and on chains, with their truths; each derivation stands above its line."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

from boundcheck.agreement.problem import Truth, ball, log_of, problems
from boundcheck.catalogue import objectives as o
from boundcheck.language.build import Formula
from boundcheck.models.factored import Factor, FactoredModel
from boundcheck.models.finite import FiniteModel

if TYPE_CHECKING:
    import flint

    from boundcheck.evaluators.lognumber import LogNumber

# --- the counterexample of Tran & Ranganath (2015) -----------------------------------------------------------------

# p(z) = (1/2, 1/2), p(x|z) = 1, c(x~|x) = (1/2, 1/2), q(z|x~) = 1/10 where z = x~, else 9/10.
_BERNOULLI = FiniteModel(
    prior=["1/2", "1/2"],
    likelihood=[[1], [1]],
    corruption=[["1/2", "1/2"]],
    encoder=[["1/10", "9/10"], ["9/10", "1/10"]],
    auxiliary=[[["1/4", "3/4"]], [["3/4", "1/4"]]],
)

_COUNTEREXAMPLE = problems(
    "finite",
    _BERNOULLI,
    0,
    [
        # The density's x~ is independent of z, so log q averages the logs of 1/10 and 9/10: log(1/2) - log(9/100)/2.
        ("Bernoulli, denoising decoupled", o.denoising_decoupled, lambda: log_of("5/3")),
        # q(z|x~) = 1/10 with probability 1/10: log 5 - (9/10) log 9 = -0.368064.
        ("Bernoulli, denoising coupled", o.denoising_coupled, lambda: -log_of("19683/3125") / 5),
        # q~ = (1/2, 1/2) is the posterior.
        ("Bernoulli, marginal ELBO", o.marginal_elbo, lambda: log_of(1)),
        ("Bernoulli, log evidence", o.log_evidence, lambda: log_of(1)),
        # E log q(z|x~) with z independent of x~: (log(1/10) + log(9/10)) / 2.
        ("Bernoulli, marginal cross-entropy", o.marginal_cross_entropy, lambda: log_of("9/100") / 2),
        # x~_1 = x~_0 half of the time, which gives the coupled value; else the mean density is 1/2, which gives 0.
        ("Bernoulli, SIVI_1", partial(o.sivi, k=1), lambda: -log_of("19683/3125") / 10),
        # r = c cancels: the coupled value.
        ("Bernoulli, HVM, r = c", o.hvm_prior, lambda: -log_of("19683/3125") / 5),
        # r = 1/4 where q = 1/10 and 3/4 where q = 9/10: (1/10) log((1/4) / (1/10)) + (9/10) log((3/4) / (9/10)).
        ("Bernoulli, HVM, own r", o.hvm, lambda: log_of("5/2") / 10 + log_of("5/6") * Fraction(9, 10)),
        # The optimal r is q(z|x~), and everything cancels.
        ("Bernoulli, HVM, optimal r", o.hvm_optimal, lambda: log_of(1)),
        # w is 5 with probability 1/10, 5/9 with 9/10; the mean of one of each is 25/9.
        (
            "Bernoulli, DIWAE_2, fresh x~",
            partial(o.diwae_fresh, k=2),
            lambda: (log_of(5) + log_of("5/9") * 81 + log_of("25/9") * 18) / 100,
        ),
        # As before where both x~ agree; else w is 5 with probability 9/10.
        (
            "Bernoulli, DIWAE_2, decoupled",
            partial(o.diwae_decoupled, k=2),
            lambda: (log_of(5) * 41 + log_of("5/9") * 41 + log_of("25/9") * 18) / 100,
        ),
    ],
)


# --- two states ----------------------------------------------------------------------------------------------------

# p(x,z) = (9/20, 1/5) and q = (1/5, 4/5), so w = (9/4, 1/4), p(x) = 13/20 and the posterior is (9/13, 4/13).
_TWO = FiniteModel(
    prior=["1/2", "1/2"], likelihood=[["9/10", "1/10"], ["2/5", "3/5"]], encoder=[["1/5", "4/5"], ["1/2", "1/2"]]
)


def _two_elbo() -> LogNumber:
    return log_of("9/4") / 5 + log_of("1/4") * Fraction(4, 5)


def _two_middle() -> LogNumber:
    """pi_(1/2) is in proportion to q w^(1/2) = (3/10, 4/10)."""
    return (log_of("9/4") * 3 + log_of("1/4") * 4) / 7


def _two_eubo() -> LogNumber:
    return (log_of("9/4") * 9 + log_of("1/4") * 4) / 13


def _two_iwae_2() -> LogNumber:
    """Both draws 0, both 1, or one of each, whose mean weight is 5/4."""
    return (log_of("9/4") + log_of("1/4") * 16 + log_of("5/4") * 8) / 25


def _two_reconstruction() -> LogNumber:
    return log_of("9/10") / 5 + log_of("2/5") * Fraction(4, 5)


def _two_divergence() -> LogNumber:
    """KL((1/5, 4/5) || (1/2, 1/2))."""
    return log_of("2/5") / 5 + log_of("8/5") * Fraction(4, 5)


def _two_renyi() -> flint.arb:
    power = ball("7/10")
    return ((ball("9/4") ** power) / 5 + (ball("1/4") ** power) * 4 / 5).log() / power


def _two_series() -> flint.arb:
    high, low = ball("9/4").log(), ball("1/4").log()
    return ((_cubic(high) + 4 * _cubic(low)) / 5).log()


def _cubic(u: flint.arb) -> flint.arb:
    return 1 + u + u**2 / 2 + u**3 / 6


_TWO_STATES = problems(
    "finite",
    _TWO,
    0,
    [
        ("two states, log evidence", o.log_evidence, lambda: log_of("13/20")),
        ("two states, ELBO", o.elbo, _two_elbo),
        ("two states, IWAE_2", partial(o.iwae, k=2), _two_iwae_2),
        # 3, 2, 1 or 0 draws of state 0, whose mean weights are 9/4, 19/12, 11/12 and 1/4.
        (
            "two states, IWAE_3",
            partial(o.iwae, k=3),
            lambda: (log_of("9/4") + log_of("19/12") * 12 + log_of("11/12") * 48 + log_of("1/4") * 64) / 125,
        ),
        ("two states, JVI_2", partial(o.jvi, k=2), lambda: _two_iwae_2() * 2 - _two_elbo()),
        # The largest weight is 1/4 only if both draws are state 1.
        ("two states, VR-max_2", partial(o.vr_max, k=2), lambda: (log_of("9/4") * 9 + log_of("1/4") * 16) / 25),
        # E_q w^(1/2) = (1/5)(3/2) + (4/5)(1/2) = 7/10.
        ("two states, Rényi 1/2", partial(o.renyi, alpha="1/2"), lambda: log_of("7/10") * 2),
        # (1/5)(9/4)^(7/10) + (4/5)(1/4)^(7/10), which is not rational.
        ("two states, Rényi 3/10", partial(o.renyi, alpha="3/10"), _two_renyi),
        # E_q w^2 = (1/5)(81/16) + (4/5)(1/16) = 17/16.
        ("two states, CUBO_2", partial(o.cubo, n=2), lambda: log_of("17/16") / 2),
        # w^2 = (81/16, 1/16), whose mean is 41/16.
        (
            "two states, CUBO_2 of 2 samples",
            partial(o.cubo_finite, n=2, k=2),
            lambda: (log_of("81/16") + log_of("1/16") * 16 + log_of("41/16") * 8) / 50,
        ),
        ("two states, EUBO", o.eubo, _two_eubo),
        ("two states, TVO left, 2 steps", partial(o.tvo_left, s=2), lambda: (_two_elbo() + _two_middle()) / 2),
        ("two states, TVO right, 2 steps", partial(o.tvo_right, s=2), lambda: (_two_middle() + _two_eubo()) / 2),
        # 1/p(x|z) = (10/9, 5/2) with the posterior's (9/13, 4/13); the mean of one of each is 65/36.
        (
            "two states, harmonic mean of 2",
            partial(o.harmonic_mean, k=2),
            lambda: -(log_of("10/9") * 81 + log_of("5/2") * 16 + log_of("65/36") * 72) / 169,
        ),
        # log E_q[1 + u + u^2/2 + u^3/6] with u = log w.
        ("two states, perturbative, order 3", partial(o.perturbative, order=3), _two_series),
        (
            "two states, β = 1/2",
            partial(o.beta_objective, beta="1/2"),
            lambda: _two_reconstruction() - _two_divergence() / 2,
        ),
        # KL = 0.19 < 2, so the floor is what counts.
        ("two states, free bits, floor 2", partial(o.free_bits, floor=2), lambda: _two_reconstruction() - 2),
    ],
)

# The encoder is the posterior: every weight is p(x) = 13/20, and all bounds tie.
_POSTERIOR = FiniteModel(
    prior=["1/2", "1/2"], likelihood=[["9/10", "1/10"], ["2/5", "3/5"]], encoder=[["9/13", "4/13"], ["1/7", "6/7"]]
)
_TIES = problems(
    "finite",
    _POSTERIOR,
    0,
    [
        ("tie, ELBO", o.elbo, lambda: log_of("13/20")),
        ("tie, IWAE_3", partial(o.iwae, k=3), lambda: log_of("13/20")),
        ("tie, CUBO_2", partial(o.cubo, n=2), lambda: log_of("13/20")),
        ("tie, EUBO", o.eubo, lambda: log_of("13/20")),
    ],
)

# p(x,z) = (1/4, 0) and q = (1/2, 1/2): w = (1/2, 0). At x = 1 there is no mass at all.
_HOLE = FiniteModel(
    prior=["1/2", "1/2"],
    likelihood=[["1/2", 0, "1/2"], [0, 0, 1]],
    encoder=[["1/2", "1/2"], ["1/2", "1/2"], [1, 0]],
)
_HOLES = [
    *problems(
        "finite",
        _HOLE,
        0,
        [
            # State 1 has probability 1/2 under q and none under p.
            ("hole in the posterior, ELBO", o.elbo, lambda: log_of(0)),
            ("hole in the posterior, IWAE_2", partial(o.iwae, k=2), lambda: log_of(0)),
            # E_q w^(1/2) = (1/2)(1/2)^(1/2), squared.
            ("hole in the posterior, Rényi 1/2", partial(o.renyi, alpha="1/2"), lambda: -log_of(8)),
            # The posterior is all on state 0, where w = 1/2.
            ("hole in the posterior, EUBO", o.eubo, lambda: -log_of(2)),
        ],
    ),
    *problems("finite", _HOLE, 1, [("no evidence, log evidence", o.log_evidence, lambda: log_of(0))]),
    # x = 2: p(x,z) = (1/4, 1/2) and q = (1, 0).
    *problems(
        "finite",
        _HOLE,
        2,
        [
            ("hole in the encoder, ELBO", o.elbo, lambda: -log_of(4)),
            # The posterior has mass 2/3 where q has none.
            ("hole in the encoder, EUBO", o.eubo, lambda: -log_of(0)),
            # E_q w^2 sees state 0 only.
            ("hole in the encoder, CUBO_2", partial(o.cubo, n=2), lambda: -log_of(4)),
        ],
    ),
]


# --- many latents --------------------------------------------------------------------------------------------------

_LINK = [["3/4", "1/4"], ["1/4", "3/4"]]
_FLOAT_LINK = [[0.75, 0.25], [0.25, 0.75]]
_SEEN = [0.5, 0.25]

# z_1 fair, z_(i+1) = z_i with probability 3/4, each seen with probability (1/2, 1/4).
# The messages: (1/4, 1/8), (7/64, 5/128), (47/1024, 29/2048), whose sum is 123/2048.
_SHORT_CHAIN = FactoredModel(
    [2, 2, 2],
    [
        Factor(0, [0.5, 0.5], child=0),
        Factor((0, 1), _FLOAT_LINK, child=1),
        Factor((1, 2), _FLOAT_LINK, child=2),
        *(Factor(i, _SEEN) for i in range(3)),
    ],
    encoder=[Factor(i, [0.5, 0.5]) for i in range(3)],
)
# The same chain as a table of eight states: x = 0 is what was seen.
_CHAIN_TABLE = FiniteModel(
    prior=[
        [[Fraction(1, 2) * Fraction(_LINK[a][b]) * Fraction(_LINK[b][c]) for c in (0, 1)] for b in (0, 1)]
        for a in (0, 1)
    ],
    likelihood=[
        [[[Fraction(1, 2 ** (3 + a + b + c)), 1 - Fraction(1, 2 ** (3 + a + b + c))] for c in (0, 1)] for b in (0, 1)]
        for a in (0, 1)
    ],
    encoder=[[[["1/8", "1/8"], ["1/8", "1/8"]], [["1/8", "1/8"], ["1/8", "1/8"]]]] * 2,
)
_LENGTH = 30
# The links alone: the rows of each sum to one, so the sum over all 2^30 states is 2.
_LONG_CHAIN = FactoredModel(
    [2] * _LENGTH,
    [Factor((i, i + 1), _FLOAT_LINK) for i in range(_LENGTH - 1)],
    encoder=[Factor(i, [0.5, 0.5]) for i in range(_LENGTH)],
)


def _chain_elbo() -> LogNumber:
    """Uniform q: log(1/2) + 2 (log(3/4) + log(1/4))/2 + 3 (log(1/2) + log(1/4))/2 + 3 log 2."""
    return log_of("3/16") - log_of(2) * Fraction(5, 2)


_CHAIN_ROWS: list[tuple[str, Formula, Callable[[], Truth]]] = [
    ("log evidence", o.log_evidence, lambda: log_of("123/2048")),
    ("ELBO", o.elbo, _chain_elbo),
]
_CHAINS = [
    *problems("factored", _SHORT_CHAIN, None, [(f"chain of 3, {name}", f, truth) for name, f, truth in _CHAIN_ROWS]),
    *problems(
        "finite", _CHAIN_TABLE, 0, [(f"chain of 3 as a table, {name}", f, truth) for name, f, truth in _CHAIN_ROWS]
    ),
    *problems(
        "factored",
        _LONG_CHAIN,
        None,
        [
            ("chain of 30, log evidence", o.log_evidence, lambda: log_of(2)),
            # Uniform q: each link is 3/4 or 1/4 with equal probability; -E log q = 30 log 2.
            ("chain of 30, ELBO", o.elbo, lambda: log_of("3/16") * Fraction(29, 2) + log_of(2) * 30),
            # E_q w^2 = 2^30 times the sum of the squared products, 2 (9/16 + 1/16)^29.
            ("chain of 30, CUBO_2", partial(o.cubo, n=2), lambda: (log_of(2) * 31 + log_of("5/8") * 29) / 2),
            # Under the posterior a link is 3/4 with probability 3/4; z_1 is fair.
            (
                "chain of 30, EUBO",
                o.eubo,
                lambda: (log_of("3/4") * 3 + log_of("1/4")) * Fraction(29, 4) + log_of(2) * 30,
            ),
        ],
    ),
]

FINITE_PROBLEMS = (*_COUNTEREXAMPLE, *_TWO_STATES, *_TIES, *_HOLES, *_CHAINS)
"""Problems on finite and factored models."""
