"""The summary: right numbers, everything counted, the same bytes every time, no crash on nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from llmsim.errors import ConfigError
from llmsim.metrics import Slo, bench_record, parse_slo, summarize
from tests.metrics import reference

LATENCIES = ("ttft", "tpot", "itl", "e2el", "queue")


def truth(run: reference.Tables, warmup_ns: int = 0) -> dict[str, np.ndarray]:
    """Latency samples, ms, of the finished requests, one token at a time."""
    out: dict[str, list[float]] = {name: [] for name in LATENCIES}
    for row, ns in zip(run.requests.to_dict("records"), run.token_ns, strict=True):
        if row["status"] == "finished" and row["arrival_ns"] >= warmup_ns:
            out["ttft"].append(ns[0] - row["arrival_ns"])
            out["e2el"].append(ns[-1] - row["arrival_ns"])
            out["queue"].append(row["first_scheduled_ns"] - row["arrival_ns"])
            out["itl"] += np.diff(ns).tolist()
            if len(ns) > 1:
                out["tpot"].append((ns[-1] - ns[0]) / (len(ns) - 1))
    return {name: np.array(values) / 1e6 for name, values in out.items()}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("warmup_s", [0, 0.05])
def test_latencies_are_those_of_the_finished_requests(seed: int, warmup_s: float) -> None:
    run = reference.run(seed, count=40, max_iterations=40 if seed % 2 else 10**6)
    summary = summarize(*run.tables, replicas=2, warmup_s=warmup_s)
    for name, sample in truth(run, round(warmup_s * 1e9)).items():
        assert summary[f"mean_{name}_ms"] == pytest.approx(sample.mean(), abs=1e-6)
        assert summary[f"std_{name}_ms"] == pytest.approx(sample.std(), abs=1e-6)
        assert summary[f"median_{name}_ms"] == summary[f"p50_{name}_ms"]
        for point in (0.1, 50, 99, 99.9):
            wanted = np.percentile(sample, point)
            assert summary[f"p{point:g}_{name}_ms"] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_every_request_is_counted_and_rates_are_counts_over_the_duration(seed: int) -> None:
    run = reference.run(seed, max_iterations=25, rejected=3)
    summary = summarize(*run.tables, replicas=2)
    parts = (summary["completed"], summary["unfinished"], summary["rejected"], summary["failed"])
    assert summary["sent"] == len(run.requests) == sum(parts)
    assert summary["rejected"] == 3
    assert summary["unfinished"]
    assert summary["requests"]["censored"] == summary["unfinished"] + 3
    assert summary["requests"]["measured"] == summary["completed"]
    assert any("unfinished" in note for note in summary["notes"])
    finished = run.requests[run.requests["status"] == "finished"]
    start, end = run.requests["arrival_ns"].min(), run.iterations["end_ns"].max()
    assert summary["duration_s"] == pytest.approx((end - start) / 1e9)
    assert summary["request_throughput"] * summary["duration_s"] == pytest.approx(len(finished))
    assert summary["total_output_tokens"] == run.requests["generated"].sum()
    lost = run.requests["generated"].sum() - finished["generated"].sum()
    assert summary["requests"]["output_tokens_of_unfinished"] == lost


def test_a_horizon_ends_the_span_only_if_it_cut_requests_off() -> None:
    done = reference.run(3)
    assert summarize(*done.tables, horizon_s=100)["duration_s"] < 10
    cut = reference.run(3, max_iterations=20)
    start = cut.requests["arrival_ns"].min() / 1e9
    assert summarize(*cut.tables, horizon_s=100)["duration_s"] == pytest.approx(100 - start)


def test_warm_up_requests_are_counted_and_rates_are_of_what_completed_after_it() -> None:
    run = reference.run(4, count=60)
    summary = summarize(*run.tables, replicas=2, warmup_s=0.1)
    early = (run.requests["arrival_ns"] < 10**8).sum()
    assert summary["requests"]["warmup_excluded"] == early > 0
    late = (run.requests["finish_ns"] >= 10**8).sum()
    assert summary["duration_s"] == pytest.approx((run.requests["finish_ns"].max() - 10**8) / 1e9)
    assert summary["request_throughput"] * summary["duration_s"] == pytest.approx(late)


def test_kv_and_batch_statistics_are_time_weighted_and_count_idle_time() -> None:
    run = reference.run(5, replicas=1, rejected=0, count=12)
    table = run.iterations
    summary = summarize(*run.tables, kv_num_blocks=20, block_size=16)
    start, end = run.requests["arrival_ns"].min(), run.requests["finish_ns"].max()
    lasted = (table["end_ns"] - table["start_ns"]).to_numpy()
    kv, batches = summary["kv"], summary["batches"]
    used = table["kv_used_blocks"].to_numpy()
    assert kv["mean_share"] == pytest.approx((used * lasted).sum() / (end - start) / 20, abs=1e-6)
    assert kv["max_used_blocks"] == used.max()
    micro = np.append(np.repeat(used, lasted // 1000), np.zeros((end - start - lasted.sum()) // 1000))
    assert kv["p99_share"] == pytest.approx(np.percentile(micro, 99) / 20, abs=0.01)
    assert batches["busy_share"] == pytest.approx(lasted.sum() / (end - start), abs=1e-6)
    assert batches["mean_decode_seqs"] == pytest.approx(table["decode_tokens"].mean(), abs=1e-6)
    assert summarize(*run.tables)["kv"]["mean_share"] is None


@pytest.mark.parametrize("tbt_rule", ["max", "mean"])
@pytest.mark.parametrize("slo", [None, parse_slo("ttft:20 tpot:6 itl:30 e2el:60")])
def test_attainment_is_met_over_sent_with_the_lost_in_the_denominator(tbt_rule: Any, slo: Slo | None) -> None:
    run = reference.run(7, count=80, max_iterations=90)
    sent: dict[str, int] = {}
    met: dict[str, int] = {}
    limits = slo.limits() if slo else {}
    for row, ns in zip(run.requests.to_dict("records"), run.token_ns, strict=True):
        name = row["slo_class"]
        if not limits and name == "none":
            continue
        sent[name] = sent.get(name, 0) + 1
        gaps = np.diff(ns) / 1e6 if len(ns) > 1 else np.zeros(1)
        if row["status"] == "finished":
            ttft, e2el = (ns[0] - row["arrival_ns"]) / 1e6, (ns[-1] - row["arrival_ns"]) / 1e6
            seen = {"ttft": ttft, "tpot": gaps.mean(), "itl": gaps.max(), "e2el": e2el}
            own = {"ttft": row["ttft_s_target"], "e2el": row["ttlt_s"]}
            own["itl" if tbt_rule == "max" else "tpot"] = row["tbt_s"]
            good = all(seen[key] <= limit for key, limit in limits.items())
            good = good and not any(seen[key] > limit * 1e3 for key, limit in own.items())
            met[name] = met.get(name, 0) + good
    report = summarize(*run.tables, replicas=2, slo=slo, tbt_rule=tbt_rule)["slo"]
    assert report["sent"] == sum(sent.values())
    assert report["met"] == sum(met.values())
    assert report["attainment"] == pytest.approx(sum(met.values()) / sum(sent.values()), abs=1e-6)
    for name, part in report["classes"].items():
        assert (part["sent"], part["met"]) == (sent.get(name, 0), met.get(name, 0))
    assert report["classes"]["paying"]["targets_s"] == {"ttft": 0.05, "tbt": 0.004, "ttlt": None}
    assert 0 < report["classes"]["paying"]["itl_over_target_share"] < 1
    assert "p99_itl_ms" not in report["classes"]["free"]


def test_goodput_is_absent_without_any_limit() -> None:
    run = reference.run(0)
    run.requests[["tbt_s", "ttft_s_target", "ttlt_s"]] = np.nan
    summary = summarize(*run.tables, replicas=2)
    assert summary["slo"] is None
    assert summary["request_goodput"] is None
    assert summarize(*run.tables, replicas=2, slo=parse_slo("ttft:1e9"))["request_goodput"] > 0


@pytest.mark.parametrize("definitions", ["vllm", "slai"])
def test_the_same_tables_give_the_same_bytes(definitions: Any) -> None:
    texts = set()
    for _ in range(2):
        run = reference.run(8)
        summary = summarize(*run.tables, replicas=2, definitions=definitions, slo=parse_slo("ttft:20"))
        texts.add(json.dumps(summary, allow_nan=False))
    assert len(texts) == 1


def nothing_finished() -> reference.Tables:
    return reference.run(1, max_iterations=1, rejected=0)


EDGES: dict[str, Callable[[], reference.Tables]] = {
    "empty tables": lambda: reference.run(0, count=0),
    "all rejected": lambda: reference.run(0, rejected=30),
    "nothing finished": nothing_finished,
    "one request": lambda: reference.run(0, count=1, replicas=1, rejected=0),
}


@pytest.mark.parametrize("definitions", ["vllm", "slai"])
@pytest.mark.parametrize("edge", EDGES)
def test_edge_cases_give_none_not_errors(edge: str, definitions: Any) -> None:
    run = EDGES[edge]()
    summary = summarize(*run.tables, definitions=definitions, replicas=2, slo=parse_slo("ttft:20"))
    json.dumps(summary, allow_nan=False)
    assert summary["sent"] == len(run.requests)
    if edge != "one request":
        assert summary["median_ttft_ms"] is None
        assert summary["completed"] == 0
    bench_record(summary, label=edge)


def test_requests_of_one_token_have_no_tpot_and_no_gaps() -> None:
    run = reference.run(0, count=12)
    one = (run.requests["output_tokens"] == 1).to_numpy()
    requests = run.requests[one].reset_index(drop=True)
    ranges = run.token_ranges[run.token_ranges["id"].isin(requests["id"])]
    summary = summarize(requests, run.iterations, ranges, replicas=2)
    assert summary["completed"] > 0
    assert summary["mean_tpot_ms"] is summary["p99_itl_ms"] is None
    assert summary["mean_ttft_ms"] > 0


def test_slai_definitions_take_the_end_of_the_prompt_and_the_recorded_samples() -> None:
    run = reference.run(9, emits=False, skip=0, max_iterations=40)
    summary = summarize(*run.tables, replicas=2, definitions="slai", first_token_at_prefill_end=False)
    done = run.requests[run.requests["status"] == "finished"]
    ttft = (done["prefill_end_ns"] - done["arrival_ns"]) / 1e6
    assert summary["median_ttft_ms"] == pytest.approx(ttft.median(), abs=1e-6)
    recorded = np.array([sample for samples in run.samples for sample in samples]) / 1e6
    assert summary["p99_itl_ms"] == pytest.approx(np.percentile(recorded, 99), abs=1e-6)
    assert summary["mean_itl_ms"] == pytest.approx(recorded.mean(), rel=0.02)
    of_class = (run.requests["slo_class"] == "paying").to_numpy()
    samples = [sample for of, kept in zip(run.samples, of_class, strict=True) if kept for sample in of]
    found = summary["slo"]["classes"]["paying"]["p99_itl_ms"]
    assert found == pytest.approx(np.percentile(np.array(samples) / 1e6, 99), abs=1e-6)


def test_bench_record_has_the_keys_of_vllm() -> None:
    run = reference.run(2, max_iterations=30)
    summary = summarize(*run.tables, replicas=2)
    record = bench_record(summary, label="sarathi", model_id="mistral", request_rate=float("inf"))
    keys = (
        "date endpoint_type backend label model_id tokenizer_id num_prompts request_rate burstiness "
        "max_concurrency duration completed failed total_input_tokens total_output_tokens request_throughput "
        "request_goodput output_throughput total_token_throughput"
    )
    points = "mean median std p0.1 p1 p5 p10 p25 p75 p90 p95 p99 p99.9".split()  # noqa: SIM905
    latencies = [f"{point}_{name}_ms" for name in ("ttft", "tpot", "itl", "e2el") for point in points]
    assert set(keys.split()) | set(latencies) <= set(record)
    assert record["completed"] + record["failed"] == record["num_prompts"] == len(run.requests)
    assert record["request_rate"] == "inf"


def test_slo_syntax() -> None:
    assert parse_slo("ttft:200 tpot:50 e2el:5000") == Slo(ttft=200, tpot=50, e2el=5000)
    assert parse_slo(["ttft:200", "itl:80 e2el:1e3"]).limits() == {"ttft": 200, "itl": 80, "e2el": 1000}
    assert parse_slo([]).limits() == {}


@pytest.mark.parametrize("text", ["ttft:1s", "ttft<=1s", "ttft<=1000ms", "ttft:1000", "ttft <= 1s", "ttft: 1e3ms"])
def test_an_slo_may_have_units_and_be_written_as_a_condition(text: str) -> None:
    assert parse_slo(text) == parse_slo(text.split()) == Slo(ttft=1000)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ttft", "an SLO is METRIC:LIMIT, as ttft:200 .milliseconds. or ttft:1s, but got 'ttft'"),
        ("ttft<1s", "METRIC:LIMIT"),
        ("ttft>=1s", "METRIC:LIMIT"),
        ("ttft=1s", "METRIC:LIMIT"),
        ("ttft:1 s", "METRIC:LIMIT.* but got 's'"),
        ("ttft:1m", "200ms or 1s, but got 'ttft:1m'"),
        ("ttft:s", "200ms or 1s, but got 'ttft:s'"),
        ("ttft:infs", "positive"),
        ("ttft:0ms", "positive"),
        ("ttft:1s ttft<=2s", "given twice: 1000 ms and 2s"),
        ("tpt:5", "Did you mean 'tpot'"),
        ("ttft:5 ttft:6", "twice"),
        ("ttft:-1", "positive"),
        ("ttft:fast", "positive number of milliseconds, or a time as 200ms or 1s, but got 'ttft:fast'"),
        ("ttft:inf", "positive"),
    ],
)
def test_a_wrong_slo_is_refused_with_its_word(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_slo(text)


def test_wrong_options_are_refused() -> None:
    tables = reference.run(0).tables
    with pytest.raises(ConfigError, match="0 to 100 but got 101"):
        summarize(*tables, percentiles=[101])
    with pytest.raises(ConfigError, match="at least 1"):
        summarize(*tables, replicas=0)
