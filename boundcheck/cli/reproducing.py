"""`reproduce`: published counterexamples and experiments, computed again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from boundcheck.cli.options import EPILOG, NOTHING_RANDOM, PLOTS, Commands, check_file, common

if TYPE_CHECKING:
    from boundcheck.reproduce.bernoulli import ClosedForm, Reproduction
    from boundcheck.reproduce.dvae import Experiment, Images


@click.group("reproduce", cls=Commands, epilog=EPILOG)
def reproduce_group() -> None:
    """Published counterexamples and experiments, computed again."""


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

    check_file("--plot", plot, PLOTS)
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


@reproduce_group.command("dvae", epilog=EPILOG)
@click.option("--data", metavar="FILE", help="An .npz file with images `train` and `test`. [default: 8x8 digits]")
@click.option("--packed-pixels", type=click.IntRange(1), metavar="N", help="Rows of the file are N packed bits.")
@click.option("--models", metavar="A,B,...", help="Train only these: vae, iwae, dvae, dvae-gaussian, diwae, decoupled.")
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="Passes over the training images.")
@click.option("--hidden", metavar="N,N,...", help="Widths of the hidden layers.")
@click.option("--latent", type=click.IntRange(1), metavar="N", help="Dimensions of z.")
@click.option("--level", type=float, default=0.1, show_default=True, help="Of the corruption.")
@click.option("--k", type=click.IntRange(min=1), metavar="N", default=5000, show_default=True, help="IWAE's weights.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Evaluate on N random test images.")
@click.option("--train-limit", type=click.IntRange(1), metavar="N", help="Train on N random images.")
@click.option("--plot", metavar="FILE", help="Draw the result (PNG, SVG or PDF).")
@click.option(
    "--out", metavar="DIR", help="Keep there what `evaluate` needs: models.py, weights, test images; and the result."
)
@common(seed="Seed of everything.")
def dvae_command(
    data: str | None,
    packed_pixels: int | None,
    models: str | None,
    epochs: int | None,
    hidden: str | None,
    latent: int | None,
    level: float,
    k: int,
    limit: int | None,
    train_limit: int | None,
    plot: str | None,
    out: str | None,
    as_json: bool,
    seed: int,
) -> int:
    """The denoising experiment: VAEs trained in six ways.

    Im et al. (2015). For each model both readings of the denoising objective, the ELBO of q~, and IWAE with K weights,
    by one recipe; and a model that is trained on the decoupled reading, which runs away from its evidence.
    """
    from boundcheck.cli.report import print_json, progress_of
    from boundcheck.errors import BadInput
    from boundcheck.reproduce import dvae
    from boundcheck.reproduce.dvae.experiment import VARIANTS
    from boundcheck.reproduce.dvae.training import Recipe

    check_file("--plot", plot, PLOTS)
    if seed >= 2**63:
        raise BadInput("--seed", seed, "an integer from 0 to 2**63 - 1")
    if data is None and packed_pixels is not None:
        raise BadInput("--packed-pixels", packed_pixels, "a file of packed bits", "name the file with --data")
    images = dvae.digits(seed) if data is None else dvae.read_images(data, pixels=packed_pixels, seed=seed)
    images = images.first(train_limit, limit, seed)
    small = images.pixels <= 100
    widths = _widths(hidden) if hidden is not None else (64,) if small else (200, 200)
    recipe = Recipe(epochs or (200 if small else 20), batch=64 if small else 100, learning_rate=3e-3)
    folder = None if out is None else _folder(out)
    if folder is not None:
        _save_images(images, folder)
        sizes = (images.pixels, widths, latent or (10 if small else 50))
        (folder / "models.py").write_text(dvae.model_file(sizes, level), encoding="utf-8")
    with progress_of("denoising experiment") as report:
        experiment = dvae.reproduce(
            images,
            names=tuple(VARIANTS) if models is None else tuple(name.strip() for name in models.split(",")),
            recipe=recipe,
            hidden=widths,
            latent=latent or (10 if small else 50),
            level=level,
            k=k,
            seed=seed,
            progress=lambda what, done, of: report(done, of, what),
            keep=lambda name, model: _save_weights(name, model, folder),
        )
    if plot is not None:
        dvae.plot(experiment, plot)
    found = experiment.to_json() | {"plot": plot}
    if folder is not None:
        import json

        (folder / "dvae.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print_json(found)
    else:
        _print_dvae(experiment, plot, out)
    return 0


def _widths(text: str) -> tuple[int, ...]:
    from boundcheck.errors import BadInput

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise BadInput("--hidden", text, "widths of layers, such as 200,200")
    return tuple(map(int, parts))


def _folder(out: str) -> Path:
    from boundcheck.errors import BadInput

    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput("--out", out, "a folder that can be written to", error.strerror or "") from None
    return folder


def _save_images(images: Images, folder: Path) -> None:
    import numpy as np

    np.savez_compressed(folder / "test.npz", test=images.test)


def _save_weights(name: str, model: Any, folder: Path | None) -> None:
    from boundcheck.errors import require

    if folder is not None:
        save = require("safetensors.torch", extra="torch", feature="saving weights").save_file
        save(model.state_dict(), folder / f"{name}.safetensors")


def _print_dvae(experiment: Experiment, plot: str | None, out: str | None) -> None:
    from boundcheck.cli.report import Screen

    screen = Screen()
    screen.line("The denoising experiment of Im et al. (2015)", style="bold")
    screen.fields([("images", experiment.images)] + [(name, str(each)) for name, each in experiment.settings.items()])
    screen.line()
    screen.line("Nats, means over the test images", style="bold")
    columns = list(experiment.rows[0].cells)
    rows = [[row.title, *(f"{value:.2f}" for value in row.cells.values())] for row in experiment.rows]
    screen.table(["model", *columns], rows)
    screen.line()
    screen.line("Is the reading below the evidence of the model?", style="bold")
    verdicts = [[row.title, *row.verdicts.values()] for row in experiment.rows]
    screen.table(["model", "coupled", "decoupled"], verdicts)
    for what, where in (("plot", plot), ("kept in", out)):
        if where is not None:
            screen.line(f"{what}: {where}")
