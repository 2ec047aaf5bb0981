"""Speed, measured in one run: ``python -m llmsim.benchmarks [--requests N] [--repeats N] [--no-peer] [--only NAME]``.

`--only scale` measures what bench_scale.py describes: a million requests over 64 replicas, and how the cost grows.

Prints one JSON line a workload. `iterations_per_s` and `requests_per_s` are simulated per second of wall time, the
event loop and the tables of its log included; `simpy_timeouts_per_s` is what SimPy alone makes of bare timeouts,
measured between the repeats in the same process; `ratio` is iterations per timeout. `target` is in requests/s, and
`peer` how many times as many requests/s as DynoSim serves in the same run, at the same share of its own capacity.
Loads are shares of the capacity that the policy shows when all requests arrive at once. Every workload runs in a
process of its own, so that `peak_rss_mib` is its own.
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
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import simpy

from llmsim.benchmarks.peers import NAME, PeerError, replay
from llmsim.runs.simulation import Run
from llmsim.spec.run_spec import ClusterSpec, EngineSpec, RunSpec
from llmsim.traces.lengths import DistributionSpec, LengthsSpec
from llmsim.traces.workload import ArrivalsSpec, WorkloadSpec, build_workload

TIMEOUTS = 300_000
SCHEDULERS: dict[str, dict[str, Any]] = {
    "sarathi": {"name": "sarathi", "chunk_size": 512},
    "vllm_v1": {"name": "vllm_v1", "max_num_batched_tokens": 2048, "max_num_seqs": 128},
    "slai": {"name": "slai"},
    "rad": {"name": "rad"},
}
LENGTHS = {
    "W1": ((1180, 900), (214, 150)),
    "W2": ((2260, 0), (220, 0)),
    "W3": ((1000, 0), (440, 0)),
}
"""Prompts and outputs in tokens: mean and standard deviation of a normal distribution, clipped at 1."""
TARGETS = {
    ("W1", "vllm_v1", 0.9): 34_000, ("W1", "sarathi", 0.9): 34_000, ("W1", "slai", 0.9): 17_000,
    ("W1", "vllm_v1", 1.1): 17_000, ("W1", "sarathi", 1.1): 17_000,
}  # fmt: skip
"""Requests/s to reach: twice DynoSim's, half of that where the engine is overloaded, and for SLAI."""


@dataclass(frozen=True)
class Workload:
    """A trace, or lengths of LENGTHS, at a share of capacity (None: with its own arrivals) on a calibration."""

    name: str
    calibration: str
    scheduler: str
    load: float | None
    requests: int

    @property
    def spec(self) -> dict[str, Any]:
        """Trace or lengths of the WorkloadSpec."""
        if self.name not in LENGTHS:
            return {"trace": self.name, "lengths": LengthsSpec(), "on_long": "drop"}
        prompt, output = (_distribution(*numbers) for numbers in LENGTHS[self.name])
        return {"lengths": LengthsSpec(kind="synthetic", prompt=prompt, output=output)}


def _distribution(mean: float, deviation: float) -> DistributionSpec:
    if not deviation:
        return DistributionSpec(kind="fixed", value=round(mean))
    return DistributionSpec(kind="normal", mean=mean, std=deviation, low=1)


def workloads(requests: int) -> list[Workload]:
    """What `make bench` measures."""
    ada, a100 = "rtx-6000-ada/mistral-7b", "a100/llama-3-8b"
    places = {"sharegpt4": ada, "W1": a100, "W2": a100, "W3": a100}
    main, loads = ("vllm_v1", "sarathi"), (0.5, 0.9, 1.1)
    cases = [(name, scheduler, load) for name in places for scheduler in main for load in loads]
    cases += [(name, scheduler, 0.9) for name in places for scheduler in ("slai", "rad")]
    found = [Workload(name, places[name], scheduler, load, requests) for name, scheduler, load in cases]
    return found + [Workload("azure-conv", a100, scheduler, None, requests) for scheduler in main]


def spec_of(workload: Workload, arrivals: ArrivalsSpec, requests: int) -> RunSpec:
    """The run that serves `requests` of the workload."""
    return RunSpec(
        workload=WorkloadSpec(num_requests=requests, arrivals=arrivals, **workload.spec),
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the peer and every workload, and print their lines."""
    parser = argparse.ArgumentParser(prog="python -m llmsim.benchmarks", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", help="one workload: W1, W2, W3, sharegpt4, azure-conv or scale")
    parser.add_argument("--no-peer", action="store_true", help="do not measure DynoSim")
    options = parser.parse_args(arguments)
    context = multiprocessing.get_context("spawn")
    chosen = [w for w in workloads(options.requests) if options.only in (None, w.name)]
    if not chosen and options.only != "scale":
        parser.error(f"--only must be W1, W2, W3, sharegpt4, azure-conv or scale but got {options.only!r}")
    peers = {} if options.no_peer else peer_lines(chosen, options.repeats)
    for workload in chosen:
        print(f"measuring {workload.name} on {workload.scheduler} ...", file=sys.stderr)
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            line = pool.submit(measure, workload, options.repeats).result()
        peer = None if workload.load is None else peers.get((workload.name, workload.load))
        line["peer"] = None if peer is None else round(line["requests_per_s"] / peer, 2)
        print(json.dumps(line), flush=True)
    if options.only in (None, "scale"):
        from llmsim.benchmarks.scale import scale_lines

        print("measuring W1 over many replicas, up to a million requests ...", file=sys.stderr)
        for line in scale_lines(context):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
