"""A term as a function of independent draws: what Monte Carlo does with each expectation.

An expectation in a linear position becomes one draw in each replicate: the mean over replicates does the rest, without
bias. One inside another function, such as log E[...], becomes a mean over `inner` draws of its own, and that plug-in
is biased in the direction that the function's shape tells (`bias_shape`). After that no binder is left, so evaluating
the term is ordinary arithmetic, and everything that reduces over copies can be streamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from boundcheck.errors import CannotCompute
from boundcheck.evaluators.values import Bias
from boundcheck.language.laws import DensityLaw, Law, MixtureLaw, ModelLaw, expand, is_one_of_its_copies
from boundcheck.language.positions import Shape, bias_shape, positions
from boundcheck.language.terms import (
    Apply,
    Expect,
    Integrate,
    LogDensity,
    Plate,
    Reduce,
    Term,
    Var,
    substitute,
)

EVALUATOR = "Monte Carlo"

_BIAS = {
    Shape.LINEAR: Bias.NONE,
    Shape.CONCAVE: Bias.LOW,
    Shape.CONVEX: Bias.HIGH,
    Shape.UNKNOWN: Bias.UNKNOWN,
}


@dataclass(frozen=True)
class Plan:
    """A term without binders, the law of each variable it draws, and the bias of its value's expectation."""

    term: Term
    laws: dict[Var, ModelLaw]
    bias: Bias
    source: Term

    @property
    def plates(self) -> list[Plate]:
        """The sets of copies, the expectations' own draws included, in the order of their making."""
        found = {plate for var in self.laws for plate in var.plates}
        return sorted(found, key=lambda plate: plate.serial)


def plan(term: Term, inner: int) -> Plan:
    """The plan of a term, with `inner` draws for each expectation that stands inside a nonlinear function.

    Raises:
        CannotCompute: an integral, a law that cannot be sampled, or copies of nothing.

    >>> from boundcheck.language import E, exp, log, trace
    >>> made = plan(trace(lambda m, x: log(E(m.encoder(x), lambda z: exp(m.log_joint(x, z))))), inner=8)
    >>> print(made.term, "|", made.bias.value)
    log mean_k p(x,z_k) | biased low
    """
    unrolled = _unroll(term)
    laws: dict[Var, ModelLaw] = {}
    lowered = _lower(unrolled, (), _linear(unrolled), inner, laws)
    return Plan(lowered, laws, _BIAS[bias_shape(term)], term)


def _cannot(term: Term | Law, reason: str) -> NoReturn:
    raise CannotCompute(EVALUATOR, str(term), reason)


# --- laws built in the formula ---


def _unroll(term: Term) -> Term:
    """The term in the model's own laws alone: a draw from a mixture is two draws, its density a log of a mean."""
    if isinstance(term, Apply):
        return Apply(term.op, tuple(_unroll(arg) for arg in term.args))
    if isinstance(term, Reduce):
        return Reduce(term.op, term.plate, _unroll(term.body))
    if isinstance(term, Integrate):
        _cannot(
            term,
            f"the integral over {term.var.name} has no draws; for the log evidence use an objective that bounds it, "
            "such as iwae, or `boundcheck evaluate`",
        )
    if isinstance(term, LogDensity):
        if isinstance(term.law, ModelLaw):
            return term
        if isinstance(term.law, DensityLaw) and term.law.rescale:
            _cannot(term.law, "its normalising constant is an integral, which has no draws")
        if is_one_of_its_copies(term):
            _cannot(term, "its point is one of the copies that the law reduces over")
        return _unroll(expand(term))
    if isinstance(term, Expect):
        law = term.law
        if isinstance(law, MixtureLaw):
            # Each of the copies of a mixture's draw has a draw of its own from the mixing law.
            mixed = Var(law.var.name, law.var.space, plates=term.var.plates)
            component = law.component.substitute({law.var: mixed})
            return _unroll(Expect(law.mixing, mixed, Expect(component, term.var, term.body)))
        if not isinstance(law, ModelLaw):
            _cannot(law, "a law given by its density cannot be sampled")
        return Expect(law, term.var, _unroll(term.body))
    return term


# --- expectations as draws ---


def _linear(term: Term) -> set[int]:
    """The expectations of a term, by identity, on which it depends linearly wherever they stand."""
    found = positions(term)
    bent = {id(position.expectation) for position in found if position.shape is not Shape.LINEAR}
    return {id(position.expectation) for position in found} - bent


def _lower(term: Term, scope: tuple[Plate, ...], linear: set[int], inner: int, laws: dict[Var, ModelLaw]) -> Term:
    if isinstance(term, Apply):
        return Apply(term.op, tuple(_lower(arg, scope, linear, inner, laws) for arg in term.args))
    if isinstance(term, Reduce):
        within = scope if term.plate in scope else (*scope, term.plate)
        return Reduce(term.op, term.plate, _lower(term.body, within, linear, inner, laws))
    if isinstance(term, LogDensity):
        for point in (*term.law.children, *term.point):
            if not isinstance(point, Var):
                _cannot(term, f"{point.text} is not a variable")
        return term
    if not isinstance(term, Expect):
        return term
    law = term.law
    assert isinstance(law, ModelLaw)
    for arg in law.args:
        if not isinstance(arg, Var):
            _cannot(term, f"{arg.text} is not a variable")
    own = () if id(term) in linear else (Plate(inner),)
    # Inside copies, or inside another expectation's own draws, each of them has draws of its own.
    plates = tuple(dict.fromkeys((*scope, *term.var.plates, *law.plates, *own)))
    drawn = Var(term.var.name, term.var.space, plates=plates)
    laws[drawn] = law
    body = substitute(term.body, {term.var: drawn})
    lowered = _lower(body, (*scope, *own), _linear(body), inner, laws)
    for plate in own:
        lowered = Reduce("mean", plate, lowered)
    return lowered
