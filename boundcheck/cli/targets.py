"""What a command's NAME stands for: a claim of the catalogue, or FILE.py:OBJECT, a claim of the user's own."""

from __future__ import annotations

import contextlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from boundcheck import catalogue
from boundcheck.catalogue.objectives import log_evidence
from boundcheck.claims.claim import Claim
from boundcheck.errors import BadInput, BoundcheckError, FormulaError, UnknownName
from boundcheck.evaluators.black_box import BlackBox
from boundcheck.language import Term, to_json
from boundcheck.search.regression import Form, Origin

MODULE_NAME = "boundcheck_users_claims"

_REMEDY = "a function that computes with arrays is no formula: decorate it with boundcheck.black_box"


def find_claim(target: str) -> Claim:
    """The claim that a command's NAME stands for.

    An object in a file may be a Claim, a function without arguments that returns one, or an objective: a formula (a
    function of (m, x)), or a black box. That is judged as a lower bound on log p(x).

    Raises:
        UnknownName: no such claim in the catalogue, or no such object in the file.
        BadInput: a file that cannot be imported, or an object of another kind.
        FormulaError: a formula that misuses the language.

    >>> find_claim("elbo-below-evidence").relation
    '<='
    """
    path, colon, name = target.rpartition(":")
    if colon and path.endswith(".py"):
        with users_code(target, remedy=_REMEDY):
            return _claim_of(_load(Path(path)), path, name)
    if target.endswith(".py"):
        raise BadInput("the claim", target, "FILE.py:NAME", "say which object of the file, as in claims.py:my_claim")
    return catalogue.find(target)


def find_objectives(target: str) -> list[BlackBox | Callable[..., Any]]:
    """The callables that FILE.py:NAME gives for the black boxes of a witness: a function, a black box, or a claim's.

    Raises:
        UnknownName: no such object in the file.
        BadInput: a target of another form, a file that cannot be imported, or an object without a callable.
    """
    path, colon, name = target.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise BadInput("--objective", target, "FILE.py:NAME", "as in --objective mine.py:my_objective")
    with users_code(target, "--objective"):
        value = _object_of(_load(Path(path)), path, name)
    if isinstance(value, Claim) and value.black_boxes:
        return list(value.black_boxes)
    if isinstance(value, Claim | Term) or not callable(value):
        raise BadInput(f"{path}:{name}", value, "a function of (m, x) that returns a number, or a claim that has one")
    return [value]


def origin_of(target: str) -> Origin | None:
    """Where the code of a claim is that `find_claim` found last, for a test that imports it; None in the catalogue."""
    path, colon, name = target.rpartition(":")
    if not colon or not path.endswith(".py"):
        return None
    value: Any = getattr(sys.modules[MODULE_NAME], name)
    form: Form = "objective"
    if isinstance(value, Claim):
        form = "claim"
    elif not isinstance(value, Term | BlackBox) and _takes_nothing(value):
        form = "maker"
    return Origin(path, name, form)


@contextlib.contextmanager
def users_code(target: str, argument: str = "the claim", remedy: str = "") -> Iterator[None]:
    """Run what a user wrote: what it prints goes to stderr, and what it raises becomes one line that names the place.

    Args:
        target: FILE.py:OBJECT; for any other text nothing is translated.
        argument: what the target is, for the message.
        remedy: what to do about a TypeError or an AttributeError.

    Raises:
        BadInput: the user's code failed.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except BoundcheckError:
        raise
    except (Exception, SystemExit) as error:
        file, colon, _ = target.rpartition(":")
        line = _line_in(file, error) if colon else None
        if line is None and not isinstance(error, SystemExit):
            raise  # not the user's mistake
        where = f" (line {line})" if line else ""
        advice = f"; {remedy}" if remedy and isinstance(error, AttributeError | TypeError) else ""
        told = f"{type(error).__name__}: {error}{where}{advice}"
        raise BadInput(argument, target, "Python code that runs", told) from None


def _line_in(file: str, error: BaseException) -> int | None:
    """The line of a file at which an error arose; None if it arose elsewhere."""
    path = Path(file).resolve()
    line = None
    for frame, lineno in traceback.walk_tb(error.__traceback__):
        if Path(frame.f_code.co_filename).resolve() == path:
            line = lineno
    return line


def roles_of(claim: Claim) -> frozenset[str]:
    """The model's tables that the claim's formulas can read."""

    def found(data: Any) -> Iterator[str]:
        if isinstance(data, dict):
            if "role" in data:
                yield data["role"]
            for value in data.values():
                yield from found(value)
        elif isinstance(data, list):
            for value in data:
                yield from found(value)

    formulas = [side for side in claim.sides if isinstance(side, Term)]
    return frozenset([*(role for side in formulas for role in found(to_json(side))), *claim.roles])


def _load(path: Path) -> ModuleType:
    # Compiled from the source itself: a cached bytecode file is only as new as the clock's last second, and the
    # verdict on an older formula would be a wrong one.
    try:
        source = path.read_bytes()
    except OSError as error:
        raise BadInput("the claim file", str(path), "a readable Python file", error.strerror or str(error)) from None
    try:
        code = compile(source, str(path), "exec")
    except (SyntaxError, ValueError) as error:
        raise BadInput("the claim file", str(path), "Python source", str(error)) from None
    module = ModuleType(MODULE_NAME)
    module.__file__ = str(path)
    sys.modules[MODULE_NAME] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        exec(code, module.__dict__)
    except BoundcheckError as error:  # it may be about another object of the file than the one that was asked for
        raise BoundcheckError(f"{path}, line {_line_in(str(path), error)}: {error}") from None
    finally:
        sys.path.pop(0)
    return module


def _claim_of(module: ModuleType, path: str, name: str) -> Claim:
    value = _object_of(module, path, name)
    if isinstance(value, Claim):
        return value
    if callable(value) and not isinstance(value, BlackBox) and _takes_nothing(value):
        value = value()
        if not isinstance(value, Claim):
            raise BadInput(f"{path}:{name}()", value, "a Claim", "or let it take (m, x) and return a term")
        return value
    if isinstance(value, Term) or callable(value):
        statement = f"{name} is a lower bound on log p(x)."
        formula: Any = value
        try:
            return Claim(name, formula, "<=", log_evidence, statement=statement, source=path)
        except FormulaError as error:
            if not _reads_tables(error):
                raise
            raise FormulaError(f"{error}; {_REMEDY}") from None
    raise BadInput(f"{path}:{name}", value, "a Claim, or a formula: a function of (m, x)")


def _object_of(module: ModuleType, path: str, name: str) -> Any:
    objects = vars(module)
    if name not in objects:
        kinds = Claim | Term | BlackBox
        known = [key for key, value in objects.items() if isinstance(value, kinds) or _is_own(value, module)]
        raise UnknownName(f"object of {path}", name, known)
    return objects[name]


def _reads_tables(error: FormulaError) -> bool:
    """True if a formula asked the symbolic model for a table, as a function that computes with arrays does."""
    return str(error).startswith("a model has no ")


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        return not inspect.signature(function).parameters
    except (TypeError, ValueError):  # no signature to be had
        return False


def _is_own(value: object, module: ModuleType) -> bool:
    return inspect.isfunction(value) and value.__module__ == module.__name__


__all__ = ["find_claim", "find_objectives", "origin_of", "roles_of", "users_code"]
