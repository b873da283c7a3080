"""The shape of a log-density along one latent variable: a quadratic plus a few known functions of affine arguments.

Every supported log-density is `c + p0 + p1 z + p2 z^2 + sum_i k_i atom_i(z)`, where an atom is softplus(b + a z),
exp(b + a z), log(1 + (z - l)^2 / w^2), |z - kink|, or the log of a sum of exponentials of such forms. That is what
makes certified integration possible: for each atom there is an inequality for its growth towards infinity and for
its size on a strip |Im z| <= a around the real line (proofs beside the methods; theta = |a_i| a is the imaginary part
that the argument of an atom can reach).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flint import acb, arb, fmpq

from boundcheck.evaluators.integration_symbols import Coefficient, Symbol, is_zero
from boundcheck.models.arithmetic import analytic_required
from boundcheck.models.densities import Density

ZERO = fmpq(0)
ONE = fmpq(1)


class Unbounded(Exception):
    """No bound is known for this shape here; the message names the culprit."""


def sign(value: Any) -> int:
    """The sign of a number that has one for sure.

    Raises:
        Unbounded: a ball that reaches both sides of zero.
    """
    if value == 0:
        return 0
    if value > 0:
        return 1
    if value < 0:
        return -1
    raise Unbounded("the sign of a coefficient is not known at this precision")


def exponential(u: Any) -> Any:
    """exp of a float (inf where it overflows) or of a ball."""
    if isinstance(u, float):
        return math.exp(u) if u < 709 else math.inf
    return u.exp()


def softplus(u: Any) -> Any:
    """log(1 + exp(u)) of a float or a real ball."""
    if isinstance(u, float):
        return u + math.log1p(math.exp(-u)) if u > 0 else math.log1p(math.exp(u))
    if u > 0:
        return u + (-u).exp().log1p()
    return u.exp().log1p()


def sigmoid(u: Any) -> Any:
    """1 / (1 + exp(-u)) of a float or a real ball."""
    return 1 / (1 + exponential(-u))


def logarithm(u: Any) -> Any:
    """log of a positive float or ball."""
    return math.log(u) if isinstance(u, float) else u.log()


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
        whole = _whole(k)
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
        return math.pi / abs(_float(self.a))

    def strip(self, k: Any, a: arb) -> tuple[arb, Any]:
        # |1 + e^(p + iq)|^2 = 4 e^p (cosh^2(p/2) - sin^2(q/2)) >= cos^2(q/2) (1 + e^p)^2, and it is <= (1 + e^p)^2.
        cosine = _log_cos(abs(self.a) * a / 2)  # not finite where the strip is too wide
        return (0 * cosine if sign(k) > 0 else k * cosine), k

    def size(self, x: arb, a: arb) -> arb:
        # |log| <= |log|.|| + |arg|, and |arg(1 + e^u)| <= |Im u| for |Im u| < pi.
        theta = abs(self.a) * a
        return softplus(self.b + self.a * x) - _log_cos(theta / 2) + theta

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
        return math.inf if k is None or k > 0 else math.pi / 2 / abs(_float(self.a))

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
        whole = _whole(k)
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
        return math.sqrt(_float(self.w2))

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


@dataclass(frozen=True)
class LogSum(Atom):
    """log sum_m exp(form_m(z))."""

    forms: tuple[Form, ...]
    what = "the log of a mixture"

    def moved(self, m, s):
        return LogSum(tuple(form.moved(m, s) for form in self.forms)), fmpq(1)

    def numeric(self, convert):
        return LogSum(tuple(form.numeric(convert) for form in self.forms))

    def real(self, x: Any) -> Any:
        values = [form.real(x) for form in self.forms]
        if isinstance(x, float):
            top = max(values)
            return top + math.log(sum(math.exp(v - top) for v in values)) if math.isfinite(top) else top
        top = max(values, key=lambda v: float(v.mid()))
        return top + sum((exponential(v - top) for v in values if v is not top), arb(1)).log()

    def complex(self, z: acb, analytic: bool) -> acb:
        values = [form.complex(z, analytic) for form in self.forms]
        top = max(values, key=_middle)
        return top + sum(((v - top).exp() for v in values if v is not top), acb(1)).log(analytic=analytic)

    def power(self, k: Coefficient, z: acb, analytic: bool) -> acb:
        whole = _whole(k)
        if whole is None:
            return super().power(k, z, analytic)
        values = [form.complex(z, analytic) for form in self.forms]
        top = max(values, key=_middle)
        return (k * top).exp() * sum(((v - top).exp() for v in values if v is not top), acb(1)) ** whole

    def line(self, k: Any, r: Any) -> tuple[Any, Any]:
        if sign(k) < 0:  # the caller puts one component in place of the sum
            raise Unbounded(self.what)
        lines = [form.line(r) for form in self.forms]
        values = [v for v, _ in lines]
        top = values[0]
        for v in values[1:]:
            top = max(top, v) if isinstance(v, float) else top.max(v)
        total = top + logarithm(sum((exponential(v - top) for v in values[1:]), exponential(values[0] - top)))
        slope = lines[0][1]
        for _, s in lines[1:]:
            slope = max(slope, s) if isinstance(slope, float) else slope.max(s)
        return k * total, k * slope

    def size(self, x: arb, a: arb) -> arb:
        if not is_zero(a):
            raise Unbounded(self.what)
        return sum((form.size(x, a) for form in self.forms), arb(len(self.forms)).log())

    # `growth` is the sum over the components, see Form.growth.


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


def _middle(z: acb) -> float:
    middle = float(z.real.mid())
    return middle if math.isfinite(middle) else -math.inf


def _float(value: Any) -> float:
    if isinstance(value, float):
        return value
    try:
        return int(value.p) / int(value.q) if isinstance(value, fmpq) else float(value.mid())
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _log_cos(theta: arb) -> arb:
    """log cos(theta), not finite unless theta < pi / 2 for sure."""
    return theta.cos().log() if theta < arb.pi() / 2 else arb("nan")


def _whole(k: Any) -> int | None:
    """k as a small integer, or None."""
    if isinstance(k, arb):
        k = k.unique_fmpz() if k.is_exact() else None
        return None if k is None else int(k)
    return int(k.p) if isinstance(k, fmpq) and k.q == 1 else None


@dataclass(frozen=True)
class Form:
    """c + p0 + p1 z + p2 z^2 + sum k atom(z), and -inf outside its walls (lower, upper, multiplicity).

    p0, p1, p2 are exact where the model's parameters are, so that a cancellation of quadratics is decided, not
    guessed; `c` holds the logarithms, which are balls.
    """

    c: Any = ZERO
    p0: Any = ZERO
    p1: Any = ZERO
    p2: Any = ZERO
    atoms: tuple[tuple[Atom, Any], ...] = ()
    walls: tuple[tuple[Any, Any, Any], ...] = field(default=())

    def __add__(self, other: Form) -> Form:
        atoms = list(self.atoms)
        for atom, k in other.atoms:
            for i, (mine, own) in enumerate(atoms):
                if mine == atom:
                    atoms[i] = (mine, own + k)
                    break
            else:
                atoms.append((atom, k))
        return Form(
            self.c + other.c, self.p0 + other.p0, self.p1 + other.p1, self.p2 + other.p2,
            tuple(a for a in atoms if not is_zero(a[1])), self.walls + other.walls,
        )  # fmt: skip

    def scaled(self, k: Coefficient) -> Form:
        """k times the form; 0 times anything is 0."""
        if is_zero(k):
            return Form()
        return Form(
            k * self.c, k * self.p0, k * self.p1, k * self.p2,
            tuple((a, k * own) for a, own in self.atoms), tuple((lo, hi, k * own) for lo, hi, own in self.walls),
        )  # fmt: skip

    def moved(self, m: Coefficient, s: Coefficient) -> Form:
        """The form in u, where z = m + s u."""
        atoms = tuple((moved, k * factor) for (moved, factor), k in ((a.moved(m, s), k) for a, k in self.atoms))
        walls = []
        for lo, hi, k in self.walls:
            ends = [(end - m) / s if end is not None else None for end in (lo, hi)]
            walls.append((*(ends if s > 0 else reversed(ends)), k))
        return Form(
            self.c, self.p0 + self.p1 * m + self.p2 * m * m, (self.p1 + 2 * self.p2 * m) * s, self.p2 * s * s,
            atoms, tuple(walls),
        )  # fmt: skip

    @property
    def is_constant(self) -> bool:
        """True if the form does not depend on z."""
        return not self.atoms and not self.walls and is_zero(self.p1) and is_zero(self.p2)

    @property
    def constant(self) -> Any:
        """The value of a constant form."""
        return self.c + self.p0

    def numeric(self, convert: Callable[[Any], Any]) -> Form:
        """The form with its coefficients converted to balls at the current precision, or to floats."""
        return Form(
            convert(self.c + self.p0), convert(ZERO), convert(self.p1), convert(self.p2),
            tuple((atom.numeric(convert), convert(k)) for atom, k in self.atoms), self.walls,
        )  # fmt: skip

    def balls(self) -> Form:
        """The form with balls for coefficients."""
        return self.numeric(arb)

    def floats(self) -> Form:
        """The form with floats for coefficients: for choosing nodes, never for a result."""
        return self.numeric(_float)

    def real(self, x: Any) -> Any:
        """The value at a real number of the kind of the coefficients."""
        value = self.c + (self.p1 + self.p2 * x) * x
        for atom, k in self.atoms:
            value = value + k * atom.real(x)
        return value

    def complex(self, z: acb, analytic: bool) -> acb:
        """The value on a complex ball (coefficients are balls)."""
        value = (self.p2 * z + self.p1) * z + self.c
        for atom, k in self.atoms:
            value = value + k * atom.complex(z, analytic)
        return value

    def exp_complex(self, z: acb, analytic: bool) -> acb:
        """exp of the form on a complex ball."""
        value = ((self.p2 * z + self.p1) * z + self.c).exp()
        for atom, k in self.atoms:
            value = value * atom.power(k, z, analytic)
        return value

    def line(self, r: Any) -> tuple[Any, Any]:
        """(v, s) with form(x) <= v + s (x - r) for all real x >= r.

        Raises:
            Unbounded: no such line is known.
        """
        if sign(self.p2) > 0:
            raise Unbounded("a quadratic that grows")
        value = self.c + (self.p1 + self.p2 * r) * r
        slope = self.p1 + 2 * self.p2 * r
        for atom, k in self.atoms:
            v, s = atom.line(k, r)
            value, slope = value + v, slope + s
        return value, slope

    def size(self, x: arb, a: arb) -> arb:
        """A bound of |form(x + iy)| for |y| <= a and x in a real ball."""
        z = acb(x, arb(0, a.upper()))
        total = ((self.p2 * z + self.p1) * z + self.c).abs_upper()
        for atom, k in self.atoms:
            total = total + abs(k) * atom.size(x, a)
        return total

    def growth(self, r: arb, a: arb) -> tuple[list[arb], arb]:
        """(b, d) with |form(r + t + iy)| <= (b0 + b1 t + b2 t^2) exp(d t) for t >= 0, |y| <= a."""
        d0 = abs(self.c + (self.p1 + self.p2 * r) * r)
        d1, d2 = abs(self.p1 + 2 * self.p2 * r), abs(self.p2)
        b = [d0 + d1 * a + d2 * a * a, d1 + 2 * d2 * a, d2]
        rate = arb(0)
        for atom, k in self.atoms:
            if isinstance(atom, LogSum):
                if not is_zero(a):
                    raise Unbounded(atom.what)
                b[0] = b[0] + abs(k) * arb(len(atom.forms)).log()
                for form in atom.forms:
                    inner, d = form.growth(r, a)
                    b = [x + abs(k) * y for x, y in zip(b, inner, strict=True)]
                    rate = rate.max(d)
                continue
            v, s, d = atom.growth(r, a)
            b[0], b[1], rate = b[0] + abs(k) * v, b[1] + abs(k) * s, rate.max(d)
        return b, rate

    def kinks(self) -> list[Any]:
        """Points at which the form is not analytic."""
        found = []
        for atom, _ in self.atoms:
            if isinstance(atom, Kink):
                found.append(atom.at)
            elif isinstance(atom, LogSum):
                found.extend(kink for form in atom.forms for kink in form.kinks())
        return found

    def on_side(self, middle: Any) -> Form:
        """The form with |z - kink| replaced by the affine function that it is around `middle`."""
        result = replace(self, atoms=())
        for atom, k in self.atoms:
            if isinstance(atom, Kink):
                s = sign(middle - atom.at)
                result = result + Form(-s * k * atom.at, p1=s * k)
            elif isinstance(atom, LogSum):
                result = result + Form(atoms=((LogSum(tuple(f.on_side(middle) for f in atom.forms)), k),))
            else:
                result = result + Form(atoms=((atom, k),))
        return result

    def facing(self, direction: int) -> Form:
        """The same form with softplus(u) = u + softplus(-u) for the arguments u that grow in the direction (1 or -1).

        Where linear parts cancel towards that infinity they then do so exactly.
        """
        result = replace(self, atoms=())
        for atom, k in self.atoms:
            if isinstance(atom, Softplus) and sign(atom.a) == direction:
                flipped = Softplus(-atom.b, -atom.a)
                result = result + Form(p0=k * atom.b, p1=k * atom.a, atoms=((flipped, k),))
            elif isinstance(atom, LogSum):
                result = result + Form(atoms=((LogSum(tuple(f.facing(direction) for f in atom.forms)), k),))
            else:
                result = result + Form(atoms=((atom, k),))
        return result

    def reach(self, exponent: bool) -> float:
        """The half-width of the strip on which exp(form) (or the form) has a known bound."""
        widths = [atom.reach(k if exponent else None) for atom, k in self.atoms]
        return min(widths, default=math.inf)

    def strip(self, a: arb) -> tuple[arb, Form]:
        """(g, h) with |exp(form(x + iy))| <= exp(g + h(x)) for real x and |y| <= a (coefficients are balls)."""
        gain = -self.p2 * a * a if sign(self.p2) < 0 else arb(0)  # Re z^2 = x^2 - y^2
        atoms = []
        for atom, k in self.atoms:
            g, other = atom.strip(k, a)
            gain, atoms = gain + g, [*atoms, (atom, other)]
        return gain, replace(self, atoms=tuple(atoms))


def log_sum(forms: Sequence[Form]) -> Form:
    """log sum exp of forms, as a form."""
    if len(forms) == 1:
        return forms[0]
    return Form(atoms=((LogSum(tuple(forms)), fmpq(1)),))
