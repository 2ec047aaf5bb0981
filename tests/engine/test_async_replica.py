"""An engine that forms batches one ahead: what a batch may know, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.core.kvcache import KVCache
from llmsim.core.request import Request
from llmsim.costs.linear import Linear
from llmsim.engine.cluster import Cluster
from llmsim.engine.recorder import Recorder
from llmsim.executors.simulated import SimulatedExecutor
from llmsim.routers.round_robin import RoundRobin
from llmsim.schedulers.vllm_v1 import VllmV1
from llmsim.testing import check_scheduler
from tests.engine import build
from tests.engine.observe import Batches, requests_of

MS = 1_000_000
ONE_MS = Linear(constant=1e-3)


def serve(
    rows: list[tuple[int, int, int]], *, ahead: bool = True, macro: bool = True, blocks: int = 1000, **options: int
) -> tuple[list[Request], Batches]:
    """Requests (arrival ns, prompt, output) on one vLLM v1 engine whose iterations take 1 ms each."""
    router = RoundRobin()
    router.bind(1, np.random.default_rng(0))
    cluster, seen, kv = Cluster(router), Batches(), KVCache(blocks)
    scheduler = VllmV1(null_block=False, **options)
    scheduler.bind(kv, 4096)
    cluster.add_replica(scheduler, SimulatedExecutor(ONE_MS), kv, Recorder(seen), macro=macro, async_scheduling=ahead)
    requests = requests_of(rows)
    cluster.run(requests)
    assert kv.free_blocks == kv.num_blocks
    return requests, seen


@pytest.mark.parametrize("macro", [False, True])
def test_an_arrival_misses_the_batch_that_was_already_formed(macro):
    rows = [(0, 10, 9), (MS // 2, 10, 2)]  # the second comes during iteration 0; 1 was formed when 0 began
    late, _ = serve(rows, macro=macro)
    at_once, _ = serve(rows, ahead=False, macro=macro)
    assert at_once[1].first_scheduled_ns == MS
    assert late[1].first_scheduled_ns == 2 * MS
    assert late[0].finish_ns == at_once[0].finish_ns


@pytest.mark.parametrize("macro", [False, True])
def test_an_arrival_at_the_instant_a_batch_begins_is_in_the_next_but_one(macro):
    rows = [(0, 10, 9), (MS, 10, 2)]  # iteration 1 begins at 1 ms, and with it 2 is formed
    requests, _ = serve(rows, macro=macro)
    assert requests[1].first_scheduled_ns == 2 * MS


def test_the_place_of_a_finished_request_is_free_one_batch_later():
    rows = [(0, 10, 3), (0, 10, 9), (0, 10, 2)]  # the first ends in iteration 2
    requests, seen = serve(rows, max_num_seqs=2)
    at_once, _ = serve(rows, ahead=False, max_num_seqs=2)
    assert at_once[2].first_scheduled_ns == 3 * MS
    assert requests[2].first_scheduled_ns == 4 * MS
    alone = seen.batches[2]
    assert alone.decodes == [1]
    assert not alone.prefills


def test_nobody_to_run_ahead_means_waiting_for_the_results():
    requests, _ = serve([(0, 10, 3), (0, 10, 2)], max_num_seqs=1)  # iteration 3 cannot be formed before 2 is over
    assert requests[1].first_scheduled_ns == 3 * MS


def test_an_idle_engine_starts_at_once():
    requests, _ = serve([(0, 10, 2), (10 * MS + 7, 10, 2)])
    assert requests[1].first_scheduled_ns == 10 * MS + 7


def test_blocks_of_a_finished_request_are_taken_while_the_next_batch_is_formed():
    rows = [(0, 64, 3), (0, 1, 30), (0, 64, 2)]  # the third needs what the first holds
    requests, _ = serve(rows, blocks=8)
    at_once, _ = serve(rows, ahead=False, blocks=8)
    assert at_once[2].first_scheduled_ns == 3 * MS
    assert requests[2].first_scheduled_ns == 4 * MS


@pytest.mark.parametrize("macro", [False, True])
def test_who_has_arrived_waits_from_the_next_iteration_on(macro):
    """Also those who cut a macro-step, and those who come in what is left of it. Iterations take 5 ms here."""
    rows = [(0, 10, 9), (7 * MS, 10, 2), (8 * MS, 10, 2), (12 * MS, 10, 2), (15 * MS, 10, 2)]
    cluster = build.serve(requests_of(rows), VllmV1, cost=build.GridCost(), macro=macro, async_scheduling=True)
    assert cluster.replicas[0].recorder.table()["waiting"].tolist()[:6] == [0, 0, 2, 2, 0, 0]


@pytest.mark.parametrize("macro", [False, True])
@pytest.mark.parametrize("arrival", [17 * MS, 12 * MS, 7 * MS, 99 * MS])  # in the same iteration, before, never
def test_the_horizon_leaves_the_iteration_in_flight_and_no_more(macro, arrival):
    rows = [(0, 10, 9), (arrival, 10, 9)]
    cluster = build.serve(
        requests_of(rows),
        VllmV1,
        cost=build.GridCost(),
        macro=macro,
        async_scheduling=True,
        horizon_ns=18 * MS,
    )
    assert cluster.replicas[0].recorder.table()["end_ns"].tolist() == [5 * MS, 10 * MS, 15 * MS, 20 * MS]


@pytest.mark.parametrize("macro", [False, True])
def test_who_is_done_but_in_flight_gives_its_blocks_before_anybody_loses_work(macro):
    rows = [(0, 16, 9), (0, 20, 1), (0, 16, 1)]  # 1 ends in iteration 0; 0 needs a second block in 1, and none is free
    requests, seen = serve(rows, macro=macro, blocks=3)
    at_once, _ = serve(rows, ahead=False, macro=macro, blocks=3)
    assert [r.preemptions for r in requests] == [0, 1, 0]
    assert [r.preemptions for r in at_once] == [0, 0, 0]
    assert (seen.batches[1].decodes, seen.batches[1].preempted) == ([0], [1])
    assert not seen.batches[1].prefills  # nobody enters in a step that preempted
    assert requests[1].finish_ns == at_once[1].finish_ns == MS
    assert requests[0].finish_ns == at_once[0].finish_ns


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    lengths=st.tuples(st.sampled_from([20, 100, 300]), st.sampled_from([3, 10, 60])),
    spare=st.integers(0, 11),
    places=st.sampled_from([2, 6, 64]),
    budget=st.sampled_from([8, 64, 2048]),
    threshold=st.sampled_from([0, 0, 20]),
    reserve=st.booleans(),
    max_concurrency=st.sampled_from([None, None, 3, 9]),
)
def test_brief_requests_on_few_blocks_are_answered_once_and_nothing_leaks(
    seed, lengths, spare, places, budget, threshold, reserve, max_concurrency
):
    """Where requests in flight are preempted all the time: macro-steps are single steps, and every block comes back."""
    rng = np.random.default_rng(seed)
    arrivals = (np.cumsum(rng.exponential(1 / rng.choice([3, 30, 300]), 50)) * 1e9).astype(np.int64)
    prompts, outputs = (rng.integers(1, longest + 1, 50) for longest in lengths)
    rows = list(zip(arrivals.tolist(), prompts.tolist(), outputs.tolist(), strict=True))
    runs = []
    for macro in (False, True):
        requests = requests_of(rows)
        cluster = build.serve(
            requests,
            lambda: VllmV1(
                max_num_batched_tokens=max(budget, places),
                max_num_seqs=places,
                long_prefill_token_threshold=threshold,
                reserve_full_isl=reserve,
            ),
            num_blocks=2 - (-int((prompts + outputs).max()) // 16) + spare,
            macro=macro,
            async_scheduling=True,
            max_concurrency=max_concurrency,
        )
        replica = cluster.replicas[0]
        assert replica.kv.free_blocks == replica.kv.num_blocks
        assert (replica.outstanding, replica.generated, replica.prefill_left) == (0, 0, 0)
        assert [r.generated for r in requests] == [r.output_tokens for r in requests]
        runs.append((build.outcome(requests), replica.recorder.table()))
    assert runs[0][0] == runs[1][0]
    for name, column in runs[0][1].items():
        np.testing.assert_array_equal(column, runs[1][1][name], err_msg=name)


def test_the_policy_passes_conformance_on_such_an_engine():
    check_scheduler(lambda: VllmV1(max_num_batched_tokens=300, max_num_seqs=128))
