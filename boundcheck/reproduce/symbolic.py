"""Formulas on tables of symbols: a value as a function of a model's parameter.

The sums are written out state by state, with sympy expressions for probabilities. It is slow and simple, and shares
no code with the evaluators, so the two can be held against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy

from boundcheck.errors import CannotCompute
from boundcheck.language.build import Formula, trace
from boundcheck.language.laws import Law, MixtureLaw, ModelLaw, expand
from boundcheck.language.terms import (
    OBSERVED,
    Apply,
    Const,
    Expect,
    Integrate,
    LogDensity,
    Space,
    Term,
    Var,
)

Tables = Mapping[str, Any]
"""For each role a nested list: the role's arguments, then its point, such as encoder[x~][z]."""

States = dict[Var, int]


def symbolic_value(formula: Formula | Term, tables: Tables, sizes: Mapping[str, int], x: int = 0) -> sympy.Expr:
    """The value of a formula, in nats, as a sympy expression in whatever symbols the tables hold.

    Args:
        formula: a function of (m, x), or a term.
        tables: for each role that the formula uses, its probabilities.
        sizes: the number of states of "x", "z" and "x~".
        x: the number of the observed state.

    Raises:
        CannotCompute: a formula with several copies of a draw, or with a law that is normalised in the formula.

    >>> s = sympy.Symbol("s", positive=True)
    >>> half = sympy.Rational(1, 2)
    >>> from boundcheck.catalogue.objectives import elbo
    >>> symbolic_value(elbo, {"joint": [[half, half]], "encoder": [[1 - s, s]]}, {"x": 1, "z": 2})
    s*(-log(s) - log(2)) + (1 - s)*(-log(1 - s) - log(2))
    """
    term = trace(formula)
    return _Walk(tables, sizes).value(term, {OBSERVED: x})


class _Walk:
    def __init__(self, tables: Tables, sizes: Mapping[str, int]) -> None:
        self.tables, self.sizes = tables, sizes

    def states(self, space: Space) -> range:
        return range(self.sizes[space.name])

    def probability(self, law: Law, point: tuple[Term, ...], at: States) -> sympy.Expr:
        if isinstance(law, ModelLaw):
            entry = self.tables[law.role]
            for variable in (*law.args, *point):
                assert isinstance(variable, Var)
                entry = entry[at[variable]]
            return entry
        if isinstance(law, MixtureLaw):
            inner = [{**at, law.var: state} for state in self.states(law.var.space)]
            return sympy.Add(
                *(
                    self.probability(law.mixing, (law.var,), each) * self.probability(law.component, point, each)
                    for each in inner
                )
            )
        return sympy.exp(self.value(LogDensity(law, point), at))

    def value(self, term: Term, at: States) -> sympy.Expr:
        if isinstance(term, Const):
            return sympy.Rational(term.value.numerator, term.value.denominator)
        if isinstance(term, LogDensity):
            if isinstance(term.law, ModelLaw | MixtureLaw):
                return sympy.log(self.probability(term.law, term.point, at))
            return self.value(expand(term), at)
        if isinstance(term, Expect) and not term.var.plates:
            inner = [{**at, term.var: state} for state in self.states(term.var.space)]
            return sympy.Add(
                *(self.probability(term.law, (term.var,), each) * self.value(term.body, each) for each in inner)
            )
        if isinstance(term, Integrate) and not term.var.plates:
            inner = [{**at, term.var: state} for state in self.states(term.var.space)]
            return sympy.Add(*(self.value(term.body, each) for each in inner))
        if isinstance(term, Apply) and term.op in _OPERATIONS:
            return _OPERATIONS[term.op](*(self.value(arg, at) for arg in term.args))
        raise CannotCompute("the symbolic evaluator", term.text, "it takes no copies of a draw")


_OPERATIONS = {"add": sympy.Add, "mul": sympy.Mul, "pow": sympy.Pow, "log": sympy.log, "exp": sympy.exp}


__all__ = ["Tables", "symbolic_value"]
