"""What lies beyond the outermost points of an integral: bounded by a measured exponent, or seen to diverge.

A tail |integrand| ~ radius^-s is measured on radii that grow by factors of 4: its mass is that of the last of them
over the exponent of decay. One that clearly rises makes the integral infinite; one that does neither is undecided.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boundcheck.evaluators.quadrature_lines import Array, Integrand, Lines

_RADIX = float(np.log(4.0))


def tails(
    call: Integrand, points: Array, magnitude: Array, mass: Array, lines: Lines, tolerance: float, far: bool
) -> tuple[NDArray[np.bool_], Array, Array, NDArray[np.bool_]]:
    """What lies beyond the last points: (look further, log of a bound, sign if infinite, undecided)."""
    count = len(points)
    further = np.zeros(count, dtype=bool)
    undecided = np.zeros(count, dtype=bool)
    bound = np.full(count, -np.inf)
    infinite = np.zeros(count)
    center = lines.centers[:, 0]
    rows = np.arange(count)
    for side, end in ((-1, lines.lower), (1, lines.upper)):
        outer = points[:, 0] if side < 0 else points[:, -1]
        radius = np.abs(outer - center)
        size = (magnitude[:, 0] if side < 0 else magnitude[:, -1]) + np.log(radius)
        open_end = np.isinf(end)
        heavy = open_end & (size > mass + np.log(tolerance) - 6.0)
        bound = np.where(open_end, np.logaddexp(bound, size), bound)
        if not heavy.any():
            continue
        if not far:
            further |= heavy
            continue
        chosen = rows[heavy]
        radii = radius[heavy][:, None] * 4.0 ** np.arange(-8.0, 1.0)
        nodes = center[heavy][:, None] + side * radii
        sample = call(np.repeat(chosen, 9), nodes.ravel(), True)
        trend = (sample.magnitude().reshape(nodes.shape) + np.log(radii)) / 1.0
        noise = np.broadcast_to(sample.log_weight_error, sample.log_weight.shape).reshape(nodes.shape).max(axis=1)
        slopes = np.diff(trend, axis=1) / _RADIX
        sure = (noise < 0.01) | (slopes.min(axis=1) * _RADIX > 4 * noise)
        falling = np.isfinite(slopes).all(axis=1) & (slopes.max(axis=1) < -1e-3) & (noise < 0.01)
        rising = ((slopes.min(axis=1) > 1e-3) | np.isposinf(trend).any(axis=1)) & sure
        decay = np.where(falling, -slopes.max(axis=1), 1.0)
        bound[chosen] = np.logaddexp(bound[chosen], trend[:, -1] - np.log(decay))
        value = np.ones(nodes.size) if sample.value is None else np.sign(sample.value)
        signs = value.reshape(nodes.shape)
        one_sign = (signs == signs[:, :1]).all(axis=1)
        clear = rising & one_sign
        opposite = clear & (infinite[chosen] * signs[:, -1] < 0)
        undecided[chosen] |= ~(falling | clear) | opposite
        infinite[chosen] = np.where(clear, signs[:, -1], infinite[chosen])
    return further, bound, infinite, undecided
