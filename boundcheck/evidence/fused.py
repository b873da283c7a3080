"""log-weights of a decoder with Bernoulli pixels whose last layer is linear, faster than its own law computes them.

Most variational autoencoders of binary images end so: decoder(z) = Independent(Bernoulli(logits=W h(z) + b)). Their
cost is that of the last layer, of which only a sum over pixels is needed. `likelihood_of` recognises such a decoder,
whatever comes before, and computes that sum with few passes over memory. `weights_of` takes the whole log-weight in
hand where the encoder and the prior are Gaussian and the decoder is a plain chain of layers. Both compare themselves
with the model's own laws before they are used, and return None for a model that does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from boundcheck.errors import BoundcheckError, require
from boundcheck.evidence.fused_bernoulli import CHUNK, FLOATS, BernoulliHead, keep_freed_memory, linear, packed
from boundcheck.evidence.fused_trace import LastLayer, Linear, Step, input_of, last_layer
from boundcheck.models.torch_model import TorchModel, random_state

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Distribution, Independent, Normal

    from boundcheck.evidence.fused_triton import TritonHead
else:
    torch = require("torch", extra="torch", feature="log-weights of a trained model")
    Tensor = torch.Tensor
    Independent, Normal = torch.distributions.Independent, torch.distributions.Normal

_PROBES = 8
"""Latents of each kind at which a fused path is compared with the model's own laws."""
_EXAMPLES = 3
"""Examples at which whole log-weights are."""
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-12}
"""By how much of their own size log-weights may differ from the model's own: a mistake would be larger."""


def likelihood_of(model: object, x: Tensor) -> FusedLikelihood | None:
    """log p(x|z) of a model with Bernoulli pixels and a linear last layer, fused; None for any other model.

    Args:
        model: a `TorchModel` or an object with its functions, on a CPU or a CUDA device.
        x: observations of shape (examples, *event), of which a few are used for the comparison.

    >>> from torch.distributions import Bernoulli
    >>> layer = torch.nn.Linear(2, 3)
    >>> model = TorchModel(
    ...     prior=lambda: Independent(Normal(torch.zeros(2), 1.0), 1),
    ...     encoder=lambda x: Independent(Normal(x[:, :2], 0.7), 1),
    ...     decoder=lambda z: Independent(Bernoulli(logits=layer(z)), 1),
    ... )
    >>> log_prob = likelihood_of(model, torch.eye(3))
    >>> log_prob is not None and log_prob(torch.zeros(3, 2), torch.eye(3)).shape
    torch.Size([3])
    """
    wrapped = TorchModel.wrap(model)
    try:
        with torch.inference_mode(False), torch.no_grad(), random_state(x.device, 0):
            z = _probes(wrapped, x.clone())
            layer = last_layer(lambda rows: wrapped.law("likelihood", rows), z)
        if layer is None or not _usable(layer, x):
            return None
        keep_freed_memory()
        fused = FusedLikelihood(wrapped, layer)
        return fused if _agrees(fused, z, x) else None
    except (BoundcheckError, RuntimeError):  # whatever is wrong with the model, its own laws will say it better
        return None


def weights_of(model: object, x: Tensor, likelihood: FusedLikelihood | None = None) -> FusedWeights | None:
    """log w = log p(x,z) - log q(z|x), fused, of a model that `likelihood_of` knows; None for any other.

    Also needed: a CPU, encoder(x) and prior() that are Independent(Normal) on vectors, and a decoder that is a chain of
    linear layers and elementwise functions, in whatever style it is written.

    Args:
        model: a `TorchModel` or an object with its functions.
        x: observations of shape (examples, *event), all of which must be zeros and ones.
        likelihood: what `likelihood_of` gave for them, if it is known.

    >>> from torch.distributions import Bernoulli
    >>> layer = torch.nn.Linear(2, 3)
    >>> model = TorchModel(
    ...     prior=lambda: Independent(Normal(torch.zeros(2), 1.0), 1),
    ...     encoder=lambda x: Independent(Normal(x[:, :2], 0.7), 1),
    ...     decoder=lambda z: Independent(Bernoulli(logits=layer(z)), 1),
    ... )
    >>> x = torch.eye(3)
    >>> weights = weights_of(model, x)
    >>> block = weights and weights.block(model.law("encoder", x), x)
    >>> block is not None and block[0](torch.zeros(5, 2)).shape
    torch.Size([5])
    """
    wrapped = TorchModel.wrap(model)
    likelihood = likelihood or likelihood_of(wrapped, x)
    if likelihood is None or likelihood.layer.chain is None or x.device.type != "cpu" or not is_binary(x):
        return None
    try:
        with torch.inference_mode():
            moments = _moments(wrapped.law("prior"))
            if moments is None:
                return None
            fused = FusedWeights(likelihood, *moments)
            return fused if _weights_agree(fused, wrapped, x[:_EXAMPLES]) else None
    except (BoundcheckError, RuntimeError):
        return None


# --- the likelihood ---


class FusedLikelihood:
    """(z, x) -> log p(x|z) in nats, in float64; `likelihood_of` makes it.

    Whatever the fused path cannot take (grey pixels, other shapes, weights that have changed since) goes through the
    model's own law, so it gives the same numbers or the same errors.
    """

    def __init__(self, model: TorchModel, layer: LastLayer) -> None:
        self.model, self.layer = model, layer
        self.head = _head(layer)

    def __call__(self, z: Tensor, x: Tensor, which: Tensor | None = None) -> Tensor:
        """Log p(x|z) row by row.

        Args:
            z: shape (rows, *latent).
            x: zeros and ones of shape (examples, *event).
            which: which example a row belongs to, int64 of shape (rows,); None if there is one example for each row, or
                a single one for all, which is faster.

        Returns:
            float64, of shape (rows,).

        Raises:
            BadInput: as `TorchModel.law` and `TorchModel.log_prob`.
        """
        if len(x) and x.stride(0) == 0:  # one example for all rows
            x, which = x[:1], None
        pixels = x.flatten(1)
        if self.layer.unchanged and pixels.shape[1] == self.head.pixels and is_binary(x):
            with torch.no_grad():
                h = input_of(self.layer, lambda: self.model.law("likelihood", z))
                if h is not None and len(h) == len(z) and h.dtype == self.head.weight.dtype:
                    return self._fused(h, pixels, which)
        law = self.model.law("likelihood", z)
        places = torch.arange(len(z), device=x.device) if which is None else which
        point = x.expand(len(z), *x.shape[1:]) if which is None else x[which]
        event = tuple(x.shape[1:])
        return self.model.log_prob("likelihood", law, point, event, lambda row: f"x[{int(places[row])}]").double()

    def _fused(self, h: Tensor, pixels: Tensor, which: Tensor | None) -> Tensor:
        if not isinstance(self.head, BernoulliHead):
            return self.head.log_prob(h, pixels, which)
        pixels = pixels.to(h.dtype)
        if len(pixels) == 1:
            return self.head.at(pixels[0])(h)
        return self.head.log_prob(h, pixels if which is None else pixels[which])


def is_binary(x: Tensor) -> bool:
    """True if all entries are zeros or ones."""
    return bool(((x == 0) | (x == 1)).all())


def _probes(model: TorchModel, x: Tensor) -> Tensor:
    """Latents where a model is used: draws of the encoder, of the prior, and far out from both."""
    near = model.sample("encoder", model.law("encoder", x[:_PROBES]), ())
    prior = model.sample("prior", model.law("prior"), (_PROBES,)).to(near.dtype)
    return torch.cat([near, prior, 5 * near, 5 * prior])


def _usable(layer: LastLayer, x: Tensor) -> bool:
    weight = layer.weight
    if weight.device != x.device or weight.shape[0] != x[0].numel():
        return False
    if weight.device.type == "cuda":
        return weight.dtype == torch.float32 and find_spec("triton") is not None
    return weight.device.type == "cpu" and weight.dtype in FLOATS


def _head(layer: LastLayer) -> BernoulliHead | TritonHead:
    if layer.weight.device.type == "cpu":
        return BernoulliHead(layer.weight, layer.bias)
    from boundcheck.evidence.fused_triton import TritonHead

    return TritonHead(layer.weight, layer.bias)


def _agrees(fused: FusedLikelihood, z: Tensor, x: Tensor) -> bool:
    """True if the fused path gives what the model's own law gives, within the rounding error of both."""
    x = x[torch.arange(len(z), device=x.device) % len(x)]
    binary = (x > 0.5).to(x.dtype)  # grey pixels are left to the model's own law, which refuses them
    h = input_of(fused.layer, lambda: fused.model.law("likelihood", z))
    law = fused.model.law("likelihood", z)
    if h is None or len(h) != len(z) or law.event_shape != x.shape[1:]:
        return False
    plain = law.log_prob(binary).double()
    return bool(((fused(z, binary) - plain).abs() <= 2 * fused.head.error_bound(h, plain)).all())


# --- the whole log-weight ---


class FusedWeights:
    """log w = log p(x|z) + log p(z) - log q(z|x) as a function of standard normal noise; `weights_of` makes it."""

    def __init__(self, likelihood: FusedLikelihood, mean: Tensor, scale: Tensor) -> None:
        layer, head = likelihood.layer, likelihood.head
        self.head = head if isinstance(head, BernoulliHead) else BernoulliHead(layer.weight, layer.bias)
        self.first, *rest = layer.chain or (None,)
        self.rest = [_packed(step) for step in rest]
        self.prior_mean, self.prior_scale = mean.double(), scale.double()

    def block(self, encoder: Distribution, x: Tensor) -> FusedBlock | None:
        """The weights at some examples.

        Args:
            encoder: q(z|x), with one law for each example.
            x: zeros and ones of shape (examples, *event).

        Returns:
            None if this law is not Gaussian, or of another shape.
        """
        moments = _moments(encoder)
        if moments is None or moments[0].shape != (len(x), len(self.prior_mean)):
            return None
        return FusedBlock(self, x.flatten(1), *moments)


class FusedBlock(Sequence["FusedExample"]):
    """The weights at some examples; each is made when it is asked for, and takes as much memory as the last layer."""

    def __init__(self, weights: FusedWeights, pixels: Tensor, mean: Tensor, scale: Tensor) -> None:
        self.weights, self.pixels, self.mean, self.scale = weights, pixels, mean, scale

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> FusedExample:  # type: ignore[override]
        with torch.no_grad():
            return FusedExample(self.weights, self.pixels[index], self.mean[index], self.scale[index])


class FusedExample:
    """noise -> log w at one example, in nats: (rows, latent) standard normals to (rows,) float64, z = m + s noise.

    With d = (m - m0)/s0 and r = s/s0, where p(z) = N(m0, s0^2), the quadratic part is
    log p(z) - log q(z|x) = sum [log r - d^2/2 - d r noise + (1 - r^2) noise^2 / 2]. m and s go into the first layer.

    Attributes:
        largest: of |log p(x|z)| among all that was computed: what rounding errors are relative to.
    """

    def __init__(self, weights: FusedWeights, pixels: Tensor, mean: Tensor, scale: Tensor) -> None:
        dtype = weights.head.weight.dtype
        mean, scale = mean.double(), scale.double()
        offset, ratio = (mean - weights.prior_mean) / weights.prior_scale, scale / weights.prior_scale
        constant = float((ratio.log() - offset.square() / 2).sum())
        self.constant = constant if math.isfinite(constant) else math.nan  # a density of 0 or inf gives no weight
        self.slope, self.curvature = (-offset * ratio).to(dtype), ((1 - ratio.square()) / 2).to(dtype)
        self.head, self.steps, first = weights.head.at(pixels), weights.rest, weights.first
        self.mean, self.scale = mean.to(dtype), scale.to(dtype)
        self.takes_noise = isinstance(first, Linear)
        if isinstance(first, Linear):
            weight = first.weight.double()
            bias = weight @ mean if first.bias is None else weight @ mean + first.bias.double()
            first = Linear((weight * scale).to(dtype), bias.to(dtype), first.activation)
        if first is not None:
            self.steps = [_packed(first), *self.steps]
        self.largest = 0.0

    def __call__(self, noise: Tensor) -> Tensor:
        """Log w for each row of noise, in chunks that fit the cache."""
        with torch.no_grad():
            chunks = [self._chunk(rows) for rows in noise.split(CHUNK)]
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks)

    def _chunk(self, noise: Tensor) -> Tensor:
        quadratic = torch.addcmul(self.slope, noise, self.curvature).mul_(noise).sum(1)
        h = noise if self.takes_noise else torch.addcmul(self.mean, noise, self.scale)
        for step in self.steps:
            h = _applied(step, h)
        log_prob = self.head(h)
        self.largest = max(self.largest, -float(log_prob.min()))
        return log_prob.add_(quadratic).add_(self.constant)


def _packed(step: Step) -> Step:
    if not isinstance(step, Linear):
        return step
    bias = step.weight.new_zeros(len(step.weight)) if step.bias is None else step.bias
    return Linear(packed(step.weight.detach()), bias.detach(), step.activation)


def _applied(step: Step, h: Tensor) -> Tensor:
    if isinstance(step, Linear):
        assert step.bias is not None
        return linear(h, step.weight, step.bias, step.activation)
    return step.function(h, *step.args, **step.kwargs)


def _moments(law: Distribution) -> tuple[Tensor, Tensor] | None:
    """Mean and scale of an Independent(Normal) whose event is a vector."""
    if type(law) is not Independent or type(law.base_dist) is not Normal or len(law.event_shape) != 1:
        return None
    return law.base_dist.loc, law.base_dist.scale


def _weights_agree(fused: FusedWeights, model: TorchModel, x: Tensor) -> bool:
    """True if the fused log-weights are the model's own, within rounding, at some draws of each of some examples."""
    encoder = model.law("encoder", x)
    block = fused.block(encoder, x)
    moments = _moments(encoder)
    if block is None or moments is None:
        return False
    mean, scale = moments
    if mean.dtype != fused.head.weight.dtype:
        return False
    source = torch.Generator().manual_seed(0)
    prior = model.law("prior")
    for row in range(len(x)):
        noise = torch.randn(_PROBES, mean.shape[1], generator=source, dtype=mean.dtype)
        z = mean[row] + scale[row] * noise
        given = x[row].expand(_PROBES, *x.shape[1:])
        quadratic = noise.square().sum(1) / 2 + (scale[row].log() + math.log(2 * math.pi) / 2).sum()
        parts = [model.law("likelihood", z).log_prob(given), prior.log_prob(z), quadratic]
        plain = sum(part.double() for part in parts)
        size = sum(part.double().abs() for part in parts)
        if not bool(((block[row](noise) - plain).abs() <= _TOLERANCE[mean.dtype] * (1 + size)).all()):
            return False
    return True


__all__ = ["FusedBlock", "FusedExample", "FusedLikelihood", "FusedWeights", "is_binary", "likelihood_of", "weights_of"]
