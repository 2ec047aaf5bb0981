"""Mooncake's traces and guidellm's have the same columns where the rows hold no `hash_ids`, and other units of time.

Mooncake counts whole milliseconds (FAST'25 release, AIPerf's `mooncake_trace`), guidellm's replay seconds (data kinds
`trace_synthetic`, `trace_minimal`). Where the header does not tell, the times of the first rows do, and it is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from llmsim.traces.file_times import HIGHEST_RATE, UNIX_S
from llmsim.traces.formats import FORMATS, Layout
from llmsim.traces.parsing import Floats, numbers
from llmsim.traces.records import Records

_ROWS = 1000
"""Rows that are looked at."""


def told_by_times(layout: Layout, records: Records) -> Layout:
    """The layout of the format that the times of the first rows speak for, if the header fits both; it says so."""
    if layout.name != "mooncake" or layout.time is None or _names_it(records.header):
        return layout
    blocks = records.blocks([layout.time], _ROWS)
    times = numbers(next(blocks).columns[layout.time])
    blocks.close()
    found = FORMATS["guidellm"] if seconds(times) else layout
    read, other = ("seconds", "mooncake") if found is not layout else ("milliseconds", "guidellm")
    unit = {"mooncake": "milliseconds", "guidellm": "seconds"}[other]
    doubt = (
        "the header of the trace fits mooncake (milliseconds) and guidellm (seconds); the times of the first rows look "
        f"like {read} and are read so; if they are {unit}, give --format {other}, if not, --format {found.name}"
    )
    return replace(found, time=layout.time, prompt=layout.prompt, output=layout.output, doubt=doubt)


def _names_it(header: Sequence[str]) -> bool:
    """Whether a column is Mooncake's alone."""
    return "hash_ids" in (name.casefold() for name in header)


def seconds(times: Floats) -> bool:
    """Whether times of rows are rather seconds than milliseconds; NaN are passed over.

    They are if one has a fraction (Mooncake's are whole), if they lie where Unix seconds do, or if as milliseconds they
    made more than `HIGHEST_RATE` requests a second.
    """
    times = times[np.isfinite(times)]
    if not len(times):
        return False
    if times[0] >= UNIX_S[1]:
        return False
    if (times != np.floor(times)).any() or times[0] >= UNIX_S[0]:
        return True
    span_s = float(times.max() - times.min()) / 1000
    return span_s > 0 and len(times) / span_s > HIGHEST_RATE
