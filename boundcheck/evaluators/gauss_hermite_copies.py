"""The expected logarithm of a sum over many independent copies, from one copy on the nodes of its rule.

K copies on a grid are multisets of its nodes, which are too many in two or three dimensions. But with

    log s = integral over u of ( exp(-e^u) - exp(-e^u s) )

the copies, being independent, come apart: E log(a_1 + ... + a_K) is one integral over u of the K-th power of the mean
of exp(-e^u a) over the nodes. The integrand is analytic for |Im u| < pi/2 and dies out at both ends, so the
trapezoidal rule with steps of 1/4 is exact to rounding.
"""

from __future__ import annotations

import numpy as np

from boundcheck.evaluators.gauss_hermite_rules import Array
from boundcheck.language.terms import Apply, Const, Expect, Plate, Reduce, Term, multiply

_STEP = 0.25
_LEFT, _RIGHT = -40.0, 4.5
"""Beyond these, e^u is below rounding, and exp(-e^u) is."""
_NO_WEIGHT = -80.0
"""log-weights below this, relative to all, are left out of the range of u."""


def log_of_copies(term: Expect) -> tuple[float, Reduce, Plate] | None:
    """(c, r, plate) if the body is c log r, with r a mean or sum over the term's own copies; else None."""
    body: Term = term.body
    constant = 1.0
    if isinstance(body, Apply) and body.op == "mul" and isinstance(body.args[0], Const):
        constant, body = float(body.args[0].value), multiply(*body.args[1:])
    if not (isinstance(body, Apply) and body.op == "log" and isinstance(body.args[0], Reduce)):
        return None
    reduction = body.args[0]
    if term.var.plates != (reduction.plate,) or reduction.op not in ("mean", "sum"):
        return None
    return constant, reduction, reduction.plate


def expected_log_sum(log_weight: Array, log_a: Array, k: int) -> Array:
    """E log(a_1 + ... + a_k) for independent copies with a = exp(log_a) of probability exp(log_weight), in nats.

    Args:
        log_weight: of shape (nodes, *outer), or what broadcasts with it; probabilities sum to one over the nodes.
        log_a: likewise; where a copy may be zero, all of them may, and the result is -inf.
        k: how many copies.

    >>> half = np.log(np.array([0.5, 0.5]))
    >>> exact = np.log(2) / 4 + np.log(4) / 2 + np.log(6) / 4
    >>> bool(abs(expected_log_sum(half, np.log(np.array([1.0, 3.0])), 2) - exact) < 1e-13)
    True
    """
    log_weight, log_a = np.broadcast_arrays(log_weight, log_a)
    log_weight = log_weight - np.logaddexp.reduce(log_weight, axis=0)
    center = np.logaddexp.reduce(log_weight + log_a, axis=0)  # log E a
    shifted = log_a - center
    seen = np.isfinite(shifted) & (log_weight > _NO_WEIGHT)
    high = float(np.max(shifted, where=seen, initial=0.0)) + np.log(k)
    low = float(np.min(shifted, where=seen, initial=0.0))
    total = np.zeros(log_a.shape[1:])
    weight = np.exp(log_weight)
    with np.errstate(divide="ignore"):  # where no copy is left, the power is exp(-inf)
        for u in np.arange(_LEFT - max(0.0, high), _RIGHT - min(0.0, low) + _STEP, _STEP):
            gone = np.sum(weight * -np.expm1(-np.exp(np.minimum(u + shifted, 700.0))), axis=0)  # 1 - E exp(-e^u a)
            power = np.exp(k * np.log1p(-np.minimum(gone, 1.0)))
            total += np.exp(-np.exp(min(u, 700.0))) - power
    lost = np.any(np.isneginf(log_a) & (log_weight > -np.inf), axis=0)  # all copies may be zero, and log 0 counts
    return np.where(lost, -np.inf, center + _STEP * total)


__all__ = ["expected_log_sum", "log_of_copies"]
