"""Claims about continuous latent variables: Gaussian denoising, hierarchical encoders, relaxations, dequantisation."""

from __future__ import annotations

from functools import partial

from boundcheck.catalogue.denoising import IM_2015
from boundcheck.catalogue.hierarchical import RANGANATH_2016, YIN_ZHOU_2018
from boundcheck.catalogue.objectives import (
    cubo,
    denoising_coupled,
    denoising_decoupled,
    elbo,
    hvm,
    log_evidence,
    marginal_elbo,
    reconstruction,
    renyi,
    sivi,
    sivi_without,
)
from boundcheck.claims.claim import Claim
from boundcheck.language import E, SymbolicModel, Term, kl, log

GAUSSIAN, MIXING, RELAXED, DATA = "linear-gaussian", "gaussian-mixing", "relaxed-bernoulli", "data-densities"


def discrete_kl_objective(m: SymbolicModel, x: Term) -> Term:
    """E_{q(z|x)} log p(x|z) with the relaxed z, less the KL of the discrete laws that were relaxed."""
    discrete = E(m.encoder(x), lambda z: kl(m.corruption(x), m.auxiliary(z, x)))
    return reconstruction(m, x) - discrete


def dequantised(m: SymbolicModel, x: Term) -> Term:
    """E_{z ~ U[x, x+1)} log p(z): the noise stands in the role of the encoder, the data's density in the prior's."""
    return E(m.encoder(x), lambda z: m.prior().log_prob(z))


def narrowly_dequantised(m: SymbolicModel, x: Term) -> Term:
    """The same with noise of a fiftieth of the cell: nearly the density at a point, read as a probability."""
    return E(m.corruption(x), lambda xt: E(m.encoder(xt), lambda z: m.prior().log_prob(z)))


def log_mass(m: SymbolicModel, x: Term) -> Term:
    """log P(x), the log of the integral of p over [x, x + 1)."""
    return log(E(m.encoder(x), lambda z: m.prior().prob(z)))


CLAIMS = (
    Claim(
        "ppca-elbo-below-evidence",
        elbo,
        "<=",
        log_evidence,
        statement="On linear-Gaussian models (PPCA) the ELBO is a lower bound on log p(x).",
        source="Tipping & Bishop (1999); Kingma & Welling (2014)",
        family=GAUSSIAN,
    ),
    Claim(
        "gaussian-denoising-decoupled-below-evidence",
        denoising_decoupled,
        "<=",
        log_evidence,
        statement="With Gaussian corruption, the decoupled denoising objective is below log p(x).",
        source=IM_2015,
        family=GAUSSIAN,
    ),
    Claim(
        "gaussian-denoising-coupled-below-evidence",
        denoising_coupled,
        "<=",
        log_evidence,
        statement="With Gaussian corruption, the coupled denoising objective is below log p(x).",
        source=IM_2015,
        family=GAUSSIAN,
    ),
    Claim(
        "gaussian-denoising-coupled-above-marginal-elbo",
        marginal_elbo,
        "<=",
        denoising_coupled,
        statement="With Gaussian corruption, the coupled denoising objective is at least the ELBO of q~.",
        source=f"{IM_2015}, Lemma 1, applied to what the released code computes",
        family=GAUSSIAN,
    ),
    Claim(
        "gaussian-denoising-decoupled-above-marginal-elbo",
        marginal_elbo,
        "<=",
        denoising_decoupled,
        statement="With Gaussian corruption, the decoupled denoising objective is at least the ELBO of q~.",
        source=f"{IM_2015}, Lemma 1",
        family=GAUSSIAN,
    ),
    Claim(
        "gaussian-hvm-below-evidence",
        hvm,
        "<=",
        log_evidence,
        statement="With Gaussian mixing, the hierarchical variational model's bound is below log p(x).",
        source=RANGANATH_2016,
        family=GAUSSIAN,
    ),
    Claim(
        "gaussian-hvm-below-marginal-elbo",
        hvm,
        "<=",
        marginal_elbo,
        statement="With Gaussian mixing, the hierarchical variational model's bound is below the ELBO of q~.",
        source=RANGANATH_2016,
        family=GAUSSIAN,
    ),
    Claim(
        "gaussian-renyi-above-elbo",
        elbo,
        "<=",
        partial(renyi, alpha="1/2"),
        statement="On linear-Gaussian models VR_{1/2} is at least the ELBO.",
        source="Li & Turner (2016), Theorem 1",
        family=GAUSSIAN,
    ),
    Claim(
        "gaussian-cubo-above-evidence",
        log_evidence,
        "<=",
        partial(cubo, n=2),
        statement="On linear-Gaussian models CUBO_2 is at least log p(x), infinite under a light-tailed encoder.",
        source="Dieng, Tran, Ranganath, Paisley & Blei (2017)",
        family=GAUSSIAN,
        covering=True,
    ),
    Claim(
        "gaussian-sivi-below-evidence",
        partial(sivi, k=1),
        "<=",
        log_evidence,
        statement="With Gaussian mixing, SIVI_1 with x~_0 is a lower bound on log p(x).",
        source=YIN_ZHOU_2018,
        family=MIXING,
    ),
    Claim(
        "gaussian-sivi-below-marginal-elbo",
        partial(sivi, k=1),
        "<=",
        marginal_elbo,
        statement="With Gaussian mixing, SIVI_1 with x~_0 is below the ELBO of q~.",
        source=YIN_ZHOU_2018,
        family=MIXING,
    ),
    Claim(
        "gaussian-sivi-monotone",
        partial(sivi, k=0),
        "<=",
        partial(sivi, k=1),
        statement="With Gaussian mixing, SIVI_K with x~_0 does not decrease from K = 0 (the coupled objective) to 1.",
        source=YIN_ZHOU_2018,
        family=MIXING,
    ),
    Claim(
        "gaussian-sivi-zero-is-coupled",
        partial(sivi, k=0),
        "==",
        denoising_coupled,
        statement="With Gaussian mixing, SIVI_0 is the coupled denoising objective.",
        source="the observation behind this catalogue",
        family=MIXING,
    ),
    Claim(
        "gaussian-sivi-without-below-evidence",
        partial(sivi_without, k=2),
        "<=",
        log_evidence,
        statement="With Gaussian mixing, SIVI_2 without x~_0 is a lower bound on log p(x).",
        source=f"read into {YIN_ZHOU_2018}",
        family=MIXING,
    ),
    Claim(
        "gaussian-sivi-without-above-marginal-elbo",
        marginal_elbo,
        "<=",
        partial(sivi_without, k=2),
        statement="With Gaussian mixing, SIVI_2 without x~_0 is at least the ELBO of q~.",
        source=f"{YIN_ZHOU_2018}, on the surrogate from above",
        family=MIXING,
    ),
    Claim(
        "gaussian-sivi-without-antitone",
        partial(sivi_without, k=2),
        "<=",
        denoising_decoupled,
        statement="With Gaussian mixing, SIVI_K without x~_0 does not increase from K = 1, the decoupled objective, to "
        "K = 2.",
        source=YIN_ZHOU_2018,
        family=MIXING,
    ),
    Claim(
        "concrete-density-elbo-below-evidence",
        elbo,
        "<=",
        log_evidence,
        statement="The relaxed ELBO with the densities of the relaxation is below the relaxed model's log p(x).",
        source="Maddison, Mnih & Teh (2017): the valid form",
        family=RELAXED,
    ),
    Claim(
        "concrete-discrete-kl-below-evidence",
        discrete_kl_objective,
        "<=",
        log_evidence,
        statement="A relaxed sample in the likelihood, with the discrete KL, is below the relaxed model's log p(x).",
        source="common use of Maddison, Mnih & Teh (2017) and Jang, Gu & Poole (2017)",
        family=RELAXED,
    ),
    Claim(
        "uniform-dequantisation-below-mass",
        dequantised,
        "<=",
        log_mass,
        statement="The mean log-density of uniformly dequantised data is a lower bound on the log-mass of the data.",
        source="Theis, van den Oord & Bethge (2016)",
        family=DATA,
    ),
    Claim(
        "narrow-dequantisation-below-mass",
        narrowly_dequantised,
        "<=",
        log_mass,
        statement="A mean log-density after noise narrower than the cell is a lower bound on the log-mass of the data.",
        source="a common mistake, see Theis, van den Oord & Bethge (2016)",
        family=DATA,
    ),
)
