"""What `list` found, kept between runs, without ever showing it for another formula or another program.

A survey is kept under a hash of everything it depends on: the source of the package, the versions of what it computes
with, the claim's formulas, gap and known witness, the number of models and the seed. A file that does not read back
as it was written is as good as none.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boundcheck
from boundcheck.catalogue import claims
from boundcheck.claims.family import cases
from boundcheck.claims.survey import survey, witness_first
from boundcheck.cli.report import progress
from boundcheck.errors import BoundcheckError, CannotCompute
from boundcheck.evaluators.kept import ModelValues, values_on
from boundcheck.language import Term, to_json
from boundcheck.search.files import write_text

if TYPE_CHECKING:
    from boundcheck.claims.claim import Claim

FORMAT = "boundcheck-surveys/1"
MOST_SHARED = 500
"""Models whose values are kept for all claims; more of them are made and evaluated for each claim anew."""
LIBRARIES = ("numpy", "python-flint", "scipy", "sympy")


def surveys(count: int, seed: int, use_cache: bool = True) -> list[dict[str, Any]]:
    """Every claim of the catalogue with what is known of it, as JSON-ready objects.

    Most claims speak of the same few formulas, so the models are made once, and each formula is evaluated once on each.

    Args:
        count: how many random models for each claim.
        seed: the seed of the random models.
        use_cache: False to compute everything anew.
    """
    program = program_hash()
    kept = read(program) if use_cache else {}
    found: list[dict[str, Any]] = []
    table = claims()
    fresh: dict[str, dict[str, Any]] = {}
    keys = {name: _key(claim, count, seed) for name, claim in table.items()}
    missing = sum(key not in kept for key in keys.values())

    @cache
    def shared(family: str) -> Sequence[tuple[ModelValues, Sequence[Any]]]:
        models, observations = zip(*cases(family, min(count, MOST_SHARED), seed), strict=True)
        return list(zip(values_on(models), observations, strict=True))

    def models(family: str) -> Iterator[tuple[Any, Sequence[Any]]]:
        yield from shared(family)
        if count > MOST_SHARED:
            yield from islice(cases(family, count, seed), len(shared(family)), None)

    with progress("judging the catalogue", missing) as advance, _rare_collection():
        for name, claim in table.items():
            key = keys[name]
            if key not in kept:
                fresh[key] = _judge(claim, models(claim.family))
                advance()
            found.append(kept.get(key) or fresh[key])
    if fresh and program == program_hash():  # the source may have been edited meanwhile
        write(program, kept | fresh)
    return found


@contextmanager
def _rare_collection() -> Iterator[None]:
    """Looking seldom for cycles of garbage among values that are nearly all kept: it took a sixth of the time."""
    thresholds = gc.get_threshold()
    gc.set_threshold(200_000, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def _judge(claim: Claim, models: Iterable[tuple[Any, Sequence[Any]]]) -> dict[str, Any]:
    what = {"source": claim.source, "statement": claim.statement, "relation": claim.relation}
    try:
        return what | survey(claim, models=witness_first(claim, models)).to_json()
    except CannotCompute as error:
        return what | {
            "claim": claim.name,
            "verdict": "undecided",
            "status": "undecided",
            "detail": str(error),
            "guarantee": None,
        }


def _key(claim: Claim, count: int, seed: int) -> str:
    lhs, rhs = claim.terms
    parts = {
        "claim": (claim.name, claim.statement, claim.source),
        "lhs": to_json(lhs),
        "rhs": to_json(rhs),
        "gap": to_json(claim.gap) if isinstance(claim.gap, Term) else None,
        "relation": claim.relation,
        "covering": claim.covering,
        "witness": claim.witness().to_json() if claim.witness else None,
        "count": count,
        "seed": seed,
    }
    return _hash(parts)


def _hash(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def program_hash() -> str:
    """A hash of the package's source and of the versions of what it computes with; empty if they cannot be told."""
    digest = hashlib.sha256()
    root = Path(boundcheck.__file__).parent
    files = sorted(root.rglob("*.py"))
    if not files:
        return ""
    for file in files:
        digest.update(file.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    try:
        versions = [f"{name} {metadata.version(name)}" for name in LIBRARIES]
    except metadata.PackageNotFoundError:
        return ""
    digest.update(json.dumps([boundcheck.__version__, sys.version, *versions]).encode())
    return digest.hexdigest()


def folder() -> Path:
    """Where the user's system keeps caches."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "boundcheck"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "boundcheck"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "boundcheck" / "Cache"
    return Path.home() / ".cache" / "boundcheck"


def read(program: str) -> dict[str, dict[str, Any]]:
    """The surveys that this very program has kept, by key; nothing if the file is absent, foreign or damaged."""
    try:
        data = json.loads((folder() / "surveys.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError, RecursionError):
        return {}
    if not isinstance(data, Mapping) or not program:
        return {}
    surveys = data.get("surveys")
    if (data.get("format"), data.get("program"), data.get("sum")) != (FORMAT, program, _hash(surveys)):
        return {}
    return surveys if isinstance(surveys, dict) else {}


def write(program: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep surveys; a place that cannot be written to is no reason to fail."""
    if not program:
        return
    data = {"format": FORMAT, "program": program, "sum": _hash(found), "surveys": found}
    try:
        folder().mkdir(parents=True, exist_ok=True)
        write_text(folder() / "surveys.json", json.dumps(data))
    except (OSError, BoundcheckError, RuntimeError):
        pass


__all__ = ["folder", "program_hash", "read", "surveys", "write"]
