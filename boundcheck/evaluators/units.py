"""The fixed units of a formula's replicates, and the random stream of each.

Examples, replicates and copies are cut into blocks that depend on the formula, the data and n alone. A draw is a
function of its place: its stream is numbered by (block of examples, block of replicates, variable, block of copies).
So nothing has to be kept from one block to the next, two sums over the same copies see the same draws even though each
makes its own pass, and how many rows the model is given at once changes no draw. The two sides of a claim number their
variables together: where both draw q(z|x) in one and the same way, they draw the same points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from boundcheck.errors import require
from boundcheck.evaluators.draws import Drawing, as_gaussian
from boundcheck.evaluators.plan import Plan
from boundcheck.language.terms import OBSERVED, Plate, Term, Var
from boundcheck.models.torch_model import TorchModel, random_state

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="Monte Carlo on a torch model")
    Tensor = torch.Tensor

_NUMBERS_AT_ONCE = 1 << 22
"""A unit holds about this many entries of x: 32 MB in float64, some times that in a decoder's layers."""
_ROUNDINGS = 64
"""How many roundings of its own size a log-density is granted: sums over pixels and units, pairwise added."""

Key: TypeAlias = tuple
"""What a variable is, apart from its name: its law, the laws of what that depends on, and its copies."""


class Job:
    """A plan on a model at some examples, cut into fixed units; `chunk` is how many rows the model is given at once."""

    def __init__(
        self,
        made: Plan,
        model: TorchModel,
        x: Tensor,
        n: int,
        seed: int,
        chunk: int | None,
        drawing: Drawing | None = None,
    ) -> None:
        self.plan, self.model, self.x, self.n, self.seed = made, model, x, n, seed
        self.drawing = drawing or Drawing("independent", 1)
        unit = default_unit(x)
        self.chunk = chunk if chunk is not None else unit
        self.examples_at_once = min(len(x), unit)
        left = max(1, unit // self.examples_at_once)
        self.steps: dict[Plate, int] = {}
        for plate in made.plates:
            self.steps[plate] = min(plate.size, left)
            left = max(1, left // self.steps[plate])
        even = 2 if self.drawing.kind == "antithetic" else 1
        self.replicates_at_once = min(n, max(even, left // even * even))
        self.checked: set[str] = set()
        self.repeated: set[Var] = set()
        self.rounding = 0.0
        self._number([self])

    # --- streams ---

    def paired(self, other: Job) -> None:
        """Draw the same points as another job wherever a variable of both is drawn in the same way."""
        for job in (self, other):
            job.replicates_at_once = min(self.replicates_at_once, other.replicates_at_once)
        self._number([self, other])

    @staticmethod
    def _number(jobs: Sequence[Job]) -> None:
        """Number streams: variables one after another, then the blocks of each."""
        first: dict[Key, int] = {}
        streams = 0
        for job in jobs:
            job._first = {}
            for var, key in job._keys().items():
                if key not in first:
                    first[key] = streams
                    streams += job.blocks * math.prod(math.ceil(p.size / job.steps[p]) for p in var.plates)
                job._first[var] = first[key]
        for job in jobs:
            job._streams, job._together = streams, tuple(jobs)

    _first: dict[Var, int]
    _streams: int
    _together: tuple[Job, ...]
    dimension: int

    def _keys(self) -> dict[Var, Key]:
        """What each variable is, counted where several are the same."""
        kinds: dict[Term, Key] = {OBSERVED: ("x",)}
        seen: dict[Key, int] = {}
        keys: dict[Var, Key] = {}
        for var, law in self.plan.laws.items():
            copies = tuple((plate.size, self.steps[plate]) for plate in var.plates)
            kind = (law.role, *(kinds.get(arg, ("?",)) for arg in law.args), copies)
            kinds[var] = kind
            keys[var] = (kind, seen.get(kind, 0))
            seen[kind] = seen.get(kind, 0) + 1
        return keys

    @property
    def blocks(self) -> int:
        """Blocks of replicates."""
        return math.ceil(self.n / self.replicates_at_once)

    def seed_of(self, block: int, var: Var, places: Sequence[int]) -> int:
        """The seed of a variable's draws in one block: different for all blocks and variables of the job."""
        counts = [self.blocks, *(math.ceil(p.size / self.steps[p]) for p in var.plates)]
        place = 0
        for index, count in zip(places, counts, strict=True):
            place = place * count + index
        stream = block * self._streams + self._first[var] + place
        return _scattered((_spread_seed(self.seed) + stream) % 2**32)

    def seed_of_sequence(self, example: int, sequence: int) -> int:
        """The seed of one scrambling: different for all examples and sequences, and apart from the streams of draws."""
        place = example * math.ceil(self.n / self.drawing.together) + sequence
        return _scattered((_spread_seed(_spread_seed(self.seed)) + place) % 2**32)

    # --- numbers ---

    @cached_property
    def columns(self) -> dict[Var, slice]:
        """Which of a replicate's Gaussian numbers are each variable's; common variables of a pair share theirs."""
        widths: dict[tuple[int, str], int] = {}
        places: dict[Key, slice] = {}
        self.dimension = 0
        for job in self._together:
            for var, key in job._keys().items():
                role = id(job.model), job.plan.laws[var].role
                if role not in widths:
                    widths[role] = job._width(role[1])
                if key not in places:
                    size = widths[role] * math.prod(plate.size for plate in var.plates)
                    places[key] = slice(self.dimension, self.dimension + size)
                    self.dimension += size
        return {var: places[key] for var, key in self._keys().items()}

    def _width(self, role: str) -> int:
        """Gaussian numbers in one draw of a role's law; 0 if that is no Gaussian law."""
        model, row = self.model, self.x[:1]
        with torch.inference_mode(), random_state(row.device, 0):
            if role in ("likelihood", "auxiliary"):
                z = model.sample("encoder", model.law("encoder", row), ())
                law = model.law(role, z) if role == "likelihood" else model.law(role, z, row)
            else:
                law = model.law(role) if role == "prior" else model.law(role, row)
        return math.prod(law.event_shape) if as_gaussian(law) is not None else 0

    def note_rounding(self, log_density: Tensor) -> None:
        """Keep `rounding`, an estimate in nats of how far off the model's own arithmetic may make a log-density."""
        if log_density.is_floating_point() and log_density.numel():
            largest = float(log_density.abs().nan_to_num(0.0, posinf=0.0).max())
            self.rounding = max(self.rounding, _ROUNDINGS * torch.finfo(log_density.dtype).eps * largest)

    @property
    def independent(self) -> int:
        """How many independent values there are for each example."""
        return self.n // self.drawing.together

    @property
    def draws(self) -> int:
        """Independent values times examples: what a progress bar counts."""
        return self.independent * len(self.x)


def _spread_seed(seed: int) -> int:
    """A seed spread over 64 bits (the finaliser of SplitMix64), so that the streams of nearby seeds do not overlap."""
    mask = 2**64 - 1
    state = (seed + 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def _scattered(stream: int) -> int:
    """A permutation of the 32-bit integers (the finaliser of MurmurHash3): torch's generator reads 32 bits of a seed.

    Different streams keep different seeds, and neighbours get seeds that have nothing in common.
    """
    stream = ((stream ^ (stream >> 16)) * 0x85EBCA6B) % 2**32
    stream = ((stream ^ (stream >> 13)) * 0xC2B2AE35) % 2**32
    return stream ^ (stream >> 16)


def default_unit(x: Tensor) -> int:
    """How many points a unit has: fewer for large observations, whatever the machine."""
    return max(64, min(1 << 15, _NUMBERS_AT_ONCE // max(1, x[0].numel())))


__all__ = ["Job", "default_unit"]
