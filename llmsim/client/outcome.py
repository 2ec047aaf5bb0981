"""What came back, as the tables and the summary that a simulated run has.

A server's iterations are not seen, so there are none: `token_times` holds the time of every token event instead, and
the summary leaves out what only the server knows (KV, batches, preemptions). Its part `client` is about the measuring.
"""

from __future__ import annotations

import platform
from array import array
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from llmsim.client.notes import notes_on
from llmsim.client.record import FAILED, FINISHED
from llmsim.core.request import NEVER
from llmsim.metrics import metrics_on, parse_slo, summarize_measured
from llmsim.metrics.summary import asked_for, percentiles_with
from llmsim.metrics.timeline import Timeline
from llmsim.runs.manifest import git_state, versions
from llmsim.runs.results import Result
from llmsim.runs.tables import LEADING, no_iterations, slo_columns
from llmsim.spec import strict
from llmsim.traces.workload_facts import order_notes
from llmsim.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from llmsim.client.ready import Listing, Server
    from llmsim.client.record import Record
    from llmsim.client.spec import BenchSpec
    from llmsim.traces.workload import Workload


@dataclass(frozen=True, slots=True)
class Measured:
    """All that a run left: `lags` of the client's event loop and `ended_ns` are int ns on the run's clock."""

    workload: Workload
    server: Server
    listing: Listing
    records: list[Record]
    lags: array[int]
    prompt_seed: int
    interrupted: bool
    ended_ns: int


def measured_result(spec: BenchSpec, run: Measured) -> Result:
    """Tables, summary and manifest of what was sent; requests that were never sent are only counted."""
    sent = [record for record in run.records if record.arrival_ns != NEVER]
    requests, times = request_table(sent, run.workload), token_times(sent)
    slo = parse_slo(spec.slo) if spec.slo else None
    latencies = metrics_on(requests, Timeline.of_times(requests, times), slo=slo).drop(columns="id")
    summary: dict[str, Any] = {"name": spec.name, "scheduler": label(spec.model), "seed": spec.seed}
    summary |= summarize_measured(
        requests,
        times,
        slo=slo,
        warmup_s=spec.warmup_s,
        ended_ns=run.ended_ns,
        closed_loop=run.workload.max_concurrency is not None,
        percentiles=percentiles_with(spec.percentiles or ()),
        of_classes=spec.percentiles or (),
    )
    summary |= asked_for(spec.percentiles)
    summary["requests"]["not_sent"] = len(run.records) - len(sent)
    summary["requests"]["dropped_from_trace"] = dict(run.workload.dropped)
    summary["client"] = _client(spec, run, sent)
    summary["notes"] += [*notes_on(summary, run.server.notes), *order_notes(run.workload.description)]
    iterations, ranges = no_iterations()
    return Result(
        name=spec.name,
        requests=pd.concat([requests, latencies], axis="columns"),
        iterations=iterations,
        token_ranges=ranges,
        token_times=times,
        summary=summary,
        manifest=_manifest(spec, run),
    )


def label(model: str) -> str:
    """What tells the run from others in a table with little room: `server` and the last part of the model's name."""
    return f"server {model.rstrip('/').rsplit('/', 1)[-1]}"


def request_table(sent: list[Record], workload: Workload) -> pd.DataFrame:
    """One row a request sent, by id: the columns of a simulated run that a client knows, and its own (docs/bench.md).

    `prompt_tokens` is what the server reported, else what was asked.
    """

    def ints(name: str) -> np.ndarray:
        values = [getattr(record, name) for record in sent]
        return np.array([NEVER if value is None else value for value in values], dtype=np.int64)

    reported = ints("prompt_reported")
    never = np.full(len(sent), NEVER, dtype=np.int64)
    finished = np.array([record.status == FINISHED for record in sent], dtype=bool)
    last = np.array([record.times[-1] if record.times else NEVER for record in sent], dtype=np.int64)
    columns: dict[str, object] = {
        "id": ints("id"),
        "replica": np.zeros(len(sent), dtype=np.int64),
        "arrival_ns": ints("arrival_ns"),
        "prompt_tokens": np.where(reported == NEVER, ints("prompt_asked"), reported),
        "output_tokens": ints("output_asked"),
        "first_scheduled_ns": never,
        "prefill_end_ns": never,
        "finish_ns": np.where(finished, last, NEVER),
        "generated": ints("generated"),
        "first_token_ns": np.array([r.times[0] if r.times else NEVER for r in sent], dtype=np.int64),
        "status": np.array([record.status for record in sent], dtype=object),
        "reject_reason": np.array([record.reason for record in sent], dtype=object),
        "reason_detail": np.array([record.detail for record in sent], dtype=object),
        "planned_ns": ints("planned_ns"),
        "sent_ns": ints("sent_ns"),
        "ended_ns": ints("ended_ns"),
        "prompt_tokens_asked": ints("prompt_asked"),
        "prompt_tokens_reported": reported,
        "output_tokens_reported": ints("output_reported"),
        "token_events": np.array([len(record.times) for record in sent], dtype=np.int64),
    }
    columns |= slo_columns([workload.slo_classes[workload.slo_index[record.id]] for record in sent])
    table = pd.DataFrame(columns)
    return table[[*LEADING, *(name for name in table.columns if name not in LEADING)]]


def token_times(sent: list[Record]) -> pd.DataFrame:
    """One row a token event (id, time_ns), by id, then time."""
    counts = [len(record.times) for record in sent]
    ids = np.repeat(np.array([record.id for record in sent], dtype=np.int64), counts)
    flat = np.concatenate([np.zeros(0, dtype=np.int64), *(np.asarray(r.times, dtype=np.int64) for r in sent)])
    return pd.DataFrame({"id": ids, "time_ns": flat})


def _client(spec: BenchSpec, run: Measured, sent: list[Record]) -> dict[str, Any]:
    """The part of the summary about the measuring: what was sent, what came, how punctual the client was."""
    answered = [record for record in sent if record.ok]
    counted = [record for record in answered if record.output_reported is not None]
    late = [record.sent_ns - record.planned_ns for record in sent if record.sent_ns != NEVER]
    reported = [r for r in answered if r.prompt_reported is not None]
    off = [abs((r.prompt_reported or 0) - r.prompt_asked) for r in reported if r.prompt_asked]
    return {
        "endpoint": spec.endpoint,
        "api": spec.api,
        "model": spec.model,
        "interrupted": run.interrupted,
        "failures": dict(sorted(Counter(r.reason for r in sent if r.status == FAILED).items())),
        "prompts": {
            "kind": run.server.prompts.kind,
            "asked_tokens": sum(r.prompt_asked for r in answered),
            "reported_tokens": sum(r.prompt_reported or 0 for r in reported) if reported else None,
            "reported_by": len(reported),
            "mean_error_tokens": round(sum(off) / len(off), 3) if off else None,
            "max_error_tokens": max(off, default=None),
        },
        "outputs": {
            "forced": run.server.features.force,
            "asked_tokens": sum(r.output_asked for r in answered),
            "given_tokens": sum(r.generated for r in answered),
            "counted_by_the_server": len(counted),
            "token_events": sum(len(r.times) for r in answered),
            "as_asked": sum(r.generated == r.output_asked for r in answered),
            "shorter": sum(r.generated < r.output_asked for r in answered),
            "longer": sum(r.generated > r.output_asked for r in answered),
        },
        "send_lateness_ms": _points(late),
        "loop_lag_ms": _points(run.lags),
    }


def _points(values_ns: list[int] | array[int]) -> dict[str, float] | None:
    """p50, p99 and the maximum, ms; None of nothing."""
    if not len(values_ns):
        return None
    p50, p99, most = np.percentile(np.asarray(values_ns, dtype=np.int64), [50, 99, 100]) / MILLISECOND
    return {"p50": round(float(p50), 4), "p99": round(float(p99), 4), "max": round(float(most), 4)}


def _manifest(spec: BenchSpec, run: Measured) -> dict[str, Any]:
    """Where the result comes from; no header is in it, as headers hold keys."""
    return {
        "config": yaml.safe_dump(strict.dump(spec), sort_keys=False, allow_unicode=True),
        "seed": spec.seed,
        "prompt_seed": run.prompt_seed,
        "workload": dict(run.workload.description),
        "server": {"software": run.listing.server, "models": run.listing.models, "problem": run.listing.problem},
        "requested": run.server.features._asdict(),
        "git": git_state(),
        "versions": versions() | {"aiohttp": version("aiohttp")},
        "python": platform.python_version(),
        "wall_time": {"measuring_s": run.ended_ns / SECOND},
    }
