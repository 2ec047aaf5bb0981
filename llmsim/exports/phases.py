"""What each request was doing when.

=========  =====================================================================================================
waiting    sent, not yet in a batch
prefill    from its first batch to the end of its prompt, interruptions included
decode     its tokens come
preempted  from a token to the next one after it lost its KV: queued again, and its tokens computed again
held       its own answer is ready, the batch's is not (the batchers, which answer together)
first...   `first token`: waiting and prefill together, where a server was measured and nobody saw its batches
=========  =====================================================================================================

A pause between tokens counts as `preempted` in requests that were preempted. That is exact for policies that decode
every running request in every batch; where a policy may leave a decode out (SLAI, Niyama), the longest pauses are
taken, as many as the request had preemptions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from llmsim.core.request import NEVER
from llmsim.metrics import Timeline
from llmsim.metrics.quantiles import Ints
from llmsim.metrics.timeline import ints
from llmsim.runs.results import Result


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a request's life, ns."""

    name: str
    start_ns: int
    end_ns: int


def phases(result: Result) -> list[list[Phase]]:
    """The phases of each request in order, rows as in `result.requests`; none of length 0, none for a rejected one.

    What an unfinished request was last seen in lasts to the end of the log. Raises ValueError if the tables contradict.
    """
    requests, timeline = result.requests, result.timeline
    until = max(int(timeline.ends.max(initial=0)), int(ints(requests, "arrival_ns").max(initial=0)))
    first, last = _first_and_last(timeline)
    steps = int(result.iterations["in_set"].sum()) if "in_set" in result.token_ranges else 0
    pauses = _pauses(requests, timeline, steps)
    columns = zip(
        ints(requests, "arrival_ns").tolist(),
        ints(requests, "first_scheduled_ns").tolist(),
        ints(requests, "prefill_end_ns").tolist(),
        ints(requests, "finish_ns").tolist(),
        first.tolist(),
        last.tolist(),
        (requests["status"] == "rejected").tolist(),
        strict=True,
    )
    out: list[list[Phase]] = []
    for row, (arrival, scheduled, prompt_end, finish, token, final, rejected) in enumerate(columns):
        if rejected:
            out.append([])
            continue
        emitted = token if token != NEVER else until
        marks = [("waiting", arrival, scheduled), ("prefill", scheduled, emitted)]
        if scheduled == NEVER:
            marks = [("waiting" if token == NEVER else "first token", arrival, emitted)]
        elif NEVER != prompt_end <= emitted:
            marks[1] = ("prefill", scheduled, prompt_end)
        marks += _decoding(marks[-1][2], final if finish != NEVER else until, pauses.get(row, []))
        marks.append(("held", final, finish))
        out.append([Phase(*mark) for mark in marks if NEVER != mark[1] < mark[2]])
    return out


def _decoding(start: int, end: int, pauses: list[tuple[int, int]]) -> list[tuple[str, int, int]]:
    """decode, interrupted by the pauses."""
    marks = []
    for paused, resumed in pauses:
        marks += [("decode", start, paused), ("preempted", paused, resumed)]
        start = resumed
    return [*marks, ("decode", start, end)]


def _first_and_last(timeline: Timeline) -> tuple[Ints, Ints]:
    """Times of each request's first and last token (requests,), ns, NEVER for none."""
    first = np.full(timeline.requests, NEVER, dtype=np.int64)
    last = first.copy()
    # Ranges of a request are in order of time: the last assignment to a row wins.
    first[timeline.owner[::-1]] = timeline.ends[timeline.first[::-1]]
    last[timeline.owner] = timeline.ends[timeline.last]
    return first, last


def _pauses(requests: pd.DataFrame, timeline: Timeline, steps: int) -> dict[int, list[tuple[int, int]]]:
    """Of the requests that were preempted: (last token before, first token after) of each restart, ns, in order.

    None if the table does not know of preemptions. Where requests decode in the replica's set (the first `steps`
    places), only what ends a prompt emits outside it, so after the first range such a token marks a restart. Otherwise
    every pause is one, up to the number of preemptions.
    """
    if "preemptions" not in requests:
        return {}
    preemptions = ints(requests, "preemptions")
    owner, ends = timeline.owner, timeline.ends
    follows = np.flatnonzero(owner[1:] == owner[:-1])
    follows = follows[preemptions[owner[follows]] > 0]
    in_set = timeline.first < steps
    sets = np.zeros(timeline.requests, dtype=bool)
    sets[owner[in_set]] = True
    emits_outside = np.zeros(timeline.requests, dtype=bool)
    emits_outside[owner[~in_set]] = True
    plain = ~(sets & emits_outside)[owner[follows]]
    follows = follows[plain | ~in_set[follows + 1]]
    pauses: dict[int, list[tuple[int, int]]] = {}
    for row, at, after in zip(
        owner[follows].tolist(),
        ends[timeline.last[follows]].tolist(),
        ends[timeline.first[follows + 1]].tolist(),
        strict=True,
    ):
        pauses.setdefault(row, []).append((at, after))
    return {row: _longest(found, int(preemptions[row])) for row, found in pauses.items()}


def _longest(pauses: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """The `count` longest, in order of time."""
    return sorted(sorted(pauses, key=lambda pause: pause[0] - pause[1])[:count])
