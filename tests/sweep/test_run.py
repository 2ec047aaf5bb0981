"""The same tables wherever runs are run; what is done is kept, and not done again."""

from __future__ import annotations

import json
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pandas as pd
import pytest

from llmsim import sweep_grid
from llmsim.errors import ConfigError, SweepError
from llmsim.runs.simulation import simulate
from llmsim.sweep import merge_sweeps
from llmsim.sweep.executors import pool
from llmsim.sweep.grid import load_grid
from llmsim.sweep.points import plan_of
from llmsim.sweep.worker import NO_FIGURES
from tests.sweep.grids import GRID, grid, grid_file

RUNS = 12
TIGHT = {"engine.num_blocks": [4000, 100]}
"""100 KV blocks cannot hold the longest prompts: those runs fail."""


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """The sweep in this process, and its folder."""
    folder = tmp_path_factory.mktemp("serial")
    return sweep_grid(grid(), folder, workers=1)


def tables(folder):
    return [(folder / name).read_bytes() for name in ("results.parquet", "means.parquet")]


def points(folder):
    return sorted(path.name for path in (folder / "points").iterdir())


class Counted:
    """Counts runs, and interrupts the sweep at one of them."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.done, self.stop_at = 0, stop_at

    def __call__(self, done: int, total: int) -> None:
        self.done = done
        if done == self.stop_at:
            raise KeyboardInterrupt


def test_a_row_is_the_summary_of_its_run(serial):
    assert len(serial.frame) == RUNS
    assert serial.frame.columns.is_unique
    _, tasks = plan_of(load_grid(grid()))
    task = tasks[7]
    summary = simulate(task.spec).summary
    row = serial.frame.query(f"point == {task.point} and seed == {task.seed}").iloc[0]
    assert row["scheduler"] == "sarathi,chunk_size=256"
    assert row["workload.arrivals.rate"] == task.spec.workload.arrivals.rate
    assert row["kv.mean_share"] == summary["kv"]["mean_share"]
    plain = {k: v for k, v in summary.items() if not isinstance(v, dict | list) and k not in NO_FIGURES}
    assert {key: row[key] for key in plain} == plain


@pytest.mark.parametrize("how", ["processes", "threads", "shards", "one folder"])
def test_tables_are_the_same_bytes_whatever_ran_them(tmp_path, serial, how):
    out = tmp_path / "out"
    if how == "processes":
        sweep_grid(grid(), out, workers=2)
    elif how == "threads":
        with ThreadPoolExecutor(2) as executor:
            sweep_grid(grid(), out, executor=executor)
    elif how == "shards":
        folders = [tmp_path / str(at) for at in (1, 2, 3)]
        for at, folder in enumerate(folders, 1):
            part = sweep_grid(grid(), folder, workers=1, shard=(at, 3))
            assert (part.ran, part.missing) == (4, 8)
            assert not (folder / "results.parquet").exists()
        merge_sweeps(folders, out)
    else:
        for at in (2, 1):
            sweep_grid(grid(), out, workers=1, shard=(at, 2))
        assert sweep_grid(grid(), out, workers=1).ran == 0
    assert tables(out) == tables(serial.folder)
    assert points(out) == points(serial.folder)


def test_without_a_folder_the_tables_are_the_same(serial):
    found = sweep_grid(grid(), workers=1)
    pd.testing.assert_frame_equal(found.frame, serial.frame)
    pd.testing.assert_frame_equal(found.means, serial.means)
    pd.testing.assert_frame_equal(pd.read_parquet(serial.folder / "results.parquet"), serial.frame)
    pd.testing.assert_frame_equal(pd.read_parquet(serial.folder / "means.parquet"), serial.means)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path, serial, workers):
    with pytest.raises(KeyboardInterrupt):
        sweep_grid(grid(), tmp_path, workers=workers, progress=Counted(stop_at=5))
    kept = len(points(tmp_path))
    assert 5 <= kept < RUNS
    assert not (tmp_path / "results.parquet").exists()
    again = sweep_grid(grid(), tmp_path, workers=1)
    assert (again.ran, again.reused) == (RUNS - kept, kept)
    assert tables(tmp_path) == tables(serial.folder)


def test_a_changed_grid_or_base_runs_what_changed_and_says_so(tmp_path):
    sweep_grid(grid(), tmp_path, workers=1)
    wider = sweep_grid(grid(grid=GRID["grid"] | {"workload.arrivals.rate": [1, 2.5, 4]}), tmp_path, workers=1)
    assert (wider.ran, wider.reused) == (6, 12)
    assert "12 of 18 runs are as they were, 6 are new, 0 left it" in wider.warnings[0]
    other = sweep_grid(grid(base=GRID["base"] | {"horizon_s": 20.0}), tmp_path, workers=1)
    assert (other.ran, other.reused) == (12, 0)
    assert len(pd.read_parquet(tmp_path / "results.parquet")) == 12
    assert sweep_grid(grid(), tmp_path, workers=1).ran == 0


def test_the_first_error_stops_and_keeps_what_is_done(tmp_path):
    changes = {"grid": TIGHT, "reference": None}
    with pytest.raises(SweepError) as error:
        sweep_grid(grid(**changes), tmp_path, workers=1)
    said = str(error.value)
    assert "the run engine.num_blocks=100, seed=0 failed: CapacityError: " in said
    assert "1 of 6 runs are done and kept in" in said
    assert len(points(tmp_path)) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_going_on_past_errors_lists_them_with_spec_and_error(tmp_path, workers):
    changes = {"grid": TIGHT, "reference": {"engine.num_blocks": 4000}}
    found = sweep_grid(grid(**changes), tmp_path, workers=workers, continue_on_error=True)
    assert len(found.failed) == 3
    assert set(found.failed["engine.num_blocks"]) == {100}
    assert found.failed["error"].str.startswith("CapacityError: ").all()
    assert found.failed["p99_ttft_ms"].isna().all()
    assert "Failed: 3 of 6 runs\n  engine.num_blocks=100, seed=0: CapacityError: " in found.text()
    kept = [json.loads((tmp_path / "points" / name).read_text()) for name in points(tmp_path)]
    failed = [run for run in kept if run["error"]]
    assert {run["spec"]["engine"]["num_blocks"] for run in failed} == {100}
    again = sweep_grid(grid(**changes), tmp_path, workers=1, continue_on_error=True)
    assert (again.ran, again.reused) == (3, 3)


def test_an_error_that_is_no_llmsim_error_leaves_its_traceback(tmp_path, monkeypatch):
    (tmp_path / "bad.py").write_text(
        "from llmsim import ContinuousBatching\nclass Bad(ContinuousBatching):\n    '''Bad.'''\n"
        "    def order_waiting(self, now):\n        raise KeyError('mine')\n"
    )
    monkeypatch.chdir(tmp_path)
    changes = {"grid": {"scheduler": ["bad.py:Bad"]}, "reference": None, "seeds": 1}
    with pytest.raises(SweepError, match="KeyError: 'mine'") as error:
        sweep_grid(grid(**changes), workers=1)
    assert 'line 5, in order_waiting\n    raise KeyError("mine")'.replace('"', "'") in str(error.value)


class Broken(Executor):
    """Runs some calls and then breaks down."""

    def __init__(self, runs: int) -> None:
        self.left = runs

    def submit(self, fn, /, *args, **kwargs):
        self.left -= 1
        future: Future = Future()
        if self.left < 0:
            future.set_exception(BrokenProcessPool("a worker was killed"))
        else:
            future.set_result(fn(*args, **kwargs))
        return future


def test_workers_that_break_down_fail_no_run(tmp_path):
    with pytest.raises(SweepError, match="the same command goes on"):
        sweep_grid(grid(), tmp_path, executor=Broken(4), continue_on_error=True)
    assert len(points(tmp_path)) <= 4
    assert sweep_grid(grid(), tmp_path, workers=1, continue_on_error=True).failed.empty


def test_what_is_damaged_or_foreign_is_named(tmp_path, serial):
    done = sweep_grid(grid(), tmp_path / "a", workers=1, shard=(1, 2))
    path = tmp_path / "a" / "points" / points(tmp_path / "a")[0]
    with pytest.raises(SweepError, match="6 of 12 runs are in none of these folders"):
        merge_sweeps([tmp_path / "a"], tmp_path / "m")
    other = sweep_grid(grid(seeds=2), tmp_path / "b", workers=1)
    with pytest.raises(ConfigError, match="holds another sweep than"):
        merge_sweeps([done.folder, other.folder], tmp_path / "m")
    with pytest.raises(ConfigError, match="is no folder of a sweep"):
        merge_sweeps([tmp_path / "none"], tmp_path / "m")
    path.write_text('{"key": "')
    with pytest.raises(ConfigError, match=f"{path.name}.*delete it and run the sweep again"):
        sweep_grid(grid(), tmp_path / "a", workers=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="this is a file"):
        sweep_grid(grid(), tmp_path / "file")


def test_one_place_to_run_is_given(tmp_path):
    with pytest.raises(ConfigError, match="workers and dask exclude each other"), pool(2, "tcp://x:1"):
        pass
    with pytest.raises(ConfigError, match="at least 1"):
        sweep_grid(grid_file(tmp_path), workers=0)
