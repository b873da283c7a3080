"""What is to be judged: a catalogue name, a formula, or a training objective, and how it is estimated on a model.

A subject can be estimated at any data, since it is held against the evidence both at the user's examples and at ones
that the model draws itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from boundcheck.catalogue import objectives
from boundcheck.errors import BadInput, FormulaError, UnknownName, require
from boundcheck.evaluators.monte_carlo import prepare
from boundcheck.evidence.objective import Estimate, TrainingObjective, declared, why_no_formula
from boundcheck.evidence.replication import replicated
from boundcheck.evidence.stages import Stage
from boundcheck.evidence.training import estimate
from boundcheck.language.build import Formula
from boundcheck.models.torch_model import TorchModel
from boundcheck.models.torch_state import out_of_memory

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = require("torch", extra="torch", feature="evaluating a trained model").Tensor

CURVE = ("elbo", "iwae")
"""Objectives that are read off the IWAE curve."""
_DRAWS_OF_COPIES = 50_000
_CALLS = 200


@dataclass(frozen=True)
class Subject:
    """An objective, with all that its estimate needs.

    Attributes:
        name: for the reader.
        source: the formula or the training objective.
        model: as the user made it.
        parameters: of the formula.
        replicates: independent ones for each example.
        inner: draws for each expectation inside a nonlinear function.
        seed: of its draws.
        chunk: the most points handed to the model at once.
    """

    name: str
    source: Formula | TrainingObjective
    model: Any
    parameters: Mapping[str, Any] = field(default_factory=dict)
    replicates: int = 1000
    inner: int = 64
    seed: int = 0
    chunk: int | None = None

    def check(self, x: Tensor) -> None:
        """Fail at once if it cannot be estimated at all, before the long work."""
        if isinstance(self.source, TrainingObjective):
            replace(self, replicates=2)._called(self.source, x[: self.source.batch], lambda rows: None, Stage())
        else:
            prepare(self._formula, self.model, x[:1], n=2, inner=self.inner)

    def estimate(
        self, x: Tensor, progress: Callable[[int], None], notes: list[str], stage: Stage | None = None
    ) -> tuple[Estimate, float]:
        """Its mean over the examples, and the rounding error of the model's own arithmetic in it, in nats.

        Where memory does not suffice for a formula, the chunk is halved, and a note says so. Its parts are computed
        and kept as the stage says.
        """
        if isinstance(self.source, TrainingObjective):
            return self._called(self.source, x, progress, stage or Stage())
        found, rounding, own = replicated(
            self.name,
            self._formula,
            TorchModel.wrap(self.model),
            x,
            replicates=self.replicates,
            inner=self.inner,
            seed=self.seed,
            chunk=self.chunk,
            stage=stage,
            progress=progress,
        )
        notes += own
        return found, rounding

    @property
    def _formula(self) -> Formula:
        """With its parameters, whose names may be those of options, such as n."""
        return partial(cast("Formula", self.source), **self.parameters)

    def _called(
        self, source: TrainingObjective, x: Tensor, progress: Callable[[int], None], stage: Stage
    ) -> tuple[Estimate, float]:
        options: dict[str, Any] = {"replicates": self.replicates, "seed": self.seed}
        try:
            found = estimate(source, self.model, x, **options, progress=progress, stage=stage)
        except Exception as error:
            if not out_of_memory(error.__cause__ or error):
                raise
            raise BadInput("batch", source.batch, "a batch that fits into memory", "pass a smaller --batch") from error
        return found, found.rounding


def subject(
    objective: str | Formula | TrainingObjective,
    model: Any,
    *,
    k: int,
    parameters: Mapping[str, Any] | None = None,
    replicates: int | None = None,
    **options: Any,
) -> Subject:
    """The subject of a name of `boundcheck.catalogue.objectives`, a formula, or a training objective.

    Args:
        objective: what to judge; "renyi:alpha=0.5" names a formula with parameters.
        model: as the user made it.
        k: the value of a parameter called k that is not given.
        parameters: of the formula.
        replicates: independent ones for each example; by default 1000, fewer for formulas of many copies, and 200
            calls of a training objective.
        **options: inner, seed and chunk, as in `Subject`.

    Raises:
        UnknownName: no such name.
        FormulaError: a parameter without a value.
        BadInput: replicates below 2.
    """
    if replicates is not None and (isinstance(replicates, bool) or not isinstance(replicates, int) or replicates < 2):
        raise BadInput("replicates", replicates, "an integer of at least 2", "one replicate has no standard error")
    if isinstance(objective, TrainingObjective):
        return Subject(objective.name, objective, model, {}, replicates or _CALLS, **options)
    given = dict(parameters or {})
    if not isinstance(objective, str):
        _refuse_what_is_no_formula(objective)
    if isinstance(objective, str):
        name, named = split_name(objective)
        formula, given = find_objective(name), named | given
        name = f"{name}:{objective.partition(':')[2]}" if named else name
    else:
        name, formula = getattr(objective, "__name__", "objective"), objective
    given = _parameters(formula, k, given)
    size = given.get("k")
    copies = size if isinstance(size, int) and size > 0 else None
    count = 1000 if copies is None else max(10, min(1000, _DRAWS_OF_COPIES // copies))
    return Subject(name, formula, model, given, replicates or count, **options)


def _refuse_what_is_no_formula(objective: Any) -> None:
    """A training loss has to be declared; what misuses the language says so itself, when it is evaluated."""
    if not callable(objective):
        raise BadInput("objective", objective, "a name, a formula, or a training_objective")
    reason = why_no_formula(objective)
    if reason is not None and not reason.startswith(FormulaError.__name__):
        declared(objective, why_no_formula=reason)


SHORT_NAMES = {"dvae": "denoising_coupled", "diwae": "diwae_coupled"}
"""What papers call an objective, and its name here: Im et al. (2015) trained the coupled readings."""


def split_name(text: str) -> tuple[str, dict[str, Any]]:
    """A name, in full, and its parameters: "renyi:alpha=0.5,k=50".

    Raises:
        BadInput: a parameter that is no number.

    >>> split_name("iwae:k=50")
    ('iwae', {'k': 50})
    >>> split_name("dvae")
    ('denoising_coupled', {})
    """
    name, colon, rest = text.partition(":")
    name = SHORT_NAMES.get(name, name)
    parameters: dict[str, Any] = {}
    for part in rest.split(",") if colon else ():
        key, _, value = part.partition("=")
        try:
            parameters[key.strip()] = int(value) if value.strip().lstrip("-").isdigit() else float(value)
        except ValueError:
            raise BadInput("the objective", text, "NAME or NAME:parameter=number,...") from None
    return name, parameters


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
        if not each.startswith("_")
        and inspect.isfunction(value)
        and value.__module__ == objectives.__name__
        and _takes_model(value)
    }
    if name not in known:
        raise UnknownName("objective", name, known)
    return known[name]


def _takes_model(function: Callable[..., Any]) -> bool:
    return list(inspect.signature(function).parameters)[:2] == ["m", "x"]


def _parameters(formula: Formula, k: int, given: dict[str, Any]) -> dict[str, Any]:
    own = dict(given)
    try:
        names = inspect.signature(formula).parameters
    except (TypeError, ValueError):
        return own
    if "k" in names and "k" not in own:
        own["k"] = k
    missing = [each for each, p in list(names.items())[2:] if p.default is p.empty and each not in own]
    shown = getattr(formula, "__name__", "the formula")
    if missing:
        raise FormulaError(f"the objective {shown} needs a value for {', '.join(missing)}")
    keywords = any(p.kind is p.VAR_KEYWORD for p in names.values())
    for each in own:
        if not keywords and each not in list(names)[2:]:
            raise UnknownName(f"parameter of {shown}", each, list(names)[2:])
    return own


__all__ = ["CURVE", "Subject", "find_objective", "split_name", "subject"]
