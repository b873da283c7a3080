"""The card as text: its figures as rows with what each promises, then the verdicts; for a terminal or plain."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.claims.decide import Outcome
from boundcheck.evaluators.averages import DatasetMean
from boundcheck.evidence.diagnostics import RELIABLE
from boundcheck.evidence.intervals import Label

if TYPE_CHECKING:
    from rich.console import Console

    from boundcheck.evidence.card import EvidenceCard

HEAD = ("quantity", "nats", "± draws", "± data set", "bits/dim", "promises")
COLOURS = {Outcome.HOLDS: "green", Outcome.VIOLATED: "red", Outcome.UNDECIDED: "yellow"}
Row = tuple[str, str, str, str, str, str]


def figures(card: EvidenceCard) -> Iterator[Row]:
    """Every figure of the card that is a mean over the examples, with its errors and what it promises."""

    def row(name: str, value: float, promises: str, draws: float = math.nan, data: float = math.nan) -> Row:
        bits = card.bits_per_dimension(value)
        shown = "" if bits is None else f"{bits:.4f}"
        return name, f"{value:.3f}", _error(draws), _error(data), shown, promises

    def of(name: str, mean: DatasetMean, promises: str) -> Row:
        return row(name, mean.mean, promises, mean.monte_carlo_error, mean.data_set_error)

    for point in card.curve.points:
        name = "ELBO = IWAE-1" if point.k == 1 else f"IWAE-{point.k}"
        yield of(name, point.mean, Label.EXPECTATION.value)
    if card.annealed is not None:
        yield of(f"AIS, {len(card.annealed.betas) - 1} temperatures", card.annealed.mean, Label.EXPECTATION.value)
    chance = f"bound with probability {1 - card.interval.delta:.6g}"
    yield row("log p(x), at least", card.interval.lower, chance)
    if card.annealed is not None:
        yield row("log p(x), at least (AIS)", card.annealed.bound(card.interval.delta), chance)
    if card.grid is not None:
        yield row("log p(x), quadrature", card.grid.mean.value, Label.ESTIMATE.value, card.grid.mean.error)
    if card.upper is not None:
        yield row("log p(x), at most", card.upper.value.value, f"certain: {card.upper.source}")
    for name, value in card.estimates.items():
        if name != "elbo":
            yield of(name, value, f"the objective, {value.bias.value}")


def _error(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}" if value >= 0.0005 or value == 0 else f"{value:.1e}"


def remarks(card: EvidenceCard) -> Iterator[tuple[str, str]]:
    """What else the card says, as pairs of a name and a sentence."""
    known = card.weight_summary
    yield (
        "weights",
        f"{known['draws']} for each example; effective sample size {known['median_ess']:.0f} in the median, "
        f"{known['smallest_ess']:.1f} at least",
    )
    if known["zero"]:
        yield "zero weights", _zero_weights(card)
    if not math.isnan(known["median_pareto_k"]):
        count, examples = known["unreliable"], known["with_pareto_k"]
        unknown = len(card.examples.index) - examples
        yield (
            "Pareto k",
            f"{known['median_pareto_k']:.2f} in the median, {known['largest_pareto_k']:.2f} at most; "
            f"above {RELIABLE} at {count} of {examples} examples"
            + (", whose IWAE may be far from log p(x)" if count else "")
            + (f"; not known at {unknown}, for lack of large weights" if unknown else ""),
        )
    if card.annealed is not None and len(card.annealed.acceptance):
        rates = card.annealed.acceptance
        yield "AIS", f"acceptance {rates.mean():.2f} on average, {rates.min():.2f} to {rates.max():.2f}"
    if card.gap is not None:
        gap = card.gap.gap
        wide = f"{gap.mean:.3g} ± {gap.standard_error:.2g}" if math.isfinite(gap.mean) else "infinitely many"
        yield "bidirectional", f"AIS is {wide} nats wide on simulated data only"
    if card.simulated is not None:
        low, high = card.simulated.interval(card.interval.delta)
        count = len(card.simulated.lower)
        yield "simulated data", f"mean log p(x) of {count} examples in [{low:.2f}, {high:.2f}], on simulated data only"
    if card.likelihood:
        yield "likelihood", card.likelihood
    for index, why in list(card.failed.items())[:5]:
        yield f"example {index}", f"failed, and is left out: {why}"
    if len(card.failed) > 5:
        yield "failed", f"{len(card.failed)} examples in all: {', '.join(map(str, list(card.failed)[:50]))}"
    for note in card.notes:
        yield "note", note
    yield "settings", ", ".join(f"{name} {value}" for name, value in {**card.settings, **card.versions}.items())


def _zero_weights(card: EvidenceCard) -> str:
    """Which examples have a density p(x,z) of zero at some of their draws, or at all of them."""
    table = card.examples
    some, every = table.index[np.isneginf(table.elbo)], table.index[np.isneginf(table.log_mean_weight)]
    sentence = f"p(x,z) is 0 at some draws of {_counted(some)}, so that the ELBO is -inf"
    if len(every):
        sentence += f"; at all draws of {_counted(every)}: do its data fit the model, and its encoder the prior?"
    return sentence


def _counted(indices: NDArray[np.intp]) -> str:
    if len(indices) == 1:
        return f"example {indices[0]}"
    shown = ", ".join(map(str, indices[:5].tolist()))
    return f"{len(indices)} examples ({shown}{', ...' if len(indices) > 5 else ''})"


def how_many(card: EvidenceCard) -> str:
    """How many examples the card speaks of, and of how many it cannot."""
    left_out = f" ({len(card.failed)} left out)" if card.failed else ""
    return f"{card.value.examples} example{'s' * (card.value.examples != 1)}{left_out}"


def verdicts(card: EvidenceCard) -> Iterator[tuple[str, Outcome | None, str]]:
    """Every verdict: what about, which, and the reading."""
    for name, judgement in card.judgements.items():
        reading = judgement.reading
        if judgement.decide_by:
            reading += f"; it would be decided by {judgement.decide_by}"
        yield name, judgement.outcome, reading
        for finding in judgement.findings[1:]:
            if finding.reading != judgement.reading:
                yield f"{name}, simulated", finding.outcome, finding.reading
    if card.identity is not None:
        yield f"{card.objective}, said to be", card.identity.outcome, card.identity.reading
    if card.judgement is None:
        yield card.objective, None, card.reading


def render(card: EvidenceCard, console: Console) -> None:
    """Print a card as a table, then its verdicts."""
    from rich.markup import escape
    from rich.table import Table

    title = f"{card.model} on {card.data}: mean of {how_many(card)}"
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    for number, name in enumerate(HEAD):
        right = 0 < number < len(HEAD) - 1
        table.add_column(name, justify="right" if right else "left", no_wrap=right)
    for cells in figures(card):
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)
    for name, sentence in remarks(card):
        console.print(f"[dim]{escape(name)}:[/dim] {escape(sentence)}", highlight=False)
    for name, outcome, reading in verdicts(card):
        colour = COLOURS[outcome] if outcome else "default"
        word = f"{outcome.value} " if outcome else ""
        console.print(f"[{colour}]{escape(name)}: {word}[/{colour}]({escape(reading)})", highlight=False)


def plain(card: EvidenceCard, screen: Any) -> None:
    """Print a card as lines of text; `screen` is a `boundcheck.cli.report.Screen`."""
    screen.line(f"{card.model} on {card.data}: nats, means over {how_many(card)}")
    screen.table(HEAD, list(figures(card)))
    for name, sentence in remarks(card):
        screen.line(f"{name}: {sentence}")
    for name, outcome, reading in verdicts(card):
        screen.line(f"{name}: {outcome.value} ({reading})" if outcome else f"{name}: {reading}")


__all__ = ["COLOURS", "HEAD", "figures", "how_many", "plain", "remarks", "render", "verdicts"]
