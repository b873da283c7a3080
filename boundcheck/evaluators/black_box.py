"""Objectives that are no formula: a Python callable (numpy, torch) that returns a number for each model.

Nothing is known of what happens inside one, so its number is never more than a float with a declared error, and a
verdict on it is "numerical" at best. Whatever is not one number that depends on the model alone (NaN, an array, an
exception, another number at the second call) is an error that names the model, never a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, ObjectiveFailed, require
from boundcheck.evaluators import returned
from boundcheck.evaluators.values import Approximate
from boundcheck.language.terms import X
from boundcheck.models.finite import FiniteModel

Takes: TypeAlias = Literal["arrays", "tensors", "model"]

DEFAULT_ERROR = 1e-6
"""The error granted to a black box that declares none, in nats, relative beyond 1: what float64 code should reach."""

EPSILONS = 8192
"""A result of a coarser type than float64 is granted as many machine epsilons of its type (float32: about 1e-3)."""

SMALLEST = 1e-300
"""Positive probabilities below this lose their digits in floats."""

READABLE = ("encoder", "corruption", "auxiliary")
"""Tables that a black box may declare to read, beside the prior, the likelihood and the joint that all models have."""

SPACES = ("x", "z", "x~")


class Tables:
    """The tables of one model as float arrays (or tensors): `m.joint[x, z]` is p(x, z).

    `prior` (Z), `likelihood` (Z, X), `joint` (X, Z), `encoder` (X or X~, Z), `corruption` (X, X~) and `auxiliary`
    (Z, X, X~), as far as the model has them; product spaces are flattened. With `batched=True` all of them have one
    more axis in front, which counts the models.
    """

    prior: Any
    likelihood: Any
    joint: Any
    encoder: Any
    corruption: Any
    auxiliary: Any

    def __init__(self, tables: Mapping[str, Any]) -> None:
        self.__dict__.update(tables)

    def __getattr__(self, role: str) -> Any:
        known = ", ".join(self.__dict__)
        raise AttributeError(f"this model has no {role}, only {known}; say black_box(reads=(...)) for what you read")


@dataclass(frozen=True, eq=False)
class BlackBox:
    """A callable in the place of a formula; made by `black_box`, which says what the fields mean."""

    function: Callable[..., Any]
    error: float | None = None
    takes: Takes = "arrays"
    batched: bool = False
    reads: tuple[str, ...] = ("encoder",)
    clean_encoder: bool = True
    states: Mapping[str, int] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise BadInput("black_box", self.function, "a function of (m, x) that returns a number")
        _require_error(self.error)
        if self.takes not in ("arrays", "tensors", "model"):
            raise BadInput("takes", self.takes, '"arrays", "tensors" or "model"')
        if self.batched and self.takes == "model":
            raise BadInput("batched", True, 'takes="arrays" or takes="tensors" with it', "models come one at a time")
        reads = (self.reads,) if isinstance(self.reads, str) else tuple(self.reads)
        for role in reads:
            if role not in READABLE:
                raise BadInput("reads", role, f"tables among {', '.join(READABLE)}", "the others are always there")
        object.__setattr__(self, "reads", reads)
        for space, count in dict(self.states).items():
            if space not in SPACES or isinstance(count, bool) or not isinstance(count, int) or count < 1:
                expected = 'numbers of states such as {"z": 3}, of x, z or x~'
                raise BadInput("states", {space: count}, expected)
        object.__setattr__(self, "states", dict(self.states))
        object.__setattr__(self, "name", self.name or _name_of(self.function))

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, BlackBox) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Any, ...]:
        states = tuple(sorted(self.states.items()))
        settings = (self.error, self.takes, self.batched, self.reads, self.clean_encoder, states, self.name)
        return (self.function, *settings)

    def __call__(self, *args: Any, **parameters: Any) -> Any:
        """The function itself."""
        return self.function(*args, **parameters)

    @property
    def text(self) -> str:
        """What stands for it in a claim: its name."""
        return f"{self.name}(m, x)"

    @property
    def latex(self) -> str:
        """Its name as LaTeX."""
        name = self.name.translate({ord(c): f"\\{c}" for c in "_%&#${}"})
        return rf"\mathtt{{{name}}}(m, x)"

    @property
    def needs(self) -> frozenset[str]:
        """The roles that a model must supply, and "clean encoder" if the encoder must have a row for each x."""
        roles = {"joint", *self.reads} | ({"corruption"} if "auxiliary" in self.reads else set())
        if "encoder" in roles and self.clean_encoder:
            roles.add("clean encoder")
        return frozenset(roles)

    def fits(self, sizes: Mapping[str, int]) -> bool:
        """True if it is about models with these numbers of states."""
        return all(sizes.get(space) == count for space, count in self.states.items())

    @property
    def trust(self) -> str:
        """The error that its numbers are granted, in words."""
        if self.error is not None:
            return f"within {self.error:g} nats, as declared"
        return f"within {DEFAULT_ERROR:g} * max(1, |number|) nats (no error= is declared)"

    def where(self) -> tuple[str, str]:
        """The file and the name of the function, as far as they are known."""
        function = innermost(self.function)
        code = getattr(function, "__code__", None)
        return (code.co_filename if code is not None else "", getattr(function, "__qualname__", self.name))

    # --- values ---

    def value(self, model: Any, x: Any) -> Approximate:
        """The number at a model and an observation, with the error that it is granted; infinite if it is infinite.

        Raises:
            BadInput: a model of another kind than the callable takes, or without a table that it reads.
            ObjectiveFailed: the callable raises, returns what is no number, or another number at a second call.
        """
        value = self._number(self._given(model), model, x)
        self._require_steady(value.value, self._number(self._given(model), model, x), model, x)
        return value

    def values(
        self,
        tables: Mapping[str, NDArray[Any]],
        x: int,
        model: Callable[[int], FiniteModel],
        failed: Callable[[ObjectiveFailed], None],
    ) -> NDArray[np.float64]:
        """The numbers at a batch of finite models, for a search; they decide nothing.

        Args:
            tables: arrays whose first axis counts the models.
            x: the number of the observed state.
            model: gives one of the models.
            failed: told of each failure; may raise it.

        Returns:
            An array of floats; nan where the callable failed, or returned an infinity that may be an overflow.
        """
        count = len(tables["prior"])
        out = np.full(count, np.nan)

        def alone(i: int) -> Approximate:
            if self.takes == "model":
                return self._number(model(i), None, x)
            here = slice(i, i + 1) if self.batched else i
            return self._number(Tables(self._as({role: table[here] for role, table in tables.items()})), None, x)

        together: ObjectiveFailed | None = None
        if self.batched:
            try:
                numbers = np.array([each.value for each in self._numbers(Tables(self._as(tables)), x, count)])
                self._require_steady(float(numbers[0]), alone(0), None, x)
                return np.where(np.isfinite(numbers), numbers, np.nan)
            except ObjectiveFailed as failure:
                together = failure  # one model at a time will tell which
        for i in range(count):
            try:
                number = alone(i)
                if i == 0:
                    self._require_steady(number.value, alone(0), None, x)
                out[i] = number.value if math.isfinite(number.value) else np.nan
            except ObjectiveFailed as failure:
                failed(failure.on(model(i)))
                together = None
        if together is not None:  # it fails for many models although not for any of them
            failed(together.on(model(0)))
        return out

    def _given(self, model: Any) -> Any:
        """What the callable is called with."""
        if self.takes == "model":
            return model
        if not isinstance(model, FiniteModel):
            expected = f"a finite model: {self.name} takes {self.takes}, tables of probabilities"
            raise BadInput("the model", type(model).__name__, expected, 'declare black_box(takes="model")')
        if not self.fits(model.sizes):
            wanted = ", ".join(f"{count} states of {space}" for space, count in self.states.items())
            raise BadInput("the model", model, f"{wanted}, of which {self.name} is made")
        for role in self.reads:
            model.table(role, (X,) if role == "encoder" and self.clean_encoder else None)
        names = dict.fromkeys(("prior", "likelihood", *model.roles))
        tables = {role: _floats(model, role) for role in names}
        return Tables(self._as({role: table[None] if self.batched else table for role, table in tables.items()}))

    def _require_steady(self, first: float, again: Approximate, model: Any = None, x: Any = 0) -> None:
        if abs(first - again.value) > again.error:
            what = f"returned {first!r}, and {again.value!r} when it was called again,"
            remedy = "seed its generator anew in every call, or declare a larger error="
            raise ObjectiveFailed(self.name, "unsteady", what, model, x, remedy)

    def _as(self, tables: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Copies, so that a callable that works in place changes nobody's model."""
        if self.takes == "arrays":
            return {role: np.array(table, dtype=np.float64) for role, table in tables.items()}
        torch = require("torch", "torch", 'black_box(takes="tensors")')
        return {role: torch.tensor(table, dtype=torch.float64) for role, table in tables.items()}

    def _number(self, given: Any, model: Any, x: Any) -> Approximate:
        if self.batched:
            return self._numbers(given, x, 1, model)[0]
        return self._checked(self._result(given, x, model), model, x)

    def _numbers(self, given: Any, x: Any, count: int, model: Any = None) -> list[Approximate]:
        raw = self._result(given, x, model)
        result, epsilon = returned.plain(raw), returned.epsilon(raw)
        if not isinstance(result, np.ndarray) or result.shape != (count,):
            remedy = f"with batched=True return one number for each of the {count} models"
            raise ObjectiveFailed(self.name, "array", f"returned {returned.described(result)}", model, x, remedy)
        return [self._checked(each, model, x, epsilon) for each in result]

    def _result(self, given: Any, x: Any, model: Any) -> Any:
        try:
            with np.errstate(all="ignore"):  # what matters is the result, which is looked at
                return self.function(given, x)
        except (Exception, SystemExit) as error:
            place = returned.place(error, self.where()[0])
            what = f"raised {type(error).__name__}: {error}{place}"
            raise ObjectiveFailed(self.name, f"raised {type(error).__name__}", what, model, x) from None

    def _checked(self, result: Any, model: Any, x: Any, epsilon: float = 0.0) -> Approximate:
        number = returned.plain(result)
        if isinstance(number, np.ndarray | str | bool | np.bool_) or not isinstance(number, Real):
            kind = "array" if isinstance(number, np.ndarray) else "no number"
            raise ObjectiveFailed(self.name, kind, f"returned {returned.described(number)}", model, x)
        try:
            value = float(number)
        except OverflowError:  # an int or a Fraction beyond the floats
            value = math.inf if str(number)[0] != "-" else -math.inf
        if math.isnan(value):
            raise ObjectiveFailed(self.name, "nan", "returned nan", model, x)
        return Approximate(value, self._error(value, epsilon or returned.epsilon(result)))

    def _error(self, value: float, epsilon: float) -> float:
        if math.isinf(value):  # an overflow, or the logarithm of an underflow, for all that one can see
            return math.inf
        if self.error is not None:
            return self.error + 4 * math.ulp(value)
        return max(DEFAULT_ERROR, EPSILONS * epsilon) * max(1.0, abs(value))


def black_box(
    function: Callable[..., Any] | None = None,
    /,
    *,
    error: float | None = None,
    takes: Takes = "arrays",
    batched: bool = False,
    reads: tuple[str, ...] = ("encoder",),
    clean_encoder: bool = True,
    states: Mapping[str, int] | None = None,
    name: str = "",
) -> Any:
    """Takes a Python callable as one side of a claim, in the place of a formula; also a decorator.

    The callable is given `(m, x)`: the model's tables as float64 arrays (see `Tables`), and the number of the observed
    state. It returns one number, in nats, that depends on these alone. Its verdicts are numerical at best: where both
    sides differ by no more than the error that is granted to the callable, the claim stays undecided.

    Args:
        function: the callable.
        error: how far its numbers may be from the truth, in nats. By default 1e-6 times max(1, |number|); for a number
            of a coarser type than float64, 8192 machine epsilons of the type if that is more (float32: 1e-3).
        takes: "arrays" (numpy), "tensors" (torch, float64), or "model": the model itself, which then may also be a
            continuous or a linear-Gaussian one, with x as it is observed.
        batched: whether the tables have one more axis in front, over models, and the callable returns one number for
            each; a search is then much faster.
        reads: the tables that it reads beside the joint: "encoder", "corruption", "auxiliary".
        clean_encoder: with a corruption, whether the encoder has as many rows for x~ as there are x, so that row x is
            q(z | x). Say False for a callable that only encodes corrupted inputs; smaller models then suffice.
        states: the numbers of states for which it is written, such as {"z": 3}, if not for any.
        name: what to call it; by default the function's name.

    Raises:
        BadInput: what is no callable, or a setting of another kind.

    Source of the example: an IWAE (Burda et al. 2016, eq. 8) with K = 2 that divides by K - 1.

    >>> from boundcheck import Claim, FiniteModel, check
    >>> from boundcheck.catalogue.objectives import log_evidence
    >>> @black_box
    ... def wrong_iwae(m, x):
    ...     w = m.joint[x] / m.encoder[x]
    ...     q = m.encoder[x]
    ...     return np.sum(q[:, None] * q * np.log((w[:, None] + w) / (2 - 1)))
    >>> model = FiniteModel(prior=["1/2", "1/2"], likelihood=[[1], [1]], encoder=[["1/3", "2/3"]])
    >>> print(check(Claim("wrong", wrong_iwae, "<=", log_evidence), model))
    violated (numerical)
    """
    if isinstance(function, BlackBox):
        raise BadInput("black_box", function.name, "a function", "it is a black box already")

    def made(function: Callable[..., Any]) -> BlackBox:
        return BlackBox(function, error, takes, batched, reads, clean_encoder, states or {}, name)

    return made if function is None else made(function)


def _floats(model: FiniteModel, role: str) -> NDArray[np.float64]:
    """A table in floats; what is too small for all their digits would be another model, and so is refused."""
    table = model.table(role)
    floats = table.astype(np.float64)
    lost = (table > 0) & (floats < SMALLEST)
    if lost.any():
        expected = f"probabilities of 0 or of at least {SMALLEST:g}, as a black box is given floats"
        raise BadInput(f"an entry of {role}", str(table[lost][0]), expected)
    return floats


def innermost(function: Any) -> Any:
    """The function inside of functools.partial."""
    while hasattr(function, "func"):
        function = function.func
    return function


def _name_of(function: Any) -> str:
    name = getattr(innermost(function), "__name__", type(function).__name__)
    keywords = getattr(function, "keywords", None)
    if isinstance(function, partial) and keywords:
        return f"{name}({', '.join(f'{key}={value}' for key, value in keywords.items())})"
    return name


def _require_error(error: Any) -> None:
    if error is None:
        return
    if isinstance(error, bool) or not isinstance(error, Real) or not 0 <= float(error) < math.inf:
        raise BadInput("error", error, "a finite number of nats >= 0")


__all__ = ["DEFAULT_ERROR", "BlackBox", "Tables", "black_box"]
