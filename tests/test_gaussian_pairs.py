"""Means of log-sums of two exponentials on linear-Gaussian models: against grids and draws made here."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from boundcheck import evaluate
from boundcheck.catalogue import objectives as O
from boundcheck.errors import CannotCompute
from boundcheck.evaluators import closed_form, gaussian_pairs
from boundcheck.evaluators.values import Enclosure
from boundcheck.models.linear_gaussian import LinearGaussianModel

T, WEIGHTS = np.polynomial.hermite_e.hermegauss(120)
P = WEIGHTS / WEIGHTS.sum()


def log_normal(v: Any, mean: Any, variance: float) -> Any:
    return -((v - mean) ** 2) / (2 * variance) - 0.5 * math.log(2 * math.pi * variance)


def model(a: float, u: float, k: float) -> LinearGaussianModel:
    """z ~ N(0, 1), x | z ~ N(0.7 z, 0.8), q(z|x) = N(a x + 0.2, u), x~ | x ~ N(x, k)."""
    return LinearGaussianModel(prior=(0, 1), likelihood=(0.7, 0, 0.8), encoder=(a, 0.2, u), corruption=(1, 0, k))


def log_joint(z: Any, x: float) -> Any:
    return log_normal(z, 0, 1) + log_normal(x, 0.7 * z, 0.8)


CASES = [(-0.3, 0.36, 0.64, 0.55), (0.5, 0.9, 0.2, -1.2), (0.8, 0.5, 0.7, 2.0)]


@pytest.mark.parametrize(("a", "u", "k", "x"), CASES)
def test_two_importance_samples(a: float, u: float, k: float, x: float) -> None:
    z = a * x + 0.2 + math.sqrt(u) * T
    log_w = log_joint(z, x) - log_normal(z, a * x + 0.2, u)
    truth = float(P @ (np.logaddexp(log_w[:, None], log_w) - math.log(2)) @ P)
    value = evaluate(O.iwae, model(a, u, k), x, k=2)
    assert isinstance(value, Enclosure)
    assert float(value) == pytest.approx(truth, abs=1e-6)
    assert value.upper - value.lower < 1e-9
    half = float(P @ ((np.logaddexp(log_w[:, None] / 2, log_w / 2) - math.log(2)) * 2) @ P)
    assert float(evaluate(O.renyi_finite, model(a, u, k), x, alpha="1/2", k=2)) == pytest.approx(half, abs=1e-6)


@pytest.mark.parametrize(("a", "u", "k", "x"), CASES)
def test_semi_implicit_encoders(a: float, u: float, k: float, x: float) -> None:
    t, p = np.polynomial.hermite_e.hermegauss(60)
    p = p / p.sum()
    m = a * (x + math.sqrt(k) * t) + 0.2  # the encoder's means at the nodes of x~
    z = m[:, None] + math.sqrt(u) * t  # z[0th x~, draw]
    joint = float(p @ log_joint(z, x) @ p)
    own = log_normal(z, m[:, None], u)
    with_own = np.logaddexp(own[..., None], log_normal(z[..., None], m, u)) - math.log(2)
    truth = joint - float(np.einsum("i,j,k,ijk->", p, p, p, with_own))
    assert float(evaluate(O.sivi, model(a, u, k), x, k=1)) == pytest.approx(truth, abs=1e-6)
    others = log_normal(z[..., None], m, u)
    total = sum(
        p[j] * float(np.einsum("i,j,k,ijk->", p, p, p, np.logaddexp(others, others[..., j : j + 1]) - math.log(2)))
        for j in range(60)
    )
    assert float(evaluate(O.sivi_without, model(a, u, k), x, k=2)) == pytest.approx(joint - total, abs=1e-6)


def test_several_dimensions_against_draws() -> None:
    """The distance is below six standard errors: a false alarm in 5e8 runs."""
    w, x = np.array([[0.7, -0.4, 0.2], [0.3, 0.9, -0.5]]), np.array([0.4, -0.9])
    a, u = np.array([[0.3, 0.1], [-0.2, 0.4], [0.1, -0.1]]), np.array([0.6, 0.5, 0.8])
    big = LinearGaussianModel(
        prior=([0.0] * 3, [1.0] * 3), likelihood=(w, [0.1, 0.0], [0.7, 0.9]), encoder=(a, [0.0] * 3, u)
    )
    rng, n = np.random.default_rng(0), 200_000
    z = a @ x + np.sqrt(u) * rng.standard_normal((n, 2, 3))
    log_w = log_normal(z, 0, 1).sum(-1) - sum(log_normal(z[..., i], (a @ x)[i], float(u[i])) for i in range(3))
    log_w += log_normal(x[0], z @ w[0] + 0.1, 0.7) + log_normal(x[1], z @ w[1], 0.9)
    draws = np.logaddexp(log_w[:, 0], log_w[:, 1]) - math.log(2)
    value = float(evaluate(O.iwae, big, x, k=2))
    assert abs(value - draws.mean()) < 6 * draws.std() / math.sqrt(n)


def test_ordered_as_theory_says() -> None:
    """Widely mixing encoders included, where the exponents differ by hundreds."""
    for a, u, k, x in [*CASES, (1.5, 0.02, 2.0, 0.3), (-1.2, 0.05, 1.5, -2.0)]:
        each = model(a, u, k)
        values: list[Any] = [
            evaluate(O.denoising_coupled, each, x), evaluate(O.sivi, each, x, k=1), evaluate(O.marginal_elbo, each, x),
            evaluate(O.sivi_without, each, x, k=2), evaluate(O.denoising_decoupled, each, x),
        ]  # fmt: skip
        for low, high in pairwise(values):
            assert low.upper < high.lower
        assert values[2].upper <= evaluate(O.log_evidence, each, x).upper  # type: ignore[union-attr]


def test_equal_weights_are_no_pair_of_different_ones() -> None:
    """An encoder that is the posterior: both weights are p(x), and log cosh of nothing is nothing."""
    precision = 1 + 0.49 / 0.8
    posterior = LinearGaussianModel(
        prior=(0, 1), likelihood=(0.7, 0, 0.8), encoder=(0.7 / 0.8 / precision, 0, 1 / precision)
    )
    value, truth = evaluate(O.iwae, posterior, 0.5, k=2), closed_form.enclose(O.log_evidence, posterior, 0.5)
    assert float(value) == pytest.approx(float(truth), abs=1e-9)


def test_three_copies_are_refused_by_name() -> None:
    with pytest.raises(CannotCompute, match="3 copies"):
        evaluate(O.iwae, model(*CASES[0][:3]), 0.5, k=3)
    with pytest.raises(CannotCompute, match="log-sum"):
        gaussian_pairs.enclose(O.elbo, model(*CASES[0][:3]), 0.5)
