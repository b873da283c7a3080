"""The card in LaTeX: names of any letters, read back by LaTeX's rules, which are written here once more."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boundcheck.evidence import evaluate_log_weights
from boundcheck.evidence.latex import _cell, escape, to_latex


def test_log_weights_have_no_column_of_bits() -> None:
    rows = [line for line in to_latex(evaluate_log_weights(np.zeros((50, 3)))).splitlines() if line.endswith(r"\\")]
    assert {row.count("&") for row in rows} == {3}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("-1.5", "$-1.5$"),
        ("2.1e-05", r"$2.1\times 10^{-5}$"),
        ("-inf", r"$-\infty$"),
        ("", ""),
        ("nan", "nan"),
    ],
)
def test_numbers_are_set_as_numbers(text: str, shown: str) -> None:
    assert _cell(text) == shown


def read(tex: str) -> str:
    """What LaTeX prints for text without formulas but single symbols: its rules, written apart from the escaping."""
    words = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">"}
    words |= {"textbar": "|", "allowbreak": "", "pm": "±", "times": "×", "leq": "≤", "geq": "≥", "infty": "∞"}
    words |= {"beta": "β", "Sigma": "Σ", "varphi": "φ"}
    shown, place, formula = [], 0, False
    while place < len(tex):
        rest = tex[place:]
        if command := re.match(r"\\char(\d+)\{\}", rest):
            shown.append(chr(int(command[1])))
        elif command := re.match(r"\\([A-Za-z]+)(\{\})?", rest):
            assert command[2] or rest[command.end() : command.end() + 1] == "$", f"{rest[:20]} swallows what follows"
            shown.append(words[command[1]])
        elif command := re.match(r"\\([&%$#_{}])|\{\}|[^\\{}&%$#_^~<>|\"`]", rest):
            shown.append(command[1] or command[0].strip("{}"))
        else:
            command = re.match(r"\$", rest)
            assert command, f"LaTeX does not print {rest[:20]!r}"
            formula = not formula
        place += command.end()
    assert not formula
    assert "--" not in tex and "''" not in tex, "two become one"
    return "".join(shown)


NASTY = [
    "a_b%c&d#e$f",
    r"C:\dir\new~1^2",
    "{x}}",
    "<|>`'\"",
    "--weights -1 - -2",
    "β Σ φ ≤ ± × ∞",
    "é ü Ł ß ż",
    "__init__.py:x_",
]


@pytest.mark.parametrize("text", NASTY)
def test_latex_prints_names_as_they_are(text: str) -> None:
    assert read(escape(text)) == text


@given(st.text(st.characters(max_codepoint=0x2FF), max_size=30))
def test_latex_prints_any_name(text: str) -> None:
    """Letters that it has not got are written by their number; white space and what is invisible does not count."""
    shown = read(escape(text))
    assert all(each.isascii() or "À" <= each <= "ž" or each in "±×" for each in shown)
    plain = " ".join(text.split())
    assert re.sub(r"U\+[0-9A-F]{4}", "?", shown) == "".join(
        "?" if not (each.isascii() or each in shown) else each for each in plain if each.isprintable()
    )


@pytest.mark.parametrize("text", NASTY)
def test_names_in_a_table_are_escaped(text: str) -> None:
    table = to_latex(evaluate_log_weights(np.zeros((50, 3)), name=text))
    assert f"{{{escape(text)} on 50 draws" in table


@pytest.mark.slow
def test_the_table_compiles_where_there_is_tex(tmp_path: Path) -> None:
    """In the plainest document, without a package: no error, and no line that is too wide."""
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("there is no pdflatex")
    table = to_latex(evaluate_log_weights(np.zeros((50, 3)), name=" ".join([*NASTY, "Ж 中 ą"]), dimensions=4))
    (tmp_path / "t.tex").write_text(f"\\documentclass{{article}}\\begin{{document}}{table}\\end{{document}}", "utf-8")
    options = ["-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run([program, *options], cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout and "Missing character" not in done.stdout
