"""`llmsim simulate`: one workload through one or several schedulers, side by side."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from llmsim.cli.trace import Format, Map, column_map

if TYPE_CHECKING:
    from llmsim.runs.headline import Headline
    from llmsim.runs.results import Result
    from llmsim.runs.streaming import StreamedResult
    from llmsim.spec.run_spec import RunSpec

Progress: TypeAlias = "Callable[[int, int], None]"
Serve: TypeAlias = "Callable[[RunSpec, Path | None, Progress], tuple[Headline, Path | None]]"
"""Runs a spec and, given a directory, saves the run in a new one under it."""


def simulate(
    config: Annotated[Path | None, typer.Argument(help="YAML file describing the run.", show_default=False)] = None,
    trace: Annotated[
        str | None, typer.Option(help="Workload: a file, or a shipped one (sharegpt4, azure-code, azure-conv).")
    ] = None,
    calibration: Annotated[str | None, typer.Option(help="Batch-time model: device/model, or a file.")] = None,
    scheduler: Annotated[
        list[str] | None,
        typer.Option(help="NAME[,option=value...] (sarathi, vllm_v1, slai, ...) or file.py:Class; repeat to compare."),
    ] = None,
    format: Format = None,
    map: Map = None,
    on_bad: Annotated[str | None, typer.Option(help="Unusable rows of the trace: error (default), or drop.")] = None,
    on_long: Annotated[
        str | None, typer.Option(help="Over the model's limit: error (prompts; default), drop or clip (with answers).")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", "--request-rate", help="Poisson arrivals per second; inf: all at once.")
    ] = None,
    num_requests: Annotated[int | None, typer.Option("--num-requests", "--num-prompts", help="How many.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random stream.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Model instances behind the router.")] = None,
    horizon: Annotated[float | None, typer.Option(help="Stop after this many simulated seconds.")] = None,
    warmup: Annotated[float | None, typer.Option(help="Leave arrivals before this second out of latencies.")] = None,
    max_concurrency: Annotated[int | None, typer.Option(help="Closed loop: this many outstanding.")] = None,
    slo: Annotated[
        list[str] | None, typer.Option("--slo", "--goodput", help='Targets in ms: "ttft:200 tpot:50", or repeat it.')
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Any option: engine.num_blocks=8000")] = None,
    out: Annotated[Path | None, typer.Option(help="Save each run in a new directory under this one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summaries as JSON.")] = False,
    step_by_step: Annotated[bool, typer.Option(help="One event an iteration: slower, never different.")] = False,
    strict_range: Annotated[bool, typer.Option(help="Refuse batches outside what was measured.")] = False,
    stream: Annotated[
        bool, typer.Option(help="Memory for the requests in flight only; tables go to --out as the run goes on.")
    ] = False,
) -> None:
    """Serve a workload on a calibrated GPU model and show who wins.

    Options override the YAML file; several --scheduler serve the very same requests.
    """
    from llmsim.spec.run_spec import load_runs

    given = dict(
        trace=trace, calibration=calibration, format=format, map=map, on_bad=on_bad, on_long=on_long, rate=rate,
        num_requests=num_requests, seed=seed, replicas=replicas, horizon=horizon, warmup=warmup,
    )  # fmt: skip
    mapping = run_mapping(config, given, max_concurrency, slo, scheduler)
    for flag, value in (("step_by_step", step_by_step), ("strict_range", strict_range)):
        if value:
            mapping[flag] = True
    runs = load_runs(config, overrides or (), mapping)
    _run_all(runs, _streamed if stream else _in_memory, out, as_json)


KEYS = {
    "trace": "workload.trace",
    "format": "workload.format",
    "on_bad": "workload.on_bad",
    "on_long": "workload.on_long",
    "calibration": "calibration",
    "num_requests": "workload.num_requests",
    "seed": "seed",
    "replicas": "cluster.replicas",
    "horizon": "horizon_s",
    "warmup": "warmup_s",
}
"""Options of the command line and the keys of a run they set."""


def run_mapping(
    config: Path | None,
    given: dict[str, Any],
    max_concurrency: int | None,
    slo: list[str] | None,
    scheduler: list[str] | None,
) -> dict[str, Any]:
    """The YAML file (or nothing) with the options laid over it.

    `given` holds the options of KEYS, `map` and `rate`; None stands for an option that was not given.
    """
    from llmsim.spec.run_spec import put, read_run

    _refuse_target(config, slo)
    mapping: dict[str, Any] = {} if config is None else read_run(config)
    for option, key in KEYS.items():
        if given[option] is not None:
            put(mapping, key, given[option])
    if given["map"] is not None:
        put(mapping, "workload.columns", column_map(given["map"]))
    _set_arrivals(mapping, given["rate"], max_concurrency)
    if slo:
        mapping["slo"] = [item for entry in slo for item in entry.split()]
    if scheduler:
        mapping.pop("scheduler", None)
        mapping["schedulers"] = list(scheduler)
    return mapping


def _refuse_target(config: Path | None, slo: list[str] | None) -> None:
    """ConfigError for a target in the place of the run's file: vLLM's --goodput takes several values, ours one."""
    from llmsim.errors import ConfigError

    if config is not None and re.fullmatch(r"[a-z0-9]+:[0-9.]+", str(config)) and not config.exists():
        targets = " ".join([*(slo or ()), str(config)])
        raise ConfigError(
            f"{config} is read as the file of the run, as --slo takes one value; quote the targets, --slo "
            f'"{targets}", or give --slo once for each'
        )


def _set_arrivals(mapping: dict[str, Any], rate: float | None, max_concurrency: int | None) -> None:
    """--rate means Poisson arrivals unless the file names a process with a rate of its own."""
    from llmsim.spec.run_spec import put

    if rate is not None and max_concurrency is not None:
        raise typer.BadParameter("--rate and --max-concurrency exclude each other: an open or a closed loop")
    if max_concurrency is not None:
        put(mapping, "workload.arrivals", {"kind": "closed_loop", "max_concurrency": max_concurrency})
    if rate is not None:
        workload = mapping.get("workload")
        arrivals = workload.get("arrivals") if isinstance(workload, dict) else None
        kind = arrivals.get("kind") if isinstance(arrivals, dict) else None
        if kind in ("poisson", "gamma", "constant"):
            put(mapping, "workload.arrivals.rate", rate)
        else:
            put(mapping, "workload.arrivals", {"kind": "poisson", "rate": rate})


@contextmanager
def _bars() -> Iterator[Callable[[RunSpec], Callable[[int, int], None]]]:
    """Progress bars on stderr, one a run; gives the function that makes the next one."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from llmsim.cli.console import stderr
    from llmsim.runs.labels import scheduler_label

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True, disable=not stderr().is_terminal) as bar:

        def begin(spec: RunSpec) -> Callable[[int, int], None]:
            task = bar.add_task(scheduler_label(spec.scheduler), total=None)
            return lambda done, total: bar.update(task, completed=done, total=total)

        yield begin


def _run_all(runs: list[RunSpec], serve: Serve, out: Path | None, as_json: bool) -> None:
    """Run, save and show them; after an interruption, those that were done by then."""
    from llmsim.cli.stopping import Terminated

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
    from llmsim.cli.console import warn
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
    import json

    from llmsim.cli.console import warn
    from llmsim.runs.text import comparison

    if as_json:
        print(json.dumps([result.summary for result in results], indent=2))
    else:
        print(comparison(results))
    _warn(results)
    for directory, result in zip(directories, results, strict=False):
        (warn if as_json else print)(f"saved {directory} ({result.label})")


def _warn(results: Sequence[Headline]) -> None:
    """What a reader must know, on stderr: each run's own lines, then those of all, and who left their calibration."""
    from llmsim.cli.console import warn
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
