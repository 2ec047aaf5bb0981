"""From options to the run that they describe: the YAML file, with the options laid over it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import typer

from llmsim.cli.groups import settings
from llmsim.cli.options import RunOptions
from llmsim.errors import ConfigError

if TYPE_CHECKING:
    from llmsim.spec.run_spec import RunSpec


def run_mapping(run: RunOptions, *more: object) -> dict[str, Any]:
    """The run's YAML file (or nothing) with the options laid over it, those of the other groups too."""
    from llmsim.spec.run_spec import put, read_run

    _refuse_target(run)
    mapping: dict[str, Any] = {} if run.config is None else read_run(run.config)
    for group in (run, *more):
        for key, value in settings(group):
            put(mapping, key, value)
            if key == "schedulers":  # in place of the file's, which may be a single one
                mapping.pop("scheduler", None)
    _set_arrivals(mapping, run.rate, run.max_concurrency)
    return mapping


def run_specs(run: RunOptions, mapping: dict[str, Any]) -> list[RunSpec]:
    """The runs, one a scheduler, that a mapping describes once --set is laid over it too."""
    from llmsim.spec.run_spec import load_runs

    return load_runs(run.config, run.overrides or (), mapping)


def _refuse_target(run: RunOptions) -> None:
    """ConfigError for a target in the place of the run's file: vLLM's --goodput takes several values, ours one."""
    if run.config is not None and re.fullmatch(r"[a-z0-9]+:[0-9.]+", str(run.config)) and not run.config.exists():
        together = " ".join([*(run.slo or ()), str(run.config)])
        raise ConfigError(
            f"{run.config} is read as the file of the run, as --slo takes one value; quote the targets, --slo "
            f'"{together}", or give --slo once for each'
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
