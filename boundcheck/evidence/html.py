"""The card as one HTML page that needs nothing else: style, plots and images are in it, and no network is asked.

All text that comes from a user is escaped. The table of examples can be sorted by a small script; without it, the page
says the same.
"""

from __future__ import annotations

import base64
import io
import math
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, require
from boundcheck.evidence.card import MOST_ROWS
from boundcheck.evidence.text import HEAD, figures, how_many, remarks, verdicts

if TYPE_CHECKING:
    from boundcheck.claims.decide import Outcome
    from boundcheck.evidence.card import EvidenceCard

_SCRIPT = """<script>
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => {
        const number = parseFloat(row.cells[column].textContent.replace("\\u2212", "-"));
        return Number.isNaN(number) ? -Infinity : number;
      };
      const rows = [...table.tBodies[0].rows].sort((a, b) => (up ? 1 : -1) * (value(a) - value(b)));
      table.tBodies[0].append(...rows);
    });
  });
}
</script>"""


def to_html(card: EvidenceCard, *, image_shape: tuple[int, int] | None = None) -> str:
    """The card as one self-contained page: figures, verdicts, plots, the worst examples, and a table of examples.

    Args:
        card: what to show.
        image_shape: height and width of an observation as an image; by default it is shown as one if its shape is
            (h, w), (1, h, w) or (3, h, w), or if it is a square number of pixels.

    Raises:
        BadInput: an image shape that does not fit the observations.
        MissingExtra: matplotlib is not installed.
    """
    from boundcheck.evidence.plots import plots

    outcome = card.outcome
    template = Template(files("boundcheck.evidence").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=_text(f"{card.objective} of {card.model}"),
        subtitle=_text(f"{card.data}; {how_many(card)}; {card.likelihood}".rstrip("; ")),
        verdict=_verdict(card, outcome),
        figures=_table(HEAD, list(figures(card)), numbers=range(1, 5), kind="figures"),
        verdicts=_table(
            ("about", "verdict", "why"),
            [(name, each.value if each else "not judged", reading) for name, each, reading in verdicts(card)],
            classes=1,
        ),
        plots=_section("Plots", _plots(plots(card)), "plots"),
        images=_section(
            "The least probable examples",
            "".join(_figures_of(card, image_shape)),
            "images",
            "By log mean weight; the numbers are the examples' places in the data.",
        ),
        remarks="<dl>"
        + "".join(f"<dt>{_text(name)}</dt><dd>{_text(sentence)}</dd>" for name, sentence in remarks(card))
        + "</dl>",
        examples=_examples(card),
        script=_SCRIPT,
    )


def _text(text: str) -> str:
    return escape("".join(each if each.isprintable() else " " for each in text))


def _verdict(card: EvidenceCard, outcome: Outcome | None) -> str:
    judgement = card.judgement
    word = {"holds": "consistent with a lower bound", "violated": "violated", "undecided": "undecided"}
    said = word[outcome.value] if outcome else "the yardstick itself"
    if judgement is not None and judgement.outcome.value == "violated":
        said = "exceeds the evidence"
    elif outcome is not None and outcome.value == "violated":
        said = "is not what it is said to be"
    advice = f"<p>What would decide it: {_text(judgement.decide_by)}.</p>" if judgement and judgement.decide_by else ""
    chance = (
        f"<p class='soft'>All verdicts of this card together are wrong with probability at most {card.alpha:g}, "
        "given what they say that they take for granted.</p>"
    )
    kind = outcome.value if outcome else ""
    reading = card.reading.removeprefix(f"{said}: ")  # which the line above has said
    return (
        f"<div class='verdict {kind}'><strong>{_text(card.objective)}: {_text(said)}</strong>"
        f"<p>{_text(reading)}</p>{advice}{chance}</div>"
    )


def _table(head: Any, rows: Any, *, numbers: Any = (), classes: int | None = None, kind: str = "") -> str:
    def cell(tag: str, column: int, text: str) -> str:
        names = ["number"] if column in numbers else []
        if tag == "td" and column == classes and text.isalpha():
            names.append(text)
        joined = " ".join(names)
        attribute = f' class="{joined}"' if names else ""
        return f"<{tag}{attribute}>{_text(text)}</{tag}>"

    def line(tag: str, texts: Any) -> str:
        return "<tr>" + "".join(cell(tag, column, text) for column, text in enumerate(texts)) + "</tr>"

    body = "\n".join(line("td", row) for row in rows)
    attribute = f' class="{kind}"' if kind else ""
    return (
        f'<div class="wide"><table{attribute}><thead>{line("th", head)}</thead><tbody>\n{body}\n</tbody></table></div>'
    )


def _section(title: str, content: str, kind: str, note: str = "") -> str:
    if not content:
        return ""
    said = f'<p class="soft">{_text(note)}</p>' if note else ""
    return f'<h2>{_text(title)}</h2>{said}<div class="{kind}">{content}</div>'


def _plots(drawn: list[tuple[str, str]]) -> str:
    return "".join(f"<figure>{svg}<figcaption>{_text(caption)}</figcaption></figure>" for svg, caption in drawn)


def _examples(card: EvidenceCard) -> str:
    columns = card.examples.columns()
    count = len(card.examples.index)
    shown = [column[:MOST_ROWS].tolist() for column in columns.values()]
    rows = [[_number(value) for value in row] for row in zip(*shown, strict=True)]
    note = f"<p class='soft'>The first {MOST_ROWS} of {count} examples.</p>" if count > MOST_ROWS else ""
    table = _table(list(columns), rows, numbers=range(len(columns)), kind="sortable")
    return note + table.replace('class="wide"', 'class="wide tall"', 1)


def _number(value: float | int) -> str:
    if isinstance(value, int):
        return str(value)
    return "" if math.isnan(value) else f"{value:.4g}" if math.isinf(value) else f"{value:.3f}"


# --- images ---


def _figures_of(card: EvidenceCard, shape: tuple[int, int] | None) -> list[str]:
    found: list[str] = []
    values = {int(index): float(v) for index, v in zip(card.examples.index, card.examples.log_mean_weight, strict=True)}
    for index, observation in card.images.items():
        pixels = as_image(observation, shape)
        if pixels is None:
            return []
        data = base64.b64encode(_png(pixels)).decode("ascii")
        caption = f"{index}: {values[index]:.1f} nats"
        found.append(
            f'<figure><img alt="example {index}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption>'
            "</figure>"
        )
    return found


def as_image(observation: NDArray[Any], shape: tuple[int, int] | None = None) -> NDArray[np.float64] | None:
    """Pixels of shape (h, w) or (h, w, 3) between 0 and 1, if the observation looks like an image.

    Raises:
        BadInput: a given shape that does not fit.

    >>> as_image(np.zeros(64)).shape, as_image(np.zeros((3, 4, 5))).shape, as_image(np.zeros(7))
    ((8, 8), (4, 5, 3), None)
    """
    values = np.asarray(observation, dtype=np.float64)
    if shape is not None:
        channels, rest = divmod(values.size, shape[0] * shape[1])
        if rest or channels not in (1, 3):
            raise BadInput(
                "--image-shape",
                "x".join(map(str, shape)),
                f"a shape of {values.size} pixels, or of a third of them in colour",
            )
        values = values.reshape(channels, *shape)
    elif values.ndim == 1:
        side = math.isqrt(values.size)
        if side * side != values.size or side < 3:
            return None
        values = values.reshape(1, side, side)
    elif values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or values.shape[0] not in (1, 3) or min(values.shape[1:]) < 2:
        return None
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:  # not grey values between 0 and 1: its own range becomes black to white
        values = (values - low) / (high - low or 1.0)
    return values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)


def _png(pixels: NDArray[np.float64]) -> bytes:
    image = require("matplotlib.image", extra="plot", feature="images in a report")
    buffer = io.BytesIO()
    image.imsave(buffer, pixels, format="png", cmap="gray", vmin=0.0, vmax=1.0, metadata={"Software": None})
    return buffer.getvalue()


__all__ = ["as_image", "to_html"]
