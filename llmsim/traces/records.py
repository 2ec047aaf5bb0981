"""The rows of a workload file as text cells, block after block: CSV, JSON lines, JSON lists and Parquet made alike.

Cells stay text until `parsing` reads them, so that an error can quote what the file says. The engine reads; where it
refuses, the careful reader goes on from the same row, or says what is wrong there.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from llmsim.errors import TraceError
from llmsim.traces import careful, database

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from llmsim.traces.plainfile import PlainFile

PARQUET_MAGIC = b"PAR1"
_BLOCK = 131_072
_HEADER_ROWS = 100
"""JSON objects whose keys are the header: an optional key need not be in the first."""
_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")
_LIST = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*(?:[\]{]|$)")


@dataclass(frozen=True, slots=True)
class Cells:
    """Text cells of some rows of a file, by column; the first of them is row `first` (from 0) of `records`."""

    columns: dict[str, pa.StringArray]
    first: int
    records: Records

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


class Records(ABC):
    """The rows of one file that hold text; `header` are its columns, `source` is what messages call it."""

    open_ended = False
    """Whether rows may have columns that the header does not name."""

    def __init__(self, plain: PlainFile, connection: DuckDBPyConnection) -> None:
        self.source = plain.source
        self._plain = plain
        self._connection = connection
        self.header = self._header()

    def blocks(self, columns: Sequence[str], size: int) -> Generator[Cells]:
        """The cells of these columns (one at least), at most `size` rows at a time, in the order of the file.

        TraceError for a row that cannot be told into cells, when it is reached, and for a file without rows.
        """
        columns = list(dict.fromkeys(columns))
        taken = 0
        try:
            for batch in self._read(columns, size):
                if batch.num_rows:
                    yield Cells(dict(zip(columns, batch.columns, strict=False)), taken, self)
                taken += batch.num_rows
        except database.Refused as refusal:
            rows = islice(self._careful(columns, str(refusal)), taken, None)
            while part := [cells for _, cells in islice(rows, size)]:
                arrays = [pa.array(values, pa.string()) for values in zip(*part, strict=True)]
                yield Cells(dict(zip(columns, arrays, strict=True)), taken, self)
                taken += len(part)
        if not taken:
            raise TraceError(f"{self.source}: row 1 is a header but no rows follow; fetch or export the file again")

    def whole(self, columns: Sequence[str]) -> Cells:
        """The cells of these columns of all rows; TraceError as from `blocks`."""
        parts = list(self.blocks(columns, _BLOCK))
        names = parts[0].columns
        return Cells({name: pa.concat_arrays([part.columns[name] for part in parts]) for name in names}, 0, self)

    def line(self, row: int) -> int:
        """The line of the file at which row `row` (from 0) begins, the header counted."""
        return next(islice(self._careful([], ""), row, None))[0]

    def lines(self, rows: int) -> NDArray[np.int64]:
        """The line of the file at which each of its first rows begins, shape (rows,)."""
        return np.fromiter((line for line, _ in islice(self._careful([], ""), rows)), dtype=np.int64, count=rows)

    @abstractmethod
    def _header(self) -> list[str]:
        """Names of the columns; TraceError if one stands there twice."""

    @abstractmethod
    def _read(self, columns: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        """Cells as the engine reads them; Refused before the first row that it cannot read."""

    @abstractmethod
    def _careful(self, columns: Sequence[str], refusal: str) -> Iterator[tuple[int, list[str]]]:
        """Line and cells of every row; TraceError for what the engine refused, in these words, and rightly."""


def open_records(plain: PlainFile, connection: DuckDBPyConnection) -> Records:
    """The rows of a file of any kind, told from its first bytes; TraceError for a header that cannot be used."""
    if plain.start.startswith(PARQUET_MAGIC):
        return ParquetRecords(plain, connection)
    if _OBJECT.match(plain.start):
        return JsonRecords(plain, connection)
    if _LIST.match(plain.start):
        return JsonListRecords(plain, connection)
    return CsvRecords(plain, connection)


def _until_odd(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches up to the first row whose last column, `odd`, is true; there Refused."""
    for batch in batches:
        odd = batch.column(batch.num_columns - 1)
        if pc.any(odd).as_py():
            yield batch.slice(0, pc.index(odd, True).as_py())
            raise database.Refused("a row that is to be read carefully")
        yield batch


class CsvRecords(Records):
    """Text with a header and a delimiter; rows without any text are passed over, but their lines are counted."""

    def _header(self) -> list[str]:
        tried = {}
        for delimiter in careful.DELIMITERS:
            rows = careful.csv_rows(self._plain.path, self.source, delimiter)
            tried[delimiter] = next((row for row in rows if any(row[2])), (1, 1, [""]))
        self._delimiter = max(careful.DELIMITERS, key=lambda delimiter: len(tried[delimiter][2]))
        _, self._above, fields = tried[self._delimiter]
        names = [name.strip() for name in fields]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise TraceError(f"{self.source}: row 1 (the header) has column {twice[0]!r} twice; rename one of them")
        return names

    def _read(self, columns: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        plain = self._plain
        if plain.quotes or not plain.line_ends_alike or not plain.utf8:
            # Engines disagree on quotes that do not close, and on line ends inside and outside of them.
            raise database.Refused("")
        wanted = [self.header.index(name) for name in columns]
        query = database.csv_query(plain.path, self._delimiter, len(self.header), self._above, wanted)
        return _until_odd(database.batches(self._connection, query, size))

    def _careful(self, columns: Sequence[str], refusal: str) -> Iterator[tuple[int, list[str]]]:
        width = len(self.header)
        wanted = [self.header.index(name) for name in columns]
        for line, last, fields in careful.csv_rows(self._plain.path, self.source, self._delimiter):
            if last > self._above and (any(fields) or len(fields) > width):
                cells = fields if len(fields) == width else careful.padded(fields, width, line, self.source)
                yield line, [cells[i] for i in wanted]


class JsonRecords(Records):
    """One JSON object a line, under the names of the first ones; a key that a row lacks is an empty cell."""

    open_ended = True
    _list = False

    def _header(self) -> list[str]:
        first = [record for _, record in islice(self._objects(), _HEADER_ROWS)]
        if not first:
            raise TraceError(f"{self.source}: the list has no entries; fetch or export the file again")
        self._names = {name for record in first for name in record}
        return list(dict.fromkeys(name for record in first for name in careful.json_names(record)))

    def _objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return careful.json_lines(self._plain.path, self.source)

    def _path(self, name: str) -> list[str]:
        """Keys that lead to a column: its name is one, or has a dot between two."""
        return [name] if name in self._names else name.split(".")

    def _read(self, columns: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        paths = [[key.replace("~", "~0").replace("/", "~1") for key in self._path(name)] for name in columns]
        query = database.json_query(self._plain.path, self._list, ["/" + "/".join(path) for path in paths])
        return _until_odd(database.batches(self._connection, query, size))

    def _careful(self, columns: Sequence[str], refusal: str) -> Iterator[tuple[int, list[str]]]:
        paths = [self._path(name) for name in columns]
        for line, record in self._objects():
            yield line, [careful.json_cell(record, path) for path in paths]


class JsonListRecords(JsonRecords):
    """A JSON list of objects; the line of a row is its number in the list, from 1."""

    _list = True

    def _objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return careful.json_array(self._plain.path, self.source)


class ParquetRecords(Records):
    """A Parquet file; its rows are numbered as if a header line stood before them."""

    def _header(self) -> list[str]:
        try:
            return database.columns(self._connection, database.parquet_query(self._plain.path))
        except database.Refused as refusal:
            raise self._damaged(str(refusal)) from None

    def _read(self, columns: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        return database.batches(self._connection, database.parquet_query(self._plain.path, columns), size)

    def _careful(self, columns: Sequence[str], refusal: str) -> Iterator[tuple[int, list[str]]]:
        if columns:
            raise self._damaged(refusal)
        row = 2
        while True:
            yield row, []
            row += 1

    def _damaged(self, error: str) -> TraceError:
        said = error.replace(str(self._plain.path), self.source)
        return TraceError(f"{self.source}: damaged Parquet file ({said}); export it again")
