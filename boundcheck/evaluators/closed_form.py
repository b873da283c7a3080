"""The closed-form evaluator: any formula on a linear-Gaussian model whose terms stay quadratic.

Log-densities of the model are quadratic in the variables; so are sums of quadratics, expectations of them, and the
logarithm of an integral or expectation of the exponential of one. So the oracle for Monte Carlo needs no sampling and
works in any dimension. An integral that diverges is +inf, exactly when its exponent has no maximum; where rounding
leaves that open, small models are evaluated again in rationals, and large ones are refused.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boundcheck.errors import BadInput, CannotCompute, UndefinedValue
from boundcheck.evaluators.quadratic import OutOfRange, WithinRounding
from boundcheck.evaluators.quadratic_walk import NAME, QuadraticWalk
from boundcheck.evaluators.values import Approximate, Enclosure
from boundcheck.language.build import Formula, trace
from boundcheck.language.terms import Term
from boundcheck.models.linear_gaussian import LARGEST, LinearGaussianModel

if TYPE_CHECKING:
    from boundcheck.evaluators.tracked import Floating

LARGEST_RATIONAL = 12
"""Models of at most so many dimensions are evaluated in rationals where float64 is not enough."""

_RATIONAL_BITS = 512

_REASONS = {
    WithinRounding: "rounding leaves open whether an integral in it is finite; move the model off that boundary",
    OutOfRange: "a number on the way leaves the range of float64; rescale the model or x",
}


def evaluate(formula: Formula | Term, model: LinearGaussianModel, x: ArrayLike, **parameters: Any) -> Approximate:
    """The value of a formula on a linear-Gaussian model, in nats, in closed form.

    Args:
        formula: a function of (m, x, **parameters), or a term.
        model: the model.
        x: the observation, of shape (dimension of x,), or a number if x has one component.
        **parameters: the formula's own.

    Returns:
        The value with an estimate of its rounding error. An integral that diverges is inf with error 0.

    Raises:
        BadInput: an x of the wrong shape; a law that the model lacks; an improper law (for example a posterior of a
            log-density with no maximum).
        CannotCompute: a term that does not stay quadratic, such as the logarithm of a mean over several copies; or a
            model of more than `LARGEST_RATIONAL` dimensions on which rounding leaves open whether an integral exists.
        UndefinedValue: the value is inf - inf, or the logarithm of a negative number.

    >>> from boundcheck.catalogue.objectives import cubo, elbo, log_evidence
    >>> model = LinearGaussianModel(prior=(0, 1), likelihood=(1, 0, 1), encoder=(0.5, 0, 0.25))
    >>> for objective in (elbo, log_evidence):
    ...     print(f"{evaluate(objective, model, 1.0).value:.6f}")
    -1.612086
    -1.515512

    The chi upper bound needs an encoder with tails that are heavy enough; N(0.5, 0.25) is is just too narrow:

    >>> evaluate(cubo, model, 1.0, n=2).value
    inf
    """
    (result,) = _evaluate(formula, model, _observations(model, x, batch=False), parameters)
    return result


def evaluate_each(
    formula: Formula | Term, model: LinearGaussianModel, x: ArrayLike, **parameters: Any
) -> list[Approximate]:
    """The value of a formula at each of n observations, x of shape (n, dimension of x); otherwise as `evaluate`.

    >>> from boundcheck.catalogue.objectives import log_evidence
    >>> model = LinearGaussianModel.ppca([[1.0], [2.0]], sigma=0.5)
    >>> [round(value.value, 6) for value in evaluate_each(log_evidence, model, [[0.3, -0.1], [1.0, 2.0]])]
    [-2.170034, -2.450034]
    """
    return _evaluate(formula, model, _observations(model, x, batch=True), parameters)


def enclose(formula: Formula | Term, model: LinearGaussianModel, x: ArrayLike, **parameters: Any) -> Enclosure:
    """An interval that contains the value of a formula, in nats: curvatures in rationals, logarithms in balls.

    Floats of the model and of x are read as the decimals that they print as.

    Raises:
        CannotCompute: as `evaluate`, or a model of more than `LARGEST_RATIONAL` dimensions.
        UndefinedValue: the value is inf - inf, or the logarithm of a negative number.

    >>> from boundcheck.catalogue.objectives import log_evidence
    >>> model = LinearGaussianModel(prior=(0, 1), likelihood=(1, 0, 1), encoder=(0.5, 0, 0.25))
    >>> print(enclose(log_evidence, model, 1.0))
    [-1.51551212348 +/- 4.65e-12]
    """
    import flint

    from boundcheck.evaluators.rational_quadratic import Rationals

    term = trace(formula, **parameters)
    rows = _observations(model, x, batch=False)
    if not _is_small(model):
        raise CannotCompute(NAME, term.text, f"enclosures are for models of at most {LARGEST_RATIONAL} dimensions")
    with flint.ctx.workprec(_RATIONAL_BITS):
        try:
            (value,) = np.broadcast_to(QuadraticWalk(model, rows, Rationals()).number(term, term), 1)
        except (WithinRounding, OutOfRange) as reason:
            raise CannotCompute(NAME, term.text, _REASONS[type(reason)]) from None
        ball = flint.arb(value)
    if ball.is_nan():
        raise UndefinedValue(term.text, f"x = {np.array2string(rows[0], threshold=6)}")
    return Enclosure(ball)


def _evaluate(
    formula: Formula | Term, model: LinearGaussianModel, rows: NDArray[np.float64], parameters: dict[str, Any]
) -> list[Approximate]:
    from boundcheck.evaluators.tracked import Floating

    term = trace(formula, **parameters)
    try:
        results = _in_floats(term, model, rows, Floating())
        doubtful = any(not r.error <= 1e-6 * max(1.0, abs(r.value)) for r in results if not math.isnan(r.value))
    except (WithinRounding, OutOfRange) as reason:
        if not _is_small(model):
            raise CannotCompute(NAME, term.text, _REASONS[type(reason)]) from None
        results, doubtful = [], True
    if doubtful and _is_small(model):
        results = _in_rationals(term, model, rows)
    for row, result in zip(rows, results, strict=True):
        if math.isnan(result.value):
            raise UndefinedValue(term.text, f"x = {np.array2string(row, threshold=6)}")
    return results


def _observations(model: LinearGaussianModel, x: ArrayLike, batch: bool) -> NDArray[np.float64]:
    """x as rows."""
    if not isinstance(model, LinearGaussianModel):
        raise BadInput("model", model, "a LinearGaussianModel", "use another evaluator for other models")
    size = model.data_dimension
    wanted = f"shape (n, {size})" if batch else f"shape ({size},)"
    try:
        if np.iscomplexobj(x):
            raise TypeError
        rows = np.array(x, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise BadInput("x", x, f"numbers of {wanted}") from None
    if rows.ndim == 0 and not batch:
        rows = rows.reshape(1)
    if rows.ndim != 1 + batch or rows.shape[-1] != size or not rows.size:
        remedy = "use evaluate for one observation" if batch else "use evaluate_each for several observations"
        raise BadInput("the shape of x", rows.shape, wanted, remedy)
    bad = ~(np.abs(rows) <= LARGEST)
    if bad.any():
        raise BadInput("x", float(rows[bad][0]), f"finite numbers of magnitude at most {LARGEST:g}")
    return np.atleast_2d(rows)


def _is_small(model: LinearGaussianModel) -> bool:
    return max(model.latent_dimension, model.data_dimension) <= LARGEST_RATIONAL


def _in_floats(
    term: Term, model: LinearGaussianModel, rows: NDArray[np.float64], numbers: Floating
) -> list[Approximate]:
    from boundcheck.evaluators.tracked import UNIT

    constant = QuadraticWalk(model, rows, numbers).number(term, term)
    values = np.broadcast_to(constant.value, len(rows))
    errors = np.broadcast_to(UNIT * constant.mass, len(rows))
    return [_approximate(float(v), float(e)) for v, e in zip(values, errors, strict=True)]


def _in_rationals(term: Term, model: LinearGaussianModel, rows: NDArray[np.float64]) -> list[Approximate]:
    import flint

    from boundcheck.evaluators.rational_quadratic import Rationals, enclosed

    with flint.ctx.workprec(_RATIONAL_BITS):
        try:
            constant = QuadraticWalk(model, rows, Rationals()).number(term, term)
            return [_approximate(*enclosed(v)) for v in np.broadcast_to(constant, len(rows))]
        except (WithinRounding, OutOfRange) as reason:
            raise CannotCompute(NAME, term.text, _REASONS[type(reason)]) from None


def _approximate(value: float, error: float) -> Approximate:
    return Approximate(value, 0.0 if math.isinf(value) else error)


__all__ = ["LARGEST_RATIONAL", "enclose", "evaluate", "evaluate_each"]
