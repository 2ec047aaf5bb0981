"""Niyama: chunk sizes and relegation as measured on the original, the mended faults, and other predictors."""

from __future__ import annotations

import pytest

from llmsim.core.batch import Batch
from llmsim.core.kvcache import KVCache
from llmsim.core.request import Request, SloClass
from llmsim.costs.calibration import load_calibration
from llmsim.errors import ConfigError, SchedulerError
from llmsim.runs.replica_groups import with_predictor
from llmsim.runs.simulation import simulate
from llmsim.schedulers.niyama import Entry, Niyama
from llmsim.schedulers.niyama_predictor import published_predictor
from llmsim.spec.run_spec import load_runs
from tests.engine.build import serve
from tests.engine.observe import requests_of


def bound(**options):
    policy = Niyama(**options)
    policy.bind(KVCache(40_000), 260_000)
    return policy


@pytest.mark.parametrize(("slack", "tokens"), [(0.05, 246), (0.0, 118), (-1.0, 118), (1e18, 2542)])
def test_dynamic_chunks_are_those_of_the_original(slack, tokens):
    """Ten decodes of context 0; limits as the original program returned them."""
    policy, batch = bound(), Batch(0)
    batch.decode_tokens = 10
    assert policy._dynamic_limit(batch, slack) == tokens


def test_a_prompt_that_cannot_meet_its_deadline_is_served_after_the_others():
    """60,000 tokens at 8,500 a second are 7.06 s, more than 6: it is relegated at once, as in the original."""
    policy = bound()
    policy.add(Request(0, 0, 60_000, 5, SloClass(tier=0)))
    policy.add(Request(1, 0, 300, 5, SloClass(tier=1)))
    batch = policy.schedule(0)
    assert [(r.id, n) for r, n in zip(batch.prefills, batch.chunks, strict=True)] == [(1, 300), (0, 2252)]


def test_where_decodes_exceed_the_chunk_the_most_urgent_run_and_the_original_leaves_them_out():
    chosen = {}
    for original in (False, True):
        policy = bound(chunk_size=2, mode="edf", largest_slack_first=original)
        for i in range(4):
            request = Request(i, i * 1_000_000_000, 16, 50, SloClass(tier=0))
            request.computed, request.prefill_end_ns = 16, request.arrival_ns + 1
            policy._deadline_s[i] = 6.0
            policy._running.append(request)
        chosen[original] = {r.id for r in policy.schedule(4_000_000_000).decode_list}
    assert chosen == {False: {0, 1}, True: {2, 3}}


def test_a_full_cache_preempts_where_the_original_dies():
    rows = [(i * 50_000_000, 300, 200) for i in range(12)]
    requests = requests_of(rows)
    serve(requests, lambda: Niyama(mode="fcfs"), num_blocks=150)
    assert all(r.generated == 200 for r in requests)
    assert sum(r.preemptions for r in requests) > 0
    with pytest.raises(SchedulerError, match="KV blocks"):
        serve(requests_of(rows), lambda: Niyama(mode="fcfs", unchecked_memory=True), num_blocks=150)


def test_entries_are_kept_in_order_of_keys_that_change_unless_the_heap_is_stale():
    """A partial prompt whose remaining work shrank below another's goes first under srpf once re-entered."""
    policy = bound(mode="srpf", chunk_size=100)
    policy.add(Request(0, 0, 150, 5))
    first = policy.schedule(0)
    assert first.chunks == [100]
    first.prefills[0].computed = 100
    policy.add(Request(1, 1, 60, 5))
    assert policy.schedule(2).prefills[0].id == 0


def test_any_calibration_may_be_the_predictor():
    named = with_predictor("niyama,predictor=a100/llama-3-8b")
    batch = Batch(0)
    batch.decode_tokens = 10
    assert named["predictor"](batch) == load_calibration("a100/llama-3-8b").cost_model().seconds(batch)
    spec = load_runs(
        mapping={
            "calibration": "a100/llama-3-8b",
            "scheduler": "niyama,execution_threshold=0.06,predictor=rtx-6000-ada/mistral-7b",
            "workload": {"trace": "sharegpt4", "num_requests": 200, "arrivals": {"kind": "poisson", "rate": 6.0}},
        }
    )[0]
    other = simulate(spec)
    published = simulate(spec.replace(scheduler="niyama,execution_threshold=0.06"))
    assert other.label.endswith("predictor=rtx-6000-ada/mistral-7b")
    assert other.iterations["prefill_tokens"].tolist() != published.iterations["prefill_tokens"].tolist()


def test_a_slower_prediction_makes_smaller_chunks():
    batch = Batch(0)
    batch.decode_tokens = 10
    assert bound()._dynamic_limit(batch, 0.07) == 502
    assert bound(predictor=lambda work: 2 * published_predictor(work))._dynamic_limit(batch, 0.07) == 118


def test_a_predictor_that_is_no_calibration_is_an_error():
    with pytest.raises(ConfigError, match="published"):
        Niyama(predictor="a100/llama-3-8b")


def test_entries_compare_by_their_present_key():
    request = Request(0, 0, 10, 5)
    key = lambda entry: (entry.relegated,)  # noqa: E731
    early, late = Entry(request, key, 1.0), Entry(request, key, 1.0, relegated=1)
    assert early < late
