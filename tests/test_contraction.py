"""The contraction evaluator against enumeration, against exact rational sums, and against hand-written recursions.

The elimination has several ways to sum: at once, in blocks, in two stages, by a matrix product. On small models all
but the first would sleep, so most tests run three times, with blocks of the real size, of 64 and of 8 entries.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from copy import copy
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf
from numpy.typing import NDArray

from boundcheck.catalogue import objectives as known
from boundcheck.errors import BadInput, BoundcheckError, CannotCompute, UndefinedValue
from boundcheck.evaluators import elimination, elimination_order, floating, potentials, reduction
from boundcheck.evaluators.contraction import evaluate, evaluate_many
from boundcheck.evaluators.elimination_order import order_of, packs_of
from boundcheck.language import E, Formula, SymbolicModel, Term, exp, integrate, kl, log, maximum, normalised, same
from boundcheck.models import FiniteModel
from boundcheck.models.factored import LARGE, Factor, FactoredModel

Scopes = list[tuple[int, ...]]

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(params=[None, 64, 8], ids=["real blocks", "blocks of 64", "blocks of 8"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int | None]:
    """Shrinks the blocks, so that small models go the ways of large ones."""
    if request.param is not None:
        monkeypatch.setattr(elimination, "BLOCK", request.param)
        monkeypatch.setattr(potentials, "BLOCK", request.param)
        monkeypatch.setattr(elimination_order, "CORE", request.param)
        monkeypatch.setattr(elimination_order, "WIDTH", request.param // 4)
        monkeypatch.setattr(reduction, "FEWEST", math.inf)
    order_of.cache_clear()
    packs_of.cache_clear()
    yield request.param
    order_of.cache_clear()
    packs_of.cache_clear()


# --- random models, and the same ones as tables over all states ---


def random_table(rng: np.random.Generator, shape: tuple[int, ...], zeros: float) -> NDArray[Any]:
    table = rng.random(shape) ** 2 + 1e-3
    table[rng.random(shape) < zeros] = 0.0
    return table


def conditional(rng: np.random.Generator, sizes: list[int], scope: tuple[int, ...], zeros: float) -> Factor:
    """q(last of the scope | the others)."""
    table = random_table(rng, tuple(sizes[v] for v in scope), zeros)
    table[np.broadcast_to(table.sum(axis=-1, keepdims=True) == 0, table.shape)] = 1.0
    return Factor(scope, table / table.sum(axis=-1, keepdims=True), child=scope[-1])


def scopes_of(kind: str, n: int, rng: np.random.Generator) -> Scopes:
    if kind == "chain":
        return [(0,), *((i, i + 1) for i in range(n - 1))]
    if kind == "tree":
        return [(0,), *((int(rng.integers(i)), i) for i in range(1, n))]
    if kind == "grid":  # 2 x 4
        across = [(4 * row + i, 4 * row + i + 1) for row in range(2) for i in range(3)]
        return [*across, *((i, i + 4) for i in range(4))]
    triple = tuple(int(v) for v in rng.permutation(n)[:3])
    return [*((i,) for i in range(n)), *itertools.combinations(range(n), 2), triple]


def random_encoder(kind: str, sizes: list[int], rng: np.random.Generator, zeros: float) -> list[Factor]:
    order = [int(v) for v in rng.permutation(len(sizes))]
    factors = []
    for place, v in enumerate(order):
        parents: tuple[int, ...] = ()
        if kind == "chain":
            parents = tuple(order[max(0, place - 1) : place])
        elif kind == "graph":
            parents = tuple(int(u) for u in rng.permutation(order[:place])[:2])
        factors.append(conditional(rng, sizes, (*parents, v), zeros))
    return factors


def random_model(kind: str, encoder: str, zeros: float, seed: int) -> tuple[FactoredModel, FiniteModel]:
    rng = np.random.default_rng([seed, len(kind), len(encoder), int(100 * zeros)])
    n = {"chain": 6, "tree": 6, "grid": 8, "full": 6}[kind]
    sizes = [2] * n if kind in ("grid", "full") else [int(size) for size in rng.integers(1, 4, size=n)]
    scopes = scopes_of(kind, n, rng)
    factors = [(scope, random_table(rng, tuple(sizes[v] for v in scope), zeros)) for scope in scopes]
    mass = float(product_of(factors, sizes).sum())
    if mass:  # p(x), which a factored model cannot know to be at most one
        factors[0] = (factors[0][0], factors[0][1] * (0.4 / mass))
    law = random_encoder(encoder, sizes, rng, zeros)
    return FactoredModel(sizes, factors, law), dense_model(sizes, factors, law)


def product_of(factors: list[tuple[tuple[int, ...], NDArray[Any]]], sizes: list[int]) -> NDArray[Any]:
    operands = [part for scope, table in factors for part in (np.asarray(table), list(scope))]
    ones = [part for v, size in enumerate(sizes) for part in (np.ones(size), [v])]
    return np.einsum(*operands, *ones, list(range(len(sizes))))


def dense_model(sizes: list[int], factors: list[Any], law: list[Factor]) -> FiniteModel:
    """The observation is x = 0; x = 1 takes the rest of the mass."""
    joint = product_of(factors, sizes)
    rest = np.full(joint.shape, (1 - joint.sum()) / joint.size)
    encoder = product_of([(factor.scope, factor.table) for factor in law], sizes)  # type: ignore[misc]
    return FiniteModel(joint=np.stack([joint, rest]), encoder=np.stack([encoder, encoder]))


FORMULAS: dict[str, Formula] = {
    "evidence": known.log_evidence,
    "ELBO": known.elbo,
    "EUBO": known.eubo,
    "Renyi 1/2": lambda m, x: known.renyi(m, x, "1/2"),
    "Renyi 2": lambda m, x: known.renyi(m, x, 2),
    "CUBO 2": lambda m, x: known.cubo(m, x, 2),
    "TVO left": lambda m, x: known.tvo_left(m, x, 3),
    "TVO right": lambda m, x: known.tvo_right(m, x, 3),
    "KL(q|p)": lambda m, x: kl(m.encoder(x), m.posterior(x)),
    "KL(p|q)": lambda m, x: kl(m.posterior(x), m.encoder(x)),
    "beyond": lambda m, x: E(known.tempered(m, x, "4/3"), lambda z: known.log_weight(m, x, z)),
    "no law": lambda m, x: log(integrate(m.latent, lambda z: exp(2 * m.log_joint(x, z) - m.encoder(x).log_prob(z)))),
    "two draws": lambda m, x: E(
        m.encoder(x), lambda z: E(m.posterior(x), lambda y: known.log_weight(m, x, z) - 2 * known.log_weight(m, x, y))
    ),
    "arithmetic": lambda m, x: 3 * maximum("1/2", known.log_evidence(m, x)) - exp(known.log_evidence(m, x)) / 7,
    "inner sum": lambda m, x: E(
        m.encoder(x), lambda z: m.log_joint(x, z) - log(integrate(m.latent, lambda y: exp(m.log_joint(x, y) / 2)))
    ),
    "two powers": lambda m, x: log(
        integrate(m.latent, lambda z: exp(m.log_joint(x, z)) + 2 * exp(m.encoder(x).log_prob(z)))
    ),
}


def outcome(evaluator: Callable[..., Any], formula: Formula, model: object) -> float | str:
    try:
        return float(evaluator(formula, model))
    except UndefinedValue:
        return "undefined"


@cache
def model_and_truth(kind: str, encoder: str, zeros: float, seed: int) -> tuple[FactoredModel, dict[str, float | str]]:
    model, dense = random_model(kind, encoder, zeros, seed)
    return model, {name: outcome(floating.evaluate, formula, dense) for name, formula in FORMULAS.items()}


@pytest.mark.parametrize("zeros", [0.0, 0.15, 0.3])
@pytest.mark.parametrize("encoder", ["mean field", "chain", "graph"])
@pytest.mark.parametrize("kind", ["chain", "tree", "grid", "full"])
def test_it_agrees_with_enumeration(block: int | None, kind: str, encoder: str, zeros: float) -> None:
    given, truth = model_and_truth(kind, encoder, zeros, seed=0)
    model = copy(given)
    model.__dict__.pop("derived", None)  # what other blocks left behind
    for name, formula in FORMULAS.items():
        ours = outcome(evaluate, formula, model)
        if "undefined" in (ours, truth[name]):
            assert ours == truth[name], name
        else:
            assert ours == pytest.approx(truth[name], rel=1e-11, abs=1e-11), name


def test_the_random_models_meet_every_kind_of_value() -> None:
    """What the agreement above is worth: finite, both infinite and undefined values all occur."""
    values = [
        value
        for kind, zeros in itertools.product(("chain", "grid", "full"), (0.0, 0.15, 0.3))
        for value in model_and_truth(kind, "chain", zeros, 0)[1].values()
    ]
    seen = {value if isinstance(value, str) or math.isinf(value) else "finite" for value in values}
    assert seen == {"finite", math.inf, -math.inf, "undefined"}


@pytest.mark.parametrize("name", ["beta", "free bits", "reconstruction"])
def test_a_declared_prior_is_a_prior(block: int | None, name: str) -> None:
    rng = np.random.default_rng(7)
    sizes = [2, 3, 2]
    prior = [conditional(rng, sizes, scope, 0.0) for scope in ((0,), (0, 1), (1, 2))]
    likelihood = [((0, 2), rng.random((2, 2))), ((1,), rng.random(3))]
    law = random_encoder("chain", sizes, rng, 0.0)
    model = FactoredModel(sizes, [*prior, *likelihood], law)
    p_x = product_of(likelihood, sizes)
    table = product_of([(factor.scope, factor.table) for factor in prior], sizes)  # type: ignore[misc]
    encoder = product_of([(factor.scope, factor.table) for factor in law], sizes)  # type: ignore[misc]
    dense = FiniteModel(prior=table, likelihood=np.stack([p_x, 1 - p_x], axis=-1), encoder=np.stack([encoder] * 2))
    formula = {
        "beta": lambda m, x: known.beta_objective(m, x, 3),
        "free bits": lambda m, x: known.free_bits(m, x, "1/10"),
        "reconstruction": known.reconstruction,
    }[name]
    assert model.roles == ("joint", "prior", "likelihood", "encoder")
    assert float(evaluate(formula, model)) == pytest.approx(float(floating.evaluate(formula, dense)), abs=1e-12)


# --- exact sums: no term is lost, whatever its size ---


@pytest.mark.parametrize("largest", [10, 300, 1500, 6000])
@pytest.mark.parametrize("kind", ["chain", "pairs", "dense"])
def test_powers_of_two_of_any_size(block: int | None, kind: str, largest: int) -> None:
    """Factors 2^-k, k up to 6000, some of them 0: the exact values differ from ours by no more than our estimate."""
    rng = np.random.default_rng([largest, len(kind)])
    for trial in range(4):
        n = 3 + trial
        scopes: Scopes = {
            "chain": [(i, i + 1) for i in range(n - 1)],
            "pairs": list(itertools.combinations(range(n), 2)),
            "dense": [tuple(range(n)), *((i,) for i in range(n))],
        }[kind]
        powers = [rng.integers(-largest // 8, largest, size=(2,) * len(scope)) for scope in scopes]
        gone = [(rng.random(table.shape) < 0.2) & bool(trial % 2) for table in powers]
        halvings = rng.integers(1, rng.choice([3, 60, 1000]), size=n)
        logs = [np.where(zero, -np.inf, -math.log(2) * power) for zero, power in zip(gone, powers, strict=True)]
        model = FactoredModel(
            [2] * n,
            [Factor(scope, table, log=True) for scope, table in zip(scopes, logs, strict=True)],
            [Factor((i,), [0.5 ** int(k), 1 - 0.5 ** int(k)]) for i, k in enumerate(halvings)],
        )
        with mp.workdps(40):
            truth = exact_values(scopes, powers, gone, [int(k) for k in halvings])
            for name, formula in (
                ("evidence", known.log_evidence),
                ("ELBO", known.elbo),
                ("EUBO", known.eubo),
                ("CUBO", FORMULAS["CUBO 2"]),
            ):
                if truth[name] is None:
                    with pytest.raises(UndefinedValue):
                        evaluate(formula, model)
                    continue
                ours = evaluate(formula, model)
                if mp.isinf(truth[name]):
                    assert ours.value == float(truth[name]), name
                else:
                    assert abs(mpf(ours.value) - truth[name]) <= ours.error, name
                    assert ours.error < 1e-9 * (100 + largest), name


def exact_values(
    scopes: Scopes, powers: list[NDArray[Any]], gone: list[NDArray[Any]], halvings: list[int]
) -> dict[str, Any]:
    """By enumeration: weights are rationals, and only their logarithms are rounded, to 40 digits."""
    p, q = [], []
    for z in itertools.product((0, 1), repeat=len(halvings)):
        places = [tuple(z[v] for v in scope) for scope in scopes]
        zero = any(table[place] for table, place in zip(gone, places, strict=True))
        power = sum(int(table[place]) for table, place in zip(powers, places, strict=True))
        p.append(Fraction(0) if zero else Fraction(2) ** -power)
        law = [Fraction(1, 2**k) if state == 0 else 1 - Fraction(1, 2**k) for state, k in zip(z, halvings, strict=True)]
        q.append(math.prod(law))
    total = sum(p)

    def ln(value: Fraction) -> Any:
        return mp.log(value.numerator) - mp.log(value.denominator)

    def real(value: Fraction) -> Any:
        return mpf(value.numerator) / mpf(value.denominator)

    pairs = [(a, b) for a, b in zip(p, q, strict=True) if a]
    if not total:
        return {"evidence": mpf("-inf"), "ELBO": mpf("-inf"), "CUBO": mpf("-inf"), "EUBO": None}
    return {
        "evidence": ln(total),
        "ELBO": mp.fsum(real(b) * (ln(a) - ln(b)) for a, b in pairs) if len(pairs) == len(p) else mpf("-inf"),
        "CUBO": ln(sum((a * a / b for a, b in pairs), Fraction(0))) / 2,
        "EUBO": mp.fsum(real(a / total) * (ln(a) - ln(b)) for a, b in pairs),
    }


def chain_model(logs: list[NDArray[Any]], rows: list[NDArray[Any]]) -> FactoredModel:
    n = len(logs) + 1
    law = [Factor(0, rows[0], child=0), *(Factor((i, i + 1), rows[i + 1], child=i + 1) for i in range(n - 1))]
    return FactoredModel([2] * n, [Factor((i, i + 1), table, log=True) for i, table in enumerate(logs)], law)


def test_a_hidden_chain_of_300_at_log_p_minus_10000() -> None:
    """Against the forward recursion, written here with each step's scale kept apart."""
    rng = np.random.default_rng(3)
    logs = [np.log(rng.random((2, 2))) - 33.0 for _ in range(299)]
    first = rng.random(2)
    rows = [first / first.sum(), *(t / t.sum(axis=1, keepdims=True) for t in rng.random((299, 2, 2)))]
    forward, scales = np.ones(2), []
    for table in logs:
        forward = forward @ np.exp(table + 33.0)
        scales += [math.log(forward.sum()), -33.0]
        forward /= forward.sum()
    evidence = math.fsum(scales)
    marginal, terms = rows[0], [-float(rows[0] @ np.log(rows[0]))]
    for table, row in zip(logs, rows[1:], strict=True):
        pair = marginal[:, None] * row
        terms.append(float((pair * (table - np.log(row))).sum()))
        marginal = pair.sum(axis=0)
    bounds = evaluate_many([known.log_evidence, known.elbo, known.eubo], chain_model(logs, rows))
    assert evidence < -9800
    assert bounds[0].value == pytest.approx(evidence, abs=1e-10)
    assert bounds[1].value == pytest.approx(math.fsum(terms), abs=1e-9)
    assert bounds[1].value < bounds[0].value < bounds[2].value
    assert all(bound.error < 1e-8 for bound in bounds)


def test_a_chain_of_60_exactly() -> None:
    """Transition matrices of small integers over 1000, as floats: the sum over 2^60 states in rational arithmetic."""
    rng = np.random.default_rng(4)
    tables = [rng.integers(0, 5, size=(2, 2)) for _ in range(59)]
    for table in tables:
        table[0, 0] += 1
    forward = [Fraction(1), Fraction(1)]
    for table in tables:
        forward = [sum((forward[i] * int(table[i, j]) for i in (0, 1)), Fraction(0)) / 1024 for j in (0, 1)]
    total = sum(forward)
    model = FactoredModel([2] * 60, [((i, i + 1), table / 1024) for i, table in enumerate(tables)])
    value = evaluate(known.log_evidence, model)
    with mp.workdps(40):
        truth = mp.log(total.numerator) - mp.log(total.denominator)
        assert abs(mpf(value.value) - truth) <= value.error < 1e-11


def test_a_matrix_product_that_underflows_is_noticed(block: int | None) -> None:
    """Every row's largest term meets a zero elsewhere: what remains is exp(-3000) beside what was shifted by."""
    n = 9
    hill = np.array([[0.0, -500.0], [-500.0, -np.inf]])
    wall = Factor(0, [0.0, 1.0])
    pairs = [
        Factor((i, j), hill if i == 0 else np.zeros((2, 2)), log=True) for i, j in itertools.combinations(range(n), 2)
    ]
    model = FactoredModel([2] * n, [wall, *pairs])
    assert evaluate(known.log_evidence, model).value == pytest.approx(-500.0 * (n - 1), abs=1e-9)


# --- laws ---


def test_the_encoder_is_normalised_whatever_its_graph() -> None:
    for encoder, seed in itertools.product(("mean field", "chain", "graph"), range(3)):
        model, _ = random_model("grid", encoder, 0.15, seed)
        assert evaluate(lambda m, x: E(m.encoder(x), lambda z: 1), model).value == 1.0
        mass = evaluate(lambda m, x: integrate(m.latent, lambda z: exp(m.encoder(x).log_prob(z))), model)
        assert mass.value == pytest.approx(1.0, abs=1e-14)


def test_the_order_of_variables_and_factors_changes_nothing(block: int | None) -> None:
    rng = np.random.default_rng(11)
    for kind in ("tree", "grid", "full"):
        sizes = [2] * 8
        scopes = scopes_of(kind, 8, rng)
        tables = [random_table(rng, (2,) * len(scope), 0.03) for scope in scopes]
        law = random_encoder("graph", sizes, rng, 0.0)
        values = []
        for turn in range(3):
            names = rng.permutation(8) if turn else np.arange(8)
            factors = []
            for scope, table in zip(scopes, tables, strict=True):
                axes = rng.permutation(len(scope))
                factors.append((tuple(int(names[scope[a]]) for a in axes), table.transpose(axes)))
            renamed = [
                Factor(tuple(int(names[v]) for v in factor.scope), factor.table, child=int(names[factor.child]))
                for factor in law  # type: ignore[union-attr, index]
            ]
            model = FactoredModel(
                sizes, [factors[i] for i in rng.permutation(len(factors))], [renamed[i] for i in rng.permutation(8)]
            )
            values.append([float(v) for v in evaluate_many([known.log_evidence, FORMULAS["Renyi 1/2"]], model)])
        assert np.isfinite(values).all()
        assert np.ptp(values, axis=0) == pytest.approx(0.0, abs=1e-12)


def test_one_state_and_named_variables() -> None:
    model = FactoredModel(
        {"a": 1, "b": 2},
        [(("a", "b"), [[0.25, 0.5]]), Factor((), 0.5)],
        [Factor(("b", "a"), [[0.5], [0.5]], child="b"), ("a", [1.0])],
    )
    assert evaluate(known.log_evidence, model).value == pytest.approx(math.log(0.375), abs=1e-15)
    assert evaluate(known.elbo, model).value == pytest.approx(0.5 * math.log(0.125) + math.log(1), abs=1e-15)


def test_bounds_are_ordered_on_many_models() -> None:
    for seed in range(20):
        model, _ = random_model("full", "mean field", 0.0, seed)
        names = ("ELBO", "Renyi 1/2", "evidence", "CUBO 2", "EUBO")
        low, tighter, evidence, high, eubo = (evaluate(FORMULAS[name], model).value for name in names)
        assert low < tighter < evidence < high
        assert evidence < eubo


# --- large factors ---


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("kind", ["log", "linear"])
def test_a_large_factor_is_read_in_place(kind: str, zeros: bool) -> None:
    """17 variables: more than a block. The same numbers by numpy on the whole table."""
    n = 17
    rng = np.random.default_rng(5)
    table = rng.normal(size=(2,) * n) - 3
    if zeros:
        table[rng.random(table.shape) < 0.01] = -np.inf
    given = table.copy() if kind == "log" else np.exp(table)
    before = given.copy()
    prior, encoder = rng.random((2, n, 2))
    encoder /= encoder.sum(axis=1, keepdims=True)
    factors = [((i,), prior[i]) for i in range(n)] + [Factor(range(n), given, log=kind == "log")]  # type: ignore[arg-type]
    model = FactoredModel([2] * n, factors, [((i,), encoder[i]) for i in range(n)])
    with np.errstate(divide="ignore"):
        log_p = table + np.log(product_of([((i,), prior[i]) for i in range(n)], [2] * n))
    q = product_of([((i,), encoder[i]) for i in range(n)], [2] * n)
    top = log_p.max()
    truth = [
        top + math.log(np.exp(log_p - top).sum()),
        -math.inf if zeros else float((q * (log_p - np.log(q))).sum()),
        2 * math.log(np.sqrt(np.exp(log_p) * q).sum()),
    ]
    formulas = [known.log_evidence, known.elbo, FORMULAS["Renyi 1/2"]]
    together = evaluate_many([formulas[1], formulas[0], formulas[2]], model)
    alone = [evaluate(formula, model).value for formula in formulas]
    assert given.size > LARGE
    assert alone == pytest.approx(truth, abs=1e-10)
    assert [together[i].value for i in (1, 0, 2)] == pytest.approx(truth, abs=1e-10)
    if not zeros:
        posterior = np.exp(log_p - truth[0])
        eubo = float((posterior * (log_p - np.log(q))).sum())
        assert evaluate(known.eubo, model).value == pytest.approx(eubo, abs=1e-10)
    assert np.array_equal(given, before)


def test_the_watch_of_a_large_factor_is_used_only_for_the_encoder() -> None:
    n = 16
    rng = np.random.default_rng(6)
    table = rng.normal(size=(2,) * n)
    model = FactoredModel([2] * n, [Factor(tuple(range(n)), table, log=True)], [((i,), [0.3, 0.7]) for i in range(n)])

    def flat(m: SymbolicModel, x: Term) -> Term:
        return E(normalised(m.latent, lambda z: 0), lambda z: m.log_joint(x, z))

    means = evaluate_many([known.elbo, flat], model)  # no sum reads the factor, so nothing has been taken along
    values = evaluate_many([known.log_evidence, flat, known.elbo], model)
    assert [mean.value for mean in means] == pytest.approx([values[2].value, values[1].value], abs=1e-12)
    assert values[1].value == pytest.approx(float(table.mean()), abs=1e-12)
    assert values[2].value == pytest.approx(evaluate(known.elbo, model).value, abs=1e-12)


def test_a_fully_connected_machine_of_24() -> None:
    """16 million states: packed into three tables and summed by a matrix product. Against sums over 2^12 halves."""
    n = 24
    rng = np.random.default_rng(8)
    couplings = np.triu(0.2 * rng.normal(size=(n, n)), 1)
    bits = (np.arange(2 ** (n // 2))[:, None] >> np.arange(n // 2)) & 1
    a, b, ab = couplings[:12, :12], couplings[12:, 12:], couplings[:12, 12:]
    left, right = np.einsum("si,ij,sj->s", bits, a, bits), np.einsum("si,ij,sj->s", bits, b, bits)
    columns, total = bits.T.astype(float), 0.0
    for start in range(0, 4096, 512):
        rows = slice(start, start + 512)
        total += float(np.exp(left[rows, None] + bits[rows] @ ab @ columns + right - 10).sum())
    pairs = [
        Factor((i, j), [[0.0, 0.0], [0.0, couplings[i, j]]], log=True) for i, j in itertools.combinations(range(n), 2)
    ]
    model = FactoredModel([2] * n, pairs)
    assert evaluate(known.log_evidence, model).value == pytest.approx(math.log(total) + 10, abs=1e-11)


# --- what is refused ---


def small_model(**changes: Any) -> FactoredModel:
    given: dict[str, Any] = {
        "latents": {"a": 2, "b": 2},
        "factors": [(("a", "b"), [[0.1, 0.2], [0.3, 0.4]])],
        "encoder": [("a", [0.5, 0.5]), ("b", [0.5, 0.5])],
    }
    return FactoredModel(**(given | changes))


def test_too_little_memory_is_said_before_any_work() -> None:
    n = 40
    rng = np.random.default_rng(9)
    pairs = [Factor(pair, rng.normal(size=(2, 2)), log=True) for pair in itertools.combinations(range(n), 2)]
    model = FactoredModel([2] * n, pairs, [((i,), [0.5, 0.5]) for i in range(n)])
    with pytest.raises(CannotCompute, match=r"too entangled.*2\^30 numbers.*memory = 67108864"):
        evaluate(known.log_evidence, model)
    assert math.isfinite(evaluate(known.elbo, model).value)  # a mean needs no sum over the joint states
    with pytest.raises(CannotCompute, match="raise memory"):
        evaluate(known.log_evidence, FactoredModel([2] * 18, complete(18)), memory=1000)


def complete(n: int) -> list[tuple[tuple[int, int], list[list[float]]]]:
    return [(pair, [[0.5, 0.4], [0.3, 0.2]]) for pair in itertools.combinations(range(n), 2)]


REFUSED: dict[str, tuple[Formula, str]] = {
    "copies": (lambda m, x: known.iwae(m, x, 3), "K copies"),
    "a square": (
        lambda m, x: E(m.encoder(x), lambda z: m.log_joint(x, z) * m.encoder(x).log_prob(z)),
        "a product of log-densities",
    ),
    "a maximum": (lambda m, x: E(m.encoder(x), lambda z: maximum(0, m.log_joint(x, z))), "max of log-densities"),
    "a corruption": (known.denoising_coupled, "no law of x~"),
    "a mixture": (known.marginal_elbo, "mixture"),
    "a log of a log": (lambda m, x: E(m.encoder(x), lambda z: log(-m.log_joint(x, z))), "its logarithm"),
    "a sum of densities": (
        lambda m, x: E(m.encoder(x), lambda z: log(exp(m.log_joint(x, z)) + exp(m.encoder(x).log_prob(z)))),
        "a sum of densities",
    ),
    "equal states": (lambda m, x: E(m.encoder(x), lambda z: E(m.encoder(x), lambda y: same(z, y))), "one by one"),
    "data": (known.dae_criterion, "x~"),
    "a series": (lambda m, x: known.perturbative(m, x, 2), "is not a sum of them"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_formulas_are_refused_by_name(name: str) -> None:
    formula, reason = REFUSED[name]
    with pytest.raises(CannotCompute) as refusal:
        evaluate(formula, small_model())
    assert reason in refusal.value.reason
    assert refusal.value.term


def test_a_density_that_the_model_lacks() -> None:
    with pytest.raises(BadInput, match="without encoder"):
        evaluate(known.elbo, small_model(encoder=[]))
    with pytest.raises(BadInput, match=r"without likelihood.*child"):
        evaluate(known.reconstruction, small_model())
    with pytest.raises(BadInput, match="a FactoredModel"):
        evaluate(known.elbo, FiniteModel(joint=[[0.5, 0.5]], encoder=[[0.5, 0.5]]))  # type: ignore[arg-type]


EVEN = [[0.5, 0.5], [0.5, 0.5]]
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "negative": (
        {"factors": [(("a", "b"), [[0.1, -0.2], [0.3, 0.4]])]},
        r"entry \[0, 1\] of factors\[0\] = -0.2.*log=True",
    ),
    "NaN": ({"factors": [(("a", "b"), [[0.1, 0.2], [math.nan, 0.4]])]}, r"entry \[1, 0\] of factors\[0\] = nan"),
    "infinite": ({"factors": [(("a", "b"), [[0.1, math.inf], [0.3, 0.4]])]}, "finite number"),
    "infinite log": ({"factors": [Factor(("a", "b"), [[0.1, math.inf], [0.3, 0.4]], log=True)]}, "below"),
    "NaN log": ({"factors": [Factor(("a", "b"), [[math.nan, 0], [0.3, 0.4]], log=True)]}, "below"),
    "text": ({"factors": [(("a", "b"), [["x", "y"], ["z", "w"]])]}, "nested lists of numbers"),
    "ragged": ({"factors": [(("a", "b"), [[0.1], [0.3, 0.4]])]}, "all of one length"),
    "complex": ({"factors": [(("a", "b"), [[1j, 0], [0, 0]])]}, "nested lists of numbers"),
    "empty": ({"factors": [(("a", "b"), np.ones((0, 2)))]}, "at least one entry"),
    "shape": ({"factors": [(("a", "b"), [0.1, 0.2])]}, r"shape of factors\[0\] = \(2,\): expected \(2, 2\)"),
    "unknown variable": ({"factors": [(("a", "c"), EVEN)]}, r"factors\[0\] = 'c': expected a known variable"),
    "boolean variable": ({"latents": [2, 2], "factors": [((0, True), EVEN)], "encoder": []}, "a known variable"),
    "repeated variable": ({"factors": [(("a", "a"), EVEN)]}, "each variable once"),
    "scope of another kind": ({"factors": [(1.5, EVEN)]}, "a tuple of variables"),
    "uncovered variable": ({"factors": [("a", [0.5, 0.5])]}, "none over 'b'"),
    "not a factor": ({"factors": [3]}, "a Factor or a pair"),
    "not a list": ({"factors": Factor("a", [1, 1])}, "a list of factors"),
    "no states": ({"latents": {"a": 2, "b": 0}}, "number of states of 'b' = 0"),
    "no latents": ({"latents": {}}, "at least one variable"),
    "latents of another kind": ({"latents": 3}, "number of states of each"),
    "false child": ({"factors": [Factor(("a", "b"), EVEN, child="c")]}, "known variable"),
    "child outside": ({"factors": [Factor("a", [1, 1], child="b"), ("b", [1, 1])]}, "variables of its scope"),
    "factor that is no conditional": ({"factors": [Factor(("a", "b"), EVEN, child=("a", "b"))]}, "1 over its child"),
    "encoder that does not sum to one": (
        {"encoder": [("a", [0.5, 0.5]), ("b", [0.5, 0.4])]},
        r"sum of encoder\[1\] = 0.9",
    ),
    "encoder row": (
        {"encoder": [("a", [0.5, 0.5]), Factor(("a", "b"), [[0.5, 0.5], [0.5, 0.6]], child="b")]},
        r"sum of encoder\[1\] at \[1\] = 1.1",
    ),
    "encoder in logs": ({"encoder": [("b", [0.5, 0.5]), Factor("a", [-0.1, -0.2], log=True)]}, "1 over its child"),
    "encoder without a child": ({"encoder": [(("a", "b"), EVEN)]}, r"child of encoder\[0\] = None"),
    "encoder that lacks one": ({"encoder": [("a", [0.5, 0.5])]}, "no factor of 'b'"),
    "encoder with two": ({"encoder": [("a", [0.5, 0.5]), ("a", [0.5, 0.5]), ("b", [0.5, 0.5])]}, "two factors of 'a'"),
    "encoder with a cycle": (
        {"encoder": [Factor(("a", "b"), EVEN, child="b"), Factor(("b", "a"), EVEN, child="a")]},
        "a cycle among 'b', 'a'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str) -> None:
    changes, message = BAD[name]
    with pytest.raises(BadInput, match=message):
        small_model(**changes)


def test_a_constant_beyond_the_floats() -> None:
    model = small_model()
    assert evaluate(lambda m, x: log(integrate(m.latent, lambda z: 1)), model).value == pytest.approx(math.log(4))
    tiny = Fraction(1, 10**400)
    shifted = evaluate(lambda m, x: log(tiny * exp(known.log_evidence(m, x))), model)
    assert shifted.value == pytest.approx(math.log(1.0) - 400 * math.log(10), abs=1e-9)
    with pytest.raises(BoundcheckError, match="beyond the range"):
        evaluate(lambda m, x: 10**400 + known.log_evidence(m, x), model)
