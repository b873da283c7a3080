"""Models whose table entries are symbols.

The entries of the tables that a formula reads become functions of free parameters (see `log_form_domain` for its value
as a log form in them). A row of n entries has n - 1 parameters, in one of three ways:
its last entry is what the others leave; its entries are the squares of a point of a sphere, for formulas with square
roots; or it is broken off a stick piece by piece, so that the parameters fill a box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from boundcheck.claims.logforms import (
    LogForms,
    Ratio,
    has_positive_coefficients,
    positive_on_simplices,
)
from boundcheck.language.laws import DensityLaw, Law, MixtureLaw, ModelLaw
from boundcheck.language.terms import CORRUPTED, Binder, LogDensity, Space, Term, X, walk

DEFAULT_SECONDS = 10.0

Row: TypeAlias = list[Ratio]


# --- what a formula reads --------------------------------------------------------------------------------------------


def roles_of(term: Term) -> frozenset[str]:
    """The model's laws that occur in a term, also inside the laws that the formula builds."""
    found: set[str] = set()
    for sub in walk(term):
        law = getattr(sub, "law", None)
        if isinstance(law, Law):
            found |= _roles_of_law(law)
    return frozenset(found)


def _roles_of_law(law: Law) -> frozenset[str]:
    if isinstance(law, ModelLaw):
        return frozenset([law.role])
    if isinstance(law, MixtureLaw):
        return _roles_of_law(law.mixing) | _roles_of_law(law.component)
    assert isinstance(law, DensityLaw)
    return roles_of(law.log_density)


def _binds(term: Term, space: Space) -> bool:
    return any(isinstance(sub, Binder) and sub.var.space == space for sub in walk(term)) or any(
        isinstance(sub, LogDensity) and isinstance(sub.law, MixtureLaw | DensityLaw) and sub.law.var.space == space
        for sub in walk(term)
    )


# --- tables of symbols ---------------------------------------------------------------------------------------------


@dataclass
class SymbolicTables:
    """Tables whose entries are functions of parameters.

    `rows` lists the parameters of each row, `tables` has the axes of `FiniteModel.table`. A formula that does not range
    over x reads the first observed state only, and then there is just this one, or copies of it.
    """

    names: list[str]
    inside: list[Fraction]
    rows: list[list[int]]
    tables: dict[str, NDArray[Any]]
    forms: LogForms
    sizes: dict[str, int]
    ranges_over_x: bool


MakeRow: TypeAlias = Callable[[LogForms, Sequence[str]], Row]
"""A row of n positive entries that sum to one, from n - 1 parameters."""


def row_with_last_entry_left(forms: LogForms, names: Sequence[str]) -> Row:
    """q_1, ..., q_{n-1}, 1 - q_1 - ... - q_{n-1}: every row with positive entries."""
    entries = [forms.parameter(name) for name in names]
    return [*entries, forms.plus(forms.one, *map(forms.minus, entries))]


def row_of_squares(forms: LogForms, names: Sequence[str]) -> Row:
    """The squares of a point of the sphere: (2 t_i)^2 and (1 - |t|^2)^2, over (1 + |t|^2)^2, for t_i > 0, |t| < 1.

    Every row with positive entries is one (stereographic projection).
    """
    t = [forms.parameter(name) for name in names]
    norm = forms.plus(*(forms.power(each, 2) for each in t))
    below = forms.power(forms.plus(forms.one, norm), -1)
    point = [*(forms.plus(each, each) for each in t), forms.plus(forms.one, forms.minus(norm))]
    return [forms.power(forms.times_ratio(each, below), 2) for each in point]


def row_of_sticks(forms: LogForms, names: Sequence[str]) -> Row:
    """u_1, (1 - u_1) u_2, ...: every row with positive entries, as a box of parameters."""
    left, entries = forms.one, []
    for name in names:
        u = forms.parameter(name)
        entries.append(forms.times_ratio(left, u))
        left = forms.times_ratio(left, forms.plus(forms.one, forms.minus(u)))
    return [*entries, left]


@dataclass
class Layout:
    """The rows that a term needs: for each role its shape without the last axis."""

    sizes: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    free_joint: bool
    ranges_over_x: bool

    @classmethod
    def of(cls, term: Term, sizes: Mapping[str, int]) -> Layout:
        """What a term reads: of the observed states only the first one, unless it ranges over them."""
        roles = roles_of(term)
        corrupted = bool(roles & {"corruption", "auxiliary"}) or _binds(term, CORRUPTED)
        ranges_over_x = _binds(term, X)
        observed = sizes["x"] if ranges_over_x else 1
        product = bool(roles & {"prior", "likelihood"}) or ranges_over_x
        used = set(roles)
        if "joint" in used and product:
            used |= {"prior", "likelihood"}
        shapes: dict[str, tuple[int, ...]] = {}
        for role in ("prior", "likelihood", "corruption", "encoder", "auxiliary"):
            if role in used:
                rows = {
                    "prior": (),
                    "likelihood": (sizes["z"],),
                    "corruption": (observed,),
                    "encoder": (sizes["x~"] if corrupted else observed,),
                    "auxiliary": (sizes["z"], observed),
                }
                shapes[role] = rows[role]
        kept = {"z": sizes["z"]} | ({"x~": sizes["x~"]} if corrupted else {})
        if ranges_over_x or (corrupted and _reads_clean_encoder(term)):
            kept["x"] = sizes["x"]
        return cls(kept, shapes, "joint" in used and not product, ranges_over_x)


def _reads_clean_encoder(term: Term) -> bool:
    laws = [getattr(sub, "law", None) for sub in walk(term)]
    return any(isinstance(law, ModelLaw) and law.role == "encoder" and _is_observation(law) for law in laws)


def _is_observation(law: ModelLaw) -> bool:
    return any(getattr(arg, "space", None) == X for arg in law.args)


def symbolic_tables(
    term: Term,
    sizes: Mapping[str, int],
    make_row: MakeRow = row_with_last_entry_left,
    *,
    evidence: bool = False,
    seconds: float = DEFAULT_SECONDS,
) -> SymbolicTables:
    """The tables that a term reads, as symbols.

    A term that reads p(x,z) only has its entries at the observed x as free positive parameters, or, with `evidence`,
    as p(x) p(z|x); one that reads p(z) or p(x|z) has these as rows.
    """
    layout = Layout.of(term, sizes)
    width = {"prior": sizes["z"], "likelihood": sizes["x"] if layout.ranges_over_x else 2, "encoder": sizes["z"]}
    width |= {"corruption": sizes["x~"], "auxiliary": sizes["x~"]}
    squares = make_row is row_of_squares
    names: list[str] = []
    inside: list[Fraction] = []
    rows: list[list[int]] = []
    plan: dict[tuple[str, tuple[int, ...]], list[str]] = {}

    def parameters(label: str, n: int, row: bool) -> list[str]:
        made = [f"{label}{i}" for i in range(n)]
        if row:
            rows.append(list(range(len(names), len(names) + n)))
        names.extend(made)
        inside.extend([Fraction(1, n + 1)] * n)
        return made

    for role, shape in layout.shapes.items():
        for index in np.ndindex(*shape):
            place = "_".join(map(str, index))
            plan[role, index] = parameters(f"{role}_{place}_" if place else f"{role}_", width[role] - 1, True)
    free: list[str] = []
    if layout.free_joint:
        n = sizes["z"]
        free = (
            [*parameters("evidence", 1, True), *parameters("posterior_", n - 1, True)]
            if evidence
            else parameters("joint_", n, False)
        )
    positive = has_positive_coefficients if squares else partial(positive_on_simplices, rows=rows)
    forms = LogForms(names, inside, positive, seconds)
    tables: dict[str, NDArray[Any]] = {}
    for role, shape in layout.shapes.items():
        table = np.empty((*shape, width[role]), dtype=object)
        for index in np.ndindex(*shape):
            for i, entry in enumerate(make_row(forms, plan[role, index])):
                table[(*index, i)] = entry
        tables[role] = table
    if layout.free_joint and evidence:
        weight = forms.parameter(free[0])
        tables["joint"] = _table([[forms.times_ratio(weight, p) for p in make_row(forms, free[1:])]])
    elif layout.free_joint:
        tables["joint"] = _table([[forms.power(forms.parameter(name), 2 if squares else 1) for name in free]])
    elif "likelihood" in tables and "prior" in tables:
        prior, likelihood = tables["prior"], tables["likelihood"]
        states = range(likelihood.shape[1])
        tables["joint"] = _table(
            [[forms.times_ratio(prior[z], likelihood[z, x]) for z in range(len(prior))] for x in states]
        )
    if not layout.ranges_over_x:
        observed = layout.sizes.get("x", 1)
        for role in tables:
            axis = _OBSERVED_AXIS.get(role, 0 if role == "encoder" and "x~" not in layout.sizes else None)
            if axis is not None:
                tables[role] = np.repeat(tables[role].take([0], axis=axis), observed, axis=axis)
    return SymbolicTables(names, inside, rows, tables, forms, layout.sizes, layout.ranges_over_x)


_OBSERVED_AXIS = {"joint": 0, "likelihood": 1, "corruption": 0, "auxiliary": 1}
"""Where a table has the observed state; of those that a formula never reads all are alike."""


def _table(entries: list[list[Ratio]]) -> NDArray[Any]:
    table = np.empty((len(entries), len(entries[0])), dtype=object)
    for index in np.ndindex(*table.shape):
        table[index] = entries[index[0]][index[1]]
    return table


__all__ = [
    "DEFAULT_SECONDS",
    "Layout",
    "SymbolicTables",
    "row_of_squares",
    "row_of_sticks",
    "row_with_last_entry_left",
    "symbolic_tables",
]
