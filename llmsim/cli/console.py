"""stderr of the command line: progress bars and warnings."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console


@cache
def stderr() -> Console:
    """The console that progress bars draw on."""
    from rich.console import Console

    return Console(stderr=True)


def warn(line: str) -> None:
    """One line on stderr."""
    print(line, file=sys.stderr)


def need_torch(what: str) -> None:
    """Raise ConfigError, with what to install, if there is no torch for `what`."""
    from importlib.util import find_spec

    from llmsim.errors import ConfigError

    if find_spec("torch") is None:
        raise ConfigError(
            f"{what} runs a real model and needs torch, which is not installed: `make live` sets it up in a checkout; "
            "elsewhere pip install 'llmsim[live]' (CPU) or 'llmsim[gpu]' (CUDA, with FlashInfer)"
        )


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars on stderr, one a stage, with the time left; gives the function (stage, done, total) to call."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True, disable=not stderr().is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield tell
