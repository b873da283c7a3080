"""A block of annealed chains: a fixed set of examples, its pilot, and its way through the temperatures, move by move.

What is drawn in a block depends on nothing but the job itself; the model is handed some of its rows, pairs (chain,
example), at a time. After each move the block can be left, as arrays, and gone on with elsewhere or later: all that a
chain is about to do depends on where it stands and on the number of the move.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, BoundcheckError, CannotCompute, require
from boundcheck.evidence.hmc import Noise, Points, transition
from boundcheck.evidence.stages import State, Step, array_of, kept_notes, tensor_of
from boundcheck.evidence.streams import Purpose, scattered_seed
from boundcheck.evidence.weights import unvalidated
from boundcheck.models.torch_functions import check_function
from boundcheck.models.torch_model import out_of_memory, random_state, support_is_discrete
from boundcheck.models.torch_supports import turns

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Distribution, constraints

    from boundcheck.evidence.chains import Job
else:
    torch = require("torch", extra="torch", feature="annealed importance sampling")
    Tensor = torch.Tensor
    Distribution, constraints = torch.distributions.Distribution, torch.distributions.constraints

Floats = NDArray[np.float64]
NAME = "annealing"
PILOT_CHAINS = 8
_TARGET_ACCEPTANCE = 0.9
WARM_UP = 20
_ROUNDINGS = 16


def moves(examples: int, temperatures: int, chains: int) -> int:
    """How many chain moves a call makes, its pilot included: what `progress` adds up to.

    >>> moves(10, 100, 16)
    25360
    """
    return examples * (
        (temperatures - 1) * (chains + PILOT_CHAINS) + (WARM_UP * PILOT_CHAINS if temperatures > 1 else 0)
    )


class Block:
    """A fixed block of examples, whose chains are pairs (chain, example) in rows."""

    def __init__(self, job: Job, first: int, x: Tensor, posterior: Tensor | None = None) -> None:
        self.job, self.first, self.x, self.size, self.posterior = job, first, x, len(x), posterior
        self.moved, self.rounding = 0, 0.0
        self.failed: dict[int, str] = {}
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
                check_function(job.model, "encoder", (x,), self.law)

    # --- the way ---

    def steps(self, before: State | None) -> Generator[Step]:
        """The pilot, then the chains. The last state has the results.

        Args:
            before: an earlier state of this block, handed as many rows at once.
        """
        before = before or {}
        if before:
            self.moved, self.rounding = int(before["moved"]), float(before["rounding"])
            self.failed = dict(zip(before["failed"].tolist(), before["reasons"].tolist(), strict=True))
        if "steps" in before:
            steps = torch.from_numpy(before["steps"].copy()).to(self.x.device)
        else:
            steps = yield from self.tuned_steps(before)
        weights, acceptance = yield from self._weights(steps, before)
        for example in np.flatnonzero(np.isnan(weights).any(axis=0)).tolist():
            weights[:, example] = math.nan
            self.failed.setdefault(self.first + example, "a log-weight is NaN")
        sizes = steps.mean(1).cpu().numpy()
        yield self.moved, lambda: self._state(log_weights=weights, acceptance=acceptance, step_sizes=sizes)

    def _state(self, **arrays: NDArray[Any]) -> State:
        return {
            "moved": np.array(self.moved),
            "rounding": np.array(self.rounding),
            "failed": np.array(list(self.failed), dtype=np.int64),
            "reasons": np.array(list(self.failed.values()), dtype=np.str_),
            "rows": np.array(self.job.rows),
            "notes": kept_notes(self.job.notes),
            **arrays,
        }

    def _weights(self, steps: Tensor, before: State) -> Generator[Step, None, tuple[Floats, Floats]]:
        """Log-weights of shape (chains, examples), and the mean acceptance at each inner temperature."""
        job, betas, forward = self.job, self.job.betas, self.posterior is None
        if self.posterior is None:
            start = self._base_draws(job.purpose, job.chains)
        else:
            start = self.posterior.repeat(job.chains, *[1] * len(self.event))
        self._check_model(start)
        last = len(betas) - 1
        accepted = np.zeros(last - 1) if "accepted" not in before else before["accepted"].copy()
        finished = np.empty(0) if "finished" not in before else before["finished"]
        for piece in _pieces(len(start), job.rows):
            if piece.stop <= len(finished):
                continue
            rows, walked = _Rows(self, piece, job.purpose), 0
            if "walked" in before:
                walked, points = int(before["walked"]), _points_in(before, start)
                log_weight = torch.from_numpy(before["log_weight"].copy()).to(self.x.device)
                before = {}
            else:
                points = rows.evaluate(start[piece])
                self._note(points, rows)
                log_weight = torch.zeros_like(points.joint)
            order = range(1, last + 1) if forward else range(last, 0, -1)
            for t in order[walked:]:
                log_weight = log_weight + float(betas[t] - betas[t - 1]) * (points.joint - points.base)
                inner = t if forward else t - 1
                if 0 < inner < last:
                    points, acceptance = rows.move(points, inner, float(betas[inner]), steps[inner - 1])
                    accepted[inner - 1] += float(acceptance.sum())
                walked += 1
                yield (
                    self.moved,
                    lambda done=finished, walked=walked, points=points, log_weight=log_weight: self._state(
                        steps=array_of(steps),
                        accepted=accepted,
                        finished=done,
                        walked=np.array(walked),
                        log_weight=array_of(log_weight),
                        **_arrays_of([points]),
                    ),
                )
            finished = np.concatenate([finished, array_of(log_weight)])
        return finished.reshape(job.chains, self.size), accepted / len(start)

    def tuned_steps(self, before: State) -> Generator[Step, None, Tensor]:
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
        table: list[Tensor] = []  # log step sizes after each move
        if "table" in before:
            table = list(torch.from_numpy(before["table"].copy()).to(device))
            log_step, whole = table[-1], _points_in(before, start)
            states = [_rows_of(whole, rows.piece) for rows in pieces]
        else:
            states = [rows.evaluate(start[rows.piece]) for rows in pieces]
        for move in range(1 - WARM_UP + len(table), inner + 1):
            beta = float(job.betas[max(move, 1)])
            acceptance = torch.zeros(count, dtype=torch.float64, device=device)
            for index, rows in enumerate(pieces):
                states[index], acceptance[rows.piece] = rows.move(states[index], move + WARM_UP, beta, log_step.exp())
            rate = acceptance.nan_to_num(0.0).reshape(PILOT_CHAINS, self.size).mean(0)
            log_step = log_step + 0.5 * (rate - _TARGET_ACCEPTANCE)
            table.append(log_step)
            yield self.moved, lambda: self._state(table=array_of(torch.stack(table)), **_arrays_of(states))
        return _smoothed(torch.stack(table[WARM_UP:])).exp()

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
                check_function(model, "likelihood", (z,), law)
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
            self.failed[int(rows.examples[row])] = "its log-density is NaN at the first point of a chain"
        largest = float(points.joint.abs().nan_to_num(0.0, posinf=0.0).max())
        eps = torch.finfo(points.z.dtype).eps
        self.rounding = max(self.rounding, _ROUNDINGS * eps * largest)


class _Rows:
    """Some rows of a block: what belongs to each of them."""

    def __init__(self, block: Block, piece: slice, purpose: Purpose) -> None:
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
        """One transition at b, with step sizes of the block's examples."""
        job = self.block.job
        moved = transition(
            self.evaluate, points, beta, sizes[self.local], self.scale, job.leapfrogs, self.noise(step, points.z)
        )
        self.block.moved += len(points.z)
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


def _arrays_of(states: Sequence[Points]) -> State:
    """Where chains stand, as arrays."""
    names = [each.name for each in fields(Points)]
    return {f"points.{name}": array_of(torch.cat([getattr(each, name) for each in states])) for name in names}


def _points_in(state: State, like: Tensor) -> Points:
    """Where chains stood; their z is of the type of `like`."""
    found = {}
    for each in fields(Points):
        array = state[f"points.{each.name}"]
        found[each.name] = (
            torch.from_numpy(array.copy()).to(like.device) if each.name in ("base", "joint") else tensor_of(array, like)
        )
    return Points(**found)


def _rows_of(points: Points, piece: slice) -> Points:
    return Points(**{each.name: getattr(points, each.name)[piece] for each in fields(Points)})


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
    if turns(law):
        raise CannotCompute(evaluator, shown, "it is a law on the circle, and z has to live on R^d")
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


__all__ = ["NAME", "PILOT_CHAINS", "WARM_UP", "Block", "moves", "refuse_constrained"]
