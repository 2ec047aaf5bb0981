"""vLLM v1: one token budget for all; running requests first, in admission order, then waiting ones.

As vllm/v1/core/sched/scheduler.py of early 2026, policy fcfs, without prefix caching or speculative decoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.core.batch import Batch
from llmsim.core.request import NEVER, Request
from llmsim.errors import ConfigError
from llmsim.schedulers.base import Scheduler, at_least

if TYPE_CHECKING:
    from llmsim.core.kvcache import KVCache


def admission_rank(request: Request) -> int:
    """Place in vLLM's `running` list."""
    return request.rank


@dataclass
class VllmV1(Scheduler):
    """Unified scheduler: every request asks for the tokens it lacks, under `max_num_batched_tokens` a step.

    KV is allocated chunk by chunk; with `reserve_full_isl` (vLLM's scheduler_reserve_full_isl) a request enters
    only if its whole known sequence fits now. When blocks run out the last of `running` is preempted, and nobody
    is admitted in that step. `long_prefill_token_threshold` caps a prompt's chunk (0 = off). One block of the
    pool is vLLM's null block. `watermark` (a share, default 0) is kept free at admission; the engine's own
    watermark is vLLM v0's and does not apply.
    """

    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 256
    long_prefill_token_threshold: int = 0
    reserve_full_isl: bool = True
    watermark: float = 0.0
    null_block: bool = True

    runs_ahead = True

    def __post_init__(self) -> None:
        at_least(1, max_num_batched_tokens=self.max_num_batched_tokens, max_num_seqs=self.max_num_seqs)
        at_least(0, long_prefill_token_threshold=self.long_prefill_token_threshold)
        # vLLM refuses this too: a full house of decodes must fit in one step.
        at_least(self.max_num_seqs, max_num_batched_tokens=self.max_num_batched_tokens)
        if not 0 <= self.watermark < 1:
            raise ConfigError(f"watermark is a share and must be in [0, 1) but got {self.watermark}")

    def bind(self, kv: KVCache, max_model_len: int) -> None:
        """Start a run; the null block leaves the pool."""
        super().bind(kv, max_model_len)
        self._watermark_blocks = int(self.watermark * kv.num_blocks)
        if self.null_block:
            kv.withhold(1)
        self._admissions = 0
        self._held_back: list[Request] = []

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
        for request in self._held_back:  # decodes that the last step's budget did not reach
            self.decodes.join(request)
        self._held_back.clear()
        if self.decodes.size or self.prefilling:
            self._continue_running(batch)
        if self.waiting and not batch.preempted:
            self._admit(batch)
        return batch

    def _continue_running(self, batch: Batch) -> None:
        decodes, kv = self.decodes, self.kv
        tokens, growth = decodes.size, decodes.blocks_needed()
        blocks = growth
        for request in self.prefilling:
            chunk = self._chunk(request)
            tokens += chunk
            blocks += max(0, kv.blocks_for(request.computed + chunk) - request.blocks)
        if tokens > self.max_num_batched_tokens and not self.long_prefill_token_threshold:
            # Only the last admitted can then be a partial prompt: it takes what the decodes leave.
            blocks += self._cut(tokens - self.max_num_batched_tokens)
            tokens = self.max_num_batched_tokens
        if tokens > self.max_num_batched_tokens or blocks > kv.free_blocks:
            self._continue_one_by_one(batch)
            return
        kv.free_blocks -= growth
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

    def _continue_one_by_one(self, batch: Batch) -> None:
        """The original's walk, for steps in which budget or blocks do not suffice for all."""
        kv, decodes = self.kv, self.decodes
        running = sorted([*decodes.members, *self.prefilling, *self.departing], key=admission_rank)
        room = self.max_num_batched_tokens
        at = 0
        while at < len(running) and room > 0:
            request = running[at]
            if request.finish_ns != NEVER:  # its last token is in flight: it asks for nothing
                at += 1
                continue
            decoding = request.computed >= request.prefill_tokens
            chunk = 1 if decoding else min(self._chunk(request), room)
            while self._blocks_lacking(request, chunk) > kv.free_blocks:
                victim = running.pop()
                self.preempt(victim, batch)
                if victim is request:
                    break
            else:
                if not decoding:
                    self._run_chunk(request, chunk, batch)
                elif decodes.needs_block(request):
                    kv.take(1)
                room -= chunk
                at += 1
                continue
            break
        for request in running[at:]:  # the budget ran out before them
            if request.finish_ns == NEVER and request.computed >= request.prefill_tokens:
                decodes.leave(request)
                self._held_back.append(request)
        if decodes.size:
            batch.add_decodes(decodes)

    def _blocks_lacking(self, request: Request, chunk: int) -> int:
        if request.computed >= request.prefill_tokens:
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
            chunk = min(self._chunk(request), room)
            needed = kv.blocks_for(tokens if self.reserve_full_isl else chunk)
            if needed > kv.free_blocks - self._watermark_blocks:
                return
            waiting.popleft()
            self._admissions += 1
            request.rank = self._admissions
            self.prefilling.append(request)
            self._run_chunk(request, chunk, batch)
            room -= chunk
            places -= 1

    def _chunk(self, request: Request) -> int:
        remaining = request.prefill_tokens - request.computed
        limit = self.long_prefill_token_threshold
        return min(remaining, limit) if limit else remaining

    def _room(self, batch: Batch) -> int:
        return self.max_num_batched_tokens - batch.decode_tokens - batch.prefill_tokens

    def _run_chunk(self, request: Request, chunk: int, batch: Batch) -> None:
        if chunk > 0:
            self.kv.allocate(request, request.computed + chunk)
            batch.add_prefill(request, chunk)

    def steady_iterations(self, batch: Batch) -> int:
        """Decodes alone repeat while every block they may need is free: admission, refused now, stays refused."""
        if batch.prefills or batch.preempted or self.prefilling or self._held_back:
            return 1
        return self.growth_bound(reserve=0)

    def heeds_arrivals(self, batch: Batch) -> bool:
        """Not if it queues behind a prompt that does not fit, or all places are taken."""
        return not self.waiting and self.resident < self.max_num_seqs
