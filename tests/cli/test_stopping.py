"""Ctrl-C, SIGTERM and SIGHUP end `llmsim simulate` at once, with no draft left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from llmsim.cli import app
from llmsim.errors import ConfigError
from llmsim.runs.setup import RunSetup
from llmsim.studies.capacity import runs
from tests.command import heed_signals

LONG = [
    "simulate", "--calibration", "rtx-6000-ada/mistral-7b", "--trace", "sharegpt4", "--num-requests", "200000",
    "--rate", "2", "--on-long", "drop", "--scheduler", "sarathi", "--stream",
]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_streamed_run_and_leaves_no_draft(tmp_path, sent):
    out = tmp_path / "runs"
    running = subprocess.Popen(
        [sys.executable, "-m", "llmsim", *LONG, "--out", str(out)], stderr=subprocess.PIPE, text=True,
        preexec_fn=heed_signals,
    )  # fmt: skip
    until = time.monotonic() + 60
    while not list(out.glob(".*")) and running.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    assert running.poll() is None
    running.send_signal(sent)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 128 + sent
    assert list(out.iterdir()) == []
    # --out is tried with a draft of its own before the run: a signal may come as early as that
    assert stderr.startswith(("interrupted: nothing kept of sarathi\n", "interrupted\n", "terminated\n"))


@pytest.mark.parametrize("options", [["--stream"], []])
def test_schedulers_that_were_done_are_kept_and_shown(tmp_path, monkeypatch, capfd, options):
    def stop_at_orca(setup, *arguments, **named):
        if setup.label == "orca":
            raise KeyboardInterrupt
        return serve(setup, *arguments, **named)

    serve = RunSetup.serve
    monkeypatch.setattr(RunSetup, "serve", stop_at_orca)
    several = ["--scheduler", "sarathi", "--scheduler", "orca", "--scheduler", "vllm_v1"]
    few = ["20" if word == "200000" else word for word in LONG[: LONG.index("--scheduler")]]
    command = [*few, *several, *options, "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        app(command)
    (kept,) = tmp_path.iterdir()
    told = capfd.readouterr()
    assert stopped.value.code == 130
    assert told.out.endswith(f"saved {kept} (sarathi)\n")
    assert told.err.endswith("interrupted: nothing kept of orca, vllm_v1\n")


SEARCH = [
    "capacity", "--calibration", "h100/llama-3.1-8b", "--prompt-tokens", "1500", "--output-tokens", "300",
    "--keep", "p95_ttft<=1s", "--seeds", "3",
]  # fmt: skip


def test_an_interrupted_search_says_what_was_found_and_that_nothing_is_kept(monkeypatch, capfd):
    def stop_at_the_third_seed(case, criterion):
        if case.spec.seed == 2:
            raise KeyboardInterrupt
        return evaluate(case, criterion)

    evaluate = runs.evaluate
    monkeypatch.setattr(runs, "evaluate", stop_at_the_third_seed)
    with pytest.raises(SystemExit) as stopped:
        app([*SEARCH, "--num-requests", "40", "--workers", "1", "--precision", "0.2"])
    told = capfd.readouterr()
    assert (stopped.value.code, told.out) == (130, "")
    said, first, second = told.err.splitlines()[-3:]
    assert said == "nothing is kept on disk; searches that had ended: 2"
    assert first.startswith("  sarathi, seed 0: keeps ")
    assert second.startswith("  sarathi, seed 1: keeps ")


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_ctrl_c_ends_a_search_on_worker_processes_at_once_and_quietly():
    running = subprocess.Popen(
        [sys.executable, "-m", "llmsim", *SEARCH, "--num-requests", "3000", "--workers", "2", "--progress", "plain"],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert running.stderr is not None
    assert "searches done" in running.stderr.readline()
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    began = time.monotonic()
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    assert time.monotonic() - began < 10  # well below a second on a machine with nothing else to do
    assert "nothing is kept on disk" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(("mode", "lines"), [("plain", True), ("none", False), ("auto", False)])
def test_progress_without_a_terminal_is_lines_on_stderr_if_any(capfd, mode, lines):
    few = ["30" if word == "200000" else word for word in LONG[:-1]]
    app([*few, "--progress", mode], standalone_mode=False)
    told = capfd.readouterr()
    assert ("sarathi: 30 of 30, " in told.err) == lines
    assert "TTFT" in told.out


def test_an_unknown_kind_of_progress_is_refused():
    with pytest.raises(ConfigError, match="--progress must be one of auto, bar, plain, none but got 'dots'"):
        app([*LONG, "--progress", "dots"], standalone_mode=False)
