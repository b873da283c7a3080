"""The chains of annealed importance sampling: blocks of examples, their pilot, and their way through the temperatures.

A block is a fixed set of examples, so what is drawn in it depends on nothing but the job itself; the model is handed
some of its rows, pairs (chain, example), at a time. What goes in and comes out is said in `annealing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, BoundcheckError, CannotCompute, require
from boundcheck.evidence.hmc import Noise, Points, transition
from boundcheck.evidence.streams import Purpose, scattered_seed
from boundcheck.evidence.tempering import Setting, schedule
from boundcheck.evidence.weights import unvalidated
from boundcheck.models.torch_model import TorchModel, out_of_memory, random_state, support_is_discrete

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Distribution, constraints
else:
    torch = require("torch", extra="torch", feature="annealed importance sampling")
    Tensor = torch.Tensor
    Distribution, constraints = torch.distributions.Distribution, torch.distributions.constraints

Floats = NDArray[np.float64]
NAME = "annealing"
ROWS = 2048
"""Chains handed to the model at once, unless another number is asked for."""
PILOT_CHAINS = 8
_TARGET_ACCEPTANCE = 0.9
WARM_UP = 20
_BLOCK_ROWS = 4096
_MOST_EXAMPLES = 512
_ROUNDINGS = 16


@dataclass(frozen=True)
class Walked:
    """What all chains of a call brought home; see `boundcheck.evidence.annealing.AnnealedWeights`."""

    log_weights: Floats
    betas: Floats
    acceptance: Floats
    step_sizes: Floats
    rounding: float
    failed: dict[int, str]
    notes: tuple[str, ...]


class Job:
    """One call: the same blocks of examples, and the same numbers, whatever `rows` is."""

    def __init__(
        self, model: object, x: Any, setting: Setting, purpose: Purpose, progress: Callable[[int], None] | None
    ) -> None:
        self.model = TorchModel.wrap(model)
        self.x = self.model.data(x)
        self.betas = schedule(setting.temperatures, setting.kind)
        self.seed, self.purpose, self.base, self.rows = setting.seed, purpose, setting.base, setting.rows
        self.chains, self.leapfrogs = setting.chains, setting.leapfrogs
        self.progress = progress or (lambda moves: None)
        self.rounding = 0.0
        self.failed: dict[int, str] = {}
        self.notes: list[str] = []
        self.block = max(1, min(_MOST_EXAMPLES, _BLOCK_ROWS // self.chains))

    def run(self, z: Any = None) -> Walked:
        """All chains: forward from the base, or backwards from the posterior draws z."""
        posterior = None if z is None else self._posterior_draws(z)
        columns, accepted, sizes = [], [], []
        for first in range(0, len(self.x), self.block):
            drawn = None if posterior is None else posterior[first : first + self.block]
            weights, acceptance, step_sizes = self._block_of(first, drawn)
            columns.append(weights)
            accepted.append(acceptance * weights.shape[1])
            sizes.append(step_sizes * weights.shape[1])
        total = len(self.x)
        acceptance, step_sizes = np.sum(accepted, axis=0) / total, np.sum(sizes, axis=0) / total
        log_weights = np.concatenate(columns, axis=1)
        return Walked(log_weights, self.betas, acceptance, step_sizes, self.rounding, self.failed, tuple(self.notes))

    def _block_of(self, first: int, posterior: Tensor | None) -> tuple[Floats, Floats, Floats]:
        """A block's log-weights, acceptance and step sizes, with fewer rows at once where memory does not suffice."""
        while True:
            try:
                block = _Block(self, first, self.x[first : first + self.block])
                steps = block.tuned_steps()
                return *block.weights(steps, posterior), steps.mean(1).cpu().numpy()
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._halve(error)

    def _halve(self, error: Exception) -> None:
        if self.rows == 1:
            remedy = f"{type(error).__name__}; use a smaller model or a larger machine"
            raise BadInput("rows", 1, "memory for a single row", remedy) from error
        self.rows //= 2
        self.notes.append(f"out of memory: the rows handed to the model at once were halved to {self.rows}")
        if self.x.device.type == "cuda":
            torch.cuda.empty_cache()

    def _posterior_draws(self, z: Any) -> Tensor:
        drawn = torch.as_tensor(z)
        event = tuple(self.model.law("prior").event_shape)
        if tuple(drawn.shape) != (len(self.x), *event):
            raise BadInput(
                "the shape of z", tuple(drawn.shape), f"{(len(self.x), *event)}, one posterior draw per example"
            )
        if not bool(torch.isfinite(drawn).all()):
            raise BadInput("z", "not finite", "finite numbers")
        return drawn.to(self.x.device)


class _Block:
    """A fixed block of examples, whose chains are pairs (chain, example) in rows."""

    def __init__(self, job: Job, first: int, x: Tensor) -> None:
        self.job, self.first, self.x, self.size = job, first, x, len(x)
        with torch.no_grad(), unvalidated():
            self.law = job.model.law("encoder", x) if job.base == "encoder" else job.model.law("prior")
        prior = job.model.law("prior")
        for law, shown in ((prior, "prior()"), (self.law, "encoder(x)" if job.base == "encoder" else "prior()")):
            refuse_constrained(NAME, law, shown)
        self.event = tuple(prior.event_shape)
        if tuple(self.law.event_shape) != self.event:
            raise BadInput(
                "the event shape of encoder(x)", tuple(self.law.event_shape), f"{self.event}, that of prior()"
            )
        if first == 0 and job.base == "encoder":
            with unvalidated(), torch.no_grad():
                job.model.check_function("encoder", (x,), self.law)

    # --- the chains ---

    def weights(self, steps: Tensor, posterior: Tensor | None) -> tuple[Floats, Floats]:
        """Log-weights of shape (chains, examples), and the mean acceptance at each inner temperature."""
        job, count = self.job, self.job.chains * self.size
        forward = posterior is None
        start = (
            self._base_draws(job.purpose, job.chains)
            if forward
            else posterior.repeat(job.chains, *[1] * len(self.event))
        )
        self._check_model(start)
        parts, accepted = [], np.zeros(len(job.betas) - 2)
        for piece in _pieces(count, job.rows):
            values, acceptance = self._walk(piece, start[piece], steps, forward)
            parts.append(values)
            accepted += acceptance
        weights = torch.cat(parts).reshape(job.chains, self.size).cpu().numpy()
        for example in np.flatnonzero(np.isnan(weights).any(axis=0)).tolist():
            weights[:, example] = math.nan
            job.failed.setdefault(self.first + example, "a log-weight is NaN")
        return weights, accepted / count

    def _walk(self, piece: slice, start: Tensor, steps: Tensor, forward: bool) -> tuple[Tensor, Floats]:
        job, betas = self.job, self.job.betas
        rows = _Rows(self, piece, job.purpose)
        points = rows.evaluate(start)
        self._note(points, rows)
        log_weight = torch.zeros_like(points.joint)
        accepted = np.zeros(len(betas) - 2)
        last = len(betas) - 1
        for t in range(1, last + 1) if forward else range(last, 0, -1):
            log_weight = log_weight + float(betas[t] - betas[t - 1]) * (points.joint - points.base)
            inner = t if forward else t - 1
            if 0 < inner < last:
                points, acceptance = rows.move(points, inner, float(betas[inner]), steps[inner - 1])
                accepted[inner - 1] = float(acceptance.sum())
        return log_weight, accepted

    # --- the pilot ---

    def tuned_steps(self) -> Tensor:
        """Step sizes of shape (inner temperatures, examples), from chains that are used for nothing else.

        Robbins and Monro's (1951) rule drives the acceptance of each example's pilot chains to 0.9, first at b_1, then
        once at each temperature.
        """
        job = self.job
        inner = len(job.betas) - 2
        device = self.x.device
        width = math.prod(self.event) if self.event else 1
        log_step = torch.full((self.size,), math.log(0.8 * width**-0.25), dtype=torch.float64, device=device)
        if inner < 1:
            return torch.empty((0, self.size), dtype=torch.float64, device=device)
        count = PILOT_CHAINS * self.size
        start = self._base_draws(Purpose.PILOT, PILOT_CHAINS)
        pieces = [_Rows(self, piece, Purpose.PILOT) for piece in _pieces(count, job.rows)]
        states = [rows.evaluate(start[rows.piece]) for rows in pieces]
        table = []
        for move in range(1 - WARM_UP, inner + 1):
            beta = float(job.betas[max(move, 1)])
            acceptance = torch.zeros(count, dtype=torch.float64, device=device)
            for index, rows in enumerate(pieces):
                states[index], acceptance[rows.piece] = rows.move(states[index], move + WARM_UP, beta, log_step.exp())
            rate = acceptance.nan_to_num(0.0).reshape(PILOT_CHAINS, self.size).mean(0)
            log_step = log_step + 0.5 * (rate - _TARGET_ACCEPTANCE)
            if move >= 1:
                table.append(log_step)
        return _smoothed(torch.stack(table)).exp()

    # --- where they start ---

    def _base_draws(self, purpose: Purpose, chains: int) -> Tensor:
        """Draws of the base of shape (chains * examples, *event); a Gaussian's are functions of their place."""
        normal = _as_normal(self.law)
        if normal is not None:
            mean, scale = (
                each.expand(self.size, *self.event).repeat(chains, *[1] * len(self.event)) for each in normal
            )
            everyone = _Rows(self, slice(0, chains * self.size), purpose)
            return mean + scale * everyone.noise(0, mean).momentum
        block = self.first // self.job.block
        with random_state(self.x.device, scattered_seed(self.job.seed, purpose, block)):
            shape = (chains,) if self.job.base == "encoder" else (chains, self.size)
            return self.job.model.sample(self.job.base, self.law, shape).reshape(chains * self.size, *self.event)

    def scale(self) -> Tensor:
        """Standard deviations of the base, of shape (examples, *event); ones where the law does not tell."""
        ones = torch.ones(self.size, *self.event, dtype=self.x.dtype, device=self.x.device)
        try:
            spread = self.law.stddev.detach().expand(ones.shape)
        except NotImplementedError:
            return ones
        return torch.where(torch.isfinite(spread) & (spread > 0), spread, 1.0)

    # --- what may be wrong ---

    def _check_model(self, start: Tensor) -> None:
        """Shapes, supports and gradients at the first points, in the words of the user's model."""
        model, few = self.job.model, slice(0, min(len(start), 2 * self.size))
        rows, z = _Rows(self, few, self.job.purpose), start[few]
        with torch.no_grad(), unvalidated():
            law = model.law("likelihood", z)
            if self.first == 0:
                model.check_function("likelihood", (z,), law)
            try:
                event = tuple(self.x.shape[1:])
                model.log_prob("likelihood", law, rows.x, event, lambda row: f"x[{self.first + row % self.size}]")
            except BadInput as error:
                if error.expected != "a number":  # NaN is the business of the example that it happens to
                    raise
        with unvalidated(), torch.enable_grad():
            z = z.detach().requires_grad_(True)
            value = model.law("likelihood", z).log_prob(rows.x)
            gradient = torch.autograd.grad(value.sum(), z, allow_unused=True)[0] if value.requires_grad else None
        if gradient is None:
            _refuse(
                "its log-density has no gradient in z: a decoder that detaches, or leaves torch, cannot be followed"
            )
        spread = value.detach()[: len(value) // self.size * self.size].reshape(-1, self.size)
        if bool((gradient == 0).all()) and bool((spread != spread[:1]).any()):
            _refuse("its gradient in z is zero although it varies: a step function cannot be followed")

    def _note(self, points: Points, rows: _Rows) -> None:
        """Which examples have no numbers, and how large the others' are."""
        bad = points.joint.isnan() | points.base.isnan()
        for row in bad.nonzero().flatten().tolist():
            self.job.failed[int(rows.examples[row])] = "its log-density is NaN at the first point of a chain"
        largest = float(points.joint.abs().nan_to_num(0.0, posinf=0.0).max())
        eps = torch.finfo(points.z.dtype).eps
        self.job.rounding = max(self.job.rounding, _ROUNDINGS * eps * largest)


class _Rows:
    """Some rows of a block: what belongs to each of them."""

    def __init__(self, block: _Block, piece: slice, purpose: Purpose) -> None:
        self.block, self.piece, self.purpose = block, piece, purpose
        rows = torch.arange(piece.start, piece.stop, device=block.x.device)
        local = rows % block.size
        self.examples, self.chains = block.first + local, rows // block.size
        self.local, self.x = local, block.x[local]
        self.scale = block.scale()[local]
        with torch.no_grad(), unvalidated():
            job = block.job
            self.base = job.model.law("encoder", self.x) if job.base == "encoder" else job.model.law("prior")

    def noise(self, step: int, like: Tensor) -> Noise:
        return Noise.at(self.block.job.seed, self.purpose, self.examples, self.chains, step, like)

    def move(self, points: Points, step: int, beta: float, sizes: Tensor) -> tuple[Points, Tensor]:
        """One transition at b, with step sizes of the block's examples; the progress is told."""
        job = self.block.job
        moved = transition(
            self.evaluate, points, beta, sizes[self.local], self.scale, job.leapfrogs, self.noise(step, points.z)
        )
        job.progress(len(points.z))
        return moved.points, moved.acceptance

    def evaluate(self, z: Tensor) -> Points:
        """log base and log p(x,z) at z, with their gradients; NaN where the model gives NaN."""
        model = self.block.job.model
        with unvalidated(), torch.enable_grad():
            z = z.detach().requires_grad_(True)
            try:
                prior = model.law("prior").log_prob(z)
                joint = prior + model.law("likelihood", z).log_prob(self.x)
                base = prior if self.block.job.base == "prior" else self.base.log_prob(z)
                base_gradient = _gradient(base, z)
                joint_gradient = _gradient(joint, z)
            except BoundcheckError:
                raise
            except Exception as error:
                if out_of_memory(error):
                    raise
                reason = (str(error).strip().splitlines() or ["no message"])[0][:200]
                raise BadInput(
                    "the model",
                    f"z of shape {tuple(z.shape)}",
                    "log-densities that can be differentiated in z",
                    f"it raised {type(error).__name__}: {reason}",
                ) from error
        return Points(z.detach(), base.detach().double(), joint.detach().double(), base_gradient, joint_gradient)


def _gradient(value: Tensor, z: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(z)
    (gradient,) = torch.autograd.grad(value.sum(), z, retain_graph=True, allow_unused=True)
    return torch.zeros_like(z) if gradient is None else gradient.detach()


def _pieces(count: int, rows: int) -> list[slice]:
    return [slice(first, min(first + rows, count)) for first in range(0, count, rows)]


def _smoothed(log_steps: Tensor, reach: int = 2) -> Tensor:
    """Each temperature's mean with its neighbours', which takes out the pilot's noise."""
    count = len(log_steps)
    return torch.stack([log_steps[max(0, t - reach) : t + reach + 1].mean(0) for t in range(count)])


def _as_normal(law: Distribution) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of a law whose entries are independent Gaussians."""
    while type(law) is torch.distributions.Independent:
        law = law.base_dist
    return (law.loc.detach(), law.scale.detach()) if type(law) is torch.distributions.Normal else None


def refuse_constrained(evaluator: str, law: Distribution, shown: str) -> None:
    """Refuse a law of z that does not live on all of R^d.

    Raises:
        CannotCompute: a discrete or a bounded support.
    """
    if support_is_discrete(law):
        raise CannotCompute(evaluator, shown, "its support is discrete, and z has to live on R^d")
    try:
        support: Any = law.support
    except NotImplementedError:
        return
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if support is not None and type(support) is not type(constraints.real):
        reason = f"its support is {support}, not all of R^d; write the model in an unconstrained z, and transform it"
        raise CannotCompute(evaluator, shown, reason)


def _refuse(reason: str) -> None:
    raise CannotCompute(NAME, "decoder(z)", reason)


__all__ = ["NAME", "PILOT_CHAINS", "ROWS", "WARM_UP", "Job", "Walked", "refuse_constrained"]
