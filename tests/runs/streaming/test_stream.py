"""A streamed run is the run in memory: same summary, same tables, memory for the requests in flight."""

from __future__ import annotations

import gc
import json

import pandas as pd
import pytest

from llmsim import simulate, simulate_stream
from llmsim.core.request import Request
from llmsim.errors import CapacityError, ConfigError, StalledError
from llmsim.runs.results import TABLES, Result
from llmsim.runs.streaming import run as streamed_run
from llmsim.runs.streaming import stream as stream_module
from llmsim.spec.run_spec import load_runs
from tests.effort import cases

CLASSES = [{"name": "chat", "share": 0.6, "tbt_s": 0.05, "ttft_s": 1}, {"name": "batch", "share": 0.4}]
NORMAL = {"kind": "normal", "mean": 400, "std": 350, "high": 3000}
H100 = {"calibration": "h100/llama-3.1-8b"}
SCHEDULE = [{"at_s": 6, "replicas": 3, "startup_lag_s": 2}, {"at_s": 25, "replicas": 2}, {"at_s": 30, "replicas": 1}]
OUTPUTS = {"kind": "normal", "mean": 90, "std": 70, "high": 500}


def spec_of(scheduler="vllm_v1", requests=300, models=(None, None), **more):
    workload = {
        "num_requests": requests,
        "classes": [c | {"model": model} for c, model in zip(CLASSES, models, strict=True)],
        "lengths": more.pop("lengths", {"kind": "synthetic", "prompt": NORMAL, "output": OUTPUTS}),
        "arrivals": more.pop("arrivals", {"kind": "poisson", "rate": 8}),
        "on_long": "drop",
    }
    mapping = {"calibration": "a100/llama-3-8b", "scheduler": scheduler, "engine": {"num_blocks": 1200}}
    return load_runs(mapping=mapping | {"workload": workload} | more)[0]


RUNS = {
    "vllm": spec_of(),
    "preemptions": spec_of("sarathi,chunk_size=512", engine={"num_blocks": 500}),
    "preempted with the last token in flight": spec_of(
        lengths={
            "kind": "synthetic",
            "prompt": {"kind": "normal", "mean": 30, "std": 30, "high": 60},
            "output": {"kind": "normal", "mean": 50, "std": 50, "high": 100},
        },
        arrivals={"kind": "closed_loop", "max_concurrency": 40},
        engine={"num_blocks": 60, "async_scheduling": True},
    ),
    "slai definitions": spec_of("slai", definitions="slai", engine={"first_token_at_prefill_end": False}),
    "rad": spec_of("rad", seed=3),
    "three replicas": spec_of(cluster={"replicas": 3, "router": "least_work"}, slo=["ttft:400", "tpot:40"]),
    "closed loop": spec_of(arrivals={"kind": "closed_loop", "max_concurrency": 30}, cluster={"replicas": 2}),
    "cut off": spec_of(horizon_s=20, warmup_s=4),
    "cut off in the middle of everything": spec_of(horizon_s=1.05, arrivals={"kind": "poisson", "rate": 400}),
    "whole answers": spec_of("naive", requests=60, arrivals={"kind": "poisson", "rate": 0.3}),
    "one request": spec_of(requests=1),
    "two calibrations": spec_of(
        cluster={
            "router": "round_robin",
            "groups": [{"replicas": 1, "model": "llama"}, {"replicas": 2, **H100, "model": "llama"}],
        },
    ),
    "two models": spec_of(
        models=("llama-3-8b", "llama-3.1-8b"),
        cluster={"router": "least_work", "groups": [{"replicas": 2}, {"replicas": 2, **H100}]},
    ),
    "a model that nobody asks for": spec_of(
        requests=60,
        models=("llama-3-8b", "llama-3-8b"),
        cluster={"groups": [{"replicas": 1}, {"replicas": 1, "model": "llama3"}]},
    ),
    "one model by name": spec_of(models=("llama-3-8b", None)),
    "models with limits of their own": spec_of(
        models=("short", "long"),
        cluster={
            "groups": [
                {"replicas": 1, "model": "short", "engine": {"max_model_len": 500, "num_blocks": 1200}},
                {"replicas": 2, "model": "long", "engine": {"max_model_len": 4000, "num_blocks": 1200}},
            ]
        },
    ),
    "replicas that come and go": spec_of(
        cluster={"router": "least_work", "groups": [{"replicas": 1, "schedule": SCHEDULE}]},
    ),
    "steps after the end": spec_of(
        requests=60, cluster={"groups": [{"replicas": 1, "schedule": [*SCHEDULE, {"at_s": 9000, "replicas": 2}]}]}
    ),
    "nobody there for a while, and cut off": spec_of(
        horizon_s=25,
        cluster={"groups": [{"replicas": 2, "schedule": [{"at_s": 5, "replicas": 0}, {"at_s": 20, "replicas": 1}]}]},
    ),
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("block", cases([7, 64], 1))
def test_a_streamed_run_is_the_run_in_memory(name, block, tmp_path, monkeypatch):
    monkeypatch.setattr(streamed_run, "BLOCK", block)
    monkeypatch.setattr(stream_module, "FILE_AT", 1)
    monkeypatch.setattr(stream_module, "LOOK_EVERY", block)
    whole, streamed = simulate(RUNS[name]), simulate_stream(RUNS[name], tmp_path)
    assert json.dumps(streamed.summary) == json.dumps(whole.summary)
    loaded = streamed.load()
    for table in TABLES:
        pd.testing.assert_frame_equal(getattr(loaded, table), getattr(whole, table))
    assert loaded.summary == whole.summary
    assert streamed.warnings() == whole.warnings()


def test_past_the_exact_size_percentiles_are_within_a_thousandth_and_say_so():
    spec = spec_of(requests=800)
    exact, estimated = simulate_stream(spec).summary, simulate_stream(spec, exact_values=100).summary
    assert "sketch" in estimated["notes"][-1]
    for metric in ("ttft", "tpot", "itl", "e2el", "queue"):
        for key in (f"p50_{metric}_ms", f"p99_{metric}_ms"):
            # A thousandth (test_samples.py), and the step between two of 800 requests.
            assert estimated[key] == pytest.approx(exact[key], rel=0.03), key
        for key in (f"mean_{metric}_ms", f"std_{metric}_ms"):
            assert estimated[key] == pytest.approx(exact[key], rel=1e-9), key
    same = ("completed", "duration_s", "output_throughput", "kv", "batches", "preemptions")
    assert {key: estimated[key] for key in same} == {key: exact[key] for key in same}


def test_no_more_requests_are_alive_than_are_in_flight_or_in_two_blocks(monkeypatch):
    monkeypatch.setattr(streamed_run, "BLOCK", 100)
    monkeypatch.setattr(stream_module, "FILE_AT", 100)
    monkeypatch.setattr(stream_module, "LOOK_EVERY", 100)
    alive = []

    def look(done, total):
        if done * 10 // total > len(alive):
            gc.collect()
            alive.append(sum(type(thing) is Request for thing in gc.get_objects()))

    simulate_stream(spec_of(requests=5000), progress=look)
    assert len(alive) >= 9
    assert max(alive) < 700, alive


def test_windows_are_filed_by_iterations_too(monkeypatch):
    """At a light load a request takes hundreds of iterations of its own, and they fill the memory, not the requests."""
    monkeypatch.setattr(stream_module, "FILE_ITERATIONS", 1000)
    monkeypatch.setattr(stream_module, "LOOK_EVERY", 5)
    sizes = []

    class Seen(stream_module.Windows):
        def take(self, done, in_flight):
            window = super().take(done, in_flight)
            sizes.append(len(window.iterations))
            return window

    monkeypatch.setattr(stream_module, "Windows", Seen)
    light = spec_of(arrivals={"kind": "poisson", "rate": 0.5})
    assert simulate_stream(light).summary == simulate(light).summary
    assert sum(sizes) > 15_000
    assert max(sizes) < 1000 + 5 * 500  # five requests of 500 tokens at most between two looks


def test_an_error_leaves_nothing_behind(tmp_path):
    with pytest.raises(CapacityError, match=r"raise engine\.num_blocks"):
        simulate_stream(spec_of(engine={"num_blocks": 40}), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("block", [7, 64])
def test_requests_that_nobody_will_serve_are_told_before_the_run_and_no_folder_is_made(block, tmp_path, monkeypatch):
    monkeypatch.setattr(streamed_run, "BLOCK", block)
    gone = [{"replicas": 1}, {"replicas": 1, **H100, "schedule": [{"at_s": 5, "replicas": 0}]}]
    spec, seen = spec_of(models=("llama-3-8b", "llama-3.1-8b"), cluster={"groups": gone}), []
    with pytest.raises(StalledError) as whole:
        simulate(spec, progress=lambda *done: seen.append(done))
    with pytest.raises(StalledError) as streamed:
        simulate_stream(spec, tmp_path / "out", progress=lambda *done: seen.append(done))
    assert str(streamed.value) == str(whole.value)
    assert "requests for llama-3.1-8b can never be served" in str(whole.value)
    assert not seen
    assert list(tmp_path.iterdir()) == []


def test_without_a_directory_there_are_no_tables_to_load():
    with pytest.raises(ValueError, match="give simulate_stream a directory"):
        simulate_stream(spec_of(requests=20)).load()


def test_of_a_long_run_only_some_tables_are_read(tmp_path):
    folder = simulate_stream(spec_of(requests=50), tmp_path).folder
    whole, part = Result.load(folder), Result.load(folder, tables=["requests"])
    pd.testing.assert_frame_equal(part.requests, whole.requests)
    assert part.summary == whole.summary
    assert len(whole.iterations) > len(part.iterations) == len(part.token_ranges) == 0
    assert part.iterations.dtypes.to_dict() == whole.iterations.dtypes.to_dict()
    with pytest.raises(ConfigError, match=r"requests, iterations, token_ranges but not 'request'"):
        Result.load(folder, tables=["request"])
