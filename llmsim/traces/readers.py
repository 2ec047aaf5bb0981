"""Read a workload file into the trace table.

Rows that cannot be used stop the reading with file, row, column, value and remedy; they are left out only
when asked (`on_bad='drop'`), and then counted per reason. The one exception belongs to a format: BurstGPT
logs a failed request with 0 response tokens, and such rows are always dropped and counted (`zero_output`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from llmsim.errors import ConfigError, TraceError
from llmsim.traces import files, parsing
from llmsim.traces.formats import TIME_UNITS, Layout, layout_of
from llmsim.traces.limits import ON_BAD, check_limit, clip_lengths, over_limit
from llmsim.traces.parsing import Fault, Ints, Mask
from llmsim.traces.rawtable import RawTable, parse_file
from llmsim.traces.rows import Ledger, Rows
from llmsim.traces.schema import COLUMNS, SLO_SECONDS, Trace
from llmsim.traces.twinfile import is_twin

_NEVER = int(np.iinfo(np.int64).min)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a workload file is read: the arguments of `read_trace`; ConfigError for one that is not allowed."""

    format: str | None = None
    columns: Mapping[str, str] | None = None
    on_bad: str = "error"
    max_prompt_tokens: int | None = None
    time_unit: str | None = None
    on_long: str = "error"

    def __post_init__(self) -> None:
        if self.on_bad not in ON_BAD:
            raise ConfigError(f"on_bad must be one of {', '.join(ON_BAD)} but got {self.on_bad!r}")
        if self.time_unit is not None and self.time_unit not in TIME_UNITS:
            raise ConfigError(f"time_unit must be one of {', '.join(TIME_UNITS)} but got {self.time_unit!r}")
        check_limit(self.max_prompt_tokens, self.on_long)

    def layout(self, raw: RawTable) -> Layout:
        """Where a file with the header of this table keeps its fields."""
        layout = layout_of(list(raw.cells.columns), raw.source, self.format, self.columns)
        if self.time_unit is not None and layout.time is not None:
            return replace(layout, time_unit=self.time_unit)
        return layout


def read_trace(
    path: str | Path,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_bad: str = "error",
    max_prompt_tokens: int | None = None,
    time_unit: str | None = None,
    on_long: str = "error",
) -> Trace:
    """The trace in `path` (CSV, JSON lines or Parquet; plain or gzipped).

    `format` is one of `formats.FORMATS` (None: told from the header). `columns` maps fields of the schema to
    columns of the file, e.g. {'arrival_s': 'ts', 'prompt_tokens': 'in', 'output_tokens': 'out'}. `time_unit`
    (s, ms, us, ns, datetime) overrides the format's. Date-times and Unix times are shifted so that the first
    kept row arrives at 0; times since a start are kept as they are. `max_prompt_tokens` is the model's limit;
    `on_long` says what happens beyond it: 'error' (longer prompts), or, where prompt plus output are more, 'drop' or
    'clip' (see `limits.clip_lengths`). TraceError for anything in the file that cannot be used,
    ConfigError for arguments that are not allowed.
    """
    options = ReadOptions(format, columns, on_bad, max_prompt_tokens, time_unit, on_long)
    source = str(path)
    data = files.read_bytes(path)
    if is_twin(data):
        raise twin_refused(source)
    raw = parse_file(data, source)
    reader = TableReader(source, options)
    table = reader.read(raw)
    reader.finish()
    assert reader.layout is not None
    if raw.hash_ids is not None:
        table = table.assign(hash_ids=raw.hash_ids[reader.keep].reset_index(drop=True))
        table = table[[c for c in COLUMNS if c in table.columns]]
    return Trace(
        requests=table,
        name=Path(path).name.split(".")[0],
        source=source,
        dropped=reader.ledger.dropped,
        clipped=reader.clipped,
        format=reader.layout.name,
        sha256=files.sha256(data),
    )


def twin_refused(source: str) -> TraceError:
    """The error for a twin where a file with rows is needed."""
    return TraceError(
        f"{source}: row 1 begins a statistical twin, which holds quantiles and no rows; draw requests "
        "from it with `llmsim trace synth`, or name it as the trace of a workload"
    )


class TableReader:
    """Text cells to the trace table, block after block of one file; the whole file is one block.

    What one block needs of those above it is kept here: the latest time, where absolute times begin, the faults.
    `exact_times` has decimal times read digit by digit from the first block on (see `mixed_times`).
    """

    def __init__(self, source: str, options: ReadOptions, exact_times: bool = False) -> None:
        self.ledger = Ledger(source)
        self.layout: Layout | None = None
        self.clipped = 0
        self.kept = 0
        self.keep: Mask = np.zeros(0, dtype=np.bool_)
        self.mixed_times = False
        """Whether a block of times that need digits came after one without: as one whole, the file has digits
        read in all rows, so it must be read once more with `exact_times`."""
        self._options = options
        self._exact = exact_times
        self._blocks = 0
        self._latest = _NEVER
        self._origin: int | None = None

    def read(self, raw: RawTable) -> pd.DataFrame:
        """Kept rows of the next block, in the schema but for prefix hashes. Call `finish` after the last one."""
        if self.layout is None:
            self.layout = self._options.layout(raw)
        rows = Rows(raw, self._options.on_bad == "drop", self.ledger)
        table = self._numbers(rows, self.layout)
        if self._options.max_prompt_tokens is not None:
            table = self._limited(rows, table, self.layout.prompt, self._options.max_prompt_tokens)
        self.keep = rows.keep
        self.kept += int(rows.keep.sum())
        self._blocks += 1
        if not rows.keep.all():
            table = table[rows.keep].reset_index(drop=True)
        return self._begun_at_zero(table)[[c for c in COLUMNS if c in table.columns]]

    def finish(self) -> None:
        """TraceError for what is wrong with the file: the first faulty row, or that no row is left."""
        self.ledger.raise_first()
        if not self.kept:
            raise self.ledger.nothing_left()

    def _numbers(self, rows: Rows, layout: Layout) -> pd.DataFrame:
        """All rows as numbers, with the faults of every column settled; rows out of `rows.keep` hold no meaning."""
        cells = rows.raw.cells
        prompt, prompt_faults = parsing.parse_count(cells[layout.prompt], layout.prompt)
        output, output_faults = parsing.parse_count(cells[layout.output], layout.output)
        if layout.drop_zero_output:
            # Read again as a number: a faulty cell is also 0 in `output`, and is not a failed request.
            zero = (pd.to_numeric(cells[layout.output], errors="coerce") == 0).to_numpy(dtype=np.bool_)
            rows.settle([Fault("zero_output", zero, layout.output, "is a failed request")], drop=True)
        table = pd.DataFrame({"prompt_tokens": prompt, "output_tokens": output})
        faults = [*prompt_faults, *output_faults]
        if layout.time is not None:
            time, time_faults = self._times(cells[layout.time], layout)
            table.insert(0, "arrival_ns", time)
            faults = [*time_faults, *faults]
        for name, column in layout.extra:
            table[name], extra_faults = _parse_extra(name, cells[column], column)
            faults += extra_faults
        rows.settle(faults)
        if layout.time is not None:
            rows.settle([self._unsorted(table["arrival_ns"].to_numpy(), rows.keep, layout.time)])
        return table

    def _times(self, text: pd.Series, layout: Layout) -> tuple[Ints, list[Fault]]:
        """Times in ns and their faults; from the first time that needs its digits read, all are read so."""
        assert layout.time is not None
        assert layout.time_unit is not None
        time, faults = parsing.parse_time(text, layout.time, layout.time_unit, exact=self._exact)
        if not self._exact and layout.time_unit != "datetime" and parsing.needs_digits(time):
            self._exact = True
            self.mixed_times = self._blocks > 0
        return time, faults

    def _unsorted(self, time: Ints, keep: Mask, column: str) -> Fault:
        """Kept rows that arrive before a kept row above them."""
        latest = np.maximum.accumulate(np.where(keep, time, _NEVER))
        latest = np.maximum(latest, self._latest)
        self._latest = int(latest[-1])
        complaint = "is earlier than a row above it; rows must be in order of arrival"
        return Fault("unsorted_time", keep & (time < latest), column, complaint, "sort the file by this column")

    def _limited(self, rows: Rows, table: pd.DataFrame, column: str, limit: int) -> pd.DataFrame:
        """The table under the model's limit; kept rows that were shortened are counted."""
        on_long = self._options.on_long
        prompt, output = table["prompt_tokens"].to_numpy(), table["output_tokens"].to_numpy()
        if on_long == "clip":
            clipped = clip_lengths(prompt, output, limit)
            self.clipped += int((clipped.changed & rows.keep).sum())
            return table.assign(prompt_tokens=clipped.prompt_tokens, output_tokens=clipped.output_tokens)
        over = over_limit(prompt, output, limit)
        complaint = f"is longer than the model's limit of {limit} tokens"
        remedy = "raise the limit, scale such requests down with on_long='clip' (--on-long clip)"
        reasons = over if on_long == "drop" else ("prompt_too_long",)
        faults = [Fault(reason, over[reason], column, complaint, remedy) for reason in reasons]
        rows.settle(faults, drop=on_long == "drop")
        return table

    def _begun_at_zero(self, table: pd.DataFrame) -> pd.DataFrame:
        """Absolute times less that of the first kept row of the file."""
        if "arrival_ns" not in table.columns or not len(table):
            return table
        if self._origin is None:
            assert self.layout is not None
            first = int(table["arrival_ns"].iloc[0])
            self._origin = first if self.layout.time_unit == "datetime" or first >= parsing.UNIX_TIME_NS else 0
        return table.assign(arrival_ns=table["arrival_ns"] - self._origin) if self._origin else table


def _parse_extra(name: str, text: pd.Series, column: str) -> tuple[pd.Series, list[Fault]]:
    """An optional column of the schema and its faults."""
    if name in SLO_SECONDS:
        seconds, faults = parsing.parse_seconds(text, column)
        return pd.Series(seconds), faults
    if name == "tier":
        return parsing.parse_tier(text, column)
    if name == "priority":
        flags, faults = parsing.parse_flag(text, column)
        return pd.Series(flags), faults
    return text.str.strip(), []
