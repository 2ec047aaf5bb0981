"""stderr of the command line: progress and warnings."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from llmsim.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from rich.progress import ProgressColumn

MODES = ("auto", "bar", "plain", "none")
"""What --progress takes."""
EVERY_S = 10.0
"""Seconds before the first line of progress where nobody asked for lines, and between lines."""
ASKED_S = 1.0
"""Seconds before the first line with --progress plain, which ends with a line, too."""


@cache
def stderr() -> Console:
    """The console that progress bars draw on."""
    from rich.console import Console

    return Console(stderr=True)


def warn(line: str) -> None:
    """One line on stderr."""
    print(line, file=sys.stderr)


def say(line: str, as_json: bool) -> None:
    """One line on stdout, or on stderr if stdout holds JSON."""
    print(line, file=sys.stderr if as_json else sys.stdout)


def need_torch(what: str) -> None:
    """Raise ConfigError, with what to install, if there is no torch for `what`."""
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise ConfigError(
            f"{what} runs a real model and needs torch, which is not installed: `make live` sets it up in a checkout; "
            "elsewhere pip install 'llmsim[live]' (CPU) or 'llmsim[gpu]' (CUDA, with FlashInfer)"
        )


class Lines:
    """Progress as a line now and then, for logs: what rich's Progress has of methods, and a thread that prints."""

    def __init__(self, *, asked: bool) -> None:
        self._asked = asked
        self._tasks: list[dict[str, Any]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._print, daemon=True)

    def __enter__(self) -> Lines:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._asked and self._tasks:
            warn(self._line(self._tasks[-1], time.monotonic()))

    def add_task(self, description: str, total: float | None = None) -> int:
        """A task more, which is the one that is told from now on."""
        self._tasks.append({"description": description, "completed": 0, "total": total, "began": time.monotonic()})
        return len(self._tasks) - 1

    def update(self, task: int, **changes: Any) -> None:
        """New values of a task: completed, total, description."""
        self._tasks[task].update(changes)

    def _print(self) -> None:
        wait = ASKED_S if self._asked else EVERY_S
        while not self._over.wait(wait):
            wait = EVERY_S
            if self._tasks:
                warn(self._line(self._tasks[-1], time.monotonic()))

    def _line(self, task: dict[str, Any], now: float) -> str:
        """As `sarathi: 1,200 of 2,000, 6 s, about 4 s left`."""
        done, total, spent = task["completed"], task["total"], now - task["began"]
        of = "" if total is None else f" of {total:,}"
        left = f", about {spent / done * (total - done):,.0f} s left" if total and 0 < done < total else ""
        return f"{task['description']}: {done:,}{of}, {now - self._began:,.0f} s{left}"


def bars(mode: str, *columns: ProgressColumn) -> Any:
    """Progress on stderr, as --progress says: bars with these columns on their right, lines, or nothing.

    A context with add_task and update as rich's Progress has them. ConfigError for an unknown mode.
    """
    from rich.progress import BarColumn, Progress, TextColumn

    if mode not in MODES:
        raise ConfigError(f"--progress must be one of {', '.join(MODES)} but got {mode!r}")
    if mode == "plain" or (mode == "auto" and not stderr().is_terminal):
        return Lines(asked=mode == "plain")
    left = (TextColumn("{task.description}"), BarColumn())
    return Progress(*left, *columns, console=stderr(), transient=True, disable=mode == "none")


@contextmanager
def stages(mode: str) -> Iterator[Callable[[str, int, int], None]]:
    """Progress on stderr, a bar a stage, with the time left; gives the function (stage, done, total) to call."""
    from rich.progress import MofNCompleteColumn, TimeRemainingColumn

    with bars(mode, MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield tell
