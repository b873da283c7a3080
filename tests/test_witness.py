"""A saved counterexample is exact, is decided anew when it is read, and nonsense in it is one clear error."""

from __future__ import annotations

import copy
import json
import os
import random
import stat
from pathlib import Path
from typing import Any

import pytest

from boundcheck import Claim, FiniteModel, check_model, find, survey
from boundcheck.catalogue.objectives import cubo, elbo, log_evidence
from boundcheck.claims.decide import Outcome
from boundcheck.errors import BadInput, BoundcheckError
from boundcheck.search import Witness, load_witness
from boundcheck.search.files import write_text, written_whole

NAME = "denoising-decoupled-below-evidence"


def witness_of(name: str) -> Witness:
    found = survey(find(name)).witness
    assert found is not None
    return Witness.of(found)


@pytest.fixture
def witness() -> Witness:
    claim = find(NAME)
    assert claim.witness is not None
    return Witness.of(check_model(claim, claim.witness()))


# An exact one, one by enclosures, one with an infinite margin, one that is an equality.
KINDS = [
    NAME,
    "perturbative-two-below-evidence",
    "cubo-above-evidence-anywhere",
    "denoising-lemma-1-step",
]


@pytest.mark.parametrize("name", KINDS)
def test_a_witness_survives_its_file(name: str, tmp_path: Path) -> None:
    saved = witness_of(name)
    saved.save(tmp_path / "w.json")
    loaded = load_witness(tmp_path / "w.json")
    assert loaded.claim.terms == saved.claim.terms
    assert (loaded.model, loaded.x, loaded.to_json()) == (saved.model, saved.x, saved.to_json())
    verdict = loaded.replay()
    assert verdict.outcome is Outcome.VIOLATED
    assert loaded.is_as_recorded(verdict)


def test_the_record_plays_no_part_in_the_verdict(witness: Witness) -> None:
    """The file says violated; its model was changed to one on which the claim holds."""
    data = witness.to_json()
    data["model"]["encoder"] = [["1/2", "1/2"], ["1/2", "1/2"]]
    changed = Witness.from_json(data)
    verdict = changed.replay()
    assert str(verdict) == "holds (exact)"
    assert not changed.is_as_recorded(verdict)


def test_another_value_is_not_as_recorded(witness: Witness) -> None:
    data = witness.to_json()
    data["model"]["encoder"] = [["1/20", "19/20"], ["19/20", "1/20"]]
    changed = Witness.from_json(data)
    verdict = changed.replay()
    assert verdict.outcome is Outcome.VIOLATED
    assert not changed.is_as_recorded(verdict)


def test_the_same_number_in_other_logarithms_is_as_recorded(witness: Witness) -> None:
    """log(5/3) may be held as log 5 - log 3 or as log 25/2 - log 9/2."""
    data = json.loads(json.dumps(witness.to_json()))
    data["verdict"]["lhs"]["exact"] = {"constant": "0", "logs": [["25", "1/2"], ["3", "-1"]]}
    changed = Witness.from_json(data)
    assert changed.is_as_recorded(changed.replay())


def test_only_a_certified_violation_is_a_witness() -> None:
    model = FiniteModel(joint=[["1/2", "1/2"]], encoder=[["1/3", "2/3"]])
    claim = Claim("mine", elbo, "<=", log_evidence)
    with pytest.raises(BadInput, match="the recorded verdict"):
        Witness.of(check_model(claim, model))


def test_a_claim_about_covering_encoders_keeps_that_it_is_one() -> None:
    """CUBO is below log p(x) on a model with a hole, which says nothing against the claim as it is made."""
    holed = FiniteModel(joint=[["1/2", "1/2"]], encoder=[[1, 0]])
    anywhere = Claim("cubo", log_evidence, "<=", lambda m, x: cubo(m, x, 2))
    covering = Claim("cubo", log_evidence, "<=", lambda m, x: cubo(m, x, 2), covering=True)
    data = Witness.of(check_model(anywhere, holed)).to_json()
    assert data["claim"]["covering"] is False
    data["claim"]["covering"] = covering.covering
    with pytest.raises(BadInput, match="says nothing about this one"):
        Witness.from_json(data)


# --- nonsense ------------------------------------------------------------------------------------------------------


def edited(witness: Witness, path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    data = copy.deepcopy(json.loads(json.dumps(witness.to_json())))
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    if value is DELETED:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return data


DELETED = object()

EDITS: list[tuple[tuple[Any, ...], Any, str]] = [
    (("format",), "boundcheck-witness/2", "format"),
    (("format",), DELETED, "format"),
    (("claim",), DELETED, "without claim"),
    (("claim",), [], "claim"),
    (("claim", "lhs"), DELETED, "without lhs"),
    (("claim", "lhs"), "log p(x)", "claim.lhs"),
    (("claim", "rhs", "term"), {"use": 7}, "claim.rhs"),
    (("claim", "relation"), ">=", "relation"),
    (("claim", "relation"), ["<="], "relation"),
    (("claim", "name"), 3, "claim.name"),
    (("claim", "covering"), "yes", "claim.covering"),
    (("claim", "proof"), "trust me", "proof"),
    (("model",), None, "object such as"),
    (("model", "encoder", 0, 0), "-1/10", "encoder"),
    (("model", "encoder", 0, 0), 0.099, "sum of row 0 of encoder"),
    (("model", "prior"), [], "prior"),
    (("x",), 1, "x"),
    (("x",), -1, "x"),
    (("x",), True, "x"),
    (("x",), "0", "x"),
    (("verdict",), "violated", "verdict"),
    (("verdict", "verdict"), "holds", "the recorded verdict"),
    (("verdict", "verdict"), "refuted", "the recorded verdict"),
    (("verdict", "guarantee"), "numerical", "the recorded verdict"),
    (("verdict", "guarantee"), DELETED, "the recorded verdict"),
    (("extra",), 1, "extra"),
]


@pytest.mark.parametrize(("path", "value", "told"), EDITS, ids=range(len(EDITS)))
def test_a_nonsensical_edit_is_one_clear_error(
    witness: Witness, tmp_path: Path, path: tuple[Any, ...], value: Any, told: str
) -> None:
    file = tmp_path / "edited.json"
    file.write_text(json.dumps(edited(witness, path, value)), encoding="utf-8")
    with pytest.raises(BadInput) as error:
        load_witness(file)
    line = str(error.value)
    assert "\n" not in line
    assert "edited.json" in line
    assert told in line


@pytest.mark.parametrize(
    "content",
    [b"", b"  \n", b"{", b"[1, 2]", b"null", b'{"x": NaN}', bytes(range(256)), b"[" * 100_000, b'"\\ud800"'],
    ids=["empty", "blank", "cut off", "list", "null", "nan", "binary", "deep", "surrogate"],
)
def test_a_file_that_holds_something_else_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "other.json"
    file.write_bytes(content)
    with pytest.raises(BadInput, match="the witness file"):
        load_witness(file)


def test_a_missing_file_and_a_folder_are_clear_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(BadInput, match="the witness file"):
            load_witness(path)


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(data, dict):
        items = list(data.items())
    elif isinstance(data, list):
        items = list(enumerate(data))
    else:
        items = []
    for key, value in items:
        found += places(value, (*path, key))
    return found


def test_no_single_edit_escapes_as_another_exception(witness: Witness) -> None:
    """Every place of the file, replaced by junk or dropped, reads and decides, or is refused by name."""
    rng = random.Random(0)
    junk: list[Any] = [None, True, -1, 2, 10**9, "", "x", "1/3", [], {}, {"use": 0}, {"op": "log", "args": []}, DELETED]
    refused = 0
    for path in places(json.loads(json.dumps(witness.to_json()))):
        for value in rng.sample(junk, 3):
            if value is DELETED and not isinstance(path[-1], str):
                continue
            try:
                Witness.from_json(edited(witness, path, value)).replay()
            except BoundcheckError as error:
                refused += 1
                assert len(str(error)) < 700, "too long to be read"
    assert refused > 100


# --- files, whole or not at all ------------------------------------------------------------------------------------


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "w.json"
    write_text(target, "old")
    with pytest.raises(RuntimeError), written_whole(target) as temporary:
        temporary.write_text("half of the ne")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["w.json"]


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path, witness: Witness) -> None:
    with pytest.raises(BadInput, match="it is a directory"):
        witness.save(tmp_path)
    with pytest.raises(BadInput, match="No such file or directory"):
        witness.save(tmp_path / "absent" / "w.json")


@pytest.mark.skipif(os.name == "nt", reason="links and devices of a POSIX system")
def test_links_and_devices_are_kept(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    write_text(target, "old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    write_text("/dev/null", "gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.skipif(os.name == "nt", reason="permissions of a POSIX system")
def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text(tmp_path / "whole", "text")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "whole")]
    assert modes[0] == modes[1]
