"""Speed at scale: W1 over many replicas with least-work routing, tables written, percentiles of each class included.

Two series of streamed runs (vLLM v1, 90 % of capacity): more requests over 64 replicas, and more replicas with as many
requests each. What a run costs is its whole wall time: workload, loop, metrics, Parquet files and summary.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.context import SpawnContext
from tempfile import TemporaryDirectory
from typing import Any

from llmsim.bench import Workload, capacity, simpy_timeouts_per_s, spec_of
from llmsim.config import ClusterSpec
from llmsim.streaming import simulate_stream
from llmsim.traces.spec import ClassSpec
from llmsim.traces.workload import ArrivalsSpec

NAME = "scale"
MILLION = 1_000_000
REPLICAS = 64
EACH = 1_500
"""Requests a replica in the series over replicas."""
TARGETS = {(MILLION, REPLICAS): {"target_wall_s": 60, "target_rss_mib": 2048}}
CLASSES = (ClassSpec(name="chat", share=0.7, ttft_s=2, tbt_s=0.2), ClassSpec(name="batch", share=0.3, ttlt_s=60))


@dataclass(frozen=True)
class Scale:
    """So many requests over so many replicas."""

    requests: int
    replicas: int


def cases(most: int = MILLION) -> list[Scale]:
    """Both series, up to `most` requests a run."""
    series = [Scale(n, REPLICAS) for n in (10_000, 30_000, 100_000, 300_000, MILLION)]
    series += [Scale(EACH * replicas, replicas) for replicas in (1, 4, 16, 64, 256)]
    return [case for case in series if case.requests <= most]


def measure_scale(case: Scale) -> dict[str, Any]:
    """One line of the report."""
    workload = Workload("W1", "a100/llama-3-8b", "vllm_v1", 0.9, case.requests)
    rate = 0.9 * capacity(workload) * case.replicas
    spec = spec_of(workload, ArrivalsSpec(kind="poisson", rate=rate), case.requests)
    spec = replace(
        spec,
        workload=replace(spec.workload, classes=CLASSES),
        cluster=ClusterSpec(replicas=case.replicas, router="least_work"),
    )
    timeouts = simpy_timeouts_per_s()
    with TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        result = simulate_stream(spec, folder)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    iterations = result.summary["batches"]["iterations"]
    return {
        "name": f"W1 over {case.replicas} replicas",
        "scheduler": "vllm_v1",
        "router": "least_work",
        "load": 0.9,
        "requests": case.requests,
        "replicas": case.replicas,
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "requests_per_s": round(case.requests / wall),
        "iterations_per_s": round(iterations / wall),
        "cpu_us_per_request": round(cpu / case.requests * 1e6, 1),
        "simpy_timeouts_per_s": round(timeouts),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        **TARGETS.get((case.requests, case.replicas), {}),
    }


def scale_lines(context: SpawnContext, most: int = MILLION) -> Iterator[dict[str, Any]]:
    """Every case in a process of its own, then how the cost grows."""
    lines = []
    for case in cases(most):
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            lines.append(pool.submit(measure_scale, case).result())
        yield lines[-1]
    over_requests = [line for line in lines if line["requests"] != EACH * line["replicas"]]
    over_replicas = [line for line in lines if line["requests"] == EACH * line["replicas"]]
    if len(over_requests) > 1:
        yield {
            "name": "growth with requests",
            "exponent": _exponent(over_requests, "requests", "cpu_s"),
            "target": "1 (linear), once the replicas have filled",
        }
    if len(over_replicas) > 1:
        yield {
            "name": "growth with replicas",
            "cpu_us_per_request": {line["replicas"]: line["cpu_us_per_request"] for line in over_replicas},
            "target": "no more than logarithmic: equal steps from line to line, each four times as many replicas",
        }


def _exponent(lines: Sequence[dict[str, Any]], of: str, value: str) -> float:
    """Slope of log(value) over log(of) between the two largest runs."""
    one, two = sorted(lines, key=lambda line: line[of])[-2:]
    return round(math.log(two[value] / one[value]) / math.log(two[of] / one[of]), 3)
