"""Saturation verdict: is the offered load below, near or above what the replicas can serve, or was the run too short?

A load of rho > 1 leaves 1 - 1 / rho of the arrivals unanswered while they keep coming, and the last of them to wait
rho - 1 times as long as they came. Both are measured and held against their statistical error: a verdict needs what it
says to be beyond that error, and where neither an overload nor its absence is, the run was too short. No model of the
server is needed. docs/metrics.md has the rule in words and its errors (experiments/09_load_verdict.py measures them).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from llmsim.metrics.load import EVERYTHING, Load
from llmsim.metrics.load_evidence import Evidence, evidence_of
from llmsim.metrics.usage import Presence, Span

STABLE, NEAR, OVERLOADED = "stable", "near saturation", "overloaded"
CLOSED_LOOP, UNDETERMINED = "closed loop", "undetermined"

MIN_ARRIVALS = 30
"""Fewer are in no normal approximation: the relative error of a Poisson count of 30 is 18 %."""
NEAR_LOAD, SURE_LOAD = 1.1, 1.2
"""Loads from 0.9 to 1.1 are near. A run is stable only if 1.1 is ruled out at 5 % and 1.2 at 0.1 %."""
Z_NEAR, Z_SURE, Z_OVERLOAD = 1.645, 3.09, 2.33
"""Quantiles of the normal distribution: one-sided 5 %, 0.1 % and 1 %."""
T_NEAR, T_SURE, T_OVERLOAD = 1.895, 4.785, 2.998
"""The same of Student's t with 7 degrees of freedom: the error of a growth is taken from 8 bins."""
LATENCIES = 4.5
"""The arrivals must last so many mean times in service, of which 1.5 are left out at least: a system that fills from
empty looks like one that grows."""
LEAST_DEFICIT = 0.02
"""Below, a growth is of no interest, however significant."""
QUEUED_SHARE, STRETCH_LATENCIES = 0.9, 3
"""Near: queued for this share of the busy time, in stretches of so many times in service. M/D/1 is queued 0.56 of it at
load 0.8 and 0.87 at 0.95; shorter stretches are a scheduler's own batching."""
IDLE_ENOUGH = 0.98
"""A replica that idles less tells nothing: there are gaps at the edges of any window."""


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
    load.add_requests(requests)
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
    if load.arrivals.count < 2:
        return Verdict(UNDETERMINED, f"{load.arrivals.count} requests have no rate to judge", {})
    window = Span(load.arrivals.first, load.arrivals.last, replicas, presence)
    if not window.length_ns:
        return Verdict(UNDETERMINED, "all requests arrive at one instant, so there is no rate to judge", {})
    evidence = evidence_of(load, window, horizon_ns)
    return _judge(_Found(load.arrivals.count, replicas, evidence), evidence)


def unseen(closed_loop: bool) -> Verdict:
    """The verdict on a server whose batches nobody saw: requests alone do not tell whether it was busy."""
    if closed_loop:
        return Verdict(CLOSED_LOOP, "arrivals follow completions, so there is no offered load to judge", {})
    return Verdict(UNDETERMINED, "the server's batches are not seen, so whether it was busy is not known", {})


def may_last(saturation: Mapping[str, Any]) -> bool:
    """Whether a load may be taken for one that the replicas can go on serving, by this part of a summary.

    Not an overload; and where the run was too short to tell, it must not look like a load of 1.1 or more: neither by
    the queue, nor by the requests left unanswered, at a level of 5 %, unless they came in so few times in service that
    most had to be.
    """
    if saturation["verdict"] != UNDETERMINED:
        return bool(saturation["verdict"] != OVERLOADED)
    found = saturation.get("evidence", {})
    told = (found.get("latencies_in_window") or 0.0) >= LATENCIES
    deficit, drain = found.get("completion_deficit") or 0.0, found.get("queue_drain_share") or 0.0
    least = max(deficit_of(NEAR_LOAD), T_NEAR * (found.get("deficit_error") or 0.0))
    return bool(drain < NEAR_LOAD - 1 and not (told and deficit >= least))


def deficit_of(load: float) -> float:
    """Share of the arrivals that a load above 1 leaves unanswered."""
    return 1 - 1 / load


class _Found:
    """The evidence as the tests see it: estimates and their errors."""

    def __init__(self, count: int, replicas: int, evidence: Evidence) -> None:
        def of(name: str) -> float:
            return float(evidence[name] or 0.0)

        self.count = count
        self.late = max(int(of("late_arrivals")), 1)
        self.deficit, self.error = of("completion_deficit"), of("deficit_error")
        self.start_deficit, self.start_error = of("start_deficit"), of("start_deficit_error")
        self.chance = of("work_spread") / math.sqrt(self.late)  # of the load itself, by chance arrivals and work
        self.of_replica = self.chance * math.sqrt(replicas)
        self.latencies, self.latency = of("latencies_in_window"), of("latency_s")
        self.drain, self.drain_share = of("queue_drain_s"), of("queue_drain_share")
        self.drain_error = of("work_spread") / math.sqrt(count)
        self.still_grows = of("outstanding_last_third") > of("outstanding_middle_third")
        self.busiest = evidence["busiest_replica_share"]
        self.queued, self.stretch = of("queued_share"), of("queued_stretch_s")

    @property
    def long_enough(self) -> bool:
        return self.latencies >= LATENCIES

    @property
    def queue_piles_up(self) -> bool:
        """The queue at the last arrival took longer to start than chance and a server's own batching explain.

        A static batch keeps requests waiting for up to one time in service: so little tells only of a queue that grew.
        """
        grew = self.start_deficit >= max(LEAST_DEFICIT, T_NEAR * self.start_error)
        return self.drain_share >= Z_OVERLOAD * self.drain_error and (grew or self.drain >= self.latency)

    @property
    def grows(self) -> bool:
        """What is outstanding grows, and goes on growing in the last third."""
        significant = self.deficit >= max(LEAST_DEFICIT, T_OVERLOAD * self.error)
        return self.long_enough and significant and self.still_grows and not self.idles

    @property
    def errors(self) -> tuple[float, float]:
        """Errors of the deficit at 5 % and 0.1 %, as shares of the deficits of a load of 1.1 and of 1.2.

        They are what the bins say, which is little where a queue comes back again and again, or what chance arrivals
        and work explain, which is all there is while it does not.
        """
        near = min(T_NEAR * self.error, Z_NEAR * self.chance) / deficit_of(NEAR_LOAD)
        return near, min(T_SURE * self.error, Z_SURE * self.chance) / deficit_of(SURE_LOAD)

    @property
    def overload_ruled_out(self) -> bool:
        """A load of 1.1 or more would have shown. A queue that shrinks is chance, and no proof of capacity."""
        deficit, (near, sure) = max(self.deficit, 0.0), self.errors
        shown = deficit / deficit_of(NEAR_LOAD) + near >= 1 or deficit / deficit_of(SURE_LOAD) + sure >= 1
        return self.long_enough and self.drain_share < NEAR_LOAD - 1 and not shown

    @property
    def idles(self) -> bool:
        """The busiest replica idled for more of the time than chance would let a load of 1.1 or 1.2 idle."""
        if self.busiest is None or self.drain_share >= NEAR_LOAD - 1:
            return False
        near, sure = 1 - Z_NEAR * self.of_replica, 1 - Z_SURE * self.of_replica
        return bool(self.busiest < min(NEAR_LOAD * near, SURE_LOAD * sure, IDLE_ENOUGH))

    def needed(self) -> int:
        """Requests that would tell, rounded up: errors shrink with the root of their number.

        In few times in service next to nothing leaves, so that only chance arrivals and work say how large they are.
        """
        by_time = LATENCIES / self.latencies if self.latencies else 1.0
        by_chance = max(Z_NEAR / deficit_of(NEAR_LOAD), Z_SURE / deficit_of(SURE_LOAD)) * self.chance
        likely = self.deficit >= max(LEAST_DEFICIT, Z_NEAR * self.error)
        told = T_OVERLOAD * self.error / self.deficit if likely else max(self.errors)
        by_error = (told if self.long_enough else by_chance) ** 2
        more = max(by_time, by_error)
        wanted = max(self.count * (more if more > 1 else 2), MIN_ARRIVALS)
        unit = 10 ** max(math.floor(math.log10(wanted)) - 1, 0)  # two digits
        return int(math.ceil(wanted / unit) * unit)


def _seconds(value: float) -> str:
    return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"


def _judge(found: _Found, evidence: Evidence) -> Verdict:
    deficit = f"{found.deficit:.1%} ± {found.error:.1%} of the late arrivals were not answered in that time"
    queued = f"requests were queued {found.queued:.0%} of the busy time"
    enough = found.count >= MIN_ARRIVALS
    if enough and found.queue_piles_up:
        share = found.drain_share
        times = f"{share:.0%} of the time that they came" if share < 2 else f"{share:.0f} times as long as they came"
        reason = f"requests were queued until {_seconds(found.drain)} after the last arrival, {times}"
        return Verdict(OVERLOADED, reason, evidence)
    if enough and found.grows:
        return Verdict(OVERLOADED, deficit, evidence)
    if enough and found.overload_ruled_out:
        if found.queued >= QUEUED_SHARE and found.stretch >= STRETCH_LATENCIES * found.latency:
            return Verdict(NEAR, f"{queued}, {_seconds(found.stretch)} on end", evidence)
        if found.deficit >= max(LEAST_DEFICIT, Z_NEAR * found.error):
            return Verdict(NEAR, deficit, evidence)
        return Verdict(STABLE, f"requests leave as fast as they come ({deficit}); {queued}", evidence)
    if enough and found.idles:
        return Verdict(STABLE, f"the busiest replica worked {found.busiest:.0%} of the time; {queued}", evidence)
    needed = found.needed()
    evidence = evidence | {"requests_needed": needed}
    short = f"they came for {found.latencies:.2g} mean times in service ({_seconds(found.latency)})"
    why = deficit if found.long_enough else short
    return Verdict(UNDETERMINED, f"{found.count} requests are too few to tell, about {needed:,} would: {why}", evidence)
