"""The summary of a run: an ordered, JSON-ready dictionary, byte-identical for the same tables and options.

vLLM's names stand at the top level (`completed`, `request_throughput`, `p99_ttft_ms`, ...); what vLLM does
not report is grouped: `requests`, `kv`, `batches`, `slo`, `saturation`, `notes`. Undefined numbers are None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from llmsim.errors import ConfigError
from llmsim.metrics.attainment import slo_report
from llmsim.metrics.latency import Definitions, check_definitions, elapsed_ns, itl_samples, tpot_ns, ttft_ns
from llmsim.metrics.plain import plain
from llmsim.metrics.quantiles import Floats, Ints, ones, weighted_mean, weighted_percentiles, weighted_std
from llmsim.metrics.saturation import saturation, unseen
from llmsim.metrics.slo import Slo, TbtRule
from llmsim.metrics.timeline import Mask, Timeline, ints
from llmsim.metrics.usage import Span, batch_stats, kv_stats
from llmsim.units import MILLISECOND, SECOND, to_ns

PERCENTILES = (0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)
"""Percentiles of every latency; those of the vLLM benchmark record, and the median under its other name."""

Summary = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Run:
    """The tables of a run and what of them is measured."""

    requests: pd.DataFrame
    timeline: Timeline
    span: Span
    measured: Mask  # (requests,): arrived after the warm-up
    finished: Mask  # (requests,)
    definitions: Definitions

    @classmethod
    def of(
        cls, requests: pd.DataFrame, timeline: Timeline, span: Span, warmup_s: float, definitions: Definitions
    ) -> _Run:
        measured = ints(requests, "arrival_ns") >= to_ns(warmup_s)
        finished = (requests["status"] == "finished").to_numpy(dtype=bool)
        return cls(requests, timeline, span, measured, finished, definitions)


def summarize(
    requests: pd.DataFrame,
    iterations: pd.DataFrame,
    token_ranges: pd.DataFrame,
    *,
    definitions: Definitions = "vllm",
    slo: Slo | None = None,
    tbt_rule: TbtRule = "max",
    warmup_s: float = 0,
    horizon_s: float = 0,
    kv_num_blocks: int | Sequence[int] | None = None,
    block_size: int | None = None,
    replicas: int = 1,
    closed_loop: bool = False,
    percentiles: Sequence[float] = PERCENTILES,
    first_token_at_prefill_end: bool | None = None,
) -> Summary:
    """Summarize the tables of one run (columns as in docs/metrics.md).

    Latencies are those of finished requests that arrived at `warmup_s` (simulation clock) or later. Rates are
    per second of the span from then, or from the first arrival if that is later, to the last completion; with
    a `horizon_s` (0: none) that cut requests off, to the horizon. `kv_num_blocks` is of each replica: one number,
    or one for each.
    `closed_loop`: arrivals follow completions (--max-concurrency), so no saturation verdict is given.
    `first_token_at_prefill_end` matters to the 'slai' definitions only; None: judged from the tables.
    Raises ConfigError for unknown definitions, percentiles outside 0-100, or replicas < 1.
    """
    check_definitions(definitions)
    _check(percentiles, replicas)
    ended_ns = to_ns(horizon_s) or int(ints(iterations, "end_ns").max(initial=0))
    span = _span(requests, to_ns(warmup_s), ended_ns, replicas)
    run = _Run.of(requests, Timeline.of(requests, iterations, token_ranges), span, warmup_s, definitions)
    overlap = span.overlap(iterations)
    attained = slo_report(
        requests, run.timeline, run.measured, span, slo, definitions, tbt_rule, first_token_at_prefill_end
    )
    cut = to_ns(horizon_s) if horizon_s else None
    verdict = saturation(requests, iterations, replicas=replicas, closed_loop=closed_loop, horizon_ns=cut)
    summary: Summary = {"definitions": definitions}
    summary |= _rates(run, attained)
    summary |= _latencies(run, percentiles, first_token_at_prefill_end)
    summary |= {
        "requests": _counts(run, warmup_s, horizon_s),
        "preemptions": int(ints(requests, "preemptions").sum()),
        "kv": kv_stats(iterations, overlap, span, kv_num_blocks, block_size),
        "batches": batch_stats(iterations, overlap, span),
        "slo": attained,
        "saturation": verdict.as_dict(),
        "notes": _notes(run, warmup_s, horizon_s),
    }
    return {key: plain(value) for key, value in summary.items()}


def summarize_measured(
    requests: pd.DataFrame,
    token_times: pd.DataFrame,
    *,
    slo: Slo | None = None,
    warmup_s: float = 0,
    ended_ns: int = 0,
    closed_loop: bool = False,
    percentiles: Sequence[float] = PERCENTILES,
) -> Summary:
    """Summarize what a client measured of a server: as `summarize`, without what only the server could know.

    So there is no `kv`, `batches` or `preemptions`, and no verdict on the load. `token_times` as Timeline.of_times
    takes it; `ended_ns` is when the run ended, if that cut requests off. Raises ConfigError as `summarize` does.
    """
    _check(percentiles, replicas=1)
    span = _span(requests, to_ns(warmup_s), ended_ns, replicas=1)
    run = _Run.of(requests, Timeline.of_times(requests, token_times), span, warmup_s, "vllm")
    attained = slo_report(requests, run.timeline, run.measured, span, slo)
    summary: Summary = {"definitions": "vllm"}
    summary |= _rates(run, attained)
    summary |= _latencies(run, percentiles, None)
    summary |= {
        "requests": _counts(run, warmup_s, 0),
        "slo": attained,
        "saturation": unseen(closed_loop).as_dict(),
        "notes": _notes(run, warmup_s, 0),
    }
    return {key: plain(value) for key, value in summary.items()}


def _check(percentiles: Sequence[float], replicas: int) -> None:
    wrong = [p for p in percentiles if not 0 <= p <= 100]
    if wrong:
        raise ConfigError(f"percentiles must be from 0 to 100 but got {wrong[0]}")
    if replicas < 1:
        raise ConfigError(f"replicas must be at least 1 but got {replicas}")


def _span(requests: pd.DataFrame, warmup_ns: int, ended_ns: int, replicas: int) -> Span:
    """The measured stretch of the clock, as `summarize` describes it; `ended_ns`: what cut requests off."""
    arrivals = ints(requests, "arrival_ns")
    end = int(ints(requests, "finish_ns").max(initial=0))
    if (requests["status"] == "unfinished").any():
        end = max(end, ended_ns)
    start = max(warmup_ns, int(arrivals.min()) if len(arrivals) else 0)
    return Span(start, max(start, end), replicas)


def _status(run: _Run, status: str) -> int:
    return int((run.requests["status"] == status).sum())


def _rates(run: _Run, attained: dict[str, Any] | None) -> Summary:
    """Counts of the whole run, and rates of what completed in the span, under vLLM's names."""
    requests, span = run.requests, run.span
    seconds = span.length_ns / SECOND
    inside = run.finished & (ints(requests, "finish_ns") >= span.start_ns)
    prompt = int(ints(requests, "prompt_tokens")[inside].sum())
    output = int(ints(requests, "generated")[inside].sum())
    sent, completed = len(requests), int(run.finished.sum())
    unfinished, rejected = _status(run, "unfinished"), _status(run, "rejected")

    def rate(count: int) -> float | None:
        return count / seconds if seconds else None

    return {
        "sent": sent,
        "completed": completed,
        "unfinished": unfinished,
        "rejected": rejected,
        "failed": sent - completed - unfinished - rejected,
        "duration_s": seconds,
        "total_input_tokens": prompt,
        "total_output_tokens": output,
        "request_throughput": rate(int(inside.sum())),
        "request_goodput": None if attained is None else attained["request_goodput"],
        "output_throughput": rate(output),
        "total_token_throughput": rate(prompt + output),
    }


def _latencies(run: _Run, percentiles: Sequence[float], first_token_at_prefill_end: bool | None) -> Summary:
    """mean_, median_, std_ and pXX_ of each latency, in ms, over the finished requests of the measurement."""
    requests, keep = run.requests, run.measured & run.finished

    def of_requests(name: str, values: Floats) -> Summary:
        sample = values[keep & ~np.isnan(values)]
        return _statistics(name, sample, ones(sample), percentiles)

    gaps, weights = itl_samples(requests, run.timeline, run.measured, run.definitions, first_token_at_prefill_end)
    return (
        of_requests("ttft", ttft_ns(requests, run.definitions))
        | of_requests("tpot", tpot_ns(requests))
        | _statistics("itl", gaps, weights, percentiles)
        | of_requests("e2el", elapsed_ns(requests, "finish_ns"))
        | of_requests("queue", elapsed_ns(requests, "first_scheduled_ns"))
    )


def _statistics(name: str, values: Floats | Ints, weights: Ints, percentiles: Sequence[float]) -> Summary:
    points = weighted_percentiles(values, weights, [50, *percentiles]) / MILLISECOND
    out: Summary = {
        f"mean_{name}_ms": weighted_mean(values, weights) / MILLISECOND,
        f"median_{name}_ms": float(points[0]),
        f"std_{name}_ms": weighted_std(values, weights) / MILLISECOND,
    }
    # vLLM writes p99 and p99.9: whole percentiles without a decimal point, which is what :g does.
    return out | {f"p{p:g}_{name}_ms": float(point) for p, point in zip(percentiles, points[1:], strict=True)}


def _counts(run: _Run, warmup_s: float, horizon_s: float) -> Summary:
    """Which requests the latencies are of, and which were left out and why."""
    generated = ints(run.requests, "generated")
    known = "preemptions" in run.requests  # a client does not see them
    preempted = {"preempted_requests": int((ints(run.requests, "preemptions") > 0).sum())} if known else {}
    return {
        "measured": int((run.measured & run.finished).sum()),
        "censored": int((run.measured & ~run.finished).sum()),
        "warmup_excluded": int((~run.measured).sum()),
        "warmup_s": warmup_s,
        "horizon_s": horizon_s or None,
        **preempted,
        "output_tokens_of_unfinished": int(generated[~run.finished].sum()),
    }


def _notes(run: _Run, warmup_s: float, horizon_s: float) -> list[str]:
    """What a reader of the numbers must know, in words."""
    notes = []
    unfinished, rejected = _status(run, "unfinished"), _status(run, "rejected")
    if unfinished:
        cut = f"the horizon of {horizon_s:g} s" if horizon_s else "the end of the run"
        notes.append(
            f"{unfinished} of {len(run.requests)} requests were unfinished at {cut}. Latencies are of "
            "finished requests only, so they are optimistic; attainment counts the unfinished as missed."
        )
    if rejected:
        notes.append(f"{rejected} requests were rejected; they are in no latency, and missed in attainment.")
    if not run.measured.all():
        notes.append(
            f"{int((~run.measured).sum())} requests that arrived before {warmup_s:g} s (warm-up) are in no "
            "latency; rates are of what completed after it."
        )
    if run.definitions == "slai":
        notes.append(
            "TTFT is the end of the prompt; ITL holds the papers' TBT samples, with their zeros and those of "
            "unfinished requests."
        )
    return notes
