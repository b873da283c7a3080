"""How far rounding can move a log-density: a few units in the last place of its parts and of its parameters."""

from __future__ import annotations

from typing import Any

import numpy as np

from boundcheck.models.densities import (
    BernoulliLogit,
    Binomial,
    Density,
    Laplace,
    Logistic,
    Mixture,
    Normal,
    PoissonLog,
    StudentT,
)

_UNIT = 8 * 2.0**-52


def rounding_of(law: Density, v: Any) -> Any:
    """A bound on the rounding error of law.log_density(v), parameters taken to be good to a few units themselves."""
    if isinstance(law, Normal):
        mean, scale = _float(law.mean), _float(law.scale)
        t = np.abs(_float(v) - mean) / scale
        return _UNIT * (t * (np.abs(mean) / scale + t) + np.abs(np.log(scale)) + 2.0)
    if isinstance(law, Laplace | Logistic):
        mean, scale = _float(law.location), _float(law.scale)
        t = np.abs(_float(v) - mean) / scale
        return _UNIT * (np.abs(mean) / scale + t + np.abs(np.log(scale)) + 2.0)
    if isinstance(law, StudentT):
        freedom, mean, scale = _float(law.freedom), _float(law.location), _float(law.scale)
        t = np.abs(_float(v) - mean) / scale
        tilt = (freedom + 1) * t / (freedom + t * t)
        size = np.abs(np.log(scale)) + (freedom + 1) * (np.log(freedom + 2) + np.log1p(t))
        return _UNIT * (tilt * (np.abs(mean) / scale + t) + size + 4.0)
    if isinstance(law, Mixture):
        total = np.asarray(law.log_density(v), dtype=float)
        error: Any = 0.0
        for weight, part in zip(law.weights, law.components, strict=True):
            share = np.exp(np.minimum(np.asarray(part.log_density(v)) + np.log(_float(weight)) - total, 0.0))
            error = error + np.where(np.isfinite(total), share * rounding_of(part, v), 0.0)
        return error + _UNIT * (1.0 + np.where(np.isfinite(total), np.abs(total), 0.0))
    if isinstance(law, BernoulliLogit):
        return _UNIT * (np.abs(_float(law.logit)) + 1.0)
    if isinstance(law, Binomial):
        n = _float(law.n)
        return _UNIT * n * (np.abs(_float(law.logit)) + 1.0 + np.log(n + 2.0))
    if isinstance(law, PoissonLog):
        rate, v = _float(law.log_rate), _float(v)
        return _UNIT * ((np.exp(rate) + v) * (1.0 + np.abs(rate)) + v * np.log(v + 2.0) + 1.0)
    size = np.abs(np.asarray(law.log_density(v), dtype=float))
    return 8 * _UNIT * (1.0 + np.where(np.isfinite(size), size, 0.0))


def _float(value: Any) -> Any:
    return value if isinstance(value, np.ndarray) else float(value)
