"""The mean of log-sums of two exponentials of quadratics in Gaussian variables, certified: IWAE_2, SIVI_1 and others.

With quadratics a and b and U = (a - b) / 2,

    log(e^a + e^b) = (a + b) / 2 + log 2 + log cosh U,
    log cosh U = integral_0^inf (1 - cos(t U)) / (t sinh(pi t / 2)) dt,

the second because both sides vanish with their slope at U = 0 and sech^2 U = integral_0^inf t cos(t U) / sinh(pi t / 2)
dt. The integrand is not negative, so E log cosh U is one integral over the real part of the characteristic function
phi(t) = E e^{itU}, and that of a quadratic in Gaussian variables is known: if the exponent of the joint density is
-v' L v / 2 + h' v and U = v' A v / 2 + b' v + c, it is

    phi(t) = e^{itc} exp((H' P^-1 H - h' L^-1 h) / 2) / sqrt(prod_j (1 - i t l_j)),  P = L - i t A,  H = h + i t b,

with the eigenvalues l_j of L^-1 A, which are real, so that the principal roots of the factors are continuous in t. One
integral in one dimension, enclosed in balls, takes the place of an integral over all copies.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import flint
import numpy as np
from flint import acb, arb, fmpq, fmpq_mat, fmpq_poly
from numpy.typing import ArrayLike

from boundcheck.errors import CannotCompute
from boundcheck.evaluators import closed_form
from boundcheck.evaluators.quadratic import Affine, Quadratic
from boundcheck.evaluators.quadratic_walk import QuadraticWalk
from boundcheck.evaluators.rational_quadratic import Rationals
from boundcheck.evaluators.values import Enclosure
from boundcheck.language.averages import Average, Unreadable, averages_of, summands, written_out
from boundcheck.language.build import Formula, trace
from boundcheck.language.terms import Apply, Term, Var, add, multiply
from boundcheck.models.linear_gaussian import LinearGaussianModel

NAME = "closed form of pairs"

_BITS = 128
_AIM = 40
"""Bits after the binary point that the integral is asked for."""


def enclose(formula: Formula | Term, model: LinearGaussianModel, x: ArrayLike, **parameters: Any) -> Enclosure:
    """An interval that contains the value of a formula with log-sums of two exponentials, in nats.

    Args:
        formula: a function of (m, x, **parameters), or a term.
        model: the model, of at most `closed_form.LARGEST_RATIONAL` dimensions.
        x: the observation, of shape (dimension of x,), or a number if x has one component.
        **parameters: the formula's own.

    Raises:
        CannotCompute: a formula that is no sum of closed forms and of means of log-sums of two exponentials with
            equal weights.
        UndefinedValue: the value is inf - inf.

    >>> from boundcheck.catalogue.objectives import iwae
    >>> model = LinearGaussianModel(prior=(0, 1), likelihood=(1, 0, 1), encoder=(0.5, 0, 0.25))
    >>> print(enclose(iwae, model, 1.0, k=2))
    [-1.5830500408 +/- 4.45e-11]
    """
    term = trace(formula, **parameters)
    rest: list[Term] = []
    pairs: list[tuple[Fraction, Average, Term, Term]] = []
    try:
        for average in averages_of(term):
            average = written_out(average, 2)
            pair = _pair(average.body)
            if pair is None:
                rest.append(multiply(average.weight, average.term))
                continue
            share, a, b = pair
            half = Fraction(1, 2)
            for part in (multiply(half, a), multiply(half, b)):
                split = Average(average.weight, average.links, part)
                rest.append(multiply(split.weight, split.term))
            pairs.append((average.weight, average, a, b))
            rest.append(multiply(average.weight, _log(2 * share)))
    except Unreadable:
        raise CannotCompute(NAME, term.text, "copies whose law depends on other copies") from None
    if not pairs:
        raise CannotCompute(NAME, term.text, "it has no log-sum of two exponentials")
    ball = arb(closed_form.enclose(add(*rest), model, x).ball)
    rows = np.atleast_2d(np.asarray(x, dtype=np.float64))
    with flint.ctx.workprec(_BITS):
        walk = QuadraticWalk(model, rows, Rationals())
        for weight, average, a, b in pairs:
            ball += arb(fmpq(weight.numerator, weight.denominator)) * _mean_log_cosh(walk, average, a, b, term)
    if not ball.is_finite():
        raise CannotCompute(NAME, term.text, "an integral over a characteristic function was not enclosed")
    return Enclosure(ball)


def _log(value: Fraction) -> Term:
    from boundcheck.language.build import log

    return log(value) if value != 1 else add(0)


def _pair(body: Term) -> tuple[Fraction, Term, Term] | None:
    """(w, a, b) of log(w e^a + w e^b); None for other terms."""
    if not (isinstance(body, Apply) and body.op == "log"):
        return None
    parts = summands(body.args[0])
    if len(parts) != 2 or parts[0][0] != parts[1][0] or parts[0][0] <= 0:
        return None
    return parts[0][0], parts[0][1], parts[1][1]


# --- quadratics written out ------------------------------------------------------------------------------------------


class _Dense:
    """A quadratic c + b' v + v' A v / 2 in all variables of an average."""

    def __init__(self, quadratic: Quadratic, starts: dict[Var, tuple[int, int]], n: int) -> None:
        self.a, self.b, self.c = fmpq_mat(n, n), [fmpq(0)] * n, arb(quadratic.constant[0])
        for block, weight in quadratic.blocks.items():
            w = fmpq(weight.numerator, weight.denominator)
            residual = _matrix(block.residual, starts, n)
            offset = fmpq_mat([[value] for value in block.residual.offset[0]])
            metric = block.metric
            inner = residual if metric is None else fmpq_mat(metric.tolist()) * residual
            shift = offset if metric is None else fmpq_mat(metric.tolist()) * offset
            self.a -= residual.transpose() * inner * w
            pull = residual.transpose() * shift
            self.b = [value - w * pull[i, 0] for i, value in enumerate(self.b)]
            self.c += w * (arb(block.constant[0]) - (offset.transpose() * shift)[0, 0] / 2)


def _matrix(affine: Affine, starts: dict[Var, tuple[int, int]], n: int) -> fmpq_mat:
    rows = affine.offset.shape[1]
    full = [[fmpq(0)] * n for _ in range(rows)]
    for var, matrix in affine.matrices.items():
        start, size = starts[var]
        for i in range(rows):
            for j in range(size):
                full[i][start + j] = matrix[i, j]
    return fmpq_mat(full)


def _mean_log_cosh(walk: QuadraticWalk, average: Average, a: Term, b: Term, term: Term) -> arb:
    """E log cosh((a - b) / 2) over the draws of an average."""
    numbers, starts, n = walk.numbers, dict[Var, tuple[int, int]](), 0
    densities = []
    for link in average.links:
        size = walk.model.dimension(link.var.space)
        starts[link.var] = (n, size)
        n += size
        densities.append((Fraction(1), walk.value(link.law.log_prob(link.var))))
    half = Fraction(1, 2)
    joint = _Dense(numbers.combine(densities), starts, n)
    u = _Dense(numbers.combine([(half, walk.value(a)), (-half, walk.value(b))]), starts, n)
    if not u.c.is_finite():
        raise CannotCompute(NAME, term.text, "one of the two exponentials is infinite")
    return _integral(_Characteristic(joint, u, n))


class _Characteristic:
    """t -> E e^{itU}, and the second moment of U.

    With K = L^-1 A and s = it, D(s) = det(1 - s K) is a polynomial with real roots 1/l_j, and H' P^-1 H = N(s) / D(s)
    with another one, both rational; so nothing is eliminated in balls.
    """

    def __init__(self, joint: _Dense, u: _Dense, n: int) -> None:
        self.c = u.c
        covariance = (-1 * joint.a).inv()
        k = covariance * u.a
        determinant = fmpq_poly(list(reversed(k.charpoly().coeffs())))
        h, b = (fmpq_mat([[value] for value in vector]) for vector in (joint.b, u.b))
        moments, power = [fmpq(0)] * (n + 4), covariance
        for degree in range(n + 2):  # (h + s b)' K^degree L^-1 (h + s b) s^degree
            for shift, (left, right) in enumerate(((h, h), (h, b), (b, b))):
                value = (left.transpose() * power * right)[0, 0]
                moments[degree + shift] += 2 * value if shift == 1 else value
            power = k * power
        product = (fmpq_poly(moments) * determinant).coeffs()[: n + 2]
        # H' P^-1 H less its value at s = 0, times D(s).
        self.energy = (fmpq_poly(product) - determinant * moments[0]).coeffs()
        # The eigenvalues l_j that are not zero; all roots are real, for L and A are symmetric and L is positive.
        self.inverse: list[tuple[arb, int]] = []
        if determinant.degree() > 0:
            roots: Any = determinant.numer().complex_roots()
            self.inverse = [(1 / root.real, times) for root, times in roots]
        mean = covariance * h
        slope = u.a * mean + b
        square = k * k
        expected = u.c + (mean.transpose() * (u.a * mean))[0, 0] / 2 + (b.transpose() * mean)[0, 0]
        expected += sum((k[i, i] for i in range(n)), fmpq(0)) / 2
        variance = sum((square[i, i] for i in range(n)), fmpq(0)) / 2
        variance += (slope.transpose() * covariance * slope)[0, 0]
        self.second_moment = expected * expected + arb(variance)

    def __call__(self, t: acb, analytic: bool) -> acb:
        s = acb(0, 1) * t
        root, determinant = acb(1), acb(1)
        for eigenvalue, times in self.inverse:
            factor = 1 - s * eigenvalue
            root *= factor.sqrt(analytic=analytic) ** times
            determinant *= factor**times
        energy = acb(0)
        for coefficient in reversed(self.energy):
            energy = energy * s + acb(coefficient)
        return (s * self.c + energy / (2 * determinant)).exp() / root


def _integral(phi: _Characteristic) -> arb:
    """integral_0^inf (1 - Re phi(t)) / (t sinh(pi t / 2)) dt, its two ends bounded and the middle enclosed."""
    # t^2 U^2 / 2 - t^4 U^4 / 24 <= 1 - cos(t U) <= t^2 U^2 / 2 and 1 - s^2 / 6 <= s / sinh s <= 1, and E U^4 is at most
    # 81 (E U^2)^2 for a polynomial of degree two in Gaussian variables (Nelson's hypercontractivity).
    moment, pi = phi.second_moment, arb.pi()
    low = arb(2) ** -(_AIM // 3 + 2 + max(0, math.ceil(math.log2(max(1.0, float(moment.upper()))) / 2)))
    loss = low**2 * (81 * moment / 12 + pi**2 / 24)
    start = (low * moment / pi) * (1 - loss).union(arb(1))
    high = arb(24)
    # 1 - Re phi <= 2, and sinh(pi t / 2) >= e^{pi t / 2} (1 - e^{-pi t}) / 2.
    decay = (-pi * high / 2).exp() * 2 / pi
    end = arb(0).union(4 * decay / (high * (1 - (-pi * high).exp())))

    def integrand(t: acb, analytic: bool) -> acb:
        # On the real line Re phi(t) = (phi(t) + phi(-t)) / 2, which is analytic.
        mean = (phi(t, analytic) + phi(-t, analytic)) / 2
        return (1 - mean) / (t * (acb.pi() * t / 2).sinh())

    points = [low]
    while points[-1] < high:
        points.append((points[-1] * 16).min(high))
    total = start + end
    for a, b in itertools.pairwise(points):
        total += acb.integral(integrand, acb(a), acb(b), rel_tol=arb(2) ** -_AIM, abs_tol=arb(2) ** -_AIM).real
    return total


__all__ = ["enclose"]
