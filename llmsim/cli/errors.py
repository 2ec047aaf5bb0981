"""Errors as they are printed; one in a policy of the user's own begins at their first line, nothing of ours above."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from llmsim.errors import LlmsimError, place

OURS = Path(__file__).parents[1]
INSTALLED = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]


def explained(error: Exception) -> str | None:
    """What to print of an error: one line if llmsim raised it, with the place in the user's code that it came from; the
    user's traceback if their code did; None if the error is ours."""
    theirs = list(_users_part(error.__traceback__))
    if isinstance(error, LlmsimError):
        at = place(theirs[-1].tb_frame.f_code.co_filename, theirs[-1].tb_lineno) if theirs else ""
        said = not at or at.rpartition(":")[0] in str(error)
        return _shortened(f"error: {error}" + ("" if said else f" ({at})"))
    if theirs:
        return "".join(traceback.format_exception(error.with_traceback(theirs[0]))).rstrip()
    return f"error: {error}" if isinstance(error, OSError) else None


LONGEST = 2000
"""Characters of a line; a value of megabytes in a message helps nobody."""


def _shortened(text: str) -> str:
    half = LONGEST // 2
    lines = text.split("\n")
    return "\n".join(x if len(x) <= LONGEST else f"{x[:half]} ... {x[-half:]}" for x in lines)


def _users_part(trace: TracebackType | None) -> Iterator[TracebackType]:
    """The calls of the user's own code that llmsim made."""
    inside = False
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        inside = inside or path.is_relative_to(OURS)
        if inside and path.is_absolute() and not any(path.is_relative_to(folder) for folder in (OURS, *INSTALLED)):
            yield trace
        trace = trace.tb_next
