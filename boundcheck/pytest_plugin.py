"""The pytest plugin: a marker, a fixture, profiles for Hypothesis, and a summary of what was claimed.

It is loaded by every pytest run of an environment that has boundcheck, so it imports nothing heavy until it is used.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import pytest

PROFILES: dict[str, dict[str, Any]] = {
    "quick": {"max_examples": 20},
    "default": {"max_examples": 100},
    "ci": {"max_examples": 200, "derandomize": True, "database": None},
    "thorough": {"max_examples": 5000},
}
"""Settings of Hypothesis for `--boundcheck-profile`; "ci" gives the same examples in every run."""

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
    config.addinivalue_line("markers", "boundcheck: a test of a claim about a variational bound")
    profile = config.getoption("--boundcheck-profile")
    if profile:
        from hypothesis import HealthCheck, settings

        slow = [HealthCheck.too_slow]
        settings.register_profile("boundcheck", deadline=None, suppress_health_check=slow, **PROFILES[profile])
        settings.load_profile("boundcheck")


@pytest.fixture
def bound() -> Callable[..., None]:
    """`boundcheck.testing.assert_bound`, as a fixture."""
    from boundcheck.testing import assert_bound

    return assert_bound


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
    """A line for each claim: verdict, guarantee, number of models, smallest margin."""
    records = _records()
    if not records:
        return
    terminalreporter.section("boundcheck")
    width = max(len(name) for name in records)
    for record in sorted(records.values(), key=lambda record: record.name):
        margin = f"{record.smallest_margin:.3g} nats" if record.models or record.violated else "none decided"
        undecided = f", {record.undecided} undecided" if record.undecided else ""
        terminalreporter.write_line(
            f"{record.name:<{width}}  {record.verdict:<9}  {record.guarantee or '-':<11}  "
            f"{record.models} models{undecided}, smallest margin {margin}"
        )
