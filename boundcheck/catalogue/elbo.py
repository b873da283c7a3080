"""The evidence lower bound, its reweightings, and criteria that are taken for it."""

from __future__ import annotations

from functools import partial

from boundcheck.catalogue.objectives import (
    beta_objective,
    dae_criterion,
    elbo,
    eubo,
    free_bits,
    log_evidence,
    reconstruction,
)
from boundcheck.claims.claim import Claim
from boundcheck.language import SymbolicModel, Term, kl, maximum

FLOOR = "1/4"


def free_bits_loss(m: SymbolicModel, x: Term) -> Term:
    """max(lambda, KL) - KL, what the floor takes from the ELBO."""
    divergence = kl(m.encoder(x), m.prior())
    return maximum(FLOOR, divergence) - divergence


CLAIMS = (
    Claim(
        "elbo-below-evidence",
        elbo,
        "<=",
        log_evidence,
        statement="The ELBO is a lower bound on log p(x).",
        source="Jordan, Ghahramani, Jaakkola & Saul (1999); Kingma & Welling (2014), eq. 2",
        gap=lambda m, x: kl(m.encoder(x), m.posterior(x)),
    ),
    Claim(
        "elbo-gap-is-kl",
        lambda m, x: log_evidence(m, x) - elbo(m, x),
        "==",
        lambda m, x: kl(m.encoder(x), m.posterior(x)),
        statement="log p(x) - ELBO is KL(q(z|x) || p(z|x)).",
        source="Kingma & Welling (2014), eq. 1",
    ),
    Claim(
        "elbo-reconstruction-form",
        elbo,
        "==",
        lambda m, x: reconstruction(m, x) - kl(m.encoder(x), m.prior()),
        statement="The ELBO is the reconstruction term less KL(q(z|x) || p(z)).",
        source="Kingma & Welling (2014), eq. 3",
    ),
    Claim(
        "beta-above-one-below-evidence",
        partial(beta_objective, beta=4),
        "<=",
        log_evidence,
        statement="The beta-VAE objective with beta = 4 is a lower bound on log p(x).",
        source="Higgins et al. (2017), eq. 4",
        gap=lambda m, x: kl(m.encoder(x), m.posterior(x)) + 3 * kl(m.encoder(x), m.prior()),
    ),
    Claim(
        "beta-below-one-below-evidence",
        partial(beta_objective, beta="1/2"),
        "<=",
        log_evidence,
        statement="The beta-VAE objective with beta = 1/2 is a lower bound on log p(x).",
        source="folklore; beta < 1 as in Alemi et al. (2018)",
    ),
    Claim(
        "free-bits-below-elbo",
        partial(free_bits, floor=FLOOR),
        "<=",
        elbo,
        statement="The free-bits objective with lambda = 1/4 nat is a lower bound on the ELBO.",
        source="Kingma et al. (2016)",
        gap=free_bits_loss,
    ),
    Claim(
        "free-bits-below-evidence",
        partial(free_bits, floor=FLOOR),
        "<=",
        log_evidence,
        statement="The free-bits objective with lambda = 1/4 nat is a lower bound on log p(x).",
        source="Kingma et al. (2016)",
        gap=lambda m, x: free_bits_loss(m, x) + kl(m.encoder(x), m.posterior(x)),
    ),
    Claim(
        "dae-below-evidence",
        dae_criterion,
        "<=",
        log_evidence,
        statement="The denoising autoencoder's criterion, without a penalty, is a lower bound on log p(x).",
        source="Vincent et al. (2008), section 4, read as a bound on log p(x)",
    ),
    Claim(
        "eubo-above-evidence",
        log_evidence,
        "<=",
        eubo,
        statement="E_{p(z|x)} log w is an upper bound on log p(x).",
        source="folklore; Dieng et al. (2017)",
        gap=lambda m, x: kl(m.posterior(x), m.encoder(x)),
    ),
)
