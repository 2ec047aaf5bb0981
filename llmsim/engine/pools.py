"""Pools: the replicas of one model each, behind a router of their own; who of them is in service, and when.

A request goes to the pool of the model that it asks for. Replicas come and go at times that are known before the run
begins (`lifetimes.Lifetime`): one that is added gets requests from when its engine is up; one that is removed gets no
more, answers what it has, and leaves. What arrives while a pool has nobody in service waits at the front end, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmsim.core.request import NEVER
from llmsim.errors import StalledError
from llmsim.units import to_seconds

if TYPE_CHECKING:
    from simpy.events import Event

    from llmsim.core.clock import Clock
    from llmsim.core.lifetimes import Lifetime
    from llmsim.core.request import Request, SloClass
    from llmsim.engine.replica import Replica
    from llmsim.routers.base import Router
    from llmsim.routers.view import ReplicaView

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

FOREVER = 1 << 62
"""An instant (ns) after every arrival."""

Deliver = Callable[["Request", int], None]
"""Sends a request to the replica of that index."""


@dataclass(slots=True)
class Pool:
    """The replicas that serve `model`: `members` are those in service, indices into the cluster's, ascending."""

    model: str
    router: Router
    rng: np.random.Generator
    members: list[int] = field(default_factory=list)
    held: deque[Request] = field(default_factory=deque)
    views: list[ReplicaView] = field(default_factory=list)
    _known: list[int] | None = None
    """The members that the router was last told of."""

    def choose(self, request: Request, now: int) -> int:
        """The member that takes the request; a router is asked only where there is a choice."""
        at = self.router.route(request, self.views, now) if len(self.members) > 1 else 0
        return self.members[at]

    def change(self, joining: set[int], leaving: set[int], of_cluster: Sequence[ReplicaView]) -> None:
        """Members come and go at once; the router hears of it unless nobody is left."""
        members = sorted((joining | set(self.members)) - leaving)
        if members == self.members:
            return
        self.members = members
        self.views = [of_cluster[index].at(place) for place, index in enumerate(members)]
        if not members:
            return
        if self._known is None:
            self.router.bind(len(members), self.rng)
        else:
            before = {index: place for place, index in enumerate(self._known)}
            self.router.resize([before.get(index) for index in members])
        self._known = members


class Held(NamedTuple):
    """Requests that arrived while nobody of their pool was in service: how many, the longest wait (ns), still there."""

    requests: int
    longest_ns: int
    left: int


class Pools:
    """All pools of a run. `pool_of` and `lifetimes` are by replica, in the order in which the cluster has them."""

    def __init__(self, pools: Sequence[Pool], pool_of: Sequence[int], lifetimes: Sequence[Lifetime]) -> None:
        self.pools = pools
        self.lifetimes = lifetimes
        self.left_ns = [NEVER] * len(lifetimes)
        """When each replica had left, NEVER for those that are there at the end."""
        self._pool_of = pool_of
        self._named = {pool.model: pool for pool in pools}
        self._draining: set[int] = set()
        self._held, self._longest_ns = 0, 0
        self._stopped = False

    def begin(self, env: Clock, replicas: Sequence[Replica], views: Sequence[ReplicaView], deliver: Deliver) -> None:
        """Start the run: who is there from the beginning serves, for the others the clock is set."""
        self._env, self._replicas, self._views, self._deliver = env, replicas, views, deliver
        changes: dict[int, tuple[set[int], set[int]]] = {0: (set(), set())}
        for index, life in enumerate(self.lifetimes):
            if life.serves:
                changes.setdefault(life.serves_from_ns, (set(), set()))[0].add(index)
            if life.removed_ns is not None:
                changes.setdefault(life.removed_ns, (set(), set()))[1].add(index)
        self._change(*changes.pop(0))
        for at, (joining, leaving) in sorted(changes.items()):
            # Made before any arrival, so that a change comes first in its instant.
            timer = env.timeout(at)
            assert timer.callbacks is not None
            timer.callbacks.append(partial(self._on_time, joining, leaving))

    def pool_for(self, asked: SloClass) -> Pool:
        """The pool of the model that requests of this class ask for, or the only one."""
        model = asked.model
        return self.pools[0] if model is None else self._named[model]

    def everybody(self) -> list[tuple[Pool, list[int]]]:
        """Each pool with the replicas that are in service at any time."""
        indices = [i for i, life in enumerate(self.lifetimes) if life.serves]
        return [(pool, [i for i in indices if self._pool_of[i] == at]) for at, pool in enumerate(self.pools)]

    def theirs(self, pool: Pool, asked: Sequence[SloClass], which: Ints) -> Mask:
        """Which requests go to the pool, given the class of each: indices into `asked`, shapes (requests,)."""
        same = np.zeros(len(asked), dtype=bool)
        for at in np.unique(which).tolist():
            same[at] = self.pool_for(asked[at]) is pool
        return same[which]

    def closes_ns(self) -> list[int]:
        """From when on each pool has nobody in service and nobody to come (FOREVER: somebody stays).

        Whoever arrives before is served, even if nobody is in service then: somebody comes.
        """
        ends = [0] * len(self.pools)
        for pool, life in zip(self._pool_of, self.lifetimes, strict=True):
            if life.serves:
                ends[pool] = max(ends[pool], FOREVER if life.removed_ns is None else life.removed_ns)
        return ends

    def take(self, request: Request) -> None:
        """A request arrives: send it on, or hold it while nobody of its pool is in service."""
        pool = self.pool_for(request.slo)
        if pool.members:
            self._deliver(request, pool.choose(request, self._env.now))
            return
        pool.held.append(request)
        self._held += 1

    def done(self, request: Request, index: int) -> None:
        """The request was answered or rejected by replica `index`: the router may learn, a drain may be over."""
        if not request.rejected:
            self.pool_for(request.slo).router.answered(request)
        if index in self._draining and not self._replicas[index].outstanding:
            self._leave(index)

    def stop(self) -> None:
        """The horizon: nobody comes or goes any more."""
        self._stopped = True

    def held(self, end_ns: int) -> Held:
        """What waited at the front end, those included that wait still at the end of the run."""
        waiting = [request for pool in self.pools for request in pool.held]
        longest = max((end_ns - request.arrival_ns for request in waiting), default=0)
        return Held(self._held, max(self._longest_ns, longest), len(waiting))

    def refuse_held(self) -> None:
        """Raise StalledError if the run is over and requests wait at the front end for nobody to come.

        Arrivals that are known before the run are refused then (feasibility.LateArrivals).
        """
        for pool in self.pools:
            if pool.held:
                first = pool.held[0]
                raise unserved(pool.model, len(pool.held), first.id, first.arrival_ns)

    def _on_time(self, joining: set[int], leaving: set[int], _: Event) -> None:
        self._change(joining, leaving)

    def _change(self, joining: set[int], leaving: set[int]) -> None:
        """Replicas come into service and are taken out of it, at this instant."""
        if self._stopped:
            return
        for at, pool in enumerate(self.pools):
            pool.change(self._of(at, joining), self._of(at, leaving), self._views)
        for index in leaving:
            if self._replicas[index].outstanding:
                self._draining.add(index)
            else:
                self._leave(index)
        for pool in self.pools:
            while pool.members and pool.held:
                request = pool.held.popleft()
                self._longest_ns = max(self._longest_ns, self._env.now - request.arrival_ns)
                self._deliver(request, pool.choose(request, self._env.now))

    def _of(self, pool: int, indices: set[int]) -> set[int]:
        return {index for index in indices if self._pool_of[index] == pool}

    def _leave(self, index: int) -> None:
        self._draining.discard(index)
        self.left_ns[index] = self._env.now


def unserved(model: str, count: int, first_id: int, arrival_ns: int) -> StalledError:
    """The error for requests that nobody will ever serve: how many, id and arrival (ns) of the first."""
    return StalledError(
        f"{count} requests for {model} can never be served; the first is id {first_id}, which arrives at "
        f"{to_seconds(arrival_ns):.3f} s: by the schedules of cluster.groups no replica is in service then or later; "
        "keep one, add a later step, or give a horizon_s"
    )
