"""What a Gauss rule cannot see, told from the form of a formula and from the densities at the rule's nodes.

A Gauss rule is as good as the integrand is smooth and as its mass lies where the nodes are. Rules of several sizes
that agree do not prove either: they may all miss the same spike, halve the same step, or end before the same tail.
So three things are looked for apart from the numbers: a peak or a step between neighbouring nodes, a law that bends
or jumps where the rule is not split, and an exponential that may grow faster than the law under it falls.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from boundcheck.evaluators.gauss_hermite_rules import Array
from boundcheck.language.laws import DensityLaw, ModelLaw, expand
from boundcheck.language.positions import nonnegative
from boundcheck.language.terms import Apply, Const, Expect, Integrate, LogDensity, Reduce, Term, Var, walk
from boundcheck.models.densities import (
    BernoulliLogit,
    Binomial,
    Density,
    Laplace,
    Logistic,
    Mixture,
    StudentT,
    Uniform,
)

HIDDEN_PEAK = 10.0
"""Nats by which a log-concave density may rise between two neighbouring nodes before the rule counts as too coarse."""
SHARP_CORNER, NEAR_THE_TOP = 4.0, 30.0
"""Nats by which a log-density may bend at a node that is not as far below its top as that."""


# --- between the nodes ---------------------------------------------------------------------------------------------


def hides_a_peak(logs: Array, corners: bool) -> bool:
    """Whether lines through the nodes on either side of a gap meet far above it, as they do over a missed peak.

    A log-concave density stays below those lines, so that it has no high peak where they do not.
    """
    left, right = logs[1:-2] - logs[:-3], logs[2:-1] - logs[3:]  # how steeply it rises towards the gap
    meet = (logs[2:-1] - logs[1:-2] + right) / (left + right)
    height = logs[1:-2] + left * meet
    excess = height - np.maximum(logs[1:-2], logs[2:-1])
    if np.any((left > 0) & (right > 0) & (meet > 0) & (meet < 1) & (excess > HIDDEN_PEAK)):
        return True
    if not corners:
        return False
    # A step has no peak, but where between two nodes it is they cannot see: a sharp corner, not far below the top.
    bend = 2 * logs[1:-1] - logs[:-2] - logs[2:]
    near = np.maximum(logs[:-2], logs[2:]) > np.max(logs, axis=0) - NEAR_THE_TOP
    return bool(np.any((bend > SHARP_CORNER) & near))


UNSEEN_TURN, COUNTS = np.pi, -40.0
"""How far apart neighbouring nodes may be around a turn, and the least log-weight of a node that counts."""


def turning_argument(density: Density, v: Any) -> Any:
    """The argument t of a log-density that turns at t = 0 and is singular at t = i pi and -i pi; None for others.

    softplus(t) = log(1 + exp t) for the logit of a Bernoulli, t = (v - location) / scale for a Logistic law; Student's
    log(1 + s^2 / freedom) is singular at s = i sqrt(freedom), to which it is scaled.
    """
    if isinstance(density, BernoulliLogit | Binomial):
        return _floats(density.logit)
    if isinstance(density, Logistic):
        return (_floats(v) - _floats(density.location)) / _floats(density.scale)
    if isinstance(density, StudentT):
        s = (_floats(v) - _floats(density.location)) / _floats(density.scale)
        return np.pi * s / np.sqrt(_floats(density.freedom))
    return None


def turns_unseen(argument: Array, log_weights: Array) -> bool:
    """Whether an argument passes zero between two nodes that are too far apart for a turn within a few units of it."""
    before, after = argument[:-1], argument[1:]
    heavy = np.maximum(log_weights[:-1], log_weights[1:]) > COUNTS
    heavy = heavy.reshape(-1, *(1,) * (argument.ndim - 1))
    return bool(np.any((before * after <= 0) & (np.abs(after - before) > UNSEEN_TURN) & heavy))


# --- bends and jumps -----------------------------------------------------------------------------------------------


def rough_parts(density: Density, drawn: Density | None) -> Iterator[Density]:
    """The parts of a law that bend or jump at points where the nodes of its argument are not split.

    Args:
        density: a law whose density is taken at a point.
        drawn: the law whose rule put the point on nodes; None for what is not on nodes.
    """
    if isinstance(density, Mixture):
        for component in density.components:
            yield from rough_parts(component, drawn)
    elif isinstance(density, Laplace):
        # The rule of a Laplace law is split at its own bend.
        if not (isinstance(drawn, Laplace) and _equal(drawn.location, density.location)):
            yield density
    elif isinstance(density, Uniform):
        inside = (
            isinstance(drawn, Uniform)
            and np.all(_floats(density.lower) <= _floats(drawn.lower))
            and np.all(_floats(drawn.upper) <= _floats(density.upper))
        )
        if not inside:
            yield density
    elif not density.discrete and (len(density.kinks()) or density.interval() != (None, None)):
        yield density


def _equal(a: Any, b: Any) -> bool:
    a, b = _floats(a), _floats(b)
    return a.shape == b.shape and bool(np.all(a == b))


def _floats(value: Any) -> Array:
    return np.asarray(value, dtype=float)


# --- exponentials that may diverge ---------------------------------------------------------------------------------

Exponent: TypeAlias = dict[Term, Fraction]
"""log f as a weighted sum of log-densities, and of other terms of which nothing is known."""


def may_diverge(term: Term) -> bool:
    """Whether an integral of an exponential in a formula may be infinite, or have its mass far from every node.

    A product of densities to powers >= 0, one of them that of the law under it, is bounded and falls with that law.
    With a power below zero, as in E_q w^2 = integral p^2 / q, it depends on which tail is heavier.

    >>> from boundcheck.catalogue.objectives import cubo, log_evidence, renyi
    >>> from boundcheck.language import trace
    >>> [may_diverge(trace(log_evidence)), may_diverge(trace(renyi, alpha="1/2")), may_diverge(trace(cubo, n=2))]
    [False, False, True]
    """
    return any(_integral_may_diverge(sub) for sub in walk(term))


def _integral_may_diverge(term: Term) -> bool:
    if isinstance(term, Expect | LogDensity) and isinstance(term.law, DensityLaw):
        law = term.law
        if _doubtful(_linear(law.log_density, Fraction(1), law.var), law.var) or may_diverge(law.log_density):
            return True
    if not (isinstance(term, Expect | Integrate) and nonnegative(term.body)):
        return False
    exponents = _logarithm(term.body, Fraction(1), term.var)
    if isinstance(term, Expect):
        exponents = _joined(exponents, _linear(term.log_density, Fraction(1), term.var))
    return term.var.space.bounds is None and _doubtful(exponents, term.var)


def _doubtful(alternatives: list[Exponent], var: Var) -> bool:
    return any(
        weight < 0 or not isinstance(part, LogDensity)
        for exponent in alternatives
        for part, weight in exponent.items()
        if weight and var in part.free
    )


def _joined(first: list[Exponent], second: list[Exponent]) -> list[Exponent]:
    """The exponents of a product of sums."""
    return [{part: a.get(part, Fraction(0)) + b.get(part, Fraction(0)) for part in {**a, **b}} for a in first
            for b in second]  # fmt: skip


def _logarithm(term: Term, weight: Fraction, var: Var) -> list[Exponent]:
    """weight * log(term), for a term that is not negative: the exponents of the summands of a sum."""
    if var not in term.free:
        return [{}]
    if isinstance(term, Expect | Integrate | Reduce) and nonnegative(term.body):
        return _logarithm(term.body, weight, var)
    if isinstance(term, Apply) and term.op == "exp":
        return _linear(term.args[0], weight, var)
    if isinstance(term, Apply) and term.op == "mul" and all(nonnegative(arg) for arg in term.args):
        joined: list[Exponent] = [{}]
        for arg in term.args:
            joined = _joined(joined, _logarithm(arg, weight, var))
        return joined
    if isinstance(term, Apply) and term.op in ("add", "max") and all(nonnegative(arg) for arg in term.args):
        return [exponent for arg in term.args for exponent in _logarithm(arg, weight, var)]
    if isinstance(term, Apply) and term.op == "pow" and nonnegative(term.args[0]):
        assert isinstance(term.args[1], Const)
        return _logarithm(term.args[0], weight * term.args[1].value, var)
    return [{term: weight}]


def _linear(term: Term, weight: Fraction, var: Var) -> list[Exponent]:
    """weight * term, for any term."""
    if var not in term.free:
        return [{}]
    if isinstance(term, LogDensity):
        if isinstance(term.law, ModelLaw):
            if term.law.role != "joint":
                return [{term: weight}]
            x, z = term.point
            return [
                {LogDensity(ModelLaw("prior"), (z,)): weight, LogDensity(ModelLaw("likelihood", (z,)), (x,)): weight}
            ]
        return _linear(expand(term), weight, var)
    if isinstance(term, Expect) or (isinstance(term, Reduce) and term.op == "mean"):
        return _linear(term.body, weight, var)
    if isinstance(term, Apply) and term.op == "add":
        joined: list[Exponent] = [{}]
        for arg in term.args:
            joined = _joined(joined, _linear(arg, weight, var))
        return joined
    if isinstance(term, Apply) and term.op == "mul":
        constants = [arg for arg in term.args if isinstance(arg, Const)]
        rest = [arg for arg in term.args if not isinstance(arg, Const)]
        if len(constants) == 1 and len(rest) == 1:
            return _linear(rest[0], weight * constants[0].value, var)
    if isinstance(term, Apply) and term.op == "log" and nonnegative(term.args[0]):
        return _logarithm(term.args[0], weight, var)
    return [{term: weight}]


__all__ = ["hides_a_peak", "may_diverge", "rough_parts", "turning_argument", "turns_unseen"]
