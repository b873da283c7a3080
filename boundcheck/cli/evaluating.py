"""`evaluate`: a trained model's objective against its IWAE curve and whatever else bounds its evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from boundcheck.cli.options import EPILOG, HOLDS, check_file, common, exit_code
from boundcheck.errors import BadInput, require

if TYPE_CHECKING:
    from collections.abc import Callable

    from boundcheck.evidence.card import EvidenceCard

_LOSS = "Of a training loss: "


@click.command("evaluate", epilog=EPILOG)
@click.argument("model", required=False)
@click.option("--data", metavar="FILE", help="Observations: an .npy file, or FILE.npz:NAME.")
@click.option("--weights", metavar="FILE", help="The model's state dict (.safetensors, .pt, .pth, .ckpt).")
@click.option(
    "--objective",
    default="elbo",
    show_default=True,
    metavar="NAME",
    help="A name (elbo, dvae, renyi:alpha=0.5), or FILE.py:NAME of a formula or a training loss.",
)
@click.option("--sign", type=click.Choice(["bound", "loss"]), help=_LOSS + "is it maximised or minimised?")
@click.option("--unit", type=click.Choice(["nats", "bits", "nats/dim", "bits/dim"]), help=_LOSS + "its unit.")
@click.option("--per", type=click.Choice(["example", "batch"]), help=_LOSS + "a number for each row, or their mean?")
@click.option("--batch", type=click.IntRange(min=1), metavar="N", help=_LOSS + "rows in a call.")
@click.option("--same-as", metavar="NAME", help="Check that the objective is this one: elbo, iwae:k=50, ...")
@click.option(
    "--k", type=click.IntRange(min=1), metavar="N", default=5000, show_default=True, help="Most importance weights."
)
@click.option(
    "--simulate",
    type=click.IntRange(min=0),
    metavar="N",
    default=200,
    show_default=True,
    help="Examples to draw from the model, where its evidence is known; 0: none.",
)
@click.option("--ais", type=click.IntRange(min=1), metavar="N", help="Annealed importance sampling, N temperatures.")
@click.option("--replicates", type=click.IntRange(min=2), metavar="N", help="Draws of the objective for each example.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Evaluate on N random examples of the data.")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 0.5, min_open=True, max_open=True),
    metavar="P",
    default=1e-3,
    show_default=True,
    help="The probability that anything on the card is decided wrongly.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1.")
@click.option("--chunk", type=click.IntRange(min=1), metavar="N", help="Most rows handed to the model at once.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Python threads, each with one of torch.")
@click.option("--dtype", type=click.Choice(["bfloat16"]), help="Of the decoder's matrix products.")
@click.option("--resume", metavar="DIR", help="Keep finished work there; the same command goes on after a stop.")
@click.option(
    "--log-weights", metavar="FILE", help="In place of MODEL: log-weights (draws, examples), .npy or .npz:NAME."
)
@click.option("--objective-values", metavar="FILE", help="With --log-weights: (replicates, examples), nats.")
@click.option("--examples-first", is_flag=True, help="With --log-weights: the arrays are (examples, draws).")
@click.option("--note", default="", metavar="TEXT", help="Goes on the card: how the data were binarised, say.")
@click.option("--latex", metavar="FILE", help="Write the card as a LaTeX table.")
@click.option("--report", metavar="FILE", help="Write the card as one HTML page, with plots and images.")
@click.option("--image-shape", metavar="HxW", help="With --report: how to show an observation as an image.")
@common(seed="Seed of all draws.")
def evaluate_command(
    model: str | None,
    latex: str | None,
    report: str | None,
    image_shape: str | None,
    as_json: bool,
    **options: Any,
) -> int:
    """A trained model's objective against its evidence.

    MODEL is FILE.py:NAME: a function without arguments that makes the model, or the model itself, with methods prior,
    encoder and decoder that return torch distributions. The objective is held against a lower confidence bound on
    log p(x) from up to K importance weights, against upper bounds where there are any, and at data drawn from the
    model, against their evidence from both sides. The exit code is 1 too if --same-as finds another objective.
    """
    from boundcheck.cli.report import Screen, print_json, progress_of

    shape = _image_shape(image_shape)
    if shape is not None and report is None:
        raise BadInput("--image-shape", image_shape, "--report beside it")
    check_file("--latex", latex)
    check_file("--report", report)
    if report is not None:  # before the work, not after it
        require("matplotlib", extra="plot", feature="plots in a report")
        _fits(shape, options["data"])
    of_model = options["log_weights"] is None
    with progress_of("drawing") as advance:
        card = _card(model, options, advance)
    if of_model and not _is_first():
        return _code(card)
    if as_json:
        print_json(card.to_json())
    else:
        _show(card, Screen())
    _write(card, latex, report, shape)
    return _code(card)


def _is_first() -> bool:
    """Of several processes, as torchrun starts them, the first one speaks."""
    from boundcheck.evidence.shards import rank

    return rank() == 0


def _card(model: str | None, options: dict[str, Any], advance: Callable[..., None]) -> EvidenceCard:
    log_weights, values = options.pop("log_weights"), options.pop("objective_values")
    examples_first = options.pop("examples_first")
    if log_weights is not None:
        _refuse_beside_log_weights(model, options)
        from boundcheck.evidence.from_log_weights import evaluate_log_weights

        return evaluate_log_weights(
            log_weights,
            examples_first=examples_first,
            objective_values=values,
            alpha=options["alpha"],
            note=options["note"],
            progress=advance,
        )
    if model is None or options["data"] is None:
        missing = "MODEL" if model is None else "--data"
        raise BadInput(missing, None, "FILE.py:NAME with --data FILE, or --log-weights FILE")
    for name, value in (("--objective-values", values), ("--examples-first", examples_first or None)):
        if value is not None:
            raise BadInput(name, value, "--log-weights beside it")
    from boundcheck.cli.targets import users_code
    from boundcheck.evidence.from_files import evaluate_files

    options["same"], options["simulated"] = options.pop("same_as"), options.pop("simulate")
    with users_code(model, "the model"):
        return evaluate_files(model, progress=advance, **options)


def _refuse_beside_log_weights(model: str | None, options: dict[str, Any]) -> None:
    """Options that need the model, and would be passed over in silence."""
    if model is not None:
        raise BadInput("MODEL", model, "no model beside --log-weights")
    needless = ("data", "weights", "sign", "unit", "per", "batch", "same_as", "ais", "replicates", "limit", "resume")
    for name in (*needless, "chunk", "threads", "dtype"):
        if options[name] is not None:
            raise BadInput(f"--{name.replace('_', '-')}", options[name], "a model, not --log-weights")
    if options["objective"] != "elbo":
        raise BadInput("--objective", options["objective"], "a model; pass --objective-values with --log-weights")
    context = click.get_current_context()
    for name in ("k", "simulate", "device"):  # they have defaults
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise BadInput(f"--{name}", options[name], "a model, not --log-weights")


def _code(card: EvidenceCard) -> int:
    return exit_code(card.outcome.value) if card.outcome else HOLDS


def _image_shape(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise BadInput("--image-shape", text, "HEIGHTxWIDTH, such as 28x20")
    return int(sides[0]), int(sides[1])


def _fits(shape: tuple[int, int] | None, data: str | None) -> None:
    """Refuse an image shape that is not that of the observations."""
    if shape is not None and data is not None:
        from boundcheck.evidence.html import as_image
        from boundcheck.evidence.loading import load_data

        as_image(load_data(data)[0], shape)


def _write(card: EvidenceCard, latex: str | None, report: str | None, shape: tuple[int, int] | None) -> None:
    pages = []
    if latex is not None:
        from boundcheck.evidence.latex import to_latex

        pages.append(("--latex", latex, to_latex(card)))
    if report is not None:
        from boundcheck.evidence.html import to_html

        pages.append(("--report", report, to_html(card, image_shape=shape)))
    for name, path, text in pages:
        try:
            Path(path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise BadInput(name, path, "a file that can be written", error.strerror or str(error)) from None


def _show(card: EvidenceCard, screen: Any) -> None:
    from boundcheck.evidence.text import plain, render

    if screen.on_terminal:
        from rich.console import Console

        render(card, Console())  # not the screen's, which takes text as it is: the card is written in rich's markup
    else:
        plain(card, screen)


__all__ = ["evaluate_command"]
