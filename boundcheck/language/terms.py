"""Terms: what an objective is, as immutable data.

A formula of a paper is a term: constants, variables, applications of an operation, log-densities of laws,
expectations `E_{v ~ law} body`, sums or integrals over a space, and reductions (mean, sum, max, min) over the copies
of a replicated variable. Terms compare by structure *up to the names of bound variables*, so that two people who
write the same objective with other letters wrote equal terms. Nothing here knows how to compute a value: evaluators
walk a term and choose nodes and numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, NoReturn

from boundcheck.errors import FormulaError
from boundcheck.language.numerals import Number, as_fraction

if TYPE_CHECKING:
    from boundcheck.language.laws import Law

_serial = count(1)


@dataclass(frozen=True)
class Space:
    """Where a variable lives: `x` (observations), `z` (latents), `x~` (corrupted inputs), or a space of the user's own.

    `bounds` are given for a space that is an interval per coordinate and is not described by the model.

    >>> Space("z").name
    'z'
    """

    name: str
    bounds: tuple[Fraction, Fraction] | None = None


X = Space("x")
Z = Space("z")
CORRUPTED = Space("x~")


@dataclass(frozen=True)
class Plate:
    """K independent copies of a draw. Two plates are the same only if they come from the same `copies(k)` binder."""

    size: int
    serial: int = field(default_factory=lambda: next(_serial))


class Term:
    """A real-valued expression (or a point of a space); immutable, hashable, equal up to names of bound variables.

    Python's operators build larger terms. A term has no truth value and no order: `<=` between objectives is a
    `boundcheck.Claim`, and a choice between numbers is written with `maximum` or `minimum`.
    """

    @property
    def children(self) -> tuple[Term, ...]:
        """Sub-terms that are evaluated in the same scope, laws' arguments included."""
        return ()

    @cached_property
    def free(self) -> frozenset[Var]:
        """Variables that occur in the term and are bound outside it."""
        return frozenset().union(*(child.free for child in self.children))

    @cached_property
    def free_together(self) -> frozenset[frozenset[Var]]:
        """The free variables of the term and of each of its sub-terms: the axes of the arrays that it needs."""
        return frozenset([self.free]).union(*(child.free_together for child in self.children))

    @cached_property
    def free_plates(self) -> frozenset[Plate]:
        """Plates whose copies the term still ranges over, that is, that no reduction inside it has consumed."""
        return frozenset().union(*(child.free_plates for child in self.children))

    @cached_property
    def _key(self) -> tuple:
        from boundcheck.language.binding import canonical

        return canonical(self, {})

    @cached_property
    def _hash(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Term):
            return NotImplemented
        return self is other or (self._hash == other._hash and self._key == other._key)

    def __hash__(self) -> int:
        return self._hash

    def __copy__(self) -> Term:
        return self

    def __deepcopy__(self, memo: object) -> Term:
        return self

    def __reduce__(self) -> tuple[object, ...]:
        # Serial numbers and hashes mean nothing in another process, where the same numbers are other variables.
        from boundcheck.language.serialise import from_json, to_json

        if self.free - {OBSERVED} or self.free_plates:
            raise TypeError(f"the term {self.text} has free variables: only a whole formula goes to another process")
        return from_json, (to_json(self),)

    def __add__(self, other: Term | Number) -> Term:
        return add(self, other)

    def __radd__(self, other: Term | Number) -> Term:
        return add(other, self)

    def __sub__(self, other: Term | Number) -> Term:
        return add(self, multiply(-1, other))

    def __rsub__(self, other: Term | Number) -> Term:
        return add(other, multiply(-1, self))

    def __neg__(self) -> Term:
        return multiply(-1, self)

    def __pos__(self) -> Term:
        return self

    def __mul__(self, other: Term | Number) -> Term:
        return multiply(self, other)

    def __rmul__(self, other: Term | Number) -> Term:
        return multiply(other, self)

    def __truediv__(self, other: Term | Number) -> Term:
        return multiply(self, power(other, -1))

    def __rtruediv__(self, other: Term | Number) -> Term:
        return multiply(other, power(self, -1))

    def __pow__(self, exponent: Number) -> Term:
        return power(self, exponent)

    def __bool__(self) -> bool:
        raise FormulaError(
            f"the term {self.text} has no truth value while the formula is built; "
            "write a choice between numbers with maximum(a, b) or minimum(a, b)"
        )

    def _no_order(self, other: object) -> NoReturn:
        raise FormulaError("terms have no order; state an inequality as boundcheck.Claim(lhs, '<=', rhs)")

    __lt__ = __le__ = __gt__ = __ge__ = _no_order

    def __iter__(self) -> Iterator[Term]:
        raise FormulaError(f"the term {self.text} cannot be unpacked or iterated over")

    @property
    def text(self) -> str:
        """The term as one line of plain text."""
        from boundcheck.language.printing import to_text

        return to_text(self)

    @property
    def latex(self) -> str:
        """The term as LaTeX, without dollar signs."""
        from boundcheck.language.printing import to_latex

        return to_latex(self)

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex}$"

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, eq=False, repr=False)
class Const(Term):
    """A rational constant."""

    value: Fraction


@dataclass(frozen=True, eq=False, repr=False)
class Var(Term):
    """A variable: the observed x, or one bound by an expectation, integral or law. `plates` lists its copies."""

    name: str
    space: Space
    serial: int = field(default_factory=lambda: next(_serial))
    plates: tuple[Plate, ...] = ()

    @cached_property
    def free(self) -> frozenset[Var]:
        return frozenset([self])

    @cached_property
    def free_plates(self) -> frozenset[Plate]:
        return frozenset(self.plates)


@dataclass(frozen=True, eq=False, repr=False)
class Apply(Term):
    """An operation on numbers: add, mul, pow (constant exponent), log, exp, max, min, or same (1 at equal points)."""

    op: str
    args: tuple[Term, ...]

    @property
    def children(self) -> tuple[Term, ...]:
        return self.args


@dataclass(frozen=True, eq=False, repr=False)
class LogDensity(Term):
    """log of a law's density (or probability) at a point; `point` has two entries for the joint law, else one."""

    law: Law
    point: tuple[Term, ...]

    @property
    def children(self) -> tuple[Term, ...]:
        return (*self.law.children, *self.point)


class Binder(Term):
    """A term that binds `var` in `body`: an expectation or an integral."""

    var: Var
    body: Term

    @cached_property
    def free(self) -> frozenset[Var]:
        outer = frozenset().union(*(child.free for child in self.outer_children))
        return outer | (self.body.free - {self.var})

    @cached_property
    def free_plates(self) -> frozenset[Plate]:
        outer = frozenset().union(*(child.free_plates for child in self.outer_children))
        return (outer | self.body.free_plates) - self.consumed_plates

    @property
    def outer_children(self) -> tuple[Term, ...]:
        """Sub-terms outside the scope of `var`."""
        return ()

    @property
    def consumed_plates(self) -> frozenset[Plate]:
        """Plates that are bound, or completely reduced, inside this term."""
        return frozenset()

    @property
    def children(self) -> tuple[Term, ...]:
        return (*self.outer_children, self.body)


@dataclass(frozen=True, eq=False, repr=False)
class Expect(Binder):
    """E_{var ~ law} body. A replicated `var` stands for all its copies, over which the body must reduce."""

    law: Law
    var: Var
    body: Term

    @cached_property
    def log_density(self) -> LogDensity:
        """The log-density of the draw's own law, at the draw."""
        return LogDensity(self.law, (self.var,))

    @property
    def outer_children(self) -> tuple[Term, ...]:
        return self.law.children

    @property
    def consumed_plates(self) -> frozenset[Plate]:
        # The body has reduced these copies, so the expectation is over all of them at once.
        return frozenset(self.var.plates) - self.body.free_plates


@dataclass(frozen=True, eq=False, repr=False)
class Integrate(Binder):
    """The sum (discrete) or integral (continuous) of `body` over all points `var` of a space."""

    var: Var
    body: Term

    @property
    def space(self) -> Space:
        return self.var.space


@dataclass(frozen=True, eq=False, repr=False)
class Reduce(Term):
    """mean, sum, max or min of `body` over the copies of a plate."""

    op: str
    plate: Plate
    body: Term

    @property
    def children(self) -> tuple[Term, ...]:
        return (self.body,)

    @cached_property
    def free_plates(self) -> frozenset[Plate]:
        return self.body.free_plates - {self.plate}


OBSERVED = Var("x", X, serial=0)
"""The observation that every formula is a function of."""

ZERO = Const(Fraction(0))
ONE = Const(Fraction(1))


# --- walks -----------------------------------------------------------------------------------------------------------


def walk(term: Term) -> Iterator[Term]:
    """The term and all its sub-terms, outermost first."""
    yield term
    for child in term.children:
        yield from walk(child)


# --- constructors that keep terms small -----------------------------------------------------------------------------


def as_term(value: Term | Number) -> Term:
    """A term as it is; a number as a constant."""
    return value if isinstance(value, Term) else Const(as_fraction(value))


def _gather(op: str, unit: Fraction, args: tuple[Term | Number, ...]) -> tuple[Fraction, list[Term]]:
    """Flatten nested applications of `op` and fold its constants into one."""
    constant, rest = unit, []
    for arg in args:
        term = as_term(arg)
        parts = term.args if isinstance(term, Apply) and term.op == op else (term,)
        for part in parts:
            if isinstance(part, Const):
                constant = constant + part.value if op == "add" else constant * part.value
            else:
                rest.append(part)
    return constant, rest


def add(*args: Term | Number) -> Term:
    """The sum of terms; constants are folded."""
    constant, rest = _gather("add", Fraction(0), args)
    if constant or not rest:
        rest.append(Const(constant))
    return rest[0] if len(rest) == 1 else Apply("add", tuple(rest))


def multiply(*args: Term | Number) -> Term:
    """The product of terms; constants are folded, and 0 times anything is 0 (the convention 0 log 0 = 0)."""
    constant, rest = _gather("mul", Fraction(1), args)
    if constant == 0 or not rest:
        return Const(constant)
    if constant != 1:
        if len(rest) == 1 and isinstance(rest[0], Apply) and rest[0].op == "add":
            return add(*(multiply(constant, part) for part in rest[0].args))
        rest.insert(0, Const(constant))
    return rest[0] if len(rest) == 1 else Apply("mul", tuple(rest))


def power(base: Term | Number, exponent: Number) -> Term:
    """base ** exponent with a constant exponent."""
    if isinstance(exponent, Term):
        if not isinstance(exponent, Const):
            raise FormulaError(f"the exponent {exponent.text} is not a constant; write exp(b * log(a)) instead")
        exponent = exponent.value
    base, exponent = as_term(base), as_fraction(exponent)
    if exponent == 1:
        return base
    if exponent == 0:
        return ONE
    if isinstance(base, Const) and exponent.denominator == 1:
        if base.value == 0 and exponent < 0:
            raise FormulaError("a formula divides by the constant 0")
        return Const(base.value**exponent.numerator)
    return Apply("pow", (base, Const(exponent)))
