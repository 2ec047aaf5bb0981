"""Find the workloads that ship with llmsim, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from llmsim.data import data_folders
from llmsim.errors import TraceError, nearest


def names() -> list[str]:
    """Names of all shipped workloads, sorted."""
    return sorted({file.stem for folder in data_folders("traces") for file in folder.glob("*.json")})


def find(name: str) -> Path:
    """File of the shipped workload called `name`; TraceError with a suggestion if there is none."""
    for folder in data_folders("traces"):
        file = folder / f"{name}.json"
        if file.is_file():
            return file
    raise TraceError(
        f"no shipped workload is called {name!r} and there is no such file.{nearest(name, names())}"
    )


def resolve(trace: str) -> Path:
    """File of a path or a shipped name: an existing file or pipe wins; a bare word is looked up.

    TraceError otherwise.
    """
    path = Path(trace)
    if path.is_file() or path.is_fifo() or len(path.parts) != 1 or path.suffix:
        return path
    return find(trace)
