"""Random formulas of the language: nested binders, copies, reductions, built laws, and everything arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from random import Random
from typing import Any

from boundcheck.language import (
    E,
    SymbolicModel,
    Term,
    density,
    exp,
    integrate,
    log,
    log_mean_exp,
    maximum,
    maximum_over,
    mean,
    minimum,
    minimum_over,
    mixture,
    normalised,
    same,
    total,
    trace,
)
from boundcheck.language.laws import Law
from boundcheck.language.terms import CORRUPTED, X, Z

REDUCTIONS: tuple[Callable[..., Term], ...] = (mean, total, maximum_over, minimum_over, log_mean_exp)
CONSTANTS = (Fraction(1, 2), Fraction(2), Fraction(-1), Fraction(3), Fraction(-1, 3), Fraction(1))


def random_formula(rng: Random, depth: int = 4, most_copies: int = 2) -> Term:
    """A closed term with at most `depth` levels of operations."""
    return trace(lambda m, x: _Grower(rng, m, x, most_copies).number(depth))


class _Grower:
    def __init__(self, rng: Random, m: SymbolicModel, x: Term, most_copies: int) -> None:
        self.rng, self.m, self.most_copies = rng, m, most_copies
        self.scope: list[Any] = [x]
        self.copied = False  # copies of copies are beyond every evaluator
        self.pools: list[Law] = []  # mean_k q(.|x~_k): laws that look at all copies in scope

    def points(self, *spaces: Any) -> list[Any]:
        return [var for var in self.scope if var.space in spaces]

    def under(self, var: Any, depth: int, grow: Callable[[int], Term]) -> Term:
        self.scope.append(var)
        try:
            return grow(depth)
        finally:
            self.scope.pop()

    def number(self, depth: int) -> Term:
        if depth <= 0:
            return self.leaf()
        kind = self.rng.choices(
            ("leaf", "sum", "scaled", "product", "choice", "log", "exp", "power", "expect", "copies", "integral"),
            (1, 3, 2, 1, 1, 3, 1, 1, 5, 3, 1),
        )[0]
        return getattr(self, kind)(depth)

    # --- numbers ---

    def leaf(self, depth: int = 0) -> Term:
        rng = self.rng
        if rng.random() < 0.15:
            return Term.__add__(trace(lambda m, x: rng.choice(CONSTANTS)), 0)
        latents, noisy = self.points(Z), self.points(X, CORRUPTED)
        if rng.random() < 0.2:
            at, other = rng.choice(noisy), rng.choice(noisy)
            made = [self.m.corruption(other).log_prob(at), same(at, other) + 0]
            made += [self.m.auxiliary(rng.choice(latents), other).log_prob(at)] if latents else []
            return rng.choice(made)
        if not latents:
            return log(integrate(self.m.latent, lambda z: exp(self.m.log_joint(rng.choice(self.points(X)), z))))
        law, z = self.law_of_z(0), rng.choice(latents)
        return rng.choice(
            [
                lambda: self.m.log_joint(self.scope[0], z),
                lambda: self.m.log_joint(self.scope[0], z) - law.log_prob(z),
                lambda: law.log_prob(z),
                lambda: law.prob(z),
                lambda: self.m.likelihood(z).log_prob(self.scope[0]),
                lambda: same(z, rng.choice(latents)) + 0,
            ]
        )()

    def sum(self, depth: int) -> Term:
        parts = [self.number(depth - 1) for _ in range(self.rng.choice((2, 2, 3)))]
        return parts[0] + parts[1] - (parts[2] if len(parts) == 3 else 0)

    def scaled(self, depth: int) -> Term:
        return self.rng.choice(CONSTANTS) * self.number(depth - 1)

    def product(self, depth: int) -> Term:
        return self.number(depth - 2) * self.number(depth - 1)

    def choice(self, depth: int) -> Term:
        return self.rng.choice((maximum, minimum))(self.number(depth - 1), self.number(depth - 2))

    def exp(self, depth: int) -> Term:
        return exp(self.number(depth - 1))

    def positive(self, depth: int) -> Term:
        inner = exp(self.number(depth - 1))
        return self.rng.choice(
            [lambda: inner, lambda: 1 + inner, lambda: inner + exp(self.leaf()), lambda: 2 * inner]
        )()

    def log(self, depth: int) -> Term:
        if self.rng.random() < 0.5:
            law = self.law_of_z(depth - 1)
            return log(E(law, lambda z: self.under(z, depth - 1, self.positive)))
        return log(self.positive(depth) if self.rng.random() < 0.8 else self.number(depth - 1))

    def power(self, depth: int) -> Term:
        base = self.positive(depth - 1) if self.rng.random() < 0.7 else self.number(depth - 1)
        return base ** self.rng.choice((2, 3, -1, Fraction(1, 2), -2))

    # --- binders ---

    def law_of_z(self, depth: int) -> Law:
        m, rng = self.m, self.rng
        data = rng.choice(self.points(X, CORRUPTED))
        made: list[Callable[[], Law]] = [lambda: m.encoder(data)] * 4
        made += [lambda: m.prior(), lambda: m.posterior(data), lambda: m.marginal_encoder(self.scope[0])]
        made += [lambda pool=pool: pool for pool in self.pools]  # type: ignore[misc]
        if depth > 0:
            made += [
                lambda: normalised(m.latent, lambda z: self.under(z, depth - 1, self.number)),
                lambda: density(m.latent, lambda z: self.under(z, depth - 1, self.number)),
                lambda: mixture(m.corruption(self.scope[0]), lambda xt: m.encoder(xt)),
            ]
        return rng.choice(made)()

    def law(self, depth: int) -> Law:
        m, rng = self.m, self.rng
        if rng.random() < 0.65:
            return self.law_of_z(depth)
        latents = self.points(Z)
        if latents and rng.random() < 0.4:
            z = rng.choice(latents)
            return rng.choice((m.auxiliary(z, self.scope[0]), m.likelihood(z)))
        if depth > 0 and rng.random() < 0.2:
            return normalised(m.corrupted, lambda v: self.under(v, depth - 1, self.number))
        return m.corruption(rng.choice(self.points(X, CORRUPTED)))

    def expect(self, depth: int) -> Term:
        return E(self.law(depth - 2), lambda z: self.under(z, depth - 1, self.number))

    def integral(self, depth: int) -> Term:
        space = self.rng.choice((self.m.latent, self.m.latent, self.m.corrupted, self.m.data))
        return integrate(space, lambda v: self.under(v, depth - 1, self.number))

    def copies(self, depth: int) -> Term:
        if self.copied:
            return self.expect(depth)
        k, law = self.rng.randint(1, self.most_copies), self.law(depth - 2)

        def body(v: Any) -> Term:
            if v.space == CORRUPTED and self.rng.random() < 0.5:
                make = self.rng.choice((normalised, density))
                self.pools.append(make(self.m.latent, lambda u: log(mean(self.m.encoder(v).prob(u), over=v))))

            def reduced(below: int) -> Term:
                if self.rng.random() < 0.3 and v.space == CORRUPTED:  # one draw of z for each copy of x~
                    return E(self.m.encoder(v), lambda z: self.under(z, below, lambda d: self.closed(d, v)))
                return self.closed(below, v)

            return self.under(v, depth - 1, reduced)

        self.copied = True
        try:
            return E(law.copies(k), body)
        finally:
            self.copied = False
            self.pools.clear()

    def closed(self, depth: int, v: Any) -> Term:
        """A number in which every copy of v has been reduced, sometimes twice (as in total(w) - w)."""
        plate = v.plates[-1]
        term = self.number(depth)
        if plate in term.free_plates and self.rng.random() < 0.25:
            term = self.rng.choice(REDUCTIONS)(term, over=v) - self.rng.choice((1, 2)) * term
        if plate in term.free_plates and self.rng.random() < 0.1:
            return log_mean_exp(term, over=v, also=self.leaf_without(plate))
        return self.rng.choice(REDUCTIONS)(term, over=v) if plate in term.free_plates else term

    def leaf_without(self, plate: Any) -> Term:
        leaf = self.leaf()
        return leaf if plate not in leaf.free_plates else trace(lambda m, x: self.rng.choice(CONSTANTS))
