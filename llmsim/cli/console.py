"""stderr of the command line: progress bars and warnings."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from llmsim.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from rich.progress import Progress, ProgressColumn


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


def bars(*columns: ProgressColumn) -> Progress:
    """Progress bars on stderr, with these columns on their right; none where stderr is no terminal."""
    from rich.progress import BarColumn, Progress, TextColumn

    left = (TextColumn("{task.description}"), BarColumn())
    return Progress(*left, *columns, console=stderr(), transient=True, disable=not stderr().is_terminal)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars on stderr, one a stage, with the time left; gives the function (stage, done, total) to call."""
    from rich.progress import MofNCompleteColumn, TimeRemainingColumn

    with bars(MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield tell
