"""The options that several commands take, each written once.

A new option of every run is a field of RunOptions, one of what is simulated a field of SimulationOptions: all commands
with that group then have it, and `Sets` says which key of the run's description it goes to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from llmsim.cli.groups import Compares, Sets
from llmsim.errors import ConfigError

RATE = "workload.arrivals.rate"
"""Where a rate goes; it may bring its arrival process along (run_spec)."""


def column_map(map: list[str] | None) -> dict[str, str] | None:
    """The column map of --map FIELD=COLUMN options."""
    columns: dict[str, str] = {}
    for item in map or ():
        field, equals, column = item.partition("=")
        if not equals:
            raise ConfigError(f"--map is written FIELD=COLUMN but got {item!r}")
        if field in columns:
            raise ConfigError(f"--map gives {field} twice ({columns[field]}, {column}); give each field once")
        columns[field] = column
    return columns or None


def percentile_list(text: str) -> list[float]:
    """The numbers in --percentiles 50,95,99."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--percentiles takes numbers with commas, such as 50,95,99, but got {text!r}") from None


Format = Annotated[
    str | None,
    typer.Option(
        help="azure, sarathi, mooncake, bailian, guidellm, aiperf, burstgpt, llmsim; told from the file if not given."
    ),
    Sets("workload.format"),
]
Map = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=COLUMN",
        help="Column of a field: arrival_s (_ms, _us, _ns; _at: date-times), prompt_tokens, output_tokens; "
        "slo_class, tbt_s, ttft_s, ttlt_s, tier, priority, model. Inside of another: usage.prompt_tokens. Repeat it.",
    ),
    Sets("workload.columns", column_map),
]
TimeUnit = Annotated[
    str | None,
    typer.Option(help="Unit of the time column: s, ms, us, ns or datetime."),
    Sets("workload.time_unit"),
]
Sort = Annotated[
    bool,
    typer.Option("--sort", help="Put the rows in order of arrival, and say how many moved."),
    Sets("workload.sort", lambda asked: asked or None),
]
HashBlockSize = Annotated[
    int | None,
    typer.Option(help="The trace's hash_ids stand for blocks of so many tokens (Mooncake: 512)."),
    Sets("workload.hash_block_size"),
]
KeepClock = Annotated[
    bool,
    typer.Option("--keep-clock", help="Keep the trace's own clock; without, its first request arrives at 0."),
    Sets("workload.keep_clock", lambda asked: asked or None),
]
Memory = Annotated[
    str | None,
    typer.Option(help="What the reader may hold of the file before it works on disk: 512MiB (default 1GiB)."),
    Sets("workload.memory"),
]
PromptTokens = Annotated[
    str | None,
    typer.Option(
        "--prompt-tokens", metavar="LENGTHS",
        help="Lengths without a trace: 1500, lognormal:1500,0.8 (mean, std/mean), normal:MEAN,STD, uniform:100-2000.",
    ),
]  # fmt: skip
OutputTokens = Annotated[
    str | None, typer.Option("--output-tokens", metavar="LENGTHS", help="Output lengths beside --prompt-tokens.")
]
Workers = Annotated[int | None, typer.Option(help="Processes; one a core by default.", show_default=False)]
Progress = Annotated[
    str, typer.Option(help="On stderr: bar, plain (a line now and then), none; auto: bar if it is a terminal.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every run takes, simulated or on a real server: its file, its requests, what is measured and kept."""

    config: Annotated[Path | None, typer.Argument(help="YAML file describing the run.", show_default=False)] = None
    trace: Annotated[
        list[str] | None,
        typer.Option(help="Workload: a file, or a shipped one (sharegpt4, azure-code, azure-conv); repeat to compare."),
        Compares("workload.trace"),
    ] = None
    prompt_tokens: PromptTokens = None
    output_tokens: OutputTokens = None
    format: Format = None
    map: Map = None
    on_bad: Annotated[
        str | None, typer.Option(help="Unusable rows of the trace: error (default), or drop."), Sets("workload.on_bad")
    ] = None
    on_long: Annotated[
        str | None,
        typer.Option(help="Over the model's limit: error (prompts; default), drop or clip (with answers)."),
        Sets("workload.on_long"),
    ] = None
    time_unit: TimeUnit = None
    hash_block_size: HashBlockSize = None
    sort: Sort = False
    keep_clock: KeepClock = False
    memory: Memory = None
    rate: Annotated[
        list[float] | None,
        typer.Option(
            "--rate", "--request-rate", help="Poisson arrivals per second (inf: all at once); repeat to compare."
        ),
        Compares(RATE),
    ] = None
    max_concurrency: Annotated[int | None, typer.Option(help="Closed loop: this many outstanding.")] = None
    num_requests: Annotated[
        int | None,
        typer.Option(
            "--num-requests", "--num-prompts", help="How many a run: all of a trace, 1000 of drawn lengths."
        ),
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
    percentiles: Annotated[
        str | None, typer.Option(help="Percentiles that tables show: 50,95,99."), Sets("percentiles", percentile_list)
    ] = None
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Any option of the run's file: workload.time_scale=0.5")
    ] = None
    out: Annotated[Path | None, typer.Option(help="Save each run in a new directory under this one.")] = None
    progress: Progress = "auto"
    as_json: Json = False


@dataclass(frozen=True, kw_only=True)
class SimulationOptions:
    """What a simulated run takes besides: who serves the requests, and for how long."""

    calibration: Annotated[
        list[str] | None,
        typer.Option(help="GPU and model: device/model, or a file; repeat to compare."),
        Compares("calibration"),
    ] = None
    scheduler: Annotated[
        list[str] | None,
        typer.Option(help="NAME[,option=value...] (sarathi, vllm_v1, slai, ...) or file.py:Class; repeat to compare."),
        Sets("schedulers"),
    ] = None
    engine: Annotated[
        list[str] | None,
        typer.Option(help="Engine and version with its defaults on the GPU (llmsim engines); repeat to compare."),
        Compares("engine.name"),
    ] = None
    replicas: Annotated[
        list[int] | None,
        typer.Option(help="Model instances behind the router; repeat to compare."),
        Compares("cluster.replicas"),
    ] = None
    horizon: Annotated[
        float | None, typer.Option(help="Stop a run after this many simulated seconds."), Sets("horizon_s")
    ] = None
