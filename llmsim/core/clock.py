"""What is added to SimPy: events at an absolute int time, after every ordinary event of that instant, and errors as
they were raised, without SimPy's frames."""

from __future__ import annotations

from heapq import heappush
from types import TracebackType
from typing import TYPE_CHECKING, Any

import simpy
from simpy.events import Event, Process, ProcessGenerator

LATE = 2
"""Event priority of iteration ends. SimPy's own are URGENT = 0 and NORMAL = 1, smaller first: an arrival at t
is therefore visible to the batch that is formed at t, whichever of the two was created first."""


class Clock(simpy.Environment):
    """SimPy's environment; its time is an int number of nanoseconds."""

    if TYPE_CHECKING:

        @property
        def now(self) -> int: ...

    else:

        def process(self, generator: ProcessGenerator) -> Process:
            """As ever, but the process fails with its own error; SimPy makes a copy and raises it elsewhere."""
            process = super().process(generator)
            process.callbacks.append(_raise_failure)
            return process

    def run(self, until: Any = None) -> Any:
        """As ever; the traceback of an error ends where the error is, and has no frame of SimPy's."""
        try:
            return super().run(until)
        except Exception as error:
            failure = error
        raise failure.with_traceback(_without_simpy(failure.__traceback__))


def _raise_failure(process: Event) -> None:
    if not process.ok:
        failure: Any = process.value
        raise failure


def _without_simpy(trace: TracebackType | None) -> TracebackType | None:
    if trace is None:
        return None
    rest = _without_simpy(trace.tb_next)
    module = trace.tb_frame.f_globals.get("__name__", "")
    if module.startswith("simpy.") or module == __name__:
        return rest
    return TracebackType(rest, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)


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
