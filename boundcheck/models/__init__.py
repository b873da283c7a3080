"""What a formula is evaluated on."""

from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.factored import FactoredModel
from boundcheck.models.finite import FiniteModel, load_model
from boundcheck.models.linear_gaussian import LinearGaussianModel

__all__ = ["ContinuousModel", "FactoredModel", "FiniteModel", "LinearGaussianModel", "load_model"]
