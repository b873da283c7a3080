"""The evaluation card of log-weights that some other program computed: nothing else is known of the model.

An array is read through a memory map and in blocks, so that its size is limited by the disk; torch is not needed. What
needs the model is not to be had: simulated data, annealing, an upper bound from counting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput
from boundcheck.evaluators.values import Approximate
from boundcheck.evidence.accumulators import IwaeGroups, Maker, Tail, WeightSums, joined, tail_size
from boundcheck.evidence.bounds import bounds_of, table_of, wealth_maker
from boundcheck.evidence.card import EvidenceCard, versions
from boundcheck.evidence.independence import refuse_dependent
from boundcheck.evidence.intervals import interval_of
from boundcheck.evidence.loading import mapped_array
from boundcheck.evidence.objective import Estimate
from boundcheck.evidence.verdict import ALPHA, Judgement, judge
from boundcheck.evidence.weight_run import KS, ROUNDINGS, WeightRun, summarised

_BLOCK = 1 << 21
"""Numbers that are read at once."""
_LARGEST = 1e100


def evaluate_log_weights(
    log_weights: Any,
    *,
    examples_first: bool = False,
    objective_values: Any = None,
    alpha: float = ALPHA,
    log_evidence: Approximate | None = None,
    dimensions: int | None = None,
    name: str = "",
    note: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> EvidenceCard:
    """The evaluation card of log-weights log w = log p(x,z) - log q(z|x), z ~ q(.|x), from whatever framework.

    Args:
        log_weights: in nats, of shape (draws, examples), independent; an array, or the path of an .npy file or of one
            array, "FILE.npz:NAME". -inf is a weight of zero. An example with a NaN is named, and left out.
        examples_first: the shape is (examples, draws).
        objective_values: an objective's values at the same examples, in nats: of shape (replicates, examples) (or
            transposed, with `examples_first`), or (examples,) if they have no Monte Carlo error. By default the ELBO,
            the mean of the log-weights, is judged.
        alpha: the probability that anything on the card is decided wrongly.
        log_evidence: the examples' mean log p(x), if it is known.
        dimensions: numbers in one observation, for bits per dimension.
        name: for the reader.
        note: for the reader.
        progress: called with (done, of) in log-weights.

    Raises:
        BadInput: an array of another shape, +inf, only NaN, draws that are plainly dependent, or values that do not fit
            the examples.

    >>> z = np.random.default_rng(0).normal(size=(2000, 5))
    >>> card = evaluate_log_weights(z - 0.5)  # log p(x) = 0
    >>> card.judgement.outcome.value, -0.1 < card.interval.lower < 0
    ('holds', True)
    """
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 0.5:
        raise BadInput("alpha", alpha, "an error probability between 0 and 1/2")
    array = _array("log_weights", log_weights, examples_first)
    refuse_dependent("log_weights", array)
    result = _run(array, progress)
    indices = result.evaluated
    evidence = replace(bounds_of(result, log_evidence=log_evidence), has_model=False)
    estimates = {"elbo": Estimate.of(result.curve.points[0].examples)}
    asked = "elbo"
    if objective_values is not None:
        asked = "objective values"
        estimates[asked] = _values(objective_values, examples_first, array.shape[1], indices)
    share = alpha / len(estimates)
    judgements: dict[str, Judgement] = {
        each: judge(each, value, evidence, rounding=value.rounding, alpha=share) for each, value in estimates.items()
    }
    return EvidenceCard(
        model=name or (str(log_weights) if isinstance(log_weights, str | Path) else "log-weights"),
        data=f"{result.k} draw{'s' * (result.k > 1)} for each example",
        objective=asked,
        curve=result.curve,
        interval=interval_of(
            result.accumulators["wealth"],  # type: ignore[arg-type]
            delta=alpha,
            which=indices,
            rounding=result.rounding,
        ),
        estimates={each: value.mean for each, value in estimates.items()},
        judgements=judgements,
        examples=table_of(result, alpha),
        dimensions=dimensions,
        failed=result.failed,
        notes=(
            *filter(None, (note, _doubt(array))),
            "from log-weights alone: no simulated data, no annealing, no upper bound",
        ),
        settings={"k": result.k, "examples": len(indices), "alpha": alpha, "checks": len(estimates)},
        versions=versions(),
    )


def _doubt(array: NDArray[Any]) -> str:
    """Nothing in an array says which of its axes the draws are on."""
    draws, examples = array.shape
    if draws >= examples:
        return ""
    return f"read as {draws} draws of each of {examples} examples; `examples_first` says that it is the other way round"


def _array(name: str, given: Any, examples_first: bool) -> NDArray[Any]:
    """As (draws, examples), without reading it."""
    if isinstance(given, str | Path):
        array = mapped_array(given, f"the file of {name}")
    else:
        try:
            array = np.asarray(given)
        except (TypeError, ValueError):
            raise BadInput(name, given, "numbers of shape (draws, examples)") from None
    if array.dtype.kind not in "fiu":
        raise BadInput(f"the type of {name}", str(array.dtype), "real numbers, in nats")
    if array.ndim != 2 or 0 in array.shape:
        expected = "(examples, draws)" if examples_first else "(draws, examples)"
        raise BadInput(f"the shape of {name}", array.shape, f"{expected}, with at least one of each")
    return array.T if examples_first else array


def _run(array: NDArray[Any], progress: Callable[[int, int], None] | None) -> WeightRun:
    draws, examples = array.shape
    ks = tuple([k for k in KS if k < draws] + [draws])
    makers: dict[str, Maker] = {
        "iwae": IwaeGroups.maker(ks),
        "sums": WeightSums,
        "tail": Tail.maker(tail_size(draws)),
        "wealth": wealth_maker(draws),
    }
    kinds = {name: type(maker(1, 0)) for name, maker in makers.items()}
    columns = examples if array.flags.c_contiguous else max(1, _BLOCK // draws)
    rows, done = max(1, _BLOCK // min(columns, examples)), 0
    failed: dict[int, str] = {}
    largest = 0.0
    states: list[dict[str, Mapping[str, NDArray]]] = []
    for first in range(0, examples, columns):
        block = array[:, first : first + columns]
        kept = {name: maker(block.shape[1], 0) for name, maker in makers.items()}
        for start in range(0, draws, rows):
            values = np.array(block[start : start + rows], dtype=np.float64, order="C")
            largest = max(largest, _look(values, start, first, failed))
            for each in kept.values():
                each.add(values)
            done += values.size
            if progress is not None:
                progress(done, draws * examples)
        states.append({name: each.state() for name, each in kept.items()})
    if len(failed) == examples:
        index, why = next(iter(failed.items()))
        raise BadInput("log_weights", f"all examples fail, such as {index}", "some example without NaN", why)
    merged = {name: kind.merged([joined([state[name] for state in states])]) for name, kind in kinds.items()}
    return summarised(merged, ks, draws, dict(sorted(failed.items())), _rounding(array.dtype, largest))


def _rounding(dtype: np.dtype[Any], largest: float) -> float:
    """How far off, in nats, numbers of such a size may be that were kept in a type shorter than float64: by half a
    unit in the last place, and by what the arithmetic of a model in float32 is granted.
    """
    if dtype.kind != "f" or dtype.itemsize >= 8:
        return 0.0
    return (float(np.finfo(dtype).eps) / 2 + ROUNDINGS * float(np.finfo(np.float32).eps)) * largest


def _look(values: NDArray[np.float64], start: int, first: int, failed: dict[int, str]) -> float:
    """Name what is not a log-weight; the size of the largest that is finite."""
    sizes = np.abs(values)
    wrong = np.isposinf(values) | ((sizes > _LARGEST) & np.isfinite(values))
    if wrong.any():
        draw, example = (int(each) for each in np.argwhere(wrong)[0])
        place, value = f"log_weights[{start + draw}, {first + example}]", float(values[draw, example])
        remedy = "a density of zero was divided by" if value == math.inf else "no model has such a density"
        raise BadInput(place, value, "a finite log-weight or -inf (nats)", remedy)
    missing = np.isnan(values)
    for example in np.flatnonzero(missing.any(0)).tolist():
        draw = int(np.flatnonzero(missing[:, example])[0])
        failed.setdefault(first + example, f"the log-weight of draw {start + draw} is NaN")
    return float(np.max(sizes, where=np.isfinite(values), initial=0.0))


def _values(given: Any, examples_first: bool, examples: int, kept: NDArray[np.intp]) -> Estimate:
    name = "objective_values"
    array = mapped_array(given, f"the file of {name}") if isinstance(given, str | Path) else np.asarray(given)
    if array.dtype.kind not in "fiu":
        raise BadInput(f"the type of {name}", str(array.dtype), "real numbers, in nats")
    plain = array.ndim == 1
    values = np.asarray(array, dtype=np.float64)
    values = values[None, :] if plain else values.T if examples_first else values
    if values.ndim != 2 or values.shape[1] != examples or (not plain and len(values) < 2):
        raise BadInput(
            f"the shape of {name}", array.shape, f"({examples},) or at least two replicates of {examples} examples"
        )
    values = values[:, kept]
    if np.isnan(values).any():
        replicate, example = (int(each) for each in np.argwhere(np.isnan(values))[0])
        place = f"{name}[{int(kept[example])}]" if plain else f"{name}[{replicate}, {int(kept[example])}]"
        raise BadInput(place, math.nan, "a number of nats", f"repair example {int(kept[example])}")
    finite = np.abs(values[np.isfinite(values)])
    rounding = _rounding(array.dtype, float(finite.mean()) if finite.size else 0.0)
    return Estimate.of_draws([values], random=not plain, rounding=rounding)


__all__ = ["evaluate_log_weights"]
