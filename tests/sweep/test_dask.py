"""A real dask cluster on loopback, one scheduler and two worker processes; one worker is killed in mid-sweep."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from llmsim.errors import ConfigError
from llmsim.sweep import sweep_grid
from tests.sweep.grids import GRID, grid

pytest.importorskip("distributed", reason="dask.distributed is not installed (it is in the dev extra)")
pytestmark = pytest.mark.slow

WAIT_S = 60


@contextmanager
def cluster(folder, workers=2):
    """(the scheduler's address, the worker processes); all are gone at the end."""
    file = folder / "scheduler.json"
    tool = [sys.executable, "-m"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    scheduler = [*tool, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    worker = [*tool, "distributed.cli.dask_worker", "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny"]
    worker += ["--no-dashboard", "--scheduler-file", str(file)]
    started = [subprocess.Popen([*scheduler, "--scheduler-file", str(file)], **quiet)]
    try:
        until = time.monotonic() + WAIT_S
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.05)
        started += [subprocess.Popen(worker, **quiet) for _ in range(workers)]
        yield json.loads(file.read_text())["address"], started[1:]
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


class Killer:
    """Kills a worker after a few runs, and remembers how many runs were reported."""

    def __init__(self, workers, after: int) -> None:
        self.workers, self.after, self.seen = workers, after, []

    def __call__(self, done: int, total: int) -> None:
        self.seen.append(done)
        if done == self.after:
            self.workers[0].kill()


def test_a_worker_that_is_killed_loses_no_run_and_doubles_none(tmp_path):
    base = GRID["base"] | {"workload": GRID["base"]["workload"] | {"num_requests": 800}}
    mapping = grid(base=base, seeds=6)
    with cluster(tmp_path) as (address, workers):
        wait_for(address, 2)
        killer = Killer(workers, after=5)
        found = sweep_grid(mapping, tmp_path / "dask", dask=address, progress=killer)
        assert workers[0].wait(timeout=10) != 0
        assert workers[1].poll() is None
    assert killer.seen == list(range(25))
    assert found.failed.empty
    assert not found.frame.duplicated(["point", "seed"]).any()
    sweep_grid(mapping, tmp_path / "here", workers=1)
    for name in ("results.parquet", "means.parquet"):
        assert (tmp_path / "dask" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_failures_of_runs_come_back_from_the_cluster(tmp_path):
    changes = {"grid": {"engine.num_blocks": [100, 4000]}, "reference": None}
    with cluster(tmp_path, workers=1) as (address, _):
        found = sweep_grid(grid(**changes), tmp_path / "out", dask=address, continue_on_error=True)
    assert found.failed["error"].str.startswith("CapacityError: ").tolist() == [True] * 3


def test_a_cluster_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr("llmsim.sweep.executors.CONNECT_S", 1)
    with pytest.raises(ConfigError, match="no scheduler can be reached there"):
        sweep_grid(grid(), dask="tcp://127.0.0.1:9")


def test_a_cluster_without_workers_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("llmsim.sweep.executors.CONNECT_S", 2)
    with cluster(tmp_path, workers=0) as (address, _), pytest.raises(ConfigError, match="has no worker; start some"):
        sweep_grid(grid(), dask=address)


def wait_for(address: str, workers: int) -> None:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=WAIT_S)
