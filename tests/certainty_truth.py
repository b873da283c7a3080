"""Truths for the certainty sweep, by mpmath alone: nothing here is shared with the package.

Linear-Gaussian models: every formula is made of expectations of log-normal densities of affine functions, and of
integrals of products of powers of normal densities, worked out by matrix algebra at 60 digits.

One latent variable with any laws: composite Gauss-Legendre sums at 30 digits, on panels that break where a law has a
kink or an edge and that grow geometrically outwards. Two rules of different order are taken; what they do not agree
on to 20 digits, or what has not died out in the outermost panels, has no truth here, and is left out of the sweep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from mpmath import mp, mpf

Number = Any  # an mpf (mpmath has no types)

ALPHAS = {"1/2": mpf(1) / 2, "1/4": mpf(1) / 4, "2": mpf(2)}
POWERS = {"2": mpf(2), "3/2": mpf(3) / 2}


# --- linear-Gaussian models ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Affine:
    """mean + slope1 @ v1 + ... + noise of that covariance; entries are floats."""

    slopes: Sequence[np.ndarray]
    mean: np.ndarray
    covariance: np.ndarray


def _m(array: np.ndarray) -> Any:
    """An array as an exact matrix of mpf; a vector as a column."""
    return mp.matrix(np.atleast_2d(array).tolist() if np.ndim(array) != 1 else [[v] for v in array.tolist()])


def _log_det(matrix: Any) -> Number:
    lower = mp.cholesky(matrix)
    return 2 * sum((mp.log(lower[i, i]) for i in range(matrix.rows)), mpf(0))


def _trace(matrix: Any) -> Number:
    return sum((matrix[i, i] for i in range(matrix.rows)), mpf(0))


def mean_log_normal(center: Any, spread: Any, covariance: Any) -> Number:
    """E log N(v; 0, covariance) for v of mean `center` and covariance `spread`."""
    inverse = covariance**-1
    square = _trace(inverse * spread) + (center.T * inverse * center)[0]
    return -(covariance.rows * mp.log(2 * mp.pi) + _log_det(covariance) + square) / 2


@dataclass
class Quadratic:
    """exp(-z'Lz/2 + h'z + c): a normal density, or a product of powers of them."""

    curvature: Any
    slope: Any
    constant: Number

    def __pow__(self, power: Number) -> Quadratic:
        return Quadratic(self.curvature * power, self.slope * power, self.constant * power)

    def __mul__(self, other: Quadratic) -> Quadratic:
        return Quadratic(self.curvature + other.curvature, self.slope + other.slope, self.constant + other.constant)

    def proper(self) -> bool:
        """Whether the integral is finite: leading minors are positive."""
        size = self.curvature.rows
        return all(mp.det(self.curvature[: n + 1, : n + 1]) > 0 for n in range(size))

    def log_integral(self) -> Number:
        square = (self.slope.T * self.curvature**-1 * self.slope)[0]
        return self.constant + square / 2 + (self.curvature.rows * mp.log(2 * mp.pi) - _log_det(self.curvature)) / 2

    def law(self) -> tuple[Any, Any]:
        """(mean, covariance) of the normal law that this is proportional to."""
        covariance = self.curvature**-1
        return covariance * self.slope, covariance


def normal_in(slope: Any, rest: Any, covariance: Any) -> Quadratic:
    """N(rest - slope z; 0, covariance) as a function of z."""
    inverse = covariance**-1
    constant = (rest.T * inverse * rest)[0] + rest.rows * mp.log(2 * mp.pi) + _log_det(covariance)
    return Quadratic(slope.T * inverse * slope, slope.T * inverse * rest, -constant / 2)


def gaussian_truths(laws: dict[str, Affine], x: np.ndarray, digits: int = 60) -> dict[str, Number]:
    """Every formula's value; +-inf where an integral diverges."""
    with mp.workdps(digits):
        return _gaussian_truths(laws, x)


def _gaussian_truths(laws: dict[str, Affine], observed: np.ndarray) -> dict[str, Number]:
    m, P = _m(laws["prior"].mean), _m(laws["prior"].covariance)
    W, b, S = _m(laws["likelihood"].slopes[0]), _m(laws["likelihood"].mean), _m(laws["likelihood"].covariance)
    A, a, Q = _m(laws["encoder"].slopes[0]), _m(laws["encoder"].mean), _m(laws["encoder"].covariance)
    x, one = _m(observed), mp.eye(P.rows)
    zero_z = mp.zeros(P.rows, 1)

    def log_likelihood(mean: Any, covariance: Any) -> Number:
        return mean_log_normal(x - b - W * mean, W * covariance * W.T, S)

    def log_joint(mean: Any, covariance: Any) -> Number:
        return mean_log_normal(mean - m, covariance, P) + log_likelihood(mean, covariance)

    mu = A * x + a
    joint = normal_in(one, m, P) * normal_in(W, x - b, S)
    q = normal_in(one, mu, Q)
    evidence = mean_log_normal(x - b - W * m, mp.zeros(S.rows, S.rows), W * P * W.T + S)
    posterior, posterior_covariance = joint.law()
    log_q = mean_log_normal(zero_z, Q, Q)
    fit = log_likelihood(mu, Q)
    kl_prior = log_q - mean_log_normal(mu - m, Q, P)
    eubo = log_joint(posterior, posterior_covariance)
    eubo -= mean_log_normal(posterior - mu, posterior_covariance, Q)
    found = {
        "log_evidence": evidence,
        "elbo": log_joint(mu, Q) - log_q,
        "reconstruction": fit,
        "eubo": eubo,
        "beta_objective": fit - kl_prior / 2,
        "free_bits": fit - max(mpf(2), kl_prior),
    }

    def power(exponent: Number) -> Number:
        """log E_q[w^exponent] / exponent"""
        product = joint**exponent * q ** (1 - exponent)
        if not product.proper():
            return mp.inf if exponent > 0 else -mp.inf
        return product.log_integral() / exponent

    found |= {f"renyi {name}": power(1 - alpha) for name, alpha in ALPHAS.items()}
    found |= {f"cubo {name}": power(n) for name, n in POWERS.items()}

    def rate(temperature: Number) -> Number:
        law = (joint**temperature * q ** (1 - temperature)).law()
        return log_joint(*law) - mean_log_normal(law[0] - mu, law[1], Q)

    rates = [rate(mpf(j) / 3) for j in range(4)]
    found["tvo_left"], found["tvo_right"] = sum(rates[:3]) / 3, sum(rates[1:]) / 3
    if "corruption" not in laws:
        return found
    C, c, K = _m(laws["corruption"].slopes[0]), _m(laws["corruption"].mean), _m(laws["corruption"].covariance)
    noisy = C * x + c
    pushed = A * K * A.T
    wide_mean, wide = A * noisy + a, pushed + Q
    wide_joint = log_joint(wide_mean, wide)
    crossed = mean_log_normal(zero_z, wide + pushed, Q)
    found |= {
        "denoising_coupled": wide_joint - log_q,
        "denoising_decoupled": wide_joint - crossed,
        "marginal_cross_entropy": crossed,
        "marginal_elbo": wide_joint - mean_log_normal(zero_z, wide, wide),
        "dae_criterion": log_likelihood(wide_mean, wide),
        "hvm_prior": wide_joint - log_q,
        "hvm_optimal": wide_joint - mean_log_normal(zero_z, wide, wide),
    }
    if "auxiliary" in laws:
        Rz, Rx = (_m(slope) for slope in laws["auxiliary"].slopes)
        r, T = _m(laws["auxiliary"].mean), _m(laws["auxiliary"].covariance)
        moved = mp.eye(K.rows) - Rz * A
        center = noisy - Rz * wide_mean - Rx * x - r
        log_r = mean_log_normal(center, moved * K * moved.T + Rz * Q * Rz.T, T)
        found["hvm"] = wide_joint - log_q + log_r - mean_log_normal(mp.zeros(K.rows, 1), K, K)
    return found


# --- one latent variable, any laws -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Law:
    """A density of a real variable: its kind, location and scale, and one more number where the kind has one."""

    kind: str
    location: float
    scale: float
    extra: float = 0.0

    def log(self, v: Any, f: Any) -> Any:
        """The log-density at v, with the functions of `f`: mpmath's on an mpf, or numpy's on an array of floats."""
        constant = _constant(self) if f is mp else float(_constant(self))
        if self.kind == "uniform":  # on [location, location + scale]; panels never cross the edges
            if f is mp:
                return constant if self.location < v < self.location + self.scale else -mp.inf
            return np.where((v > self.location) & (v < self.location + self.scale), constant, -np.inf)
        t = (v - self.location) / self.scale
        if self.kind == "normal":
            return constant - t * t / 2
        if self.kind == "laplace":
            return constant - abs(t)
        if self.kind == "logistic":
            return constant - abs(t) - 2 * f.log1p(f.exp(-abs(t)))
        if self.kind == "student":
            return constant - (self.extra + 1) / 2 * f.log1p(t * t / self.extra)
        assert self.kind == "mixture"  # 1/4 of this normal law and 3/4 of one that is twice as wide, `extra` away
        u = (v - self.location - self.extra) / (2 * self.scale)
        if f is mp:
            return constant + f.log(f.exp(-t * t / 2) / 4 + 3 * f.exp(-u * u / 2) / 8)
        return constant + np.logaddexp(-t * t / 2 - np.log(4 + 0 * t), np.log(0.375 + 0 * u) - u * u / 2)

    def places(self) -> list[tuple[float, float]]:
        if self.kind == "uniform":
            return [(self.location, self.scale), (self.location + self.scale, self.scale)]
        if self.kind == "mixture":
            return [(self.location, self.scale), (self.location + self.extra, 2 * self.scale)]
        return [(self.location, self.scale)]

    def heavy(self) -> bool:
        return self.kind == "student"


@cache
def _constant(law: Law) -> Number:
    """What does not depend on the point, to 40 digits."""
    with mp.workdps(40):
        if law.kind in ("normal", "mixture"):
            return -mp.log(2 * mp.pi) / 2 - mp.log(mpf(law.scale))
        if law.kind == "laplace":
            return -mp.log(2 * mpf(law.scale))
        if law.kind == "student":
            nu = mpf(law.extra)
            gammas = mp.loggamma((nu + 1) / 2) - mp.loggamma(nu / 2)
            return gammas - mp.log(nu * mp.pi) / 2 - mp.log(mpf(law.scale))
        return -mp.log(mpf(law.scale))


@cache
def _log(value: float) -> Number:
    with mp.workdps(40):
        return mp.log(mpf(value))


@dataclass(frozen=True)
class Observed:
    """A likelihood of x given slope z + shift: bernoulli, binomial (of 5), poisson, or a kind of `Law`."""

    kind: str
    slope: float
    shift: float
    x: float
    scale: float = 1.0

    def log(self, z: Any, f: Any) -> Any:
        u = self.slope * z + self.shift
        if self.kind in ("bernoulli", "binomial"):
            n = 1 if self.kind == "bernoulli" else 5
            softplus = f.log1p(f.exp(-abs(u))) + (u + abs(u)) / 2
            choices = math.comb(n, int(self.x))
            return self.x * u - n * softplus + (_log(choices) if f is mp else math.log(choices))
        if self.kind == "poisson":
            factorial = math.factorial(int(self.x))
            if f is mp:
                return self.x * u - (f.exp(u) if u < 300 else mp.inf) - _log(factorial)
            return self.x * u - f.exp(np.minimum(u, 300.0)) - math.log(factorial)
        return Law(self.kind, 0.0, self.scale, 3.0).log(self.x - u, f)

    def places(self) -> list[tuple[float, float]]:
        target, width = self.x, self.scale
        if self.kind == "bernoulli":
            target, width = 0.0, 1.0
        elif self.kind == "binomial":
            target, width = math.log((self.x + 0.5) / (5.5 - self.x)), 0.6
        elif self.kind == "poisson":
            target, width = math.log(self.x + 0.5), 1 / math.sqrt(self.x + 1)
        return [((target - self.shift) / self.slope, width / abs(self.slope))]


@cache
def _rule(n: int) -> list[tuple[Number, Number]]:
    """Gauss-Legendre nodes and weights on [0, 1] to 40 digits: Newton's method on the polynomial's recurrence."""
    rule = []
    with mp.workdps(40):
        for i in range(n):
            t = mpf(math.cos(math.pi * (i + 0.75) / (n + 0.5)))
            for _ in range(6):
                before, now = mpf(1), t
                for k in range(2, n + 1):
                    before, now = now, ((2 * k - 1) * t * now - (k - 1) * before) / k
                slope = n * (t * now - before) / (t * t - 1)
                t -= now / slope
            rule.append(((1 + t) / 2, 1 / ((1 - t * t) * slope**2)))
    return rule


def _panels(places: Sequence[tuple[float, float]], heavy: bool) -> list[tuple[float, float]]:
    """Intervals that end at every center, as wide as the nearest law and growing with the distance from it."""

    def split(low: float, high: float) -> list[tuple[float, float]]:
        widest = min(1.75 * width + 0.4 * max(low - center, center - high, 0.0) for center, width in places)
        if high - low <= widest:
            return [(low, high)]
        middle = (low + high) / 2
        return [*split(low, middle), *split(middle, high)]

    centers = sorted({center for center, _ in places})
    reach = max(width for _, width in places) * (2.0**82 if heavy else 2000.0)
    breaks = [centers[0] - reach, *centers, centers[-1] + reach]
    return [panel for low, high in pairwise(breaks) for panel in split(low, high)]


NEGLIGIBLE = 62.0  # nats below the largest: 27 digits


@dataclass(frozen=True)
class OneLatent:
    """A model of one latent variable; `corruption` has the points x~ with their probabilities and q(z|x~)."""

    prior: Law
    likelihood: Sequence[Observed]
    encoder: Law
    corruption: Sequence[tuple[float, Law]] = ()
    auxiliary: Sequence[float] = ()

    def log_likelihood(self, z: Any, f: Any) -> Any:
        total = self.likelihood[0].log(z, f)
        for each in self.likelihood[1:]:
            total = total + each.log(z, f)
        return total


def one_latent_truths(model: OneLatent) -> dict[str, Number]:
    """Every formula of which the two rules agree, and whose integrand dies out in the outermost panels."""
    laws = [model.prior, model.encoder, *(law for _, law in model.corruption)]
    places = list(dict.fromkeys(place for part in (*laws, *model.likelihood) for place in part.places()))
    precision = sum(width**-2 for _, width in places)
    middle = sum(center / width**2 for center, width in places) / precision
    panels = _panels([*places, (middle, 1.5 / math.sqrt(precision))], any(law.heavy() for law in laws))
    measures = _measures(model, np, _midpoints(panels))
    sizes = {name: log_size + np.log([b - a for a, b in panels])[:, None] for name, log_size in measures.items()}
    proper, needed = {}, np.zeros(len(panels), dtype=bool)
    for name, size in sizes.items():
        top = np.nanmax(size)
        proper[name] = math.isfinite(top) and max(np.nanmax(size[0]), np.nanmax(size[-1])) < top - NEGLIGIBLE
        if proper[name]:
            needed |= np.nanmax(size, axis=1) > top - NEGLIGIBLE - math.log(len(panels))
    with mp.workdps(30):
        fine, coarse = (_sums(model, [p for p, n in zip(panels, needed, strict=True) if n], order, proper)
                        for order in (28, 22))  # fmt: skip
        return {
            name: value
            for name, value in fine.items()
            if name in coarse
            and (
                value == coarse[name]
                or (mp.isfinite(value) and abs(value - coarse[name]) < mpf(10) ** -20 * max(1, abs(value)))
            )
        }


def _midpoints(panels: Sequence[tuple[float, float]]) -> np.ndarray:
    """Some points of every panel, one row each."""
    return np.array([[a + t * (b - a) for t in (0.02, 0.25, 0.5, 0.75, 0.98)] for a, b in panels])


@np.errstate(all="ignore")
def _measures(model: OneLatent, f: Any, z: Any) -> dict[str, Any]:
    """Logarithms of the densities that formulas integrate against, up to constants."""
    J = model.prior.log(z, f) + model.log_likelihood(z, f)
    Q = model.encoder.log(z, f)
    bodies = np.abs(J) + np.abs(Q)
    body = np.log1p(np.where(np.isfinite(bodies), bodies, 0.0))
    measures = {"joint": J, "eubo": J + body, "q": Q + body}
    if model.encoder.kind != "uniform" and model.prior.kind != "uniform":
        measures |= {f"renyi {name}": (1 - float(p)) * J + float(p) * Q + body for name, p in ALPHAS.items()}
        measures |= {f"cubo {name}": float(n) * J + (1 - float(n)) * Q for name, n in POWERS.items()}
    logs = [law.log(z, f) for _, law in model.corruption]
    worst = np.abs(logs).max(axis=0, where=np.isfinite(logs), initial=0.0) if logs else 0.0
    measures |= {f"q {i}": log + body + np.log1p(worst) for i, log in enumerate(logs)}
    return measures


def _sums(
    model: OneLatent, panels: Sequence[tuple[float, float]], order: int, proper: dict[str, bool]
) -> dict[str, Number]:
    rule = _rule(order)
    mass: dict[str, Number] = {}
    mean: dict[str, Number] = {}

    def add(into: dict[str, Number], name: str, term: Number) -> None:
        into[name] = into.get(name, mpf(0)) + term

    for low, high in panels:
        width = mpf(high) - mpf(low)
        for t, weight in rule:
            z, w = low + width * t, weight * width
            P, L, Q = model.prior.log(z, mp), model.log_likelihood(z, mp), model.encoder.log(z, mp)
            J = P + L
            p, q = w * mp.exp(J), w * mp.exp(Q)
            add(mass, "joint", p)
            add(mass, "q", q)
            if q:
                for name, body in (("elbo", J - Q), ("reconstruction", L), ("kl", Q - P)):
                    add(mean, name, q * body)
            if p:
                add(mean, "eubo", p * (J - Q))
            for name, alpha in ALPHAS.items():
                if proper.get(f"renyi {name}"):
                    add(mass, f"renyi {name}", w * mp.exp((1 - alpha) * J + alpha * Q))
            for name, n in POWERS.items():
                if proper.get(f"cubo {name}"):
                    add(mass, f"cubo {name}", w * mp.exp(n * J + (1 - n) * Q))
            if proper.get("renyi 1/2") and p and q:
                half = w * mp.exp((J + Q) / 2)
                add(mean, "middle", half * (J - Q))
            if model.corruption:
                _add_corrupted(model, z, w, L, J, add, mass, mean)
    if any(abs(value - 1) > mpf(10) ** -19 for name, value in mass.items() if name.startswith("q")):
        return {}  # the panels do not even carry the encoders
    return _formulas(model, mass, mean, proper)


def _add_corrupted(
    model: OneLatent,
    z: Number,
    w: Number,
    L: Number,
    J: Number,
    add: Callable[..., None],
    mass: dict[str, Number],
    mean: dict[str, Number],
) -> None:
    logs = [law.log(z, mp) for _, law in model.corruption]
    densities = [mp.exp(log) for log in logs]
    chances = [mpf(c) for c, _ in model.corruption]
    mixed = sum(c * q for c, q in zip(chances, densities, strict=True))
    log_mixed = mp.log(mixed) if mixed else -mp.inf
    for i, (c, q) in enumerate(zip(chances, densities, strict=True)):
        mine = w * c * q
        add(mass, f"q {i}", w * q)
        if not mine:
            continue
        add(mean, "denoising_coupled", mine * (J - logs[i]))
        add(mean, "dae_criterion", mine * L)
        add(mean, "marginal_elbo", mine * (J - log_mixed))
        add(mean, "hvm_optimal", mine * (J - log_mixed))
        if model.auxiliary:
            add(mean, "hvm", mine * (J - logs[i] + _log(model.auxiliary[i]) - _log(model.corruption[i][0])))
        for j, other in enumerate(chances):
            add(mean, "denoising_decoupled", mine * other * (J - logs[j]))
            add(mean, "marginal_cross_entropy", mine * other * logs[j])
            add(mean, "sivi 1", mine * other * (J - mp.log((q + densities[j]) / 2)))


def _formulas(
    model: OneLatent, mass: dict[str, Number], mean: dict[str, Number], proper: dict[str, bool]
) -> dict[str, Number]:
    found: dict[str, Number] = {}
    if proper["joint"]:
        found["log_evidence"] = mp.log(mass["joint"])
    if proper["eubo"]:
        found["eubo"] = mean["eubo"] / mass["joint"]
    if proper["q"]:
        for name in ("elbo", "reconstruction", "kl"):
            found[name] = mean[name]
    for name, alpha in ALPHAS.items():
        if proper.get(f"renyi {name}"):
            found[f"renyi {name}"] = mp.log(mass[f"renyi {name}"]) / (1 - alpha)
    for name, n in POWERS.items():
        if proper.get(f"cubo {name}"):
            found[f"cubo {name}"] = mp.log(mass[f"cubo {name}"]) / n
    if proper.get("renyi 1/2") and proper["q"] and proper["eubo"]:
        middle = mean["middle"] / mass["renyi 1/2"]
        found["tvo_left 2"], found["tvo_right 2"] = (found["elbo"] + middle) / 2, (middle + found["eubo"]) / 2
    if model.corruption and all(proper[f"q {i}"] for i in range(len(model.corruption))):
        names = ["denoising_coupled", "dae_criterion", "marginal_elbo", "hvm_optimal"]
        names += ["denoising_decoupled", "marginal_cross_entropy", "sivi 1", *(["hvm"] if model.auxiliary else [])]
        found |= {name: mean[name] for name in names}
    return found


__all__ = ["ALPHAS", "POWERS", "Affine", "Law", "Observed", "OneLatent", "gaussian_truths", "one_latent_truths"]
