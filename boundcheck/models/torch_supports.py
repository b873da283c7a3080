"""Where a torch law's draws may lie, and what is done about points that lie elsewhere.

A point outside a law's support has density zero. Data outside it are a mistake of the data, if the support is the same
for every latent: grey pixels for a Bernoulli decoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from boundcheck.errors import BadInput, require
from boundcheck.models.torch_state import random_state

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Distribution, constraints
    from torch.distributions.utils import lazy_property
else:
    torch = require("torch", extra="torch", feature="a torch model")
    Tensor = torch.Tensor
    Distribution, constraints = torch.distributions.Distribution, torch.distributions.constraints
    lazy_property = torch.distributions.utils.lazy_property


def in_support(law: Distribution, point: Tensor, expected: tuple[int, ...], *, drawn: bool = False) -> Tensor | None:
    """Which points lie in the law's support, of shape `expected`; None if the law does not say.

    Points that are `drawn`, by this law or another, have to lie on the one turn of the circle that a von Mises law
    draws from. Torch says that its support is the real line, and over that its periodic density has no end. (Observed
    angles may be given on another turn.)
    """
    if drawn and turns(law):
        inside = _on_the_turn(law, point)
        return None if inside is None or tuple(inside.shape) != expected else inside
    try:
        constraint = law.support
        inside = constraint.check(point) if constraint is not None else None
    except (NotImplementedError, AttributeError):
        return None
    if inside is None or tuple(inside.shape) != expected:
        return None
    return inside


def support_is_discrete(law: Distribution) -> bool:
    """True if the law lives on a discrete set, so that its densities are probabilities."""
    try:
        return bool(getattr(law.support, "is_discrete", False))
    except NotImplementedError:
        return False


def support_is_fixed(law: Distribution) -> bool:
    """True if the law's family has one support, whatever its parameters."""
    while isinstance(law, torch.distributions.Independent):
        law = law.base_dist
    declared = getattr(type(law), "support", None)
    return isinstance(declared, constraints.Constraint) and not constraints.is_dependent(declared)


def turns(law: Distribution) -> bool:
    """True if the law, or the one that it is built on, is periodic: a von Mises law, or a circular flow of zuko.

    >>> turns(torch.distributions.VonMises(0.0, 1.0)), turns(torch.distributions.Normal(0.0, 1.0))
    (True, False)
    """
    inner = getattr(law, "base_dist", None) or getattr(law, "component_distribution", None)
    if any("VonMises" in kind.__name__ for kind in type(law).__mro__) or (inner is not None and turns(inner)):
        return True
    return hasattr(law, "transform") and _repeats(law)


def _repeats(flow: Any) -> bool:
    """True if the density of a flow from a uniform law does not fall off along some axis, however many turns away.

    A density over the real line falls off faster than 1/|z|: by more than log 10 between z and 10 z, somewhere out.
    """
    base = getattr(flow, "base", None)
    while isinstance(base, torch.distributions.Independent):
        base = base.base_dist
    if not isinstance(base, torch.distributions.Uniform) or len(flow.event_shape) != 1:
        return False
    with random_state(base.low.device, 0), torch.no_grad():
        point = flow.sample()
        axes = torch.eye(point.shape[-1], dtype=point.dtype, device=point.device)
        axes = axes.reshape(-1, *[1] * len(flow.batch_shape), point.shape[-1])
        near, far = (flow.log_prob(point + away * 2 * math.pi * axes) for away in (100, 1000))
    level = torch.isfinite(far) & (near - far < 1)
    return bool(level.reshape(len(level), -1).all(1).any())


def _on_the_turn(law: Distribution, point: Tensor) -> Tensor | None:
    """Which points a law that turns can have drawn, of the shape of its log-density."""
    if isinstance(law, torch.distributions.TransformedDistribution):
        for transform in reversed(law.transforms):
            inverse: Any = transform.inv
            point = inverse(point)
        return _on_the_turn(law.base_dist, point)
    if isinstance(law, torch.distributions.MixtureSameFamily):
        law = law.component_distribution
    axes = len(law.event_shape)
    inside = point.abs() <= math.pi * (1 + 2 * torch.finfo(point.dtype).eps)  # pi itself may be rounded up
    return inside.flatten(inside.ndim - axes).all(-1) if axes else inside


def refuse_parameters(law: Distribution, shown: str) -> None:
    """Refuse a law whose parameters make it none, where its density would be a number all the same.

    Torch looks at parameters unless validation is off, as importing zuko switches it off for the whole process. Then a
    normal law of negative scale has NaN for a density, and is found by that; a gamma law of negative shape has not.

    Raises:
        BadInput: the parameter, its value, and where it should be.

    >>> law = torch.distributions.Gamma(torch.tensor(-0.5), 1.0, validate_args=False)
    >>> refuse_parameters(law, "decoder(z)")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    boundcheck.errors.BadInput: concentration of decoder(z), a Gamma law = -0.5: expected numbers above 0; map ...
    """
    for name in ("base_dist", "component_distribution", "mixture_distribution", "decoder"):
        inner = getattr(law, name, None)
        if isinstance(inner, Distribution):
            refuse_parameters(inner, shown)
    if type(law).__name__ in _NAN_IF_WRONG:
        return
    for name, value, constraint in _parameters(law):
        right = constraint.check(value)
        wrong = ~right & ~value.isnan().reshape(*right.shape, -1).any(-1)
        if bool(wrong.any()):
            raise BadInput(
                f"{name} of {shown}, a {type(law).__name__} law",
                value.reshape(*right.shape, -1)[wrong][0].squeeze().tolist(),
                _words(constraint),
                "map the network's output there, as softplus does",
            )


def _parameters(law: Distribution) -> Iterator[tuple[str, Tensor, Any]]:
    """The parameters that a law was given, not those that follow from them, and where they should be."""
    try:
        known = law.arg_constraints
    except NotImplementedError:
        return
    for name, constraint in known.items():
        if name not in vars(law) and isinstance(getattr(type(law), name, None), lazy_property):
            continue
        value = getattr(law, name, None)
        if constraints.is_dependent(constraint) or constraint is constraints.simplex:  # torch itself makes sums one
            continue
        if isinstance(value, Tensor):
            yield name, value, constraint


_NAN_IF_WRONG = frozenset(
    "Independent Normal Bernoulli Laplace Cauchy Gumbel Uniform Categorical MultivariateNormal".split()  # noqa: SIM905
)
"""Families whose density is NaN wherever their parameters are wrong, or a law's all the same; or that have none."""


def _words(constraint: Any) -> str:
    constraint = getattr(constraint, "base_constraint", constraint)
    low, high = getattr(constraint, "lower_bound", None), getattr(constraint, "upper_bound", None)
    if low is None and high is None:
        return str(constraint).removesuffix("()")
    if None not in (low, high):
        return f"numbers from {low:g} to {high:g}"
    return f"numbers {'above' if isinstance(constraint, constraints.greater_than) else 'of at least'} {low:g}"


def log_density(law: Distribution, point: Tensor) -> Tensor:
    """The law's log-density at points of shape (..., *batch, *event); -inf outside its support, whatever the law does.

    >>> law = torch.distributions.Exponential(torch.ones(1), validate_args=False)
    >>> law.log_prob(torch.tensor([-5.0])), log_density(law, torch.tensor([-5.0]))
    (tensor([5.]), tensor([-inf]))
    """
    axes = len(law.event_shape)
    refuse_parameters(law, "a law")
    inside = in_support(law, point, tuple(point.shape[: point.ndim - axes]), drawn=True)
    if inside is not None and axes:  # NaN is not outside: it stays what it is
        inside = inside | point.isnan().flatten(inside.ndim).any(-1)
    if inside is None or bool(inside.all()):
        return law.log_prob(point)
    return torch.where(inside, law.log_prob(moved_inside(law, point, inside, axes)), -math.inf)


def refuse_data(law: Distribution, point: Tensor, inside: Tensor, name: Callable[[int], str]) -> NoReturn:
    """Say which observation is outside the law's support, and with which values.

    Raises:
        BadInput: always.
    """
    where = (~inside).nonzero()[0].tolist()
    values = point[tuple(where)].flatten().tolist()
    raise BadInput(
        name(where[-1]),
        values[0] if len(values) == 1 else _least_usual(values),
        f"data in the support of decoder(z), a {_describe(law)}",
        "binarise or rescale the data, or use a likelihood for such values",
    )


def moved_inside(law: Distribution, point: Tensor, inside: Tensor, event_axes: int) -> Tensor:
    """Points with those outside the support replaced by draws, so that a validating law accepts the batch."""
    lead = point.shape[: inside.ndim - len(law.batch_shape)]
    with random_state(point.device, 0):
        filler = law.sample(torch.Size(lead)).to(point.dtype)
    return torch.where(inside.reshape(*inside.shape, *[1] * event_axes), point, filler)


def name_of(law: Distribution) -> str:
    """What a law is called: "independent Bernoulli", "mixture of Normal".

    >>> name_of(torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((4,), 0.5)), 1))
    'independent Bernoulli'
    """
    inner = getattr(law, "decoder", None)  # the observed part of a law that has more in it
    if inner is None and type(law).__name__ in _WRAPPERS:
        inner = law.base_dist  # type: ignore[attr-defined]
    if inner is not None:
        return f"{_WRAPPERS.get(type(law).__name__, '')} {name_of(inner)}".strip()
    if isinstance(law, torch.distributions.MixtureSameFamily):
        return f"mixture of {name_of(law.component_distribution)}"
    return type(law).__name__


_WRAPPERS = {
    "Independent": "independent",
    "TransformedDistribution": "transformed",
    "ExpandedDistribution": "",
    "MaskedDistribution": "masked",
}


def _describe(law: Distribution) -> str:
    support: object = law.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    support = str(support).removesuffix("()")
    return f"{name_of(law).removeprefix('independent ')} law on {support[:1].lower() + support[1:]} values"


def _least_usual(values: list[float]) -> str:
    """What to show of an example that is outside a support: the values that are neither 0 nor 1 tell most."""
    odd = [value for value in values if value not in (0, 1)] or values
    return ", ".join(f"{value:.4g}" for value in odd[:3]) + (", ..." if len(odd) > 3 else "")


__all__ = [
    "in_support",
    "log_density",
    "moved_inside",
    "name_of",
    "refuse_data",
    "refuse_parameters",
    "support_is_discrete",
    "support_is_fixed",
    "turns",
]
