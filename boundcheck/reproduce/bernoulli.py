"""The counterexample of D. Tran and R. Ranganath (blog, December 2015), every quantity of it exact.

p(x,z) = Bernoulli(z; 1/2), x~ ~ Bernoulli(1/2), q(z=1|x~=0) = s and q(z=1|x~=1) = 1 - s, at s = 9/10. Im et al. (2015)
claim log p(x) >= L >= ELBO for their denoising objective L, and their formula has two readings. Decoupled, L exceeds
log p(x), without limit as s goes to 1. Coupled, as their released code computes it, L falls below the ELBO of q~. So
each reading keeps one half of the sandwich and breaks the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boundcheck.catalogue import find
from boundcheck.catalogue.denoising import bernoulli
from boundcheck.catalogue.objectives import (
    denoising_coupled,
    denoising_decoupled,
    hvm_prior,
    log_evidence,
    marginal_elbo,
    sivi,
    sivi_without,
)
from boundcheck.claims.check import ModelCheck, check_model
from boundcheck.errors import BadInput, require
from boundcheck.evaluators.strongest import evaluate
from boundcheck.evaluators.values import Value
from boundcheck.language.build import Formula, trace
from boundcheck.models.finite import FiniteModel
from boundcheck.search.files import written_whole

if TYPE_CHECKING:
    import sympy

SHARPNESS = Fraction(9, 10)
"""q(z=1|x~=0) in the blog."""

OBJECTIVES: dict[str, Formula] = {
    "log p(x)": log_evidence,
    "ELBO of q~": marginal_elbo,
    "L, decoupled": denoising_decoupled,
    "L, coupled": denoising_coupled,
    "SIVI_1 without x~_0": partial(sivi_without, k=1),
    "SIVI_0": partial(sivi, k=0),
    "HVM with r = c": hvm_prior,
}

SANDWICH = {
    "decoupled": ("denoising-decoupled-below-evidence", "denoising-decoupled-above-marginal-elbo"),
    "coupled": ("denoising-coupled-below-evidence", "denoising-coupled-above-marginal-elbo"),
}
"""For each reading the claims log p(x) >= L and L >= ELBO of q~."""

IDENTITIES = ("sivi-without-one-is-decoupled", "sivi-zero-is-coupled", "hvm-prior-is-coupled")

CURVE = tuple(1 - Fraction(digit, 10**power) for power in range(1, 7) for digit in (5, 3, 2, 1))
"""Values of s, from 1/2 towards 1, evenly spread in log(1 - s)."""


@dataclass(frozen=True)
class ClosedForm:
    """A quantity as a function of s, derived by sympy from the formula, and its limit for s -> 1."""

    expression: sympy.Expr
    limit: sympy.Expr

    def to_json(self) -> dict[str, str]:
        """JSON-ready: what sympy can parse again."""
        return {"expression": str(self.expression), "limit as s -> 1": str(self.limit)}


@dataclass(frozen=True)
class Reproduction:
    """The counterexample, computed: see `reproduce`."""

    model: FiniteModel
    values: dict[str, Value]
    sandwich: dict[str, tuple[ModelCheck, ModelCheck]]
    identities: tuple[ModelCheck, ...]
    closed_forms: dict[str, ClosedForm]
    curve: dict[str, list[tuple[Fraction, Value]]] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "reproduces": "D. Tran and R. Ranganath (blog, December 2015), on Im et al. (2015), arXiv:1511.06406",
            "model": self.model.to_json(),
            "x": 0,
            "values": {
                name: {"formula": trace(OBJECTIVES[name]).text, **value.to_json()}
                for name, value in self.values.items()
            },
            "sandwich": {reading: [found.to_json() for found in checks] for reading, checks in self.sandwich.items()},
            "identities": [found.to_json() for found in self.identities],
            "closed_forms": {name: form.to_json() for name, form in self.closed_forms.items()},
            "curve": {
                name: [{"s": str(s), **value.to_json()} for s, value in points] for name, points in self.curve.items()
            },
        }


def reproduce() -> Reproduction:
    """Compute the counterexample: its values, which halves of the sandwich hold, its closed forms and its curve.

    >>> found = reproduce()
    >>> print(found.values["L, decoupled"], round(float(found.values["L, coupled"]), 6))
    log(5/3) -0.368064
    >>> [check.verdict.outcome.value for check in found.sandwich["decoupled"]]
    ['violated', 'holds']
    >>> [check.verdict.outcome.value for check in found.sandwich["coupled"]]
    ['holds', 'violated']
    """
    model = bernoulli(str(SHARPNESS))
    drawn = ("L, decoupled", "L, coupled", "ELBO of q~")
    return Reproduction(
        model=model,
        values={name: evaluate(formula, model) for name, formula in OBJECTIVES.items()},
        sandwich={
            reading: (check_model(find(below), model), check_model(find(above), model))
            for reading, (below, above) in SANDWICH.items()
        },
        identities=tuple(check_model(find(name), model) for name in IDENTITIES),
        closed_forms={name: closed_form(OBJECTIVES[name]) for name in ("log p(x)", *drawn)},
        curve={name: explosion(OBJECTIVES[name]) for name in drawn},
    )


def closed_form(formula: Formula) -> ClosedForm:
    """The formula's value on the counterexample as a function of s in (0, 1), and its limit for s -> 1.

    >>> closed_form(denoising_decoupled)
    ClosedForm(expression=-log(s)/2 - log(1 - s)/2 - log(2), limit=oo)
    """
    import sympy

    from boundcheck.reproduce.symbolic import symbolic_value

    s, half = sympy.Symbol("s", positive=True), sympy.Rational(1, 2)
    tables = {
        "joint": [[half, half]],
        "corruption": [[half, half]],
        "encoder": [[1 - s, s], [s, 1 - s]],
    }
    expression = sympy.expand(symbolic_value(formula, tables, {"x": 1, "z": 2, "x~": 2}))
    return ClosedForm(expression, sympy.limit(expression, s, 1, "-"))


def explosion(formula: Formula, sharpness: Sequence[Fraction] = CURVE) -> list[tuple[Fraction, Value]]:
    """The formula's value at each s, exactly."""
    return [(s, evaluate(formula, bernoulli(str(s)))) for s in sharpness]


def plot(found: Reproduction, path: str | Path) -> None:
    """Draw both readings against 1 - s, with log p(x) and the ELBO of q~, into an image file.

    Raises:
        BadInput: a file that cannot be written, or whose suffix names no image format.
        MissingExtra: matplotlib is not installed.
    """
    figure_module = require("matplotlib.figure", extra="plot", feature="--plot")
    figure = figure_module.Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, colour, marker, form in (
        ("L, decoupled", "#c1272d", "o", "-log(4 s (1-s)) / 2, without limit"),
        ("L, coupled", "#0072b2", "s", "H(s) - log 2, H the entropy"),
    ):
        points = [(float(1 - s), float(value)) for s, value in found.curve[name]]
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3.5, label=f"{name}: {form}")
    axes.axhline(0, color="black", linewidth=1.2, label="log p(x) and the ELBO of q~: 0")
    at = float(1 - SHARPNESS)
    for name, shift, side in (("L, decoupled", (9, -6), "left"), ("L, coupled", (-2, -17), "right")):
        value = found.values[name]
        axes.plot([at], [float(value)], "o", markersize=9, markerfacecolor="none", color="black")
        exact = f"{value} = " if len(str(value)) < 12 else ""
        axes.annotate(f"{exact}{float(value):.4f}", (at, float(value)), shift, textcoords="offset points", ha=side)
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xticks([0.5, *(10.0**-k for k in range(1, 7))], ["1/2", *(f"0.{'9' * k}" for k in range(1, 7))])
    axes.minorticks_off()
    axes.set_xlabel("s = q(z=1|x~=0) = q(z=0|x~=1), spaced by log(1 - s)")
    axes.set_ylabel("nats")
    axes.set_title("Decoupled, the denoising objective explodes; coupled, it sinks below the ELBO", fontsize=10.5)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    save_figure(figure, path)


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a figure, whole or not at all, in the format that the file's suffix names.

    Raises:
        BadInput: a file that cannot be written, or whose suffix names no image format.
    """
    suffix = Path(path).suffix[1:].lower() or "png"
    known: Callable[[], dict[str, str]] = figure.canvas.get_supported_filetypes
    if suffix not in known():
        raise BadInput("--plot", str(path), f"a file name that ends in one of {', '.join(sorted(known()))}")
    with written_whole(path, "--plot") as temporary:
        figure.savefig(temporary, format=suffix, dpi=150)


__all__ = ["CURVE", "OBJECTIVES", "SHARPNESS", "ClosedForm", "Reproduction", "closed_form", "plot", "reproduce"]
