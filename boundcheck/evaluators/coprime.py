"""Rewrites a sum of logarithms of integers over pairwise coprime integers, by gcds and without factoring.

The integers of an exact value are products and sums of a model's probabilities: hundreds of digits, beyond
factoring. Nothing here needs primes. If g divides a and b then log a = log g + log(a/g), and likewise for b; applied
until no two integers share a divisor, this makes the logarithms linearly independent over the rationals, because
integers that share no prime have no multiplicative relation.

A sum c_1 log n_1 + c_2 log n_2 + ... is a dict {n_i: c_i} with integers n_i > 1 throughout.
"""

from __future__ import annotations

from typing import TypeAlias

from flint import fmpq, fmpz

LogSum: TypeAlias = dict[fmpz, fmpq]


def over_coprime_base(logs: LogSum) -> LogSum:
    """The same sum over pairwise coprime integers, without zero coefficients: it is empty iff the sum is zero.

    Divide and conquer, as in Bernstein (2005, "Factoring into coprimes in essentially linear time"): one gcd of two
    products finds the few integers that two halves have in common, and only those are split.

    Example:
        >>> over_coprime_base({fmpz(12): fmpq(1), fmpz(18): fmpq(-1, 2)})
        {2: 3/2}
    """
    if not logs:
        return {}
    items = sorted(logs.items(), key=lambda item: item[0])
    base, _ = _coprime_base_and_support(items)
    return {integer: coefficient for integer, coefficient in base.items() if coefficient}


def _coprime_base_and_support(items: list[tuple[fmpz, fmpq]]) -> tuple[LogSum, fmpz]:
    """A coprime base of the items, and an integer divisible by exactly the primes that divide one of them."""
    if len(items) == 1:
        integer, coefficient = items[0]
        return {integer: coefficient}, integer
    middle = len(items) // 2
    left, left_support = _coprime_base_and_support(items[:middle])
    right, right_support = _coprime_base_and_support(items[middle:])
    common = left_support.gcd(right_support)
    if common == 1:
        return left | right, left_support * right_support
    # A prime in both halves divides `common`; what is coprime to `common` needs no further look.
    meeting = {n: c for n, c in left.items() if n.gcd(common) != 1}
    arriving = [(n, c) for n, c in right.items() if n.gcd(common) != 1]
    apart = {n: c for n, c in left.items() if n not in meeting}
    apart |= {n: c for n, c in right.items() if n.gcd(common) == 1}
    _insert_all(meeting, arriving)
    return apart | meeting, left_support * (right_support // common)


def _insert_all(base: LogSum, arriving: list[tuple[fmpz, fmpq]]) -> None:
    """Adds terms to a coprime base in place, splitting it where an integer shares a divisor with it.

    Every split replaces a pair a, b with a product smaller by the factor gcd(a, b), so this ends.
    """
    while arriving:
        integer, coefficient = arriving.pop()
        for member in list(base):
            if integer == 1:
                break
            divisor = integer.gcd(member)
            while divisor == member:
                integer = integer // member
                base[member] += coefficient
                divisor = integer.gcd(member)
            if divisor != 1:
                member_coefficient = base.pop(member)
                arriving.append((divisor, coefficient + member_coefficient))
                arriving.append((integer // divisor, coefficient))
                arriving.append((member // divisor, member_coefficient))
                break
        else:
            if integer != 1:
                base[integer] = coefficient
