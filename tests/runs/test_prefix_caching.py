"""engine.enable_prefix_caching: what a run says of it, and what stays as it was without it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import llmsim
from llmsim.cli import app
from llmsim.core.content import Content
from llmsim.errors import ConfigError, LlmsimError
from llmsim.runs.simulation import simulate
from llmsim.studies.capacity.bound import fluid_bound_rps
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
    assert "nothing of what requests share" in with_cache.summary["notes"].pop()
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


def write_trace(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def conversation(turns: int = 5) -> list[dict]:
    """Each turn has the whole blocks of the one before, and two more; the last block is partial and has an id."""
    rows, ids = [], [0, 1]
    for turn in range(turns):
        ids = [*ids, 10 * turn + 100, 10 * turn + 101]
        row = {"timestamp": turn * 8000, "input_length": 64 * len(ids) + 30, "output_length": 6}
        rows.append(row | {"hash_ids": [*ids, 10 * turn + 109]})
    return rows


def traced(path, **changes):
    workload = {"trace": str(path), "hash_block_size": 64} | changes
    engine = {"enable_prefix_caching": True}
    run = {"workload": workload, "calibration": "amd-epyc/tiny", "scheduler": "vllm_v1", "engine": engine}
    return llmsim.load_runs(mapping=run)[0]


def test_hash_ids_of_a_trace_are_found_in_memory_and_streamed(tmp_path):
    run = traced(write_trace(tmp_path / "chat.jsonl", conversation()))
    result = simulate(run)
    assert result.requests["cached_tokens"].tolist() == [0, 256, 384, 512, 640]
    assert result.summary["notes"] == []
    assert llmsim.simulate_stream(run, tmp_path / "out").summary == result.summary


def test_shortened_prompts_share_what_is_left_of_them(tmp_path):
    run = traced(write_trace(tmp_path / "chat.jsonl", conversation()), on_long="clip")
    run = run.replace(engine=replace(run.engine, max_model_len=500))
    cached, prompts = (simulate(run).requests[name].tolist() for name in ("cached_tokens", "prompt_tokens"))
    assert prompts[-1] < 500
    assert cached[-1] == (prompts[-1] - 1) // 16 * 16  # all of it was in the prompt before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hash_block_size": 16}, "is the block size right?"),
        (
            {"hash_block_size": 64, "lengths": {"kind": "resampled"}},
            "workload.hash_block_size is for requests that are",
        ),
        ({"hash_block_size": 0}, "workload.hash_block_size must be a whole number"),
    ],
)
def test_ids_that_cannot_be_used_are_an_error(changes, said, tmp_path):
    path = write_trace(tmp_path / "chat.jsonl", conversation())
    for serve in (simulate, lambda run: llmsim.simulate_stream(run, tmp_path / "out")):
        with pytest.raises(LlmsimError) as refused:
            serve(traced(path, **changes))
        assert said in str(refused.value)


def test_a_trace_without_ids_and_odd_block_sizes_are_errors(tmp_path):
    rows = [{name: value for name, value in row.items() if name != "hash_ids"} for row in conversation()]
    path = tmp_path / "plain.csv"
    pd.DataFrame(rows).drop(columns="timestamp").rename(
        columns={"input_length": "num_prefill_tokens", "output_length": "num_decode_tokens"}
    ).to_csv(path, index=False)
    with pytest.raises(LlmsimError, match="has no hash_ids"):
        simulate(traced(path, arrivals={"kind": "all_at_once"}))
    run = traced(write_trace(tmp_path / "chat.jsonl", conversation()))
    with pytest.raises(LlmsimError, match="which KV blocks of 48 tokens do not divide"):
        simulate(run.replace(engine=replace(run.engine, block_size=48)))


@pytest.mark.parametrize(
    ("name", "block", "rate"),
    [
        ("mooncake_conversation_trace", 512, 37.3),
        ("mooncake_synthetic_trace", 512, 65.0),
        ("lmcache_agent_miniswe", 16, 93.4),
        ("lmcache_agent_magagent", 16, 84.1),
        ("lmcache_agent_taubench", 16, 81.3),
    ],
)
def test_the_infinite_cache_finds_what_the_readme_counted(name, block, rate, shared):
    path = shared / "traces" / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip("not in the shared folder")
    said = CliRunner().invoke(app, ["trace", "stats", str(path), "--on-bad", "drop", "--json"])
    facts = json.loads(said.stdout)["prefix_cache"]
    assert facts["hash_block_size"] == block
    assert round(100 * facts["token_hit_rate"], 1) == rate


def test_the_fluid_bound_leaves_out_what_an_infinite_cache_finds(tmp_path):
    run = traced(write_trace(tmp_path / "chat.jsonl", conversation(12)))
    without = run.replace(engine=replace(run.engine, enable_prefix_caching=None))
    assert fluid_bound_rps(run) > 1.5 * fluid_bound_rps(without)
    untold = run.replace(workload=replace(run.workload, hash_block_size=None))
    assert fluid_bound_rps(untold) == fluid_bound_rps(without)
