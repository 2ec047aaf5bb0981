"""`llmsim report`: saved runs as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmsim.errors import ConfigError


def report(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR...", help="Directories that --out of simulate made.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Page to write (default: report.html in the run's directory, or here for several runs)."),
    ] = None,
) -> None:
    """Write one self-contained HTML page on one or several saved runs: who wins, latencies, timelines, provenance."""
    from llmsim.reports.run_report import write_report
    from llmsim.runs.results import Result

    for folder in run_dirs:
        _check(folder)
    results = [Result.load(folder) for folder in run_dirs]
    home = run_dirs[0] if len(run_dirs) == 1 else Path()
    print(write_report(results, out if out is not None else home / "report.html"))


def _check(folder: Path) -> None:
    """Raise ConfigError, with what to write instead, if `folder` holds run directories or is none."""
    from llmsim.runs.headline import META

    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ConfigError(f"{folder}: {what}; name a run directory, as `llmsim simulate --out runs` makes them")
    inside = sorted(path.parent for path in folder.glob(f"*/{META}"))
    if inside and not (folder / META).exists():
        raise ConfigError(f"{folder}: holds {len(inside)} run directories but is none: name them, as {folder}/*")
