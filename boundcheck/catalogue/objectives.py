"""The objectives of the literature, written as their papers write them (nats; w = p(x,z) / q(z|x)).

Each is a function of a model m and an observation x that builds a term. They are ordinary Python: copy one to start
your own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from boundcheck.language import (
    E,
    Law,
    SymbolicModel,
    Term,
    exp,
    exp_series,
    integrate,
    kl,
    log,
    log_mean_exp,
    maximum,
    maximum_over,
    minimum,
    normalised,
    same,
)
from boundcheck.language.terms import Number, add, as_fraction


def log_weight(m: SymbolicModel, x: Term, z: Term) -> Term:
    """log w(z) = log p(x,z) - log q(z|x)."""
    return m.log_joint(x, z) - m.encoder(x).log_prob(z)


def log_evidence(m: SymbolicModel, x: Term) -> Term:
    """log p(x) = log sum_z p(x,z)."""
    return log(integrate(m.latent, lambda z: exp(m.log_joint(x, z))))


def elbo(m: SymbolicModel, x: Term) -> Term:
    """E_q log w (Jordan et al. 1999; Kingma & Welling 2014, eq. 3)."""
    return E(m.encoder(x), lambda z: log_weight(m, x, z))


def marginal_elbo(m: SymbolicModel, x: Term) -> Term:
    """E_{q~} log p(x,z) / q~(z|x), with q~(z|x) = E_{c(x~|x)} q(z|x~)."""
    return E(m.marginal_encoder(x), lambda z: m.log_joint(x, z) - m.marginal_encoder(x).log_prob(z))


# --- denoising -----------------------------------------------------------------------------------------------------


def denoising_coupled(m: SymbolicModel, x: Term) -> Term:
    """The denoising objective with one x~ for the sample and the density (Im et al. 2015, as coded)."""
    return E(
        m.corruption(x),
        lambda xt: E(m.encoder(xt), lambda z: m.log_joint(x, z) - m.encoder(xt).log_prob(z)),
    )


def denoising_decoupled(m: SymbolicModel, x: Term) -> Term:
    """The denoising objective whose density has another x~ than the sample (Im et al. 2015, read as z ~ q~)."""
    return E(
        m.corruption(x),
        lambda xt: E(
            m.corruption(x),
            lambda xs: E(m.encoder(xs), lambda z: m.log_joint(x, z) - m.encoder(xt).log_prob(z)),
        ),
    )


def marginal_cross_entropy(m: SymbolicModel, x: Term) -> Term:
    """E_{q~} E_{c(x~|x)} log q(z|x~): what Lemma 1 of Im et al. (2015) puts in place of E_{q~} log q~(z|x)."""
    return E(m.marginal_encoder(x), lambda z: E(m.corruption(x), lambda xt: m.encoder(xt).log_prob(z)))


def marginal_negative_entropy(m: SymbolicModel, x: Term) -> Term:
    """E_{q~} log q~(z|x)."""
    return E(m.marginal_encoder(x), lambda z: m.marginal_encoder(x).log_prob(z))


def dae_criterion(m: SymbolicModel, x: Term) -> Term:
    """E_{x~} E_{z ~ q(.|x~)} log p(x|z): reconstruction alone, no penalty (Vincent et al. 2008)."""
    return E(m.corruption(x), lambda xt: E(m.encoder(xt), lambda z: m.likelihood(z).log_prob(x)))


# --- importance weighting ------------------------------------------------------------------------------------------


def iwae(m: SymbolicModel, x: Term, k: int) -> Term:
    """E log mean_k w(z_k) (Burda et al. 2016, eq. 8)."""
    return E(m.encoder(x).copies(k), lambda z: log_mean_exp(log_weight(m, x, z)))


def jvi(m: SymbolicModel, x: Term, k: int) -> Term:
    """K IWAE_K - (K-1) IWAE_{K-1}, the jackknife of order one (Nowozin 2018)."""
    if k == 1:
        return iwae(m, x, 1)
    return k * iwae(m, x, k) - (k - 1) * iwae(m, x, k - 1)


def diwae_coupled(m: SymbolicModel, x: Term, k: int) -> Term:
    """E_{x~} E_{z_k ~ q(.|x~)} log mean_k p(x,z_k) / q(z_k|x~)."""
    return E(
        m.corruption(x),
        lambda xt: E(m.encoder(xt).copies(k), lambda z: log_mean_exp(m.log_joint(x, z) - m.encoder(xt).log_prob(z))),
    )


def diwae_fresh(m: SymbolicModel, x: Term, k: int) -> Term:
    """As the coupled one, with an own x~_k for each z_k, used in its density too."""
    return E(
        m.corruption(x).copies(k),
        lambda xt: E(m.encoder(xt), lambda z: log_mean_exp(m.log_joint(x, z) - m.encoder(xt).log_prob(z))),
    )


def diwae_decoupled(m: SymbolicModel, x: Term, k: int) -> Term:
    """As the coupled one, with an x~ in the density that is independent of the samples' x~."""
    return E(
        m.corruption(x),
        lambda xs: E(
            m.corruption(x),
            lambda xt: E(
                m.encoder(xs).copies(k), lambda z: log_mean_exp(m.log_joint(x, z) - m.encoder(xt).log_prob(z))
            ),
        ),
    )


def vr_max(m: SymbolicModel, x: Term, k: int) -> Term:
    """E max_k log w_k (Li & Turner 2016, VR-max)."""
    return E(m.encoder(x).copies(k), lambda z: maximum_over(log_weight(m, x, z)))


def harmonic_mean(m: SymbolicModel, x: Term, k: int) -> Term:
    """-E log mean_k 1/p(x|z_k) with z_k from the posterior (Newton & Raftery 1994)."""
    return -E(m.posterior(x).copies(k), lambda z: log_mean_exp(-m.likelihood(z).log_prob(x)))


# --- Renyi, chi and evidence upper bounds --------------------------------------------------------------------------


def renyi(m: SymbolicModel, x: Term, alpha: Number) -> Term:
    """log E_q[w^(1-alpha)] / (1-alpha) (Li & Turner 2016); alpha = 1 is the ELBO."""
    power = 1 - as_fraction(alpha)
    if power == 0:
        return elbo(m, x)
    return log(E(m.encoder(x), lambda z: exp(power * log_weight(m, x, z)))) / power


def renyi_finite(m: SymbolicModel, x: Term, alpha: Number, k: int) -> Term:
    """E log mean_k w_k^(1-alpha) / (1-alpha), what K samples estimate (Li & Turner 2016)."""
    power = 1 - as_fraction(alpha)
    if power == 0:
        return elbo(m, x)
    return E(m.encoder(x).copies(k), lambda z: log_mean_exp(power * log_weight(m, x, z))) / power


def cubo(m: SymbolicModel, x: Term, n: Number) -> Term:
    """log E_q[w^n] / n (Dieng et al. 2017)."""
    order = as_fraction(n)
    return log(E(m.encoder(x), lambda z: exp(order * log_weight(m, x, z)))) / order


def cubo_finite(m: SymbolicModel, x: Term, n: Number, k: int) -> Term:
    """E log mean_k w_k^n / n, what K samples estimate (Dieng et al. 2017)."""
    order = as_fraction(n)
    return E(m.encoder(x).copies(k), lambda z: log_mean_exp(order * log_weight(m, x, z))) / order


def eubo(m: SymbolicModel, x: Term) -> Term:
    """E_{p(z|x)} log w."""
    return E(m.posterior(x), lambda z: log_weight(m, x, z))


# --- hierarchical encoders -----------------------------------------------------------------------------------------


def hvm(m: SymbolicModel, x: Term, auxiliary: Law | None = None) -> Term:
    """E_{c,q}[log p(x,z) + log r(x~|z,x) - log c(x~|x) - log q(z|x~)] (Ranganath, Tran & Blei 2016)."""

    def body(xt: Term, z: Term) -> Term:
        r = m.auxiliary(z, x) if auxiliary is None else auxiliary
        log_r, log_c = r.log_prob(xt), m.corruption(x).log_prob(xt)
        return m.log_joint(x, z) + log_r - log_c - m.encoder(xt).log_prob(z)

    return E(m.corruption(x), lambda xt: E(m.encoder(xt), lambda z: body(xt, z)))


def hvm_prior(m: SymbolicModel, x: Term) -> Term:
    """HVM with the auxiliary model r(x~|z,x) = c(x~|x)."""
    return hvm(m, x, m.corruption(x))


def reverse_mixing(m: SymbolicModel, x: Term, z: Term) -> Law:
    """c(x~|z,x), proportional to c(x~|x) q(z|x~): the optimal auxiliary model."""
    return normalised(m.corrupted, lambda xt: m.corruption(x).log_prob(xt) + m.encoder(xt).log_prob(z))


def hvm_optimal(m: SymbolicModel, x: Term) -> Term:
    """HVM with the optimal auxiliary model."""
    return E(
        m.corruption(x),
        lambda xt: E(
            m.encoder(xt),
            lambda z: (
                m.log_joint(x, z)
                + reverse_mixing(m, x, z).log_prob(xt)
                - m.corruption(x).log_prob(xt)
                - m.encoder(xt).log_prob(z)
            ),
        ),
    )


def sivi(m: SymbolicModel, x: Term, k: int) -> Term:
    """E_{x~_0} E_{z ~ q(.|x~_0)} E_{x~_1..K}[log p(x,z) - log mean_{k=0..K} q(z|x~_k)] (Yin & Zhou 2018)."""

    def body(x0: Term, z: Term) -> Term:
        if k == 0:
            return m.log_joint(x, z) - m.encoder(x0).log_prob(z)
        return E(
            m.corruption(x).copies(k),
            lambda xt: m.log_joint(x, z) - log_mean_exp(m.encoder(xt).log_prob(z), also=m.encoder(x0).log_prob(z)),
        )

    return E(m.corruption(x), lambda x0: E(m.encoder(x0), lambda z: body(x0, z)))


def sivi_without(m: SymbolicModel, x: Term, k: int) -> Term:
    """SIVI with the mean over x~_1..K only, without the x~_0 that produced z."""
    return E(
        m.corruption(x),
        lambda x0: E(
            m.encoder(x0),
            lambda z: E(
                m.corruption(x).copies(k),
                lambda xt: m.log_joint(x, z) - log_mean_exp(m.encoder(xt).log_prob(z)),
            ),
        ),
    )


# --- thermodynamic, perturbative, weighted -------------------------------------------------------------------------


def tempered(m: SymbolicModel, x: Term, b: Number) -> Law:
    """pi_b, proportional to q(z|x)^(1-b) p(x,z)^b."""
    b = as_fraction(b)
    return normalised(m.latent, lambda z: (1 - b) * m.encoder(x).log_prob(z) + b * m.log_joint(x, z))


def _riemann(m: SymbolicModel, x: Term, steps: int, first: int) -> Term:
    def rate(j: int) -> Term:
        law = m.encoder(x) if j == 0 else tempered(m, x, Fraction(j, steps))
        return E(law, lambda z: log_weight(m, x, z))

    terms = [rate(j) for j in range(first, first + steps)]
    return sum(terms[1:], terms[0]) / steps


def tvo_left(m: SymbolicModel, x: Term, s: int) -> Term:
    """The left Riemann sum over b in [0,1], S steps, of E_{pi_b} log w (Masrani et al. 2019)."""
    return _riemann(m, x, s, 0)


def tvo_right(m: SymbolicModel, x: Term, s: int) -> Term:
    """The right Riemann sum over b in [0,1], S steps, of E_{pi_b} log w (Masrani et al. 2019)."""
    return _riemann(m, x, s, 1)


def perturbative(m: SymbolicModel, x: Term, order: int, v0: Number = 0) -> Term:
    """log( e^{-V0} E_q sum_{k<=n} (V0 + log w)^k / k! ) (Bamler et al. 2017)."""
    v0 = as_fraction(v0)
    return log(E(m.encoder(x), lambda z: exp_series(v0 + log_weight(m, x, z), order))) - v0


def reconstruction(m: SymbolicModel, x: Term) -> Term:
    """E_q log p(x|z)."""
    return E(m.encoder(x), lambda z: m.likelihood(z).log_prob(x))


def beta_objective(m: SymbolicModel, x: Term, beta: Number) -> Term:
    """E_q log p(x|z) - beta KL(q || p(z)) (Higgins et al. 2017, eq. 4)."""
    return reconstruction(m, x) - as_fraction(beta) * kl(m.encoder(x), m.prior())


def free_bits(m: SymbolicModel, x: Term, floor: Number) -> Term:
    """E_q log p(x|z) - max(lambda, KL(q || p(z))), lambda = `floor` nats (Kingma et al. 2016)."""
    return reconstruction(m, x) - maximum(floor, kl(m.encoder(x), m.prior()))


def beta_denoising(m: SymbolicModel, x: Term, beta: Number) -> Term:
    """E_{c(x~|x)}[E_{q(.|x~)} log p(x|z) - beta KL(q(z|x~) || p(z))], a beta-VAE of corrupted inputs."""

    def body(xt: Term) -> Term:
        fit = E(m.encoder(xt), lambda z: m.likelihood(z).log_prob(x))
        return fit - as_fraction(beta) * kl(m.encoder(xt), m.prior())

    return E(m.corruption(x), body)


# --- annealing -----------------------------------------------------------------------------------------------------


def metropolis(m: SymbolicModel, z: Term, proposal: Law, log_target: Callable[[Term], Term]) -> Law:
    """One Metropolis-Hastings step from z with an independence proposal; it leaves exp(log_target) invariant.

    T(z'|z) = g(z') min(1, f(z') g(z) / (f(z) g(z'))) + [z' = z] (1 - the probability of acceptance).
    """

    def log_move(new: Term) -> Term:
        ratio = log_target(new) + proposal.log_prob(z) - log_target(z) - proposal.log_prob(new)
        return proposal.log_prob(new) + minimum(0, ratio)

    def log_density(new: Term) -> Term:
        accepted = integrate(m.latent, lambda other: exp(log_move(other)))
        return log(exp(log_move(new)) + same(new, z) * (1 - accepted))

    return normalised(m.latent, log_density)


def annealed_log_weight(m: SymbolicModel, x: Term, path: Sequence[Term]) -> Term:
    """log w = (1/T) sum_t log w(z_t): equal steps on the geometric path q^(1-b) p^b (Neal 2001)."""
    return add(*(log_weight(m, x, z) for z in path)) / len(path)


def annealing_kernel(m: SymbolicModel, x: Term, z: Term, b: Number) -> Law:
    """A Metropolis step that leaves pi_b, proportional to q^(1-b) p^b, invariant; proposals come from the encoder."""
    b = as_fraction(b)
    return metropolis(m, z, m.encoder(x), lambda v: (1 - b) * m.encoder(x).log_prob(v) + b * m.log_joint(x, v))


def over_annealing(m: SymbolicModel, x: Term, steps: int, reverse: bool, body: Callable[[Term], Term]) -> Term:
    """E over the AIS path of `body(log w)`: forwards from the encoder, or backwards from an exact posterior draw.

    Metropolis steps are reversible, so the backward chain uses the same kernels in the opposite order.
    """
    temperatures = [Fraction(t, steps) for t in range(1, steps)]
    if reverse:
        temperatures.reverse()

    def extend(path: list[Term], left: list[Fraction]) -> Term:
        if not left:
            return body(annealed_log_weight(m, x, path))
        return E(annealing_kernel(m, x, path[-1], left[0]), lambda z: extend([*path, z], left[1:]))

    start = m.posterior(x) if reverse else m.encoder(x)
    return E(start, lambda z: extend([z], temperatures))


def ais_forward(m: SymbolicModel, x: Term, steps: int) -> Term:
    """E log w of annealed importance sampling, from the encoder to the posterior (Neal 2001; Grosse et al. 2015)."""
    return over_annealing(m, x, steps, reverse=False, body=lambda log_w: log_w)


def ais_reverse(m: SymbolicModel, x: Term, steps: int) -> Term:
    """-E log 1/w of annealed importance sampling run backwards from an exact posterior draw (Grosse et al. 2015)."""
    return over_annealing(m, x, steps, reverse=True, body=lambda log_w: log_w)
