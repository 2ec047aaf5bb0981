"""Text cells to the trace table, block after block, with the faults of all columns settled.

Rows that cannot be used stop the reading with file, row, column, value and remedy; they are left out only
when asked (`on_bad='drop'`), and then counted per reason. The one exception belongs to a format: BurstGPT
logs a failed request with 0 response tokens, and such rows are always dropped and counted (`zero_output`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from llmsim.errors import ConfigError, TraceError
from llmsim.traces import database, parsing
from llmsim.traces.faults import Ledger, Rows
from llmsim.traces.formats import TIME_UNITS, Layout, layout_of
from llmsim.traces.hash_ids import shortened
from llmsim.traces.limits import ON_BAD, check_limit, clip_lengths, over_limit
from llmsim.traces.mooncake_or_guidellm import told_by_times
from llmsim.traces.parsing import Fault, Ints, Mask, Text
from llmsim.traces.records import Cells, Records
from llmsim.traces.schema import COLUMNS, SLO_SECONDS, Clock

_BLOCK = 8192
_NEVER = int(np.iinfo(np.int64).min)
_SORT = "sort the file by this column, or have it put in order with sort=True (--sort)"


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a workload file is read: the arguments of `read_trace`; ConfigError for one that is not allowed."""

    format: str | None = None
    columns: Mapping[str, str] | None = None
    on_bad: str = "error"
    max_prompt_tokens: int | None = None
    time_unit: str | None = None
    on_long: str = "error"
    sort: bool = False
    memory: str | None = None

    def __post_init__(self) -> None:
        if self.on_bad not in ON_BAD:
            raise ConfigError(f"on_bad must be one of {', '.join(ON_BAD)} but got {self.on_bad!r}")
        if self.time_unit is not None and self.time_unit not in TIME_UNITS:
            raise ConfigError(f"time_unit must be one of {', '.join(TIME_UNITS)} but got {self.time_unit!r}")
        check_limit(self.max_prompt_tokens, self.on_long)
        if self.memory is not None:
            database.check_memory(self.memory)

    def layout(self, records: Records) -> Layout:
        """Where a file with the header of these records keeps its fields."""
        layout = layout_of(records.header, records.source, self.format, self.columns)
        if self.format is None and not self.columns and self.time_unit is None:
            return told_by_times(layout, records)
        if self.time_unit is not None and layout.time is not None:
            return replace(layout, time_unit=self.time_unit)
        return layout


class TableReader:
    """The rows of one file as tables of the schema; what one block needs of those above it is kept here.

    `exact_times` has decimal times read digit by digit from the first block on (see `mixed_times`).
    """

    def __init__(self, records: Records, options: ReadOptions, exact_times: bool = False) -> None:
        self.ledger = Ledger(records)
        self.layout = _layout(records, options)
        self.clipped = 0
        self.kept = 0
        self.unread: tuple[str, ...] = ()
        """Columns of the file that are not in the tables."""
        self.mixed_times = False
        """Whether a block of times that need digits came after one without: as one whole, the file has digits
        read in all rows, so it must be read once more with `exact_times`."""
        self._records = records
        self._options = options
        self._exact = exact_times
        self._latest = _NEVER
        self._origin: int | None = None

    def tables(self, block: int, hash_ids: bool = False) -> Iterator[pd.DataFrame]:
        """Kept rows, at most `block` at a time, times as in the file; prefix hashes, if asked for, as JSON text.

        TraceError, after the last block, for the first faulty row, or if no row is left.
        """
        layout = self.layout
        hashes = hash_ids and ("hash_ids" in self._records.header or self._records.open_ended)
        wanted = [*_columns_of(layout), *(["hash_ids"] if hashes else [])]
        self.unread = tuple(name for name in self._records.header if name not in wanted)
        for cells in self._records.blocks(wanted, block):
            rows = Rows(cells, self._options.on_bad == "drop", self.ledger)
            table = self._numbers(rows, layout)
            if hashes:
                table["hash_ids"] = parsing.words(cells.columns["hash_ids"])
            if self._options.max_prompt_tokens is not None:
                table = self._limited(rows, table, layout.prompt, self._options.max_prompt_tokens)
            self.kept += int(rows.keep.sum())
            if not rows.keep.all():
                table = table[rows.keep].reset_index(drop=True)
            if len(table):
                yield table[[c for c in COLUMNS if c in table.columns]]
        self.ledger.raise_first()
        if not self.kept:
            raise self.ledger.nothing_left()

    def begun_at_zero(self, table: pd.DataFrame) -> pd.DataFrame:
        """Absolute times less that of the first row that was given here."""
        if self.layout.time is None:
            return table
        if self._origin is None:
            first = int(table["arrival_ns"].iloc[0])
            self._origin = first if self.layout.time_unit == "datetime" or first >= parsing.UNIX_TIME_NS else 0
        return table.assign(arrival_ns=table["arrival_ns"] - self._origin) if self._origin else table

    @property
    def clock(self) -> Clock:
        """How the times were read, once the first row was."""
        return Clock(self.layout.time_unit, self._origin or 0, self.layout.doubt)

    def _numbers(self, rows: Rows, layout: Layout) -> pd.DataFrame:
        """All rows as numbers, with the faults of every column settled; rows out of `rows.keep` hold no meaning."""
        cells = rows.cells.columns
        prompt, prompt_faults = parsing.parse_count(cells[layout.prompt], layout.prompt)
        output, output_faults = parsing.parse_count(cells[layout.output], layout.output)
        if layout.drop_zero_output:
            # Read again as a number: a faulty cell is also 0 in `output`, and is not a failed request.
            zero = parsing.numbers(cells[layout.output]) == 0
            rows.settle([Fault("zero_output", zero, layout.output, "is a failed request")], drop=True)
        table = pd.DataFrame({"prompt_tokens": prompt, "output_tokens": output})
        faults = [*prompt_faults, *output_faults]
        if layout.time is not None:
            time, time_faults = self._times(rows.cells, layout)
            table.insert(0, "arrival_ns", time)
            faults = [*time_faults, *faults]
        for name, column in layout.extra:
            table[name], extra_faults = _parse_extra(name, cells[column], column)
            faults += extra_faults
        rows.settle(faults)
        if layout.time is not None and not self._options.sort:
            rows.settle([self._unsorted(table["arrival_ns"].to_numpy(), rows.keep, layout.time)])
        return table

    def _times(self, cells: Cells, layout: Layout) -> tuple[Ints, list[Fault]]:
        """Times in ns and their faults; from the first time that needs its digits read, all are read so."""
        assert layout.time is not None
        assert layout.time_unit is not None
        text = cells.columns[layout.time]
        time, faults = parsing.parse_time(text, layout.time, layout.time_unit, exact=self._exact)
        if not self._exact and layout.time_unit != "datetime" and parsing.needs_digits(time):
            self._exact = True
            self.mixed_times = cells.first > 0
        return time, faults

    def _unsorted(self, time: Ints, keep: Mask, column: str) -> Fault:
        """Kept rows that arrive before a kept row above them."""
        latest = np.maximum.accumulate(np.where(keep, time, _NEVER))
        latest = np.maximum(latest, self._latest)
        self._latest = int(latest[-1])
        complaint = "is earlier than a row above it; rows must be in order of arrival"
        return Fault("unsorted_time", keep & (time < latest), column, complaint, _SORT)

    def _limited(self, rows: Rows, table: pd.DataFrame, column: str, limit: int) -> pd.DataFrame:
        """The table under the model's limit; kept rows that were shortened are counted."""
        on_long = self._options.on_long
        prompt, output = table["prompt_tokens"].to_numpy(), table["output_tokens"].to_numpy()
        if on_long == "clip":
            clipped = clip_lengths(prompt, output, limit)
            self.clipped += int((clipped.changed & rows.keep).sum())
            if "hash_ids" in table.columns:
                shorter = clipped.changed & rows.keep
                lengths = prompt[shorter], clipped.prompt_tokens[shorter]
                table.loc[shorter, "hash_ids"] = shortened(table.loc[shorter, "hash_ids"].tolist(), *lengths)
            return table.assign(prompt_tokens=clipped.prompt_tokens, output_tokens=clipped.output_tokens)
        over = over_limit(prompt, output, limit)
        complaint = f"is longer than the model's limit of {limit} tokens"
        remedy = "raise the limit, scale such requests down with on_long='clip' (--on-long clip)"
        reasons = over if on_long == "drop" else ("prompt_too_long",)
        faults = [Fault(reason, over[reason], column, complaint, remedy) for reason in reasons]
        rows.settle(faults, drop=on_long == "drop")
        return table


def _columns_of(layout: Layout) -> list[str]:
    """The columns of the file that a layout reads."""
    time = [] if layout.time is None else [layout.time]
    return [*time, layout.prompt, layout.output, *(column for _, column in layout.extra)]


def _layout(records: Records, options: ReadOptions) -> Layout:
    """Where the file keeps its fields; what cannot be read at all is said before what cannot be understood."""
    try:
        return options.layout(records)
    except TraceError:
        for _ in records.blocks(records.header, _BLOCK):
            pass
        raise


def _parse_extra(name: str, text: Text, column: str) -> tuple[pd.Series, list[Fault]]:
    """An optional column of the schema and its faults."""
    if name in SLO_SECONDS:
        seconds, faults = parsing.parse_seconds(text, column)
        return pd.Series(seconds), faults
    if name == "tier":
        return parsing.parse_tier(text, column)
    if name == "priority":
        flags, faults = parsing.parse_flag(text, column)
        return pd.Series(flags), faults
    return parsing.words(text), []
