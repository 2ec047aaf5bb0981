"""Macro-stepping changes nothing but speed: bit-identical requests and iterations, ties and preemptions included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.cluster import Cluster
from tests.core.build import POLICIES, CurvedCost, GridCost, LineCost, outcome, serve, workload


def tables_equal(one: Cluster, other: Cluster) -> None:
    for a, b in zip(one.replicas, other.replicas, strict=True):
        left, right = a.recorder.table(), b.recorder.table()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    rate=st.sampled_from([0.5, 3.0, 8.0, 30.0]),
    grid=st.booleans(),
    num_blocks=st.sampled_from([190, 230, 400, 2000]),
    replicas=st.integers(1, 3),
    semantics=st.booleans(),
    max_concurrency=st.sampled_from([None, None, 1, 7]),
    horizon_ms=st.sampled_from([None, None, 4000]),
    curved=st.booleans(),
)
def test_macro_steps_equal_single_steps_bit_for_bit(
    policy, seed, rate, grid, num_blocks, replicas, semantics, max_concurrency, horizon_ms, curved
):
    runs = []
    for macro in (True, False):
        requests = workload(seed, n=60, rate=rate, grid_ns=5_000_000 if grid else 0)
        cluster = serve(
            requests,
            POLICIES[policy],
            cost=GridCost() if grid else CurvedCost() if curved else LineCost(),
            num_blocks=num_blocks,
            replicas=replicas,
            macro=macro,
            first_token_at_prefill_end=semantics,
            regenerate_output=not semantics,
            max_concurrency=max_concurrency,
            horizon_ns=None if horizon_ms is None else horizon_ms * 10**6,
        )
        runs.append((cluster, outcome(requests)))
    assert runs[0][1] == runs[1][1]
    tables_equal(runs[0][0], runs[1][0])
