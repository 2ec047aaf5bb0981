"""What the replicas of a run are made of: calibration, engine, policy and life of each kind, ready to be built."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llmsim.core.kvcache import KVCache
from llmsim.core.lifetimes import Life, lives
from llmsim.core.request import NEVER
from llmsim.costs.calibration import load_calibration
from llmsim.engine.pools import Pool, Pools
from llmsim.engine.recorder import Recorder
from llmsim.errors import ConfigError
from llmsim.executors.simulated import SimulatedExecutor
from llmsim.metrics.service import GroupStays, Stay
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

Machine = Callable[["Kind", "CostModel"], "tuple[Executor, KVCache]"]
"""What a replica of a kind runs on, given the kind's batch-time model: a device and its KV cache."""


def simulated(kind: Kind, cost: CostModel) -> tuple[Executor, KVCache]:
    """The Machine of a simulation: times from the cost model, blocks that are only counted."""
    return SimulatedExecutor(cost), KVCache(kind.num_blocks, kind.block_size, kind.engine.watermark)


@dataclass(frozen=True, slots=True)
class Kind:
    """Equal replicas, a life each: the engine's numbers once spec and calibration are put together.

    `model` is what requests ask for, `gpus` how many cards a replica takes.
    """

    lives: tuple[Life, ...]
    model: str
    gpus: int
    calibration: Calibration
    engine: EngineSpec
    scheduler: Any
    block_size: int
    num_blocks: int
    max_model_len: int

    @classmethod
    def of(cls, replicas: int | GroupSpec, calibration: str, engine: EngineSpec, scheduler: Any) -> Kind:
        """Load the calibration; what group and engine leave open is the calibration's."""
        group = GroupSpec(replicas=replicas) if isinstance(replicas, int) else replicas
        loaded = _with_overhead(load_calibration(calibration), engine.host_overhead_s)
        model, gpus = model_and_gpus(loaded.model)
        return cls(
            lives(group, to_ns(engine.startup_lag_s)),
            group.model or model,
            gpus,
            loaded,
            engine,
            scheduler,
            engine.block_size or loaded.kv.block_size,
            engine.num_blocks or loaded.kv.num_blocks,
            engine.max_model_len or loaded.max_model_len,
        )

    @property
    def count(self) -> int:
        """Replicas that are there at any time."""
        return len(self.lives)

    def add_to(self, cluster: Cluster, spec: RunSpec, observer: Observer | None, machine: Machine = simulated) -> None:
        """Add the replicas to the cluster, each with a policy of its own, on what `machine` makes."""
        estimates = self.calibration.cost_model()  # for routers, one for all; they need not stay inside the box
        for life in self.lives:
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
                startup_ns=life.ready_ns,
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
            group,
            group.calibration or spec.calibration,
            group.engine or spec.engine,
            scheduler or group.scheduler or spec.scheduler,
        )
        for group in groups
    ]


def limits_of(kinds: Sequence[Kind]) -> dict[str, int]:
    """The longest prompt, in tokens, of each model: any replica of it must be able to take it."""
    limits: dict[str, int] = {}
    for kind in kinds:
        limits[kind.model] = min(kind.max_model_len, limits.get(kind.model, kind.max_model_len))
    return limits


def members_of(kinds: Sequence[Kind]) -> dict[str, list[int]]:
    """The replicas of each model, numbered as in the run."""
    members: dict[str, list[int]] = {}
    first = 0
    for kind in kinds:
        members.setdefault(kind.model, []).extend(range(first, first + kind.count))
        first += kind.count
    return members


def pools_of(kinds: Sequence[Kind], router: Any, stream: np.random.SeedSequence) -> Pools:
    """A pool a model, each with a router and a random stream of its own; a single one has `stream` itself."""
    members = members_of(kinds)
    streams = [stream] if len(members) == 1 else stream.spawn(len(members))
    pools = []
    for model, seeds in zip(members, streams, strict=True):
        built = registry.build("router", router)
        if built is router:
            built = copy.copy(built)  # an object was given: pools do not share it
        pools.append(Pool(model, built, np.random.default_rng(seeds)))
    pool_of = {index: at for at, indices in enumerate(members.values()) for index in indices}
    lives = [life for kind in kinds for life in kind.lives]
    return Pools(pools, [pool_of[index] for index in range(len(lives))], lives)


def stays_of(kinds: Sequence[Kind], left_ns: Sequence[int]) -> list[GroupStays]:
    """When the replicas of each kind were there, given when they had left (NEVER: not in this run)."""
    groups, first = [], 0
    for kind in kinds:
        stays = tuple(
            Stay(
                replica=first + at,
                added_ns=life.added_ns,
                up_ns=life.serves_from_ns,
                removed_ns=NEVER if life.removed_ns is None else life.removed_ns,
                left_ns=left_ns[first + at],
            )
            for at, life in enumerate(kind.lives)
        )
        groups.append(GroupStays(model=kind.model, calibration=kind.calibration.name, gpus=kind.gpus, stays=stays))
        first += kind.count
    return groups


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
