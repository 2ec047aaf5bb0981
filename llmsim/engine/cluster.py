"""Cluster: the simulation environment, the arrival process, the router and the replicas of one run."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from simpy.events import NORMAL, Event

from llmsim.core.clock import Clock, Tick
from llmsim.core.contract.answers import users_classes
from llmsim.core.contract.oracle import GuardedRequest
from llmsim.core.request import Request
from llmsim.engine.async_replica import AsyncReplica
from llmsim.engine.feasibility import LateArrivals, limits, refuse_infeasible
from llmsim.engine.replica import Replica
from llmsim.errors import StalledError
from llmsim.routers.view import ReplicaView
from llmsim.units import to_seconds

if TYPE_CHECKING:
    from llmsim.core.kvcache import KVCache
    from llmsim.core.request import SloClass
    from llmsim.costs.base import CostModel
    from llmsim.engine.pools import Pools
    from llmsim.engine.recorder import Recorder
    from llmsim.executors.base import Executor
    from llmsim.routers.base import Router
    from llmsim.schedulers.base import Scheduler

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

Progress = Callable[[int, int], None]
"""Called with (requests done, requests in all), about every hundredth of the run."""

CLIENT_REACTION_NS = 1
"""A closed-loop client sends its next request this long after an answer: an instant of its own, so that no
replica's decision depends on the order in which replicas are visited at one instant."""


class Cluster:
    """Replicas behind a router, in one SimPy environment."""

    def __init__(self, router: Router) -> None:
        self.env = Clock()
        self.router = router
        self.replicas: list[Replica] = []
        self.pools: Pools | None = None
        """Who may serve whom and when, if not everybody everybody always; its routers are asked instead of `router`."""
        self.in_flight: dict[int, Request] = {}
        """Requests that arrived and were neither answered nor rejected, by id, in order of arrival."""
        self.guarded = bool(users_classes(type(router)))
        """Whether output lengths are kept from the policies: where any of them is a user's own."""
        self._views: list[ReplicaView] = []
        self._done = 0
        self._total = 0
        self._closed = False
        self._progress: Progress | None = None
        self._on_done: Callable[[Request], None] | None = None
        self._backlog: Iterator[Request] = iter(())

    def add_replica(
        self,
        scheduler: Scheduler,
        executor: Executor,
        kv: KVCache,
        recorder: Recorder,
        *,
        macro: bool = True,
        first_token_at_prefill_end: bool = True,
        regenerate_output: bool = False,
        async_scheduling: bool = False,
        startup_ns: int = 0,
        cost: CostModel | None = None,
    ) -> Replica:
        """A replica around a scheduler that is bound to `kv` already. Switches as in Replica; `async_scheduling`
        makes it form batches one ahead; `cost` is what routers may price work with."""
        replica = (AsyncReplica if async_scheduling else Replica)(
            self.env,
            scheduler,
            executor,
            kv,
            recorder,
            macro=macro,
            first_token_at_prefill_end=first_token_at_prefill_end,
            regenerate_output=regenerate_output,
            startup_ns=startup_ns,
            on_finish=self._on_finish,
        )
        self.guarded = self.guarded or bool(users_classes(type(scheduler)))
        self._views.append(ReplicaView(len(self.replicas), replica, cost))
        self.replicas.append(replica)
        return replica

    @property
    def unstreamed(self) -> list[int]:
        """Indices of the replicas that deliver whole answers."""
        return [i for i, replica in enumerate(self.replicas) if replica.scheduler.answers_together]

    def run(
        self,
        requests: Iterable[Request],
        *,
        total: int | None = None,
        max_concurrency: int | None = None,
        horizon_ns: int | None = None,
        progress: Progress | None = None,
        on_done: Callable[[Request], None] | None = None,
    ) -> None:
        """Serve `requests` (sorted by arrival) to the end, or until `horizon_ns`.

        A sequence is held against `refuse_infeasible` first. An iterator is drawn from as requests are sent; say how
        many it has (`total`) and check them yourself. `on_done` is called for each request once it is answered or
        rejected.

        With `max_concurrency` the loop is closed: that many are outstanding at any time, the next is sent when
        one is answered, and arrival_ns is set to the moment of sending. At the horizon no batch is formed and
        nothing is sent any more; iterations in flight complete. Raises CapacityError for a request that no
        replica could ever hold, StalledError if requests are left that nothing can serve (those that arrive after
        their pool's last replica was removed are told before the run begins).
        """
        if isinstance(requests, Sequence):
            total = len(requests)
            self.refuse_infeasible(requests, open_end=max_concurrency is None and horizon_ns is None)
        assert total is not None, "say how many requests an iterator has"
        self._total, self._progress, self._on_done = total, progress, on_done
        if self.pools is not None:
            self.pools.begin(self.env, self.replicas, self._views, self._deliver)
        if max_concurrency is None:
            self.env.process(self._arrivals(requests))
        else:
            self._backlog = iter(requests)
            for request in islice(self._backlog, max_concurrency):
                request.arrival_ns = 0
                self._send(request)
        if horizon_ns is not None:
            stop = self.env.timeout(horizon_ns)
            assert stop.callbacks is not None
            stop.callbacks.append(self._stop)
        with no_collection():
            self.env.run()
        for request in self.in_flight.values():
            if request.__class__ is GuardedRequest:
                request.__class__ = Request  # type: ignore[assignment]
        for replica in self.replicas:
            for request in list(replica.scheduler.decodes.members):
                replica.scheduler.decodes.leave(request)  # makes its counters exact
        if horizon_ns is None:
            self._refuse_leftovers()

    def refuse_infeasible(self, requests: Sequence[Request], *, open_end: bool = False) -> None:
        """Raise CapacityError for a request that could not finish even alone in a cache that it may be sent to.

        With `open_end` (they arrive when they say, and there is no horizon) raise StalledError for those that arrive
        when nobody who could serve them is in service or to come.
        """
        prompts = np.array([r.prompt_tokens for r in requests], dtype=np.int64)
        outputs = np.array([r.output_tokens for r in requests], dtype=np.int64)
        asked = {id(r.slo): r.slo for r in requests}
        place = {key: at for at, key in enumerate(asked)}
        which = np.array([place[id(r.slo)] for r in requests], dtype=np.int64)
        self.refuse_infeasible_lengths(prompts, outputs, list(asked.values()), which)
        if open_end:
            late_arrivals = LateArrivals(self.pools)
            arrivals = np.array([r.arrival_ns for r in requests], dtype=np.int64)
            late_arrivals.look(arrivals, list(asked.values()), which)
            late_arrivals.refuse()

    def refuse_infeasible_lengths(
        self, prompts: Ints, outputs: Ints, asked: Sequence[SloClass], which: Ints, first_id: int = 0
    ) -> None:
        """The same of requests with ids from `first_id` on: prompt and output tokens, and which of the classes `asked`
        each belongs to, shapes (requests,)."""
        for replicas, theirs in self._audiences(asked, which):
            for replica in {limits(replica): replica for replica in replicas}.values():
                refuse_infeasible(prompts, outputs, theirs, replica, first_id)

    def _arrivals(self, requests: Iterable[Request]) -> Generator[Event, None, None]:
        env = self.env
        for request in requests:
            if request.arrival_ns > env.now:
                yield Tick(env, request.arrival_ns, NORMAL)  # env.timeout without its overhead
                if self._closed:
                    return
            self._send(request)

    def _audiences(self, asked: Sequence[SloClass], which: Ints) -> Iterator[tuple[list[Replica], Mask]]:
        """Replicas with the requests (requests,) that may be sent to any of them."""
        if self.pools is None:
            yield self.replicas, np.ones(len(which), dtype=bool)
            return
        for pool, members in self.pools.everybody():
            yield [self.replicas[index] for index in members], self.pools.theirs(pool, asked, which)

    def _send(self, request: Request) -> None:
        self.in_flight[request.id] = request
        if self.guarded and request.__class__ is Request:
            request.__class__ = GuardedRequest
        if self.pools is not None:
            self.pools.take(request)
            return
        self._deliver(request, self.router.route(request, self._views, self.env.now) if len(self.replicas) > 1 else 0)

    def _deliver(self, request: Request, index: int) -> None:
        request.replica = index
        self.replicas[index].submit(request)

    def _on_finish(self, request: Request) -> None:
        self._done += 1
        del self.in_flight[request.id]
        if self._on_done is not None:
            self._on_done(request)
        if self.pools is not None:
            self.pools.done(request, request.replica)
        elif not request.rejected:
            self.router.answered(request)
        if request.__class__ is GuardedRequest:
            request.__class__ = Request  # type: ignore[assignment]
        if self._progress is not None and self._done * 100 // self._total > (self._done - 1) * 100 // self._total:
            self._progress(self._done, self._total)
        following = next(self._backlog, None)
        if following is not None:
            following.arrival_ns = self.env.now + CLIENT_REACTION_NS
            reaction = self.env.timeout(CLIENT_REACTION_NS)
            assert reaction.callbacks is not None
            reaction.callbacks.append(lambda _: None if self._closed else self._send(following))

    def _stop(self, _: Event) -> None:
        self._closed = True
        if self.pools is not None:
            self.pools.stop()
        for replica in self.replicas:
            replica.stop()

    def _refuse_leftovers(self) -> None:
        if not self.in_flight:
            for replica in self.replicas:
                assert not replica.kv.used_blocks, f"{replica.kv.used_blocks} KV blocks leaked"
            return
        if self.pools is not None:
            self.pools.refuse_held()
        stuck = next(iter(self.in_flight.values()))
        replica = self.replicas[stuck.replica]
        kv, scheduler = replica.kv, replica.scheduler
        raise StalledError(
            f"{self._total - self._done} of {self._total} requests can never be served; the first is id {stuck.id} "
            f"({stuck.prefill_tokens} tokens to prefill, needs {kv.blocks_for(stuck.prefill_tokens)} KV blocks; "
            f"{kv.free_blocks} of {kv.num_blocks} are free, {scheduler.reserve_blocks} are kept free at admission), at "
            f"{to_seconds(self.env.now):.3f} s: the scheduler formed no batch though nothing was running"
        )


@contextmanager
def no_collection() -> Iterator[None]:
    """Pause Python's cycle collector: the loop makes no cycles, and walking all requests again and again is slow."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
