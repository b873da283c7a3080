"""The certainty sweep: random (model, formula) pairs by the thousand, each evaluator against independent truths.

`make certainty` (or `python tests/certainty.py`) runs it and prints the tables of docs/certainty.md; `--size 0.02` runs
a small part. It fails if an enclosure excludes the truth, if more than a thousandth of an evaluator's claimed errors
are too small, or if a verdict contradicts the truth, and so another evaluator's.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import mpmath
from certainty_families import (
    Case,
    copies,
    gaussian_planes,
    gaussian_points,
    gaussian_spaces,
    laws,
    mixed_encoders,
    tables,
)
from mpmath import mp, mpf

from boundcheck.claims.decide import Outcome, decide
from boundcheck.errors import CannotCompute, UndefinedValue
from boundcheck.evaluators.values import Approximate, Bias, Enclosure, Exact, Sampled

FAMILIES: dict[str, tuple[Callable[[int, int], Iterator[Case]], int]] = {
    "tables": (tables, 90),
    "laws": (laws, 110),
    "gaussian_points": (gaussian_points, 150),
    "gaussian_planes": (gaussian_planes, 18),
    "gaussian_spaces": (gaussian_spaces, 80),
    "copies": (copies, 10),
    "mixed_encoders": (mixed_encoders, 160),
}
"""Generators of models, and how many models of each the whole sweep takes."""

SAMPLED_ERRORS = 6.0
"""Standard errors that a Monte Carlo mean may be off by: 2e-9 a comparison, two-sided."""

MOST_UNDERSTATED = 0.001
"""The part of an evaluator's float errors that may be too small."""


@dataclass
class Tally:
    """What was seen of an evaluator on a family, or on a formula."""

    pairs: int = 0
    refused: int = 0
    cannot_tell: int = 0  # an infinite error, or an enclosure that is the whole line
    infinite: int = 0  # of the pairs, values that are rightly infinite or missing
    wrong: int = 0  # the truth is outside
    worst: float = 0.0  # |value - truth| / what was claimed

    def __iadd__(self, other: Tally) -> Tally:
        self.pairs += other.pairs
        self.refused += other.refused
        self.cannot_tell += other.cannot_tell
        self.infinite += other.infinite
        self.wrong += other.wrong
        self.worst = max(self.worst, other.worst)
        return self


@dataclass
class Report:
    """The tallies of a sweep; they add up."""

    tallies: dict[tuple[str, str, str], Tally] = field(default_factory=dict)  # (family, evaluator, formula)
    models: Counter[str] = field(default_factory=Counter)
    pairs: Counter[str] = field(default_factory=Counter)  # (model, formula) pairs by family
    formulas: Counter[str] = field(default_factory=Counter)  # the same by formula
    verdicts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def tally(self, family: str, evaluator: str, formula: str) -> Tally:
        return self.tallies.setdefault((family, evaluator, formula), Tally())

    def __iadd__(self, other: Report) -> Report:
        for key, tally in other.tallies.items():
            self.tallies[key] = self.tallies.get(key, Tally())
            self.tallies[key] += tally
        self.models += other.models
        self.pairs += other.pairs
        self.formulas += other.formulas
        self.verdicts += other.verdicts
        self.failures += other.failures
        return self

    def by(self, *fields: int) -> dict[tuple[str, ...], Tally]:
        """The tallies added up over the other fields: 0 family, 1 evaluator, 2 formula."""
        found: dict[tuple[str, ...], Tally] = {}
        for key, tally in sorted(self.tallies.items()):
            short = tuple(key[i] for i in fields)
            found.setdefault(short, Tally()).__iadd__(tally)
        return found

    def broken(self) -> list[str]:
        """Why the sweep fails; nothing where it does not."""
        found = []
        for (evaluator,), tally in self.by(1).items():
            floats = evaluator in ("floating", "quadrature", "Gauss-Hermite", "closed form")
            allowed = MOST_UNDERSTATED * (tally.pairs - tally.cannot_tell) if floats else 0
            if tally.wrong > allowed:
                found.append(f"{evaluator}: the truth is outside in {tally.wrong} of {tally.pairs} pairs")
        if self.verdicts["wrong"]:
            found.append(f"{self.verdicts['wrong']} verdicts contradict the truth")
        return found


# --- one value against the truth -------------------------------------------------------------------------------------


def exactly(number: Any) -> Any:
    """An Arb number of radius zero as an mpf."""
    mantissa, exponent = number.man_exp()
    return mp.ldexp(mpf(int(mantissa)), int(exponent))


def ratio_of(value: Any, truth: Any, digits: int) -> float | str:
    """|value - truth| / what the value claims; "infinite" where both are, "cannot tell" where it claims nothing."""
    if truth is None or value is None:
        return "infinite" if truth is value else math.inf
    slack = mpf(10) ** -digits * max(1, abs(truth)) if mp.isfinite(truth) else mpf(0)
    if isinstance(value, Exact | Enclosure):
        ball = value.value.ball(512) if isinstance(value, Exact) else value.ball
        if not ball.is_finite():
            if not ball.rad().is_finite():
                return "cannot tell"
            return "infinite" if float(ball.mid()) == truth else math.inf
        if not mp.isfinite(truth):
            return math.inf
        off, claimed = abs(exactly(ball.mid()) - truth), exactly(ball.rad())
    elif isinstance(value, Approximate):
        if math.isinf(value.error):
            return "cannot tell"
        if not (mp.isfinite(truth) and math.isfinite(value.value)):
            return "infinite" if value.value == truth else math.inf
        off, claimed = abs(mpf(value.value) - truth), mpf(value.error)
    else:
        assert isinstance(value, Sampled)
        difference = mpf(value.mean) - truth
        allowed = {Bias.NONE: abs(difference), Bias.LOW: max(difference, 0), Bias.HIGH: max(-difference, 0)}
        off, claimed = allowed.get(value.bias, mpf(0)), SAMPLED_ERRORS * mpf(value.standard_error)
    off = max(off - slack, mpf(0))
    return float(off / claimed) if claimed else (math.inf if off else 0.0)


def shown(value: Any) -> str:
    return repr(value) if not isinstance(value, mpmath.mpf) else str(mpmath.nstr(value, 25))


def examine(case: Case) -> Report:
    """Every evaluator on every formula of a model, and every verdict that these values allow."""
    report = Report()
    values: dict[tuple[str, str], Any] = {}
    with mp.workdps(120):
        for formula, truth in case.truths.items():
            report.pairs[case.family] += 1
            report.formulas[kind_of(formula)] += 1
            for evaluator, answer in case.evaluators_of(formula).items():
                tally = report.tally(case.family, evaluator, kind_of(formula))
                try:
                    value = answer(case.terms[formula])
                except UndefinedValue:
                    value = None
                except CannotCompute:
                    tally.refused += 1
                    continue
                except Exception as error:  # no evaluator may end in any other way
                    tally.wrong += 1
                    report.failures.append(f"{evaluator}: {formula} ends in {error!r}; {case.name}")
                    continue
                tally.pairs += 1
                ratio = ratio_of(value, truth, case.digits)
                if ratio == "cannot tell":
                    tally.cannot_tell += 1
                elif ratio == "infinite":
                    tally.infinite += 1
                else:
                    assert isinstance(ratio, float)
                    tally.worst = max(tally.worst, ratio)
                    if not ratio <= 1:
                        tally.wrong += 1
                        what = f"{evaluator}: {formula} = {shown(value)}, the truth is {shown(truth)} ({ratio:.3g})"
                        report.failures.append(f"{what}; {case.name}")
                if value is not None and truth is not None:
                    values[evaluator, formula] = value
        compare(case, values, report)
    report.models[case.family] += 1
    return report


def kind_of(formula: str) -> str:
    """The formula without its parameters."""
    return formula.partition("(")[0].partition(" ")[0]


def compare(case: Case, values: dict[tuple[str, str], Any], report: Report) -> None:
    """Each formula against the log evidence and against the next formula, each side by every evaluator."""
    formulas = list(case.truths)
    for number, formula in enumerate(formulas[1:], 1):
        others = {formulas[0], formulas[(number + 1) % len(formulas)]}
        for lhs, rhs in [(formula, other) for other in others] + [(formulas[0], formula)]:
            for (evaluator, name), left in values.items():
                if name != lhs:
                    continue
                for other in case.answers:
                    if (other, rhs) in values:
                        judge(case, (evaluator, lhs, left), (other, rhs, values[other, rhs]), report)


def judge(case: Case, left: tuple[str, str, Any], right: tuple[str, str, Any], report: Report) -> None:
    verdict = decide(left[2], "<=", right[2])
    report.verdicts["compared"] += 1
    if verdict.outcome is Outcome.UNDECIDED:
        return
    report.verdicts["decided"] += 1
    a, b = case.truths[left[1]], case.truths[right[1]]
    if a == b:
        holds = True
    elif mp.isfinite(a) and mp.isfinite(b):
        slack = 2 * mpf(10) ** -case.digits * max(1, abs(a), abs(b))
        holds = None if abs(a - b) <= slack else bool(a < b)
    else:
        holds = bool(a < b)
    if holds is None:  # the truths are equal as far as they are known: only exact numbers may separate them further
        report.verdicts["ties"] += 1
        return
    report.verdicts[verdict.outcome.value] += 1
    if holds != (verdict.outcome is Outcome.HOLDS):
        report.verdicts["wrong"] += 1
        sides = f"{left[1]} by {left[0]} <= {right[1]} by {right[0]}"
        report.failures.append(f"verdict {verdict}: {sides}, truths {shown(a)}, {shown(b)}; {case.name}")


# --- the sweep -------------------------------------------------------------------------------------------------------


def part(job: tuple[str, int, int]) -> Report:
    """Some models of a family."""
    family, count, seed = job
    report = Report()
    for case in FAMILIES[family][0](count, seed):
        report += examine(case)
    return report


def jobs(size: float, seed: int, cut: int = 8) -> list[tuple[str, int, int]]:
    """The sweep in parts of at most `cut` models, each with a seed of its own."""
    found = []
    for number, (family, (_, count)) in enumerate(FAMILIES.items()):
        left = max(1, round(size * count))
        for start in range(0, left, cut):
            found.append((family, min(cut, left - start), 1_000_000 * seed + 100_000 * number + start))
    return sorted(
        found, key=lambda job: job[2] % 100_000
    )  # all families early, so that an interrupted run has seen them


def sweep(
    size: float = 1.0, seed: int = 0, processes: int = 1, progress: Callable[[int, int], None] | None = None
) -> Report:
    """The whole sweep, or a part of it."""
    todo, report = jobs(size, seed), Report()
    if processes == 1:
        results: Iterator[Report] = map(part, todo)
    else:
        pool = multiprocessing.get_context("spawn").Pool(processes)
        results = pool.imap_unordered(part, todo)
    for done, each in enumerate(results, 1):
        report += each
        if progress is not None:
            progress(done, len(todo))
        for failure in each.failures[:3]:
            print("failure:", failure, file=sys.stderr, flush=True)
    return report


def ratio_text(worst: float) -> str:
    return f"{worst:.2g}" if worst else "0"


def tables_of(report: Report) -> str:
    """The figures as Markdown."""
    lines = ["| family | models | (model, formula) pairs |", "|---|---:|---:|"]
    lines += [f"| {name} | {report.models[name]} | {count} |" for name, count in report.pairs.items()]
    lines += [f"| all | {report.models.total()} | {report.pairs.total()} |", ""]
    lines += [
        "| family | evaluator | values | infinite or none | cannot tell | refused | truth outside | worst ratio |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (family, evaluator), t in report.by(0, 1).items():
        lines.append(
            f"| {family} | {evaluator} | {t.pairs} | {t.infinite} | {t.cannot_tell} | {t.refused} | {t.wrong} "
            f"| {ratio_text(t.worst)} |"
        )
    evaluators = sorted({evaluator for _, evaluator, _ in report.tallies})
    lines += ["", "| formula | pairs | " + " | ".join(evaluators) + " |", "|---|---:|" + "---:|" * len(evaluators)]
    by = report.by(2, 1)
    for formula, count in sorted(report.formulas.items()):
        cells = [by[formula, e].pairs - by[formula, e].cannot_tell if (formula, e) in by else 0 for e in evaluators]
        lines.append(f"| {formula} | {count} | " + " | ".join(str(cell or "") for cell in cells) + " |")
    v = report.verdicts
    lines += [
        "",
        f"Verdicts: {v['compared']} comparisons, {v['decided']} decided ({v['holds']} hold, {v['violated']} violated, "
        f"{v['ties']} between truths that are equal as far as they are known), {v['wrong']} wrong.",
    ]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python tests/certainty.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=float, default=1.0, help="the part of the sweep to run (default: all, 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--failures", type=int, default=40, help="how many failures to show (default: 40)")
    options = parser.parse_args(arguments)
    started = time.perf_counter()

    def progress(done: int, total: int) -> None:
        print(f"{done}/{total} parts, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)

    report = sweep(options.size, options.seed, options.processes, progress)
    print(tables_of(report))
    for failure in report.failures[: options.failures]:
        print("FAILURE", failure)
    broken = report.broken()
    print(
        "\n".join(broken)
        or "no enclosure excludes the truth, no error is understated beyond a thousandth, no verdict is wrong"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))


__all__ = ["FAMILIES", "Report", "Tally", "examine", "jobs", "sweep"]
