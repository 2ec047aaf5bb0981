"""Small clusters for tests: random workloads and every built-in policy on a toy cost model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llmsim.core.batch import Work
from llmsim.core.kvcache import KVCache
from llmsim.core.request import Request
from llmsim.costs.base import CostModel
from llmsim.engine.cluster import Cluster
from llmsim.engine.recorder import Observer, Recorder
from llmsim.executors.base import Executor
from llmsim.executors.simulated import SimulatedExecutor
from llmsim.routers.base import Router
from llmsim.routers.round_robin import RoundRobin
from llmsim.schedulers.base import Scheduler
from llmsim.schedulers.continuous import ContinuousBatching
from llmsim.schedulers.dynamic import Dynamic
from llmsim.schedulers.faster_transformer import FasterTransformer
from llmsim.schedulers.hold_n import HoldN
from llmsim.schedulers.naive import Naive
from llmsim.schedulers.niyama import Niyama
from llmsim.schedulers.orca import Orca
from llmsim.schedulers.rad import Rad
from llmsim.schedulers.sarathi import Sarathi
from llmsim.schedulers.simple_chunking import SimpleChunking
from llmsim.schedulers.slai import Slai
from llmsim.schedulers.vllm_v0 import VllmV0
from llmsim.schedulers.vllm_v1 import VllmV1

MAX_MODEL_LEN = 3000

POLICIES: dict[str, Callable[[], Scheduler]] = {
    "continuous": ContinuousBatching,
    "sarathi_fcfs": lambda: Sarathi(chunk_size=256),
    "sarathi_spf": lambda: Sarathi(chunk_size=256, order="spf"),
    "sarathi_dynamic": lambda: Sarathi(dynamic_chunks=True, chunk_max_tokens=2048, chunk_stages=8, chunk_high=512),
    "vllm_v0": VllmV0,
    "vllm_v1": lambda: VllmV1(max_num_batched_tokens=300, max_num_seqs=128),
    "vllm_v1_threshold": lambda: VllmV1(
        max_num_batched_tokens=130, max_num_seqs=128, long_prefill_token_threshold=60, reserve_full_isl=False
    ),
    "orca": lambda: Orca(max_num_seqs=6),
    "faster_transformer": lambda: FasterTransformer(max_num_seqs=6),
    "simple_chunking": lambda: SimpleChunking(chunk_size=256),
    "rad": lambda: Rad(tile=16, chunk=64),
    "rad_cycles": lambda: Rad(tile=16, chunk=64, prefills_per_cycle=5),
    "naive": Naive,
    "dynamic": lambda: Dynamic(batch_size=4, min_batch_size=2),
    "hold_n": lambda: HoldN(hold_n=1),
    "niyama_fcfs": lambda: Niyama(chunk_size=256, mode="fcfs"),
    "niyama_deadline": lambda: Niyama(chunk_size=256, tier_deadlines_s=(2.0, 6.0)),
    "niyama_srpf": lambda: Niyama(chunk_size=64, mode="srpf"),
    "slai_fcfs": lambda: Slai(token_budget=256, order="fcfs", fixed_offset=True),
    "slai_dynamic": lambda: Slai(token_budget=256, memory_limit=0.8, user_priority=True),
}


class LineCost(CostModel):
    """Milliseconds, then microseconds a token, then nanoseconds a context token; a line, priced in ints."""

    def femtoseconds(self, work: Work) -> int:
        """Price."""
        return 4_000_000_003_001 + 21_000_000_007 * work.tokens + 170_013 * work.decode_context

    def seconds(self, work: Work) -> float:
        """Price."""
        return self.femtoseconds(work) / 1e15

    def decode_slope(self, work: Work) -> int:
        """A line in the context."""
        return 170_013


class BentCost(LineCost):
    """The same prices, promised to be a line from 1,200 tokens of context on: runs before are one iteration long."""

    def linear_iterations(self, work: Work) -> int:
        """One until then."""
        return 1 if work.decode_context < 1200 else 50


class CurvedCost(CostModel):
    """No line in the context, so runs of decodes are priced one by one."""

    def seconds(self, work: Work) -> float:
        """Price."""
        return 4e-3 + 2e-5 * work.tokens + 1e-8 * work.decode_context**1.1


class GridCost(CostModel):
    """Every iteration takes 5 ms: with arrivals on the same grid, every event is a tie."""

    def seconds(self, work: Work) -> float:
        """Price."""
        return 5e-3

    def decode_slope(self, work: Work) -> int:
        """Flat."""
        return 0


def workload(seed: int, n: int = 120, rate: float = 6.0, grid_ns: int = 0, longest: int = 1200) -> list[Request]:
    """Poisson arrivals (on a grid if asked) with heavy-tailed lengths."""
    rng = np.random.default_rng(seed)
    arrivals = (np.cumsum(rng.exponential(1 / rate, n)) * 1e9).astype(np.int64)
    if grid_ns:
        arrivals = arrivals // grid_ns * grid_ns
    prompts = np.clip(rng.lognormal(5.3, 1.0, n), 1, longest).astype(int)
    outputs = np.clip(rng.lognormal(3.6, 1.0, n), 1, 400).astype(int)
    rows = zip(arrivals.tolist(), prompts.tolist(), outputs.tolist(), strict=True)
    return [Request(i, *row) for i, row in enumerate(rows)]


def serve(
    requests: list[Request],
    policy: Callable[[], Scheduler],
    *,
    cost: CostModel | None = None,
    num_blocks: int = 400,
    replicas: int = 1,
    macro: bool = True,
    first_token_at_prefill_end: bool = True,
    regenerate_output: bool = False,
    async_scheduling: bool = False,
    max_concurrency: int | None = None,
    horizon_ns: int | None = None,
    router: Router | None = None,
    observer: Observer | None = None,
    max_model_len: int = MAX_MODEL_LEN,
    executor: Executor | None = None,
) -> Cluster:
    """Run to the end and return the cluster."""
    router = router or RoundRobin()
    router.bind(replicas, np.random.default_rng(0))
    cluster = Cluster(router)
    for _ in range(replicas):
        kv = KVCache(num_blocks)
        scheduler = policy()
        scheduler.bind(kv, max_model_len)
        cluster.add_replica(
            scheduler,
            executor or SimulatedExecutor(cost or LineCost()),
            kv,
            Recorder(observer),
            macro=macro,
            first_token_at_prefill_end=first_token_at_prefill_end,
            regenerate_output=regenerate_output,
            async_scheduling=async_scheduling,
        )
    cluster.run(requests, max_concurrency=max_concurrency, horizon_ns=horizon_ns)
    return cluster


def outcome(requests: list[Request]) -> list[tuple[object, ...]]:
    """Everything that happened to each request."""
    names = [
        "id",
        "arrival_ns",
        "first_scheduled_ns",
        "prefill_end_ns",
        "finish_ns",
        "generated",
        "preemptions",
        "chunks",
        "rejected",
        "replica",
    ]
    return [(*(getattr(r, name) for name in names), *r.token_ranges) for r in requests]
