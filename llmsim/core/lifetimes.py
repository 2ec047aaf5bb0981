"""When each replica of a group is there: a schedule of counts as one life a replica, known before the run begins.

Who leaves does not depend on the load: the replica added last goes first. So only the ends of drains are left to the
run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llmsim.units import to_ns


class Step(Protocol):
    """A step of a schedule: from `at_s` seconds on there are to be `replicas` (spec.cluster_spec.StepSpec).

    Those that it adds are up after `startup_lag_s` seconds (None: the engine's).
    """

    @property
    def at_s(self) -> float: ...
    @property
    def replicas(self) -> int: ...
    @property
    def startup_lag_s(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A replica of the run, times int ns: added, its engine up (`ready_ns`), taken out of service (None: never).

    A replica that is there from the start gets requests at once, and they wait for the engine, as without a schedule.
    One that is added gets its first when the engine is up: a front end sends to what answers its health check.
    """

    added_ns: int = 0
    ready_ns: int = 0
    removed_ns: int | None = None

    @property
    def serves_from_ns(self) -> int:
        """When requests may be sent to it."""
        return self.ready_ns if self.added_ns else 0

    @property
    def serves(self) -> bool:
        """Whether it is up before it is removed."""
        return self.removed_ns is None or self.removed_ns > self.serves_from_ns


def lifetimes_of(replicas: int, schedule: Sequence[Step], startup_ns: int = 0) -> tuple[Lifetime, ...]:
    """One life a replica: `replicas` from the start, then as many as each step says."""
    added = [(0, startup_ns)] * replicas
    removed: list[int | None] = [None] * replicas
    there = list(range(replicas))
    for step in schedule:
        at = to_ns(step.at_s)
        up = at + (startup_ns if step.startup_lag_s is None else to_ns(step.startup_lag_s))
        while len(there) > step.replicas:
            removed[there.pop()] = at
        while len(there) < step.replicas:
            there.append(len(added))
            added.append((at, up))
            removed.append(None)
    return tuple(Lifetime(since, up, until) for (since, up), until in zip(added, removed, strict=True))
