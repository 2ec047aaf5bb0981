"""stderr of the command line: progress bars and warnings."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@cache
def stderr() -> Console:
    """The console that progress bars draw on."""
    from rich.console import Console

    return Console(stderr=True)


def warn(line: str) -> None:
    """One line on stderr."""
    print(line, file=sys.stderr)
