"""A workload in another format: every column is there again, or named as left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmsim.traces.conversion import conversion_notes, left_out
from llmsim.traces.export import write_trace
from llmsim.traces.readers import read_trace
from llmsim.traces.schema import COLUMNS
from tests.command import typed

Write = Callable[..., Path]
SECONDS = st.one_of(st.none(), st.floats(0.001, 100))
WORDS = st.sampled_from(["", "a", "b,c", 'with "quotes"', "é"])
OPTIONAL = {
    "slo_class": WORDS,
    "tbt_s": SECONDS,
    "ttft_s": SECONDS,
    "ttlt_s": SECONDS,
    "tier": st.one_of(st.none(), st.integers(0, 3)),
    "priority": st.booleans(),
    "model": WORDS,
    "hash_ids": st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=40),
}
DTYPES = {"tier": "Int64", "priority": bool, "tbt_s": float, "ttft_s": float, "ttlt_s": float}


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Trace tables with any of the optional columns."""
    size = draw(st.integers(1, 8))

    def column(values: st.SearchStrategy[object]) -> list[object]:
        return draw(st.lists(values, min_size=size, max_size=size))

    lengths = {name: column(st.integers(1, 5000)) for name in ("prompt_tokens", "output_tokens")}
    table = pd.DataFrame({"arrival_ns": np.cumsum(column(st.integers(0, 10**12))), **lengths})
    for name in draw(st.sets(st.sampled_from(sorted(OPTIONAL)))):
        table[name] = pd.Series(column(OPTIONAL[name]), dtype=DTYPES.get(name, object))
    return table[[name for name in COLUMNS if name in table.columns]]


def plain(table: pd.DataFrame, name: str) -> list[object]:
    """The cells of a column; nothing, an empty text and NaN are one and the same."""
    cells = [list(value) if isinstance(value, list | np.ndarray) else value for value in table[name].tolist()]
    return [None if not isinstance(value, list) and (pd.isna(value) or value == "") else value for value in cells]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.jsonl", "t.jsonl.gz", "t.parquet"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(table=tables())
def test_every_column_is_kept_or_named(tmp_path: Path, name: str, table: pd.DataFrame) -> None:
    path = write_trace(table, tmp_path / name)
    back = read_trace(path).requests
    said = " ".join(left_out(table, path))
    for column in table.columns:
        was = plain(table, column)
        kept = column in back.columns and plain(back, column) == was
        nothing = all(value is None or value is False for value in was)
        assert kept or nothing or column in said, f"{column} is lost without a word: {was}"
        assert not (kept and f"place for {column}" in said)


EXTRA = {
    "session_id": "s1", "turn": 2, "chat_id": 7, "parent_chat_id": -1, "user": "u", "type": "text", "delay": 3,
}  # fmt: skip


@pytest.mark.parametrize("out", ["o.csv", "o.jsonl", "o.parquet"])
@pytest.mark.parametrize("extra", EXTRA)
def test_a_column_that_is_not_read_is_named(
    write: Write, capfd: pytest.CaptureFixture[str], extra: str, out: str
) -> None:
    row = {"timestamp": 1.5, "input_length": 700, "output_length": 2, "hash_ids": [4, 9]}
    path = write(json.dumps(row) + "\n" + json.dumps({**row, extra: EXTRA[extra]}) + "\n", "t.jsonl")
    said = typed(capfd, "trace", "convert", path, "--out", path.parent / out)
    assert said.returncode == 0
    assert extra in said.stderr
    assert ("hash_ids;" in said.stderr) == (out == "o.csv")


def test_hash_ids_that_the_first_rows_lack_are_kept(write: Write) -> None:
    row = {"timestamp": 0, "input_length": 700, "output_length": 2}
    rows = [*[row] * 300, {**row, "hash_ids": [4, 9]}]
    path = write("".join(json.dumps(r) + "\n" for r in rows), "t.jsonl")
    assert read_trace(path).requests["hash_ids"].tolist() == [*[None] * 300, [4, 9]]
    assert "hash_ids" not in read_trace(write(json.dumps(row) + "\n", "none.jsonl")).requests


@pytest.mark.parametrize(("block", "sized"), [(512, False), (16, True)])
def test_ids_of_smaller_blocks_are_all_kept_and_told(write: Write, tmp_path: Path, block: int, sized: bool) -> None:
    ids = list(range(-(-1000 // block)))
    text = json.dumps({"timestamp": 0, "input_length": 1000, "output_length": 2, "hash_ids": ids})
    trace = read_trace(write(text + "\n", "t.jsonl"))
    out = write_trace(trace.requests, tmp_path / "o.jsonl")
    assert json.loads(out.read_text())["hash_ids"] == ids
    assert any("Mooncake's size" in note for note in conversion_notes(trace, out)) == sized


@pytest.mark.parametrize("block", [512, 16])
def test_a_prompt_that_is_cut_keeps_the_blocks_of_what_is_left(write: Write, block: int) -> None:
    ids = list(range(-(-4000 // block)))
    text = json.dumps({"timestamp": 0, "input_length": 4000, "output_length": 1000, "hash_ids": ids})
    trace = read_trace(write(text + "\n", "t.jsonl"), max_prompt_tokens=1000, on_long="clip")
    left = int(trace.requests["prompt_tokens"].iloc[0])
    assert trace.requests["hash_ids"].iloc[0] == ids[: -(-left // block)]


def test_where_absolute_times_begin_is_said(write: Write, tmp_path: Path) -> None:
    trace = read_trace(write("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799601,5,6\n"))
    (note,) = conversion_notes(trace, tmp_path / "o.csv")
    assert "2023-11-16T18:17:03.9799601" in note


@pytest.mark.parametrize(("out", "lost"), [("o.jsonl", ["slo_class", "tbt_s"]), ("o.csv", []), ("o.parquet", [])])
def test_a_workload_that_is_made_names_what_it_loses(
    write: Write, capfd: pytest.CaptureFixture[str], out: str, lost: list[str]
) -> None:
    row = {"timestamp": 0, "input_length": 700, "output_length": 2, "hash_ids": [4, 9]}
    path = write(json.dumps(row) + "\n", "t.jsonl")
    said = typed(capfd, "trace", "synth", path, "--class", "name=paying,share=1,tbt_s=0.1", "--out", path.parent / out)
    assert said.returncode == 0
    assert "hash_ids of the trace are not kept" in said.stderr
    assert [name for name in ("slo_class", "tbt_s") if name in said.stderr] == lost
