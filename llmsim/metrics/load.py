"""What a verdict on the load needs of a run: when requests came and left, and when replicas were busy or had a queue.

It is added up window by window, and is exact up to a stated size; past it neighbours in time are merged, which
blurs when something happened, never how much.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from llmsim.core.request import NEVER
from llmsim.metrics.quantiles import Ints, ones
from llmsim.metrics.samples import distinct
from llmsim.metrics.timeline import Mask, ints
from llmsim.metrics.usage import Span

EXACT_TIMES = 1 << 20
"""Different times, or stretches of iterations, up to which the evidence is exact: 16 or 40 MiB."""
EVERYTHING = 1 << 62
"""A limit that nothing reaches."""


class Times:
    """Instants (ns) in ascending order and how many fall on each."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._at: Ints = np.empty(0, dtype=np.int64)
        self._counts: Ints = np.empty(0, dtype=np.int64)
        self._parts: list[Ints] = []

    def add(self, times: Ints) -> None:
        """Further instants (n,), in any order; NEVER is left out."""
        self._parts.append(times[times != NEVER])
        if sum(map(len, self._parts)) > max(len(self._at), 1 << 15):
            self._merge()

    def _merge(self) -> None:
        if not self._parts:
            return
        new = np.concatenate(self._parts)
        self._parts = []
        at, counts = np.concatenate([self._at, new]), np.concatenate([self._counts, ones(new)])
        merged, self._counts = distinct(at, counts)
        self._at = merged.astype(np.int64, copy=False)
        while len(self._at) > self._limit:
            pair = np.arange(0, len(self._at), 2)
            later = np.minimum(pair + 1, len(self._at) - 1)
            self._at, self._counts = self._at[later], np.add.reduceat(self._counts, pair)

    @property
    def count(self) -> int:
        """How many."""
        self._merge()
        return int(self._counts.sum())

    @property
    def first(self) -> int:
        """The earliest; there must be one."""
        self._merge()
        return int(self._at[0])

    @property
    def last(self) -> int:
        """The latest; there must be one."""
        self._merge()
        return int(self._at[-1])

    def until(self, times: Ints | int) -> Ints:
        """How many fall on each of `times` or before."""
        self._merge()
        before = np.concatenate([[0], np.cumsum(self._counts)])
        found: Ints = before[np.searchsorted(self._at, times, "right")]
        return found

    def inside_ns(self, low: int, high: int) -> int:
        """Nanoseconds of [low, high] after each instant, added up."""
        self._merge()
        return int((np.clip(high - self._at, 0, high - low) * self._counts).sum())

    def gap_variation(self, since: int) -> float:
        """Squared coefficient of variation of the gaps between the instants from `since` on; 0 of fewer than two."""
        self._merge()
        at, counts = self._at[self._at >= since], self._counts[self._at >= since]
        gaps = int(counts.sum()) - 1
        if gaps < 2 or at[-1] == at[0]:
            return 0.0
        mean = float(at[-1] - at[0]) / gaps
        return float((np.diff(at).astype(np.float64) ** 2).sum()) / gaps / mean**2 - 1


@dataclass(slots=True)
class Busy:
    """Stretches of iterations without a gap that all left requests queued, or all none.

    Arrays (stretches,): replica, start and end (ns), and of these ns how many were worked and worked with a queue.
    """

    limit: int
    columns: list[Ints] = field(default_factory=lambda: [np.empty(0, dtype=np.int64)] * 5)

    def add(self, iterations: pd.DataFrame) -> None:
        """Rows of the iteration table, sorted by replica and time and later than those added before."""
        if not len(iterations):
            return
        replica, start, end = (ints(iterations, name) for name in ("replica", "start_ns", "end_ns"))
        queued = ints(iterations, "waiting") > 0
        goes_on = (replica[1:] == replica[:-1]) & (start[1:] == end[:-1]) & (queued[1:] == queued[:-1])
        first = np.flatnonzero(np.concatenate([[True], ~goes_on]))
        last = np.append(first[1:], len(replica)) - 1
        lasted = end[last] - start[first]
        new = [replica[first], start[first], end[last], lasted, np.where(queued[first], lasted, 0)]
        self.columns = [np.concatenate(both) for both in zip(self.columns, new, strict=True)]
        if len(self.columns[0]) > self.limit:
            self._halve()

    def _halve(self) -> None:
        """Make one of every two stretches of a replica that follow each other."""
        order = np.argsort(self.columns[0], kind="stable")
        replica, start, end, worked, queued = (column[order] for column in self.columns)
        nth = np.arange(len(replica)) - np.searchsorted(replica, replica)
        first = np.flatnonzero(nth % 2 == 0)
        last = np.append(first[1:], len(replica)) - 1
        sums = (np.add.reduceat(column, first) for column in (worked, queued))
        self.columns = [replica[first], start[first], end[last], *sums]

    def within(self, span: Span) -> tuple[Ints, Ints, Ints, Mask]:
        """Of each stretch, by replica and time: replica, ns worked in the span, of these queued; whether it was mostly
        queued."""
        order = np.argsort(self.columns[0], kind="stable")
        replica, start, end, worked, queued = (column[order] for column in self.columns)
        inside = np.maximum(np.minimum(end, span.end_ns) - np.maximum(start, span.start_ns), 0)
        whole = inside == end - start
        share = inside / np.maximum(end - start, 1)

        def part(ns: Ints) -> Ints:
            solid = ns == end - start  # worked without a pause: the overlap itself, not a share of it
            return np.where(whole, ns, np.where(solid, inside, np.rint(ns * share).astype(np.int64)))

        return replica, part(worked), part(queued), 2 * queued > worked


class Load:
    """The requests and iterations of a run, as far as the verdict looks at them."""

    def __init__(self, *, limit: int = EXACT_TIMES) -> None:
        self.limit = limit
        self.arrivals, self.starts, self.completions = Times(limit), Times(limit), Times(limit)
        self.busy = Busy(limit)

    def add_requests(self, requests: pd.DataFrame) -> None:
        """Rows that were not added before. Rejected requests load nothing and are left out."""
        served = requests[(requests["status"] != "rejected").to_numpy(dtype=bool)]
        self.arrivals.add(ints(served, "arrival_ns"))
        self.starts.add(ints(served, "first_scheduled_ns"))
        self.completions.add(ints(served, "finish_ns"))
