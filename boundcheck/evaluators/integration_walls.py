"""Laws with edges inside the logarithm of a mixture: between two edges each component is there, or it is not.

The density of a Uniform is zero outside its walls. Where it stands in a sum under a logarithm, the sum goes on
without it beyond them. So the line is cut at all such walls, and on each piece the sum has the components whose walls
contain the piece: their walls are then of no concern, and the integrand is analytic again inside the piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cmp_to_key
from typing import Any

from boundcheck.evaluators.integration_forms import Form, LogSum
from boundcheck.evaluators.integration_numbers import Unbounded, sign
from boundcheck.evaluators.integration_window import Interval

UNSURE = "Uniform, whose edges are not told apart at this precision"


def edges_inside_logarithms(forms: Sequence[Form]) -> list[Any]:
    """The walls of all components of mixtures in the forms, in increasing order."""
    found: list[Any] = []
    for end in _edges(forms):
        if not any(end is other or end == other for other in found):
            found.append(end)
    return sorted(found, key=cmp_to_key(lambda a, b: sign(a - b)))


def _edges(forms: Iterable[Form]) -> Iterable[Any]:
    for form in forms:
        for atom, _ in form.atoms:
            if isinstance(atom, LogSum):
                yield from (end for part in atom.forms for lower, upper, _ in part.walls for end in (lower, upper))
                yield from _edges(atom.forms)


def on_piece(form: Form, piece: Interval) -> Form | None:
    """The form on a piece between neighbouring edges, its mixtures without walls; None where it is -inf there.

    Raises:
        Unbounded: a density to a negative power that is zero on the piece.
    """
    total = replace(form, atoms=())
    for atom, k in form.atoms:
        if not isinstance(atom, LogSum):
            total = total + Form(atoms=((atom, k),))
            continue
        parts = [inside for part in atom.forms if (inside := _component(part, piece)) is not None]
        if not parts:
            if sign(k) > 0:
                return None
            raise Unbounded("Uniform, by whose density of 0 is divided")
        total = total + (parts[0].scaled(k) if len(parts) == 1 else Form(atoms=((LogSum(tuple(parts)), k),)))
    return total


def _component(part: Form, piece: Interval) -> Form | None:
    lower, upper = piece
    for low, high, k in part.walls:
        if lower is not None and upper is not None and lower >= low and upper <= high:
            continue
        if not ((upper is not None and upper <= low) or (lower is not None and lower >= high)):
            raise Unbounded(UNSURE)
        if sign(k) > 0:
            return None
        raise Unbounded("Uniform, by whose density of 0 is divided")
    return on_piece(replace(part, walls=()), piece)
