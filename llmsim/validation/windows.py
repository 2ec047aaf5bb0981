"""Stretches of a measured run in which one set of requests only decoded.

Known are the first and last token of each request, no iteration. But between two such events that follow each other,
with no prompt under way, the batch stayed what it was and every member got one token an iteration. So the stretch is a
whole number of iterations of a known batch. `iteration_counts` finds the number.

Before a request's first token its prompt counts as under way from scheduled_s on, or from its arrival where that is
not known: then queues hide what could be seen. A preempted request that computes its tokens again cannot be seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from llmsim.core.request import NEVER
from llmsim.metrics.timeline import ints

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llmsim.metrics.quantiles import Ints

def decode_windows(requests: pd.DataFrame) -> pd.DataFrame:
    """The stretches, in order of time: start_ns, window_ns, decodes, context, longest.

    `requests` is a request table of finished requests. `context` and `longest` are the sum and the greatest of the
    sequences' tokens as the first iteration starts; in between first and last token they grow evenly.
    """
    first, last = ints(requests, "first_token_ns"), ints(requests, "finish_ns")
    scheduled = ints(requests, "first_scheduled_ns")
    began = np.where(scheduled == NEVER, ints(requests, "arrival_ns"), scheduled)
    events = np.unique(np.concatenate([first, last]))
    start, end = events[:-1], events[1:]
    emitted, done = _count(first, start, "right"), _count(last, start, "right")
    pure = (_count(began, end, "left") == emitted) & (emitted > done)
    prompt, output = ints(requests, "prompt_tokens"), ints(requests, "generated")
    rows = []
    for a, b in zip(start[pure].tolist(), end[pure].tolist(), strict=True):
        running = (first <= a) & (last > a)
        share = (a - first[running]) / (last[running] - first[running])
        length = np.rint(prompt[running] + 1 + share * (output[running] - 1)).astype(np.int64)
        rows.append((a, b - a, len(length), int(length.sum()), int(length.max())))
    return pd.DataFrame(rows, columns=["start_ns", "window_ns", "decodes", "context", "longest"], dtype=np.int64)


def _count(times: Ints, until: Ints, side: str) -> NDArray[np.intp]:
    """How many of `times` lie before each of `until` ('left'), or at it too ('right')."""
    return np.searchsorted(np.sort(times), until, side=side)  # type: ignore[call-overload,no-any-return]
