"""Terms as JSON and back: nested objects of plain text and integers, no pickle and no eval.

Variables and plates are numbered in the order in which they are bound, so that equal terms have equal files.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from boundcheck.errors import BadInput
from boundcheck.language.laws import ROLES, DensityLaw, Law, MixtureLaw, ModelLaw
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
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError, RecursionError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput("term", data["term"], "a nested term", f"write it with to_json ({error!r})") from None
    stray = term.free - {OBSERVED}
    if stray or term.free_plates:
        raise BadInput("term", data["term"], "no variables or copies outside their binder", "write it with to_json")
    return term


class _Writer:
    def __init__(self) -> None:
        self.vars: dict[Var, int] = {OBSERVED: 0}
        self.plates: dict[Plate, int] = {}

    def bind(self, var: Var) -> dict[str, Any]:
        number = self.vars[var] = len(self.vars)
        plates = []
        for plate in var.plates:
            index = self.plates.setdefault(plate, len(self.plates))
            plates.append([index, plate.size])
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
            return {"expect": law, "bind": self.bind(term.var), "body": self.term(term.body)}
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
    def __init__(self) -> None:
        self.vars: dict[int, Var] = {0: OBSERVED}
        self.plates: dict[int, Plate] = {}

    def bind(self, data: dict[str, Any]) -> Var:
        plates = []
        for index, size in data["plates"]:
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"a plate of size {size!r}")
            plates.append(self.plates.setdefault(index, Plate(size)))
        bounds = data["bounds"]
        space = Space(str(data["space"]), None if bounds is None else (Fraction(bounds[0]), Fraction(bounds[1])))
        var = self.vars[data["var"]] = Var(str(data["name"]), space, plates=tuple(plates))
        return var

    def term(self, data: dict[str, Any]) -> Term:
        if "const" in data:
            return Const(Fraction(data["const"]))
        if "use" in data:
            return self.vars[data["use"]]
        if "op" in data:
            args = tuple(self.term(arg) for arg in data["args"])
            arity = _OPS[data["op"]]
            if not args or (arity is not None and arity != len(args)):
                raise ValueError(f"{data['op']} with {len(args)} arguments")
            if data["op"] == "pow" and not isinstance(args[1], Const):
                raise ValueError("an exponent that is not a constant")
            return Apply(data["op"], args)
        if "log_density" in data:
            law = self.law(data["log_density"])
            if len(data["at"]) != len(law.point_spaces):
                raise ValueError(f"a point of {len(data['at'])} entries for {law}")
            return LogDensity(law, tuple(self.term(point) for point in data["at"]))
        if "expect" in data:
            law = self.law(data["expect"])
            var = self.bind(data["bind"])
            return Expect(law, var, self.term(data["body"]))
        if "integrate" in data:
            var = self.bind(data["integrate"])
            return Integrate(var, self.term(data["body"]))
        if data["reduce"] not in _REDUCTIONS:
            raise ValueError(f"the reduction {data['reduce']!r}")
        plate = self.plates[data["plate"]]
        return Reduce(data["reduce"], plate, self.term(data["body"]))

    def law(self, data: dict[str, Any]) -> Law:
        if "role" in data:
            args = tuple(self.term(arg) for arg in data["args"])
            if len(args) != len(ROLES[data["role"]][0]):
                raise ValueError(f"{data['role']} with {len(args)} arguments")
            return ModelLaw(data["role"], args)
        if "density" in data:
            var = self.bind(data["bind"])
            return DensityLaw(var, self.term(data["density"]), bool(data["rescale"]))
        mixing = self.law(data["mixing"])
        var = self.bind(data["bind"])
        return MixtureLaw(mixing, var, self.law(data["mixture"]))
