"""Prepared: a spec with its kinds of replicas and its cluster, and how its summary is put together.

What a run that keeps its tables in memory (simulation.py) and one that streams them (streaming/) have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmsim import registry
from llmsim.cluster import Cluster
from llmsim.costs.ranges import RangeTally
from llmsim.fleet_notes import idle_models, late_steps
from llmsim.kinds import Kind, Machine, kinds_of, limits_of, members_of, pools_of, simulated, stays_of
from llmsim.metrics import Definitions, Slo, TallyOptions, parse_slo
from llmsim.metrics.plain import plain
from llmsim.metrics.service import presence_of, service_report
from llmsim.metrics.summary import PERCENTILES, summary_of
from llmsim.traces.served import check_models
from llmsim.traces.totals import order_notes
from llmsim.units import to_ns

if TYPE_CHECKING:
    import pandas as pd

    from llmsim.config import RunSpec
    from llmsim.costs.calibration import Calibration
    from llmsim.metrics import Tally
    from llmsim.metrics.quantiles import Ints
    from llmsim.recorder import Observer
    from llmsim.request import Request, SloClass
    from llmsim.traces.stream import WorkloadStream
    from llmsim.traces.workload import Workload


class Prepared:
    """`scheduler` (a policy object, or anything that spec.scheduler may be) stands in for every policy of the spec."""

    def __init__(self, spec: RunSpec, scheduler: Any = None) -> None:
        self.spec = spec
        self.given = scheduler
        self.kinds = kinds_of(spec, scheduler)
        self.limits = limits_of(self.kinds)
        """Tokens that a prompt for each model may have: any replica of it must be able to take it."""

    def cluster(self, observer: Observer | None = None, machine: Machine = simulated) -> Cluster:
        """A cluster as the spec describes it, nothing served yet."""
        spec = self.spec
        router = registry.build("router", spec.cluster.router)
        # A stream of its own: the spawn key is none that the workload's streams use.
        stream = np.random.SeedSequence(spec.seed, spawn_key=(100,))
        router.bind(spec.cluster.replicas, np.random.default_rng(stream))
        cluster = Cluster(router)
        for kind in self.kinds:
            kind.add_to(cluster, spec, observer, machine)
        if spec.cluster.scheduled or len(self.limits) > 1:
            cluster.pools = pools_of(self.kinds, spec.cluster.router, stream)
        return cluster

    def check_models(self, classes: Sequence[SloClass], index: Ints) -> None:
        """ConfigError if requests, given the class of each (requests,), ask for what this cluster does not serve."""
        check_models(self.limits, classes, np.bincount(index, minlength=len(classes)))

    def serve(
        self,
        cluster: Cluster,
        requests: Iterable[Request],
        max_concurrency: int | None,
        progress: Callable[[int, int], None] | None = None,
        **more: Any,
    ) -> None:
        """Run to the end, or to the horizon; `more` as in Cluster.run."""
        horizon = None if self.spec.horizon_s is None else to_ns(self.spec.horizon_s)
        cluster.run(requests, max_concurrency=max_concurrency, horizon_ns=horizon, progress=progress, **more)

    @property
    def definitions(self) -> Definitions:
        """Whose definitions of the latencies."""
        return "slai" if self.spec.definitions == "slai" else "vllm"

    @property
    def slo(self) -> Slo | None:
        """Run-wide limits."""
        return parse_slo(self.spec.slo) if self.spec.slo else None

    @property
    def label(self) -> str:
        """The policies in one line."""
        return policies_label(self.spec, self.given)

    def tally_options(self, *, targets_expected: bool = False, models: bool = False) -> TallyOptions:
        """What of this run is measured; `models`: requests name models."""
        spec = self.spec
        return TallyOptions(
            definitions=self.definitions,
            slo=self.slo,
            warmup_s=spec.warmup_s,
            kv_num_blocks=[kind.num_blocks for kind in self.kinds for _ in range(kind.count)],
            replicas=spec.cluster.replicas,
            percentiles=PERCENTILES,
            first_token_at_prefill_end=spec.engine.first_token_at_prefill_end,
            targets_expected=targets_expected,
            members=members_of(self.kinds) if models else None,
        )

    def summary(
        self, tally: Tally, ranges: Ranges, workload: Workload | WorkloadStream, cluster: Cluster
    ) -> dict[str, Any]:
        """Name and policy, every metric, who was there when, and how far the calibrations were stretched."""
        spec = self.spec
        summary: dict[str, Any] = {"name": spec.name, "scheduler": self.label, "seed": spec.seed}
        pools = cluster.pools
        stays = stays_of(self.kinds, pools.left_ns) if pools is not None and spec.cluster.scheduled else []
        tally.were_there(presence_of(stays) if stays else None)
        sizes = {kind.block_size for kind in self.kinds}
        summary |= summary_of(
            tally,
            horizon_s=spec.horizon_s or 0,
            block_size=self.kinds[0].block_size if len(sizes) == 1 else None,
            closed_loop=workload.max_concurrency is not None,
        )
        if pools is not None and stays:
            horizon_ns = None if spec.horizon_s is None else to_ns(spec.horizon_s)
            end_ns = tally.run_end_ns(horizon_ns)
            summary["replicas"] = plain(service_report(stays, end_ns, pools.held(end_ns)))
            summary["notes"] = [*summary["notes"], *late_steps(spec.cluster, end_ns, horizon_ns)]
        summary["requests"] |= {
            "not_sent": len(workload) - tally.counts["sent"],
            "dropped_from_trace": dict(workload.dropped),
            "clipped": int(workload.description.get("clipped", 0)),
        }
        notes = [
            *idle_models(members_of(self.kinds), workload.slo_classes),
            *unproven([kind.calibration for kind in self.kinds]),
            *order_notes(workload.description),
        ]
        summary["notes"] = [*summary["notes"], *notes]
        reports = ranges.reports()
        summary["calibration"] = reports[0]
        if len(reports) > 1:
            summary["calibrations"] = reports
        return summary


def names_models(classes: Sequence[SloClass]) -> bool:
    """Whether requests of these classes ask for a model by name."""
    return any(c.model for c in classes)


class Ranges:
    """Iterations of a cluster against the boxes of its calibrations."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        of_replica = [kind.calibration for kind in kinds for _ in range(kind.count)]
        self._calibrations = {calibration.name: calibration for calibration in reversed(of_replica)}
        names = list(dict.fromkeys(calibration.name for calibration in of_replica))
        self._tallies = {name: RangeTally(self._calibrations[name].box) for name in names}
        self._which = np.array([names.index(calibration.name) for calibration in of_replica])

    def add(self, iterations: pd.DataFrame) -> None:
        """Further rows of the iteration table, sorted by replica and iteration."""
        if len(self._tallies) == 1:
            next(iter(self._tallies.values())).add(iterations)
            return
        which = self._which[iterations["replica"].to_numpy()]
        for at, tally in enumerate(self._tallies.values()):
            tally.add(iterations[which == at])

    def reports(self) -> list[dict[str, Any]]:
        """One for each calibration: how much of the run lay outside what it was measured on: counts, shares, worst."""
        return [
            {
                "name": name,
                "iterations_outside_box": tally.outside,
                "share_outside_box": round(tally.outside / tally.iterations, 6) if tally.iterations else 0.0,
                "violations": [violation.as_dict() for violation in tally.violations()],
                "unbounded": list(tally.box.unbounded),
            }
            for name, tally in self._tallies.items()
        ]


def unproven(calibrations: Sequence[Calibration]) -> list[str]:
    """A line if calibrations of an engine were never held against that engine."""
    names = dict.fromkeys(c.name for c in calibrations if c.engine is not None and c.engine.checked is None)
    if not names:
        return []
    return [
        f"{', '.join(names)}: put together from times of single kernels, never held against a server; where two kinds "
        "of kernel measurements exist they differ by up to 15 % (docs/real-servers.md tells how to check yours)"
    ]


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
