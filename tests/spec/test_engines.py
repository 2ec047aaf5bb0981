"""Engines by name: the settings are those of the defaults that the sources of each version hold."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from llmsim.cli import app
from llmsim.errors import ConfigError
from llmsim.schedulers.vllm_rules import VERSIONS
from llmsim.spec.cluster_spec import EngineSpec
from llmsim.spec.engines import ENGINES, GpuClass, gpu_class, sizes_text
from llmsim.spec.run_spec import RunSpec, dump_run, load_runs
from llmsim.traces.spec import WorkloadSpec

VLLM = "vllm-0.15", "vllm-0.19", "vllm-0.24", "vllm-0.33"
USUAL = (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))
MAPPING = {"calibration": "h100/llama-3.1-8b", "workload": {"trace": "sharegpt4"}}


def loaded(**more) -> RunSpec:
    return load_runs(mapping=MAPPING | more)[0]


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        *((name, GpuClass.LARGEST) for name in ("b200", "NVIDIA B300", "gb200", "mi300x", "AMD Instinct MI325X")),
        *((name, GpuClass.LARGE) for name in ("h100", "NVIDIA H100 80GB HBM3", "h100_sxm", "h100sxm", "h200", "gh200")),
        *((name, GpuClass.LARGE) for name in ("rtx-pro-6000", "NVIDIA RTX PRO 6000 Blackwell", "h20", "h800")),
        *((name, GpuClass.OTHERS) for name in ("a100", "NVIDIA A100-SXM4-80GB", "l40s", "rtx-4090", "rtx-6000-ada")),
        *((name, GpuClass.OTHERS) for name in ("NVIDIA GeForce RTX 5090", "L4", "a10g", "NVIDIA GB10")),
    ],
)
def test_the_class_of_a_card_is_vllms(device, expected):
    assert gpu_class(device) == (expected, True)


@pytest.mark.parametrize("device", ["amd-epyc", "bench100", "tpu-v5e", "h1000"])
def test_a_card_that_nobody_knows_is_said_to_be_unknown(device):
    assert gpu_class(device) == (GpuClass.OTHERS, False)


def test_every_engine_is_a_version_of_the_policy():
    assert tuple(ENGINES) == VLLM
    assert [engine.version for engine in ENGINES.values()] == list(VERSIONS)


@pytest.mark.parametrize(
    ("name", "device", "tokens", "sequences", "sizes"),
    [
        ("vllm-0.15", "h100", 8192, 1024, USUAL),
        ("vllm-0.15", "b200", 8192, 1024, USUAL),
        ("vllm-0.19", "l40s", 2048, 256, USUAL),
        ("vllm-0.24", "b200", 8192, 1024, USUAL),
        ("vllm-0.33", "b200", 16384, 1024, (*USUAL, *range(528, 1025, 16))),
        ("vllm-0.33", "mi300x", 16384, 1024, USUAL),
        ("vllm-0.33", "rtx-pro-6000", 8192, 1024, USUAL),
        ("vllm-0.19", "h100", 8192, 1, (1, 2)),
        ("vllm-0.19", "h100", 8192, 37, (1, 2, 4, *range(8, 73, 8))),
        ("vllm-0.33", "h100", 8192, 37, (1, 2, 4, *range(8, 33, 8), 37, *range(40, 73, 8))),
        ("vllm-0.19", "h100", 100, 100, (1, 2, 4, *range(8, 97, 8))),
        ("vllm-0.24", "h100", 100, 100, (1, 2, 4, *range(8, 97, 8), 100)),
        ("vllm-0.33", "h100", 300, 300, (1, 2, 4, *range(8, 256, 8), *range(256, 289, 16), 300)),
    ],
)
def test_cuda_graphs(name, device, tokens, sequences, sizes):
    assert ENGINES[name].capture_sizes(device, tokens, sequences) == sizes


def test_sizes_in_words():
    assert sizes_text(()) == ""
    assert sizes_text((1, 2)) == "1, 2"
    assert sizes_text(USUAL) == "1, 2, 4, 8 to 256 by 8, 272 to 512 by 16"
    assert sizes_text((1, 8, 16, 24, 32, 37, 40)) == "1, 8 to 32 by 8, 37, 40"


@pytest.mark.parametrize("name", VLLM)
def test_a_name_implies_the_policy_and_comes_back_from_yaml(name):
    spec = loaded(engine={"name": name})
    assert spec.scheduler == "vllm_v1"
    assert load_runs(mapping=MAPPING | {"engine": {"name": name}, "scheduler": "vllm_v1"})[0] == spec
    built = RunSpec(workload=WorkloadSpec(trace="sharegpt4"), calibration="h100/llama-3.1-8b", engine=spec.engine)
    assert built.scheduler == "vllm_v1"
    assert f"name: {name}" in dump_run(spec)
    assert spec.replace(seed=3).scheduler == "vllm_v1"


def test_without_a_name_the_policy_is_as_ever():
    assert loaded().scheduler == "sarathi"
    grouped = loaded(cluster={"groups": [{"replicas": 2, "engine": {"num_blocks": 9}}]})
    assert grouped.cluster.groups[0].scheduler is None
    assert "name" not in dump_run(loaded(engine={"num_blocks": 9})).partition("engine:")[2].partition("cluster:")[0]


@pytest.mark.parametrize("scheduler", ["sarathi", "vllm_v0", {"name": "slai"}, "own.py:Mine", "sarathi,chunk_size=9"])
def test_another_policy_is_an_error(scheduler):
    with pytest.raises(ConfigError, match=r"scheduler is '.*' but engine.name is vllm-0.33, whose policy is vllm_v1"):
        loaded(engine={"name": "vllm-0.33"}, scheduler=scheduler)
    groups = [{"replicas": 1}, {"engine": {"name": "vllm-0.19"}, "scheduler": scheduler}]
    with pytest.raises(ConfigError, match=r"cluster.groups.1.scheduler is '.*' but engine.name is vllm-0.19"):
        loaded(cluster={"groups": groups})
    with pytest.raises(ConfigError, match=r"cluster.groups.0.scheduler is '.*' but engine.name is vllm-0.19"):
        loaded(scheduler=scheduler, cluster={"groups": [{"engine": {"name": "vllm-0.19"}}]})


@pytest.mark.parametrize("name", ["vllm-0.32", "vllm", "0.33", "sglang", "", "vLLM 0.33"])
def test_an_engine_that_is_not_there(name):
    with pytest.raises(ConfigError, match=r"engine\.name must be an engine and version \(vllm-0.15, .*\) but got"):
        loaded(engine={"name": name})
    with pytest.raises(ConfigError, match=r"cluster\.groups\.0\.engine\.name must be an engine"):
        loaded(cluster={"groups": [{"engine": {"name": name}}]})


def test_a_version_that_contradicts_the_name_is_an_error():
    with pytest.raises(ConfigError, match=r"scheduler has version=0.19 but engine.name is vllm-0.33"):
        loaded(engine={"name": "vllm-0.33"}, scheduler={"name": "vllm_v1", "version": "0.19"})
    assert loaded(engine={"name": "vllm-0.33"}, scheduler={"name": "vllm_v1", "version": "0.33"})


def test_groups_name_engines_of_their_own():
    named, other = {"engine": {"name": "vllm-0.15"}}, {"replicas": 2}
    spec = loaded(cluster={"groups": [named, other]})
    assert [group.scheduler for group in spec.cluster.groups] == ["vllm_v1", None]
    assert spec.scheduler == "sarathi"
    assert load_runs(mapping=MAPPING | {"cluster": {"groups": [{**named, "scheduler": "vllm_v1"}, other]}})[0] == spec
    whole = loaded(engine={"name": "vllm-0.33"}, cluster={"groups": [named, other]})
    assert [group.scheduler for group in whole.cluster.groups] == [None, None]
    assert whole.scheduler == "vllm_v1"


def test_a_groups_engine_without_a_name_does_not_hide_the_runs():
    with pytest.raises(ConfigError, match=r"cluster.groups.0.engine names no engine but the run's engine.name is vllm"):
        loaded(engine={"name": "vllm-0.33"}, cluster={"groups": [{"engine": {"num_blocks": 900}}]})


def test_the_engine_beside_other_settings():
    assert EngineSpec(name="vllm-0.24", num_blocks=9).name == "vllm-0.24"


def test_the_list_of_engines():
    found = json.loads(CliRunner().invoke(app, ["engines", "--json"]).output)
    assert [one["name"] for one in found] == list(VLLM)
    assert found[-1]["gpu_classes"]["160 GiB and more"] == {"max_num_batched_tokens": 16384, "max_num_seqs": 1024}
    text = CliRunner().invoke(app, ["engines"]).output
    assert all(f"{name}  policy vllm_v1" in text for name in VLLM)
    assert text.count("reserve_full_isl off") == 1
