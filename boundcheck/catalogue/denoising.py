"""The denoising VAE: two readings of one formula, and the sandwich log p >= L >= ELBO that neither keeps whole."""

from __future__ import annotations

from boundcheck.catalogue.objectives import (
    denoising_coupled,
    denoising_decoupled,
    log_evidence,
    marginal_cross_entropy,
    marginal_elbo,
    marginal_negative_entropy,
)
from boundcheck.claims.claim import Claim
from boundcheck.errors import BadInput
from boundcheck.language import E, kl
from boundcheck.language.numerals import exact_fraction
from boundcheck.models.finite import FiniteModel

IM_2015 = "Im, Ahn, Memisevic & Bengio (2015), arXiv:1511.06406"


def bernoulli(sharpness: str = "9/10") -> FiniteModel:
    """The counterexample of D. Tran and R. Ranganath (blog, December 2015).

    p(x,z) = Bernoulli(z; 1/2), x~ ~ Bernoulli(1/2), q(z=1|x~=1) = 1 - s and q(z=1|x~=0) = s with s = `sharpness`.

    Raises:
        BadInput: a sharpness that is no probability.

    >>> print(bernoulli())
    FiniteModel(prior=[1/2, 1/2], likelihood=[[1], [1]], encoder=[[1/10, 9/10], [9/10, 1/10]], corruption=[[1/2, 1/2]])
    """
    try:
        s = exact_fraction(sharpness)
    except (ValueError, TypeError, ZeroDivisionError):
        s = None
    if s is None or not 0 <= s <= 1:
        raise BadInput("sharpness", sharpness, "a probability such as 9/10")
    return FiniteModel(
        prior=["1/2", "1/2"],
        likelihood=[[1], [1]],
        corruption=[["1/2", "1/2"]],
        encoder=[[1 - s, s], [s, 1 - s]],
    )


CLAIMS = (
    Claim(
        "denoising-decoupled-below-evidence",
        denoising_decoupled,
        "<=",
        log_evidence,
        statement="The denoising objective, its density's x~ independent of the sample's, is below log p(x).",
        source=f"{IM_2015}, as read by Tran & Ranganath (2015)",
        witness=bernoulli,
    ),
    Claim(
        "denoising-coupled-below-evidence",
        denoising_coupled,
        "<=",
        log_evidence,
        statement="The denoising objective, one x~ for the sample and its density, is below log p(x).",
        source=f"{IM_2015}, as its released code computes it",
        gap=lambda m, x: E(m.corruption(x), lambda xt: kl(m.encoder(xt), m.posterior(x))),
    ),
    Claim(
        "denoising-decoupled-above-marginal-elbo",
        marginal_elbo,
        "<=",
        denoising_decoupled,
        statement="The decoupled denoising objective is at least as tight as the ELBO of q~.",
        source=f"{IM_2015}, Lemma 1",
        gap=lambda m, x: E(m.corruption(x), lambda xt: kl(m.marginal_encoder(x), m.encoder(xt))),
    ),
    Claim(
        "denoising-coupled-above-marginal-elbo",
        marginal_elbo,
        "<=",
        denoising_coupled,
        statement="The coupled denoising objective is at least as tight as the ELBO of q~.",
        source=f"{IM_2015}, Lemma 1, applied to what the released code computes",
        witness=bernoulli,
    ),
    Claim(
        "denoising-coupled-below-marginal-elbo",
        denoising_coupled,
        "<=",
        marginal_elbo,
        statement="The coupled denoising objective is below the ELBO of q~.",
        source="the reverse of Lemma 1, by convexity of KL",
        gap=lambda m, x: E(m.corruption(x), lambda xt: kl(m.encoder(xt), m.marginal_encoder(x))),
    ),
    Claim(
        "denoising-decoupled-below-marginal-elbo",
        denoising_decoupled,
        "<=",
        marginal_elbo,
        statement="The decoupled denoising objective is below the ELBO of q~.",
        source="the reverse of Lemma 1",
        witness=bernoulli,
    ),
    Claim(
        "marginal-elbo-below-evidence",
        marginal_elbo,
        "<=",
        log_evidence,
        statement="The ELBO of q~ is a lower bound on log p(x).",
        source=IM_2015,
        gap=lambda m, x: kl(m.marginal_encoder(x), m.posterior(x)),
    ),
    Claim(
        "denoising-lemma-1-step",
        marginal_cross_entropy,
        "==",
        marginal_negative_entropy,
        statement="E_{q~} E_{c(x~|x)} log q(z|x~) may stand for E_{q~} log q~(z|x).",
        source=f"{IM_2015}, the step in the proof of Lemma 1 that Tran & Ranganath (2015) dispute",
        witness=bernoulli,
    ),
    Claim(
        "denoising-lemma-1-inequality",
        marginal_cross_entropy,
        "<=",
        marginal_negative_entropy,
        statement="E_{q~} E_{c(x~|x)} log q(z|x~) <= E_{q~} log q~(z|x), the log outside the mean being the larger.",
        source=f"{IM_2015}, Lemma 1: what Jensen's inequality gives",
        gap=lambda m, x: E(m.corruption(x), lambda xt: kl(m.marginal_encoder(x), m.encoder(xt))),
    ),
    Claim(
        "denoising-readings-agree",
        denoising_coupled,
        "==",
        denoising_decoupled,
        statement="The two readings of the denoising objective are the same number.",
        source="implied by the notation of Im et al. (2015)",
        witness=bernoulli,
    ),
)
