"""Requests over the model's limit: vLLM ends their answers there, others refuse them, and it is counted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.core.request import Request
from llmsim.schedulers.vllm_v0 import VllmV0
from llmsim.schedulers.vllm_v1 import VllmV1
from tests.engine import build
from tests.engine.observe import requests_of
from tests.engine.test_macro_step import tables_equal

LIMIT = 300
VLLM = {"vllm_v0": VllmV0, "vllm_v1": lambda: VllmV1(max_num_batched_tokens=130, max_num_seqs=64)}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    policy=st.sampled_from(["vllm_v0", "vllm_v1", "vllm_v1 ahead"]),
    macro=st.booleans(),
    num_blocks=st.sampled_from([23, 40, 400]),
    max_concurrency=st.sampled_from([None, 1, 7]),
    semantics=st.booleans(),
)
def test_a_run_over_the_limit_is_the_run_of_what_fits(seed, policy, macro, num_blocks, max_concurrency, semantics):
    """Bit for bit the run of requests that asked for what they get, on any number of blocks."""
    asked = build.workload(seed, n=40, rate=30.0, longest=LIMIT - 1)
    fitting = [
        Request(r.id, r.arrival_ns, r.prompt_tokens, min(r.output_tokens, LIMIT - r.prompt_tokens)) for r in asked
    ]
    runs = [
        build.serve(
            requests,
            VLLM[policy.split()[0]],
            num_blocks=num_blocks,
            macro=macro,
            async_scheduling=policy.endswith("ahead"),
            max_concurrency=max_concurrency,
            first_token_at_prefill_end=semantics,
            max_model_len=LIMIT,
        )
        for requests in (asked, fitting)
    ]
    assert build.outcome(asked) == build.outcome(fitting)
    tables_equal(*runs)
    cut = sum(a.output_tokens > b.output_tokens for a, b in zip(asked, fitting, strict=True))
    assert [run.replicas[0].lengths.capped for run in runs] == [cut, 0]
    assert cut > 0


@pytest.mark.parametrize("policy", VLLM)
def test_vllm_ends_answers_where_the_model_ends_and_refuses_prompts_without_room(policy):
    requests = requests_of([(0, LIMIT - 1, 50), (0, LIMIT, 1), (0, LIMIT + 1, 1), (0, 100, 200), (0, 100, 201)])
    cluster = build.serve(requests, VLLM[policy], max_model_len=LIMIT)
    assert [r.generated for r in requests] == [1, 0, 0, 200, 200]
    assert requests[1].rejected == "prompt_tokens=300 leaves no room for an answer in max_model_len=300"
    assert requests[2].rejected == "prompt_tokens=301 is more than max_model_len=300"
    lengths = cluster.replicas[0].lengths
    assert (lengths.capped, lengths.refused) == (2, 2)


@pytest.mark.parametrize("policy", [name for name in build.POLICIES if not name.startswith(("vllm", "continuous"))])
def test_other_engines_refuse_what_asks_for_more(policy):
    requests = requests_of([(0, 200, 100), (0, 200, 101), (0, 20, 9)])
    cluster = build.serve(requests, build.POLICIES[policy], max_model_len=LIMIT)
    assert [r.generated for r in requests] == [100, 0, 9]
    assert requests[1].rejected == "prompt_tokens=200 and output_tokens=101 are more than max_model_len=300"
    assert requests[1].finish_ns == -1
    lengths = cluster.replicas[0].lengths
    assert (lengths.capped, lengths.refused) == (0, 1)


def test_who_emits_all_tokens_anew_after_a_preemption_ends_at_the_limit_too():
    rows = [(0, 64, 200), (0, 64, 200)]
    requests = requests_of(rows)
    build.serve(
        requests, VLLM["vllm_v1"], num_blocks=19, regenerate_output=True, first_token_at_prefill_end=False,
        max_model_len=280,
    )
    assert sum(r.preemptions for r in requests) > 0
    assert max(r.generated for r in requests) == 280 - 64
    assert all(200 <= r.generated <= 280 - 64 for r in requests)


def test_what_never_grows_past_the_limit_needs_no_blocks_past_it():
    """A million tokens asked for, 300 at most served: 20 blocks do (one is vLLM's null block)."""
    requests = requests_of([(0, 100, 10**6)])
    build.serve(requests, VLLM["vllm_v1"], num_blocks=20, max_model_len=LIMIT)
    assert requests[0].generated == 200
