"""Laws that hold whatever the model: pairs of formulas, each on a model, and how their values are related.

They need no known truth, so their models need no closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from boundcheck.catalogue import objectives as o
from boundcheck.claims.decide import Relation
from boundcheck.language import E, SymbolicModel, Term, exp, integrate
from boundcheck.language.build import Formula
from boundcheck.language.terms import as_term
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import BernoulliLogit, Normal
from boundcheck.models.factored import FactoredModel
from boundcheck.models.finite import FiniteModel
from boundcheck.models.linear_gaussian import LinearGaussianModel


@dataclass(frozen=True)
class Side:
    """A formula on a model at an observation."""

    formula: Formula
    model: Any
    x: Any


@dataclass(frozen=True)
class Relationship:
    """Two sides, and the relation that holds between their values."""

    name: str
    lhs: Side
    relation: Relation
    rhs: Side


def expectation_of_one(m: SymbolicModel, x: Term) -> Term:
    """E_q 1."""
    return E(m.encoder(x), lambda z: exp(m.encoder(x).log_prob(z) - m.encoder(x).log_prob(z)))


def total_mass(m: SymbolicModel, x: Term) -> Term:
    """The sum, or the integral, of q(z|x) over z."""
    return integrate(m.latent, lambda z: exp(m.encoder(x).log_prob(z)))


def one(m: SymbolicModel, x: Term) -> Term:
    """The number 1."""
    return as_term(1)


def shifted_elbo(m: SymbolicModel, x: Term) -> Term:
    """E_q (log w + 3) - 3."""
    return E(m.encoder(x), lambda z: o.log_weight(m, x, z) + 3) - 3


def shared_draw(m: SymbolicModel, x: Term) -> Term:
    """E_q (log p(x,z) - 2 log q(z|x)) + E_q log q(z|x)."""
    first = E(m.encoder(x), lambda z: m.log_joint(x, z) - 2 * m.encoder(x).log_prob(z))
    return first + E(m.encoder(x), lambda z: m.encoder(x).log_prob(z))


# Three states, two x~, and the same model with the states in another order.
_FINITE = FiniteModel(
    prior=["1/2", "3/10", "1/5"],
    likelihood=[["1/10", "9/10"], ["3/5", "2/5"], ["7/10", "3/10"]],
    corruption=[["2/3", "1/3"], ["1/4", "3/4"]],
    encoder=[["1/5", "3/10", "1/2"], ["1/6", "1/3", "1/2"]],
)
_PERMUTED = FiniteModel(
    prior=["1/5", "1/2", "3/10"],
    likelihood=[["7/10", "3/10"], ["1/10", "9/10"], ["3/5", "2/5"]],
    corruption=[["2/3", "1/3"], ["1/4", "3/4"]],
    encoder=[["1/2", "1/5", "3/10"], ["1/2", "1/6", "1/3"]],
)
_GAUSSIAN = LinearGaussianModel(
    prior=([0, 0], [1, 2]),
    likelihood=([[1, 0.5], [-0.3, 0.8]], [0.1, 0], [0.7, 1.1]),
    encoder=([[0.4, -0.1], [0.2, 0.5]], [0, 0.1], [0.6, 0.9]),
    corruption=([[1, 0], [0, 1]], [0, 0], 0.3),
)
_GAUSSIAN_PERMUTED = LinearGaussianModel(
    prior=([0, 0], [2, 1]),
    likelihood=([[0.5, 1], [0.8, -0.3]], [0.1, 0], [0.7, 1.1]),
    encoder=([[0.2, 0.5], [0.4, -0.1]], [0.1, 0], [0.9, 0.6]),
    corruption=([[1, 0], [0, 1]], [0, 0], 0.3),
)
_CONTINUOUS = ContinuousModel(
    prior=Normal(0, 1),
    likelihood=lambda z: [BernoulliLogit(z + 1), BernoulliLogit(z)],
    encoder=lambda x: Normal(x[0] - 0.5 * x[1], 0.9),
)
_FACTORED = FactoredModel(
    {"a": 2, "b": 3},
    [("a", [0.3, 0.6]), (("a", "b"), [[0.2, 0.1, 0.4], [0.5, 0.3, 0.1]])],
    encoder=[("a", [0.4, 0.6]), ("b", [0.2, 0.5, 0.3])],
)
_FACTORED_PERMUTED = FactoredModel(
    {"b": 3, "a": 2},
    [(("b", "a"), [[0.1, 0.3], [0.4, 0.1], [0.2, 0.5]]), ("a", [0.3, 0.6])],
    encoder=[("a", [0.4, 0.6]), ("b", [0.5, 0.3, 0.2])],
)

_ANY: list[tuple[str, Formula, Relation, Formula]] = [
    ("E_q 1 = 1", expectation_of_one, "==", one),
    ("q(z|x) sums to 1", total_mass, "==", one),
    ("an expectation is linear in a constant", shifted_elbo, "==", o.elbo),
    ("an expectation is linear", shared_draw, "==", o.elbo),
    ("IWAE_1 = ELBO", partial(o.iwae, k=1), "==", o.elbo),
    ("IWAE_1 <= IWAE_2", partial(o.iwae, k=1), "<=", partial(o.iwae, k=2)),
    ("IWAE_2 <= IWAE_3", partial(o.iwae, k=2), "<=", partial(o.iwae, k=3)),
    ("IWAE_3 <= log evidence", partial(o.iwae, k=3), "<=", o.log_evidence),
    ("ELBO <= log evidence", o.elbo, "<=", o.log_evidence),
    ("log evidence <= EUBO", o.log_evidence, "<=", o.eubo),
    ("CUBO_1 = log evidence", partial(o.cubo, n=1), "==", o.log_evidence),
    ("Rényi 0 = log evidence", partial(o.renyi, alpha=0), "==", o.log_evidence),
    ("log evidence <= CUBO_2", o.log_evidence, "<=", partial(o.cubo, n=2)),
    ("Rényi falls with α", partial(o.renyi, alpha="3/4"), "<=", partial(o.renyi, alpha="1/4")),
    ("ELBO <= Rényi 1/2", o.elbo, "<=", partial(o.renyi, alpha="1/2")),
    ("TVO of 1 step, left = ELBO", partial(o.tvo_left, s=1), "==", o.elbo),
]
_NOISY: list[tuple[str, Formula, Relation, Formula]] = [
    ("HVM with r = c is the coupled objective", o.hvm_prior, "==", o.denoising_coupled),
    ("HVM with the optimal r is the marginal ELBO", o.hvm_optimal, "==", o.marginal_elbo),
    ("coupled <= marginal ELBO", o.denoising_coupled, "<=", o.marginal_elbo),
    ("SIVI_0 = coupled", partial(o.sivi, k=0), "==", o.denoising_coupled),
    ("SIVI_0 <= SIVI_1", partial(o.sivi, k=0), "<=", partial(o.sivi, k=1)),
    ("SIVI_2 <= marginal ELBO", partial(o.sivi, k=2), "<=", o.marginal_elbo),
    ("DIWAE_1 = coupled", partial(o.diwae_coupled, k=1), "==", o.denoising_coupled),
]
_INVARIANT: list[tuple[str, Formula]] = [
    ("log evidence", o.log_evidence),
    ("ELBO", o.elbo),
    ("IWAE_2", partial(o.iwae, k=2)),
    ("EUBO", o.eubo),
    ("coupled", o.denoising_coupled),
]
# kind, a model, the same one permuted, an observation, whether it corrupts
_MODELS: list[tuple[str, Any, Any, Any, bool]] = [
    ("finite", _FINITE, _PERMUTED, 1, True),
    ("linear-Gaussian", _GAUSSIAN, _GAUSSIAN_PERMUTED, (0.7, -0.4), True),
    ("continuous", _CONTINUOUS, None, (1, 0), False),
    ("factored", _FACTORED, _FACTORED_PERMUTED, None, False),
]

LAWS: tuple[Relationship, ...] = (
    *(
        Relationship(f"{kind}: {name}", Side(lhs, model, x), relation, Side(rhs, model, x))
        for kind, model, _, x, corrupts in _MODELS
        for name, lhs, relation, rhs in [*_ANY, *(_NOISY if corrupts else [])]
    ),
    *(
        Relationship(f"{kind}: {name} of permuted states", Side(formula, model, x), "==", Side(formula, permuted, x))
        for kind, model, permuted, x, corrupts in _MODELS
        for name, formula in _INVARIANT
        if permuted is not None and (corrupts or name != "coupled")
    ),
)
"""The laws, each on a model of every kind that has what it needs."""

__all__ = ["LAWS", "Relationship", "Side"]
