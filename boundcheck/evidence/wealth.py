"""Capital that is bet against "E w <= m": a lower bound on log p(x) that assumes nothing about the weights' tails.

Importance weights w >= 0 are independent with mean at most p(x). Their mean over a group, divided by a number m, is
what one unit of capital becomes that was spread evenly over the group's draws, each a bet that pays w/m. If
m >= p(x), every such bet is unfavourable, so capital compounded group after group has an expectation of at most one
at every moment (a betting martingale; Waudby-Smith & Ramdas 2023), and by Ville's inequality it ever reaches 1/delta
with probability at most delta. Every m at which it did is excluded: what is left is a lower confidence bound on
log p(x), valid at any time, with no moment of the weights assumed. Small groups learn fast from weights that vary
little, large ones survive weights that vary wildly; so the capital is split evenly over group sizes 1, 2, 4, ...,
and nothing has to be tuned, guessed from a pilot run, or known of the scale of p(x).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput
from boundcheck.evidence.accumulators import Rows

Floats = NDArray[np.float64]

LEVELS = 24
"""Groups of 1, 2, 4, ..., 2^(LEVELS - 1) draws share the capital, unless another number of them is asked for."""
_LOG_TWO = math.log(2.0)
_EPSILON = float(np.finfo(np.float64).eps)
_NEWTON_STEPS = 60
_FOR_LOSSES = 1e-3
"""The share of delta that is kept for the case that examples are lost."""


class Wealth:
    """log-capital of bets against "E w <= m", for every m at once, from a stream of log-weights.

    With A_l the sum over the groups of 2^l consecutive draws of the log of the group's mean weight, and n draws,

        log E(m) = log (1/L) sum_{l < L} exp(A_l - (n / 2^l) log m),

    where an unfinished group of r draws with mean weight v counts as v^(r / 2^l): until it is finished, its capital
    is (1 - f) + f v/m with f = r / 2^l, which is at least (v/m)^f (weighted means), and also at least 1 - f, which is
    used where v is zero. E(p(x)) has expectation at most 1 at every stopping time, and E decreases in m, so the root
    of E(m) = 1/delta is a lower confidence bound on log E w, and so on log p(x).

    A_l / (n / 2^l) estimates IWAE_k (Burda et al. 2016) at k = 2^l: up to the price log(L/delta) / (n/k), the bound is
    the best of all those IWAE estimates. For independent examples, capitals multiply, and their product depends on
    the log m_i only through their sum: the bound on the mean of log p(x_i) pays that price once for all of them.

    Groups are aligned to the stream's own draws, so spans of a stream can be worked on apart, in any order and by
    several processes, and `merged`: the result is the same up to rounding. The state is some rows of one number for
    each example: at most 3 L, however many draws.

    Args:
        examples: the number of examples.
        start: which draw of the stream is the first that will be added.
        levels: L; to be chosen before the draws are seen. `bit_length` of the planned number of draws is enough.

    Raises:
        BadInput: a negative or non-integer number.

    References:
        I. Waudby-Smith & A. Ramdas (2023), "Estimating means of bounded random variables by betting", for the
        martingale; J. Ville (1939) for the inequality; R. Grosse, Z. Ghahramani & R. Adams (2015), "Sandwiching the
        marginal likelihood using bidirectional Monte Carlo", for the case of a single group.

    >>> rng = np.random.default_rng(0)
    >>> wealth = Wealth(examples=2)
    >>> for _ in range(10):
    ...     wealth.add(rng.normal(-0.5, 1.0, size=(500, 2)))  # log-weights of mean weight 1
    >>> [round(float(bound), 3) for bound in wealth.lower(1e-3)]
    [-0.075, -0.09]
    >>> round(wealth.lower_mean(1e-3), 3)
    -0.061
    """

    def __init__(self, examples: int, start: int = 0, levels: int = LEVELS) -> None:
        for name, value, least in (("examples", examples, 0), ("start", start, 0), ("levels", levels, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise BadInput(name, value, f"an integer of at least {least}")
        self.examples, self.levels = examples, levels
        self._spans: list[tuple[int, int]] = []
        self._next = start
        self._totals: list[Any] = [0.0] * levels
        self._unmatched: dict[tuple[int, int], Any] = {}  # (level, index) -> log-mean of a group without its sibling
        self._largest: Any = 0.0

    # --- the stream ---

    def add(self, log_weights: Rows) -> None:
        """Take the next log-weights of the stream, of shape (draws, examples), float64: an array or a torch tensor.

        An example with a NaN or a weight of +inf gets the bound -inf; the others are not touched by it.

        Raises:
            BadInput: another shape or type of number.
        """
        if log_weights.ndim != 2 or log_weights.shape[1] != self.examples:
            raise BadInput("the shape of log_weights", tuple(log_weights.shape), f"(draws, {self.examples})")
        if not str(log_weights.dtype).endswith("float64"):
            raise BadInput("the type of log_weights", str(log_weights.dtype), "float64")
        draws, level, index, rows = len(log_weights), 0, self._next, log_weights
        if draws == 0:
            return
        self._cover(self._next, self._next + draws)
        self._largest = _larger(self._largest, rows)
        while len(rows):
            self._totals[level] = self._totals[level] + rows.sum(0)
            if level + 1 == self.levels:
                break
            if index % 2:
                self._match(level, index, rows[0])
                rows, index = rows[1:], index + 1
            if len(rows) % 2:
                self._match(level, index + len(rows) - 1, rows[-1])
                rows = rows[:-1]
            rows = _log_mean(rows[0::2], rows[1::2])
            level, index = level + 1, index // 2
        self._next += draws

    def _match(self, level: int, index: int, row: Any) -> None:
        """Join a group with its sibling to one of twice the size, and that one with its own, as far as it goes."""
        while level + 1 < self.levels:
            sibling = self._unmatched.pop((level, index ^ 1), None)
            if sibling is None:
                self._unmatched[level, index] = row.copy() if isinstance(row, np.ndarray) else row.clone()
                return
            row = _log_mean(sibling, row)
            level, index = level + 1, index // 2
            self._totals[level] = self._totals[level] + row

    def _cover(self, start: int, stop: int) -> None:
        spans = sorted([*self._spans, (start, stop)])
        joined = spans[:1]
        for first, last in spans[1:]:
            if first < joined[-1][1]:
                raise BadInput("the draws", (first, last), "spans that do not overlap", "add every span once")
            if first == joined[-1][1]:
                joined[-1] = (joined[-1][0], last)
            else:
                joined.append((first, last))
        self._spans = joined

    def state(self) -> dict[str, NDArray[Any]]:
        """All that was kept, as plain arrays (np.savez can write them); in those without "_", examples come last."""
        keys = sorted(self._unmatched)
        rows = [self._row(self._unmatched[key]) for key in keys]
        return {
            "totals": np.stack([self._row(total) for total in self._totals]),
            "_keys": np.array(keys, dtype=np.int64).reshape(-1, 2),
            "rows": np.array(rows, dtype=np.float64).reshape(-1, self.examples),
            "largest": self._row(self._largest),
            "_spans": np.array([*self._spans, (self._next, self._next)], dtype=np.int64).reshape(-1, 2),
        }

    @classmethod
    def merged(cls, states: Sequence[Mapping[str, NDArray[Any]]]) -> Self:
        """One accumulator from the states of several spans of one stream, in whatever order.

        Raises:
            BadInput: no state, states of different examples or levels, or spans that overlap.
        """
        if not states:
            raise BadInput("states", states, "at least one state")
        shapes = {state["totals"].shape for state in states}
        if len(shapes) > 1:
            raise BadInput("states", sorted(shapes), "states of the same examples and levels")
        levels, examples = states[0]["totals"].shape
        whole = cls(examples, levels=levels, start=max(int(state["_spans"][-1, 1]) for state in states))
        for state in states:
            for start, stop in state["_spans"][:-1].tolist():
                whole._cover(start, stop)
            whole._totals = [total + row for total, row in zip(whole._totals, state["totals"], strict=True)]
            whole._largest = np.maximum(whole._largest, state["largest"])
            for (level, index), row in zip(state["_keys"].tolist(), state["rows"], strict=True):
                whole._match(level, index, row)
        return whole

    # --- what it says ---

    @property
    def draws(self) -> int:
        """The number n of draws for each example.

        Raises:
            BadInput: spans of the stream are missing, so there is no n.
        """
        if not self._spans:
            return 0
        if len(self._spans) > 1 or self._spans[0][0] != 0:
            raise BadInput("the draws", self._spans, "one span from 0 on", "merge the states of all spans")
        return self._spans[0][1]

    def log_wealth(self, log_mean: Any) -> Floats:
        """log E(m) of each example at log m, a number or one for each example: at least log(1/delta) excludes m."""
        lines = self._lines()
        return lines.log_wealth(np.broadcast_to(np.asarray(log_mean, dtype=np.float64), (self.examples,)))

    def lower(self, delta: float, *, fixed: bool = False) -> Floats:
        """Lower confidence bounds on log E w of each example, each at 1 - delta, in nats; -inf where there is none.

        P(sup_n lower_n > log E w) <= delta for each example; for all of N examples at once, ask for delta / N.

        Args:
            delta: the probability of being wrong.
            fixed: the number of draws was fixed before any was seen. Then a share of the capital is also staked on
                all of them as one group, and the bound is valid at that number only.

        Raises:
            BadInput: a delta outside (0, 1).
        """
        lines = self._lines(fixed)
        return self._safe(lines.root(-math.log(checked_delta(delta))), self._row(self._largest))

    def lower_mean(self, delta: float, which: NDArray[Any] | None = None, *, fixed: bool = False) -> float:
        """A lower confidence bound at 1 - delta on the mean of log E w over the examples, in nats.

        It costs log(L/delta) / N over N independent examples, where each example on its own costs log(L/delta).

        Examples left out because a weight of theirs was NaN or +inf were left out for what their draws were, and the
        others may be the lucky ones. For each choice made beforehand the bound holds; so a thousandth of delta is
        shared out among the C(N, d) ways to lose d of N examples, for each d.

        Args:
            delta: the probability of being wrong.
            which: a mask or indices of the examples to take, chosen without looking at finite weights.
            fixed: as for `lower`.

        Raises:
            BadInput: a delta outside (0, 1), or no example.
        """
        lines, largest = self._lines(fixed), self._row(self._largest)
        price = 0.0
        if which is not None:
            price = -math.log1p(-_FOR_LOSSES)
            taken = np.zeros(self.examples, dtype=bool)
            taken[which] = True
            lost = int((~(lines.finished[0] < math.inf) & ~taken).sum())
            if lost:
                ways = math.lgamma(self.examples + 1) - math.lgamma(lost + 1) - math.lgamma(self.examples - lost + 1)
                price = ways + math.log(self.examples) - math.log(_FOR_LOSSES)
            lines, largest = lines.of(which), largest[which]
        if not len(largest):
            raise BadInput("which", which, "at least one example")
        threshold = price - math.log(checked_delta(delta))
        return float(self._safe(lines.product().root(threshold), largest.max(keepdims=True))[0])

    def _lines(self, fixed: bool = False) -> _Lines:
        """The two lower bounds of each level's log-capital, which are straight lines in log m."""
        draws = self.draws
        finished, fractions = np.stack([self._row(total) for total in self._totals]), np.zeros(self.levels)
        unfinished = np.zeros((self.levels, self.examples))  # log of the mean weight of the unfinished group
        for level in range(self.levels):
            held = draws % (1 << level)
            fractions[level] = held / (1 << level)
            if held:
                parts = [
                    self._row(row) + (below * _LOG_TWO - math.log(held))
                    for (below, _), row in sorted(self._unmatched.items())
                    if below < level
                ]
                with np.errstate(invalid="ignore"):
                    unfinished[level] = np.logaddexp.reduce(parts, axis=0)
        counts = np.array([draws >> level for level in range(self.levels)])
        if not fixed or not 0 < draws < 1 << self.levels:
            return _Lines(finished, unfinished, fractions, counts)
        # All draws: at most one finished group of the topmost level, and its unfinished one.
        share = fractions[-1] if counts[-1] else 1.0
        parts = [(finished[-1], 1 / (1 + share))] if counts[-1] else []
        parts += [(unfinished[-1], share / (counts[-1] + share))] if fractions[-1] > 0 else []
        with np.errstate(invalid="ignore"):
            everything = np.logaddexp.reduce([row + math.log(weight) for row, weight in parts], axis=0)
        return _Lines(
            np.vstack([finished, everything]),
            np.vstack([unfinished, np.zeros_like(everything)]),
            np.append(fractions, 0.0),
            np.append(counts, 1),
        )

    def _row(self, row: Any) -> Floats:
        values = row.detach().cpu().numpy() if hasattr(row, "detach") else np.asarray(row, dtype=np.float64)
        return np.broadcast_to(values, (self.examples,)).astype(np.float64)

    def _safe(self, root: Floats, largest: Floats) -> Floats:
        """The root, less all that rounding can have added to it.

        Sums of n numbers in any order, and log-means nested `levels` deep, are off by at most n + 8 levels relative
        roundings of the largest number in them; the root is an average of such sums.
        """
        size = np.where(np.isfinite(root), np.abs(root), 0.0) + largest + 1.0
        return np.nextafter(root - (self.draws + 16 * self.levels + 64) * _EPSILON * size, -math.inf)


@dataclass(frozen=True)
class _Lines:
    """log-capital of each level (rows) and example (columns), bounded below by two lines a - c log m."""

    finished: Floats
    unfinished: Floats
    fractions: Floats
    counts: NDArray[np.int64]
    examples: int = 1

    def of(self, which: NDArray[Any]) -> _Lines:
        return _Lines(self.finished[:, which], self.unfinished[:, which], self.fractions, self.counts)

    def product(self) -> _Lines:
        """The capital that is staked on all examples one after another; log m is then the examples' mean log m."""
        examples = self.finished.shape[1]
        return _Lines(_row_sums(self.finished), _row_sums(self.unfinished), self.fractions, self.counts, examples)

    def pieces(self) -> tuple[Floats, Floats, Floats, Floats]:
        with np.errstate(invalid="ignore"):
            whole = self.finished + self.fractions[:, None] * np.where(
                self.fractions[:, None] > 0, self.unfinished, 0.0
            )
        kept = self.finished + self.examples * np.log1p(-self.fractions)[:, None]
        prior = math.log(len(self.counts))
        usable = self.finished[0] < math.inf  # not so if a log-weight was NaN or +inf
        intercepts = (np.where(usable, each, -math.inf) - prior for each in (whole, kept))
        slopes = (
            self.examples * each[:, None] * np.ones_like(whole) for each in (self.counts + self.fractions, self.counts)
        )
        return (*intercepts, *slopes)  # type: ignore[return-value]

    def log_wealth(self, log_mean: Floats) -> Floats:
        return self._value_and_slope(log_mean)[0]

    def _value_and_slope(self, log_mean: Floats) -> tuple[Floats, Floats]:
        whole, kept, steep, flat = self.pieces()
        first, second = whole - steep * log_mean, kept - flat * log_mean
        terms, slopes = np.maximum(first, second), np.where(first >= second, steep, flat)
        value = np.logaddexp.reduce(terms, axis=0)
        shares = np.exp(terms - np.where(np.isfinite(value), value, 0.0))
        return value, (shares * slopes).sum(0)

    def root(self, threshold: float) -> Floats:
        """Where log-capital falls to the threshold, from below: Newton's steps on a convex function never pass it."""
        whole, kept, steep, flat = self.pieces()
        with np.errstate(divide="ignore", invalid="ignore"):
            starts = np.concatenate([(whole - threshold) / steep, (kept - threshold) / flat])
        starts = np.where(np.isfinite(starts) & (np.concatenate([steep, flat]) > 0), starts, -math.inf)
        point = starts.max(0)
        found = np.isfinite(point)
        point = np.where(found, point, 0.0)
        for _ in range(_NEWTON_STEPS):
            value, slope = self._value_and_slope(point)
            step = np.where(found & (slope > 0), (value - threshold) / np.where(slope > 0, slope, 1.0), 0.0)
            point = point + np.maximum(step, 0.0)
            if np.all(step <= 4 * _EPSILON * (1 + np.abs(point))):
                break
        return np.where(found, point, -math.inf)


def _row_sums(rows: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.array([[math.fsum(row) if np.isfinite(row).all() else np.sum(row)] for row in rows])


def _log_mean(first: Any, second: Any) -> Any:
    if not isinstance(first, np.ndarray):
        return first.logaddexp(second) - _LOG_TWO
    with np.errstate(invalid="ignore"):  # a NaN is carried to the end, where its example gets no bound
        return np.logaddexp(first, second) - _LOG_TWO


def _larger(largest: Any, rows: Any) -> Any:
    """The largest finite |log w| so far, of each example."""
    if isinstance(rows, np.ndarray):
        sizes = np.abs(rows)
        return np.maximum(largest, np.max(sizes, axis=0, where=np.isfinite(sizes), initial=0.0))
    return rows.abs().nan_to_num(nan=0.0, posinf=0.0).amax(0).clamp(min=largest)


def checked_delta(delta: float) -> float:
    """The probability, if it is one.

    Raises:
        BadInput: anything that does not lie between 0 and 1.
    """
    if isinstance(delta, bool) or not isinstance(delta, int | float) or not 0 < delta < 1:
        raise BadInput("delta", delta, "a probability between 0 and 1", "for example delta=1e-3")
    return float(delta)


__all__ = ["LEVELS", "Wealth", "checked_delta"]
