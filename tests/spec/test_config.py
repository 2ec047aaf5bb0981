"""Run specs: strict both ways, and errors that say what to do."""

from __future__ import annotations

import pytest

from llmsim.errors import ConfigError
from llmsim.spec.run_spec import ClusterSpec, EngineSpec, RunSpec, apply_override, dump_run, load_runs
from llmsim.traces.spec import ClassSpec, WorkloadSpec
from llmsim.traces.workload import ArrivalsSpec

MINIMAL = "workload: {trace: sharegpt4, arrivals: {kind: poisson, rate: 2}}\ncalibration: rtx-6000-ada/mistral-7b\n"


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def rich_spec() -> RunSpec:
    return RunSpec(
        name="rich",
        workload=WorkloadSpec(
            trace="azure-conv",
            num_requests=50,
            arrivals=ArrivalsSpec(kind="ramp", ramp=((0.0, 1.0), (60.0, 5.0))),
            classes=(
                ClassSpec(name="paying", share=0.05, tbt_s=0.1, priority=True),
                ClassSpec(name="free", share=0.95, tbt_s=0.5, tier=1),
            ),
        ),
        calibration="a100/llama-3-8b",
        scheduler={"name": "sarathi", "chunk_size": 256, "order": "spf"},
        engine=EngineSpec(num_blocks=5000, watermark=0.0, host_overhead_s=1e-3, first_token_at_prefill_end=False),
        cluster=ClusterSpec(replicas=3, router="random"),
        horizon_s=100.5,
        slo=("ttft:200", "tpot:50"),
        seed=7,
    )


def test_a_spec_written_as_yaml_loads_back_equal(tmp_path):
    spec = rich_spec()
    (loaded,) = load_runs(write(tmp_path, dump_run(spec)))
    assert loaded == spec


def test_schedulers_make_one_run_each_of_the_same_rest(tmp_path):
    runs = load_runs(write(tmp_path, MINIMAL + "schedulers: [sarathi, {name: orca, max_num_seqs: 4}]\n"))
    assert [run.scheduler for run in runs] == ["sarathi", {"name": "orca", "max_num_seqs": 4}]
    assert runs[0].replace(scheduler="x") == runs[1].replace(scheduler="x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINIMAL + "horizons_s: 5\n", "run.yaml: [run] has no option 'horizons_s'. Did you mean 'horizon_s'?"),
        (MINIMAL + "engine: {num_block: 5}\n", "[engine] has no option 'num_block'. Did you mean 'num_blocks'?"),
        (MINIMAL + "engine: {num_blocks: many}\n", "engine.num_blocks must be a whole number or null but got 'many'"),
        (MINIMAL + "engine: {num_blocks: true}\n", "engine.num_blocks must be a whole number or null but got True"),
        (MINIMAL + "engine: {num_blocks: 0}\n", "num_blocks must be at least 1 but got 0"),
        (MINIMAL + "engine: {watermark: 1}\n", "watermark is a share and must be in [0, 1) but got 1"),
        (MINIMAL + "cluster: {replicas: 0}\n", "run.yaml: cluster.replicas must be at least 1 but got 0"),
        (MINIMAL + "horizon_s: 0\n", "horizon_s must be above 0 and at most 1e+09 but got 0"),
        (MINIMAL + "seed: -1\n", "seed must be at least 0 but got -1"),
        (MINIMAL + "definitions: mlperf\n", "definitions must be one of vllm, slai but got 'mlperf'"),
        (MINIMAL + "scheduler: 1\n", "scheduler must be text or a mapping but got 1"),
        (MINIMAL + "slo: ttft\n", "slo must be a list but got 'ttft'"),
        (MINIMAL + "horizon_s: soon\n", "horizon_s must be a number or null but got 'soon'"),
        (MINIMAL + "step_by_step: 1\n", "step_by_step must be true or false but got 1"),
        (MINIMAL + "engine: 5\n", "engine must be a mapping but got 5"),
        (MINIMAL + "scheduler: orca\nschedulers: [orca]\n", "give scheduler or schedulers, not both"),
        (MINIMAL + "schedulers: []\n", "schedulers must be a list with at least one scheduler"),
        (MINIMAL + "seed: 1\nseed: 2\n", "key 'seed' is given twice"),
        ("calibration: x\n", "'workload' is missing"),
        ("workload: {trace: x}\n", "'calibration' is missing"),
        ("- a\n- b\n", "must hold a mapping"),
        ("a: [1\n", "is no YAML"),
    ],
)
def test_a_bad_file_is_refused_with_what_got_allowed(tmp_path, text, said):
    with pytest.raises(ConfigError) as caught:
        load_runs(write(tmp_path, text))
    assert said in str(caught.value)
    assert "run.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_runs(tmp_path / "none.yaml")


def test_overrides_reach_into_mappings_and_lists(tmp_path):
    path = write(tmp_path, MINIMAL + "schedulers: [{name: sarathi}, {name: orca}]\n")
    runs = load_runs(path, ["schedulers.0.chunk_size=64", "engine.num_blocks=9", "workload.arrivals.rate=0.5"])
    assert runs[0].scheduler == {"name": "sarathi", "chunk_size": 64}
    assert runs[1].engine.num_blocks == 9
    assert runs[0].workload.arrivals.rate == 0.5


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("seed", "--set takes key=value"),
        ("a.b=[1", "the value is no YAML"),
        ("name.x=1", "'name' holds 'run', which has no keys"),
        ("items.7=1", "'7' is no place in the list: there are 2 (0 to 1)"),
    ],
)
def test_a_bad_override_is_explained(line, said):
    with pytest.raises(ConfigError) as caught:
        apply_override({"name": "run", "items": [1, 2]}, line)
    assert said in str(caught.value)


def test_paths_in_a_file_are_relative_to_it(tmp_path, monkeypatch):
    (tmp_path / "mine.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,5,5\n")
    path = write(tmp_path, MINIMAL.replace("sharegpt4", "mine.csv"))
    monkeypatch.chdir("/")
    (run,) = load_runs(path)
    assert run.workload.trace == str(tmp_path / "mine.csv")


def test_specs_cannot_be_written_to():
    with pytest.raises(AttributeError):
        rich_spec().seed = 5
