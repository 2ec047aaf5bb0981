"""RunSetup: a spec with its groups of replicas and its cluster, and how its summary is put together.

What a run that keeps its tables in memory (simulation.py) and one that streams them (streaming/) have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmsim.engine.cluster import Cluster
from llmsim.metrics import Definitions, Slo, TallyOptions, parse_slo
from llmsim.metrics.json_values import json_value
from llmsim.metrics.service import presence_of, service_report
from llmsim.metrics.summary import asked_for, percentiles_with, summary_of
from llmsim.runs.engine_settings import engine_report
from llmsim.runs.labels import policies_label
from llmsim.runs.notes import (
    engine_numbers,
    idle_models,
    idle_watermarks,
    late_steps,
    nothing_shared,
    over_the_limit,
    refuse_nothing_sent,
    unknown_gpus,
    unproven,
)
from llmsim.runs.replica_groups import (
    Machine,
    groups_of,
    limits_of,
    members_of,
    pools_of,
    simulated,
    stays_of,
)
from llmsim.spec import registry
from llmsim.traces.served_models import check_models
from llmsim.traces.workload_facts import order_notes
from llmsim.units import to_ns

if TYPE_CHECKING:
    from llmsim.core.request import Request, SloClass
    from llmsim.costs.ranges import ClusterRanges
    from llmsim.costs.records import Calibration
    from llmsim.engine.recorder import Observer
    from llmsim.metrics import Tally
    from llmsim.metrics.quantiles import Ints
    from llmsim.spec.run_spec import RunSpec
    from llmsim.traces.stream import WorkloadStream
    from llmsim.traces.workload import Workload


class RunSetup:
    """`scheduler` (a policy object, or anything that spec.scheduler may be) stands in for every policy of the spec."""

    def __init__(self, spec: RunSpec, scheduler: Any = None) -> None:
        self.spec = spec
        self.given = scheduler
        self.groups = groups_of(spec, scheduler)
        self.limits = limits_of(self.groups)
        """Tokens that a prompt for each model may have: any replica of it must be able to take it."""

    @property
    def caching(self) -> bool:
        """Whether any replica finds prefixes again."""
        return any(group.engine.enable_prefix_caching for group in self.groups)

    @property
    def calibrations(self) -> list[Calibration]:
        """That of each replica."""
        return [group.calibration for group in self.groups for _ in range(group.count)]

    def cluster(self, observer: Observer | None = None, machine: Machine = simulated) -> Cluster:
        """A cluster as the spec describes it, nothing served yet."""
        spec = self.spec
        router = registry.build("router", spec.cluster.router)
        # A stream of its own: the spawn key is none that the workload's streams use.
        stream = np.random.SeedSequence(spec.seed, spawn_key=(100,))
        router.bind(spec.cluster.replicas, np.random.default_rng(stream))
        cluster = Cluster(router)
        for group in self.groups:
            group.add_to(cluster, spec, observer, machine)
        if spec.cluster.scheduled or len(self.limits) > 1:
            cluster.pools = pools_of(self.groups, spec.cluster.router, stream)
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
            kv_num_blocks=[group.num_blocks for group in self.groups for _ in range(group.count)],
            replicas=spec.cluster.replicas,
            percentiles=percentiles_with(spec.percentiles or ()),
            of_classes=spec.percentiles or (),
            first_token_at_prefill_end=spec.engine.first_token_at_prefill_end,
            targets_expected=targets_expected,
            members=members_of(self.groups) if models else None,
        )

    def summary(
        self, tally: Tally, ranges: ClusterRanges, workload: Workload | WorkloadStream, cluster: Cluster
    ) -> dict[str, Any]:
        """Name and policy, every metric, who was there when, and how far the calibrations were stretched."""
        spec = self.spec
        refuse_nothing_sent(spec, workload, tally.counts["sent"])
        summary: dict[str, Any] = {"name": spec.name, "scheduler": self.label, "seed": spec.seed}
        summary |= engine_report([group.settings for group in self.groups])
        pools = cluster.pools
        stays = stays_of(self.groups, pools.left_ns) if pools is not None and spec.cluster.scheduled else []
        tally.were_there(presence_of(stays) if stays else None)
        sizes = {group.block_size for group in self.groups}
        summary |= summary_of(
            tally,
            horizon_s=spec.horizon_s or 0,
            block_size=self.groups[0].block_size if len(sizes) == 1 else None,
            closed_loop=workload.max_concurrency is not None,
        )
        summary |= asked_for(spec.percentiles)
        if pools is not None and stays:
            horizon_ns = None if spec.horizon_s is None else to_ns(spec.horizon_s)
            end_ns = tally.run_end_ns(horizon_ns)
            summary["replicas"] = json_value(service_report(stays, end_ns, pools.held(end_ns)))
            summary["notes"] = [*summary["notes"], *late_steps(spec.cluster, end_ns, horizon_ns)]
        summary["requests"] |= {
            "not_sent": len(workload) - tally.counts["sent"],
            "dropped_from_trace": dict(workload.dropped),
            "clipped": int(workload.description.get("clipped", 0)),
        }
        if capped := sum(replica.lengths.capped for replica in cluster.replicas):
            summary["requests"]["capped"] = capped
        notes = [
            *over_the_limit(cluster.replicas),
            *engine_numbers(self.groups),
            *unknown_gpus(self.groups),
            *idle_watermarks(self.groups, cluster.replicas),
            *idle_models(members_of(self.groups), workload.slo_classes),
            *unproven(self.calibrations),
            *order_notes(workload.description),
            *(nothing_shared() if self.caching and not workload.tells_content else ()),
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
