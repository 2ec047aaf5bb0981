"""Which lengths a workload gets: rows of a trace, draws from a twin, or synthetic ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmsim.errors import ConfigError, TraceError
from llmsim.traces import files, shipped
from llmsim.traces.lengths import draw_lengths
from llmsim.traces.limits import check_limit, clip_lengths
from llmsim.traces.spec import WorkloadSpec
from llmsim.traces.twinfile import is_twin
from llmsim.traces.twins import Twin, load_twin, make_twin, parse_twin

if TYPE_CHECKING:
    from llmsim.traces.schema import Trace

Ints = NDArray[np.int64]
Draw = Callable[[int], tuple[Ints, Ints]]


@dataclass(slots=True)
class Selection:
    """Lengths in the order of the requests; `row` is the row of the trace each came from, None if drawn."""

    prompt: Ints
    output: Ints
    row: Ints | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    clipped: int = 0


def open_source(spec: WorkloadSpec, max_model_len: int | None) -> Trace | Twin | None:
    """The trace or twin that the specification names, None if it names none; rows already obey the limit.

    TraceError for an unknown name or a file that cannot be used.
    """
    check_limit(max_model_len, spec.on_long)
    if spec.trace is None:
        return None
    path = shipped.resolve(spec.trace)
    if is_twin(files.read_bytes(path)):
        given = {"format": spec.format, "columns": spec.columns, "time_unit": spec.time_unit}
        for name, value in given.items():
            if value is not None:
                raise ConfigError(
                    f"workload.{name} is for trace files, but {spec.trace} is a twin, which has no rows to read; "
                    f"leave it out (got {value!r})"
                )
        return load_twin(path)
    from llmsim.traces.readers import read_trace  # pandas, only where a file is read

    return read_trace(
        path,
        format=spec.format,
        columns=spec.columns,
        on_bad=spec.on_bad,
        # Lengths that are drawn meet the limit after drawing.
        max_prompt_tokens=max_model_len if spec.lengths.kind in ("trace", "resampled") else None,
        time_unit=spec.time_unit,
        on_long=spec.on_long,
    )


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
    selection = _under_limit(_drawer(spec, source, seeds), count, max_model_len, spec.on_long)
    if source is not None and not isinstance(source, Twin):
        selection.dropped = {**source.dropped, **selection.dropped}
    return selection


def _from_rows(spec: WorkloadSpec, trace: Trace, count: int, rng: np.random.Generator) -> Selection:
    """Rows in order, in random order, or drawn with replacement."""
    rows = len(trace.requests)
    if spec.lengths.kind == "resampled":
        row = rng.integers(0, rows, size=count)
    elif count > rows:
        raise ConfigError(
            f"num_requests must be at most {rows}, the rows of {trace.source}, but got {count}; lower it, "
            "or set lengths.kind to 'resampled' (rows drawn with replacement) or 'empirical'"
        )
    else:
        row = rng.permutation(rows)[:count] if spec.shuffle else np.arange(count)
    return Selection(
        prompt=trace.requests["prompt_tokens"].to_numpy()[row],
        output=trace.requests["output_tokens"].to_numpy()[row],
        row=row,
        dropped=dict(trace.dropped),
        clipped=trace.clipped,
    )


def _drawer(spec: WorkloadSpec, source: Trace | Twin | None, seeds: np.random.SeedSequence) -> Draw:
    """A function that draws the next n pairs of lengths."""
    if spec.lengths.kind == "synthetic":
        prompt, output = spec.lengths.prompt, spec.lengths.output
        assert prompt is not None
        assert output is not None
        # A stream each, so that the first requests stay the same when more are asked for.
        prompt_rng, output_rng = (np.random.default_rng(child) for child in seeds.spawn(2))
        return lambda n: (draw_lengths(prompt, n, prompt_rng), draw_lengths(output, n, output_rng))
    assert source is not None  # WorkloadSpec refuses the other kinds without a trace
    twin = source if isinstance(source, Twin) else parse_twin(make_twin(source))
    rng = np.random.default_rng(seeds)
    return lambda n: twin.draw(n, rng)


def _under_limit(draw: Draw, count: int, limit: int | None, on_long: str) -> Selection:
    """`count` drawn pairs under the limit.

    Refused ones are drawn again and counted, as in an endless file.
    """
    prompt, output = draw(count)
    if limit is None:
        return Selection(prompt, output)
    if on_long == "clip":
        clipped = clip_lengths(prompt, output, limit)
        return Selection(clipped.prompt_tokens, clipped.output_tokens, clipped=int(clipped.changed.sum()))
    long = prompt > limit
    if on_long == "error" and long.any():
        request = int(np.argmax(long))
        raise TraceError(
            f"drawn workload: request {request}, prompt_tokens: {prompt[request]} is longer than the "
            f"model's limit of {limit} tokens ({int(long.sum())} of {count} requests); raise the limit, "
            "scale them down with on_long='clip' (--on-long clip), or draw them again with on_long='drop' "
            "(--on-long drop)"
        )
    while (missing := count - int((~long).sum())) > 0:
        # Rounds of at least 1000, so that a distribution almost all above the limit ends soon, one way or the
        # other.
        more_prompt, more_output = draw(max(missing, 1000))
        if (more_prompt > limit).all():
            raise TraceError(
                f"drawn workload: of {len(more_prompt)} draws no prompt_tokens is within the model's limit "
                f"of {limit} tokens (shortest {more_prompt.min()}); raise the limit or use on_long='clip' "
                "(--on-long clip)"
            )
        prompt, output = np.concatenate((prompt, more_prompt)), np.concatenate((output, more_output))
        long = prompt > limit
    keep = np.flatnonzero(~long)[:count]
    refused = int(keep[-1]) + 1 - count
    dropped = {"prompt_too_long": refused} if refused else {}
    return Selection(prompt[keep], output[keep], dropped=dropped)
