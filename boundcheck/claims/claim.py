"""A claim: two formulas and the relation that somebody says holds between them.

A claim says what is claimed and by whom, never whether it is true; that is for `check` and `survey` to find out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from boundcheck.claims.decide import Relation
from boundcheck.claims.spaces import Side, require_common_models
from boundcheck.errors import BadInput
from boundcheck.evaluators.black_box import BlackBox
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
        lhs: the objective on the left: a function of (m, x), a term, or a `black_box`.
        relation: "<=" or "==".
        rhs: the objective on the right.
        statement: the claim in one sentence.
        source: who claims it: author, year, equation where known.
        gap: a formula equal to rhs - lhs whose terms are non-negative by their form, where one is known.
        witness: a function that returns a finite model on which the claim is known to fail, where one is known.
        family: the name of the family of models on which the claim is to be judged (see `claims.family`).
        covering: the claim is made for encoders with q(z|x) > 0 wherever p(x,z) > 0, and judged on such models only.
        note: what a reader should know, for example why no gap is given.

    Raises:
        BadInput: an unknown relation; sides that need different spaces, so that no model has both; a gap beside a
            black box, of which nothing can be proved.
        FormulaError: a formula that misuses the language.

    >>> from boundcheck.catalogue.objectives import elbo, log_evidence
    >>> print(Claim("elbo", elbo, "<=", log_evidence))
    E_{z ~ q(.|x)}[log p(x,z) - log q(z|x)] <= log sum_z p(x,z)
    """

    name: str
    lhs: Formula | Term | BlackBox
    relation: Relation
    rhs: Formula | Term | BlackBox
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
            if formula is not None and not isinstance(formula, BlackBox):
                object.__setattr__(self, side, trace(formula))
        require_common_models(*self.sides)
        if self.gap is not None and (self.black_boxes or isinstance(self.gap, BlackBox)):
            raise BadInput("gap", self.gap, "no gap in a claim about a black box", "an identity is proved of formulas")

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both sides: terms, or black boxes."""
        return _side(self.lhs), _side(self.rhs)

    @property
    def black_boxes(self) -> tuple[BlackBox, ...]:
        """The sides that are no formulas; with one of them a verdict is numerical at best."""
        return tuple(side for side in self.sides if isinstance(side, BlackBox))

    @property
    def terms(self) -> tuple[Term, Term]:
        """Both sides, as terms.

        Raises:
            BadInput: a side is a black box.
        """
        lhs, rhs = self.sides
        if isinstance(lhs, BlackBox) or isinstance(rhs, BlackBox):
            box = self.black_boxes[0].name
            remedy = f"{box} is a black box, of which only numbers are known: use check, falsify or assert_bound"
            raise BadInput("the claim", self.name, "formulas on both sides", remedy)
        return lhs, rhs

    def applies(self, model: Model, x: Any) -> bool:
        """True if the claim says something about this model and observation.

        An impossible observation has nothing to bound; a claim about covering encoders ignores models with holes; a
        black box may be written for stated numbers of states.
        """
        if not isinstance(model, FiniteModel):
            return True  # densities on a line or a space cover one another
        if not all(box.fits(model.sizes) for box in self.black_boxes):
            return False
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
        laws = [law for side in self.sides if isinstance(side, Term) for law in laws_in(side)]
        read = [role for box in self.black_boxes for role in box.needs - {"clean encoder"}]
        return frozenset([*(law.role for law in laws if isinstance(law, ModelLaw)), *read])

    def __str__(self) -> str:
        lhs, rhs = self.sides
        return f"{lhs.text} {self.relation} {rhs.text}"

    @property
    def latex(self) -> str:
        """The claim as LaTeX, without dollar signs."""
        lhs, rhs = self.sides
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


def _side(formula: Formula | Term | BlackBox) -> Side:
    return formula if isinstance(formula, BlackBox) else trace(formula)
