"""What is judged: a formula, or the user's own training objective, as one estimate over a data set.

A training loss is code, not a formula, so what it means has to be declared: whether it is a bound or its negative,
its unit, and whether it gives a number for each example or one for a batch. What comes of calling it is in `training`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from boundcheck.errors import BadInput, require
from boundcheck.evaluators.averages import DatasetMean, over_examples
from boundcheck.evaluators.values import Approximate, Bias, Sampled
from boundcheck.language.build import Formula, trace

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="a training objective")
    Tensor = torch.Tensor

Sign = Literal["bound", "loss"]
Unit = Literal["nats", "bits", "nats/dim", "bits/dim"]
Per = Literal["example", "batch"]

CHOICES: dict[str, tuple[str, ...]] = {"sign": get_args(Sign), "unit": get_args(Unit), "per": get_args(Per)}
"""What may be declared of an objective."""


@dataclass(frozen=True)
class TrainingObjective:
    """A function (model, x) -> numbers, and what its numbers mean.

    Attributes:
        function: gets the model as the user made it, and a batch of observations of shape (rows, *event).
        sign: "bound" if larger is better, as the ELBO is; "loss" if it is minimised.
        unit: nats or bits, for a whole example or for each of its dimensions.
        per: "example" if it returns one number for each row, "batch" if it returns their mean.
        batch: rows in a call.
        name: for the reader.
    """

    function: Callable[[Any, Tensor], Any]
    sign: Sign
    unit: Unit = "nats"
    per: Per = "example"
    batch: int = 100
    name: str = ""

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise BadInput("the objective", self.function, "a function of (model, x)")
        for what, known in CHOICES.items():
            if getattr(self, what) not in known:
                raise BadInput(what, getattr(self, what), " or ".join(f'"{each}"' for each in known))
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or self.batch < 1:
            raise BadInput("batch", self.batch, "a number of rows of at least 1")
        if not self.name:
            object.__setattr__(self, "name", getattr(self.function, "__name__", "objective"))

    def __call__(self, model: Any, x: Tensor) -> Any:
        """The function itself, so that training can go on using it."""
        return self.function(model, x)

    def scale(self, x: Tensor) -> float:
        """What a value is multiplied by to be nats of a bound for each example."""
        scale = -1.0 if self.sign == "loss" else 1.0
        if self.unit.startswith("bits"):
            scale *= math.log(2)
        if self.unit.endswith("/dim"):
            scale *= max(1, x[0].numel())
        return scale


def training_objective(
    *, sign: Sign, unit: Unit = "nats", per: Per = "example", batch: int = 100
) -> Callable[[Callable[[Any, Tensor], Any]], TrainingObjective]:
    """Declare what a training objective's numbers mean, so that `boundcheck evaluate` can judge it.

    Args:
        sign: "bound" if it is maximised, "loss" if it is minimised.
        unit: "nats", "bits", "nats/dim" or "bits/dim".
        per: "example" if it returns a number for each row, "batch" if it returns their mean.
        batch: rows in a call.

    Raises:
        BadInput: another sign, unit or per.

    >>> @training_objective(sign="loss")
    ... def loss(model, x):
    ...     law = model.encoder(x)
    ...     z = law.rsample()
    ...     return law.log_prob(z) - model.prior().log_prob(z) - model.decoder(z).log_prob(x)
    >>> loss.name, loss.sign, loss.unit
    ('loss', 'loss', 'nats')
    """
    return lambda function: TrainingObjective(function, sign, unit, per, batch)


def declared(function: Any, *, why_no_formula: str = "", **given: Any) -> TrainingObjective:
    """A training objective with what the command line declares of it, over what the file declares.

    Args:
        function: a `TrainingObjective`, or a function of (model, x).
        why_no_formula: what `why_no_formula` says of it.
        **given: sign, unit, per, batch; None where nothing is said.

    Raises:
        BadInput: no sign anywhere, or a wrong declaration.
    """
    settings = {name: value for name, value in given.items() if value is not None}
    if isinstance(function, TrainingObjective):
        return replace(function, **settings)
    if "sign" not in settings:
        remedy = (
            "decorate it with boundcheck.evidence.training_objective(sign=...), or pass --sign bound or --sign loss"
        )
        if why_no_formula:
            remedy += f" (as a formula: {why_no_formula})"
        raise BadInput(
            "the objective",
            getattr(function, "__name__", function),
            "a formula, or a training objective whose sign is declared",
            remedy,
        )
    return TrainingObjective(function, **settings)


SKEWNESS = 6.0
"""How skewed the draws of an objective may be, for its confidence limits to be valid; an exponential law has 2."""


@dataclass(frozen=True)
class Estimate:
    """What an objective is worth over a data set.

    Attributes:
        mean: its mean, with its errors.
        random: whether any call drew random numbers, or equal calls gave different values; if not, the mean has no
            Monte Carlo error, and zero spread means just that.
        asymmetry: the skewness that the mean would have if that of each draw were one.
        rounding: what the arithmetic of the objective's own values may be off by, in nats.
        long_tail: Bias.HIGH if the draws show so long a tail to the left that their mean is probably too high, and a
            lower confidence limit not to be had; Bias.LOW for one to the right.
    """

    mean: DatasetMean
    random: bool = True
    asymmetry: float = 0.0
    rounding: float = 0.0
    long_tail: Bias = Bias.NONE

    @classmethod
    def of(
        cls,
        values: Sequence[Sampled],
        *,
        random: bool = True,
        sizes: Sequence[int] = (),
        rounding: float = 0.0,
        long_tail: Bias = Bias.NONE,
    ) -> Estimate:
        """The mean over examples, or over batches of the given sizes, from independent estimates.

        With shares a_i, standard errors s_i and n draws each, the asymmetry is
        sum (a_i s_i)^3 / (sum (a_i s_i)^2)^(3/2) / sqrt(n).
        """
        shares = [size / sum(sizes) for size in sizes] or [1 / len(values)] * len(values)
        parts = [share * value.standard_error for share, value in zip(shares, values, strict=True)]
        squares, cubes = math.fsum(part**2 for part in parts), math.fsum(part**3 for part in parts)
        asymmetry = cubes / squares**1.5 / math.sqrt(min(value.n for value in values)) if squares > 0 else 0.0
        return cls(
            _over_batches(values, sizes) if sizes else over_examples(values), random, asymmetry, rounding, long_tail
        )

    def at(self, alpha: float) -> Sampled | Approximate:
        """The mean as `boundcheck.claims.decide` compares it at an error probability.

        A mean of few and skewed draws errs more often to one side than Student's t allows for: to first order, its
        quantile q is off by (2 q^2 + 1)/6 times the skewness of the mean (Johnson 1978; Hall 1992). The standard error
        is widened for draws whose skewness is up to `SKEWNESS` to either side. With thousands of draws that is little;
        with a handful it leaves most things undecided. Draws that show a longer tail have no limit on its other side:
        a mean that has not met its tail yet is too far from it, which is what `long_tail` says.

        Raises:
            BadInput: an alpha outside (0, 1/2).
        """
        if not 0 < alpha < 0.5:
            raise BadInput("alpha", alpha, "an error probability between 0 and 1/2")
        if not self.random:
            return Approximate(self.mean.mean, 0.0)
        from scipy.special import stdtrit

        sampled = self.mean.sampled
        quantile = float(stdtrit(sampled.n - 1, 1 - alpha)) if sampled.n > 1 else math.inf
        widening = 1 + SKEWNESS * self.asymmetry * (2 * quantile**2 + 1) / (6 * quantile)
        bias = sampled.bias if self.long_tail in (Bias.NONE, sampled.bias) else self.long_tail
        if Bias.NONE not in (sampled.bias, self.long_tail) and sampled.bias is not self.long_tail:
            bias = Bias.UNKNOWN
        return replace(sampled, standard_error=sampled.standard_error * widening, bias=bias)


def _over_batches(values: Sequence[Sampled], sizes: Sequence[int]) -> DatasetMean:
    """The mean over examples from the means of batches, the last of which may be smaller."""
    total = sum(sizes)
    shares = [size / total for size in sizes]
    mean = math.fsum(share * value.mean for share, value in zip(shares, values, strict=True))
    noise = math.sqrt(math.fsum((s * v.standard_error) ** 2 for s, v in zip(shares, values, strict=True)))
    whole = over_examples(values)
    return DatasetMean(mean, noise, whole.data_set_error, Bias.NONE, total, min(value.n for value in values))


def why_no_formula(function: Any) -> str | None:
    """None if a function of (m, x, ...) builds a term of the language, else why it does not."""
    if isinstance(function, TrainingObjective):
        return "it is declared to be a training objective"
    if not callable(function):
        return "it cannot be called"
    needed = _needed_parameters(function)
    if needed is not None and needed > 2:  # a formula with parameters of its own: a training objective has none
        return None
    try:
        trace(cast("Formula", function))
    except Exception as error:  # a training objective that is handed symbols may fail in any way
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"
    return None


def _needed_parameters(function: Callable[..., Any]) -> int | None:
    try:
        return sum(p.default is p.empty for p in inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


__all__ = [
    "CHOICES",
    "SKEWNESS",
    "Estimate",
    "TrainingObjective",
    "declared",
    "training_objective",
    "why_no_formula",
]
