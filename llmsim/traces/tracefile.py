"""A trace file as tables of the schema, in blocks or whole: the one reader behind runs in memory and streamed ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from llmsim.errors import ConfigError, TraceError
from llmsim.traces import database
from llmsim.traces.contents import json_value
from llmsim.traces.plainfile import PlainFile, plain_file
from llmsim.traces.records import open_records
from llmsim.traces.schema import Clock, Trace
from llmsim.traces.tablereader import ReadOptions, TableReader
from llmsim.traces.timeorder import TimeOrder
from llmsim.traces.twinfile import is_twin

BLOCK = 262_144
"""Rows that are read at a time where nobody asks for another number."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a pass over a whole file found; fields as in `schema.Trace`, `rows` are those that may be used."""

    rows: int
    sha256: str
    format: str
    has_arrivals: bool
    dropped: dict[str, int]
    clipped: int
    moved: int | None
    clock: Clock
    unread: tuple[str, ...]


class TraceFile:
    """A trace file that is read in blocks of at most `block` rows, as often as asked, each time from its beginning.

    `facts` is None until a pass has come to the end of the file. `must_repeat` says that the pass just made learned
    too late how the file's times must be read (see `TableReader.mixed_times`): the next one knows.
    """

    def __init__(self, path: Path, options: ReadOptions, block: int = BLOCK) -> None:
        self.path = path
        self.source = str(path)
        self.name = path.name.split(".")[0]
        self.facts: FileFacts | None = None
        self.must_repeat = False
        self._options = options
        self._block = block
        self._exact_times = False

    def tables(self, hash_ids: bool = False) -> Iterator[pd.DataFrame]:
        """The rows in the schema, block by block; prefix hashes, if asked for, as JSON text.

        TraceError for what is wrong with the file comes after its last block, and so does the one for a file that
        is another than in the pass before.
        """
        with plain_file(self.path) as plain:
            if is_twin(plain.start):
                raise twin_refused(self.source)
            with database.connect(plain.folder, self._options.memory) as connection:
                reader = TableReader(open_records(plain, connection), self._options, self._exact_times)
                tables = reader.tables(self._block, hash_ids)
                order = None
                if self._options.sort:
                    if reader.layout.time is None:
                        raise ConfigError(f"sort needs arrival times, but {self.source} has none; leave it out")
                    order = TimeOrder(connection)
                    tables = order.sorted(tables, self._block)
                for table in tables:
                    yield reader.begun_at_zero(table)
            self._learn(reader, plain, None if order is None else order.moved)

    def _learn(self, reader: TableReader, plain: PlainFile, moved: int | None) -> None:
        """Take down what the pass found; TraceError if the file is not the one of the pass before."""
        plain.check_unchanged()
        self.must_repeat = reader.mixed_times
        self._exact_times |= reader.mixed_times
        if self.facts is not None and self.facts.sha256 != plain.sha256:
            raise TraceError(
                f"{self.source}: the file has changed while it was in use (its digest was {self.facts.sha256[:12]}, "
                f"now it is {plain.sha256[:12]}); start again with a file that stays as it is"
            )
        self.facts = FileFacts(
            rows=reader.kept,
            sha256=plain.sha256,
            format=reader.layout.name,
            has_arrivals=reader.layout.time is not None,
            dropped=reader.ledger.dropped,
            clipped=reader.clipped,
            moved=moved,
            clock=reader.clock,
            unread=reader.unread,
        )

    def whole(self, hash_ids: bool = False) -> Trace:
        """All rows in memory, as numbers: what is held is the table, never the text of the file."""
        tables = list(self.tables(hash_ids))
        if self.must_repeat:
            tables = list(self.tables(hash_ids))
        facts = self.facts
        assert facts is not None
        table = _joined(tables)
        if "hash_ids" in table.columns:
            ids = [json_value(text) for text in table.pop("hash_ids")]
            if any(value is not None for value in ids):
                table["hash_ids"] = pd.Series(ids, dtype=object)
        return Trace(
            requests=table,
            name=self.name,
            source=self.source,
            dropped=facts.dropped,
            clipped=facts.clipped,
            format=facts.format,
            sha256=facts.sha256,
            moved=facts.moved,
            clock=facts.clock,
            unread=facts.unread,
        )


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all tables; those that are given are used up, so that few of them are held twice."""
    columns = {}
    for name in tables[0].columns:
        parts = [table.pop(name) for table in tables]
        plain = parts[0].dtype.kind in "ifb" and isinstance(parts[0].dtype, np.dtype)
        numbers = [part.to_numpy() for part in parts] if plain else []
        columns[name] = np.concatenate(numbers) if plain else pd.concat(parts, ignore_index=True)
    return pd.DataFrame(columns, copy=False)


def twin_refused(source: str) -> TraceError:
    """The error for a twin where a file with rows is needed."""
    return TraceError(
        f"{source}: row 1 begins a statistical twin, which holds quantiles and no rows; draw requests "
        "from it with `llmsim trace synth`, or name it as the trace of a workload"
    )
