"""Read a workload file into the trace table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmsim.traces.schema import Trace
from llmsim.traces.tablereader import ReadOptions
from llmsim.traces.tracefile import TraceFile


def read_trace(
    path: str | Path,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_bad: str = "error",
    max_prompt_tokens: int | None = None,
    time_unit: str | None = None,
    on_long: str = "error",
    sort: bool = False,
    memory: str | None = None,
) -> Trace:
    """The trace in `path`: CSV, JSON lines, a JSON list or Parquet; plain, packed, or through a pipe.

    `format` is one of `formats.FORMATS` (None: told from the header). `columns` maps fields of the schema to
    columns of the file, e.g. {'arrival_s': 'ts', 'prompt_tokens': 'in', 'output_tokens': 'usage.completion_tokens'}.
    `time_unit` (s, ms, us, ns, datetime) overrides the format's. Date-times and Unix times are shifted so that the
    first kept row arrives at 0; times since a start are kept as they are. `sort` puts the rows in order of arrival and
    counts those that moved. `max_prompt_tokens` is the model's limit; `on_long` says what happens beyond it:
    'error' (longer prompts), or, where prompt plus output are more, 'drop' or 'clip' (`limits.clip_lengths`). `memory`
    (such as 512MiB) bounds what is held beside the table. TraceError for anything in the file that cannot be used,
    ConfigError for arguments that are not allowed.
    """
    options = ReadOptions(format, columns, on_bad, max_prompt_tokens, time_unit, on_long, sort, memory)
    return TraceFile(Path(path), options).whole(hash_ids=True)
