"""The pytest plugin and the assertion, used as a stranger's test suite would use them."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from boundcheck import BadInput, Claim, FiniteModel, ObjectiveFailed, black_box, evaluate, pytest_plugin
from boundcheck.catalogue import find
from boundcheck.catalogue.objectives import denoising_decoupled, elbo, log_evidence
from boundcheck.claims import check_model
from boundcheck.models import LinearGaussianModel
from boundcheck.search.witness import Witness, load_witness
from boundcheck.testing import RECORDS, Record, assert_bound, regression_test, smaller_counterexample

SUITE = """
from hypothesis import given
import pytest
from boundcheck import E, exp, log, total
from boundcheck.catalogue.objectives import elbo, log_evidence
from boundcheck.strategies import finite_models

def wrong_iwae(m, x, k=3):
    return E(m.encoder(x).copies(k), lambda z: log(total(exp(m.log_joint(x, z) - m.encoder(x).log_prob(z))) / (k - 1)))

@pytest.mark.boundcheck
@given(model=finite_models(latent=2))
def test_true(model):
    from boundcheck.testing import assert_bound
    assert_bound(elbo, "<=", log_evidence, model)

@given(model=finite_models(latent=2, corruption=2))
def test_false(model):
    from boundcheck.testing import assert_bound
    assert_bound(wrong_iwae, "<=", log_evidence, model)

def test_fixture(bound):
    from boundcheck import FiniteModel
    bound(elbo, "<=", log_evidence, FiniteModel(prior=[1], likelihood=[[1]], encoder=[[1]]), name="by fixture")
"""


def run_pytest(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:randomly", *args]
    # Hypothesis has no database where it sees a CI service; what is tested here is a user's own machine.
    services = ("PYTEST", "CI", "GITHUB", "GITLAB", "TF_", "TRAVIS", "BUILDKITE", "CIRRUS", "CODEBUILD", "TEAMCITY")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(services)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=240)


def test_a_strangers_suite(tmp_path: Path) -> None:
    (tmp_path / "test_bounds.py").write_text(SUITE)
    result = run_pytest(tmp_path, "--boundcheck-profile=quick")
    out = result.stdout
    assert result.returncode == 1, out + result.stderr
    assert "1 failed, 2 passed" in out
    assert "lhs = log(3/2) = 0.405465108108" in out
    assert "boundcheck replay .boundcheck/wrong_iwae" in out
    summary = out[out.index("= boundcheck =") :]
    assert "elbo <= log_evidence" in summary and "held" in summary
    assert "wrong_iwae <= log_evidence" in summary and "violated" in summary
    assert "by fixture" in summary
    (saved,) = (tmp_path / ".boundcheck").glob("wrong_iwae*.json")
    witness = load_witness(saved)
    assert witness.replay().outcome.value == "violated"
    # The same witness as a regression test fails for as long as the formula is wrong.
    other = tmp_path / "other"
    other.mkdir()
    (other / "test_regression.py").write_text(regression_test(witness))
    (regression,) = [f for name, f in runpy.run_path(str(other / "test_regression.py")).items() if name[:5] == "test_"]
    with pytest.raises(AssertionError, match=r"violated \(exact\)"):
        regression()


SHARED = """
import pytest
from boundcheck import FiniteModel
from boundcheck.catalogue.objectives import elbo, log_evidence

@pytest.mark.parametrize("q", range(4))
def test_shared(bound, q):
    model = FiniteModel(prior=["1/2", "1/2"], likelihood=[[1], [1]], encoder=[[f"{1 + q}/8", f"{7 - q}/8"]])
    bound(elbo, "<=", log_evidence, model, name="shared")
    bound(elbo, "==", log_evidence, model, name="tight")
"""


def test_two_workers_have_one_summary(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    (tmp_path / "test_shared.py").write_text(SHARED)
    out = run_pytest(tmp_path, "-n", "2", "-p", "no:hypothesispytest").stdout
    assert "3 failed, 1 passed" in out, out
    lines = {line.split()[0]: line.split() for line in out[out.index("= boundcheck =") :].splitlines()}
    assert lines["shared"][1:5] == ["held", "exact", "4", "models,"]
    assert lines["tight"][1:5] == ["violated", "exact", "4", "models,"]


def test_a_run_without_bounds_has_no_summary_and_loads_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(
        "import sys\n\ndef test_plain():\n    assert not {'flint', 'sympy', 'torch', 'scipy'} & set(sys.modules)\n"
    )
    result = run_pytest(tmp_path, "-p", "no:hypothesispytest")
    assert result.returncode == 0, result.stdout
    assert "boundcheck" not in result.stdout


def test_the_ci_profile_gives_the_same_examples(tmp_path: Path) -> None:
    (tmp_path / "test_seen.py").write_text(
        "import json\nfrom hypothesis import given, settings\nfrom boundcheck.strategies import finite_models\n"
        "SEEN = []\n"
        "@settings(max_examples=25)\n@given(finite_models(latent=2))\ndef test_seen(model):\n"
        "    SEEN.append(model.to_json())\n"
        "def teardown_module():\n    print('SEEN', json.dumps(SEEN))\n"
    )
    runs = [run_pytest(tmp_path, "--boundcheck-profile=ci", "-s").stdout for _ in range(2)]
    seen = [json.loads(run.split("SEEN ", 1)[1].splitlines()[0]) for run in runs]
    assert seen[0] == seen[1]
    assert len(seen[0]) >= 20
    assert not (tmp_path / ".hypothesis" / "examples").exists(), "the ci profile has no database"


def test_the_failure_shows_model_values_and_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = FiniteModel(
        prior=["1/2", "1/2"], likelihood=[[1], [1]], corruption=[["1/2", "1/2"]], encoder=[[0.1, 0.9], [0.9, 0.1]]
    )
    with pytest.raises(AssertionError) as failure:
        assert_bound(denoising_decoupled, "<=", log_evidence, model)
    text = str(failure.value)
    assert "lhs = log(5/3) = 0.510825623766" in text
    assert "encoder     1/10  9/10" in text
    path = text.split("boundcheck replay ")[1].strip()
    assert load_witness(path).replay().outcome.value == "violated"
    assert RECORDS["denoising_decoupled <= log_evidence"].violated == 1


def test_an_undecided_comparison_fails_only_if_strict() -> None:
    model = FiniteModel(prior=[1, 0], likelihood=[[1], [1]], encoder=[["1/2", "1/2"]])

    def undefined(m, x):  # type: ignore[no-untyped-def]
        return elbo(m, x) - elbo(m, x)  # -inf + inf

    assert_bound(undefined, "<=", log_evidence, model)
    with pytest.raises(AssertionError, match="undecided"):
        assert_bound(undefined, "<=", log_evidence, model, strict=True)


def test_observations_are_checked() -> None:
    model = FiniteModel(prior=[1], likelihood=[[1]], encoder=[[1]])
    with pytest.raises(BadInput, match="x = 1"):
        assert_bound(elbo, "<=", log_evidence, model, x=1)


def test_a_regression_test_is_valid_python() -> None:
    claim = find("denoising-readings-agree")
    assert claim.witness is not None
    compile(regression_test(Witness.of(check_model(claim, claim.witness()))), "test_regression.py", "exec")


# --- the marker, the fixtures, the profiles, the database -----------------------------------------------------------

MARKED = """
import pytest
from hypothesis import given
from boundcheck import FiniteModel
from boundcheck.catalogue.objectives import elbo, log_evidence
from boundcheck.strategies import finite_models
from boundcheck.testing import STRICT

HOLED = FiniteModel(prior=[1, 0], likelihood=[[1], [1]], encoder=[["1/2", "1/2"]])

def undefined(m, x):
    return elbo(m, x) - elbo(m, x)

@pytest.mark.boundcheck
def test_lenient(bound):
    bound(undefined, "<=", log_evidence, HOLED)

@pytest.mark.boundcheck(strict=True)
def test_strict(bound):
    bound(undefined, "<=", log_evidence, HOLED, name="strictly")

def test_strict_no_longer(bound):
    assert STRICT == [False]
    bound(undefined, "<=", log_evidence, HOLED)

@given(finite_models(latent=2))
def test_fixture_and_hypothesis(bound, model):
    bound(elbo, "<=", log_evidence, model)

def test_models(boundcheck_models, bound):
    assert len(boundcheck_models) == 60
    for model in boundcheck_models[:5]:
        bound(elbo, "<=", log_evidence, model)

def test_fixed(fixed):
    fixed("witness.json", lhs=elbo)

def test_not_fixed(fixed):
    fixed("witness.json")
"""


def test_marker_and_fixtures(tmp_path: Path) -> None:
    claim = find("denoising-decoupled-below-evidence")
    wide = FiniteModel(prior=["1/2", "1/2"], likelihood=[[1], [1]], corruption=[[1]], encoder=[["1/3", "2/3"]])
    assert claim.witness is not None and check_model(Claim("elbo", elbo, "<=", log_evidence), wide)
    shifted = Claim("shifted", lambda m, x: elbo(m, x) + 1, "<=", log_evidence)
    Witness.of(check_model(shifted, wide)).save(tmp_path / "witness.json")
    (tmp_path / "test_marked.py").write_text(MARKED)
    result = run_pytest(tmp_path, "--boundcheck-profile=quick")
    assert "2 failed, 5 passed" in result.stdout, result.stdout
    assert "strictly: undecided" in result.stdout
    assert "replay: boundcheck replay witness.json" in result.stdout
    assert "shifted" in result.stdout


@pytest.mark.parametrize(
    ("args", "kwargs", "known"),
    [
        ((), {}, True),
        ((), {"strict": True}, True),
        ((), {"strict": False}, True),
        ((), {"strct": True}, False),
        ((), {"strict": "yes"}, False),
        (("strict",), {}, False),
    ],
)
def test_a_misspelt_marker_is_refused(args: tuple[Any, ...], kwargs: dict[str, Any], known: bool) -> None:
    class Item:
        nodeid = "test_it.py::test_it"

        def iter_markers(self, name: str) -> list[pytest.Mark]:
            return [pytest.Mark(name, args, kwargs, _ispytest=True)]

    items: Any = [Item()]
    if known:
        pytest_plugin.pytest_collection_modifyitems(items)
    else:
        with pytest.raises(pytest.UsageError, match="strict=True or strict=False"):
            pytest_plugin.pytest_collection_modifyitems(items)


REMEMBERED = """
import json
from hypothesis import given
from boundcheck.strategies import finite_models
TRIED = []

@given(finite_models(latent=3))
def test_it(model):
    TRIED.append(model.to_json())
    assert model.sizes["z"] < 2

def teardown_module():
    print("TRIED", json.dumps([len(TRIED), TRIED[0], TRIED[-1]]))
"""


def test_a_failing_example_is_tried_first_in_the_next_run(tmp_path: Path) -> None:
    """Hypothesis's example database, which every profile but "ci" uses."""
    (tmp_path / "test_it.py").write_text(REMEMBERED)

    def tried(profile: str) -> tuple[int, object, object]:
        out = run_pytest(tmp_path, "-s", f"--boundcheck-profile={profile}").stdout
        assert "1 failed" in out
        count, first, last = json.loads(out.split("TRIED ", 1)[1].splitlines()[0])
        return count, first, last

    _, _, minimal = tried("quick")
    assert (tmp_path / ".hypothesis" / "examples").is_dir()
    _, replayed, _ = tried("quick")
    assert replayed == minimal


def test_a_smaller_counterexample_is_shown_where_states_can_be_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    thirds = ["1/3", "1/3", "1/3"]
    model = FiniteModel(
        prior=thirds, likelihood=[[1]] * 3, corruption=[thirds], encoder=[thirds, ["1/2", "1/4", "1/4"], thirds]
    )
    with pytest.raises(AssertionError):
        assert_bound(denoising_decoupled, "<=", log_evidence, model, name="three states")
    text = smaller_counterexample()
    assert "three states: violated (exact)" in text and "replay: boundcheck replay .boundcheck/smaller-" in text
    witness = load_witness(text.split("boundcheck replay ")[1].strip())
    assert witness.model.sizes == {"x": 1, "z": 2, "x~": 2}
    assert witness.replay().outcome.value == "violated"
    assert smaller_counterexample() == ""
    with pytest.raises(AssertionError):
        assert_bound(denoising_decoupled, "<=", log_evidence, witness.model, name="two states")
    assert smaller_counterexample() == "", "nothing is smaller than two states"


def test_hypothesis_is_given_the_margin_as_its_target() -> None:
    """Towards a violation; a tie is no such direction, and a violation is found already."""
    told: list[float] = []

    def target(value: float, label: str) -> None:
        told.append(value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hypothesis.target", target)
        patch.setattr("hypothesis.currently_in_test_context", lambda: True)
        model = FiniteModel(prior=["1/2", "1/2"], likelihood=[[1], [1]], encoder=[["1/4", "3/4"]])
        assert_bound(elbo, "<=", log_evidence, model)
        assert_bound(log_evidence, "==", log_evidence, model)  # a tie leads nowhere
        with pytest.raises(AssertionError):
            assert_bound(elbo, "==", log_evidence, model)
    gap = float(evaluate(log_evidence, model)) - float(evaluate(elbo, model))
    assert told == [pytest.approx(-gap)] and gap > 0.1


def test_continuous_models_need_an_observation() -> None:
    model = LinearGaussianModel(prior=(0, 1), likelihood=(1, 0, 1), encoder=(0.5, 0, 0.25))
    assert_bound(elbo, "<=", log_evidence, model, 1.0, name="continuous")
    assert RECORDS["continuous"].verdict == "held"
    with pytest.raises(BadInput, match="the observation"):
        assert_bound(elbo, "<=", log_evidence, model)
    with pytest.raises(AssertionError, match=r"likelihood .* Normal"):
        assert_bound(log_evidence, "<=", elbo, model, 1.0)


def test_an_objective_without_a_number_is_recorded() -> None:
    box = black_box(lambda m, x: float("nan"), name="broken")
    model = FiniteModel(prior=[1], likelihood=[[1]], encoder=[[1]])
    with pytest.raises(ObjectiveFailed, match="broken returned nan"):
        assert_bound(box, "<=", log_evidence, model)
    record = RECORDS["broken <= log_evidence"]
    assert (record.verdict, record.failed, record.models) == ("no number", 1, 0)


def test_records_of_several_processes_add_up() -> None:
    first = Record("a", models=3, undecided=1, smallest_margin=0.5, guarantee="exact", corners={"zeros": 2})
    second = Record("a", models=2, violated=1, smallest_margin=-1, guarantee="numerical", corners={"zeros": 1, "b": 0})
    first.merge(second)
    assert (first.models, first.verdict, first.guarantee) == (5, "violated", "numerical")
    assert first.corners == {"zeros": 3, "b": 0} and first.smallest_margin == -1
