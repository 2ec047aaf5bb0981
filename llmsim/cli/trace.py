"""`llmsim trace`: fetch, look at, convert and make workloads.

Nothing heavy is imported here at the top: pandas takes half a second, and `llmsim --help` must not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmsim.cli.console import warn
from llmsim.cli.groups import expand_groups
from llmsim.cli.options import (
    Format,
    HashBlockSize,
    Json,
    KeepClock,
    Map,
    Memory,
    OutputTokens,
    PromptTokens,
    Sort,
    TimeUnit,
    column_map,
)
from llmsim.cli.run_spec import DRAWN_REQUESTS

if TYPE_CHECKING:
    from llmsim.traces.schema import Trace
    from llmsim.traces.spec import WorkloadSpec

app = typer.Typer(
    name="trace",
    help="Fetch, look at, convert and make workloads.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Source = Annotated[str, typer.Argument(metavar="TRACE", help="A workload file, or the name of a shipped one.")]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", help="File to write: .csv, .jsonl (Mooncake), these with .gz, or .parquet."),
]
OnLong = Annotated[
    str, typer.Option(help="Over the limit: error (prompts), or drop, clip (scale down; with the answer).")
]
Limit = Annotated[int | None, typer.Option("--max-model-len", help="The model's limit in tokens.")]


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How to read a workload file."""

    format: Format = None
    map: Map = None
    on_bad: Annotated[str, typer.Option(help="Rows that cannot be used: error, or drop (and count).")] = "error"
    time_unit: TimeUnit = None
    sort: Sort = False
    memory: Memory = None

    def workload(self, trace: str, on_long: str = "error") -> WorkloadSpec:
        """All rows of a trace, read as these options say."""
        from llmsim.traces.spec import WorkloadSpec

        return WorkloadSpec(
            trace=trace,
            format=self.format,
            columns=column_map(self.map),
            on_bad=self.on_bad,
            time_unit=self.time_unit,
            sort=self.sort,
            memory=self.memory,
            on_long=on_long,
        )


@app.command()
def fetch(
    name: Annotated[
        str,
        typer.Argument(help="azure-code, azure-conv, mooncake-conversation or sharegpt4.", metavar="NAME"),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to put the file in.")] = Path(),
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.", min=0.1)] = 10.0,
) -> None:
    """Download a public trace and check its SHA-256."""
    from llmsim.traces.fetch import fetch as download
    from llmsim.traces.sources import public_file

    file = public_file(name)
    path, new = download(file, out, timeout)
    typer.echo(f"{path}: {'downloaded' if new else 'already there'}, {file.rows:,} rows, SHA-256 as expected")
    typer.echo(f"{file.credit} ({file.licence}){'; ' + file.note if file.note else ''}")


@app.command()
@expand_groups()
def stats(
    trace: Source,
    read: ReadOptions,
    hash_block_size: HashBlockSize = None,
    as_json: Json = False,
) -> None:
    """Show rows, rate, quantiles, burstiness, correlation and shared prefixes; of a twin, those of a sample."""
    from llmsim.traces.reuse import with_bad_answers
    from llmsim.traces.stats import format_stats, trace_stats

    spec = read.workload(trace)
    loaded = _load(spec, hash_ids=True)
    facts = trace_stats(loaded, hash_block_size, with_bad_answers(spec, loaded))
    typer.echo(json.dumps(facts, indent=2) if as_json else format_stats(facts))
    for note in facts.get("notes", ()):
        warn(f"warning: {note}")


@app.command()
@expand_groups()
def convert(
    trace: Source,
    out: Out,
    read: ReadOptions,
    max_model_len: Limit = None,
    on_long: OnLong = "error",
) -> None:
    """Write a workload in another format; what that cannot hold is named."""
    from llmsim.traces.conversion import conversion_notes
    from llmsim.traces.export import write_trace

    loaded = _load(read.workload(trace, on_long), max_model_len, hash_ids=True)
    path = write_trace(loaded.requests, out)
    _report(path, len(loaded.requests), loaded.dropped, loaded.clipped, loaded.moved)
    for note in conversion_notes(loaded, out):
        warn(f"note: {note}")


@app.command()
@expand_groups()
def twin(
    trace: Annotated[Path, typer.Argument(metavar="FILE", help="A workload file with rows.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file to write.")],
    read: ReadOptions,
    name: Annotated[str | None, typer.Option(help="Name of the twin; the output's if not given.")] = None,
) -> None:
    """Make a statistical twin: quantiles, rank dependence and arrival profile, no rows."""
    from llmsim.traces import files, twinfile, twins

    loaded = _load(read.workload(str(trace)))
    text = twinfile.dump(twins.make_twin(loaded, name or out.name.split(".")[0]))
    path = files.write_bytes(out, text.encode())
    typer.echo(f"{path}: twin of {len(loaded.requests):,} requests, {len(text):,} bytes")


@app.command()
@expand_groups()
def synth(
    out: Out,
    read: ReadOptions,
    trace: Annotated[
        str | None, typer.Argument(metavar="[TRACE]", help="A workload file or shipped name to draw from.")
    ] = None,
    num_requests: Annotated[
        int | None, typer.Option("--num-requests", "-n", help="All of a trace, 1000 of drawn lengths if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random streams.")] = 0,
    arrivals: Annotated[
        str | None,
        typer.Option(
            metavar="KIND[,OPTION=VALUE...]",
            help="trace, poisson, gamma, constant, bursts, on_off, ramp or all_at_once, with options, e.g. "
            "gamma,rate=5,burstiness=0.5 or ramp,ramp=0:1/60:5 (seconds:rate).",
        ),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Short for --arrivals poisson,rate=RATE.")] = None,
    lengths: Annotated[
        str | None, typer.Option(help="trace, resampled, empirical or synthetic (if --prompt-tokens is given).")
    ] = None,
    prompt_tokens: PromptTokens = None,
    output_tokens: OutputTokens = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="e.g. name=paying,share=0.05,tbt_s=0.1; repeat.")
    ] = None,
    keep_clock: KeepClock = False,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Put the trace's lengths in random order.")] = False,
    time_scale: Annotated[float, typer.Option(help="Factor on the trace's times; 0.5 doubles the rate.")] = 1.0,
    max_model_len: Limit = None,
    on_long: OnLong = "error",
) -> None:
    """Make a workload from distributions, a trace or a twin, and write it to a file."""
    from llmsim.traces import textspec
    from llmsim.traces.conversion import drawn_notes
    from llmsim.traces.export import workload_table, write_trace
    from llmsim.traces.workload import LengthsSpec, WorkloadSpec, build_workload

    spec = WorkloadSpec(
        trace=trace,
        format=read.format,
        columns=column_map(read.map),
        time_unit=read.time_unit,
        sort=read.sort,
        memory=read.memory,
        on_bad=read.on_bad,
        on_long=on_long,
        lengths=LengthsSpec(kind=lengths, prompt=prompt_tokens, output=output_tokens),
        arrivals=textspec.arrivals(arrivals, rate),
        num_requests=DRAWN_REQUESTS if num_requests is None and trace is None and prompt_tokens else num_requests,
        time_scale=time_scale,
        classes=tuple(textspec.service_class(text) for text in classes or ()),
        shuffle=shuffle,
        keep_clock=keep_clock,
    )
    workload = build_workload(spec, seed, max_model_len)
    table = workload_table(workload)
    path = write_trace(table, out)
    moved = (workload.description["trace"] or {}).get("moved")
    _report(path, len(workload), workload.dropped, workload.description["clipped"], moved)
    for note in drawn_notes(workload, table, out):
        warn(f"note: {note}")


def _load(spec: WorkloadSpec, limit: int | None = None, hash_ids: bool = False) -> Trace:
    """A trace file, or as many requests of a twin as its original had."""
    from llmsim.traces import selection, twins

    source = selection.open_source(spec, limit, hash_ids)
    assert source is not None
    return twins.sample(source) if isinstance(source, twins.Twin) else source


def _report(path: Path, rows: int, dropped: dict[str, int], clipped: int, moved: int | None) -> None:
    """Say what was written and what was left out."""
    typer.echo(f"{path}: {rows:,} requests")
    if dropped:
        typer.echo("dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in dropped.items()))
    if clipped:
        typer.echo(f"clipped: {clipped:,} requests scaled down to the limit")
    if moved is not None:
        typer.echo(f"sorted: {moved:,} rows moved")
