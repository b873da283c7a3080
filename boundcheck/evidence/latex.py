"""The card as a LaTeX table, for a paper: booktabs rules, what each figure promises, and the verdicts below."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from boundcheck.evidence.text import figures, how_many, verdicts

if TYPE_CHECKING:
    from boundcheck.evidence.card import EvidenceCard

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
} | {each: f"\\{each}" for each in "&%$#_{}"}
_NUMBER = re.compile(r"-?\d[\d.]*")


def to_latex(card: EvidenceCard) -> str:
    r"""The card as one table environment; needs \usepackage{booktabs} and UTF-8 or T1 text.

    Args:
        card: what to show.

    >>> from boundcheck.evidence import evaluate_log_weights
    >>> import numpy as np
    >>> print(to_latex(evaluate_log_weights(np.zeros((10, 2)), name="a_b")).splitlines()[6])
    ELBO = IWAE-1 & $0.000$ & $0.000$ & $0.000$ &  & bound in expectation \\
    """
    rows = [" & ".join(_cell(cell) for cell in row) + r" \\" for row in figures(card)]
    says = [
        f"{escape(name)}: {escape(outcome.value if outcome else 'not judged')} ({escape(reading)})."
        for name, outcome, reading in verdicts(card)
    ]
    caption = (
        f"{escape(card.model)} on {escape(card.data)}: means over {how_many(card)}, in nats, with the "
        f"standard errors of the draws and of the data set. {' '.join(says)}"
    )
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            r"  \begin{tabular}{lrrrrl}",
            r"\toprule",
            r"quantity & nats & $\pm$ draws & $\pm$ data set & bits/dim & promises \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"  \end{tabular}",
            rf"  \caption{{{caption}}}",
            r"\end{table}",
            "",
        ]
    )


def escape(text: str) -> str:
    r"""Text whose special characters LaTeX prints as they are.

    >>> print(escape("50% of a_b"))
    50\% of a\_b
    """
    return "".join(_SPECIAL.get(each, each) for each in " ".join(text.split()) if each.isprintable())


def _cell(text: str) -> str:
    return f"${text}$" if _NUMBER.fullmatch(text) else escape(text)


__all__ = ["escape", "to_latex"]
