"""Many finite models of one size at once: the same formula, with a batch axis over models.

This is the search's first stage. Its numbers are float64 and decide nothing: whatever looks like a violation here goes
to the exact or the enclosure evaluator.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.claims.claim import Claim
from boundcheck.errors import BadInput, ObjectiveFailed
from boundcheck.evaluators.black_box import BlackBox
from boundcheck.evaluators.floating import Floats
from boundcheck.evaluators.traversal import Traversal
from boundcheck.language.laws import ModelLaw, laws_in
from boundcheck.language.terms import OBSERVED, Space, Term
from boundcheck.models.finite import FiniteModel

_BLOCK = 4096
"""Models evaluated together: their arrays fit the processor's cache."""


@dataclass(frozen=True)
class Sizes:
    """How many states x, z and x~ have; `xt` is 0 without a corruption."""

    x: int
    z: int
    xt: int = 0

    @property
    def states(self) -> int:
        """The total, by which a witness is called small."""
        return self.x + self.z + self.xt

    @property
    def text(self) -> str:
        """X,Z or X,Z,C, as the command line takes it."""
        return f"{self.x},{self.z}" + (f",{self.xt}" if self.xt else "")

    def shapes(self, roles: frozenset[str]) -> dict[str, tuple[int, ...]]:
        """The shape of each table that a claim with these roles needs; the last axis sums to one."""
        shapes: dict[str, tuple[int, ...]] = {"prior": (self.z,), "likelihood": (self.z, self.x)}
        if "encoder" in roles:
            shapes["encoder"] = (self.xt or self.x, self.z)
        if self.xt:
            shapes["corruption"] = (self.x, self.xt)
        if "auxiliary" in roles:
            shapes["auxiliary"] = (self.z, self.x, self.xt)
        return shapes


def needs(claim: Claim) -> frozenset[str]:
    """The roles that a claim's formulas mention, and "clean encoder" if one of them reads q(z|x) at the observation."""
    found: set[str] = set(claim.roles)
    laws = [law for side in claim.sides if isinstance(side, Term) for law in laws_in(side)]
    found.update(role for box in claim.black_boxes for role in box.needs)
    if any(isinstance(law, ModelLaw) and law.role == "encoder" and OBSERVED in law.args for law in laws):
        found.add("clean encoder")
    if "auxiliary" in found:
        found.add("corruption")
    return frozenset(found)


MOST_STATES = 12
"""Of x, of z and of x~, in a search at given sizes."""


def fitting(claim: Claim, sizes: Sizes) -> Sizes:
    """Sizes as a claim needs them: without x~ where it has no corruption, with as many as of x by default.

    Raises:
        BadInput: too few or too many states, or numbers that the claim cannot have.
    """
    roles = needs(claim)
    for states in (sizes.x, sizes.z, sizes.xt or 1):
        if not 1 <= states <= MOST_STATES:
            raise BadInput("sizes", sizes.text, f"1 to {MOST_STATES} states each of x, z and x~")
    if "corruption" not in roles:
        sizes = Sizes(sizes.x, sizes.z)
    else:
        sizes = Sizes(sizes.x, sizes.z, sizes.xt or sizes.x)
        if "clean encoder" in roles and sizes.xt != sizes.x:
            expected = f"as many states of x~ as of x for {claim.name}, which reads its encoder at both"
            raise BadInput("sizes", sizes.text, expected)
    numbers = {"x": sizes.x, "z": sizes.z, "x~": sizes.xt}
    for box in claim.black_boxes:
        if any(numbers[space] != stated for space, stated in box.states.items()):
            raise BadInput(
                "sizes", sizes.text, f"the numbers of states that {box.name} is written for: {dict(box.states)}"
            )
    return sizes


@dataclass
class ModelBatch:
    """B models: each table is an array of probabilities whose first axis is the model."""

    sizes: Sizes
    tables: dict[str, NDArray[Any]]
    log_tables: dict[tuple[str, str], NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "joint" not in self.tables:
            self.tables["joint"] = np.swapaxes(self.tables["likelihood"] * self.tables["prior"][..., None], 1, 2)

    def __len__(self) -> int:
        return len(self.tables["prior"])

    def block(self, start: int, stop: int) -> ModelBatch:
        """Some consecutive models, as views."""
        if start == 0 and stop >= len(self):
            return self
        return ModelBatch(self.sizes, {role: table[start:stop] for role, table in self.tables.items()})

    def size(self, space: Space) -> int:
        """The number of states of a space."""
        return {"x": self.sizes.x, "z": self.sizes.z, "x~": self.sizes.xt}[space.name]

    def table(self, role: str, inputs: tuple[Space, ...] | None = None) -> NDArray[Any]:
        """Probabilities of a role, the model axis first."""
        if role not in self.tables:
            raise BadInput("the batch", role, f"one of the tables {', '.join(self.tables)}")
        return self.tables[role]

    def model(self, index: int) -> FiniteModel:
        """One of the models, its floats taken as the exact binary numbers that they are, rows made to sum to one."""
        tables = {role: exact_rows(table[index]) for role, table in self.tables.items() if role != "joint"}
        return FiniteModel(**tables)


def exact_rows(table: NDArray[Any]) -> list[Any]:
    """Float rows as rows of dyadic rationals that sum to exactly one: the largest entry takes up the rounding."""
    if table.ndim > 1:
        return [exact_rows(row) for row in table]
    row = [Fraction(float(entry)) for entry in table]
    largest = max(range(len(row)), key=row.__getitem__)
    row[largest] = 1 - sum((entry for i, entry in enumerate(row) if i != largest), Fraction(0))
    return row


def applicable(claim: Claim, batch: ModelBatch, x: int = 0) -> NDArray[np.bool_]:
    """For each model whether the claim says something about it, as `Claim.applies` does for one."""
    joint = batch.tables["joint"][:, x]
    possible = np.asarray(joint > 0)
    if not (claim.covering and "encoder" in batch.tables):
        return np.asarray(possible.any(axis=1))
    holes = possible & (batch.tables["encoder"][:, x] == 0)
    return np.asarray(possible.any(axis=1) & ~holes.any(axis=1))


def margins(
    claim: Claim, batch: ModelBatch, x: int = 0, memory: int = 1 << 27, *, failures: bool = False
) -> NDArray[np.float64]:
    """rhs - lhs for each model of a batch; nan where a side has no value, or both are the same infinity.

    Args:
        claim: the claim.
        batch: the models.
        x: the number of the observed state.
        memory: the bytes that one evaluation may take.
        failures: whether a black box that gives no number on a model of which the claim speaks is an error.

    Raises:
        ObjectiveFailed: such a model, if `failures` says so.
    """

    def failed(failure: ObjectiveFailed) -> None:
        if failures and isinstance(failure.model, FiniteModel) and claim.applies(failure.model, x):
            raise failure

    out = np.empty(len(batch))
    for start in range(0, len(batch), _BLOCK):
        block = batch.block(start, start + _BLOCK)
        traversal = Traversal(block, x, Floats(), memory=memory, models=len(block))  # type: ignore[arg-type]
        lhs, rhs = (
            side.values(block.tables, x, block.model, failed)
            if isinstance(side, BlackBox)
            else traversal.value(side).data
            for side in claim.sides
        )
        with np.errstate(invalid="ignore"):
            out[start : start + _BLOCK] = rhs - lhs
    return out
