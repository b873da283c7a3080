"""Several stochastic layers as one law: p(z1, z2) = p(z2) p(z1 | z2), with the layers side by side in one vector.

A decoder draws its layers from the top down, an encoder from the bottom up, and both must speak of the same vector z.
So each layer has a name, the order of the names in `sizes` says where it stands in z, and a layer's law is a function
of the layers that are drawn before it, which it names as its arguments.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from boundcheck.errors import BadInput, require
from boundcheck.models.torch_supports import log_density

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Distribution, constraints
    from torch.types import _size
else:
    torch = require("torch", extra="torch", feature="a torch model")
    Tensor = torch.Tensor
    Distribution, constraints = torch.distributions.Distribution, torch.distributions.constraints

Layer: TypeAlias = Distribution | Callable[..., Distribution]


class Layers(Distribution):
    """The joint law of several layers, each a vector, drawn one after another; its events are their concatenation.

    log p(z) = sum_l log p(z_l | the layers drawn before it), in nats.

    Args:
        laws: by name, in the order of drawing. The first is a law with the batch shape of the whole, such as (rows,);
            each of the others is a function that gets earlier layers, as tensors of shape (rows, size), by their names
            and returns a law with one component for each row.
        sizes: entries of each layer, in the order in which they stand in z.

    Raises:
        BadInput: other names in `laws` than in `sizes`, a function of something that is not drawn before, or a law
            whose shape is not that of its layer.

    >>> from torch.distributions import Independent, Normal
    >>> prior = Layers(
    ...     {
    ...         "top": Independent(Normal(torch.zeros(2), 1.0), 1),
    ...         "z": lambda top: Independent(Normal(top.sum(-1, keepdim=True), 1.0), 1),
    ...     },
    ...     sizes={"z": 1, "top": 2},
    ... )
    >>> prior.event_shape, prior.sample((4,)).shape
    (torch.Size([3]), torch.Size([4, 3]))
    >>> print(f"{float(prior.log_prob(torch.zeros(3))):.4f}")  # a density of three standard normals at their modes
    -2.7568
    """

    has_rsample = True

    def __init__(self, laws: Mapping[str, Layer], sizes: Mapping[str, int]) -> None:
        if set(laws) != set(sizes) or not laws:
            raise BadInput("sizes", dict(sizes), f"a size for each of the layers {', '.join(laws)}")
        (first_name, first), *rest = laws.items()
        if not isinstance(first, Distribution):
            raise BadInput(f"the law of {first_name}", first, "a law: the layer that is drawn first has no arguments")
        self._first_name, self._first = first_name, first
        self._rest: list[tuple[str, Callable[..., Distribution], tuple[str, ...]]] = []
        drawn = [first_name]
        for name, law in rest:
            if not callable(law) or isinstance(law, Distribution):
                raise BadInput(f"the law of {name}", law, "a function of layers that are drawn before it")
            called = law.forward if isinstance(law, torch.nn.Module) else law
            wanted = tuple(inspect.signature(called).parameters)
            unknown = [each for each in wanted if each not in drawn]
            if unknown:
                remedy = f"name it in a function of your own: lambda {drawn[-1]}: ..."
                raise BadInput(f"an argument of the law of {name}", unknown[0], f"one of {', '.join(drawn)}", remedy)
            self._rest.append((name, law, wanted))
            drawn.append(name)
        self.sizes = dict(sizes)
        self._check_event(first_name, first)
        width = sum(self.sizes.values())
        super().__init__(first.batch_shape, torch.Size([width]), validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, Any]:
        """None: the layers check their own."""
        return {}

    @property
    def support(self) -> Any:
        """Vectors of real numbers."""
        return constraints.real_vector

    def parts(self, z: Tensor) -> dict[str, Tensor]:
        """The layers of points of shape (..., width), by name, each of shape (..., size)."""
        return dict(zip(self.sizes, z.split(list(self.sizes.values()), dim=-1), strict=True))

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws of shape (*sample_shape, *batch, width), without gradient."""
        with torch.no_grad():
            return self._draw(sample_shape, "sample")

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws of shape (*sample_shape, *batch, width) that gradients pass through."""
        return self._draw(sample_shape, "rsample")

    def _draw(self, sample_shape: Sequence[int], how: str) -> Tensor:
        drawn = {self._first_name: getattr(self._first, how)(torch.Size(sample_shape))}
        lead = drawn[self._first_name].shape[:-1]
        for name, law, wanted in self._rest:
            drawn[name] = getattr(self._law(name, law, wanted, drawn), how)().reshape(*lead, -1)
        return torch.cat([drawn[name] for name in self.sizes], dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z) at points of shape (..., *batch, width), in nats, of shape (..., *batch)."""
        parts = self.parts(value)
        total = log_density(self._first, parts[self._first_name])
        for name, law, wanted in self._rest:
            given = self._law(name, law, wanted, parts)
            rows = parts[name].expand(*total.shape, -1).reshape(-1, self.sizes[name])
            total = total + log_density(given, rows).reshape(total.shape)
        return total

    def _law(
        self, name: str, law: Callable[..., Distribution], wanted: tuple[str, ...], drawn: Mapping[str, Tensor]
    ) -> Distribution:
        rows = {each: drawn[each].reshape(-1, self.sizes[each]) for each in wanted}
        made = law(**rows)
        if not isinstance(made, Distribution):
            raise BadInput(f"the law of {name}", made, "a torch.distributions object")
        self._check_event(name, made)
        count = math.prod(next(iter(drawn.values())).shape[:-1])
        if tuple(made.batch_shape) != (count,):
            raise BadInput(f"the batch shape of the law of {name}", tuple(made.batch_shape), f"({count},)")
        return made

    def _check_event(self, name: str, law: Distribution) -> None:
        if tuple(law.event_shape) != (self.sizes[name],):
            remedy = "declare its axis as an event: torch.distributions.Independent(..., 1)"
            raise BadInput(
                f"the event shape of the law of {name}", tuple(law.event_shape), f"({self.sizes[name]},)", remedy
            )


__all__ = ["Layers"]
