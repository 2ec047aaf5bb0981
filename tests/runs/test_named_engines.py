"""engine.name in a run: its defaults hold where nothing is given, the user's settings win, and the run says which."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmsim import load_runs, simulate, simulate_stream
from llmsim.cli.options import RunOptions, SimulationOptions
from llmsim.cli.run_spec import run_mappings, run_specs
from llmsim.core.prefix.cache import PrefixCache
from llmsim.costs.calibration import load_calibration
from llmsim.errors import ConfigError
from llmsim.runs.engine_settings import settled
from llmsim.runs.replica_groups import groups_of
from llmsim.runs.text import comparison
from llmsim.schedulers.vllm_v1 import VllmV1
from llmsim.spec import registry
from llmsim.spec.cluster_spec import EngineSpec

NAMES = ("vllm-0.15", "vllm-0.19", "vllm-0.24", "vllm-0.33")
CALIBRATION = load_calibration("h100/llama-3.1-8b")
LARGEST, LARGE, OTHERS = "b200", "h100", "a100"
BUDGETS = {LARGEST: (8192, 1024), LARGE: (8192, 1024), OTHERS: (2048, 256)}
GROUP = {"replicas": 1}


def spec(**more):
    lengths = {"kind": "synthetic", "prompt": {"value": 700}, "output": {"value": 40}}
    workload = {"num_requests": 40, "lengths": lengths, "arrivals": {"kind": "poisson", "rate": 30}}
    return load_runs(mapping={"calibration": "h100/llama-3.1-8b", "workload": workload} | more)[0]


def settings(name="vllm-0.33", scheduler="vllm_v1", device=LARGE, **engine):
    return settled(replace(CALIBRATION, device=device), EngineSpec(name=name, **engine), scheduler)


@pytest.mark.parametrize("device", [LARGEST, LARGE, OTHERS])
@pytest.mark.parametrize("name", NAMES)
def test_every_version_on_every_class_of_gpu(name, device):
    found = settings(name, device=device)
    tokens, sequences = (16384, 1024) if (name, device) == ("vllm-0.33", LARGEST) else BUDGETS[device]
    policy = registry.build("scheduler", found.scheduler)
    assert policy == VllmV1(
        max_num_batched_tokens=tokens,
        max_num_seqs=sequences,
        reserve_full_isl=name != "vllm-0.15",
        version=name.removeprefix("vllm-"),
    )
    assert (found.engine.enable_prefix_caching, found.engine.async_scheduling) == (True, True)
    assert found.settings == {
        "name": name,
        "gpu_class": found.settings["gpu_class"],
        "max_num_batched_tokens": tokens,
        "max_num_seqs": sequences,
        "long_prefill_token_threshold": 0,
        "reserve_full_isl": name != "vllm-0.15",
        "watermark": 0.0,
        "policy": "fcfs",
        "enable_chunked_prefill": True,
        "enable_prefix_caching": True,
        "async_scheduling": True,
        "max_model_len": 131072,
        "gpu_memory_utilization": 0.9 if name in NAMES[:2] else 0.92,
        "kv_memory": found.settings["kv_memory"],
        "cudagraph_capture_sizes": "1, 2, 4, 8 to 256 by 8, 272 to "
        f"{1024 if (name, device) == ('vllm-0.33', LARGEST) else 512} by 16",
        "padding": "batches are priced as padded to these sizes",
        "given": [],
    }


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_num_batched_tokens", 1500),
        ("max_num_seqs", 77),
        ("long_prefill_token_threshold", 100),
        ("reserve_full_isl", False),
        ("watermark", 0.1),
        ("policy", "priority"),
        ("null_block", False),
    ],
)
def test_options_of_the_policy_win_one_by_one(option, value):
    default, found = settings(), settings(scheduler={"name": "vllm_v1", option: value})
    assert found.settings["given"] == [option]
    assert found.settings.get(option, value) == found.scheduler[option] == value
    if option not in ("max_num_batched_tokens", "max_num_seqs"):  # these two bound one another, and graphs
        changed = {key for key in default.settings if default.settings[key] != found.settings[key]}
        assert changed <= {option, "given"}
    assert registry.build("scheduler", found.scheduler).version == "0.33"


@pytest.mark.parametrize("option", ["enable_prefix_caching", "async_scheduling"])
def test_switches_of_the_engine_win_one_by_one(option):
    found = settings(**{option: False})
    assert getattr(found.engine, option) is False
    assert found.settings["given"] == [option]
    other = {"enable_prefix_caching", "async_scheduling"} - {option}
    assert getattr(found.engine, other.pop()) is True
    result = simulate(spec(engine={"name": "vllm-0.33", option: False}))
    assert result.summary["engine"][option] is False
    assert ("prefix_cache" in result.summary) == (option != "enable_prefix_caching")


def test_defaults_are_bounded_as_vllm_bounds_them():
    def of(scheduler="vllm_v1", **engine):
        found = settings(scheduler=scheduler, **engine).settings
        return found["max_num_batched_tokens"], found["max_num_seqs"]

    assert of("vllm_v1,max_num_batched_tokens=512") == (512, 512)
    assert of("vllm_v1,max_num_seqs=4", max_model_len=1000) == (4000, 4)
    assert of("vllm_v1,max_num_seqs=4,max_num_batched_tokens=9000", max_model_len=1000) == (9000, 4)
    assert of("vllm_v1,enable_chunked_prefill=false") == (131072, 1024)
    assert of("vllm_v1,enable_chunked_prefill=false", max_model_len=1000) == (8192, 1024)
    with pytest.raises(ConfigError, match="max_num_seqs must be at least 1 but got 0"):
        of("vllm_v1,max_num_seqs=0")
    with pytest.raises(ConfigError, match="max_num_batched_tokens must be a whole number but got 'many'"):
        of("vllm_v1,max_num_batched_tokens=many")
    with pytest.raises(ConfigError, match="max_num_batched_tokens must be at least 9000"):
        simulate(spec(engine={"name": "vllm-0.33"}, scheduler="vllm_v1,max_num_seqs=9000"))


def test_memory_is_told_and_not_guessed():
    assert "not planned again for this share and budget: Memory plan" in settings().settings["kv_memory"]
    summary = simulate(spec(engine={"name": "vllm-0.33"})).summary
    assert summary["engine"]["num_blocks"] == summary["kv"]["num_blocks"] == CALIBRATION.kv.num_blocks
    given = simulate(spec(engine={"name": "vllm-0.33", "num_blocks": 900})).summary["engine"]
    assert (given["num_blocks"], given["given"]) == (900, ["num_blocks"])
    assert given["kv_memory"].startswith("engine.num_blocks, as given")


def test_padding_follows_the_graphs_where_the_calibration_tells_it_apart():
    assert settings().calibration == CALIBRATION
    found = settings(scheduler="vllm_v1,max_num_seqs=37").calibration.batch_time.kernels
    assert found.padding == (1, 2, 4, *range(8, 33, 8), 37, *range(40, 73, 8))
    other = load_calibration("a100/llama-3-8b")
    plain = settled(other, EngineSpec(name="vllm-0.33"), "vllm_v1,max_num_seqs=37")
    assert plain.calibration == other
    assert "do not tell padding apart" in plain.settings["padding"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_short_for_its_settings(name):
    named = simulate(spec(engine={"name": name, "num_blocks": 300})).summary
    held = named.pop("engine")
    options = ("max_num_batched_tokens", "max_num_seqs", "reserve_full_isl")
    policy = {"name": "vllm_v1", "version": name[5:], **{option: held[option] for option in options}}
    engine = {"num_blocks": 300, "enable_prefix_caching": True, "async_scheduling": True}
    spelled = simulate(spec(engine=engine, scheduler=policy)).summary
    assert named | {"scheduler": ""} == spelled | {"scheduler": ""}


@pytest.mark.parametrize("cluster", [{}, {"groups": [GROUP, {**GROUP, "engine": {"name": "vllm-0.15"}}]}])
@pytest.mark.parametrize("blocks", [None, 200])
def test_streamed_single_steps_and_in_memory_are_the_same(cluster, blocks):
    run = spec(engine={"name": "vllm-0.33"} | ({} if blocks is None else {"num_blocks": blocks}), cluster=cluster)
    summary = simulate(run).summary
    assert simulate_stream(run).summary == summary
    assert simulate(run.replace(step_by_step=True)).summary == summary


def test_groups_have_the_settings_of_their_own_engines():
    groups = [{**GROUP, "engine": {"name": "vllm-0.15"}}, {**GROUP, "calibration": "a100/llama-3.1-8b"}]
    summary = simulate(spec(cluster={"groups": groups}, engine={"name": "vllm-0.33"})).summary
    told = [(one["name"], one["max_num_batched_tokens"], one["reserve_full_isl"]) for one in summary["engines"]]
    assert told == [("vllm-0.15", 8192, False), ("vllm-0.33", 2048, True)]
    assert "engine" not in summary
    mixed = simulate(spec(cluster={"groups": [groups[0], GROUP]}))
    assert [one and one["name"] for one in mixed.summary["engines"]] == ["vllm-0.15", None]
    assert "vllm-0.15 (8,192 tokens and 1,024 sequences" in comparison([mixed])
    assert "and no named engine" in " ".join(comparison([mixed]).split())


def test_without_a_name_no_engine_is_told():
    result = simulate(spec(scheduler="vllm_v1"))
    assert not {"engine", "engines", "prefix_cache"} & set(result.summary)
    assert groups_of(spec(scheduler="vllm_v1"))[0].settings is None


def test_tables_say_which_settings_held():
    results = [simulate(spec(engine={"name": name})) for name in ("vllm-0.19", "vllm-0.33")]
    one, two = comparison(results[:1]), comparison(results)
    words = "(8,192 tokens and 1,024 sequences an iteration; prefix caching on; async scheduling on)"
    assert f"vllm-0.19 {words}" in " ".join(one.split())
    assert all(f"{name} {words}" in " ".join(two.split()) for name in ("vllm-0.19", "vllm-0.33"))
    assert [line.split()[0] for line in two.splitlines() if line.startswith("vllm-0.19  ")]


def test_the_option_names_it_and_compares_them(tmp_path):
    run = RunOptions(prompt_tokens="9", output_tokens="9", rate=[2.0])
    simulation = SimulationOptions(calibration=["h100/llama-3.1-8b"], engine=["vllm-0.19", "vllm-0.33"])
    specs = run_specs(run, *run_mappings(run, simulation))
    assert [(one.engine.name, one.scheduler) for one in specs] == [("vllm-0.19", "vllm_v1"), ("vllm-0.33", "vllm_v1")]
    both = SimulationOptions(calibration=["h100/llama-3.1-8b"], engine=["vllm-0.19"], scheduler=["vllm_v1", "rad"])
    with pytest.raises(ConfigError, match=r"scheduler is 'rad' but engine\.name is vllm-0\.19"):
        run_specs(run, *run_mappings(run, both))


def test_a_policy_object_or_another_name_in_its_place_is_an_error():
    run = spec(engine={"name": "vllm-0.33"})
    with pytest.raises(ConfigError, match=r"engine\.name is vllm-0\.33 but the scheduler is an object"):
        simulate(run, scheduler=VllmV1())
    with pytest.raises(ConfigError, match=r"scheduler is 'sarathi' but engine\.name is vllm-0\.33"):
        simulate(run, scheduler="sarathi")


def test_an_unknown_device_is_told():
    lengths = {"kind": "synthetic", "prompt": {"value": 70}, "output": {"value": 4}}
    workload = {"num_requests": 4, "lengths": lengths, "arrivals": {"kind": "poisson", "rate": 1}}
    run = spec(engine={"name": "vllm-0.33"}, calibration="amd-epyc/tiny", workload=workload)
    summary = simulate(run).summary
    assert summary["engine"]["max_num_batched_tokens"] == 2048
    assert [note for note in summary["notes"] if "memory of the device amd-epyc is not known" in note]


def test_a_simulation_at_another_speed_finds_prefixes_too():
    (group,) = groups_of(spec(engine={"name": "vllm-0.33"}))
    assert isinstance(group.kv_cache(), PrefixCache)


def test_a_live_run_refuses_what_it_does_not_have():
    pytest.importorskip("torch")
    from llmsim.validation.live import serve_live

    with pytest.raises(ConfigError, match=r"a live run finds no KV blocks again; give --set engine.enable_prefix"):
        serve_live(spec(engine={"name": "vllm-0.33"}), runner=None)
