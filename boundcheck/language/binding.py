"""What binders do to names: the form in which they do not count, and the replacement of variables that are free."""

from __future__ import annotations

from boundcheck.language.terms import Apply, Const, Expect, Integrate, LogDensity, Reduce, Term, Var


def canonical(term: Term, scope: dict[int, tuple]) -> tuple:
    """A nested tuple that is equal for two terms exactly if they are equal up to names of bound variables."""
    if isinstance(term, Var):
        return scope.get(term.serial, ("free", term.serial))
    if isinstance(term, Apply):
        return (term.op, *[canonical(arg, scope) for arg in term.args])
    if isinstance(term, Const):
        return ("const", term.value.numerator, term.value.denominator)  # hashed faster than a Fraction
    if isinstance(term, LogDensity):
        return ("log-density", term.law.canonical(scope), *(canonical(point, scope) for point in term.point))
    if isinstance(term, Expect):
        law = term.law.canonical(scope)
        return ("expect", law, *_bound(term.var, term.body, scope))
    if isinstance(term, Integrate):
        return ("integrate", *_bound(term.var, term.body, scope))
    if isinstance(term, Reduce):
        plate = scope.get(-term.plate.serial, ("free-plate", term.plate.serial))
        return ("reduce", term.op, plate, canonical(term.body, scope))
    raise TypeError(f"not a term: {type(term).__name__}")


def _bound(var: Var, body: Term, scope: dict[int, tuple]) -> tuple:
    """The canonical form of a binder: variables and new plates are numbered by the order of binding."""
    inner = dict(scope)
    plates = []
    for plate in var.plates:
        inner.setdefault(-plate.serial, ("plate", len(inner), plate.size))
        plates.append(inner[-plate.serial])
    inner[var.serial] = ("bound", len(inner))
    return (var.space, tuple(plates), canonical(body, inner))


def substitute(term: Term, replacement: dict[Var, Term]) -> Term:
    """`term` with free variables replaced. Bound variables are unique objects, so nothing is ever captured."""
    if not (term.free & replacement.keys()):
        return term
    if isinstance(term, Var):
        return replacement[term]
    if isinstance(term, Apply):
        return Apply(term.op, tuple(substitute(arg, replacement) for arg in term.args))
    if isinstance(term, LogDensity):
        return LogDensity(
            term.law.substitute(replacement), tuple(substitute(point, replacement) for point in term.point)
        )
    if isinstance(term, Expect):
        return Expect(term.law.substitute(replacement), term.var, substitute(term.body, replacement))
    if isinstance(term, Integrate):
        return Integrate(term.var, substitute(term.body, replacement))
    if isinstance(term, Reduce):
        return Reduce(term.op, term.plate, substitute(term.body, replacement))
    raise TypeError(f"not a term: {type(term).__name__}")
