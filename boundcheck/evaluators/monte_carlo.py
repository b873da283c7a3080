"""The Monte Carlo evaluator: a formula on a torch model, as a mean of independent replicates.

What becomes of each expectation is said in `plan`, how replicates are drawn in bounded memory in `replicates`. Here
they are averaged: mean, standard error, and the direction of the bias that the term's form tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from boundcheck.errors import BadInput, UndefinedValue, require
from boundcheck.evaluators.averages import DatasetMean, over_examples
from boundcheck.evaluators.plan import plan
from boundcheck.evaluators.replicates import Job
from boundcheck.evaluators.values import Sampled
from boundcheck.language.build import Formula, trace
from boundcheck.language.terms import Term
from boundcheck.models.torch_model import TorchModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="Monte Carlo on a torch model")
    Tensor = torch.Tensor

_LARGEST_SEED = 2**63


def prepare(
    formula: Formula | Term,
    model: object,
    x: Any,
    *,
    n: int,
    inner: int = 64,
    seed: int = 0,
    chunk: int | None = None,
    **parameters: Any,
) -> Job:
    """The computation of a formula on a torch model, not yet started; iterate over its blocks of examples.

    Arguments and errors are those of `evaluate`.
    """
    for name, value in [("n", n), ("inner", inner), ("chunk", chunk)]:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise BadInput(name, value, "an integer of at least 1")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < _LARGEST_SEED:
        raise BadInput("seed", seed, "an integer from 0 to 2**63 - 1")
    wrapped = TorchModel.wrap(model)
    return Job(plan(trace(formula, **parameters), inner), wrapped, wrapped.data(x), n, seed, chunk)


class Moments:
    """Mean and standard error of replicates, block by block in float64 (Chan, Golub and LeVeque 1979).

    A replicate that is -inf makes the mean -inf, honestly, and the standard error NaN: there is none.
    """

    def __init__(self, examples: int, device: torch.device) -> None:
        zeros = torch.zeros(examples, dtype=torch.float64, device=device)
        self.count = 0
        self.mean, self.squares, self.infinite = zeros.clone(), zeros.clone(), zeros.clone()

    def add(self, values: Tensor) -> None:
        """Replicates of shape (replicates, examples)."""
        with torch.inference_mode():
            unbounded = torch.where(values.isinf(), values, 0.0).sum(0)  # inf - inf gives NaN, as it should
            self.infinite = self.infinite + unbounded
            finite = torch.where(values.isinf(), 0.0, values)
            size = values.shape[0]
            mean = finite.mean(0)
            shift = mean - self.mean
            total = self.count + size
            self.squares = self.squares + (finite - mean).square().sum(0) + shift.square() * (self.count * size / total)
            self.mean = self.mean + shift * (size / total)
            self.count = total

    def means(self) -> Tensor:
        """The mean of each example; NaN where replicates of both infinite signs were met."""
        return torch.where(self.infinite == 0, self.mean, self.infinite)

    def standard_errors(self) -> Tensor:
        """The standard error of each example's mean; NaN for infinite means and for a single replicate."""
        if self.count < 2:
            return torch.full_like(self.mean, math.nan)
        error = (self.squares / (self.count - 1) / self.count).sqrt()
        return torch.where(self.infinite == 0, error, math.nan)


def evaluate(
    formula: Formula | Term,
    model: object,
    x: Any,
    *,
    n: int = 1000,
    inner: int = 64,
    seed: int = 0,
    chunk: int | None = None,
    progress: Callable[[int], None] | None = None,
    **parameters: Any,
) -> tuple[Sampled, ...]:
    """The value of a formula at each example, in nats: mean and standard error of n independent replicates.

    An expectation inside a nonlinear function is estimated in each replicate by the mean over `inner` draws of its
    own, so the estimate is biased in the direction that is stated. A replicate that is -inf (a draw to which the
    model gives no density) makes the mean -inf with standard error NaN. Given the seed, n, inner and chunk, and the
    machine, the result is always the same; the global random state of torch is left as it was.

    Args:
        formula: a function of (m, x, **parameters), or a term.
        model: a `TorchModel`, or any object with its functions as methods.
        x: the observations, of shape (examples, *event).
        n: independent replicates for each example; at least 2.
        inner: draws for each expectation inside a nonlinear function.
        seed: of all draws.
        chunk: the most points (draws times examples) handed to the model at once; memory grows with it, not with n
            or K.
        progress: called with the number of (replicate, example) pairs just done.
        **parameters: the formula's own.

    Raises:
        BadInput: a wrong argument, data outside the likelihood's support, shapes that do not fit, a random model.
        CannotCompute: an integral, a law that cannot be sampled, or a logarithm of a negative estimate.
        UndefinedValue: a replicate is inf - inf.

    >>> import torch
    >>> from torch.distributions import Normal
    >>> from boundcheck.catalogue.objectives import elbo
    >>> model = TorchModel(
    ...     prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x / 2, 0.5**0.5), decoder=lambda z: Normal(z, 1.0)
    ... )
    >>> (value,) = evaluate(elbo, model, torch.tensor([0.5]), n=100)
    >>> print(f"{value.mean:.4f}, {value.bias.value}")
    -1.3280, unbiased
    """
    if n == 1:
        raise BadInput("n", n, "at least 2 replicates", "one replicate has no standard error")
    job = prepare(formula, model, x, n=n, inner=inner, seed=seed, chunk=chunk, **parameters)
    return run(job, progress)


def run(job: Job, progress: Callable[[int], None] | None = None) -> tuple[Sampled, ...]:
    """The estimates of a prepared computation, one for each example; `evaluate` says more.

    Raises:
        UndefinedValue: replicates of both infinite signs, or one that is inf - inf.
    """
    results: list[Sampled] = []
    for block in job:
        moments = Moments(block.size, block.x.device)
        for values in block:
            moments.add(values)
            if progress is not None:
                progress(values.numel())
        means = moments.means()
        if bool(means.isnan().any()):
            raise UndefinedValue(job.plan.source.text, block.example(int(means.isnan().nonzero()[0])))
        for mean, error in zip(means.tolist(), moments.standard_errors().tolist(), strict=True):
            results.append(Sampled(mean, error, job.plan.bias, job.n))
    return tuple(results)


def evaluate_mean(formula: Formula | Term, model: object, x: Any, **options: Any) -> DatasetMean:
    """The mean of a formula over the examples, in nats, with Monte Carlo and data-set error apart.

    Arguments and errors are those of `evaluate`.

    >>> from torch.distributions import Normal
    >>> from boundcheck.catalogue.objectives import elbo
    >>> model = TorchModel(
    ...     prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x / 2, 0.5**0.5), decoder=lambda z: Normal(z, 1.0)
    ... )
    >>> print(f"{evaluate_mean(elbo, model, [0.0, 1.0], n=10).mean:.4f}")
    -1.3905
    """
    return over_examples(evaluate(formula, model, x, **options))


__all__ = ["Moments", "evaluate", "evaluate_mean", "prepare", "run"]
