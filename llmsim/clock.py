"""The only thing added to SimPy: an event at an absolute time, after every ordinary event of that instant."""

from __future__ import annotations

import simpy
from simpy.events import Event

LATE = 2
"""Event priority of iteration ends. SimPy's own are URGENT = 0 and NORMAL = 1, smaller first: an arrival at t
is therefore visible to the batch that is formed at t, whichever of the two was created first."""


def tick(env: simpy.Environment, at: int) -> Event:
    """An event that fires at absolute time `at` (ns), after everything else of that instant."""
    event = Event(env)
    event._ok = True
    event._value = None
    env.schedule(event, LATE, at - env.now)  # type: ignore[arg-type]  # SimPy names its two priorities only
    return event
