"""`llmsim capacity`: the highest rate, or the fewest replicas, that keep the service levels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmsim.cli.console import bars, warn
from llmsim.cli.groups import expand_groups
from llmsim.cli.options import RunOptions, SimulationOptions, Workers
from llmsim.cli.run_spec import run_mappings, run_specs
from llmsim.cli.stopping import Terminated
from llmsim.errors import ConfigError

if TYPE_CHECKING:
    from llmsim.spec.run_spec import RunSpec
    from llmsim.studies.capacity import Plan, Report, SeedResult
    from llmsim.studies.capacity.runs import Progress


@expand_groups(without=("max_concurrency", "out", "percentiles"))
def capacity(
    simulation: SimulationOptions,
    run: RunOptions,
    *,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="median_ttft<=500ms, class_p99_tbt, attainment>=0.99 (the default); all must hold."),
    ] = None,
    slo: Annotated[
        list[str] | None, typer.Option(help='Targets in ms behind attainment: "ttft:200 tpot:50", or repeat.')
    ] = None,
    find: Annotated[
        str, typer.Option(help="rate (of --replicas), or replicas (for the trace's own arrivals, or --rate).")
    ] = "rate",
    rule: Annotated[str, typer.Option(help="bisection, or osdi: Sarathi-Serve's search.")] = "bisection",
    seeds: Annotated[
        int | None, typer.Option(help="Workloads, with seeds from --seed on; 5 by default, if they differ.")
    ] = None,
    start: Annotated[float | None, typer.Option(help="First candidate: requests/s, or replicas.")] = None,
    precision: Annotated[float, typer.Option(help="Width of the bracket as a share of the rate.")] = 0.01,
    max_replicas: Annotated[int, typer.Option(help="Give up above.")] = 64,
    allow_overload: Annotated[bool, typer.Option(help="Let an overloaded run pass (with a horizon).")] = False,
    check: Annotated[bool, typer.Option(help="Probe on both sides of the answer, too: is it the only border?")] = True,
    workers: Workers = None,
) -> None:
    """Find the highest arrival rate, or the fewest replicas, that keep the service levels.

    Options override the YAML file. Schedulers serve the same requests, so they are compared seed by seed. --json has
    everything, all probes included.
    """
    from llmsim.studies.capacity import Criterion, Plan, osdi_criterion

    if seeds is not None and seeds < 1:
        raise ConfigError(f"--seeds must be at least 1 but got {seeds}")
    for flag, value, for_find in (("--rate", run.rate, "replicas"), ("--replicas", simulation.replicas, "rate")):
        if value is not None and find != for_find:
            raise ConfigError(f"{flag} is what --find {find} searches for; give --start for the first candidate")
    mappings = run_mappings(replace(run, slo=slo), simulation)
    if find == "rate":
        mappings = [_with_arrivals(mapping) for mapping in mappings]
    osdi = rule == "osdi"
    plan = Plan(
        criterion=osdi_criterion(keep or []) if osdi else Criterion.parse(keep or [], allow_overload=allow_overload),
        find=find,
        rule=rule,
        start=start,
        precision=precision,
        check=check,
        max_replicas=max_replicas,
    )
    runs = run_specs(run, *mappings)
    if osdi:
        runs = _with_number(runs)
    _show(_find(runs, plan, seeds, workers, run.progress), run.as_json)


def _with_arrivals(mapping: dict[str, Any]) -> dict[str, Any]:
    """Poisson arrivals where neither a trace nor the run's file says when requests come: their rate is sought."""
    from llmsim.spec.run_spec import put

    workload = mapping.get("workload", {})
    if isinstance(workload, dict) and workload.get("trace") is None and "arrivals" not in workload:
        put(mapping, "workload.arrivals", {"kind": "poisson", "rate": 1.0})
    return mapping


def _with_number(runs: list[RunSpec]) -> list[RunSpec]:
    """The runs with the number of requests of the OSDI rule where they have none of their own."""
    from llmsim.studies.capacity.osdi import REQUESTS

    return [
        run.replace(workload=replace(run.workload, num_requests=run.workload.num_requests or REQUESTS)) for run in runs
    ]


def _find(runs: list[RunSpec], plan: Plan, seeds: int | None, workers: int | None, mode: str) -> Report:
    from llmsim.studies.capacity import find_capacity
    from llmsim.sweep.parallel import workers as processes

    if seeds is not None:
        plan = replace(plan, seeds=tuple(range(runs[0].seed, runs[0].seed + seeds)))
    found: list[str] = []
    try:
        with processes(workers) as executor, _bar(mode) as progress:
            return find_capacity(
                runs, plan, executor=executor, progress=progress,
                ended=lambda name, seed: found.append(_words(name, seed)),
            )  # fmt: skip
    except BaseException as error:
        if found or isinstance(error, KeyboardInterrupt | Terminated):
            warn("\n".join([f"nothing is kept on disk; searches that had ended: {len(found) or 'none'}", *found]))
        raise


def _words(name: str, seed: SeedResult) -> str:
    keeps, fails = seed.words()
    return f"  {name}, seed {seed.seed}: keeps {keeps}, fails {fails}"


@contextmanager
def _bar(mode: str) -> Iterator[Progress]:
    """A bar of searches done, with the number of runs so far: how many a search takes is not known before."""
    from rich.progress import MofNCompleteColumn, TimeElapsedColumn

    with bars(mode, MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("searches done", total=None)

        def advance(done: int, total: int, probes: int) -> None:
            bar.update(task, completed=done, total=total, description=f"{probes} runs, searches done")

        yield advance


def _show(report: Report, as_json: bool) -> None:
    from llmsim.runs.headline import to_json

    print(to_json(report.as_dict()) if as_json else report.text(), end="" if as_json else "\n")
    for line in report.warnings:
        warn(f"warning: {line}")
