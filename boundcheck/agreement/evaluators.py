"""The package's own evaluators in the form that the agreement matrix takes: functions of (formula, model, x).

Each is given every model, and says of those that are not its own that it cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from boundcheck.agreement.rules import Evaluate
from boundcheck.errors import BadInput, CannotCompute
from boundcheck.evaluators.values import Value
from boundcheck.language.build import Formula, trace
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.factored import FactoredModel
from boundcheck.models.finite import FiniteModel
from boundcheck.models.linear_gaussian import LinearGaussianModel

if TYPE_CHECKING:
    import torch

    from boundcheck.models.torch_model import TorchModel

INNER = 16
"""Draws for an expectation inside a nonlinear function: few, since the bias is judged on one side only."""

REPLICATES = 4000
"""Independent replicates of a Monte Carlo estimate in the matrix."""


def _only(name: str, kind: type | tuple[type, ...], evaluate: Callable[[Formula, Any, Any], Value]) -> Evaluate:
    def limited(formula: Formula, model: Any, x: Any) -> Value:
        if not isinstance(model, kind):
            raise CannotCompute(name, trace(formula).text, f"it does not take a {type(model).__name__}")
        return evaluate(formula, model, x)

    return limited


def evaluators(seed: int = 0) -> dict[str, Evaluate]:
    """The package's evaluators by name; Monte Carlo only where torch is installed.

    Args:
        seed: of the Monte Carlo evaluator.

    >>> from boundcheck.agreement import PROBLEMS, judge
    >>> judge(evaluators()["enclosure"], PROBLEMS[0]).status.value
    'in enclosure'
    """
    from boundcheck.evaluators import closed_form, contraction, enclosure, exact, floating, integration, quadrature

    gaussian, continuous = LinearGaussianModel, ContinuousModel
    found = {
        "exact": _only("exact", FiniteModel, exact.evaluate),
        "enclosure": _only("enclosure", FiniteModel, enclosure.evaluate),
        "floating": _only("floating", FiniteModel, floating.evaluate),
        "closed form": _only("closed form", gaussian, closed_form.evaluate),
        "closed form, enclosed": _only("closed form, enclosed", gaussian, closed_form.enclose),
        "integration": _only("integration", continuous, integration.evaluate),
        "quadrature": _only("quadrature", continuous, quadrature.evaluate),
        "contraction": _only("contraction", FactoredModel, lambda f, model, x: contraction.evaluate(f, model)),
    }
    if find_spec("torch") is not None:
        found["Monte Carlo"] = _monte_carlo(seed)
    return found


def _monte_carlo(seed: int) -> Evaluate:
    def sampled(formula: Formula, model: Any, x: Any) -> Value:
        from boundcheck.evaluators import monte_carlo

        finite = isinstance(model, FiniteModel)
        data = np.array([x]) if finite else np.reshape(np.asarray(x, dtype=np.float64), (1, -1))
        made = _categorical(model) if finite else _normal(model)
        (value,) = monte_carlo.evaluate(formula, made, data, n=REPLICATES, inner=INNER, seed=seed)
        return value

    return _only("Monte Carlo", (FiniteModel, LinearGaussianModel), sampled)


def _categorical(model: FiniteModel) -> TorchModel:
    """The tables as categorical laws, by their logarithms, so that a probability of zero stays one."""
    import torch
    from torch.distributions import Categorical

    from boundcheck.models.torch_model import TorchModel

    def rows(role: str) -> torch.Tensor:
        return torch.from_numpy(model.table(role).astype(np.float64)).log()

    def given(role: str) -> Callable[[torch.Tensor], Categorical] | None:
        if role not in model.roles:
            return None
        table = rows(role)
        return lambda condition: Categorical(logits=table[condition])

    prior, likelihood = rows("prior"), rows("likelihood")
    auxiliary = rows("auxiliary") if "auxiliary" in model.roles else None
    return TorchModel(
        prior=lambda: Categorical(logits=prior),
        decoder=lambda z: Categorical(logits=likelihood[z]),
        encoder=given("encoder") or _missing,
        corruption=given("corruption"),
        auxiliary=None if auxiliary is None else lambda z, x: Categorical(logits=auxiliary[z, x]),
    )


def _normal(model: LinearGaussianModel) -> TorchModel:
    """The laws of a linear-Gaussian model as normal laws, component by component where they are independent."""
    import torch
    from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

    from boundcheck.models.torch_model import TorchModel

    def around(mean: torch.Tensor, covariance: torch.Tensor) -> Distribution:
        variances = covariance.diagonal()
        if torch.equal(covariance, variances.diag()):
            return Independent(Normal(mean, variances.sqrt()), 1)
        return MultivariateNormal(mean, scale_tril=torch.linalg.cholesky(covariance))

    def given(role: str) -> Callable[..., Distribution] | None:
        if role not in model.roles:
            return None
        law = model.law(role)
        offset, covariance = torch.from_numpy(law.offset), torch.from_numpy(law.covariance)
        slopes = [torch.from_numpy(matrix) for matrix in law.matrices]

        def law_given(*conditions: torch.Tensor) -> Distribution:
            mean = offset
            for condition, slope in zip(conditions, slopes, strict=True):
                mean = mean + condition @ slope.T
            return around(mean, covariance)

        return law_given

    return TorchModel(
        prior=given("prior") or _missing,
        decoder=given("likelihood") or _missing,
        encoder=given("encoder") or _missing,
        corruption=given("corruption"),
        auxiliary=given("auxiliary"),
    )


def _missing(*conditions: Any) -> Any:
    raise BadInput("the model", "without a law that the formula reads", "a model with that law")


__all__ = ["REPLICATES", "evaluators"]
