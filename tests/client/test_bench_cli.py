"""The command line of bench: what can go wrong before anything is sent."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from typer.testing import CliRunner

from llmsim.cli import app
from llmsim.client.spec import load_bench
from llmsim.errors import ConfigError
from llmsim.spec.run_spec import read_run
from llmsim.traces.workload import build_workload

RUN = ["bench", "--endpoint", "http://127.0.0.1:9", "--model", "m", "--trace", "azure-conv"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["bench", "--model", "m", "--trace", "azure-conv"], "give it in the YAML file or as --endpoint"),
        (["bench", "--endpoint", "http://a", "--trace", "azure-conv"], "or as --model"),
        (["bench", "--endpoint", "http://a", "--model", "m"], "or as --trace"),
        ([*RUN, "--token-ids", "5"], "FIRST:LAST"),
        ([*RUN, "--extra-body", "[1]"], "a JSON object"),
        ([*RUN, "--extra-body", "{"], "a JSON object"),
        ([*RUN, "--header", "nocolon"], "Name: value"),
        ([*RUN, "--set", "workload.nonsense=1"], "nonsense"),
        ([*RUN, "--num-requests", "3"], "cannot be reached"),
    ],
)
def test_errors_say_what_to_do(options, said):
    ran = CliRunner().invoke(app, options)
    assert ran.exit_code != 0
    assert said in str(ran.exception)


def test_without_aiohttp_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ran = CliRunner().invoke(app, RUN)
    assert isinstance(ran.exception, ConfigError)
    assert "llmsim[bench]" in str(ran.exception)


def test_the_yaml_of_a_simulated_run_can_be_measured_and_makes_the_same_requests(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "workload: {trace: sharegpt4, num_requests: 20, arrivals: {kind: poisson, rate: 2.0}}\n"
        "calibration: a100/llama-3-8b\nschedulers: [sarathi, vllm_v1]\nseed: 4\nendpoint: http://a\nmodel: m\n"
    )
    mapping = read_run(file)
    run = load_bench(mapping, str(file))
    assert run.seed == 4
    workload = build_workload(run.workload, run.seed)
    again = build_workload(load_bench(mapping | {"api": "chat"}).workload, 4)
    assert np.array_equal(workload.arrival_ns, again.arrival_ns)
    assert len(workload) == 20


def test_an_unknown_key_of_the_yaml_is_an_error():
    with pytest.raises(ConfigError, match="endpoints"):
        load_bench({"workload": {"trace": "azure-conv"}, "endpoint": "http://a", "model": "m", "endpoints": 1})
