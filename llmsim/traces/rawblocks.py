"""A workload file as text cells, block after block: what `rawtable.parse_file` is in one piece.

CSV and JSON lines are read a block of lines at a time, Parquet a batch of rows (pyarrow holds what is packed of one row
group besides). Prefix hashes are passed over.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from llmsim.traces import csvtext, files, rawtable
from llmsim.traces.bytestream import BUFFER, ByteStream
from llmsim.traces.rawtable import PARQUET_MAGIC, RawTable

if TYPE_CHECKING:
    import pandas as pd


class RawBlocks:
    """One pass over the file `path` in tables of at most `block` rows; `sha256` is its digest after the pass.

    TraceError as from `rawtable.parse_file`.
    """

    def __init__(self, path: Path, block: int) -> None:
        self.path = path
        self.block = block
        self.sha256 = ""

    def __iter__(self) -> Iterator[RawTable]:
        with ByteStream(self.path) as stream, io.BufferedReader(stream, BUFFER) as data:
            rows = 0
            for table in self._tables(stream, data):
                rows += len(table.cells)
                if len(table.cells):
                    yield table
            if not rows:
                raise rawtable.no_rows(str(self.path))
            self.sha256 = stream.sha256

    def _tables(self, stream: ByteStream, data: io.BufferedReader[ByteStream]) -> Iterator[RawTable]:
        """Tables of the file's kind, told from its first bytes."""
        source = str(self.path)
        if data.peek(4)[:4] == PARQUET_MAGIC:
            yield from self._parquet(stream, data)
            return
        blank: list[bytes] = []
        for line in data:
            blank.append(line)
            if line.strip():
                break
        if not blank or not blank[-1].strip():
            raise files.no_text(self.path)
        lines = chain(blank, data)
        if blank[-1].lstrip()[:1] == b"{":
            yield from _json_lines(lines, source, self.block)
            return
        for cells, first in csvtext.text_blocks(lines, source, self.block, self._again):
            yield rawtable.without_blanks(cells, first, source)

    def _again(self) -> Iterator[bytes]:
        """The lines of the file from its beginning."""
        with io.BufferedReader(ByteStream(self.path), BUFFER) as data:
            yield from data

    def _parquet(self, stream: ByteStream, data: io.BufferedReader[ByteStream]) -> Iterator[RawTable]:
        """Batches of a Parquet file; a packed one is unpacked to a temporary file, as its reader jumps about."""
        source = str(self.path)
        with tempfile.TemporaryFile() if stream.packed else self.path.open("rb") as file:
            if stream.packed:
                shutil.copyfileobj(data, file, BUFFER)
                file.seek(0)
            else:
                while data.read(BUFFER):  # for the digest
                    pass
            first = 2
            batches = _batches(file, self.block)
            while True:
                try:
                    table = next(batches, None)
                except Exception as error:  # pyarrow raises many kinds, all of which mean a damaged file here
                    raise rawtable.damaged_parquet(error, source) from None
                if table is None:
                    return
                yield rawtable.parquet_table(table, first, source)
                first += len(table)


def _batches(file: IO[bytes], block: int) -> Iterator[pd.DataFrame]:
    """Tables of at most `block` rows, with the types that they have in the whole file."""
    from pyarrow import types  # only where such a file is read
    from pyarrow.parquet import ParquetFile

    parquet = ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)
    schema = parquet.schema_arrow
    # pandas makes floats of whole numbers where some are missing, wherever in the file.
    whole = [field.name for field in schema if types.is_integer(field.type)]
    gaps = set()
    if whole:
        for batch in parquet.iter_batches(batch_size=block, columns=whole):
            gaps |= {name for name in whole if batch.column(name).null_count}
    columns = [name for name in schema.names if name != "hash_ids"]
    for batch in parquet.iter_batches(batch_size=block, columns=columns):
        table = batch.to_pandas()
        yield table.astype({name: "float64" for name in gaps if isinstance(table.dtypes.get(name), np.dtype)})


def _json_lines(lines: Iterator[bytes], source: str, block: int) -> Iterator[RawTable]:
    """Blocks of JSON lines under the names of the first."""
    # Lines also end at a bare carriage return.
    records = rawtable.json_records((part for line in lines for part in line.splitlines()), source)
    names: list[Any] | None = None
    while rows := list(islice(records, block)):
        names = list(rows[0][1]) if names is None else names
        yield rawtable.json_table(rows, names, source)
