"""Numbers of the engine that belong together: one is given, the other follows, and the summary says so."""

from __future__ import annotations

from typing import Any

import pytest

from llmsim import simulate, simulate_stream
from llmsim.costs.calibration import load_calibration
from llmsim.errors import CapacityError
from llmsim.runs.replica_groups import groups_of
from llmsim.spec.run_spec import RunSpec, load_runs
from llmsim.studies.capacity.bound import fluid_bound_rps
from llmsim.theory.fluid import Node

NAME = "a100/llama-3-8b"  # 26,502 blocks of 16 tokens, 51.8 GiB


def spec(prompt: int = 400, output: int = 50, requests: int = 40, **more: Any) -> RunSpec:
    lengths = {"kind": "synthetic", "prompt": {"value": prompt}, "output": {"value": output}}
    workload = {"num_requests": requests, "lengths": lengths, "arrivals": {"kind": "poisson", "rate": 4}}
    mapping = {"calibration": NAME, "scheduler": "vllm_v1"}
    return load_runs(mapping=mapping | {"workload": workload | more.pop("workload", {})} | more)[0]


def notes(run: RunSpec) -> list[str]:
    """Those of the run in memory, which are those of the streamed run."""
    summary = simulate(run).summary
    assert simulate_stream(run).summary == summary
    return [note for note in summary["notes"] if "put together from times" not in note]


@pytest.mark.parametrize("size", [1, 8, 24, 32, 128, 4096])
def test_another_block_size_never_changes_the_bytes(size):
    run = spec(engine={"block_size": size})
    group = groups_of(run)[0]
    tokens = 26_502 * 16
    assert tokens - size < group.num_blocks * group.block_size <= tokens
    [line] = notes(run)
    assert f"are {group.num_blocks:,} of {size}, for the memory stays what it is" in line
    assert Node(load_calibration(NAME), block_size=size).kv_tokens == tokens


def test_the_case_of_blocks_of_32():
    run = load_runs(
        mapping={
            "calibration": NAME,
            "scheduler": "vllm_v1",
            "workload": {"trace": "sharegpt4", "num_requests": 300, "arrivals": {"kind": "poisson", "rate": 4}},
            "engine": {"block_size": 32},
        }
    )[0]
    summary = simulate(run).summary
    assert summary["kv"]["num_blocks"] == 13_251
    assert summary["preemptions"] == 34
    assert summary["p99_ttft_ms"] == pytest.approx(45_400, rel=1e-3)
    assert summary["saturation"]["verdict"] == "overloaded"
    assert any("13,251 of 32" in note for note in summary["notes"])


def test_the_groups_of_a_cluster_are_converted_each_by_its_own_calibration_and_said_once():
    groups = [
        {"replicas": 2, "model": "m", "engine": {"block_size": 32}},
        {"replicas": 1, "model": "m", "engine": {"block_size": 32}},
        {"replicas": 1, "model": "m", "calibration": "h100/llama-3.1-8b", "engine": {"block_size": 64}},
        {"replicas": 1, "model": "m"},
    ]
    run = spec(cluster={"groups": groups})
    assert [group.num_blocks for group in groups_of(run)] == [13_251, 13_251, 28_190 // 4, 26_502]
    lines = notes(run)
    assert [line.split(":")[0] for line in lines] == ["engine.block_size=32", "engine.block_size=64"]


@pytest.mark.parametrize("engine", [{"num_blocks": 900}, {"block_size": 32, "num_blocks": 900}, {"block_size": 16}])
def test_what_is_given_is_taken_as_it_is(engine):
    run = spec(engine=engine)
    assert groups_of(run)[0].num_blocks == engine.get("num_blocks", 26_502)
    assert notes(run) == []


def test_more_memory_than_the_card_has_is_said():
    [line] = notes(spec(engine={"block_size": 32, "num_blocks": 26_502}))
    assert "26,502 KV blocks of 32 tokens take 103.5 GiB, but a100/llama-3-8b has room for 51.8 GiB" in line


def test_a_block_that_is_more_than_the_cache_is_an_error(tmp_path):
    small = load_calibration("amd-epyc/tiny").to_json().replace('"num_blocks": 8192', '"num_blocks": 4')
    path = tmp_path / "small.json"
    path.write_text(small)
    with pytest.raises(CapacityError, match="is more than the whole KV cache of amd-epyc/tiny, 64 tokens"):
        groups_of(spec(calibration=str(path), engine={"block_size": 128}))


def test_a_limit_past_what_the_model_was_made_for_is_said():
    [line] = notes(spec(engine={"max_model_len": 8193}))
    assert "engine.max_model_len=8193 is past the 8,192 positions (max_position_embeddings)" in line
    assert notes(spec(engine={"max_model_len": 8192})) == []


def test_a_limit_that_no_cache_of_this_size_holds_is_said():
    [line] = notes(spec(engine={"max_model_len": 8000, "num_blocks": 499}))
    assert "one such sequence does not fit 499 KV blocks of 16 tokens" in line
    assert line.endswith("; 7984 fits")


def test_a_watermark_that_nobody_looks_at_is_said():
    [line] = notes(spec(engine={"watermark": 0.2}))
    assert "engine.watermark=0.2 changes nothing under VllmV1" in line
    assert notes(spec(engine={"watermark": 0.2}, scheduler="sarathi")) == []


def test_answers_cut_short_and_requests_refused_are_counted_and_said():
    long = {"prompt": 900, "output": 500, "requests": 3, "engine": {"max_model_len": 1000}}
    capped = simulate(spec(**long)).summary
    assert (capped["completed"], capped["requests"]["capped"], capped["total_output_tokens"]) == (3, 3, 300)
    [line] = notes(spec(**long))
    assert line.startswith("3 answers ended at max_model_len (1,000 tokens)")
    refused = simulate(spec(**long, scheduler="sarathi")).summary
    assert (refused["completed"], refused["rejected"]) == (0, 3)
    assert "capped" not in refused["requests"]
    assert any(note.startswith("3 requests asked for more tokens than max_model_len") for note in refused["notes"])
    within = simulate(spec(**long, workload={"on_long": "clip"})).summary
    assert (within["completed"], within["requests"]["clipped"]) == (3, 3)
    assert "capped" not in within["requests"]


def test_the_fluid_bound_counts_no_token_that_is_not_emitted():
    cut = fluid_bound_rps(spec(900, 500, engine={"max_model_len": 1000}))
    assert cut == pytest.approx(fluid_bound_rps(spec(900, 100, engine={"max_model_len": 1000})))
