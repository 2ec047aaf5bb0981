"""Inter-token gaps out of token ranges: pooled with weights, and the longest of each request.

No token is ever expanded: a gap inside ranges is a difference of two iteration ends that many requests share,
so it is counted by a difference array over iterations; a gap between two ranges is one request's own. Gaps
are int ns throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from llmsim.core.request import NEVER
from llmsim.metrics.quantiles import Ints

Mask = npt.NDArray[np.bool_]


def ints(table: pd.DataFrame, column: str) -> Ints:
    """A column as an int64 array, shape (rows,)."""
    return np.asarray(table[column].to_numpy(), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Token ranges as places on a clock of iteration ends, grouped by request.

    ends      int64 (clock,)   ends of iterations, ns, ascending within a replica
    owner     int64 (ranges,)  row of the request table, ascending
    first     int64 (ranges,)  place of the range's first token
    last      int64 (ranges,)  place of its last token (inclusive)
    requests  rows of the request table
    """

    ends: Ints
    owner: Ints
    first: Ints
    last: Ints
    requests: int

    @classmethod
    def of(cls, requests: pd.DataFrame, iterations: pd.DataFrame, token_ranges: pd.DataFrame) -> Timeline:
        """Join the three tables. Raises ValueError if a range names an unknown request or iteration.

        Ranges with `in_set` count only their replica's iterations that have `in_set`, those in which its set
        of decodes ran: the clock of `ends` is the ends of these, then the ends of all iterations.
        """
        owner = _request_rows(ints(requests, "id"), ints(token_ranges, "id"))
        replica = ints(token_ranges, "replica")
        first, last = ints(token_ranges, "first_iteration"), ints(token_ranges, "last_iteration")
        ends = ints(iterations, "end_ns")
        if "in_set" not in token_ranges:
            rows = cls._rows(iterations, replica, first, last)
        else:
            steps = iterations[iterations["in_set"].to_numpy(dtype=bool)]
            in_set = token_ranges["in_set"].to_numpy(dtype=bool)
            at, others = np.flatnonzero(in_set), np.flatnonzero(~in_set)
            rows = np.empty((2, len(owner)), dtype=np.int64)
            rows[:, at] = cls._rows(steps, replica[at], first[at], last[at])
            rows[:, others] = cls._rows(iterations, replica[others], first[others], last[others])
            rows[:, others] += len(steps)
            ends = np.concatenate([ints(steps, "end_ns"), ends])
        first, last = rows
        if np.any(owner[1:] < owner[:-1]):
            order = np.argsort(owner, kind="stable")  # keeps each request's ranges in time order
            owner, first, last = owner[order], first[order], last[order]
        return cls(ends, owner, first, last, len(requests))

    @classmethod
    def of_times(cls, requests: pd.DataFrame, token_times: pd.DataFrame) -> Timeline:
        """Of token events stamped one by one (columns id, time_ns, sorted by both): a clock of their own each.

        Raises ValueError if an event names an unknown request.
        """
        ids, first = np.unique(ints(token_times, "id"), return_index=True)
        last = np.append(first[1:], len(token_times))[: len(first)] - 1
        owner = _request_rows(ints(requests, "id"), ids)
        return cls(ints(token_times, "time_ns"), owner, first, last, len(requests))

    @staticmethod
    def _rows(iterations: pd.DataFrame, replica: Ints, first: Ints, last: Ints) -> Ints:
        """Rows of both ends of each range, shape (2, ranges)."""
        return np.stack([_iteration_rows(iterations, replica, at) for at in (first, last)])

    def of_requests(self, keep: Mask) -> Timeline:
        """The ranges of the requests where `keep` (requests,) is true; request rows stay the same."""
        if keep.all():
            return self
        kept = keep[self.owner]
        return Timeline(self.ends, self.owner[kept], self.first[kept], self.last[kept], self.requests)

    @property
    def step_gaps(self) -> Ints:
        """ends[i] - ends[i-1], shape (clock,); meaningless for the first iteration of a replica."""
        return np.diff(self.ends, prepend=self.ends[:1])

    def between_gaps(self) -> tuple[Ints, Ints]:
        """(request rows, gap_ns) from the last token of a range to the first of the request's next one."""
        follows = np.flatnonzero(self.owner[1:] == self.owner[:-1])
        return self.owner[follows], self.ends[self.first[follows + 1]] - self.ends[self.last[follows]]


def _request_rows(ids: Ints, wanted: Ints) -> Ints:
    rows = np.searchsorted(ids, wanted)
    if len(wanted) and (not len(ids) or np.any(ids[np.minimum(rows, len(ids) - 1)] != wanted)):
        raise ValueError("token_ranges names a request id that is not in the request table (sorted by id)")
    return rows


def _iteration_rows(iterations: pd.DataFrame, replica: Ints, iteration: Ints) -> Ints:
    """Rows of the iteration table; iterations of one replica are consecutive from 0, so no join is needed."""
    replicas = ints(iterations, "replica")
    begin = np.searchsorted(replicas, replica, side="left")
    rows = begin + iteration
    if len(rows):
        end = np.searchsorted(replicas, replica, side="right")
        wrong = (rows >= end) | (iteration < 0)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise ValueError(
                f"token_ranges names iteration {iteration[at]} of replica {replica[at]}, "
                f"which has {end[at] - begin[at]} iterations"
            )
    return rows


def pooled_gaps(timeline: Timeline) -> tuple[Ints, Ints]:
    """All inter-token gaps of all requests as (gap_ns, weight): each gap with how many tokens saw it."""
    iterations = len(timeline.ends)
    opened = np.bincount(timeline.first + 1, minlength=iterations + 1)
    closed = np.bincount(timeline.last + 1, minlength=iterations + 1)
    counts = np.cumsum(opened - closed)[:iterations]
    shared = np.flatnonzero(counts)
    _, own = timeline.between_gaps()
    gaps = np.concatenate([timeline.step_gaps[shared], own])
    return gaps, np.concatenate([counts[shared], np.ones(len(own), dtype=np.int64)])


def longest_gaps(timeline: Timeline) -> Ints:
    """The longest inter-token gap of each request (requests,), ns; NEVER (-1) with fewer than two tokens."""
    longest = np.full(timeline.requests, NEVER, dtype=np.int64)
    inside = np.flatnonzero(timeline.last > timeline.first)
    maxima = range_maxima(timeline.step_gaps, timeline.first[inside] + 1, timeline.last[inside])
    np.maximum.at(longest, timeline.owner[inside], maxima)
    owner, own = timeline.between_gaps()
    np.maximum.at(longest, owner, own)
    return longest


def range_maxima(values: Ints, first: Ints, last: Ints) -> Ints:
    """max(values[first[q] .. last[q]]), both ends included, for each query; (n,), (m,), (m,) -> (m,).

    A sparse table built level by level; each level answers the queries of its length and is dropped, so
    memory stays O(n + m) and time O(n log longest + m).
    """
    answers = np.empty(len(first), dtype=np.int64)
    if not len(first):
        return answers
    level = (np.frexp((last - first + 1).astype(np.float64))[1] - 1).astype(np.int8)  # floor(log2(length))
    order = np.argsort(level, kind="stable")
    top = int(level.max())
    bounds = np.searchsorted(level[order], np.arange(top + 2))
    table = values  # table[i] = max(values[i : i + 2**k]) at level k
    for k in range(top + 1):
        queries = order[bounds[k] : bounds[k + 1]]
        width = 1 << k
        answers[queries] = np.maximum(table[first[queries]], table[last[queries] + 1 - width])
        if k < top:
            table = np.maximum(table[:-width], table[width:])
    return answers
