"""Speed at scale: W1 over many replicas with least-work routing, tables written, percentiles of each class included.

Two series of streamed runs (vLLM v1, 90 % of capacity): more requests over 64 replicas, and more replicas with as many
requests each. What a run costs is its whole wall time: workload, loop, metrics, Parquet files and summary.
"""

from __future__ import annotations

import math
import os
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.context import SpawnContext
from tempfile import TemporaryDirectory
from typing import Any

from llmsim.benchmarks.workloads import Workload, capacity, simpy_timeouts_per_s, spec_of
from llmsim.runs.orphans import end_with
from llmsim.runs.streaming import simulate_stream
from llmsim.spec.run_spec import ClusterSpec
from llmsim.traces.spec import ClassSpec
from llmsim.traces.workload import ArrivalsSpec

NAME = "scale"
MILLION = 1_000_000
REPLICAS = 64
EACH, LEAST = 1_500, 30_000
"""Requests a replica in the series over replicas, and in all at least: a short run is mostly its start."""
TARGETS = {(MILLION, REPLICAS): {"target_wall_s": 60, "target_rss_mib": 2048}}
CLASSES = (ClassSpec(name="chat", share=0.7, ttft_s=2, tbt_s=0.2), ClassSpec(name="batch", share=0.3, ttlt_s=60))


@dataclass(frozen=True)
class Scale:
    """So many requests over so many replicas."""

    requests: int
    replicas: int
    over_replicas: bool = False
    """Whether it belongs to the series over replicas."""


def cases(most: int = MILLION) -> list[Scale]:
    """Both series, up to `most` requests a run."""
    series = [Scale(n, REPLICAS) for n in (10_000, 30_000, 100_000, 300_000, MILLION)]
    series += [Scale(max(LEAST, EACH * replicas), replicas, over_replicas=True) for replicas in (1, 4, 16, 64, 256)]
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
    over_requests: list[dict[str, Any]] = []
    over_replicas: list[dict[str, Any]] = []
    for case in cases(most):
        with ProcessPoolExecutor(1, mp_context=context, initializer=end_with, initargs=(os.getpid(),)) as pool:
            line = pool.submit(measure_scale, case).result()
        (over_replicas if case.over_replicas else over_requests).append(line)
        yield line
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
            "us_a_doubling": _slope(over_replicas),
            "target": "no more than logarithmic in replicas",
        }


def _slope(lines: Sequence[dict[str, Any]]) -> float:
    """Microseconds of CPU a request from one end of the series to the other, for each doubling of the replicas."""
    one, two = lines[0], lines[-1]
    more = two["cpu_us_per_request"] - one["cpu_us_per_request"]
    return round(float(more) / math.log2(two["replicas"] / one["replicas"]), 2)


def _exponent(lines: Sequence[dict[str, Any]], of: str, value: str) -> float:
    """Slope of log(value) over log(of) between the two largest runs."""
    one, two = sorted(lines, key=lambda line: line[of])[-2:]
    return round(math.log(two[value] / one[value]) / math.log(two[of] / one[of]), 3)
