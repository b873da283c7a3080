"""Fixed Gauss rules on tensor grids: an evaluator of continuous models that shares no code with adaptive quadrature.

A variable brings the nodes of its law's own Gauss rule, placed by the law's parameters where those depend on outer
variables, and a formula is evaluated on the whole grid at once (`gauss_hermite_grid`). A Gauss rule has no error
estimate of its own. The formula is therefore evaluated with rules of five sizes, and once more without the outermost
nodes, and 16 times the largest difference is the estimate. Where they do not agree, where something may hide between
or beyond the nodes (`gauss_hermite_doubts`), or where an integral may diverge, the error is infinite: the rule cannot
tell.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from boundcheck.errors import BadInput, CannotCompute
from boundcheck.evaluators.gauss_hermite_axes import Point
from boundcheck.evaluators.gauss_hermite_doubts import may_diverge
from boundcheck.evaluators.gauss_hermite_grid import Grid
from boundcheck.evaluators.gauss_hermite_rules import NAME
from boundcheck.evaluators.gauss_hermite_watch import FEWEST_NODES
from boundcheck.evaluators.values import Approximate
from boundcheck.language.build import Formula, trace
from boundcheck.language.laws import DensityLaw
from boundcheck.language.terms import Expect, Integrate, LogDensity, Term, walk
from boundcheck.models.continuous import ContinuousModel

__all__ = ["evaluate"]

MOST_NODES = 512

FACTOR = 16.0
AGREEMENT = 1e-3
ROUNDING = 256 * 2.0**-52


def evaluate(
    formula: Formula | Term,
    model: ContinuousModel,
    x: Any,
    *,
    nodes: int = 32,
    base: Literal["prior", "encoder"] = "prior",
    **parameters: Any,
) -> Approximate:
    """The value of a formula on a continuous model, in nats, by Gauss rules on a tensor grid.

    E_{v ~ law} f(v) = sum_i w_i f(v_i) with the Gauss rule of the law (Golub & Welsch 1969): Hermite for Normal laws,
    v_i = mean + scale t_i; Laguerre on both sides for Laplace; the polynomials of the logistic density for Logistic
    (Gautschi 2004); Legendre for Uniform; sums for finite discrete laws. An integral over z takes a law as its base
    measure, integral g = sum_i w_i g(v_i) / base(v_i). K copies are multisets of the nodes, with multinomial weights,
    and where these are too many, the logarithm of a mean of copies is one integral more (`gauss_hermite_copies`).

    Args:
        formula: a function of (m, x, **parameters), or a term.
        model: the model.
        x: the observed value: a number, or a tuple of numbers.
        nodes: nodes for each component, 4 to 512; the value is that of twice as many.
        base: the law whose nodes integrals over z and posteriors use, the prior or the encoder at x.
        **parameters: the formula's own.

    Returns:
        The value and an estimate of its error: 16 times the largest difference to the rules of 1, 5/4, 3/2 and 7/4
        times `nodes`, to the rule without its outermost nodes, and (if the encoder is the base) to that on the
        prior's nodes; and rounding. It is infinite where these differ by more than a thousandth, where a value is
        infinite, where a density may have a peak or a step between neighbouring nodes, where a law bends or jumps
        (Laplace, Uniform) where its own rule is not split, and where an exponential has a density to a negative
        power in it (CUBO, Renyi with alpha > 1), since no nodes tell whether it diverges.

    Raises:
        CannotCompute: a grid that is too large (the message says how large), a law without a rule (Student's t has
            only finitely many moments), an infinite discrete sum, or infinities that cancel at a node.
        BadInput: an argument, or a parameter of the model, that cannot be used.

    >>> from boundcheck.catalogue.objectives import log_evidence
    >>> from boundcheck.models.densities import Normal
    >>> model = ContinuousModel(Normal(0, 1), likelihood=lambda z: Normal(z, 1))
    >>> print(f"{float(evaluate(log_evidence, model, x=0.5)):.9f}")
    -1.328012123
    """
    if isinstance(nodes, bool) or not isinstance(nodes, int) or not FEWEST_NODES <= nodes <= MOST_NODES:
        raise BadInput("nodes", nodes, f"a whole number, {FEWEST_NODES} to {MOST_NODES}", "pass nodes=32")
    if base not in ("prior", "encoder"):
        raise BadInput("base", base, "'prior' or 'encoder'")
    if not isinstance(model, ContinuousModel):
        raise BadInput("model", model, "a continuous model")
    observed, term = _observed(x), trace(formula, **parameters)
    grid = Grid(model, observed, 2 * nodes, base, term)
    with np.errstate(all="ignore"):
        value = float(np.asarray(grid.value(term)))
        if math.isnan(value):
            raise CannotCompute(NAME, term.text, "infinities cancel at a node, so that the sum has no value")
        if grid.hidden or math.isinf(value) or may_diverge(term):
            return Approximate(value, math.inf)
        others = _others(model, observed, nodes, base, term)
        spread = max((abs(value - other) for other in others), default=math.inf)
    if not spread <= AGREEMENT * max(1.0, abs(value)):
        return Approximate(value, math.inf)
    return Approximate(value, FACTOR * spread + ROUNDING * max(1.0, grid.magnitude, abs(value)))


def _others(model: ContinuousModel, x: Point, nodes: int, base: str, term: Term) -> list[float]:
    """The values of other rules, the last one infinite if there is none on the prior's nodes to compare with."""
    sizes = sorted({math.ceil(nodes * quarters / 4) for quarters in (4, 5, 6, 7)})
    grids = [Grid(model, x, size, base, term) for size in sizes]
    grids.append(Grid(model, x, 2 * nodes, base, term, trimmed=True))
    if base != "prior" and any(isinstance(sub, Integrate) or _is_density(sub) for sub in walk(term)):
        grids.append(Grid(model, x, 2 * nodes, "prior", term))
    values = []
    for grid in grids:
        try:
            values.append(float(np.asarray(grid.value(term))))
        except CannotCompute:  # the prior may have no rule where the encoder has one
            values.append(math.inf)
    return [value if not math.isnan(value) and not grid.hidden else math.inf
            for value, grid in zip(values, grids, strict=True)]  # fmt: skip


def _is_density(term: Term) -> bool:
    return isinstance(term, Expect | LogDensity) and isinstance(term.law, DensityLaw)


def _observed(x: Any) -> Point:
    try:
        values = [v if isinstance(v, int) else float(v) for v in (x if isinstance(x, tuple | list) else (x,))]
    except (TypeError, ValueError):
        raise BadInput("x", x, "a number, or a tuple of numbers", "pass the observed value itself") from None
    if not values or not all(math.isfinite(v) for v in values):
        raise BadInput("x", x, "finite numbers", "remove the missing or infinite entries")
    return tuple(values)
