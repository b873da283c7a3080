"""The demonstration's picture: for each model its IWAE curve, with the objectives as horizontal lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boundcheck.errors import require
from boundcheck.evidence.card import EvidenceCard

INK, CURVE, COUPLED, DECOUPLED = "#333333", "#0072B2", "#009E73", "#D55E00"
LABELS = {
    "elbo": ("ELBO", INK),
    "denoising_coupled": ("denoising, coupled", COUPLED),
    "denoising_decoupled": ("denoising, decoupled", DECOUPLED),
}
ERRORS = 3
"""Bars show this many standard errors of the draws."""


def plot(cards: Mapping[str, EvidenceCard], path: Path) -> None:
    """Write the picture as PNG, one panel for each card.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figure_module = require("matplotlib.figure", extra="plot", feature="the demonstration's picture")
    backend = require("matplotlib.backends.backend_agg", extra="plot", feature="the demonstration's picture")
    figure = figure_module.Figure(figsize=(5.6 * len(cards), 4.6), dpi=150, layout="constrained")
    backend.FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(cards), sharey=True, squeeze=False)[0]
    for panel, (title, card) in zip(axes, cards.items(), strict=True):
        _panel(panel, title, card)
    axes[0].set_ylabel("nats, mean of the test digits")
    figure.supxlabel(
        f"number K of weights   (bars and bands: ± {ERRORS} standard errors of the draws; most are too small to see)",
        fontsize="small",
    )
    figure.savefig(path)


def _panel(panel: Any, title: str, card: EvidenceCard) -> None:
    points = card.curve.points
    ks = [point.k for point in points]
    means = [point.mean for point in points]
    errors = [ERRORS * mean.monte_carlo_error for mean in means]
    values = [mean.mean for mean in means]
    panel.errorbar(ks, values, errors, color=CURVE, marker="o", markersize=5, capsize=3, zorder=3)
    panel.annotate(
        f"IWAE, {values[-1]:.2f} at K = {ks[-1]}",
        (ks[-1], values[-1]),
        xytext=(0, 6),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=CURVE,
    )
    for name, (label, colour) in LABELS.items():
        if name not in card.estimates:
            continue
        estimate = card.estimates[name]
        half = ERRORS * estimate.monte_carlo_error
        panel.axhspan(estimate.mean - half, estimate.mean + half, color=colour, alpha=0.25, linewidth=0)
        style = ":" if name == "elbo" else "--"
        panel.axhline(estimate.mean, color=colour, linestyle=style, linewidth=1.4)
        above = name != "elbo"
        panel.annotate(
            f"{label}, {estimate.mean:.2f}",
            (0.0, estimate.mean),
            xycoords=("axes fraction", "data"),
            xytext=(6, 4 if above else -4),
            textcoords="offset points",
            va="bottom" if above else "top",
            color=colour,
        )
    panel.set_xscale("log")
    panel.set_xticks(ks, [str(k) for k in ks])
    panel.minorticks_off()
    panel.margins(y=0.12)
    panel.set_title(title, fontsize="medium", loc="left")
    panel.spines[["top", "right"]].set_visible(False)
