"""The queue of every iteration, against the requests' own times: who has arrived, is in no batch and holds no KV."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.core.batch import Batch
from llmsim.core.request import NEVER, Request
from llmsim.engine.recorder import Observer
from llmsim.schedulers.base import Scheduler
from tests.engine.build import POLICIES, GridCost, LineCost, serve, workload

ROOM = 20_000
"""Blocks with which nobody is ever preempted."""


class ThrownOut(Observer):
    """How many requests wait for a second admission, at every iteration of one replica."""

    def __init__(self) -> None:
        self.away: set[int] = set()
        self.counts: list[int] = []

    def watch(self, scheduler: Scheduler) -> Scheduler:
        preempt = scheduler.preempt

        def noted(request: Request, batch: Batch) -> None:
            self.away.add(request.id)
            preempt(request, batch)

        scheduler.preempt = noted  # type: ignore[method-assign]
        return scheduler

    def on_batch(self, batch, start_ns, ends, scheduler, kv):
        self.away -= {request.id for request in batch.prefills}
        self.counts += [len(self.away)] * len(ends)


def arrived_less_started(requests: list[Request], replica: int, starts: np.ndarray) -> np.ndarray:
    """Arrivals minus first schedulings up to each start of an iteration."""
    ours = [r for r in requests if r.replica == replica and not r.rejected]
    arrived = np.sort([r.arrival_ns for r in ours])
    started = np.sort([r.first_scheduled_ns for r in ours if r.first_scheduled_ns != NEVER])
    return np.searchsorted(arrived, starts, "right") - np.searchsorted(started, starts, "right")


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    rate=st.sampled_from([0.5, 3.0, 8.0, 30.0]),
    macro=st.booleans(),
    replicas=st.integers(1, 3),
    grid=st.booleans(),
    ahead=st.booleans(),
)
def test_waiting_is_arrivals_minus_first_schedulings_at_every_iteration(
    policy, seed, rate, macro, replicas, grid, ahead
):
    requests = workload(seed, n=60, rate=rate, grid_ns=5_000_000 if grid else 0)
    how = {"cost": GridCost() if grid else LineCost(), "num_blocks": ROOM, "macro": macro, "replicas": replicas}
    cluster = serve(requests, POLICIES[policy], async_scheduling=ahead and policy.startswith("vllm_v1"), **how)
    for index, replica in enumerate(cluster.replicas):
        log = replica.recorder.table()
        np.testing.assert_array_equal(log["waiting"], arrived_less_started(requests, index, log["start_ns"]))


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    rate=st.sampled_from([3.0, 30.0]),
    macro=st.booleans(),
    blocks=st.sampled_from([190, 230]),
)
def test_those_preempted_wait_again(policy, seed, rate, macro, blocks):
    requests = workload(seed, n=60, rate=rate)
    thrown = ThrownOut()
    cluster = serve(
        requests, lambda: thrown.watch(POLICIES[policy]()), num_blocks=blocks, macro=macro, observer=thrown
    )
    log = cluster.replicas[0].recorder.table()
    again = np.array(thrown.counts, dtype=np.int64)
    np.testing.assert_array_equal(log["waiting"], arrived_less_started(requests, 0, log["start_ns"]) + again)
    assert not log["waiting"].min(initial=0) < 0
