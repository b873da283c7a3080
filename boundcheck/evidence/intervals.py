"""Evidence intervals without assumptions: confidence bounds on log p(x) from importance weights, whatever their tails.

The bound from below is that of the bets of `wealth`: at 1 - delta, at any number of draws, with no moment assumed.
Where exact posterior draws are to be had, the reciprocal weights have mean at most 1/p(x), and the same bets bound
log p(x) from above. What each figure about the evidence promises is said by its `Label`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput
from boundcheck.evaluators.values import json_float
from boundcheck.evidence.independence import refuse_dependent
from boundcheck.evidence.wealth import LEVELS, Wealth, checked_delta

Floats = NDArray[np.float64]


class Label(Enum):
    """What a figure about the evidence promises."""

    EXPECTATION = "bound in expectation"
    PROBABILITY = "bound with probability 1-delta"
    SIMULATED = "on simulated data only"
    ESTIMATE = "estimate"


@dataclass(frozen=True)
class EvidenceInterval:
    """Confidence bounds on log p(x), in nats; see `evidence_interval`.

    Attributes:
        lower: on the mean of log p(x) over the examples.
        upper: likewise, or None without posterior draws.
        delta: the probability that `lower` or `upper` is wrong.
        draws: weights for each example.
        lower_of_examples: one bound for each example, each at 1 - delta on its own.
        upper_of_examples: likewise, or None.
    """

    lower: float
    upper: float | None
    delta: float
    draws: int
    lower_of_examples: Floats
    upper_of_examples: Floats | None
    label: Label = Label.PROBABILITY

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        uppers = self.upper_of_examples
        return {
            "quantity": "mean log p(x) over these examples, nats",
            "label": self.label.value,
            "lower": json_float(self.lower),
            "upper": None if self.upper is None else json_float(self.upper),
            "delta": self.delta,
            "draws": self.draws,
            "examples": len(self.lower_of_examples),
            "lower_of_examples": [json_float(each) for each in self.lower_of_examples.tolist()],
            "upper_of_examples": None if uppers is None else [json_float(each) for each in uppers.tolist()],
        }


def evidence_interval(
    log_weights: Any,
    *,
    posterior_log_weights: Any = None,
    delta: float = 1e-3,
    levels: int = LEVELS,
    fixed: bool = False,
) -> EvidenceInterval:
    """A confidence interval on log p(x) from log-weights of whatever framework, with no assumption on their tails.

    log w = log p(x,z) - log q(z|x) with z ~ q(.|x) bounds log p(x) from below, since E w <= p(x). With exact and
    independent draws z ~ p(z|x), which only simulated data or a conjugate model offers, E 1/w <= 1/p(x) bounds it from
    above in the same way. The bounds are those of `Wealth`: valid at whatever number of draws one stops, unless that
    number is said to be `fixed`. If both are asked for, each is at 1 - delta/2.

    Args:
        log_weights: of shape (draws, examples), or (draws,) for one example; independent; -inf is a weight of zero.
        posterior_log_weights: log w at exact posterior draws, of shape (draws, examples) or (draws,).
        delta: the probability of being wrong.
        levels: as for `Wealth`.
        fixed: the number of draws was fixed before any was seen, as for `Wealth.lower`.

    Raises:
        BadInput: an array of another shape, NaN, a weight that is infinite, draws that are plainly dependent, or a
            delta outside (0, 1).

    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(2000, 3))  # E w = 1 if log w ~ N(-1/2, 1); posterior draws give N(1/2, 1)
    >>> interval = evidence_interval(z - 0.5, posterior_log_weights=0.5 - z)
    >>> round(interval.lower, 3), round(interval.upper, 3)
    (-0.079, 0.079)
    >>> interval.label.value
    'bound with probability 1-delta'
    """
    checked_delta(delta)
    forward = _all_at_once("log_weights", log_weights, 1, levels)
    if posterior_log_weights is None:
        return interval_of(forward, delta=delta, fixed=fixed)
    reverse = _all_at_once("posterior_log_weights", posterior_log_weights, -1, levels)
    if reverse.examples != forward.examples:
        raise BadInput("posterior_log_weights", f"{reverse.examples} examples", f"{forward.examples} examples")
    return interval_of(forward, reverse, delta=delta, fixed=fixed)


def interval_of(
    forward: Wealth,
    reverse: Wealth | None = None,
    *,
    delta: float = 1e-3,
    which: NDArray[Any] | None = None,
    rounding: float = 0.0,
    fixed: bool = False,
) -> EvidenceInterval:
    """The interval that accumulated bets give.

    Args:
        forward: has been given log-weights with z ~ q(.|x).
        reverse: has been given *minus* the log-weights of exact posterior draws.
        delta: the probability of being wrong, shared by both sides if there are two.
        which: a mask or indices of the examples to take, chosen without looking at their weights.
        rounding: how far off, in nats, the model's own arithmetic may have made the log-weights; both sides move by it.
        fixed: the numbers of draws were fixed before any was seen, as for `Wealth.lower`.

    Raises:
        BadInput: a delta outside (0, 1), no example, or spans of the draws that are missing.

    >>> wealth = Wealth(examples=1)
    >>> wealth.add(np.full((1000, 1), -80.0))
    >>> round(interval_of(wealth, delta=0.01).lower, 3)
    -80.008
    """
    share = checked_delta(delta) if reverse is None else delta / 2
    taken = slice(None) if which is None else which
    lower, lowers = _both(forward, share, which, fixed)
    lower, lowers = lower - rounding, lowers[taken] - rounding
    if reverse is None:
        return EvidenceInterval(lower, None, delta, forward.draws, lowers, None)
    upper, uppers = _both(reverse, share, which, fixed)
    return EvidenceInterval(lower, rounding - upper, delta, forward.draws, lowers, rounding - uppers[taken])


def _both(wealth: Wealth, delta: float, which: NDArray[Any] | None, fixed: bool) -> tuple[float, Floats]:
    return wealth.lower_mean(delta, which, fixed=fixed), wealth.lower(delta, fixed=fixed)


def _all_at_once(name: str, given: Any, sign: int, levels: int) -> Wealth:
    values = checked_log_weights(name, given, zero=-sign * math.inf)
    refuse_dependent(name, values)
    wealth = Wealth(values.shape[1], levels=levels)
    wealth.add(sign * values)
    return wealth


def checked_log_weights(name: str, given: Any, *, zero: float = -math.inf) -> Floats:
    """Log-weights as float64 of shape (draws, examples); `zero` is the only infinity that may occur among them.

    Raises:
        BadInput: an array of another shape, no draws, NaN, or the other infinity.
    """
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise BadInput(name, given, "numbers of shape (draws, examples)") from None
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or 0 in values.shape:
        raise BadInput(f"the shape of {name}", values.shape, "(draws, examples), with at least one of each")
    bad = np.isnan(values) | (values == -zero)
    if bad.any():
        draw, example = np.argwhere(bad)[0].tolist()
        expected = f"a finite log-weight or {zero:+} (nats)"
        raise BadInput(
            f"{name}[{draw}, {example}]", float(values[draw, example]), expected, f"repair example {example}"
        )
    return values


__all__ = [
    "LEVELS",
    "EvidenceInterval",
    "Label",
    "Wealth",
    "checked_log_weights",
    "evidence_interval",
    "interval_of",
]
