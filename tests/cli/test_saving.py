"""Finished results are shown whatever happens when they are saved, and what cannot be written is an error."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile

import pandas as pd
import pytest

from llmsim.cli import bench
from llmsim.cli.options import RunOptions
from llmsim.errors import CapacityError, SaveError
from llmsim.runs import headline
from llmsim.runs.folders import check_out, write_whole
from llmsim.runs.parquet import TableFiles
from llmsim.runs.results import Result
from llmsim.runs.setup import RunSetup
from llmsim.sweep.store import Store
from tests.client.scripted import spec
from tests.client.test_bench import measure
from tests.command import typed
from tests.sweep.grids import grid_file

RUN = [
    "simulate", "--calibration", "h100/llama-3.1-8b", "--trace", "sharegpt4", "--num-requests", "20", "--rate", "2",
]  # fmt: skip
SHOWN = "TTFT"
FULL = "No space left on device"


def full_disk(*arguments, **named):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def shell(line):
    """The command under a shell, buffering what it prints as it does into a file or pipe."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = ["bash", "-o", "pipefail", "-c", line.replace("llmsim", f"{sys.executable} -m llmsim", 1)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
@pytest.mark.parametrize("command", ["llmsim schedulers", "llmsim calibrations show h100/llama-3.1-8b --json"])
@pytest.mark.parametrize(
    ("stdout", "why"), [(">/dev/full", FULL), ("1</dev/null", "Bad file descriptor"), (">&-", "stdout is closed")]
)
def test_a_stdout_that_cannot_be_written_is_one_line_and_an_error(command, stdout, why):
    told = shell(f"{command} {stdout}")
    assert told.returncode == 1
    assert len(told.stderr.splitlines()) == 1
    assert told.stderr.startswith("error: stdout ")
    assert why in told.stderr


@pytest.mark.parametrize("command", ["llmsim schedulers", "llmsim calibrations show h100/llama-3.1-8b --json"])
def test_a_reader_that_leaves_ends_the_command_quietly(command):
    told = shell(f"{command} | true")
    assert (told.returncode, told.stderr) == (0, "")


def test_an_error_is_told_beside_a_stdout_that_is_full():
    if not os.path.exists("/dev/full"):
        pytest.skip("needs a full device")
    told = shell("llmsim calibrations show none/such >/dev/full")
    assert (told.returncode, told.stderr.count("\n")) == (1, 1)
    assert "none/such" in told.stderr


@pytest.mark.parametrize("options", [[], ["--stream"], ["--json"]])
def test_schedulers_before_one_that_fails_are_kept_and_shown(tmp_path, monkeypatch, capfd, options):
    def fail_at_orca(setup, *arguments, **named):
        if setup.label == "orca":
            raise CapacityError("planted")
        return serve(setup, *arguments, **named)

    serve = RunSetup.serve
    monkeypatch.setattr(RunSetup, "serve", fail_at_orca)
    several = ["--scheduler", "sarathi", "--scheduler", "orca", "--scheduler", "vllm_v1"]
    told = typed(capfd, *RUN, *several, *options, "--out", tmp_path)
    (kept,) = tmp_path.iterdir()
    assert told.returncode == 1
    assert ("sarathi" if options == ["--json"] else SHOWN) in told.stdout
    assert str(kept) in told.stdout + told.stderr
    assert "stopped by an error: nothing kept of orca, vllm_v1\nerror: planted" in told.stderr


@pytest.mark.parametrize("where", ["in memory", "streamed, at its end", "streamed, meanwhile"])
def test_a_run_that_cannot_be_saved_is_shown_and_leaves_no_draft(tmp_path, monkeypatch, capfd, where):
    holder, name = {
        "in memory": (pd.DataFrame, "to_parquet"),
        "streamed, at its end": (headline, "to_json"),
        "streamed, meanwhile": (TableFiles, "_write"),
    }[where]
    out = tmp_path / "runs"
    monkeypatch.setattr(holder, name, full_disk)
    told = typed(capfd, *RUN, "--out", out, *([] if where == "in memory" else ["--stream"]))
    assert told.returncode == 1
    assert (SHOWN in told.stdout) == (where != "streamed, meanwhile")
    assert told.stderr.splitlines()[-1].startswith(f"error: {out}")
    assert FULL in told.stderr.splitlines()[-1]
    assert list(out.iterdir()) == []


def test_out_is_tried_before_the_run(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(RunSetup, "serve", lambda *_, **__: pytest.fail("it ran"))
    (tmp_path / "file").write_text("")
    told = typed(capfd, *RUN, "--out", tmp_path / "file")
    assert (told.returncode, told.stdout) == (1, "")
    told = typed(capfd, *RUN, "--out", tmp_path / "file" / "below")
    assert (told.returncode, told.stdout) == (1, "")
    assert f"error: {tmp_path}/file/below: cannot be written: Not a directory" in told.stderr
    check_out(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.fixture(scope="module")
def measured():
    return measure()


@pytest.mark.parametrize("out", ["runs", None])
def test_what_bench_measured_is_kept_where_it_can_be_neither_saved_nor_shown(
    tmp_path, monkeypatch, capfd, measured, out
):
    def save(result, folder, **named):
        return full_disk() if folder == tmp_path / "runs" else kept(result, folder, **named)

    kept = Result.save
    monkeypatch.setattr(Result, "save", save)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if out is None:
        monkeypatch.setattr(bench, "_show", full_disk)
    run = RunOptions(out=None if out is None else tmp_path / out)
    with pytest.raises(OSError, match=FULL):
        bench._keep_and_show(measured, spec("http://127.0.0.1:1"), run)
    told = capfd.readouterr()
    assert (SHOWN in told.out) == (out is not None)
    (said,) = [line for line in told.err.splitlines() if line.startswith("what was measured is kept in ")]
    found = Result.load(said.removeprefix("what was measured is kept in "))
    pd.testing.assert_frame_equal(found.requests, measured.requests)


def test_a_sweep_whose_tables_cannot_be_saved_is_shown(tmp_path, monkeypatch, capfd):
    def save_tables(store, results, means):
        raise SaveError("planted")

    monkeypatch.setattr(Store, "save_tables", save_tables)
    told = typed(capfd, "sweep", grid_file(tmp_path), "--out", tmp_path / "out", "--workers", "1")
    assert told.returncode == 1
    assert "12 runs done now" in told.stdout
    assert "\nerror: planted" in told.stderr


def test_a_point_that_cannot_be_saved_is_named(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(os, "fsync", full_disk)
    told = typed(capfd, "sweep", grid_file(tmp_path), "--out", tmp_path / "out", "--workers", "1")
    assert told.returncode == 1
    assert told.stderr.startswith(f"error: {tmp_path}/out/sweep.json: cannot be written: {FULL}")
    assert list((tmp_path / "out").glob(".*")) == []


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    write_whole(page, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        patch.setattr(type(page), "replace", full_disk)
        with pytest.raises(SaveError, match=f"page.html: cannot be written: {FULL}"):
            write_whole(page, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert page.read_text() == "old"
    (tmp_path / "link").symlink_to(page)
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert page.read_text() == "new"
    write_whole(os.devnull, "gone")
    assert not os.path.isfile(os.devnull)
