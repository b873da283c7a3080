"""Assertions for a test suite: a bound holds on this model, decided, or the failure shows why it does not.

Every assertion is recorded, so that the pytest plugin can say at the end what was tested how hard.
"""

from __future__ import annotations

import contextlib
import math
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boundcheck.claims.check import ModelCheck, check
from boundcheck.claims.claim import Claim
from boundcheck.claims.decide import Outcome, Relation, Verdict
from boundcheck.errors import BadInput
from boundcheck.evaluators.values import Value
from boundcheck.language.build import Formula
from boundcheck.language.terms import Term
from boundcheck.models.finite import FiniteModel
from boundcheck.search.witness import Witness

if TYPE_CHECKING:
    from boundcheck.agreement import PROBLEMS as PROBLEMS
    from boundcheck.agreement import Disagreement as Disagreement
    from boundcheck.agreement import Problem as Problem
    from boundcheck.agreement import check_evaluator as check_evaluator
    from boundcheck.agreement import laws as laws
    from boundcheck.agreement import matrix as matrix

WITNESS_FOLDER = ".boundcheck"
"""Where failures save their counterexamples, under the current directory."""


@dataclass
class Record:
    """What was asserted of one claim in a test run."""

    name: str
    models: int = 0
    undecided: int = 0
    violated: int = 0
    smallest_margin: float = math.inf
    guarantee: str = ""

    @property
    def verdict(self) -> str:
        """The worst verdict met."""
        if self.violated:
            return Outcome.VIOLATED.value
        return Outcome.UNDECIDED.value if self.undecided or not self.models else "held"

    def merge(self, other: Record) -> None:
        """Add what another process recorded."""
        self.models += other.models
        self.undecided += other.undecided
        self.violated += other.violated
        self.smallest_margin = min(self.smallest_margin, other.smallest_margin)
        self.guarantee = _weaker(self.guarantee, other.guarantee)


RECORDS: dict[str, Record] = {}
"""Every claim that was asserted in this process, by name."""

_STRENGTH = ("exact", "certified", "numerical", "statistical")


def _weaker(a: str, b: str) -> str:
    known = [guarantee for guarantee in (a, b) if guarantee]
    return max(known, key=_STRENGTH.index) if known else ""


def assert_bound(
    lhs: Formula | Term,
    relation: Relation,
    rhs: Formula | Term,
    model: FiniteModel,
    x: int | None = None,
    *,
    name: str | None = None,
    strict: bool = False,
) -> None:
    """Assert `lhs relation rhs` on a model, at one observation or at every possible one.

    Inside a Hypothesis test the margin is made its target, so that the search goes where the bound is tightest.

    Args:
        lhs: the formula on the left: a function of (m, x), or a term.
        relation: "<=" or "==".
        rhs: the formula on the right.
        model: the finite model.
        x: the observation; every possible one if not given.
        name: what to call the claim in reports; by default the functions' names.
        strict: whether an undecided comparison (a side without a value, a tie of enclosures) fails too.

    Raises:
        AssertionError: the claim is violated; the message shows the model, both values exactly, and how to replay it.
        BadInput: an unknown relation, an observation or a table that the model does not have.

    >>> from boundcheck.catalogue.objectives import elbo, log_evidence
    >>> model = FiniteModel(prior=["1/2", "1/2"], likelihood=[[1], [1]], encoder=[["1/3", "2/3"]])
    >>> assert_bound(elbo, "<=", log_evidence, model)
    """
    title = name or f"{_name(lhs)} {relation} {_name(rhs)}"
    claim = _claim(title, lhs, relation, rhs)
    observations = range(model.sizes["x"]) if x is None else [x]
    record = RECORDS.setdefault(title, Record(title))
    decided, smallest = False, math.inf
    for each in observations:
        if not (0 <= each < model.sizes["x"]):
            raise BadInput("x", each, f"the number of an observed state, 0 to {model.sizes['x'] - 1}")
        if not claim.applies(model, each):
            continue
        verdict = check(claim, model, each)
        decided = True
        _note(record, verdict)
        smallest = min(smallest, verdict.margin)
        if verdict.outcome is Outcome.VIOLATED or (strict and verdict.outcome is Outcome.UNDECIDED):
            raise AssertionError(_failure(ModelCheck(claim, model, each, verdict)))
    _target(smallest, title)
    if decided:
        record.models += 1


@lru_cache(maxsize=256)
def _claim(title: str, lhs: Formula | Term, relation: Relation, rhs: Formula | Term) -> Claim:
    """A property test asks for the same claim hundreds of times."""
    return Claim(title, lhs, relation, rhs)


def _name(formula: Any) -> str:
    named = getattr(formula, "__name__", None)
    if named is None and hasattr(formula, "func"):
        parameters = ", ".join(f"{key}={value}" for key, value in formula.keywords.items())
        named = f"{formula.func.__name__}({parameters})"
    return named if named and named != "<lambda>" else str(getattr(formula, "text", "formula"))


def _note(record: Record, verdict: Verdict) -> None:
    if verdict.outcome is Outcome.UNDECIDED:
        record.undecided += 1
        return
    record.violated += verdict.outcome is Outcome.VIOLATED
    record.smallest_margin = min(record.smallest_margin, verdict.margin)
    record.guarantee = _weaker(record.guarantee, verdict.guarantee.value if verdict.guarantee else "")


def _target(margin: float, label: str) -> None:
    """Let Hypothesis climb towards a violation, if this runs inside one of its tests."""
    if "hypothesis" not in sys.modules or not math.isfinite(margin):
        return
    from hypothesis import currently_in_test_context, target
    from hypothesis.errors import InvalidArgument

    if currently_in_test_context():
        with contextlib.suppress(InvalidArgument):  # a second bound of this name in one test has no target of its own
            target(-margin, label=label)


def _failure(found: ModelCheck) -> str:
    verdict = found.verdict
    lines = [f"{found.claim.name}: {verdict}", f"  {found.claim}", f"at x = {found.x} on the model"]
    assert isinstance(found.model, FiniteModel)
    lines += [f"  {line}" for line in model_table(found.model)]
    if verdict.lhs is not None and verdict.rhs is not None:
        lines += [f"lhs = {_shown(verdict.lhs)}", f"rhs = {_shown(verdict.rhs)}"]
        lines.append(f"rhs - lhs = {verdict.margin:.6g} nats")
    if verdict.outcome is Outcome.VIOLATED:
        path = save_witness(found)
        if path is not None:
            lines.append(f"replay: boundcheck replay {path}")
    return "\n".join(lines)


def _shown(value: Value) -> str:
    text, number = str(value), f"{float(value):.12g}"
    return text if text == number else f"{text} = {number}"


def save_witness(found: ModelCheck, folder: str | Path = WITNESS_FOLDER) -> Path | None:
    """Save a certified violation as a witness file named after its claim; None if that cannot be done."""
    safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in found.claim.name).strip("-") or "claim"
    path = Path(folder) / f"{safe[:60]}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Witness.of(found).save(path)
    except (BadInput, OSError):
        return None
    return path


def model_table(model: FiniteModel) -> list[str]:
    """The tables of a finite model, a line a row."""
    lines = []
    tables = model.to_json()
    for role, table in tables.items():
        if role in ("format", "kind"):
            continue
        rows = table if isinstance(table[0], list) else [table]
        for i, row in enumerate(rows):
            lines.append(f"{role if i == 0 else '':<11} {_flat(row)}")
    return lines


def _flat(row: Any) -> str:
    if isinstance(row, list) and row and isinstance(row[0], list):
        return " | ".join(_flat(each) for each in row)
    return "  ".join(str(entry) for entry in row)


def regression_test(witness: Witness) -> str:
    """A witness as a ready pytest test: it fails for as long as the claim fails on this model.

    >>> from boundcheck.catalogue import find
    >>> from boundcheck.claims import check_model
    >>> claim = find("denoising-readings-agree")
    >>> source = regression_test(Witness.of(check_model(claim, claim.witness())))
    >>> print(source.splitlines()[-1].strip())
    assert check(claim, model, x=0).outcome is not Outcome.VIOLATED
    """
    import json
    import pprint

    lhs, rhs = (json.dumps(witness.to_json()["claim"][side]) for side in ("lhs", "rhs"))
    identifier = "".join(c if c.isalnum() else "_" for c in witness.claim.name).strip("_").lower() or "claim"
    tables = {key: value for key, value in witness.model.to_json().items() if key not in ("format", "kind")}
    model = pprint.pformat(tables, width=100, sort_dicts=False)
    return f'''"""A counterexample that boundcheck found: {witness.claim.name}."""

import json

from boundcheck import Claim, FiniteModel, Outcome, check
from boundcheck.language import from_json

# {witness.claim}
LHS = json.loads(r"""{lhs}""")
RHS = json.loads(r"""{rhs}""")
TABLES = {model}


def test_{identifier}_counterexample():
    model = FiniteModel(**TABLES)
    # To test your own formulas instead, put the functions in the place of from_json(...).
    claim = Claim({witness.claim.name!r}, from_json(LHS), {witness.claim.relation!r}, from_json(RHS))
    assert check(claim, model, x={witness.x}).outcome is not Outcome.VIOLATED
'''


_AGREEMENT = ("PROBLEMS", "Disagreement", "Problem", "check_evaluator", "laws", "matrix")


def __getattr__(name: str) -> Any:
    """The agreement matrix is loaded when it is first used."""
    if name not in _AGREEMENT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from boundcheck import agreement

    return getattr(agreement, name)
