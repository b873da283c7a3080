"""`check` and `replay`: a claim decided on one model, over a family, or on a saved counterexample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from boundcheck.cli.options import EPILOG, NOTHING_RANDOM, common, exit_code

if TYPE_CHECKING:
    from boundcheck.claims.check import ModelCheck
    from boundcheck.claims.claim import Claim
    from boundcheck.claims.decide import Verdict
    from boundcheck.claims.survey import Survey
    from boundcheck.cli.report import Screen
    from boundcheck.search.witness import Witness

MOST_NOTES = 5


@click.command("check", epilog=EPILOG)
@click.argument("name")
@click.option("--model", "model_file", metavar="FILE", help="Decide on this model (JSON), at its worst observation.")
@click.option(
    "--count", type=click.IntRange(min=1), metavar="N", help="Random models to judge the claim on.  [default: 60]"
)
@click.option(
    "--box",
    "box_seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Prove rhs - lhs >= -1e-6 for all tables of two states with entries in [1/100, 99/100], by branch and bound.",
)
@click.option("--save", metavar="FILE", help="Save the counterexample, if there is one, for `replay`.")
@common(seed="Seed of the random models.")
def check_command(
    name: str,
    model_file: str | None,
    count: int | None,
    box_seconds: float | None,
    save: str | None,
    as_json: bool,
    seed: int,
) -> int:
    """Decide a claim: on one model, over a family, or on a whole box.

    NAME is a claim of the catalogue, or FILE.py:OBJECT for your own: a Claim, or an objective, which is judged as a
    lower bound on log p(x). An objective is a formula (a function of m and x), or Python code behind
    boundcheck.black_box.

    Models that show no violation prove nothing: a claim that merely survived them is undecided.
    """
    from boundcheck.cli.targets import find_claim

    if model_file is not None and count is not None:
        raise click.UsageError("--count is for the family of random models; with --model there is one model")
    claim = find_claim(name)
    if box_seconds is not None:
        if model_file is not None or count is not None:
            raise click.UsageError("--box looks at all tables of two states; it goes with neither --model nor --count")
        return _check_on_box(claim, name, box_seconds, save, as_json)
    if model_file is not None:
        return _check_on_model(claim, name, model_file, save, as_json)
    return _check_on_family(claim, name, count, seed, save, as_json)


def _check_on_model(claim: Claim, name: str, model_file: str, save: str | None, as_json: bool) -> int:
    from boundcheck.claims.check import check_model
    from boundcheck.cli.report import Screen, print_json
    from boundcheck.cli.targets import users_code
    from boundcheck.models.finite import load_model
    from boundcheck.search.failing import smallest_failure

    model = load_model(model_file)
    with users_code(name), smallest_failure(claim):
        found = check_model(claim, model)
    notes = [*notes_on(claim), *model.holes()] if as_json else list(model.holes())
    status = status_of(found.verdict)
    saved = save_witness(found, save)
    if as_json:
        extra = {"status": status, "scope": "this model", "text": str(claim), "notes": notes, "saved": saved}
        print_json(found.to_json() | extra | {"witness": witness_json(found)})
    else:
        screen = Screen()
        show_heading(screen, claim)
        show_outcome(
            screen, found, f"{status_line(found.verdict)} (this model)", at=f" at x = {found.x}, the worst observation"
        )
        for note in notes[:MOST_NOTES]:
            screen.line(f"note: {note}")
        if len(notes) > MOST_NOTES:
            screen.line(f"note: {len(notes) - MOST_NOTES} more of this kind (--json has them all)")
        tell_saved(screen, claim, save, saved)
    return exit_code(found.verdict.outcome.value)


def _check_on_family(claim: Claim, name: str, count: int | None, seed: int, save: str | None, as_json: bool) -> int:
    from boundcheck.claims.survey import DEFAULT_COUNT, survey
    from boundcheck.cli.report import Screen, print_json, progress
    from boundcheck.cli.targets import users_code
    from boundcheck.search.failing import smallest_failure

    models = count or DEFAULT_COUNT
    with progress(claim.name, models) as advance, users_code(name), smallest_failure(claim):
        found = survey(claim, count=models, seed=seed, progress=advance)
    saved = save_witness(found.witness, save)
    if as_json:
        extra = {"relation": claim.relation, "text": str(claim), "scope": "finite models", "seed": seed, "saved": saved}
        extra |= {"notes": notes_on(claim)}
        print_json(found.to_json() | extra)
    else:
        screen = Screen()
        show_heading(screen, claim)
        _family(screen, found)
        tell_saved(screen, claim, save, saved)
    return exit_code(found.outcome.value)


def _check_on_box(claim: Claim, name: str, seconds: float, save: str | None, as_json: bool) -> int:
    from boundcheck.claims.box import prove_on_box
    from boundcheck.claims.branching import progress_bar
    from boundcheck.claims.check import ModelCheck
    from boundcheck.claims.decide import Outcome
    from boundcheck.cli.report import Screen, print_json
    from boundcheck.cli.targets import users_code

    _ = claim.terms  # a black box is refused before anything is shown
    with progress_bar(claim.name) as show, users_code(name):
        result = prove_on_box(claim, seconds=seconds, progress=show)
    found = None
    if result.witness is not None and result.verdict is not None:
        found = ModelCheck(claim, result.witness, 0, result.verdict)
    outcome = Outcome.VIOLATED if found else Outcome.HOLDS if result.bound >= 0 else Outcome.UNDECIDED
    saved = save_witness(found, save)
    if as_json:
        extra = {"claim": claim.name, "verdict": outcome.value, "scope": "a box of tables", "saved": saved}
        print_json(result.to_json() | extra | {"witness": witness_json(found) if found else None})
    else:
        screen = Screen()
        show_heading(screen, claim)
        screen.line(str(result))
        if found:
            show_outcome(screen, found, "refuted", at=" at x = 0")
        elif outcome is Outcome.UNDECIDED:
            screen.line("where both sides are equal on the box, a bound of exactly zero is out of reach: undecided")
        tell_saved(screen, claim, save, saved)
    return exit_code(outcome.value)


@click.command("replay", epilog=EPILOG)
@click.argument("file")
@click.option(
    "--objective",
    "objectives",
    metavar="FILE.py:NAME",
    multiple=True,
    help="The callable of a black box that FILE names; again for another one.",
)
@click.option("--test", "test_file", metavar="FILE", help="Write the counterexample as a pytest regression test.")
@common(seed=NOTHING_RANDOM)
def replay_command(file: str, objectives: tuple[str, ...], test_file: str | None, as_json: bool, seed: int) -> int:
    """Decide a saved counterexample anew.

    FILE holds the claim's formulas, the model and the observation, so the claim need not be in the catalogue. The
    verdict that it records is compared with the new one, and plays no part in it.

    A black box is only named in FILE: say with --objective where its code is. No code is run that was not asked for.
    """
    from boundcheck.claims.check import ModelCheck
    from boundcheck.cli.report import Screen, print_json
    from boundcheck.cli.targets import find_objectives
    from boundcheck.search.witness import load_witness

    witness = load_witness(file, [each for target in objectives for each in find_objectives(target)])
    verdict = witness.replay()
    found = ModelCheck(witness.claim, witness.model, witness.x, verdict)
    as_recorded = witness.is_as_recorded(verdict)
    violated = verdict.outcome.value == "violated"
    if test_file is not None and violated:
        _write_test(witness, test_file, objectives)
    remark = _catalogue_remark(witness.claim)
    if as_json:
        extra = {
            "status": status_of(verdict),
            "scope": "this model",
            "text": str(witness.claim),
            "as_recorded": as_recorded,
            "recorded": dict(witness.recorded),
            "notes": [*notes_on(witness.claim), *([remark] if remark else [])],
            "witness": {"model": witness.model.to_json(), "x": witness.x},
        }
        print_json(found.to_json() | extra)
    else:
        screen = Screen()
        show_heading(screen, witness.claim)
        show_outcome(screen, found, f"{status_line(verdict)} (this model)", at=f" at x = {witness.x}")
        recorded = f"{witness.recorded['verdict']} ({witness.recorded['guarantee']})"
        screen.line("as recorded" if as_recorded else f"not as recorded: the file says {recorded}, with other values")
        if remark:
            screen.line(f"note: {remark}")
        if test_file:
            screen.line(f"regression test written to {test_file}" if violated else "no regression test was written")
    return exit_code(verdict.outcome.value)


def _write_test(witness: Witness, test_file: str, objectives: tuple[str, ...]) -> None:
    """A saved counterexample as a test: with its formulas, or, of a black box, with the claim's code imported."""
    from boundcheck.cli.targets import find_claim, origin_of
    from boundcheck.errors import BadInput
    from boundcheck.search.files import write_text
    from boundcheck.search.regression import regression_test

    origin = None
    if witness.claim.black_boxes:
        if len(objectives) != 1 or str(find_claim(objectives[0])) != str(witness.claim):
            expected = f"one --objective FILE.py:NAME that is the whole claim {witness.claim}"
            raise BadInput("--test", test_file, expected, "name a Claim of your file")
        origin = origin_of(objectives[0])
    write_text(test_file, regression_test(witness, origin, Path(test_file).resolve().parent), "--test")


def status_of(verdict: Verdict) -> str:
    """The status of a claim on one model: floating-point arithmetic neither proves nor refutes."""
    if verdict.guarantee is None or verdict.guarantee.value not in ("exact", "certified"):
        return "undecided" if verdict.outcome.value != "holds" else "survived"
    return {"holds": "proved", "violated": "refuted"}[verdict.outcome.value]


def _catalogue_remark(claim: Claim) -> str:
    from boundcheck.catalogue import claims

    known = claims().get(claim.name)
    if known is None:
        return ""
    same = (known.sides, known.relation, known.covering) == (claim.sides, claim.relation, claim.covering)
    return "" if same else f"the catalogue has another claim by the name of {claim.name}"


def save_witness(found: ModelCheck | None, path: str | None) -> str | None:
    """Save a counterexample; the path, or None if there is nothing that a file can hold, or nowhere asked for."""
    from boundcheck.search.witness import Witness, keepable

    if path is None or found is None or not keepable(found):
        return None
    Witness.of(found).save(path)
    return path


def witness_json(found: ModelCheck) -> dict[str, Any] | None:
    """A counterexample as JSON (certified, unless a side is a black box), or None."""
    violated = found.verdict.outcome.value == "violated" and bool(found.claim.black_boxes)
    return found.point_json() if violated or status_of(found.verdict) == "refuted" else None


def status_line(verdict: Verdict) -> str:
    """The status of a claim on one model, and why a violation leaves it undecided."""
    status = status_of(verdict)
    violated = verdict.outcome.value == "violated" and status == "undecided"
    return f"{status}: a violation in floats, which no evaluator certified" if violated else status


def notes_on(claim: Claim) -> list[str]:
    """What a reader of a verdict on black boxes should know."""
    return [
        f"{box.name} is a black box: the guarantee is numerical at best, and its numbers are trusted {box.trust}"
        for box in claim.black_boxes
    ]


# --- text for people -----------------------------------------------------------------------------------------------


def show_heading(screen: Screen, claim: Claim) -> None:
    """The claim: name, formulas, statement, source."""
    screen.line(claim.name, style="bold")
    screen.line(f"  {claim}")
    if claim.statement:
        screen.line(f"  {claim.statement}")
    if claim.source:
        screen.line(f"  {claim.source}", style="dim")
    screen.line()


def show_outcome(screen: Screen, found: ModelCheck, status: str, at: str) -> None:
    """A verdict on one model, with the model and both values."""
    from boundcheck.claims.describe import model_text
    from boundcheck.cli.report import model_rows
    from boundcheck.cli.targets import roles_of
    from boundcheck.models.finite import FiniteModel

    verdict = found.verdict
    screen.line(f"{verdict}{at}")
    if isinstance(found.model, FiniteModel):
        rows = model_rows(found.model, roles_of(found.claim))
    else:
        rows = model_text(found.model, found.x)
    screen.fields([*rows, *_values(verdict), ("status", status)])
    for note in notes_on(found.claim):
        screen.line(f"note: {note}")


def _values(verdict: Verdict) -> list[tuple[str, str]]:
    from boundcheck.cli.report import exact_and_float, number

    if verdict.lhs is None or verdict.rhs is None:
        return []
    exact = verdict.guarantee is not None and verdict.guarantee.value == "exact"
    if exact:
        margin = exact_and_float(verdict.margin_text, verdict.margin)
    else:
        margin = verdict.margin_text or f"{verdict.margin:.6g}"
    return [("lhs", number(verdict.lhs)), ("rhs", number(verdict.rhs)), ("rhs - lhs", margin)]


def _family(screen: Screen, found: Survey) -> None:
    if found.witness is not None:
        status = f"{found.status.value}: {found.detail}"
        show_outcome(screen, found.witness, status, at=f" at x = {found.witness.x} of a witness")
        return
    rows = [("verdict", found.outcome.value), ("status", found.status.value), ("because", found.detail)]
    if found.guarantee is not None:
        rows.append(("guarantee", found.guarantee.value))
    counts = [f"{found.models} decided"]
    counts += [f"{found.open} left open"] if found.open else []
    counts += [f"{found.skipped} without a value (inf - inf)"] if found.skipped else []
    rows.append(("models", ", ".join(counts)))
    if found.models:
        rows.append(("rhs - lhs", f"at least {found.smallest_margin:.6g} nats on these models"))
    screen.fields(rows)
    for note in notes_on(found.claim):
        screen.line(f"note: {note}")


def tell_saved(screen: Screen, claim: Claim, wanted: str | None, saved: str | None) -> None:
    """Where the counterexample was saved, if that was asked for, and how to decide it again."""
    from boundcheck.search.black_boxes import replay_line

    if saved is not None:
        screen.line(f"saved: {saved}")
        screen.line(f"replay: {replay_line(saved, claim)}")
    elif wanted is not None:
        screen.line("nothing was saved: there is no counterexample that a file can hold")
