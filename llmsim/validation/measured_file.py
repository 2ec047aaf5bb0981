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
from llmsim.traces import files
from llmsim.traces.limits import ON_BAD
from llmsim.traces.parsing import Fault, Mask, parse_count, parse_time
from llmsim.traces.rawtable import RawTable, parse_file
from llmsim.traces.rows import Rows

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
    """Read and check the file (CSV, JSON lines or Parquet, plain or gzipped).

    `on_bad` 'drop' leaves out rows that cannot be used, and counts them. Raises TraceError, naming file, row, column
    and remedy, for a row that failed, lacks or contradicts a number, stands there twice, or whose times are out of
    order; and for a file without the columns. ConfigError for another `on_bad`.
    """
    if on_bad not in ON_BAD:
        raise ConfigError(f"on_bad must be one of {', '.join(ON_BAD)} but got {on_bad!r}")
    data = files.read_bytes(path)
    raw = parse_file(data, str(path))
    times = _columns(raw)
    rows = Rows(raw=raw, drop=on_bad == "drop")
    rows.settle(_failed(raw))
    table = _numbers(rows, times)
    rows.settle(_twice(table["request_id"], rows.keep))
    rows.settle([*_disorder(table, times), *_contradictions(raw, table)])
    kept = table[rows.keep].reset_index(drop=True)
    return MeasuredFile(str(path), kept, times, dict(rows.dropped), files.sha256(data))


def _columns(raw: RawTable) -> tuple[str, ...]:
    """The times the file has; TraceError where a column it must have is missing."""
    there = list(raw.cells.columns)
    for column in ("request_id", *LENGTHS, *(time for time in TIMES if time not in MAY_LACK)):
        if column not in there:
            raise TraceError(
                f"{raw.source}: row 1 (the header) has no column {column!r}.{nearest(column, there)} A measured "
                "run needs request_id, arrival_s, first_token_s, last_token_s, input_tokens and output_tokens, as "
                "`llmsim bench` writes them"
            )
    return tuple(time for time in TIMES if time not in MAY_LACK or (time in there and _filled(raw, time)))


def _filled(raw: RawTable, column: str) -> bool:
    """Whether any row has it: a client that cannot see a time writes the column empty."""
    return bool((raw.cells[column].str.strip() != "").any())


def _failed(raw: RawTable) -> list[Fault]:
    """Rows that say themselves that the request was not answered in full."""
    if "status" not in raw.cells:
        return []
    rows = ~raw.cells["status"].str.strip().isin(("", "finished")).to_numpy(dtype=np.bool_)
    return [
        Fault("not_finished", rows, "status", "is a request that was not answered, so it has no latency",
              "measure again")
    ]  # fmt: skip


def _numbers(rows: Rows, times: tuple[str, ...]) -> pd.DataFrame:
    """All rows as numbers, with the faults of single cells settled. Rows out of `rows.keep` hold no meaning."""
    cells = rows.raw.cells
    ids = cells["request_id"].str.strip()
    nameless = (ids == "").to_numpy(dtype=np.bool_)
    faults = [Fault("missing_value", nameless, "request_id", "is empty; every request needs a name of its own")]
    table = pd.DataFrame({"request_id": ids, "line": rows.raw.line})
    for column in times:
        table[column], found = parse_time(cells[column], column, "s")
        faults += found
    for column in LENGTHS:
        table[column], found = parse_count(cells[column], column)
        faults += found
    rows.settle(faults)
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


def _contradictions(raw: RawTable, table: pd.DataFrame) -> list[Fault]:
    """Rows whose derived columns do not follow from their times and lengths."""
    first, last = (table[name] - table["arrival_s"] for name in ("first_token_s", "last_token_s"))
    steps = np.maximum(table["output_tokens"].to_numpy() - 1, 1)
    values = {"ttft_s": first.to_numpy(), "tpot_s": (last - first).to_numpy() / steps, "e2e_s": last.to_numpy()}
    slack = ROUNDING_NS + ROUNDING * (table["last_token_s"] - table["arrival_s"].min()).to_numpy()
    allowed = {"ttft_s": slack, "e2e_s": slack, "tpot_s": slack / steps + 10 * ROUNDING * values["tpot_s"]}
    faults = []
    for column, formula in DERIVED.items():
        if column not in raw.cells:
            continue
        text = raw.cells[column].str.strip()
        said = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64) * 1e9
        wrong = ~(np.abs(said - values[column]) <= allowed[column])  # NaN, what cannot be read, is wrong too
        rows = wrong & (text != "").to_numpy(dtype=np.bool_)
        faults.append(Fault("contradiction", rows, column, f"is not {formula} of its row", "correct the row"))
    return faults
