"""A trained model's evidence card: from objects, or from the files that a user names on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boundcheck.catalogue import objectives
from boundcheck.errors import BadInput, FormulaError, UnknownName, require
from boundcheck.evaluators.averages import DatasetMean, over_examples
from boundcheck.evaluators.monte_carlo import prepare, run
from boundcheck.evaluators.values import Approximate
from boundcheck.evidence.card import ALPHA, EvidenceCard, UpperBound, judge
from boundcheck.evidence.engine import KS, discrete_upper_bound, iwae_curve
from boundcheck.evidence.loading import load_data, load_factory, load_weights, make_model
from boundcheck.language.build import Formula
from boundcheck.models.torch_model import TorchModel

if TYPE_CHECKING:
    import torch
else:
    torch = require("torch", extra="torch", feature="evaluating a trained model")

_ALWAYS = ("denoising_coupled", "denoising_decoupled")
_DRAWS_OF_COPIES = 50_000


def evaluate_model(
    model: object,
    x: Any,
    *,
    objective: str | Formula = "elbo",
    k: int = 5000,
    replicates: int | None = None,
    inner: int = 64,
    seed: int = 0,
    chunk: int | None = None,
    alpha: float = ALPHA,
    log_evidence: Approximate | None = None,
    parameters: dict[str, Any] | None = None,
    model_name: str = "",
    data_name: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> EvidenceCard:
    """The evidence card of a model at some data: the IWAE curve up to k, the objective, and, if the model corrupts
    its input, both readings of the denoising objective.

    Args:
        model: a `TorchModel` or an object with its functions, in evaluation mode.
        x: observations of shape (examples, *event).
        objective: a formula, or the name of one in `boundcheck.catalogue.objectives`. A parameter called k of a
            formula is k. "iwae" is the end of the curve.
        k: the largest number of weights.
        replicates: independent replicates of the objectives for each example; by default 1000, fewer for formulas of
            many copies.
        inner: draws for each expectation inside a nonlinear function of an objective.
        seed: of all draws.
        chunk: the most points handed to the model at once.
        alpha: the error probability of a verdict.
        log_evidence: the examples' mean log p(x), if it is known: then both verdicts can be had.
        parameters: of the formula, other than k.
        model_name: for the reader.
        data_name: for the reader.
        progress: called with (done, of) in draws.

    Raises:
        BadInput: wrong arguments, data or laws; see `boundcheck.evaluators.monte_carlo.evaluate`.
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
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise BadInput("k", k, "an integer of at least 1", "k = 1 gives the ELBO alone")
    if not 0 < alpha < 0.5:
        raise BadInput("alpha", alpha, "an error probability between 0 and 1/2")
    wrapped = TorchModel.wrap(model)
    data = wrapped.data(x)
    name = objective if isinstance(objective, str) else getattr(objective, "__name__", "objective")
    formulas: dict[str, Formula] = {}
    if name not in ("elbo", "iwae"):
        formulas[name] = find_objective(objective) if isinstance(objective, str) else objective
    elif not isinstance(objective, str):
        raise BadInput("objective", name, "a formula of another name", "elbo and iwae are read off the IWAE curve")
    if wrapped.has("corruption"):
        formulas |= {each: getattr(objectives, each) for each in _ALWAYS if each not in formulas}
    given = {each: _parameters(formula, k, parameters if each == name else {}) for each, formula in formulas.items()}
    counts = {each: _replicates(replicates, values, k) for each, values in given.items()}
    for each, formula in formulas.items():  # a formula that cannot be sampled should fail before the long work
        prepare(formula, wrapped, data[:1], n=2, inner=inner, **given[each])

    report = _Progress(progress, len(data) * (k + sum(counts.values())))
    ks = [each for each in KS if each < k] + [k]
    curve = iwae_curve(wrapped, data, ks, seed=seed, chunk=chunk, progress=report)
    estimates: dict[str, DatasetMean] = {"elbo": curve.points[0].mean}
    rounding = {"elbo": curve.rounding}
    for i, (each, formula) in enumerate(formulas.items()):
        own_seed = (seed + 1_000_003 * (i + 1)) % 2**63  # other draws than the curve's
        options: dict[str, Any] = {"n": counts[each], "inner": inner, "seed": own_seed, "chunk": chunk}
        job = prepare(formula, wrapped, data, **options, **given[each])
        estimates[each] = over_examples(run(job, report))
        rounding[each] = job.rounding

    upper = _upper_bound(wrapped, data)
    judgements = {
        each: judge(each, value, curve, upper=upper, known=log_evidence, rounding=rounding[each], alpha=alpha)
        for each, value in estimates.items()
    }
    settings = {
        "k": k,
        "examples": len(data),
        "replicates": counts.get(name, k),
        "seed": seed,
        "alpha": alpha,
        "device": str(data.device),
        "dtype": str(data.dtype).removeprefix("torch."),
    }
    shown = model_name or type(model).__name__
    return EvidenceCard(shown, data_name or "data", name, curve, estimates, judgements, upper, settings)


def evaluate_files(
    spec: str,
    *,
    data: str | Path,
    weights: str | Path | None = None,
    objective: str = "elbo",
    k: int = 5000,
    seed: int = 0,
    device: str = "cpu",
    limit: int | None = None,
    key: str | None = None,
    replicates: int | None = None,
    chunk: int | None = None,
    alpha: float = ALPHA,
    progress: Callable[[int, int], None] | None = None,
) -> EvidenceCard:
    """The evidence card of a model in a file: what `boundcheck evaluate FILE.py:NAME --weights W --data D` shows.

    Args:
        spec: "FILE.py:NAME", a function without arguments that makes the model (usually an nn.Module with methods
            prior, encoder, decoder), or the model itself. A module is put into evaluation mode.
        data: an .npz or .npy file; "digits.npz:test" names an array. Integers become the module's floating type.
        weights: a .safetensors, .pt or .pth file of the module's state dict.
        objective: the name of an objective, or "FILE.py:NAME" of a formula.
        k: the largest number of weights.
        seed: of all draws, and of the choice that `limit` makes.
        device: "cpu", "cuda", "cuda:1".
        limit: evaluate only so many examples, chosen at random without replacement.
        key: the array of the data file, if its path does not name it.
        replicates: independent replicates of the objectives for each example.
        chunk: the most points handed to the model at once.
        alpha: the error probability of a verdict.
        progress: called with (done, of) in draws.

    Raises:
        BoundcheckError: one line for whatever is wrong with files, shapes, numbers or names.
    """
    where = _device(device)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise BadInput("limit", limit, "an integer of at least 1")
    formula: str | Formula = objective
    if ".py:" in objective:
        formula = load_factory(objective)
        if not callable(formula):
            raise BadInput("objective", objective, "a formula: a function of (m, x) that returns a term")
    elif objective not in ("elbo", "iwae"):
        find_objective(objective)
    array = load_data(data, key)
    made = make_model(load_factory(spec), spec)
    if weights is not None:
        load_weights(made, weights)
    if isinstance(made, torch.nn.Module):
        made.eval().to(where)
    model = TorchModel.wrap(made)
    if limit is not None and limit < len(array):
        array = array[np.sort(np.random.default_rng(seed).choice(len(array), limit, replace=False))]
    x = torch.as_tensor(array).to(model.dtype or torch.get_default_dtype()).to(where)
    return evaluate_model(
        model,
        x,
        objective=formula,
        k=k,
        replicates=replicates,
        seed=seed,
        chunk=chunk,
        alpha=alpha,
        model_name=spec,
        data_name=str(data),
        progress=progress,
    )


def find_objective(name: str) -> Formula:
    """The formula of that name in `boundcheck.catalogue.objectives`.

    Raises:
        UnknownName: with the nearest known names.

    >>> find_objective("elbo").__name__
    'elbo'
    """
    known = {
        each: value
        for each, value in vars(objectives).items()
        if inspect.isfunction(value) and value.__module__ == objectives.__name__ and _takes_model(value)
    }
    if name not in known:
        raise UnknownName("objective", name, known)
    return known[name]


def _takes_model(function: Callable[..., Any]) -> bool:
    return list(inspect.signature(function).parameters)[:2] == ["m", "x"]


def _parameters(formula: Formula, k: int, given: dict[str, Any] | None) -> dict[str, Any]:
    own = dict(given or {})
    try:
        names = inspect.signature(formula).parameters
    except (TypeError, ValueError):
        return own
    if "k" in names and "k" not in own:
        own["k"] = k
    missing = [each for each, p in list(names.items())[2:] if p.default is p.empty and each not in own]
    if missing:
        shown = getattr(formula, "__name__", "the formula")
        raise FormulaError(f"the objective {shown} needs a value for {', '.join(missing)}")
    return own


def _replicates(asked: int | None, parameters: dict[str, Any], k: int) -> int:
    if asked is not None:
        if isinstance(asked, bool) or not isinstance(asked, int) or asked < 2:
            raise BadInput("replicates", asked, "an integer of at least 2", "one replicate has no standard error")
        return asked
    return 1000 if "k" not in parameters else max(10, min(1000, _DRAWS_OF_COPIES // k))


def _upper_bound(model: TorchModel, x: torch.Tensor) -> UpperBound | None:
    entropy = discrete_upper_bound(model, x)
    if entropy is None:
        return None
    return UpperBound(Approximate(entropy, 1e-9), "probabilities of different points sum to at most 1")


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:
        raise BadInput("device", name, "a device of this machine", "cpu always works") from error
    return device


class _Progress:
    """Turns numbers of draws just made into (done, of)."""

    def __init__(self, report: Callable[[int, int], None] | None, of: int) -> None:
        self.report, self.of, self.done = report, of, 0

    def __call__(self, draws: int) -> None:
        self.done += draws
        if self.report is not None:
            self.report(self.done, self.of)
