"""Every stage of an evaluation card: killed and gone on with, shared by processes, and refused where it is another."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from card_scripts import CARD, TESTS, same
from torch import Tensor
from torch_models import LinearGaussian

from boundcheck.evaluators import units
from boundcheck.evidence import TrainingObjective, annealed_weights, chain_block, evaluate_model, replication, stages
from boundcheck.evidence.journal import JournalError
from boundcheck.evidence.stages import Compute, Stage, State, Step

ROOT = TESTS.parent
STAGES = {
    "annealing",
    "bidirectional-draws",
    "bidirectional-forward",
    "bidirectional-reverse",
    "grid",
    "objective-denoising_coupled",
    "objective-denoising_decoupled",
    "objective-loss",
    "same-as-iwae",
    "simulated",
    "simulated-draws",
    "simulated-objective-denoising_coupled",
    "simulated-objective-denoising_decoupled",
    "simulated-objective-loss",
}

KILLED = (
    CARD
    + """
folder = sys.argv[1]
counters = lambda name: (count(f"{{folder}}/{{name}}.calls"), count(f"{{folder}}/{{name}}.decoded"))
whole = evaluate_model(MODEL, X, objective=prepared(*counters("whole")), **OPTIONS).to_json()
objective, kills, real, write = prepared(*counters("killed")), 0, os.fsync, stages.Journal._write
while True:
    child = os.fork()
    if child == 0:
        now, flushed = [""], dict()

        def watched(journal, name, content):
            now[0] = journal.path.name
            write(journal, name, content)

        def deadly(handle):
            # Once in each stage: where a file is half-way, or where it has its name but may not be flushed.
            flushed[now[0]] = flushed.get(now[0], 0) + 1
            if flushed[now[0]] == (3 if now[0].endswith("draws") else 9) + kills % 2:
                if not os.path.exists(f"{{folder}}/{{now[0]}}.dead"):
                    open(f"{{folder}}/{{now[0]}}.dead", "w").close()
                    os.kill(os.getpid(), signal.SIGKILL)
            real(handle)

        os.fsync, stages.Journal._write = deadly, watched
        card = evaluate_model(MODEL, X, objective=objective, resume=f"{{folder}}/kept", **OPTIONS)
        with open(f"{{folder}}/card.json", "w") as file:
            json.dump(card.to_json(), file)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    kills += 1
    assert kills < 100
again = evaluate_model(MODEL, X, objective=prepared(*counters("again")), resume=f"{{folder}}/kept", **OPTIONS)
json.dump({{"whole": whole, "kills": kills, "again": again.to_json()}}, open(f"{{folder}}/whole.json", "w"))
"""
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_card_that_is_killed_in_every_stage_is_that_of_an_uninterrupted_run(tmp_path: Path) -> None:
    script = KILLED.format(tests=str(TESTS))
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "whole.json").read_text())
    same(json.loads((tmp_path / "card.json").read_text()), found["whole"])
    same(found["again"], found["whole"])
    assert {each.name for each in (tmp_path / "kept").iterdir() if each.is_dir()} == STAGES
    kills = found["kills"]
    assert {each.stem for each in tmp_path.glob("*.dead")} == {"kept", *STAGES}
    assert kills == len(STAGES) + 1
    size = {each.name: each.stat().st_size for each in tmp_path.glob("*.*") if each.suffix in (".calls", ".decoded")}
    starts = size["again.calls"]  # what is called only to see whether it is still the same
    assert starts <= 10
    assert size["killed.calls"] <= size["whole.calls"] + (kills + 1) * (starts + 1)
    looks = size["again.decoded"]
    assert size["killed.decoded"] <= size["whole.decoded"] + (kills + 1) * (looks + 24)
    assert size["whole.decoded"] > 3 * looks
    assert not list((tmp_path / "kept").glob("**/begun-*"))


# --- whose directory it is ---


@pytest.fixture(autouse=True)
def _short_pilots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_block, "WARM_UP", 2)


X = torch.linspace(-1, 1, 10).reshape(5, 2).double()
LINEAR = LinearGaussian(1, 2, seed=5)
OPTIONS: dict[str, Any] = {"k": 20, "replicates": 4, "simulated": 6, "seed": 3}


def loss(model: Any, x: Tensor) -> Tensor:
    return x.sum(-1) + torch.randn(len(x))


def other_loss(model: Any, x: Tensor) -> Tensor:
    return x.sum(-1) + torch.randn(len(x))


def scaled(scale: float) -> Callable[[Any, Tensor], Tensor]:
    def loss(model: Any, x: Tensor) -> Tensor:
        return scale * x.sum(-1) + torch.randn(len(x))

    return loss


def objective(function: Callable[[Any, Tensor], Tensor] = loss, **declared: Any) -> TrainingObjective:
    return TrainingObjective(function, **{"sign": "loss", "name": "mine", **declared})


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({}, {"objective": objective(other_loss)}, r"in objective-mine, its source is \w{8}\.\.\., not \w{8}\.\.\."),
        (
            {"objective": objective(scaled(1.0))},
            {"objective": objective(scaled(1.0003))},
            "its objective gave other values",
        ),
        ({}, {"objective": objective(sign="bound")}, "its sign is loss, not bound"),
        ({}, {"objective": objective(batch=2)}, "its parts is .*; its batch is 100, not 2"),
        (
            {},
            {"replicates": 5},
            "in objective-mine, its parts is 4, not 5; its replicates is 4, not 5; .*remove objective-mine from it",
        ),
        ({}, {"simulated": 7}, "in simulated-draws, its examples is 6, not 7"),
        ({"ais": 2}, {"ais": 3}, "in annealing, its temperatures is 2, not 3"),
        ({}, {"seed": 4}, "its seed is 3, not 4"),
        (
            {"objective": "renyi", "parameters": {"alpha": 0.5}},
            {"objective": "renyi", "parameters": {"alpha": 0.4}},
            "in objective-renyi, its formula is",
        ),
    ],
)
def test_a_changed_objective_is_refused_and_the_first_one_goes_on(
    before: dict, after: dict, message: str, tmp_path: Path
) -> None:
    options = OPTIONS | {"objective": objective(), "resume": tmp_path} | before
    first = evaluate_model(LINEAR.torch(), X, **options)
    with pytest.raises(
        JournalError, match=f"resume = .*expected the directory of this very job; .*{message}"
    ) as caught:
        evaluate_model(LINEAR.torch(), X, **(options | after))
    assert "\n" not in str(caught.value)
    same(evaluate_model(LINEAR.torch(), X, **options).to_json(), first.to_json())


def test_another_model_is_told_by_its_corruption(tmp_path: Path) -> None:
    other = LinearGaussian(1, 2, seed=5)
    other.t = 2.0  # the log-weights are the same
    evaluate_model(LINEAR.torch(), X, resume=tmp_path, **OPTIONS)
    with pytest.raises(JournalError, match=r"denoising_coupled.*its objective gave other values at the same draws"):
        evaluate_model(other.torch(), X, resume=tmp_path, **OPTIONS)


def test_other_objectives_share_the_log_weights(tmp_path: Path) -> None:
    evaluate_model(LINEAR.torch(), X, resume=tmp_path, **OPTIONS)
    items = {file: file.stat().st_mtime_ns for file in tmp_path.glob("item-*")}
    found = evaluate_model(LINEAR.torch(), X, objective=objective(), resume=tmp_path, **OPTIONS)
    assert items and items == {file: file.stat().st_mtime_ns for file in tmp_path.glob("item-*")}
    same(found.to_json(), evaluate_model(LINEAR.torch(), X, objective=objective(), **OPTIONS).to_json())


# --- what draws from elsewhere ---


def test_numpys_and_pythons_generators_are_those_of_the_call(tmp_path: Path) -> None:
    def drawing(model: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(np.random.normal(size=len(x)))

    np.random.seed(1)
    before = np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    first = evaluate_model(LINEAR.torch(), X, objective=objective(drawing), **OPTIONS)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index, union-attr]
    np.random.seed(2)
    second = evaluate_model(LINEAR.torch(), X, objective=objective(drawing), resume=tmp_path, **OPTIONS)
    same(first.to_json(), second.to_json())
    assert len(list((tmp_path / "objective-mine").glob("item-*"))) == 4


def test_an_objective_with_a_generator_of_its_own_is_kept_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    calls = [0]

    def started(fails: int) -> TrainingObjective:
        own = np.random.default_rng(0)

        def drawing(model: Any, x: Tensor) -> Tensor:
            calls[0] += 1
            if calls[0] == fails:
                raise KeyboardInterrupt
            return torch.from_numpy(own.normal(size=len(x)))

        return objective(drawing, batch=2)

    options = {"k": 20, "replicates": 40, "simulated": 0, "resume": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        evaluate_model(LINEAR.torch(), X, objective=started(100), **options)
    assert not list((tmp_path / "objective-mine").glob("*-0*"))
    calls[0] = 0
    found = evaluate_model(LINEAR.torch(), X, objective=started(-1), **options)
    total = calls[0]
    assert len(list((tmp_path / "objective-mine").glob("item-*"))) == 1
    same(evaluate_model(LINEAR.torch(), X, objective=started(-1), **options).to_json(), found.to_json())
    assert calls[0] - total <= 4


# --- the disk ---


def test_a_full_disk_is_one_clear_error_in_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = OPTIONS | {"ais": 2, "same": "iwae", "same_parameters": {"k": 2}, "resume": tmp_path}
    write, met = stages.Journal._write, set[str]()

    def full(journal: stages.Journal, name: str, content: bytes) -> None:
        if name == "item-00000000" and journal.path.name not in met and journal.path != tmp_path:
            met.add(journal.path.name)
            raise journal._unwritable(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        write(journal, name, content)

    monkeypatch.setattr(stages.Journal, "_write", full)
    for _ in range(len(STAGES) - 2):  # its objective is the ELBO, which is read off the curve
        before = set(met)
        with pytest.raises(
            JournalError, match=r"resume = .*the disk is full; 0 of \d+ items of [\w-]+ are saved: make"
        ) as e:
            evaluate_model(LINEAR.torch(), X, **options)
        (stage,) = met - before
        assert f"items of {stage} are saved" in str(e.value)
    assert met == STAGES - {"objective-loss", "simulated-objective-loss"}
    found = evaluate_model(LINEAR.torch(), X, **options)
    options["resume"] = None
    same(found.to_json(), evaluate_model(LINEAR.torch(), X, **options).to_json())


def test_torn_files_of_a_stage_are_made_again(tmp_path: Path) -> None:
    options = OPTIONS | {"objective": objective(), "ais": 2, "resume": tmp_path}
    first = evaluate_model(LINEAR.torch(), X, **options)
    items = sorted(tmp_path.glob("*/item-*"))
    for index, file in enumerate(items):
        whole = file.read_bytes()
        file.write_bytes(items[index - 1].read_bytes() if index % 3 else whole[:-5])
    same(evaluate_model(LINEAR.torch(), X, **options).to_json(), first.to_json())


# --- parts ---


def counting(upto: int, stop: int, seen: list[int]) -> Compute:
    """Parts that count from where they were left, and stop for good at some number."""

    def compute(index: int, before: State | None) -> Generator[Step]:
        done = 0 if before is None else int(before["done"])
        yield done, lambda: {"done": np.array(done)}
        for number in range(done, upto):
            if len(seen) == stop:
                raise KeyboardInterrupt
            seen.append(index)
            yield number + 1, lambda done=number + 1: {"done": np.array(done)}

    return compute


def test_a_part_goes_on_from_what_it_had_come_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_SECONDS", 0.0)
    monkeypatch.setattr(stages, "_SHARE", 1e9)
    seen: list[int] = []
    reported: list[int] = []
    stage, found = Stage("s", tmp_path), list[State]()
    for stop in (3, 7, 12, -1):
        try:
            found = stage.collect(dict, [5, 5, 5], counting(5, stop, seen), progress=reported.append)
        except KeyboardInterrupt:
            reported.clear()
    assert [int(state["done"]) for state in found] == [5, 5, 5]
    assert seen == [0] * 5 + [1] * 5 + [2] * 5  # nothing lost, nothing twice
    assert sum(reported) == 15
    with pytest.raises(JournalError, match="its parts is 3, not 2"):
        stage.collect(dict, [5, 5], counting(5, -1, seen))


def test_moments_of_parts_join_to_those_of_all_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_NUMBERS_AT_ONCE", 1 << 7)
    options: dict[str, Any] = {"k": 5, "replicates": 50, "simulated": 0, "grid": False, "objective": "dvae"}
    found = []
    for parts in (1, 7, 1000):
        monkeypatch.setattr(replication, "_PARTS", parts)
        found.append(evaluate_model(LINEAR.torch(), X, **options).value)
    for each in found[1:]:
        assert each.mean == pytest.approx(found[0].mean, rel=1e-13)
        assert each.monte_carlo_error == pytest.approx(found[0].monte_carlo_error, rel=1e-12)


def test_rows_that_were_halved_for_memory_stay_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_SECONDS", 0.0)
    monkeypatch.setattr(stages, "_SHARE", 1e9)
    model, plain, calls = LINEAR.torch(), LINEAR.torch(), [0]

    def tight(z: Tensor) -> Any:
        if len(z) > 10:
            raise MemoryError
        calls[0] += 1
        if calls[0] in (100, 300):
            raise KeyboardInterrupt
        return plain.law("likelihood", z)

    model._functions["likelihood"] = tight
    how: dict[str, Any] = {"temperatures": 4, "chains": 8, "rows": 64}
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            annealed_weights(model, X, **how, stage=Stage("ais", tmp_path))
    found = annealed_weights(model, X, **how, stage=Stage("ais", tmp_path))
    assert "halved to 8" in found.notes[-1] and len(set(found.notes)) == len(found.notes)
    np.testing.assert_allclose(found.log_weights, annealed_weights(plain, X, **how).log_weights, rtol=1e-10)
    calls[0] = 1000
    annealed_weights(model, X, **how, stage=Stage("whole", tmp_path))
    assert 300 < calls[0] - 1000 < 400, calls  # so it was interrupted twice on its way
