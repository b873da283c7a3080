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
from boundcheck.language.binding import substitute
from boundcheck.language.laws import DensityLaw, Law, MixtureLaw, ModelLaw, expand, is_one_of_its_copies
from boundcheck.language.positions import Shape, bias_shape, positions
from boundcheck.language.terms import (
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


@dataclass(frozen=True, eq=False, repr=False)
class Averaged(Law):
    """Its "log-density" at a draw v of `source` is E_{v ~ source} log target(v): the same for all v.

    It takes the place of log target(v) where v stands linearly, so that a Kullback-Leibler divergence that has a
    closed form need not be sampled. An evaluator that does not know the closed form reads log target(v) instead.
    """

    target: ModelLaw
    source: ModelLaw

    @property
    def space(self) -> Space:  # type: ignore[override]
        return self.target.space

    @property
    def children(self) -> tuple[Term, ...]:
        return (*self.target.children, *self.source.children)

    def canonical(self, scope: dict[int, tuple]) -> tuple:
        return ("averaged", self.target.canonical(scope), self.source.canonical(scope))


def plan(term: Term, inner: int, closed_form_kl: bool = False) -> Plan:
    """The plan of a term, with `inner` draws for each expectation that stands inside a nonlinear function.

    With `closed_form_kl`, log-densities of a draw that stand linearly are marked to be averaged in closed form.

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
    if closed_form_kl:
        lowered = _averaged(lowered, laws)
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


# --- closed forms ---


def _averaged(term: Term, laws: dict[Var, ModelLaw]) -> Term:
    """The term with log-densities averaged over the draw that they are taken at, wherever it depends on it linearly."""
    if isinstance(term, Apply) and term.op == "add":
        return Apply("add", tuple(_averaged(arg, laws) for arg in term.args))
    if isinstance(term, Apply) and term.op == "mul" and sum(not isinstance(arg, Const) for arg in term.args) == 1:
        return Apply("mul", tuple(_averaged(arg, laws) for arg in term.args))
    if isinstance(term, Reduce) and term.op in ("mean", "sum"):
        return Reduce(term.op, term.plate, _averaged(term.body, laws))
    if not isinstance(term, LogDensity) or not isinstance(term.law, ModelLaw):
        return term
    if term.law.role == "joint":
        x, z = term.point
        prior, likelihood = LogDensity(ModelLaw("prior"), (z,)), LogDensity(ModelLaw("likelihood", (z,)), (x,))
        return Apply("add", (_averaged(prior, laws), _averaged(likelihood, laws)))
    (point,) = term.point
    # What the target depends on must not itself depend on the draw: then it may be held fixed while averaging.
    if not isinstance(point, Var) or point not in laws or point in _ancestors(term.law, laws):
        return term
    return LogDensity(Averaged(term.law, laws[point]), term.point)


def _ancestors(law: ModelLaw, laws: dict[Var, ModelLaw]) -> set[Var]:
    found: set[Var] = set()
    for arg in law.args:
        if isinstance(arg, Var) and arg not in found:
            found.add(arg)
            if arg in laws:
                found |= _ancestors(laws[arg], laws)
    return found
