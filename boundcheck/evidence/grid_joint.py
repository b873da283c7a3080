"""log p(x, z) of a model with a latent of one or two dimensions, as quadrature asks for it: at many z for one x.

Where the mass may be is told by the prior's own draws and by the encoder; both are only hints of where to look.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, CannotCompute, require
from boundcheck.evidence.chain_block import refuse_constrained
from boundcheck.evidence.grid_seeds import places_of_note
from boundcheck.evidence.weights import unvalidated
from boundcheck.models.torch_functions import check_function
from boundcheck.models.torch_model import TorchModel, out_of_memory, random_state

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="quadrature over a torch model's latent")
    Tensor = torch.Tensor

Floats = NDArray[np.float64]
NAME = "grid_evidence"
REACH = 9.0
"""Spreads of the prior, or of the encoder's law, within which its mass lies."""
_PRIOR_DRAWS = 8192


class Joint:
    """log p(x_i, z) at many z, and where its mass may be."""

    def __init__(self, model: TorchModel, x: Tensor, rows: int) -> None:
        self.model, self.x, self.rows = model, x, rows
        self.prior = model.law("prior")
        refuse_constrained(NAME, self.prior, "prior()")
        self.event = tuple(self.prior.event_shape)
        self.dimensions = math.prod(self.event)
        if self.dimensions not in (1, 2):
            reason = f"it has {self.dimensions} dimensions, and a grid serves for one or two; annealing serves for more"
            raise CannotCompute(NAME, "prior()", reason)
        with torch.no_grad(), random_state(x.device, 0):
            self.like = model.sample("prior", self.prior, ())
        with torch.no_grad(), random_state(self.like.device, 0):
            draws = model.sample("prior", self.prior, (_PRIOR_DRAWS,)).reshape(_PRIOR_DRAWS, -1).double().cpu().numpy()
        self.center = np.median(draws, axis=0)
        low, high = np.quantile(draws, [0.16, 0.84], axis=0)  # the law may have no variance, and then this serves
        self.spread = np.maximum((high - low) / 2, 1e-12)
        self.draws, self.noted = draws, places_of_note(draws, self.center, self.spread, REACH)
        with torch.no_grad(), unvalidated():
            z = torch.as_tensor(draws, dtype=self.like.dtype, device=self.like.device).reshape(-1, *self.event)
            self.log_prior = self.prior.log_prob(z).double().cpu().numpy()
        self._check()

    def _check(self) -> None:
        """Shapes and supports, in the words of the user's model."""
        z = self.like.expand(len(self.x), *self.event)
        with torch.no_grad(), unvalidated():
            law = self.model.law("likelihood", z)
            check_function(self.model, "likelihood", (z,), law)
            try:
                self.model.log_prob("likelihood", law, self.x, tuple(self.x.shape[1:]), lambda row: f"x[{row}]")
            except BadInput as error:
                if error.expected != "a number":  # NaN is the business of the example that it happens to
                    raise

    def seeds(self, example: int) -> tuple[Floats, Floats]:
        """What the encoder points at, if it does, and far parts of the prior: places and widths."""
        try:
            with torch.no_grad(), unvalidated():
                law = self.model.law("encoder", self.x[example : example + 1])
                mean, spread = (each.reshape(1, -1).double().cpu().numpy() for each in (law.mean, law.stddev))
        except Exception:  # a law without moments, or an encoder that fails: the grid does without
            return self.noted
        sound = mean.shape == (1, self.dimensions) and np.isfinite(mean).all() and np.isfinite(spread).all()
        kept = slice(0, 1 if sound and bool((spread > 0).all()) else 0)
        places, widths = self.noted
        return np.concatenate([mean[kept], places]), np.concatenate([spread[kept], widths])

    def at(self, example: int, points: Floats) -> Floats:
        """log p(x, z) at points of shape (n, dimensions)."""
        parts, first = [], 0
        while first < len(points):
            try:
                parts.append(self._block(example, points[first : first + self.rows]))
                first += self.rows
            except Exception as error:
                if not out_of_memory(error) or self.rows == 1:
                    raise
                self.rows //= 2
        return np.concatenate(parts)

    def _block(self, example: int, points: Floats) -> Floats:
        with torch.no_grad(), unvalidated():
            block = torch.as_tensor(points, dtype=self.like.dtype, device=self.like.device)
            z = block.reshape(len(block), *self.event)
            x = self.x[example].expand(len(block), *self.x.shape[1:])
            value = self.prior.log_prob(z) + self.model.law("likelihood", z).log_prob(x)
        return value.double().cpu().numpy()


__all__ = ["REACH", "Joint"]
