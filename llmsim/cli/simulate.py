"""`llmsim simulate`: one workload through one or several schedulers, side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from llmsim.cli.console import bars, say, warn
from llmsim.cli.groups import expand_groups
from llmsim.cli.options import RunOptions, SimulationOptions
from llmsim.cli.run_spec import run_mappings, run_specs
from llmsim.cli.stopping import Terminated
from llmsim.errors import SaveError

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
    _run_all(run_specs(run, *mappings), _streamed if stream else _in_memory, run)


def _run_all(specs: list[RunSpec], serve: Serve, run: RunOptions) -> None:
    """Run, save and show them; after an interruption or an error, those that were done by then."""
    from rich.progress import TaskProgressColumn, TimeRemainingColumn

    from llmsim.runs.folders import check_out
    from llmsim.runs.labels import spec_names

    check_out(run.out)
    _check_inputs(specs)
    names = spec_names(specs)
    results: list[Headline] = []
    folders: list[Path] = []
    try:
        with bars(run.progress, TaskProgressColumn(), TimeRemainingColumn()) as bar:
            for at, (name, spec) in enumerate(zip(names, specs, strict=True), 1):
                task = bar.add_task(name if len(specs) == 1 else f"run {at} of {len(specs)}, {name}", total=None)
                result, folder = serve(spec, run.out, _updates(bar, task))
                results.append(result)
                folders += [] if folder is None else [folder]
    except BaseException as error:
        results += [error.result] if isinstance(error, SaveError) and error.result is not None else []
        with suppress(OSError):  # the first error is the one to tell
            if results:
                _show(results, folders, run)
            if (lost := names[len(results) :]) and (results or not isinstance(error, Exception)):
                warn(f"{_stopped(error)}: nothing kept of {', '.join(lost)}")
        raise
    _show(results, folders, run)


def _check_inputs(specs: Sequence[RunSpec]) -> None:
    """What a later run would find missing, before the first: raises what `simulate` raises."""
    from llmsim.runs.setup import RunSetup
    from llmsim.traces.files import packing_of
    from llmsim.traces.shipped import resolve

    for spec in specs if len(specs) > 1 else ():
        RunSetup(spec)
        path = None if spec.workload.trace is None else resolve(spec.workload.trace)
        if path is not None and (path.is_file() or not path.exists()):  # of a pipe nothing may be read twice
            packing_of(path)


def _stopped(error: BaseException) -> str:
    return "interrupted" if isinstance(error, KeyboardInterrupt | Terminated) else "stopped by an error"


def _updates(bar: Any, task: Any) -> Progress:
    return lambda done, total: bar.update(task, completed=done, total=total)


def _in_memory(spec: RunSpec, out: Path | None, progress: Progress) -> tuple[Result, Path | None]:
    from llmsim.runs.simulation import simulate

    result = simulate(spec, progress=progress)
    result = replace(result, manifest={"arguments": sys.argv[1:], **result.manifest})
    return result, None if out is None else result.save(out)


def _streamed(spec: RunSpec, out: Path | None, progress: Progress) -> tuple[StreamedResult, Path | None]:
    from llmsim.runs.streaming import simulate_stream

    result = simulate_stream(spec, out, progress=progress, arguments=sys.argv[1:])
    return result, result.folder


def _show(results: Sequence[Headline], directories: list[Path], run: RunOptions) -> None:
    from llmsim.runs.labels import run_names
    from llmsim.runs.text import comparison

    names = run_names(results)
    if run.as_json:
        told = [result.summary for result in results]
        if len(results) > 1 and names != [result.label for result in results]:  # more than the policy differs
            told = [{"run": name, **summary} for name, summary in zip(names, told, strict=True)]
        print(json.dumps(told, indent=2))
    else:
        print(comparison(results))
    _warn(names, results)
    for directory, name in zip(directories, names, strict=False):
        say(f"saved {directory} ({name})", run.as_json)


def _warn(names: Sequence[str], results: Sequence[Headline]) -> None:
    """What a reader must know, on stderr: each run's own lines, then those of all, and who left their calibration."""
    from llmsim.runs.headline import beyond_calibration

    own = [[line for line in r.warnings() if line != beyond_calibration([r])] for r in results]
    shared = [line for line in own[0] if len(own) > 1 and all(line in lines for lines in own)]
    for name, lines in zip(names, own, strict=True):
        for line in lines:
            if line not in shared:
                warn(f"warning: {name}: {line}")
    for line in (*shared, beyond_calibration(results)):
        if line:
            warn(f"warning: {line}")
