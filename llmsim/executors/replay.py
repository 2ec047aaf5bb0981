"""ReplayExecutor: the end times of a recorded run, so that its decisions can be repeated on any machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from llmsim.errors import StalledError
from llmsim.executors.base import Executor

if TYPE_CHECKING:
    from llmsim.core.batch import Batch


class ReplayExecutor(Executor):
    """Hands out recorded absolute end times (int ns), one iteration a call."""

    def __init__(self, ends_ns: Iterable[int]) -> None:
        self._ends = iter(ends_ns)
        self._given = 0

    def execute(self, batch: Batch, start_ns: int, iterations: int) -> Sequence[int]:
        """As in Executor. Raises StalledError when the recording is over or lies in the past: the decisions
        have then parted from the recorded ones."""
        end = next(self._ends, None)
        if end is None or end <= start_ns:
            raise StalledError(
                f"iteration {self._given} starts at {start_ns} ns but the recording "
                + ("has no such iteration" if end is None else f"ends it at {end} ns")
                + ": the replayed decisions differ from the recorded ones"
            )
        self._given += 1
        return (end,)
