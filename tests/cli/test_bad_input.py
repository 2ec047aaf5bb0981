"""Input that once ended in a traceback, or passed unseen: each is one ConfigError now."""

from __future__ import annotations

import pytest

from llmsim.errors import ConfigError
from llmsim.runs.simulation import simulate
from llmsim.spec import registry
from llmsim.spec.run_spec import ClusterSpec, EngineSpec, load_runs, read_run

RUN = "workload: {trace: t.csv}\ncalibration: a100/llama-3-8b\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]: 2\n", "cannot be a key"),
        ("name: é\n", "not UTF-8"),
        ("warmup_s: .nan\n", "warmup_s must be at least 0"),
        ("warmup_s: .inf\n", "warmup_s must be at least 0"),
        ("horizon_s: .nan\n", "horizon_s must be above 0"),
        ("horizon_s: .inf\n", "horizon_s must be above 0"),
        ("engine: {host_overhead_s: .nan}\n", "host_overhead_s must be at least 0"),
        ("engine: {host_overhead_s: 1e8}\n", "host_overhead_s must be at least 0 and at most 3600"),
        ("engine: {startup_lag_s: 1e10}\n", "startup_lag_s must be at least 0 and at most 1e\\+09"),
        ("engine: {block_size: 100000000}\n", "block_size must be at least 1 and at most 4096"),
        ("horizon_s: 1e300\n", "horizon_s must be above 0 and at most 1e\\+09"),
        ("warmup_s: 1e10\n", "warmup_s must be at least 0 and at most 1e\\+09"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_bytes((RUN + text).encode("latin-1"))
    with pytest.raises(ConfigError, match=message):
        load_runs(path)


@pytest.mark.parametrize("option", [{"columns": {"prompt_tokens": "x"}}, {"format": "mooncake"}, {"time_unit": "ms"}])
def test_what_reads_files_is_refused_for_a_shipped_twin(option):
    mapping = {"workload": {"trace": "azure-conv", "num_requests": 5, **option}, "calibration": "a100/llama-3-8b"}
    with pytest.raises(ConfigError, match="is for trace files, but azure-conv is a twin"):
        simulate(load_runs(mapping=mapping)[0])


def test_more_requests_than_memory_holds_are_refused():
    mapping = {"workload": {"trace": "azure-conv", "num_requests": 10**11}, "calibration": "a100/llama-3-8b"}
    with pytest.raises(ConfigError, match=r"num_requests must be at most 100,000,000 .* in blocks"):
        simulate(load_runs(mapping=mapping)[0])


def test_a_column_name_must_be_a_text():
    mapping = {"workload": {"trace": "t.csv", "columns": {"prompt_tokens": 5}}, "calibration": "x"}
    with pytest.raises(ConfigError, match=r"columns\.prompt_tokens must be text but got 5"):
        load_runs(mapping=mapping)


def test_yaml_merge_keys_work(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert read_run(path)["b"] == {"x": 1, "y": 3}


def test_a_trace_beside_the_file_is_found_but_an_override_means_the_working_directory(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    (tmp_path / "t.csv").touch()
    assert load_runs(path)[0].workload.trace == str(tmp_path / "t.csv")
    assert load_runs(path, ["workload.trace=t.csv"])[0].workload.trace == "t.csv"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("sarathi,chunk_size=[1", "is no value"),
        ("sarathi,chunk_size=1,chunk_size=2", "'chunk_size' is given twice"),
        ("sarathi,name=orca", "'name' is given twice"),
        ({"name": "sarathi", 1: 2}, "has no option 1"),
        (":Own", "cannot be imported"),
        ("OWN,places=x", "places must be a whole number but got 'x'"),
    ],
)
def test_a_bad_policy_is_refused(own, choice, message):
    with pytest.raises(ConfigError, match=message):
        registry.build("scheduler", choice.replace("OWN", own) if isinstance(choice, str) else choice)


def test_a_number_may_be_written_with_an_exponent(own):
    assert registry.build("scheduler", f"{own},share=1e-3").share == 0.001


@pytest.fixture
def own(tmp_path):
    """A policy whose annotations are classes, not texts."""
    (tmp_path / "own.py").write_text(
        "from dataclasses import dataclass\nfrom llmsim import ContinuousBatching\n"
        "@dataclass\nclass Own(ContinuousBatching):\n    share: float = 0.5\n    places: int = 3\n"
    )
    return f"{tmp_path / 'own.py'}:Own"


@pytest.mark.parametrize("make", [lambda: EngineSpec(num_blocks=0), lambda: ClusterSpec(replicas=0)])
def test_bounds_hold_without_a_file_too(make):
    with pytest.raises(ConfigError, match="must be at least 1"):
        make()
