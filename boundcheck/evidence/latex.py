r"""The card as a LaTeX table, for a paper: figures with what each promises in the notes, and the verdicts below.

It is to compile in any document: with booktabs and without, in LaTeX's own font encoding and in T1, whatever the names
of the model, the data and the objective are made of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import count
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
    '"': r"\char34{}",  # \textquotedbl needs T1
    "`": r"\char96{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "∞": r"$\infty$",
} | {each: f"\\{each}" for each in "&%$#_{}"}
_SMALL = "alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi pi rho varsigma sigma tau upsilon"
_CAPITALS = "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
_GREEK = dict(zip("αβγδεζηθικλμνξπρςστυ", _SMALL.split(), strict=True))
_GREEK |= dict(zip("φχψω", ("varphi", "chi", "psi", "omega"), strict=True))
_GREEK |= dict(zip("ΓΔΘΛΞΠΣΥΦΨΩ", _CAPITALS.split(), strict=True))
_NEEDS_T1 = frozenset("ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ")
_NUMBER = re.compile(r"(-?)(inf|\d[\d.]*)(?:e([+-]\d+))?")
_PIECE = re.compile(
    r"(?P<evidence>log p\(x\))|(?P<minus>(?<![\w.-])-(?=\d))|(?P<joined>-{2,}|'{2,})|(?P<stop>[_/.:](?=[^\W\d_]))"
)
_PIECES: dict[str, Callable[[str], str]] = {
    "evidence": lambda text: r"$\log p(x)$",
    "minus": lambda text: "$-$",
    "joined": lambda text: "".join(f"{each}{{}}" for each in text),  # else they become a dash, a quotation mark
    "stop": lambda text: _escaped(text) + r"\allowbreak{}",
}


def to_latex(card: EvidenceCard) -> str:
    r"""The card as one table environment, as wide as an article with one column (of two, it needs both: table*).

    No package is needed. With \usepackage{booktabs} its rules are better; [T1]{fontenc} and UTF-8 sources, which are
    LaTeX's default, suit names with accents. A letter that LaTeX has not got is written by its number, as U+4E2D.

    Args:
        card: what to show.

    >>> from boundcheck.evidence import evaluate_log_weights
    >>> import numpy as np
    >>> table = to_latex(evaluate_log_weights(np.zeros((10, 2)), name="a_b"))
    >>> [line for line in table.splitlines() if "ELBO" in line]
    ['ELBO = IWAE-1$^{a}$ & $0.000$ & $0.000$ & $0.000$ \\\\']
    """
    marks: dict[str, str] = {}
    names = _marks()
    columns = 5 if card.dimensions else 4
    rows = []
    for name, *cells, promises in figures(card):
        if promises not in marks:
            marks[promises] = next(names)
        quantity = f"{escape(name)}$^{{{marks[promises]}}}$"
        rows.append(" & ".join([quantity, *map(_cell, cells[: columns - 1])]) + r" \\")
    head = ["quantity", "nats", r"$\pm$ draws", r"$\pm$ data set", "bits/dim"][:columns]
    notes = "; ".join(f"$^{{{mark}}}$ {escape(promises)}" for promises, mark in marks.items())
    says = [
        f"{escape(name)}: {escape(outcome.value if outcome else 'not judged')} ({escape(reading)})."
        for name, outcome, reading in verdicts(card)
    ]
    caption = (
        f"{escape(card.model)} on {escape(card.data)}: means over {escape(how_many(card))} in nats, with the standard "
        "errors of the draws and of the data set."
    )
    return "\n".join(
        [
            r"\begin{table}",
            r"  % the rules of booktabs, or plain ones where that package is not loaded",
            r"  \providecommand{\toprule}{\hline}\providecommand{\midrule}{\hline}\providecommand{\bottomrule}{\hline}",
            r"  \centering\small\setlength{\tabcolsep}{4pt}",
            rf"  \begin{{tabular}}{{l{'r' * (columns - 1)}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"  \end{tabular}",
            rf"  \caption{{{caption}}}\smallskip",
            r"  \begin{minipage}{\linewidth}\footnotesize\raggedright",
            f"{notes}.",
            *(rf"\par {each}" for each in says),
            r"  \end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def escape(text: str) -> str:
    r"""Text that LaTeX prints as it is, with a minus sign before numbers, and lines that may break in file names.

    >>> print(escape("50% of a_b, at -1.5"))
    50\% of a\_\allowbreak{}b, at $-$1.5
    """
    parts, end = [], 0
    plain = " ".join(text.split())
    for piece in _PIECE.finditer(plain):
        parts += [_escaped(plain[end : piece.start()]), _PIECES[str(piece.lastgroup)](piece.group())]
        end = piece.end()
    return "".join([*parts, _escaped(plain[end:])])


def _escaped(text: str) -> str:
    return "".join(map(_letter, text))


def _letter(each: str) -> str:
    if each in _SPECIAL:
        return _SPECIAL[each]
    if each in _GREEK:
        return f"$\\{_GREEK[each]}$"
    if not each.isprintable():
        return ""
    if each.isascii() or ("À" <= each <= "ž" and each not in _NEEDS_T1):
        return each
    return f"U+{ord(each):04X}"


def _cell(text: str) -> str:
    found = _NUMBER.fullmatch(text)
    if not found:
        return escape(text)
    sign, digits, power = found.groups()
    times = rf"\times 10^{{{int(power)}}}" if power else ""
    return f"${sign}{digits.replace('inf', chr(92) + 'infty')}{times}$"


def _marks() -> Iterator[str]:
    """a, b, c, ..., z, 27, 28, ..."""
    yield from "abcdefghijklmnopqrstuvwxyz"
    yield from map(str, count(27))


__all__ = ["escape", "to_latex"]
