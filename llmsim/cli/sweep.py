"""`llmsim sweep`: a grid of runs, resumed where it stopped, as one table."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmsim.cli.console import stages, warn
from llmsim.cli.options import Json, Progress, Workers
from llmsim.cli.stopping import Terminated
from llmsim.errors import ConfigError, SaveError

if TYPE_CHECKING:
    from llmsim.sweep import Sweep


def sweep(
    grid: Annotated[list[Path], typer.Argument(help="The grid's YAML file; with --merge, folders of shards.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs and tables; sweeps/NAME by default.", show_default=False)
    ] = None,
    workers: Workers = None,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on the dask cluster of this scheduler.")
    ] = None,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Run the I-th of N parts, I from 1.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Put the folders of shards together.")] = False,
    continue_on_error: Annotated[bool, typer.Option(help="Go on past runs that fail, and list them.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Show the points; run the first to say how long all take.")] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Any option of the base run.")] = None,
    show: Annotated[list[str] | None, typer.Option(help="Print this figure (a column); repeat for more.")] = None,
    progress: Progress = "auto",
    as_json: Json = False,
) -> None:
    """Run every point of a grid with every seed; runs that are done already are not run again.

    Each run is on disk as soon as it is done, so after an interruption the same command goes on.
    """
    if merge:
        others = {"--workers": workers, "--dask": dask, "--shard": shard, "--set": overrides}
        others |= {"--continue-on-error": continue_on_error, "--dry-run": dry_run}
        _found(lambda: _merge(grid, out, [flag for flag, value in others.items() if value]), show or [], as_json)
        return
    if len(grid) != 1:
        raise ConfigError(f"sweep takes one grid file but got {len(grid)}; --merge takes several folders of shards")
    part = None if shard is None else _shard(shard)
    if dry_run and as_json:
        raise ConfigError("--dry-run prints text; leave out --json")
    if dry_run:
        from llmsim.sweep.estimate import estimate

        folder = _folder(grid[0], out)
        print(estimate(grid[0], folder, overrides=overrides or [], shard=part, workers=workers, dask=dask).text())
        return
    _found(
        lambda: _run(grid[0], out, overrides or [], part, workers, dask, continue_on_error, progress),
        show or [],
        as_json,
    )


def _merge(folders: list[Path], out: Path | None, others: list[str]) -> Sweep:
    from llmsim.sweep import merge_sweeps

    if others:
        raise ConfigError(f"--merge runs nothing, so {others[0]} has no meaning there; leave it out")
    if out is None:
        raise ConfigError("--merge needs --out: the folder that the shards are put together in")
    return merge_sweeps(folders, out)


def _shard(text: str) -> tuple[int, int]:
    at, slash, count = text.partition("/")
    if not (slash and at.isdigit() and count.isdigit()):
        raise ConfigError(f"--shard must be I/N, such as 1/4, but got {text!r}")
    return int(at), int(count)


def _folder(grid: Path, out: Path | None) -> Path:
    from llmsim.sweep.grid import load_grid

    return out if out is not None else Path("sweeps") / load_grid(grid).name


def _run(
    grid: Path,
    out: Path | None,
    overrides: list[str],
    shard: tuple[int, int] | None,
    workers: int | None,
    dask: str | None,
    continue_on_error: bool,
    progress: str,
) -> Sweep:
    from llmsim.sweep import sweep_grid

    folder = _folder(grid, out)
    try:
        with stages(progress) as tell:
            return sweep_grid(
                grid, folder, workers=workers, dask=dask, shard=shard, continue_on_error=continue_on_error,
                overrides=overrides, progress=lambda done, total: tell("runs", done, total),
            )  # fmt: skip
    except (KeyboardInterrupt, Terminated):
        done = len(list((folder / "points").glob("[!.]*.json")))
        warn(f"{done} runs are kept in {folder}; the same command goes on")
        raise


def _found(find: Callable[[], Sweep], figures: list[str], as_json: bool) -> None:
    """Show what was found, also if its tables could not be saved, which is raised then."""
    try:
        sweep = find()
    except SaveError as error:
        if error.result is not None:
            with suppress(typer.Exit):
                _show(error.result, figures, as_json)
        raise
    _show(sweep, figures, as_json)


def _show(sweep: Sweep, figures: list[str], as_json: bool) -> None:
    """Tables on stdout, warnings on stderr; exit code 1 if a run failed."""
    from llmsim.sweep.files import json_text

    for line in sweep.warnings:
        warn(f"warning: {line}")
    if as_json:
        print(json_text(sweep))
    else:
        print(sweep.text(figures))
        print(f"\n{_where(sweep)}")
    if len(sweep.failed):
        raise typer.Exit(1)


def _where(sweep: Sweep) -> str:
    from llmsim.sweep.store import MEANS, RESULTS

    runs = f"{sweep.ran} runs done now, {sweep.reused} before"
    if sweep.missing:
        return (
            f"{runs}; {sweep.missing} of other shards are missing in {sweep.folder}. Once they are there, the same "
            "command without --shard makes the tables; from several folders, --merge does"
        )
    return f"{runs}; {sweep.folder} holds {RESULTS} and {MEANS}"
