"""`llmsim validate`: the same workload live and simulated, side by side, and why they differ."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmsim.cli.simulate import run_mapping
from llmsim.cli.trace import Format, Map
from llmsim.cli.validate_against import check_options, validate_against

if TYPE_CHECKING:
    from llmsim.executors.runner import ModelRunner
    from llmsim.spec.run_spec import RunSpec
    from llmsim.validation.compare_runs import Comparison
    from llmsim.validation.study import Study

BEYOND_TOLERANCE = 3
"""Exit code where an error is larger than --tolerance."""

MINUTES = 4.0


def validate(
    context: typer.Context,
    config: Annotated[Path | None, typer.Argument(help="YAML file describing the run.", show_default=False)] = None,
    against: Annotated[
        Path | None, typer.Option(help="Requests measured on a server elsewhere (CSV), instead of a live run.")
    ] = None,
    origin: Annotated[
        str, typer.Option(help="--against: latencies count from arrival (at the API) or queued (at the engine).")
    ] = "arrival",
    on_bad: Annotated[
        str, typer.Option(help="--against: rows that cannot be used: error, or drop (and count).")
    ] = "error",
    calibration: Annotated[
        str | None, typer.Option(help="A name or file; without --against one that `llmsim profile` made here.")
    ] = None,
    scheduler: Annotated[
        list[str] | None, typer.Option(help="NAME[,option=value...] or file.py:Class; repeat for several.")
    ] = None,
    trace: Annotated[
        str | None, typer.Option(help="Workload: a file or a shipped one; synthetic lengths if not given.")
    ] = None,
    format: Format = None,
    map: Map = None,
    on_long: Annotated[
        str | None, typer.Option(help="Over the model's limit: error (prompts; default), drop or clip (with answers).")
    ] = None,
    loads: Annotated[str, typer.Option(help="Shares of what the engine can serve, with commas.")] = "0.5,0.8,0.95,1.05",
    rates: Annotated[
        str | None, typer.Option(help="Requests a second, with commas, instead of --loads: the same for every policy.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Sizes the runs to about this long in all (default 4).")] = None,
    num_requests: Annotated[int | None, typer.Option(help="Requests a load, instead of --minutes.")] = None,
    clock: Annotated[str, typer.Option(help="Idle time: skip it, or live through it (wall).")] = "skip",
    tolerance: Annotated[
        str | None,
        typer.Option(help="Largest errors in percent, `mean:5 p50:5 p99:10` or `ttft.p99:10`; beyond: exit code 3."),
    ] = None,
    at_found_speed: Annotated[
        bool,
        typer.Option("--at-found-speed", help="Hold to --tolerance the simulation at the speed that probes found."),
    ] = False,
    model: Annotated[str | None, typer.Option(help="Model shape, if not the calibration's.")] = None,
    device: Annotated[str | None, typer.Option(help="Device, if not the calibration's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random stream.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Any option: engine.num_blocks=800")] = None,
    out: Annotated[Path | None, typer.Option(help="Keep runs, measured batches and the report in here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparisons as JSON.")] = False,
) -> None:
    """Serve a workload live and simulated with the same scheduler objects; show how far apart they are, and why.

    With --against the live side is a run that was measured elsewhere; that needs neither torch nor a device. Exit code
    3 if an error is larger than --tolerance.
    """
    from llmsim.cli.console import need_torch
    from llmsim.errors import ConfigError
    from llmsim.spec.run_spec import load_runs
    from llmsim.validation.tolerance import parse_tolerance, violations

    check_options(context, against is not None)
    limits = parse_tolerance(tolerance) if tolerance is not None else ()
    given = dict(
        trace=trace, calibration=calibration, format=format, map=map, on_bad=None, on_long=on_long, rate=None,
        num_requests=num_requests, seed=seed, replicas=None, horizon=None, warmup=None,
    )  # fmt: skip
    mapping = run_mapping(config, given, None, None, scheduler)
    if against is not None:
        _judge(
            validate_against(
                mapping, config, overrides or [], against,
                origin=origin, on_bad=on_bad, limits=limits, out=out, as_json=as_json,
            )
        )  # fmt: skip
        return
    need_torch("validating")
    from llmsim.validation.study import Study

    if minutes is not None and num_requests is not None:
        raise typer.BadParameter("--minutes and --num-requests exclude each other")
    if clock not in ("skip", "wall"):
        raise ConfigError(f"--clock must be skip or wall but got {clock!r}")
    specs = load_runs(config, overrides or (), _with_workload(mapping))
    shares, fixed = _numbers("--loads", loads), _numbers("--rates", rates) if rates else ()
    if num_requests is None:
        specs = [_sized(spec, len(fixed or shares), (minutes or MINUTES) / len(specs)) for spec in specs]
        if fixed:  # the same requests for every policy
            fewest = min(spec.workload.num_requests or 0 for spec in specs)
            specs = [spec.replace(workload=replace(spec.workload, num_requests=fewest)) for spec in specs]
    runner = _runner(specs, model, device)
    comparisons = []
    for spec in specs:
        study = Study(spec=spec, loads=shares, rates=fixed, clock="wall" if clock == "wall" else "skip")
        comparisons += _run(study, runner, as_json)
    _finish(comparisons, out, as_json)
    judged = [found.at_found_speed or found.errors if at_found_speed else found.errors for found in comparisons]
    _judge([line for errors in judged for line in violations(errors, limits)])


def _judge(broken: list[str]) -> None:
    """Say what is beyond tolerance, and end with its exit code if anything is."""
    from llmsim.cli.console import warn

    for line in broken:
        warn(f"beyond tolerance: {line}")
    if broken:
        raise typer.Exit(BEYOND_TOLERANCE)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    from llmsim.errors import ConfigError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{option} takes numbers with commas, such as 0.5,0.8,1.05, but got {text!r}") from error


def _with_workload(mapping: dict[str, Any]) -> dict[str, Any]:
    """The mapping with the default workload if it has none but perhaps a number of requests."""
    from llmsim.costs.calibration import load_calibration
    from llmsim.validation.loads import default_workload

    held = mapping.get("workload", {})
    if "calibration" not in mapping or not isinstance(held, dict) or set(held) - {"num_requests"}:
        return mapping
    return {**mapping, "workload": default_workload(load_calibration(mapping["calibration"]).max_model_len) | held}


def _sized(spec: RunSpec, runs: int, minutes: float) -> RunSpec:
    from llmsim.validation.loads import requests_for

    count = requests_for(spec, minutes, runs)
    return spec.replace(workload=replace(spec.workload, num_requests=count))


def _runner(specs: list[RunSpec], model: str | None, device: str | None) -> ModelRunner:
    """The executor that the calibration was measured with, with KV pages for all the runs."""
    from llmsim.costs.calibration import load_calibration
    from llmsim.costs.models import load_model
    from llmsim.errors import ConfigError
    from llmsim.executors.device import DeviceSpec
    from llmsim.executors.live import SCRATCH_PAGES
    from llmsim.executors.runner import ModelRunner

    calibration = load_calibration(specs[0].calibration)
    setup = calibration.executor
    if setup is None:
        raise ConfigError(
            f"{calibration.name} was not measured with an executor of llmsim, so there is nothing to run it on: "
            "validate takes a calibration that `llmsim profile` made on this machine"
        )
    blocks = max(spec.engine.num_blocks or calibration.kv.num_blocks for spec in specs)
    spec = DeviceSpec(
        device=device or setup.device,
        backend=setup.backend,
        dtype=setup.dtype,
        page_size=calibration.kv.block_size,
        threads=setup.threads,
    )
    return ModelRunner(load_model(model or setup.model), spec, blocks + SCRATCH_PAGES)


def _run(study: Study, runner: ModelRunner, as_json: bool) -> list[Comparison]:
    from llmsim.cli.console import stages
    from llmsim.validation.study import run_study
    from llmsim.validation.text import comparison_text

    with stages() as tell:
        return run_study(study, runner, tell, lambda found: None if as_json else print(comparison_text(found) + "\n"))


def _finish(comparisons: list[Comparison], out: Path | None, as_json: bool) -> None:
    """The loads side by side, or JSON; and what is to be kept."""
    from llmsim.cli.console import warn
    from llmsim.reports.validation_report import write_validation_report
    from llmsim.validation.text import loads_text

    print(json.dumps([found.as_dict() for found in comparisons], indent=2) if as_json else loads_text(comparisons))
    if out is None:
        return
    kept = []
    for found in comparisons:
        kept.append(found.live.save(out))
        found.simulated.save(out)
    page = write_validation_report(comparisons, out / "validation.html")
    (out / "validation.json").write_text(json.dumps([f.as_dict() for f in comparisons], indent=2) + "\n")
    for path in (*kept, page):
        (warn if as_json else print)(f"saved {path}")
