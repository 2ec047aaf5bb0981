"""Macro-stepping changes nothing but speed: bit-identical requests and iterations, ties and preemptions included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.engine.cluster import Cluster
from llmsim.schedulers.vllm_v1 import VllmV1
from tests.effort import examples
from tests.engine.build import POLICIES, BentCost, CurvedCost, GridCost, LineCost, outcome, serve, workload

COSTS = {"line": LineCost, "curve": CurvedCost, "bend": BentCost, "grid": GridCost}
"""With `grid` the arrivals are on the grid of the iterations' ends, too."""

stops = st.none() | st.tuples(st.integers(0, 49), st.integers(0, 4))
"""A horizon so many ms after that request arrives, where it may fall into a run that the arrival has cut."""


def check_macro_steps(policy, cost, seed, *, n, rate, stop=None, **how) -> None:
    """The same requests with macro-steps and without: everything is the same."""
    runs = []
    for macro in (True, False):
        requests = workload(seed, n=n, rate=rate, grid_ns=5_000_000 if cost == "grid" else 0)
        horizon_ns = None if stop is None else requests[stop[0]].arrival_ns + stop[1] * 10**6
        cluster = serve(requests, policy, cost=COSTS[cost](), macro=macro, horizon_ns=horizon_ns, **how)
        runs.append((cluster, outcome(requests)))
    assert runs[0][1] == runs[1][1]
    tables_equal(runs[0][0], runs[1][0])


def tables_equal(one: Cluster, other: Cluster) -> None:
    for a, b in zip(one.replicas, other.replicas, strict=True):
        left, right = a.recorder.table(), b.recorder.table()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=examples(25, 10), deadline=None, derandomize=True)
@given(
    cost=st.sampled_from([*COSTS, "grid"]),
    seed=st.integers(0, 10**6),
    rate=st.sampled_from([0.5, 3.0, 8.0, 30.0]),
    num_blocks=st.sampled_from([190, 230, 400, 2000]),
    replicas=st.integers(1, 3),
    semantics=st.booleans(),
    max_concurrency=st.sampled_from([None, None, 1, 7]),
    stop=stops,
)
def test_macro_steps_equal_single_steps_bit_for_bit(policy, cost, seed, semantics, **how):
    check_macro_steps(
        POLICIES[policy],
        cost,
        seed,
        n=60,
        first_token_at_prefill_end=semantics,
        regenerate_output=not semantics,
        **how,
    )


@settings(max_examples=examples(200, 60), deadline=None, derandomize=True)
@given(
    cost=st.sampled_from(list(COSTS)),
    seed=st.integers(0, 10**6),
    rate=st.sampled_from([0.5, 3.0, 8.0, 30.0]),
    budget=st.sampled_from([8, 130, 300, 8192]),
    places=st.sampled_from([2, 6, 128]),
    threshold=st.sampled_from([0, 0, 60]),
    num_blocks=st.sampled_from([190, 230, 400, 2000]),
    max_concurrency=st.sampled_from([None, None, 1, 7]),
    stop=stops,
)
def test_macro_steps_equal_single_steps_on_an_engine_that_runs_ahead(cost, seed, budget, places, threshold, **how):
    def policy() -> VllmV1:
        return VllmV1(
            max_num_batched_tokens=max(budget, places),
            max_num_seqs=places,
            long_prefill_token_threshold=threshold,
            reserve_full_isl=not threshold,
        )

    check_macro_steps(policy, cost, seed, n=50, async_scheduling=True, **how)


@pytest.mark.parametrize("ahead", [False, True])
def test_who_queues_while_a_run_ends_after_one_iteration_is_in_the_next_row_only(ahead):
    check_macro_steps(
        lambda: VllmV1(max_num_batched_tokens=300, max_num_seqs=3),
        "bend",
        1,
        n=40,
        rate=30.0,
        num_blocks=2000,
        async_scheduling=ahead,
    )
