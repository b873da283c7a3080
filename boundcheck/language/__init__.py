"""What an objective is: terms, laws, and the functions that build them."""

from boundcheck.language.build import (
    E,
    Formula,
    density,
    exp,
    integrate,
    kl,
    log,
    log_mean_exp,
    maximum,
    maximum_over,
    mean,
    minimum,
    minimum_over,
    mixture,
    normalised,
    same,
    total,
    trace,
)
from boundcheck.language.laws import Law, SymbolicModel
from boundcheck.language.positions import Position, Shape, bias_shape, positions
from boundcheck.language.serialise import from_json, to_json
from boundcheck.language.terms import OBSERVED, Space, Term

__all__ = [
    "OBSERVED",
    "E",
    "Formula",
    "Law",
    "Position",
    "Shape",
    "Space",
    "SymbolicModel",
    "Term",
    "bias_shape",
    "density",
    "exp",
    "from_json",
    "integrate",
    "kl",
    "log",
    "log_mean_exp",
    "maximum",
    "maximum_over",
    "mean",
    "minimum",
    "minimum_over",
    "mixture",
    "normalised",
    "positions",
    "same",
    "to_json",
    "total",
    "trace",
]
