"""Every error is one line that names what was wrong, and survives being copied."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from boundcheck.errors import (
    BadInput,
    BoundcheckError,
    CannotCompute,
    CannotComputeExactly,
    FormulaError,
    MissingExtra,
    ObjectiveFailed,
    UndefinedValue,
    UnknownName,
    require,
)


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("a user's own mistake")


ERRORS = [
    BadInput("k", 0, "a positive integer", "pass k=1 for the ELBO"),
    BadInput("table", np.full((50, 50), 0.5), "rows that sum to one", "divide each row by its sum"),
    BadInput("name", "one\nline\n" * 100, "a short name", "shorten it"),
    BadInput("law", Unprintable(), "a law", "pass m.encoder(x)"),
    UnknownName("claim", "iwea", ["elbo", "iwae"]),
    FormulaError("the body of E(...) must return a term"),
    CannotCompute("exact", "E[z ~ q] " + "log p(x, z) + " * 100, "z is continuous"),
    CannotComputeExactly("exact", "exp(1)", "it is no rational combination of logs"),
    UndefinedValue("log p(z) - log q(z)", "z = 1"),
    MissingExtra("--plot", "plot"),
    ObjectiveFailed("my_bound", "nan", "returned nan", "FiniteModel(prior=[1], likelihood=[[1]])", 0, "guard log(0)"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_message_is_one_short_line(error: BoundcheckError) -> None:
    assert "\n" not in str(error)
    assert 0 < len(str(error)) < 300


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_copying(error: BoundcheckError) -> None:
    copied = copy.copy(error)
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    assert copied.__dict__ == error.__dict__


def test_the_line_holds_argument_value_expectation_and_remedy() -> None:
    line = str(ERRORS[0])
    assert all(part in line for part in ("k", "0", "a positive integer", "pass k=1 for the ELBO"))


@pytest.mark.parametrize(
    ("error", "usual"), [(BadInput, ValueError), (UnknownName, ValueError), (MissingExtra, ImportError)]
)
def test_the_usual_exception_still_catches_it(error: type, usual: type) -> None:
    assert issubclass(error, BoundcheckError)
    assert issubclass(error, usual)


@pytest.mark.parametrize(
    ("known", "remedy"),
    [
        (["elbo", "iwae"], "did you mean 'iwae'?"),
        (["cubo", "hvm"], "known: 'cubo', 'hvm'"),
        ([f"claim-{i:02}" for i in range(12)], "'claim-09', ..."),
        ([], "none is known"),
    ],
)
def test_an_unknown_name_is_helped_along(known: list[str], remedy: str) -> None:
    assert str(UnknownName("kind", "iwea", known)).endswith(remedy)


def test_require_tells_an_absent_library_from_a_broken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "half_installed.py").write_text("import a_library_it_needs_itself\n", encoding="utf-8")
    with pytest.raises(MissingExtra, match=r'pip install "boundcheck\[torch\]"'):
        require("absent_library.part", extra="torch", feature="evaluate")
    with pytest.raises(ModuleNotFoundError, match="a_library_it_needs_itself") as broken:
        require("half_installed", extra="torch", feature="evaluate")
    assert not isinstance(broken.value, MissingExtra)
