"""Hierarchical and semi-implicit encoders: HVM with an auxiliary model, SIVI with and without x~_0."""

from __future__ import annotations

from functools import partial

from boundcheck.catalogue.denoising import bernoulli
from boundcheck.catalogue.objectives import (
    denoising_coupled,
    denoising_decoupled,
    hvm,
    hvm_optimal,
    hvm_prior,
    log_evidence,
    marginal_elbo,
    reverse_mixing,
    sivi,
    sivi_without,
)
from boundcheck.claims.claim import Claim
from boundcheck.language import E, Law, SymbolicModel, Term, kl, log, mean, normalised, total

RANGANATH_2016 = "Ranganath, Tran & Blei (2016)"
YIN_ZHOU_2018 = "Yin & Zhou (2018)"


def reverse_gap(m: SymbolicModel, x: Term) -> Term:
    """E_{q~} KL(c(x~|z,x) || r(x~|z,x)): what HVM loses against the marginal ELBO."""
    return E(m.marginal_encoder(x), lambda z: kl(reverse_mixing(m, x, z), m.auxiliary(z, x)))


def mean_encoder(m: SymbolicModel, xt: Term) -> Law:
    """mean_k q(z|x~_k), the law of z when one of the copies of x~ is picked at random."""
    return normalised(m.latent, lambda z: log(mean(m.encoder(xt).prob(z))))


def sivi_gap(m: SymbolicModel, x: Term, k: int, target: Law) -> Term:
    """E_{x~_0..K} KL(mean_k q(z|x~_k) || target): what SIVI_K loses against log p(x), or against the ELBO of q~.

    Symmetry lets any of the x~_0..K be the one that produced z, so z may be drawn from the mean of all K + 1.
    """
    return E(m.corruption(x).copies(k + 1), lambda xt: kl(mean_encoder(m, xt), target))


def sivi_step(m: SymbolicModel, x: Term, k: int) -> Term:
    """SIVI_{K+1} - SIVI_K = E_{x~_0..K+1} mean_j KL(mean of the others than j || mean of all), by the same symmetry."""

    def others(xt: Term) -> Law:
        def log_density(z: Term) -> Term:
            q = m.encoder(xt).prob(z)
            return log((total(q) - q) / (k + 1))

        return normalised(m.latent, log_density)

    return E(m.corruption(x).copies(k + 2), lambda xt: mean(kl(others(xt), mean_encoder(m, xt))))


def mixing_entropy_gap(m: SymbolicModel, x: Term, k: int) -> Term:
    """E_{q~}[log q~(z|x) - E log mean_{k=1..K} q(z|x~_k)]: by how much SIVI without x~_0 exceeds the ELBO of q~."""

    def body(z: Term) -> Term:
        whole = log(E(m.corruption(x), lambda xt: m.encoder(xt).prob(z)))
        return whole - E(m.corruption(x).copies(k), lambda xt: log(mean(m.encoder(xt).prob(z))))

    return E(m.marginal_encoder(x), body)


def mixing_copies_gap(m: SymbolicModel, x: Term) -> Term:
    """E_{q~}[E log mean_{k=1,2} q(z|x~_k) - E log q(z|x~)]: what a second x~ takes from SIVI without x~_0."""

    def body(z: Term) -> Term:
        one = E(m.corruption(x), lambda xt: m.encoder(xt).log_prob(z))
        return E(m.corruption(x).copies(2), lambda xt: log(mean(m.encoder(xt).prob(z)))) - one

    return E(m.marginal_encoder(x), body)


CLAIMS = (
    Claim(
        "hvm-below-evidence",
        hvm,
        "<=",
        log_evidence,
        statement="The hierarchical variational model's bound is a lower bound on log p(x).",
        source=RANGANATH_2016,
        gap=lambda m, x: kl(m.marginal_encoder(x), m.posterior(x)) + reverse_gap(m, x),
    ),
    Claim(
        "hvm-below-marginal-elbo",
        hvm,
        "<=",
        marginal_elbo,
        statement="The hierarchical variational model's bound is below the ELBO of its marginal q~.",
        source=RANGANATH_2016,
        gap=reverse_gap,
    ),
    Claim(
        "hvm-optimum-is-marginal-elbo",
        hvm_optimal,
        "==",
        marginal_elbo,
        statement="With the optimal auxiliary model c(x~|z,x) the HVM bound is the ELBO of q~.",
        source=RANGANATH_2016,
    ),
    Claim(
        "hvm-below-optimum",
        hvm,
        "<=",
        hvm_optimal,
        statement="No auxiliary model gives a larger HVM bound than c(x~|z,x).",
        source=RANGANATH_2016,
        gap=reverse_gap,
    ),
    Claim(
        "hvm-prior-is-coupled",
        hvm_prior,
        "==",
        denoising_coupled,
        statement="With the auxiliary model r(x~|z,x) = c(x~|x), HVM is the coupled denoising objective.",
        source="the observation behind this catalogue",
    ),
    Claim(
        "sivi-below-evidence",
        partial(sivi, k=2),
        "<=",
        log_evidence,
        statement="SIVI_2 with x~_0 is a lower bound on log p(x).",
        source=YIN_ZHOU_2018,
        gap=lambda m, x: sivi_gap(m, x, 2, m.posterior(x)),
    ),
    Claim(
        "sivi-below-marginal-elbo",
        partial(sivi, k=2),
        "<=",
        marginal_elbo,
        statement="SIVI_2 with x~_0 is below the ELBO of q~.",
        source=YIN_ZHOU_2018,
        gap=lambda m, x: sivi_gap(m, x, 2, m.marginal_encoder(x)),
    ),
    Claim(
        "sivi-monotone",
        partial(sivi, k=1),
        "<=",
        partial(sivi, k=2),
        statement="SIVI_K with x~_0 does not decrease from K = 1 to K = 2.",
        source=YIN_ZHOU_2018,
        gap=partial(sivi_step, k=1),
    ),
    Claim(
        "sivi-zero-is-coupled",
        partial(sivi, k=0),
        "==",
        denoising_coupled,
        statement="SIVI_0 is the coupled denoising objective.",
        source="the observation behind this catalogue",
    ),
    Claim(
        "sivi-without-one-is-decoupled",
        partial(sivi_without, k=1),
        "==",
        denoising_decoupled,
        statement="SIVI_1 without x~_0 is the decoupled denoising objective.",
        source="the observation behind this catalogue",
    ),
    Claim(
        "sivi-without-below-evidence",
        partial(sivi_without, k=2),
        "<=",
        log_evidence,
        statement="SIVI_2 without x~_0 is a lower bound on log p(x).",
        source=f"read into {YIN_ZHOU_2018}",
        witness=partial(bernoulli, "99/100"),
    ),
    Claim(
        "sivi-without-above-marginal-elbo",
        marginal_elbo,
        "<=",
        partial(sivi_without, k=2),
        statement="SIVI_2 without x~_0 is at least the ELBO of q~.",
        source=f"{YIN_ZHOU_2018}, on the surrogate from above",
        gap=partial(mixing_entropy_gap, k=2),
    ),
    Claim(
        "sivi-without-antitone",
        partial(sivi_without, k=2),
        "<=",
        partial(sivi_without, k=1),
        statement="SIVI_K without x~_0 does not increase from K = 1 to K = 2.",
        source=YIN_ZHOU_2018,
        gap=mixing_copies_gap,
    ),
)
