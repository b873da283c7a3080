"""What the oracle says of each objective of the catalogue: plain enumeration, no code shared with the package.

The functions here extend `oracle` in its own style, for the objectives that it does not have. `OBJECTIVES` pairs every
function of `catalogue/objectives.py` that is an objective, with several parameters, with what it must be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import product
from typing import Any

import oracle
from mpmath import mp, mpf
from oracle import Model, at_60_digits, average, draws, log, mean, number, power, ratio, support, weighted_sum

from boundcheck.catalogue import objectives
from boundcheck.language import Term, trace

F = Fraction
Expected = Callable[[Model, int], Any]


@at_60_digits
def marginal_cross_entropy(model: Model, x: int) -> Any:
    """E_{q~} E_{c(xt|x)} log q(z|xt)"""
    row = model.marginal_encoder(x)
    return average((q * c, log(model.encoder[xt][z])) for z, q in support(row) for xt, c in support(model.c_of(x)))


@at_60_digits
def marginal_negative_entropy(model: Model, x: int) -> Any:
    """E_{q~} log q~(z|x)"""
    return average((q, log(q)) for _, q in support(model.marginal_encoder(x)))


@at_60_digits
def vr_max(model: Model, x: int, k: int) -> Any:
    """E max_k log w_k"""
    q = model.q_of(x)
    return average((p, max(log(model.weight(x, z, q[z])) for z in zs)) for zs, p in draws(q, k))


@at_60_digits
def harmonic_mean(model: Model, x: int, k: int) -> Any:
    """-E log mean_k 1/p(x|z_k), z_k from the posterior"""
    return -average(
        (p, log(mean([1 / model.likelihood[z][x] for z in zs]))) for zs, p in draws(oracle.posterior(model, x), k)
    )


@at_60_digits
def beta_denoising(model: Model, x: int, beta: Fraction) -> Any:
    """E_{c(xt|x)}[E_{q(.|xt)} log p(x|z) - beta KL(q(z|xt) || p(z))]"""

    def body(xt: int) -> Any:
        fit = average((q, log(model.likelihood[z][x])) for z, q in support(model.encoder[xt]))
        return weighted_sum([(1, fit), (-number(beta), oracle.kl(model.encoder[xt], model.prior))])

    return average((c, body(xt)) for xt, c in support(model.c_of(x)))


def copied_corruption(model: Model) -> Any:
    """r(xt|z,x) = c(xt|x)"""
    return [[model.c_of(x) for x in range(len(model.likelihood[0]))] for _ in model.prior]


def hvm_with(auxiliary: Callable[[Model], Any], model: Model, x: int) -> Any:
    return oracle.hvm(replace(model, auxiliary=auxiliary(model)), x)


def metropolis_row(model: Model, x: int, z: int, b: Fraction) -> list[Any]:
    """T(.|z): propose z' from q(.|x), accept with min(1, f(z') q(z) / (f(z) q(z'))), f = q^(1-b) p^b; all positive"""
    q = model.q_of(x)

    def f(state: int) -> Any:
        return power(q[state], number(1 - b)) * power(model.joint(x, state), number(b))

    moves = [number(q[new]) * min(1, f(new) * number(q[z]) / (f(z) * number(q[new]))) for new in range(len(q))]
    row = [move if new != z else mpf(0) for new, move in enumerate(moves)]
    row[z] = 1 - sum(row)
    return row


@at_60_digits
def annealing(model: Model, x: int, steps: int, reverse: bool) -> Any:
    """E log w over paths z_0..z_{T-1}, log w = mean_t log w(z_t); backwards from the posterior"""
    q, rows = model.q_of(x), range(len(model.prior))
    start = oracle.posterior(model, x) if reverse else q
    temperatures = [F(t, steps) for t in range(1, steps)]
    if reverse:
        temperatures.reverse()
    kernels = [[metropolis_row(model, x, z, b) for z in rows] for b in temperatures]
    total = mpf(0)
    for path in product(rows, repeat=steps):
        p = number(start[path[0]])
        for kernel, old, new in zip(kernels, path[:-1], path[1:], strict=True):
            p *= kernel[old][new]
        total += p * sum(log(model.weight(x, z, q[z])) for z in path) / steps
    return total


@dataclass(frozen=True)
class Objective:
    """A formula, the oracle's value of it, and what it needs of a model."""

    name: str
    term: Term
    expected: Expected
    clean: bool = False  # reads q(z|x), so that there must be as many x~ as x
    corrupts: bool = False
    auxiliary: bool = False
    positive: bool = False  # the oracle's value is for models without zeros

    def suits(self, model: Model) -> bool:
        positive = all(p > 0 for row in [model.prior, *model.likelihood, *model.encoder] for p in row)
        return (
            (not self.clean or len(model.encoder) == len(model.likelihood[0]))
            and (not self.corrupts or model.corruption is not None)
            and (not self.auxiliary or model.auxiliary is not None)
            and (not self.positive or positive)
        )


def _objective(formula: Any, expected: Any, needs: str = "", **parameters: Any) -> Objective:
    shown = ",".join(f"{key}={value}" for key, value in parameters.items())
    return Objective(
        f"{formula.__name__}({shown})",
        trace(formula, **parameters),
        expected,
        clean="q" in needs,
        corrupts="c" in needs,
        auxiliary="r" in needs,
        positive="+" in needs,
    )


def _all_objectives() -> list[Objective]:
    o = objectives
    found = [
        _objective(o.log_evidence, oracle.log_evidence),
        _objective(o.elbo, oracle.elbo, "q"),
        _objective(o.marginal_elbo, oracle.marginal_elbo, "c"),
        _objective(o.denoising_coupled, oracle.denoising_coupled, "c"),
        _objective(o.denoising_decoupled, oracle.denoising_decoupled, "c"),
        _objective(o.marginal_cross_entropy, marginal_cross_entropy, "c"),
        _objective(o.marginal_negative_entropy, marginal_negative_entropy, "c"),
        _objective(o.dae_criterion, oracle.dae_criterion, "c"),
        _objective(o.reconstruction, oracle.reconstruction, "q"),
        _objective(o.eubo, oracle.eubo, "q"),
        _objective(o.hvm, oracle.hvm, "cr"),
        _objective(o.hvm_prior, partial(hvm_with, copied_corruption), "c"),
        _objective(o.hvm_optimal, partial(hvm_with, oracle.optimal_auxiliary), "c"),
    ]
    for k in (1, 2, 3):
        found += [
            _objective(o.iwae, partial(oracle.iwae, k=k), "q", k=k),
            _objective(o.jvi, partial(oracle.jvi, k=k), "q", k=k),
            _objective(o.vr_max, partial(vr_max, k=k), "q", k=k),
            _objective(o.harmonic_mean, partial(harmonic_mean, k=k), "", k=k),
            _objective(o.diwae_coupled, partial(oracle.diwae_coupled, k=k), "c", k=k),
            _objective(o.diwae_decoupled, partial(oracle.diwae_decoupled, k=k), "c", k=k),
            _objective(o.sivi, partial(oracle.sivi, k=k - 1), "c", k=k - 1),
            _objective(o.sivi_without, partial(oracle.sivi_without, k=k), "c", k=k),
            _objective(o.tvo_left, partial(oracle.tvo_left, s=k), "q", s=k),
            _objective(o.tvo_right, partial(oracle.tvo_right, s=k), "q", s=k),
        ]
    for k in (1, 2):
        found += [
            _objective(o.diwae_fresh, partial(oracle.diwae_fresh, k=k), "c", k=k),
            _objective(o.ais_forward, partial(annealing, steps=k + 1, reverse=False), "q+", steps=k + 1),
            _objective(o.ais_reverse, partial(annealing, steps=k + 1, reverse=True), "q+", steps=k + 1),
        ]
    for alpha in (F(0), F(1, 2), F(1), F(2), F(-1), F(1, 3)):
        found.append(_objective(o.renyi, partial(oracle.renyi, alpha=alpha), "q", alpha=alpha))
        found.append(_objective(o.renyi_finite, partial(oracle.renyi_finite, alpha=alpha, k=2), "q", alpha=alpha, k=2))
    for n in (F(1), F(2), F(3), F(-1), F(3, 2)):
        found.append(_objective(o.cubo, partial(oracle.cubo, n=n), "q", n=n))
        found.append(_objective(o.cubo_finite, partial(oracle.cubo_finite, n=n, k=2), "q", n=n, k=2))
    for order, v0 in [(0, F(0)), (1, F(0)), (2, F(0)), (3, F(0)), (1, F(1, 2)), (3, F(-1)), (4, F(2))]:
        known = partial(oracle.perturbative, order=order, v0=v0)
        found.append(_objective(o.perturbative, known, "q", order=order, v0=v0))
    for beta in (F(0), F(1, 2), F(4)):
        found.append(_objective(o.beta_objective, partial(oracle.beta_objective, beta=beta), "q", beta=beta))
        found.append(_objective(o.beta_denoising, partial(beta_denoising, beta=beta), "c", beta=beta))
    for floor in (F(1, 4), F(0), F(2)):
        found.append(_objective(o.free_bits, partial(oracle.free_bits, lam=floor), "q", floor=floor))
    return found


OBJECTIVES = _all_objectives()
"""Every objective of the catalogue, with several parameters, beside the oracle's value."""

__all__ = ["OBJECTIVES", "Expected", "Objective", "math", "mp", "ratio"]
