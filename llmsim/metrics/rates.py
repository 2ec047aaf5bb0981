"""Rates of a window: tokens count when they are emitted, a request where it finishes.

Apart from these, the rates while requests kept coming, in which the time that the rest took to drain is not.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from llmsim.core.request import NEVER
from llmsim.metrics.quantiles import Ints
from llmsim.metrics.timeline import Mask, Timeline, ints
from llmsim.metrics.usage import Span
from llmsim.units import SECOND

Report = dict[str, float | None]


def finished_inside(requests: pd.DataFrame, span: Span) -> Mask:
    """Requests (rows,) that finished in the span: those it counts."""
    finish = ints(requests, "finish_ns")
    done = (requests["status"] == "finished").to_numpy(dtype=bool)
    inside: Mask = done & (finish >= span.start_ns) & (finish <= span.end_ns)
    return inside


def lost(requests: pd.DataFrame, span: Span) -> Mask:
    """Requests (rows,) without an answer that the span answers for: all that were cut off unfinished, and those
    rejected or failed that arrived in it."""
    status = requests["status"].to_numpy()
    here = ints(requests, "arrival_ns") >= span.start_ns
    without: Mask = np.asarray((status == "unfinished") | ((status != "finished") & here), dtype=bool)
    return without


def tokens_inside(requests: pd.DataFrame, timeline: Timeline, span: Span) -> tuple[Ints, Ints]:
    """Prompt and output tokens of each request (rows,), (rows,) that fall into the span, whatever became of it.

    A prompt counts with the first token; output tokens count when they are emitted. An event of a measured server that
    carries several tokens carries an equal share of the request's.
    """
    first = ints(requests, "first_token_ns")
    prompt = np.where((first >= span.start_ns) & (first <= span.end_ns), ints(requests, "prompt_tokens"), 0)
    counted = (timeline.ends >= span.start_ns) & (timeline.ends <= span.end_ns)
    before = np.concatenate([[0], np.cumsum(counted)])
    found, events = np.zeros(len(requests), dtype=np.int64), np.zeros(len(requests), dtype=np.int64)
    np.add.at(found, timeline.owner, before[timeline.last + 1] - before[timeline.first])
    np.add.at(events, timeline.owner, timeline.last - timeline.first + 1)
    tokens = ints(requests, "generated")
    whole = np.where(finished_inside(requests, span), tokens, 0)  # an answer without events comes as it finishes
    share = (2 * tokens * found + events) // np.maximum(2 * events, 1)
    return prompt, np.where(events > 0, share, whole)


class Rates:
    """Counts of a window, added up over tables of requests, each request once."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._last_arrival = NEVER
        self._ahead: list[Ints] = []
        """Times at which requests finished that may be past the last arrival, which is not known yet."""

    def add(self, requests: pd.DataFrame, tokens: tuple[Ints, Ints], span: Span) -> None:
        """Further requests, and their tokens inside the span as `tokens_inside` has them."""
        counts, (prompt, output) = self._counts, tokens
        counts["finished"] += int(finished_inside(requests, span).sum())
        counts["prompt"] += int(prompt.sum())
        counts["output"] += int(output.sum())
        arrived = ints(requests, "arrival_ns")
        counts["arrived"] += int((arrived > span.start_ns).sum())
        self._last_arrival = max(self._last_arrival, int(arrived.max(initial=NEVER)))
        finish = ints(requests, "finish_ns")
        self._see(finish[finish > span.start_ns])

    def _see(self, finish: Ints) -> None:
        waiting = np.concatenate([*self._ahead, finish])
        self._counts["served"] += int((waiting <= self._last_arrival).sum())
        self._ahead = [waiting[waiting > self._last_arrival]]

    @property
    def tokens(self) -> tuple[int, int]:
        """Prompt and output tokens of the window."""
        return self._counts["prompt"], self._counts["output"]

    def report(self, span: Span) -> Report:
        """Per second of the span; and, per second from its start to the last arrival, what came and what finished."""
        counts, seconds = self._counts, span.length_ns / SECOND
        coming = max(self._last_arrival - span.start_ns, 0) / SECOND

        def rate(count: int, over: float) -> float | None:
            return count / over if over else None

        return {
            "request_throughput": rate(counts["finished"], seconds),
            "output_throughput": rate(counts["output"], seconds),
            "total_token_throughput": rate(counts["prompt"] + counts["output"], seconds),
            "offered_rate": rate(counts["arrived"], coming),
            "served_rate": rate(counts["served"], coming),
        }
