"""engine.enable_prefix_caching: what a run says of it, and what stays as it was without it."""

from __future__ import annotations

import numpy as np
import pytest

import llmsim
from llmsim.core.content import Content
from llmsim.errors import ConfigError
from llmsim.runs.simulation import simulate
from llmsim.traces.workload import Workload

SYSTEM = ("system", 160)


def spec(**engine):
    lengths = {"kind": "synthetic", "prompt": {"value": 200}, "output": {"value": 8}}
    workload = {"lengths": lengths, "num_requests": 6, "arrivals": {"kind": "poisson", "rate": 0.5}}
    run = {"workload": workload, "calibration": "amd-epyc/tiny", "scheduler": "vllm_v1", "engine": engine}
    return llmsim.load_runs(mapping=run)[0]


def chat(turns: int = 6) -> Workload:
    """Requests one after the other that share a system prompt of ten blocks."""
    contents = [Content((SYSTEM, (f"user {i}", 40)), f"answer {i}") for i in range(turns)]
    column = lambda value: np.full(turns, value, dtype=np.int64)  # noqa: E731
    return Workload(np.arange(turns) * 10**10, column(200), column(8), column(0), contents=contents)


def test_tokens_and_requests_that_hit_are_counted():
    result = simulate(spec(enable_prefix_caching=True), workload=chat())
    assert result.requests["cached_tokens"].tolist() == [0, 160, 160, 160, 160, 160]
    assert result.summary["prefix_cache"] == {
        "prompt_tokens": 1200,
        "cached_tokens": 800,
        "token_hit_rate": pytest.approx(800 / 1200),
        "requests": 6,
        "requests_with_hit": 5,
        "request_hit_rate": pytest.approx(5 / 6),
    }
    prefills = result.iterations["prefill_tokens"]
    assert prefills[prefills > 0].tolist() == [200, 40, 40, 40, 40, 40]


def test_without_it_nothing_is_said_and_nothing_is_found():
    for engine in ({}, {"enable_prefix_caching": False}):
        result = simulate(spec(**engine), workload=chat())
        assert "prefix_cache" not in result.summary
        assert "cached_tokens" not in result.requests
        assert set(result.iterations["prefill_tokens"]) == {0, 200}


@pytest.mark.parametrize("scheduler", ["vllm_v1", "sarathi", "vllm_v0", "rad"])
def test_what_shares_nothing_runs_as_without_a_cache(scheduler):
    with_cache, without = (
        simulate(spec(enable_prefix_caching=caching).replace(scheduler=scheduler)) for caching in (True, False)
    )
    assert with_cache.summary.pop("prefix_cache")["cached_tokens"] == 0
    assert with_cache.summary == without.summary
    assert with_cache.iterations.equals(without.iterations)


def test_a_streamed_run_says_the_same(tmp_path):
    run = spec(enable_prefix_caching=True)
    streamed = llmsim.simulate_stream(run, tmp_path / "out")
    assert streamed.summary == simulate(run).summary
    assert streamed.summary["prefix_cache"]["requests"] == 6


def test_a_policy_that_looks_for_no_prefix_says_so():
    with pytest.raises(ConfigError, match="Orca does not look for prefixes"):
        simulate(spec(enable_prefix_caching=True).replace(scheduler="orca"))


def test_tables_and_summary_are_the_same_step_by_step():
    run = spec(enable_prefix_caching=True, num_blocks=40, async_scheduling=True)
    macro, single = (simulate(run.replace(step_by_step=steps), workload=chat(12)) for steps in (False, True))
    assert macro.summary == single.summary
    assert macro.iterations.equals(single.iterations)
