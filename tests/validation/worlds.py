"""Live runs without a device: a world whose forward and host times are known, and the same loop as always."""

from __future__ import annotations

import numpy as np
import pandas as pd

from llmsim.core.kvcache import KVCache
from llmsim.costs.calibration import load_calibration
from llmsim.executors.base import Executor
from llmsim.runs.simulation import simulate
from llmsim.spec.run_spec import EngineSpec, RunSpec
from llmsim.traces.arrivals import ArrivalsSpec
from llmsim.traces.distributions import DistributionSpec
from llmsim.traces.lengths import LengthsSpec
from llmsim.traces.spec import WorkloadSpec
from llmsim.validation.compare_runs import compare_runs
from llmsim.validation.live import CompositionLog
from llmsim.validation.record import LiveRun
from llmsim.validation.speed import simulate_at
from llmsim.validation.study import _replayed

CALIBRATION = "a100/llama-3-8b"


def run_spec(rate=4.0, count=120, scheduler="sarathi,chunk_size=512"):
    lengths = LengthsSpec(
        kind="synthetic",
        prompt=DistributionSpec(kind="lognormal", mean=500, std=400, low=4, high=3000),
        output=DistributionSpec(kind="lognormal", mean=100, std=80, low=1, high=600),
    )
    return RunSpec(
        workload=WorkloadSpec(lengths=lengths, arrivals=ArrivalsSpec(kind="poisson", rate=rate), num_requests=count),
        calibration=CALIBRATION,
        scheduler=scheduler,
        engine=EngineSpec(host_overhead_s=0.001),
    )


class World(Executor):
    """Forward passes take `bias` times the model's time, with seeded scatter; the host takes `host_s` an iteration."""

    def __init__(self, model, bias=1.0, host_s=0.001, scatter=0.0, seed=0):
        self.model, self.bias, self.host_s, self.scatter = model, bias, host_s, scatter
        self.random = np.random.default_rng(seed)
        self.forward_ns = []

    def execute(self, batch, start_ns, iterations):
        noise = 1 + self.scatter * self.random.standard_normal()
        forward = round(self.model.seconds(batch) * self.bias * noise * 1e9)
        self.forward_ns.append(forward)
        return (start_ns + forward + round(self.host_s * 1e9),)


def calibration():
    """The calibration as the run sees it, with the run's host overhead."""
    from llmsim.runs.replica_groups import ReplicaGroup

    return ReplicaGroup.of(1, CALIBRATION, run_spec().engine, "sarathi").calibration


def live_run(spec, **world):
    """The spec served by a World."""
    made = []

    def machine(kind, cost):
        made.append(World(load_calibration(CALIBRATION).batch_time.cost_model(), **world))
        return made[-1], KVCache(kind.num_blocks, kind.block_size, kind.engine.watermark)

    log = CompositionLog()
    result = simulate(spec.replace(step_by_step=True), observer=log, machine=machine)
    forward = made[0].forward_ns
    timings = pd.DataFrame({"iteration": range(len(forward)), "forward_ns": forward, "step_ns": forward})
    return LiveRun(result=result, timings=timings, composition=log.table())


def comparison(spec=None, drift=None, **world):
    """The world against the simulation."""
    spec = spec or run_spec()
    live = live_run(spec, **world)
    return compare_runs(
        live,
        simulate(spec),
        calibration(),
        load=0.5,
        rate=4.0,
        replay=_replayed(spec, live, None),
        simulate_at=lambda speed: simulate_at(spec, speed),
        drift=drift,
        drift_samples=None if drift is None else pd.DataFrame({"at_ns": [0, 10**9], "ratio": [drift, drift]}),
        notes=("a note",),
    )
