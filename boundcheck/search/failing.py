"""The smallest model on which a user's own objective gives no number.

An objective that returns NaN on a model of nine states says little; on one of two states with simple fractions its
author sees why. So a failure is shrunk like a counterexample: states are merged and dropped, rows made simple, for as
long as the objective still fails in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from boundcheck.claims.check import check
from boundcheck.claims.claim import Claim
from boundcheck.errors import BoundcheckError, ObjectiveFailed
from boundcheck.models.finite import FiniteModel
from boundcheck.search.reduce import rows_of, smaller_models

_DENOMINATORS = (*range(1, 13), 16, 20, 25, 32, 50, 100, 1000)


@contextmanager
def smallest_failure(claim: Claim) -> Iterator[None]:
    """Replace the failure of a black box by the same failure on the smallest model that is found.

    Raises:
        ObjectiveFailed: whenever the block does.

    >>> from boundcheck.catalogue.objectives import log_evidence
    >>> from boundcheck.evaluators.black_box import black_box
    >>> claim = Claim("mine", black_box(lambda m, x: float("nan"), name="f"), "<=", log_evidence)
    >>> model = FiniteModel(prior=["1/3", "2/3"], likelihood=[["1/4", "3/4"], [1, 0]], encoder=[["1/5", "4/5"]] * 2)
    >>> with smallest_failure(claim):
    ...     _ = check(claim, model)
    Traceback (most recent call last):
    ...
    boundcheck.errors.ObjectiveFailed: f returned nan at x = 0 on FiniteModel(prior=[1], likelihood=[[1]],
    encoder=[[1]]); expected one number in nats
    """
    try:
        yield
    except ObjectiveFailed as failure:
        raise shrunk(claim, failure) from None


def shrunk(claim: Claim, failure: ObjectiveFailed) -> ObjectiveFailed:
    """The failure on a smaller and simpler model, or as it was if there is none."""
    model, x = failure.model, failure.x
    if not isinstance(model, FiniteModel) or not isinstance(x, int):
        return failure
    found = failure

    def fails(candidate: FiniteModel, at: int) -> bool:
        nonlocal found
        again = failing(claim, candidate, at)
        if again is None or (again.objective, again.kind) != (failure.objective, failure.kind):
            return False
        found = again
        return True

    for smaller in with_fewer_tables(model):
        if fails(smaller, x):
            model = smaller
            break
    if x and fails(swapped := observation_first(model, x), 0):
        model, x = swapped, 0
    if x == 0:
        model = _with_fewer_states(model, lambda m: fails(m, 0), tie_x="corruption" in model.roles)
        _with_simple_rows(model, lambda m: fails(m, 0))
    return found


def failing(claim: Claim, model: FiniteModel, x: int) -> ObjectiveFailed | None:
    """The failure of a claim's black box on a model of which the claim speaks; None if it gives a number."""
    try:
        check(claim, model, x)
    except ObjectiveFailed as failure:
        return failure
    except BoundcheckError:
        pass
    return None


def with_fewer_tables(model: FiniteModel) -> Iterator[FiniteModel]:
    """Models without tables that an objective may not read, those with the fewest tables first."""
    rows = rows_of(model)
    drops = [("encoder", "corruption", "auxiliary"), ("corruption", "auxiliary"), ("auxiliary",)]
    for drop in drops:
        kept = {role: table for role, table in rows.items() if role not in drop}
        fits = "corruption" in kept or "encoder" not in kept or len(kept["encoder"]) == model.sizes["x"]
        if len(kept) < len(rows) and fits:
            yield _model(kept)


def observation_first(model: FiniteModel, x: int) -> FiniteModel:
    """The model with the observation x and the first one exchanged, as the reduction wants it."""
    rows = rows_of(model)
    order = list(range(model.sizes["x"]))
    order[0], order[x] = x, 0
    rows["likelihood"] = rows["likelihood"][:, order]
    if "corruption" in rows:
        rows["corruption"] = rows["corruption"][order]
    elif "encoder" in rows:
        rows["encoder"] = rows["encoder"][order]
    if "auxiliary" in rows:
        rows["auxiliary"] = rows["auxiliary"][:, order]
    return _model(rows)


def _with_fewer_states(model: FiniteModel, fails: Callable[[FiniteModel], bool], tie_x: bool) -> FiniteModel:
    shrinking = True
    while shrinking:
        shrinking = False
        for smaller in smaller_models(model, tie_x):
            if fails(smaller):
                model, shrinking = smaller, True
                break
    return model


def _with_simple_rows(model: FiniteModel, fails: Callable[[FiniteModel], bool]) -> FiniteModel:
    rows = rows_of(model)
    improved = True
    while improved:
        improved = False
        for simpler in _simpler(rows):
            if fails(_model(simpler)):
                rows, improved = simpler, True
                break
    return _model(rows)


def _simpler(rows: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same tables with one row of smaller denominators, the simplest first."""
    for role, table in rows.items():
        flat = table.reshape(-1, table.shape[-1])
        for i, row in enumerate(flat):
            given = _height(row)
            options = [[Fraction(1, len(row))] * len(row)]
            options += [_rounded(row, denominator) for denominator in _DENOMINATORS]
            for option in sorted(options, key=_height):
                if _height(option) >= given or sum(entry == 0 for entry in option) > sum(entry == 0 for entry in row):
                    continue
                new = flat.copy()
                new[i] = option
                yield {**rows, role: new.reshape(table.shape)}


def _height(row: Any) -> tuple[int, int]:
    return max(entry.denominator for entry in row), sum(entry.numerator for entry in row)


def _rounded(row: Any, denominator: int) -> list[Fraction]:
    """The row with this denominator; a positive entry stays positive where there is room for that."""
    counts = [max(round(entry * denominator), 1 if entry else 0) for entry in row]
    largest = max(range(len(counts)), key=counts.__getitem__)
    counts[largest] += denominator - sum(counts)
    return [Fraction(max(count, 0), denominator) for count in counts] if counts[largest] >= 0 else list(row)


def _model(rows: dict[str, Any]) -> FiniteModel:
    return FiniteModel(**{role: table.tolist() for role, table in rows.items()})


__all__ = ["failing", "observation_first", "shrunk", "smallest_failure", "with_fewer_tables"]
