"""Which lengths a workload gets: rows of a trace, draws from a twin, or synthetic ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmsim.errors import ConfigError
from llmsim.traces import files, shipped
from llmsim.traces.length_draws import Draw, DrawnLengths
from llmsim.traces.lengths import length_sampler
from llmsim.traces.limits import check_limit
from llmsim.traces.spec import WorkloadSpec
from llmsim.traces.twinfile import is_twin
from llmsim.traces.twins import Twin, load_twin, make_twin, parse_twin

if TYPE_CHECKING:
    from llmsim.traces.schema import Trace
    from llmsim.traces.tracefile import TraceFile

Ints = NDArray[np.int64]


@dataclass(slots=True)
class Selection:
    """Lengths in the order of the requests; `row` is the row of the trace each came from, None if drawn."""

    prompt: Ints
    output: Ints
    row: Ints | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    clipped: int = 0


def open_source(spec: WorkloadSpec, max_model_len: int | None, hash_ids: bool = False) -> Trace | Twin | None:
    """The trace or twin that the specification names, None if it names none; rows already obey the limit.

    Prefix hashes are read if asked for.

    TraceError for an unknown name or a file that cannot be used.
    """
    check_limit(max_model_len, spec.on_long)
    if spec.trace is None:
        return None
    path = shipped.resolve(spec.trace)
    if is_twin(files.first_bytes(path, 100)):
        return open_twin(spec, path)
    return trace_file(spec, path, max_model_len).whole(hash_ids or spec.hash_block_size is not None)


def trace_file(spec: WorkloadSpec, path: Path, max_model_len: int | None, block: int | None = None) -> TraceFile:
    """The specification's trace file, to be read in blocks of so many rows (None: of the reader's own) or whole."""
    from llmsim.traces.tablereader import ReadOptions  # pandas, only where a file is read
    from llmsim.traces.tracefile import BLOCK, TraceFile

    options = ReadOptions(
        format=spec.format,
        columns=spec.columns,
        on_bad=spec.on_bad,
        max_prompt_tokens=row_limit(spec, max_model_len),
        time_unit=spec.time_unit,
        on_long=spec.on_long,
        sort=spec.sort,
        memory=spec.memory,
    )
    return TraceFile(path, options, block or BLOCK)


def row_limit(spec: WorkloadSpec, max_model_len: int | None) -> int | None:
    """The limit on rows of a trace file: lengths that are drawn meet it after drawing."""
    return max_model_len if spec.lengths.kind in ("trace", "resampled") else None


def open_twin(spec: WorkloadSpec, path: Path) -> Twin:
    """The twin in a file; ConfigError if the specification says how its rows are to be read."""
    names = ("format", "columns", "time_unit", "sort", "memory", "hash_block_size", "keep_clock")
    given = {name: getattr(spec, name) for name in names}
    for name, value in given.items():
        if value is not None and value is not False:
            raise ConfigError(
                f"workload.{name} is for trace files, but {spec.trace} is a twin, which has no rows to read; "
                f"leave it out (got {value!r})"
            )
    return load_twin(path)


def select_lengths(
    spec: WorkloadSpec,
    source: Trace | Twin | None,
    count: int,
    seeds: np.random.SeedSequence,
    max_model_len: int | None,
) -> Selection:
    """Lengths of `count` requests from the lengths stream."""
    kind = spec.lengths.kind
    if kind in ("trace", "resampled") and source is not None and not isinstance(source, Twin):
        return _from_rows(spec, source, count, np.random.default_rng(seeds))
    selection = _under_limit(drawer(spec, source, seeds), count, max_model_len, spec.on_long)
    if source is not None and not isinstance(source, Twin):
        selection.dropped = {**source.dropped, **selection.dropped}
    return selection


def _from_rows(spec: WorkloadSpec, trace: Trace, count: int, rng: np.random.Generator) -> Selection:
    """Rows in order, in random order, or drawn with replacement."""
    rows = len(trace.requests)
    if spec.lengths.kind == "resampled":
        row = rng.integers(0, rows, size=count)
    else:
        check_rows(count, rows, trace.source)
        row = rng.permutation(rows)[:count] if spec.shuffle else np.arange(count)
    return Selection(
        prompt=trace.requests["prompt_tokens"].to_numpy()[row],
        output=trace.requests["output_tokens"].to_numpy()[row],
        row=row,
        dropped=dict(trace.dropped),
        clipped=trace.clipped,
    )


def check_rows(count: int, rows: int, source: str) -> None:
    """ConfigError for more requests than there are rows, where every row gives its lengths once."""
    if count > rows:
        raise ConfigError(
            f"num_requests must be at most {rows}, the rows of {source}, but got {count}; lower it, "
            "or set lengths.kind to 'resampled' (rows drawn with replacement) or 'empirical'"
        )


def drawer(spec: WorkloadSpec, source: Trace | Twin | None, seeds: np.random.SeedSequence) -> Draw:
    """A function that draws the next n pairs of lengths."""
    if spec.lengths.kind == "synthetic":
        prompt, output = spec.lengths.drawn.values()
        # A stream each, so that the first requests stay the same when more are asked for.
        prompt_rng, output_rng = (np.random.default_rng(child) for child in seeds.spawn(2))
        draw_prompt, draw_output = length_sampler(prompt), length_sampler(output)
        return lambda n: (draw_prompt(n, prompt_rng), draw_output(n, output_rng))
    assert source is not None  # WorkloadSpec refuses the other kinds without a trace
    twin = source if isinstance(source, Twin) else parse_twin(make_twin(source))
    rng = np.random.default_rng(seeds)
    return lambda n: twin.draw(n, rng)


def _under_limit(draw: Draw, count: int, limit: int | None, on_long: str) -> Selection:
    """`count` drawn pairs under the limit.

    Refused ones are drawn again and counted, as in an endless file.
    """
    lengths = DrawnLengths(draw, count, limit, on_long, block=max(count, 1000))
    prompt, output = lengths.take(count)
    lengths.finish()
    return Selection(prompt, output, dropped=lengths.dropped, clipped=lengths.clipped)
