"""A trained model's evaluation card: one pass over the log-weights, the objectives, and what else bounds log p(x)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boundcheck.catalogue import objectives
from boundcheck.errors import BadInput, BoundcheckError, CannotCompute, require
from boundcheck.evaluators.averages import DatasetMean
from boundcheck.evaluators.values import Approximate
from boundcheck.evidence.audit import Finding, below_simulated_evidence, same_as
from boundcheck.evidence.bounds import annealed_of, annealing_moves, bounds_of, grid_of, table_of, wealth_maker
from boundcheck.evidence.card import EvidenceCard, versions
from boundcheck.evidence.curve import discrete_upper_bound
from boundcheck.evidence.engine import KS, WeightRun, run
from boundcheck.evidence.intervals import interval_of
from boundcheck.evidence.journal import JournalError
from boundcheck.evidence.numbering import numbered
from boundcheck.evidence.objective import Estimate, TrainingObjective
from boundcheck.evidence.progress import Progress
from boundcheck.evidence.simulated import SimulatedEvidence, simulate
from boundcheck.evidence.stages import Stage
from boundcheck.evidence.subject import CURVE, Subject, split_name, subject
from boundcheck.evidence.verdict import ALPHA, Judgement, UpperBound, judge
from boundcheck.language.build import Formula
from boundcheck.models.torch_model import TorchModel, random_state
from boundcheck.models.torch_supports import name_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="evaluating a trained model")
    Tensor = torch.Tensor

ALWAYS = ("denoising_coupled", "denoising_decoupled")
"""Judged beside the objective if the model corrupts its input."""
SIMULATED = 200
"""Examples that are drawn from the model, unless another number is asked for."""
_SIMULATED_K = 1000
_IMAGES = 12


def evaluate_model(
    model: object,
    x: Any,
    *,
    objective: str | Formula | TrainingObjective = "elbo",
    same: str | None = None,
    same_parameters: dict[str, Any] | None = None,
    k: int = 5000,
    replicates: int | None = None,
    inner: int = 64,
    simulated: int = SIMULATED,
    ais: int | None = None,
    grid: bool = True,
    seed: int = 0,
    chunk: int | None = None,
    threads: int | None = None,
    dtype: str | None = None,
    resume: str | Path | None = None,
    alpha: float = ALPHA,
    log_evidence: Approximate | None = None,
    parameters: dict[str, Any] | None = None,
    model_name: str = "",
    data_name: str = "",
    note: str = "",
    indices: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> EvidenceCard:
    """The evaluation card of a model at some data.

    IWAE for K = 1, 5, 50, 500, 5000 and an interval on log p(x) come from one pass over k log-weights for each example.
    The objective, and both readings of the denoising objective if the model corrupts its input, are estimated from
    draws of their own and held against the evidence, at the data and at data that the model draws itself. The verdict
    is that of `boundcheck.evidence.verdict.judge`, which says how alpha is split.

    Args:
        model: a `TorchModel` or an object with its functions, in evaluation mode.
        x: observations of shape (examples, *event).
        objective: a formula, the name of one in `boundcheck.catalogue.objectives`, or a `TrainingObjective`. A
            parameter called k of a formula is k. "iwae" is the end of the curve.
        same: the name of what the objective is said to be; if the two differ, the card says so and its outcome is
            "violated", since the declared identity is, whatever the evidence.
        same_parameters: of that.
        k: the largest number of weights.
        replicates: independent replicates of the objectives for each example; by default 1000, fewer for formulas of
            many copies, 200 for a training objective.
        inner: draws for each expectation inside a nonlinear function of an objective.
        simulated: examples to draw from the model, where its evidence is known from both sides; 0 for none.
        ais: temperatures of annealed importance sampling, for continuous latents.
        grid: integrate over the latent if it has one or two dimensions.
        seed: of all draws.
        chunk: the most points handed to the model at once.
        threads: as for `boundcheck.evidence.engine.run`, like dtype.
        dtype: "bfloat16" for the decoder's products.
        resume: a directory that keeps finished work of all these stages: the same call goes on after an interruption,
            and its card is that of an uninterrupted one.
        alpha: the probability that anything on the card is decided wrongly.
        log_evidence: the examples' mean log p(x), if it is known: then both verdicts can be had.
        parameters: of the formula, other than k.
        model_name: for the reader.
        data_name: for the reader.
        note: for the reader, such as how the data were binarised.
        indices: the examples' numbers in the reader's data, if these are some of them.
        progress: called with (done, of) in draws.

    Raises:
        JournalError: the directory to resume from is another job's, or cannot be written to.
        BadInput: wrong arguments, data or laws; see `boundcheck.evaluators.monte_carlo.evaluate`. Data outside the
            likelihood's support are refused; an example whose log-weights are NaN is named on the card, and the others
            are evaluated.
        CannotCompute: an objective with an integral or a law that cannot be sampled.
        UnknownName: no such objective.

    >>> from torch.distributions import Normal
    >>> model = TorchModel(
    ...     prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x / 4, 0.7), decoder=lambda z: Normal(z, 1.0)
    ... )
    >>> card = evaluate_model(model, torch.linspace(-1, 1, 200), k=500)
    >>> [point.k for point in card.curve.points], card.judgement.outcome.value
    ([1, 5, 50, 500], 'holds')
    """
    _check(k, alpha, simulated)
    wrapped = TorchModel.wrap(model)
    data = wrapped.data(x)
    if indices is not None and len(indices) != len(data):
        raise BadInput("indices", indices, f"{len(data)} numbers, one for each example")
    if same is not None and not isinstance(same, str):
        raise BadInput("same", same, "the name of an objective", "for example same='elbo'")
    options: dict[str, Any] = {"k": k, "replicates": replicates, "inner": inner, "chunk": chunk}
    name, subjects = _subjects(objective, model, wrapped, parameters, seed, options)
    reference = None
    if same is not None and name == "iwae":
        raise BadInput("same", same, "an objective with draws of its own", f"for the end of the curve say iwae:k={k}")
    if same is not None and split_name(same)[0] != "elbo":
        reference = subject(same, model, parameters=same_parameters, seed=_seed(seed, 90), **options)
        reference.check(data[:1])
    for each, what in subjects.items():
        if each == name:
            what.check(data)

    counts = sum(each.replicates for each in subjects.values())
    of = len(data) * (k + counts + (reference.replicates if reference else 0))
    of += simulated * (2 * min(k, _SIMULATED_K) - 1 + counts) if simulated and subjects else 0
    report = Progress(progress, of + annealing_moves(len(data), ais))
    result = run(
        wrapped,
        data,
        [each for each in KS if each < k] + [k],
        seed=seed,
        chunk=chunk,
        threads=threads,
        dtype=dtype,
        resume=resume,
        accumulators={"wealth": wealth_maker(k)},
        progress=report.total,
    )
    report.fix(len(data) * k)
    _refuse_outside_support(result)
    notes = list(result.notes)
    kept = data[torch.as_tensor(result.evaluated, device=data.device)]
    stages = Stage.of(wrapped, kept, seed, resume)

    estimates: dict[str, Estimate] = {"elbo": Estimate.of(result.curve.points[0].examples)}
    rounding = {"elbo": result.rounding}
    for each, what in list(subjects.items()):
        try:
            stage = stages.within("objective").within(each)
            with numbered(result.evaluated):
                estimates[each], rounding[each] = what.estimate(kept, report, notes, stage)
        except BoundcheckError as error:
            if each == name or isinstance(error, JournalError):
                raise
            notes.append(f"{each} was not evaluated: {_first_line(error)}")
            del subjects[each]
    compared = None
    if same is not None:
        compared = estimates["elbo"], result.rounding
        if reference is not None:
            compared = reference.estimate(kept, report, notes, stages.within("same-as").within(reference.name))
    source = _simulated(wrapped, data, simulated, k, seed, chunk, report, notes, stages) if subjects else None
    annealed, gap = annealed_of(wrapped, kept, ais, seed, notes, report, stages)
    upper = _upper_bound(wrapped, kept)
    quadrature = grid_of(wrapped, kept, grid, result, notes, stages.within("grid"))
    evidence = bounds_of(result, annealed, quadrature, upper, log_evidence)

    checks = len(estimates) + (len(subjects) if source else 0) + (compared is not None)
    judgements: dict[str, Judgement] = {}
    for each, value in estimates.items():
        finding = None
        if source is not None and each in subjects:
            finding = _at_simulated(subjects[each], source, alpha / checks, report, notes, stages)
        judgements[each] = judge(
            each,
            value,
            evidence,
            simulated=finding,
            can_simulate=each in subjects,
            rounding=rounding[each],
            alpha=alpha / checks,
        )
    identity: Finding | None = None
    if compared is not None and same is not None and name in estimates:
        slack = rounding[name] + compared[1]
        said = ", ".join([same, *(f"{each} = {value}" for each, value in (same_parameters or {}).items())])
        identity = same_as(estimates[name], said, compared[0], alpha=alpha / checks, rounding=slack)
    report.finish()

    means: dict[str, DatasetMean] = {each: value.mean for each, value in estimates.items()}
    table = table_of(result, alpha, indices, quadrature)
    return EvidenceCard(
        model=model_name or type(model).__name__,
        data=data_name or "data",
        objective=name,
        curve=result.curve,
        interval=interval_of(_wealth(result), delta=alpha, which=result.evaluated, rounding=result.rounding),
        estimates=means,
        judgements=judgements,
        examples=table,
        dimensions=int(data[0].numel()),
        identity=identity,
        upper=upper,
        annealed=annealed,
        gap=gap,
        grid=quadrature,
        simulated=source,
        likelihood=describe_likelihood(wrapped, data) + (f"; {note}" if note else ""),
        failed={int(_shown(indices, index)): why for index, why in result.failed.items()},
        notes=tuple(dict.fromkeys(notes)),
        settings={
            "k": k,
            "examples": len(kept),
            "replicates": subjects[name].replicates if name in subjects else k,
            "seed": seed,
            "alpha": alpha,
            "checks": checks,
            "device": str(data.device),
            "dtype": result.settings["dtype"],
        },
        versions=versions("torch"),
        images={int(table.index[row]): kept[int(row)].detach().cpu().numpy() for row in table.worst(_IMAGES)},
    )


# --- parts ---


def _check(k: int, alpha: float, simulated: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise BadInput("k", k, "an integer of at least 1", "k = 1 gives the ELBO alone")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 0.5:
        raise BadInput("alpha", alpha, "an error probability between 0 and 1/2")
    if isinstance(simulated, bool) or not isinstance(simulated, int) or simulated < 0:
        raise BadInput("simulated", simulated, "a number of examples of at least 0", "0 leaves this check out")


def _subjects(
    objective: str | Formula | TrainingObjective,
    model: object,
    wrapped: TorchModel,
    parameters: dict[str, Any] | None,
    seed: int,
    options: dict[str, Any],
) -> tuple[str, dict[str, Subject]]:
    """The name of what was asked for, and all that has to be estimated by draws of its own."""
    found: dict[str, Subject] = {}
    if isinstance(objective, str) and objective in CURVE:
        name = objective
    else:
        asked = subject(objective, model, parameters=parameters, seed=_seed(seed, 1), **options)
        name = asked.name
        if name in CURVE:
            if not isinstance(objective, TrainingObjective):
                raise BadInput("objective", name, "a formula of another name", f"{name} is read off the IWAE curve")
            name = f"{name} (yours)"
        found[name] = asked
    if wrapped.has("corruption"):
        for number, each in enumerate(ALWAYS):
            if each not in found:
                found[each] = subject(getattr(objectives, each), model, seed=_seed(seed, 2 + number), **options)
    return name, found


def _seed(seed: int, number: int) -> int:
    """Other draws than the curve's, for each objective its own."""
    return (seed + 1_000_003 * number) % 2**63


def _refuse_outside_support(result: WeightRun) -> None:
    for index, why in result.failed.items():
        if "in the support of" in why:
            raise BadInput(f"x[{index}]", "outside the support", "data that the likelihood can have produced", why)


def _wealth(result: WeightRun) -> Any:
    return result.accumulators["wealth"]


def _simulated(
    model: TorchModel,
    x: Tensor,
    examples: int,
    k: int,
    seed: int,
    chunk: int | None,
    report: Progress,
    notes: list[str],
    stages: Stage,
) -> SimulatedEvidence | None:
    if not examples:
        return None
    kind = x.dtype if x.is_floating_point() else None
    options: dict[str, Any] = {"seed": _seed(seed, 91), "chunk": chunk, "device": x.device, "dtype": kind}
    options |= {"progress": report, "stage": stages.within("simulated")}
    try:
        return simulate(model, examples, k=min(k, _SIMULATED_K), **options)
    except JournalError:
        raise
    except (BoundcheckError, NotImplementedError, RuntimeError) as error:
        notes.append(f"no check at simulated data: {_first_line(error)}")
        return None


def _at_simulated(
    what: Subject, source: SimulatedEvidence, alpha: float, report: Progress, notes: list[str], stages: Stage
) -> Finding | None:
    try:
        found, rounding = what.estimate(source.x, report, notes, stages.within("simulated-objective").within(what.name))
    except JournalError:
        raise
    except BoundcheckError as error:
        notes.append(f"{what.name} was not checked at simulated data: {_first_line(error)}")
        return None
    return below_simulated_evidence(found, source, alpha=alpha, rounding=rounding)


def _upper_bound(model: TorchModel, x: Tensor) -> UpperBound | None:
    entropy = discrete_upper_bound(model, x)
    if entropy is None:
        return None
    return UpperBound(Approximate(entropy, 1e-9), "probabilities of different points sum to at most 1")


def describe_likelihood(model: TorchModel, x: Tensor) -> str:
    """What p(x|z) is, and whether the data are binary: "independent Bernoulli of shape (784,); all data are 0 or 1"."""
    with torch.inference_mode(), random_state(x.device, 0):
        law: Any = model.law("likelihood", model.sample("encoder", model.law("encoder", x[:1]), ()))
    binary = bool(((x == 0) | (x == 1)).all())
    low, high = float(x.min()), float(x.max())
    values = "all data are 0 or 1" if binary else f"data from {low:.4g} to {high:.4g}"
    return f"{name_of(law)} of shape {tuple(law.event_shape)}; {values}"


def _shown(indices: Any, index: int) -> int:
    return index if indices is None else int(indices[index])


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


__all__ = ["ALWAYS", "SIMULATED", "CannotCompute", "describe_likelihood", "evaluate_model"]
