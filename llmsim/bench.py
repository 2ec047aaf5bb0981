"""Speed, as ratios measured in one run: ``python -m llmsim.bench [--requests N] [--repeats N]``.

Prints one JSON line a workload. `iterations_per_s` and `requests_per_s` are simulated per second of wall time, the
event loop and the tables of its log included; `simpy_timeouts_per_s` is what SimPy alone makes of bare timeouts,
measured between the repeats in the same process; `ratio` is iterations per timeout. Loads are shares of the
capacity that the policy shows when all requests arrive at once. Every workload runs in a process of its own, so
that `peak_rss_mib` is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import simpy

from llmsim.config import ClusterSpec, EngineSpec, RunSpec
from llmsim.simulation import Run
from llmsim.traces.workload import ArrivalsSpec, LengthsSpec, WorkloadSpec, build_workload

TIMEOUTS = 300_000
SCHEDULERS: dict[str, dict[str, Any]] = {
    "sarathi": {"name": "sarathi", "chunk_size": 512},
    "vllm_v1": {"name": "vllm_v1", "max_num_batched_tokens": 2048, "max_num_seqs": 128},
}
TARGETS = {0.5: 1.0, 0.9: 200 / 1300}
"""Iterations per bare SimPy timeout to reach, by load."""


@dataclass(frozen=True)
class Workload:
    """A trace at a share of capacity (None: with its own arrivals) on a calibration."""

    name: str
    trace: str
    calibration: str
    scheduler: str
    load: float | None
    requests: int


def workloads(requests: int) -> list[Workload]:
    """What `make bench` measures."""
    ada, a100 = "rtx-6000-ada/mistral-7b", "a100/llama-3-8b"
    cases = [("sharegpt4", ada, 0.5), ("sharegpt4", ada, 0.9), ("azure-conv", a100, None)]
    return [
        Workload(trace, trace, calibration, scheduler, load, requests)
        for scheduler in SCHEDULERS
        for trace, calibration, load in cases
    ]


def spec_of(workload: Workload, arrivals: ArrivalsSpec, requests: int) -> RunSpec:
    """The run that serves `requests` of the workload."""
    return RunSpec(
        workload=WorkloadSpec(
            trace=workload.trace, num_requests=requests, arrivals=arrivals, lengths=LengthsSpec(), on_long="drop"
        ),
        calibration=workload.calibration,
        scheduler=SCHEDULERS[workload.scheduler],
        engine=EngineSpec(),
        cluster=ClusterSpec(),
    )


def capacity(workload: Workload) -> float:
    """Requests per second with a queue that never empties: completions over the middle half of a burst."""
    run = Run(spec_of(workload, ArrivalsSpec(kind="poisson", rate=float("inf")), 2000))
    run.serve()
    finishes = sorted(r.finish_ns for r in run.requests)
    quarter = len(finishes) // 4
    return 2 * quarter / ((finishes[3 * quarter] - finishes[quarter]) / 1e9)


def simpy_timeouts_per_s() -> float:
    """Bare timeouts a second in one SimPy process."""
    env = simpy.Environment()

    def ticking() -> Any:
        for _ in range(TIMEOUTS):
            yield env.timeout(1)

    env.process(ticking())
    began = time.perf_counter()
    env.run()
    return TIMEOUTS / (time.perf_counter() - began)


def measure(workload: Workload, repeats: int) -> dict[str, Any]:
    """One line of the report: medians over `repeats`, SimPy and simulation taking turns."""
    arrivals, rate = ArrivalsSpec(), None
    if workload.load is not None:
        rate = workload.load * capacity(workload)
        arrivals = ArrivalsSpec(kind="poisson", rate=rate)
    spec = spec_of(workload, arrivals, workload.requests)
    requests = build_workload(spec.workload, spec.seed, 1 << 40)
    walls, bare, iterations = [], [], 0
    for _ in range(repeats):
        bare.append(simpy_timeouts_per_s())
        run = Run(spec, workload=requests)
        began = time.perf_counter()
        run.serve()
        tables = run.tables()
        walls.append(time.perf_counter() - began)
        iterations = len(tables.iterations)
    wall, timeouts = statistics.median(walls), statistics.median(bare)
    return {
        "name": workload.name,
        "scheduler": workload.scheduler,
        "load": workload.load if workload.load is not None else "own arrivals",
        "rate_rps": None if rate is None else round(rate, 3),
        "requests": len(requests),
        "iterations": iterations,
        "requests_per_s": round(len(requests) / wall),
        "iterations_per_s": round(iterations / wall),
        "simpy_timeouts_per_s": round(timeouts),
        "ratio": round(iterations / wall / timeouts, 3),
        "target": None if workload.load is None else round(TARGETS[workload.load], 3),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "repeats": repeats,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every workload and print its line."""
    parser = argparse.ArgumentParser(prog="python -m llmsim.bench", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    context = multiprocessing.get_context("spawn")
    for workload in workloads(options.requests):
        print(f"measuring {workload.name} on {workload.scheduler} ...", file=sys.stderr)
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            print(json.dumps(pool.submit(measure, workload, options.repeats).result()), flush=True)


if __name__ == "__main__":
    main()
