"""Models with one to three continuous latent variables, given by densities whose parameters are Python functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from boundcheck.errors import BadInput, BoundcheckError
from boundcheck.models.arithmetic import is_ball, is_symbol
from boundcheck.models.densities import Density

Laws: TypeAlias = Density | Sequence[Density]
"""A law of one variable, or of a vector with independent components given what it is conditioned on."""


@dataclass(frozen=True)
class ContinuousModel:
    """p(z), p(x | z), q(z | x), and optionally c(x~ | x) and r(x~ | z, x).

    Args:
        prior: the law of z: one density, or one for each of its 1 to 3 components.
        likelihood: a function of z that returns the law of x.
        encoder: a function of x (or x~) that returns the law of z.
        corruption: a function of x that returns the law of x~.
        auxiliary: a function of (z, x) that returns the law of x~.

    A one-dimensional z or x is passed as a number, a vector as a tuple. The functions are called with floats, arrays
    and balls alike, so they use `+ - * /` and `boundcheck.models.arithmetic`.

    >>> from boundcheck.models.densities import BernoulliLogit, Normal
    >>> model = ContinuousModel(
    ...     prior=Normal(0, 1),
    ...     likelihood=lambda z: [BernoulliLogit(z - b) for b in (-1, 0, 1)],
    ...     encoder=lambda x: Normal(0.5 * sum(x) - 0.7, 0.8),
    ... )
    >>> model.latent_dimension
    1
    """

    prior: Laws
    likelihood: Callable[[Any], Laws]
    encoder: Callable[[Any], Laws] | None = None
    corruption: Callable[[Any], Laws] | None = None
    auxiliary: Callable[[Any, Any], Laws] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.latent_dimension <= 3:
            raise BadInput(
                "prior", self.prior, "1 to 3 latent dimensions", "use a linear-Gaussian or a torch model for more"
            )

    @property
    def latent_dimension(self) -> int:
        """The number of components of z."""
        return len(components(self.prior))

    def law(self, role: str, args: Sequence[Any] = ()) -> tuple[Density, ...]:
        """The components of a role's law given its arguments.

        Raises:
            BadInput: a role that the model does not have, or a function that fails or returns no law.
        """
        given = getattr(self, role, None)
        if given is None:
            raise BadInput("the model", f"without {role}", f"a model with the law {role}", f"pass {role}=...")
        return components(given if role == "prior" else _called(given, role, args), role)


def _called(function: Callable[..., Laws], role: str, args: Sequence[Any]) -> Laws:
    try:
        return function(*args)
    except BoundcheckError:
        raise
    except ArithmeticError as error:
        failure = error
    except (TypeError, ValueError, IndexError) as error:
        parts = [part for arg in args for part in (arg if isinstance(arg, tuple) else (arg,))]
        vector_for_a_number = "tuple" in str(error) or "sequence" in str(error)
        if not vector_for_a_number and any(is_symbol(part) or is_ball(part) for part in parts):
            raise  # certified integration tells by it that a function is beyond it
        failure = error
    raise BadInput(
        f"the {role} as a function", f"{type(failure).__name__}: {failure}", "one that takes numbers and arrays alike",
        "write it with + - * / and boundcheck.models.arithmetic; a vector is passed as a tuple, one number as itself",
    ) from failure  # fmt: skip


def components(laws: Laws, role: str = "prior") -> tuple[Density, ...]:
    """A law as a tuple of independent components."""
    parts = (laws,) if isinstance(laws, Density) else tuple(laws) if isinstance(laws, Sequence) else ()
    if not parts or not all(isinstance(part, Density) for part in parts):
        raise BadInput(f"the {role}", laws, "a density such as Normal(0, 1), or a list of them")
    return parts
