"""Formulas as text and LaTeX: golden examples read by eye, and what every printed formula must fulfil."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from expected import OBJECTIVES
from formulas import random_formula
from helpers import finite, floating, value_or_none
from oracle import random_model

from boundcheck.catalogue import claims, objectives
from boundcheck.errors import CannotCompute
from boundcheck.language import (
    OBSERVED,
    E,
    Space,
    SymbolicModel,
    Term,
    density,
    exp,
    integrate,
    log,
    maximum,
    mean,
    mixture,
    normalised,
    total,
    trace,
)
from boundcheck.language.terms import Const, Fraction, Var

GOLDEN = [
    (
        trace(objectives.log_evidence),
        "log sum_z p(x,z)",
        r"\log \sum_{z} p(x,z)",
    ),
    (
        trace(objectives.elbo),
        "E_{z ~ q(.|x)}[log p(x,z) - log q(z|x)]",
        r"\mathbb{E}_{z \sim q(\cdot \mid x)}\left[\log p(x,z) - \log q(z \mid x)\right]",
    ),
    (
        trace(objectives.marginal_elbo),
        "E_{z ~ q~(.|x)}[log p(x,z) - log q~(z|x)]",
        r"\mathbb{E}_{z \sim \tilde{q}(\cdot \mid x)}\left[\log p(x,z) - \log \tilde{q}(z \mid x)\right]",
    ),
    (
        trace(objectives.denoising_coupled),
        "E_{xt ~ c(.|x)}[E_{z ~ q(.|xt)}[log p(x,z) - log q(z|xt)]]",
        r"\mathbb{E}_{\tilde{x} \sim c(\cdot \mid x)}\left[\mathbb{E}_{z \sim q(\cdot \mid \tilde{x})}\left["
        r"\log p(x,z) - \log q(z \mid \tilde{x})\right]\right]",
    ),
    (
        trace(objectives.denoising_decoupled),
        "E_{xt ~ c(.|x)}[E_{xs ~ c(.|x)}[E_{z ~ q(.|xs)}[log p(x,z) - log q(z|xt)]]]",
        r"\mathbb{E}_{\tilde{x} \sim c(\cdot \mid x)}\left[\mathbb{E}_{\tilde{x}' \sim c(\cdot \mid x)}\left["
        r"\mathbb{E}_{z \sim q(\cdot \mid \tilde{x}')}\left[\log p(x,z) - \log q(z \mid \tilde{x})"
        r"\right]\right]\right]",
    ),
    (
        trace(objectives.iwae, k=3),
        "E_{z_1..3 ~ q(.|x)}[log mean_k p(x,z_k)/q(z_k|x)]",
        r"\mathbb{E}_{z_{1:3} \sim q(\cdot \mid x)}\left[\log \operatorname*{mean}_{k} "
        r"\frac{p(x,z_{k})}{q(z_{k} \mid x)}\right]",
    ),
    (
        trace(objectives.jvi, k=2),
        "2 E_{z_1..2 ~ q(.|x)}[log mean_k p(x,z_k)/q(z_k|x)] - E_{z_1..1 ~ q(.|x)}[log mean_k p(x,z_k)/q(z_k|x)]",
        None,
    ),
    (
        trace(objectives.diwae_fresh, k=2),
        "E_{xt_1..2 ~ c(.|x)}[E_{z_k ~ q(.|xt_k)}[log mean_k p(x,z_k)/q(z_k|xt_k)]]",
        None,
    ),
    (
        trace(objectives.renyi, alpha="1/2"),
        "2 log E_{z ~ q(.|x)}[p(x,z)^(1/2)/q(z|x)^(1/2)]",
        r"2 \log \mathbb{E}_{z \sim q(\cdot \mid x)}\left[\frac{p(x,z)^{1/2}}{q(z \mid x)^{1/2}}\right]",
    ),
    (
        trace(objectives.cubo, n=2),
        "(1/2) log E_{z ~ q(.|x)}[p(x,z)^2/q(z|x)^2]",
        r"\tfrac{1}{2} \log \mathbb{E}_{z \sim q(\cdot \mid x)}\left[\frac{p(x,z)^{2}}{q(z \mid x)^{2}}\right]",
    ),
    (trace(objectives.eubo), "E_{z ~ p(.|x)}[log p(x,z) - log q(z|x)]", None),
    (
        trace(objectives.hvm),
        "E_{xt ~ c(.|x)}[E_{z ~ q(.|xt)}[log p(x,z) + log r(xt|z,x) - log c(xt|x) - log q(z|xt)]]",
        None,
    ),
    (
        trace(objectives.hvm_optimal),
        "E_{xt ~ c(.|x)}[E_{z ~ q(.|xt)}[log p(x,z) + log normalised(xt': log c(xt'|x) + log q(z|xt'))(xt) "
        "- log c(xt|x) - log q(z|xt)]]",
        None,
    ),
    (
        trace(objectives.sivi, k=2),
        "E_{x0 ~ c(.|x)}[E_{z ~ q(.|x0)}[E_{xt_1..2 ~ c(.|x)}[log p(x,z) - log (1/3) [q(z|x0) + sum_k q(z|xt_k)]]]]",
        None,
    ),
    (
        trace(objectives.tvo_left, s=2),
        "(1/2) E_{z ~ q(.|x)}[log p(x,z) - log q(z|x)] + (1/2) E_{z ~ normalised(z: (1/2) log q(z|x) "
        "+ (1/2) log p(x,z))}[log p(x,z) - log q(z|x)]",
        None,
    ),
    (
        trace(objectives.perturbative, order=2, v0="1/2"),
        "log E_{z ~ q(.|x)}[log p(x,z) - log q(z|x) + (1/2) [log p(x,z) - log q(z|x) + (1/2)]^2 + (3/2)] - (1/2)",
        None,
    ),
    (
        trace(objectives.free_bits, floor="1/4"),
        "E_{z ~ q(.|x)}[log p(x|z)] - max((1/4), E_{z ~ q(.|x)}[log q(z|x) - log p(z)])",
        None,
    ),
    (
        trace(objectives.vr_max, k=2),
        "E_{z_1..2 ~ q(.|x)}[max_k [log p(x,z_k) - log q(z_k|x)]]",
        r"\mathbb{E}_{z_{1:2} \sim q(\cdot \mid x)}\left[\max_{k} "
        r"\left[\log p(x,z_{k}) - \log q(z_{k} \mid x)\right]\right]",
    ),
    # Names that would clash get a prime, an index that would clash another letter.
    (
        trace(lambda m, x: E(m.prior(), lambda z: E(m.prior(), lambda z: m.likelihood(z).log_prob(x)))),
        "E_{z ~ p(.)}[E_{z' ~ p(.)}[log p(x|z')]]",
        None,
    ),
    (
        trace(lambda m, x: E(m.prior(), lambda z: E(m.likelihood(z), lambda y: m.likelihood(z).log_prob(y)))),
        "E_{z ~ p(.)}[E_{y ~ p(.|z)}[log p(y|z)]]",
        None,
    ),
    (
        trace(
            lambda m, y: E(
                m.prior(), lambda z: E(m.likelihood(z), lambda x: m.encoder(x).log_prob(z) - m.encoder(y).log_prob(z))
            )
        ),
        "E_{z ~ p(.)}[E_{x' ~ p(.|z)}[log q(z|x') - log q(z|x)]]",
        None,
    ),
    (
        trace(lambda m, x: E(m.prior().copies(2), lambda z: mean(total(m.prior().prob(z)) - m.prior().prob(z)))),
        "E_{z_1..2 ~ p(.)}[mean_k [sum_l p(z_l) - p(z_k)]]",
        None,
    ),
    (
        trace(
            lambda m, x: E(
                m.prior().copies(2),
                lambda z: E(m.prior().copies(3), lambda v: mean(mean(m.prior().prob(v) * m.prior().prob(z), v), z)),
            )
        ),
        "E_{z_1..2 ~ p(.)}[E_{v_1..3 ~ p(.)}[mean_k mean_l p(v_l) p(z_k)]]",
        None,
    ),
    # A log binds the product that follows it, so a log that is not the last factor is bracketed.
    (
        trace(lambda m, x: E(m.prior(), lambda z: m.prior().log_prob(z) * m.prior().prob(z))),
        "E_{z ~ p(.)}[[log p(z)] p(z)]",
        None,
    ),
    (
        trace(lambda m, x: E(m.prior(), lambda z: log(3 * m.prior().prob(z) ** 2 + 1))),
        "E_{z ~ p(.)}[log [3 p(z)^2 + 1]]",
        r"\mathbb{E}_{z \sim p(\cdot)}\left[\log \left[3 p(z)^{2} + 1\right]\right]",
    ),
    (
        trace(lambda m, x: E(mixture(m.prior(), m.likelihood), lambda y: -2)),
        "E_{y ~ E_{z ~ p(.)}[p(.|z)]}[-2]",
        None,
    ),
    (
        trace(lambda m, x: E(density(m.latent, lambda v: -m.prior().log_prob(v)), lambda z: maximum(-1, 2)) / 3),
        "(1/3) E_{z ~ density(v: -log p(v))}[max(-1, 2)]",
        r"\tfrac{1}{3} \mathbb{E}_{z \sim \operatorname{density}_{v}\left(-\log p(v)\right)}"
        r"\left[\max\left(-1, 2\right)\right]",
    ),
    (
        trace(lambda m, x: integrate(Space("u", (Fraction(0), Fraction(1))), lambda u: 1) - Fraction(1, 2)),
        "integral_{u in [0, 1]} 1 - (1/2)",
        r"\int_{u \in [0, 1]} 1 - \tfrac{1}{2}",
    ),
    (
        trace(lambda m, x: E(m.prior(), lambda a_state: exp(2 * m.prior().log_prob(a_state)))),
        "E_{a_state ~ p(.)}[p(a_state)^2]",
        r"\mathbb{E}_{\mathrm{a\_state} \sim p(\cdot)}\left[p(\mathrm{a\_state})^{2}\right]",
    ),
]


@pytest.mark.parametrize(("term", "text", "latex"), GOLDEN, ids=lambda value: value if isinstance(value, str) else "")
def test_golden(term: Term, text: str, latex: str | None) -> None:
    assert term.text == str(term) == repr(term) == text
    if latex is not None:
        assert term.latex == latex
        assert term._repr_latex_() == rf"$\displaystyle {latex}$"


def printed() -> Iterator[Term]:
    """Every formula of the catalogue, every objective, and random ones."""
    for claim in claims().values():
        yield from (*claim.terms, *([trace(claim.gap)] if claim.gap is not None else []))
    yield from (case.term for case in OBJECTIVES)
    yield from (random_formula(Random(number), 5) for number in range(300))


def test_brackets_are_balanced() -> None:
    pairs = {")": "(", "]": "[", "}": "{"}
    for term in printed():
        for text in (term.text, term.latex):
            opened: list[str] = []
            for character in text:
                if character in pairs.values():
                    opened.append(character)
                elif character in pairs:
                    assert opened.pop() == pairs[character], text
            assert not opened, text
        assert term.latex.count(r"\left") == term.latex.count(r"\right")
        assert not re.search(r"\\[()\[\]]|  |\n", term.latex), term.latex


def test_no_name_is_bound_again_within_its_scope() -> None:
    """Reading E_{v ~ ...}[...] from the left, a v that is bound inside the brackets of another v would be ambiguous."""
    binder = re.compile(r"E_\{([\w']+) ~ ")
    for term in printed():
        text = term.text
        for match in binder.finditer(text):
            depth, start = 1, match.end()  # the law may hold binders of its own, closed before its brace is
            while depth:
                depth += {"{": 1, "}": -1}.get(text[start], 0)
                start += 1
            name, start = match.group(1), start - 1
            for end in range(start + 1, len(text)):
                depth += {"[": 1, "]": -1}.get(text[end], 0)
                if depth == 0:
                    break
            inside = text[start : end + 1]
            base = re.sub(r"_(1\.\.\d+|[kljmn,']+)$", "", name)
            again = re.findall(rf"E_\{{({re.escape(base)})(?:_1\.\.\d+|_[kljmn,']+)? ~ ", inside)
            assert not again, text


def test_terms_that_print_alike_are_worth_the_same() -> None:
    """Text loses no meaning: among thousands of random terms, those of one text agree on random models."""
    by_text: dict[str, list[Term]] = {}
    for number in range(3000):
        term = random_formula(Random(number), 2)
        same_text = by_text.setdefault(term.text, [])
        if term not in same_text:
            same_text.append(term)
    models = [finite(random_model(Random(seed), 2, 3, 2)) for seed in range(2)]
    several = [terms for terms in by_text.values() if len(terms) > 1]
    for terms in several:
        for model in models:
            values = [None if v is None else pytest.approx(float(v)) for v in map(lambda t: computed(t, model), terms)]
            assert all(value == values[0] for value in values), terms[0].text
    assert len(by_text) > 800


def computed(term: Term, model: Any) -> Any:
    try:
        return value_or_none(floating.evaluate, term, model)
    except CannotCompute:
        return None


def test_a_product_of_a_log_does_not_print_as_the_log_of_a_product() -> None:
    def pair(m: Any, z: Any) -> tuple[Term, Term]:
        a, b = m.prior().prob(z), 1 + m.prior().prob(z)
        return log(b) * a, log(b * a)

    one = trace(lambda m, x: E(m.prior(), lambda z: pair(m, z)[0]))
    other = trace(lambda m, x: E(m.prior(), lambda z: pair(m, z)[1]))
    assert one != other
    assert one.text != other.text
    assert one.latex != other.latex


def test_laws_print() -> None:
    assert str(normalised(Space("z"), lambda v: Const(Fraction(0)))) == "normalised(v in z: 0)"
    m, z = SymbolicModel(), Var("z", Space("z"))
    assert str(m.prior()) == "p(.)"
    assert str(m.posterior(OBSERVED)) == "p(.|x)"
    assert str(m.marginal_encoder(OBSERVED)) == "q~(.|x)"
    assert str(m.auxiliary(z, OBSERVED)) == "r(.|z,x)"
