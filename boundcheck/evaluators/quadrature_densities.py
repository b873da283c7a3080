"""Log-densities of a model's laws on the entries of a frame, an entry without a value left out rather than guessed.

A decoder may overflow at nodes that lie far out, where a law then has no parameters. Such entries are found by halving
and stand as nan; only a law without a value even at the node nearest to zero is the user's mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from boundcheck.errors import BadInput
from boundcheck.evaluators.quadrature_frames import Frame, Frames, Number
from boundcheck.evaluators.quadrature_lines import Index
from boundcheck.evaluators.quadrature_rounding import rounding_of
from boundcheck.language.laws import ModelLaw
from boundcheck.language.terms import LogDensity, Term, Var
from boundcheck.models.densities import Density, Discrete, Uniform


def log_density_at(walk: Frames, term: LogDensity) -> Number:
    """log law(point) for a law of the model, on the lowest frame that holds the law's arguments and the point.

    Raises:
        BadInput: the law has no value anywhere, or its length is not that of its point.
    """
    law = term.law
    assert isinstance(law, ModelLaw)
    level = walk.level(term)
    try:
        if law.role == "joint":
            x, z = term.point
            parts = [(walk.law("prior", (), level), z), (walk.law("likelihood", (z,), level), x)]
        else:
            parts = [(walk.law(law.role, law.args, level), term.point[0])]
        return _densities(walk, parts, level, term)
    except BadInput:
        if level == 0 or walk.frames[level].size == 1 or "narrowed" in walk.frames[level].known:
            raise
        return _piecewise(walk, term, level)


def _densities(walk: Frames, parts: list[tuple[tuple[Density, ...], Term]], level: int, term: Term) -> Number:
    total: Any = 0.0
    error: Any = 0.0
    for laws, point in parts:
        assert isinstance(point, Var)
        components = walk.env[point]
        if len(laws) != len(components):
            raise BadInput(
                point.name, len(components), f"a point of {len(laws)} components, as {term.text} has",
                "make the law and the point of one length",
            )  # fmt: skip
        for law, (at, values) in zip(laws, components, strict=True):
            v = walk.lift(values, at, level)
            part = np.asarray(law.log_density(v), dtype=float)
            total = total + part
            if not isinstance(law, Uniform | Discrete) and np.isneginf(part).any():
                # A density that is positive everywhere has overflowed: its logarithm is finite, but unknown.
                error = error + np.where(np.isneginf(part), np.inf, 0.0)
            if walk.rounding:
                error = error + rounding_of(law, v)
    return walk.made(total, error, level)


def _piecewise(walk: Frames, term: LogDensity, level: int) -> Number:
    """The density entry by entry where a parameter has no value at some of them: nan there, never a guess.

    A decoder may overflow at nodes that lie far out; it is a mistake only if it does so everywhere.
    """
    frame = walk.frames[level]
    value = np.full(frame.size, np.nan)
    error = np.zeros(frame.size)
    own = [v for var in term.free for at, v in walk.env[var] if at == level and isinstance(v, np.ndarray)]
    order = np.argsort(np.abs(own[0]), kind="stable") if own else np.arange(frame.size)

    def attempt(rows: Index) -> bool:
        saved_env, saved_frame = dict(walk.env), walk.frames[level]
        models = None if frame.models is None else frame.models[rows]
        assert frame.parent is not None
        walk.frames[level] = Frame(len(rows), frame.parent[rows], models, {"narrowed": True})
        for var in term.free:
            walk.env[var] = [
                (at, v[rows] if at == level and isinstance(v, np.ndarray) else v) for at, v in walk.env[var]
            ]
        try:
            part = log_density_at(walk, term)
            value[rows] = part.value
            error[rows] = part.error
            return True
        except BadInput:
            return False
        finally:
            walk.env, walk.frames[level] = saved_env, saved_frame

    if not attempt(order[:1]):
        with _one(walk, level, order[:1], term):
            log_density_at(walk, term)
    pending = [order]
    for _ in range(400):
        if not pending:
            break
        rows = pending.pop(0)
        if attempt(rows) or len(rows) == 1:
            continue
        pending += [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return Number(value, error, level)


@contextmanager
def _one(walk: Frames, level: int, rows: Index, term: Term) -> Iterator[None]:
    """Only some entries of a frame, so that the user's mistake is reported at one of them."""
    saved_env, frame = dict(walk.env), walk.frames[level]
    assert frame.parent is not None
    models = None if frame.models is None else frame.models[rows]
    walk.frames[level] = Frame(len(rows), frame.parent[rows], models, {"narrowed": True})
    for var in term.free:
        walk.env[var] = [(at, v[rows] if at == level and isinstance(v, np.ndarray) else v) for at, v in walk.env[var]]
    try:
        yield
    finally:
        walk.env, walk.frames[level] = saved_env, frame
