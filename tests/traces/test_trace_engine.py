"""The engine and the careful reader see the same rows and the same cells; columns and cells the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llmsim.errors import TraceError
from llmsim.traces import careful, database, parsing, stats
from llmsim.traces.plainfile import plain_file
from llmsim.traces.records import CsvRecords, JsonRecords, open_records

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def outcome(path: Path) -> tuple[object, object]:
    """Rows (or error) as read, and as the careful reader alone reads them."""
    with plain_file(path) as plain, database.connect(plain.folder, None) as connection:
        try:
            records = open_records(plain, connection)
        except TraceError as error:
            return str(error), str(error)

        def read() -> object:
            try:
                cells = records.whole(records.header).columns
                return list(zip(*(column.to_pylist() for column in cells.values()), strict=True))
            except TraceError as error:
                return str(error)

        as_read = read()
        records._read = refuse  # type: ignore[method-assign, assignment]
        return as_read, read()


def refuse(*_: object) -> object:
    raise database.Refused("")


CSV_TEXT = st.text(st.sampled_from('ab1, \t;"\r\n\n\n,,é\x00'), min_size=1, max_size=40)


@SLOW
@given(CSV_TEXT, st.sampled_from(["a,b,c\n", "a,b\r\n", "\n\na\tb\n", "a;b;\n", "a\n", "", "\r\n\na,b\n"]))
@example('1,"2,3\n4,5,6\n', "a,b,c\n")
@example("1,2,3,\n4,5,6\n", "a,b,c\n")
@example(",,,\n4,5,6\n", "a,b,c\n")
@example("1\n\n2\n", "a\n")
@example("\r\n1,2\r\n3,4", "\r\n\na,b\r\n")
def test_csv_is_read_alike_by_the_engine_and_carefully(tmp_path: Path, body: str, header: str) -> None:
    if not (header + body).strip():
        return
    path = tmp_path / "t.csv"
    path.write_bytes((header + body).encode())
    as_read, careful_alone = outcome(path)
    assert as_read == careful_alone


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(st.sampled_from('a":,}\\é'), max_size=4),
    st.lists(st.integers(0, 2**63), max_size=3),
)
ROW = st.dictionaries(st.sampled_from(["a", "b", "a/b", "it's", "~", 'q"']), VALUES, max_size=4).map(json.dumps)
ODD = st.sampled_from(
    ['{"a":1,}', "[1]", "5", '{"a":NaN}', '{"a":01}', "{", "", " ", '{"a":1}\r{"a":2}', '{"a":"\\ud800"}']
)


@SLOW
@given(st.lists(st.one_of(ROW, ROW, ODD), min_size=1, max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_json_lines_are_read_alike_by_the_engine_and_carefully(tmp_path: Path, lines: list[str], end: str) -> None:
    path = tmp_path / "t.jsonl"
    first = '{"a": 1.50, "b": 1e3, "a/b": "", "it\'s": 0, "~": 0, "q\\"": 0}'
    path.write_bytes(end.join([first, *lines]).encode())
    as_read, careful_alone = outcome(path)
    assert as_read == careful_alone


@SLOW
@given(st.lists(ROW, min_size=1, max_size=6))
def test_json_lists_are_read_alike_by_the_engine_and_carefully(tmp_path: Path, rows: list[str]) -> None:
    path = tmp_path / "t.json"
    path.write_text('[{"a": 1.50, "b": 0},\n' + ",\n".join(rows) + "]")
    as_read, careful_alone = outcome(path)
    assert as_read == careful_alone


def test_the_engine_shows_no_progress_among_what_is_printed(tmp_path: Path) -> None:
    with database.connect(tmp_path, "128MiB") as connection:
        for one in (connection, database.second(connection)):
            assert one.sql("SELECT current_setting('enable_progress_bar')").fetchall() == [(False,)]
        assert connection.sql("SELECT current_setting('memory_limit')").fetchall() == [("128.0 MiB",)]


def test_what_is_plain_is_left_to_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> object:
        raise AssertionError("read carefully")

    monkeypatch.setattr(CsvRecords, "_careful", fail)
    monkeypatch.setattr(JsonRecords, "_careful", fail)
    for name, text in {
        "t.csv": "a,b\r\n1,2\r\n\r\n3\r\n",
        "t.tsv": "a\tb\n1\té\n",
        "t.jsonl": '{"a": 1, "b": {"c": "x, y"}}\n\n{}\n',
        "t.json": '[{"a": 1}, {"b": 2}]',
    }.items():
        path = tmp_path / name
        path.write_bytes(text.encode())
        with plain_file(path) as plain, database.connect(plain.folder, None) as connection:
            records = open_records(plain, connection)
            assert len(records.whole(records.header)) >= 1


CELL = st.one_of(
    st.text(st.sampled_from("0123456789.+-eE xXnaif_"), max_size=6),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    st.decimals(0, 10**8, places=7).map(str),
)


@settings(max_examples=400)
@given(st.lists(CELL, min_size=1, max_size=4))
def test_a_column_holds_the_numbers_of_its_cells(cells: list[str]) -> None:
    text = pa.array(cells, pa.string())
    each = pd.to_numeric(pd.Series(cells, dtype=str), errors="coerce").to_numpy(dtype=np.float64)
    np.testing.assert_array_equal(parsing.numbers(text), each)
    values, faults = parsing.parse_count(text, "n")
    whole = np.isfinite(each) & (each == np.floor(each)) & (np.abs(each) < 2**53)
    assert values.tolist() == np.where(whole, each, 0).astype(np.int64).tolist()
    assert sum(int(fault.rows.sum()) for fault in faults) == int((~whole | (each < 1)).sum())


TIMES = st.one_of(
    st.datetimes(pd.Timestamp("1960-01-01"), pd.Timestamp("2270-01-01")).map(str),
    st.datetimes(pd.Timestamp("1990-01-01"), pd.Timestamp("2100-01-01")).map(lambda t: f"{t.isoformat()}"),
    st.sampled_from(["2023-11-16", "2023-11-16 18", "2023-11-16 18:17", "20231116", "2023-11-16 18:17:03.97996001"]),
    st.sampled_from(["2023-11-16T18:17:03Z", "2023-11-16 18:17:03+02:00", "5", "", "24:00", "2023-11-16 18:17:60"]),
    st.sampled_from(["2023-11-16 24:00:00", " 2023-11-16", "2023-11-16 18:17:03.1234567891", "2023-320", "nat"]),
)


@settings(max_examples=300)
@given(st.lists(TIMES, min_size=1, max_size=3))
def test_date_times_of_a_column_are_those_of_its_cells(cells: list[str]) -> None:
    values, faults = parsing.parse_time(pa.array(cells, pa.string()), "t", "datetime")
    # A cell that is none has every cell looked at by itself.
    slow, slow_faults = parsing.parse_time(pa.array([*cells, "x"], pa.string()), "t", "datetime")
    assert values.tolist() == slow[:-1].tolist()
    for fault, other in zip(faults, slow_faults, strict=True):
        assert fault.rows.tolist() == other.rows[:-1].tolist()


@settings(max_examples=200)
@given(st.lists(st.one_of(st.integers(1, 9), st.integers(1, 10**5)), min_size=1, max_size=50))
def test_quantiles_of_lengths_are_those_of_numpy(lengths: list[int]) -> None:
    expected = np.quantile(np.array(lengths, dtype=np.float64), stats.QUANTILES)
    assert stats._quantiles(np.array(lengths)).tolist() == expected.tolist()


def test_a_quoted_text_longer_than_the_csv_module_expects_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f'prompt_tokens,output_tokens,text\n1,2,"{"x, " * 60_000}"\n')
    as_read, careful_alone = outcome(path)
    assert as_read == careful_alone
    assert careful.DELIMITERS[0] == ","
