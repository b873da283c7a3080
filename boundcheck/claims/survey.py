"""Deciding a claim over a family: what is known of it, in words that say no more than was found.

- refuted: a witness, decided exactly or by enclosures.
- proved: both sides are the same formula, or the difference of the sides cannot be negative by its form; or the
  claim's gap is an identity for all tables of the stated sizes, their entries being symbols.
- gap verified: the claim's gap cannot be negative by its form, and rhs - lhs = gap exactly at N models.
- survived: N models were tried and none violates the claim. That is no proof, so the verdict is "undecided".
- undecided: nothing of the above, for example because no model could be decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import chain
from typing import Any, TypeVar

from boundcheck.claims.check import ModelCheck, check_values
from boundcheck.claims.claim import Claim
from boundcheck.claims.decide import Guarantee, Outcome, Verdict, decide
from boundcheck.claims.family import cases
from boundcheck.claims.gap import always_at_most, nonnegative_by_form
from boundcheck.claims.gap_divergence import at_most_as_averages, equal_as_averages
from boundcheck.claims.symbolic import prove_gap
from boundcheck.errors import BadInput, UndefinedValue
from boundcheck.evaluators.kept import ModelValues
from boundcheck.evaluators.strongest import Model
from boundcheck.evaluators.values import Exact, Value, json_float
from boundcheck.language.terms import ZERO, Term, add, multiply
from boundcheck.models.finite import FiniteModel

DEFAULT_COUNT = 60
"""How many models a claim of the catalogue is tried on unless a caller says otherwise."""

FEWEST_VERIFIED = 10
"""At how many observations a gap must be exact before it counts as verified."""

SYMBOLIC_SIZES = ({"z": 2, "x~": 2}, {"z": 3, "x~": 3})
SYMBOLIC_SECONDS = 5.0
"""For which tables, and for how long each, a gap is tried as an identity in the entries as symbols."""


class Status(Enum):
    """How much is known of a claim over a family."""

    PROVED = "proved"
    GAP_VERIFIED = "gap verified"
    SURVIVED = "survived"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Survey:
    """A claim judged over a family of models.

    `models` counts those on which the claim was decided at every possible observation, `skipped` those on which a side
    has no value (inf - inf) somewhere, `open` those left undecided; `smallest_margin`, in nats, is over the decided.
    """

    claim: Claim
    status: Status
    detail: str
    guarantee: Guarantee | None
    models: int
    skipped: int
    open: int
    smallest_margin: float
    witness: ModelCheck | None = None

    @property
    def outcome(self) -> Outcome:
        """The verdict that the status allows: "survived" decides nothing.

        A black box that is violated in floats is violated, with a numerical guarantee; but it is not refuted.
        """
        if self.witness is not None:
            return Outcome.VIOLATED
        if self.status in (Status.PROVED, Status.GAP_VERIFIED):
            return Outcome.HOLDS
        return Outcome.UNDECIDED

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, with at least the fields of the command line's contract."""
        verdict = self.witness.verdict if self.witness else None
        return {
            "claim": self.claim.name,
            "verdict": self.outcome.value,
            "status": self.status.value,
            "detail": self.detail,
            "guarantee": self.guarantee.value if self.guarantee else None,
            "lhs": verdict.lhs.to_json() if verdict and verdict.lhs else None,
            "rhs": verdict.rhs.to_json() if verdict and verdict.rhs else None,
            "margin": json_float(self.smallest_margin),
            "models": self.models,
            "skipped": self.skipped,
            "open": self.open,
            "witness": self.witness.point_json() if self.witness else None,
        }


def survey(
    claim: Claim,
    models: Iterable[FiniteModel | tuple[Model | ModelValues, Sequence[Any]]] | None = None,
    *,
    count: int = DEFAULT_COUNT,
    seed: int = 0,
    symbolic: bool = True,
    progress: Callable[[], None] = lambda: None,
) -> Survey:
    """Judge a claim over a family of models.

    Args:
        claim: the claim.
        models: finite models, or pairs of a model (or its values, to be kept for other claims) and observations; by
            default the claim's known witness, if any, and then `count` random models of the claim's family.
        count: how many random models.
        seed: the seed of the random models.
        symbolic: whether a gap is also tried as an identity in tables of symbols (a second or so at the most).
        progress: called after each model.

    Raises:
        BadInput: no models at all, or one that lacks a table of the claim.
        CannotCompute: no evaluator can compute a side of the claim.

    >>> from boundcheck.catalogue import find
    >>> survey(find("elbo-below-evidence"), count=5).status.value
    'proved'
    """
    if models is None:
        models = witness_first(claim, cases(claim.family, count, seed))
    tally = _Tally(claim, symbolic)
    for each in models:
        model, observations = (each, range(each.sizes["x"])) if isinstance(each, FiniteModel) else each
        tally.add(model if isinstance(model, ModelValues) else ModelValues(model), observations)
        progress()
        if tally.witness:
            break
    return tally.result()


Case = TypeVar("Case", bound=FiniteModel | tuple)


def witness_first(claim: Claim, models: Iterable[Case]) -> Iterator[FiniteModel | Case]:
    """The claim's known witness, if it has one, and then other models."""
    return chain([claim.witness()] if claim.witness else [], models)


class _Tally:
    def __init__(self, claim: Claim, symbolic: bool) -> None:
        self.claim, self.symbolic = claim, symbolic and claim.family == "finite"
        self.models = self.skipped = self.open = self.verified = 0
        self.smallest = math.inf
        self.guarantees: set[Guarantee] = set()
        self.witness: ModelCheck | None = None
        self.wrong_gap: tuple[Model, Any] | None = None
        gap = claim.gap if claim.gap is not None or claim.relation == "<=" or claim.black_boxes else ZERO
        assert gap is None or isinstance(gap, Term)
        self.gap = gap
        self.consistent = self.doubtful = 0

    @cached_property
    def by_form(self) -> str:
        """Why the claim holds by its form, if it does: then nothing hangs on its gap, which costs more to verify."""
        return proved_by_form(self.claim)

    @cached_property
    def rhs_minus_lhs(self) -> Term:
        """As one formula."""
        return rhs_minus(self.claim)

    def add(self, values: ModelValues, observations: Sequence[Any]) -> None:
        """Decide the claim at observations of one more model."""
        model, outcomes = values.model, set()
        for x in observations:
            if not self.claim.applies(model, x):
                continue
            verdict = check_values(self.claim, values, x)
            if verdict.lhs is None:
                outcomes.add("skipped")
                continue
            outcomes.add(verdict.outcome.value)
            certified = verdict.guarantee in (Guarantee.EXACT, Guarantee.CERTIFIED)
            if verdict.outcome is Outcome.VIOLATED and not certified and not self.claim.black_boxes:
                self.doubtful += 1  # a violation in floats refutes nothing
                continue
            if verdict.outcome is Outcome.VIOLATED:
                self.witness = ModelCheck(self.claim, model, x, verdict)
                self.smallest = verdict.margin
                return
            if verdict.guarantee:
                self.guarantees.add(verdict.guarantee)
                self.smallest = min(self.smallest, verdict.margin)
            self._verify_gap(values, x, verdict)
        if "undecided" in outcomes or "violated" in outcomes:
            self.open += 1
        elif "skipped" in outcomes:
            self.skipped += 1
        elif outcomes:
            self.models += 1

    def _verify_gap(self, values: ModelValues, x: Any, verdict: Verdict) -> None:
        lhs, rhs = verdict.lhs, verdict.rhs
        if self.gap is None or self.wrong_gap or lhs is None or rhs is None:
            return
        if math.isinf(float(lhs)) or math.isinf(float(rhs)):
            return  # there is no finite difference for a gap to equal
        if self.by_form:
            return
        try:
            identity = decide(self._difference(values, x, lhs, rhs), "==", values.of(self.gap, x))
        except UndefinedValue:
            return
        if identity.outcome is Outcome.VIOLATED:
            self.wrong_gap = (values.model, x)
        elif identity.guarantee is Guarantee.EXACT:
            self.verified += 1
        else:
            self.consistent += 1

    def _difference(self, values: ModelValues, x: Any, lhs: Value, rhs: Value) -> Value:
        """rhs - lhs, from exact sides; else from one formula, in which what is irrational may cancel."""
        if isinstance(lhs, Exact) and isinstance(rhs, Exact):
            return Exact(rhs.value - lhs.value)
        return values.of(self.rhs_minus_lhs, x)

    def result(self) -> Survey:
        """The status that these models support."""
        status, detail, guarantee = self._status()
        margin = self.smallest if self.models or self.witness else math.nan
        return Survey(self.claim, status, detail, guarantee, self.models, self.skipped, self.open, margin, self.witness)

    def _status(self) -> tuple[Status, str, Guarantee | None]:
        if self.witness:
            verdict = self.witness.verdict
            if verdict.guarantee not in (Guarantee.EXACT, Guarantee.CERTIFIED):
                detail = f"violated in floats, by {-verdict.margin:.6g} nats, which no evaluator can certify"
                return Status.UNDECIDED, detail, verdict.guarantee
            return Status.REFUTED, f"a witness with margin {verdict.margin:.6g} nats", verdict.guarantee
        if self.models + self.open + self.skipped == 0:
            raise BadInput("models", "none", "at least one model with a possible observation")
        if self.models + self.open == 0:
            return Status.UNDECIDED, "no model has values for both sides", None
        if self.doubtful:
            return Status.UNDECIDED, f"violated numerically at {self.doubtful} observations, certified at none", None
        if self.by_form:
            return Status.PROVED, self.by_form, Guarantee.EXACT
        if self.models == 0:
            return Status.UNDECIDED, f"{self.open} models, none decided", None
        if self.wrong_gap:
            return Status.SURVIVED, f"{self._survived()}; its gap formula is wrong at one of them", self._weakest()
        if self.gap is not None and self.verified >= FEWEST_VERIFIED:
            where = f"at {self.verified} observations"
            if self.consistent:
                where += f" (and to within the enclosures at {self.consistent} whose values are irrational powers)"
            proof = prove_gap(self.claim, SYMBOLIC_SIZES, seconds=SYMBOLIC_SECONDS) if self.symbolic else None
            if proof is not None and proof.proved:
                return Status.PROVED, f"{proof.detail}; and exactly {where}", Guarantee.EXACT
            if self.claim.relation == "==":
                return Status.GAP_VERIFIED, f"both sides are equal, exactly, {where}", Guarantee.EXACT
            if nonnegative_by_form(self.gap):
                what = "rhs - lhs is a sum of non-negative terms"
                return Status.GAP_VERIFIED, f"{what}, exactly, {where}", Guarantee.EXACT
        return Status.SURVIVED, self._survived(), self._weakest()

    def _survived(self) -> str:
        left = f", {self.open} left open" if self.open else ""
        gap = f"; its gap agrees with the enclosures at {self.consistent} observations" if self.consistent else ""
        why = f" ({self.claim.note})" if self.claim.note else ""
        return f"{self.models} models, no violation{left}{gap}{why}"

    def _weakest(self) -> Guarantee | None:
        order = list(Guarantee)
        return max(self.guarantees, key=order.index) if self.guarantees else None


def rhs_minus(claim: Claim) -> Term:
    """rhs - lhs, as one term."""
    lhs, rhs = claim.terms
    return add(rhs, multiply(-1, lhs))


def proved_by_form(claim: Claim) -> str:
    """Why the claim holds for every model by its form alone; empty if that is not seen.

    Holes in the support are covered: the rules of `gap` hold with -inf and +inf as values.
    """
    if claim.black_boxes:
        return ""
    lhs, rhs = claim.terms
    if lhs == rhs:
        return "both sides are the same formula"
    scope = "every model whose encoder covers the posterior" if claim.covering else "every model"
    if claim.relation == "<=" and always_at_most(lhs, rhs, claim.covering):
        return f"lhs <= rhs by the form of the two sides, for {scope}"
    if claim.relation == "<=" and at_most_as_averages(lhs, rhs):
        return f"rhs - lhs, under common draws, is a sum of non-negative terms by its form, for {scope}"
    if claim.relation == "<=" and nonnegative_by_form(rhs_minus(claim)):
        return f"rhs - lhs is a sum of non-negative terms by its form, for {scope}"
    if claim.relation == "==" and equal_as_averages(lhs, rhs):
        return f"both sides are the same sum of averages, for {scope}"
    return ""


__all__ = ["DEFAULT_COUNT", "Status", "Survey", "proved_by_form", "survey"]
