"""simulate(spec) -> Result: build the cluster that a RunSpec describes, run it, and make its tables.

It reads the workload and the calibration, and writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from llmsim import registry
from llmsim.cluster import Cluster, Progress
from llmsim.costs.ranges import check_ranges, outside_box
from llmsim.kinds import Machine, kinds_of, simulated
from llmsim.metrics import Definitions, parse_slo, request_metrics, summarize
from llmsim.provenance import manifest
from llmsim.results import Result
from llmsim.tabulate import first_tokens, iteration_table, request_table, token_range_table
from llmsim.traces.workload import build_workload
from llmsim.units import to_ns

if TYPE_CHECKING:
    from llmsim.config import RunSpec
    from llmsim.costs.calibration import Calibration
    from llmsim.recorder import Observer
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
        self._machine = machine
        self.given = scheduler
        self.kinds = kinds_of(spec, scheduler)
        longest = min(kind.max_model_len for kind in self.kinds)  # any replica must be able to take any prompt
        self.workload = workload or build_workload(spec.workload, spec.seed, longest)
        self.requests = self.workload.requests()
        self.cluster = self._cluster(observer)

    def _cluster(self, observer: Observer | None) -> Cluster:
        spec = self.spec
        router = registry.build("router", spec.cluster.router)
        # A stream of its own: the spawn key is none that the workload's streams use.
        stream = np.random.SeedSequence(spec.seed, spawn_key=(100,))
        router.bind(spec.cluster.replicas, np.random.default_rng(stream))
        cluster = Cluster(router)
        for kind in self.kinds:
            kind.add_to(cluster, spec, observer, self._machine)
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
        sent = [r for r in self.requests if r.replica >= 0]
        iterations = iteration_table([replica.recorder for replica in self.cluster.replicas])
        ranges = token_range_table(sent)
        first = first_tokens(np.array([r.id for r in sent], dtype=np.int64), iterations, ranges)
        return Tables(request_table(sent, first, self.cluster.unstreamed), iterations, ranges)

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
        summary: dict[str, Any] = {"name": spec.name, "scheduler": policies_label(spec, self.given), "seed": spec.seed}
        summary |= summarize(
            *tables,
            definitions=self._definitions,
            slo=parse_slo(spec.slo) if spec.slo else None,
            warmup_s=spec.warmup_s,
            horizon_s=spec.horizon_s or 0,
            kv_num_blocks=[kind.num_blocks for kind in self.kinds for _ in range(kind.count)],
            block_size=self.kinds[0].block_size if len({kind.block_size for kind in self.kinds}) == 1 else None,
            replicas=spec.cluster.replicas,
            closed_loop=self.workload.max_concurrency is not None,
            first_token_at_prefill_end=spec.engine.first_token_at_prefill_end,
        )
        summary["requests"]["not_sent"] = len(self.requests) - len(tables.requests)
        summary["requests"]["dropped_from_trace"] = dict(self.workload.dropped)
        summary["requests"]["clipped"] = int(self.workload.description.get("clipped", 0))
        if notes := unproven([kind.calibration for kind in self.kinds]):
            summary["notes"] = notes
        reports = self._range_reports(tables.iterations)
        summary["calibration"] = reports[0]
        if len(reports) > 1:
            summary["calibrations"] = reports
        return summary

    def _range_reports(self, iterations: pd.DataFrame) -> list[dict[str, Any]]:
        """One for each calibration of the cluster, over the iterations of its replicas."""
        of_replica = [kind.calibration for kind in self.kinds for _ in range(kind.count)]
        replica = iterations["replica"].to_numpy()
        reports = []
        for name in dict.fromkeys(calibration.name for calibration in of_replica):
            members = [i for i, calibration in enumerate(of_replica) if calibration.name == name]
            reports.append(range_report(of_replica[members[0]], iterations[np.isin(replica, members)]))
        return reports


def unproven(calibrations: Sequence[Calibration]) -> list[str]:
    """A line if calibrations of an engine were never held against that engine."""
    names = dict.fromkeys(c.name for c in calibrations if c.engine is not None and c.engine.checked is None)
    if not names:
        return []
    return [
        f"{', '.join(names)}: put together from times of single kernels, never held against a server; where two kinds "
        "of kernel measurements exist they differ by up to 15 % (docs/real-servers.md tells how to check yours)"
    ]


def simulate(
    spec: RunSpec,
    *,
    scheduler: Any = None,
    workload: Workload | None = None,
    observer: Observer | None = None,
    progress: Progress | None = None,
    machine: Machine = simulated,
) -> Result:
    """Run one spec to its end (or its horizon). Arguments as in `Run`.

    Raises ConfigError, TraceError, CalibrationError, CapacityError or StalledError.
    """
    began = time.perf_counter()
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
        manifest=manifest(spec, run.workload, [kind.calibration for kind in run.kinds], timing),
    )


def compare(specs: Sequence[RunSpec], progress: Progress | None = None) -> list[Result]:
    """One result a spec; specs with the same workload and seed serve the very same requests."""
    return [simulate(spec, progress=progress) for spec in specs]


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


def policies_label(spec: RunSpec, scheduler: Any = None) -> str:
    """The policies of a run in one line: the one, or those of its groups in order; `scheduler` replaces them all."""
    if scheduler is not None or not spec.cluster.groups:
        return scheduler_label(scheduler or spec.scheduler)
    each = (scheduler_label(group.scheduler or spec.scheduler) for group in spec.cluster.groups)
    return " + ".join(dict.fromkeys(each))
