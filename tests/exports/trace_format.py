"""A strict reader of the Chrome trace event format, as far as llmsim writes it: what breaks the format fails here.

Rules from the format's description: each phase has its keys; slices of a thread nest; nestable async events of one
(category, process, id) open and close like brackets, in order of time; counters hold numbers.
"""

from __future__ import annotations

import gzip
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

Event = dict[str, Any]

KEYS = {
    "M": {"name", "pid", "tid", "args"},
    "X": {"name", "cat", "pid", "tid", "ts", "dur", "args"},
    "C": {"name", "pid", "tid", "ts", "args"},
    "b": {"name", "cat", "pid", "tid", "id2", "ts"},
    "e": {"name", "cat", "pid", "tid", "id2", "ts"},
    "n": {"name", "cat", "pid", "tid", "id2", "ts"},
}


def read(path: Path) -> dict[str, list[Event]]:
    """The events of a file by phase, checked."""
    data = path.read_bytes()
    trace = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data, parse_constant=_no_constant)
    assert set(trace) == {"displayTimeUnit", "otherData", "traceEvents"}
    assert trace["displayTimeUnit"] in ("ms", "ns")
    by_phase: dict[str, list[Event]] = defaultdict(list)
    for event in trace["traceEvents"]:
        by_phase[event["ph"]].append(event)
        _check_keys(event)
    _check_slices(by_phase["X"])
    _check_async(by_phase["b"] + by_phase["e"], trace["traceEvents"])
    for event in by_phase["C"]:
        assert all(isinstance(value, int | float) for value in event["args"].values())
    return by_phase


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def _check_keys(event: Event) -> None:
    assert set(event) - {"ph", "args"} == KEYS[event["ph"]] - {"args"}, event
    assert isinstance(event["name"], str)
    assert event["name"]
    for key in ("pid", "tid"):
        assert isinstance(event[key], int)
    for key in {"ts", "dur"} & set(event):
        assert math.isfinite(event[key])
        assert event[key] >= 0
    if event["ph"] == "M":
        assert event["name"] in ("process_name", "process_sort_index", "thread_name")


def _check_slices(slices: list[Event]) -> None:
    threads: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in slices:
        threads[event["pid"], event["tid"]].append(event)
    for events in threads.values():
        open_until: list[float] = []
        for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
            # Microseconds are floats: their sums are right to a picosecond, not to the bit.
            while open_until and open_until[-1] <= event["ts"] + 1e-6:
                open_until.pop()
            end = event["ts"] + event["dur"]
            assert not open_until or end <= open_until[-1] + 1e-6, f"slices of a thread overlap: {event}"
            open_until.append(end)


def _check_async(events: list[Event], in_order: list[Event]) -> None:
    stacks: dict[tuple[str, int, str], list[Event]] = defaultdict(list)
    last: dict[tuple[str, int, str], float] = {}
    for event in in_order:
        if event["ph"] not in "be":
            continue
        key = (event["cat"], event["pid"], event["id2"]["local"])
        assert event["ts"] >= last.get(key, 0), f"goes back in time: {event}"
        last[key] = event["ts"]
        if event["ph"] == "b":
            stacks[key].append(event)
        else:
            assert stacks[key].pop()["name"] == event["name"]
    assert not any(stacks.values())
    assert len(events) % 2 == 0
