"""Published claims, one family a file, all of one shape: a tuple `CLAIMS` of `Claim`s.

The tables say what is claimed and where, never whether it is true. To add a family, write a file with `CLAIMS` and
name it in `FAMILIES`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from boundcheck.claims.claim import Claim
from boundcheck.errors import UnknownName

FAMILIES = ("elbo", "denoising", "importance", "renyi", "hierarchical", "thermodynamic", "sampling", "continuous")


@cache
def claims() -> dict[str, Claim]:
    """Every claim of the catalogue by name, in the order of the families.

    >>> len(claims()) >= 30
    True
    """
    table: dict[str, Claim] = {}
    for family in FAMILIES:
        for claim in import_module(f"boundcheck.catalogue.{family}").CLAIMS:
            if claim.name in table:
                raise ValueError(f"two claims are called {claim.name}")
            table[claim.name] = claim
    return table


def find(name: str) -> Claim:
    """The claim of that name.

    Raises:
        UnknownName: with the nearest known names.

    >>> find("elbo-below-evidence").relation
    '<='
    """
    table = claims()
    if name not in table:
        raise UnknownName("claim", name, table)
    return table[name]


__all__ = ["FAMILIES", "claims", "find"]
