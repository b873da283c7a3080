"""The axes of a tensor grid: the nodes that laws put on them, and what varies along them."""

from __future__ import annotations

import math
from typing import Any, NoReturn, TypeAlias

import numpy as np

from boundcheck.errors import CannotCompute
from boundcheck.evaluators.gauss_hermite_rules import NAME, Array, plain, standard_rule, table
from boundcheck.language.terms import OBSERVED, Plate, Term, Var
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import Density, Mixture, Uniform

Point: TypeAlias = tuple[Any, ...]
"""The components of a variable's point, each a number or an array over the axes."""

LARGEST_GRID = 10_000_000
"""Numbers in one array at most; with the temporary ones this is some hundred megabytes."""

_ROOM = 2.0**16
"""Floats that should lie between two nodes, so that their places are good to a few digits of the gaps."""


class Axes:
    """The variables that are bound so far, on the nodes of one rule; the axis of the innermost variable comes first.

    Args:
        model: the model.
        x: the observation.
        nodes: how many nodes a component has.
        base: the law whose nodes stand for z in integrals over it, "prior" or "encoder".
        term: the formula, for messages.
        trimmed: leave the outermost nodes of every law out, and give their weight to their neighbours.
    """

    def __init__(
        self, model: ContinuousModel, x: Point, nodes: int, base: str, term: Term, trimmed: bool = False
    ) -> None:
        self.model, self.nodes, self.base, self.term, self.trimmed = model, nodes, base, term, trimmed
        self.env: dict[Var, list[Point]] = {OBSERVED: [x]}
        self.copy: dict[Plate, int] = {}
        self.depth = 0
        self.magnitude = 0.0
        self.hidden = False
        """Whether nodes have been seen between which something may hide."""
        self.drawn: dict[Var, tuple[Density, ...]] = {}
        """The laws whose rules put a variable on nodes."""
        self.sums: set[int] = set()
        """Axes of discrete variables, between whose points there is nothing to miss."""
        self.blocks: dict[int, tuple[int, ...]] = {}
        """How many neighbouring nodes of an axis belong to one rule: a mixture has one for each component."""
        self.node_weights: dict[int, Array] = {}
        """The largest log-weight that the nodes of an axis have."""
        self.multisets: set[int] = set()
        self.bounded: set[int] = set()
        """Axes of Uniform laws, which end where their nodes do."""
        self.watched: frozenset[int] = frozenset()
        """Axes, counted from the outermost, along which densities are exponentiated and summed."""

    @property
    def all_axes(self) -> frozenset[int]:
        """The axes of all variables that are bound so far."""
        return frozenset(range(self.depth))

    def _fold(self, operation: Any, parts: list[Array]) -> Array:
        total = parts[0]
        for part in parts[1:]:
            self._fits(total, part)
            if operation in (np.maximum, np.minimum) and self._varies(total, part):
                self.hidden = True  # it bends where the larger one changes
            total = operation(total, part)
        return total

    def _varies(self, *arrays: Any) -> bool:
        """Whether something varies along an axis of nodes, which discrete variables do not have."""
        shape = np.broadcast_shapes(*(np.shape(a) for a in arrays))
        return any(size > 1 and len(shape) - 1 - place not in self.sums for place, size in enumerate(shape))

    def _fits(self, *arrays: Any) -> None:
        size = math.prod(np.broadcast_shapes(*(np.shape(a) for a in arrays)))
        if size > LARGEST_GRID:
            self._too_large(f"{size:,} nodes")

    def _too_large(self, what: str) -> NoReturn:
        raise CannotCompute(
            NAME, self.term.text,
            f"its grid has {what}, more than {LARGEST_GRID:,}; pass fewer nodes, or use adaptive quadrature",
        )  # fmt: skip

    def _nodes(self, density: Density) -> tuple[Array, Array]:
        """Nodes of a law's rule and their log-weights, on a new axis in front."""
        nodes, log_weights, blocks = self._rule(density)
        self.blocks[self.depth] = blocks
        self.node_weights[self.depth] = np.max(log_weights.reshape(len(log_weights), -1), axis=1)
        self._mark(self.sums, density.discrete)
        self._mark(self.multisets, False)
        self._mark(self.bounded, isinstance(density, Uniform))
        if not density.discrete and _run_together(nodes, blocks):
            self.hidden = True
        self.depth += 1
        self._fits(nodes, log_weights)
        return nodes, np.broadcast_to(log_weights, np.broadcast_shapes(log_weights.shape, nodes.shape))

    def _mark(self, axes: set[int], marked: bool) -> None:
        """Say whether the axis that comes next is one of these."""
        (axes.add if marked else axes.discard)(self.depth)

    def _rule(self, density: Density) -> tuple[Array, Array, tuple[int, ...]]:
        def column(values: Any) -> Array:
            return np.asarray(values, dtype=float).reshape(-1, *(1,) * self.depth)

        def on_axis(values: list[Any]) -> Array:
            full = np.broadcast_arrays(*(np.asarray(plain(v), dtype=float) for v in values))
            return np.stack([v.reshape((1,) * (self.depth - v.ndim) + v.shape) for v in full])

        standard = standard_rule(density, self.nodes)
        if standard is not None:
            t, log_weights, location, scale = standard
            if self.trimmed and len(t) > 2:
                t, inner = t[1:-1], log_weights[1:-1].copy()
                for inside, outside in ((0, 0), (-1, -1)):
                    inner[inside] = np.logaddexp(inner[inside], log_weights[outside])
                log_weights = inner
            return plain(location) + plain(scale) * column(t), column(log_weights), (len(t),)
        if isinstance(density, Mixture):
            rules = [self._rule(component) for component in density.components]
            shape = np.broadcast_shapes(*(v.shape[1:] for nodes, logs, _ in rules for v in (nodes, logs)))
            logs = [log_w + math.log(float(w)) for (_, log_w, _), w in zip(rules, density.weights, strict=True)]
            nodes = np.concatenate([np.broadcast_to(v, (len(v), *shape)) for v, _, _ in rules])
            weights = np.concatenate([np.broadcast_to(v, (len(v), *shape)) for v in logs])
            return nodes, weights, tuple(size for _, _, blocks in rules for size in blocks)
        if not density.discrete:
            why = f"a {type(density).__name__} law has no Gauss rule of every size; use adaptive quadrature"
            raise CannotCompute(NAME, self.term.text, why)
        points, logs = table(density)
        return on_axis(points), on_axis(logs), (len(points),)


def _run_together(nodes: Array, blocks: tuple[int, ...]) -> bool:
    """Whether neighbouring nodes are so close, for their size, that floats have no room between them."""
    parts = np.split(nodes, np.cumsum(blocks)[:-1])
    return any(np.any(np.diff(part, axis=0) < _ROOM * np.spacing(np.abs(part[1:]))) for part in parts)


__all__ = ["LARGEST_GRID", "Axes", "Point"]
