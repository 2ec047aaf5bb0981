"""vLLM v1: one token budget for all; running requests first, in admission order, then waiting ones.

As vllm/v1/core/sched/scheduler.py, without speculative decoding, encoders and KV transfer. What its versions differ
in stands in `VERSIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.core.batch import Batch
from llmsim.core.request import NEVER, Request
from llmsim.errors import ConfigError
from llmsim.schedulers.base import Scheduler, at_least
from llmsim.schedulers.vllm_rules import POLICIES, VERSIONS, ByUrgency, admission_rank, one_of, urgency

if TYPE_CHECKING:
    from llmsim.core.kvcache import KVCache


@dataclass
class VllmV1(Scheduler):
    """Unified scheduler: every request asks for the tokens it lacks, under `max_num_batched_tokens` a step.

    KV is allocated chunk by chunk; with `reserve_full_isl` (vLLM's scheduler_reserve_full_isl) a request enters
    only if its whole known sequence fits now. When blocks run out the last of `running` is preempted, and nobody
    is admitted in that step. `long_prefill_token_threshold` caps a prompt's chunk (0 = off); without
    `enable_chunked_prefill` a prompt waits until the budget holds what it lacks. `policy` is fcfs or priority: then the
    most urgent waits in front, and the least urgent is preempted. One block is vLLM's null block. `watermark` (a share)
    is kept free at admission; the engine's own is vLLM v0's and does not apply. `version` is a key of VERSIONS.
    """

    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 256
    long_prefill_token_threshold: int = 0
    reserve_full_isl: bool = True
    watermark: float = 0.0
    null_block: bool = True
    policy: str = "fcfs"
    enable_chunked_prefill: bool = True
    version: str = "0.19"

    finds_prefixes = True
    runs_ahead = True

    def __post_init__(self) -> None:
        at_least(1, max_num_batched_tokens=self.max_num_batched_tokens, max_num_seqs=self.max_num_seqs)
        at_least(0, long_prefill_token_threshold=self.long_prefill_token_threshold)
        # vLLM refuses this too: a full house of decodes must fit in one step.
        at_least(self.max_num_seqs, max_num_batched_tokens=self.max_num_batched_tokens)
        if not 0 <= self.watermark < 1:
            raise ConfigError(f"watermark is a share and must be in [0, 1) but got {self.watermark}")
        self.version = str(self.version)  # YAML reads 0.33 as a number
        one_of(POLICIES, policy=self.policy)
        one_of(VERSIONS, version=self.version)
        self._rules = VERSIONS[self.version]
        self._by_priority = self.policy == "priority"
        self.unhashed_first = self._rules.unhashed_first

    def bind(self, kv: KVCache, max_model_len: int) -> None:
        """Start a run; the null block leaves the pool.

        Raises ConfigError without chunked prefill if the budget is below `max_model_len`, as vLLM does.
        """
        if not self.enable_chunked_prefill and self.max_num_batched_tokens < max_model_len:
            raise ConfigError(
                f"without enable_chunked_prefill max_num_batched_tokens must hold a whole sequence of max_model_len="
                f"{max_model_len} tokens but is {self.max_num_batched_tokens}; raise it, or lower engine.max_model_len"
            )
        super().bind(kv, max_model_len)
        if self._by_priority:
            self.waiting = ByUrgency()
        self._watermark_blocks = int(self.watermark * kv.num_blocks)
        if self.null_block:
            kv.withhold(1)
        self._admissions = 0
        self._held_back: list[Request] = []
        self._grown: set[int] = set()
        """Decodes that got a block in the walk under way."""

    @property
    def reserve_blocks(self) -> int:
        """Its own watermark, not the engine's."""
        return self._watermark_blocks

    @property
    def longest_sequence(self) -> int:
        """Growth may take the last block; only a preempted request has to be admitted again."""
        return (self.kv.num_blocks - self._watermark_blocks) * self.kv.block_size

    def schedule(self, now: int) -> Batch:
        """Running requests in admission order, then, if nobody was preempted, waiting ones."""
        batch = Batch(now)
        rested = self._held_back  # decodes that the last step's budget did not reach: all their tokens are known
        if rested:
            self._held_back = []
            for request in rested:
                self.decodes.join(request)
                self.kv.fill(request, request.length - 1)
        self._threshold = self.long_prefill_token_threshold
        if self._threshold and self._rules.threshold_spares_single and self.resident + self.queued == 1:
            self._threshold = 0
        if self.decodes.size or self.prefilling:
            self._continue_running(batch, rested)
        if self.waiting and not batch.preempted:
            self._admit(batch)
        return batch

    def _continue_running(self, batch: Batch, rested: list[Request]) -> None:
        decodes, kv = self.decodes, self.kv
        tokens, growth = decodes.size, decodes.blocks_needed()
        blocks = growth
        for request in self.prefilling:
            chunk = self._chunk(request)
            tokens += chunk
            blocks += max(0, kv.blocks_for(request.computed + chunk) - request.blocks)
        if tokens > self.max_num_batched_tokens and not self._threshold:
            # Only the last admitted can then be a partial prompt: it takes what the decodes leave.
            blocks += self._cut(tokens - self.max_num_batched_tokens)
            tokens = self.max_num_batched_tokens
        if tokens > self.max_num_batched_tokens or blocks > kv.free_blocks:
            self._continue_one_by_one(batch, rested)
            return
        kv.free_blocks -= growth
        for request in rested:
            kv.fill(request, request.length)
        if decodes.size:
            batch.add_decodes(decodes)
        for request in self.prefilling:
            self._run_chunk(request, min(self._chunk(request), self._room(batch)), batch)

    def _cut(self, excess: int) -> int:
        """Blocks (negative) that the one partial prompt saves if its chunk is `excess` tokens shorter."""
        request = self.prefilling[0]
        chunk = self._chunk(request)
        before = max(0, self.kv.blocks_for(request.computed + chunk) - request.blocks)
        return max(0, self.kv.blocks_for(request.computed + chunk - excess) - request.blocks) - before

    def _continue_one_by_one(self, batch: Batch, rested: list[Request]) -> None:
        """The original's walk, for steps in which budget or blocks do not suffice for all."""
        kv, decodes = self.kv, self.decodes
        running = sorted([*decodes.members, *self.prefilling, *self.departing], key=admission_rank)
        served: dict[Request, int] = {}
        room = self.max_num_batched_tokens
        at = 0
        while at < len(running) and room > 0:
            request = running[at]
            if request.finish_ns != NEVER:  # its last token is in flight: it asks for nothing
                at += 1
                continue
            chunk = 1 if self._decoding(request) else min(self._chunk(request), room)
            victim = None
            while victim is not request and self._blocks_lacking(request, chunk) > kv.free_blocks:
                place = self._victim(running)
                victim = running.pop(place)
                if victim in served:
                    room += served.pop(victim)
                    at -= 1
                elif place < at and self._rules.walk_goes_on:
                    at -= 1
                self.preempt(victim, batch)
            if victim is not request:
                self._serve(request, chunk, known_all=request in rested)
                served[request] = chunk
                room -= chunk
                at += 1
            elif not (self._by_priority and self._rules.walk_goes_on):
                break
        self._grown.clear()
        for request in running:
            if request in served and not self._decoding(request):
                batch.add_prefill(request, served[request])
            elif request not in served and request.finish_ns == NEVER and self._decoding(request):
                decodes.leave(request)
                self._held_back.append(request)
        if decodes.size:
            batch.add_decodes(decodes)

    def _victim(self, running: list[Request]) -> int:
        """Who is preempted: the last to have been admitted, or the least urgent."""
        if self._by_priority:
            return max(range(len(running)), key=lambda at: urgency(running[at])[:2])
        return len(running) - 1

    def _serve(self, request: Request, chunk: int, *, known_all: bool) -> None:
        """Blocks for a chunk or a decode; their content is known but for what is in flight."""
        kv = self.kv
        if not self._decoding(request):
            kv.allocate(request, request.computed + chunk)
            kv.fill(request, request.computed + chunk)
            return
        kv.fill(request, self.decodes.length(request) - (0 if known_all else kv.in_flight))
        if self.decodes.needs_block(request):
            kv.take(1)
            self._grown.add(request.id)

    def withdraw(self, request: Request) -> None:
        """As ever; a decode that this step has served already holds the block that it got for it."""
        super().withdraw(request)
        if request.id in self._grown:
            request.blocks += 1

    @staticmethod
    def _decoding(request: Request) -> bool:
        return request.computed >= request.prefill_tokens

    def _blocks_lacking(self, request: Request, chunk: int) -> int:
        if self._decoding(request):
            return 1 if self.decodes.needs_block(request) else 0
        return max(0, self.kv.blocks_for(request.computed + chunk) - request.blocks)

    def _admit(self, batch: Batch) -> None:
        waiting, kv = self.waiting, self.kv
        room = self._room(batch)
        places = self.max_num_seqs - self.resident - len(self._held_back)
        while waiting:
            request = waiting[0]
            tokens = request.prefill_tokens
            if tokens > self.max_model_len and self.reject_too_long(batch):
                continue
            if room <= 0 or places <= 0:
                return
            hit = kv.match(request)
            computed = request.computed = hit.blocks * kv.block_size
            chunk = self._chunk(request)
            request.computed = 0  # it is not in yet
            if chunk > room:
                if not self.enable_chunked_prefill:
                    return
                chunk = room
            needed = kv.blocks_for(tokens if self.reserve_full_isl else computed + chunk) - hit.blocks + hit.free
            if needed > kv.free_blocks - self._watermark_blocks:
                return
            waiting.popleft()
            self._admissions += 1
            request.rank = self._admissions
            self.adopt(request, hit, batch)
            self.prefilling.append(request)
            self._run_chunk(request, chunk, batch)
            room -= chunk
            places -= 1

    def _chunk(self, request: Request) -> int:
        remaining = request.prefill_tokens - request.computed
        limit = self._threshold
        return min(remaining, limit) if limit else remaining

    def _room(self, batch: Batch) -> int:
        return self.max_num_batched_tokens - batch.decode_tokens - batch.prefill_tokens

    def _run_chunk(self, request: Request, chunk: int, batch: Batch) -> None:
        if chunk > 0:
            self.kv.allocate(request, request.computed + chunk)
            self.kv.fill(request, request.computed + chunk)
            batch.add_prefill(request, chunk)

    def steady_iterations(self, batch: Batch) -> int:
        """Decodes alone repeat while every block they may need is free: admission, refused now, stays refused."""
        if batch.prefills or batch.preempted or self.prefilling or self._held_back:
            return 1
        if self.waiting and self.kv.may_find_more(self.waiting[0]):
            return 1
        return self.growth_bound(reserve=0)

    def heeds_arrivals(self, batch: Batch) -> bool:
        """Not if it queues behind a prompt that does not fit, or all places are taken."""
        return (self._by_priority or not self.waiting) and self.resident < self.max_num_seqs
