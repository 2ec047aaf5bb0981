"""`llmsim simulate`: one workload through one or several schedulers, side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from llmsim.cli.console import bars, say, warn
from llmsim.cli.groups import expand_groups
from llmsim.cli.options import RunOptions, SimulationOptions
from llmsim.cli.run_spec import run_mappings, run_specs
from llmsim.cli.stopping import Terminated

if TYPE_CHECKING:
    from llmsim.runs.headline import Headline
    from llmsim.runs.results import Result
    from llmsim.runs.streaming import StreamedResult
    from llmsim.spec.run_spec import RunSpec

Progress: TypeAlias = "Callable[[int, int], None]"
Serve: TypeAlias = "Callable[[RunSpec, Path | None, Progress], tuple[Headline, Path | None]]"
"""Runs a spec and, given a directory, saves the run in a new one under it."""


@expand_groups()
def simulate(
    simulation: SimulationOptions,
    run: RunOptions,
    *,
    step_by_step: Annotated[bool, typer.Option(help="One event an iteration: slower, never different.")] = False,
    strict_range: Annotated[bool, typer.Option(help="Refuse batches outside what was measured.")] = False,
    stream: Annotated[
        bool, typer.Option(help="Memory for the requests in flight only; tables go to --out as the run goes on.")
    ] = False,
) -> None:
    """Serve a workload on a calibrated GPU model and show who wins.

    Options override the YAML file; several --scheduler serve the very same requests.
    """
    mappings = run_mappings(run, simulation)
    flags = {"step_by_step": step_by_step, "strict_range": strict_range}
    for mapping in mappings:
        mapping.update({flag: True for flag, value in flags.items() if value})
    _run_all(run_specs(run, *mappings), _streamed if stream else _in_memory, run.out, run.as_json)


@contextmanager
def _bars() -> Iterator[Callable[[RunSpec], Callable[[int, int], None]]]:
    """Progress bars on stderr, one a run; gives the function that makes the next one."""
    from rich.progress import TaskProgressColumn, TimeRemainingColumn

    from llmsim.runs.labels import scheduler_label

    with bars(TaskProgressColumn(), TimeRemainingColumn()) as bar:

        def begin(spec: RunSpec) -> Callable[[int, int], None]:
            task = bar.add_task(scheduler_label(spec.scheduler), total=None)
            return lambda done, total: bar.update(task, completed=done, total=total)

        yield begin


def _run_all(runs: list[RunSpec], serve: Serve, out: Path | None, as_json: bool) -> None:
    """Run, save and show them; after an interruption, those that were done by then."""
    results: list[Headline] = []
    folders: list[Path] = []
    try:
        with _bars() as bar:
            for spec in runs:
                result, folder = serve(spec, out, bar(spec))
                results.append(result)
                folders += [] if folder is None else [folder]
    except (KeyboardInterrupt, Terminated):
        _interrupted(runs, results, folders, as_json)
        raise
    _show(results, folders, as_json)


def _interrupted(runs: list[RunSpec], results: list[Headline], folders: list[Path], as_json: bool) -> None:
    """Show what was done, and say what was not."""
    from llmsim.runs.labels import scheduler_label

    if results:
        _show(results, folders, as_json)
    lost = ", ".join(scheduler_label(spec.scheduler) for spec in runs[len(results) :])
    if lost:
        warn(f"interrupted: nothing kept of {lost}")


def _in_memory(spec: RunSpec, out: Path | None, progress: Progress) -> tuple[Result, Path | None]:
    from llmsim.runs.simulation import simulate

    result = simulate(spec, progress=progress)
    result = replace(result, manifest={"arguments": sys.argv[1:], **result.manifest})
    return result, None if out is None else result.save(out)


def _streamed(spec: RunSpec, out: Path | None, progress: Progress) -> tuple[StreamedResult, Path | None]:
    from llmsim.runs.streaming import simulate_stream

    result = simulate_stream(spec, out, progress=progress, arguments=sys.argv[1:])
    return result, result.folder


def _show(results: Sequence[Headline], directories: list[Path], as_json: bool) -> None:
    from llmsim.runs.text import comparison

    if as_json:
        print(json.dumps([result.summary for result in results], indent=2))
    else:
        print(comparison(results))
    _warn(results)
    for directory, result in zip(directories, results, strict=False):
        say(f"saved {directory} ({result.label})", as_json)


def _warn(results: Sequence[Headline]) -> None:
    """What a reader must know, on stderr: each run's own lines, then those of all, and who left their calibration."""
    from llmsim.runs.headline import beyond_calibration

    own = [[line for line in r.warnings() if line != beyond_calibration([r])] for r in results]
    shared = [line for line in own[0] if len(own) > 1 and all(line in lines for lines in own)]
    for result, lines in zip(results, own, strict=True):
        for line in lines:
            if line not in shared:
                warn(f"warning: {result.label}: {line}")
    for line in (*shared, beyond_calibration(results)):
        if line:
            warn(f"warning: {line}")
