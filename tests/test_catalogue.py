"""The catalogue: every verdict on a published claim, confirmed by the oracle, which shares nothing with the package."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache, partial
from importlib import import_module
from typing import Any

import expected
import mpmath
import oracle
import pytest
from expected import OBJECTIVES, annealing, copied_corruption, hvm_with
from helpers import as_ball, exact, floating, near, truth
from mpmath import mp
from oracle import weighted_sum

from boundcheck.catalogue import FAMILIES, claims, find, objectives
from boundcheck.catalogue.denoising import bernoulli
from boundcheck.claims import Claim, Outcome, Status, check, finite_models, survey
from boundcheck.claims.survey import Survey
from boundcheck.errors import BadInput, UnknownName
from boundcheck.evaluators.strongest import value_of
from boundcheck.evaluators.values import Exact
from boundcheck.models.finite import FiniteModel

F = Fraction
Side = Callable[[oracle.Model, int], Any]


def difference(one: Side, other: Side) -> Side:
    return lambda model, x: weighted_sum([(1, one(model, x)), (-1, other(model, x))])


def kl_encoder_prior(model: oracle.Model, x: int) -> Any:
    return oracle.kl(model.q_of(x), model.prior)


evidence, elbo, marginal = oracle.log_evidence, oracle.elbo, oracle.marginal_elbo
coupled, decoupled = oracle.denoising_coupled, oracle.denoising_decoupled
cross, negative_entropy = expected.marginal_cross_entropy, expected.marginal_negative_entropy


def p(function: Callable[..., Any], *args: Any, **parameters: Any) -> Side:
    return partial(function, *args, **parameters)


SIDES: dict[str, tuple[Side, Side]] = {
    "elbo-below-evidence": (elbo, evidence),
    "elbo-gap-is-kl": (difference(evidence, elbo), oracle.kl_encoder_posterior),
    "elbo-reconstruction-form": (elbo, difference(oracle.reconstruction, kl_encoder_prior)),
    "beta-above-one-below-evidence": (p(oracle.beta_objective, beta=4), evidence),
    "beta-below-one-below-evidence": (p(oracle.beta_objective, beta=F(1, 2)), evidence),
    "free-bits-below-elbo": (p(oracle.free_bits, lam=F(1, 4)), elbo),
    "free-bits-below-evidence": (p(oracle.free_bits, lam=F(1, 4)), evidence),
    "dae-below-evidence": (oracle.dae_criterion, evidence),
    "eubo-above-evidence": (evidence, oracle.eubo),
    "denoising-decoupled-below-evidence": (decoupled, evidence),
    "denoising-coupled-below-evidence": (coupled, evidence),
    "denoising-decoupled-above-marginal-elbo": (marginal, decoupled),
    "denoising-coupled-above-marginal-elbo": (marginal, coupled),
    "denoising-coupled-below-marginal-elbo": (coupled, marginal),
    "denoising-decoupled-below-marginal-elbo": (decoupled, marginal),
    "marginal-elbo-below-evidence": (marginal, evidence),
    "denoising-lemma-1-step": (cross, negative_entropy),
    "denoising-lemma-1-inequality": (cross, negative_entropy),
    "denoising-readings-agree": (coupled, decoupled),
    "iwae-below-evidence": (p(oracle.iwae, k=3), evidence),
    "iwae-one-is-elbo": (p(oracle.iwae, k=1), elbo),
    "iwae-above-elbo": (elbo, p(oracle.iwae, k=2)),
    "iwae-monotone": (p(oracle.iwae, k=2), p(oracle.iwae, k=3)),
    "jvi-below-evidence": (p(oracle.jvi, k=2), evidence),
    "jvi-above-iwae": (p(oracle.iwae, k=2), p(oracle.jvi, k=2)),
    "diwae-coupled-below-evidence": (p(oracle.diwae_coupled, k=2), evidence),
    "diwae-fresh-below-evidence": (p(oracle.diwae_fresh, k=2), evidence),
    "diwae-decoupled-below-evidence": (p(oracle.diwae_decoupled, k=2), evidence),
    "diwae-coupled-one-is-denoising": (p(oracle.diwae_coupled, k=1), coupled),
    "diwae-decoupled-one-is-denoising": (p(oracle.diwae_decoupled, k=1), decoupled),
    "diwae-fresh-below-coupled": (p(oracle.diwae_fresh, k=2), p(oracle.diwae_coupled, k=2)),
    "diwae-coupled-above-marginal-elbo": (marginal, p(oracle.diwae_coupled, k=2)),
    "renyi-below-evidence": (p(oracle.renyi, alpha=F(1, 2)), evidence),
    "renyi-above-elbo": (elbo, p(oracle.renyi, alpha=F(1, 2))),
    "renyi-negative-above-evidence": (evidence, p(oracle.renyi, alpha=-1)),
    "renyi-negative-above-evidence-anywhere": (evidence, p(oracle.renyi, alpha=-1)),
    "renyi-above-one-below-elbo": (p(oracle.renyi, alpha=2), elbo),
    "renyi-monotone": (p(oracle.renyi, alpha=F(1, 2)), p(oracle.renyi, alpha=F(1, 4))),
    "renyi-finite-below-evidence": (p(oracle.renyi_finite, alpha=F(1, 2), k=2), evidence),
    "renyi-finite-monotone": (
        p(oracle.renyi_finite, alpha=F(1, 2), k=1),
        p(oracle.renyi_finite, alpha=F(1, 2), k=2),
    ),
    "renyi-finite-negative-above-evidence": (evidence, p(oracle.renyi_finite, alpha=-1, k=2)),
    "renyi-finite-negative-below-evidence": (p(oracle.renyi_finite, alpha=-1, k=3), evidence),
    "cubo-above-evidence": (evidence, p(oracle.cubo, n=2)),
    "cubo-above-evidence-anywhere": (evidence, p(oracle.cubo, n=2)),
    "cubo-monotone": (p(oracle.cubo, n=2), p(oracle.cubo, n=3)),
    "cubo-finite-above-evidence": (evidence, p(oracle.cubo_finite, n=2, k=2)),
    "cubo-is-renyi": (p(oracle.cubo, n=2), p(oracle.renyi, alpha=-1)),
    "hvm-below-evidence": (oracle.hvm, evidence),
    "hvm-below-marginal-elbo": (oracle.hvm, marginal),
    "hvm-optimum-is-marginal-elbo": (p(hvm_with, oracle.optimal_auxiliary), marginal),
    "hvm-below-optimum": (oracle.hvm, p(hvm_with, oracle.optimal_auxiliary)),
    "hvm-prior-is-coupled": (p(hvm_with, copied_corruption), coupled),
    "sivi-below-evidence": (p(oracle.sivi, k=2), evidence),
    "sivi-below-marginal-elbo": (p(oracle.sivi, k=2), marginal),
    "sivi-monotone": (p(oracle.sivi, k=1), p(oracle.sivi, k=2)),
    "sivi-zero-is-coupled": (p(oracle.sivi, k=0), coupled),
    "sivi-without-one-is-decoupled": (p(oracle.sivi_without, k=1), decoupled),
    "sivi-without-below-evidence": (p(oracle.sivi_without, k=2), evidence),
    "sivi-without-above-marginal-elbo": (marginal, p(oracle.sivi_without, k=2)),
    "sivi-without-antitone": (p(oracle.sivi_without, k=2), p(oracle.sivi_without, k=1)),
    "tvo-left-below-evidence": (p(oracle.tvo_left, s=2), evidence),
    "tvo-right-above-evidence": (evidence, p(oracle.tvo_right, s=2)),
    "tvo-left-one-is-elbo": (p(oracle.tvo_left, s=1), elbo),
    "tvo-right-one-is-eubo": (p(oracle.tvo_right, s=1), oracle.eubo),
    "tvo-left-above-elbo": (elbo, p(oracle.tvo_left, s=2)),
    "perturbative-one-below-evidence": (p(oracle.perturbative, order=1, v0=0), evidence),
    "perturbative-two-below-evidence": (p(oracle.perturbative, order=2, v0=0), evidence),
    "perturbative-three-below-evidence": (p(oracle.perturbative, order=3, v0=0), evidence),
    "ais-forward-below-evidence": (p(annealing, steps=2, reverse=False), evidence),
    "ais-reverse-above-evidence": (evidence, p(annealing, steps=2, reverse=True)),
    "vr-max-below-evidence": (p(expected.vr_max, k=2), evidence),
    "vr-max-above-iwae": (p(oracle.iwae, k=2), p(expected.vr_max, k=2)),
    "harmonic-mean-above-evidence": (evidence, p(expected.harmonic_mean, k=2)),
    "harmonic-mean-below-evidence": (p(expected.harmonic_mean, k=2), evidence),
    "beta-denoising-below-evidence": (p(expected.beta_denoising, beta=2), evidence),
    "beta-denoising-half-below-evidence": (p(expected.beta_denoising, beta=F(1, 2)), evidence),
}
"""Both sides of every claim on finite models, written again by hand for the oracle."""

FALSE = {
    "beta-below-one-below-evidence",
    "beta-denoising-half-below-evidence",
    "cubo-above-evidence-anywhere",
    "cubo-finite-above-evidence",
    "dae-below-evidence",
    "denoising-coupled-above-marginal-elbo",
    "denoising-decoupled-below-evidence",
    "denoising-decoupled-below-marginal-elbo",
    "denoising-lemma-1-step",
    "denoising-readings-agree",
    "diwae-coupled-above-marginal-elbo",
    "diwae-decoupled-below-evidence",
    "diwae-fresh-below-coupled",
    "harmonic-mean-below-evidence",
    "jvi-below-evidence",
    "perturbative-two-below-evidence",
    "renyi-finite-negative-above-evidence",
    "renyi-finite-negative-below-evidence",
    "renyi-negative-above-evidence-anywhere",
    "sivi-without-below-evidence",
    "vr-max-below-evidence",
}
"""The claims that are false, by the literature or by hand."""

HOLE = FiniteModel(prior=["1/2", "1/2"], likelihood=[["1/2", "1/2"]] * 2, encoder=[[1, 0], ["1/2", "1/2"]],
                   corruption=[["1/2", "1/2"]] * 2, auxiliary=[[["1/2", "1/2"]] * 2] * 2)  # fmt: skip
FINITE = [name for name, claim in claims().items() if claim.family == "finite"]


@cache
def judged(name: str) -> Survey:
    claim = find(name)
    known = [claim.witness()] if claim.witness else []
    return survey(claim, [*known, HOLE, *finite_models(14, seed=0)], symbolic=False)  # type: ignore[list-item]


def as_oracle(model: FiniteModel) -> oracle.Model:
    def table(role: str) -> Any:
        return model.table(role).tolist() if role in model.roles else None

    return oracle.Model(
        prior=model.table("prior").tolist(),
        likelihood=model.table("likelihood").tolist(),
        encoder=table("encoder"),
        corruption=table("corruption"),
        auxiliary=table("auxiliary"),
    )


def sides(name: str, model: FiniteModel, x: int) -> tuple[Any, Any]:
    return tuple(truth(side, as_oracle(model), x) for side in SIDES[name])  # type: ignore[return-value]


def test_the_sides_of_every_claim_are_known_to_the_oracle() -> None:
    assert set(SIDES) == set(FINITE)
    assert set(FINITE) >= FALSE
    assert len(FINITE) >= 76


@pytest.mark.parametrize("name", FINITE)
def test_the_verdict_is_the_oracles(name: str) -> None:
    found, claim = judged(name), find(name)
    if name in FALSE:
        assert found.status is Status.REFUTED
        assert found.witness is not None
        x, model, verdict = found.witness.x, found.witness.model, found.witness.verdict
        assert isinstance(model, FiniteModel)
        lhs, rhs = sides(name, model, x)
        with mp.workdps(60):
            assert lhs is not None
            assert rhs is not None
            assert abs(lhs - rhs) > 1e-4 if claim.relation == "==" else lhs - rhs > 1e-4
            for value, known in ((verdict.lhs, lhs), (verdict.rhs, rhs)):
                if isinstance(value, Exact):
                    assert near(value.value.ball(256), known, 1e-50)
                else:
                    assert name.startswith("perturbative")  # a square of logarithms
                    assert near(value.ball, known, 1e-15)  # type: ignore[union-attr]
            assert verdict.margin == pytest.approx(float(rhs - lhs), rel=1e-12)
    else:
        assert found.status in (Status.PROVED, Status.GAP_VERIFIED, Status.SURVIVED)
        assert found.witness is None
        assert found.smallest_margin >= 0


def possible(claim: Claim, positive: bool) -> Iterator[tuple[FiniteModel, int]]:
    """Models and observations of which the claim speaks; only those without zeros if the oracle needs that."""
    for model in [HOLE, *finite_models(16, seed=0)]:
        tables = [model.table(role) for role in ("prior", "likelihood", "encoder")]
        if positive and not all((table != 0).all() for table in tables):
            continue
        yield from ((model, x) for x in range(model.sizes["x"]) if claim.applies(model, x))


@pytest.mark.parametrize("name", [name for name in FINITE if name not in FALSE])
def test_the_oracle_finds_no_violation(name: str) -> None:
    claim, seen = find(name), 0
    for model, x in possible(claim, positive=name.startswith("ais")):
        lhs, rhs = sides(name, model, x)
        if lhs is None or rhs is None:
            assert check(claim, model, x).outcome is Outcome.UNDECIDED
            continue
        verdict = check(claim, model, x)
        assert verdict.outcome is not Outcome.VIOLATED
        with mp.workdps(60):
            slack = mpmath.mpf("1e-45")
            if claim.relation == "==":
                assert lhs == rhs or abs(lhs - rhs) < slack
            else:
                assert lhs <= rhs + slack
            if lhs < rhs - slack and claim.relation == "<=":
                assert verdict.outcome is Outcome.HOLDS
        seen += 1
    assert seen >= (6 if name.startswith(("ais", "perturbative")) else 20)


@pytest.mark.parametrize("name", FINITE)
def test_both_sides_are_what_the_oracle_computes(name: str) -> None:
    claim, seen = find(name), 0
    for model, x in list(possible(claim, positive=name.startswith("ais")))[::4]:
        for term, known in zip(claim.terms, sides(name, model, x), strict=True):
            if known is None:
                continue
            value = value_of(term, model, x, precision=128)
            if isinstance(value, Exact):
                assert near(value.value.ball(256), known, 1e-50)
            else:
                assert value.ball.overlaps(as_ball(known))  # type: ignore[union-attr]
                assert float(value) == pytest.approx(float(known), rel=1e-14)
            seen += 1
    assert seen >= (2 if name.startswith(("ais", "perturbative")) else 8)


# --- What the catalogue is made of ------------------------------------------------------------------------------------


def test_names_are_unique_and_every_claim_has_a_statement_and_a_source() -> None:
    rows = [claim for family in FAMILIES for claim in import_module(f"boundcheck.catalogue.{family}").CLAIMS]
    assert len(rows) == len(claims()) >= 30
    assert [claim.name for claim in rows] == list(claims())
    for claim in rows:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", claim.name), claim.name
        assert len(claim.statement) > 15, claim.name
        assert claim.statement.endswith("."), claim.name
        assert len(claim.source) >= 8, claim.name
        assert find(claim.name) is claim
    assert len({claim.statement for claim in rows}) == len(rows)


def test_an_unknown_claim_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'iwae-monotone'"):
        find("iwae-monoton")


def test_every_known_witness_violates_its_claim() -> None:
    known = [claim for claim in claims().values() if claim.witness is not None and claim.family == "finite"]
    assert len(known) >= 6
    for claim in known:
        assert claim.name in FALSE
        assert claim.witness is not None
        assert check(claim, claim.witness(), 0).outcome is Outcome.VIOLATED  # type: ignore[arg-type]


def test_every_gap_is_rhs_minus_lhs_and_a_wrong_one_is_seen() -> None:
    for name in FINITE:
        claim = find(name)
        if claim.gap is not None:
            assert name not in FALSE, "a false claim has no gap"
            assert "wrong" not in judged(name).detail
            doubled = replace(claim, gap=2 * claim.gap + F(1, 7))  # type: ignore[operator]
            assert "its gap formula is wrong" in survey(doubled, finite_models(4, 0), symbolic=False).detail or (
                judged(name).status is Status.PROVED
            )


def test_every_objective_has_its_formula_and_is_compared_with_the_oracle() -> None:
    compared = {case.name.partition("(")[0] for case in OBJECTIVES}
    helpers = {"log_weight", "reverse_mixing", "tempered", "metropolis", "annealed_log_weight", "annealing_kernel"}
    helpers |= {"over_annealing"}
    for name, function in vars(objectives).items():
        if inspect.isfunction(function) and function.__module__ == objectives.__name__ and not name.startswith("_"):
            assert function.__doc__, name
            assert name in compared | helpers, f"{name} is compared with nothing"


# --- The counterexample of Tran and Ranganath -------------------------------------------------------------------------


def test_the_exact_figures() -> None:
    model = bernoulli()
    assert str(exact.evaluate(objectives.denoising_decoupled, model)) == "log(5/3)"
    assert f"{float(exact.evaluate(objectives.denoising_decoupled, model)):.12f}" == "0.510825623766"
    assert f"{float(exact.evaluate(objectives.denoising_coupled, model)):.6f}" == "-0.368064"
    assert exact.evaluate(objectives.log_evidence, model).value == 0
    assert exact.evaluate(objectives.marginal_elbo, model).value == 0
    assert str(exact.evaluate(objectives.log_evidence, model)) == "0"
    assert oracle.denoising_decoupled(oracle.bernoulli(), 0) == truth(oracle.denoising_decoupled, as_oracle(model), 0)


def test_each_reading_keeps_one_half_of_the_sandwich_and_breaks_the_other() -> None:
    verdicts = {
        "denoising-decoupled-below-evidence": Outcome.VIOLATED,
        "denoising-decoupled-above-marginal-elbo": Outcome.HOLDS,
        "denoising-coupled-below-evidence": Outcome.HOLDS,
        "denoising-coupled-above-marginal-elbo": Outcome.VIOLATED,
    }
    for name, outcome in verdicts.items():
        verdict = check(find(name), bernoulli())
        assert (verdict.outcome, verdict.guarantee.value) == (outcome, "exact")  # type: ignore[union-attr]


@pytest.mark.parametrize("sharpness", ["much", "", "11/10", "-1/10", "1/0", "nan"])
def test_a_sharpness_that_is_no_probability(sharpness: str) -> None:
    with pytest.raises(BadInput, match=r"^sharpness = .*: expected a probability such as 9/10"):
        bernoulli(sharpness)


@pytest.mark.parametrize("digits", [1, 2, 10, 100, 300])
def test_the_explosion(digits: int) -> None:
    """The decoupled objective is -log 2 - log(s (1 - s)) / 2, beyond any bound as s goes to 1."""
    s = 1 - F(1, 10**digits)
    value = exact.evaluate(objectives.denoising_decoupled, bernoulli(str(s)))
    with mp.workdps(400):
        known = -mpmath.log(2) - mpmath.log(mpmath.mpf(s.numerator) / s.denominator / 10**digits) / 2
        assert near(value.value.ball(256), known, 1e-50)
    assert float(value) > digits * 1.15 - 0.7
    assert float(floating.evaluate(objectives.denoising_decoupled, bernoulli(str(s)))) == pytest.approx(float(value))
