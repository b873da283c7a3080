"""Counterexamples as files: a claim, a model and an observation, all of it exact, decided again whenever it is read.

A file holds the claim's formulas themselves, so it can be replayed where the claim is not in any catalogue. What the
file says of the verdict is a record and nothing more: `Witness.replay` computes it anew. A black box cannot be held in
a file: the file names it, and whoever replays it gives the callable. No file makes boundcheck run code by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boundcheck.claims.check import ModelCheck, check
from boundcheck.claims.claim import Claim
from boundcheck.claims.decide import Guarantee, Outcome, Verdict
from boundcheck.claims.spaces import Side
from boundcheck.errors import BadInput, BoundcheckError
from boundcheck.evaluators.black_box import BlackBox
from boundcheck.language import from_json, to_json
from boundcheck.models.finite import FiniteModel
from boundcheck.search.black_boxes import BLACK_BOX, Absent, Objective, box_json, given, read_box
from boundcheck.search.files import REMEDY, require_fields, write_text

if TYPE_CHECKING:
    from boundcheck.evaluators.lognumber import LogNumber

FORMAT = "boundcheck-witness/1"
FORMAT_WITH_BLACK_BOXES = "boundcheck-witness/2"
"""The same, but a side may be {"black box": {...}}: its name, file and settings."""

_CLAIM_FIELDS = ("name", "lhs", "rhs", "relation", "statement", "source", "covering")


@dataclass(frozen=True)
class Witness:
    """A model and an observation on which a claim is violated, with the verdict as it was found or recorded.

    Args:
        claim: the claim.
        model: the model.
        x: the number of the observed state.
        recorded: the verdict, as `Verdict.to_json` gives it.

    Raises:
        BadInput: an observation that the model does not have, or of which the claim says nothing; a recorded verdict
            that is no certified violation (of a black box: no violation).

    >>> from boundcheck.catalogue import find
    >>> from boundcheck.claims import check_model
    >>> claim = find("denoising-decoupled-below-evidence")
    >>> witness = Witness.of(check_model(claim, claim.witness()))
    >>> print(witness.replay())
    violated (exact)
    """

    claim: Claim
    model: FiniteModel
    x: int
    recorded: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.model, FiniteModel):
            raise BadInput("the model", self.model, "a finite model", "only tables can be kept exactly in a file")
        n = self.model.sizes["x"]
        if isinstance(self.x, bool) or not isinstance(self.x, int) or not 0 <= self.x < n:
            raise BadInput("x", self.x, f"the number of an observed state, 0 to {n - 1}")
        if not self.claim.applies(self.model, self.x):
            expected = "an observation of positive probability"
            expected += " whose encoder q(z|x) covers the posterior" if self.claim.covering else ""
            raise BadInput("x", self.x, expected, f"{self.claim.name} says nothing about this one")
        guarantee = self.recorded.get("guarantee")
        numerical = bool(self.claim.black_boxes)
        if self.recorded.get("verdict") != Outcome.VIOLATED.value or guarantee not in _kept(numerical):
            what = f"{self.recorded.get('verdict')} ({guarantee})"
            expected = " or ".join(f"violated ({kept})" for kept in _kept(numerical))
            raise BadInput("the recorded verdict", what, expected, REMEDY)

    @classmethod
    def of(cls, found: ModelCheck) -> Witness:
        """The witness that a check of a model found.

        Raises:
            BadInput: the claim is not violated there, or only numerically.
        """
        return cls(found.claim, found.model, found.x, found.verdict.to_json())  # type: ignore[arg-type]

    def replay(self) -> Verdict:
        """Decide the claim anew; the recorded verdict plays no part in it.

        Raises:
            BadInput: a table that the claim needs and the model lacks; a black box that was not given.
            CannotCompute: no evaluator can compute a side of the claim.
            ObjectiveFailed: a black box that gives no number on the model.
        """
        for absent in self.absent:
            expected = "the callable itself, which no file can hold"
            remedy = f"boundcheck replay WITNESS --objective {absent.where}, or load_witness(path, [{absent.object}])"
            raise BadInput("the black box", absent.name, expected, remedy)
        return check(self.claim, self.model, self.x)

    @property
    def absent(self) -> tuple[Absent, ...]:
        """The callables that the file names and nobody gave: what keeps the witness from being replayed."""
        return tuple(box.function for box in self.claim.black_boxes if isinstance(box.function, Absent))

    def is_as_recorded(self, verdict: Verdict) -> bool:
        """True if a new verdict agrees with the record: in exact values exactly, in a black box's within its error."""
        new = verdict.to_json()
        return all(new[key] == self.recorded.get(key) for key in ("verdict", "guarantee", "relation")) and all(
            _exact(new[side]) == _exact(self.recorded.get(side)) and _close(new[side], self.recorded.get(side))
            for side in ("lhs", "rhs")
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, exact; `from_json` reads it back."""
        lhs, rhs = self.claim.sides
        claim = {
            "name": self.claim.name,
            "lhs": box_json(lhs) if isinstance(lhs, BlackBox) else to_json(lhs),
            "rhs": box_json(rhs) if isinstance(rhs, BlackBox) else to_json(rhs),
            "relation": self.claim.relation,
            "statement": self.claim.statement,
            "source": self.claim.source,
            "covering": self.claim.covering,
        }
        return {
            "format": FORMAT_WITH_BLACK_BOXES if self.claim.black_boxes else FORMAT,
            "claim": claim,
            "model": self.model.to_json(),
            "x": self.x,
            "verdict": dict(self.recorded),
        }

    @classmethod
    def from_json(cls, data: object, objectives: Sequence[Objective] = ()) -> Witness:
        """The witness of a JSON object, every part of it checked.

        Args:
            data: the object.
            objectives: the callables of the black boxes that it names, found by their names.

        Raises:
            BadInput: if the object is no witness of this format; the message names the field.
        """
        form = data.get("format") if isinstance(data, Mapping) else data
        if not isinstance(data, Mapping) or form not in (FORMAT, FORMAT_WITH_BLACK_BOXES):
            raise BadInput("the format of the witness", form, f"{FORMAT!r} or {FORMAT_WITH_BLACK_BOXES!r}", REMEDY)
        fields = ("format", "claim", "model", "x", "verdict")
        require_fields("the witness", data, fields)
        verdict = data["verdict"]
        if not isinstance(verdict, Mapping):
            raise BadInput("verdict", verdict, "an object", REMEDY)
        claim = _read_claim(data["claim"], form == FORMAT_WITH_BLACK_BOXES, objectives)
        if (form == FORMAT_WITH_BLACK_BOXES) != bool(claim.black_boxes):
            raise BadInput("the format of the witness", form, f"{FORMAT!r} for a claim of formulas", REMEDY)
        return cls(claim, FiniteModel.from_json(data["model"]), data["x"], dict(verdict))

    def save(self, path: str | Path) -> None:
        """Write the witness as a JSON file, whole or not at all.

        Raises:
            BadInput: a place that cannot be written to.
        """
        write_text(path, json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n", "the witness file")


def load_witness(path: str | Path, objectives: Sequence[Objective] = ()) -> Witness:
    """A saved counterexample.

    Args:
        path: the file.
        objectives: the callables of the black boxes that the file names, found by their names; a single one is taken
            for a single black box whatever its name. A function of a module that is loaded already is found by itself.

    Raises:
        BadInput: a file that is missing, empty, not JSON, or no witness; an objective that it does not name. The
            message names the file.

    >>> load_witness("no-such-file.json")
    Traceback (most recent call last):
    ...
    boundcheck.errors.BadInput: the witness file = 'no-such-file.json': expected a readable JSON file; No such file
    or directory
    """
    name = "the witness file"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadInput(name, str(path), "a readable JSON file", reason or str(error)) from None
    if not text.strip():
        raise BadInput(name, str(path), "a JSON object", "the file is empty")
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadInput(name, str(path), "valid JSON", str(error)) from None
    try:
        return Witness.from_json(data, objectives)
    except BoundcheckError as error:
        raise BadInput(name, str(path), "a saved counterexample", str(error)) from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _exact(value: object) -> LogNumber | None:
    """The exact number in the record of a value; None for a value of another kind, or for nonsense."""
    from boundcheck.evaluators.lognumber import LogNumber

    try:
        return LogNumber.from_json(value["exact"]) if isinstance(value, Mapping) and "exact" in value else None
    except BadInput:
        return None


def _read_claim(data: object, black_boxes: bool, objectives: Sequence[Objective]) -> Claim:
    if not isinstance(data, Mapping):
        raise BadInput("claim", data, "an object", REMEDY)
    require_fields("the claim", data, _CLAIM_FIELDS)
    for field in ("name", "statement", "source"):
        if not isinstance(data[field], str):
            raise BadInput(f"claim.{field}", data[field], "text", REMEDY)
    if not isinstance(data["covering"], bool):
        raise BadInput("claim.covering", data["covering"], "true or false", REMEDY)
    sides = [_read_side(side, data[side], black_boxes) for side in ("lhs", "rhs")]
    lhs, rhs = given(sides, objectives)
    return Claim(
        data["name"],
        lhs,
        data["relation"],
        rhs,
        statement=data["statement"],
        source=data["source"],
        covering=data["covering"],
    )


def _read_side(side: str, data: object, black_boxes: bool) -> Side:
    if black_boxes and isinstance(data, Mapping) and BLACK_BOX in data:
        return read_box(f"claim.{side}", data[BLACK_BOX])
    try:
        return from_json(data)
    except BoundcheckError as error:
        raise BadInput(f"claim.{side}", data, "a formula", str(error)) from None


def keepable(found: ModelCheck) -> bool:
    """True if what a check found is a counterexample that a file can hold."""
    guarantee = found.verdict.guarantee.value if found.verdict.guarantee else ""
    violated = found.verdict.outcome is Outcome.VIOLATED and guarantee in _kept(bool(found.claim.black_boxes))
    return violated and isinstance(found.model, FiniteModel)


def _kept(black_boxes: bool) -> tuple[str, ...]:
    """The guarantees of a violation that makes a witness."""
    certified = (Guarantee.EXACT.value, Guarantee.CERTIFIED.value)
    return (Guarantee.NUMERICAL.value,) if black_boxes else certified


def _close(new: object, recorded: object) -> bool:
    """False if two floats, as values record them, differ by more than their errors."""
    if not isinstance(new, Mapping) or new.get("kind") != "approximate":
        return True
    if not isinstance(recorded, Mapping):
        return False
    try:
        difference = float(new["float"]) - float(recorded["float"])
        return abs(difference) <= float(new["error"]) + float(recorded["error"])
    except (KeyError, TypeError, ValueError):
        return False


__all__ = ["FORMAT", "FORMAT_WITH_BLACK_BOXES", "Witness", "keepable", "load_witness"]
