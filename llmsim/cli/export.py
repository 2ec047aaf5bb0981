"""`llmsim export`: a saved run in the files of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmsim.cli.console import warn


def export(
    run_dirs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_DIR...", help="Directory that --out of simulate made; several for vllm-sweep."),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="FORMAT", help="mooncake (trace), vllm-bench, vllm-sweep (records), or chrome-trace."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write, gzipped if it ends in .gz (default: in the run's directory)."),
    ] = None,
    from_s: Annotated[float | None, typer.Option(help="chrome-trace: leave out what ended before, seconds.")] = None,
    to_s: Annotated[float | None, typer.Option(help="chrome-trace: leave out what began after, seconds.")] = None,
) -> None:
    """Write a run for aiperf, vLLM's plots, guidellm or Perfetto."""
    from llmsim.exports import Window, export_runs

    written = export_runs(run_dirs, to, out, Window(from_s, to_s))
    print(written.path)
    for note in written.notes:
        warn(f"note: {note}")
