"""The trace table: what every reader returns and every writer takes.

One row per request, in order of arrival. Columns: `arrival_ns` int64 (absent when the file holds lengths
only), `prompt_tokens` and `output_tokens` int64 (at least 1); optional `slo_class` str, `tbt_s`, `ttft_s`,
`ttlt_s` float seconds (NaN = none), `tier` Int64, `priority` bool, `model` str (the model asked for), `hash_ids`
object (512-token prefix blocks; kept, unused).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from llmsim.errors import TraceError

if TYPE_CHECKING:
    import pandas as pd

LENGTHS = ("prompt_tokens", "output_tokens")
SLO_SECONDS = ("tbt_s", "ttft_s", "ttlt_s")
SLO_COLUMNS = ("slo_class", *SLO_SECONDS, "tier", "priority")
CLASS_COLUMNS = (*SLO_COLUMNS, "model")
"""What a request asks for beside its lengths."""
COLUMNS = ("arrival_ns", *LENGTHS, *CLASS_COLUMNS, "hash_ids")
"""Every column of the schema, in the order in which files are written."""


@dataclass(frozen=True, slots=True)
class Clock:
    """How the times of a file were read.

    `unit` is one of `formats.TIME_UNITS` (None: the file has no times), `origin_ns` what was taken off date-times and
    Unix times (0 for times since a start), `doubt` a sentence on how the unit was told where the header leaves it open.
    """

    unit: str | None = None
    origin_ns: int = 0
    doubt: str = ""


@dataclass(frozen=True)
class Trace:
    """A workload file in memory.

    `source` is where it came from (a path or a name), `dropped` how many rows were left out per reason,
    `clipped` how many were shortened, `moved` how many were put in another place to be in order of arrival (None:
    nobody asked for that), `sha256` the digest of the decompressed file ('' for a table made in
    Python), `clock` how its times were read, `unread` the columns of the file that the table
    has not.
    """

    requests: pd.DataFrame
    name: str
    source: str
    dropped: dict[str, int] = field(default_factory=dict)
    clipped: int = 0
    format: str = ""
    sha256: str = ""
    moved: int | None = None
    clock: Clock = Clock()
    unread: tuple[str, ...] = ()

    @property
    def has_arrivals(self) -> bool:
        """Whether the rows carry arrival times."""
        return "arrival_ns" in self.requests.columns

    @property
    def span_s(self) -> float:
        """Seconds from the first to the last arrival; 0.0 without arrivals."""
        if not self.has_arrivals or not len(self.requests):
            return 0.0
        arrival = self.requests["arrival_ns"].to_numpy()
        return float(arrival[-1] - arrival[0]) / 1e9

    @classmethod
    def from_table(cls, requests: pd.DataFrame, name: str = "table") -> Trace:
        """A trace of a DataFrame in the schema; TraceError if the table breaks it."""
        table = check_table(requests, name)
        return cls(requests=table, name=name, source=name, format="table")


def check_table(requests: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table with its schema columns in order and int64 where the schema says so.

    TraceError names row and column.
    """
    unknown = [c for c in requests.columns if c not in COLUMNS]
    if unknown:
        raise TraceError(
            f"{name}: column {unknown[0]!r} is not in the trace schema ({', '.join(COLUMNS)}); drop or rename it"
        )
    for column in LENGTHS:
        if column not in requests.columns:
            raise TraceError(f"{name}: no column {column!r} (found: {', '.join(map(str, requests.columns))}); add it")
    if not len(requests):
        raise TraceError(f"{name}: the table has no rows; a workload needs at least one request")
    table = requests[[c for c in COLUMNS if c in requests.columns]].reset_index(drop=True)
    integers = [c for c in ("arrival_ns", *LENGTHS) if c in table.columns]
    return table.assign(**{c: _whole_numbers(table[c], name) for c in integers})


def _whole_numbers(values: pd.Series, name: str) -> np.ndarray:
    """int64 copy of a length (at least 1) or arrival (at least 0, sorted) column, else TraceError."""
    column = str(values.name)
    least = 0 if column == "arrival_ns" else 1
    if values.dtype.kind not in "iuf":
        raise TraceError(f"{name}: column {column!r} holds {values.dtype}, not numbers; convert it to int64")
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~(np.isfinite(numbers) & (numbers >= least) & (numbers == np.floor(numbers)))
    if bad.any():
        row = int(np.argmax(bad))
        raise TraceError(
            f"{name}: row {row}, column {column!r}: {values.iloc[row]} is not a whole number >= {least}; correct it"
        )
    result: np.ndarray = values.to_numpy(dtype=np.int64)
    if column == "arrival_ns" and (np.diff(result) < 0).any():
        row = int(np.argmax(np.diff(result) < 0)) + 1
        raise TraceError(
            f"{name}: row {row}, column {column!r}: {result[row]} is before the row above; sort the table by it"
        )
    return result
