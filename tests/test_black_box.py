"""Python callables in the place of formulas: numerical at best, one number or one clear error, searched and shrunk."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest

from boundcheck import (
    BadInput,
    Claim,
    E,
    FiniteModel,
    Guarantee,
    ObjectiveFailed,
    Outcome,
    Space,
    black_box,
    check,
    check_model,
    evaluate,
    finite_models,
    integrate,
    survey,
)
from boundcheck.catalogue.objectives import denoising_decoupled, elbo, log_evidence
from boundcheck.claims.box import prove_on_box
from boundcheck.evaluators.black_box import DEFAULT_ERROR, BlackBox
from boundcheck.models import LinearGaussianModel
from boundcheck.search.batch import Sizes, margins, needs
from boundcheck.search.failing import shrunk, smallest_failure
from boundcheck.search.falsify import falsify
from boundcheck.search.propose import random_batch

MODEL = FiniteModel(prior=["1/3", "2/3"], likelihood=[["1/4", "3/4"], ["1/2", "1/2"]], encoder=[["1/5", "4/5"]] * 2)


def constant(value: Any, **settings: Any) -> BlackBox:
    return black_box(lambda m, x: value, name="constant", **settings)


def numpy_elbo(m: Any, x: int) -> Any:
    q, p = m.encoder[x], m.joint[x]
    seen = q > 0
    return np.sum(q[seen] * (np.log(p[seen]) - np.log(q[seen])))


def numpy_decoupled(m: Any, x: int) -> Any:
    """The decoupled denoising objective as loops over numpy tables, for models whose tables are positive."""
    total = 0.0
    for c, weight in zip(m.corruption[x], m.encoder, strict=True):
        mean = m.corruption[x] @ m.encoder
        total += c * np.sum(mean * (np.log(m.joint[x]) - np.log(weight)))
    return total


def torch_decoupled(m: Any, x: int) -> Any:
    import torch

    mean = m.corruption[x] @ m.encoder
    inner = torch.log(m.joint[x])[None, :] - torch.log(m.encoder)
    return (m.corruption[x][:, None] * mean[None, :] * inner).sum()


def batched_decoupled(m: Any, x: int) -> Any:
    corruption = m.corruption[:, x]
    mean = np.einsum("bc,bcz->bz", corruption, m.encoder)
    inner = np.log(m.joint[:, x])[:, None, :] - np.log(m.encoder)
    return np.einsum("bc,bz,bcz->b", corruption, mean, inner)


# --- numbers -------------------------------------------------------------------------------------------------------


def test_black_boxes_agree_with_formulas_on_models_with_all_corners() -> None:
    """numpy loops share no code with the evaluators."""
    compared = 0
    for model in finite_models(40, seed=3):
        for x in range(model.sizes["x"]):
            positive = all((model.table(role) > 0).all() for role in ("joint", "encoder"))
            for box, formula in ((numpy_elbo, elbo), (numpy_decoupled, denoising_decoupled)):
                if box is numpy_decoupled and not positive:
                    continue
                value = evaluate(black_box(box, reads=("encoder", "corruption")), model, x)
                truth = float(evaluate(formula, model, x))
                if math.isfinite(truth) and math.isfinite(float(value)):
                    assert float(value) == pytest.approx(truth, abs=1e-9)
                    compared += 1
    assert compared > 80


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (2, 2e-6),
        (0.5, 1e-6),
        (-4.0, 4e-6),
        (Fraction(1, 2), 1e-6),
        (np.float64(0.5), 1e-6),
        (np.array(0.5), 1e-6),
        (np.int32(3), 3e-6),
        (np.float32(0.5), 8192 * 2**-23),
        (np.float16(0.5), 8.0),
    ],
    ids=repr,
)
def test_a_number_is_granted_the_documented_error(value: Any, error: float) -> None:
    result = evaluate(constant(value), MODEL)
    assert float(result) == float(value)
    assert result.error == pytest.approx(error)  # type: ignore[union-attr]


def test_torch_numbers_are_granted_the_error_of_their_type() -> None:
    torch = pytest.importorskip("torch")
    for kind, error in ((torch.float64, 1e-6), (torch.float32, 8192 * 2**-23), (torch.bfloat16, 64.0)):
        result = evaluate(constant(torch.tensor(0.5, dtype=kind, requires_grad=True)), MODEL)
        assert (float(result), result.error) == (0.5, pytest.approx(error))  # type: ignore[union-attr]


def test_a_torch_function_is_given_tensors_and_found_out() -> None:
    pytest.importorskip("torch")
    box = black_box(torch_decoupled, reads=READS, takes="tensors")
    model = FiniteModel(
        prior=["1/2", "1/2"],
        likelihood=[["1/2", "1/2"]] * 2,
        corruption=[["1/2", "1/2"]] * 2,
        encoder=[[0.1, 0.9], [0.9, 0.1]],
    )
    assert str(check(Claim("c", box, "<=", log_evidence), model)) == "violated (numerical)"
    claim = Claim("c", box, "<=", log_evidence)
    batch = random_batch(np.random.default_rng(0), Sizes(2, 2, 2), needs(claim), 20, zeros=False)
    for margin, i in zip(margins(claim, batch), range(20), strict=True):
        assert margin == pytest.approx(check(claim, batch.model(i)).margin, abs=1e-9)


@pytest.mark.parametrize("relation", ["<=", "=="])
@pytest.mark.parametrize("error", [None, 1e-3, 0])
def test_a_verdict_is_given_only_beyond_the_error(relation: Any, error: float | None) -> None:
    granted = 1e-6 if error is None else max(error, 1e-15)
    truth = float(evaluate(log_evidence, MODEL))
    for margin, expected in ((-2, "violated"), (-0.5, "undecided"), (0.5, "undecided"), (2, "holds")):
        verdict = check(Claim("c", constant(truth - margin * granted, error=error), relation, log_evidence), MODEL)
        if relation == "==" and expected == "holds":
            expected = "violated"
        assert verdict.outcome.value == expected, (margin, verdict)
        assert verdict.guarantee in (Guarantee.NUMERICAL, None)


def test_no_verdict_on_a_black_box_is_exact_not_even_of_itself() -> None:
    box = black_box(numpy_elbo)
    assert check(Claim("same", box, "<=", box), MODEL).outcome is Outcome.UNDECIDED
    for model in finite_models(20, seed=1):
        for claim in (Claim("below", box, "<=", log_evidence), Claim("equal", box, "==", elbo)):
            verdict = check_model(claim, model).verdict
            assert verdict.guarantee in (Guarantee.NUMERICAL, None)
            assert verdict.outcome is not Outcome.VIOLATED


@pytest.mark.parametrize("value", [math.inf, -math.inf, 10**400], ids=["inf", "-inf", "beyond floats"])
@pytest.mark.parametrize("side", ["lhs", "rhs"])
@pytest.mark.parametrize("error", [None, 0.0])
def test_an_infinity_may_be_an_overflow_and_decides_nothing(value: float, side: str, error: float | None) -> None:
    box = constant(value, error=error)
    claim = Claim("c", box, "<=", log_evidence) if side == "lhs" else Claim("c", log_evidence, "<=", box)
    verdict = check(claim, MODEL)
    assert verdict.outcome is Outcome.UNDECIDED
    assert "overflow" in verdict.reason


def test_a_callable_that_works_in_place_changes_nobodys_model() -> None:
    def careless(m: Any, x: int) -> float:
        m.joint[x] /= m.joint[x].sum()
        return float(np.log(m.joint[x].sum()))

    before = MODEL.to_json()
    assert evaluate(black_box(careless), MODEL) == evaluate(black_box(careless), MODEL)
    assert MODEL.to_json() == before
    assert not falsify(Claim("c", black_box(careless), "<=", constant(0.5)), budget=200).found


def test_a_probability_that_floats_cannot_hold_is_refused() -> None:
    """In floats it would be zero, or have few digits: another model than the one that the verdict is about."""
    for power in (310, 400):
        small = Fraction(1, 10**power)
        model = FiniteModel(prior=[small, 1 - small], likelihood=[[1], [1]], encoder=[["1/2", "1/2"]])
        with pytest.raises(BadInput, match="an entry of prior"):
            check(Claim("c", black_box(numpy_elbo), "<=", log_evidence), model)


# --- what is no number ---------------------------------------------------------------------------------------------


def failing(kind: str) -> BlackBox:
    """Fails where an encoder's row has an entry below 1/10, and nowhere else."""

    def fails(m: Any, x: int) -> Any:
        row = m.encoder[x]
        if row.min() >= 0.1 or len(row) == 1:
            return -100.0
        if kind == "raised ValueError":
            raise ValueError("an entry\nis small")
        if kind == "raised SystemExit":
            raise SystemExit(1)
        return {"nan": math.nan, "array": row, "no number": None}[kind]

    return black_box(fails)


@pytest.mark.parametrize("kind", ["nan", "array", "no number", "raised ValueError", "raised SystemExit"])
def test_a_failure_is_one_line_with_the_smallest_model_on_which_it_is_one(kind: str) -> None:
    claim = Claim("c", failing(kind), "<=", log_evidence)
    with pytest.raises(ObjectiveFailed) as error:
        falsify(claim)
    failure = error.value
    assert (failure.kind, failure.objective) == (kind, "fails")
    assert isinstance(failure.model, FiniteModel)
    assert failure.model.sizes == {"x": 1, "z": 2}
    assert failure.model.to_json()["likelihood"] == [["1"], ["1"]]
    assert max(entry.denominator for entry in failure.model.table("encoder").reshape(-1)) <= 20
    assert "\n" not in str(failure) and "Traceback" not in str(failure)


@pytest.mark.parametrize("value", ["1.0", True, 1j, None, [0.5], np.array([0.5]), np.array([[1.0, 2.0]]), {}], ids=repr)
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(ObjectiveFailed, match="expected one number in nats"):
        evaluate(constant(value), MODEL)


def test_another_number_at_a_second_call_is_a_failure() -> None:
    rng = np.random.default_rng(0)
    noisy = black_box(lambda m, x: float(rng.normal()), name="noisy")
    with pytest.raises(ObjectiveFailed, match="when it was called again"):
        check(Claim("c", noisy, "<=", log_evidence), MODEL)
    with pytest.raises(ObjectiveFailed, match="when it was called again"):
        falsify(Claim("c", noisy, "<=", constant(100.0)), budget=100)
    assert evaluate(black_box(lambda m, x: float(rng.uniform(0, 1e-9))), MODEL) is not None


def test_the_line_of_the_mistake_is_named() -> None:
    with pytest.raises(ObjectiveFailed, match=r"ZeroDivisionError: division by zero \(line \d+ of test_black_box.py\)"):
        evaluate(black_box(lambda m, x: 1 / 0), MODEL)


def test_a_table_that_was_not_declared_is_named() -> None:
    claim = Claim("c", black_box(lambda m, x: float(m.corruption[x, 0])), "<=", log_evidence)
    with pytest.raises(ObjectiveFailed, match=r"no corruption.*black_box\(reads="):
        falsify(claim, budget=10)


def test_where_the_claim_says_nothing_a_failure_is_none() -> None:
    """log p(x) = -inf is nobody's bound: the claim does not speak of impossible observations."""

    def log_joint(m: Any, x: int) -> float:
        return math.nan if not m.joint[x].any() else -50.0

    model = FiniteModel(prior=[1], likelihood=[[1, 0]], encoder=[[1], [1]])
    claim = Claim("c", black_box(log_joint), "<=", log_evidence)
    assert check_model(claim, model).verdict.outcome is Outcome.HOLDS
    assert not falsify(claim, budget=2000).found


def test_a_failure_at_another_observation_is_shrunk_to_the_first() -> None:
    def fails(m: Any, x: int) -> float:
        return math.nan if m.joint[x].sum() < 0.2 else -100.0

    model = FiniteModel(
        prior=["1/7", "6/7"],
        likelihood=[["3/4", "3/16", "1/16"], ["5/6", "1/12", "1/12"]],
        encoder=[["1/7", "6/7"]] * 3,
        corruption=[["1/3", "1/3", "1/3"]] * 3,
    )
    claim = Claim("c", black_box(fails), "<=", log_evidence)
    with pytest.raises(ObjectiveFailed) as error, smallest_failure(claim):
        check_model(claim, model)
    small = error.value.model
    assert isinstance(small, FiniteModel)
    assert (error.value.x, small.sizes) == (0, {"x": 2, "z": 1})


def test_a_failure_on_a_model_that_is_no_table_stays_as_it_is() -> None:
    claim = Claim("c", constant(math.nan, takes="model"), "<=", log_evidence)
    failure = ObjectiveFailed("constant", "nan", "returned nan", "some model", 0.5)
    assert shrunk(claim, failure) is failure


# --- search --------------------------------------------------------------------------------------------------------

READS = ("encoder", "corruption")


@pytest.mark.parametrize(
    "box",
    [
        black_box(numpy_decoupled, reads=READS, clean_encoder=False),
        black_box(batched_decoupled, reads=READS, clean_encoder=False, batched=True),
    ],
    ids=["numpy", "batched"],
)
def test_a_false_black_box_is_broken_and_shrunk(box: BlackBox) -> None:
    search = falsify(Claim("decoupled", box, "<=", log_evidence), seed=1)
    assert search.witness is not None
    verdict, model = search.witness.verdict, search.witness.model
    assert isinstance(model, FiniteModel)
    assert str(verdict) == "violated (numerical)"
    assert model.sizes == {"x": 1, "z": 2, "x~": 2}
    entries = [entry for role in ("prior", "encoder", "corruption") for entry in model.table(role).reshape(-1)]
    assert max(entry.denominator for entry in entries) <= 10
    truth = check(Claim("formula", denoising_decoupled, "<=", log_evidence), model)
    assert str(truth) == "violated (exact)"
    assert float(verdict.lhs) == pytest.approx(float(truth.lhs))  # type: ignore[arg-type]


def test_a_batch_that_fails_only_as_a_batch_is_told() -> None:
    def ravelled(m: Any, x: int) -> Any:
        return np.atleast_1d(np.squeeze(m.encoder[:, x].sum(axis=-1) * 0 - 50)) if len(m.prior) == 1 else np.zeros(3)

    claim = Claim("c", black_box(ravelled, batched=True), "<=", log_evidence)
    with pytest.raises(ObjectiveFailed, match="an array of shape"):
        falsify(claim, budget=100)


def test_a_clean_encoder_has_a_row_for_each_observation() -> None:
    claim = Claim("c", black_box(numpy_decoupled, reads=READS), "<=", log_evidence)
    witness = falsify(claim).witness
    assert witness is not None and isinstance(witness.model, FiniteModel)
    assert witness.model.sizes["x"] == witness.model.sizes["x~"]
    narrow = FiniteModel(prior=[1], likelihood=[[1]], corruption=[["1/2", "1/2"]], encoder=[[1], [1]])
    with pytest.raises(BadInput, match=r"q\(z\|x\)"):
        check(claim, narrow)


def test_stated_numbers_of_states_are_kept_to() -> None:
    seen: set[tuple[int, ...]] = set()

    def of_four(m: Any, x: int) -> float:
        seen.add(m.prior.shape)
        return float(np.log(m.joint[x].sum())) + 0.01

    claim = Claim("c", black_box(of_four, states={"z": 4}), "<=", log_evidence)
    witness = falsify(claim).witness
    assert witness is not None and isinstance(witness.model, FiniteModel)
    assert seen == {(4,)}
    assert witness.model.sizes["z"] == 4
    assert "other numbers of states" in check(claim, MODEL).reason
    assert not falsify(Claim("one", black_box(numpy_elbo, states={"z": 1}), "<=", log_evidence), budget=500).found
    with pytest.raises(BadInput, match="states"):
        falsify(Claim("none", black_box(numpy_decoupled, reads=READS, states={"x": 1, "x~": 2}), "<=", log_evidence))


def test_a_survey_says_violated_and_not_refuted() -> None:
    found = survey(Claim("c", black_box(lambda m, x: 1.0, name="one"), "<=", log_evidence), count=3)
    assert (found.outcome, found.status.value, found.guarantee) == (Outcome.VIOLATED, "undecided", Guarantee.NUMERICAL)
    true = survey(Claim("c", black_box(numpy_elbo), "==", elbo), count=5)
    assert (true.outcome, true.status.value) == (Outcome.UNDECIDED, "undecided")
    below = survey(Claim("c", black_box(lambda m, x: -100.0), "<=", log_evidence), count=5)
    assert (below.outcome, below.status.value, below.guarantee) == (
        Outcome.UNDECIDED,
        "survived",
        Guarantee.NUMERICAL,
    )


# --- continuous models ---------------------------------------------------------------------------------------------


def test_a_black_box_may_be_about_continuous_models() -> None:
    """ELBO of z ~ N(0,1), x|z ~ N(z,1), q = N(x/2, 1/4), at x = 1, by its closed form, written down anew."""

    def closed(m: LinearGaussianModel, x: float) -> float:
        ((a,),) = m.law("encoder").matrices[0]
        ((v,),) = m.law("encoder").covariance
        mean = a * x
        reconstruction = -0.5 * ((x - mean) ** 2 + v + math.log(2 * math.pi))
        return reconstruction - 0.5 * (v + mean**2 - 1 - math.log(v))

    model = LinearGaussianModel(prior=(0, 1), likelihood=(1, 0, 1), encoder=(0.5, 0, 0.25))
    box = black_box(closed, takes="model")
    assert float(evaluate(box, model, 1.0)) == pytest.approx(float(evaluate(elbo, model, 1.0)), abs=1e-12)
    assert str(check(Claim("c", box, "<=", log_evidence), model, 1.0)) == "holds (numerical)"
    high = black_box(lambda m, x: closed(m, x) + 1, takes="model")
    assert str(check(Claim("c", high, "<=", log_evidence), model, 1.0)) == "violated (numerical)"
    with pytest.raises(BadInput, match='takes="model"'):
        check(Claim("c", black_box(numpy_elbo), "<=", log_evidence), model, 1.0)


# --- claims --------------------------------------------------------------------------------------------------------


def interval(name: str, high: int) -> Any:
    return lambda m, x: integrate(Space(name, (Fraction(0), Fraction(high))), lambda u: 1)


@pytest.mark.parametrize(
    ("lhs", "rhs", "told"),
    [
        (interval("u", 1), interval("u", 2), "one interval by that name"),
        (lambda m, x: integrate(Space("u"), lambda u: 1), log_evidence, "x, z or x~"),
        (black_box(numpy_elbo), interval("u", 1), "which takes tables"),
        (constant(0, states={"z": 2}), constant(0, states={"z": 3}), "the latent space z"),
        (constant(0, states={"x": 2}), constant(0, states={"x": 3}), "the space x"),
    ],
    ids=["two intervals", "no bounds", "tables and interval", "two sizes of z", "two sizes of x"],
)
def test_sides_that_no_model_can_have_both_of_are_refused(lhs: Any, rhs: Any, told: str) -> None:
    with pytest.raises(BadInput, match=told) as error:
        Claim("c", lhs, "<=", rhs)
    assert "\n" not in str(error.value)


def test_sides_that_share_an_interval_are_a_claim() -> None:
    assert Claim("c", interval("u", 1), "<=", interval("u", 1)).relation == "<="
    assert Claim("c", constant(0, takes="model"), "<=", interval("u", 1)).roles >= {"encoder"}


def test_a_black_box_has_no_formula_to_prove() -> None:
    claim = Claim("c", black_box(numpy_elbo), "<=", log_evidence)
    assert str(claim) == "numpy_elbo(m, x) <= log sum_z p(x,z)"
    assert claim.latex.startswith(r"\mathtt{numpy\_elbo}(m, x) \le")
    assert claim.to_json()["text"] == str(claim)
    with pytest.raises(BadInput, match="a black box"):
        prove_on_box(claim, seconds=1)
    with pytest.raises(BadInput, match="no gap"):
        Claim("c", black_box(numpy_elbo), "<=", log_evidence, gap=lambda m, x: E(m.encoder(x), lambda z: 0))


def test_a_black_box_is_a_decorator_and_still_a_function() -> None:
    @black_box(error=1e-3, reads="encoder")  # type: ignore[arg-type]
    def mine(m: Any, x: int) -> float:
        return 0.25

    assert (mine.name, mine.error, mine.reads, mine(None, 0)) == ("mine", 1e-3, ("encoder",), 0.25)
    assert black_box(partial(lambda m, x, k: k, k=3), name="").name == "<lambda>(k=3)"
    assert mine == BlackBox(mine.function, 1e-3) and hash(mine) == hash(BlackBox(mine.function, 1e-3))
    assert DEFAULT_ERROR == 1e-6


@pytest.mark.parametrize(
    "settings",
    [
        {"error": -1},
        {"error": math.nan},
        {"error": "small"},
        {"takes": "lists"},
        {"reads": ("posterior",)},
        {"states": {"y": 2}},
        {"states": {"z": 0}},
        {"batched": True, "takes": "model"},
    ],
    ids=repr,
)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        black_box(numpy_elbo, **settings)


def test_what_is_no_function_is_refused() -> None:
    for value in (3, black_box(numpy_elbo)):
        with pytest.raises(BadInput, match="black_box"):
            black_box(value)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="partial"):
        evaluate(black_box(numpy_elbo), MODEL, k=3)
