"""The benchmark suite's batchers, the hold_n probe, alarms and the start-up lag."""

from __future__ import annotations

import pytest

from llmsim.errors import ConfigError, StalledError
from llmsim.runs.simulation import simulate
from llmsim.schedulers.dynamic import Dynamic
from llmsim.schedulers.hold_n import HoldN
from llmsim.schedulers.naive import Naive
from llmsim.spec.run_spec import load_runs
from tests.engine.build import LineCost, serve, workload
from tests.engine.observe import Batches, requests_of

S = 1_000_000_000


def formed(requests, policy, **options):
    """Start of each batch's prefill, ns, and its request ids."""
    seen = Batches()
    cluster = serve(requests, policy, observer=seen, num_blocks=9000, macro=False, **options)
    table = cluster.replicas[0].recorder.table()
    starts = [int(start) for start, n in zip(table["start_ns"], table["prefill_tokens"], strict=True) if n]
    return list(zip(starts, [[i for i, _ in b.prefills] for b in seen.batches if b.prefills], strict=True))


def test_a_full_batch_runs_at_once_and_a_part_of_one_at_the_timeout():
    requests = requests_of([(0, 50, 3)] * 3 + [(S // 10, 50, 3)] * 2)
    assert formed(requests, lambda: Naive(batch_size=3)) == [(0, [0, 1, 2]), (requests[0].finish_ns + S // 2, [3, 4])]


def test_after_an_idle_time_longer_than_the_timeout_the_first_request_runs_alone():
    requests = requests_of([(2 * S, 50, 3), (2 * S + 1000, 50, 3)])
    (first, alone), (second, other) = formed(requests, lambda: Naive(batch_size=4, timeout_s=0.5))
    assert (first, alone, other) == (2 * S, [0], [1])
    assert second == requests[0].finish_ns + S // 2


def test_the_wait_for_the_next_request_is_never_shorter_than_ten_milliseconds():
    requests = requests_of([(495_000_000, 50, 3), (503_000_000, 50, 3)])
    assert formed(requests, lambda: Naive(batch_size=4)) == [(503_000_000, [0, 1])]
    requests = requests_of([(495_000_000, 50, 3), (506_000_000, 50, 3)])
    assert formed(requests, lambda: Naive(batch_size=4))[0] == (505_000_000, [0])


def test_all_answers_of_a_batch_come_with_its_last_and_padding_is_priced():
    """Prompts of 100 and 40 tokens, outputs of 2 and 6: a rectangle of 2 x 100, then five decodes of two rows."""
    requests = requests_of([(0, 100, 2), (0, 40, 6)])
    cluster = serve(requests, lambda: Naive(batch_size=2), num_blocks=900)
    table = cluster.replicas[0].recorder.table()
    assert requests[0].finish_ns == requests[1].finish_ns
    assert table["prefill_tokens"].tolist() == [200, 0, 0, 0, 0, 0]
    assert table["decode_tokens"].tolist() == [0, 2, 2, 2, 2, 2]
    assert table["decode_context"].tolist() == [0, *(2 * (100 + n) for n in range(1, 6))]
    assert [r.generated for r in requests] == [2, 6]


def test_a_client_of_a_batcher_sees_its_first_token_with_its_last():
    result = simulate(
        load_runs(
            mapping={
                "calibration": "a100/llama-3-8b",
                "scheduler": "naive,batch_size=4",
                "workload": {
                    "trace": "sharegpt4",
                    "num_requests": 30,
                    "arrivals": {"kind": "closed_loop", "max_concurrency": 10},
                },
            }
        )[0]
    )
    assert result.summary["median_ttft_ms"] == result.summary["median_e2el_ms"] > 0


def test_dynamic_grows_by_two_while_memory_is_free_and_waits_its_timeout_for_what_never_comes():
    """Ten clients, batches of 2, 4, 6, 8, then 10: more than ten never come, so each later batch waits 0.5 s."""
    requests = workload(1, n=120)
    for request in requests:
        request.prompt_tokens = request.prefill_tokens = 50
        request.output_tokens = request._output_target = 20
    batches = formed(requests, lambda: Dynamic(batch_size=2, min_batch_size=2), max_concurrency=10)
    assert [len(ids) for _, ids in batches[:4]] == [2, 4, 6, 8]
    later = [len(ids) for _, ids in batches[5:-1]]
    assert set(later) == {10}
    ends = [max(requests[i].finish_ns for i in ids) for _, ids in batches]
    waits = [start - end for (start, _), end in zip(batches[6:], ends[5:-1], strict=True)]
    assert all(wait == S // 2 for wait in waits[:-1])


def test_dynamic_shrinks_by_one_when_memory_is_short_and_never_leaves_its_bounds():
    requests = requests_of([(0, 160, 4)] * 40)
    # 6 x 11 blocks of 100 is over half: every batch of 6 or more shrinks, every smaller one grows.
    seen = Batches()
    policy = lambda: Dynamic(batch_size=6, min_batch_size=3, max_batch_size=9, memory_threshold=0.5)  # noqa: E731
    serve(requests, policy, observer=seen, num_blocks=100)
    sizes = [len(batch.prefills) for batch in seen.batches if batch.prefills]
    assert sizes[:5] == [6, 5, 4, 6, 5]
    full = Dynamic(batch_size=4, min_batch_size=4, max_batch_size=8, memory_threshold=0.5, memory_floor=0.6)
    seen = Batches()
    serve(requests_of([(0, 160, 4)] * 16), lambda: full, observer=seen, num_blocks=900)
    assert [len(batch.prefills) for batch in seen.batches if batch.prefills] == [4, 4, 4, 4]


def test_hold_n_times_one_batch_of_n_decodes_and_a_prompt_that_fills_the_budget():
    requests = requests_of([(0, 300, 5)] * 9 + [(0, 512 - 8, 1)])
    cluster = serve(requests, lambda: HoldN(token_budget=512, hold_n=8), num_blocks=900)
    table = cluster.replicas[0].recorder.table()
    (measured,) = [i for i, n in enumerate(table["decode_tokens"]) if n and table["prefill_tokens"][i]]
    assert table["prefill_tokens"][measured] + table["decode_tokens"][measured] == 512
    assert table["decode_tokens"][measured] == 8
    assert table["decode_context"][measured] == 8 * 301
    assert table["prefill_tokens"][:measured].tolist() == [300] * 8
    assert all(r.finish_ns > 0 for r in requests)


def test_hold_n_of_nobody_times_the_prompt_alone_and_then_serves_the_rest_as_memory_allows():
    """Prompts of 60 tokens, 4 blocks with their answers, are the whole budget; 9 blocks hold two of them."""
    requests = requests_of([(0, 28, 3), (0, 60, 3), (0, 60, 3), (0, 60, 3)])
    seen = Batches()
    serve(requests, lambda: HoldN(token_budget=60, hold_n=0), num_blocks=9, observer=seen, macro=False)
    shapes = [([i for i, _ in batch.prefills], batch.decodes) for batch in seen.batches]
    assert shapes[0] == ([1], [])
    assert all(len(prefills) <= 1 and not (prefills and decodes) for prefills, decodes in shapes)
    assert sorted(i for prefills, _ in shapes for i in prefills) == [0, 1, 2, 3]
    assert all(r.generated == 3 for r in requests)


def test_hold_n_without_enough_requests_is_an_error_not_a_shorter_table():
    with pytest.raises(StalledError, match="formed no batch"):
        serve(requests_of([(0, 300, 5)] * 3), lambda: HoldN(hold_n=8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Naive(batch_size=0), "batch_size must be at least 1"),
        (lambda: Naive(timeout_s=-1), "timeout_s must be a finite number"),
        (lambda: Dynamic(min_batch_size=8, max_batch_size=4), "max_batch_size must be at least min_batch_size=8"),
        (lambda: Dynamic(memory_threshold=1.5), "memory_threshold must be a finite number"),
        (lambda: HoldN(token_budget=4, hold_n=4), "token_budget must be above hold_n=4"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_an_engine_that_starts_late_finds_its_backlog():
    base = {
        "calibration": "a100/llama-3-8b",
        "workload": {"trace": "sharegpt4", "num_requests": 50, "arrivals": {"kind": "poisson", "rate": 5.0}},
    }
    on_time, late = (
        simulate(load_runs(mapping={**base, "engine": {"startup_lag_s": lag}})[0]) for lag in (0.0, 4.0)
    )
    assert (late.requests["arrival_ns"] == on_time.requests["arrival_ns"]).all()
    assert late.iterations["start_ns"].min() == 4 * S
    early = late.requests["arrival_ns"] < 4 * S
    assert early.sum() > 10
    assert (late.requests["first_scheduled_ns"][early] >= 4 * S).all()
    assert late.summary["mean_ttft_ms"] > on_time.summary["mean_ttft_ms"]


def test_prices_of_a_rectangle_are_those_of_its_width():
    """Two prompts of 100 and 40 cost what two of 100 cost."""
    ends = []
    for prompts in ((100, 40), (100, 100)):
        requests = requests_of([(0, n, 4) for n in prompts])
        serve(requests, lambda: Naive(batch_size=2), cost=LineCost(), num_blocks=900)
        ends.append(requests[0].finish_ns)
    assert ends[0] == ends[1]
