"""vLLM's benchmark record: its numbers are the summary's, and recomputing them from its own lists gives them again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmsim.exports import BenchSetup, sweep_records, vllm_bench_json, vllm_bench_of
from llmsim.exports.vllm_bench import DETAILS
from llmsim.metrics import PERCENTILES
from tests.exports.runs import made, measured, small, with_one_rejected

SETUP = BenchSetup(label="mine", backend="openai")
RATES = ("request_throughput", "request_goodput", "output_throughput", "total_token_throughput")
TOTALS = ("completed", "total_input_tokens", "total_output_tokens")
VLLM_KEYS = {
    *("date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate"),
    *("burstiness", "max_concurrency", "duration", "failed", "max_output_tokens_per_s", "max_concurrent_requests"),
    *("rtfx", *RATES, *TOTALS, *DETAILS),
}
"""The keys of vLLM 0.33's record for generation, statistics aside."""


def statistics() -> list[str]:
    kinds = ["mean", "median", "std", *(f"p{point:g}" for point in PERCENTILES)]
    return [f"{kind}_{name}_ms" for name in ("ttft", "tpot", "itl", "e2el") for kind in kinds]


@pytest.mark.parametrize("scheduler", ["vllm_v0", "vllm_v1", "sarathi", "slai", "niyama"])
def test_numbers_are_those_of_the_summary(scheduler: str) -> None:
    result = small(scheduler)
    record, summary = vllm_bench_of(result), result.summary
    assert result.requests["preemptions"].sum()
    for key in (*TOTALS, *RATES, *statistics()):
        assert record[key] == pytest.approx(summary[key], abs=1e-8), key
    assert record["duration"] == summary["duration_s"]
    assert record["failed"] == summary["sent"] - summary["completed"]
    assert set(record) == VLLM_KEYS | set(statistics()) | {"run_name", "scheduler", "seed"}


def test_its_lists_give_its_numbers_again() -> None:
    record = vllm_bench_of(small())
    assert {len(record[key]) for key in DETAILS} == {60}
    assert sum(record["output_lens"]) == record["total_output_tokens"]
    assert [len(gaps) + 1 for gaps in record["itls"]] == record["output_lens"]
    ends = np.add(record["ttfts"], [sum(gaps) for gaps in record["itls"]])
    assert ends == pytest.approx(np.array(record["latencies"]), abs=1e-8)
    assert np.mean([gap for gaps in record["itls"] for gap in gaps]) * 1000 == pytest.approx(record["mean_itl_ms"])
    assert record["server_ttfts"] == pytest.approx(record["ttfts"])
    starts, ends = np.array(record["start_times"]), np.add(record["start_times"], record["latencies"])
    seconds = np.arange(int(ends.max() - starts.min()) + 1)
    active = [((starts - starts.min()).astype(int) <= s) & ((ends - starts.min()).astype(int) >= s) for s in seconds]
    assert record["max_concurrent_requests"] == max(int(each.sum()) for each in active)


def test_the_header_says_what_was_run(tmp_path: Path) -> None:
    record = vllm_bench_of(small(), tmp_path / "20260102T030405Z-small-1a2b3c4d")
    assert record["date"] == "20260102-030405"
    assert (record["backend"], record["label"], record["num_prompts"]) == ("llmsim", "vllm_v1", 60)
    assert (record["model_id"], record["tokenizer_id"]) == ("rtx-6000-ada/mistral-7b", None)
    assert (record["request_rate"], record["burstiness"], record["max_concurrency"]) == (6.0, 1.0, None)
    arrivals = [
        {"kind": "constant", "rate": 2.0},
        {"kind": "closed_loop", "max_concurrency": 3},
        {"kind": "all_at_once"},
    ]
    heads = [vllm_bench_of(made(workload=workload(each))) for each in arrivals]
    assert [(head["request_rate"], head["burstiness"], head["max_concurrency"]) for head in heads] == [
        (2.0, "inf", None),
        ("inf", 1.0, 3),
        ("inf", 1.0, None),
    ]


def workload(arrivals: dict) -> dict:
    sizes = {"kind": "fixed", "value": 9}
    lengths = {"kind": "synthetic", "prompt": sizes, "output": sizes}
    return {"lengths": lengths, "arrivals": arrivals, "num_requests": 5}


def test_unanswered_requests_are_failures_with_their_reason() -> None:
    record = vllm_bench_of(with_one_rejected())
    assert (record["completed"], record["failed"], record["output_lens"][5]) == (59, 1, 0)
    assert record["errors"][5] == "rejected: prompt_tokens=9000 is more than max_model_len=8192"
    assert [error for at, error in enumerate(record["errors"]) if at != 5] == [""] * 59
    assert (record["ttfts"][5], record["itls"][5], record["latencies"][5]) == (0, [], 0)
    assert record["server_queue_times"][5] is None
    cut = made(horizon_s=5.0)
    summary, record = cut.summary, vllm_bench_of(cut)
    assert record["errors"].count("unfinished") == summary["unfinished"] > 0
    for key in ("completed", "request_throughput", *statistics()):
        assert record[key] == pytest.approx(summary[key], abs=1e-8), key
    # vLLM counts the tokens of answered requests only; the summary's are all that were emitted.
    answered = cut.requests[cut.requests["status"] == "finished"]
    assert record["total_output_tokens"] == answered["generated"].sum() < summary["total_output_tokens"]


def test_requests_of_the_warm_up_are_left_out_of_everything() -> None:
    result = made(warmup_s=4.0)
    record = vllm_bench_of(result)
    late = result.requests["arrival_ns"] >= 4 * 10**9
    assert record["num_prompts"] == record["completed"] == late.sum() < 60
    for key in statistics():
        assert record[key] == pytest.approx(result.summary[key], abs=1e-8), key


def test_an_answer_that_came_whole_has_no_gaps() -> None:
    result = made({"name": "dynamic"}, engine={"num_blocks": 4000})
    record = vllm_bench_of(result)
    assert record["itls"] == [[]] * 60
    assert record["ttfts"] == record["latencies"]
    assert record["mean_itl_ms"] == 0
    assert record["mean_tpot_ms"] == result.summary["mean_tpot_ms"] == 0


def plain() -> tuple[pd.DataFrame, list[list[float]]]:
    """What a client knows: two answers and a failure."""
    table = pd.DataFrame(
        {
            "arrival_ns": [0, 500_000_000, 10**9],
            "first_token_ns": [100_000_000, 700_000_000, -1],
            "finish_ns": [300_000_000, 700_000_000, -1],
            "prompt_tokens": [10, 20, 30],
            "generated": [3, 1, 0],
            "status": ["finished", "finished", "failed"],
        }
    )
    return table, [[0.05, 0.15], [], []]


def test_plain_columns_are_enough() -> None:
    record = vllm_bench_json(*plain(), SETUP, client_queue_s=[0, 0.25, 0], generated_texts=["a", "b", ""])
    assert (record["duration"], record["completed"], record["failed"]) == (1.0, 2, 1)
    assert (record["total_input_tokens"], record["total_output_tokens"]) == (30, 4)
    assert (record["mean_tpot_ms"], record["p50_itl_ms"]) == (pytest.approx(100), pytest.approx(100))
    assert (record["queue_times"], record["errors"]) == ([0, 0.25, 0], ["", "", "failed"])
    assert record["request_goodput"] is None
    assert "server_ttfts" not in record
    assert (record["max_output_tokens_per_s"], record["max_concurrent_requests"]) == (4, 2)


def test_goodput_holds_every_limit_against_answered_requests() -> None:
    def good(**limits: float) -> float:
        return float(vllm_bench_json(*plain(), SETUP, duration_s=2, slo_ms=limits)["request_goodput"])

    assert (good(ttft=150), good(ttft=250), good(ttft=250, tpot=50), good(e2el=100)) == (0.5, 1.0, 0.5, 0)


def test_nothing_answered_gives_zeros_as_in_vllm() -> None:
    table, gaps = plain()
    nothing = vllm_bench_json(table.iloc[2:].reset_index(drop=True), gaps[2:], SETUP, duration_s=1)
    assert {nothing[key] for key in statistics()} == {0}
    empty = vllm_bench_json(table.iloc[:0], [], SETUP)
    assert (empty["duration"], empty["request_throughput"], empty["num_prompts"]) == (0, 0, 0)
    json.dumps([nothing, empty], allow_nan=False)


def test_what_does_not_fit_is_named() -> None:
    table, gaps = plain()
    with pytest.raises(ValueError, match="lacks generated"):
        vllm_bench_json(table.drop(columns="generated"), gaps, SETUP)
    with pytest.raises(ValueError, match="itls_s must have one entry a request, 3, but has 2"):
        vllm_bench_json(table, gaps[:2], SETUP)
    with pytest.raises(ValueError, match="limits ttft, tpot, e2el but got 'itl'"):
        vllm_bench_json(table, gaps, SETUP, slo_ms={"itl": 5})
    with pytest.raises(ValueError, match="above 0 but got 0"):
        vllm_bench_json(table, gaps, SETUP, duration_s=0)


def test_a_sweep_is_a_list_of_short_records() -> None:
    runs = [small("vllm_v1"), small("sarathi")]
    records = sweep_records([(Path("a"), each) for each in runs])
    assert [record["scheduler"] for record in records] == ["vllm_v1", "sarathi"]
    assert all(not set(record) & set(DETAILS) for record in records)
    assert records[0]["p99_e2el_ms"] == vllm_bench_of(runs[0])["p99_e2el_ms"]


def test_a_measured_run_is_a_record_too() -> None:
    record, same = vllm_bench_of(measured()), vllm_bench_of(small())
    assert (record["backend"], record["model_id"], record["queue_times"]) == ("openai", "some/model", [0.001] * 60)
    assert "server_ttfts" not in record
    for key in statistics():
        assert record[key] == pytest.approx(same[key]), key
