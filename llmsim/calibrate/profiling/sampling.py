"""Points that fill a box evenly: where the default plan puts its cases.

Cases are spread over the logarithm of each size, since batch times are fitted by relative error and one sequence is to
two what 256 are to 512. The points are an additive recurrence (Roberts' R sequence: steps of powers of the generalised
golden ratio, modulo 1), of which every beginning fills the box too, so that a shortened plan keeps its cover.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def spread_points(count: int, dimensions: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points in [0, 1), shape (count, dimensions), shifted as a whole by `rng`."""
    ratio = 2.0
    for _ in range(60):  # the root above 1 of x^(dimensions + 1) = x + 1
        ratio = (1.0 + ratio) ** (1.0 / (dimensions + 1))
    steps = ratio ** -np.arange(1.0, dimensions + 1)
    return np.asarray((rng.random(dimensions) + np.arange(count)[:, None] * steps) % 1.0, dtype=np.float64)


def log_between(low: int, high: int, at: float) -> int:
    """The whole number that lies the share `at` of the way from `low` to `high` on a logarithmic scale.

    `low` may be 0, from which one step leads to 1; `high` below `low` counts as `low`.
    """
    if high <= low:
        return low
    start = low + (low == 0)
    value = round(math.exp(math.log(start - 0.5) + at * (math.log(high + 0.5) - math.log(start - 0.5))))
    return min(max(value, start), high)


def uneven(total: int, parts: int, rng: np.random.Generator) -> list[int]:
    """`total` split into `parts` whole numbers above 0 that differ; needs total >= parts."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1
    return [int(part) for part in np.diff(np.concatenate([[0], cuts, [total]]))]
