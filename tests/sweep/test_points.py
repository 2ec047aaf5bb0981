"""Runs known by their content; a seed that is the same workload in every variant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llmsim.errors import ConfigError
from llmsim.runs.simulation import Run
from llmsim.sweep import worker
from llmsim.sweep.grid import load_grid
from llmsim.sweep.inputs import check
from llmsim.sweep.points import plan_of, shard_of
from llmsim.sweep.worker import run_task
from tests.sweep.grids import GRID, grid, grid_file, trace_file

VARIED = {
    "scheduler": ["vllm_v1", "sarathi", "orca"],
    "cluster.replicas": [1, 3],
    "cluster.router": ["least_work", "random"],
    "engine.num_blocks": [4000, 8000],
}


def tasks_of(**changes):
    return plan_of(load_grid(grid(**changes)))[1]


def keys(**changes):
    return plan_of(load_grid(grid(**changes)))[0].keys


def test_a_seed_is_the_same_workload_in_every_variant_and_another_seed_another():
    tasks = tasks_of(grid=VARIED, reference=None, seeds=2)
    workloads = {seed: [Run(task.spec).workload for task in tasks if task.seed == seed] for seed in (0, 1)}
    for mine in workloads.values():
        assert len(mine) == 24
        for other in mine:
            for name in ("arrival_ns", "prompt_tokens", "output_tokens", "slo_index"):
                assert np.array_equal(getattr(other, name), getattr(mine[0], name))
    assert not np.array_equal(workloads[0][0].prompt_tokens, workloads[1][0].prompt_tokens)
    assert not np.array_equal(workloads[0][0].arrival_ns, workloads[1][0].arrival_ns)


def test_at_another_rate_lengths_stay_and_arrivals_keep_their_proportions():
    slow, fast = (Run(task.spec).workload for task in tasks_of(seeds=1)[::2])
    assert np.array_equal(slow.prompt_tokens, fast.prompt_tokens)
    assert np.array_equal(slow.output_tokens, fast.output_tokens)
    assert np.allclose(slow.arrival_ns, 2.5 * fast.arrival_ns, atol=3)


def test_long_runs_are_streamed_with_the_same_figures(monkeypatch):
    (task,) = tasks_of(seeds=1)[:1]
    whole = run_task(task)
    monkeypatch.setattr(worker, "STREAMED_FROM", 1)
    assert run_task(task).figures == whole.figures
    assert len(whole.figures) > 50


def test_outcomes_tell_what_workloads_share():
    outcomes = [run_task(task) for task in tasks_of(seeds=1)]
    assert len({outcome.lengths for outcome in outcomes}) == 1
    assert len({outcome.requests for outcome in outcomes}) == 2
    assert outcomes[0].requests == outcomes[1].requests != outcomes[2].requests


def test_a_key_is_content_names_and_writing_do_not_matter():
    base = GRID["base"]
    assert keys() == keys(name="other", base=base | {"name": "other"})
    line = {**GRID["grid"], "scheduler": ["vllm_v1", {"name": "sarathi", "chunk_size": 256}]}
    assert keys() == keys(grid=line)
    changed = keys(base=base | {"warmup_s": 1.0})
    assert not {key for row in keys() for key in row} & {key for row in changed for key in row}


def test_data_is_known_by_digest_not_by_path(tmp_path):
    one, two = (trace_file(tmp_path / name / "t.csv") for name in ("a", "b"))
    base = GRID["base"] | {"workload": {"trace": "t.csv"}}
    varied = {"scheduler": ["vllm_v1", "orca"]}
    plans = []
    for trace in (one, two):
        path = grid_file(trace.parent, base=base, grid=varied)
        plan, tasks = plan_of(load_grid(path))
        plans.append(plan)
        assert tasks[0].spec.workload.trace == str(trace)
    assert plans[0] == plans[1]
    trace_file(two, prompt=101)
    assert plan_of(load_grid(two.parent / "grid.yaml"))[0] != plans[0]


def test_a_policy_file_is_part_of_the_key(tmp_path, monkeypatch):
    source = "from llmsim import ContinuousBatching\nclass Mine(ContinuousBatching):\n    '''Mine.'''\n"
    (tmp_path / "mine.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    varied = {"scheduler": ["mine.py:Mine", "vllm_v1"]}
    before = keys(grid=varied)
    assert not run_task(tasks_of(grid=varied)[0]).failed
    (tmp_path / "mine.py").write_text(source + "\n# a comment is a change, too\n")
    after = keys(grid=varied)
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_a_worker_refuses_another_file_and_another_version(tmp_path):
    trace = trace_file(tmp_path / "t.csv")
    (task,) = tasks_of(base=GRID["base"] | {"workload": {"trace": str(trace)}}, grid=None, reference=None, seeds=1)
    check(task.digests)
    trace_file(trace, prompt=500)
    with pytest.raises(ConfigError, match="but the sweep was planned with"):
        check(task.digests)
    assert "copy the same file to every machine" in run_task(task).error
    trace.unlink()
    assert run_task(task).error.startswith("TraceError: ")
    assert "the sweep was planned with 9.9" in run_task(replace(task, version="9.9")).error


def test_shards_are_a_partition():
    tasks = tasks_of(seeds=5)
    parts = [shard_of(tasks, (at, 3)) for at in (1, 2, 3)]
    assert sorted(task.key for part in parts for task in part) == sorted(task.key for task in tasks)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(ConfigError, match="i from 1 to n"):
        shard_of(tasks, (0, 3))


def test_groups_and_predictors_vary_and_their_calibrations_are_known_by_content():
    groups = [{"replicas": 1}, {"replicas": 2, "calibration": "a100/mistral-7b", "scheduler": "sarathi"}]
    base = GRID["base"] | {"cluster": {"groups": groups}, "scheduler": {"name": "niyama", "predictor": "published"}}
    varied = {
        "cluster.groups.1.scheduler.chunk_size": [256, 512],
        "scheduler.predictor": ["published", "a100/mistral-7b"],
    }
    tasks = tasks_of(base=base, grid=varied, reference=None, seeds=1)
    assert [task.spec.cluster.groups[1].scheduler["chunk_size"] for task in tasks] == [256, 256, 512, 512]
    assert set(tasks[0].digests) == {
        "calibration a100/mistral-7b", "calibration rtx-6000-ada/mistral-7b", "trace sharegpt4"
    }  # fmt: skip
    assert len({task.key for task in tasks}) == 4
    assert not run_task(tasks[1]).failed
