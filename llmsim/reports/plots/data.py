"""What the figures of a report show, as small frames: latencies, timelines, attainment. Needs no plotly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llmsim.metrics.latency import elapsed_ns, itl_samples, tpot_ns, ttft_ns
from llmsim.metrics.quantiles import Floats, Ints, ones
from llmsim.metrics.timeline import ints
from llmsim.reports.plots.reduce import Bins, Steps, bin_edges, distribution, over_bins, total
from llmsim.runs.facts import config_of
from llmsim.runs.labels import run_names
from llmsim.units import MILLISECOND, SECOND, to_ns

if TYPE_CHECKING:
    from llmsim.runs.results import Result

BINS = 500
"""Bins of a timeline; each holds three numbers, so 1500 points a curve."""

COUNTS = ("waiting", "running", "prefill_tokens", "decode_tokens")
EVERYONE = "all requests"


def latency_samples(result: Result) -> dict[str, tuple[Floats | Ints, Ints]]:
    """(ns, weight) of each latency under the run's own definitions: the samples its summary is made of."""
    requests, summary = result.requests, result.summary
    definitions = summary.get("definitions", "vllm")
    warmup_s = summary.get("requests", {}).get("warmup_s") or 0
    measured = ints(requests, "arrival_ns") >= to_ns(warmup_s)
    answered = measured & (requests["status"] == "finished").to_numpy(dtype=bool)
    samples: dict[str, tuple[Floats | Ints, Ints]] = {}
    for metric, values in (
        ("ttft", ttft_ns(requests, definitions)),
        ("tpot", tpot_ns(requests)),
        ("e2el", elapsed_ns(requests, "finish_ns")),
    ):
        sample = values[answered & ~np.isnan(values)]
        samples[metric] = (sample, ones(sample))
    engine = config_of(result).get("engine") or {}
    at_end = engine.get("first_token_at_prefill_end")
    return samples | {"itl": itl_samples(requests, result.timeline, measured, definitions, at_end)}


def latency_cdfs(results: Sequence[Result], points: int = 1000) -> pd.DataFrame:
    """Distributions of TTFT, TPOT, ITL and E2EL, at most `points` rows a run and metric.

    Columns: run (as run_names), metric (ttft, tpot, itl, e2el), latency_ms, share (of the sample at or below it).
    """
    parts = []
    for name, result in zip(run_names(results), results, strict=True):
        for metric, (ns, weights) in latency_samples(result).items():
            at, share = distribution(ns, weights, points)
            part = pd.DataFrame({"latency_ms": at / MILLISECOND, "share": share})
            parts.append(part.assign(run=name, metric=metric))
    return pd.concat(parts, ignore_index=True)[["run", "metric", "latency_ms", "share"]]


def timeline(result: Result, bins: int = BINS) -> pd.DataFrame:
    """What the replicas held over time, in at most `bins` bins a quantity; a few iterations are shown exactly.

    Columns: quantity, start_s, end_s (simulation clock), mean (time-weighted), low, high. Quantities: waiting,
    running, prefill_tokens and decode_tokens are summed over the replicas, an idle replica counting as zero;
    `kv` is of one replica: the mean over the replicas, the lowest and the highest of any, as a share of its
    blocks (in blocks, if the result does not know how many there are). Empty if no iteration ran.
    """
    table = result.iterations
    start, end = ints(table, "start_ns"), ints(table, "end_ns")
    edges = bin_edges(np.concatenate([start, end]), bins)
    curves = {name: over_bins(total(start, end, ints(table, name)), edges) for name in COUNTS}
    curves["kv"] = _kv(result, edges)
    frames = [
        pd.DataFrame({"start_s": edges[:-1] / SECOND, "end_s": edges[1:] / SECOND, **curve._asdict()}).assign(
            quantity=name
        )
        for name, curve in curves.items()
    ]
    columns = ["quantity", "start_s", "end_s", "mean", "low", "high"]
    return pd.concat(frames, ignore_index=True)[columns]


def kv_blocks(result: Result) -> list[int]:
    """Blocks of each replica; empty if the result does not know."""
    blocks = result.summary.get("kv", {}).get("num_blocks")
    if isinstance(blocks, list):
        return [int(number) for number in blocks]
    return [] if blocks is None else [int(blocks)] * replicas_of(result)


def replicas_of(result: Result) -> int:
    """How many replicas the run had: as its description says, and no fewer than its iterations name."""
    cluster = config_of(result).get("cluster") or {}
    seen = int(ints(result.iterations, "replica").max(initial=0)) + 1
    return max(int(cluster.get("replicas") or 1), seen)


def _kv(result: Result, edges: Ints) -> Bins:
    """KV use over the replicas, each reduced by itself: a full replica beside an empty one stays visible."""
    table, blocks = result.iterations, kv_blocks(result)
    replica = ints(table, "replica")
    curves = []
    for i in range(max(replicas_of(result), len(blocks))):
        rows = table[replica == i]
        at, used = total(ints(rows, "start_ns"), ints(rows, "end_ns"), ints(rows, "kv_used_blocks"))
        curves.append(over_bins(Steps(at, used / blocks[i] if blocks else used), edges))
    mean, low, high = (np.stack(column) for column in zip(*curves, strict=True))
    return Bins(mean.mean(axis=0), low.min(axis=0), high.max(axis=0))


def attainment(results: Sequence[Result]) -> pd.DataFrame:
    """Attainment and goodput of every run that has limits: of all its requests, then of each class.

    Columns: run, slo_class (EVERYONE for all), limits (in words), sent, met, attainment (share), goodput
    (requests/s), median_ttft_ms, p99_ttft_ms, p99_itl_ms. Classes are left out if there is only one.
    """
    rows = []
    for name, result in zip(run_names(results), results, strict=True):
        slo = result.summary.get("slo")
        if not slo:
            continue
        limits = ", ".join(f"{metric.upper()} {limit:g} ms" for metric, limit in slo.get("limits_ms", {}).items())
        classes = slo.get("classes", {})
        own = classes if len(classes) > 1 else {}
        alone = _targets(next(iter(classes.values()))) if len(classes) == 1 else ""
        everyone = dict(slo)
        everyone |= {key: result.summary.get(key) for key in ("median_ttft_ms", "p99_ttft_ms", "p99_itl_ms")}
        rows.append(_attained(name, EVERYONE, everyone, ", ".join(filter(None, (limits, alone)))))
        rows += [_attained(name, label, report, _targets(report)) for label, report in own.items()]
    return pd.DataFrame(rows)


def _attained(run: str, label: str, report: Mapping[str, Any], limits: str) -> dict[str, Any]:
    row: dict[str, Any] = {"run": run, "slo_class": label, "limits": limits}
    row |= {key: report.get(key) for key in ("sent", "met", "attainment")}
    row["goodput"] = report.get("request_goodput")
    return row | {key: report.get(key) for key in ("median_ttft_ms", "p99_ttft_ms", "p99_itl_ms")}


def _targets(report: Mapping[str, Any]) -> str:
    """The class's own targets in words."""
    targets = report.get("targets_s", {})
    return ", ".join(f"{name.upper()} {value:g} s" for name, value in targets.items() if value is not None)
