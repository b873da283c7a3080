"""Whether both sides of a claim can be about one model: what each of them asks of the spaces that a model has.

A model has states (or coordinates) of x, of z and, with a corruption, of x~. A formula may also integrate over a space
of its own, an interval; tables cannot do that. A black box may take tables alone, or be written for stated numbers of
states. Two sides that ask for different things have no model on which they could be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from boundcheck.errors import BadInput
from boundcheck.evaluators.black_box import BlackBox
from boundcheck.language.laws import DensityLaw, laws_in
from boundcheck.language.terms import Binder, Space, Term, walk

Side: TypeAlias = Term | BlackBox
"""One side of a claim."""

OF_A_MODEL = ("x", "z", "x~")


def require_common_models(lhs: Side, rhs: Side) -> None:
    """Refuse two sides that no model can have both of.

    Raises:
        BadInput: a space of the formula's own without bounds; one name for two intervals; an interval on one side and
            tables or stated numbers of states on the other; other numbers of states on either side.

    >>> from boundcheck.evaluators.black_box import black_box
    >>> two, three = (black_box(lambda m, x: 0.0, states={"z": n}, name=f"of_{n}") for n in (2, 3))
    >>> require_common_models(two, three)
    Traceback (most recent call last):
    ...
    boundcheck.errors.BadInput: the latent space z = 'of_2: 2 states; of_3: 3 states': expected the same space z on
    both sides of a claim
    """
    own: dict[str, Space] = {}
    for side in (lhs, rhs):
        for space in _own_spaces(side):
            if space.bounds is None:
                remedy = "give it bounds, Space(name, (low, high)), or use m.latent, m.data or m.corrupted"
                raise BadInput("the space", space.name, "a space that a model has: x, z or x~", remedy)
            other = own.setdefault(space.name, space)
            if other != space:
                found = f"{_interval(other)}; {_interval(space)}"
                raise BadInput(f"the space {space.name}", found, "one interval by that name", "rename one of them")
    boxes = [side for side in (lhs, rhs) if isinstance(side, BlackBox)]
    for box in boxes:
        if own and box.takes != "model":
            name, space = next(iter(own.items()))
            expected = f"no continuous space beside {box.name}, which takes tables of finitely many states"
            remedy = 'write the sum over m.latent, or declare black_box(takes="model")'
            raise BadInput(f"the space {name}", _interval(space), expected, remedy)
    if len(boxes) == 2:
        first, second = boxes
        for space in first.states.keys() & second.states.keys():
            if first.states[space] != second.states[space]:
                found = "; ".join(f"{box.name}: {box.states[space]} states" for box in boxes)
                what = f"the latent space {space}" if space == "z" else f"the space {space}"
                raise BadInput(what, found, f"the same space {space} on both sides of a claim")


def _own_spaces(side: Side) -> Iterator[Space]:
    if isinstance(side, BlackBox):
        return
    spaces = [term.var.space for term in walk(side) if isinstance(term, Binder)]
    spaces += [law.space for law in laws_in(side) if isinstance(law, DensityLaw)]
    for space in dict.fromkeys(spaces):
        if space.name not in OF_A_MODEL or space.bounds is not None:
            yield space


def _interval(space: Space) -> str:
    assert space.bounds is not None
    return f"[{space.bounds[0]}, {space.bounds[1]}]"


__all__ = ["Side", "require_common_models"]
