"""The pytest plugin and the assertion, used as a stranger's test suite would use them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings

from boundcheck import BadInput, FiniteModel
from boundcheck.catalogue import find
from boundcheck.catalogue.objectives import denoising_decoupled, elbo, log_evidence
from boundcheck.claims import check_model
from boundcheck.search.witness import Witness, load_witness
from boundcheck.strategies import CORNERS, finite_models, probabilities
from boundcheck.testing import RECORDS, assert_bound, regression_test

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
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=240)


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_strangers_suite(tmp_path: Path, workers: tuple[str, ...]) -> None:
    (tmp_path / "test_bounds.py").write_text(SUITE)
    result = run_pytest(tmp_path, "--boundcheck-profile=quick", *workers)
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
    again = run_pytest(other)
    assert again.returncode == 1
    assert "1 failed" in again.stdout


def test_a_run_without_bounds_has_no_summary_and_loads_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(
        "import sys\n\ndef test_plain():\n    assert not {'flint', 'sympy', 'torch', 'scipy'} & set(sys.modules)\n"
    )
    result = run_pytest(tmp_path, "-p", "no:hypothesispytest")
    assert result.returncode == 0, result.stdout
    assert "boundcheck" not in result.stdout


def test_the_ci_profile_gives_the_same_examples(tmp_path: Path) -> None:
    (tmp_path / "test_seen.py").write_text(
        "import json\nfrom hypothesis import given\nfrom boundcheck.strategies import finite_models\nSEEN = []\n"
        "@given(finite_models(latent=2))\ndef test_seen(model):\n    SEEN.append(model.to_json())\n"
        "def teardown_module():\n    print('SEEN', json.dumps(SEEN))\n"
    )
    runs = [run_pytest(tmp_path, "--boundcheck-profile=ci", "-s").stdout for _ in range(2)]
    seen = [json.loads(run.split("SEEN ", 1)[1].splitlines()[0]) for run in runs]
    assert seen[0] == seen[1]
    assert len(seen[0]) >= 100


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


@settings(max_examples=60, derandomize=True)
@given(finite_models(latent=3, corruption=3, auxiliary=True))
def test_strategies_give_valid_models(model: FiniteModel) -> None:
    assert 1 <= model.sizes["z"] <= 3
    assert model.sizes["x"] == model.sizes["x~"]
    assert check_model(find("hvm-below-evidence"), model).verdict.outcome.value != "violated"


def test_strategies_meet_their_corners() -> None:
    """Over 400 examples every corner occurs; each is drawn with probability 1/5, so one misses it with p < 1e-38."""
    seen: set[str] = set()

    @settings(max_examples=400, derandomize=True, database=None)
    @given(finite_models(latent=2, corruption=2))
    def collect(model: FiniteModel) -> None:
        encoder = model.table("encoder").tolist()
        posterior = [[p / sum(row) for p in row] if sum(row) else None for row in model.table("joint").tolist()]
        if model.sizes["z"] == 2 and model.sizes["x"] == 2:
            seen.add("plain")
            if encoder[0] == encoder[1]:
                seen.add("encoder ignores its input")
            if encoder == posterior:
                seen.add("encoder is the posterior")
            if model.table("likelihood").tolist()[0] == model.table("likelihood").tolist()[1]:
                seen.add("equal rows")
            if encoder[0] == encoder[1][::-1]:
                seen.add("symmetric tables")

    collect()
    assert seen == {"plain", *CORNERS}


def test_rows_shrink_to_simple_fractions() -> None:
    from hypothesis import find as smallest

    assert [str(p) for p in smallest(probabilities(3), lambda row: row[2] > row[0])] == ["1/4", "1/4", "1/2"]


@pytest.mark.parametrize("bad", [{"latent": 0}, {"corruption": -1}, {"observed": 1.5}, {"auxiliary": True}])
def test_strategies_refuse_bad_sizes(bad: dict[str, object]) -> None:
    from hypothesis import find as smallest

    with pytest.raises(BadInput):
        smallest(finite_models(**bad), lambda model: True)  # type: ignore[arg-type]


def test_a_regression_test_is_valid_python() -> None:
    claim = find("denoising-readings-agree")
    assert claim.witness is not None
    compile(regression_test(Witness.of(check_model(claim, claim.witness()))), "test_regression.py", "exec")
