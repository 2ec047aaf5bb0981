"""What is measured, on bare SimPy's clock: workloads, at shares of the capacity that a policy shows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import simpy

from llmsim.runs.simulation import Run
from llmsim.spec.run_spec import ClusterSpec, EngineSpec, RunSpec
from llmsim.traces.distributions import DistributionSpec
from llmsim.traces.lengths import LengthsSpec
from llmsim.traces.workload import ArrivalsSpec, WorkloadSpec

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
