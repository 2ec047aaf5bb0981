"""`llmsim sweep` as a person types it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from llmsim.cli import app
from llmsim.sweep.grid import load_grid
from llmsim.sweep.points import plan_of
from tests.command import typed
from tests.effort import ALL
from tests.sweep.grids import GRID, grid_file

ROOT = Path(__file__).resolve().parents[2]


def invoke(*arguments):
    return CliRunner().invoke(app, ["sweep", *map(str, arguments)], catch_exceptions=False)


def test_the_table_shows_points_changes_and_where_the_files_are(tmp_path):
    path, out = grid_file(tmp_path), tmp_path / "out"
    done = invoke(path, "--out", out, "--workers", 1)
    assert done.exit_code == 0
    text = done.stdout
    assert text.startswith("small: 4 points, 3 seeds, 12 runs; mean ± half of its 95 % interval over seeds\n")
    assert "rate  scheduler" in text
    assert "Against scheduler=vllm_v1: change in %, seed by seed\n" in text
    assert "12 runs done now, 0 before" in text
    only = invoke(path, "--out", out, "--workers", 1, "--show", "kv.mean_share").stdout
    assert "kv.mean_share" in only
    assert "p99" not in only
    assert "0 runs done now, 12 before" in only


def test_json_holds_both_tables(tmp_path):
    done = invoke(grid_file(tmp_path, seeds=2), "--out", tmp_path / "out", "--workers", 1, "--json")
    found = json.loads(done.stdout)
    assert (len(found["results"]), found["failed"], found["fields"]) == (8, 0, list(GRID["grid"]))
    frame = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert found["results"][3]["p99_ttft_ms"] == frame["p99_ttft_ms"][3]
    assert {row["figure"] for row in found["means"]} >= {"p99_ttft_ms", "slo.attainment"}


def test_a_dry_run_shows_points_number_and_time_and_keeps_its_run(tmp_path):
    path, out = grid_file(tmp_path), tmp_path / "out"
    done = invoke(path, "--out", out, "--dry-run", "--workers", 1)
    assert "   3  workload.arrivals.rate=2.5, scheduler=sarathi,chunk_size=256" in done.stdout
    assert "4 points x 3 seeds (0, 1, 2): 12 runs, 11 to do" in done.stdout
    assert "on this process: a run took " in done.stdout
    assert len(list((out / "points").iterdir())) == 1


def test_failed_runs_are_listed_and_make_the_exit_code_1(tmp_path):
    path = grid_file(tmp_path, grid={"engine.num_blocks": [4000, 100]}, reference=None, seeds=1)
    stopped = subprocess.run(
        [sys.executable, "-m", "llmsim", "sweep", str(path), "--out", str(tmp_path / "out"), "--workers", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert stopped.returncode == 1
    assert stopped.stderr.startswith("error: the run engine.num_blocks=100, seed=0 failed: CapacityError: ")
    done = invoke(path, "--out", tmp_path / "out", "--workers", 1, "--continue-on-error")
    assert done.exit_code == 1
    assert "Failed: 1 of 2 runs" in done.stdout
    assert "failed 1/1" in done.stdout


def test_shards_in_folders_of_their_own_are_merged(tmp_path):
    path = grid_file(tmp_path)
    for at in (1, 2):
        part = invoke(path, "--shard", f"{at}/2", "--out", tmp_path / str(at), "--workers", 1)
        assert "6 of other shards are missing" in part.stdout
    merged = invoke("--merge", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "all")
    assert merged.exit_code == 0
    whole = invoke(path, "--out", tmp_path / "whole", "--workers", 1)
    assert merged.stdout.split("\n\n")[:-1] == whole.stdout.split("\n\n")[:-1]
    for name in ("results.parquet", "means.parquet"):
        assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shard", "3/2"], "i from 1 to n"),
        (["--shard", "x"], "--shard must be I/N"),
        (["--show", "p99_tft_ms"], "Did you mean 'p99_ttft_ms'?"),
        (["--set", "engine.num_block=5"], "Did you mean 'num_blocks'?"),
        (["another.yaml"], "takes one grid file but got 2"),
        (["--merge", "--workers", "2"], "--merge runs nothing, so --workers has no meaning there"),
        (["--dry-run", "--json"], "leave out --json"),
        (["--merge"], "is no folder of a sweep"),
        (["--dask", "tcp://127.0.0.1:1", "--workers", "2"], "exclude each other"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(tmp_path, arguments, said, capfd):
    path = grid_file(tmp_path, seeds=1, grid=None, reference=None)
    done = typed(capfd, "sweep", path, "--out", tmp_path / "o", *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    errors = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to a group of processes")
@pytest.mark.parametrize(("workers", "sent"), [(1, signal.SIGINT), (2, signal.SIGINT), (2, signal.SIGTERM)])
def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(tmp_path, workers, sent):
    base = GRID["base"] | {"workload": GRID["base"]["workload"] | {"num_requests": 2500}}
    path, out = grid_file(tmp_path, base=base), tmp_path / "out"
    command = [sys.executable, "-m", "llmsim", "sweep", str(path), "--out", str(out), "--workers", str(workers)]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # A shell's background jobs, this test among them perhaps, ignore SIGINT and pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    until = time.monotonic() + 60
    while len(list(out.glob("points/[!.]*.json"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    if sent == signal.SIGINT:
        os.killpg(running.pid, sent)  # as a terminal does: to the workers, too
    else:
        running.send_signal(sent)  # as docker does: to the command alone
    _, stderr = running.communicate(timeout=60)
    kept = len(list(out.glob("points/[!.]*.json")))
    assert running.returncode == 128 + sent
    assert 2 <= kept < 12
    assert f"{kept} runs are kept in {out}; the same command goes on" in stderr
    assert not list(out.glob("points/.*"))
    if ALL or workers == 1:
        done = invoke(path, "--out", out, "--workers", 1)
        assert f"{12 - kept} runs done now, {kept} before" in done.stdout
    else:  # what is kept counts
        assert f"12 runs, {12 - kept} to do" in invoke(path, "--out", out, "--workers", 1, "--dry-run").stdout


def test_the_guide_works_as_written(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "sweeps.md").read_text()
    (tmp_path / "grid.yaml").write_text(re.findall(r"```yaml\n(.*?)```", text, re.S)[0])
    plan, _ = plan_of(load_grid(tmp_path / "grid.yaml"))
    assert (len(plan.points), len(plan.seeds)) == (12, 5)
    monkeypatch.chdir(tmp_path)
    grid_file(tmp_path, seeds=1)
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        if "Client" not in block:  # the cluster's lines are those of test_dask.py
            exec(block, {})
    assert (tmp_path / "sweeps" / "demo" / "results.parquet").is_file()
