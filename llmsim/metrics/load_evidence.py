"""What the verdict on a load looks at: numbers with their errors, out of when requests came and left (load.py)."""

from __future__ import annotations

import numpy as np

from llmsim.metrics.load import Busy, Load, Times
from llmsim.metrics.quantiles import Ints
from llmsim.metrics.timeline import Mask
from llmsim.metrics.usage import Span, busiest, busy_shares, mean_busy, worked_more
from llmsim.units import SECOND

RAMP_LATENCIES, RAMP_SHARE, MAX_RAMP_SHARE = 3, 0.1, 1 / 3
"""Left out as ramp-up, in which the system fills from empty: three mean times in service (an exponential one leaves 5 %
to fill), at least a tenth of the time in which requests came and at most a third."""
GROWTH_BINS = 8
"""Bins whose increments give the error of the growth. Few and long: in a stable queue the increments of long bins
cancel, so that their sum's error is small; while a queue never empties they are independent, however long."""
COUNT_BINS = 20
"""Bins whose counts give the spread of the arrivals, in which clusters of them show."""
WORK_SPREAD = 1.0
"""Squared coefficient of variation of a request's work: an exponential's. Prompt plus output tokens of the shipped
traces have 0.60 (sharegpt4), 0.67 (azure-conv) and 0.94 (azure-code): the error is rather too large."""

Evidence = dict[str, float | int | None]


def evidence_of(load: Load, window: Span, horizon_ns: int | None) -> Evidence:
    """All of it; `window` is from the first arrival to the last and not empty."""
    latency = _time_in_service(load, max(window.end_ns, horizon_ns or 0))
    ramp = min(max(RAMP_LATENCIES * latency, RAMP_SHARE * window.length_ns), MAX_RAMP_SHARE * window.length_ns)
    late = Span(window.start_ns + int(ramp), window.end_ns, window.replicas, window.presence)
    evidence: Evidence = {
        "window_s": window.length_ns / SECOND,
        "latency_s": latency / SECOND,
        "latencies_in_window": window.length_ns / latency if latency else None,
        "late_window_s": late.length_ns / SECOND,
    }
    evidence |= _growth(load.arrivals, load.completions, late, "completion_deficit", "deficit_error")
    evidence |= _growth(load.arrivals, load.starts, late, "start_deficit", "start_deficit_error")
    evidence |= _thirds(load.arrivals, load.completions, window)
    evidence |= {"work_spread": float(np.sqrt(_spread(load.arrivals, late) + WORK_SPREAD))}
    evidence |= _queueing(load.busy, late) | _drain_of_queue(load, window, late, horizon_ns)
    return evidence | _backlog(load.arrivals, load.completions, window, horizon_ns)


def _time_in_service(load: Load, at_least_ns: int) -> float:
    """Mean time from first batch to finish, ns; unfinished ones count to the end of the run. 0 if none began."""
    if not load.starts.count:
        return 0.0
    finished = load.completions.last if load.completions.count else 0
    low, high = load.starts.first, max(finished, load.starts.last, at_least_ns)
    return (load.starts.inside_ns(low, high) - load.completions.inside_ns(low, high)) / load.starts.count


def _growth(arrivals: Times, departures: Times, late: Span, name: str, error_name: str) -> Evidence:
    """How many more requests came in the late window than departed in it (were answered, or left the queue for a first
    batch), as a share of those that came, with its standard error.

    The number that is there is strongly autocorrelated near saturation, so that a slope fitted to it looks significant
    when it is not. Its increments over bins are not; the error is from their spread.
    """
    edges = np.linspace(late.start_ns, late.end_ns, GROWTH_BINS + 1).astype(np.int64)
    came, left = np.diff(arrivals.until(edges)), np.diff(departures.until(edges))
    steps, count = came - left, int(came.sum())
    # 0.25: a count rounded to a whole request is uncertain by half a one even if everything is regular.
    error = float(np.sqrt(max(float(steps.var(ddof=1)), 0.25) * GROWTH_BINS))
    return {
        "late_arrivals": count,
        name: int(steps.sum()) / count if count else None,
        error_name: error / count if count else None,
    }


def _spread(arrivals: Times, late: Span) -> float:
    """Squared coefficient of variation of the gaps between arrivals, or variance over mean of their counts in bins if
    that is more: a Poisson process has 1 of both, clustered arrivals more of the second."""
    edges = np.linspace(late.start_ns, late.end_ns, COUNT_BINS + 1).astype(np.int64)
    counts = np.diff(arrivals.until(edges))
    of_counts = float(counts.var(ddof=1)) / float(counts.mean()) if counts.any() else 0.0
    return max(arrivals.gap_variation(late.start_ns), of_counts)


def _thirds(arrivals: Times, completions: Times, window: Span) -> Evidence:
    """Mean number of outstanding requests in each third of the arrival window."""
    thirds = [_mean_outstanding(arrivals, completions, window, k / 3, (k + 1) / 3) for k in range(3)]
    return {
        "outstanding_first_third": thirds[0],
        "outstanding_middle_third": thirds[1],
        "outstanding_last_third": thirds[2],
    }


def _mean_outstanding(arrivals: Times, completions: Times, window: Span, begin: float, end: float) -> float:
    """Time average over a part of the window: each request counts for as long as it is inside."""
    low = window.start_ns + int(begin * window.length_ns)
    high = window.start_ns + int(end * window.length_ns)
    return float(arrivals.inside_ns(low, high) - completions.inside_ns(low, high)) / max(high - low, 1)


def _queueing(busy: Busy, late: Span) -> Evidence:
    """Busy share, share of busy time with requests queued, and how long the queue stays non-empty."""
    replica, worked, queued, mostly = busy.within(late)
    shares = busy_shares(worked_more(np.zeros(late.replicas), replica, worked), late)
    total = int(worked.sum())
    stretches = _stretches(replica, mostly & (worked > 0), worked)
    weighted = float((stretches.astype(np.float64) ** 2).sum() / stretches.sum()) if len(stretches) else 0.0
    return {
        "busy_share": mean_busy(shares, late),
        "busiest_replica_share": busiest(shares, late),
        "queued_share": float(queued.sum()) / total if total else 0.0,
        "queued_stretch_s": weighted / SECOND,
    }


def _stretches(replica: Ints, queued: Mask, worked: Ints) -> Ints:
    """Busy time of each unbroken run of iterations that left a request queued, per replica, ns."""
    rows = np.flatnonzero(queued)
    if not len(rows):
        return rows
    opens = np.concatenate([[True], (np.diff(rows) > 1) | (np.diff(replica[rows]) != 0)])
    return np.add.reduceat(worked[rows], np.flatnonzero(opens))


def _drain_of_queue(load: Load, window: Span, late: Span, horizon_ns: int | None) -> Evidence:
    """How long after the last arrival requests waited for their first batch, in seconds and of the window.

    If a horizon left some in the queue: until then, or as long as those queued would take at the rate of late starts.
    """
    starts, waiting = load.starts, load.arrivals.count - load.starts.count
    drain = max(starts.last - window.end_ns, 0) if starts.count else 0
    if waiting:
        queued = load.arrivals.count - int(starts.until(window.end_ns))
        began = int(starts.until(late.end_ns) - starts.until(late.start_ns))
        drain = max(drain, (horizon_ns or 0) - window.end_ns, queued * late.length_ns // max(began, 1))
    return {
        "queue_at_last_arrival": load.arrivals.count - int(starts.until(window.end_ns)),
        "queue_drain_s": drain / SECOND,
        "queue_drain_share": drain / window.length_ns,
    }


def _backlog(arrivals: Times, completions: Times, window: Span, horizon_ns: int | None) -> Evidence:
    """What the last arrival left behind, and how long it took to drain (None if it never did)."""
    unfinished = arrivals.count - completions.count
    drain = max(completions.last - window.end_ns, 0) if not unfinished else None
    at_end = arrivals.count - int(completions.until(window.end_ns))
    return {
        "outstanding_at_last_arrival": at_end,
        "drain_s": None if drain is None else drain / SECOND,
        "drain_share": None if drain is None else drain / window.length_ns,
        "unfinished": unfinished,
        "horizon_s": None if horizon_ns is None else horizon_ns / SECOND,
    }
