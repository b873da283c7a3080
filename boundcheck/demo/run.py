"""The demonstration: two small models trained, their objectives evaluated, printed, saved and plotted."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from boundcheck.errors import BadInput, require

if TYPE_CHECKING:
    from boundcheck.evidence.card import EvidenceCard

TITLES: dict[Literal["vae", "dvae"], str] = {
    "vae": "VAE, trained on clean digits",
    "dvae": "DVAE, trained on corrupted digits",
}
OBJECTIVES = {"vae": "elbo", "dvae": "denoising_coupled"}


def run(out: Path, *, seed: int = 0, quick: bool = False, console: Console | None = None) -> dict[str, EvidenceCard]:
    """Train two models on binary digits, one on the ELBO and one on the denoising objective, and evaluate both.

    Writes to `out`: vae.safetensors and dvae.safetensors, digits_test.npz, a card for each as JSON and as an HTML page,
    and iwae.png.

    Args:
        out: a folder, made if need be.
        seed: of everything.
        quick: a few epochs, examples and weights only: everything runs, nothing is good.
        console: where the cards are printed; progress goes to stderr.

    Raises:
        MissingExtra: torch, safetensors, scikit-learn or matplotlib is not installed.
        BadInput: a folder that cannot be made.
    """
    torch = require("torch", extra="demo", feature="the demonstration")
    safetensors = require("safetensors.torch", extra="demo", feature="the demonstration")
    from boundcheck.demo.digits_vae import DigitsVAE
    from boundcheck.demo.plot import plot
    from boundcheck.evidence.evaluation import evaluate_model
    from boundcheck.evidence.html import to_html
    from boundcheck.evidence.text import render
    from boundcheck.reproduce.dvae.images import digits
    from boundcheck.reproduce.dvae.training import Recipe, one_thread, train

    epochs, examples, k, simulated = (3, 40, 60, 20) if quick else (400, None, 5000, 100)
    console = console or Console()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput("--out", str(out), "a folder that can be written to", error.strerror or "") from None
    images = digits(seed)
    held_out = images.test[:examples]
    np.savez_compressed(out / "digits_test.npz", test=held_out)
    x = torch.as_tensor(held_out, dtype=torch.float32)
    cards = {}
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress, one_thread():
        trainings = {kind: progress.add_task(f"train {kind}", total=epochs, start=False) for kind in TITLES}
        evaluations = {kind: progress.add_task(f"evaluate {kind}", total=None, start=False) for kind in TITLES}
        for kind, title in TITLES.items():
            training, evaluating = trainings[kind], evaluations[kind]
            progress.start_task(training)
            advance = partial(_report, progress, training, of=epochs)
            model = train(DigitsVAE, images, OBJECTIVES[kind], Recipe(epochs), seed=seed, after_epoch=advance)
            safetensors.save_file(model.state_dict(), out / f"{kind}.safetensors")
            progress.start_task(evaluating)
            cards[kind] = evaluate_model(
                model,
                x,
                objective="denoising_decoupled",
                k=k,
                simulated=simulated,
                seed=seed,
                model_name=title,
                data_name="held-out digits",
                note=images.name,
                progress=partial(_report, progress, evaluating),
            )
    for kind, card in cards.items():
        (out / f"{kind}.json").write_text(json.dumps(card.to_json(), indent=1) + "\n", encoding="utf-8")
        (out / f"{kind}.html").write_text(to_html(card), encoding="utf-8")
        render(card, console)
        console.print()
    plot({TITLES[kind]: card for kind, card in cards.items()}, out / "iwae.png")
    return cards


def _report(progress: Progress, task: TaskID, done: int, of: int) -> None:
    progress.update(task, completed=done, total=of)
