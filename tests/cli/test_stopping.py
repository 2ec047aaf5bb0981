"""Ctrl-C and SIGTERM end `llmsim simulate` at once, with no draft left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from llmsim.cli import app
from llmsim.runs.setup import RunSetup

LONG = [
    "simulate", "--calibration", "rtx-6000-ada/mistral-7b", "--trace", "sharegpt4", "--num-requests", "200000",
    "--rate", "2", "--on-long", "drop", "--scheduler", "sarathi", "--stream",
]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_streamed_run_and_leaves_no_draft(tmp_path, sent):
    out = tmp_path / "runs"
    running = subprocess.Popen(
        [sys.executable, "-m", "llmsim", *LONG, "--out", str(out)], stderr=subprocess.PIPE, text=True,
        # A shell's background jobs, this test among them perhaps, ignore SIGINT and pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    until = time.monotonic() + 60
    while not list(out.glob(".*")) and running.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    assert running.poll() is None
    running.send_signal(sent)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 128 + sent
    assert list(out.iterdir()) == []
    assert stderr.startswith("interrupted: nothing kept of sarathi\n")


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
