"""Branch and bound: bounds contain values, false inequalities get exact witnesses, and what is open is said to be."""

from __future__ import annotations

import json
from fractions import Fraction
from functools import partial
from itertools import product

import flint
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundcheck.catalogue import find, objectives
from boundcheck.claims import Claim, Outcome, check
from boundcheck.claims.box import (
    BoxStatus,
    Progress,
    difference,
    minimise,
    model_at,
    progress_bar,
    prove_on_box,
    tables,
    three_state_tables,
    two_state_tables,
)
from boundcheck.claims.gaussian import PARAMETERS, LinearGaussian, prove_on_gaussians
from boundcheck.claims.landscape import LogFormLandscape, mean_value_bound, middle_of, second_order_bound
from boundcheck.claims.log_form_domain import log_form
from boundcheck.claims.logforms import LogForms
from boundcheck.claims.symbols import row_of_sticks, symbolic_tables
from boundcheck.errors import BadInput, CannotCompute, UnknownName
from boundcheck.evaluators import exact
from boundcheck.language import kl

CLAIMS = [
    "elbo-below-evidence",
    "eubo-above-evidence",
    "denoising-coupled-below-evidence",
    "denoising-decoupled-below-evidence",
    "denoising-coupled-below-marginal-elbo",
    "iwae-below-evidence",
    "renyi-negative-above-evidence",
    "hvm-below-evidence",
    "beta-below-one-below-evidence",
]


def landscape_of(claim: Claim, z: int = 2):
    family = tables(z, 2)
    symbols = symbolic_tables(difference(claim), family.sizes, row_of_sticks, evidence=True)
    return LogFormLandscape(symbols.forms, log_form(difference(claim), symbols)), symbols, family


LANDSCAPES = {
    (name, z): landscape_of(find(name), z) for name in CLAIMS for z in (2, 3) if (name, z) != ("iwae-below-evidence", 3)
}


@st.composite
def boxes_with_a_point(draw, dimension: int):
    """A random part of the unit box, sides of zero width included, and a point in it."""
    box, point = [], []
    for _ in range(dimension):
        low, high = sorted(Fraction(draw(st.integers(1, 99)), 100) for _ in range(2))
        if draw(st.booleans()):
            high = min(high, low + Fraction(1, 100))
        share = Fraction(draw(st.integers(0, 8)), 8)
        box.append((low, high))
        point.append(low + share * (high - low))
    return tuple(box), tuple(point)


@pytest.mark.parametrize(("name", "z"), LANDSCAPES)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_bounds_on_a_box_contain_the_exact_value_at_every_point(name: str, z: int, data) -> None:
    """The value at the point comes from the exact evaluator on the model, which shares no number with the box."""
    landscape, symbols, family = LANDSCAPES[name, z]
    box, point = data.draw(boxes_with_a_point(landscape.dimension))
    value = exact.evaluate(difference(find(name)), model_at(symbols, point, family)).value.ball(80)
    middle = middle_of(box)
    assert landscape.value(box).overlaps(value)
    slopes = [landscape.slope(box, i) for i in range(landscape.dimension)]
    assert not value < mean_value_bound(landscape, box, middle, slopes)
    assert not value < second_order_bound(landscape, box, middle)


@pytest.mark.parametrize(("name", "z"), list(LANDSCAPES)[:6])
@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data())
def test_slopes_and_curvatures_contain_difference_quotients(name: str, z: int, data) -> None:
    """A slope on a box contains the chord's, a curvature that of the second difference, both from exact values."""
    landscape, symbols, family = LANDSCAPES[name, z]
    box, _ = data.draw(boxes_with_a_point(landscape.dimension))
    i = data.draw(st.integers(0, landscape.dimension - 1))
    low, high = box[i]
    if low == high:
        return
    fixed = [a for a, _ in box]
    h = (high - low) / 2

    def at(value: Fraction) -> flint.arb:
        point = tuple(value if j == i else each for j, each in enumerate(fixed))
        return exact.evaluate(difference(find(name)), model_at(symbols, point, family)).value.ball(200)

    line = tuple((low, high) if j == i else (each, each) for j, each in enumerate(fixed))
    ends, width = [at(low), at(low + h), at(high)], flint.arb(flint.fmpq(h.numerator, h.denominator))
    assert landscape.slope(line, i).overlaps((ends[2] - ends[0]) / (2 * width))
    second = (ends[2] - 2 * ends[1] + ends[0]) / width**2
    assert landscape.curvature(line, i, i).overlaps(second)
    if landscape.is_concave(line, i):
        assert not second > 1e-12


@pytest.mark.parametrize("name", ["elbo-below-evidence", "eubo-above-evidence"])
def test_true_claims_are_proved_on_two_states(name: str) -> None:
    result = prove_on_box(find(name), two_state_tables("1/10"), eps=1e-4)
    assert result.status is BoxStatus.PROVED
    assert result.open_fraction == 0 and result.proved_fraction == 1
    assert -1e-4 <= result.bound <= 1e-9
    assert result.witness is None


@pytest.mark.parametrize("name", ["denoising-coupled-below-evidence", "denoising-coupled-below-marginal-elbo"])
def test_the_coupled_objective_is_proved_below_both_on_two_states(name: str) -> None:
    assert prove_on_box(find(name), two_state_tables("1/5"), eps=1e-3).status is BoxStatus.PROVED


@pytest.mark.parametrize(
    "name",
    [
        "denoising-decoupled-below-evidence",
        "denoising-coupled-above-marginal-elbo",
        "denoising-decoupled-below-marginal-elbo",
        "beta-below-one-below-evidence",
        "dae-below-evidence",
    ],
)
def test_false_claims_get_an_exact_witness(name: str) -> None:
    claim = find(name)
    result = prove_on_box(claim, boxes=3000)
    assert result.status is BoxStatus.REFUTED
    assert result.witness is not None
    verdict = check(claim, result.witness, 0)
    assert verdict.outcome is Outcome.VIOLATED
    assert result.point is not None
    for parameter, value in result.point.items():
        low, high = result.parameters[parameter]
        assert low <= value <= high
    assert 0 < result.open_fraction <= 1


PLANTED = {
    "reversed": (objectives.log_evidence, objectives.elbo),
    "tighter than the truth": (partial(objectives.iwae, k=2), objectives.elbo),
    "a hair too high": (lambda m, x: objectives.elbo(m, x) + Fraction(1, 1000), objectives.log_evidence),
}


@pytest.mark.parametrize("sides", PLANTED.values(), ids=PLANTED.keys())
def test_planted_wrong_claims_are_never_proved(sides) -> None:
    result = prove_on_box(Claim("planted", sides[0], "<=", sides[1]), eps=1e-4, boxes=5000)
    assert result.status is BoxStatus.REFUTED


def test_a_violation_smaller_than_eps_does_not_make_a_witness_wrong() -> None:
    """On the whole box elbo + 1e-7 exceeds log p(x) by at most 1e-7: proved within eps, or refuted; both are true."""
    claim = Claim("planted", lambda m, x: objectives.elbo(m, x) + Fraction(1, 10**7), "<=", objectives.log_evidence)
    result = prove_on_box(claim, two_state_tables("1/10"), eps=1e-4)
    assert result.status in (BoxStatus.PROVED, BoxStatus.REFUTED)
    if result.status is BoxStatus.PROVED:
        assert result.bound >= -1e-4


def test_three_states_are_left_open_honestly_when_the_budget_ends() -> None:
    result = prove_on_box(find("elbo-below-evidence"), three_state_tables(), boxes=300)
    assert result.status is BoxStatus.OPEN
    assert 0 < result.open_fraction <= 1
    assert result.proved_fraction + result.open_fraction == 1
    assert result.bound < -result.eps
    assert "open" in str(result)


@pytest.mark.parametrize("name", ["elbo-below-evidence", "denoising-coupled-below-evidence"])
def test_the_volume_adds_up(name: str) -> None:
    """What is proved never shrinks, and never exceeds one."""
    seen: list[Progress] = []
    prove_on_box(find(name), two_state_tables("1/10"), boxes=1500, progress=seen.append)
    shares = [each.proved_fraction for each in seen]
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1
    assert shares[-1] > 0


class Paraboloid:
    """(a - 1/3)^2 + (b - 1/3)^2 - c on the unit square, by hand: the search is tested on it without log forms."""

    dimension = 2

    def __init__(self, c: Fraction) -> None:
        self.c = c

    def _square(self, side):
        a, b = side[0] - Fraction(1, 3), side[1] - Fraction(1, 3)
        high = max(a * a, b * b)
        low = Fraction(0) if a <= 0 <= b else min(a * a, b * b)
        return _arb(low).union(_arb(high))

    def value(self, box):
        return self._square(box[0]) + self._square(box[1]) - _arb(self.c)

    def slope(self, box, i):
        return 2 * (_arb(box[i][0]).union(_arb(box[i][1])) - _arb(Fraction(1, 3)))

    def curvature(self, box, i, j):
        return flint.arb(2 if i == j else 0)

    def is_concave(self, box, i):
        return False


def _arb(value: Fraction) -> flint.arb:
    return flint.arb(flint.fmpq(value.numerator, value.denominator))


UNIT = {"a": (Fraction(0), Fraction(1)), "b": (Fraction(0), Fraction(1))}


def test_the_search_finds_the_sign_of_a_paraboloid() -> None:
    assert minimise(Paraboloid(Fraction(0)), UNIT, eps=1e-9).status is BoxStatus.PROVED
    dip = minimise(Paraboloid(Fraction(1, 10**6)), UNIT, eps=1e-9)
    assert dip.status is BoxStatus.REFUTED and dip.point is not None
    assert sum((value - Fraction(1, 3)) ** 2 for value in dip.point.values()) < Fraction(1, 10**6)


def test_a_point_that_is_not_certified_is_no_witness() -> None:
    result = minimise(Paraboloid(Fraction(1, 100)), UNIT, eps=1e-9, boxes=200, certify=lambda point: False)
    assert result.status is BoxStatus.OPEN and result.point is None


class Saddle(Paraboloid):
    """(a - 1/3)^2 - b^2 + c: concave in b, so that both ends of b have to be looked at."""

    def value(self, box):
        low, high = (each * each for each in box[1])
        return self._square(box[0]) - _arb(low).union(_arb(high)) + _arb(self.c)

    def slope(self, box, i):
        return super().slope(box, 0) if i == 0 else -2 * _arb(box[1][0]).union(_arb(box[1][1]))

    def curvature(self, box, i, j):
        return flint.arb([[2, 0], [0, -2]][i][j])

    def is_concave(self, box, i):
        return i == 1


@pytest.mark.parametrize(("c", "status"), [(Fraction(1), BoxStatus.PROVED), (Fraction(9, 10), BoxStatus.REFUTED)])
def test_a_concave_parameter_is_judged_at_both_ends(c: Fraction, status: BoxStatus) -> None:
    result = minimise(Saddle(c), UNIT, eps=1e-9)
    assert result.status is status
    assert result.open_fraction == 0 if status is BoxStatus.PROVED else result.open_fraction > 0


def test_second_order_bounds_of_what_is_not_convex_are_bounds() -> None:
    """The smallest value of (a - 1/3)^2 - b^2 + 1 on the unit square is 0, at (1/3, 1)."""
    box = tuple(UNIT.values())
    for part in (box, ((Fraction(0), Fraction(2, 3)), (Fraction(1, 2), Fraction(1)))):
        assert second_order_bound(Saddle(Fraction(1)), part, middle_of(part)) <= 0


class Slope(Paraboloid):
    """sign (a + b - 1 + c): monotone, negative somewhere and zero or positive in the middle."""

    def __init__(self, sign: int, c: Fraction) -> None:
        self.sign, self.c = sign, c

    def value(self, box):
        low, high = (box[0][i] + box[1][i] - 1 + self.c * self.sign for i in (0, 1))
        return self.sign * _arb(low).union(_arb(high))

    def slope(self, box, i):
        return flint.arb(self.sign)

    def curvature(self, box, i, j):
        return flint.arb(0)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_monotone_function_is_judged_where_it_is_smallest(sign: int) -> None:
    result = minimise(Slope(sign, Fraction(1, 2)), UNIT, eps=1e-9)
    assert result.status is BoxStatus.REFUTED and result.boxes <= 2
    assert minimise(Slope(sign, Fraction(2)), UNIT, eps=1e-9).status is BoxStatus.PROVED


def test_what_is_no_log_form_is_refused_by_name() -> None:
    with pytest.raises(CannotCompute):
        prove_on_box(find("free-bits-below-elbo"))


@pytest.mark.parametrize(
    "call",
    [
        lambda: prove_on_box(find("elbo-gap-is-kl")),
        lambda: prove_on_box(find("elbo-below-evidence"), eps=0),
        lambda: prove_on_box(find("elbo-below-evidence"), seconds=-1),
        lambda: prove_on_box(find("elbo-below-evidence"), boxes=0),
        lambda: tables(0),
        lambda: tables(2, 2, "1/2"),
        lambda: minimise(Paraboloid(Fraction(0)), {"a": (Fraction(0), Fraction(1))}),
        lambda: minimise(Paraboloid(Fraction(0)), UNIT | {"a": (Fraction(1), Fraction(0))}),
        lambda: prove_on_gaussians("elbo", "evidence", {"v": (0, 1)}),
    ],
)
def test_bad_input(call) -> None:
    with pytest.raises(BadInput):
        call()


def test_unknown_names() -> None:
    with pytest.raises(UnknownName):
        prove_on_gaussians("elbow", "evidence")
    with pytest.raises(UnknownName):
        prove_on_gaussians("elbo", "evidence", {"q": (0, 1)})


def test_the_result_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as show:
        result = prove_on_box(find("denoising-decoupled-below-evidence"), progress=show)
    assert capsys.readouterr().out == ""
    assert json.loads(json.dumps(result.to_json()))["status"] == "refuted"


# --- Gaussians -----------------------------------------------------------------------------------------------------

POINTS = [
    {"w": 1, "v": 1, "r": 0, "m": 0, "u": "1/2", "k": "1/2"},
    {"w": "3/2", "v": "1/2", "r": "7/10", "m": "-2/5", "u": "1/3", "k": "1/5"},
    {"w": "-4/5", "v": 2, "r": "-9/10", "m": "1/4", "u": "9/10", "k": "2/5"},
]


def by_quadrature(name: str, point) -> mpmath.mpf:
    """The objective as its definition says, integrated over z."""
    w, v, r, m, u, k = (mpmath.mpf(Fraction(point[p]).numerator) / Fraction(point[p]).denominator for p in PARAMETERS)

    def log_normal(a, mean, variance):
        return -mpmath.log(2 * mpmath.pi * variance) / 2 - (a - mean) ** 2 / (2 * variance)

    def log_joint(z):
        return log_normal(z, 0, 1) + log_normal(r, w * z, v)

    def expectation(mean, variance, f):
        s = mpmath.sqrt(variance)
        return mpmath.quad(
            lambda t: mpmath.exp(log_normal(t, 0, 1)) * f(mean + s * t), mpmath.linspace(-9, 9, 7), maxdegree=5
        )

    if name == "evidence":
        return mpmath.log(mpmath.quad(lambda z: mpmath.exp(log_joint(z)), mpmath.linspace(-12, 12, 13)))
    if name == "elbo":
        return expectation(m, u, lambda z: log_joint(z) - log_normal(z, m, u))
    assert name == "marginal elbo"
    return expectation(m, u + k, lambda z: log_joint(z) - log_normal(z, m, u + k))


@pytest.mark.parametrize("point", POINTS[1:], ids=["point 1", "point 2"])
@pytest.mark.parametrize("name", ["evidence", "elbo", "marginal elbo"])
def test_closed_forms_against_quadrature(name: str, point) -> None:
    with mpmath.workdps(15):
        assert abs(by_quadrature(name, point) - float(LinearGaussian().value(name, point).mid())) < 1e-8


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", ["elbo", "coupled", "decoupled"])
def test_closed_forms_by_exact_gauss_hermite(name: str, point) -> None:
    """Three nodes in each Gaussian integrate quadratics exactly: z, the mean that made it, and the density's mean."""
    w, v, r, m, u, k = (float(Fraction(point[p])) for p in PARAMETERS)
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    weights = weights / weights.sum()
    total = 0.0
    for (a, wa), (b, wb), (c, wc) in product(zip(nodes, weights, strict=True), repeat=3):
        made = m if name == "elbo" else m + k**0.5 * a
        z = made + u**0.5 * b
        other = m + k**0.5 * c if name == "decoupled" else made
        joint = -np.log(2 * np.pi) - np.log(v) / 2 - z * z / 2 - (r - w * z) ** 2 / (2 * v)
        total += wa * wb * wc * (joint + np.log(2 * np.pi * u) / 2 + (z - other) ** 2 / (2 * u))
    assert abs(total - float(LinearGaussian().value(name, point).mid())) < 1e-12


def test_gaussian_inequalities() -> None:
    assert prove_on_gaussians("coupled", "marginal elbo").status is BoxStatus.PROVED
    assert prove_on_gaussians("marginal elbo", "decoupled").status is BoxStatus.PROVED
    refuted = prove_on_gaussians("decoupled", "evidence")
    assert refuted.status is BoxStatus.REFUTED and refuted.point is not None
    model = LinearGaussian()
    assert model.value("decoupled", refuted.point) > model.value("evidence", refuted.point)
    fixed = {"w": (1, 1), "v": (1, 1), "r": ("1/2", "1/2"), "k": ("1/4", "1/4")}
    assert prove_on_gaussians("elbo", "evidence", fixed, eps=1e-4).status is BoxStatus.PROVED


def test_a_false_gaussian_inequality_is_never_proved() -> None:
    assert prove_on_gaussians("evidence", "elbo").status is BoxStatus.REFUTED
    assert prove_on_gaussians("elbo", "coupled").status is BoxStatus.REFUTED


def test_a_log_form_that_is_zero_is_proved_at_once() -> None:
    claim = Claim("same", objectives.elbo, "<=", lambda m, x: objectives.log_evidence(m, x) - kl(
        m.encoder(x), m.posterior(x)))  # fmt: skip
    assert prove_on_box(claim).status is BoxStatus.PROVED


def test_landscapes_of_a_plain_polynomial() -> None:
    forms = LogForms(["a"], [Fraction(1, 2)])
    a = forms.parameter("a")
    landscape = LogFormLandscape(forms, forms.form(forms.power(a, 3)))
    box = ((Fraction(-1), Fraction(2)),)
    value = landscape.value(box)
    assert value.contains(-1) and value.contains(8)
    assert landscape.slope(box, 0).contains(0) and landscape.slope(box, 0).contains(12)
    assert not landscape.is_concave(box, 0)
    assert landscape.is_concave(((Fraction(-2), Fraction(-1)),), 0)
