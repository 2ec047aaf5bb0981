"""What the replicas did over a span of time: busy share, KV use, batches; idle time counts as zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from llmsim.metrics.quantiles import Floats, Ints, weighted_percentiles
from llmsim.metrics.timeline import ints
from llmsim.units import MILLISECOND

Stats = dict[str, float | int | None]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the simulation clock, ns, and the number of replicas that were there to use it."""

    start_ns: int
    end_ns: int
    replicas: int

    @property
    def length_ns(self) -> int:
        """Its length; 0 if nothing was measured."""
        return max(self.end_ns - self.start_ns, 0)

    def overlap(self, iterations: pd.DataFrame) -> Ints:
        """Nanoseconds of each iteration that lie in the span (rows,)."""
        start = np.maximum(ints(iterations, "start_ns"), self.start_ns)
        end = np.minimum(ints(iterations, "end_ns"), self.end_ns)
        overlap: Ints = np.maximum(end - start, 0)
        return overlap


def busy_shares(iterations: pd.DataFrame, overlap_ns: Ints, span: Span) -> list[float]:
    """Share of the span in which each replica ran a batch, length `span.replicas`, 0 for an empty span."""
    worked = np.bincount(ints(iterations, "replica"), weights=overlap_ns, minlength=span.replicas)
    return [float(ns) / span.length_ns if span.length_ns else 0.0 for ns in worked]


def kv_stats(
    iterations: pd.DataFrame,
    overlap_ns: Ints,
    span: Span,
    num_blocks: int | Sequence[int] | None,
    block_size: int | None,
) -> dict[str, Any]:
    """KV use of a replica: time-weighted mean and p99, and the maximum, in blocks and shares of `num_blocks`.

    `num_blocks` is one number, or one for each replica. An idle replica holds nothing, so idle time counts as
    zero. Shares are None without `num_blocks`.
    """
    used = ints(iterations, "kv_used_blocks")
    sizes = [num_blocks] if isinstance(num_blocks, int) else list(num_blocks or ())
    stats: dict[str, Any] = {
        "num_blocks": sizes if len(set(sizes)) > 1 else sizes[0] if sizes else None,
        "block_size": block_size,
    }
    mean, _, peak = _over_time(used, overlap_ns, span)
    stats |= {"mean_used_blocks": mean, "max_used_blocks": int(peak)}
    shares: tuple[float | None, float | None, float | None] = (None, None, None)
    if sizes:
        of_replica = np.broadcast_to(np.asarray(sizes, dtype=np.float64), span.replicas)
        shares = _over_time(used / of_replica[ints(iterations, "replica")], overlap_ns, span)
    return stats | dict(zip(("mean_share", "p99_share", "max_share"), shares, strict=True))


def _over_time(used: Floats | Ints, overlap_ns: Ints, span: Span) -> tuple[float | None, float | None, float]:
    """Time-weighted mean, p99 and the maximum of what iterations held, the replicas' idle time counted as 0."""
    idle = span.length_ns * span.replicas - int(overlap_ns.sum())
    values, weights = np.append(used, 0), np.append(overlap_ns, max(idle, 0))
    total = int(weights.sum())
    mean = float((values * weights.astype(np.float64)).sum()) / total if total else None
    p99 = float(weighted_percentiles(values, weights, [99])[0]) if total else None
    return mean, p99, float(used[overlap_ns > 0].max(initial=0))


def batch_stats(iterations: pd.DataFrame, overlap_ns: Ints, span: Span) -> Stats:
    """Iterations of the span: how many, how long, how full; means are per iteration."""
    inside = overlap_ns > 0
    count = int(inside.sum())
    shares = busy_shares(iterations, overlap_ns, span)

    def mean(values: Ints) -> float | None:
        return float(values[inside].sum()) / count if count else None

    prefill, decodes = ints(iterations, "prefill_tokens"), ints(iterations, "decode_tokens")
    lasted = (ints(iterations, "end_ns") - ints(iterations, "start_ns"))[inside]
    mean_ns = mean(ints(iterations, "end_ns") - ints(iterations, "start_ns"))
    queued = float((ints(iterations, "waiting") * overlap_ns.astype(np.float64)).sum())
    total = span.length_ns * span.replicas
    return {
        "iterations": count,
        "mean_batch_ms": None if mean_ns is None else mean_ns / MILLISECOND,
        "max_batch_ms": float(lasted.max()) / MILLISECOND if count else None,
        "mean_tokens": mean(prefill + decodes),
        "mean_prefill_tokens": mean(prefill),
        "mean_decode_seqs": mean(decodes),
        "max_running": int(ints(iterations, "running")[inside].max(initial=0)),
        "mean_waiting": queued / total if total else None,
        "busy_share": sum(shares) / len(shares) if shares else None,
        "max_replica_busy_share": max(shares, default=None),
    }
