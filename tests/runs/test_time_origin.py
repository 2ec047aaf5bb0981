"""Warm-up, horizon, schedules and GPU-seconds count from the first request of a trace, whatever the file's own zero."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from llmsim.errors import ConfigError
from llmsim.runs.manifest import versions
from llmsim.runs.simulation import Run, simulate
from llmsim.runs.streaming import simulate_stream
from llmsim.spec.run_spec import as_run
from llmsim.sweep.points import Task
from llmsim.sweep.worker import run_task
from tests.command import typed

OFFSET_S = 862_919
COUNT, GAP_S = 120, 0.5


@pytest.fixture
def traces(tmp_path: Path) -> tuple[Path, Path]:
    """The same requests for a minute, of a file that begins at 0, and of one that begins ten days later."""
    for offset in (0, OFFSET_S):
        rows = "".join(f"{offset + i * GAP_S},ChatGPT,{50 + i},{20 + i % 7}\n" for i in range(COUNT))
        (tmp_path / f"{offset}.csv").write_text("Timestamp,Model,Request tokens,Response tokens\n" + rows)
    return tmp_path / "0.csv", tmp_path / f"{OFFSET_S}.csv"


def spec(trace: Path, **more: Any) -> dict[str, Any]:
    workload = {"trace": str(trace), **more.pop("workload", {})}
    return {"calibration": "a100/llama-3-8b", "scheduler": "vllm_v1", "workload": workload, **more}


GROUPS = [{"replicas": 1, "schedule": [{"at_s": 20, "replicas": 2}, {"at_s": 40, "replicas": 1}]}]
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "warm-up": {"warmup_s": 30},
    "horizon": {"horizon_s": 20},
    "both": {"warmup_s": 5, "horizon_s": 20},
    "schedule": {"cluster": {"groups": GROUPS}},
    "slower": {"warmup_s": 30, "workload": {"time_scale": 2}},
    "rate": {"warmup_s": 10, "workload": {"arrivals": {"kind": "trace", "rate": 4}}},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_the_summary_does_not_know_the_files_zero(traces: tuple[Path, Path], options: dict[str, Any]) -> None:
    early, late = (simulate(spec(trace, **copy.deepcopy(options))) for trace in traces)
    streamed = simulate_stream(spec(traces[1], **copy.deepcopy(options)))
    assert early.summary == late.summary == streamed.summary
    assert any("862,919 s" in line for line in late.warnings())
    assert streamed.warnings() == late.warnings()
    assert streamed.manifest["workload"] == late.manifest["workload"]


def test_what_is_left_out_sent_and_paid_for(traces: tuple[Path, Path]) -> None:
    _, trace = traces
    assert simulate(spec(trace, warmup_s=30)).summary["requests"]["warmup_excluded"] == 60
    assert simulate(spec(trace, horizon_s=20)).summary["requests"]["not_sent"] == COUNT - 40
    paid = simulate(spec(trace, cluster={"groups": GROUPS})).summary["replicas"]["gpu_seconds"]
    assert paid == pytest.approx((COUNT - 1) * GAP_S + 20, abs=2), "the last answer ends soon after the last arrival"


@pytest.mark.parametrize("scheduled", [False, True])
def test_a_run_that_sends_nothing_is_an_error(traces: tuple[Path, Path], tmp_path: Path, scheduled: bool) -> None:
    cluster = {"cluster": {"groups": GROUPS}} if scheduled else {}
    unsent = spec(traces[1], horizon_s=60, workload={"keep_clock": True}, **cluster)
    words = r"no request was sent: .* at 60 s .*862,919 s; give a later --horizon; or leave out --keep-clock"
    with pytest.raises(ConfigError, match=words):
        simulate(copy.deepcopy(unsent))
    with pytest.raises(ConfigError, match=words):
        simulate_stream(copy.deepcopy(unsent), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*")), "nothing is left of it"
    drawn = {"lengths": {"prompt": 100, "output": 5}, "arrivals": {"kind": "poisson", "rate": 0.01}, "num_requests": 3}
    with pytest.raises(ConfigError, match="no request was sent"):
        simulate({**unsent, "workload": drawn, "horizon_s": 0.001})


def test_the_command_says_so_and_fails(traces: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    run = ["--trace", traces[1], "--calibration", "a100/llama-3-8b", "--scheduler", "vllm_v1", "--horizon", "60"]
    for more in ([], ["--stream"]):
        said = typed(capfd, "simulate", *run, "--keep-clock", *more)
        assert (said.returncode != 0, "no request was sent" in said.stderr) == (True, True)
        assert typed(capfd, "simulate", *run, *more).returncode == 0


def test_with_its_own_clock_a_file_is_as_it_was(traces: tuple[Path, Path]) -> None:
    run = Run(as_run(spec(traces[1], workload={"keep_clock": True})))
    assert run.workload.first_arrival_ns == OFFSET_S * 10**9
    assert simulate(spec(traces[0], workload={"keep_clock": True})).summary == simulate(spec(traces[0])).summary


def test_a_sweep_keeps_the_note(traces: tuple[Path, Path]) -> None:
    outcome = run_task(Task("k", 0, 0, as_run(spec(traces[1])), {}, versions()["llmsim"]))
    assert not outcome.error, outcome.error
    assert "862,919 s" in outcome.figures["notes"]
