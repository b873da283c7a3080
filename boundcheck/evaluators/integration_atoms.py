"""The functions of one latent variable that log-densities are made of, and what is proven about each.

An atom is softplus(b + a z), exp(b + a z), log(1 + (z - l)^2 / w^2), |z - kink|, or a law whose parameters are any
expressions in z. For each there is an inequality for its growth towards infinity and for its size on a strip
|Im z| <= a around the real line (proofs beside the methods; theta = |a_i| a is the imaginary part that the argument of
an atom can reach). The log of a sum of forms is an atom too; it stands beside them (`integration_forms`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from flint import acb, arb, fmpq

from boundcheck.evaluators.integration_numbers import (
    Unbounded,
    as_float,
    exponential,
    log_cos,
    sigmoid,
    sign,
    softplus,
    whole_number,
)
from boundcheck.evaluators.integration_symbols import Coefficient, Symbol, is_zero
from boundcheck.models.arithmetic import analytic_required
from boundcheck.models.densities import Density

ZERO = fmpq(0)
ONE = fmpq(1)


class Atom:
    """A function of z that log-densities are made of."""

    what = "an unknown function"

    def moved(self, m: Coefficient, s: Coefficient) -> tuple[Atom, Coefficient]:
        """The atom in u, where z = m + s u, and the factor to multiply it by."""
        raise NotImplementedError

    def numeric(self, convert: Callable[[Any], Any]) -> Atom:
        """The atom with its coefficients converted to one kind of number."""
        raise NotImplementedError

    def real(self, x: Any) -> Any:
        """The value at a real float or ball."""
        raise NotImplementedError

    def complex(self, z: acb, analytic: bool) -> acb:
        """The value on a complex ball; not finite where `analytic` is asked for and not certain."""
        raise NotImplementedError

    def power(self, k: Coefficient, z: acb, analytic: bool) -> acb:
        """exp(k atom(z)), without a logarithm's branch cut where k is whole."""
        return (acb(k) * self.complex(z, analytic)).exp()

    def line(self, k: Any, r: Any) -> tuple[Any, Any]:
        """(v, s) with k atom(x) <= v + s (x - r) for all real x >= r.

        Raises:
            Unbounded: there is no such line, or none is known for this r.
        """
        raise Unbounded(self.what)

    def reach(self, k: Any) -> float:
        """The half-width of the strip on which exp(k atom) is analytic with a known bound; k is None for the atom."""
        return 0.0

    def strip(self, k: Any, a: arb) -> tuple[arb, Any]:
        """(g, k') with |exp(k atom(x + iy))| <= exp(g + k' atom(x)) for all real x and |y| <= a."""
        raise Unbounded(self.what)

    def size(self, x: arb, a: arb) -> arb:
        """A bound of |atom(x + iy)| for |y| <= a, x a real ball."""
        raise Unbounded(self.what)

    def growth(self, r: arb, a: arb) -> tuple[arb, arb, arb]:
        """(b, c, d) with |atom(r + t + iy)| <= (b + c t) exp(d t) for all t >= 0 and |y| <= a."""
        raise Unbounded(self.what)


@dataclass(frozen=True)
class Softplus(Atom):
    """softplus(b + a z)."""

    b: Any
    a: Any
    what = "softplus"

    def moved(self, m, s):
        return Softplus(self.b + self.a * m, self.a * s), fmpq(1)

    def numeric(self, convert):
        return Softplus(convert(self.b), convert(self.a))

    def real(self, x: Any) -> Any:
        return softplus(self.b + self.a * x)

    def complex(self, z: acb, analytic: bool) -> acb:
        u = self.a * z + self.b
        if u.real > 0:  # real on the real line and analytic for Re u > 0, since |e^-u| < 1 there
            return u + (1 + (-u).exp()).log(analytic=analytic)
        return (1 + u.exp()).log(analytic=analytic)

    def power(self, k: Coefficient, z: acb, analytic: bool) -> acb:
        whole = whole_number(k)
        if whole is None:
            return super().power(k, z, analytic)
        u = self.a * z + self.b
        if u.real > 0:  # (1 + e^u)^k = e^(k u) (1 + e^-u)^k, without overflow
            return (acb(k) * u).exp() * (1 + (-u).exp()) ** whole
        return (1 + u.exp()) ** whole

    def line(self, k: Any, r: Any) -> tuple[Any, Any]:
        u = self.b + self.a * r
        if sign(k) < 0:  # concave: its tangent
            return k * softplus(u), k * self.a * sigmoid(u)
        return k * softplus(u), k * self.a if sign(self.a) > 0 else 0 * self.a

    def reach(self, k: Any) -> float:
        return math.pi / abs(as_float(self.a))

    def strip(self, k: Any, a: arb) -> tuple[arb, Any]:
        # |1 + e^(p + iq)|^2 = 4 e^p (cosh^2(p/2) - sin^2(q/2)) >= cos^2(q/2) (1 + e^p)^2, and it is <= (1 + e^p)^2.
        cosine = log_cos(abs(self.a) * a / 2)  # not finite where the strip is too wide
        return (0 * cosine if sign(k) > 0 else k * cosine), k

    def size(self, x: arb, a: arb) -> arb:
        # |log| <= |log|.|| + |arg|, and |arg(1 + e^u)| <= |Im u| for |Im u| < pi.
        theta = abs(self.a) * a
        return softplus(self.b + self.a * x) - log_cos(theta / 2) + theta

    def growth(self, r: arb, a: arb) -> tuple[arb, arb, arb]:
        return self.size(r, a), self.a if sign(self.a) > 0 else arb(0), arb(0)


@dataclass(frozen=True)
class Growth(Atom):
    """exp(b + a z)."""

    b: Any
    a: Any
    what = "exp"

    def moved(self, m, s):
        return Growth(self.b + self.a * m, self.a * s), fmpq(1)

    def numeric(self, convert):
        return Growth(convert(self.b), convert(self.a))

    def real(self, x: Any) -> Any:
        return exponential(self.b + self.a * x)

    def complex(self, z: acb, analytic: bool) -> acb:
        return (self.a * z + self.b).exp()

    def line(self, k: Any, r: Any) -> tuple[Any, Any]:
        value = k * exponential(self.b + self.a * r)
        if sign(k) < 0:  # concave: its tangent
            return value, value * self.a
        if sign(self.a) < 0:
            return value, 0 * self.a
        raise Unbounded("a growing exponential")

    def reach(self, k: Any) -> float:
        return math.inf if k is None or k > 0 else math.pi / 2 / abs(as_float(self.a))

    def strip(self, k: Any, a: arb) -> tuple[arb, Any]:
        # Re(k e^(p + iq)) = k e^p cos q, and cos decreases on [0, pi].
        theta = abs(self.a) * a
        return arb(0), k if sign(k) > 0 else k * (theta.cos() if theta < arb.pi() else arb(-1))

    def size(self, x: arb, a: arb) -> arb:
        return (self.b + self.a * x).exp()

    def growth(self, r: arb, a: arb) -> tuple[arb, arb, arb]:
        return (self.b + self.a * r).exp(), arb(0), self.a if sign(self.a) > 0 else arb(0)


@dataclass(frozen=True)
class LogSquare(Atom):
    """log(1 + (z - l)^2 / w2)."""

    l: Any  # noqa: E741
    w2: Any
    what = "Student's t"

    def moved(self, m, s):
        return LogSquare((self.l - m) / s, self.w2 / (s * s)), fmpq(1)

    def numeric(self, convert):
        return LogSquare(convert(self.l), convert(self.w2))

    def _square(self, x: Any) -> Any:
        d = x - self.l
        return d * d / self.w2

    def real(self, x: Any) -> Any:
        p2 = self._square(x)
        if isinstance(x, float):
            return math.log1p(p2)
        return p2.nonnegative_part().log1p()

    def complex(self, z: acb, analytic: bool) -> acb:
        d = z - self.l
        return (1 + d * d / self.w2).log(analytic=analytic)

    def power(self, k: Coefficient, z: acb, analytic: bool) -> acb:
        whole = whole_number(k)
        if whole is None:
            return super().power(k, z, analytic)
        d = z - self.l
        return (1 + d * d / self.w2) ** whole

    def line(self, k: Any, r: Any) -> tuple[Any, Any]:
        d = r - self.l
        if sign(k) < 0:  # decreasing on the right of l, and nowhere above 0
            return (k * self.real(r) if d >= 0 else 0 * r), 0 * r
        if not d * d >= self.w2 or not d > 0:
            raise Unbounded("Student's t on the convex side of its tail")
        return k * self.real(r), k * 2 * d / (self.w2 + d * d)  # concave there: its tangent

    def reach(self, k: Any) -> float:
        return math.sqrt(as_float(self.w2))

    def strip(self, k: Any, a: arb) -> tuple[arb, Any]:
        # With w = p + iq, |q| < 1: (1 - q^2)(1 + p^2) <= |1 + w^2| <= (1 + q^2)(1 + p^2).
        q2 = a * a / self.w2
        inside = (1 - q2).log()  # not finite where the strip is too wide
        return (k * q2.log1p() + 0 * inside if sign(k) > 0 else k * inside), k

    def size(self, x: arb, a: arb) -> arb:
        q2 = a * a / self.w2  # Re(1 + w^2) > 0, so the argument is below pi / 2
        return self.real(x) + q2.log1p() - (1 - q2).log() + (0 if is_zero(a) else arb.pi() / 2)

    def growth(self, r: arb, a: arb) -> tuple[arb, arb, arb]:
        return self.size(r, a), 1 / self.w2.sqrt(), arb(0)  # the slope 2p / (1 + p^2) is at most 1


@dataclass(frozen=True)
class Kink(Atom):
    """|z - at|."""

    at: Any
    what = "a Laplace kink"

    def moved(self, m, s):
        return Kink((self.at - m) / s), abs(s)

    def numeric(self, convert):
        return Kink(convert(self.at))

    def real(self, x: Any) -> Any:
        return abs(x - self.at)

    def complex(self, z: acb, analytic: bool) -> acb:
        return (z - self.at).real_abs(analytic=analytic)

    def line(self, k: Any, r: Any) -> tuple[Any, Any]:
        if not r >= self.at:
            raise Unbounded("Laplace before its kink")
        return k * (r - self.at), k

    def size(self, x: arb, a: arb) -> arb:
        if not is_zero(a):
            raise Unbounded(self.what)
        return abs(x - self.at)

    def growth(self, r: arb, a: arb) -> tuple[arb, arb, arb]:
        return self.size(r, a), arb(1), arb(0)


@dataclass(frozen=True, eq=False)
class Opaque(Atom):
    """The log-density at `point` of a law whose parameters are expressions in z; `peak` bounds it from above."""

    law: type[Density]
    parameters: tuple[Any, ...]
    point: Any
    peak: Any
    m: Any = ZERO
    s: Any = ONE

    @property
    def what(self) -> str:  # type: ignore[override]
        return f"{self.law.__name__} with parameters that are not affine in the latent variable"

    def moved(self, m, s):
        return replace(self, m=self.m + self.s * m, s=self.s * s), fmpq(1)

    def numeric(self, convert):
        peak = None if self.peak is None else convert(self.peak)
        return replace(self, m=convert(self.m), s=convert(self.s), peak=peak)

    def complex(self, z: acb, analytic: bool) -> acb:
        u = acb(self.s) * z + acb(self.m)
        values = [p.at(u, analytic) if isinstance(p, Symbol) else p for p in self.parameters]
        if not all(v.is_finite() for v in values if isinstance(v, acb)):
            return acb("nan")
        try:
            with analytic_required(analytic):
                return acb(self.law(*values).log_density(self.point))
        except ValueError:  # a scale whose ball reaches zero
            return acb("nan")

    def real(self, x: Any) -> Any:
        if isinstance(x, float):
            value = self.complex(acb(x), False).real
            return float(value.mid()) if value.is_finite() else -math.inf
        return self.complex(acb(x), False).real

    def line(self, k: Any, r: Any) -> tuple[Any, Any]:
        if self.peak is None or sign(k) < 0:
            raise Unbounded(self.what)
        return k * self.peak, 0 * r
