"""Finite models: what a table may hold, which mistake is named how, product spaces, and files."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import oracle
import pytest
from expected import OBJECTIVES
from helpers import enclosure, exact, finite, floating, oracle_models, value_or_none

from boundcheck.catalogue import objectives
from boundcheck.errors import BadInput, BoundcheckError, CannotComputeExactly
from boundcheck.language.terms import CORRUPTED, Space, X, Z
from boundcheck.models.finite import FiniteModel, load_model
from boundcheck.models.tables import FLOAT_ROW_TOLERANCE

F = Fraction
ONE = {"prior": [1], "likelihood": [[1]]}
GOOD: dict[str, Any] = {
    "prior": ["1/2", "1/2"],
    "likelihood": [[1, 0, 0], ["1/3", "1/3", "1/3"]],
    "encoder": [["1/4", "3/4"], [1, 0]],
    "corruption": [["1/2", "1/2"], [0, 1], [1, 0]],
    "auxiliary": [[["1/2", "1/2"]] * 3, [["1/5", "4/5"]] * 3],
}


def broken(**tables: Any) -> dict[str, Any]:
    return {name: table for name, table in {**GOOD, **tables}.items() if table is not None}


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "a row that does not sum to one": (
        broken(likelihood=[[1, 0, 0], ["1/3", "1/3", "1/2"]]),
        "the sum of row 1 of likelihood = '7/6': expected 1; give probabilities as",
    ),
    "a prior that does not sum to one": (broken(prior=["1/2", "1/3"]), "the sum of prior = '5/6': expected 1"),
    "a row of an auxiliary, counted over z and x": (
        broken(auxiliary=[[["1/2", "1/2"]] * 3, [["1/5", "4/5"], ["1/5", "4/5"], ["1/5", "1/5"]]]),
        "the sum of row 5 of auxiliary = '2/5': expected 1",
    ),
    "a joint that does not sum to one": (
        {"joint": [["1/2", "1/4"], ["1/8", "1/16"]]},
        "the sum of joint = '15/16': expected 1",
    ),
    "a row nearly one, written exactly": (
        broken(prior=["0.3333333333333333", "0.6666666666666666"]),
        "the sum of prior = 0.9999999999999999: expected 1",
    ),
    "a float row beyond rounding": (broken(prior=[0.5, 0.500001]), "the sum of prior = '1000001/1000000': expected 1"),
    "a negative entry": (
        broken(encoder=[["1/4", "3/4"], ["3/2", "-1/2"]]),
        "encoder[1][1] = '-1/2': expected a probability >= 0",
    ),
    "a negative float": (broken(prior=[-0.1, 1.1]), "prior[0] = -0.1: expected a probability >= 0"),
    "a nan": (broken(prior=[float("nan"), 1]), "prior[0] = nan: expected a finite number"),
    "an infinity": (broken(prior=[float("inf"), 1]), "prior[0] = inf: expected a finite number"),
    "a truth value": (broken(prior=[True, False]), "prior[0] = True: expected a finite number"),
    "a numpy truth value": (broken(prior=[np.bool_(True), 0]), "prior[0] = True: expected a finite number"),
    "nothing": (broken(prior=[None, 1]), "prior[0] = None: expected a finite number"),
    "a word": (broken(prior=["half", "1/2"]), "prior[0] = 'half': expected a finite number"),
    "a division by zero": (broken(prior=["1/0", 1]), "prior[0] = '1/0': expected a finite number"),
    "a complex number": (broken(prior=[1j, 1]), "prior[0] = 1j: expected a finite number"),
    "a number too long to write": (
        broken(prior=["1e-99999999", 1]),
        "prior[0] = '1e-99999999': expected a finite number",
    ),
    "a huge sum": (broken(prior=["1e400", "1/10000000"]), "the sum of prior = '1000000"),
    "an empty table": (broken(prior=[]), "prior = []: expected at least one entry"),
    "an empty row": (broken(likelihood=[[], []]), "likelihood[0] = []: expected at least one entry"),
    "a ragged table": (
        broken(likelihood=[[1, 0, 0], [1, 0]]),
        "likelihood = [[1, 0, 0], [1, 0]]: expected rows of one length",
    ),
    "a number for a table": (broken(prior=1), "prior = 1: expected nested lists of probabilities"),
    "text for a table": (broken(prior="1/2 1/2"), "prior = '1/2 1/2': expected nested lists of probabilities"),
    "a dict for a table": (broken(prior={0: 1}), "prior = {0: 1}: expected nested lists of probabilities"),
    "a likelihood of another shape": (
        broken(likelihood=[[1, 0, 0]] * 3),
        "the shape of likelihood = (3, 3): expected (2, any): the shape of z, then one axis for x",
    ),
    "an encoder of another shape": (
        broken(encoder=[[1, 0, 0], [1, 0, 0]]),
        "the shape of encoder = (2, 3): expected (2, 2): one row for each x~, of the shape of z",
    ),
    "an encoder with a row for each x": (
        broken(encoder=[[1, 0]] * 3),
        "the shape of encoder = (3, 2): expected (2, 2): one row for each x~",
    ),
    "an encoder without corruption": (
        broken(corruption=None, auxiliary=None),
        "the shape of encoder = (2, 2): expected (3, 2): one row for each x, of the shape of z",
    ),
    "a corruption of another shape": (
        broken(corruption=[[1, 0]] * 2),
        "the shape of corruption = (2, 2): expected (3, 2): one row for each x",
    ),
    "a flat corruption": (
        broken(corruption=["1/2", "1/2"]),
        "the shape of corruption = (2,): expected at least 2 axes",
    ),
    "an auxiliary of another shape": (
        broken(auxiliary=[[["1/2", "1/2"]] * 2] * 2),
        "the shape of auxiliary = (2, 2, 2): expected (2, 3, 2): z, then x, then x~",
    ),
    "an auxiliary without corruption": (
        broken(corruption=None, encoder=None),
        "auxiliary = 'given': expected a corruption beside it",
    ),
    "a flat joint": ({"joint": ["1/2", "1/2"]}, "the shape of joint = (2,): expected at least 2 axes"),
    "a prior without a likelihood": (
        {"prior": [1]},
        "the model = ['prior']: expected either joint, or prior and likelihood",
    ),
    "nothing at all": ({}, "the model = 'no tables': expected either joint, or prior and likelihood"),
    "a joint and a prior": ({"joint": [[1]], "prior": [1]}, "expected either joint, or prior and likelihood"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_place(name: str) -> None:
    tables, message = MISTAKES[name]
    with pytest.raises(BadInput) as caught:
        FiniteModel(**tables)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", [33, 70, 3000])
def test_a_table_nested_too_deep(depth: int) -> None:
    table: Any = 1
    for _ in range(depth):
        table = [table]
    with pytest.raises(BadInput, match="expected at most 32 axes"):
        FiniteModel(prior=table, likelihood=[[1]])


def test_a_number_is_what_is_written_whatever_its_type() -> None:
    notations: list[list[Any]] = [
        [0.1, 0.9],
        ["0.1", "0.9"],
        ["1/10", "9/10"],
        [F(1, 10), F(9, 10)],
        [Decimal("0.1"), Decimal("0.9")],
        [" 0.10", "9e-1"],
        [np.float64(0.1), np.float64(0.9)],
    ]
    models = [FiniteModel(prior=row, likelihood=[[1], [1]]) for row in notations]
    models.append(FiniteModel(prior=np.array([0.1, 0.9]), likelihood=np.array([[1], [1]])))
    for model in models:
        assert model == models[0]
        assert hash(model) == hash(models[0])
        assert model.table("prior").tolist() == [F(1, 10), F(9, 10)]
        assert model.is_exact()
    assert models[0] != FiniteModel(prior=["1/9", "8/9"], likelihood=[[1], [1]])
    assert models[0] != "a model"


def test_float_rows_sum_to_one_up_to_rounding() -> None:
    model = FiniteModel(prior=[1 / 3, 1 / 3, 1 / 3], likelihood=[[1]] * 3)
    assert sum(model.table("prior")) == 1
    assert model.table("prior").tolist() == [F(1, 3)] * 3
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(7), size=50)
    noisy = FiniteModel(prior=rows[0], likelihood=rows[:7], encoder=rows[:7])
    for role in ("prior", "likelihood", "encoder"):
        assert np.all(noisy.table(role).sum(axis=-1) == 1)
    just = F(1, 2) + FLOAT_ROW_TOLERANCE / 2
    assert FiniteModel(prior=[0.5, float(just)], likelihood=[[1], [1]]).is_exact()


def test_large_tables_of_floats_stay_floats_and_sum_to_one() -> None:
    rng = np.random.default_rng(1)
    prior, encoder = rng.dirichlet(np.ones(4100)) * (1 + 8e-10), rng.dirichlet(np.ones(4100), size=2)
    for likelihood in (np.full((4100, 2), 0.5), [["1/2", "1/2"]] * 4100):
        model = FiniteModel(prior=prior, likelihood=likelihood, encoder=encoder)
        assert not model.is_exact()
        assert model.table("joint").dtype == np.float64
        for role in ("prior", "encoder", "joint"):
            assert np.abs(model.table(role).astype(float).reshape(-1, 4100).sum(axis=1) - 1).max() < 0.51
        assert abs(model.table("prior").sum() - 1) < 1e-15
        assert abs(float(model.table("joint").sum()) - 1) < 1e-12
        assert abs(float(floating.evaluate(objectives.log_evidence, model)) - np.log(0.5)) < 1e-12
        assert FiniteModel.from_json(json.loads(json.dumps(model.to_json()))) == model
        with pytest.raises(CannotComputeExactly):
            exact.evaluate(objectives.elbo, model)
        assert np.isfinite(float(enclosure.evaluate(objectives.log_evidence, model)))
    with pytest.raises(BadInput, match=r"the sum of row 0 of prior = 1\.0000"):
        FiniteModel(prior=prior * (1 + 1e-6), likelihood=[["1/2", "1/2"]] * 4100)
    for bad, message in ((-1e-9, r"prior\[17\] = -1e-09: expected a probability"), (np.nan, r"prior\[17\] = nan")):
        prior[17] = bad
        with pytest.raises(BadInput, match=message):
            FiniteModel(prior=prior, likelihood=[["1/2", "1/2"]] * 4100)


# --- Tables that follow from others, and tables that are not there ---------------------------------------------------


def test_a_joint_has_a_prior_and_a_likelihood() -> None:
    given = FiniteModel(**GOOD)
    joint = [[str(p) for p in row] for row in given.table("joint").tolist()]
    model = FiniteModel(joint=joint, encoder=GOOD["encoder"], corruption=GOOD["corruption"])
    before = (repr(model), hash(model), model.to_json(), model.roles)
    assert (model.table("likelihood") == given.table("likelihood")).all()
    assert (model.table("prior") == given.table("prior")).all()
    assert (
        exact.evaluate(objectives.dae_criterion, model).value == exact.evaluate(objectives.dae_criterion, given).value
    )
    assert (repr(model), hash(model), model.to_json(), model.roles) == before
    assert FiniteModel.from_json(model.to_json()) == model


def test_a_likelihood_of_an_impossible_latent_is_any_law() -> None:
    model = FiniteModel(joint=[["1/2", 0], ["1/2", 0]])
    assert model.table("prior").tolist() == [1, 0]
    assert model.table("likelihood").tolist() == [[F(1, 2), F(1, 2)], [F(1, 2), F(1, 2)]]


def test_missing_tables_and_spaces() -> None:
    model = FiniteModel(**ONE)
    with pytest.raises(
        BadInput, match="the model = 'without encoder': expected a model with the table encoder; pass enc"
    ):
        model.table("encoder")
    with pytest.raises(BadInput, match="the space = 'x~': expected one of x, z; give the model a corruption"):
        model.size(CORRUPTED)
    with pytest.raises(BadInput, match=r"the space = 'u': expected one of x, z; use m\.latent"):
        model.size(Space("u"))
    uneven = FiniteModel(**GOOD)
    assert [uneven.size(space) for space in (X, Z, CORRUPTED)] == [3, 2, 2]
    assert uneven.sizes == {"x": 3, "z": 2, "x~": 2}
    with pytest.raises(
        BadInput, match=r"q\(z\|x\) = 'an encoder of the 2 corrupted inputs': expected a row for each of the 3"
    ):
        uneven.table("encoder", (X,))
    assert uneven.table("encoder", (CORRUPTED,)).shape == (2, 2)


def test_holes_in_a_support_are_named() -> None:
    """p(z|x=0) is 1 at z=0; q(z|x~=0) is positive at both, q(z|x~=1) only at z=1."""
    model = FiniteModel(
        prior=["1/2", "1/2"],
        likelihood=[[1, 0], [0, 1]],
        corruption=[["1/2", "1/2"], [1, 0]],
        encoder=[["1/2", "1/2"], [0, 1]],
    )
    assert list(model.holes()) == [
        "q(z|x~=0) > 0 at z=1, where p(x=0,z=1) is 0: log-weights there are -inf",
        "q(z|x~=1) is 0 at z=0, where p(x=0,z=0) > 0: importance weights never see this z",
        "q(z|x~=1) > 0 at z=1, where p(x=0,z=1) is 0: log-weights there are -inf",
        "q(z|x~=0) > 0 at z=0, where p(x=1,z=0) is 0: log-weights there are -inf",
    ]
    clean = FiniteModel(prior=["1/2", "1/2"], likelihood=[[1, 0], [0, 1]], encoder=[[1, 0], ["1/3", "2/3"]])
    assert list(clean.holes()) == ["q(z|x=1) > 0 at z=0, where p(x=1,z=0) is 0: log-weights there are -inf"]
    assert list(FiniteModel(**ONE).holes()) == []
    for oracle_model in oracle_models(40, seed=2, zeros=True):
        model = finite(oracle_model)
        infinite = [x for x in range(model.sizes["x"]) if any(f"p(x={x}," in hole for hole in model.holes())]
        for x in range(model.sizes["x"]):
            if "x~" not in model.sizes:
                value = value_or_none(exact.evaluate, objectives.elbo, model, x)
                assert x in infinite or np.isfinite(float(value))


# --- Product spaces -------------------------------------------------------------------------------------------------


def test_a_product_space_is_its_flattened_self_in_every_objective() -> None:
    """z = (2, 3) states and x~ = (2, 1) against z = 6 and x~ = 2, row-major."""
    flat = oracle.random_model(Random(0), x=2, z=6, xt=2, denominator=20)
    model = finite(flat)

    def reshaped(table: Any, *shape: int) -> Any:
        return np.array(table, dtype=object).reshape(shape).tolist()

    product = FiniteModel(
        prior=reshaped(flat.prior, 2, 3),
        likelihood=reshaped(flat.likelihood, 2, 3, 2),
        encoder=reshaped(flat.encoder, 2, 1, 2, 3),
        corruption=reshaped(flat.corruption, 2, 2, 1),
        auxiliary=reshaped(flat.auxiliary, 2, 3, 2, 2, 1),
    )
    assert product.sizes == model.sizes
    assert product != model
    for case in OBJECTIVES:
        if "ais" in case.name or "k=3" in case.name:
            continue
        try:
            values = [value_or_none(exact.evaluate, case.term, each, 1) for each in (model, product)]
            assert values[0] == values[1] or values[0].value == values[1].value, case.name
        except CannotComputeExactly:
            balls = [value_or_none(enclosure.evaluate, case.term, each, 1) for each in (model, product)]
            assert balls[0] == balls[1] or balls[0].ball.overlaps(balls[1].ball), case.name
    assert FiniteModel.from_json(product.to_json()) == product
    joint = FiniteModel(joint=np.array(model.table("joint").tolist(), dtype=object).reshape(2, 2, 3).tolist())
    assert exact.evaluate(objectives.log_evidence, joint).value == exact.evaluate(objectives.log_evidence, model).value


# --- Files ----------------------------------------------------------------------------------------------------------


def test_models_survive_a_file_exactly(tmp_path: Path) -> None:
    for number, oracle_model in enumerate(oracle_models(30, seed=4)):
        model = finite(oracle_model)
        path = tmp_path / f"{number}.json"
        model.save(path)
        back = load_model(path)
        assert back == model
        assert hash(back) == hash(model)
        for role in model.roles:
            assert (back.table(role) == model.table(role)).all()
        assert repr(back) == repr(model)


def test_decimals_in_a_file_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(
        '{"prior": [0.1, 0.9], "likelihood": [[1], [1.0]], "encoder": [[0.3333333333333333, 2e-1, 0.4666666666666667]]}'
    )
    with pytest.raises(BadInput, match="the shape of encoder"):
        load_model(path)
    path.write_text('{"prior": [0.1, 0.9], "likelihood": [[1], [1.0]], "encoder": [["1e-300", 1.0]]}')
    model = load_model(path)
    assert model.table("prior").tolist() == [F(1, 10), F(9, 10)]
    assert model.table("encoder")[0, 0] == F(1, 10**300) / (1 + F(1, 10**300))


BAD_FILES = {
    "empty": ("", "the file is empty"),
    "blank": ("  \n", "the file is empty"),
    "not JSON": ("{prior: [1]}", "expected valid JSON"),
    "cut short": ('{"prior": [1', "expected valid JSON"),
    "NaN": ('{"prior": [NaN], "likelihood": [[1]]}', "NaN is not a probability"),
    "Infinity": ('{"prior": [Infinity], "likelihood": [[1]]}', "Infinity is not a probability"),
    "a list": ("[1]", "expected an object such as"),
    "a number": ("3", "expected an object such as"),
    "another format": ('{"format": "boundcheck-model/9", "prior": [1]}', "expected 'boundcheck-model/1' and 'finite'"),
    "another kind": ('{"kind": "gaussian", "prior": [1]}', "expected 'boundcheck-model/1' and 'finite'"),
    "an unknown table": (
        '{"prior": [1], "likelihood": [[1]], "decoder": [[1]]}',
        "the model file = 'decoder': expected only",
    ),
    "no tables": ("{}", "expected either joint, or prior and likelihood"),
    "null": ('{"prior": null}', "expected either joint, or prior and likelihood"),
    "true": ('{"prior": [true], "likelihood": [[1]]}', "prior[0] = True: expected a finite number"),
    "a long exponent": ('{"prior": [1e999999999], "likelihood": [[1]]}', "a number of more than 4000 digits"),
    "a long number": ('{"prior": [' + "1" * 9000 + '], "likelihood": [[1]]}', "expected valid JSON"),
    "a table too deep": ('{"prior": ' + "[" * 200 + "1" + "]" * 200 + ', "likelihood": [[1]]}', "at most 32 axes"),
    "far too deep": ('{"prior": ' + "[" * 100_000, "expected valid JSON"),
    "an object in a table": ('{"prior": [{"p": 1}], "likelihood": [[1]]}', "prior[0] = {'p': 1}: expected a finite"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_clear_line(name: str, tmp_path: Path) -> None:
    content, message = BAD_FILES[name]
    path = tmp_path / "model.json"
    path.write_text(content)
    with pytest.raises(BadInput) as caught:
        load_model(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"expected a readable JSON file; .*No such file"):
        load_model(tmp_path / "nowhere.json")
    with pytest.raises(BadInput, match="expected a readable JSON file"):
        load_model(tmp_path)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="expected a readable JSON file"):
        load_model(tmp_path / "bytes.json")


def test_random_junk_in_a_table_is_bad_input() -> None:
    rng = Random(0)
    junk: tuple[Any, ...] = (
        None,
        True,
        "x",
        "",
        -1,
        2,
        float("nan"),
        [],
        [[]],
        {},
        "1/3",
        0.5,
        [0.5, 0.5],
        b"1",
        object(),
    )
    failures = 0
    for _ in range(3000):
        tables = broken()
        role = rng.choice(list(tables))
        table = json.loads(json.dumps(tables[role]))
        where = table
        while isinstance(where[0], list) and rng.random() < 0.7:
            where = rng.choice(where)
        where[rng.randrange(len(where))] = rng.choice(junk)
        try:
            FiniteModel(**{**tables, role: table})
        except BoundcheckError:
            failures += 1
    assert failures > 2500


def test_repr_shows_small_tables_and_the_shape_of_large_ones() -> None:
    model = FiniteModel(prior=["1/2", "1/2"], likelihood=[[1] + [0] * 49] * 2)
    assert repr(model) == "FiniteModel(prior=[1/2, 1/2], likelihood=<2 x 50>)"
