"""Truths of K-copy objectives, and of those with sums of their own, for models of one latent variable.

Nothing is shared with the package. Expectations over z are Gauss-Legendre sums in extended precision on panels that
break at kinks and edges. The expected logarithm of a mean of K independent weights needs no K-fold sum: with
phi(t) = E exp(-t w),

    E log mean_k w_k = integral over s of ( exp(-e^s) - phi(e^s / K)^K ),

by the trapezoidal rule, whose error falls like exp(-pi^2 / h). `tests/test_certainty.py` compares it with the plain
double and triple sums of `of_tuples`. Rules of two orders and steps of two sizes must agree, or else there is no truth.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from certainty_truth import OneLatent, _panels, _rule

Array = Any
"""An array of extended floats."""

FEWEST_DIGITS = 13
COPIES = (2, 5, 40)
_TINY = 1e-26


@cache
def _nodes_on_unit(order: int) -> tuple[Array, Array]:
    rule = _rule(order)
    return tuple(np.array([np.longdouble(str(number)) for number in part]) for part in zip(*rule, strict=True))  # type: ignore[return-value]


def log_mean_of_copies(weights: Array, logs: Array, count: int, step: float) -> Array:
    """E log mean_k exp(logs), the copies independent draws of the entries with probabilities `weights`."""
    if not np.isfinite(logs).all():
        return np.longdouble("nan")
    order = np.argsort(logs)
    weights, logs = weights[order], logs[order]
    below = np.cumsum(weights)
    # phi^K is gone where even the smallest weights that matter no longer survive; D is gone below the largest.
    most = -logs[np.searchsorted(below, np.longdouble(10.0) ** (-24 / count))] + math.log(count) + 5
    least = -logs[-1] - 60
    s = np.arange(math.floor(min(least, -60.0) / step), math.ceil(max(most, 5.0) / step) + 1) * np.longdouble(step)
    t = np.exp(s) / count
    dead = np.empty_like(t)
    sizes = np.exp(logs)
    for i in range(0, len(t), 64):
        dead[i : i + 64] = -(np.expm1(-t[i : i + 64, None] * sizes) @ weights)
    alive = np.maximum(1 - dead, 0)
    with np.errstate(divide="ignore"):
        powers = np.where(dead < 0.5, np.exp(count * np.log1p(-np.minimum(dead, 0.5))), alive**count)
    return step * (np.exp(-np.exp(s)) - powers).sum()


def of_tuples(weights: Array, logs: Array, count: int) -> Array:
    """The same by plain sums over pairs or triples."""
    kept = weights > 1e-22
    weights, logs = weights[kept], logs[kept]
    if count == 2:
        return weights @ (np.logaddexp(logs[:, None], logs) - np.log(np.longdouble(2))) @ weights
    pairs = np.logaddexp(logs[:, None], logs)
    inner = [np.vdot(weights, np.logaddexp(pairs, log) @ weights) for log in logs]
    return weights @ np.array(inner) - np.log(np.longdouble(3))


class Sums:
    """Sums over the nodes of one order."""

    def __init__(self, model: OneLatent, order: int, step: float) -> None:
        laws = [model.prior, model.encoder, *(law for _, law in model.corruption)]
        places = dict.fromkeys((c, w / 2) for part in (*laws, *model.likelihood) for c, w in part.places())
        heavy = any(law.heavy() for law in laws)
        panels = np.array(_panels(list(places), heavy), dtype=np.longdouble)
        t, w = _nodes_on_unit(order)
        width = (panels[:, 1] - panels[:, 0])[:, None]
        self.model, self.step = model, step
        self.z, self.w = (panels[:, :1] + width * t).ravel(), (width * w).ravel()
        self.prior, self.fit = model.prior.log(self.z, np), model.log_likelihood(self.z, np)
        self.joint = self.prior + self.fit

    def under(self, log_density: Array) -> tuple[Array, Array]:
        """(which nodes, their probabilities) of a density."""
        weights = self.w * np.exp(log_density - log_density.max())
        weights = weights / weights.sum()
        chosen = weights > _TINY
        return chosen, weights[chosen]

    def mean(self, log_density: Array, values: Array) -> Array:
        chosen, weights = self.under(log_density)
        return weights @ values[chosen]

    def copies(self, parts: Sequence[tuple[Any, Array, Array]], count: int) -> Array:
        """E log mean_k exp(values), each copy from a mixture of (chance, log-density, values)."""
        drawn = [(chance, *self.under(log_density), values) for chance, log_density, values in parts]
        weights = np.concatenate([chance * weights for chance, _, weights, _ in drawn])
        return log_mean_of_copies(weights, np.concatenate([v[chosen] for _, chosen, _, v in drawn]), count, self.step)

    # --- formulas ---

    def plain(self) -> dict[str, Array]:
        """Without a corruption."""
        q = self.model.encoder.log(self.z, np)
        log_w = self.joint - q
        with np.errstate(invalid="ignore"):
            kl = self.mean(q, q - self.prior)
            fit, elbo = self.mean(q, self.fit), self.mean(q, log_w)
        found = {"beta_objective": fit - kl / 2, "free_bits": fit - max(kl, 2), "elbo": elbo}
        copies = {k: self.copies([(1.0, q, log_w)], k) for k in sorted({*COPIES, *(k - 1 for k in COPIES)} - {1})}
        copies[1] = elbo
        found |= {f"iwae {k}": copies[k] for k in COPIES}
        found |= {f"jvi {k}": k * copies[k] - (k - 1) * copies[k - 1] for k in COPIES}
        for name, power in (("1/2", 0.5), ("1/4", 0.75), ("2", -1.0)):
            found |= {f"renyi_finite {name} {k}": self.copies([(1.0, q, power * log_w)], k) / power for k in COPIES[:2]}
        for name, power in (("2", 2.0), ("3/2", 1.5)):
            found |= {f"cubo_finite {name} {k}": self.copies([(1.0, q, power * log_w)], k) / power for k in COPIES[:2]}
        found |= {f"harmonic_mean {k}": -self.copies([(1.0, self.joint, -self.fit)], k) for k in COPIES[:2]}
        for order in (1, 2, 3):
            series = sum(((1 + log_w) ** n / math.factorial(n) for n in range(order + 1)), np.zeros_like(log_w))
            total = self.mean(q, series)
            if total > 0:
                found[f"perturbative {order}"] = np.log(total) - 1
        rates = [elbo]
        for b in (np.longdouble(1) / 3, np.longdouble(2) / 3, np.longdouble(1)):
            both = np.isfinite(q) & np.isfinite(self.joint)
            path = np.where(both, (1 - b) * q + b * self.joint, self.joint if b == 1 else -np.inf)
            rates.append(self.mean(path, log_w))
        found |= {"tvo_left": sum(rates[:3]) / 3, "tvo_right": sum(rates[1:]) / 3, "eubo": rates[3]}
        return found

    def corrupted(self, most: int = 3) -> dict[str, Array]:
        """With a discrete corruption; SIVI up to K = most."""
        parts = [(np.longdouble(c), law.log(self.z, np)) for c, law in self.model.corruption]
        mixed = sum(c * np.exp(q) for c, q in parts)
        found: dict[str, Array] = {}

        def over(values: Callable[[int], Array]) -> Array:
            return sum(c * self.mean(q, values(i)) for i, (c, q) in enumerate(parts))

        found["marginal_negative_entropy"] = over(lambda i: np.log(mixed))
        found["marginal_elbo"] = found["hvm_optimal"] = over(lambda i: self.joint - np.log(mixed))
        found["hvm_prior"] = found["denoising_coupled"] = over(lambda i: self.joint - parts[i][1])
        found["beta_denoising"] = over(lambda i: self.fit - (parts[i][1] - self.prior) / 2)
        for k in range(1, most + 1):
            for name, own in (("sivi", True), ("sivi_without", False)):
                total = np.longdouble(0)
                for others in itertools.product(parts, repeat=k):
                    chance = np.prod([c for c, _ in others])
                    densities = sum((np.exp(q) for _, q in others), np.zeros_like(self.z))
                    total += chance * over(
                        lambda i, d=densities, own=own, k=k: (
                            self.joint - np.log((d + np.exp(parts[i][1])) / (k + 1) if own else d / k)
                        )
                    )
                found[f"{name} {k}"] = total
        return found

    def corrupted_copies(self) -> dict[str, Array]:
        """DIWAE with a discrete corruption."""
        parts = [(np.longdouble(c), law.log(self.z, np)) for c, law in self.model.corruption]
        found: dict[str, Array] = {}
        for k in COPIES[:2]:
            found[f"diwae_coupled {k}"] = sum(c * self.copies([(1.0, q, self.joint - q)], k) for c, q in parts)
            found[f"diwae_fresh {k}"] = self.copies([(c, q, self.joint - q) for c, q in parts], k)
            found[f"diwae_decoupled {k}"] = sum(
                c * d * self.copies([(1.0, q, self.joint - other)], k) for c, q in parts for d, other in parts
            )
        return found

    def log_evidence(self) -> Array:
        top = self.joint.max()
        return top + np.log((self.w * np.exp(self.joint - top)).sum())


@np.errstate(all="ignore")
def copies_truths(model: OneLatent, copies: bool = True) -> dict[str, Any]:
    """Every formula on which both orders and both steps agree; those without a finite value are left out.

    Args:
        model: the model.
        copies: whether with a corruption DIWAE, and SIVI of several K, are wanted too.
    """
    found = []
    for order, step in ((30, 0.2), (22, 0.25)):
        sums = Sums(model, order, step)
        each = {"log_evidence": sums.log_evidence()}
        if not model.corruption:
            each |= sums.plain()
        else:
            each |= sums.corrupted() | sums.corrupted_copies() if copies else sums.corrupted(most=1)
        found.append(each)
    fine, coarse = found
    return {
        name: _exact(value)
        for name, value in fine.items()
        if name in coarse and abs(value - coarse[name]) < 10.0**-FEWEST_DIGITS * max(1, abs(value)) / 4
    }


def _exact(value: Any) -> Any:
    """An extended float as an mpf, all of its digits."""
    from mpmath import mp, mpf

    with mp.workdps(40):
        high = float(value)
        return mpf(high) + mpf(float(value - np.longdouble(high)))


__all__ = ["COPIES", "FEWEST_DIGITS", "Sums", "copies_truths", "log_mean_of_copies", "of_tuples"]
