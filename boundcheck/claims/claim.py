"""A claim: two formulas and the relation that somebody says holds between them.

A claim says what is claimed and by whom, never whether it is true; that is for `check` and `survey` to find out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from boundcheck.claims.decide import Relation
from boundcheck.errors import BadInput
from boundcheck.evaluators.strongest import Model
from boundcheck.language.build import Formula, trace
from boundcheck.language.laws import ModelLaw, laws_in
from boundcheck.language.terms import Term, X
from boundcheck.models.finite import FiniteModel


@dataclass(frozen=True)
class Claim:
    """`lhs relation rhs`, for every model of a family and every observation.

    Args:
        name: a short name, such as "iwae-below-evidence".
        lhs: the formula on the left: a function of (m, x), or a term.
        relation: "<=" or "==".
        rhs: the formula on the right.
        statement: the claim in one sentence.
        source: who claims it: author, year, equation where known.
        gap: a formula equal to rhs - lhs whose terms are non-negative by their form, where one is known.
        witness: a function that returns a finite model on which the claim is known to fail, where one is known.
        family: the name of the family of models on which the claim is to be judged (see `claims.family`).
        covering: the claim is made for encoders with q(z|x) > 0 wherever p(x,z) > 0, and judged on such models only.
        note: what a reader should know, for example why no gap is given.

    Raises:
        BadInput: an unknown relation.
        FormulaError: a formula that misuses the language.

    >>> from boundcheck.catalogue.objectives import elbo, log_evidence
    >>> print(Claim("elbo", elbo, "<=", log_evidence))
    E_{z ~ q(.|x)}[log p(x,z) - log q(z|x)] <= log sum_z p(x,z)
    """

    name: str
    lhs: Formula | Term
    relation: Relation
    rhs: Formula | Term
    statement: str = ""
    source: str = ""
    gap: Formula | Term | None = None
    witness: Callable[[], FiniteModel] | None = None
    family: str = "finite"
    covering: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        if self.relation not in ("<=", "=="):
            raise BadInput("relation", self.relation, '"<=" or "=="', 'write a >= b as b "<=" a')
        for side in ("lhs", "rhs", "gap"):
            formula = getattr(self, side)
            if formula is not None:
                object.__setattr__(self, side, trace(formula))

    @property
    def terms(self) -> tuple[Term, Term]:
        """Both sides, as terms."""
        return trace(self.lhs), trace(self.rhs)

    def applies(self, model: Model, x: Any) -> bool:
        """True if the claim says something about this model and observation.

        An impossible observation has nothing to bound; a claim about covering encoders ignores models with holes.
        """
        if not isinstance(model, FiniteModel):
            return True  # densities on a line or a space cover one another
        joint = model.table("joint")[x]
        if not any(joint):
            return False
        if not self.covering:
            return True
        row = model.table("encoder", (X,))[x]
        return all(q or not p for p, q in zip(joint, row, strict=True))

    @property
    def roles(self) -> frozenset[str]:
        """The laws that a model must supply."""
        laws = [law for side in self.terms for law in laws_in(side)]
        return frozenset(law.role for law in laws if isinstance(law, ModelLaw))

    def __str__(self) -> str:
        lhs, rhs = self.terms
        return f"{lhs.text} {self.relation} {rhs.text}"

    @property
    def latex(self) -> str:
        """The claim as LaTeX, without dollar signs."""
        lhs, rhs = self.terms
        sign = r"\le" if self.relation == "<=" else "="
        return f"{lhs.latex} {sign} {rhs.latex}"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex}$"

    def to_json(self) -> dict[str, Any]:
        """What the claim is, JSON-ready."""
        return {
            "claim": self.name,
            "text": str(self),
            "latex": self.latex,
            "statement": self.statement,
            "source": self.source,
            "family": self.family,
            "gap": self.gap.text if isinstance(self.gap, Term) else None,
            "note": self.note,
        }
