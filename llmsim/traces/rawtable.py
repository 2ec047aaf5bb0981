"""A workload file as text cells with line numbers: CSV, JSON lines and Parquet made alike.

Cells stay text until `parsing` reads them, so that an error can quote what the file says, where it says it.
"""

from __future__ import annotations

import csv
import io
import json
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmsim.errors import TraceError

PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class RawTable:
    """Text columns of one file; `line[i]` is the 1-based line of row i in it, header counted."""

    cells: pd.DataFrame
    line: NDArray[np.int64]
    source: str
    hash_ids: pd.Series | None = None


def parse_file(data: bytes, source: str) -> RawTable:
    """The rows of a decompressed file.

    TraceError for text, JSON or Parquet that cannot be read, or no rows.
    """
    if data[:4] == PARQUET_MAGIC:
        table = _parquet(data, source)
    elif data.lstrip()[:1] == b"{":
        table = _json_lines(data, source)
    else:
        table = _csv(data, source)
    if not len(table.cells):
        raise TraceError(f"{source}: row 1 is a header but no rows follow; fetch or export the file again")
    return table


def _csv(data: bytes, source: str) -> RawTable:
    """Comma-separated text with a header; blank lines are passed over but counted."""
    text = _decode(data, source)
    body = text.lstrip("\r\n")
    above = text[: len(text) - len(body)].count("\n")
    names = next(csv.reader(io.StringIO(body)), [])
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise TraceError(f"{source}: row 1 (the header) has column {twice!r} twice; rename one of them")
    try:
        with warnings.catch_warnings():
            # pandas only warns of a first row that is longer than the header, and then cuts it.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            cells = pd.read_csv(
                io.StringIO(body), dtype=str, na_filter=False, skip_blank_lines=False, index_col=False
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError):
        raise TraceError(_ragged(body, source, above)) from None
    cells.columns = [str(c).strip() for c in cells.columns]
    # A row with fewer fields than the header ends in NaN, although no other empty cell does.
    cells = cells.fillna("")
    line = np.arange(2, len(cells) + 2, dtype=np.int64) + above
    blank = (cells.iloc[:, 0] == "").to_numpy(dtype=np.bool_)
    if blank.any():
        blank = (cells == "").all(axis=1).to_numpy(dtype=np.bool_)
        cells, line = cells[~blank].reset_index(drop=True), line[~blank]
    return RawTable(cells=cells, line=line, source=source)


def _decode(data: bytes, source: str) -> str:
    """Text of UTF-8 bytes, with or without a byte order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise TraceError(
            f"{source}: row {row} is not text (byte {data[error.start]:#04x} is no UTF-8); give a CSV, JSON "
            "lines or Parquet file, plain or gzipped"
        ) from None


def _ragged(text: str, source: str, above: int) -> str:
    """Message naming the first row with more fields than the header."""
    reader = csv.reader(io.StringIO(text))
    width = len(next(reader, []))
    for row in reader:
        if len(row) > width:
            return (
                f"{source}: row {reader.line_num + above} has {len(row)} fields where the header has "
                f"{width} columns (column {width + 1}: {row[width]!r}); quote fields that hold a comma, or "
                "complete the header"
            )
    return f"{source}: row 1 is not the header of a comma-separated file; write it with commas and a header"


def _json_lines(data: bytes, source: str) -> RawTable:
    """One JSON object a line; a key that a row lacks is an empty cell."""
    records: list[dict[str, Any]] = []
    line = []
    for number, text in enumerate(data.splitlines(), start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except ValueError as error:
            raise TraceError(
                f"{source}: row {number} is not JSON ({error}): {text[:60]!r}; correct or delete the line"
            ) from None
        if not isinstance(record, dict):
            raise TraceError(
                f"{source}: row {number} is not a JSON object: {text[:60]!r}; write one object a line"
            )
        records.append(record)
        line.append(number)
    hash_ids = (
        pd.Series([r.get("hash_ids") for r in records], dtype=object) if "hash_ids" in records[0] else None
    )
    names = [name for name in records[0] if name != "hash_ids"]
    cells = pd.DataFrame({name: [_cell(r.get(name)) for r in records] for name in names}, dtype=str)
    return RawTable(cells=cells, line=np.asarray(line, dtype=np.int64), source=source, hash_ids=hash_ids)


def _cell(value: object) -> str:
    """Text of a JSON value, '' for null."""
    return "" if value is None else str(value)


def _parquet(data: bytes, source: str) -> RawTable:
    """A Parquet file; its rows are numbered as if a header line stood before them."""
    try:
        table = pd.read_parquet(io.BytesIO(data))
    except Exception as error:  # pyarrow raises many kinds, all of which mean a damaged file here
        raise TraceError(f"{source}: damaged Parquet file ({error}); export it again") from None
    hash_ids = table.pop("hash_ids") if "hash_ids" in table.columns else None
    cells = pd.DataFrame(
        {str(name): table[name].astype(str).where(table[name].notna(), "") for name in table.columns}
    )
    return RawTable(
        cells=cells, line=np.arange(2, len(table) + 2, dtype=np.int64), source=source, hash_ids=hash_ids
    )
