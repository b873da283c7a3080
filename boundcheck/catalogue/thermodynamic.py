"""Thermodynamic and perturbative bounds."""

from __future__ import annotations

from functools import partial

from boundcheck.catalogue.objectives import elbo, eubo, log_evidence, perturbative, tempered, tvo_left, tvo_right
from boundcheck.claims.claim import Claim
from boundcheck.language import Law, SymbolicModel, Term, kl

MASRANI_2019 = "Masrani, Le & Wood (2019)"
BAMLER_2017 = "Bamler, Zhang, Opper & Mandt (2017)"


def halfway(m: SymbolicModel, x: Term) -> Law:
    """pi_{1/2}, proportional to sqrt(q(z|x) p(x,z))."""
    return tempered(m, x, "1/2")


CLAIMS = (
    Claim(
        "tvo-left-below-evidence",
        partial(tvo_left, s=2),
        "<=",
        log_evidence,
        statement="The left Riemann sum of two steps is a lower bound on log p(x).",
        source=MASRANI_2019,
        gap=lambda m, x: kl(m.encoder(x), halfway(m, x)) + kl(halfway(m, x), m.posterior(x)),
    ),
    Claim(
        "tvo-right-above-evidence",
        log_evidence,
        "<=",
        partial(tvo_right, s=2),
        statement="The right Riemann sum of two steps is an upper bound on log p(x).",
        source=MASRANI_2019,
        gap=lambda m, x: kl(halfway(m, x), m.encoder(x)) + kl(m.posterior(x), halfway(m, x)),
    ),
    Claim(
        "tvo-left-one-is-elbo",
        partial(tvo_left, s=1),
        "==",
        elbo,
        statement="The left Riemann sum of one step is the ELBO.",
        source=MASRANI_2019,
    ),
    Claim(
        "tvo-right-one-is-eubo",
        partial(tvo_right, s=1),
        "==",
        eubo,
        statement="The right Riemann sum of one step is the EUBO.",
        source=MASRANI_2019,
    ),
    Claim(
        "tvo-left-above-elbo",
        elbo,
        "<=",
        partial(tvo_left, s=2),
        statement="The left Riemann sum of two steps is at least as tight as the ELBO.",
        source=MASRANI_2019,
        gap=lambda m, x: kl(halfway(m, x), m.encoder(x)) + kl(m.encoder(x), halfway(m, x)),
    ),
    Claim(
        "perturbative-one-below-evidence",
        partial(perturbative, order=1),
        "<=",
        log_evidence,
        statement="The perturbative bound of order 1 at V0 = 0 is a lower bound on log p(x).",
        source=BAMLER_2017,
    ),
    Claim(
        "perturbative-two-below-evidence",
        partial(perturbative, order=2),
        "<=",
        log_evidence,
        statement="The perturbative expansion of order 2 at V0 = 0 is a lower bound on log p(x).",
        source=f"read into {BAMLER_2017}, who claim it of odd orders",
    ),
    Claim(
        "perturbative-three-below-evidence",
        partial(perturbative, order=3),
        "<=",
        log_evidence,
        statement="The perturbative bound of order 3 at V0 = 0 is a lower bound on log p(x).",
        source=BAMLER_2017,
    ),
)
