"""SIGTERM (a job's time limit, `docker stop`) and SIGHUP (its terminal went away) end the command as Ctrl-C does:
through its context managers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])
BASE = 128
"""A shell reports a process that a signal ended as this and the signal's number."""


class Terminated(SystemExit):
    """One of SIGNALS came. A SystemExit, since that is what typer, SimPy and asyncio let through."""


@contextmanager
def terminable() -> Iterator[None]:
    """The first of SIGNALS raises Terminated in this block; later ones do not disturb the cleaning up.

    Only in the main thread, and only signals that nobody else handles or asked to be ignored (nohup). A process forked
    from here dies of the signal as it would have without us.
    """
    mine = [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread() or not mine:
        yield
        return
    owner = os.getpid()

    def stop(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        for each in mine:
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(BASE + number)

    for number in mine:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)
