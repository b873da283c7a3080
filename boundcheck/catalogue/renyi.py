"""Renyi, chi and their finite-sample estimates, whose direction is not that of the bound they estimate."""

from __future__ import annotations

from functools import partial

from boundcheck.catalogue.objectives import cubo, cubo_finite, elbo, log_evidence, renyi, renyi_finite
from boundcheck.claims.claim import Claim

LI_TURNER_2016 = "Li & Turner (2016)"
DIENG_2017 = "Dieng, Tran, Ranganath, Paisley & Blei (2017)"

CLAIMS = (
    Claim(
        "renyi-below-evidence",
        partial(renyi, alpha="1/2"),
        "<=",
        log_evidence,
        statement="VR_alpha with alpha = 1/2 is a lower bound on log p(x).",
        source=f"{LI_TURNER_2016}, Theorem 1",
    ),
    Claim(
        "renyi-above-elbo",
        elbo,
        "<=",
        partial(renyi, alpha="1/2"),
        statement="VR_alpha with alpha = 1/2 is at least as tight as the ELBO.",
        source=f"{LI_TURNER_2016}, Theorem 1",
    ),
    Claim(
        "renyi-negative-above-evidence",
        log_evidence,
        "<=",
        partial(renyi, alpha=-1),
        statement="VR_alpha with alpha = -1 is an upper bound on log p(x), for covering encoders.",
        source=f"{LI_TURNER_2016}, Theorem 1",
        covering=True,
    ),
    Claim(
        "renyi-negative-above-evidence-anywhere",
        log_evidence,
        "<=",
        partial(renyi, alpha=-1),
        statement="VR_alpha with alpha = -1 is an upper bound on log p(x), whatever the encoder's support.",
        source=f"{LI_TURNER_2016}, Theorem 1, without its assumption on supports",
    ),
    Claim(
        "renyi-above-one-below-elbo",
        partial(renyi, alpha=2),
        "<=",
        elbo,
        statement="VR_alpha with alpha = 2 is below the ELBO.",
        source=f"{LI_TURNER_2016}, Theorem 1",
    ),
    Claim(
        "renyi-monotone",
        partial(renyi, alpha="1/2"),
        "<=",
        partial(renyi, alpha="1/4"),
        statement="VR_alpha does not increase in alpha: VR_{1/2} <= VR_{1/4}.",
        source=f"{LI_TURNER_2016}, Theorem 1",
    ),
    Claim(
        "renyi-finite-below-evidence",
        partial(renyi_finite, alpha="1/2", k=2),
        "<=",
        log_evidence,
        statement="The 2-sample estimate of VR_{1/2} is, in expectation, below log p(x).",
        source=f"{LI_TURNER_2016}, Theorem 2",
    ),
    Claim(
        "renyi-finite-monotone",
        partial(renyi_finite, alpha="1/2", k=1),
        "<=",
        partial(renyi_finite, alpha="1/2", k=2),
        statement="The K-sample estimate of VR_{1/2} does not decrease from K = 1 to K = 2.",
        source=f"{LI_TURNER_2016}, Theorem 2",
    ),
    Claim(
        "renyi-finite-negative-above-evidence",
        log_evidence,
        "<=",
        partial(renyi_finite, alpha=-1, k=2),
        statement="The 2-sample estimate of VR_{-1} is, in expectation, an upper bound on log p(x).",
        source=f"read into {LI_TURNER_2016}, who warn of it",
    ),
    Claim(
        "renyi-finite-negative-below-evidence",
        partial(renyi_finite, alpha=-1, k=3),
        "<=",
        log_evidence,
        statement="The 3-sample estimate of VR_{-1} is, in expectation, a lower bound on log p(x).",
        source=f"read into {LI_TURNER_2016}: the bias is downwards",
    ),
    Claim(
        "cubo-above-evidence",
        log_evidence,
        "<=",
        partial(cubo, n=2),
        statement="CUBO_2 is an upper bound on log p(x), for covering encoders.",
        source=DIENG_2017,
        covering=True,
    ),
    Claim(
        "cubo-above-evidence-anywhere",
        log_evidence,
        "<=",
        partial(cubo, n=2),
        statement="CUBO_2 is an upper bound on log p(x), whatever the encoder's support.",
        source=f"{DIENG_2017}, without its assumption on supports",
    ),
    Claim(
        "cubo-monotone",
        partial(cubo, n=2),
        "<=",
        partial(cubo, n=3),
        statement="CUBO_n does not decrease in n: CUBO_2 <= CUBO_3.",
        source=DIENG_2017,
    ),
    Claim(
        "cubo-finite-above-evidence",
        log_evidence,
        "<=",
        partial(cubo_finite, n=2, k=2),
        statement="The 2-sample estimate of CUBO_2 is, in expectation, an upper bound on log p(x).",
        source=f"read into {DIENG_2017}, whose estimator it is before exponentiation",
    ),
    Claim(
        "cubo-is-renyi",
        partial(cubo, n=2),
        "==",
        partial(renyi, alpha=-1),
        statement="CUBO_2 is VR_{-1}.",
        source=f"{DIENG_2017}",
    ),
)
