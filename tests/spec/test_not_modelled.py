"""What llmsim has not is said so; and no name of a model, a size, a GPU or a version is taken for another's."""

from __future__ import annotations

import re

import pytest

from llmsim.calibrate.importers.engines import engine_named
from llmsim.costs.calibration import list_calibrations, load_calibration
from llmsim.costs.calibration_list import shipped
from llmsim.costs.models import load_model
from llmsim.data import data_folders
from llmsim.errors import NOT_MODELLED, LlmsimError, did_you_mean, not_modelled, same_name
from llmsim.spec import registry
from llmsim.spec.run_spec import load_runs
from llmsim.traces.workload import WorkloadSpec, build_workload

RUN = {"workload": {"trace": "sharegpt4"}, "calibration": "a100/llama-3-8b"}
ASKED = [
    "session_id", "multi_turn", "mixtral-8x7b", "mixtral", "deepseek-v3",
    "DeepSeek-R1", "qwen3-30b-a3b", "Qwen3-235B-A22B", "gpt-oss-120b", "gpt_oss", "llama-4-scout", "kimi-k2",
    "num_experts", "enable_expert_parallel", "mla", "fp8", "llama-3.1-8b-fp8", "llama-3.1-8b-awq", "quantization",
    "quantisation", "kv_cache_dtype", "dtype", "int4", "w8a8", "speculative_config", "eagle",
    "num_speculative_tokens", "enable_lora", "max_loras", "multimodal", "qwen2.5-vl-7b", "disaggregated",
    "kv_connector", "prefill_replicas", "pipeline_parallel_size", "pp2", "autoscaling", "autoscaler", "max_replicas",
    "failures", "mtbf", "swap_space", "cpu_offload_gb", "sglang", "tensorrt-llm", "trtllm", "dynamo",
]  # fmt: skip


@pytest.mark.parametrize("word", ASKED)
def test_what_is_not_modelled_is_said_so(word):
    assert "not modelled" in did_you_mean(word, ["num_blocks", "mistral-7b", "llama-3.1-8b", "dynamic"])
    assert "docs/limits.md" in not_modelled(word)


def known_words():
    policies = [name for kind in registry.BUILT_IN for name in registry.names(kind)]
    options = "num_blocks watermark quantile quantity revision program prefill_tokens max_num_seqs division"
    models = "llama-405b glm-4-9b deepseek-r1-distill-llama-8b azure-conversation gemma-2-9b phi-4 yi-34b"
    return [*list_calibrations(), *policies, *options.split(), *models.split()]


def test_what_is_modelled_or_only_unknown_is_not():
    assert [word for word in known_words() if not_modelled(word)] == []


def test_every_answer_has_its_line_in_the_page_of_limits():
    page = (data_folders("calibrations")[0].parent / "docs" / "limits.md").read_text().casefold()
    for answer in NOT_MODELLED.values():
        subject = re.split(r" (?:is|are) not modelled| \(|,", answer)[0].removeprefix("a ").casefold()
        assert subject in page.replace("sglang", "this engine"), answer


@pytest.mark.parametrize(
    ("ask", "asked"),
    [
        (load_runs, {"engine": {"quantization": "fp8"}}),
        (load_runs, {"autoscaling": {"min": 1}}),
        (load_runs, {"cluster": {"max_replicas": 4}}),
    ],
)
def test_a_run_that_asks_for_it_is_refused(ask, asked):
    with pytest.raises(LlmsimError, match=r"has no option .* not modelled"):
        ask(mapping={**RUN, **asked})


@pytest.mark.parametrize("name", ["sglang", "vllm_v1,speculative_config=eagle"])
def test_a_scheduler_that_asks_for_it_is_refused(name):
    with pytest.raises(LlmsimError, match="not modelled"):
        registry.build("scheduler", name)


@pytest.mark.parametrize("load", [lambda name: load_calibration(f"h100/{name}"), load_model])
@pytest.mark.parametrize("name", ["mixtral-8x7b", "mixtral-7b", "deepseek-v3", "qwen3-30b-a3b", "llama-3.1-8b-fp8"])
def test_a_model_that_is_not_modelled_is_answered_with_no_other(load, name):
    with pytest.raises(LlmsimError, match="not modelled") as caught:
        load(name)
    assert "mistral" not in str(caught.value)
    assert "Did you mean" not in str(caught.value)


def test_a_config_of_a_mixture_of_experts_is_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "qwen3_moe"}')
    with pytest.raises(LlmsimError, match="A mixture of experts is not modelled"):
        load_model(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("h100/llama-3.1-405b", "For h100 there are: llama-3.1-70b-tp4, "),
        ("h100/llama-3.1-80b", "For h100 there are: "),
        ("h100/llama-3-8b", "For h100 there are: "),
        ("h100/llama-3.18b", "For h100 there are: "),
        ("h100/llama-3.1-8b-tp8", "For h100 there are: "),
        ("h100/qwen2-8b", "For h100 there are: "),
        ("h100/mistral-8b", "For h100 there are: "),
        ("b200/llama-3.1-8b", "none of the GPU 'b200', but of a100, amd-epyc, h100, h200, l40s, "),
        ("h20/llama-3.1-8b", "none of the GPU 'h20'"),
        ("gh200/llama-3.1-8b", "none of the GPU 'gh200'"),
        ("l40/llama-3.1-8b", "none of the GPU 'l40'"),
        ("a10/llama-3-8b", "none of the GPU 'a10'"),
        ("rtx-5090/llama-3.1-8b", "none of the GPU 'rtx-5090'"),
        ("rtx-6000/mistral-7b", "none of the GPU 'rtx-6000'"),
        ("llama-3-8b", "A name is device/model: a100/llama-3-8b."),
        ("h100", "For h100 there are: "),
        ("/x", "none of the GPU ''"),
    ],
)
def test_a_calibration_that_is_not_there_is_answered_with_those_that_are(name, said):
    with pytest.raises(LlmsimError) as caught:
        load_calibration(name)
    assert said in str(caught.value)
    assert "Did you mean" not in str(caught.value)


def test_nothing_else_is_near_a_model_a_gpu_or_a_version():
    for ask in (lambda: shipped("h300"), lambda: load_model("llama-3.1-80b"), lambda: engine_named("vllm-0.14")):
        with pytest.raises(LlmsimError, match="There are: ") as caught:
            ask()
        assert "Did you mean" not in str(caught.value)


def test_names_that_users_choose_are_not_taken_for_what_is_not_modelled(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import dataclass\nfrom llmsim import ContinuousBatching\n\n"
        "@dataclass\nclass MoeAware(ContinuousBatching):\n    lora_share: float = 0.5\n"
    )
    with pytest.raises(LlmsimError, match="Did you mean 'MoeAware'"):
        registry.build("scheduler", f"{path}:MoeAwre")
    with pytest.raises(LlmsimError, match="Did you mean 'lora_share'"):
        registry.build("scheduler", f"{path}:MoeAware,lora_shar=1")
    with pytest.raises(LlmsimError, match="no such file") as caught:
        build_workload(WorkloadSpec(trace="lora-sessions.csv"), 0, 4096)
    assert "modelled" not in str(caught.value)


def test_a_slip_is_a_slip():
    names = ["h100/llama-3.1-8b", "rtx-6000-ada", "mistral-7b", "tiny-cpu"]
    slips = {"H100/Llama_3_1_8B": names[0], "h100/lama-3.1-8b": names[0], "RTX 6000 Ada": names[1],
             "mistrall-7b": names[2], "Mistral7B": names[2], "msitral-7b": names[2], "tiny-cup": names[3]}  # fmt: skip
    assert {word: same_name(word, names) for word in slips} == slips
    for other in ("mixtral-7b", "mistral-7", "mistral-70b", "h200/llama-3.1-8b", "h100/llama-3-18b", "rtx-6000"):
        assert same_name(other, names) is None
