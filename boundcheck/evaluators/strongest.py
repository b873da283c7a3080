"""The value of a formula with the strongest guarantee that is to be had.

On tables exact arithmetic comes first, and what leaves it is enclosed. On continuous models integrals are certified
where that can be done, and else computed by quadrature: fixed rules for normal draws, adaptive panels for others. The
type of the result says which it was.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from boundcheck.errors import BadInput, CannotCompute, CannotComputeExactly
from boundcheck.evaluators.black_box import BlackBox
from boundcheck.evaluators.values import Approximate, Value
from boundcheck.language.build import Formula, trace
from boundcheck.language.terms import Term
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.finite import FiniteModel
from boundcheck.models.linear_gaussian import LinearGaussianModel

FIRST_PRECISION = 64
"""Bits at which enclosures start."""

GAUSS_NODES, GAUSS_ERROR = (16, 32), 1e-8
"""How many nodes fixed Gauss rules are tried with, and the error, in nats or relative, at which they are believed."""


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
    from boundcheck.evaluators import integration

    try:
        return integration.evaluate(term, model, x, precision=precision)
    except CannotCompute:
        return _by_quadrature(term, model, x)


def _by_quadrature(term: Term, model: ContinuousModel, x: Any) -> Value:
    """Fixed Gauss rules where all draws are normal and the rules agree, else adaptive quadrature.

    The fixed rules take hundredths of a second where adaptive panels nest in three dimensions and take seconds, and
    they go on where those end; but only the panels find what is narrow or bends.
    """
    from boundcheck.evaluators import quadrature

    normal = _draws_are_normal(model, x)
    fixed = _by_gauss_rules(term, model, x, GAUSS_NODES) if normal else None
    if fixed is not None and fixed.error <= GAUSS_ERROR * max(1.0, abs(fixed.value)):
        return fixed
    try:
        return quadrature.evaluate(term, model, x)
    except CannotCompute:
        fixed = fixed if normal else _by_gauss_rules(term, model, x, GAUSS_NODES[:1])
        if fixed is None:
            raise
        return fixed


def _by_gauss_rules(term: Term, model: ContinuousModel, x: Any, sizes: tuple[int, ...]) -> Approximate | None:
    """The value of the smallest rules that are believed, else of the largest that can tell, else None."""
    from boundcheck.evaluators import gauss_hermite

    found: Approximate | None = None
    for nodes in sizes:
        try:
            value = gauss_hermite.evaluate(term, model, x, nodes=nodes)
        except CannotCompute:
            break
        if math.isfinite(value.error):
            found = value
            if value.error <= GAUSS_ERROR * max(1.0, abs(value.value)):
                break
    return found


def _draws_are_normal(model: ContinuousModel, x: Any) -> bool:
    """Whether prior, encoder and corruption, as far as there are any, are normal or finite laws, at x."""
    from boundcheck.models.densities import Discrete, Normal

    point = x[0] if isinstance(x, list | tuple) and len(x) == 1 else x
    given = [role for role in ("prior", "encoder", "corruption") if getattr(model, role) is not None]
    laws = [law for role in given for law in model.law(role, () if role == "prior" else (point,))]
    return all(isinstance(law, Normal | Discrete) for law in laws)


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
