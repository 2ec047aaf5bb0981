"""SIGTERM (a job's time limit, `docker stop`) ends the command as Ctrl-C does: through its context managers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

CODE = 143
"""128 + SIGTERM, as a shell reports a process that this signal ended."""


class Terminated(SystemExit):
    """SIGTERM came. A SystemExit, since that is what typer, SimPy and asyncio let through."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises Terminated in this block, once: a second one does not disturb the cleaning up.

    Only in the main thread, and only where nobody else handles the signal or asked for it to be ignored. A process
    forked from here dies of the signal as it would have without us.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    owner = os.getpid()

    def stop(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        signal.signal(number, signal.SIG_IGN)
        raise Terminated(CODE)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
