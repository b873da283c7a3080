"""What annealing is asked for: the densities from the base to the posterior, and how many chains go through them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput
from boundcheck.evidence.streams import checked_seed

BASES = ("encoder", "prior")
SCHEDULES = ("sigmoid", "linear")
_SIGMOID_STEEPNESS = 4.0


@dataclass(frozen=True)
class Setting:
    """What a call asks for; see `boundcheck.evidence.annealing.annealed_weights`."""

    temperatures: int
    chains: int
    leapfrogs: int
    base: str
    kind: str
    seed: int
    rows: int

    def __post_init__(self) -> None:
        for name in ("temperatures", "chains", "leapfrogs", "rows"):
            _check_count(name, getattr(self, name))
        if self.base not in BASES:
            raise BadInput("base", self.base, " or ".join(map(repr, BASES)))
        checked_seed(self.seed)


def schedule(temperatures: int, kind: str = "sigmoid") -> NDArray[np.float64]:
    """0 = b_0 < b_1 < ... < b_T = 1: evenly spaced, or denser at both ends.

    "sigmoid": s(4 (2 t/T - 1)), s(u) = 1 / (1 + exp(-u)), moved and stretched to end at 0 and 1 (Grosse et al. 2015).

    Raises:
        BadInput: no integer T of at least 1, or another kind.

    >>> schedule(4, "linear").tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    >>> schedule(4).round(3).tolist()
    [0.0, 0.105, 0.5, 0.895, 1.0]
    """
    _check_count("temperatures", temperatures)
    if kind not in SCHEDULES:
        raise BadInput("kind", kind, " or ".join(map(repr, SCHEDULES)))
    even = np.linspace(0.0, 1.0, temperatures + 1)
    if kind == "linear":
        return even
    bent = 1 / (1 + np.exp(-_SIGMOID_STEEPNESS * (2 * even - 1)))
    betas = (bent - bent[0]) / (bent[-1] - bent[0])
    betas[0], betas[-1] = 0.0, 1.0
    return betas


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(name, value, "an integer of at least 1")


__all__ = ["BASES", "SCHEDULES", "Setting", "schedule"]
