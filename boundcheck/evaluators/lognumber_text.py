"""How an exact number is written: for people, for sympy and for files.

People read log(5/3) better than log(5) - log(3), so logs are combined into one while its argument stays short.
Files keep the number as it is held, with every integer written out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from flint import fmpq, fmpz

from boundcheck.evaluators.coprime import LogSum
from boundcheck.evaluators.rationals import primitive_root

Terms: TypeAlias = tuple[fmpq, list[tuple[fmpq, fmpq]]]
"""(c_0, [(c_1, r_1), ...]) for c_0 + c_1 log r_1 + ..., with rationals r_i > 1."""

_SHORT = 10**9


def combined_terms(coprime_logs: LogSum) -> list[tuple[fmpq, fmpq]]:
    """A sum of logs of coprime integers as c log r with r > 1 if r is short, else as few such terms.

    Example:
        >>> combined_terms({fmpz(5): fmpq(1, 2), fmpz(9): fmpq(-1, 4)})
        [(1/2, 5/3)]
    """
    roots = []
    for integer, coefficient in coprime_logs.items():
        root, exponent = primitive_root(integer)
        roots.append((root, coefficient * exponent))
    single = _single_term(roots)
    if single is not None:
        return [single]
    # Terms of one coefficient, up to its sign, make one log: c log 5 - c log 3 = c log(5/3).
    by_size: dict[fmpq, fmpq] = {}
    for root, coefficient in roots:
        size = abs(coefficient)
        argument = by_size.get(size, fmpq(1))
        by_size[size] = argument * root if coefficient > 0 else argument / root
    terms = [_above_one(size, argument) for size, argument in by_size.items()]
    return sorted(terms, key=lambda term: (term[1].height_bits(), term[1]))


def _single_term(roots: list[tuple[fmpz, fmpq]]) -> tuple[fmpq, fmpq] | None:
    """c log r for the whole sum, c as large as possible, where r has a numerator and denominator below 10^9."""
    if not roots:
        return None
    denominator, content = fmpz(1), fmpz(0)
    for _, coefficient in roots:
        denominator = denominator.lcm(coefficient.q)
    exponents = [(root, (coefficient * denominator).p) for root, coefficient in roots]
    for _, exponent in exponents:
        content = content.gcd(exponent)
    if sum((root.bit_length() - 1) * abs(exponent // content) for root, exponent in exponents) > 60:
        return None  # numerator and denominator together have more than 2 * 30 bits
    argument = fmpq(1)
    for root, exponent in exponents:
        argument *= fmpq(root) ** int(exponent // content)
    if max(argument.p, argument.q) >= _SHORT:
        return None
    return _above_one(fmpq(content, denominator), argument)


def _above_one(coefficient: fmpq, argument: fmpq) -> tuple[fmpq, fmpq]:
    return (coefficient, argument) if argument > 1 else (-coefficient, 1 / argument)


def to_text(terms: Terms) -> str:
    """The number as sympy writes it: 1/2 - 3*log(5/3)/10.

    Example:
        >>> to_text((fmpq(1, 2), [(fmpq(-3, 10), fmpq(5, 3))]))
        '1/2 - 3*log(5/3)/10'
    """
    constant, logs = terms
    pieces = [(constant < 0, str(abs(constant)))] if constant or not logs else []
    for coefficient, argument in logs:
        times = "" if abs(coefficient.p) == 1 else f"{abs(coefficient.p)}*"
        over = "" if coefficient.q == 1 else f"/{coefficient.q}"
        pieces.append((coefficient < 0, f"{times}log({argument}){over}"))
    text = "".join(f" {'-' if negative else '+'} {piece}" for negative, piece in pieces)
    return text.removeprefix(" + ") if text.startswith(" + ") else f"-{text.removeprefix(' - ')}"


def to_sympy(terms: Terms | float) -> Any:
    """The same terms as a sympy expression, or sympy.oo, -sympy.oo or sympy.nan for a float that is not finite."""
    import sympy

    if not isinstance(terms, tuple):
        return sympy.nan if math.isnan(terms) else sympy.oo * (1 if terms > 0 else -1)

    def rational(value: fmpq) -> Any:
        return sympy.Rational(int(value.p), int(value.q))

    constant, logs = terms
    return rational(constant) + sum(rational(c) * sympy.log(rational(argument)) for c, argument in logs)


def to_json(constant: fmpq, logs: LogSum) -> dict[str, Any]:
    """{"constant": c_0, "logs": [[n_1, c_1], ...]}, every number as a string, largest integer last."""
    ordered = sorted(logs.items(), key=lambda item: item[0])
    return {"constant": str(constant), "logs": [[str(integer), str(c)] for integer, c in ordered]}


def from_json(data: object) -> tuple[fmpq, LogSum] | float:
    """The inverse of `to_json`; an infinity or nan for {"infinite": "+"}, {"infinite": "-"}, {"undefined": true}.

    Raises:
        BadInput: `data` is not of that form.
    """
    if not isinstance(data, Mapping):
        raise _bad("exact number", data, 'an object {"constant": ..., "logs": [...]}')
    if data.keys() == {"undefined"} and data["undefined"] is True:
        return math.nan
    if data.keys() == {"infinite"} and data["infinite"] in ("+", "-"):
        return math.inf if data["infinite"] == "+" else -math.inf
    if data.keys() != {"constant", "logs"}:
        expected = '"constant" and "logs", or "infinite": "+" or "-", or "undefined": true, and nothing else'
        raise _bad("exact number", dict(data), expected)
    entries = data["logs"]
    if not isinstance(entries, list | tuple):
        raise _bad("logs", entries, "a list of pairs [integer, coefficient]")
    logs: LogSum = {}
    for entry in entries:
        if not isinstance(entry, list | tuple) or len(entry) != 2:
            raise _bad("logs", entry, "a pair [integer, coefficient]")
        integer = _parsed_rational("logs", entry[0])
        if integer.q != 1 or integer <= 1:
            raise _bad("logs", entry[0], "an integer greater than 1 inside the log")
        logs[integer.p] = logs.get(integer.p, fmpq(0)) + _parsed_rational("logs", entry[1])
    return _parsed_rational("constant", data["constant"]), {n: c for n, c in logs.items() if c}


def _parsed_rational(argument: str, text: object) -> fmpq:
    """A rational from a string, without Python's limit on the digits of an int."""
    if isinstance(text, str) and (match := re.fullmatch(r"(-?[0-9]+)(?:/([0-9]+))?", text)):
        denominator = fmpz(match[2] or "1")
        if denominator != 0:
            return fmpq(fmpz(match[1]), denominator)
    raise _bad(argument, text, 'an integer or a fraction as a string, such as "3" or "-1/2"')


def _bad(argument: str, value: object, expected: str) -> Exception:
    from boundcheck.errors import BadInput

    return BadInput(argument, value, expected, "restore the file as boundcheck wrote it")
