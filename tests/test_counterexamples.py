"""The counterexamples: published figures, closed forms, the scripts that run alone, and every saved witness again."""

from __future__ import annotations

import importlib.util
import itertools
import math
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import pytest
import sympy

from boundcheck import Exact, FiniteModel, evaluate, find, load_witness
from boundcheck.catalogue import claims
from boundcheck.catalogue.denoising import bernoulli
from boundcheck.catalogue.objectives import (
    denoising_coupled,
    denoising_decoupled,
    elbo,
    hvm,
    hvm_prior,
    iwae,
    log_evidence,
    marginal_elbo,
    tempered,
)
from boundcheck.claims.decide import Outcome
from boundcheck.errors import CannotCompute
from boundcheck.evaluators.lognumber import LogNumber
from boundcheck.language import E, Formula
from boundcheck.reproduce.bernoulli import CURVE, OBJECTIVES, closed_form, reproduce
from boundcheck.reproduce.symbolic import symbolic_value

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "counterexamples"
SAVED = sorted([FOLDER / "bernoulli.json", *(FOLDER / "witnesses").glob("*.json")])


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"counterexample_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_script(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def exactly(formula: Formula, model: FiniteModel) -> LogNumber:
    value = evaluate(formula, model)
    assert isinstance(value, Exact)
    return value.value


# --- the counterexample of Tran and Ranganath ----------------------------------------------------------------------


def test_the_published_figures() -> None:
    """log(5/3) is the blog's; the coupled value and the marginal ELBO are what it does not say."""
    values = reproduce().values
    assert str(values["L, decoupled"]) == "log(5/3)"
    assert f"{float(values['L, decoupled']):.12f}" == "0.510825623766"
    assert f"{float(values['L, coupled']):.6f}" == "-0.368064"
    assert str(values["log p(x)"]) == str(values["ELBO of q~"]) == "0"


def test_each_reading_keeps_one_half_of_the_sandwich() -> None:
    found = {reading: [str(half.verdict) for half in halves] for reading, halves in reproduce().sandwich.items()}
    assert found == {
        "decoupled": ["violated (exact)", "holds (exact)"],
        "coupled": ["holds (exact)", "violated (exact)"],
    }


def test_the_readings_are_known_objectives() -> None:
    found = reproduce()
    assert [str(check.verdict) for check in found.identities] == 3 * ["holds (exact)"]
    values = {name: value.value for name, value in found.values.items() if isinstance(value, Exact)}
    assert values["SIVI_1 without x~_0"] == values["L, decoupled"]
    assert values["SIVI_0"] == values["HVM with r = c"] == values["L, coupled"]


def by_hand(s: Fraction) -> tuple[LogNumber, LogNumber]:
    """The decoupled and the coupled objective, derived on paper: -log(4 s (1-s)) / 2 and H(s) - log 2."""
    decoupled = LogNumber.log(4 * s * (1 - s)) * Fraction(-1, 2)
    coupled = -(LogNumber.log(s) * s) - LogNumber.log(1 - s) * (1 - s) - LogNumber.log(2)
    return decoupled, coupled


def test_the_closed_forms_hold_exactly_at_many_s() -> None:
    rng = random.Random(0)
    sharpness = [Fraction(rng.randint(1, n - 1), n) for n in rng.sample(range(2, 10_000), 40)]
    for s in (*sharpness, *CURVE):
        model = bernoulli(str(s))
        decoupled, coupled = by_hand(s)
        assert exactly(denoising_decoupled, model) == decoupled
        assert exactly(denoising_coupled, model) == coupled
        assert exactly(marginal_elbo, model) == exactly(log_evidence, model) == 0


def test_sympy_derives_the_forms_that_were_derived_by_hand() -> None:
    s = sympy.Symbol("s", positive=True)
    by_formula = {
        denoising_decoupled: (-sympy.log(s) / 2 - sympy.log(1 - s) / 2 - sympy.log(2), sympy.oo),
        denoising_coupled: (-s * sympy.log(s) - (1 - s) * sympy.log(1 - s) - sympy.log(2), -sympy.log(2)),
        hvm_prior: (-s * sympy.log(s) - (1 - s) * sympy.log(1 - s) - sympy.log(2), -sympy.log(2)),
        marginal_elbo: (sympy.Integer(0), sympy.Integer(0)),
        log_evidence: (sympy.Integer(0), sympy.Integer(0)),
    }
    for formula, (expression, limit) in by_formula.items():
        found = closed_form(formula)
        assert sympy.expand(found.expression - expression) == 0
        assert found.limit == limit


def test_the_curve_grows_beyond_every_bound_and_the_other_does_not() -> None:
    found = reproduce()
    decoupled = [value.value for _, value in found.curve["L, decoupled"] if isinstance(value, Exact)]
    coupled = [value.value for _, value in found.curve["L, coupled"] if isinstance(value, Exact)]
    assert len(decoupled) == len(coupled) == len(CURVE)
    assert all(low < high for low, high in itertools.pairwise(decoupled))
    assert all(-LogNumber.log(2) < value <= 0 for value in coupled)
    # At s = 1 the encoder never says what another x~ would say: the objective is infinite, and that is its value.
    assert exactly(denoising_decoupled, bernoulli("1")) == LogNumber.log(0) * -1
    assert exactly(denoising_coupled, bernoulli("1")) == -LogNumber.log(2)


def random_rows(rng: random.Random, *shape: int) -> list:
    if len(shape) > 1:
        return [random_rows(rng, *shape[1:]) for _ in range(shape[0])]
    entries = [rng.randint(1, 9) for _ in range(shape[0])]
    return [Fraction(entry, sum(entries)) for entry in entries]


@pytest.mark.parametrize("formula", [log_evidence, elbo, marginal_elbo, denoising_decoupled, hvm])
def test_the_symbolic_evaluator_agrees_with_the_exact_one(formula: Formula) -> None:
    rng = random.Random(1)
    tables = {
        "prior": random_rows(rng, 2),
        "likelihood": random_rows(rng, 2, 3),
        "corruption": random_rows(rng, 3, 3),
        "encoder": random_rows(rng, 3, 2),
        "auxiliary": random_rows(rng, 2, 3, 3),
    }
    joint = [[tables["prior"][z] * tables["likelihood"][z][x] for z in range(2)] for x in range(3)]
    symbols = {role: sympy.sympify(table, rational=True) for role, table in {**tables, "joint": joint}.items()}
    model = FiniteModel(**tables)
    for x in range(3):
        expected = evaluate(formula, model, x)
        assert isinstance(expected, Exact)
        found = symbolic_value(formula, symbols, model.sizes, x)
        assert abs(sympy.N(found - expected.value.to_sympy(), 40)) < sympy.Float("1e-35")


def test_the_symbolic_evaluator_takes_laws_normalised_in_the_formula() -> None:
    half, third = sympy.Rational(1, 2), sympy.Rational(1, 3)
    tables = {"joint": [[half, half / 2]], "encoder": [[third, 2 * third]]}

    def formula(m, x):
        return E(tempered(m, x, "1/2"), lambda z: m.log_joint(x, z))

    value = symbolic_value(formula, tables, {"x": 1, "z": 2})
    weights = [math.sqrt(1 / 3 * 1 / 2), math.sqrt(2 / 3 * 1 / 4)]
    by_numbers = (weights[0] * math.log(1 / 2) + weights[1] * math.log(1 / 4)) / sum(weights)
    assert math.isclose(float(value), by_numbers, rel_tol=1e-12)


def test_the_symbolic_evaluator_refuses_copies() -> None:
    with pytest.raises(CannotCompute, match="copies"):
        symbolic_value(lambda m, x: iwae(m, x, 2), {}, {"x": 1, "z": 2})


# --- the scripts ---------------------------------------------------------------------------------------------------


def test_the_script_runs_alone_and_saves_what_is_in_the_repository(tmp_path: Path) -> None:
    saved = tmp_path / "bernoulli.json"
    out = run_script("counterexamples/bernoulli.py", "--save", str(saved), "--plot", str(tmp_path / "curve.png"))
    assert "log(5/3)" in out
    assert "decoupled-below-evidence            violated (exact)" in out
    assert saved.read_bytes() == (FOLDER / "bernoulli.json").read_bytes()
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_script_writes_the_formulas_that_the_catalogue_has() -> None:
    from boundcheck.language import trace

    own = script("bernoulli").OBJECTIVES
    names = ["log p(x)", "ELBO of q~", "L, decoupled", "L, coupled", "SIVI_1 without x~_0"]
    for name in names:
        assert trace(own[name]) == trace(OBJECTIVES[name]), name
    assert own.keys() <= OBJECTIVES.keys()


def test_ascent_on_the_decoupled_objective_runs_away_and_on_the_coupled_one_converges() -> None:
    pytest.importorskip("torch")
    blow_up = script("blow_up")
    decoupled, coupled = ([value for _, _, value in blow_up.ascend(coupled=each)] for each in (False, True))
    assert all(low < high for path in (decoupled, coupled) for low, high in itertools.pairwise(path))
    assert decoupled[0] > 0  # above log p(x) from the start
    late = [high - low for low, high in zip(decoupled[-5:], decoupled[-4:], strict=False)]
    assert min(late) > 0.12  # it does not level off: the slope tends to STEP / 4 = 1/8 nat a step
    assert all(value <= 0 for value in coupled)
    assert abs(coupled[-1]) < 1e-3


def test_what_is_ascended_is_the_objective() -> None:
    torch = pytest.importorskip("torch")
    blow_up = script("blow_up")
    for s in (Fraction(1, 2), Fraction(9, 10), Fraction(999, 1000)):
        theta = torch.tensor(math.log(s / (1 - s)), dtype=torch.float64)
        for coupled, formula in ((True, denoising_coupled), (False, denoising_decoupled)):
            expected = float(evaluate(formula, bernoulli(str(s))))
            assert math.isclose(blow_up.objective(theta, coupled).item(), expected, rel_tol=1e-9, abs_tol=1e-12)


# --- saved witnesses -----------------------------------------------------------------------------------------------


def test_there_are_saved_witnesses() -> None:
    assert len(SAVED) > 15


@pytest.mark.parametrize("file", SAVED, ids=lambda file: file.stem)
def test_a_saved_witness_is_still_one(file: Path) -> None:
    witness = load_witness(file)
    verdict = witness.replay()
    assert verdict.outcome is Outcome.VIOLATED
    assert witness.is_as_recorded(verdict)


@pytest.mark.parametrize("file", SAVED[1:], ids=lambda file: file.stem)
def test_a_saved_witness_is_of_the_claim_as_the_catalogue_has_it(file: Path) -> None:
    claim, saved = find(file.stem), load_witness(file).claim
    remedy = "the claim has changed: run python counterexamples/witnesses.py"
    assert (claim.terms, claim.relation, claim.covering) == (saved.terms, saved.relation, saved.covering), remedy


def test_every_claim_with_a_known_witness_has_a_saved_one() -> None:
    known = {name for name, claim in claims().items() if claim.witness is not None}
    assert known <= {file.stem for file in SAVED}
