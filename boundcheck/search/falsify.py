"""Search for a counterexample: propose in batches of floats, reduce, and certify.

Rounds of batches start at one model and double, over sizes from the smallest on; beside the random proposals a
population of the best models so far evolves, and later climbs by gradients. A claim that is false on a large part of
its family falls at once, one that is false on a small part falls to the large batches, to the evolution, or to the
gradients. Nothing is reported that the exact or the enclosure evaluator has not decided.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from boundcheck.catalogue.objectives import denoising_coupled, elbo, log_evidence
from boundcheck.claims.check import ModelCheck, check
from boundcheck.claims.claim import Claim
from boundcheck.errors import BadInput
from boundcheck.models.finite import FiniteModel
from boundcheck.search import ascend
from boundcheck.search.batch import ModelBatch, Sizes, applicable, fitting, margins, needs
from boundcheck.search.failing import smallest_failure
from boundcheck.search.propose import chosen, first_of, joined, moved, random_batch
from boundcheck.search.reduce import among_small_fractions, simplest, size_of, smaller_models, violates

DEFAULT_BUDGET = 400_000
"""How many models a search tries unless told otherwise."""

STAGES = ("batches", "evolution", "gradient")
"""How models are proposed: at random, near the best so far, and by gradient ascent."""

GRADIENT_AFTER = 100_000
"""Gradients begin when so many models have been tried in vain: importing torch takes longer than most searches."""

_STARTS = 32
_BATCH_BESIDE_GRADIENTS = 1 << 11
_MOST_TRIVIAL = 16
_LARGEST_BATCH = 1 << 15
_POPULATION = 64
_FIRST_BATCH_WITH_ZEROS = 256
_SMALLEST_FLOAT_VIOLATION = 1e-11


@dataclass(frozen=True)
class Search:
    """What a search found: a certified counterexample, or how many models it tried without one."""

    claim: Claim
    witness: ModelCheck | None
    models: int
    seconds: float
    seed: int

    @property
    def found(self) -> bool:
        """True if there is a counterexample."""
        return self.witness is not None


def falsify(
    claim: Claim,
    *,
    budget: int = DEFAULT_BUDGET,
    seed: int = 0,
    progress: Callable[[int], None] = lambda models: None,
    stages: Collection[str] = STAGES,
    sizes: Sizes | None = None,
) -> Search:
    """Search for a finite model on which a claim fails; shrink it, and certify it.

    Args:
        claim: the claim.
        budget: how many models to try at the most. (What makes a counterexample smaller is not counted.)
        seed: the same seed finds the same counterexample.
        progress: called with the number of models tried so far.
        stages: which ways of proposing models to use. Random batches and the evolution alternate from the start;
            gradient ascent joins them after `GRADIENT_AFTER` models (at once, where it is the only stage), for claims
            between two formulas, if torch can be imported.
        sizes: the numbers of states of x, z and x~ to stay at; by default small ones first, and states are merged.

    Raises:
        BadInput: a budget below one, an unknown stage, sizes that the claim cannot have, or a claim about a family
            that is not of finite models.
        CannotCompute: a side of the claim that finite models cannot evaluate.
        ObjectiveFailed: a black box gives no number on a model; the error names the smallest such model that is found.

    >>> from boundcheck.catalogue import find
    >>> search = falsify(find("denoising-decoupled-below-evidence"))
    >>> search.witness.verdict.outcome.value, search.witness.model.sizes
    ('violated', {'x': 1, 'z': 2, 'x~': 2})
    >>> falsify(find("jvi-below-evidence"), sizes=Sizes(2, 3)).witness.model.sizes
    {'x': 2, 'z': 3}
    """
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise BadInput("budget", budget, "a number of models of at least 1")
    if claim.family != "finite":
        what = f"a claim about the family {claim.family!r}"
        raise BadInput("claim", claim.name, "a claim about finite models", f"this is {what}: use survey or check")
    if not stages or not set(stages) <= set(STAGES):
        raise BadInput("stages", stages, f"some of {', '.join(STAGES)}")
    start = time.perf_counter()
    rng = np.random.default_rng(seed)
    hunt = _Hunt(claim, rng, budget, progress, frozenset(stages), fitting(claim, sizes) if sizes else None)
    with smallest_failure(claim):
        model = hunt.run()
    witness = None
    if model is not None:
        if sizes is None:
            model = _at_smaller_sizes(claim, _fewest_states(claim, model, hunt), hunt)
        model = simplest(claim, model, rng)
        witness = ModelCheck(claim, model, 0, check(claim, model, 0))
    return Search(claim, witness, hunt.tried, time.perf_counter() - start, seed)


class _Hunt:
    """Stage one: rounds of growing batches over all sizes, with an evolving population for each size."""

    def __init__(
        self,
        claim: Claim,
        rng: Generator,
        budget: int,
        progress: Callable[[int], None],
        stages: frozenset[str],
        only: Sizes | None = None,
    ) -> None:
        self.claim, self.rng, self.budget, self.progress, self.stages = claim, rng, budget, progress, stages
        self.only = only
        self.roles = needs(claim)
        self.tie_x = {"clean encoder", "corruption"} <= self.roles
        self.tried = 0
        self.population: dict[Sizes, ModelBatch] = {}
        # How far a model is from triviality: a violation that vanishes with this is judged relative to it.
        yardstick = denoising_coupled if "corruption" in self.roles else elbo
        self.yardstick = Claim("yardstick", yardstick, "<=", log_evidence) if "encoder" in self.roles else None
        self.climbs = "gradient" in stages and not claim.black_boxes and ascend.available()
        self.climbs_after = 0 if stages == {"gradient"} else GRADIENT_AFTER

    def sizes(self) -> Iterator[Sizes]:
        """Sizes from the smallest on, or the only ones asked for."""
        if self.only is not None:
            yield self.only
            return
        stated = {space: count for box in self.claim.black_boxes for space, count in box.states.items()}
        numbers = {space: [stated[space]] if space in stated else [1, 2, 3] for space in ("x", "z", "x~")}
        corrupted = numbers["x~"] if "corruption" in self.roles else [0]
        found = [Sizes(x, z, xt) for z in numbers["z"] for x in numbers["x"] for xt in corrupted]
        if self.tie_x:
            found = [sizes for sizes in found if sizes.x == sizes.xt]
        if not found or ("x~" in stated and corrupted == [0]):
            raise BadInput("states", stated, "numbers of states that a model can have", "give as many x~ as x")
        yield from sorted(found, key=lambda sizes: (sizes.states, sizes.z, sizes.x))

    def run(self) -> FiniteModel | None:
        """The first certified violation, at x = 0."""
        sizes = list(self.sizes())
        worthwhile = [each for each in sizes if each.z > 1 and each.xt != 1] or sizes
        trivial = [each for each in sizes if each not in worthwhile]
        batch = 1
        while self.tried < self.budget:
            for each in [*worthwhile, *trivial] if batch <= _MOST_TRIVIAL else worthwhile:
                model = self.round(each, min(batch, _LARGEST_BATCH))
                if model is not None:
                    return model
                if self.tried >= self.budget:
                    break
            batch *= 2
        return None

    def round(self, sizes: Sizes, count: int) -> FiniteModel | None:
        """A batch of random models; beside it moves from the best so far, as soon as there are four, and ascents."""
        climbs = self.climbs and self.tried >= self.climbs_after and sizes.z > 1
        if climbs:
            count = min(count, _BATCH_BESIDE_GRADIENTS)
        left = self.budget - self.tried
        fresh = min(count if "batches" in self.stages else min(count, _STARTS), left)
        batch = random_batch(self.rng, sizes, self.roles, fresh, zeros=count >= _FIRST_BATCH_WITH_ZEROS)
        known = self.population.get(sizes)
        if known is not None and len(known) >= 4:
            moves = min(count, left - len(batch)) if "evolution" in self.stages else 0
            if moves:
                batch = joined(batch, moved(self.rng, known, np.arange(len(known)), moves))
            batch = joined(batch, first_of(known, left - len(batch)))
        if climbs:
            batch = joined(batch, self.climbed(sizes, known, left - len(batch)))
        loss = self.losses(batch)
        self.tried += len(batch)
        self.progress(self.tried)
        model = self.certified(batch, loss)
        if model is None:
            self.population[sizes] = chosen(batch, self.best(batch, loss))
        return model

    def climbed(self, sizes: Sizes, known: ModelBatch | None, left: int) -> ModelBatch:
        """Models at the end of gradient ascents from new random models and from the best so far."""
        starts = random_batch(self.rng, sizes, self.roles, _STARTS, zeros=False)
        if known is not None:
            starts = joined(starts, known)
        starts = first_of(starts, left // (ascend.STEPS + 1))
        self.tried += len(starts) * ascend.STEPS
        return ascend.ascend(self.claim, starts, self.yardstick) if len(starts) else starts

    def losses(self, batch: ModelBatch) -> NDArray[np.float64]:
        """rhs - lhs for each model, minus its absolute value for equalities; +inf where the claim says nothing."""
        loss = margins(self.claim, batch, failures=True)
        if self.claim.relation == "==":
            loss = -np.abs(loss)
        return np.where(np.isnan(loss) | ~applicable(self.claim, batch), np.inf, loss)

    def certified(self, batch: ModelBatch, loss: NDArray[np.float64]) -> FiniteModel | None:
        """The first few float violations, decided; those with the largest margin first."""
        found = np.flatnonzero(loss < -_SMALLEST_FLOAT_VIOLATION)
        for index in found[np.argsort(loss[found])][:8]:
            model = batch.model(int(index))
            if violates(self.claim, model):
                return model
        return None

    def best(self, batch: ModelBatch, loss: NDArray[np.float64]) -> NDArray[np.intp]:
        """The models closest to a violation: half by margin, half by margin relative to the yardstick."""
        half = _POPULATION // 2
        if len(batch) <= half:
            return np.arange(len(batch))
        absolute = np.argsort(loss)[:half]
        if self.yardstick is None:
            return absolute
        scale = margins(self.yardstick, batch)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(scale > 1e-9, loss / scale, np.inf)
        return np.unique(np.concatenate([absolute, np.argsort(relative)[:half]]))


def _fewest_states(claim: Claim, model: FiniteModel, hunt: _Hunt) -> FiniteModel:
    """Merge and drop states while the claim still fails."""
    shrinking = True
    while shrinking:
        shrinking = False
        for smaller in smaller_models(model, hunt.tie_x):
            if violates(claim, smaller):
                model, shrinking = smaller, True
                break
    return model


def _at_smaller_sizes(claim: Claim, model: FiniteModel, hunt: _Hunt) -> FiniteModel:
    """A counterexample with fewer states and small fractions, looked for from scratch, or else the model itself."""
    for sizes in hunt.sizes():
        if sizes.states >= size_of(model).states:
            break
        smaller = among_small_fractions(claim, sizes, hunt.roles, hunt.rng)
        if smaller is not None:
            return smaller
    return model
