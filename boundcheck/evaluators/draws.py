"""How the random numbers of replicates are made: independent, antithetic, or quasi-random.

Antithetic: the noise of each second replicate is minus that of the one before, so a pair, and not a replicate, is what
is independent. Quasi-random: the noise of a whole block of replicates is one scrambled Sobol sequence (Owen 1997), and
what is independent is the sequence, not its points. Either way the values that belong together are averaged first, and
the standard error comes from the spread of those averages, so it stays honest. Only Gaussian laws have noise that can
be chosen; all others are drawn independently for every replicate, which changes nothing about the above.

Student's limits from such averages are an approximation, as ever, and a worse one for antithetic pairs: they lose what
is symmetric and keep what is skewed. For the ELBO of a linear-Gaussian model the truth was outside a 90% interval in
15% of 2000 cases with 32 pairs, in 11.5% with 128 and in 10.4% with 2048; of independent replicates, as many as there
were draws, in 11.6%, 10.9% and 9.9%.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boundcheck.errors import BadInput, require

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Bernoulli, Categorical, Distribution, Independent, MultivariateNormal, Normal
else:
    torch = require("torch", extra="torch", feature="Monte Carlo on a torch model")
    Tensor = torch.Tensor
    Bernoulli, Categorical, Distribution, Independent, MultivariateNormal, Normal = (
        getattr(torch.distributions, name)
        for name in ("Bernoulli", "Categorical", "Distribution", "Independent", "MultivariateNormal", "Normal")
    )

KINDS = ("independent", "antithetic", "sobol")
RANDOMISATIONS = 16
"""Independent scramblings of a quasi-random estimate, unless another number is asked for."""
_MOST_DIMENSIONS = 21201
"""Sobol sequences of more dimensions have no direction numbers (Joe and Kuo 2008)."""
_HALF_STEP = 2.0**-31
"""Sobol points are multiples of 2^-30: their cells' midpoints are never 0 or 1."""


_KNOWN = {
    getattr(torch.distributions, name)
    for name in (
        *("Bernoulli", "Beta", "Categorical", "Dirichlet", "Exponential", "Gamma", "Laplace", "LogNormal"),
        *("LowRankMultivariateNormal", "MultivariateNormal", "Normal", "OneHotCategorical"),
    )
}
"""Families whose divergences are tested here against integrals and samples; torch has formulas for more."""


@dataclass(frozen=True)
class Drawing:
    """A kind of draws, and how many replicates are averaged into one that is independent.

    >>> Drawing.of("antithetic", 100).together, Drawing.of("sobol", 1024, 16).together
    (2, 64)
    """

    kind: str
    together: int

    @classmethod
    def of(cls, kind: str, n: int, randomisations: int | None = None) -> Drawing:
        """The drawing of n replicates.

        Raises:
            BadInput: an unknown kind, or an n that does not divide.
        """
        if kind not in KINDS:
            raise BadInput("draws", kind, "'independent', 'antithetic' or 'sobol'")
        if randomisations is not None and kind != "sobol":
            raise BadInput("randomisations", randomisations, "nothing, unless draws='sobol'")
        if kind == "independent":
            return cls(kind, 1)
        if kind == "antithetic":
            if n % 2 or n < 4:
                raise BadInput("n", n, "an even number of at least 4", "antithetic replicates come in pairs")
            return cls(kind, 2)
        count = RANDOMISATIONS if randomisations is None else randomisations
        if isinstance(count, bool) or not isinstance(count, int) or count < 2:
            raise BadInput("randomisations", count, "an integer of at least 2", "one scrambling has no standard error")
        points, left = divmod(n, count)
        if left or points < 1 or points & (points - 1):
            near = count * (1 << max(0, round(math.log2(max(1, n / count)))))
            raise BadInput("n", n, f"{count} randomisations times a power of two", f"for example n={near}")
        return cls(kind, points)


def averaged(blocks: Iterable[Tensor], together: int) -> Iterator[Tensor]:
    """Means over so many consecutive rows, whatever the blocks that they come in.

    >>> blocks = [torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([[7.0]])]
    >>> [block.flatten().tolist() for block in averaged(blocks, 2)]
    [[2.0], [6.0]]
    """
    if together == 1:
        yield from blocks
        return
    partial, filled = torch.zeros(()), 0
    for block in blocks:
        rows = block
        if filled:
            take = min(together - filled, len(rows))
            partial = partial + rows[:take].sum(0)
            filled, rows = filled + take, rows[take:]
            if filled < together:
                continue
            yield (partial / together).unsqueeze(0)
            filled = 0
        whole = len(rows) // together * together
        if whole:
            yield rows[:whole].reshape(-1, together, *rows.shape[1:]).mean(1)
        partial, filled = rows[whole:].sum(0), len(rows) - whole


# --- noise ---


def mirrored(noise: Tensor, axis: int) -> Tensor:
    """Each slice along an axis followed by its negative: twice as many.

    >>> mirrored(torch.tensor([1.0, 2.0]), 0).tolist()
    [1.0, -1.0, 2.0, -2.0]
    """
    return torch.stack([noise, -noise], axis + 1).flatten(axis, axis + 1)


class SobolNoise:
    """Normal noise from scrambled Sobol points: sequences of so many points, each with a scrambling of its own.

    Args:
        dimension: numbers that one replicate needs.
        points: of one sequence.
        seeds: of the sequences, in order.

    Raises:
        BadInput: too many dimensions.

    >>> SobolNoise(3, 4, [1, 2]).take(6).shape
    torch.Size([6, 3])
    """

    def __init__(self, dimension: int, points: int, seeds: Sequence[int]) -> None:
        check_dimension(dimension)
        self.dimension, self.points = dimension, points
        self._seeds = iter(seeds)
        self._left = 0
        self._engine: torch.quasirandom.SobolEngine | None = None

    def take(self, count: int) -> Tensor:
        """The next points, as float64 normals of shape (count, dimension)."""
        parts = []
        while count:
            if not self._left:
                self._engine = torch.quasirandom.SobolEngine(self.dimension, scramble=True, seed=next(self._seeds))
                self._left = self.points
            assert self._engine is not None
            size = min(count, self._left)
            parts.append(self._engine.draw(size, dtype=torch.float64))
            count, self._left = count - size, self._left - size
        return torch.special.ndtri(torch.cat(parts) + _HALF_STEP)


def check_dimension(dimension: int) -> None:
    """Refuse more dimensions than Sobol sequences have.

    Raises:
        BadInput: saying how many.
    """
    if dimension > _MOST_DIMENSIONS:
        raise BadInput(
            "draws",
            "sobol",
            f"at most {_MOST_DIMENSIONS} Gaussian numbers in each replicate",
            f"this one has {dimension}; use 'antithetic'",
        )


# --- laws ---


def as_gaussian(law: Distribution) -> tuple[Tensor, Tensor, bool] | None:
    """Mean, scale and whether that scale is a triangular matrix, of a Gaussian law of torch's own; None for others.

    >>> as_gaussian(Independent(Normal(torch.zeros(3, 2), 1.0), 1))[1].shape
    torch.Size([3, 2])
    """
    if type(law) is MultivariateNormal:
        return law.loc, law.scale_tril, True
    while type(law) is Independent:
        law = law.base_dist
    return (law.loc, law.scale, False) if type(law) is Normal else None


def shifted(gaussian: tuple[Tensor, Tensor, bool], noise: Tensor, lead: Sequence[int]) -> Tensor:
    """mean + scale * noise, for parameters whose rows are folded from `lead` axes.

    Args:
        gaussian: what `as_gaussian` gives.
        noise: of shape (*more axes, *lead, *event).
        lead: the axes of the law's rows.
    """
    mean, scale, full = gaussian
    event = mean.shape[1:] if lead else mean.shape
    mean = mean.reshape((*lead, *event))
    noise = noise.to(mean.dtype)
    if not full:
        return mean + scale.reshape((*lead, *event)) * noise
    return mean + (scale.reshape((*lead, *event, event[-1])) @ noise.unsqueeze(-1)).squeeze(-1)


def concatenated(laws: Sequence[Distribution]) -> Distribution | None:
    """One law with the rows of several of one family, one after another; None for a family that is not known.

    >>> concatenated([Normal(torch.zeros(2), 1.0), Normal(torch.ones(3), 2.0)]).loc.tolist()
    [0.0, 0.0, 1.0, 1.0, 1.0]
    """
    bases, axes = [], []
    for law in laws:
        depth = 0
        while type(law) is Independent:
            depth, law = depth + law.reinterpreted_batch_ndims, law.base_dist
        bases.append(law)
        axes.append(depth)
    kinds = {type(base) for base in bases}
    if len(kinds) != 1 or len(set(axes)) != 1:
        return None
    kind = kinds.pop()
    if kind is Normal:
        joined: Distribution = Normal(torch.cat([b.loc for b in bases]), torch.cat([b.scale for b in bases]))
    elif kind is MultivariateNormal:
        loc = torch.cat([b.loc for b in bases])
        joined = MultivariateNormal(loc, scale_tril=torch.cat([b.scale_tril for b in bases]))
    elif kind is Bernoulli or kind is Categorical:
        joined = kind(logits=torch.cat([b.logits for b in bases]))
    else:
        return None
    return Independent(joined, axes[0]) if axes[0] else joined


def expected_log_density(source: Distribution, target: Distribution) -> Tensor | None:
    """E_{v ~ source} log target(v) = -KL(source || target) - H(source) in nats, for two laws of one known family.

    >>> value = expected_log_density(Normal(torch.tensor([0.0]), 1.0), Normal(torch.tensor([0.0]), 1.0))
    >>> [round(each, 4) for each in value.tolist()]
    [-1.4189]
    """
    bases = []
    for law in (source, target):
        while type(law) is Independent:
            law = law.base_dist
        bases.append(type(law))
    if bases[0] is not bases[1] or bases[0] not in _KNOWN or source.event_shape != target.event_shape:
        return None
    try:
        return -(torch.distributions.kl_divergence(source, target) + source.entropy())
    except NotImplementedError:
        return None


__all__ = [
    "KINDS",
    "RANDOMISATIONS",
    "Drawing",
    "SobolNoise",
    "as_gaussian",
    "averaged",
    "check_dimension",
    "concatenated",
    "expected_log_density",
    "mirrored",
    "shifted",
]
