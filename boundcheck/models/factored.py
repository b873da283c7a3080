"""Factored models: many discrete latent variables, whose joint table nobody could hold.

At the one stated observation x, p(x, z_1..z_N) is a product of factors, each a table over a few of the variables, and
so is the encoder q(z|x). A factor that declares its child variables is a conditional probability, p(child | rest of
its scope), and is checked to be one. Everything that an evaluator needs is a list of logarithms of factors; the
product over all states is never built.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, UnknownName

Name: TypeAlias = str | int

ROW_TOLERANCE = 1e-9
"""A row of conditional probabilities that sums to one within this is divided by its sum; others are refused."""

LARGE = 1 << 15
"""A factor with more entries than this is kept as it was given, and read in blocks."""

FACTORED_ROLES = ("joint", "prior", "likelihood", "encoder")


@dataclass(frozen=True, eq=False)
class Factor:
    """One factor: a table with one axis for each variable of its scope.

    Args:
        scope: the variables, in the order of the table's axes: names, or numbers from 0.
        table: non-negative numbers; with `log`, log-potentials in nats, where -inf stands for zero.
        log: whether the table holds logarithms.
        child: the variables of which the factor is a conditional probability given the others of its scope: the
            entries sum to one over them. None: no such claim, and no such check.
    """

    scope: tuple[Name, ...] | Name
    table: Any
    log: bool = False
    child: tuple[Name, ...] | Name | None = None


@dataclass(frozen=True, eq=False)
class LogFactor:
    """What an evaluator reads of a factor: its scope as numbers of variables, and its logarithms.

    Variables of one state are left out, since nothing depends on them.

    `data` holds logarithms, or probabilities if `linear` (large factors only). `magnitude` is the largest absolute
    value of a finite logarithm; `zeros` tells whether some logarithm is -inf.
    """

    scope: tuple[int, ...]
    data: NDArray[np.float64]
    linear: bool
    magnitude: float
    zeros: bool


class FactoredModel:
    """p(x, z_1..z_N) at one observation x, and an encoder q(z|x), as products of factors over N discrete variables.

    - p(x, z) = product of `factors`. Where the factors that declare their `child` are together a prior (every
      variable is the child of exactly one of them, without a cycle), they are p(z), and the others are p(x|z).
    - q(z|x) = product of `encoder`, all conditional probabilities: mean field, or a chain, tree or other directed
      graph. A factor over one variable has it as its child; any other must say which of its variables are.

    A factor is a `Factor`, or a pair (scope, table). A large table of float64 is not copied: do not change it.

    Args:
        latents: the number of states of each variable, by name, or as a sequence (names are then numbers from 0).
        factors: the factors of the joint; every variable must be in the scope of at least one.
        encoder: the factors of the encoder; none for a model without one.

    Raises:
        BadInput: an entry that is negative, infinite or NaN, a shape that does not fit the scope, an unknown or
            repeated variable, a conditional probability whose rows do not sum to one, an encoder in which a variable
            is the child of no factor or of two, or whose factors form a cycle.

    >>> chain = FactoredModel(
    ...     {"a": 2, "b": 2},
    ...     factors=[Factor("a", [0.5, 0.5], child="a"), (("a", "b"), [[0.3, 0.1], [0.0, 0.6]])],
    ...     encoder=[Factor("b", [0.2, 0.8]), Factor(("b", "a"), [[1.0, 0.0], [0.5, 0.5]], child="a")],
    ... )
    >>> chain.states, chain.roles
    (4, ('joint', 'encoder'))
    """

    def __init__(
        self,
        latents: Mapping[str, int] | Sequence[int],
        factors: Iterable[Factor | tuple[Any, Any]],
        encoder: Iterable[Factor | tuple[Any, Any]] = (),
    ) -> None:
        self.latents: dict[Name, int] = _checked_sizes(latents)
        self._numbers = {name: i for i, name in enumerate(self.latents)}
        self._factors = [self._factor(f"factors[{i}]", f) for i, f in enumerate(_listed("factors", factors))]
        self._encoder = [
            self._factor(f"encoder[{i}]", f, directed=True) for i, f in enumerate(_listed("encoder", encoder))
        ]
        covered = {v for factor, _ in self._factors for v in factor.scope}
        for name, number in self._numbers.items():
            if number not in covered and self.latents[name] > 1:
                remedy = "give it a factor, or leave it out of the latents"
                raise BadInput("the factors", f"none over {name!r}", "every variable in some factor's scope", remedy)
        if self._encoder:
            self._require_directed("encoder", [(factor.scope, child) for factor, child in self._encoder if child])

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The number of states of each variable."""
        return tuple(self.latents.values())

    @property
    def states(self) -> int:
        """The number of joint states of all variables."""
        return math.prod(self.shape)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that `factors_of` knows in this model."""
        split = ("prior", "likelihood") if self._has_prior else ()
        return ("joint", *split, *(("encoder",) if self._encoder else ()))

    def factors_of(self, role: str) -> list[LogFactor]:
        """The factors whose product a role is: joint, prior, likelihood or encoder.

        Raises:
            BadInput: the model has no such role.
        """
        if role not in self.roles:
            remedy = {
                "encoder": "pass encoder=[...]",
                "prior": "declare child=... in factors that are together the prior",
                "likelihood": "declare child=... in factors that are together the prior",
            }.get(role, "use a formula of the joint and the encoder alone")
            raise BadInput("the factored model", f"without {role}", f"a model with {role}", remedy)
        if role == "encoder":
            return [factor for factor, _ in self._encoder]
        return [factor for factor, child in self._factors if role == "joint" or (role == "prior") == bool(child)]

    @cached_property
    def derived(self) -> dict[Any, Any]:
        """A cache for evaluators: what they derived from the factors."""
        return {}

    @cached_property
    def _has_prior(self) -> bool:
        graph = [(factor.scope, child) for factor, child in self._factors if child]
        try:
            self._require_directed("prior", graph)
        except BadInput:
            return False
        return True

    def __repr__(self) -> str:
        given = f"{len(self._factors)} factors, encoder of {len(self._encoder)}"
        return f"FactoredModel({len(self.latents)} latents of {self.states} states, {given})"

    # --- checks ---

    def _number(self, where: str, name: object) -> int:
        if isinstance(name, np.integer):
            name = int(name)
        if not isinstance(name, str | int) or isinstance(name, bool) or name not in self._numbers:
            raise UnknownName(f"variable of {where}", str(name), map(str, self._numbers))
        return self._numbers[name]

    def _variables(self, where: str, names: object) -> tuple[int, ...]:
        listed = (names,) if isinstance(names, str | int | np.integer) else names
        if not isinstance(listed, Iterable):
            raise BadInput(where, names, "a tuple of variables")
        numbers = tuple(self._number(where, name) for name in listed)
        if len(set(numbers)) < len(numbers):
            raise BadInput(where, names, "each variable once", "sum or slice the table first")
        return numbers

    def _factor(self, where: str, given: object, directed: bool = False) -> tuple[LogFactor, tuple[int, ...]]:
        if isinstance(given, tuple) and len(given) == 2:
            given = Factor(given[0], given[1])
        if not isinstance(given, Factor):
            raise BadInput(where, given, "a Factor or a pair (scope, table)", "write Factor(('a', 'b'), [[...], ...])")
        scope = self._variables(f"the scope of {where}", given.scope)
        child: tuple[int, ...] = ()
        if given.child is not None:
            child = self._variables(f"the child of {where}", given.child)
            if not child or not set(child) <= set(scope):
                raise BadInput(f"the child of {where}", given.child, f"variables of its scope {given.scope!r}")
        elif directed and len(scope) == 1:
            child = scope
        elif directed:
            raise BadInput(f"the child of {where}", None, "the variables that sum to one", "use Factor(..., child=...)")
        data = _checked_table(where, given.table, given.log)
        shape = tuple(self.shape[v] for v in scope)
        if data.shape != shape:
            raise BadInput(f"the shape of {where}", data.shape, f"{shape}: the states of {given.scope!r}")
        if child:
            data = _checked_rows(where, data, tuple(scope.index(v) for v in child), given.log)
        wide = tuple(v for v in scope if self.shape[v] > 1)
        return _log_factor(wide, data.reshape([self.shape[v] for v in wide]), given.log), child

    def _require_directed(self, what: str, graph: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
        """Every variable is the child of exactly one factor, and no variable is its own ancestor."""
        names, expected = list(self.latents), "each variable the child of one factor"
        made_by: dict[int, int] = {}
        for i, (_, child) in enumerate(graph):
            for v in child:
                if v in made_by:
                    raise BadInput(f"the {what}", f"two factors of {names[v]!r}", expected)
                made_by[v] = i
        for v, name in enumerate(names):
            if v not in made_by:
                raise BadInput(f"the {what}", f"no factor of {name!r}", expected)
        parents = {i: {made_by[v] for v in scope} - {i} for i, (scope, _) in enumerate(graph)}
        try:
            TopologicalSorter(parents).prepare()
        except CycleError as found:
            stuck = ", ".join(repr(names[v]) for i in sorted(set(found.args[1])) for v in graph[i][1])
            expected = "conditional probabilities without a cycle"
            raise BadInput(f"the {what}", f"a cycle among {stuck}", expected) from None


def _checked_sizes(latents: object) -> dict[Name, int]:
    if isinstance(latents, Mapping):
        sizes = dict(latents)
    elif isinstance(latents, Sequence) and not isinstance(latents, str | bytes):
        sizes = dict(enumerate(latents))
    else:
        raise BadInput("latents", latents, "the number of states of each variable", "pass {'a': 2, 'b': 3} or [2, 3]")
    if not sizes:
        raise BadInput("latents", latents, "at least one variable")
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise BadInput(f"the number of states of {name!r}", size, "a positive integer")
    return {name: int(size) for name, size in sizes.items()}


def _listed(what: str, factors: object) -> list[Any]:
    if isinstance(factors, Factor | str | bytes | Mapping) or not isinstance(factors, Iterable):
        raise BadInput(what, factors, "a list of factors", "put it in brackets")
    return list(factors)


def _checked_table(where: str, table: object, log: bool) -> NDArray[np.float64]:
    try:
        data = np.asarray(table)
        if data.dtype.kind not in "biufO":
            raise TypeError
        data = np.ascontiguousarray(data, dtype=np.float64).reshape(data.shape)
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"the table of {where}", table, "nested lists of numbers, all of one length") from None
    if isinstance(table, np.ndarray) and np.may_share_memory(data, table):
        data = data.copy() if data.size <= LARGE else data.view()
    data.flags.writeable = False
    if not data.size:
        raise BadInput(f"the table of {where}", table, "at least one entry")
    top, low = float(data.max()), float(data.min())  # NaN, if there is one, is both
    if math.isnan(top) or top == math.inf or (not log and low < 0):
        bad = np.isnan(data) | (data == np.inf) | ((data < 0) & (not log))
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        place = f"the entry {list(index)} of {where}"
        expected = "a log-potential below +inf" if log else "a finite number >= 0"
        remedy = "" if log else "pass log=True if the table holds logarithms"
        raise BadInput(place, float(data[index]), expected, remedy)
    return data


def _checked_rows(where: str, data: NDArray[np.float64], axes: tuple[int, ...], log: bool) -> NDArray[np.float64]:
    """Rows that sum to one over the child's axes: divided by their sum, if it is one up to rounding."""
    sums = (np.exp(data) if log else data).sum(axis=axes, keepdims=True)
    off = np.abs(sums - 1)
    if float(off.max()) > ROW_TOLERANCE:
        row = np.unravel_index(int(np.argmax(off)), sums.shape)
        rest = [int(i) for axis, i in enumerate(row) if axis not in axes]
        place = f"the sum of {where}" + (f" at {rest}" if rest else "")
        raise BadInput(place, float(sums[row]), "1 over its child", "normalise it, or declare the right child")
    if float(off.max()) == 0.0:
        return data
    return data - np.log(sums) if log else data / sums


def _log_factor(scope: tuple[int, ...], data: NDArray[np.float64], log: bool) -> LogFactor:
    large = data.size > LARGE
    if not log and not large:
        with np.errstate(divide="ignore"):
            data, log = np.log(data), True
    low, top, zeros = _finite_range(data, log)
    if not log:
        low, top = (math.log(value) if value > 0 else 0.0 for value in (low, top))
    magnitude = max((abs(value) for value in (low, top) if math.isfinite(value)), default=0.0)
    return LogFactor(scope, data, not log, magnitude, zeros)


def _finite_range(data: NDArray[np.float64], log: bool) -> tuple[float, float, bool]:
    """The smallest and largest entry that is no zero, and whether there is a zero."""
    zero = -np.inf if log else 0.0
    low, top = float(data.min()), float(data.max())
    if low > zero:
        return low, top, False
    low = min(float(part[part > zero].min(initial=np.inf)) for part in np.array_split(data.reshape(-1), 64))
    return min(low, top), top, True


__all__ = ["FACTORED_ROLES", "LARGE", "Factor", "FactoredModel", "LogFactor", "Name"]
