"""What is lost when a workload file is written in another format, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from llmsim.traces.file_times import doubts
from llmsim.traces.hash_ids import BLOCK_TOKENS, blocks_of, lists_of_ids
from llmsim.traces.schema import CLASS_COLUMNS

if TYPE_CHECKING:
    from llmsim.traces.schema import Trace
    from llmsim.traces.workload import Workload

WITH_HASH_IDS = ("mooncake", "bailian")
"""Formats of traces whose rows say which prefixes they share."""
_MOST_NAMED = 12


def conversion_notes(trace: Trace, path: str | Path) -> Iterator[str]:
    """What the reader of `path` must know that `trace` was written to: what it lacks, and where times begin."""
    yield from doubts(trace)
    if trace.clock.origin_ns:
        begin = np.datetime64(trace.clock.origin_ns, "ns")
        yield f"times count from the first row, which is at {begin} UTC"
    if trace.unread:
        yield (
            f"not read, so not in {Path(path).name}: {_listed(trace.unread)}; a workload has times, lengths, hash_ids, "
            "classes of service and models (--map FIELD=COLUMN says which column is one of these)"
        )
    yield from left_out(trace.requests, path)


def drawn_notes(workload: Workload, table: pd.DataFrame, path: str | Path) -> Iterator[str]:
    """What the reader of `path` must know that the `table` of a workload was written to."""
    yield from workload.description.get("notes", ())
    if ((workload.description.get("trace") or {}).get("kind")) in WITH_HASH_IDS:
        yield "hash_ids of the trace are not kept, as its requests are made anew; `llmsim trace convert` keeps them"
    yield from left_out(table, path)


def left_out(requests: pd.DataFrame, path: str | Path) -> Iterator[str]:
    """What a trace table has that the format of `path` does not hold, or that its readers may misunderstand."""
    name = Path(path).name
    if name.endswith(".parquet"):
        return
    csv = name.removesuffix(".gz").endswith(".csv")
    places, keeps = (["hash_ids"], ".jsonl and .parquet") if csv else (CLASS_COLUMNS, ".csv and .parquet")
    if lost := with_something(requests, places):
        yield f"{name} has no place for {_listed(lost)}; {keeps} keep {'it' if len(lost) == 1 else 'them'}"
    many = zip(lists_of_ids(requests), requests["prompt_tokens"].tolist(), strict=True)
    if not csv and (smaller := sum(len(ids or ()) > blocks_of(prompt) for ids, prompt in many)):
        yield (
            f"{smaller:,} requests have more hash_ids than blocks of {BLOCK_TOKENS} tokens, which is Mooncake's size: "
            "tell readers the size of theirs"
        )


def with_something(requests: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Those of the columns that the table has, with anything in them but '' and false."""
    return [name for name in columns if name in requests.columns and requests[name].map(_says_something).any()]


def _says_something(value: object) -> bool:
    """Whether a cell is neither empty nor false: lists are kept, 0 is a tier."""
    if isinstance(value, str | bool | np.bool_):
        return bool(value)
    return isinstance(value, Sequence | np.ndarray) or not (value is None or value is pd.NA or value != value)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
