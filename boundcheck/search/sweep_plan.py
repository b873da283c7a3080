"""What a sweep is going to do: claims, and tasks that each are a pure function of what is written in them.

A task carries its claim's formulas, not the name of a file: a worker, wherever it runs, needs nothing but boundcheck
itself, and an edit to a user's file in the middle of a sweep changes nothing. The digest of a plan covers the formulas,
the tasks and the program, so that results are never continued by another formula or another version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from boundcheck import catalogue
from boundcheck.claims.claim import Claim
from boundcheck.claims.survey import DEFAULT_COUNT
from boundcheck.errors import BadInput
from boundcheck.language import from_json, to_json
from boundcheck.language.terms import Term
from boundcheck.models.finite import FiniteModel
from boundcheck.search.batch import Sizes, fitting
from boundcheck.search.falsify import DEFAULT_BUDGET

Kind = Literal["judge", "search", "survey"]
CONTINUOUS_COUNT = 400
"""How many models of a continuous family are tried from each seed unless told otherwise: one after the other, without
the proposals that a search among tables has, so that a claim that fails on a thirtieth of them is still refuted."""

_LIBRARIES = ("numpy", "python-flint", "scipy", "sympy", "torch")


@dataclass(frozen=True)
class Task:
    """One piece of work: a claim judged, searched for a counterexample, or surveyed on a continuous family.

    Args:
        claim: the name by which the plan knows the claim.
        kind: "judge" (what `check` says of the claim), "search" (finite models), "survey" (a continuous family).
        seed: the seed of its random models.
        models: how many models it tries at the most.
        sizes: the numbers of states at which a search stays; None lets it go from small to large.
    """

    claim: str
    kind: Kind
    seed: int
    models: int
    sizes: Sizes | None = None

    @property
    def key(self) -> str:
        """What the task is, as text: equal for equal tasks, different for different ones.

        >>> Task("elbo-below-evidence", "search", 3, 1000, Sizes(2, 3)).key
        'search elbo-below-evidence (seed 3, at most 1000 models, sizes 2,3)'
        """
        at = f", sizes {self.sizes.text}" if self.sizes else ""
        return f"{self.kind} {self.claim} (seed {self.seed}, at most {self.models} models{at})"


@dataclass(frozen=True)
class Plan:
    """The claims by name, as they are and as JSON, and the tasks of a sweep; see `plan_of`."""

    claims: Mapping[str, Claim]
    claims_json: Mapping[str, Mapping[str, Any]]
    tasks: tuple[Task, ...]
    what: str

    def text(self, task: Task) -> str:
        """A task with all that a worker needs, as JSON."""
        sizes = [task.sizes.x, task.sizes.z, task.sizes.xt] if task.sizes else None
        data = {"claim": task.claim, "kind": task.kind, "seed": task.seed, "models": task.models, "sizes": sizes}
        return json.dumps({"program": program(), "task": data, "claim": self.claims_json[task.claim]})

    @cached_property
    def digest(self) -> str:
        """A hash of the formulas, the tasks and the program."""
        parts = {"program": program(), "claims": self.claims_json, "tasks": [task.key for task in self.tasks]}
        return _hash(json.dumps(parts, sort_keys=True).encode())

    def is_catalogued(self, name: str) -> bool:
        """True if the claim of that name is the catalogue's own."""
        return catalogue.claims().get(name) is self.claims[name]


def plan_of(
    claims: Iterable[Claim] | Mapping[str, Claim],
    *,
    seeds: Sequence[int] = range(5),
    budget: int = DEFAULT_BUDGET,
    count: int = CONTINUOUS_COUNT,
    sizes: Sequence[Sizes] = (),
) -> Plan:
    """The plan of a sweep: each claim judged once, then tried from every seed, at every one of the sizes.

    Args:
        claims: claims, or claims by the names to know them by.
        seeds: the seeds of the searches.
        budget: how many finite models a search tries at the most.
        count: how many models of a continuous family are tried from each seed.
        sizes: the numbers of states to search at, `xt` being left out for claims without a corruption; by default a
            search goes from small sizes to larger ones by itself.

    Raises:
        BadInput: no claims, two of one name, no seeds, a budget below one, sizes that a claim cannot have, or a claim
            that is not made of formulas alone.

    >>> from boundcheck.catalogue import find
    >>> plan = plan_of([find("elbo-below-evidence")], seeds=range(2), budget=100)
    >>> [task.key for task in plan.tasks]
    ['judge elbo-below-evidence (seed 0, at most 60 models)',
     'search elbo-below-evidence (seed 0, at most 100 models)',
     'search elbo-below-evidence (seed 1, at most 100 models)']
    """
    named = _by_name(claims)
    if not named:
        raise BadInput("claims", "none", "at least one claim")
    seeds = list(dict.fromkeys(seeds))
    if not seeds:
        raise BadInput("seeds", "none", "at least one seed")
    for argument, value, least in [("budget", budget, 1), ("count", count, 1), *(("seed", each, 0) for each in seeds)]:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise BadInput(argument, value, f"a whole number of at least {least}")
    tasks = [Task(name, "judge", 0, DEFAULT_COUNT) for name in named]
    for seed in seeds:  # seed by seed, so that a sweep that is cut short has seen every claim
        for name, claim in named.items():
            tasks += dict.fromkeys(_tasks(name, claim, seed, budget, count, sizes))
    what = f"{_counted(len(named), 'claim')}, {_counted(len(seeds), 'seed')} from {min(seeds)}, budget {budget}"
    what += f", count {count}" if any(claim.family != "finite" for claim in named.values()) else ""
    what += "".join(f", sizes {each.text}" for each in sizes)
    return Plan(named, {name: claim_to_json(claim) for name, claim in named.items()}, tuple(tasks), what)


def _by_name(claims: Iterable[Claim] | Mapping[str, Claim]) -> dict[str, Claim]:
    if isinstance(claims, Mapping):
        return {str(name): claim for name, claim in claims.items()}
    named: dict[str, Claim] = {}
    for claim in claims:
        if claim.name in named:
            raise BadInput("claims", claim.name, "claims of different names", "or a dict of claims by name")
        named[claim.name] = claim
    return named


def _tasks(name: str, claim: Claim, seed: int, budget: int, count: int, sizes: Sequence[Sizes]) -> Iterator[Task]:
    if claim.family != "finite":
        yield Task(name, "survey", seed, count)
    elif not sizes:
        yield Task(name, "search", seed, budget)
    else:
        yield from (Task(name, "search", seed, budget, fitting(claim, each)) for each in sizes)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


# --- claims and programs as text -----------------------------------------------------------------------------------


def claim_to_json(claim: Claim) -> dict[str, Any]:
    """A claim with its formulas, gap and known witness, JSON-ready; `claim_from_json` reads it back.

    Raises:
        BadInput: a claim that is not made of formulas alone.

    >>> from boundcheck.catalogue import find
    >>> claim = find("denoising-readings-agree")
    >>> claim_from_json(claim_to_json(claim)).terms == claim.terms
    True
    """
    if claim.black_boxes:
        remedy = f"{claim.black_boxes[0].name} is a black box, which cannot be sent to other processes: use falsify"
        raise BadInput("the claim", claim.name, "a claim made of formulas", remedy)
    lhs, rhs = claim.terms
    witness = claim.witness() if claim.witness else None
    return {
        "name": claim.name,
        "lhs": to_json(lhs),
        "relation": claim.relation,
        "rhs": to_json(rhs),
        "statement": claim.statement,
        "source": claim.source,
        "gap": to_json(claim.gap) if isinstance(claim.gap, Term) else None,
        "family": claim.family,
        "covering": claim.covering,
        "note": claim.note,
        "witness": witness.to_json() if witness else None,
    }


def claim_from_json(data: Mapping[str, Any]) -> Claim:
    """The claim of a JSON object.

    Raises:
        BadInput: a formula or a model that is none.
    """
    fields = dict(data)
    for side in ("lhs", "rhs", "gap"):
        fields[side] = from_json(fields[side]) if fields[side] is not None else None
    if fields["witness"] is not None:
        known = FiniteModel.from_json(fields["witness"])
        fields["witness"] = lambda: known
    return Claim(**fields)


@cache
def program() -> str:
    """A hash of the package's source and of the versions of what it computes with; torch may be absent.

    >>> len(program())
    64
    """
    root = Path(__file__).resolve().parent.parent
    parts = [f"{name} {_version_of(name)}".encode() for name in _LIBRARIES]
    for file in sorted(root.rglob("*.py")):
        parts += [file.relative_to(root).as_posix().encode(), file.read_bytes()]
    return _hash(b"".join(hashlib.sha256(part).digest() for part in parts))


@cache
def version() -> str:
    """The version of boundcheck."""
    return _version_of("boundcheck")


def _version_of(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


__all__ = [
    "CONTINUOUS_COUNT",
    "Kind",
    "Plan",
    "Task",
    "claim_from_json",
    "claim_to_json",
    "plan_of",
    "program",
    "version",
]
