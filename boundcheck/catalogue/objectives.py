"""The objectives of the literature, written as their papers write them (nats; w = p(x,z) / q(z|x)).

Each is a function of a model m and an observation x that builds a term. They are ordinary Python: copy one to start
your own.
"""

from __future__ import annotations

from boundcheck.language import (
    E,
    Law,
    Term,
    exp,
    integrate,
    kl,
    log,
    log_mean_exp,
    maximum,
    mean,
    mixture,
    normalised,
)
from boundcheck.language.laws import SymbolicModel as Model
from boundcheck.language.terms import Number, as_fraction


def log_evidence(m: Model, x: Term) -> Term:
    """log p(x) = log sum_z p(x,z)."""
    return log(integrate(m.latent, lambda z: exp(m.log_joint(x, z))))


def elbo(m: Model, x: Term) -> Term:
    """E_q log w (Jordan et al. 1999; Kingma & Welling 2014)."""
    return E(m.encoder(x), lambda z: m.log_joint(x, z) - m.encoder(x).log_prob(z))


def marginal_elbo(m: Model, x: Term) -> Term:
    """E_{q~} log p(x,z) / q~(z|x) with q~(z|x) = E_{c(x~|x)} q(z|x~)."""
    return E(m.marginal_encoder(x), lambda z: m.log_joint(x, z) - m.marginal_encoder(x).log_prob(z))


def denoising_coupled(m: Model, x: Term) -> Term:
    """The denoising objective with one x~ for the sample and for the density (Im et al. 2015, as their code has it)."""
    return E(
        m.corruption(x),
        lambda xt: E(m.encoder(xt), lambda z: m.log_joint(x, z) - m.encoder(xt).log_prob(z)),
    )


def denoising_decoupled(m: Model, x: Term) -> Term:
    """The denoising objective whose density has another x~ than the sample (Im et al. 2015, eq. 10 as printed)."""
    return E(
        m.corruption(x),
        lambda xt: E(
            m.corruption(x),
            lambda xs: E(m.encoder(xs), lambda z: m.log_joint(x, z) - m.encoder(xt).log_prob(z)),
        ),
    )


def iwae(m: Model, x: Term, k: int) -> Term:
    """E log mean_k w(z_k) (Burda et al. 2016, eq. 8)."""
    return E(
        m.encoder(x).copies(k), lambda z: log_mean_exp(m.log_joint(x, z) - m.encoder(x).log_prob(z))
    )
