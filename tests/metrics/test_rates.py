"""Rates of a window: tokens when they are emitted, requests where they finish, one denominator for all of them."""

from __future__ import annotations

import numpy as np
import pytest

from llmsim import load_runs, simulate
from llmsim.metrics import parse_slo, summarize, summarize_measured
from tests.metrics import reference

SLO = parse_slo("ttft:20 e2el:60")
WARM_UPS = (0.0, 0.03, 0.1)


def times(run: reference.Tables) -> np.ndarray:
    """When each token of the run was emitted, ns."""
    return np.array([ns for of_request in run.token_ns for ns in of_request], dtype=np.int64)


@pytest.mark.parametrize("warmup_s", WARM_UPS)
@pytest.mark.parametrize("seed", range(4))
def test_tokens_count_in_the_window_in_which_they_are_emitted(seed: int, warmup_s: float) -> None:
    run = reference.run(seed, count=60, max_iterations=60 if seed % 2 else 10**6)
    summary = summarize(*run.tables, replicas=2, warmup_s=warmup_s)
    start = round(warmup_s * 1e9)
    inside = int((times(run) >= start).sum())
    assert summary["total_output_tokens"] == inside
    assert summary["output_throughput"] == pytest.approx(inside / summary["duration_s"])
    begun = (run.requests["first_token_ns"] >= max(start, 0)).to_numpy()
    assert summary["total_input_tokens"] == run.requests["prompt_tokens"][begun].sum()


@pytest.mark.parametrize("seed", range(4))
def test_windows_side_by_side_add_up(seed: int) -> None:
    """A window that begins later loses exactly the tokens and the requests of the time between."""
    run = reference.run(seed, count=60)
    whole, late = (summarize(*run.tables, replicas=2, warmup_s=at) for at in (0, 0.1))
    between = times(run) < 10**8
    assert whole["total_output_tokens"] - late["total_output_tokens"] == between.sum()
    finish = run.requests["finish_ns"][run.requests["status"] == "finished"]
    finished = [s["request_throughput"] * s["duration_s"] for s in (whole, late)]
    assert finished[0] - finished[1] == pytest.approx((finish < 10**8).sum())


@pytest.mark.parametrize("warmup_s", WARM_UPS)
@pytest.mark.parametrize("seed", range(4))
def test_goodput_over_throughput_is_attainment(seed: int, warmup_s: float) -> None:
    run = reference.run(seed, count=60, rejected=0)
    summary = summarize(*run.tables, replicas=2, slo=SLO, warmup_s=warmup_s)
    ratio = summary["request_goodput"] / summary["request_throughput"]
    assert 0 < ratio < 1
    assert summary["slo"]["attainment"] == summary["slo"]["attainment_of_completed"] == pytest.approx(ratio)
    for report in summary["slo"]["classes"].values():
        assert report["request_goodput"] / report["request_throughput"] == pytest.approx(report["attainment"])


@pytest.mark.parametrize("warmup_s", WARM_UPS)
@pytest.mark.parametrize("seed", range(4))
def test_the_lost_have_missed_and_are_shown_apart(seed: int, warmup_s: float) -> None:
    run = reference.run(seed, count=80, rejected=5, max_iterations=90)
    summary = summarize(*run.tables, replicas=2, slo=SLO, warmup_s=warmup_s)
    report, start = summary["slo"], round(warmup_s * 1e9)
    status, arrived = run.requests["status"], run.requests["arrival_ns"]
    assert report["unfinished"] == (status == "unfinished").sum() > 0
    assert report["rejected"] == ((status == "rejected") & (arrived >= start)).sum()
    assert report["failed"] == 0
    assert report["completed"] == pytest.approx(summary["request_throughput"] * summary["duration_s"])
    assert report["sent"] == report["completed"] + report["unfinished"] + report["rejected"]
    assert report["attainment"] == pytest.approx(report["met"] / report["sent"])
    ratio = summary["request_goodput"] / summary["request_throughput"]
    assert report["attainment_of_completed"] == pytest.approx(ratio)
    assert report["attainment"] < ratio
    parts = list(report["classes"].values())
    for key in ("sent", "completed", "unfinished", "rejected", "met"):
        assert sum(part[key] for part in parts) == report[key]


def test_offered_and_served_rate_leave_the_drain_out() -> None:
    run = reference.run(5, count=40, rejected=2)
    summary = summarize(*run.tables, replicas=2)
    arrived = np.sort(run.requests["arrival_ns"].to_numpy())
    coming = (arrived[-1] - arrived[0]) / 1e9
    assert summary["offered_rate"] == pytest.approx((arrived > arrived[0]).sum() / coming)
    finish = run.requests["finish_ns"]
    assert summary["served_rate"] == pytest.approx(((finish > arrived[0]) & (finish <= arrived[-1])).sum() / coming)
    at_once = run.requests.assign(arrival_ns=0)
    assert summarize(at_once, *run.tables[1:], replicas=2)["offered_rate"] is None


def test_events_of_a_server_that_carry_several_tokens_share_them() -> None:
    run = reference.run(6, count=30, replicas=1)
    ids = run.requests["id"].to_numpy()
    rows = [(i, ns) for i, of in zip(ids, run.token_ns, strict=True) for ns in of]
    events = reference.table([list(row) for row in rows], ["id", "time_ns"])
    requests = run.requests.assign(generated=3 * run.requests["generated"])
    late = summarize_measured(requests, events, warmup_s=0.1)
    assert late["total_output_tokens"] == 3 * (times(run) >= 10**8).sum()


@pytest.mark.parametrize("policy", ["vllm_v1", "sarathi", "niyama", "dynamic"])
def test_the_mean_queue_is_the_rate_times_the_mean_wait(policy: str) -> None:
    """Little's law, to the last digit: the queue is empty before the first request and after the last."""
    mapping = {
        "calibration": "a100/llama-3-8b",
        "scheduler": policy,
        "workload": {"trace": "sharegpt4", "num_requests": 200, "arrivals": {"kind": "poisson", "rate": 1.0}},
    }
    summary = simulate(load_runs(mapping=mapping)[0]).summary
    wait_s = summary["mean_queue_ms"] / 1e3
    assert summary["batches"]["mean_waiting"] == pytest.approx(summary["request_throughput"] * wait_s, rel=1e-6)
    assert wait_s > 0
