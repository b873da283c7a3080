"""`evaluate`: a trained model's objective against its IWAE curve and whatever else bounds its evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from boundcheck.cli.options import EPILOG, common, exit_code

if TYPE_CHECKING:
    from boundcheck.cli.report import Screen
    from boundcheck.evidence.card import EvidenceCard


@click.command("evaluate", epilog=EPILOG)
@click.argument("model")
@click.option("--data", required=True, metavar="FILE", help="Observations: an .npy file, or FILE.npz:NAME.")
@click.option("--weights", metavar="FILE", help="The model's state dict (.safetensors, .pt or .pth).")
@click.option("--objective", default="elbo", show_default=True, help="A name, or FILE.py:NAME of a formula.")
@click.option(
    "--k", type=click.IntRange(min=1), metavar="N", default=5000, show_default=True, help="Most importance weights."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Evaluate on N random examples of the data.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1.")
@common(seed="Seed of all draws.")
def evaluate_command(
    model: str,
    data: str,
    weights: str | None,
    objective: str,
    k: int,
    limit: int | None,
    device: str,
    as_json: bool,
    seed: int,
) -> int:
    """A trained model's objective against its evidence.

    MODEL is FILE.py:NAME: a function without arguments that makes the model, or the model itself, with methods prior,
    encoder and decoder that return torch distributions. The objective is held against the IWAE curve up to K
    importance weights, a lower bound on log p(x), and against an upper bound where there is one.
    """
    from boundcheck.cli.report import Screen, print_json, progress_of
    from boundcheck.cli.targets import users_code
    from boundcheck.evidence import evaluate_files

    with progress_of("drawing") as report, users_code(model, "the model"):
        card = evaluate_files(
            model,
            data=data,
            weights=weights,
            objective=objective,
            k=k,
            seed=seed,
            device=device,
            limit=limit,
            progress=report,
        )
    if as_json:
        print_json(card.to_json())
    else:
        _show(card, Screen())
    judgement = card.judgement
    return exit_code(judgement.outcome.value) if judgement else 0


def _show(card: EvidenceCard, screen: Screen) -> None:
    if screen.on_terminal:
        from rich.console import Console

        from boundcheck.evidence import render

        render(card, Console())  # not the screen's, which takes text as it is: the card is written in rich's markup
        return
    rows = [(f"IWAE-{point.k}", str(point.mean), "lower bound") for point in card.curve.points]
    rows += [(name, str(value), value.bias.value) for name, value in card.estimates.items()]
    if card.upper is not None:
        rows.append(("log p(x), at most", str(card.upper.value), card.upper.source))
    screen.line(f"{card.model} on {card.data}: nats, means over {card.curve.best.mean.examples} examples")
    screen.table(("quantity", "mean", "note"), rows)
    for name, judgement in card.judgements.items():
        screen.line(f"{name}: {judgement.outcome.value} ({judgement.reading})")
    if card.judgement is None:
        screen.line(card.reading)
