"""Identities between formulas, proved for all tables of a stated size at once.

The entries of the tables become symbols, the last entry of each row being one minus the others, and the traversal
that evaluates formulas on numbers evaluates them on log forms (see `logforms`). The difference of two formulas is
then zero for all tables with positive entries of that size exactly if its log form is zero, so a gap formula, or an
equality, is proved there. Where half-integer powers occur, the entries are written as squares: a row is a point of
the sphere, parametrised rationally.

What is proved is proved for positive entries. Zeros are another matter, and not one of continuity alone: an encoder
that is zero where p(x,z) is not loses the mass that it would have kept at any positive value.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count

from boundcheck.claims.claim import Claim
from boundcheck.claims.decide import Outcome, decide
from boundcheck.claims.gap import nonnegative_by_form
from boundcheck.claims.log_form_domain import HalfPowers, log_form
from boundcheck.claims.logforms import OutOfBudget
from boundcheck.claims.symbols import (
    DEFAULT_SECONDS,
    Layout,
    row_of_squares,
    row_with_last_entry_left,
    symbolic_tables,
)
from boundcheck.errors import BadInput, CannotCompute, UndefinedValue
from boundcheck.evaluators.strongest import value_of
from boundcheck.language.build import Formula, trace
from boundcheck.language.terms import ZERO, Term, add, multiply
from boundcheck.models.finite import FiniteModel

DEFAULT_SIZES: tuple[dict[str, int], ...] = tuple({"x": n, "z": n, "x~": n} for n in (2, 3, 4))
_TRIES = 20


# --- identities ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IdentityResult:
    """Whether two formulas are the same function of all tables with positive entries of the stated sizes.

    HOLDS is a proof; VIOLATED comes with a model on which they differ; UNDECIDED with a reason.
    """

    outcome: Outcome
    sizes: dict[str, int]
    reason: str
    seconds: float
    witness: FiniteModel | None = None

    @property
    def proved(self) -> bool:
        """True if the identity is proved."""
        return self.outcome is Outcome.HOLDS

    @property
    def size_text(self) -> str:
        """The sizes, as text."""
        return " and ".join(f"{n} states of {space}" for space, n in self.sizes.items())

    def __str__(self) -> str:
        verb = {Outcome.HOLDS: "proved", Outcome.VIOLATED: "wrong", Outcome.UNDECIDED: "undecided"}[self.outcome]
        return f"{verb} for {self.size_text}: {self.reason}"


def prove_identity(
    lhs: Formula | Term,
    rhs: Formula | Term,
    sizes: Mapping[str, int] | None = None,
    *,
    seconds: float = DEFAULT_SECONDS,
) -> IdentityResult:
    """Decide whether two formulas are equal for all tables with positive entries of given sizes.

    Args:
        lhs: a formula or term.
        rhs: a formula or term.
        sizes: the numbers of states of "x", "z" and "x~"; 2 where none is given.
        seconds: after how long it gives up, undecided.

    Raises:
        BadInput: a size that is no positive integer, or of an unknown space.

    >>> from boundcheck.catalogue.objectives import elbo, log_evidence
    >>> from boundcheck.language import kl
    >>> str(prove_identity(lambda m, x: log_evidence(m, x) - elbo(m, x), lambda m, x: kl(m.encoder(x), m.posterior(x))))
    'proved for 2 states of z: all coefficients of logarithms cancel'
    """
    sizes = _checked_sizes(sizes or {})
    started = time.monotonic()
    difference = add(trace(rhs), multiply(-1, trace(lhs)))
    outcome, reason, kept = _decide_zero(difference, sizes, seconds)
    witness = None
    if outcome is Outcome.VIOLATED:
        witness = _where_nonzero(difference, sizes)
        if witness is None:
            outcome, reason = Outcome.UNDECIDED, "it is not an identity, but no model tried shows it"
    return IdentityResult(outcome, kept, reason, time.monotonic() - started, witness)


def _checked_sizes(sizes: Mapping[str, int]) -> dict[str, int]:
    for space, n in sizes.items():
        if space not in ("x", "z", "x~"):
            raise BadInput("sizes", space, 'the spaces "x", "z" and "x~"')
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise BadInput(f'sizes["{space}"]', n, "a positive integer")
    return {"x": 2, "z": 2, "x~": 2} | dict(sizes)


def _decide_zero(term: Term, sizes: Mapping[str, int], seconds: float) -> tuple[Outcome, str, dict[str, int]]:
    kept = Layout.of(term, sizes).sizes
    reason = ""
    for make_row in (row_with_last_entry_left, row_of_squares):
        try:
            symbols = symbolic_tables(term, sizes, make_row, seconds=seconds)
            value = log_form(term, symbols)
        except HalfPowers as refusal:
            reason = refusal.reason
            continue
        except (CannotCompute, OutOfBudget) as refusal:
            return Outcome.UNDECIDED, getattr(refusal, "reason", str(refusal)), kept
        if symbols.forms.is_zero(value):
            return Outcome.HOLDS, "all coefficients of logarithms cancel", kept
        if any(name in symbols.forms.choices for name in value.logs):
            return Outcome.UNDECIDED, "a maximum is left over, about which nothing is known", kept
        return Outcome.VIOLATED, "coefficients of logarithms are left over", kept
    return Outcome.UNDECIDED, reason, kept


def random_positive_models(sizes: Mapping[str, int], seed: int = 0) -> Iterator[FiniteModel]:
    """Random rational models without zeros."""
    x, z, c = sizes["x"], sizes["z"], sizes["x~"]
    for number in count():
        rng = random.Random(f"{seed}/{number}")

        def row(n: int, rng: random.Random = rng) -> list[Fraction]:
            entries = [rng.randint(1, 9) for _ in range(n)]
            return [Fraction(entry, sum(entries)) for entry in entries]

        yield FiniteModel(
            prior=row(z),
            likelihood=[row(x) for _ in range(z)],
            encoder=[row(z) for _ in range(c)],
            corruption=[row(c) for _ in range(x)],
            auxiliary=[[row(c) for _ in range(x)] for _ in range(z)],
        )


def _where_nonzero(difference: Term, sizes: Mapping[str, int]) -> FiniteModel | None:
    models = random_positive_models(dict(sizes))
    for _ in range(_TRIES):
        model = next(models)
        try:
            values = value_of(difference, model, 0), value_of(ZERO, model, 0)
        except (UndefinedValue, CannotCompute):
            continue
        if decide(values[0], "==", values[1]).outcome is Outcome.VIOLATED:
            return model
    return None


# --- gaps ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GapProof:
    """What is proved of a claim by its gap: at each of some sizes, whether rhs - lhs = gap identically."""

    claim: Claim
    by_form: bool
    results: tuple[IdentityResult, ...] = field(default=())

    @property
    def proved(self) -> tuple[IdentityResult, ...]:
        """The sizes at which the claim is proved."""
        return tuple(result for result in self.results if result.proved) if self.by_form else ()

    @property
    def wrong(self) -> IdentityResult | None:
        """The sizes, with a model, at which rhs - lhs is not the gap."""
        return next((result for result in self.results if result.outcome is Outcome.VIOLATED), None)

    @property
    def detail(self) -> str:
        """One sentence."""
        what = "both sides are equal" if self.claim.relation == "==" else "rhs - lhs is a sum of non-negative terms"
        if self.wrong:
            return f"the gap formula is wrong for {self.wrong.size_text}"
        if self.proved:
            where = "; ".join(result.size_text for result in self.proved)
            return f"{what}, identically, for all tables with positive entries of {where}"
        if not self.by_form:
            return "the gap formula is not seen to be non-negative by its form"
        return self.results[-1].reason if self.results else "there is no gap formula"


def prove_gap(
    claim: Claim,
    sizes: Iterable[Mapping[str, int]] = DEFAULT_SIZES,
    *,
    seconds: float = DEFAULT_SECONDS,
    progress: Callable[[IdentityResult], None] = lambda result: None,
) -> GapProof:
    """Prove a claim by its gap at some sizes: rhs - lhs = gap identically, and gap >= 0 by its form.

    An equality is proved by the gap 0. The sizes are tried in order, up to the first that is not proved.

    Args:
        claim: the claim.
        sizes: numbers of states, smallest first.
        seconds: after how long each size is given up.
        progress: called with each result.

    >>> from boundcheck.catalogue import find
    >>> prove_gap(find("denoising-coupled-below-marginal-elbo"), sizes=[{"z": 2, "x~": 2}]).detail
    'rhs - lhs is a sum of non-negative terms, identically, for all tables with positive entries of 2 states of z and 2 states of x~'
    """  # noqa: E501
    gap = ZERO if claim.relation == "==" else claim.gap
    if gap is None:
        return GapProof(claim, by_form=False)
    gap = trace(gap)
    lhs, rhs = claim.terms
    results: list[IdentityResult] = []
    for each in sizes:
        result = prove_identity(add(rhs, multiply(-1, lhs)), gap, each, seconds=seconds)
        results.append(result)
        progress(result)
        if not result.proved:
            break
    return GapProof(claim, nonnegative_by_form(gap), tuple(results))


__all__ = ["GapProof", "IdentityResult", "prove_gap", "prove_identity"]
