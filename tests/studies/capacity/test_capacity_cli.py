"""`llmsim capacity` as a person types it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from llmsim.cli import app
from llmsim.errors import ConfigError

SMALL = ["capacity", "--trace", "sharegpt4", "--num-requests", "40", "--calibration", "rtx-6000-ada/mistral-7b"]
QUICK = [*SMALL, "--workers", "1", "--precision", "0.1"]


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def report(*arguments: str) -> dict[str, Any]:
    return json.loads(invoke(*arguments, "--json"))


def test_schedulers_side_by_side_with_intervals_brackets_and_what_decided():
    text = invoke(*QUICK, "--scheduler", "sarathi", "--scheduler", "vllm_v0", "--keep", "p90_ttft<=1s", "--seeds", "2")
    assert "Highest rate in requests/s, to 10 %, that keeps p90_ttft<=1s" in text
    assert text.count("\nvllm_v0") == 3  # its mean, and a line a seed
    assert "p90_ttft" in text
    assert "> 1000 ms" in text
    assert "Monotone: in none of" in text


def test_the_json_has_every_probe_and_is_the_same_with_any_number_of_workers():
    arguments = [*SMALL, "--precision", "0.1", "--keep", "p90_ttft<=1s", "--seeds", "2", "--json"]
    one = invoke(*arguments, "--workers", "1")
    assert invoke(*arguments, "--workers", "2") == one
    (sarathi,) = json.loads(one)["schedulers"]
    for seed in sarathi["by_seed"]:
        assert {probe["at"]: probe["passed"] for probe in seed["probes"]}[seed["keeps"]]
        assert all(probe["binding"] and probe["sent"] == 40 for probe in seed["probes"])
    assert sarathi["over_seeds"]["mean"] == sum(seed["keeps"] for seed in sarathi["by_seed"]) / 2


def test_attainment_of_99_per_cent_is_kept_where_nothing_else_is_asked_for():
    kept = report(*QUICK, "--slo", "ttft:1000 tpot:100", "--seeds", "1")
    assert kept["keep"] == ["attainment>=0.99"]
    assert kept["schedulers"][0]["binding"] == "attainment"


def test_the_fewest_replicas_of_a_rate():
    found = report(*QUICK, "--find", "replicas", "--rate", "8", "--keep", "p90_ttft<=1s", "--seeds", "2")
    (sarathi,) = found["schedulers"]
    assert sarathi["answer"] == max(seed["value"] for seed in sarathi["by_seed"]) > 1


HEAD = ["capacity", "--calibration", "h100/llama-3.1-8b", "--prompt-tokens", "1500", "--output-tokens", "300"]
BUDGETS = [word for n in (512, 2048, 8192) for word in ("--scheduler", f"vllm_v1,max_num_batched_tokens={n}")]


def test_how_many_gpus_and_which_budgets_is_answered_in_a_sentence_before_the_table():
    keep = ["--keep", "p95_ttft<=1s", "--keep", "p95_tpot<=40ms"]
    command = [*HEAD, "--find", "replicas", "--rate", "8", *keep, *BUDGETS, "--seeds", "2", "--workers", "1"]
    text = invoke(*command, "--num-requests", "200")
    said = " ".join(text[: text.index("scheduler  ")].split())
    assert "vllm_v1; llama-3.1-8b on h100; 200 requests with prompts of 1,500 tokens, outputs of 300 tokens" in said
    assert "offered 8 requests/s (poisson)" in said
    answer = "1 GPU (1 replica) keeps p95_ttft<=1s and p95_tpot<=40ms with max_num_batched_tokens 512, 2048 and 8192."
    assert answer in said
    assert "Nearest to a limit there: p95_tpot" in said
    assert max(map(len, text.splitlines())) <= 100


def test_calibrations_rates_and_replicas_are_compared_with_a_bound_each():
    few = ["--num-requests", "60", "--keep", "p95_ttft<=1s", "--seeds", "1", "--workers", "1", "--precision", "0.2"]
    found = report(*HEAD, *few, "--calibration", "a100/llama-3.1-8b", "--replicas", "1", "--replicas", "2")
    names = [one["run"] for one in found["schedulers"]]
    assert names == [f"{gpu}/llama-3.1-8b, replicas={n}" for gpu in ("h100", "a100") for n in (1, 2)]
    assert found["bound_rps"] is None
    bounds = [one["bound_rps"] for one in found["schedulers"]]
    assert bounds[1] == pytest.approx(2 * bounds[0])
    assert bounds[2] < bounds[0]
    assert "replicas" in found["schedulers"][0]["of"]
    more = report(*HEAD, *few, "--find", "replicas", "--rate", "4", "--rate", "400")
    assert [one["run"] for one in more["schedulers"]] == ["4 req/s", "400 req/s"]
    assert more["schedulers"][0]["answer"] < more["schedulers"][1]["answer"]


def test_two_cards_a_replica_are_two_gpus():
    command = [*HEAD, "--find", "replicas", "--rate", "4", "--keep", "p95_ttft<=1s", "--seeds", "1", "--workers", "1"]
    command[command.index("h100/llama-3.1-8b")] = "h100/llama-3.1-8b-tp2"
    text = invoke(*command, "--num-requests", "60")
    assert "llama-3.1-8b on 2 x h100" in text
    assert "2 GPUs (1 replica) keep p95_ttft<=1s." in text


def test_capacity_warns_of_its_calibrations_as_simulate_does():
    keep = ["--keep", "p90_ttft<=1s", "--seeds", "1"]
    beyond = CliRunner().invoke(app, [*QUICK, *keep], catch_exceptions=False).stderr
    assert "of the iterations lie outside what the calibration rtx-6000-ada/mistral-7b was measured on" in beyond
    kernels = [*HEAD, *keep, "--num-requests", "60", "--workers", "1", "--precision", "0.2"]
    assert "never held against a server" in CliRunner().invoke(app, kernels, catch_exceptions=False).stderr


def test_the_osdi_rule_rounds_its_rates_and_keeps_delay_and_tbt():
    found = report(*QUICK, "--rule", "osdi", "--keep", "p99_tbt<=100ms", "--seeds", "1")
    (seed,) = found["schedulers"][0]["by_seed"]
    assert found["keep"] == ["median_queue<=2s", "p99_tbt<=100ms"]
    assert [probe["at"] for probe in seed["probes"]] == [round(probe["at"], 2) for probe in seed["probes"]]
    default = [argument for argument in QUICK if argument not in ("--num-requests", "40")]
    big = report(*default, "--rule", "osdi", "--keep", "p99_tbt<=20ms", "--seeds", "1")
    assert big["schedulers"][0]["by_seed"][0]["probes"][0]["sent"] == 2048


def test_classes_are_held_to_their_own_targets():
    classes = "workload.classes=[{name: a, share: 0.5, tbt_s: 0.1}, {name: b, share: 0.5, tbt_s: 0.5}]"
    arguments = [*QUICK, "--scheduler", "slai", "--set", classes, "--seeds", "1", "--start", "2"]
    checks = report(*arguments, "--keep", "class_p99_tbt")["schedulers"][0]["by_seed"][0]["probes"][0]["checks"]
    assert [(check["slo_class"], check["limit"]) for check in checks[:2]] == [("a", 100), ("b", 500)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--keep", "p99_tfft<=1s"], "Did you mean 'ttft'?"),
        ([], "give --slo ttft:500"),
        (["--rate", "2"], "give --start"),
        (["--find", "replicas", "--replicas", "2"], "give --start"),
        (["--find", "replica"], "Did you mean 'replicas'?"),
        (["--rule", "osdi"], "give --keep 'p99_tbt<=200ms'"),
        (["--rule", "osdi", "--keep", "p99_ttft<=1s"], "nothing else"),
        (["--seeds", "0"], "--seeds must be at least 1 but got 0"),
        (["--start", "0", "--keep", "p99_ttft<=1s"], "start must be a rate above 0"),
        (["--scheduler", "sarati", "--keep", "p99_ttft<=1s"], "Did you mean 'sarathi'?"),
    ],
)
def test_a_wrong_command_says_what_to_type_instead(arguments, said):
    with pytest.raises(ConfigError) as error:
        CliRunner().invoke(app, [*QUICK, *arguments], catch_exceptions=False)
    assert said in str(error.value)


def test_a_calibration_made_of_tables_has_an_answer_and_a_bound_above_it():
    arguments = ["capacity", "--trace", "azure-conv", "--num-requests", "60", "--calibration", "h100/llama-3.1-8b"]
    text = invoke(*arguments, "--scheduler", "vllm_v1", "--keep", "p90_ttft<=1s", "--seeds", "2", "--precision", "0.1")
    assert "vllm_v1" in text
    assert "Fluid bound: no scheduler carries more than" in text
