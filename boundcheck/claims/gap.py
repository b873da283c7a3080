"""Terms that cannot be negative, read off their form: why rhs - lhs >= 0 must hold, whatever the model.

A sum is non-negative if its parts are, or pair up to an upper formula less a lower one (`gap_climb`). The part that
is not a pair is a divergence: E_p[log p - log q] >= 0 for normalised p and q, also when both are given as chains of
conditionals.
"""

from __future__ import annotations

from boundcheck.claims.gap_climb import acyclic, always_at_most, is_normalised
from boundcheck.language.positions import nonnegative
from boundcheck.language.terms import Apply, Expect, Integrate, LogDensity, Reduce, Term, Var, multiply


def nonnegative_by_form(term: Term) -> bool:
    """True if the term cannot be negative, whatever the model, because of how it is written.

    >>> from boundcheck.language import E, kl, trace
    >>> nonnegative_by_form(trace(lambda m, x: kl(m.encoder(x), m.prior())))
    True
    >>> nonnegative_by_form(trace(lambda m, x: E(m.encoder(x), lambda z: m.encoder(x).log_prob(z))))
    False
    """
    if nonnegative(term) or _is_divergence(term):
        return True
    if isinstance(term, Expect | Integrate | Reduce):
        return nonnegative_by_form(term.body)
    if isinstance(term, Apply):
        if term.op == "add":
            # Parts that are non-negative alone only help; the others must be paired with a larger partner.
            needy = [part for part in term.args if not nonnegative_by_form(part)]
            return _pairs_up(needy, [part for part in term.args if nonnegative_by_form(part)])
        if term.op in ("mul", "min"):
            return all(nonnegative_by_form(arg) for arg in term.args)
        if term.op == "max":
            return any(nonnegative_by_form(arg) for arg in term.args)
    return False


def _is_divergence(term: Term) -> bool:
    """E_{v1 ~ p1} E_{v2 ~ p2}...[sum log p_i(v_i) - sum log q_i(v_i)], the divergence of two factorisations of one law.

    Each q_i may depend on other variables of the chain, as long as no variable depends on itself through them.
    """
    links: list[Expect] = []
    core = term
    while isinstance(core, Expect) and not core.consumed_plates and is_normalised(core.law):
        links.append(core)
        core = core.body
    if not links or not (isinstance(core, Apply) and core.op == "add"):
        return False
    negated = [multiply(-1, part) for part in core.args]
    numerator = [part for part in core.args if isinstance(part, LogDensity)]
    denominator = [part for part in negated if isinstance(part, LogDensity)]
    own = [link.log_density for link in links]
    if len(numerator) + len(denominator) != len(core.args) or set(numerator) != set(own):
        return False
    if len(numerator) != len(links) or any(len(part.point) != 1 for part in denominator):
        return False
    drawn, scored = [link.var.serial for link in links], [part.point[0] for part in denominator]
    if sorted(drawn) != sorted(point.serial for point in scored if isinstance(point, Var)):
        return False
    parents = {}
    for part in denominator:
        (var,) = part.point
        if not is_normalised(part.law):
            return False
        parents[var] = frozenset().union(*(child.free for child in part.law.children))
    return acyclic(parents)


def _pairs_up(needy: list[Term], helpers: list[Term]) -> bool:
    """A sum in which every part that may be negative is half of a pair upper - lower with upper >= lower."""
    if not needy:
        return True
    first, rest = needy[0], needy[1:]
    for i, other in enumerate(rest):
        for upper, lower in ((first, multiply(-1, other)), (other, multiply(-1, first))):
            if always_at_most(lower, upper) and _pairs_up(rest[:i] + rest[i + 1 :], helpers):
                return True
    for i, helper in enumerate(helpers):
        if always_at_most(multiply(-1, first), helper) and _pairs_up(rest, helpers[:i] + helpers[i + 1 :]):
            return True
    return False


__all__ = ["always_at_most", "is_normalised", "nonnegative_by_form"]
