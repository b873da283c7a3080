"""The expected logarithm of a sum over independent copies, as one integral whatever the number of copies is.

`quadrature_copies` rewrites such an expectation into one term; here that term's integral over u is set up and done. Its
integrand changes around minus the logarithm of the typical sum, which copies at the centers of their laws give.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from boundcheck.evaluators.quadrature_copies import LogOfCopies
from boundcheck.evaluators.quadrature_frames import Frame, Number, times
from boundcheck.evaluators.quadrature_laws import plain
from boundcheck.evaluators.quadrature_lines import EPSILON, Array, Index, Lines, Sample
from boundcheck.evaluators.quadrature_panels import integrate_lines
from boundcheck.language.laws import Law
from boundcheck.language.terms import Var

if TYPE_CHECKING:
    from boundcheck.evaluators.quadrature_walk import Walk

_EULER = 0.57721566490153286


def log_of_copies(walk: Walk, term: LogOfCopies) -> Number:
    """-gamma - c + integral over u of (1[u < c] - exp(-e^u b) (1 - D(u))^K), for any c."""
    level = walk.top
    size = walk.frames[-1].size
    other = None if term.also is None else walk.value(term.also)
    also = np.full(size, -np.inf) if other is None else walk.full(other.value, other.level)
    typical = _typical(walk, term)
    log_sum = np.logaddexp(np.where(np.isfinite(typical), typical, 0.0) + np.log(term.size), also)
    center = -log_sum

    def integrand(entry: Index, u: Array, rounding: bool) -> Sample:
        saved, walk.rounding = walk.rounding, rounding
        try:
            with walk.bound(term.var, entry, u):
                log_survival = walk.log_value(term.body)
                log_d = walk.full(log_survival.value, log_survival.level)
                error = np.broadcast_to(walk.errors_of(log_survival), u.shape)
                d = np.exp(np.minimum(log_d, 0.0))
                logs = term.size * np.log1p(-d) - np.exp(np.minimum(u + also[entry], 50.0))
                left = u < center[entry]
                value = np.where(left, -np.expm1(logs), -np.exp(logs))
                wrong_d = times(d, np.expm1(np.minimum(error, 50.0)))
                power = (term.size - 1) * np.log1p(-np.maximum(d - wrong_d, 0.0))
                wrong = term.size * np.exp(power) * wrong_d + 4 * EPSILON * np.abs(value)
                return Sample(np.zeros(len(u)), value, 0.0, wrong)
        finally:
            walk.rounding = saved

    one = np.ones((size, 1))
    where = Lines(center[:, None], one, center[:, None], -np.inf * one[:, 0], np.inf * one[:, 0])
    effort = walk.effort_for(term.body, 0)
    results = integrate_lines(integrand, where, walk.tolerance, effort, signed=True)
    number = walk.finished(results, False, term.body)
    slack = 0.0 if other is None else np.where(np.isneginf(also), 0.0, walk.errors_of(other))
    value = number.value - _EULER - center
    return Number(value, number.error + slack + 4 * EPSILON * (1 + np.abs(center) + np.abs(value)), level)


def _typical(walk: Walk, term: LogOfCopies) -> Array:
    """log a at the centers of the laws of one copy."""
    size = walk.frames[-1].size
    with _centered(walk, term.members):
        number = walk.value(term.typical)
        return np.array(walk.full(number.value, number.level)[:size])


@contextmanager
def _centered(walk: Walk, members: tuple[tuple[Law, Var], ...]) -> Iterator[None]:
    """Each variable put at the center of its law."""
    saved = dict(walk.env)
    try:
        for law, var in members:
            walk.env[var] = [
                (walk.top, np.broadcast_to(np.asarray(plain(center), dtype=float), (walk.frames[-1].size,)))
                for center in walk.centers(law, var)
            ]
        walk.frames.append(Frame(walk.frames[-1].size, np.arange(walk.frames[-1].size), walk.frames[-1].models))
        for _, var in members:
            walk.env[var] = [(walk.top, value) for _, value in walk.env[var]]
        yield
    finally:
        walk.frames.pop()
        walk.env = saved
