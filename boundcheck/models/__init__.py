"""What a formula is evaluated on."""

from boundcheck.models.finite import FiniteModel, load_model

__all__ = ["FiniteModel", "load_model"]
