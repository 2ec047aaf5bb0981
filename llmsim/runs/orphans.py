"""Worker processes end with the process that started them, however it ended: kill -9 leaves it no time to tell them."""

from __future__ import annotations

import os
import threading
import time

LOOK_EVERY_S = 0.5
"""Between two looks at who the parent is: workers are gone well within a second, and a look costs microseconds."""


def end_with(parent: int) -> None:
    """Initializer of a worker: end this process, at once and silently, when process `parent` is its parent no more.

    The number is asked for again and again as that works on Linux and macOS alike. An end of file on a pipe would not
    tell, since each worker inherits its siblings' ends; Linux' PR_SET_PDEATHSIG fires when the thread that started the
    worker ends, and executors start workers from threads. Who is orphaned before this begins ends with the first look.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True, name="end with parent").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY_S)
    os._exit(1)  # nobody is left to hand a result or an error to
