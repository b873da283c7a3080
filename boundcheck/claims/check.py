"""Deciding a claim on one model: the evaluators are tried from the strongest guarantee to the weakest.

Exact arithmetic settles most formulas, ties included. What leaves it goes to the enclosures, whose precision is
raised until the verdict separates or a stated limit is met. Equal formulas need no numbers at all.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from boundcheck.claims.claim import Claim
from boundcheck.claims.decide import Guarantee, Outcome, Verdict, decide
from boundcheck.claims.describe import model_json
from boundcheck.errors import BadInput, CannotCompute, UndefinedValue
from boundcheck.evaluators.black_box import BlackBox
from boundcheck.evaluators.kept import ModelValues
from boundcheck.evaluators.strongest import FIRST_PRECISION, Model, require_observation, value_of
from boundcheck.evaluators.values import Enclosure, Exact
from boundcheck.models.finite import FiniteModel
from boundcheck.models.linear_gaussian import LinearGaussianModel

LAST_PRECISION = 1024
"""Bits at which enclosures give up."""


def check(claim: Claim, model: Model, x: Any = 0) -> Verdict:
    """Decide a claim on one model and observation (the number of a state for a finite model, else the value of x).

    A formula without a value there (inf - inf) leaves the claim undecided, with that reason; so does an observation
    of which the claim says nothing.

    Raises:
        BadInput: an observation that the model does not have, or a table that it lacks.
        ObjectiveFailed: a black box that gives no number on this model.

    >>> from boundcheck.catalogue import find
    >>> claim = find("denoising-decoupled-below-evidence")
    >>> print(check(claim, claim.witness()))
    violated (exact)
    """
    return check_values(claim, ModelValues(model), x)


def check_values(claim: Claim, values: ModelValues, x: Any) -> Verdict:
    """As `check`, on a model whose values are kept for other claims."""
    model = values.model
    require_observation(model, x)
    lhs, rhs = claim.sides
    if not claim.applies(model, x):
        scope = " and an encoder that covers the posterior" if claim.covering else ""
        reason = f"the claim speaks of observations of positive probability{scope}, and x = {x} is none of them"
        if isinstance(model, FiniteModel) and not all(box.fits(model.sizes) for box in claim.black_boxes):
            reason = "the claim is about models with other numbers of states"
        return Verdict(Outcome.UNDECIDED, None, claim.relation, None, None, float("nan"), reason)
    precision = FIRST_PRECISION
    while True:
        try:
            verdict = decide(values.of(lhs, x, precision), claim.relation, values.of(rhs, x, precision))
        except UndefinedValue as undefined:
            return Verdict(Outcome.UNDECIDED, None, claim.relation, None, None, float("nan"), str(undefined))
        if verdict.outcome is not Outcome.UNDECIDED:
            return verdict
        if claim.black_boxes:
            return _without_refinement(claim, verdict)
        if lhs == rhs:  # the same formula twice: nothing to compute
            return Verdict(Outcome.HOLDS, Guarantee.EXACT, claim.relation, verdict.lhs, verdict.rhs, 0.0)
        refinable = isinstance(verdict.lhs, Exact | Enclosure) and isinstance(verdict.rhs, Exact | Enclosure)
        if precision >= LAST_PRECISION or not refinable or isinstance(model, LinearGaussianModel):
            return verdict
        precision *= 2


def _without_refinement(claim: Claim, verdict: Verdict) -> Verdict:
    """An undecided verdict on a black box: more digits of the other side would not help."""
    for side, value in zip(claim.sides, (verdict.lhs, verdict.rhs), strict=True):
        if isinstance(side, BlackBox) and value is not None and math.isinf(float(value)):
            reason = f"{side.name} returned {float(value)}, which may be an overflow of its floats"
            return dataclasses.replace(verdict, reason=reason)
    return verdict


@dataclass(frozen=True)
class ModelCheck:
    """A claim decided at observations of one model; `verdict` is the worst of them, at `x`."""

    claim: Claim
    model: Model
    x: Any
    verdict: Verdict

    def point_json(self) -> dict[str, Any]:
        """The model and the observation, JSON-ready."""
        return {"model": model_json(self.model, self.x), "x": self.x}

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"claim": self.claim.name, "x": self.x} | self.verdict.to_json()


_BADNESS = {Outcome.VIOLATED: 0, Outcome.UNDECIDED: 1, Outcome.HOLDS: 2}


def check_model(claim: Claim, model: FiniteModel) -> ModelCheck:
    """Decide a claim at every observation of which it says something; the worst verdict is the model's.

    Raises:
        BadInput: a table that the claim needs and the model lacks.
        CannotCompute: no evaluator can compute a side of the claim.
    """
    results = []
    for x in range(model.sizes["x"]):
        if not claim.applies(model, x):
            continue
        verdict = check(claim, model, x)
        results.append(ModelCheck(claim, model, x, verdict))
        if verdict.outcome is Outcome.VIOLATED:
            return results[-1]
    if not results:
        expected = "an observation of positive probability"
        expected += " whose encoder q(z|x) covers the posterior" if claim.covering else ""
        raise BadInput("the model", model, expected, f"{claim.name} says nothing about this one")
    return min(results, key=lambda r: (_BADNESS[r.verdict.outcome], _finite_margin(r.verdict)))


def _finite_margin(verdict: Verdict) -> float:
    return verdict.margin if verdict.margin == verdict.margin else float("-inf")


__all__ = ["CannotCompute", "ModelCheck", "check", "check_model", "check_values", "value_of"]
