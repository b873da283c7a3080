"""Values that are kept, because many claims ask for the same formulas on the same models.

A formula is evaluated once on a model; and where many models hold exact tables of one size, on all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from boundcheck.errors import BoundcheckError
from boundcheck.evaluators.black_box import BlackBox
from boundcheck.evaluators.exact import evaluate_on_all
from boundcheck.evaluators.strongest import FIRST_PRECISION, Model, value_of
from boundcheck.evaluators.values import Exact, Value
from boundcheck.language.terms import Term
from boundcheck.models.finite import FiniteModel


class ModelValues:
    """The strongest values of formulas on one model, each computed once, however often it is asked for.

    >>> from boundcheck.catalogue.objectives import log_evidence
    >>> from boundcheck.language.build import trace
    >>> model = FiniteModel(prior=["1/2", "1/2"], likelihood=[["1/3", "2/3"], [1, 0]], encoder=[[1, 0], [0, 1]])
    >>> values = ModelValues(model)
    >>> print(values.of(trace(log_evidence), 1))
    -log(3)
    """

    def __init__(self, model: Model, alike: Alike | None = None) -> None:
        self.model, self._alike = model, alike
        self.known: dict[tuple[Term, Any, int], Value] = {}

    def of(self, term: Term | BlackBox, x: Any, precision: int = FIRST_PRECISION) -> Value:
        """As `value_of`; a black box is called anew, for it may not answer twice alike."""
        if isinstance(term, BlackBox):
            return value_of(term, self.model, x, precision)
        key = (term, tuple(x) if isinstance(x, list) else x, precision)
        if key not in self.known and self._alike is not None:
            self._alike.learn(term)
        if key not in self.known:
            self.known[key] = value_of(term, self.model, x, precision)
        return self.known[key]


class Alike:
    """Exact models of equal sizes, on all of which a formula is evaluated in one traversal, as far as it can be."""

    def __init__(self) -> None:
        self.members: list[ModelValues] = []
        self._tried: set[Term] = set()

    def learn(self, term: Term) -> None:
        """Tell the members the term's exact values."""
        if term in self._tried:
            return
        self._tried.add(term)
        try:
            found = evaluate_on_all(term, [each.model for each in self.members])  # type: ignore[misc]
        except BoundcheckError:  # what is wrong, and with which of them, shows where each is evaluated alone
            return
        for values, numbers in zip(self.members, found, strict=True):
            for x, number in enumerate(numbers):
                if not number.is_undefined:
                    values.known[term, x, FIRST_PRECISION] = Exact(number)


def values_on(models: Iterable[Model]) -> list[ModelValues]:
    """Values on many models, to be asked for many formulas: faster than one model at a time."""
    groups: dict[Any, Alike] = {}
    made = []
    for model in models:
        alike = None
        if isinstance(model, FiniteModel) and model.is_exact():
            alike = groups.setdefault((tuple(model.sizes.items()), model.roles), Alike())
        made.append(ModelValues(model, alike))
        if alike is not None:
            alike.members.append(made[-1])
    return made


__all__ = ["Alike", "ModelValues", "values_on"]
