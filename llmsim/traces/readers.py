"""Read a workload file into the trace table.

Rows that cannot be used stop the reading with file, row, column, value and remedy; they are left out only
when asked (`on_bad='drop'`), and then counted per reason. The one exception belongs to a format: BurstGPT
logs a failed request with 0 response tokens, and such rows are always dropped and counted (`zero_output`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from llmsim.errors import ConfigError, TraceError
from llmsim.traces import files, parsing
from llmsim.traces.formats import TIME_UNITS, Layout, layout_of
from llmsim.traces.limits import ON_BAD, check_limit, clip_lengths
from llmsim.traces.parsing import Fault, Ints, Mask
from llmsim.traces.rawtable import RawTable, parse_file
from llmsim.traces.schema import COLUMNS, SLO_SECONDS, Trace
from llmsim.traces.twinfile import is_twin


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
    `on_long` says what happens to longer prompts: 'error', 'drop', or 'clip' (see `limits.clip_lengths`:
    prompt plus output then fit the limit). TraceError for anything in the file that cannot be used,
    ConfigError for arguments that are not allowed.
    """
    _check_arguments(on_bad, time_unit, max_prompt_tokens, on_long)
    source = str(path)
    data = files.read_bytes(path)
    if is_twin(data):
        raise TraceError(
            f"{source}: row 1 begins a statistical twin, which holds quantiles and no rows; draw requests "
            "from it with `llmsim trace synth`, or name it as the trace of a workload"
        )
    raw = parse_file(data, source)
    layout = layout_of(list(raw.cells.columns), source, format, columns)
    if time_unit is not None and layout.time is not None:
        layout = replace(layout, time_unit=time_unit)
    rows = Rows(raw=raw, drop=on_bad == "drop")
    table = _read_table(rows, layout)
    clipped = 0
    if max_prompt_tokens is not None:
        table, clipped = _apply_limit(rows, table, layout.prompt, max_prompt_tokens, on_long)
    table = _finish(table, rows, absolute=layout.time_unit == "datetime")
    return Trace(
        requests=table,
        name=Path(path).name.split(".")[0],
        source=source,
        dropped=dict(rows.dropped),
        clipped=clipped,
        format=layout.name,
        sha256=files.sha256(data),
    )


def _check_arguments(on_bad: str, time_unit: str | None, limit: int | None, on_long: str) -> None:
    """ConfigError for an argument outside what is allowed."""
    if on_bad not in ON_BAD:
        raise ConfigError(f"on_bad must be one of {', '.join(ON_BAD)} but got {on_bad!r}")
    if time_unit is not None and time_unit not in TIME_UNITS:
        raise ConfigError(f"time_unit must be one of {', '.join(TIME_UNITS)} but got {time_unit!r}")
    check_limit(limit, on_long)


@dataclass
class Rows:
    """Which rows of a file are still in, and how many went out for which reason."""

    raw: RawTable
    drop: bool
    dropped: dict[str, int] = field(default_factory=dict)
    keep: Mask = field(init=False)

    def __post_init__(self) -> None:
        self.keep = np.ones(len(self.raw.cells), dtype=np.bool_)

    def settle(self, faults: list[Fault], drop: bool | None = None) -> None:
        """Leave out faulty rows if asked (each counted under its first fault), else raise for the first."""
        drop = self.drop if drop is None else drop
        if not drop:
            self._raise_first([fault for fault in faults if (fault.rows & self.keep).any()])
        for fault in faults:
            hit = fault.rows & self.keep
            count = int(hit.sum())
            if count:
                self.dropped[fault.reason] = self.dropped.get(fault.reason, 0) + count
                self.keep &= ~hit
        if not self.keep.any():
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
            raise TraceError(
                f"{self.raw.source}: no usable rows are left ({reasons}); give another file or limit"
            )

    def _raise_first(self, faults: list[Fault]) -> None:
        """TraceError for the faulty row nearest to the top of the file."""
        if not faults:
            return
        first = min(faults, key=lambda fault: int(np.argmax(fault.rows & self.keep)))
        hit = first.rows & self.keep
        row = int(np.argmax(hit))
        value = self.raw.cells[first.column].iloc[row]
        more = f" ({int(hit.sum())} such rows)" if hit.sum() > 1 else ""
        option = "on_long='drop'" if first.reason == "prompt_too_long" else "on_bad='drop'"
        flag = option.replace("_", "-").replace("='drop'", " drop")
        raise TraceError(
            f"{self.raw.source}: row {self.raw.line[row]}, column {first.column!r}: {value!r} "
            f"{first.complaint}{more}; {first.remedy}, or leave such rows out with {option} (--{flag})"
        )


def _read_table(rows: Rows, layout: Layout) -> pd.DataFrame:
    """All rows as numbers, with the faults of every column settled.

    Rows out of `rows.keep` hold no meaning.
    """
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
        assert layout.time_unit is not None
        time, time_faults = parsing.parse_time(cells[layout.time], layout.time, layout.time_unit)
        table.insert(0, "arrival_ns", time)
        faults = [*time_faults, *faults]
    for name, column in layout.extra:
        table[name], extra_faults = _parse_extra(name, cells[column], column)
        faults += extra_faults
    rows.settle(faults)
    if layout.time is not None:
        rows.settle([_unsorted(table["arrival_ns"].to_numpy(), rows.keep, layout.time)])
    return table


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


def _unsorted(time: Ints, keep: Mask, column: str) -> Fault:
    """Kept rows that arrive before a kept row above them."""
    latest = np.maximum.accumulate(np.where(keep, time, np.iinfo(np.int64).min))
    complaint = "is earlier than a row above it; rows must be in order of arrival"
    return Fault("unsorted_time", keep & (time < latest), column, complaint, "sort the file by this column")


def _apply_limit(
    rows: Rows, table: pd.DataFrame, column: str, limit: int, on_long: str
) -> tuple[pd.DataFrame, int]:
    """The table under the model's limit, and how many kept rows were shortened."""
    prompt, output = table["prompt_tokens"].to_numpy(), table["output_tokens"].to_numpy()
    if on_long == "clip":
        clipped = clip_lengths(prompt, output, limit)
        table = table.assign(prompt_tokens=clipped.prompt_tokens, output_tokens=clipped.output_tokens)
        return table, int((clipped.changed & rows.keep).sum())
    fault = Fault(
        "prompt_too_long",
        prompt > limit,
        column,
        f"is longer than the model's limit of {limit} tokens",
        "raise the limit, scale such requests down with on_long='clip' (--on-long clip)",
    )
    rows.settle([fault], drop=on_long == "drop")
    return table, 0


def _finish(table: pd.DataFrame, rows: Rows, absolute: bool) -> pd.DataFrame:
    """Kept rows only, absolute times begun at 0, prefix hashes attached, columns in schema order."""
    if rows.raw.hash_ids is not None:
        table = table.assign(hash_ids=rows.raw.hash_ids)
    if not rows.keep.all():
        table = table[rows.keep].reset_index(drop=True)
    if "arrival_ns" in table.columns:
        arrival = table["arrival_ns"]
        if absolute or arrival.iloc[0] >= parsing.UNIX_TIME_NS:
            table = table.assign(arrival_ns=arrival - arrival.iloc[0])
    return table[[c for c in COLUMNS if c in table.columns]]
