"""What one pass over the log-weights keeps for each example, however many there are.

An accumulator sees all draws of a span in order and turns them into a small state of plain arrays. States of
consecutive spans merge into the state of both, so that spans may be worked on anywhere, saved, and put together later:
IWAE_k for every k from disjoint groups of k consecutive draws (without bias), the sums that give the effective sample
size, and the largest weights. All arithmetic is in float64 and in logarithms. Log-weights come as tensors, on whatever
device, or as arrays of numpy; then torch is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

Rows = TypeVar("Rows", NDArray[np.float64], "Tensor")
"""Log-weights of shape (draws, examples), float64: an array of numpy, or a tensor on whatever device."""
State: TypeAlias = Mapping[str, NDArray]
"""Arrays by name. Names that begin with "_" are common to all examples; all others have examples on their last axis."""


class Accumulator(Protocol):
    """Something additive over draws: what the engine needs of it.

    A maker, `Callable[[int, int], Accumulator]`, is called with the number of examples and the place of the first draw.
    """

    def add(self, log_weights: Rows) -> None:
        """Take the next draws."""
        ...

    def state(self) -> dict[str, NDArray]:
        """All that is kept, as arrays that `numpy.savez` can hold without pickling."""
        ...

    @classmethod
    def merged(cls, states: Sequence[State]) -> Self:
        """The accumulator of consecutive spans, given their states in order."""
        ...


Maker: TypeAlias = Callable[[int, int], Accumulator]


def joined(states: Sequence[State]) -> dict[str, NDArray]:
    """The state of all examples from the states of blocks of them, in order.

    >>> parts = [{"_count": np.array(7), "sum": np.array([1.0, 2.0])}, {"_count": np.array(7), "sum": np.array([3.0])}]
    >>> joined(parts)["sum"].tolist(), int(joined(parts)["_count"])
    ([1.0, 2.0, 3.0], 7)
    """
    return {
        name: np.asarray(states[0][name])
        if name.startswith("_")
        else np.concatenate([state[name] for state in states], axis=-1)
        for name in states[0]
    }


def _log_add(a: NDArray, b: NDArray) -> NDArray:
    """log(e^a + e^b); NaN, which marks an example that failed, stays NaN without a warning."""
    with np.errstate(invalid="ignore"):
        return np.logaddexp(a, b)


# --- what arrays of numpy and tensors call by different names ---


def _array(values: Any) -> NDArray:
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()


def _log_sum(values: Any, axis: int = 0) -> Any:
    """log sum e^v along an axis; NaN stays NaN."""
    if not isinstance(values, np.ndarray):
        return values.logsumexp(axis)
    largest = values.max(axis, keepdims=True)
    largest = np.where(np.isinf(largest), 0.0, largest)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(values - largest).sum(axis)) + largest.squeeze(axis)


def _zero_where(which: Any, values: Any) -> Any:
    return np.where(which, 0.0, values) if isinstance(values, np.ndarray) else values.masked_fill(which, 0.0)


def _largest(values: Any, count: int) -> NDArray:
    """The largest `count` of each column; a NaN counts as larger than any number."""
    if isinstance(values, np.ndarray):
        return np.partition(values, len(values) - count, axis=0)[len(values) - count :]
    return values.topk(count, dim=0, sorted=True).values.cpu().numpy()


# --- IWAE_k ---


class IwaeGroups:
    """log mean w over disjoint groups of k consecutive draws, for several k: mean and spread over the groups.

    The mean over groups of log mean_{j<=k} w_j estimates IWAE_k (Burda et al. 2016, eq. 8) without bias, for every k
    from the same draws. Groups are counted from the first draw of all; what is left over at the end is not used. A
    span may begin and end inside a group: then the sums of its two ends wait for its neighbours.

    Args:
        ks: sizes of groups.
        examples: how many.
        start: the place of the first draw.

    >>> groups = IwaeGroups((1, 2), examples=1)
    >>> groups.add(np.array([[-np.inf], [np.log(2.0)], [0.0]]))
    >>> groups.counts, groups.means().round(4).tolist()
    ([3, 1], [[-inf], [0.0]])
    """

    def __init__(self, ks: Sequence[int], examples: int, start: int = 0) -> None:
        self.ks = tuple(ks)
        self._segments = [_Segment.empty(k, start, examples) for k in self.ks]

    @classmethod
    def maker(cls, ks: Sequence[int]) -> Maker:
        """What the engine calls for each item."""
        return lambda examples, start: cls(ks, examples, start)

    def add(self, log_weights: Rows) -> None:
        self._segments = [segment + _Segment.of(segment.k, segment.stop, log_weights) for segment in self._segments]

    @property
    def counts(self) -> list[int]:
        """Complete groups for each k."""
        return [segment.count for segment in self._segments]

    def means(self) -> NDArray[np.float64]:
        """The mean over groups, of shape (ks, examples), in nats; -inf if the weights of a group are all zero."""
        return np.stack([np.where(s.infinite > 0, -math.inf, s.mean) for s in self._segments])

    def errors(self) -> NDArray[np.float64]:
        """The standard errors of the means; NaN for a single group, and for infinite means."""
        rows = []
        for s in self._segments:
            error = np.sqrt(s.squares / (s.count - 1) / s.count) if s.count > 1 else np.full_like(s.mean, math.nan)
            rows.append(np.where(s.infinite > 0, math.nan, error))
        return np.stack(rows)

    def skewnesses(self) -> NDArray[np.float64]:
        """The skewness of the finite groups' values, of shape (ks, examples); 0 where they are all equal."""
        rows = []
        for s in self._segments:
            spread = (s.squares / max(1, s.count)) ** 1.5
            rows.append(np.divide(s.cubes / max(1, s.count), spread, out=np.zeros_like(spread), where=spread > 0))
        return np.stack(rows)

    def state(self) -> dict[str, NDArray]:
        segments = self._segments
        return {
            "_ks": np.array(self.ks, dtype=np.int64),
            "_places": np.array([(s.start, s.stop, s.count) for s in segments], dtype=np.int64),
            **{name: np.stack([getattr(s, name) for s in segments]) for name in _Segment.ARRAYS},
        }

    @classmethod
    def merged(cls, states: Sequence[State]) -> Self:
        made = cls.__new__(cls)
        made.ks = tuple(int(k) for k in states[0]["_ks"])
        for index, state in enumerate(states):
            segments = []
            for row, (k, places) in enumerate(zip(made.ks, state["_places"], strict=True)):
                start, stop, count = (int(place) for place in places)
                segments.append(_Segment(k, start, stop, count, *(state[name][row] for name in _Segment.ARRAYS)))
            made._segments = segments if index == 0 else [a + b for a, b in zip(made._segments, segments, strict=True)]
        return made


class _Segment:
    """Draws [start, stop): the groups of k that lie inside, and the log-sums of what sticks out at either end.

    `head` belongs to a group that began before `start`; `tail` to one that ends after `stop`. Where no group ends or
    begins inside, everything is in `head`.
    """

    ARRAYS = ("head", "tail", "mean", "squares", "cubes", "infinite")

    def __init__(
        self,
        k: int,
        start: int,
        stop: int,
        count: int,
        head: NDArray,
        tail: NDArray,
        mean: NDArray,
        squares: NDArray,
        cubes: NDArray,
        infinite: NDArray,
    ) -> None:
        self.k, self.start, self.stop, self.count = k, start, stop, count
        self.head, self.tail, self.infinite = head, tail, infinite
        self.mean, self.squares, self.cubes = mean, squares, cubes

    @classmethod
    def empty(cls, k: int, start: int, examples: int) -> _Segment:
        nothing, zero = np.full(examples, -math.inf), np.zeros(examples)
        return cls(k, start, start, 0, nothing, nothing, zero, zero, zero, zero)

    @classmethod
    def of(cls, k: int, start: int, log_weights: Rows) -> _Segment:
        size, examples = log_weights.shape
        made = cls.empty(k, start, examples)
        made.stop = start + size
        first = min(-start % k, size)
        made.count = (size - first) // k
        last = first + made.count * k
        if first:
            made.head = _array(_log_sum(log_weights[:first]))
        if last < size:
            made.tail = _array(_log_sum(log_weights[last:]))
        if made.count:
            groups = log_weights[first:last]
            if k > 1:
                groups = _log_sum(groups.reshape(made.count, k, examples), 1) - math.log(k)
            unbounded = groups == -math.inf
            finite = _zero_where(unbounded, groups)
            mean = finite.mean(0)
            made.mean = _array(mean)
            shifts = finite - mean
            squares = shifts * shifts
            made.squares = _array(squares.sum(0))
            squares *= shifts
            made.cubes = _array(squares.sum(0))
            made.infinite = _array(unbounded.sum(0)).astype(np.float64)
        return made

    @property
    def boundary(self) -> int:
        """The first place, not before `start`, where a group begins."""
        return self.start + -self.start % self.k

    def __add__(self, other: _Segment) -> _Segment:
        if other.start != self.stop:
            raise BadInput("spans", (self.stop, other.start), "consecutive spans of draws, in order")
        k, start, stop = self.k, self.start, other.stop
        if stop < self.boundary:  # all of it lies inside one group
            return _Segment(k, start, stop, 0, _log_add(self.head, other.head), *_rest(other))
        if self.stop < self.boundary:  # the first group begins in the other
            return _Segment(k, start, stop, other.count, _log_add(self.head, other.head), *_rest(other))
        straddling = _log_add(self.tail, other.head)
        if stop < other.boundary:  # the group that straddles them does not end here
            return _Segment(k, start, stop, self.count, self.head, straddling, *_rest(self)[1:])
        count, moments = self.count, (self.mean, self.squares, self.cubes, self.infinite)
        if self.stop % k:
            whole = straddling - math.log(k)
            zero = np.zeros_like(whole)
            unbounded = np.isneginf(whole)
            one = (np.where(unbounded, 0.0, whole), zero, zero, unbounded.astype(np.float64))
            count, moments = count + 1, _moments(count, moments, 1, one)
        theirs = (other.mean, other.squares, other.cubes, other.infinite)
        moments = _moments(count, moments, other.count, theirs)
        return _Segment(k, start, stop, count + other.count, self.head, other.tail, *moments)


_Moments: TypeAlias = tuple[NDArray, NDArray, NDArray, NDArray]


def _rest(segment: _Segment) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    return segment.tail, segment.mean, segment.squares, segment.cubes, segment.infinite


def _moments(count: int, own: _Moments, more: int, other: _Moments) -> _Moments:
    """Mean, sums of squared and cubed deviations, and number of infinities of both (Chan, Golub and LeVeque 1979)."""
    if not more or not count:
        return other if more else own
    shift, total = other[0] - own[0], count + more
    here, there = count / total, more / total
    cubes = own[2] + other[2] + shift**3 * (count * there * (here - there))
    return (
        own[0] + shift * there,
        own[1] + other[1] + shift**2 * (count * there),
        cubes + 3 * shift * (here * other[1] - there * own[1]),
        own[3] + other[3],
    )


# --- sums and tails ---


class WeightSums:
    """log sum w and log sum w^2 of each example: the evidence estimate and the effective sample size.

    >>> sums = WeightSums(examples=2)
    >>> sums.add(np.array([[0.0, 0.0], [0.0, -np.inf]]))
    >>> sums.log_mean().round(4).tolist(), sums.effective_sample_sizes().tolist()
    ([0.0, -0.6931], [2.0, 1.0])
    """

    def __init__(self, examples: int, start: int = 0) -> None:
        self.count = 0
        self.log_sum = np.full(examples, -math.inf)
        self.log_sum_squares = np.full(examples, -math.inf)

    def add(self, log_weights: Rows) -> None:
        self.count += log_weights.shape[0]
        self.log_sum = _log_add(self.log_sum, _array(_log_sum(log_weights)))
        self.log_sum_squares = _log_add(self.log_sum_squares, _array(_log_sum(2 * log_weights)))

    def log_mean(self) -> NDArray[np.float64]:
        """log mean w, in nats: one group of all draws."""
        return self.log_sum - math.log(self.count)

    def effective_sample_sizes(self) -> NDArray[np.float64]:
        """(sum w)^2 / sum w^2: between 1 and the number of draws, and 0 if all weights are zero."""
        nothing = np.isneginf(self.log_sum)
        return np.where(nothing, 0.0, np.exp(2 * np.where(nothing, 0.0, self.log_sum) - self.log_sum_squares))

    def state(self) -> dict[str, NDArray]:
        return {
            "_count": np.array(self.count, dtype=np.int64),
            "log_sum": self.log_sum,
            "log_sum_squares": self.log_sum_squares,
        }

    @classmethod
    def merged(cls, states: Sequence[State]) -> Self:
        made = cls(len(states[0]["log_sum"]))
        made.count = sum(int(state["_count"]) for state in states)
        for state in states:
            made.log_sum = _log_add(made.log_sum, state["log_sum"])
            made.log_sum_squares = _log_add(made.log_sum_squares, state["log_sum_squares"])
        return made


class Tail:
    """The largest log-weights of each example, in descending order; -inf where there are fewer draws.

    >>> tail = Tail(2, examples=1)
    >>> tail.add(np.array([[1.0], [3.0], [2.0]]))
    >>> tail.largest[:, 0].tolist()
    [3.0, 2.0]
    """

    def __init__(self, size: int, examples: int, start: int = 0) -> None:
        self.largest = np.full((size, examples), -math.inf)

    @classmethod
    def maker(cls, size: int) -> Maker:
        """What the engine calls for each item."""
        return lambda examples, start: cls(size, examples, start)

    def add(self, log_weights: Rows) -> None:
        size = min(len(self.largest), log_weights.shape[0])
        self._take(_largest(log_weights, size))

    def _take(self, largest: NDArray) -> None:
        self.largest = -np.sort(-np.concatenate([self.largest, largest]), axis=0)[: len(self.largest)]

    def state(self) -> dict[str, NDArray]:
        return {"largest": self.largest}

    @classmethod
    def merged(cls, states: Sequence[State]) -> Self:
        made = cls(*states[0]["largest"].shape)
        for state in states:
            made._take(state["largest"])
        return made


def tail_size(draws: int) -> int:
    """How many of the largest weights the Pareto k needs: min(n / 5, 3 sqrt n) and one more (Vehtari et al. 2024).

    >>> tail_size(5000)
    214
    """
    return min(draws, math.ceil(min(draws / 5, 3 * math.sqrt(draws))) + 1)


__all__ = ["Accumulator", "IwaeGroups", "Maker", "Rows", "State", "Tail", "WeightSums", "joined", "tail_size"]
