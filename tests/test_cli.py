"""The command line: its contract, its exit codes, and one clear line for whatever goes wrong."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

import boundcheck
import boundcheck.cli as cli_module
from boundcheck import FiniteModel, load_witness
from boundcheck.catalogue import claims
from boundcheck.claims import Status, survey
from boundcheck.cli import cache, docs
from boundcheck.cli.report import Screen, model_rows

ROOT = Path(__file__).resolve().parent.parent
DECOUPLED, COUPLED = "denoising-decoupled-below-evidence", "denoising-coupled-below-evidence"
MODEL: dict[str, Any] = {
    "prior": ["1/2", "1/2"],
    "likelihood": [["1"], ["1"]],
    "encoder": [["1/10", "9/10"], ["9/10", "1/10"]],
    "corruption": [["1/2", "1/2"]],
}


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        data = json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert isinstance(data, dict)
        return data


Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> Result:
        code = cli_module.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    file = tmp_path / "model.json"
    file.write_text(json.dumps(MODEL), encoding="utf-8")
    return file


def process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "boundcheck", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120, **options)


def assert_one_line(result: Result, *told: str) -> None:
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert len(result.err.splitlines()) == 1
    for part in told:
        assert part in result.err


# --- help and documentation ----------------------------------------------------------------------------------------

PATHS = [context.command_path.split()[1:] for context in docs.contexts(cli_module.commands, "boundcheck")]


def test_the_page_is_what_the_commands_say() -> None:
    remedy = "run: python -m boundcheck.cli.docs"
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == docs.page(), remedy


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_help_is_on_the_page_and_lists_the_exit_codes(run: Run, path: list[str]) -> None:
    result = run(*path, "--help")
    assert (result.code, result.err) == (0, "")
    page = " ".join((ROOT / "docs" / "cli.md").read_text(encoding="utf-8").split())
    assert " ".join(result.out.split()) in page  # the same words; only the width differs
    for line in ("0 holds, or done", "1 violated", "2 an error", "3 undecided"):
        assert line in " ".join(result.out.split())


def test_every_command_takes_json_and_seed() -> None:
    for context in docs.contexts(cli_module.commands, "boundcheck"):
        options = {option for each in context.command.params for option in each.opts}
        if not isinstance(context.command, click.Group):
            assert {"--json", "--seed"} <= options, context.command_path


def test_the_page_is_in_the_navigation() -> None:
    assert "cli.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_the_version(run: Run) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert run("--version").out == f"boundcheck {version}\n"
    assert boundcheck.__version__ == version


# --- check ---------------------------------------------------------------------------------------------------------

CONTRACT = {"claim", "verdict", "status", "guarantee", "lhs", "rhs", "margin", "witness"}


@pytest.mark.parametrize(
    ("name", "code", "verdict", "status"),
    [
        (DECOUPLED, 1, "violated", "refuted"),
        (COUPLED, 0, "holds", "proved"),
        ("denoising-coupled-above-marginal-elbo", 1, "violated", "refuted"),
        ("denoising-decoupled-above-marginal-elbo", 0, "holds", "proved"),
    ],
)
def test_check_on_a_model(run: Run, model_file: Path, name: str, code: int, verdict: str, status: str) -> None:
    result = run("check", name, "--model", model_file, "--json")
    found = result.json
    assert result.code == code
    assert found.keys() >= CONTRACT
    assert (found["claim"], found["verdict"], found["status"]) == (name, verdict, status)
    assert (found["guarantee"], found["scope"]) == ("exact", "this model")
    assert (found["witness"] is not None) == (code == 1)


def test_check_prints_both_sides_exactly_and_as_floats(run: Run, model_file: Path) -> None:
    result = run("check", DECOUPLED, "--model", model_file)
    assert result.code == 1
    assert "violated (exact) at x = 0" in result.out
    assert "lhs        log(5/3) = 0.510825623766" in result.out
    assert "rhs - lhs  -log(5/3) = -0.510825623766" in result.out
    assert "q(z|x~=0)  1/10  9/10" in result.out
    assert "\x1b" not in result.out


def test_check_names_the_worst_observation(run: Run, tmp_path: Path) -> None:
    """The ELBO is tight at x = 1 and 0, and not at x = 2; min over x of rhs - lhs is the worst."""
    file = tmp_path / "m.json"
    rows = [["1/6", "1/6"], ["1/3", "0"], ["1/6", "1/6"]]
    file.write_text(json.dumps({"joint": rows, "encoder": [["1/2", "1/2"], ["1", "0"], ["1/4", "3/4"]]}))
    found = run("check", "elbo-below-evidence", "--model", file, "--json").json
    assert (found["verdict"], found["margin"], found["x"]) == ("holds", 0.0, 0)
    file.write_text(json.dumps({"joint": rows, "encoder": [["1/3", "2/3"], ["1", "0"], ["1/4", "3/4"]]}))
    assert run("check", "elbo-below-evidence", "--model", file, "--json").json["x"] == 1


def test_check_tells_of_holes(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text(json.dumps({"joint": [["1/2", "1/2"]], "encoder": [["1", "0"]]}))
    result = run("check", "cubo-above-evidence-anywhere", "--model", file)
    assert result.code == 1
    assert "note: q(z|x=0) is 0 at z=1" in result.out
    assert len(run("check", "elbo-below-evidence", "--model", file, "--json").json["notes"]) == 1


def test_a_claim_that_says_nothing_of_a_model_has_no_verdict(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text(json.dumps({"joint": [["1/2", "1/2"]], "encoder": [["1", "0"]]}))
    assert_one_line(run("check", "cubo-above-evidence", "--model", file), "covers the posterior")


@pytest.mark.parametrize(
    ("name", "code", "status"),
    [
        (DECOUPLED, 1, "refuted"),
        ("elbo-below-evidence", 0, "proved"),
        ("own.py:cubes", 3, "survived"),
    ],
)
def test_check_over_the_family(
    run: Run, own: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int, status: str
) -> None:
    monkeypatch.chdir(own.parent)
    result = run("check", name, "--count", 6, "--json")
    found = result.json
    assert (result.code, found["status"]) == (code, status)
    assert found.keys() >= CONTRACT
    text = run("check", name, "--count", 6)
    assert text.code == code
    assert status in text.out
    assert found["verdict"] in text.out


def test_the_seed_chooses_the_models(run: Run) -> None:
    first, again, other = (run("check", "dae-below-evidence", "--json", "--seed", seed).json for seed in (1, 1, 2))
    assert first == again
    assert first["witness"] != other["witness"]


def test_check_saves_what_replay_decides(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "w.json"
    checked = run("check", DECOUPLED, "--save", file, "--json").json
    assert checked["saved"] == str(file)
    replayed = run("replay", file, "--json")
    assert replayed.code == 1
    assert replayed.json.keys() >= CONTRACT
    assert replayed.json["as_recorded"] is True
    for key in ("claim", "verdict", "guarantee", "lhs", "rhs", "margin", "witness"):
        assert replayed.json[key] == checked[key], key


def test_nothing_is_saved_without_a_counterexample(run: Run, tmp_path: Path) -> None:
    result = run("check", "elbo-below-evidence", "--count", 3, "--save", tmp_path / "w.json")
    assert result.code == 0
    assert "nothing was saved" in result.out
    assert not list(tmp_path.iterdir())


# --- replay --------------------------------------------------------------------------------------------------------


def test_replay_of_a_claim_outside_the_catalogue(run: Run) -> None:
    result = run("replay", ROOT / "counterexamples" / "bernoulli.json")
    assert result.code == 1
    assert "violated (exact) at x = 0" in result.out
    assert "as recorded" in result.out
    assert "log(5/3)" in result.out


def test_replay_exits_by_the_new_verdict(run: Run, tmp_path: Path) -> None:
    data = json.loads((ROOT / "counterexamples" / "bernoulli.json").read_text(encoding="utf-8"))
    data["model"]["encoder"] = [["1/2", "1/2"], ["1/2", "1/2"]]
    file = tmp_path / "w.json"
    file.write_text(json.dumps(data))
    result = run("replay", file)
    assert result.code == 0
    assert "not as recorded: the file says violated (exact)" in result.out


def test_replay_tells_of_another_claim_of_that_name(run: Run, tmp_path: Path) -> None:
    data = json.loads((ROOT / "counterexamples" / "bernoulli.json").read_text(encoding="utf-8"))
    data["claim"]["name"] = COUPLED
    file = tmp_path / "w.json"
    file.write_text(json.dumps(data))
    assert f"note: the catalogue has another claim by the name of {COUPLED}" in run("replay", file).out


def test_text_from_a_file_cannot_drive_the_terminal(run: Run, tmp_path: Path) -> None:
    data = json.loads((ROOT / "counterexamples" / "bernoulli.json").read_text(encoding="utf-8"))
    data["claim"]["statement"] = "\x1b[2Jholds\n\x1b]0;title\x07 [bold]really[/bold]"
    file = tmp_path / "w.json"
    file.write_text(json.dumps(data))
    out = run("replay", file).out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[bold]really[/bold]" in out


# --- list and show -------------------------------------------------------------------------------------------------


def test_list_judges_the_whole_catalogue(run: Run) -> None:
    found = run("list", "--count", 1, "--json").json
    assert [each["claim"] for each in found["claims"]] == list(claims())
    statuses = {status.value for status in Status}
    assert {each["status"] for each in found["claims"]} <= statuses
    by_name = {each["claim"]: each for each in found["claims"]}
    assert by_name[DECOUPLED]["status"] == "refuted"
    assert by_name[COUPLED]["status"] == "proved"
    lines = [line.split("\t") for line in run("list", "--count", 1).out.splitlines()]
    assert lines[0] == ["claim", "status", "guarantee", "source"]
    assert [line[0] for line in lines[1:]] == list(claims())


class Counted:
    """A stand-in for `survey` that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, claim: Any, **options: Any) -> Any:
        self.calls += 1
        return survey(claim, **options)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    stand_in = Counted()
    monkeypatch.setattr(cache, "survey", stand_in)
    few = {name: claims()[name] for name in (DECOUPLED, COUPLED)}
    monkeypatch.setattr(cache, "claims", lambda: few)
    return stand_in


def test_what_list_found_is_kept(run: Run, counted: Counted) -> None:
    first = run("list", "--count", 2, "--json").json
    assert run("list", "--count", 2, "--json").json == first
    assert counted.calls == 2
    assert run("list", "--count", 2, "--json", "--no-cache").json == first
    assert counted.calls == 4


def test_how_many_models_are_shared_changes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: claims()[name] for name in (DECOUPLED, COUPLED, "ppca-elbo-below-evidence", "gaussian-sivi-monotone")}
    monkeypatch.setattr(cache, "claims", lambda: few)
    known = run("list", "--count", 11, "--no-cache", "--json").json
    monkeypatch.setattr(cache, "MOST_SHARED", 3)
    assert run("list", "--count", 11, "--no-cache", "--json").json == known


@pytest.mark.parametrize("change", ["seed", "count", "formula", "gap", "program", "damage", "nonsense"])
def test_nothing_kept_is_shown_for_anything_else(
    run: Run, counted: Counted, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    run("list", "--count", 2)
    arguments = {"seed": ["--count", 2, "--seed", 1], "count": ["--count", 3]}.get(change, ["--count", 2])
    expected = 4
    file = cache.folder() / "surveys.json"
    if change == "formula":  # the same name, another claim
        swapped = {COUPLED: claims()[COUPLED], DECOUPLED: _renamed(claims()["elbo-below-evidence"], DECOUPLED)}
        monkeypatch.setattr(cache, "claims", lambda: swapped)
        expected = 3
    if change == "gap":
        without = {DECOUPLED: claims()[DECOUPLED], COUPLED: _renamed(claims()[COUPLED], COUPLED, gap=None)}
        monkeypatch.setattr(cache, "claims", lambda: without)
        expected = 3
    if change == "program":
        monkeypatch.setattr(cache, "program_hash", lambda: "another program")
    if change == "damage":  # a verdict turned into its opposite
        text = file.read_text(encoding="utf-8")
        assert '"refuted"' in text
        file.write_text(text.replace('"refuted"', '"proved"'), encoding="utf-8")
    if change == "nonsense":
        file.write_bytes(b"\xff[")
    statuses = [each["status"] for each in run("list", "--json", *arguments).json["claims"]]
    assert counted.calls == expected
    if change in ("damage", "nonsense"):
        assert statuses == ["refuted", "proved"]


def _renamed(claim: Any, name: str, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(claim, name=name, **changes)


def test_the_program_hash_follows_the_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(boundcheck, "__file__", str(tmp_path / "__init__.py"))
    first = cache.program_hash()
    assert cache.program_hash() == first != ""
    (tmp_path / "a.py").write_text("x = 2\n")
    assert cache.program_hash() != first
    (tmp_path / "a.py").unlink()
    assert cache.program_hash() == ""  # no source, nothing is kept


def test_a_cache_that_cannot_be_written_is_no_failure(
    run: Run, counted: Counted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert run("list", "--count", 1).code == 0
    assert run("list", "--count", 1).code == 0
    assert counted.calls == 4


def test_show_gives_every_claim_as_text_and_latex(run: Run) -> None:
    for name, claim in claims().items():
        shown = run("show", name, "--json").json
        assert shown["claim"] == name
        assert shown["lhs"]["text"] == claim.terms[0].text
        assert shown["latex"].count("{") == shown["latex"].count("}")
        assert run("show", name).code == 0


def test_show_has_the_known_witness(run: Run) -> None:
    shown = run("show", DECOUPLED)
    assert "E_{xt ~ c(.|x)}[E_{xs ~ c(.|x)}[" in shown.out
    assert r"\mathbb{E}_{\tilde{x} \sim c(\cdot \mid x)}" in shown.out
    assert "Im, Ahn, Memisevic & Bengio (2015)" in shown.out
    assert "q(z|x~=1)  9/10  1/10" in shown.out
    assert "log(5/3) = 0.510825623766" in shown.out
    known = run("show", DECOUPLED, "--json").json["witness"]
    assert FiniteModel.from_json(known["model"]) == FiniteModel(**MODEL)


# --- reproduce -----------------------------------------------------------------------------------------------------


def test_reproduce_bernoulli(run: Run) -> None:
    result = run("reproduce", "bernoulli")
    assert result.code == 0
    for line in (
        "L, decoupled         log(5/3) = 0.510825623766",
        "ELBO of q~           0",
        "log p(x) >= L, decoupled    violated (exact)",
        "L >= ELBO of q~, coupled    violated (exact)",
        "-log(s)/2 - log(1 - s)/2 - log(2), which goes to infinity as s goes to 1",
    ):
        assert line in result.out
    assert re.search(r"L, coupled +\S+ = -0\.368064207168", result.out)


def test_reproduce_bernoulli_as_json(run: Run) -> None:
    found = run("reproduce", "bernoulli", "--json").json
    assert found["values"]["L, decoupled"]["text"] == "log(5/3)"
    assert [half["verdict"] for half in found["sandwich"]["decoupled"]] == ["violated", "holds"]
    assert [half["verdict"] for half in found["sandwich"]["coupled"]] == ["holds", "violated"]
    assert found["closed_forms"]["L, decoupled"]["limit as s -> 1"] == "oo"
    assert {each["verdict"] for each in found["identities"]} == {"holds"}


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"), ("", b"\x89PNG")]
)
def test_the_plot_is_of_the_kind_that_its_name_says(run: Run, tmp_path: Path, suffix: str, start: bytes) -> None:
    file = tmp_path / f"curve{suffix}"
    result = run("reproduce", "bernoulli", "--plot", file)
    assert result.code == 0
    assert file.read_bytes().startswith(start)
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


# --- bad input: one line, exit code 2 ------------------------------------------------------------------------------


def model_with(**changes: Any) -> bytes:
    return json.dumps(MODEL | changes).encode()


BAD_MODELS: dict[str, tuple[bytes, str]] = {
    "a negative entry": (model_with(encoder=[["-1/10", "11/10"], ["9/10", "1/10"]]), "encoder[0][0] = '-1/10'"),
    "a row that sums to 0.999": (model_with(encoder=[[0.1, 0.899], [0.9, 0.1]]), "row 0 of encoder = '999/1000'"),
    "an exact row that sums to 0.999": (model_with(prior=["0.5", "0.499"]), "sum of prior"),
    "NaN": (model_with(encoder=[[float("nan"), 0.9], [0.9, 0.1]]), "NaN"),
    "NaN as text": (model_with(encoder=[["nan", "0.9"], [0.9, 0.1]]), "encoder[0][0] = 'nan'"),
    "infinity": (model_with(prior=[float("inf"), 0]), "Infinity"),
    "true": (model_with(prior=[True, 0]), "prior[0] = True"),
    "null": (model_with(prior=[None, 1]), "prior[0] = None"),
    "a zero denominator": (model_with(prior=["1/0", "1/2"]), "prior[0] = '1/0'"),
    "a ragged table": (model_with(encoder=[["1/10", "9/10"], ["1"]]), "encoder"),
    "an empty table": (model_with(prior=[]), "prior"),
    "tables that do not fit": (model_with(prior=["1/3", "1/3", "1/3"]), "likelihood"),
    "an unknown table": (model_with(decoder=[[1]]), "decoder"),
    "a missing table": (json.dumps({"joint": MODEL["corruption"]}).encode(), "the model"),
    "a list": (b"[1, 2]", "[1, 2]"),
    "a number": (b"3", "3"),
    "a text": (b'"model"', "'model'"),
    "an empty file": (b"", "the file is empty"),
    "a blank file": (b" \n", "the file is empty"),
    "half a file": (b'{"prior": [', "valid JSON"),
    "brackets without end": (b"[" * 100_000, "valid JSON"),
    "a binary file": (bytes(range(256)), "a readable JSON file"),
    "UTF-16": ("{}".encode("utf-16"), "a readable JSON file"),
    "another kind": (model_with(kind="gaussian"), "gaussian"),
    "another version": (model_with(format="boundcheck-model/9"), "boundcheck-model/9"),
}


@pytest.mark.parametrize(("content", "told"), BAD_MODELS.values(), ids=BAD_MODELS.keys())
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_a_bad_model_is_one_line(run: Run, tmp_path: Path, content: bytes, told: str, as_json: bool) -> None:
    file = tmp_path / "model.json"
    file.write_bytes(content)
    assert_one_line(run("check", DECOUPLED, "--model", file, *["--json"] * as_json), told)


BAD_CALLS: dict[str, tuple[tuple[str, ...], str]] = {
    "an unknown claim": (("check", "iwae-below-evidnce"), "did you mean 'iwae-below-evidence'"),
    "an unknown claim to show": (("show", "denoising"), "expected a known claim"),
    "an unknown command": (("chek", DECOUPLED), "did you mean 'check'?"),
    "an unknown reproduction": (("reproduce", "bernouli"), "did you mean 'bernoulli'?"),
    "an unknown option": (("check", DECOUPLED, "--jsn"), "--jsn"),
    "no claim": (("check",), "NAME"),
    "two claims": (("check", DECOUPLED, COUPLED), COUPLED),
    "no models": (("check", DECOUPLED, "--count", "0"), "--count"),
    "a count that is no number": (("check", DECOUPLED, "--count", "many"), "--count"),
    "a negative seed": (("list", "--seed", "-1"), "--seed"),
    "a model and a count": (("check", DECOUPLED, "--model", "m.json", "--count", "3"), "--count"),
    "a missing model": (("check", DECOUPLED, "--model", "absent.json"), "absent.json"),
    "a folder as the model": (("check", DECOUPLED, "--model", "."), "directory"),
    "a missing witness": (("replay", "absent.json"), "absent.json"),
    "a folder as the witness": (("replay", "."), "directory"),
    "a model as the witness": (("replay", "model.json"), "boundcheck-witness/1"),
    "a file without a name in it": (("check", "own.py"), "FILE.py:NAME"),
    "a missing file of claims": (("check", "absent.py:claim"), "absent.py"),
    "a place to save that is not there": (("check", DECOUPLED, "--save", "absent/w.json"), "absent/w.json"),
    "a folder to save to": (("check", DECOUPLED, "--save", "."), "directory"),
    "a plot where nothing can be": (("reproduce", "bernoulli", "--plot", "absent/c.png"), "absent/c.png"),
    "a plot of an unknown kind": (("reproduce", "bernoulli", "--plot", "c.xyz"), "png"),
    "a plot that is a folder": (("reproduce", "bernoulli", "--plot", "."), "directory"),
    "no data": (("evaluate", "own.py:model"), "--data"),
    "a model that is not there": (("evaluate", "absent.py:model", "--data", "d.npy"), "d.npy"),
}


@pytest.mark.parametrize(("arguments", "told"), BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_a_bad_call_is_one_line(
    run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(model_file.parent)
    assert_one_line(run(*arguments), told)
    assert [each.name for each in model_file.parent.iterdir()] == [model_file.name]


def test_asking_for_nothing_is_no_success(run: Run) -> None:
    for arguments in ((), ("reproduce",)):
        result = run(*arguments)
        assert (result.code, result.out) == (2, "")
        assert "Usage: boundcheck" in result.err


def test_a_defect_does_not_exit_as_a_verdict(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def defective(*_: object, **__: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(sys.modules["boundcheck.claims.survey"], "survey", defective)
    assert_one_line(run("check", DECOUPLED), "ZeroDivisionError", "please report it")
    monkeypatch.setenv("BOUNDCHECK_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        run("check", DECOUPLED)


def test_a_missing_optional_part_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Absent:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "matplotlib":
                raise ModuleNotFoundError(name, name=name)

    for module in [each for each in sys.modules if each.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    result = run("reproduce", "bernoulli", "--plot", tmp_path / "c.png")
    assert_one_line(result, '--plot needs an optional part: pip install "boundcheck[plot]"')


# --- claims of the user's own --------------------------------------------------------------------------------------

OWN = """
from boundcheck import Claim, E, exp, integrate, log

print("a user's print")

def elbo(m, x):
    return E(m.encoder(x), lambda z: m.log_joint(x, z) - m.encoder(x).log_prob(z))

def evidence(m, x):
    return log(integrate(m.latent, lambda z: exp(m.log_joint(x, z))))

def twice(m, x):
    return 2 * elbo(m, x) + 3

forward, backward = Claim("forward", elbo, "<=", evidence), Claim("backward", evidence, "<=", elbo)

# True, as t -> t^3 is increasing, and of no form that shows it.
cubes = Claim("cubes", lambda m, x: elbo(m, x) ** 3, "<=", lambda m, x: evidence(m, x) ** 3)

def make():
    return backward

def wrong():
    return 3

def broken(m, x):
    return m.log_joint(x, undefined)

def nothing(m, x):
    pass

number = 5
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own.py"
    file.write_text(OWN, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("name", "code", "claim"),
    [
        ("forward", 0, "forward"),
        ("backward", 1, "backward"),
        ("make", 1, "backward"),
        ("elbo", 0, "elbo"),
        ("twice", 1, "twice"),
    ],
)
def test_a_users_own_claim(run: Run, own: Path, name: str, code: int, claim: str) -> None:
    result = run("check", f"{own}:{name}", "--count", 5, "--json")
    assert result.code == code
    assert result.json["claim"] == claim  # one object, although the file prints
    assert "a user's print" in result.err


def test_a_users_own_counterexample_replays_without_the_file(run: Run, own: Path, tmp_path: Path) -> None:
    run("check", f"{own}:twice", "--save", tmp_path / "w.json")
    own.unlink()
    assert run("replay", tmp_path / "w.json").code == 1
    assert load_witness(tmp_path / "w.json").claim.statement == "twice is a lower bound on log p(x)."


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("wrong", "wrong() = 3: expected a Claim"),
        ("broken", "NameError: name 'undefined' is not defined (line 27)"),
        ("nothing", "nothing returned nothing"),
        ("number", "number = 5"),
        ("forwards", "did you mean 'forward'"),
    ],
)
def test_a_users_mistake_is_one_line_that_names_the_place(run: Run, own: Path, name: str, told: str) -> None:
    result = run("check", f"{own}:{name}")
    assert_one_line(result._replace(err=result.err.replace("a user's print\n", "")), told)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (b"def f(:\n", "line 1"),
        (b"\n1 / 0\n", "ZeroDivisionError: division by zero (line 2)"),
        (b"import no_such_library\n", "no_such_library"),
        (b"raise SystemExit(0)\n", "SystemExit"),
        (bytes(range(256)), "Python source"),
    ],
)
def test_a_file_that_does_not_run_is_one_line(run: Run, tmp_path: Path, source: bytes, told: str) -> None:
    file = tmp_path / "bad.py"
    file.write_bytes(source)
    assert_one_line(run("check", f"{file}:claim"), told)


def test_an_edit_is_seen_at_once(run: Run, tmp_path: Path) -> None:
    """Python's own cache of bytecode takes a file of the same size and second for unchanged."""
    file = tmp_path / "own.py"
    source = OWN.replace("print", "str")
    now = time.time()
    for left, right, code in (("elbo", "evidence", 0), ("evidence", "elbo", 1)):
        claim = f'claim = Claim("c", {left}, "<=", {right})\n'
        file.write_text(source + claim, encoding="utf-8")
        os.utime(file, (now, now))
        assert run("check", f"{file}:claim", "--count", 3).code == code
    assert not (tmp_path / "__pycache__").exists()


# --- evaluate ------------------------------------------------------------------------------------------------------

TRAINED = """
import torch
from torch.distributions import Normal

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def prior(self):
        return Normal(torch.zeros((), dtype=torch.float64), 1.0)

    def encoder(self, x):
        return Normal(self.scale * x, 0.8)

    def decoder(self, z):
        return Normal(z, 1.0)

class Broken(Model):
    def encoder(self, x):
        return Normal(self.missing * x, 0.8)
"""


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    pytest.importorskip("torch")
    import numpy as np

    (tmp_path / "model.py").write_text(TRAINED, encoding="utf-8")
    np.save(tmp_path / "data.npy", np.linspace(-2, 2, 40))
    return tmp_path


def test_evaluate(run: Run, trained: Path) -> None:
    arguments = ("evaluate", trained / "model.py:Model", "--data", trained / "data.npy", "--k", 50)
    result = run(*arguments, "--json")
    assert result.json["objective"] == "elbo"
    assert result.code == {"holds": 0, "violated": 1, "undecided": 3}[result.json["verdict"]]
    assert run(*arguments, "--json").json == result.json
    text = run(*arguments)
    assert text.code == result.code
    assert "IWAE-50\t" in text.out
    assert f"elbo: {result.json['verdict']}" in text.out


def test_evaluate_on_a_terminal_shows_the_card(run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    result = run("evaluate", trained / "model.py:Model", "--data", trained / "data.npy", "--k", 50)
    assert re.search("elbo: (holds|undecided)", result.out)
    assert "[green]" not in result.out


def test_evaluate_bad_input_is_one_line(run: Run, trained: Path) -> None:
    data = ("--data", trained / "data.npy", "--k", 5)
    assert_one_line(run("evaluate", trained / "model.py:Broken", *data), "missing")
    assert_one_line(run("evaluate", trained / "model.py:Modle", *data), "did you mean 'Model'")
    assert_one_line(run("evaluate", trained / "model.py:Model", *data, "--objective", "elbbo"), "elbo")
    assert_one_line(run("evaluate", trained / "model.py:Model", "--data", trained / "absent.npy"), "absent.npy")
    weights = ("--weights", trained / "absent.pt")
    assert_one_line(run("evaluate", trained / "model.py:Model", *data, *weights), "absent.pt")


def test_evaluate_without_torch_says_how_to_get_it() -> None:
    code = "import sys; sys.modules['torch'] = None; import boundcheck.cli as c; sys.exit(c.run(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "evaluate", "model.py:f", "--data", "d.npy"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert_one_line(Result(found.returncode, found.stdout, found.stderr), 'pip install "boundcheck[torch]"')


# --- the real process ----------------------------------------------------------------------------------------------

posix = pytest.mark.skipif(os.name == "nt", reason="the streams and signals of a POSIX system")


def test_the_process_exits_with_the_code(tmp_path: Path) -> None:
    good = process("check", DECOUPLED, "--json")
    assert good.returncode == 1
    assert json.loads(good.stdout)["verdict"] == "violated"
    bad = process("check", DECOUPLED, "--model", tmp_path / "absent.json")
    assert_one_line(Result(bad.returncode, bad.stdout, bad.stderr), "absent.json")


def test_help_loads_click_and_little_else() -> None:
    code = (
        "import sys; import boundcheck.cli as c; code = c.run(['--help']);"
        "print(sorted({'numpy', 'sympy', 'flint', 'torch', 'rich', 'scipy', 'matplotlib'} & set(sys.modules)));"
        "sys.exit(code)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


@posix
def test_a_full_disk_is_no_verdict() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "boundcheck", "check", COUPLED, "--count", "1"]
        found = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert_one_line(Result(found.returncode, "", found.stderr), "No space left")


@posix
def test_a_reader_that_goes_away_is_met_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "boundcheck", "check", DECOUPLED, "--json"]
    found = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (found.returncode, found.stderr) == (141, "")


@posix
def test_a_closed_stdout_leaves_the_exit_code() -> None:
    shell = f"{sys.executable} -m boundcheck check {DECOUPLED} >&-"
    found = subprocess.run(["sh", "-c", shell], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    assert (found.returncode, found.stderr) == (1, "")


def test_an_interrupt_is_no_verdict(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sys.modules["boundcheck.claims.survey"], "survey", interrupted)
    result = run("check", DECOUPLED)
    assert (result.code, result.out, result.err) == (130, "", "error: interrupted\n")


@posix
@pytest.mark.parametrize(
    "arguments",
    [("check", DECOUPLED), ("show", COUPLED)],
    ids=lambda arguments: arguments[0],
)
def test_a_terminal_gets_colour_and_all_the_words(run: Run, arguments: tuple[str, ...]) -> None:
    plain = run(*arguments)
    ours, theirs = os.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "300"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "boundcheck", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=subprocess.DEVNULL, env=environment) as child:
        os.close(theirs)
        pieces = []
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the way a pseudo-terminal tells its end
                break
            if not piece:
                break
            pieces.append(piece)
    os.close(ours)
    shown = b"".join(pieces).decode()
    assert child.returncode == plain.code
    assert "\x1b[" in shown
    words = re.sub(r"\x1b\[[0-9;]*m", "", shown).split()
    assert words == plain.out.split()


# --- pieces --------------------------------------------------------------------------------------------------------


def test_a_large_model_is_cut_for_the_reader() -> None:
    n = 40
    model = FiniteModel(joint=[[f"1/{n * 2}"] * 2] * n, encoder=[["1/2", "1/2"]] * n)
    rows = model_rows(model)
    assert len(rows) < 20
    assert "rows more" in rows[-1][1]


def test_a_table_off_the_terminal_is_separated_by_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().table(("a", "b"), [("1\t2", "3")])
    assert capsys.readouterr().out == "a\tb\n1 2\t3\n"


# --- the package's front door --------------------------------------------------------------------------------------


def test_every_public_name_opens_and_is_documented() -> None:
    for name in boundcheck.__all__:
        value = getattr(boundcheck, name)
        assert value is getattr(boundcheck, name)
        if isinstance(value, type) or (callable(value) and getattr(value, "__module__", "") != "types"):
            assert getattr(value, "__doc__", None), name
    assert dir(boundcheck) == sorted(boundcheck.__all__)
    with pytest.raises(AttributeError, match="no attribute 'evidense'"):
        _ = boundcheck.evidense


def test_type_checkers_and_the_interpreter_see_the_same_names() -> None:
    tree = ast.parse(Path(boundcheck.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == boundcheck._HOME
    assert typed.keys() | {"__version__"} == set(boundcheck.__all__)
