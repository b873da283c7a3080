"""Proofs for all tables of a size: right where the identity is known, refused where it is false, and no more said."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundcheck.catalogue import claims, find, objectives
from boundcheck.claims.claim import Claim
from boundcheck.claims.decide import Outcome
from boundcheck.claims.log_form_domain import log_form
from boundcheck.claims.logforms import LogForms, evaluated, positive_on_simplices
from boundcheck.claims.symbolic import prove_gap, prove_identity, random_positive_models
from boundcheck.claims.symbols import (
    row_of_squares,
    row_of_sticks,
    row_with_last_entry_left,
    symbolic_tables,
)
from boundcheck.errors import BadInput
from boundcheck.evaluators import exact
from boundcheck.evaluators.lognumber import LogNumber
from boundcheck.language import E, exp, kl, log, trace
from boundcheck.language.terms import ONE, ZERO
from boundcheck.models.finite import FiniteModel

OBJECTIVES = {
    "elbo": objectives.elbo,
    "evidence": objectives.log_evidence,
    "eubo": objectives.eubo,
    "coupled": objectives.denoising_coupled,
    "decoupled": objectives.denoising_decoupled,
    "marginal": objectives.marginal_elbo,
    "iwae": partial(objectives.iwae, k=3),
    "fresh": partial(objectives.diwae_fresh, k=2),
    "renyi": partial(objectives.renyi, alpha=-1),
    "hvm": objectives.hvm,
    "sivi": partial(objectives.sivi, k=2),
    "beta": partial(objectives.beta_objective, beta=4),
    "reverse mixing": objectives.hvm_optimal,
}

NOT_LOG_FORMS = {"ais-forward-below-evidence", "ais-reverse-above-evidence"}
"""A Metropolis step takes the smaller of two numbers and is then exponentiated."""


def table_value(model: FiniteModel, name: str) -> Fraction:
    """The value of a parameter on a model, read off its name: role, row, entry."""
    role, *places = name.split("_")
    table = model.table(role)
    if role == "joint":
        return table[0, int(places[0])]
    if role == "prior":
        return table[int(places[-1])]
    return table[tuple(map(int, places))]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_log_form_has_the_value_that_exact_arithmetic_finds(name: str) -> None:
    """The exact evaluator shares the traversal, but neither the numbers nor the cancellation."""
    term = trace(OBJECTIVES[name])
    sizes = {"x": 2, "z": 2, "x~": 2}
    symbols = symbolic_tables(term, sizes)
    form = log_form(term, symbols)
    models = random_positive_models(sizes, seed=5)
    for _ in range(3):
        model = next(models)
        point = [table_value(model, each) for each in symbols.names]

        def ratio(r, point=point):
            return evaluated(r.num, point, Fraction(0)) / evaluated(r.den, point, Fraction(0))

        total = LogNumber.rational(ratio(form.rest))
        for atom, coefficient in form.logs.items():
            value = evaluated(symbols.forms.atoms[atom], point, Fraction(0))
            assert value > 0, "an atom is stored with the sign that makes it positive"
            total = total + ratio(coefficient) * LogNumber.log(value)
        assert total == exact.evaluate(term, model).value


@pytest.mark.parametrize("name", [name for name, claim in claims().items() if claim.gap is not None])
def test_every_gap_of_the_catalogue_is_proved(name: str) -> None:
    proof = prove_gap(find(name))
    if name in NOT_LOG_FORMS:
        assert not proof.proved and not proof.wrong
        assert "maximum" in proof.detail or "exponential" in proof.detail
    else:
        assert proof.by_form
        assert [result.sizes["z"] for result in proof.proved] == [2, 3, 4]


@pytest.mark.parametrize("name", [name for name, claim in claims().items() if claim.relation == "=="])
def test_every_equality_is_proved_or_shown_wrong(name: str) -> None:
    claim = find(name)
    proof = prove_gap(claim)
    assert bool(proof.wrong) == bool(claim.witness)
    assert bool(proof.proved) == (claim.witness is None)


PLANTED_GAPS = {
    "another divergence": lambda m, x: kl(m.posterior(x), m.encoder(x)),
    "twice": lambda m, x: 2 * kl(m.encoder(x), m.posterior(x)),
    "nothing": ZERO,
    "a constant too many": lambda m, x: kl(m.encoder(x), m.posterior(x)) + Fraction(1, 10**9),
    "the prior's": lambda m, x: kl(m.encoder(x), m.prior()),
}


@pytest.mark.parametrize("gap", PLANTED_GAPS.values(), ids=PLANTED_GAPS.keys())
def test_a_planted_wrong_gap_is_found_with_a_model(gap) -> None:
    claim = Claim("planted", objectives.elbo, "<=", objectives.log_evidence, gap=gap)
    wrong = prove_gap(claim).wrong
    assert wrong is not None and wrong.witness is not None
    lhs, rhs = (exact.evaluate(side, wrong.witness).value for side in claim.terms)
    assert rhs - lhs != exact.evaluate(claim.gap, wrong.witness).value


def test_a_true_identity_that_is_no_non_negative_form_proves_nothing() -> None:
    """rhs - lhs = gap is an identity; the gap may still be negative."""
    gap = trace(lambda m, x: objectives.elbo(m, x) - objectives.log_evidence(m, x))
    claim = Claim("planted", objectives.log_evidence, "<=", objectives.elbo, gap=gap)
    proof = prove_gap(claim)
    assert proof.results[0].proved and not proof.by_form and not proof.proved


def test_a_claim_without_a_gap_proves_nothing() -> None:
    proof = prove_gap(Claim("plain", objectives.elbo, "<=", objectives.log_evidence))
    assert not proof.proved and not proof.wrong and proof.detail


def test_what_is_no_log_form_is_undecided_with_its_reason() -> None:
    result = prove_identity(lambda m, x: log(1 + E(m.encoder(x), lambda z: m.encoder(x).log_prob(z)) ** 2), ZERO)
    assert result.outcome is Outcome.UNDECIDED and "logarithm" in result.reason


def test_no_time_is_undecided() -> None:
    result = prove_identity(objectives.denoising_coupled, objectives.log_evidence, seconds=0)
    assert result.outcome is Outcome.UNDECIDED and "time" in result.reason


@pytest.mark.parametrize("sign", [1, -1])
def test_even_powers_keep_their_absolute_value(sign: int) -> None:
    """exp(log(s^2) / 2) is |s|, which is neither s nor -s for an s that takes both signs."""

    def signed(m, x):
        return E(m.encoder(x), lambda z: 3 * m.encoder(x).prob(z)) - 2

    result = prove_identity(lambda m, x: exp(log(signed(m, x) ** 2) / 2), lambda m, x: sign * signed(m, x))
    assert not result.proved


def test_half_powers_use_squares() -> None:
    """log E_q[sqrt(w)] twice, written in two ways, for which plain entries would need square roots."""

    def left(m, x):
        return objectives.renyi(m, x, alpha="1/2")

    def right(m, x):
        root = E(m.encoder(x), lambda z: (exp(m.log_joint(x, z)) / m.encoder(x).prob(z)) ** Fraction(1, 2))
        return 2 * log(root)

    assert prove_identity(left, right).proved
    assert prove_identity(left, lambda m, x: right(m, x) + 1).outcome is Outcome.VIOLATED


@pytest.mark.parametrize("sizes", [{"z": 0}, {"z": True}, {"y": 2}, {"x~": 1.5}])
def test_sizes_are_checked(sizes) -> None:
    with pytest.raises(BadInput):
        prove_identity(objectives.elbo, objectives.elbo, sizes)


@pytest.mark.parametrize("z", [1, 2, 3, 4])
@pytest.mark.parametrize("xt", [1, 2, 3])
def test_other_sizes(z: int, xt: int) -> None:
    sizes = {"x": xt, "z": z, "x~": xt}
    assert prove_gap(find("denoising-coupled-below-marginal-elbo"), [sizes]).proved
    assert prove_gap(find("hvm-below-evidence"), [sizes]).proved


@pytest.mark.parametrize("make_row", [row_with_last_entry_left, row_of_squares, row_of_sticks])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_rows_sum_to_one(make_row, n: int) -> None:
    names = [f"t{i}" for i in range(n - 1)]
    forms = LogForms(names, [Fraction(1, n)] * (n - 1))
    row = make_row(forms, names)
    assert len(row) == n
    total = forms.plus(*row)
    assert total.num.is_one() and total.den.is_one()


# --- against sympy, which shares no code ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["elbo-below-evidence", "denoising-coupled-below-evidence", "eubo-above-evidence"])
def test_sympy_agrees_that_the_gap_is_the_difference(name: str) -> None:
    """The sums are written out here by hand; sympy expands the logarithms and cancels."""
    import sympy

    p = sympy.symbols("p0 p1", positive=True)
    q0, r0, c = sympy.symbols("q0 r0 c", positive=True)
    q, r = (q0, 1 - q0), (r0, 1 - r0)

    def logs(expression):
        return sympy.log(sympy.factor(expression))

    evidence = logs(p[0] + p[1])
    posterior = [each / (p[0] + p[1]) for each in p]

    def elbo(row):
        return sum(q * (logs(p) - logs(q)) for q, p in zip(row, p, strict=True))

    def divergence(a, b):
        return sum(x * (logs(x) - sympy.expand_log(logs(y), force=True)) for x, y in zip(a, b, strict=True))

    def sandwich():
        if name == "elbo-below-evidence":
            return evidence - elbo(q), divergence(q, posterior)
        if name == "eubo-above-evidence":
            eubo = sum(w * (logs(p) - logs(q)) for w, p, q in zip(posterior, p, q, strict=True))
            return eubo - evidence, sum(
                w * (sympy.expand_log(logs(w), force=True) - logs(q)) for w, q in zip(posterior, q, strict=True)
            )
        coupled = c * elbo(q) + (1 - c) * elbo(r)
        return evidence - coupled, c * divergence(q, posterior) + (1 - c) * divergence(r, posterior)

    difference, gap = sandwich()
    assert sympy.simplify(sympy.expand(difference - gap)) == 0
    assert prove_gap(find(name)).proved


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(-3, 5)), min_size=1, max_size=5))
def test_positive_on_simplices_is_sound(monomials) -> None:
    """A polynomial that is called positive has no value <= 0 on a grid of the open simplex times a half line."""
    forms = LogForms(["a", "b", "f"], [Fraction(1, 3), Fraction(1, 3), Fraction(1)])
    a, b, f = forms.ring.gens()
    polynomial = sum((c * a**i * b**j * f for i, j, c in monomials), forms.ring.constant(0))
    polynomial = polynomial + (1 - a - b) ** 2
    if positive_on_simplices(polynomial, [[0, 1]]):
        for i in range(1, 6):
            for j in range(1, 6 - i):
                for scale in (Fraction(1, 9), Fraction(2)):
                    assert evaluated(polynomial, [Fraction(i, 6), Fraction(j, 6), scale], Fraction(0)) > 0


def test_positivity_is_seen_for_a_mixture_and_not_for_a_difference() -> None:
    forms = LogForms(["c", "q", "r"], [Fraction(1, 2)] * 3)
    c, q, r = forms.ring.gens()
    rows = [[0], [1], [2]]
    assert positive_on_simplices(c * q + (1 - c) * r, rows)
    assert positive_on_simplices(c * (1 - q) + (1 - c) * (1 - r), rows)
    assert not positive_on_simplices(q - r, rows)
    assert not positive_on_simplices(forms.ring.constant(0), rows)


def test_an_identity_of_a_constant() -> None:
    assert prove_identity(lambda m, x: E(m.encoder(x), lambda z: ONE), ONE).proved
