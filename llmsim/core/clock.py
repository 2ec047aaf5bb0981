"""The only thing added to SimPy: an event at an absolute int time, after every ordinary event of that instant."""

from __future__ import annotations

from heapq import heappush
from typing import TYPE_CHECKING

import simpy
from simpy.events import Event

LATE = 2
"""Event priority of iteration ends. SimPy's own are URGENT = 0 and NORMAL = 1, smaller first: an arrival at t
is therefore visible to the batch that is formed at t, whichever of the two was created first."""


class Clock(simpy.Environment):
    """SimPy's environment; its time is an int number of nanoseconds."""

    if TYPE_CHECKING:

        @property
        def now(self) -> int: ...


class Tick(Event):
    """An event that fires at absolute time `at` (ns); LATE: after everything else of that instant."""

    def __init__(self, env: Clock, at: int, priority: int = LATE) -> None:
        # As simpy.Timeout does: born triggered, so nothing but the schedule can fire it.
        self.env = env
        self.callbacks = []
        self._value = None
        self._ok = True
        # env.schedule(self, priority, at - env.now), written out: once an event, and a tenth of its cost.
        heappush(env._queue, (at, priority, next(env._eid), self))  # type: ignore[misc]  # priorities are an enum there

    def moved(self, at: int) -> Tick:
        """A tick at `at` that whoever waits for this one now waits for instead; this one fires for nobody.

        Cheaper than to interrupt the waiting process, which takes two events and an exception.
        """
        other = Tick(self.env, at)  # type: ignore[arg-type]  # made with a Clock
        other.callbacks, self.callbacks = self.callbacks, []
        return other
