"""boundcheck: is a variational objective really the bound that its authors say it is?

Write an objective as a formula, name a claim about it, and have it decided:

>>> import boundcheck as bc
>>> def elbo(m, x):
...     return bc.E(m.encoder(x), lambda z: m.log_joint(x, z) - m.encoder(x).log_prob(z))
>>> def log_evidence(m, x):
...     return bc.log(bc.integrate(m.latent, lambda z: bc.exp(m.log_joint(x, z))))
>>> claim = bc.Claim("elbo-below-evidence", elbo, "<=", log_evidence)
>>> model = bc.FiniteModel(prior=["1/3", "2/3"], likelihood=[[0.5, 0.5], [1, 0]], encoder=[[0.2, 0.8], [1, 0]])
>>> print(bc.check(claim, model))
holds (exact)

Every name is loaded when it is first used, so that `import boundcheck` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boundcheck.catalogue import find
    from boundcheck.claims import (
        Claim,
        Guarantee,
        ModelCheck,
        Outcome,
        Status,
        Survey,
        Verdict,
        check,
        check_model,
        decide,
        finite_models,
        survey,
    )
    from boundcheck.errors import (
        BadInput,
        BoundcheckError,
        CannotCompute,
        CannotComputeExactly,
        FormulaError,
        MissingExtra,
        ObjectiveFailed,
        UndefinedValue,
        UnknownName,
    )
    from boundcheck.evaluators.black_box import BlackBox, black_box
    from boundcheck.evaluators.strongest import evaluate
    from boundcheck.evaluators.values import Approximate, Bias, Enclosure, Exact, Sampled, Value
    from boundcheck.language import (
        E,
        Law,
        Space,
        SymbolicModel,
        Term,
        density,
        exp,
        integrate,
        kl,
        log,
        log_mean_exp,
        maximum,
        maximum_over,
        mean,
        minimum,
        minimum_over,
        mixture,
        normalised,
        same,
        total,
        trace,
    )
    from boundcheck.models import FiniteModel, load_model
    from boundcheck.search import Witness, load_witness

__version__ = "0.1.0"

_HOMES = {
    "boundcheck.language": (
        "E", "Law", "Space", "SymbolicModel", "Term", "density", "exp", "integrate", "kl", "log", "log_mean_exp",
        "maximum", "maximum_over", "mean", "minimum", "minimum_over", "mixture", "normalised", "same", "total", "trace",
    ),
    "boundcheck.models": ("FiniteModel", "load_model"),
    "boundcheck.evaluators.black_box": ("BlackBox", "black_box"),
    "boundcheck.evaluators.strongest": ("evaluate",),
    "boundcheck.evaluators.values": ("Approximate", "Bias", "Enclosure", "Exact", "Sampled", "Value"),
    "boundcheck.claims": (
        "Claim", "Guarantee", "ModelCheck", "Outcome", "Status", "Survey", "Verdict", "check", "check_model", "decide",
        "finite_models", "survey",
    ),
    "boundcheck.catalogue": ("find",),
    "boundcheck.search": ("Witness", "load_witness"),
    "boundcheck.errors": (
        "BadInput", "BoundcheckError", "CannotCompute", "CannotComputeExactly", "FormulaError", "MissingExtra",
        "ObjectiveFailed", "UndefinedValue", "UnknownName",
    ),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Approximate",
    "BadInput",
    "Bias",
    "BlackBox",
    "BoundcheckError",
    "CannotCompute",
    "CannotComputeExactly",
    "Claim",
    "E",
    "Enclosure",
    "Exact",
    "FiniteModel",
    "FormulaError",
    "Guarantee",
    "Law",
    "MissingExtra",
    "ModelCheck",
    "ObjectiveFailed",
    "Outcome",
    "Sampled",
    "Space",
    "Status",
    "Survey",
    "SymbolicModel",
    "Term",
    "UndefinedValue",
    "UnknownName",
    "Value",
    "Verdict",
    "Witness",
    "__version__",
    "black_box",
    "check",
    "check_model",
    "decide",
    "density",
    "evaluate",
    "exp",
    "find",
    "finite_models",
    "integrate",
    "kl",
    "load_model",
    "load_witness",
    "log",
    "log_mean_exp",
    "maximum",
    "maximum_over",
    "mean",
    "minimum",
    "minimum_over",
    "mixture",
    "normalised",
    "same",
    "survey",
    "total",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'boundcheck' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
