"""Runs of several models and of replicas that come and go: from YAML to the summary."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from llmsim.costs.calibration import list_calibrations
from llmsim.errors import ConfigError, StalledError, TraceError
from llmsim.runs.cluster_text import fleet_lines
from llmsim.runs.replica_groups import groups_of, limits_of, model_and_gpus, pools_of
from llmsim.runs.results import Result
from llmsim.runs.simulation import simulate
from llmsim.runs.text import comparison
from llmsim.spec.run_spec import dump_run, load_runs, put, read_run
from llmsim.studies.capacity.runs import check_rate
from llmsim.traces.served_models import check_models
from llmsim.traces.workload import build_workload

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
CHAT, HARD = "llama-3.1-8b", "qwen3-32b"

MODELS = {
    "workload": {
        "trace": "sharegpt4",
        "num_requests": 200,
        "arrivals": {"kind": "poisson", "rate": 8.0},
        "classes": [{"name": "chat", "share": 0.7, "model": CHAT}, {"name": "hard", "share": 0.3, "model": HARD}],
    },
    "calibration": f"h100/{CHAT}",
    "scheduler": "vllm_v1",
    "cluster": {
        "router": "least_work",
        "groups": [
            {"replicas": 1},
            {"replicas": 2, "calibration": f"l40s/{CHAT}"},
            {"replicas": 1, "calibration": f"h100/{HARD}-tp2"},
        ],
    },
}
SCHEDULE = [{"at_s": 10, "replicas": 4, "startup_lag_s": 5}, {"at_s": 30, "replicas": 1}]
DAY = {
    "workload": {"trace": "sharegpt4", "num_requests": 150, "arrivals": {"kind": "poisson", "rate": 3.0}},
    "calibration": "a100/llama-3-8b",
    "cluster": {"router": "least_requests", "groups": [{"replicas": 2, "schedule": SCHEDULE}]},
}


def run(base: dict, **changes: object) -> Result:
    """The run with dotted keys changed."""
    return simulate(spec(base, **changes))


def spec(base: dict, **changes: object):
    mapping = copy.deepcopy(base)
    for key, value in changes.items():
        put(mapping, key.replace("__", "."), value)
    return load_runs(mapping=mapping)[0]


def test_every_request_is_served_by_its_model_and_the_summary_tells_the_models_apart():
    result = run(MODELS)
    requests, summary = result.requests, result.summary
    assert ((requests["replica"] == 3) == (requests["model"] == HARD)).all()
    assert requests.groupby("model")["replica"].nunique().to_dict() == {CHAT: 3, HARD: 1}
    assert list(summary["models"]) == [CHAT, HARD]
    for model, report in summary["models"].items():
        ours = requests[requests["model"] == model]
        assert report["sent"] == report["completed"] == len(ours)
        assert report["p90_ttft_ms"] == pytest.approx(1e3 * np.percentile(ours["ttft_s"], 90))
        assert report["median_e2el_ms"] == pytest.approx(1e3 * ours["e2el_s"].median())
        assert report["mean_tpot_ms"] == pytest.approx(1e3 * ours["tpot_s"].mean())
    for rate in ("request_throughput", "output_throughput", "total_token_throughput"):
        assert sum(report[rate] for report in summary["models"].values()) == pytest.approx(summary[rate])
    assert summary["models"][HARD]["busy_share"] > summary["models"][CHAT]["busy_share"]
    text = comparison([result])
    assert f"{HARD}: {(requests['model'] == HARD).sum()} of" in " ".join(text.split())


def test_no_model_named_means_no_column_and_no_section():
    result = run(MODELS, workload__classes=[], cluster__groups=[{"replicas": 1}, {"replicas": 1, "model": CHAT}])
    assert "model" not in result.requests
    assert "models" not in result.summary
    assert "replicas" not in result.summary


def test_a_pool_that_no_request_asks_for_is_told_with_the_nearest_name():
    groups = [*MODELS["cluster"]["groups"], {"replicas": 3, "model": "lama-3.1-8b"}, {"model": "gpt"}]
    notes = run(MODELS, cluster__groups=groups).summary["notes"]
    asked = f"The requests ask for {CHAT}, {HARD}"
    assert f"no request asks for lama-3.1-8b (3 replicas idle). Did you mean {CHAT!r}? {asked}" in notes
    assert f"no request asks for gpt (1 replica idle). {asked}" in notes
    assert not any("no request asks" in note for note in run(MODELS).summary["notes"] + run(DAY).summary["notes"])


def test_a_line_of_a_model_has_large_latencies_in_seconds_and_one_replica_serves():
    found = {"request_throughput": None, "median_tpot_ms": 20.0, "p99_tpot_ms": 9999.0}
    found |= {"completed": 5, "sent": 5, "median_ttft_ms": 4685.0, "p99_ttft_ms": 101_677.0}
    group = {"calibration": "a/m", "drains": [], "timeline": [{"at_s": 0.0, "serving": 1}, {"at_s": 9.0, "serving": 2}]}
    waited = {"requests": 0, "longest_s": 0.0}
    replicas = {"groups": [group], "replica_seconds": 9, "gpu_seconds": 9, "waited_for_a_replica": waited}
    summary = {"models": {"m": found | {"saturation": {"verdict": "overloaded"}}}, "replicas": replicas}
    model, served, _ = fleet_lines(["run"], [summary])
    assert model.endswith("answered, TTFT p50 4.69, p99 102 s, TPOT p50 20, p99 9,999 ms; overloaded.")
    assert served == "a/m: 1 replica serves, 2 from 9 s."


def test_requests_of_one_model_may_leave_it_unsaid():
    classes = [{"name": "a", "share": 0.5, "model": CHAT}, {"name": "b", "share": 0.5}]
    result = run(MODELS, workload__classes=classes, cluster__groups=[{"replicas": 2}])
    assert result.summary["models"][CHAT]["sent"] == 200
    assert result.requests["model"].isna().any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"workload__classes": []},
            f"200 of 200 requests .class 'default'. name no model, but the cluster serves {CHAT}, {HARD}: give each of",
        ),
        ({"workload__classes__1__model": "qwen3-23b"}, "ask for model 'qwen3-23b', which nobody serves. The cluster"),
        ({"workload__classes__1__model": ""}, "classes: hard: model must be a name but got ''"),
        ({"cluster__groups__0__model": " "}, r"cluster\.groups\.0\.model must be a name"),
    ],
)
def test_models_that_make_no_sense_are_refused_before_the_run(changes, message):
    with pytest.raises(ConfigError, match=message):
        run(MODELS, **changes)


def test_each_pool_draws_from_a_stream_of_its_own_and_a_single_one_from_the_run_s():
    def draws(base: dict) -> list[list[float]]:
        made = pools_of(groups_of(spec(base)), "random", np.random.SeedSequence(5, spawn_key=(100,)))
        return [pool.rng.random(3).tolist() for pool in made.pools]

    one, other = draws(MODELS)
    assert one != other
    assert draws(DAY) == [np.random.default_rng(np.random.SeedSequence(5, spawn_key=(100,))).random(3).tolist()]


def test_a_workload_made_elsewhere_is_held_to_the_models_too():
    with pytest.raises(ConfigError, match="name no model"):
        simulate(spec(MODELS), workload=build_workload(spec(DAY).workload, 1))


def test_each_model_has_its_own_limit_on_lengths():
    groups = copy.deepcopy(MODELS["cluster"]["groups"])
    groups[2]["engine"] = {"max_model_len": 600}
    limits = limits_of(groups_of(spec(MODELS, cluster__groups=groups)))
    assert limits[HARD] == 600 < limits[CHAT]
    with pytest.raises(TraceError, match=f"longer than the limit of 600 tokens of its model {HARD}"):
        run(MODELS, cluster__groups=groups)
    dropped = run(MODELS, cluster__groups=groups, workload__on_long="drop")
    total = dropped.requests["prompt_tokens"] + dropped.requests["output_tokens"]
    longest = total.groupby(dropped.requests["model"]).max()
    assert longest[HARD] <= 600 < longest[CHAT]
    lost = dropped.summary["requests"]["dropped_from_trace"]
    assert set(lost) == {"prompt_too_long", "total_too_long"}
    assert len(dropped.requests) == 200 - sum(lost.values())
    everything = run(MODELS)
    kept = everything.requests[(everything.requests["model"] == CHAT)]["arrival_ns"]
    assert set(kept) <= set(dropped.requests["arrival_ns"]), "only what is too long for its own model is left out"
    clipped = run(MODELS, cluster__groups=groups, workload__on_long="clip")
    both = clipped.requests["prompt_tokens"] + clipped.requests["output_tokens"]
    assert both[clipped.requests["model"] == HARD].max() <= 600
    same = clipped.requests["model"] == CHAT
    assert clipped.requests["prompt_tokens"][same].equals(everything.requests["prompt_tokens"][same])


def test_a_trace_may_say_which_model_each_row_asks_for(tmp_path):
    table = pd.DataFrame(
        {
            "arrival_s": [0.0, 0.1, 0.2, 0.3],
            "prompt_tokens": [100, 200, 300, 400],
            "output_tokens": 20,
            "model": [CHAT, HARD, CHAT, HARD],
        }
    )
    table.to_csv(tmp_path / "asked.csv", index=False)
    result = run(MODELS, workload={"trace": str(tmp_path / "asked.csv")})
    assert result.requests["model"].tolist() == [CHAT, HARD, CHAT, HARD]
    assert (result.requests["replica"] == 3).tolist() == [False, True, False, True]


def test_two_runs_are_the_same_bytes_and_step_by_step_is_too():
    for base in (MODELS | {"scheduler": "sarathi"}, DAY):
        texts = [json.dumps(run(base, **how).summary) for how in ({}, {}, {"step_by_step": True})]
        assert texts[0] == texts[1] == texts[2]


def test_gpu_seconds_are_the_time_that_replicas_were_there_times_their_cards():
    result = run(DAY)
    service = result.summary["replicas"]
    (group,) = service["groups"]
    end = service["until_s"]
    assert end == pytest.approx(result.requests["finish_ns"].max() / 1e9)
    assert [(row["at_s"], row["starting"], row["serving"]) for row in group["timeline"][:3]] == [
        (0.0, 0, 2),
        (10.0, 2, 2),
        (15.0, 0, 4),
    ]
    assert [drain["replica"] for drain in group["drains"]] == [1, 2, 3]
    left = {drain["replica"]: drain["removed_at_s"] + drain["drain_s"] for drain in group["drains"]}
    last = result.iterations.groupby("replica")["end_ns"].max() / 1e9
    assert all(left[i] == pytest.approx(max(30.0, last[i])) for i in left)
    assert service["replica_seconds"] == pytest.approx(end + left[1] + left[2] - 10 + left[3] - 10)
    assert service["gpu_seconds"] == pytest.approx(service["replica_seconds"])
    four = run(DAY, calibration="h100/llama-3.1-70b-tp4", scheduler="vllm_v1").summary["replicas"]
    assert four["gpu_seconds"] == pytest.approx(4 * four["replica_seconds"])
    assert "4 from 15 s" in comparison([result])


def test_busy_share_and_kv_count_a_replica_while_it_is_there():
    result = run(DAY)
    service, batches = result.summary["replicas"], result.summary["batches"]
    first = result.requests["arrival_ns"].min() / 1e9
    there = service["replica_seconds"] - 2 * first  # the span begins with the first arrival
    took = (result.iterations["end_ns"] - result.iterations["start_ns"]) / 1e9
    assert batches["busy_share"] == pytest.approx(took.sum() / there)
    used = (result.iterations["kv_used_blocks"] * took).sum() / there
    assert result.summary["kv"]["mean_used_blocks"] == pytest.approx(used)
    assert 0 < batches["max_replica_busy_share"] <= 1
    evidence = result.summary["saturation"]["evidence"]
    assert 0 < evidence["busy_share"] <= evidence["busiest_replica_share"] <= 1


def test_a_pool_that_nobody_serves_for_a_while_holds_its_requests_and_one_that_never_is_served_is_an_error():
    late = [{"replicas": 0, "schedule": [{"at_s": 20, "replicas": 2}]}]
    result = run(DAY, cluster__groups=late)
    waited = result.summary["replicas"]["waited_for_a_replica"]
    early = result.requests[result.requests["arrival_ns"] < 20e9]
    assert waited["requests"] == len(early) > 0
    assert waited["longest_s"] == pytest.approx(20 - early["arrival_ns"].min() / 1e9)
    assert (early["first_scheduled_ns"] >= 20e9).all()
    gone = [{"replicas": 1, "schedule": [{"at_s": 20, "replicas": 0}]}]
    with pytest.raises(StalledError, match="no replica is in service then or later; keep one"):
        run(DAY, cluster__groups=gone)
    cut = run(DAY, cluster__groups=gone, horizon_s=40.0)
    held = cut.requests[cut.requests["replica"] == -1]
    assert len(held) == cut.summary["replicas"]["waited_for_a_replica"]["unserved"] > 0
    assert set(held["status"]) == {"unfinished"}
    assert cut.summary["sent"] == (cut.requests["arrival_ns"] <= 40e9).sum()


def test_steps_after_the_run_s_end_are_told_and_those_before_it_are_not():
    def told(**more: object) -> list[str]:
        return [note for note in run(DAY, **more).summary["notes"] if "schedule step" in note]

    assert told() == []
    late = [*SCHEDULE, {"at_s": 5000, "replicas": 2}]
    (note,) = told(cluster__groups=[{"replicas": 2, "schedule": late}])
    assert note.startswith("1 of 3 schedule steps comes after the run ended (")
    assert "raise workload.num_requests (arrivals must last to the last step, at 5000 s)" in note
    (note,) = told(cluster__groups=[{"replicas": 2, "schedule": late}], horizon_s=20.0)
    assert note.startswith("2 of 3 schedule steps come after the run ended (20 s): horizon_s ends it earlier")


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"schedule": []}, "schedule has no step"),
        ({"schedule": [{"at_s": 0, "replicas": 3}]}, r"cluster\.groups\.0\.schedule\.0\.at_s must be above 0"),
        (
            {"schedule": [{"at_s": 9, "replicas": -1}]},
            r"cluster\.groups\.0\.schedule\.0\.replicas must be at least 0 but got -1",
        ),
        (
            {"schedule": [{"at_s": 9, "replicas": 1}, {"at_s": 9, "replicas": 2}]},
            r"cluster\.groups\.0\.schedule: steps must be in order of time, but at_s 9 follows 9; sort them",
        ),
        ({"schedule": [{"at_s": 9}]}, "needs 'replicas'"),
        ({"schedule": [{"at": 9, "replicas": 2}]}, "no option 'at'"),
        ({"schedule": [{"at_s": 9, "replicas": 2, "startup_lag_s": -1}]}, "startup_lag_s must be at least 0"),
        ({"replicas": 0, "schedule": [{"at_s": 9, "replicas": 0}]}, "serves nobody; drop it"),
        (
            {"replicas": 0},
            r"cluster\.groups\.0\.replicas must be at least 1 but got 0; a group with a schedule may begin with 0",
        ),
        (
            {"schedule": [{"at_s": 9, "replicas": 200_000}]},
            "replicas of a group over the whole run must be at least 0 and",
        ),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(group, message):
    with pytest.raises(ConfigError, match=message):
        spec(DAY, cluster__groups=[group])


def test_a_capacity_of_a_schedule_and_a_count_over_groups_are_refused_with_a_remedy():
    with pytest.raises(ConfigError, match=r"a group of cluster\.groups has a schedule; leave it out"):
        check_rate(spec(DAY))
    with pytest.raises(
        ConfigError, match="groups hold 4 replicas, over their schedules, but replicas is 3; leave replic"
    ):
        spec(DAY, cluster__replicas=3)


def test_a_run_with_models_and_schedules_is_written_and_read_again():
    for base in (MODELS, DAY):
        one = spec(base)
        assert load_runs(mapping=yaml.safe_load(dump_run(one)))[0] == one


def test_what_a_calibration_serves_is_its_model_without_the_cards_that_share_it():
    assert model_and_gpus("llama-3.1-70b-tp4") == ("llama-3.1-70b", 4)
    assert model_and_gpus("mistral-7b") == ("mistral-7b", 1)
    assert all("-tp" not in model_and_gpus(name.split("/")[1])[0] for name in list_calibrations())


@pytest.mark.parametrize("name", ["day", "fleet"])
def test_the_examples_run(name):
    mapping = read_run(EXPERIMENTS / f"{name}.yaml")
    put(mapping, "workload.num_requests", 300)
    result = simulate(load_runs(mapping=mapping)[0])
    assert result.summary["completed"] == 300
    assert ("models" in result.summary) == (name == "fleet")
    assert ("replicas" in result.summary) == (name == "day")


def test_hundreds_of_replicas_of_several_gpus_and_models_that_come_and_go():
    groups = [
        {"replicas": 120, "calibration": f"h100/{CHAT}"},
        {
            "replicas": 80,
            "calibration": f"l40s/{CHAT}",
            "schedule": [{"at_s": 2, "replicas": 140}, {"at_s": 4, "replicas": 60}],
        },
        {"replicas": 60, "calibration": f"h200/{HARD}"},
        {"replicas": 40, "calibration": f"h100/{HARD}-tp2"},
        {
            "replicas": 30,
            "calibration": "a100/mistral-7b",
            "schedule": [{"at_s": 3, "replicas": 0}, {"at_s": 5, "replicas": 30}],
        },
    ]
    classes = [
        {"name": "chat", "share": 0.5, "model": CHAT},
        {"name": "hard", "share": 0.3, "model": HARD},
        {"name": "old", "share": 0.2, "model": "mistral-7b"},
    ]
    changes = {"cluster__groups": groups, "workload__classes": classes, "workload__num_requests": 900}
    result = run(MODELS, **changes, workload__arrivals={"kind": "poisson", "rate": 150.0})
    requests, summary = result.requests, result.summary
    assert summary["completed"] == 900
    first, last = {CHAT: 0, HARD: 260, "mistral-7b": 360}, {CHAT: 259, HARD: 359, "mistral-7b": 419}
    assert (requests["replica"] >= requests["model"].map(first)).all()
    assert (requests["replica"] <= requests["model"].map(last)).all()
    removed = {drain["replica"] for group in summary["replicas"]["groups"] for drain in group["drains"]}
    assert len(removed) == 80 + 30
    assert requests[requests["model"] == "mistral-7b"]["queue_s"].max() > 1, "some waited for a replica to come"
    hard = [group for group in summary["replicas"]["groups"] if group["model"] == HARD]
    assert [group["gpus_per_replica"] for group in hard] == [1, 2]


def test_limits_without_names_ask_for_nothing():
    workload = build_workload(spec(MODELS).workload, 1)
    check_models(None, workload.slo_classes, workload.slo_index)
    check_models(4096, workload.slo_classes, workload.slo_index)
