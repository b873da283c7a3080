"""Models as JSON and as rows of text, so that a witness can be read whatever its kind."""

from __future__ import annotations

from typing import Any

from boundcheck.evaluators.strongest import Model
from boundcheck.models.finite import FiniteModel
from boundcheck.models.linear_gaussian import LinearGaussianModel


def model_json(model: Model, x: Any) -> dict[str, Any]:
    """A model, JSON-ready: tables exactly, matrices as numbers, functions by their laws at x (and at z = 0).

    >>> from boundcheck.models.continuous import ContinuousModel
    >>> from boundcheck.models.densities import Normal
    >>> model = ContinuousModel(Normal(0, 1), lambda z: Normal(z, 2), encoder=lambda x: Normal(x / 5, 1))
    >>> model_json(model, 1.0)["encoder"]
    ['Normal(mean=0.2, scale=1)']
    """
    if isinstance(model, FiniteModel):
        return model.to_json()
    if isinstance(model, LinearGaussianModel):
        laws = {role: model.law(role) for role in model.roles}
        shown = {
            role: {
                "matrices": [matrix.tolist() for matrix in law.matrices],
                "offset": law.offset.tolist(),
                "covariance": law.covariance.tolist(),
            }
            for role, law in laws.items()
        }
        return {"kind": "linear-gaussian"} | shown
    z = 0.0 if model.latent_dimension == 1 else (0.0,) * model.latent_dimension
    arguments = {"prior": (), "likelihood": (z,), "encoder": (x,), "corruption": (x,), "auxiliary": (z, x)}
    laws_at = {
        role: [str(law) for law in model.law(role, given)]
        for role, given in arguments.items()
        if getattr(model, role) is not None
    }
    return {"kind": "continuous", "laws at x, and at z = 0": True} | laws_at


def model_text(model: Model, x: Any) -> list[tuple[str, str]]:
    """The rows of a model that is no table: a role and its law."""
    rows = []
    for role, law in model_json(model, x).items():
        if role in ("kind", "laws at x, and at z = 0"):
            continue
        if isinstance(law, dict):
            means = [f"{matrix} {given}" for matrix, given in zip(law["matrices"], _GIVEN[role], strict=True)]
            mean = " + ".join([*means, str(law["offset"])])
            rows.append((role, f"Normal(mean {mean}, covariance {law['covariance']})"))
        else:
            rows.append((role, ", ".join(law)))
    return rows


_GIVEN = {"prior": (), "likelihood": ("z",), "encoder": ("x",), "corruption": ("x",), "auxiliary": ("z", "x")}
