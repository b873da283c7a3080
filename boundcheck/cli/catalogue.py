"""`list` and `show`: what is claimed, by whom, and what is known of it."""

from __future__ import annotations

from typing import Any

import click

from boundcheck.cli.options import EPILOG, NOTHING_RANDOM, common


@click.command("list", epilog=EPILOG)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Random models for each claim.  [default: 60]")
@click.option("--no-cache", is_flag=True, help="Decide every claim anew.")
@common(seed="Seed of the random models.")
def list_command(count: int | None, no_cache: bool, as_json: bool, seed: int) -> int:
    """The catalogue: claim, source, status, guarantee.

    The status is computed, not written down: every claim is judged over a family of finite models. That takes some
    seconds the first time; what was found is kept for this version of the program, these formulas and this seed.
    """
    from boundcheck.claims.survey import DEFAULT_COUNT
    from boundcheck.cli.cache import surveys
    from boundcheck.cli.report import Screen, print_json

    models = count or DEFAULT_COUNT
    found = surveys(models, seed, use_cache=not no_cache)
    if as_json:
        print_json({"count": models, "seed": seed, "claims": found})
        return 0
    rows = [(each["claim"], each["status"], each["guarantee"] or "-", each["source"]) for each in found]
    Screen().table(("claim", "status", "guarantee", "source"), rows)
    return 0


@click.command("show", epilog=EPILOG)
@click.argument("name")
@common(seed=NOTHING_RANDOM)
def show_command(name: str, as_json: bool, seed: int) -> int:
    """A claim's formulas, source, gap and known witness.

    The formulas are shown as text and as LaTeX, which needs amsmath and amssymb. A witness is a model on which the
    claim is known to fail.

    NAME is a claim of the catalogue, or FILE.py:NAME for one of your own.
    """
    from boundcheck.claims.check import check_model
    from boundcheck.cli.report import Screen, model_rows, number, print_json
    from boundcheck.cli.targets import find_claim, roles_of, users_code
    from boundcheck.language.terms import Term

    claim = find_claim(name)
    with users_code(name):
        known = check_model(claim, claim.witness()) if claim.witness else None
    lhs, rhs = claim.sides
    gap = claim.gap if isinstance(claim.gap, Term) else None
    if as_json:
        shown: dict[str, Any] = claim.to_json() | {
            "relation": claim.relation,
            "lhs": {"text": lhs.text, "latex": lhs.latex},
            "rhs": {"text": rhs.text, "latex": rhs.latex},
            "gap_latex": gap.latex if gap is not None else None,
            "covering": claim.covering,
            "witness": known.to_json() | {"model": known.point_json()["model"]} if known else None,
        }
        print_json(shown)
        return 0
    screen = Screen()
    screen.line(claim.name, style="bold")
    fields = [
        ("statement", claim.statement),
        ("source", claim.source),
        ("formula", f"{lhs.text} {claim.relation}"),
        ("", rhs.text),
        ("LaTeX", claim.latex),
        ("gap", gap.text if gap is not None else ""),
        ("gap, LaTeX", gap.latex if gap is not None else ""),
        ("made for", "encoders with q(z|x) > 0 wherever p(x,z) > 0" if claim.covering else ""),
        ("note", claim.note),
    ]
    screen.fields([(field, text) for field, text in fields if text])
    from boundcheck.models.finite import FiniteModel

    if known is None:
        screen.line("known witness: none is stored; `boundcheck check` looks for one")
        return 0
    screen.line(f"known witness, at x = {known.x}:")
    verdict = known.verdict
    values = [("lhs", number(verdict.lhs)), ("rhs", number(verdict.rhs)), ("verdict", str(verdict))]
    assert isinstance(known.model, FiniteModel)  # the catalogue's known witnesses are tables
    screen.fields([*model_rows(known.model, roles_of(claim)), *values])
    return 0
