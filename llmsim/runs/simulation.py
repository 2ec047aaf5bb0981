"""simulate(spec) -> Result: build the cluster that a RunSpec describes, run it, and make its tables.

It reads the workload and the calibration, and writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from llmsim.costs.ranges import ClusterRanges
from llmsim.engine.cluster import Progress
from llmsim.metrics import EVERYTHING, Tally, Timeline, request_metrics, span_of
from llmsim.runs.manifest import manifest
from llmsim.runs.replica_groups import Machine, simulated
from llmsim.runs.results import Result
from llmsim.runs.setup import RunSetup, names_models
from llmsim.runs.tables import first_tokens, iteration_table, request_table, token_range_table
from llmsim.spec.run_spec import as_run
from llmsim.traces.workload import build_workload
from llmsim.units import to_ns

if TYPE_CHECKING:
    from llmsim.engine.recorder import Observer
    from llmsim.spec.run_spec import RunSpec
    from llmsim.traces.workload import Workload


class Tables(NamedTuple):
    """The three tables of a run; columns in docs/metrics.md."""

    requests: pd.DataFrame
    iterations: pd.DataFrame
    token_ranges: pd.DataFrame


class Run:
    """One spec on its way to a result: built, then served, then made into tables and a summary.

    `scheduler` (a policy object, or anything that spec.scheduler may be) and `workload` stand in for the spec's
    own; every replica gets a copy of the policy. `machine` makes what the replicas run on.
    """

    def __init__(
        self,
        spec: RunSpec,
        *,
        scheduler: Any = None,
        workload: Workload | None = None,
        observer: Observer | None = None,
        machine: Machine = simulated,
    ) -> None:
        self.spec = spec
        self._setup = RunSetup(spec, scheduler)
        self.given, self.groups = scheduler, self._setup.groups
        self.workload = workload or build_workload(spec.workload, spec.seed, self._setup.limits)
        if workload is not None:
            self._setup.check_models(workload.slo_classes, workload.slo_index)
        self.requests = self.workload.requests()
        self.cluster = self._setup.cluster(observer, machine)

    def serve(self, progress: Progress | None = None) -> None:
        """Run to the end, or to the horizon."""
        self._setup.serve(self.cluster, self.requests, self.workload.max_concurrency, progress)

    def tables(self) -> Tables:
        """The tables of the requests that were sent."""
        in_flight = self.cluster.in_flight
        sent = [r for r in self.requests if r.replica >= 0 or r.id in in_flight]
        iterations = iteration_table([replica.recorder for replica in self.cluster.replicas])
        ranges = token_range_table(sent)
        first = first_tokens(np.array([r.id for r in sent], dtype=np.int64), iterations, ranges)
        models = names_models(self.workload.slo_classes)
        caching = self._setup.caching
        table = request_table(sent, first, self.cluster.unstreamed, models=models, caching=caching)
        return Tables(table, iterations, ranges)

    def latencies(self, tables: Tables) -> pd.DataFrame:
        """Latencies and SLO verdict of every request, rows as in tables.requests."""
        setup = self._setup
        return request_metrics(*tables, definitions=setup.definitions, slo=setup.slo).drop(columns="id")

    def summary(self, tables: Tables) -> dict[str, Any]:
        """Name and policy, every metric, who was there when, and how far the calibrations were stretched."""
        spec, setup = self.spec, self._setup
        options = setup.tally_options(models=names_models(self.workload.slo_classes))
        ended_ns = to_ns(spec.horizon_s or 0) or int(tables.iterations["end_ns"].max() if len(tables.iterations) else 0)
        span = span_of(tables.requests, to_ns(spec.warmup_s), ended_ns, options.replicas)
        tally, ranges = Tally(options, span, limit=EVERYTHING), ClusterRanges(self._setup.calibrations)
        tally.add(tables.requests, Timeline.of(*tables), tables.iterations)
        ranges.add(tables.iterations)
        return setup.summary(tally, ranges, self.workload, self.cluster)


def simulate(
    spec: RunSpec | str | Path | Mapping[str, Any],
    *,
    scheduler: Any = None,
    workload: Workload | None = None,
    observer: Observer | None = None,
    progress: Progress | None = None,
    machine: Machine = simulated,
) -> Result:
    """Run one spec, or the YAML file or mapping that describes it, to its end (or its horizon). Arguments as in `Run`.

    Raises ConfigError, TraceError, CalibrationError, CapacityError or StalledError.
    """
    began = time.perf_counter()
    spec = as_run(spec)
    run = Run(spec, scheduler=scheduler, workload=workload, observer=observer, machine=machine)
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
        manifest=manifest(spec, run.workload, [group.calibration for group in run.groups], timing),
    )


def compare(specs: Sequence[RunSpec], progress: Progress | None = None) -> list[Result]:
    """One result a spec; specs with the same workload and seed serve the very same requests."""
    return [simulate(spec, progress=progress) for spec in specs]
