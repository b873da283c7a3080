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

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput
from boundcheck.evaluators.averages import DatasetMean, over_examples
from boundcheck.evaluators.values import Approximate, Bias, Sampled
from boundcheck.evidence.tails import Calls, Tails, either, unmet
from boundcheck.language.build import Formula, trace

if TYPE_CHECKING:
    from torch import Tensor

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
        draws: how many independent draws of all examples it rests on.
    """

    mean: DatasetMean
    random: bool = True
    asymmetry: float = 0.0
    rounding: float = 0.0
    long_tail: Bias = Bias.NONE
    draws: float = 0.0

    @classmethod
    def of(cls, values: Sequence[Sampled]) -> Estimate:
        """The mean over examples from independent estimates of each, and the tails that their skewness shows.

        With standard errors s_i and n draws each, the asymmetry is sum s_i^3 / (sum s_i^2)^(3/2) / sqrt(n).
        """
        tails = Tails()
        for value in values:
            tails.take(value, 1.0)
        asymmetry = _asymmetry([value.standard_error for value in values], [1.0] * len(values), values[0].n)
        draws = float(sum(value.n for value in values))
        return cls(over_examples(values), True, asymmetry, long_tail=tails.long, draws=draws)

    @classmethod
    def of_draws(
        cls,
        batches: Sequence[NDArray[np.float64]],
        *,
        random: bool = True,
        sizes: Sequence[int] = (),
        rounding: float = 0.0,
    ) -> Estimate:
        """The mean over examples from calls on batches: values of shape (calls, examples of the batch) for each.

        Calls are independent, but what one call says of several examples may share its noise, as a loss does that
        draws once for a batch. So the Monte Carlo error is that of the calls' means. Of the spread between examples,
        noise is only the part that they do not share.

        Args:
            batches: an array for each.
            random: as the attribute.
            sizes: how many examples each batch has, if a call gives one number for all of them, of shape (calls, 1).
            rounding: as the attribute.
        """
        calls = [Calls.of(values) for values in batches]
        counts = list(sizes) or [values.shape[1] for values in batches]
        shares = [count / sum(counts) for count in counts]
        parts = [share * each.whole.standard_error for share, each in zip(shares, calls, strict=True)]
        error = math.sqrt(math.fsum(part**2 for part in parts))
        means = [share * each.whole.mean for share, each in zip(shares, calls, strict=True)]
        mean = math.fsum(means) if all(map(math.isfinite, means)) else sum(means)
        rows, count = [row for each in calls for row in each.rows], min(each.whole.n for each in calls)
        spread = over_examples(rows).data_set_error if sizes else _data_set_error(rows, error)
        single, together = Tails(), Tails()
        for size, share, values, each in zip(counts, shares, batches, calls, strict=True):
            single.add(values * (size if sizes else 1.0))
            together.take(each.whole, share)
        draws = math.fsum(each.independent for each in calls)
        # Noise that rows share may have a long tail that does not show beside each row's own.
        long_tail = either(single.among(draws), together.shown)
        return cls(
            DatasetMean(mean, error, spread, Bias.NONE, sum(counts), count),
            random,
            _asymmetry(parts, [each.asymmetry for each in calls], count),
            rounding,
            long_tail,
            draws,
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
        sampled = self.mean.sampled
        quantile = self._quantile(alpha)
        widening = 1 + SKEWNESS * self.asymmetry * (2 * quantile**2 + 1) / (6 * quantile)
        bias = either(sampled.bias, self.long_tail)
        return replace(sampled, standard_error=sampled.standard_error * widening, bias=bias)

    def _quantile(self, alpha: float) -> float:
        from scipy.special import stdtrit

        return float(stdtrit(self.mean.n - 1, 1 - alpha)) if self.mean.n > 1 else math.inf

    def assumes(self, other: float, alpha: float) -> str:
        """What a decision at an error probability takes for granted that no number of draws can show, in words.

        Args:
            other: the number that the mean was found to differ from.
            alpha: the error probability.
        """
        found = self.at(alpha)
        if not isinstance(found, Sampled):
            return ""
        return unmet(self.draws, abs(found.mean - other) - self._quantile(alpha) * found.standard_error, alpha)


def _asymmetry(parts: Sequence[float], each: Sequence[float], count: int) -> float:
    """The skewness of a mean of independent parts with such errors, each a mean of draws of such skewness."""
    squares = math.fsum(part**2 for part in parts)
    if not squares > 0:
        return 0.0
    return math.fsum(a * part**3 for a, part in zip(each, parts, strict=True)) / squares**1.5 / math.sqrt(count)


def _data_set_error(rows: Sequence[Sampled], error: float) -> float:
    """sqrt((var_i v_i - noise) / N): the noise in var_i v_i is (mean_i s_i^2 - e^2) N / (N - 1), with e the error of
    the mean over the examples: mean_i s_i^2 if they are independent, and less if they share noise.
    """
    count, means = len(rows), [row.mean for row in rows]
    squares = math.fsum(row.standard_error**2 for row in rows) / count
    if count < 2 or not all(map(math.isfinite, [*means, squares, error])):
        return math.nan
    mean = math.fsum(means) / count
    variance = math.fsum((value - mean) ** 2 for value in means) / (count - 1)
    noise = max(0.0, squares - error**2) * count / (count - 1)
    return math.sqrt(max(0.0, variance - noise) / count)


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
