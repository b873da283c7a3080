"""Terms as quadratics: the walk of the closed-form evaluator.

Each term becomes a quadratic in its own free variables, once, for all observations. What does not stay quadratic is
refused by name. Terms built from exponentials are only ever seen through their logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, CannotCompute
from boundcheck.evaluators.quadratic import HALF, Affine, Array, Block, Gaussian, Numbers, Quadratic
from boundcheck.language.laws import DensityLaw, Law, MixtureLaw, ModelLaw, expand
from boundcheck.language.positions import is_exponential, nonnegative
from boundcheck.language.terms import (
    OBSERVED,
    Apply,
    Const,
    Expect,
    Integrate,
    LogDensity,
    Plate,
    Reduce,
    Term,
    Var,
    walk,
)
from boundcheck.models.linear_gaussian import LinearGaussianModel

NAME = "closed form"


class QuadraticWalk:
    """One evaluation of terms on a model, with one kind of numbers, at a batch of observations."""

    def __init__(self, model: LinearGaussianModel, x: NDArray[np.float64], numbers: Numbers) -> None:
        self.model = model
        self.numbers = numbers
        self.x = Affine({}, numbers.array(x))
        self.pieces: dict[str, tuple[tuple[Array, ...], Array, Any]] = {}
        self.memo: dict[tuple[Any, ...], Any] = {}
        # Copies whose mean is only ever averaged again, so that one copy may stand for all.
        self.averaged: frozenset[Plate] = frozenset()

    def cannot(self, term: Term, reason: str) -> CannotCompute:
        return CannotCompute(NAME, term.text, reason)

    def _once(self, kind: str, term: Any, compute: Callable[[Any], Any]) -> Any:
        key = (kind, term, self.averaged)
        if key not in self.memo:
            self.memo[key] = compute(term)
        return self.memo[key]

    @contextmanager
    def _averaging(self, plates: frozenset[Plate]) -> Iterator[None]:
        saved, self.averaged = self.averaged, plates
        try:
            yield
        finally:
            self.averaged = saved

    # --- values ---

    def value(self, term: Term) -> Quadratic:
        """A term as a quadratic in its free variables."""
        return self._once("value", term, self._value)

    def number(self, term: Term, within: Term) -> Array:
        """A term without free variables, as a constant."""
        with self._averaging(frozenset()):
            value = self.value(term)
        if not value.is_number:
            names = ", ".join(sorted(var.name for var in term.free if var != OBSERVED))
            raise self.cannot(within, f"{term.text} depends on {names}, and this does not stay quadratic in {names}")
        return value.constant

    def _value(self, term: Term) -> Quadratic:
        numbers = self.numbers
        if isinstance(term, Const):
            return numbers.number(term.value)
        if isinstance(term, LogDensity):
            return self._log_density(term)
        if isinstance(term, Expect):
            if is_exponential(term.body):
                return self._exponential(term)
            with self._averaging(self.averaged | (frozenset(term.var.plates) & term.consumed_plates)):
                body = self.value(term.body)
            return self.numbers.expectation(body, term.var, self._law(term.law, term))
        if isinstance(term, Integrate):
            if is_exponential(term.body):
                return self._exponential(term)
            raise self.cannot(term, "only the integral of an exponential is finite over the whole space")
        if isinstance(term, Reduce):
            return self._reduce(term)
        if isinstance(term, Apply):
            return self._apply(term)
        return self._affine_value(term)

    def _apply(self, term: Apply) -> Quadratic:
        op, args = term.op, term.args
        if op == "add":
            return self.numbers.combine([(Fraction(1), self.value(arg)) for arg in args])
        if op == "mul":
            return self._multiply(term)
        if op == "log":
            return self.log_value(args[0])
        if op == "exp":
            return Quadratic(self.numbers.exp(self.number(args[0], term)), {})
        if op == "pow":
            exponent = args[1]
            assert isinstance(exponent, Const)
            if exponent.value == 2 and (scalar := self._scalar(args[0])) is not None:
                return self.numbers.combine([(Fraction(-2), self._minus_half_square(scalar))])
            return Quadratic(self.numbers.power(self.number(args[0], term), exponent.value), {})
        if op in ("max", "min"):
            values = [self.number(arg, term) for arg in args]
            result = values[0]
            for other in values[1:]:
                result = self.numbers.choose(op, result, other)
            return Quadratic(result, {})
        raise self.cannot(term, f"{op} has no meaning for continuous variables")

    def _multiply(self, term: Apply) -> Quadratic:
        factor = math.prod((arg.value for arg in term.args if isinstance(arg, Const)), start=Fraction(1))
        rest = [arg for arg in term.args if not isinstance(arg, Const)]
        if len(rest) == 1:
            return self.numbers.combine([(factor, self.value(rest[0]))])
        scalars = [self._scalar(arg) for arg in rest]
        if len(rest) == 2 and scalars[0] is not None and scalars[1] is not None:
            # a b = ((a + b)^2 - (a - b)^2) / 4, and a square is -2 times its block.
            plus, minus = scalars[0] + scalars[1], scalars[0] + self._scaled(scalars[1], Fraction(-1))
            half = factor * HALF
            return self.numbers.combine(
                [(-half, self._minus_half_square(plus)), (half, self._minus_half_square(minus))]
            )
        if all(nonnegative(arg) for arg in rest) and any(is_exponential(arg) for arg in rest):
            return self._exponential(term)
        result = self.numbers.constant(factor)
        for arg in rest:
            result = self.numbers.product(result, self.number(arg, term))
        return Quadratic(result, {})

    def _exponential(self, term: Term) -> Quadratic:
        """A term built from exponentials, as exp of its logarithm."""
        value = self.log_value(term)
        if not value.is_number:
            names = ", ".join(sorted(var.name for var in term.free if var != OBSERVED))
            raise self.cannot(term, f"it is the exponential of a quadratic in {names}")
        return Quadratic(self.numbers.exp(value.constant), {})

    def _reduce(self, term: Reduce) -> Quadratic:
        size = term.plate.size
        if size > 1 and (term.op not in ("mean", "sum") or term.plate not in self.averaged):
            raise self.cannot(term, f"a function of {size} copies that is not linear in them has no closed form")
        return self.numbers.combine([(Fraction(size if term.op == "sum" else 1), self.value(term.body))])

    # --- logarithms of terms that are not negative ---

    def log_value(self, term: Term) -> Quadratic:
        """The logarithm of a term as a quadratic in its free variables."""
        with self._averaging(frozenset()):
            return self._once("log", term, self._log_value)

    def _log_value(self, term: Term) -> Quadratic:
        numbers = self.numbers
        if isinstance(term, Expect) and nonnegative(term.body):
            body, density = self.log_value(term.body), self.value(term.log_density)
            if numbers.is_infinite(body.constant) or term.var not in term.body.free:
                return body
            weighted = numbers.combine([(Fraction(1), body), (Fraction(1), density)])
            return numbers.log_integral(weighted, term.var, self._dimension(term.var, term))
        if isinstance(term, Integrate) and nonnegative(term.body):
            return numbers.log_integral(self.log_value(term.body), term.var, self._dimension(term.var, term))
        if isinstance(term, Reduce) and term.plate.size == 1:
            return self.log_value(term.body)
        if isinstance(term, Reduce) and is_exponential(term):
            raise self.cannot(term, f"the logarithm of a mean over {term.plate.size} copies has no closed form")
        if isinstance(term, Apply):
            op, args = term.op, term.args
            if op == "exp":
                return self.value(args[0])
            if op == "mul" and all(nonnegative(arg) for arg in args):
                return numbers.combine([(Fraction(1), self.log_value(arg)) for arg in args])
            if op == "pow" and nonnegative(args[0]):
                exponent = args[1]
                assert isinstance(exponent, Const)
                return numbers.combine([(exponent.value, self.log_value(args[0]))])
        return Quadratic(self.numbers.log(self.number(term, term)), {})

    # --- laws ---

    def _log_density(self, term: LogDensity) -> Quadratic:
        law = term.law
        if isinstance(law, ModelLaw) and law.role == "joint":
            x, z = term.point
            prior, likelihood = ModelLaw("prior").log_prob(z), ModelLaw("likelihood", (z,)).log_prob(x)
            return self.numbers.combine([(Fraction(1), self.value(prior)), (Fraction(1), self.value(likelihood))])
        if isinstance(law, DensityLaw) and not law.rescale:
            return self.value(expand(term))
        (point,) = term.point
        gaussian, at = self._law(law, term), self._affine(point, term)
        self._require_fit(at.offset.shape[1], gaussian.mean.offset.shape[1], point, law)
        return self.numbers.density(gaussian, at)

    def _law(self, law: Law, term: Term) -> Gaussian:
        """A law as a normal law with an affine mean."""
        with self._averaging(frozenset()):
            return self._once("law", law, lambda each: self._gaussian(each, term))

    def _gaussian(self, law: Law, term: Term) -> Gaussian:
        numbers = self.numbers
        if isinstance(law, ModelLaw):
            matrices, offset, spread = self._pieces(law.role)
            mean = Affine({}, offset)
            for matrix, arg in zip(matrices, law.args, strict=True):
                given = self._affine(arg, term)
                self._require_fit(given.offset.shape[1], matrix.shape[1], arg, law)
                mean = mean + given.through(matrix)
            return Gaussian(mean, spread)
        if isinstance(law, MixtureLaw):
            mixing, component = self._law(law.mixing, term), self._law(law.component, term)
            if law.var not in component.mean.matrices:
                return component
            spread = numbers.compound(mixing.spread, component.mean.matrices[law.var], component.spread)
            return Gaussian(component.mean.put(law.var, mixing.mean), spread)
        assert isinstance(law, DensityLaw)
        log_density, dimension = self.value(law.log_density), self._dimension(law.var, term)
        improper = numbers.is_infinite(log_density.constant)
        completed = None if improper else numbers.proportional(log_density, law.var, dimension)
        if completed is None:
            what = "improper: the integral of its density is infinite"
            raise BadInput(f"the law {law}", what, "a density that falls off in every direction")
        if not law.rescale and not numbers.vanishes(numbers.log_integral(log_density, law.var, dimension)):
            what, remedy = "not of total mass 1", "write it with normalised(...) instead of density(...)"
            raise BadInput(f"the law {law}", what, "a density that integrates to 1", remedy)
        return completed[0]

    def _pieces(self, role: str) -> tuple[tuple[Array, ...], Array, Any]:
        """A law of the model in the numbers at hand."""
        if role not in self.pieces:
            law, numbers = self.model.law(role), self.numbers
            matrices = tuple(numbers.array(m) for m in law.matrices)
            self.pieces[role] = (matrices, numbers.array(law.offset[None, :]), numbers.spread(law))
        return self.pieces[role]

    # --- points, and points of one dimension as numbers ---

    def _dimension(self, var: Var, term: Term) -> int:
        if var.space.bounds is not None:
            raise self.cannot(term, f"{var.name} is bounded, and so not Gaussian")
        return self.model.dimension(var.space)

    def _require_fit(self, given: int, wanted: int, point: Term, law: Law) -> None:
        if given != wanted:
            what = f"{point.text} of dimension {given}"
            raise BadInput(f"the law {law} at", what, f"a point of dimension {wanted}", "with a corruption, encode x~")

    def _affine(self, point: Term, term: Term) -> Affine:
        """A point as an affine function of the variables: a variable, or a combination of variables."""
        numbers = self.numbers
        if isinstance(point, Var):
            size = self._dimension(point, term)
            if point == OBSERVED:
                return self.x
            return Affine({point: numbers.array(np.eye(size))}, numbers.array(np.zeros((1, size))))
        if isinstance(point, Apply) and point.op == "add":
            shift = sum((arg.value for arg in point.args if isinstance(arg, Const)), Fraction(0))
            parts = [self._affine(arg, term) for arg in point.args if not isinstance(arg, Const)]
            total = parts[0]
            for part in parts[1:]:
                self._require_fit(part.offset.shape[1], total.offset.shape[1], point, ModelLaw("prior"))
                total = total + part
            ones = numbers.array(np.ones((1, total.offset.shape[1])))
            return Affine(total.matrices, total.offset + numbers.scale(ones, shift))
        if isinstance(point, Apply) and point.op == "mul" and sum(not isinstance(a, Const) for a in point.args) == 1:
            factor = math.prod((arg.value for arg in point.args if isinstance(arg, Const)), start=Fraction(1))
            (rest,) = (arg for arg in point.args if not isinstance(arg, Const))
            return self._scaled(self._affine(rest, term), factor)
        raise self.cannot(term, f"{point.text} is not a variable, nor a combination of variables")

    def _scaled(self, affine: Affine, factor: Fraction) -> Affine:
        scale = self.numbers.scale
        return Affine({v: scale(m, factor) for v, m in affine.matrices.items()}, scale(affine.offset, factor))

    def _scalar(self, term: Term) -> Affine | None:
        """A term that is built from variables as numbers, such as z - 1, as an affine function; None for others."""
        leaves = [sub for sub in walk(term) if not isinstance(sub, Apply)]
        plain = all(isinstance(leaf, Var | Const) for leaf in leaves) and any(isinstance(leaf, Var) for leaf in leaves)
        if not plain or any(isinstance(sub, Apply) and sub.op not in ("add", "mul") for sub in walk(term)):
            return None
        affine = self._affine(term, term)
        if affine.offset.shape[1] != 1:
            raise self.cannot(term, f"it is a vector of dimension {affine.offset.shape[1]}, not a number")
        return affine

    def _minus_half_square(self, affine: Affine) -> Quadratic:
        return self.numbers.of_block(Block(affine, self.numbers.constant(Fraction(0))))

    def _affine_value(self, term: Term) -> Quadratic:
        """A number a as ((a + 1/2)^2 - (a - 1/2)^2) / 2."""
        affine = self._scalar(term)
        assert affine is not None
        half = self.numbers.array([[0.5]])
        plus, minus = Affine(affine.matrices, affine.offset + half), Affine(affine.matrices, affine.offset - half)
        squares = [(Fraction(-1), self._minus_half_square(plus)), (Fraction(1), self._minus_half_square(minus))]
        return self.numbers.combine(squares)


__all__ = ["NAME", "QuadraticWalk"]
