"""After a run: which iterations lay outside the box of their calibration, and for how much of the time.

The loop stays free of it: the iteration table holds every sum a box can bound, so that all of a run is
checked at once, a column at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from llmsim.costs.box import Box
    from llmsim.costs.records import Calibration


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


@dataclass(slots=True)
class _Side:
    """What lay beyond one side of one range so far."""

    iterations: int = 0
    ns: int = 0
    worst: int | None = None
    first: tuple[int, int] | None = None


class RangeTally:
    """Iterations held against a box, a part of the table at a time, each iteration once."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.iterations = 0
        self.outside = 0
        """Iterations that left any range."""
        self._busy_ns = 0
        self._sides = {(item.quantity, side): _Side() for item in box.ranges for side in ("below", "above")}

    def add(self, iterations: pd.DataFrame) -> None:
        """Further rows of the iteration table, sorted by replica and iteration."""
        durations = (iterations["end_ns"] - iterations["start_ns"]).to_numpy()
        self.iterations += len(iterations)
        self._busy_ns += int(durations.sum())
        anywhere = np.zeros(len(iterations), dtype=bool)
        for item in self.box.ranges:
            values = _column(iterations, item.quantity)
            for side, mask in (("below", (values > 0) & (values < item.low)), ("above", values > item.high)):
                if mask.any():
                    anywhere |= mask
                    self._add_side(self._sides[item.quantity, side], side, mask, values, durations, iterations)
        self.outside += int(anywhere.sum())

    @staticmethod
    def _add_side(
        seen: _Side,
        side: str,
        mask: NDArray[np.bool_],
        values: NDArray[np.int64],
        durations: NDArray[np.int64],
        iterations: pd.DataFrame,
    ) -> None:
        seen.iterations += int(mask.sum())
        seen.ns += int(durations[mask].sum())
        farthest = max if side == "above" else min
        worst = int(values[mask].max() if side == "above" else values[mask].min())
        seen.worst = worst if seen.worst is None else farthest(seen.worst, worst)
        at = int(mask.argmax())
        first = int(iterations["replica"].iloc[at]), int(iterations["iteration"].iloc[at])
        seen.first = first if seen.first is None else min(seen.first, first)

    def violations(self) -> list[RangeViolation]:
        """Every side of every range that iterations left, in the order of the box."""
        found = []
        for item in self.box.ranges:
            for side in ("below", "above"):
                seen = self._sides[item.quantity, side]
                if seen.worst is None or seen.first is None:
                    continue
                violation = RangeViolation(
                    quantity=item.quantity,
                    low=item.low,
                    high=item.high,
                    side=side,
                    iterations=seen.iterations,
                    share_of_iterations=seen.iterations / self.iterations,
                    share_of_time=seen.ns / self._busy_ns if self._busy_ns else 0.0,
                    worst=seen.worst,
                    replica=seen.first[0],
                    iteration=seen.first[1],
                )
                found.append(violation)
        return found


def check_ranges(box: Box, iterations: pd.DataFrame) -> list[RangeViolation]:
    """Every side of every range of `box` that rows of the iteration table leave, in the order of the box."""
    tally = RangeTally(box)
    tally.add(iterations)
    return tally.violations()


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


class ClusterRanges:
    """Iterations of a cluster against the boxes of its calibrations, given that of each replica."""

    def __init__(self, of_replica: Sequence[Calibration]) -> None:
        self._calibrations = {calibration.name: calibration for calibration in reversed(of_replica)}
        names = list(dict.fromkeys(calibration.name for calibration in of_replica))
        self._tallies = {name: RangeTally(self._calibrations[name].box) for name in names}
        self._which = np.array([names.index(calibration.name) for calibration in of_replica])

    def add(self, iterations: pd.DataFrame) -> None:
        """Further rows of the iteration table, sorted by replica and iteration."""
        if len(self._tallies) == 1:
            next(iter(self._tallies.values())).add(iterations)
            return
        which = self._which[iterations["replica"].to_numpy()]
        for at, tally in enumerate(self._tallies.values()):
            tally.add(iterations[which == at])

    def reports(self) -> list[dict[str, Any]]:
        """One for each calibration: how much of the run lay outside what it was measured on: counts, shares, worst."""
        return [
            {
                "name": name,
                "iterations_outside_box": tally.outside,
                "share_outside_box": round(tally.outside / tally.iterations, 6) if tally.iterations else 0.0,
                "violations": [violation.as_dict() for violation in tally.violations()],
                "unbounded": list(tally.box.unbounded),
            }
            for name, tally in self._tallies.items()
        ]
