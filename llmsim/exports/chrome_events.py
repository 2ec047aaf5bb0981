"""Iterations and counters of a run as Chrome trace events: a process a replica, a slice an iteration.

A trace event is a JSON object; `ts` and `dur` are microseconds, as fractions where the clock's nanoseconds need them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from llmsim.core.request import NEVER
from llmsim.exports.window import Window
from llmsim.metrics.quantiles import Ints
from llmsim.metrics.timeline import ints
from llmsim.units import MICROSECOND

Event = dict[str, Any]

ITERATIONS_TID = 1
ARGS = (
    "iteration",
    "prefill_tokens",
    "prefill_seqs",
    "prefill_context",
    "decode_tokens",
    "decode_context",
    "waiting",
    "running",
    "kv_used_blocks",
    "preempted",
)
"""Columns of the iteration log shown with each slice."""

COUNTERS = {"waiting": ("queue", "requests"), "running": ("running", "requests"), "kv_used_blocks": ("KV", "blocks")}
"""Columns of the log drawn as counters: name and unit, which Perfetto joins to `queue requests` and so on."""


def micros(ns: int) -> float | int:
    """Microseconds of whole nanoseconds; an int where it is whole."""
    whole, rest = divmod(ns, MICROSECOND)
    return ns / MICROSECOND if rest else whole


def process_events(replica: int) -> Iterator[Event]:
    """Names of a replica's two processes, and their places in the list; -1: no replica, which has requests only.

    Requests have a process of their own: where hundreds are there at once, they would push the counters out of sight.
    """
    names = {requests_pid(replica): f"replica {replica} requests" if replica >= 0 else "requests of no replica"}
    if replica >= 0:
        names = {pid_of(replica): f"replica {replica}"} | names
        tid = {"pid": pid_of(replica), "tid": ITERATIONS_TID}
        yield {"ph": "M", "name": "thread_name", **tid, "args": {"name": "iterations"}}
    for pid, name in names.items():
        yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}}
        yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}}


def pid_of(replica: int) -> int:
    """Process of a replica's iterations and counters."""
    return 2 * (replica + 1)


def requests_pid(replica: int) -> int:
    """Process of a replica's requests; 1 for those of none (-1)."""
    return pid_of(replica) + 1


def iteration_events(log: pd.DataFrame, window: Window) -> Iterator[Event]:
    """A complete event (ph X) for each iteration of one replica that overlaps the window; args are ARGS."""
    shown = log[window.overlaps(ints(log, "start_ns"), ints(log, "end_ns"))]
    pid = pid_of(int(shown["replica"].iloc[0])) if len(shown) else 0
    starts, ends = ints(shown, "start_ns").tolist(), ints(shown, "end_ns").tolist()
    rows = zip(*(ints(shown, name).tolist() for name in ARGS), strict=True)
    for start, end, row in zip(starts, ends, rows, strict=True):
        args = dict(zip(ARGS, row, strict=True))
        yield {
            "ph": "X",
            "cat": "iteration",
            "name": _kind(args),
            "pid": pid,
            "tid": ITERATIONS_TID,
            "ts": micros(start),
            "dur": micros(end - start),
            "args": args,
        }


def _kind(args: dict[str, int]) -> str:
    """A name for each kind of batch, so that viewers colour them apart."""
    if not args["prefill_tokens"]:
        return "decode"
    return "mixed" if args["decode_tokens"] else "prefill"


def counter_events(log: pd.DataFrame, requests: pd.DataFrame, window: Window) -> Iterator[Event]:
    """Counters (ph C) of one replica: requests queued, requests that hold KV, blocks in use; where they change.

    The log has them as each batch was formed. While a replica is idle nobody holds KV, and those queue who have
    arrived and been in no batch yet.
    """
    starts, ends = ints(log, "start_ns"), ints(log, "end_ns")
    if not len(starts):
        return
    idle_from, idle_to = _idle(starts, ends)
    gaps = np.sort(np.concatenate([idle_from, _arrivals_between(requests, idle_from, idle_to)]))
    times = np.concatenate([starts, gaps])
    order = np.argsort(times, kind="stable")
    for column, (name, unit) in COUNTERS.items():
        in_gaps = _queued(requests, gaps) if column == "waiting" else np.zeros(len(gaps), dtype=np.int64)
        values = np.concatenate([ints(log, column), in_gaps])[order]
        yield from _steps(pid_of(int(log["replica"].iloc[0])), name, unit, times[order], values, window)


def _idle(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Where the replica ran nothing: from, to (ns); before its first iteration and after its last one, too."""
    since = np.concatenate([np.zeros(1, dtype=np.int64), ends])
    until = np.append(starts, np.iinfo(np.int64).max)
    empty = until <= since
    return since[~empty], until[~empty]


def _arrivals_between(requests: pd.DataFrame, idle_from: Ints, idle_to: Ints) -> Ints:
    """Arrivals while the replica was idle that did not start a batch at once, ns."""
    arrivals = ints(requests, "arrival_ns")
    waited = arrivals[arrivals != ints(requests, "first_scheduled_ns")]
    at = np.searchsorted(idle_from, waited, side="right") - 1
    during: Ints = waited[(at >= 0) & (waited < idle_to[np.maximum(at, 0)])]
    return during


def _queued(requests: pd.DataFrame, times: Ints) -> Ints:
    """Requests that had arrived by each time and been in no batch, shape of `times`."""
    sent = requests[requests["status"] != "rejected"]
    scheduled = ints(sent, "first_scheduled_ns")
    arrived = np.searchsorted(np.sort(ints(sent, "arrival_ns")), times, side="right")
    begun = np.searchsorted(np.sort(scheduled[scheduled != NEVER]), times, side="right")
    queued: Ints = (arrived - begun).astype(np.int64)
    return queued


def _steps(pid: int, name: str, unit: str, times: Ints, values: Ints, window: Window) -> Iterator[Event]:
    """One event where the value changes; the value that holds as the window opens is given at its start."""
    first = max(int(np.searchsorted(times, window.start_ns, side="right")) - 1, 0)
    until = int(np.searchsorted(times, window.end_ns, side="left"))
    times, values = np.maximum(times[first:until], window.start_ns), values[first:until]
    changed = np.flatnonzero(np.append(True, values[1:] != values[:-1]))[: len(values)]
    for time, value in zip(times[changed].tolist(), values[changed].tolist(), strict=True):
        yield {"ph": "C", "name": name, "pid": pid, "tid": 0, "ts": micros(time), "args": {unit: value}}
