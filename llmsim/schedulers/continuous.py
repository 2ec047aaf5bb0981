"""ContinuousBatching: the rung on which most policies stand; they override one hook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.core.batch import Batch
from llmsim.schedulers.base import Scheduler, at_least

if TYPE_CHECKING:
    from llmsim.core.kvcache import KVCache
    from llmsim.core.request import Request


@dataclass
class ContinuousBatching(Scheduler):
    """Stall-free continuous batching under a token budget: decodes, then prompts under way, then new prompts.

    The algorithm of Sarathi-Serve (OSDI'24). Prompts are cut into chunks so that a batch holds at most
    `chunk_size` tokens (decodes are never cut). Override `order_waiting` to choose who is admitted first.

    While requests wait, an overridden hook is asked at every iteration, as its answer may change with `now` or with
    what else it looks at. A class whose hooks depend on the waiting requests' own lengths and arrivals alone may set
    `steady_hooks` to be asked only when something happens, which is faster.
    """

    finds_prefixes = True
    steady_hooks = False

    chunk_size: int = 512
    max_num_seqs: int = 128

    def __post_init__(self) -> None:
        at_least(1, chunk_size=self.chunk_size, max_num_seqs=self.max_num_seqs)

    def bind(self, kv: KVCache, max_model_len: int) -> None:
        """Start a run; macro-steps are promised only as far as the hooks are known."""
        super().bind(kv, max_model_len)
        self.fixed_chunk = type(self).chunk_limit is ContinuousBatching.chunk_limit
        """Whether every batch has the same budget, `chunk_size`."""
        self.keeps_order = type(self).order_waiting is ContinuousBatching.order_waiting
        """Whether arrivals queue behind everyone else."""
        self._asks_always = not (self.steady_hooks or (self.fixed_chunk and self.keeps_order))

    def order_waiting(self, now: int) -> None:
        """Hook: reorder `self.waiting`; its head is admitted first, and blocks those behind it."""

    def chunk_limit(self, request: Request) -> int:
        """Hook: tokens that a batch may hold when a chunk of this request is added."""
        return self.chunk_size

    def schedule(self, now: int) -> Batch:
        """Decodes, then partial prompts by arrival, then admissions from the head of `waiting`."""
        batch = Batch(now)
        limit = self.chunk_size
        if self.decodes.size:
            self.add_all_decodes(batch)
        for request in self.prefilling:
            if not self.fixed_chunk:
                limit = self.chunk_limit(request)
            room = limit - batch.decode_tokens - batch.prefill_tokens
            if room > 0:  # none left: it stays resident without work (the original would go below zero)
                left = request.prefill_tokens - request.computed
                batch.add_prefill(request, left if left < room else room)
        if self.waiting and not (self.fixed_chunk and batch.decode_tokens + batch.prefill_tokens >= limit):
            self._admit(batch, now)
        return batch

    def _admit(self, batch: Batch, now: int) -> None:
        if not self.keeps_order:
            self.order_waiting(now)
        limit, waiting, kv = self.chunk_size, self.waiting, self.kv
        while waiting:
            request = waiting[0]
            tokens = request.prefill_tokens
            if tokens > self.max_model_len and self.reject_too_long(batch):
                continue
            if not self.fixed_chunk:
                limit = self.chunk_limit(request)
            room = limit - batch.decode_tokens - batch.prefill_tokens
            if (
                room <= 0
                or (batch.preempted and request in batch.preempted)  # not back in the batch that threw it out
                or len(self.prefilling) + self.decodes.size >= self.max_num_seqs
                or not kv.can_admit(tokens, hit := kv.match(request))
            ):
                return
            waiting.popleft()
            self.adopt(request, hit, batch)
            kv.allocate(request, tokens)
            self.start_prefill(request)
            tokens -= request.computed
            batch.add_prefill(request, tokens if tokens < room else room)

    def steady_iterations(self, batch: Batch) -> int:
        """Decodes alone, or with a prompt that takes the whole budget, repeat until one could lack a block.

        Who was not admitted now is not later: memory only shrinks, and budget and number of residents stay.
        """
        if batch.preempted or (self.waiting and self._asks_always):
            return 1
        if self.waiting and self.kv.may_find_more(self.waiting[0], prompts=bool(batch.prefill_seqs)):
            return 1
        if not batch.prefill_seqs:
            return 1 if self.prefilling else self.growth_bound(reserve=1)
        chunk = batch.prefill_tokens
        if batch.prefill_seqs > 1 or not self.fixed_chunk or batch.decode_tokens + chunk < self.chunk_size:
            return 1
        request = batch.prefills[0]
        chunks = (request.prefill_tokens - request.computed) // chunk
        return min(chunks, self.growth_bound(reserve=1)) if chunks > 1 else 1

    def heeds_arrivals(self, batch: Batch) -> bool:
        """Not while a prompt takes the whole budget, nor where the queue's head is blocked and stays the head."""
        if batch.prefill_seqs or len(self.prefilling) + self.decodes.size >= self.max_num_seqs:
            return False
        return not (self.waiting and self.keeps_order)
