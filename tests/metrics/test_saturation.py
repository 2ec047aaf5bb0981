"""The verdict on queues of known load, on real policies in short runs, and where there is nothing to judge."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from llmsim import load_runs, simulate
from llmsim.metrics import saturation
from llmsim.metrics.saturation import may_last
from tests.metrics.queues import QUEUES, as_tables, batching, md1, mmk, verdicts

RUNS = 6
SHORT = (50, 100, 200)


@pytest.mark.parametrize("name", QUEUES)
def test_known_loads_get_their_verdict(name: str) -> None:
    for load in (0.5, 0.65):
        assert verdicts(name, load, 2000, RUNS) == {"stable": RUNS}
    assert verdicts(name, 0.8, 2000, RUNS)["stable"] >= RUNS - 1
    assert not verdicts(name, 0.95, 2000, RUNS)["overloaded"]
    for load in (1.2, 1.5, 3.0):
        assert verdicts(name, load, 2000, RUNS) == {"overloaded": RUNS}


@pytest.mark.parametrize("name", QUEUES)
def test_short_runs_are_undetermined_rather_than_wrong(name: str) -> None:
    for count in SHORT:
        for load in (0.5, 0.8):
            assert set(verdicts(name, load, count, RUNS)) <= {"stable", "undetermined"}
        for load in (1.2, 1.5, 3.0):
            assert set(verdicts(name, load, count, RUNS)) <= {"overloaded", "undetermined"}


def test_near_saturation_is_what_is_measured_to_be_near() -> None:
    found = sum((verdicts(name, load, 5000, 2) for name in QUEUES for load in (0.95, 1.0)), Counter())
    assert found["near saturation"] > found.total() / 2
    assert not found["overloaded"]


@pytest.mark.parametrize("name", QUEUES)
@pytest.mark.parametrize("load", [0.8, 1.2])
def test_as_many_requests_as_it_asks_for_are_told(name: str, load: float) -> None:
    requests, iterations = QUEUES[name](np.random.default_rng(7), load, 100)
    verdict = saturation(requests, iterations)
    if verdict.verdict == "undetermined":
        needed = verdict.evidence["requests_needed"]
        assert isinstance(needed, int)
        assert 100 < needed < 5000
        assert f"about {needed:,} would" in verdict.reason
        assert verdicts(name, load, 2 * needed, RUNS)["undetermined"] <= 1


def chat(scheduler: str, rate: float, count: int, seed: int = 0) -> dict[str, object]:
    """The verdict on conversations with one A100."""
    workload = {"trace": "sharegpt4", "num_requests": count, "arrivals": {"kind": "poisson", "rate": rate}}
    mapping = {"calibration": "a100/llama-3-8b", "scheduler": scheduler, "workload": workload, "seed": seed}
    return dict(simulate(load_runs(mapping=mapping)[0]).summary["saturation"])


@pytest.mark.parametrize("rate", [4.1, 5.5, 8.2])
@pytest.mark.parametrize("count", [100, 200])
def test_a_few_requests_at_a_multiple_of_the_capacity_are_not_stable(rate: float, count: int) -> None:
    """1.5, 2 and 3 times the fluid bound: the batch has not filled yet when the last request comes."""
    for seed in range(10):
        assert chat("vllm_v1", rate, count, seed)["verdict"] in ("overloaded", "undetermined")


def test_a_run_that_drains_for_half_an_hour_was_overloaded() -> None:
    judged = chat("sarathi,chunk_size=1", 2, 50)
    assert judged["verdict"] == "overloaded"
    assert not may_last(judged)
    assert "after the last arrival" in str(judged["reason"])


def test_a_window_of_few_latencies_is_overloaded_by_its_queue_or_undetermined() -> None:
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        assert saturation(*mmk(rng, 10.0, 400, servers=100)).verdict == "overloaded"
        calm = saturation(*mmk(rng, 0.5, 60, servers=100))
        assert calm.verdict == "undetermined"
        assert "mean times in service" in calm.reason


def test_a_horizon_that_cuts_an_overload_leaves_the_verdict() -> None:
    requests, iterations = md1(np.random.default_rng(1), 1.3, 1500)
    horizon = int(requests["arrival_ns"].max())
    requests["status"] = np.where(requests["finish_ns"] > horizon, "unfinished", "finished")
    requests.loc[requests["finish_ns"] > horizon, "finish_ns"] = -1
    requests.loc[requests["first_scheduled_ns"] > horizon, "first_scheduled_ns"] = -1
    verdict = saturation(requests, iterations[iterations["end_ns"] <= horizon], horizon_ns=horizon)
    assert verdict.verdict == "overloaded"
    assert verdict.evidence["drain_s"] is None
    assert verdict.evidence["unfinished"] == (requests["finish_ns"] < 0).sum()


@pytest.mark.parametrize("seed", range(4))
def test_short_requests_first_does_not_hide_an_overload(seed: int) -> None:
    """Shortest first answers most requests in time; the work of the long ones piles up."""
    rng = np.random.default_rng(seed)
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
    assert saturation(*as_tables(arrival, start, start + lengths, rows)).verdict == "overloaded"


def test_a_burst_that_drains_within_the_run_is_no_overload() -> None:
    requests, _ = md1(np.random.default_rng(5), 0.5, 1200)
    burst = requests["arrival_ns"].to_numpy().copy()
    burst[300:420] = burst[300]
    index, service = np.arange(1200), 10**8
    start = np.maximum.accumulate(burst - index * service) + index * service
    waiting = np.searchsorted(burst, start, "right") - index - 1
    rows = np.stack([start, start + service, waiting], axis=1).tolist()
    assert saturation(*as_tables(burst, start, start + service, rows)).verdict == "stable"


def test_a_replica_that_idles_is_not_short_of_capacity() -> None:
    requests, iterations = batching(np.random.default_rng(2), 0.1, 400)
    verdict = saturation(requests, iterations)
    assert verdict.verdict == "stable"
    assert (verdict.evidence["busy_share"] or 1) < 0.9
    few = saturation(*md1(np.random.default_rng(2), 0.2, 100))
    assert few.verdict == "stable"


def test_one_swamped_replica_among_idle_ones_is_seen() -> None:
    requests, iterations = md1(np.random.default_rng(4), 1.4, 1500)
    assert saturation(requests, iterations, replicas=4).verdict == "overloaded"


def test_no_verdict_where_there_is_no_offered_load() -> None:
    requests, iterations = md1(np.random.default_rng(0), 0.8, 100)
    assert saturation(requests, iterations, closed_loop=True).verdict == "closed loop"
    few = saturation(requests.head(20), iterations)
    assert few.verdict == "undetermined"
    assert "20 requests are too few" in few.reason
    at_once = requests.assign(arrival_ns=0)
    assert "one instant" in saturation(at_once, iterations).reason
    rejected = requests.assign(status="rejected")
    assert saturation(rejected, iterations).verdict == "undetermined"
    assert saturation(requests.iloc[:0], iterations.iloc[:0]).verdict == "undetermined"
