"""`llmsim capacity`: the highest rate, or the fewest replicas, that keep the service levels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmsim.cli.simulate import run_mapping
from llmsim.cli.trace import Format, Map

if TYPE_CHECKING:
    from llmsim.spec.run_spec import RunSpec
    from llmsim.studies.capacity import Criterion, Report
    from llmsim.studies.capacity.runs import Progress


def capacity(
    config: Annotated[Path | None, typer.Argument(help="YAML file describing the run.", show_default=False)] = None,
    trace: Annotated[
        str | None, typer.Option(help="Workload: a file, or a shipped one (sharegpt4, azure-code, azure-conv).")
    ] = None,
    calibration: Annotated[str | None, typer.Option(help="Batch-time model: device/model, or a file.")] = None,
    scheduler: Annotated[
        list[str] | None, typer.Option(help="NAME[,option=value...] or file.py:Class; repeat to compare.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="median_ttft<=500ms, class_p99_tbt, attainment>=0.99 (the default); all must hold."),
    ] = None,
    slo: Annotated[
        list[str] | None, typer.Option("--slo", help='Targets in ms behind attainment: "ttft:200 tpot:50", or repeat.')
    ] = None,
    find: Annotated[str, typer.Option(help="rate, or replicas (for the trace's own arrivals, or --rate).")] = "rate",
    rule: Annotated[str, typer.Option(help="bisection, or osdi: Sarathi-Serve's search.")] = "bisection",
    seeds: Annotated[int | None, typer.Option(help="Workloads [default: 5, if they differ].")] = None,
    start: Annotated[float | None, typer.Option(help="First candidate: requests/s, or replicas.")] = None,
    precision: Annotated[float, typer.Option(help="Width of the bracket as a share of the rate.")] = 0.01,
    max_replicas: Annotated[int, typer.Option(help="Give up above.")] = 64,
    allow_overload: Annotated[bool, typer.Option(help="Let an overloaded run pass (with a horizon).")] = False,
    check: Annotated[bool, typer.Option(help="Probe on both sides of the answer, too: is it the only border?")] = True,
    workers: Annotated[int | None, typer.Option(help="Processes [default: one a core].", show_default=False)] = None,
    format: Format = None,
    map: Map = None,
    on_bad: Annotated[str | None, typer.Option(help="Unusable rows of the trace: error (default), or drop.")] = None,
    on_long: Annotated[
        str | None, typer.Option(help="Over the model's limit: error (prompts; default), drop or clip (with answers).")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", "--request-rate", help="With --find replicas: arrivals per second.")
    ] = None,
    num_requests: Annotated[int | None, typer.Option("--num-requests", "--num-prompts", help="How many a run.")] = None,
    seed: Annotated[int | None, typer.Option(help="The first seed.")] = None,
    replicas: Annotated[int | None, typer.Option(help="With --find rate: model instances behind the router.")] = None,
    horizon: Annotated[float | None, typer.Option(help="Stop each run after this many simulated seconds.")] = None,
    warmup: Annotated[float | None, typer.Option(help="Leave arrivals before this second out of latencies.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Any option: engine.num_blocks=8000")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything, all probes included, as JSON.")] = False,
) -> None:
    """Find the highest arrival rate, or the fewest replicas, that keep the service levels.

    Options override the YAML file. Schedulers serve the same requests, so they are compared seed by seed.
    """
    from llmsim.errors import ConfigError
    from llmsim.studies.capacity import Plan

    if seeds is not None and seeds < 1:
        raise ConfigError(f"--seeds must be at least 1 but got {seeds}")
    for flag, value, for_find in (("--rate", rate, "replicas"), ("--replicas", replicas, "rate")):
        if value is not None and find != for_find:
            raise ConfigError(f"{flag} is what --find {find} searches for; give --start for the first candidate")
    given = dict(
        trace=trace, calibration=calibration, format=format, map=map, on_bad=on_bad, on_long=on_long, rate=rate,
        num_requests=num_requests, seed=seed, replicas=replicas, horizon=horizon, warmup=warmup,
    )  # fmt: skip
    mapping = run_mapping(config, given, None, slo, scheduler)
    plan = Plan(
        criterion=_criterion(keep or [], rule, allow_overload),
        find=find,
        rule=rule,
        start=start,
        precision=precision,
        check=check,
        max_replicas=max_replicas,
    )
    runs = _load(config, overrides or [], mapping, rule)
    _show(_find(runs, plan, seeds, workers), as_json)


def _criterion(keep: list[str], rule: str, allow_overload: bool) -> Criterion:
    from llmsim.studies.capacity import Criterion, osdi_criterion

    return osdi_criterion(keep) if rule == "osdi" else Criterion.parse(keep, allow_overload=allow_overload)


def _load(config: Path | None, overrides: list[str], mapping: dict[str, Any], rule: str) -> list[RunSpec]:
    """The runs; the OSDI rule has a number of requests of its own where the run has none."""
    from dataclasses import replace

    from llmsim.spec.run_spec import load_runs
    from llmsim.studies.capacity.osdi import REQUESTS

    runs = load_runs(config, overrides, mapping)
    if rule != "osdi":
        return runs
    return [
        run.replace(workload=replace(run.workload, num_requests=run.workload.num_requests or REQUESTS)) for run in runs
    ]


def _find(runs: list[RunSpec], plan: Any, seeds: int | None, workers: int | None) -> Report:
    from dataclasses import replace

    from llmsim.studies.capacity import find_capacity
    from llmsim.sweep.parallel import workers as processes

    if seeds is not None:
        plan = replace(plan, seeds=tuple(range(runs[0].seed, runs[0].seed + seeds)))
    with processes(workers) as executor, _bar() as progress:
        return find_capacity(runs, plan, executor=executor, progress=progress)


@contextmanager
def _bar() -> Iterator[Progress]:
    """A bar of searches done, with the number of runs so far: how many a search takes is not known before."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from llmsim.cli.console import stderr

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr(), transient=True, disable=not stderr().is_terminal) as bar:
        task = bar.add_task("searches", total=None)

        def advance(done: int, total: int, probes: int) -> None:
            bar.update(task, completed=done, total=total, description=f"searches ({probes} runs)")

        yield advance


def _show(report: Report, as_json: bool) -> None:
    from llmsim.runs.headline import to_json

    print(to_json(report.as_dict()) if as_json else report.text(), end="" if as_json else "\n")
