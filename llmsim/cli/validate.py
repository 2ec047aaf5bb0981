"""`llmsim validate`: the same workload live and simulated, side by side, and why they differ."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmsim.cli.console import need_torch, say, stages, warn
from llmsim.cli.groups import expand_groups
from llmsim.cli.options import RunOptions, SimulationOptions
from llmsim.cli.run_spec import run_mapping, run_specs
from llmsim.cli.validate_against import check_options, validate_against
from llmsim.errors import ConfigError

if TYPE_CHECKING:
    from llmsim.executors.runner import ModelRunner
    from llmsim.spec.run_spec import RunSpec
    from llmsim.validation.compare_runs import Comparison
    from llmsim.validation.study import Study

BEYOND_TOLERANCE = 3
"""Exit code where an error is larger than --tolerance."""

MINUTES = 4.0


@expand_groups(
    without=(
        "rate", "max_concurrency", "warmup", "slo", "replicas", "horizon", "prompt_tokens", "output_tokens",
        "percentiles",
    )
)
def validate(
    context: typer.Context,
    simulation: SimulationOptions,
    run: RunOptions,
    *,
    against: Annotated[
        Path | None, typer.Option(help="Requests measured on a server elsewhere (CSV), instead of a live run.")
    ] = None,
    origin: Annotated[
        str, typer.Option(help="--against: latencies count from arrival (at the API) or queued (at the engine).")
    ] = "arrival",
    on_bad: Annotated[
        str, typer.Option(help="--against: rows that cannot be used: error, or drop (and count).")
    ] = "error",
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
    out: Annotated[Path | None, typer.Option(help="Keep runs, measured batches and the report in here.")] = None,
) -> None:
    """Serve a workload live and simulated with the same scheduler objects; show how far apart they are, and why.

    The live run needs a calibration that `llmsim profile` made here, and makes up lengths if there is no --trace. With
    --against the live side is a run that was measured elsewhere; that needs neither torch nor a device. Exit code 3 if
    an error is larger than --tolerance.
    """
    from llmsim.runs.folders import check_out
    from llmsim.validation.tolerance import parse_tolerance, violations

    check_options(context, against is not None)
    check_out(out)
    limits = parse_tolerance(tolerance) if tolerance is not None else ()
    mapping = run_mapping(replace(run, num_requests=num_requests), simulation)
    if against is not None:
        _judge(validate_against(mapping, run, against, origin=origin, on_bad=on_bad, limits=limits, out=out))
        return
    need_torch("validating")
    from llmsim.validation.study import Study

    if minutes is not None and num_requests is not None:
        raise typer.BadParameter("--minutes and --num-requests exclude each other")
    if clock not in ("skip", "wall"):
        raise ConfigError(f"--clock must be skip or wall but got {clock!r}")
    specs = run_specs(run, _with_workload(mapping))
    shares, fixed = _numbers("--loads", loads), _numbers("--rates", rates) if rates else ()
    if num_requests is None:
        specs = _sized(specs, len(fixed or shares), minutes or MINUTES, alike=bool(fixed))
    runner = _runner(specs, model, device)
    comparisons: list[Comparison] = []
    try:
        for spec in specs:
            study = Study(spec=spec, loads=shares, rates=fixed, clock="wall" if clock == "wall" else "skip")
            comparisons += _run(study, runner, run)
    except BaseException:
        if comparisons:
            with suppress(Exception):  # the first error is the one to tell
                _finish(comparisons, out, run.as_json)
        raise
    _finish(comparisons, out, run.as_json)
    judged = [found.at_found_speed or found.errors if at_found_speed else found.errors for found in comparisons]
    _judge([line for errors in judged for line in violations(errors, limits)])


def _judge(broken: list[str]) -> None:
    """Say what is beyond tolerance, and end with its exit code if anything is."""
    for line in broken:
        warn(f"beyond tolerance: {line}")
    if broken:
        raise typer.Exit(BEYOND_TOLERANCE)


def _numbers(option: str, text: str) -> tuple[float, ...]:
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


def _sized(specs: list[RunSpec], loads: int, minutes: float, *, alike: bool) -> list[RunSpec]:
    """The specs with requests for about `minutes` in all; `alike`: the same requests for every policy."""
    from llmsim.validation.loads import requests_for

    counts = [requests_for(spec, minutes / len(specs), loads) for spec in specs]
    if alike:
        counts = [min(counts)] * len(counts)
    return [
        spec.replace(workload=replace(spec.workload, num_requests=count))
        for spec, count in zip(specs, counts, strict=True)
    ]


def _runner(specs: list[RunSpec], model: str | None, device: str | None) -> ModelRunner:
    """The executor that the calibration was measured with, with KV pages for all the runs."""
    from llmsim.costs.calibration import load_calibration
    from llmsim.costs.models import load_model
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


def _run(study: Study, runner: ModelRunner, run: RunOptions) -> list[Comparison]:
    from llmsim.validation.study import run_study
    from llmsim.validation.text import comparison_text

    with stages(run.progress) as tell:
        show = (lambda _: None) if run.as_json else (lambda found: print(comparison_text(found) + "\n"))
        return run_study(study, runner, tell, show)


def _finish(comparisons: list[Comparison], out: Path | None, as_json: bool) -> None:
    """The loads side by side, or JSON; and what is to be kept."""
    from llmsim.reports.validation_report import write_validation_report
    from llmsim.runs.folders import write_whole
    from llmsim.validation.text import loads_text

    print(json.dumps([found.as_dict() for found in comparisons], indent=2) if as_json else loads_text(comparisons))
    if out is None:
        return
    kept = []
    for found in comparisons:
        kept.append(found.live.save(out))
        found.simulated.save(out)
    page = write_validation_report(comparisons, out / "validation.html")
    write_whole(out / "validation.json", json.dumps([f.as_dict() for f in comparisons], indent=2) + "\n")
    for path in (*kept, page):
        say(f"saved {path}", as_json)
