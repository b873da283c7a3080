"""The contraction evaluator: objectives of models with many discrete latents, without a table of all their states.

A log-density of a factored model is a sum of tables over few variables each. Two quantities need nothing more: the
expectation of such a sum under a law that is itself a product of factors, and the logarithm of the sum over all
states of exp of such a sum. This module reads a term as an arithmetic of these two, which `contraction_sums` computes:

    E_{z ~ law}[sum_i c_i log f_i(z)]    and    log sum_z law(z) exp(sum_i c_i log f_i(z)).

That covers log evidence, ELBO, EUBO, Renyi and chi bounds with all states (not those with K copies), thermodynamic
sums, KL divergences, and constants and arithmetic around them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import reduce
from typing import Any

from boundcheck.errors import BadInput, UndefinedValue
from boundcheck.evaluators.contraction_sums import StateSums
from boundcheck.evaluators.log_sums import (
    LogSum,
    Roles,
    exp_of,
    log_of,
    log_of_constant,
    log_of_total,
    number_of,
    product_of,
    total_of,
)
from boundcheck.evaluators.values import Approximate
from boundcheck.language.build import Formula, trace
from boundcheck.language.laws import DensityLaw, Law, MixtureLaw, ModelLaw, expand
from boundcheck.language.positions import nonnegative
from boundcheck.language.terms import OBSERVED, Apply, Const, Expect, Integrate, LogDensity, Term, Var, Z
from boundcheck.models.factored import FACTORED_ROLES, FactoredModel


def evaluate(formula: Formula | Term, model: FactoredModel, *, memory: int = 1 << 26, **parameters: Any) -> Approximate:
    """The value of a formula on a factored model at its observation, in nats, with an estimate of the rounding error.

    Args:
        formula: a function of (m, x, **parameters), or a term.
        model: the factored model.
        memory: an upper limit in bytes on the size of an intermediate table.
        **parameters: the formula's own.

    Raises:
        BadInput: the model lacks a density that the formula needs.
        CannotCompute: a part of the formula is neither an expectation of log-densities nor the logarithm of a sum of
            products of powers of densities; or the model's factors are too entangled for `memory`.
        UndefinedValue: the value is inf - inf.

    >>> from boundcheck.catalogue.objectives import elbo, log_evidence
    >>> link = [[0.9, 0.2], [0.1, 0.8]]
    >>> chain = FactoredModel(
    ...     [2] * 50, [((i, i + 1), link) for i in range(49)], encoder=[(i, [0.5, 0.5]) for i in range(50)]
    ... )
    >>> for bound in (elbo, log_evidence):
    ...     print(f"{float(evaluate(bound, chain)):.6f}")
    -17.289098
    0.693147
    """
    return evaluate_many([trace(formula, **parameters)], model, memory=memory)[0]


def evaluate_many(
    formulas: Iterable[Formula | Term], model: FactoredModel, *, memory: int = 1 << 26
) -> list[Approximate]:
    """The values of some formulas, as `evaluate` gives them; what they have in common is computed once.

    Raises:
        BadInput, CannotCompute, UndefinedValue: as `evaluate`.
    """
    if not isinstance(model, FactoredModel):
        raise BadInput("model", model, "a FactoredModel", "other models have evaluators of their own")
    terms = [trace(formula) for formula in formulas]
    reader = _Reader(model, memory)
    if len(terms) > 1:
        reader.watch_large_factors()
    values: dict[Term, Approximate] = {}
    for term in sorted(
        dict.fromkeys(terms), key=lambda term: isinstance(term, Expect)
    ):  # sums first: means are taken along
        values[term] = reader.closed_value(term)
    return [values[term] for term in terms]


# --- reading a term ---


class _Reader(StateSums):
    """Evaluates terms on one model; equal ones once."""

    def __init__(self, model: FactoredModel, memory: int) -> None:
        super().__init__(model, memory)
        self.values: dict[Term, LogSum] = {}

    def closed_value(self, term: Term) -> Approximate:
        """The value of a term without free variables."""
        try:
            value = self.value(term)
        except OverflowError:
            self.cannot(term, "a constant of it is beyond the range of float64")
        if math.isnan(value.number):
            raise UndefinedValue(term.text, "the observation")
        return Approximate(value.number, value.error if math.isfinite(value.number) else 0.0)

    def number(self, term: Term, why: str) -> LogSum:
        """The value of a sub-term that has to be a number by itself."""
        value = self.value(term)
        if value.parts:
            self.cannot(term, why)
        return value

    def value(self, term: Term) -> LogSum:
        if term not in self.values:
            self.values[term] = self._value(term)
        return self.values[term]

    def _value(self, term: Term) -> LogSum:
        if isinstance(term, Const):
            return number_of(term.value)
        if isinstance(term, LogDensity):
            return self._log_density(term)
        if isinstance(term, Expect) and not (term.var in term.body.free and nonnegative(term.body)):
            return self._expectation(term)
        if isinstance(term, Expect | Integrate):
            value = self.log_value(term)
            if value.parts:
                self.cannot(term, "it is not a number but depends on another variable")
            return exp_of(value)
        if isinstance(term, Apply):
            return self._apply(term)
        return self.cannot(term, _COPIES)

    def _apply(self, term: Apply) -> LogSum:
        if term.op == "add":
            return total_of([self.value(arg) for arg in term.args])
        if term.op == "log":
            return self.log_value(term.args[0])
        if term.op == "mul":
            scale = Fraction(1)
            others: list[LogSum] = []
            for arg in term.args:
                if isinstance(arg, Const):
                    scale *= arg.value
                else:
                    others.append(self.value(arg))
            if len(others) == 1:
                return others[0].times(scale)
            if any(value.parts for value in others):
                self.cannot(term, "a product of log-densities is not a sum of them")
            return reduce(product_of, others).times(scale)
        if term.op == "same":
            self.cannot(term, "states of many variables are not compared one by one")
        why = f"{term.op} of log-densities is not a sum of them"
        args = [self.number(arg, f"{why}, in {term.text}") for arg in term.args if isinstance(arg, Term)]
        if term.op == "exp":
            return exp_of(args[0])
        if term.op in ("max", "min"):
            numbers = [arg.number for arg in args]
            choose = max if term.op == "max" else min
            chosen = math.nan if any(map(math.isnan, numbers)) else choose(numbers)
            return LogSum(chosen, max(arg.error for arg in args))
        if term.op == "pow":
            exponent = term.args[1]
            assert isinstance(exponent, Const)
            if args[0].number > 0:
                return exp_of(log_of(args[0]).times(exponent.value))
            self.cannot(term, "it is a power of a number that is not positive")
        return self.cannot(term, f"{term.op} is not one of its operations")

    def log_value(self, term: Term) -> LogSum:
        """The logarithm of a term."""
        if isinstance(term, Const) and term.value >= 0:
            return log_of_constant(term.value)
        if isinstance(term, Expect | Integrate) and nonnegative(term.body):
            return self._log_sum(term)
        if isinstance(term, Apply):
            positive = all(nonnegative(arg) for arg in term.args)
            if term.op == "exp":
                return self.value(term.args[0])
            if term.op == "mul" and positive:
                return total_of([self.log_value(arg) for arg in term.args])
            if term.op == "pow" and nonnegative(term.args[0]):
                exponent = term.args[1]
                assert isinstance(exponent, Const)
                return self.log_value(term.args[0]).times(exponent.value)
            if term.op == "add" and positive:
                logs = [self.log_value(arg) for arg in term.args]
                if any(each.parts for each in logs):
                    self.cannot(term, "a sum of densities is not a product of factors")
                return log_of_total(logs)
        return log_of(self.number(term, "its logarithm is not a sum of log-densities"))

    # --- densities and laws ---

    def _latent(self, points: Sequence[Term], term: Term) -> Var:
        """The one latent variable among the points; everything else has to be the observation."""
        latents = [point for point in points if point != OBSERVED]
        if len(latents) != 1 or not isinstance(latents[0], Var) or latents[0].space != Z:
            self.cannot(term, "a factored model knows its own observation and latents, no other points")
        if latents[0].plates:
            self.cannot(term, _COPIES)
        return latents[0]

    def _log_density(self, term: LogDensity) -> LogSum:
        law = term.law
        if not isinstance(law, ModelLaw):
            return self.value(expand(term))
        if law.role not in FACTORED_ROLES:
            self.cannot(term, f"a factored model has no {law.role}")
        var = self._latent((*law.args, *term.point), term)
        self.factors(law.role)
        return LogSum(parts={var: {law.role: (1, 0)}})

    def _law(self, law: Law, var: Var, term: Term) -> tuple[Roles, LogSum]:
        """The log-density of a law at its variable, and the logarithm of its mass."""
        if isinstance(law, ModelLaw):
            if var.space != Z:
                self.cannot(term, f"a factored model has one observation, and no law of {var.space.name}")
            return self._log_density(LogDensity(law, (var,))).parts[var], LogSum()
        if isinstance(law, MixtureLaw):
            self.cannot(term, "a mixture is not a product of factors")
        assert isinstance(law, DensityLaw)
        if law.var.space != Z:
            self.cannot(term, f"a factored model has no law of {law.var.space.name}")
        roles, rest = self.value(law.log_density).without(law.var)
        if rest.parts:
            self.cannot(term, f"the law {law} depends on another variable")
        if any(negative for _, negative in roles.values()) and self.infinite({}, roles, term):
            raise UndefinedValue(term.text, "a state where the law divides by zero")
        mass = self.summed({}, roles, term) + rest
        if not math.isfinite(mass.number):
            raise UndefinedValue(term.text, f"the law {law}, whose mass is exp({mass.number})")
        return roles, LogSum() if law.rescale else mass

    # --- the two sums over states ---

    def _expectation(self, term: Expect) -> LogSum:
        if term.var.plates:
            self.cannot(term, _COPIES)
        roles, mass = self._law(term.law, term.var, term)
        mine, rest = self.value(term.body).without(term.var)
        if mass.number and rest.parts:
            self.cannot(term, "its law is not normalised and its body has other variables")
        value = self.mean(roles, mine, term) + rest
        return product_of(value, exp_of(mass)) if mass.number else value

    def _log_sum(self, term: Expect | Integrate) -> LogSum:
        """log E_law exp(...), or log sum exp(...)."""
        if term.var.plates:
            self.cannot(term, _COPIES)
        if term.var.space != Z or term.var.space.bounds is not None:
            self.cannot(term, f"a factored model has no states of {term.var.space.name} to sum over")
        if isinstance(term.body, Apply) and term.body.op == "add" and all(map(nonnegative, term.body.args)):
            bodies = term.body.args
        else:
            bodies = (term.body,)
        law, shift = {}, LogSum()
        if isinstance(term, Expect):
            law, shift = self._law(term.law, term.var, term)
            if isinstance(term.law, DensityLaw):
                mass = self.summed({}, law, term)
                shift = shift + mass.times(Fraction(-1))
        logs = []
        for body in bodies:
            mine, rest = self.log_value(body).without(term.var)
            logs.append(self.summed(law, mine, term) + rest)
        if len(logs) > 1 and any(each.parts for each in logs):
            self.cannot(term, "a sum of densities is not a product of factors")
        return (log_of_total(logs) if len(logs) > 1 else logs[0]) + shift


_COPIES = "K copies of a draw are not a product of factors; use Monte Carlo"
