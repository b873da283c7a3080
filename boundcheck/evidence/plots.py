"""The card's plots as SVG elements for a page: the IWAE curve, gaps of the examples, and how far to rely on weights.

Ink is drawn in a colour that no plot uses and then becomes `currentColor`, so that a plot is dark on a light page and
light on a dark one.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from boundcheck.errors import require
from boundcheck.evidence.diagnostics import RELIABLE

if TYPE_CHECKING:
    from boundcheck.evidence.card import EvidenceCard

INK, CURVE, GREEN, RED, YELLOW = "#010203", "#3b8ed0", "#2f9e6b", "#d9622b", "#c79a1b"
COLOURS = {"denoising_coupled": GREEN, "denoising_decoupled": RED}
ERRORS = 3
"""Bars show this many standard errors of the draws."""
_SETTINGS = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def plots(card: EvidenceCard) -> list[tuple[str, str]]:
    """Each plot as an SVG element, with its caption.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    chance = f"{1 - card.interval.delta:.6g}"
    table = card.examples
    drawn = [
        (
            _svg("curve", (6.4, 4.0), lambda axes: _curve(axes, card)),
            f"IWAE against the number of weights, ± {ERRORS} standard errors of the draws, and the objectives."
            + (
                f" log p(x) lies above the grey line with probability {chance}."
                * bool(np.isfinite(card.interval.lower))
            ),
        )
    ]
    gaps = table.gap[np.isfinite(table.gap)]
    if len(gaps):
        drawn.append(
            (
                _svg("gaps", (4.6, 3.2), lambda axes: _gaps(axes, gaps)),
                "Gap of each example: log mean weight less ELBO. A long tail is a posterior that the encoder misses.",
            )
        )
    if np.isfinite(table.pareto_k).any():
        drawn.append(
            (
                _svg("tails", (4.6, 3.2), lambda axes: _tails(axes, card)),
                f"Above a Pareto k of {RELIABLE} an example's weights are too heavy-tailed to be averaged.",
            )
        )
    return drawn


def _curve(axes: Any, card: EvidenceCard) -> None:
    points = card.curve.points
    ks, means = [point.k for point in points], [point.mean.mean for point in points]
    bars = [ERRORS * point.mean.monte_carlo_error for point in points]
    axes.errorbar(ks, means, bars, color=CURVE, marker="o", markersize=5, capsize=3, zorder=3, label="IWAE")
    if np.isfinite(card.interval.lower):
        axes.axhline(card.interval.lower, color=INK, alpha=0.5, linewidth=1.2, label="log p(x), at least")
    if card.grid is not None:
        axes.axhline(card.grid.mean.value, color=GREEN, linestyle=":", label="log p(x), quadrature")
    if card.annealed is not None:
        axes.axhline(card.annealed.mean.mean, color=YELLOW, linestyle="-.", label="AIS")
    for name, value in card.estimates.items():
        if name == "elbo" or not np.isfinite(value.mean):
            continue
        colour = COLOURS.get(name, YELLOW)
        half = ERRORS * value.monte_carlo_error if np.isfinite(value.monte_carlo_error) else 0.0
        axes.axhspan(value.mean - half, value.mean + half, color=colour, alpha=0.25, linewidth=0)
        axes.axhline(value.mean, color=colour, linestyle="--", linewidth=1.4, label=name)
    if card.upper is not None and card.upper.value.value - max(means) < 3 * (max(means) - min(means)):
        axes.axhline(card.upper.value.value, color=RED, linewidth=1.2, label="log p(x), at most")
    axes.set_xscale("log")
    crowded = len(ks) > 1 and ks[-1] < 1.5 * ks[-2]  # the labels of the last two would overlap
    axes.set_xticks(ks, ["" if crowded and k == ks[-2] else str(k) for k in ks])
    axes.set_xlim(ks[0] / 1.5, ks[-1] * 1.5)  # also where no point is finite
    axes.minorticks_off()
    axes.margins(y=0.12)
    axes.set_xlabel("weights K")
    axes.set_ylabel("nats")
    axes.figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)


def _gaps(axes: Any, gaps: Any) -> None:
    axes.hist(gaps, bins=min(40, max(5, round(len(gaps) ** 0.5))), color=CURVE)
    axes.set_xlabel("gap, nats")
    axes.set_ylabel("examples")
    axes.yaxis.get_major_locator().set_params(integer=True)


def _tails(axes: Any, card: EvidenceCard) -> None:
    shapes, sizes = card.examples.pareto_k, card.examples.effective_sample_size
    known = np.isfinite(shapes) & (sizes > 0)
    axes.scatter(sizes[known], shapes[known], s=12, color=CURVE, alpha=0.6, linewidths=0)
    axes.axhline(RELIABLE, color=RED, linewidth=1.2)
    axes.set_xscale("log")
    axes.set_xlim(0.9, 1.1 * card.curve.best.k)
    axes.set_xlabel(f"effective sample size, of {card.curve.best.k}")
    axes.set_ylabel("Pareto k")


def _svg(name: str, size: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """One SVG element; its ids depend on its name, so that plots on one page do not share them."""
    feature = "plots in a report"
    matplotlib = require("matplotlib", extra="plot", feature=feature)
    figure_module = require("matplotlib.figure", extra="plot", feature=feature)
    with matplotlib.rc_context(_SETTINGS | {"svg.hashsalt": name}):
        figure = figure_module.Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0.0)
        axes = figure.subplots()
        axes.patch.set_alpha(0.0)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    # Ids of groups (axes_1, patch_2, ...) are the same in all plots; nothing refers to them.
    text = re.sub(r' id="[\w.]+_\d+"', "", re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL))
    return text.replace(INK, "currentColor").replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


__all__ = ["plots"]
