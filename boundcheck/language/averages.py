"""Sums of averages: what both sides of a claim have in common cancels, whatever the model.

Expectations of sums are sums of expectations, independent draws may come in any order, and a draw from a mixture is a
draw from its mixing law followed by one from the component. So a formula is a weighted sum of averages
E_{v1} E_{v2}...[body]. Whether a claim holds can then be told of what is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import permutations

from boundcheck.language.binding import substitute
from boundcheck.language.build import exp, log
from boundcheck.language.laws import DensityLaw, Law, MixtureLaw, ModelLaw, expand
from boundcheck.language.terms import (
    ZERO,
    Apply,
    Const,
    Expect,
    LogDensity,
    Plate,
    Reduce,
    Term,
    Var,
    add,
    multiply,
    walk,
)

MOST_LINKS = 5
_MOST_WAYS = 300


# --- sums of averages ----------------------------------------------------------------------------------------------


def is_normalised(law: Law) -> bool:
    """True if the law integrates to one by its form or by the model's validation, not merely by a user's word."""
    if isinstance(law, ModelLaw):
        return law.role != "joint"
    if isinstance(law, MixtureLaw):
        return is_normalised(law.mixing) and is_normalised(law.component)
    return isinstance(law, DensityLaw) and law.rescale


@dataclass(frozen=True)
class Link:
    """A draw: `var` from `law`, which may depend on earlier draws."""

    law: Law
    var: Var


@dataclass(frozen=True)
class Average:
    """weight * E_{link 1} E_{link 2}...[body]."""

    weight: Fraction
    links: tuple[Link, ...]
    body: Term

    @property
    def term(self) -> Term:
        """The average without its weight."""
        return over(self.links, self.body)


def over(links: Iterable[Link], body: Term) -> Term:
    """E_{link 1} E_{link 2}...[body] as a term."""
    for link in reversed(tuple(links)):
        body = Expect(link.law, link.var, body)
    return body


def differences(lhs: Term, rhs: Term) -> list[Average]:
    """rhs - lhs as averages, those that are on both sides cancelled."""
    left: list[Average] = []
    for each in (*averages_of(rhs, Fraction(1), ()), *averages_of(lhs, Fraction(-1), ())):
        for i, other in enumerate(left):
            if _same(each, other):
                left[i] = replace(other, weight=other.weight + each.weight)
                break
        else:
            left.append(each)
    return [each for each in left if each.weight and each.body != ZERO]


def averages_of(term: Term, weight: Fraction = Fraction(1), links: tuple[Link, ...] = ()) -> Iterator[Average]:
    """A term as a sum of averages."""
    if isinstance(term, Apply) and term.op == "add":
        for part in term.args:
            yield from averages_of(part, weight, links)
        return
    if isinstance(term, Apply) and term.op == "mul" and len(term.args) == 2 and isinstance(term.args[0], Const):
        yield from averages_of(term.args[1], weight * term.args[0].value, links)
        return
    if isinstance(term, LogDensity) and isinstance(term.law, MixtureLaw):
        yield from averages_of(expand(term), weight, links)
        return
    if isinstance(term, LogDensity) and isinstance(term.law, DensityLaw) and not term.point[0].free_plates:
        yield from averages_of(expand(term), weight, links)
        return
    if isinstance(term, Expect) and is_normalised(term.law) and not term.free_plates:
        law, var, body = term.law, term.var, term.body
        if isinstance(law, MixtureLaw):
            outer = Var(law.var.name, law.var.space, plates=var.plates)
            inner = Expect(law.component.substitute({law.var: outer}), var, body)
            yield from averages_of(Expect(law.mixing, outer, inner), weight, links)
            return
        yield from averages_of(body, weight, (*links, Link(law, var)))
        return
    average = _without_single_copies(Average(weight, links, term))
    if average.body != term:
        yield from averages_of(average.body, weight, average.links)
        return
    kept: list[Link] = []
    for link in reversed(average.links):
        needed = average.body.free.union(*(child.free for later in kept for child in later.law.children))
        if link.var in needed:
            kept.insert(0, link)
    yield replace(average, links=tuple(kept))


def _same(a: Average, b: Average) -> bool:
    """True if two averages differ in the order of their draws at most."""
    if len(a.links) != len(b.links) or len(a.links) > MOST_LINKS:
        return False
    return any(over(order, a.body) == b.term for order in _orders(a.links))


def _orders(links: tuple[Link, ...]) -> Iterator[tuple[Link, ...]]:
    """The orders in which every draw comes after those that its law depends on."""
    drawn = {link.var for link in links}
    for order in permutations(links):
        seen: set[Var] = set()
        for link in order:
            if any(var in drawn and var not in seen for var in parents(link.law)):
                break
            seen.add(link.var)
        else:
            yield order


def parents(law: Law) -> frozenset[Var]:
    """The variables that a law depends on."""
    return frozenset().union(*(child.free for child in law.children))


# --- copies written out --------------------------------------------------------------------------------------------


class Unreadable(Exception):
    """Copies stand where they cannot be written out."""


def _without_single_copies(average: Average) -> Average:
    try:
        return written_out(average, 1)
    except Unreadable:
        return average


def written_out(average: Average, most: int) -> Average:
    """The average with separate variables in place of copies, for plates of at most so many."""
    plates = {plate for link in average.links for plate in link.var.plates if plate.size <= most}
    for plate in plates:
        copied = [link for link in average.links if plate in link.var.plates]
        if any(link.var.plates != (plate,) for link in copied):
            raise Unreadable
        maps: list[dict[Var, Term]] = [
            {link.var: Var(link.var.name, link.var.space) for link in copied} for _ in range(plate.size)
        ]
        links: list[Link] = []
        for link in average.links:
            if link not in copied:
                links.append(link)
                continue
            if any(isinstance(sub, Reduce) for child in link.law.children for sub in walk(child)):
                raise Unreadable
            for each in maps:
                var = each[link.var]
                assert isinstance(var, Var)
                links.append(Link(link.law.substitute(each), var))
        average = replace(average, links=tuple(links), body=_each_copy(average.body, plate, maps))
    return average


def _each_copy(term: Term, plate: Plate, maps: list[dict[Var, Term]]) -> Term:
    if plate in term.free_plates:
        raise Unreadable
    return _rewritten(term, plate, maps)


def _rewritten(term: Term, plate: Plate, maps: list[dict[Var, Term]]) -> Term:
    if not any(isinstance(sub, Reduce) and sub.plate == plate for sub in walk(term)):
        return term
    if isinstance(term, Reduce) and term.plate == plate:
        body = _rewritten(term.body, plate, maps)
        parts = [substitute(body, each) for each in maps]
        if term.op in ("sum", "mean"):
            total = add(*parts)
            return total if term.op == "sum" or len(parts) == 1 else multiply(Fraction(1, len(parts)), total)
        return parts[0] if len(parts) == 1 else Apply(term.op, tuple(parts))
    if isinstance(term, Apply):
        args = [_rewritten(arg, plate, maps) for arg in term.args]
        if term.op in ("log", "exp"):
            return log(args[0]) if term.op == "log" else exp(args[0])
        return add(*args) if term.op == "add" else multiply(*args) if term.op == "mul" else Apply(term.op, tuple(args))
    if isinstance(term, Reduce):
        return Reduce(term.op, term.plate, _rewritten(term.body, plate, maps))
    if isinstance(term, Expect) and not any(
        isinstance(sub, Reduce) for child in term.law.children for sub in walk(child)
    ):
        return Expect(term.law, term.var, _rewritten(term.body, plate, maps))
    raise Unreadable


# --- common draws --------------------------------------------------------------------------------------------------


def embeddings(few: tuple[Link, ...], many: tuple[Link, ...]) -> Iterator[dict[Var, Term]]:
    """The ways to take the draws `few` for some of `many`, from the same laws."""

    def extend(i: int, found: dict[Var, Term]) -> Iterator[dict[Var, Term]]:
        if i == len(few):
            yield found
            return
        law = few[i].law.substitute(found)
        for link in many:
            taken = any(link.var is value for value in found.values())
            if not taken and link.var.plates == few[i].var.plates and link.law == law:
                yield from extend(i + 1, {**found, few[i].var: link.var})

    yield from extend(0, {})


def drawn(average: Average) -> set[Var]:
    """The variables that an average draws."""
    return {link.var for link in average.links}


def few(ways: Iterable[tuple[dict[Var, Term], ...]]) -> Iterator[tuple[dict[Var, Term], ...]]:
    """The first few of many ways, so that a search ends."""
    for _, way in zip(range(_MOST_WAYS), ways, strict=False):
        yield way


def summands(term: Term) -> list[tuple[Fraction, Term]]:
    """sum_i w_i exp(t_i) as pairs (w_i, t_i); empty for other forms."""
    if isinstance(term, Apply) and term.op == "exp":
        return [(Fraction(1), term.args[0])]
    if isinstance(term, Apply) and term.op == "add":
        parts = [summands(arg) for arg in term.args]
        return [pair for each in parts for pair in each] if all(parts) else []
    if isinstance(term, Apply) and term.op == "mul" and len(term.args) == 2 and isinstance(term.args[0], Const):
        return [(weight * term.args[0].value, inner) for weight, inner in summands(term.args[1])]
    return []


__all__ = [
    "MOST_LINKS",
    "Average",
    "Link",
    "Unreadable",
    "averages_of",
    "differences",
    "drawn",
    "embeddings",
    "few",
    "is_normalised",
    "over",
    "parents",
    "summands",
    "written_out",
]
