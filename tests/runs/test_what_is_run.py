"""simulate takes a spec, the file that describes it, or a mapping; one run at a time."""

from __future__ import annotations

import pytest
import yaml

from llmsim import load_runs, simulate, simulate_stream
from llmsim.errors import ConfigError

MAPPING = {
    "workload": {"trace": "sharegpt4", "num_requests": 20, "arrivals": {"kind": "poisson", "rate": 1}},
    "calibration": "a100/llama-3-8b",
}


def test_a_file_and_a_mapping_are_the_run_that_they_describe(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(MAPPING))
    want = simulate(load_runs(path)[0]).summary
    for run in (path, str(path), MAPPING, {**MAPPING, "schedulers": ["sarathi"]}):
        assert simulate(run).summary == want
    assert simulate_stream(str(path)).summary == simulate_stream(MAPPING).summary == want


@pytest.mark.parametrize("serve", [simulate, simulate_stream])
def test_several_runs_are_not_one(tmp_path, serve):
    several = {**MAPPING, "schedulers": ["sarathi", "vllm_v1"]}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(several))
    with pytest.raises(ConfigError, match=r"run\.yaml: describes 2 runs.*compare\(load_runs\('.*run\.yaml'\)\)"):
        serve(path)
    with pytest.raises(ConfigError, match=r"the mapping: describes 2 runs.*compare\(load_runs\(mapping=\.\.\.\)\)"):
        serve(several)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("nowhere.yaml", "nowhere.yaml: cannot be read"),
        ({}, "the mapping: 'workload' is missing"),
        ({**MAPPING, "enigne": {}}, "the mapping: .* Did you mean 'engine'"),
        (5, "a run is a RunSpec, a YAML file or a mapping but got a int: 5"),
        ([MAPPING], "a run is a RunSpec, a YAML file or a mapping but got a list"),
        (None, "but got a NoneType"),
    ],
)
def test_what_is_no_run_is_refused(run, message):
    with pytest.raises(ConfigError, match=message):
        simulate(run)
