"""Draws of an item from the encoder's law, with their log-density.

A Gaussian encoder is reparametrised: z is its mean plus its scale times standard normals that depend on their place
alone, and log q(z|x) is read off those normals. Any other law is sampled by torch, with a seed for each unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import require
from boundcheck.evaluators.draws import as_gaussian
from boundcheck.evidence.normals import box_muller, words_of
from boundcheck.evidence.streams import UNIT, Item, device_normals, generator, samples_at_once, scattered_seed
from boundcheck.models.torch_model import random_state

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Distribution

    from boundcheck.evidence.weights import Weigher
else:
    torch = require("torch", extra="torch", feature="log-weights of a trained model")
    Tensor = torch.Tensor

LOG_ROOT_TAU = 0.5 * math.log(2 * math.pi)


def summed(values: Tensor) -> Tensor:
    """The sum over all but the first axis, in float64."""
    return values.flatten(1).sum(-1, dtype=torch.float64) if values.ndim > 1 else values.double()


def proposal_of(weigher: Weigher, law: Distribution, item: Item, examples: slice) -> Proposal:
    """How some examples of an item are drawn from the encoder's law at them."""
    gaussian = as_gaussian(law)
    if gaussian is not None:
        return GaussianProposal(weigher, *gaussian, item, examples)
    return SampledProposal(weigher, law, item, examples)


class Proposal(Protocol):
    """A way to draw from the encoder's law."""

    def draws(self, count: int, rows: int) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """All draws of the item: rows and columns of (examples, draws), z of shape (*both, *event), and log q."""
        ...


class GaussianProposal:
    """z = mean + scale * noise for a Gaussian encoder, noise standard normal by its place."""

    def __init__(self, weigher: Weigher, mean: Tensor, scale: Tensor, full: bool, item: Item, examples: slice) -> None:
        self.weigher, self.mean, self.scale, self.full = weigher, mean, scale, full
        self.item, self.examples = item, examples
        diagonal = scale.diagonal(dim1=-2, dim2=-1) if full else scale
        self.log_scale = summed(diagonal.log() + LOG_ROOT_TAU)

    def noises(self, row: int, count: int, rows: int) -> Iterator[tuple[slice, Tensor]]:
        """The noise of one example, of shape (draws, *event), in pieces."""
        at_once = max(UNIT, rows // UNIT * UNIT)
        for start in range(0, count, at_once):
            span = slice(start, min(start + at_once, count))
            yield span, self._noise(slice(row, row + 1), span)[0]

    def draws(self, count: int, rows: int) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        examples = len(self.mean)
        at_once = count if count <= rows else max(UNIT, rows // UNIT * UNIT)
        together = max(1, rows // at_once) if count <= rows else 1
        for first in range(0, examples, together):
            block = slice(first, min(first + together, examples))
            mean, scale = self.mean[block], self.scale[block]
            for start in range(0, count, at_once):
                span = slice(start, min(start + at_once, count))
                noise = self._noise(block, span)
                if self.full:
                    z = mean[:, None] + noise @ scale.transpose(-1, -2)
                else:
                    z = torch.addcmul(mean[:, None], scale[:, None], noise)
                log_q = (
                    noise.reshape(*noise.shape[:2], -1).square().sum(-1, dtype=torch.float64).mul_(-0.5)
                    - self.log_scale[block, None]
                )
                yield block, span, z, log_q

    def _noise(self, block: slice, span: slice) -> Tensor:
        """Standard normals of shape (examples, draws, *event)."""
        weigher, mean = self.weigher, self.mean
        event, dtype = mean.shape[1:], mean.dtype
        examples = range(self.examples.start + block.start, self.examples.start + block.stop)
        first = self.item.samples.start + span.start
        size = span.stop - span.start
        if mean.device.type != "cpu":
            return device_normals(
                weigher.seed,
                weigher.purpose,
                torch.arange(examples.start, examples.stop, device=mean.device)[:, None],
                torch.arange(first, first + size, device=mean.device),
                event.numel(),
                dtype,
            ).reshape(len(examples), size, *event)
        # Those in float32 come from words of random bits, which is much faster; numpy's in float64 are as exact as any.
        in_words, width = dtype != torch.float64, event.numel()
        shape = (len(examples), size, words_of(width) if in_words else width)
        drawn: NDArray[Any] = np.empty(shape, np.uint64 if in_words else np.float64)
        for row, example in enumerate(examples):
            source = generator(weigher.seed, weigher.purpose, example, first)
            place: Any = source.bit_generator.state
            draw = source.bit_generator.random_raw if in_words else source.standard_normal
            for start in range(0, size, UNIT):
                # The place of a unit is its first sample, so that it is the same unit in a job of more samples. To move
                # a generator there takes a fraction of the time in which another one is made.
                place["state"]["counter"][2] = first + start
                source.bit_generator.state = place
                unit = drawn[row, start : start + UNIT]
                unit[...] = draw(unit.shape)
        noise = box_muller(drawn, width, overwrite=True) if in_words else torch.from_numpy(drawn)
        return noise.reshape(len(examples), size, *event).to(mean.device, dtype)


class SampledProposal:
    """Draws of any other law, by its own `sample`, with a seed for each unit of a whole block of examples."""

    def __init__(self, weigher: Weigher, law: Distribution, item: Item, examples: slice) -> None:
        self.weigher, self.law, self.item = weigher, law, item
        self.examples = examples
        layout = weigher.layout
        entries = max(1, math.prod(law.event_shape))
        self.at_once = samples_at_once(layout.block, entries)
        units = math.ceil(layout.span / self.at_once)
        self.first_unit = item.index * units
        if examples != item.examples:  # an example on its own has seeds that no block has
            self.first_unit = (len(layout) + examples.start * layout.spans + item.index % layout.spans) * units

    def draws(self, count: int, rows: int) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        weigher, law = self.weigher, self.law
        everyone = slice(0, self.examples.stop - self.examples.start)
        for unit, start in enumerate(range(0, count, self.at_once)):
            span = slice(start, min(start + self.at_once, count))
            seed = scattered_seed(weigher.seed, weigher.purpose, self.first_unit + unit)
            with random_state(weigher.x.device, seed):
                z = weigher.model.sample("encoder", law, (span.stop - span.start,))
            log_q = weigher.model.log_prob("encoder", law, z, tuple(law.event_shape), allow_nan=True).double()
            yield everyone, span, z.transpose(0, 1), log_q.T


__all__ = ["LOG_ROOT_TAU", "GaussianProposal", "Proposal", "SampledProposal", "proposal_of", "summed"]
