"""Rows of a trace put in order of arrival, in bounded memory: DuckDB sorts, on disk if it must."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from llmsim.traces import database

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_PLACE = "place in the file"


class TimeOrder:
    """Tables sorted by `arrival_ns`; rows of the same time stay in the order of the file.

    `moved` counts, when the last table has been made, the rows that came to stand in another place.
    """

    def __init__(self, connection: DuckDBPyConnection) -> None:
        self.moved = 0
        self._connection = database.second(connection)

    def sorted(self, tables: Iterator[pd.DataFrame], size: int) -> Iterator[pd.DataFrame]:
        """All rows of the tables, at most `size` at a time; ConfigError if the engine's memory does not do."""
        kinds = self._store(tables)
        if kinds is None:
            return
        place = 0
        query = f'SELECT * FROM sorting ORDER BY arrival_ns, "{_PLACE}"'
        for batch in database.batches(self._connection, query, size):
            table = pa.Table.from_batches([batch]).to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
            was = table.pop(_PLACE).to_numpy(dtype=np.int64)
            self.moved += int((was != np.arange(place, place + len(was))).sum())
            place += len(was)
            yield table.astype(kinds)
        self._connection.execute("DROP TABLE sorting")

    def _store(self, tables: Iterator[pd.DataFrame]) -> dict[Hashable, Any] | None:
        """Put all rows into a table of the engine; the types of their columns, None without rows."""
        kinds = None
        place = 0
        for table in tables:
            rows = pa.Table.from_pandas(table, preserve_index=False)
            rows = rows.append_column(_PLACE, pa.array(np.arange(place, place + len(table))))
            self._connection.register("rows_of_block", rows)
            verb = "CREATE OR REPLACE TABLE sorting AS" if kinds is None else "INSERT INTO sorting"
            self._connection.execute(f"{verb} SELECT * FROM rows_of_block")
            self._connection.unregister("rows_of_block")
            kinds = table.dtypes.to_dict() if kinds is None else kinds
            place += len(table)
        return kinds
