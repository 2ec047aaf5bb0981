"""Every format is read exactly, whatever it is called and however it is packed."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from llmsim.errors import ConfigError, TraceError
from llmsim.traces.readers import read_trace
from llmsim.traces.schema import Trace
from tests.traces.conftest import AZURE

Write = Callable[..., Path]
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
1106,ChatGPT,0,0,0,Conversation log
1129,GPT-4,1305,477,1782,API log
"""


def columns(trace: Trace) -> dict[str, list[object]]:
    return {name: trace.requests[name].tolist() for name in trace.requests.columns}


def test_azure_fractions_of_seven_digits_are_exact_and_start_at_zero(write: Write) -> None:
    trace = read_trace(write(AZURE))
    assert trace.format == "azure"
    assert trace.requests["arrival_ns"].tolist() == [0, 100, 1_020_040_000]
    assert trace.requests["prompt_tokens"].tolist() == [4808, 3180, 110]
    assert trace.requests.dtypes.astype(str).tolist() == ["int64"] * 3


def test_azure_2024_zones_and_missing_fractions_are_the_same_clock(write: Write) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 "
        "00:00:01+00:00,2399,6\n2024-05-10T02:00:01.5000001+02:00,76,15\n2024-05-10 00:00:02Z,1,1\n"
    )
    assert read_trace(write(text)).requests["arrival_ns"].tolist() == [
        0,
        990_070_000,
        1_490_070_100,
        1_990_070_000,
    ]


@pytest.mark.parametrize("format", [None, "sarathi", "vidur", "slai"])
def test_length_files_have_arrivals_only_if_they_hold_them(write: Write, format: str | None) -> None:
    lengths = write("num_prefill_tokens,num_decode_tokens,pd_ratio\n74,918,0.08\n290,905,0.32\n", "a.csv")
    timed = write("arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,74,918\n2e-0,290,905\n", "b.csv")
    assert not read_trace(lengths, format=format).has_arrivals
    assert columns(read_trace(lengths, format=format)) == {
        "prompt_tokens": [74, 290],
        "output_tokens": [918, 905],
    }
    assert read_trace(timed, format=format).requests["arrival_ns"].tolist() == [500_000_000, 2_000_000_000]


def test_mooncake_keeps_hash_ids_and_milliseconds(write: Write) -> None:
    rows = [
        {"timestamp": 3000, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]},
        {"timestamp": 3000.25, "input_length": 10, "output_length": 1, "hash_ids": [0]},
    ]
    trace = read_trace(write("\n".join(json.dumps(row) for row in rows), "m.jsonl"))
    assert trace.format == "mooncake"
    assert trace.requests["arrival_ns"].tolist() == [3_000_000_000, 3_000_250_000]
    assert trace.requests["hash_ids"].tolist() == [[0, 1], [0]]


def test_burstgpt_drops_failed_requests_by_its_own_rule_and_counts_them(write: Write) -> None:
    trace = read_trace(write(BURSTGPT))
    assert trace.dropped == {"zero_output": 1}
    assert trace.requests["arrival_ns"].tolist() == [5 * 10**9, 45 * 10**9, 1129 * 10**9]


def test_burstgpt_columns_are_found_by_name(write: Write) -> None:
    text = (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log "
        "Type\n5.0,,1.5,GPT-4,472,18,490,API log\n"
    )
    assert columns(read_trace(write(text))) == {
        "arrival_ns": [5 * 10**9],
        "prompt_tokens": [472],
        "output_tokens": [18],
    }


def test_any_csv_is_read_with_a_column_map(write: Write) -> None:
    path = write("ts,in,out,who\n1.5,10,2,paying\n2.5,20,3,free\n")
    trace = read_trace(
        path,
        columns={"arrival_s": "ts", "prompt_tokens": "in", "output_tokens": "out", "slo_class": "who"},
    )
    assert columns(trace) == {
        "arrival_ns": [1_500_000_000, 2_500_000_000],
        "prompt_tokens": [10, 20],
        "output_tokens": [2, 3],
        "slo_class": ["paying", "free"],
    }


@pytest.mark.parametrize(
    ("field", "values", "expected"),
    [
        ("arrival_ms", ["1.5", "2"], [1_500_000, 2_000_000]),
        ("arrival_us", ["1", "2"], [1_000, 2_000]),
        ("arrival_ns", ["7", "9"], [7, 9]),
        ("arrival_at", ["2024-01-01 00:00:00", "2024-01-01 00:00:01.5"], [0, 1_500_000_000]),
    ],
)
def test_a_map_names_the_unit_of_time(
    write: Write, field: str, values: list[str], expected: list[int]
) -> None:
    path = write(f"t,p,o\n{values[0]},1,1\n{values[1]},1,1\n")
    trace = read_trace(path, columns={field: "t", "prompt_tokens": "p", "output_tokens": "o"})
    assert trace.requests["arrival_ns"].tolist() == expected


def test_unix_times_are_absolute_and_exact_to_the_nanosecond(write: Write) -> None:
    path = write(
        "arrival_s,prompt_tokens,output_tokens\n1700158623.979960001,1,1\n1700158623.979960004,1,1\n"
    )
    assert read_trace(path).requests["arrival_ns"].tolist() == [0, 3]


def test_time_unit_overrides_the_format(write: Write) -> None:
    path = write("arrived_at,num_prefill_tokens,num_decode_tokens\n500,74,918\n")
    assert read_trace(path, time_unit="ms").requests["arrival_ns"].tolist() == [500_000_000]


def test_own_schema_holds_service_levels(write: Write) -> None:
    path = write(
        "arrival_ns,prompt_tokens,output_tokens,slo_class,tbt_s,tier,priority\n0,5,6,a,0.1,0,true\n9,7,8,b,,,\n"
    )
    table = read_trace(path).requests
    assert table["tbt_s"].isna().tolist() == [False, True]
    assert str(table["tier"].dtype) == "Int64"
    assert table["tier"].isna().tolist() == [False, True]
    assert table["priority"].tolist() == [True, False]


def test_packing_and_name_change_nothing(write: Write) -> None:
    plain = read_trace(write(AZURE))
    for content, name in [
        (gzip.compress(AZURE.encode(), mtime=0), "trace.csv.gz"),
        (gzip.compress(AZURE.encode(), mtime=0), "renamed.csv"),
        (AZURE.replace("\n", "\r\n").rstrip().encode(), "windows.csv"),
        (b"\xef\xbb\xbf" + AZURE.encode(), "bom.csv"),
        (AZURE.replace("\n", "\n\n"), "blank_lines.csv"),
    ]:
        pd.testing.assert_frame_equal(read_trace(write(content, name)).requests, plain.requests)


def test_the_digest_is_of_the_decompressed_file(write: Write) -> None:
    packed = read_trace(write(gzip.compress(AZURE.encode()), "t.csv.gz"))
    assert packed.sha256 == read_trace(write(AZURE)).sha256 != ""


def test_arguments_outside_what_is_allowed_are_refused(write: Write) -> None:
    path = write(AZURE)
    with pytest.raises(ConfigError, match="Did you mean 'azure'"):
        read_trace(path, format="azur")
    with pytest.raises(ConfigError, match="on_bad must be one of error, drop but got 'skip'"):
        read_trace(path, on_bad="skip")
    with pytest.raises(ConfigError, match="time_unit must be one of ns, us, ms, s, datetime"):
        read_trace(path, time_unit="minutes")
    with pytest.raises(ConfigError, match=r"no field 'prompt'\. Did you mean 'prompt_tokens'"):
        read_trace(path, columns={"prompt": "x"})
    with pytest.raises(ConfigError, match="add 'output_tokens'"):
        read_trace(path, columns={"prompt_tokens": "x"})
    with pytest.raises(ConfigError, match="one arrival column"):
        read_trace(
            path, columns={"arrival_s": "a", "arrival_ms": "b", "prompt_tokens": "p", "output_tokens": "o"}
        )


def test_a_table_made_in_python_is_checked() -> None:
    good = pd.DataFrame({"prompt_tokens": [1, 2], "output_tokens": [3.0, 4.0], "arrival_ns": [0, 5]})
    assert Trace.from_table(good).requests.columns.tolist() == [
        "arrival_ns",
        "prompt_tokens",
        "output_tokens",
    ]
    assert Trace.from_table(good).span_s == 5e-9
    for column, value, message in [
        ("prompt_tokens", 0, "row 1, column 'prompt_tokens': 0 is not a whole number >= 1"),
        ("output_tokens", float("nan"), "row 1, column 'output_tokens': nan"),
        ("arrival_ns", -1, "row 1, column 'arrival_ns': -1"),
    ]:
        bad = good.assign(**{column: [good[column].iloc[0], value]})
        with pytest.raises(TraceError, match=message):
            Trace.from_table(bad)
    with pytest.raises(TraceError, match="before the row above"):
        Trace.from_table(good.assign(arrival_ns=[5, 0]))
    with pytest.raises(TraceError, match="no column 'output_tokens'"):
        Trace.from_table(good.drop(columns="output_tokens"))
    with pytest.raises(TraceError, match="no rows"):
        Trace.from_table(good.iloc[:0])
    with pytest.raises(TraceError, match="'x' is not in the trace schema"):
        Trace.from_table(good.assign(x=1))


@pytest.mark.alone
def test_the_real_traces_are_read_whole_and_fast(shared: Path) -> None:
    rows = {
        "AzureLLMInferenceTrace_code.csv.gz": 8819,
        "AzureLLMInferenceTrace_conv.csv.gz": 19366,
        "mooncake_conversation_trace.jsonl.gz": 12031,
        "sharegpt4_8k_llama2_tokenizer_lengths.csv.gz": 30731,
    }
    start = time.perf_counter()
    for name, count in rows.items():
        trace = read_trace(shared / name)
        assert len(trace.requests) == count
        assert trace.dropped == {}
    assert time.perf_counter() - start < 5  # half a second on an idle core
