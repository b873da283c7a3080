"""The log-weights of one item of work: draw, decode, subtract.

log w(z) = log p(z) + log p(x|z) - log q(z|x) for z ~ q(.|x), drawn as `proposals` says. A chunk says how many rows the
model sees at once and nothing else; it is halved when memory runs out. An example that cannot be evaluated is named,
and the others of its item are evaluated. What the model computes is summed in float64.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from boundcheck.errors import BadInput, BoundcheckError, require
from boundcheck.evaluators.draws import concatenated
from boundcheck.evidence.fused_bernoulli import CHUNK
from boundcheck.evidence.proposals import LOG_ROOT_TAU, GaussianProposal, proposal_of, summed
from boundcheck.evidence.streams import UNIT, Item, Layout, Purpose
from boundcheck.evidence.weight_run import ROUNDINGS
from boundcheck.models.torch_model import TorchModel, out_of_memory, refuse_data
from boundcheck.models.torch_state import module_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Bernoulli, Distribution, Independent, Normal

    from boundcheck.evidence.fused import FusedWeights
else:
    torch = require("torch", extra="torch", feature="log-weights of a trained model")
    Tensor = torch.Tensor
    Bernoulli, Distribution, Independent, Normal = (
        getattr(torch.distributions, name) for name in ("Bernoulli", "Distribution", "Independent", "Normal")
    )

_NOISE_NUMBERS = 1 << 16
"""Normals that are drawn at once for a fused log-weight, which cuts their rows into chunks of its own."""


@dataclass
class Weighed:
    """Log-weights of an item: float64, of shape (draws, examples); a column of NaN for each example that failed.

    Attributes:
        values: log w, in nats.
        failed: why, by the number of the example among all.
        rounding: an estimate, in nats, of the error of the model's own arithmetic.
    """

    values: Tensor
    failed: dict[int, str] = field(default_factory=dict)
    rounding: float = 0.0


class Weigher:
    """Computes the log-weights of any item of a job, on any thread.

    Args:
        model: the model.
        x: all observations.
        layout: the cut of the job.
        seed: of all draws.
        purpose: what the draws are for.
        chunk: the most rows handed to the decoder at once; halved when memory runs out.
        dtype: "bfloat16" for the decoder's matrix products; None leaves the model as it is.
        likelihood: log p(x | z) in float64 for rows of z, examples, and which example a row belongs to; in place of the
            decoder's own law.
        observed: some decoder's law, if the support of its family is always the same.
        fused: the whole log-weight as a function of the encoder's noise, where that is faster.
    """

    def __init__(
        self,
        model: TorchModel,
        x: Tensor,
        layout: Layout,
        *,
        seed: int,
        purpose: Purpose,
        chunk: int,
        dtype: str | None = None,
        likelihood: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        observed: Distribution | None = None,
        fused: FusedWeights | None = None,
    ) -> None:
        self.fused = fused
        self.model, self.x, self.layout, self.observed = model, x, layout, observed
        self.seed, self.purpose, self.chunk, self.dtype, self.likelihood = seed, purpose, chunk, dtype, likelihood
        self.notes: list[str] = []
        self._lock = threading.Lock()
        with torch.inference_mode():
            self.prior = model.law("prior")

    def __call__(self, item: Item) -> Weighed:
        """The log-weights of an item.

        Raises:
            BadInput: there is not even memory for a single row.
        """
        while True:
            rows = self.chunk
            try:
                with torch.inference_mode():
                    return self._item(item)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                if rows == 1:
                    remedy = f"{type(error).__name__}; use a smaller model or a larger machine"
                    raise BadInput("chunk", 1, "memory for a single row", remedy) from error
            self._halve(rows)  # only now has the failed attempt let go of its tensors

    def _halve(self, rows: int) -> None:
        """Half the chunk that was too large, unless another thread has done so already."""
        with self._lock:
            if self.chunk == rows:
                self.chunk = rows // 2
                place = "" if self.x.device.type == "cpu" else f"{self.x.device.type.upper()} "
                self.notes.append(f"{place}out of memory: the chunk was halved to {self.chunk}")
        if self.x.device.type != "cpu":
            module_of(self.x.device).empty_cache()

    # --- an item ---

    def _item(self, item: Item) -> Weighed:
        try:
            return self._weighed(item, item.examples)
        except BoundcheckError as error:
            if item.examples.stop - item.examples.start == 1:
                return self._lost(item, item.examples.start, error)
        # Some example of the block cannot be evaluated: find out which, and keep the others.
        parts = []
        for index in range(item.examples.start, item.examples.stop):
            try:
                parts.append(self._weighed(item, slice(index, index + 1)))
            except BoundcheckError as error:
                parts.append(self._lost(item, index, error))
        failed = {index: why for part in parts for index, why in part.failed.items()}
        return Weighed(torch.cat([part.values for part in parts], 1), failed, max(part.rounding for part in parts))

    def _lost(self, item: Item, index: int, error: Exception) -> Weighed:
        draws = item.samples.stop - item.samples.start
        values = torch.full((draws, 1), math.nan, dtype=torch.float64, device=self.x.device)
        return Weighed(values, {index: str(error)})

    def _weighed(self, item: Item, examples: slice) -> Weighed:
        x = self.x[examples]
        draws = item.samples.stop - item.samples.start
        result = torch.empty((len(x), draws), dtype=torch.float64, device=x.device)
        pass_ = _Pass(self, x, examples.start)
        for why in pass_.failed.values():
            raise _Unsupported(why)
        law = self._encoder(x)
        proposal = proposal_of(self, law, item, examples)
        block = self.fused.block(law, x) if self.fused is not None and draws >= UNIT else None
        if block is not None and isinstance(proposal, GaussianProposal):
            rows = max(1, _NOISE_NUMBERS // max(1, proposal.mean[0].numel()) // CHUNK) * CHUNK
            for row in range(len(x)):
                weight = block[row]
                for columns, noise in proposal.noises(row, draws, rows):
                    result[row, columns] = weight(noise)
                    del noise  # before the next is drawn
                if not math.isfinite(float(proposal.log_scale[row])):
                    result[row] = math.nan
                pass_.note_rounding(weight.largest, x.dtype)
            return self._examined(item, examples, result.T, pass_)
        for rows, columns, z, log_q in proposal.draws(draws, max(1, self.chunk)):
            result[rows, columns] = pass_.log_joint(z, x[rows], rows.start) - log_q
            # A density of zero or infinity at its own draw is no weight at all.
            result[rows, columns][~log_q.isfinite()] = math.nan
        return self._examined(item, examples, result.T, pass_)

    def _examined(self, item: Item, examples: slice, values: Tensor, pass_: _Pass) -> Weighed:
        """The log-weights, with the examples named that have one that is no number."""
        failed: dict[int, str] = {}
        wrong = values.isnan() | (values == math.inf)
        if bool(wrong.any()):
            for column in wrong.any(0).nonzero().flatten().tolist():
                draw = int(wrong[:, column].nonzero()[0])
                what = "NaN" if math.isnan(float(values[draw, column])) else "+inf"
                failed.setdefault(
                    examples.start + column, f"the log-weight of draw {item.samples.start + draw} is {what}"
                )
        for index in failed:
            values[:, index - examples.start] = math.nan
        return Weighed(values, failed, pass_.rounding)

    def _encoder(self, x: Tensor) -> Distribution:
        """q(z|x) at all rows, from no more than a chunk of them at once where its family is known."""
        chunk = max(1, self.chunk)
        parts = [self.model.law("encoder", x[:chunk])]
        if len(x) > chunk and concatenated(parts) is not None:
            parts += [self.model.law("encoder", x[start : start + chunk]) for start in range(chunk, len(x), chunk)]
            law = concatenated(parts)
            if law is not None:
                return law
        return parts[0] if len(x) <= chunk else self.model.law("encoder", x)


class _Unsupported(BoundcheckError):
    """An observation is outside the decoder's support."""


class _Pass:
    """log p(x, z) at some examples, in chunks, with what was found out on the way."""

    def __init__(self, weigher: Weigher, x: Tensor, first: int) -> None:
        self.weigher, self.first = weigher, first
        self.event = tuple(x.shape[1:])
        self.x = x
        self.failed: dict[int, str] = {}
        self.rounding = 0.0
        self.supported = False
        if weigher.observed is not None:
            self._check_support(weigher.observed)

    def log_joint(self, z: Tensor, x: Tensor, row: int) -> Tensor:
        """log p(z) + log p(x | z), float64 of shape (examples, draws), for z of shape (examples, draws, *event)."""
        examples, draws = z.shape[:2]
        flat = z.reshape(examples * draws, *z.shape[2:])
        parts, chunk = [], max(1, self.weigher.chunk)
        for start in range(0, len(flat), chunk):
            part = flat[start : start + chunk]
            if self.weigher.likelihood is not None:
                which = torch.arange(start, start + len(part), device=x.device) // draws
                parts.append(self._noted(self.weigher.likelihood(part, x, which), z.dtype))
                continue
            if examples == 1:
                given = x.expand(len(part), *x.shape[1:])
            elif len(part) == len(flat):
                given = x.repeat_interleave(draws, 0, output_size=len(flat))
            else:
                given = x[torch.arange(start, start + len(part), device=x.device) // draws]
            parts.append(self._log_likelihood(part, given, lambda i, start=start: row + (start + i) // draws))
        value = parts[0] if len(parts) == 1 else torch.cat(parts)
        return (value + self._log_prior(flat)).reshape(examples, draws)

    def _log_prior(self, z: Tensor) -> Tensor:
        prior = self.weigher.prior
        if isinstance(prior, Independent) and type(prior.base_dist) is Normal and prior.event_shape == z.shape[1:]:
            base = prior.base_dist
            return summed(((z - base.loc) / base.scale).square().mul_(-0.5) - base.scale.log() - LOG_ROOT_TAU)
        return self.weigher.model.log_prob("prior", prior, z, z.shape[1:], allow_nan=True).double()

    def _log_likelihood(self, z: Tensor, x: Tensor, row: Callable[[int], int]) -> Tensor:
        weigher = self.weigher
        with decoding(weigher.dtype, z.device):
            law = weigher.model.law("likelihood", z)
        if weigher.dtype is not None:
            law = in_float32(law)
        value = weigher.model.log_prob(
            "likelihood",
            law,
            x,
            self.event,
            lambda i: f"x[{self.first + row(i)}]",
            supported=self.supported,
            allow_nan=True,
        )
        return self._noted(value, z.dtype)

    def _noted(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        if value.numel():
            self.note_rounding(float(value.abs().nan_to_num(0.0, posinf=0.0).max()), dtype)
        return value.double()

    def note_rounding(self, largest: float, dtype: torch.dtype) -> None:
        """Keep an estimate, in nats, of how far off arithmetic in a type may make a log-density of that size."""
        eps = torch.finfo(dtype if dtype.is_floating_point else torch.get_default_dtype()).eps
        if math.isfinite(largest):
            self.rounding = max(self.rounding, ROUNDINGS * eps * largest)

    def _check_support(self, law: Distribution) -> None:
        """Data outside a support that is the same for every latent are found once, not at every draw."""
        constraint = law.support
        inside = None if constraint is None else constraint.check(self.x)
        if inside is None or tuple(inside.shape) != (len(self.x),):
            return
        for index in (~inside).nonzero().flatten().tolist():
            try:
                row = slice(index, index + 1)
                refuse_data(law, self.x[row], inside[row], lambda _, index=index: f"x[{self.first + index}]")
            except BadInput as error:
                self.failed[self.first + index] = str(error)
        self.supported = True


# --- arithmetic ---


def decoding(dtype: str | None, device: torch.device) -> AbstractContextManager[object]:
    """The decoder's matrix products in bfloat16, or as they are."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=torch.bfloat16)


def in_float32(law: Distribution) -> Distribution:
    """A likelihood whose parameters came out of bfloat16 products, as a law in float32.

    Raises:
        BadInput: a law other than a Bernoulli or a normal one.

    >>> in_float32(Independent(Bernoulli(logits=torch.zeros(3, 2, dtype=torch.bfloat16)), 1)).base_dist.logits.dtype
    torch.float32
    """
    base, axes = law, 0
    while type(base) is Independent:
        base, axes = base.base_dist, axes + base.reinterpreted_batch_ndims
    if type(base) is Bernoulli:
        base = Bernoulli(logits=base.logits.float())
    elif type(base) is Normal:
        base = Normal(base.loc.float(), base.scale.float())
    else:
        expected = "float32 for a decoder's law other than Bernoulli or Normal"
        raise BadInput("dtype", "bfloat16", expected, f"this one's law is {type(base).__name__}")
    return Independent(base, axes) if axes else base


@contextmanager
def unvalidated() -> Iterator[None]:
    """Laws without torch's own checks for a while: they cost more than the densities, and refuse a whole batch for one
    row. What they would find is found here, as NaN, row by row.
    """
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


__all__ = ["Weighed", "Weigher", "decoding", "in_float32", "unvalidated"]
