"""The gaps between the tokens of each request, written out one by one.

The metrics never do this (llmsim/metrics/timeline.py counts gaps that many requests share); other tools' files
want a list a request, so here every token becomes a number: 8 bytes each.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from llmsim.metrics import Timeline
from llmsim.metrics.quantiles import Floats, Ints
from llmsim.metrics.timeline import ints
from llmsim.units import SECOND


def token_times_ns(timeline: Timeline) -> tuple[Ints, Ints]:
    """When each token came, ns (tokens,), grouped by request, and how many each request has (requests,)."""
    counts = timeline.last - timeline.first + 1
    total = int(counts.sum())
    nth = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    times = timeline.ends[np.repeat(timeline.first, counts) + nth]
    of_request = np.zeros(timeline.requests, dtype=np.int64)
    np.add.at(of_request, timeline.owner, counts)
    return times, of_request


def token_gaps_s(requests: pd.DataFrame, timeline: Timeline) -> list[Floats]:
    """Seconds between the tokens of each request, rows as in `requests`; empty with fewer than two tokens.

    A request whose answer came whole (`first_token_ns` = `finish_ns`: the batchers) has none: its client saw one
    piece. `timeline` is that of the same table (Result.timeline).
    """
    times, counts = token_times_ns(timeline)
    at = np.cumsum(counts) - counts
    whole = ints(requests, "first_token_ns") == ints(requests, "finish_ns")
    seconds = np.diff(times) / SECOND
    return [
        seconds[begin : begin + count - 1] if count > 1 and not together else seconds[:0]
        for begin, count, together in zip(at.tolist(), counts.tolist(), whole.tolist(), strict=True)
    ]
