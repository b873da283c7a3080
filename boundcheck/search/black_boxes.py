"""Black boxes in witness files: a file cannot hold a callable, so it holds its name and settings, and where it was.

Whoever reads the file gives the callable; or it is found in a module that is loaded already. Nothing is imported, since
reading a file must not run code.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from boundcheck.claims.claim import Claim
from boundcheck.claims.spaces import Side
from boundcheck.errors import BadInput
from boundcheck.evaluators.black_box import BlackBox, innermost
from boundcheck.search.files import REMEDY, require_fields

BLACK_BOX = "black box"
"""The key under which a side of a claim holds one."""

Objective: TypeAlias = BlackBox | Callable[..., Any]

_FIELDS = ("name", "file", "module", "object", "error", "takes", "batched", "reads", "clean_encoder", "states")


@dataclass(frozen=True)
class Absent:
    """In the place of a callable that a file names and nobody gave."""

    name: str
    file: str
    module: str
    object: str

    @property
    def where(self) -> str:
        """FILE.py:NAME, as the command line takes it."""
        return f"{self.file or 'FILE.py'}:{self.object or 'NAME'}"

    def __call__(self, *args: Any) -> Any:
        raise BadInput("the black box", self.name, "the callable itself", f"it is {self.object} of {self.file}")


def box_json(side: BlackBox) -> dict[str, Any]:
    """A black box, JSON-ready."""
    function = side.function
    if isinstance(function, Absent):
        file, module, name = function.file, function.module, function.object
    else:
        file, module, name = _place(side)
    settings = {
        "error": side.error,
        "takes": side.takes,
        "batched": side.batched,
        "reads": list(side.reads),
        "clean_encoder": side.clean_encoder,
        "states": dict(side.states),
    }
    return {BLACK_BOX: {"name": side.name, "file": _from_here(file), "module": module, "object": name} | settings}


def _place(box: BlackBox) -> tuple[str, str, str]:
    """The file, the module, and the name there of a black box, or of a claim that has it; "" for what is not known."""
    file, name = box.where()
    home = innermost(box.function)
    module = str(getattr(home, "__module__", ""))
    for key, value in getattr(home, "__globals__", {}).items():
        same = value is box.function or (isinstance(value, BlackBox) and value == box)
        if same or (isinstance(value, Claim) and box in value.black_boxes):
            return file, module, key
    return file, module, name if home is box.function else ""


def replay_line(path: str | Path, claim: Claim) -> str:
    """The command that decides a saved counterexample to a claim again."""
    line = f"boundcheck replay {shlex.quote(str(path))}"
    for box in claim.black_boxes:
        file, _, name = _place(box)
        line += " --objective " + shlex.quote(f"{_from_here(file) or 'FILE.py'}:{name or 'NAME'}")
    return line


def _from_here(file: str) -> str:
    """A path relative to the current directory if it lies in there."""
    here = Path.cwd()
    path = Path(file)
    return path.relative_to(here).as_posix() if path.is_absolute() and path.is_relative_to(here) else file


def read_box(where: str, data: object) -> BlackBox:
    """The black box of a JSON object; its callable is `Absent` unless its module is loaded.

    Raises:
        BadInput: an object that is none; the message names the field.
    """
    if not isinstance(data, Mapping):
        raise BadInput(where, data, "an object", REMEDY)
    require_fields(where, data, _FIELDS)
    for field in ("name", "file", "module", "object", "takes"):
        if not isinstance(data[field], str):
            raise BadInput(f"{where}.{field}", data[field], "text", REMEDY)
    for field in ("batched", "clean_encoder"):
        if not isinstance(data[field], bool):
            raise BadInput(f"{where}.{field}", data[field], "true or false", REMEDY)
    if not isinstance(data["states"], Mapping):
        raise BadInput(f"{where}.states", data["states"], "an object", REMEDY)
    if not isinstance(data["reads"], list) or not all(isinstance(role, str) for role in data["reads"]):
        raise BadInput(f"{where}.reads", data["reads"], "a list of names of tables", REMEDY)
    absent = Absent(data["name"], data["file"], data["module"], data["object"])
    return BlackBox(
        _loaded(absent),
        data["error"],
        data["takes"],  # type: ignore[arg-type]
        data["batched"],
        tuple(data["reads"]),
        data["clean_encoder"],
        data["states"],
        data["name"],
    )


def _loaded(absent: Absent) -> Callable[..., Any]:
    """The function, if its module is loaded already; nothing is imported, because that would run code."""
    found: Any = sys.modules.get(absent.module)
    for part in absent.object.split("."):
        found = getattr(found, part, None)
    if isinstance(found, Claim):
        found = next((box for box in found.black_boxes if box.name == absent.name), None)
    found = found.function if isinstance(found, BlackBox) else found
    code = getattr(innermost(found), "__code__", None)
    return found if code is not None and _from_here(code.co_filename) == absent.file else absent


def given(sides: list[Side], objectives: Sequence[Objective]) -> list[Side]:
    """The sides, with the callables that were given in the place of their black boxes.

    Raises:
        BadInput: an objective of which no side has the name.
    """
    boxes = [side for side in sides if isinstance(side, BlackBox)]
    named = {_name(objective): objective for objective in objectives}
    if len(boxes) == len(named) == 1:
        named = {boxes[0].name: next(iter(named.values()))}
    known = {name for box in boxes for name in (box.name, _object(box))}
    for name in named:
        if name not in known:
            expected = f"one of {', '.join(box.name for box in boxes)}" if boxes else "none: both sides are formulas"
            raise BadInput("the objective", name, expected, "give the black boxes that the file names")

    def filled(side: Side) -> Side:
        if not isinstance(side, BlackBox):
            return side
        objective = named.get(side.name, named.get(_object(side)))
        if objective is None:
            return side
        return objective if isinstance(objective, BlackBox) else replace(side, function=objective)

    return [filled(side) for side in sides]


def _object(box: BlackBox) -> str:
    return box.function.object if isinstance(box.function, Absent) else _place(box)[2]


def _name(objective: Objective) -> str:
    return objective.name if isinstance(objective, BlackBox) else getattr(objective, "__name__", repr(objective))


__all__ = ["BLACK_BOX", "Absent", "Objective", "box_json", "given", "read_box", "replay_line"]
