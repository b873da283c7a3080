"""What boundcheck says when it cannot go on.

Every error a user can meet is one clear line: what was wrong, with which value, what was expected, and what
to do next. Two things are kept apart throughout: "cannot compute" is an exception from this module, while
"cannot decide" is a verdict and never an exception. The command line catches `BoundcheckError` and prints its
line, so whatever a user's mistake can trigger derives from it.
"""

from __future__ import annotations

import difflib
import importlib
import reprlib
from collections.abc import Iterable
from types import ModuleType

__all__ = [
    "BadInput",
    "BoundcheckError",
    "CannotCompute",
    "CannotComputeExactly",
    "FormulaError",
    "MissingExtra",
    "ObjectiveFailed",
    "UndefinedValue",
    "UnknownName",
    "require",
]

_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = _shorten.maxlong = 60
_LONGEST = 200  # a nested value has many short parts


def _short(value: object) -> str:
    """The value in at most one short line; a value whose own repr fails does not hide the message."""
    try:
        text = " ".join(_shorten.repr(value).split())
    except Exception:  # a user's broken __repr__ must not replace the error they need to read
        return f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class BoundcheckError(Exception):
    """The root of every error that boundcheck raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call the subclass with the finished message in place of its own arguments, and fail;
        # an error that cannot be copied is lost on its way back from a worker process.
        return _rebuild, (type(self), self.args, self.__dict__)


class BadInput(BoundcheckError, ValueError):
    """An argument has a value that cannot be used.

    Args:
        argument: the argument's name, as the caller wrote it.
        value: the offending value; the message shortens it.
        expected: what would have been accepted, as a noun phrase.
        remedy: what to do about it, as an imperative; may be empty when `expected` says it all.

    Example:
        >>> raise BadInput("k", 0, "a positive integer", "pass k=1 for the ELBO")
        Traceback (most recent call last):
        boundcheck.errors.BadInput: k = 0: expected a positive integer; pass k=1 for the ELBO
    """

    def __init__(self, argument: str, value: object, expected: str, remedy: str = "") -> None:
        message = f"{argument} = {_short(value)}: expected {expected}"
        super().__init__(f"{message}; {remedy}" if remedy else message)
        self.argument = argument
        self.value = value
        self.expected = expected
        self.remedy = remedy


class UnknownName(BadInput):
    """A name that nothing answers to; the message suggests the nearest known one.

    Args:
        kind: what was being looked up, for example "claim".
        name: the name that was not found.
        known: every name that would have been found.

    Example:
        >>> raise UnknownName("claim", "iwea", ["elbo", "iwae"])
        Traceback (most recent call last):
        boundcheck.errors.UnknownName: claim = 'iwea': expected a known claim; did you mean 'iwae'?
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.known = tuple(sorted(known))
        self.nearest = tuple(difflib.get_close_matches(str(name), self.known, n=3))
        if self.nearest:
            remedy = f"did you mean {' or '.join(map(repr, self.nearest))}?"
        elif self.known:
            shown = ", ".join(map(repr, self.known[:10]))
            remedy = f"known: {shown}" + (", ..." if len(self.known) > 10 else "")
        else:
            remedy = "none is known"
        super().__init__(kind, name, f"a known {kind}", remedy)
        self.kind = kind
        self.name = name


class FormulaError(BoundcheckError):
    """A formula is written in a way that has no meaning.

    Example:
        >>> raise FormulaError("the body of E(...) must return a term; it returned None")
        Traceback (most recent call last):
        boundcheck.errors.FormulaError: the body of E(...) must return a term; it returned None
    """


class CannotCompute(BoundcheckError):
    """An evaluator has no way to compute a term; another evaluator may.

    Args:
        evaluator: the evaluator's name.
        term: the term as text.
        reason: why this evaluator cannot compute it.

    Example:
        >>> raise CannotCompute("exact", "E[z ~ q] log p(x, z)", "z is continuous")
        Traceback (most recent call last):
        boundcheck.errors.CannotCompute: exact cannot compute E[z ~ q] log p(x, z): z is continuous
    """

    _verb = "cannot compute"

    def __init__(self, evaluator: str, term: str, reason: str) -> None:
        super().__init__(f"{evaluator} {self._verb} {_shorten_text(term)}: {reason}")
        self.evaluator = evaluator
        self.term = term
        self.reason = reason


class CannotComputeExactly(CannotCompute):
    """The term has a value, but not one that exact arithmetic can hold; an enclosure may still serve."""

    _verb = "cannot compute exactly"


class UndefinedValue(BoundcheckError):
    """A term has no value: it meets inf - inf, or 0 * inf, at a point of the support.

    Args:
        term: the term as text.
        where: the point, as text: the variables and their values.

    Example:
        >>> raise UndefinedValue("log p(z) - log q(z)", "z = 1")
        Traceback (most recent call last):
        boundcheck.errors.UndefinedValue: log p(z) - log q(z) has no value at z = 1 (inf - inf or 0 * inf)
    """

    def __init__(self, term: str, where: str) -> None:
        super().__init__(f"{_shorten_text(term)} has no value at {where} (inf - inf or 0 * inf)")
        self.term = term
        self.where = where


class MissingExtra(BoundcheckError, ImportError):
    """A feature needs a library that boundcheck does not install by default.

    Args:
        feature: what the user asked for, as the subject of a sentence.
        extra: the name of the optional dependency group that brings it.

    Example:
        >>> raise MissingExtra("--plot", "plot")
        Traceback (most recent call last):
        boundcheck.errors.MissingExtra: --plot needs an optional part: pip install "boundcheck[plot]"
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f'{feature} needs an optional part: pip install "boundcheck[{extra}]"')
        self.feature = feature
        self.extra = extra


class ObjectiveFailed(BoundcheckError):
    """A user's own objective, a black box, gave no number on a model.

    Args:
        objective: its name.
        kind: what went wrong, in a word that tells failures apart: "nan", "array", "raised ValueError", ...
        what: what happened, as the end of a sentence whose subject is the objective.
        model: the model, as far as it is known.
        x: the observation.
        remedy: what to do about it.

    Example:
        >>> raise ObjectiveFailed("my_bound", "nan", "returned nan", "a model", 0)
        Traceback (most recent call last):
        boundcheck.errors.ObjectiveFailed: my_bound returned nan at x = 0 on a model; expected one number in nats
    """

    def __init__(self, objective: str, kind: str, what: str, model: object, x: object, remedy: str = "") -> None:
        where = "" if model is None else f" on {_shorten_text(str(model), 400)}"
        advice = f": {remedy}" if remedy else ""
        happened = f"{objective} {_shorten_text(what)}"
        super().__init__(f"{happened} at x = {x}{where}; expected one number in nats{advice}")
        self.objective = objective
        self.kind = kind
        self.what = what
        self.model = model
        self.x = x
        self.remedy = remedy

    def on(self, model: object) -> ObjectiveFailed:
        """The same failure, on a model that is now known."""
        return ObjectiveFailed(self.objective, self.kind, self.what, model, self.x, self.remedy)


def require(module_name: str, extra: str, feature: str) -> ModuleType:
    """Imports a heavy or optional module at the moment it is needed.

    Args:
        module_name: the module to import, dotted.
        extra: the optional dependency group that brings it.
        feature: what needs it, for the message.

    Returns:
        The imported module.

    Raises:
        MissingExtra: the library is not installed. A library that is installed but fails to import for
            another reason raises its own error, which says more than "not installed" would.

    Example:
        >>> require("math", extra="plot", feature="--plot").sqrt(4.0)
        2.0
        >>> require("no_such_library", extra="plot", feature="--plot")
        Traceback (most recent call last):
        boundcheck.errors.MissingExtra: --plot needs an optional part: pip install "boundcheck[plot]"
    """
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as absent:
        top = module_name.partition(".")[0]
        if absent.name != top:
            raise
        raise MissingExtra(feature, extra) from None


def _shorten_text(text: str, limit: int = 160) -> str:
    """A long term in the middle of a message would hide the reason that follows it."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def _rebuild(kind: type[BoundcheckError], args: tuple[object, ...], fields: dict[str, object]) -> BoundcheckError:
    """Restores an error without its constructor, from its message and its attributes."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    return error
