"""The random models of the certainty sweep: each with the truth of its formulas, and the evaluators that can be asked.

Numbers of continuous models are small multiples of powers of two, so that a float, its decimal and the rational that
exact evaluators read are one number, and a truth is the truth of the same model for everyone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import oracle
from certainty_copies import COPIES, FEWEST_DIGITS, copies_truths
from certainty_truth import Affine, Law, Observed, OneLatent, gaussian_truths, one_latent_truths
from expected import OBJECTIVES
from helpers import finite, truth

from boundcheck.agreement.evaluators import evaluators as agreement_evaluators
from boundcheck.catalogue import objectives as o
from boundcheck.evaluators import (
    closed_form,
    enclosure,
    exact,
    floating,
    gauss_hermite,
    integration,
    quadrature,
)
from boundcheck.language import Term, kl, trace
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import (
    BernoulliLogit,
    Binomial,
    Discrete,
    Laplace,
    Logistic,
    Mixture,
    Normal,
    PoissonLog,
    StudentT,
    Uniform,
)
from boundcheck.models.linear_gaussian import LinearGaussianModel

Answer = Callable[[Term], Any]


@dataclass(frozen=True)
class Case:
    """A model: the truth of each formula (None: it has no value), and who can be asked for it.

    Attributes:
        family: the kind of model.
        name: what tells this model from the others, for messages.
        terms: the formulas; the first is the log evidence, with which the others are compared.
        truths: their values, good to `digits` digits.
        answers: the evaluators, as functions of a term.
    """

    family: str
    name: str
    terms: dict[str, Term]
    truths: dict[str, Any]
    answers: dict[str, Answer]
    digits: int = 40
    asked: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The formulas of an evaluator that is not asked for all of them."""

    def evaluators_of(self, formula: str) -> dict[str, Answer]:
        return {name: a for name, a in self.answers.items() if formula in self.asked.get(name, (formula,))}


# --- tables ----------------------------------------------------------------------------------------------------------


def tables(count: int, seed: int) -> Iterator[Case]:
    """Finite models, with every objective of the catalogue at one observation; a third of them has zeros."""
    rng = Random(seed)
    for number in range(count):
        xs, zs = rng.choice((1, 2, 2, 3)), rng.choice((2, 2, 3, 4))
        xts = (xs, xs, rng.choice((1, 2, 3)), None)[number % 4]
        denominator = rng.choice((12, 60, 10**6, 10**12))
        model = oracle.random_model(rng, xs, zs, xts, denominator=denominator, zeros=number % 3 == 2)
        x = rng.randrange(xs)
        suited = {case.name: case for case in OBJECTIVES if case.suits(model)}
        made = finite(model)
        yield Case(
            "tables",
            f"tables, seed {seed}, model {number}",
            {name: case.term for name, case in suited.items()},
            {name: truth(case.expected, model, x) for name, case in suited.items()},
            {
                "exact": partial(exact.evaluate, model=made, x=x),
                "enclosure": partial(enclosure.evaluate, model=made, x=x),
                "floating": partial(floating.evaluate, model=made, x=x),
            },
        )


# --- one latent variable ---------------------------------------------------------------------------------------------


def divergence(m: Any, x: Any) -> Any:
    return kl(m.encoder(x), m.prior())


FORMULAS: dict[str, Term] = {
    "log_evidence": trace(o.log_evidence),
    "elbo": trace(o.elbo),
    "reconstruction": trace(o.reconstruction),
    "kl": trace(divergence),
    "eubo": trace(o.eubo),
    "renyi 1/4": trace(o.renyi, alpha="1/4"),
    "renyi 1/2": trace(o.renyi, alpha="1/2"),
    "renyi 2": trace(o.renyi, alpha=2),
    "cubo 3/2": trace(o.cubo, n="3/2"),
    "cubo 2": trace(o.cubo, n=2),
    "tvo_left": trace(o.tvo_left, s=3),
    "tvo_right": trace(o.tvo_right, s=3),
    "tvo_left 2": trace(o.tvo_left, s=2),
    "tvo_right 2": trace(o.tvo_right, s=2),
    "beta_objective": trace(o.beta_objective, beta="1/2"),
    "free_bits": trace(o.free_bits, floor=2),
    "denoising_coupled": trace(o.denoising_coupled),
    "denoising_decoupled": trace(o.denoising_decoupled),
    "marginal_elbo": trace(o.marginal_elbo),
    "marginal_cross_entropy": trace(o.marginal_cross_entropy),
    "dae_criterion": trace(o.dae_criterion),
    "sivi 1": trace(o.sivi, k=1),
    "hvm": trace(o.hvm),
    "hvm_prior": trace(o.hvm_prior),
    "hvm_optimal": trace(o.hvm_optimal),
    "beta_denoising": trace(o.beta_denoising, beta="1/2"),
    "marginal_negative_entropy": trace(o.marginal_negative_entropy),
}
FORMULAS |= {f"perturbative {n}": trace(o.perturbative, order=n, v0=1) for n in (1, 2, 3)}
FORMULAS |= {f"sivi {k}": trace(o.sivi, k=k) for k in (2, 3)}
FORMULAS |= {f"sivi_without {k}": trace(o.sivi_without, k=k) for k in (1, 2, 3)}
for _k in COPIES:
    FORMULAS |= {f"{each.__name__} {_k}": trace(each, k=_k) for each in (
        o.iwae, o.jvi, o.harmonic_mean, o.diwae_coupled, o.diwae_fresh, o.diwae_decoupled)}  # fmt: skip
    FORMULAS |= {f"renyi_finite {a} {_k}": trace(o.renyi_finite, alpha=a, k=_k) for a in ("1/2", "1/4", "2")}
    FORMULAS |= {f"cubo_finite {n} {_k}": trace(o.cubo_finite, n=n, k=_k) for n in ("3/2", "2")}


def dyadic(rng: Random, low: float, high: float, grain: int = 16) -> float:
    return rng.randint(math.ceil(low * grain), math.floor(high * grain)) / grain


def as_density(law: Law, location: Any = None) -> Any:
    place = law.location if location is None else location
    if law.kind == "uniform":
        return Uniform(place, place + law.scale)
    if law.kind == "student":
        return StudentT(law.extra, place, law.scale)
    if law.kind == "mixture":
        return Mixture(("1/4", "3/4"), (Normal(place, law.scale), Normal(place + law.extra, 2 * law.scale)))
    return {"normal": Normal, "laplace": Laplace, "logistic": Logistic}[law.kind](place, law.scale)


def as_likelihood(seen: Observed, z: Any) -> Any:
    u = seen.slope * z + seen.shift
    made: dict[str, Callable[[], Any]] = {
        "bernoulli": lambda: BernoulliLogit(u),
        "binomial": lambda: Binomial(5, u),
        "poisson": lambda: PoissonLog(u),
        "normal": lambda: Normal(u, seen.scale),
        "laplace": lambda: Laplace(u, seen.scale),
        "logistic": lambda: Logistic(u, seen.scale),
        "student": lambda: StudentT(3, u, seen.scale),
    }
    return made[seen.kind]()


PRIORS = ("normal", "laplace", "logistic", "student", "uniform", "mixture")
LIKELIHOODS = ("bernoulli", "binomial", "poisson", "normal", "laplace", "logistic", "student")


def random_law(rng: Random, kind: str) -> Law:
    extra = {"student": rng.choice((2.5, 3.0, 4.0, 7.5)), "mixture": dyadic(rng, 0.5, 3)}.get(kind, 0.0)
    scale = dyadic(rng, 0.375, 2)
    return Law(kind, dyadic(rng, -2, 2), 3 * scale if kind == "uniform" else scale, extra)


def random_likelihood(rng: Random, kind: str, most: int) -> list[Observed]:
    slope, shift = rng.choice((-1, 1)) * dyadic(rng, 0.375, 2), dyadic(rng, -1, 1)
    if kind == "bernoulli":
        return [Observed(kind, slope, shift - i, float(rng.randint(0, 1))) for i in range(rng.randint(1, most))]
    x = {"binomial": rng.randint(0, 5), "poisson": rng.randint(0, 6)}.get(kind, dyadic(rng, -2, 2))
    if kind == "poisson":
        slope /= 2
    return [Observed(kind, slope, shift, float(x), dyadic(rng, 0.375, 1.5))]


def one_latent(rng: Random, corrupts: bool, kind: str | None = None) -> tuple[OneLatent, ContinuousModel, Any]:
    """A random model, its encoder of some kind: what the truths need to know of it, itself, and the observation."""
    likelihood = rng.choice(LIKELIHOODS)
    kinds = ("normal",) if likelihood == "poisson" else ("normal", "normal", "logistic", "laplace", "uniform")
    base = random_law(rng, rng.choice(kinds) if kind is None else kind)
    seen = random_likelihood(rng, likelihood, 1 if corrupts else 4)
    prior = random_law(rng, rng.choice(PRIORS))
    if base.kind == "uniform" and rng.random() < 0.5:  # else the ELBO is -inf with a uniform prior
        prior = Law("uniform", base.location - 1.5, base.scale + 3)
    pull = dyadic(rng, -1, 1) if corrupts else 0.0
    x: tuple[float, ...] = tuple(int(s.x) if s.kind in ("bernoulli", "binomial", "poisson") else s.x for s in seen)

    def at(v: float) -> Law:
        return Law(base.kind, base.location + pull * v, base.scale, base.extra)

    points: tuple[float, ...] = ()
    chances: tuple[float, ...] = ()
    own: tuple[float, ...] = ()
    if corrupts:
        points = tuple(sorted({dyadic(rng, -2, 2, 4) for _ in range(rng.choice((2, 3)))}))
        cut = rng.sample(range(1, 8), len(points) - 1)
        ends = [0, *sorted(cut), 8]
        chances = tuple((b - a) / 8 for a, b in pairwise(ends))
        own = (*(1 / 2**i for i in range(1, len(points))), 1 / 2 ** max(len(points) - 1, 0))
    known = OneLatent(
        prior, seen, at(x[0]) if corrupts else base,
        tuple((c, at(v)) for c, v in zip(chances, points, strict=True)), own,
    )  # fmt: skip
    model = ContinuousModel(
        as_density(prior),
        lambda z: [as_likelihood(each, z) for each in seen],
        (lambda v: as_density(base, base.location + pull * v)) if corrupts else (lambda v: as_density(base)),
        (lambda v: Discrete(dict(zip(points, chances, strict=True)))) if corrupts else None,
        (lambda z, v: Discrete(dict(zip(points, own, strict=True)))) if corrupts else None,
    )
    return known, model, x if len(seen) > 1 else next(iter(x))


def integrals(model: ContinuousModel, x: Any, **effort: Any) -> dict[str, Answer]:
    """The evaluators of models with any laws, quadrature with some `effort`."""
    return {
        "integration": partial(integration.evaluate, model=model, x=x),
        "quadrature": partial(quadrature.evaluate, model=model, x=x, **effort),
        "Gauss-Hermite": partial(gauss_hermite.evaluate, model=model, x=x),
    }


def laws(count: int, seed: int) -> Iterator[Case]:
    """One latent variable: every kind of prior, likelihood and encoder, half of the models with a corruption."""
    rng = Random(seed)
    for number in range(count):
        known, model, observed = one_latent(rng, corrupts=number % 2 == 0)
        truths = one_latent_truths(known)
        if "log_evidence" not in truths:
            continue
        name = f"laws, seed {seed}, model {number}"
        terms = {name: FORMULAS[name] for name in truths}
        yield Case("one latent, any laws", name, terms, truths, integrals(model, observed), digits=20)


def copies(count: int, seed: int) -> Iterator[Case]:
    """One latent variable again: objectives of K samples, and what else `laws` has not, half with a corruption."""
    rng = Random(seed)
    for number in range(count):
        known, model, observed = one_latent(rng, corrupts=number % 2 == 0)
        truths = copies_truths(known)
        if "log_evidence" not in truths:
            continue
        terms = {name: FORMULAS[name] for name in truths}
        name = f"copies, seed {seed}, model {number}"
        answers = integrals(model, observed, tolerance=1e-7, most_nodes=1_000_000)
        quick = tuple(name for name in terms if name not in ("sivi 3", "sivi_without 3"))
        asked = {"integration": quick}
        yield Case("one latent, copies", name, terms, truths, answers, digits=FEWEST_DIGITS, asked=asked)


def mixed_encoders(count: int, seed: int) -> Iterator[Case]:
    """Discrete mixtures of encoders with edges, kinks or several modes: quadrature alone, on many models."""
    rng = Random(seed)
    for number in range(count):
        kind = ("uniform", "laplace", "uniform", "mixture", "logistic")[number % 5]
        known, model, observed = one_latent(rng, corrupts=True, kind=kind)
        truths = copies_truths(known, copies=False)
        names = ("log_evidence", "marginal_elbo", "hvm_optimal", "hvm_prior", "sivi 1", "marginal_negative_entropy")
        truths = {name: truths[name] for name in names if name in truths}
        if "log_evidence" not in truths:
            continue
        terms = {name: FORMULAS[name] for name in truths}
        name = f"mixed encoders, seed {seed}, model {number}"
        answers = {"quadrature": integrals(model, observed)["quadrature"]}
        yield Case("one latent, mixed encoders", name, terms, truths, answers, digits=FEWEST_DIGITS)


# --- Gaussian models -------------------------------------------------------------------------------------------------


def gaussian_points(count: int, seed: int) -> Iterator[Case]:
    """z, x and x~ of one dimension, all laws normal; a third of the models has scales from 2^-12 to 2^12."""
    rng = Random(seed)
    for number in range(count):
        wide = number % 3 == 2

        def scale(wide: bool = wide) -> float:
            return rng.randint(2, 7) * 2.0 ** rng.randint(-14, 10) if wide else dyadic(rng, 0.25, 3)

        def place(wide: bool = wide) -> float:
            return dyadic(rng, -1000, 1000) if wide else dyadic(rng, -3, 3)

        m, s0, slope, shift, s = (
            place(),
            scale(),
            rng.choice((-1, 1)) * dyadic(rng, 0.5, 2),
            dyadic(rng, -1, 1),
            scale(),
        )
        pull, mean, t, x = (0.0 if wide else dyadic(rng, -1, 1)), place(), scale(), place()
        corrupts = not wide and rng.random() < 0.04  # quadrature over x~ and z takes seconds
        noise, moved = dyadic(rng, 0.25, 2), dyadic(rng, -1, 1)
        rz, rx, r, width = dyadic(rng, -1, 1), dyadic(rng, -1, 1), dyadic(rng, -1, 1), dyadic(rng, 0.5, 2)
        model = ContinuousModel(
            Normal(m, s0),
            lambda z, a=slope, b=shift, s=s: Normal(a * z + b, s),
            lambda v, a=pull, b=mean, t=t: Normal(a * v + b, t),
            (lambda v, d=moved, c=noise: Normal(v + d, c)) if corrupts else None,
            (lambda z, v, rz=rz, rx=rx, r=r, w=width: Normal(rz * z + rx * v + r, w)) if corrupts else None,
        )
        parts: dict[str, Any] = {
            "prior": (m, s0**2),
            "likelihood": (slope, shift, s**2),
            "encoder": (pull, mean, t**2),
        }
        if corrupts:
            parts |= {"corruption": (1.0, moved, noise**2), "auxiliary": (rz, rx, r, width**2)}
        yield from _gaussian("Gaussian, 1 latent", f"seed {seed}, model {number}", parts, x, model)


def gaussian_planes(count: int, seed: int) -> Iterator[Case]:
    """Two and three latent dimensions, independent given what they depend on, for grids against closed forms."""
    rng = Random(seed)
    for number in range(count):
        d, n = (3, 2) if number % 6 == 5 else (2, rng.choice((1, 2)))
        prior = [(dyadic(rng, -1, 1), dyadic(rng, 0.5, 2)) for _ in range(d)]
        rows = [[dyadic(rng, -1, 1) for _ in range(d)] for _ in range(n)]
        scales = [dyadic(rng, 0.5, 2) for _ in range(n)]
        means, widths = [dyadic(rng, -1, 1) for _ in range(d)], [dyadic(rng, 0.375, 1.5) for _ in range(d)]
        x = tuple(dyadic(rng, -2, 2) for _ in range(n))
        model = ContinuousModel(
            [Normal(m, s) for m, s in prior],
            lambda z, rows=rows, scales=scales: [
                Normal(sum(a * v for a, v in zip(row, z, strict=True)), s) for row, s in zip(rows, scales, strict=True)
            ],
            lambda v, means=means, widths=widths: [Normal(m, s) for m, s in zip(means, widths, strict=True)],
        )
        parts = {
            "prior": ([m for m, _ in prior], [s**2 for _, s in prior]),
            "likelihood": (rows, 0.0, [s**2 for s in scales]),
            "encoder": (np.zeros((d, n)), means, [s**2 for s in widths]),
        }
        observed = x if n > 1 else x[0]
        tolerance = {"tolerance": 1e-6} if d == 3 else {}
        names = ("log_evidence", "elbo", "reconstruction", "eubo", "renyi 1/2", "cubo 3/2")
        names = names[:2] if d == 3 else names
        grids = {
            "quadrature": partial(quadrature.evaluate, model=model, x=observed, **tolerance),
            "Gauss-Hermite": partial(gauss_hermite.evaluate, model=model, x=observed, nodes=16 if d == 3 else 24),
        }
        yield from _gaussian(
            f"Gaussian, {d} latents", f"seed {seed}, model {number}", parts, np.array(x), None, names, grids
        )


def gaussian_spaces(count: int, seed: int, sampled: bool = True) -> Iterator[Case]:
    """One to four latent and observed dimensions with full covariances, corruption and auxiliary model."""
    rng = np.random.default_rng(seed)

    def spd(d: int, scale: float) -> np.ndarray:
        root = np.round(16 * rng.normal(size=(d, d + 2))) / 16
        return scale * (root @ root.T / 4 + np.eye(d) / 8)

    def some(*shape: int) -> np.ndarray:
        return np.round(16 * rng.normal(size=shape)) / 16

    for number in range(count):
        d, n = int(rng.integers(1, 5)), int(rng.integers(1, 5))
        parts = {
            "prior": (some(d), spd(d, 1.0)),
            "likelihood": (some(n, d), some(n), spd(n, 1.0)),
            "encoder": (some(d, n) / 2, some(d), spd(d, 0.5)),
            "corruption": (np.eye(n) + some(n, n) / 8, some(n), spd(n, 0.25)),
            "auxiliary": (some(n, d) / 8, np.eye(n) / 2, some(n), spd(n, 1.0)),
        }
        draws = seed + number if sampled and number % 4 == 0 else None
        yield from _gaussian(
            "Gaussian, 1 to 4 latents", f"seed {seed}, model {number}", parts, some(n), None, sampled=draws
        )


LINEAR = ("elbo", "reconstruction", "denoising_coupled", "denoising_decoupled", "dae_criterion", "hvm", "hvm_prior")
"""Expectations of polynomials of degree two in normal variables: their sample means are close to normal."""


def _gaussian(
    family: str,
    name: str,
    parts: dict[str, Any],
    x: Any,
    model: ContinuousModel | None,
    names: tuple[str, ...] | None = None,
    grids: dict[str, Answer] | None = None,
    sampled: int | None = None,
) -> Iterator[Case]:
    linear = LinearGaussianModel(**parts)
    laws = _written_out(parts)
    truths = gaussian_truths(laws, np.atleast_1d(np.asarray(x, dtype=float)))
    truths = {key: value for key, value in truths.items() if names is None or key in names}
    answers: dict[str, Answer] = {
        "closed form": partial(closed_form.evaluate, model=linear, x=x),
        "closed form, enclosed": partial(closed_form.enclose, model=linear, x=x),
        **(grids or {}),
    }
    if model is not None:
        answers["integration"] = partial(integration.evaluate, model=model, x=x)
        answers["quadrature"] = partial(quadrature.evaluate, model=model, x=x)
        answers["Gauss-Hermite"] = partial(gauss_hermite.evaluate, model=model, x=x)
    if sampled is not None:
        answers["Monte Carlo"] = partial(_sampled, agreement_evaluators(sampled)["Monte Carlo"], linear, x)
    if not all(Fraction(repr(v)) == Fraction(v) for law in laws.values() for v in law.covariance.ravel().tolist()):
        del answers["closed form, enclosed"]  # it reads the decimals that floats print as, which is another model
    terms = {key: FORMULAS[key] for key in truths}
    yield Case(family, f"{family}, {name}", terms, truths, answers, asked={"Monte Carlo": LINEAR})


def _sampled(evaluator: Any, model: LinearGaussianModel, x: Any, term: Term) -> Any:
    return evaluator(term, model=model, x=x)


def _written_out(parts: dict[str, Any]) -> dict[str, Affine]:
    """The arrays that shorthands stand for, such as one number for a multiple of the identity."""
    found = {}
    for role, (*slopes, mean, covariance) in parts.items():
        matrices = [np.atleast_2d(np.asarray(slope, dtype=float)) for slope in slopes]
        size = matrices[0].shape[0] if matrices else np.size(mean)
        spread = np.asarray(covariance, dtype=float)
        full = spread if spread.ndim == 2 else np.diag(np.broadcast_to(spread, size))
        found[role] = Affine(matrices, np.broadcast_to(np.asarray(mean, dtype=float), size), full)
    return found


__all__ = [
    "FORMULAS", "LINEAR", "Case", "copies", "gaussian_planes", "gaussian_points", "gaussian_spaces", "laws",
    "mixed_encoders", "tables",
]  # fmt: skip
