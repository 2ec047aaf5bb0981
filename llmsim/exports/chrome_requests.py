"""Requests of a run as Chrome trace events: one nestable async span a request, its phases inside it.

All outer spans are called `request`: viewers then pack them into one group a replica, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from llmsim.core.request import NEVER
from llmsim.exports.chrome_events import Event, micros, requests_pid
from llmsim.exports.phases import Phase, phases
from llmsim.exports.window import Window
from llmsim.metrics.timeline import ints
from llmsim.runs.results import Result
from llmsim.units import MILLISECOND, SECOND

CATEGORY = "request"
ARGS = ("id", "prompt_tokens", "output_tokens", "generated", "chunks", "preemptions", "slo_class", "status")


def request_events(result: Result, window: Window) -> Iterator[Event]:
    """Begin and end events (ph b, e) of each request that overlaps the window and of its phases, in row order.

    They are cut at the window's edges: a viewer would draw the last counters on to the end of the longest. `args` of a
    request are those of ARGS that the table has, uncut `arrival_s`, and `ttft_ms` and `e2el_ms` where there is one. A
    rejected request is an instant (ph n). Raises ValueError if the tables contradict each other.
    """
    requests = result.requests
    spans = phases(result)
    arrivals = ints(requests, "arrival_ns")
    ends = np.array([each[-1].end_ns if each else at for each, at in zip(spans, arrivals.tolist(), strict=True)])
    # An instant has no length: it is in the window if its time is.
    shown = window.overlaps(arrivals, np.maximum(ends, arrivals + 1))
    table = requests[shown]
    wanted = [_cut(span, window) for span, keep in zip(spans, shown.tolist(), strict=True) if keep]
    pids = [requests_pid(replica) for replica in ints(table, "replica").tolist()]
    for row, pid, at, args in zip(wanted, pids, arrivals[shown].tolist(), _args(table), strict=True):
        # A local id belongs to its process; a global one would take the span out of its replica.
        common = {"cat": CATEGORY, "id2": {"local": hex(args["id"])}, "pid": pid, "tid": 0}
        yield from _request(common, at, row, args)


def _cut(row: list[Phase], window: Window) -> list[Phase]:
    """The phases within the window."""
    cut = (Phase(p.name, max(p.start_ns, window.start_ns), min(p.end_ns, window.end_ns)) for p in row)
    return [phase for phase in cut if phase.start_ns < phase.end_ns]


def _request(common: dict[str, Any], arrival: int, row: list[Phase], args: dict[str, Any]) -> Iterator[Event]:
    """The events of one request, in the order in which they nest."""
    if not row:
        what = "rejected" if args["status"] == "rejected" else "request"
        yield {"ph": "n", "name": what, "ts": micros(arrival), **common, "args": args}
        return
    yield {"ph": "b", "name": "request", "ts": micros(row[0].start_ns), **common, "args": args}
    for phase in row:
        yield {"ph": "b", "name": phase.name, "ts": micros(phase.start_ns), **common}
        yield {"ph": "e", "name": phase.name, "ts": micros(phase.end_ns), **common}
    yield {"ph": "e", "name": "request", "ts": micros(row[-1].end_ns), **common}


def _args(table: pd.DataFrame) -> list[dict[str, Any]]:
    """What is shown of each request."""
    known = [name for name in ARGS if name in table]
    columns = (table[name].tolist() for name in known)
    rows: list[dict[str, Any]] = [dict(zip(known, values, strict=True)) for values in zip(*columns, strict=True)]
    arrivals = ints(table, "arrival_ns").tolist()
    for args, arrival in zip(rows, arrivals, strict=True):
        args["arrival_s"] = arrival / SECOND
    for name, column in (("ttft_ms", "first_token_ns"), ("e2el_ms", "finish_ns")):
        for args, arrival, at in zip(rows, arrivals, ints(table, column).tolist(), strict=True):
            if at != NEVER:
                args[name] = (at - arrival) / MILLISECOND
    return rows
