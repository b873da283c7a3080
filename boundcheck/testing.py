"""Assertions for a test suite: a bound holds on this model, decided, or the failure shows why it does not.

Every assertion is recorded, so that the pytest plugin can say at the end what was tested how hard, and which of the
corners where claims break the models met.
"""

from __future__ import annotations

import contextlib
import math
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from boundcheck.claims.check import ModelCheck, check
from boundcheck.claims.claim import Claim
from boundcheck.claims.decide import Outcome, Relation, Verdict
from boundcheck.claims.describe import model_text
from boundcheck.errors import BadInput, BoundcheckError, ObjectiveFailed
from boundcheck.evaluators.black_box import BlackBox
from boundcheck.evaluators.strongest import Model
from boundcheck.evaluators.values import Value
from boundcheck.language.build import Formula
from boundcheck.language.terms import Term
from boundcheck.models.finite import FiniteModel
from boundcheck.search.black_boxes import replay_line
from boundcheck.search.corners import corners_of
from boundcheck.search.regression import Origin, regression_test
from boundcheck.search.witness import Witness, load_witness

if TYPE_CHECKING:
    from boundcheck.agreement import PROBLEMS as PROBLEMS
    from boundcheck.agreement import Disagreement as Disagreement
    from boundcheck.agreement import Problem as Problem
    from boundcheck.agreement import check_evaluator as check_evaluator
    from boundcheck.agreement import laws as laws
    from boundcheck.agreement import matrix as matrix

Objective: TypeAlias = Formula | Term | BlackBox

WITNESS_FOLDER = ".boundcheck"
"""Where failures save their counterexamples, under the current directory."""

# --- what was asserted ---------------------------------------------------------------------------------------------


@dataclass
class Record:
    """What was asserted of one claim in a test run.

    `models` counts the models on which the claim was decided or left undecided, `corners` those among them that were
    of each corner: 0 for a corner that models of this kind can be and none was.
    """

    name: str
    models: int = 0
    undecided: int = 0
    violated: int = 0
    failed: int = 0
    smallest_margin: float = math.inf
    guarantee: str = ""
    corners: dict[str, int] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The worst verdict met."""
        if self.violated:
            return Outcome.VIOLATED.value
        if self.failed:
            return "no number"
        return Outcome.UNDECIDED.value if self.undecided or not self.models else "held"

    @property
    def missed(self) -> list[str]:
        """The corners that no model met."""
        return [corner for corner, models in self.corners.items() if not models]

    def merge(self, other: Record) -> None:
        """Add what another process recorded."""
        self.models += other.models
        self.undecided += other.undecided
        self.violated += other.violated
        self.failed += other.failed
        self.smallest_margin = min(self.smallest_margin, other.smallest_margin)
        self.guarantee = _weaker(self.guarantee, other.guarantee)
        for corner, models in other.corners.items():
            self.corners[corner] = self.corners.get(corner, 0) + models

    def lines(self) -> list[str]:
        """The record as text: the verdict, its guarantee, how many models, how close, and which corners."""
        margin = f"{self.smallest_margin + 0.0:.3g} nats" if self.guarantee else "none decided"
        undecided = f", {self.undecided} undecided" if self.undecided else ""
        lines = [
            f"{self.verdict:<9}  {self.guarantee or '-':<11}  {self.models} models{undecided}, smallest margin {margin}"
        ]
        met = [f"{corner} {models}" for corner, models in self.corners.items() if models]
        if self.corners:
            lines.append(f"corners met: {', '.join(met) or 'none'}")
        if self.missed and not (self.violated or self.failed):  # such a claim was tried hard enough
            lines.append(f"corners not met: {', '.join(self.missed)}")
        return lines


RECORDS: dict[str, Record] = {}
"""Every claim that was asserted in this process, by name."""

STRICT = [False]
"""Whether an undecided comparison fails where an assertion does not say; the marker boundcheck(strict=True) sets it."""

LAST_VIOLATION: list[ModelCheck] = []
"""The violation that an assertion met last, if any; the plugin looks for a smaller one when the test has failed."""

_TIE = 1e-9
"""Margins below this are ties as far as the search for a violation is concerned."""

_STRENGTH = ("exact", "certified", "numerical", "statistical")


def _weaker(a: str, b: str) -> str:
    known = [guarantee for guarantee in (a, b) if guarantee]
    return max(known, key=_STRENGTH.index) if known else ""


def coverage(name: str) -> dict[str, int]:
    """How many of the models on which a claim was asserted in this process were of each corner.

    Args:
        name: what `assert_bound` calls the claim: its `name`, or such as "elbo <= log_evidence".

    Raises:
        BadInput: a claim that was not asserted.

    >>> from boundcheck.catalogue.objectives import elbo, log_evidence
    >>> model = FiniteModel(prior=["1/2", "1/2"], likelihood=[[1], [1]], encoder=[[0, 1]])
    >>> assert_bound(elbo, "<=", log_evidence, model, name="my claim")
    >>> coverage("my claim")["zeros"]
    1
    """
    if name not in RECORDS:
        raise BadInput("name", name, f"a claim that was asserted: {', '.join(RECORDS) or 'none was'}")
    return dict(RECORDS[name].corners)


# --- assertions ----------------------------------------------------------------------------------------------------


def assert_bound(
    lhs: Objective,
    relation: Relation,
    rhs: Objective,
    model: Model,
    x: Any = None,
    *,
    name: str | None = None,
    strict: bool | None = None,
) -> None:
    """Assert `lhs relation rhs` on a model, at one observation or at every possible one.

    Inside a Hypothesis test the margin is made its target, so that the search goes where the bound is tightest.

    Args:
        lhs: the objective on the left: a function of (m, x), a term, or a `black_box`.
        relation: "<=" or "==".
        rhs: the objective on the right.
        model: the model.
        x: the observation; for a finite model every possible one if not given.
        name: what to call the claim in reports; by default the functions' names.
        strict: whether an undecided comparison (a side without a value, a tie of enclosures, two numbers within the
            error of a black box) fails too; by default as the marker `boundcheck(strict=...)` of the test says.

    Raises:
        AssertionError: the claim is violated; the message shows the model, both values exactly, and how to replay it.
        BadInput: an unknown relation, an observation or a table that the model does not have.
        ObjectiveFailed: a black box that gives no number.

    >>> from boundcheck.catalogue.objectives import elbo, log_evidence
    >>> model = FiniteModel(prior=["1/2", "1/2"], likelihood=[[1], [1]], encoder=[["1/3", "2/3"]])
    >>> assert_bound(elbo, "<=", log_evidence, model)
    """
    __tracebackhide__ = True  # a failure points at the line of the test
    title = name or f"{_name(lhs)} {relation} {_name(rhs)}"
    claim = _claim(title, lhs, relation, rhs)
    record = RECORDS.setdefault(title, Record(title))
    strict = STRICT[0] if strict is None else strict
    smallest, counted = math.inf, False
    for each in _observations(model, x):
        if not claim.applies(model, each):
            continue
        try:
            verdict = check(claim, model, each)
        except ObjectiveFailed as failure:
            record.failed += 1
            raise failure.with_traceback(None) from None
        if not counted:
            counted = True
            record.models += 1
            for corner, met in corners_of(model, each).items():
                record.corners[corner] = record.corners.get(corner, 0) + met
        margin = -abs(verdict.margin) if relation == "==" else verdict.margin
        _note(record, verdict, margin)
        smallest = min(smallest, margin)
        if verdict.outcome is Outcome.VIOLATED or (strict and verdict.outcome is Outcome.UNDECIDED):
            LAST_VIOLATION[:] = [ModelCheck(claim, model, each, verdict)]
            raise AssertionError(_failure(LAST_VIOLATION[0]))
    _target(smallest, title)


def assert_fixed(path: str | Path, *, lhs: Objective | None = None, rhs: Objective | None = None) -> None:
    """Assert that a saved counterexample is none any more, with an objective of yours in the place of a side.

    Args:
        path: the witness file.
        lhs: the objective to put on the left; the one that the file holds if not given.
        rhs: the same for the right.

    Raises:
        AssertionError: the claim is violated on the saved model.
        BadInput: a file that is no witness; a black box that the file names and that was not given.

    >>> import tempfile
    >>> from boundcheck.catalogue import find
    >>> from boundcheck.catalogue.objectives import denoising_coupled
    >>> from boundcheck.claims import check_model
    >>> claim = find("denoising-decoupled-below-evidence")
    >>> path = Path(tempfile.mkdtemp()) / "witness.json"
    >>> Witness.of(check_model(claim, claim.witness())).save(path)
    >>> assert_fixed(path, lhs=denoising_coupled)
    """
    __tracebackhide__ = True
    witness = load_witness(path)
    old = witness.claim
    for given, side in ((lhs, old.lhs), (rhs, old.rhs)):
        if given is None and isinstance(side, BlackBox) and side.function in witness.absent:
            witness.replay()  # says which callable is missing
    claim = Claim(old.name, lhs or old.lhs, old.relation, rhs or old.rhs, covering=old.covering)
    verdict = check(claim, witness.model, witness.x)
    if verdict.outcome is Outcome.VIOLATED:
        raise AssertionError(_failure(ModelCheck(claim, witness.model, witness.x, verdict), path))


@lru_cache(maxsize=256)
def _claim(title: str, lhs: Objective, relation: Relation, rhs: Objective) -> Claim:
    """A property test asks for the same claim hundreds of times."""
    return Claim(title, lhs, relation, rhs)


def _observations(model: Model, x: Any) -> list[Any]:
    if not isinstance(model, FiniteModel):
        if x is None:
            raise BadInput("x", x, "the observation", "a continuous model has no list of them: pass x=...")
        return [x]
    if x is None:
        return list(range(model.sizes["x"]))
    if isinstance(x, bool) or not isinstance(x, int) or not (0 <= x < model.sizes["x"]):
        raise BadInput("x", x, f"the number of an observed state, 0 to {model.sizes['x'] - 1}")
    return [x]


def _name(formula: Any) -> str:
    if isinstance(formula, BlackBox):
        return formula.name
    named = getattr(formula, "__name__", None)
    if named is None and hasattr(formula, "func"):
        parameters = ", ".join(f"{key}={value}" for key, value in formula.keywords.items())
        named = f"{formula.func.__name__}({parameters})"
    return named if named and named != "<lambda>" else str(getattr(formula, "text", "formula"))


def _note(record: Record, verdict: Verdict, margin: float) -> None:
    if verdict.outcome is Outcome.UNDECIDED:
        record.undecided += 1
        return
    record.violated += verdict.outcome is Outcome.VIOLATED
    record.smallest_margin = min(record.smallest_margin, margin)
    record.guarantee = _weaker(record.guarantee, verdict.guarantee.value if verdict.guarantee else "")


def _target(margin: float, label: str) -> None:
    """Let Hypothesis climb towards a violation, if this runs inside one of its tests.

    A tie is no summit to climb: models on which a bound is tight by nature (one latent state, an encoder equal to the
    posterior) would take up the rest of the search.
    """
    if "hypothesis" not in sys.modules or not math.isfinite(margin) or abs(margin) < _TIE:
        return
    from hypothesis import currently_in_test_context, target
    from hypothesis.errors import InvalidArgument

    if currently_in_test_context():
        with contextlib.suppress(InvalidArgument):  # a second bound of this name in one test has no target of its own
            target(-margin, label=label)


# --- failures ------------------------------------------------------------------------------------------------------


def _failure(found: ModelCheck, saved: str | Path | None = None) -> str:
    verdict, model = found.verdict, found.model
    lines = [f"{found.claim.name}: {verdict}", f"  {found.claim}", f"at x = {found.x} on the model"]
    if isinstance(model, FiniteModel):
        lines += [f"  {line}" for line in model_table(model)]
    else:
        lines += [f"  {role:<11} {law}" for role, law in model_text(model, found.x)]
    if verdict.lhs is not None and verdict.rhs is not None:
        lines += [f"lhs = {_shown(verdict.lhs)}", f"rhs = {_shown(verdict.rhs)}"]
        lines.append(f"rhs - lhs = {verdict.margin:.6g} nats")
    lines += [f"{box.name} is a black box: trusted {box.trust}" for box in found.claim.black_boxes]
    if verdict.outcome is Outcome.VIOLATED:
        path = saved or save_witness(found)
        if path is not None:
            lines.append(f"replay: {replay_line(path, found.claim)}")
    return "\n".join(lines)


def smaller_counterexample() -> str:
    """The violation that was met last, on a smaller model if there is one: as the failure shows it; else ""."""
    from boundcheck.search.reduce import size_of
    from boundcheck.search.smaller import smaller

    if not LAST_VIOLATION:
        return ""
    given = LAST_VIOLATION.pop()
    try:
        found = smaller(given)
    except BoundcheckError:  # the failure itself is told anyway
        return ""
    if found is given or not isinstance(found.model, FiniteModel) or not isinstance(given.model, FiniteModel):
        return ""
    if size_of(found.model).states >= size_of(given.model).states:
        return ""
    return _failure(found, save_witness(found, name=f"smaller-{found.claim.name}"))


def _shown(value: Value) -> str:
    text, number = str(value), f"{float(value):.12g}"
    return text if text == number or text.startswith(number) else f"{text} = {number}"


def save_witness(found: ModelCheck, folder: str | Path = WITNESS_FOLDER, name: str | None = None) -> Path | None:
    """Save a violation as a witness file named after its claim; None if that cannot be done."""
    safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in name or found.claim.name).strip("-") or "claim"
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


_AGREEMENT = ("PROBLEMS", "Disagreement", "Problem", "check_evaluator", "laws", "matrix")


def __getattr__(name: str) -> Any:
    """The agreement matrix is loaded when it is first used."""
    if name not in _AGREEMENT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from boundcheck import agreement

    return getattr(agreement, name)


__all__ = [
    "RECORDS",
    "Origin",
    "Record",
    "assert_bound",
    "assert_fixed",
    "coverage",
    "model_table",
    "regression_test",
    "save_witness",
]
