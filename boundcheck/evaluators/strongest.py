"""The value of a formula with the strongest guarantee that is to be had.

On tables exact arithmetic comes first, and what leaves it is enclosed. On continuous models integrals are certified
where that can be done, and else computed by quadrature. The type of the result says which it was.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from boundcheck.errors import BadInput, CannotCompute, CannotComputeExactly
from boundcheck.evaluators.black_box import BlackBox
from boundcheck.evaluators.values import Value
from boundcheck.language.build import Formula, trace
from boundcheck.language.terms import Term
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.finite import FiniteModel
from boundcheck.models.linear_gaussian import LinearGaussianModel

FIRST_PRECISION = 64
"""Bits at which enclosures start."""


Model: TypeAlias = FiniteModel | LinearGaussianModel | ContinuousModel
"""What `evaluate` and `check` take."""


def value_of(term: Term | BlackBox, model: Model, x: Any, precision: int = FIRST_PRECISION) -> Value:
    """The strongest value that is to be had: exact, else an enclosure, else a float with an error estimate.

    Raises:
        UndefinedValue: the formula is inf - inf on this model.
        CannotCompute: no evaluator can compute the formula.
        ObjectiveFailed: a black box that gives no number on this model.
    """
    if isinstance(term, BlackBox):
        return term.value(model, x)
    if isinstance(model, FiniteModel):
        return _on_tables(term, model, x, precision)
    if isinstance(model, LinearGaussianModel):
        return _on_linear_gaussian(term, model, x)
    from boundcheck.evaluators import integration, quadrature

    try:
        return integration.evaluate(term, model, x, precision=precision)
    except CannotCompute:
        return quadrature.evaluate(term, model, x)


def _on_linear_gaussian(term: Term, model: LinearGaussianModel, x: Any) -> Value:
    from boundcheck.evaluators import closed_form, gaussian_pairs

    if max(model.latent_dimension, model.data_dimension) > closed_form.LARGEST_RATIONAL:
        return closed_form.evaluate(term, model, x)
    try:
        return closed_form.enclose(term, model, x)
    except CannotCompute as refused:
        try:
            return gaussian_pairs.enclose(term, model, x)
        except CannotCompute:
            raise refused from None


def _on_tables(term: Term, model: FiniteModel, x: int, precision: int) -> Value:
    from boundcheck.evaluators import enclosure, exact, floating

    if not model.is_exact():
        return floating.evaluate(term, model, x)
    try:
        return exact.evaluate(term, model, x)
    except CannotComputeExactly:
        return enclosure.evaluate(term, model, x, precision=precision)


def evaluate(formula: Formula | Term | BlackBox, model: Model, x: Any = 0, **parameters: Any) -> Value:
    """The value of a formula on a model, in nats: exact if possible, else an enclosure, else a float with its error.

    Args:
        formula: a function of (m, x, **parameters), a term, or a black box.
        model: a finite, a continuous, or a linear-Gaussian model.
        x: the number of the observed state of a finite model; else the observation, a number or a tuple.
        **parameters: the formula's own.

    Returns:
        An `Exact`, an `Enclosure`, or (for a model too large to keep exactly, or an integral that cannot be certified)
        an `Approximate`.

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
    require_observation(model, x)
    if isinstance(formula, BlackBox):
        if parameters:
            raise BadInput("parameters", parameters, "none for a black box", "wrap functools.partial(function, ...)")
        return value_of(formula, model, x)
    return value_of(trace(formula, **parameters), model, x)


def require_observation(model: Model, x: Any) -> None:
    """Refuse what is no observation of the model.

    Raises:
        BadInput: x is not the number of an observed state of a finite model. Other models check x themselves.
    """
    if not isinstance(model, Model):
        raise BadInput("model", model, "a finite, a continuous, or a linear-Gaussian model")
    if isinstance(model, FiniteModel) and (
        isinstance(x, bool) or not isinstance(x, int) or not 0 <= x < model.sizes["x"]
    ):
        raise BadInput("x", x, f"the number of an observed state, 0 to {model.sizes['x'] - 1}")


__all__ = ["FIRST_PRECISION", "Model", "evaluate", "require_observation", "value_of"]
