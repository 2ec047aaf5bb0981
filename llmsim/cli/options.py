"""The options that several commands take, each written once.

A new option of every run is a field of RunOptions, one of what is simulated a field of SimulationOptions: all commands
with that group then have it, and `Sets` says which key of the run's description it goes to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from llmsim.cli.groups import Sets
from llmsim.errors import ConfigError


def column_map(map: list[str] | None) -> dict[str, str] | None:
    """The column map of --map FIELD=COLUMN options."""
    columns = {}
    for item in map or ():
        field, equals, column = item.partition("=")
        if not equals:
            raise ConfigError(f"--map is written FIELD=COLUMN but got {item!r}")
        columns[field] = column
    return columns or None


Format = Annotated[
    str | None,
    typer.Option(help="azure, sarathi, mooncake, burstgpt or llmsim; told from the header if not given."),
    Sets("workload.format"),
]
Map = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=COLUMN",
        help="Column of a field: arrival_s (_ms, _us, _ns; _at: date-times), prompt_tokens, output_tokens; "
        "slo_class, tbt_s, ttft_s, ttlt_s, tier, priority, model. Repeat it.",
    ),
    Sets("workload.columns", column_map),
]
Workers = Annotated[int | None, typer.Option(help="Processes; one a core by default.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every run takes, simulated or on a real server: its file, its requests, what is measured and kept."""

    config: Annotated[Path | None, typer.Argument(help="YAML file describing the run.", show_default=False)] = None
    trace: Annotated[
        str | None,
        typer.Option(help="Workload: a file, or a shipped one (sharegpt4, azure-code, azure-conv)."),
        Sets("workload.trace"),
    ] = None
    format: Format = None
    map: Map = None
    on_bad: Annotated[
        str | None, typer.Option(help="Unusable rows of the trace: error (default), or drop."), Sets("workload.on_bad")
    ] = None
    on_long: Annotated[
        str | None,
        typer.Option(help="Over the limit: error (prompts; default), drop or clip (with answers)."),
        Sets("workload.on_long"),
    ] = None
    rate: Annotated[
        float | None, typer.Option("--rate", "--request-rate", help="Poisson arrivals per second; inf: all at once.")
    ] = None
    max_concurrency: Annotated[int | None, typer.Option(help="Closed loop: this many outstanding.")] = None
    num_requests: Annotated[
        int | None,
        typer.Option("--num-requests", "--num-prompts", help="How many a run."),
        Sets("workload.num_requests"),
    ] = None
    seed: Annotated[int | None, typer.Option(help="Seed of every random stream."), Sets("seed")] = None
    warmup: Annotated[
        float | None, typer.Option(help="Leave arrivals before this second out of latencies."), Sets("warmup_s")
    ] = None
    slo: Annotated[
        list[str] | None,
        typer.Option("--slo", "--goodput", help='Targets in ms: "ttft:200 tpot:50", or repeat it.'),
        Sets("slo", lambda entries: " ".join(entries).split()),
    ] = None
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Any option of the run's file: workload.time_scale=0.5")
    ] = None
    out: Annotated[Path | None, typer.Option(help="Save each run in a new directory under this one.")] = None
    as_json: Json = False


@dataclass(frozen=True, kw_only=True)
class SimulationOptions:
    """What a simulated run takes besides: who serves the requests, and for how long."""

    calibration: Annotated[
        str | None, typer.Option(help="Batch-time model: device/model, or a file."), Sets("calibration")
    ] = None
    scheduler: Annotated[
        list[str] | None,
        typer.Option(help="NAME[,option=value...] (sarathi, vllm_v1, slai, ...) or file.py:Class; repeat to compare."),
        Sets("schedulers"),
    ] = None
    replicas: Annotated[
        int | None, typer.Option(help="Model instances behind the router."), Sets("cluster.replicas")
    ] = None
    horizon: Annotated[
        float | None, typer.Option(help="Stop a run after this many simulated seconds."), Sets("horizon_s")
    ] = None
