"""The summary of a run: an ordered, JSON-ready dictionary, byte-identical for the same tables and options.

vLLM's names stand at the top level (`completed`, `request_throughput`, `p99_ttft_ms`, ...); what vLLM does
not report is grouped: `requests`, `kv`, `batches`, `slo`, `saturation`, `notes`. Undefined numbers are None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from llmsim.metrics.json_values import json_value
from llmsim.metrics.latency import Definitions
from llmsim.metrics.load import EVERYTHING
from llmsim.metrics.samples import RELATIVE_ERROR, Sample
from llmsim.metrics.saturation import judge, unseen
from llmsim.metrics.slo import Slo, TbtRule
from llmsim.metrics.tally import LATENCIES, Tally, TallyOptions
from llmsim.metrics.timeline import Timeline, ints
from llmsim.metrics.usage import Presence, Span
from llmsim.units import MILLISECOND, SECOND, to_ns

PERCENTILES = (0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)
"""Percentiles of every latency; those of the vLLM benchmark record, and the median under its other name."""

Summary = dict[str, Any]


def percentiles_with(asked: Sequence[float]) -> tuple[float, ...]:
    """PERCENTILES and those asked for, in ascending order."""
    return tuple(sorted({*PERCENTILES, *asked}))


def asked_for(percentiles: Sequence[float] | None) -> Summary:
    """`percentiles` of a summary: those that its tables show, if any were asked for."""
    return {} if percentiles is None else {"percentiles": [float(p) for p in percentiles]}


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
    presence: Presence | None = None,
    members: Mapping[str, Sequence[int]] | None = None,
) -> Summary:
    """Summarize the tables of one run (columns as in docs/metrics.md).

    Latencies are those of finished requests that arrived at `warmup_s` (simulation clock) or later. Rates are of the
    tokens emitted and the requests finished in the span from then, or from the first arrival if that is later, to the
    last completion; with a `horizon_s` (0: none) that cut requests off, to the horizon. `kv_num_blocks` is of each
    replica: one number, or one for each.
    `closed_loop`: arrivals follow completions (--max-concurrency), so no saturation verdict is given.
    `first_token_at_prefill_end` matters to the 'slai' definitions only; None: judged from the tables.
    `presence`: when the replicas were there, if not all the time. `members`: the replicas of each model, for the part
    `models`, which is there if requests name models. Raises ConfigError for unknown definitions, percentiles outside
    0-100, or replicas < 1.
    """
    options = TallyOptions(
        definitions=definitions,
        slo=slo,
        tbt_rule=tbt_rule,
        warmup_s=warmup_s,
        kv_num_blocks=kv_num_blocks,
        replicas=replicas,
        percentiles=tuple(percentiles),
        first_token_at_prefill_end=first_token_at_prefill_end,
        members=members if "model" in requests else None,
    )
    ended_ns = to_ns(horizon_s) or int(ints(iterations, "end_ns").max(initial=0))
    tally = Tally(options, span_of(requests, to_ns(warmup_s), ended_ns, replicas), limit=EVERYTHING)
    tally.were_there(presence)
    tally.add(requests, Timeline.of(requests, iterations, token_ranges), iterations)
    return summary_of(tally, horizon_s=horizon_s, block_size=block_size, closed_loop=closed_loop)


def summary_of(
    tally: Tally, *, horizon_s: float = 0, block_size: int | None = None, closed_loop: bool = False
) -> Summary:
    """The summary of a run whose tables went into `tally`, arguments as in `summarize`."""
    options, attained = tally.options, tally.attainment.report(tally.span)
    cut = to_ns(horizon_s) if horizon_s else None
    there = tally.span.presence
    verdict = judge(
        tally.load, replicas=options.replicas, closed_loop=closed_loop, horizon_ns=cut, presence=there
    )
    summary: Summary = {"definitions": options.definitions}
    summary |= _rates(tally, attained)
    summary |= _latencies(tally)
    summary |= {
        "requests": _counts(tally, horizon_s),
        "preemptions": tally.counts["preemptions"],
        "kv": tally.usage.kv(block_size),
        **_prefix_cache(tally),
        "batches": tally.usage.batches(),
        "slo": attained,
        **tally.models.reports(tally.span, closed_loop, cut),
        "saturation": verdict.as_dict(),
        "notes": _notes(tally, horizon_s),
    }
    return {key: json_value(value) for key, value in summary.items()}


def summarize_measured(
    requests: pd.DataFrame,
    token_times: pd.DataFrame,
    *,
    slo: Slo | None = None,
    warmup_s: float = 0,
    ended_ns: int = 0,
    closed_loop: bool = False,
    percentiles: Sequence[float] = PERCENTILES,
    of_classes: Sequence[float] = (),
) -> Summary:
    """Summarize what a client measured of a server: as `summarize`, without what only the server could know.

    So there is no `kv`, `batches` or `preemptions`, and no verdict on the load. `token_times` as Timeline.of_times
    takes it; `ended_ns` is when the run ended, if that cut requests off; `of_classes` are percentiles that classes have
    besides their own. Raises ConfigError as `summarize` does.
    """
    options = TallyOptions(slo=slo, warmup_s=warmup_s, percentiles=tuple(percentiles), of_classes=tuple(of_classes))
    tally = Tally(options, span_of(requests, to_ns(warmup_s), ended_ns, replicas=1), limit=EVERYTHING)
    tally.add_requests(requests, Timeline.of_times(requests, token_times))
    attained = tally.attainment.report(tally.span)
    summary: Summary = {"definitions": "vllm"}
    summary |= _rates(tally, attained)
    summary |= _latencies(tally)
    summary |= {
        "requests": _counts(tally, 0),
        "slo": attained,
        "saturation": unseen(closed_loop).as_dict(),
        "notes": _notes(tally, 0),
    }
    return {key: json_value(value) for key, value in summary.items()}


def span_of(requests: pd.DataFrame, warmup_ns: int, ended_ns: int, replicas: int) -> Span:
    """The measured stretch of the clock, as `summarize` describes it; `ended_ns`: what cut requests off."""
    arrivals = ints(requests, "arrival_ns")
    end = int(ints(requests, "finish_ns").max(initial=0))
    if (requests["status"] == "unfinished").any():
        end = max(end, ended_ns)
    start = max(warmup_ns, int(arrivals.min()) if len(arrivals) else 0)
    return Span(start, max(start, end), replicas)


def _rates(tally: Tally, attained: dict[str, Any] | None) -> Summary:
    """Counts of the whole run, and tokens and rates of the span, under vLLM's names."""
    counts, rates = tally.counts, tally.rates.report(tally.span)
    prompt, output = tally.rates.tokens
    return {
        "sent": counts["sent"],
        "completed": counts["finished"],
        "unfinished": counts["unfinished"],
        "rejected": counts["rejected"],
        "failed": counts["sent"] - counts["finished"] - counts["unfinished"] - counts["rejected"],
        "duration_s": tally.span.length_ns / SECOND,
        "total_input_tokens": prompt,
        "total_output_tokens": output,
        "request_throughput": rates["request_throughput"],
        "request_goodput": None if attained is None else attained["request_goodput"],
        "output_throughput": rates["output_throughput"],
        "total_token_throughput": rates["total_token_throughput"],
        "offered_rate": rates["offered_rate"],
        "served_rate": rates["served_rate"],
    }


def _latencies(tally: Tally) -> Summary:
    """mean_, median_, std_ and pXX_ of each latency, in ms, over the finished requests of the measurement."""
    summary: Summary = {}
    for name in LATENCIES:
        summary |= _statistics(name, tally.latencies[name], tally.options.percentiles)
    return summary


def _statistics(name: str, sample: Sample, percentiles: Sequence[float]) -> Summary:
    points = sample.percentiles([50, *percentiles]) / MILLISECOND
    out: Summary = {
        f"mean_{name}_ms": sample.mean() / MILLISECOND,
        f"median_{name}_ms": float(points[0]),
        f"std_{name}_ms": sample.std() / MILLISECOND,
    }
    # vLLM writes p99 and p99.9: whole percentiles without a decimal point, which is what :g does.
    return out | {f"p{p:g}_{name}_ms": float(point) for p, point in zip(percentiles, points[1:], strict=True)}


def _counts(tally: Tally, horizon_s: float) -> Summary:
    """Which requests the latencies are of, and which were left out and why."""
    counts = tally.counts
    known = "preempted_requests" in counts  # a client does not see them
    preempted = {"preempted_requests": counts["preempted_requests"]} if known else {}
    return {
        "measured": counts["measured_finished"],
        "censored": counts["measured"] - counts["measured_finished"],
        "warmup_excluded": counts["sent"] - counts["measured"],
        "warmup_s": tally.options.warmup_s,
        "horizon_s": horizon_s or None,
        **preempted,
        "output_tokens_of_unfinished": counts["output_tokens_of_unfinished"],
    }


def _prefix_cache(tally: Tally) -> Summary:
    """What requests found when they were first admitted, if a replica has looked for it."""
    counts = tally.counts
    if "cached_tokens" not in counts:
        return {}
    tokens, admitted = counts["admitted_prompt_tokens"], counts["admitted"]
    return {
        "prefix_cache": {
            "prompt_tokens": tokens,
            "cached_tokens": counts["cached_tokens"],
            "token_hit_rate": counts["cached_tokens"] / tokens if tokens else None,
            "requests": admitted,
            "requests_with_hit": counts["requests_with_hit"],
            "request_hit_rate": counts["requests_with_hit"] / admitted if admitted else None,
        }
    }


def _notes(tally: Tally, horizon_s: float) -> list[str]:
    """What a reader of the numbers must know, in words."""
    notes, counts = [], tally.counts
    if unfinished := counts["unfinished"]:
        cut = f"the horizon of {horizon_s:g} s" if horizon_s else "the end of the run"
        notes.append(
            f"{unfinished} of {counts['sent']} requests were unfinished at {cut}. Latencies are of "
            "finished requests only, so they are optimistic; attainment counts the unfinished as missed."
        )
    if rejected := counts["rejected"]:
        notes.append(f"{rejected} requests were rejected; they are in no latency, and missed in attainment.")
    if before := counts["sent"] - counts["measured"]:
        notes.append(
            f"{before} requests that arrived before {tally.options.warmup_s:g} s (warm-up) are in no "
            "latency; rates and attainment are of what was emitted and what finished after it, theirs included."
        )
    if tally.options.definitions == "slai":
        notes.append(
            "TTFT is the end of the prompt; ITL holds the papers' TBT samples, with their zeros and those of "
            "unfinished requests."
        )
    if estimated := [name for name in LATENCIES if not tally.latencies[name].exact]:
        notes.append(
            f"Percentiles of {', '.join(estimated)} are within {RELATIVE_ERROR:.1%} of their values: more than "
            f"{tally.limit:,} different ones came, which a sketch keeps (DDSketch)."
        )
    return notes
