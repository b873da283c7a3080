"""The evidence of data that the model itself draws, bounded tightly from both sides.

Where x ~ p(x|z*) and z* ~ p(z), the pair is a draw from p(x,z), so z* is an exact draw from the posterior p(z|x). Let
q draw the other K - 1 points. The mean of the K weights then bounds p(x) from above, as the mean of K weights at
points that q draws bounds it from below, and as K grows both close in on log p(x). An objective that exceeds the upper
bound at such data is no lower bound on the evidence, whatever the data that the model was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, require
from boundcheck.evaluators.values import json_float
from boundcheck.evidence.intervals import Label
from boundcheck.evidence.job import Job
from boundcheck.evidence.stages import Stage, State, Step, array_of, tensor_of, tensors_digest
from boundcheck.evidence.streams import Purpose, checked_seed, scattered_seed
from boundcheck.evidence.weight_run import ROUNDINGS
from boundcheck.evidence.weights import unvalidated
from boundcheck.models.torch_model import TorchModel, random_state

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="data simulated from a trained model")
    Tensor = torch.Tensor


@dataclass(frozen=True)
class SimulatedEvidence:
    """Data drawn from a model, and its log p(x) at them between two bounds, in nats.

    Attributes:
        x: the data, of shape (examples, *event).
        lower: log mean_{k<=K} w(z_k) for z_k ~ q(.|x), of shape (examples,): E of it is at most log p(x).
        upper: the same with z_1 the posterior draw z*: E of it is at least log p(x).
        k: K.
        rounding: an estimate, in nats, of the error of the model's own arithmetic in them.
    """

    x: Tensor
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    k: int
    rounding: float = 0.0
    label: Label = Label.SIMULATED

    def interval(self, delta: float) -> tuple[float, float]:
        """Confidence limits of the mean log p(x) over these data: both hold with probability at least 1 - delta.

        With W the mean weight, E W = p(x) for z_k ~ q, and E 1/W = 1/p(x) if one z_k is a posterior draw: the K points
        then have the density prod_k q(z_k) W / p(x), averaged over the place of z*. The examples are independent, so
        Markov's inequality for the products over them gives, at delta/2 each,

            mean log W - log(2/delta)/N <= mean log p(x) <= mean log W* + log(2/delta)/N.

        Nothing is assumed about the weights (Grosse, Ghahramani & Adams 2015, for one example). Both limits are moved
        outwards by `rounding`.

        Raises:
            BadInput: a delta outside (0, 1).
        """
        if not 0 < delta < 1:
            raise BadInput("delta", delta, "an error probability between 0 and 1")
        price = math.log(2 / delta) / len(self.lower) + self.rounding
        return float(self.lower.mean()) - price, float(self.upper.mean()) + price

    def to_json(self, delta: float) -> dict[str, Any]:
        """JSON-ready, with the interval at 1 - delta."""
        low, high = self.interval(delta)
        return {
            "quantity": f"mean log p(x) over {len(self.lower)} examples drawn from the model, nats",
            "label": self.label.value,
            "lower": json_float(low),
            "upper": json_float(high),
            "delta": delta,
            "k": self.k,
            "gap": json_float(float(self.upper.mean() - self.lower.mean())),
        }


def simulate(
    model: object,
    examples: int = 200,
    *,
    k: int = 1000,
    seed: int = 0,
    chunk: int | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: Callable[[int], None] | None = None,
    stage: Stage | None = None,
) -> SimulatedEvidence:
    """Draw data from a model and bound its evidence at them from both sides.

    Args:
        model: a `TorchModel` or an object with its functions.
        examples: how many data are drawn.
        k: weights for each bound at each of them.
        seed: of all draws.
        chunk: the most points handed to the model at once.
        device: where the draws are made; by default that of the prior's own draws.
        dtype: of the data, if not that of the decoder's draws.
        progress: called with the number of weights just computed.
        stage: where its parts are computed and kept.

    Raises:
        BadInput: no examples or weights, or laws that do not fit, as for `log_weights`.

    >>> from torch.distributions import Normal
    >>> model = TorchModel(
    ...     prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x / 2, 0.9), decoder=lambda z: Normal(z, 1.0)
    ... )
    >>> found = simulate(model, 100, k=500)
    >>> low, high = found.interval(1e-3)
    >>> truth = float(Normal(0.0, 2**0.5).log_prob(found.x).mean())
    >>> low < truth < high, round(high - low, 2)
    (True, 0.15)
    """
    for name, value, least in (("examples", examples, 1), ("k", k, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise BadInput(name, value, f"an integer of at least {least}")
    wrapped, stage = TorchModel.wrap(model), stage or Stage()
    where = device if device is not None else torch.device("cpu")
    x, special, rounding = _draws(wrapped, examples, checked_seed(seed), where, dtype, stage.within("draws"))
    # One stream of 2K - 1 weights: the first K for the lower bound, the others beside the posterior draw.
    job = Job(wrapped, x, (2 * k - 1,), seed=(seed + 7_919) % 2**63, chunk=chunk)

    def steps(index: int, before: State | None) -> Generator[Step]:
        item, made = job.layout[index], dict[str, NDArray[np.float64]]()
        yield 0, lambda: made
        with unvalidated():
            values = job.weigher(item).values.cpu().numpy()
        split = max(0, min(k - item.samples.start, len(values)))
        for name, rows in (("low", values[:split]), ("rest", values[split:])):
            made[name] = np.logaddexp.reduce(rows, axis=0) if len(rows) else np.full(values.shape[1], -math.inf)
        yield values.size, lambda: made

    def begin(settings: Mapping[str, Any]) -> None:
        if chunk is None:
            job.chunk = job.weigher.chunk = int(settings["chunk"])

    states = stage.collect(
        lambda: {"k": k, "seed": seed, "data": tensors_digest({"x": x}), "span": [job.layout.block, job.layout.span]},
        [item.rows for item in job.layout],
        steps,
        progress=progress,
        settings={"chunk": job.chunk},
        begin=begin,
        underway=False,
    )
    low, rest = np.full(examples, -math.inf), np.full(examples, -math.inf)
    for item, state in zip(job.layout, states, strict=True):
        for target, name in ((low, "low"), (rest, "rest")):
            target[item.examples] = np.logaddexp(target[item.examples], state[name])
    return SimulatedEvidence(x, low - math.log(k), np.logaddexp(rest, special) - math.log(k), k, rounding)


def _draws(
    model: TorchModel, examples: int, seed: int, where: torch.device, dtype: torch.dtype | None, stage: Stage
) -> tuple[Tensor, NDArray[np.float64], float]:
    """Data from the model, the log-weights of the posterior draws that they came from, and the error of rounding.

    They are kept, so that all that is made of them is made of the same data, on whatever machine it is.
    """
    kept: dict[str, Tensor] = {}

    def steps(index: int, before: State | None) -> Generator[Step]:
        with torch.no_grad(), random_state(where, scattered_seed(seed, Purpose.SIMULATION, 0)):
            x, latent = model.draw_pair(examples)
            if dtype is not None:
                x = x.to(dtype)
            prior, law = model.law("prior"), model.law("likelihood", latent)
            encoder = model.law("encoder", x)
            log_joint = _log_joint(model, prior, law, x, latent)
            special = log_joint - model.log_prob("encoder", encoder, latent, latent.shape[1:])
        # Rounding can take a draw out of its own law's support; such a pair is no draw of it, and bounds nothing.
        special = torch.where(log_joint.isneginf(), math.inf, special)
        kind = log_joint.dtype if log_joint.is_floating_point() else torch.get_default_dtype()
        size = float(log_joint.abs().nan_to_num(0.0, posinf=0.0).max())
        rounding = np.array(ROUNDINGS * torch.finfo(kind).eps * size)
        kept["x"] = x
        yield 1, lambda: {"x": array_of(x), "special": special.double().cpu().numpy(), "rounding": rounding}

    job = {"examples": examples, "seed": seed, "type": str(dtype)}
    (state,) = stage.collect(lambda: job, [1], steps, underway=False)
    x = kept.get("x")
    if x is None:  # drawn by another process, or earlier
        with torch.no_grad(), random_state(where, 0):
            like, _ = model.draw_pair(1)
        x = tensor_of(state["x"], like if dtype is None else like.to(dtype))
    return x, state["special"], float(state["rounding"])


def _log_joint(model: TorchModel, prior: Any, law: Any, x: Tensor, z: Tensor) -> Tensor:
    return model.log_prob("prior", prior, z, z.shape[1:]) + model.log_prob("likelihood", law, x, x.shape[1:])
