"""How far off, and why: worlds whose truth is known."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from llmsim.core.batch import Work
from llmsim.costs.linear import Linear
from llmsim.errors import ConfigError
from llmsim.runs.simulation import simulate
from llmsim.validation.compare import compare
from llmsim.validation.decompose import CAUSES, first_difference, request_parts
from llmsim.validation.speed import PacedExecutor, as_probed, constant, simulate_at
from llmsim.validation.text import comparison_text, loads_text
from llmsim.validation.tolerance import parse_tolerance, violations
from tests.validation.worlds import calibration, comparison, live_run, run_spec

METRICS = ("ttft", "tpot", "e2el")


def test_a_perfect_device_leaves_no_error():
    found = comparison()
    assert found.replay == "identical"
    for line in found.errors:
        assert line.error_pct in (None, pytest.approx(0, abs=1e-3)), line
    # Whole nanoseconds against exact prices: half a nanosecond an iteration is all that is left.
    assert found.causes[[f"{cause}_ms" for cause in CAUSES]].abs().max(axis=None) < 1e-3
    assert found.iterations.bias_pct == pytest.approx(0, abs=1e-3)


def test_a_slow_device_is_found_in_the_batch_times():
    found = comparison(bias=1.03)
    assert found.iterations.bias_pct == pytest.approx(100 * (1 / 1.03 - 1), abs=0.01)
    assert found.iterations.forward_ratio == pytest.approx(1.03, abs=1e-6)
    assert (found.causes["batch_time_ms"] < 0).all()
    assert found.causes["host_overhead_ms"].abs().max() < 1e-3
    unbiased = found.counterfactuals[-1].errors
    for metric in METRICS:
        assert found.errors.error(metric, "mean") < -2
        assert unbiased.error(metric, "mean") == pytest.approx(0, abs=0.05)


def test_a_slow_host_is_found_in_the_host_overhead():
    found = comparison(host_s=0.003)
    assert found.iterations.bias_pct == pytest.approx(0, abs=1e-3)
    assert found.iterations.host()["median_us"] == pytest.approx(3000, abs=1)
    assert found.iterations.host()["model_us"] == pytest.approx(1000, abs=1)
    assert (found.causes["host_overhead_ms"] < 0).all()
    assert found.causes["batch_time_ms"].abs().max() < 1e-3


@pytest.mark.parametrize("world", [{"bias": 1.05}, {"scatter": 0.1, "seed": 3}, {"host_s": 0.004, "bias": 0.97}])
def test_the_causes_add_up_to_the_error_of_every_request(world):
    found = comparison(**world)
    for metric in METRICS:
        parts = request_parts(found.live, found.simulated, found.iterations, metric)
        error = parts["simulated"] - parts["live"]
        assert (parts[list(CAUSES)].sum(axis="columns") - error).abs().max() < 1e-12
    rows = found.causes
    assert (rows[[f"{cause}_ms" for cause in CAUSES]].sum(axis="columns") - rows["error_ms"]).abs().max() < 1e-9


def test_queues_amplify_a_bias_near_saturation():
    def amplification(rate):
        causes = comparison(run_spec(rate=rate, count=300), bias=1.02).causes.set_index(["metric", "requests"])
        row = causes.loc[("ttft", "all")]
        return row["queue_amplification_ms"] / row["live_ms"]

    assert amplification(8.5) < 5 * amplification(2.0) < 0  # both are delays that the simulation misses


def test_the_speed_that_was_found_is_a_counterfactual():
    found = comparison(bias=1.04, drift=1.04)
    assert found.at_found_speed.error("e2el", "mean") == pytest.approx(0, abs=0.05)
    assert comparison(bias=1.04).at_found_speed is None


def test_different_requests_are_not_compared():
    one, other = simulate(run_spec(count=30)), simulate(run_spec(count=40))
    words = r"30 live and 40 simulated, of which 10 .*ids 30, 31, 32 in the simulated run"
    with pytest.raises(ConfigError, match=words):
        compare(one, other)
    later = simulate(run_spec(count=30, rate=3.0))
    with pytest.raises(ConfigError, match="request 0 differs between the runs: arrival_ns"):
        compare(one, later)


def test_a_replay_that_parts_is_located():
    live = live_run(run_spec(count=30), bias=1.01)
    again = live_run(run_spec(count=30), bias=1.01)
    assert first_difference(live.composition, again.composition, live.result, again.result) is None
    other = live.composition.copy()
    other.loc[other.index[50], "tokens"] += 1
    words = first_difference(live.composition, other, live.result, again.result)
    assert words == f"the replay's batches part from the live run's at iteration {other['iteration'].iloc[50]}"
    shorter = live.composition.iloc[:-3]
    assert "at iteration" in first_difference(live.composition, shorter, live.result, again.result)
    again.result.requests.loc[4, "finish_ns"] += 1
    words = first_difference(live.composition, again.composition, live.result, again.result)
    assert words == "the replay's finish_ns differs for request 4"


def test_tolerances_are_read_and_held():
    limits = parse_tolerance("mean:1 p99:10%, ttft.p50:100")
    assert [tuple(limit) for limit in limits] == [(None, "mean", 1.0), (None, "p99", 10.0), ("ttft", "p50", 100.0)]
    lines = violations(comparison(bias=1.03).errors, limits)
    assert len(lines) == 3
    assert lines[0].startswith("mean TTFT is off by -")
    assert not violations(comparison().errors, parse_tolerance("mean:0.01 p50:0.01 p90:0.01 p99:0.01 itl.p99:0.01"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("mean", "needs a colon"),
        ("men:5", "Did you mean 'mean'"),
        ("tfft.p50:5", "Did you mean 'ttft'"),
        ("p50:-1", "at least 0"),
        ("p50:x", "percentage"),
        ("p50:inf", "percentage"),
    ],
)
def test_a_tolerance_that_cannot_be_read_says_why(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_tolerance(text)


def test_a_device_of_another_speed_is_priced_as_probed():
    model = Linear(constant=5e-3, per_token=1e-5)
    work = Work(decode_tokens=3, decode_context=1000)
    whole = model.seconds(work) * 1e9
    assert PacedExecutor(model, constant(1.5), 0.001).execute(work, 100, 9) == (100 + round(1.5 * whole) + 10**6,)
    probes = pd.DataFrame({"at_ns": range(0, 2000, 100), "ratio": [1.0] * 10 + [2.0] * 10})
    speed = as_probed(probes)
    assert (speed(0), speed(300), speed(1900), speed(10**9)) == (1.0, 1.0, 2.0, 2.0)
    assert as_probed(probes.assign(ratio=[1.0] * 19 + [50.0]))(1000) == 1.0  # a single slow probe says nothing


def test_a_speed_that_changes_during_the_run_is_followed():
    spec = run_spec(count=200)
    live = live_run(spec, bias=1.0)
    half = int(live.result.iterations["end_ns"].iloc[-1]) // 2
    slow = simulate_at(spec, lambda now: 1.0 if now < half else 1.2)
    probes = pd.DataFrame({"at_ns": np.linspace(0, 2 * half, 200).astype(int)})
    probes["ratio"] = np.where(probes["at_ns"] < half, 1.0, 1.2)
    followed = compare(slow, simulate_at(spec, as_probed(probes)))
    mean_only = compare(slow, simulate_at(spec, constant(1.1)))
    for metric in METRICS:
        assert abs(followed.error(metric, "p99")) < 1
    assert abs(mean_only.error("tpot", "p99")) > 3


def test_the_text_and_json_hold_the_figures():
    found = comparison(bias=1.03, drift=1.02)
    text = comparison_text(found) + "\n" + loads_text([found])
    for words in ("TTFT ms", "queues", "host overhead", "identical", "a note", "batch times x 1.030", "x 1.020"):
        assert words in text
    held = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert held["replay"] == "identical"
    assert held["iterations"]["bias_pct"] == found.iterations.bias_pct


def test_the_calibration_of_the_world_has_the_runs_host_overhead():
    assert calibration().host_overhead.seconds == 0.001
