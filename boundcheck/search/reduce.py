"""From a violation to the one a reader wants to see: few states, simple fractions, equal rows.

Every step proposes a simpler model and keeps it if the exact (or enclosure) evaluator still finds the claim violated
there. Candidates are screened in batches of floats first, because most of them fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from boundcheck.claims.check import check
from boundcheck.claims.claim import Claim
from boundcheck.claims.decide import Outcome
from boundcheck.errors import BoundcheckError
from boundcheck.models.finite import FiniteModel
from boundcheck.search.batch import ModelBatch, Sizes, margins

Test = Callable[[FiniteModel], bool]
Rows = dict[str, NDArray[Any]]

_ROLES = ("prior", "likelihood", "encoder", "corruption", "auxiliary")
SMALL_DENOMINATORS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 30, 40, 50, 100)
"""Denominators among which a counterexample is looked for from scratch."""

LARGEST_DENOMINATOR = 64
"""Denominators up to this are tried one by one; beyond it powers of two."""


def violates(claim: Claim, model: FiniteModel, x: int = 0) -> bool:
    """True if the claim applies to the model and is violated there, decided exactly or by enclosures."""
    try:
        return claim.applies(model, x) and check(claim, model, x).outcome is Outcome.VIOLATED
    except BoundcheckError:
        return False


def simplest(claim: Claim, model: FiniteModel, rng: Generator) -> FiniteModel:
    """A model of the same size on which the claim still fails (at x = 0), with small denominators and tied rows.

    Small fractions drawn at random are tried first. If the violation needs larger ones, those near the model are
    tried in order of their denominators; a violation that needs very large ones stays an exact dyadic.
    """
    best = among_small_fractions(claim, size_of(model), frozenset(model.roles), rng)
    return _tidied(claim, best or _smallest_denominator(claim, model, rng) or model)


def among_small_fractions(
    claim: Claim, sizes: Sizes, roles: frozenset[str], rng: Generator, tries: int = 1024
) -> FiniteModel | None:
    """A violation among random models whose positive entries have one small denominator, smallest first."""
    for denominator in SMALL_DENOMINATORS:
        counts: Rows = {}
        for role, shape in sizes.shapes(roles).items():
            if shape[-1] > denominator:
                break
            shares = rng.dirichlet(np.full(shape[-1], 0.7), size=(tries, *shape[:-1]))
            counts[role] = 1 + _largest_remainder(shares, denominator - shape[-1])
        else:
            batch = ModelBatch(sizes, {role: table / denominator for role, table in counts.items()})
            found = _first_violation(claim, batch, counts, denominator)
            if found is not None:
                return found
    return None


def _first_violation(claim: Claim, batch: ModelBatch, counts: Rows, denominator: int) -> FiniteModel | None:
    loss = margins(claim, batch)
    with np.errstate(invalid="ignore"):
        promising = np.abs(loss) > 1e-13 if claim.relation == "==" else loss < -1e-13
    for index in np.flatnonzero(promising)[:4]:
        candidate = _model({role: _as_fractions(table[index], denominator) for role, table in counts.items()})
        if violates(claim, candidate):
            return candidate
    return None


def size_of(model: FiniteModel) -> Sizes:
    """The numbers of states of a model."""
    return Sizes(model.sizes["x"], model.sizes["z"], model.sizes.get("x~", 0))


def rows_of(model: FiniteModel) -> Rows:
    """The tables of a model, as arrays of Fractions."""
    given = {role for role in model.roles if role in _ROLES}
    return {role: model.table(role) for role in _ROLES if role in given | {"prior", "likelihood"}}


def _model(rows: Rows) -> FiniteModel:
    return FiniteModel(**{role: table.tolist() for role, table in rows.items()})


# --- denominators --------------------------------------------------------------------------------------------------


def _smallest_denominator(claim: Claim, model: FiniteModel, rng: Generator) -> FiniteModel | None:
    rows = rows_of(model)
    floats = {role: table.astype(float) for role, table in rows.items()}
    for denominator in [*range(1, LARGEST_DENOMINATOR + 1), *(2**k for k in range(7, 31))]:
        tries = 24 if denominator <= LARGEST_DENOMINATOR else 4
        counts = {role: _rounded(table, denominator, tries, rng) for role, table in floats.items()}
        kept = np.flatnonzero(~_adds_zeros(counts, floats))
        if not len(kept):
            continue
        counts = {role: table[kept] for role, table in counts.items()}
        batch = ModelBatch(size_of(model), {role: table / denominator for role, table in counts.items()})
        found = _first_violation(claim, batch, counts, denominator)
        if found is not None:
            return found
    return None


def _adds_zeros(counts: Rows, floats: Rows) -> NDArray[np.bool_]:
    """Which of the rounded models have an entry of zero that was positive: a finite counterexample convinces more."""
    added = [((table == 0) & (floats[role] > 0)).reshape(len(table), -1).any(axis=1) for role, table in counts.items()]
    return np.any(added, axis=0)


def _rounded(table: NDArray[Any], denominator: int, tries: int, rng: Generator) -> NDArray[Any]:
    """`tries` tables of whole numbers whose rows sum to `denominator`: the nearest, then random ones nearby."""
    noise = rng.uniform(-0.5, 0.5, size=(tries, *table.shape))
    noise[0] = 0
    return _largest_remainder(np.maximum(table * denominator + noise, 0), denominator)


def _largest_remainder(wanted: NDArray[Any], total: int) -> NDArray[Any]:
    """Whole numbers >= 0 near `wanted` (>= 0) whose rows sum to `total`."""
    sums = wanted.sum(axis=-1, keepdims=True)
    wanted = np.where(sums > 0, wanted * total / np.where(sums > 0, sums, 1), total / wanted.shape[-1])
    whole = np.floor(wanted)
    missing = total - whole.sum(axis=-1, keepdims=True)
    rank = np.argsort(np.argsort(whole - wanted, axis=-1), axis=-1)
    return whole + (rank < missing)


def _as_fractions(counts: NDArray[Any], denominator: int) -> NDArray[Any]:
    out = np.empty(counts.shape, dtype=object)
    for index, value in np.ndenumerate(counts):
        out[index] = Fraction(int(value), denominator)
    return out


# --- tidying -------------------------------------------------------------------------------------------------------


def _complexity(rows: Rows) -> tuple[int, int]:
    """What tidying makes smaller: the number of different rows and the size of their fractions."""
    different = sum(len({tuple(row) for row in _as_rows(table)}) for table in rows.values())
    heights = sum(entry.denominator + entry.numerator for table in rows.values() for entry in table.reshape(-1))
    return different, heights


def _as_rows(table: NDArray[Any]) -> NDArray[Any]:
    return table.reshape(-1, table.shape[-1])


def _tidied(claim: Claim, model: FiniteModel) -> FiniteModel:
    rows = rows_of(model)
    improved = True
    while improved:
        improved = False
        for candidate in _neighbours(rows):
            if _complexity(candidate) < _complexity(rows):
                simpler = _model(candidate)
                if violates(claim, simpler):
                    rows, improved = candidate, True
                    break
    return _model(rows)


def _neighbours(rows: Rows) -> Iterator[Rows]:
    """Models with one row made uniform, equal to another row, a mirror image, or rounded to a smaller denominator."""
    for role, table in rows.items():
        flat = _as_rows(table)
        for i, row in enumerate(flat):
            options: list[list[Fraction]] = [[Fraction(1, len(row))] * len(row)]
            options += [list(other) for j, other in enumerate(flat) if j != i]
            options += [list(reversed(list(other))) for j, other in enumerate(flat) if j != i]
            largest = max(entry.denominator for entry in row)
            for denominator in range(1, min(largest, 33)):
                counts = _largest_remainder(row.astype(float) * denominator, denominator)
                options.append([Fraction(int(count), denominator) for count in counts])
            for option in options:
                if option.count(Fraction(0)) > list(row).count(Fraction(0)):
                    continue
                new = flat.copy()
                new[i] = option
                yield {**rows, role: new.reshape(table.shape)}


# --- states --------------------------------------------------------------------------------------------------------


def smaller_models(model: FiniteModel, tie_x: bool) -> Iterator[FiniteModel]:
    """Models with fewer states of x, z or x~: two states merged, one dropped and its rows rescaled, or x observed.

    To observe x is to take p(z|x) for the prior: it shifts both sides of most claims by log p(x), so that what fails
    at x among others fails where x is the only one.

    Args:
        model: the model; the observation of interest is x = 0.
        tie_x: whether the formula reads the encoder at x as well as at x~, so that both must keep one number of states.
    """
    rows = rows_of(model)
    z, x = rows["likelihood"].shape
    for i in range(z):
        for j in range(i + 1, z):
            yield from _maybe(_merged_latents, rows, i, j)
        if z > 1:
            yield from _maybe(_dropped_latent, rows, i)
    if x > 1 and not (tie_x and "corruption" in rows):
        yield from _maybe(_observed, rows)
        yield from _maybe(_merged_observations, rows)
    if "corruption" in rows and not tie_x:
        n = rows["corruption"].shape[1]
        for i in range(n):
            for j in range(n):
                if i != j:
                    yield from _maybe(_merged_corruptions, rows, i, j)


def _maybe(step: Callable[..., Rows], rows: Rows, *args: int) -> Iterator[FiniteModel]:
    try:
        yield _model(step(rows, *args))
    except (BoundcheckError, ZeroDivisionError):
        return


def _normalised(row: NDArray[Any]) -> NDArray[Any]:
    return row / row.sum()


def _merged_latents(rows: Rows, i: int, j: int) -> Rows:
    keep = [k for k in range(len(rows["prior"])) if k != j]
    new = dict(rows)
    weight = rows["prior"][i] + rows["prior"][j]
    prior, likelihood = rows["prior"].copy(), rows["likelihood"].copy()
    likelihood[i] = (prior[i] * likelihood[i] + prior[j] * likelihood[j]) / weight
    prior[i] = weight
    new["prior"], new["likelihood"] = prior[keep], likelihood[keep]
    if "encoder" in rows:
        encoder = rows["encoder"].copy()
        encoder[:, i] = encoder[:, i] + encoder[:, j]
        new["encoder"] = encoder[:, keep]
    if "auxiliary" in rows:
        new["auxiliary"] = rows["auxiliary"][keep]
    return new


def _dropped_latent(rows: Rows, i: int) -> Rows:
    keep = [k for k in range(len(rows["prior"])) if k != i]
    new = dict(rows)
    new["prior"], new["likelihood"] = _normalised(rows["prior"][keep]), rows["likelihood"][keep]
    if "encoder" in rows:
        new["encoder"] = np.array([_normalised(row[keep]) for row in rows["encoder"]], dtype=object)
    if "auxiliary" in rows:
        new["auxiliary"] = rows["auxiliary"][keep]
    return new


def _observed(rows: Rows) -> Rows:
    """The posterior at x = 0 is taken for the prior, and x = 0 is the only observation."""
    new = dict(rows)
    new["prior"] = _normalised(rows["prior"] * rows["likelihood"][:, 0])
    new["likelihood"] = np.full((len(rows["prior"]), 1), Fraction(1), dtype=object)
    first = "corruption" if "corruption" in rows else "encoder"
    if first in rows:
        new[first] = rows[first][:1]
    if "auxiliary" in rows:
        new["auxiliary"] = rows["auxiliary"][:, :1]
    return new


def _merged_observations(rows: Rows) -> Rows:
    """The last observation is merged into the one before it, or into the observation itself if there are but two."""
    new = dict(rows)
    likelihood = rows["likelihood"].copy()
    likelihood[:, -2] = likelihood[:, -2] + likelihood[:, -1]
    new["likelihood"] = likelihood[:, :-1]
    if "corruption" in rows:
        new["corruption"] = rows["corruption"][:-1]
    elif "encoder" in rows:
        new["encoder"] = rows["encoder"][:-1]
    if "auxiliary" in rows:
        new["auxiliary"] = rows["auxiliary"][:, :-1]
    return new


def _merged_corruptions(rows: Rows, i: int, j: int) -> Rows:
    """x~ = j is taken for x~ = i."""
    keep = [k for k in range(rows["corruption"].shape[1]) if k != j]
    new = dict(rows)
    corruption = rows["corruption"].copy()
    corruption[:, i] = corruption[:, i] + corruption[:, j]
    new["corruption"] = corruption[:, keep]
    new["encoder"] = rows["encoder"][keep]
    if "auxiliary" in rows:
        auxiliary = rows["auxiliary"].copy()
        auxiliary[..., i] = auxiliary[..., i] + auxiliary[..., j]
        new["auxiliary"] = auxiliary[..., keep]
    return new
