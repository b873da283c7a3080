"""A counterexample as a ready pytest test, which fails for as long as the claim fails on that model.

The test of a user's own objective imports it, so that it passes once the objective is right; the test of a claim whose
code is not at hand carries the formulas.
"""

from __future__ import annotations

import json
import os
import pprint
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from boundcheck.errors import BadInput
from boundcheck.search.witness import Witness

Form: TypeAlias = Literal["objective", "claim", "maker"]


@dataclass(frozen=True)
class Origin:
    """Where a claim's code is: an object of a Python file, and what the object is.

    Args:
        file: the Python file.
        name: the object's name in it.
        form: "objective": it is judged as a lower bound on log p(x); "claim": it is a Claim; "maker": a function
            without arguments that returns one.
    """

    file: str | Path
    name: str
    form: Form = "objective"

    def imported(self, folder: Path) -> list[str]:
        """The lines that give a test in a folder the object, by its name."""
        file = Path(self.file).resolve()
        if file.parent == folder.resolve() and file.stem.isidentifier():
            return [f"from {file.stem} import {self.name}"]
        place = os.path.relpath(file, folder.resolve())
        return [f"{self.name} = runpy.run_path(str(Path(__file__).parent / {place!r}))[{self.name!r}]"]


def regression_test(witness: Witness, origin: Origin | None = None, folder: str | Path = ".") -> str:
    """A witness as a ready pytest test: it fails for as long as the claim fails on this model.

    Args:
        witness: the counterexample.
        origin: where the claim's code is; without it the test holds the formulas themselves.
        folder: where the test will lie, from which it finds that code.

    Raises:
        BadInput: a claim about a black box without an origin: no file can hold a callable.

    >>> from boundcheck.catalogue import find
    >>> from boundcheck.claims import check_model
    >>> claim = find("denoising-readings-agree")
    >>> source = regression_test(Witness.of(check_model(claim, claim.witness())))
    >>> print(source.splitlines()[-1].strip())
    assert verdict.outcome is not Outcome.VIOLATED, f"{verdict}: {verdict.lhs} == {verdict.rhs}"
    """
    claim = witness.claim
    if origin is None and claim.black_boxes:
        expected = "Origin(FILE.py, NAME), from where the test can import the objective"
        raise BadInput("origin", origin, expected, f"{claim.black_boxes[0].name} is a black box")
    identifier = "".join(c if f"_{c}".isidentifier() else "_" for c in claim.name).strip("_").lower() or "claim"
    tables = {key: value for key, value in witness.model.to_json().items() if key not in ("format", "kind")}
    model = pprint.pformat(tables, width=100, sort_dicts=False)
    head, formulas, made = _embedded(witness) if origin is None else _imported(witness, origin, Path(folder))
    return f'''"""A counterexample that boundcheck found: {_in_one_line(claim.name)}."""

{head}
{formulas}
TABLES = {model}


def test_{identifier}_counterexample():
    model = FiniteModel(**TABLES)
    {made}
    verdict = check(claim, model, x={witness.x})
    assert verdict.outcome is not Outcome.VIOLATED, f"{{verdict}}: {{verdict.lhs}} {claim.relation} {{verdict.rhs}}"
'''


def _in_one_line(text: str) -> str:
    """A witness file may come from anybody: no name in it may end a comment or a docstring."""
    return " ".join(text.split()).replace("\\", "").replace('"', "'")


def _embedded(witness: Witness) -> tuple[str, str, str]:
    claim = witness.claim
    lhs, rhs = (json.dumps(witness.to_json()["claim"][side]) for side in ("lhs", "rhs"))
    head = "import json\n\nfrom boundcheck import Claim, FiniteModel, Outcome, check\n"
    head += "from boundcheck.language import from_json\n"
    formulas = f'# {_in_one_line(str(claim))}\nLHS = json.loads(r"""{lhs}""")\nRHS = json.loads(r"""{rhs}""")'
    made = "# To test your own formulas instead, put the functions in the place of from_json(...).\n    "
    made += f"claim = Claim({claim.name!r}, from_json(LHS), {claim.relation!r}, from_json(RHS))"
    return head, formulas, made


def _imported(witness: Witness, origin: Origin, folder: Path) -> tuple[str, str, str]:
    claim = witness.claim
    lines = origin.imported(folder)
    found = lines[0].startswith("from ")
    names = "FiniteModel, Outcome, check" if origin.form != "objective" else "Claim, FiniteModel, Outcome, check"
    head = [] if found else ["import runpy", "from pathlib import Path", ""]
    head.append(f"from boundcheck import {names}")
    if origin.form == "objective":
        head.append("from boundcheck.catalogue.objectives import log_evidence")
    head += ["", *lines, ""] if found else [""]
    comment = f"# {_in_one_line(str(claim))}"
    formulas = comment if found else "\n".join([*lines, "", comment])
    made = {
        "objective": f'claim = Claim({claim.name!r}, {origin.name}, "<=", log_evidence)',
        "claim": f"claim = {origin.name}",
        "maker": f"claim = {origin.name}()",
    }[origin.form]
    return "\n".join(head), formulas, made


__all__ = ["Origin", "regression_test"]
