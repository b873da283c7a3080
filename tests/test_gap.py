"""The proofs by form must be right: whatever they call proved is looked for on many models, zeros included.

A wrong proof would be a wrong verdict for every model at once, so most of this file tries to extract one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from random import Random
from typing import Any

import naive
import numpy as np
import oracle
import pytest
from expected import OBJECTIVES
from helpers import F, exact, finite, floating
from mutations import mutated
from numpy.typing import NDArray

from boundcheck.catalogue import claims, objectives
from boundcheck.claims import gap_climb
from boundcheck.claims.claim import Claim
from boundcheck.claims.family import finite_models
from boundcheck.claims.gap import always_at_most, is_normalised, nonnegative_by_form
from boundcheck.claims.gap_climb import _above, _Goal
from boundcheck.claims.survey import proved_by_form
from boundcheck.errors import BadInput, CannotCompute, UndefinedValue
from boundcheck.language import (
    OBSERVED,
    E,
    Term,
    density,
    exp,
    exp_series,
    integrate,
    kl,
    log,
    maximum,
    maximum_over,
    mean,
    minimum,
    minimum_over,
    mixture,
    normalised,
    to_json,
    total,
    trace,
)
from boundcheck.language.terms import Plate, Reduce
from boundcheck.models.finite import FiniteModel

SLACK = 1e-9


def models(count: int, seed: int) -> list[FiniteModel]:
    """Small models with coarse and fine tables; every third has zeros, in any table."""
    rng = Random(seed)
    return [
        finite(oracle.random_model(rng, 2, rng.choice((2, 2, 3)), 2, rng.choice((4, 12, 1000)), zeros=number % 3 == 2))
        for number in range(count)
    ]


MODELS = models(40, seed=0)
COVERING = [model for model in MODELS if all(q > 0 for q in model.table("encoder")[0]) and any(model.table("joint")[0])]


def values(term: Term, on: list[FiniteModel], interpret: bool = False) -> NDArray[np.float64]:
    """Float values; nan where there is none, or none that floats can tell.

    What the evaluator refuses may be left to the slow interpreter, which enumerates tuples.
    """
    found = np.full(len(on), np.nan)
    for number, model in enumerate(on):
        try:
            value = floating.evaluate(term, model)
        except CannotCompute:
            if interpret:
                found[number] = float(naive.evaluate(term, model))
        except (UndefinedValue, BadInput):
            continue
        else:
            found[number] = float(value) if value.error < SLACK / 10 else np.nan
    return found


def broken(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> bool:
    with np.errstate(invalid="ignore"):
        return bool(np.any(lower > upper + SLACK))


# --- Written to break it ---------------------------------------------------------------------------------------------


def w(m: Any, x: Any, z: Any) -> Term:
    return exp(objectives.log_weight(m, x, z))


def twice(m: Any, x: Any) -> Any:
    """A "density" of total mass two."""
    return density(m.latent, lambda z: log(2 * m.encoder(x).prob(z)))


def circle(m: Any, x: Any) -> Term:
    """v is drawn from c(.|x), u from c(.|v), and the "auxiliary law" of v is c(v|u): sum_u c(u|v) c(v|u) is not 1."""

    def body(z: Any, v: Any, u: Any) -> Term:
        top = m.log_joint(x, z) + m.corruption(u).log_prob(v)
        return exp(top - m.encoder(x).log_prob(z) - m.corruption(x).log_prob(v))

    return log(E(m.encoder(x), lambda z: E(m.corruption(x), lambda v: E(m.corruption(v), lambda u: body(z, v, u)))))


def entangled(m: Any, x: Any, k: int) -> Term:
    """Copies of z whose law looks at all copies of x~: they are not independent draws of one law."""

    def law(xt: Any) -> Any:
        return normalised(m.latent, lambda z: m.encoder(xt).log_prob(z) + 3 * log(mean(m.encoder(xt).prob(z))))

    return E(m.corruption(x).copies(k), lambda xt: E(law(xt), lambda z: log(mean(m.likelihood(z).prob(x)))))


Formula = Callable[[Any, Any], Term]
FALSE: dict[str, tuple[Formula, Formula]] = {
    "Jensen over a mass of two": (
        lambda m, x: E(twice(m, x), lambda z: -m.encoder(x).log_prob(z)),
        lambda m, x: log(E(twice(m, x), lambda z: exp(-m.encoder(x).log_prob(z)))),
    ),
    "an integral is no average": (
        lambda m, x: integrate(m.latent, lambda z: -m.encoder(x).log_prob(z)),
        lambda m, x: log(integrate(m.latent, lambda z: exp(-m.encoder(x).log_prob(z)))),
    ),
    "a sum is no average": (
        lambda m, x: E(m.encoder(x).copies(2), lambda z: total(-m.encoder(x).log_prob(z))),
        lambda m, x: log(E(m.encoder(x).copies(2), lambda z: total(exp(-m.encoder(x).log_prob(z))))),
    ),
    "Jensen upside down": (objectives.log_evidence, objectives.elbo),
    "IWAE grows": (lambda m, x: objectives.iwae(m, x, 3), lambda m, x: objectives.iwae(m, x, 2)),
    "IWAE is above the ELBO": (lambda m, x: objectives.iwae(m, x, 2), objectives.elbo),
    "minus the ELBO": (lambda m, x: -objectives.elbo(m, x), lambda m, x: -objectives.iwae(m, x, 2)),
    "Renyi falls in alpha": (
        lambda m, x: objectives.renyi(m, x, "1/2"),
        lambda m, x: objectives.renyi(m, x, 2),
    ),
    "a finite chi estimate": (
        objectives.log_evidence,
        lambda m, x: objectives.cubo_finite(m, x, 2, 2),
    ),
    "a finite Renyi estimate from below": (
        lambda m, x: objectives.renyi_finite(m, x, -1, 3),
        objectives.log_evidence,
    ),
    "a power mean of negative order": (
        objectives.elbo,
        lambda m, x: -log(E(m.encoder(x), lambda z: exp(-objectives.log_weight(m, x, z)))),
    ),
    "a power without its order": (
        lambda m, x: log(E(m.encoder(x), lambda z: w(m, x, z) ** 2)) / 2,
        lambda m, x: log(E(m.encoder(x), lambda z: w(m, x, z) ** "1/2")),
    ),
    "even series": (
        lambda m, x: log(E(m.encoder(x), lambda z: exp_series(objectives.log_weight(m, x, z), 2))),
        objectives.log_evidence,
    ),
    "series of another base": (
        lambda m, x: E(m.encoder(x), lambda z: 1 - 2 * m.encoder(x).log_prob(z)),
        lambda m, x: E(m.encoder(x), lambda z: exp(-m.encoder(x).log_prob(z))),
    ),
    "the larger of two": (lambda m, x: maximum(objectives.elbo(m, x), -1), objectives.elbo),
    "the smaller of two": (objectives.elbo, lambda m, x: minimum(objectives.elbo(m, x), -1)),
    "the largest copy": (
        lambda m, x: E(m.encoder(x).copies(2), lambda z: maximum_over(objectives.log_weight(m, x, z))),
        lambda m, x: objectives.iwae(m, x, 2),
    ),
    "the smallest copy": (
        lambda m, x: objectives.iwae(m, x, 2),
        lambda m, x: E(m.encoder(x).copies(2), lambda z: minimum_over(objectives.log_weight(m, x, z))),
    ),
    "a sum is above the largest": (
        lambda m, x: E(m.encoder(x).copies(2), lambda z: log(total(w(m, x, z)))),
        lambda m, x: E(m.encoder(x).copies(2), lambda z: maximum_over(objectives.log_weight(m, x, z))),
    ),
    "support without cover": (objectives.log_evidence, lambda m, x: log(E(m.encoder(x), lambda z: w(m, x, z)))),
    "chi without cover": (objectives.log_evidence, lambda m, x: objectives.cubo(m, x, 2)),
    "support of another law": (
        lambda m, x: log(E(m.prior(), lambda z: exp(m.log_joint(x, z) - m.encoder(x).log_prob(z)))),
        objectives.log_evidence,
    ),
    "support of twice the law": (
        lambda m, x: log(E(m.encoder(x), lambda z: exp(m.log_joint(x, z) - m.encoder(x).log_prob(z) + 1))),
        objectives.log_evidence,
    ),
    "support of a mass of two": (
        lambda m, x: log(E(twice(m, x), lambda v: E(m.encoder(x), lambda z: w(m, x, z)))),
        objectives.log_evidence,
    ),
    "support with an unnormalised score": (
        lambda m, x: log(
            E(
                m.corruption(x),
                lambda v: E(
                    m.encoder(v),
                    lambda z: exp(
                        m.log_joint(x, z)
                        + density(m.corrupted, lambda u: log(2 * m.auxiliary(z, x).prob(u))).log_prob(v)
                        - m.encoder(v).log_prob(z)
                        - m.corruption(x).log_prob(v)
                    ),
                ),
            )
        ),
        objectives.log_evidence,
    ),
    "support with a score in a circle": (circle, objectives.log_evidence),
    "support with a score twice": (
        lambda m, x: log(
            E(
                m.corruption(x),
                lambda v: E(m.encoder(v), lambda z: exp(m.log_joint(x, z) - m.corruption(x).log_prob(v))),
            )
        ),
        objectives.log_evidence,
    ),
    "decoupled": (objectives.denoising_decoupled, objectives.log_evidence),
    "decoupled copies": (lambda m, x: objectives.diwae_decoupled(m, x, 2), objectives.log_evidence),
    "fresh copies against common ones": (
        lambda m, x: objectives.diwae_fresh(m, x, 2),
        lambda m, x: objectives.diwae_coupled(m, x, 2),
    ),
    "SIVI without x~_0": (lambda m, x: objectives.sivi_without(m, x, 2), objectives.log_evidence),
    "jackknife": (lambda m, x: objectives.jvi(m, x, 2), objectives.log_evidence),
    "VR-max": (lambda m, x: objectives.vr_max(m, x, 2), objectives.log_evidence),
    "copies that look at each other": (lambda m, x: entangled(m, x, 1), lambda m, x: entangled(m, x, 2)),
    "copies that look at each other, negated": (
        lambda m, x: -entangled(m, x, 2),
        lambda m, x: -entangled(m, x, 1),
    ),
    "copies divided by their sum": (
        lambda m, x: E(m.encoder(x).copies(2), lambda z: log(mean(w(m, x, z) ** 2 / total(w(m, x, z))))),
        lambda m, x: E(m.encoder(x).copies(3), lambda z: log(mean(w(m, x, z) ** 2 / total(w(m, x, z))))),
    ),
    "a product of means": (
        lambda m, x: E(m.encoder(x).copies(2), lambda z: log(mean(w(m, x, z)) * mean(1 / w(m, x, z)))),
        lambda m, x: log(E(m.encoder(x), lambda z: w(m, x, z) * w(m, x, z) ** -1)),
    ),
    "a mixture's density from below": (
        lambda m, x: E(m.prior(), lambda z: m.marginal_encoder(x).log_prob(z)),
        lambda m, x: E(m.prior(), lambda z: E(m.corruption(x), lambda v: m.encoder(v).log_prob(z))),
    ),
    "a mean of a sum against each": (
        lambda m, x: objectives.elbo(m, x) + objectives.log_evidence(m, x),
        lambda m, x: 2 * objectives.elbo(m, x),
    ),
    "free bits upside down": (objectives.elbo, lambda m, x: objectives.free_bits(m, x, "1/4")),
    "beta below one": (lambda m, x: objectives.beta_objective(m, x, "1/2"), objectives.log_evidence),
    "an upper bound scaled below one": (
        lambda m, x: objectives.elbo(m, x) / 2,
        lambda m, x: objectives.log_evidence(m, x),
    ),
    "a scale of the wrong sign": (
        lambda m, x: -2 * log(E(m.encoder(x), lambda z: w(m, x, z) ** "1/2")),
        lambda m, x: -log(E(m.encoder(x), lambda z: w(m, x, z))),
    ),
}


@pytest.mark.parametrize("name", FALSE)
def test_a_false_inequality_is_not_proved(name: str) -> None:
    lower, upper = (trace(side) for side in FALSE[name])
    positive = [model for model in MODELS if all(map(all, model.table("encoder")))]
    entangled_copies = "look at each other" in name
    on = positive[:8] if entangled_copies else MODELS
    assert broken(values(lower, on, entangled_copies), values(upper, on, entangled_copies)), "no counterexample"
    assert not always_at_most(lower, upper)
    assert not nonnegative_by_form(upper - lower)
    claim = Claim("false", lower, "<=", upper)
    assert proved_by_form(claim) == ""


FALSE_WHERE_COVERED: dict[str, tuple[Formula, Formula]] = {
    name: pair for name, pair in FALSE.items() if "without cover" not in name
} | {
    "the prior is not what is covered": (
        lambda m, x: log(integrate(m.latent, lambda z: m.prior().prob(z) ** 2)),
        lambda m, x: log(E(m.encoder(x), lambda z: m.prior().prob(z) ** 2 / m.encoder(x).prob(z))) * 2,
    ),
    "the encoder of x~ need not cover": (
        objectives.log_evidence,
        lambda m, x: log(
            E(
                m.corruption(x),
                lambda xt: E(m.encoder(xt), lambda z: exp(m.log_joint(x, z) - m.encoder(xt).log_prob(z))),
            )
        ),
    ),
    "the joint at x~ need not be covered": (
        lambda m, x: E(m.corruption(x), lambda xt: log(integrate(m.latent, lambda z: exp(m.log_joint(xt, z))))),
        lambda m, x: E(
            m.corruption(x),
            lambda xt: log(E(m.encoder(x), lambda z: exp(m.log_joint(xt, z) - m.encoder(x).log_prob(z)))) * 1,
        ),
    ),
    "half of it is not above": (objectives.log_evidence, lambda m, x: objectives.cubo(m, x, 2) * 2),
}


def covers(model: FiniteModel) -> bool:
    joint, row = model.table("joint")[0], model.table("encoder")[0]
    return any(joint) and all(q or not p for p, q in zip(joint, row, strict=True))


def test_a_false_inequality_is_not_proved_for_covering_encoders() -> None:
    holes = [model for model in models(200, seed=3)[2::3] if covers(model)]  # zeros elsewhere
    covering = COVERING + holes
    tested = 0
    for name, pair in FALSE_WHERE_COVERED.items():
        lower, upper = (trace(side) for side in pair)
        proved = always_at_most(lower, upper, covering=True)
        if broken(values(lower, covering), values(upper, covering)):
            assert not proved, name
            tested += 1
        elif "covered" in name or "cover" in name:
            assert not proved, name
    assert tested >= len(FALSE) - 4


NEEDS_A_SIGN: dict[str, Formula] = {
    "minus a divergence": lambda m, x: -kl(m.encoder(x), m.prior()),
    "a difference of divergences": lambda m, x: kl(m.encoder(x), m.prior()) - kl(m.encoder(x), m.posterior(x)),
    "a divergence from a mass of two": lambda m, x: E(
        m.encoder(x), lambda z: m.encoder(x).log_prob(z) - twice(m, x).log_prob(z)
    ),
    "a divergence of a mass of a half": lambda m, x: kl(
        density(m.latent, lambda z: log(m.encoder(x).prob(z) / 2)), m.prior()
    ),
    "a divergence from the joint scaled": lambda m, x: (
        E(m.posterior(x), lambda z: m.posterior(x).log_prob(z) - 2 * m.prior().log_prob(z) + m.posterior(x).log_prob(z))
        - 1
    ),
    "a divergence drawn elsewhere": lambda m, x: E(
        m.prior(), lambda z: m.encoder(x).log_prob(z) - m.posterior(x).log_prob(z)
    ),
    "a divergence from a law that knows the draw": lambda m, x: E(
        m.encoder(x),
        lambda z: (
            m.encoder(x).log_prob(z)
            - normalised(m.latent, lambda v: m.encoder(x).log_prob(v) * m.encoder(x).prob(z)).log_prob(z)
            - 1
        ),
    ),
    "a divergence of a chain that bites its tail": lambda m, x: E(
        m.corruption(x),
        lambda u: E(
            m.corruption(u),
            lambda v: (
                m.corruption(x).log_prob(u)
                + m.corruption(u).log_prob(v)
                - m.corruption(v).log_prob(u)
                - m.corruption(u).log_prob(v)
            ),
        ),
    ),
    "a scaled sum": lambda m, x: 2 * kl(m.encoder(x), m.prior()) - kl(m.encoder(x), m.posterior(x)) - 1,
    "a product with a negative": lambda m, x: kl(m.encoder(x), m.prior()) * objectives.elbo(m, x),
    "an odd power": lambda m, x: objectives.elbo(m, x) ** 3,
    "the smaller of a divergence and a bound": lambda m, x: minimum(kl(m.encoder(x), m.prior()), objectives.elbo(m, x)),
    "an expectation of log-weights": objectives.elbo,
    "a pair used for two": lambda m, x: (
        log(E(m.encoder(x), lambda z: 1 / m.encoder(x).prob(z)))
        + 2 * E(m.encoder(x), lambda z: m.encoder(x).log_prob(z))
    ),
    "a pair used for two, written out": lambda m, x: (
        log(E(m.encoder(x), lambda z: 1 / m.encoder(x).prob(z)))
        + E(m.encoder(x), lambda z: m.encoder(x).log_prob(z))
        + E(m.encoder(x), lambda z: m.encoder(x).log_prob(z))
    ),
}


@pytest.mark.parametrize("name", NEEDS_A_SIGN)
def test_a_term_that_can_be_negative_is_not_called_nonnegative(name: str) -> None:
    term = trace(NEEDS_A_SIGN[name])
    assert broken(np.zeros(len(MODELS)), values(term, MODELS)), "the example is never negative: nothing is tested"
    assert not nonnegative_by_form(term)


TRUE: dict[str, tuple[Formula, Formula]] = {
    "Jensen": (objectives.elbo, objectives.log_evidence),
    "copies": (lambda m, x: objectives.iwae(m, x, 2), lambda m, x: objectives.iwae(m, x, 5)),
    "copies of pairs": (lambda m, x: objectives.diwae_fresh(m, x, 2), objectives.log_evidence),
    "Lyapunov": (lambda m, x: objectives.renyi(m, x, "3/4"), lambda m, x: objectives.renyi(m, x, "-2")),
    "series": (lambda m, x: objectives.perturbative(m, x, 5), objectives.log_evidence),
    "choice": (objectives.elbo, lambda m, x: maximum(objectives.elbo(m, x), 3)),
    "support": (
        lambda m, x: log(
            E(
                m.corruption(x),
                lambda v: E(m.encoder(v), lambda z: exp(m.log_joint(x, z) - m.encoder(v).log_prob(z))),
            )
        ),
        objectives.log_evidence,
    ),
    "auxiliary": (objectives.hvm, objectives.log_evidence),
    "sums": (
        lambda m, x: objectives.elbo(m, x) / 2 + objectives.iwae(m, x, 2) / 2,
        lambda m, x: log(E(m.encoder(x), lambda z: w(m, x, z))) / 2 + objectives.iwae(m, x, 3) / 2,
    ),
    "inside an average": (
        lambda m, x: E(m.corruption(x), lambda v: E(m.encoder(v), lambda z: m.log_joint(x, z))),
        lambda m, x: E(m.corruption(x), lambda v: log(E(m.encoder(v), lambda z: exp(m.log_joint(x, z))))),
    ),
    "a mixture's density": (
        lambda m, x: E(m.prior(), lambda z: E(m.corruption(x), lambda v: m.encoder(v).log_prob(z))),
        lambda m, x: E(m.prior(), lambda z: log(E(m.corruption(x), lambda v: m.encoder(v).prob(z)))),
    ),
}


@pytest.mark.parametrize("name", TRUE)
def test_the_rules_prove_what_they_are_for(name: str) -> None:
    lower, upper = (trace(side) for side in TRUE[name])
    assert always_at_most(lower, upper)
    assert not always_at_most(upper, lower)
    assert not broken(values(lower, MODELS), values(upper, MODELS))


def test_normalised_laws() -> None:
    def law(make: Callable[[Any, Any], Any]) -> Any:
        return trace(lambda m, x: E(make(m, x), lambda v: 0)).law  # type: ignore[attr-defined]

    assert is_normalised(law(lambda m, x: m.encoder(x)))
    assert is_normalised(law(lambda m, x: mixture(m.prior(), m.likelihood)))
    assert is_normalised(law(lambda m, x: normalised(m.latent, lambda z: 3 * m.log_joint(x, z))))
    assert not is_normalised(law(twice))
    assert not is_normalised(law(lambda m, x: mixture(twice(m, x), m.likelihood)))
    assert not is_normalised(law(lambda m, x: mixture(m.prior(), lambda z: twice(m, x))))
    assert not is_normalised(trace(lambda m, x: E(m.prior(), lambda z: m.log_joint(x, z))).body.law)  # type: ignore[attr-defined]


# --- The catalogue ---------------------------------------------------------------------------------------------------

FINITE = [claim for claim in claims().values() if claim.family == "finite"]


@pytest.mark.parametrize("claim", FINITE, ids=lambda claim: claim.name)
def test_a_proved_claim_holds_and_its_strict_reverse_is_not_proved(claim: Claim) -> None:
    lhs, rhs = claim.terms
    on = [m for m in MODELS + list(finite_models(20, 5)) if any(m.table("joint")[0]) and claim.applies(m, 0)]
    lower, upper = values(lhs, on), values(rhs, on)
    if proved_by_form(claim):
        assert not broken(lower, upper)
    if broken(lower, upper):
        assert not always_at_most(lhs, rhs, claim.covering)
    if broken(upper, lower):
        assert not always_at_most(rhs, lhs, claim.covering)
        assert not nonnegative_by_form(lhs - rhs)
    if claim.gap is not None and nonnegative_by_form(trace(claim.gap)):
        assert not broken(np.zeros(len(on)), values(trace(claim.gap), on))


# --- Random formulas, each nearly another one -------------------------------------------------------------------------


def traced(pair: tuple[Formula, Formula]) -> tuple[Term, Term]:
    return trace(pair[0]), trace(pair[1])


@cache
def true_pairs() -> Sequence[tuple[Term, Term]]:
    """What the rules prove: the proved claims, the examples above, and single steps up from the objectives."""
    pairs = [claim.terms for claim in FINITE if claim.relation == "<=" and proved_by_form(claim) and not claim.covering]
    pairs += map(traced, TRUE.values())
    pairs += [(-upper, -lower) for lower, upper in pairs[-len(TRUE) :]]
    goal = _Goal(trace(objectives.diwae_fresh, k=2) + trace(objectives.cubo, n=2))
    for case in OBJECTIVES:
        if not any(part in case.name for part in ("ais", "k=3", "s=3")):
            pairs += [(case.term, above) for above in list(_above(case.term, goal))[:2]]
    return pairs


def hunt(seed: int, count: int, on: list[FiniteModel], pairs: Sequence[tuple[Term, Term]]) -> tuple[int, int]:
    """Changes one side or both of a true pair a little, and looks for a proof that some model breaks.

    Returns the number of broken pairs, and of proved ones.
    """
    rng, pairs = Random(seed), list(pairs)
    known: dict[Term, NDArray[np.float64]] = {}
    false = proved = 0
    for lower, upper in rng.sample(pairs, min(24, len(pairs))):
        if broken(values(upper, on), values(lower, on)):
            assert not always_at_most(upper, lower), f"{upper.text} <= {lower.text}"
            false += 1
    while count:
        lower, upper = rng.choice(pairs)
        below = mutated(rng, lower) if rng.random() < 0.6 else lower
        above = mutated(rng, upper) if rng.random() < 0.4 else upper
        if below is None or above is None or max(len(json.dumps(to_json(t))) for t in (below, above)) > 6000:
            continue
        count -= 1
        steps = list(_above(below, _Goal(above)))[:2]
        for term in (below, above, *steps):
            if term not in known:
                known[term] = values(term, on)
            if nonnegative_by_form(term):
                assert not broken(np.zeros(len(on)), known[term]), term.text
        for a, b in [(below, above), (above, below), *((below, step) for step in steps), *((s, below) for s in steps)]:
            if broken(known[a], known[b]):
                assert not always_at_most(a, b), f"{a.text} <= {b.text}"
                false += 1
            elif rng.random() < 0.3:
                proved += always_at_most(a, b)
        if rng.random() < 0.2:
            pairs.append((below, above))
    return false, proved


def test_no_false_neighbour_of_a_true_inequality_is_proved() -> None:
    false, proved = hunt(seed=1, count=120, on=models(18, seed=9), pairs=true_pairs())
    assert false > 150
    assert proved > 30


@pytest.mark.slow
def test_no_false_neighbour_of_a_true_inequality_is_proved_at_length() -> None:
    for seed in range(2, 8):
        false, proved = hunt(seed, count=400, on=models(30, seed), pairs=true_pairs())
        assert false > 500
        assert proved > 100


def test_every_single_step_goes_up() -> None:
    """Each rule by itself: what `_above` yields is closed and nowhere smaller."""
    rng, on, steps = Random(4), models(16, seed=8), 0
    pairs = true_pairs()
    for _ in range(70):
        lower, upper = rng.choice(pairs)
        term = mutated(rng, lower)
        if term is None:
            continue
        here = values(term, on)
        for above in list(_above(term, _Goal(upper)))[:5]:
            assert not above.free - {OBSERVED}
            assert not above.free_plates
            assert not broken(here, values(above, on)), f"{term.text} -> {above.text}"
            steps += 1
    assert steps > 80


def _reversed_jensen(term: Term, goal: Any) -> Iterator[Term]:
    for order, make in gap_climb._power_means(term):
        if order == 1:
            yield make(F(0))


def _fewer_copies(term: Term, goal: Any) -> Iterator[Term]:
    read = gap_climb._copied_log_mean(term)
    if read is not None and any(k < read[1].plate.size for k in goal.copies):
        plate = Plate(min(goal.copies))
        yield gap_climb._redrawn(read[0], (plate,), read[1].body, lambda inner: log(Reduce("mean", plate, inner)))


def _any_multiple(term: Term, goal: Any) -> Iterator[Term]:
    scale, core = gap_climb._scaled(term)
    if scale < 0:
        yield from (scale * above for above in gap_climb._above(core, goal))


@pytest.mark.parametrize("wrong", [_reversed_jensen, _fewer_copies, _any_multiple])
def test_a_wrong_rule_would_be_found(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hunt itself is tested: with one wrong rule among the right ones it finds a false proof."""
    rules = gap_climb._above

    def with_a_wrong_rule(term: Term, goal: Any) -> Iterator[Term]:
        yield from rules(term, goal)
        yield from wrong(term, goal)

    monkeypatch.setattr(gap_climb, "_above", with_a_wrong_rule)
    pairs = [*map(traced, TRUE.values())]
    pairs += [(-upper, -lower) for lower, upper in pairs]
    with pytest.raises(AssertionError, match="<="):
        hunt(seed=1, count=100, on=models(12, seed=9), pairs=pairs)


def test_exact_values_agree_with_the_proof_where_floats_tie() -> None:
    """Ties of proved claims are exact ties, not violations by a rounding: the encoder is the posterior."""
    tables: dict[str, Any] = {"prior": ["1/3", "2/3"], "likelihood": [["1/5", "4/5"], ["1/7", "6/7"]]}
    model = FiniteModel(**tables, encoder=[["7/17", "10/17"]] * 2)
    for k in (1, 2, 3):
        value = exact.evaluate(objectives.iwae, model, k=k).value
        assert value == exact.evaluate(objectives.log_evidence, model).value
