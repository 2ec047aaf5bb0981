"""A stream has the requests of the workload in memory, bit for bit, whatever the block; and its errors."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmsim.core.request import SloClass
from llmsim.errors import ConfigError, LlmsimError, TraceError
from llmsim.traces import twinfile
from llmsim.traces.database import connect
from llmsim.traces.plainfile import plain_file
from llmsim.traces.records import open_records
from llmsim.traces.schema import Trace
from llmsim.traces.stream import stream_workload
from llmsim.traces.twins import make_twin
from llmsim.traces.workload import (
    ArrivalsSpec,
    ClassSpec,
    DistributionSpec,
    LengthsSpec,
    WorkloadSpec,
    build_workload,
)
from tests.traces.conftest import AZURE

Write = Callable[..., Path]
COLUMNS = ("arrival_ns", "prompt_tokens", "output_tokens", "slo_index")
MIX = (ClassSpec(name="paying", share=0.25, tbt_s=0.1, priority=True), ClassSpec(name="free", share=0.75))
ARRIVALS = {
    "trace": ArrivalsSpec(),
    "stretched": ArrivalsSpec(rate=7.0),
    "poisson": ArrivalsSpec(kind="poisson", rate=0.3),
    "capped": ArrivalsSpec(kind="poisson", rate=0.3, gap_cap=3.0),
    "infinite": ArrivalsSpec(kind="poisson", rate=float("inf")),
    "gamma": ArrivalsSpec(kind="gamma", rate=0.7, burstiness=0.3),
    "constant": ArrivalsSpec(kind="constant", rate=3.0),
    "bursts": ArrivalsSpec(kind="bursts", rate=0.9, burst_size=5),
    "large bursts": ArrivalsSpec(kind="bursts", rate=0.9, burst_size=16),
    "on_off": ArrivalsSpec(kind="on_off", rate=0.9, on_s=3.0, off_s=11.0),
    "ramp": ArrivalsSpec(kind="ramp", ramp=((0, 0.0), (20, 1.3), (20, 0.1), (60, 4.0))),
    "all_at_once": ArrivalsSpec(kind="all_at_once"),
    "closed_loop": ArrivalsSpec(kind="closed_loop", max_concurrency=3),
}
DISTRIBUTIONS = {
    "fixed": DistributionSpec(value=300),
    "uniform": DistributionSpec(kind="uniform", low=1, high=900),
    "wide uniform": DistributionSpec(kind="uniform", low=1, high=10_000_000),
    "normal": DistributionSpec(kind="normal", mean=300, std=200, low=3),
    "lognormal": DistributionSpec(kind="lognormal", mean=300, std=500, high=2000),
    "zipf": DistributionSpec(kind="zipf", exponent=0.7, high=900),
}

SYNTHETIC = LengthsSpec(kind="synthetic", prompt=DISTRIBUTIONS["uniform"], output=DISTRIBUTIONS["lognormal"])
LIMITS = [(None, "error"), (500, "error"), (500, "clip"), (500, "drop"), (5000, "error"), (5000, "drop")]


def outcome(make: Callable[[], Any]) -> Any:
    """What comes of it: a value, or the kind and text of an error."""
    try:
        return make()
    except LlmsimError as error:
        return type(error), str(error)


def agree(spec: WorkloadSpec, limit: int | None = None, block: int = 7, seed: int = 5) -> Any:
    """The stream's outcome, which must be that of the workload in memory."""
    whole = outcome(lambda: build_workload(spec, seed, limit))
    stream = outcome(lambda: stream_workload(spec, seed, limit, block))
    if isinstance(whole, tuple):
        assert stream == whole
        return whole
    for _ in range(1 if spec.trace else 2):
        blocks = list(stream.blocks())
        assert all(0 < len(part) <= block for part in blocks)
        for name in COLUMNS:
            columns = [getattr(part, name) for part in blocks]
            assert all(column.dtype == np.int64 for column in columns)
            assert np.concatenate(columns).tolist() == getattr(whole, name).tolist(), name
        assert all(part.slo_classes == whole.slo_classes for part in blocks)
        assert all(part.max_concurrency == whole.max_concurrency for part in blocks)
    assert len(stream) == len(whole)
    assert stream.slo_classes == whole.slo_classes
    assert stream.max_concurrency == whole.max_concurrency
    assert stream.description == whole.description
    assert list(stream.dropped.items()) == list(whole.dropped.items())
    assert (stream.first_arrival_ns, stream.last_arrival_ns) == (whole.arrival_ns[0], whole.arrival_ns[-1])
    assert type(stream.first_arrival_ns) is int
    return stream


def table(rows: int = 60, span_s: float = 60.0) -> pd.DataFrame:
    """A small trace with service levels."""
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "arrival_ns": np.sort(rng.integers(10**9, int(span_s * 10**9), rows)),
            "prompt_tokens": rng.integers(1, 1200, rows),
            "output_tokens": rng.integers(1, 300, rows),
            "slo_class": [("a", "b", "")[3 * i // rows] for i in range(rows)],
            "tbt_s": [0.1 if i % 3 else None for i in range(rows)],
            "tier": pd.array([None if i % 5 else 3 * i // rows for i in range(rows)], dtype="Int64"),
        }
    )


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("trace") / "trace.csv"
    path.write_text(table().to_csv(index=False))
    return str(path)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("twin") / "small.json"
    path.write_bytes(twinfile.dump(make_twin(Trace.from_table(table(400)), "small")).encode())
    return str(path)


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
@pytest.mark.parametrize("limit", LIMITS)
def test_synthetic_lengths_of_every_kind(kind: str, limit: tuple[int | None, str]) -> None:
    lengths = LengthsSpec(kind="synthetic", prompt=DISTRIBUTIONS[kind], output=DISTRIBUTIONS["uniform"])
    poisson = ARRIVALS["poisson"]
    spec = WorkloadSpec(lengths=lengths, arrivals=poisson, num_requests=150, classes=MIX, on_long=limit[1])
    agree(spec, limit[0])


@pytest.mark.parametrize("arrivals", ARRIVALS)
@pytest.mark.parametrize("block", [7, 1000])
def test_arrivals_of_every_kind(arrivals: str, block: int, trace: str, twin: str) -> None:
    for source in (None, trace, twin):
        if source is None and ARRIVALS[arrivals].kind == "trace":
            continue
        lengths = SYNTHETIC if source is None else LengthsSpec()
        count = None if source == trace else 300
        agree(WorkloadSpec(trace=source, lengths=lengths, arrivals=ARRIVALS[arrivals], num_requests=count), block=block)


@pytest.mark.parametrize("kind", ["trace", "shuffled", "resampled", "empirical", "synthetic"])
@pytest.mark.parametrize("arrivals", ["stretched", "gamma"])
@pytest.mark.parametrize("limit", LIMITS)
def test_lengths_arrivals_and_limits_of_traces_and_twins(
    kind: str, arrivals: str, limit: tuple[int | None, str], trace: str, twin: str
) -> None:
    lengths = SYNTHETIC if kind == "synthetic" else LengthsSpec(kind="trace" if kind == "shuffled" else kind)
    for source in (trace, twin):
        for count in (None, 23):
            spec = WorkloadSpec(
                trace=source,
                lengths=lengths,
                arrivals=ARRIVALS[arrivals],
                num_requests=count,
                on_long=limit[1],
                shuffle=kind == "shuffled",
            )
            agree(spec, limit[0])


def test_scaled_times_and_classes_of_the_specification(trace: str, twin: str) -> None:
    for source in (trace, twin):
        agree(WorkloadSpec(trace=source, time_scale=0.3, classes=MIX))
    stream = agree(WorkloadSpec(trace=trace, num_requests=30))
    assert SloClass("a", tbt_s=0.1) in stream.slo_classes
    assert len(stream.slo_classes) < len(agree(WorkloadSpec(trace=trace)).slo_classes)  # those of later rows
    agree(WorkloadSpec(trace=trace, lengths=SYNTHETIC, arrivals=ARRIVALS["poisson"]))


def test_a_twin_repeats_its_arrivals_as_often_as_needed(twin: str) -> None:
    for block in (1, 13, 700):
        agree(WorkloadSpec(trace=twin, num_requests=1300), block=block)


def packings(rows: pd.DataFrame) -> dict[str, bytes]:
    """The rows in every kind of file."""
    text = rows.to_csv(index=False)
    names = list(rows.columns)
    lines = [json.dumps({k: None if pd.isna(r[k]) else r[k] for k in names}, default=int) for _, r in rows.iterrows()]
    parquet = io.BytesIO()
    rows.to_parquet(parquet, row_group_size=11)
    return {
        "t.csv": text.encode(),
        "quoted.csv": text.replace("a,", '"a ""x"",\ny",').encode(),
        # Every other line end a bare carriage return, which the parser takes for one, and the csv module does not.
        "returns.csv": "".join(
            line + ("\r" if i % 2 else "\n") for i, line in enumerate(text.replace("a,", '"a,\n",').splitlines())
        ).encode(),
        "windows.csv": b"\xef\xbb\xbf\r\n\n" + text.replace("\n", "\r\n").rstrip().encode(),
        "blanks.csv": text.replace("\n", "\n\n,,,,,\n").encode(),
        "wide.csv": text.replace("\n", ",\n").encode(),
        "t.jsonl": "\n\n".join(lines).encode(),
        "mac.jsonl": ("\n" + "\r".join(lines)).encode(),
        "t.parquet": parquet.getvalue(),
    }


@pytest.mark.parametrize("name", packings(table(3)))
def test_files_of_every_kind(write: Write, name: str) -> None:
    data = packings(table())[name]
    for content, blocks in (
        (data, (1, 7)),
        (gzip.compress(data), (7, 100)),
        (gzip.compress(data[:500]) + gzip.compress(data[500:]), (30,)),
    ):
        path = write(content, name)
        for block in blocks:
            with plain_file(path) as plain, connect(plain.folder, None) as connection:
                records = open_records(plain, connection)
                whole, parts = records.whole(records.header), list(records.blocks(records.header, block))
            assert all(0 < len(part) <= block for part in parts)
            for column in records.header:
                cells = [cell for part in parts for cell in part.columns[column].to_pylist()]
                assert cells == whole.columns[column].to_pylist()
            assert [part.first for part in parts] == [0, *np.cumsum([len(part) for part in parts])[:-1]]
            assert len(whole) == len(table())
        agree(WorkloadSpec(trace=str(path)), block=blocks[-1])


def test_date_times_failed_requests_and_unix_times(write: Write) -> None:
    azure = AZURE.splitlines()[0] + "\n" + "".join(f"2023-11-16 18:17:0{i % 5}.97996{i:02},48,10\n" for i in range(30))
    burst = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n" + "".join(
        f"{i * 1000},GPT-4,{i + 1},{i % 3},9,API log\n" for i in range(40)
    )
    unix = "arrival_s,prompt_tokens,output_tokens\n" + "".join(
        f"17001586{i:02}.979960{i:03},{0 if i < 9 else 5},1\n" for i in range(60)
    )
    for text, on_bad in ((azure, "drop"), (azure, "error"), (burst, "error"), (unix, "drop"), (unix, "error")):
        agree(WorkloadSpec(trace=str(write(text)), on_bad=on_bad))
    assert agree(WorkloadSpec(trace=str(write(burst)))).dropped == {"zero_output": 14}


def test_times_that_need_their_digits_late_in_the_file_change_the_rows_before(write: Write) -> None:
    # 0.6 ns is rounded where a float does, cut where digits are read: as one whole, the file has digits everywhere.
    rows = [f"{i}.0000000006,{i + 1},1" for i in range(20)] + [f"{5_000_000 + i}.5,3,1" for i in range(20)]
    path = str(write("arrival_s,prompt_tokens,output_tokens\n" + "\n".join(rows) + "\n"))
    for lengths, arrivals in ((LengthsSpec(), "trace"), (LengthsSpec(kind="resampled"), "stretched")):
        agree(WorkloadSpec(trace=path, lengths=lengths, arrivals=ARRIVALS[arrivals]))
    assert agree(WorkloadSpec(trace=path)).first_arrival_ns == 0
    short = str(write("arrival_s,prompt_tokens,output_tokens\n" + "\n".join(rows[:20]) + "\n", "short.csv"))
    assert agree(WorkloadSpec(trace=short, keep_clock=True)).first_arrival_ns == 1


BAD_ROWS = {
    "negative": {41: "900,-5,7", 55: "901,-6,7"},
    "two kinds, the first counts": {41: "900,5.5,7", 43: "900,x,7", 44: "901,6.5,7"},
    "bad cells have the word before the order": {20: "1,5,5", 50: "900,5,many"},
    "order": {20: "1,5,5", 50: "2,5,7"},
    "bad time": {50: "soon,5,5"},
    "short row": {50: "900,5"},
    "long row": {50: "900,5,5,5"},
    "long row at the start of a block": {43: "900,5,5,5"},
    "trailing comma": {50: "900,5,5,"},
    "a long prompt, and an empty cell far below": {12: "200,20000,5", 55: "900,,7"},
    "long prompts": {12: "200,20000,5", 55: "900,20001,7"},
}


@pytest.mark.parametrize("case", BAD_ROWS)
@pytest.mark.parametrize("on_bad", ["error", "drop"])
@pytest.mark.parametrize("on_long", ["error", "drop"])
def test_bad_rows_are_named_and_counted_as_in_the_whole_file(
    write: Write, case: str, on_bad: str, on_long: str
) -> None:
    rows = [f"{10 * i},{i + 1},{100 - i}" for i in range(60)]
    for row, text in BAD_ROWS[case].items():
        rows[row] = text
    path = str(write("\n".join(("\n\narrival_s,prompt_tokens,output_tokens", *rows)) + "\n"))
    for block in (7, 43):
        agree(WorkloadSpec(trace=path, on_bad=on_bad, on_long=on_long, num_requests=10), 10_000, block)
    shuffled = WorkloadSpec(trace=path, on_bad=on_bad, on_long=on_long, num_requests=10, shuffle=True)
    agree(shuffled, 10_000)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "t.csv"),
        (b"\n \n", "t.csv"),
        (gzip.compress(b"", mtime=0), "t.csv.gz"),
        (b"arrival_s,prompt_tokens,output_tokens\n", "t.csv"),
        (b"arrival_s,prompt_tokens,output_tokens", "t.csv"),
        (b"prompt_tokens,output_tokens,output_tokens\n1,1,1\n", "t.csv"),
        (b"a,b\n1,2\n", "t.csv"),
        (b"arrival_s,arrival_ms,prompt_tokens,output_tokens\n1,1,1,1\n", "t.csv"),
        (b"arrival_s,prompt_tokens,output_tokens\n1,0,1\n2,0,1\n", "t.csv"),
        (AZURE.encode(), "t.csv.gz"),
        (gzip.compress(AZURE.encode(), mtime=0)[:-20], "t.csv.gz"),
        (AZURE.encode() + b"\xff\xfe\n", "t.csv"),
        (b'{"timestamp": 0}\n{"timest', "t.jsonl"),
        (b'{"timestamp": 0}\n[1]\n', "t.jsonl"),
        (b'{"timestamp": 0, "input_length": 3}\n', "t.jsonl"),
        (b"num_prefill_tokens,num_decode_tokens\n5,6\n", "lengths.csv"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_alike(write: Write, content: bytes, name: str) -> None:
    path = str(write(content, name))
    for on_bad in ("error", "drop"):
        assert isinstance(agree(WorkloadSpec(trace=path, on_bad=on_bad)), tuple)


def test_a_missing_file_a_folder_and_a_damaged_sum_are_named(tmp_path: Path, write: Write) -> None:
    agree(WorkloadSpec(trace=str(tmp_path / "absent.csv")))
    agree(WorkloadSpec(trace=str(tmp_path)))
    agree(WorkloadSpec(trace="azure-con"))
    path = write(b"PAR1 nothing", "t.parquet")
    with pytest.raises(TraceError, match=r"t\.parquet: damaged Parquet file \(.*\); export it again"):
        stream_workload(WorkloadSpec(trace=str(path)), 1)
    path = write(gzip.compress(AZURE.encode())[:-8] + b"\0" * 8, "t.csv.gz")
    with pytest.raises(TraceError, match=r"t\.csv\.gz: damaged gzip file, readable up to row"):
        stream_workload(WorkloadSpec(trace=str(path)), 1)


def test_what_does_not_fit_the_specification_says_so(trace: str, twin: str) -> None:
    assert isinstance(agree(WorkloadSpec(trace=twin, format="azure")), tuple)
    assert isinstance(agree(WorkloadSpec(trace=trace), limit=1), tuple)
    hopeless = LengthsSpec(kind="synthetic", prompt=DISTRIBUTIONS["fixed"], output=DISTRIBUTIONS["fixed"])
    late = ArrivalsSpec(kind="poisson", rate=1e-8)
    for arrivals, limit in ((ARRIVALS["poisson"], 100), (late, None)):
        spec = WorkloadSpec(lengths=hopeless, arrivals=arrivals, num_requests=500, on_long="drop")
        assert isinstance(agree(spec, limit), tuple)
    for block in (0, 1.5, True):
        with pytest.raises(ConfigError, match="block must be a whole number >= 1"):
            stream_workload(WorkloadSpec(trace=trace), 1, block=block)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="seed must be"):
        stream_workload(WorkloadSpec(trace=trace), -1)


def test_more_requests_than_memory_holds_are_for_streams() -> None:
    spec = WorkloadSpec(lengths=SYNTHETIC, arrivals=ARRIVALS["poisson"], num_requests=10**9)
    with pytest.raises(ConfigError, match=r"at most 100,000,000 .* but got 1,000,000,000; .*stream_workload"):
        build_workload(spec, 1)


def test_a_file_that_changes_meanwhile_is_noticed(write: Write) -> None:
    text = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i},5,5\n" for i in range(30))
    stream = stream_workload(WorkloadSpec(trace=str(write(text))), 1, block=7)
    for other in (text.replace("29,5,5", "29,5,6"), text + "31,5,5\n", text.replace("29,5,5\n", "")):
        write(other)
        with pytest.raises(TraceError, match="the file has changed while it was in use"):
            list(stream.blocks())
    write(text)
    assert sum(len(part) for part in stream.blocks()) == 30


def test_requests_of_blocks_are_numbered_on() -> None:
    spec = WorkloadSpec(lengths=SYNTHETIC, arrivals=ARRIVALS["gamma"], num_requests=20, classes=MIX)
    found, made = [], build_workload(spec, 1).requests()
    for part in stream_workload(spec, 1, block=7).blocks():
        found += part.requests(first_id=len(found))
    for one, other in zip(found, made, strict=True):
        assert (one.id, one.arrival_ns, one.prompt_tokens) == (other.id, other.arrival_ns, other.prompt_tokens)
        assert (one.output_tokens, one.slo) == (other.output_tokens, other.slo)


def peak_bytes(run: Callable[[], object]) -> int:
    """Most memory held at once while it runs, beyond what was held before."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def drain(spec: WorkloadSpec, block: int, limit: int | None = None) -> int:
    return sum(len(part) for part in stream_workload(spec, 1, limit, block).blocks())


@pytest.mark.parametrize("on_long", ["clip", "drop"])
def test_memory_follows_the_block_and_not_the_number_of_requests(on_long: str) -> None:
    block, count = 4096, 400_000
    for arrivals in ("poisson", "large bursts"):
        spec = WorkloadSpec(
            lengths=SYNTHETIC, arrivals=ARRIVALS[arrivals], num_requests=count, classes=MIX, on_long=on_long
        )
        assert peak_bytes(lambda spec=spec: drain(spec, block, 800)) < 10 * block * 32
    assert count * 32 > 9 * 10 * block * 32  # the workload in memory is far more


def test_memory_of_a_file_follows_the_block(write: Write) -> None:
    def peak(rows: int) -> int:
        text = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i}.25,500,20\n" for i in range(rows))
        path = str(write(gzip.compress(text.encode(), 1), "t.csv.gz"))
        return peak_bytes(lambda: drain(WorkloadSpec(trace=path), 500))

    peak(10)  # what is imported and cached once
    assert peak(12_000) < 2 * peak(2000)
