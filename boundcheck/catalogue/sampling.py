"""Estimators that sample harder: annealed importance sampling, VR-max, harmonic means, weighted denoising."""

from __future__ import annotations

from functools import partial

from boundcheck.catalogue.objectives import (
    ais_forward,
    ais_reverse,
    annealing_kernel,
    beta_denoising,
    harmonic_mean,
    iwae,
    log_evidence,
    over_annealing,
    vr_max,
)
from boundcheck.claims.claim import Claim
from boundcheck.language import E, SymbolicModel, Term, exp, integrate, kl, log, log_mean_exp

GROSSE_2015 = "Grosse, Ghahramani & Adams (2015)"


def ais_gap(m: SymbolicModel, x: Term, steps: int) -> Term:
    """log E[w] - E[log w]: the weight of annealed importance sampling has mean p(x), so only Jensen is lost."""
    mean_weight = over_annealing(m, x, steps, reverse=False, body=exp)
    return log(mean_weight) - ais_forward(m, x, steps)


def reverse_ais_gap(m: SymbolicModel, x: Term) -> Term:
    """KL of the backward path z_1, z_0 against the forward path z_0, z_1 (two steps)."""

    def body(last: Term, first: Term) -> Term:
        back = m.posterior(x).log_prob(last) + annealing_kernel(m, x, last, "1/2").log_prob(first)
        return back - m.encoder(x).log_prob(first) - annealing_kernel(m, x, first, "1/2").log_prob(last)

    return E(m.posterior(x), lambda last: E(annealing_kernel(m, x, last, "1/2"), lambda first: body(last, first)))


def harmonic_gap(m: SymbolicModel, x: Term, k: int) -> Term:
    """Jensen over the copies, and the prior mass of the z with p(x|z) = 0, which no posterior draw can see."""

    def inverse_likelihood(z: Term) -> Term:
        return -m.likelihood(z).log_prob(x)

    jensen = log(E(m.posterior(x), lambda z: exp(inverse_likelihood(z)))) - E(
        m.posterior(x).copies(k), lambda z: log_mean_exp(inverse_likelihood(z))
    )
    prior = log(integrate(m.latent, lambda z: m.prior().prob(z)))
    seen = log(E(m.posterior(x), lambda z: exp(m.prior().log_prob(z) - m.posterior(x).log_prob(z))))
    return jensen + prior - seen


CLAIMS = (
    Claim(
        "ais-forward-below-evidence",
        partial(ais_forward, steps=2),
        "<=",
        log_evidence,
        statement="E log w of annealed importance sampling (two steps, a Metropolis kernel) is below log p(x).",
        source=f"Neal (2001); {GROSSE_2015}",
        gap=partial(ais_gap, steps=2),
        covering=True,
    ),
    Claim(
        "ais-reverse-above-evidence",
        log_evidence,
        "<=",
        partial(ais_reverse, steps=2),
        statement="Annealed importance sampling backwards from an exact posterior draw is above log p(x).",
        source=GROSSE_2015,
        gap=reverse_ais_gap,
        covering=True,
    ),
    Claim(
        "vr-max-below-evidence",
        partial(vr_max, k=2),
        "<=",
        log_evidence,
        statement="E max_k log w_k with K = 2 (VR-max) is a lower bound on log p(x).",
        source="read into Li & Turner (2016), section 4",
    ),
    Claim(
        "vr-max-above-iwae",
        partial(iwae, k=2),
        "<=",
        partial(vr_max, k=2),
        statement="VR-max is at least IWAE_K.",
        source="Li & Turner (2016): the mean of weights is at most the largest",
    ),
    Claim(
        "harmonic-mean-above-evidence",
        log_evidence,
        "<=",
        partial(harmonic_mean, k=2),
        statement="The harmonic-mean estimate from 2 posterior draws is, in expectation, above log p(x).",
        source="Newton & Raftery (1994), by Jensen's inequality",
        gap=partial(harmonic_gap, k=2),
    ),
    Claim(
        "harmonic-mean-below-evidence",
        partial(harmonic_mean, k=2),
        "<=",
        log_evidence,
        statement="The harmonic-mean estimate from 2 posterior draws is, in expectation, below log p(x).",
        source="use of Newton & Raftery (1994) as a conservative estimate",
    ),
    Claim(
        "beta-denoising-below-evidence",
        partial(beta_denoising, beta=2),
        "<=",
        log_evidence,
        statement="The coupled denoising objective with its KL doubled is a lower bound on log p(x).",
        source="the mixture of Higgins et al. (2017) and Im et al. (2015)",
        gap=lambda m, x: E(
            m.corruption(x), lambda xt: kl(m.encoder(xt), m.posterior(x)) + kl(m.encoder(xt), m.prior())
        ),
    ),
    Claim(
        "beta-denoising-half-below-evidence",
        partial(beta_denoising, beta="1/2"),
        "<=",
        log_evidence,
        statement="The coupled denoising objective with its KL halved is a lower bound on log p(x).",
        source="the mixture of beta < 1 and Im et al. (2015)",
    ),
)
