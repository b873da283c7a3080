"""Models whose table entries are symbols, and the evaluation of formulas on them as log forms.

The entries of the tables that a formula reads become functions of free parameters, and the one traversal evaluates the
formula on log forms (see `logforms`) instead of numbers. A row of n entries has n - 1 parameters, in one of three ways:
its last entry is what the others leave; its entries are the squares of a point of a sphere, for formulas with square
roots; or it is broken off a stick piece by piece, so that the parameters fill a box.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from boundcheck.claims.logforms import (
    FractionalPower,
    LogForm,
    LogForms,
    Ratio,
    has_positive_coefficients,
    positive_on_simplices,
)
from boundcheck.errors import CannotCompute
from boundcheck.evaluators.domain import Domain
from boundcheck.evaluators.lognumber import LeavesField
from boundcheck.evaluators.objects import along, mapped, scalar
from boundcheck.evaluators.traversal import Traversal
from boundcheck.language.laws import DensityLaw, Law, MixtureLaw, ModelLaw
from boundcheck.language.terms import CORRUPTED, Binder, LogDensity, Space, Term, X, walk
from boundcheck.models.finite import FiniteModel

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


# --- the domain ----------------------------------------------------------------------------------------------------


class LogFormDomain(Domain):
    """Numbers are log forms, weights are rational functions."""

    name = "symbolic evaluator"
    bytes_per_number = 4000

    def __init__(self, symbols: SymbolicTables) -> None:
        self.symbols, self.forms = symbols, symbols.forms
        self.fractional_power = False

    def constant(self, value: Fraction) -> NDArray[Any]:
        return scalar(self.forms.form(self.forms.ratio(value)))

    def weight_table(self, model: FiniteModel, role: str, inputs: tuple[Space, ...]) -> NDArray[Any]:
        model.table(role, inputs)  # may refuse these inputs
        return self.symbols.tables[role]

    def log_table(self, model: FiniteModel, role: str, inputs: tuple[Space, ...]) -> NDArray[Any]:
        return mapped(partial(self.forms.log, known_positive=True), self.weight_table(model, role, inputs))

    def weights(self, log_density: NDArray[Any]) -> NDArray[Any]:
        return mapped(self._exp, log_density)

    def _exp(self, a: LogForm) -> Ratio:
        try:
            return self.forms.exp(a)
        except FractionalPower:
            self.fractional_power = True
            raise

    def weight_product(self, weights: NDArray[Any], axis: int) -> NDArray[Any]:
        def product(entries: Sequence[Ratio]) -> Ratio:
            result = self.forms.one
            for entry in entries:
                result = self.forms.times_ratio(result, entry)
            return result

        return along(product, axis, weights)

    def times(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return mapped(self.forms.times_ratio, a, b)

    def counts(self, values: NDArray[Any]) -> NDArray[Any]:
        return mapped(self.forms.ratio, values)

    def add(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return mapped(self.forms.add, a, b)

    def multiply(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return mapped(self.forms.multiply, a, b)

    def power(self, a: NDArray[Any], exponent: Fraction) -> NDArray[Any]:
        def raised(base: LogForm) -> LogForm:
            if base.logs or exponent.denominator != 1:
                raise LeavesField("a power of a logarithm, or a power that is no integer")
            return self.forms.form(self.forms.power(base.rest, exponent.numerator))

        return mapped(raised, a)

    def exp(self, a: NDArray[Any]) -> NDArray[Any]:
        return mapped(lambda each: self.forms.form(self._exp(each)), a)

    def log(self, a: NDArray[Any]) -> NDArray[Any]:
        def logarithm(value: LogForm) -> LogForm:
            if value.logs:
                raise LeavesField("a logarithm of a logarithm")
            return self.forms.log(value.rest)

        return mapped(logarithm, a)

    def choose(self, op: str, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return mapped(partial(self.forms.choose, op), a, b)

    def expectation(self, weights: NDArray[Any], values: NDArray[Any], axis: int) -> NDArray[Any]:
        return along(self.forms.weighted, axis, weights, values)

    def log_expectation(self, weights: NDArray[Any], logs: NDArray[Any], axis: int) -> NDArray[Any]:
        return along(self._log_sum, axis, weights, logs)

    def reduce(self, op: str, values: NDArray[Any], axis: int) -> NDArray[Any]:
        def reduced(entries: Sequence[LogForm]) -> LogForm:
            if op == "sum":
                return self.forms.weighted([self.forms.one] * len(entries), entries)
            result = entries[0]
            for entry in entries[1:]:
                result = self.forms.choose(op, result, entry)
            return result

        return along(reduced, axis, values)

    def log_sum(self, logs: NDArray[Any], axis: int) -> NDArray[Any]:
        return along(lambda entries: self._log_sum([self.forms.one] * len(entries), entries), axis, logs)

    def _log_sum(self, weights: Sequence[Ratio], logs: Sequence[LogForm]) -> LogForm:
        """log sum_i w_i exp(l_i); a factor common to all exp(l_i) may be outside the field."""
        forms = self.forms
        try:
            return self._log_of_sum(weights, map(forms.exp, logs))
        except LeavesField:
            first = logs[0]
            inner = self._log_of_sum(weights, (self._exp(forms.subtract(each, first)) for each in logs))
            return forms.add(inner, first)

    def _log_of_sum(self, weights: Sequence[Ratio], values: Iterable[Ratio]) -> LogForm:
        # Weights are probabilities, counts or one, and exponentials are positive: so is the sum.
        parts = [self.forms.times_ratio(w, v) for w, v in zip(weights, values, strict=True)]
        return self.forms.log(self.forms.plus(*parts), known_positive=True)


def log_form(term: Term, symbols: SymbolicTables) -> LogForm:
    """A term as a log form in the parameters of its tables.

    Raises:
        CannotCompute: the value is not such a function.
        OutOfBudget: the polynomials grow too large, or the time is spent.
    """
    sizes = {"x": 1, "z": 1, "x~": 1} | symbols.sizes
    carrier = _uniform(sizes, "x~" in symbols.sizes)
    domain = LogFormDomain(symbols)
    try:
        value: LogForm = Traversal(carrier, 0, domain).value(term).data.item()
    except CannotCompute as refusal:
        if domain.fractional_power:
            raise HalfPowers(refusal.evaluator, refusal.term, refusal.reason) from None
        raise
    if value.rest.trouble:
        raise CannotCompute(domain.name, term.text, value.rest.trouble)
    return value


class HalfPowers(CannotCompute):
    """Powers that are no integers are in the way; entries that are squares may help."""


def _uniform(sizes: Mapping[str, int], corrupted: bool) -> FiniteModel:
    """A model of the given sizes: it tells the traversal the sizes, and the domain supplies the numbers."""
    x, z, c = sizes["x"], sizes["z"], sizes["x~"]

    def row(n: int) -> list[Fraction]:
        return [Fraction(1, n)] * n

    more = {"corruption": [row(c)] * x, "auxiliary": [[row(c)] * x] * z} if corrupted else {}
    return FiniteModel(prior=row(z), likelihood=[row(x)] * z, encoder=[row(z)] * (c if corrupted else x), **more)


__all__ = [
    "DEFAULT_SECONDS",
    "HalfPowers",
    "Layout",
    "LogFormDomain",
    "SymbolicTables",
    "log_form",
    "row_of_squares",
    "row_of_sticks",
    "row_with_last_entry_left",
    "symbolic_tables",
]
