"""Percentiles that are asked for: in the summary, of classes and models, streamed too; a default run is as ever."""

from __future__ import annotations

import json

import numpy as np
import pytest

from llmsim import load_runs, simulate, simulate_stream
from llmsim.errors import ConfigError
from llmsim.metrics.summary import PERCENTILES


def spec(**more):
    classes = [{"name": "paying", "share": 0.3, "ttft_s": 1.0, "tbt_s": 0.1}, {"name": "free", "share": 0.7}]
    workload = {
        "trace": "sharegpt4",
        "num_requests": 150,
        "arrivals": {"kind": "poisson", "rate": 1.5},
        "classes": classes,
    }
    return load_runs(mapping={"calibration": "a100/llama-3-8b", "workload": workload, **more})[0]


def test_what_is_asked_for_comes_besides_the_rest():
    asked = [50, 95, 97.5]
    result, plain = simulate(spec(percentiles=asked)), simulate(spec()).summary
    summary = result.summary
    assert summary["percentiles"] == [50.0, 95.0, 97.5]
    ttft_ms = (result.requests["first_token_ns"] - result.requests["arrival_ns"]) / 1e6
    for point in (*PERCENTILES, *asked):
        assert summary[f"p{point:g}_ttft_ms"] == pytest.approx(np.percentile(ttft_ms, point), abs=1e-6)
    paying = summary["slo"]["classes"]["paying"]
    of_class = ttft_ms[result.requests["slo_class"] == "paying"]
    assert paying["p95_ttft_ms"] == pytest.approx(np.percentile(of_class, 95), abs=1e-6)
    assert paying["p99_itl_ms"] > paying["p95_itl_ms"] > 0
    more = {key for key in summary if key not in plain}
    assert more == {"percentiles", *(key for key in summary if key.startswith("p97.5_"))}
    assert all(summary[key] == value for key, value in plain.items() if key.startswith(("p", "m")) and key != "slo")


def test_a_streamed_run_says_the_same():
    asked = spec(percentiles=[50, 95, 97.5], warmup_s=5, horizon_s=60)
    assert json.dumps(simulate_stream(asked).summary) == json.dumps(simulate(asked).summary)


@pytest.mark.parametrize(
    ("wrong", "said"), [([101], "101"), ([-1, 50], "-1"), ([50, 95, 50], "50 twice"), ([], "none"), (["x"], "x")]
)
def test_what_is_no_percentile_is_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        spec(percentiles=wrong)
