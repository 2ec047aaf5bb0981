"""`llmsim` as a shell sees it: what it writes and the code it ends with; and processes that heed signals."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from llmsim.cli import main


def typed(capfd: pytest.CaptureFixture[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command with these arguments. Some test of every command starts a real process; errors need none."""
    words = [str(argument) for argument in arguments]
    capfd.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["llmsim", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    said = capfd.readouterr()
    return subprocess.CompletedProcess(words, int(ended.value.code or 0), said.out, said.err)


def heed_signals() -> None:
    """For `preexec_fn`: a shell's background jobs and nohup, these tests among them perhaps, ignore some and pass that
    on."""
    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(ignored, signal.SIG_DFL)
