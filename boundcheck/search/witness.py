"""Counterexamples as files: a claim, a model and an observation, all of it exact, decided again whenever it is read.

A file holds the claim's formulas themselves, so it can be replayed where the claim is not in any catalogue. What the
file says of the verdict is a record and nothing more: `Witness.replay` computes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boundcheck.claims.check import ModelCheck, check
from boundcheck.claims.claim import Claim
from boundcheck.claims.decide import Guarantee, Outcome, Verdict
from boundcheck.errors import BadInput, BoundcheckError
from boundcheck.language import from_json, to_json
from boundcheck.language.terms import Term
from boundcheck.models.finite import FiniteModel
from boundcheck.search.files import write_text

if TYPE_CHECKING:
    from boundcheck.evaluators.lognumber import LogNumber

FORMAT = "boundcheck-witness/1"

_CLAIM_FIELDS = ("name", "lhs", "rhs", "relation", "statement", "source", "covering")
_REMEDY = "restore the file as boundcheck wrote it"


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
            that is no certified violation.

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
        certified = (Guarantee.EXACT.value, Guarantee.CERTIFIED.value)
        if self.recorded.get("verdict") != Outcome.VIOLATED.value or guarantee not in certified:
            what = f"{self.recorded.get('verdict')} ({guarantee})"
            raise BadInput("the recorded verdict", what, "violated (exact) or violated (certified)", _REMEDY)

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
            BadInput: a table that the claim needs and the model lacks.
            CannotCompute: no evaluator can compute a side of the claim.
        """
        return check(self.claim, self.model, self.x)

    def is_as_recorded(self, verdict: Verdict) -> bool:
        """True if a new verdict agrees with the record, in the exact values too."""
        new = verdict.to_json()
        return all(new[key] == self.recorded.get(key) for key in ("verdict", "guarantee", "relation")) and all(
            _exact(new[side]) == _exact(self.recorded.get(side)) for side in ("lhs", "rhs")
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, exact; `from_json` reads it back."""
        lhs, rhs = self.claim.terms
        claim = {
            "name": self.claim.name,
            "lhs": to_json(lhs),
            "rhs": to_json(rhs),
            "relation": self.claim.relation,
            "statement": self.claim.statement,
            "source": self.claim.source,
            "covering": self.claim.covering,
        }
        return {
            "format": FORMAT,
            "claim": claim,
            "model": self.model.to_json(),
            "x": self.x,
            "verdict": dict(self.recorded),
        }

    @classmethod
    def from_json(cls, data: object) -> Witness:
        """The witness of a JSON object, every part of it checked.

        Raises:
            BadInput: if the object is no witness of this format; the message names the field.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            given = data.get("format") if isinstance(data, Mapping) else data
            raise BadInput("the format of the witness", given, repr(FORMAT), _REMEDY)
        fields = ("format", "claim", "model", "x", "verdict")
        _require_fields("the witness", data, fields)
        verdict = data["verdict"]
        if not isinstance(verdict, Mapping):
            raise BadInput("verdict", verdict, "an object", _REMEDY)
        return cls(_read_claim(data["claim"]), FiniteModel.from_json(data["model"]), data["x"], dict(verdict))

    def save(self, path: str | Path) -> None:
        """Write the witness as a JSON file, whole or not at all.

        Raises:
            BadInput: a place that cannot be written to.
        """
        write_text(path, json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n", "the witness file")


def load_witness(path: str | Path) -> Witness:
    """A saved counterexample.

    Raises:
        BadInput: a file that is missing, empty, not JSON, or no witness; the message names the file.

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
        return Witness.from_json(data)
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


def _require_fields(what: str, data: Mapping[str, Any], fields: tuple[str, ...]) -> None:
    missing = [field for field in fields if field not in data]
    unknown = [str(field) for field in data if field not in fields]
    if missing or unknown:
        given = f"without {missing[0]}" if missing else unknown[0]
        raise BadInput(what, given, f"the fields {', '.join(fields)}", _REMEDY)


def _read_claim(data: object) -> Claim:
    if not isinstance(data, Mapping):
        raise BadInput("claim", data, "an object", _REMEDY)
    _require_fields("the claim", data, _CLAIM_FIELDS)
    for field in ("name", "statement", "source"):
        if not isinstance(data[field], str):
            raise BadInput(f"claim.{field}", data[field], "text", _REMEDY)
    if not isinstance(data["covering"], bool):
        raise BadInput("claim.covering", data["covering"], "true or false", _REMEDY)
    return Claim(
        data["name"],
        _read_side("lhs", data["lhs"]),
        data["relation"],
        _read_side("rhs", data["rhs"]),
        statement=data["statement"],
        source=data["source"],
        covering=data["covering"],
    )


def _read_side(side: str, data: object) -> Term:
    try:
        return from_json(data)
    except BoundcheckError as error:
        raise BadInput(f"claim.{side}", data, "a formula", str(error)) from None


__all__ = ["FORMAT", "Witness", "load_witness"]
