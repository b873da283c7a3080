"""Does this density integrate to one, and is this sampler the one whose density is claimed?

An objective computed with a density that is not one (a forgotten Jacobian, a log-variance taken for a standard
deviation), or with draws from another law than the one scored, bounds nothing. The first question is an equation
about an integral; the second is answered by the distance between the draws and the claimed distribution function,
for which the Dvoretzky-Kiefer-Wolfowitz inequality gives an error probability without any approximation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boundcheck.claims.check import check
from boundcheck.claims.claim import Claim
from boundcheck.claims.decide import Guarantee, Outcome, Verdict, decide
from boundcheck.errors import BadInput, CannotCompute
from boundcheck.evaluators.strongest import require_observation, value_of
from boundcheck.evaluators.values import Approximate, Bias, Sampled
from boundcheck.language.build import E, integrate, log
from boundcheck.language.laws import SymbolicModel
from boundcheck.language.terms import ONE, ZERO, Term
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import Normal
from boundcheck.models.finite import FiniteModel
from boundcheck.models.linear_gaussian import LinearGaussianModel

Role = Literal["prior", "encoder", "posterior", "corruption", "likelihood"]
LogDensity = Callable[[NDArray[np.float64]], ArrayLike]

_ROUNDING = 1e-8
_INFINITE = (-math.inf, math.inf)


def check_law(role: Role, model: Any, x: Any = 0) -> Verdict:
    """Whether a law of a model integrates to one: integral of p(v) dv == 1.

    On finite models the answer is exact. On continuous ones an enclosure or a quadrature value that is apart from one
    refutes it; one that is not apart leaves it undecided, with what is known of the mass as the reason.

    Args:
        role: which law: "prior", "encoder", "posterior", "corruption" or "likelihood" (the decoder).
        model: a model that an evaluator of `boundcheck.evaluate` takes.
        x: the observation; for the decoder of a continuous model the z that it reads. That of other models is judged
            at every z.

    Raises:
        BadInput: an unknown role, or a law that the model lacks.

    >>> from boundcheck import FiniteModel
    >>> model = FiniteModel(prior=["1/2", "1/2"], likelihood=[[1], [1]], encoder=[["1/3", "2/3"]])
    >>> print(check_law("encoder", model))
    holds (exact)
    """
    spaces = {"prior": "latent", "encoder": "latent", "posterior": "latent", "corruption": "corrupted"}
    if role == "likelihood":
        return _check_decoder(model, x)
    if role not in spaces:
        raise BadInput("role", role, f"one of {', '.join(spaces)}, likelihood")

    def mass(m: SymbolicModel, observed: Term) -> Term:
        law = m.prior() if role == "prior" else getattr(m, role)(observed)
        return integrate(getattr(m, spaces[role]), lambda v: law.prob(v))

    claim = Claim(f"the {role} integrates to one", mass, "==", lambda m, observed: ONE)
    return _told(claim, model, x)


def _check_decoder(model: Any, at: Any) -> Verdict:
    if isinstance(model, ContinuousModel):
        # The law of x given z in the place of a prior, or (if it is discrete) of a corruption.
        laws = model.law("likelihood", (at,))
        if all(law.discrete for law in laws):
            return check_law(
                "corruption", ContinuousModel(Normal(0, 1), model.likelihood, corruption=lambda x: laws), 0
            )
        return check_law("prior", ContinuousModel(laws, lambda z: Normal(0, 1)), 0)

    def spread(m: SymbolicModel, observed: Term) -> Term:
        def off(z: Term) -> Term:
            mass = integrate(m.data, lambda v: m.likelihood(z).prob(v))
            # On linear-Gaussian models the mass is the same for every z, and has a closed form in its logarithm only.
            return log(mass) if isinstance(model, LinearGaussianModel) else (mass - 1) ** 2

        return E(m.prior(), off)

    claim = Claim("the decoder integrates to one", spread, "==", lambda m, observed: ZERO)
    return _told(claim, model, at)


def _told(claim: Claim, model: Any, x: Any) -> Verdict:
    """A verdict that tells, where it is undecided, what is known of the mass."""
    if isinstance(model, FiniteModel):
        return check(claim, model, x)
    require_observation(model, x)
    lhs, rhs = claim.terms
    # More digits would not decide an equation that holds, so one precision is enough.
    verdict = decide(value_of(lhs, model, x), "==", value_of(rhs, model, x))
    if verdict.outcome is not Outcome.UNDECIDED or verdict.lhs is None:
        return verdict
    what, whole = ("mass", "one") if rhs == ONE else ("mean log-mass", "zero")
    return replace(verdict, reason=f"its {what} is {verdict.lhs}, from which {whole} is not apart")


def check_density(
    log_density: LogDensity, support: tuple[float, float] = _INFINITE, breaks: Sequence[float] = ()
) -> Verdict:
    """Whether a density of one real variable integrates to one, by adaptive quadrature.

    Args:
        log_density: log p(v) in nats, for an array of points.
        support: the interval on which it is to integrate to one.
        breaks: points where the density jumps, bends, or is narrow: the integral is cut there.

    Returns:
        "violated" (numerical) if the integral exceeds one by more than its error estimate. One that falls short is
        "undecided", with the mass that was found: finitely many points cannot tell that none hides between them.

    Raises:
        BadInput: a log-density that is nan or +inf somewhere, or an empty support.
        CannotCompute: the quadrature does not converge.

    A scale that was forgotten in the normaliser:

    >>> verdict = check_density(lambda v: -0.5 * (v / 2) ** 2 - 0.5 * np.log(2 * np.pi))
    >>> print(verdict, f"{float(verdict.lhs):.6f}")
    violated (numerical) 2.000000
    """
    mass, one = _mass(log_density, support, breaks), Approximate(1.0, 0.0)
    verdict = decide(mass, "==", one)
    if verdict.outcome is Outcome.VIOLATED and mass.value < 1:
        reason = f"the quadrature found a mass of {mass.value:.6g} only; if there is a narrow place, name it in breaks"
        return Verdict(Outcome.UNDECIDED, None, "==", mass, one, verdict.margin, reason)
    return verdict


def _mass(log_density: LogDensity, support: tuple[float, float], breaks: Sequence[float]) -> Approximate:
    from scipy.integrate import quad

    low, high = support
    if not low < high:
        raise BadInput("support", support, "an interval (low, high) with low < high")

    def density(v: float) -> float:
        value = float(np.asarray(log_density(np.array([v]))).reshape(-1)[0])
        if math.isnan(value) or value == math.inf:
            raise BadInput("log_density", value, f"a number or -inf at v = {v:.6g}")
        return math.exp(value)

    inner = sorted(point for point in breaks if low < point < high)
    # An infinite range is cut at finite points, so that mass near them is not stepped over.
    ends = [low, *(inner or ([0.0] if math.isinf(low) and math.isinf(high) else [])), high]
    total = error = 0.0
    for a, b in itertools.pairwise(ends):
        value, estimate, *message = quad(density, a, b, epsabs=1e-13, epsrel=1e-11, limit=400, full_output=1)
        if len(message) > 1:
            raise CannotCompute("quadrature", f"the integral from {a:g} to {b:g}", str(message[1]).split("\n")[0])
        total, error = total + value, error + estimate
    # A density far from the origin is known to few digits only, because its argument is.
    return Approximate(total, 10 * error + _ROUNDING)


def check_sampler(
    draws: ArrayLike,
    log_density: LogDensity,
    support: tuple[float, float] = _INFINITE,
    *,
    alpha: float = 1e-6,
) -> Verdict:
    """Whether independent draws of one real variable can come from the law of a density.

    With F the claimed distribution function and F_n that of n draws, P(sup |F_n - F| > e) <= 2 exp(-2 n e^2)
    (Dvoretzky, Kiefer & Wolfowitz 1956; Massart 1990): a larger distance refutes the sampler with error probability
    alpha, without approximation. A smaller one refutes nothing, and the verdict is "undecided".

    Args:
        draws: n independent draws, of shape (n,).
        log_density: the log-density that is claimed, in nats, for an array of points.
        support: the interval on which it is a density.
        alpha: the probability of refuting a right sampler.

    Raises:
        BadInput: draws that are no finite numbers or too few to refute anything, or lie outside the support.

    >>> draws = np.random.default_rng(0).normal(0, 2, size=2000)
    >>> print(check_sampler(draws, lambda v: -0.5 * v**2 - 0.5 * np.log(2 * np.pi)))
    violated (statistical)
    """
    if not 0 < alpha < 0.5:
        raise BadInput("alpha", alpha, "an error probability between 0 and 1/2")
    points = np.sort(np.asarray(draws, dtype=np.float64).reshape(-1))
    if not np.isfinite(points).all():
        raise BadInput("draws", draws, "finite numbers")
    if len(points) and not (support[0] <= points[0] and points[-1] <= support[1]):
        raise BadInput("draws", float(points[0]), f"points of the support {support}", "widen the support")
    n = len(points)
    allowed = math.sqrt(math.log(2 / alpha) / (2 * max(n, 1)))
    if allowed >= 1:
        raise BadInput("draws", n, f"at least {math.ceil(math.log(2 / alpha) / 2)} draws at alpha = {alpha:g}")
    claimed, error = _distribution(log_density, support, points)
    steps = np.arange(n + 1) / n
    distance = float(np.max(np.maximum(np.abs(claimed - steps[:-1]), np.abs(claimed - steps[1:]))))
    lhs, rhs = Sampled(distance, allowed, Bias.UNKNOWN, n), Approximate(0.0, error)
    if distance > allowed + error:
        return Verdict(Outcome.VIOLATED, Guarantee.STATISTICAL, "==", lhs, rhs, -distance, error_probability=alpha)
    reason = f"the largest distance {distance:.3g} is within {allowed:.3g}, which {n} draws allow at {alpha:g}"
    return Verdict(Outcome.UNDECIDED, None, "==", lhs, rhs, -distance, reason)


def _distribution(
    log_density: LogDensity, support: tuple[float, float], points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """The claimed distribution function at sorted points, and its numerical error: Gauss rules between the points."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    left, right = points[:-1, None], points[1:, None]
    middle, half = (left + right) / 2, (right - left) / 2
    inside = middle + half * nodes
    with np.errstate(over="raise", invalid="ignore"):
        density = np.exp(np.asarray(log_density(inside.reshape(-1)), dtype=np.float64)).reshape(inside.shape)
    if np.isnan(density).any():
        raise BadInput("log_density", "nan", "a number or -inf at every point of the support")
    pieces = (density * weights * half).sum(axis=1)
    tail = _mass(log_density, (support[0], float(points[0])), ())
    whole = _mass(log_density, support, [float(points[0]), float(points[-1])])
    claimed = tail.value + np.concatenate([[0.0], np.cumsum(pieces)])
    upper = _mass(log_density, (float(points[-1]), support[1]), ())
    error = abs(whole.value - upper.value - claimed[-1]) + whole.error + upper.error + tail.error
    return claimed, error
