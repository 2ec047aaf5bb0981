"""What a summary says of models and of replicas that come and go, in sentences for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MOST_CHANGES = 8
"""More changes of a group's count than these are told as their range."""


SECONDS_FROM_MS = 10_000.0
"""Latencies that go together are in seconds if one is at least this many milliseconds."""


def fleet_lines(labels: Sequence[str], summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a model and a line a group of a schedule, run by run; none where a run has neither."""
    lines: list[str] = []
    for label, summary in zip(labels, summaries, strict=True):
        of = f", {label}" if len(labels) > 1 else ""
        lines += [f"{model}{of}: {_model(report)}." for model, report in summary.get("models", {}).items()]
        if service := summary.get("replicas"):
            lines += [f"{group['calibration']}{of}: {_group(group)}." for group in service["groups"]]
            lines.append(f"In all{of}: {_cost(service)}.")
    return lines


def _model(report: Mapping[str, Any]) -> str:
    """Answers, rate, the latencies a user feels, and the load."""
    parts = [f"{report['completed']:,} of {report['sent']:,} requests answered"]
    if report["request_throughput"] is not None:
        parts.append(f"{report['request_throughput']:.3g} req/s")
    parts += [
        f"{name.upper()} {_latency(report[f'median_{name}_ms'], report[f'p99_{name}_ms'])}"
        for name in ("ttft", "tpot")
        if report[f"median_{name}_ms"] is not None
    ]
    return ", ".join(parts) + f"; {report['saturation']['verdict']}"


def _latency(median_ms: float, p99_ms: float) -> str:
    """Both in one unit: seconds where the larger is large."""
    unit, scale = ("s", 1e-3) if max(median_ms, p99_ms) >= SECONDS_FROM_MS else ("ms", 1.0)
    median, p99 = (f"{ms * scale:.3g}" if ms * scale < 999.5 else f"{ms * scale:,.0f}" for ms in (median_ms, p99_ms))
    return f"p50 {median}, p99 {p99} {unit}"


def _group(group: Mapping[str, Any]) -> str:
    """How many served when, and how long the drains took."""
    changes = list(_serving(group["timeline"]))
    if len(changes) > MOST_CHANGES:
        counts = [count for _, count in changes]
        told = f"{min(counts)} to {max(counts)} replicas serve, in {len(changes) - 1} changes"
    else:
        first, *rest = changes
        told = "1 replica serves" if first[1] == 1 else f"{first[1]} replicas serve"
        told += "".join(f", {count} from {at:.4g} s" for at, count in rest)
    drains = [drain["drain_s"] for drain in group["drains"]]
    over = [seconds for seconds in drains if seconds is not None]
    if over:
        told += f"; {len(over)} removed had left {max(over):.3g} s later at most"
    if len(over) < len(drains):
        told += f"; {len(drains) - len(over)} were still draining at the end"
    return told


def _serving(timeline: Sequence[Mapping[str, Any]]) -> Iterator[tuple[float, int]]:
    """(seconds, replicas in service) from each change on."""
    last = None
    for row in timeline:
        if row["serving"] != last:
            last = row["serving"]
            yield row["at_s"], row["serving"]


def _cost(service: Mapping[str, Any]) -> str:
    told = f"{service['replica_seconds']:,.0f} replica-seconds, {service['gpu_seconds']:,.0f} GPU-seconds"
    held = service["waited_for_a_replica"]
    if held["requests"]:
        told += f"; {held['requests']:,} requests found nobody in service and waited {held['longest_s']:.3g} s at most"
    return told
