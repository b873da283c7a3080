"""In which position does each expectation stand: linear, inside a concave or a convex function, or neither?

Plugging a sample mean into f(E Y) gives an estimate of expectation E f(mean Y): equal to f(E Y) if f is affine, too
low if f is concave and too high if f is convex (Jensen). Monte Carlo needs this to tell the direction of its bias, so
the rules are those of disciplined convex programming, applied along the path from the term's root to the expectation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from boundcheck.language.laws import MixtureLaw, ModelLaw, expand, is_one_of_its_copies
from boundcheck.language.terms import Apply, Const, Expect, Integrate, LogDensity, Reduce, Term


class Shape(Enum):
    """The shape of the term as a function of one of its expectations."""

    LINEAR = "linear"
    CONCAVE = "concave"
    CONVEX = "convex"
    UNKNOWN = "unknown"

    @property
    def flipped(self) -> Shape:
        """The shape of the negated function."""
        return {Shape.CONCAVE: Shape.CONVEX, Shape.CONVEX: Shape.CONCAVE}.get(self, self)


@dataclass(frozen=True)
class Position:
    """Where an expectation stands: the outer function's shape, and its slope: +1, -1, or 0 if it has none."""

    expectation: Expect
    shape: Shape
    slope: int


def positions(term: Term) -> list[Position]:
    """The position of every expectation of a term, outermost first.

    >>> from boundcheck.language import E, exp, log, trace
    >>> term = trace(lambda m, x: log(E(m.encoder(x), lambda z: exp(m.log_joint(x, z)))))
    >>> [position.shape.value for position in positions(term)]
    ['concave']
    """
    found: list[Position] = []
    _descend(term, Shape.LINEAR, 1, found)
    return found


def bias_shape(term: Term) -> Shape:
    """The shape common to all sample means that stand for expectations: LINEAR means an unbiased estimate.

    CONCAVE: the estimate is biased low. CONVEX: biased high. UNKNOWN: nothing can be said.
    """
    shape = Shape.LINEAR
    for position in positions(term):
        if shape is Shape.LINEAR:
            shape = position.shape
        elif position.shape not in (Shape.LINEAR, shape):
            return Shape.UNKNOWN
    return shape


def nonnegative(term: Term) -> bool:
    """True if the term cannot be negative, by its form alone."""
    if isinstance(term, Const):
        return term.value >= 0
    if isinstance(term, Expect | Integrate | Reduce):
        return nonnegative(term.body)
    if isinstance(term, Apply):
        if term.op in ("exp", "same"):
            return True
        if term.op in ("add", "mul", "min"):
            return all(nonnegative(arg) for arg in term.args)
        if term.op == "max":
            return any(nonnegative(arg) for arg in term.args)
        if term.op == "pow":
            exponent = term.args[1]
            even = isinstance(exponent, Const) and exponent.value.denominator == 1 and exponent.value % 2 == 0
            return even or nonnegative(term.args[0])
    return False


def is_exponential(term: Term) -> bool:
    """True if the term is built from exponentials, so that it is safer computed as exp of its logarithm."""
    if isinstance(term, Expect | Integrate | Reduce):
        return is_exponential(term.body)
    if not isinstance(term, Apply):
        return False
    if term.op == "pow":
        return is_exponential(term.args[0])
    if term.op == "mul":
        return all(nonnegative(arg) for arg in term.args) and any(is_exponential(arg) for arg in term.args)
    return term.op == "exp"


def has_expectation(term: Term) -> bool:
    """True if a sample mean would stand somewhere in the term."""
    if isinstance(term, Expect):
        return True
    return any(has_expectation(child) for child in term.children)


def _compose(shape: Shape, slope: int, inner: Shape, inner_slope: int) -> tuple[Shape, int]:
    """Shape and slope of f(g(.)) from those of the outer f and the inner g."""
    new_slope = slope * inner_slope
    if inner is Shape.LINEAR:
        return shape, new_slope
    if shape is Shape.LINEAR:
        if slope == 0:
            return Shape.UNKNOWN, 0
        return (inner if slope > 0 else inner.flipped), new_slope
    if (slope > 0 and shape is inner) or (slope < 0 and shape is inner.flipped):
        return shape, new_slope
    return Shape.UNKNOWN, new_slope


def _descend(term: Term, shape: Shape, slope: int, found: list[Position]) -> None:
    if isinstance(term, Expect) and isinstance(term.law, MixtureLaw):
        # A draw from a mixture is a draw from the mixing law and then one from its component.
        law = term.law
        nested = Expect(law.mixing, law.var, Expect(law.component, term.var, term.body))
        _descend(nested, shape, slope, found)
    elif isinstance(term, Expect):
        found.append(Position(term, shape, slope))
        for child in term.outer_children:  # a law that itself depends on an expectation: no rule for it
            _descend(child, Shape.UNKNOWN, 0, found)
        _descend(term.body, shape, slope, found)
    elif isinstance(term, Integrate):
        _descend(term.body, shape, slope, found)
    elif isinstance(term, Reduce):
        inner = {"max": Shape.CONVEX, "min": Shape.CONCAVE}.get(term.op, Shape.LINEAR)
        _descend(term.body, *_compose(shape, slope, inner, 1), found)
    elif isinstance(term, LogDensity):
        _descend_law(term, shape, slope, found)
    elif isinstance(term, Apply):
        for i, arg in enumerate(term.args):
            _descend(arg, *_compose(shape, slope, *_argument(term, i)), found)


def _descend_law(term: LogDensity, shape: Shape, slope: int, found: list[Position]) -> None:
    if isinstance(term.law, ModelLaw) or is_one_of_its_copies(term):
        for child in term.children:
            _descend(child, Shape.UNKNOWN, 0, found)
    else:
        _descend(expand(term), shape, slope, found)


def _argument(term: Apply, i: int) -> tuple[Shape, int]:
    """Shape and slope of an operation as a function of its i-th argument."""
    if term.op == "add":
        return Shape.LINEAR, 1
    if term.op == "log":
        return Shape.CONCAVE, 1
    if term.op == "exp":
        return Shape.CONVEX, 1
    if term.op == "max":
        return Shape.CONVEX, 1
    if term.op == "min":
        return Shape.CONCAVE, 1
    if term.op == "mul":
        others = [arg for j, arg in enumerate(term.args) if j != i]
        if any(has_expectation(other) for other in others):
            return Shape.UNKNOWN, 0  # two random factors: their estimates may be dependent
        sign = 1
        for other in others:
            if isinstance(other, Const):
                sign *= 1 if other.value > 0 else -1
            elif not nonnegative(other):
                sign = 0
        return Shape.LINEAR, sign
    if term.op == "pow" and i == 0 and nonnegative(term.args[0]):
        exponent = term.args[1]
        assert isinstance(exponent, Const)
        if exponent.value < 0:
            return Shape.CONVEX, -1
        return (Shape.CONVEX if exponent.value > 1 else Shape.CONCAVE), 1
    if term.op == "pow" and i == 0:
        exponent = term.args[1]
        assert isinstance(exponent, Const)
        if exponent.value.denominator == 1 and exponent.value > 0 and exponent.value % 2 == 0:
            return Shape.CONVEX, 0
    return Shape.UNKNOWN, 0
