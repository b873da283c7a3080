"""`reproduce`: published counterexamples and experiments, computed again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from boundcheck.cli.options import EPILOG, NOTHING_RANDOM, Commands, common

if TYPE_CHECKING:
    from boundcheck.reproduce.bernoulli import ClosedForm, Reproduction


@click.group("reproduce", cls=Commands, epilog=EPILOG)
def reproduce_group() -> None:
    """Published counterexamples, computed again."""


@reproduce_group.command("bernoulli", epilog=EPILOG)
@click.option("--plot", metavar="FILE", help="Draw both readings as the encoder sharpens (PNG, SVG or PDF).")
@common(seed=NOTHING_RANDOM)
def bernoulli_command(plot: str | None, as_json: bool, seed: int) -> int:
    """The counterexample to the denoising objective, exactly.

    D. Tran and R. Ranganath (blog, December 2015) on Im et al. (2015): one formula, two readings, and the sandwich
    log p(x) >= L >= ELBO, of which each reading keeps one half and breaks the other.
    """
    from boundcheck.cli.report import print_json
    from boundcheck.reproduce import bernoulli

    found = bernoulli.reproduce()
    if plot is not None:
        bernoulli.plot(found, plot)
    if as_json:
        print_json(found.to_json() | {"plot": plot})
    else:
        _print_bernoulli(found, plot)
    return 0


def _print_bernoulli(found: Reproduction, plot: str | None) -> None:
    from boundcheck.cli.report import Screen, model_rows, number

    screen = Screen()
    screen.line("The counterexample of D. Tran and R. Ranganath (2015) to Im et al. (2015)", style="bold")
    screen.fields(model_rows(found.model))
    screen.line()
    screen.line("Values, exact, in nats", style="bold")
    screen.fields([(name, number(value)) for name, value in found.values.items()])
    screen.line()
    screen.line("The sandwich log p(x) >= L >= ELBO of q~: each reading keeps one half", style="bold")
    screen.fields(
        [
            (f"{half}, {reading}", str(checked.verdict))
            for reading, (below, above) in found.sandwich.items()
            for half, checked in (("log p(x) >= L", below), ("L >= ELBO of q~", above))
        ]
    )
    screen.line()
    screen.line("The readings are known objectives", style="bold")
    screen.fields([(checked.claim.statement, str(checked.verdict)) for checked in found.identities])
    screen.line()
    screen.line("As functions of s = q(z=1|x~=0) = q(z=0|x~=1), here 9/10", style="bold")
    screen.fields([(name, _of_s(form)) for name, form in found.closed_forms.items()])
    if plot is not None:
        screen.line()
        screen.line(f"plot: {plot}")


def _of_s(form: ClosedForm) -> str:
    if not form.expression.free_symbols:
        return f"{form.expression} for every s"
    limit = "infinity" if form.limit.is_infinite else str(form.limit)
    return f"{form.expression}, which goes to {limit} as s goes to 1"
