"""Sweeps: one report whatever runs the tasks, nothing lost and nothing counted twice, and alarms that go off."""

from __future__ import annotations

import doctest
import json
import multiprocessing
import os
import signal
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sweep_workers

from boundcheck import BadInput, CannotCompute, Claim, black_box, load_witness
from boundcheck.catalogue import find
from boundcheck.catalogue.objectives import elbo, log_evidence
from boundcheck.search import sweep_plan
from boundcheck.search.batch import Sizes
from boundcheck.search.sweep import Plan, Report, SerialExecutor, plan_of, sweep
from boundcheck.search.sweep_journal import NAME as JOURNAL
from boundcheck.search.sweep_journal import Journal
from boundcheck.search.sweep_plan import Task, claim_from_json, claim_to_json
from boundcheck.search.sweep_report import report_of
from boundcheck.search.sweep_task import one_thread, work

FALSE = ["jvi-below-evidence", "perturbative-two-below-evidence"]
TRUE = ["elbo-below-evidence", "cubo-monotone"]
CONTINUOUS = ["narrow-dequantisation-below-mass"]


@pytest.fixture(scope="module")
def plan() -> Plan:
    claims = [find(name) for name in (*FALSE, *TRUE, *CONTINUOUS)]
    return plan_of(claims, seeds=range(3), budget=100, count=2)


@pytest.fixture(scope="module")
def undisturbed(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """A sweep that nothing disturbed, in one process, and its folder."""
    folder = tmp_path_factory.mktemp("serial")
    report = sweep(plan, executor=SerialExecutor(), out=folder)
    assert not report.failed
    return report, folder


@pytest.fixture(scope="module")
def expected(undisturbed: tuple[Report, Path]) -> bytes:
    """Its report."""
    return (undisturbed[1] / "report.json").read_bytes()


def journal_keys(folder: Path) -> list[str]:
    return [json.loads(line)["record"]["key"] for line in (folder / JOURNAL).read_bytes().splitlines()[1:]]


# --- one report ----------------------------------------------------------------------------------------------------


def test_the_report_says_what_was_found(expected: bytes, plan: Plan) -> None:
    report = json.loads(expected)
    found = {each["claim"]: each for each in report["claims"]}
    assert list(found) == [*FALSE, *TRUE, *CONTINUOUS]
    assert [found[name]["violations"] for name in found] == [3, 3, 0, 0, 3]
    assert [found[name]["states"] for name in FALSE] == [3, 3]
    assert [found[name]["status"] for name in TRUE] == ["proved", "proved"]
    assert all(found[name]["models"] >= 300 for name in TRUE)
    assert report["violated"] == [*FALSE, *CONTINUOUS]
    assert report["unexpected"] == report["contradictions"] == report["missed"] == []
    assert report["tasks"] == len(plan.tasks) == 5 * 4


def test_the_counterexamples_are_saved_and_replay(undisturbed: tuple[Report, Path]) -> None:
    report, folder = undisturbed
    for each in report.claims:
        if each.name in FALSE:
            assert each.file is not None
            assert load_witness(folder / each.file).replay().outcome.value == "violated"


def test_threads_give_the_same_report(plan: Plan, expected: bytes, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as executor:
        sweep(plan, executor=executor, window=3, out=tmp_path)
    assert (tmp_path / "report.json").read_bytes() == expected


def test_a_sweep_goes_on_where_it_was_interrupted(plan: Plan, expected: bytes, tmp_path: Path) -> None:
    def interrupt_after(most: int) -> Any:
        def progress(done: int, of: int) -> None:
            if done >= most:
                raise KeyboardInterrupt

        return progress

    done: list[int] = []
    for most in (1, 7, 8):
        with pytest.raises(KeyboardInterrupt):
            sweep(plan, executor=SerialExecutor(), out=tmp_path, progress=interrupt_after(most))
        assert len(journal_keys(tmp_path)) == most
        assert not (tmp_path / "report.json").exists()
    sweep(plan, executor=SerialExecutor(), out=tmp_path, progress=lambda so_far, of: done.append(so_far))
    assert done == list(range(8, len(plan.tasks) + 1)), "what was kept is not done again"
    assert (tmp_path / "report.json").read_bytes() == expected
    assert sorted(journal_keys(tmp_path)) == sorted(task.key for task in plan.tasks)


def test_a_window_bounds_what_is_handed_out() -> None:
    plan = plan_of([find("jvi-below-evidence")], seeds=range(12), budget=20)

    class Counting(Executor):
        def __init__(self) -> None:
            self.open: list[Future[Any]] = []
            self.most = 0
            self.pool = ThreadPoolExecutor(2)

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            self.open = [future for future in self.open if not future.done()]
            self.open.append(self.pool.submit(fn, *args, **kwargs))
            self.most = max(self.most, len(self.open))
            return self.open[-1]

    executor = Counting()
    with executor.pool:
        sweep(plan, executor=executor, window=4)
    assert 1 < executor.most <= 4


# --- workers that die ----------------------------------------------------------------------------------------------


def test_processes_give_the_same_report_and_a_killed_one_costs_nothing(
    plan: Plan, expected: bytes, tmp_path: Path
) -> None:
    killed: list[int] = []
    threads = os.environ.get("OMP_NUM_THREADS")

    def kill_one(done: int, of: int) -> None:
        if done == 3:
            victim = multiprocessing.active_children()[0]
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)
            killed.append(victim.pid)

    report = sweep(plan, workers=2, out=tmp_path, progress=kill_one, work=sweep_workers.slow)
    assert killed
    assert not report.failed
    assert os.environ.get("OMP_NUM_THREADS") == threads, "the workers' setting stays theirs"
    assert (tmp_path / "report.json").read_bytes() == expected
    assert sorted(journal_keys(tmp_path)) == sorted(task.key for task in plan.tasks)


def test_a_task_that_kills_its_workers_is_given_up_and_named(tmp_path: Path) -> None:
    plan = plan_of([find("jvi-below-evidence")], seeds=range(3), budget=50)
    report = sweep(plan, workers=1, out=tmp_path, work=sweep_workers.deadly)
    (key, why), *others = report.failed.items()
    assert not others
    assert key == plan.tasks[2].key and "seed 1" in key
    assert "died of it, 3 times" in why
    assert len(journal_keys(tmp_path)) == len(plan.tasks) - 1
    assert report.claims[0].violations == 2
    again = sweep(plan, executor=SerialExecutor(), out=tmp_path)  # the same folder: what failed is tried again
    assert not again.failed
    assert again.claims[0].violations == 3


def test_workers_that_die_whatever_they_do_end_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boundcheck.search.sweep_run.MOST_BREAKS_IN_A_ROW", 1)
    plan = plan_of([find("jvi-below-evidence")], seeds=range(3), budget=50)
    with pytest.raises(CannotCompute, match="died 2 times in a row"):
        sweep(plan, workers=1, work=sweep_workers.always_deadly)


class Failing(Executor):
    """Its futures all end with one error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if isinstance(self.error, KeyboardInterrupt):
            future.cancel()
            future.set_running_or_notify_cancel()
        else:
            future.set_exception(self.error)
        return future


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BrokenExecutor("gone"), "it is broken; start a new one"),
        (KeyboardInterrupt(), "its scheduler went away"),  # stands for a cancelled future
        (ModuleNotFoundError("No module named 'boundcheck'"), "workers with this boundcheck installed"),
        (TypeError("cannot be sent"), "TypeError: cannot be sent"),
    ],
)
def test_an_executor_that_fails_is_an_error(plan: Plan, error: BaseException, told: str) -> None:
    with pytest.raises((CannotCompute, BadInput), match=told):
        sweep(plan, executor=Failing(error))


def test_an_executor_that_is_shut_down_is_an_error(plan: Plan) -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(CannotCompute, match="shutdown"):
        sweep(plan, executor=executor)


def test_a_worker_of_another_program_is_refused(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    text = plan.text(plan.tasks[0])
    data = json.loads(text)
    with pytest.raises(BadInput, match="the worker's boundcheck"):
        work(json.dumps(data | {"program": "0" * 64}))
    assert json.loads(work(text))["key"] == plan.tasks[0].key


def test_a_task_computes_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
        with one_thread():
            inside = torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]
        assert inside == (1, "1", "1")
        assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (2, "2")
        assert "MKL_NUM_THREADS" not in os.environ
    finally:
        torch.set_num_threads(before)


def test_a_task_that_cannot_be_done_is_reported_and_tried_again(tmp_path: Path) -> None:
    claim = Claim("of no family", elbo, "<=", log_evidence, family="finite")
    broken = Claim("of no family", elbo, "<=", log_evidence, family="no such family")
    report = sweep(plan_of([broken], seeds=[0]), executor=SerialExecutor(), out=tmp_path)
    assert len(report.failed) == 2
    assert all("no such family" in why for why in report.failed.values())
    assert not journal_keys(tmp_path)
    assert not sweep(plan_of([claim], seeds=[0], budget=10), executor=SerialExecutor()).failed


# --- the journal ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small() -> Plan:
    return plan_of([find("elbo-below-evidence")], seeds=range(2), budget=10)


def fill(journal: Journal) -> None:
    for number, task in enumerate(journal.plan.tasks):
        journal.accept({"key": task.key, "models": number, "violated": False})


def test_a_journal_cut_anywhere_is_gone_on_with(small: Plan, tmp_path: Path) -> None:
    with Journal(small, tmp_path) as journal:
        fill(journal)
        whole = journal.records
    path = tmp_path / JOURNAL
    content = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    assert len(ends) == 1 + len(small.tasks)
    for cut in sorted({*range(0, len(content), 37), *ends, *(end - 1 for end in ends)}):
        path.write_bytes(content[:cut])
        with Journal(small, tmp_path) as journal:
            lines = sum(end <= cut for end in ends)
            assert len(journal.records) == max(lines - 1, 0)
            assert journal.records.items() <= whole.items()
            fill(journal)
        assert path.read_bytes() == content


def test_a_line_that_was_changed_is_done_again(small: Plan, tmp_path: Path) -> None:
    with Journal(small, tmp_path) as journal:
        fill(journal)
    path = tmp_path / JOURNAL
    content = path.read_text()
    path.write_text(content.replace('"models": 1', '"models": 7'))
    with Journal(small, tmp_path) as journal:
        assert set(journal.records) == {task.key for i, task in enumerate(small.tasks) if i != 1}
        fill(journal)
        assert journal.records[small.tasks[1].key]["models"] == 1


def test_a_record_is_counted_once(small: Plan, tmp_path: Path) -> None:
    with Journal(small, tmp_path) as journal:
        fill(journal)
        fill(journal)
        assert not journal.accept({"key": small.tasks[0].key, "models": 99, "violated": False})
    path = tmp_path / JOURNAL
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + len(small.tasks)
    path.write_bytes(b"".join([*lines, *lines[1:]]))  # as if two had written
    with Journal(small, tmp_path) as journal:
        assert [record["models"] for record in journal.records.values()] == list(range(len(small.tasks)))
        with pytest.raises(BadInput, match="a task of this plan"):
            journal.accept({"key": "another", "models": 1, "violated": False})


def test_a_folder_of_another_plan_is_refused_and_both_are_named(small: Plan, tmp_path: Path) -> None:
    Journal(small, tmp_path).close()
    other = plan_of([find("elbo-below-evidence")], seeds=range(2), budget=11)
    with pytest.raises(BadInput) as error:
        Journal(other, tmp_path)
    for told in (small.digest[:12], other.digest[:12], "budget 10)", "budget 11)"):
        assert told in str(error.value)


def test_a_folder_of_another_program_is_refused(small: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Journal(small, tmp_path).close()
    for module in ("sweep_plan", "sweep_journal"):
        monkeypatch.setattr(f"boundcheck.search.{module}.program", lambda: "1" * 64)
    edited = plan_of([find("elbo-below-evidence")], seeds=range(2), budget=10)
    with pytest.raises(BadInput, match="written by another boundcheck"):
        Journal(edited, tmp_path)


@pytest.mark.parametrize("content", [b"my diary\n", b"my diary", b"{}\n", b'{"sum": "0", "record": {}}\n'])
def test_a_file_that_is_no_journal_is_left_alone(small: Plan, tmp_path: Path, content: bytes) -> None:
    (tmp_path / JOURNAL).write_bytes(content)
    with pytest.raises(BadInput, match="something else"):
        Journal(small, tmp_path)
    assert (tmp_path / JOURNAL).read_bytes() == content


def test_a_folder_in_use_is_refused(small: Plan, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with Journal(small, tmp_path), pytest.raises(BadInput, match="no other sweep"):
        Journal(small, tmp_path)
    Journal(small, tmp_path).close()


def test_a_folder_that_cannot_be_is_refused(small: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadInput, match="can be written to"):
            Journal(small, folder)


# --- plans ---------------------------------------------------------------------------------------------------------


def test_a_plan_has_each_task_once_and_sees_every_claim_early() -> None:
    claims = [find(name) for name in (*FALSE, *CONTINUOUS)]
    plan = plan_of(claims, seeds=range(4), budget=10, sizes=[Sizes(1, 2), Sizes(2, 2), Sizes(1, 2, 3)])
    keys = [task.key for task in plan.tasks]
    assert len(set(keys)) == len(keys) == 3 + 4 * (2 + 2 + 1)  # without x~ the first and the third are the same
    assert [task.kind for task in plan.tasks[:3]] == ["judge"] * 3
    assert {task.claim for task in plan.tasks[3:8]} == {claim.name for claim in claims}


def test_the_digest_follows_whatever_can_change_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(claim: Claim, **options: Any) -> str:
        return plan_of([claim], **({"seeds": range(2), "budget": 10} | options)).digest

    claim = Claim("mine", elbo, "<=", log_evidence)
    first = digest(claim)
    assert digest(Claim("mine", elbo, "<=", log_evidence)) == first
    others = [
        digest(Claim("mine", log_evidence, "<=", elbo)),
        digest(Claim("mine", elbo, "==", log_evidence)),
        digest(Claim("mine", elbo, "<=", log_evidence, covering=True)),
        digest(claim, seeds=range(1, 3)),
        digest(claim, budget=11),
        digest(claim, sizes=[Sizes(2, 2)]),
    ]
    monkeypatch.setattr(sweep_plan, "program", lambda: "1" * 64)
    others.append(digest(claim))
    assert len({first, *others}) == 8


@pytest.mark.parametrize("name", [*FALSE, *CONTINUOUS, "denoising-readings-agree", "sivi-monotone"])
def test_a_claim_comes_back_from_its_text(name: str) -> None:
    claim = find(name)
    back = claim_from_json(json.loads(json.dumps(claim_to_json(claim))))
    assert back.terms == claim.terms and back.gap == claim.gap
    assert (back.witness is None) == (claim.witness is None)
    if claim.witness is not None and back.witness is not None:
        assert back.witness() == claim.witness()
    assert (back.relation, back.family, back.covering) == (claim.relation, claim.family, claim.covering)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"seeds": []}, "seeds"),
        ({"seeds": [-1]}, "seed = -1"),
        ({"budget": 0}, "budget = 0"),
        ({"budget": True}, "budget = True"),
        ({"count": 0}, "count = 0"),
        ({"sizes": [Sizes(0, 2)]}, "sizes"),
        ({"sizes": [Sizes(2, 99)]}, "sizes"),
    ],
)
def test_a_plan_of_nonsense_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        plan_of([find("elbo-below-evidence")], **options)


def test_a_black_box_is_refused() -> None:
    claim = Claim("mine", black_box(lambda m, x: 0.0, name="f"), "<=", log_evidence)
    with pytest.raises(BadInput, match=r"a claim made of formulas; f is a black box.* use falsify"):
        plan_of([claim])


def test_other_plans_of_nonsense_are_refused(small: Plan) -> None:
    with pytest.raises(BadInput, match="at least one claim"):
        plan_of([])
    with pytest.raises(BadInput, match="different names"):
        plan_of([find("elbo-below-evidence"), Claim("elbo-below-evidence", elbo, "==", log_evidence)])
    with pytest.raises(BadInput, match="as many states of x~ as of x"):
        plan_of(
            [find("hvm-below-evidence"), _clean()],
            sizes=[Sizes(2, 2, 3)],
        )
    for options in ({"workers": 0}, {"window": 0}, {"workers": True}):
        with pytest.raises(BadInput, match="at least 1"):
            sweep(small, **options)


def _clean() -> Claim:
    """A claim that reads its encoder at x and at x~."""
    from boundcheck.catalogue.objectives import denoising_coupled

    return Claim("clean", denoising_coupled, "<=", elbo)


# --- alarms --------------------------------------------------------------------------------------------------------


def fabricated(name: str, claim: Claim, status: str, verdict: str, violated: bool) -> Report:
    """The report of a sweep of one claim whose searches and whose judge said this."""
    plan = plan_of({name: claim}, seeds=[0], budget=10)
    judge, search = plan.tasks
    witness = {"format": "as if", "model": {}}
    found = {"violated": True, "witness": witness, "size": [3, 10]} if violated else {"violated": False}
    judged = {"violated": verdict == "violated", "witness": witness, "size": [4, 10]}
    records = {
        judge.key: {"key": judge.key, "models": 60, "status": status, "verdict": verdict} | judged,
        search.key: {"key": search.key, "models": 10} | found,
    }
    return report_of(plan, records, {})


@pytest.mark.parametrize(
    ("own", "status", "verdict", "violated", "contradiction", "unexpected", "missed"),
    [
        (False, "proved", "holds", False, False, False, False),
        (False, "proved", "holds", True, True, True, False),
        (False, "gap verified", "holds", True, True, True, False),
        (False, "survived", "undecided", True, False, True, False),
        (False, "refuted", "violated", True, False, False, False),
        (False, "refuted", "violated", False, False, False, True),
        (True, "refuted", "violated", True, False, True, False),
        (True, "refuted", "violated", False, False, True, True),
        (True, "survived", "undecided", False, False, False, False),
    ],
)
def test_alarms(
    own: bool, status: str, verdict: str, violated: bool, contradiction: bool, unexpected: bool, missed: bool
) -> None:
    claim = Claim("elbo-below-evidence", elbo, "<=", log_evidence) if own else find("elbo-below-evidence")
    report = fabricated("elbo-below-evidence", claim, status, verdict, violated)
    assert bool(report.contradictions) is contradiction
    assert bool(report.unexpected) is unexpected
    assert bool(report.missed) is missed


def test_the_smallest_counterexample_is_kept_whatever_came_first() -> None:
    plan = plan_of([find("jvi-below-evidence")], seeds=range(3), budget=10)
    sizes = {1: [4, 10], 2: [3, 90], 3: [3, 80]}

    def record(number: int, task: Task) -> dict[str, Any]:
        found = {"violated": True, "witness": {"format": number}, "size": sizes.get(number, [9, 9])}
        return {"key": task.key, "models": 1, "status": "refuted", "verdict": "violated"} | found

    records = {task.key: record(number, task) for number, task in enumerate(plan.tasks)}
    backwards = dict(reversed(records.items()))
    for each in (records, backwards):
        claim = report_of(plan, each, {}).claims[0]
        assert claim.witness == {"format": 3} and claim.states == 3


def test_witness_files_have_names_that_every_system_allows() -> None:
    claim = find("jvi-below-evidence")
    names = ["../a b.py:f", "..-a b.py:f", "A-b.py:F", "/etc/x.py:f"]
    plan = plan_of({name: claim for name in names}, seeds=[0], budget=10)
    found = {"violated": True, "witness": {"format": "as if"}, "size": [3, 1], "models": 1}
    files = [each.file for each in report_of(plan, {task.key: found for task in plan.tasks}, {}).claims]
    assert files == [
        "witnesses/a-b.py-f.json",
        "witnesses/a-b.py-f-2.json",
        "witnesses/A-b.py-F-3.json",
        "witnesses/etc-x.py-f.json",
    ]


def test_the_page_about_sweeps_runs() -> None:
    page = Path(__file__).parent.parent / "docs" / "sweeps.md"
    result = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted >= 6
    assert result.failed == 0
