"""The verdict on queues of known load, and where there is nothing to judge."""

from __future__ import annotations

import numpy as np
import pytest

from llmsim.metrics import saturation
from tests.metrics.queues import QUEUES, as_tables, batching, md1, mmk, verdicts

RUNS = 6


@pytest.mark.parametrize("name", QUEUES)
def test_known_loads_get_their_verdict(name: str) -> None:
    assert verdicts(name, 0.5, 1000, RUNS) == {"stable": RUNS}
    assert verdicts(name, 0.8, 1000, RUNS)["stable"] >= RUNS - 2
    close = verdicts(name, 0.95, 1000, RUNS)
    assert not close["overloaded"]
    assert close["near saturation"]
    assert verdicts(name, 1.05, 1000, RUNS)["stable"] == 0
    assert verdicts(name, 1.2, 1000, RUNS)["overloaded"] >= RUNS - 1


def test_light_load_never_looks_overloaded_however_short_the_run() -> None:
    for name in QUEUES:
        for count in (40, 100):
            assert not verdicts(name, 0.5, count, RUNS)["overloaded"]


def test_a_window_of_few_latencies_is_judged_by_its_queue() -> None:
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        assert saturation(*mmk(rng, 10.0, 400, servers=100)).verdict == "overloaded"
        calm = saturation(*mmk(rng, 0.5, 60, servers=100))
        assert calm.verdict == "stable"
        assert "few latencies" in calm.reason


def test_a_horizon_that_cuts_an_overload_leaves_the_verdict() -> None:
    requests, iterations = md1(np.random.default_rng(1), 1.3, 1500)
    horizon = int(requests["arrival_ns"].max())
    requests["status"] = np.where(requests["finish_ns"] > horizon, "unfinished", "finished")
    requests.loc[requests["finish_ns"] > horizon, "finish_ns"] = -1
    verdict = saturation(requests, iterations[iterations["end_ns"] <= horizon], horizon_ns=horizon)
    assert verdict.verdict == "overloaded"
    assert verdict.evidence["drain_s"] is None
    assert verdict.evidence["unfinished"] == (requests["finish_ns"] < 0).sum()


def test_short_requests_first_does_not_hide_an_overload() -> None:
    """Shortest first answers most requests in time; the work of the long ones piles up."""
    rng = np.random.default_rng(3)
    lengths = rng.choice([10, 1000], 1500, p=[0.95, 0.05]) * 10**6
    arrival = np.cumsum(rng.exponential(lengths.mean() / 1.25, 1500)).astype(np.int64)
    start = np.full(1500, -1, dtype=np.int64)
    waiting: list[int] = []
    now, came, rows = 0, 0, []
    while came < 1500 or waiting:
        if not waiting:
            now = max(now, int(arrival[came]))
        while came < 1500 and arrival[came] <= now:
            waiting.append(came)
            came += 1
        at = min(waiting, key=lambda i: (lengths[i], i))
        waiting.remove(at)
        start[at] = now
        rows.append([now, now + int(lengths[at]), len(waiting)])
        now = rows[-1][1]
    verdict = saturation(*as_tables(arrival, start, start + lengths, rows))
    assert verdict.verdict in ("overloaded", "near saturation")


def test_a_burst_that_drains_within_the_run_is_no_overload() -> None:
    requests, _ = md1(np.random.default_rng(5), 0.5, 1200)
    burst = requests["arrival_ns"].to_numpy().copy()
    burst[300:420] = burst[300]
    index, service = np.arange(1200), 10**8
    start = np.maximum.accumulate(burst - index * service) + index * service
    waiting = np.searchsorted(burst, start, "right") - index - 1
    rows = np.stack([start, start + service, waiting], axis=1).tolist()
    assert saturation(*as_tables(burst, start, start + service, rows)).verdict == "stable"


def test_an_idle_device_is_not_short_of_capacity() -> None:
    requests, iterations = batching(np.random.default_rng(2), 0.1, 400)
    verdict = saturation(requests, iterations)
    assert verdict.verdict == "stable"
    assert (verdict.evidence["busy_share"] or 1) < 0.9


def test_one_swamped_replica_among_idle_ones_is_seen() -> None:
    requests, iterations = md1(np.random.default_rng(4), 1.4, 1500)
    assert saturation(requests, iterations, replicas=4).verdict == "overloaded"


def test_no_verdict_where_there_is_no_offered_load() -> None:
    requests, iterations = md1(np.random.default_rng(0), 0.8, 100)
    assert saturation(requests, iterations, closed_loop=True).verdict == "closed loop"
    assert saturation(requests.head(20), iterations).verdict == "undetermined"
    at_once = requests.assign(arrival_ns=0)
    assert "one instant" in saturation(at_once, iterations).reason
    rejected = requests.assign(status="rejected")
    assert saturation(rejected, iterations).verdict == "undetermined"
    assert saturation(requests.iloc[:0], iterations.iloc[:0]).verdict == "undetermined"
