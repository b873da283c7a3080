"""The pytest plugin: a marker, fixtures, profiles for Hypothesis, and a summary of what was claimed.

It is loaded by every pytest run of an environment that has boundcheck, so it imports nothing heavy until it is used.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from boundcheck.models.finite import FiniteModel

PROFILES: dict[str, dict[str, Any]] = {
    "quick": {"max_examples": 20, "derandomize": False},
    "default": {"max_examples": 100, "derandomize": False},
    "ci": {"max_examples": 200, "derandomize": True, "database": None, "print_blob": True},
    "thorough": {"max_examples": 5000, "derandomize": False},
}
"""Settings of Hypothesis for `--boundcheck-profile`; "ci" gives the same examples in every run and keeps none.

The other profiles leave Hypothesis's example database as it is: failures are kept in `.hypothesis/examples` and tried
first in the next run. (On a machine of a CI service Hypothesis itself does without a database.)
"""

MODELS = 60
"""How many models the fixture `boundcheck_models` gives."""

_MARKER = "boundcheck"
_WORKER_KEY = "boundcheck_records"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--boundcheck-profile`."""
    group = parser.getgroup("boundcheck")
    group.addoption(
        "--boundcheck-profile",
        choices=sorted(PROFILES),
        default=None,
        help="how hard Hypothesis tries in this run: quick, default, ci (the same examples every time), thorough",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and the profile if one was asked for."""
    what = "a test of a claim about a variational bound; with strict=True an undecided comparison fails it"
    config.addinivalue_line("markers", f"{_MARKER}(strict=False): {what}")
    profile = config.getoption("--boundcheck-profile")
    if profile:
        from hypothesis import HealthCheck, settings

        slow = [HealthCheck.too_slow]
        settings.register_profile("boundcheck", deadline=None, suppress_health_check=slow, **PROFILES[profile])
        settings.load_profile("boundcheck")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a marker with arguments that it does not have: a misspelt `strict` would pass in silence."""
    for item in items:
        for marker in item.iter_markers(_MARKER):
            known = not marker.args and set(marker.kwargs) <= {"strict"}
            if not known or not isinstance(marker.kwargs.get("strict", False), bool):
                raise pytest.UsageError(f"{item.nodeid}: the marker boundcheck takes strict=True or strict=False")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """Let the marker say whether undecided comparisons fail."""
    marker = item.get_closest_marker(_MARKER)
    if marker is None or "strict" not in marker.kwargs:
        return (yield)
    from boundcheck.testing import STRICT

    before, STRICT[0] = STRICT[0], marker.kwargs["strict"]
    try:
        return (yield)
    finally:
        STRICT[0] = before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Show a smaller counterexample beside a failure, where merging states finds what Hypothesis could not."""
    report = yield
    testing = sys.modules.get("boundcheck.testing")
    if testing is not None and report.when == "call" and testing.LAST_VIOLATION:
        if report.failed:
            text = testing.smaller_counterexample()
            if text:
                report.sections.append(("boundcheck: the claim fails on a smaller model too", text))
        testing.LAST_VIOLATION.clear()
    return report


# Of the session's scope, so that Hypothesis lets tests with @given use them.


@pytest.fixture(scope="session")
def bound() -> Callable[..., None]:
    """`boundcheck.testing.assert_bound`, as a fixture: `bound(my_objective, "<=", log_evidence, model)`."""
    from boundcheck.testing import assert_bound

    return assert_bound


@pytest.fixture(scope="session")
def fixed() -> Callable[..., None]:
    """`boundcheck.testing.assert_fixed`, as a fixture: `fixed("witness.json", lhs=my_objective)`."""
    from boundcheck.testing import assert_fixed

    return assert_fixed


@pytest.fixture(scope="session")
def boundcheck_models() -> list[FiniteModel]:
    """Sixty finite models, the same in every run, that meet the corners; for tests without Hypothesis."""
    from boundcheck.claims.family import finite_models

    return list(finite_models(MODELS))


def _records() -> dict[str, Any]:
    module = sys.modules.get("boundcheck.testing")
    return module.RECORDS if module is not None else {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist hands its records to the controller."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_WORKER_KEY] = [dataclasses.asdict(record) for record in _records().values()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The controller of pytest-xdist takes the records of a worker."""
    for fields in getattr(node, "workeroutput", {}).get(_WORKER_KEY, ()):
        from boundcheck.testing import RECORDS, Record

        record = Record(**fields)
        RECORDS.setdefault(record.name, Record(record.name)).merge(record)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """For each claim: verdict, guarantee, number of models, smallest margin, and the corners that were met."""
    records = _records()
    if not records:
        return
    terminalreporter.section("boundcheck")
    width = max(len(name) for name in records)
    for record in sorted(records.values(), key=lambda record: record.name):
        for number, line in enumerate(record.lines()):
            terminalreporter.write_line(f"{record.name if not number else '':<{width}}  {line}")
