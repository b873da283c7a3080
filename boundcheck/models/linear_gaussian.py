"""Linear-Gaussian models of any dimension: what has a closed form, and so can be the truth that others are held to.

Every law is a normal law whose mean is affine in what it is conditioned on and whose covariance is constant. The
linear VAE, probabilistic PCA (Tipping & Bishop 1999), the denoising VAE with Gaussian corruption and the hierarchical
variational model with Gaussian mixing are all of this kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boundcheck.errors import BadInput
from boundcheck.language.terms import CORRUPTED, Space

Matrix: TypeAlias = NDArray[np.float64]

LARGEST = 1e100
"""Entries beyond this are refused, as are variances below its inverse: their squares would overflow or vanish."""

_ROLES = {
    # role: (number of matrices, what to write)
    "prior": (0, "(mean, covariance)"),
    "likelihood": (1, "(W, b, covariance)"),
    "encoder": (1, "(A, c, covariance)"),
    "corruption": (1, "(C, d, covariance)"),
    "auxiliary": (2, "(R_z, R_x, r, covariance)"),
}


@dataclass(frozen=True)
class LinearLaw:
    """N(sum_i M_i u_i + b, Sigma) given u_1, u_2, ..."""

    matrices: tuple[Matrix, ...]
    offset: Matrix
    covariance: Matrix

    @cached_property
    def cholesky(self) -> Matrix:
        """The lower triangular L with L L' = Sigma."""
        return np.asarray(np.linalg.cholesky(self.covariance), dtype=np.float64)

    def mean(self, *given: Matrix) -> Matrix:
        """The means at a batch of conditions, each of shape (n, dimension)."""
        total = self.offset[None, :]
        for u, m in zip(given, self.matrices, strict=True):
            total = total + u @ m.T
        return total

    def draw(self, rng: np.random.Generator, n: int, *given: Matrix) -> Matrix:
        """One draw for each of n conditions."""
        return self.mean(*given) + rng.standard_normal((n, len(self.offset))) @ self.cholesky.T


class LinearGaussianModel:
    """p(z) = N(m, P), p(x|z) = N(W z + b, S), q(z|x) = N(A x + c, Q), c(x~|x) = N(C x + d, K),
    r(x~|z,x) = N(R_z z + R_x x + r, T).

    Covariances are a positive number (isotropic), a vector of variances, or a full symmetric positive definite
    matrix. An offset may be one number for all components; a matrix may be a number s, which stands for s times the
    identity. With a corruption the encoder reads x~.

    Args:
        prior: (m, P).
        likelihood: (W, b, S), W of shape (dimension of x, dimension of z).
        encoder: (A, c, Q).
        corruption: (C, d, K).
        auxiliary: (R_z, R_x, r, T); needs a corruption.

    Raises:
        BadInput: a shape that does not fit, an entry that is no finite number of reasonable size, a covariance that is
            not symmetric positive definite (a scale of zero has no density). The message names the argument.

    >>> model = LinearGaussianModel(prior=(0, 1), likelihood=(2, 0, 0.5), encoder=(0.4, 0, 0.1))
    >>> model.latent_dimension, model.data_dimension
    (1, 1)
    """

    def __init__(
        self,
        *,
        prior: Sequence[ArrayLike],
        likelihood: Sequence[ArrayLike],
        encoder: Sequence[ArrayLike] | None = None,
        corruption: Sequence[ArrayLike] | None = None,
        auxiliary: Sequence[ArrayLike] | None = None,
    ) -> None:
        given = {"prior": prior, "likelihood": likelihood, "corruption": corruption, "encoder": encoder}
        parts = {role: _parts(role, law) for role, law in {**given, "auxiliary": auxiliary}.items() if law is not None}
        if "prior" not in parts or "likelihood" not in parts:
            raise BadInput("the model", "without prior or likelihood", "both prior=(...) and likelihood=(...)")
        weights, mean = parts["likelihood"][0], parts["prior"][0]
        d_z = weights.shape[1] if weights.ndim == 2 else (mean.size if mean.ndim else 1)
        d_x = weights.shape[0] if weights.ndim == 2 else d_z
        d_c = parts["corruption"][0].shape[0] if "corruption" in parts and parts["corruption"][0].ndim == 2 else d_x
        d_in = d_c if "corruption" in parts else d_x
        shapes = {
            "prior": (d_z,),
            "likelihood": (d_x, d_z),
            "encoder": (d_z, d_in),
            "corruption": (d_c, d_x),
            "auxiliary": (d_c, d_z, d_x),
        }
        if auxiliary is not None and corruption is None:
            raise BadInput("auxiliary", "given", "a corruption beside it", "r(x~|z,x) needs the law of x~")
        self._laws = {role: _law(role, law, *shapes[role]) for role, law in parts.items()}
        self._dimensions = {"z": d_z, "x": d_x} | ({"x~": d_c} if corruption is not None else {})

    # --- what evaluators read ---

    @property
    def latent_dimension(self) -> int:
        """The number of components of z."""
        return self._dimensions["z"]

    @property
    def data_dimension(self) -> int:
        """The number of components of x."""
        return self._dimensions["x"]

    @property
    def roles(self) -> tuple[str, ...]:
        """The laws that the model was given."""
        return tuple(self._laws)

    def dimension(self, space: Space) -> int:
        """The number of components of a space.

        Raises:
            BadInput: if the model has no such space.
        """
        if space.name not in self._dimensions:
            remedy = "give the model a corruption" if space == CORRUPTED else "use m.latent, m.data or m.corrupted"
            raise BadInput("the space", space.name, f"one of {', '.join(self._dimensions)}", remedy)
        return self._dimensions[space.name]

    def law(self, role: str) -> LinearLaw:
        """The law that the model supplies under a role.

        Raises:
            BadInput: if it supplies none.
        """
        if role not in self._laws:
            known = ", ".join(f"{name}={form}" for name, (_, form) in _ROLES.items() if name == role)
            raise BadInput("the model", "without " + role, f"a model with the law {role}", f"pass {known}")
        return self._laws[role]

    # --- what a user reads ---

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Matrix, Matrix]:
        """n draws of (x, z) from p(x, z), of shapes (n, dimension of x) and (n, dimension of z).

        >>> model = LinearGaussianModel(prior=(0, 1), likelihood=([[1], [2]], 0, 0.5))
        >>> x, z = model.sample(3, np.random.default_rng(0))
        >>> x.shape, z.shape
        ((3, 2), (3, 1))
        """
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise BadInput("n", n, "a positive integer")
        if not isinstance(rng, np.random.Generator):
            raise BadInput("rng", rng, "a numpy Generator", "pass numpy.random.default_rng(seed)")
        z = self.law("prior").draw(rng, int(n))
        return self.law("likelihood").draw(rng, int(n), z), z

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {size}" for name, size in self._dimensions.items())
        return f"<LinearGaussianModel of {', '.join(self._laws)}; dimensions {sizes}>"

    # --- probabilistic PCA ---

    @classmethod
    def ppca(
        cls,
        W: ArrayLike,
        sigma: float,
        mean: ArrayLike = 0.0,
        *,
        encoder: Sequence[ArrayLike] | None = None,
        corruption: Sequence[ArrayLike] | None = None,
        auxiliary: Sequence[ArrayLike] | None = None,
    ) -> LinearGaussianModel:
        """Probabilistic PCA: p(z) = N(0, I), p(x|z) = N(W z + mean, sigma^2 I) (Tipping & Bishop 1999).

        Without an `encoder` it is the exact posterior q(z|x) = N(M^-1 W' (x - mean), sigma^2 M^-1), M = W'W +
        sigma^2 I, for which ELBO = log p(x).

        Args:
            W: the loadings, of shape (dimension of x, dimension of z).
            sigma: the standard deviation of the noise, positive.
            mean: the mean of x, a vector or one number.
            encoder: another encoder (A, c, Q).
            corruption: as in the class.
            auxiliary: as in the class.

        Raises:
            BadInput: as for the class.

        >>> from boundcheck.catalogue.objectives import elbo, log_evidence
        >>> from boundcheck.evaluators import closed_form
        >>> model = LinearGaussianModel.ppca([[1.0], [2.0]], sigma=0.5)
        >>> x = [0.3, -0.1]
        >>> print(f"{closed_form.evaluate(elbo, model, x).value:.6f}")
        -2.170034
        >>> print(f"{closed_form.evaluate(log_evidence, model, x).value:.6f}")
        -2.170034
        """
        weights = _numbers("W", W)
        if weights.ndim != 2:
            raise BadInput("W", W, "a matrix of shape (dimension of x, dimension of z)")
        noise = _numbers("sigma", sigma)
        if noise.ndim or not noise > 0:
            raise BadInput("sigma", sigma, "a positive number", "a scale of 0 has no density")
        d_x, d_z = weights.shape
        center = _vector("mean", _numbers("mean", mean), d_x)
        variance = float(noise) ** 2
        if encoder is None:
            # By singular values W = U s V', so that a small sigma or dependent columns of W do no harm.
            left, singular, right = np.linalg.svd(weights, full_matrices=True)
            diagonal = np.zeros(d_z)
            diagonal[: len(singular)] = singular
            shrunk = singular / (singular**2 + variance)
            gain = right[: len(singular)].T @ (shrunk[:, None] * left[:, : len(singular)].T)
            spread = _symmetric((right.T * (variance / (diagonal**2 + variance))) @ right)
            encoder = (gain, -gain @ center, spread)
        return cls(
            prior=(np.zeros(d_z), 1.0),
            likelihood=(weights, center, variance),
            encoder=encoder,
            corruption=corruption,
            auxiliary=auxiliary,
        )

    @classmethod
    def fit_ppca(cls, data: ArrayLike, latent: int) -> LinearGaussianModel:
        """The maximum-likelihood probabilistic PCA of data, with the exact posterior as its encoder.

        With eigenvalues l_1 >= ... >= l_D and eigenvectors U of the sample covariance (divided by n), the optimum is
        sigma^2 = mean of l_j over j > q, and W = U_q (diag(l_1..l_q) - sigma^2 I)^(1/2), up to a rotation of z
        (Tipping & Bishop 1999, J. R. Statist. Soc. B 61, section 3.2).

        Args:
            data: of shape (n, D), n >= 2.
            latent: q, the number of latent dimensions, 1 <= q < D.

        Raises:
            BadInput: data or latent of the wrong shape, or data that leave no variance outside q directions, where
                the likelihood is unbounded.

        >>> data = np.random.default_rng(0).normal(size=(50, 3)) * [3.0, 1.0, 1.0]
        >>> model = LinearGaussianModel.fit_ppca(data, latent=1)
        >>> model.data_dimension, model.latent_dimension
        (3, 1)
        """
        points = _numbers("data", data)
        if points.ndim != 2 or len(points) < 2:
            raise BadInput("data", data, "an array of shape (n, D) with n >= 2")
        d_x = points.shape[1]
        if isinstance(latent, bool) or not isinstance(latent, int | np.integer) or not 1 <= latent < d_x:
            raise BadInput("latent", latent, f"an integer with 1 <= latent < {d_x}, the dimension of the data")
        center = points.mean(axis=0)
        # The singular values of the centred data, rather than eigenvalues of their product, keep small ones accurate.
        _, singular, directions = np.linalg.svd(points - center, full_matrices=False)
        eigenvalues = np.zeros(d_x)
        eigenvalues[: len(singular)] = singular**2 / len(points)
        noise = float(eigenvalues[latent:].mean())
        if not noise > len(points) * d_x * np.finfo(float).eps ** 2 * float(eigenvalues[0]):
            raise BadInput(
                "data", f"variance {noise:.3g} outside {latent} directions", "variance in more directions than latent",
                "take fewer latent dimensions or more data; the likelihood has no maximum here",
            )  # fmt: skip
        excess = np.sqrt(np.maximum(eigenvalues[:latent] - noise, 0.0))
        loadings = np.zeros((d_x, latent))
        kept = min(latent, len(directions))
        loadings[:, :kept] = directions[:kept].T * excess[:kept]
        return cls.ppca(loadings, float(np.sqrt(noise)), center)


# --- reading and checking ------------------------------------------------------------------------------------------


def _parts(role: str, law: Any) -> list[Matrix]:
    """The pieces of a law as arrays of finite floats."""
    count, form = _ROLES[role]
    if isinstance(law, str | bytes | np.ndarray) or not isinstance(law, Sequence) or len(law) != count + 2:
        raise BadInput(role, law, form)
    return [_numbers(name, part) for name, part in zip(_names(role), law, strict=True)]


def _names(role: str) -> list[str]:
    """How the pieces of a law are called in messages."""
    return [f"{part} of the {role}" for part in _ROLES[role][1].strip("()").split(", ")]


def _numbers(name: str, value: Any) -> Matrix:
    try:
        if np.iscomplexobj(value):
            raise TypeError
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise BadInput(name, value, "a number, a vector or a matrix of finite numbers") from None
    if array.size == 0:
        raise BadInput(name, value, "at least one entry")
    bad = ~np.isfinite(array)
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise BadInput(name + "".join(f"[{i}]" for i in place), float(array[place]), "a finite number")
    huge = np.abs(array) > LARGEST
    if huge.any():
        place = tuple(int(i) for i in np.argwhere(huge)[0])
        where = name + "".join(f"[{i}]" for i in place)
        raise BadInput(where, float(array[place]), f"a magnitude of at most {LARGEST:g}", "rescale: squares overflow")
    return array


def _law(role: str, parts: list[Matrix], rows: int, *columns: int) -> LinearLaw:
    *names, offset_name, covariance_name = _names(role)
    *matrices, offset, covariance = parts
    return LinearLaw(
        tuple(_matrix(n, m, rows, c) for n, m, c in zip(names, matrices, columns, strict=True)),
        _vector(offset_name, offset, rows),
        _covariance(covariance_name, covariance, rows),
    )


def _matrix(name: str, value: Matrix, rows: int, columns: int) -> Matrix:
    if value.ndim == 0 and (rows == columns or value == 0):
        return float(value) * np.eye(rows, columns)
    if value.shape != (rows, columns):
        raise BadInput(f"the shape of {name}", value.shape, f"({rows}, {columns})", "rows are components of the draw")
    return value


def _vector(name: str, value: Matrix, size: int) -> Matrix:
    if value.ndim == 0:
        return np.full(size, float(value))
    if value.shape != (size,):
        raise BadInput(f"the shape of {name}", value.shape, f"({size},), or one number")
    return value


def _covariance(name: str, value: Matrix, size: int) -> Matrix:
    if value.ndim < 2:
        variances = _vector(name, value, size)
        _check_variances(name, variances)
        return np.diag(variances)
    if value.shape != (size, size):
        raise BadInput(f"the shape of {name}", value.shape, f"({size}, {size}), a vector of {size}, or one number")
    _check_variances(name, np.diag(value))
    scale = np.sqrt(np.diag(value))
    correlation = value / scale[:, None] / scale[None, :]
    asymmetry = np.abs(correlation - correlation.T)
    if asymmetry.max() > 1e-12:
        i, j = (int(k) for k in np.unravel_index(np.argmax(asymmetry), asymmetry.shape))
        pair = (float(value[i, j]), float(value[j, i]))
        raise BadInput(f"{name}[{i}][{j}] and [{j}][{i}]", pair, "a symmetric matrix", "pass (C + C.T) / 2")
    least = float(np.linalg.eigvalsh(_symmetric(correlation))[0])
    if not least > 8 * size * np.finfo(float).eps:
        raise BadInput(
            name, f"smallest eigenvalue {least:.2g} of its correlations", "a positive definite matrix",
            "a singular covariance has no density; remove dependent components",
        )  # fmt: skip
    return _symmetric(value)


def _check_variances(name: str, variances: Matrix) -> None:
    for value in variances:
        if not value > 0:
            raise BadInput(name, float(value), "positive variances", "a scale of 0 has no density")
        if value < 1 / LARGEST:
            raise BadInput(name, float(value), f"variances of at least {1 / LARGEST:g}", "rescale: squares vanish")


def _symmetric(matrix: Matrix) -> Matrix:
    return (matrix + matrix.T) / 2


__all__ = ["LARGEST", "LinearGaussianModel", "LinearLaw"]
