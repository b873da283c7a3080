"""How a formula gets a value: one file for each choice of nodes and numbers."""

from boundcheck.evaluators.strongest import evaluate, value_of

__all__ = ["evaluate", "value_of"]
