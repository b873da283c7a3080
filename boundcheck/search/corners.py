"""Corners: the kinds of models on which claims break, recognised in a model whoever made it.

A test that never met a zero, a nearly deterministic row or an encoder equal to the posterior has shown less than its
number of examples says. So each assertion notes which corners its model is, and the report lists those that no model
was.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BoundcheckError
from boundcheck.evaluators.strongest import Model
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.finite import FiniteModel
from boundcheck.models.linear_gaussian import LinearGaussianModel

TINY = Fraction(1, 10**4)
"""A positive probability up to this is tiny."""

NEARLY_ONE = Fraction(99, 100)
"""A probability from this on, below one, makes its row nearly deterministic."""

NARROW = 0.05
"""A scale up to this makes a density nearly deterministic, where the other laws have scales about one."""


def corners_of(model: Model, x: Any = 0) -> dict[str, bool]:
    """The corners that a model of this kind can be, and whether it is: a dictionary from name to answer.

    Args:
        model: the model.
        x: the observation; laws of continuous models are looked at there.

    >>> model = FiniteModel(prior=["1/2", "1/2"], likelihood=[[1], [1]], encoder=[["1/2", "1/2"]])
    >>> [name for name, met in corners_of(model).items() if met]
    ['encoder is the posterior']
    """
    if isinstance(model, FiniteModel):
        return _of_tables(model)
    if isinstance(model, LinearGaussianModel):
        return _of_matrices(model)
    return _of_densities(model, x)


def _of_tables(model: FiniteModel) -> dict[str, bool]:
    given = [role for role in model.roles if role != "joint"] or ["joint"]
    tables = [model.table(role) for role in given]
    rows = [row for table in tables for row in table.reshape(-1, table.shape[-1])]
    entries = [entry for row in rows if len(row) > 1 for entry in row]
    found = {
        "zeros": any(entry == 0 for entry in entries),
        "tiny probabilities": any(0 < entry <= TINY for entry in entries),
        "nearly deterministic rows": any(NEARLY_ONE <= entry < 1 for entry in entries),
        "equal rows": _tied(model.table("likelihood")),
        "symmetric tables": any(_mirrored(table) for table in tables),
    }
    if "encoder" not in given:
        return found
    encoder = model.table("encoder")
    found["encoder ignores its input"] = _tied(encoder)
    found["encoder is the posterior"] = _is_posterior(model)
    if "corruption" in given:
        corruption = model.table("corruption")
        square = corruption.shape[0] == corruption.shape[1] > 1
        found["nothing is corrupted"] = square and all(corruption[i, i] == 1 for i in range(len(corruption)))
    if "auxiliary" in given:
        auxiliary, corruption = model.table("auxiliary"), model.table("corruption")
        found["auxiliary is the corruption"] = corruption.shape[1] > 1 and all(
            (a == corruption).all() for a in auxiliary
        )
    return found


def _tied(table: NDArray[Any]) -> bool:
    return min(table.shape) > 1 and bool((table == table[0]).all())


def _mirrored(table: NDArray[Any]) -> bool:
    """True if two different rows are mirror images of one another."""
    rows = [tuple(row) for row in table.reshape(-1, table.shape[-1])] if table.ndim > 1 else []
    return any(row != row[::-1] and row[::-1] in rows for row in rows)


def _is_posterior(model: FiniteModel) -> bool:
    joint, encoder = model.table("joint"), model.table("encoder")
    if len(encoder) != len(joint) or joint.shape[1] == 1:
        return False
    possible = [x for x in range(len(joint)) if joint[x].sum()]
    return bool(possible) and all((encoder[x] * joint[x].sum() == joint[x]).all() for x in possible)


def _of_matrices(model: LinearGaussianModel) -> dict[str, bool]:
    laws = {role: model.law(role) for role in model.roles}
    likelihood = laws["likelihood"]
    found = {
        "nearly deterministic laws": any(
            np.min(np.linalg.eigvalsh(law.covariance)) <= NARROW**2 for law in laws.values()
        ),
        "decoder ignores the latent": not any(matrix.any() for matrix in likelihood.matrices),
        "symmetric about zero": not any(law.offset.any() for law in laws.values()),
    }
    if "encoder" not in laws:
        return found
    encoder, prior = laws["encoder"], laws["prior"]
    found["encoder ignores its input"] = not any(matrix.any() for matrix in encoder.matrices)
    (weights,), mean, spread = likelihood.matrices, prior.offset, prior.covariance
    gain = spread @ weights.T @ np.linalg.inv(weights @ spread @ weights.T + likelihood.covariance)
    posterior = (gain, mean - gain @ (weights @ mean + likelihood.offset), spread - gain @ weights @ spread)
    law = (encoder.matrices[0], encoder.offset, encoder.covariance)
    found["encoder is the posterior"] = all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(law, posterior, strict=True)
    )
    return found


def _of_densities(model: ContinuousModel, x: Any) -> dict[str, bool]:
    latent = model.latent_dimension
    at = [0.0, 1.0] if latent == 1 else [(0.0,) * latent, (1.0,) * latent]
    elsewhere = tuple(entry + 1 for entry in x) if isinstance(x, Iterable) else x + 1
    likelihood = [_laws(model, "likelihood", z) for z in at]
    laws = [*_laws(model, "prior"), *likelihood[0]]
    found = {"decoder ignores the latent": likelihood[0] == likelihood[1]}
    if model.encoder is not None:
        encoder = _laws(model, "encoder", x)
        laws += encoder
        found["encoder ignores its input"] = encoder == _laws(model, "encoder", elsewhere)
        found["encoder is the prior"] = encoder == _laws(model, "prior")
    found["nearly deterministic laws"] = any(_scale(law) <= NARROW for law in laws)
    return found


def _laws(model: ContinuousModel, role: str, *given: Any) -> list[Any]:
    try:
        return list(model.law(role, given))
    except (BoundcheckError, ArithmeticError, TypeError, ValueError):
        return []  # an observation that the law is not made for


def _scale(law: Any) -> float:
    scale = getattr(law, "scale", None)
    return float(scale) if isinstance(scale, int | float | Fraction) else 1.0


__all__ = ["NARROW", "NEARLY_ONE", "TINY", "corners_of"]
