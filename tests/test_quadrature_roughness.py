"""Jumps and kinks that quadrature is not told of: its error must own up to them, wherever in a panel they lie."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr

from boundcheck.catalogue.objectives import hvm_optimal, marginal_elbo
from boundcheck.evaluators import quadrature
from boundcheck.evaluators.quadrature_lines import Array, Index, Lines, Sample
from boundcheck.evaluators.quadrature_panels import Effort, integrate_lines
from boundcheck.evaluators.quadrature_rule import NODES, Ends, at_ends, roughness, seams
from boundcheck.models.continuous import ContinuousModel
from boundcheck.models.densities import BernoulliLogit, Discrete, Logistic, Uniform

COUNT = 1500


@pytest.mark.parametrize("shape", ["jump", "step from zero", "kink"])
@pytest.mark.parametrize("tolerance", [1e-10, 1e-6])
@np.errstate(all="ignore")
def test_the_error_covers_jumps_and_kinks_at_unknown_places(shape: str, tolerance: float) -> None:
    """Integrals of a standard normal density times a function with a jump or a kink at a random place."""
    rng = np.random.default_rng(20)
    at, size = rng.uniform(-2, 2, COUNT), rng.uniform(0.1, 3, COUNT)

    def integrand(entry: Index, v: Array, _: bool) -> Sample:
        right = v > at[entry]
        value = {
            "jump": 1 + size[entry] * right,
            "step from zero": size[entry] * right,
            "kink": size[entry] * np.maximum(v - at[entry], 0),
        }[shape]
        return Sample(-v * v / 2 - math.log(2 * math.pi) / 2, value)

    nothing, one = np.zeros((COUNT, 1)), np.ones((COUNT, 1))
    lines = Lines(nothing, one, np.zeros((COUNT, 0)), np.full(COUNT, -np.inf), np.full(COUNT, np.inf))
    found = integrate_lines(integrand, lines, tolerance, Effort(10**9), signed=True)
    above, density = ndtr(-at), np.exp(-at * at / 2) / math.sqrt(2 * math.pi)
    truth = {"jump": 1 + size * above, "step from zero": size * above, "kink": size * (density - at * above)}[shape]
    off, error = np.abs(found.total * np.exp(found.scale) - truth), found.error * np.exp(found.scale)
    assert (off <= error + 1e-15).all()
    assert np.median(error) < 10 * tolerance


def test_a_jump_between_the_outermost_nodes_of_two_panels_is_noticed() -> None:
    low, high = np.array([0.0, 1.0]), np.array([1.0, 2.0])
    half = (high - low) / 2
    nodes = (low + high)[:, None] / 2 + half[:, None] * NODES

    def missed(values: Array, known: list[float]) -> Array:
        assert (roughness(values) == 0).all()
        ends = Ends(
            np.zeros(2, dtype=int),
            low,
            high,
            np.zeros(2),
            *at_ends(values, half, (np.zeros(2), np.zeros(2))),
            np.zeros(2),
        )
        return seams(ends, np.array([known]))

    smooth, broken = np.cos(nodes), np.cos(nodes) + (nodes > 0.999)
    assert (missed(smooth, [0.0, 2.0]) < 1e-15).all()
    assert (missed(broken, [0.0, 2.0]) > 0.001).all()
    assert (missed(broken, [0.0, 2.0, 1.0]) < 1e-15).all()
    assert missed(smooth, [0.0])[1] > 1e-4  # where no panel follows the integrand should be zero


def test_every_edge_of_a_mixture_of_uniform_encoders_is_found() -> None:
    """The two formulas are equal; more points than are held one by one, so that some edges are not foretold."""
    for count in (3, 12):
        points = {(i * i % 29) / 8 - 1.5: f"1/{count}" for i in range(count)}
        model = ContinuousModel(
            Logistic(-0.875, 1.75),
            lambda z: BernoulliLogit(z - 0.5),
            lambda v: Uniform(-2 + 0.9375 * v, 0.25 + 0.9375 * v),
            lambda v, points=points: Discrete(points),
        )
        one, other = (quadrature.evaluate(f, model, x=1) for f in (hvm_optimal, marginal_elbo))
        assert max(one.error, other.error) < 1e-8
        assert abs(one.value - other.value) <= one.error + other.error
