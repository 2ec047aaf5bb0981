"""Which columns of a file hold what: the known public formats, told apart by their header.

Names count before their case: a header in other case is read where that leaves no doubt.

| format | columns | time |
|---|---|---|
| azure | TIMESTAMP, ContextTokens, GeneratedTokens (Azure LLM inference 2023 and 2024) | date-time |
| sarathi | [arrived_at,] num_prefill_tokens, num_decode_tokens (Sarathi, Vidur, SLAI) | s since start |
| mooncake | [timestamp,] input_length, output_length, hash_ids (JSON lines) | ms since start |
| bailian | chat_id, timestamp, input_length, output_length, hash_ids (JSON lines) | s since start |
| guidellm | timestamp, input_length, output_length (JSON lines or CSV; no hash_ids) | s since start |
| aiperf | metadata.request_start_ns, metrics.{input,output}_sequence_length.value (JSON lines) | Unix time in ns |
| burstgpt | Timestamp, Request tokens, Response tokens (by name: release 1.2 moved them) | s since start |
| llmsim | [arrival_ns or _ms or _s or _at,] prompt_tokens, output_tokens, SLO columns, model | as named |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llmsim.errors import ConfigError, TraceError, did_you_mean, nearest
from llmsim.traces.schema import CLASS_COLUMNS, LENGTHS

ARRIVAL_UNITS = {
    "arrival_ns": "ns",
    "arrival_us": "us",
    "arrival_ms": "ms",
    "arrival_s": "s",
    "arrival_at": "datetime",
}
"""Names a column map (and our own CSV) may use for the arrival time, with the unit each means."""
TIME_UNITS = tuple(ARRIVAL_UNITS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a format keeps its fields: field -> column of the file.

    `time_unit` is None where there are no arrivals. `sign` is a column that tells the format from one with the same
    columns. `doubt` says how the format was told where the header leaves two open.
    """

    name: str
    prompt: str
    output: str
    time: str | None = None
    time_unit: str | None = None
    time_required: bool = True
    drop_zero_output: bool = False
    sign: str | None = None
    extra: tuple[tuple[str, str], ...] = ()
    doubt: str = ""

    @property
    def required(self) -> tuple[str, ...]:
        """Columns without which the file cannot be read."""
        time = (self.time,) if self.time and self.time_required else ()
        return (*time, self.prompt, self.output)


_LAYOUTS = (
    Layout(name="azure", time="TIMESTAMP", time_unit="datetime", prompt="ContextTokens", output="GeneratedTokens"),
    Layout(name="sarathi", time="arrived_at", time_unit="s", time_required=False,
           prompt="num_prefill_tokens", output="num_decode_tokens"),
    # ServeGen writes the same without times for requests that all are there at the start.
    Layout(name="mooncake", time="timestamp", time_unit="ms", time_required=False,
           prompt="input_length", output="output_length"),
    Layout(name="bailian", time="timestamp", time_unit="s", prompt="input_length", output="output_length",
           sign="chat_id"),
    # Mooncake's columns but hash_ids, so that the times tell the two apart (mooncake_or_guidellm).
    Layout(name="guidellm", time="timestamp", time_unit="s", prompt="input_length", output="output_length"),
    Layout(name="aiperf", time="metadata.request_start_ns", time_unit="ns",
           prompt="metrics.input_sequence_length.value", output="metrics.output_sequence_length.value"),
    # A failed request is logged with 'Response tokens' 0 (the data set's README), so such rows are no workload.
    Layout(name="burstgpt", time="Timestamp", time_unit="s", prompt="Request tokens", output="Response tokens",
           drop_zero_output=True),
    Layout(name="llmsim", prompt="prompt_tokens", output="output_tokens",
           extra=tuple((name, name) for name in CLASS_COLUMNS)),
)  # fmt: skip
FORMATS = {layout.name: layout for layout in _LAYOUTS}
ALIASES = {"vidur": "sarathi", "slai": "sarathi"}
COLUMN_MAP_FIELDS = (*ARRIVAL_UNITS, *LENGTHS, *CLASS_COLUMNS)


NOT_TRACES = {
    "conversations": "a ShareGPT file, which holds texts and no lengths: name the shipped workload sharegpt4 for the "
    "lengths of such requests, or send the texts with `llmsim bench --prompts FILE`",
    "input_lens": "a result of `vllm bench serve`, one record for all requests: write its start_times, input_lens and "
    "output_lens as the columns arrival_s, prompt_tokens and output_tokens of a CSV file",
}
"""Columns of files that people have and that are no traces: what they are, and what to do."""


def layout_of(header: Sequence[str], source: str, format: str | None, columns: Mapping[str, str] | None) -> Layout:
    """The layout of a file with this header, completed with the columns it has.

    An explicit column map wins over `format`, which wins over detection. TraceError names a missing column,
    ConfigError an unknown format or map key.
    """
    if columns:
        layout = _from_map(columns)
    elif format is not None:
        layout = named(format)
    else:
        layout = _detect(header, source)
    layout = _in_case_of(header, layout)
    if layout.name == "llmsim":
        layout = _own_time(layout, header, source)
    for column in (*layout.required, *(c for _, c in layout.extra if columns)):
        if column not in header:
            raise TraceError(_missing(column, layout, header, source))
    if layout.time is not None and layout.time not in header:
        if "Did you mean" in (message := _missing(layout.time, layout, header, source)):
            raise TraceError(message)
        return replace(layout, time=None, time_unit=None)
    return layout


def _in_case_of(header: Sequence[str], layout: Layout) -> Layout:
    """The layout with its columns written as the header writes them, where only one differs in nothing but case."""
    found: dict[str, list[str]] = {}
    for name in header:
        found.setdefault(name.casefold(), []).append(name)

    def written(column: str) -> str:
        alike = found.get(column.casefold(), [])
        return alike[0] if column not in header and len(alike) == 1 else column

    return replace(
        layout,
        prompt=written(layout.prompt),
        output=written(layout.output),
        time=None if layout.time is None else written(layout.time),
        extra=tuple((field, written(column)) for field, column in layout.extra),
    )


def named(format: str) -> Layout:
    """The layout called `format` (or an alias of it); ConfigError with a suggestion otherwise."""
    try:
        return FORMATS[ALIASES.get(format, format)]
    except KeyError:
        hint = did_you_mean(format, [*FORMATS, *ALIASES])
        raise ConfigError(f"trace format must be one of {', '.join(FORMATS)} but got {format!r}.{hint}") from None


def _detect(header: Sequence[str], source: str) -> Layout:
    """The format that shares most columns of lengths with the header; TraceError if none shares any."""
    for folded in (False, True):
        names = [name.casefold() if folded else name for name in header]
        shared = {name: _shared(layout, names, folded) for name, layout in FORMATS.items()}
        best = max(shared, key=lambda name: shared[name])
        if shared[best] >= 1:
            return FORMATS[best]
    known = next((said for column, said in NOT_TRACES.items() if column in header), None)
    if known is not None:
        raise TraceError(f"{source}: is {known}")
    raise TraceError(
        f"{source}: row 1 is the header of no known format (found: {', '.join(header)}); name its columns with "
        "columns={'arrival_s': ..., 'prompt_tokens': ..., 'output_tokens': ...} "
        f"(--map arrival_s=COLUMN ...). Known formats: {', '.join(FORMATS)}"
    )


def _shared(layout: Layout, header: Sequence[str], folded: bool) -> float:
    """How many columns of lengths a header has; more, if it also has, or less, if it lacks the format's sign."""
    columns = [layout.prompt, layout.output]
    count = sum((column.casefold() if folded else column) in header for column in columns)
    return count if layout.sign is None or not count else count + (0.5 if layout.sign in header else -0.5)


def _from_map(columns: Mapping[str, str]) -> Layout:
    """Layout of a user's column map {field: column}; ConfigError for an unknown or absent field."""
    for key in columns:
        if key not in COLUMN_MAP_FIELDS:
            raise ConfigError(f"column map has no field {key!r}.{did_you_mean(key, COLUMN_MAP_FIELDS)}")
    for key in LENGTHS:
        if key not in columns:
            raise ConfigError(
                f"column map must name {', '.join(LENGTHS)} but got only {', '.join(columns)}; add {key!r}"
            )
    times = [key for key in ARRIVAL_UNITS if key in columns]
    if len(times) > 1:
        raise ConfigError(f"column map must name one arrival column but got {', '.join(times)}; keep one of them")
    return Layout(
        name="columns",
        prompt=columns["prompt_tokens"],
        output=columns["output_tokens"],
        time=columns[times[0]] if times else None,
        time_unit=ARRIVAL_UNITS[times[0]] if times else None,
        extra=tuple((key, columns[key]) for key in CLASS_COLUMNS if key in columns),
    )


def _own_time(layout: Layout, header: Sequence[str], source: str) -> Layout:
    """Our own schema with the arrival column that the header has, if any, and the columns of classes it has."""
    times = {name: unit for name, unit in ARRIVAL_UNITS.items() if name in header}
    times = times or {name: ARRIVAL_UNITS[name.casefold()] for name in header if name.casefold() in ARRIVAL_UNITS}
    if len(times) > 1:
        raise TraceError(f"{source}: row 1 has two arrival columns, {', '.join(times)}; keep one of them")
    extra = tuple((field, column) for field, column in layout.extra if column in header)
    time, unit = next(iter(times.items()), (None, None))
    return replace(layout, time=time, time_unit=unit, extra=extra)


def _missing(column: str, layout: Layout, header: Sequence[str], source: str) -> str:
    """Message for a required column that is not there."""
    # A column that the format uses for something else is no misspelling of this one.
    hint = nearest(column, [name for name in header if name not in layout.required])
    return (
        f"{source}: row 1 (the header) has no column {column!r}, which format {layout.name!r} needs (found: "
        f"{', '.join(header)}).{hint if 'mean' in hint else ''} Rename a column, or map the columns with "
        "columns={'prompt_tokens': ..., ...} (--map prompt_tokens=COLUMN ...)"
    )
