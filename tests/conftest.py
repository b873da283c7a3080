"""Every test run is the same run: seeds are fixed, searches repeat, nothing is remembered on disk."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")

# No deadline: a loaded machine must not turn a correct answer into a failure.
settings.register_profile("boundcheck", deadline=None, derandomize=True, database=None, print_blob=False)
settings.load_profile("boundcheck")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Global generators start from 0 in every test; a test that draws should still make its own."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def _validated() -> Iterator[None]:
    """Importing zuko switches off torch's validation of laws for the process; the next test has it again."""
    yield
    if "zuko" in sys.modules:
        sys.modules["torch"].distributions.Distribution.set_default_validate_args(True)
