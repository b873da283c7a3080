"""What the documentation shows is what happens: every Python block of these pages runs."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "docs/tutorial.md", "docs/how-to.md", "docs/evidence-bounds.md"]


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_a_page_run(page: str) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testfile(str(ROOT / page), module_relative=False, optionflags=flags, encoding="utf-8")
    assert result.attempted >= 8
    assert result.failed == 0
