"""TBT samples as the research code of SLAI and Sarathi-Serve records them (`definitions='slai'`).

After every batch those engines record, for each sequence in the batch whose prompt is complete, its *stored
last inter-token gap*, which starts at 0. Hence, for each request, finished or not:

- one 0 when its prompt completes (nothing has been generated yet);
- engines that emit no token there (`first_token_at_prefill_end` false) record a second 0 with the first
  decode token, so the gap from the end of the prompt to that token is never measured: D + 1 samples;
- engines that do emit token 1 there record that 0 only: D samples;
- every later token records its real gap, also across a preemption;
- after a restart, engines of the first kind record the previous gap once more when the prompt completes
  again (a stale repeat); in the second kind that batch emits a token and records its real gap.

Source: Sarathi-Serve / SLAI metrics/metrics_store.py (`_on_batch_end`, decode token times). The request table
keeps the number of prompt completions and the time of the last one only. A pause of the tokens is therefore
taken for a restart where it contains that last completion, then where it is longest. This is exact for one
restart a request, and for policies that never skip a decode (every pause is a restart); it is approximate for
several restarts under a policy that skips decodes, and a restart in which no token came between two
completions counts as a repeat of 0.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from llmsim.metrics.quantiles import Ints
from llmsim.metrics.timeline import Mask, Timeline, ints, pooled_gaps


def emits_at_prefill_end(requests: pd.DataFrame, timeline: Timeline) -> bool:
    """Whether the iterations that completed prompts emitted a token, judged from the tables.

    True if any request has a token range that starts where its prompt (last) completed: an engine of the
    other kind needs one more iteration. False for tables without tokens.
    """
    prompt_end = ints(requests, "prefill_end_ns")[timeline.owner]
    return bool(np.any(prompt_end == timeline.ends[timeline.first]))


def tbt_samples(
    requests: pd.DataFrame, timeline: Timeline, keep: Mask, first_token_at_prefill_end: bool | None = None
) -> tuple[Ints, Ints]:
    """(gap_ns, weight) of the recorded TBT samples of the requests in `keep` (requests,).

    `first_token_at_prefill_end` None means: judge it from the tables.
    """
    emits = first_token_at_prefill_end
    if emits is None:
        emits = emits_at_prefill_end(requests, timeline)
    timeline = timeline.of_requests(keep)
    gaps, weights = pooled_gaps(timeline)
    zeros = int((ints(requests, "prompt_completions")[keep] > 0).sum())
    if emits:
        return np.append(gaps, 0), np.append(weights, zeros)
    zeros += len(np.unique(timeline.owner))  # the first decode token of each request that has one
    stale, repeats_of_zero = _stale_repeats(requests, timeline, keep)
    gaps = np.concatenate([gaps, stale, np.zeros(1, dtype=np.int64)])
    tail = np.append(np.ones(len(stale), dtype=np.int64), zeros + repeats_of_zero)
    return gaps, np.concatenate([weights, tail])


def _stale_repeats(requests: pd.DataFrame, timeline: Timeline, keep: Mask) -> tuple[Ints, int]:
    """The gaps repeated by further prompt completions, and how many completions had no gap to repeat."""
    further = np.where(keep, np.maximum(ints(requests, "prompt_completions") - 1, 0), 0)
    timeline = timeline.of_requests(further > 0)
    if not len(timeline.owner):
        return np.empty(0, dtype=np.int64), int(further.sum())
    ends, owner = timeline.ends, timeline.owner
    prompt_end = ints(requests, "prefill_end_ns")[owner]
    paused_at = ends[timeline.last]
    continues = np.append(owner[1:] == owner[:-1], False)
    resumed_at = np.where(continues, ends[np.append(timeline.first[1:], 0)], prompt_end)
    possible = paused_at < prompt_end
    holds_last = possible & (~continues | (resumed_at > prompt_end))
    # Of each request's pauses: the one with the last completion first, then by length.
    rank = np.lexsort((paused_at - resumed_at, ~holds_last, ~possible, owner))
    nth = np.arange(len(owner)) - np.searchsorted(owner, owner[rank])
    chosen = rank[possible[rank] & (nth < further[owner[rank]])]
    return _gap_before(timeline)[chosen], int(further.sum()) - len(chosen)


def _gap_before(timeline: Timeline) -> Ints:
    """The last gap recorded when each range ended, ns: 0 if it held the request's first and only token."""
    ends, first, last = timeline.ends, timeline.first, timeline.last
    previous = np.concatenate([ends[:1], ends[last[:-1]]])
    opened = np.concatenate([[True], timeline.owner[1:] != timeline.owner[:-1]])
    across = np.where(opened, 0, ends[first] - previous)
    gap: Ints = np.where(last > first, ends[last] - ends[last - 1], across)
    return gap
