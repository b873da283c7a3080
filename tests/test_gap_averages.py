"""Differences of averages: what is proved of them holds on tables, zeros included, and what is false is not proved."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import numpy as np
import pytest
from mutations import mutated
from test_gap import FALSE, NEEDS_A_SIGN, Formula, broken, models, values

from boundcheck.catalogue import claims, find
from boundcheck.catalogue import objectives as O
from boundcheck.claims import gap_divergence
from boundcheck.claims.gap_divergence import at_most_as_averages, equal_as_averages
from boundcheck.language import E, Term, log, log_mean_exp, to_json, trace
from boundcheck.language.terms import ZERO

TRUE: dict[str, tuple[Formula, Formula]] = {
    "SIVI_3 is a bound": (lambda m, x: O.sivi(m, x, 3), O.log_evidence),
    "SIVI_3 is below the ELBO of q~": (lambda m, x: O.sivi(m, x, 3), O.marginal_elbo),
    "SIVI grows from 0 to 2": (lambda m, x: O.sivi(m, x, 0), lambda m, x: O.sivi(m, x, 2)),
    "SIVI grows from 1 to 3": (lambda m, x: O.sivi(m, x, 1), lambda m, x: O.sivi(m, x, 3)),
    "SIVI without x~_0 is above": (O.marginal_elbo, lambda m, x: O.sivi_without(m, x, 4)),
    "SIVI without x~_0 falls": (lambda m, x: O.sivi_without(m, x, 5), lambda m, x: O.sivi_without(m, x, 2)),
    "the coupled reading is below": (O.denoising_coupled, O.marginal_elbo),
    "the decoupled reading is above": (O.marginal_elbo, O.denoising_decoupled),
    "HVM is below": (O.hvm, O.marginal_elbo),
}


@pytest.mark.parametrize("name", TRUE)
def test_what_it_is_for(name: str) -> None:
    lower, upper = (trace(side) for side in TRUE[name])
    assert at_most_as_averages(lower, upper)
    assert not at_most_as_averages(upper, lower)
    assert not equal_as_averages(lower, upper)


def swapped(m: Any, x: Any) -> Term:
    """SIVI_1 with a body that tells x~_0 from x~_1, so that they may not be exchanged."""

    def body(x0: Any, x1: Any, z: Any) -> Term:
        both = log_mean_exp(m.encoder(x1).log_prob(z), also=m.encoder(x0).log_prob(z))
        return m.auxiliary(z, x0).log_prob(x0) + m.log_joint(x, z) - both - m.auxiliary(z, x0).log_prob(x)

    return E(
        m.corruption(x),
        lambda x0: E(m.encoder(x0), lambda z: E(m.corruption(x).copies(1), lambda x1: body(x0, x1, z))),
    )


WRONG: dict[str, tuple[Formula, Formula]] = {
    "SIVI_1 in which x~_0 shows": (swapped, lambda m, x: O.log_evidence(m, x)),
    "SIVI without x~_0": (lambda m, x: O.sivi_without(m, x, 3), O.log_evidence),
    "SIVI below the coupled reading": (lambda m, x: O.sivi(m, x, 1), O.denoising_coupled),
    "the decoupled reading below": (O.denoising_decoupled, O.marginal_elbo),
}


@pytest.mark.parametrize("name", [*WRONG, *FALSE])
def test_what_is_false_is_not_proved(name: str) -> None:
    lower, upper = (trace(side) for side in (WRONG | FALSE)[name])
    if name in WRONG:
        assert broken(values(lower, models(40, 0)), values(upper, models(40, 0))), "no counterexample"
    assert not at_most_as_averages(lower, upper)


@pytest.mark.parametrize("name", NEEDS_A_SIGN)
def test_what_can_be_negative_is_not_at_least_zero(name: str) -> None:
    assert not at_most_as_averages(ZERO, trace(NEEDS_A_SIGN[name]))


def test_equal_and_different() -> None:
    same = [("sivi-without-one-is-decoupled", True), ("hvm-prior-is-coupled", True), ("iwae-one-is-elbo", True),
            ("elbo-gap-is-kl", True), ("denoising-readings-agree", False)]  # fmt: skip
    for name, expected in same:
        assert equal_as_averages(*find(name).terms) is expected


def hunt(seed: int, count: int, pairs: list[tuple[Term, Term]]) -> tuple[int, int]:
    """Changes sides of true pairs a little, and looks for a proof that some model breaks."""
    rng, on, false, proved = Random(seed), models(14, seed + 50), 0, 0
    known: dict[Term, Any] = {}
    while count:
        lower, upper = rng.choice(pairs)
        a = mutated(rng, lower) if rng.random() < 0.6 else lower
        b = mutated(rng, upper) if rng.random() < 0.5 else upper
        if a is None or b is None or max(len(json.dumps(to_json(t))) for t in (a, b)) > 5000:
            continue
        count -= 1
        for term in (a, b):
            if term not in known:
                known[term] = values(term, on)
        for low, high in ((a, b), (b, a)):
            breaks = broken(known[low], known[high])
            holds = gap_divergence.at_most_as_averages(low, high)
            assert not (breaks and holds), f"{low.text} <= {high.text}"
            false, proved = false + breaks, proved + holds
        if equal_as_averages(a, b):
            with np.errstate(invalid="ignore"):
                assert not np.any(np.abs(known[a] - known[b]) > 1e-9), f"{a.text} == {b.text}"
    return false, proved


def pairs() -> list[tuple[Term, Term]]:
    names = ("hvm-below-marginal-elbo", "sivi-without-antitone", "elbo-gap-is-kl", "denoising-lemma-1-inequality")
    chosen = [find(name).terms for name in names]
    chosen += [(trace(a), trace(b)) for a, b in list(TRUE.values())[-4:]]
    return [*chosen, (trace(O.sivi, k=1), trace(O.log_evidence)), (trace(O.sivi, k=0), trace(O.sivi, k=1))]


def test_no_false_neighbour_is_proved() -> None:
    false, proved = hunt(1, 30, pairs())
    assert false > 15
    assert proved > 5


@pytest.mark.slow
def test_no_false_neighbour_is_proved_at_length() -> None:
    everything = pairs() + [claim.terms for claim in claims().values() if claim.family == "finite"]
    for seed in range(2, 6):
        hunt(seed, 400, everything)


def asymmetric(m: Any, x: Any) -> Term:
    """E log mean(q(z|x~_0), q(z|x~_1)) / q(z|x~_0) for z ~ q(.|x~_0): minus a divergence, unless z may be redrawn."""

    def body(x0: Any, x1: Any, z: Any) -> Term:
        return log((m.encoder(x0).prob(z) + m.encoder(x1).prob(z)) / 2) - m.encoder(x0).log_prob(z)

    return E(m.corruption(x), lambda x0: E(m.corruption(x), lambda x1: E(m.encoder(x0), lambda z: body(x0, x1, z))))


def test_a_wrong_exchange_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws may be exchanged only if nothing tells them apart; without that test this falsehood is proved."""
    zero, term = ZERO, trace(asymmetric)
    assert broken(np.zeros(40), values(term, models(40, 0)))
    assert not at_most_as_averages(zero, term)
    monkeypatch.setattr(gap_divergence, "_multiset", lambda terms: [])
    assert at_most_as_averages(zero, term)
