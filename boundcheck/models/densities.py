"""Laws of real and discrete variables whose parameters may depend on other variables.

Each gives its log-density by one formula that runs on floats, arrays and balls (see `arithmetic`), and says what an
integrator must know: where it lives, where its mass is, and where it is not smooth. Parameters are numbers, exact
rationals (Fraction, or text such as "0.1"), arrays, or balls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from boundcheck.errors import BadInput
from boundcheck.models import arithmetic as F
from boundcheck.models.arithmetic import is_ball, like, number
from boundcheck.models.parameters import finite as _finite
from boundcheck.models.parameters import positive as _positive

Parameter: TypeAlias = Any
"""An int, float, Fraction, text such as "1/3", numpy array, or Arb ball."""


class Density:
    """A law of one real or discrete variable."""

    discrete = False

    def log_density(self, v: Any) -> Any:
        """The log-density (log-probability if discrete) at v, in nats."""
        raise NotImplementedError

    def interval(self) -> tuple[Any, Any]:
        """The support: a lower and an upper end, None where there is none."""
        return (None, None)

    def kinks(self) -> Sequence[Any]:
        """Points of the support at which the log-density is not analytic."""
        return ()

    def center(self) -> Any:
        """Where the mass is."""
        raise NotImplementedError

    def spread(self) -> Any:
        """How wide the mass is."""
        raise NotImplementedError


@dataclass(frozen=True)
class Normal(Density):
    """Normal(mean, scale): log density -(v - mean)^2 / (2 scale^2) - log scale - log(2 pi) / 2.

    >>> round(float(Normal(0, 1).log_density(0.0)), 6)
    -0.918939
    """

    mean: Parameter
    scale: Parameter

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _finite("mean", self.mean))
        object.__setattr__(self, "scale", _positive("scale", self.scale, "scale"))

    def log_density(self, v: Any) -> Any:
        scale = like(self.scale, v)
        t = (v - like(self.mean, v)) / scale
        return -(t * t) / 2 - F.log(scale) - (F.log_pi(v) + F.log(2 + 0 * v)) / 2

    def center(self) -> Any:
        return self.mean

    def spread(self) -> Any:
        return self.scale


@dataclass(frozen=True)
class LocationScale(Density):
    """A law of (v - location) / scale."""

    location: Parameter
    scale: Parameter

    def __post_init__(self) -> None:
        object.__setattr__(self, "location", _finite("location", self.location))
        object.__setattr__(self, "scale", _positive("scale", self.scale, "scale"))

    def center(self) -> Any:
        return self.location

    def spread(self) -> Any:
        return self.scale


@dataclass(frozen=True)
class Laplace(LocationScale):
    """Laplace(location, scale): log density -|v - location| / scale - log(2 scale)."""

    def log_density(self, v: Any) -> Any:
        scale = like(self.scale, v)
        return -F.absolute(v - like(self.location, v)) / scale - F.log(2 * scale + 0 * v)

    def kinks(self) -> Sequence[Any]:
        return (self.location,)


@dataclass(frozen=True)
class Logistic(LocationScale):
    """Logistic(location, scale): log density -t - 2 softplus(-t) - log scale with t = (v - location) / scale."""

    def log_density(self, v: Any) -> Any:
        scale = like(self.scale, v)
        t = (v - like(self.location, v)) / scale
        return -t - 2 * F.softplus(-t) - F.log(scale + 0 * v)


@dataclass(frozen=True)
class StudentT(Density):
    """Student's t with `freedom` degrees of freedom, location and scale."""

    freedom: Parameter
    location: Parameter = 0
    scale: Parameter = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "freedom", _positive("freedom", self.freedom, "number of degrees of freedom"))
        object.__setattr__(self, "location", _finite("location", self.location))
        object.__setattr__(self, "scale", _positive("scale", self.scale, "scale"))

    def log_density(self, v: Any) -> Any:
        scale, freedom = like(self.scale, v), like(self.freedom, v)
        t = (v - like(self.location, v)) / scale
        half = (freedom + 1) / 2
        normaliser = F.log_gamma(half + 0 * _plain(v)) - F.log_gamma(freedom / 2 + 0 * _plain(v))
        normaliser = normaliser - (F.log(freedom + 0 * v) + F.log_pi(v)) / 2 - F.log(scale + 0 * v)
        return normaliser - half * F.log(1 + t * t / freedom)

    def center(self) -> Any:
        return self.location

    def spread(self) -> Any:
        return self.scale


@dataclass(frozen=True)
class Uniform(Density):
    """Uniform on [lower, upper]: log density -log(upper - lower) inside, -inf outside."""

    lower: Parameter
    upper: Parameter

    def __post_init__(self) -> None:
        object.__setattr__(self, "lower", _finite("lower", self.lower))
        object.__setattr__(self, "upper", _finite("upper", self.upper))
        _positive("upper - lower", self.upper - self.lower, "width")

    def log_density(self, v: Any) -> Any:
        lower, upper = like(self.lower, v), like(self.upper, v)
        inside = -F.log(upper - lower + 0 * v)
        if is_ball(v):
            # An integrator stays inside `interval`; a complex ball is the analytic continuation from there.
            if F.is_complex_ball(v) or (v >= lower and v <= upper):
                return inside
            return type(v).neg_inf() if (v < lower or v > upper) else type(v)(0, type(v).pos_inf())
        return np.where((v >= lower) & (v <= upper), inside, -np.inf)

    def interval(self) -> tuple[Any, Any]:
        return (self.lower, self.upper)

    def center(self) -> Any:
        return (self.lower + self.upper) / 2

    def spread(self) -> Any:
        return (self.upper - self.lower) / 4


@dataclass(frozen=True)
class Mixture(Density):
    """A mixture of densities: log density log sum_i weight_i exp(log density_i).

    Raises:
        BadInput: weights that are not positive and do not sum to one.
    """

    weights: tuple[Parameter, ...]
    components: tuple[Density, ...]

    def __post_init__(self) -> None:
        weights = tuple(number(w) for w in self.weights)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "components", tuple(self.components))
        if len(weights) != len(self.components) or not weights:
            raise BadInput("weights", self.weights, f"one weight for each of {len(self.components)} components")
        if any(not w > 0 for w in weights) or abs(float(sum(weights)) - 1) > 1e-12:
            raise BadInput("weights", self.weights, "positive weights that sum to one", "divide them by their sum")

    def log_density(self, v: Any) -> Any:
        parts = [
            c.log_density(v) + F.log(like(w, v) + 0 * v) for w, c in zip(self.weights, self.components, strict=True)
        ]
        if not is_ball(v):
            return np.logaddexp.reduce(np.broadcast_arrays(*parts))
        first = parts[0]
        return first + F.log(1 + sum((F.exp(part - first) for part in parts[1:]), 0 * v))

    def interval(self) -> tuple[Any, Any]:
        intervals = [component.interval() for component in self.components]
        if len(set(intervals)) > 1:
            raise BadInput("components", intervals, "components with one common support", "split the mixture")
        return intervals[0]

    def kinks(self) -> Sequence[Any]:
        return tuple(kink for component in self.components for kink in component.kinks())

    def center(self) -> Any:
        return sum(float(w) * component.center() for w, component in zip(self.weights, self.components, strict=True))

    def spread(self) -> Any:
        # Parameters may be arrays over other variables.
        middle = np.asarray(self.center(), dtype=float)
        reaches = [np.abs(np.asarray(c.center(), dtype=float) - middle) + np.asarray(c.spread(), dtype=float)
                   for c in self.components]  # fmt: skip
        widest = np.max(np.broadcast_arrays(*reaches), axis=0)
        return widest if widest.ndim else float(widest)


# --- discrete laws -------------------------------------------------------------------------------------------------


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or int(value) != value or value < 0:
        raise BadInput(name, value, "a whole number >= 0", "a likelihood of counts takes counts")
    return int(value)


def _whole_array(name: str, value: Any, most: Any = np.inf, expected: str = "whole numbers >= 0") -> Any:
    """Counts in an array, checked."""
    value = np.asarray(value, dtype=float)
    if not (np.isfinite(value) & (value >= 0) & (value == np.floor(value)) & (value <= most)).all():
        raise BadInput(name, value, expected, "a likelihood of counts takes counts")
    return value


def _log_factorial(counts: Any) -> Any:
    from scipy.special import gammaln

    return gammaln(counts + 1.0)


def _log_ways(n: Any, v: Any) -> Any:
    return _log_factorial(n) - _log_factorial(v) - _log_factorial(n - v)


@dataclass(frozen=True)
class BernoulliLogit(Density):
    """Bernoulli with success probability sigmoid(logit): log probability v logit - softplus(logit)."""

    logit: Parameter
    discrete = True

    def log_density(self, v: Any) -> Any:
        if isinstance(v, np.ndarray):
            _whole_array("x", v, 1, "0 or 1, the support of a Bernoulli")
            return v * self.logit - F.softplus(self.logit)
        if v not in (0, 1):
            raise BadInput(
                "x", v, "0 or 1, the support of a Bernoulli", "binarise the data, or take another likelihood"
            )
        return (self.logit if v == 1 else 0 * self.logit) - F.softplus(self.logit)


@dataclass(frozen=True)
class Binomial(Density):
    """Binomial(n, sigmoid(logit)): log C(n, v) + v logit - n softplus(logit)."""

    n: int
    logit: Parameter
    discrete = True

    def log_density(self, v: Any) -> Any:
        if isinstance(v, np.ndarray):
            n = _whole_array("n", self.n)
            v = _whole_array("x", v, n, "counts of at most n")
            return _log_ways(n, v) + v * self.logit - n * F.softplus(self.logit)
        n, v = _whole("n", self.n), _whole("x", v)
        if v > n:
            raise BadInput("x", v, f"a count of at most {n}", "check the number of trials")
        ways = F.log(math.comb(n, v) + 0 * self.logit) if is_ball(self.logit) else math.log(math.comb(n, v))
        return ways + v * self.logit - n * F.softplus(self.logit)


@dataclass(frozen=True)
class PoissonLog(Density):
    """Poisson with rate exp(log_rate): v log_rate - exp(log_rate) - log v!."""

    log_rate: Parameter
    discrete = True

    def log_density(self, v: Any) -> Any:
        if isinstance(v, np.ndarray):
            v = _whole_array("x", v)
            return v * self.log_rate - F.exp(self.log_rate) - _log_factorial(v)
        v = _whole("x", v)
        ways = F.log(math.factorial(v) + 0 * self.log_rate) if is_ball(self.log_rate) else math.lgamma(v + 1)
        return v * self.log_rate - F.exp(self.log_rate) - ways


@dataclass(frozen=True)
class Discrete(Density):
    """Finitely many points with stated probabilities, for example salt-and-pepper corruption of one pixel.

    >>> Discrete({0: "1/4", 1: "3/4"}).probabilities
    (Fraction(1, 4), Fraction(3, 4))
    """

    table: Mapping[Any, Parameter]
    discrete = True

    def __post_init__(self) -> None:
        if not self.table:
            raise BadInput("table", self.table, "at least one point")
        if any(p < 0 for p in self.probabilities) or abs(float(sum(self.probabilities)) - 1) > 1e-12:
            raise BadInput("table", dict(self.table), "probabilities >= 0 that sum to one")

    @property
    def points(self) -> tuple[Any, ...]:
        """The points, as numbers."""
        return tuple(number(point) for point in self.table)

    @property
    def probabilities(self) -> tuple[Any, ...]:
        """Their probabilities, exact where they were given exactly."""
        return tuple(number(p) for p in self.table.values())

    def log_density(self, v: Any) -> Any:
        if isinstance(v, np.ndarray):
            found = np.full(v.shape, -np.inf)
            for point, p in zip(self.points, self.probabilities, strict=True):
                found = np.where(v == float(point), F.log(np.asarray(p, dtype=float)), found)
            return found
        for point, p in zip(self.points, self.probabilities, strict=True):
            if v == point:
                return F.log(p if not isinstance(p, Fraction) else float(p))
        return -math.inf


def _plain(v: Any) -> Any:
    """A real zero-capable stand-in for v in arguments that do not depend on it."""
    return v.real if F.is_complex_ball(v) else (0 * v if is_ball(v) else 0.0)
