"""ReplicaGroup: calibration, engine, policy and lifetimes of equal replicas, put together and ready to be built."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llmsim.core.kvcache import KVCache
from llmsim.core.lifetimes import Lifetime, lifetimes_of
from llmsim.core.prefix.cache import PrefixCache
from llmsim.core.request import NEVER
from llmsim.costs.calibration import load_calibration
from llmsim.engine.pools import Pool, Pools
from llmsim.engine.recorder import Recorder
from llmsim.errors import CapacityError, ConfigError
from llmsim.executors.simulated import SimulatedExecutor
from llmsim.metrics.service import GroupStays, Stay
from llmsim.runs.engine_settings import Settings, settled
from llmsim.spec import registry
from llmsim.spec.cluster_spec import GroupSpec
from llmsim.units import to_ns

if TYPE_CHECKING:
    from llmsim.costs.base import CostModel
    from llmsim.costs.calibration import Calibration
    from llmsim.engine.cluster import Cluster
    from llmsim.engine.recorder import Observer
    from llmsim.executors.base import Executor
    from llmsim.schedulers.base import Scheduler
    from llmsim.spec.run_spec import EngineSpec, RunSpec

Machine = Callable[["ReplicaGroup", "CostModel"], "tuple[Executor, KVCache]"]
"""What a replica of a group runs on, given the group's batch-time model: a device and its KV cache."""


def simulated(group: ReplicaGroup, cost: CostModel) -> tuple[Executor, KVCache]:
    """The Machine of a simulation: times from the cost model, blocks that are only counted."""
    return SimulatedExecutor(cost), group.kv_cache()


@dataclass(frozen=True, slots=True)
class ReplicaGroup:
    """Equal replicas, a life each: the engine's numbers once spec and calibration are put together.

    `model` is what requests ask for, `gpus` how many cards a replica takes. `settings` are those of the engine that
    `engine.name` names (None without).
    """

    lifetimes: tuple[Lifetime, ...]
    model: str
    gpus: int
    calibration: Calibration
    engine: EngineSpec
    scheduler: Any
    block_size: int
    num_blocks: int
    max_model_len: int
    settings: Settings | None = None

    @classmethod
    def of(cls, replicas: int | GroupSpec, calibration: str, engine: EngineSpec, scheduler: Any) -> ReplicaGroup:
        """Load the calibration; what group and engine leave open is a named engine's, else the calibration's.

        Blocks by `kv_blocks`.
        """
        group = GroupSpec(replicas=replicas) if isinstance(replicas, int) else replicas
        loaded = _with_overhead(load_calibration(calibration), engine.host_overhead_s)
        whole = settled(loaded, engine, scheduler)
        loaded, engine = whole.calibration, whole.engine
        model, gpus = model_and_gpus(loaded.model)
        size, blocks = engine.block_size or loaded.kv.block_size, kv_blocks(loaded, engine)
        return cls(
            lifetimes_of(group.replicas, group.schedule or (), to_ns(engine.startup_lag_s)),
            group.model or model,
            gpus,
            loaded,
            engine,
            whole.scheduler,
            size,
            blocks,
            engine.max_model_len or loaded.max_model_len,
            None if whole.settings is None else whole.settings | {"block_size": size, "num_blocks": blocks},
        )

    @property
    def count(self) -> int:
        """Replicas that are there at any time."""
        return len(self.lifetimes)

    def kv_cache(self) -> KVCache:
        """The cache of one replica, whose blocks are only counted."""
        cache = PrefixCache if self.engine.enable_prefix_caching else KVCache
        return cache(self.num_blocks, self.block_size, self.engine.watermark)

    def add_to(self, cluster: Cluster, spec: RunSpec, observer: Observer | None, machine: Machine = simulated) -> None:
        """Add the replicas to the cluster, each with a policy of its own, on what `machine` makes."""
        estimates = self.calibration.cost_model()  # for routers, one for all; they need not stay inside the box
        for life in self.lifetimes:
            policy = registry.build("scheduler", with_predictor(self.scheduler))
            if policy is self.scheduler:
                policy = copy.copy(policy)  # an object was given: replicas do not share it
            self._check_caching(policy)
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
                startup_ns=life.ready_ns,
                cost=estimates,
            )

    def _check_caching(self, policy: Scheduler) -> None:
        if self.engine.enable_prefix_caching and not policy.finds_prefixes:
            raise ConfigError(
                f"engine.enable_prefix_caching is true but {type(policy).__name__} does not look for prefixes; leave "
                "it out, or use a policy that does (vllm_v1, sarathi, vllm_v0, rad)"
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


def kv_blocks(calibration: Calibration, engine: EngineSpec) -> int:
    """Blocks of the KV cache: as given, else as many of the engine's size as the calibration's memory holds.

    A block size of one's own changes how the bytes are shared out, never how many there are. Raises CapacityError if
    they are less than one block.
    """
    kv = calibration.kv
    if engine.num_blocks is not None:
        return engine.num_blocks
    if engine.block_size is None:
        return kv.num_blocks
    blocks = kv.num_blocks * kv.block_size // engine.block_size
    if not blocks:
        raise CapacityError(
            f"engine.block_size={engine.block_size} is more than the whole KV cache of {calibration.name}, "
            f"{kv.num_blocks * kv.block_size} tokens; lower it, or give engine.num_blocks too"
        )
    return blocks


def groups_of(spec: RunSpec, scheduler: Any = None) -> list[ReplicaGroup]:
    """The groups of a run, in the order of its replicas; `scheduler` (if given) replaces every policy."""
    described = spec.cluster.groups
    if not described:
        return [ReplicaGroup.of(spec.cluster.replicas, spec.calibration, spec.engine, scheduler or spec.scheduler)]
    return [
        ReplicaGroup.of(
            group,
            group.calibration or spec.calibration,
            group.engine or spec.engine,
            scheduler or group.scheduler or spec.scheduler,
        )
        for group in described
    ]


def limits_of(groups: Sequence[ReplicaGroup]) -> dict[str, int]:
    """The longest prompt, in tokens, of each model: any replica of it must be able to take it."""
    limits: dict[str, int] = {}
    for group in groups:
        limits[group.model] = min(group.max_model_len, limits.get(group.model, group.max_model_len))
    return limits


def members_of(groups: Sequence[ReplicaGroup]) -> dict[str, list[int]]:
    """The replicas of each model, numbered as in the run."""
    members: dict[str, list[int]] = {}
    first = 0
    for group in groups:
        members.setdefault(group.model, []).extend(range(first, first + group.count))
        first += group.count
    return members


def pools_of(groups: Sequence[ReplicaGroup], router: Any, stream: np.random.SeedSequence) -> Pools:
    """A pool a model, each with a router and a random stream of its own; a single one has `stream` itself."""
    members = members_of(groups)
    streams = [stream] if len(members) == 1 else stream.spawn(len(members))
    pools = []
    for model, seeds in zip(members, streams, strict=True):
        built = registry.build("router", router)
        if built is router:
            built = copy.copy(built)  # an object was given: pools do not share it
        pools.append(Pool(model, built, np.random.default_rng(seeds)))
    pool_of = {index: at for at, indices in enumerate(members.values()) for index in indices}
    lifetimes = [life for group in groups for life in group.lifetimes]
    return Pools(pools, [pool_of[index] for index in range(len(lifetimes))], lifetimes)


def stays_of(groups: Sequence[ReplicaGroup], left_ns: Sequence[int]) -> list[GroupStays]:
    """When the replicas of each group were there, given when they had left (NEVER: not in this run)."""
    report, first = [], 0
    for group in groups:
        stays = tuple(
            Stay(
                replica=first + at,
                added_ns=life.added_ns,
                up_ns=life.serves_from_ns,
                removed_ns=NEVER if life.removed_ns is None else life.removed_ns,
                left_ns=left_ns[first + at],
            )
            for at, life in enumerate(group.lifetimes)
        )
        report.append(GroupStays(model=group.model, calibration=group.calibration.name, gpus=group.gpus, stays=stays))
        first += group.count
    return report


def model_and_gpus(name: str) -> tuple[str, int]:
    """What a calibration's model is called without its -tpN, and the N cards that share it (1 without)."""
    shared = re.fullmatch(r"(.+)-tp(\d+)", name)
    return (shared[1], int(shared[2])) if shared else (name, 1)


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
