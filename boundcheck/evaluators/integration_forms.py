"""The shape of a log-density along one latent variable: a quadratic plus a few known functions of affine arguments.

Every supported log-density is `c + p0 + p1 z + p2 z^2 + sum_i k_i atom_i(z)`, where an atom is one of
`integration_atoms` or the log of a sum of exponentials of such forms. That is what makes certified integration
possible: what is known of the atoms' growth and of their size on a strip adds up to what is known of the form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flint import acb, arb, fmpq

from boundcheck.evaluators.integration_atoms import ZERO, Atom, Kink, Softplus
from boundcheck.evaluators.integration_numbers import Unbounded, as_float, exponential, logarithm, sign, whole_number
from boundcheck.evaluators.integration_symbols import Coefficient, is_zero


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
        whole = whole_number(k)
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


def _middle(z: acb) -> float:
    middle = float(z.real.mid())
    return middle if math.isfinite(middle) else -math.inf


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
        atoms = []
        for atom, k in self.atoms:
            moved, factor = atom.moved(m, s)
            atoms.append((moved, k * (as_float(factor) if isinstance(k, float) else factor)))
        walls = []
        for lo, hi, k in self.walls:
            ends = [(end - m) / s if end is not None else None for end in (lo, hi)]
            walls.append((*(ends if s > 0 else reversed(ends)), k))
        return Form(
            self.c, self.p0 + self.p1 * m + self.p2 * m * m, (self.p1 + 2 * self.p2 * m) * s, self.p2 * s * s,
            tuple(atoms), tuple(walls),
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
        return self.numeric(as_float)

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
