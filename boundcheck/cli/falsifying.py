"""`falsify`: search for a counterexample to a claim, shrink it, certify it, save it."""

from __future__ import annotations

from pathlib import Path

import click

from boundcheck.cli.options import EPILOG, common, exit_code


@click.command("falsify", epilog=EPILOG)
@click.argument("name")
@click.option("--budget", type=click.IntRange(min=1), metavar="N", help="Models to try at the most.  [default: 400000]")
@click.option("--save", metavar="FILE", help="Save the counterexample, for `replay`.")
@click.option("--test", "test_file", metavar="FILE", help="Write the counterexample as a pytest regression test.")
@common(seed="Seed of the search: the same seed finds the same counterexample.")
def falsify_command(
    name: str, budget: int | None, save: str | None, test_file: str | None, as_json: bool, seed: int
) -> int:
    """Search for a counterexample, shrink it, certify it, save it.

    NAME is a claim of the catalogue, or FILE.py:OBJECT for your own: a Claim, or an objective, which is judged as a
    lower bound on log p(x). An objective is a formula (a function of m and x), or Python code behind
    boundcheck.black_box; its counterexamples are numerical.

    A search that finds nothing proves nothing: the claim is then undecided.
    """
    from boundcheck.cli.deciding import (
        notes_on,
        save_witness,
        show_heading,
        show_outcome,
        status_line,
        status_of,
        tell_saved,
        witness_json,
    )
    from boundcheck.cli.report import Screen, print_json, progress_of
    from boundcheck.cli.targets import find_claim, origin_of, users_code
    from boundcheck.search.falsify import DEFAULT_BUDGET, falsify
    from boundcheck.search.files import write_text
    from boundcheck.search.regression import regression_test
    from boundcheck.search.witness import Witness

    claim = find_claim(name)
    most = budget or DEFAULT_BUDGET
    with progress_of(f"searching against {claim.name}") as report, users_code(name):
        search = falsify(claim, budget=most, seed=seed, progress=lambda models: report(models, most))
    found = search.witness
    saved = save_witness(found, save)
    if found is not None and test_file is not None:
        folder = Path(test_file).resolve().parent
        write_text(test_file, regression_test(Witness.of(found), origin_of(name), folder), "--test")
    verdict = "violated" if found else "undecided"
    if as_json:
        what = found.to_json() if found else {"claim": claim.name, "verdict": verdict, "guarantee": None}
        extra = {
            "status": status_of(found.verdict) if found else "survived",
            "notes": notes_on(claim),
            "models": search.models,
            "seconds": search.seconds,
            "seed": seed,
            "text": str(claim),
            "saved": saved,
            "witness": witness_json(found) if found else None,
        }
        print_json(what | extra)
    else:
        screen = Screen()
        show_heading(screen, claim)
        if found:
            show_outcome(screen, found, status_line(found.verdict), at=f" at x = {found.x}")
        else:
            screen.line(f"no counterexample among {search.models} models: that proves nothing, so it is undecided")
        tell_saved(screen, claim, save, saved)
        if test_file:
            screen.line(f"regression test written to {test_file}" if found else "no regression test was written")
    return exit_code(verdict)
