"""The value of a formula with the strongest guarantee that is to be had.

Exact arithmetic comes first. What leaves it is enclosed. Only tables that are themselves floating-point numbers are
evaluated in floating point. The type of the result says which it was.
"""

from __future__ import annotations

from typing import Any

from boundcheck.errors import BadInput, CannotComputeExactly
from boundcheck.evaluators.values import Value
from boundcheck.language.build import Formula, trace
from boundcheck.language.terms import Term
from boundcheck.models.finite import FiniteModel

FIRST_PRECISION = 64
"""Bits at which enclosures start."""


def value_of(term: Term, model: FiniteModel, x: int, precision: int = FIRST_PRECISION) -> Value:
    """The strongest value that is to be had: exact, else an enclosure, else (for tables of floats) a float.

    Raises:
        UndefinedValue: the formula is inf - inf on this model.
        CannotCompute: no evaluator can compute the formula.
    """
    from boundcheck.evaluators import enclosure, exact, floating

    if not model.is_exact():
        return floating.evaluate(term, model, x)
    try:
        return exact.evaluate(term, model, x)
    except CannotComputeExactly:
        return enclosure.evaluate(term, model, x, precision=precision)


def evaluate(formula: Formula | Term, model: FiniteModel, x: int = 0, **parameters: Any) -> Value:
    """The value of a formula on a model, in nats: exact if possible, else an enclosure, else a float with its error.

    Args:
        formula: a function of (m, x, **parameters), or a term.
        model: the finite model.
        x: the number of the observed state.
        **parameters: the formula's own.

    Returns:
        An `Exact`, an `Enclosure`, or (for a model too large to keep exactly) an `Approximate`.

    Raises:
        BadInput: an observation that the model does not have, or a table that it lacks.
        FormulaError: the formula misuses the language.
        UndefinedValue: the value is inf - inf.
        CannotCompute: no evaluator can compute the formula.

    The counterexample of Tran & Ranganath (2015) to a formula of Im et al. (2015, arXiv:1511.06406):

    >>> from boundcheck import FiniteModel
    >>> from boundcheck.catalogue.objectives import denoising_decoupled, renyi
    >>> model = FiniteModel(
    ...     prior=["1/2", "1/2"], likelihood=[[1], [1]], corruption=[["1/2", "1/2"]], encoder=[[0.1, 0.9], [0.9, 0.1]]
    ... )
    >>> print(evaluate(denoising_decoupled, model))
    log(5/3)
    >>> clean = FiniteModel(prior=["1/2", "1/2"], likelihood=[[1], [1]], encoder=[[0.1, 0.9]])
    >>> print(evaluate(renyi, clean, alpha="1/2"))
    -log(5/4)
    """
    if isinstance(x, bool) or not isinstance(x, int) or not 0 <= x < model.sizes["x"]:
        raise BadInput("x", x, f"the number of an observed state, 0 to {model.sizes['x'] - 1}")
    return value_of(trace(formula, **parameters), model, x)


__all__ = ["FIRST_PRECISION", "evaluate", "value_of"]
