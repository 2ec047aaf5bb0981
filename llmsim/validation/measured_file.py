"""The file of a measured run: one row a request, seconds on any one clock, checked before anything is made of it.

Columns: request_id, arrival_s (at the API), queued_s (when the engine accepted it), scheduled_s (its first batch),
first_token_s, last_token_s, input_tokens, output_tokens, and ttft_s, tpot_s, e2e_s, which follow from the others and
are held against them. queued_s, scheduled_s, the derived ones and status may be absent or empty throughout. Columns of
other names are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from llmsim.errors import ConfigError, TraceError, nearest
from llmsim.traces import database
from llmsim.traces.faults import Ledger, Rows
from llmsim.traces.limits import ON_BAD
from llmsim.traces.parsing import Fault, Mask, numbers, parse_count, parse_time, words
from llmsim.traces.plainfile import plain_file
from llmsim.traces.records import Cells, Records, open_records

TIMES = ("arrival_s", "queued_s", "scheduled_s", "first_token_s", "last_token_s")
"""In the order in which they happen."""
LENGTHS = ("input_tokens", "output_tokens")
MAY_LACK = ("queued_s", "scheduled_s")
DERIVED = {
    "ttft_s": "first_token_s - arrival_s",
    "tpot_s": "(last_token_s - first_token_s) / (output_tokens - 1)",
    "e2e_s": "last_token_s - arrival_s",
}
ROUNDING_NS, ROUNDING = 10_000, 1e-5
"""Derived columns may be off by 10 us and by five digits of the times: files are written with rounded numbers."""


@dataclass(frozen=True, eq=False, slots=True)
class MeasuredFile:
    """The usable rows, in the order of the file.

    `rows`: request_id, line (1-based, the header counted), input_tokens, output_tokens, and a column of int ns for each
    of `times`, those of TIMES that the file has. `dropped` counts the rows left out per reason, `sha256` is of the
    decompressed file.
    """

    source: str
    rows: pd.DataFrame = field(repr=False)
    times: tuple[str, ...]
    dropped: dict[str, int]
    sha256: str


def read_measured(path: str | Path, on_bad: str = "error") -> MeasuredFile:
    """Read and check the file (CSV, JSON lines, a JSON list or Parquet, plain or packed).

    `on_bad` 'drop' leaves out rows that cannot be used, and counts them. Raises TraceError, naming file, row, column
    and remedy, for a row that failed, lacks or contradicts a number, stands there twice, or whose times are out of
    order; and for a file without the columns. ConfigError for another `on_bad`.
    """
    if on_bad not in ON_BAD:
        raise ConfigError(f"on_bad must be one of {', '.join(ON_BAD)} but got {on_bad!r}")
    with plain_file(Path(path)) as plain, database.connect(plain.folder, None) as connection:
        records = open_records(plain, connection)
        cells = records.whole(_columns(records))
        ledger = Ledger(records)
        rows = Rows(cells, on_bad == "drop", ledger)
        times = _times(cells)
        _settle(rows, ledger, _failed(cells))
        table = _numbers(rows, ledger, times)
        _settle(rows, ledger, _twice(table["request_id"], rows.keep))
        _settle(rows, ledger, [*_disorder(table, times), *_contradictions(cells, table)])
        kept = table[rows.keep].reset_index(drop=True)
        plain.check_unchanged()
        return MeasuredFile(str(path), kept, times, ledger.dropped, plain.sha256)


def _settle(rows: Rows, ledger: Ledger, faults: list[Fault]) -> None:
    """Leave out faulty rows if asked, else TraceError for the first; and if none is left."""
    rows.settle(faults)
    ledger.raise_first()
    if not rows.keep.any():
        raise ledger.nothing_left()


def _columns(records: Records) -> list[str]:
    """The columns to read; TraceError where one is missing that the file must have."""
    there = records.header
    for column in ("request_id", *LENGTHS, *(time for time in TIMES if time not in MAY_LACK)):
        if column not in there:
            hint = nearest(column, there)
            raise TraceError(
                f"{records.source}: row 1 (the header) has no column {column!r}.{hint} A measured run needs "
                "request_id, arrival_s, first_token_s, last_token_s, input_tokens and output_tokens, as `llmsim bench` "
                "writes them"
            )
    return [name for name in ("request_id", *LENGTHS, *TIMES, *DERIVED, "status") if name in there]


def _times(cells: Cells) -> tuple[str, ...]:
    """The times the file has: a client that cannot see one writes its column empty."""
    there = cells.columns
    return tuple(t for t in TIMES if t not in MAY_LACK or (t in there and bool((words(there[t]) != "").any())))


def _failed(cells: Cells) -> list[Fault]:
    """Rows that say themselves that the request was not answered in full."""
    if "status" not in cells.columns:
        return []
    rows = ~words(cells.columns["status"]).isin(("", "finished")).to_numpy(dtype=np.bool_)
    return [
        Fault("not_finished", rows, "status", "is a request that was not answered, so it has no latency",
              "measure again")
    ]  # fmt: skip


def _numbers(rows: Rows, ledger: Ledger, times: tuple[str, ...]) -> pd.DataFrame:
    """All rows as numbers, with the faults of single cells settled. Rows out of `rows.keep` hold no meaning."""
    cells = rows.cells.columns
    ids = words(cells["request_id"])
    nameless = (ids == "").to_numpy(dtype=np.bool_)
    faults = [Fault("missing_value", nameless, "request_id", "is empty; every request needs a name of its own")]
    table = pd.DataFrame({"request_id": ids, "line": rows.cells.records.lines(len(ids))})
    for column in times:
        table[column], found = parse_time(cells[column], column, "s")
        faults += found
    for column in LENGTHS:
        table[column], found = parse_count(cells[column], column)
        faults += found
    _settle(rows, ledger, faults)
    return table


def _twice(ids: pd.Series, keep: Mask) -> list[Fault]:
    again = ids.where(pd.Series(keep, index=ids.index)).duplicated().to_numpy(dtype=np.bool_) & keep
    return [Fault("duplicate_id", again, "request_id", "stands in a row above too", "give each request its own id")]


def _disorder(table: pd.DataFrame, times: tuple[str, ...]) -> list[Fault]:
    """Rows in which something happens before what must come before it."""
    return [
        Fault(
            "times_out_of_order",
            (table[later] < table[earlier]).to_numpy(dtype=np.bool_),
            later,
            f"is before the row's {earlier}",
            "correct the row, or put all its times on one clock",
        )
        for earlier, later in pairwise(times)
    ]


def _contradictions(cells: Cells, table: pd.DataFrame) -> list[Fault]:
    """Rows whose derived columns do not follow from their times and lengths."""
    first, last = (table[name] - table["arrival_s"] for name in ("first_token_s", "last_token_s"))
    steps = np.maximum(table["output_tokens"].to_numpy() - 1, 1)
    values = {"ttft_s": first.to_numpy(), "tpot_s": (last - first).to_numpy() / steps, "e2e_s": last.to_numpy()}
    slack = ROUNDING_NS + ROUNDING * (table["last_token_s"] - table["arrival_s"].min()).to_numpy()
    allowed = {"ttft_s": slack, "e2e_s": slack, "tpot_s": slack / steps + 10 * ROUNDING * values["tpot_s"]}
    faults = []
    for column, formula in DERIVED.items():
        if column not in cells.columns:
            continue
        said = numbers(cells.columns[column]) * 1e9
        wrong = ~(np.abs(said - values[column]) <= allowed[column])  # NaN, what cannot be read, is wrong too
        rows = wrong & (words(cells.columns[column]) != "").to_numpy(dtype=np.bool_)
        faults.append(Fault("contradiction", rows, column, f"is not {formula} of its row", "correct the row"))
    return faults
