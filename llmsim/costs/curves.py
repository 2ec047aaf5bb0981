"""Tables of seconds with one and two arguments, read as whole femtoseconds: `Curve` and `Surface`.

Both interpolate linearly. What is asked for once is kept, since a run asks for the same few counts again and again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from llmsim.errors import CalibrationError
from llmsim.units import FS_PER_SECOND


class Curve:
    """Seconds at points of one whole-number argument. Below the first point its value holds; beyond the last the
    line through the last two goes on, never below the last value."""

    __slots__ = ("_at", "_known", "_seconds")

    def __init__(self, at: Sequence[int], seconds: Sequence[float]) -> None:
        check_points("at", at)
        if len(at) != len(seconds):
            raise CalibrationError(f"a table has {len(at)} points but {len(seconds)} values")
        check_seconds(seconds)
        self._at, self._seconds = list(at), list(seconds)
        self._known: dict[int, int] = {}

    @classmethod
    def zero(cls) -> Curve:
        """Nothing, for every argument."""
        return cls([0], [0.0])

    def femtoseconds(self, point: int) -> int:
        """The value at `point`."""
        known = self._known.get(point)
        if known is None:
            known = self._known[point] = round(self.seconds(point) * FS_PER_SECOND)
        return known

    def seconds(self, point: float) -> float:
        """The value at `point`, which may lie between whole numbers."""
        at, seconds = self._at, self._seconds
        if point <= at[0] or len(at) == 1:
            return seconds[0]
        if point > at[-1]:
            slope = (seconds[-1] - seconds[-2]) / (at[-1] - at[-2])
            return seconds[-1] + max(0.0, slope) * (point - at[-1])
        right = bisect_left(at, point)
        share = (point - at[right - 1]) / (at[right] - at[right - 1])
        return seconds[right - 1] + share * (seconds[right] - seconds[right - 1])

    def __repr__(self) -> str:
        return f"Curve({len(self._at)} points, {self._at[0]} to {self._at[-1]})"


class Surface:
    """Seconds by number of sequences (rows) and mean context in tokens (columns), linear in both between points.

    For a given number of sequences the price is a line in the sum of contexts on each stretch between columns, in
    whole femtoseconds, so prices of runs of decodes are exact.
    """

    __slots__ = ("_context", "_lines", "_rows", "_sequences")

    def __init__(self, sequences: Sequence[int], context: Sequence[int], seconds: Sequence[Sequence[float]]) -> None:
        check_points("sequences", sequences)
        check_points("context", context)
        if len(context) < 2 or len(seconds) != len(sequences) or any(len(row) != len(context) for row in seconds):
            raise CalibrationError(
                f"a table of {len(sequences)} x {len(context)} points needs as many values, and two contexts or more"
            )
        for row in seconds:
            check_seconds(row)
        self._sequences, self._context = list(sequences), list(context)
        self._rows = [list(row) for row in seconds]
        self._lines: dict[int, tuple[list[int], list[tuple[int, int]]]] = {}

    @classmethod
    def zero(cls) -> Surface:
        """Nothing, for every argument."""
        return cls([1], [0, 1], [[0.0, 0.0]])

    def line(self, sequences: int, context: int) -> tuple[int, int]:
        """(intercept fs, slope fs per token) of the stretch that holds a sum of `context` tokens."""
        known = self._lines.get(sequences)
        bounds, lines = known if known is not None else self._prepare(sequences)
        return lines[bisect_left(bounds, context)]

    def steepest(self, sequences: int, context: int) -> int:
        """The greatest slope from a sum of `context` tokens on, fs per token."""
        known = self._lines.get(sequences)
        bounds, lines = known if known is not None else self._prepare(sequences)
        return max(slope for _, slope in lines[bisect_left(bounds, context) :])

    def room(self, sequences: int, context: int) -> int | None:
        """Tokens by which a sum of `context` may grow on its stretch; None on the last, which never ends."""
        known = self._lines.get(sequences)
        bounds = (known if known is not None else self._prepare(sequences))[0]
        at = bisect_left(bounds, context)
        return bounds[at] - context if at < len(bounds) else None

    def _prepare(self, sequences: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Upper ends (sums of contexts) of all stretches but the last, and the line of each; neighbours meet there."""
        row, columns = self._row(sequences), self._context
        bounds = [sequences * context for context in columns[1:-1]]
        lines: list[tuple[int, int]] = []
        for left in range(len(columns) - 1):
            slope = max(0.0, (row[left + 1] - row[left]) / (columns[left + 1] - columns[left])) / sequences
            rate = round(slope * FS_PER_SECOND)
            if lines:
                start, before = lines[-1]
                lines.append((start + (before - rate) * bounds[left - 1], rate))
            else:
                intercept = row[left + 1] - slope * sequences * columns[left + 1]
                lines.append((round(intercept * FS_PER_SECOND), rate))
        if not bounds:
            bounds, lines = [0], [lines[0], lines[0]]
        self._lines[sequences] = bounds, lines
        return bounds, lines

    def _row(self, sequences: int) -> list[float]:
        """Seconds by column for this many sequences."""
        columns = range(len(self._context))
        if len(self._sequences) == 1:
            return [self._rows[0][i] * sequences / self._sequences[0] for i in columns]
        curves = (Curve(self._sequences, [row[i] for row in self._rows]) for i in columns)
        return [curve.seconds(sequences) for curve in curves]

    def __repr__(self) -> str:
        return f"Surface({len(self._sequences)} x {len(self._context)} points)"


def check_points(name: str, points: Sequence[int]) -> None:
    """Raise CalibrationError unless the points are whole numbers of 0 or more that rise."""
    whole = all(isinstance(point, int) and not isinstance(point, bool) and point >= 0 for point in points)
    if not points or not whole or any(a >= b for a, b in pairwise(points)):
        raise CalibrationError(f"the points {name!r} of a table must be whole numbers that rise but are {list(points)}")


def check_seconds(seconds: Sequence[float]) -> None:
    """Raise CalibrationError unless all are finite and at least 0."""
    wrong = [value for value in seconds if not 0 <= value * FS_PER_SECOND < float("inf")]
    if wrong:
        raise CalibrationError(f"values of a table are seconds of at least 0 but hold {wrong[0]!r}")
