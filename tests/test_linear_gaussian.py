"""Linear-Gaussian models: what they accept, what they draw, and probabilistic PCA against scikit-learn."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from gaussian_models import random_model, value
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA, FactorAnalysis

from boundcheck.catalogue import objectives as o
from boundcheck.errors import BadInput
from boundcheck.evaluators import closed_form
from boundcheck.language.terms import Space
from boundcheck.models.linear_gaussian import LinearGaussianModel

GOOD: dict[str, Any] = {
    "prior": ([0, 0], 1),
    "likelihood": ([[1, 2], [0, 1], [1, 1]], 0, 1),
    "encoder": ([[1, 0, 0], [0, 1, 0]], 0, 1),
    "corruption": (1, 0, 0.1),
    "auxiliary": (0, 1, 0, 0.1),
}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"prior": ([0, 0], 0)}, "covariance of the prior.*scale of 0"),
        ({"prior": ([0, 0], -1)}, "covariance of the prior"),
        ({"prior": ([0, 0], [1, 0])}, "covariance of the prior.*scale of 0"),
        ({"prior": ([0, 0], math.nan)}, "covariance of the prior.*finite"),
        ({"prior": ([0, math.inf], 1)}, r"mean of the prior\[1\].*finite"),
        ({"prior": ([0, 0], 1e300)}, "covariance of the prior.*magnitude"),
        ({"prior": ([0, 0], 1e-300)}, "covariance of the prior.*variances of at least"),
        ({"prior": ([0, 10**400], 1)}, "mean of the prior"),
        ({"prior": ([0, 0, 0], 1)}, "shape of mean of the prior"),
        ({"prior": ([0, 0], [[1, 0.5], [0.4, 1]])}, "covariance of the prior.*symmetric"),
        ({"prior": ([0, 0], [[1, 1], [1, 1]])}, "covariance of the prior.*positive definite"),
        ({"prior": ([0, 0], [[1, 2], [2, 1]])}, "covariance of the prior.*positive definite"),
        ({"prior": ([0, 0], np.eye(3))}, "shape of covariance of the prior"),
        ({"prior": ([0, 0], [1, 1, 1])}, "shape of covariance of the prior"),
        ({"prior": ([0, 0], [[1], [2, 3]])}, "covariance of the prior"),
        ({"prior": ([0, 0],)}, "prior.*mean, covariance"),
        ({"prior": 3}, "prior.*mean, covariance"),
        ({"prior": None}, "without prior"),
        ({"likelihood": None}, "without prior or likelihood"),
        ({"likelihood": ([[1e300, 0], [0, 1], [1, 1]], 0, 1)}, r"W of the likelihood\[0\]\[0\].*magnitude"),
        ({"likelihood": ([[1j, 0], [0, 1], [1, 1]], 0, 1)}, "W of the likelihood"),
        ({"likelihood": ("abc", 0, 1)}, "W of the likelihood"),
        ({"likelihood": ([[1, 2], [0, 1], [1, 1]], [0, 0], 1)}, "shape of b of the likelihood"),
        ({"likelihood": ([], 0, 1)}, "W of the likelihood"),
        ({"encoder": (np.eye(2), 0, 1)}, "shape of A of the encoder"),
        ({"encoder": (2, 0, 1)}, "shape of A of the encoder"),
        ({"encoder": (np.zeros((2, 3)), 0, np.zeros((2, 2)))}, "covariance of the encoder.*scale of 0"),
        ({"corruption": (np.eye(2), 0, 1)}, "shape of C of the corruption"),
        ({"corruption": (1, 0, 0.0)}, "covariance of the corruption"),
        ({"corruption": None}, "auxiliary.*corruption"),
        ({"auxiliary": (0, np.eye(2), 0, 1)}, "shape of R_x of the auxiliary"),
        ({"auxiliary": (0, 1, 0)}, "auxiliary.*R_z, R_x, r, covariance"),
    ],
)
def test_bad_input_is_named(changed: dict[str, Any], named: str) -> None:
    LinearGaussianModel(**GOOD)
    with pytest.raises(BadInput, match=named):
        LinearGaussianModel(**{**GOOD, **changed})


def test_the_forms_of_a_covariance_agree() -> None:
    x = [0.3, -0.2, 0.9]
    values = [
        value(o.elbo, LinearGaussianModel(**{**GOOD, "prior": (mean, covariance)}), x)
        for mean in (0, [0, 0])
        for covariance in (Fraction(1, 2), "0.5", [0.5, 0.5], np.eye(2) / 2)
    ]
    assert values == pytest.approx([values[0]] * len(values), rel=1e-14)


def test_extreme_but_lawful_scales_are_right() -> None:
    for scale in (1e-45, 1e-10, 1e10, 1e45):
        model = LinearGaussianModel(prior=(0, scale**2), likelihood=(1, 0, scale**2), encoder=(0.5, 0, scale**2 / 2))
        expected = -math.log(2 * math.pi * 2 * scale**2) / 2 - 1 / 4
        assert value(o.log_evidence, model, scale) == pytest.approx(expected, rel=1e-13)
        assert value(o.elbo, model, scale) == pytest.approx(expected, rel=1e-13)


def test_what_a_model_says_of_itself() -> None:
    model = LinearGaussianModel(**GOOD)
    assert (model.latent_dimension, model.data_dimension) == (2, 3)
    assert model.roles == ("prior", "likelihood", "corruption", "encoder", "auxiliary")
    assert "x~: 3" in repr(model)
    bare = LinearGaussianModel(prior=GOOD["prior"], likelihood=GOOD["likelihood"])
    for space in (Space("x~"), Space("u")):
        with pytest.raises(BadInput, match="space"):
            bare.dimension(space)
    with pytest.raises(BadInput, match="pass encoder=\\(A, c, covariance\\)"):
        bare.law("encoder")


def test_draws_have_the_moments_of_the_joint_law() -> None:
    """The whitened draws' second moments, 25 entries of 100000 draws within 6 standard errors: below 1e-7."""
    model, _ = random_model(1, 2, 3)
    n = 100_000
    x, z = model.sample(n, np.random.default_rng(0))
    prior, likelihood = model.law("prior"), model.law("likelihood")
    (w,) = likelihood.matrices
    cross = w @ prior.covariance
    covariance = np.block([[prior.covariance, cross.T], [cross, cross @ w.T + likelihood.covariance]])
    center = np.concatenate([prior.offset, w @ prior.offset + likelihood.offset])
    white = np.linalg.solve(np.linalg.cholesky(covariance), (np.hstack([z, x]) - center).T).T
    assert np.abs(white.mean(axis=0)).max() < 6 / math.sqrt(n)
    assert np.abs(white.T @ white / n - np.eye(5)).max() < 6 * math.sqrt(2 / n)
    again = model.sample(n, np.random.default_rng(0))
    assert (again[0] == x).all() and (again[1] == z).all()


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3"])
def test_bad_numbers_of_draws(n: Any) -> None:
    with pytest.raises(BadInput, match="n = "):
        LinearGaussianModel(**GOOD).sample(n, np.random.default_rng(0))
    with pytest.raises(BadInput, match="rng"):
        LinearGaussianModel(**GOOD).sample(3, 0)  # type: ignore[arg-type]


# --- probabilistic PCA ---------------------------------------------------------------------------------------------


def some_data(n: int = 400, d: int = 7, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d) * 5


def covariance_of_x(model: LinearGaussianModel) -> np.ndarray:
    (w,) = model.law("likelihood").matrices
    return w @ w.T + model.law("likelihood").covariance


@pytest.mark.parametrize("shape", [(5, 2), (2, 5), (3, 3)])
def test_ppca_encodes_with_the_posterior(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    w, center, x = rng.normal(size=shape), rng.normal(size=shape[0]), rng.normal(size=shape[0])
    model = LinearGaussianModel.ppca(w, 0.3, center)
    expected = multivariate_normal(center, w @ w.T + 0.09 * np.eye(shape[0])).logpdf(x)
    for objective in (o.log_evidence, o.elbo, o.eubo):
        assert value(objective, model, x) == pytest.approx(expected, rel=1e-12)
    other = LinearGaussianModel.ppca(w, 0.3, center, encoder=(0, 0, 1))
    assert value(o.log_evidence, other, x) == pytest.approx(expected, rel=1e-12)
    assert value(o.elbo, other, x) < expected - 1e-3


@pytest.mark.parametrize("latent", [1, 3, 6])
def test_fit_ppca_is_the_maximum_of_scikit_learn(latent: int) -> None:
    data = some_data()
    model = LinearGaussianModel.fit_ppca(data, latent)
    pca = PCA(n_components=latent, svd_solver="full").fit(data)
    # scikit-learn divides the sample covariance by n - 1, maximum likelihood by n.
    assert covariance_of_x(model) == pytest.approx(pca.get_covariance() * (len(data) - 1) / len(data), rel=1e-9)
    ours = float(np.mean([each.value for each in closed_form.evaluate_each(o.log_evidence, model, data)]))
    elbo = float(np.mean([each.value for each in closed_form.evaluate_each(o.elbo, model, data)]))
    assert elbo == pytest.approx(ours, rel=1e-11)
    assert pca.score(data) < ours < pca.score(data) + 1e-4
    factors = FactorAnalysis(n_components=latent, tol=1e-4, max_iter=5000, svd_method="lapack").fit(data)
    assert ours < factors.score(data) + 1e-5  # factor analysis has one noise variance for each component


def test_factor_analysis_has_the_evidence_that_scikit_learn_says() -> None:
    data = some_data()
    factors = FactorAnalysis(n_components=3, tol=1e-3, svd_method="lapack").fit(data)
    likelihood = (factors.components_.T, factors.mean_, factors.noise_variance_)
    model = LinearGaussianModel(prior=(0, 1), likelihood=likelihood)
    ours = [each.value for each in closed_form.evaluate_each(o.log_evidence, model, data)]
    assert ours == pytest.approx(factors.score_samples(data).tolist(), rel=1e-10)


def test_fit_ppca_has_the_likelihood_of_its_closed_form_and_no_neighbour_beats_it() -> None:
    """At the optimum the mean log-likelihood is -(D log 2 pi + log det C + D) / 2, since tr(C^-1 S) = D."""
    data, latent = some_data(), 2

    def likelihood(model: LinearGaussianModel) -> float:
        return float(np.mean([each.value for each in closed_form.evaluate_each(o.log_evidence, model, data)]))

    model = LinearGaussianModel.fit_ppca(data, latent)
    best = likelihood(model)
    log_det = np.linalg.slogdet(covariance_of_x(model))[1]
    assert best == pytest.approx(-(7 * math.log(2 * math.pi) + log_det + 7) / 2, rel=1e-11)
    (w,), center = model.law("likelihood").matrices, model.law("likelihood").offset
    sigma = math.sqrt(model.law("likelihood").covariance[0, 0])
    rng = np.random.default_rng(1)
    for _ in range(20):
        step = 0.02 * rng.normal(size=w.shape)
        near = LinearGaussianModel.ppca(w + step, sigma * (1 + 0.02 * rng.normal()), center)
        assert likelihood(near) < best


def test_fit_ppca_of_few_points() -> None:
    data = some_data(n=4, d=7)
    model = LinearGaussianModel.fit_ppca(data, latent=2)  # three directions have variance
    assert math.isfinite(value(o.log_evidence, model, data[0]))
    with pytest.raises(BadInput, match="likelihood has no maximum"):
        LinearGaussianModel.fit_ppca(data, latent=3)


@pytest.mark.parametrize("latent", [0, 7, 8, 1.5, True])
def test_fit_ppca_of_bad_latent(latent: Any) -> None:
    with pytest.raises(BadInput, match="latent"):
        LinearGaussianModel.fit_ppca(some_data(), latent)


@pytest.mark.parametrize("data", [[1.0, 2.0], [[1.0, 2.0]], [[1.0, math.nan], [1, 2]], np.ones((5, 3)), "abc"])
def test_fit_ppca_of_bad_data(data: Any) -> None:
    with pytest.raises(BadInput, match="data"):
        LinearGaussianModel.fit_ppca(data, 1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (([1, 2], 1), "W"),
        (([[1], [2]], 0), "sigma.*scale of 0"),
        (([[1], [2]], -1), "sigma"),
        (([[1], [2]], [1, 1]), "sigma"),
        (([[1], [2]], math.nan), "sigma"),
        (([[1], [2]], 1e300), "sigma"),
        (([[1], [2]], 1e-200), "covariance of the"),
        (([[1], [2]], 1, [1, 2, 3]), "mean"),
        (([[1e300], [2]], 1), "W"),
    ],
)
def test_ppca_of_bad_input(arguments: tuple[Any, ...], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        LinearGaussianModel.ppca(*arguments)
