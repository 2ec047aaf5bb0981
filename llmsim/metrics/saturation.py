"""Saturation verdict: is the offered load below, near or above what the replicas can serve?

Judged on the later part of the arrival window, after the ramp-up from empty, by what needs no model of the
server: requests that came against requests that were answered, whether the queue ever empties, whether the
device was busy. docs/metrics.md has the thresholds' measured error rates on queues of known load.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from llmsim.metrics.load import EVERYTHING, Busy, Load, Times
from llmsim.metrics.quantiles import Ints
from llmsim.metrics.timeline import Mask
from llmsim.metrics.usage import Presence, Span, busiest, busy_shares, mean_busy, worked_more
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
"""At least a third of the window is kept; where that cuts the ramp-up short, only the queue is judged."""
OVERLOAD_DEFICIT = 0.02
"""Share of the late arrivals left unanswered; at load rho it tends to 1 - 1 / rho."""
OVERLOAD_Z = 2.33
"""Growth in standard errors: at a load of exactly 1 the false alarms of a one-sided test at 1 %."""
SUSPECT_Z = 1.65
OVERLOAD_QUEUED = 0.2
"""An overloaded policy leaves requests queued for at least this share of the busy time ..."""
UNQUEUED_Z = 4.0
"""... unless it admits without limit; then only strong growth counts."""
OVERLOAD_DRAIN = 0.1
"""If what was left at the last arrival took this share of the window, SUSPECT_Z is enough. It is the evidence
where a policy answers short requests first: those come and go, the work of the long ones piles up."""
BUSY_ENOUGH = 0.9
"""A device that idles a tenth of the late window is not short of capacity."""
QUEUED_SHARE = 0.6
"""Share of busy time with a request left queued; in M/D/1 0.56 at load 0.8, 0.87 at 0.95."""
STRETCH_LATENCIES = 3
"""Queued stretches of a few latencies are the scheduler's own batching, not the load."""


Evidence = dict[str, float | int | None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict, one sentence of reason, and the numbers behind it (None: cannot be measured)."""

    verdict: str
    reason: str
    evidence: Evidence

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
    presence: Presence | None = None,
) -> Verdict:
    """Judge a run by its request and iteration tables. Rejected requests load nothing and are left out.

    `presence`: when the replicas were there, if not all the time.
    """
    load = Load(limit=EVERYTHING)
    load.add_requests(requests if "id" in requests else requests.assign(id=range(len(requests))))
    load.busy.add(iterations)
    return judge(load, replicas=replicas, closed_loop=closed_loop, horizon_ns=horizon_ns, presence=presence)


def judge(
    load: Load,
    *,
    replicas: int = 1,
    closed_loop: bool = False,
    horizon_ns: int | None = None,
    presence: Presence | None = None,
) -> Verdict:
    """The verdict on a load, arguments as in `saturation`."""
    if closed_loop:
        return Verdict(CLOSED_LOOP, "arrivals follow completions, so there is no offered load to judge", {})
    arrivals, completions = load.arrivals, load.completions
    if arrivals.count < MIN_ARRIVALS:
        return Verdict(UNDETERMINED, f"{arrivals.count} requests are too few (below {MIN_ARRIVALS})", {})
    window = Span(arrivals.first, arrivals.last, replicas)
    if not window.length_ns:
        return Verdict(UNDETERMINED, "all requests arrive at one instant, so there is no rate to judge", {})
    latency = min(load.early_latency_ns(window.length_ns + 1), window.length_ns)
    wanted = max(int(RAMP_SHARE * window.length_ns), RAMP_LATENCIES * latency)
    ramp = min(wanted, int(MAX_RAMP_SHARE * window.length_ns))
    late = Span(window.start_ns + ramp, window.end_ns, replicas, presence)
    judged = wanted == ramp
    # In a window of few latencies the number in flight grows at any load, but the queue before it need not.
    leaving = completions if judged else load.starts
    evidence: Evidence = {"window_s": window.length_ns / SECOND, "early_latency_s": latency / SECOND}
    evidence |= _flow(arrivals, leaving, late) | _thirds(arrivals, completions, window)
    evidence |= _queueing(load.busy, late) | _backlog(arrivals, completions, window, horizon_ns)
    return _judge(evidence, judged)


def unseen(closed_loop: bool) -> Verdict:
    """The verdict on a server whose batches nobody saw: requests alone do not tell whether it was busy."""
    if closed_loop:
        return Verdict(CLOSED_LOOP, "arrivals follow completions, so there is no offered load to judge", {})
    return Verdict(UNDETERMINED, "the server's batches are not seen, so whether it was busy is not known", {})


def _flow(arrivals: Times, leaving: Times, late: Span) -> Evidence:
    """Requests that came in the late window against those that left."""
    start, end = late.start_ns, late.end_ns
    came = int(arrivals.until(end) - arrivals.until(start))
    left = int(leaving.until(end) - leaving.until(start))
    return {
        "late_window_s": (end - start) / SECOND,
        "late_arrivals": came,
        "late_departures": left,
        "completion_deficit": (came - left) / came if came else None,
        "growth_z": _growth_z(arrivals, leaving, start, end, came),
    }


def _thirds(arrivals: Times, completions: Times, window: Span) -> Evidence:
    """Mean number of outstanding requests in each third of the arrival window."""
    thirds = [_mean_outstanding(arrivals, completions, window, k / 3, (k + 1) / 3) for k in range(3)]
    return {
        "outstanding_first_third": thirds[0],
        "outstanding_middle_third": thirds[1],
        "outstanding_last_third": thirds[2],
    }


def _growth_z(arrivals: Times, leaving: Times, start: int, end: int, came: int) -> float | None:
    """Growth of the outstanding requests over [start, end] in its standard errors.

    The number outstanding is itself strongly autocorrelated near saturation, so a slope fitted to it looks
    significant when it is not. Its increments are not: while the queue never empties they are nearly
    independent, and below saturation they cancel, which only makes the test more careful. So: the sum of the
    increments over bins, against their spread between the bins.
    """
    bins = min(max(came // 10, 5), 40)
    if came < MIN_ARRIVALS or end <= start:
        return None
    edges = np.linspace(start, end, bins + 1).astype(np.int64)
    steps = np.diff(arrivals.until(edges) - leaving.until(edges))
    # 0.25: a count rounded to a whole request is uncertain by half a one even if everything is regular.
    spread = float(np.sqrt(max(float(steps.var(ddof=1)), 0.25) * bins))
    return float(steps.sum()) / spread


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


def _judge(evidence: Evidence, judged: bool) -> Verdict:
    """Overloaded needs a deficit that is large, significant and not the fault of an idle device."""
    deficit, z = evidence["completion_deficit"] or 0.0, evidence["growth_z"] or 0.0
    busy = (evidence["busiest_replica_share"] or 0.0) >= BUSY_ENOUGH
    queued, stretch = evidence["queued_share"] or 0.0, evidence["queued_stretch_s"] or 0.0
    latency = evidence["early_latency_s"] or 0.0
    what = "answered" if judged else "even started"
    behind = f"{deficit:.1%} of the late arrivals were not {what} in that time, {z:.1f} standard errors"
    window = f"{evidence['window_s']:.3g} s of arrivals"
    short = "" if judged else f"; {window} are few latencies ({latency:.3g} s)"
    drain = (evidence["drain_s"] or 0.0) - RAMP_LATENCIES * latency
    remains = drain >= OVERLOAD_DRAIN * (evidence["window_s"] or 0.0)
    grows = z >= (SUSPECT_Z if remains else OVERLOAD_Z) and (queued >= OVERLOAD_QUEUED or z >= UNQUEUED_Z)
    behind += f", and the rest took {evidence['drain_s']:.3g} s more" if remains else ""
    if busy and deficit >= OVERLOAD_DEFICIT and grows:
        return Verdict(OVERLOADED, behind + short, evidence)
    if busy and deficit >= OVERLOAD_DEFICIT and z >= SUSPECT_Z:
        return Verdict(NEAR, f"{behind}: a longer run would tell whether this is overload{short}", evidence)
    if busy and queued >= QUEUED_SHARE and stretch >= STRETCH_LATENCIES * latency:
        reason = f"requests were queued {queued:.0%} of the busy time, {stretch:.3g} s on end"
        return Verdict(NEAR, reason + short, evidence)
    reason = f"requests leave as fast as they come and were queued {queued:.0%} of the busy time"
    return Verdict(STABLE, reason + short, evidence)
