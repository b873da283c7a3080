"""Formulas that are nearly other formulas: a role, a variable, a sign, a law's normalisation, a reduction changed.

The change is made in the formula's file form, whose reader accepts only what the language could have built.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from random import Random
from typing import Any

from boundcheck.errors import BadInput
from boundcheck.language import Term, from_json, to_json

CONSTANTS = ("1", "-1", "2", "1/2", "-1/2", "3", "1/3")
ROLES = ("encoder", "corruption", "prior", "likelihood", "joint")

Path = tuple[Any, ...]


def places(data: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value inside nested JSON, with the keys that lead to it."""
    yield path, data
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from places(value, (*path, key))


def at(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data


def mutated(rng: Random, term: Term) -> Term | None:
    """Another closed term, one or two small changes away; None if twenty attempts made none."""
    original = to_json(term)
    for _ in range(20):
        data = copy.deepcopy(original)
        for _ in range(rng.choice((1, 1, 1, 2))):
            _change(rng, data)
        try:
            changed = from_json(data)
        except BadInput:
            continue
        if changed != term:
            return changed
    return None


def _change(rng: Random, data: Any) -> None:
    found = [(path, value) for path, value in places(data["term"], ("term",)) if len(path) > 1]
    copies = [(path, value) for path, value in found if path[-2] == "plates"]
    path, value = rng.choice(copies if copies and rng.random() < 0.2 else found)
    where, key = at(data, path[:-1]), path[-1]
    if key == "use":
        where[key] = rng.choice([number for other, number in found if other[-1] == "use"])
    elif key == "role":
        where[key] = rng.choice(ROLES)
        where["args"] = [] if where[key] in ("prior", "joint") else where["args"]
    elif "plates" in path and isinstance(value, list) and len(value) == 2:
        size = rng.choice((1, 2, 3))
        for other, plate in found:  # every variable on the same copies
            if "plates" in other and isinstance(plate, list) and plate[:1] == value[:1]:
                at(data, other)[1] = size
    elif key == "rescale":
        where[key] = not value
    elif key == "const":
        where[key] = rng.choice(CONSTANTS)
    elif key == "reduce":
        where[key] = rng.choice(("mean", "sum", "max", "min"))
    elif key == "op" and value in ("max", "min", "add", "mul"):
        where[key] = rng.choice(("max", "min"))
    elif key == "args" and isinstance(value, list) and len(value) > 1:
        del value[rng.randrange(len(value))]
    elif isinstance(value, dict) and value.keys() & {"op", "log_density", "expect", "const"}:
        alike = [other for _, other in found if isinstance(other, dict) and other.keys() == value.keys()]
        constant = {"const": rng.choice(CONSTANTS)}
        where[key] = rng.choice(
            [
                copy.deepcopy(rng.choice(alike)),
                {"op": "mul", "args": [constant, value]},
                {"op": rng.choice(("max", "min", "add")), "args": [value, constant]},
                {"op": rng.choice(("log", "exp")), "args": [value]},
            ]
        )
