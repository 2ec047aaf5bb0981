"""What people have: other packings, delimiters and cases, JSON of several shapes, pipes, rows out of order."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from llmsim.cli.trace import app
from llmsim.errors import ConfigError, TraceError
from llmsim.traces.files import sha256
from llmsim.traces.readers import read_trace
from llmsim.traces.stream import stream_workload
from llmsim.traces.workload import ArrivalsSpec, WorkloadSpec, build_workload
from tests.traces.conftest import AZURE, REPO

Write = Callable[..., Path]
OWN = "arrival_s,prompt_tokens,output_tokens\n0,100,3\n1,101,3\n2,102,4\n"
PACKED = {
    "t.csv.gz": gzip.compress,
    "t.csv.zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
    "t.csv.bz2": bz2.compress,
    "t.csv.xz": lzma.compress,
    "renamed": bz2.compress,
}


def rows(path: Path | str, **options: object) -> list[list[int]]:
    """Rows as (ns, prompt, output), in memory; a stream must have the same."""
    table = read_trace(path, **options).requests  # type: ignore[arg-type]
    spec = WorkloadSpec(trace=str(path), **options)  # type: ignore[arg-type]
    parts = [np.stack((b.arrival_ns, b.prompt_tokens, b.output_tokens), 1) for b in stream_workload(spec, 1).blocks()]
    found: list[list[int]] = table[["arrival_ns", "prompt_tokens", "output_tokens"]].to_numpy().tolist()
    ran = [[ns - found[0][0], *lengths] for ns, *lengths in found]
    assert np.concatenate(parts).tolist() == ran, "a run's clock begins with its first row"
    return found


@pytest.mark.parametrize("name", PACKED)
def test_packed_files_are_read_and_damage_is_named(write: Write, name: str) -> None:
    plain = read_trace(write(OWN))
    data = PACKED[name]((OWN).encode())
    packed = read_trace(write(data, name))
    pd.testing.assert_frame_equal(packed.requests, plain.requests)
    assert packed.sha256 == plain.sha256 == sha256(OWN.encode())
    assert rows(write(data, name)) == rows(write(OWN))
    with pytest.raises(TraceError, match=r"(truncated|damaged) \w+ file, readable up to row \d+ .*; fetch or copy"):
        read_trace(write(data[:-9], name))


@pytest.mark.parametrize("name", ["t.csv.zst", "t.csv.bz2", "t.csv.xz"])
def test_a_file_that_is_only_named_as_packed_says_so(write: Write, name: str) -> None:
    with pytest.raises(TraceError, match=rf"the name ends in \.{name[6:]} but row 1 starts with b'arrival_s"):
        read_trace(write(OWN, name))


@pytest.mark.parametrize("delimiter", ["\t", ";"])
def test_other_delimiters_are_told_from_the_header(write: Write, delimiter: str) -> None:
    assert rows(write(OWN.replace(",", delimiter))) == rows(write(OWN))
    with pytest.raises(TraceError, match="row 5 has 4 fields where the header has 3 columns"):
        read_trace(write((OWN + "3,1,1,1\n").replace(",", delimiter)))


def test_a_header_in_other_case_is_read_where_that_leaves_no_doubt(write: Write) -> None:
    for header in (str.lower, str.upper):
        head, *body = AZURE.splitlines()
        trace = read_trace(write("\n".join([header(head), *body])))
        assert trace.format == "azure"
        assert trace.requests["arrival_ns"].tolist() == [0, 100, 1_020_040_000]
    columns = {"arrival_s": "When", "prompt_tokens": "IN", "output_tokens": "out"}
    assert rows(write("when,in,out\n1,2,3\n"), columns=columns) == [[10**9, 2, 3]]
    for header in (str.lower, str.upper, str.title):
        for name, times in (("arrival_s", [0, 10**9]), ("arrival_ms", [0, 10**6]), ("arrival_us", [0, 1000])):
            body = header(f"{name},prompt_tokens,output_tokens,tier") + "\n0,5,3,0\n1,6,3,2\n"
            trace = read_trace(write(body))
            assert trace.requests["arrival_ns"].tolist() == times
            assert trace.requests["tier"].tolist() == [0, 2]
    with pytest.raises(TraceError, match="two arrival columns, ARRIVAL_S, ARRIVAL_MS"):
        read_trace(write("ARRIVAL_S,ARRIVAL_MS,prompt_tokens,output_tokens\n0,0,5,3\n"))
    with pytest.raises(TraceError, match="no column 'IN'"):
        read_trace(write("when,in,In,out\n1,2,3,4\n"), columns=columns)
    with pytest.raises(TraceError, match="row 2, column 'PROMPT_TOKENS': '0' is not positive"):
        read_trace(write("Prompt_Tokens,output_tokens\n0,1\n".replace("Prompt_Tokens", "PROMPT_TOKENS")))


def test_json_lines_lists_and_byte_order_marks_are_read_alike(write: Write) -> None:
    records = [{"timestamp": t, "input_length": 10 + t, "output_length": 5} for t in (0, 10)]
    lines = "\n".join(json.dumps(record) for record in records)
    expected = [[0, 10, 5], [10**7, 20, 5]]
    for text in (lines, "\ufeff" + lines, json.dumps(records), json.dumps(records, indent=2), " \n" + lines):
        assert rows(write(text, "t.json")) == expected
    with pytest.raises(TraceError, match="the list has no entries"):
        read_trace(write("[]", "t.json"))
    for bad, message in (
        (json.dumps([records[0], 5]), r"row 2 \(entry of the list\) is not a JSON object"),
        (json.dumps(records)[:-9], r"row 2 \(entry of the list\) is not JSON"),
        (json.dumps(records).replace("}, {", "} {"), r"row 1 \(entry of the list\) is not JSON"),
        (json.dumps([records[0], {}]), "row 2, column 'timestamp': '' is empty"),
    ):
        with pytest.raises(TraceError, match=message):
            read_trace(write(bad, "t.json"))


def test_fields_inside_others_are_named_with_dots(write: Write) -> None:
    record = {"ts": 1.5, "usage": {"prompt_tokens": 7, "deep": {"out.put": 1, "n": 2}}, "a.b": 9}
    columns = {"arrival_s": "ts", "prompt_tokens": "usage.prompt_tokens", "output_tokens": "usage.deep.n"}
    path = write(json.dumps(record) + "\n" + json.dumps({"ts": 2, "usage": None}), "t.jsonl")
    assert rows(path, columns=columns, on_bad="drop") == [[1_500_000_000, 7, 2]]
    with pytest.raises(TraceError, match=r"row 2, column 'usage\.prompt_tokens': '' is empty"):
        read_trace(path, columns=columns)
    assert rows(write(json.dumps(record), "t.jsonl"), columns=columns | {"output_tokens": "a.b"})[0][2] == 9
    with pytest.raises(TraceError, match=r"no column 'usage\.prompt'.*found: ts, usage\.prompt_tokens.*Did you mean"):
        read_trace(path, columns=columns | {"prompt_tokens": "usage.prompt"})


@pytest.mark.parametrize("before", ["", '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [1],}\n'])
def test_every_digit_of_json_numbers_counts(write: Write, before: str) -> None:
    """Read by the engine and, from a row on that only it takes, by the careful reader."""
    one = '{"timestamp": 1700158623.979960001, "input_length": 5, "output_length": 6, "hash_ids": [9007199254740993]}'
    text = f"{one}\n{one.replace('960001', '960004')}\n"
    trace = read_trace(write(text, "t.jsonl"), time_unit="s")
    assert trace.requests["arrival_ns"].tolist() == [0, 3]
    assert trace.requests["hash_ids"].tolist() == [[9007199254740993]] * 2
    if before:
        with pytest.raises(TraceError, match="row 3 is not JSON"):
            read_trace(write(text + before, "t.jsonl"), time_unit="s")


def test_bailian_counts_seconds_and_aiperf_nanoseconds(write: Write) -> None:
    bailian = [{"chat_id": 1, "timestamp": t, "input_length": 5, "output_length": 6} for t in (61.114, 65.25)]
    trace = read_trace(write("\n".join(map(json.dumps, bailian)), "b.jsonl"))
    assert (trace.format, trace.span_s) == ("bailian", 4.136)
    aiperf = [
        {
            "metadata": {"request_start_ns": 1759522419158355000 + i},
            "metrics": {"input_sequence_length": {"value": 550}, "output_sequence_length": {"value": 12}},
        }
        for i in (0, 7)
    ]
    trace = read_trace(write("\n".join(map(json.dumps, aiperf)), "a.jsonl"))
    assert (trace.format, trace.requests["arrival_ns"].tolist()) == ("aiperf", [0, 7])


def test_lengths_without_times_are_enough_for_a_rate(write: Write) -> None:
    lines = '{"input_length": 61, "output_length": 2370}\n{"input_length": 54, "output_length": 2031}\n'
    path = str(write(lines, "s.jsonl"))
    assert not read_trace(path).has_arrivals
    assert len(build_workload(WorkloadSpec(trace=path, arrivals=ArrivalsSpec(kind="all_at_once")), 1)) == 2
    with pytest.raises(ConfigError, match="holds lengths only"):
        build_workload(WorkloadSpec(trace=path), 1)
    with pytest.raises(TraceError, match=r"no column 'timestamp'.*Did you mean 'timestamps'"):
        read_trace(write('{"timestamps": 1, "input_length": 61, "output_length": 2370}\n', "s.jsonl"))


def test_files_that_are_no_traces_are_told_what_they_are(write: Write) -> None:
    chats = [{"id": "a", "conversations": [{"from": "human", "value": "hello"}]}]
    with pytest.raises(TraceError, match=r"is a ShareGPT file, .*sharegpt4"):
        read_trace(write(json.dumps(chats), "chats.json"))
    with pytest.raises(TraceError, match="is a result of `vllm bench serve`"):
        read_trace(write('{"date": "x", "input_lens": [1], "output_lens": [2]}', "result.json"))


def test_a_tier_out_of_range_is_named_beside_an_empty_one(write: Write) -> None:
    text = "prompt_tokens,output_tokens,tier\n5,6,0\n7,8,1e18\n7,8,\n"
    with pytest.raises(TraceError, match="row 3, column 'tier': '1e18' is out of the range of tiers"):
        read_trace(write(text))
    assert read_trace(write(text.replace("1e18", "9007199254740991"))).requests["tier"].tolist()[1] == 2**53 - 1


def test_carriage_returns_end_lines(write: Write) -> None:
    assert rows(write(OWN.replace("\n", "\r"))) == rows(write(OWN))
    assert rows(write(OWN.replace("\n", "\r\n", 2))) == rows(write(OWN))
    with pytest.raises(TraceError, match="row 5 has 4 fields"):
        read_trace(write("arrived_at,num_prefill_tokens,num_decode_tokens\n0,5,6\n1,7\r,8\n2,5,6,7\n"))


def test_a_quote_that_is_not_closed_is_named(write: Write) -> None:
    with pytest.raises(TraceError, match=r"row 3 has a quoted field that is not read to its end.*; close the quote"):
        read_trace(write("prompt_tokens,output_tokens,model\n1,2,a\n3,4,\"b\n5,6,c\n"))
    assert read_trace(write('prompt_tokens,output_tokens,model\n1,2,5" x\n')).requests["model"].tolist() == ['5" x']


def test_a_name_that_an_engine_would_take_for_more_is_a_name(write: Write) -> None:
    write(OWN, "a1.csv")
    for name in ("a*.csv", "[a].csv", "it's.csv", "s3:x.csv"):
        assert len(rows(write(OWN + "3,1,1\n", name))) == 4


UNSORTED = "arrival_s,prompt_tokens,output_tokens,slo_class,tbt_s,tier\n" + "".join(
    f"{t},{i + 1},1,{'ab'[i % 2]},{'' if i % 3 else 0.5},{'' if i % 2 else i}\n"
    for i, t in enumerate([5, 3, 3, 1, 1.5, 9, 3, 4])
)


def test_rows_are_put_in_order_on_request_and_ties_keep_theirs(write: Write) -> None:
    path = write(UNSORTED)
    with pytest.raises(TraceError, match=r"row 3, column 'arrival_s': '3' is earlier.*sort=True \(--sort\)"):
        read_trace(path)
    trace = read_trace(path, sort=True)
    assert trace.requests["prompt_tokens"].tolist() == [4, 5, 2, 3, 7, 8, 1, 6]
    assert trace.moved == 8
    order = read_trace(write(UNSORTED), on_bad="drop").requests.dtypes
    assert (trace.requests.dtypes == order).all()
    assert trace.requests["tier"].isna().tolist() == [i % 2 == 0 for i in trace.requests["prompt_tokens"]]
    spec = WorkloadSpec(trace=str(path), sort=True)
    whole, stream = build_workload(spec, 1), stream_workload(spec, 1, block=3)
    assert stream.description == whole.description
    assert stream.description["trace"]["moved"] == 8
    assert stream.slo_classes == whole.slo_classes
    for _ in range(2):
        blocks = list(stream.blocks())
        for name in ("arrival_ns", "prompt_tokens", "slo_index"):
            assert np.concatenate([getattr(b, name) for b in blocks]).tolist() == getattr(whole, name).tolist()


def test_sorting_needs_times_and_a_file(write: Write) -> None:
    with pytest.raises(ConfigError, match="sort needs arrival times"):
        read_trace(write("prompt_tokens,output_tokens\n1,1\n"), sort=True)
    with pytest.raises(ConfigError, match=r"workload\.sort is for trace files, but azure-conv is a twin"):
        build_workload(WorkloadSpec(trace="azure-conv", sort=True), 1)
    with pytest.raises(TraceError, match="row 2, column 'arrival_s': 'x' is not a number"):
        read_trace(write("arrival_s,prompt_tokens,output_tokens\nx,1,1\n0,1,1\n"), sort=True)
    unix = "arrival_s,prompt_tokens,output_tokens\n1700000002,1,1\n1700000000,2,1\n"
    assert rows(write(unix), sort=True) == [[0, 2, 1], [2 * 10**9, 1, 1]]


def test_more_rows_than_the_memory_holds_are_sorted_on_disk(write: Write) -> None:
    times = np.random.default_rng(1).permutation(1_000_000)
    frame = pd.DataFrame({"arrival_ns": times, "prompt_tokens": times + 1, "output_tokens": 1, "model": "x" * 200})
    path = write(b"", "t.parquet")
    frame.to_parquet(path)
    stream = stream_workload(WorkloadSpec(trace=str(path), sort=True, memory="100MiB"), 1)
    prompts = np.concatenate([block.prompt_tokens for block in stream.blocks()])
    assert np.array_equal(prompts, np.arange(1, 1_000_001))


@pytest.mark.parametrize("memory", ["much", "-1GiB", "10MiB", "512"])
def test_a_bound_on_memory_is_a_size_that_does(write: Write, memory: str) -> None:
    for make in (lambda: read_trace(write(OWN), memory=memory), lambda: WorkloadSpec(trace="t.csv", memory=memory)):
        with pytest.raises(ConfigError, match="memory must be"):
            make()
    assert len(rows(write(OWN), memory="64MiB")) == 3


def test_convert_keeps_prefix_blocks(write: Write, tmp_path: Path) -> None:
    lines = '{"timestamp": 0, "input_length": 655, "output_length": 52, "hash_ids": [46, 47]}\n' + (
        '{"timestamp": 9, "input_length": 655, "output_length": 52, "hash_ids": [46, 48]}\n'
        '{"timestamp": 10, "input_length": 600, "output_length": 52}\n'
    )
    out = tmp_path / "o.jsonl"
    CliRunner().invoke(app, ["convert", str(write(lines, "m.jsonl")), "--out", str(out)], catch_exceptions=False)
    written = [json.loads(line)["hash_ids"] for line in out.read_text().splitlines()]
    assert written == [[46, 47], [46, 48], [49, 50]]


def llmsim(command: str) -> subprocess.CompletedProcess[str]:
    """A command line of bash in which $L is llmsim."""
    env = {**os.environ, "L": f"{sys.executable} -m llmsim", "PYTHONPATH": str(REPO)}
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=env, cwd=REPO)


@pytest.mark.parametrize("packed", [False, True])
def test_a_workload_comes_through_a_pipe_packed_or_not(write: Write, packed: bool) -> None:
    path = write(gzip.compress(OWN.encode()) if packed else OWN, "t.bin")
    run = "--calibration a100/llama-3-8b --scheduler vllm_v1 --json"
    results = [
        llmsim(f"cat {path} | $L trace stats /dev/stdin"),
        llmsim(f"$L trace stats <(cat {path})"),
        llmsim(f"cat {path} | $L simulate --trace /dev/stdin {run} --stream"),
        llmsim(f"$L simulate --trace {path} {run}"),
    ]
    assert [result.returncode for result in results] == [0] * 4
    assert [result.stderr for result in results] == ["", "", results[3].stderr, results[3].stderr]
    assert all("3 requests (llmsim" in result.stdout for result in results[:2])
    piped, whole = (json.loads(result.stdout) for result in results[2:])
    assert piped == whole


def test_a_named_pipe_is_read_once_and_used_as_often_as_needed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(OWN))
    writer.start()
    assert len(rows(pipe)) == 3
    writer.join()
    assert llmsim("$L trace stats /dev/stdin < /dev/null").stderr.startswith("error: /dev/stdin: the file is empty")


def test_time_units_and_sorting_are_options_of_a_run(write: Write) -> None:
    lines = "\n".join(
        json.dumps({"timestamp": f"2024-01-01T00:00:0{t}Z", "input_length": 100, "output_length": 10}) for t in (1, 0)
    )
    path = write(lines, "iso.jsonl")
    run = f"$L simulate --trace {path} --calibration a100/llama-3-8b --scheduler vllm_v1"
    assert "give time_unit='datetime' (--time-unit datetime)" in llmsim(run).stderr
    assert "--sort" in llmsim(f"{run} --time-unit datetime").stderr
    done = llmsim(f"{run} --time-unit datetime --sort --memory 256MiB")
    assert done.returncode == 0
    assert "the trace was put in order of arrival: 2 rows moved" in done.stdout + done.stderr
