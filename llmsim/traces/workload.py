"""Build the requests of one run from a specification and a seed.

Randomness comes from one seed in separate streams, in this order: arrivals, lengths, classes, noise. So
changing how requests arrive never changes how long they are; 'noise' is left to the executors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmsim.core.content import Content
from llmsim.core.request import NO_SLO, Request, SloClass
from llmsim.errors import ConfigError
from llmsim.traces.arrivals import ArrivalsSpec, draw_arrivals, seconds_to_ns
from llmsim.traces.classes import row_classes, with_row_models
from llmsim.traces.contents import RowContents
from llmsim.traces.distributions import DistributionSpec
from llmsim.traces.file_times import FileTimes, file_times
from llmsim.traces.lengths import LengthsSpec
from llmsim.traces.selection import open_source, select_lengths
from llmsim.traces.served_models import Limits, check_models, hold_to_own_limit, shared_limit
from llmsim.traces.spec import ClassSpec, WorkloadSpec
from llmsim.traces.twins import Twin
from llmsim.traces.workload_facts import Totals, describe, trace_facts
from llmsim.units import SECOND

if TYPE_CHECKING:
    from llmsim.traces.schema import Trace

__all__ = [
    "ArrivalsSpec",
    "ClassSpec",
    "DistributionSpec",
    "LengthsSpec",
    "Streams",
    "Workload",
    "WorkloadSpec",
    "build_workload",
]

Ints = NDArray[np.int64]
MOST_REQUESTS = 100_000_000
"""Requests of a workload in memory, where each takes 32 bytes; a stream has no such limit."""


class Streams(NamedTuple):
    """The random streams of a run, one per purpose."""

    arrivals: np.random.SeedSequence
    lengths: np.random.SeedSequence
    classes: np.random.SeedSequence
    noise: np.random.SeedSequence

    @classmethod
    def of(cls, seed: int) -> Streams:
        """Streams of a seed (at least 0); ConfigError for another value."""
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ConfigError(f"seed must be a whole number >= 0 but got {seed!r}")
        return cls(*np.random.SeedSequence(int(seed)).spawn(4))


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of one run, in order of arrival; arrays have shape (requests,).

    `slo_index` points into `slo_classes`. With `max_concurrency` the loop is closed: all arrive at 0 and the
    cluster submits the next one, in order, when one finishes. `dropped` counts requests left out per reason,
    `description` is what the manifest says about the workload.
    """

    arrival_ns: Ints
    prompt_tokens: Ints
    output_tokens: Ints
    slo_index: Ints
    slo_classes: tuple[SloClass, ...] = (NO_SLO,)
    max_concurrency: int | None = None
    contents: Sequence[Content | None] | None = None
    """What the tokens of each request are; None: nothing is known to be shared."""
    dropped: dict[str, int] = field(default_factory=dict)
    description: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.arrival_ns)

    @property
    def tells_content(self) -> bool:
        """Whether anything is known of what requests share."""
        return self.contents is not None

    @property
    def first_arrival_ns(self) -> int:
        """When the first request arrives."""
        return int(self.arrival_ns[0])

    def requests(self, first_id: int = 0) -> list[Request]:
        """Fresh requests with ids `first_id`, `first_id` + 1, ... in order of arrival."""
        classes = self.slo_classes
        columns = (self.arrival_ns, self.prompt_tokens, self.output_tokens, self.slo_index)
        contents = [None] * len(self) if self.contents is None else self.contents
        rows = zip(*(column.tolist() for column in columns), contents, strict=True)
        return [
            Request(i, arrival, prompt, output, classes[slo], content)
            for i, (arrival, prompt, output, slo, content) in enumerate(rows, first_id)
        ]


def build_workload(spec: WorkloadSpec, seed: int, max_model_len: Limits = None) -> Workload:
    """The workload of a specification; equal arguments give equal workloads.

    Prompts longer than `max_model_len` tokens follow `spec.on_long`: an error, left out and counted, or
    scaled down with their output. With limits by model, requests may ask for these models only. TraceError for a file
    that cannot be used, ConfigError for a specification it does not fit.
    """
    Streams.of(seed)  # a bad seed is told before a file is read
    source = open_source(spec, shared_limit(max_model_len, spec.on_long))
    return workload_of(spec, seed, source, max_model_len)


def workload_of(spec: WorkloadSpec, seed: int, source: Trace | Twin | None, max_model_len: Limits) -> Workload:
    """The workload of a specification whose trace is in memory (`selection.open_source`)."""
    streams = Streams.of(seed)
    count = _count(spec, source)
    drawn = select_lengths(spec, source, count, streams.lengths, shared_limit(max_model_len, spec.on_long))
    slo_index, slo_classes = _classes(spec, source, drawn.row, count, np.random.default_rng(streams.classes))
    check_models(max_model_len, slo_classes, np.bincount(slo_index, minlength=len(slo_classes)))
    stays = hold_to_own_limit(max_model_len, spec.on_long, drawn, slo_classes, slo_index)
    arrival, times = _arrivals(spec, source, count, np.random.default_rng(streams.arrivals), stays)
    columns = drawn.prompt, drawn.output, slo_index
    prompt, output, slo_index = columns if stays is None else (column[stays] for column in columns)
    total = Totals(
        num_requests=len(arrival),
        first_arrival_ns=int(arrival[0]),
        last_arrival_ns=int(arrival[-1]),
        prompt_tokens=int(prompt.sum()),
        output_tokens=int(output.sum()),
        dropped=drawn.dropped,
        clipped=drawn.clipped,
    )
    facts = None
    if isinstance(source, Twin):
        facts = trace_facts(source.name, "twin", source.rows, source.sha256)
    elif source is not None:
        rows = len(source.requests)
        facts = trace_facts(source.name, source.format, rows, source.sha256, source.moved, times)
    return Workload(
        arrival_ns=arrival,
        prompt_tokens=prompt,
        output_tokens=output,
        slo_index=slo_index,
        slo_classes=slo_classes,
        max_concurrency=spec.arrivals.max_concurrency,
        contents=_contents(spec, source, drawn.row, stays, prompt),
        dropped=drawn.dropped,
        description=describe(spec, seed, max_model_len, facts, total, times),
    )


def _count(spec: WorkloadSpec, source: Trace | Twin | None) -> int:
    """How many requests: as asked, else as many as the trace (or the original of the twin) has."""
    if spec.num_requests is not None:
        if spec.num_requests > MOST_REQUESTS:
            raise ConfigError(
                f"workload.num_requests must be at most {MOST_REQUESTS:,} for a workload in memory but got "
                f"{spec.num_requests:,}; lower it, or take the requests in blocks (llmsim.traces.stream_workload)"
            )
        return spec.num_requests
    assert source is not None  # WorkloadSpec refuses neither
    return source.rows if isinstance(source, Twin) else len(source.requests)


def _contents(
    spec: WorkloadSpec, source: Trace | Twin | None, row: Ints | None, stays: NDArray[np.bool_] | None, prompt: Ints
) -> list[Content | None] | None:
    """What the tokens of the requests are, if the specification says how to read it."""
    if spec.hash_block_size is None:
        return None
    assert source is not None  # WorkloadSpec refuses everything but rows, and open_twin refuses it too
    assert not isinstance(source, Twin)
    assert row is not None
    kept = row if stays is None else row[stays]
    contents = RowContents(spec.hash_block_size, source.source, cut=spec.on_long == "clip")
    return contents.of(source.requests, kept.tolist(), prompt.tolist())


def _arrivals(
    spec: WorkloadSpec,
    source: Trace | Twin | None,
    count: int,
    rng: np.random.Generator,
    stays: NDArray[np.bool_] | None,
) -> tuple[Ints, FileTimes | None]:
    """Sorted arrival times in ns of the requests that stay (None: all), and what they are of a file's, if they are."""
    if spec.arrivals.kind == "trace" and source is not None and not isinstance(source, Twin):
        check_arrivals(spec, source.has_arrivals, count, len(source.requests), source.source)
        own = source.requests["arrival_ns"].to_numpy()[:count]
        factor = time_factor(spec, int(own[0]), int(own[-1]), count)
        own = own if stays is None else own[stays]
        times = file_times(spec, source.clock, int(own[0]), int(own[-1]), len(own), source.source)
        return scaled(own - times.shift_ns, factor), times
    if spec.arrivals.kind != "trace":
        arrival = draw_arrivals(spec.arrivals, count, rng)
    else:
        assert isinstance(source, Twin)
        check_arrivals(spec, source.has_arrivals)
        assert source.arrivals is not None
        arrival = source.arrivals.draw(count, rng)
        arrival = scaled(arrival, time_factor(spec, int(arrival[0]), int(arrival[-1]), count))
    return arrival if stays is None else arrival[stays], None


def check_arrivals(spec: WorkloadSpec, has_arrivals: bool, count: int = 0, rows: int = 0, source: str = "") -> None:
    """ConfigError for arrivals.kind 'trace' without times, or with more requests than rows."""
    if not has_arrivals:
        raise ConfigError(
            f"arrivals.kind 'trace' needs arrival times, but {spec.trace} holds lengths only; give another "
            "kind, such as poisson with a rate (--rate), or a closed loop (--max-concurrency)"
        )
    if count > rows:
        raise ConfigError(
            f"num_requests must be at most {rows} with arrivals.kind 'trace', the rows "
            f"of {source}, but got {count}; lower it or give another kind of arrivals"
        )


def time_factor(spec: WorkloadSpec, first_ns: int, last_ns: int, count: int) -> float:
    """Factor on the times of a trace: time_scale, or what makes their mean rate (requests over first to last) the one
    asked for."""
    rate = spec.arrivals.rate
    if rate is None:
        return spec.time_scale
    span_s = float(last_ns - first_ns) / SECOND
    if span_s <= 0:
        raise ConfigError(f"arrivals.rate {rate} cannot be reached by stretching times that all are equal; give a kind")
    return count / rate / span_s


def scaled(arrival: Ints, factor: float) -> Ints:
    """Times of a trace (ns) by a factor, as an array of their own; ConfigError past the clock's end."""
    return arrival.copy() if factor == 1.0 else seconds_to_ns(arrival.astype(np.float64) * (factor / SECOND))


def _classes(
    spec: WorkloadSpec, source: Trace | Twin | None, row: Ints | None, count: int, rng: np.random.Generator
) -> tuple[Ints, tuple[SloClass, ...]]:
    """Index of each request's class, and the classes: of the specification, else of the trace, else none."""
    if spec.classes:
        index, classes = class_draws(spec, rng)(count), tuple(c.slo() for c in spec.classes)
        if source is None or isinstance(source, Twin) or row is None:
            return index, classes
        return with_row_models(index, classes, source.requests, row)
    if source is None or isinstance(source, Twin) or row is None:
        return np.zeros(count, dtype=np.int64), (NO_SLO,)
    return row_classes(source.requests, row)


def class_draws(spec: WorkloadSpec, rng: np.random.Generator) -> Callable[[int], Ints]:
    """A function that draws the classes of the next n requests in the specification's shares."""
    share = np.cumsum([c.share for c in spec.classes])
    share = share / share[-1]
    return lambda n: np.searchsorted(share, rng.random(n), side="right").astype(np.int64)
