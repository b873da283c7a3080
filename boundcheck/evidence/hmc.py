"""Hamiltonian Monte Carlo for many chains at once, whose every random number is a function of its place.

A transition is drawn momentum, some leapfrog steps, and one decision by Metropolis and Hastings. It leaves the density
that it is given invariant whatever the step size, the number of steps and even the gradient are, as long as none of
them depends on where the chain stands; so they may be tuned on other draws, and never inside a chain that is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boundcheck.errors import require
from boundcheck.evidence.streams import Purpose, philox4x32

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="Hamiltonian Monte Carlo")
    Tensor = torch.Tensor

JITTER = 0.2
"""Step sizes are multiplied by a number drawn from 1 - JITTER to 1 + JITTER, so that no orbit closes on itself."""
_MASK32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Points:
    """Where chains stand, and all that the path of densities needs to know there.

    log f_b(z) = (1 - b) base(z) + b joint(z), and its gradient likewise, so a new b costs no evaluation.

    Attributes:
        z: of shape (rows, *event).
        base: log-density of the path's start, float64, of shape (rows,).
        joint: log p(x, z), float64, of shape (rows,).
        base_gradient: of the shape of z.
        joint_gradient: likewise.
    """

    z: Tensor
    base: Tensor
    joint: Tensor
    base_gradient: Tensor
    joint_gradient: Tensor

    def log_density(self, beta: float) -> Tensor:
        """log f_b(z), in nats; b strictly between 0 and 1."""
        return (1 - beta) * self.base + beta * self.joint

    def gradient(self, beta: float) -> Tensor:
        """The gradient of log f_b in z."""
        return (1 - beta) * self.base_gradient + beta * self.joint_gradient

    def where(self, kept: Tensor, other: Points) -> Points:
        """These points in the rows where `kept` is true, the others elsewhere."""
        wide = kept.reshape(-1, *[1] * (self.z.ndim - 1))
        return Points(
            torch.where(wide, self.z, other.z),
            torch.where(kept, self.base, other.base),
            torch.where(kept, self.joint, other.joint),
            torch.where(wide, self.base_gradient, other.base_gradient),
            torch.where(wide, self.joint_gradient, other.joint_gradient),
        )


@dataclass(frozen=True)
class Noise:
    """The random numbers of one transition: momentum like z, and numbers in (0, 1) for the decision and the jitter."""

    momentum: Tensor
    decision: Tensor
    jitter: Tensor

    @classmethod
    def at(cls, seed: int, purpose: Purpose, examples: Tensor, chains: Tensor, step: int, like: Tensor) -> Noise:
        """The numbers that belong to (seed, purpose, example, chain, step), whoever asks for them (Salmon et al. 2011).

        Args:
            seed: from 0 to 2**63 - 1.
            purpose: what the chains are for.
            examples: int64 of shape (rows,), the numbers of the examples.
            chains: likewise, the numbers of the chains.
            step: the number of the transition, from 0 to 2**32 - 1.
            like: z, of shape (rows, *event).

        >>> both = Noise.at(0, Purpose.ANNEALING, torch.arange(2), torch.arange(2), 7, torch.zeros(2, 3))
        >>> one = Noise.at(0, Purpose.ANNEALING, torch.tensor([1]), torch.tensor([1]), 7, torch.zeros(1, 3))
        >>> bool(torch.equal(both.momentum[1:], one.momentum)), bool(torch.equal(both.decision[1:], one.decision))
        (True, True)
        """
        width = like[0].numel()
        quads = torch.arange(math.ceil(width / 4) + 1, device=like.device) + (int(purpose) << 24)
        first, second = examples[:, None], chains[:, None]
        place = torch.full_like(first, step)
        words = philox4x32((quads[None, :], second, first, place), (seed & _MASK32, seed >> 32))
        a, b, c, d = ((word.to(torch.float64) + 0.5) * 2.0**-32 for word in words)  # strictly between 0 and 1
        normals = []
        for radius, angle in ((a, b), (c, d)):  # Box & Muller (1958)
            length, turn = (radius[:, 1:].log() * -2).sqrt(), angle[:, 1:] * (2 * math.pi)
            normals += [length * turn.cos(), length * turn.sin()]
        momentum = torch.stack(normals, -1).flatten(1)[:, :width].reshape(like.shape).to(like.dtype)
        return cls(momentum, a[:, 0], b[:, 0])


@dataclass(frozen=True)
class Moved:
    """Chains after a transition: where they stand, and with what probability each proposal was accepted."""

    points: Points
    acceptance: Tensor


Evaluate = Callable[[Tensor], Points]


def transition(
    evaluate: Evaluate, start: Points, beta: float, step: Tensor, scale: Tensor, leapfrogs: int, noise: Noise
) -> Moved:
    """One step of Hamiltonian Monte Carlo that leaves f_b invariant (Duane et al. 1987; Neal 2011, sec. 3).

    With momentum r ~ N(0, I) and H(z, r) = -log f_b(z) + |r|^2 / 2, leapfrog steps in z / scale preserve volume and can
    be walked back, so accepting with probability min(1, exp(H(start) - H(end))) satisfies detailed balance.

    Args:
        evaluate: densities and gradients at any z; a value that is NaN counts as density zero.
        start: where the chains stand.
        beta: which density of the path.
        step: of each chain, of shape (rows,); it must not depend on `start`.
        scale: of each coordinate, of the shape of z; likewise.
        leapfrogs: how many.
        noise: the random numbers.

    Returns:
        The chains after it. Where a trajectory runs out of the numbers, the proposal is rejected.
    """
    size = (step * (1 + JITTER * (2 * noise.jitter - 1))).to(start.z.dtype)
    size = size.reshape(-1, *[1] * (start.z.ndim - 1))
    momentum, here = noise.momentum, start
    lost = torch.zeros_like(start.joint, dtype=torch.bool)
    for _ in range(leapfrogs):
        momentum = momentum + 0.5 * size * scale * here.gradient(beta)
        z = here.z + size * scale * momentum
        lost = lost | ~torch.isfinite(z).reshape(len(z), -1).all(1)
        here = evaluate(torch.where(lost.reshape(-1, *[1] * (z.ndim - 1)), start.z, z))
        momentum = momentum + 0.5 * size * scale * here.gradient(beta)
    gain = here.log_density(beta) - start.log_density(beta) + _kinetic(noise.momentum) - _kinetic(momentum)
    gain = torch.where(lost | gain.isnan(), -math.inf, gain)
    return Moved(here.where(noise.decision.log() < gain, start), gain.clamp(max=0.0).exp())


def _kinetic(momentum: Tensor) -> Tensor:
    return 0.5 * momentum.double().reshape(len(momentum), -1).square().sum(1)


__all__ = ["JITTER", "Evaluate", "Moved", "Noise", "Points", "transition"]
