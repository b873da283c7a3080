"""Witnesses about black boxes: named in the file, decided again with the callable given, and no code run by a file."""

from __future__ import annotations

import copy
import json
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boundcheck import BadInput, Claim, FiniteModel, Outcome, black_box, check_model, load_witness
from boundcheck.catalogue.objectives import elbo, log_evidence
from boundcheck.errors import BoundcheckError
from boundcheck.evaluators.black_box import BlackBox
from boundcheck.search import Witness
from boundcheck.search.black_boxes import replay_line
from boundcheck.search.regression import Origin, regression_test

MODEL = FiniteModel(prior=["1/3", "2/3"], likelihood=[[1], [1]], encoder=[["1/5", "4/5"]])


def wrong(m: Any, x: int, shift: float = 1.0) -> float:
    return float(np.log(m.joint[x].sum())) + shift


def right(m: Any, x: int) -> float:
    return float(np.log(m.joint[x].sum())) - 1


WRONG = black_box(wrong)
PARTIAL = black_box(partial(wrong, shift=2.0))
CLAIM = Claim("wrong", WRONG, "<=", log_evidence, statement="It is.", source="nobody")


def witness_of(claim: Claim) -> Witness:
    return Witness.of(check_model(claim, MODEL))


def as_of_another_process(witness: Witness) -> dict[str, Any]:
    """The file's content, naming a module that is not loaded here."""
    data = json.loads(json.dumps(witness.to_json()))
    for side in ("lhs", "rhs"):
        if "black box" in data["claim"][side]:
            data["claim"][side]["black box"] |= {"module": "mine", "file": "mine.py"}
    return data


def test_a_file_names_the_black_box_and_its_settings(tmp_path: Path) -> None:
    box = black_box(wrong, error=1e-4, reads=("encoder",), states={"z": 2})
    witness = witness_of(Claim("wrong", box, "<=", log_evidence))
    witness.save(tmp_path / "w.json")
    data = json.loads((tmp_path / "w.json").read_text())
    assert data["format"] == "boundcheck-witness/2"
    held = data["claim"]["lhs"]["black box"]
    assert (held["name"], held["object"], held["error"], held["states"]) == ("wrong", "wrong", 1e-4, {"z": 2})
    assert Path(held["file"]).name == Path(__file__).name
    assert data["verdict"]["guarantee"] == "numerical"
    assert data["model"]["prior"] == ["1/3", "2/3"]
    loaded = load_witness(tmp_path / "w.json", [wrong])
    assert loaded.to_json() == data
    assert loaded.claim.sides == witness.claim.sides
    verdict = loaded.replay()
    assert str(verdict) == "violated (numerical)" and loaded.is_as_recorded(verdict)


def test_a_witness_about_formulas_keeps_its_format() -> None:
    claim = Claim("shifted", lambda m, x: elbo(m, x) + 5, "<=", log_evidence)
    assert witness_of(claim).to_json()["format"] == "boundcheck-witness/1"


def test_a_module_that_is_loaded_has_the_callable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, wrong.__module__, sys.modules[__name__])
    for claim in (CLAIM, Claim("partial", PARTIAL, "<=", log_evidence)):
        data = json.loads(json.dumps(witness_of(claim).to_json()))
        again = Witness.from_json(data)
        assert again.claim.sides == claim.sides
        assert again.is_as_recorded(again.replay())


def test_reading_a_file_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('code of the file was run')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    witness = Witness.from_json(as_of_another_process(witness_of(CLAIM)))
    assert "mine" not in sys.modules
    assert [each.where for each in witness.absent] == ["mine.py:wrong"]


def test_without_the_callable_replay_says_what_is_missing() -> None:
    witness = Witness.from_json(as_of_another_process(witness_of(CLAIM)))
    assert witness.model == MODEL and str(witness.claim) == str(CLAIM)
    with pytest.raises(BadInput, match=r"--objective mine.py:wrong") as error:
        witness.replay()
    assert "\n" not in str(error.value)
    assert witness.to_json() == as_of_another_process(witness_of(CLAIM))


def test_a_function_of_the_same_name_elsewhere_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is loaded, but its function comes from another file than the one that was recorded."""
    other = types.ModuleType("mine")
    other.wrong = right  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", other)
    assert Witness.from_json(as_of_another_process(witness_of(CLAIM))).absent


def test_a_corrected_objective_is_judged_on_the_saved_model() -> None:
    data = as_of_another_process(witness_of(CLAIM))
    for given in (right, black_box(right), black_box(right, name="wrong")):
        witness = Witness.from_json(data, [given])
        verdict = witness.replay()
        assert str(verdict) == "holds (numerical)"
        assert not witness.is_as_recorded(verdict)


def test_a_small_change_within_the_error_is_as_recorded_and_a_larger_one_is_not() -> None:
    data = as_of_another_process(witness_of(CLAIM))
    for change, same in ((1e-8, True), (1e-4, False)):
        witness = Witness.from_json(data, [lambda m, x, change=change: wrong(m, x) + change])
        assert witness.is_as_recorded(witness.replay()) is same


def test_two_black_boxes_are_given_by_name() -> None:
    claim = Claim("two", WRONG, "<=", black_box(right))
    data = as_of_another_process(witness_of(claim))
    witness = Witness.from_json(data, [right, wrong])
    assert witness.claim.sides == claim.sides and not witness.absent
    assert [each.name for each in Witness.from_json(data, [right]).absent] == ["wrong"]
    with pytest.raises(BadInput, match="the objective"):
        Witness.from_json(data, [elbo])
    with pytest.raises(BadInput, match="both sides are formulas"):
        Witness.from_json(witness_of(Claim("f", lambda m, x: elbo(m, x) + 5, "<=", log_evidence)).to_json(), [wrong])


def test_the_replay_line_names_every_callable() -> None:
    line = replay_line("a b.json", Claim("two", WRONG, "<=", PARTIAL))
    assert line.startswith("boundcheck replay 'a b.json' --objective ")
    assert line.endswith("test_witness_black_box.py:PARTIAL") and ":wrong --objective" in line


def test_a_numerical_violation_of_formulas_is_still_no_witness() -> None:
    data = json.loads(json.dumps(witness_of(Claim("f", lambda m, x: elbo(m, x) + 5, "<=", log_evidence)).to_json()))
    data["verdict"]["guarantee"] = "numerical"
    with pytest.raises(BadInput, match="the recorded verdict"):
        Witness.from_json(data)
    boxed = as_of_another_process(witness_of(CLAIM))
    boxed["verdict"]["guarantee"] = "exact"
    with pytest.raises(BadInput, match="the recorded verdict"):
        Witness.from_json(boxed)


DELETED = object()
EDITS: list[tuple[str, Any]] = [
    *((field, DELETED) for field in ("name", "file", "module", "object", "error", "takes", "reads", "states")),
    *((field, 3) for field in ("name", "file", "object", "takes", "batched", "reads", "clean_encoder", "states")),
    ("error", "small"),
    ("error", -1),
    ("takes", "pickles"),
    ("reads", ["secrets"]),
    ("reads", [1]),
    ("states", {"z": 0}),
    ("states", {"z": "two"}),
    ("code", "print('hello')"),
]


@pytest.mark.parametrize(("field", "value"), EDITS, ids=range(len(EDITS)))
def test_a_nonsensical_edit_is_one_clear_error(tmp_path: Path, field: str, value: Any) -> None:
    data = as_of_another_process(witness_of(CLAIM))
    held = data["claim"]["lhs"]["black box"]
    if value is DELETED:
        del held[field]
    else:
        held[field] = value
    (tmp_path / "edited.json").write_text(json.dumps(data))
    with pytest.raises(BadInput) as error:
        load_witness(tmp_path / "edited.json", [wrong])
    assert "edited.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("held", [None, 3, [], "wrong", {}, {"name": "wrong"}], ids=repr)
def test_a_black_box_that_is_none_is_refused(held: Any) -> None:
    data = as_of_another_process(witness_of(CLAIM))
    data["claim"]["lhs"]["black box"] = held
    with pytest.raises(BoundcheckError):
        Witness.from_json(data)


def test_the_formats_are_not_mixed() -> None:
    boxed = as_of_another_process(witness_of(CLAIM))
    with pytest.raises(BadInput, match=r"claim\.lhs"):
        Witness.from_json(copy.deepcopy(boxed) | {"format": "boundcheck-witness/1"})
    formulas = witness_of(Claim("f", lambda m, x: elbo(m, x) + 5, "<=", log_evidence)).to_json()
    with pytest.raises(BadInput, match="format"):
        Witness.from_json(formulas | {"format": "boundcheck-witness/2"})


def test_a_regression_test_of_a_black_box_has_to_import_it(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="origin"):
        regression_test(witness_of(CLAIM))
    for form, line in (("objective", "Claim('wrong', WRONG"), ("claim", "claim = WRONG"), ("maker", "claim = WRONG()")):
        source = regression_test(witness_of(CLAIM), Origin(tmp_path / "my mine.py", "WRONG", form), tmp_path)  # type: ignore[arg-type]
        compile(source, "test_it.py", "exec")
        assert line in source and "runpy" in source
    assert "from mine import WRONG" in regression_test(
        witness_of(CLAIM), Origin(tmp_path / "mine.py", "WRONG"), tmp_path
    )


def test_a_witness_holds_one_verdict_whoever_gives_the_callable() -> None:
    assert isinstance(WRONG, BlackBox)
    assert witness_of(CLAIM).replay().outcome is Outcome.VIOLATED
