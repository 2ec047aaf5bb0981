"""The times of a trace file as arrivals of a run: where they begin, and whether they can be what they were read as.

A run's clock begins with the first row that is sent, so that `warmup_s`, `horizon_s` and schedules count from there;
`WorkloadSpec.keep_clock` keeps the file's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.errors import ConfigError
from llmsim.traces.schema import Clock
from llmsim.units import SECOND

if TYPE_CHECKING:
    from llmsim.traces.schema import Trace
    from llmsim.traces.spec import WorkloadSpec

HIGHEST_RATE = 1000.0
"""Requests a second above which a time was rather read in too fine a unit: a thousand times the right rate is that of
one request a second, and no public trace that is read here comes near it."""
LOWEST_RATE = 1 / 3600
"""Requests a second below which it was rather read in too coarse a unit: one an hour."""
MANY_SHIFTED_NS = SECOND
"""A shift of this much or more is told."""
_COARSER = {"ns": "us", "us": "ms", "ms": "s"}
_FINER = {coarse: fine for fine, coarse in _COARSER.items()}
UNIX_S = (10**9, 2**32)
"""Numbers that are seconds since 1970 in files of this trade: from 9 September 2001 to where 32 bits end, in 2106."""


@dataclass(frozen=True, slots=True)
class FileTimes:
    """`shift_ns` is what was taken off the times of the file, `notes` what its reader must know of them."""

    shift_ns: int
    notes: tuple[str, ...]


def file_times(spec: WorkloadSpec, clock: Clock, first_ns: int, last_ns: int, count: int, source: str) -> FileTimes:
    """How the times from `first_ns` to `last_ns` (on the file's clock) of `count` requests become arrivals.

    ConfigError for `keep_clock` with date-times or Unix times, which count from no start.
    """
    if spec.keep_clock and clock.origin_ns:
        raise ConfigError(
            f"workload.keep_clock keeps times since a start, but {source} has {_absolute(clock)}, which have none; "
            "leave it out (--keep-clock): the first request arrives at 0"
        )
    shift_ns = 0 if spec.keep_clock else first_ns
    notes = [] if spec.arrivals.rate is not None else list(implausible(clock, first_ns, last_ns, count))
    if shift_ns >= MANY_SHIFTED_NS:
        notes.append(
            f"the times of the trace begin at {shift_ns / SECOND:,.10g} s and count from there; --keep-clock "
            "(workload.keep_clock) keeps the file's own clock"
        )
    return FileTimes(shift_ns, tuple(notes))


def doubts(trace: Trace) -> list[str]:
    """The sentences of `implausible` on a trace in memory."""
    if not trace.has_arrivals:
        return []
    arrival = trace.requests["arrival_ns"].to_numpy()
    return list(implausible(trace.clock, int(arrival[0]), int(arrival[-1]), len(arrival)))


def implausible(clock: Clock, first_ns: int, last_ns: int, count: int) -> Iterator[str]:
    """A sentence, with its remedy, for each sign that times were read in a unit that they are not in."""
    unit = clock.unit
    if unit is None:
        return
    if clock.doubt:
        yield clock.doubt
    low, high = (seconds * SECOND // 1000 for seconds in UNIX_S)
    if unit in _COARSER and not clock.origin_ns and low <= first_ns < high:
        yield (
            f"the times of the trace, read as {unit}, look like Unix times in {_COARSER[unit]} (the first is "
            f"{first_ns / SECOND:,.10g} s after their start); if they are, give --time-unit {_COARSER[unit]} "
            "(workload.time_unit)"
        )
    span_s = (last_ns - first_ns) / SECOND
    rate = count / span_s if span_s > 0 else None
    if rate is None or count < 2 or LOWEST_RATE <= rate <= HIGHEST_RATE:
        return
    other = (_COARSER if rate > HIGHEST_RATE else _FINER).get(unit)
    meant = f"if they are {other}, give --time-unit {other} (workload.time_unit); " if other else ""
    told = f"{rate:,.0f} requests a second" if rate > HIGHEST_RATE else f"one request in {1 / rate / 3600:,.4g} hours"
    yield (
        f"the times of the trace, read as {_named(unit)}, make {told}; {meant}if the unit is right, --rate or "
        "--set workload.time_scale=F changes the load"
    )


def _named(unit: str) -> str:
    return "date-times" if unit == "datetime" else unit


def _absolute(clock: Clock) -> str:
    return "date-times" if clock.unit == "datetime" else "Unix times"
