"""The two sums over all states of a factored model that the contraction evaluator needs, each computed once.

    E_{z ~ law}[sum_i c_i log f_i(z)]    and    log sum_z law(z) exp(sum_i c_i log f_i(z)).

A state without mass does not count, whatever the body is there; where a body is infinite at a state with mass, so is
the sum, or it has no value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NoReturn

from boundcheck.errors import CannotCompute
from boundcheck.evaluators.elimination import Result, TooLarge, eliminate, packed, trailing_law
from boundcheck.evaluators.log_sums import Coefficients, LogSum, Roles, joined
from boundcheck.evaluators.potentials import BLOCK, Table, Watch
from boundcheck.evaluators.reduction import Stacked
from boundcheck.language.terms import Term
from boundcheck.models.factored import FactoredModel, LogFactor

NAME = "contraction evaluator"


class StateSums:
    """Sums over the states of one model."""

    def __init__(self, model: FactoredModel, memory: int) -> None:
        self.model, self.memory, self.sizes = model, memory, model.shape
        self.watches: list[Watch] = []
        self.results: dict[tuple[Any, ...], LogSum] = {}

    def cannot(self, term: Term, reason: str) -> NoReturn:
        raise CannotCompute(NAME, term.text, reason)

    def factors(self, role: str) -> list[LogFactor]:
        """The factors of a role, small ones on the same variables made one."""
        return self._kept(role, lambda: packed(self.sizes, self.model.factors_of(role), self.memory))

    def _tables(self, role: str, scale: float, at_zero: float = -math.inf) -> list[Table]:
        def make() -> list[Table]:
            return [Table.of(factor, scale, at_zero) for factor in self.factors(role) if scale or factor.zeros]

        return self._kept((role, scale, at_zero), make) if abs(scale) == 1 else make()

    def _kept(self, what: object, make: Callable[[], Any]) -> Any:
        """What depends on the model alone is made once for the model."""
        key = (NAME, what, self.memory)
        if key not in self.model.derived:
            self.model.derived[key] = make()
        return self.model.derived[key]

    def watch_large_factors(self) -> None:
        """While a sum reads a large factor of the joint, take the factor's mean under the encoder along."""
        large = [f for f in self.factors("joint") if f.data.size > BLOCK and not (f.zeros or f.linear)]
        if large and "encoder" in self.model.roles:
            encoder = self._tables("encoder", 1.0)
            vectors = self._kept("watched", lambda: [trailing_law(self.sizes, f.scope, encoder) for f in large])
            self.watches = [Watch(f, vector) for f, vector in zip(large, vectors, strict=True) if vector is not None]

    def summed(self, law: Roles, body: Roles, term: Term) -> LogSum:
        """log sum_z law(z) exp(body(z)); a state without mass does not count, whatever the body is there."""
        key = ("sum", _frozen(law), _frozen(body))
        if key not in self.results:
            if infinite := self.infinite(law, body, term):
                self.results[key] = LogSum(infinite)
            else:
                result = self._eliminate(joined(law, body), {}, term)
                self.results[key] = LogSum(result.log_total, result.log_error)
        return self.results[key]

    def mean(self, law: Roles, body: Roles, term: Term) -> LogSum:
        """E_law[body]."""
        key = ("mean", _frozen(law), _frozen(body))
        if key not in self.results and body:
            signs = {
                sign
                for role, coefficients in body.items()
                for sign, coefficient in zip((-math.inf, math.inf), coefficients, strict=True)
                if coefficient and self._charged(law, role, term)
            }
            if signs:
                self.results[key] = LogSum(math.fsum(signs) if len(signs) == 1 else math.nan)
            else:
                result = self._eliminate(law, body, term)
                self.results[key] = LogSum(result.mean, result.mean_error)
        return self.results.get(key, LogSum())

    def infinite(self, law: Roles, body: Roles, term: Term) -> float:
        """inf if exp(body) is infinite at a state with mass, NaN if it has no value there, else 0."""
        below = [role for role, (_, negative) in body.items() if negative]
        value = 0.0
        for role in below:
            if self._charged(law, role, term):
                value = math.inf
                for other, (positive, _) in body.items():
                    if positive and self._charged(law, role, term, other):
                        return math.nan
        return value

    def _charged(self, law: Roles, role: str, term: Term, other: str | None = None) -> bool:
        """Whether a law has mass where a density is zero (and another one, too)."""
        if any(positive for positive, _ in [law.get(role, (0, 0)), law.get(other or "", (0, 0))]):
            return False
        key = ("charged", _frozen(law), role, other)
        if key not in self.results:
            pairs = [
                [Table.zeros_of(factor) for factor in pair]
                for pair in product(*([f for f in self.factors(r) if f.zeros] for r in (role, other) if r))
            ]
            bare = not any(factor.zeros for r in law for factor in self.factors(r))
            charged = any(
                (bare and len(pair) == 1) or self._eliminate(law, {}, term, pair).log_total > -math.inf
                for pair in pairs
            )
            self.results[key] = LogSum(float(charged))
        return bool(self.results[key].number)

    def _eliminate(self, law: Roles, values: Roles, term: Term, more: Sequence[Table] = ()) -> Result:
        weights = [*more]
        scales = {role: float(sum(coefficients)) for role, coefficients in law.items()}
        for role, scale in scales.items():
            weights += self._tables(role, scale)
        tables: list[Table] = []
        for role, coefficients in values.items():
            if scale := float(sum(coefficients)):
                tables += self._tables(role, scale, at_zero=0.0)
        if not (tables or more) and (total := self._reduced(scales, weights)) is not None:
            return Result(*total, math.nan, 0.0)
        encoder_alone = law.keys() == {"encoder"} and law["encoder"] == (1, 0)
        watches = self.watches if encoder_alone or not tables else ()
        try:
            return eliminate(self.sizes, weights, tables, self.memory, watches)
        except TooLarge as needed:
            reason = f"the factors are too entangled: the best order found for summing needs {needed}"
            reason += f", more than memory = {self.memory} bytes; raise memory, or use Monte Carlo"
            return self.cannot(term, reason)

    def _reduced(self, scales: dict[str, float], weights: list[Table]) -> tuple[float, float] | None:
        """log sum_z exp(sum weights) with its error, where the weights form chains, trees and rings of few states."""

        def make() -> Stacked | None:
            return Stacked.of(self.sizes, weights)

        plain = all(abs(scale) == 1 for scale in scales.values())
        stacked = self._kept(("stacked", *sorted(scales.items())), make) if plain else make()
        return None if stacked is None else stacked.log_total()


def _frozen(roles: Roles) -> tuple[tuple[str, Coefficients], ...]:
    return tuple(sorted(roles.items()))


__all__ = ["NAME", "StateSums"]
