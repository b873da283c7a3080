"""The differentiable evaluator: a formula on many finite models at once, as torch tensors with gradients.

The same traversal as everywhere, in float64 and in log space. A gradient is taken where the value is finite. At a
probability of zero the derivative of a logarithm is infinite; what the conventions of probability drop (a weight of
zero removes its term) passes no gradient at all, and neither does an infinite value: so no gradient is ever NaN
because of a term that does not count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, require
from boundcheck.evaluators.domain import Domain
from boundcheck.evaluators.named import Arrays
from boundcheck.evaluators.traversal import Traversal
from boundcheck.language.build import Formula, trace
from boundcheck.language.terms import Space, Term

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="the differentiable evaluator")
    Tensor = torch.Tensor

_LARGEST_SPREAD = 500.0
_AXES = {"prior": "z", "likelihood": "zx", "encoder": "cz", "corruption": "xc", "auxiliary": "zxc"}


@dataclass
class LogTables:
    """B finite models of one size: the log-probabilities of each role, tensors whose first axis is the model.

    Args:
        logs: "prior" of shape (B, z), "likelihood" (B, z, x), and as a formula needs them "encoder" (B, x~, z),
            or (B, x, z) without a corruption, "corruption" (B, x, x~) and "auxiliary" (B, z, x, x~); -inf for zero.

    Raises:
        BadInput: an unknown role, or shapes that do not agree.
    """

    logs: dict[str, Tensor]
    sizes: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        have: dict[str, int] = {}
        for role, table in self.logs.items():
            if role not in _AXES:
                raise BadInput("tables", role, f"one of {', '.join(_AXES)}")
            axes = "B" + _AXES[role]
            if role == "encoder" and "corruption" not in self.logs:
                axes = "Bxz"
            fits = table.ndim == len(axes) and all(have.setdefault(a, n) == n for a, n in zip(axes, table.shape))  # noqa: B905
            if not fits:
                raise BadInput(f'tables["{role}"]', tuple(table.shape), f"axes ({', '.join(axes)}) that agree: {have}")
        for role in ("prior", "likelihood"):
            if role not in self.logs:
                raise BadInput("tables", ", ".join(self.logs) or "none", f'a table "{role}" among them')
        self.models = have["B"]
        self.sizes = {"x": have["x"], "z": have["z"], "x~": have.get("c", 0)}
        self.logs = dict(self.logs)
        self.logs["joint"] = (self.logs["likelihood"] + self.logs["prior"].unsqueeze(-1)).transpose(1, 2)

    @classmethod
    def of_probabilities(cls, tables: Mapping[str, Tensor]) -> LogTables:
        """The models with these tables of probabilities."""
        return cls({role: safe_log(table) for role, table in tables.items()})

    def size(self, space: Space) -> int:
        """The number of states of a space."""
        return self.sizes[space.name]

    def log_table(self, role: str) -> Tensor:
        """Log-probabilities of a role, the model axis first."""
        if role not in self.logs:
            raise BadInput("tables", ", ".join(self.logs), f'a table "{role}" among them', "the formula reads it")
        return self.logs[role]


def safe_log(a: Tensor) -> Tensor:
    """log a; at zero it is -inf and passes no gradient."""
    positive = a > 0
    logs = torch.log(torch.where(positive, a, 1.0))
    return torch.where(positive, logs, torch.where(a == 0, -math.inf, math.nan))


def _safe_exp(a: Tensor) -> Tensor:
    plain = a < math.inf  # neither inf nor NaN
    return torch.where(plain, torch.exp(torch.where(plain, a, 0.0)), a.detach())


class _TorchArrays(Arrays):
    """What an evaluation does to arrays besides arithmetic, for torch."""

    def transpose(self, array: Tensor, order: Sequence[int]) -> Tensor:
        return array.permute(*order) if order else array

    def broadcast(self, array: Tensor, shape: Sequence[int]) -> Tensor:
        return array.expand(*shape)

    def stack(self, arrays: Sequence[Tensor]) -> Tensor:
        return torch.stack(torch.broadcast_tensors(*arrays), dim=-1)

    def take(self, array: Tensor, index: Sequence[NDArray[Any]]) -> Tensor:
        return array[(..., *(torch.tensor(np.asarray(each), device=array.device) for each in index))]


class TorchDomain(Domain):
    """Numbers are float64 tensors; weights are their logarithms."""

    name = "differentiable evaluator"
    arrays = _TorchArrays()
    tallies = True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def _tensor(self, value: Any) -> Tensor:
        return torch.tensor(value, dtype=torch.float64, device=self.device)

    def constant(self, value: Fraction) -> Tensor:
        return self._tensor(float(value))

    def log_table(self, model: Any, role: str, inputs: tuple[Space, ...]) -> Tensor:
        return model.log_table(role)

    weight_table = log_table

    def weights(self, log_density: Tensor) -> Tensor:
        return torch.where(log_density == math.inf, math.nan, log_density)  # an infinite density is no weight

    def weight_product(self, weights: Tensor, axis: int) -> Tensor:
        return weights.sum(dim=axis)

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def counts(self, values: NDArray[Any]) -> Tensor:
        return self._tensor(np.vectorize(math.log, otypes=[np.float64])(values))

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def multiply(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = torch.broadcast_tensors(a, b)
        finite = torch.isfinite(a) & torch.isfinite(b)
        product = torch.where(finite, a, 0.0) * torch.where(finite, b, 0.0)
        return torch.where(finite, product, (a * b).detach())

    def scale(self, factor: Fraction, a: Tensor) -> Tensor:
        return a * float(factor)

    def power(self, a: Tensor, exponent: Fraction) -> Tensor:
        smooth = torch.isfinite(a) & (a != 0)
        raised = torch.where(smooth, a, 1.0) ** float(exponent)
        return torch.where(smooth, raised, a.detach() ** float(exponent))

    def exp(self, a: Tensor) -> Tensor:
        return _safe_exp(a)

    def log(self, a: Tensor) -> Tensor:
        return safe_log(a)

    def choose(self, op: str, a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, b) if op == "max" else torch.minimum(a, b)

    def expectation(self, weights: Tensor, values: Tensor, axis: int) -> Tensor:
        weights, values = torch.broadcast_tensors(weights, values)
        dropped = weights == -math.inf
        plain = torch.isfinite(values) & ~dropped
        product = torch.exp(torch.where(dropped, 0.0, weights)) * torch.where(plain, values, 0.0)
        infinite = torch.isinf(values) & ~torch.isnan(weights)  # counts even where exp underflows
        product = torch.where(infinite, values.detach(), torch.where(torch.isnan(values), math.nan, product))
        return torch.where(dropped, 0.0, product).sum(dim=axis)

    def log_expectation(self, weights: Tensor, logs: Tensor, axis: int) -> Tensor:
        weights, logs = torch.broadcast_tensors(weights, logs)
        dropped = weights == -math.inf
        exponents = torch.where(dropped, 0.0, weights) + torch.where(dropped, 0.0, logs)
        return self.log_sum(torch.where(dropped, -math.inf, exponents), axis)

    def reduce(self, op: str, values: Tensor, axis: int) -> Tensor:
        if op == "sum":
            return values.sum(dim=axis)
        return values.amax(dim=axis) if op == "max" else values.amin(dim=axis)

    def log_sum(self, logs: Tensor, axis: int) -> Tensor:
        top = logs.detach().amax(dim=axis, keepdim=True)
        shift = torch.where(torch.isfinite(top), top, 0.0)
        return safe_log(_safe_exp(logs - shift).sum(dim=axis)) + shift.squeeze(axis)

    def tallied(self, op: str, values: Tensor, tally: NDArray[Any]) -> Tensor | None:
        known = values.detach()
        if not bool(torch.isfinite(known).all()):
            return None
        often = self._tensor(tally).T
        if op != "log_sum":
            return values @ often
        shift = known.amax(dim=-1, keepdim=True)
        if bool((known - shift < -_LARGEST_SPREAD).any()):
            return None
        return safe_log(torch.exp(values - shift) @ often) + shift


def evaluate_many(
    formula: Formula | Term, models: LogTables, x: int = 0, *, memory: int = 1 << 28, **parameters: Any
) -> Tensor:
    """The value of a formula on each of many finite models, in nats, of shape (B,), with its gradient.

    Args:
        formula: a function of (m, x, **parameters), or a term.
        models: the models' log-probabilities; gradients flow back to these tensors.
        x: the number of the observed state.
        memory: an upper limit in bytes on the size of an intermediate array.
        **parameters: the formula's own.

    Raises:
        CannotCompute: the formula is not one of finite sums, or has too many multisets of copies.
        BadInput: an observation or a table that the models do not have.

    >>> import torch
    >>> from boundcheck.catalogue.objectives import elbo
    >>> rows = {"prior": [[0.5, 0.5]], "likelihood": [[[0.9, 0.1], [0.3, 0.7]]], "encoder": [[[0.6, 0.4], [0.1, 0.9]]]}
    >>> tables = {role: torch.tensor(row, dtype=torch.float64, requires_grad=True) for role, row in rows.items()}
    >>> value = evaluate_many(elbo, LogTables.of_probabilities(tables), x=1)
    >>> print(f"{value.item():.6f}")
    -0.919330
    >>> value.sum().backward()
    >>> tables["encoder"].grad[0, 1].numpy().round(6)  # log p(x,z) - log q(z|x) - 1
    array([-1.693147, -1.944462])
    """
    tables = models.log_table("prior")
    traversal = Traversal(models, x, TorchDomain(tables.device), memory=memory, models=models.models)  # type: ignore[arg-type]
    return traversal.value(trace(formula, **parameters)).data.expand(models.models)
