"""Importance-weighted bounds, clean (IWAE), jackknifed (JVI) and with corrupted inputs (DIWAE)."""

from __future__ import annotations

from functools import partial

from boundcheck.catalogue.denoising import IM_2015, bernoulli
from boundcheck.catalogue.objectives import (
    denoising_coupled,
    denoising_decoupled,
    diwae_coupled,
    diwae_decoupled,
    diwae_fresh,
    elbo,
    iwae,
    jvi,
    log_evidence,
    log_weight,
    marginal_elbo,
)
from boundcheck.claims.claim import Claim
from boundcheck.language import E, SymbolicModel, Term, exp, log, mean, total

BURDA_2016 = "Burda, Grosse & Salakhutdinov (2016)"


def leave_one_out_gap(m: SymbolicModel, x: Term, k: int) -> Term:
    """IWAE_K - IWAE_{K-1} = E[log mean_j Y_j - mean_j log Y_j], Y_j the mean weight of the copies other than j."""

    def body(z: Term) -> Term:
        w = exp(log_weight(m, x, z))
        others = (total(w) - w) / (k - 1)
        return log(mean(others)) - mean(log(others))

    return E(m.encoder(x).copies(k), body)


CLAIMS = (
    Claim(
        "iwae-below-evidence",
        partial(iwae, k=3),
        "<=",
        log_evidence,
        statement="IWAE_3 is a lower bound on log p(x).",
        source=f"{BURDA_2016}, Theorem 1",
    ),
    Claim(
        "iwae-one-is-elbo",
        partial(iwae, k=1),
        "==",
        elbo,
        statement="IWAE_1 is the ELBO.",
        source=BURDA_2016,
    ),
    Claim(
        "iwae-above-elbo",
        elbo,
        "<=",
        partial(iwae, k=2),
        statement="IWAE_2 is at least as tight as the ELBO.",
        source=f"{BURDA_2016}, Theorem 1",
        gap=partial(leave_one_out_gap, k=2),
    ),
    Claim(
        "iwae-monotone",
        partial(iwae, k=2),
        "<=",
        partial(iwae, k=3),
        statement="IWAE_3 is at least as tight as IWAE_2.",
        source=f"{BURDA_2016}, Theorem 1",
        gap=partial(leave_one_out_gap, k=3),
    ),
    Claim(
        "jvi-below-evidence",
        partial(jvi, k=2),
        "<=",
        log_evidence,
        statement="The jackknife 2 IWAE_2 - IWAE_1 is a lower bound on log p(x).",
        source="read into Nowozin (2018), who claims less bias, not a bound",
    ),
    Claim(
        "jvi-above-iwae",
        partial(iwae, k=2),
        "<=",
        partial(jvi, k=2),
        statement="The jackknife 2 IWAE_2 - IWAE_1 is at least IWAE_2.",
        source="Nowozin (2018), from the monotonicity of IWAE_K in K",
        gap=partial(leave_one_out_gap, k=2),
    ),
    Claim(
        "diwae-coupled-below-evidence",
        partial(diwae_coupled, k=2),
        "<=",
        log_evidence,
        statement="DIWAE_2 with one x~ for all samples and densities is a lower bound on log p(x).",
        source=f"{IM_2015}, section on DIWAE, coupled reading",
    ),
    Claim(
        "diwae-fresh-below-evidence",
        partial(diwae_fresh, k=2),
        "<=",
        log_evidence,
        statement="DIWAE_2 with an own x~_k for each sample and its density is a lower bound on log p(x).",
        source=f"{IM_2015}, section on DIWAE, fresh reading",
    ),
    Claim(
        "diwae-decoupled-below-evidence",
        partial(diwae_decoupled, k=2),
        "<=",
        log_evidence,
        statement="DIWAE_2 whose density has another x~ than its samples is a lower bound on log p(x).",
        source=f"{IM_2015}, section on DIWAE, decoupled reading",
        witness=bernoulli,
    ),
    Claim(
        "diwae-coupled-one-is-denoising",
        partial(diwae_coupled, k=1),
        "==",
        denoising_coupled,
        statement="The coupled DIWAE_1 is the coupled denoising objective.",
        source=IM_2015,
    ),
    Claim(
        "diwae-decoupled-one-is-denoising",
        partial(diwae_decoupled, k=1),
        "==",
        denoising_decoupled,
        statement="The decoupled DIWAE_1 is the decoupled denoising objective.",
        source=IM_2015,
    ),
    Claim(
        "diwae-fresh-below-coupled",
        partial(diwae_fresh, k=2),
        "<=",
        partial(diwae_coupled, k=2),
        statement="Fresh corruption for every sample gives no tighter a bound than one x~ for all.",
        source="a question the three readings raise",
    ),
    Claim(
        "diwae-coupled-above-marginal-elbo",
        marginal_elbo,
        "<=",
        partial(diwae_coupled, k=2),
        statement="The coupled DIWAE_2 is at least as tight as the ELBO of q~.",
        source=f"{IM_2015}, by analogy with Lemma 1",
    ),
)
