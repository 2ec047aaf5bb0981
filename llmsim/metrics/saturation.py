"""Saturation verdict: is the offered load below, near or above what the replicas can serve?

Judged on the later part of the arrival window, after the ramp-up from empty, by what needs no model of the
server: requests that came against requests that were answered, whether the queue ever empties, whether the
device was busy. docs/metrics.md has the thresholds' measured error rates on queues of known load.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from llmsim.metrics.quantiles import Ints
from llmsim.metrics.timeline import ints
from llmsim.metrics.usage import Span, busy_shares
from llmsim.request import NEVER
from llmsim.units import SECOND

STABLE, NEAR, OVERLOADED = "stable", "near saturation", "overloaded"
CLOSED_LOOP, UNDETERMINED = "closed loop", "undetermined"

MIN_ARRIVALS = 30
"""Fewer tell nothing about a rate: the relative error of a Poisson count of 30 is 18 %."""
RAMP_SHARE = 1 / 3
"""The first third of the arrival window is left out ..."""
RAMP_LATENCIES = 3
"""... and at least this many times the latency of an early request, in which the system fills from empty."""
MAX_RAMP_SHARE = 2 / 3
"""With less than a third of the window left, growth is not judged."""
OVERLOAD_DEFICIT = 0.02
"""Share of the late arrivals left unanswered; at load rho it tends to 1 - 1 / rho."""
OVERLOAD_Z = 3.0
"""Growth in standard errors: at a load of exactly 1 a false alarm in 370 runs or fewer."""
SUSPECT_Z = 1.65
BUSY_ENOUGH = 0.9
"""A device that idles a tenth of the late window is not short of capacity."""
QUEUED_SHARE = 0.7
"""Share of busy time with a request left queued; in M/D/1 0.56 at load 0.8, 0.87 at 0.95."""
STRETCH_LATENCIES = 3
"""Queued stretches of a few latencies are the scheduler's own batching, not the load."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict, one sentence of reason, and the numbers behind it (None: cannot be measured)."""

    verdict: str
    reason: str
    evidence: dict[str, float | int | None]

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {"verdict": self.verdict, "reason": self.reason, "evidence": self.evidence}


def saturation(
    requests: pd.DataFrame,
    iterations: pd.DataFrame,
    *,
    replicas: int = 1,
    closed_loop: bool = False,
    horizon_ns: int | None = None,
) -> Verdict:
    """Judge a run by its request and iteration tables. Rejected requests load nothing and are left out."""
    served = requests[(requests["status"] != "rejected").to_numpy(dtype=bool)]
    arrivals = np.sort(ints(served, "arrival_ns"))
    if closed_loop:
        return Verdict(CLOSED_LOOP, "arrivals follow completions, so there is no offered load to judge", {})
    if len(arrivals) < MIN_ARRIVALS:
        return Verdict(UNDETERMINED, f"{len(arrivals)} requests are too few (below {MIN_ARRIVALS})", {})
    if arrivals[0] == arrivals[-1]:
        return Verdict(UNDETERMINED, "all requests arrive at one instant, so there is no rate to judge", {})
    completions = ints(served, "finish_ns")
    completions = np.sort(completions[completions != NEVER])
    window = Span(int(arrivals[0]), int(arrivals[-1]), replicas)
    ramp = _ramp_ns(served, window)
    late = Span(window.start_ns + ramp, window.end_ns, replicas)
    evidence = _flow(arrivals, completions, window, late)
    evidence |= _queueing(iterations, late, _early_latency_ns(served))
    evidence |= _backlog(served, arrivals, completions, window, horizon_ns)
    judged = ramp <= MAX_RAMP_SHARE * window.length_ns
    return _judge(evidence, judged)


def _early_latency_ns(served: pd.DataFrame) -> int:
    """Median time from first batch to finish of the first tenth of the requests: latency without the queue."""
    early = served.head(max(len(served) // 10, 10))
    finish, scheduled = ints(early, "finish_ns"), ints(early, "first_scheduled_ns")
    took = (finish - scheduled)[(finish != NEVER) & (scheduled != NEVER)]
    return int(np.median(took)) if len(took) else 0


def _ramp_ns(served: pd.DataFrame, window: Span) -> int:
    return max(int(RAMP_SHARE * window.length_ns), RAMP_LATENCIES * _early_latency_ns(served))


def _flow(arrivals: Ints, completions: Ints, window: Span, late: Span) -> dict[str, float | int | None]:
    """Arrivals against completions in the late window, and outstanding requests along the whole one."""
    start, end = min(late.start_ns, window.end_ns), window.end_ns
    came = int(np.searchsorted(arrivals, end, "right") - np.searchsorted(arrivals, start, "right"))
    left = int(np.searchsorted(completions, end, "right") - np.searchsorted(completions, start, "right"))
    thirds = [_mean_outstanding(arrivals, completions, window, k / 3, (k + 1) / 3) for k in range(3)]
    return {
        "window_s": window.length_ns / SECOND,
        "late_window_s": (end - start) / SECOND,
        "late_arrivals": came,
        "late_completions": left,
        "completion_deficit": (came - left) / came if came else None,
        "growth_z": _growth_z(arrivals, completions, start, end, came),
        "outstanding_first_third": thirds[0],
        "outstanding_middle_third": thirds[1],
        "outstanding_last_third": thirds[2],
    }


def _growth_z(arrivals: Ints, completions: Ints, start: int, end: int, came: int) -> float | None:
    """Growth of the outstanding requests over [start, end] in its standard errors.

    The number outstanding is itself strongly autocorrelated near saturation, so a slope fitted to it looks
    significant when it is not. Its increments are not: with the queue never empty they are nearly independent,
    and below saturation they cancel, which only makes the test more careful. So: sum of the increments over
    bins, against their spread between the bins.
    """
    bins = min(max(came // 10, 5), 40)
    if came < MIN_ARRIVALS or end <= start:
        return None
    edges = np.linspace(start, end, bins + 1).astype(np.int64)
    outstanding = np.searchsorted(arrivals, edges, "right") - np.searchsorted(completions, edges, "right")
    steps = np.diff(outstanding)
    # 0.25: a count rounded to a whole request is uncertain by half a one even if everything is regular.
    spread = float(np.sqrt(max(float(steps.var(ddof=1)), 0.25) * bins))
    return float(steps.sum()) / spread


def _mean_outstanding(arrivals: Ints, completions: Ints, window: Span, begin: float, end: float) -> float:
    """Time average over a part of the window: each request counts for as long as it is inside."""
    low = window.start_ns + int(begin * window.length_ns)
    high = window.start_ns + int(end * window.length_ns)
    came = np.clip(high - arrivals, 0, high - low).sum()
    left = np.clip(high - completions, 0, high - low).sum()
    return float(came - left) / max(high - low, 1)


def _queueing(iterations: pd.DataFrame, late: Span, latency_ns: int) -> dict[str, float | int | None]:
    """Busy share, share of busy time with requests queued, and how long the queue stays non-empty."""
    overlap = late.overlap(iterations)
    busy = busy_shares(iterations, overlap, late)
    queued = (ints(iterations, "waiting") > 0) & (overlap > 0)
    worked = int(overlap.sum())
    stretches = _stretches(ints(iterations, "replica"), queued, overlap)
    weighted = float((stretches.astype(np.float64) ** 2).sum() / stretches.sum()) if len(stretches) else 0.0
    return {
        "busy_share": sum(busy) / len(busy) if busy else None,
        "busiest_replica_share": max(busy, default=None),
        "queued_share": float(overlap[queued].sum()) / worked if worked else 0.0,
        "queued_stretch_s": weighted / SECOND,
        "early_latency_s": latency_ns / SECOND,
    }


def _stretches(replica: Ints, queued: np.ndarray, overlap: Ints) -> Ints:
    """Busy time of each unbroken run of iterations that left a request queued, per replica, ns."""
    rows = np.flatnonzero(queued)
    if not len(rows):
        return rows
    opens = np.concatenate([[True], (np.diff(rows) > 1) | (np.diff(replica[rows]) != 0)])
    return np.add.reduceat(overlap[rows], np.flatnonzero(opens))


def _backlog(
    served: pd.DataFrame, arrivals: Ints, completions: Ints, window: Span, horizon_ns: int | None
) -> dict[str, float | int | None]:
    """What the last arrival left behind, and how long it took to drain (None if it never did)."""
    unfinished = len(arrivals) - len(completions)
    drain = max(int(completions[-1]) - window.end_ns, 0) if not unfinished else None
    at_end = len(arrivals) - int(np.searchsorted(completions, window.end_ns, "right"))
    return {
        "outstanding_at_last_arrival": at_end,
        "drain_s": None if drain is None else drain / SECOND,
        "drain_share": None if drain is None else drain / window.length_ns,
        "unfinished": unfinished,
        "horizon_s": None if horizon_ns is None else horizon_ns / SECOND,
    }


def _judge(evidence: dict[str, float | int | None], judged: bool) -> Verdict:
    deficit, z = evidence["completion_deficit"] or 0.0, evidence["growth_z"] or 0.0
    busy = (evidence["busiest_replica_share"] or 0.0) >= BUSY_ENOUGH
    queued, stretch = evidence["queued_share"] or 0.0, evidence["queued_stretch_s"] or 0.0
    if judged and busy and deficit >= OVERLOAD_DEFICIT and z >= OVERLOAD_Z:
        reason = (
            f"{deficit:.1%} of the late arrivals were not answered in that time, "
            f"the outstanding requests grew by {z:.1f} standard errors"
        )
        return Verdict(OVERLOADED, reason, evidence)
    if busy and judged and deficit >= OVERLOAD_DEFICIT and z >= SUSPECT_Z:
        reason = f"{deficit:.1%} of the late arrivals were not answered in that time; a longer run would tell overload"
        return Verdict(NEAR, reason, evidence)
    latency = evidence["early_latency_s"] or 0.0
    if busy and queued >= QUEUED_SHARE and stretch >= STRETCH_LATENCIES * latency:
        reason = f"requests were queued {queued:.0%} of the busy time, {stretch:.3g} s on end"
        return Verdict(NEAR, reason, evidence)
    short = "" if judged else f"; the run is short, {evidence['window_s']:.3g} s of arrivals, so growth was not judged"
    return Verdict(STABLE, f"the queue empties, requests leave as fast as they come{short}", evidence)
