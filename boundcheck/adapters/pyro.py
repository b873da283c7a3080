"""A Pyro model and its guide as p(x,z) and q(z|x), with all latent sites side by side in one vector.

The programs are run on batches of rows: drawing is running the guide, a density is the sum of the log-densities of
the sites of a run in which every latent site has been given its value. Rows must be independent, as they are under a
`pyro.plate` over the examples, so that each site's log-density has one number for each row.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from boundcheck.errors import BadInput, require
from boundcheck.models.torch_model import TorchModel
from boundcheck.models.torch_supports import in_support

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Distribution, constraints
else:
    torch = require("torch", extra="torch", feature="a Pyro model")
    Tensor = torch.Tensor
    Distribution, constraints = torch.distributions.Distribution, torch.distributions.constraints

_SAME = 1e-5
_ONE_AT_A_TIME = threading.RLock()
"""Pyro keeps one stack of effect handlers for the whole process: two threads would handle each other's sites."""


def from_pyro(
    model: Callable[..., Any], guide: Callable[..., Any], example: Tensor, *, module: torch.nn.Module | None = None
) -> TorchModel:
    """A TorchModel of a Pyro (model, guide) pair, each called as `model(x)` with x of shape (rows, *event).

    The observed site of the model makes the decoder, its latent sites the prior, which must not depend on x. The
    guide's sites must be those latent sites, continuous, one value for each row. What scales a site's log-density, as a
    plate of all N examples does for a batch, is no part of its law and left out; what a mask hides is.

    Args:
        model: samples latent sites, and observes x at sites with `obs=...`.
        guide: samples the same latent sites given x.
        example: one batch of observations, of shape (rows, *event), at least two rows, by which sites are found.
        module: the parameters' module, for its floating type and for moving it to a device.

    Raises:
        MissingExtra: pyro is not installed.
        BadInput: programs whose sites do not fit together, name by name.

    >>> import pyro
    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("examples", len(x)):
    ...         z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
    ...         pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("examples", len(x)):
    ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5).to_event(1))
    >>> from boundcheck.evidence.engine import run
    >>> wrapped = from_pyro(model, guide, torch.zeros(2, 1))
    >>> print(run(wrapped, torch.tensor([[0.0], [1.0]]), ks=(1, 10)).iwae.round(3))
    [[-1.266 -1.516]
     [-1.266 -1.516]]
    """
    require("pyro", extra="pyro", feature="a Pyro model")
    if not isinstance(example, torch.Tensor) or example.ndim < 1 or len(example) < 2:
        raise BadInput("example", example, "a batch of at least two observations, of shape (rows, *event)")
    program = _Program(model, guide, example)
    return _PyroModel(program, module)


class _PyroModel(TorchModel):
    def __init__(self, program: _Program, module: torch.nn.Module | None) -> None:
        super().__init__(
            prior=lambda: _Prior(program),
            encoder=lambda x: _Guide(program, x),
            decoder=lambda z: _Observed(program, z),
        )
        self.program, self.module = program, module

    def draw_pair(self, rows: int) -> tuple[Tensor, Tensor]:
        z = _Prior(self.program).sample(torch.Size([rows]))
        return _Observed(self.program, z).sample(), z


class _Program:
    """The two programs, the latent sites' shapes, and where each site stands in z."""

    def __init__(self, model: Callable[..., Any], guide: Callable[..., Any], example: Tensor) -> None:
        from pyro import poutine

        self.model, self.guide, self.example = model, guide, example
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            drawn = _traced(guide, example)
            replayed = _traced(poutine.replay(model, trace=drawn), example)
        rows = len(example)
        latent = {name: site for name, site in drawn.nodes.items() if _is_latent(site)}
        wanted = {name for name, site in replayed.nodes.items() if _is_latent(site)}
        self.observed = [name for name, site in replayed.nodes.items() if _is_observed(site)]
        if set(latent) != wanted:
            missing = ", ".join(sorted(wanted ^ set(latent)))
            raise BadInput(
                "the guide", sorted(latent), f"the latent sites of the model, {sorted(wanted)}", f"see {missing}"
            )
        if not latent or not self.observed:
            raise BadInput("the model", sorted(replayed.nodes), "at least one latent and one observed site")
        if len(self.observed) > 1:
            raise BadInput("the observed sites", self.observed, "a single one, x", "put the data into one tensor")
        self.shapes: dict[str, tuple[int, ...]] = {}
        for name, site in latent.items():
            value = site["value"]
            if value.ndim < 1 or value.shape[0] != rows:
                shown = tuple(value.shape)
                raise BadInput(
                    f"the shape of site {name}", shown, f"({rows}, ...), one value for each row", "use a plate"
                )
            if not value.is_floating_point():
                raise BadInput(f"the site {name}", str(value.dtype), "a continuous latent variable")
            self.shapes[name] = tuple(value.shape[1:])
        self.width = sum(math.prod(shape) for shape in self.shapes.values())
        self._refuse_prior_that_sees_x(drawn)

    def _refuse_prior_that_sees_x(self, drawn: Any) -> None:
        values = {name: drawn.nodes[name]["value"] for name in self.shapes}
        here = self.log_densities(self.model, self.example, values, self.shapes)
        there = self.log_densities(self.model, self.example.flip(0).roll(1, -1), values, self.shapes)
        if not torch.allclose(here, there, rtol=_SAME, atol=_SAME, equal_nan=True):
            raise BadInput("the model", "latent sites that depend on x", "a prior p(z) that is the same for every x")

    def split(self, z: Tensor) -> dict[str, Tensor]:
        """The sites' values from rows of z."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = z.split(sizes, dim=-1)
        return {n: p.reshape(len(z), *shape) for (n, shape), p in zip(self.shapes.items(), parts, strict=True)}

    def joined(self, trace: Any) -> Tensor:
        """Rows of z from a run's sites."""
        values = [trace.nodes[name]["value"] for name in self.shapes]  # of shape (rows,) if the site is a number
        return torch.cat([value.reshape(len(value), -1) for value in values], dim=-1)

    def log_densities(self, program: Callable[..., Any], x: Tensor, values: Mapping[str, Tensor], sites: Any) -> Tensor:
        """The sum over some sites of their log-densities, one number for each row, in float64 sums."""
        import pyro
        from pyro import poutine

        # Not validated: a latent that another law has drawn may be outside the support, and has density zero there.
        with _ONE_AT_A_TIME, pyro.validation_enabled(False):
            trace = _traced(poutine.condition(program, data=dict(values)), x)
            trace.compute_log_prob()
            densities = {name: _density(trace.nodes[name]) for name in sites}
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for name, value in densities.items():
            if value.ndim < 1 or value.shape[-1] != len(x):
                remedy = "sample it under a pyro.plate over the rows, its other axes declared by .to_event(n)"
                raise BadInput(f"the log-density of site {name}", tuple(value.shape), f"(..., {len(x)})", remedy)
            if name in self.shapes:  # a latent has no mass outside what its law draws
                node = trace.nodes[name]
                inside = in_support(node["fn"], node["value"], tuple(value.shape), drawn=True)
                value = value if inside is None else torch.where(inside, value, -math.inf)
            total = total + value.double().reshape(-1, len(x)).sum(0)
        return total


def _density(site: Mapping[str, Any]) -> Tensor:
    """The log-density of a site; not multiplied by the scale that a plate gives it where it holds some of many rows."""
    from pyro.distributions.util import scale_and_mask

    return scale_and_mask(site["unscaled_log_prob"], 1.0, site["mask"])


def _traced(program: Callable[..., Any], x: Tensor) -> Any:
    """A run of a program at x, with what happened at each site."""
    from pyro import poutine

    with _ONE_AT_A_TIME:
        return poutine.trace(program).get_trace(x)


def _is_latent(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"] and type(site["fn"]).__name__ != "_Subsample"


def _is_observed(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and site["is_observed"] and type(site["fn"]).__name__ != "_Subsample"


class _Law(Distribution):
    """A law of rows; its events are vectors z unless it says otherwise."""

    def __init__(self, program: _Program, batch: tuple[int, ...], event: tuple[int, ...]) -> None:
        self.program = program
        super().__init__(torch.Size(batch), torch.Size(event), validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, Any]:
        return {}

    @property
    def support(self) -> Any:
        return constraints.real_vector

    def _rows(self, value: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        axes = len(self.event_shape)
        return value.reshape(-1, *self.event_shape), tuple(value.shape[: value.ndim - axes])

    def _repeated(self, rows: Tensor, count: int) -> Tensor:
        return rows.repeat(count // len(rows), *[1] * (rows.ndim - 1))


class _Prior(_Law):
    """p(z), from the latent sites of the model."""

    def __init__(self, program: _Program) -> None:
        super().__init__(program, (), (program.width,))

    def _some(self, count: int) -> Tensor:
        return self._repeated(self.program.example[:1], count)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        count = math.prod(sample_shape)
        with torch.no_grad():
            trace = _traced(self.program.model, self._some(count))
            return self.program.joined(trace).reshape(*sample_shape, -1)

    def log_prob(self, value: Tensor) -> Tensor:
        rows, lead = self._rows(value)
        program = self.program
        densities = program.log_densities(program.model, self._some(len(rows)), program.split(rows), program.shapes)
        return densities.reshape(lead)


class _Guide(_Law):
    """q(z|x), from the guide."""

    def __init__(self, program: _Program, x: Tensor) -> None:
        self.x = x
        super().__init__(program, (len(x),), (program.width,))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        count = math.prod(sample_shape) * len(self.x)
        with torch.no_grad():
            trace = _traced(self.program.guide, self._repeated(self.x, count))
            return self.program.joined(trace).reshape(*sample_shape, len(self.x), -1)

    def log_prob(self, value: Tensor) -> Tensor:
        rows, lead = self._rows(value)
        program = self.program
        x = self._repeated(self.x, len(rows))
        return program.log_densities(program.guide, x, program.split(rows), program.shapes).reshape(lead)


class _Observed(_Law):
    """p(x|z), from the observed site of the model, whose own law is the `decoder`."""

    def __init__(self, program: _Program, z: Tensor) -> None:
        from pyro import poutine

        self.z = z
        x = self._repeated(program.example[:1], len(z))
        with torch.no_grad():
            trace = _traced(poutine.condition(program.model, data=program.split(z)), x)
        self.decoder = trace.nodes[program.observed[0]]["fn"]
        super().__init__(program, (len(z),), tuple(program.example.shape[1:]))

    @property
    def support(self) -> Any:
        return self.decoder.support

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            return self.decoder.sample(torch.Size(sample_shape)).reshape(
                *sample_shape, *self.batch_shape, *self.event_shape
            )

    def log_prob(self, value: Tensor) -> Tensor:
        lead = torch.broadcast_shapes(value.shape[: value.ndim - len(self.event_shape)], self.batch_shape)
        x = value.expand(*lead, *self.event_shape).reshape(-1, *self.event_shape)
        program = self.program
        values = program.split(self._repeated(self.z, len(x)))
        return program.log_densities(program.model, x, values, program.observed).reshape(lead)


__all__ = ["from_pyro"]
