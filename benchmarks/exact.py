"""Both sides of every claim about finite models, exactly where that can be done, on one 3 x 3 x 3 rational model."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from fractions import Fraction

from boundcheck import FiniteModel
from boundcheck.catalogue import claims
from boundcheck.claims.check import check
from boundcheck.evaluators.values import Exact


def three_states() -> FiniteModel:
    """Three states of x, z and x~, rows with denominators of 6 to 12."""

    def rows(*weights: str) -> list[list[Fraction]]:
        table = [[int(w) for w in row] for row in weights]
        return [[Fraction(w, sum(row)) for w in row] for row in table]

    return FiniteModel(
        prior=rows("312")[0],
        likelihood=rows("512", "141", "236"),
        encoder=rows("423", "151", "217"),
        corruption=rows("811", "182", "117"),
        auxiliary=[rows("613", "252", "118"), rows("512", "361", "127"), rows("411", "352", "226")],
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks exact", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args(argv).rounds
    finite = [claim for claim in claims().values() if claim.family == "finite"]
    seconds, exact = [], 0
    for _ in range(rounds):
        model = three_states()  # a new one each time: nothing that was derived from its tables is kept
        start = time.perf_counter()
        verdicts = [check(claim, model, 1) for claim in finite]
        seconds.append(time.perf_counter() - start)
        exact = sum(isinstance(v.lhs, Exact) and isinstance(v.rhs, Exact) for v in verdicts)
    print(f"{len(finite)} claims decided, {exact} of them exactly on both sides")
    print(f"median {1e3 * statistics.median(seconds):.0f} ms, least {1e3 * min(seconds):.0f} ms of {rounds} rounds")
