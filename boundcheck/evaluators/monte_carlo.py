"""The Monte Carlo evaluator: a formula on a torch model, as a mean of independent replicates.

What becomes of each expectation is said in `plan`, how replicates are drawn in bounded memory in `replicates`. Here
they are averaged: mean, standard error, and the direction of the bias that the term's form tells.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, UndefinedValue, require
from boundcheck.evaluators.averages import DatasetMean, over_examples
from boundcheck.evaluators.draws import Drawing
from boundcheck.evaluators.plan import plan
from boundcheck.evaluators.replicates import ExampleBlock, blocks_of
from boundcheck.evaluators.units import Job
from boundcheck.evaluators.values import Bias, Sampled
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
    draws: str = "independent",
    randomisations: int | None = None,
    closed_form_kl: bool = False,
    **parameters: Any,
) -> Job:
    """The computation of a formula on a torch model, not yet started; `run` does it.

    Arguments and errors are those of `evaluate`.
    """
    for name, value in [("n", n), ("inner", inner), ("chunk", chunk)]:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise BadInput(name, value, "an integer of at least 1")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < _LARGEST_SEED:
        raise BadInput("seed", seed, "an integer from 0 to 2**63 - 1")
    term = trace(formula, **parameters)
    wrapped = TorchModel.wrap(model).for_formula(term)
    made = plan(term, inner, closed_form_kl)
    return Job(made, wrapped, wrapped.data(x), n, seed, chunk, Drawing.of(draws, n, randomisations))


class Moments:
    """Mean, standard error and skewness of replicates, block by block in float64 (Chan, Golub and LeVeque 1979).

    A replicate that is -inf makes the mean -inf, honestly, and the standard error NaN: there is none.
    """

    def __init__(self, examples: int, device: torch.device) -> None:
        zeros = torch.zeros(examples, dtype=torch.float64, device=device)
        self.count = 0
        self.mean, self.squares, self.cubes, self.infinite = (zeros.clone() for _ in range(4))

    def add(self, values: Tensor) -> None:
        """Replicates of shape (replicates, examples)."""
        with torch.inference_mode():
            unbounded = torch.where(values.isinf(), values, 0.0).sum(0)  # inf - inf gives NaN, as it should
            self.infinite = self.infinite + unbounded
            finite = torch.where(values.isinf(), 0.0, values)
            mean = finite.mean(0)
            shifts = finite - mean
            self._join(values.shape[0], mean, shifts.square().sum(0), shifts.pow(3).sum(0))

    def merge(self, other: Moments) -> None:
        """Take what another of these was given, of replicates that are independent of its own."""
        if other.count:
            self.infinite = self.infinite + other.infinite
            self._join(other.count, other.mean, other.squares, other.cubes)

    def _join(self, size: int, mean: Tensor, squares: Tensor, cubes: Tensor) -> None:
        shift = mean - self.mean
        total = self.count + size
        own, more = self.count / total, size / total
        self.cubes = self.cubes + cubes + shift.pow(3) * (self.count * more * (own - more))
        self.cubes = self.cubes + 3 * shift * (own * squares - more * self.squares)
        self.squares = self.squares + squares + shift.square() * (self.count * size / total)
        self.mean = self.mean + shift * (size / total)
        self.count = total

    def state(self) -> dict[str, NDArray]:
        """All of it, as arrays."""
        sums = {"mean": self.mean, "squares": self.squares, "cubes": self.cubes, "infinite": self.infinite}
        return {"count": np.array(self.count), **{name: each.cpu().numpy() for name, each in sums.items()}}

    @classmethod
    def of(cls, state: Mapping[str, NDArray], device: torch.device) -> Moments:
        """As it was when it left this state."""
        made = cls(len(state["mean"]), device)
        made.count = int(state["count"])
        made.mean, made.squares, made.cubes, made.infinite = (
            torch.from_numpy(state[name].copy()).to(device) for name in ("mean", "squares", "cubes", "infinite")
        )
        return made

    def means(self) -> Tensor:
        """The mean of each example; NaN where replicates of both infinite signs were met."""
        return torch.where(self.infinite == 0, self.mean, self.infinite)

    def standard_errors(self) -> Tensor:
        """The standard error of each example's mean; NaN for infinite means and for a single replicate."""
        if self.count < 2:
            return torch.full_like(self.mean, math.nan)
        error = (self.squares / (self.count - 1) / self.count).sqrt()
        return torch.where(self.infinite == 0, error, math.nan)

    def skewnesses(self) -> Tensor:
        """The skewness of each example's finite replicates; 0 where they are all equal."""
        spread = (self.squares / max(1, self.count)).pow(1.5)
        return torch.where(spread > 0, self.cubes / max(1, self.count) / spread, 0.0)


def evaluate(
    formula: Formula | Term,
    model: object,
    x: Any,
    *,
    n: int = 1000,
    inner: int = 64,
    seed: int = 0,
    chunk: int | None = None,
    draws: str = "independent",
    randomisations: int | None = None,
    closed_form_kl: bool = False,
    progress: Callable[[int], None] | None = None,
    **parameters: Any,
) -> tuple[Sampled, ...]:
    """The value of a formula at each example, in nats: mean and standard error of n independent replicates.

    An expectation inside a nonlinear function is estimated in each replicate by the mean over `inner` draws of its
    own, so the estimate is biased in the direction that is stated. A replicate that is -inf (a draw to which the
    model gives no density) makes the mean -inf with standard error NaN. Given the seed, n and inner, the draws are
    always the same, whatever the chunk; the global random state of torch is left as it was.

    Args:
        formula: a function of (m, x, **parameters), or a term.
        model: a `TorchModel`, or any object with its functions as methods.
        x: the observations, of shape (examples, *event).
        n: independent replicates for each example; at least 2.
        inner: draws for each expectation inside a nonlinear function.
        seed: of all draws.
        chunk: the most rows (draws times examples) handed to the model at once, where its laws are Gaussian, Bernoulli
            or categorical; memory grows with it, not with n or K. It changes no draw.
        draws: "independent"; "antithetic", where the Gaussian noise of each second replicate is minus that of the one
            before; or "sobol", where n replicates are `randomisations` scrambled Sobol sequences (Owen 1997). Then
            pairs, or sequences, are averaged first, and `Sampled.n` counts those.
        randomisations: independent scramblings, 16 unless given; n must be that times a power of two.
        closed_form_kl: where a log-density stands linearly and torch knows the divergence between its law and that of
            its point, take the divergence instead of sampling it: E_q[log p(z) - log q(z|x)] = -KL(q || p).
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
    job = prepare(
        formula,
        model,
        x,
        n=n,
        inner=inner,
        seed=seed,
        chunk=chunk,
        draws=draws,
        randomisations=randomisations,
        closed_form_kl=closed_form_kl,
        **parameters,
    )
    return run(job, progress)


def run(job: Job, progress: Callable[[int], None] | None = None) -> tuple[Sampled, ...]:
    """The estimates of a prepared computation, one for each example; `evaluate` says more.

    Raises:
        UndefinedValue: replicates of both infinite signs, or one that is inf - inf.
    """
    results: list[Sampled] = []
    for block in blocks_of(job):
        moments = Moments(block.size, block.x.device)
        for values in block:
            moments.add(values)
            if progress is not None:
                progress(values.numel())
        results += estimates(moments, job.plan.bias, job.plan.source.text, block)
    return tuple(results)


def estimates(moments: Moments, bias: Bias, text: str, block: ExampleBlock) -> list[Sampled]:
    """The estimate of each example of a block from the moments of all its replicates.

    Raises:
        UndefinedValue: replicates of both infinite signs.
    """
    means = moments.means()
    if bool(means.isnan().any()):
        raise UndefinedValue(text, block.example(int(means.isnan().nonzero()[0])))
    columns = (each.tolist() for each in (means, moments.standard_errors(), moments.skewnesses()))
    return [Sampled(mean, error, bias, moments.count, skewness) for mean, error, skewness in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Pair:
    """Two formulas at each example, from common random numbers, and their difference with an error of its own.

    Attributes:
        lhs: the first.
        rhs: the second.
        difference: lhs - rhs, from the replicates' own differences: what both sides share cancels.
    """

    lhs: tuple[Sampled, ...]
    rhs: tuple[Sampled, ...]
    difference: tuple[Sampled, ...]


def evaluate_pair(
    lhs: Formula | Term,
    rhs: Formula | Term,
    model: object,
    x: Any,
    *,
    n: int = 1000,
    inner: int = 64,
    seed: int = 0,
    chunk: int | None = None,
    draws: str = "independent",
    randomisations: int | None = None,
    closed_form_kl: bool = False,
    progress: Callable[[int], None] | None = None,
    **parameters: Any,
) -> Pair:
    """Both sides of a claim and their paired difference, in nats: where both draw q(z|x), they draw the same points.

    A variable of one side has the points of the other side's if its law, the laws of what that depends on, and its
    copies are the same; counted in order where there are several. The bias of the difference is that of both sides.

    Args:
        lhs: the first formula or term.
        rhs: the second.
        model: as for `evaluate`, like all that follows.
        x: observations.
        n: replicates.
        inner: draws inside nonlinear functions.
        seed: of all draws.
        chunk: rows at once.
        draws: "independent", "antithetic" or "sobol".
        randomisations: of "sobol".
        closed_form_kl: take divergences in closed form.
        progress: called with the number of (replicate, example) pairs just done.
        **parameters: of either formula; each side takes those that it has.

    Raises:
        BadInput: as `evaluate`, or a parameter of neither side.
        CannotCompute: as `evaluate`.
        UndefinedValue: as `evaluate`, or a difference of two infinities.

    >>> from torch.distributions import Normal
    >>> from boundcheck.catalogue.objectives import elbo
    >>> model = TorchModel(
    ...     prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x / 4, 0.7), decoder=lambda z: Normal(z, 1.0)
    ... )
    >>> both = evaluate_pair(elbo, lambda m, x: elbo(m, x) + 1, model, [0.5], n=200)
    >>> both.difference[0].mean, both.lhs[0].standard_error > 0.01, both.difference[0].standard_error < 1e-9
    (-1.0, True, True)
    """
    if n == 1:
        raise BadInput("n", n, "at least 2 replicates", "one replicate has no standard error")
    options: dict[str, Any] = {"n": n, "inner": inner, "seed": seed, "chunk": chunk, "draws": draws}
    options |= {"randomisations": randomisations, "closed_form_kl": closed_form_kl}
    wrapped = TorchModel.wrap(model)
    own = [_own_parameters(side, parameters) for side in (lhs, rhs)]
    for name in parameters:
        if name not in own[0] and name not in own[1]:
            raise BadInput(name, parameters[name], "a parameter of one of the formulas")
    left, right = (prepare(f, wrapped, x, **options, **p) for f, p in zip((lhs, rhs), own, strict=True))
    left.paired(right)
    biases = (left.plan.bias, right.plan.bias, _of_difference(left.plan.bias, right.plan.bias))
    texts = (left.plan.source.text, right.plan.source.text, f"{left.plan.source.text} - ({right.plan.source.text})")
    results: tuple[list[Sampled], ...] = ([], [], [])
    for a, b in zip(blocks_of(left), blocks_of(right), strict=True):
        moments = [Moments(a.size, a.x.device) for _ in results]
        for first, second in zip(a, b, strict=True):
            for each, values in zip(moments, (first, second, first - second), strict=True):
                each.add(values)
            if progress is not None:
                progress(first.numel())
        for result, each, bias, text in zip(results, moments, biases, texts, strict=True):
            result += estimates(each, bias, text, a)
    return Pair(tuple(results[0]), tuple(results[1]), tuple(results[2]))


def evaluate_difference(lhs: Formula | Term, rhs: Formula | Term, model: object, x: Any, **options: Any) -> DatasetMean:
    """The mean of lhs - rhs over the examples, in nats, from common random numbers, with both of its errors.

    Arguments and errors are those of `evaluate_pair`.

    >>> from torch.distributions import Normal
    >>> from boundcheck.catalogue.objectives import elbo
    >>> model = TorchModel(
    ...     prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x / 4, 0.7), decoder=lambda z: Normal(z, 1.0)
    ... )
    >>> evaluate_difference(elbo, elbo, model, [0.0, 1.0], n=10).mean
    0.0
    """
    return over_examples(evaluate_pair(lhs, rhs, model, x, **options).difference)


def _own_parameters(formula: Formula | Term, parameters: dict[str, Any]) -> dict[str, Any]:
    if isinstance(formula, Term):
        return {}
    try:
        taken = inspect.signature(formula).parameters.values()
    except (TypeError, ValueError):
        return dict(parameters)
    if any(each.kind is each.VAR_KEYWORD for each in taken):
        return dict(parameters)
    return {each.name: parameters[each.name] for each in taken if each.name in parameters}


def _of_difference(lhs: Bias, rhs: Bias) -> Bias:
    """The bias of lhs - rhs."""
    turned = {Bias.LOW: Bias.HIGH, Bias.HIGH: Bias.LOW}.get(rhs, rhs)
    if lhs is Bias.NONE or turned is lhs:
        return turned
    return lhs if turned is Bias.NONE else Bias.UNKNOWN


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


__all__ = [
    "Moments",
    "Pair",
    "estimates",
    "evaluate",
    "evaluate_difference",
    "evaluate_mean",
    "evaluate_pair",
    "prepare",
    "run",
]
