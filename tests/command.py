"""`llmsim` as a shell sees it, without a process of its own: what it writes and the code it ends with."""

from __future__ import annotations

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
