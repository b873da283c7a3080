"""From one estimate for each example to one for a data set, with two errors that answer two questions.

The Monte Carlo error says how far the mean over *these* examples may be from its true value; more draws shrink it.
The data-set error says how far these examples may be from others of their kind; only more examples shrink it. Adding
them up would hide which of the two limits a result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from boundcheck.errors import BadInput
from boundcheck.evaluators.values import Bias, Sampled, json_float


@dataclass(frozen=True)
class DatasetMean:
    """The mean of an objective over examples, in nats.

    Attributes:
        mean: the mean over the examples.
        monte_carlo_error: the standard error that comes from finitely many draws.
        data_set_error: the standard error that comes from finitely many examples, draws' noise taken out; NaN for
            one example.
        bias: the direction of the estimates' bias, common to all examples.
        examples: how many examples.
        n: how many independent replicates for each.
    """

    mean: float
    monte_carlo_error: float
    data_set_error: float
    bias: Bias
    examples: int
    n: int

    @property
    def sampled(self) -> Sampled:
        """The estimate of the mean over these very examples."""
        return Sampled(self.mean, self.monte_carlo_error, self.bias, self.n)

    def __str__(self) -> str:
        return (
            f"{self.mean:.6g} ± {self.monte_carlo_error:.2g} (draws) ± {self.data_set_error:.2g} (data set), "
            f"{self.bias.value}, {self.examples} examples, n = {self.n}"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "mean": json_float(self.mean),
            "monte_carlo_error": json_float(self.monte_carlo_error),
            "data_set_error": json_float(self.data_set_error),
            "bias": self.bias.value,
            "examples": self.examples,
            "n": self.n,
        }


def over_examples(values: Sequence[Sampled]) -> DatasetMean:
    """The mean of v_i over N examples, with both of its errors.

    Monte Carlo error: sqrt(sum_i se_i^2) / N. Data-set error: sqrt((var_i v_i - mean_i se_i^2) / N).

    The estimates of different examples must be independent. An infinite estimate makes the mean infinite and the
    errors NaN.

    Raises:
        BadInput: no examples.

    >>> estimates = [Sampled(-1.0, 0.3, Bias.NONE, 100), Sampled(-3.0, 0.4, Bias.NONE, 100)]
    >>> total = over_examples(estimates)
    >>> print(f"{total.mean} {total.monte_carlo_error:.3f} {total.data_set_error:.3f}")
    -2.0 0.250 0.968
    """
    if not values:
        raise BadInput("values", values, "at least one example's estimate")
    count = len(values)
    means = [value.mean for value in values]
    squares = [value.standard_error**2 for value in values]
    mean = math.fsum(means) / count if all(map(math.isfinite, means)) else sum(means)
    noise = math.fsum(squares) / count if all(map(math.isfinite, squares)) else math.nan
    spread = math.nan
    if count > 1 and math.isfinite(mean) and not math.isnan(noise):
        variance = math.fsum((value - mean) ** 2 for value in means) / (count - 1)
        spread = math.sqrt(max(0.0, variance - noise) / count)
    biases = {value.bias for value in values}
    bias = biases.pop() if len(biases) == 1 else Bias.UNKNOWN
    return DatasetMean(mean, math.sqrt(noise / count), spread, bias, count, min(value.n for value in values))
