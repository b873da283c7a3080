"""What a sweep found, claim by claim: the same for the same plan, whoever did the tasks and in whichever order.

A counterexample to a claim that is known to be false is what a search is for. One to a claim that is not known to be
false is news; and one to a claim that boundcheck itself calls proved is an alarm, for then one of its two verdicts is
wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boundcheck.claims.decide import Outcome
from boundcheck.claims.survey import Status
from boundcheck.errors import BadInput
from boundcheck.search.files import write_text
from boundcheck.search.sweep_journal import Record
from boundcheck.search.sweep_plan import Plan, Task, program, version

FORMAT = "boundcheck-sweep-report/1"
NAME = "report.json"
WITNESSES = "witnesses"


@dataclass(frozen=True)
class ClaimReport:
    """What the tasks of one claim found.

    Args:
        name: the claim's name in the plan.
        known_false: the claim is the catalogue's, and its status there is "refuted".
        status: what `check` says of the claim (without proofs in symbols, which run against the clock).
        verdict: what that status allows: holds, violated, undecided.
        tasks: how many searches there were, the judging of the claim not counted.
        models: how many models they tried.
        violations: how many of them found a counterexample, certified.
        witness: the smallest of these counterexamples; if there is none, the one that `check` gives, if any.
        states: the number of its states; None for a continuous model.
        file: where it is saved, below the sweep's folder; None for a model that no file can hold exactly.
        failed: the tasks without a result, and why.
    """

    name: str
    known_false: bool
    status: str
    verdict: str
    tasks: int
    models: int
    violations: int
    witness: Mapping[str, Any] | None
    states: int | None
    file: str | None
    failed: Mapping[str, str]

    @property
    def violated(self) -> bool:
        """True if there is a counterexample, from a search or from `check`."""
        return bool(self.violations) or self.verdict == Outcome.VIOLATED.value

    @property
    def contradiction(self) -> bool:
        """True if boundcheck says that the claim holds, and yet a search broke it."""
        return bool(self.violations) and self.verdict == Outcome.HOLDS.value

    @property
    def missed(self) -> bool:
        """True if the claim is false, and yet no search broke it."""
        return not self.violations and self.verdict == Outcome.VIOLATED.value

    @property
    def unexpected(self) -> bool:
        """True if the claim is violated and was not known to be false."""
        return self.violated and not self.known_false

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "claim": self.name,
            "status": self.status,
            "verdict": self.verdict,
            "known_false": self.known_false,
            "tasks": self.tasks,
            "models": self.models,
            "violations": self.violations,
            "contradiction": self.contradiction,
            "missed": self.missed,
            "states": self.states,
            "file": self.file,
            "failed": dict(self.failed),
            "witness": self.witness,
        }


@dataclass(frozen=True)
class Report:
    """What a sweep found; `claims` are in the order of the plan."""

    plan: Plan
    claims: tuple[ClaimReport, ...]

    @property
    def contradictions(self) -> list[str]:
        """The claims that boundcheck says hold and that a search broke."""
        return [each.name for each in self.claims if each.contradiction]

    @property
    def unexpected(self) -> list[str]:
        """The claims that are violated and were not known to be false."""
        return [each.name for each in self.claims if each.unexpected]

    @property
    def missed(self) -> list[str]:
        """The false claims that no search broke."""
        return [each.name for each in self.claims if each.missed]

    @property
    def failed(self) -> dict[str, str]:
        """The tasks without a result, and why."""
        return {key: why for each in self.claims for key, why in each.failed.items()}

    @property
    def models(self) -> int:
        """How many models were tried."""
        return sum(each.models for each in self.claims)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; nothing in it depends on who did the tasks, when, or in which order."""
        return {
            "format": FORMAT,
            "version": version(),
            "program": program(),
            "plan": self.plan.digest,
            "what": self.plan.what,
            "tasks": len(self.plan.tasks),
            "models": self.models,
            "violated": [each.name for each in self.claims if each.violated],
            "unexpected": self.unexpected,
            "contradictions": self.contradictions,
            "missed": self.missed,
            "failed": self.failed,
            "claims": [each.to_json() for each in self.claims],
        }

    def save(self, folder: str | Path) -> None:
        """Write the report and, for each violated claim, a witness file for `replay`.

        Raises:
            BadInput: a folder that cannot be written to.
        """
        folder = Path(folder)
        try:
            (folder / WITNESSES).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = error.strerror or str(error)
            raise BadInput("--out", str(folder), "a folder that can be written to", what) from None
        for each in self.claims:
            if each.file is not None:
                _write(folder / each.file, each.witness, "the witness file")
        _write(folder / NAME, self.to_json(), "the report")


def report_of(plan: Plan, records: Mapping[str, Record], failed: Mapping[str, str]) -> Report:
    """The records of a plan's tasks as one report.

    Args:
        plan: the plan.
        records: the record of each task by its key.
        failed: why a task has no record, by its key.
    """
    by_claim: dict[str, list[Task]] = {name: [] for name in plan.claims}
    for task in plan.tasks:
        by_claim[task.claim].append(task)
    files: set[str] = set()
    return Report(plan, tuple(_of_claim(plan, name, tasks, records, failed, files) for name, tasks in by_claim.items()))


def _of_claim(
    plan: Plan,
    name: str,
    tasks: list[Task],
    records: Mapping[str, Record],
    failed: Mapping[str, str],
    files: set[str],
) -> ClaimReport:
    judged: Record = {}
    searched: list[Record] = []
    for task in tasks:
        record = records.get(task.key)
        if record is not None and task.kind == "judge":
            judged = record
        elif record is not None:
            searched.append(record)
    found = [record for record in searched if record["violated"]]
    smallest = min(found, key=lambda record: record["size"], default=judged if judged.get("violated") else None)
    kept = smallest is not None and "format" in smallest["witness"]  # so that `replay` can read it
    verdict = judged.get("verdict", Outcome.UNDECIDED.value)
    return ClaimReport(
        name=name,
        known_false=verdict == Outcome.VIOLATED.value and plan.is_catalogued(name),
        status=judged.get("status", Status.UNDECIDED.value),
        verdict=verdict,
        tasks=sum(task.kind != "judge" for task in tasks),
        models=sum(record["models"] for record in searched),
        violations=len(found),
        witness=smallest["witness"] if smallest is not None else None,
        states=(smallest["size"][0] or None) if smallest is not None else None,
        file=_file_for(name, files) if kept else None,
        failed={task.key: failed[task.key] for task in tasks if task.key in failed},
    )


def _file_for(name: str, taken: set[str]) -> str:
    """A file name for a claim's witness: letters that every system allows, and a number if two would be the same."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "claim"
    candidate, number = plain, 1
    while candidate.lower() in taken:
        number += 1
        candidate = f"{plain}-{number}"
    taken.add(candidate.lower())
    return f"{WITNESSES}/{candidate}.json"


def _write(path: Path, data: object, what: str) -> None:
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n", what)


__all__ = ["FORMAT", "NAME", "WITNESSES", "ClaimReport", "Report", "report_of"]
