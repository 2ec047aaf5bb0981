"""Every experiment runs, at a reduced size, as the notebook that a reader opens; script and notebook are one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from tests.effort import ALL

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).parents[2] / "experiments"
SCRIPTS = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
NEEDS_SHARED = ("08_vllm_real_run",)
"""They compare with measurements that are not shipped."""
IN_PROCESSES = ("04_sarathi_capacity",)
"""By default only this one starts a worker a core, as all do by themselves: twice the work at the reduced size."""
REMEDY = "run `make notebooks` and commit both"


def source(notebook) -> list[tuple[str, str]]:
    """Kind and text of each cell."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


@contextmanager
def on_one_core(wanted: bool) -> Iterator[None]:
    """Processes that start meanwhile see one core, so that `llmsim.sweep.workers()` starts no others."""
    if not wanted or not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    os.sched_setaffinity(0, {sorted(cores)[int(worker) % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def execute(client) -> None:
    """All cells. A port that was free when the kernel's were chosen may be another test's by now: once more, then."""
    try:
        client.execute()
    except RuntimeError as error:
        if not str(error).startswith("Kernel died before replying"):
            raise
        client.execute()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_and_notebook_hold_the_same_cells_and_no_outputs(script):
    pair = script.with_suffix(".ipynb")
    assert pair.is_file(), f"{pair.name} is missing; {REMEDY}"
    notebook = jupytext.read(pair)
    assert source(notebook) == source(jupytext.read(script)), f"{pair.name} differs from {script.name}; {REMEDY}"
    assert not any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_first_cell_asks_a_question(script):
    first = jupytext.read(script).cells[0]
    assert first.cell_type == "markdown"
    title = first.source.splitlines()[0]
    assert title.startswith("# ")
    assert "?" in title


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_runs_and_leaves_a_page_a_table_and_csv(script, tmp_path, monkeypatch, request):
    if script.stem in NEEDS_SHARED:
        monkeypatch.setenv("LLMSIM_SHARED", str(request.getfixturevalue("shared")))  # skips where there is none
    monkeypatch.setenv("LLMSIM_REDUCED", "1")
    monkeypatch.setenv("LLMSIM_RESULTS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    notebook = jupytext.read(script)
    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    )
    with on_one_core(not ALL and script.stem not in IN_PROCESSES):
        execute(client)
    left = tmp_path / script.stem
    page = (left / "page.html").read_text(encoding="utf-8")
    assert page.count("<script") >= 1
    assert "plotly" in page
    published = pd.read_csv(left / "published.csv")
    assert list(published.columns) == ["what", "published", "ours", "difference"]
    assert published["ours"].notna().all()
    assert len(list(left.glob("*.csv"))) >= 2, "besides the table, the data behind the figures"


def test_the_headline_prints_its_answer_as_one_json_object(tmp_path):
    environment = {**os.environ, "LLMSIM_REDUCED": "1", "LLMSIM_RESULTS": str(tmp_path)}
    command = [sys.executable, str(FOLDER / "02_slai_headline.py"), "--json", "--seeds", "2"]
    with on_one_core(not ALL):
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
    answer = json.loads(done.stdout)
    wanted = {
        "sarathi_capacity_rps", "slai_capacity_rps", "capacity_gain_pct", "median_ttft_cut_pct", "at_rps", "trace"
    }  # fmt: skip
    assert wanted <= set(answer)
    assert answer["slai_capacity_rps"] > answer["sarathi_capacity_rps"] > 0
    assert answer["trace"] == "sharegpt4"
    gain = 100 * (answer["slai_capacity_rps"] / answer["sarathi_capacity_rps"] - 1)
    assert answer["capacity_gain_pct"] == pytest.approx(gain, abs=0.05)
    assert answer["at_rps"] == answer["slai_capacity_rps"]


def test_a_trace_that_is_not_there_is_said_on_one_line(tmp_path):
    command = [sys.executable, str(FOLDER / "02_slai_headline.py"), "--json", "--trace", "nowhere.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "nowhere.csv" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_real_run_is_met_better_than_by_the_best_published_simulator(tmp_path, shared):
    environment = {**os.environ, "LLMSIM_SHARED": str(shared), "LLMSIM_RESULTS": str(tmp_path)}
    command = [sys.executable, str(FOLDER / "08_vllm_real_run.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
    answer = json.loads(done.stdout)
    best = answer["published_mean_errors_pct"]["LLMServingSim"]
    for metric, errors in answer["errors_pct"].items():
        assert abs(errors["mean"]) < abs(best[metric]), metric
    left_out = answer["left_out_mean_errors_pct"]
    assert left_out["none of these"]["TTFT"] < left_out["nothing"]["TTFT"] - 10


def test_without_the_measured_run_it_says_what_to_give(tmp_path):
    environment = {**os.environ, "LLMSIM_SHARED": str(tmp_path), "LLMSIM_RESULTS": str(tmp_path)}
    command = [sys.executable, str(FOLDER / "08_vllm_real_run.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 1
    assert "--trace" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
