"""The denoising family on a one-dimensional linear-Gaussian model, as functions of the model's parameters.

The model is z ~ N(0, 1) and x|z ~ N(w z + b, v) with r = x - b. The encoder is N(a x~ + d, u) and the corruption
x~ ~ N(x, t^2), so q(z|x~) = N(m', u) with m' ~ N(m, k), where m = a x + d and k = a^2 t^2; and q~(z|x) = N(m, u + k).
From E z^2 = m^2 + s and E (r - w z)^2 = (r - w m)^2 + w^2 s for z ~ N(m, s), with the energy

    L(m, s) = E_{N(m, s)} log p(x, z) = - (m^2 + s)/2 - (log v)/2 - ((r - w m)^2 + w^2 s)/(2 v),

every objective is, up to the same constant -log(2 pi)/2,

    log p(x)          = - log(w^2 + v)/2 - r^2 / (2 (w^2 + v)),
    ELBO              = L(m, u) + (1 + log u)/2,
    coupled           = L(m, u + k) + (1 + log u)/2,
    marginal ELBO     = L(m, u + k) + (1 + log(u + k))/2,
    decoupled         = L(m, u + k) + (1 + 2 k/u + log u)/2.

The last one because z ~ N(m, u + k) and the other m' ~ N(m, k) are independent, so that E (z - m')^2 = u + 2 k. The
coupled one because a mean of L(m', u) over m' ~ N(m, k) is L(m, u + k), and the entropy does not depend on m'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cached_property

from flint import arb

from boundcheck.claims.branching import DEFAULT_BOXES, DEFAULT_EPS, DEFAULT_SECONDS, BoxResult, Progress, minimise
from boundcheck.claims.landscape import Interval, LogFormLandscape
from boundcheck.claims.logforms import LogForm, LogForms, Ratio
from boundcheck.errors import BadInput, UnknownName
from boundcheck.language.terms import Number, as_fraction

PARAMETERS = ("w", "v", "r", "m", "u", "k")
POSITIVE = ("v", "u", "k")
OBJECTIVES = ("evidence", "elbo", "coupled", "marginal elbo", "decoupled")

DEFAULT_BOX: Mapping[str, tuple[Number, Number]] = {
    "w": ("1/2", 2),
    "v": ("1/2", 2),
    "r": (-1, 1),
    "m": (-1, 1),
    "u": ("1/4", 1),
    "k": ("1/4", 1),
}
"""Where the inequalities are judged unless a caller says otherwise."""


class LinearGaussian:
    """The objectives as log forms in w, v, r, m, u, k (with v, u, k > 0), the constant -log(2 pi)/2 left out.

    >>> model = LinearGaussian()
    >>> point = {"w": 1, "v": 1, "r": 0, "m": 0, "u": "1/2", "k": "1/2"}
    >>> float(model.value("decoupled", point) - model.value("evidence", point)) > 0
    True
    """

    def __init__(self) -> None:
        inside = [Fraction(0 if name in ("r", "m") else 1) for name in PARAMETERS]
        self.forms = LogForms(PARAMETERS, inside)

    @cached_property
    def objectives(self) -> dict[str, LogForm]:
        """Each objective by its name."""
        f = self.forms
        w, v, r, m, u, k = (f.parameter(name) for name in PARAMETERS)
        half = f.ratio(Fraction(1, 2))

        def square(a: Ratio) -> Ratio:
            return f.power(a, 2)

        def log(a: Ratio) -> LogForm:
            return f.times(half, f.log(a, known_positive=True))

        def quotient(a: Ratio, b: Ratio) -> Ratio:
            return f.times_ratio(half, f.times_ratio(a, f.inverse(b)))

        def energy(s: Ratio) -> LogForm:
            residual = square(f.plus(r, f.minus(f.times_ratio(w, m))))
            misfit = f.plus(residual, f.times_ratio(square(w), s))
            prior = f.times_ratio(half, f.plus(square(m), s))
            return f.subtract(f.form(f.minus(f.plus(prior, quotient(misfit, v)))), log(v))

        def with_entropy(energy_part: LogForm, variance: Ratio, surplus: Ratio = f.zero) -> LogForm:
            return f.add(f.add(energy_part, log(variance)), f.form(f.plus(half, surplus)))

        spread, total = f.plus(u, k), f.plus(square(w), v)
        return {
            "evidence": f.subtract(f.form(f.minus(quotient(square(r), total))), log(total)),
            "elbo": with_entropy(energy(u), u),
            "coupled": with_entropy(energy(spread), u),
            "marginal elbo": with_entropy(energy(spread), spread),
            "decoupled": with_entropy(energy(spread), u, f.times_ratio(k, f.inverse(u))),
        }

    def objective(self, name: str) -> LogForm:
        """One objective.

        Raises:
            UnknownName: another name than those in `OBJECTIVES`.
        """
        if name not in self.objectives:
            raise UnknownName("objective", name, self.objectives)
        return self.objectives[name]

    def value(self, name: str, point: Mapping[str, Number]) -> arb:
        """A ball around an objective in nats, its constant -log(2 pi)/2 included."""
        numbers = [as_fraction(point[each]) for each in PARAMETERS]
        landscape = LogFormLandscape(self.forms, self.objective(name))
        return landscape.value(tuple((each, each) for each in numbers)) - (2 * arb.pi()).log() / 2


def prove_on_gaussians(
    lhs: str,
    rhs: str,
    box: Mapping[str, tuple[Number, Number]] | None = None,
    *,
    eps: float = DEFAULT_EPS,
    seconds: float = DEFAULT_SECONDS,
    boxes: int = DEFAULT_BOXES,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> BoxResult:
    """Prove rhs - lhs >= -eps for all linear-Gaussian models of a box, or find a model where it is certainly negative.

    Args:
        lhs: the name of an objective, one of `OBJECTIVES`.
        rhs: the name of another.
        box: intervals for some of w, v, r, m, u, k; the others are those of `DEFAULT_BOX`.
        eps: the tolerance in nats.
        seconds: the longest time to spend.
        boxes: the most boxes to look at.
        progress: called now and then.

    Returns:
        The result; a witness is the `point`, where balls certify the difference to be negative.

    Raises:
        BadInput: an interval that is empty or leaves v, u, k > 0.
        UnknownName: a parameter or an objective that does not exist.

    >>> prove_on_gaussians("coupled", "marginal elbo").status.value
    'proved'
    >>> prove_on_gaussians("decoupled", "evidence").status.value
    'refuted'
    """
    chosen = dict(DEFAULT_BOX) | dict(box or {})
    sides: dict[str, Interval] = {}
    for name in chosen:
        if name not in PARAMETERS:
            raise UnknownName("parameter", name, PARAMETERS)
    for name in PARAMETERS:
        low, high = (as_fraction(end) for end in chosen[name])
        if name in POSITIVE and low <= 0:
            raise BadInput(f"the interval of {name}", (str(low), str(high)), "positive numbers")
        sides[name] = (low, high)
    model = LinearGaussian()
    form = model.forms.subtract(model.objective(rhs), model.objective(lhs))
    landscape = LogFormLandscape(model.forms, form)
    return minimise(landscape, sides, eps=eps, seconds=seconds, boxes=boxes, progress=progress)


__all__ = ["DEFAULT_BOX", "OBJECTIVES", "PARAMETERS", "LinearGaussian", "prove_on_gaussians"]
