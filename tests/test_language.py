"""The language: what may be built, which errors name what, equality up to names, positions, and files."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from random import Random
from typing import Any

import numpy as np
import pytest
from expected import OBJECTIVES
from formulas import random_formula

from boundcheck.catalogue import claims, objectives
from boundcheck.errors import BadInput, CannotCompute, FormulaError
from boundcheck.evaluators.plan import plan
from boundcheck.language import (
    OBSERVED,
    E,
    Shape,
    Space,
    SymbolicModel,
    Term,
    bias_shape,
    density,
    exp,
    exp_series,
    from_json,
    integrate,
    kl,
    log,
    log_mean_exp,
    maximum,
    maximum_over,
    mean,
    minimum,
    minimum_over,
    mixture,
    normalised,
    positions,
    same,
    to_json,
    total,
    trace,
)
from boundcheck.language.laws import DensityLaw, expand, is_one_of_its_copies
from boundcheck.language.numerals import as_fraction
from boundcheck.language.serialise import DEEPEST
from boundcheck.language.terms import Const, Expect, LogDensity, Plate, Reduce, Var, add, multiply, power, walk

F = Fraction


def w(m: Any, x: Any, z: Any) -> Term:
    return exp(objectives.log_weight(m, x, z))


# --- Misuse is an error when the formula is built, naming the culprit -----------------------------------------------


def leaked(m: Any, x: Any) -> Term:
    kept: list[Term] = []
    inner = E(m.encoder(x), lambda z: kept.append(z) or m.log_joint(x, z))  # type: ignore[func-returns-value]
    return inner + m.prior().log_prob(kept[0])


def leaked_into_a_law(m: Any, x: Any) -> Term:
    kept: list[Term] = []
    E(m.corruption(x), lambda xt: kept.append(xt) or 1)  # type: ignore[func-returns-value]
    return E(m.encoder(kept[0]), lambda z: m.log_joint(x, z))


MISUSES = {
    "a variable outside its binder": (leaked, "the variable z is used outside the expectation or integral that binds"),
    "and in a law": (leaked_into_a_law, "the variable xt is used outside the expectation or integral that binds it"),
    "a log-density of two points": (
        lambda m, x: E(m.encoder(x), lambda z: m.encoder(x).log_prob(z, x)),
        r"the log-density of q(.|x) takes 1 point(s) (z), got 2",
    ),
    "a log-density of no point": (
        lambda m, x: m.prior().log_prob(),
        "the log-density of p(.) takes 1 point(s) (z), got 0",
    ),
    "a point of another space": (
        lambda m, x: m.prior().log_prob(x),
        "p(.) is over the space z, but x lives in the space x",
    ),
    "a point that is no variable": (lambda m, x: m.prior().log_prob(3), "takes a variable of the formula, got int 3"),
    "an encoder of a latent": (
        lambda m, x: E(m.prior(), lambda z: E(m.encoder(z), lambda v: 1)),
        "the argument of the encoder is over the space x, but z lives in the space z",
    ),
    "an encoder of two": (lambda m, x: E(m.encoder(x, x), lambda z: 1), "the encoder takes 1 argument(s) (x), got 2"),
    "an encoder of a number": (lambda m, x: m.encoder(0), "takes a variable of the formula, got int 0"),
    "a law that no model has": (
        lambda m, x: m.decodr(x),
        "a model has no 'decodr'; it has prior, likelihood, encoder",
    ),
    "copies averaged that were never drawn": (
        lambda m, x: E(m.encoder(x), lambda z: mean(m.log_joint(x, z))),
        "log p(x,z) is averaged over copies that were never drawn; draw them with law.copies(k)",
    ),
    "copies never averaged": (
        lambda m, x: E(m.encoder(x).copies(3), lambda z: m.log_joint(x, z)),
        "the 3 copies of z are never reduced: wrap the body in mean, log_mean_exp",
    ),
    "an average over two sets of copies": (
        lambda m, x: E(m.prior().copies(2), lambda a: E(m.prior().copies(2), lambda b: mean(same(a, b)))),
        "same(a_k, b_k) has several sets of copies (a, b); say which with over=",
    ),
    "an average over copies that the body ignores": (
        lambda m, x: E(
            m.prior().copies(2), lambda a: E(m.prior().copies(2), lambda b: mean(m.prior().prob(a), over=b))
        ),
        "does not depend on the copies of b",
    ),
    "over= something else": (
        lambda m, x: E(m.prior().copies(2), lambda a: mean(m.prior().prob(a), over=x)),
        "over=x is not a replicated variable; draw it from law.copies(k)",
    ),
    "no copies": (lambda m, x: m.prior().copies(0), "copies(k) needs an integer k >= 1, got 0"),
    "half a copy": (lambda m, x: m.prior().copies(1.5), "copies(k) needs an integer k >= 1, got 1.5"),
    "True copies": (lambda m, x: m.prior().copies(True), "copies(k) needs an integer k >= 1, got True"),
    "an expectation over a number": (
        lambda m, x: E(3, lambda z: z),
        "E(law, body) needs a law such as m.encoder(x), got",
    ),
    "an expectation over the joint": (
        lambda m, x: E(next(s.law for s in walk(m.log_joint(x, Z)) if hasattr(s, "law")), lambda z: 1),
        "the joint law p(x, z) only has a log-density",
    ),
    "a body that is no function": (
        lambda m, x: E(m.prior(), 3),
        "the body under z is a function of one variable, got 3",
    ),
    "a body of two variables": (
        lambda m, x: E(m.prior(), lambda z, v: 1),
        "the body of a binder is a function of one variable; it has the parameters: z, v",
    ),
    "a body that returns nothing": (lambda m, x: E(m.prior(), lambda z: None), "the body under z returned nothing"),
    "a body that returns a law": (
        lambda m, x: E(m.prior(), lambda z: m.prior()),
        "the body under z returned the law p(.), not a number; take its log_prob at a point",
    ),
    "a body that returns a list": (lambda m, x: E(m.prior(), lambda z: [1]), "[1] is not a finite number"),
    "a formula that returns nothing": (
        lambda m, x: None,
        "returned nothing; a formula's function must return a term",
    ),
    "a choice by truth": (
        lambda m, x: 1 if m.prior().log_prob(Z) else 2,
        "the term log p(z) has no truth value while the formula is built; write a choice between numbers with maximum",
    ),
    "a choice by order": (
        lambda m, x: m.prior().prob(Z) < 2,
        "terms have no order; state an inequality as boundcheck.Claim",
    ),
    "an unpacked term": (lambda m, x: max(*m.prior().prob(Z)), "cannot be unpacked or iterated over"),
    "a power that varies": (lambda m, x: 2 ** as_a_power(m.prior().prob(Z)), "the exponent p(z) is not a constant"),
    "a division by nothing": (lambda m, x: objectives.elbo(m, x) / 0, "a formula divides by the constant 0"),
    "a number that is none": (lambda m, x: objectives.elbo(m, x) + float("nan"), "nan is not a finite number"),
    "text that is no number": (lambda m, x: objectives.elbo(m, x) * "half", "'half' is not a finite number"),
    "the largest of none": (lambda m, x: maximum(), "max of no numbers"),
    "same of a number": (lambda m, x: same(Z, 1), "same(a, b) compares two variables of the formula, got 1"),
    "same of two spaces": (lambda m, x: same(Z, x), "over the space z, but x lives in the space x"),
    "a divergence of numbers": (lambda m, x: kl(m.prior(), 1), "kl needs two laws, got p(.) and 1"),
    "a mixture of numbers": (
        lambda m, x: mixture(m.prior(), lambda z: 1),
        "the component of a mixture must be a law, got int 1",
    ),
    "a mixture without a function": (
        lambda m, x: mixture(m.prior(), m.prior()),
        "mixture(law, component) needs a law and",
    ),
}
Z = Var("z", Space("z"))


def as_a_power(term: Term) -> Any:
    class Reversed:
        def __rpow__(self, base: Any) -> Term:
            return power(base, term)  # type: ignore[arg-type]

    return Reversed()


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_names_the_culprit(name: str) -> None:
    formula, message = MISUSES[name]
    with pytest.raises(FormulaError) as caught:
        trace(formula)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_formula_that_cannot_be_called() -> None:
    with pytest.raises(FormulaError, match=r"the formula iwae cannot be called as iwae\(m, x, ...\): missing .*'k'"):
        trace(objectives.iwae)
    with pytest.raises(FormulaError, match="got an unexpected keyword argument 'kk'"):
        trace(objectives.iwae, k=2, kk=3)
    with pytest.raises(FormulaError, match="a term takes no parameters, got k"):
        trace(trace(objectives.elbo), k=2)
    with pytest.raises(FormulaError, match=r"a formula is a function of \(m, x\) that returns a term, got 3"):
        trace(3)  # type: ignore[arg-type]
    with pytest.raises(FormulaError, match="z is used outside"):
        trace(Var("z", Space("z")) + 1)


def test_after_an_error_the_next_formula_is_clean() -> None:
    """A body that raises leaves no variable in scope behind."""
    kept: list[Term] = []

    def broken(m: Any, x: Any) -> Term:
        return E(m.prior(), lambda z: kept.append(z) or 1 / 0)  # type: ignore[func-returns-value]

    with pytest.raises(ZeroDivisionError):
        trace(broken)
    with pytest.raises(FormulaError, match="z is used outside"):
        trace(lambda m, x: m.prior().log_prob(kept[0]))


def test_a_symbolic_model_is_an_ordinary_object() -> None:
    assert not hasattr(SymbolicModel(), "__wrapped__")
    assert isinstance(copy.copy(SymbolicModel()), SymbolicModel)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, F(1, 10)),
        ("0.1", F(1, 10)),
        ("1/10", F(1, 10)),
        (Decimal("0.1"), F(1, 10)),
        (F(1, 10), F(1, 10)),
        (" 3 ", F(3)),
        ("1e-300", F(1, 10**300)),
        (1e-300, F(1, 10**300)),
        (np.float64(0.1), F(1, 10)),
        (np.int64(2**62), F(2**62)),
    ],
)
def test_numbers_are_what_is_written(value: Any, expected: Fraction) -> None:
    assert as_fraction(value) == expected
    assert as_fraction(value) * 2**40 == expected * 2**40  # numpy's integers would wrap around


@pytest.mark.parametrize(
    "value", ["1e999999999", "1e-999999999", "9" * 5000, float("inf"), Decimal("NaN"), "1/0", "", None, 1j, [1]]
)
def test_numbers_that_are_none(value: Any) -> None:
    with pytest.raises(FormulaError, match="is not a finite number"):
        as_fraction(value)


def test_small_terms_stay_small() -> None:
    t = trace(objectives.elbo)
    assert t + 0 == t == 1 * t == +t == t**1
    assert t * 0 == Const(F(0))
    assert t**0 == Const(F(1))
    assert 1 + (2 + t) == t + 3
    assert 2 * (3 * t) == 6 * t
    assert -(t + 1) == -t - 1
    assert log(exp(t)) == t
    assert t / 2 == t * F(1, 2) == 0.5 * t
    assert 2 / trace(lambda m, x: 4) == Const(F(1, 2))
    assert 1 - t == 1 + (-t)
    assert exp_series(t, 2) == 1 + t + t**2 / 2
    assert hash(t + 3) == hash(3 + t)
    assert t != "elbo"


# --- Equality up to names -------------------------------------------------------------------------------------------


def test_renamed_variables_are_equal() -> None:
    def renamed(model: Any, datum: Any) -> Term:
        return E(
            model.corruption(datum),
            lambda noisy: E(
                model.encoder(noisy),
                lambda code: model.log_joint(datum, code) - model.encoder(noisy).log_prob(code),
            ),
        )

    assert trace(renamed) == trace(objectives.denoising_coupled)
    assert hash(trace(renamed)) == hash(trace(objectives.denoising_coupled))


def test_renamed_copies_and_laws_are_equal() -> None:
    def one(m: Any, x: Any) -> Term:
        law = normalised(m.latent, lambda v: 2 * m.log_joint(x, v))
        return E(law.copies(2), lambda z: mean(mixture(m.corruption(x), m.encoder).log_prob(z)))

    def other(m: Any, x: Any) -> Term:
        E(m.prior().copies(4), lambda unrelated: mean(m.prior().prob(unrelated)))
        law = normalised(m.latent, lambda s: m.log_joint(x, s) * 2)
        return E(law.copies(2), lambda u: mean(m.marginal_encoder(x).log_prob(u)))

    assert trace(one) == trace(other)


DIFFERENT = [
    trace(objectives.denoising_coupled),
    trace(objectives.denoising_decoupled),
    # the decoupled one with the two x~ swapped in the density: the coupled one under an idle binder
    trace(
        lambda m, x: E(
            m.corruption(x),
            lambda a: E(
                m.corruption(x), lambda b: E(m.encoder(b), lambda z: m.log_joint(x, z) - m.encoder(b).log_prob(z))
            ),
        )
    ),
    trace(objectives.diwae_coupled, k=2),
    trace(objectives.diwae_fresh, k=2),
    trace(objectives.diwae_decoupled, k=2),
    trace(objectives.diwae_coupled, k=3),
    trace(objectives.iwae, k=2),
    trace(objectives.iwae, k=1),
    trace(objectives.elbo),
    trace(lambda m, x: E(m.encoder(x), lambda z: m.log_joint(x, z) + m.encoder(x).log_prob(z))),
    trace(lambda m, x: E(m.prior(), lambda a: E(m.prior(), lambda b: m.likelihood(a).log_prob(x)))),
    trace(lambda m, x: E(m.prior(), lambda a: E(m.prior(), lambda b: m.likelihood(b).log_prob(x)))),
    trace(
        lambda m, x: E(
            m.prior().copies(2), lambda a: E(m.prior().copies(2), lambda b: mean(total(same(a, b), over=a), over=b))
        )
    ),
    trace(
        lambda m, x: E(
            m.prior().copies(2), lambda a: E(m.prior().copies(2), lambda b: total(mean(same(a, b), over=a), over=b))
        )
    ),
    trace(
        lambda m, x: E(
            m.prior().copies(2), lambda a: E(m.prior().copies(2), lambda b: mean(total(same(a, b), over=b), over=a))
        )
    ),
    trace(lambda m, x: E(normalised(m.latent, lambda v: m.log_joint(x, v) / 2), lambda z: m.log_joint(x, z))),
    trace(lambda m, x: E(density(m.latent, lambda v: m.log_joint(x, v) / 2), lambda z: m.log_joint(x, z))),
    trace(lambda m, x: integrate(Space("u", (F(0), F(1))), lambda u: 1)),
    trace(lambda m, x: integrate(Space("u", (F(0), F(2))), lambda u: 1)),
    trace(lambda m, x: integrate(Space("u"), lambda u: 1)),
]


def test_different_formulas_differ() -> None:
    for i, one in enumerate(DIFFERENT):
        for other in DIFFERENT[:i]:
            assert one != other
            assert to_json(one) != to_json(other)


def test_plates_are_the_same_only_if_drawn_together() -> None:
    assert Plate(3) != Plate(3)
    together = trace(lambda m, x: E(m.corruption(x).copies(2), lambda a: E(m.encoder(a), lambda z: mean(w(m, x, z)))))
    assert isinstance(together, Expect)
    assert isinstance(together.body, Expect)
    assert together.var.plates == together.body.var.plates
    assert together.consumed_plates == set(together.var.plates)
    assert together.free == {OBSERVED}
    assert not together.free_plates


# --- Files ----------------------------------------------------------------------------------------------------------


def every_term() -> Iterator[Term]:
    for claim in claims().values():
        yield from claim.terms
        if claim.gap is not None:
            yield trace(claim.gap)
    yield from (case.term for case in OBJECTIVES)
    yield from DIFFERENT


def test_terms_survive_a_file() -> None:
    for term in every_term():
        data = json.loads(json.dumps(to_json(term)))
        back = from_json(data)
        assert back == term
        assert hash(back) == hash(term)
        assert (back.text, back.latex) == (term.text, term.latex)
        assert to_json(back) == data


def test_random_terms_survive_a_file() -> None:
    for number in range(400):
        term = random_formula(Random(number), 5)
        assert from_json(json.loads(json.dumps(to_json(term)))) == term


def test_a_sub_term_used_twice_survives_a_file() -> None:
    """The same Python object in two places binds the same variables twice; their numbers must not collide."""
    part = trace(objectives.denoising_decoupled)
    copies = trace(objectives.diwae_fresh, k=2)
    for term in (part + 2 * part, part * part, copies - exp(copies), maximum(part, part + copies, copies)):
        assert from_json(to_json(term)) == term
        assert from_json(to_json(term)) != part


def test_a_deep_term_survives_a_file_or_is_refused() -> None:
    def chain(m: Any, x: Any, left: int) -> Term:
        return E(m.corruption(x), lambda xt: exp(chain(m, xt, left - 1)) if left else m.corruption(x).log_prob(xt))

    deep = trace(lambda m, x: chain(m, x, 30))
    assert from_json(to_json(deep)) == deep
    data: Any = {"const": "1"}
    for _ in range(DEEPEST - 1):
        data = {"op": "log", "args": [data]}
    assert from_json({"format": "boundcheck-term/1", "term": data}).text.startswith("log log log")
    for levels in (10, 100_000):
        for _ in range(levels):
            data = {"op": "log", "args": [data]}
        with pytest.raises(BadInput):
            from_json({"format": "boundcheck-term/1", "term": data})


FRESH = """
import json, sys
from boundcheck.catalogue import claims
from boundcheck.language import from_json, to_json
saved = json.load(sys.stdin)
for name, claim in claims().items():
    for term, (text, latex, data) in zip(claim.terms, saved[name], strict=True):
        assert from_json(data) == term and hash(from_json(data)) == hash(term), name
        assert (term.text, term.latex, to_json(term)) == (text, latex, data), name
"""


def test_a_fresh_process_reads_writes_and_prints_the_same() -> None:
    saved = {name: [[t.text, t.latex, to_json(t)] for t in claim.terms] for name, claim in claims().items()}
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    run = subprocess.run(
        [sys.executable, "-c", FRESH], input=json.dumps(saved), env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_a_formula_goes_to_another_process_without_its_serial_numbers() -> None:
    """Hashes and serial numbers differ between processes: a copied number would bind another's variable."""
    term = trace(objectives.diwae_fresh, k=2)
    assert copy.deepcopy(term) is copy.copy(term) is term
    rebuild, (data,) = term.__reduce__()  # what a process pool sends
    assert rebuild(data) == term
    assert isinstance(term, Expect)
    assert rebuild(data).var.serial != term.var.serial
    with pytest.raises(TypeError, match="has free variables: only a whole formula"):
        term.body.__reduce__()


def nodes(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from nodes(value, (*path, key))


def at(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


JUNK: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2, 7, 1.5, 10**30, "", "z", "x", "x~", "1/0", "1e999999999", "nan", "joint", "prior", "sum",
    "log", [], [[0, 2]], [[0, 0]], [[1, 2], [1, 2]], {}, {"const": "1"}, {"use": 0}, {"use": 99}, {"use": []},
    {"op": "log", "args": []}, {"role": "encoder", "args": []}, {"role": "joint", "args": []},
)  # fmt: skip


def tampered(rng: Random, data: Any) -> Any:
    """Some value replaced, removed, doubled, or swapped with another place's."""
    data = copy.deepcopy(data)
    paths = [path for path in nodes(data) if path]
    for _ in range(rng.choice((1, 1, 2, 4))):
        path = rng.choice(paths)
        try:
            where, key = at(data, path[:-1]), path[-1]
            kind = rng.random()
            if kind < 0.5:
                where[key] = copy.deepcopy(rng.choice(JUNK))
            elif kind < 0.6:
                del where[key]
            elif kind < 0.95:
                where[key] = copy.deepcopy(at(data, rng.choice(paths)))
            elif isinstance(where, list):
                where.append(copy.deepcopy(where[key]))
        except (KeyError, IndexError, TypeError):
            continue
    return data


def test_a_tampered_file_is_bad_input_or_another_valid_formula() -> None:
    rng, refused, accepted = Random(0), 0, 0
    originals = [to_json(term) for term in DIFFERENT] + [to_json(random_formula(Random(n), 4)) for n in range(40)]
    for _ in range(6000):
        data = tampered(rng, rng.choice(originals))
        try:
            term = from_json(data)
        except BadInput as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        accepted += 1
        assert not term.free - {OBSERVED}
        assert not term.free_plates
        assert isinstance(term.text + term.latex, str)
        assert from_json(to_json(term)) == term
        for sub in walk(term):
            if isinstance(sub, Expect):
                assert sub.law.space == sub.var.space
    assert refused > 3000
    assert accepted > 300


@pytest.mark.parametrize("data", [None, 3, [], "E", {}, {"format": "boundcheck-term/2", "term": {"const": "1"}}])
def test_what_is_no_term_file(data: Any) -> None:
    with pytest.raises(BadInput, match=r"^term = .*: expected an object with format 'boundcheck-term/1'"):
        from_json(data)


def test_files_cannot_hold_what_the_language_refuses() -> None:
    """Spaces that do not fit, copies without a reduction, or a reduction without copies."""
    elbo, iwae = to_json(trace(objectives.elbo)), to_json(trace(objectives.iwae, k=2))
    cases = [
        (elbo, ("term", "bind", "space"), "x"),
        (elbo, ("term", "expect", "role"), "likelihood"),
        (elbo, ("term", "expect", "role"), "joint"),
        (elbo, ("term", "expect", "args", 0, "use"), 1),
        (elbo, ("term", "bind", "plates"), [[5, 2]]),
        (elbo, ("term", "bind", "bounds"), ["1", "0"]),
        (elbo, ("term", "bind", "var"), 0),
        (iwae, ("term", "bind", "plates"), []),
        (iwae, ("term", "bind", "plates", 0, 1), 0),
        (iwae, ("term", "body", "args", 0, "plate"), 4),
        (iwae, ("term", "body", "args", 0, "reduce"), "median"),
        (iwae, ("term", "body"), {"const": "1e5"}),
        (iwae, ("term", "body"), iwae["term"]["body"]["args"][0]["body"]),
    ]
    for original, path, value in cases:
        data = copy.deepcopy(original)
        at(data, path[:-1])[path[-1]] = value
        with pytest.raises(BadInput):
            from_json(data)


# --- Positions ------------------------------------------------------------------------------------------------------


def expectation(m: Any, x: Any) -> Term:
    return E(m.encoder(x), lambda z: w(m, x, z))


POSITIONS: dict[str, tuple[Any, Shape]] = {
    "linear": (objectives.elbo, Shape.LINEAR),
    "a number": (lambda m, x: 3, Shape.LINEAR),
    "nested": (objectives.denoising_decoupled, Shape.LINEAR),
    "copies inside": (lambda m, x: objectives.iwae(m, x, 5), Shape.LINEAR),
    "log E": (lambda m, x: log(expectation(m, x)), Shape.CONCAVE),
    "-log E": (lambda m, x: -log(expectation(m, x)), Shape.CONVEX),
    "2 log E": (lambda m, x: 2 * log(expectation(m, x)), Shape.CONCAVE),
    "renyi": (lambda m, x: objectives.renyi(m, x, "1/2"), Shape.CONCAVE),
    "renyi upper": (lambda m, x: objectives.renyi(m, x, -1), Shape.CONCAVE),
    "renyi of order two": (lambda m, x: objectives.renyi(m, x, 2), Shape.CONVEX),
    "cubo": (lambda m, x: objectives.cubo(m, x, 2), Shape.CONCAVE),
    "exp E": (lambda m, x: exp(objectives.elbo(m, x)), Shape.CONVEX),
    "exp -E": (lambda m, x: exp(-objectives.elbo(m, x)), Shape.CONVEX),
    "-exp E": (lambda m, x: -exp(objectives.elbo(m, x)), Shape.CONCAVE),
    "max": (lambda m, x: maximum(objectives.elbo(m, x), 1), Shape.CONVEX),
    "min": (lambda m, x: minimum(objectives.elbo(m, x), 1), Shape.CONCAVE),
    "free bits": (lambda m, x: objectives.free_bits(m, x, "1/4"), Shape.CONCAVE),
    "max of two": (lambda m, x: maximum(objectives.elbo(m, x), objectives.reconstruction(m, x)), Shape.CONVEX),
    "max log E": (lambda m, x: maximum(log(expectation(m, x)), 1), Shape.UNKNOWN),
    "log max E": (lambda m, x: log(maximum(expectation(m, x), 1)), Shape.UNKNOWN),
    "log min E": (lambda m, x: log(minimum(expectation(m, x), 1)), Shape.CONCAVE),
    "log and exp": (lambda m, x: log(expectation(m, x)) + exp(objectives.elbo(m, x)), Shape.UNKNOWN),
    "log and -exp": (lambda m, x: log(expectation(m, x)) - exp(objectives.elbo(m, x)), Shape.CONCAVE),
    "a product of two": (lambda m, x: expectation(m, x) * expectation(m, x), Shape.UNKNOWN),
    "a quotient": (lambda m, x: objectives.elbo(m, x) / expectation(m, x), Shape.UNKNOWN),
    "one over": (lambda m, x: 1 / expectation(m, x), Shape.CONVEX),
    "one over the smaller": (lambda m, x: 1 / minimum(expectation(m, x), 1), Shape.CONVEX),
    "one over the larger": (lambda m, x: 1 / maximum(expectation(m, x), 1), Shape.UNKNOWN),
    "log of one over": (lambda m, x: log(1 / expectation(m, x)), Shape.UNKNOWN),
    "-one over": (lambda m, x: -1 / expectation(m, x), Shape.CONCAVE),
    "a square": (lambda m, x: objectives.elbo(m, x) ** 2, Shape.CONVEX),
    "a square of something positive": (lambda m, x: expectation(m, x) ** 2, Shape.CONVEX),
    "a cube": (lambda m, x: objectives.elbo(m, x) ** 3, Shape.UNKNOWN),
    "a root": (lambda m, x: expectation(m, x) ** "1/2", Shape.CONCAVE),
    "log of a square": (lambda m, x: log(expectation(m, x) ** 2), Shape.UNKNOWN),
    "E log E": (
        lambda m, x: E(m.corruption(x), lambda xt: log(E(m.encoder(xt), lambda z: w(m, x, z)))),
        Shape.CONCAVE,
    ),
    "mean of log E": (
        lambda m, x: E(m.corruption(x).copies(2), lambda a: mean(log(E(m.encoder(a), lambda z: w(m, x, z))))),
        Shape.CONCAVE,
    ),
    "max of E over copies": (
        lambda m, x: E(m.corruption(x).copies(2), lambda a: maximum_over(E(m.encoder(a), lambda z: w(m, x, z)))),
        Shape.CONVEX,
    ),
    "min of E over copies": (
        lambda m, x: E(m.corruption(x).copies(2), lambda a: minimum_over(E(m.encoder(a), lambda z: w(m, x, z)))),
        Shape.CONCAVE,
    ),
    "scaled by a density": (
        lambda m, x: E(m.prior(), lambda v: m.prior().prob(v) * log(expectation(m, x))),
        Shape.CONCAVE,
    ),
    "scaled by a log-density": (
        lambda m, x: E(m.prior(), lambda v: m.prior().log_prob(v) * log(expectation(m, x))),
        Shape.UNKNOWN,
    ),
    "linear, scaled by a log-density": (
        lambda m, x: E(m.prior(), lambda v: m.prior().log_prob(v) * expectation(m, x)),
        Shape.LINEAR,
    ),
    "a draw from a mixture": (lambda m, x: E(m.marginal_encoder(x), lambda z: m.log_joint(x, z)), Shape.LINEAR),
    "the log-density of a mixture": (objectives.marginal_negative_entropy, Shape.CONCAVE),
    "minus it": (objectives.marginal_elbo, Shape.CONVEX),
    "a draw scored by a law that looks at its copies": (
        lambda m, x: E(
            m.corruption(x).copies(2),
            lambda a: mean(
                E(
                    m.encoder(a),
                    lambda z: density(m.latent, lambda v: log(mean(m.encoder(a).prob(v))) + expectation(m, x)).log_prob(
                        z
                    ),
                )
            ),
        ),
        Shape.UNKNOWN,
    ),
    "a law that depends on an expectation": (
        lambda m, x: E(density(m.latent, lambda z: m.prior().log_prob(z) + expectation(m, x)), lambda z: 1),
        Shape.UNKNOWN,
    ),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_position(name: str) -> None:
    formula, shape = POSITIONS[name]
    assert bias_shape(trace(formula)) is shape


def test_a_draw_is_not_put_among_the_copies_that_its_density_averages_over() -> None:
    """mean_k q(z_l|x~_k) with z_l put inside would be mean_k q(z_k|x~_k), another number."""

    def score(m: Any, x: Any) -> Term:
        def body(xt: Any) -> Term:
            law = density(m.latent, lambda v: log(mean(m.encoder(xt).prob(v))))
            return E(m.encoder(xt), lambda z: mean(law.log_prob(z)))

        return E(m.corruption(x).copies(2), body)

    (scored,) = [sub for sub in walk(trace(score)) if isinstance(sub, LogDensity) and isinstance(sub.law, DensityLaw)]
    assert is_one_of_its_copies(scored)
    with pytest.raises(CannotCompute, match="one of the copies that the law reduces over"):
        expand(scored)
    with pytest.raises(CannotCompute, match="one of the copies that the law reduces over"):
        plan(trace(score), inner=4)
    elsewhere = LogDensity(scored.law, (Var("z", Space("z")),))
    assert not is_one_of_its_copies(elsewhere)
    assert expand(elsewhere).free_plates == frozenset()


def test_every_expectation_has_a_position_with_a_slope() -> None:
    term = trace(lambda m, x: E(m.prior(), lambda v: 1) - 2 * log(expectation(m, x)))
    assert [(found.shape, found.slope) for found in positions(term)] == [(Shape.LINEAR, 1), (Shape.CONVEX, -1)]
    assert all(isinstance(found.expectation, Expect) for found in positions(term))
    assert Shape.UNKNOWN.flipped is Shape.UNKNOWN
    assert Shape.LINEAR.flipped is Shape.LINEAR


def test_the_shape_tells_the_direction_of_the_plug_in() -> None:
    """Plugging the mean of two equally likely values into f: the average of f is on the side that the shape says."""
    rng = Random(3)
    decided = 0
    for _ in range(300):
        term = _function_of_one_mean(rng, 3)
        shape = bias_shape(trace(lambda m, x, t=term: t(expectation(m, x))))
        for low, high in [(F(1, 5), F(3)), (F(1, 2), F(7, 3)), (F(2), F(9))]:
            ends = [_number(term(trace(lambda m, x, v=v: v))) for v in (low, high, (low + high) / 2)]
            if None in ends:
                continue
            average, middle = (ends[0] + ends[1]) / 2, ends[2]
            if shape is Shape.LINEAR:
                assert average == pytest.approx(middle)
            elif shape is Shape.CONCAVE:
                assert average <= middle + 1e-9 * abs(middle)
            elif shape is Shape.CONVEX:
                assert average >= middle - 1e-9 * abs(middle)
            decided += shape is not Shape.UNKNOWN
    assert decided > 250


def _function_of_one_mean(rng: Random, depth: int) -> Any:
    if depth == 0:
        return lambda y: y
    inner, scale = _function_of_one_mean(rng, depth - 1), rng.choice((2, -1, F(1, 2)))
    exponent = rng.choice((2, -1, F(1, 2), -2))
    return rng.choice(
        [
            lambda y: log(inner(y)),
            lambda y: exp(inner(y)),
            lambda y: scale * inner(y),
            lambda y: maximum(inner(y), 1) + y,
            lambda y: minimum(inner(y), 1),
            lambda y: inner(y) ** exponent,
            lambda y: log(inner(y)) + inner(y),
        ]
    )


def _number(term: Term) -> float | None:
    from boundcheck.errors import BoundcheckError
    from boundcheck.evaluators import floating
    from boundcheck.models.finite import FiniteModel

    try:
        value = float(floating.evaluate(term, FiniteModel(prior=[1], likelihood=[[1]])))
    except BoundcheckError:
        return None
    return value if abs(value) < 1e200 else None


def test_reduce_and_log_mean_exp() -> None:
    term = trace(lambda m, x: E(m.prior().copies(3), lambda z: log_mean_exp(m.prior().log_prob(z), over=z)))
    assert isinstance(term, Expect)
    reductions = [sub for sub in walk(term) if isinstance(sub, Reduce)]
    assert [(r.op, r.plate.size) for r in reductions] == [("mean", 3)]
    assert add(1, multiply(2, 3)) == Const(F(7))
