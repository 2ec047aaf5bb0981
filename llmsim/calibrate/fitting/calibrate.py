"""From what was measured to a calibration: the folder of a campaign, or the iterations of a saved run."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from llmsim.calibrate.fitting.features import fit_table, load_measurements, run_table, spread_warnings
from llmsim.calibrate.fitting.fit import significant
from llmsim.calibrate.fitting.roofline import DeviceCeilings, Roofline, achieved, device_ceilings
from llmsim.calibrate.fitting.selection import fit_batch_time
from llmsim.calibrate.profiling.manifest import read_manifest
from llmsim.costs.calibration import (
    Calibration,
    ExecutorSetup,
    HostOverhead,
    KvMemory,
    LengthLimit,
    Provenance,
    load_calibration,
)
from llmsim.costs.models import ModelConfig
from llmsim.errors import CalibrationError
from llmsim.executors.device import VALUE_BYTES

if TYPE_CHECKING:
    from llmsim.calibrate.fitting.fit_result import BatchTimeFit

MEASUREMENTS = "measurements.csv"


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A fit and the calibration made of it; `warnings` is what its reader must know."""

    fit: BatchTimeFit
    table: pd.DataFrame
    calibration: Calibration
    manifest: dict[str, Any]
    warnings: tuple[str, ...]
    roofline: Roofline | None = None


def calibrate_campaign(folder: Path, device: str | None = None) -> Fitted:
    """Fit the measurements of a campaign; `device` names the calibration's device, else the machine's own name does.

    Raises CalibrationError if the folder is no finished campaign.
    """
    held = read_manifest(folder)
    if held is None:
        raise CalibrationError(f"{folder}: has no manifest.json; name a folder that `llmsim profile` measured into")
    if "host_overhead" not in held:
        raise CalibrationError(f"{folder}: the campaign is not finished; run the same `llmsim profile` command again")
    table = fit_table(load_measurements(folder / MEASUREMENTS))
    fit = fit_batch_time(table)
    setup = held["identity"]["executor"]
    notes = (*spread_warnings(table), *fit.warnings, *_found(held))
    host = held["host_overhead"]
    memory = held["memory"]
    limit = held["limits"]["max_model_len"]
    native = held["identity"]["model"]["max_model_len"]
    calibration = Calibration(
        device=device or device_slug(held["device"]),
        model=held["identity"]["model"]["name"],
        batch_time=fit.batch_time,
        box=fit.box,
        errors=fit.errors,
        host_overhead=HostOverhead(
            seconds=significant(host["median_s"]), included_in_batch_times=False, source=host["source"]
        ),
        kv=KvMemory(
            block_size=setup["page_size"],
            num_blocks=memory["num_blocks"],
            block_bytes=memory["block_bytes"],
            source=memory["source"],
        ),
        limit=LengthLimit(
            max_model_len=limit,
            native_max_model_len=native,
            source="max_position_embeddings of the config.json" + ("" if limit == native else ", cut by option"),
        ),
        provenance=_provenance(held, table, notes),
        executor=ExecutorSetup(
            model=held["model_source"],
            **{name: setup[name] for name in ("device", "backend", "dtype", "threads")},
        ),
    )
    return Fitted(
        fit=fit, table=table, calibration=calibration, manifest=held, warnings=notes, roofline=_roofline(held, fit)
    )


def calibrate_run(
    base: str, iterations: pd.DataFrame, timings: pd.DataFrame | None, source: str, command: str
) -> Fitted:
    """Fit the iterations of a saved run; what they do not tell (KV, limits) is `base`'s, the run's calibration.

    With `timings` (a live run's) the forward passes are fitted and the host's time is their rest; without, whole
    iterations, host included. Raises CalibrationError for too few iterations to fit.
    """
    original = load_calibration(base)
    table = run_table(iterations, timings)
    fit = fit_batch_time(table)
    if timings is None:
        host = HostOverhead(seconds=0.0, included_in_batch_times=True, source=f"Inside the iterations of {source}.")
    else:
        rest = (iterations["end_ns"] - iterations["start_ns"]).to_numpy() - timings["forward_ns"].to_numpy()
        host = HostOverhead(
            seconds=significant(float(pd.Series(rest).median()) / 1e9),
            included_in_batch_times=False,
            source=f"Median of the {len(rest):,} iterations of {source} less their forward passes.",
        )
    provenance = Provenance(
        source=f"Iterations of {source}: the batches that this workload and scheduler made, and no others.",
        date=datetime.now(UTC).date().isoformat(),
        command=command,
        licence="Apache-2.0",
        notes=tuple(fit.warnings),
    )
    calibration = replace(
        original,
        batch_time=fit.batch_time,
        box=fit.box,
        errors=fit.errors,
        host_overhead=host,
        provenance=provenance,
    )
    manifest = {"source": source, "calibration of the run": base}
    return Fitted(fit=fit, table=table, calibration=calibration, manifest=manifest, warnings=tuple(fit.warnings))


def device_slug(name: str) -> str:
    """A device's name as it stands in a calibration's: `NVIDIA H200` is h200, `AMD EPYC` is amd-epyc."""
    plain = re.sub(r"\(r\)|\(tm\)|@.*|\b(nvidia|geforce|corporation|processor|cpu)\b", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "device"


def _roofline(held: dict[str, Any], fit: BatchTimeFit) -> Roofline:
    """Achieved rates against the data sheet's ceilings, or where none is known, against those that were measured."""
    setup, measured = held["identity"]["executor"], held["measured_ceilings"]
    known = device_ceilings(held["device"]) or DeviceCeilings(
        measured["flops"], measured["bytes_per_s"], "a square matrix product and a copy, measured on this device"
    )
    config = ModelConfig(**held["identity"]["model"])
    return Roofline(achieved(fit.predictions, config, value_bytes=VALUE_BYTES[setup["dtype"]]), known)


def _provenance(held: dict[str, Any], table: pd.DataFrame, notes: tuple[str, ...]) -> Provenance:
    setup, versions = held["identity"]["executor"], held["identity"]["versions"]
    samples = held["samples"]
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    return Provenance(
        source=(
            f"llmsim profile on {held['device']}: {len(table)} cases ({held['plan']['source']}), median "
            f"of {samples['repeats_of_every_case']} interleaved repeats or more; backend {setup['backend']}, "
            f"{setup['dtype']}, {setup['threads']} torch thread(s) on a CPU; random weights; {software}."
        ),
        date=held["began"][:10],
        command=held["command"],
        licence="Apache-2.0",
        notes=notes,
    )


def _found(held: dict[str, Any]) -> list[str]:
    """What the machine's report warned of, before or after."""
    lines = [*held["device_before"].get("warnings", []), *held.get("device_after", {}).get("warnings", [])]
    return list(dict.fromkeys(lines))
