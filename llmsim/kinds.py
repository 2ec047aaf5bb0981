"""What the replicas of a run are made of: calibration, engine and policy of each kind, ready to be built."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llmsim import registry
from llmsim.costs.calibration import load_calibration
from llmsim.errors import ConfigError
from llmsim.executors.simulated import SimulatedExecutor
from llmsim.kvcache import KVCache
from llmsim.recorder import Recorder
from llmsim.units import to_ns

if TYPE_CHECKING:
    from llmsim.cluster import Cluster
    from llmsim.config import EngineSpec, RunSpec
    from llmsim.costs.base import CostModel
    from llmsim.costs.calibration import Calibration
    from llmsim.executors.base import Executor
    from llmsim.recorder import Observer
    from llmsim.schedulers.base import Scheduler

Machine = Callable[["Kind", "CostModel"], "tuple[Executor, KVCache]"]
"""What a replica of a kind runs on, given the kind's batch-time model: a device and its KV cache."""


def simulated(kind: Kind, cost: CostModel) -> tuple[Executor, KVCache]:
    """The Machine of a simulation: times from the cost model, blocks that are only counted."""
    return SimulatedExecutor(cost), KVCache(kind.num_blocks, kind.block_size, kind.engine.watermark)


@dataclass(frozen=True, slots=True)
class Kind:
    """`count` equal replicas: the engine's numbers once spec and calibration are put together."""

    count: int
    calibration: Calibration
    engine: EngineSpec
    scheduler: Any
    block_size: int
    num_blocks: int
    max_model_len: int

    @classmethod
    def of(cls, count: int, calibration: str, engine: EngineSpec, scheduler: Any) -> Kind:
        """Load the calibration; what the engine leaves open is the calibration's."""
        loaded = _with_overhead(load_calibration(calibration), engine.host_overhead_s)
        return cls(
            count,
            loaded,
            engine,
            scheduler,
            engine.block_size or loaded.kv.block_size,
            engine.num_blocks or loaded.kv.num_blocks,
            engine.max_model_len or loaded.max_model_len,
        )

    def add_to(self, cluster: Cluster, spec: RunSpec, observer: Observer | None, machine: Machine = simulated) -> None:
        """Add the replicas to the cluster, each with a policy of its own, on what `machine` makes."""
        estimates = self.calibration.cost_model()  # for routers, one for all; they need not stay inside the box
        for _ in range(self.count):
            policy = registry.build("scheduler", with_predictor(self.scheduler))
            if policy is self.scheduler:
                policy = copy.copy(policy)  # an object was given: replicas do not share it
            cost = self.calibration.cost_model(strict_range=spec.strict_range)
            executor, kv = machine(self, cost)
            policy.bind(kv, self.max_model_len)
            cluster.add_replica(
                policy,
                executor,
                kv,
                Recorder(observer),
                macro=not spec.step_by_step,
                first_token_at_prefill_end=self.engine.first_token_at_prefill_end,
                regenerate_output=self.engine.preempted_request_regenerates_output,
                async_scheduling=self._runs_ahead(policy),
                startup_ns=to_ns(self.engine.startup_lag_s),
                cost=estimates,
            )


    def _runs_ahead(self, policy: Scheduler) -> bool:
        asked = self.engine.async_scheduling
        if asked and not policy.runs_ahead:
            raise ConfigError(
                f"engine.async_scheduling is true but the engine of {type(policy).__name__} forms no batch ahead; "
                "leave it out, or use a policy that does (vllm_v1)"
            )
        if asked is None:
            engine = self.calibration.engine
            return policy.runs_ahead and engine is not None and engine.async_scheduling
        return asked


def kinds_of(spec: RunSpec, scheduler: Any = None) -> list[Kind]:
    """The kinds of a run, in the order of its replicas; `scheduler` (if given) replaces every policy."""
    groups = spec.cluster.groups
    if not groups:
        return [Kind.of(spec.cluster.replicas, spec.calibration, spec.engine, scheduler or spec.scheduler)]
    return [
        Kind.of(
            group.replicas,
            group.calibration or spec.calibration,
            group.engine or spec.engine,
            scheduler or group.scheduler or spec.scheduler,
        )
        for group in groups
    ]


def with_predictor(scheduler: Any) -> Any:
    """A policy that plans with predicted batch times (Niyama's `predictor`) given the calibration it names.

    Policies know no calibrations; so the name is looked up here, and what they get is a function of a Work.
    """
    if not isinstance(scheduler, str | Mapping):
        return scheduler
    mapping = registry.as_mapping("scheduler", scheduler)
    named = mapping.get("predictor")
    if not isinstance(named, str) or named == "published":
        return scheduler
    return mapping | {"predictor": load_calibration(named).cost_model().seconds}


def _with_overhead(calibration: Calibration, overhead_s: float | None) -> Calibration:
    """The calibration, with the host overhead that the spec gives, if it gives one."""
    if overhead_s is None:
        return calibration
    host = replace(calibration.host_overhead, seconds=overhead_s, included_in_batch_times=overhead_s == 0)
    return replace(calibration, host_overhead=host)
