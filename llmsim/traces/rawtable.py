"""A workload file as text cells with line numbers: CSV, JSON lines and Parquet made alike.

Cells stay text until `parsing` reads them, so that an error can quote what the file says, where it says it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmsim.errors import TraceError
from llmsim.traces import csvtext

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
        raise no_rows(source)
    return table


def no_rows(source: str) -> TraceError:
    """The error for a file with a header alone."""
    return TraceError(f"{source}: row 1 is a header but no rows follow; fetch or export the file again")


def _csv(data: bytes, source: str) -> RawTable:
    """Comma-separated text with a header; blank lines are passed over but counted."""
    text = csvtext.decode(data, source)
    body = text.lstrip("\r\n")
    above = text[: len(text) - len(body)].count("\n")
    csvtext.check_header(body, source)
    cells = csvtext.read_cells(body)
    if cells is None:
        raise csvtext.ragged(io.StringIO(body), source, above)
    return without_blanks(cells, 2 + above, source)


def without_blanks(cells: pd.DataFrame, first: int, source: str) -> RawTable:
    """The rows of cells that begin at line `first` of the file, less those without any text."""
    line = np.arange(first, first + len(cells), dtype=np.int64)
    blank = (cells.iloc[:, 0] == "").to_numpy(dtype=np.bool_)
    if blank.any():
        blank = (cells == "").all(axis=1).to_numpy(dtype=np.bool_)
        cells, line = cells[~blank].reset_index(drop=True), line[~blank]
    return RawTable(cells=cells, line=line, source=source)


def _json_lines(data: bytes, source: str) -> RawTable:
    """One JSON object a line; a key that a row lacks is an empty cell."""
    records = list(json_records(data.splitlines(), source))
    first = records[0][1]
    table = json_table(records, list(first), source)
    if "hash_ids" not in first:
        return table
    return replace(table, hash_ids=pd.Series([record.get("hash_ids") for _, record in records], dtype=object))


def json_records(lines: Iterable[bytes], source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of every line that is not blank."""
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except ValueError as error:
            raise TraceError(
                f"{source}: row {number} is not JSON ({error}): {text[:60]!r}; correct or delete the line"
            ) from None
        if not isinstance(record, dict):
            raise TraceError(f"{source}: row {number} is not a JSON object: {text[:60]!r}; write one object a line")
        yield number, record


def json_table(records: Sequence[tuple[int, dict[str, Any]]], names: Sequence[str], source: str) -> RawTable:
    """Text cells of numbered records under the names of the file's first one, prefix hashes left out."""
    columns = [name for name in names if name != "hash_ids"]
    cells = pd.DataFrame({name: [_cell(r.get(name)) for _, r in records] for name in columns}, dtype=str)
    return RawTable(cells=cells, line=np.array([number for number, _ in records], dtype=np.int64), source=source)


def _cell(value: object) -> str:
    """Text of a JSON value, '' for null."""
    return "" if value is None else str(value)


def _parquet(data: bytes, source: str) -> RawTable:
    """A Parquet file; its rows are numbered as if a header line stood before them."""
    try:
        table = pd.read_parquet(io.BytesIO(data))
    except Exception as error:  # pyarrow raises many kinds, all of which mean a damaged file here
        raise damaged_parquet(error, source) from None
    hash_ids = table.pop("hash_ids") if "hash_ids" in table.columns else None
    return replace(parquet_table(table, 2, source), hash_ids=hash_ids)


def parquet_table(table: pd.DataFrame, first: int, source: str) -> RawTable:
    """Text cells of typed columns; the rows begin at line `first`."""
    cells = pd.DataFrame({str(name): table[name].astype(str).where(table[name].notna(), "") for name in table.columns})
    return RawTable(cells=cells, line=np.arange(first, first + len(table), dtype=np.int64), source=source)


def damaged_parquet(error: Exception, source: str) -> TraceError:
    """The error for a Parquet file that pyarrow cannot read."""
    return TraceError(f"{source}: damaged Parquet file ({error}); export it again")
