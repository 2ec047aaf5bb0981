"""What the replicas did over a span of time: busy share, KV use, batches; idle time counts as zero.

A replica that is not there all the time counts only while it is: from its addition until it has left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from llmsim.core.request import NEVER
from llmsim.metrics.quantiles import Floats, Ints
from llmsim.metrics.samples import Sample
from llmsim.metrics.timeline import ints
from llmsim.units import MILLISECOND

Stats = dict[str, float | int | None]

_FOR_EVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, eq=False)
class Presence:
    """When each replica was there, ns on the simulation clock: int64 arrays of shape (replicas,)."""

    from_ns: Ints
    until_ns: Ints

    @classmethod
    def of(cls, stays: Sequence[tuple[int, int | None]]) -> Presence:
        """Of (added, left) in ns, None for a replica that did not leave."""
        ends = [_FOR_EVER if left is None else left for _, left in stays]
        return cls(np.array([added for added, _ in stays], dtype=np.int64), np.array(ends, dtype=np.int64))

    @classmethod
    def always(cls, replicas: int) -> Presence:
        """All the time."""
        return cls.of([(0, None)] * replicas)

    def only(self, members: Sequence[int]) -> Presence:
        """The same of these replicas; the others were never there."""
        until = np.zeros_like(self.until_ns)
        until[list(members)] = self.until_ns[list(members)]
        return Presence(np.minimum(self.from_ns, until), until)

    def within(self, start_ns: int, end_ns: int) -> Ints:
        """Nanoseconds of the stretch in which each replica was there (replicas,)."""
        there: Ints = np.minimum(self.until_ns, end_ns) - np.maximum(self.from_ns, start_ns)
        return np.maximum(there, 0)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the simulation clock, ns, and the number of replicas that were there to use it.

    `presence` says when, if not all of them all the time.
    """

    start_ns: int
    end_ns: int
    replicas: int
    presence: Presence | None = None

    @property
    def length_ns(self) -> int:
        """Its length; 0 if nothing was measured."""
        return max(self.end_ns - self.start_ns, 0)

    @property
    def there_ns(self) -> Ints:
        """Nanoseconds of the span in which each replica was there (replicas,)."""
        if self.presence is None:
            return np.full(self.replicas, self.length_ns, dtype=np.int64)
        return self.presence.within(self.start_ns, self.start_ns + self.length_ns)

    @property
    def replica_ns(self) -> int:
        """The same, summed over the replicas."""
        return self.length_ns * self.replicas if self.presence is None else int(self.there_ns.sum())

    def overlap(self, iterations: pd.DataFrame) -> Ints:
        """Nanoseconds of each iteration that lie in the span (rows,)."""
        start = np.maximum(ints(iterations, "start_ns"), self.start_ns)
        end = np.minimum(ints(iterations, "end_ns"), self.end_ns)
        overlap: Ints = np.maximum(end - start, 0)
        return overlap


def busy_shares(worked_ns: Floats | Ints, span: Span) -> list[float]:
    """Share of its time in the span in which each replica ran a batch, given the ns it did; 0 for no time."""
    if span.presence is None:
        return [float(ns) / span.length_ns if span.length_ns else 0.0 for ns in worked_ns]
    return [float(ns) / there if there else 0.0 for ns, there in zip(worked_ns, span.there_ns.tolist(), strict=True)]


def mean_busy(shares: Sequence[float], span: Span) -> float | None:
    """Busy time of all replicas over the time in which they were there; None if none was."""
    if span.presence is None:
        return sum(shares) / len(shares) if shares else None
    there = span.there_ns
    return float((np.asarray(shares) * there).sum()) / int(there.sum()) if there.any() else None


def busiest(shares: Sequence[float], span: Span) -> float | None:
    """The highest busy share of a replica, of those that were there for half of the span if there are any.

    One that is about to leave is busy with the rest of its work, which says nothing of the load.
    """
    if span.presence is None:
        return max(shares, default=None)
    there = span.there_ns
    steady = 2 * there >= span.length_ns
    counted = steady & (there > 0) if (steady & (there > 0)).any() else there > 0
    return float(np.asarray(shares)[counted].max()) if counted.any() else None


def worked_more(worked_ns: Floats, replica: Ints, overlap_ns: Ints) -> Floats:
    """Ns worked by replica, with those of further iterations: exact as floats up to 104 days a replica."""
    more = np.bincount(replica, weights=overlap_ns, minlength=len(worked_ns)).astype(np.float64)
    more[: len(worked_ns)] += worked_ns
    return more


class Usage:
    """Iterations and waits added up, a stretch of the log at a time, in any order; `span` is what of the clock counts.

    `num_blocks` of a replica's KV cache is one number, or one for each replica; shares are None without it.
    """

    def __init__(self, span: Span, num_blocks: int | Sequence[int] | None) -> None:
        self.span = span
        self.sizes = [num_blocks] if isinstance(num_blocks, int) else list(num_blocks or ())
        self._of_replica = (
            np.broadcast_to(np.asarray(self.sizes, dtype=np.float64), span.replicas) if self.sizes else None
        )
        self._worked: Floats = np.zeros(span.replicas)
        self._blocks, self._shares = Sample(), Sample()  # weights: ns
        self._waited = 0
        self._count = self._prefill = self._decodes = self._lasted = self._longest = self._running = 0

    def add(self, iterations: pd.DataFrame) -> None:
        """Rows of the iteration table that were not added before."""
        overlap = self.span.overlap(iterations)
        inside = overlap > 0
        replica, used = ints(iterations, "replica")[inside], ints(iterations, "kv_used_blocks")[inside]
        weights = overlap[inside]
        self._worked = worked_more(self._worked, replica, weights)
        self._blocks.add(used, weights)
        if self._of_replica is not None:
            self._shares.add(used / self._of_replica[replica], weights)
        self._count += int(inside.sum())
        self._prefill += int(ints(iterations, "prefill_tokens")[inside].sum())
        self._decodes += int(ints(iterations, "decode_tokens")[inside].sum())
        lasted = (ints(iterations, "end_ns") - ints(iterations, "start_ns"))[inside]
        self._lasted += int(lasted.sum())
        self._longest = max(self._longest, int(lasted.max(initial=0)))
        self._running = max(self._running, int(ints(iterations, "running")[inside].max(initial=0)))

    def add_requests(self, requests: pd.DataFrame) -> None:
        """Requests that are done with: how long each of them waited, in the span, for its first batch."""
        started, status = ints(requests, "first_scheduled_ns"), requests["status"].to_numpy()
        cut_off = np.where(status == "unfinished", self.span.end_ns, 0)  # rejected ones are in no queue
        until = np.minimum(np.where(started == NEVER, cut_off, started), self.span.end_ns)
        waited = np.maximum(until - np.maximum(ints(requests, "arrival_ns"), self.span.start_ns), 0)
        # Whole microseconds and the rest: a sum of ns of a long overload wraps in 64 bits.
        micro, rest = np.divmod(waited, 1000)
        self._waited += 1000 * int(micro.sum()) + int(rest.sum())

    def kv(self, block_size: int | None) -> dict[str, Any]:
        """KV use of a replica: time-weighted mean and p99, and the maximum, in blocks and shares of the cache.

        An idle replica holds nothing, so idle time counts as zero.
        """
        size: int | list[int] | None = self.sizes if len(set(self.sizes)) > 1 else self.sizes[0] if self.sizes else None
        mean, _, peak = self._over_time(self._blocks)
        stats = {"num_blocks": size, "block_size": block_size, "mean_used_blocks": mean, "max_used_blocks": int(peak)}
        shares = self._over_time(self._shares) if self.sizes else (None, None, None)
        return stats | dict(zip(("mean_share", "p99_share", "max_share"), shares, strict=True))

    def batches(self) -> Stats:
        """Iterations of the span: how many, how long, how full; means are per iteration.

        But `mean_waiting` is over time: the requests that have arrived and been in no batch yet, a replica; it is the
        rate times the mean time in the queue (Little 1961).
        """
        count, total = self._count, self.span.replica_ns
        shares = busy_shares(self._worked, self.span)

        def mean(summed: int) -> float | None:
            return float(summed) / count if count else None

        mean_ns = mean(self._lasted)
        return {
            "iterations": count,
            "mean_batch_ms": None if mean_ns is None else mean_ns / MILLISECOND,
            "max_batch_ms": float(self._longest) / MILLISECOND if count else None,
            "mean_tokens": mean(self._prefill + self._decodes),
            "mean_prefill_tokens": mean(self._prefill),
            "mean_decode_seqs": mean(self._decodes),
            "max_running": self._running,
            "mean_waiting": self._waited / total if total else None,
            "busy_share": mean_busy(shares, self.span),
            "max_replica_busy_share": busiest(shares, self.span),
        }

    def _over_time(self, held: Sample) -> tuple[float | None, float | None, float]:
        """Time-weighted mean, p99 and the maximum of what iterations held, the replicas' idle time counted as 0."""
        values, weights = held.exact_part()
        peak = float(values.max(initial=0))
        idle = self.span.replica_ns - int(weights.sum())
        whole = Sample.of(np.append(values, 0), np.append(weights, max(idle, 0)))
        values, weights = whole.exact_part()
        total = int(weights.sum())
        if not total:
            return None, None, peak
        mean = float((values * weights.astype(np.float64)).sum()) / total
        return mean, float(whole.percentiles([99])[0]), peak
