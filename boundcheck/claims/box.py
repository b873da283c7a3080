"""Claims on boxes of finite models: an inequality for every model of a family, not only at points.

A family is a set of tables whose free entries fill a box, and `rhs - lhs` a function on it, which the search of
`branching` bounds from below. A point where it is negative becomes a model, on which `check` decides the claim anew
and exactly; only then does it count as a witness.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from boundcheck.claims.branching import (
    DEFAULT_BOXES,
    DEFAULT_EPS,
    DEFAULT_SECONDS,
    BoxResult,
    BoxStatus,
    Progress,
    check_budget,
    minimise,
    progress_bar,
)
from boundcheck.claims.check import check
from boundcheck.claims.claim import Claim
from boundcheck.claims.decide import Outcome, Verdict
from boundcheck.claims.landscape import LogFormLandscape, Point
from boundcheck.claims.log_form_domain import log_form
from boundcheck.claims.logforms import OutOfBudget, Ratio, evaluated
from boundcheck.claims.symbols import SymbolicTables, row_of_sticks, symbolic_tables
from boundcheck.errors import BadInput, CannotCompute
from boundcheck.language.terms import Number, Term, add, as_fraction, multiply
from boundcheck.models.finite import FiniteModel


@dataclass(frozen=True)
class TableFamily:
    """All finite models of given sizes whose rows, broken off a stick, stay a margin away from zero and one.

    A row of n entries is u_1, (1 - u_1) u_2, ..., each u in [margin, 1 - margin]; for two states these are the
    entries themselves. A claim that reads p(x,z) only is judged on p(x) in [margin, 1 - margin] and p(z|x) a row.
    """

    z: int = 2
    xt: int = 2
    margin: Fraction = Fraction(1, 100)

    @property
    def sizes(self) -> dict[str, int]:
        """The numbers of states."""
        return {"x": self.xt, "z": self.z, "x~": self.xt}

    def __str__(self) -> str:
        return f"{self.z} states of z, {self.xt} of x~, parameters in [{self.margin}, {1 - self.margin}]"


def tables(z: int = 2, xt: int = 2, margin: Number = "1/100") -> TableFamily:
    """The family of all tables of these sizes that stay a margin away from zero and one.

    Raises:
        BadInput: sizes below one, or a margin outside (0, 1/2).
    """
    for name, n in (("z", z), ("xt", xt)):
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise BadInput(name, n, "a positive number of states")
    value = as_fraction(margin)
    if not 0 < value < Fraction(1, 2):
        raise BadInput("margin", margin, "a number between 0 and 1/2")
    return TableFamily(z, xt, value)


def two_state_tables(margin: Number = "1/100") -> TableFamily:
    """Two states of z and of x~."""
    return tables(2, 2, margin)


def three_state_tables(margin: Number = "1/100") -> TableFamily:
    """Three states of z, two of x~."""
    return tables(3, 2, margin)


def prove_on_box(
    claim: Claim,
    family: TableFamily | None = None,
    *,
    eps: float = DEFAULT_EPS,
    seconds: float = DEFAULT_SECONDS,
    boxes: int = DEFAULT_BOXES,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> BoxResult:
    """Prove rhs - lhs >= -eps for every model of a family, or find a certified witness against the claim.

    Args:
        claim: an inequality.
        family: the models; two states by default.
        eps: the tolerance in nats, for models on which both sides are equal.
        seconds: the longest time to spend.
        boxes: the most boxes to look at.
        progress: called now and then.

    Raises:
        BadInput: a claim that is an equality, or a budget that is not positive.
        CannotCompute: the difference is not a log form (maxima, powers that are no integers), or too large a one.

    >>> from boundcheck.catalogue import find
    >>> result = prove_on_box(find("denoising-decoupled-below-evidence"))
    >>> result.status.value, str(result.verdict)
    ('refuted', 'violated (exact)')
    """
    if claim.relation != "<=":
        raise BadInput("the claim", str(claim), 'an inequality "<="', "an equality is a matter for prove_identity")
    family = family or two_state_tables()
    term = difference(claim)
    check_budget(eps, seconds, boxes)
    try:
        symbols = symbolic_tables(term, family.sizes, row_of_sticks, evidence=True, seconds=seconds)
        landscape = LogFormLandscape(symbols.forms, log_form(term, symbols))
    except OutOfBudget as spent:
        raise CannotCompute("the symbolic evaluator", term.text, str(spent)) from None
    low, high = family.margin, 1 - family.margin
    witness: list[tuple[FiniteModel, Verdict]] = []

    def certify(point: Point) -> bool:
        model = model_at(symbols, point, family)
        verdict = check(claim, model, 0)
        if verdict.outcome is Outcome.VIOLATED:
            witness.append((model, verdict))
        return verdict.outcome is Outcome.VIOLATED

    parameters = {name: (low, high) for name in symbols.names}
    result = minimise(landscape, parameters, eps=eps, seconds=seconds, boxes=boxes, certify=certify, progress=progress)
    if witness:
        model, verdict = witness[-1]
        result = replace(result, witness=model, verdict=verdict)
    return result


def difference(claim: Claim) -> Term:
    """rhs - lhs as one term."""
    lhs, rhs = claim.terms
    return add(rhs, multiply(-1, lhs))


def model_at(symbols: SymbolicTables, point: Point, family: TableFamily) -> FiniteModel:
    """The model at a point of a family, with uniform rows where the claim reads none; the observation is x = 0."""

    def number(ratio: Ratio) -> Fraction:
        return evaluated(ratio.num, point, Fraction(0)) / evaluated(ratio.den, point, Fraction(0))

    values = {role: np.vectorize(number, otypes=[object])(table).tolist() for role, table in symbols.tables.items()}
    corrupted = "x~" in symbols.sizes
    z, xt = family.z, family.xt
    n_x = symbols.sizes["x"] if symbols.ranges_over_x else max(2, xt if corrupted else 2)

    def others(p: Fraction) -> list[Fraction]:
        """p, and what it leaves spread evenly over the other observed states."""
        return [p, *[(1 - p) / (n_x - 1)] * (n_x - 1)]

    given: dict[str, Any] = {}
    if "prior" in values or "likelihood" in values:
        given["prior"] = values.get("prior", _uniform(z))
        rows = values.get("likelihood", [_uniform(n_x)] * z)
        given["likelihood"] = rows if symbols.ranges_over_x else [others(row[0]) for row in rows]
    else:
        row = values["joint"][0] if "joint" in values else [p / n_x for p in _uniform(z)]
        given["joint"] = [row, *[[(1 - sum(row)) / ((n_x - 1) * z)] * z] * (n_x - 1)]
    if "encoder" in values:
        given["encoder"] = values["encoder"] if corrupted else [values["encoder"][0]] * n_x
    if corrupted:
        given["corruption"] = [values["corruption"][0] if "corruption" in values else _uniform(xt)] * n_x
    if "auxiliary" in values:
        given["auxiliary"] = [[rows[0]] * n_x for rows in values["auxiliary"]]
    return FiniteModel(**given)


def _uniform(n: int) -> list[Fraction]:
    return [Fraction(1, n)] * n


__all__ = [
    "BoxResult",
    "BoxStatus",
    "Progress",
    "TableFamily",
    "minimise",
    "progress_bar",
    "prove_on_box",
    "tables",
    "three_state_tables",
    "two_state_tables",
]
