"""The experiment's picture: how the decoupled reading runs away in training, and where both readings end elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from boundcheck.errors import BadInput, require
from boundcheck.reproduce.dvae.experiment import WATCHED_K, Experiment

INK, EVIDENCE, COUPLED, DECOUPLED = "#333333", "#0072B2", "#009E73", "#D55E00"


def plot(experiment: Experiment, path: str | Path) -> None:
    """Write the picture as PNG, SVG or PDF.

    Raises:
        MissingExtra: matplotlib is not installed.
        BadInput: a file that cannot be written, or another format.
    """
    figures = require("matplotlib.figure", extra="plot", feature="the experiment's picture")
    figure = figures.Figure(figsize=(11, 4.4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _training(left, experiment)
    _readings(right, experiment)
    figure.suptitle(f"{experiment.images}: nats, means over {experiment.settings['test images']} test images", size=10)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise BadInput("the plot", str(path), "a PNG, SVG or PDF file that can be written", str(error)) from None


def _training(axes: Any, experiment: Experiment) -> None:
    """Left: the model that is trained on the decoupled reading, and the DVAE beside it."""
    for name, style in (("decoupled", "-"), ("dvae", ":")):
        moments = experiment.history.get(name, ())
        label = "trained on the decoupled reading" if name == "decoupled" else "DVAE"
        for values, colour, what in (
            ([m.decoupled for m in moments], DECOUPLED, "decoupled reading"),
            ([m.iwae for m in moments], EVIDENCE, f"IWAE-{WATCHED_K}"),
        ):
            axes.plot([m.updates for m in moments], values, style, color=colour, marker=".", label=f"{what}, {label}")
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=100)
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.annotate("log p(x) of binary images is below 0", (0.02, 0), xycoords=("axes fraction", "data"), xytext=(0, 3),
                  textcoords="offset points", fontsize=8, color=INK)  # fmt: skip
    axes.set_xlabel("updates")
    axes.set_ylabel("nats")
    axes.set_title("In training", loc="left", fontsize="medium")
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)


def _readings(axes: Any, experiment: Experiment) -> None:
    """Right: for each model both readings, the ELBO of q~ between its two estimates, and the evidence estimate."""
    rows = [row for row in experiment.rows if row.name != "decoupled"]
    for place, row in enumerate(reversed(rows)):
        cells = row.cells
        low, high = cells["ELBO of q~, at least"], cells["ELBO of q~, at most"]
        bound = row.card.curve.best.mean.mean
        axes.plot(
            [min(cells["coupled"], low), max(bound, cells["decoupled"])], [place, place], color="#dddddd", zorder=0
        )
        axes.plot([low, high], [place, place], color=INK, linewidth=5, solid_capstyle="butt")
        for value, colour, marker in (
            (cells["coupled"], COUPLED, "o"),
            (cells["decoupled"], DECOUPLED, "D"),
            (bound, EVIDENCE, "|"),
        ):
            axes.plot(value, place, marker, color=colour, markersize=14 if marker == "|" else 6, markeredgewidth=2)
    axes.set_yticks(range(len(rows)), [row.title for row in reversed(rows)])
    axes.margins(y=0.2)
    k = experiment.settings["k"]
    handles = [
        axes.plot([], [], "o", color=COUPLED, label="coupled reading")[0],
        axes.plot([], [], color=INK, linewidth=5, label="ELBO of q~")[0],
        axes.plot([], [], "D", color=DECOUPLED, label="decoupled reading")[0],
        axes.plot([], [], "|", color=EVIDENCE, markersize=12, markeredgewidth=2, label=f"IWAE-{k}")[0],
    ]
    axes.legend(handles=handles, fontsize=8, frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    axes.set_xlabel("nats")
    axes.set_title("Trained", loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
