"""The counterexample of D. Tran and R. Ranganath (blog, December 2015) to Im et al. (2015, arXiv:1511.06406).

Im et al. train a denoising VAE on E_{q~(z|x)}[log p(x,z) / q(z|x~)] and claim that it lies between the ELBO of the
marginal encoder q~ and log p(x). Whether the x~ in the density is the one that produced z is left open. Here both
readings are written out and evaluated exactly, and each of them breaks one half of the claim.

    python counterexamples/bernoulli.py [--plot FILE] [--save FILE]

prints the values; --plot draws how they grow as the encoder sharpens; --save writes the counterexample to the
decoupled reading for `boundcheck replay FILE`.
"""

from __future__ import annotations

import argparse

from boundcheck import Claim, E, FiniteModel, Term, Witness, check_model, evaluate, exp, integrate, log, mean

# p(x,z) = Bernoulli(z; 1/2): x has one state, so log p(x) = 0. x~ is a fair coin, whatever x is, and the encoder
# says the opposite of x~ with probability 9/10.
MODEL = FiniteModel(
    prior=["1/2", "1/2"],
    likelihood=[[1], [1]],
    corruption=[["1/2", "1/2"]],
    encoder=[["1/10", "9/10"], ["9/10", "1/10"]],
)


def log_evidence(m, x) -> Term:
    return log(integrate(m.latent, lambda z: exp(m.log_joint(x, z))))


def marginal_elbo(m, x) -> Term:
    """The ELBO of q~(z|x) = E_{c(x~|x)} q(z|x~)."""
    return E(m.marginal_encoder(x), lambda z: m.log_joint(x, z) - m.marginal_encoder(x).log_prob(z))


def coupled(m, x) -> Term:
    """One x~ for the sample and for the density: what the authors' released code computes."""
    return E(
        m.corruption(x), lambda xt:
        E(m.encoder(xt), lambda z: m.log_joint(x, z) - m.encoder(xt).log_prob(z))
    )  # fmt: skip


def decoupled(m, x) -> Term:
    """The density's x~ is another draw than the sample's: what their formula says."""
    return E(
        m.corruption(x), lambda xt:
        E(m.corruption(x), lambda xs:
        E(m.encoder(xs), lambda z: m.log_joint(x, z) - m.encoder(xt).log_prob(z)))
    )  # fmt: skip


def sivi_one_without(m, x) -> Term:
    """SIVI_1 (Yin & Zhou 2018) whose mean over x~_1..K leaves out the x~_0 that produced z."""
    return E(
        m.corruption(x), lambda x0:
        E(m.encoder(x0), lambda z:
        E(m.corruption(x).copies(1), lambda xt: m.log_joint(x, z) - log(mean(m.encoder(xt).prob(z)))))
    )  # fmt: skip


def hvm_with_the_corruption(m, x) -> Term:
    """The bound of Ranganath, Tran & Blei (2016) with the auxiliary model r(x~|z,x) = c(x~|x)."""
    c = m.corruption(x)
    return E(c, lambda xt:
           E(m.encoder(xt), lambda z:
             m.log_joint(x, z) + c.log_prob(xt) - c.log_prob(xt) - m.encoder(xt).log_prob(z)))  # fmt: skip


OBJECTIVES = {
    "log p(x)": log_evidence,
    "ELBO of q~": marginal_elbo,
    "L, decoupled": decoupled,
    "L, coupled": coupled,
    "SIVI_1 without x~_0": sivi_one_without,
    "HVM with r = c": hvm_with_the_corruption,
}

IM_2015 = "Im, Ahn, Memisevic & Bengio (2015), arXiv:1511.06406"

CLAIMS = [
    Claim("decoupled-below-evidence", decoupled, "<=", log_evidence, source=IM_2015),
    Claim("decoupled-above-marginal-elbo", marginal_elbo, "<=", decoupled, source=IM_2015),
    Claim("coupled-below-evidence", coupled, "<=", log_evidence, source=IM_2015),
    Claim("coupled-above-marginal-elbo", marginal_elbo, "<=", coupled, source=IM_2015),
    Claim("decoupled-is-sivi-one-without", decoupled, "==", sivi_one_without),
    Claim("coupled-is-hvm-with-the-corruption", coupled, "==", hvm_with_the_corruption),
]


def main() -> None:
    parser = argparse.ArgumentParser(description="The counterexample of Tran and Ranganath (2015), exactly.")
    parser.add_argument("--plot", metavar="FILE", help="draw both readings as the encoder sharpens")
    parser.add_argument("--save", metavar="FILE", help="save the counterexample for `boundcheck replay`")
    options = parser.parse_args()

    for name, objective in OBJECTIVES.items():
        value = evaluate(objective, MODEL)
        print(f"{name:<20} {float(value):>10.6f}   {value}")
    print()
    for claim in CLAIMS:
        print(f"{claim.name:<35} {check_model(claim, MODEL).verdict}")

    if options.save:
        Witness.of(check_model(CLAIMS[0], MODEL)).save(options.save)
    if options.plot:
        from boundcheck.reproduce.bernoulli import plot, reproduce

        plot(reproduce(), options.plot)


if __name__ == "__main__":
    main()
