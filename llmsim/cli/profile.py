"""`llmsim profile`: measure a model on this machine, fit its batch times, write a calibration and the fit's report."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmsim.cli.console import need_torch, stages, warn
from llmsim.cli.groups import expand_groups
from llmsim.cli.options import Json, Progress

if TYPE_CHECKING:
    from llmsim.calibrate.fitting.calibrate import Fitted
    from llmsim.calibrate.profiling.campaign import Campaign


@dataclass(frozen=True, kw_only=True)
class CampaignOptions:
    """What to measure, on what and for how long."""

    model: Annotated[
        str, typer.Option(help="Model shape: tiny, llama-3-8b, mistral-7b, qwen3-8b, or the path of a config.json.")
    ] = "tiny"
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the measurements (default: runs/profile/DEVICE/MODEL). Resumes there."),
    ] = None
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu"
    device_name: Annotated[str | None, typer.Option(help="What the calibration calls the device.")] = None
    backend: Annotated[
        str | None, typer.Option(help="sdpa, flashinfer or flashinfer-batch (default: flashinfer on cuda, else sdpa).")
    ] = None
    dtype: Annotated[str | None, typer.Option(help="Default: bfloat16 on cuda, float32 on cpu.")] = None
    plan: Annotated[str | None, typer.Option(help="Plan file or shipped plan; the default covers the limits.")] = None
    minutes: Annotated[float, typer.Option(help="Time budget; the plan is cut to fit.")] = 3.0
    repeats: Annotated[int, typer.Option(help="Timed repeats a case, of which the median counts.")] = 7
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens in a batch of the default plan.")] = None
    max_seqs: Annotated[int | None, typer.Option(help="Most sequences in a batch of the default plan.")] = None
    max_model_len: Annotated[int | None, typer.Option(help="Longest sequence; the model's own if not given.")] = None
    page_size: Annotated[int, typer.Option(help="Tokens of a KV block.")] = 16
    threads: Annotated[int, typer.Option(help="torch threads on a CPU.")] = 1
    kv_gib: Annotated[float | None, typer.Option(help="KV cache on a CPU in GiB (default 0.5).")] = None
    utilisation: Annotated[float, typer.Option(help="Share of a GPU's memory that an engine may use.")] = 0.9
    seed: Annotated[int, typer.Option(help="Seed of weights, plan and pages.")] = 0
    restart: Annotated[bool, typer.Option("--restart", help="Throw earlier measurements in the folder away.")] = False
    progress: Progress = "auto"


@expand_groups()
def profile(
    campaign: CampaignOptions,
    *,
    calibration_out: Annotated[
        Path | None, typer.Option(help="Calibration file to write (default: calibration.json in that folder).")
    ] = None,
    fit_only: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Measure nothing: fit the measurements in this folder again.")
    ] = None,
    from_run: Annotated[
        Path | None, typer.Option(metavar="RUN_DIR", help="Measure nothing: fit the iterations of a saved run.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure batch times of a real transformer on this machine and make a calibration of them.

    Interrupted, the same command goes on where it was. No setting of the device is changed: profiling/README.md
    tells how to steady it.
    """
    if fit_only is not None and from_run is not None:
        raise typer.BadParameter("--fit-only and --from-run exclude each other")
    if from_run is not None:
        fitted, folder = _fit_run(from_run), from_run
    else:
        folder = fit_only if fit_only is not None else _measure(campaign)
        from llmsim.calibrate.fitting.calibrate import calibrate_campaign

        fitted = calibrate_campaign(folder, campaign.device_name)
    _write(fitted, folder, calibration_out or folder / "calibration.json", as_json)


def _measure(given: CampaignOptions) -> Path:
    need_torch("profiling")
    from llmsim.calibrate.fitting.calibrate import device_slug
    from llmsim.calibrate.profiling.campaign import Campaign, run_campaign
    from llmsim.costs.models import load_model
    from llmsim.executors.device import DeviceSpec
    from llmsim.executors.device_info import device_name
    from llmsim.units import GIB

    on_gpu = given.device.startswith("cuda")
    spec = DeviceSpec(
        device=given.device,
        backend=given.backend or ("flashinfer" if on_gpu else "sdpa"),
        dtype=given.dtype or ("bfloat16" if on_gpu else "float32"),
        page_size=given.page_size,
        threads=given.threads,
        seed=given.seed,
    )
    name = given.device_name or device_slug(device_name(given.device))
    home = Path("runs/profile") / name / load_model(given.model).name
    same = ("model", "plan", "minutes", "repeats", "max_tokens", "max_seqs", "max_model_len", "utilisation", "restart")
    campaign = Campaign(
        out=given.out or home,
        spec=spec,
        kv_bytes=None if given.kv_gib is None else int(given.kv_gib * GIB),
        **{option: getattr(given, option) for option in same},
    )
    _say_what_is_there(campaign)
    with stages(given.progress) as tell:
        return run_campaign(campaign, tell)


def _say_what_is_there(campaign: Campaign) -> None:
    """A line on stderr if the folder holds measurements that this campaign goes on with."""
    from llmsim.calibrate.profiling.campaign import MEASUREMENTS
    from llmsim.calibrate.profiling.manifest import read_manifest
    from llmsim.calibrate.profiling.measure import Samples

    held = None if campaign.restart else read_manifest(campaign.out)
    if held is None:
        return
    done, cases = Samples(campaign.out / MEASUREMENTS).done, held["cases"]
    there = sum(min(done[case], campaign.repeats) for case in cases)
    whole = there == len(cases) * campaign.repeats
    then = "nothing is left to measure" if whole else f"{len(cases) * campaign.repeats - there} are left"
    warn(
        f"{campaign.out}: goes on with a campaign begun {held['began']}: {there} samples are there, {then}; --restart "
        "measures all anew, --out DIR keeps both"
    )


def _fit_run(folder: Path) -> Fitted:
    import yaml

    from llmsim.calibrate.fitting.calibrate import calibrate_run
    from llmsim.runs.loading import read_table
    from llmsim.runs.results import Result

    result = Result.load(folder)
    timings = folder / "timings.parquet"
    config = yaml.safe_load(result.manifest["config"])
    return calibrate_run(
        config["calibration"],
        result.iterations,
        read_table(timings) if timings.exists() else None,
        f"the run {folder.name}",
        shlex.join(["llmsim", *sys.argv[1:]]),
    )


def _write(fitted: Fitted, folder: Path, target: Path, as_json: bool) -> None:
    from llmsim.costs.calibration import save
    from llmsim.reports.fit_report import write_fit_report

    save(fitted.calibration, target)
    page = write_fit_report(
        fitted.fit, folder / "fit.html", manifest=fitted.manifest, roofline=fitted.roofline, warnings=fitted.warnings
    )
    for line in fitted.warnings:
        warn(f"warning: {line}")
    if as_json:
        held = json.loads(fitted.calibration.to_json())
        print(json.dumps({"calibration": str(target), "report": str(page), **held}, indent=2))
        return
    print(_summary(fitted))
    print(f"\ncalibration {target}\nfit report  {page}")
    print(f"\nnext: llmsim simulate --calibration {target} ..., llmsim validate --calibration {target}")


def _summary(fitted: Fitted) -> str:
    """Coefficients, errors, host overhead and KV in a few lines."""
    calibration = fitted.calibration
    lines = [f"{calibration.name}: {calibration.batch_time.form}, {len(fitted.table)} cases"]
    parts = [(None, calibration.batch_time)] if not calibration.batch_time.strata else [
        (stratum.max_tokens, stratum.batch_time) for stratum in calibration.batch_time.strata
    ]
    for limit, part in parts:
        if len(parts) > 1:
            lines.append(f"  {'more' if limit is None else f'up to {limit}'} tokens:")
        lines += [f"  {c.name:24} {c.value:12.4g} {c.unit}" for c in part.coefficients]
    for what, figures in (("in sample", calibration.errors.in_sample), ("held out", calibration.errors.held_out)):
        if figures is not None:
            sizes = f"mean {figures.mape_pct:.2f} %, p95 {figures.p95_pct:.2f} %, worst {figures.max_pct:.2f} %"
            lines.append(f"error {what:10} {sizes}")
    host = calibration.host_overhead
    lines.append(f"host overhead    {host.seconds * 1e6:.0f} us an iteration")
    lines.append(f"KV cache         {calibration.kv.num_blocks:,} blocks of {calibration.kv.block_size} tokens")
    return "\n".join(lines)
