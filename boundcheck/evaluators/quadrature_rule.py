"""The pair of rules on a panel, and what tells that a panel is not smooth although the two agree.

The 21-point Kronrod rule and the 10-point Gauss rule inside it (Piessens et al. 1983) differ by the error of the
poorer one, as long as the integrand is smooth. A jump or a kink breaks that twice. Inside a panel the rules may agree
by chance: then the high Legendre coefficients do not fall, and several in a row are not all small by chance. Between
the outermost node and the end of a panel no rule sees it: then what one panel says of the common end is not what the
next one says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from boundcheck.evaluators.quadrature_lines import EPSILON, Array, Index

_HALF_NODES = [
    0.995657163025808080735527280689003, 0.973906528517171720077964012084452, 0.930157491355708226001207180059508,
    0.865063366688984510732096688423493, 0.780817726586416897063717578345042, 0.679409568299024406234327365114874,
    0.562757134668604683339000099272694, 0.433395394129247190799265943165784, 0.294392862701460198131126603103866,
    0.148874338981631210884826001129720,
]  # fmt: skip
_HALF_KRONROD = [
    0.011694638867371874278064396062192, 0.032558162307964727478818972459390, 0.054755896574351996031381300244580,
    0.075039674810919952767043140916190, 0.093125454583697605535065465083366, 0.109387158802297641899210590325805,
    0.123491976262065851077958109585166, 0.134709217311473325928054001771707, 0.142775938577060080797094273138717,
    0.147739104901338491374841515972068,
]  # fmt: skip
_HALF_GAUSS = [
    0.0, 0.066671344308688137593568809893332, 0.0, 0.149451349150580593145863396957698, 0.0,
    0.219086362515982043995534934228163, 0.0, 0.269266719309996355091226921569469, 0.0,
    0.295524224714752870173815619188769,
]  # fmt: skip
NODES = np.array([*(-n for n in _HALF_NODES), 0.0, *reversed(_HALF_NODES)])
KRONROD = np.array([*_HALF_KRONROD, 0.149445554002916905664936468389821, *reversed(_HALF_KRONROD)])
GAUSS = np.array([*_HALF_GAUSS, 0.0, *reversed(_HALF_GAUSS)])

_LEGENDRE = np.polynomial.legendre.legvander(NODES, 20)
_COEFFICIENTS = (_LEGENDRE * (np.arange(21) + 0.5) * KRONROD[:, None]).T
_MIDDLE_AND_HIGH = np.concatenate([_COEFFICIENTS[9:13], _COEFFICIENTS[17:21]])
_NOT_FALLING = 0.005

_UNSEEN = 1 - NODES[-1]
"""Of half a panel, what lies between the outermost node and the end."""


def _at_ends() -> tuple[Array, Array]:
    """What gives the interpolant's value, slope and curvature at the left and at the right end, from the 21 values."""
    inverse, n = np.linalg.inv(_LEGENDRE), np.arange(21.0)
    one, slope = np.ones(21), n * (n + 1) / 2
    curvature = (n - 1) * n * (n + 1) * (n + 2) / 8
    sign = (-1.0) ** n
    right = np.stack([one, slope, curvature])
    left = np.stack([sign, -sign * slope, sign * curvature])
    return left @ inverse, right @ inverse


_AT_ENDS = np.concatenate(_at_ends())
_AMPLIFIED = np.abs(_AT_ENDS[3:]).sum(axis=1)


def roughness(values: Array) -> Array:
    """The largest of the high Legendre coefficients of panels in which they do not fall, 0 for the others."""
    sizes = np.abs(_MIDDLE_AND_HIGH @ values.T)
    middle, high = sizes[:4].max(axis=0), sizes[4:].max(axis=0)
    return np.where(high > _NOT_FALLING * middle, high, 0.0)


def at_ends(values: Array, half: Array, uncertain: tuple[Array, Array]) -> tuple[Array, Array, Array]:
    """Value, slope and curvature at the left and at the right ends, and how far errors of the values move these.

    Args:
        values: at the nodes of each panel.
        half: half of the widths of the panels.
        uncertain: the error of the values in each panel, relative to the largest of them, and what is added.
    """
    powers = np.stack([np.ones_like(half), half, half * half])
    noise = np.abs(values.T).max(axis=0) * uncertain[0] + uncertain[1]
    both = _AT_ENDS @ values.T
    return (both[:3] / powers).T, (both[3:] / powers).T, (noise * _AMPLIFIED[:, None] / powers).T


@dataclass(frozen=True)
class Ends:
    """Panels with what each says of its ends, in its own scale exp(scale), and the error that it knows of."""

    entry: Index
    low: Array
    high: Array
    scale: Array
    left: Array
    right: Array
    noise: Array
    difference: Array


def seams(panels: Ends, known: Array) -> Array:
    """For each panel, in its own scale, the error of a jump or a kink that hides next to an end of it.

    What two neighbours say of their common end differs by so much per unit of length, over the length that the nodes
    of neither see. Beside a panel of no weight the integrand should be zero. At a `known` place of an integral, a kink
    or a bound, anything may happen. What does not exceed the error that a panel knows of is that error's own doing.
    """
    count = len(panels.entry)
    if not count:
        return np.zeros(0)
    order = np.arange(count)
    steps = np.diff(panels.entry)
    if not ((steps > 0) | ((steps == 0) & (np.diff(panels.low) >= 0))).all():
        order = np.lexsort((panels.low, panels.entry))
    a, b = order[:-1], order[1:]
    wide = panels.high - panels.low
    gap = panels.low[b] - panels.high[a]
    joined = (panels.entry[a] == panels.entry[b]) & (gap <= _near(panels.low[b], np.minimum(wide[a], wide[b])))
    none = np.array([count])  # the number of a panel of no weight, beside which the others end
    alone_right, alone_left = np.append(a[~joined], order[-1]), np.append(order[0], b[~joined])
    first = np.concatenate([a[joined], alone_right, np.repeat(none, len(alone_left))])
    second = np.concatenate([b[joined], np.repeat(none, len(alone_right)), alone_left])
    owner = np.where(first < count, first, second)
    place = np.where(first < count, _with(panels.high, 0.0)[first], _with(panels.low, 0.0)[second])
    free, near, of = np.ones(len(place), dtype=bool), _near(place, wide[owner]), panels.entry[owner]
    for column in known.T:
        if np.isfinite(column).any():
            free &= ~(np.abs(column[of] - place) <= near)
    first, second = first[free], second[free]
    scale, difference = _with(panels.scale, -np.inf), _with(panels.difference, 0.0)
    width = _with(wide, 0.0)
    top = np.maximum(scale[first], scale[second])
    factors = np.exp(scale[first] - top), np.exp(scale[second] - top)
    unseen = _UNSEEN / 2 * np.maximum(width[first], width[second])
    missed, power = np.zeros(len(first)), np.ones(len(first))
    for k in range(3):
        left, right, noise = (_with(each[:, k], 0.0) for each in (panels.left, panels.right, panels.noise))
        apart = np.abs(right[first] * factors[0] - left[second] * factors[1])
        apart -= noise[first] * factors[0] + noise[second] * factors[1]
        power *= unseen
        missed += np.maximum(apart, 0.0) * power
    owned = np.maximum(difference[first] * factors[0], difference[second] * factors[1])
    missed = np.where(np.isfinite(missed) & (missed > owned), missed, 0.0)  # one without values is lost anyway
    found = np.zeros(count + 1)
    for side, factor in ((first, factors[0]), (second, factors[1])):
        np.maximum.at(found, side, missed / np.maximum(factor, 1e-300))
    return found[:count]


def _near(place: Array, width: Array) -> Array:
    """How close counts as the same place: between may be a panel that was left out for being so narrow."""
    return np.maximum(4 * EPSILON * np.abs(place), 0.01 * _UNSEEN * width)


def _with(values: Array, last: float) -> Array:
    """The values of panels, and one for no panel."""
    return np.concatenate([values, np.full((1, *values.shape[1:]), last)])


__all__ = ["GAUSS", "KRONROD", "NODES", "Ends", "at_ends", "roughness", "seams"]
