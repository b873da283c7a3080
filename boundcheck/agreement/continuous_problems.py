"""Problems on continuous latent variables, with their truths; each derivation stands above its line."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

from boundcheck.agreement.problem import Truth, ball, infinity, log_of, pi, problems
from boundcheck.catalogue import objectives as o
from boundcheck.language.build import Formula
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import BernoulliLogit, Discrete, Laplace, Logistic, Normal, Uniform
from boundcheck.models.linear_gaussian import LinearGaussianModel

if TYPE_CHECKING:
    import flint

# --- normal laws ---------------------------------------------------------------------------------------------------

# z ~ N(0,1), x|z ~ N(z,1), x~|x ~ N(x, 1/2), q(z|x~) = N(x~/2, 1/2), x = 1, so that z|x ~ N(1/2, 1/2) exactly.


def _log_two_pi() -> flint.arb:
    return (2 * pi()).log()


def _normal_log_joint(spread: str) -> flint.arb:
    """E log p(1, z) for z ~ N(1/2, spread): -log(2 pi) - (E z^2 + E (1 - z)^2) / 2, both 1/4 + spread."""
    return -_log_two_pi() - ball("1/4") - ball(spread)


def _normal_entropy(variance: str, spread: str | None = None) -> flint.arb:
    """-E log N(z; m, variance) where E (z - m)^2 = spread: (log(2 pi variance) + spread / variance) / 2."""
    ratio = Fraction(spread or variance) / Fraction(variance)
    return (_log_two_pi() + ball(variance).log() + ball(ratio)) / 2


def _normal_power(t: int | str, mean: str, variance: str) -> flint.arb:
    """log E_q w^t for q = N(mean, variance), from the integral of exp(-a z^2 / 2 + h z + k)."""
    s, m, v = Fraction(t), Fraction(mean), Fraction(variance)
    a = (1 - s) / v + 2 * s  # log p(1, z) = -log(2 pi) - z^2 + z - 1/2
    h = (1 - s) * m / v + s
    k = -(1 - s) * m**2 / (2 * v) - s / 2
    constant = -ball(1 - s) * (_log_two_pi() + ball(v).log()) / 2 - ball(s) * _log_two_pi()
    return constant + ball(k + h**2 / (2 * a)) + (_log_two_pi() - ball(a).log()) / 2


def _normal_evidence() -> flint.arb:
    """x ~ N(0, 2) at 1."""
    return -(4 * pi()).log() / 2 - ball("1/4")


def _gaussian_rows(kind: str) -> list[tuple[str, Formula, Callable[[], Truth]]]:
    return [
        (f"{kind}, log evidence", o.log_evidence, _normal_evidence),
        # z ~ N(1/2, 1/2 + 1/8): the tremor of x~ reaches z through its slope 1/2.
        (
            f"{kind}, denoising coupled",
            o.denoising_coupled,
            lambda: _normal_log_joint("5/8") + _normal_entropy("1/2"),
        ),
        # An independent x~ moves the density's mean too: E (z - m)^2 = 1/2 + 2/8.
        (
            f"{kind}, denoising decoupled",
            o.denoising_decoupled,
            lambda: _normal_log_joint("5/8") + _normal_entropy("1/2", "3/4"),
        ),
        # q~ = N(1/2, 5/8).
        (
            f"{kind}, marginal ELBO",
            o.marginal_elbo,
            lambda: _normal_log_joint("5/8") + _normal_entropy("5/8"),
        ),
        # E log N(1; z, 1) = -(log(2 pi) + 1/4 + 5/8) / 2.
        (f"{kind}, DAE criterion", o.dae_criterion, lambda: -_log_two_pi() / 2 - ball("7/16")),
    ]


def _clean_rows(kind: str) -> list[tuple[str, Formula, Callable[[], Truth]]]:
    """q(z|x) = N(2x/5, 2/5) at x = 1: mean 2/5, a little off the posterior's."""
    return [
        # E log p = -log(2 pi) - 1/2 + 2/5 - (4/25 + 2/5), and the entropy of q.
        (
            f"{kind}, ELBO",
            o.elbo,
            lambda: -_log_two_pi() - ball("33/50") + _normal_entropy("2/5"),
        ),
        (f"{kind}, Rényi 1/2", partial(o.renyi, alpha="1/2"), lambda: 2 * _normal_power("1/2", "2/5", "2/5")),
        # The curvature -1/v + 4 is positive for v > 1/4.
        (f"{kind}, CUBO_2", partial(o.cubo, n=2), lambda: _normal_power(2, "2/5", "2/5") / 2),
        # Under the posterior N(1/2, 1/2): log p(x) + KL(N(1/2, 1/2) || N(2/5, 2/5)).
        (
            f"{kind}, EUBO",
            o.eubo,
            lambda: _normal_evidence() + (ball("5/4") - 1 + ball("1/40") - ball("5/4").log()) / 2,
        ),
    ]


_LINEAR_NOISY = LinearGaussianModel(prior=(0, 1), likelihood=(1, 0, 1), encoder=(0.5, 0, 0.5), corruption=(1, 0, 0.5))
_LINEAR = LinearGaussianModel(prior=(0, 1), likelihood=(1, 0, 1), encoder=(0.4, 0, 0.4))
_NARROW = LinearGaussianModel(prior=(0, 1), likelihood=(1, 0, 1), encoder=(0.4, 0, 0.2))
_BORDER = LinearGaussianModel(prior=(0, 1), likelihood=(1, 0, 1), encoder=(0.4, 0, 0.25))

# The same joint law as densities, with q = N(x/2, 9/25), or N(x/2, 4/25).
_CONTINUOUS = ContinuousModel(
    prior=Normal(0, 1), likelihood=lambda z: Normal(z, 1), encoder=lambda x: Normal(0.5 * x, "3/5")
)
_CONTINUOUS_NARROW = ContinuousModel(
    prior=Normal(0, 1), likelihood=lambda z: Normal(z, 1), encoder=lambda x: Normal(0.5 * x, "2/5")
)

# Two dimensions: W = [[1,1],[0,1]], WW' + I = [[3,1],[1,2]] with determinant 5, W'W = [[1,1],[1,2]], x = (1,-1).
# q = N(x~/2, I/2) has mean (1/2,-1/2) at x, where x - W mean = (1,-1/2).
_PLANE_LAWS: dict[str, Any] = {
    "prior": ([0, 0], 1),
    "likelihood": ([[1, 1], [0, 1]], [0, 0], 1),
    "encoder": ([[0.5, 0], [0, 0.5]], [0, 0], 0.5),
}
_PLANE = LinearGaussianModel(**_PLANE_LAWS)
_PLANE_NOISY = LinearGaussianModel(**_PLANE_LAWS, corruption=([[1, 0], [0, 1]], [0, 0], 0.5))

_GAUSSIAN = [
    *problems("linear-Gaussian", _LINEAR_NOISY, 1, _gaussian_rows("linear-Gaussian")),
    *problems("linear-Gaussian", _LINEAR, 1, _clean_rows("linear-Gaussian")),
    # The curvature -5 + 4 is negative: E_q w^2 diverges.
    *problems(
        "linear-Gaussian",
        _NARROW,
        1,
        [("linear-Gaussian, CUBO_2, narrow", partial(o.cubo, n=2), infinity)],
    ),
    # The curvature -4 + 4 is zero, and what is left is exponential: it diverges too.
    *problems(
        "linear-Gaussian",
        _BORDER,
        1,
        [("linear-Gaussian, CUBO_2, at the border", partial(o.cubo, n=2), infinity)],
    ),
    *problems(
        "linear-Gaussian",
        _PLANE,
        (1, -1),
        [
            # x' (WW' + I)^-1 x = (2 + 2 + 3) / 5.
            (
                "linear-Gaussian 2-D, log evidence",
                o.log_evidence,
                lambda: -_log_two_pi() - ball(5).log() / 2 - ball("7/10"),
            ),
            # E |x - Wz|^2 = 5/4 + tr(WW')/2 = 11/4 and E |z|^2 = 3/2; the entropy of q is log(2 pi) + 1 - log 2.
            ("linear-Gaussian 2-D, ELBO", o.elbo, lambda: -_log_two_pi() - ball("9/8") - ball(2).log()),
            # log w^2 q has curvature 2 W'W (determinant 4), slope (1, 1), constant log(pi) + 1/2 - 4 log(2 pi) - 2.
            (
                "linear-Gaussian 2-D, CUBO_2",
                partial(o.cubo, n=2),
                lambda: pi().log() - 2 * _log_two_pi() - ball("5/8"),
            ),
        ],
    ),
    *problems(
        "linear-Gaussian",
        _PLANE_NOISY,
        (1, -1),
        [
            # The covariance of z is 1/2 + 1/8: E |x - Wz|^2 = 5/4 + 15/8 and E |z|^2 = 1/2 + 5/4.
            (
                "linear-Gaussian 2-D, denoising coupled",
                o.denoising_coupled,
                lambda: -_log_two_pi() - ball("23/16") - ball(2).log(),
            ),
        ],
    ),
]


# --- continuous latents --------------------------------------------------------------------------------------------


def _box_evidence() -> flint.arb:
    """z uniform on [-1, 1], x|z ~ N(z, 1/4), x = 1/2: (erf(3/sqrt 2) - erf(-1/sqrt 2)) / 4."""
    root = ball(2).sqrt()
    return (((3 / root).erf() + (1 / root).erf()) / 4).log()


def _laplace_evidence() -> flint.arb:
    """z ~ Laplace(0, 1), x|z ~ N(z, 1): e^(1/2) (e^-x erfc((1-x)/sqrt 2) + e^x erfc((1+x)/sqrt 2)) / 4 at x = 1/2.

    Complete the square on each side of 0.
    """
    root, x = ball(2).sqrt(), ball("1/2")
    sides = (-x).exp() * ((1 - x) / root).erfc() + x.exp() * ((1 + x) / root).erfc()
    return ball("1/2") + (sides / 4).log()


def _laplace_elbo() -> flint.arb:
    """q = N(0, 1): -log 2 - E|z| - (log(2 pi) + 1 + 1/4) / 2 + (log(2 pi) + 1) / 2, with E|z| = sqrt(2/pi)."""
    return -ball(2).log() - (2 / pi()).sqrt() - ball("1/8")


def _logit_evidence() -> flint.arb:
    """z uniform on [-1, 2]: the integral of sigmoid is softplus, so log((softplus(2) - softplus(-1)) / 3)."""
    return (((1 + ball(2).exp()).log() - (1 + ball(-1).exp()).log()) / 3).log()


def _two_points(z_spread: str, mixed: bool) -> flint.arb:
    """x~ = +-1, q = N(x~, 1/4), at x = 0: log p(0,z) = -log(2 pi) - z^2, E z^2 = 5/4; E (z - x~)^2 as given."""
    return -_log_two_pi() - ball("5/4") + _normal_entropy("1/4", z_spread if mixed else None)


_TWO_POINTS = ContinuousModel(
    prior=Normal(0, 1),
    likelihood=lambda z: Normal(z, 1),
    encoder=lambda xt: Normal(xt, "1/2"),
    corruption=lambda x: Discrete({-1: Fraction(1, 2), 1: Fraction(1, 2)}),
)
_BOX = ContinuousModel(prior=Uniform(-1, 1), likelihood=lambda z: Normal(z, "1/2"))
_LAPLACE = ContinuousModel(prior=Laplace(0, 1), likelihood=lambda z: Normal(z, 1), encoder=lambda x: Normal(0 * x, 1))
_LOGIT_BOX = ContinuousModel(prior=Uniform(-1, 2), likelihood=lambda z: BernoulliLogit(z))
# z logistic, so that u = sigmoid(z) is uniform on [0, 1]; the encoder is the prior, so w = p(x|z).
_LOGISTIC = ContinuousModel(
    prior=Logistic(0, 1), likelihood=lambda z: BernoulliLogit(z), encoder=lambda x: Logistic(0, 1)
)
_LOGISTIC_PAIR = ContinuousModel(
    prior=Logistic(0, 1),
    likelihood=lambda z: [BernoulliLogit(z), BernoulliLogit(z)],
    encoder=lambda x: Logistic(0, 1),
)

_CONTINUOUS_PROBLEMS = [
    *problems(
        "continuous",
        _CONTINUOUS,
        1,
        [
            ("normal, log evidence", o.log_evidence, _normal_evidence),
            # q = N(1/2, 9/25).
            ("normal, ELBO", o.elbo, lambda: _normal_log_joint("9/25") + _normal_entropy("9/25")),
            ("normal, Rényi 1/2", partial(o.renyi, alpha="1/2"), lambda: 2 * _normal_power("1/2", "1/2", "9/25")),
            # 9/25 > 1/4: finite.
            ("normal, CUBO_2", partial(o.cubo, n=2), lambda: _normal_power(2, "1/2", "9/25") / 2),
        ],
    ),
    # 4/25 < 1/4: infinite.
    *problems("continuous", _CONTINUOUS_NARROW, 1, [("normal, CUBO_2, narrow", partial(o.cubo, n=2), infinity)]),
    *problems(
        "continuous",
        _TWO_POINTS,
        0,
        [
            ("two-point noise, coupled", o.denoising_coupled, lambda: _two_points("1/4", mixed=False)),
            # An independent x~ is the other point half of the time, at squared distance 4: 1/4 + 2.
            ("two-point noise, decoupled", o.denoising_decoupled, lambda: _two_points("9/4", mixed=True)),
        ],
    ),
    *problems("continuous", _BOX, Fraction(1, 2), [("uniform prior, log evidence", o.log_evidence, _box_evidence)]),
    *problems(
        "continuous",
        _LAPLACE,
        Fraction(1, 2),
        [
            ("Laplace prior, log evidence", o.log_evidence, _laplace_evidence),
            ("Laplace prior, ELBO", o.elbo, _laplace_elbo),
        ],
    ),
    *problems("continuous", _LOGIT_BOX, 1, [("uniform logit, log evidence", o.log_evidence, _logit_evidence)]),
    *problems(
        "continuous",
        _LOGISTIC,
        1,
        [
            # E u = 1/2.
            ("logistic prior, log evidence", o.log_evidence, lambda: log_of("1/2")),
            # E log u = -1.
            ("logistic prior, ELBO", o.elbo, lambda: log_of(1) - 1),
            # The sum of two uniforms has a triangular density: E log(u_1 + u_2) = 2 log 2 - 3/2.
            ("logistic prior, IWAE_2", partial(o.iwae, k=2), lambda: log_of(2) - Fraction(3, 2)),
            # E u^2 = 1/3.
            ("logistic prior, CUBO_2", partial(o.cubo, n=2), lambda: log_of("1/3") / 2),
        ],
    ),
    *problems(
        "continuous",
        _LOGISTIC_PAIR,
        (1, 0),
        # E u (1 - u) = 1/6.
        [("logistic prior, two outcomes, log evidence", o.log_evidence, lambda: log_of("1/6"))],
    ),
]

CONTINUOUS_PROBLEMS = (*_GAUSSIAN, *_CONTINUOUS_PROBLEMS)
"""Problems on linear-Gaussian and continuous models."""
