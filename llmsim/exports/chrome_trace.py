"""A run as a Chrome trace (JSON object format), which Perfetto and chrome://tracing open.

Timestamps are the simulation's clock; nothing here is a wall time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from llmsim.errors import ConfigError
from llmsim.exports.chrome_events import Event, counter_events, iteration_events, process_events
from llmsim.exports.chrome_requests import request_events
from llmsim.exports.window import OPEN, Window
from llmsim.metrics.timeline import ints
from llmsim.runs.results import Result
from llmsim.units import SECOND


def chrome_trace(result: Result, window: Window = OPEN) -> bytes:
    """The trace as JSON, one event a line; of the window, requests cut at its edges and iterations whole.

    Raises ConfigError if nothing does, ValueError if the tables contradict each other.
    """
    events = list(trace_events(result, window))
    if all(event["ph"] in "MC" for event in events):  # names and counters stand for the whole run
        span = int(ints(result.iterations, "end_ns").max(initial=0)) / SECOND
        raise ConfigError(f"nothing of the run lies between --from-s and --to-s; it lasts to {span:g} s: widen them")
    head = {"displayTimeUnit": "ms", "otherData": {"run": result.name, "scheduler": result.label, "writer": "llmsim"}}
    lines = ",\n".join(json.dumps(event, separators=(",", ":"), allow_nan=False) for event in events)
    return (json.dumps(head)[:-1] + ', "traceEvents": [\n' + lines + "\n]}\n").encode()


def trace_events(result: Result, window: Window) -> Iterator[Event]:
    """All events: a replica's names, iterations and counters, replica by replica; then the requests."""
    iterations, requests = result.iterations, result.requests
    replica_of, served = ints(requests, "replica"), ints(iterations, "replica")
    for replica in sorted({*replica_of.tolist(), *served.tolist()}):
        yield from process_events(replica)
        log = iterations[served == replica]
        yield from iteration_events(log, window)
        yield from counter_events(log, requests[replica_of == replica], window)
    yield from request_events(result, window)
