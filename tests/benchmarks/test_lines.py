"""What `make bench` prints: every line whole, whatever the machine's speed."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
from pathlib import Path

import pytest

from llmsim.benchmarks import scale, speed
from llmsim.benchmarks.workloads import Workload

LINE = {"name", "scheduler", "load", "requests_per_s", "iterations_per_s", "simpy_timeouts_per_s", "peak_rss_mib"}


def test_a_workload_gives_one_line_with_its_target():
    workload = Workload("W1", "a100/llama-3-8b", "vllm_v1", 0.9, 300)
    line = speed.measure(workload, repeats=1)
    assert set(line) >= LINE | {"target", "ratio", "repeats"}
    assert line["target"] == 34_000
    assert line["requests"] == 300
    assert line["iterations"] > 300
    assert line["ratio"] > 0


def test_the_workloads_are_those_of_the_targets():
    measured = {(w.name, w.scheduler, w.load) for w in speed.workloads(10_000)}
    assert measured >= set(speed.TARGETS)
    assert {(case.requests, case.replicas) for case in scale.cases()} >= set(scale.TARGETS)


def test_scale_lines_end_with_how_cost_grows(monkeypatch):
    monkeypatch.setattr(scale, "cases", lambda most: [
        scale.Scale(400, 2), scale.Scale(800, 2),
        scale.Scale(400, 1, over_replicas=True), scale.Scale(400, 4, over_replicas=True),
    ])  # fmt: skip
    *runs, requests, replicas = scale.scale_lines(multiprocessing.get_context("spawn"))
    assert [run["requests"] for run in runs] == [400, 800, 400, 400]
    assert all(set(run) >= LINE | {"wall_s", "cpu_us_per_request", "replicas"} for run in runs)
    assert isinstance(requests["exponent"], float)
    assert set(replicas["cpu_us_per_request"]) == {1, 4}


def test_make_bench_hands_its_arguments_on():
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    root = Path(__file__).resolve().parents[2]
    told = subprocess.run(
        ["make", "-n", "bench", "ARGS=--only scale"], cwd=root, capture_output=True, text=True, check=True
    )
    assert "-m llmsim.benchmarks --only scale\n" in told.stdout
