"""The capacity search of Sarathi-Serve (OSDI'24), step by step.

Source: microsoft/sarathi-serve, sarathi/benchmark/capacity_search/capacity_search.py (`search`). A rate passes if
the median scheduling delay is within 2 s and p99 TBT within its SLO; the saturation verdict plays no part. Low
delays let the search leave its upper end, so that a start far below the capacity still finds it.
"""

from __future__ import annotations

from llmsim.errors import ConfigError
from llmsim.studies.capacity.condition import Condition, parse_condition
from llmsim.studies.capacity.criterion import Criterion
from llmsim.studies.capacity.search import Bracket, Search

DELAY_LIMIT_S = 2.0
MOST_PROBES = 20
GRANULARITY_PERCENT = 2.5
REQUESTS = 2048
"""Requests a probe, where the run says nothing else."""
HOPELESS_DELAY_S = 500.0
DELAY = "median_queue"
NO_FAIL_YET_QPS = float(2**32)
"""The original's lowest failing rate before any has failed."""


def osdi_search(start_qps: float, delay_limit_s: float = DELAY_LIMIT_S) -> Search:
    """At most 20 rates in requests per second, each rounded to 2 decimals; the bracket holds the last that passed.

    Kept as the original does it: the last rate that passed counts, even if a lower one failed, and the halving
    beyond 500 s may put the upper end below the lower. Its branch for delays above 1000 s is never reached, as
    500 s is asked first. Rounding may come to a rate of 0, which cannot be served: there the search ends.
    """
    if not 0.005 < start_qps < NO_FAIL_YET_QPS:
        raise ConfigError(f"start must be a rate of at least 0.01 with the OSDI rule but got {start_qps}")
    return _osdi_search(start_qps, delay_limit_s)


def _osdi_search(start_qps: float, limit: float) -> Search:
    left, right = 0.0, start_qps * 2
    qps = last_qps = 0.0
    keeps: float | None = None
    fails = NO_FAIL_YET_QPS
    for _ in range(MOST_PROBES):
        if abs(left - right) < GRANULARITY_PERCENT * qps / 100:
            break
        qps = round((left + right) / 2, 2)
        if qps in (last_qps, 0.0):
            break
        last_qps = qps
        probe = yield qps
        if probe.delay_s is None:
            break
        if probe.passed:
            right = _raised(right, fails, probe.delay_s, qps, limit)
            keeps = left = qps
        else:
            right = qps / 2 if probe.delay_s > HOPELESS_DELAY_S else qps
            fails = min(fails, qps)
    return Bracket(keeps, None if fails == NO_FAIL_YET_QPS else fails)


def _raised(right: float, lowest_fail: float, delay_s: float, qps: float, limit: float) -> float:
    """The upper end after a pass: further away the lower the delay, never beyond the lowest rate that failed."""
    if delay_s < limit / 8:
        factor = 4
    elif delay_s < limit / 4 or qps > 0.8 * right:
        factor = 2
    else:
        return right
    return min(right * factor, lowest_fail)


def osdi_criterion(lines: list[str]) -> Criterion:
    """The rule's criterion: p99 TBT within the one limit given, median scheduling delay within 2 s (or as given)."""
    given = {condition.name: condition for condition in map(parse_condition, lines)}
    tbt = given.pop("p99_itl", None)
    delay = given.pop(DELAY, None) or parse_condition(f"{DELAY}<={DELAY_LIMIT_S:g}s")
    if tbt is None or tbt.limit is None or given:
        got = ", ".join(lines) or "none"
        raise ConfigError(
            "the OSDI rule keeps p99 TBT and the median scheduling delay and nothing else: give --keep "
            f"'p99_tbt<=200ms' (and --keep 'median_queue<=2s' for another delay); got {got}"
        )
    conditions: tuple[Condition, ...] = (delay, tbt)
    return Criterion(conditions, allow_overload=True)
