"""Bidirectional Monte Carlo: how far apart a lower and an upper bound on log p(x) are, on data the model simulated.

A pair (z, x) drawn from the model is an exact draw z of the posterior p(z|x), which real data never come with. So on
simulated data log p(x) is bounded from both sides, and the gap tells how good annealing is on this model. What it says
about real data is an extrapolation: they may be harder than what the model makes up itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, require
from boundcheck.evaluators.values import Bias, Sampled, json_float
from boundcheck.evidence.annealing import AnnealedWeights, annealed_weights, reverse_weights
from boundcheck.evidence.chains import ROWS
from boundcheck.evidence.intervals import Label
from boundcheck.evidence.stages import Stage, State, Step, array_of, tensor_of
from boundcheck.evidence.streams import Purpose, checked_seed, scattered_seed
from boundcheck.models.torch_model import TorchModel, random_state

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="simulated data")
    Tensor = torch.Tensor

_AT_ONCE = 256


def simulate(model: object, examples: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pairs z ~ p(z), x ~ p(x|z): each z is an exact draw of p(z|x).

    Args:
        model: a `TorchModel` or an object with its functions.
        examples: how many.
        seed: of all draws.

    Returns:
        x of shape (examples, *event) and z of shape (examples, *event).

    Raises:
        BadInput: bad numbers, or laws that cannot be sampled.

    >>> from torch.distributions import Normal
    >>> model = TorchModel(
    ...     prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x / 2, 1.0), decoder=lambda z: Normal(z, 1.0)
    ... )
    >>> x, z = simulate(model, 3)
    >>> x.shape, z.shape
    (torch.Size([3]), torch.Size([3]))
    """
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
        raise BadInput("examples", examples, "an integer of at least 1")
    wrapped, checked = TorchModel.wrap(model), checked_seed(seed)
    prior = wrapped.law("prior")
    with torch.random.fork_rng():
        device = wrapped.sample("prior", prior, ()).device
    pairs = []
    with torch.no_grad():
        for block, first in enumerate(range(0, examples, _AT_ONCE)):
            with random_state(device, scattered_seed(checked, Purpose.SIMULATION, block)):
                x, z = wrapped.draw_pair(_AT_ONCE)  # all of the block, so that its draws are always the same
            pairs.append((x[: examples - first], z[: examples - first]))
    x, z = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return x, z


@dataclass(frozen=True)
class SimulatedGap:
    """Lower and upper bounds on log p(x) of simulated examples, in nats.

    Attributes:
        forward: chains to the posterior: the lower bound.
        reverse: chains from exact posterior draws: the upper bound.
    """

    forward: AnnealedWeights
    reverse: AnnealedWeights

    @property
    def gaps(self) -> NDArray[np.float64]:
        """Upper less lower of each example: E of it is the sum of both bounds' looseness, and never negative."""
        both = np.intersect1d(self.forward.kept, self.reverse.kept)
        return self.reverse.log_weights[:, both].mean(0) - self.forward.log_weights[:, both].mean(0)

    @property
    def gap(self) -> Sampled:
        """The mean gap over the examples; its standard error is that of other examples of the same model."""
        gaps = self.gaps
        finite = len(gaps) > 1 and bool(np.isfinite(gaps).all())
        error = float(np.std(gaps, ddof=1)) / math.sqrt(len(gaps)) if finite else math.nan
        return Sampled(float(np.mean(gaps)) if len(gaps) else math.nan, error, Bias.NONE, len(gaps))

    def interval(self, delta: float) -> tuple[float, float]:
        """Bounds on the mean of log p(x) over the simulated examples, both at once with probability 1 - delta."""
        return self.forward.bound(delta / 2), self.reverse.bound(delta / 2)

    def to_json(self, delta: float = 1e-3) -> dict[str, Any]:
        """JSON-ready."""
        lower, upper = self.interval(delta)
        return {
            "quantity": "mean log p(x) over simulated examples, nats",
            "label": Label.SIMULATED.value,
            "examples": self.forward.log_weights.shape[1],
            "gap": {"label": Label.EXPECTATION.value, **self.gap.to_json()},
            "probability": {
                "label": Label.PROBABILITY.value,
                "delta": delta,
                "lower": json_float(lower),
                "upper": json_float(upper),
            },
            "forward": self.forward.to_json(delta),
            "reverse": self.reverse.to_json(delta),
        }


def simulated_gap(
    model: object,
    *,
    examples: int = 100,
    temperatures: int = 100,
    chains: int = 16,
    leapfrogs: int = 8,
    base: str = "encoder",
    kind: str = "sigmoid",
    seed: int = 0,
    rows: int = ROWS,
    progress: Callable[[int], None] | None = None,
    stage: Stage | None = None,
) -> SimulatedGap:
    """Bidirectional Monte Carlo on data that the model simulates (Grosse, Ghahramani & Adams 2015; Wu et al. 2017).

    E log w <= log p(x) <= -E log 1/w_reverse for each simulated x: the mean gap bounds how loose each side is. If the
    gap is not small, annealing needs more temperatures; if it is negative by many standard errors, something is wrong.

    Args:
        model: as for `boundcheck.evidence.annealing.annealed_weights`.
        examples: how many to simulate.
        temperatures: T.
        chains: for each example, in each direction.
        leapfrogs: leapfrog steps in a transition.
        base: "encoder" or "prior".
        kind: of `boundcheck.evidence.annealing.schedule`.
        seed: of all draws.
        rows: chains handed to the model at once.
        progress: called with the number of chain moves just made, twice
            `boundcheck.evidence.annealing.moves(examples, temperatures, chains)` in all.
        stage: where its parts are computed and kept.

    Raises:
        BadInput, CannotCompute: as `boundcheck.evidence.annealing.annealed_weights`.

    >>> from torch.distributions import Independent, Normal
    >>> model = TorchModel(
    ...     prior=lambda: Independent(Normal(torch.zeros(1).double(), 1.0), 1),
    ...     encoder=lambda x: Independent(Normal(0 * x, 1.0), 1),
    ...     decoder=lambda z: Independent(Normal(z, 1.0), 1),
    ... )
    >>> found = simulated_gap(model, examples=50, temperatures=20)
    >>> 0 < found.gap.mean < 0.5
    True
    """
    stage = stage or Stage()
    x, z = _kept(model, examples, seed, stage.within("draws"))
    how: dict[str, Any] = {
        "temperatures": temperatures,
        "chains": chains,
        "leapfrogs": leapfrogs,
        "base": base,
        "kind": kind,
        "seed": seed,
        "rows": rows,
        "progress": progress,
    }
    forward = annealed_weights(model, x, **how, stage=stage.within("forward"))
    return SimulatedGap(forward, reverse_weights(model, x, z, **how, stage=stage.within("reverse")))


def _kept(model: object, examples: int, seed: int, stage: Stage) -> tuple[Tensor, Tensor]:
    """Simulated pairs; the same ones on whatever machine the chains go on."""
    made: list[Tensor] = []

    def steps(index: int, before: State | None) -> Generator[Step]:
        made.extend(simulate(model, examples, seed=seed))
        yield 1, lambda: {"x": array_of(made[0]), "z": array_of(made[1])}

    (state,) = stage.collect(lambda: {"examples": examples, "seed": seed}, [1], steps, underway=False)
    if not made:  # drawn by another process, or earlier
        made.extend(tensor_of(state[name], like) for name, like in zip("xz", simulate(model, 1), strict=True))
    return made[0], made[1]


__all__ = ["SimulatedGap", "simulate", "simulated_gap"]
