"""The enclosure evaluator for continuous models: certified integration over one latent variable.

A formula is walked once for each point of the finite laws in it (`integration_walk`), and an expectation over z turns
its body into a sum of exp(form) times forms (`integration_sums`, `integration_forms`), whose integrals are enclosed by
`integration_rules`. What has no proven bound is refused, with the law named: numerical quadrature may still estimate
it. Here the precision grows until the enclosure is as narrow as was asked.
"""

from __future__ import annotations

import math
from typing import Any

import flint
from flint import arb, fmpq

from boundcheck.errors import BadInput, CannotCompute, UndefinedValue
from boundcheck.evaluators.integration_numbers import Unbounded
from boundcheck.evaluators.integration_sums import NAME
from boundcheck.evaluators.integration_symbols import Symbol, as_symbol, exact
from boundcheck.evaluators.integration_walk import Walk
from boundcheck.evaluators.values import Enclosure
from boundcheck.language.build import Formula, trace
from boundcheck.language.terms import Term
from boundcheck.models.continuous import ContinuousModel


def evaluate(
    formula: Formula | Term,
    model: ContinuousModel,
    x: Any,
    *,
    precision: int | None = None,
    digits: int = 15,
    **parameters: Any,
) -> Enclosure:
    """An interval that contains the value of a formula on a model with one continuous latent variable, in nats.

    Args:
        formula: a function of (m, x, **parameters), or a term.
        model: the model; its functions are called with exact numbers and with a symbol in place of z.
        x: the observation, a number or a tuple of numbers.
        precision: bits after the binary point that the interval shall pin down; the interval shrinks as it grows.
            If given, it takes the place of `digits`.
        digits: decimals that the interval shall pin down. Both are aims: what is returned always contains the value.
        **parameters: the formula's own.

    Returns:
        The enclosure. An expectation of positive terms that diverges for sure is +inf exactly.

    Raises:
        CannotCompute: no certified tail is known for a law, a function of z is not affine where its growth matters,
            or the formula integrates over more than one continuous variable; the message names the law.
        UndefinedValue: inf - inf.
        BadInput: an observation outside the support of a likelihood, or a law that the model lacks.

    >>> from boundcheck.catalogue.objectives import elbo, log_evidence
    >>> from boundcheck.models.densities import BernoulliLogit, Normal
    >>> model = ContinuousModel(
    ...     prior=Normal(0, 1),
    ...     likelihood=lambda z: [BernoulliLogit(z - b) for b in (-1, 0, 1)],
    ...     encoder=lambda x: Normal(0.5 * sum(x) - 0.7, 0.8),
    ... )
    >>> print(evaluate(log_evidence, model, (1, 0, 1)))
    [-2.48048585226 +/- 1.73e-12]
    >>> print(evaluate(elbo, model, (1, 0, 1)))
    [-2.48083230713 +/- 1.62e-12]
    """
    term = trace(formula, **parameters)
    aim = digits * math.log2(10) if precision is None else float(precision)
    if not 1 <= aim <= 4096:
        raise BadInput("precision", precision or digits, "1 to 4096 bits", "64 bits are about 19 digits")
    bits = math.ceil(aim) + 3
    best: arb | None = None
    for attempt in range(4):
        with flint.ctx.workprec(bits + 40):
            try:
                value = Walk(model, _observation(x), bits).number(term)
                ball = arb(value)
            except Unbounded as reason:
                if best is not None:
                    break
                if attempt == 3 or "precision" not in str(reason):
                    raise CannotCompute(NAME, term.text, f"{reason}; quadrature can estimate it") from None
                bits += bits
                continue
        if ball.is_nan():
            raise UndefinedValue(term.text, f"x = {x}")
        if best is None or ball.rad() < best.rad() or not best.is_finite():
            best = ball
        if not ball.is_finite() and ball.rad() == 0:
            break
        if ball.is_finite() and ball.rad() * arb(2) ** math.floor(aim) <= (1 + abs(ball) / 1024):
            break
        bits += max(16, bits // 2) if attempt else 12
    assert best is not None
    return Enclosure(best)


def _observation(x: Any) -> Any:
    if isinstance(x, str | bytes) or not hasattr(x, "__len__") or (hasattr(x, "shape") and x.shape == ()):
        return as_symbol(x)
    if len(x) == 0:
        raise BadInput("x", x, "at least one number")
    return tuple(Symbol(exact(each, "x"), fmpq(0)) for each in x)
