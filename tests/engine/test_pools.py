"""Replicas that come and go: nothing is lost, who leaves drains first, and macro-steps still change nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.core.kvcache import KVCache
from llmsim.core.lifetimes import Lifetime, lifetimes_of
from llmsim.core.request import NEVER, Request, SloClass
from llmsim.engine.cluster import Cluster
from llmsim.engine.pools import Pool, Pools
from llmsim.engine.recorder import Recorder
from llmsim.errors import StalledError
from llmsim.executors.simulated import SimulatedExecutor
from llmsim.routers.base import Router
from llmsim.routers.round_robin import RoundRobin
from llmsim.schedulers.sarathi import Sarathi
from llmsim.schedulers.vllm_v1 import VllmV1
from llmsim.spec import registry
from llmsim.spec.cluster_spec import GroupSpec, StepSpec
from tests.effort import examples
from tests.engine.build import MAX_MODEL_LEN, GridCost, LineCost, outcome, workload
from tests.engine.observe import requests_of

SECOND = 10**9
ROUTERS = registry.names("router")


def steps(*changes: tuple[float, int]) -> tuple[StepSpec, ...]:
    return tuple(StepSpec(at_s=at, replicas=count) for at, count in changes)


def elastic(
    requests: list[Request],
    lifetimes: tuple[Lifetime, ...],
    *,
    router: Router | None = None,
    asynchronous: bool = False,
    grid: bool = False,
    macro: bool = True,
    num_blocks: int = 400,
    **how: object,
) -> Cluster:
    """One pool of replicas with these lifetimes, run to the end (or `horizon_ns`)."""
    router = router or RoundRobin()
    cluster = Cluster(router)
    cost = GridCost() if grid else LineCost()
    for life in lifetimes:
        kv = KVCache(num_blocks)
        scheduler = VllmV1(max_num_batched_tokens=300) if asynchronous else Sarathi(chunk_size=256)
        scheduler.bind(kv, MAX_MODEL_LEN)
        cluster.add_replica(
            scheduler,
            SimulatedExecutor(cost),
            kv,
            Recorder(),
            macro=macro,
            async_scheduling=asynchronous,
            startup_ns=life.ready_ns,
            cost=cost,
        )
    cluster.pools = Pools([Pool("m", router, np.random.default_rng(0))], [0] * len(lifetimes), lifetimes)
    cluster.run(requests, **how)
    return cluster


schedules = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 4)), min_size=1, max_size=5)


@pytest.mark.parametrize("router", ROUTERS)
@settings(max_examples=examples(25, 10), deadline=None, derandomize=True)
@given(
    changes=schedules,
    first=st.integers(0, 3),
    lag_ms=st.sampled_from([0, 700, 4000]),
    seed=st.integers(0, 10**6),
    grid=st.booleans(),
    asynchronous=st.booleans(),
    max_concurrency=st.sampled_from([None, None, 5]),
    horizon_ms=st.sampled_from([None, None, 9000]),
)
def test_under_any_schedule_nothing_is_lost_and_macro_steps_equal_single_steps(
    router, changes, first, lag_ms, seed, grid, asynchronous, max_concurrency, horizon_ms
):
    at_500_ms = dict(sorted(changes))
    schedule = steps(*((at / 2, count) for at, count in at_500_ms.items()), (20.0, 2))
    lifetimes = lifetimes_of(first, schedule, lag_ms * 10**6)
    runs = []
    for macro in (True, False):
        requests = workload(seed, n=50, rate=4.0, grid_ns=5_000_000 if grid else 0)
        cluster = elastic(
            requests,
            lifetimes,
            router=registry.build("router", router),
            asynchronous=asynchronous,
            grid=grid,
            macro=macro,
            max_concurrency=max_concurrency,
            horizon_ns=None if horizon_ms is None else horizon_ms * 10**6,
        )
        check_service(cluster, requests, lifetimes, horizon_ms)
        runs.append((cluster, outcome(requests)))
    (one, of_one), (other, of_other) = runs
    assert of_one == of_other
    assert one.pools.left_ns == other.pools.left_ns
    for a, b in zip(one.replicas, other.replicas, strict=True):
        left, right = a.recorder.table(), b.recorder.table()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def check_service(
    cluster: Cluster, requests: list[Request], lifetimes: tuple[Lifetime, ...], horizon_ms: int | None
) -> None:
    """Every request once, whole, and on a replica that was there."""
    sent = [r for r in requests if r.replica >= 0 or r.id in cluster.in_flight]
    if horizon_ms is None:
        assert len(sent) == len(requests)
        assert all(r.finish_ns > r.arrival_ns and r.generated == r.output_tokens for r in requests)
        assert all(replica.kv.used_blocks == 0 and not replica.outstanding for replica in cluster.replicas)
    for request in sent:
        index = request.replica
        if index == NEVER:
            assert request.first_scheduled_ns == NEVER
            continue
        life = lifetimes[index]
        assert life.serves
        assert life.removed_ns is None or request.arrival_ns < life.removed_ns, "sent to a replica that was removed"
        if request.first_scheduled_ns != NEVER:
            assert request.first_scheduled_ns >= life.ready_ns
    for life, left, replica in zip(lifetimes, cluster.pools.left_ns, cluster.replicas, strict=True):
        table = replica.recorder.table() if replica.recorder.iterations else None
        last = 0 if table is None else int(table["end_ns"].max())
        if life.removed_ns is None:
            assert left == NEVER
        elif left != NEVER:
            assert left >= max(life.removed_ns, last), "left while it worked"
        else:
            assert horizon_ms is not None, "was removed and never left"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(first=st.integers(0, 5), counts=st.lists(st.integers(0, 6), min_size=1, max_size=8))
def test_a_schedule_is_as_many_lives_as_it_says_at_any_time_and_the_newest_go_first(first, counts):
    schedule = steps(*((float(i + 1), count) for i, count in enumerate(counts)))
    lifetimes = lifetimes_of(first, schedule)
    there = []
    for at, count in enumerate([first, *counts]):
        now = at * SECOND
        before = there
        there = [
            i for i, x in enumerate(lifetimes) if x.added_ns <= now and (x.removed_ns is None or x.removed_ns > now)
        ]
        assert len(there) == count
        gone = set(before) - set(there)
        assert not gone or min(gone) > max((i for i in before if i in there), default=-1)
    if first or any(counts):
        assert len(lifetimes) == GroupSpec(replicas=first, schedule=schedule).ever
    assert [life.added_ns for life in lifetimes] == sorted(life.added_ns for life in lifetimes)


@pytest.mark.parametrize("router", ROUTERS)
def test_a_schedule_that_changes_nothing_in_time_is_no_schedule(router):
    runs = []
    for schedule in ((), steps((10_000.0, 9), (20_000.0, 1))):
        requests = workload(3, n=80, rate=6.0)
        elastic(requests, lifetimes_of(3, schedule), router=registry.build("router", router))
        runs.append(outcome(requests))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("router", ROUTERS)
def test_one_pool_without_a_schedule_is_the_plain_cluster(router):
    """The same draws, the same choices: pools are no other kind of cluster."""
    runs = []
    for pooled in (True, False):
        requests = workload(8, n=80, rate=9.0)
        built = registry.build("router", router)
        if pooled:
            cluster = elastic(requests, lifetimes_of(4, ()), router=built)
        else:
            built.bind(4, np.random.default_rng(0))
            cluster = Cluster(built)
            for _ in range(4):
                kv, scheduler = KVCache(400), Sarathi(chunk_size=256)
                scheduler.bind(kv, MAX_MODEL_LEN)
                cluster.add_replica(scheduler, SimulatedExecutor(LineCost()), kv, Recorder(), cost=LineCost())
            cluster.run(requests)
        runs.append(outcome(requests))
    assert runs[0] == runs[1]


def test_a_removed_replica_answers_what_it_has_and_gets_no_more():
    """Two replicas in turn, one request each; the second is removed while both work."""
    requests = requests_of([(0, 100, 200), (0, 100, 200), *[(SECOND // 2 + i, 50, 5) for i in range(6)]])
    cluster = elastic(requests, lifetimes_of(2, steps((0.5, 1))))
    assert [r.replica for r in requests] == [0, 1, *[0] * 6]
    assert requests[1].finish_ns > SECOND // 2
    assert cluster.pools.left_ns == [NEVER, requests[1].finish_ns]


def test_an_idle_replica_leaves_at_once_and_one_removed_before_it_is_up_never_serves():
    lifetimes = lifetimes_of(1, steps((1.0, 3), (2.0, 1)), startup_ns=5 * SECOND)
    lifetimes = (Lifetime(0, 0, None), *lifetimes[1:])
    requests = requests_of([(i * SECOND // 4, 50, 5) for i in range(20)])
    cluster = elastic(requests, lifetimes)
    assert {r.replica for r in requests} == {0}
    assert cluster.pools.left_ns == [NEVER, 2 * SECOND, 2 * SECOND]


def test_an_added_replica_gets_its_first_request_when_it_is_up():
    lifetimes = lifetimes_of(1, (StepSpec(at_s=1.0, replicas=2, startup_lag_s=2.0),))
    requests = requests_of([(i * SECOND // 10, 20, 2) for i in range(60)])
    elastic(requests, lifetimes)
    first = min(i for i in range(60) if requests[i].replica == 1)
    assert requests[first].arrival_ns in (3 * SECOND, 3 * SECOND + SECOND // 10)
    assert Counter(requests[i].replica for i in range(first, 60))[1] >= (60 - first) // 2


def test_who_finds_nobody_in_service_waits_in_order_until_somebody_is():
    requests = requests_of([(i * SECOND // 10, 300, 2) for i in range(30)])
    cluster = elastic(requests, lifetimes_of(0, steps((1.0, 1))))
    ends = [r.prefill_end_ns for r in requests[:10]]  # a chunk of 256 completes no two prompts
    assert ends == sorted(set(ends))
    assert requests[0].first_scheduled_ns == SECOND
    held = cluster.pools.held(cluster.env.now)
    assert held == (10, SECOND, 0)


def test_who_waits_for_nobody_to_come_is_an_error_that_says_so():
    requests = requests_of([(i * SECOND, 20, 2) for i in range(5)])
    with pytest.raises(
        StalledError, match=r"2 requests for m can never be served; the first is id 3.*no replica is in"
    ):
        elastic(requests, lifetimes_of(1, steps((2.5, 0))))
    assert all(request.replica == NEVER for request in requests), "told before the run begins"
    # A change comes before the arrivals of its instant: the request at 2 s finds nobody.
    with pytest.raises(StalledError, match=r"3 requests .* the first is id 2, which arrives at 2\.000 s"):
        elastic(requests, lifetimes_of(1, steps((2, 0))))
    with pytest.raises(StalledError, match="5 requests"):
        elastic(requests, (Lifetime(SECOND, 3 * SECOND, 2 * SECOND),))


def test_a_closed_loop_that_is_left_without_a_replica_is_told_at_its_end():
    with pytest.raises(StalledError, match=r"can never be served; .* no replica is in"):
        elastic(requests_of([(0, 20, 2000) for _ in range(5)]), lifetimes_of(1, steps((1e-3, 0))), max_concurrency=1)


def test_at_the_horizon_those_who_wait_are_left_unfinished_and_nobody_comes_any_more():
    requests = requests_of([(i * SECOND, 20, 2) for i in range(5)])
    cluster = elastic(requests, lifetimes_of(1, steps((2.5, 0), (9.0, 1))), horizon_ns=6 * SECOND)
    assert [r.replica for r in requests] == [0, 0, 0, NEVER, NEVER]
    assert cluster.pools.held(6 * SECOND) == (2, 3 * SECOND, 2)


@dataclass
class Watchful(Router):
    """Sends in turn by its own count, and checks what it is told."""

    def bind(self, replicas, rng):
        super().bind(replicas, rng)
        self.turn = 0
        self.sizes = []

    def route(self, request, replicas, now):
        assert len(replicas) == self.replicas == len(self._last_sent)
        assert [view.index for view in replicas] == list(range(self.replicas))
        self.sizes.append(self.replicas)
        self.turn += 1
        return self.turn % self.replicas


def test_a_router_is_told_of_every_change_and_sees_only_who_is_in_service():
    router = Watchful()
    requests = requests_of([(i * SECOND // 10, 20, 2) for i in range(60)])
    elastic(requests, lifetimes_of(2, steps((1.0, 4), (2.0, 3), (3.0, 0), (4.0, 2))), router=router)
    seen = list(dict.fromkeys(router.sizes))
    assert seen == [2, 4, 3]  # from 4 s on 2 again
    assert router.sizes[-1] == 2


def test_a_router_keeps_what_it_learnt_of_requests_and_whom_it_served_last():
    router = registry.build("router", "least_requests")
    router.bind(3, np.random.default_rng(0))
    assert [router.least([0, 0, 0]) for _ in range(2)] == [0, 1]
    router.resize([0, 2, None])  # the second has gone, another has come
    assert [router.least([0, 0, 0]) for _ in range(3)] == [1, 2, 0]


def test_round_robin_goes_on_with_whose_turn_it_was():
    router = RoundRobin()
    router.bind(4, np.random.default_rng(0))
    assert [router.route(None, (), 0) for _ in range(2)] == [0, 1]
    router.resize([0, 1, 3])
    assert [router.route(None, (), 0) for _ in range(3)] == [2, 0, 1]


def test_each_model_is_served_as_if_the_others_were_not_there():
    """Two pools in one cluster are two clusters that share nothing but the clock."""
    classes = [SloClass(model="a"), SloClass(model="b")]

    def of(names: str) -> tuple[list[Request], Cluster]:
        requests = workload(5, n=120, rate=12.0)
        for request in requests:
            request.slo = classes[request.id % 3 > 0]
        requests = [r for r in requests if r.slo.model in names]
        pools = [Pool(n, registry.build("router", "least_work"), np.random.default_rng(ord(n))) for n in names]
        lifetimes = lifetimes_of(3, steps((2.0, 5), (6.0, 2)))
        cluster = Cluster(pools[0].router)
        for _ in names:
            for life in lifetimes:
                kv, scheduler = KVCache(400), Sarathi(chunk_size=256)
                scheduler.bind(kv, MAX_MODEL_LEN)
                cluster.add_replica(
                    scheduler, SimulatedExecutor(LineCost()), kv, Recorder(), cost=LineCost(), startup_ns=life.ready_ns
                )
        cluster.pools = Pools(
            pools, [i // len(lifetimes) for i in range(len(names) * len(lifetimes))], lifetimes * len(names)
        )
        cluster.run(requests)
        return requests, cluster

    both, _ = of("ab")
    assert all((r.replica >= 5) == (r.slo.model == "b") for r in both)
    alone = [row for name in "ab" for row in outcome(of(name)[0])]
    for request in both:
        request.replica %= 5  # its number in its own pool
    assert sorted(outcome(both)) == sorted(alone)
