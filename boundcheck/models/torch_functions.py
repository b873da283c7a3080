"""Whether a law of a model is a function of its argument, row by row, as all that is computed from it supposes.

Dropout, batch normalisation in training mode, a law that hangs on the other rows of its batch, or one that writes to
its argument, would each give a number that belongs to no model at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from boundcheck.errors import BadInput, require
from boundcheck.models.torch_model import NAMES, TorchModel
from boundcheck.models.torch_state import generator_state, plain, random_state, with_inner_gradients
from boundcheck.models.torch_watch import Seen, watched

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Distribution
else:
    torch = require("torch", extra="torch", feature="a torch model")
    Tensor = torch.Tensor

_SAME_LAW = 1e-3
"""Two calls of one function may differ by this much in a log-density, relatively, before it counts as random."""
_PROBED_ROWS = 64


class NoFunction(BadInput):
    """A law that is no function of its argument, row by row: a mistake of the model, and not of an example."""


def check_function(model: TorchModel, role: str, args: Sequence[Tensor], law: Distribution) -> None:
    """Refuse a model that is no function of its argument, row by row: dropout, batch normalisation in training.

    The law of some of the rows, computed on their own and with another random state, must be the same law. Nor may
    the argument be written to: its own density, taken later, would be that of another point.

    Raises:
        NoFunction: naming the function.
    """
    shown = NAMES[role]
    rows = min(_PROBED_ROWS, (args[0].shape[0] + 1) // 2) if args else 0
    device = args[0].device if args else torch.device("cpu")
    with random_state(device, 1):
        point = model.sample(role, law, ())
        first = _probe(model, law, point)
    with random_state(device, 2):
        other = model.law(role, *(arg[:rows] for arg in args))
        again = _probe(model, other, point[:rows] if args else point)
    first = first[:rows] if args else first
    _check_same(shown, first, again)
    laws: list[Distribution] = []

    def look(seed: int, disturb: bool) -> tuple[Seen, Tensor]:
        with random_state(device, seed):
            few = (arg[:rows] for arg in args)
            before = generator_state(device)
            seen = watched(lambda *few: laws.append(model.law(role, *few)), *few, disturb=disturb, lasting=False)
            after = generator_state(device)
        return seen, after[:0] if torch.equal(before, after) else after

    call, left = look(2, disturb=False)
    if call.changes:
        remedy = "use operations without a trailing underscore, and inplace=False in the first layer"
        raise NoFunction(shown, "a function that writes to its argument", "one that leaves it as it was", remedy)
    # Draws of a function that seeds torch itself, at each call, are no chance.
    if call.random and not torch.equal(left, look(3, disturb=False)[1]):
        # A rare draw, as of a weak dropout, may have been missed above; with all draws turned round, it cannot be.
        look(2, disturb=True)
        place = point[:rows] if args else point
        _check_same(shown, *(_probe(model, law, place) for law in (laws[0], laws[-1])))


def _check_same(shown: str, first: Tensor, again: Tensor) -> None:
    same = (first == again) | ((first - again).abs() <= _SAME_LAW * (1 + first.abs()))
    if not bool((same | first.isnan() | again.isnan()).all()):
        gap = float((first - again).abs().nan_to_num(0.0).max())
        raise NoFunction(
            shown,
            f"log-densities that differ by {gap:.3g} between two calls",
            "one law for each row, the same at every call",
            "call model.eval(): dropout or batch normalisation in training mode makes the law random",
        )


def _probe(model: TorchModel, law: Distribution, point: Tensor) -> Tensor:
    try:
        with with_inner_gradients(model.inner_gradients):
            return law.log_prob(plain(point) if model.inner_gradients else point).double()
    except Exception:  # the evaluation itself will meet it, and says it better
        return torch.full(tuple(law.batch_shape), math.nan, dtype=torch.float64, device=point.device)


__all__ = ["NoFunction", "check_function"]
