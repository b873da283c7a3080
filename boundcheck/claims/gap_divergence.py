"""Why a difference of averages is zero, or not negative, on every model.

Both sides become sums of averages (`language.averages`), of which what is on both sides cancels. What is left is read
in one of two ways.

- Jensen under common draws: the averages share their first draws, and given those the rest is non-negative by the
  rules of `gap_climb`. (The density of q~ inside a logarithm against copies of x~: SIVI without x~_0, Lemma 1.)
- A divergence under common draws: all bodies together are log n - log d, where n is the density of what is drawn and
  d a product of densities that integrates to one. Draws may be exchanged on the way: if z is drawn from q(.|x~_0) and
  nothing else tells x~_0 from x~_1..K, then z may as well be drawn from mean_k q(.|x~_k). (SIVI with x~_0.)

Both hold on every model on which the two sides have values; infinite ones included, since what cancels is then
infinite on both sides, or leaves no value.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product

from boundcheck.claims.gap import nonnegative_by_form
from boundcheck.claims.gap_climb import acyclic
from boundcheck.language.averages import (
    MOST_LINKS,
    Average,
    Link,
    Unreadable,
    differences,
    drawn,
    embeddings,
    few,
    is_normalised,
    over,
    parents,
    summands,
    written_out,
)
from boundcheck.language.binding import substitute
from boundcheck.language.build import log
from boundcheck.language.terms import Apply, Expect, Integrate, LogDensity, Term, Var, add, multiply

_MOST_PARTS = 12
_MOST_COPIES = 4


def equal_as_averages(lhs: Term, rhs: Term) -> bool:
    """True if the two sides are the same sum of averages.

    >>> from boundcheck.catalogue.objectives import denoising_decoupled, sivi_without
    >>> from boundcheck.language import trace
    >>> equal_as_averages(trace(sivi_without, k=1), trace(denoising_decoupled))
    True
    """
    return not differences(lhs, rhs)


def at_most_as_averages(lhs: Term, rhs: Term) -> bool:
    """True if rhs - lhs >= 0 on every model, for one of the reasons above.

    >>> from boundcheck.catalogue.objectives import log_evidence, sivi, sivi_without
    >>> from boundcheck.language import trace
    >>> at_most_as_averages(trace(sivi, k=1), trace(log_evidence))
    True
    >>> at_most_as_averages(trace(sivi_without, k=1), trace(log_evidence))
    False
    """
    left = differences(lhs, rhs)
    if len(left) > _MOST_PARTS or any(len(each.links) > MOST_LINKS for each in left):
        return False
    return not left or _by_jensen(left) or _by_divergence(left)


def _by_jensen(averages: list[Average]) -> bool:
    """Whether, given some draws that all averages share, the rest is non-negative by its form."""
    shortest = min(averages, key=lambda each: len(each.links))
    plain = [link for link in shortest.links if not link.var.plates]
    for size in range(len(plain), -1, -1):
        for common in combinations(plain, size):
            own = {link.var for link in common}
            if any(var not in own for link in common for var in parents(link.law) if var in drawn(shortest)):
                continue
            ways = [list(embeddings(common, each.links)) for each in averages]
            for way in few(product(*ways)):
                rests = []
                for each, found in zip(averages, way, strict=True):
                    back: dict[Var, Term] = {var: old for old, var in found.items() if isinstance(var, Var)}
                    rest = tuple(
                        Link(link.law.substitute(back), link.var) for link in each.links if link.var not in back
                    )
                    rests.append(multiply(each.weight, over(rest, substitute(each.body, back))))
                if nonnegative_by_form(add(*rests)):
                    return True
    return False


def _by_divergence(averages: list[Average]) -> bool:
    """Whether all bodies under common draws are log n - log d, as above."""
    try:
        averages = [written_out(each, _MOST_COPIES) for each in averages]
    except Unreadable:
        return False
    longest = max(averages, key=lambda each: len(each.links))
    if len(longest.links) > MOST_LINKS or any(link.var.plates for each in averages for link in each.links):
        return False
    ways = [list(embeddings(each.links, longest.links)) for each in averages]
    for way in few(product(*ways)):
        weights: dict[Term, Fraction] = {}
        for each, found in zip(averages, way, strict=True):
            body = substitute(each.body, found)
            weights[body] = weights.get(body, Fraction(0)) + each.weight
        drawn_from = [body for body, weight in weights.items() if weight > 0]
        scored_by = [body for body, weight in weights.items() if weight < 0]
        one_weight = len({abs(weight) for weight in weights.values() if weight}) == 1
        if one_weight and _is_divergence(longest.links, drawn_from, scored_by):
            return True
    return False


def _is_divergence(links: tuple[Link, ...], drawn_from: list[Term], scored_by: list[Term]) -> bool:
    """Whether E_links[sum drawn_from - sum scored_by] is a divergence, averaged over what is not scored."""
    laws = {link.var: link.law for link in links}
    scores: dict[Term, frozenset[Var]] = {}
    left = list(scored_by)
    owners = []
    for term in drawn_from:
        # log integral g, less log g(z): together the density of the law proportional to g.
        if isinstance(term, Apply) and term.op == "log" and isinstance(term.args[0], Integrate):
            whole = term.args[0]
            fitting = [var for var in laws if var.space == whole.space and not var.plates]
            integrands = [(_logarithm(substitute(whole.body, {whole.var: var})), var) for var in fitting]
            found = [(body, var) for body, var in integrands if body in left]
            if not found or found[0][1] in scores or found[0][1] in term.free:
                return False
            body, var = found[0]
            left.remove(body)
            scores[var] = body.free - {var}
        else:
            owners.append(term)
    for body in left:
        of = [var for var in laws if var not in scores and is_density(body, var)]
        if len(of) != 1:
            return False
        scores[of[0]] = body.free - {of[0]}
    rest = set(scores)
    for term in owners:
        of = [var for var in rest if isinstance(var, Var) and _is_own_density(term, var, links, drawn_from, scored_by)]
        if len(of) != 1:
            return False
        rest.remove(of[0])
    if rest or not acyclic(scores):
        return False
    # What is not scored is drawn first, so that given it the scored variables have the two joint laws.
    averaged = [var for var in laws if var not in scores]
    return not any(parent in scores for var in averaged for parent in parents(laws[var]))


def _logarithm(term: Term) -> Term:
    return term.args[0] if isinstance(term, Apply) and term.op == "exp" else log(term)


def is_density(term: Term, var: Var) -> bool:
    """True if a term is the log-density of a normalised law at `var`, given the other variables, by its form."""
    if isinstance(term, LogDensity):
        return term.point == (var,) and is_normalised(term.law) and var not in parents(term.law)
    if not (isinstance(term, Apply) and term.op == "log"):
        return False
    inside = term.args[0]
    if isinstance(inside, Expect):
        plain = not inside.var.plates and is_normalised(inside.law) and var not in parents(inside.law)
        return plain and is_density(_logarithm(inside.body), var)
    parts = summands(inside)
    return bool(parts) and sum(w for w, _ in parts) == 1 and all(w > 0 and is_density(p, var) for w, p in parts)


def _is_own_density(
    term: Term, var: Var, links: tuple[Link, ...], drawn_from: list[Term], scored_by: list[Term]
) -> bool:
    """True if `var` is drawn from the law whose log-density `term` is, perhaps after an exchange of draws."""
    laws = {link.var: link.law for link in links}
    if term == LogDensity(laws[var], (var,)):
        return True
    parts = summands(term.args[0]) if isinstance(term, Apply) and term.op == "log" else []
    if len(parts) < 2 or len({weight for weight, _ in parts}) != 1 or parts[0][0] * len(parts) != 1:
        return False
    for first in parents(laws[var]) & laws.keys():
        group = [
            [other for other in laws if part == LogDensity(laws[var].substitute({first: other}), (var,))]
            for _, part in parts
        ]
        members = [each[0] for each in group if len(each) == 1]
        if len(members) != len(parts) or len(set(members)) != len(parts) or first not in members:
            continue
        alike = all(laws[each] == laws[first] for each in members)
        free_of_it = all(
            not parents(law) & set(members) for each, law in laws.items() if each != var
        ) and parents(laws[var]) & set(members) == {first}  # fmt: skip
        swaps: list[dict[Var, Term]] = [{first: each, each: first} for each in members if each != first]
        symmetric = all(
            _multiset(terms) == _multiset([substitute(t, swap) for t in terms])
            for swap in swaps for terms in (drawn_from, scored_by)
        )  # fmt: skip
        if alike and free_of_it and symmetric:
            return True
    return False


def _multiset(terms: list[Term]) -> list[str]:
    """Terms up to the order in which sums of exponentials are written."""
    return sorted(repr(_key(term)) for term in terms)


def _key(term: Term) -> object:
    if isinstance(term, Apply) and term.op == "log" and (parts := summands(term.args[0])):
        return ("log-sum", sorted((str(weight), repr(part._key)) for weight, part in parts))
    return term._key


__all__ = ["at_most_as_averages", "equal_as_averages", "is_density"]
