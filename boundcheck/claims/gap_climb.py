"""Climbing from a lower formula to an upper one, by rules that hold for every model.

A is an average: an expectation under a normalised law, or a mean over copies.

- power means: log A[exp(s f)] / s does not decrease in s, its value at s = 0 being A[f] (Jensen's inequality and
  Lyapunov's are two cases);
- copies: E log mean_k Y_k over K independent copies does not decrease in K (Burda et al. 2016, Theorem 1), and is at
  most log E[Y];
- series: 1 + v + ... + v^n/n! <= exp v for odd n;
- choice: a <= max(a, b), min(a, b) <= a, and log mean_k Y_k <= max_k log Y_k over copies;
- support: log A E_{v ~ q}[g(v)/q(v)] <= log sum_v g(v), with equality if q covers g; the same with further variables
  that are drawn from laws q_i and scored by normalised laws r_i (auxiliary models);
- averages, positive multiples and sums preserve order.

A rule that is not listed is not used, so a formula that holds for a subtler reason is simply not proved here. Where
zeros make both sides infinite the rules hold with -inf and +inf as values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

from boundcheck.language.averages import is_normalised
from boundcheck.language.binding import substitute
from boundcheck.language.build import exp, exp_series, log
from boundcheck.language.laws import Law, MixtureLaw, ModelLaw, expand
from boundcheck.language.positions import nonnegative
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
    add,
    as_term,
    multiply,
    walk,
)

_LONGEST_CLIMB = 5
_MOST_STEPS = 400


def acyclic(parents: dict[Term, frozenset[Var]]) -> bool:
    """True if the variables can be drawn one after the other, each after those that its law depends on."""
    left = dict(parents)
    while left:
        ready = [var for var, needs in left.items() if not any(need in left for need in needs)]
        if not ready:
            return False
        for var in ready:
            del left[var]
    return True


def always_at_most(lower: Term, upper: Term, covering: bool = False) -> bool:
    """True if `lower <= upper` for every model, by the rules above.

    Args:
        lower: the smaller formula.
        upper: the larger one.
        covering: whether q(z|x) > 0 wherever p(x,z) > 0 may be assumed.

    >>> from boundcheck.catalogue.objectives import elbo, iwae, log_evidence
    >>> from boundcheck.language import trace
    >>> always_at_most(trace(iwae, k=3), trace(log_evidence))
    True
    >>> always_at_most(trace(iwae, k=3), trace(elbo))
    False
    """
    starts = [lower]
    if covering:
        starts += _sums_as_expectations(lower, upper)
    goal = _Goal(upper)
    seen: set[Term] = set(starts)
    frontier = starts
    for _ in range(_LONGEST_CLIMB):
        reached = []
        for term in frontier:
            if goal.met_by(term):
                return True
            for above in _above(term, goal):
                if above not in seen and len(seen) < _MOST_STEPS:
                    seen.add(above)
                    reached.append(above)
        frontier = reached
    return any(goal.met_by(term) for term in frontier)


class _Goal:
    """The upper formula, and the parameters that a climb towards it may need: its orders and numbers of copies."""

    def __init__(self, upper: Term) -> None:
        self.upper = upper
        self.orders = {Fraction(1), *(order for order, _ in _power_means(upper))}
        self.copies = {sub.plate.size for sub in walk(upper) if isinstance(sub, Reduce)}

    def met_by(self, term: Term) -> bool:
        """True if the term is the goal, or below it by a rule that needs to see both."""
        if term == self.upper or _support(term, self.upper):
            return True
        return isinstance(self.upper, Apply) and self.upper.op == "max" and term in self.upper.args


def _above(term: Term, goal: _Goal) -> Iterator[Term]:
    """Formulas that are at least `term`, one rule away."""
    for order, make in _power_means(term):
        for higher in goal.orders:
            if higher > order:
                yield make(higher)
    single = _of_single_copies(term)
    if single is not None:
        yield single
    for k in goal.copies:
        more = _with_copies(term, k)
        if more is not None:
            yield more
    if isinstance(term, LogDensity) and isinstance(term.law, MixtureLaw):
        yield expand(term)
    exponent = _of_odd_series(term)
    if exponent is not None:
        yield exp(exponent)
    if _is_log(term):
        mean = term.children[0]
        if isinstance(mean, Reduce) and mean.op == "mean" and nonnegative(mean.body):
            yield Reduce("max", mean.plate, _logarithm(mean.body))
        for inside in _above(term.children[0], goal):
            yield _logarithm(inside)
    if isinstance(term, Expect) and is_normalised(term.law):
        for body in _above(term.body, goal):
            yield Expect(term.law, term.var, body)
    elif isinstance(term, Reduce) and term.op == "mean":
        for body in _above(term.body, goal):
            yield Reduce(term.op, term.plate, body)
    elif isinstance(term, Apply) and term.op == "mul":
        scale, core = _scaled(term)
        if scale > 0 and core is not term:
            for body in _above(core, goal):
                yield multiply(scale, body)
    elif isinstance(term, Apply) and term.op == "add":
        for i, part in enumerate(term.args):
            for body in _above(part, goal):
                yield add(*term.args[:i], body, *term.args[i + 1 :])
    elif isinstance(term, Apply) and term.op == "min":
        yield from term.args


def _scaled(term: Term) -> tuple[Fraction, Term]:
    if isinstance(term, Apply) and term.op == "mul" and len(term.args) == 2 and isinstance(term.args[0], Const):
        return term.args[0].value, term.args[1]
    return Fraction(1), term


def _logarithm(term: Term) -> Term:
    return term.args[0] if isinstance(term, Apply) and term.op == "exp" else log(term)


def _exponential(term: Term) -> Term:
    return term.args[0] if isinstance(term, Apply) and term.op == "log" else exp(term)


def _averages(term: Term) -> Iterator[tuple[Callable[[Term], Term], Term]]:
    """Every way to read a term as A[body]: the first one, two, ... averages in front, and what they average."""
    if isinstance(term, Expect) and is_normalised(term.law):
        law, var = term.law, term.var

        def wrap(body: Term) -> Term:
            return Expect(law, var, body)

    elif isinstance(term, Reduce) and term.op == "mean":
        plate = term.plate

        def wrap(body: Term) -> Term:
            return Reduce("mean", plate, body)

    else:
        return
    yield wrap, term.body
    for inner, body in _averages(term.body):
        yield (lambda b, inner=inner: wrap(inner(b))), body


def _power_means(term: Term) -> Iterator[tuple[Fraction, Callable[[Fraction], Term]]]:
    """Every way to read a term as log A[exp(s f)] / s, or as A[f] for s = 0: (s, how to make another s)."""

    def family(wrap: Callable[[Term], Term], f: Term) -> Callable[[Fraction], Term]:
        def make(order: Fraction) -> Term:
            if order == 0:
                return wrap(f)
            return multiply(1 / order, log(wrap(_exponential(multiply(order, f)))))

        return make

    for wrap, body in _averages(term):
        yield Fraction(0), family(wrap, body)
    scale, core = _scaled(term)
    if isinstance(core, Apply) and core.op == "log" and scale != 0:
        order = 1 / scale
        for wrap, body in _averages(core.args[0]):
            if nonnegative(body):
                f = multiply(scale, _logarithm(body))
                yield order, family(wrap, f)


def _copied_log_mean(term: Term) -> tuple[list[Expect], Reduce] | None:
    """The chain of expectations and the mean of E log mean_k Y_k over independent copies; None for other forms."""
    links: list[Expect] = []
    core = term
    while isinstance(core, Expect):
        links.append(core)
        core = core.body
    if not links or not (isinstance(core, Apply) and core.op == "log" and isinstance(core.args[0], Reduce)):
        return None
    reduction = core.args[0]
    plate = reduction.plate
    # Laws included: a copy whose law looks at the other copies is not independent of them.
    inner = [reduction.body, *(child for link in links for child in link.law.children)]
    nested = any(isinstance(sub, Reduce) and sub.plate == plate for each in inner for sub in walk(each))
    if reduction.op != "mean" or not nonnegative(reduction.body) or nested:
        return None
    if not all(link.var.plates == (plate,) and is_normalised(link.law) for link in links):
        return None
    return links, reduction


def _redrawn(links: list[Expect], plates: tuple[Plate, ...], body: Term, finish: Callable[[Term], Term]) -> Term:
    """The chain of expectations over `finish(body)`, its variables replaced by ones on the given plates."""
    fresh: dict[Var, Term] = {link.var: Var(link.var.name, link.var.space, plates=plates) for link in links}
    result = finish(substitute(body, fresh))
    for link in reversed(links):
        var = fresh[link.var]
        assert isinstance(var, Var)
        result = Expect(link.law.substitute(fresh), var, result)
    return result


def _of_single_copies(term: Term) -> Term | None:
    """log E[Y] for a term E log mean_k Y_k over independent copies; None if it has another form."""
    read = _copied_log_mean(term)
    if read is None:
        return None
    links, reduction = read
    result = _redrawn(links, (), reduction.body, lambda body: body)
    return None if result.free_plates else log(result)


def _with_copies(term: Term, k: int) -> Term | None:
    """E log mean_k Y_k over k copies for a term with fewer of them, or for a plain E[f] with Y = exp f."""
    read = _copied_log_mean(term)
    if read is not None:
        links, reduction = read
        if reduction.plate.size >= k:
            return None
        body = reduction.body
    elif isinstance(term, Expect) and not term.var.plates and is_normalised(term.law):
        links, body = [term], _exponential(term.body)
    else:
        return None
    plate = Plate(k)
    result = _redrawn(links, (plate,), body, lambda inner: log(Reduce("mean", plate, inner)))
    return result if result.free_plates <= term.free_plates else None  # the laws may look at copies drawn outside


def _of_odd_series(term: Term) -> Term | None:
    """v for a term 1 + v + ... + v^n/n! with odd n >= 3, or term - 1 for a sum (n = 1); None for other terms."""
    if not (isinstance(term, Apply) and term.op == "add"):
        return None
    powers = [sub for sub in walk(term) if isinstance(sub, Apply) and sub.op == "pow"]
    for power in powers:
        exponent = power.args[1]
        assert isinstance(exponent, Const)
        order = exponent.value
        if order.denominator == 1 and order % 2 == 1 and term == exp_series(power.args[0], int(order)):
            return power.args[0]
    constants = [part for part in term.args if isinstance(part, Const)]
    return add(term, -1) if constants == [as_term(1)] else None


def _support(lower: Term, upper: Term) -> bool:
    """c log sum_z g(z) >= c log A E_{v1 ~ q1} E_{v2 ~ q2}...[g(z) prod r_j(v_j) / prod q_i(v_i)] for c > 0.

    z is one of the v_i, and each other one has a normalised law r_j of its own, which may depend on z (an auxiliary
    model); g >= 0 depends on z alone, whatever A averages over.
    """
    (c, upper_core), (d, lower_core) = _scaled(upper), _scaled(lower)
    if c != d or c <= 0 or not (_is_log(upper_core) and _is_log(lower_core)):
        return False
    whole, core = upper_core.children[0], lower_core.children[0]
    links: list[Expect] = []
    while isinstance(core, Expect) and not core.var.plates and is_normalised(core.law):
        links.append(core)
        core = core.body
    if not (isinstance(core, Apply) and core.op == "exp" and isinstance(whole, Integrate)):
        return False
    if not (isinstance(whole.body, Apply) and whole.body.op == "exp"):
        return False
    return any(_rescored(core.args[0], whole, links, link.var) for link in links)


def _rescored(exponent: Term, whole: Integrate, links: list[Expect], z: Var) -> bool:
    """exponent = log g(z) + sum log r_j(v_j) - sum log q_i(v_i), with z among the v_i and not among the v_j."""
    if z.space != whole.space:
        return False
    left = list(_parts_of(exponent))
    assert isinstance(whole.body, Apply)
    for part in _parts_of(substitute(whole.body.args[0], {whole.var: z})):
        if part not in left:
            return False
        left.remove(part)
    laws = {link.var: link.law for link in links}
    divided: set[Term] = set()
    for part in left:
        negated = multiply(-1, part)
        if isinstance(part, LogDensity):
            continue
        if not isinstance(negated, LogDensity) or not isinstance(point := negated.point[0], Var):
            return False
        if point in divided or point not in laws or negated != LogDensity(laws[point], (point,)):
            return False
        divided.add(point)
    parents: dict[Term, frozenset[Var]] = {z: frozenset()}
    for part in left:
        if isinstance(part, LogDensity):
            if len(part.point) != 1 or part.point[0] in parents or not is_normalised(part.law):
                return False
            parents[part.point[0]] = frozenset().union(*(child.free for child in part.law.children))
    if divided != set(parents):
        return False
    # What is only averaged is drawn with the rest: laws may depend on it and it on them, but not in a circle.
    for link in links:
        if link.var not in divided:
            parents[link.var] = frozenset().union(*(child.free for child in link.law.children))
    return acyclic(parents)


def _parts_of(term: Term) -> tuple[Term, ...]:
    return term.args if isinstance(term, Apply) and term.op == "add" else (term,)


def _ratio(whole: Term, law: Law, var: Var) -> Term | None:
    """g(var) / q(var) for a sum over v of g(v) = exp(...), q being the density of `law`."""
    if not isinstance(whole, Integrate) or whole.space != var.space:
        return None
    if not (isinstance(whole.body, Apply) and whole.body.op == "exp"):
        return None
    log_g = substitute(whole.body.args[0], {whole.var: var})
    return exp(add(log_g, multiply(-1, LogDensity(law, (var,)))))


def _is_log(term: Term) -> bool:
    return isinstance(term, Apply) and term.op == "log"


def _sums_as_expectations(lower: Term, upper: Term) -> list[Term]:
    """Readings of log sum_v g(v) as log E_{v ~ q}[g/q], for the encoders q(z|x) that `upper` averages over."""
    if not _is_log(lower) or not isinstance(lower.children[0], Integrate):
        return []
    whole = lower.children[0]
    if whole.body != exp(LogDensity(ModelLaw("joint"), (OBSERVED, whole.var))):
        return []  # covering is only promised of the encoder at x and the joint
    found = []
    for sub in walk(upper):
        if isinstance(sub, Expect) and sub.law == ModelLaw("encoder", (OBSERVED,)):
            var = Var(sub.var.name, sub.var.space)
            ratio = _ratio(whole, sub.law, var)
            if ratio is not None:
                found.append(log(Expect(sub.law, var, ratio)))
    return found


__all__ = ["acyclic", "always_at_most", "is_normalised"]
