"""After a run: which iterations lay outside the box of their calibration, and for how much of the time.

The loop stays free of it: the iteration table holds every sum a box can bound, so that all of a run is
checked at once, a column at a time.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from llmsim.costs.box import Box, Range


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeViolation:
    """One side of one range that a run left.

    share_of_iterations and share_of_time are of all iterations of the run and of their summed durations
    (busy time, not wall time); worst is the value farthest outside; replica and iteration are of the first
    violation in table order.
    """

    quantity: str
    low: int
    high: int
    side: str
    iterations: int
    share_of_iterations: float
    share_of_time: float
    worst: int
    replica: int
    iteration: int

    def __str__(self) -> str:
        """One line for a warning."""
        return (
            f"{self.quantity} {self.side} the profiled range {self.low}-{self.high} in"
            f" {self.iterations} iterations ({self.share_of_iterations:.1%},"
            f" {self.share_of_time:.1%} of busy time); worst {self.worst},"
            f" first at iteration {self.iteration} of replica {self.replica}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types, for the summary of a run."""
        return asdict(self)


def check_ranges(box: Box, iterations: pd.DataFrame) -> list[RangeViolation]:
    """Every side of every range of `box` that rows of the iteration table leave, in the order of the box."""
    if iterations.empty:
        return []
    durations = (iterations["end_ns"] - iterations["start_ns"]).to_numpy()
    found = []
    for item in box.ranges:
        values = _column(iterations, item.quantity)
        below = (values > 0) & (values < item.low)
        above = values > item.high
        for side, mask in (("below", below), ("above", above)):
            if mask.any():
                found.append(_violation(item, side, mask, values, durations, iterations))
    return found


def outside_box(box: Box, iterations: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows of the iteration table leave any range of `box`, shape (rows,)."""
    mask = np.zeros(len(iterations), dtype=bool)
    for item in box.ranges:
        values = _column(iterations, item.quantity)
        mask |= (values > item.high) | ((values > 0) & (values < item.low))
    return mask


def _column(iterations: pd.DataFrame, quantity: str) -> NDArray[np.int64]:
    """The sum `quantity` of each iteration; two of them are sums of columns."""
    parts = {"tokens": ("prefill_tokens", "decode_tokens"), "sequences": ("prefill_seqs", "decode_tokens")}
    names = parts.get(quantity, (quantity,))
    total = np.zeros(len(iterations), dtype=np.int64)
    for name in names:
        total += iterations[name].to_numpy(dtype=np.int64)
    return total


def _violation(
    item: Range,
    side: str,
    mask: NDArray[np.bool_],
    values: NDArray[np.int64],
    durations: NDArray[np.int64],
    iterations: pd.DataFrame,
) -> RangeViolation:
    """The report of the iterations in `mask`, which holds at least one."""
    busy = int(durations.sum())
    first = int(mask.argmax())
    worst = values[mask].max() if side == "above" else values[mask].min()
    return RangeViolation(
        quantity=item.quantity,
        low=item.low,
        high=item.high,
        side=side,
        iterations=int(mask.sum()),
        share_of_iterations=float(mask.mean()),
        share_of_time=float(durations[mask].sum() / busy) if busy else 0.0,
        worst=int(worst),
        replica=int(iterations["replica"].iloc[first]),
        iteration=int(iterations["iteration"].iloc[first]),
    )
