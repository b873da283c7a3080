"""What is looked at before the long work: a few rows of the model, by the strictest rules.

Shapes, supports, randomness where there must be none, and draws that do not follow torch's seeds are mistakes of the
model as a whole; they are found here, in the caller's own thread. An example that fails by itself is no reason to
stop: it is named later, beside the others' results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, BoundcheckError, require
from boundcheck.evaluators.draws import as_gaussian
from boundcheck.evidence.streams import Purpose, scattered_seed
from boundcheck.evidence.weights import decoding, in_float32, unvalidated
from boundcheck.models.torch_functions import NoFunction, check_function
from boundcheck.models.torch_model import TorchModel, out_of_memory, random_state, support_is_fixed
from boundcheck.models.torch_watch import watched

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Distribution
else:
    torch = require("torch", extra="torch", feature="log-weights of a trained model")
    Tensor = torch.Tensor
    Distribution = torch.distributions.Distribution

_EXAMPLES = 64
_DRAWS = 16


@dataclass(frozen=True)
class Probe:
    """What a look at some examples found.

    Attributes:
        latent: numbers in one latent.
        observed: a decoder's law, if the support of its family is always the same.
        log_weights: one log-weight for each example looked at; NaN where that example fails. It tells models apart.
        keeps: the encoder or the decoder leaves something behind from one call to the next, such as a layer's output in
            an attribute: two threads would meet in it.
    """

    latent: int
    observed: Distribution | None
    log_weights: NDArray[np.float64]
    keeps: bool


def probe(model: TorchModel, x: Tensor, seed: int) -> Probe:
    """Look at a model at up to 64 of the examples, evenly spread; at fewer if there is not memory enough.

    Raises:
        BadInput: whatever is wrong with all of these examples; see `boundcheck.evaluators.monte_carlo.evaluate`.
    """
    most = _EXAMPLES
    while True:
        try:
            return _probe(model, x, seed, most)
        except Exception as error:
            if not out_of_memory(error):
                raise
            if most == 1:
                remedy = f"{type(error).__name__}; use a smaller model or a larger machine"
                raise BadInput("x", tuple(x.shape), "memory for a single example", remedy) from error
            most //= 2


def _probe(model: TorchModel, x: Tensor, seed: int, most: int) -> Probe:
    count = min(len(x), most)
    places = np.arange(count) * (len(x) - 1) // max(1, count - 1)
    with torch.inference_mode():
        prior = model.law("prior")
        check_function(model, "prior", [], prior)
        try:
            values, observed = _looked_at(model, x, places, prior, seed)
        except NoFunction:  # a single row might look like one
            raise
        except BoundcheckError as first:
            values, observed = np.full(len(places), math.nan), None
            reason: BoundcheckError = first
            for row, place in enumerate(places):
                try:
                    values[row : row + 1], observed = _looked_at(model, x, places[row : row + 1], prior, seed)
                except BoundcheckError as error:
                    reason = error if place == places[0] else reason
            if bool(np.isnan(values).all()):
                raise reason from None
            _check_together(model, x, places[~np.isnan(values)], prior, seed)
        sound = int(places[np.flatnonzero(~np.isnan(values))[0]])
        keeps = _keeps(model, x[[sound, sound]], prior) or _keeps(model, x[sound : sound + 1], prior)
    return Probe(max(1, math.prod(prior.event_shape)), observed, values, keeps)


def _check_together(model: TorchModel, x: Tensor, places: NDArray, prior: Distribution, seed: int) -> None:
    """Refuse a model that is no function of its rows, by those that can be evaluated: one alone would not show it."""
    try:
        _looked_at(model, x, places, prior, seed)
    except NoFunction:
        raise
    except BoundcheckError:  # that of an example, which its own item will name
        pass


def _keeps(model: TorchModel, x: Tensor, prior: Distribution) -> bool:
    """True if a pass over some rows leaves anything in the model, or writes to what was there."""

    def look(rows: Tensor) -> None:
        encoder = model.law("encoder", rows)
        z = model.sample("encoder", encoder, ())
        model.law("likelihood", z).log_prob(rows)
        encoder.log_prob(z)
        prior.log_prob(z)

    before = _attributes(model)
    try:
        with random_state(x.device, 0), unvalidated():
            seen = watched(look, x)
    except Exception:  # a law that refuses some of its own draws: nothing was found out
        return True
    return seen.keeps or _attributes(model) != before


def _attributes(model: TorchModel) -> list[dict[str, int]]:
    """Which objects a model's modules hold: their numbers, such as that of the last batch's rows, and all else."""
    modules = () if model.module is None else model.module.modules()
    return [{name: id(value) for name, value in vars(module).items()} for module in modules]


def _looked_at(
    model: TorchModel, x: Tensor, places: NDArray, prior: Distribution, seed: int
) -> tuple[NDArray[np.float64], Distribution | None]:
    rows = x[torch.as_tensor(places, device=x.device)]
    encoder = model.law("encoder", rows)
    check_function(model, "encoder", [rows], encoder)
    z = _draw(model, encoder, x.device, scattered_seed(seed, Purpose.PROBE, 0))
    event = tuple(encoder.event_shape)
    decoder = model.law("likelihood", z)
    check_function(model, "likelihood", [z], decoder)
    log_q = model.log_prob("encoder", encoder, z, event)
    value = model.log_prob("prior", prior, z, event).double() - log_q.double()
    value = (
        value + model.log_prob("likelihood", decoder, rows, tuple(x.shape[1:]), lambda i: f"x[{places[i]}]").double()
    )
    return value.cpu().numpy(), decoder if support_is_fixed(decoder) else None


def _draw(model: TorchModel, law: Distribution, device: torch.device, seed: int) -> Tensor:
    def sample() -> Tensor:
        with random_state(device, seed):
            return model.sample("encoder", law, ())

    z = sample()
    if bool(z.isnan().any()):
        raise BadInput("a draw from encoder(x)", math.nan, "numbers", "check the model's weights and the data")
    if as_gaussian(law) is None and not torch.equal(z, sample()):
        raise BadInput(
            "the draws of encoder(x)",
            type(law).__name__,
            "draws that follow torch.manual_seed",
            "draw with torch's generators",
        )
    return z


def bfloat16_error(model: TorchModel, x: Tensor, seed: int) -> tuple[float, float]:
    """How far bfloat16 products move log p(x | z) from float32's: mean and largest absolute difference, in nats.

    Measured at 16 draws for each of up to 16 examples.
    """
    with torch.inference_mode():
        places = torch.linspace(0, len(x) - 1, min(len(x), _DRAWS), device=x.device).long()
        rows = x[places]
        law = model.law("encoder", rows)
        with random_state(x.device, scattered_seed(seed, Purpose.PROBE, 1)):
            z = model.sample("encoder", law, (_DRAWS,)).flatten(0, 1)
        rows = rows.repeat(_DRAWS, *[1] * (x.ndim - 1))
        exact = model.law("likelihood", z)
        with decoding("bfloat16", x.device):
            rounded = in_float32(model.law("likelihood", z))
        values = [
            model.log_prob("likelihood", each, rows, tuple(x.shape[1:]), allow_nan=True).double()
            for each in (exact, rounded)
        ]
        gaps = (values[0] - values[1]).abs().nan_to_num(0.0, posinf=0.0)
        return float(gaps.mean()), float(gaps.max())


__all__ = ["Probe", "bfloat16_error", "probe"]
