"""Rewriting a formula before quadrature: drop what integrates to one, and replace K copies by one.

An expectation over independent copies would take K axes. Two identities make them one. Linear reductions need one
copy: E mean_k f(z_k) = E f(z). And for the logarithm of a sum of positive terms a_k,

    log S = integral over u of ( exp(-e^u) - exp(-e^u S) ),

so with independent, identically distributed a_k, whose survival D(u) = E[1 - exp(-e^u a)] is an ordinary expectation,

    E log(b + sum_k a_k) = integral over u of ( exp(-e^u) - exp(-e^u b) (1 - D(u))^K ).

It holds for every K: IWAE_5000 costs as much as IWAE_2, one dimension more than the evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from boundcheck.errors import CannotCompute
from boundcheck.language.binding import substitute
from boundcheck.language.laws import DensityLaw, Law, MixtureLaw, ModelLaw, exp, expand
from boundcheck.language.positions import nonnegative
from boundcheck.language.terms import (
    Apply,
    Binder,
    Const,
    Expect,
    Integrate,
    LogDensity,
    Plate,
    Reduce,
    Space,
    Term,
    Var,
    add,
    multiply,
)

NAME = "quadrature evaluator"
LEVEL = Space("u")


@dataclass(frozen=True, eq=False, repr=False)
class LogOfCopies(Binder):
    """E log(exp(also) + sum of K copies), with `body` the survival D(u) of one copy; `also` may be missing."""

    var: Var
    body: Term
    also: Term | None
    size: int
    typical: Term
    """log a at one copy, whose own variables are `members`: where to look for the mass."""
    members: tuple[tuple[Law, Var], ...]

    @property
    def outer_children(self) -> tuple[Term, ...]:
        return () if self.also is None else (self.also,)


Link = tuple[Law, Var]


def simplify(term: Term) -> Term:
    """The term with copies and mixtures resolved, and with no variable integrated that its body does not need."""
    if isinstance(term, Expect):
        return _expectation(term)
    if isinstance(term, Integrate):
        return Integrate(term.var, simplify(term.body))
    if isinstance(term, Apply):
        return Apply(term.op, tuple(simplify(arg) for arg in term.args))
    if isinstance(term, LogDensity) and not isinstance(term.law, ModelLaw):
        return simplify(expand(term))
    if isinstance(term, Reduce):
        return Reduce(term.op, term.plate, simplify(term.body))
    return term


def _expectation(term: Expect) -> Term:
    """Take apart E_{v1} E_{v2} ... (a + b + ...), addend by addend."""
    links: list[Link] = []
    core: Term = term
    while isinstance(core, Expect):
        if isinstance(core.law, MixtureLaw):
            mixing = core.law
            plates = core.var.plates
            outer = Var(mixing.var.name, mixing.var.space, plates=plates)
            component = mixing.component.substitute({mixing.var: outer})
            core = Expect(mixing.mixing, outer, Expect(component, core.var, core.body))
            continue
        links.append((_plain(core.law), core.var))
        core = core.body
    core = simplify(core)
    addends = core.args if isinstance(core, Apply) and core.op == "add" else (core,)
    groups: dict[tuple[int, ...], list[Term]] = {}
    for addend in addends:
        groups.setdefault(_needed(links, addend), []).append(addend)
    parts = []
    for needed, members in groups.items():
        chosen = [links[i] for i in needed]
        plates = {plate for _, var in chosen for plate in var.plates}
        if plates:
            parts += [_copies(chosen, member, plates) for member in members]
        else:
            parts.append(_nest(chosen, add(*members)))
    return add(*parts)


def _plain(law: Law) -> Law:
    if isinstance(law, DensityLaw):
        return DensityLaw(law.var, simplify(law.log_density), law.rescale)
    return law


def _needed(links: list[Link], addend: Term) -> tuple[int, ...]:
    """Which variables an addend depends on, by itself or through the laws of those it depends on."""
    free, needed = set(addend.free), []
    for i in reversed(range(len(links))):
        law, var = links[i]
        if var in free:
            needed.append(i)
            for child in law.children:
                free |= child.free
    return tuple(reversed(needed))


def _nest(links: list[Link], body: Term) -> Term:
    for law, var in reversed(links):
        body = Expect(law, var, body)
    return body


def _copies(links: list[Link], addend: Term, plates: set[Plate]) -> Term:
    if len(plates) > 1:
        raise CannotCompute(NAME, addend.text, "copies of copies are not integrated")
    (plate,) = plates
    once = [link for link in links if plate not in link[1].plates]
    members = [link for link in links if plate in link[1].plates]
    constant, inner = _coefficient(addend)
    if plate in inner.free_plates:
        # The copies belong to an outer binder; that binder resolves them.
        return _nest(links, addend)
    if plate.size == 1:
        return _nest(links, _single(addend, plate))
    if isinstance(inner, Reduce) and inner.op in ("mean", "sum"):
        scale = constant * (plate.size if inner.op == "sum" else 1)
        return multiply(scale, _nest(links, inner.body))
    if isinstance(inner, Apply) and inner.op == "log":
        found = _log_of_sum(inner.args[0], plate)
        if found is not None:
            scale, body, also = found
            return multiply(constant, add(_log_constant(scale), _nest(once, _one_copy(members, body, also, plate))))
    raise CannotCompute(
        NAME,
        addend.text,
        f"{plate.size} copies under another function than a mean, or the log of a mean of positive terms, "
        "would take as many axes; use an enclosure on a finite model, or Monte Carlo",
    )


def _coefficient(term: Term) -> tuple[Fraction, Term]:
    if isinstance(term, Apply) and term.op == "mul" and isinstance(term.args[0], Const):
        return term.args[0].value, multiply(*term.args[1:])
    return Fraction(1), term


def _log_constant(value: Fraction) -> Term:
    return Const(Fraction(0)) if value == 1 else Apply("log", (Const(value),))


def _single(term: Term, plate: Plate) -> Term:
    """With one copy a reduction is its body."""
    if isinstance(term, Reduce) and term.plate == plate:
        return _single(term.body, plate)
    if isinstance(term, Apply):
        args = tuple(_single(arg, plate) for arg in term.args)
        if term.op == "log" and isinstance(args[0], Apply) and args[0].op == "exp":
            return args[0].args[0]
        return Apply(term.op, args)
    return term


def _log_of_sum(term: Term, plate: Plate) -> tuple[Fraction, Term, Term | None] | None:
    """(c, a, b) if the term is c (exp(b) + sum over the copies of a), with a >= 0; b is None for no such part."""
    constant, inner = _coefficient(term)
    also: list[Term] = []
    sums: list[Reduce] = []
    for part in inner.args if isinstance(inner, Apply) and inner.op == "add" else (inner,):
        if isinstance(part, Reduce) and part.plate == plate and part.op in ("mean", "sum"):
            sums.append(part)
        elif plate not in part.free_plates and nonnegative(part):
            also.append(part)
        else:
            return None
    if len(sums) != 1 or constant <= 0 or not nonnegative(sums[0].body):
        return None
    (summed,) = sums
    share = Fraction(1, plate.size) if summed.op == "mean" else Fraction(1)
    if not also:
        return constant * share, summed.body, None
    # c (b + s sum a) = c s (b / s + sum a)
    return constant * share, summed.body, multiply(1 / share, add(*also))


def _one_copy(members: list[Link], body: Term, also: Term | None, plate: Plate) -> Term:
    level = Var("u", LEVEL)
    fresh = {var: Var(var.name, var.space) for _, var in members}
    replacement: dict[Var, Term] = dict(fresh)
    links = [(law.substitute(replacement), fresh[var]) for law, var in members]
    single = substitute(body, replacement)
    log_body = single.args[0] if isinstance(single, Apply) and single.op == "exp" else Apply("log", (single,))
    survival = _nest(links, Apply("survival", (add(level, log_body),)))
    logged = None
    if also is not None:
        logged = also.args[0] if isinstance(also, Apply) and also.op == "exp" else Apply("log", (also,))
    return LogOfCopies(level, survival, logged, plate.size, log_body, tuple(links))


def continuous_depth(term: Term) -> int:
    """How many binders are nested at most, each counted once per variable (not per component)."""
    below = max((continuous_depth(child) for child in term.children), default=0)
    return below + isinstance(term, Binder)


__all__ = ["LEVEL", "NAME", "LogOfCopies", "continuous_depth", "exp", "simplify"]
