"""simulate(spec) -> Result: build the cluster that a RunSpec describes, run it, and make its tables.

It reads the workload and the calibration, and writes nothing.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llmsim import registry
from llmsim.cluster import Cluster, Progress
from llmsim.config import RunSpec, dump_run
from llmsim.costs.calibration import load_calibration
from llmsim.costs.ranges import check_ranges, outside_box
from llmsim.executors.simulated import SimulatedExecutor
from llmsim.kvcache import KVCache
from llmsim.metrics import parse_slo, summarize
from llmsim.provenance import manifest
from llmsim.recorder import Recorder
from llmsim.results import Result
from llmsim.tabulate import iteration_table, request_table, token_range_table
from llmsim.traces.workload import build_workload
from llmsim.units import to_ns

if TYPE_CHECKING:
    from llmsim.costs.calibration import Calibration
    from llmsim.recorder import Observer
    from llmsim.request import Request
    from llmsim.traces.workload import Workload


@dataclass(frozen=True, slots=True)
class _Engine:
    """The engine's numbers once spec and calibration are put together."""

    block_size: int
    num_blocks: int
    max_model_len: int

    @classmethod
    def of(cls, spec: RunSpec, calibration: Calibration) -> _Engine:
        given, kv = spec.engine, calibration.kv
        return cls(
            given.block_size or kv.block_size,
            given.num_blocks or kv.num_blocks,
            given.max_model_len or calibration.max_model_len,
        )


def simulate(
    spec: RunSpec,
    *,
    scheduler: Any = None,
    workload: Workload | None = None,
    observer: Observer | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run one spec to its end (or its horizon).

    `scheduler` (a policy object, or anything that spec.scheduler may be) and `workload` stand in for the spec's
    own; every replica gets a copy of the policy. Raises ConfigError, TraceError, CalibrationError,
    CapacityError or StalledError.
    """
    began = time.perf_counter()
    calibration = load_calibration(spec.calibration)
    engine = _Engine.of(spec, calibration)
    if workload is None:
        workload = build_workload(spec.workload, spec.seed, engine.max_model_len)
    requests = workload.requests()
    cluster = _build(spec, scheduler or spec.scheduler, calibration, engine, observer)
    cluster.run(
        requests,
        max_concurrency=workload.max_concurrency,
        horizon_ns=None if spec.horizon_s is None else to_ns(spec.horizon_s),
        progress=progress,
    )
    ran = time.perf_counter()
    result = _collect(spec, cluster, requests, workload, calibration, engine)
    timing = {"simulation_s": ran - began, "tables_s": time.perf_counter() - ran}
    return replace(result, manifest=manifest(spec, workload, calibration, timing))


def compare(specs: Sequence[RunSpec], progress: Progress | None = None) -> list[Result]:
    """One result a spec; specs with the same workload and seed serve the very same requests."""
    return [simulate(spec, progress=progress) for spec in specs]


def _build(
    spec: RunSpec, scheduler: Any, calibration: Calibration, engine: _Engine, observer: Observer | None
) -> Cluster:
    router = registry.build("router", spec.cluster.router)
    # A stream of its own: the spawn key is none that the workload's streams use.
    router.bind(spec.cluster.replicas, np.random.default_rng(np.random.SeedSequence(spec.seed, spawn_key=(100,))))
    cluster = Cluster(router)
    overhead = spec.engine.host_overhead_s
    if overhead is not None:
        host = replace(calibration.host_overhead, seconds=overhead, included_in_batch_times=overhead == 0)
        calibration = replace(calibration, host_overhead=host)
    for _ in range(spec.cluster.replicas):
        policy = registry.build("scheduler", scheduler)
        if policy is scheduler:
            policy = copy.copy(policy)  # an object was given: replicas do not share it
        kv = KVCache(engine.num_blocks, engine.block_size, spec.engine.watermark)
        policy.bind(kv, engine.max_model_len)
        cluster.add_replica(
            policy,
            SimulatedExecutor(calibration.cost_model(strict_range=spec.strict_range)),
            kv,
            Recorder(observer),
            macro=not spec.step_by_step,
            first_token_at_prefill_end=spec.engine.first_token_at_prefill_end,
            regenerate_output=spec.engine.preempted_request_regenerates_output,
        )
    return cluster


def _collect(
    spec: RunSpec,
    cluster: Cluster,
    requests: list[Request],
    workload: Workload,
    calibration: Calibration,
    engine: _Engine,
) -> Result:
    sent = [r for r in requests if r.id in cluster.replica_of]
    iterations = iteration_table([replica.recorder for replica in cluster.replicas])
    ranges = token_range_table(sent, cluster.replica_of)
    table = request_table(sent, cluster.replica_of, iterations, ranges)
    summary: dict[str, Any] = {"name": spec.name, "scheduler": scheduler_label(spec.scheduler), "seed": spec.seed}
    summary |= summarize(
        table,
        iterations,
        ranges,
        definitions="slai" if spec.definitions == "slai" else "vllm",
        slo=parse_slo(spec.slo) if spec.slo else None,
        warmup_s=spec.warmup_s,
        horizon_s=spec.horizon_s or 0,
        kv_num_blocks=engine.num_blocks,
        block_size=engine.block_size,
        replicas=spec.cluster.replicas,
        closed_loop=workload.max_concurrency is not None,
        first_token_at_prefill_end=spec.engine.first_token_at_prefill_end,
    )
    summary["requests"]["not_sent"] = len(requests) - len(sent)
    summary["requests"]["dropped_from_trace"] = dict(workload.dropped)
    summary["calibration"] = range_report(calibration, iterations)
    return Result(
        name=spec.name,
        requests=table,
        iterations=iterations,
        token_ranges=ranges,
        summary=summary,
        manifest={"config": dump_run(spec)},
    )


def range_report(calibration: Calibration, iterations: pd.DataFrame) -> dict[str, Any]:
    """How much of the run lay outside what the calibration was measured on: counts, shares, worst values."""
    outside = outside_box(calibration.box, iterations)
    return {
        "name": calibration.name,
        "iterations_outside_box": int(outside.sum()),
        "share_outside_box": round(float(outside.mean()), 6) if len(outside) else 0.0,
        "violations": [violation.as_dict() for violation in check_ranges(calibration.box, iterations)],
        "unbounded": list(calibration.box.unbounded),
    }


def scheduler_label(scheduler: Any) -> str:
    """The policy in one line, `name,option=value`; an object by its repr."""
    if isinstance(scheduler, str):
        return scheduler
    if not isinstance(scheduler, Mapping):
        return repr(scheduler)
    options = [f"{key}={value}" for key, value in scheduler.items() if key != "name"]
    return ",".join([str(scheduler["name"]), *options])
