"""simulate(spec) -> Result: build the cluster that a RunSpec describes, run it, and make its tables.

It reads the workload and the calibration, and writes nothing.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from llmsim import registry
from llmsim.cluster import Cluster, Progress
from llmsim.config import RunSpec
from llmsim.costs.calibration import load_calibration
from llmsim.costs.ranges import check_ranges, outside_box
from llmsim.executors.simulated import SimulatedExecutor
from llmsim.kvcache import KVCache
from llmsim.metrics import Definitions, parse_slo, request_metrics, summarize
from llmsim.provenance import manifest
from llmsim.recorder import Recorder
from llmsim.results import Result
from llmsim.tabulate import iteration_table, request_table, token_range_table
from llmsim.traces.workload import build_workload
from llmsim.units import to_ns

if TYPE_CHECKING:
    from llmsim.costs.calibration import Calibration
    from llmsim.recorder import Observer
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


class Tables(NamedTuple):
    """The three tables of a run; columns in docs/metrics.md."""

    requests: pd.DataFrame
    iterations: pd.DataFrame
    token_ranges: pd.DataFrame


class Run:
    """One spec on its way to a result: built, then served, then made into tables and a summary.

    `scheduler` (a policy object, or anything that spec.scheduler may be) and `workload` stand in for the spec's
    own; every replica gets a copy of the policy.
    """

    def __init__(
        self,
        spec: RunSpec,
        *,
        scheduler: Any = None,
        workload: Workload | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.spec = spec
        self.calibration = _calibration(spec)
        self.engine = _Engine.of(spec, self.calibration)
        self.workload = workload or build_workload(spec.workload, spec.seed, self.engine.max_model_len)
        self.requests = self.workload.requests()
        self.scheduler = scheduler or spec.scheduler
        self.cluster = self._cluster(observer)

    def _cluster(self, observer: Observer | None) -> Cluster:
        spec = self.spec
        router = registry.build("router", spec.cluster.router)
        # A stream of its own: the spawn key is none that the workload's streams use.
        stream = np.random.SeedSequence(spec.seed, spawn_key=(100,))
        router.bind(spec.cluster.replicas, np.random.default_rng(stream))
        cluster = Cluster(router)
        for _ in range(spec.cluster.replicas):
            policy = registry.build("scheduler", self.scheduler)
            if policy is self.scheduler:
                policy = copy.copy(policy)  # an object was given: replicas do not share it
            kv = KVCache(self.engine.num_blocks, self.engine.block_size, spec.engine.watermark)
            policy.bind(kv, self.engine.max_model_len)
            cluster.add_replica(
                policy,
                SimulatedExecutor(self.calibration.cost_model(strict_range=spec.strict_range)),
                kv,
                Recorder(observer),
                macro=not spec.step_by_step,
                first_token_at_prefill_end=spec.engine.first_token_at_prefill_end,
                regenerate_output=spec.engine.preempted_request_regenerates_output,
            )
        return cluster

    def serve(self, progress: Progress | None = None) -> None:
        """Run to the end, or to the horizon."""
        self.cluster.run(
            self.requests,
            max_concurrency=self.workload.max_concurrency,
            horizon_ns=None if self.spec.horizon_s is None else to_ns(self.spec.horizon_s),
            progress=progress,
        )

    def tables(self) -> Tables:
        """The tables of the requests that were sent."""
        replica_of = self.cluster.replica_of
        sent = [r for r in self.requests if r.id in replica_of]
        iterations = iteration_table([replica.recorder for replica in self.cluster.replicas])
        ranges = token_range_table(sent, replica_of)
        return Tables(request_table(sent, replica_of, iterations, ranges), iterations, ranges)

    def latencies(self, tables: Tables) -> pd.DataFrame:
        """Latencies and SLO verdict of every request, rows as in tables.requests."""
        slo = parse_slo(self.spec.slo) if self.spec.slo else None
        return request_metrics(*tables, definitions=self._definitions, slo=slo).drop(columns="id")

    @property
    def _definitions(self) -> Definitions:
        return "slai" if self.spec.definitions == "slai" else "vllm"

    def summary(self, tables: Tables) -> dict[str, Any]:
        """Name and policy, every metric, and how far the calibration was stretched."""
        spec = self.spec
        summary: dict[str, Any] = {"name": spec.name, "scheduler": scheduler_label(self.scheduler), "seed": spec.seed}
        summary |= summarize(
            *tables,
            definitions=self._definitions,
            slo=parse_slo(spec.slo) if spec.slo else None,
            warmup_s=spec.warmup_s,
            horizon_s=spec.horizon_s or 0,
            kv_num_blocks=self.engine.num_blocks,
            block_size=self.engine.block_size,
            replicas=spec.cluster.replicas,
            closed_loop=self.workload.max_concurrency is not None,
            first_token_at_prefill_end=spec.engine.first_token_at_prefill_end,
        )
        summary["requests"]["not_sent"] = len(self.requests) - len(tables.requests)
        summary["requests"]["dropped_from_trace"] = dict(self.workload.dropped)
        summary["calibration"] = range_report(self.calibration, tables.iterations)
        return summary


def simulate(
    spec: RunSpec,
    *,
    scheduler: Any = None,
    workload: Workload | None = None,
    observer: Observer | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run one spec to its end (or its horizon). Arguments as in `Run`.

    Raises ConfigError, TraceError, CalibrationError, CapacityError or StalledError.
    """
    began = time.perf_counter()
    run = Run(spec, scheduler=scheduler, workload=workload, observer=observer)
    run.serve(progress)
    served = time.perf_counter()
    tables = run.tables()
    summary = run.summary(tables)
    latencies = run.latencies(tables)
    timing = {"simulation_s": served - began, "tables_s": time.perf_counter() - served}
    return Result(
        name=spec.name,
        requests=pd.concat([tables.requests, latencies], axis="columns"),
        iterations=tables.iterations,
        token_ranges=tables.token_ranges,
        summary=summary,
        manifest=manifest(spec, run.workload, run.calibration, timing),
    )


def compare(specs: Sequence[RunSpec], progress: Progress | None = None) -> list[Result]:
    """One result a spec; specs with the same workload and seed serve the very same requests."""
    return [simulate(spec, progress=progress) for spec in specs]


def _calibration(spec: RunSpec) -> Calibration:
    """The spec's calibration, with the host overhead that the spec gives, if it gives one."""
    calibration = load_calibration(spec.calibration)
    overhead = spec.engine.host_overhead_s
    if overhead is None:
        return calibration
    host = replace(calibration.host_overhead, seconds=overhead, included_in_batch_times=overhead == 0)
    return replace(calibration, host_overhead=host)


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
