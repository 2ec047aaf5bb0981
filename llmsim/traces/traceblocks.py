"""A trace file read in blocks: its rows as tables, then what is only known of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from llmsim.errors import TraceError
from llmsim.traces.rawblocks import RawBlocks
from llmsim.traces.readers import ReadOptions, TableReader
from llmsim.traces.schema import Trace


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a pass over a whole file found; fields as in `schema.Trace`, `rows` are those that may be used."""

    rows: int
    sha256: str
    format: str
    has_arrivals: bool
    dropped: dict[str, int]
    clipped: int


class TraceBlocks:
    """A trace file that is read in blocks of at most `block` rows, as often as asked, each time from its beginning.

    `facts` is None until a pass has come to the end of the file. `must_repeat` says that the pass just made learned
    too late how the file's times must be read (see `TableReader.mixed_times`): the next one knows.
    """

    def __init__(self, path: Path, options: ReadOptions, block: int) -> None:
        self.path = path
        self.source = str(path)
        self.name = path.name.split(".")[0]
        self.facts: FileFacts | None = None
        self.must_repeat = False
        self._options = options
        self._block = block
        self._exact_times = False

    def tables(self) -> Iterator[pd.DataFrame]:
        """The rows as `readers.read_trace` has them, less prefix hashes, block by block.

        TraceError for what is wrong with the file comes after its last block, and so does the one for a file that
        is another than in the pass before.
        """
        raw = RawBlocks(self.path, self._block)
        reader = TableReader(self.source, self._options, self._exact_times)
        has_arrivals = False
        for cells in raw:
            table = reader.read(cells)
            if len(table):
                has_arrivals = "arrival_ns" in table.columns
                yield table
        reader.finish()
        self.must_repeat = reader.mixed_times
        self._exact_times |= reader.mixed_times
        assert reader.layout is not None
        found = FileFacts(
            rows=reader.kept,
            sha256=raw.sha256,
            format=reader.layout.name,
            has_arrivals=has_arrivals,
            dropped=reader.ledger.dropped,
            clipped=reader.clipped,
        )
        if self.facts is not None and self.facts.sha256 != found.sha256:
            raise TraceError(
                f"{self.source}: the file has changed while it was in use (its digest was {self.facts.sha256[:12]}, "
                f"now it is {found.sha256[:12]}); start again with a file that stays as it is"
            )
        self.facts = found

    def whole(self) -> Trace:
        """All rows in memory, as numbers: what is held is the table, never the text of the file."""
        tables = list(self.tables())
        if self.must_repeat:
            tables = list(self.tables())
        facts = self.facts
        assert facts is not None
        return Trace(
            requests=pd.concat(tables, ignore_index=True),
            name=self.name,
            source=self.source,
            dropped=facts.dropped,
            clipped=facts.clipped,
            format=facts.format,
            sha256=facts.sha256,
        )
