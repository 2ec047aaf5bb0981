"""check_scheduler: the tests that every policy must pass, for its author to run.

    from llmsim.testing import check_scheduler
    check_scheduler(MyPolicy)

It serves random workloads (ties, preemptions, long prompts) and raises AssertionError with the failing case:
conservation (every request finishes once, every KV block comes back), causality, obedience to the oracle rule,
equal results of macro-steps and single steps, and of two runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from llmsim.core.content import Content, Segment
from llmsim.core.kvcache import KVCache
from llmsim.core.prefix.cache import PrefixCache
from llmsim.core.request import Request
from llmsim.costs.linear import Linear
from llmsim.engine.cluster import Cluster
from llmsim.engine.recorder import Observer, Recorder
from llmsim.errors import SchedulerError
from llmsim.executors.simulated import SimulatedExecutor
from llmsim.routers.round_robin import RoundRobin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmsim.core.batch import Batch
    from llmsim.schedulers.base import Scheduler

COST = Linear(constant=5e-3, per_token=2e-5, per_decode_context=1e-7, per_prefill_attention=1e-9)
MAX_MODEL_LEN = 2000


@dataclass(frozen=True, slots=True)
class Case:
    """One random workload and engine."""

    seed: int
    rate: float
    num_blocks: int
    on_grid: bool
    first_token_at_prefill_end: bool
    count: int = 60

    def requests(self, *, sharing: bool = False) -> list[Request]:
        """Arrivals with heavy-tailed lengths, on a 50 ms grid (many ties) if asked.

        `sharing`: with content that several have, for a cache that finds it.
        """
        rng = np.random.default_rng(self.seed)
        arrivals = (np.cumsum(rng.exponential(1 / self.rate, self.count)) * 1e9).astype(np.int64)
        if self.on_grid:
            arrivals = arrivals // 50_000_000 * 50_000_000
        prompts = np.clip(rng.lognormal(5.3, 1.0, self.count), 1, 1500).astype(int)
        outputs = np.clip(rng.lognormal(3.4, 1.0, self.count), 1, 300).astype(int)
        rows = zip(arrivals.tolist(), prompts.tolist(), outputs.tolist(), strict=True)
        requests = [Request(i, *row) for i, row in enumerate(rows)]
        if sharing:
            for request, content in zip(requests, self.contents(prompts.tolist(), outputs.tolist()), strict=True):
                request.content = content
        return requests

    def contents(self, prompts: list[int], outputs: list[int]) -> list[Content]:
        """Prompts that begin like others (a system prompt, or an earlier prompt with its answer), and answers that
        several requests give."""
        rng = np.random.default_rng((self.seed, 1))
        made: list[Content] = []
        for at, tokens in enumerate(prompts):
            segments: list[Segment]
            if made and rng.random() < 0.5:
                earlier = int(rng.integers(at))
                answer = made[earlier].output or ""
                segments = [*made[earlier].prompt, (answer, outputs[earlier])]
            else:
                segments = [(f"system {rng.integers(3)}", 80 + 37 * int(rng.integers(4)))]
            made.append(Content(_first(tokens, [*segments, (f"user {at}", tokens)]), f"answer {rng.integers(at + 2)}"))
        return made


CASES = [
    Case(seed, rate, num_blocks, grid, semantics)
    for seed, (rate, num_blocks) in enumerate([(0.5, 2000), (6.0, 2000), (6.0, 140), (60.0, 180)])
    for grid in (False, True)
    for semantics in (False, True)
] + [Case(seed, 40.0, 128, False, True, count=120) for seed in (11, 12)]
"""The last two keep a long queue blocked by memory: who is first in line may change while nothing happens."""


def _first(tokens: int, segments: list[Segment]) -> tuple[Segment, ...]:
    """The first so many tokens of the segments."""
    kept: list[Segment] = []
    for stream, length in segments:
        if tokens:
            kept.append((stream, min(length, tokens)))
            tokens -= kept[-1][1]
    return tuple(kept)


class _Checks(Observer):
    """What must hold of every batch."""

    def on_batch(self, batch: Batch, start_ns: int, ends: Sequence[int], scheduler: Scheduler, kv: KVCache) -> None:
        assert ends[0] > start_ns, "an iteration ended before it began"
        assert 0 <= kv.free_blocks <= kv.num_blocks, f"{kv.free_blocks} free blocks of {kv.num_blocks}"
        ids = [r.id for r in batch.prefills] + [r.id for r in batch.decode_list]
        if batch.decodes is not None:
            ids += [r.id for r in batch.decodes.members]
        assert len(set(ids)) == len(ids), f"a request is twice in one batch: {sorted(ids)}"
        for request, chunk in zip(batch.prefills, batch.chunks, strict=True):
            left = request.prefill_tokens - request.computed
            assert 0 < chunk * len(ends) <= left, f"a chunk of {chunk} tokens where {left} are left: {request}"
            needed = kv.blocks_for(request.computed + chunk)
            assert request.blocks >= needed, f"{request} has {request.blocks} KV blocks, its chunk needs {needed}"


def check_scheduler(make: Callable[[], Scheduler], *, cases: Sequence[Case] = CASES) -> None:
    """Run every case; `make` is the policy's class, or a function that makes one. Raises AssertionError.

    A policy with `runs_ahead` is also served by an engine that forms batches one ahead, one with `finds_prefixes` also
    on a prefix cache, with requests that share content.
    """
    policy = make()
    for ahead in {False, policy.runs_ahead}:
        for caching in {False, policy.finds_prefixes}:
            check_cases(partial(_serve, make, ahead=ahead, caching=caching), cases)


def check_cases(serve: Callable[[Case, bool], object], cases: Sequence[Case]) -> None:
    """`serve(case, macro)` must give the same with and without macro-steps, and again. Raises AssertionError."""
    for case in cases:
        try:
            reference = serve(case, False)
            assert serve(case, True) == reference, "macro-steps and single steps differ"
            assert serve(case, False) == reference, "two equal runs differ"
        except (AssertionError, SchedulerError) as error:
            raise AssertionError(f"{error} [{case}]") from error


def _serve(
    make: Callable[[], Scheduler], case: Case, macro: bool, *, ahead: bool, caching: bool
) -> list[tuple[object, ...]]:
    router = RoundRobin()
    router.bind(2, np.random.default_rng(0))
    cluster = Cluster(router)
    cluster.guarded = True
    for _ in range(2):
        kv = PrefixCache(case.num_blocks) if caching else KVCache(case.num_blocks)
        scheduler = make()
        scheduler.bind(kv, MAX_MODEL_LEN)
        cluster.add_replica(
            scheduler,
            SimulatedExecutor(COST),
            kv,
            Recorder(_Checks()),
            macro=macro,
            first_token_at_prefill_end=case.first_token_at_prefill_end,
            async_scheduling=ahead,
        )
    requests = case.requests(sharing=caching)
    cluster.run(requests)
    for request in requests:
        _check_served(request)
    assert not any(replica.kv.used_blocks for replica in cluster.replicas), "blocks were not given back"
    if caching:
        assert any(request.cached_tokens > 0 for request in requests), "nothing was found in the prefix cache"
    return [
        (r.first_scheduled_ns, r.prefill_end_ns, r.finish_ns, r.preemptions, r.chunks, r.cached_tokens)
        for r in requests
    ]


def _check_served(request: Request) -> None:
    """Causality and conservation of one finished request."""
    assert not request.rejected, f"{request} was rejected: {request.rejected}"
    assert request.arrival_ns <= request.first_scheduled_ns < request.prefill_end_ns <= request.finish_ns
    assert request.generated == request.output_tokens, f"{request} should have emitted {request.output_tokens} tokens"
    ranges = request.token_ranges
    emitted = sum(abs(last - first) + 1 for first, last in zip(ranges[::2], ranges[1::2], strict=True))
    assert emitted == request.generated, f"{request} emitted {emitted} tokens by the log"
