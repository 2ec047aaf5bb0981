"""Executor: runs batches (predicted, recorded or for real) and says when each iteration ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmsim.core.batch import Batch


class Executor(ABC):
    """One replica's device. The loop never knows which kind it drives."""

    @abstractmethod
    def execute(self, batch: Batch, start_ns: int, iterations: int) -> Sequence[int]:
        """Absolute end times (int ns, strictly increasing) of the iterations it ran from `start_ns`.

        At least one and at most `iterations`. A batch that repeats has each decode one token longer every time
        and, if it has a prefill chunk (then only one), that chunk one further on in its prompt.
        Ends, not durations: the gap between an end and the next start is then part of the measurement, not lost.
        """

    def wake(self, now: int) -> None:  # noqa: B027  # a hook
        """Hook: the replica was idle and has been woken at `now`. A real device starts its stopwatch here."""

    def truncate(self, ends: Sequence[int], now: int) -> Sequence[int]:
        """The ends up to the first at or after `now`: the iteration in flight completes, the rest never ran."""
        return ends[: bisect_left(ends, now) + 1]
