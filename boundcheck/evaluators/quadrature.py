"""The quadrature evaluator: formulas on models with one to three continuous latents, in float64, with its error.

An expectation is an integral over a new axis, done by adaptive Gauss-Kronrod panels in log space for all entries of
the axes below at once; many models are one more such axis. K copies under the logarithm of a mean cost one axis,
whatever K is (`quadrature_copies`). The error estimate is an estimate, not a bound: only an enclosure is certified.
It adds up the difference of two rules on every panel, what was left out, the tails and the rounding of every number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, CannotCompute, UndefinedValue
from boundcheck.evaluators.quadrature_copies import NAME, LogOfCopies, simplify
from boundcheck.evaluators.quadrature_frames import Number
from boundcheck.evaluators.quadrature_lines import Index
from boundcheck.evaluators.quadrature_panels import Effort
from boundcheck.evaluators.quadrature_walk import Walk
from boundcheck.evaluators.values import Approximate
from boundcheck.language.build import Formula, trace
from boundcheck.language.laws import ModelLaw
from boundcheck.language.terms import CORRUPTED, OBSERVED, Expect, Integrate, LogDensity, Term, Z
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import Density, Discrete
from boundcheck.models.parameters import far_out

__all__ = ["evaluate", "evaluate_many"]

_MOST_AXES = 3
_MOST_NODES = 60_000_000


def evaluate(
    formula: Formula | Term,
    model: ContinuousModel,
    x: Any,
    *,
    tolerance: float = 1e-10,
    most_nodes: int = _MOST_NODES,
    **parameters: Any,
) -> Approximate:
    """The value of a formula on a continuous model, in nats, by adaptive quadrature.

    Args:
        formula: a function of (m, x, **parameters), or a term.
        model: the model.
        x: the observed value: a number, or a tuple of numbers.
        tolerance: what refinement aims at, in nats; the error that is returned may be larger, and is honest.
        most_nodes: where refinement stops, in nodes of the integrand.
        **parameters: the formula's own.

    Returns:
        The value and an estimate of its absolute error. A divergent integral is an infinite value, without error,
        where the tail of the integrand shows clearly that it grows or falls too slowly.

    Raises:
        CannotCompute: more than three nested continuous variables; a tail that neither clearly converges nor clearly
            diverges; an improper posterior; copies under another function than (the log of) a mean.
        UndefinedValue: the value is inf - inf.
        BadInput: an argument, or a parameter of the model, that cannot be used.

    >>> from boundcheck.catalogue.objectives import log_evidence
    >>> from boundcheck.models.densities import Normal
    >>> model = ContinuousModel(Normal(0, 1), likelihood=lambda z: Normal(z, 1))
    >>> print(f"{float(evaluate(log_evidence, model, x=0.5)):.9f}")
    -1.328012123
    """
    observed = _observed(x)
    number, term = _run(formula, lambda _: model, None, model, observed, tolerance, most_nodes, parameters)
    value, error = float(number.value.reshape(-1)[0]), float(np.reshape(number.error, -1)[0])
    _check(value, error, term, x)
    return Approximate(value, error)


def evaluate_many(
    formula: Formula | Term,
    family: Callable[..., ContinuousModel],
    x: Any,
    of: Mapping[str, Any],
    *,
    tolerance: float = 1e-10,
    most_nodes: int = _MOST_NODES,
    **parameters: Any,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The values of a formula on many models at once, in nats, and their error estimates.

    Args:
        formula: a function of (m, x, **parameters), or a term.
        family: makes a model from its parameters, `family(**of)`. It is called with arrays as long as the nodes of
            the integrand, so it computes with `+ - * /` and `boundcheck.models.arithmetic`.
        x: the observed value, a number or a tuple of numbers, each of which may be an array over the models.
        of: the parameters of the models, arrays of one length, the number of models.
        tolerance: as in `evaluate`.
        most_nodes: as in `evaluate`, for all models together.
        **parameters: the formula's own.

    Returns:
        Values and errors, each of shape (models,). An error of inf says that no value could be told.

    Raises:
        As `evaluate`, but for what concerns a single model's integral, which gets an error of inf.

    >>> from boundcheck.catalogue.objectives import log_evidence
    >>> from boundcheck.models.densities import Normal
    >>> def family(scale):
    ...     return ContinuousModel(Normal(0, 1), likelihood=lambda z: Normal(z, scale))
    >>> values, errors = evaluate_many(log_evidence, family, 0.5, {"scale": np.array([0.5, 1.0, 2.0])})
    >>> print(np.round(values, 6))
    [-1.13051  -1.328012 -1.748657]
    """
    columns = {name: np.asarray(values, dtype=float) for name, values in of.items()}
    lengths = {column.shape for column in columns.values()}
    if len(lengths) != 1 or len(next(iter(lengths))) != 1 or next(iter(lengths))[0] == 0:
        raise BadInput("of", dict(of), "arrays of one length, the number of models", "pass at least one array")
    count = next(iter(lengths))[0]
    observed = tuple(
        np.asarray(v, dtype=float) if np.ndim(v) else v for v in (x if isinstance(x, tuple | list) else (x,))
    )
    if any(np.ndim(v) and np.shape(v) != (count,) for v in observed):
        raise BadInput("x", x, f"numbers, or arrays of {count} values", "give one observation for each model")

    def select(models: Index | None) -> ContinuousModel:
        return family(**(columns if models is None else {name: column[models] for name, column in columns.items()}))

    number, _ = _run(formula, select, count, select(np.arange(count)), observed, tolerance, most_nodes, parameters)
    values = np.broadcast_to(number.value, (count,)).copy()
    errors = np.broadcast_to(number.error, (count,)).copy()
    errors[np.isnan(values)] = np.inf
    return values, errors


def _run(
    formula: Formula | Term, family: Callable[[Index | None], ContinuousModel], count: int | None,
    model: ContinuousModel, x: tuple[Any, ...], tolerance: float, most_nodes: int, parameters: dict[str, Any],
) -> tuple[Number, Term]:  # fmt: skip
    if not 1e-14 <= tolerance <= 0.1:
        raise BadInput("tolerance", tolerance, "a number between 1e-14 and 0.1", "pass tolerance=1e-10")
    _require_sound_parameters(model, x)
    with np.errstate(all="ignore"), far_out():
        written = trace(formula, **parameters)
        term = simplify(written)
        walk = Walk(family, count, x, tolerance, Effort(most_nodes))
        _check_axes(term, written, model, walk)
        walk.rounding = True
        return walk.value(term), written


def _require_sound_parameters(model: ContinuousModel, x: tuple[Any, ...]) -> None:
    """Refuse a scale of zero, say, where the mass is; in the tails a parameter may overflow."""

    def centre(laws: tuple[Density, ...]) -> Any:
        points = [(law.points[0] if isinstance(law, Discrete) else 0) if law.discrete else law.center() for law in laws]
        return points[0] if len(points) == 1 else tuple(points)

    observed = x[0] if len(x) == 1 else x
    z = centre(model.law("prior"))
    model.law("likelihood", (z,))
    if model.encoder is not None and model.corruption is None:
        model.law("encoder", (observed,))
    if model.corruption is not None:
        noisy = centre(model.law("corruption", (observed,)))
        if model.encoder is not None:
            model.law("encoder", (noisy,))
        if model.auxiliary is not None:
            model.law("auxiliary", (z, observed))


def _observed(x: Any) -> tuple[Any, ...]:
    values = tuple(x) if isinstance(x, tuple | list | np.ndarray) else (x,)
    out = []
    for value in values:
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise BadInput("x", x, "a number, or a tuple of numbers", "pass the observed value itself") from None
        if not np.isfinite(number):
            raise BadInput("x", x, "finite numbers", "remove the missing or infinite entries")
        out.append(int(number) if number == int(number) and isinstance(value, int | np.integer) else number)
    return tuple(out)


def _check(value: float, error: float, term: Term, x: Any) -> None:
    if np.isnan(value):
        raise UndefinedValue(term.text, f"x = {x}")
    if np.isposinf(error):
        raise CannotCompute(NAME, term.text, "no error can be estimated: the integrand was not resolved")


def _check_axes(term: Term, written: Term, model: ContinuousModel, walk: Walk) -> None:
    axes = _axes(term, model, walk)
    if axes > _MOST_AXES:
        raise CannotCompute(
            NAME, written.text,
            f"it nests {axes} continuous dimensions, more than {_MOST_AXES}; "
            "use the closed form of a linear-Gaussian model, or Monte Carlo",
        )  # fmt: skip


def _axes(term: Term, model: ContinuousModel, walk: Walk) -> int:
    """Continuous dimensions that are nested at most."""
    if isinstance(term, LogDensity) and not isinstance(term.law, ModelLaw):
        return _axes(walk.expanded(term), model, walk)
    children = list(term.children)
    below = max((_axes(child, model, walk) for child in children), default=0)
    if isinstance(term, LogOfCopies):
        return below + 1
    if isinstance(term, Expect | Integrate):
        return max(below, _axes(term.body, model, walk) + _dimensions(term, model, walk))
    return below


def _dimensions(term: Expect | Integrate, model: ContinuousModel, walk: Walk) -> int:
    space = term.var.space
    if space == Z:
        return model.latent_dimension
    if space == CORRUPTED:
        law = walk.law("corruption", (OBSERVED,), 0)
        return sum(not (isinstance(part, Density) and part.discrete) for part in law)
    return 1
