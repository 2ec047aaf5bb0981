"""SLAI's cohorts decide as a heap with an entry for every decode does, whatever is cut, tied, preempted or repeated."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.core.batch import Batch
from llmsim.core.request import NEVER, Request, SloClass
from llmsim.costs.base import CostModel
from llmsim.engine.cluster import Cluster
from llmsim.schedulers.base import Scheduler
from llmsim.schedulers.cohorts import Cohort, Cohorts, Steps
from llmsim.schedulers.slai import Slai
from tests.effort import examples
from tests.engine.build import GridCost, LineCost, serve, workload
from tests.engine.observe import Batches


@dataclass
class HeapSlai(Slai):
    """The policy as its authors wrote it: decodes are popped one by one, run, and pushed back with a new deadline."""

    def bind(self, kv, max_model_len):
        super().bind(kv, max_model_len)
        self.heap = []
        self.last = ()

    add = Scheduler.add
    preempt = Scheduler.preempt
    steady_iterations = Scheduler.steady_iterations

    def start_decoding(self, request):
        pass

    def withdraw(self, request):
        if request.remaining_prefill:
            self.prefilling.remove(request)
        self._active -= 1

    def schedule(self, now):
        for request in self.last:
            if request.remaining_prefill:
                self._paused.append(request)
            elif request.finish_ns == NEVER:
                due = self._due_ns(request.slo.tbt_s or self.default_tbt_s)
                heappush(self.heap, (due, request.arrival_ns, request.id, request))
        batch = Batch(now)
        self.pop_decodes(batch, now)
        while self._paused and self._left(batch) > 0:
            request = self._paused.popleft()
            batch.add_prefill(request, min(request.remaining_prefill, self._left(batch)))
        if self._left(batch) > 0:
            if self.order == "spf":
                ordered = sorted(self.waiting, key=self._urgency)
                self.waiting.clear()
                self.waiting.extend(ordered)
            self._admit(batch)
        self.pop_decodes(batch, inf)
        self.last = [*batch.decode_list, *batch.prefills]
        return batch

    def pop_decodes(self, batch, until):
        heap, kv = self.heap, self.kv
        while heap and heap[0][0] <= until and batch.decode_tokens < self.limit_total_decodes and self._left(batch) > 0:
            request = heappop(heap)[3]
            if self._make_room(request, batch):
                kv.allocate(request, request.length)
                batch.add_decode(request)


def happened(cluster: Cluster, requests: list[Request]) -> tuple[object, ...]:
    """The log, and of every request its counters and the iterations in which it emitted."""
    log = cluster.replicas[0].recorder.table()
    in_set = np.flatnonzero(log.pop("in_set"))
    rows = []
    for r in requests:
        pairs = zip(r.token_ranges[::2], r.token_ranges[1::2], strict=True)
        spans = [in_set[a : b + 1].tolist() if a >= 0 else list(range(-a - 1, -b)) for a, b in pairs]
        counters = (r.arrival_ns, r.first_scheduled_ns, r.prefill_end_ns, r.finish_ns, r.generated, r.preemptions)
        rows.append((*counters, r.chunks, r.computed, list(chain.from_iterable(spans))))
    return {name: column.tolist() for name, column in log.items()}, rows


TARGETS = [(None,), (0.1, 0.5), (0.03, 0.05, 1.5), (0.02, 0.025, 0.03, 0.035)]
"""Seconds between tokens, by class; those of the last differ by an iteration of GridCost, so that classes tie, too."""


@settings(max_examples=examples(60, 25), deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    rate=st.sampled_from([3.0, 15.0, 1e4]),
    targets=st.sampled_from(TARGETS),
    grid=st.booleans(),
    num_blocks=st.sampled_from([130, 190, 2000]),
    budget=st.sampled_from([8, 64, 256]),
    limit=st.sampled_from([5, 16, 128]),
    seqs=st.sampled_from([12, 128]),
    offsets=st.sampled_from([(0.0, 0.0), (0.0, 1.0), (5.0, 10.0)]),
    order=st.sampled_from(["fcfs", "spf"]),
    semantics=st.booleans(),
    max_concurrency=st.sampled_from([None, None, 30]),
    horizon_ms=st.sampled_from([None, None, 3000]),
)
def test_cohorts_decide_as_a_heap_of_decodes(
    seed, rate, targets, grid, num_blocks, budget, limit, seqs, offsets, order, semantics, max_concurrency, horizon_ms
):
    parameters = {
        "token_budget": budget,
        "max_num_seqs": seqs,
        "limit_total_decodes": limit,
        "below_memory_limit_offset": offsets[0],
        "above_memory_limit_offset": offsets[1],
        "memory_limit": 0.6,
        "order": order,
        "user_priority": True,
    }
    classes = [SloClass(tbt_s=tbt_s, priority=not at) for at, tbt_s in enumerate(targets)]
    runs = []
    for policy, macro in ((HeapSlai, False), (Slai, False), (Slai, True)):
        requests = workload(seed, n=40, rate=rate, grid_ns=5_000_000 if grid else 0, longest=500)
        for request in requests:
            request.slo = classes[(seed + request.id * request.id) % len(classes)]
        cluster = serve(
            requests,
            lambda policy=policy: policy(**parameters),
            cost=GridCost() if grid else LineCost(),
            num_blocks=num_blocks,
            macro=macro,
            first_token_at_prefill_end=semantics,
            max_concurrency=max_concurrency,
            horizon_ns=None if horizon_ms is None else horizon_ms * 10**6,
        )
        runs.append(happened(cluster, requests))
    assert runs[0] == runs[1]
    assert runs[0] == runs[2]


def test_tokens_are_told_in_steps_of_the_replica_across_cohorts():
    """It emits in steps 0 to 1, stands still in 2 to 4, emits in 5, moves, and emits in 6: three runs, not four."""
    steps = Steps()
    cohort, other = Cohort(16, steps, 0.1), Cohort(16, steps, 0.1)
    request = Request(0, 0, 20, 100)
    request.blocks = 2
    cohort.join(request)
    cohort.advance(2)
    steps.count += 3  # others ran
    cohort.advance()
    assert cohort.since(request) == 0
    cohort.move([request], other)
    other.advance()
    assert Cohorts(16, steps, [cohort, other]).since(request) == 6
    other.leave(request)
    assert request.token_ranges == [0, 1, 5, 6]
    assert request.generated == 4
    assert request.blocks == 2


def test_a_long_history_is_forgotten_but_for_what_members_still_need():
    steps = Steps()
    cohort = Cohort(16, steps, 0.1)
    early, late = Request(0, 0, 20, 9000), Request(1, 0, 20, 9000)
    cohort.join(early)
    for step in range(4000):
        if step == 1500:
            cohort.join(late)
        if step == 1600:
            cohort.leave(early)
        cohort.advance()
        steps.count += 1  # somebody else ran alone
    cohort.leave(late)
    assert early.token_ranges == [2 * step for step in range(1600) for _ in range(2)]
    assert late.token_ranges == [2 * step for step in range(1500, 4000) for _ in range(2)]
    assert len(cohort._since) < 3000


class SlowPrompts(CostModel):
    """40 ms with a prompt, 5 ms without: the mean, and with it what is critical, falls while decodes run alone."""

    def seconds(self, work):
        return 0.04 if work.prefill_tokens else 0.005

    def decode_slope(self, work):
        return 0


@pytest.mark.parametrize(
    ("arrives_ms", "parameters"),
    [
        # Eight decodes with slack fill the budget: a prompt that comes goes first, and is paused where they press.
        (97, {"default_tbt_s": 0.03, "below_memory_limit_offset": 0}),
        # Eight critical decodes fill it: a prompt waits until the mean has fallen, and they have slack.
        (41, {"default_tbt_s": 0.06, "below_memory_limit_offset": 5}),
    ],
)
def test_decodes_that_fill_the_budget_run_on_only_as_long_as_the_policy_would_let_them(arrives_ms, parameters):
    runs = []
    for policy, macro in ((HeapSlai, False), (Slai, False), (Slai, True)):
        requests = [Request(i, 0, 1, 300) for i in range(8)] + [Request(8, arrives_ms * 10**6, 200, 9)]
        observer = Batches()
        cluster = serve(
            requests,
            lambda policy=policy: policy(token_budget=8, above_memory_limit_offset=10, **parameters),
            cost=SlowPrompts(),
            macro=macro,
            observer=observer,
        )
        runs.append(happened(cluster, requests))
    assert runs[0] == runs[1] == runs[2]
    assert any(batch.iterations > 1 for batch in observer.batches), "nothing was repeated, so nothing was tested"
    assert requests[8].first_scheduled_ns < requests[0].finish_ns, "the prompt never competed"


def test_those_that_finish_together_leave_by_deadline_then_arrival():
    """A closed loop sends the next request as each leaves, so the order is part of the result."""
    steps = Steps()
    sets = [Cohort(16, steps, 0.1, due_ns) for due_ns in (9.0, 4.0)]
    for i, arrival, which in ((0, 30, 0), (1, 10, 0), (2, 40, 1), (3, 20, 1)):
        sets[which].join(Request(i, arrival, 20, 5))
    assert [r.id for r in Cohorts(16, steps, sets).advance(5)] == [3, 2, 1, 0]
    assert steps.count == 5
    alone = Cohort(16, steps, 0.1)
    for i, arrival in ((0, 30), (1, 10)):
        alone.join(Request(i, arrival, 20, 5))
    assert [r.id for r in alone.advance(5)] == [1, 0]
