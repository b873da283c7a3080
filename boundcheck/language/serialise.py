"""Terms as JSON and back: nested objects of plain text and integers, no pickle and no eval.

Variables and plates are numbered in the order in which they are bound, so that equal terms have equal files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from boundcheck.errors import BadInput, FormulaError
from boundcheck.language.build import same
from boundcheck.language.laws import ROLES, DensityLaw, Law, MixtureLaw, ModelLaw, require_space
from boundcheck.language.numerals import LONGEST_NUMBER
from boundcheck.language.terms import (
    OBSERVED,
    Apply,
    Const,
    Expect,
    Integrate,
    LogDensity,
    Plate,
    Reduce,
    Space,
    Term,
    Var,
)

FORMAT = "boundcheck-term/1"
_OPS = {"add": None, "mul": None, "pow": 2, "log": 1, "exp": 1, "max": None, "min": None, "same": 2}
_REDUCTIONS = ("mean", "sum", "max", "min")

DEEPEST = 150
"""Levels of nesting of a term in a file; the formulas of the literature have about ten."""

_MALFORMED = (FormulaError, LookupError, TypeError, ValueError, AttributeError, ZeroDivisionError, RecursionError)


def to_json(term: Term) -> dict[str, Any]:
    """The term as a JSON-ready object that `from_json` turns back into an equal term.

    >>> from boundcheck.language import E, trace
    >>> term = trace(lambda m, x: E(m.encoder(x), lambda z: m.log_joint(x, z)))
    >>> from_json(to_json(term)) == term
    True
    """
    return {"format": FORMAT, "term": _Writer().term(term)}


def from_json(data: object) -> Term:
    """The term of a JSON object.

    Raises:
        BadInput: if the object is not a term of this format; the message names the place.
    """
    if not isinstance(data, dict) or data.get("format") != FORMAT or "term" not in data:
        raise BadInput("term", data, f"an object with format {FORMAT!r} and a term", "write it with to_json")
    try:
        term = _Reader().term(data["term"])
        stray = bool(term.free - {OBSERVED} or term.free_plates)
        hash(term)  # a term that is too deep to compare is of no use
    except _MALFORMED as error:
        raise BadInput("term", data["term"], "a nested term", f"write it with to_json ({error})") from None
    if stray:
        raise BadInput("term", data["term"], "no variables or copies outside their binder", "write it with to_json")
    return term


class _Writer:
    def __init__(self) -> None:
        self.vars: dict[Var, int] = {OBSERVED: 0}
        self.plates: dict[Plate, int] = {}
        self.bound = 0

    def bind(self, var: Var, law: Law | None = None) -> dict[str, Any]:
        # A sub-term that stands in two places binds the same variable twice: each time it gets a number of its own.
        self.bound += 1
        number = self.vars[var] = self.bound
        inherited = law.plates if law else ()
        for plate in var.plates:
            if plate not in inherited:
                self.plates[plate] = number
        plates = [[self.plates[plate], plate.size] for plate in var.plates]
        bounds = None if var.space.bounds is None else [str(bound) for bound in var.space.bounds]
        return {"var": number, "name": var.name, "space": var.space.name, "bounds": bounds, "plates": plates}

    def term(self, term: Term) -> Any:
        if isinstance(term, Const):
            return {"const": str(term.value)}
        if isinstance(term, Var):
            return {"use": self.vars[term]}
        if isinstance(term, Apply):
            return {"op": term.op, "args": [self.term(arg) for arg in term.args]}
        if isinstance(term, LogDensity):
            return {"log_density": self.law(term.law), "at": [self.term(point) for point in term.point]}
        if isinstance(term, Expect):
            law = self.law(term.law)
            return {"expect": law, "bind": self.bind(term.var, term.law), "body": self.term(term.body)}
        if isinstance(term, Integrate):
            return {"integrate": self.bind(term.var), "body": self.term(term.body)}
        assert isinstance(term, Reduce)
        return {"reduce": term.op, "plate": self.plates[term.plate], "body": self.term(term.body)}

    def law(self, law: Law) -> Any:
        if isinstance(law, ModelLaw):
            return {"role": law.role, "args": [self.term(arg) for arg in law.args]}
        if isinstance(law, DensityLaw):
            bind = self.bind(law.var)
            return {"density": self.term(law.log_density), "bind": bind, "rescale": law.rescale}
        assert isinstance(law, MixtureLaw)
        mixing = self.law(law.mixing)
        bind = self.bind(law.var)
        return {"mixture": self.law(law.component), "mixing": mixing, "bind": bind}


class _Reader:
    """Reads what the language could have built, and refuses anything else: files come from outside."""

    def __init__(self) -> None:
        self.vars: dict[int, Var] = {0: OBSERVED}
        self.plates: dict[int, Plate] = {}
        self.depth = 0

    @contextmanager
    def bind(self, data: dict[str, Any], space: Space | None = None, law: Law | None = None) -> Iterator[Var]:
        """The variable of a binder, in scope within; its plates are those of its law and, at most, one of its own."""
        inherited = law.plates if law else ()
        listed = _integers(data["plates"])
        own = {index: Plate(size) for index, size in listed if index not in self.plates and size >= 1}
        plates = tuple((self.plates | own)[index] for index, _ in listed)
        if plates != (*inherited, *own.values()) or len(own) > (law is not None):
            raise ValueError(f"the copies {data['plates']} are not those of the law and at most one set more")
        if [plate.size for plate in plates] != [size for _, size in listed]:
            raise ValueError(f"the copies {data['plates']} of another number before")
        number, name, lives = data["var"], data["name"], _space(data["space"], data["bounds"])
        if type(number) is not int or number in self.vars:
            raise ValueError(f"the variable number {number!r}, which is no integer or in use")
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"the variable name {name!r}")
        if space not in (None, lives):
            raise ValueError(f"a draw in the space {lives.name} from a law on {space.name if space else ''}")
        self.vars[number] = Var(name, lives, plates=plates)
        self.plates |= own
        try:
            yield self.vars[number]
        finally:
            del self.vars[number]
            for index in own:
                del self.plates[index]

    @contextmanager
    def deeper(self) -> Iterator[None]:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} levels")
        yield
        self.depth -= 1

    def term(self, data: dict[str, Any]) -> Term:
        with self.deeper():
            if not isinstance(data, dict):
                raise TypeError(f"{data!r} where an object is expected")
            if "const" in data:
                return Const(_rational(data["const"]))
            if "use" in data:
                return self.vars[data["use"]]
            if "op" in data:
                return self._apply(data["op"], tuple(self.term(arg) for arg in _listed(data["args"])))
            if "log_density" in data:
                law = self.law(data["log_density"], of_draws=False)
                return law.log_prob(*(self.term(point) for point in _listed(data["at"])))
            if "expect" in data:
                law = self.law(data["expect"])
                with self.bind(data["bind"], law.space, law) as var:
                    body = self.term(data["body"])
                    if (set(var.plates) - set(law.plates)) & body.free_plates:
                        raise ValueError(f"copies of {var.name} that are never reduced")
                    return Expect(law, var, body)
            if "integrate" in data:
                with self.bind(data["integrate"]) as var:
                    return Integrate(var, self.term(data["body"]))
            plate, body = self.plates[data["plate"]], self.term(data["body"])
            if data["reduce"] not in _REDUCTIONS or plate not in body.free_plates:
                raise ValueError(f"the reduction {data['reduce']!r} over copies that were never drawn")
            return Reduce(data["reduce"], plate, body)

    def _apply(self, op: str, args: tuple[Term, ...]) -> Term:
        arity = _OPS[op]
        if not args or (arity is not None and arity != len(args)):
            raise ValueError(f"{op} with {len(args)} arguments")
        if op == "same":
            return same(*args)
        if op == "pow" and not (isinstance(args[1], Const) and args[1].value):
            raise ValueError("an exponent that is zero or no constant")
        return Apply(op, args)

    def law(self, data: dict[str, Any], of_draws: bool = True) -> Law:
        with self.deeper():
            if "role" in data:
                return self._model_law(data["role"], tuple(self.term(arg) for arg in _listed(data["args"])), of_draws)
            if "density" in data:
                if not isinstance(data["rescale"], bool):
                    raise ValueError(f"rescale = {data['rescale']!r}")
                with self.bind(data["bind"]) as var:
                    return DensityLaw(var, self.term(data["density"]), data["rescale"])
            mixing = self.law(data["mixing"])
            with self.bind(data["bind"], mixing.space) as var:
                return MixtureLaw(mixing, var, self.law(data["mixture"]))

    def _model_law(self, role: str, args: tuple[Term, ...], of_draws: bool) -> Law:
        spaces = ROLES[role][0]
        if len(args) != len(spaces):
            raise ValueError(f"{role} with {len(args)} arguments")
        if role == "joint" and of_draws:
            raise ValueError("draws from the joint law")
        for arg, space in zip(args, spaces, strict=True):
            require_space(arg, space, "the argument of the", role)
        return ModelLaw(role, args)


def _listed(data: object) -> list[Any]:
    if not isinstance(data, list):
        raise TypeError(f"{data!r} where a list is expected")
    return data


def _integers(data: object) -> list[tuple[int, int]]:
    pairs = [tuple(_listed(pair)) for pair in _listed(data)]
    if any(len(pair) != 2 or any(type(entry) is not int for entry in pair) for pair in pairs):
        raise ValueError(f"the plates {data!r}")
    return pairs  # type: ignore[return-value]


def _rational(data: object) -> Fraction:
    if not isinstance(data, str) or len(data) > LONGEST_NUMBER or not re.fullmatch(r"-?[0-9]+(/[0-9]+)?", data):
        raise ValueError(f"the number {data!r}")
    return Fraction(data)


def _space(name: object, bounds: object) -> Space:
    if not isinstance(name, str):
        raise TypeError(f"the space {name!r}")
    if bounds is None:
        return Space(name)
    low, high = (_rational(bound) for bound in _listed(bounds))
    if low >= high:
        raise ValueError(f"the bounds {bounds!r}")
    return Space(name, (low, high))
