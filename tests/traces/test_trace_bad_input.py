"""Bad input is named by file, row, column, value and remedy; rows go only when asked, and are counted."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsim.errors import ConfigError, TraceError
from llmsim.traces.limits import clip_lengths
from llmsim.traces.readers import read_trace
from tests.traces.conftest import AZURE

Write = Callable[..., Path]
HEADER = "arrival_s,prompt_tokens,output_tokens\n"


@pytest.mark.parametrize(
    ("row", "column", "value", "complaint", "reason"),
    [
        ("2,-5,7", "prompt_tokens", "'-5'", "is not positive", "not_positive"),
        ("2,5,0", "output_tokens", "'0'", "is not positive", "not_positive"),
        ("2,5.5,7", "prompt_tokens", "'5.5'", "is not a whole number", "not_an_integer"),
        ("2,inf,7", "prompt_tokens", "'inf'", "is not a whole number", "not_an_integer"),
        ("2,5,many", "output_tokens", "'many'", "is not a number", "not_a_number"),
        ("2,NaN,7", "prompt_tokens", "'NaN'", "stands for a missing value", "missing_value"),
        ("2,,7", "prompt_tokens", "''", "is empty", "missing_value"),
        ("2,5", "output_tokens", "''", "is empty", "missing_value"),
        ("soon,5,7", "arrival_s", "'soon'", "is not a number", "bad_time"),
        ("-2,5,7", "arrival_s", "'-2'", "is not a time", "bad_time"),
        ("nan,5,7", "arrival_s", "'nan'", "stands for a missing value", "missing_value"),
        ("0.5,5,7", "arrival_s", "'0.5'", "is earlier than a row above it", "unsorted_time"),
    ],
)
def test_a_bad_cell_is_named_with_file_row_column_value_and_remedy(
    write: Write, row: str, column: str, value: str, complaint: str, reason: str
) -> None:
    path = write(f"{HEADER}1,10,20\n{row}\n3,30,40\n")
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: row 3, column {column!r}: {value} {complaint}")
    assert "on_bad='drop' (--on-bad drop)" in message
    trace = read_trace(path, on_bad="drop")
    assert trace.dropped == {reason: 1}
    assert trace.requests["prompt_tokens"].tolist() == [10, 30]


def test_the_first_bad_row_is_named_and_the_others_counted(write: Write) -> None:
    path = write(f"{HEADER}1,10,20\n2,5,-1\n\n3,0,1\n4,0,1\n")
    with pytest.raises(TraceError, match=r"row 3, column 'output_tokens': '-1'"):
        read_trace(path)
    path = write(f"{HEADER}1,10,20\n\n3,0,1\n4,0,1\n")
    with pytest.raises(TraceError, match=r"row 4, column 'prompt_tokens': '0' .* \(2 such rows\)"):
        read_trace(path)


def test_a_row_with_two_faults_is_counted_once(write: Write) -> None:
    trace = read_trace(write(f"{HEADER}x,0,y\n1,2,3\n"), on_bad="drop")
    assert sum(trace.dropped.values()) == 1
    assert len(trace.requests) == 1


@pytest.mark.parametrize("value", ["yesterday", "2023-13-45 00:00:00", "12", "9999-01-01 00:00:00", ""])
def test_a_time_that_is_no_date_time_is_named(write: Write, value: str) -> None:
    path = write(AZURE + f"{value},5,5\n")
    with pytest.raises(TraceError, match=f"row 5, column 'TIMESTAMP': '{value}' is"):
        read_trace(path)
    trace = read_trace(path, on_bad="drop")
    assert trace.requests["arrival_ns"].tolist() == [0, 100, 1_020_040_000]


def test_a_missing_column_is_named_with_what_is_there(write: Write) -> None:
    path = write("TIMESTAMP,ContextTokens\n2023-11-16 18:17:03,5\n")
    with pytest.raises(
        TraceError,
        match=r"row 1 \(the header\) has no column 'GeneratedTokens'.*found: TIMESTAMP, ContextTokens.*--map",
    ):
        read_trace(path)
    with pytest.raises(TraceError, match=r"no column 'TIMESTAMP'.*Did you mean 'TIMESTAMPS'"):
        read_trace(write("TIMESTAMPS,ContextTokens,GeneratedTokens\n1,1,1\n"))
    with pytest.raises(TraceError, match=r"header of no known format.*found: a, b.*--map"):
        read_trace(write("a,b\n1,2\n"))
    with pytest.raises(TraceError, match="no column 'who'"):
        read_trace(
            write("p,o\n1,2\n"), columns={"prompt_tokens": "p", "output_tokens": "o", "slo_class": "who"}
        )
    with pytest.raises(TraceError, match="two arrival columns"):
        read_trace(write("arrival_s,arrival_ms,prompt_tokens,output_tokens\n1,1,1,1\n"))
    with pytest.raises(TraceError, match="has column 'output_tokens' twice"):
        read_trace(write("prompt_tokens,output_tokens,output_tokens\n1,1,1\n"))


@pytest.mark.parametrize("tail", ["1,2,3,4\n", "1,2,3\n1,2,3,4\n"])
def test_a_row_longer_than_the_header_is_named(write: Write, tail: str) -> None:
    with pytest.raises(TraceError, match=rf"row {1 + tail.count(chr(10))} has 4 fields.*3 columns.*'4'"):
        read_trace(write(HEADER + tail))


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "t.csv", r"the file is empty \(0 bytes\)"),
        (b"\n \n", "t.csv", r"the file is empty \(no rows\)"),
        (gzip.compress(b"", mtime=0), "t.csv.gz", r"the file is empty \(no rows\)"),
        (HEADER.encode(), "t.csv", "row 1 is a header but no rows follow"),
        (AZURE.encode(), "t.csv.gz", "row 1 starts with b'TIMESTAMP,Contex', which is not gzip"),
        (gzip.compress(AZURE.encode(), mtime=0)[:-20], "t.csv.gz", "truncated gzip file, readable up to row"),
        (gzip.compress(AZURE.encode(), mtime=0)[:-8] + b"\0" * 8, "t.csv.gz", "damaged gzip file"),
        (AZURE.encode() + b"\xff\xfe\n", "t.csv", "row 5 is not text"),
        (b"PAR1 nothing", "t.parquet", "damaged Parquet file"),
        (b'{"timestamp": 0}\n{"timest', "t.jsonl", "row 2 is not JSON"),
        (b'{"timestamp": 0}\n[1]\n', "t.jsonl", "row 2 is not a JSON object"),
        (b'{"timestamp": 0, "input_length": 3}\n', "t.jsonl", "has no column 'output_length'"),
        (b'{"kind": "llmsim-trace-twin"}', "t.json", "statistical twin"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(write: Write, content: bytes, name: str, message: str) -> None:
    path = write(content, name)
    with pytest.raises(TraceError, match=message) as caught:
        read_trace(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such file"):
        read_trace(tmp_path / "absent.csv")
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(tmp_path)


def test_dropping_every_row_is_an_error(write: Write) -> None:
    with pytest.raises(TraceError, match=r"no usable rows are left \(2 not_positive\)"):
        read_trace(write(f"{HEADER}1,0,1\n2,0,1\n"), on_bad="drop")


def test_json_values_are_not_guessed(write: Write) -> None:
    row = '{"timestamp": 0, "input_length": %s, "output_length": 1}'
    for value in ("true", "null", '"many"', "1.5"):
        with pytest.raises(TraceError, match="row 1, column 'input_length'"):
            read_trace(write(row % value, "m.jsonl"))


@pytest.mark.parametrize(
    ("column", "value"), [("tbt_s", "-1"), ("tbt_s", "x"), ("tier", "1.5"), ("priority", "maybe")]
)
def test_a_bad_service_level_is_named(write: Write, column: str, value: str) -> None:
    with pytest.raises(TraceError, match=f"row 2, column '{column}': '{value}' is"):
        read_trace(write(f"prompt_tokens,output_tokens,{column}\n1,1,{value}\n"))


def test_a_prompt_over_the_limit_follows_on_long(write: Write) -> None:
    path = write(f"{HEADER}1,100,20\n2,300,20\n")
    with pytest.raises(
        TraceError, match="row 3, column 'prompt_tokens': '300' is longer than the model's limit of 200"
    ):
        read_trace(path, max_prompt_tokens=200)
    dropped = read_trace(path, max_prompt_tokens=200, on_long="drop")
    assert dropped.dropped == {"prompt_too_long": 1}
    clipped = read_trace(path, max_prompt_tokens=200, on_long="clip")
    assert clipped.clipped == 1
    assert clipped.requests["prompt_tokens"].tolist() == [100, 187]
    assert clipped.requests["output_tokens"].tolist() == [20, 12]
    with pytest.raises(ConfigError, match="at least 2"):
        read_trace(path, max_prompt_tokens=1)
    with pytest.raises(ConfigError, match="on_long must be one of error, drop, clip but got 'cut'"):
        read_trace(path, max_prompt_tokens=10, on_long="cut")


def test_on_bad_does_not_drop_long_prompts(write: Write) -> None:
    with pytest.raises(TraceError, match=r"on_long='drop' \(--on-long drop\)"):
        read_trace(write(f"{HEADER}1,300,20\n"), max_prompt_tokens=200, on_bad="drop")


@given(
    st.lists(st.tuples(st.integers(1, 50_000), st.integers(1, 50_000)), min_size=1, max_size=20),
    st.integers(2, 20_000),
)
def test_clipping_keeps_the_limit_the_proportion_and_one_token_each(
    pairs: list[tuple[int, int]], limit: int
) -> None:
    prompt, output = (np.array(side, dtype=np.int64) for side in zip(*pairs, strict=True))
    clipped = clip_lengths(prompt, output, limit)
    total = clipped.prompt_tokens + clipped.output_tokens
    assert (total <= limit).all()
    assert (clipped.prompt_tokens >= 1).all()
    assert (clipped.output_tokens >= 1).all()
    assert (total[clipped.changed] >= limit - 1).all()
    assert ((clipped.prompt_tokens == prompt) | clipped.changed).all()
    share = clipped.prompt_tokens - limit * prompt / (prompt + output)
    assert (np.abs(share[clipped.changed]) <= 2).all()
