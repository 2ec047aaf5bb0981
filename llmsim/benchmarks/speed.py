"""Speed of one replica's loop on each workload and policy, and of the peer on the same requests."""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llmsim.benchmarks.peers import NAME, PeerError, replay
from llmsim.benchmarks.workloads import LENGTHS, Workload, capacity, simpy_timeouts_per_s, spec_of
from llmsim.runs.simulation import Run
from llmsim.traces.workload import ArrivalsSpec, build_workload

TARGETS = {
    ("W1", "vllm_v1", 0.9): 34_000, ("W1", "sarathi", 0.9): 34_000, ("W1", "slai", 0.9): 17_000,
    ("W1", "vllm_v1", 1.1): 17_000, ("W1", "sarathi", 1.1): 17_000,
}  # fmt: skip
"""Requests/s to reach: twice DynoSim's, half of that where the engine is overloaded, and for SLAI."""


def workloads(requests: int) -> list[Workload]:
    """What `make bench` measures."""
    ada, a100 = "rtx-6000-ada/mistral-7b", "a100/llama-3-8b"
    places = {"sharegpt4": ada, "W1": a100, "W2": a100, "W3": a100}
    main, loads = ("vllm_v1", "sarathi"), (0.5, 0.9, 1.1)
    cases = [(name, scheduler, load) for name in places for scheduler in main for load in loads]
    cases += [(name, scheduler, 0.9) for name in places for scheduler in ("slai", "rad")]
    found = [Workload(name, places[name], scheduler, load, requests) for name, scheduler, load in cases]
    return found + [Workload("azure-conv", a100, scheduler, None, requests) for scheduler in main]


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
        "target": None if workload.load is None else TARGETS.get((workload.name, workload.scheduler, workload.load)),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "repeats": repeats,
    }


def measure_peer(workload: Workload, repeats: int) -> float:
    """Requests/s of DynoSim on the workload's lengths at its load, by the median of its own wall times.

    Raises PeerError.
    """
    assert workload.load is not None
    with TemporaryDirectory() as folder:
        burst = spec_of(workload, ArrivalsSpec(kind="poisson", rate=1e6), 2000)
        _, most = replay(build_workload(burst.workload, burst.seed, 1 << 40), Path(folder))
        spec = spec_of(workload, ArrivalsSpec(kind="poisson", rate=workload.load * most), workload.requests)
        requests = build_workload(spec.workload, spec.seed, 1 << 40)
        return len(requests) / statistics.median(replay(requests, Path(folder))[0] for _ in range(repeats))


def peer_lines(chosen: Sequence[Workload], repeats: int) -> dict[tuple[str, float], float]:
    """DynoSim's requests/s by workload and load, each printed as a line of its own; empty where it cannot be had."""
    found: dict[tuple[str, float], float] = {}
    for workload in chosen:
        key = (workload.name, workload.load)
        if workload.name not in LENGTHS or workload.load is None or key in found:
            continue
        try:
            found[workload.name, workload.load] = rate = measure_peer(workload, repeats)
        except PeerError as error:
            print(f"no peer: {error}", file=sys.stderr)
            return found
        line = {"name": workload.name, "scheduler": NAME, "load": workload.load, "requests_per_s": round(rate)}
        print(json.dumps(line), flush=True)
    return found
